//! Queue mode: each message of a topic to one of many workers, leased, given out again, at last moved aside.
//!
//! A queue is one more consumer of its topic. A message leaves the ring when it is leased: it is copied to the queue's
//! side store, and its slot is free for producers from then on, however long the work takes. The side store is bounded;
//! when it is full, no worker is given a new message until one is done with, the ring fills up, and the topic's overflow
//! policy answers producers.
//!
//! # What it promises
//! - A message has at most one holder at any moment, and an ack after the lease ran out is refused.
//! - A message that was not acked comes again: when its lease runs out, or after the delay of a nack; it is a dead letter
//!   after the last attempt. It may come twice, so the work must be safe to be done twice.
//! - [`Order`]: relaxed unless told. Messages that come again come before new ones, the longest due first.
//! - A queue holds its messages while it has no worker. It ends with its topic.
//!
//! What a lease, an ack and a redelivery cost, and the memory of a message: `cargo bench -p slipring --bench queue`.
//! Each worker's call takes the queue's lock; the topic's producers and its other consumers never do.

mod calendar;
mod desk;
#[doc(hidden)]
pub mod lease;
mod worker;

pub use lease::Order;
pub use worker::{Lease, LeaseError, Worker};

use crate::error::{SubscribeError, check_name};
use crate::graves::{DeadLetterError, Graves, Keeper, Verdict};
use crate::letter::{self, DeadLetter};
use crate::lifecycle::lifecycle;
use crate::message::Message;
use crate::metrics::QueueMetrics;
use crate::producer::Producers;
use crate::receipt::Receipt;
use crate::subscriber::{StartAt, SubscriberBuilder};
use crate::topic::{Inner, Reader, Topic};
use desk::Desk;
use lease::{Leases, Terms};
use slipring_ring::Multi;
use std::any::Any;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Bytes that a message in the side store takes beside key, value and headers.
const BESIDE: usize = 160;

/// Settings of a queue, or of one more worker of it.
///
/// ```
/// use slipring::{Engine, Message, Record};
/// use std::time::Duration;
///
/// let engine = Engine::builder().build()?;
/// let jobs = engine.topic::<Message>("jobs").create()?;
/// let mut worker = jobs.queue("resize").visibility(Duration::from_secs(30)).max_attempts(5).join()?;
/// jobs.producer().create()?.send(Record::new("cat.png"))?;
///
/// while let Some(job) = worker.receive(Duration::from_millis(100))? {
///     match std::str::from_utf8(job.message().value()) {
///         Ok(_picture) => job.ack()?,
///         Err(error) => job.nack(Duration::from_secs(1), &error.to_string())?,
///     }
/// #   break;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct QueueBuilder<K: Producers = Multi> {
    topic: Arc<Inner<Message, K>>,
    name: String,
    start: StartAt,
    terms: Terms,
    dead: Option<String>,
}

impl<K: Producers> Topic<Message, K> {
    /// A queue of this topic's messages: each goes to one of the workers that [join](QueueBuilder::join) it. All that
    /// name the same queue share it.
    pub fn queue(&self, name: impl Into<String>) -> QueueBuilder<K> {
        let terms = Terms {
            visibility: Duration::from_secs(30),
            max_attempts: Some(5),
            order: Order::Relaxed,
            max_messages: 1 << 20,
            max_bytes: 256 << 20,
        };
        let (topic, name) = (Arc::clone(&self.inner), name.into());
        QueueBuilder { topic, name, start: StartAt::Earliest, terms, dead: None }
    }
}

impl<K: Producers> QueueBuilder<K> {
    /// Where the queue begins, if it is not there yet: at the earliest message that is kept, unless told.
    pub fn start(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// How long a lease lasts unless it is [renewed](Lease::renew), rounded up to whole milliseconds; 30 seconds unless
    /// told.
    pub fn visibility(mut self, visibility: Duration) -> Self {
        self.terms.visibility = visibility;
        self
    }

    /// How often a message is given out before it is a dead letter: 5 times unless told; 0 is taken as 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.terms.max_attempts = Some(attempts.max(1));
        self
    }

    /// Gives a message out again for ever. One that nobody can handle then comes again for ever, too.
    pub fn unlimited_attempts(mut self) -> Self {
        self.terms.max_attempts = None;
        self
    }

