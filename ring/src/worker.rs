//! Workers: they share the events of one stage, and each event goes to exactly one of them.

use crate::closing::{Closed, End, Phase};
use crate::core::Core;
use crate::fault::{Fault, fault};
use crate::fence;
use crate::gates::lowest;
use crate::kind::{Kind, Run};
use crate::ordering::{LOOK_AT_STAGE, SHARE_FENCE};
use crate::sequence::{Sequence, ahead, earlier, later};
use crate::stage::{StageRef, StageState};
use crate::sync::{Arc, Instant};
use crate::wait::Wait;
use crate::waiter::Waiter;
use crate::waiting::{Bells, Look, Waiting, arm};
use crate::wakeup::Wakeup;
use crate::workers::Workers;
use std::fmt;

/// One of the workers that share the events of a stage.
///
/// [`take`](Self::take) returns events that no other worker gets. A worker finishes its events in order. A later stage
/// sees an event when all workers have finished all events up to and including it.
///
/// ```
/// # use slipring_ring::Builder;
/// let mut builder = Builder::single(8, u64::default);
/// builder.workers("pool", 2);
/// let (mut producer, ring) = builder.build()?;
/// let (mut a, mut b) = (ring.worker("pool")?, ring.worker("pool")?);
/// producer.publish_batch(3, |index, event| *event = index as u64)?;
/// let mut seen = Vec::new();
/// a.take(2)?.for_each(|_, event| seen.push(*event));
/// b.take(2)?.for_each(|_, event| seen.push(*event));
/// assert_eq!(seen, [0, 1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Going away in the middle
/// The unstarted events of a worker that is dropped, or whose thread panics, go to the other workers. The one event
/// that its closure was handling when it panicked counts as lost: see
/// [`StagePosition::lost`](crate::StagePosition::lost). When the last worker is dropped, the stage leaves.
pub struct Worker<E, K: Kind> {
    core: Arc<Core<E, K>>,
    stage: Arc<StageState>,
    place: usize,
    /// The events that this worker has taken but not finished: the sequences `at..end`; none if both are equal.
    at: u64,
    end: u64,
    /// True if a take has returned the end of the ring as an error.
    at_end: bool,
    waiting: Waiting,
}

impl<E, K: Kind> fmt::Debug for Worker<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker {} of {:?}", self.place, self.stage.name)
    }
}

impl<E, K: Kind> Worker<E, K> {
    /// Creates a worker at a free place of the stage; `None` if every place is taken, or all workers have left.
    pub(crate) fn enter(core: Arc<Core<E, K>>, stage: Arc<StageState>, wait: Wait) -> Option<Self> {
        let place = stage.workers.as_ref()?.enter()?;
        Some(Self { core, stage, place, at: 0, end: 0, at_end: false, waiting: Waiting::new(wait) })
    }

    /// A reference to this stage, for ordering other stages after it.
    pub fn stage(&self) -> StageRef {
        StageRef { name: self.stage.name.clone(), ring: Some(self.core.id) }
    }

    /// Sets the wait strategy of this worker.
    pub fn set_wait(&mut self, wait: Wait) {
        self.waiting.set(wait);
    }

    /// A handle by which another thread ends this worker's present or next wait.
    pub fn wakeup(&mut self) -> Wakeup {
        self.waiting.wakeup()
    }

    /// Arms `waiter`, that is, registers it for one wake-up with `token` when there may be events to take, as
    /// [`Consumer::arm`](crate::Consumer::arm) does. Returns true if the thread may sleep now. Returns false if there
    /// are events, or the end: then take events, not more than this worker can handle now, because no other worker gets
    /// them.
    pub fn arm(&mut self, waiter: &Waiter, token: usize) -> bool {
        if self.at != self.end {
            return false;
        }
        let share = Share { core: &self.core, stage: &self.stage, place: &mut self.place, limit: 1, left: None };
        arm(&mut ShareLook(share), waiter, token).is_none()
    }

