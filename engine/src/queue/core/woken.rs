//! A worker's thread between its wake-up and its poll of the queue.

use super::{QueueCore, QueueState};
use crate::base::held::Locked;
use crate::base::kind::Producers;
use crate::queue::job::Job;

/// The state of a worker's thread between its wake-up and its poll of the queue, when it reads the clock. If the clock,
/// which is user code, panics, the drop of this value wakes the next worker.
pub(super) struct WokenWorker<'q, E: Job, K: Producers> {
    pub(super) core: &'q QueueCore<E, K>,
    pub(super) watched: bool,
    /// The partitions that have woken the watching worker.
    pub(super) rang: Vec<usize>,
}

impl<'q, E: Job, K: Producers> WokenWorker<'q, E, K> {
    /// Ends the worker's watch, if it watched. Returns the lock under which the caller polls the queue.
    pub(super) fn look(&mut self) -> Locked<'q, QueueState<E, K>> {
        let mut state = self.core.lock();
        if std::mem::take(&mut self.watched) {
            state.watched = false;
            state.rang(std::mem::take(&mut self.rang));
        }
        state
    }
}

impl<E: Job, K: Producers> Drop for WokenWorker<'_, E, K> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut state = self.look();
            self.core.leave(&mut state);
        }
    }
}
