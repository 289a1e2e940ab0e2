//! The end of a ring: which claims are still accepted, at which sequence reading ends, and which error each caller
//! gets.
//!
//! # The invariant
//! An event whose commit returned `Ok` lies below the recorded end and in no *gap* (sequences below the end that hold
//! no event, because their claim was withdrawn or cut). So every stage that continues to read will read the event, and
//! the report counts it as unread for a stage that does not. After a stage's poll has returned the end as an error, the
//! stage receives no event.
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
//! *No claim is overlooked.* If a producer's first check misses the closed bit, its fence came before the closer's, so
//! the closer reads the claim, and the end lies after it. If the producer sees the bit, it withdraws: a multi producer
//! stamps its slots as skipped; a single producer takes its claim back, and if the end was recorded meanwhile, the
//! withdrawn sequences become a gap. So below the end every claim is published, withdrawn, or still uncommitted, and
//! above the end there is no event.
//!
//! *No position passes the end.* Above the end there may be skipped slots, of claims that were made after the end was
//! recorded. Such a claim's fence came after the closer's, so a consumer that acquires its stamp also sees that the
//! phase is not open, and looks for events below the end only.
//!
//! *Closing does not wait.* A claim that is uncommitted may still be committed. A stage's poll returns the end only
//! after the stage has passed all sequences below it. So stages wait for such a claim, and its commit or withdrawal
//! wakes them.
//!
//! *The cut.* When a shutdown's time limit has passed, or the ring is halted or fails, every sequence below the end
//! that is still unpublished is cut, under the lock: it becomes a gap, and its commit returns an error. No thread waits
//! for the holder of the claim. The slots remain the holder's: no stage ever reads a gap, so the holder may continue to
//! write there, and publishing them later has no effect.
//! - If a producer's second check, after its publish, misses the bit, its fence came before the closer's, so the cut
//!   sees the publish.
//! - If the producer sees the bit, it takes the lock, under which the cut has either seen the publish or recorded the
//!   gap.
//! - If a consumer saw a published event, and then an open phase, its fence came before the closer's, so the cut sees
//!   the publish as well. If the consumer sees another phase, it takes the lock. So no stage reads an event that the
//!   cut has not seen.
//! - A claim of several slots is stamped from its last slot to its first, and all stamps but the first state that they
//!   continue a claim. The cut acquires the stamps in turn (READ_STAMP_IN_TURN). So if it finds the first slot of a
//!   claim published, it finds the others published; if it finds the first slot unpublished, it cuts the following
//!   slots of that claim, too. A stage that reads its stamps without that order may see a part of a claim, and finds
//!   the rest at a later look.
//!
//! *Kept claims.* A cut may leave out claims whose events have been given elsewhere already, such as those of a
//! transaction that the journal writes. They stay uncommitted claims of a closed ring: stages wait for them. A later
//! cut may take them; it finds the same sequences unpublished as the first one, less what was published meanwhile.
//!
//! *Without the fence.* If the system refuses `membarrier` to the closer of a ring that was built with it, the
//! producers' light fences order nothing, and no other system call makes every thread execute a barrier. The closer
//! waits 10 ms, in which processors most likely make their stores visible, and records the refusal: the report is then
//! not complete.
//!
//! A gap is recorded with the end, not in the stamps, because the holder may be about to stamp its slots. Models:
//! `close` in loom-tests.

use crate::core::Core;
use crate::fault::{Fault, fault};
use crate::fence::{self, Refused};
use crate::kind::Kind;
use crate::ordering::{CLOSE, CLOSE_FENCE, LOOK_AT_STAGE, OBSERVE_CLOSE};
use crate::sequence::{Sequence, Sequences, ahead, earlier, later};
use crate::stage::StageState;
use crate::sync::{Arc, AtomicU32, Mutex, MutexGuard, lock};
use crate::text;
use crossbeam_utils::CachePadded;

