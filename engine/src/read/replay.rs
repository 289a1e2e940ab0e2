//! Reading a durable topic from any point of its past, and on with what is published.

use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::overload::{ConsumerStats, Slow};
use crate::event::codec::Unreadable;
use crate::log::gap::{Gap, OnGap};
use crate::log::progress::Progress;
use crate::read::catch_up::{CatchUp, Step};
use crate::read::{At, StartAt};
use crate::text;
use crate::topic::durable::DurableTopic;
use crate::topic::error::{SubscribeError, check_name};
use crate::topic::partition::Partition;
use crate::topic::{Topic, TopicCore};
use slipring_journal::{self as journal, Reader, SharedScan, Start as From, Visible};
use slipring_ring::{BuildError, Consumer, Multi, Stage};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A replay cannot begin, or go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The topic has no journal.
    #[error("topic {topic:?} has no journal: create it with `durable()`")]
    NotDurable {
        /// The topic.
        topic: String,
    },
    /// The journal has not what was asked for, or cannot give it.
    #[error("topic {topic:?}, partition {partition}: {cause}")]
    Journal {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Why.
        cause: journal::ReplayError,
    },
    /// A record is no event.
    #[error("topic {topic:?}, partition {partition}, offset {offset}: {cause}")]
    Event {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Its offset.
        offset: u64,
        /// What is wrong with it.
        cause: Unreadable,
    },
    /// Events of a partition were lost to damage: told where they would have come, once. The next read goes on behind them.
    /// See [`OnGap`] for other ways.
    #[error(transparent)]
    Gap(#[from] Gap),
    /// The name or the start was refused.
    #[error("topic {topic:?}: {}", text::line(.cause))]
    Refused {
        /// The topic.
        topic: String,
        /// Why.
        cause: String,
    },
    /// The topic was halted, or failed.
    #[error("topic {topic:?}: {reason}")]
    Closed {
        /// The topic.
        topic: String,
        /// Why.
        reason: Closed,
    },
}

/// Settings of a [`Replay`].
pub struct ReplayBuilder<E, K: Producers = Multi> {
    topic: Arc<TopicCore<E, K>>,
    name: String,
    start: StartAt,
    visible: Visible,
    spill: bool,
    on_gap: OnGap,
}

impl<E: Send + Sync + 'static, K: Producers> Topic<E, K> {
    /// A reader of a [durable](crate::TopicBuilder::durable) topic that begins in the journal, however far back, and goes on with
    /// what is published. Its settings, then [`open`](ReplayBuilder::open).
    pub fn replay(&self, name: impl Into<String>) -> ReplayBuilder<E, K> {
        ReplayBuilder::new(Arc::clone(&self.inner), name.into())
    }
}

