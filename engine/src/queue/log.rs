//! A durable queue's access to the journal: the bodies of its messages, and how many of its changes are written and
//! durable.

use super::job::Job;
use crate::base::clock::Timestamp;
use crate::base::level::{Level, OWN_THREAD};
use crate::log::committer::Committer;
use crate::log::gap::{GapReport, ReaderKind};
#[cfg(feature = "async")]
use crate::log::offset_waits::OffsetWait;
use crate::log::progress::Progress;
use crate::log::source::StateSource;
use crate::topic::durable::DurableTopic;
use crate::topic::older_records::OlderRecords;
use slipring_journal::{self as journal, Journal, PartitionId, Reader, Start, Visible};
use slipring_ring::Waiter;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Instant;

/// The token with which other threads wake the watching worker; it is no partition's number.
pub(super) const WAKE: usize = usize::MAX;

pub(super) struct QueueLog<E> {
    pub(super) committer: Arc<Committer>,
    name: String,
    /// The queue's number in the journal.
    pub(super) number: u32,
    /// The acknowledgement level that each change has reached when its call returns.
    pub(super) level: Level,
    /// How many of the queue's changes are written, and how many are durable.
    pub(super) progress: Arc<Progress>,
    /// The greatest number of a change for whose durability a thread has waited; 0 if none has.
    wanted: AtomicU64,
    /// The greatest number of dead letters that are published and not in a frame yet. The removals of their messages
    /// must all fit into the frame that gets the letters.
    pub(super) max_pending: usize,
    pending: AtomicUsize,
    bodies: BodyLoader<E>,
}

impl<E: Job> QueueLog<E> {
    pub(super) fn new(durable: &DurableTopic<E>, name: &str, number: u32, level: Level) -> Self {
        let journal = durable.journal().clone();
        let max_pending = (journal.frame_limit() / 8 / super::codec::LARGEST_BLOCK).clamp(1, 256);
        Self {
            committer: Arc::clone(&durable.committer),
            name: name.to_owned(),
            number,
            level,
            progress: Arc::default(),
            wanted: AtomicU64::new(0),
            max_pending,
            pending: AtomicUsize::new(0),
            bodies: BodyLoader {
                journal,
                topic: durable.id(0).topic,
                older: Arc::clone(&durable.older),
                readers: Mutex::default(),
                event: PhantomData,
            },
        }
    }

    /// Adds to the engine's list of gaps that these offsets were lost to damage and reported to the queue. Returns the
    /// entry that the journal gets.
    pub(super) fn gap_report(&self, partition: u32, offsets: Range<u64>, now: Timestamp) -> GapReport {
        let of = PartitionId { topic: self.bodies.topic, partition };
        let (kind, reader, time) = (ReaderKind::Queue, self.name.clone(), now.as_nanos());
        let report = GapReport { kind, reader, of, offsets, time };
        report.note(&self.committer);
        report
    }

    /// Signals the committer that the queue has changes, which its next frame should have.
    pub(super) fn notify(&self) {
        self.committer.notify_state();
    }

    /// Signals the committer that a thread waits for the queue's changes, so that they are written at once.
    pub(super) fn notify_urgent(&self) {
        self.committer.notify_state_urgent();
    }

    /// Notes how many dead letters are published and not in a frame yet. While there are any, the committer holds the
    /// queue `core`: the frame that gets a letter must also get the removal of its message. Called under the queue's
    /// lock.
    pub(super) fn set_pending_dead_letters(&self, pending: usize, core: impl FnOnce() -> Option<Arc<dyn StateSource>>) {
        let before = self.pending.swap(pending, Ordering::AcqRel);
        if before == 0 && pending > 0 {
            if let Some(core) = core() {
                self.committer.hold_state_source(self.number, core);
            }
        } else if before > 0 && pending == 0 {
            self.committer.release_state_source(self.number);
        }
    }

    pub(super) fn pending_dead_letters(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.wanted.load(Ordering::Acquire) > self.progress.durable.load(Ordering::Acquire)
    }

    /// Waits until the change with this number has reached `level`. The error says why it never will: the journal has
    /// ended, or this is one of the journal's own threads.
    pub(super) fn wait(&self, change: u64, level: Level) -> Result<(), String> {
        self.wait_until(change, level, None).unwrap_or_else(|| Err(OWN_THREAD.to_owned()))
    }

