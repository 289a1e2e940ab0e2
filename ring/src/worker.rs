//! A worker: one of several that share a stage's events, each event to exactly one of them.

use crate::bell::Waiter;
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
use crate::waiting::{Bells, Look, Waiting, arm};
use crate::workers::Workers;
use std::fmt;

/// One of the workers of a stage.
///
/// [`take`](Self::take) gives events that no other worker gets. Events are done with in the order of this worker's
/// own iteration; a stage behind the workers sees an event when all up to it are done with, by whomever.
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
/// A worker that is dropped, or whose thread panics, leaves what it had not started to the others. The one event that
/// it had in hand when its closure panicked counts as lost: see [`StagePosition::lost`](crate::StagePosition::lost).
/// When the last worker goes, the stage goes.
pub struct Worker<E, K: Kind> {
    core: Arc<Core<E, K>>,
    stage: Arc<StageState>,
    place: usize,
    /// What this worker has taken and not done.
    at: u64,
    end: u64,
    /// It was told that everything was taken.
    at_end: bool,
    waiting: Waiting,
}

impl<E, K: Kind> fmt::Debug for Worker<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker {} of {:?}", self.place, self.stage.name)
    }
}

impl<E, K: Kind> Worker<E, K> {
    /// A worker at a free place of the stage, if there is one.
    pub(crate) fn enter(core: Arc<Core<E, K>>, stage: Arc<StageState>, wait: Wait) -> Option<Self> {
        let place = stage.workers.as_ref()?.enter()?;
        Some(Self { core, stage, place, at: 0, end: 0, at_end: false, waiting: Waiting::new(wait) })
    }

    /// The stage, to put others behind it.
    pub fn stage(&self) -> StageRef {
        StageRef { name: self.stage.name.clone(), ring: Some(self.core.id) }
    }

    /// How this worker waits.
    pub fn set_wait(&mut self, wait: Wait) {
        self.waiting.wait = wait;
    }

    /// Arms `waiter` to be woken with `token` when there may be more to take: as
    /// [`Consumer::arm`](crate::Consumer::arm). If this is false, take now, at most as much as can be done now.
    pub fn arm(&mut self, waiter: &Waiter, token: usize) -> bool {
        if self.at != self.end {
            return false;
        }
        let share = Share { core: &self.core, stage: &self.stage, place: &mut self.place, limit: 1, left: None };
        arm(&mut Peep(share), waiter, token).is_none()
    }

    /// Up to `limit` events (at least 1) that no other worker gets, maybe none. Never waits.
    ///
    /// # Errors
    /// The ring is finished or closed and everything was taken; or it was halted or has failed.
    pub fn take(&mut self, limit: usize) -> Result<Taken<'_, E, K>, Closed> {
        let (limit, left) = (limit.max(1) as u64, self.left());
        let found = Share { core: &self.core, stage: &self.stage, place: &mut self.place, limit, left }.look();
        self.begin(found)
    }

    /// The same, but waits for at least one event.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_wait(&mut self, limit: usize) -> Result<Taken<'_, E, K>, Closed> {
        self.take_by(limit, None)
    }

    /// The same, but waits no longer than until `deadline`.
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

    /// How much a managed worker takes at once: little, so that the others get some as well.
    pub(crate) fn fair_share(&self, limit: usize) -> usize {
        let each = self.core.capacity() as usize / self.workers().count();
        if limit == usize::MAX { each.clamp(1, 8) } else { limit }
    }

    fn workers(&self) -> &Workers {
        self.stage.workers.as_ref().expect("a worker's stage has workers")
    }

    /// Everything before `at` is done with.
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
        // Another worker that sleeps may have to adopt what is left.
        let asleep_at = self.stage.after.iter().map(|stage| &stage.bell);
        asleep_at.chain([&self.stage.bell, &self.core.bell]).for_each(|bell| bell.ring());
    }
}

/// Events that one worker has taken.
///
/// What it does not iterate stays with the worker: its next take gives that first.
pub struct Taken<'w, E, K: Kind> {
    worker: &'w mut Worker<E, K>,
}

