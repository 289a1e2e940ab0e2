//! The notifications of a member's listener about assigned, revoked and lost partitions.

use crate::base::ids::TopicPartition;

/// A change of a member's partitions. The member's listener is called with it during a poll or
/// [`leave`](crate::group::Member::leave), on the calling thread, when the member holds no batch. It is not called when
/// the member is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rebalance {
    /// The member has these partitions from now on.
    Assigned(Vec<TopicPartition>),
    /// These partitions are about to go to other members, so the program should flush its state of them. Committed
    /// events stay committed.
    Revoked(Vec<TopicPartition>),
    /// The member has lost these partitions already: it was fenced, or their topic was deleted by force or has failed.
    Lost(Vec<TopicPartition>),
}

/// The user's function that is called with each change of a member's partitions.
pub(crate) type Listener = Box<dyn FnMut(&Rebalance) + Send>;

/// The partitions as text, separated by commas; "no partition" if there are none.
pub(super) fn listed(partitions: &[TopicPartition]) -> String {
    match partitions {
        [] => "no partition".to_owned(),
        some => some.iter().map(TopicPartition::to_string).collect::<Vec<_>>().join(", "),
    }
}
