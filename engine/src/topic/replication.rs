//! Attaching a bridge to a durable topic.

use super::error::check_name;
use super::{Topic, TopicCore};
use crate::base::kind::Producers;
use crate::base::level::Level;
use crate::event::record::Record;
use crate::log::bridge::{BridgePosition, BridgeReport, MAX_DETAIL, MessageLimit};
use crate::log::committer::Committer;
use crate::log::progress::Acks;
use crate::text;
use slipring_journal::{FrameBuilder, PartitionId};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Why a bridge was not attached, or cannot do what it was told to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicationError {
    /// The topic cannot be replicated.
    #[error("topic {topic:?} cannot be replicated: {reason}")]
    Unsupported {
        /// The topic's name.
        topic: String,
        /// Why not.
        reason: &'static str,
    },
    /// The bridge's name is not valid.
    #[error("topic {topic:?}: {name:?} is no name for a bridge: take 1 to 200 letters, digits, '.', '_' or '-'")]
    Name {
        /// The topic's name.
        topic: String,
        /// The refused name.
        name: String,
    },
    /// A bridge is attached to the topic already. A topic has at most one bridge at a time.
    #[error("topic {topic:?} is replicated by the bridge {bridge:?}: end that one first")]
    Attached {
        /// The topic's name.
        topic: String,
        /// The name of the attached bridge.
        bridge: String,
    },
    /// The attachment has ended: the topic was deleted, or another bridge was attached.
    #[error("the bridge {bridge:?} of topic {topic:?} has ended: {}", text::line(.cause))]
    Ended {
        /// The topic's name.
        topic: String,
        /// The bridge's name.
        bridge: String,
        /// Why, as text.
        cause: String,
    },
    /// The topic has no partition of this number.
    #[error("topic {topic:?} has no partition {partition}")]
    NoPartition {
        /// The topic's name.
        topic: String,
        /// The partition's number.
        partition: u32,
    },
    /// The bridge claims to have copied events that are not durable here, which it cannot have read.
    #[error(
        "topic {topic:?}, partition {partition}: events up to {next} cannot be replicated, {durable} is the next that is not durable here"
    )]
    NotDurable {
        /// The topic's name.
        topic: String,
        /// The partition's number.
        partition: u32,
        /// The offset to which the bridge wanted to advance.
        next: u64,
        /// The next offset that is not durable.
        durable: u64,
    },
    /// What the bridge records with its position is too long.
    #[error("{bytes} bytes beside a bridge's position are too many: at most {MAX_DETAIL} are recorded")]
    Detail {
        /// The length in bytes.
        bytes: usize,
    },
    /// The journal refused the bridge's position, or has ended.
    #[error("topic {topic:?}: the journal did not record the bridge's position: {}", text::line(.cause))]
    Journal {
        /// The topic's name.
        topic: String,
        /// Why, as text.
        cause: String,
    },
}

/// Settings of a [`Replication`]; made by [`Topic::replicate`].
pub struct ReplicationBuilder {
    topic: Arc<str>,
    bridge: String,
    hold: Option<u64>,
    durable: Option<(u32, Arc<Committer>, Arc<Acks>)>,
    messages: Weak<dyn LimitedMessages>,
}

/// A topic, as an attachment sees it whose topic may have events of any type.
trait LimitedMessages: Send + Sync {
    /// Makes publishes of messages look for the bridge's limit, but those of at most `size` bytes.
    fn limit_above(&self, size: usize);
}

impl<E: Send + Sync, K: Producers> LimitedMessages for TopicCore<E, K> {
    fn limit_above(&self, size: usize) {
        self.unlimited_message.store(size.min(self.settings.max_message), Ordering::Relaxed);
    }
}

impl<E, K: Producers> TopicCore<E, K> {
    /// The attached bridge's name and the largest message that it can copy; `None` if there is no such limit.
    pub(crate) fn message_limit(&self) -> Option<(String, Arc<MessageLimit>)> {
        let lift = || self.unlimited_message.store(self.settings.max_message, Ordering::Relaxed);
        self.durable.as_ref()?.acks.message_limit(lift)
    }
}

