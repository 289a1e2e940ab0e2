//! Offsets that groups and transforms have committed: in memory, in the journal, and as those find them who look at a journal
//! from outside.

pub(crate) mod commit_right;
pub(crate) mod group;
pub(crate) mod recorded;
pub(crate) mod transform;
