//! Publishing into a topic.

use crate::clock::Timestamp;
use crate::error::{ProducerError, PublishError};
use crate::message::Message;
use crate::partition::Partition;
use crate::partitioner::{Partitioner, Picker};
use crate::receipt::{BatchReceipt, Receipt};
use crate::record::Record;
use crate::topic::Inner;
use slipring_ring::{Builder, Claim, ClaimError, Kind, Multi, Wait};
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// [`Single`](crate::Single) or [`Multi`]: whether a topic has one producer or any number.
pub trait Producers: Kind {
    #[doc(hidden)]
    const SINGLE: bool;

    #[doc(hidden)]
    fn builder<E: Send + Sync + 'static>(capacity: usize, make: impl FnMut() -> E + 'static) -> Builder<E, Self>;

    /// The producer to lend: the only one, or a clone.
    #[doc(hidden)]
    fn take<E>(spare: &mut Option<slipring_ring::Producer<E, Self>>) -> Option<slipring_ring::Producer<E, Self>>;
}

/// Settings of a producer to be created.
pub struct ProducerBuilder<E, K: Producers = Multi> {
    topic: Arc<Inner<E, K>>,
    partitioner: Partitioner,
    wait: Wait,
}

impl<E: Send + Sync + 'static, K: Producers> ProducerBuilder<E, K> {
    pub(crate) fn new(topic: Arc<Inner<E, K>>) -> Self {
        Self { topic, partitioner: Partitioner::default(), wait: Wait::default() }
    }

    /// Which partition an event goes to when nobody names one: by its key, unless told.
    pub fn partitioner(mut self, partitioner: Partitioner) -> Self {
        self.partitioner = partitioner;
        self
    }

    /// How it waits while the topic is full: parking, unless told.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Creates the producer.
    ///
    /// # Errors
    /// The topic has a single producer and somebody has it, or the topic is closed.
    pub fn create(self) -> Result<Producer<E, K>, ProducerError> {
        let Self { topic, partitioner, wait } = self;
        let name = || topic.name.clone();
        if let Some(reason) = topic.closed() {
            return Err(ProducerError::Closed { topic: name(), reason });
        }
        let first = Lane::lend(&topic.partitions()[0], &wait);
        let first = first.ok_or_else(|| ProducerError::Taken { topic: name() })?;
        topic.lent.fetch_add(1, Ordering::AcqRel);
        let plain = usize::from(!topic.settings.timestamps);
        let mut producer =
            Producer { topic, plain, first: Some(first), more: Vec::new(), picker: Picker::new(partitioner), wait };
        producer.look_for_partitions();
        Ok(producer)
    }
}

/// Publishes events of type `E` into one topic. They are written in place: nothing is allocated or moved.
///
/// | form | when the partition is full |
/// |---|---|
/// | [`publish`](Self::publish), [`publish_key`](Self::publish_key), [`publish_to`](Self::publish_to), [`publish_batch`](Self::publish_batch) | waits, as [`set_wait`](Self::set_wait) said |
/// | [`try_publish`](Self::try_publish) | error at once |
/// | [`publish_until`](Self::publish_until) | waits until a deadline, then an error |
///
/// Both errors name the slowest consumer. Each form is an error once the topic is closed or a consumer failed. A slot
/// holds the event that was there one capacity ago: overwrite all that matters.
///
/// A topic of [`Message`]s has [`send`](Self::send), [`try_send`](Self::try_send) and
/// [`send_until`](Self::send_until) for [`Record`]s.
pub struct Producer<E, K: Producers = Multi> {
    topic: Arc<Inner<E, K>>,
    /// The number of partitions with which nothing but the first ring needs a look: 1; or 0 if there is more to do
    /// for an event.
    plain: usize,
    /// Always there until the drop.
    first: Option<Lane<E, K>>,
    /// The partitions behind the first.
    more: Vec<Lane<E, K>>,
    picker: Picker,
    wait: Wait,
}

/// A producer's way into one partition.
struct Lane<E, K: Producers> {
    ring: slipring_ring::Producer<E, K>,
    partition: Arc<Partition<E, K>>,
}

