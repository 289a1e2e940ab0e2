//! Producers: publishing events into a topic.

mod admission;
pub(crate) mod append;
mod builder;
pub(crate) mod idempotent;
pub(crate) mod linger;
mod messages;
pub(crate) mod partitioner;
mod readers;
mod room;
pub(crate) mod transaction;

pub use builder::ProducerBuilder;
pub use readers::WhenUnread;

use crate::base::clock::Timestamp;
use crate::base::kind::Producers;
use crate::base::level::Level;
use crate::base::rate::Limiter;
use crate::base::when_full::WhenFull;
use crate::log::producers::ProducerStamp;
use crate::log::receipt::{BatchReceipt, Receipt};
use crate::produce::append::{Appender, FirstAppender, Route, SlotMeta, appender_of};
use crate::produce::partitioner::PartitionPicker;
use crate::produce::room::RoomRequest;
use crate::topic::error::{PublishError, Rejected};
use crate::topic::{ProducerCount, TopicCore};
use slipring_ring::{Claim, Multi, Sequences, Wait};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Publishes events of type `E` into one topic. Each event is written in place: nothing is allocated or moved.
///
/// | form | when the partition is full |
/// |---|---|
/// | [`publish`], [`publish_key`], [`publish_to`], [`publish_batch`], [`offer`] | [`overflow`] policy; default: wait |
/// | [`try_publish`] | returns an error at once |
/// | [`publish_until`] | waits until a deadline, then returns an error |
///
/// [`publish`]: Self::publish
/// [`publish_key`]: Self::publish_key
/// [`publish_to`]: Self::publish_to
/// [`publish_batch`]: Self::publish_batch
/// [`offer`]: Self::offer
/// [`try_publish`]: Self::try_publish
/// [`publish_until`]: Self::publish_until
/// [`overflow`]: crate::TopicBuilder::overflow
///
/// The errors name the slowest consumer. Every form returns an error once the topic is closed or a consumer has failed.
/// A slot still holds the event of one capacity ago when it is filled, so overwrite every field that matters.
///
/// A topic of [`Message`](crate::Message)s has [`send`](Self::send), [`try_send`](Self::try_send) and
/// [`send_until`](Self::send_until) for [`Record`](crate::Record)s.
pub struct Producer<E, K: Producers = Multi> {
    topic: Arc<TopicCore<E, K>>,
    /// 1 if a publish may go straight into the ring of a topic with one partition; 0 if every publish must take the
    /// general path. This is compared with the topic's count of partitions, so a second partition ends the fast path.
    fast_path: usize,
    /// The level that an event has reached when a publish returns.
    level: Level,
    /// The appender of partition 0. The drop gives its ring back after those of `more`, because a new producer takes that
    /// ring first, and then needs all others.
    first: FirstAppender<E, K>,
    /// The appenders of the partitions from 1 on. `None` for a partition into which this producer has not published, so
    /// that a producer costs only the partitions that it uses.
    more: Vec<Option<Appender<E, K>>>,
    picker: PartitionPicker,
    wait: Wait,
    limiter: Option<Arc<Limiter>>,
    when_unread: WhenUnread,
    /// True if each publish asks [`admit`](Self::admit): this producer or its topic has a rate limit, or the producer
    /// needs readers.
    is_conditional: bool,
    /// True if a publish has nothing to do but to fill a slot: without timestamps, rate limits and stamps, and with a
    /// level of at most [`Level::Published`].
    is_bare: bool,
    /// The producer number and sequence that the journal records with the next event; `None` for a producer without a
    /// name.
    stamp: Option<ProducerStamp>,
    /// The room for which a selector waits with this producer.
    room: RoomRequest,
    /// Dropped after all rings were given back, so that a topic without a producer has them all.
    _count: ProducerCount<E, K>,
}

impl<E, K: Producers> Producer<E, K> {
    pub(crate) fn topic(&self) -> &Arc<TopicCore<E, K>> {
        &self.topic
    }

