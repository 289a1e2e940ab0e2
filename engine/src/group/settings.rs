//! What a member of a group reads, and how it commits.

use super::assigned_partition::JoinRequest;
use crate::base::kind::Producers;
use crate::log::gap::OnGap;
use slipring_ring::Wait;

/// When a member commits what it reads.
///
/// | | commits | after a crash of the handler |
/// |---|---|---|
/// | `Manual` | when told | what was not committed is read again: at least once |
/// | `Auto` | when a batch is dropped, what was handled of it | the same |
/// | `AtMostOnce` | before a batch is handed out | what was handed out is not read again: at most once |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Commit {
    /// With [`GroupBatch::commit`](crate::group::GroupBatch::commit), or not at all. A managed member commits what its handler
    /// has done with.
    #[default]
    Manual,
    /// When the batch is dropped: all events that were handed out by its iterator, except the last one if nobody came
    /// back for more. So an event at which a loop was left, by `?`, `break` or a panic, is read again.
    Auto,
    /// Before the batch is handed out. Dropped, it is not read again, and nor is it by a successor.
    AtMostOnce,
}

/// What a member reads, and how it commits.
pub(crate) struct GroupSettings<E, K: Producers> {
    pub(crate) joining: JoinRequest<E, K>,
    pub(crate) limit: usize,
    pub(crate) wait: Wait,
    pub(crate) commit: Commit,
    pub(crate) on_gap: OnGap,
}
