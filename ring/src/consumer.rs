//! Polled stages: a consumer reads at its own pace on the thread that calls it.

use crate::access::{Access, Exclusive, Shared};
use crate::batch::Batch;
use crate::bell::Bell;
use crate::closing::{Closed, Phase};
use crate::core::Core;
use crate::error::SeekError;
use crate::event_look::EventLook;
use crate::fault::{Fault, fault};
use crate::fence;
use crate::join::Place;
use crate::kind::{Kind, Run};
use crate::ordering::HOLD_FENCE;
use crate::sequence::{Sequence, ahead, later};
use crate::stage::{StageRef, StageState};
use crate::sync::{Arc, Instant};
use crate::wait::Wait;
use crate::waiter::Waiter;
use crate::waiting::{Look, Waiting, arm};
use crate::wakeup::Wakeup;
use std::fmt;
use std::marker::PhantomData;

/// A consumer whose batches lend `&mut E`.
pub type ConsumerMut<E, K> = Consumer<E, K, Exclusive>;

/// The consumer of a stage that is read by polling.
///
/// [`poll`](Self::poll) never waits, [`poll_wait`](Self::poll_wait) waits for at least one event, and
/// [`poll_until`](Self::poll_until) waits until a deadline. Each returns a [`Batch`] of consecutive readable events.
/// When the batch ends, the consumer's position moves past the iterated events.
///
/// ```
/// # use slipring_ring::Builder;
/// let mut builder = Builder::single(8, u64::default);
/// builder.poll("tape");
/// let (mut producer, ring) = builder.build()?;
/// let mut tape = ring.consumer("tape")?;
/// producer.publish_batch(3, |index, event| *event = index as u64)?;
/// drop(producer);
/// let mut sum = 0;
/// while let Ok(mut batch) = tape.poll_wait(2) {
///     for (_sequence, event) in &mut batch {
///         sum += *event;
///     }
/// }
/// assert_eq!(sum, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Dropping a consumer
/// Dropping a consumer removes its stage's gate. If other stages are ordered after the stage and still have something
/// to read, the ring fails with an error that names the stage, because the others could never continue. They have
/// nothing left to read if the ring is ending and this consumer has read everything, or has got the end as an error.
pub struct Consumer<E, K: Kind, A: Access = Shared> {
    pub(crate) core: Arc<Core<E, K>>,
    pub(crate) stage: Arc<StageState>,
    /// The next sequence to read. The stage publishes it as its position when a batch ends.
    pub(crate) next: u64,
    /// The position that the stage publishes. It equals `next`, unless this consumer has skipped sequences that the
    /// stages before it have not passed yet: then it is lower.
    through: u64,
    /// All sequences from `next` to below this one are known to be published events. More may be published meanwhile.
    pub(crate) available: u64,
    pub(crate) waiting: Waiting,
    first: u64,
    /// True if a poll has returned the end as an error.
    at_end: bool,
    access: PhantomData<A>,
}

impl<E, K: Kind, A: Access> fmt::Debug for Consumer<E, K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consumer {:?} at {}", self.stage.name, self.next)
    }
}

impl<E, K: Kind, A: Access> Consumer<E, K, A> {
    pub(crate) fn new(core: Arc<Core<E, K>>, stage: Arc<StageState>, place: Place, wait: Wait) -> Self {
        Self {
            core,
            stage,
            next: place.next,
            through: place.through,
            available: place.next,
            waiting: Waiting::new(wait),
            first: place.next,
            at_end: false,
            access: PhantomData,
        }
    }

    /// A reference to this stage, for ordering other stages after it.
    pub fn stage(&self) -> StageRef {
        StageRef { name: self.stage.name.clone(), ring: Some(self.core.id) }
    }

    /// True if both consumers are of one ring.
    pub fn same_ring<B: Access>(&self, other: &Consumer<E, K, B>) -> bool {
        self.core.id == other.core.id
    }

    /// The sequence at which this consumer started. No event from there on was overwritten before this consumer passed
    /// it.
    pub fn first(&self) -> Sequence {
        Sequence(self.first)
    }

    /// The next sequence that this consumer will read: its position.
    pub fn consumed(&self) -> Sequence {
        Sequence(self.next)
    }