impl<E: Send + Sync + 'static, K: Producers> Topic<E, K> {
    /// Returns the settings of the attachment of a bridge, which copies this durable topic to other machines. The `name`
    /// is that of the bridge: under it the journal records how far the bridge has come. Finish the settings with
    /// [`attach`](ReplicationBuilder::attach).
    ///
    /// The package `slipring-bridge` has a bridge to NATS JetStream. Another one reads the topic with [`replay`](Self::replay).
    pub fn replicate(&self, name: impl Into<String>) -> ReplicationBuilder {
        let durable = self.inner.durable.as_ref();
        let durable = durable.map(|it| (it.id(0).topic, Arc::clone(&it.committer), Arc::clone(&it.acks)));
        let messages: Weak<dyn LimitedMessages> = Arc::<TopicCore<E, K>>::downgrade(&self.inner);
        ReplicationBuilder {
            topic: self.inner.name.as_str().into(),
            bridge: name.into(),
            hold: None,
            durable,
            messages,
        }
    }
}

impl ReplicationBuilder {
    /// Sets how many bytes of records a partition's retention keeps for this bridge at most, while the bridge has not
    /// copied them: the newest ones. By default there is no limit, so a bridge that does not run lets the journal grow.
    /// Records that the topic's own retention keeps are not deleted by this.
    pub fn hold(mut self, bytes: u64) -> Self {
        self.hold = Some(bytes);
        self
    }

    /// Attaches the bridge. From now on the topic reaches [`Level::Replicated`], and its retention keeps the records that
    /// the bridge has not copied. Waits until the journal has recorded the bridge's name durably.
    ///
    /// # Errors
    /// The topic is not durable or never syncs while it is open, the name is invalid, another bridge is attached, or the
    /// journal has ended.
    pub fn attach(self) -> Result<Replication, ReplicationError> {
        let Self { topic, bridge, hold, durable, messages } = self;
        let name = || topic.to_string();
        check_name(&bridge).map_err(|_| ReplicationError::Name { topic: name(), name: bridge.clone() })?;
        let syncs = durable.as_ref().map(|(_, committer, _)| committer.syncs);
        if let Some(reason) = Level::Durable.unsupported(syncs, None) {
            return Err(ReplicationError::Unsupported { topic: name(), reason });
        }
        let Some((number, committer, acks)) = durable else {
            unreachable!("a topic without a journal was refused above");
        };
        let attached = acks.attach(&bridge);
        let attachment = attached.map_err(|bridge| ReplicationError::Attached { topic: name(), bridge })?;
        // From here on a drop ends the attachment.
        let it = Replication { topic, number, bridge, hold, committer, acks, attachment, messages };
        let positions = (0..it.partitions()).map(|partition| {
            let position = it.position(partition).unwrap_or_else(|| {
                let start = it.committer.journal.extent(it.id(partition)).map_or(0, |extent| extent.start);
                BridgePosition::new(&*it.bridge, it.id(partition), start)
            });
            BridgePosition { hold: it.hold, ..position }
        });
        it.write(positions.collect())?;
        Ok(it)
    }
}

/// The attachment of a bridge to a durable topic: through it the bridge says which events other machines have.
///
/// Dropping it ends the attachment, as [`end`](Self::end) does. The position stays in the journal, and the journal keeps
/// the records from there on, until [`forget`](Self::forget).
pub struct Replication {
    topic: Arc<str>,
    /// The topic's number in the journal.
    number: u32,
    bridge: String,
    hold: Option<u64>,
    committer: Arc<Committer>,
    acks: Arc<Acks>,
    attachment: u64,
    messages: Weak<dyn LimitedMessages>,
}

