//! Events of every kind: without a size, over-aligned, owning; and the memory that they lie in.
#![cfg(not(any(loom, shuttle)))]

mod common;

use common::{STARTS, quiet_panic};
use slipring_ring::{Builder, Kind, Obtained, Sequence};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// How often each event was dropped, by its number; one of them panics when it is.
struct Ledger {
    drops: Vec<AtomicU64>,
    bomb: Option<usize>,
}

struct Counted(usize, Arc<Ledger>);

type Make = Box<dyn FnMut() -> Counted + Send>;

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.drops[self.0].fetch_add(1, SeqCst);
        if self.1.bomb == Some(self.0) && !std::thread::panicking() {
            quiet_panic("this event's drop");
        }
    }
}

impl Ledger {
    fn new(count: usize, bomb: Option<usize>) -> Arc<Self> {
        Arc::new(Self { drops: (0..count).map(|_| AtomicU64::new(0)).collect(), bomb })
    }

    #[track_caller]
    fn assert_all_dropped_once(&self, what: &str) {
        for (number, drops) in self.drops.iter().enumerate() {
            assert_eq!(drops.load(SeqCst), 1, "event {number} {what}");
        }
    }
}

/// `count` numbered events to be made by a builder, or sent.
fn numbered(ledger: &Arc<Ledger>, first: usize) -> impl FnMut() -> Counted + use<> {
    let (ledger, mut next) = (Arc::clone(ledger), first);
    move || {
        next += 1;
        Counted(next - 1, Arc::clone(&ledger))
    }
}

fn drop_ring<K: Kind>(build: fn(usize, Make) -> Builder<Counted, K>, bomb: Option<usize>, first: u64) {
    const CAPACITY: usize = 4;
    const SENT: usize = 11;
    let ledger = Ledger::new(CAPACITY + SENT, bomb);
    let mut builder = build(CAPACITY, Box::new(numbered(&ledger, 0)));
    builder.start_at(Sequence(first)).poll("tape");
    let (mut producer, ring) = builder.build().unwrap();
    let mut tape = ring.consumer("tape").unwrap();
    let mut make = numbered(&ledger, CAPACITY);
    for _ in 0..SENT {
        // The event that is overwritten is dropped here, and may panic; the new one stands there all the same.
        let sent = catch_unwind(AssertUnwindSafe(|| producer.try_send(make()).map_err(|refused| refused.reason)));
        assert!(sent.is_err() || sent.unwrap().is_ok());
        (&mut tape.poll(9).unwrap()).into_iter().for_each(drop);
    }
    let end = catch_unwind(AssertUnwindSafe(|| drop((producer, ring, tape))));
    let in_the_ring = bomb.is_some_and(|bomb| bomb >= SENT);
    assert_eq!(end.is_err(), in_the_ring, "a panicking drop comes through");
    ledger.assert_all_dropped_once(&format!("with {bomb:?} and from {first}"));
}

/// An element whose drop panicked before the index moved was once dropped twice.
#[test]
fn every_event_is_dropped_once_also_if_a_drop_panics() {
    for first in STARTS {
        for bomb in [None, Some(0), Some(2), Some(4), Some(7), Some(11), Some(12), Some(14)] {
            drop_ring(Builder::single, bomb, first);
            drop_ring(Builder::multi, bomb, first);
        }
    }
}

/// A value that is refused comes back whole, and is the sender's to drop.
#[test]
fn a_refused_value_comes_back_and_is_dropped_once() {
    let ledger = Ledger::new(3, None);
    let mut builder = Builder::multi(1, numbered(&ledger, 0));
    builder.poll("slow");
    let (mut producer, ring) = builder.build().unwrap();
    let mut make = numbered(&ledger, 1);
    producer.try_send(make()).unwrap_or_else(|_| unreachable!());
    let back = producer.try_send(make()).err().unwrap().value;
    assert_eq!((back.0, ledger.drops[2].load(SeqCst)), (2, 0));
    drop((back, producer, ring));
    ledger.assert_all_dropped_once("after a refusal");
}

/// The factory may panic in the middle: what it made is dropped once, and nothing else is.
#[test]
fn a_factory_that_panics_leaves_nothing_behind() {
    for fails_at in 0..8 {
        let ledger = Ledger::new(fails_at, None);
        let (into, mut next) = (Arc::clone(&ledger), 0);
        let builder = Builder::single(8, move || {
            if next == fails_at {
                quiet_panic("no more");
            }
            next += 1;
            Counted(next - 1, Arc::clone(&into))
        });
        assert!(catch_unwind(AssertUnwindSafe(|| builder.build().map(drop))).is_err());
        ledger.assert_all_dropped_once("of an unfinished ring");
    }
}

#[test]
fn events_without_a_size_are_counted_like_others() {
    for first in STARTS {
        let mut builder = Builder::single(4, || ());
        builder.start_at(Sequence(first)).poll("tape");
        let (mut producer, ring) = builder.build().unwrap();
        let mut tape = ring.consumer("tape").unwrap();
        for round in 0..5u64 {
            producer.publish_batch(3, |_, ()| ()).unwrap();
            assert!(producer.try_publish_batch(2, |_, ()| ()).is_err());
            let mut batch = tape.poll(9).unwrap();
            let (head, tail) = batch.take_slices();
            assert_eq!(head.len() + tail.len(), 3);
            drop(batch);
            assert_eq!(tape.consumed(), Sequence(first).plus(3 * round + 3));
        }
    }
    let (capacity, count) = if cfg!(miri) { (1 << 6, 160) } else { (1 << 12, 10_000) };
    let (mut producer, ring) = Builder::multi(capacity, || ()).build().unwrap();
    (0..count).for_each(|_| drop(producer.publish(|()| ())));
    assert_eq!(ring.positions().published, Sequence(count));
}

