//! A member of a group, and the batches it reads.

mod changes;
mod sources;

use sources::AssignedSources;

use super::Group;
use super::assigned_partition::{AssignedPartition, Feed, NoEvent};
use super::assignment::MemberId;
use super::batch::{BatchEvents, GroupBatch, HeldBatch};
use super::error::GroupError;
use super::listener::listed;
use super::listener::{Listener, Rebalance};
use super::settings::{Commit, GroupSettings};
use super::signal::{MemberSignal, NEVER, nanos};
use crate::base::clock::Clock;
use crate::base::ids::TopicPartition;
use crate::base::kind::Producers;
use crate::base::multi_wait::{MultiWait, Wakeup};
use crate::base::overload::{ConsumerStats, Slow};
use crate::log::gap::Gap;
use crate::read::selector::Selectable;
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

/// A member of a group, to be polled. It has some of the partitions of the group's topics, and nobody else in the group
/// has them.
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
/// without commit is read again, by this member or by whoever has the partition then.
///
/// # Progress
/// A member must poll, or commit a part of its batch, within its [deadline](crate::group::GroupBuilder::deadline), or it is
/// fenced: others get its partitions, and its next poll or commit is an error. Waiting in a poll counts as progress,
/// however long it takes.
///
/// # Leaving
/// Dropping a member leaves: what it had moves to the others at once. A member with a
/// [name](crate::group::GroupBuilder::member_name) is waited for until its deadline has passed.
pub struct Member<E, K: Producers = Multi>
where
    E: Send + Sync + 'static,
{
    pub(super) group: Arc<Group<E, K>>,
    id: MemberId,
    pub(super) epoch: u64,
    pub(super) signal: Arc<MemberSignal>,
    pub(super) settings: GroupSettings<E, K>,
    listener: Option<Listener>,
    /// Each under the number that it has as a source of `watch`.
    pub(super) partitions: Vec<Option<AssignedPartition<E, K>>>,
    pub(super) watch: MultiWait,
    /// The scan of the journal that catching-up partitions share.
    scan: Option<Box<SharedScan>>,
    /// True if the member must look for changes, whatever its signal says.
    unsettled: bool,
    /// A gap that the next poll returns.
    gap: Option<GroupError>,
    over: bool,
}

impl<E: Send + Sync + 'static, K: Producers> fmt::Debug for Member<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member {} of group {:?} with {}", self.id, self.group.name, listed(&self.assignment()))
    }
}

/// True if a topic was halted, as by a forced deletion, or has failed.
fn is_gone<E, K: Producers>(topic: &TopicCore<E, K>) -> bool {
    use crate::base::closed::Closed::{Failed, Halted};
    matches!(topic.closed(), Some(Halted | Failed { .. }))
}

/// What a poll has found.
pub(super) enum PollOutcome {
    Source(usize),
    Nothing,
    Over,
}

