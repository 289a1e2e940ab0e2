//! A topic: a name, the type of its events, and partitions.

use crate::description::Description;
use crate::durable::Durable;
use crate::engine::{Host, Shared};
use crate::error::{Closed, MAX_MESSAGE, MAX_PARTITIONS, SubscribeError, TopicError, check_name};
use crate::event::Event;
use crate::group::GroupBuilder;
use crate::identity::Identities;
use crate::journal::Retention;
use crate::journaler::STAGE;
use crate::lifecycle::lifecycle;
use crate::message::Message;
use crate::metrics::{PartitionMetrics, TopicMetrics};
use crate::overflow::{Counts, Overflow, Slow, Tally};
use crate::partition::Partition;
use crate::persist::{Persist, Persistence};
use crate::producer::{ProducerBuilder, Producers};
use crate::queue::AnyQueue;
use crate::rate::{Limiter, RateLimit};
use crate::replay::ReplayBuilder;
use crate::report::TopicReport;
use crate::subscriber::SubscriberBuilder;
use crate::subscription::Run;
use crate::threads::Threads;
use slipring_ring::{BuildError, Builder, Consumer, Multi, Single};
use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

/// Tells topics of a process apart: what a [`Receipt`](crate::Receipt) carries instead of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(u32);

impl TopicId {
    fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What two creators of one topic must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shape {
    /// The type of the events.
    pub event: &'static str,
    /// One producer only.
    pub single_producer: bool,
    /// How many partitions it was created with.
    pub partitions: usize,
    /// Events that each partition's ring holds.
    pub capacity: usize,
    /// The largest message, in bytes, where the events are messages.
    pub max_message: Option<usize>,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.partitions != 1 {
            write!(f, "{} partitions of ", self.partitions)?;
        }
        write!(f, "{} slots of {}", self.capacity, self.event)?;
        if let Some(bytes) = self.max_message {
            write!(f, " of up to {bytes} bytes")?;
        }
        f.write_str(if self.single_producer { " with a single producer" } else { " with any number of producers" })
    }
}

/// What a topic was told when it was created.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) capacity: usize,
    pub(crate) retain: usize,
    pub(crate) retain_for: Option<Duration>,
    pub(crate) timestamps: bool,
    pub(crate) max_message: usize,
    pub(crate) memory_limit: u64,
    pub(crate) overflow: Overflow,
    pub(crate) slow: Slow,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) keep: Retention,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            capacity: 1024,
            retain: 0,
            retain_for: None,
            timestamps: false,
            max_message: 1024,
            memory_limit: 1 << 30,
            overflow: Overflow::Block,
            slow: Slow::Gate,
            time_to_live: None,
            rate_limit: None,
            keep: Retention::default(),
        }
    }
}

/// Settings of a topic to be created.
pub struct TopicBuilder<E, K = Multi> {
    engine: Arc<Shared>,
    name: String,
    partitions: usize,
    settings: Settings,
    persistence: Option<Persistence<E>>,
    kind: PhantomData<(fn() -> E, K)>,
}

impl<E: Send + Sync + 'static> TopicBuilder<E> {
    pub(crate) fn new(engine: Arc<Shared>, name: String) -> Self {
        Self { engine, name, partitions: 1, settings: Settings::default(), persistence: None, kind: PhantomData }
    }

    /// Only one producer at a time: it publishes without any atomic read-modify-write.
    pub fn single_producer(self) -> TopicBuilder<E, Single> {
        let Self { engine, name, partitions, settings, persistence, .. } = self;
        TopicBuilder { engine, name, partitions, settings, persistence, kind: PhantomData }
    }
}

impl<K: Producers> TopicBuilder<Message, K> {
    /// The largest message, in bytes of key, value and headers as [`Record::size`](crate::Record::size) counts them;
    /// 1,024 unless told. Every slot has room for one of this size: see [`memory_limit`](Self::memory_limit).
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.settings.max_message = bytes;
        self
    }
}

