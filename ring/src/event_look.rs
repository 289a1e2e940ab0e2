//! How a consumer looks for events: while the ring is open at the positions or stamps, later also at the record of the end.

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

/// A consumer's look for events: a run of them, no more than `limit` where looking further has a price.
pub(crate) struct EventLook<'c, E, K: Kind> {
    pub(crate) core: &'c Core<E, K>,
    pub(crate) stage: &'c StageState,
    /// The next sequence to read.
    pub(crate) next: u64,
    /// What the stage lets through.
    pub(crate) through: &'c mut u64,
    /// All below this may be read, and none of it is skipped.
    pub(crate) available: u64,
    pub(crate) limit: u64,
}

impl<E, K: Kind> EventLook<'_, E, K> {
    #[inline(always)]
    fn run(&self) -> Run {
        K::run(self.core, self.next, self.available, self.stage.before(), self.limit)
    }

    /// Lets through what those before have let through, as far as this consumer passes over it.
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

    /// Looks with the record of the end: the ring is not open, or this stage was evicted.
    #[cold]
    pub(crate) fn last_look(&self, phase: Phase) -> Option<Result<Run, Closed>> {
        if phase.at_once() || self.stage.is_evicted() {
            return self.over();
        }
        // What the cut did not see is in no run that is computed under the lock.
        let end = self.core.closing.end()?;
        let past = end.past_gaps(self.next);
        let start = self.stage.before().map_or(past, |before| later(self.next, earlier(past, before)));
        if start != self.next {
            return Some(Ok(Run { start, end: start }));
        }
        // It has come to its end when all of that is let through, too.
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

    /// Of the stage before that is the furthest behind; of the producers if there is none.
    fn bells(&mut self) -> Option<Bells> {
        let bell = match lowest(&self.stage.after, &LOOK_AT_STAGE) {
            None => &self.core.bell,
            Some((at, stage)) if ahead(at, self.next) <= 0 => &stage.bell,
            Some(_) => return None,
        };
        Some([Some(Arc::clone(bell)), None])
    }
}
