//! The search of a consumer for readable events: among the positions or stamps, and in a closed ring also in the record
//! of the end.

use crate::closing::{Closed, Phase};
use crate::core::Core;
use crate::fault::{Fault, fault};
use crate::gates::lowest;
use crate::kind::{Kind, Run};
use crate::ordering::LOOK_AT_STAGE;
use crate::sequence::{ahead, earlier, later};
use crate::stage::StageState;
use crate::sync::Arc;
use crate::waiting::{Bells, Look};

/// A consumer's search for readable events. It finds a run of consecutive events. In a multi-producer ring it reads the
/// stamps of at most `limit` events, because each costs a load, but returns all events below `available`.
pub(crate) struct EventLook<'c, E, K: Kind> {
    pub(crate) core: &'c Core<E, K>,
    pub(crate) stage: &'c StageState,
    /// The next sequence to read.
    pub(crate) next: u64,
    /// The position that the consumer's stage publishes: stages after it, and producers, may use the slots below.
    pub(crate) through: &'c mut u64,
    /// All sequences from `next` to below this one are known to be published events.
    pub(crate) available: u64,
    pub(crate) limit: u64,
}

impl<E, K: Kind> EventLook<'_, E, K> {
    #[inline(always)]
    fn run(&self) -> Run {
        K::run(self.core, self.next, self.available, self.stage.before(), self.limit)
    }

    /// Raises the stage's position over sequences that the consumer has skipped, as far as the stages before it have
    /// passed them, and wakes the threads that wait for the position.
    #[cold]
    pub(crate) fn let_through(&mut self) {
        let before = self.stage.before().filter(|_| !fault(Fault::SeekForwardLetsThroughWhatItPassesOver));
        let to = before.map_or(self.next, |before| earlier(self.next, before));
        if ahead(to, *self.through) > 0 {
            *self.through = to;
            self.stage.advance(to);
            self.stage.bell.ring();
        }
    }

    /// The search in a ring that is not open, or for a stage that was evicted, by the record of the end. `None` if the
    /// consumer must wait for a claim that may still be committed, or for a stage before it.
    #[cold]
    pub(crate) fn last_look(&self, phase: Phase) -> Option<Result<Run, Closed>> {
        if phase.at_once() || self.stage.is_evicted() {
            return self.over();
        }
        // The lock is held while the run is computed, so the run contains no event that the cut has missed.
        let end = self.core.closing.end()?;
        let past = end.past_gaps(self.next);
        let start = self.stage.before().map_or(past, |before| later(self.next, earlier(past, before)));
        if start != self.next {
            return Some(Ok(Run { start, end: start }));
        }
        // The consumer gets the end only when the stage's position has reached it: otherwise the stages before still
        // have events to pass.
        let is_at_next = *self.through == self.next || fault(Fault::EndToldBeforeAllIsLetThrough);
        if (is_at_next && ahead(end.at(), start) <= 0) || fault(Fault::ToldTheEndTooEarly) {
            drop(end);
            return self.over();
        }
        let run = self.run();
        let end = end.reach(start, run.end);
        (end != start).then_some(Ok(Run { start: earlier(run.start, end), end }))
    }

    #[cold]
    fn over(&self) -> Option<Result<Run, Closed>> {
        if self.stage.is_evicted() {
            return Some(Err(Closed::Evicted { stage: self.stage.name.clone() }));
        }
        self.core.closing.reason().map(Err)
    }
}

impl<E, K: Kind> Look for EventLook<'_, E, K> {
    type Found = Result<Run, Closed>;

    const SPACED: bool = true;

    #[inline(always)]
    fn look(&mut self) -> Option<Self::Found> {
        let run = self.run();
        if run.end != self.next {
            if size_of::<K::Stamp>() == 0 {
                // The event has a line of its own, which comes while the checks before the batch are made. Beside a stamp it
                // has come with the stamp.
                self.core.buffer.prefetch_read(run.start);
            }
            return Some(Ok(run));
        }
        if *self.through != self.next {
            self.let_through();
        }
        if self.core.closing.is_open() && !self.stage.is_evicted() {
            return None;
        }
        self.last_look(self.core.closing.phase())
    }

    /// The bell (see [`crate::bell`]) of the slowest stage before this one, or the producers' bell if there is no stage
    /// before. `None` if the slowest stage has passed `next` already, so that another search is due.
    fn bells(&mut self) -> Option<Bells> {
        let bell = match lowest(&self.stage.after, &LOOK_AT_STAGE) {
            None => &self.core.bell,
            Some((at, stage)) if ahead(at, self.next) <= 0 => &stage.bell,
            Some(_) => return None,
        };
        Some([Some(Arc::clone(bell)), None])
    }
}
