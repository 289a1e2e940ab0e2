//! Reading a partition of a durable topic from the journal while the ring no longer has the group's next events: after
//! a restart, after the group had no members, or after the group was slow and left the ring. [`CatchUp`] returns the
//! partition to the ring once the journal is read up to it. All partitions of a member that are read from the journal
//! share one scan.

use super::error::GroupError;
use crate::base::clock::Timestamp;
use crate::base::kind::Producers;
use crate::log::offsets::commit_right::CommitRight;
use crate::read::catch_up::{CatchUp, ReadTurn, Step};
use crate::read::replay::ReplayError;
use crate::topic::TopicCore;
use crate::topic::durable::DurableTopic;
use crate::topic::error::OutOfRange;
use crate::topic::partition::Partition;
use crate::topic::stage_name::join_stage;
use slipring_journal::{self as journal, SharedScan, Start as From, Visible};
use slipring_ring::{BuildError, Closed, Consumer, Ring, Start, Wait};
use std::ops::Range;
use std::sync::Arc;

pub(super) struct CatchUpReader<E, K: Producers> {
    topic: Arc<TopicCore<E, K>>,
    partition: Arc<Partition<E, K>>,
    group: String,
    wait: Wait,
    /// The offset at which the reading starts. Once the journal is open, `catch_up` has the next offset instead.
    next: u64,
    catch_up: Option<CatchUp<E, K>>,
    pub(super) buffered: BufferedEvents<E>,
    /// The offsets after the buffered events, if they were lost to damage. [`look`](Self::look) returns them until
    /// [`pass_gap`](Self::pass_gap) is called.
    gap: Option<Range<u64>>,
    /// Count of events that were skipped because they were older than the topic's time to live.
    pub(super) expired: u64,
}

/// Events that were read from the journal and are not committed, in slots of their own.
pub(super) struct BufferedEvents<E> {
    slots: Vec<E>,
    /// The offset of the event in each slot in use.
    offsets: Vec<u64>,
    /// The index of the first slot whose event is not committed.
    from: usize,
}

impl<E> BufferedEvents<E> {
    pub(super) fn len(&self) -> usize {
        self.offsets.len() - self.from
    }

    /// The offset of the first uncommitted event; `None` if there are no events.
    pub(super) fn first(&self) -> Option<u64> {
        self.offsets.get(self.from).copied()
    }

    /// The offsets and the events of a batch of up to `limit` uncommitted events.
    pub(super) fn batch(&self, limit: usize) -> (&[u64], &[E]) {
        let to = self.from + limit.min(self.len());
        (&self.offsets[self.from..to], &self.slots[self.from..to])
    }

    /// Removes the events below offset `to`, which are committed. Returns their number.
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

/// What a member finds at its next offset while it reads a partition from the journal: `Events` in the buffer,
/// `Nothing` until a later call, or one of the others.
pub(super) enum CatchUpOutcome<E, K: Producers> {
    Events,
    Nothing,
    /// The events at these offsets were lost to damage.
    Gap(Range<u64>),
    /// All events before this consumer's offset were read, so the partition continues in the ring with this consumer.
    Caught(Consumer<E, K>),
    /// No more events come: the topic is closed and the partition was read to its end, or the topic was deleted.
    Over(Closed),
}

/// The greatest number of buffered events. `BYTES` is the greatest size of their slots, in bytes.
const SLOTS: usize = 1024;
const BYTES: usize = 1 << 20;

impl<E: Send + Sync + 'static, K: Producers> CatchUpReader<E, K> {
    /// Creates a reader that starts at offset `next`. The first [`look`](Self::look) fails if the journal does not have
    /// that offset.
    pub(super) fn new(
        topic: Arc<TopicCore<E, K>>,
        partition: Arc<Partition<E, K>>,
        group: &str,
        next: u64,
        wait: Wait,
    ) -> Self {
        let buffered = BufferedEvents { slots: Vec::new(), offsets: Vec::new(), from: 0 };
        let group = group.to_owned();
        Self { topic, partition, group, wait, next, catch_up: None, buffered, gap: None, expired: 0 }
    }

    pub(super) fn set_wait(&mut self, wait: Wait) {
        self.wait = wait;
    }

