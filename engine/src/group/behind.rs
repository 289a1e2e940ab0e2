//! A partition of a durable topic that a member reads from the journal, because the ring has not, or no longer, what
//! comes next: after a restart, after the group was away, or when it was too slow and left the ring.
//!
//! Catching up is as in [`crate::replay`]: the gate joins the ring when the backlog is under a quarter of it; all below
//! the gate is written, because the journaler's is one of the gates; so the journal is read up to the gate, and the ring
//! from exactly there.

use super::error::GroupError;
use super::lease::Lease;
use super::state::join_stage;
use crate::acks::Positions;
use crate::clock::Timestamp;
use crate::durable::Durable;
use crate::journal::{self, Reader, Start as From, Visible};
use crate::partition::Partition;
use crate::producer::Producers;
use crate::replay::ReplayError;
use crate::topic::Inner;
use slipring_ring::{BuildError, Closed, Consumer, Sequence, Start, Wait};
use std::ops::Range;
use std::sync::Arc;

pub(super) struct Behind<E, K: Producers> {
    topic: Arc<Inner<E, K>>,
    partition: Arc<Partition<E, K>>,
    group: String,
    wait: Wait,
    reader: Option<Reader>,
    /// Where the reader is opened.
    next: u64,
    /// The gate, on the way back to the ring.
    joined: Option<Consumer<E, K>>,
    pub(super) kept: Kept<E>,
    /// Offsets that were lost to damage, right behind what was kept. Told of until it is passed.
    gap: Option<Range<u64>>,
    /// Those that were too old.
    pub(super) expired: u64,
}

/// Events that were read and are not committed, in slots of their own.
pub(super) struct Kept<E> {
    slots: Vec<E>,
    /// Of the slots in use.
    offsets: Vec<u64>,
    /// The first that is not committed.
    from: usize,
}

impl<E> Kept<E> {
    pub(super) fn len(&self) -> usize {
        self.offsets.len() - self.from
    }

    /// The offset of the first one.
    pub(super) fn first(&self) -> Option<u64> {
        self.offsets.get(self.from).copied()
    }

    /// At most `limit`: offsets and events.
    pub(super) fn batch(&self, limit: usize) -> (&[u64], &[E]) {
        let to = self.from + limit.min(self.len());
        (&self.offsets[self.from..to], &self.slots[self.from..to])
    }

    /// All below `to` is committed. How many these were.
    pub(super) fn commit(&mut self, to: u64) -> usize {
        let before = self.from;
        while self.first().is_some_and(|first| first < to) {
            self.from += 1;
        }
        let committed = self.from - before;
        if self.from == self.offsets.len() {
            self.offsets.clear();
            self.from = 0;
        }
        committed
    }
}

/// What a look finds.
pub(super) enum Looked<E, K: Producers> {
    Events,
    Nothing,
    /// These were lost.
    Gap(Range<u64>),
    /// It is read to where this one stands.
    Caught(Consumer<E, K>),
    /// The topic was closed, and all is read.
    Over(Closed),
}

/// Slots for events: no more than so many, and than so many bytes.
const SLOTS: usize = 1024;
const BYTES: usize = 1 << 20;