#[test]
fn events_lie_as_they_ask_to() {
    #[repr(align(256))]
    #[derive(Default)]
    struct Wide(u8);
    fn check<K: Kind>(mut builder: Builder<Wide, K>) {
        builder.poll("tape");
        let (mut producer, ring) = builder.build().unwrap();
        let mut tape = ring.consumer("tape").unwrap();
        for value in 0..20 {
            producer
                .publish(|event| {
                    assert_eq!(std::ptr::from_ref(event).addr() % 256, 0);
                    event.0 = value;
                })
                .unwrap();
            let mut batch = tape.poll(1).unwrap();
            let (_, event) = (&mut batch).into_iter().next().unwrap();
            assert_eq!((std::ptr::from_ref(event).addr() % 256, event.0), (0, value));
        }
    }
    check(Builder::single(4, Wide::default));
    check(Builder::multi(4, Wide::default));
}

#[test]
#[cfg_attr(miri, ignore = "asks the system for huge pages and locked memory")]
fn huge_pages_and_locking_are_reported_one_way_or_the_other() {
    let (_, ring) = Builder::single(8, || 0u64).build().unwrap();
    assert!(matches!((ring.memory().huge_pages, ring.memory().locked), (Obtained::NotAsked, Obtained::NotAsked)));
    for capacity in [1, 1 << 19] {
        let mut builder = Builder::single(capacity, || 7u64);
        builder.huge_pages(true).lock_memory(true).poll("tape");
        let (mut producer, ring) = builder.build().unwrap();
        let memory = ring.memory();
        println!("{memory}");
        assert!(memory.bytes >= capacity * 8, "{memory}");
        assert!(
            matches!(&memory.locked, Obtained::Bytes(bytes) if *bytes == memory.bytes)
                || matches!(&memory.locked, Obtained::Refused(why) if why.contains("ulimit")),
            "{memory}"
        );
        assert!(
            matches!(&memory.huge_pages, Obtained::Bytes(bytes) if *bytes <= memory.bytes)
                || matches!(memory.huge_pages, Obtained::Refused(_)),
            "{memory}"
        );
        let mut tape = ring.consumer("tape").unwrap();
        producer.publish_batch(capacity, |index, event| *event += index as u64).unwrap();
        let read = (&mut tape.poll(capacity).unwrap()).into_iter().map(|(_, event)| *event - 7).sum::<u64>();
        assert_eq!(read, capacity as u64 * (capacity as u64 - 1) / 2);
    }
    let mut builder = Builder::multi(4, || ());
    builder.huge_pages(true).lock_memory(true);
    builder.build().unwrap();
}

/// Larger than the stack of a test's thread.
struct Large {
    numbers: [u64; 384 << 10],
}

impl Default for Large {
    fn default() -> Self {
        Self { numbers: [7; 384 << 10] }
    }
}

/// They were moved over the stack of the calling thread, several times in a build without optimisation.
#[test]
fn events_larger_than_the_stack_are_made_all_the_same() {
    let (mut producer, ring) = Builder::single(2, Large::default).build().unwrap();
    let mut consumer = ring.join("reader").unwrap();
    producer.publish(|event| event.numbers[9] = 9).unwrap();
    let mut batch = consumer.poll_wait(1).unwrap();
    for (_, event) in &mut batch {
        assert_eq!((event.numbers[0], event.numbers[9], event.numbers[(384 << 10) - 1]), (7, 9, 7));
    }
    let made = AtomicU64::new(0);
    let made = Arc::new(made);
    let counted = Arc::clone(&made);
    let one_fails = move || {
        if counted.fetch_add(1, SeqCst) == 1 {
            quiet_panic("the second event");
        }
        Large::default()
    };
    let panicked = catch_unwind(AssertUnwindSafe(|| Builder::single(4, one_fails).build().map(drop)));
    assert!(panicked.is_err() && made.load(SeqCst) == 2, "a panic of what makes them is the caller's");
}

/// It looped for as long as it takes to count to a trillion.
#[test]
fn slots_without_a_size_have_a_largest_capacity_too() {
    let refused = Builder::single(1 << 28, || ()).build().map(drop).unwrap_err();
    assert!(matches!(refused, slipring_ring::BuildError::Capacity { largest: 0x100_0000, .. }), "{refused}");
}

#[test]
fn a_builder_can_be_given_to_another_thread() {
    let mut builder = Builder::multi(8, u64::default);
    builder.run("sum", || |_: &u64, _, _| Ok::<_, std::convert::Infallible>(()));
    builder.poll("tape");
    let built = std::thread::spawn(move || builder.build().map(|(_, ring)| format!("{ring:?}"))).join().unwrap();
    let shown = built.unwrap();
    assert!(shown.starts_with("Ring(Positions {"), "{shown}");
}