    /// Reads events for a batch of up to `limit` events into the buffer, unless it has some. Skips events older than
    /// `oldest` (`None`: none is too old). Returns what the member finds at its next offset.
    pub(super) fn look(
        &mut self,
        limit: usize,
        right: &CommitRight,
        oldest: Option<Timestamp>,
        scan: &mut Option<Box<SharedScan>>,
    ) -> Result<CatchUpOutcome<E, K>, GroupError> {
        if self.buffered.len() > 0 {
            return Ok(CatchUpOutcome::Events);
        }
        if let Some(gap) = &self.gap {
            return Ok(CatchUpOutcome::Gap(gap.clone()));
        }
        let topic = Arc::clone(&self.topic);
        let Some(durable) = &topic.durable else { return Ok(CatchUpOutcome::Over(Closed::Closed)) };
        if durable.is_forgotten() {
            return Ok(CatchUpOutcome::Over(self.partition.ring.closed().unwrap_or(Closed::Halted)));
        }
        self.make_slots(limit)?;
        if !self.open(scan)? {
            return Ok(CatchUpOutcome::Over(Closed::Closed));
        }
        let scan = scan.get_or_insert_with(|| Box::new(durable.journal().scan(Visible::Written)));
        loop {
            let Self { partition, group, catch_up: Some(catch_up), .. } = self else {
                return Ok(CatchUpOutcome::Nothing);
            };
            // Only published events may be read, and a transaction's events are written before they are published. So
            // the reading stops at the ring's published position.
            let turn = catch_up.begin(scan, Visible::Written, true, || join(&partition.ring, group, right));
            let at_end = self.fill(durable, scan, turn, oldest)?;
            if self.buffered.len() > 0 {
                scan.record_taken();
                return Ok(CatchUpOutcome::Events);
            }
            if let Some(gap) = &self.gap {
                return Ok(CatchUpOutcome::Gap(gap.clone()));
            }
            let Self { partition, group, catch_up: Some(catch_up), .. } = self else {
                return Ok(CatchUpOutcome::Nothing);
            };
            let waits = catch_up.cursor().waits();
            match catch_up.end(scan, turn, (false, at_end), 0, || join(&partition.ring, group, right)) {
                Step::More if !waits => {}
                Step::Caught(mut consumer) => {
                    consumer.set_wait(self.wait.clone());
                    self.catch_up = None;
                    scan.free_if_unused();
                    return Ok(CatchUpOutcome::Caught(consumer));
                }
                Step::Refused(BuildError::Closed(reason @ (Closed::Finished | Closed::Closed))) => {
                    // A closed ring cannot be joined once all its consumers, of which the committer is one, have read
                    // it to its end. So the remaining events come from the journal. The partition is over once these
                    // were read, or if the journal writes no more; until then, a later call reads again.
                    let over = turn.end >= partition.ring.published().0
                        || catch_up.is_over(Visible::Written)
                        || durable.acks.notifier.end_cause().is_some();
                    return Ok(if over { CatchUpOutcome::Over(reason) } else { CatchUpOutcome::Nothing });
                }
                Step::Refused(BuildError::Closed(reason)) => {
                    let (group, topic) = (group.clone(), self.topic.name.clone());
                    return Err(GroupError::Closed { group, topic, reason: reason.into() });
                }
                // Either another partition must read from the shared scan first, or the member was fenced, which its
                // next update reports.
                Step::More | Step::Nothing | Step::Refused(_) => return Ok(CatchUpOutcome::Nothing),
            }
        }
    }

    /// Opens the partition in the journal, and registers it with `scan`, which all partitions of the member share;
    /// creates the scan if it is `None`. Does nothing if the partition is open already. A member opens all newly
    /// assigned partitions before it reads one, so that one pass of the scan serves them all. Returns false if the
    /// topic is in memory or the journal does not have it, for example after its deletion.
    pub(super) fn open(&mut self, scan: &mut Option<Box<SharedScan>>) -> Result<bool, GroupError> {
        if self.catch_up.is_some() {
            return Ok(true);
        }
        let Some(durable) = &self.topic.durable else { return Ok(false) };
        let Some(progress) = durable.acks.progress(self.partition.index) else { return Ok(false) };
        let opened = CatchUp::open(durable, &self.partition, &progress, From::Offset(self.next));
        let mut opened = opened.map_err(|cause| self.failed(cause))?;
        let scan = scan.get_or_insert_with(|| Box::new(durable.journal().scan(Visible::Written)));
        opened.cursor().resume(scan);
        self.catch_up = Some(opened);
        Ok(true)
    }