impl<E, K: Producers> Lane<E, K> {
    fn lend(partition: &Arc<Partition<E, K>>, wait: &Wait) -> Option<Self> {
        let mut ring = partition.lend()?;
        ring.set_wait(wait.clone());
        Some(Self { ring, partition: Arc::clone(partition) })
    }
}

/// Where an event is to go.
#[derive(Clone, Copy)]
enum Route<'k> {
    Any,
    Key(&'k [u8]),
    To(u32),
}

/// What to do when there is no room.
#[derive(Clone, Copy)]
enum Full {
    Wait,
    Refuse,
    Until(Instant),
}

impl Full {
    #[inline(always)]
    fn claim<E, K: Kind>(
        self,
        ring: &mut slipring_ring::Producer<E, K>,
        len: usize,
    ) -> Result<Claim<'_, E, K>, ClaimError> {
        match self {
            Self::Wait => ring.claim(len),
            Self::Refuse => ring.try_claim(len),
            Self::Until(deadline) => ring.claim_until(len, deadline),
        }
    }
}

impl<E, K: Producers> Producer<E, K> {
    #[inline(always)]
    fn ring(&mut self) -> &mut slipring_ring::Producer<E, K> {
        &mut self.first.as_mut().expect("taken out by the drop only").ring
    }

