//! Consumer groups: each partition is read by exactly one member, and the group continues at its committed offsets.
//!
//! [`Topic::group`](crate::Topic::group) returns the builder of a member; the group is created with its first member.
//! [`join`](GroupBuilder::join) returns a [`Member`] to be polled, [`run`](GroupBuilder::run) starts one on a thread
//! with a handler, [`run_into`](GroupBuilder::run_into) one whose handler publishes, with the [`Delivery`] of your
//! choice.
//!
//! ```
//! use slipring::Engine;
//! use std::time::Duration;
//!
//! let engine = Engine::builder().build()?;
//! let ticks = engine.topic::<u64>("ticks").create()?;
//! let mut member = ticks.group("sums").join()?;
//! ticks.producer().create()?.publish_batch(3, |index, tick| *tick = index as u64)?;
//! let batch = member.poll(Duration::from_secs(60))?.unwrap();
//! assert_eq!(batch.iter().map(|(tick, _)| tick).sum::<u64>(), 3);
//! batch.commit()?;                                        // dropped without: it is read again
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - Each partition has at most one member at any moment. A member that leaves, dies or makes no progress is replaced,
//!   and its successor continues at the committed offset.
//! - A replaced member can commit nothing more: it gets [`Fenced`].
//! - No uncommitted event is overwritten: producers wait for the committed offset, unless the group
//!   [spills](GroupBuilder::spill).
//! - On durable topics committed offsets survive the process.
//!
//! # Errors
//! [`GroupError`]: why a member cannot join or read. [`CommitError`]: why it cannot commit. An offset that is no longer
//! kept is an error with the range of offsets, never a silent reset.
//!
//! # Unlike Kafka
//! Members are handles in this process, so there are no heartbeats: a member shows that it lives by polling.
//! Rebalancing is incremental, as in KIP-848: members keep reading the partitions that do not move. A commit is one
//! atomic exchange; no request is sent.

// A group has one ring consumer for each partition. The consumer belongs to the group. The partition's member holds it,
// and returns it when the partition is revoked or the member leaves. The consumer's gating position is the committed
// offset, because a batch that is not committed leaves the consumer where it was. A fenced member returns no consumer.
// So first its `CommitRight` ends, after which it can commit nothing; then a successor's consumer joins at the
// committed offset; and only then the old consumer is evicted.
//
// The lock is for joining, leaving and rebalancing. Reading and committing take no lock: a member reads one atomic of
// its `MemberSignal` in each poll.
//
// Lock order: the readers of topics (by topic id), the group's state, then the timer or a ring.

mod any;
mod assigned_partition;
pub(crate) mod assignment;
mod batch;
mod builder;
mod catch_up;
mod coordinator;
mod deliver;
mod describe;
mod error;
mod gates;
mod handler;
mod listener;
mod managed;
mod member;
mod members;
mod position;
mod registry;
mod settings;
mod signal;
mod state;
mod sticky;
mod topics;
mod whole;

pub use assignment::Assignor;
pub use batch::{GroupBatch, GroupMessages};
pub use builder::{GroupBuilder, GroupName};
pub use deliver::Delivery;
pub use describe::{GroupDescription, GroupPartition, GroupState, MemberDescription};
pub use error::{CommitError, GroupError};
pub use listener::Rebalance;
pub use managed::{GroupRun, MemberEnd};
pub use member::Member;
pub use settings::Commit;

pub use crate::log::offsets::commit_right::Fenced;
pub use crate::log::offsets::commit_word::{MAX_METADATA, MetadataTooLong};

pub(crate) use any::AnyGroup;
pub(crate) use describe::add_recorded;
pub(crate) use registry::Groups;

