//! Shared rings for programs that do not have the events' type: tools, and other languages. Events are bytes, and their
//! [`EventLayout`] comes from the ring's header.

use super::claim::SharedClaim;
use super::consumer::{SharedBatch, SharedConsumer};
use super::consumer_builder::ConsumerBuilder;
use super::error::{Ended, PublishError, SharedError};
use super::event_layout::EventLayout;
use super::layout::{Event, Field};
use super::participant::Participant;
use super::producer::SharedProducer;
use super::ring::SharedRing;
use super::size::Size;
use crate::sequence::{Sequence, Sequences};
use crate::stage::Start;
use crate::sync::Instant;
use crate::wait::Wait;

/// Stands for the first byte of an event whose size is in the ring's header.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct RawEvent(u8);

// SAFETY: a byte has no padding and every pattern of bits. `IS_RAW` says that the layout is that of the header, which
// has the event's size; the code here accesses no more bytes than that.
unsafe impl Event for RawEvent {
    const FIELDS: &'static [Field] = &[];
    const IS_RAW: bool = true;
}

/// A shared ring whose events are bytes. As [`SharedRing`], which shares its rings with programs that use this one.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use slipring_ring::shared::{RawRing, SharedRing};
/// slipring_ring::shared_event! {
///     pub struct Quote { pub px: i64, pub qty: u32, pub venue: [u8; 4] }
/// }
///
/// # let quotes = format!("doc-raw-{}", std::process::id());
/// # let quotes = &*quotes;
/// let ring = SharedRing::<Quote>::create(quotes, 64)?;
/// let raw = RawRing::open(quotes)?;
/// assert_eq!(raw.layout().to_string(), "px:i64@0 qty:u32@8 venue:u8[4]@12 size=16 align=8");
/// let mut reader = raw.consumer("reader").join()?;
/// ring.producer()?.publish(|quote| *quote = Quote { px: 101, qty: 2, venue: *b"XETR" })?;
/// let batch = reader.poll(10)?;
/// let (events, _) = batch.events();
/// let px = &raw.layout().fields()[0];
/// assert_eq!(px.number(&events[..16], 0).unwrap().to_string(), "101");
/// # drop(batch);
/// # drop(reader);
/// RawRing::remove(quotes)?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RawRing {
    ring: SharedRing<RawEvent>,
    layout: EventLayout,
}

impl RawRing {
    fn new(ring: SharedRing<RawEvent>) -> Result<Self, SharedError> {
        // The geometry was checked, so the text is that of a layout.
        let layout = ring.layout().parse()?;
        Ok(Self { ring, layout })
    }

    /// Opens the ring called `name`, whatever its layout.
    ///
    /// # Errors
    /// [`SharedError::NotFound`]; [`SharedError::Mismatch`] with both sides if the file is not a ring of this user.
    pub fn open(name: &str) -> Result<Self, SharedError> {
        Self::new(SharedRing::open(name)?)
    }

    /// Creates a ring called `name` for events with this layout: as [`SharedRing::create`].
    ///
    /// # Errors
    /// As for [`SharedRing::create`].
    pub fn create(name: &str, size: impl Into<Size>, layout: &EventLayout) -> Result<Self, SharedError> {
        Self::new(SharedRing::create_as(name, size.into(), layout)?)
    }

    /// Opens the ring called `name`, and creates it if it is not there.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and [`create`](Self::create); [`SharedError::Mismatch`] if the ring that is there has
    /// another layout, capacity or count of retained events.
    pub fn open_or_create(name: &str, size: impl Into<Size>, layout: &EventLayout) -> Result<Self, SharedError> {
        Self::new(SharedRing::open_or_create_as(name, size.into(), layout)?)
    }

    /// Removes the ring called `name`, whose participants have all gone. Held positions go with it.
    ///
    /// # Errors
    /// As for [`SharedRing::remove`].
    pub fn remove(name: &str) -> Result<(), SharedError> {
        SharedRing::<RawEvent>::remove(name)
    }

    /// Removes the ring called `name`, also if participants are alive.
    ///
    /// # Errors
    /// As for [`SharedRing::remove_forced`].
    pub fn remove_forced(name: &str) -> Result<(), SharedError> {
        SharedRing::<RawEvent>::remove_forced(name)
    }

    /// The layout of the events.
    pub fn layout(&self) -> &EventLayout {
        &self.layout
    }

    /// The ring's name.
    pub fn name(&self) -> &str {
        self.ring.name()
    }

    /// Count of slots.
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// Count of events that are kept for consumers that join later.
    pub fn retained(&self) -> usize {
        self.ring.retained()
    }

    /// Size of the ring's file in bytes.
    pub fn file_size(&self) -> u64 {
        self.ring.file_size()
    }

    /// The next sequence to be published.
    pub fn published(&self) -> Sequence {
        self.ring.published()
    }

    /// Why the ring has ended; `None` while it is open.
    pub fn ended(&self) -> Option<Ended> {
        self.ring.ended()
    }