impl<E: Send + Sync + 'static, K: Producers> TopicBuilder<E, K> {
    /// How many partitions, each with a ring of its own: 1 to 1,024, one unless told.
    pub fn partitions(mut self, partitions: usize) -> Self {
        self.partitions = partitions;
        self
    }

    /// How many events each partition's ring holds: a power of two, 1,024 unless told. All are allocated at once.
    pub fn capacity(mut self, events: usize) -> Self {
        self.settings.capacity = events;
        self
    }

    /// Keeps the last `events` (fewer than the capacity) of each partition readable for consumers that come later; none
    /// unless told.
    pub fn retain(mut self, events: usize) -> Self {
        self.settings.retain = events;
        self
    }

    /// Of what is [retained](Self::retain) or kept for a slower consumer, only what was published within `age` is for
    /// consumers that come later or go back: for them the topic begins with the first event that is younger. What is there
    /// for a consumer already stays. Needs [`timestamps`](Self::timestamps).
    pub fn retain_for(mut self, age: Duration) -> Self {
        self.settings.retain_for = Some(age);
        self
    }

    /// Notes when each event is published: for lag in time, time to live, and starting at a time. It costs a reading of
    /// the engine's clock an event or batch, so it is not done unless told.
    pub fn timestamps(mut self) -> Self {
        self.settings.timestamps = true;
        self
    }

    /// The most memory that the slots of all partitions may take, in bytes: 1 GiB unless told. All of it is taken when
    /// the topic is created, and nothing more later: capacity x (the event + [`max_message`](Self::max_message),
    /// rounded up to whole cache lines) for each partition.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.settings.memory_limit = bytes;
        self
    }

    /// What a publish does when its partition is full: waits, unless told.
    ///
    /// ```
    /// # use slipring::{Engine, Overflow, PublishError};
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").capacity(1).overflow(Overflow::Fail).create()?;
    /// let _slow = ticks.subscribe("slow").poll()?;
    /// let mut producer = ticks.producer().create()?;
    /// producer.offer(41)?;
    /// let refused = producer.offer(42).unwrap_err();
    /// assert!(matches!(refused.reason, PublishError::Full { by: Some(by), .. } if by == "slow"));
    /// assert_eq!((refused.value, ticks.metrics().refused), (42, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn overflow(mut self, policy: Overflow) -> Self {
        self.settings.overflow = policy;
        self
    }

    /// What happens to a subscriber that a full partition waits for: producers wait for it, unless told.
    pub fn slow(mut self, policy: Slow) -> Self {
        self.settings.slow = policy;
        self
    }

    /// How long an event may be read after it was published. Subscribers pass over what is older, and count it. The
    /// events of a partition expire in the order of their offsets. Needs [`timestamps`](Self::timestamps).
    pub fn time_to_live(mut self, limit: Duration) -> Self {
        self.settings.time_to_live = Some(limit);
        self
    }

    /// How many events and bytes may be published a second by all producers together: any number, unless told.
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.settings.rate_limit = Some(limit);
        self
    }

    /// Writes the topic into the engine's journal: events and their offsets outlive the process, and receipts can be
    /// waited for until theirs is written or durable. If the journal has the topic already, it goes on where that ends;
    /// events, number of partitions and the largest message must be the same or fit in.
    ///
    /// A slot is free again when its event is written and everybody has read it.
    pub fn durable(mut self) -> Self
    where
        E: Persist,
    {
        self.persistence = Some(Persistence::of());
        self
    }

    /// What the journal keeps of each partition of a [durable](Self::durable) topic: everything, unless told. It is looked
    /// at once a minute by the engine's clock, and by [`Engine::retain`](crate::Engine::retain). What is older or more
    /// can't be read any more, to the record; space is freed in whole segments.
    pub fn keep(mut self, retention: Retention) -> Self {
        self.settings.keep = retention;
        self
    }

    /// Creates the topic, its slots filled with `E::default()`, or with empty messages.
    ///
    /// # Errors
    /// The name is no name or taken (the error shows both shapes), or the size is refused.
    pub fn create(self) -> Result<Topic<E, K>, TopicError>
    where
        E: Event,
    {
        let (capacity, max_message) = (self.settings.capacity, self.settings.max_message);
        let cell = E::cell(max_message);
        if cell.is_some() && max_message > MAX_MESSAGE {
            return Err(TopicError::MaxMessage { name: self.name, asked: max_message });
        }
        self.create_from(Box::new(move || E::slots(capacity, max_message)), cell)
    }

    /// Creates the topic, its slots filled by `make`.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_with(self, make: impl FnMut() -> E + Send + 'static) -> Result<Topic<E, K>, TopicError> {
        let make = Arc::new(Mutex::new(make));
        let slots: Slots<E> = Box::new(move || {
            let make = Arc::clone(&make);
            Some(Box::new(move || (make.lock().unwrap_or_else(PoisonError::into_inner))()))
        });
        self.create_from(slots, None)
    }

    fn create_from(self, slots: Slots<E>, cell: Option<usize>) -> Result<Topic<E, K>, TopicError> {
        let Self { engine, name, partitions, settings, persistence, .. } = self;
        check_name(&name)?;
        if (settings.time_to_live.is_some() || settings.retain_for.is_some()) && !settings.timestamps {
            return Err(TopicError::NoTimestamps { name });
        }
        let shape = Shape {
            event: std::any::type_name::<E>(),
            single_producer: K::SINGLE,
            partitions,
            capacity: settings.capacity,
            max_message: cell.map(|_| settings.max_message),
        };
        let limiter = settings.rate_limit.map(|limit| Limiter::new(limit, engine.host.clock.now()));
        let mut created = None;
        engine.add(&name, &shape, || {
            let id = TopicId::next();
            let durable = match persistence {
                Some(persistence) => {
                    let journaling = engine.host.journaling.as_ref();
                    let journaling = journaling.ok_or_else(|| TopicError::NoJournal { name: name.clone() })?;
                    let size = (partitions, settings.capacity, shape.max_message.unwrap_or(0));
                    let durable = Durable::open(journaling, id, &name, persistence, size)?;
                    if settings.keep != Retention::default() {
                        journaling.keep(durable.id(0).topic, settings.keep);
                        engine.host.retain_by_and_by();
                    }
                    Some(durable)
                }
                None => None,
            };
            let partitions = durable.as_ref().map_or(partitions, |durable| durable.partitions().max(partitions));
            let inner = Inner {
                id,
                durable,
                name: name.clone(),
                shape: shape.clone(),
                since: engine.host.clock.now(),
                host: Arc::clone(&engine.host),
                settings,
                cell: cell.unwrap_or(0),
                slots: Mutex::new(slots),
                partitions: RwLock::new(Arc::new([])),
                count: AtomicUsize::new(0),
                readers: Mutex::default(),
                lent: AtomicUsize::new(0),
                threads: Threads::default(),
                runs: Mutex::default(),
                queues: Mutex::default(),
                counts: Counts::default(),
                tallies: Mutex::default(),
                evicts: AtomicBool::new(false),
                limiter,
                identities: Identities::default(),
            };
            inner.grow(partitions)?;
            let inner = Arc::new(inner);
            created = Some(Arc::clone(&inner));
            Ok(inner)
        })?;
        lifecycle!(info, "topic created", topic = name, shape = shape);
        created.map(|inner| Topic { inner }).ok_or(TopicError::ShutDown)
    }
}

