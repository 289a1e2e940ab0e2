//! Consumers of a topic that have threads of their own: what is known of each, also when it has ended.

use crate::base::overload::ConsumerStats;
use slipring_ring::{Ending, Wait};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What is known of a consumer with threads of its own, also when they have ended.
pub(crate) struct ConsumerRun {
    pub(crate) stats: Arc<ConsumerStats>,
    /// It was told to end: what it has not read is nobody's loss.
    pub(crate) cancelled: AtomicBool,
    state: Mutex<ConsumerRunState>,
}

#[derive(Default)]
pub(crate) struct ConsumerRunState {
    /// Where it stood at its end, by partition. What is missing runs still.
    pub(crate) consumed: BTreeMap<u32, u64>,
    /// The worst of its threads.
    pub(crate) ending: Option<Ending>,
    pub(crate) threads: usize,
    pub(crate) memberships: Vec<Weak<dyn SetWait>>,
}

/// A thread's way of waiting, for others to change.
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

    /// Whether it was cancelled and all its threads have ended without a failure, so that nothing is to be told of it.
    pub(crate) fn is_forgotten(&self) -> bool {
        let state = self.state();
        let failed = matches!(state.ending, Some(Ending::Failed(_)));
        self.cancelled.load(Ordering::Acquire) && state.threads == 0 && !failed
    }

    /// One of its threads has ended.
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
