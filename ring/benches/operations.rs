//! What each operation costs alone, on one thread: no contention, no waiting, everything in the cache.
//!
//! Goal: to see a change of the code path of one operation. No goal: throughput or latency between threads; the harness
//! measures those.
//!
//! ```text
//! cargo bench -p slipring-ring --bench operations              # the figures
//! cargo bench -p slipring-ring --bench operations -- --test    # each once, to see that it runs
//! ```

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use slipring_ring::{Builder, Kind, LossyRing, Producer, Ring, Stage, Start, Waiter};
use std::hint::black_box;
use std::time::{Duration, Instant};

const CAPACITY: usize = 1024;
const MANY: usize = 256;

/// Two cache lines with the stamp.
#[derive(Clone, Copy, Default, zerocopy::IntoBytes, zerocopy::FromBytes, zerocopy::Immutable)]
#[repr(C)]
struct Event {
    price: u64,
    rest: [u64; 7],
}

fn fill(event: &mut Event) {
    event.price = black_box(7);
}

/// Without a consumer the floor alone gates: what is left is the producer's own path.
fn publishing<K: Kind>(bench: &mut Criterion, kind: &str, build: fn() -> Builder<Event, K>) {
    let mut group = bench.benchmark_group(kind);
    let (mut producer, _ring) = build().build().unwrap();
    group.throughput(Throughput::Elements(1));
    group.bench_function("publish", |bench| bench.iter(|| producer.publish(fill).unwrap()));
    group.bench_function("try publish", |bench| bench.iter(|| producer.try_publish(fill).unwrap()));
    group.bench_function("claim and commit", |bench| {
        bench.iter(|| {
            let mut claim = producer.claim(1).unwrap();
            fill(&mut claim[0]);
            claim.commit().unwrap()
        });
    });
    group.bench_function("claim and drop", |bench| bench.iter(|| drop(black_box(producer.claim(1).unwrap()))));
    for len in [16, MANY] {
        group.throughput(Throughput::Elements(len as u64));
        group.bench_function(format!("publish a batch of {len}"), |bench| {
            bench.iter(|| producer.publish_batch(len, |_, event| fill(event)).unwrap());
        });
    }
}

/// Times `read` alone; what it reads is published before.
fn reading<K: Kind>(bench: &mut Criterion, kind: &str, build: fn() -> Builder<Event, K>) {
    let mut group = bench.benchmark_group(kind);
    let mut builder = build();
    builder.poll("tape").poll(Stage::new("behind").after(["tape"])).workers("pool", 1);
    let (mut producer, ring) = builder.build().unwrap();
    let (mut tape, mut behind, mut worker) =
        (ring.consumer("tape").unwrap(), ring.consumer("behind").unwrap(), ring.worker("pool").unwrap());
    let waiter = Waiter::new();
    group.throughput(Throughput::Elements(1));
    group.bench_function("poll nothing", |bench| bench.iter(|| tape.poll(MANY).unwrap().len()));
    group.bench_function("positions", |bench| bench.iter(|| black_box(ring.positions())));
    group.bench_function("arm a waiter", |bench| bench.iter(|| tape.arm(&waiter, 1)));
    group.throughput(Throughput::Elements(MANY as u64));
    let names = [("poll one by one", 1), ("poll in batches of 16", 16), ("poll a batch", MANY)];
    for (name, limit) in names {
        group.bench_function(name, |bench| {
            bench.iter_custom(|rounds| {
                let mut timed = Duration::ZERO;
                for _ in 0..rounds {
                    producer.publish_batch(MANY, |_, event| fill(event)).unwrap();
                    let begin = Instant::now();
                    let mut left = MANY;
                    while left > 0 {
                        for (_, event) in &mut tape.poll(limit).unwrap() {
                            black_box(event.price);
                            left -= 1;
                        }
                    }
                    timed += begin.elapsed();
                    drain(&mut behind);
                    while worker.take(MANY).map(|taken| (taken.len(), taken.for_each(|_, _| ())).0).unwrap() > 0 {}
                }
                timed
            });
        });
    }
    group.bench_function("poll behind a stage", |bench| {
        bench.iter_custom(|rounds| {
            let mut timed = Duration::ZERO;
            for _ in 0..rounds {
                producer.publish_batch(MANY, |_, event| fill(event)).unwrap();
                drain(&mut tape);
                let begin = Instant::now();
                drain(&mut behind);
                timed += begin.elapsed();
                while worker.take(MANY).map(|taken| (taken.len(), taken.for_each(|_, _| ())).0).unwrap() > 0 {}
            }
            timed
        });
    });
    group.bench_function("take as a worker, 8 at a time", |bench| {
        bench.iter_custom(|rounds| {
            let mut timed = Duration::ZERO;
            for _ in 0..rounds {
                producer.publish_batch(MANY, |_, event| fill(event)).unwrap();
                drain(&mut tape);
                drain(&mut behind);
                let begin = Instant::now();
                let mut left = MANY;
                while left > 0 {
                    worker.take(8).unwrap().for_each(|_, event| {
                        black_box(event.price);
                        left -= 1;
                    });
                }
                timed += begin.elapsed();
            }
            timed
        });
    });
}

