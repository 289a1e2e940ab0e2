//! The single producer: a published position, and no read-modify-write at all.
//!
//! Claiming is private arithmetic; only publishing shows anything, so a claim dropped without commit never happened.
//! Models: `single_producer` in loom-tests.

use crate::core::Core;
use crate::fault::{Fault, fault};
use crate::kind::{Mechanics, Run, Single};
use crate::ordering::{GATE, OBSERVE_PUBLISHED, PUBLISH};
use crate::producer::Producer;
use crate::sequence::{Position, ahead, earlier, later};

/// The position that a single producer shows.
pub struct Published(Position);

impl Mechanics for Single {
    type Stamp = ();
    type Positions = Published;

    const PREFETCH: usize = 512;
    const LONGEST_LOOK: u64 = u64::MAX;

    fn first_stamp(_: u64, _: u64, _: u64) {}

    fn start(first: u64) -> Published {
        Published(Position::new(first))
    }

    #[inline(always)]
    fn published<E>(core: &Core<E, Self>) -> u64 {
        core.positions.0.read(&OBSERVE_PUBLISHED)
    }

    #[inline(always)]
    fn run<E>(core: &Core<E, Self>, from: u64, known: u64, to: Option<u64>, _: u64) -> Run {
        let end = match to {
            Some(to) => later(to, from),
            // What is known already does, so that the producer keeps its cache line a while longer.
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
        Self::published(core)
    }

    #[inline(always)]
    fn claim<E>(producer: &mut Producer<E, Self>, len: u64) -> Option<u64> {
        if ahead(producer.limit, producer.next) < len as i64 {
            refresh(producer);
            if ahead(producer.limit, producer.next) < len as i64 {
                return None;
            }
        }
        producer.prefetch(producer.next, len);
        Some(producer.next)
    }

    #[inline(always)]
    fn publish<E>(producer: &mut Producer<E, Self>, first: u64, len: u64) {
        producer.next = first.wrapping_add(len);
        producer.core.positions.0.store(producer.next, &PUBLISH);
    }

    fn abandon<E>(_: &mut Producer<E, Self>, _: u64, _: u64) {}
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
