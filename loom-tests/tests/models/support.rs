//! Running a model: bounds, the fences that are left out, and the line that it must print at the end.

use slipring_ring::fence::quiet::{self, Quiet};
use slipring_ring::{
    Batch, Builder, Claim, ClaimError, Closed, Consumer, Kind, Multi, MultiProducer, Producer, Ring, Sequence,
    Sequences, Single, SingleProducer, Stage, Wait, thorough,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use loom::thread;

/// How many schedules are explored. In any case, a load tries every store that it may see. A quick run explores less.
#[derive(Clone, Copy)]
pub enum Explore {
    /// Every schedule.
    All,
    /// Every schedule with at most this many preemptions.
    Within(usize),
    /// Two rounds: every schedule with at most this many preemptions, and then, up to the bound, the schedules that
    /// loom tries by itself. `ring/src/thorough.rs` describes which ones loom leaves out.
    Mixed(usize, Bound),
}
pub use Explore::{All, Mixed, Within};

/// The most preemptions; `None` for any number.
pub type Bound = Option<usize>;

/// Runs a model in which no thread sleeps, joins or evicts. Light fences are left out, as with `membarrier(2)`.
pub fn model(explore: Explore, property: &str, run: impl Fn() + Send + Sync + 'static) {
    check(explore, Quiet::Everything, property, run);
}

/// Runs a model in which a thread joins or evicts, but no thread sleeps. The fences of bells are left out.
pub fn model_of_gates(explore: Explore, property: &str, run: impl Fn() + Send + Sync + 'static) {
    check(explore, Quiet::Bells, property, run);
}

/// Runs a model in which a thread sleeps. No fences are left out.
pub fn model_of_sleep(explore: Explore, property: &str, run: impl Fn() + Send + Sync + 'static) {
    check(explore, Quiet::Nothing, property, run);
}

fn check(explore: Explore, leave_out: Quiet, property: &str, run: impl Fn() + Send + Sync + 'static) {
    let quick = std::env::var_os("SLIPRING_QUICK").is_some();
    let (thorough, plain) = match explore {
        All if quick => (Some(2), None),
        All => (None, None),
        Within(bound) | Mixed(bound, _) if quick => (Some(bound.min(1)), None),
        Within(bound) => (Some(bound), None),
        Mixed(bound, plain) => (Some(bound), Some(plain)),
    };
    let run = Arc::new(run);
    quiet::set(leave_out);
    thorough::set(true);
    let mut iterations = explore_to(thorough, Arc::clone(&run));
    let mut explored = thorough.map_or("all".to_owned(), |bound| format!("{bound} preemptions"));
    thorough::set(false);
    if let Some(bound) = plain {
        iterations += explore_to(bound, run);
        explored += &bound.map_or(", loom all".to_owned(), |bound| format!(", loom {bound}"));
    }
    completed(iterations, &explored, property);
}

/// Prints that all schedules were explored. The runner requires this line.
pub fn completed(iterations: usize, explored: &str, property: &str) {
    println!("\nCompleted in {iterations} iterations | {explored} | {property}");
}

/// Explores every schedule up to a bound of preemptions. Returns the count of schedules.
pub fn explore_to(bound: Bound, run: Arc<impl Fn() + Send + Sync + 'static>) -> usize {
    let mut builder = loom::model::Builder::new();
    // These two limits would end a model early and let it pass.
    (builder.max_duration, builder.max_permutations) = (None, None);
    builder.preemption_bound = bound;
    builder.max_branches = 10_000;
    let iterations = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&iterations);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        run();
    });
    iterations.load(Ordering::Relaxed)
}

/// A wait strategy that sleeps after the first empty look.
pub fn park() -> Wait {
    Wait::spin_then_park().spin_for(std::time::Duration::ZERO).yields(0).pause(std::time::Duration::ZERO)
}

/// The value that every producer of these models writes into the slot of `sequence`.
pub fn value_of(sequence: Sequence) -> u64 {
    sequence.0.wrapping_mul(10).wrapping_add(7)
}

/// Claims `len` slots if there is room, fills them and publishes them.
pub fn put<K: Kind>(producer: &mut Producer<u64, K>, len: usize) -> Result<Sequences, ClaimError> {
    Ok(fill(producer.try_claim(len)?)?)
}

/// As [`put`], but waits for room.
pub fn put_wait<K: Kind>(producer: &mut Producer<u64, K>, len: usize) -> Result<Sequences, ClaimError> {
    Ok(fill(producer.claim(len)?)?)
}

/// Fills and publishes a claim.
pub fn fill<K: Kind>(mut claim: Claim<'_, u64, K>) -> Result<Sequences, Closed> {
    for (sequence, event) in claim.iter_mut() {
        *event = value_of(sequence);
    }
    claim.commit()
}

/// Polls once, and checks that the events have consecutive sequences and the written values. Returns their count.
pub fn get<K: Kind>(consumer: &mut Consumer<u64, K>, limit: usize) -> u64 {
    consumer.poll(limit).map_or(0, |batch| check_batch(batch, true))
}

/// As [`get`], but allows skipped slots in between.
pub fn get_some<K: Kind>(consumer: &mut Consumer<u64, K>, limit: usize) -> u64 {
    consumer.poll(limit).map_or(0, |batch| check_batch(batch, false))
}

/// Waits for at least one event and checks the batch as [`get`] does. Returns the count of events; `None` if the ring
/// has ended.
pub fn get_wait<K: Kind>(consumer: &mut Consumer<u64, K>, limit: usize) -> Option<u64> {
    consumer.poll_wait(limit).ok().map(|batch| check_batch(batch, true))
}

/// Checks the events of a batch, which must have consecutive sequences if `gapless`. Returns their count.
pub fn check_batch<K: Kind>(mut batch: Batch<'_, u64, K>, gapless: bool) -> u64 {
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

/// A ring with one producer and these polled stages, each ordered after the stages named with it.
pub fn single(capacity: usize, stages: &[(&str, &[&str])]) -> (SingleProducer<u64>, Ring<u64, Single>) {
    declare(Builder::single(capacity, || 0), stages).build().unwrap()
}

/// As [`single`], for several producers.
pub fn multi(capacity: usize, stages: &[(&str, &[&str])]) -> (MultiProducer<u64>, Ring<u64, Multi>) {
    declare(Builder::multi(capacity, || 0), stages).build().unwrap()
}

/// Declares polled stages that sleep after the first empty look.
pub fn declare<K: Kind>(mut builder: Builder<u64, K>, stages: &[(&str, &[&str])]) -> Builder<u64, K> {
    for (name, after) in stages {
        builder.poll(Stage::new(*name).after(after.iter().copied()).wait(park()));
    }
    builder
}

/// Polls `polls` times on a thread of its own. The thread returns the consumer with the count of events, because a
/// dropped consumer would no longer gate.
pub fn reading<K: Kind>(mut consumer: Consumer<u64, K>, polls: usize, limit: usize) -> Reading<K> {
    thread::spawn(move || {
        let count = (0..polls).map(|_| get_some(&mut consumer, limit)).sum();
        (count, consumer)
    })
}
pub type Reading<K> = thread::JoinHandle<(u64, Consumer<u64, K>)>;

/// The count of events that a reader got.
pub fn count<K: Kind>(reading: Reading<K>) -> u64 {
    reading.join().unwrap().0
}