    /// Prepares the producer for [stamps](Self::stamp): every further publish takes the general path, which sets the
    /// stamp, and returns once the event is published. The caller waits for a higher level itself.
    pub(crate) fn note(&mut self) {
        (self.fast_path, self.is_bare, self.level) = (0, false, Level::Published);
    }

    pub(crate) fn stamp(&mut self, stamp: ProducerStamp) {
        self.stamp = Some(stamp);
    }

    /// The appenders in the order of their partitions; `None` for a partition into which this producer has not
    /// published.
    pub(crate) fn appenders(&mut self) -> impl Iterator<Item = Option<&mut Appender<E, K>>> {
        std::iter::once(Some(&mut *self.first)).chain(self.more.iter_mut().map(Option::as_mut))
    }

    #[inline(always)]
    fn ring(&mut self) -> &mut slipring_ring::Producer<E, K> {
        &mut self.first.ring
    }

    /// True if an event may go straight into the only ring.
    #[inline(always)]
    fn is_fast_path(&self) -> bool {
        self.topic.count.load(Ordering::Relaxed) == self.fast_path
    }

    /// Adds this producer's appender for partition `to`, which is not 0: the appender of partition 0 exists from the
    /// start. Returns false if the topic has no such partition.
    #[cold]
    #[inline(never)]
    fn lend(&mut self, to: u32) -> bool {
        let partitions = self.topic.partitions();
        // On a topic with a single producer, no other producer can have this partition's ring: it would need that of
        // partition 0 first, which this producer has.
        let lent = partitions.get(to as usize).and_then(|partition| Appender::lend(partition, &self.wait));
        let Some(appender) = lent else { return false };
        let place = to as usize - 1;
        if self.more.len() <= place {
            self.more.resize_with(place + 1, || None);
        }
        self.more[place] = Some(appender);
        true
    }

    #[inline(always)]
    fn has_appender(&self, to: u32) -> bool {
        to == 0 || self.more.get(to as usize - 1).is_some_and(Option::is_some)
    }

    /// The partition of the next event, or of the next batch if `batch` is true. This producer has an appender for it.
    /// An error if the topic has no such partition.
    #[inline]
    pub(crate) fn route(&mut self, route: Route<'_>, batch: bool) -> Result<u32, PublishError> {
        let partitions = self.topic.count.load(Ordering::Acquire) as u32;
        let to = match route {
            Route::To(partition) => Some(partition),
            Route::Any => self.picker.pick(None, partitions, batch),
            Route::Key(key) => self.picker.pick(Some(key), partitions, batch),
        };
        match to {
            Some(to) if to < partitions && (self.has_appender(to) || self.lend(to)) => Ok(to),
            refused => Err(self.no_such_partition(refused, partitions)),
        }
    }

    #[cold]
    fn no_such_partition(&self, asked: Option<u32>, partitions: u32) -> PublishError {
        let topic = self.topic.name.clone();
        match asked {
            Some(asked) => PublishError::UnknownPartition { topic, asked, partitions },
            None => PublishError::NoPartition { topic },
        }
    }

    /// Publishes `len` events of `bytes` bytes in total. Returns the partition and the first offset; the offset is
    /// `None` if the topic's policy has dropped the events.
    #[inline]
    fn place(
        &mut self,
        route: Route<'_>,
        full: WhenFull<'_>,
        len: usize,
        bytes: u64,
        fill: &mut impl FnMut(usize, &mut E, Option<Timestamp>),
    ) -> Result<(u32, Option<u64>), PublishError> {
        let to = self.route(route, len != 1)?;
        if self.is_conditional {
            self.admit(full, len as u64, bytes)?;
        }
        let now = self.topic.settings.timestamps.then(|| self.topic.host.clock.wall());
        let appender = appender_of(&mut self.first, &mut self.more, to);
        let published = appender.publish(&self.topic, full, len, SlotMeta { now, stamp: self.stamp }, fill);
        if self.is_conditional && !matches!(published, Ok(Some(_))) {
            self.give_back(len as u64, bytes);
        }
        Ok((to, published?))
    }