impl<E: Send + Sync + 'static, K: Producers> ReplayBuilder<E, K> {
    pub(crate) fn new(topic: Arc<TopicCore<E, K>>, name: String) -> Self {
        Self { topic, name, start: StartAt::Earliest, visible: Visible::Durable, spill: true, on_gap: OnGap::Fail }
    }

    /// Where it begins: with the earliest record that the journal keeps, unless told. An offset may be up to the next one
    /// to be published. A time counts among what was published before it is opened; all that comes later is given.
    pub fn start(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// Whether it may see what a power cut can take back: durable records only, unless told.
    pub fn visible(mut self, visible: Visible) -> Self {
        self.visible = visible;
        self
    }

    /// Whether it leaves the ring and goes on from the journal when producers would have to wait for it: yes, unless told.
    pub fn spill(mut self, yes: bool) -> Self {
        self.spill = yes;
        self
    }

    /// What it does where events were lost to damage: an error at that offset, unless told.
    ///
    /// ```
    /// # use slipring::{Engine, journal::simulated::SimulatedDisk, replay::OnGap};
    /// # let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
    /// # let ticks = engine.topic::<u64>("ticks").durable().create()?;
    /// let replay = ticks.replay("tape").on_gap(OnGap::call(|gap| eprintln!("{gap}"))).open()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_gap(mut self, policy: OnGap) -> Self {
        self.on_gap = policy;
        self
    }

    /// Opens it. Partitions that are added later are read from their first offset.
    ///
    /// # Errors
    /// The topic has no journal, the name is no name, or the start is out of the range that the journal keeps.
    pub fn open(self) -> Result<Replay<E, K>, ReplayError> {
        let Self { topic, name, start, visible, spill, on_gap } = self;
        let topic_name = || topic.name.clone();
        let Some(durable) = &topic.durable else { return Err(ReplayError::NotDurable { topic: topic_name() }) };
        let durable = Arc::clone(durable);
        let refused = |cause: String| ReplayError::Refused { topic: topic.name.clone(), cause };
        check_name(&name).map_err(|cause| refused(SubscribeError::Name(cause).to_string()))?;
        let mut parts = Vec::new();
        for partition in topic.partitions().iter() {
            let published = partition.ring.positions().published.0;
            if let Some(asked) = start.offset(partition.index).filter(|asked| *asked > published) {
                // Offsets that are only reserved are the journal's own business.
                let earliest = durable.journal().extent(durable.id(partition.index)).map_or(0, |extent| extent.start);
                let cause = journal::ReplayError::OutOfRange { asked, earliest, latest: published };
                return Err(ReplayError::Journal { topic: topic_name(), partition: partition.index, cause });
            }
            let from = match &start {
                StartAt::Earliest => From::Earliest,
                // What is not written yet is passed over, too.
                StartAt::Latest => From::Offset(published),
                StartAt::Offset(offset) => From::Offset(*offset),
                StartAt::Offsets(offsets) => {
                    offsets.get(partition.index as usize).map_or(From::Earliest, |offset| From::Offset(*offset))
                }
                StartAt::Timestamp(time) => From::Time(time.as_nanos()),
                StartAt::Committed => return Err(refused("only groups have committed offsets".to_owned())),
            };
            parts.push(ReplayPartition::open(&topic, &durable, partition, from)?);
        }
        let mut make = (topic.slots)(1).map_err(|cause| refused(cause.to_string()))?;
        let event = make();
        drop(make);
        let slow = if spill { Slow::EVICT } else { Slow::Gate };
        let stats = Arc::new(ConsumerStats::new(&name, slow));
        topic.register(&stats);
        let (name, mut scan) = (topic.name.clone(), durable.journal().scan(visible));
        parts.iter_mut().for_each(|part| part.expect(&mut scan));
        Ok(Replay { topic: Some(topic), name, durable, stats, parts, scan, visible, on_gap, event, turn: 0 })
    }
}

/// Reads a durable topic: its past from the journal, its present from the rings, each event once and in order.
///
/// It waits on the journal, so an event is seen when it is written, or durable, as
/// [`visible`](ReplayBuilder::visible) says.
pub struct Replay<E, K: Producers = Multi> {
    /// What it reads is kept open, unless it is the topic's own.
    topic: Option<Arc<TopicCore<E, K>>>,
    name: String,
    durable: Arc<DurableTopic<E>>,
    stats: Arc<ConsumerStats>,
    parts: Vec<ReplayPartition<E, K>>,
    /// What those read through that are not in the ring yet.
    scan: SharedScan,
    visible: Visible,
    on_gap: OnGap,
    /// What records are read into.
    event: E,
    turn: usize,
}

struct ReplayPartition<E, K: Producers> {
    partition: Arc<Partition<E, K>>,
    progress: Arc<Progress>,
    next: u64,
    /// It stands before `next`, and is to be told of.
    gap: Option<Range<u64>>,
    /// It looks for the first event of a time among those below this offset, which were published when it was opened: in the
    /// journal, which knows their times, also where the ring still has them.
    seeks: Option<u64>,
    mode: ReplayMode<E, K>,
}

#[expect(clippy::large_enum_variant, reason = "one for each partition that is read")]
enum ReplayMode<E, K: Producers> {
    Journal(CatchUp<E, K>),
    Ring(Consumer<E, K>),
    Over,
}

/// Events of one partition before another one has its turn.
const TURN: usize = 1024;

impl<E, K: Producers> fmt::Debug for Replay<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replay {:?} of {:?}", self.stats.name, self.name)
    }
}

