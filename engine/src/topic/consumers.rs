//! Consumers of a topic that have threads of their own, running or ended.

use crate::base::overload::ConsumerStats;
use slipring_ring::{Ending, Wait};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A consumer with threads of its own, running or ended.
pub(crate) struct ConsumerRun {
    pub(crate) stats: Arc<ConsumerStats>,
    /// True once it was told to end. Then events that it has not read do not count as lost.
    pub(crate) cancelled: AtomicBool,
    state: Mutex<ConsumerRunState>,
}

#[derive(Default)]
pub(crate) struct ConsumerRunState {
    /// The next offset that it had not read when it ended, by partition. A partition that is missing is still being read.
    pub(crate) consumed: BTreeMap<u32, u64>,
    /// How it ended: the worst of its threads' endings.
    pub(crate) ending: Option<Ending>,
    pub(crate) threads: usize,
    pub(crate) memberships: Vec<Weak<dyn SetWait>>,
}

/// Something whose way of waiting can be changed while it waits.
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

    /// True if it was cancelled and all its threads have ended without a failure, so that it need not be reported.
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
