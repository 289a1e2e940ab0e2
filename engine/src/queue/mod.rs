//! Queues: each message of a topic is leased to one of many workers, leased again if the work fails, and after its last
//! attempt moved to a topic for dead letters.
//!
//! A queue is a consumer of its topic. When a message is leased, it is copied to the queue's side store, and its slot
//! is free for producers from then on, however long the work takes. The side store is bounded. When it is full, no new
//! message is leased until a message is finished; the ring fills up, and the topic's overflow policy applies to its
//! producers.
//!
//! ```
//! use slipring::{Engine, Message, Record};
//! use std::time::Duration;
//!
//! let engine = Engine::builder().build()?;
//! let pictures = engine.topic::<Message>("pictures").create()?;
//! let queue = pictures.queue("resize").visibility(Duration::from_secs(30)).max_attempts(3).open()?;
//! let run = queue.run(4, |job| match job.message().value() {      // on four threads: acked if `Ok`, tried again if not
//!     b"" => Err("an empty name"),
//!     _picture => Ok(()),
//! })?;
//! run.stop();
//! run.wait();
//!
//! // Or a loop of your own.
//! let mut worker = pictures.queue("resize").visibility(Duration::from_secs(30)).max_attempts(3).join()?;
//! pictures.producer().create()?.send(Record::new("cat.png"))?;
//! let job = worker.receive(Duration::from_secs(1))?.unwrap();
//! assert_eq!((job.message().value(), job.attempt()), (&b"cat.png"[..], 1));
//! job.ack()?;                                          // or `nack`, which brings it again after a delay
//! assert!(worker.receive(Duration::ZERO)?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//! - A message has at most one holder at any moment, and an ack after the lease's end is refused.
//! - A message that was not acked is leased again: when its lease expires, or after the delay of a nack. After its last
//!   attempt it is a dead letter. A message may be processed twice, so the work must be safe to repeat.
//! - A message that was sent [with a delay](crate::Record::delay) waits in the side store until it is due.
//! - [`Order`]: relaxed by default. Messages that are leased again come before new ones, the longest due first.
//! - A queue keeps its messages while it has no worker. It ends with its topic.
//!
//! # On a durable topic
//! The queue is in the journal, under its name: the next offset to read of each partition, and for each unfinished
//! message its attempts and its lease, delay or cause of death. An opening after a crash continues from there.
//! [`QueueBuilder::acknowledge`] sets how safe a change is when its call returns. A dead letter and the removal of its
//! message are in one frame of the journal, so a message is either in the queue or a dead letter, never both or
//! neither. Unread messages stay in the journal, so producers do not wait for the queue. Bodies beyond the side store's
//! limit, and all bodies after a restart, are read from the journal when their message is leased again: without a
//! search if the messages come in the order of their offsets, otherwise with a search and the read of a frame for each.
//! A lease that has not expired when the process ends keeps its message from other workers until its deadline by the
//! system's clock; [`Queue::resume`] returns it. If that clock is set back or forward meanwhile, the lease lasts longer
//! or shorter.
//!
//! # What it costs
//! A lease, an ack, and an expiry with the next lease take less than a microsecond each, with a million messages in the
//! queue. An unfinished message takes about 70 bytes beside its body. `docs/BENCHMARKS.md` has the figures, `cargo
//! bench -p slipring --bench queue` measures them. Leasing a message again costs as much as leasing a new one if its
//! body is in memory; otherwise it also costs the read from the journal, which is done without the queue's lock. One
//! timer serves all leases and delays of an engine, and no thread polls. Each worker's call takes the queue's lock; the
//! topic's producers and its other consumers never do.
//!
//! # Errors
//! [`QueueError`]: why the queue cannot be opened. [`ReadError`](crate::subscriber::ReadError): there are no more
//! messages, because the topic or the queue has ended. [`LeaseError`]: the lease had ended before the call, so nothing
//! was changed; or the journal failed, and whether it has the change is [unknown](LeaseError::Unknown).
//!
//! # Unlike Kafka
//! A group assigns partitions and commits offsets; a queue leases and acknowledges single messages. It is like Kafka's
//! share groups, with delays and dead letters, or like SQS.

