//! Topics: what they carry, their partitions, and the settings that they are created with.
//!
//! A topic has a name, events of one type, and partitions. Each partition is a ring of slots that is allocated when the topic is
//! created; an event's offset is its number in its partition. What stands in the slots is a type of your own, or
//! [`Message`]: bytes with a key, headers and a time.
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
//! - Order inside a partition, none between partitions. Offsets only grow, and may have gaps.
//! - Memory is bounded by capacity and [`max_message`](TopicBuilder::max_message), and allocated at once.
//! - A topic in memory is gone with its engine; a [durable](TopicBuilder::durable) one is in the engine's journal under its name.
//!
//! # Errors
//! [`TopicError`]: it cannot be created, opened or changed. [`Contradiction`]: two settings exclude one another. [`Closed`]: why it
//! takes or gives nothing more.
//!
//! # Unlike Kafka
//! A topic keeps what its readers have not read, not what was published in the last days, unless it is durable; then
//! retention is by size and age as in Kafka. A full topic holds its producers up: [`Overflow`] and [`Slow`] say how.

mod any;
pub(crate) mod attached;
mod builder;
pub(crate) mod consumers;
pub(crate) mod dedup;
pub(crate) mod description;
pub(crate) mod durable;
pub(crate) mod error;
pub(crate) mod identity;
pub(crate) mod metrics;
pub(crate) mod partition;
pub(crate) mod registry;
pub(crate) mod report;
pub(crate) mod restore_names;
mod ring_source;
mod settings;
pub(crate) mod stage_name;

pub(crate) use any::AnyTopic;
pub use builder::TopicBuilder;
pub use settings::Shape;
pub(crate) use settings::TopicSettings;

pub use crate::base::closed::Closed;
pub use crate::base::ids::{MAX_NAME, MAX_PARTITIONS, TopicId, TopicPartition};
pub use crate::base::overload::{Overflow, Slow};
pub use crate::base::rate::RateLimit;
pub use crate::event::codec::Unreadable;
pub use crate::event::message::Headers;
pub use crate::topic::dedup::Deduplication;
pub use crate::topic::description::Description;
pub use crate::topic::error::{Contradiction, MAX_MESSAGE, TopicError};

use crate::base::kind::Producers;
use crate::base::overload::{ConsumerStats, TopicCounters};
use crate::base::rate::Limiter;
use crate::base::threads::Threads;
use crate::base::trace::lifecycle;

use crate::base::held::{self, Locked};
use crate::base::turn::Turn;
use crate::event::message::Message;
use crate::topic::dedup::DedupIndex;
use crate::topic::durable::DurableTopic;
use crate::topic::error::{ProducerError, SubscribeError};
use crate::topic::metrics::TopicMetrics;
use crate::topic::partition::Partition;
use crate::topic::registry::Host;
use attached::Attached;
use consumers::ConsumerRun;
use identity::ProducerIdentities;
use slipring_ring::{BuildError, Consumer, Multi};
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

/// Given a slot count, returns the constructor of the events.
pub(crate) type SlotFactory<E> =
    Box<dyn Fn(usize) -> Result<Box<dyn FnMut() -> E + Send>, SlotFactoryError> + Send + Sync>;

/// Why there is no constructor of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotFactoryError {
    /// The system gives no memory.
    Memory,
    /// The user's factory asks, while it is called.
    Busy,
}

impl fmt::Display for SlotFactoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "there is no memory for its events",
            Self::Busy => "it was called by the topic's own factory of events: call it when that has returned",
        })
    }
}

/// A topic of events of type `E`. Cloning gives another handle of the same topic.
pub struct Topic<E, K: Producers = Multi> {
    pub(crate) inner: Arc<TopicCore<E, K>>,
}

/// The partitions of a topic at a moment.
pub(crate) type Partitions<E, K> = Arc<[Arc<Partition<E, K>>]>;

/// How far a partition of a durable topic is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SafeOffsets {
    /// All below this offset survives the process.
    pub written: u64,
    /// All below this offset survives a power cut.
    pub durable: u64,
}

