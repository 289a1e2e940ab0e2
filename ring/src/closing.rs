//! How a ring ends: who may still publish, where reading ends, and what everyone is told.
//!
//! # The invariant
//! An event whose commit returned `Ok` lies below the recorded end and in no gap, so every stage that reads on reads it,
//! and the report counts it as unread if a stage does not. A stage that was told the end is given nothing after it.
//!
//! # The protocol
//!
//! ```text
//! producer                              closer, under the lock                  consumer
//! show the claim (SHOW_CLAIM, CLAIM)    store the phase (CLOSE)                 read the positions or stamps
//! light fence (CLAIM_FENCE)             set the bell's bit (ARM)                light fence (HOLD_FENCE, SHARE_FENCE)
//! look at the bit: set: withdraw        heavy fence (CLOSE_FENCE)               look at the phase: open: read
//! fill, then publish                    the end := what is claimed                not open: take the lock, read up to
//! light fence (RING_FENCE)                                                        the end, and pass over the gaps
//! look at the bit: set: take the lock,
//!   an error if the claim was cut
//! ```
//!
//! *No claim is overlooked.* If a producer's first look misses the bit, its fence came before the closer's, so the closer
//! reads the claim, and the end lies behind it. If it sees the bit, it withdraws: a multi producer stamps its slots as
//! skipped, a single producer takes back what it showed, and if the end was recorded meanwhile, what it took back becomes
//! a gap. So below the end every claim is published, withdrawn, or still out; above it there is no event.
//!
//! *Closing does not wait.* A claim that is out may be committed. Stages are told the end when they have passed all below
//! it, so they wait for such a claim, and its holder's publish or withdrawal wakes them.
//!
//! *The cut.* When a shutdown's limit has passed, or the ring is halted or fails, whatever below the end is not published
//! is cut, under the lock: it becomes a gap, and its commit an error. Nobody waits for the claim's holder. The slots stay
//! the holder's: no stage ever reads a gap, so it may go on writing there, and what it publishes afterwards changes nothing.
//! - If a producer's second look misses the bit, its fence came before the closer's: the cut sees the publish.
//! - If it sees the bit, it asks under the lock, where the cut has either seen the publish or recorded the gap.
//! - If a consumer saw what a producer published, and then an open phase, its fence came before the closer's: the cut sees
//!   the publish too. If it sees another phase, it asks under the lock. So no stage reads what the cut has not seen.
//! - A claim of several slots is stamped from its last slot to its first, and all but the first say so in their stamps. The
//!   cut acquires the stamps in turn (READ_STAMP_IN_TURN). So where it finds the first slot of a claim published, it finds the
//!   others published; where it finds the first slot unpublished, it cuts those behind it that say so. A stage that reads its
//!   stamps without that order may see a part of a claim, and finds the rest at a later look.
//!
//! A gap lies in the record of the end, not in the stamps: the holder may be about to stamp them.
//! Models: `close` in loom-tests.

use crate::core::Core;
use crate::fault::{Fault, fault};
use crate::fence;
use crate::kind::Kind;
use crate::ordering::{CLOSE, CLOSE_FENCE, OBSERVE_CLOSE};
use crate::sequence::{Sequence, Sequences, ahead, earlier, later};
use crate::sync::{AtomicU32, Mutex, MutexGuard, lock};
use crate::text;
use crossbeam_utils::CachePadded;

/// Why a ring takes or gives nothing more. Producers get it when they claim or commit, consumers when they poll.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// Every producer has been dropped, and this consumer has read all that they published.
    #[error("every producer has gone, and all that they published has been read")]
    Finished,
    /// The ring was closed. Consumers get this once they have read all that was published before.
    #[error("the ring was closed")]
    Closed,
    /// The ring was halted: what was not read yet stays unread, and the report counts it.
    #[error("the ring was halted")]
    Halted,
    /// A stage stopped, and with it the ring: mend its cause and build the ring anew.
    #[error("the stage {stage:?} stopped: {}", text::line(.cause))]
    Failed {
        /// The stage's name.
        stage: String,
        /// The handler's error or the panic's message.
        cause: String,
    },
    /// This consumer was evicted and no longer gates the producers: join again to read on.
    #[error("the stage {stage:?} was evicted; join again to read on")]
    Evicted {
        /// The stage's name.
        stage: String,
    },
    /// The claim was still out when the ring's time to end was over, so its events were not published: nobody reads them.
    /// Only a commit gets this.
    #[error("the claim was committed after the ring had ended: nothing was published")]
    Cut,
}

