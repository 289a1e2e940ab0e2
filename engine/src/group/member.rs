//! A member of a group that the program polls, and the batches that its polls return.

mod changes;
mod partitions;
mod selectable;
mod sources;
mod topics;

use partitions::MemberPartitions;
use sources::AssignedSources;

use super::Group;
use super::assigned_partition::{AssignedPartition, Feed, NoEvent};
use super::assignment::MemberId;
use super::batch::{BatchEvents, GroupBatch, HeldBatch};
use super::error::GroupError;
use super::listener::{Listener, Rebalance, listed};
use super::settings::{Commit, GroupSettings};
use super::signal::{MemberSignal, NEVER, nanos};
use super::topics::MemberTopics;
use crate::base::clock::Clock;
use crate::base::ids::TopicPartition;
use crate::base::kind::Producers;
use crate::base::multi_wait::{MultiWait, WaitEnd};
use crate::base::overload::{ConsumerStats, Slow};
use crate::base::wakeup::Wakeup;
use crate::log::gap::Gap;
use crate::topic::TopicCore;
use crate::topic::consumers::ConsumerRun;
use slipring_journal::SharedScan;
use slipring_ring::{Closed, Ending, Multi, Waiter};
use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A member of a group, which the program polls for batches of events. Each partition of the group's topics is assigned
/// to one member at a time.
///
/// ```
/// # use slipring::{Engine, Message, Record};
/// # use std::time::Duration;
/// # let engine = Engine::builder().build()?;
/// # let orders = engine.topic::<Message>("orders").partitions(4).create()?;
/// # fn bill(_: &Message) -> Result<(), std::io::Error> { Ok(()) }
/// let mut billing = orders.group("billing").join()?;
/// orders.producer().create()?.send(&Record::new("2 lamps").key("account-7"))?;
/// orders.close();
/// while let Some(mut batch) = billing.poll(Duration::from_millis(100))? {
///     for (message, _) in &batch {
///         bill(message)?;         // an error here leaves the batch uncommitted: it is read again
///     }
///     batch.commit()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Positions
/// Outside of a batch, a member's position in a partition is the group's committed offset. A batch that is dropped
/// without a commit is read again, by this member or by the partition's next one.
///
/// # Progress
/// A member must poll, or commit a part of its batch, within its [deadline](crate::group::GroupBuilder::deadline).
/// Otherwise it is fenced: other members get its partitions, and its next poll or commit returns an error. The deadline
/// does not run while a member waits in a poll.
///
/// # Leaving
/// A dropped member leaves the group, and its partitions go to other members at once. The partitions of a member with a
/// [name](crate::group::GroupBuilder::member_name) stay reserved until its deadline.
pub struct Member<E, K: Producers = Multi>
where
    E: Send + Sync + 'static,
{
    pub(super) group: Arc<Group<E, K>>,
    id: MemberId,
    pub(super) epoch: u64,
    pub(super) signal: Arc<MemberSignal>,
    pub(super) settings: GroupSettings<E, K>,
    /// The topics that the member reads. Its group and its [`GroupRun`](crate::group::GroupRun) refer to them.
    pub(super) topics: Arc<MemberTopics<E, K>>,
    listener: Option<Listener>,
    /// The assigned partitions. The index of each is its number as a source of `watch`; a free place is `None`.
    pub(super) partitions: MemberPartitions<E, K>,
    pub(super) watch: MultiWait,
    /// The scan of the journal that the partitions share while they are read from the journal; `None` until one needs
    /// it.
    scan: Option<Box<SharedScan>>,
    /// True if the next poll must ask the group for changes, even if the group has not signalled any.
    unsettled: bool,
    /// The error that [`is_ready`](Self::is_ready) has found and that the next poll returns; `None` if there is none.
    found: Option<GroupError>,
    over: bool,
}

impl<E: Send + Sync + 'static, K: Producers> fmt::Debug for Member<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member {} of group {:?} with {}", self.id, self.group.name, listed(&self.assignment()))
    }
}