    /// Count of published sequences that this consumer has not passed. Skipped slots are included.
    pub fn lag(&self) -> u64 {
        ahead(self.core.published(), self.next).max(0) as u64
    }

    /// Sets the wait strategy of this consumer.
    pub fn set_wait(&mut self, wait: Wait) {
        self.waiting.set(wait);
    }

    /// A handle by which another thread ends this consumer's present or next wait.
    pub fn wakeup(&mut self) -> Wakeup {
        self.waiting.wakeup()
    }

    /// Moves to `to` without reading the events in between. A seek forward skips published events; stages after this
    /// one receive a skipped event once the stages before have passed it. A seek backward leaves the ring and joins
    /// again at `to`, so the event there must still be kept: because a slower stage has not read it, or by
    /// [`Builder::retain`](crate::Builder::retain).
    ///
    /// ```
    /// # use slipring_ring::{Builder, Sequence};
    /// let mut builder = Builder::single(8, u64::default);
    /// builder.retain(4).poll("tape");
    /// let (mut producer, ring) = builder.build()?;
    /// let mut tape = ring.consumer("tape")?;
    /// for value in 0..6 {
    ///     producer.publish(|event| *event = value)?;
    /// }
    /// tape.seek(Sequence(6))?;
    /// tape.seek(Sequence(2))?;
    /// assert_eq!((&mut tape.poll(1)?).into_iter().next(), Some((Sequence(2), &2)));
    /// assert!(tape.seek(Sequence(1)).is_err(), "no longer kept");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `to` is no longer kept, or is beyond the published position; this stage was evicted; or the ring was halted or
    /// has failed. A seek backward also fails if another stage is ordered after this one, or if the system refuses the
    /// fence that it needs. The consumer then stays at its position.
    pub fn seek(&mut self, to: Sequence) -> Result<(), SeekError> {
        if let Some(closed) = self.core.closing.reason().filter(|_| self.core.closing.phase().at_once()) {
            return Err(closed.into());
        }
        if self.stage.is_evicted() {
            return Err(self.evicted().into());
        }
        if to.since(Sequence(self.next)) < 0 {
            let (stage, place) = self.core.rejoin(&self.stage, Sequence(self.next), to)?;
            (self.stage, self.next, self.through) = (stage, place.next, place.through);
            if !fault(Fault::SeekBackKeepsWhatItKnew) {
                self.available = place.next;
            }
            self.at_end = false;
            return Ok(());
        }
        let latest = self.core.published();
        if ahead(to.0, latest) > 0 {
            let (stage, earliest) = (self.stage.name.clone(), Sequence(self.next));
            return Err(SeekError::OutOfRange { stage, asked: to, earliest, latest: Sequence(latest) });
        }
        self.available = later(self.available, to.0);
        self.next = to.0;
        // The stage's position moves over the skipped sequences as far as the stages before have passed them.
        self.events(1).let_through();
        Ok(())
    }

    /// Arms `waiter`, that is, registers it for one wake-up with `token` when more events may be readable, so that one
    /// thread can sleep on many rings. Returns true if the thread may sleep now. Returns false if events, or the end,
    /// can be read already: then poll again. After false, the waiter may still be woken once without need. [`Waiter`]
    /// describes the whole protocol.
    ///
    /// This issues a heavy fence (see [`crate::fence`]), which interrupts the other running threads of this process.
    pub fn arm(&mut self, waiter: &Waiter, token: usize) -> bool {
        arm(&mut self.events(1), waiter, token).is_none()
    }

