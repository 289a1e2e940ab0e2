//! The stamps of slots in rings of several producers, in one process and between processes.
//!
//! A stamp is `sequence << 2` and two bits: [`SKIPPED`], and one that tells the first slot of a claim from the others,
//! which the two kinds of rings use in opposite ways. A slot counts as *out* for a sequence, that is, published or
//! skipped, if its stamp, by wrapping difference, is at or above the stamp of that sequence.

use crate::fault::{Fault, fault};
use crate::kind::Run;
use crate::ordering::Site;
use crate::sequence::ahead;
use crate::sync::AtomicU64;

/// Stamp bit: the claim of this slot was dropped, so the slot holds no event.
pub(crate) const SKIPPED: u64 = 1;
/// Stamp bit that tells the first slot of a claim from the others.
pub(crate) const PLACE: u64 = 2;

// Always inlined: otherwise a program that is built without link-time optimisation calls it for each slot.
#[inline(always)]
pub(crate) const fn stamp_of(sequence: u64) -> u64 {
    sequence << 2
}

/// Slots with stamps.
pub(crate) trait Stamped: Copy {
    /// The stamp of the slot of `sequence`.
    fn stamp_at(&self, sequence: u64) -> &AtomicU64;
}

/// True if the stamp is that of `sequence`, or of a later lap.
#[inline(always)]
pub(crate) const fn is_out(stamp: u64, sequence: u64) -> bool {
    ahead(stamp, stamp_of(sequence)) >= 0
}

/// Reads the stamps from `at` to `end` (exclusive) at most, as long as the slots are out. Returns the first sequence
/// that is not, or `end`. The caller issues the fence.
#[inline(always)]
#[cfg_attr(loom, track_caller)]
pub(crate) fn walk(slots: impl Stamped, mut at: u64, end: u64, site: &Site) -> u64 {
    while at != end && is_out(slots.stamp_at(at).load(site.get()), at) {
        at = at.wrapping_add(1);
    }
    at
}

/// Reads stamps from `at` to `end` (exclusive) at most, as long as each is exactly the stamp of its sequence with the
/// bits `skipped` ([`SKIPPED`] or 0). Returns the first sequence whose stamp differs, or `end`. For a consumer, whose
/// gate keeps later laps out of the slots from its position on. The caller issues the fence.
#[inline(always)]
#[cfg_attr(loom, track_caller)]
pub(crate) fn walk_exactly(slots: impl Stamped, mut at: u64, end: u64, skipped: u64, site: &Site) -> u64 {
    while at != end && slots.stamp_at(at).load(site.get()) & !PLACE == (stamp_of(at) | skipped) {
        at = at.wrapping_add(1);
    }
    at
}

/// Finds at most `most` consecutive events from `from` on, or from after the skipped slots there, within the next
/// `furthest` slots (at least 1). The run is empty if there is no event. The caller issues the fence.
#[inline(always)]
#[cfg_attr(loom, track_caller)]
pub(crate) fn run_of(slots: impl Stamped, from: u64, furthest: u64, most: u64, site: &Site) -> Run {
    let skipped = if fault(Fault::SkipBitNotLookedAt) { SKIPPED } else { 0 };
    let seen = slots.stamp_at(from).load(site.get()) & !PLACE;
    if seen == stamp_of(from) | skipped {
        let end = from.wrapping_add(furthest.min(most));
        Run { start: from, end: walk_exactly(slots, from.wrapping_add(1), end, skipped, site) }
    } else if seen | SKIPPED == stamp_of(from) | SKIPPED {
        run_behind(slots, from, furthest, most, site)
    } else {
        Run { start: from, end: from }
    }
}

/// As [`run_of`], for the case that the slot at `from` is skipped. Skipped slots do not count towards `most`.
#[cold]
#[cfg_attr(loom, track_caller)]
fn run_behind(slots: impl Stamped, from: u64, furthest: u64, most: u64, site: &Site) -> Run {
    let limit = from.wrapping_add(furthest);
    let start = walk_exactly(slots, from, limit, SKIPPED, site);
    let end = start.wrapping_add(limit.wrapping_sub(start).min(most));
    Run { start, end: walk_exactly(slots, start, end, 0, site) }
}
