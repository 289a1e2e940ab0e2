//! A partition that is assigned to a member: where its events are read from, seeking, and its gaps (offsets lost to
//! damage).

use super::GroupError;
use super::assignment::{Assignor, PartitionKey};
use super::catch_up::{CatchUpOutcome, CatchUpReader};
use super::topics::{TopicPattern, TopicRules};
use crate::base::clock::Clock;
use crate::base::ids::TopicPartition;
use crate::base::kind::Producers;
use crate::base::overload::ConsumerStats;
use crate::log::catalog::state_kind;
use crate::log::gap::{GapReport, GapReportOutcome, ReaderKind};
use crate::log::offsets::commit_right::CommitRight;
use crate::read::error::PositionError;
use crate::read::replay::ReplayError;
use crate::read::{StartAt, expire};
use crate::topic::TopicCore;
use crate::topic::error::OutOfRange;
use crate::topic::partition::Partition;
use slipring_journal::{FrameBuilder, SharedScan, Visible};
use slipring_ring::{Closed, Consumer, SeekError, Sequence, Start, Wait};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Where a partition's events are read from now.
pub(super) enum Feed<E, K: Producers> {
    Ring(Consumer<E, K>),
    Journal(Box<CatchUpReader<E, K>>),
}

/// A partition that is assigned to a member.
pub(super) struct AssignedPartition<E, K: Producers> {
    pub(super) id: PartitionKey,
    pub(super) name: TopicPartition,
    pub(super) topic: Arc<TopicCore<E, K>>,
    pub(super) partition: Arc<Partition<E, K>>,
    pub(super) feed: Feed<E, K>,
    pub(super) right: Arc<CommitRight>,
    pub(super) stats: Arc<ConsumerStats>,
    /// The number of events after which a managed member commits within a batch, so that producers need not wait for
    /// the end of a long batch.
    pub(super) part: usize,
    pub(super) paused: bool,
    pub(super) ended: bool,
}

/// Why a poll of a partition has found no event, if the member must react to it.
pub(super) enum NoEvent {
    Closed(Closed),
    /// The events at these offsets were lost to damage.
    Gap(Range<u64>),
    Failed(GroupError),
}

impl<E, K: Producers> AssignedPartition<E, K> {
    /// The next offset that the member reads in the partition.
    pub(super) fn position(&self) -> u64 {
        match &self.feed {
            Feed::Ring(consumer) => consumer.consumed().0,
            Feed::Journal(_) => self.right.committed(),
        }
    }

    pub(super) fn lag(&self) -> u64 {
        match &self.feed {
            Feed::Ring(consumer) => consumer.lag(),
            Feed::Journal(_) => {
                let (next, published) = (self.right.committed(), self.partition.ring.published().0);
                let durable = self.topic.durable.as_ref();
                durable.map_or(published.saturating_sub(next), |it| it.unread(self.id.partition, next, published))
            }
        }
    }

    /// The first offset at or after `from` to which the topic's retention by age allows a seek. For a durable topic
    /// this is `from`, because the journal's retention applies there.
    fn oldest_kept(&self, from: Sequence, clock: &dyn Clock) -> Sequence {
        match self.topic.settings.retain_for.filter(|_| self.topic.durable.is_none()) {
            Some(age) => Sequence(self.partition.first_since(clock.wall().minus(age), from.0)),
            None => from,
        }
    }

    /// Commits the slots without an event that the consumer has skipped since its last batch. Must not be called within
    /// a batch.
    pub(super) fn commit_skipped(&self) {
        let Feed::Ring(consumer) = &self.feed else { return };
        let at = consumer.consumed().0;
        if at != self.right.committed() {
            // An error is ignored: it means that the member was fenced, and its successor skips these slots again.
            let _ = self.right.pass_over(at);
        }
    }
}

