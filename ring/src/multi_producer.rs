//! The multi producer: claims by compare-and-swap, publishes by a stamp in each slot.
//!
//! A stamp is `sequence << 2`, with one bit for a skipped slot and one for a slot that is not the first of its claim: see
//! [`crate::stamps`]. A slot counts as published for a sequence if its stamp, by wrapping difference, is at or above the
//! stamp of that sequence: a late reader may find the stamp of a later lap. Producers never wait for one another. A reader finds the
//! contiguous published position by reading one stamp after another (a *walk*). A claim is stamped from its last slot
//! to its first, so that a cut takes all of it or nothing: see [`crate::closing`].
//!
//! While there is only one producer, because it was never cloned or its clones were dropped, it claims by a plain
//! store: no other thread can claim, and a new producer can only be a clone of this one. By reading the count of
//! producers, the only producer acquires the claims of dropped producers.
//!
//! `Claims::floor` is the highest published position that a walk has found so far. `Core::floor` is that position,
//! brought up to date by a walk, minus the count of retained events. It is the gate that every ring has: in a ring
//! without stages, it keeps a producer from lapping another one that is still writing. A stage's position is at or
//! below the contiguous published position, so with a stage, and without retained events, a producer needs no walk.
//! Models: `multi_producer` in loom-tests.

use crate::buffer::Slots;
use crate::core::Core;
use crate::fault::{Fault, fault};
use crate::kind::{Kind, ManyProducers, Mechanics, Multi, Run};
use crate::ordering::{
    ALONE, CLAIM, CLAIM_ALONE, GATE, RAISE_FLOOR, READ_CLAIMED, READ_FLOOR, READ_SKIP, READ_STAMP, READ_STAMP_IN_TURN,
    STAMP, STAMP_BEHIND, STAMP_FENCE, STAMP_READ_FENCE, Site,
};
use crate::producer::Producer;
use crate::sequence::{Position, ahead, earlier, later};
use crate::stamps::{self, SKIPPED, Stamped, is_out, run_of, stamp_of, walk_exactly};
use crate::sync::{Arc, AtomicU32, AtomicU64};
use crate::waiting::Waiting;

/// The positions that the producers share: the next sequence to claim, and the highest published position that a walk
/// has found.
pub struct Claims {
    claimed: Position,
    floor: Position,
}

/// Stamp bit: this slot belongs to one claim with the slot before, that is, it is not the first of its claim.
const FOLLOWS: u64 = stamps::PLACE;

impl<E> Stamped for Slots<'_, E, AtomicU64> {
    #[inline(always)]
    fn stamp_at(&self, sequence: u64) -> &AtomicU64 {
        self.stamp(sequence)
    }
}

/// Issues the fence that acquires the events of the slots `from..end`, whose stamps were loaded before; none if the
/// range is empty. Its partner is STAMP or STAMP_FENCE.
#[inline(always)]
#[cfg_attr(loom, track_caller)]
fn acquire(from: u64, end: u64) {
    if end != from {
        STAMP_READ_FENCE.fence();
    }
}

/// Reads the stamps from `from` to `end` (exclusive) at most, and acquires the published slots, whose stamps may be of
/// a later lap by now. Returns the first unpublished sequence, or `end`.
fn walk<E>(slots: Slots<'_, E, AtomicU64>, from: u64, end: u64) -> u64 {
    let at = stamps::walk(slots, from, end, &READ_STAMP);
    acquire(from, at);
    at
}

/// As [`run_of`], for one of several workers. Another worker may have taken `from` long ago, so the stamp of a later
/// lap counts as published: the producer that overwrote the slot had waited for that other worker, and this worker's
/// exchange of the shared counter will fail. The caller issues the fence.
#[cfg_attr(loom, track_caller)]
fn share_of<E>(slots: Slots<'_, E, AtomicU64>, from: u64, furthest: u64, most: u64, site: &Site) -> Run {
    let limit = from.wrapping_add(furthest);
    let start = match fault(Fault::WorkersIgnoreTheSkipBit) {
        false => walk_exactly(slots, from, limit, SKIPPED, site),
        true => from,
    };
    let last = start.wrapping_add(limit.wrapping_sub(start).min(most));
    let mut end = start;
    while end != last {
        let stamp = slots.stamp(end).load(site.get());
        let is_skipped = stamp & !FOLLOWS == (stamp_of(end) | SKIPPED) && !fault(Fault::WorkersIgnoreTheSkipBit);
        if !is_out(stamp, end) || is_skipped {
            break;
        }
        end = end.wrapping_add(1);
    }
    Run { start, end }
}

impl Mechanics for Multi {
    type Stamp = AtomicU64;
    type Positions = Claims;

    const PREFETCH: usize = 128;
    /// The events of a run of this length are still in the nearest cache when they are read.
    const LONGEST_LOOK: u64 = 512;

