//! A queue's waiting messages, metrics and report, for the user.

use super::QueueCore;
use crate::base::kind::Producers;
use crate::queue::job::Job;
use crate::queue::state::{QueueCounters, QueueState, Waiting};
use crate::topic::metrics::QueueMetrics;
use crate::topic::report::QueueReport;

impl<E: Job, K: Producers> QueueCore<E, K> {
    /// The report of the messages that the queue has now and has not finished.
    pub(in crate::queue) fn report_of(&self, state: &QueueState<E, K>) -> QueueReport {
        let counts = state.leases.counts();
        QueueReport {
            name: self.name.clone(),
            unread: state.input.lag(),
            leased: counts.leased as u64,
            waiting: counts.waiting as u64,
            dying: counts.dying as u64,
            durable: self.log.is_some(),
        }
    }

    pub(in crate::queue) fn peek(&self, limit: usize) -> Vec<Waiting<E>> {
        let now = self.now();
        let mut state = self.lock();
        state.leases.expire(now, usize::MAX);
        self.settle(&mut state, now);
        let peeked = state.peek(limit, now);
        drop(state);
        let peeked = peeked.unwrap_or_else(|panic| panic!("{panic}"));
        let load = |partition, offset| self.log.as_ref()?.load(partition, offset).ok()?;
        let shown = peeked.into_iter().filter_map(|it| {
            let message = it.body.or_else(|| load(it.partition, it.offset))?;
            let (partition, offset, attempts, delay) = (it.partition, it.offset, it.attempts, it.delay);
            Some(Waiting { partition, offset, attempts, delay, message })
        });
        shown.collect()
    }

    pub(in crate::queue) fn metrics(&self) -> QueueMetrics {
        let mut state = self.lock();
        let counts = state.leases.counts();
        let QueueCounters { delivered, redelivered, acked, nacked, deleted, dead, lost, high_water } = state.counters;
        QueueMetrics {
            name: self.name.clone(),
            unread: state.input.lag(),
            leased: counts.leased as u64,
            waiting: counts.waiting as u64,
            dying: counts.dying as u64,
            bytes: counts.bytes as u64,
            full: !state.has_room(self.log.as_ref()),
            delivered,
            redelivered,
            acked,
            nacked,
            expired: counts.expired,
            deleted,
            dead,
            lost,
            high_water: high_water as u64,
        }
    }
}