    /// Reads the journal's records below offset `turn.before` into free slots. Returns true if the journal has no more
    /// such records now. Returns false if the slots are full, if lost offsets or an unreadable record come next, or if
    /// another partition must read from the shared scan first. An error if the first record to be read is unreadable.
    fn fill(
        &mut self,
        durable: &DurableTopic<E>,
        scan: &mut SharedScan,
        turn: ReadTurn,
        oldest: Option<Timestamp>,
    ) -> Result<bool, GroupError> {
        let Self { catch_up: Some(catch_up), buffered, gap, expired, .. } = self else { return Ok(true) };
        while buffered.offsets.len() < buffered.slots.len() {
            let cursor = catch_up.cursor();
            let record = match cursor.next(scan, turn.before) {
                Ok(Some(record)) => record,
                Ok(None) => return Ok(!cursor.waits()),
                Err(journal::ReplayError::Gap { offsets, .. }) => {
                    *gap = Some(offsets);
                    break;
                }
                // The buffered events come first. The cursor stays before the unreadable record, so a later call
                // returns the error.
                Err(_) if !buffered.offsets.is_empty() => break,
                Err(cause) => return Err(self.failed(cause)),
            };
            if oldest.is_some_and(|oldest| record.time < oldest.as_nanos()) {
                *expired += 1;
                continue;
            }
            let offset = record.offset;
            let slot = &mut buffered.slots[buffered.offsets.len()];
            if let Err(cause) = durable.read(self.partition.index, offset, slot, record.bytes) {
                // The record is never skipped: the events before it are returned first, and then each call returns this
                // error.
                catch_up.seek(offset);
                if !buffered.offsets.is_empty() {
                    break;
                }
                let (topic, partition) = (self.topic.name.clone(), self.partition.index);
                let cause = Box::new(ReplayError::Event { topic, partition, offset, cause });
                return Err(GroupError::Replay { group: self.group.clone(), cause });
            }
            buffered.offsets.push(offset);
        }
        Ok(false)
    }

    /// Removes the gap, so that the reading continues after it. The gap was reported to the group.
    pub(super) fn pass_gap(&mut self) {
        self.gap = None;
    }

    fn failed(&self, cause: journal::ReplayError) -> GroupError {
        let (group, topic, partition) = (self.group.clone(), self.topic.name.clone(), self.partition.index);
        match cause {
            journal::ReplayError::OutOfRange { asked, earliest, .. } => {
                let latest = self.partition.ring.published().0;
                GroupError::OutOfRange { group, refused: OutOfRange { topic, partition, asked, earliest, latest } }
            }
            cause => GroupError::Replay { group, cause: Box::new(ReplayError::Journal { topic, partition, cause }) },
        }
    }

    fn make_slots(&mut self, limit: usize) -> Result<(), GroupError> {
        let room = BYTES / (self.topic.slot_bytes() as usize).max(1);
        let count = limit.min(SLOTS).min(room).max(1);
        if self.buffered.slots.len() < count {
            let mut make = (self.topic.slots)(count).map_err(|cause| GroupError::Refused {
                group: self.group.clone(),
                topic: self.topic.name.clone(),
                cause: cause.to_string(),
            })?;
            self.buffered.slots = (0..count).map(|_| make()).collect();
        }
        Ok(())
    }
}

/// Joins the group's stage to the ring at the earliest offset that the ring has. Refused if the member was fenced.
fn join<E, K: Producers>(ring: &Ring<E, K>, group: &str, right: &CommitRight) -> Result<Consumer<E, K>, BuildError> {
    // A closed ring can be joined in this way too, to read its remaining events.
    let consumer = join_stage(group, Start::Earliest, |stage| ring.take_over("", stage))?;
    // A fencing thread reads the group's stages after it has fenced the member, and this thread checks if it is fenced
    // after it has joined. So at least one of them sees the other.
    if right.is_fenced() {
        return Err(BuildError::NameTaken { name: group.to_owned() });
    }
    Ok(consumer)
}