use crate::base::clock::Clock;
use crate::base::held::{self, Locked};
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::base::threads::{self, Threads};
use crate::base::trace::lifecycle;
use crate::topic::TopicCore;
use crate::topic::registry::Host;
use assigned_partition::AssignedPartition;
use assignment::PartitionKey;
use coordinator::Coordinator;
use signal::{NEVER, nanos};
use state::{PartitionEntry, SharedState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

/// A group: its name, its members, and its topics with events of one type.
pub(crate) struct Group<E, K: Producers> {
    pub(crate) name: String,
    clock: Arc<dyn Clock>,
    /// The engine's services, such as the timer. They own this group, so this reference must be weak.
    host: Weak<Host>,
    pub(crate) threads: Threads,
    this: Weak<Self>,
    state: Mutex<SharedState<E, K>>,
    /// A copy of the coordinator's epoch, for the errors of threads that must not take the group's lock.
    epoch: AtomicU64,
    /// The time at which the timer checks next for members past their deadline, in nanoseconds of the engine's clock;
    /// `NEVER` if the timer is not set.
    timer_at: AtomicU64,
    /// Notified when a partition was read to its end, and when a member has left.
    drained: Condvar,
}

/// Topics, by the numbers that the group has given them.
type NumberedTopics<'t, E, K> = BTreeMap<u32, &'t Arc<TopicCore<E, K>>>;

impl<E: Send + Sync + 'static, K: Producers> Group<E, K> {
    pub(crate) fn new(name: &str, host: &Arc<Host>) -> Arc<Self> {
        let state = SharedState {
            coordinator: Coordinator::new(Assignor::default()),
            topics: BTreeMap::new(),
            next_topic: 0,
            skipped_before: 0,
            entries: BTreeMap::new(),
            signals: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            patterns: BTreeSet::new(),
            patterns_ended: false,
            refusals: BTreeMap::new(),
            hold: false,
            due: None,
            unused_since: None,
        };
        Arc::new_cyclic(|this| Self {
            name: name.to_owned(),
            clock: Arc::clone(&host.clock),
            host: Arc::downgrade(host),
            threads: Threads::default(),
            this: Weak::clone(this),
            state: Mutex::new(state),
            epoch: AtomicU64::new(0),
            timer_at: AtomicU64::new(NEVER),
            drained: Condvar::new(),
        })
    }

    fn state(&self) -> Locked<'_, SharedState<E, K>> {
        held::lock(&self.state)
    }

    /// The present time of the engine's clock. The clock is user code, so it is never read under the lock.
    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn fenced(&self, member_epoch: u64) -> Fenced {
        Fenced { group: self.name.clone(), member_epoch, group_epoch: self.epoch() }
    }

    /// Fences the members whose deadline has passed at `now`, and takes their partitions.
    fn expire(&self, state: &mut SharedState<E, K>, now: Duration) {
        for (&member, signal) in &state.signals {
            state.coordinator.seen(member, signal.activity());
        }
        let expired = state.coordinator.expire(now);
        for (member, in_hand) in &expired {
            lifecycle!(warn, "member fenced", group = self.name, member = member);
            if let Some(signal) = state.signals.remove(member) {
                signal.notify();
            }
            state.forget_member(*member);
            for partition in in_hand {
                if let Some(entry) = state.entries.get_mut(partition) {
                    self.take_from_fenced(entry);
                }
            }
        }
        if !expired.is_empty() {
            state.close_gates();
            self.drained.notify_all();
        }
    }

    /// Completes each change of the group: publishes its epoch, signals the members that have changes, and sets the
    /// timer.
    fn settle(&self, state: &mut SharedState<E, K>) {
        self.epoch.store(state.coordinator.epoch(), Ordering::Release);
        for (&number, source) in &state.topics {
            source.stats.set_attended(state.coordinator.reads(number));
        }
        for member in state.coordinator.take_news() {
            if let Some(signal) = state.signals.get(&member) {
                signal.notify();
            }
        }
        self.schedule(state);
    }

    /// Sets the timer to the earliest deadline of a member, or removes it if no member has one.
    fn schedule(&self, state: &mut SharedState<E, K>) {
        // Without the engine there is no timer. Only a member without topics outlives the engine, and its wait has ended.
        let Some(host) = self.host.upgrade() else {
            state.due = None;
            return self.timer_at.store(NEVER, Ordering::SeqCst);
        };
        loop {
            let next = state.coordinator.next_deadline();
            match (next, &state.due) {
                // The timer is set to this time or an earlier one, at which its task sets it again.
                (Some(next), Some((at, _))) if *at <= next => {}
                _ => {
                    if let Some((_, due)) = state.due.take() {
                        host.timer.cancel(due);
                    }
                    if let Some(next) = next {
                        let group = Weak::clone(&self.this);
                        let due = host.timer.at(next, move || {
                            if let Some(group) = group.upgrade() {
                                group.look();
                            }
                        });
                        state.due = Some((next, due));
                    }
                }
            }
            let at = state.due.as_ref().map_or(NEVER, |(at, _)| nanos(*at));
            self.timer_at.store(at, Ordering::SeqCst);
            // A member that stops waiting stores its time and then reads the time stored here; this thread stores this
            // time and then reads the members' times. So at least one of the two sees the other.
            for (&member, signal) in &state.signals {
                state.coordinator.seen(member, signal.activity());
            }
            if state.coordinator.next_deadline().is_none_or(|next| nanos(next) >= at) {
                return;
            }
        }
    }

    /// The timer's task: fences the members past their deadline, and sets the timer again.
    fn look(&self) {
        let now = self.now();
        let mut state = self.state();
        state.due = None;
        self.expire(&mut state, now);
        self.settle(&mut state);
    }

    /// Sets the timer to an earlier time if `now + deadline` is before the time that it is set to. Called when a member
    /// stops waiting for events, since its deadline runs from then on.
    fn reschedule(&self, now: Duration, deadline: Duration) {
        let at = now.checked_add(deadline).map_or(NEVER, nanos);
        if self.timer_at.load(Ordering::SeqCst) > at {
            let mut state = self.state();
            self.expire(&mut state, now);
            self.settle(&mut state);
        }
    }

    /// Marks a closed partition as read and committed to its end, and notifies the threads that wait for that.
    fn end(&self, assigned: &AssignedPartition<E, K>) {
        let mut state = self.state();
        match state.entries.get_mut(&assigned.id) {
            Some(entry) if entry.right.as_ref().is_some_and(|right| Arc::ptr_eq(right, &assigned.right)) => {
                entry.ended = true;
            }
            // The member was fenced in the meantime, and a successor has the partition.
            _ => return,
        }
        // Other members of these topics may also have no more events to come. They are signalled to see that.
        let over = state.signals.iter().filter(|(member, _)| state.is_over(**member));
        over.for_each(|(_, signal)| signal.notify());
        self.drained.notify_all();
    }

    /// Marks a partition as not read to its end, because a member has sought back in it.
    fn reopen(&self, id: PartitionKey) {
        if let Some(entry) = self.state().entries.get_mut(&id) {
            entry.ended = false;
        }
    }

    /// Removes a deleted topic and the group's state of it.
    fn forget(&self, id: TopicId) {
        let mut state = self.state();
        let Some(number) = state.number_of_id(id) else { return };
        if let Some(gone) = state.topics.remove(&number) {
            state.skipped_before += gone.stats.skipped.load(Ordering::Relaxed);
        }
        state.entries.retain(|partition, _| partition.topic != number);
        state.coordinator.forget(number);
        // All members are signalled, because a member that reads only this topic must end.
        state.signals.values().for_each(|signal| signal.notify());
        self.settle(&mut state);
    }

    fn refuse_members(&self, state: &SharedState<E, K>) -> Result<(), GroupError> {
        match state.coordinator.members().count() {
            0 => Ok(()),
            members => Err(GroupError::HasMembers { group: self.name.clone(), members }),
        }
    }

    /// Removes all topics and committed offsets of a group without members, and makes the committer delete the offsets
    /// from the journal. Returns the removed entries, whose consumers the caller drops after it has released the lock.
    /// The numbers of members and topics and the epoch continue to grow, so that the group never takes a former member
    /// for a new one.
    fn clear_state(&self, state: &mut SharedState<E, K>) -> Vec<PartitionEntry<E, K>> {
        let gone: Vec<_> = std::mem::take(&mut state.entries).into_values().collect();
        if let Some(committer) = self.host.upgrade().as_ref().and_then(|host| host.committer.as_ref()) {
            committer.delete_offsets(gone.iter().filter_map(|entry| entry.committed_offset.as_ref()));
        }
        let topics = std::mem::take(&mut state.topics);
        topics.keys().for_each(|number| state.coordinator.forget(*number));
        state.coordinator.set_assignor(Assignor::default());
        (state.hold, state.skipped_before, state.unused_since) = (false, 0, None);
        gone
    }

    /// Waits until managed members have read a closed topic to its end, or have left. Returns false if `deadline`
    /// passes first. Returns true at once on a thread of a managed member of the group.
    fn drain(&self, topic: u32, deadline: Instant) -> bool {
        // A handler may shut the engine down. It must not wait for itself.
        if self.threads.is_own() {
            return true;
        }
        let mut state = self.state();
        loop {
            if self.threads.wait_for_this_thread() {
                return true;
            }
            let managed = state.signals.values().any(|signal| signal.managed.load(Ordering::Acquire));
            let is_read = |(_, entry): (_, &PartitionEntry<E, K>)| entry.ended || !entry.is_open();
            let awaits = state
                .signals
                .iter()
                .any(|(member, signal)| signal.managed.load(Ordering::Acquire) && state.awaits_topics(*member));
            if !managed || (state.entries.iter().all(is_read) && !awaits) {
                drop(state);
                // No member is managed, or all partitions are read to their end and no member waits for topics that are
                // created later, so the managed members end soon. This waits for their threads.
                return self.threads.wait(deadline);
            }
            if state.entries.iter().filter(|(id, _)| id.topic == topic).all(is_read) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = state.wait(&self.state, &self.drained, Some(left.min(threads::LOOK)));
        }
    }
}