mod builder;
mod changes;
mod codec;
mod core;
mod dead_letter_iter;
mod dead_letter_reader;
pub(crate) mod dead_letter_writer;
mod deadlines;
mod delete;
mod futures;
mod idle_tasks;
mod input;
mod job;
#[doc(hidden)]
pub mod lease;
mod letters;
mod log;
mod receive_batch;
pub mod recorded;
mod renewal;
mod run;
#[cfg(feature = "async")]
mod run_task;
mod run_worker;
mod state;
mod worker;

pub use crate::base::backoff::Backoff;
pub use builder::QueueBuilder;
pub use dead_letter_iter::DeadLetterIter;
#[cfg(feature = "async")]
#[doc(no_inline)]
pub use futures::Receiving;
pub use job::Job;
pub use lease::Order;
pub use run::{QueueEnd, QueueRun};
#[cfg(feature = "async")]
#[doc(no_inline)]
pub use run_task::QueueTask;
pub use state::Waiting;
pub use worker::{Lease, LeaseError, Ticket, TicketError, Worker};

use crate::base::kind::Producers;
use crate::base::level::Unsupported;
use crate::base::turn::TurnGuard;
use crate::event::message::Message;
use crate::log::receipt::Receipt;
use crate::text;
use crate::topic::TopicCore;
use crate::topic::attached::Attached;
use crate::topic::error::DeadLetterError;
use crate::topic::error::{Contradiction, SubscribeError};
use crate::topic::metrics::QueueMetrics;
use crate::topic::report::QueueReport;
use core::QueueCore;
use dead_letter_reader::Verdict;
pub(crate) use dead_letter_reader::recorded_dead_letters;
use slipring_ring::Multi;
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A handle of a queue, to inspect and repair it. Clones are handles of the same queue.
pub struct Queue<E = Message, K: Producers = Multi> {
    core: Arc<QueueCore<E, K>>,
}

impl<E, K: Producers> Clone for Queue<E, K> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<E, K: Producers> fmt::Debug for Queue<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue {:?} of {:?}", self.core.name, self.core.topic)
    }
}

impl<E: Job, K: Producers> Queue<E, K> {
    /// The queue's name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The queue's metrics at this moment: the number of messages in each state, and counters since the queue was
    /// opened.
    pub fn metrics(&self) -> QueueMetrics {
        self.core.metrics()
    }

    /// Deletes a message from this queue, even a leased one: the ack of its worker then returns an error. Other
    /// consumers of the topic still see it. Returns false if the message was finished, moved to the dead letters or
    /// deleted before.
    ///
    /// # Errors
    /// The receipt belongs to another topic.
    pub fn delete(&self, receipt: &Receipt) -> Result<bool, QueueError> {
        if receipt.topic != self.core.topic_id {
            let (topic, queue) = (self.core.topic.clone(), self.core.name.clone());
            return Err(QueueError::ForeignReceipt { topic, queue });
        }
        Ok(self.core.delete(receipt.partition, receipt.offset))
    }

    /// Returns copies of up to `limit` messages that are still to be leased: first the waiting ones, the longest due
    /// first (in strict order only the first of each partition), then unread ones, partition by partition. This does
    /// not count as an attempt.
    ///
    /// # Panics
    /// `Clone` or `Persist` of the event's type panics.
    pub fn peek(&self, limit: usize) -> Vec<Waiting<E>> {
        self.core.peek(limit)
    }

    /// Deletes all messages that are not leased, including unread ones. Other consumers of the topic still get them.
    /// Returns the number of deleted messages.
    pub fn purge(&self) -> u64 {
        self.core.purge()
    }

