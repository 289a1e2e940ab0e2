//! Subscribers: each reads every event of its topic.

mod batch;
mod builder;
pub(crate) mod catch_up;
pub(crate) mod conflate;
pub(crate) mod dead_letters;
pub(crate) mod deadline;
pub(crate) mod error;
pub(crate) mod handler;
pub(crate) mod interval;
pub(crate) mod managed;
pub(crate) mod membership;
mod position;
pub(crate) mod reader_thread;
pub(crate) mod replay;
pub(crate) mod selector;
mod start_at;
pub(crate) mod table;
mod visibility;

pub(crate) use batch::expire;
pub use batch::{At, Batch, Messages};
pub(crate) use builder::SharedForwarder;
pub use builder::SubscriberBuilder;
pub(crate) use membership::{Membership, PartitionConsumer};
pub use start_at::StartAt;

use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::multi_wait::{MultiWait, WaitEnd, WaitSources};
use crate::base::wakeup::Wakeup;
use crate::read::error::ReadError;
use crate::topic::TopicCore;
use slipring_journal::Visible;
use slipring_ring::{Multi, Waiter};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use visibility::VisibilityLimit;

/// The shortest limit of a [`poll`](Subscriber::poll) that pauses as one does that will sleep next: for threads that look for more before
/// they hand over what they have, so that they do not disturb a producer at each event.
const PAUSE: Duration = Duration::from_nanos(1);

/// A subscriber that the caller polls, without a thread of its own.
///
/// ```
/// # use slipring::Engine;
/// # use std::time::Duration;
/// # let engine = Engine::builder().build()?;
/// # let ticks = engine.topic::<u64>("ticks").create()?;
/// let mut tape = ticks.subscribe("tape").poll()?;
/// ticks.producer().create()?.publish(|tick| *tick = 42)?;
/// ticks.close();
/// while let Some(mut batch) = tape.poll(Duration::from_millis(100))? {
///     for (tick, at) in &mut batch {
///         println!("{tick} at {}", at.offset);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Subscriber<E, K: Producers = Multi> {
    pub(crate) topic: Arc<TopicCore<E, K>>,
    pub(crate) membership: Arc<Membership<E, K>>,
    /// The consumer of each partition, by the partition's number.
    pub(crate) parts: Vec<PartitionConsumer<E, K>>,
    first: Vec<u64>,
    watch: MultiWait,
    /// Numbers of the partitions that were closed and read to their end.
    over: Vec<u32>,
    paused: Vec<u32>,
    limit: usize,
    /// The limit of a subscriber that waits for the journal. `None` if it reads events as soon as they are published.
    visibility: Option<VisibilityLimit>,
}

impl<E, K: Producers> fmt::Debug for Subscriber<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscriber {:?} of {:?}", self.membership.stats.name, self.topic.name)
    }
}

impl<E, K: Producers> Subscriber<E, K> {
    fn new(
        topic: Arc<TopicCore<E, K>>,
        membership: Arc<Membership<E, K>>,
        parts: Vec<PartitionConsumer<E, K>>,
        limit: usize,
        visible: Option<Visible>,
    ) -> Self {
        let visibility = visible.zip(topic.durable.as_ref());
        let visibility = visibility.map(|(visible, durable)| VisibilityLimit::new(visible, Arc::clone(&durable.acks)));
        let mut watch = MultiWait::new(membership.wait.clone(), Arc::clone(&membership.waiter));
        (0..parts.len()).for_each(|source| watch.add(source));
        let first = parts.iter().map(|part| part.consumer.consumed().0).collect();
        Self { topic, membership, parts, first, watch, over: Vec::new(), paused: Vec::new(), limit, visibility }
    }

    /// The subscriber's name.
    pub fn name(&self) -> &str {
        &self.membership.stats.name
    }

    /// A handle by which another thread ends the present or the next wait of a [`poll`](Self::poll).
    pub fn wakeup(&self) -> Wakeup {
        self.watch.wakeup()
    }