    /// Whether an event goes straight into the only ring.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.topic.count.load(Ordering::Relaxed) == self.plain
    }

    #[inline(always)]
    fn receipt(&self, partition: u32, offset: u64) -> Receipt {
        Receipt { topic: self.topic.id, partition, offset }
    }

    #[cold]
    #[inline(never)]
    fn look_for_partitions(&mut self) {
        let partitions = self.topic.partitions();
        for partition in &partitions[self.more.len() + 1..] {
            // Nobody else can have the only producer of a new partition: they have to have the others first.
            let Some(lane) = Lane::lend(partition, &self.wait) else { return };
            self.more.push(lane);
        }
    }

    /// The lane of the next event, or of the next batch.
    #[inline]
    fn lane(&mut self, route: Route<'_>, batch: bool) -> Result<&mut Lane<E, K>, PublishError> {
        if self.topic.count.load(Ordering::Acquire) != self.more.len() + 1 {
            self.look_for_partitions();
        }
        let partitions = (self.more.len() + 1) as u32;
        let to = match route {
            Route::To(partition) => partition,
            Route::Any => self.pick(None, partitions, batch)?,
            Route::Key(key) => self.pick(Some(key), partitions, batch)?,
        };
        let lane = match to {
            0 => self.first.as_mut(),
            to => self.more.get_mut(to as usize - 1),
        };
        match lane {
            Some(lane) => Ok(lane),
            None => Err(PublishError::UnknownPartition { topic: self.topic.name.clone(), asked: to, partitions }),
        }
    }

    #[inline]
    fn pick(&mut self, key: Option<&[u8]>, partitions: u32, batch: bool) -> Result<u32, PublishError> {
        match self.picker.pick(key, partitions, batch) {
            Some(partition) => Ok(partition),
            None => Err(PublishError::NoPartition { topic: self.topic.name.clone() }),
        }
    }

    /// The time to be noted with an event; none where the topic notes none.
    #[inline]
    fn now(&self) -> Option<Timestamp> {
        self.topic.settings.timestamps.then(|| self.topic.host.clock.wall())
    }

    /// Publishes one event, whatever the topic asks for.
    #[inline]
    fn place(
        &mut self,
        route: Route<'_>,
        full: Full,
        fill: impl FnOnce(&mut E, Option<Timestamp>),
    ) -> Result<Receipt, PublishError> {
        let now = self.now();
        let (partition, offset) = {
            let Lane { ring, partition } = self.lane(route, false)?;
            let claimed = full.claim(ring, 1).map(|mut claim| {
                let offset = claim.sequences().first.0;
                if let (Some(times), Some(now)) = (&partition.times, now) {
                    times.set(offset, now);
                }
                if let Some(event) = claim.get_mut(0) {
                    fill(event, now);
                }
                claim.commit();
                offset
            });
            let index = partition.index;
            match claimed {
                Ok(offset) => (index, offset),
                Err(refused) => {
                    let slowest = ring.slowest();
                    return Err(PublishError::new(&self.topic.name, index, refused, || slowest));
                }
            }
        };
        Ok(self.receipt(partition, offset))
    }

    /// How this producer waits while the topic is full.
    pub fn set_wait(&mut self, wait: Wait) {
        self.ring().set_wait(wait.clone());
        self.more.iter_mut().for_each(|lane| lane.ring.set_wait(wait.clone()));
        self.wait = wait;
    }

    /// Fills the next event and publishes it; waits while the partition is full.
    ///
    /// If `fill` panics, no consumer ever sees what it left, and the topic goes on.
    ///
    /// # Errors
    /// The topic is closed, or the partitioner names no partition.
    #[inline]
    pub fn publish(&mut self, fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        if !self.is_plain() {
            return self.place(Route::Any, Full::Wait, |event, _| fill(event));
        }
        match self.ring().publish(fill) {
            Ok(sequence) => Ok(self.receipt(0, sequence.0)),
            Err(closed) => Err(PublishError::new(&self.topic.name, 0, closed, || None)),
        }
    }

    /// The same, but an error if the partition is full.
    ///
    /// # Errors
    /// The partition is full, or as [`publish`](Self::publish).
    #[inline]
    pub fn try_publish(&mut self, fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        if !self.is_plain() {
            return self.place(Route::Any, Full::Refuse, |event, _| fill(event));
        }
        match self.ring().try_publish(fill) {
            Ok(sequence) => Ok(self.receipt(0, sequence.0)),
            Err(refused) => {
                let slowest = self.ring().slowest();
                Err(PublishError::new(&self.topic.name, 0, refused, || slowest))
            }
        }
    }

    /// The same, but waits no longer than until `deadline`.
    ///
    /// # Errors
    /// The partition was full until then, or as [`publish`](Self::publish).
    pub fn publish_until(&mut self, deadline: Instant, fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        self.place(Route::Any, Full::Until(deadline), |event, _| fill(event))
    }

    /// Fills the next event of the partition that the partitioner has for `key`, and publishes it; waits while that is
    /// full. The key is not kept: put it into the event if its readers need it.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    #[inline]
    pub fn publish_key(&mut self, key: &[u8], fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        self.place(Route::Key(key), Full::Wait, |event, _| fill(event))
    }

    /// Fills the next event of this partition and publishes it; waits while that is full.
    ///
    /// # Errors
    /// There is no such partition, or as [`publish`](Self::publish).
    #[inline]
    pub fn publish_to(&mut self, partition: u32, fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        self.place(Route::To(partition), Full::Wait, |event, _| fill(event))
    }

    /// Fills `len` events of one partition and publishes them together; waits until there is room for all. `fill` gets
    /// the index within the batch and the event.
    ///
    /// # Errors
    /// `len` is 0 or never fits, or as [`publish`](Self::publish). Nothing is published then.
    #[inline]
    pub fn publish_batch(
        &mut self,
        len: usize,
        mut fill: impl FnMut(usize, &mut E),
    ) -> Result<BatchReceipt, PublishError> {
        let now = self.now();
        let (partition, first) = {
            let Lane { ring, partition } = match self.is_plain() {
                true => self.first.as_mut().expect("taken out by the drop only"),
                false => self.lane(Route::Any, true)?,
            };
            let published = ring.claim(len).map(|mut claim| {
                let first = claim.sequences().first.0;
                for (index, (offset, event)) in claim.iter_mut().enumerate() {
                    if let (Some(times), Some(now)) = (&partition.times, now) {
                        times.set(offset.0, now);
                    }
                    fill(index, event);
                }
                claim.commit();
                first
            });
            let index = partition.index;
            match published {
                Ok(first) => (index, first),
                Err(refused) => return Err(PublishError::new(&self.topic.name, index, refused, || None)),
            }
        };
        Ok(BatchReceipt { topic: self.topic.id, partition, first, len })
    }
}

