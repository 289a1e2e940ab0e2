//! The workers of runs, as their queue and a shutdown see them.

use crate::base::threads::{token, waits_for_this_thread};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A worker of a [`run`](crate::queue::Queue::run): if it has a message in hand, and if it was stopped.
///
/// Both are changed under the queue's lock. So a message that is leased to a run is, whenever the lock is free, in the
/// hand of its worker, and a worker that was stopped takes no other message.
pub(super) struct RunWorker {
    /// True for a task, which any thread may poll; false for a worker with a thread of its own.
    is_task: bool,
    /// True from the lease of a message until the worker asks for the next one.
    is_busy: AtomicBool,
    is_stopped: AtomicBool,
    /// The [token] of the worker's own thread, or of the thread that has polled the task last; 0 before the first call.
    thread: AtomicUsize,
}

impl RunWorker {
    pub(super) fn new(is_task: bool) -> Arc<Self> {
        let (is_busy, is_stopped) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { is_task, is_busy, is_stopped, thread: AtomicUsize::new(0) })
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Notes that the calling thread runs the worker at present.
    pub(super) fn note_thread(&self) {
        self.thread.store(token(), Ordering::Relaxed);
    }

    /// Notes that the worker asks for a message, and so has none in hand. Returns false if it was stopped. Called under
    /// the queue's lock.
    pub(super) fn asks(&self) -> bool {
        self.note_thread();
        self.is_busy.store(false, Ordering::Relaxed);
        !self.is_stopped()
    }

    /// Notes that the worker has a message in hand. Called under the queue's lock.
    pub(super) fn takes(&self) {
        self.is_busy.store(true, Ordering::Relaxed);
    }

    /// Called under the queue's lock.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
    }

    /// True if the worker has its own thread and that thread is the calling one, or [waits for
    /// it](waits_for_this_thread): such a worker does nothing before the calling thread goes on.
    fn is_held_up(&self) -> bool {
        let thread = self.thread.load(Ordering::Relaxed);
        !self.is_task && (thread == token() || waits_for_this_thread(thread))
    }

    /// True if the worker goes on whatever the calling thread does. A task may be one that only the calling thread polls.
    fn is_elsewhere(&self) -> bool {
        let thread = self.thread.load(Ordering::Relaxed);
        !self.is_task || (thread != 0 && thread != token())
    }
}

/// All workers of a queue's runs.
#[derive(Default)]
pub(super) struct RunWorkers {
    list: Vec<Arc<RunWorker>>,
}

/// The queue of a run, whatever its events are.
pub(super) trait StopWorkers: Send + Sync {
    /// Stops these workers: each ends after the message that it has in hand.
    fn stop_workers(&self, workers: &[Arc<RunWorker>]);
}

/// For whom a shutdown may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Awaited {
    /// No worker has something to do.
    Nobody,
    /// Only tasks that the calling thread may have to poll itself.
    OwnTasks,
    /// A worker that goes on whatever the calling thread does.
    Others,
}

impl RunWorkers {
    pub(super) fn add(&mut self, worker: &Arc<RunWorker>) {
        self.list.push(Arc::clone(worker));
    }

    pub(super) fn remove(&mut self, worker: &Arc<RunWorker>) {
        self.list.retain(|known| !Arc::ptr_eq(known, worker));
    }

    pub(super) fn stop_all(&self) {
        self.list.iter().for_each(|worker| worker.stop());
    }

    fn awaited(&self, is_awaited: impl Fn(&RunWorker) -> bool) -> Awaited {
        let workers = self.list.iter().filter(|worker| !worker.is_held_up() && is_awaited(worker));
        let of = |worker: &Arc<RunWorker>| if worker.is_elsewhere() { Awaited::Others } else { Awaited::OwnTasks };
        workers.map(of).max().unwrap_or(Awaited::Nobody)
    }

    /// The workers that have a message in hand.
    pub(super) fn busy(&self) -> Awaited {
        self.awaited(|worker| worker.is_busy.load(Ordering::Relaxed))
    }

    /// The workers that take another message if there is one.
    pub(super) fn takers(&self) -> Awaited {
        self.awaited(|worker| !worker.is_stopped())
    }

    /// The workers with a thread that have not ended.
    pub(super) fn threads(&self) -> Awaited {
        self.awaited(|worker| !worker.is_task)
    }
}