/// Where a ring stands on its way to the end. It only moves up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(crate) enum Phase {
    Open = 0,
    Finished = 1,
    Closed = 2,
    Halted = 3,
    Failed = 4,
}

impl Phase {
    /// Consumers stop at once, rather than when they have read everything.
    pub(crate) fn at_once(self) -> bool {
        self >= Self::Halted
    }
}

pub(crate) struct Closing {
    phase: CachePadded<AtomicU32>,
    end: Mutex<End>,
}

/// What is recorded of a ring's end. Of no meaning while the ring is open.
#[derive(Default)]
pub(crate) struct End {
    /// Above this there is no event.
    at: u64,
    /// Runs of sequences below the end that hold no event, each with its end, in order: withdrawn or cut.
    gaps: Vec<(u64, u64)>,
    /// The gaps that were cut; none before the cut.
    cut: Option<Vec<(u64, u64)>>,
    /// The failed stage's name and cause.
    failure: Option<(String, String)>,
}

impl End {
    /// Above this there is no event.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// `from`, or the end of the gap that it lies in.
    pub(crate) fn past_gaps(&self, from: u64) -> u64 {
        // Gaps are in order, and two may touch.
        self.gaps.iter().fold(from, |from, &(first, end)| if is_in(from, first, end) { end } else { from })
    }

    /// The first gap or the end behind `from`, at most `to` (exclusive). `from` must not lie in a gap.
    pub(crate) fn reach(&self, from: u64, to: u64) -> u64 {
        let to = later(from, earlier(to, self.at));
        let behind = self.gaps.iter().filter(|(first, _)| ahead(*first, from) >= 0);
        behind.fold(to, |to, &(first, _)| earlier(to, first))
    }

    fn add_gap(&mut self, gap: (u64, u64)) {
        self.gaps.push(gap);
        let end = self.at;
        self.gaps.sort_by_key(|(first, _)| std::cmp::Reverse(ahead(end, *first)));
    }

    fn cuts(&self) -> &[(u64, u64)] {
        self.cut.as_deref().unwrap_or_default()
    }
}

fn is_in(at: u64, first: u64, end: u64) -> bool {
    ahead(at, first) >= 0 && ahead(end, at) > 0
}

impl Closing {
    pub(crate) fn new() -> Self {
        Self { phase: CachePadded::new(AtomicU32::new(Phase::Open as u32)), end: Mutex::default() }
    }

    #[inline(always)]
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(OBSERVE_CLOSE.get()) {
            0 => Phase::Open,
            1 => Phase::Finished,
            2 => Phase::Closed,
            3 => Phase::Halted,
            _ => Phase::Failed,
        }
    }

    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.phase.load(OBSERVE_CLOSE.get()) == Phase::Open as u32
    }

    /// What a producer or consumer is told; none while the ring is open.
    pub(crate) fn reason(&self) -> Option<Closed> {
        // Whoever waits asks again and again: no lock while there is nothing to tell.
        if self.phase() == Phase::Open {
            return None;
        }
        let end = lock(&self.end);
        Some(match self.phase() {
            Phase::Open => return None,
            Phase::Finished => Closed::Finished,
            Phase::Closed => Closed::Closed,
            Phase::Halted => Closed::Halted,
            Phase::Failed => {
                let (stage, cause) = end.failure.clone().unwrap_or_default();
                Closed::Failed { stage, cause }
            }
        })
    }

    /// The record of the end, complete; none while the ring is open.
    pub(crate) fn end(&self) -> Option<MutexGuard<'_, End>> {
        (self.phase() != Phase::Open).then(|| lock(&self.end))
    }

    /// For a producer that saw the closed bit: from here on it sees the phase, and with it the reason.
    #[cold]
    pub(crate) fn await_phase(&self) {
        drop(lock(&self.end));
    }
}

impl<E, K: Kind> Core<E, K> {
    /// Moves the ring towards its end and wakes everyone who waits for anything. Waits for no claim.
    pub(crate) fn end(&self, phase: Phase, failure: Option<(String, String)>) {
        {
            let mut end = lock(&self.closing.end);
            let before = self.closing.phase();
            if before >= phase {
                return;
            }
            end.failure = failure;
            let too_early = fault(Fault::EndReadBeforeTheRingIsClosed).then(|| K::claimed(self));
            self.closing.phase.store(phase as u32, CLOSE.get());
            if before == Phase::Open {
                self.bell.mark_closed();
                if fence::heavy_at(&CLOSE_FENCE, self.fences).is_err() {
                    fence::wait_for_stores();
                }
                end.at = too_early.unwrap_or_else(|| K::claimed(self));
            }
            if phase.at_once() {
                self.cut_locked(&mut end);
            }
        }
        self.wake_all();
    }

