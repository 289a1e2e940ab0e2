//! Replays: reading a durable topic from any point of its past, then continuing with new events.

mod builder;
mod partition;
mod wake;

pub use builder::ReplayBuilder;
use partition::{ReplayMode, ReplayPartition};
pub(crate) use wake::ReplayWake;

use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::level::Level;
use crate::base::overload::ConsumerStats;
use crate::base::wakeup::{WakeFlag, WakeTarget as _, Wakeup};
use crate::event::codec::Unreadable;
use crate::log::committer::STAGE;
use crate::log::gap::{Gap, OnGap};
use crate::log::offset_waits::OffsetWait;
use crate::read::At;
use crate::read::catch_up::{CatchUp, Step};
use crate::text;
use crate::topic::TopicCore;
use crate::topic::durable::DurableTopic;
use crate::topic::partition::Partition;
use slipring_journal::{self as journal, Reader, SharedScan, Start as From, Visible};
use slipring_ring::{BuildError, Consumer, Multi, Stage};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

/// The error of opening a replay, or of reading from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The topic is not durable.
    #[error("topic {topic:?} has no journal: create it with `durable()`")]
    NotDurable {
        /// The topic's name.
        topic: String,
    },
    /// The journal does not have the requested events, or cannot read them.
    #[error("topic {topic:?}, partition {partition}: {cause}")]
    Journal {
        /// The topic's name.
        topic: String,
        /// The partition's number, from 0.
        partition: u32,
        /// The journal's error.
        cause: journal::ReplayError,
    },
    /// A record does not decode as an event.
    #[error("topic {topic:?}, partition {partition}, offset {offset}: {cause}")]
    Event {
        /// The topic's name.
        topic: String,
        /// The partition's number, from 0.
        partition: u32,
        /// The record's offset.
        offset: u64,
        /// The reason why the record does not decode.
        cause: Unreadable,
    },
    /// Events of a partition were lost to damage. Returned once, at the place of the lost events; the next read
    /// continues after them. See [`OnGap`] for other policies.
    #[error(transparent)]
    Gap(#[from] Gap),
    /// The name or the start of the replay was refused.
    #[error("topic {topic:?}: {}", text::line(.cause))]
    Refused {
        /// The topic's name.
        topic: String,
        /// Why, as text.
        cause: String,
    },
    /// The topic was halted or has failed.
    #[error("topic {topic:?}: {reason}")]
    Closed {
        /// The topic's name.
        topic: String,
        /// The reason.
        reason: Closed,
    },
}

/// Reads a durable topic: past events from the journal, new ones from the rings, each event once and in order.
///
/// An event is returned only when it is written, or durable, as [`visible`](ReplayBuilder::visible) says.
pub struct Replay<E, K: Producers = Multi> {
    /// Keeps the topic open. `None` if the topic itself owns this replay.
    topic: Option<Arc<TopicCore<E, K>>>,
    name: String,
    durable: Arc<DurableTopic<E>>,
    stats: Arc<ConsumerStats>,
    parts: Vec<ReplayPartition<E, K>>,
    /// The scan of the journal, shared by the partitions that are not read from their rings yet.
    scan: SharedScan,
    visible: Visible,
    on_gap: OnGap,
    /// The event into which each record is decoded.
    event: E,
    turn: usize,
    outside: Arc<ReplayWake>,
}

/// Greatest count of events that are read from one partition before the next one.
const TURN: usize = 1024;

impl<E, K: Producers> fmt::Debug for Replay<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replay {:?} of {:?}", self.stats.name, self.name)
    }
}