/// What everybody who has to do with a topic shares.
pub(crate) struct TopicCore<E, K: Producers> {
    pub(crate) id: TopicId,
    pub(crate) name: String,
    shape: Shape,
    pub(crate) host: Arc<Host>,
    /// When it was created, by the engine's clock.
    since: Duration,
    /// Of a topic that is written down.
    pub(crate) durable: Option<Arc<DurableTopic<E>>>,
    pub(crate) settings: TopicSettings,
    /// Bytes that a slot needs beside itself.
    cell: usize,
    pub(crate) slots: SlotFactory<E>,
    /// Held by whoever adds partitions, which runs the user's code.
    growing: Arc<Turn<()>>,
    /// It was closed, halted or has failed, or is about to: nobody adds a partition any more. Set under the readers' lock.
    ended: AtomicBool,
    partitions: RwLock<Partitions<E, K>>,
    /// How many partitions, for producers that look at each publish whether there are more.
    pub(crate) count: AtomicUsize,
    /// Those who read every partition, and must have joined a new one before anybody publishes there. The lock is held
    /// by whoever adds partitions or joins them all.
    readers: Mutex<Vec<Weak<dyn TopicReader<E, K>>>>,
    /// How many producers the users hold.
    pub(crate) lent: AtomicUsize,
    pub(crate) threads: Threads,
    /// The consumers that run or ran on threads of their own.
    runs: Mutex<Vec<Arc<ConsumerRun>>>,
    /// Of a topic of messages. They last as long as the topic.
    queues: Mutex<Vec<Arc<dyn Attached>>>,
    /// Held by whoever opens or deletes a queue.
    pub(crate) queues_turn: Arc<Turn<()>>,
    pub(crate) counts: TopicCounters,
    /// Of the subscribers: what is no position.
    consumer_stats: Mutex<Vec<Weak<ConsumerStats>>>,
    /// Whether any subscriber may be evicted for being slow.
    evicts: AtomicBool,
    pub(crate) limiter: Option<Limiter>,
    pub(crate) identities: ProducerIdentities,
    /// Where ids of messages are looked at.
    pub(crate) ids: Option<Arc<DedupIndex>>,
}

/// What became of an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evicted {
    /// It holds nobody up any more.
    Gone,
    /// It goes when the batch that it is in ends.
    Leaves,
}

/// What a reader has made for a partition before it takes it.
pub(crate) type Preparation = Box<dyn Any>;

/// A reader, and what it has made for each new partition.
type Prepared<E, K> = (Arc<dyn TopicReader<E, K>>, Vec<Preparation>);

/// Somebody who reads all partitions of a topic, also those that are added.
pub(crate) trait TopicReader<E, K: Producers>: Send + Sync {
    /// Joins a partition that nobody publishes into yet. Dropping what is returned leaves it again.
    fn join(&self, partition: &Arc<Partition<E, K>>) -> Result<Consumer<E, K>, SubscribeError>;

    /// Makes what it needs for the partition of this number, which is about to be made. Runs the user's code: no lock is held.
    fn prepare(&self, partition: u32) -> Result<Preparation, SubscribeError> {
        let _ = partition;
        Ok(Box::new(()))
    }

    /// All readers have joined: reads it from now on. What is returned is called when no lock is held: it tells the reader.
    fn take(
        self: Arc<Self>,
        partition: &Arc<Partition<E, K>>,
        consumer: Consumer<E, K>,
        prepared: Preparation,
    ) -> Box<dyn FnOnce()>;

    /// Waits until its threads, which are not the topic's, have read the closed topic to its end. False if `deadline`
    /// comes first.
    fn drain(&self, deadline: Instant) -> bool {
        let _ = deadline;
        true
    }
}

/// The readers of a topic while nobody else can join or add partitions.
pub(crate) struct TopicReaders<'t, E, K: Producers> {
    topic: &'t TopicCore<E, K>,
    list: Locked<'t, Vec<Weak<dyn TopicReader<E, K>>>>,
}

impl<E, K: Producers> TopicReaders<'_, E, K> {
    pub(crate) fn add(&mut self, reader: Weak<dyn TopicReader<E, K>>) {
        self.list.retain(|reader| reader.strong_count() > 0);
        self.list.push(reader);
    }

    fn all(&self) -> Vec<Arc<dyn TopicReader<E, K>>> {
        self.list.iter().filter_map(Weak::upgrade).collect()
    }

    /// No partition is added from now on.
    fn end(self) {
        self.topic.ended.store(true, Ordering::Release);
    }
}

