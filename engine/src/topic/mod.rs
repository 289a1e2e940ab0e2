//! Topics: their events, partitions and settings.
//!
//! A topic has a name, events of one type, and partitions. Each partition is a ring of slots that is allocated when the
//! partition is made; an event's offset is its number in its partition. The events are of a type of your own, or
//! [`Message`]s: bytes with a key, headers and a time.
//!
//! ```
//! use slipring::{Engine, producer::PublishError, topic::Overflow};
//!
//! let engine = Engine::builder().build()?;
//! let ticks = engine.topic::<u64>("ticks").partitions(2).capacity(4).overflow(Overflow::Fail).create()?;
//! let reader = ticks.subscribe("slow").poll()?;
//! let mut producer = ticks.producer().create()?;
//! for tick in 0..4 {
//!     producer.publish_to(0, |place| *place = tick)?;
//! }
//! assert!(matches!(producer.publish_to(0, |_| ()), Err(PublishError::Full { .. })));
//! println!("{:?}", ticks.describe());
//! # drop(reader);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - Events have an order inside a partition, and none between partitions. Offsets only grow; an offset may have no
//!   event, for example if a producer dropped its claim.
//! - Memory is bounded by the capacity and [`max_message`](TopicBuilder::max_message), and allocated when a partition
//!   is made.
//! - A topic in memory ends with its engine. A [durable](TopicBuilder::durable) topic stays in the engine's journal
//!   under its name.
//!
//! # Errors
//! [`TopicError`]: the topic cannot be created, opened or changed. [`Contradiction`]: two settings exclude one another.
//! [`Closed`]: why the topic accepts and delivers no more events.
//!
//! # Unlike Kafka
//! A topic in memory keeps the events that its readers have not read, and the last [`retain`](TopicBuilder::retain)
//! events, but no longer history. A durable topic has retention by size and age as in Kafka. A full topic makes its
//! producers wait: [`Overflow`] and [`Slow`] change that.

mod any;
pub(crate) mod attached;
mod builder;
pub(crate) mod compacted;
pub(crate) mod consumers;
pub(crate) mod dedup;
pub(crate) mod deferred;
pub(crate) mod description;
pub(crate) mod durable;
pub(crate) mod error;
mod eviction;
pub(crate) mod gathering;
mod grow;
pub(crate) mod identity;
pub(crate) mod metrics;
pub(crate) mod older_records;
pub(crate) mod partition;
pub(crate) mod promises;
mod reader;
pub(crate) mod registry;
pub(crate) mod replication;
pub(crate) mod report;
pub(crate) mod restore_names;
pub(crate) mod ring_link;
mod ring_source;
mod settings;
mod slots;
pub(crate) mod stage_name;

pub(crate) use any::AnyTopic;
pub use builder::TopicBuilder;
pub(crate) use eviction::Evicted;
pub(crate) use reader::{Preparation, TopicReader};
pub use settings::Shape;
pub(crate) use settings::TopicSettings;
pub(crate) use slots::{SlotFactory, SlotFactoryError};

pub use crate::base::closed::Closed;
pub use crate::base::ids::{MAX_NAME, MAX_PARTITIONS, TopicId, TopicPartition};
pub use crate::base::overload::{Overflow, Slow};
pub use crate::base::rate::RateLimit;
pub use crate::event::codec::Unreadable;
pub use crate::event::message::Headers;
pub use crate::event::upgrade::Upgrades;
pub use crate::log::compaction::Compaction;
pub use crate::topic::dedup::Deduplication;
pub use crate::topic::description::Description;
pub use crate::topic::error::{Contradiction, MAX_MESSAGE, OutOfRange, TopicError};

use crate::base::kind::Producers;
use crate::base::overload::TopicCounters;
use crate::base::rate::Limiter;
use crate::base::threads::Threads;

use crate::base::held::{self, Locked};
use crate::base::turn::Turn;
use crate::event::message::Message;
use crate::topic::dedup::DedupIndex;
use crate::topic::durable::DurableTopic;
use crate::topic::error::ProducerError;
use crate::topic::metrics::TopicMetrics;
use crate::topic::partition::Partition;
use crate::topic::registry::Host;
use attached::Attached;
use consumers::{ConsumerIndex, ConsumerRun};
use gathering::Gathering;
use identity::ProducerIdentities;
use ring_link::RingLinks;
use slipring_journal::JournalId;
use slipring_ring::{Multi, OnError};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

/// A topic of events of type `E`. Cloning gives another handle of the same topic.
pub struct Topic<E, K: Producers = Multi> {
    pub(crate) inner: Arc<TopicCore<E, K>>,
}

