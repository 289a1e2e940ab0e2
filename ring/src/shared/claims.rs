//! The claims of several producers: announced in the table, made by an exchange, published by stamps.
//!
//! ```text
//! (1) store the length, then `from = c`           an announcement, which owns nothing
//! (2) exchange `claimed` from c to c + n          the claim; on failure again from (1)
//! (3) write the events
//! (4) stamp from the last slot down to the first  slot c last
//! (5) clear `from`
//! ```
//!
//! A stamp is `sequence << 2 | first << 1 | skipped`. A reader finds what is out by reading one stamp after another, so a
//! claim is out with its first slot, and then all of it is. Every value of `from` was the claimed position once, so it
//! is the begin of a claim, or of the next one. What the heirs of the dead make of all this is in [`super::heir`].

use super::layout::Event;
use super::region::{Control, Entry, NONE, Region};
use crate::fault::{Fault, fault};
use crate::kind::Run;
use crate::ordering::{
    SHARED_ANNOUNCE, SHARED_ANNOUNCED_LEN, SHARED_CLAIM, SHARED_LOOK_AT_CLAIMED, SHARED_RAISE_FLOOR, SHARED_READ_FLOOR,
    SHARED_READ_STAMP, SHARED_STAMP, SHARED_STAMP_BEHIND, SHARED_STAMP_READ_FENCE, SHARED_WITHDRAW,
};
use crate::stamps::{self, Stamped, stamp_of};
use crate::sync::AtomicU64;

/// Stamp bit: the slot is the first of its claim.
pub(crate) const FIRST: u64 = stamps::PLACE;
/// No sequence is as large: a stamp has 62 bits for it.
pub(crate) const LARGEST_SEQUENCE: u64 = 1 << 62;
/// The most events that one look finds, so that they are still in the nearest cache when they are read.
const LONGEST_LOOK: u64 = 512;

impl<E: Event> Stamped for &Region<E> {
    #[inline(always)]
    fn stamp_at(&self, sequence: u64) -> &AtomicU64 {
        self.stamp(sequence)
    }
}

/// Step (1). The caller owns the entry.
#[inline(always)]
pub(crate) fn announce(entry: &Entry, first: u64, len: u64) {
    if fault(Fault::SharedClaimIsNotAnnounced) {
        return;
    }
    entry.moving.0.len.store(len, SHARED_ANNOUNCED_LEN.get());
    entry.moving.0.from.store(first, SHARED_ANNOUNCE.get());
}

/// Step (2). The error is the claimed position that was found instead of `first`.
#[inline(always)]
pub(crate) fn exchange(control: &Control, first: u64, len: u64) -> Result<u64, u64> {
    let (claim, look) = (SHARED_CLAIM.get(), SHARED_LOOK_AT_CLAIMED.get());
    control.claimed.0.compare_exchange(first, first.wrapping_add(len), claim, look)
}

/// Step (4), for a producer, or for an heir with [`stamps::SKIPPED`].
#[inline(always)]
pub(crate) fn stamp<E: Event>(region: &Region<E>, first: u64, len: u64, skipped: u64) {
    stamp_half(region, first, len, skipped, false);
    stamp_half(region, first, len, skipped, true);
}

/// The two halves of step (4), in their order: the slots behind the first one, then the first one.
#[inline(always)]
pub(crate) fn stamp_half<E: Event>(region: &Region<E>, first: u64, len: u64, skipped: u64, is_last_half: bool) {
    if is_last_half != fault(Fault::SharedClaimStampedFromItsFirstSlot) {
        region.stamp(first).store(stamp_of(first) | FIRST | skipped, SHARED_STAMP.get());
    } else if len > 1 {
        stamp_behind(region, first.wrapping_add(1), len - 1, skipped);
    }
}

/// Stamps slots that are not the first of their claim, from the last one down to `from`.
#[inline(always)]
pub(crate) fn stamp_behind<E: Event>(region: &Region<E>, from: u64, len: u64, skipped: u64) {
    for index in (0..len).rev() {
        let sequence = from.wrapping_add(index);
        region.stamp(sequence).store(stamp_of(sequence) | skipped, SHARED_STAMP_BEHIND.get());
    }
}

/// Step (5), and the end of an announcement without a claim. The caller owns the entry, or is its owner's heir.
#[inline(always)]
pub(crate) fn withdraw(entry: &Entry) {
    entry.moving.0.from.store(NONE, SHARED_WITHDRAW.get());
}

/// The next sequence to be claimed.
pub(crate) fn claimed<E: Event>(region: &Region<E>) -> u64 {
    region.control().claimed.0.load(SHARED_LOOK_AT_CLAIMED.get())
}

/// The first sequence that is not out. Raises the published position to it.
pub(crate) fn published<E: Event>(region: &Region<E>) -> u64 {
    let published = &region.control().published.0;
    let raised = published.load(SHARED_READ_FLOOR.get());
    // Producers of a ring with consumers need no walk, so the stored position may be laps behind. But the claimed
    // position is never more than the capacity ahead of what is out. So the walk may begin at the claimed position less
    // the capacity, from where it reads each slot's latest lap.
    let from = match fault(Fault::SharedWalksFromAFloorLapsBehind) {
        false => raised.max(claimed(region).saturating_sub(region.capacity())),
        true => raised,
    };
    let to = stamps::walk(region, from, from.wrapping_add(region.capacity()), &SHARED_READ_STAMP);
    if to != from {
        SHARED_STAMP_READ_FENCE.fence();
    }
    if to != raised {
        published.fetch_max(to, SHARED_RAISE_FLOOR.get());
    }
    to
}

/// Finds at most `most` consecutive events from `from` on, or from after the skipped slots there.
#[inline(always)]
pub(crate) fn run<E: Event>(region: &Region<E>, from: u64, most: u64) -> Run {
    let run = stamps::run_of(region, from, region.capacity(), most.clamp(1, LONGEST_LOOK), &SHARED_READ_STAMP);
    if run.end != from {
        SHARED_STAMP_READ_FENCE.fence();
    }
    run
}

/// True if the slot of `sequence` is out. Acquires nothing.
pub(crate) fn is_out<E: Event>(region: &Region<E>, sequence: u64) -> bool {
    stamps::is_out(region.stamp(sequence).load(SHARED_READ_STAMP.get()), sequence)
}

/// The stamp of the slot of `sequence`, if it is neither that of the sequence nor that of the lap before.
pub(crate) fn impossible<E: Event>(region: &Region<E>, sequence: u64) -> Option<u64> {
    let stamp = region.stamp(sequence).load(SHARED_READ_STAMP.get());
    let of = stamp >> 2;
    let is_possible = of == sequence || of == sequence.wrapping_sub(region.capacity()) & (u64::MAX >> 2);
    (!is_possible).then_some(stamp)
}