/// The reason why a ring accepts or returns no more events. Producers get it when they claim or commit, consumers when
/// they poll.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// Every producer was dropped, and this consumer has read all published events.
    #[error("every producer has gone, and all that they published has been read")]
    Finished,
    /// The ring was closed. Consumers get this once they have read all events that were published before.
    #[error("the ring was closed")]
    Closed,
    /// The ring was halted. Unread events stay unread, and the report counts them.
    #[error("the ring was halted")]
    Halted,
    /// A stage's handler failed or panicked, or a stage left while others are ordered after it; the whole ring has
    /// stopped. Correct the cause and build the ring again.
    #[error("the stage {stage:?} stopped: {}", text::line(.cause))]
    Failed {
        /// The stage's name.
        stage: String,
        /// The handler's error or the panic's message.
        cause: String,
    },
    /// This consumer was evicted and no longer gates the producers. Join again to read more.
    #[error("the stage {stage:?} was evicted; join again to read on")]
    Evicted {
        /// The stage's name.
        stage: String,
    },
    /// The claim was not committed before the ring was halted or [cut](crate::Ring::cut), or before the time limit of
    /// its shutdown. Its events were not published, and no stage reads them. Only a commit returns this.
    #[error("the claim was committed after the ring had ended: nothing was published")]
    Cut,
}

/// The phase of a ring on its way to the end. It only increases.
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
    /// True if consumers stop at their next poll, and false if they first read all published events.
    pub(crate) fn at_once(self) -> bool {
        self >= Self::Halted
    }
}

pub(crate) struct Closing {
    phase: CachePadded<AtomicU32>,
    end: Mutex<End>,
}

/// The record of a ring's end. Its values are meaningless while the ring is open.
#[derive(Default)]
pub(crate) struct End {
    /// The sequence at which reading ends (exclusive): no event is at or above it.
    at: u64,
    /// Runs of sequences below the end that hold no event, because their claims were withdrawn or cut: for each run its
    /// first sequence and its end (exclusive), in the order of sequences.
    gaps: Vec<(u64, u64)>,
    /// The runs that were cut, as `gaps` has them; empty before the cut.
    cut: Vec<(u64, u64)>,
    /// True if a cut has taken all uncommitted claims, so that another one finds none.
    is_cut: bool,
    /// The failed stage's name and cause; `None` if no stage failed.
    failure: Option<(String, String)>,
    /// The system's refusal of CLOSE_FENCE; `None` if the fence was issued, or if no producer was left whose claims it
    /// would order.
    unfenced: Option<Refused>,
    /// The end that [`announce`](Core::announce) has announced; `None` without one.
    announced: Option<Announced>,
    /// The stages whose consumers were dropped with unread events after the ring was halted or had failed.
    stopped: Vec<Arc<StageState>>,
    /// The failure of the ring's copy in a forked process; `None` if that copy goes on. See [`crate::forks`].
    in_forks: Option<(String, String)>,
    /// True if this is the record of a copy that has failed in a forked process. Then the commit of a claim that was
    /// made before the fork returns an error.
    is_fork: bool,
}

/// An end that a ring is about to get, together with other rings.
pub(crate) enum Announced {
    Halt,
    /// The failed stage's name and the cause.
    Failure(String, String),
}

impl End {
    /// The sequence at which reading ends (exclusive): no event is at or above it.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The first sequence at or after `from` that lies in no gap.
    pub(crate) fn past_gaps(&self, from: u64) -> u64 {
        // Gaps are in the order of sequences, and two of them may adjoin.
        self.gaps.iter().fold(from, |from, &(first, end)| if is_in(from, first, end) { end } else { from })
    }

    /// The first sequence of the next gap after `from`, or the recorded end if that comes first, or `to` if that comes
    /// first. Never below `from`, which must not lie in a gap.
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
}

/// The parts of `run` that lie in none of `others`.
fn outside(run: (u64, u64), others: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut parts = vec![run];
    for &(first, end) in others {
        let rest = |(from, to)| [(from, earlier(to, first)), (later(from, end), to)];
        parts = parts.into_iter().flat_map(rest).filter(|(from, to)| ahead(*to, *from) > 0).collect();
    }
    parts
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

    /// The error for a producer or consumer of a ring that is not open; `None` while the ring is open.
    pub(crate) fn reason(&self) -> Option<Closed> {
        // Waiting threads call this in a loop, so it takes no lock while the ring is open.
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

    /// Locks and returns the record of the end; `None` while the ring is open. The record is complete, because the
    /// thread that ends the ring holds this lock until it has written the record.
    pub(crate) fn end(&self) -> Option<MutexGuard<'_, End>> {
        (self.phase() != Phase::Open).then(|| lock(&self.end))
    }

    /// Waits until no thread holds the lock of the record. After this call, a producer that has seen the closed bit
    /// also sees the phase and the reason.
    #[cold]
    pub(crate) fn await_phase(&self) {
        drop(lock(&self.end));
    }
}