impl<E, K: Producers> TopicCore<E, K> {
    /// The partitions that there are now.
    pub(crate) fn partitions(&self) -> Partitions<E, K> {
        Arc::clone(&self.partitions.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps partitions from being added until it is dropped.
    pub(crate) fn readers(&self) -> TopicReaders<'_, E, K> {
        TopicReaders { topic: self, list: held::lock(&self.readers) }
    }

    pub(crate) fn runs(&self) -> MutexGuard<'_, Vec<Arc<ConsumerRun>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever waits for the journal may have what the calling thread would wait for, if that is the journal's own.
    pub(crate) fn may_wait(&self) -> Result<(), String> {
        self.durable.as_ref().map_or(Ok(()), |durable| durable.committer.may_wait())
    }

    pub(crate) fn queues(&self) -> MutexGuard<'_, Vec<Arc<dyn Attached>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a consumer with threads of its own in the report. Of those that have ended, the last few hundred.
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

    /// Forgets consumers that were cancelled and have ended.
    pub(crate) fn forget_cancelled(&self) {
        let gone: Vec<_> = self.runs().extract_if(.., |run| run.is_forgotten()).collect();
        drop(gone);
    }

    pub(crate) fn closed(&self) -> Option<Closed> {
        self.partitions().iter().find_map(|partition| partition.ring.closed()).map(Closed::from)
    }

    /// Takes nothing more.
    pub(crate) fn close(&self) {
        self.readers().end();
        self.close_all();
    }

    /// Whether it takes no partitions and readers any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Sees to it that what the caller needs the timer for will be done.
    pub(crate) fn start_timer(&self) -> Result<(), ProducerError> {
        let refused =
            |cause: std::io::Error| ProducerError::Timer { topic: self.name.clone(), cause: cause.to_string() };
        self.host.timer.start().map_err(refused)
    }

    /// After [`TopicReaders::end`], and outside of its lock: who is woken may run at once.
    fn close_all(&self) {
        self.partitions().iter().for_each(|partition| partition.ring.close());
    }

    /// Ends the topic with a consumer's name and cause.
    pub(crate) fn fail(&self, consumer: &str, cause: &str) {
        self.readers().end();
        self.fail_all(consumer, cause);
    }

    /// The same without the readers' lock, which a forked child may find held for ever: for that, and after
    /// [`TopicReaders::end`].
    pub(crate) fn fail_all(&self, consumer: &str, cause: &str) {
        self.partitions().iter().for_each(|partition| partition.ring.fail(consumer, cause));
    }

    /// Has a subscriber's counters shown, and its policy kept.
    pub(crate) fn register(&self, stats: &Arc<ConsumerStats>) {
        let mut consumer_stats = self.consumer_stats.lock().unwrap_or_else(PoisonError::into_inner);
        consumer_stats.retain(|stats| stats.strong_count() > 0);
        consumer_stats.push(Arc::downgrade(stats));
        if stats.slow() != Slow::Gate {
            self.expect_evictions();
        }
    }

    /// There is somebody who must not hold producers up.
    pub(crate) fn expect_evictions(&self) {
        self.evicts.store(true, Ordering::Relaxed);
    }

    /// The subscriber of this name; of several one after the other, the last.
    pub(crate) fn stats(&self, name: &str) -> Option<Arc<ConsumerStats>> {
        let consumer_stats = self.consumer_stats.lock().unwrap_or_else(PoisonError::into_inner);
        consumer_stats
            .iter()
            .rev()
            .filter_map(Weak::upgrade)
            .find(|stats| stats.name == stage_name::without_generation(name))
    }

    pub(crate) fn evicts(&self) -> bool {
        self.evicts.load(Ordering::Relaxed)
    }

    /// How a consumer that is in the way is to be treated: itself, or who stands behind it at the same place. None if it
    /// is no subscriber.
    pub(crate) fn slow(&self, name: String) -> Option<(String, Slow)> {
        let slow = self.stats(&name)?.slow();
        Some((name, slow))
    }

    /// Evicts a subscriber that is in the way.
    pub(crate) fn evict_slow(&self, name: &str) -> Evicted {
        use slipring_ring::StageError::StoodBehind;
        let stats = self.stats(name);
        match self.evict(name) {
            Ok(at_once) => {
                if stats.is_some_and(|stats| !stats.evicted.swap(true, Ordering::Relaxed)) {
                    TopicCounters::add(&self.counts.evicted, 1);
                    lifecycle!(warn, "consumer evicted", topic = self.name, consumer = name);
                }
                if at_once { Evicted::Gone } else { Evicted::Leaves }
            }
            // Whoever stands behind it is no further than it is.
            Err(StoodBehind { behind, .. }) => match self.slow(behind) {
                Some((behind, Slow::EvictAfter(_))) => self.evict_slow(&behind),
                _ => Evicted::Leaves,
            },
            Err(_) => Evicted::Gone,
        }
    }

    /// Takes a consumer's gates away, in all partitions. False if some go only when a batch ends.
    pub(crate) fn evict(&self, consumer: &str) -> Result<bool, slipring_ring::StageError> {
        use slipring_ring::StageError::{Fence, InBatch, Unknown};
        let (mut unknown, mut found, mut at_once) = (None, false, true);
        for partition in self.partitions().iter() {
            match partition.ring.evict(consumer) {
                Ok(_) => found = true,
                // It leaves by itself: when its batch ends, or at its next poll.
                Err(InBatch { .. } | Fence { .. }) => (found, at_once) = (true, false),
                Err(refused @ Unknown { .. }) => unknown = Some(refused),
                Err(refused) => return Err(refused),
            }
        }
        if found { Ok(at_once) } else { unknown.map_or(Ok(true), Err) }
    }
}

impl<E: Send + Sync + 'static, K: Producers> TopicCore<E, K> {
    /// Adds partitions; `total` says how many there shall be, given how many there are. Every reader has joined them before a
    /// producer sees them.
    fn grow(&self, total: impl FnOnce(usize) -> usize) -> Result<(), TopicError> {
        let name = || self.name.clone();
        // One at a time. No lock is held while the factory runs, and what makes handlers.
        self.may_wait().map_err(|cause| TopicError::Journal { name: name(), cause })?;
        let _growing = self.growing.take().ok_or_else(|| TopicError::Growing { name: name() })?;
        let mut partitions = self.partitions().to_vec();
        let begun = partitions.len();
        let total = total(begun);
        if !(1..=MAX_PARTITIONS).contains(&total) {
            return Err(TopicError::Partitions { name: name(), asked: total });
        }
        if let Some(reason) = self.closed() {
            return Err(TopicError::Closed { name: name(), reason });
        }
        self.check_memory(total)?;
        let mut sources = Vec::new();
        let starts = match &self.durable {
            Some(durable) => durable.begin(begun as u32..total as u32)?,
            None => Vec::new(),
        };
        for index in begun..total {
            let TopicSettings { capacity, retain, timestamps, .. } = self.settings;
            let slots = (self.slots)(capacity).map_err(|refused| match refused {
                SlotFactoryError::Memory => {
                    let bytes = self.slot_bytes().saturating_mul(capacity as u64) as usize;
                    TopicError::Ring { name: name(), cause: BuildError::Memory { bytes } }
                }
                SlotFactoryError::Busy => TopicError::Growing { name: name() },
            })?;
            let first = starts.get(index - begun).copied().unwrap_or(0);
            let partition = Partition::new(index as u32, capacity, retain, timestamps, first, slots);
            let partition = Arc::new(partition.map_err(|cause| TopicError::Ring { name: name(), cause })?);
            if let Some(durable) = &self.durable {
                let source = durable.join(&partition, first);
                sources.push(source.map_err(|cause| TopicError::Ring { name: name(), cause })?);
            }
            partitions.push(partition);
        }
        let refused = |cause| TopicError::Consumer { name: name(), cause: Box::new(cause) };
        let mut prepared: Vec<Prepared<E, K>> = Vec::new();
        let (readers, mut prepared) = loop {
            let readers = self.readers();
            let all = readers.all();
            // Who came meanwhile is prepared as well, outside of the lock.
            let is_known =
                |reader: &Arc<dyn TopicReader<E, K>>| prepared.iter().any(|(known, _)| Arc::ptr_eq(known, reader));
            let strangers: Vec<_> = all.iter().filter(|reader| !is_known(reader)).cloned().collect();
            if strangers.is_empty() {
                prepared.retain(|(known, _)| all.iter().any(|reader| Arc::ptr_eq(known, reader)));
                break (readers, prepared);
            }
            drop(readers);
            for reader in strangers {
                let made: Result<Vec<_>, _> = (begun..total).map(|index| reader.prepare(index as u32)).collect();
                prepared.push((reader, made.map_err(refused)?));
            }
        };
        if self.has_ended() {
            return Err(TopicError::Closed { name: name(), reason: self.closed().unwrap_or(Closed::Closed) });
        }
        let mut joined = Vec::new();
        for (reader, made) in &mut prepared {
            for (partition, preparation) in partitions[begun..].iter().zip(made.drain(..)) {
                let consumer = reader.join(partition).map_err(refused)?;
                joined.push((Arc::clone(reader), Arc::clone(partition), consumer, preparation));
            }
        }
        for source in sources {
            if let Some(durable) = &self.durable {
                durable.take(source);
            }
        }
        *self.partitions.write().unwrap_or_else(PoisonError::into_inner) = partitions.into();
        let told: Vec<_> = joined
            .into_iter()
            .map(|(reader, partition, consumer, preparation)| reader.take(&partition, consumer, preparation))
            .collect();
        // Producers look for the new list when they see this.
        self.count.store(total, Ordering::Release);
        drop(readers);
        // Who is woken may run at once, and must not meet our lock.
        told.into_iter().for_each(|tell| tell());
        Ok(())
    }

