//! What the writer does not wait for: the next segment, indexes of sealed ones, the checkpoint, deleting.

use super::checkpoint::Checkpoint;
use super::error::{DiskError, OpenError};
use super::file_names::index_name;
use super::format::SegmentHeader;
use super::segment::Segment;
use super::shared::Shared;
use super::storage::{Lock, Process};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) enum Task {
    Make(SegmentHeader),
    Seal(Arc<Segment>),
    Remove(Vec<Arc<Segment>>),
}

/// How long after a segment could not be made it is tried again, if nothing was deleted meanwhile.
const AGAIN: Duration = Duration::from_millis(100);

/// Does tasks in order, on a thread of its own or at once.
pub(crate) struct Helper {
    shared: Arc<Shared>,
    thread: Option<Thread>,
    next: Arc<Next>,
    /// Held as long as anybody may still touch the files.
    lock: Arc<Lock>,
    /// The one that has the thread.
    process: Process,
}

struct Thread {
    tasks: Mutex<Sender<Task>>,
    handle: JoinHandle<()>,
}

/// The segment that will be written next.
#[derive(Default)]
struct Next {
    made: Mutex<Made>,
    changed: Condvar,
}

#[derive(Default)]
enum Made {
    /// Nobody makes it.
    #[default]
    No,
    /// The thread makes it, now or when it comes to that.
    Soon,
    /// It could not be made. The thread tries again unless the writer has done so itself.
    Failed,
    Ready(Box<Segment>),
}

impl Next {
    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, made: Made) {
        *self.made() = made;
        self.changed.notify_all();
    }

    /// Makes the segment, unless the writer does not wait for it any more; true if that must be tried again.
    fn make(&self, shared: &Shared, header: SegmentHeader) -> bool {
        match &mut *self.made() {
            Made::No | Made::Ready(_) => return false,
            made => *made = Made::Soon,
        }
        let made = Segment::make(&shared.files, header);
        let failed = made.is_err();
        self.set(made.map_or(Made::Failed, |made| Made::Ready(Box::new(made))));
        failed
    }
}

/// Tells the writer that nobody makes segments any more.
struct Ends(Arc<Next>);

impl Drop for Ends {
    fn drop(&mut self) {
        let mut made = self.0.made();
        if matches!(*made, Made::Soon) {
            *made = Made::Failed;
        }
        self.0.changed.notify_all();
    }
}

impl Helper {
    /// `spare`: the next segment, if it is there already.
    pub fn new(shared: Arc<Shared>, lock: Lock, spare: Option<Segment>) -> Result<Self, OpenError> {
        let (lock, next) = (Arc::new(lock), Arc::new(Next::default()));
        next.set(spare.map_or(Made::No, |spare| Made::Ready(Box::new(spare))));
        let thread = if shared.options.helper { Some(Self::start(&shared, &lock, &next)?) } else { None };
        Ok(Self { shared, thread, next, lock, process: Process::default() })
    }

    fn start(shared: &Arc<Shared>, lock: &Arc<Lock>, next: &Arc<Next>) -> Result<Thread, OpenError> {
        let (tasks, todo) = channel::<Task>();
        let (shared, lock, next) = (Arc::clone(shared), Arc::clone(lock), Ends(Arc::clone(next)));
        let work = move || {
            let _lock = lock;
            // What could not be made yet: the disk is full, or there are too many open files.
            let mut wanted: Option<SegmentHeader> = None;
            loop {
                let task = match wanted {
                    None => todo.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(_) => todo.recv_timeout(AGAIN),
                };
                match task {
                    Ok(Task::Make(header)) => wanted = Some(header),
                    Ok(task) => run(&shared, task),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                wanted = wanted.filter(|header| next.0.make(&shared, *header));
            }
        };
        let handle = std::thread::Builder::new().name("slipring-files".to_owned()).spawn(work);
        let handle = handle.map_err(|cause| DiskError::new("start a thread for", "segments", &cause))?;
        Ok(Thread { tasks: Mutex::new(tasks), handle })
    }

    /// Hands a task over.
    pub fn hand(&self, task: Task) {
        match (&self.thread, task) {
            (Some(thread), task) => {
                if let Task::Make(_) = task {
                    if let Made::Ready(_) = *self.next.made() {
                        return;
                    }
                    self.next.set(Made::Soon);
                }
                let sent = thread.tasks.lock().unwrap_or_else(PoisonError::into_inner).send(task);
                // A thread that is gone has met a panic; the writer makes its segments itself then.
                if sent.is_err() {
                    self.next.set(Made::No);
                }
            }
            // It is made when it is needed.
            (None, Task::Make(_)) => {}
            (None, task) => run(&self.shared, task),
        }
    }

    /// Whether the next segment could not be made. Waits while it is being made.
    pub fn lacks_next(&self) -> bool {
        matches!(*self.settled(), Made::Failed)
    }

    /// The next segment, if it was made; waits for it while it is being made. None if it could not be made, and from then on
    /// it is the caller's to do so.
    pub fn made(&self) -> Option<Segment> {
        match std::mem::take(&mut *self.settled()) {
            Made::Ready(segment) => Some(*segment),
            _ => None,
        }
    }

    fn settled(&self) -> MutexGuard<'_, Made> {
        let mut made = self.next.made();
        while matches!(*made, Made::Soon) {
            // A fork has none of its parent's threads.
            let is_gone = self.process.check().is_err();
            if is_gone || self.thread.as_ref().is_none_or(|thread| thread.handle.is_finished()) {
                break;
            }
            made = self.next.changed.wait(made).unwrap_or_else(PoisonError::into_inner);
        }
        made
    }

    /// Waits until all tasks are done, and ends the thread. The lock is given up when both are dropped.
    pub fn finish(mut self) -> Arc<Lock> {
        self.end();
        Arc::clone(&self.lock)
    }

    fn end(&mut self) {
        if let Some(Thread { tasks, handle, .. }) = self.thread.take() {
            drop(tasks);
            // A fork has the handle, and would wait for a thread that is the parent's.
            if self.process.check().is_ok() {
                let _ = handle.join();
            }
        }
    }
}

impl Drop for Helper {
    /// The thread has the lock, too: who drops a writer can open the journal again at once.
    fn drop(&mut self) {
        self.end();
    }
}

fn run(shared: &Shared, task: Task) {
    match task {
        Task::Make(_) => {}
        Task::Seal(segment) => {
            // An index that was not written is made again at the next opening: nothing is lost.
            let _ = segment.seal(&*shared.storage);
            // Durable to its end.
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
                // Who reads it goes on reading it. What is left of files is taken away at the next opening: the floor says
                // that it is not needed.
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