impl<E: Send + Sync + 'static, K: Producers> AssignedPartition<E, K> {
    /// From now on reads the partition from the journal, starting at offset `from`.
    pub(super) fn start_catch_up(&mut self, group: &str, from: u64, wait: Wait) {
        let (topic, partition) = (Arc::clone(&self.topic), Arc::clone(&self.partition));
        self.right.set_catching_up(true);
        self.feed = Feed::Journal(Box::new(CatchUpReader::new(topic, partition, group, from, wait)));
    }

    /// Durably records that the gap was reported to the group, and commits the offset after the gap. Called before the
    /// member returns the gap. Returns false if the member was fenced: then nothing was recorded or committed.
    pub(super) fn pass_gap(
        &mut self,
        group: &str,
        offsets: &Range<u64>,
        clock: &dyn Clock,
    ) -> Result<bool, GroupError> {
        let refused = |cause| GroupError::NotWritten { group: group.to_owned(), cause };
        let (Some(durable), Some(committed_offset)) = (&self.topic.durable, self.right.committed_offset()) else {
            return Ok(true);
        };
        let (reader, of) = (group.to_owned(), durable.id(self.id.partition));
        let time = clock.wall().as_nanos();
        let report = GapReport { kind: ReaderKind::Group, reader, of, offsets: offsets.clone(), time };
        let (right, end) = (Arc::clone(&self.right), offsets.end);
        let put = |frame: &mut FrameBuilder| {
            frame.put(state_kind::GROUP_OFFSETS, committed_offset.key(), &committed_offset.value_at(end))
        };
        match report.record(&durable.committer, put, move || right.commit_recorded(end)) {
            GapReportOutcome::Yes => {}
            GapReportOutcome::Denied => return Ok(false),
            GapReportOutcome::Not(cause) => return Err(refused(cause)),
            GapReportOutcome::Unknown(cause) => {
                return Err(GroupError::CommitUnknown { group: group.to_owned(), cause });
            }
        }
        if let Feed::Journal(reader) = &mut self.feed {
            reader.pass_gap();
        }
        Ok(true)
    }

    /// Checks the partition for events. True if it has some; false if it has none now. `looks` is the count of checks
    /// in a row that have found nothing. The error says why no event comes, if the member must react to that.
    #[inline]
    pub(super) fn look(&mut self, look: &mut LookContext<'_>, looks: u32) -> Result<bool, NoEvent> {
        let Feed::Ring(consumer) = &mut self.feed else { return self.look_in_journal(look, looks) };
        let closed = match consumer.poll_paced(look.limit, looks) {
            Ok(mut batch) => {
                if let Some(limit) = self.topic.settings.time_to_live.filter(|_| !batch.is_empty()) {
                    // Expired events are skipped like slots without an event, and committed with the next commit.
                    let expired = expire(&mut batch, &self.partition, look.clock.wall().minus(limit));
                    self.stats.expired.fetch_add(expired, Ordering::Relaxed);
                }
                return Ok(!batch.is_empty());
            }
            Err(closed) => closed,
        };
        if matches!(closed, Closed::Evicted { .. }) && self.topic.durable.is_some() && !self.right.is_fenced() {
            // The consumer was evicted because producers would have waited for it. The journal has the unread events.
            self.start_catch_up(look.group, self.right.committed(), look.wait.clone());
            return self.look_in_journal(look, looks);
        }
        Err(NoEvent::Closed(closed))
    }

    #[cold]
    fn look_in_journal(&mut self, look: &mut LookContext<'_>, looks: u32) -> Result<bool, NoEvent> {
        let Feed::Journal(reader) = &mut self.feed else { return Ok(false) };
        let oldest = self.topic.settings.time_to_live.map(|limit| look.clock.wall().minus(limit));
        let looked = reader.look(look.limit, &self.right, oldest, look.scan);
        self.stats.expired.fetch_add(std::mem::take(&mut reader.expired), Ordering::Relaxed);
        match looked {
            Ok(CatchUpOutcome::Events) => Ok(true),
            Ok(CatchUpOutcome::Nothing) => Ok(false),
            Ok(CatchUpOutcome::Gap(gap)) => Err(NoEvent::Gap(gap)),
            Ok(CatchUpOutcome::Over(closed)) => Err(NoEvent::Closed(closed)),
            Ok(CatchUpOutcome::Caught(consumer)) => {
                self.feed = Feed::Ring(consumer);
                self.right.set_catching_up(false);
                self.stats.evicted.store(false, Ordering::Relaxed);
                self.look(look, looks)
            }
            Err(refused) => Err(NoEvent::Failed(refused)),
        }
    }

    /// The offset that `to` means, for a seek in a topic in memory. Nothing is committed. For the earliest offset, and
    /// for a time before the consumer's position, this moves the consumer back to the earliest offset, so that its own
    /// gating position keeps the events that are searched. The outer error is a start that the topic does not support;
    /// the inner one is the ring's refusal to move.
    fn find(&mut self, to: &StartAt, clock: &dyn Clock) -> Result<Result<Sequence, SeekError>, PositionError> {
        let Feed::Ring(consumer) = &mut self.feed else { return Ok(Ok(Sequence(self.right.committed()))) };
        let before = consumer.consumed();
        let since = match to {
            StartAt::Timestamp(at) => match &self.partition.times {
                None => return Err(PositionError::NoTimestamps { topic: self.name.topic.to_string() }),
                Some(times) if before.0 == 0 || times.get(before.0 - 1) < *at => {
                    return Ok(Ok(Sequence(self.partition.first_since(*at, before.0))));
                }
                Some(_) => Some(*at),
            },
            StartAt::Committed => return Ok(Ok(Sequence(self.right.committed()))),
            _ => None,
        };
        match to.in_ring(self.name.partition) {
            Start::At(offset) => return Ok(Ok(offset)),
            Start::Latest => return Ok(Ok(self.partition.ring.published())),
            Start::Earliest => {}
        }
        loop {
            let earliest = self.partition.ring.positions().earliest;
            match consumer.seek(earliest) {
                Ok(()) => break,
                // Events were overwritten meanwhile, so the earliest offset has moved: try again.
                Err(SeekError::OutOfRange { earliest: now, .. }) if now.since(earliest) > 0 => {}
                Err(refused) => return Ok(Err(refused)),
            }
        }
        let from = consumer.consumed();
        let oldest = self.oldest_kept(from, clock);
        Ok(Ok(since.map_or(oldest, |at| Sequence(self.partition.first_since(at, from.0).max(oldest.0)))))
    }

    /// Moves to the offset that `to` means, and commits that offset. Returns false, and commits nothing, if the member
    /// was fenced.
    pub(super) fn seek(
        &mut self,
        to: &StartAt,
        group: &str,
        clock: &dyn Clock,
        wait: &Wait,
    ) -> Result<bool, GroupError> {
        if self.topic.durable.is_some() {
            let to = locate(group, &self.topic, &self.partition, to, self.right.committed())?;
            if !self.right.seek(to) {
                return Ok(false);
            }
            if let Feed::Ring(consumer) = &mut self.feed
                && consumer.seek(Sequence(to)).is_ok()
            {
                return Ok(true);
            }
            self.start_catch_up(group, to, wait.clone());
            return Ok(true);
        }
        let (topic, index) = (self.name.topic.to_string(), self.name.partition);
        let refused = |cause| GroupError::from(PositionError::new(&topic, group, index, cause));
        let before = Sequence(self.position());
        let found = self.find(to, clock)?;
        let Feed::Ring(consumer) = &mut self.feed else { return Ok(false) };
        let to = match found {
            Err(SeekError::Closed(Closed::Evicted { .. })) => return Ok(false),
            found => found.map_err(refused)?,
        };
        let latest = self.partition.ring.published();
        let earliest = self.partition.ring.positions().earliest;
        let out_of_range =
            |earliest| refused(SeekError::OutOfRange { stage: String::new(), asked: to, earliest, latest });
        if to.since(consumer.consumed()) >= 0 {
            if to.since(latest) > 0 {
                return Err(out_of_range(earliest));
            }
            // The commit must come first: after the seek, skipped events may be overwritten, and if the commit then
            // failed, a successor would have to read them.
            if !self.right.seek(to.0) {
                return Ok(false);
            }
            return match consumer.seek(to) {
                Err(SeekError::Closed(Closed::Evicted { .. })) => Ok(false),
                moved => moved.map(|()| true).map_err(refused),
            };
        }
        match consumer.seek(to) {
            Ok(()) => {}
            Err(SeekError::Closed(Closed::Evicted { .. })) => return Ok(false),
            // The ring's error has only the range before the consumer's offset, so the range is completed here.
            Err(SeekError::OutOfRange { earliest, .. }) => return Err(out_of_range(earliest)),
            Err(cause) => return Err(refused(cause)),
        }
        let earliest = self.oldest_kept(to, clock);
        let Feed::Ring(consumer) = &mut self.feed else { return Ok(false) };
        if to.since(earliest) < 0 {
            // The event is older than the topic's retention allows. The consumer moves forward again, which the ring
            // always allows.
            let _ = consumer.seek(before);
            return Err(out_of_range(earliest));
        }
        Ok(self.right.seek(to.0))
    }
}

