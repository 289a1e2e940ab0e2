//! The end of a shared ring.
//!
//! # The invariant
//! What a publish has returned `Ok` for lies below the end, so every consumer that reads on reads it. A publish that
//! returned an end as an error may have been read, or not.
//!
//! # The protocol
//! Whoever closes stores the phase, clears the open bit of the bell of events, issues a full fence
//! (SHARED_CLOSE_FENCE), and *settles* the end: one exchange from nothing to what is claimed or published now. It may be
//! killed anywhere; therefore everybody who reads that the ring is not open settles the end in the same way, and the
//! first exchange wins. A producer stores its position, issues a full fence (SHARED_RING_FENCE), and reads the open bit:
//! if it misses the end, its fence came before the fence of everyone who settles, and they read its position. If it
//! sees the end, it settles it and compares.

use super::error::Ended;
use super::layout::Event;
use super::region::{NONE, Region, phase};
use crate::fault::{Fault, fault};
use crate::ordering::{SHARED_CLOSE, SHARED_CLOSE_FENCE, SHARED_END, SHARED_READ_CLAIMED, SHARED_READ_END};

/// Ends a ring: `why` is [`phase::CLOSED`] or [`phase::REMOVED`]. A closed ring can be removed, nothing else.
pub(crate) fn end<E: Event>(region: &Region<E>, why: u32) {
    let control = region.control();
    let from = if why == phase::CLOSED { phase::OPEN } else { control.state.0.phase.load(SHARED_READ_END.get()) };
    let _ = control.state.0.phase.compare_exchange(from, why, SHARED_CLOSE.get(), SHARED_READ_END.get());
    if fault(Fault::SharedEndSettledBeforeTheClose) {
        settle(region);
    }
    control.events.0.mark_ended();
    settle(region);
    control.events.0.wake_all();
    control.room.0.wake_all();
}

/// The sequence at which reading ends, for a caller that has read that the ring is not open.
pub(crate) fn settle<E: Event>(region: &Region<E>) -> u64 {
    let state = &region.control().state.0;
    let end = state.end.load(SHARED_READ_END.get());
    if end != NONE {
        return end;
    }
    SHARED_CLOSE_FENCE.fence();
    let control = region.control();
    let next = if region.is_multi { &control.claimed.0 } else { &control.published.0 };
    let now = next.load(SHARED_READ_CLAIMED.get());
    state.end.compare_exchange(NONE, now, SHARED_END.get(), SHARED_READ_END.get()).map_or_else(|end| end, |_| now)
}

/// Why the ring is not open; `None` if it is.
pub(crate) fn reason<E: Event>(region: &Region<E>) -> Option<Ended> {
    if region.control().events.0.is_open() {
        return None;
    }
    match region.control().state.0.phase.load(SHARED_READ_END.get()) {
        phase::FORKED => Some(Ended::Forked),
        phase::REMOVED => Some(Ended::Replaced),
        // The phase may be that of an open ring if this thread reads it late.
        phase::OPEN | phase::CLOSED => Some(Ended::Closed),
        other => Some(Ended::Damaged { what: "its phase", found: u64::from(other) }),
    }
}
