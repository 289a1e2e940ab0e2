//! What the writer does not wait for: the next segment, indexes of sealed ones, the checkpoint, deleting.

use super::error::{DiskError, Malformed};
use super::format::{JournalId, MAJOR, MAX_POSITION, SegmentHeader};
use super::segment::{Segment, finish, index_name};
use super::storage::{Lock, Process, Storage};
use super::{OpenError, Shared};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

pub(crate) enum Task {
    Make(SegmentHeader),
    Seal(Arc<Segment>),
    Remove(Vec<Arc<Segment>>),
}

/// Does tasks in order, on a thread of its own or at once.
pub(crate) struct Helper {
    shared: Arc<Shared>,
    thread: Option<Thread>,
    made: Mutex<Option<Result<Segment, DiskError>>>,
    /// Held as long as anybody may still touch the files.
    lock: Arc<Lock>,
    /// The one that has the thread.
    process: Process,
}

struct Thread {
    tasks: Mutex<Sender<Task>>,
    made: Mutex<Receiver<Result<Segment, DiskError>>>,
    handle: JoinHandle<()>,
}

impl Helper {
    pub fn new(shared: Arc<Shared>, lock: Lock) -> Result<Self, OpenError> {
        let lock = Arc::new(lock);
        let thread = if shared.options.helper { Some(Self::start(&shared, &lock)?) } else { None };
        Ok(Self { shared, thread, made: Mutex::new(None), lock, process: Process::default() })
    }

    fn start(shared: &Arc<Shared>, lock: &Arc<Lock>) -> Result<Thread, OpenError> {
        let (tasks, todo) = channel::<Task>();
        let (done, made) = channel();
        let (shared, lock) = (Arc::clone(shared), Arc::clone(lock));
        let work = move || {
            let _lock = lock;
            while let Ok(task) = todo.recv() {
                if let Some(segment) = run(&shared, task)
                    && done.send(segment).is_err()
                {
                    break;
                }
            }
        };
        let handle = std::thread::Builder::new().name("slipring-files".to_owned()).spawn(work);
        let handle = handle.map_err(|cause| DiskError::new("start a thread for", "segments", &cause))?;
        Ok(Thread { tasks: Mutex::new(tasks), made: Mutex::new(made), handle })
    }

    /// Hands a task over.
    pub fn hand(&self, task: Task) {
        match &self.thread {
            Some(thread) => {
                let tasks = thread.tasks.lock().unwrap_or_else(PoisonError::into_inner);
                // A thread that is gone has met a panic; the writer makes its segments itself then.
                let _ = tasks.send(task);
            }
            None => {
                if let Some(made) = run(&self.shared, task) {
                    *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
                }
            }
        }
    }

    /// The segment that was asked for; waits until it is there.
    pub fn made(&self) -> Option<Result<Segment, DiskError>> {
        match &self.thread {
            Some(thread) => thread.made.lock().unwrap_or_else(PoisonError::into_inner).recv().ok(),
            None => self.made.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
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

fn run(shared: &Shared, task: Task) -> Option<Result<Segment, DiskError>> {
    match task {
        Task::Make(header) => Some(Segment::make(&*shared.storage, header)),
        Task::Seal(segment) => {
            // An index that was not written is made again at the next opening: nothing is lost.
            let _ = seal(&*shared.storage, &shared.id, &segment);
            let checkpoint = Checkpoint {
                id: shared.id,
                durable: shared.durable.load(std::sync::atomic::Ordering::Acquire),
                incarnation: shared.incarnation,
            };
            let _ = checkpoint.write(&*shared.storage);
            None
        }
        Task::Remove(segments) => {
            for segment in segments {
                // What is left is taken away at the next opening: the floor says that it is not needed.
                let _ = shared.storage.remove(&segment.name);
                let _ = shared.storage.remove(&index_name(segment.header.number));
            }
            None
        }
    }
}

/// Writes the index of a segment that is durable to its end and will not be written again.
pub(crate) fn seal(storage: &dyn Storage, id: &JournalId, segment: &Segment) -> io::Result<()> {
    let bytes = segment.index().encode(id, segment.header.number, segment.header.checksum());
    finish(storage, &index_name(segment.header.number), |file| file.write_at(&bytes, 0)).map(drop)
}

/// A durable mark outside the segments: it is still there when they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub id: JournalId,
    pub durable: u64,
    pub incarnation: u32,
}

pub(crate) const CHECKPOINT: &str = "checkpoint";
const MAGIC: &[u8; 8] = b"SLIPMARK";

impl Checkpoint {
    pub fn write(&self, storage: &dyn Storage) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(44);
        bytes.extend_from_slice(MAGIC);
        bytes.extend(u32::from(MAJOR).to_le_bytes());
        bytes.extend_from_slice(&self.id);
        bytes.extend(self.durable.to_le_bytes());
        bytes.extend(self.incarnation.to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        finish(storage, CHECKPOINT, |file| file.write_at(&bytes, 0)).map(drop)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes: &[u8; 44] = bytes.try_into().map_err(|_| Malformed::Short)?;
        if &bytes[..8] != MAGIC {
            return Err(Malformed::Magic);
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if word(40) != crc32c::crc32c(&bytes[..40]) {
            return Err(Malformed::Checksum);
        }
        if word(8) != u32::from(MAJOR) {
            return Err(Malformed::Version(word(8) as u16));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[12..28]);
        let durable = u64::from(word(28)) | u64::from(word(32)) << 32;
        if durable > MAX_POSITION {
            return Err(Malformed::Length);
        }
        Ok(Self { id, durable, incarnation: word(36) })
    }
}
