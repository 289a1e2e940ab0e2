//! The writer: appending frames, syncing them, and deleting old segments by age and size.

mod compaction;
mod expiry;
pub(crate) mod helper;
pub(crate) mod retention;
pub(crate) mod sync;
pub(crate) mod writer;