/// Makes what makes the events of one partition.
pub(crate) type Slots<E> = Box<dyn Fn() -> Option<Box<dyn FnMut() -> E>> + Send>;

/// A topic of events of type `E`. Cloning gives another handle of the same topic.
pub struct Topic<E, K: Producers = Multi> {
    pub(crate) inner: Arc<Inner<E, K>>,
}

/// The partitions of a topic at a moment.
pub(crate) type Partitions<E, K> = Arc<[Arc<Partition<E, K>>]>;

/// How far a partition of a durable topic is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Safe {
    /// All below this offset survives the process.
    pub written: u64,
    /// All below this offset survives a power cut.
    pub durable: u64,
}

/// What everybody who has to do with a topic shares.
pub(crate) struct Inner<E, K: Producers> {
    pub(crate) id: TopicId,
    pub(crate) name: String,
    shape: Shape,
    pub(crate) host: Arc<Host>,
    /// When it was created, by the engine's clock.
    since: Duration,
    /// Of a topic that is written down.
    pub(crate) durable: Option<Durable<E>>,
    pub(crate) settings: Settings,
    /// Bytes that a slot needs beside itself.
    cell: usize,
    pub(crate) slots: Mutex<Slots<E>>,
    partitions: RwLock<Partitions<E, K>>,
    /// How many partitions, for producers that look at each publish whether there are more.
    pub(crate) count: AtomicUsize,
    /// Those who read every partition, and must have joined a new one before anybody publishes there. The lock is held
    /// by whoever adds partitions or joins them all.
    readers: Mutex<Vec<Weak<dyn Reader<E, K>>>>,
    /// How many producers the users hold.
    pub(crate) lent: AtomicUsize,
    pub(crate) threads: Threads,
    /// The consumers that run or ran on threads of their own.
    runs: Mutex<Vec<Arc<Run>>>,
    /// Of a topic of messages. They last as long as the topic.
    queues: Mutex<Vec<Arc<dyn AnyQueue>>>,
    pub(crate) counts: Counts,
    /// Of the subscribers: what is no position.
    tallies: Mutex<Vec<Weak<Tally>>>,
    /// Whether any subscriber may be evicted for being slow.
    evicts: AtomicBool,
    pub(crate) limiter: Option<Limiter>,
    pub(crate) identities: Identities,
}