    /// Waits for events, for at most `limit`, and returns a batch of one partition. The batch is empty if no event
    /// came, or a [`Wakeup`] ended the wait. `None` if the topic was closed and all events were read. A limit of zero
    /// never waits.
    ///
    /// A call does not poll every partition: if more than 16 partitions are polled in turn, one that was found empty 64
    /// times in a row is left out until it has an event. So the cost of a call does not grow with the number of quiet
    /// partitions, except with [`visible`](SubscriberBuilder::visible), where no partition is left out. Before it
    /// sleeps, the call makes as many polls as [`Wait::spin_for`](slipring_ring::Wait::spin_for) has time for, one between two
    /// spin hints, and then [`Wait::yields`](slipring_ring::Wait::yields) more, of all partitions together. A limit of zero never
    /// [pauses](slipring_ring::Wait::pause).
    ///
    /// While partitions are [paused](Self::pause), a closed topic does not end: once all other partitions are read to
    /// their end, each call returns an empty batch at once, until the paused partitions are resumed and read.
    ///
    /// # Errors
    /// The topic was halted, a consumer failed, or this subscriber was evicted.
    #[inline]
    pub fn poll(&mut self, limit: Duration) -> Result<Option<Batch<'_, E, K>>, ReadError> {
        let now = limit.is_zero();
        let deadline = if now || limit == Duration::MAX { None } else { Instant::now().checked_add(limit) };
        self.poll_by(now, deadline)
    }

    pub(crate) fn poll_by(
        &mut self,
        now: bool,
        deadline: Option<Instant>,
    ) -> Result<Option<Batch<'_, E, K>>, ReadError> {
        let source = match self.find(now, deadline)? {
            FindOutcome::Source(source) => Some(source),
            FindOutcome::Nothing | FindOutcome::Paused => None,
            FindOutcome::End => return Ok(None),
        };
        let Self { parts, topic, membership, limit, visibility, .. } = self;
        let refused = |reason: slipring_ring::Closed| ReadError {
            topic: topic.name.clone(),
            consumer: membership.stats.name.clone(),
            reason: reason.into(),
        };
        let part = &mut parts[source.unwrap_or(0)];
        let partition = part.partition.index;
        let seen = match (visibility, source) {
            (Some(visibility), Some(source)) => visibility.room(source, part),
            _ => usize::MAX,
        };
        let batch = if source.is_some() { part.consumer.poll(seen.min(*limit)) } else { Ok(part.consumer.nothing()) };
        let batch = batch.map_err(refused)?;
        if source.is_some() {
            membership.stats.batch(batch.len());
        }
        Ok(Some(Batch { batch, partition }))
    }

    /// Finds a partition with events, without consuming any. A second call finds the same events.
    #[inline]
    pub(crate) fn find(&mut self, now: bool, deadline: Option<Instant>) -> Result<FindOutcome, ReadError> {
        match self.paused.is_empty() {
            true => Ok(self.find_unpaused(now, deadline)?.unwrap_or(FindOutcome::Nothing)),
            false => self.find_beside_pauses(now, deadline),
        }
    }

    #[cold]
    fn find_beside_pauses(&mut self, now: bool, deadline: Option<Instant>) -> Result<FindOutcome, ReadError> {
        loop {
            match self.find_unpaused(true, None)? {
                None | Some(FindOutcome::Nothing) => {}
                Some(found) => return Ok(found),
            }
            if !now {
                let waiter = Arc::clone(&self.membership.waiter);
                self.arm_paused(&waiter, MultiWait::WAKE);
            }
            if self.is_over_but_for_pauses()? {
                return Ok(FindOutcome::Paused);
            }
            if now {
                return Ok(FindOutcome::Nothing);
            }
            if let Some(found) = self.find_unpaused(false, deadline)? {
                return Ok(found);
            }
        }
    }

    /// Registers the waiter for the end of the paused partitions. Their events do not wake it.
    fn arm_paused(&mut self, waiter: &Waiter, token: usize) {
        for &index in &self.paused {
            self.parts[index as usize].consumer.arm_for_end(waiter, token);
        }
    }

    /// True if all partitions that are not paused are read to their end, and the paused ones are closed.
    fn is_over_but_for_pauses(&mut self) -> Result<bool, ReadError> {
        let mut is_over = true;
        for index in 0..self.parts.len() {
            let PartitionConsumer { partition, consumer } = &mut self.parts[index];
            if self.over.contains(&(index as u32)) {
                continue;
            }
            if !self.paused.contains(&(index as u32)) {
                is_over = false;
                continue;
            }
            match consumer.poll(1).map(drop) {
                Ok(()) => is_over &= partition.ring.closed().is_some(),
                Err(slipring_ring::Closed::Finished | slipring_ring::Closed::Closed) => {}
                Err(reason) => return Err(self.refused(reason.into())),
            }
        }
        Ok(is_over)
    }

    /// Finds a partition with events among those that are not paused. `None` if others are paused, and the wait has ended
    /// because of new partitions, another wait strategy, or the end of a paused partition: then the caller checks again.
    fn find_unpaused(&mut self, now: bool, deadline: Option<Instant>) -> Result<Option<FindOutcome>, ReadError> {
        loop {
            if !self.over.is_empty() && self.over.len() == self.parts.len() {
                // If a partition was added before the topic was closed, this change is visible by now. Without a change
                // all partitions are over.
                if !self.membership.has_changes.load(Ordering::Acquire) {
                    return Ok(Some(FindOutcome::End));
                }
                self.take_changes();
            }
            let Self { parts, membership, topic, limit, watch, visibility, .. } = &mut *self;
            let mut parts = SubscriberSources { parts, membership, topic, limit: *limit, visibility, over: None };
            let found = watch.next(&mut parts, now, deadline);
            let over = parts.over;
            match (found, over) {
                (WaitEnd::Source(source), None) => return Ok(Some(FindOutcome::Source(source))),
                (WaitEnd::Source(source), Some(slipring_ring::Closed::Finished | slipring_ring::Closed::Closed)) => {
                    self.watch.remove(source);
                    self.over.push(source as u32);
                }
                (_, Some(reason)) => return Err(self.refused(reason.into())),
                (WaitEnd::Interrupted, None) => {
                    self.take_changes();
                    if !now && !self.paused.is_empty() {
                        return Ok(None);
                    }
                }
                (WaitEnd::Nothing, None) => return Ok(Some(FindOutcome::Nothing)),
            }
        }
    }

    /// Registers `task` to be woken by the next event, end or error, and returns true. To be called after a search has
    /// found nothing. Returns false, and does not register the task, if there is an event, end or error by now.
    #[cfg(feature = "async")]
    pub(crate) fn wake(&mut self, task: &std::task::Waker) -> bool {
        if !self.paused.is_empty() {
            let waiter = Arc::clone(&self.membership.waiter);
            self.arm_paused(&waiter, MultiWait::WAKE);
            if !matches!(self.find(true, None), Ok(FindOutcome::Nothing)) {
                return false;
            }
        }
        let Self { parts, membership, topic, limit, watch, visibility, .. } = self;
        watch.wake(&mut SubscriberSources { parts, membership, topic, limit: *limit, visibility, over: None }, task)
    }

    /// Registers another waiter, such as a selector's, to be woken under `token` when there are events to read, or an
    /// end or an error. False if there are some by now, or other threads have left changes: then the caller polls.
    pub(crate) fn arm(&mut self, waiter: &Arc<Waiter>, token: usize) -> bool {
        self.membership.watchers.add(waiter, token);
        self.arm_paused(waiter, token);
        if !self.paused.is_empty() && !matches!(self.find(true, None), Ok(FindOutcome::Nothing)) {
            return false;
        }
        let Self { parts, paused, over, visibility, .. } = self;
        let mut read = parts.iter_mut().enumerate().filter(|(_, part)| {
            let index = &part.partition.index;
            !paused.contains(index) && !over.contains(index)
        });
        let armed = read.all(|(source, part)| arm_part(visibility, source, part, waiter, token));
        armed && !self.membership.has_changes.load(Ordering::Acquire)
    }

    fn refused(&self, reason: Closed) -> ReadError {
        ReadError { topic: self.topic.name.clone(), consumer: self.membership.stats.name.clone(), reason }
    }

    /// Applies the changes that other threads have left: new partitions, and another wait strategy.
    #[cold]
    fn take_changes(&mut self) {
        self.membership.has_changes.store(false, Ordering::Relaxed);
        // Dropping the old wait strategy runs user code, so the lock is released first.
        let wait = self.membership.other_wait.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(wait) = wait {
            self.parts.iter_mut().for_each(|part| part.consumer.set_wait(wait.clone()));
            self.watch.wait = wait;
        }
        for part in self.membership.added.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            self.watch.add(self.parts.len());
            self.first.push(part.consumer.consumed().0);
            self.parts.push(part);
        }
    }
}

