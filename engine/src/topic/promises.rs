//! The claims of one partition whose events the journal was given to write: those of transactions.
//!
//! # The invariant
//! If the journal may have an event, its offset is no gap of a ring that is read on. So no group, queue or subscriber
//! passes over an event that readers of the next opening find in the journal. A shutdown cuts claims that are not
//! promised, and no transaction is given to the journal once one of its claims was cut. It waits for promised claims as
//! long as for the journal. If the journal takes longer, the topic is halted, so its readers stop before these claims.

use slipring_ring::Sequences;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The promised claims of a partition.
#[derive(Default)]
pub(crate) struct Promises {
    state: Mutex<PromiseState>,
}

#[derive(Default)]
struct PromiseState {
    /// True once uncommitted claims were cut. Then no claim may be promised any more.
    is_cut: bool,
    /// The promised claims that are not published yet, and those whose publish the ring refused although the journal
    /// has their events.
    claims: Vec<Sequences>,
}

/// A promised claim. Drop it after the claim is published or dropped.
pub(crate) struct Promise<'p> {
    of: &'p Promises,
    claim: Sequences,
}

impl Promises {
    fn state(&self) -> MutexGuard<'_, PromiseState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the journal is given the events of this claim. `None` if uncommitted claims were cut before: then the
    /// journal must not get them.
    pub(crate) fn promise(&self, claim: Sequences) -> Option<Promise<'_>> {
        let mut state = self.state();
        if state.is_cut {
            return None;
        }
        state.claims.push(claim);
        Some(Promise { of: self, claim })
    }

    /// Calls `cut` with the promised claims, which it must keep. From then on no claim can be promised. True if there
    /// are promised claims.
    pub(super) fn cut_others(&self, cut: impl FnOnce(&[Sequences])) -> bool {
        let mut state = self.state();
        state.is_cut = true;
        cut(&state.claims);
        !state.claims.is_empty()
    }

    /// The promised claims, of which some may be published meanwhile.
    pub(super) fn claims(&self) -> Vec<Sequences> {
        self.state().claims.clone()
    }
}

impl Promise<'_> {
    /// Keeps the claim among the partition's promised ones, for the report: the ring has refused to publish it, although the
    /// journal has its events.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        let mut state = self.of.state();
        if let Some(place) = state.claims.iter().position(|claim| *claim == self.claim) {
            state.claims.swap_remove(place);
        }
    }
}