impl<K: Producers> Producer<Message, K> {
    /// Copies a record into the next slot of its partition and publishes it; waits while that is full. It goes to the
    /// [partition that it names](Record::partition), else where the partitioner says for its key.
    ///
    /// ```
    /// use slipring::{Engine, Message, Partitioner, PublishError, Record};
    /// # let engine = Engine::builder().build()?;
    /// let orders = engine.topic::<Message>("orders").partitions(4).max_message(64).create()?;
    /// let mut producer = orders.producer().partitioner(Partitioner::KeyHash).create()?;
    /// let receipt = producer.send(Record::new("buy 3").key("account-7"))?;
    /// assert_eq!((receipt.partition, receipt.offset), (Partitioner::of_key(b"account-7", 4), 0));
    /// let refused = producer.send(Record::new(&[0; 65])).unwrap_err();
    /// assert!(matches!(refused, PublishError::MessageTooLarge { size: 65, largest: 64, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The record is larger than [`max_message`](crate::TopicBuilder::max_message), no partition is named or there is no
    /// such one, or the topic is closed. The record was only borrowed.
    #[inline]
    pub fn send<'r>(&mut self, record: impl Borrow<Record<'r>>) -> Result<Receipt, PublishError> {
        self.deliver(record.borrow(), Full::Wait)
    }

    /// The same, but an error if the partition is full.
    ///
    /// # Errors
    /// The partition is full, or as [`send`](Self::send).
    #[inline]
    pub fn try_send<'r>(&mut self, record: impl Borrow<Record<'r>>) -> Result<Receipt, PublishError> {
        self.deliver(record.borrow(), Full::Refuse)
    }

    /// The same, but waits no longer than until `deadline`.
    ///
    /// # Errors
    /// The partition was full until then, or as [`send`](Self::send).
    pub fn send_until<'r>(
        &mut self,
        deadline: Instant,
        record: impl Borrow<Record<'r>>,
    ) -> Result<Receipt, PublishError> {
        self.deliver(record.borrow(), Full::Until(deadline))
    }

    #[inline]
    fn deliver(&mut self, record: &Record<'_>, full: Full) -> Result<Receipt, PublishError> {
        if Message::check(record, self.topic.settings.max_message).is_err() {
            return Err(self.unfit(record));
        }
        let route = match (record.partition, record.key) {
            (Some(partition), _) => Route::To(partition),
            (None, Some(key)) => Route::Key(key),
            (None, None) => Route::Any,
        };
        self.place(route, full, |message, now| message.fill(record, now))
    }

    #[cold]
    fn unfit(&self, record: &Record<'_>) -> PublishError {
        let (topic, size, largest) = (self.topic.name.clone(), record.size(), self.topic.settings.max_message);
        match record.headers.iter().map(|(name, _)| name.len()).max() {
            Some(len) if len > Record::MAX_HEADER_NAME => PublishError::HeaderName { topic, len },
            _ => PublishError::MessageTooLarge { topic, size, largest },
        }
    }
}

impl<E, K: Producers> fmt::Debug for Producer<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer of {:?}", self.topic.name)
    }
}

impl<E> Clone for Producer<E, Multi> {
    fn clone(&self) -> Self {
        let lane = |lane: &Lane<E, Multi>| Lane { ring: lane.ring.clone(), partition: Arc::clone(&lane.partition) };
        self.topic.lent.fetch_add(1, Ordering::AcqRel);
        Self {
            topic: Arc::clone(&self.topic),
            plain: self.plain,
            first: self.first.as_ref().map(lane),
            more: self.more.iter().map(lane).collect(),
            picker: Picker::new(self.picker.partitioner.clone()),
            wait: self.wait.clone(),
        }
    }
}

impl<E, K: Producers> Drop for Producer<E, K> {
    fn drop(&mut self) {
        // The first goes home last: who has that may have all.
        for Lane { ring, partition } in self.more.drain(..).chain(self.first.take()) {
            partition.give_back(ring);
        }
        self.topic.lent.fetch_sub(1, Ordering::AcqRel);
    }
}
