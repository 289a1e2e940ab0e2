//! Goal: a member of a group of eight dies; how long after that is known does each of the 64 partitions belong to one of
//! the others, all of them asleep until then? None of them gives anything up for it. Once on a topic in memory, once on a
//! durable one. Not a goal: how long it takes to notice, which is the member's deadline.
//!
//!     cargo bench -p slipring --bench rebalance
#![allow(clippy::unwrap_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use slipring::journal::simulated::SimulatedDisk;
use slipring::{
    Engine,
    clock::ManualClock,
    group::{GroupState, Rebalance},
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const PARTITIONS: usize = 64;
const MEMBERS: usize = 8;
const DEADLINE: Duration = Duration::from_secs(10);

/// From the moment in which one is late until the last of the others has its share.
fn one_dies(durable: bool) -> Duration {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).journal_in(SimulatedDisk::new()).build().unwrap();
    let topic = engine.topic::<u64>("numbers").partitions(PARTITIONS).capacity(64);
    let topic = if durable { topic.durable() } else { topic }.create().unwrap();
    let revoked = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let (told, hears) = mpsc::channel();
    let group = || topic.group("sums").deadline(DEADLINE);
    let mut dead = group().join().unwrap();
    let members: Vec<_> = (1..MEMBERS)
        .map(|_| {
            let (told, over, revoked) = (told.clone(), Arc::clone(&over), Arc::clone(&revoked));
            let listener = move |change: &Rebalance| match change {
                Rebalance::Assigned(partitions) => _ = told.send((Instant::now(), partitions.len())),
                Rebalance::Revoked(partitions) | Rebalance::Lost(partitions) => {
                    revoked.fetch_add(partitions.len(), Ordering::Relaxed);
                }
                _ => {}
            };
            let mut member = group().listener(listener).join().unwrap();
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let _ = member.poll(Duration::from_secs(3600));
                }
            })
        })
        .collect();
    while engine.groups()[0].state != GroupState::Stable {
        let _ = dead.poll(Duration::ZERO);
    }
    // All others fall asleep.
    std::thread::sleep(Duration::from_millis(5));
    while hears.try_recv().is_ok() {}
    revoked.store(0, Ordering::Relaxed);
    let mut missing = dead.assignment().len();
    let begun = Instant::now();
    clock.advance(DEADLINE);
    let mut last = begun;
    while missing > 0 {
        let (at, partitions) = hears.recv().unwrap();
        missing -= partitions;
        last = last.max(at);
    }
    assert_eq!(engine.groups()[0].state, GroupState::Stable);
    assert_eq!(revoked.load(Ordering::Relaxed), 0, "who stays keeps what it has");
    over.store(true, Ordering::Relaxed);
    topic.close();
    members.into_iter().for_each(|member| member.join().unwrap());
    last - begun
}

fn rebalance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rebalance");
    group.sample_size(20);
    for (name, durable) in [("in memory", false), ("durable", true)] {
        group.bench_function(format!("64 partitions, 8 members, one dies, {name}"), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| one_dies(durable)).sum());
        });
        let mut all: Vec<_> = (0..100).map(|_| one_dies(durable)).collect();
        all.sort_unstable();
        println!("{name}, of 100: median {:?}, 99th {:?}, longest {:?}", all[49], all[98], all[99]);
    }
    group.finish();
}

criterion_group!(benches, rebalance);
criterion_main!(benches);