    /// The initial stamps are those of the lap before the first one, so no slot counts as published for its first
    /// event.
    fn first_stamp(index: u64, first: u64, capacity: u64) -> AtomicU64 {
        let sequence = first.wrapping_add(index.wrapping_sub(first) & (capacity - 1));
        let lap_before = if fault(Fault::FirstLapCountsAsPublished) { 0 } else { capacity };
        AtomicU64::new(stamp_of(sequence.wrapping_sub(lap_before)))
    }

    fn start(first: u64) -> Claims {
        Claims { claimed: Position::new(first), floor: Position::new(first) }
    }

    fn published<E>(core: &Core<E, Self>) -> u64 {
        let floor = &core.positions.floor;
        let raised = floor.read(&READ_FLOOR);
        // Producers of a ring with stages need no walk, so the stored position may be laps behind. But the claimed
        // position is never more than the capacity ahead of the published one. So the walk may begin at the claimed
        // position minus the capacity, from where it reads each slot's latest lap.
        let from = match fault(Fault::PublishedWalksFromAFloorLapsBehind) {
            false => later(raised, Self::claimed(core).wrapping_sub(core.capacity())),
            true => raised,
        };
        let to = walk(core.buffer.slots(), from, from.wrapping_add(core.capacity()));
        if to != raised {
            floor.raise(to, &RAISE_FLOOR);
        }
        to
    }

    #[inline(always)]
    fn run<E>(core: &Core<E, Self>, from: u64, known: u64, to: Option<u64>, most: u64) -> Run {
        if ahead(known, from) > 0 {
            return Run { start: from, end: known };
        }
        let (capacity, most) = (core.capacity(), most.min(Self::LONGEST_LOOK));
        // Two calls, so that the ordering is a constant in each. A stage after others has acquired the events with the
        // positions of these stages (FOLLOW), and reads a stamp only for its skip bit.
        match to {
            None => {
                let run = run_of(core.buffer.slots(), from, capacity, most, &READ_STAMP);
                acquire(from, run.end);
                run
            }
            Some(to) => {
                let furthest = (ahead(to, from).max(0) as u64).min(capacity);
                if furthest == 0 {
                    return Run { start: from, end: from };
                }
                run_of(core.buffer.slots(), from, furthest, most, &READ_SKIP)
            }
        }
    }

    fn share<E>(core: &Core<E, Self>, from: u64, to: Option<u64>, most: u64) -> Run {
        let (capacity, most) = (core.capacity(), most.min(Self::LONGEST_LOOK));
        match to {
            None => {
                let run = share_of(core.buffer.slots(), from, capacity, most, &READ_STAMP);
                acquire(from, run.end);
                run
            }
            Some(to) => {
                let furthest = (ahead(to, from).max(0) as u64).min(capacity);
                share_of(core.buffer.slots(), from, furthest, most, &READ_SKIP)
            }
        }
    }

    fn claimed<E>(core: &Core<E, Self>) -> u64 {
        core.positions.claimed.read(&READ_CLAIMED)
    }

    fn next<E>(producer: &Producer<E, Self>) -> u64 {
        Self::claimed(&producer.core)
    }

    fn unpublished<E>(core: &Core<E, Self>, end: u64) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut at = Self::published(core);
        while ahead(end, at) > 0 {
            let (stamp, next) = (core.buffer.slots().stamp(at).load(READ_STAMP_IN_TURN.get()), at.wrapping_add(1));
            let is_published = is_out(stamp, at);
            let follows = stamp & FOLLOWS != 0 && !fault(Fault::CutTakesUnstampedSlotsOnly);
            match runs.last_mut() {
                // A slot with the bit FOLLOWS belongs to one claim with the slot before. The first slot of that claim
                // is not stamped yet, so the whole claim is unpublished.
                Some((_, end)) if *end == at && (!is_published || follows) => *end = next,
                _ if !is_published => runs.push((at, next)),
                _ => {}
            }
            at = next;
        }
        runs
    }

    fn refresh<E>(producer: &mut Producer<E, Self>) {
        refresh(producer);
    }

    #[inline(always)]
    fn claim<E>(producer: &mut Producer<E, Self>, len: u64) -> Option<u64> {
        // Must come before the claimed position is read, because the claims of dropped producers become visible with
        // the count of producers. In the other order, this producer could claim again what one of them claimed between
        // the two loads.
        let alone = producer.is_alone();
        // Among several producers, the claimed position is guessed to be the end of this producer's last claim: a load
        // would have to wait for the exchange of that claim, and the next exchange corrects a wrong guess.
        let mut claimed = if alone { producer.core.positions.claimed.read(&READ_CLAIMED) } else { producer.next };
        let mut lost = false;
        loop {
            if ahead(producer.limit, claimed) < len as i64 {
                refresh(producer);
                claimed = producer.core.positions.claimed.read(&READ_CLAIMED);
                if ahead(producer.limit, claimed) < len as i64 {
                    return None;
                }
            }
            let to = claimed.wrapping_add(len);
            let shared = &producer.core.positions.claimed;
            // The only producer needs no locked instruction: another producer can only be a clone of this one, and this
            // one is borrowed until its claim is stored.
            if alone || (fault(Fault::LooksForCompanyAfterTheClaimedPosition) && producer.core.has_one_producer()) {
                shared.store(to, &CLAIM_ALONE);
                break;
            }
            match shared.exchange(claimed, to, &CLAIM, &READ_CLAIMED) {
                Ok(_) => {
                    producer.next = to;
                    break;
                }
                Err(now) if now == claimed => {}
                // The guess was wrong: another producer has claimed since, perhaps long ago. No pause is needed.
                Err(now) if !lost => (claimed, lost) = (now, true),
                // Another producer claimed within the last few instructions: pause.
                Err(_) => {
                    producer.make_way();
                    claimed = producer.core.positions.claimed.read(&READ_CLAIMED);
                }
            }
        }
        producer.prefetch(claimed, len);
        Some(claimed)
    }

    #[inline(always)]
    fn publish<E>(producer: &mut Producer<E, Self>, first: u64, len: u64) {
        stamp(&producer.core, first, len, 0);
    }

    fn abandon<E>(producer: &mut Producer<E, Self>, first: u64, len: u64) {
        let skipped = if fault(Fault::AbortedClaimStampedAsAnEvent) { 0 } else { SKIPPED };
        stamp(&producer.core, first, len, skipped);
    }

    fn is_skipped<E>(slots: Slots<'_, E, AtomicU64>, sequence: u64) -> bool {
        slots.stamp(sequence).load(READ_SKIP.get()) & SKIPPED != 0
    }

    const TAKES_BACK: bool = false;
}

