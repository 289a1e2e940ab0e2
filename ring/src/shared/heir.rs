//! What the dead have left: entries, and the claims of producers.
//!
//! # Heirs
//! Whoever is stuck at s, the first sequence that is not out, may become the heir of the producer that claimed s and died.
//! It reads the claimed position, then what every producer has announced, then the stamp of s again. If s is claimed and
//! still not out, its owner is among the *candidates*, who have announced s: the owner announced before its exchange, which
//! the heir has acquired, and an owner that has cleared its announcement has stamped before, which the heir would see. The
//! other candidates lost the exchange. Nobody can tell them apart; so the heir locks the bytes of all candidates. If one of
//! them lives, it may be the owner: the heir leaves, and looks again at its next tick.
//!
//! *How long is the claim?* Each candidate has announced a length l. If it is the owner, a claim begins at s + l, or
//! nothing was claimed there yet. If it is not, and its l is smaller than the owner's, then s + l lies within the owner's
//! claim: it is claimed, its slot has no stamp or one without the bit of a first slot, and nobody has announced it, since
//! all that is announced was the claimed position once. So the owner's length is the shortest l for which s + l is not
//! claimed, or announced, or out with the bit of a first slot.
//!
//! The heir stamps these slots as skipped, like a claim, and then frees the candidates' entries. Killed in between, it has
//! left what the dead left, or their entries with s out.

use super::claims::{self, FIRST};
use super::layout::Event;
use super::lock::Locks;
use super::member::{is_alive, vacate};
use super::region::{NONE, PARTICIPANTS, Region, role};
use crate::fault::{Fault, fault};
use crate::ordering::{
    COUNT, SHARED_ANNOUNCED_LEN, SHARED_FIND_CLAIMED, SHARED_LOOK_AT_ANNOUNCED, SHARED_LOOK_AT_PUBLISHED,
    SHARED_LOOK_AT_ROLE, SHARED_READ_ANNOUNCED, SHARED_READ_STAMP,
};
use crate::stamps::{self, SKIPPED};
use std::array::from_fn;

/// The next sequence to be published: all below are published or skipped.
pub(crate) fn published<E: Event>(region: &Region<E>) -> u64 {
    if region.is_multi {
        return claims::published(region);
    }
    region.control().published.0.load(SHARED_LOOK_AT_PUBLISHED.get())
}

/// Frees the entry of somebody dead, whose lock the caller has taken. Returns false if the entry must stay, because it
/// announces a claim that may be its own and is not out.
pub(crate) fn free<E: Event>(region: &Region<E>, index: usize) -> bool {
    let control = region.control();
    let entry = &control.table[index];
    if entry.role.load(SHARED_LOOK_AT_ROLE.get()) == role::PRODUCER {
        let from = entry.moving.0.from.load(SHARED_LOOK_AT_ANNOUNCED.get());
        if region.is_multi && from != NONE {
            // Its owner's death is acquired by its lock: if the owner has exchanged, this finds it claimed.
            let is_settled = from >= claims::claimed(region) || claims::is_out(region, from);
            if !is_settled && !fault(Fault::SharedEntryFreedBeforeItsClaimIsSettled) {
                return false;
            }
            claims::withdraw(entry);
        }
        control.state.0.died.store(1, COUNT.get());
    }
    vacate(entry);
    true
}

/// Skips the claims of dead producers that hold up the ring, as far as no living producer may own them. `own` is the
/// caller's entry.
pub(crate) fn mend<E: Event>(region: &Region<E>, locks: &Locks, own: Option<usize>) {
    // Each participant leaves one claim at most.
    let most = if region.is_multi { PARTICIPANTS } else { 0 };
    let _ = (0..most).all(|_| settle(region, locks, own));
}

/// Looks at the first claim that is not out, and skips it if all that may own it are dead. True if it is worth looking
/// at the next one.
fn settle<E: Event>(region: &Region<E>, locks: &Locks, own: Option<usize>) -> bool {
    let control = region.control();
    let stuck = claims::published(region);
    // In this order: the claimed position, the announcements, the stamp. See above.
    let look_at_claimed = || control.claimed.0.load(SHARED_FIND_CLAIMED.get());
    let mut claimed = look_at_claimed();
    let announced: [u64; PARTICIPANTS] =
        from_fn(|index| control.table[index].moving.0.from.load(SHARED_READ_ANNOUNCED.get()));
    if fault(Fault::SharedHeirLooksAtTheClaimedPositionLast) {
        claimed = look_at_claimed();
    }
    if stuck >= claimed {
        return false;
    }
    if claims::is_out(region, stuck) && !fault(Fault::SharedHeirLooksAtTheSlotFirst) {
        return true;
    }
    let is_content_with_one = fault(Fault::SharedHeirIsContentWithOneDead);
    let candidates = || (0..PARTICIPANTS).filter(|index| announced[*index] == stuck);
    // The question comes before the lock, so that nobody who lives finds its byte locked. The lock of the own byte would
    // be granted: then it is this participant that has not finished.
    if candidates().any(|index| Some(index) == own || is_alive(locks, index)) && !is_content_with_one {
        return false;
    }
    let locked: Vec<usize> = candidates().filter(|index| locks.try_lock(*index).unwrap_or(false)).collect();
    let is_mine = locked.len() == candidates().count() || is_content_with_one;
    let is_done = is_mine && !locked.is_empty() && inherit(region, stuck, claimed, &announced, &locked);
    locked.into_iter().for_each(|index| locks.unlock(index));
    is_done
}

/// Skips the claim of `stuck`, and frees the entries of all candidates, whose locks the caller has.
fn inherit<E: Event>(
    region: &Region<E>,
    stuck: u64,
    claimed: u64,
    announced: &[u64; PARTICIPANTS],
    candidates: &[usize],
) -> bool {
    let table = &region.control().table;
    let has_changed = |index: &usize| table[*index].moving.0.from.load(SHARED_LOOK_AT_ANNOUNCED.get()) != stuck;
    let is_out = claims::is_out(region, stuck) && !fault(Fault::SharedHeirLooksAtTheSlotFirst);
    if candidates.iter().any(has_changed) || is_out {
        // Another heir was quicker.
        return true;
    }
    let begins = |at: u64| {
        let stamp = region.stamp(at).load(SHARED_READ_STAMP.get());
        claimed <= at || announced.contains(&at) || stamps::is_out(stamp, at) && stamp & FIRST != 0
    };
    let lengths = candidates.iter().map(|index| table[*index].moving.0.len.load(SHARED_ANNOUNCED_LEN.get()));
    // Only a damaged file has other lengths, or none that fits.
    let lengths = lengths.filter(|len| (1..=region.capacity()).contains(len));
    let fitting = lengths.clone().filter(|len| begins(stuck.wrapping_add(*len)));
    let len = match fault(Fault::SharedHeirTakesTheLongest) {
        false => fitting.min().or_else(|| lengths.max()),
        true => lengths.max(),
    };
    let Some(len) = len else { return false };
    claims::stamp(region, stuck, len, SKIPPED);
    candidates.iter().for_each(|index| {
        free(region, *index);
    });
    if !fault(Fault::SharedHeirWakesNobody) {
        region.control().events.0.ring(super::bell::OPEN);
    }
    true
}