    /// Arms `waiter`, that is, registers it for one wake-up with `token` when the ring ends or this consumer is
    /// evicted, but not when events are published. Returns true if neither has happened yet. Returns false if one has:
    /// then the next poll without an event returns the reason. The waiter may be woken once without need after this
    /// consumer has moved.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Waiter};
    /// # let mut builder = Builder::single(8, u64::default);
    /// # builder.poll("tape");
    /// # let (mut producer, ring) = builder.build()?;
    /// # let mut tape = ring.consumer("tape")?;
    /// let waiter = Waiter::new();
    /// assert!(tape.arm_for_end(&waiter, 7));
    /// producer.publish(|event| *event = 42)?;
    /// assert!(!waiter.take(|_| ()), "an event wakes nobody");
    /// ring.close();
    /// waiter.park(None, |token| assert_eq!(token, 7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn arm_for_end(&mut self, waiter: &Waiter, token: usize) -> bool {
        // This stage's own bell suffices: besides this consumer, only a thread that ends the ring or evicts the stage
        // rings it.
        self.stage.bell.arm(waiter, token);
        Bell::fence(std::iter::once(&*self.stage.bell), waiter, token);
        self.core.closing.phase() == Phase::Open && !self.stage.is_evicted()
    }

    /// Returns the events that are readable now, at most `limit` of them (0 counts as 1). The batch is empty if there
    /// are none. Never waits.
    ///
    /// # Errors
    /// The ring is finished or closed and this consumer has read everything, the ring was halted or has failed, or this
    /// consumer was evicted.
    #[inline]
    pub fn poll(&mut self, limit: usize) -> Result<Batch<'_, E, K, A>, Closed> {
        let limit = limit.max(1) as u64;
        match self.events(limit).look() {
            Some(found) => self.batch(found, limit),
            None => Ok(Batch::empty(self)),
        }
    }

    /// Reports the length of a found run to the adaptive pause (see [`Waiting::learn`]). Above half of the capacity
    /// counts as too many events. The limit for too few events is a quarter of the capacity, but at most 1,024, the
    /// batch limit, and half of `LONGEST_LOOK`, because a search may end before the last readable event.
    #[inline(always)]
    pub(crate) fn learn(&mut self, run: Run, limit: u64) {
        let capacity = self.core.capacity();
        let few = (capacity / 4).clamp(1, 1024).min(limit).min(K::LONGEST_LOOK / 2);
        self.waiting.learn(run.end.wrapping_sub(self.next), few, capacity / 2);
    }

    /// Waits without a time limit for at least one event, and returns at most `limit` events (0 counts as 1). The batch
    /// is empty only if a [`Wakeup`] ends the wait.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    #[inline]
    pub fn poll_wait(&mut self, limit: usize) -> Result<Batch<'_, E, K, A>, Closed> {
        self.poll_by(limit, None)
    }

    /// Waits until `deadline` for at least one event, and returns at most `limit` events (0 counts as 1). The batch is
    /// empty if the deadline passes, or a [`Wakeup`] ends the wait.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn poll_until(&mut self, limit: usize, deadline: Instant) -> Result<Batch<'_, E, K, A>, Closed> {
        self.poll_by(limit, Some(deadline))
    }

    #[inline]
    fn poll_by(&mut self, limit: usize, deadline: Option<Instant>) -> Result<Batch<'_, E, K, A>, Closed> {
        let limit = limit.max(1) as u64;
        self.waiting.pause();
        loop {
            // Not `self.events()`, because `self.waiting` is borrowed as well.
            let (next, through, available) = (self.next, &mut self.through, self.available);
            let mut events = EventLook { core: &self.core, stage: &self.stage, next, through, available, limit };
            let Some(found) = self.waiting.until(deadline, &mut events) else { return Ok(Batch::empty(self)) };
            if let Ok(run) = found
                && run.start != run.end
            {
                self.learn(run, limit);
            }
            if let Some(len) = self.begin(found, limit)? {
                return Ok(Batch::new(self, len));
            }
        }
    }

    #[inline(always)]
    pub(crate) fn events(&mut self, limit: u64) -> EventLook<'_, E, K> {
        let (next, through, available) = (self.next, &mut self.through, self.available);
        EventLook { core: &self.core, stage: &self.stage, next, through, available, limit }
    }

    #[inline(always)]
    pub(crate) fn batch(&mut self, found: Result<Run, Closed>, limit: u64) -> Result<Batch<'_, E, K, A>, Closed> {
        match self.begin(found, limit)? {
            Some(len) => Ok(Batch::new(self, len)),
            None => Ok(Batch::empty(self)),
        }
    }

    /// Begins a batch: marks that the stage holds one, and returns the count of its events, at most `limit`. `None` if
    /// the run has no event, only slots that are skipped. An error if `found` is one, or if the stage was evicted.
    #[inline(always)]
    fn begin(&mut self, found: Result<Run, Closed>, limit: u64) -> Result<Option<u64>, Closed> {
        let run = match found {
            Ok(run) => run,
            Err(closed) => return Err(self.over(closed)),
        };
        if run.start == self.through && run.start != run.end {
            self.available = run.end;
        } else if self.has_passed_over(run) {
            return Ok(None);
        }
        let too_early = fault(Fault::StageLooksForTheEndTooEarly).then(|| self.core.closing.phase());
        self.stage.hold();
        // Pairs with EVICT_FENCE: this stage sees the eviction, or the evicting thread sees the batch. Pairs also with
        // CLOSE_FENCE.
        fence::light_at(&HOLD_FENCE);
        if self.stage.is_evicted() {
            return Err(self.evicted());
        }
        // Must come after the search for events, and after the fence: see `closing.rs`.
        if too_early.unwrap_or_else(|| self.core.closing.phase()) != Phase::Open {
            return self.begin_at_the_end(limit);
        }
        if fault(Fault::GateMovedBeforeTheRead) {
            self.stage.advance(run.end);
        }
        Ok(Some(limit.min(run.end.wrapping_sub(run.start))))
    }

    /// In an open ring, passes the slots before the run. True if the run has no event.
    ///
    /// In a ring that is not open nothing is passed here: claims that were made after the close leave skipped slots
    /// beyond the recorded end, which no position passes. A stage that finds such a slot also sees that phase.
    #[cold]
    #[inline(never)]
    fn has_passed_over(&mut self, run: Run) -> bool {
        if self.core.closing.phase() != Phase::Open {
            return false;
        }
        self.pass_over(run);
        run.start == run.end
    }

    /// As [`begin`](Self::begin), for a ring that is not open. The events that were found may lie beyond the recorded
    /// end, so this searches again below that end.
    #[cold]
    #[inline(never)]
    fn begin_at_the_end(&mut self, limit: u64) -> Result<Option<u64>, Closed> {
        let phase = self.core.closing.phase();
        match self.events(limit).last_look(phase) {
            Some(Ok(run)) => {
                self.pass_over(run);
                if run.start != run.end {
                    return Ok(Some(limit.min(run.end.wrapping_sub(run.start))));
                }
            }
            Some(Err(closed)) => {
                self.stage.let_go();
                return Err(self.over(closed));
            }
            None => {}
        }
        self.stage.let_go();
        Ok(None)
    }

    /// Moves this consumer to the start of the run, past slots without events and past sequences that a seek has
    /// skipped. The run is readable from its start on, so the stages before have passed all sequences below.
    #[inline(always)]
    fn pass_over(&mut self, run: Run) {
        if run.start != self.through {
            if fault(Fault::SkippedSlotsGivenBackWithoutARing) {
                self.stage.advance(run.start);
                (self.next, self.through) = (run.start, run.start);
            } else {
                self.release(run.start);
            }
        }
        self.available = run.end;
    }

    /// Prepares the error that a poll returns. Sets `at_end` and returns `closed`. If that is [`Closed::Evicted`],
    /// removes the stage's gate instead, and returns `Evicted` with this stage's name.
    #[cold]
    fn over(&mut self, closed: Closed) -> Closed {
        if let Closed::Evicted { .. } = closed {
            return self.evicted();
        }
        self.at_end = true;
        closed
    }

    #[cold]
    fn evicted(&mut self) -> Closed {
        self.stage.let_go();
        self.core.leave(&self.stage);
        Closed::Evicted { stage: self.stage.name.clone() }
    }

    /// Ends a batch whose events below `to` were read. If the stage was evicted meanwhile, removes its gate.
    #[inline(always)]
    pub(crate) fn end(&mut self, to: u64) {
        if to != self.next {
            self.release(to);
        }
        self.stage.let_go();
        // Pairs with EVICT_FENCE: a thread that evicts this stage may have seen the batch, and then leaves the removal
        // of the gate to this thread.
        fence::light_at(&HOLD_FENCE);
        if self.stage.is_evicted() && !fault(Fault::NoLookForAnEvictionAfterTheBatch) {
            self.core.leave(&self.stage);
        }
    }

    /// Moves this consumer and its stage's position to `to`. Stages after this one may then read the slots below `to`,
    /// and producers may overwrite them.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn release(&mut self, to: u64) {
        (self.next, self.through) = (to, to);
        self.stage.advance(to);
        self.stage.bell.ring();
    }
}

impl<E, K: Kind, A: Access> Drop for Consumer<E, K, A> {
    fn drop(&mut self) {
        self.core.leave_for_good(&self.stage, self.at_end);
    }
}