/// A snapshot of a topic's partitions, by number.
pub(crate) type Partitions<E, K> = Arc<[Arc<Partition<E, K>>]>;

/// How far a partition of a durable topic is written, durable and replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SafeOffsets {
    /// All events below this offset survive the end of the process, but not a power cut.
    pub written: u64,
    /// All events below this offset survive the end of the process and a power cut.
    pub durable: u64,
    /// All events below this offset are on a cluster of other machines too, but those that the bridge has skipped; 0 if no
    /// bridge has said so since the topic was opened.
    pub replicated: u64,
}

/// The state of a topic, which its handles, producers and consumers share.
pub(crate) struct TopicCore<E, K: Producers> {
    pub(crate) id: TopicId,
    pub(crate) name: String,
    shape: Shape,
    pub(crate) host: Arc<Host>,
    /// The time of creation, by the engine's clock.
    since: Duration,
    /// The topic's state in the journal; `None` if the topic is in memory.
    pub(crate) durable: Option<Arc<DurableTopic<E>>>,
    pub(crate) settings: TopicSettings,
    /// The size in bytes up to which a message is accepted without a look at the bridge's limit: that of
    /// [`TopicSettings::max_message`] where there is none. Loaded and stored relaxed: the limit itself is read under a lock.
    pub(crate) unlimited_message: AtomicUsize,
    /// The bytes that a slot has for a message beside the event itself; 0 if the events are not messages.
    cell: usize,
    pub(crate) slots: SlotFactory<E>,
    /// Lent to the thread that adds partitions. A [`Turn`] instead of a lock, because user code runs meanwhile.
    growing: Arc<Turn<()>>,
    /// True once the topic is closed, halted or has failed, or is about to be: no more partitions are added, and no
    /// readers join. Set under the lock of `readers`.
    ended: AtomicBool,
    partitions: RwLock<Partitions<E, K>>,
    /// The first offset of each [deferred](deferred) partition; `None` once the topic has its partitions.
    deferred: Mutex<Option<Vec<u64>>>,
    /// The number of partitions. Each publish compares it with the number that the producer knows, to find new
    /// partitions.
    pub(crate) count: AtomicUsize,
    /// The consumers that read all partitions, and must join a new partition before a producer publishes into it.
    /// Locked while partitions are added, and while a new reader joins all partitions.
    readers: Mutex<Vec<Weak<dyn TopicReader<E, K>>>>,
    /// The number of producers of the topic that exist now.
    pub(crate) lent: AtomicUsize,
    pub(crate) threads: Threads,
    /// The managed consumers, running or ended, for the topic's report.
    runs: Mutex<Vec<Arc<ConsumerRun>>>,
    /// The queues of the topic. A queue stays here until it is deleted or the topic ends.
    queues: Mutex<Vec<Arc<dyn Attached>>>,
    /// Lent to the thread that opens or deletes a queue. A [`Turn`] instead of a lock, because user code runs
    /// meanwhile.
    pub(crate) queues_turn: Arc<Turn<()>>,
    pub(crate) counts: TopicCounters,
    pub(crate) gathering: Gathering,
    /// The counters of the topic's consumers.
    consumer_stats: Mutex<ConsumerIndex>,
    /// True if some consumer's policy allows eviction, so that producers of a full partition must check for it.
    evicts: AtomicBool,
    pub(crate) limiter: Option<Limiter>,
    pub(crate) identities: ProducerIdentities,
    /// The remembered ids of published messages; `None` unless the topic deduplicates.
    pub(crate) ids: Option<Arc<DedupIndex>>,
    pub(crate) ring_links: RingLinks,
}

/// Counts as one of a topic's producers, from its creation until its drop.
pub(crate) struct ProducerCount<E, K: Producers>(Arc<TopicCore<E, K>>);

impl<E, K: Producers> ProducerCount<E, K> {
    pub(crate) fn new(topic: &Arc<TopicCore<E, K>>) -> Self {
        topic.lent.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(topic))
    }
}

impl<E, K: Producers> Drop for ProducerCount<E, K> {
    fn drop(&mut self) {
        self.0.lent.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The locked readers of a topic. While this value exists, no partition is added and no other reader joins.
pub(crate) struct TopicReaders<'t, E, K: Producers> {
    pub(super) topic: &'t TopicCore<E, K>,
    pub(super) list: Locked<'t, Vec<Weak<dyn TopicReader<E, K>>>>,
}

impl<E, K: Producers> TopicReaders<'_, E, K> {
    pub(crate) fn add(&mut self, reader: Weak<dyn TopicReader<E, K>>) {
        self.list.retain(|reader| reader.strong_count() > 0);
        self.list.push(reader);
    }

