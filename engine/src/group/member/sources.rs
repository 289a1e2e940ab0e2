//! A member's partitions as the sources of its [`MultiWait`](crate::base::multi_wait::MultiWait).

use crate::base::kind::Producers;
use crate::base::multi_wait::WaitSources;
use crate::group::Group;
use crate::group::assigned_partition::{AssignedPartition, Feed, LookContext, NoEvent};
use crate::group::settings::GroupSettings;
use crate::group::signal::MemberSignal;
use slipring_journal::SharedScan;
use slipring_ring::Waiter;

impl<E, K: Producers> GroupSettings<E, K> {
    pub(super) fn looking<'m>(
        &'m self,
        group: &'m Group<E, K>,
        scan: &'m mut Option<Box<SharedScan>>,
    ) -> LookContext<'m> {
        LookContext { group: &group.name, clock: &*group.clock, limit: self.limit, wait: &self.wait, scan }
    }
}

/// A member's partitions while it waits for events.
pub(super) struct AssignedSources<'m, E, K: Producers> {
    pub(super) partitions: &'m mut [Option<AssignedPartition<E, K>>],
    pub(super) signal: &'m MemberSignal,
    pub(super) by: LookContext<'m>,
    /// Why the partition that was checked last had no event, if the member must react to it; `None` otherwise.
    pub(super) no_event: Option<NoEvent>,
}

impl<E: Send + Sync + 'static, K: Producers> WaitSources for AssignedSources<'_, E, K> {
    #[inline]
    fn look(&mut self, source: usize, looks: u32) -> bool {
        let Some(assigned) = &mut self.partitions[source] else { return false };
        assigned.look(&mut self.by, looks).unwrap_or_else(|no_event| {
            self.no_event = Some(no_event);
            true
        })
    }

    fn arm(&mut self, source: usize, waiter: &Waiter) -> bool {
        match &mut self.partitions[source] {
            Some(AssignedPartition { feed: Feed::Ring(consumer), .. }) => consumer.arm(waiter, source),
            // A partition that is read from the journal wakes no waiter. So the member polls again instead of sleeping,
            // until the partition returns to the ring or ends.
            Some(_) => false,
            None => true,
        }
    }

    fn is_interrupted(&self) -> bool {
        self.signal.has_news()
    }
}