    /// Takes events that no other worker gets, at most `limit` of them (0 counts as 1), or none if there are none.
    /// Never waits. If this worker has unhandled events of its last take, returns these; else, if a dropped worker has
    /// left events, returns those. Both are returned regardless of `limit`.
    ///
    /// # Errors
    /// The ring is finished or closed and all events were taken, or it was halted or has failed.
    pub fn take(&mut self, limit: usize) -> Result<Taken<'_, E, K>, Closed> {
        let (limit, left) = (limit.max(1) as u64, self.left());
        let found = Share { core: &self.core, stage: &self.stage, place: &mut self.place, limit, left }.look();
        self.begin(found)
    }

    /// As [`take`](Self::take), but waits without a time limit for at least one event. Takes none only if a [`Wakeup`]
    /// ends the wait.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_wait(&mut self, limit: usize) -> Result<Taken<'_, E, K>, Closed> {
        self.take_by(limit, None)
    }

    /// As [`take_wait`](Self::take_wait), but waits until `deadline` at the latest. Takes no event if the deadline
    /// passes, or a [`Wakeup`] ends the wait.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_until(&mut self, limit: usize, deadline: Instant) -> Result<Taken<'_, E, K>, Closed> {
        self.take_by(limit, Some(deadline))
    }

    fn take_by(&mut self, limit: usize, deadline: Option<Instant>) -> Result<Taken<'_, E, K>, Closed> {
        let (limit, left) = (limit.max(1) as u64, self.left());
        let mut share = Share { core: &self.core, stage: &self.stage, place: &mut self.place, limit, left };
        let found = self.waiting.until(deadline, &mut share);
        self.begin(found)
    }

    fn left(&self) -> Option<Run> {
        (self.at != self.end).then_some(Run { start: self.at, end: self.end })
    }

    fn begin(&mut self, found: Option<Result<Run, Closed>>) -> Result<Taken<'_, E, K>, Closed> {
        match found {
            Some(Ok(run)) => (self.at, self.end) = (run.start, run.end),
            Some(Err(closed)) => {
                self.at_end = true;
                return Err(closed);
            }
            None => self.end = self.at,
        }
        Ok(Taken { worker: self })
    }

    pub(crate) fn state(&self) -> &Arc<StageState> {
        &self.stage
    }

    pub(crate) fn core(&self) -> &Core<E, K> {
        &self.core
    }

    /// The most events that a managed worker takes at once: `limit` if it was set, otherwise at most 8 and at most its
    /// share of the capacity, so that the other workers get some.
    pub(crate) fn fair_share(&self, limit: usize) -> usize {
        let each = self.core.capacity() as usize / self.workers().count();
        if limit == usize::MAX { each.clamp(1, 8) } else { limit }
    }

    fn workers(&self) -> &Workers {
        self.stage.workers.as_ref().expect("a worker's stage has workers")
    }

    /// Marks this worker's events before `at` as finished.
    fn done(&mut self, at: u64) {
        self.at = at;
        if at == self.end {
            self.workers().announce_nothing(self.place);
        } else {
            self.workers().announce(self.place, at);
        }
        self.stage.bell.ring();
    }
}

impl<E, K: Kind> Drop for Worker<E, K> {
    fn drop(&mut self) {
        if self.workers().leave(self.place, self.at, self.end) {
            self.core.leave_for_good(&self.stage, self.at_end);
        }
        // The other workers must adopt the unfinished events, and may be asleep at any of these bells.
        let asleep_at = self.stage.after.iter().map(|stage| &stage.bell);
        asleep_at.chain([&self.stage.bell, &self.core.bell]).for_each(|bell| bell.ring());
    }
}

/// The events that a worker has taken and not finished.
///
/// Events that are not handled when this is dropped stay with the worker: its next take returns them first.
pub struct Taken<'w, E, K: Kind> {
    worker: &'w mut Worker<E, K>,
}