    /// Publishes one event.
    #[inline]
    pub(crate) fn place_one(
        &mut self,
        route: Route<'_>,
        full: WhenFull<'_>,
        bytes: usize,
        fill: impl FnOnce(&mut E, Option<Timestamp>),
    ) -> Result<Receipt, PublishError> {
        if self.is_bare {
            let to = self.route(route, false)?;
            let appender = appender_of(&mut self.first, &mut self.more, to);
            // Filled without a claim, for the reason in `publish_any`.
            return match appender.ring.try_fill(|event| fill(event, None)) {
                Ok(Some(sequence)) => Ok(Receipt::new(self.topic.id, to, sequence.0)),
                Ok(None) => Err(self.cut(to)),
                Err(fill) => self.overflow_one(to, full, fill),
            };
        }
        let mut fill = Some(fill);
        let placed = self.place(route, full, 1, bytes as u64, &mut |_, event, now| {
            if let Some(fill) = fill.take() {
                fill(event, now);
            }
        });
        match placed? {
            (partition, Some(offset)) => self.published(partition, offset),
            (partition, None) => Ok(Receipt::dropped(self.topic.id, partition)),
        }
    }

    /// Publishes one event after a first attempt that found no room, or a closed topic.
    #[cold]
    #[inline(never)]
    fn overflow_one(
        &mut self,
        to: u32,
        full: WhenFull<'_>,
        fill: impl FnOnce(&mut E),
    ) -> Result<Receipt, PublishError> {
        let mut fill = Some(fill);
        let placed = self.place(Route::To(to), full, 1, 0, &mut |_, event, _| {
            if let Some(fill) = fill.take() {
                fill(event);
            }
        });
        match placed?.1 {
            Some(offset) => Ok(Receipt::new(self.topic.id, to, offset)),
            None => Ok(Receipt::dropped(self.topic.id, to)),
        }
    }

    #[cold]
    fn acknowledged(&self, receipt: Receipt) -> Result<Receipt, PublishError> {
        self.acknowledged_as(receipt, self.level)
    }

    /// Waits until the event of `receipt` has reached `level`, and returns the receipt with that level. If that cannot
    /// be confirmed, the error is [`PublishError::Unknown`].
    pub(crate) fn acknowledged_as(&self, receipt: Receipt, level: Level) -> Result<Receipt, PublishError> {
        let reached = receipt.wait(level);
        reached.map(|level| receipt.with(level)).map_err(|cause| PublishError::Unknown {
            topic: self.topic.name.clone(),
            partition: receipt.partition,
            offset: receipt.offset,
            cause: cause.to_string(),
        })
    }

    /// Sets how this producer waits while a partition is full.
    pub fn set_wait(&mut self, wait: Wait) {
        self.ring().set_wait(wait.clone());
        self.more.iter_mut().flatten().for_each(|appender| appender.ring.set_wait(wait.clone()));
        self.wait = wait;
    }

    /// Fills the next event and publishes it. If its partition is full, the topic's overflow policy applies.
    ///
    /// If `fill` panics, no consumer sees the event that it left, and the topic stays open.
    ///
    /// # Errors
    /// The topic is closed, the partitioner chooses no valid partition, or a policy of the topic refuses the event.
    #[inline]
    pub fn publish(&mut self, fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        self.publish_any::<true>(fill)
    }

    /// As [`publish`](Self::publish), but returns an error if the partition is full.
    ///
    /// # Errors
    /// The partition is full, or an error of [`publish`](Self::publish).
    #[inline]
    pub fn try_publish(&mut self, fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        self.publish_any::<false>(fill)
    }

    #[inline(always)]
    fn publish_any<const WAITS: bool>(&mut self, fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        let mut fill = fill;
        if self.is_fast_path() {
            // This path stores in memory only the event and its position, neither a claim nor a pointer to the closure.
            fill = match self.ring().try_fill(fill) {
                Ok(Some(sequence)) => return Ok(Receipt::new(self.topic.id, 0, sequence.0)),
                Ok(None) => return Err(self.cut(0)),
                Err(fill) => fill,
            };
        }
        let full = if WAITS { WhenFull::Policy } else { WhenFull::Refuse };
        if !K::SINGLE {
            return self.publish_among_others(full, fill);
        }
        // The closure is called here: if it were passed to another function, the variables that it has captured by
        // reference could not stay in registers, and each event would be stored once more.
        let topic = self.topic.id;
        let (to, mut claim) = match self.claim_slowly(full)? {
            (to, Some(claim)) => (to, claim),
            (to, None) => return Ok(Receipt::dropped(topic, to)),
        };
        let offset = claim.sequences().first.0;
        if let Some(event) = claim.get_mut(0) {
            fill(event);
        }
        let committed = claim.commit();
        self.committed(to, offset, committed)
    }