/// The arguments of a poll of a partition.
pub(super) struct LookContext<'m> {
    pub(super) group: &'m str,
    pub(super) clock: &'m dyn Clock,
    pub(super) limit: usize,
    pub(super) wait: &'m Wait,
    /// The scan of the journal that a member's partitions share while they are read from the journal. `None` until a
    /// partition needs the scan.
    pub(super) scan: &'m mut Option<Box<SharedScan>>,
}

/// The offset that `start` means in a partition of a durable topic. It lies between the first offset that the journal
/// keeps and the next one to be published (both inclusive); an error if the offset that was asked for is outside of
/// this range. `committed` is the offset for [`StartAt::Committed`].
pub(super) fn locate<E, K: Producers>(
    group: &str,
    topic: &TopicCore<E, K>,
    partition: &Partition<E, K>,
    start: &StartAt,
    committed: u64,
) -> Result<u64, GroupError> {
    let index = partition.index;
    let latest = partition.ring.published().0;
    let Some(durable) = &topic.durable else { return Ok(latest) };
    let extent = durable.journal().extent(durable.id(index)).unwrap_or_default();
    let earliest = extent.start.min(latest);
    let out_of_range = |asked, earliest| {
        let refused = OutOfRange::new(&topic.name, index, asked, earliest, latest);
        GroupError::OutOfRange { group: group.to_owned(), refused }
    };
    let asked = match start {
        StartAt::Latest => return Ok(latest),
        StartAt::Committed => committed,
        StartAt::Timestamp(at) => {
            let failed = |cause| GroupError::Replay {
                group: group.to_owned(),
                cause: Box::new(ReplayError::Journal { topic: topic.name.clone(), partition: index, cause }),
            };
            // If all records in the journal are older than this time, the result is the first offset that is not
            // written: only events from there on may be young enough.
            let written = durable.acks.progress(index).map_or(latest, |progress| progress.end(Visible::Written));
            let first = durable.journal().first_since(durable.id(index), at.as_nanos()).map_err(failed)?;
            return Ok(first.unwrap_or(written).min(latest));
        }
        StartAt::Offset(_) | StartAt::Offsets(_) | StartAt::Earliest => start.offset(index).unwrap_or(earliest),
    };
    if (earliest..=latest).contains(&asked) { Ok(asked) } else { Err(out_of_range(asked, earliest)) }
}

