//! Notifying a member's listener of assigned and revoked partitions.

use crate::base::ids::TopicPartition;

/// A change of a member's partitions. Its listener gets it on the polling thread, during a poll, when the member holds
/// no batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rebalance {
    /// These partitions are the member's from now on.
    Assigned(Vec<TopicPartition>),
    /// These partitions are about to go to other members: flush their state. Committed events stay committed.
    Revoked(Vec<TopicPartition>),
    /// These partitions were taken already: the member was fenced, or their topic was deleted by force or has failed.
    Lost(Vec<TopicPartition>),
}

/// The user's function that is called with each change.
pub(crate) type Listener = Box<dyn FnMut(&Rebalance) + Send>;

/// The partitions as text, separated by commas.
pub(super) fn listed(partitions: &[TopicPartition]) -> String {
    match partitions {
        [] => "no partition".to_owned(),
        some => some.iter().map(TopicPartition::to_string).collect::<Vec<_>>().join(", "),
    }
}
