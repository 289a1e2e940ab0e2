//! The eviction of consumers for which the producers of a full partition would wait.

use super::consumers::ConsumerIndex;
use super::{TopicCore, stage_name};
use crate::base::kind::Producers;
use crate::base::overload::Slow;
use crate::base::overload::{ConsumerStats, TopicCounters};
use crate::base::trace::lifecycle;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

/// The result of evicting a slow consumer: see [`TopicCore::evict_slow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evicted {
    /// The consumer has no stage in any partition any more, so producers no longer wait for it.
    Gone,
    /// Producers still wait for the consumer. It is removed when its batch ends or at its next poll; or it stays,
    /// because a consumer that reads after it may not be evicted.
    Leaves,
}

impl<E, K: Producers> TopicCore<E, K> {
    fn consumer_stats(&self) -> MutexGuard<'_, ConsumerIndex> {
        self.consumer_stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the counters of a new consumer. If its policy allows eviction, calls
    /// [`expect_evictions`](Self::expect_evictions).
    pub(crate) fn register(&self, stats: &Arc<ConsumerStats>) {
        self.consumer_stats().add(stats);
        if stats.slow() != Slow::Gate {
            self.expect_evictions();
        }
    }

    /// From now on, producers that find a partition full check if a consumer must be evicted.
    pub(crate) fn expect_evictions(&self) {
        self.evicts.store(true, Ordering::Relaxed);
    }

    /// The counters of the consumer with this stage name; of several with the name, those of the latest. `None` if no
    /// consumer has the name.
    pub(crate) fn stats(&self, name: &str) -> Option<Arc<ConsumerStats>> {
        self.consumer_stats().get(stage_name::without_generation(name))
    }

    /// The names of consumers that may read the topic from the journal, without a stage in a ring.
    pub(super) fn journal_readers(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.consumer_stats().all().filter(|stats| stats.reads_journal()).map(|stats| stats.name.clone()).collect();
        names.sort();
        names
    }

    pub(crate) fn evicts(&self) -> bool {
        self.evicts.load(Ordering::Relaxed)
    }

    /// Returns the stage name `name` with the [`Slow`] policy of its consumer. `None` if the stage is not that of a
    /// subscriber or a group, but for example the journal's.
    pub(crate) fn slow(&self, name: String) -> Option<(String, Slow)> {
        let slow = self.stats(&name)?.slow();
        Some((name, slow))
    }

    /// Evicts the consumer with this stage name, for which producers have waited as long as its policy allows. Counts
    /// the eviction once.
    pub(crate) fn evict_slow(&self, name: &str) -> Evicted {
        use slipring_ring::StageError::StoodBehind;
        let stats = self.stats(name);
        match self.evict(name) {
            Ok(at_once) => {
                if stats.is_some_and(|stats| !stats.evicted.swap(true, Ordering::Relaxed)) {
                    TopicCounters::add(&self.counts.evicted, 1);
                    lifecycle!(warn, "consumer evicted", topic = self.name, consumer = name);
                }
                if at_once { Evicted::Gone } else { Evicted::Leaves }
            }
            // The consumer `behind` reads after this one and has not read further, so it is evicted instead.
            Err(StoodBehind { behind, .. }) => match self.slow(behind) {
                Some((behind, Slow::EvictAfter(_))) => self.evict_slow(&behind),
                _ => Evicted::Leaves,
            },
            Err(_) => Evicted::Gone,
        }
    }

    /// Removes a consumer's stages from all partitions, or from none if it returns an error. Returns false if some stay
    /// until the consumer's batch ends or it polls again.
    ///
    /// # Errors
    /// No partition has a stage of this name, or another stage is ordered after it in one.
    pub(crate) fn evict(&self, consumer: &str) -> Result<bool, slipring_ring::StageError> {
        use slipring_ring::StageError::{Fence, InBatch, StoodBehind, Unknown};
        let (mut unknown, mut found, mut at_once) = (None, false, true);
        let partitions = self.partitions();
        for partition in partitions.iter() {
            match partition.ring.check_evict(consumer) {
                Ok(()) | Err(Unknown { .. }) => {}
                Err(refused) => return Err(refused),
            }
        }
        for partition in partitions.iter() {
            match partition.ring.evict(consumer) {
                Ok(_) => found = true,
                // The consumer removes its stage itself, when its batch ends or at its next poll.
                Err(InBatch { .. } | Fence { .. }) => (found, at_once) = (true, false),
                Err(refused @ Unknown { .. }) => unknown = Some(refused),
                // The other consumer has joined after the check. A consumer joins the first partition first, so one
                // that is joining is found there, before any stage is removed. One that is found only in a later
                // partition is leaving again. Then the evicted consumer removes its stage in this partition itself.
                Err(StoodBehind { .. }) if found => at_once = false,
                Err(refused) => return Err(refused),
            }
        }
        if found { Ok(at_once) } else { unknown.map_or(Ok(true), Err) }
    }
}
