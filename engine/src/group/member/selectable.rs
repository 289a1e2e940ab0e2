//! A member as a reader for which a selector waits.

use super::Member;
use crate::base::kind::Producers;
use crate::group::assigned_partition::Feed;
use crate::read::selector::Selectable;
use slipring_ring::Waiter;
use std::sync::Arc;

impl<E: Send + Sync + 'static, K: Producers> Selectable for Member<E, K> {
    fn is_ready(&mut self) -> bool {
        Member::is_ready(self)
    }

    fn arm(&mut self, waiter: &Arc<Waiter>, token: usize) -> bool {
        self.signal.watchers.add(waiter, token);
        self.arm_paused(waiter, token);
        let mut read = self.partitions.iter_mut().flatten().filter(|assigned| !assigned.paused && !assigned.ended);
        let armed = read.all(|assigned| match &mut assigned.feed {
            Feed::Ring(consumer) => consumer.arm(waiter, token),
            Feed::Journal(_) => false,
        });
        armed && !self.unsettled && !self.signal.has_news() && !self.has_ended_meanwhile()
    }

    /// True, because both new events of the partitions and changes of the group wake the selector.
    fn may_rest(&self) -> bool {
        true
    }

    fn see(&mut self) {
        self.signal.see(self.group.clock.coarse());
    }

    fn begin_sleep(&mut self) {
        self.begin_to_wait();
    }

    fn awake(&mut self) {
        self.end_to_wait();
    }

    fn identity(&self) -> usize {
        self.signal.number
    }
}
