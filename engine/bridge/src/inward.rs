//! A bridge inward: it reads the streams that a bridge outward has written, and publishes their records into a topic.
//!
//! # Why each record is published once
//! The bridge publishes through an idempotent producer of each partition. The sequence is the record's count in its stream, which
//! is in the message's head. The journal keeps that sequence in the frame of the record, so the topic itself says which record
//! of the stream is next, after any crash.

use crate::bridge::Bridge;
use crate::cursor::StreamCursor;
use crate::envelope::Tip;
use crate::origin::{ImportedInto, Origin};
use crate::record::Record;
use crate::remote::{Remote, RemoteError};
use crate::stopped::{Halt, Stopped};
use slipring::journal::JournalId;
use slipring::producer::{IdempotentProducer, ProducerError, Producers};
use slipring::{Message, Topic};
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
    /// How many messages of the stream are not read yet, as far as it is known: 0 also while an
    /// [`error`](ImportStatus::error) says that the stream has not answered yet.
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

/// How long the thread waits for new messages before it looks whether it was ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long the thread waits after an error.
const PAUSE: Duration = Duration::from_millis(200);

impl Bridge {
    /// Returns the settings of a bridge that imports the streams that a bridge outward has written. Under `name`, with the
    /// partition's number behind it, the topic knows the import's producers.
    pub fn inward(name: impl Into<String>) -> Inbound {
        Inbound { name: name.into() }
    }
}

impl Inbound {
    /// Starts to import into a topic with as many partitions as there are streams. `remote` returns the stream of a
    /// partition. A topic in memory gets all records again after a restart.
    ///
    /// In a durable topic each record has one header more, [`Record::ORIGIN`], which takes [`Record::ORIGIN_SIZE`] bytes. Create
    /// the topic with a [`max_message`](slipring::TopicBuilder::max_message) that is so much larger than at the origin. Others may publish
    /// into the topic, and a bridge may copy it outward into streams of its own: the bridge passes over what an import has
    /// brought, so two machines can copy a topic both ways.
    ///
    /// # Errors
    /// The topic gives no producer of this name.
    pub fn start<K, R>(self, topic: &Topic<Message, K>, mut remote: impl FnMut(u32) -> R) -> Result<Import, ImportError>
    where
        K: Producers,
        R: Remote + 'static,
    {
        let recorded = topic.recorded();
        let into = recorded.map(|(journal, number)| (journal, ImportedInto::new(journal, number)));
        let mut readers = Vec::new();
        for partition in 0..topic.partitions() {
            let producer = topic.producer().idempotent(format!("{}-{partition}", self.name))?;
            readers.push(StreamReader {
                partition,
                remote: remote(partition),
                next: producer.next_sequence().unwrap_or(1),
                producer,
                topic: topic.clone(),
                into,
                cursor: StreamCursor::default(),
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
    // While there is nothing to read, each reader waits in turn.
    let (mut limit, look) = (Duration::ZERO, LOOK / readers.len().max(1) as u32);
    loop {
        let (mut has_moved, mut error) = (false, None);
        for reader in &mut readers {
            if shared.ends.load(Ordering::Acquire) {
                return Stopped::Ended("the import was ended".to_owned());
            }
            match reader.step(limit) {
                Ok(moved) => has_moved |= moved,
                Err(Halt::Stopped(stopped)) => return stopped,
                Err(Halt::Remote(RemoteError::Refused(cause))) => {
                    return Stopped::Refused { stream: reader.remote.name(), cause };
                }
                Err(Halt::Remote(cause)) => error = Some(format!("{}: {cause}", reader.remote.name())),
            }
        }
        let is_in_error = error.is_some();
        shared.set(|status| {
            status.error = error;
            status.partitions.clear();
            status.partitions.extend(readers.iter().map(|reader| PartitionImport {
                partition: reader.partition,
                imported: reader.next - 1,
                lag: reader.cursor.lag(),
            }));
        });
        if is_in_error {
            std::thread::sleep(PAUSE);
        }
        limit = if has_moved { Duration::ZERO } else { look };
    }
}

/// The reader of one stream.
struct StreamReader<K: Producers, R> {
    partition: u32,
    remote: R,
    producer: IdempotentProducer<Message, K>,
    topic: Topic<Message, K>,
    /// The journal of the topic, and by which name imported records name the topic; `None` for a topic in memory.
    into: Option<(JournalId, ImportedInto)>,
    /// The count of the next record to be published.
    next: u64,
    cursor: StreamCursor,
}

impl<K: Producers, R: Remote> StreamReader<K, R> {
    /// Reads some messages, waits up to `limit` for the first, and publishes their records. Returns false if there are none.
    fn step(&mut self, limit: Duration) -> Result<bool, Halt> {
        let Self { partition, remote, producer, topic, into, next, cursor } = self;
        let (from, stream) = (*next, remote.name());
        // A topic that is ahead of its stream has records of another one.
        let has = |tip: &Tip| tip.count < from;
        cursor.read(remote, limit, has, |_, head, mut records| {
            for (record, count) in records.iter_mut().zip(head.behind.count + 1..) {
                if count != *next {
                    continue;
                }
                if let Some((own, into)) = *into {
                    let journal = head.writer.journal;
                    if journal == own && topic.metrics().replication.is_some_and(|bridge| bridge.ended.is_none()) {
                        return Err(Stopped::Own { stream: stream.clone() });
                    }
                    record.headers.retain(|(name, _)| name != Record::ORIGIN);
                    record.headers.push((Record::ORIGIN.to_owned(), Origin { journal, count }.encode(into).to_vec()));
                }
                let sent = producer.send(count, record.to_send().partition(*partition));
                sent.map_err(|cause| Stopped::Ended(cause.to_string()))?;
                *next += 1;
            }
            Ok(())
        })
    }
}
