//! A topic's shape and settings, and its creation.

use super::identity::ProducerIdentities;
use super::registry::Registry;
use super::restore_names;
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
use crate::event::message::Message;
use crate::topic::dedup::{self, DedupIndex, Deduplication, IdOf};
use crate::topic::durable::DurableTopic;
use crate::topic::error::{Contradiction, MAX_MESSAGE, TopicError, check_name};
use slipring_journal::Retention;
use slipring_ring::{Multi, Single};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

/// Settings of a topic to be created.
pub struct TopicBuilder<E, K = Multi> {
    engine: Arc<Registry>,
    name: String,
    partitions: usize,
    settings: TopicSettings,
    persistence: Option<Persistence<E>>,
    deduplication: Option<(Deduplication, IdOf<E>)>,
    kind: PhantomData<(fn() -> E, K)>,
}

impl<E: Send + Sync + 'static> TopicBuilder<E> {
    pub(crate) fn new(engine: Arc<Registry>, name: String) -> Self {
        let settings = TopicSettings::default();
        Self { engine, name, partitions: 1, settings, persistence: None, deduplication: None, kind: PhantomData }
    }

    /// Only one producer at a time: it publishes without any atomic read-modify-write.
    pub fn single_producer(self) -> TopicBuilder<E, Single> {
        let Self { engine, name, partitions, settings, persistence, deduplication, .. } = self;
        TopicBuilder { engine, name, partitions, settings, persistence, deduplication, kind: PhantomData }
    }
}

impl<K: Producers> TopicBuilder<Message, K> {
    /// The largest message, in bytes of key, value and headers as [`Record::size`](crate::Record::size) counts them;
    /// 1,024 unless told. Every slot has room for one of this size: see [`memory_limit`](Self::memory_limit).
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.settings.max_message = bytes;
        self
    }

    /// Publishes a message with an [id](crate::Record::id) once, as long as the window remembers that: sent again, by
    /// whomever, it gets the first one's receipt. Messages without an id are published always. On a durable topic the
    /// window is restored from the journal: opening the topic reads back the messages of the window.
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
    /// Ids are looked at by [`send`](crate::Producer::send) and its forms. Producers that gather, producers with sequences
    /// and transactions refuse a message with an id on such a topic. Two ids are the same if 128 bits of a keyed hash are.
    pub fn deduplicate(mut self, window: Deduplication) -> Self {
        self.deduplication = Some((window, Message::id));
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
        let max_message = self.settings.max_message;
        let cell = E::cell(max_message);
        if cell.is_some() && max_message > MAX_MESSAGE {
            return Err(TopicError::MaxMessage { name: self.name, asked: max_message });
        }
        let slots = move |events| E::slots(events, max_message).ok_or(SlotFactoryError::Memory);
        self.create_from(Box::new(slots), cell)
    }

    /// Creates the topic, its slots filled by `make`.
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
        let Self { engine, name, partitions, settings, persistence, deduplication, .. } = self;
        check_name(&name)?;
        if (settings.time_to_live.is_some() || settings.retain_for.is_some()) && !settings.timestamps {
            return Err(TopicError::NoTimestamps { name });
        }
        if persistence.is_none() && settings.keep != Retention::default() {
            return Err(Contradiction::new(&name, "`keep`", "a topic in memory, which is not `durable()`,").into());
        }
        let shape = Shape {
            event: std::any::type_name::<E>(),
            single_producer: K::SINGLE,
            partitions,
            capacity: settings.capacity,
            max_message: cell.map(|_| settings.max_message),
        };
        if settings.rate_limit.is_some() || settings.keep != Retention::default() {
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
                    let durable = DurableTopic::open(committer, id, &name, persistence, size)?;
                    if settings.keep != Retention::default() {
                        committer.keep(durable.id(0).topic, settings.keep);
                        engine.host.retain_by_and_by();
                    }
                    Some(Arc::new(durable))
                }
                None => {
                    // Another topic under the name of a recorded one would hide it, and be gone with the process.
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
                settings,
                cell: cell.unwrap_or(0),
                slots,
                partitions: RwLock::new(Arc::new([])),
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
                consumer_stats: Mutex::default(),
                evicts: AtomicBool::new(false),
                limiter,
                identities: ProducerIdentities::default(),
                ids: deduplication.map(|(window, _)| Arc::new(DedupIndex::new(window))),
            };
            if let Err(refused) = inner.grow(|_| partitions) {
                inner.durable.iter().for_each(|durable| durable.take_back());
                return Err(refused);
            }
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
