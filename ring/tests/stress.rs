//! Everything at once, checked: sequences, each producer's order, counts and checksums, with a watchdog that prints all
//! positions when nothing moves.
//!
//! The default run takes some seconds. The long one goes through random shapes for as long as it is told, and prints
//! the seed of each, so that a failure can be run again alone:
//!
//! ```text
//! SLIPRING_SOAK_SECONDS=600 cargo test -p slipring-ring --release --test stress -- --ignored --nocapture
//! SLIPRING_SOAK_SEED=123    cargo test -p slipring-ring --release --test stress -- --ignored --nocapture
//! ```
#![cfg(not(any(loom, shuttle)))]

mod common;

use common::{STARTS, at_once, quiet_panic, waits};
use fastrand::Rng;
use slipring_ring::{Builder, Consumer, Kind, Multi, Positions, Producer, Ring, Sequence, Single, Stage, Start, Wait};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Nothing moved for so long: a hang.
const STILL: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Default)]
struct Event {
    producer: usize,
    number: u64,
    check: u64,
}

impl Event {
    fn write(&mut self, producer: usize, number: u64, sequence: Sequence) {
        *self = Self { producer, number, check: check(producer, number, sequence) };
    }
}

fn check(producer: usize, number: u64, sequence: Sequence) -> u64 {
    (sequence.0 ^ number.rotate_left(20) ^ producer as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[derive(Clone, Debug)]
struct Shape {
    producers: usize,
    /// Of three, one behind another and the third behind both.
    consumers: usize,
    workers: usize,
    capacity: usize,
    wait: Wait,
    first: u64,
    /// Of each producer.
    events: u64,
    /// Joins, reads a little and goes, all the time.
    comers: usize,
    /// Claims that are dropped or panic, and workers that panic with an event in hand.
    harm: bool,
}

/// What one reader knows of each producer's order.
struct Order {
    next: Vec<Option<u64>>,
    sequence: Option<Sequence>,
    count: u64,
    from_the_start: bool,
}

impl Order {
    fn new(producers: usize, from_the_start: bool) -> Self {
        let next = vec![from_the_start.then_some(0); producers];
        Self { next, sequence: None, count: 0, from_the_start }
    }

    fn see(&mut self, sequence: Sequence, event: &Event) {
        assert_eq!(event.check, check(event.producer, event.number, sequence), "torn or misplaced at {sequence}");
        assert!(self.sequence.is_none_or(|before| sequence.since(before) > 0), "{sequence} after {:?}", self.sequence);
        self.sequence = Some(sequence);
        let next = &mut self.next[event.producer];
        assert!(
            next.is_none_or(|next| next == event.number),
            "producer {}: {} after {next:?}",
            event.producer,
            event.number
        );
        *next = Some(event.number + 1);
        self.count += 1;
    }
}

fn produce<K: Kind>(mut producer: Producer<Event, K>, id: usize, shape: &Shape, seed: u64) {
    let mut random = Rng::with_seed(seed);
    producer.set_wait(shape.wait.clone());
    let mut number = 0;
    while number < shape.events {
        let len = random.u64(..4.min(shape.capacity as u64)) + 1;
        let len = len.min(shape.events - number).max(1) as usize;
        let harm = if shape.harm { random.u64(..8) } else { 7 };
        let mut claim = if random.u64(..3) == 0 {
            match producer.try_claim(len) {
                Ok(claim) => claim,
                Err(_) => {
                    thread::yield_now();
                    continue;
                }
            }
        } else {
            producer.claim(len).unwrap()
        };
        for (index, (sequence, event)) in claim.iter_mut().enumerate() {
            event.write(id, number + index as u64, sequence);
        }
        match harm {
            0 => drop(claim),
            1 => {
                let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                    let mut claim = claim;
                    claim[0].check = 0;
                    quiet_panic("while filling")
                }));
                assert!(unwound.is_err());
            }
            _ => {
                claim.commit().unwrap();
                number += len as u64;
            }
        }
    }
}

fn consume<K: Kind>(mut consumer: Consumer<Event, K>, shape: &Shape, seed: u64) -> u64 {
    let mut random = Rng::with_seed(seed);
    let mut order = Order::new(shape.producers, true);
    let limit = random.usize(..2 * shape.capacity) + 1;
    while let Ok(mut batch) = consumer.poll_wait(limit) {
        let some = random.usize(..=limit) + 1;
        for (sequence, event) in batch.into_iter().take(some) {
            order.see(sequence, event);
        }
        if random.u64(..4) == 0 {
            batch.release();
            for (sequence, event) in &mut batch {
                order.see(sequence, event);
            }
        }
    }
    assert!(order.from_the_start);
    order.count
}