/// What became of an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evicted {
    /// It holds nobody up any more.
    Gone,
    /// It goes when the batch that it is in ends.
    Leaves,
}

/// Somebody who reads all partitions of a topic, also those that are added.
pub(crate) trait Reader<E, K: Producers>: Send + Sync {
    /// Joins a partition that nobody publishes into yet. Dropping what is returned leaves it again.
    fn join(&self, partition: &Arc<Partition<E, K>>) -> Result<Consumer<E, K>, SubscribeError>;

    /// All readers have joined: reads it from now on.
    fn take(self: Arc<Self>, partition: &Arc<Partition<E, K>>, consumer: Consumer<E, K>);

    /// Waits until its threads, which are not the topic's, have read the closed topic to its end. False if `deadline`
    /// comes first.
    fn drain(&self, deadline: Instant) -> bool {
        let _ = deadline;
        true
    }
}

/// The readers of a topic while nobody else can join or add partitions.
pub(crate) struct Readers<'t, E, K: Producers> {
    list: MutexGuard<'t, Vec<Weak<dyn Reader<E, K>>>>,
}

impl<E, K: Producers> Readers<'_, E, K> {
    pub(crate) fn add(&mut self, reader: Weak<dyn Reader<E, K>>) {
        self.list.retain(|reader| reader.strong_count() > 0);
        self.list.push(reader);
    }

    fn all(&self) -> Vec<Arc<dyn Reader<E, K>>> {
        self.list.iter().filter_map(Weak::upgrade).collect()
    }
}