    /// The topic that dead letters are moved to: `topic.queue.dead` unless told. It is created if it is not there, with
    /// room for 1,024 letters, the last 512 of which it retains for others. When it is full, the dead stay in the side store until there is room.
    pub fn dead_letter(mut self, topic: impl Into<String>) -> Self {
        self.dead = Some(topic.into());
        self
    }

    /// What may be out at the same time: anything, unless told.
    pub fn order(mut self, order: Order) -> Self {
        self.terms.order = order;
        self
    }

    /// The most messages that are leased, delayed or come again at any time: 1,048,576 unless told; 0 is taken as 1.
    pub fn max_outstanding(mut self, messages: usize) -> Self {
        self.terms.max_messages = messages.max(1);
        self
    }

    /// The most bytes that these may take: 256 MiB unless told. The last message to come may go beyond.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.terms.max_bytes = bytes.max(1);
        self
    }

    /// One more worker of the queue, which is made if it is not there yet.
    ///
    /// # Errors
    /// The name is no name, or a consumer has it; the queue is there with other settings (the error shows both); the dead
    /// letters' topic is refused; or the topic is closed.
    pub fn join(self) -> Result<Worker<K>, QueueError> {
        Ok(Worker { desk: self.open()?.desk })
    }

    /// The queue itself, to look at it and to mend it; it is made if it is not there yet.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn open(self) -> Result<Queue<K>, QueueError> {
        check_name(&self.name).map_err(SubscribeError::Name)?;
        let topic = Arc::clone(&self.topic);
        let mut queues = topic.queues();
        let Some(found) = queues.iter().find(|queue| queue.name() == self.name) else {
            let desk = self.make()?;
            queues.push(Arc::clone(&desk) as Arc<dyn AnyQueue>);
            return Ok(Queue { desk });
        };
        let desk = Arc::clone(found).into_any().downcast::<Desk<K>>();
        let desk = desk.unwrap_or_else(|_| unreachable!("all queues of a topic have its kind of producers"));
        let there = Settings(&desk.terms, &desk.dead_topic).to_string();
        let asked = Settings(&self.terms, &self.dead_topic()).to_string();
        if there != asked {
            let (topic, queue) = (self.topic.name.clone(), self.name);
            return Err(QueueError::OtherTerms { topic, queue, there, asked });
        }
        Ok(Queue { desk })
    }

    fn dead_topic(&self) -> String {
        self.dead.clone().unwrap_or_else(|| format!("{}.{}.dead", self.topic.name, self.name))
    }

    fn make(self) -> Result<Arc<Desk<K>>, QueueError> {
        let (topic, dead_topic) = (&self.topic, self.dead_topic());
        let largest = topic.settings.max_message;
        let dead = topic.host.dead_letters(&dead_topic, largest + letter::overhead(&topic.name, &self.name));
        let dead = dead.map_err(DeadLetterError::Topic)?;
        let graves = Graves::open(&dead, &topic.name, &self.name, largest)?;
        let keeper = Keeper::new(&dead, &topic.name, &self.name)?;
        let mut readers = topic.readers();
        let builder = SubscriberBuilder::new(Arc::clone(topic), self.name.clone()).start(self.start.clone());
        let parts = builder.join_all()?;
        let leases = Leases::new(self.terms, |message: &Arc<Message>| message.size() + BESIDE);
        let desk = Desk::new(topic, self.name, builder.stage(), (dead_topic, graves, keeper), leases, parts);
        let reader: Arc<dyn Reader<Message, K>> = Arc::clone(&desk) as _;
        readers.add(Arc::downgrade(&reader) as Weak<_>);
        lifecycle!(info, "queue opened", topic = topic.name, queue = desk.name);
        Ok(desk)
    }
}

/// What two who open one queue must agree on.
struct Settings<'a>(&'a Terms, &'a str);

impl fmt::Display for Settings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Terms { visibility, max_attempts, order, max_messages, max_bytes } = self.0;
        let order = if *order == Order::Strict { "strict" } else { "relaxed" };
        write!(f, "leases of {visibility:?}, ")?;
        match max_attempts {
            Some(attempts) => write!(f, "{attempts} attempts")?,
            None => write!(f, "unlimited attempts")?,
        }
        write!(
            f,
            ", {order} order, at most {max_messages} messages and {max_bytes} bytes out, dead letters to {:?}",
            self.1
        )
    }
}

/// A queue, to look at it and to mend it. Cloning gives another handle of the same queue.
pub struct Queue<K: Producers = Multi> {
    desk: Arc<Desk<K>>,
}