impl<E: Send + Sync + 'static, K: Producers> Behind<E, K> {
    /// From `next` on. Whether the journal has that is found out by the first look.
    pub(super) fn new(
        topic: Arc<Inner<E, K>>,
        partition: Arc<Partition<E, K>>,
        group: &str,
        next: u64,
        wait: Wait,
    ) -> Self {
        let kept = Kept { slots: Vec::new(), offsets: Vec::new(), from: 0 };
        let group = group.to_owned();
        Self { topic, partition, group, wait, reader: None, next, joined: None, kept, gap: None, expired: 0 }
    }

    pub(super) fn set_wait(&mut self, wait: Wait) {
        self.wait = wait;
    }

    /// What is there for a batch of `limit` events; what is older than `oldest` is passed over.
    pub(super) fn look(
        &mut self,
        limit: usize,
        lease: &Lease,
        oldest: Option<Timestamp>,
    ) -> Result<Looked<E, K>, GroupError> {
        if self.kept.len() > 0 {
            return Ok(Looked::Events);
        }
        if let Some(gap) = &self.gap {
            return Ok(Looked::Gap(gap.clone()));
        }
        let topic = Arc::clone(&self.topic);
        let Some(durable) = &topic.durable else { return Ok(Looked::Over(Closed::Closed)) };
        let index = self.partition.index;
        let Some(positions) = durable.acks.positions(index) else { return Ok(Looked::Over(Closed::Closed)) };
        self.make_slots(limit)?;
        loop {
            let backlog = self.partition.ring.positions().published.0.saturating_sub(self.position());
            if self.joined.is_none() && backlog <= topic.settings.capacity as u64 / 4 {
                // Producers wait for a quarter at most. Refused when the ring has ended: the journal has all of it.
                let _ = self.join(lease);
            }
            let (at, at_end) = self.read(durable, &positions, oldest)?;
            if self.kept.len() > 0 {
                return Ok(Looked::Events);
            }
            if let Some(gap) = &self.gap {
                return Ok(Looked::Gap(gap.clone()));
            }
            match self.joined.take() {
                Some(mut consumer) if at >= consumer.first().0 || at_end => {
                    let to = at.max(consumer.first().0);
                    // It was in the way, and evicted: then there is more to read here.
                    if consumer.seek(Sequence(to)).is_ok() {
                        consumer.set_wait(self.wait.clone());
                        return Ok(Looked::Caught(consumer));
                    }
                    self.next = to;
                }
                Some(consumer) => self.joined = Some(consumer),
                // Offsets that were only reserved are no backlog.
                None => match self.join(lease) {
                    Ok(()) => {}
                    Err(BuildError::Closed(reason @ (Closed::Finished | Closed::Closed))) => {
                        // Everybody has read all, and so the journaler has.
                        let published = self.partition.ring.positions().published.0;
                        let over = positions.end(Visible::Written) >= published
                            || positions.is_over(Visible::Written)
                            || durable.acks.bell.over().is_some();
                        return Ok(if over { Looked::Over(reason) } else { Looked::Nothing });
                    }
                    Err(BuildError::Closed(reason)) => {
                        let (group, topic) = (self.group.clone(), self.topic.name.clone());
                        return Err(GroupError::Closed { group, topic, reason: reason.into() });
                    }
                    // Fenced: the next look of its member tells.
                    Err(_) => return Ok(Looked::Nothing),
                },
            }
        }
    }

    /// Reads what is there, up to the gate. Where it stands then, and whether nothing more is there.
    fn read(
        &mut self,
        durable: &Durable<E>,
        positions: &Positions,
        oldest: Option<Timestamp>,
    ) -> Result<(u64, bool), GroupError> {
        let Self { topic, partition, group, reader, next, joined, kept, gap, expired, .. } = self;
        let index = partition.index;
        // What a transaction wrote is there before it is published, and before it is durable: only what is published is
        // read. Looked at before the journal is: all below is found there.
        let published = partition.ring.positions().published.0;
        let bound = positions.end(Visible::Written).min(published);
        let failed = |cause: journal::ReplayError| match cause {
            journal::ReplayError::OutOfRange { asked, earliest, .. } => {
                let (group, topic) = (group.clone(), topic.name.clone());
                GroupError::OutOfRange { group, topic, partition: index, asked, earliest, latest: published }
            }
            cause => {
                let cause = Box::new(ReplayError::Journal { topic: topic.name.clone(), partition: index, cause });
                GroupError::Replay { group: group.clone(), cause }
            }
        };
        let open = match reader {
            Some(open) => open,
            None => {
                let opened = durable.journal().reader(durable.id(index), From::Offset(*next), Visible::Written);
                reader.insert(opened.map_err(failed)?)
            }
        };
        let gate = joined.as_ref().map(|consumer| consumer.first().0);
        while kept.offsets.len() < kept.slots.len() {
            let at = open.position();
            if gate.is_some_and(|gate| at >= gate) || at >= bound {
                return Ok((at, true));
            }
            let record = match open.next() {
                Ok(Some(record)) => record,
                Ok(None) => return Ok((at, true)),
                Err(journal::ReplayError::Gap { offsets, .. }) => {
                    *gap = Some(offsets);
                    return Ok((at, false));
                }
                Err(cause) => return Err(failed(cause)),
            };
            if record.offset >= bound {
                // It is to be read again when it may be.
                (*next, self.reader) = (at, None);
                return Ok((at, true));
            }
            if oldest.is_some_and(|oldest| record.time < oldest.as_nanos()) {
                *expired += 1;
                continue;
            }
            let offset = record.offset;
            let read = (durable.persistence.read)(&mut kept.slots[kept.offsets.len()], record.bytes);
            read.map_err(|cause| {
                let cause = Box::new(ReplayError::Event { topic: topic.name.clone(), partition: index, offset, cause });
                GroupError::Replay { group: group.clone(), cause }
            })?;
            kept.offsets.push(offset);
        }
        Ok((open.position(), false))
    }

    /// Its member was told of the gap.
    pub(super) fn pass_gap(&mut self) {
        self.gap = None;
    }

    fn position(&self) -> u64 {
        self.reader.as_ref().map_or(self.next, Reader::position)
    }

    /// Puts the gate into the ring, as low as possible.
    fn join(&mut self, lease: &Lease) -> Result<(), BuildError> {
        let ring = &self.partition.ring;
        // Also while the topic ends: what it still holds is to be read.
        let consumer = join_stage(&self.group, Start::Earliest, |stage| ring.take_over("", stage))?;
        // Whoever fences looks for stages of the group after the fence: one of the two sees the other.
        if lease.is_fenced() {
            return Err(BuildError::NameTaken { name: self.group.clone() });
        }
        self.joined = Some(consumer);
        Ok(())
    }

    fn make_slots(&mut self, limit: usize) -> Result<(), GroupError> {
        let room = BYTES / (self.topic.slot_bytes() as usize).max(1);
        let count = limit.min(SLOTS).min(room).max(1);
        if self.kept.slots.len() < count {
            let mut make = (self.topic.slots)(count).map_err(|cause| GroupError::Refused {
                group: self.group.clone(),
                topic: self.topic.name.clone(),
                cause: cause.to_string(),
            })?;
            self.kept.slots = (0..count).map(|_| make()).collect();
        }
        Ok(())
    }
}