impl<E: Send + Sync + 'static, K: Producers> Replay<E, K> {
    /// For the topic itself, which would else keep itself open.
    pub(crate) fn of_topic(mut self) -> Self {
        self.topic = None;
        self
    }

    /// A partition that was just made: its gate stands at the beginning.
    pub(crate) fn add(&mut self, partition: &Arc<Partition<E, K>>, consumer: Consumer<E, K>) {
        let Some(progress) = self.durable.acks.progress(partition.index) else { return };
        let next = consumer.first().0;
        let (partition, mode) = (Arc::clone(partition), ReplayMode::Ring(consumer));
        self.parts.push(ReplayPartition { partition, progress, next, gap: None, seeks: None, mode });
    }

    /// How many partitions it reads.
    pub(crate) fn partitions(&self) -> usize {
        self.parts.len()
    }

    /// Whether there are offsets that were not read.
    pub(crate) fn has_more(&self, index: usize) -> bool {
        self.parts[index].has_more(self.visible)
    }

    /// Whether the partition has ended and all of it was read.
    pub(crate) fn is_over(&self, index: usize) -> bool {
        matches!(self.parts[index].mode, ReplayMode::Over)
    }

    /// Whether the partition is closed, and not yet read to its end.
    pub(crate) fn is_ending(&self, index: usize) -> bool {
        self.parts[index].is_ending()
    }

    /// Who reads.
    pub(crate) fn name(&self) -> &str {
        &self.stats.name
    }

    /// Up to where events of a partition can be seen.
    pub(crate) fn visible_end(&self, index: usize) -> u64 {
        self.parts[index].progress.end(self.visible)
    }

    /// Shows the next events of a partition without reading them, as long as `each` wants more.
    pub(crate) fn peek(&mut self, index: usize, most: usize, mut each: impl FnMut(u64, &E) -> bool) {
        let Self { durable, parts, visible, event, .. } = self;
        let part = &parts[index];
        let reader = durable.journal().reader(durable.id(part.partition.index), From::Offset(part.next), *visible);
        // What is lost is told of when it is read.
        let Ok(mut reader) = reader.map(Reader::pass_gaps) else { return };
        for _ in 0..most {
            let Ok(Some(record)) = reader.next() else { return };
            let offset = record.offset;
            if (durable.persistence.read)(event, record.bytes).is_err() || !each(offset, event) {
                return;
            }
        }
    }

    /// How many published events it has not read.
    pub(crate) fn lag(&self, index: usize) -> u64 {
        let part = &self.parts[index];
        self.durable.unread(part.partition.index, part.next, part.partition.ring.published().0)
    }

    /// The offset after what was published last.
    pub(crate) fn published(&self, index: usize) -> u64 {
        self.parts[index].partition.ring.published().0
    }

    /// Whether every partition is read from its ring by now.
    pub fn is_live(&self) -> bool {
        self.parts.iter().all(|part| matches!(part.mode, ReplayMode::Ring(_)))
    }

    /// The next offset of a partition that it will give, or one before that if there is none of that number.
    pub fn position(&self, partition: u32) -> Option<u64> {
        Some(self.parts.get(partition as usize)?.next)
    }

    /// Hands what is there to `each`, at most some thousands of events; waits no longer than `limit` if there is nothing.
    /// Returns how many it were; none once the topic was closed and all was read.
    ///
    /// # Errors
    /// Retention has overtaken it, the journal is damaged, a record is no event, or the topic failed. Where events of a
    /// partition were lost to damage, [`ReplayError::Gap`] names them, once, after all that stands before them in that
    /// partition was handed over; the next call goes on behind them. With another [policy](ReplayBuilder::on_gap) it is no error.
    pub fn read(&mut self, limit: Duration, each: impl FnMut(&E, At)) -> Result<Option<usize>, ReplayError> {
        self.read_part(limit, None, each)
    }

    /// The same, and at most so many events, all of one partition, if there is a bound.
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
                    // What was handed over is counted before a gap is told of.
                    continue;
                }
                read += self.part(self.turn, most.unwrap_or(TURN), &mut each)?;
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
                return Ok(None);
            }
            let (parts, visible, notifier) = (&self.parts, self.visible, &self.durable.acks.notifier);
            let count = self.topic.as_ref().map(|topic| &topic.count);
            let moved = || {
                let any = count.is_some_and(|count| count.load(Ordering::Acquire) > parts.len());
                let over = notifier.end_cause().is_some();
                let any = any || parts.iter().any(|part| part.has_more(visible) || part.can_end(visible, over));
                any.then_some(())
            };
            // What ended without a sound is looked at now and then.
            let nap = Instant::now() + Duration::from_millis(50);
            let until = deadline.map_or(nap, |deadline| deadline.min(nap));
            if notifier.wait(Some(until), moved).is_none() && notifier.is_own_thread() {
                // The thread that would move it asks.
                return Ok(Some(0));
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(Some(0));
            }
        }
    }

    /// Partitions that were added are read from their beginning.
    #[cold]
    fn take_added(&mut self) -> Result<(), ReplayError> {
        let Self { topic: Some(topic), durable, parts, .. } = self else { return Ok(()) };
        for partition in topic.partitions().iter().skip(parts.len()) {
            parts.push(ReplayPartition::open(topic, durable, partition, From::Earliest)?);
        }
        Ok(())
    }

    /// Goes on with what the journal has of a partition from `offset` on. How many offsets that passes over.
    pub(crate) fn pass_over_to(&mut self, index: usize, offset: u64) -> Result<u64, ReplayError> {
        let Self { name, durable, parts, .. } = self;
        let part = &mut parts[index];
        let opened = CatchUp::open(durable, &part.partition, &part.progress, From::Offset(offset));
        let (topic, partition) = (name.clone(), part.partition.index);
        let catch_up = opened.map_err(|cause| ReplayError::Journal { topic, partition, cause })?;
        let passed = offset.saturating_sub(part.next);
        part.next = part.next.max(offset);
        (part.gap, part.seeks) = (None, None);
        part.mode = ReplayMode::Journal(catch_up);
        Ok(passed)
    }

    /// Hands what there is of one partition to `each`, at most so many events. Never waits.
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
        // Looked at before what is visible: all that ever will be is visible by then.
        let is_over = durable.acks.notifier.end_cause().is_some() || part.progress.is_over(*visible);
        let mut turned = None;
        match &mut part.mode {
            ReplayMode::Over => {}
            ReplayMode::Journal(catch_up) => {
                if catch_up.position() > part.next {
                    // A panic of `each` has kept the rest of some events from it.
                    catch_up.seek(part.next);
                }
                let ring = &part.partition.ring;
                // While it looks for a time it stays out of the ring, which knows none.
                let join = |seeks: bool| match seeks {
                    true => Err(BuildError::NameTaken { name: stats.name.clone() }),
                    false => ring.join(Stage::new(stats.name.clone())),
                };
                let seeks = part.seeks.is_some();
                let turn = catch_up.begin(scan, *visible, false, || join(seeks));
                let mut at_end = false;
                while read < most {
                    let cursor = catch_up.cursor();
                    if let Some(plain) = durable.persistence.plain
                        && let Some((first, bytes)) =
                            cursor.alike(scan, size_of::<E>(), most - read, turn.before).map_err(from_journal)?
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
                            // They have the size, and that is all that plain data can lack.
                            let _ = (durable.persistence.read)(event, bytes);
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
                            // The next call begins with it.
                            part.next = offsets.end;
                            part.gap = Some(offsets);
                            break;
                        }
                        Err(cause) => return Err(from_journal(cause)),
                    };
                    let offset = record.offset;
                    (durable.persistence.read)(event, record.bytes).map_err(|cause| ReplayError::Event {
                        topic: name.clone(),
                        partition: number,
                        offset,
                        cause,
                    })?;
                    part.next = offset + 1;
                    each(event, At::new(number, offset, false));
                    read += 1;
                }
                if read > 0 || (at_end && part.seeks.is_some_and(|until| turn.visible >= until)) {
                    part.seeks = None;
                }
                if at_end {
                    // What is visible and was not given is offsets without a record.
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
                        for (offset, event) in &mut batch {
                            part.next = offset.0 + 1;
                            each(event, At::new(number, offset.0, false));
                            read += 1;
                        }
                    }
                    // What is published and was never written is nobody's to see.
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
                        // It was in the way; or the ring has ended, and the journal may still write what a transaction was
                        // too late to publish. The journal has what this one has not read.
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
            scan.rest();
        }
        Ok(read)
    }
}