impl<E: Send + Sync + 'static, K: Producers> Member<E, K> {
    pub(super) fn join(
        group: Arc<Group<E, K>>,
        settings: GroupSettings<E, K>,
        listener: Option<Listener>,
    ) -> Result<Self, GroupError> {
        let (id, signal) = group.join(&settings.joining)?;
        let watch = MultiWait::new(settings.wait.clone(), Arc::clone(&signal.waiter));
        let partitions = Vec::new();
        Ok(Self {
            group,
            id,
            epoch: 0,
            signal,
            settings,
            listener,
            partitions,
            watch,
            scan: None,
            unsettled: true,
            gap: None,
            over: false,
        })
    }

    /// Joins again after this member was fenced, as a newcomer with the same settings.
    ///
    /// # Errors
    /// As [`GroupBuilder::join`](crate::group::GroupBuilder::join). The member stays fenced then.
    pub fn rejoin(&mut self) -> Result<(), GroupError> {
        if self.has_live_topics() {
            self.settings.joining.topics.retain(|topic| !is_gone(topic));
        }
        let (id, signal) = self.group.join(&self.settings.joining)?;
        // If the old member was still in the group, it leaves now.
        self.group.leave(self.id, self.partitions.drain(..).flatten().collect(), true);
        self.watch = MultiWait::new(self.settings.wait.clone(), Arc::clone(&signal.waiter));
        (self.id, self.signal, self.epoch, self.unsettled, self.over) = (id, signal, 0, true, false);
        Ok(())
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group.name
    }

    /// The group's epoch when this member last looked. It grows with each change of members or topics.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What this member has, as of its last poll, in order.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        let mut names: Vec<_> = self.partitions.iter().flatten().map(|assigned| assigned.name.clone()).collect();
        names.sort();
        names
    }

    /// Waits for events, no longer than `limit`: a batch of one partition, which is empty if none came. None once all
    /// topics were closed and the group has read and committed everything that this member could be given. A limit of
    /// zero never waits. While partitions are [paused](Self::pause), closed topics have an end only when those were
    /// resumed and read: until then an empty batch is returned at once, when all others are read to their end.
    ///
    /// Partitions that were given to this member or are to go to others change hands in here.
    ///
    /// # Errors
    /// The member was fenced, or a topic was halted or failed. Where events of a partition were lost to damage,
    /// [`GroupError::Gap`] names them, once for the whole group, after all that stands before them was read: by then the
    /// journal says that the group was told and goes on behind them, which the next poll does, also after a restart. With
    /// another [policy](crate::group::GroupBuilder::on_gap) it is no error.
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
            let mut look = AssignedSources { partitions, signal, by, told: None };
            if let (Wakeup::Source(source), None) = (watch.next(&mut look, true, None), look.told) {
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

    /// While a member waits it counts as making progress.
    pub(super) fn begin_to_wait(&self) {
        self.signal.seen.store(NEVER, Ordering::SeqCst);
    }

    pub(crate) fn end_to_wait(&self) {
        let now = self.group.now();
        self.signal.seen.store(nanos(now), Ordering::SeqCst);
        self.group.mind(now, self.settings.joining.deadline);
    }

    fn wait(&mut self, limit: Duration) -> Result<PollOutcome, GroupError> {
        let now = limit.is_zero();
        let deadline = if now || limit == Duration::MAX { None } else { Instant::now().checked_add(limit) };
        loop {
            if let Some(gap) = self.gap.take() {
                return Err(gap);
            }
            if self.unsettled || self.signal.has_news() {
                self.take_update()?;
            }
            // A topic that was deleted still has an error to return.
            let is_read = self.over && self.partitions.iter().flatten().all(|assigned| assigned.ended);
            if is_read || self.signal.stopped.load(Ordering::Acquire) {
                return Ok(PollOutcome::Over);
            }
            if self.partitions.iter().flatten().any(|assigned| assigned.paused) {
                self.arm_paused(&Arc::clone(&self.signal.waiter), MultiWait::WAKE);
                match self.is_over_but_for_pauses() {
                    Ok(true) => return Ok(PollOutcome::Nothing),
                    Ok(false) => {}
                    Err((source, reason)) => return Err(self.tell_of_end(source, reason)),
                }
            }
            let Self { group, settings, partitions, watch, signal, scan, .. } = self;
            let by = settings.looking(group, scan);
            let mut look = AssignedSources { partitions, signal, by, told: None };
            let found = watch.next(&mut look, now, deadline);
            match (found, look.told) {
                (Wakeup::Source(source), None) => return Ok(PollOutcome::Source(source)),
                (Wakeup::Source(source), Some(NoEvent::Closed(Closed::Finished | Closed::Closed))) => self.end(source),
                // The group is about to signal why.
                (Wakeup::Source(_), Some(NoEvent::Closed(Closed::Evicted { .. }))) => self.unsettled = true,
                (Wakeup::Source(source), Some(NoEvent::Closed(reason))) => return Err(self.tell_of_end(source, reason)),
                (Wakeup::Source(source), Some(NoEvent::Gap(offsets))) => self.meet_gap(source, offsets)?,
                (Wakeup::Source(_), Some(NoEvent::Failed(refused))) => return Err(refused),
                (Wakeup::Interrupted, _) => {}
                (Wakeup::Nothing, _) => {
                    self.partitions.iter().flatten().for_each(AssignedPartition::commit_skipped);
                    return Ok(PollOutcome::Nothing);
                }
            }
        }
    }

    /// The journal records that the group was told of the gap before the member is told.
    #[cold]
    fn meet_gap(&mut self, source: usize, offsets: Range<u64>) -> Result<(), GroupError> {
        let Some(assigned) = &mut self.partitions[source] else { return Ok(()) };
        if !assigned.pass_gap(&self.group.name, &offsets, &*self.group.clock)? {
            // The group is about to signal why.
            self.unsettled = true;
            return Ok(());
        }
        let gap = Gap::new(&*assigned.name.topic, assigned.name.partition, offsets);
        let met = self.settings.on_gap.meet(gap, &assigned.stats);
        met.map_err(|gap| GroupError::Gap { group: self.group.name.clone(), gap })
    }

    /// Nothing signals the events of paused partitions, only their end.
    fn arm_paused(&mut self, waiter: &Waiter, token: usize) {
        for assigned in self.partitions.iter_mut().flatten().filter(|assigned| assigned.paused) {
            let hears = match &mut assigned.feed {
                Feed::Ring(consumer) => consumer.arm_for_end(waiter, token),
                Feed::Journal(_) => false,
            };
            // It has no consumer in the ring, or the consumer was evicted.
            if !hears {
                assigned.partition.ring.arm_for_end(waiter, token);
            }
        }
    }

    /// True if nothing more comes unless a partition is resumed, or given to this member.
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

    /// Looks without waiting, and takes nothing. False if there is nothing yet.
    pub(crate) fn is_ready(&mut self) -> bool {
        match self.next(Duration::ZERO) {
            Ok(PollOutcome::Nothing) => self.has_ended_meanwhile(),
            // A gap is returned once, by the next poll, and not by this look.
            Err(gap @ GroupError::Gap { .. }) => {
                (self.gap, self.unsettled) = (Some(gap), true);
                true
            }
            _ => true,
        }
    }

    /// Has a task woken after a look has found nothing. False if there is something after all.
    #[cfg(feature = "async")]
    pub(crate) fn wake(&mut self, task: &std::task::Waker) -> bool {
        if self.unsettled || self.signal.has_news() {
            return false;
        }
        self.begin_to_wait();
        self.arm_paused(&Arc::clone(&self.signal.waiter), MultiWait::WAKE);
        let Self { group, settings, partitions, watch, signal, scan, .. } = &mut *self;
        let mut look = AssignedSources { partitions, signal, by: settings.looking(group, scan), told: None };
        let waits = watch.wake(&mut look, task) && !self.has_ended_meanwhile();
        if !waits {
            self.end_to_wait();
        }
        waits
    }

    /// True if this member gets no more events unless a partition is resumed or assigned to it, or if the ring of a paused
    /// partition has failed.
    fn has_ended_meanwhile(&self) -> bool {
        !matches!(self.is_over_but_for_pauses(), Ok(false))
    }

    /// A partition was closed, and is read to its end.
    fn end(&mut self, source: usize) {
        self.watch.remove(source);
        if let Some(assigned) = &mut self.partitions[source] {
            assigned.ended = true;
            self.group.end(assigned);
        }
    }

    /// True if one of its topics was neither halted nor has failed.
    pub(super) fn has_live_topics(&self) -> bool {
        self.settings.joining.topics.iter().any(|topic| !is_gone(topic))
    }

    #[inline]
    pub(super) fn hand_out(&mut self, source: usize) -> Result<GroupBatch<'_, E, K>, GroupError> {
        let Self { group, epoch, signal, settings, partitions, .. } = self;
        let Some(assigned) = &mut partitions[source] else { return Ok(GroupBatch { held: None }) };
        let AssignedPartition { feed, topic, partition, right, name, stats, .. } = assigned;
        let (events, end) = match feed {
            Feed::Ring(consumer) => {
                // An error since the look is returned by the next look.
                let Ok(batch) = consumer.poll(settings.limit) else { return Ok(GroupBatch { held: None }) };
                let end = batch.position().0.wrapping_add(batch.len() as u64);
                (BatchEvents::Ring(batch), end)
            }
            Feed::Journal(reader) => {
                let buffered = &mut reader.buffered;
                let Some(last) = buffered.batch(settings.limit).0.last() else { return Ok(GroupBatch { held: None }) };
                let (left, end) = (settings.limit.min(buffered.len()), last + 1);
                (BatchEvents::Journal { buffered, left, end, ring: &partition.ring }, end)
            }
        };
        let first = events.position();
        if first != right.committed() && !right.commit(first) {
            // There are slots without an event in between.
            return Err(group.fenced(*epoch).into());
        }
        if settings.commit == Commit::AtMostOnce {
            if !right.commit(end) {
                return Err(group.fenced(*epoch).into());
            }
            if let Some(durable) = &topic.durable {
                // Before the user sees an event: an event whose commit is not durable may be given out again.
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

    /// Leaves for good: a member with a name gives up its place too. The listener is told what is revoked.
    pub fn leave(mut self) {
        let names = self.assignment();
        if !names.is_empty() {
            self.tell(&Rebalance::Revoked(names));
        }
        self.go(true);
    }

    /// Notes a failure for the topic's report.
    pub(super) fn note_failure(&self, partition: &TopicPartition, cause: &str) {
        let Some(topic) = self.settings.joining.topics.iter().find(|topic| topic.name == *partition.topic) else {
            return;
        };
        self.note_failure_in(topic, cause);
    }

    /// Notes a failure outside of the handler, for the reports of all its topics.
    pub(super) fn note_end(&self, cause: &str) {
        self.settings.joining.topics.iter().for_each(|topic| self.note_failure_in(topic, cause));
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
            // It had no partition of this topic: the report of its other members says what is unread.
            state.consumed.insert(0, topic.partitions()[0].ring.positions().published.0);
        }
        state.ending = Some(Ending::Failed(cause.to_owned()));
        drop(state);
        topic.keep(run);
    }

    fn go(&mut self, for_good: bool) {
        self.group.leave(self.id, self.partitions.drain(..).flatten().collect(), for_good);
    }
}

impl<E: Send + Sync + 'static, K: Producers> Selectable for Member<E, K> {
    fn is_ready(&mut self) -> bool {
        Member::is_ready(self)
    }

    fn arm(&mut self, waiter: &Arc<Waiter>, token: usize) -> bool {
        self.signal.watch(waiter, token);
        self.begin_to_wait();
        self.arm_paused(waiter, token);
        let mut read = self.partitions.iter_mut().flatten().filter(|assigned| !assigned.paused && !assigned.ended);
        let armed = read.all(|assigned| match &mut assigned.feed {
            Feed::Ring(consumer) => consumer.arm(waiter, token),
            Feed::Journal(_) => false,
        });
        armed && !self.unsettled && !self.signal.has_news() && !self.has_ended_meanwhile()
    }

    fn awake(&mut self) {
        self.end_to_wait();
    }

    fn identity(&self) -> usize {
        Arc::as_ptr(&self.signal).addr()
    }
}

impl<E: Send + Sync + 'static, K: Producers> Drop for Member<E, K> {
    fn drop(&mut self) {
        self.go(false);
    }
}
