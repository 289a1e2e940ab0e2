//! Committed offsets of groups and transforms: in memory, in the journal, and as read from a journal without an engine.

pub(crate) mod commit_right;
pub(crate) mod commit_word;
pub(crate) mod group;
pub(crate) mod recorded;
pub(crate) mod transform;
