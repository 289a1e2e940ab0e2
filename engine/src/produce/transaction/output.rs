//! One output of a transaction: the events for one topic, their encoded form, and the claims of the commit.

use super::TransactionError;
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::log::committer::ClaimedRun;
use crate::log::receipt::BatchReceipt;
use crate::produce::Producer;
use crate::produce::append::{Appender, Route};
use crate::topic::TopicCore;
use crate::topic::error::PublishError;
use crate::topic::partition::Partition;
use crate::topic::promises::Promise;
use slipring_journal::{FrameBuilder, PartitionId};
use slipring_ring::{Claim, ClaimError};
use std::any::Any;
use std::sync::Arc;

/// The greatest numbers of bytes that a frame needs in addition to the encoded events: [`RUN`] once for each partition,
/// and [`RECORD`] for each event.
const RUN: usize = 48;
const RECORD: usize = 16;

/// The claims of a commit. If they are dropped before they are published, all slots are skipped.
#[derive(Default)]
pub(super) struct Claims<'t> {
    pub(super) frame: FrameBuilder,
    pub(super) held: Vec<Box<dyn ErasedClaim + 't>>,
    pub(super) parts: Vec<ClaimedRun>,
    pub(super) receipts: Vec<BatchReceipt>,
}

pub(super) trait ErasedClaim {
    /// Notes in the partition that the journal is given the claim's events, so that a shutdown does not cut the claim.
    /// An error if it was cut already: then the journal must not get them.
    fn promise(&mut self) -> Result<(), TransactionError>;
    /// Publishes the events, which the journal has.
    fn publish(self: Box<Self>) -> Result<(), TransactionError>;
}

struct TypedClaim<'t, E: Send + Sync + 'static, K: Producers> {
    claim: Claim<'t, E, K>,
    topic: &'t str,
    partition: &'t Partition<E, K>,
    /// `None` before the journal is given the events. Dropped after the claim.
    promise: Option<Promise<'t>>,
}

impl<E: Send + Sync + 'static, K: Producers> ErasedClaim for TypedClaim<'_, E, K> {
    fn promise(&mut self) -> Result<(), TransactionError> {
        self.promise = self.partition.promises.promise(self.claim.sequences());
        if self.promise.is_some() {
            return Ok(());
        }
        Err(PublishError::new(self.topic, self.partition.index, slipring_ring::Closed::Cut, 0, || None).into())
    }

    fn publish(self: Box<Self>) -> Result<(), TransactionError> {
        let Self { claim, topic, partition, promise } = *self;
        let Err(closed) = claim.commit() else { return Ok(()) };
        promise.into_iter().for_each(Promise::keep);
        // `closed` says only that the claim was cut. The ring's own reason says why the ring has ended.
        let reason = partition.ring.closed().unwrap_or(closed).into();
        Err(TransactionError::Late { topic: topic.to_owned(), partition: partition.index, reason })
    }
}

/// The events of a transaction for one topic, independent of their type.
pub(super) trait Output: Send {
    fn topic(&self) -> TopicId;
    fn as_any(&mut self) -> &mut dyn Any;
    fn clear(&mut self);
    /// Removes the last event of this partition. Returns the bytes that it took.
    fn take_back(&mut self, partition: usize) -> usize;
    /// True if no partition's events fill more than half of its ring, apart from the slots of retained events.
    fn is_ample(&self) -> bool;
    /// The error if this partition has more events than its ring can hold beside retained events; `None` if it has not.
    fn outgrown(&self, partition: usize) -> Option<PublishError>;
    /// True if a claim in each partition would probably find room.
    fn has_room(&self) -> bool;
    /// Claims a slot for each event and fills it, and adds the events to the frame. An error if a partition has no room
    /// or is closed, or an event does not decode.
    fn claim<'t>(&'t mut self, claims: &mut Claims<'t>) -> Result<(), TransactionError>;
}

pub(super) struct TypedOutput<E: Send + Sync + 'static, K: Producers> {
    pub(super) topic: Arc<TopicCore<E, K>>,
    pub(super) producer: Producer<E, K>,
    /// The event that is filled and then encoded into a buffer.
    pub(super) scratch: E,
    pub(super) parts: Vec<PartitionBuffer>,
}

/// The encoded events for one partition.
#[derive(Default)]
pub(super) struct PartitionBuffer {
    bytes: Vec<u8>,
    /// The end (exclusive) of each event in `bytes`.
    ends: Vec<usize>,
}