/// Registers the waiter to be woken under `token` when the partition has a visible event, an end or an error. False if
/// it has one by now.
fn arm_part<E, K: Producers>(
    visibility: &mut Option<VisibilityLimit>,
    source: usize,
    part: &mut PartitionConsumer<E, K>,
    waiter: &Arc<Waiter>,
    token: usize,
) -> bool {
    if let Some(visibility) = visibility
        && part.consumer.lag() > 0
        && visibility.room(source, part) == 0
    {
        // The ring has events, but the journal has not written or synced them yet, so the journal's progress is
        // awaited.
        return visibility.arm(source, part, waiter, token);
    }
    part.consumer.arm(waiter, token)
}

/// The outcome of a search for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FindOutcome {
    /// The partition with this number has events.
    Source(usize),
    /// No event was found in time.
    Nothing,
    /// The topic was closed, and all partitions but the paused ones are read to their end.
    Paused,
    /// The topic was closed, and all partitions are read to their end.
    End,
}

/// A subscriber's partitions, in the form in which a [`MultiWait`] waits for them.
struct SubscriberSources<'s, E, K: Producers> {
    parts: &'s mut [PartitionConsumer<E, K>],
    membership: &'s Membership<E, K>,
    topic: &'s TopicCore<E, K>,
    limit: usize,
    visibility: &'s mut Option<VisibilityLimit>,
    /// The reason why the partition that the wait has returned has no more events to read; `None` if it has events.
    over: Option<slipring_ring::Closed>,
}

