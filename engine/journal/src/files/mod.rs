//! The files of a journal: names, cached descriptors, creation, copying, and reading ahead.

pub(crate) mod atomic_file;
pub(crate) mod copy;
pub(crate) mod descriptors;
pub(crate) mod names;
pub(crate) mod read_ahead;
pub(crate) mod read_header;