#[inline(always)]
fn stamp<E>(core: &Core<E, Multi>, first: u64, len: u64, skipped: u64) {
    let slots = core.buffer.slots();
    let forwards = fault(Fault::ClaimStampedFromItsFirstSlot);
    if forwards {
        slots.stamp(first).store(stamp_of(first) | skipped, STAMP.get());
    }
    if len > 1 {
        // Pairs with STAMP_READ_FENCE: a reader that sees one of the relaxed stamps below also sees the events.
        STAMP_FENCE.fence();
    }
    for index in (1..len).rev() {
        let sequence = first.wrapping_add(index);
        slots.stamp(sequence).store(stamp_of(sequence) | skipped | FOLLOWS, STAMP_BEHIND.get());
    }
    if !forwards {
        slots.stamp(first).store(stamp_of(first) | skipped, STAMP.get());
    }
}

#[cold]
#[inline(never)]
fn refresh<E>(producer: &mut Producer<E, Multi>) {
    let core = &*producer.core;
    let lowest = core.gates.refresh(&mut producer.known, |set| match set.lowest(&GATE) {
        Some((gate, _)) if core.retain == 0 => gate,
        Some((gate, _)) => earlier(gate, core.floor()),
        None if fault(Fault::NoFloor) => core.positions.claimed.read(&READ_CLAIMED),
        None => core.floor(),
    });
    // In a ring that is not open, gates leave although their stages have unread events. A claim of the slots of these
    // events would be withdrawn, but its skip stamps would replace the stamps of the events. So the limit is not raised
    // then. A producer that sees that a gate has left also sees the closed bit.
    if !core.bell.is_closed() || fault(Fault::WithdrawnClaimStampsOverTheUnread) {
        producer.limit = lowest.wrapping_add(core.reach());
    }
}

impl<E> Producer<E, Multi> {
    /// True if this is the only producer. Then all claims of dropped producers are visible to it, and no other producer
    /// can appear while this one is borrowed. Once true, the answer is kept until this producer is cloned.
    #[inline(always)]
    pub(crate) fn is_alone(&mut self) -> bool {
        if self.alone.load(ALONE.get()) == 1 {
            return true;
        }
        let alone = self.core.has_one_producer();
        if alone {
            self.alone.store(1, ALONE.get());
        }
        alone
    }
}

impl<E, K: Kind> Producer<E, K> {
    /// [`Clone::clone`], for rings with any number of producers. As a method with a condition, the compiler refuses it on
    /// [`Single`](crate::Single) with the words of [`ManyProducers`]; a missing trait would leave the reader alone.
    #[doc(hidden)]
    #[expect(clippy::should_implement_trait, reason = "it is implemented; this words the refusal")]
    #[inline]
    pub fn clone(&self) -> Self
    where
        K: ManyProducers,
    {
        Clone::clone(self)
    }
}

impl<E, K: ManyProducers> Clone for Producer<E, K> {
    fn clone(&self) -> Self {
        if !fault(Fault::ClonedProducerStaysAlone) {
            self.alone.store(0, ALONE.get());
        }
        self.core.add_producer();
        Self {
            alone: AtomicU32::new(0),
            core: Arc::clone(&self.core),
            bell: Arc::clone(&self.bell),
            known: Arc::clone(&self.known),
            next: self.next,
            limit: self.limit,
            ahead: self.ahead,
            cut: None,
            waiting: Waiting::new(self.waiting.wait().clone()),
        }
    }
}