impl<E, K: Kind> Core<E, K> {
    /// Moves the ring to `phase` and wakes all waiting threads. Does nothing if the ring has reached this phase or a
    /// later one already. `failure` is the stage's name and the cause, `None` unless `phase` is [`Phase::Failed`]. Does
    /// not wait for claims.
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
                // Pairs with CLAIM_FENCE, RING_FENCE, HOLD_FENCE and SHARE_FENCE: see the top of this file.
                if let Err(refused) = fence::heavy_at(&CLOSE_FENCE, self.fences) {
                    fence::wait_for_stores();
                    // A ring that is finished has no producer, whose claim the fence would order.
                    end.unfenced = (phase != Phase::Finished).then_some(refused);
                }
                end.at = too_early.unwrap_or_else(|| K::claimed(self));
            }
            if phase.at_once() {
                self.cut_locked(&mut end, &[]);
            }
        }
        self.wake_all();
    }

    /// Wakes all threads that wait on this ring.
    fn wake_all(&self) {
        if fault(Fault::CloseWakesNobody) {
            return;
        }
        self.bell.ring();
        self.end_bell.ring();
        let members = lock(&self.members).clone();
        members.iter().for_each(|member| member.bell.ring());
    }

    /// Sets the failure of the ring's copies in processes that are forked from this one.
    pub(crate) fn set_failure_in_forks(&self, stage: &str, cause: &str) {
        lock(&self.closing.end).in_forks = Some((stage.to_owned(), cause.to_owned()));
    }

    /// Fails the ring because a stage failed: all callers get the stage's name and the cause.
    pub(crate) fn fail(&self, stage: &str, cause: &str) {
        self.end(Phase::Failed, Some((stage.to_owned(), cause.to_owned())));
    }

    /// Announces the end that the ring is about to get together with other rings. Does nothing if an end was announced
    /// before.
    pub(crate) fn announce(&self, announced: Announced) {
        lock(&self.closing.end).announced.get_or_insert(announced);
    }

    /// Ends the ring as announced; does nothing if no end was announced. Called before a stage leaves: a reader of
    /// several rings that sees one of them ended drops its consumers in the others. What it has not read there must be
    /// in the report, and it must not fail these rings by leaving before the stages that are ordered after it.
    pub(crate) fn end_as_announced(&self) {
        let announced = lock(&self.closing.end).announced.take();
        match announced {
            None => {}
            Some(Announced::Halt) => self.end(Phase::Halted, None),
            Some(Announced::Failure(stage, cause)) => self.fail(&stage, &cause),
        }
    }

    /// Cuts all uncommitted claims except `kept`: their sequences become gaps, and their commits return an error.
    /// Returns all claims that were cut, by this call or before; none while the ring is open. Each of `kept` is a whole
    /// claim; a later cut may take it.
    pub(crate) fn cut(&self, kept: &[Sequences]) -> Vec<Sequences> {
        let cuts = {
            let Some(mut end) = self.closing.end() else { return Vec::new() };
            self.cut_locked(&mut end, kept);
            runs(&end.cut)
        };
        // Events after a gap may be readable now, so waiting stages must check again.
        if !fault(Fault::CutWakesNobody) {
            self.wake_all();
        }
        cuts
    }

    fn cut_locked(&self, end: &mut End, kept: &[Sequences]) {
        if end.is_cut {
            return;
        }
        let keeps_none = kept.is_empty();
        let kept = kept.iter().map(|claim| (claim.first.0, claim.first.0.wrapping_add(claim.len as u64)));
        // Some unpublished sequences may be gaps already: of an earlier cut, or of a single producer's only claim,
        // which was withdrawn.
        let others: Vec<_> = kept.chain(end.gaps.iter().copied()).collect();
        let unpublished = K::unpublished(self, end.at);
        let cut: Vec<_> = unpublished.into_iter().flat_map(|run| outside(run, &others)).collect();
        if !fault(Fault::CutLeavesNoGap) {
            cut.iter().for_each(|gap| end.add_gap(*gap));
        }
        end.cut.extend(cut);
        end.is_cut = keeps_none;
    }

    /// The claims that were cut; none while the ring is open or before the cut.
    pub(crate) fn cuts(&self) -> Vec<Sequences> {
        self.closing.end().map(|end| runs(&end.cut)).unwrap_or_default()
    }

    /// Notes for the report that the consumer of `stage` is dropped, if the ring was halted or has failed before the
    /// stage had read all events. Call it while the ring still has the stage, so that a report misses it nowhere.
    pub(crate) fn note_stopped(&self, stage: &Arc<StageState>) {
        if self.closing.phase().at_once() && self.unread(stage.position(&LOOK_AT_STAGE)) > 0 {
            lock(&self.closing.end).stopped.push(Arc::clone(stage));
        }
    }

    /// The stages of [`note_stopped`](Self::note_stopped).
    pub(crate) fn stopped(&self) -> Vec<Arc<StageState>> {
        self.closing.end().map(|end| end.stopped.clone()).unwrap_or_default()
    }

    /// The refusal of the fence that the end relies on; `None` while the ring is open.
    pub(crate) fn unfenced(&self) -> Option<Refused> {
        self.closing.end().and_then(|end| end.unfenced)
    }

    /// True if the claim that begins at `first`, and was published after the ring was closed, was cut, or was made in
    /// the parent of this process: then its commit is an error.
    pub(crate) fn is_cut(&self, first: u64) -> bool {
        let end = lock(&self.closing.end);
        (end.is_fork || end.cut.iter().any(|&(from, to)| is_in(first, from, to))) && !fault(Fault::CutClaimIsCommitted)
    }

    /// The error for a claim that [was cut](Self::is_cut).
    #[cold]
    pub(crate) fn why_cut(&self) -> Closed {
        let end = lock(&self.closing.end);
        match (self.closing.phase(), &end.failure) {
            (Phase::Failed, Some((stage, cause))) => Closed::Failed { stage: stage.clone(), cause: cause.clone() },
            _ => Closed::Cut,
        }
    }

    /// Records that a single producer has withdrawn its claim, which begins at `first`, after the ring was closed.
    #[cold]
    pub(crate) fn withdrawn(&self, first: u64) {
        let mut end = lock(&self.closing.end);
        let at = end.at;
        // A claim that was made after the end was recorded, or that was cut already, needs no gap.
        if ahead(at, first) > 0 && end.past_gaps(first) == first && !fault(Fault::WithdrawnClaimLeavesNoGap) {
            end.add_gap((first, at));
        }
        let is_fork = end.is_fork;
        drop(end);
        // In a forked process, no thread sleeps on this ring: the sleeping threads are the parent's.
        if !is_fork {
            self.wake_all();
        }
    }

    /// The next sequence to be published, at most the end. Gaps count as published.
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

    /// The sequence at which reading ends: the recorded end, or the published position while the ring is open.
    pub(crate) fn last(&self) -> u64 {
        match self.closing.end() {
            Some(end) => end.at,
            None => K::published(self),
        }
    }

    /// Count of events that a stage at position `from` has not read.
    pub(crate) fn unread(&self, from: u64) -> u64 {
        let to = self.published();
        let end = self.closing.end();
        let is_gap = |at| end.as_ref().is_some_and(|end| end.past_gaps(at) != at);
        let len = ahead(to, from).max(0) as u64;
        // If the stage has left, its oldest unread events may have been overwritten; each of these slots counts as an
        // event.
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

#[cfg(all(unix, not(any(loom, shuttle, miri))))]
impl<E: Send + Sync, K: Kind> crate::forks::EndsInForks for Core<E, K> {
    fn lock_end(&self) -> MutexGuard<'_, End> {
        lock(&self.closing.end)
    }

    fn end_in_fork(&self, end: &mut End) {
        let before = self.closing.phase();
        if before == Phase::Failed {
            return;
        }
        end.failure = end.in_forks.take();
        end.is_fork = true;
        self.closing.phase.store(Phase::Failed as u32, CLOSE.get());
        if before == Phase::Open {
            self.bell.mark_closed_in_fork();
            end.at = K::claimed(self);
        }
    }
}
