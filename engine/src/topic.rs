//! A topic: a name, the type of its events, and a ring.

use crate::engine::Shared;
use crate::error::{ProducerError, TopicError, check_name};
use crate::metrics::{ConsumerMetrics, TopicMetrics};
use crate::producer::{Producer, Producers};
use crate::report::TopicReport;
use crate::subscriber::SubscriberBuilder;
use slipring_ring::{Builder, Closed, Multi, Ring, Single};
use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
pub struct Shape {
    /// The type of the events.
    pub event: &'static str,
    /// One producer only.
    pub single_producer: bool,
    /// Events the ring holds.
    pub capacity: usize,
}

impl Shape {
    pub(crate) fn of<E, K: Producers>(capacity: usize) -> Self {
        Self { event: std::any::type_name::<E>(), single_producer: K::SINGLE, capacity }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let producers = if self.single_producer { "a single producer" } else { "any number of producers" };
        write!(f, "{} slots of {} with {producers}", self.capacity, self.event)
    }
}

/// Settings of a topic to be created.
pub struct TopicBuilder<E, K = Multi> {
    engine: Arc<Shared>,
    name: String,
    capacity: usize,
    retain: usize,
    kind: PhantomData<(fn() -> E, K)>,
}

impl<E: Send + Sync + 'static> TopicBuilder<E> {
    pub(crate) fn new(engine: Arc<Shared>, name: String) -> Self {
        Self { engine, name, capacity: 1024, retain: 0, kind: PhantomData }
    }

    /// Only one producer at a time: it publishes without any atomic read-modify-write.
    pub fn single_producer(self) -> TopicBuilder<E, Single> {
        let Self { engine, name, capacity, retain, .. } = self;
        TopicBuilder { engine, name, capacity, retain, kind: PhantomData }
    }
}

impl<E: Send + Sync + 'static, K: Producers> TopicBuilder<E, K> {
    /// How many events the topic's ring holds: a power of two, 1,024 unless told. All are allocated at once.
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events;
        self
    }

    /// Keeps the last `events` (fewer than the capacity) readable for subscribers that come later; none unless told.
    pub fn retain(mut self, events: usize) -> Self {
        self.retain = events;
        self
    }

    /// Creates the topic, its slots filled with `E::default()`.
    ///
    /// # Errors
    /// The name is no name or taken (the error shows both shapes), or the size is refused.
    pub fn create(self) -> Result<Topic<E, K>, TopicError>
    where
        E: Default,
    {
        self.create_with(E::default)
    }

    /// Creates the topic, its slots filled by `make`.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_with(self, make: impl FnMut() -> E + 'static) -> Result<Topic<E, K>, TopicError> {
        let Self { engine, name, capacity, retain, .. } = self;
        check_name(&name)?;
        let shape = Shape::of::<E, K>(capacity);
        let mut created = None;
        engine.add(&name, &shape, || {
            let mut builder = K::builder(capacity, make);
            builder.retain(retain);
            let (first, ring) = builder.build().map_err(|cause| TopicError::Ring { name: name.clone(), cause })?;
            let inner = Arc::new(Inner {
                id: TopicId::next(),
                name: name.clone(),
                shape: shape.clone(),
                ring,
                spare: Mutex::new(Some(first)),
                lent: AtomicUsize::new(0),
            });
            created = Some(Arc::clone(&inner));
            Ok(inner)
        })?;
        created.map(|inner| Topic { inner }).ok_or(TopicError::ShutDown)
    }
}

/// A topic of events of type `E`. Cloning gives another handle of the same topic.
pub struct Topic<E, K: Producers = Multi> {
    pub(crate) inner: Arc<Inner<E, K>>,
}

pub(crate) struct Inner<E, K: Producers> {
    pub(crate) id: TopicId,
    pub(crate) name: String,
    shape: Shape,
    pub(crate) ring: Ring<E, K>,
    /// The ring's own producer: to be cloned, or lent and given back. While the topic has it, the ring stays open.
    pub(crate) spare: Mutex<Option<slipring_ring::Producer<E, K>>>,
    /// How many producers the users hold.
    pub(crate) lent: AtomicUsize,
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

    /// A producer of this topic.
    ///
    /// # Errors
    /// The topic has a single producer and somebody has it, or the topic is closed.
    pub fn producer(&self) -> Result<Producer<E, K>, ProducerError> {
        let topic = || self.inner.name.clone();
        if let Some(reason) = self.inner.ring.closed() {
            return Err(ProducerError::Closed { topic: topic(), reason });
        }
        Producer::lend(&self.inner).ok_or_else(|| ProducerError::Taken { topic: topic() })
    }

    /// A subscriber: sees every event of this topic. Its settings, then [`run`](SubscriberBuilder::run) or
    /// [`poll`](SubscriberBuilder::poll).
    pub fn subscribe(&self, name: impl Into<String>) -> SubscriberBuilder<E, K> {
        SubscriberBuilder::new(Arc::clone(&self.inner), name.into())
    }

    /// The positions of this topic and its consumers at this moment.
    pub fn metrics(&self) -> TopicMetrics {
        AnyTopic::metrics(&*self.inner)
    }

    /// Why this topic takes nothing more; none while it is open.
    pub fn closed(&self) -> Option<Closed> {
        self.inner.ring.closed()
    }

    /// Takes nothing more. Subscribers read what is there, and are told then.
    pub fn close(&self) {
        self.inner.ring.close();
    }
}

/// What the engine needs of a topic, whatever its events.
pub(crate) trait AnyTopic: Send + Sync {
    fn name(&self) -> &str;
    fn shape(&self) -> &Shape;
    fn metrics(&self) -> TopicMetrics;
    fn closed(&self) -> Option<Closed>;
    fn producers(&self) -> usize;
    fn shutdown(&self, limit: Duration) -> TopicReport;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<E: Send + Sync + 'static, K: Producers> AnyTopic for Inner<E, K> {
    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn metrics(&self) -> TopicMetrics {
        let positions = self.ring.positions();
        let consumers = positions.stages.into_iter().map(|stage| ConsumerMetrics {
            name: stage.name,
            after: stage.after,
            consumed: stage.consumed.0,
            lag: stage.lag,
            stalls: stage.stalls,
            skipped: stage.skipped,
        });
        TopicMetrics {
            name: self.name.clone(),
            capacity: positions.capacity,
            earliest: positions.earliest.0,
            published: positions.published.0,
            fill: positions.fill,
            oldest_unpublished: positions.oldest_unpublished.map(|sequence| sequence.0),
            consumers: consumers.collect(),
        }
    }

    fn closed(&self) -> Option<Closed> {
        self.ring.closed()
    }

    fn producers(&self) -> usize {
        self.lent.load(Ordering::Acquire)
    }

    fn shutdown(&self, limit: Duration) -> TopicReport {
        TopicReport { name: self.name.clone(), ring: self.ring.shutdown(limit) }
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
