//! The helper thread. It creates the next segment, writes indexes and the checkpoint, deletes segments, and compacts them,
//! so that the writer does not wait for this work.

use crate::checkpoint::Checkpoint;
use crate::compact::{CompactionOrder, Compactor};
use crate::error::{DiskError, OpenError};
use crate::files::names::index_name;
use crate::format::SegmentHeader;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::storage::{Lock, Process};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) enum Task {
    Create(SegmentHeader),
    Seal(Arc<Segment>),
    Remove(Vec<Arc<Segment>>),
    Compact(CompactionOrder),
}

/// Delay after which the thread retries a failed creation of a segment.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Runs tasks in order: on its own thread, or in the caller if the journal has no helper thread.
pub(crate) struct Helper {
    shared: Arc<Shared>,
    thread: Option<HelperThread>,
    next: Arc<NextSegment>,
    /// The journal's lock, which the thread shares as long as it may access the files.
    lock: Arc<Lock>,
    /// The compactions of a journal without a thread.
    compactor: Mutex<Compactor>,
    /// The process in which the thread runs.
    process: Process,
}

struct HelperThread {
    tasks: Mutex<Sender<Task>>,
    handle: JoinHandle<()>,
}

/// The segment that the writer uses after the present one.
#[derive(Default)]
struct NextSegment {
    state: Mutex<NextState>,
    changed: Condvar,
}

#[derive(Default)]
enum NextState {
    /// The thread has no order to create it.
    #[default]
    Absent,
    /// The thread will create it, or is creating it.
    Ordered,
    /// Its creation failed. The thread retries until the writer creates the segment itself.
    Failed,
    Ready(Box<Segment>),
}

impl NextSegment {
    fn state(&self) -> MutexGuard<'_, NextState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: NextState) {
        *self.state() = state;
        self.changed.notify_all();
    }

    /// Creates the segment if its order still stands (`Ordered` or `Failed`). True if the creation failed and must be
    /// retried.
    fn make(&self, shared: &Shared, header: SegmentHeader) -> bool {
        match &mut *self.state() {
            NextState::Absent | NextState::Ready(_) => return false,
            made => *made = NextState::Ordered,
        }
        let made = Segment::make(&shared.files, header);
        let failed = made.is_err();
        self.set(made.map_or(NextState::Failed, |made| NextState::Ready(Box::new(made))));
        failed
    }
}

/// When the thread ends, marks an ordered segment as failed and wakes the writer, because the thread will create no
/// more segments.
struct ThreadEnd(Arc<NextSegment>);

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if matches!(*state, NextState::Ordered) {
            *state = NextState::Failed;
        }
        self.0.changed.notify_all();
    }
}

impl Helper {
    /// `spare` is the next segment, if the survey found it already created.
    pub fn new(shared: Arc<Shared>, lock: Lock, spare: Option<Segment>) -> Result<Self, OpenError> {
        let (lock, next) = (Arc::new(lock), Arc::new(NextSegment::default()));
        next.set(spare.map_or(NextState::Absent, |spare| NextState::Ready(Box::new(spare))));
        let thread = if shared.options.helper { Some(Self::start(&shared, &lock, &next)?) } else { None };
        let compactor = Mutex::default();
        Ok(Self { shared, thread, next, lock, compactor, process: Process::default() })
    }

