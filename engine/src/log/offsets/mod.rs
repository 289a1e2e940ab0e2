//! Offsets that groups and transforms have committed: in memory, in the journal, and as programs see them that look at a
//! journal without an engine.

pub(crate) mod commit_right;
pub(crate) mod group;
pub(crate) mod recorded;
pub(crate) mod transform;