impl<E, K: Kind> Taken<'_, E, K> {
    /// Count of events that are not handled yet.
    pub fn len(&self) -> usize {
        self.worker.end.wrapping_sub(self.worker.at) as usize
    }

    /// True if all events are handled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `work` with each event in order. An event is finished when `work` returns. If `work` panics, that event
    /// counts as lost, and the later ones stay with the worker.
    pub fn for_each(mut self, mut work: impl FnMut(Sequence, &E)) {
        while self.next(&mut work) {}
    }

    /// The next event with its sequence, and true if it is the last taken event; `None` if no event is left. The event
    /// stays unfinished until [`done_with_one`](Self::done_with_one) is called.
    pub(crate) fn peek(&mut self) -> Option<(Sequence, &E, bool)> {
        let Worker { core, at, end, .. } = &*self.worker;
        if at == end {
            return None;
        }
        // SAFETY: producers do not overwrite sequences that this worker has announced, and it announces a later one
        // only by a method that needs the borrow that the event holds. Workers only read, and no stage that changes
        // events runs beside them.
        let event = unsafe { &*core.buffer.slots().event(*at) };
        Some((Sequence(*at), event, at.wrapping_add(1) == *end))
    }

    pub(crate) fn done_with_one(&mut self) {
        let next = self.worker.at.wrapping_add(1);
        self.worker.done(next);
    }

    /// True if the ring was halted or has failed. Then the remaining events need not be handled.
    pub(crate) fn ends_at_once(&self) -> bool {
        self.worker.core.closing.phase().at_once()
    }

    pub(crate) fn reason(&self) -> Option<Closed> {
        self.worker.core.closing.reason()
    }

    /// Calls `work` with the next event, and returns true. Returns false, without a call, if no event is left.
    pub fn next(&mut self, work: impl FnOnce(Sequence, &E)) -> bool {
        /// Finishes the event when `work` has returned, and counts it as lost if `work` panics.
        struct FinishOnDrop<'a, E, K: Kind>(&'a mut Worker<E, K>, bool);
        impl<E, K: Kind> Drop for FinishOnDrop<'_, E, K> {
            fn drop(&mut self) {
                if !self.1 {
                    self.0.stage.counts.lose();
                }
                self.0.done(self.0.at.wrapping_add(1));
            }
        }
        if self.is_empty() {
            return false;
        }
        let mut hand = FinishOnDrop(&mut *self.worker, false);
        let at = hand.0.at;
        // SAFETY: producers do not overwrite sequences that this worker has announced, and `FinishOnDrop` announces a
        // later one only when `work` is over. Workers only read, and no stage that changes events runs beside them.
        let event = unsafe { &*hand.0.core.buffer.slots().event(at) };
        work(Sequence(at), event);
        hand.1 = true;
        true
    }
}

/// A worker's search for events: takes at most `limit` of them, and finds nothing while there are none. `left` is the
/// run of events that the worker has taken and not finished, and is found first; `None` if there are none.
struct Share<'w, E, K: Kind> {
    core: &'w Core<E, K>,
    stage: &'w StageState,
    place: &'w mut usize,
    limit: u64,
    left: Option<Run>,
}

/// The first sequence at or after `from` that lies in no gap, but at most the position of the stages before.
fn past(end: &End, stage: &StageState, from: u64) -> u64 {
    let past = end.past_gaps(from);
    stage.before().map_or(past, |before| later(from, earlier(past, before)))
}