fn come_and_go<K: Kind>(ring: &Ring<Event, K>, name: &str, shape: &Shape, stop: &AtomicBool) {
    let mut starts = [Start::Earliest, Start::Latest].into_iter().cycle();
    while !stop.load(SeqCst) {
        let stage = Stage::new(name).start(starts.next().unwrap()).after(["c0"]).wait(shape.wait.clone());
        let Ok(mut late) = ring.join(stage) else { return };
        let (first, mut order) = (late.first(), Order::new(shape.producers, false));
        for _ in 0..3 {
            let Ok(mut batch) = late.poll_until(3, Instant::now() + Duration::from_micros(200)) else { return };
            for (sequence, event) in &mut batch {
                assert!(sequence.since(first) >= 0);
                order.see(sequence, event);
            }
        }
    }
}

/// Runs one shape; panics with all positions when nothing moves.
fn run<K: Kind>(
    mut builder: Builder<Event, K>,
    shape: &Shape,
    seed: u64,
    clone: impl Fn(&Producer<Event, K>) -> Option<Producer<Event, K>>,
) {
    builder.start_at(Sequence(shape.first));
    for index in 0..shape.consumers {
        let stage = Stage::new(format!("c{index}")).wait(shape.wait.clone());
        builder.poll(match index % 3 {
            0 => stage,
            1 => stage.after(["c0"]),
            _ => stage.after(["c0", "c1"]),
        });
    }
    if shape.workers > 0 {
        builder.workers(Stage::new("pool").wait(shape.wait.clone()), shape.workers);
    }
    let (producer, ring) = builder.build().unwrap();
    let (told, done) = mpsc::channel();
    let in_all = shape.events * shape.producers as u64;
    let start = |name: String, work: Box<dyn FnOnce() + Send>| {
        let told = told.clone();
        let _detached = thread::Builder::new().name(name).spawn(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let _ = told.send(
                result.map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned())),
            );
        });
    };
    let mut threads = 0;
    for index in 0..shape.consumers {
        let (consumer, shape) = (ring.consumer(&format!("c{index}")).unwrap(), shape.clone());
        threads += 1;
        start(
            format!("c{index}"),
            Box::new(move || {
                assert_eq!(
                    consume(consumer, &shape, seed.wrapping_add(index as u64 * 77)),
                    in_all,
                    "events of c{index}"
                );
            }),
        );
    }
    let shared = Arc::new((AtomicU64::new(0), Mutex::new(Vec::new())));
    for index in 0..shape.workers {
        let (mut worker, shape, ring, shared) =
            (ring.worker("pool").unwrap(), shape.clone(), ring.clone(), Arc::clone(&shared));
        threads += 1;
        start(
            format!("w{index}"),
            Box::new(move || {
                let mut random = Rng::with_seed(seed.wrapping_add(index as u64 * 55));
                let mut seen = Vec::new();
                while let Ok(taken) = worker.take_wait(3) {
                    let harm = shape.harm && index > 0 && random.u64(..50) == 0;
                    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        taken.for_each(|sequence, event| {
                            assert_eq!(event.check, check(event.producer, event.number, sequence));
                            if harm {
                                quiet_panic("with an event in hand");
                            }
                            seen.push((event.producer, event.number));
                        })
                    }));
                    if unwound.is_err() {
                        assert!(harm);
                        shared.0.fetch_add(1, SeqCst);
                        // Goes, and comes again if its place is free.
                        drop(worker);
                        let Ok(again) = ring.worker("pool") else { break };
                        worker = again;
                    }
                }
                shared.1.lock().unwrap().extend(seen);
            }),
        );
    }
    let stop = Arc::new(AtomicBool::new(false));
    for index in 0..shape.comers {
        let (ring, shape, stop) = (ring.clone(), shape.clone(), Arc::clone(&stop));
        threads += 1;
        start(format!("late{index}"), Box::new(move || come_and_go(&ring, &format!("late{index}"), &shape, &stop)));
    }
    for id in 1..shape.producers {
        let (producer, shape) = (clone(&producer).unwrap(), shape.clone());
        threads += 1;
        start(format!("p{id}"), Box::new(move || produce(producer, id, &shape, seed.wrapping_mul(id as u64 + 3))));
    }
    let producing = shape.clone();
    threads += 1;
    start("p0".to_owned(), Box::new(move || produce(producer, 0, &producing, seed)));

    // The watchdog.
    let mut moved: (Positions, Instant) = (ring.positions(), Instant::now());
    let mut left = threads;
    while left > 0 {
        match done.recv_timeout(Duration::from_millis(200)) {
            Ok(Ok(())) => left -= 1,
            Ok(Err(panic)) => panic!("{panic}\nseed {seed}, {shape:?}\n{:#?}", ring.positions()),
            Err(_) => {
                let now = ring.positions();
                let quiet = |positions: &Positions| {
                    let stages: Vec<_> = positions
                        .stages
                        .iter()
                        .filter(|stage| !stage.name.starts_with("late"))
                        .map(|stage| stage.consumed)
                        .collect();
                    (positions.published, positions.claimed, stages)
                };
                if quiet(&now) != quiet(&moved.0) {
                    moved = (now, Instant::now());
                } else if moved.1.elapsed() > STILL {
                    panic!("{left} threads hang\nseed {seed}, {shape:?}\n{now:#?}");
                }
            }
        }
        if ring.closed().is_some() {
            stop.store(true, SeqCst);
        }
    }
    if shape.workers > 0 {
        let mut seen = shared.1.lock().unwrap().clone();
        let lost = shared.0.load(SeqCst);
        assert_eq!(seen.len() as u64 + lost, in_all, "shared and lost, {shape:?}");
        seen.sort_unstable();
        assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "an event went to two workers, {shape:?}");
    }
}