fn drain<K: Kind>(consumer: &mut slipring_ring::Consumer<Event, K>) {
    loop {
        let mut batch = consumer.poll(usize::MAX).unwrap();
        if batch.is_empty() {
            return;
        }
        for (_, event) in &mut batch {
            black_box(event.price);
        }
    }
}

fn coming_and_going<K: Kind>(bench: &mut Criterion, kind: &str, build: fn() -> Builder<Event, K>) {
    let mut group = bench.benchmark_group(kind);
    let mut builder = build();
    builder.retain(CAPACITY / 2);
    let (mut producer, ring): (Producer<Event, K>, Ring<Event, K>) = builder.build().unwrap();
    (0..2 * CAPACITY).for_each(|_| drop(producer.publish(fill)));
    group.bench_function("join and leave", |bench| bench.iter(|| drop(ring.join("late").unwrap())));
    let mut late = ring.join(Stage::new("late").start(Start::Latest)).unwrap();
    group.bench_function("seek back and forth", |bench| {
        let here = late.consumed();
        let back = slipring_ring::Sequence(here.0 - 100);
        bench.iter(|| {
            late.seek(back).unwrap();
            late.seek(here).unwrap();
        });
    });
}

fn lossy(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("lossy");
    group.throughput(Throughput::Elements(1));
    let event = Event::default();
    let (mut writer, _ring) = LossyRing::single(CAPACITY).unwrap();
    group.bench_function("write, one writer", |bench| bench.iter(|| writer.write(black_box(&event))));
    let (mut writer, ring) = LossyRing::multi(CAPACITY).unwrap();
    group.bench_function("write, of several writers", |bench| bench.iter(|| writer.write(black_box(&event))));
    let mut reader = ring.reader(Start::Latest);
    group.bench_function("read nothing", |bench| bench.iter(|| reader.read().unwrap().is_none()));
    group.throughput(Throughput::Elements(MANY as u64));
    group.bench_function("read", |bench| {
        bench.iter_custom(|rounds| {
            let mut timed = Duration::ZERO;
            for _ in 0..rounds {
                for _ in 0..MANY {
                    black_box(writer.write(&event));
                }
                let begin = Instant::now();
                while let Some((_, event)) = reader.read().unwrap() {
                    black_box(event.price);
                }
                timed += begin.elapsed();
            }
            timed
        });
    });
}

fn all(bench: &mut Criterion) {
    let single = || Builder::single(CAPACITY, Event::default);
    let multi = || Builder::multi(CAPACITY, Event::default);
    publishing(bench, "single", single);
    publishing(bench, "multi", multi);
    reading(bench, "single", single);
    reading(bench, "multi", multi);
    coming_and_going(bench, "single", single);
    coming_and_going(bench, "multi", multi);
    lossy(bench);
}

criterion_group!(benches, all);
criterion_main!(benches);
