//! Publishing messages: records that are copied into the slots.

use super::Producer;
use crate::base::clock::Timestamp;
use crate::base::kind::Producers;
use crate::base::level::Level;
use crate::base::overload::TopicCounters;
use crate::base::when_full::WhenFull;
use crate::event::message::Message;
use crate::event::record::Record;
use crate::log::receipt::Receipt;
use crate::produce::append::Route;
use crate::topic::dedup::{DedupIndex, IdOutcome};
use crate::topic::error::PublishError;
use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl<K: Producers> Producer<Message, K> {
    /// Copies a record into the next slot of its partition and publishes it. The partition is the [one that the record
    /// names](Record::partition), or else the one that the partitioner chooses for its key.
    ///
    /// ```
    /// use slipring::{Engine, Message, Record, producer::{Partitioner, PublishError}};
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
    /// The record is larger than [`max_message`](crate::TopicBuilder::max_message) or than the topic's
    /// [bridge](crate::replication) can copy, its partition does not exist, the
    /// partitioner chooses no valid partition, the topic is closed, or a policy of the topic refuses the record. The
    /// record was only borrowed, and may be sent again.
    #[inline]
    pub fn send<'r>(&mut self, record: impl Borrow<Record<'r>>) -> Result<Receipt, PublishError> {
        self.deliver(record.borrow(), WhenFull::Policy)
    }

    /// As [`send`](Self::send), but returns an error if the partition is full.
    ///
    /// # Errors
    /// The partition is full, or an error of [`send`](Self::send).
    #[inline]
    pub fn try_send<'r>(&mut self, record: impl Borrow<Record<'r>>) -> Result<Receipt, PublishError> {
        self.deliver(record.borrow(), WhenFull::Refuse)
    }

    /// As [`send`](Self::send), but waits at most until `deadline`.
    ///
    /// # Errors
    /// The partition was still full at the deadline, or an error of [`send`](Self::send).
    pub fn send_until<'r>(
        &mut self,
        deadline: Instant,
        record: impl Borrow<Record<'r>>,
    ) -> Result<Receipt, PublishError> {
        self.deliver(record.borrow(), WhenFull::Until(deadline))
    }

    /// The partition to which the record goes. An error if the topic does not accept the record, or has no such
    /// partition.
    pub(crate) fn destination(&mut self, record: &Record<'_>) -> Result<u32, PublishError> {
        if Message::check(record, self.topic.unlimited_message.load(Ordering::Relaxed)).is_err() {
            self.check_limits(record)?;
        }
        self.refuse_id(record)?;
        self.route(Route::of(record), false)
    }

    /// Publishes `len` gathered records in one partition. Returns the first offset; `None` if the topic's policy has
    /// dropped the records.
    pub(crate) fn place_gathered(
        &mut self,
        partition: u32,
        full: WhenFull,
        len: usize,
        bytes: u64,
        fill: &mut impl FnMut(usize, &mut Message, Option<Timestamp>),
    ) -> Result<Option<u64>, PublishError> {
        self.place(Route::To(partition), full, len, bytes, fill).map(|(_, first)| first)
    }

    #[inline]
    pub(crate) fn deliver(&mut self, record: &Record<'_>, full: WhenFull<'_>) -> Result<Receipt, PublishError> {
        if Message::check(record, self.topic.unlimited_message.load(Ordering::Relaxed)).is_err() {
            self.check_limits(record)?;
        }
        if let Some(delayed) = record.at(|| self.topic.host.clock.wall()) {
            return self.deliver(&delayed, full);
        }
        if let (Some(ids), Some(id)) = (&self.topic.ids, record.id_bytes()) {
            return self.deliver_once(&Arc::clone(ids), id, record, full);
        }
        self.place_one(Route::of(record), full, record.size(), |message, now| message.fill(record, now))
    }

    /// Publishes a message with an id, unless a message with that id was published before: then returns the first
    /// receipt.
    fn deliver_once(
        &mut self,
        ids: &Arc<DedupIndex>,
        id: &[u8],
        record: &Record<'_>,
        full: WhenFull<'_>,
    ) -> Result<Receipt, PublishError> {
        let mut claimed = match ids.begin(&self.topic, id, full)? {
            IdOutcome::First(claimed) => claimed,
            IdOutcome::Duplicate(partition, offset) => {
                TopicCounters::add(&self.topic.counts.duplicates, 1);
                let receipt = Receipt::new(self.topic.id, partition, offset);
                return if self.level > Level::Published { self.acknowledged(receipt) } else { Ok(receipt) };
            }
        };
        let placed = self.place_one(Route::of(record), full, record.size(), |message, now| message.fill(record, now));
        let now = self.topic.host.clock.now();
        match &placed {
            Ok(receipt) if !receipt.is_dropped() => claimed.settle(receipt.partition, receipt.offset, now),
            Err(PublishError::Unknown { partition, offset, .. }) => claimed.settle(*partition, *offset, now),
            _ => {}
        }
        placed
    }

    /// Returns an error if the record has an id and the topic deduplicates: for callers that publish without a check of
    /// the id.
    pub(crate) fn refuse_id(&self, record: &Record<'_>) -> Result<(), PublishError> {
        match (&self.topic.ids, record.id_bytes()) {
            (Some(_), Some(_)) => Err(PublishError::IdNotLookedAt { topic: self.topic.name.clone() }),
            _ => Ok(()),
        }
    }

    /// Checks a record that is not accepted by its size alone: it is too large for the topic or for the topic's bridge, or
    /// a header's name is too long, or it is accepted after all.
    #[cold]
    fn check_limits(&self, record: &Record<'_>) -> Result<(), PublishError> {
        let topic = || self.topic.name.clone();
        if let Some(len) = record.headers.iter().map(|(name, _)| name.len()).max()
            && len > Record::MAX_HEADER_NAME
        {
            return Err(PublishError::HeaderName { topic: topic(), len });
        }
        let (size, largest) = (record.size(), self.topic.settings.max_message);
        if size > largest {
            return Err(PublishError::MessageTooLarge { topic: topic(), size, largest });
        }
        let Some((bridge, limit)) = self.topic.message_limit() else { return Ok(()) };
        match (limit.measure)(record) {
            size if size > limit.largest => {
                Err(PublishError::TooLargeForBridge { topic: topic(), bridge, size, limit: limit.largest })
            }
            _ => Ok(()),
        }
    }
}