    fn start(shared: &Arc<Shared>, lock: &Arc<Lock>, next: &Arc<NextSegment>) -> Result<HelperThread, OpenError> {
        let (tasks, todo) = channel::<Task>();
        let (shared, lock, next) = (Arc::clone(shared), Arc::clone(lock), ThreadEnd(Arc::clone(next)));
        let work = move || {
            let _lock = lock;
            // The header of the segment to create. It stays while the creation fails, for example because the disk is
            // full.
            let mut wanted: Option<SegmentHeader> = None;
            let mut compactor = Compactor::default();
            loop {
                // The writer may wait for another task, so a step of a compaction is done only when there is none.
                let task = match (wanted.map(|_| RETRY_AFTER), compactor.pause()) {
                    (None, None) => todo.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    (retry, pause) => todo.recv_timeout(retry.into_iter().chain(pause).min().unwrap_or_default()),
                };
                match task {
                    Ok(Task::Create(header)) => wanted = Some(header),
                    Ok(Task::Compact(order)) => compactor.add(order),
                    Ok(task) => run(&shared, task),
                    Err(RecvTimeoutError::Timeout) if compactor.pause() == Some(Duration::ZERO) => {
                        compactor.step(&shared);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                wanted = wanted.filter(|header| next.0.make(&shared, *header));
            }
            compactor.end(&shared);
        };
        let handle = std::thread::Builder::new().name("slipring-files".to_owned()).spawn(work);
        let handle = handle.map_err(|cause| DiskError::new("start a thread for", "segments", &cause))?;
        Ok(HelperThread { tasks: Mutex::new(tasks), handle })
    }

    /// Runs a task on the thread, or at once if there is none. Ignores [`Task::Create`] without a thread, or if the
    /// next segment is ready.
    pub fn submit(&self, task: Task) {
        match (&self.thread, task) {
            (Some(thread), task) => {
                if let Task::Create(_) = task {
                    if let NextState::Ready(_) = *self.next.state() {
                        return;
                    }
                    self.next.set(NextState::Ordered);
                }
                let sent = thread.tasks.lock().unwrap_or_else(PoisonError::into_inner).send(task);
                // The thread has panicked. From now on the writer creates segments itself.
                if sent.is_err() {
                    self.next.set(NextState::Absent);
                }
            }
            // Without a thread the writer creates the segment when it needs it.
            (None, Task::Create(_)) => {}
            (None, Task::Compact(order)) => {
                let mut compactor = self.compactor.lock().unwrap_or_else(PoisonError::into_inner);
                compactor.add(order);
                while compactor.pause().is_some() {
                    compactor.step(&self.shared);
                }
            }
            (None, task) => run(&self.shared, task),
        }
    }

    /// True if the next segment could not be created. Waits while it is being created.
    pub fn lacks_next(&self) -> bool {
        matches!(*self.wait_for_next(), NextState::Failed)
    }

    /// Takes the next segment, and waits while it is being created. `None` if there is none: from then on the caller
    /// must create it.
    pub fn take_next(&self) -> Option<Segment> {
        match std::mem::take(&mut *self.wait_for_next()) {
            NextState::Ready(segment) => Some(*segment),
            _ => None,
        }
    }

    fn wait_for_next(&self) -> MutexGuard<'_, NextState> {
        let mut state = self.next.state();
        while matches!(*state, NextState::Ordered) {
            // A forked child does not have its parent's threads.
            let is_gone = self.process.check().is_err();
            if is_gone || self.thread.as_ref().is_none_or(|thread| thread.handle.is_finished()) {
                break;
            }
            state = self.next.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Waits until all tasks are done, and ends the thread. The lock is released when the returned reference is
    /// dropped.
    pub fn finish(mut self) -> Arc<Lock> {
        self.end();
        Arc::clone(&self.lock)
    }

    fn end(&mut self) {
        if let Some(HelperThread { tasks, handle, .. }) = self.thread.take() {
            drop(tasks);
            // A forked child also has the handle, but must not join its parent's thread.
            if self.process.check().is_ok() {
                let _ = handle.join();
            }
        }
    }
}

impl Drop for Helper {
    /// Waits for the thread, which also holds the lock, so that the journal can be opened again as soon as the writer
    /// is dropped.
    fn drop(&mut self) {
        self.end();
    }
}

fn run(shared: &Shared, task: Task) {
    match task {
        Task::Create(_) | Task::Compact(_) => {}
        Task::Seal(segment) => {
            // Errors are ignored: the next opening writes a missing index.
            let _ = segment.seal(&*shared.storage);
            segment.set_sealed();
            // A sync has covered the whole file, so no write error can be lost.
            segment.file.release();
            let checkpoint = Checkpoint {
                id: shared.id,
                durable: shared.durable.load(std::sync::atomic::Ordering::Acquire),
                incarnation: shared.incarnation,
            };
            let _ = checkpoint.write(&*shared.storage);
        }
        Task::Remove(segments) => {
            for segment in segments {
                // If a reader still uses the segment, the file is held open, so that it can be read without its name.
                // If that fails, the files stay until the next opening, which removes all segments below the state's
                // floor.
                if Arc::strong_count(&segment) > 1 && segment.file.hold().is_err() {
                    continue;
                }
                shared.files.forget(segment.header.number);
                let _ = shared.storage.remove(&segment.name);
                let _ = shared.storage.remove(&index_name(segment.header.number));
            }
        }
    }
}
