//! A consumer's look for events: in an open ring at the positions or stamps, later also at the record of the end.

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

/// A consumer's look for readable events. It finds a run of events, of at most `limit` if a longer look would cost
/// more.
pub(crate) struct EventLook<'c, E, K: Kind> {
    pub(crate) core: &'c Core<E, K>,
    pub(crate) stage: &'c StageState,
    /// The next sequence to read.
    pub(crate) next: u64,
    /// The position up to which the stage lets stages after it and producers continue.
    pub(crate) through: &'c mut u64,
    /// All sequences from `next` to below this are published and not skipped.
    pub(crate) available: u64,
    pub(crate) limit: u64,
}

impl<E, K: Kind> EventLook<'_, E, K> {
    #[inline(always)]
    fn run(&self) -> Run {
        K::run(self.core, self.next, self.available, self.stage.before(), self.limit)
    }

    /// Lets through the skipped sequences, as far as the stages before have let them through.
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

    /// Looks using the record of the end, because the ring is not open or this stage was evicted.
    #[cold]
    pub(crate) fn last_look(&self, phase: Phase) -> Option<Result<Run, Closed>> {
        if phase.at_once() || self.stage.is_evicted() {
            return self.over();
        }
        // A run that is computed under the lock contains no event that the cut has not seen.
        let end = self.core.closing.end()?;
        let past = end.past_gaps(self.next);
        let start = self.stage.before().map_or(past, |before| later(self.next, earlier(past, before)));
        if start != self.next {
            return Some(Ok(Run { start, end: start }));
        }
        // The stage is at its end only when all sequences before the end are let through.
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

    const SPACING: u32 = if cfg!(any(loom, shuttle)) { 0 } else { 2 };

    #[inline(always)]
    fn look(&mut self) -> Option<Self::Found> {
        let run = self.run();
        if run.end != self.next {
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

    /// The bell of the stage before that is furthest behind, or the producers' bell if there is none. `None` if that
    /// stage has moved on already.
    fn bells(&mut self) -> Option<Bells> {
        let bell = match lowest(&self.stage.after, &LOOK_AT_STAGE) {
            None => &self.core.bell,
            Some((at, stage)) if ahead(at, self.next) <= 0 => &stage.bell,
            Some(_) => return None,
        };
        Some([Some(Arc::clone(bell)), None])
    }
}
