//! Evicting subscribers that a full partition waits for.

use super::{TopicCore, stage_name};
use crate::base::kind::Producers;
use crate::base::overload::Slow;
use crate::base::overload::{ConsumerStats, TopicCounters};
use crate::base::trace::lifecycle;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

/// What became of an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evicted {
    /// It holds nobody up any more.
    Gone,
    /// It goes when the batch that it is in ends.
    Leaves,
}

impl<E, K: Producers> TopicCore<E, K> {
    /// Has a subscriber's counters shown, and its policy kept.
    pub(crate) fn register(&self, stats: &Arc<ConsumerStats>) {
        let mut consumer_stats = self.consumer_stats.lock().unwrap_or_else(PoisonError::into_inner);
        consumer_stats.retain(|stats| stats.strong_count() > 0);
        consumer_stats.push(Arc::downgrade(stats));
        if stats.slow() != Slow::Gate {
            self.expect_evictions();
        }
    }

    /// There is somebody who must not hold producers up.
    pub(crate) fn expect_evictions(&self) {
        self.evicts.store(true, Ordering::Relaxed);
    }

    /// The subscriber of this name; of several one after the other, the last.
    pub(crate) fn stats(&self, name: &str) -> Option<Arc<ConsumerStats>> {
        let consumer_stats = self.consumer_stats.lock().unwrap_or_else(PoisonError::into_inner);
        consumer_stats
            .iter()
            .rev()
            .filter_map(Weak::upgrade)
            .find(|stats| stats.name == stage_name::without_generation(name))
    }

    pub(crate) fn evicts(&self) -> bool {
        self.evicts.load(Ordering::Relaxed)
    }

    /// How a consumer that is in the way is to be treated: itself, or who stands behind it at the same place. None if it
    /// is no subscriber.
    pub(crate) fn slow(&self, name: String) -> Option<(String, Slow)> {
        let slow = self.stats(&name)?.slow();
        Some((name, slow))
    }

    /// Evicts a subscriber that is in the way.
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
            // Whoever stands behind it is no further than it is.
            Err(StoodBehind { behind, .. }) => match self.slow(behind) {
                Some((behind, Slow::EvictAfter(_))) => self.evict_slow(&behind),
                _ => Evicted::Leaves,
            },
            Err(_) => Evicted::Gone,
        }
    }

    /// Takes a consumer's gates away, in all partitions. False if some go only when a batch ends.
    pub(crate) fn evict(&self, consumer: &str) -> Result<bool, slipring_ring::StageError> {
        use slipring_ring::StageError::{Fence, InBatch, Unknown};
        let (mut unknown, mut found, mut at_once) = (None, false, true);
        for partition in self.partitions().iter() {
            match partition.ring.evict(consumer) {
                Ok(_) => found = true,
                // It leaves by itself: when its batch ends, or at its next poll.
                Err(InBatch { .. } | Fence { .. }) => (found, at_once) = (true, false),
                Err(refused @ Unknown { .. }) => unknown = Some(refused),
                Err(refused) => return Err(refused),
            }
        }
        if found { Ok(at_once) } else { unknown.map_or(Ok(true), Err) }
    }
}
