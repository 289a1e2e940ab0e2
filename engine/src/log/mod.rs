//! The committer, which is the only thread that writes the journal, and the state that the engine keeps in the journal
//! beside events.

pub(crate) mod bridge;
pub(crate) mod catalog;
pub(crate) mod committer;
mod committer_thread;
pub(crate) mod compaction;
pub(crate) mod convert;
pub(crate) mod forget;
mod forget_groups;
pub(crate) mod gap;
pub(crate) mod layouts;
pub(crate) mod offset_waits;
pub(crate) mod offsets;
pub(crate) mod partition_key;
pub(crate) mod producers;
pub(crate) mod progress;
pub(crate) mod queues;
pub(crate) mod receipt;
pub(crate) mod source;
