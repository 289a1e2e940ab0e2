//! Managed consumers of a topic: consumers with their own threads, running or ended.

use crate::base::overload::ConsumerStats;
use slipring_ring::{Ending, Wait};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A managed consumer, running or ended.
pub(crate) struct ConsumerRun {
    pub(crate) stats: Arc<ConsumerStats>,
    /// True once the user has cancelled the consumer. Its unread events then do not count as lost.
    pub(crate) cancelled: AtomicBool,
    state: Mutex<ConsumerRunState>,
}

#[derive(Default)]
pub(crate) struct ConsumerRunState {
    /// The next offset of each partition that the consumer no longer reads. A partition without an entry is still being
    /// read.
    pub(crate) consumed: BTreeMap<u32, u64>,
    /// How the consumer ended: the worst ending of its threads. `None` while no thread has ended.
    pub(crate) ending: Option<Ending>,
    pub(crate) threads: usize,
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

    /// True if the consumer was cancelled and all its threads have ended without a failure. Such a consumer is not
    /// reported.
    pub(crate) fn is_forgotten(&self) -> bool {
        let state = self.state();
        let failed = matches!(state.ending, Some(Ending::Failed(_)));
        self.cancelled.load(Ordering::Acquire) && state.threads == 0 && !failed
    }

    /// Records the end of one of the consumer's threads, with the next offset to read in each of that thread's
    /// partitions.
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
