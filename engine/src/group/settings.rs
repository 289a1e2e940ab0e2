//! The settings of a group's member.

use super::assigned_partition::JoinRequest;
use crate::base::kind::Producers;
use crate::log::gap::OnGap;
use slipring_ring::Wait;

/// When a member commits the events that it reads.
///
/// | | commits | after a crash of the handler |
/// |---|---|---|
/// | `Manual` | when the program calls `commit` | uncommitted events are read again: at least once |
/// | `Auto` | when a batch is dropped, its handled events | uncommitted events are read again: at least once |
/// | `AtMostOnce` | before a batch is returned | the events of the batch are not read again: at most once |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Commit {
    /// The program commits, with [`GroupBatch::commit`](crate::group::GroupBatch::commit) and its variants. A managed
    /// member commits the events that its handler has handled.
    #[default]
    Manual,
    /// When the batch is dropped: all events that its iterator has returned, except the last one if the iterator was
    /// not asked for the next. So an event at which a loop ended, by `?`, `break` or a panic, is read again.
    Auto,
    /// The whole batch is committed before it is returned. If it is dropped, its events are not read again by any
    /// member.
    AtMostOnce,
}

/// The settings of a member: what it reads, how it waits, and how it commits.
pub(crate) struct GroupSettings<E, K: Producers> {
    pub(crate) joining: JoinRequest<E, K>,
    pub(crate) limit: usize,
    pub(crate) wait: Wait,
    pub(crate) commit: Commit,
    pub(crate) on_gap: OnGap,
}