/// The settings with which a member joins. `None` in `name` means that the member has no name; in `assignor`, `hold`
/// and `spill`, that the group's setting stays as it is.
pub(super) struct JoinRequest<E, K: Producers> {
    /// The topics with which the member begins. Empty once it has joined: then its
    /// [`MemberTopics`](super::topics::MemberTopics) has them.
    pub(super) topics: Vec<Arc<TopicCore<E, K>>>,
    /// Finds more topics, now and later; `None` once the member has joined, and if it has no pattern.
    pub(super) pattern: Option<TopicPattern>,
    pub(super) rules: TopicRules,
    pub(super) name: Option<String>,
    pub(super) deadline: Duration,
    pub(super) start: StartAt,
    pub(super) assignor: Option<Assignor>,
    pub(super) hold: Option<bool>,
    pub(super) spill: Option<bool>,
}

impl<E, K: Producers> Clone for JoinRequest<E, K> {
    fn clone(&self) -> Self {
        let (topics, name, start) = (self.topics.clone(), self.name.clone(), self.start.clone());
        let (pattern, rules, deadline) = (self.pattern.clone(), self.rules, self.deadline);
        Self {
            topics,
            pattern,
            rules,
            name,
            deadline,
            start,
            assignor: self.assignor,
            hold: self.hold,
            spill: self.spill,
        }
    }
}

/// The changes for a member since its last update: partitions to release (`revoked`), and partitions to read (`given`).
/// `refused` is the error of an assigned partition that cannot be read, because its topic has ended; `None` if there is
/// none.
pub(super) struct MemberUpdate<E, K: Producers> {
    pub(super) epoch: u64,
    pub(super) revoked: Vec<PartitionKey>,
    pub(super) given: Vec<AssignedPartition<E, K>>,
    /// True if all topics of this member are closed, and the group has read and committed all their events.
    pub(super) over: bool,
    pub(super) refused: Option<GroupError>,
}
