//! The single producer: it publishes by a store to one position, without any read-modify-write.
//!
//! A claim is computed from the producer's own fields, and stored only for threads that close the ring: see
//! [`crate::closing`]. A claim that is dropped without commit is taken back. Models: `single_producer` in loom-tests.

use crate::buffer::Slots;
use crate::core::Core;
use crate::fault::{Fault, fault};
use crate::kind::{Mechanics, Run, Single};
use crate::ordering::{GATE, OBSERVE_PUBLISHED, PUBLISH, READ_CLAIMED, SHOW_CLAIM};
use crate::producer::Producer;
use crate::sequence::{Position, ahead, earlier, later};

/// The positions that a single producer stores for other threads. `claimed` is read only when the ring ends, so its
/// cache line stays with the producer.
pub struct Shown {
    published: Position,
    claimed: Position,
}

impl Mechanics for Single {
    type Stamp = ();
    type Positions = Shown;

    const PREFETCH: usize = 512;
    const LONGEST_LOOK: u64 = u64::MAX;

    fn first_stamp(_: u64, _: u64, _: u64) {}

    fn start(first: u64) -> Shown {
        Shown { published: Position::new(first), claimed: Position::new(first) }
    }

    #[inline(always)]
    fn published<E>(core: &Core<E, Self>) -> u64 {
        core.positions.published.read(&OBSERVE_PUBLISHED)
    }

    #[inline(always)]
    fn run<E>(core: &Core<E, Self>, from: u64, known: u64, to: Option<u64>, _: u64) -> Run {
        let end = match to {
            Some(to) => later(to, from),
            // The events that are known to be readable are used up before the position is read again, so that the
            // producer keeps the position's cache line for longer.
            None if ahead(known, from) > 0 => known,
            None => later(Self::published(core), from),
        };
        Run { start: from, end }
    }

    fn share<E>(core: &Core<E, Self>, from: u64, to: Option<u64>, most: u64) -> Run {
        let to = to.unwrap_or_else(|| Self::published(core));
        Run { start: from, end: from.wrapping_add((ahead(to, from).max(0) as u64).min(most)) }
    }

    fn claimed<E>(core: &Core<E, Self>) -> u64 {
        core.positions.claimed.read(&READ_CLAIMED)
    }

    fn next<E>(producer: &Producer<E, Self>) -> u64 {
        producer.next
    }

    fn unpublished<E>(core: &Core<E, Self>, end: u64) -> Vec<(u64, u64)> {
        let published = Self::published(core);
        if ahead(end, published) > 0 { vec![(published, end)] } else { Vec::new() }
    }

    fn refresh<E>(producer: &mut Producer<E, Self>) {
        refresh(producer);
    }

    #[inline(always)]
    fn claim<E>(producer: &mut Producer<E, Self>, len: u64) -> Option<u64> {
        if ahead(producer.limit, producer.next) < len as i64 {
            refresh(producer);
            if ahead(producer.limit, producer.next) < len as i64 {
                return None;
            }
        }
        // Read once: the compiler must assume that the store of the claim changes the producer's own fields.
        let first = producer.next;
        if !fault(Fault::SingleProducerShowsNoClaim) {
            producer.core.positions.claimed.store(first.wrapping_add(len), &SHOW_CLAIM);
        }
        producer.prefetch(first, len);
        Some(first)
    }

    #[inline(always)]
    fn publish<E>(producer: &mut Producer<E, Self>, first: u64, len: u64) {
        producer.next = first.wrapping_add(len);
        producer.core.positions.published.store(producer.next, &PUBLISH);
    }

    fn abandon<E>(producer: &mut Producer<E, Self>, first: u64, _: u64) {
        producer.core.positions.claimed.store(first, &SHOW_CLAIM);
    }

    fn is_skipped<E>(_: Slots<'_, E, ()>, _: u64) -> bool {
        false
    }

    const TAKES_BACK: bool = true;
}

#[cold]
#[inline(never)]
fn refresh<E>(producer: &mut Producer<E, Single>) {
    let (core, next) = (&*producer.core, producer.next);
    let floor = next.wrapping_sub(core.retain);
    let lowest = core.gates.refresh(&mut producer.known, |set| match set.lowest(&GATE) {
        Some((gate, _)) => earlier(gate, floor),
        None if fault(Fault::NoFloor) => next.wrapping_add(core.capacity()),
        None => floor,
    });
    producer.limit = lowest.wrapping_add(core.reach());
}