    /// What one slot takes: the event and its cell, the stamp beside it where there are many producers, and its time.
    pub(crate) fn slot_bytes(&self) -> u64 {
        let stamp = if K::SINGLE { 0 } else { 8 };
        let event = (std::mem::size_of::<E>() + stamp).next_multiple_of(std::mem::align_of::<E>());
        (event + self.cell + if self.settings.timestamps { 8 } else { 0 }) as u64
    }

    /// What all slots take by now, as it was taken from the system.
    pub(crate) fn memory(&self) -> u64 {
        let partitions = self.partitions();
        let beside = self.cell + if self.settings.timestamps { 8 } else { 0 };
        let slots = |partition: &Partition<E, K>| partition.ring.memory().bytes + beside * self.settings.capacity;
        partitions.iter().map(|partition| slots(partition) as u64).sum()
    }

    fn check_memory(&self, partitions: usize) -> Result<(), TopicError> {
        let TopicSettings { capacity, memory_limit, .. } = self.settings;
        let slot = self.slot_bytes();
        let asked = slot.saturating_mul(capacity as u64).saturating_mul(partitions as u64);
        // What is no capacity at all is refused by the ring, with its own words.
        if capacity.is_power_of_two() && asked > memory_limit {
            let (name, limit) = (self.name.clone(), memory_limit);
            return Err(TopicError::Memory { name, asked, limit, partitions, capacity, slot });
        }
        Ok(())
    }
}