    /// Wakes everyone who waits for anything.
    fn wake_all(&self) {
        if fault(Fault::CloseWakesNobody) {
            return;
        }
        self.bell.ring();
        self.end_bell.ring();
        let members = lock(&self.members).clone();
        members.iter().for_each(|member| member.bell.ring());
    }

    /// A stage failed: everyone gets its name and cause.
    pub(crate) fn fail(&self, stage: &str, cause: &str) {
        self.end(Phase::Failed, Some((stage.to_owned(), cause.to_owned())));
    }

    /// Makes gaps of the claims that are still out; their commits are errors. Of a ring that is open, nothing.
    pub(crate) fn cut(&self) -> Vec<Sequences> {
        let cuts = {
            let Some(mut end) = self.closing.end() else { return Vec::new() };
            self.cut_locked(&mut end);
            runs(end.cuts())
        };
        // What lies behind a gap may be read now.
        if !fault(Fault::CutWakesNobody) {
            self.wake_all();
        }
        cuts
    }

    fn cut_locked(&self, end: &mut End) {
        if end.cut.is_some() {
            return;
        }
        let mut cut = K::unpublished(self, end.at);
        // A single producer's only claim, withdrawn.
        cut.retain(|(first, _)| end.past_gaps(*first) == *first);
        if !fault(Fault::CutLeavesNoGap) {
            cut.iter().for_each(|gap| end.add_gap(*gap));
        }
        end.cut = Some(cut);
    }

    /// The claims that were cut.
    pub(crate) fn cuts(&self) -> Vec<Sequences> {
        self.closing.end().map(|end| runs(end.cuts())).unwrap_or_default()
    }

    /// Whether the claim from `first` on, which was published after the ring had been closed, counts.
    pub(crate) fn judge(&self, first: u64) -> Result<(), Closed> {
        let end = lock(&self.closing.end);
        let is_cut = end.cuts().iter().any(|&(from, to)| is_in(first, from, to));
        if !is_cut || fault(Fault::CutClaimIsCommitted) {
            return Ok(());
        }
        Err(match (self.closing.phase(), &end.failure) {
            (Phase::Failed, Some((stage, cause))) => Closed::Failed { stage: stage.clone(), cause: cause.clone() },
            _ => Closed::Cut,
        })
    }

    /// A single producer has withdrawn its claim, which begins at `first`, after the ring had been closed.
    #[cold]
    pub(crate) fn withdrawn(&self, first: u64) {
        let mut end = lock(&self.closing.end);
        let at = end.at;
        // Else it was not seen when the end was recorded, or was cut before.
        if ahead(at, first) > 0 && end.past_gaps(first) == first && !fault(Fault::WithdrawnClaimLeavesNoGap) {
            end.add_gap((first, at));
        }
        drop(end);
        self.wake_all();
    }

    /// The next sequence to be published; never beyond the end, and no gap is in its way.
    pub(crate) fn published(&self) -> u64 {
        let Some(end) = self.closing.end() else { return K::published(self) };
        let mut published = earlier(K::published(self), end.at);
        loop {
            let past = end.past_gaps(published);
            if ahead(end.at, past) <= 0 {
                return end.at;
            }
            let further = earlier(K::share(self, past, None, u64::MAX).end, end.at);
            if further == published {
                return published;
            }
            published = further;
        }
    }

    /// The sequence at which reading ends: the recorded end, or the published sequence while the ring is open.
    pub(crate) fn last(&self) -> u64 {
        match self.closing.end() {
            Some(end) => end.at,
            None => K::published(self),
        }
    }

    /// How many events a stage that stands at `from` has not read.
    pub(crate) fn unread(&self, from: u64) -> u64 {
        let to = self.published();
        let end = self.closing.end();
        let is_gap = |at| end.as_ref().is_some_and(|end| end.past_gaps(at) != at);
        let len = ahead(to, from).max(0) as u64;
        // Of a stage that has left, earlier ones may be overwritten.
        let kept = len.min(self.capacity());
        let slots = (1..=kept).map(|back| to.wrapping_sub(back));
        let events = slots.filter(|at| !is_gap(*at) && !K::is_skipped(self.buffer.slots(), *at)).count() as u64;
        len - kept + events
    }
}

fn runs(gaps: &[(u64, u64)]) -> Vec<Sequences> {
    let run = |&(first, end): &(u64, u64)| Sequences { first: Sequence(first), len: ahead(end, first) as usize };
    gaps.iter().map(run).collect()
}
