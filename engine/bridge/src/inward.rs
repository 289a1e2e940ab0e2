//! A bridge inward: it reads the streams that a bridge outward has written, and publishes their records into a topic.
//!
//! # Why each record is published once
//! The bridge publishes through an idempotent producer of each partition. The sequence is the record's count in its stream, which
//! is in the message's head. The journal keeps that sequence in the frame of the record, so the topic itself says which record
//! of the stream is next, after any crash.

use crate::bridge::Bridge;
use crate::envelope::{Head, Kind};
use crate::outward::FENCE;
use crate::remote::{Remote, RemoteError};
use crate::stopped::{Halt, Stopped};
use slipring::producer::{IdempotentProducer, ProducerError, Producers};
use slipring::{Message, Topic};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Why an import was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The topic gave no producer.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// The operating system gave no thread.
    #[error("no thread for the import: {0}")]
    Thread(#[from] std::io::Error),
}

/// Settings of an [`Import`]; made by [`Bridge::inward`].
#[derive(Clone, Debug)]
pub struct Inbound {
    name: String,
}

/// How far an import has come in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionImport {
    /// The partition's number.
    pub partition: u32,
    /// How many records of the stream are in the topic.
    pub imported: u64,
    /// How many messages of the stream are not read yet.
    pub lag: u64,
}

/// How an import is: see [`Import::status`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportStatus {
    /// Why the import has stopped; `None` while it runs.
    pub stopped: Option<Stopped>,
    /// The last error that the import tries to get over; `None` if it works.
    pub error: Option<String>,
    /// Each partition.
    pub partitions: Vec<PartitionImport>,
}

#[derive(Default)]
struct Shared {
    ends: AtomicBool,
    status: Mutex<ImportStatus>,
}