    /// Publishes an event of a multi producer for which the fast path does not apply, or has no room.
    #[inline(never)]
    fn publish_among_others(&mut self, full: WhenFull<'_>, fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        self.place_one(Route::Any, full, size_of::<E>(), |event, _| fill(event))
    }

    /// Claims the slot of an event of a single producer for which the fast path does not apply, or has no room. Returns
    /// its partition and the claim; no claim if the topic's policy drops the event.
    #[inline(never)]
    fn claim_slowly(&mut self, full: WhenFull<'_>) -> Result<(u32, Option<Claim<'_, E, K>>), PublishError> {
        let (to, meta) = self.reserve(full, 1)?;
        match meta {
            Some(meta) => Ok((to, Some(self.open(to, 1, meta)?))),
            None => Ok((to, None)),
        }
    }

    /// The outcome of the commit of a claim that [`claim_slowly`](Self::claim_slowly) has returned.
    #[inline(never)]
    fn committed(
        &self,
        to: u32,
        offset: u64,
        committed: Result<Sequences, slipring_ring::Closed>,
    ) -> Result<Receipt, PublishError> {
        match committed {
            Ok(_) => self.published(to, offset),
            Err(closed) => Err(self.too_late(to, closed)),
        }
    }

    /// The error of events that were filled in `partition` without a claim of the engine's when the topic had ended.
    #[cold]
    #[inline(never)]
    fn cut(&mut self, partition: u32) -> PublishError {
        let closed = appender_of(&mut self.first, &mut self.more, partition).ring.why_cut();
        self.too_late(partition, closed)
    }

    /// The error of an event that was filled when the topic had ended already.
    #[cold]
    fn too_late(&self, partition: u32, closed: slipring_ring::Closed) -> PublishError {
        PublishError::new(&self.topic.name, partition, closed, 0, || None)
    }

    /// For a topic's only producer: chooses the partition of the next `len` events, and waits for room there, as `full`
    /// says. Returns the partition and the metadata of the slots; the metadata is `None` if the events are to be
    /// dropped.
    #[inline(never)]
    fn reserve(&mut self, full: WhenFull<'_>, len: usize) -> Result<(u32, Option<SlotMeta>), PublishError> {
        let bytes = size_of::<E>().saturating_mul(len) as u64;
        let to = self.route(Route::Any, len != 1)?;
        if self.is_conditional {
            self.admit(full, len as u64, bytes)?;
        }
        let now = self.topic.settings.timestamps.then(|| self.topic.host.clock.wall());
        let appender = appender_of(&mut self.first, &mut self.more, to);
        let room = appender.make_room(&self.topic, full, len);
        if self.is_conditional && !matches!(room, Ok(true)) {
            self.give_back(len as u64, bytes);
        }
        Ok((to, room?.then_some(SlotMeta { now, stamp: self.stamp })))
    }