impl<E: Send + Sync + 'static, K: Producers> ReplayPartition<E, K> {
    fn open(
        topic: &TopicCore<E, K>,
        durable: &DurableTopic<E>,
        partition: &Arc<Partition<E, K>>,
        from: From,
    ) -> Result<Self, ReplayError> {
        let gone = || ReplayError::Refused { topic: topic.name.clone(), cause: "it is gone".to_owned() };
        let progress = durable.acks.progress(partition.index).ok_or_else(gone)?;
        let opened = CatchUp::open(durable, partition, &progress, from);
        let from_journal =
            |cause| ReplayError::Journal { topic: topic.name.clone(), partition: partition.index, cause };
        let mut catch_up = opened.map_err(from_journal)?;
        let next = catch_up.position();
        // What comes from now on is given whatever its time.
        let seeks = matches!(from, From::Time(_)).then(|| partition.ring.published().0);
        catch_up.cursor().set_until(seeks.unwrap_or(u64::MAX));
        let (partition, mode) = (Arc::clone(partition), ReplayMode::Journal(catch_up));
        Ok(Self { partition, progress, next, gap: None, seeks, mode })
    }

    /// Has others wait for it where the journal is read together.
    fn expect(&mut self, scan: &mut SharedScan) {
        if let ReplayMode::Journal(catch_up) = &mut self.mode {
            catch_up.cursor().begin(scan);
        }
    }

    fn has_more(&self, visible: Visible) -> bool {
        let position = match &self.mode {
            ReplayMode::Journal(catch_up) => catch_up.position().max(self.next),
            // A transaction's events are durable before they are published: they are not there yet.
            ReplayMode::Ring(consumer) if consumer.lag() == 0 => return self.gap.is_some(),
            ReplayMode::Ring(consumer) => consumer.consumed().0,
            ReplayMode::Over => return self.gap.is_some(),
        };
        self.gap.is_some() || self.progress.end(visible) > position
    }

    /// Whether a look brings it to its end. `over`: nothing more is written, whatever the topic.
    fn can_end(&self, visible: Visible, over: bool) -> bool {
        !matches!(self.mode, ReplayMode::Over) && (over || self.progress.is_over(visible))
    }

    fn is_ending(&self) -> bool {
        !matches!(self.mode, ReplayMode::Over) && self.partition.ring.closed().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Engine;
    use slipring_journal::Options;
    use slipring_journal::simulated::SimulatedDisk;

    /// What a replay gives of 200 events, one a look, and of 50 that come when it is live.
    fn over_the_seam(past: bool) -> Vec<(u64, u64)> {
        let mut options = Options { segment_size: 1 << 18, ..Options::default() };
        options.sabotage.join_at_a_past_slot = past;
        let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build().unwrap();
        let ticks = engine.topic::<u64>("ticks").capacity(64).durable().create().unwrap();
        let mut producer = ticks.producer().acknowledge(crate::Level::Durable).create().unwrap();
        producer.publish_batch(40, |index, tick| *tick = index as u64).unwrap();
        for number in 40..200 {
            producer.publish(|tick| *tick = number).unwrap();
        }
        let mut replay = ticks.replay("tape").open().unwrap();
        let mut seen = Vec::new();
        let until = Instant::now() + Duration::from_secs(60);
        while !replay.is_live() && Instant::now() < until {
            replay.read_part(Duration::from_millis(1), Some(1), |tick, at| seen.push((at.offset, *tick))).unwrap();
        }
        for number in 200..250 {
            producer.publish(|tick| *tick = number).unwrap();
        }
        while seen.last() != Some(&(249, 249)) && Instant::now() < until {
            replay.read(Duration::from_millis(100), |tick, at| seen.push((at.offset, *tick))).unwrap();
        }
        seen
    }

    #[test]
    fn what_a_panic_has_kept_from_the_reader_comes_again() {
        let engine = Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap();
        let ticks = engine.topic::<u64>("ticks").single_producer().capacity(256).durable().create().unwrap();
        let mut producer = ticks.producer().acknowledge(crate::Level::Durable).create().unwrap();
        let mut replay = ticks.replay("tape").open().unwrap();
        producer.publish_batch(100, |index, tick| *tick = index as u64).unwrap();
        // Further behind than a quarter of the ring, so from the journal.
        let mut seen = Vec::new();
        let mut read = |panic_at: Option<u64>, seen: &mut Vec<(u64, u64)>| {
            let each = |tick: &u64, at: At| {
                seen.push((at.offset, *tick));
                assert!(panic_at != Some(*tick), "told to");
            };
            let reading = std::panic::AssertUnwindSafe(|| replay.read(Duration::from_secs(30), each));
            std::panic::catch_unwind(reading).is_err()
        };
        assert!(read(Some(3), &mut seen) && read(Some(4), &mut seen));
        let until = Instant::now() + Duration::from_secs(30);
        while seen.len() < 100 && Instant::now() < until {
            assert!(!read(None, &mut seen));
        }
        assert_eq!(seen, (0..100).map(|number| (number, number)).collect::<Vec<_>>());
    }

    #[test]
    fn a_replay_that_joins_at_a_past_slot_is_found() {
        let all: Vec<_> = (0..250).map(|number| (number, number)).collect();
        assert_eq!(over_the_seam(false), all);
        assert_ne!(over_the_seam(true), all, "the fault went unnoticed");
    }
}