    /// The participants, as [`SharedRing::participants`].
    pub fn participants(&self) -> Vec<Participant> {
        self.ring.participants()
    }

    /// Ends the ring for all participants, as [`SharedRing::close`].
    pub fn close(&self) {
        self.ring.close();
    }

    /// Gives up the position of the held consumer `name`, whose process has gone.
    ///
    /// # Errors
    /// As for [`SharedRing::release`].
    pub fn release(&self, name: &str) -> Result<(), SharedError> {
        self.ring.release(name)
    }

    /// True if several producers may join, as [`SharedRing::is_multi_producer`].
    pub fn is_multi_producer(&self) -> bool {
        self.ring.is_multi_producer()
    }

    /// The next sequence to be claimed, as [`SharedRing::claimed`].
    pub fn claimed(&self) -> Sequence {
        self.ring.claimed()
    }

    /// Joins as a producer called `name`: the only one, or one of several if the ring [is for
    /// several](Self::is_multi_producer).
    ///
    /// # Errors
    /// As for [`SharedRing::producer`] and [`SharedRing::multi_producer_named`].
    pub fn producer_named(&self, name: &str) -> Result<RawProducer, SharedError> {
        Ok(RawProducer { producer: self.ring.produce(name)?, size: self.layout.size() })
    }

    /// As [`producer_named`](Self::producer_named), called `producer`.
    ///
    /// # Errors
    /// As for `producer_named`.
    pub fn producer(&self) -> Result<RawProducer, SharedError> {
        self.producer_named("producer")
    }

    /// A consumer that joins under `name`: as [`SharedRing::consumer`].
    pub fn consumer(&self, name: impl Into<String>) -> RawConsumerBuilder<'_> {
        RawConsumerBuilder { builder: self.ring.consumer(name), size: self.layout.size() }
    }

    /// The place of an event in the mapping of this handle, for reading. The pointer is valid as long as this handle
    /// lives. The event may be read between the poll that returned its sequence and the end of that batch; before and
    /// afterwards a producer may be writing it.
    pub fn event_ptr(&self, sequence: Sequence) -> *const u8 {
        self.ring.event_ptr(sequence).cast()
    }
}

/// How a consumer of a [`RawRing`] joins: as [`ConsumerBuilder`].
pub struct RawConsumerBuilder<'r> {
    builder: ConsumerBuilder<'r, RawEvent>,
    size: usize,
}

impl RawConsumerBuilder<'_> {
    /// Where it begins to read (default: [`Start::Earliest`]). A held consumer goes on at its position instead.
    pub fn start(self, start: Start) -> Self {
        Self { builder: self.builder.start(start), ..self }
    }

    /// Keeps the consumer's position when it is dropped or its process dies.
    pub fn hold(self) -> Self {
        Self { builder: self.builder.hold(), ..self }
    }

    /// Sets the wait strategy.
    pub fn wait(self, wait: Wait) -> Self {
        Self { builder: self.builder.wait(wait), ..self }
    }

    /// Joins.
    ///
    /// # Errors
    /// As for [`ConsumerBuilder::join`].
    pub fn join(self) -> Result<RawConsumer, SharedError> {
        Ok(RawConsumer { consumer: self.builder.join()?, size: self.size })
    }
}

/// A producer of a [`RawRing`]: as [`SharedProducer`].
pub struct RawProducer {
    producer: SharedProducer<RawEvent>,
    size: usize,
}

impl RawProducer {
    /// Sets the wait strategy for a full ring.
    pub fn wait(self, wait: Wait) -> Self {
        Self { producer: self.producer.wait(wait), ..self }
    }

    /// The next sequence that this producer claims; a guess if there are several producers.
    pub fn position(&self) -> Sequence {
        Sequence(self.producer.next)
    }

    /// Claims `len` slots. Waits for room if the ring is full.
    ///
    /// # Errors
    /// As for [`SharedProducer::claim`].
    pub fn claim(&mut self, len: usize) -> Result<RawClaim<'_>, PublishError> {
        Ok(RawClaim { size: self.size, claim: self.producer.claim(len)? })
    }

    /// As [`claim`](Self::claim), without waiting.
    ///
    /// # Errors
    /// As for [`SharedProducer::try_claim`].
    pub fn try_claim(&mut self, len: usize) -> Result<RawClaim<'_>, PublishError> {
        Ok(RawClaim { size: self.size, claim: self.producer.try_claim(len)? })
    }

    /// As [`claim`](Self::claim), but waits until `deadline` at most.
    ///
    /// # Errors
    /// As for [`SharedProducer::claim_until`].
    pub fn claim_until(&mut self, len: usize, deadline: Instant) -> Result<RawClaim<'_>, PublishError> {
        Ok(RawClaim { size: self.size, claim: self.producer.claim_until(len, deadline)? })
    }

    /// Ends the ring for all participants: consumers read what was published, then get [`Ended::Closed`].
    pub fn close(self) {
        self.producer.close();
    }
}

