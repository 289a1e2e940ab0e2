//! How a model is run: bounded or to exhaustion, with bells or without, and what it must say at the end.

use slipring_ring::fence::quiet;
use slipring_ring::{
    Batch, Builder, Claim, ClaimError, Consumer, Kind, Multi, MultiProducer, Producer, Ring, Sequence, Sequences,
    Single, SingleProducer, Stage, Wait,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use loom::thread;

/// How far the schedules are explored. Every store that a load may see is, in either case.
#[derive(Clone, Copy)]
pub enum Explore {
    /// Every schedule.
    All,
    /// Every schedule, but for a quick run, where that takes too long.
    Long,
    /// Every schedule with so many preemptions at most.
    Preemptions(usize),
}
pub use Explore::{All, Long, Preemptions};

/// A model in which nobody sleeps, joins or evicts: light fences are nothing, as beside `membarrier(2)`.
pub fn model(explore: Explore, property: &str, run: impl Fn() + Send + Sync + 'static) {
    check(explore, true, property, run);
}

/// A model in which somebody sleeps, joins or evicts, so that the light side needs its fences.
pub fn model_with_fences(explore: Explore, property: &str, run: impl Fn() + Send + Sync + 'static) {
    check(explore, false, property, run);
}

fn check(explore: Explore, quiet_fences: bool, property: &str, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // Those two would end a model early and let it pass.
    (builder.max_duration, builder.max_permutations) = (None, None);
    let quick = std::env::var_os("SLIPRING_QUICK").is_some();
    builder.preemption_bound = match explore {
        All => None,
        Long => quick.then_some(2),
        Preemptions(bound) => Some(if quick { bound.min(2) } else { bound }),
    };
    builder.max_branches = 10_000;
    let explored = match builder.preemption_bound {
        None => "exhaustive".to_owned(),
        Some(bound) => format!("{bound} preemptions"),
    };
    let iterations = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&iterations);
    quiet::set(quiet_fences);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        run();
    });
    quiet::set(false);
    // Reached only when there was no schedule left: the runner requires this line.
    println!("\nCompleted in {} iterations | {explored} | {property}", iterations.load(Ordering::Relaxed));
}

/// Sleeps at the first empty look.
pub fn park() -> Wait {
    Wait::spin_then_park().spins(0).yields(0).pause(0)
}

/// What every producer of these models writes into the slot of `sequence`.
pub fn value_of(sequence: Sequence) -> u64 {
    sequence.0.wrapping_mul(10).wrapping_add(7)
}

/// Claims `len` slots if there is room, fills and publishes them.
pub fn put<K: Kind>(producer: &mut Producer<u64, K>, len: usize) -> Result<Sequences, ClaimError> {
    producer.try_claim(len).map(fill)
}

/// The same, but waits for room.
pub fn put_wait<K: Kind>(producer: &mut Producer<u64, K>, len: usize) -> Result<Sequences, ClaimError> {
    producer.claim(len).map(fill)
}

/// Fills and publishes a claim.
pub fn fill<K: Kind>(mut claim: Claim<'_, u64, K>) -> Sequences {
    for (sequence, event) in claim.iter_mut() {
        *event = value_of(sequence);
    }
    claim.commit()
}

/// Polls once, and checks that what comes follows without a gap and is what was written there. How many came.
pub fn get<K: Kind>(consumer: &mut Consumer<u64, K>, limit: usize) -> u64 {
    consumer.poll(limit).map_or(0, |batch| check_batch(batch, true))
}

/// The same with skipped slots in between.
pub fn get_some<K: Kind>(consumer: &mut Consumer<u64, K>, limit: usize) -> u64 {
    consumer.poll(limit).map_or(0, |batch| check_batch(batch, false))
}

/// Waits for at least one event. None once the ring has ended.
pub fn get_wait<K: Kind>(consumer: &mut Consumer<u64, K>, limit: usize) -> Option<u64> {
    consumer.poll_wait(limit).ok().map(|batch| check_batch(batch, true))
}

fn check_batch<K: Kind>(mut batch: Batch<'_, u64, K>, gapless: bool) -> u64 {
    let mut next = batch.position();
    let mut count = 0;
    for (sequence, event) in &mut batch {
        if gapless {
            assert_eq!(sequence, next, "a gap");
        }
        assert!(sequence.since(next) >= 0, "sequences go back");
        assert_eq!(*event, value_of(sequence), "not what was written at {sequence}");
        next = sequence.plus(1);
        count += 1;
    }
    count
}

/// A ring with one producer and these polled stages, each behind those named with it.
pub fn single(capacity: usize, stages: &[(&str, &[&str])]) -> (SingleProducer<u64>, Ring<u64, Single>) {
    declare(Builder::single(capacity, || 0), stages).build().unwrap()
}

/// The same for several producers.
pub fn multi(capacity: usize, stages: &[(&str, &[&str])]) -> (MultiProducer<u64>, Ring<u64, Multi>) {
    declare(Builder::multi(capacity, || 0), stages).build().unwrap()
}

/// Declares polled stages that park at once.
pub fn declare<K: Kind>(mut builder: Builder<u64, K>, stages: &[(&str, &[&str])]) -> Builder<u64, K> {
    for (name, after) in stages {
        builder.poll(Stage::new(*name).after(after.iter().copied()).wait(park()));
    }
    builder
}

/// Polls so often on a thread of its own. The consumer comes back with the count: as long as it lives, it gates.
pub fn reading<K: Kind>(mut consumer: Consumer<u64, K>, polls: usize, limit: usize) -> Reading<K> {
    thread::spawn(move || {
        let count = (0..polls).map(|_| get_some(&mut consumer, limit)).sum();
        (count, consumer)
    })
}
pub type Reading<K> = thread::JoinHandle<(u64, Consumer<u64, K>)>;

/// How many events a reader got.
pub fn count<K: Kind>(reading: Reading<K>) -> u64 {
    reading.join().unwrap().0
}