    /// Claims `len` slots for which the only producer has [reserved](Self::reserve) room.
    #[inline(never)]
    fn open(&mut self, to: u32, len: usize, meta: SlotMeta) -> Result<Claim<'_, E, K>, PublishError> {
        let appender = appender_of(&mut self.first, &mut self.more, to);
        appender.open(&self.topic, len, meta)
    }

    #[inline]
    fn published(&self, to: u32, offset: u64) -> Result<Receipt, PublishError> {
        let receipt = Receipt::new(self.topic.id, to, offset);
        if self.level > Level::Published { self.acknowledged(receipt) } else { Ok(receipt) }
    }

    /// As [`publish`](Self::publish), but waits at most until `deadline`.
    ///
    /// # Errors
    /// The partition was still full at the deadline, or an error of [`publish`](Self::publish).
    pub fn publish_until(&mut self, deadline: Instant, fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        self.place_one(Route::Any, WhenFull::Until(deadline), size_of::<E>(), |event, _| fill(event))
    }

    /// Fills the next event of the partition that the partitioner chooses for `key`, and publishes it. The key itself
    /// is not stored: put it into the event if consumers need it.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish).
    #[inline]
    pub fn publish_key(&mut self, key: &[u8], fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        self.place_one(Route::Key(key), WhenFull::Policy, size_of::<E>(), |event, _| fill(event))
    }

    /// Fills the next event of this partition, and publishes it.
    ///
    /// # Errors
    /// The partition does not exist, or an error of [`publish`](Self::publish).
    #[inline]
    pub fn publish_to(&mut self, partition: u32, fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        self.place_one(Route::To(partition), WhenFull::Policy, size_of::<E>(), |event, _| fill(event))
    }

    /// Moves `value` into the next event, or returns it with the error. Waits where [`publish`](Self::publish) would.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish).
    pub fn offer(&mut self, value: E) -> Result<Receipt, Rejected<E>> {
        let mut value = value;
        // Discards the events that earlier refused publishes have left, so that only this one's is found below.
        self.appenders().flatten().for_each(|appender| _ = appender.ring.cut_event());
        self.publish(|event| std::mem::swap(event, &mut value)).map_err(|reason| {
            if let Some(event) = self.appenders().flatten().find_map(|appender| appender.ring.cut_event()) {
                std::mem::swap(event, &mut value);
            }
            Rejected { value, reason }
        })
    }

    /// Fills `len` events of one partition and publishes them together, all or none. `fill` is called with each event
    /// and its index in the batch, from 0 on.
    ///
    /// # Errors
    /// `len` is 0 or more than a partition can hold, or an error of [`publish`](Self::publish). Then no event is
    /// published.
    #[inline]
    pub fn publish_batch(
        &mut self,
        len: usize,
        mut fill: impl FnMut(usize, &mut E),
    ) -> Result<BatchReceipt, PublishError> {
        let topic = self.topic.id;
        if self.is_fast_path() {
            fill = match self.ring().try_fill_batch(len, fill) {
                Ok(Some(first)) => return Ok(BatchReceipt { topic, partition: 0, first: first.0, len }),
                Ok(None) => return Err(self.cut(0)),
                Err(fill) => fill,
            };
        }
        if !K::SINGLE {
            return self.publish_batch_among_others(len, fill);
        }
        let (to, meta) = self.reserve(WhenFull::Policy, len)?;
        let Some(meta) = meta else { return self.published_batch(to, None, len) };
        let mut claim = self.open(to, len, meta)?;
        for (index, (_, event)) in claim.iter_mut().enumerate() {
            fill(index, event);
        }
        match claim.commit() {
            Ok(published) => self.published_batch(to, Some(published.first.0), len),
            Err(closed) => Err(self.too_late(to, closed)),
        }
    }

    #[inline(never)]
    fn publish_batch_among_others(
        &mut self,
        len: usize,
        mut fill: impl FnMut(usize, &mut E),
    ) -> Result<BatchReceipt, PublishError> {
        let bytes = size_of::<E>().saturating_mul(len) as u64;
        let placed = self.place(Route::Any, WhenFull::Policy, len, bytes, &mut |index, event, _| fill(index, event));
        let (partition, first) = placed?;
        self.published_batch(partition, first, len)
    }

    #[inline]
    fn published_batch(&self, partition: u32, first: Option<u64>, len: usize) -> Result<BatchReceipt, PublishError> {
        if let Some(first) = first.filter(|_| self.level > Level::Published) {
            self.acknowledged(Receipt::new(self.topic.id, partition, first + len as u64 - 1))?;
        }
        Ok(BatchReceipt { topic: self.topic.id, partition, first: first.unwrap_or(u64::MAX), len })
    }
}

impl<E, K: Producers> fmt::Debug for Producer<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer of {:?}", self.topic.name)
    }
}
