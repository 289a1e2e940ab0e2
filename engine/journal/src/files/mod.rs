//! The files of a journal: their names, the few descriptors that stay open, creating and copying them, and reading them ahead.

pub(crate) mod atomic_file;
pub(crate) mod copy;
pub(crate) mod descriptors;
pub(crate) mod names;
pub(crate) mod read_ahead;
pub(crate) mod read_header;
