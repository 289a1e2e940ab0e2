//! Consumers of a topic: their counters by name, and the managed ones, which have their own threads, running or ended.

use crate::base::overload::ConsumerStats;
use slipring_ring::{Ending, Wait};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A managed consumer, running or ended.
pub(crate) struct ConsumerRun {
    pub(crate) stats: Arc<ConsumerStats>,
    /// True once the program has cancelled the consumer. Its unread events are then not reported.
    pub(crate) cancelled: AtomicBool,
    state: Mutex<ConsumerRunState>,
}

#[derive(Default)]
pub(crate) struct ConsumerRunState {
    /// For each partition that the consumer no longer reads, the next offset that it would have read. A partition
    /// without an entry is still being read.
    pub(crate) consumed: BTreeMap<u32, u64>,
    /// How the consumer ended; of several threads, the worst ending. `None` while no thread has ended.
    pub(crate) ending: Option<Ending>,
    /// The number of threads that have not ended.
    pub(crate) threads: usize,
    /// The memberships of the consumer's threads, whose wait strategy can be changed.
    pub(crate) memberships: Vec<Weak<dyn SetWait>>,
}

/// A consumer whose wait strategy can be changed while it waits.
pub(crate) trait SetWait: Send + Sync {
    fn set_wait(&self, wait: Wait);
}

impl ConsumerRun {
    pub(crate) fn new(stats: Arc<ConsumerStats>) -> Arc<Self> {
        Arc::new(Self { stats, cancelled: AtomicBool::new(false), state: Mutex::default() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, ConsumerRunState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the consumer was cancelled and all its threads have ended without a failure, so that it is not reported.
    pub(crate) fn is_forgotten(&self) -> bool {
        let state = self.state();
        let failed = matches!(state.ending, Some(Ending::Failed(_)));
        self.cancelled.load(Ordering::Acquire) && state.threads == 0 && !failed
    }

    /// Records that one of the consumer's threads has ended. `consumed` has the partitions that the thread has read,
    /// each with the next offset that it would have read.
    pub(crate) fn end(&self, ending: Ending, consumed: Vec<(u32, u64)>) {
        let mut state = self.state();
        state.threads -= 1;
        state.consumed.extend(consumed);
        let keeps = match &state.ending {
            None | Some(Ending::Drained) => false,
            Some(Ending::Failed(_)) => true,
            Some(_) => !matches!(ending, Ending::Failed(_)),
        };
        if !keeps {
            state.ending = Some(ending);
        }
    }
}

/// The counters of a topic's consumers, by name. Those of dropped consumers are removed when a consumer is added and
/// the number of names has about doubled since the last removal.
#[derive(Default)]
pub(crate) struct ConsumerIndex {
    by_name: HashMap<String, Vec<Weak<ConsumerStats>>>,
    /// The number of names at which the next removal is due.
    full: usize,
}

impl ConsumerIndex {
    pub(crate) fn add(&mut self, stats: &Arc<ConsumerStats>) {
        if self.by_name.len() >= self.full {
            self.by_name.retain(|_, known| known.iter().any(|stats| stats.strong_count() > 0));
            self.full = 16 + 2 * self.by_name.len();
        }
        let known = self.by_name.entry(stats.name.clone()).or_default();
        known.retain(|stats| stats.strong_count() > 0);
        known.push(Arc::downgrade(stats));
    }

    /// The counters of the consumer with this name; of several, those that were added last. `None` if no consumer with
    /// this name exists any more.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<ConsumerStats>> {
        self.by_name.get(name)?.iter().rev().find_map(Weak::upgrade)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<ConsumerStats>> {
        self.by_name.values().flatten().filter_map(Weak::upgrade)
    }
}
