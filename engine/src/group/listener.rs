//! Telling a member which partitions it got and lost.

use crate::base::ids::TopicPartition;

/// What happened to a member's assignment. Told to its listener on the thread that polls, in the middle of a poll,
/// when the member holds no batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rebalance {
    /// These are the member's from now on.
    Assigned(Vec<TopicPartition>),
    /// These are about to go to others: flush what belongs to them. All that is committed stays so.
    Revoked(Vec<TopicPartition>),
    /// These have gone already: the member was fenced, or their topic was deleted by force or has failed.
    Lost(Vec<TopicPartition>),
}

/// What a member's owner has called.
pub(crate) type Listener = Box<dyn FnMut(&Rebalance) + Send>;

/// The partitions as text, with commas in between.
pub(super) fn listed(partitions: &[TopicPartition]) -> String {
    match partitions {
        [] => "no partition".to_owned(),
        some => some.iter().map(TopicPartition::to_string).collect::<Vec<_>>().join(", "),
    }
}
