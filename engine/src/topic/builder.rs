//! The builder of a topic: the settings of a topic, and its creation.

mod upgrades;

use super::gathering::Gathering;
use super::identity::ProducerIdentities;
use super::registry::Registry;
use super::restore_names;
use super::ring_link::RingLinks;
use super::settings::{Shape, TopicSettings};
use super::{SlotFactory, SlotFactoryError, Topic, TopicCore};
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::base::overload::{Overflow, Slow, TopicCounters};
use crate::base::rate::{Limiter, RateLimit};
use crate::base::threads::{Threads, blaming};
use crate::base::trace::lifecycle;
use crate::base::turn::Turn;
use crate::event::Event;
use crate::event::codec::{Persist, Persistence};
use crate::event::message::{Message, schema_layout};
use crate::event::upgrade::Upgrades;
use crate::log::compaction::Compaction;
use crate::topic::compacted;
use crate::topic::dedup::{self, DedupIndex, Deduplication, IdOf};
use crate::topic::durable::DurableTopic;
use crate::topic::error::{Contradiction, MAX_MESSAGE, TopicError, check_name};
use slipring_journal::Retention;
use slipring_ring::{Multi, OnError, Single};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

/// The builder of a topic: see [`Engine::topic`](crate::Engine::topic).
pub struct TopicBuilder<E, K = Multi> {
    engine: Arc<Registry>,
    name: String,
    partitions: usize,
    settings: TopicSettings,
    persistence: Option<Persistence<E>>,
    deduplication: Option<(Deduplication, IdOf<E>)>,
    /// The steps from older layouts of the events.
    upgrades: Upgrades,
    /// The schema of messages; `None` if it was not set.
    schema: Option<u32>,
    /// True if the topic is created without its partitions: see [`deferred`](super::deferred).
    is_deferred: bool,
    kind: PhantomData<(fn() -> E, K)>,
}

impl<E: Send + Sync + 'static> TopicBuilder<E> {
    pub(crate) fn new(engine: Arc<Registry>, name: String) -> Self {
        Self {
            engine,
            name,
            partitions: 1,
            settings: TopicSettings::default(),
            persistence: None,
            deduplication: None,
            upgrades: Upgrades::new(),
            schema: None,
            is_deferred: false,
            kind: PhantomData,
        }
    }

    /// Makes the topic one with a single producer: only one producer can exist at a time, and it publishes without an
    /// atomic read-modify-write. Default: any number of producers.
    pub fn single_producer(self) -> TopicBuilder<E, Single> {
        let Self {
            engine, name, partitions, settings, persistence, deduplication, upgrades, schema, is_deferred, ..
        } = self;
        TopicBuilder {
            engine,
            name,
            partitions,
            settings,
            persistence,
            deduplication,
            upgrades,
            schema,
            is_deferred,
            kind: PhantomData,
        }
    }
}

impl<K: Producers> TopicBuilder<Message, K> {
    /// Sets the size of the largest message in bytes: key, value and headers as [`Record::size`](crate::Record::size)
    /// counts them. Default: 1,024. Every slot has room for a message of this size: see
    /// [`memory_limit`](Self::memory_limit).
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.settings.max_message = bytes;
        self
    }

    /// Publishes each message [id](crate::Record::id) once within `window`. A message whose id was published within
    /// `window`, by any producer, is not published again; the caller gets the receipt of the first message. Messages
    /// without an id are always published. On a durable topic the window survives a restart: opening the topic reads
    /// its messages from the journal.
    ///
    /// ```
    /// use slipring::{Engine, Message, Record, topic::Deduplication};
    /// use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// let window = Deduplication::within(Duration::from_secs(120));
    /// let orders = engine.topic::<Message>("orders").deduplicate(window).create()?;
    /// let mut producer = orders.producer().create()?;
    /// let first = producer.send(Record::new("buy 3").id("order-7"))?;
    /// assert_eq!(producer.send(Record::new("buy 3").id("order-7"))?, first);      // sent again after a timeout, say
    /// assert_eq!((orders.metrics().published, orders.metrics().duplicates), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// While one producer publishes a message, another one with the same id waits as it would for room: as long as the
    /// topic's [`overflow`](Self::overflow) or the call allows, and then again as long for room. Then, and at once where
    /// they allow no wait, the error is [`IdClaimed`](crate::producer::PublishError::IdClaimed).
    ///
    /// [`send`](crate::Producer::send) and its variants check ids. Producers that gather, idempotent producers and
    /// transactions refuse a message with an id on such a topic. Ids are compared by a keyed hash of 128 bits.
    pub fn deduplicate(mut self, window: Deduplication) -> Self {
        self.deduplication = Some((window, Message::id));
        self
    }
}