impl<E, K: Kind> Taken<'_, E, K> {
    /// How many events are left.
    pub fn len(&self) -> usize {
        self.worker.end.wrapping_sub(self.worker.at) as usize
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands each event to `work`. An event is done with when `work` returns; if it panics, that one counts as lost,
    /// and the others stay.
    pub fn for_each(mut self, mut work: impl FnMut(Sequence, &E)) {
        while self.next(&mut work) {}
    }

    /// The next event, its sequence, and whether it is the last one taken. It stays in hand until
    /// [`done_with_one`](Self::done_with_one).
    pub(crate) fn peek(&mut self) -> Option<(Sequence, &E, bool)> {
        let Worker { core, at, end, .. } = &*self.worker;
        if at == end {
            return None;
        }
        // SAFETY: no producer may overwrite what this worker has announced, and it announces something later only by a
        // method that needs the borrow that the event holds. Workers only share, and no mutable stage runs beside them.
        let event = unsafe { &*core.buffer.slots().event(*at) };
        Some((Sequence(*at), event, at.wrapping_add(1) == *end))
    }

    pub(crate) fn done_with_one(&mut self) {
        let next = self.worker.at.wrapping_add(1);
        self.worker.done(next);
    }

    /// Whether the ring was halted or has failed.
    pub(crate) fn ends_at_once(&self) -> bool {
        self.worker.core.closing.phase().at_once()
    }

    pub(crate) fn reason(&self) -> Option<Closed> {
        self.worker.core.closing.reason()
    }

    /// Hands the next event to `work`; false if there was none left.
    pub fn next(&mut self, work: impl FnOnce(Sequence, &E)) -> bool {
        /// Moves on, whether `work` returns or panics.
        struct InHand<'a, E, K: Kind>(&'a mut Worker<E, K>, bool);
        impl<E, K: Kind> Drop for InHand<'_, E, K> {
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
        let mut hand = InHand(&mut *self.worker, false);
        let at = hand.0.at;
        // SAFETY: no producer may overwrite what this worker has announced, and `InHand` announces something later when
        // `work` is over. Workers only share, and no mutable stage runs beside them.
        let event = unsafe { &*hand.0.core.buffer.slots().event(at) };
        work(Sequence(at), event);
        hand.1 = true;
        true
    }
}

/// A worker's look for a share.
struct Share<'w, E, K: Kind> {
    core: &'w Core<E, K>,
    stage: &'w StageState,
    place: &'w mut usize,
    limit: u64,
    left: Option<Run>,
}

/// `from`, or the end of the gap that it lies in, as far as those before have come.
fn past(end: &End, stage: &StageState, from: u64) -> u64 {
    let past = end.past_gaps(from);
    stage.before().map_or(past, |before| later(from, earlier(past, before)))
}

impl<E, K: Kind> Share<'_, E, K> {
    /// Takes a share of what is published, while the ring is open.
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
            // Behind the look at what is published: see `closing.rs`.
            fence::light_at(&SHARE_FENCE);
            phase = too_early.unwrap_or_else(|| core.closing.phase());
            if phase == Phase::Open { run } else { Run { start: from, end: from } }
        };
        let taken = workers.take(self.place, share, &mut moved);
        self.has_moved(moved);
        if taken.is_none() && phase != Phase::Open { Err(phase) } else { Ok(taken) }
    }

    /// What was announced in vain, or skipped, may have been all that held the stage back.
    fn has_moved(&self, moved: bool) {
        if moved {
            self.stage.bell.ring();
        }
    }

    /// The same once the ring is not open, with the record of the end: none if all is taken, or not published yet. Gaps are
    /// passed over as skipped slots are.
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

    /// Whether something may be taken from `from` on, or passed over.
    fn is_something(&self, from: u64) -> bool {
        let is_gap = || self.core.closing.end().is_some_and(|end| past(&end, self.stage, from) != from);
        K::share(self.core, from, self.stage.before(), self.limit).end != from || is_gap()
    }

    /// Whether everything was taken and done, and nothing more will come.
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
            // All taken is not all done: what another worker leaves behind is still to be adopted.
            if !self.is_over(phase, workers) {
                return None;
            }
        }
        self.core.closing.reason().map(Err)
    }

    /// While the ring ends also the own stage's: another worker may leave something behind, or do the last of it.
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

/// A worker's look whether there would be a share, without taking it.
struct Peep<'w, E, K: Kind>(Share<'w, E, K>);

impl<E, K: Kind> Look for Peep<'_, E, K> {
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