impl<E: Send + Sync + 'static, K: Producers> Replay<E, K> {
    /// Makes this a replay that the topic itself owns, and that does not keep the topic open.
    pub(crate) fn of_topic(mut self) -> Self {
        self.topic = None;
        self
    }

    /// Replaces the part that handles reach, so that handles of an earlier replay end the waits of this one.
    pub(crate) fn woken_by(mut self, outside: &Arc<ReplayWake>) -> Self {
        self.outside = Arc::clone(outside);
        self
    }

    /// Adds a new partition, which is read with `consumer`, at its first offset.
    pub(crate) fn add(&mut self, partition: &Arc<Partition<E, K>>, consumer: Consumer<E, K>) {
        let Some(progress) = self.durable.acks.progress(partition.index) else { return };
        let next = consumer.first().0;
        let (partition, mode) = (Arc::clone(partition), ReplayMode::Ring(consumer));
        self.parts.push(ReplayPartition { partition, progress, next, gap: None, seeks: None, mode });
    }

    /// Count of partitions.
    pub(crate) fn partitions(&self) -> usize {
        self.parts.len()
    }

    /// True if the partition has visible offsets that are not read.
    pub(crate) fn has_more(&self, index: usize) -> bool {
        self.parts[index].has_more(self.visible)
    }

    /// Registers `waker` to be woken when the partition has offsets that are visible and not read, or ends. False if it has
    /// some now. `wait` keeps the registration from one call to the next.
    pub(crate) fn watch(&self, index: usize, wait: &mut Option<OffsetWait>, waker: &Waker) -> bool {
        let part = &self.parts[index];
        let level = match self.visible {
            Visible::Written => Level::Written,
            Visible::Durable => Level::Durable,
        };
        let of = (&part.progress, part.position(), level);
        let has_more = || self.has_more(index).then_some(());
        self.durable.acks.notifier.watch_offset(wait, of, waker, has_more).is_none() && !self.has_more(index)
    }

    /// True if the partition has ended and all of it is read.
    pub(crate) fn is_over(&self, index: usize) -> bool {
        matches!(self.parts[index].mode, ReplayMode::Over)
    }

    /// True if the partition is closed, and not yet read to its end.
    pub(crate) fn is_ending(&self, index: usize) -> bool {
        self.parts[index].is_ending()
    }

    pub(crate) fn stats(&self) -> Arc<ConsumerStats> {
        Arc::clone(&self.stats)
    }

    /// The replay's name.
    pub(crate) fn name(&self) -> &str {
        &self.stats.name
    }

    /// The offset below which the partition's events are visible.
    pub(crate) fn visible_end(&self, index: usize) -> u64 {
        self.parts[index].progress.end(self.visible)
    }

    /// Calls `each` with the next events of a partition, at most `most` of them, until it returns false. The replay's
    /// position does not change.
    pub(crate) fn peek(&mut self, index: usize, most: usize, mut each: impl FnMut(u64, &E) -> bool) {
        let Self { durable, parts, visible, event, .. } = self;
        let part = &parts[index];
        let reader = durable.journal().reader(durable.id(part.partition.index), From::Offset(part.next), *visible);
        // Lost events are reported when they are read, not here.
        let Ok(mut reader) = reader.map(Reader::pass_gaps) else { return };
        for _ in 0..most {
            let Ok(Some(record)) = reader.next() else { return };
            let offset = record.offset;
            if durable.read(part.partition.index, offset, event, record.bytes).is_err() || !each(offset, event) {
                return;
            }
        }
    }

    /// Count of published events of the partition that are not read, in offsets.
    pub(crate) fn lag(&self, index: usize) -> u64 {
        let part = &self.parts[index];
        self.durable.unread(part.partition.index, part.next, part.partition.ring.published().0)
    }

    /// The offset after the last published event of the partition.
    pub(crate) fn published(&self, index: usize) -> u64 {
        self.parts[index].partition.ring.published().0
    }

    /// True if every partition has caught up, so that it is read from its ring.
    pub fn is_live(&self) -> bool {
        self.parts.iter().all(|part| matches!(part.mode, ReplayMode::Ring(_)))
    }

    /// The next offset of this partition that may be returned; the event returned next may have a higher one. `None` if
    /// the partition does not exist.
    pub fn position(&self, partition: u32) -> Option<u64> {
        Some(self.parts.get(partition as usize)?.next)
    }

    /// A handle by which another thread ends the present or the next wait of a [`read`](Self::read).
    pub fn wakeup(&self) -> Wakeup {
        Wakeup::new(&self.outside)
    }

    /// Calls `each` with the visible events, up to 1024 of each partition. If there are none, waits for events for at
    /// most `limit`. Returns their count, which is 0 if none came or a [`Wakeup`] ended the wait, or `None` once the
    /// topic was closed and all events were read.
    ///
    /// # Errors
    /// Retention has deleted the next events, the journal is damaged, a record does not decode, or the topic failed.
    /// Where events of a partition were lost to damage, [`ReplayError::Gap`] names their offsets, once, after all
    /// earlier events of that partition were returned; the next call continues after the gap. With another
    /// [policy](ReplayBuilder::on_gap) a gap is no error.
    pub fn read(&mut self, limit: Duration, each: impl FnMut(&E, At)) -> Result<Option<usize>, ReplayError> {
        self.read_part(limit, None, each)
    }

    /// As [`read`](Self::read). If `most` is set, reads at most that many events, all of one partition.
    pub(crate) fn read_part(
        &mut self,
        limit: Duration,
        most: Option<usize>,
        mut each: impl FnMut(&E, At),
    ) -> Result<Option<usize>, ReplayError> {
        let deadline = Instant::now().checked_add(limit);
        loop {
            if self.topic.as_ref().is_some_and(|topic| topic.count.load(Ordering::Acquire) > self.parts.len()) {
                self.take_added()?;
            }
            let mut read = 0;
            for _ in 0..self.parts.len() {
                self.turn = (self.turn + 1) % self.parts.len();
                if read > 0 && self.parts[self.turn].gap.is_some() {
                    // The events that were read already are returned before the gap is reported.
                    continue;
                }
                read += match self.part(self.turn, most.unwrap_or(TURN), &mut each) {
                    // The events that were read already are returned now; the next call returns the error.
                    Err(_) if read > 0 => break,
                    outcome => outcome?,
                };
                if most.is_some() && read > 0 {
                    break;
                }
            }
            if read > 0 {
                return Ok(Some(read));
            }
            if self.parts.iter().any(|part| part.gap.is_some()) {
                continue;
            }
            if self.parts.iter().all(|part| matches!(part.mode, ReplayMode::Over)) {
                self.stats.set_attended(false);
                return Ok(None);
            }
            let (parts, visible, notifier) = (&self.parts, self.visible, &self.durable.acks.notifier);
            // A call that does not wait uses up no wake-up.
            let flag = Some(self.outside.flag()).filter(|_| !limit.is_zero());
            let count = self.topic.as_ref().map(|topic| &topic.count);
            let moved = || {
                let any = count.is_some_and(|count| count.load(Ordering::Acquire) > parts.len());
                let over = notifier.end_cause().is_some();
                let any = any || flag.is_some_and(WakeFlag::is_set);
                let any = any || parts.iter().any(|part| part.has_more(visible) || part.can_end(visible, over));
                any.then_some(())
            };
            // Some ends cause no notification, so they are checked for every 50 ms.
            let nap = Instant::now() + Duration::from_millis(50);
            let until = deadline.map_or(nap, |deadline| deadline.min(nap));
            let has_moved = notifier.wait(Some(until), moved).is_some();
            if let Some(cause) = notifier.forked_cause() {
                // A forked process has what was recorded at the fork, and nobody who would write more.
                let reason = Closed::Failed { consumer: STAGE.to_owned(), cause };
                return Err(ReplayError::Closed { topic: self.name.clone(), reason });
            }
            if !has_moved && notifier.is_own_thread() {
                // This is the thread that writes the journal, which would wait for itself.
                return Ok(Some(0));
            }
            if flag.is_some_and(WakeFlag::take) || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(Some(0));
            }
        }
    }

    /// Begins to read partitions that were added, at their first offset.
    #[cold]
    fn take_added(&mut self) -> Result<(), ReplayError> {
        let Self { topic: Some(topic), durable, parts, .. } = self else { return Ok(()) };
        for partition in topic.partitions().iter().skip(parts.len()) {
            parts.push(ReplayPartition::open(topic, durable, partition, From::Earliest)?);
        }
        Ok(())
    }

    /// Continues reading from the journal at `offset`, or at the present position if that is higher. Returns the count
    /// of skipped offsets.
    pub(crate) fn pass_over_to(&mut self, index: usize, offset: u64) -> Result<u64, ReplayError> {
        let next = self.parts[index].next;
        self.continue_at(index, offset.max(next))?;
        Ok(offset.saturating_sub(next))
    }

    /// Continues reading from the journal at `offset`, which may be below the present position.
    pub(crate) fn continue_at(&mut self, index: usize, offset: u64) -> Result<(), ReplayError> {
        let Self { name, durable, parts, .. } = self;
        let part = &mut parts[index];
        let opened = CatchUp::open(durable, &part.partition, &part.progress, From::Offset(offset));
        let (topic, partition) = (name.clone(), part.partition.index);
        let catch_up = opened.map_err(|cause| ReplayError::Journal { topic, partition, cause })?;
        (part.next, part.gap, part.seeks) = (offset, None, None);
        part.mode = ReplayMode::Journal(catch_up);
        Ok(())
    }

    /// Calls `each` with the visible events of one partition, at most `most`, and returns their count. Never waits.
    pub(crate) fn part(
        &mut self,
        index: usize,
        most: usize,
        each: &mut impl FnMut(&E, At),
    ) -> Result<usize, ReplayError> {
        let Self { name, durable, stats, parts, scan, visible, on_gap, event, .. } = self;
        let part = &mut parts[index];
        let number = part.partition.index;
        if let Some(offsets) = part.gap.take() {
            on_gap.meet(Gap::new(name.as_str(), number, offsets), stats)?;
        }
        let from_journal = |cause| ReplayError::Journal { topic: name.clone(), partition: number, cause };
        let mut read = 0;
        // Read before the visible end: if the journal has ended by now, that end does not change any more.
        let is_over = durable.acks.notifier.end_cause().is_some() || part.progress.is_over(*visible);
        let mut turned = None;
        match &mut part.mode {
            ReplayMode::Over => {}
            ReplayMode::Journal(_) if durable.is_forgotten() => {
                let reason = part.partition.ring.closed().unwrap_or(slipring_ring::Closed::Halted).into();
                return Err(ReplayError::Closed { topic: name.clone(), reason });
            }
            ReplayMode::Journal(catch_up) => {
                if catch_up.position() > part.next {
                    // A panic of `each` has left records read but not passed on; they are read again.
                    catch_up.seek(part.next);
                }
                let ring = &part.partition.ring;
                // A search by time stays in the journal, because the ring cannot search by time.
                let join = |seeks: bool| match seeks {
                    true => Err(BuildError::NameTaken { name: stats.name.clone() }),
                    false => ring.join(Stage::new(stats.name.clone())),
                };
                let seeks = part.seeks.is_some();
                let turn = catch_up.begin(scan, *visible, false, || join(seeks));
                let mut at_end = false;
                let present_from = durable.older.present_from(number);
                while read < most {
                    let is_present = part.next.min(catch_up.position()) >= present_from;
                    let cursor = catch_up.cursor();
                    if let Some(plain) = durable.persistence.plain.filter(|_| is_present)
                        && let Some((first, bytes)) =
                            cursor.next_of_size(scan, size_of::<E>(), most - read, turn.before).map_err(from_journal)?
                    {
                        let mut offset = first;
                        let mut give = |event: &E| {
                            part.next = offset + 1;
                            each(event, At::new(number, offset, false));
                            (offset, read) = (offset + 1, read + 1);
                        };
                        if let Some(events) = (plain.view)(bytes) {
                            events.iter().for_each(give);
                            continue;
                        }
                        for bytes in bytes.chunks_exact(size_of::<E>()) {
                            // The size is right, and plain data of the right size always decodes.
                            let _ = durable.persistence.read(event, bytes);
                            give(event);
                        }
                        continue;
                    }
                    let record = match cursor.next(scan, turn.before) {
                        Ok(Some(record)) => record,
                        Ok(None) => {
                            at_end = !cursor.waits();
                            break;
                        }
                        Err(journal::ReplayError::Gap { offsets, .. }) => {
                            // The next call begins by reporting the gap.
                            part.next = offsets.end;
                            part.gap = Some(offsets);
                            break;
                        }
                        // The events that were read already are returned first. The cursor stays before the unreadable
                        // record.
                        Err(_) if read > 0 => break,
                        Err(cause) => return Err(from_journal(cause)),
                    };
                    let offset = record.offset;
                    if let Err(cause) = durable.read(number, offset, event, record.bytes) {
                        // The next call begins at this record, and fails with this error.
                        catch_up.seek(offset);
                        if read > 0 {
                            break;
                        }
                        return Err(ReplayError::Event { topic: name.clone(), partition: number, offset, cause });
                    }
                    part.next = offset + 1;
                    each(event, At::new(number, offset, false));
                    read += 1;
                }
                if read > 0 || (at_end && part.seeks.is_some_and(|until| turn.visible >= until)) {
                    part.seeks = None;
                }
                if at_end {
                    // Visible offsets that were not returned have no record.
                    part.next = part.next.max(turn.visible.min(turn.before));
                }
                let seeks = part.seeks.is_some();
                match catch_up.end(scan, turn, (read > 0, at_end), part.next, || join(seeks)) {
                    Step::Caught(consumer) => {
                        part.next = part.next.max(consumer.consumed().0);
                        turned = Some(ReplayMode::Ring(consumer));
                    }
                    Step::Nothing | Step::Refused(_) => turned = is_over.then_some(ReplayMode::Over),
                    Step::More => part.next = part.next.max(catch_up.position()),
                }
            }
            ReplayMode::Ring(consumer) => {
                let ends = part.progress.end(*visible).saturating_sub(consumer.consumed().0);
                let room = usize::try_from(ends).unwrap_or(usize::MAX).min(most);
                match consumer.poll(room.max(1)) {
                    Ok(mut batch) if room > 0 => {
                        let _held = stats.hold();
                        for (offset, event) in &mut batch {
                            part.next = offset.0 + 1;
                            each(event, At::new(number, offset.0, false));
                            read += 1;
                        }
                    }
                    // Events that were published but never written are not visible to any replay.
                    Ok(_) if is_over => turned = Some(ReplayMode::Over),
                    Ok(_) => {}
                    Err(slipring_ring::Closed::Finished | slipring_ring::Closed::Closed) if is_over && ends == 0 => {
                        turned = Some(ReplayMode::Over);
                    }
                    Err(
                        slipring_ring::Closed::Finished
                        | slipring_ring::Closed::Closed
                        | slipring_ring::Closed::Evicted { .. },
                    ) => {
                        // The consumer was evicted because it made producers wait; or the ring has ended, while the
                        // journal may still write a transaction that came too late to be published. The journal has all
                        // events that are not read yet.
                        let opened = CatchUp::open(durable, &part.partition, &part.progress, From::Offset(part.next));
                        turned = Some(ReplayMode::Journal(opened.map_err(from_journal)?));
                        stats.evicted.store(false, Ordering::Relaxed);
                    }
                    Err(reason) => {
                        return Err(ReplayError::Closed { topic: name.clone(), reason: reason.into() });
                    }
                }
            }
        }
        if let Some(mode) = turned {
            part.mode = mode;
            scan.free_if_unused();
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