impl<E: Send + Sync + 'static, K: Producers> TopicBuilder<E, K> {
    /// Sets the number of partitions, 1 to 1,024, each with its own ring. Default: 1.
    pub fn partitions(mut self, partitions: usize) -> Self {
        self.partitions = partitions;
        self
    }

    /// Sets the number of slots of each partition's ring, which must be a power of two. Default: 1,024. All slots of a
    /// partition are allocated when the partition is created.
    pub fn capacity(mut self, events: usize) -> Self {
        self.settings.capacity = events;
        self
    }

    /// Keeps the last `events` events of each partition for consumers that join later or seek back. Must be less than
    /// the capacity. Default: 0.
    pub fn retain(mut self, events: usize) -> Self {
        self.settings.retain = events;
        self
    }

    /// Hides events older than `age` from consumers that join later or seek back: the topic then begins for them with
    /// the first event that was published within `age`. Applies to events that are [retained](Self::retain) or kept for
    /// a slower consumer. Consumers that have joined still read all their events. Default: no limit. Needs
    /// [`timestamps`](Self::timestamps).
    pub fn retain_for(mut self, age: Duration) -> Self {
        self.settings.retain_for = Some(age);
        self
    }

    /// Stores with each event the time at which it was published. Needed for lag in time, time to live and starting at
    /// a time. Each publish of an event or batch then reads the engine's clock. Default: off.
    pub fn timestamps(mut self) -> Self {
        self.settings.timestamps = true;
        self
    }

    /// Makes a publish wake nobody, so that it never makes a system call, whatever its readers do: for threads that must not
    /// enter the kernel. A reader, task or group that would sleep until an event comes, and the journal's thread, sleep for a
    /// millisecond at most instead, and look again. A subscriber with [`Wait::nap`](crate::Wait::nap) chooses how long. The end
    /// of the topic still wakes all at once. Default: off. See `docs/REAL_TIME.md`.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").single_producer().never_wake().create()?;
    /// let mut tape = ticks.subscribe("tape").poll()?;
    /// let reader = std::thread::spawn(move || tape.poll(Duration::from_secs(60)).map(|batch| batch.is_some()));
    /// ticks.producer().create()?.publish(|tick| *tick = 42)?;          // two stores, although the reader may be asleep
    /// assert!(reader.join().unwrap()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn never_wake(mut self) -> Self {
        self.settings.never_wake = true;
        self
    }

    /// Sets the limit, in bytes, on the memory for the slots of all partitions. Default: 1 GiB. A slot takes the
    /// event's size; for messages, also [`max_message`](Self::max_message), rounded up to whole cache lines of 64
    /// bytes; 8 bytes more unless the topic has a [single producer](Self::single_producer); and 8 bytes more with
    /// [`timestamps`](Self::timestamps). All slots of a partition are allocated when it is created. The limit does not
    /// count the 24 bytes for each slot that a durable topic's partition allocates for its first idempotent producer.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.settings.memory_limit = bytes;
        self
    }

    /// Sets what happens when a handler of a managed subscriber or group member fails, for all that have no policy of
    /// [their](crate::subscriber::SubscriberBuilder::on_error) [own](crate::group::GroupBuilder::on_error). Default: that of
    /// the [engine](crate::EngineBuilder::on_error). It is a setting of this handle of the process, not of the journal.
    ///
    /// ```
    /// # use slipring::{Engine, subscriber::OnError};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").on_error(OnError::Skip).create()?;
    /// ticks.subscribe("even").run(|tick, _| if tick % 2 == 0 { Ok(()) } else { Err("odd") })?;
    /// ticks.producer().create()?.publish(|tick| *tick = 3)?;
    /// let report = engine.shutdown(Duration::from_secs(5));
    /// assert_eq!(report.topics[0].consumers[0].skipped, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.settings.on_error = Some(policy);
        self
    }

    /// Sets what a publish does when its partition is full. Default: [`Overflow::Block`].
    ///
    /// ```
    /// # use slipring::{Engine, producer::PublishError, topic::Overflow};
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

    /// Sets what happens to a subscriber that makes the producers of a full partition wait. Default: [`Slow::Gate`],
    /// producers wait for it.
    pub fn slow(mut self, policy: Slow) -> Self {
        self.settings.slow = policy;
        self
    }

    /// Sets the longest time from an event's publication to its delivery. Later, subscribers skip the event and count
    /// it as expired. The events of a partition expire in the order of their offsets. Default: no limit. Needs
    /// [`timestamps`](Self::timestamps).
    pub fn time_to_live(mut self, limit: Duration) -> Self {
        self.settings.time_to_live = Some(limit);
        self
    }

    /// Sets the limit on events and bytes per second, for all producers of the topic together. Default: no limit.
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.settings.rate_limit = Some(limit);
        self
    }

    /// Makes the topic durable: its events are written into the engine's journal. Events and their offsets survive the
    /// process, and a receipt can wait until its event is written or durable. If the journal has a topic of this name,
    /// that topic continues after its last offset. Then the [layout](Persist::layout) of the events must be the same,
    /// and the largest message must not be smaller than recorded. The topic keeps its recorded number of partitions if
    /// fewer are set here; more than recorded are refused: add them with
    /// [`add_partitions`](crate::Topic::add_partitions).
    ///
    /// A slot is free again when the journal has its event and all consumers have read it.
    pub fn durable(mut self) -> Self
    where
        E: Persist,
    {
        self.persistence = Some(Persistence::of());
        self
    }

    /// Sets which records of each partition the journal keeps of a [durable](Self::durable) topic. Default: all.
    /// Applied once a minute by the engine's clock, and by [`Engine::retain`](crate::Engine::retain). Records outside
    /// of the limits can no longer be read, exactly to the record; disk space is freed in whole segments.
    pub fn keep(mut self, retention: Retention) -> Self {
        self.settings.keep = retention;
        self
    }

    /// Compacts the topic by key: of the records of a partition with one key at least the last one stays, with its offset,
    /// and older ones are removed from the journal. The journal records the setting, so it holds until the topic is opened
    /// without it. See [`Compaction`] for what the key is, and when a key goes that has no value any more.
    ///
    /// ```
    /// use slipring::{Engine, Level, Message, Record, journal::{Options, simulated::SimulatedDisk}, topic::Compaction};
    /// use std::time::Duration;
    ///
    /// let options = Options { segment_size: 64 << 10, ..Options::default() };
    /// let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build()?;
    /// let prices = engine.topic::<Message>("prices").durable().compact(Compaction::by_key()).create()?;
    /// let mut feed = prices.producer().acknowledge(Level::Durable).create()?;
    /// for number in 0..2000 {
    ///     feed.send(Record::new(&format!("{number:>100}")).key(["acme", "bolt"][number % 2]))?;
    /// }
    /// engine.compact()?;                                      // also done in the background
    ///
    /// let mut seen = Vec::new();
    /// prices.replay("audit").open()?.read(Duration::from_secs(60), |_, at| seen.push(at.offset))?;
    /// assert!(seen.len() < 1900 && seen.ends_with(&[1998, 1999]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Readers pass over removed records without an error, as over offsets that a crash has left unused. The thread that
    /// makes the journal's files compacts it, once a minute by the engine's clock if half as much was written as there
    /// was after the last pass, at most [`compaction_rate`](crate::journal::Options::compaction_rate) bytes a second;
    /// [`Engine::compact`](crate::Engine::compact) does it at once. The segment that is being written is ended for it once its records of
    /// compacted topics have not grown for a minute, or `Engine::compact` asks, if they are a 64th of a segment and half of
    /// what was there before. So a topic at rest takes about twice its live data at most, and no less than a 64th of a segment.
    /// What a [bridge](crate::replication) has not copied stays. A segment is written anew only where that makes its records an eighth smaller;
    /// a record whose neighbours are gone takes 32 bytes more. A pass takes 24 to 48 bytes of memory for each key, for
    /// 1,048,576 keys and those of one more segment; topics with more keys need several passes.
    ///
    /// A compacted topic cannot have a [queue](crate::queue), which finds its messages by their offsets, and cannot
    /// [deduplicate](TopicBuilder::deduplicate), which finds ids in the records. It can have [`keep`](Self::keep) too.
    pub fn compact(mut self, compaction: Compaction) -> Self {
        self.settings.compaction = Some(compaction);
        self
    }

    /// Creates the topic without its partitions, which are made when they are needed: see
    /// [`deferred`](super::deferred).
    pub(crate) fn deferred(mut self) -> Self {
        self.is_deferred = true;
        self
    }

    /// Creates the topic. Its slots hold `E::default()`, or empty messages.
    ///
    /// # Errors
    /// The name is invalid, or a topic has it (the error shows the shapes of both topics), a setting is refused, two
    /// settings contradict one another, or the journal refuses the topic.
    pub fn create(self) -> Result<Topic<E, K>, TopicError>
    where
        E: Event,
    {
        let max_message = self.settings.max_message;
        let cell = E::cell(max_message);
        if cell.is_some() && max_message > MAX_MESSAGE {
            return Err(TopicError::MaxMessage { name: self.name, asked: max_message });
        }
        let slots = move |events| E::slots(events, max_message).ok_or(SlotFactoryError::Memory);
        self.create_from(Box::new(slots), cell)
    }

    /// Creates the topic. Each slot holds an event that `make` returns. `make` is called once for each slot, also of
    /// partitions that are added later, and for events outside of the slots, for example by each reader that decodes
    /// the journal's records.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_with(self, make: impl FnMut() -> E + Send + 'static) -> Result<Topic<E, K>, TopicError> {
        let make = Turn::new(make);
        let slots: SlotFactory<E> = Box::new(move |_| {
            let mut make = make.take().ok_or(SlotFactoryError::Busy)?;
            Ok(Box::new(move || blaming("the factory of events", &mut *make)))
        });
        self.create_from(slots, None)
    }

    fn create_from(self, slots: SlotFactory<E>, cell: Option<usize>) -> Result<Topic<E, K>, TopicError> {
        let Self {
            engine, name, partitions, settings, persistence, deduplication, upgrades, schema, is_deferred, ..
        } = self;
        check_name(&name)?;
        if (settings.time_to_live.is_some() || settings.retain_for.is_some()) && !settings.timestamps {
            return Err(TopicError::NoTimestamps { name });
        }
        if persistence.is_none() && settings.keep != Retention::default() {
            return Err(Contradiction::new(&name, "`keep`", "a topic in memory, which is not `durable()`,").into());
        }
        if persistence.is_none() && !upgrades.is_empty() {
            return Err(Contradiction::new(&name, "`upgrade`", "a topic in memory, which is not `durable()`,").into());
        }
        if settings.compaction.is_some() && persistence.is_none() {
            return Err(Contradiction::new(&name, "`compact`", "a topic in memory, which is not `durable()`,").into());
        }
        if settings.compaction.is_some() && deduplication.is_some() {
            return Err(Contradiction::new(&name, "`compact`", "`deduplicate`").into());
        }
        if let Some(other) = upgrades.contradiction() {
            return Err(Contradiction::new(&name, "a step of `upgrade`", other).into());
        }
        let shape = Shape {
            event: std::any::type_name::<E>(),
            single_producer: K::SINGLE,
            partitions,
            capacity: settings.capacity,
            max_message: cell.map(|_| settings.max_message),
        };
        let deletes = settings.keep != Retention::default() || settings.compaction.is_some();
        if settings.rate_limit.is_some() || deletes {
            let refused = |cause: std::io::Error| TopicError::Timer { name: name.clone(), cause: cause.to_string() };
            engine.host.timer.start().map_err(refused)?;
        }
        let limiter = settings.rate_limit.map(|limit| Limiter::new(limit, engine.host.clock.now()));
        let mut created = None;
        engine.add(&name, &shape, || {
            let id = TopicId::next();
            let durable = match persistence {
                Some(persistence) => {
                    let committer = engine.host.committer.as_ref();
                    let committer = committer.ok_or_else(|| TopicError::NoJournal { name: name.clone() })?;
                    let size = (partitions, settings.capacity, shape.max_message.unwrap_or(0));
                    let layout = schema.map_or_else(persistence.layout, schema_layout);
                    let (compaction, there) = (settings.compaction.as_ref(), engine.host.recorded(&name));
                    compacted::check(compaction, &name, (cell.is_some(), &layout), there.as_ref(), committer)?;
                    let durable = DurableTopic::open(committer, id, &name, (persistence, layout, &upgrades), size)?;
                    if settings.keep != Retention::default() {
                        committer.keep(durable.id(0).topic, settings.keep);
                    }
                    if deletes {
                        engine.host.start_retention();
                    }
                    Some(Arc::new(durable))
                }
                None => {
                    // A topic in memory would hide the recorded durable topic of this name, and its events would be
                    // lost with the process.
                    if let Some(there) = engine.host.recorded(&name) {
                        let (there, asked) = (format!("a durable topic of {there}"), "a topic in memory".to_owned());
                        return Err(TopicError::Recorded { name: name.clone(), there, asked });
                    }
                    None
                }
            };
            let partitions = durable.as_ref().map_or(partitions, |durable| durable.partitions().max(partitions));
            let inner = TopicCore {
                id,
                durable,
                name: name.clone(),
                shape: shape.clone(),
                since: engine.host.clock.now(),
                host: Arc::clone(&engine.host),
                unlimited_message: settings.max_message.into(),
                settings,
                cell: cell.unwrap_or(0),
                slots,
                partitions: RwLock::new(Arc::new([])),
                deferred: Mutex::default(),
                count: AtomicUsize::new(0),
                growing: Turn::new(()),
                queues_turn: Turn::new(()),
                ended: AtomicBool::new(false),
                readers: Mutex::default(),
                lent: AtomicUsize::new(0),
                threads: Threads::default(),
                runs: Mutex::default(),
                queues: Mutex::default(),
                counts: TopicCounters::default(),
                gathering: Gathering::default(),
                consumer_stats: Mutex::default(),
                evicts: AtomicBool::new(false),
                limiter,
                identities: ProducerIdentities::default(),
                ids: deduplication.map(|(window, _)| Arc::new(DedupIndex::new(window))),
                ring_links: RingLinks::default(),
            };
            let made = if is_deferred { inner.defer(partitions) } else { inner.grow(|_| partitions) };
            if let Err(refused) = made {
                inner.durable.iter().for_each(|durable| durable.undo_open());
                return Err(refused);
            }
            inner.durable.iter().for_each(|durable| durable.set_compaction(inner.settings.compaction.as_ref()));
            restore_names::restore(&inner);
            if let Some((_, id_of)) = deduplication {
                dedup::restore(&inner, id_of)?;
            }
            let inner = Arc::new(inner);
            created = Some(Arc::clone(&inner));
            Ok(inner)
        })?;
        lifecycle!(info, "topic created", topic = name, shape = shape);
        created.map(|inner| Topic { inner }).ok_or(TopicError::ShutDown)
    }
}