impl<E, K: Producers> Inner<E, K> {
    /// The partitions that there are now.
    pub(crate) fn partitions(&self) -> Partitions<E, K> {
        Arc::clone(&self.partitions.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps partitions from being added until it is dropped.
    pub(crate) fn readers(&self) -> Readers<'_, E, K> {
        Readers { list: self.readers.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    pub(crate) fn runs(&self) -> MutexGuard<'_, Vec<Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn queues(&self) -> MutexGuard<'_, Vec<Arc<dyn AnyQueue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a consumer with threads of its own in the report. Of those that have ended, the last few hundred.
    pub(crate) fn keep(&self, run: Arc<Run>) {
        const MOST: usize = 256;
        let mut runs = self.runs();
        let is_over = |run: &Arc<Run>| run.state().threads == 0;
        if runs.len() >= MOST
            && let Some(oldest) = runs.iter().position(is_over)
        {
            runs.remove(oldest);
        }
        runs.push(run);
    }

    pub(crate) fn closed(&self) -> Option<Closed> {
        self.partitions().iter().find_map(|partition| partition.ring.closed()).map(Closed::from)
    }

    pub(crate) fn close(&self) {
        // A partition that is being added is closed as well.
        let _no_new_partition = self.readers();
        self.close_all();
    }

    /// For whoever keeps partitions from being added.
    fn close_all(&self) {
        self.partitions().iter().for_each(|partition| partition.ring.close());
    }

    /// Ends the topic with a consumer's name and cause.
    pub(crate) fn fail(&self, consumer: &str, cause: &str) {
        let _no_new_partition = self.readers();
        self.fail_all(consumer, cause);
    }

    /// For whoever keeps partitions from being added.
    pub(crate) fn fail_all(&self, consumer: &str, cause: &str) {
        self.partitions().iter().for_each(|partition| partition.ring.fail(consumer, cause));
    }

    /// Has a subscriber's counters shown, and its policy kept.
    pub(crate) fn register(&self, tally: &Arc<Tally>) {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.retain(|tally| tally.strong_count() > 0);
        tallies.push(Arc::downgrade(tally));
        if tally.slow != Slow::Gate {
            self.evicts.store(true, Ordering::Relaxed);
        }
    }

    /// The subscriber of this name; of several one after the other, the last.
    pub(crate) fn tally(&self, name: &str) -> Option<Arc<Tally>> {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.iter().rev().filter_map(Weak::upgrade).find(|tally| tally.name == name)
    }

    pub(crate) fn evicts(&self) -> bool {
        self.evicts.load(Ordering::Relaxed)
    }

    /// How a consumer that is in the way is to be treated: itself, or who stands behind it at the same place. None if it
    /// is no subscriber.
    pub(crate) fn slow(&self, name: String) -> Option<(String, Slow)> {
        let slow = self.tally(&name)?.slow;
        Some((name, slow))
    }

    /// Evicts a subscriber that is in the way.
    pub(crate) fn evict_slow(&self, name: &str) -> Evicted {
        use slipring_ring::StageError::StoodBehind;
        let tally = self.tally(name);
        match self.evict(name) {
            Ok(at_once) => {
                if tally.is_some_and(|tally| !tally.evicted.swap(true, Ordering::Relaxed)) {
                    Counts::add(&self.counts.evicted, 1);
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
        use slipring_ring::StageError::{InBatch, Unknown};
        let _no_new_partition = self.readers();
        let (mut unknown, mut found, mut at_once) = (None, false, true);
        for partition in self.partitions().iter() {
            match partition.ring.evict(consumer) {
                Ok(_) => found = true,
                Err(InBatch { .. }) => (found, at_once) = (true, false),
                Err(refused @ Unknown { .. }) => unknown = Some(refused),
                Err(refused) => return Err(refused),
            }
        }
        if found { Ok(at_once) } else { unknown.map_or(Ok(true), Err) }
    }
}

impl<E: Send + Sync + 'static, K: Producers> Inner<E, K> {
    /// Adds partitions up to `total`. Every reader has joined them before a producer sees them.
    fn grow(&self, total: usize) -> Result<(), TopicError> {
        let name = || self.name.clone();
        if !(1..=MAX_PARTITIONS).contains(&total) {
            return Err(TopicError::Partitions { name: name(), asked: total });
        }
        let readers = self.readers();
        if let Some(reason) = self.closed() {
            return Err(TopicError::Closed { name: name(), reason });
        }
        self.check_memory(total)?;
        let mut partitions = self.partitions().to_vec();
        let mut joined = Vec::new();
        let mut sources = Vec::new();
        let begun = partitions.len();
        let starts = match &self.durable {
            Some(durable) => durable.begin(begun as u32..total as u32)?,
            None => Vec::new(),
        };
        for index in begun..total {
            let Settings { capacity, retain, timestamps, .. } = self.settings;
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner)();
            let no_memory = || {
                let bytes = self.slot_bytes().saturating_mul(capacity as u64) as usize;
                TopicError::Ring { name: name(), cause: BuildError::Memory { bytes } }
            };
            let slots = slots.ok_or_else(no_memory)?;
            let first = starts.get(index - begun).copied().unwrap_or(0);
            let partition = Partition::new(index as u32, capacity, retain, timestamps, first, slots);
            let partition = Arc::new(partition.map_err(|cause| TopicError::Ring { name: name(), cause })?);
            if let Some(durable) = &self.durable {
                let source = durable.join(&partition, first);
                sources.push(source.map_err(|cause| TopicError::Ring { name: name(), cause })?);
            }
            for reader in readers.all() {
                let refused = |cause| TopicError::Consumer { name: name(), cause: Box::new(cause) };
                let consumer = reader.join(&partition).map_err(refused)?;
                joined.push((reader, Arc::clone(&partition), consumer));
            }
            partitions.push(partition);
        }
        for source in sources {
            if let Some(durable) = &self.durable {
                durable.take(source);
            }
        }
        *self.partitions.write().unwrap_or_else(PoisonError::into_inner) = partitions.into();
        for (reader, partition, consumer) in joined {
            reader.take(&partition, consumer);
        }
        // Producers look for the new list when they see this.
        self.count.store(total, Ordering::Release);
        Ok(())
    }

    /// What one slot takes: the event and its cell, the stamp beside it where there are many producers, and its time.
    fn slot_bytes(&self) -> u64 {
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
        let Settings { capacity, memory_limit, .. } = self.settings;
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
    /// assert!((&mut batch).into_iter().eq([(&42, slipring::At::new(2, 0, true))]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// There would be none or more than 1,024, they would take more memory than the topic may have, or it is closed.
    /// Then there are as many as before.
    pub fn add_partitions(&self, more: usize) -> Result<(), TopicError> {
        let total = self.inner.partitions().len().saturating_add(more);
        self.inner.grow(total)
    }

    /// What this topic is, and what there is in it at this moment.
    pub fn describe(&self) -> Description {
        AnyTopic::describe(&*self.inner)
    }

    /// A producer of this topic: its settings, then [`create`](ProducerBuilder::create).
    pub fn producer(&self) -> ProducerBuilder<E, K> {
        ProducerBuilder::new(Arc::clone(&self.inner))
    }

    /// A subscriber: sees every event of this topic. Its settings, then [`run`](SubscriberBuilder::run) or
    /// [`poll`](SubscriberBuilder::poll).
    pub fn subscribe(&self, name: impl Into<String>) -> SubscriberBuilder<E, K> {
        SubscriberBuilder::new(Arc::clone(&self.inner), name.into())
    }

    /// A member of a group that reads this topic: its settings, then [`join`](GroupBuilder::join) or
    /// [`run`](GroupBuilder::run). For several topics see [`Engine::group`](crate::Engine::group).
    pub fn group(&self, name: impl Into<String>) -> GroupBuilder<E, K> {
        let topics = vec![Arc::clone(&self.inner)];
        GroupBuilder::new(Arc::clone(&self.inner.host), name.into(), topics)
    }

    /// A reader of a [durable](TopicBuilder::durable) topic that begins in the journal, however far back, and goes on with
    /// what is published. Its settings, then [`open`](ReplayBuilder::open).
    pub fn replay(&self, name: impl Into<String>) -> ReplayBuilder<E, K> {
        ReplayBuilder::new(Arc::clone(&self.inner), name.into())
    }

    /// The next offset of a partition that is not yet written, and not yet durable; none if the topic has no journal or
    /// no such partition.
    pub fn safe(&self, partition: u32) -> Option<Safe> {
        let positions = self.inner.durable.as_ref()?.acks.positions(partition)?;
        let (written, durable) = (positions.written.load(Ordering::Acquire), positions.durable.load(Ordering::Acquire));
        Some(Safe { written, durable })
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

/// What the engine needs of a topic, whatever its events.
pub(crate) trait AnyTopic: Send + Sync {
    fn id(&self) -> TopicId;
    fn name(&self) -> &str;
    fn shape(&self) -> &Shape;
    fn metrics(&self) -> TopicMetrics;
    fn describe(&self) -> Description;
    /// Closes the topic if nobody reads it; else the names of those who do.
    fn close_unread(&self) -> Result<(), Vec<String>>;
    fn closed(&self) -> Option<Closed>;
    fn producers(&self) -> usize;
    /// Stops everyone at once.
    fn halt(&self);
    fn shutdown(&self, limit: Duration) -> TopicReport;
    /// Takes it out of the journal, if it is there.
    fn forget(&self) -> Result<(), TopicError>;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<E: Send + Sync + 'static, K: Producers> AnyTopic for Inner<E, K> {
    fn id(&self) -> TopicId {
        self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn metrics(&self) -> TopicMetrics {
        let tally = |name: &str| self.tally(name);
        let partitions = self.partitions();
        let wall = self.host.clock.wall();
        let partitions = partitions.iter().map(|partition| {
            let times = partition.times.as_ref();
            let lag_time =
                |next: Option<u64>| times.map(|times| next.map_or(Duration::ZERO, |at| wall.since(times.get(at))));
            PartitionMetrics::new(partition.index, partition.ring.positions(), lag_time)
        });
        let partitions = partitions.collect();
        let age = self.host.clock.now().saturating_sub(self.since);
        let queues = self.queues().clone();
        let queues = queues.iter().map(|queue| queue.metrics()).collect();
        TopicMetrics::new(self.name.clone(), age, partitions, &self.counts, tally, queues)
    }

    fn describe(&self) -> Description {
        let Settings { capacity, retain, timestamps, memory_limit, .. } = self.settings;
        let metrics = AnyTopic::metrics(self);
        Description {
            name: self.name.clone(),
            id: self.id,
            shape: self.shape.clone(),
            partitions: metrics.partitions,
            capacity,
            retain,
            timestamps,
            slot_bytes: self.slot_bytes(),
            memory: self.memory(),
            memory_limit,
            producers: self.lent.load(Ordering::Acquire),
            consumers: metrics.consumers.into_iter().map(|consumer| consumer.name).collect(),
            closed: Inner::closed(self),
        }
    }

    fn close_unread(&self) -> Result<(), Vec<String>> {
        // Whoever joins after this finds it closed.
        let _no_newcomer = self.readers();
        let mut names = Vec::new();
        for stage in self.partitions().iter().flat_map(|partition| partition.ring.positions().stages) {
            let writes_down = self.durable.is_some() && stage.name == STAGE;
            if !writes_down && !names.contains(&stage.name) {
                names.push(stage.name);
            }
        }
        if names.is_empty() {
            self.close_all();
            return Ok(());
        }
        Err(names)
    }

    fn closed(&self) -> Option<Closed> {
        Inner::closed(self)
    }

    fn producers(&self) -> usize {
        self.lent.load(Ordering::Acquire)
    }

    fn halt(&self) {
        let _no_new_partition = self.readers();
        for partition in self.partitions().iter() {
            partition.ring.halt();
        }
    }

    fn shutdown(&self, limit: Duration) -> TopicReport {
        self.close();
        let now = Instant::now();
        // For ever, or as good as.
        let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        let deadline = now.checked_add(limit).or_else(|| now.checked_add(century)).unwrap_or(now);
        let partitions = self.partitions();
        let readers = self.readers().all();
        let drained = |deadline| self.threads.wait(deadline) && readers.iter().all(|reader| reader.drain(deadline));
        if !drained(deadline) {
            self.halt();
            // A moment for threads that are about to end.
            drained(Instant::now() + Duration::from_millis(100));
        }
        if let Some(durable) = &self.durable {
            durable.drained(&partitions, deadline);
        }
        TopicReport::new(&self.name, &partitions, &self.runs())
    }

    fn forget(&self) -> Result<(), TopicError> {
        self.durable.as_ref().map_or(Ok(()), Durable::forget)
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl Producers for Single {
    const SINGLE: bool = true;

    fn builder<E: Send + Sync + 'static>(capacity: usize, make: impl FnMut() -> E + 'static) -> Builder<E, Self> {
        Builder::single(capacity, make)
    }

    fn take<E>(spare: &mut Option<slipring_ring::Producer<E, Self>>) -> Option<slipring_ring::Producer<E, Self>> {
        spare.take()
    }
}

impl Producers for Multi {
    const SINGLE: bool = false;

    fn builder<E: Send + Sync + 'static>(capacity: usize, make: impl FnMut() -> E + 'static) -> Builder<E, Self> {
        Builder::multi(capacity, make)
    }

    fn take<E>(spare: &mut Option<slipring_ring::Producer<E, Self>>) -> Option<slipring_ring::Producer<E, Self>> {
        spare.clone()
    }
}
