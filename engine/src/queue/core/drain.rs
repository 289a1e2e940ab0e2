//! How a shutdown waits for the runs of a queue.
//!
//! Invariant: when [`drain`](QueueCore::drain_runs) has returned true, each message of the queue is done with or a dead
//! letter, or it is one that no worker of a run takes from then on: it is counted in the queue's report, as unread, leased
//! or waiting. It returns before its deadline if nothing more can be done by then.
//!
//! The interleavings, each of which is decided by the queue's lock:
//! - A worker leases a message while the shutdown looks: the message is unread or waiting before, in the worker's hand
//!   after, and never neither, because both change under the lock.
//! - A handler fails meanwhile: its worker has the message in hand until it asks for the next one, and by then the
//!   message waits for its next attempt, is dying, or is a dead letter.
//! - A message comes due between the last look and the end of the wait: the last look stops the workers under the same
//!   lock, so none takes it.
//! - The deadline passes first: [`stop_runs`](QueueCore::stop_runs) stops the workers before the report is made; each
//!   ends the message that it has in hand, which the report counts as leased.
//! - A handler, or a task on the calling thread, shuts the engine down: its own message is not waited for, and other
//!   workers do what is left.

use super::QueueCore;
use crate::base::kind::Producers;
use crate::queue::job::Job;
use crate::queue::run_worker::{Awaited, RunWorker, StopWorkers};
use crate::topic::gathering::{LOOK, STALL_LIMIT};
use std::sync::Arc;
use std::time::Instant;

impl<E: Job, K: Producers> QueueCore<E, K> {
    /// Waits until the runs of this queue, whose topic is closed, have done all messages that are unread, in hand, or
    /// due before `deadline`, and stops their workers if other messages are left. Returns false if `deadline` passes
    /// first; true at once without a run. Tasks that only the calling thread may poll are waited for until they have made
    /// no progress for [`STALL_LIMIT`].
    pub(in crate::queue) fn drain_runs(&self, deadline: Instant) -> bool {
        let (mut before, mut moved) = (None, Instant::now());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Delays are measured by the engine's clock. Where that does not run as the system's does, a message may be
            // left that would have come due; it is in the report.
            let until = self.now().saturating_add(left);
            let mut state = self.lock();
            let awaited = state.awaited_by(until);
            if awaited == Awaited::Nobody {
                self.stop_all(&mut state);
                return true;
            }
            let now = Some((state.input.lag(), state.counters));
            drop(state);
            if now != before {
                (before, moved) = (now, Instant::now());
            }
            if left.is_zero() {
                return false;
            }
            if awaited == Awaited::OwnTasks && moved.elapsed() >= STALL_LIMIT {
                self.stop_runs();
                return true;
            }
            std::thread::sleep(LOOK.min(left));
        }
    }

    /// Stops all workers of runs, unless nothing is left, so that they end by themselves.
    pub(in crate::queue) fn stop_runs(&self) {
        self.stop_all(&mut self.lock());
    }

    fn stop_all(&self, state: &mut super::QueueState<E, K>) {
        if !state.is_done() {
            state.runs.stop_all();
            self.wake_all(state);
        }
    }
}

impl<E: Job, K: Producers> StopWorkers for QueueCore<E, K> {
    fn stop_workers(&self, workers: &[Arc<RunWorker>]) {
        let mut state = self.lock();
        workers.iter().for_each(|worker| worker.stop());
        self.wake_all(&mut state);
    }
}