fn run_either(single: bool, shape: &Shape, seed: u64) {
    if single {
        run(Builder::<_, Single>::single(shape.capacity, Event::default), shape, seed, |_| None);
    } else {
        run(Builder::<_, Multi>::multi(shape.capacity, Event::default), shape, seed, |producer| Some(producer.clone()));
    }
}

/// Producers x consumers x capacities x waits, most of them with more threads than cores.
#[test]
fn every_shape_keeps_order_count_and_content() {
    let mut starts = STARTS.into_iter().cycle();
    for wait in waits() {
        for (single, producers) in [(true, 1), (false, 1), (false, 3)] {
            for consumers in [1, 4] {
                for capacity in [1, 2, 64] {
                    // Spinning threads that outnumber the cores move by the scheduler's time slices alone.
                    let spins = wait.occupies_a_core();
                    if spins && producers + consumers > 2 && capacity < 64 {
                        continue;
                    }
                    let first = starts.next().unwrap();
                    let events = if spins { 60 } else { 200 };
                    let wait = wait.clone();
                    let shape = Shape {
                        producers,
                        consumers,
                        workers: 0,
                        capacity,
                        wait,
                        first,
                        events,
                        comers: 0,
                        harm: false,
                    };
                    run_either(single, &shape, 1);
                }
            }
        }
    }
}

/// Consumers that come and go, dropped claims, panics while filling, workers that go down.
#[test]
fn whatever_comes_goes_or_panics_order_count_and_content_stay() {
    let mut starts = STARTS.into_iter().cycle();
    for wait in [at_once(), Wait::spin_then_park(), Wait::backoff()] {
        for (single, producers) in [(true, 1), (false, 3)] {
            for capacity in [1, 2, 64] {
                let first = starts.next().unwrap();
                let wait = wait.clone();
                let shape = Shape {
                    producers,
                    consumers: 2,
                    workers: 3,
                    capacity,
                    wait,
                    first,
                    events: 400,
                    comers: 1,
                    harm: true,
                };
                run_either(single, &shape, 2);
            }
        }
    }
}

/// Random shapes for as long as `SLIPRING_SOAK_SECONDS` says (60 unless told).
#[test]
#[ignore = "long: run it alone, see the head of this file"]
fn soak() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let until = Instant::now() + Duration::from_secs(number("SLIPRING_SOAK_SECONDS").unwrap_or(60));
    let only = number("SLIPRING_SOAK_SEED");
    let mut seed = only.unwrap_or_else(|| std::process::id().into());
    loop {
        let mut random = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut wait = waits()[random.usize(..waits().len())].clone();
        let mut capacity = 1 << random.u64(..9);
        let producers = random.usize(..4) + 1;
        if wait.occupies_a_core() {
            capacity = capacity.max(64);
            if producers > 2 {
                wait = Wait::spin_yield();
            }
        }
        let shape = Shape {
            producers,
            consumers: random.usize(..5) + 1,
            workers: random.usize(..4),
            capacity,
            first: STARTS[random.usize(..5)].wrapping_sub(random.u64(..300)),
            events: if wait.occupies_a_core() { 500 } else { 5000 },
            wait,
            comers: random.usize(..3),
            harm: random.bool(),
        };
        println!("seed {seed}: {shape:?}");
        run_either(producers == 1 && random.bool(), &shape, seed);
        seed += 1;
        if only.is_some() || Instant::now() > until {
            return;
        }
    }
}