/// What a member's wait for events has ended with. `Source` is the number of a partition with events.
pub(super) enum PollOutcome {
    Source(usize),
    Nothing,
    Over,
}

impl<E: Send + Sync + 'static, K: Producers> Member<E, K> {
    pub(super) fn join(
        group: Arc<Group<E, K>>,
        mut settings: GroupSettings<E, K>,
        listener: Option<Listener>,
    ) -> Result<Self, GroupError> {
        let topics = Arc::new(MemberTopics::new(&mut settings.joining));
        group.search_first(&topics)?;
        let (id, signal) = group.join(&settings.joining, &topics)?;
        let watch = MultiWait::new(settings.wait.clone(), Arc::clone(&signal.waiter));
        let member = Self {
            group,
            id,
            epoch: 0,
            signal,
            settings,
            topics,
            listener,
            partitions: MemberPartitions::default(),
            watch,
            scan: None,
            unsettled: true,
            found: None,
            over: false,
        };
        match member.group.search_again(id, &member.topics) {
            Ok(()) => Ok(member),
            Err(refused) => {
                member.leave();
                Err(refused)
            }
        }
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group.name
    }

    /// The group's epoch at this member's last update. The epoch increases with each change of the group's members or
    /// topics.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The partitions that are assigned to this member, as of its last poll, sorted.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        let mut names: Vec<_> = self.partitions.iter().flatten().map(|assigned| assigned.name.clone()).collect();
        names.sort();
        names
    }

    /// A handle by which another thread ends the present or the next wait of a [`poll`](Self::poll). It remains valid
    /// when this member [rejoins](Self::rejoin).
    pub fn wakeup(&self) -> Wakeup {
        self.watch.wakeup()
    }

    /// Waits up to `limit` for events of one partition, and returns them; an empty batch if none came, or a [`Wakeup`] ended
    /// the wait. `None` once all topics are closed and the group has read and committed all events that this member could
    /// get. A limit of zero never waits.
    /// While partitions are [paused](Self::pause), closed topics end only when these are resumed and read; until then, once all
    /// others are read, an empty batch is returned at once. For the cost see [`Subscriber::poll`](crate::Subscriber::poll).
    ///
    /// A poll also applies changes of the assignment: it begins to read newly assigned partitions, and releases revoked
    /// ones.
    ///
    /// # Errors
    /// The member was fenced, or a topic was halted or has failed. [`GroupError::Gap`] reports events that were lost to
    /// damage, once for the whole group, after all events before them were read. The journal has the report by then, so
    /// the next poll continues after the gap, even after a restart. With another
    /// [policy](crate::group::GroupBuilder::on_gap) lost events are not an error.
    #[inline]
    pub fn poll(&mut self, limit: Duration) -> Result<Option<GroupBatch<'_, E, K>>, GroupError> {
        match self.next(limit)? {
            PollOutcome::Source(source) => self.hand_out(source).map(Some),
            PollOutcome::Nothing => Ok(Some(GroupBatch { held: None })),
            PollOutcome::Over => Ok(None),
        }
    }

    #[inline]
    pub(super) fn next(&mut self, limit: Duration) -> Result<PollOutcome, GroupError> {
        if !self.unsettled && !self.signal.has_news() && !self.over {
            let Self { group, settings, partitions, watch, signal, scan, .. } = self;
            let by = settings.looking(group, scan);
            let mut look = AssignedSources { partitions, signal, by, no_event: None };
            if let (WaitEnd::Source(source), None) = (watch.find(&mut look, !limit.is_zero()), look.no_event) {
                self.signal.see(self.group.clock.coarse());
                return Ok(PollOutcome::Source(source));
            }
        }
        self.next_slowly(limit)
    }

    #[inline(never)]
    fn next_slowly(&mut self, limit: Duration) -> Result<PollOutcome, GroupError> {
        self.begin_to_wait();
        let next = self.wait(limit);
        self.end_to_wait();
        next
    }

    /// Marks the member as waiting for events, so that its deadline does not run.
    pub(super) fn begin_to_wait(&self) {
        self.signal.seen.store(NEVER, Ordering::SeqCst);
    }

    pub(crate) fn end_to_wait(&self) {
        let now = self.group.now();
        self.signal.seen.store(nanos(now), Ordering::SeqCst);
        self.group.reschedule(now, self.settings.joining.deadline);
    }

    fn wait(&mut self, limit: Duration) -> Result<PollOutcome, GroupError> {
        let now = limit.is_zero();
        let deadline = if now || limit == Duration::MAX { None } else { Instant::now().checked_add(limit) };
        loop {
            if let Some(refused) = self.found.take() {
                return Err(refused);
            }
            if self.unsettled || self.signal.has_news() {
                self.take_update()?;
            }
            // A partition of a deleted topic is not `ended`, so its error is returned before the end.
            let is_read = self.over && self.partitions.iter().flatten().all(|assigned| assigned.ended);
            if is_read || self.signal.stopped.load(Ordering::Acquire) {
                return Ok(PollOutcome::Over);
            }
            if self.partitions.iter().flatten().any(|assigned| assigned.paused) {
                self.arm_paused(&Arc::clone(&self.signal.waiter), MultiWait::WAKE);
                match self.is_over_but_for_pauses() {
                    Ok(true) => return Ok(PollOutcome::Nothing),
                    Ok(false) => {}
                    Err((source, reason)) => return Err(self.end_error(source, reason)),
                }
            }
            let Self { group, settings, partitions, watch, signal, scan, .. } = self;
            let by = settings.looking(group, scan);
            let mut look = AssignedSources { partitions, signal, by, no_event: None };
            let found = watch.next(&mut look, now, deadline);
            match (found, look.no_event) {
                (WaitEnd::Source(source), None) => return Ok(PollOutcome::Source(source)),
                (WaitEnd::Source(source), Some(NoEvent::Closed(Closed::Finished | Closed::Closed))) => self.end(source),
                // The member was fenced: the group evicts the consumer of a fenced member. The group's update reports
                // it.
                (WaitEnd::Source(_), Some(NoEvent::Closed(Closed::Evicted { .. }))) => self.unsettled = true,
                (WaitEnd::Source(source), Some(NoEvent::Closed(reason))) => return Err(self.end_error(source, reason)),
                (WaitEnd::Source(source), Some(NoEvent::Gap(offsets))) => self.meet_gap(source, offsets)?,
                (WaitEnd::Source(_), Some(NoEvent::Failed(refused))) => return Err(refused),
                (WaitEnd::Interrupted, _) => {}
                (WaitEnd::Nothing, _) => {
                    self.partitions.iter().flatten().for_each(AssignedPartition::commit_skipped);
                    return Ok(PollOutcome::Nothing);
                }
            }
        }
    }

    /// Handles events that were lost to damage: durably records that they were reported to the group, then applies the
    /// member's policy. The error is the gap, or a failure to record it.
    #[cold]
    fn meet_gap(&mut self, source: usize, offsets: Range<u64>) -> Result<(), GroupError> {
        let Some(assigned) = &mut self.partitions[source] else { return Ok(()) };
        if !assigned.pass_gap(&self.group.name, &offsets, &*self.group.clock)? {
            // The member was fenced, which the group's update reports.
            self.unsettled = true;
            return Ok(());
        }
        let gap = Gap::new(&*assigned.name.topic, assigned.name.partition, offsets);
        let met = self.settings.on_gap.meet(gap, &assigned.stats);
        met.map_err(|gap| GroupError::Gap { group: self.group.name.clone(), gap })
    }

    /// Registers `waiter` to be woken, with `token`, when a paused partition is closed or fails. Events of paused
    /// partitions do not wake it.
    fn arm_paused(&mut self, waiter: &Waiter, token: usize) {
        for assigned in self.partitions.iter_mut().flatten().filter(|assigned| assigned.paused) {
            let is_armed = match &mut assigned.feed {
                Feed::Ring(consumer) => consumer.arm_for_end(waiter, token),
                Feed::Journal(_) => false,
            };
            // The partition has no consumer in the ring, because it is read from the journal or was evicted.
            if !is_armed {
                assigned.partition.ring.arm_for_end(waiter, token);
            }
        }
    }

    /// True if every assigned partition is read to its end or is paused and closed, so that no more events come unless
    /// a partition is resumed or assigned. False if the member has no partition, or if its topics are all read to their
    /// end. The error is a paused partition, as a source, that was halted or has failed, and why.
    fn is_over_but_for_pauses(&self) -> Result<bool, (usize, Closed)> {
        let mut some = false;
        for (source, assigned) in self.partitions.iter().enumerate() {
            let Some(assigned) = assigned else { continue };
            match (assigned.ended, assigned.paused, assigned.partition.ring.closed()) {
                (true, ..) | (_, true, Some(Closed::Finished | Closed::Closed)) => some = true,
                (_, true, Some(reason)) => return Err((source, reason)),
                _ => return Ok(false),
            }
        }
        Ok(some && !self.over)
    }

    /// True if a poll would return now: with events, an end or an error. Takes no events, and does not wait.
    pub(crate) fn is_ready(&mut self) -> bool {
        match self.next(Duration::ZERO) {
            Ok(PollOutcome::Nothing) => self.has_ended_meanwhile(),
            // Each poll of a fenced member returns this error until the member joins again.
            Ok(_) | Err(GroupError::Fenced(_)) => true,
            // An error may be returned only once, such as a gap or the end of one of several topics, so it is kept for
            // the next poll.
            Err(refused) => {
                (self.found, self.unsettled) = (Some(refused), true);
                true
            }
        }
    }

    /// Registers `task` to be woken when the member has events, an end or an error. Returns false if a poll would
    /// return something now.
    #[cfg(feature = "async")]
    pub(crate) fn wake(&mut self, task: &std::task::Waker) -> bool {
        if self.unsettled || self.signal.has_news() {
            return false;
        }
        self.begin_to_wait();
        self.arm_paused(&Arc::clone(&self.signal.waiter), MultiWait::WAKE);
        let Self { group, settings, partitions, watch, signal, scan, .. } = &mut *self;
        let mut look = AssignedSources { partitions, signal, by: settings.looking(group, scan), no_event: None };
        let waits = watch.wake(&mut look, task) && !self.has_ended_meanwhile();
        if !waits {
            self.end_to_wait();
        }
        waits
    }

    /// True if no more events come unless a partition is resumed or assigned to this member, or if the ring of a paused
    /// partition was halted or has failed.
    fn has_ended_meanwhile(&self) -> bool {
        !matches!(self.is_over_but_for_pauses(), Ok(false))
    }

    /// Marks a closed partition as read to its end, in the member and in the group.
    fn end(&mut self, source: usize) {
        self.watch.remove(source);
        if let Some(assigned) = &mut self.partitions[source] {
            assigned.ended = true;
            self.group.end(assigned);
        }
    }

    #[inline]
    pub(super) fn hand_out(&mut self, source: usize) -> Result<GroupBatch<'_, E, K>, GroupError> {
        self.hand_out_at_most(source, self.settings.limit)
    }

    /// As [`hand_out`](Self::hand_out), with at most `limit` events.
    #[inline]
    pub(super) fn hand_out_at_most(&mut self, source: usize, limit: usize) -> Result<GroupBatch<'_, E, K>, GroupError> {
        let Self { group, epoch, signal, settings, partitions, .. } = self;
        let Some(assigned) = &mut partitions[source] else { return Ok(GroupBatch { held: None }) };
        let AssignedPartition { feed, topic, partition, right, name, stats, .. } = assigned;
        let (events, end) = match feed {
            Feed::Ring(consumer) => {
                // An error is ignored here: the next poll of the partition returns it.
                let Ok(batch) = consumer.poll(limit) else { return Ok(GroupBatch { held: None }) };
                let end = batch.position().0.wrapping_add(batch.len() as u64);
                (BatchEvents::Ring(batch), end)
            }
            Feed::Journal(reader) => {
                let buffered = &mut reader.buffered;
                let Some(last) = buffered.batch(limit).0.last() else { return Ok(GroupBatch { held: None }) };
                let (left, end) = (limit.min(buffered.len()), last + 1);
                (BatchEvents::Journal { buffered, left, end, ring: &partition.ring }, end)
            }
        };
        let first = events.position();
        if first != right.committed() && !right.pass_over(first) {
            // The batch begins after the committed offset. The offsets between are slots without an event, which are
            // committed here; if that fails, the member was fenced.
            return Err(group.fenced(*epoch).into());
        }
        if settings.commit == Commit::AtMostOnce {
            if !right.commit(end) {
                return Err(group.fenced(*epoch).into());
            }
            if let Some(durable) = &topic.durable {
                // Made durable before the user gets an event. Otherwise a crash could lose the commit, and the event
                // would be read again.
                let refused = |cause| GroupError::NotWritten { group: group.name.clone(), cause };
                durable.committer.commit_offsets().map_err(refused)?;
            }
        }
        stats.batch(events.len());
        let (handled, part) = (Cell::new(first), assigned.part);
        Ok(GroupBatch {
            held: Some(HeldBatch {
                group,
                signal,
                epoch: *epoch,
                name,
                topic,
                right,
                commit: settings.commit,
                events,
                end,
                part,
                stats,
                handled,
            }),
        })
    }

    /// Leaves the group. A member with a name gives up its partitions too, without a reservation. The listener is
    /// called with the revoked partitions.
    pub fn leave(mut self) {
        let names = self.assignment();
        if !names.is_empty() {
            self.notify_listener(&Rebalance::Revoked(names));
        }
        self.go(true);
    }

    /// Adds a failure of the handler to the shutdown's report of the partition's topic.
    pub(super) fn note_failure(&self, partition: &TopicPartition, cause: &str) {
        if let Some(topic) = self.topics.all().iter().find(|topic| topic.name == *partition.topic) {
            self.note_failure_in(topic, cause);
        }
    }

    /// Adds a failure outside of the handler to the shutdown's reports of all topics of the member.
    pub(super) fn note_end(&self, cause: &str) {
        self.topics.all().iter().for_each(|topic| self.note_failure_in(topic, cause));
    }

    fn note_failure_in(&self, topic: &TopicCore<E, K>, cause: &str) {
        let run = ConsumerRun::new(Arc::new(ConsumerStats::new(
            &format!("group:{} member {}", self.group.name, self.id),
            Slow::Gate,
        )));
        let partitions = self.partitions.iter().flatten().filter(|assigned| *assigned.name.topic == *topic.name);
        let mut state = run.state();
        state.consumed.extend(partitions.map(|assigned| (assigned.name.partition, assigned.right.committed())));
        if state.consumed.is_empty() {
            // The member has no partition of this topic. The reports of other members have the topic's unread events.
            let first = topic.partitions().first().map(|partition| partition.ring.positions().published.0);
            state.consumed.extend(first.map(|published| (0, published)));
        }
        state.ending = Some(Ending::Failed(cause.to_owned()));
        drop(state);
        topic.keep(run);
    }

    fn go(&mut self, for_good: bool) {
        self.group.leave(self.id, self.partitions.take_all(), for_good);
    }
}

impl<E: Send + Sync + 'static, K: Producers> Drop for Member<E, K> {
    fn drop(&mut self) {
        self.go(false);
    }
}