impl Shared {
    fn set(&self, change: impl FnOnce(&mut ImportStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A bridge that publishes the records of streams into a topic, until it is ended or dropped.
///
/// It has a thread of its own. What it has not imported when it ends is imported by the next one of its name.
pub struct Import {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// How long the thread waits before it asks for new messages again.
const LOOK: Duration = Duration::from_millis(20);
/// How long the thread waits after an error.
const PAUSE: Duration = Duration::from_millis(200);
/// The most messages of a partition that are read at a time.
const READ: u64 = 256;

impl Bridge {
    /// Returns the settings of a bridge that imports the streams that a bridge outward has written. Under `name`, with the
    /// partition's number behind it, the topic knows the import's producers.
    pub fn inward(name: impl Into<String>) -> Inbound {
        Inbound { name: name.into() }
    }
}

impl Inbound {
    /// Starts to import into a topic with as many partitions as there are streams. `remote` returns the stream of a
    /// partition. Nobody else should publish into the topic. A topic in memory gets all records again after a restart.
    ///
    /// Do not copy the topic outward into streams that its origin imports: the records would go round for ever.
    ///
    /// # Errors
    /// The topic gives no producer of this name.
    pub fn start<K, R>(self, topic: &Topic<Message, K>, mut remote: impl FnMut(u32) -> R) -> Result<Import, ImportError>
    where
        K: Producers,
        R: Remote + 'static,
    {
        let mut readers = Vec::new();
        for partition in 0..topic.partitions() {
            let producer = topic.producer().idempotent(format!("{}-{partition}", self.name))?;
            readers.push(StreamReader {
                partition,
                remote: remote(partition),
                next: producer.next_sequence().unwrap_or(1),
                producer,
                sequence: None,
                newest: None,
                lag: 0,
            });
        }
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("slipring-import".to_owned()).spawn(move || {
            let stopped = run(readers, &of_thread);
            of_thread.set(|status| status.stopped = Some(stopped));
        })?;
        Ok(Import { shared, thread: Some(thread) })
    }
}

impl Import {
    /// How the import is.
    pub fn status(&self) -> ImportStatus {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the import, and returns how it was. A server that does not answer delays this by a few seconds.
    pub fn end(mut self) -> ImportStatus {
        self.shared.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.status()
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
    }
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Import({:?})", self.status())
    }
}

fn run<K: Producers, R: Remote>(mut readers: Vec<StreamReader<K, R>>, shared: &Shared) -> Stopped {
    loop {
        let (mut has_moved, mut error) = (false, None);
        for reader in &mut readers {
            if shared.ends.load(Ordering::Acquire) {
                return Stopped::Ended("the import was ended".to_owned());
            }
            match reader.step() {
                Ok(moved) => has_moved |= moved,
                Err(Halt::Stopped(stopped)) => return stopped,
                Err(Halt::Remote(RemoteError::Refused(cause))) => {
                    return Stopped::Refused { stream: reader.remote.name(), cause };
                }
                Err(Halt::Remote(cause)) => error = Some(cause.to_string()),
            }
        }
        let is_in_error = error.is_some();
        shared.set(|status| {
            status.error = error;
            status.partitions.clear();
            status.partitions.extend(readers.iter().map(|reader| PartitionImport {
                partition: reader.partition,
                imported: reader.next - 1,
                lag: reader.lag,
            }));
        });
        if is_in_error {
            std::thread::sleep(PAUSE);
        } else if !has_moved {
            std::thread::sleep(LOOK);
        }
    }
}

/// The reader of one stream.
struct StreamReader<K: Producers, R> {
    partition: u32,
    remote: R,
    producer: IdempotentProducer<Message, K>,
    /// The count of the next record to be published.
    next: u64,
    /// The number of the next message to be read; `None` until it was searched for.
    sequence: Option<u64>,
    /// The head of the last message that counts.
    newest: Option<Head>,
    lag: u64,
}

impl<K: Producers, R: Remote> StreamReader<K, R> {
    /// Reads some messages, and publishes their records. Returns false if there are none.
    fn step(&mut self) -> Result<bool, Halt> {
        let numbers = self.remote.numbers()?;
        let from = match self.sequence {
            Some(from) => from,
            None => self.search(&numbers)?,
        };
        self.sequence = Some(from);
        self.lag = numbers.end.saturating_sub(from);
        if self.lag == 0 {
            return Ok(false);
        }
        let end = numbers.end.min(from + READ);
        for (stored, sequence) in self.remote.read(from..end)?.into_iter().zip(from..) {
            // A message that is not there came late behind a mark, and was deleted; the chain of heads says if it was another.
            if let Some(stored) = stored {
                let stream = || self.remote.name();
                let Some(head) = stored.head else {
                    return Err(Stopped::Foreign { stream: stream(), sequence }.into());
                };
                let is_late = self.newest.is_some_and(|newest| head.writer.epoch < newest.writer.epoch);
                if !is_late {
                    if self.newest.is_some_and(|newest| newest.tip != head.behind) {
                        return Err(Stopped::Broken { stream: stream(), sequence }.into());
                    }
                    if head.kind == Kind::Record && head.tip.count >= self.next {
                        let Some(record) = stored.record.filter(|_| head.tip.count == self.next) else {
                            return Err(Stopped::Broken { stream: stream(), sequence }.into());
                        };
                        self.publish(&record).map_err(Stopped::Ended)?;
                        self.next += 1;
                    }
                    self.newest = Some(head);
                }
            }
            self.sequence = Some(sequence + 1);
            self.lag = numbers.end.saturating_sub(sequence + 1);
        }
        Ok(true)
    }

    fn publish(&mut self, record: &crate::Record) -> Result<(), String> {
        let mut copy = slipring::Record::new(&record.value).partition(self.partition);
        if let Some(key) = &record.key {
            copy = copy.key(key);
        }
        if let Some(time) = record.timestamp {
            copy = copy.timestamp(time);
        }
        for (name, value) in &record.headers {
            copy = copy.header(name, value);
        }
        self.producer.send(self.next, &copy).map(drop).map_err(|cause| cause.to_string())
    }

    /// The number of the message at which to begin: so far in front of the next record that a message of an older writer among
    /// those of a newer one is known as late.
    fn search(&mut self, numbers: &Range<u64>) -> Result<u64, Halt> {
        let (mut low, mut high) = (numbers.start, numbers.end);
        while low < high {
            let middle = low + (high - low) / 2;
            // Deleted messages count as the next one that is there.
            let stored = self.remote.read(middle..high.min(middle + READ))?;
            let found = stored.into_iter().zip(middle..).find_map(|(stored, sequence)| Some((stored?, sequence)));
            match found {
                Some((stored, sequence)) if stored.head.is_some_and(|head| head.tip.count < self.next) => {
                    low = sequence + 1
                }
                _ => high = middle,
            }
        }
        let from = low.saturating_sub(FENCE as u64 + 3).max(numbers.start);
        // Records of the stream's beginning that were not imported and are gone.
        let first = self.remote.read(from..numbers.end.min(from + 1))?.pop().flatten().and_then(|stored| stored.head);
        match first {
            Some(head) if head.behind.count + 1 > self.next => {
                let (stream, earliest) = (self.remote.name(), head.behind.count + 1);
                Err(Stopped::Missing { stream, from: self.next, earliest }.into())
            }
            _ => Ok(from),
        }
    }
}