impl Replication {
    fn id(&self, partition: u32) -> PartitionId {
        PartitionId { topic: self.number, partition }
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The bridge's name.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// The present number of partitions.
    pub fn partitions(&self) -> u32 {
        self.acks.all().len() as u32
    }

    /// The position of this bridge in a partition: the offset to which it has [advanced](Self::advance), and what it has
    /// [recorded](Self::record) last. `None` for a partition in which it never was.
    pub fn position(&self, partition: u32) -> Option<BridgePosition> {
        self.committer.bridges.get(self.id(partition), &self.bridge)
    }

    /// The offset below which all events of a partition are durable here, so that the bridge may copy them; `None` if
    /// there is no such partition.
    pub fn durable(&self, partition: u32) -> Option<u64> {
        self.acks.durable(partition)
    }

    /// Why the attachment has ended; `None` while it lasts.
    pub fn ended(&self) -> Option<String> {
        self.acks.bridge_end(self.attachment)
    }

    fn check(&self) -> Result<(), ReplicationError> {
        match self.ended() {
            None => Ok(()),
            Some(cause) => {
                Err(ReplicationError::Ended { topic: self.topic.to_string(), bridge: self.bridge.clone(), cause })
            }
        }
    }

    /// Says that the cluster has confirmed all events of a partition below the offset `next`, but the
    /// [skipped](Self::skip) ones. Receipts of these events have reached [`Level::Replicated`], threads and tasks that wait
    /// for that are woken, and retention may delete the events. An offset below the present one changes nothing. This
    /// writes nothing: [`record`](Self::record) does.
    ///
    /// # Errors
    /// The attachment has ended, there is no such partition, or events below `next` are not durable here.
    pub fn advance(&self, partition: u32, next: u64) -> Result<(), ReplicationError> {
        self.check()?;
        let topic = || self.topic.to_string();
        let progress = self.acks.progress(partition);
        let progress = progress.ok_or_else(|| ReplicationError::NoPartition { topic: topic(), partition })?;
        let durable = progress.durable.load(Ordering::Acquire);
        if next > durable {
            return Err(ReplicationError::NotDurable { topic: topic(), partition, next, durable });
        }
        let of = self.id(partition);
        if self.committer.bridges.get(of, &self.bridge).is_none() {
            // A partition that was added after the bridge.
            let position = BridgePosition::new(&*self.bridge, of, next);
            self.committer.bridges.set(BridgePosition { hold: self.hold, ..position });
        }
        self.committer.bridges.advance(of, &self.bridge, next);
        progress.replicated.fetch_max(next, Ordering::AcqRel);
        progress.wake();
        Ok(())
    }

    /// Says that the bridge gives up the events at these offsets, which are above all that it has skipped before. Whoever
    /// waits for one of them to be replicated gets [`WaitError::Skipped`](crate::producer::WaitError::Skipped). Then
    /// [`advance`](Self::advance) goes over them.
    ///
    /// # Errors
    /// Those of [`advance`](Self::advance).
    pub fn skip(&self, partition: u32, offsets: Range<u64>) -> Result<(), ReplicationError> {
        self.check()?;
        let Some(progress) = self.acks.progress(partition) else {
            return Err(ReplicationError::NoPartition { topic: self.topic.to_string(), partition });
        };
        progress.skip(offsets.clone());
        self.advance(partition, offsets.end)
    }

    /// Records the bridge's position in a partition in the journal, with bytes of its own, and waits until that is
    /// durable.
    ///
    /// # Errors
    /// The attachment or the journal has ended, there is no such partition, `detail` is longer than [`MAX_DETAIL`] bytes,
    /// or the journal's state has no room.
    pub fn record(&self, partition: u32, detail: &[u8]) -> Result<(), ReplicationError> {
        self.check()?;
        if detail.len() > MAX_DETAIL {
            return Err(ReplicationError::Detail { bytes: detail.len() });
        }
        let Some(position) = self.position(partition).filter(|_| partition < self.partitions()) else {
            return Err(ReplicationError::NoPartition { topic: self.topic.to_string(), partition });
        };
        self.write(vec![BridgePosition { detail: detail.to_vec(), ..position }])
    }

    /// Writes positions to the journal, and sets them in memory once they are durable.
    fn write(&self, positions: Vec<BridgePosition>) -> Result<(), ReplicationError> {
        let limit = self.committer.journal.frame_limit() / 2;
        let (mut frames, mut frame) = (Vec::new(), FrameBuilder::new());
        for position in &positions {
            if frame.len() > limit {
                frames.push(std::mem::take(&mut frame));
            }
            position.put(&mut frame);
        }
        frames.push(frame);
        let refused = |cause| ReplicationError::Journal { topic: self.topic.to_string(), cause };
        self.committer.commit(frames).map_err(refused)?;
        for position in positions {
            // The bridge may have advanced meanwhile.
            let now = self.position(position.of.partition).map_or(0, |now| now.offset);
            self.committer.bridges.set(BridgePosition { offset: position.offset.max(now), ..position });
        }
        Ok(())
    }

    /// Says which messages the bridge can copy: those that have at most `largest` bytes as `measure` counts them. From now on
    /// until the attachment ends, a publish of a larger one is refused with
    /// [`PublishError::TooLargeForBridge`](crate::producer::PublishError::TooLargeForBridge). Messages that were published
    /// before, or gathered for a later publish, are not looked at.
    ///
    /// A message of at most `surely` bytes, as [`Record::size`] counts them, is accepted without a call of `measure`: choose it
    /// so that each message of that size fits. Larger ones take a lock and call `measure` on the thread that publishes, with
    /// [`Record::parts`] to look at. On topics of other events this changes nothing.
    ///
    /// ```
    /// use slipring::{Engine, Message, Record, journal::simulated::SimulatedDisk, producer::PublishError};
    ///
    /// let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
    /// let orders = engine.topic::<Message>("orders").durable().create()?;
    /// let bridge = orders.replicate("nats").attach()?;
    /// bridge.limit_messages(250, 100, |record| 100 + record.size());        // the copy has 100 bytes of its own
    /// let mut producer = orders.producer().create()?;
    /// producer.send(Record::new(&[0; 150]))?;
    /// let refused = producer.send(Record::new(&[0; 151])).unwrap_err();
    /// assert!(matches!(refused, PublishError::TooLargeForBridge { size: 251, limit: 250, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn limit_messages(
        &self,
        largest: usize,
        surely: usize,
        measure: impl Fn(&Record<'_>) -> usize + Send + Sync + 'static,
    ) {
        let limit = MessageLimit { largest, measure: Box::new(measure) };
        if let Some(messages) = self.messages.upgrade() {
            self.acks.limit_messages(self.attachment, limit, || messages.limit_above(surely));
        }
    }

    /// Tells the topic's [metrics](crate::metrics::TopicMetrics::replication) how the bridge is.
    pub fn report(&self, report: BridgeReport) {
        self.acks.report_bridge(self.attachment, report);
    }

    /// Ends the attachment for the reason `cause`, which waiting threads and tasks get. The topic and its journal go on.
    pub fn end(self, cause: &str) {
        self.acks.end_bridge(Some(self.attachment), cause);
    }

    /// Ends the attachment and removes the bridge's position from the journal, which then keeps no records for it. Waits
    /// until that is durable.
    ///
    /// # Errors
    /// The journal has ended.
    pub fn forget(self) -> Result<(), ReplicationError> {
        let mut frame = FrameBuilder::new();
        let positions = self.committer.bridges.take(self.number, &self.bridge);
        positions.iter().for_each(|position| position.delete(&mut frame));
        let refused = |cause| ReplicationError::Journal { topic: self.topic.to_string(), cause };
        self.committer.commit([frame]).map_err(refused)
    }
}

impl Drop for Replication {
    fn drop(&mut self) {
        // An end with a cause came first, if there was one.
        self.acks.end_bridge(Some(self.attachment), "the bridge was dropped");
    }
}

impl fmt::Debug for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replication of {:?} by {:?}", self.topic, self.bridge)
    }
}

impl fmt::Debug for ReplicationBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplicationBuilder of {:?} by {:?}", self.topic, self.bridge)
    }
}