impl<E: Send + Sync + 'static, K: Producers> TypedOutput<E, K> {
    /// Fills and encodes an event. Returns its partition, and the count of bytes that it adds to the frame. If these
    /// are more than `room`, the event is not taken, and the inner error is that count.
    pub(super) fn take(
        &mut self,
        route: Route<'_>,
        fill: impl FnOnce(&mut E),
        room: usize,
    ) -> Result<Result<(usize, usize), usize>, TransactionError> {
        let to = self.producer.route(route, false)? as usize;
        if self.parts.len() <= to {
            self.parts.resize_with(to + 1, PartitionBuffer::default);
        }
        fill(&mut self.scratch);
        let Some(durable) = &self.topic.durable else { return Ok(Ok((to, 0))) };
        let PartitionBuffer { bytes, ends } = &mut self.parts[to];
        let before = ends.last().copied().unwrap_or(0);
        // An earlier call that panicked may have left bytes of its event.
        bytes.truncate(before);
        durable.persistence.write(&self.scratch, bytes);
        let added = bytes.len() - before + RECORD + if ends.is_empty() { RUN } else { 0 };
        if added > room {
            bytes.truncate(before);
            return Ok(Err(added));
        }
        ends.push(bytes.len());
        Ok(Ok((to, added)))
    }
}

impl<E: Send + Sync + 'static, K: Producers> Output for TypedOutput<E, K> {
    fn topic(&self) -> TopicId {
        self.topic.id
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn clear(&mut self) {
        for PartitionBuffer { bytes, ends } in &mut self.parts {
            bytes.clear();
            ends.clear();
        }
    }

    fn take_back(&mut self, partition: usize) -> usize {
        let Some(PartitionBuffer { bytes, ends }) = self.parts.get_mut(partition) else { return 0 };
        let end = ends.pop().unwrap_or(0);
        let before = ends.last().copied().unwrap_or(0);
        bytes.truncate(before);
        end - before + RECORD + if ends.is_empty() { RUN } else { 0 }
    }

    fn is_ample(&self) -> bool {
        let half = self.topic.settings.largest_batch() / 2;
        self.parts.iter().all(|buffer| buffer.ends.len() <= half)
    }

    fn outgrown(&self, partition: usize) -> Option<PublishError> {
        let (asked, largest) = (self.parts.get(partition)?.ends.len(), self.topic.settings.largest_batch());
        let topic = || self.topic.name.clone();
        (asked > largest).then(|| PublishError::BatchTooLarge { topic: topic(), asked, largest })
    }

    fn has_room(&self) -> bool {
        let partitions = self.topic.partitions();
        let mut parts = self.parts.iter().zip(partitions.iter()).filter(|(buffer, _)| !buffer.ends.is_empty());
        parts.all(|(buffer, partition)| {
            partition.ring.closed().is_some() || partition.ring.positions().free >= buffer.ends.len() as u64
        })
    }

    fn claim<'t>(&'t mut self, claims: &mut Claims<'t>) -> Result<(), TransactionError> {
        let Self { topic, producer, parts, .. } = self;
        let Some(durable) = &topic.durable else { return Ok(()) };
        let persistence = durable.persistence;
        for (appender, buffer) in producer.appenders().zip(parts) {
            let len = buffer.ends.len();
            let Some(Appender { ring, partition }) = appender.filter(|_| len > 0) else { continue };
            let index = partition.index;
            let refused = |refused: ClaimError| {
                let by =
                    || partition.ring.positions().stages.iter().max_by_key(|stage| stage.lag).map(|it| it.name.clone());
                TransactionError::Publish(PublishError::new(&topic.name, index, refused, 0, by))
            };
            let mut claim = ring.try_claim(len).map_err(refused)?;
            let now = partition.times.as_ref().map(|times| (times, topic.host.clock.wall()));
            let id: PartitionId = durable.id(index);
            let first = claim.sequences().first.0;
            let mut from = 0;
            for ((offset, event), end) in claim.iter_mut().zip(&buffer.ends) {
                let bytes = &buffer.bytes[from..*end];
                from = *end;
                if let Some((times, now)) = now {
                    times.set(offset.0, now);
                }
                let unreadable = |cause| TransactionError::Event { topic: topic.name.clone(), cause };
                persistence.read(event, bytes).map_err(unreadable)?;
                let at = persistence.time(event).or(now.map(|(_, now)| now)).map(|at| at.as_nanos());
                match persistence.size {
                    Some(_) => claims.frame.fixed(id, offset.0, at, bytes),
                    None => claims.frame.record(id, offset.0, at, bytes),
                }
            }
            claims.parts.push(ClaimedRun { id, first, end: first + len as u64 });
            claims.receipts.push(BatchReceipt { topic: topic.id, partition: index, first, len });
            claims.held.push(Box::new(TypedClaim { claim, topic: &topic.name, partition, promise: None }));
        }
        Ok(())
    }
}