impl<K: Producers> Topic<Message, K> {
    /// The largest message that it takes.
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

    /// What receipts call this topic.
    pub fn id(&self) -> TopicId {
        self.inner.id
    }

    /// How many partitions it has now.
    pub fn partitions(&self) -> u32 {
        self.inner.partitions().len() as u32
    }

    /// Adds `more` partitions. Consumers that are there read them from their first offset: they miss nothing. Producers
    /// use them from their next publish on; a key may have another partition then than before.
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
    /// There would be none or more than 1,024, they would take more memory than the topic may have, or it is closed.
    /// Then there are as many as before.
    pub fn add_partitions(&self, more: usize) -> Result<(), TopicError> {
        self.inner.grow(|there| there.saturating_add(more))
    }

    /// What this topic is, and what there is in it at this moment.
    pub fn describe(&self) -> Description {
        AnyTopic::describe(&*self.inner)
    }

    /// The next offset of a partition that is not yet written, and not yet durable; none if the topic has no journal or
    /// no such partition.
    pub fn safe(&self, partition: u32) -> Option<SafeOffsets> {
        let progress = self.inner.durable.as_ref()?.acks.progress(partition)?;
        let (written, durable) = (progress.written.load(Ordering::Acquire), progress.durable.load(Ordering::Acquire));
        Some(SafeOffsets { written, durable })
    }

    /// The positions of this topic and its consumers at this moment.
    pub fn metrics(&self) -> TopicMetrics {
        AnyTopic::metrics(&*self.inner)
    }

    /// Why this topic takes nothing more; none while it is open.
    pub fn closed(&self) -> Option<Closed> {
        self.inner.closed()
    }

    /// Takes nothing more. Consumers read what is there, and are told then.
    pub fn close(&self) {
        self.inner.close();
    }
}