impl<K: Producers> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { desk: Arc::clone(&self.desk) }
    }
}

impl<K: Producers> fmt::Debug for Queue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue {:?} of {:?}", self.desk.name, self.desk.topic)
    }
}

/// A message that waits in a queue.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Waiting {
    /// Its partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// How often it was given out.
    pub attempts: u32,
    /// How long it is held back still; zero if it may be given out.
    pub delay: Duration,
    /// The message.
    pub message: Arc<Message>,
}

impl<K: Producers> Queue<K> {
    /// The queue's name.
    pub fn name(&self) -> &str {
        &self.desk.name
    }

    /// How many messages are in which state, and what has happened so far.
    pub fn metrics(&self) -> QueueMetrics {
        self.desk.metrics()
    }

    /// Deletes a single message from this queue, also one that is leased: its holder is told at the ack. Other consumers
    /// of the topic still see it. False if it was done with, moved to the dead letters, or deleted before.
    ///
    /// # Errors
    /// The receipt is of another topic.
    pub fn delete(&self, receipt: &Receipt) -> Result<bool, QueueError> {
        if receipt.topic != self.desk.topic_id {
            let (topic, queue) = (self.desk.topic.clone(), self.desk.name.clone());
            return Err(QueueError::ForeignReceipt { topic, queue });
        }
        Ok(self.desk.delete(receipt.partition, receipt.offset))
    }

    /// The next `limit` messages that nobody has: first those that come again, the longest due first, then new ones,
    /// partition by partition. They are copied; their attempts do not count.
    pub fn peek(&self, limit: usize) -> Vec<Waiting> {
        self.desk.peek(limit)
    }

    /// Deletes every message that nobody has a lease on, here and in the topic for this queue. How many.
    pub fn purge(&self) -> u64 {
        self.desk.purge()
    }

    /// The first `limit` dead letters of this queue that were neither purged nor sent back, oldest first.
    ///
    /// They are kept by a consumer of their topic that the queue has for that.
    pub fn dead_letters(&self, limit: usize) -> Vec<DeadLetter> {
        let mut found = Vec::new();
        self.desk.keeper().each(|letter| {
            if found.len() == limit {
                return Verdict::Enough;
            }
            found.push(letter);
            Verdict::Stays
        });
        found
    }

    /// Forgets this queue's dead letters. How many.
    pub fn purge_dead_letters(&self) -> u64 {
        let mut purged = 0;
        self.desk.keeper().each(|_| {
            purged += 1;
            Verdict::Out
        });
        self.desk.resettle();
        purged
    }

    /// Sends dead letters back to this queue, `limit` at most, oldest first: they come again at once, at their old
    /// offsets, with their attempts counted anew, and no other consumer of the topic sees them. How many; fewer than
    /// there are if the side store is full.
    pub fn redrive(&self, limit: u64) -> u64 {
        let mut sent = 0;
        self.desk.keeper().each(|letter| {
            if sent == limit || !self.desk.restore(letter) {
                return Verdict::Enough;
            }
            sent += 1;
            Verdict::Out
        });
        self.desk.resettle();
        sent
    }
}

/// What a topic needs of its queues.
pub(crate) trait AnyQueue: Send + Sync {
    fn name(&self) -> &str;
    fn metrics(&self) -> QueueMetrics;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<K: Producers> AnyQueue for Desk<K> {
    fn name(&self) -> &str {
        &self.name
    }

    fn metrics(&self) -> QueueMetrics {
        Desk::metrics(self)
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// A queue was refused, or what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// It could not become a consumer of its topic.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// It is there, with other settings.
    #[error(
        "queue {queue:?} of topic {topic:?} is there already with {there}; asked for was {asked}: ask for the same, or take another name"
    )]
    OtherTerms {
        /// The topic.
        topic: String,
        /// The queue.
        queue: String,
        /// Its settings.
        there: String,
        /// Those asked for.
        asked: String,
    },
    /// Its dead letters would have no place.
    #[error(transparent)]
    DeadLetters(#[from] DeadLetterError),
    /// A receipt of another topic's message.
    #[error("the receipt is of another topic than {topic:?}, which queue {queue:?} reads: take that topic's queue")]
    ForeignReceipt {
        /// The topic.
        topic: String,
        /// The queue.
        queue: String,
    },
}