    pub(super) fn all(&self) -> Vec<Arc<dyn TopicReader<E, K>>> {
        self.list.iter().filter_map(Weak::upgrade).collect()
    }

    /// True if a reader of the topic has this name. Needed only until the topic has partitions: their rings themselves
    /// refuse a name that a reader has.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.all().iter().any(|reader| reader.name() == name)
    }

    /// Marks the topic as ended: no more partitions are added, and no readers join.
    pub(super) fn end(self) {
        self.topic.ended.store(true, Ordering::Release);
    }
}

impl<E, K: Producers> TopicCore<E, K> {
    /// The error policy of managed consumers without one of their own.
    pub(crate) fn on_error(&self) -> OnError {
        self.settings.on_error.unwrap_or(self.host.on_error)
    }

    /// A snapshot of the topic's partitions, by number.
    pub(crate) fn partitions(&self) -> Partitions<E, K> {
        Arc::clone(&self.partitions.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Locks the readers: no partition is added until the returned value is dropped.
    pub(crate) fn readers(&self) -> TopicReaders<'_, E, K> {
        TopicReaders { topic: self, list: held::lock(&self.readers) }
    }

    pub(crate) fn runs(&self) -> MutexGuard<'_, Vec<Arc<ConsumerRun>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an error on the journal's own threads, which must not wait for another thread, because that thread may
    /// itself be waiting for the journal. `Ok` for a topic in memory.
    pub(crate) fn may_wait(&self) -> Result<(), String> {
        self.durable.as_ref().map_or(Ok(()), |durable| durable.committer.may_wait())
    }

    pub(crate) fn queues(&self) -> MutexGuard<'_, Vec<Arc<dyn Attached>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a managed consumer to the topic's report. If the report has 256 consumers already, removes the oldest one
    /// that has ended, if there is one.
    pub(crate) fn keep(&self, run: Arc<ConsumerRun>) {
        const MOST: usize = 256;
        let mut runs = self.runs();
        runs.retain(|run| !run.is_forgotten());
        let is_over = |run: &Arc<ConsumerRun>| run.state().threads == 0;
        if runs.len() >= MOST
            && let Some(oldest) = runs.iter().position(is_over)
        {
            runs.remove(oldest);
        }
        runs.push(run);
    }

    /// Removes from the topic's report the consumers that were cancelled and have ended without a failure.
    pub(crate) fn forget_cancelled(&self) {
        let gone: Vec<_> = self.runs().extract_if(.., |run| run.is_forgotten()).collect();
        drop(gone);
    }

    pub(crate) fn closed(&self) -> Option<Closed> {
        let partitions = self.partitions();
        if partitions.is_empty() {
            // A topic whose partitions are deferred.
            return self.has_ended().then_some(Closed::Closed);
        }
        partitions.iter().find_map(|partition| partition.ring.closed()).map(Closed::from)
    }

    /// Closes the topic: it accepts no more events, and consumers can read the published ones.
    pub(crate) fn close(&self) {
        self.readers().end();
        self.close_all();
    }

    /// True if the topic adds no more partitions and no readers can join.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Starts the engine's timer, unless it runs already. An error if its thread cannot be started.
    pub(crate) fn start_timer(&self) -> Result<(), ProducerError> {
        let refused =
            |cause: std::io::Error| ProducerError::Timer { topic: self.name.clone(), cause: cause.to_string() };
        self.host.timer.start().map_err(refused)
    }

    /// Closes all rings. Called after the lock of [`TopicReaders::end`] is released, because a reader that this wakes
    /// may run at once and take the lock.
    fn close_all(&self) {
        self.partitions().iter().for_each(|partition| partition.ring.close());
    }

    /// Fails the topic: the next call of each of its producers and consumers returns an error with the name `consumer`
    /// and the `cause`.
    pub(crate) fn fail(&self, consumer: &str, cause: &str) {
        self.readers().end();
        self.fail_all(consumer, cause);
    }

    /// Fails all rings without taking the readers' lock. Called after [`TopicReaders::end`], and in a forked process,
    /// where another thread of the parent may hold the lock for ever.
    pub(crate) fn fail_all(&self, consumer: &str, cause: &str) {
        let partitions = self.partitions();
        // Announced to all rings before the first one fails, because a consumer that sees one ring failed leaves all of
        // them.
        partitions.iter().for_each(|partition| partition.ring.announce_failure(consumer, cause));
        partitions.iter().for_each(|partition| partition.ring.fail(consumer, cause));
    }
}

impl<K: Producers> Topic<Message, K> {
    /// The size of the largest message that the topic accepts, in bytes; see [`TopicBuilder::max_message`].
    pub fn max_message(&self) -> usize {
        self.inner.settings.max_message
    }
}

impl<E, K: Producers> Clone for Topic<E, K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<E, K: Producers> fmt::Debug for Topic<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:?}, {})", self.inner.name, self.inner.shape)
    }
}