impl<E, K: Kind> Share<'_, E, K> {
    /// Takes a share of the published events while the ring is open; `None` if there are none. The error is the phase
    /// of a ring that is not open.
    fn take(&mut self, workers: &Workers) -> Result<Option<Run>, Phase> {
        let (core, stage, limit) = (self.core, self.stage, self.limit);
        let mut phase = Phase::Open;
        let mut moved = false;
        let share = |from| {
            let too_early = fault(Fault::WorkerLooksForTheEndTooEarly).then(|| core.closing.phase());
            let run = K::share(core, from, stage.before(), limit);
            if run.end == from {
                return run;
            }
            // Must come after the search for published events. Pairs with CLOSE_FENCE: see `closing.rs`.
            fence::light_at(&SHARE_FENCE);
            phase = too_early.unwrap_or_else(|| core.closing.phase());
            if phase == Phase::Open { run } else { Run { start: from, end: from } }
        };
        let taken = workers.take(self.place, share, &mut moved);
        self.has_moved(moved);
        if taken.is_none() && phase != Phase::Open { Err(phase) } else { Ok(taken) }
    }

    /// Wakes the threads that wait for the stage's position, if it may have moved (`moved`): because skipped slots were
    /// passed, or an announcement was withdrawn that had held the position back.
    fn has_moved(&self, moved: bool) {
        if moved {
            self.stage.bell.ring();
        }
    }

    /// As [`take`](Self::take), for a ring that is not open, by the record of the end. Gaps are passed like skipped
    /// slots. `None` if all events are taken, or not published yet.
    #[cold]
    fn take_at_the_end(&mut self, workers: &Workers) -> Option<Run> {
        let (core, stage, limit) = (self.core, self.stage, self.limit);
        let mut moved = false;
        let share = |from| {
            let Some(end) = core.closing.end() else { return Run { start: from, end: from } };
            let past = self::past(&end, stage, from);
            if past != from && fault(Fault::WorkerTakesAGapForEvents) {
                return Run { start: from, end: past };
            }
            if past != from && !fault(Fault::WorkerStopsAtAGap) {
                return Run { start: past, end: past };
            }
            let run = K::share(core, from, stage.before(), limit);
            let to = end.reach(from, run.end);
            Run { start: earlier(run.start, to), end: to }
        };
        let taken = workers.take(self.place, share, &mut moved);
        self.has_moved(moved);
        taken
    }

    /// True if an event at `from` can be taken, or a slot without an event there can be passed.
    fn is_something(&self, from: u64) -> bool {
        let is_gap = || self.core.closing.end().is_some_and(|end| past(&end, self.stage, from) != from);
        K::share(self.core, from, self.stage.before(), self.limit).end != from || is_gap()
    }

    /// True if the ring is not open and all its events were taken and finished.
    fn is_over(&self, phase: Phase, workers: &Workers) -> bool {
        let done = || match fault(Fault::EndToldWhenAllIsTaken) {
            false => ahead(self.core.last(), self.stage.position_of(workers)) <= 0,
            true => ahead(self.core.last(), workers.taken()) <= 0,
        };
        phase != Phase::Open && done()
    }
}

impl<E, K: Kind> Look for Share<'_, E, K> {
    type Found = Result<Run, Closed>;

    fn look(&mut self) -> Option<Self::Found> {
        let workers = self.stage.workers.as_ref()?;
        if let Some(left) = self.left {
            return Some(Ok(left));
        }
        let mut phase = self.core.closing.phase();
        if phase == Phase::Open {
            match self.take(workers) {
                Ok(taken) => return taken.map(Ok),
                Err(ends) => phase = ends,
            }
        }
        if !phase.at_once() {
            if let Some(taken) = self.take_at_the_end(workers) {
                return Some(Ok(taken));
            }
            // Even if all events are taken, another worker may leave unfinished ones, which this worker must adopt.
            if !self.is_over(phase, workers) {
                return None;
            }
        }
        self.core.closing.reason().map(Err)
    }

    /// The bell (see [`crate::bell`]) of the slowest stage before this one, or the producers' bell if there is no stage
    /// before. In a ring that is not open also this stage's bell, because another worker may leave events, or finish
    /// the last ones. `None` if the slowest stage has events for the workers already.
    fn bells(&mut self) -> Option<Bells> {
        let taken = self.stage.workers.as_ref()?.taken();
        let before = match lowest(&self.stage.after, &LOOK_AT_STAGE) {
            None => &self.core.bell,
            Some((at, stage)) if ahead(at, taken) <= 0 => &stage.bell,
            Some(_) => return None,
        };
        let ends = self.core.closing.phase() != Phase::Open;
        Some([Some(Arc::clone(before)), ends.then(|| Arc::clone(&self.stage.bell))])
    }
}

/// As [`Share`], but takes no event: finds out whether there are events to take, or the end. The caller takes them
/// afterwards.
struct ShareLook<'w, E, K: Kind>(Share<'w, E, K>);

impl<E, K: Kind> Look for ShareLook<'_, E, K> {
    type Found = ();

    fn look(&mut self) -> Option<()> {
        let workers = self.0.stage.workers.as_ref()?;
        let phase = self.0.core.closing.phase();
        let to_take = workers.has_orphans() || self.0.is_something(workers.taken());
        (to_take || phase.at_once() || self.0.is_over(phase, workers)).then_some(())
    }

    fn bells(&mut self) -> Option<Bells> {
        self.0.bells()
    }
}