impl<E, K: Producers> WaitSources for SubscriberSources<'_, E, K> {
    #[inline]
    fn look(&mut self, source: usize, looks: u32) -> bool {
        // Read before the events: if the journal has ended by now, all events that will ever be visible are visible.
        let is_over = self.visibility.as_ref().is_some_and(|visibility| visibility.is_over(source));
        let seen =
            self.visibility.as_mut().map_or(usize::MAX, |visibility| visibility.room(source, &self.parts[source]));
        let PartitionConsumer { partition, consumer } = &mut self.parts[source];
        match consumer.poll_paced(self.limit.min(seen).max(1), looks) {
            Ok(batch) if seen == 0 => {
                let is_lost = is_over && !batch.is_empty();
                drop(batch);
                if is_lost {
                    // The remaining events were published but will never be written, so this subscriber does not get
                    // them.
                    self.over = partition.ring.closed();
                }
                self.over.is_some()
            }
            Ok(mut batch) => match self.topic.settings.time_to_live {
                Some(limit) if !batch.is_empty() => {
                    let expired = expire(&mut batch, partition, self.topic.host.clock.wall().minus(limit));
                    self.membership.stats.expired.fetch_add(expired, Ordering::Relaxed);
                    !batch.is_empty()
                }
                _ => !batch.is_empty(),
            },
            Err(reason) => {
                self.over = Some(reason);
                true
            }
        }
    }

    fn arm(&mut self, source: usize, _: &Waiter) -> bool {
        // The subscriber's `MultiWait` waits with the membership's waiter, so that is the waiter passed here.
        arm_part(self.visibility, source, &mut self.parts[source], &self.membership.waiter, source)
    }

    /// False for a subscriber that waits for the journal: a call that does not wait must find each event that is
    /// visible. It could miss the event in a resting partition, which the journal's thread wakes only after it has made
    /// the event visible.
    fn may_rest(&self, _: usize) -> bool {
        self.visibility.is_none()
    }

    #[inline]
    fn is_interrupted(&self) -> bool {
        self.membership.has_changes.load(Ordering::Acquire)
    }
}