    /// Iterates over the dead letters of this queue that were neither purged nor sent back, the oldest of each partition
    /// first. They are read as the iterator goes on, from the journal or from the ring of their topic: any number of them
    /// takes the same memory.
    ///
    /// If the topic for dead letters is in memory, a hidden subscriber of the queue keeps the letters; if it is
    /// durable, the journal does. In memory, a slot that another producer of that topic gave up hides the letters behind it
    /// until those before it are purged or sent back.
    ///
    /// ```
    /// # use slipring::{Engine, Message, Record};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # let jobs = engine.topic::<Message>("jobs").create()?;
    /// # let mut worker = jobs.queue("resize").max_attempts(1).join()?;
    /// # jobs.producer().create()?.send(Record::new("cat.png"))?;
    /// # worker.receive(Duration::ZERO)?.unwrap().nack(Duration::ZERO, "no such file")?;
    /// let queue = jobs.queue("resize").max_attempts(1).open()?;
    /// for letter in queue.dead_letters() {
    ///     let letter = letter?;
    ///     println!("{}@{}: {}", letter.partition, letter.offset, letter.reason);      // 0@0: no such file
    /// #   assert_eq!(letter.reason, "no such file");
    /// }
    /// assert_eq!(queue.dead_letters().count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dead_letters(&self) -> DeadLetterIter<E, K> {
        DeadLetterIter::new(self)
    }

    /// Purges all dead letters of this queue: the queue does not return them any more, and their topic no longer keeps
    /// them for it. Returns their number. Where the journal cannot be read, the letters from there on stay:
    /// [`dead_letters`](Self::dead_letters) returns why.
    pub fn purge_dead_letters(&self) -> u64 {
        let mut purged = 0;
        self.core.each_dead_letter(|_, _| {
            purged += 1;
            Verdict::Drop
        });
        purged
    }

    /// Sends up to `limit` dead letters back to this queue, oldest first. They may be leased at once, at their old
    /// offsets, with their attempts counted from 0, and other consumers of the topic do not see them. Returns their
    /// number. It is smaller than the number of letters if the side store is full, if a letter cannot be decoded as
    /// the event's type, or if the journal cannot be read there: that letter stays, and so do the later ones.
    pub fn redrive(&self, limit: u64) -> u64 {
        let mut sent = 0;
        self.core.each_dead_letter(|letter, next| {
            if sent == limit || !self.core.restore(letter, next) {
                return Verdict::Stop;
            }
            sent += 1;
            Verdict::Drop
        });
        sent
    }
}

impl<E: Job, K: Producers> Queue<E, K> {
    /// Returns the lease of a ticket, if it has not ended. On a durable topic, the ticket may come from an earlier
    /// process.
    ///
    /// # Errors
    /// The lease has expired or was ended by an ack or nack, or its message was moved or deleted.
    pub fn resume(&self, ticket: &Ticket) -> Result<Lease<E, K>, LeaseError> {
        worker::resume(&self.core, ticket)
    }
}

impl<E, K: Producers> TopicCore<E, K> {
    /// Waits until no other thread opens or deletes a queue of this topic, and lets the calling thread do so until the
    /// returned value is dropped. An error if the calling thread does so already, or is one of the journal's own.
    pub(crate) fn take_queues_turn(&self, queue: &str) -> Result<TurnGuard<()>, QueueError> {
        self.may_wait().map_err(|cause| QueueError::Journal {
            topic: self.name.clone(),
            queue: queue.to_owned(),
            cause,
        })?;
        let busy = || QueueError::Busy { topic: self.name.clone(), queue: queue.to_owned() };
        self.queues_turn.take().ok_or_else(busy)
    }
}

impl<E: Job, K: Producers> Attached for QueueCore<E, K> {
    fn name(&self) -> &str {
        &self.name
    }

    fn metrics(&self) -> QueueMetrics {
        QueueCore::metrics(self)
    }