    /// As [`wait`](Self::wait), at most until `deadline`. `None` if that has passed, or if this is one of the journal's own
    /// threads.
    pub(super) fn wait_until(
        &self,
        change: u64,
        level: Level,
        deadline: Option<Instant>,
    ) -> Option<Result<(), String>> {
        let reached = || self.has_reached(change, level).then_some(Ok(()));
        if reached().is_some() {
            return Some(Ok(()));
        }
        self.want(change, level);
        let notifier = &self.committer.notifier;
        // The progress counts changes as it counts offsets: the change number `change`, counted from 1, is at the
        // position `change - 1`.
        let of = (&self.progress, change.saturating_sub(1), level);
        notifier.wait_for_offset(of, deadline, || {
            reached().or_else(|| notifier.end_cause().map(|cause| reached().unwrap_or_else(|| Err(cause.to_owned()))))
        })
    }

    fn has_reached(&self, change: u64, level: Level) -> bool {
        match level {
            Level::Written => self.progress.written.load(Ordering::Acquire) >= change,
            Level::Durable => self.progress.durable.load(Ordering::Acquire) >= change,
            _ => true,
        }
    }

    fn want(&self, change: u64, level: Level) {
        if level == Level::Durable {
            self.wanted.fetch_max(change, Ordering::AcqRel);
        }
        self.notify_urgent();
    }

    /// True if the change with this number has reached the queue's acknowledgement level, or the journal has ended. If
    /// false, `waker` is woken when that may be true.
    #[cfg(feature = "async")]
    pub(super) fn is_safe(&self, change: u64, wait: &mut Option<OffsetWait>, waker: &Waker) -> bool {
        let notifier = &self.committer.notifier;
        let done = || (self.has_reached(change, self.level) || notifier.end_cause().is_some()).then_some(());
        if done().is_some() {
            return true;
        }
        self.want(change, self.level);
        let of = (&self.progress, change.saturating_sub(1), self.level);
        notifier.watch_offset(wait, of, waker, done).is_some()
    }

    /// Loads the body of a message from the journal. `None` if the journal no longer has it.
    pub(super) fn load(&self, partition: u32, offset: u64) -> Result<Option<Arc<E>>, String> {
        self.bodies.load(partition, offset).map(|body| body.map(Arc::new))
    }

    /// True if the journal's state has room for the block of one more message, beside `unwritten` blocks that are still
    /// to be written.
    pub(super) fn has_room(&self, unwritten: usize) -> bool {
        self.committer.state_to_spare() > (unwritten + 1) * super::codec::BLOCK_BYTES
    }
}

/// Loads single messages from the journal. Messages at consecutive offsets need no search.
struct BodyLoader<E> {
    journal: Journal,
    topic: u32,
    older: Arc<OlderRecords>,
    readers: Mutex<HashMap<u32, Reader>>,
    event: PhantomData<fn() -> E>,
}

/// The distance in offsets up to which a reader reads forward instead of searching.
const AHEAD: u64 = 4096;

impl<E: Job> BodyLoader<E> {
    fn load(&self, partition: u32, offset: u64) -> Result<Option<E>, String> {
        // The reader is taken out of the map, since no lock may be held while user code decodes the bytes. Two threads
        // that read one partition at the same time use a reader each.
        let readers = || self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = readers().remove(&partition).filter(|reader| {
            let next = reader.position();
            next <= offset && offset - next < AHEAD
        });
        let mut reader = match known {
            Some(reader) => reader,
            None => {
                let id = PartitionId { topic: self.topic, partition };
                match self.journal.reader(id, Start::Offset(offset), Visible::Written) {
                    Ok(reader) => reader.pass_gaps(),
                    Err(journal::ReplayError::OutOfRange { .. } | journal::ReplayError::Unknown(_)) => return Ok(None),
                    Err(cause) => return Err(cause.to_string()),
                }
            }
        };
        let body = loop {
            match reader.next() {
                Ok(Some(record)) if record.offset < offset => {}
                Ok(Some(record)) if record.offset == offset => {
                    let bytes = self.older.upgraded(partition, offset, record.bytes);
                    break Some(bytes.ok().and_then(|bytes| E::of_bytes(&bytes)));
                }
                Ok(_) | Err(journal::ReplayError::OutOfRange { .. }) => break None,
                Err(cause) => return Err(cause.to_string()),
            }
        };
        readers().insert(partition, reader);
        match body {
            Some(None) => Err(format!("the record at {offset} of partition {partition} is no event of this topic")),
            body => Ok(body.flatten()),
        }
    }
}

/// A waker that wakes the watching worker of a queue when the journal makes progress.
pub(super) struct JournalWaker(pub(super) Arc<Waiter>);

impl JournalWaker {
    pub(super) fn waker(waiter: &Arc<Waiter>) -> Waker {
        Waker::from(Arc::new(Self(Arc::clone(waiter))))
    }
}

impl Wake for JournalWaker {
    fn wake(self: Arc<Self>) {
        self.0.wake(WAKE);
    }
}