impl<E: Send + Sync + 'static, K: Producers> Topic<E, K> {
    pub(crate) fn of(topic: Arc<dyn AnyTopic>) -> Option<Self> {
        topic.into_any().downcast().ok().map(|inner| Self { inner })
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The topic's id, which its receipts have too.
    pub fn id(&self) -> TopicId {
        self.inner.id
    }

    /// The id of the journal that has the topic, and the topic's number there; `None` for a topic in memory.
    ///
    /// ```
    /// use slipring::{Engine, journal::{recorded_topics, inspect, simulated::SimulatedDisk}};
    /// # use std::{sync::Arc, time::Duration};
    /// let disk = SimulatedDisk::new();
    /// let engine = Engine::builder().journal_in(disk.clone()).build()?;
    /// let ticks = engine.topic::<u64>("ticks").durable().create()?;
    /// let (journal, number) = ticks.recorded().expect("the topic is durable");
    /// assert_eq!(engine.journal().map(|journal| journal.id()), Some(journal));
    /// # drop(ticks);
    /// # engine.shutdown(Duration::from_secs(5));
    /// assert_eq!(recorded_topics(inspect(Arc::new(disk), false)?.state())[0].number, number);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recorded(&self) -> Option<(JournalId, u32)> {
        let durable = self.inner.durable.as_ref()?;
        Some((durable.journal().id(), durable.id(0).topic))
    }

    /// True if both handles are of one topic of one engine. A topic that was deleted and one that has its name now differ.
    ///
    /// ```
    /// # use slipring::{Engine, producer::Multi};
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").create()?;
    /// assert!(ticks.same_topic(&engine.get::<u64, Multi>("ticks")?) && engine.same_engine(&engine.clone()));
    /// assert!(!ticks.same_topic(&engine.topic::<u64>("other").create()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn same_topic(&self, other: &Self) -> bool {
        self.inner.id == other.inner.id
    }

    /// The present number of partitions.
    pub fn partitions(&self) -> u32 {
        self.inner.partitions().len() as u32
    }

    /// Adds `more` partitions. Present consumers read the new partitions from their first offset, so they miss no
    /// event. Producers use the new partitions from their next publish on; a key may then go to another partition than
    /// before.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").create()?;
    /// let mut tape = ticks.subscribe("tape").poll()?;
    /// let mut producer = ticks.producer().create()?;
    /// ticks.add_partitions(2)?;
    /// producer.publish_to(2, |tick| *tick = 42)?;
    /// let mut batch = tape.poll(Duration::from_secs(1))?.unwrap();
    /// assert!((&mut batch).into_iter().eq([(&42, slipring::subscriber::At::new(2, 0, true))]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The topic would have more than 1,024 partitions or exceed its memory limit, it is closed, the calling thread is
    /// adding partitions to it already, a consumer cannot join the new partitions, or the journal refuses them. The
    /// topic then has as many partitions as before.
    pub fn add_partitions(&self, more: usize) -> Result<(), TopicError> {
        self.inner.grow(|there| there.saturating_add(more))
    }

    /// Describes the topic's settings and its state at this moment.
    pub fn describe(&self) -> Description {
        AnyTopic::describe(&*self.inner)
    }

    /// How far a partition is written, durable and replicated; `None` if the topic is in memory or has no partition of this number.
    pub fn safe(&self, partition: u32) -> Option<SafeOffsets> {
        let progress = self.inner.durable.as_ref()?.acks.progress(partition)?;
        let (written, durable) = (progress.written.load(Ordering::Acquire), progress.durable.load(Ordering::Acquire));
        let replicated = progress.replicated.load(Ordering::Acquire);
        Some(SafeOffsets { written, durable, replicated })
    }

    /// The topic's metrics at this moment: its positions and counters, and those of its consumers.
    pub fn metrics(&self) -> TopicMetrics {
        AnyTopic::metrics(&*self.inner)
    }

    /// Why the topic has ended; `None` while it is open.
    pub fn closed(&self) -> Option<Closed> {
        self.inner.closed()
    }

    /// Closes the topic: it accepts no more events. Consumers read the remaining events, and then get [`Closed`].
    ///
    /// Records that a [producer has gathered](crate::producer::LingeringProducer) are published before, if they have room;
    /// the others are given up, and the producer's callback gets the error.
    pub fn close(&self) {
        self.inner.close_gathered(Instant::now(), Duration::ZERO);
    }
}