    fn report(&self) -> QueueReport {
        self.report_of(&self.lock())
    }

    fn end(&self, forced: bool) -> Result<QueueReport, (usize, u64)> {
        self.finish(forced)
    }

    fn is_read_elsewhere(&self) -> bool {
        let reader = self.reader.load(Ordering::Relaxed);
        reader != 0 && reader != crate::base::threads::token() && self.workers.load(Ordering::Acquire) > 0
    }

    fn stop_runs(&self) {
        QueueCore::stop_runs(self);
    }

    fn note_numbers(&self) {
        QueueCore::note_numbers(self, &self.lock());
    }

    fn dead_letters(&self) -> (String, BTreeMap<u32, u64>) {
        (self.dead_topic.clone(), self.next_dead_letters())
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.lock().erased)
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// Why a queue was not opened, changed or deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The queue cannot become a consumer of its topic.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// The queue exists with settings that differ from those of the builder.
    #[error(
        "queue {queue:?} of topic {topic:?} is there already with {}; asked for was {}: ask for the same, or take another name", text::line(.there), text::line(.asked)
    )]
    OtherTerms {
        /// The topic's name.
        topic: String,
        /// The queue's name.
        queue: String,
        /// The existing queue's settings.
        there: String,
        /// The settings of the builder.
        asked: String,
    },
    /// Two settings of the queue exclude one another.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// User code, such as the clock, has made this call while the same thread opens or deletes a queue of the topic.
    #[error(
        "queue {queue:?} of topic {topic:?} was asked for by code that runs while this thread opens or deletes a queue there: ask when that is done"
    )]
    Busy {
        /// The topic's name.
        topic: String,
        /// The queue's name.
        queue: String,
    },
    /// The topic has no queue of this name.
    #[error("topic {topic:?} has no queue {queue:?}")]
    Unknown {
        /// The topic's name.
        topic: String,
        /// The queue's name.
        queue: String,
    },
    /// The system gave no thread for a worker of [`Queue::run`].
    #[error("queue {queue:?} of topic {topic:?} got no thread for a worker: {}", text::line(.cause))]
    Thread {
        /// The topic's name.
        topic: String,
        /// The queue's name.
        queue: String,
        /// The system's error, as text.
        cause: String,
    },
    /// The queue has workers or leased messages, so it is not deleted.
    #[error(
        "queue {queue:?} of topic {topic:?} has {workers} workers and {leased} messages leased: let them end, or use `delete_queue_forced`"
    )]
    InUse {
        /// The topic's name.
        topic: String,
        /// The queue's name.
        queue: String,
        /// The number of its workers.
        workers: usize,
        /// The number of its leased messages.
        leased: u64,
    },
    /// The queue has unfinished messages, so it cannot be opened with another order.
    #[error(
        "queue {queue:?} of topic {topic:?} has {out} unfinished messages, so its order cannot change: open it with the order that it had until they are finished, or purge it"
    )]
    OtherOrder {
        /// The topic's name.
        topic: String,
        /// The queue's name.
        queue: String,
        /// The number of the queue's unfinished messages.
        out: usize,
    },
    /// The journal has refused the queue, or the queue's state in the journal cannot be read.
    #[error("queue {queue:?} of topic {topic:?}: {}", text::line(.cause))]
    Journal {
        /// The topic's name.
        topic: String,
        /// The queue's name.
        queue: String,
        /// The journal's error, as text.
        cause: String,
    },
    /// The topic cannot reach the acknowledgement level of the builder.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The topic for dead letters is not suitable.
    #[error(transparent)]
    DeadLetters(#[from] DeadLetterError),
    /// The receipt belongs to a message of another topic.
    #[error("the receipt is of another topic than {topic:?}, which queue {queue:?} reads: take that topic's queue")]
    ForeignReceipt {
        /// The name of the topic that the queue reads.
        topic: String,
        /// The queue's name.
        queue: String,
    },
}

#[cfg(test)]
mod tests;
