//! What is left to do for the workers of a queue's runs.

use super::QueueState;
use crate::base::kind::Producers;
use crate::queue::job::Job;
use crate::queue::run_worker::Awaited;
use crate::queue::state::PartitionState;
use std::time::Duration;

impl<E: Job, K: Producers> QueueState<E, K> {
    /// True if no message is unread, leased or waiting, so that the workers of a closed topic end.
    pub(in crate::queue) fn is_done(&self) -> bool {
        let counts = self.leases.counts();
        counts.leased + counts.waiting == 0 && self.unread().next().is_none()
    }

    /// The partitions with unread messages.
    fn unread(&self) -> impl Iterator<Item = u32> {
        let open = self.partitions.iter().enumerate().filter(|(_, state)| **state != PartitionState::Over);
        open.filter(|(index, _)| self.input.lag_of(*index) > 0).map(|(index, _)| index as u32)
    }

    /// The workers of runs that have a message in hand, take another one before the time `until` of the engine's clock, or
    /// are about to end because nothing is left. Without room in the side store, or behind an earlier message in strict
    /// order, an unread message cannot be taken; behind one that is in hand it can, later.
    pub(in crate::queue) fn awaited_by(&self, until: Duration) -> Awaited {
        let takes = || {
            let takes_unread = || self.unread().any(|partition| self.leases.may_follow(partition));
            self.leases.is_due(until) || self.refused.is_none() && self.leases.has_room() && takes_unread()
        };
        let taking = if takes() { self.runs.takers() } else { Awaited::Nobody };
        let ending = if self.is_done() { self.runs.threads() } else { Awaited::Nobody };
        self.runs.busy().max(taking).max(ending)
    }
}