/// Slots that a producer fills and commits together. Dropped without a commit, it publishes nothing: as [`SharedClaim`].
pub struct RawClaim<'p> {
    claim: SharedClaim<'p, RawEvent>,
    size: usize,
}

impl RawClaim<'_> {
    /// The sequence of the first event.
    pub fn first(&self) -> Sequence {
        Sequence(self.claim.first)
    }

    /// Count of the events.
    pub fn len(&self) -> usize {
        self.claim.len as usize
    }

    /// Always false: a claim has at least one event.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The bytes of the events, in the order of their sequences: up to the end of the slots, and from their begin on. The
    /// second part is empty unless the claim passes the end. Each event has the value that its slot had one capacity before.
    pub fn events_mut(&mut self) -> (&mut [u8], &mut [u8]) {
        let region = &self.claim.producer.member.region;
        let (first, len) = (self.claim.first, self.claim.len);
        let before = len.min(region.capacity() - (first & (region.capacity() - 1)));
        let part = |first: u64, len: u64| {
            let start = region.event_mut(first).cast::<u8>();
            // SAFETY: the slots of these sequences are consecutive, were mapped for writing, and are claimed: no other
            // reference to them exists. The parts are of different slots, since a claim is not longer than the ring.
            unsafe { std::slice::from_raw_parts_mut(start, len as usize * self.size) }
        };
        (part(first, before), part(first + before, len - before))
    }

    /// Gives up all but the first `len` events (1 or more), which can be committed then. Does nothing if there are no more.
    pub fn truncate(&mut self, len: usize) {
        self.claim.truncate(len as u64);
    }

    /// Publishes the events.
    ///
    /// # Errors
    /// As for [`SharedClaim::commit`].
    pub fn commit(self) -> Result<Sequences, Ended> {
        self.claim.commit()
    }
}

/// A consumer of a [`RawRing`]: as [`SharedConsumer`].
pub struct RawConsumer {
    consumer: SharedConsumer<RawEvent>,
    size: usize,
}

impl RawConsumer {
    /// The next sequence that this consumer reads.
    pub fn position(&self) -> Sequence {
        self.consumer.position()
    }

    /// Up to `limit` events, or an empty batch if there is none now.
    ///
    /// # Errors
    /// As for [`SharedConsumer::poll`].
    pub fn poll(&mut self, limit: usize) -> Result<RawBatch<'_>, Ended> {
        Ok(RawBatch { size: self.size, batch: self.consumer.poll(limit)? })
    }

    /// Waits for events. Returns 1 to `limit` of them; none if `limit` is 0.
    ///
    /// # Errors
    /// As for [`SharedConsumer::poll_wait`].
    pub fn poll_wait(&mut self, limit: usize) -> Result<RawBatch<'_>, Ended> {
        Ok(RawBatch { size: self.size, batch: self.consumer.poll_wait(limit)? })
    }

    /// As [`poll_wait`](Self::poll_wait), but returns an empty batch at `deadline`.
    ///
    /// # Errors
    /// As for [`SharedConsumer::poll_wait`].
    pub fn poll_until(&mut self, limit: usize, deadline: Instant) -> Result<RawBatch<'_>, Ended> {
        Ok(RawBatch { size: self.size, batch: self.consumer.poll_until(limit, deadline)? })
    }

    /// Leaves for good, also if it is held: its position is not kept.
    pub fn leave(self) {
        self.consumer.leave();
    }
}

/// Consecutive events. Dropped, it moves the consumer's position past those that were [consumed](Self::consume).
pub struct RawBatch<'c> {
    batch: SharedBatch<'c, RawEvent>,
    size: usize,
}

impl RawBatch<'_> {
    /// The sequence of the first event that is left.
    pub fn first(&self) -> Sequence {
        Sequence(self.batch.at)
    }

    /// Count of the events that are left.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// True if no event is left.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// The bytes of the events that are left, in the order of their sequences: up to the end of the slots, and from their
    /// begin on. The second part is empty unless the batch passes the end.
    pub fn events(&self) -> (&[u8], &[u8]) {
        let region = &self.batch.consumer.member.region;
        let (first, len) = (self.batch.at, self.batch.end - self.batch.at);
        let before = len.min(region.capacity() - (first & (region.capacity() - 1)));
        let part = |first: u64, len: u64| {
            let start = region.event(first).cast::<u8>();
            // SAFETY: the slots of these sequences are consecutive, and their events are published. Producers do not
            // write them before the gate passes them, which the batch's drop does, and the batch outlives the slice.
            unsafe { std::slice::from_raw_parts(start, len as usize * self.size) }
        };
        (part(first, before), part(first + before, len - before))
    }

    /// Leaves all but the first `len` of the events that are left to the next poll.
    pub fn truncate(&mut self, len: usize) {
        self.batch.end = self.batch.end.min(self.batch.at.saturating_add(len as u64));
    }

    /// Marks the next `count` events as read, or all that are left if they are fewer.
    pub fn consume(&mut self, count: usize) {
        self.batch.at += (count as u64).min(self.batch.end - self.batch.at);
    }
}
