//! Goal: a member of a group of eight dies; how long after that is known does each of the 64 partitions belong to one of
//! the others, all of them asleep until then? Not a goal: how long it takes to notice, which is the member's deadline.
//!
//!     cargo bench -p slipring --bench rebalance
#![allow(clippy::unwrap_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use slipring::{Engine, GroupState, ManualClock, Rebalance};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const PARTITIONS: usize = 64;
const MEMBERS: usize = 8;
const DEADLINE: Duration = Duration::from_secs(10);

/// From the moment in which one is late until the last of the others has its share.
fn one_dies() -> Duration {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = engine.topic::<u64>("numbers").partitions(PARTITIONS).capacity(64).create().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let (told, hears) = mpsc::channel();
    let group = || topic.group("sums").deadline(DEADLINE);
    let mut dead = group().join().unwrap();
    let members: Vec<_> = (1..MEMBERS)
        .map(|_| {
            let (told, over) = (told.clone(), Arc::clone(&over));
            let listener = move |change: &Rebalance| {
                if let Rebalance::Assigned(partitions) = change {
                    let _ = told.send((Instant::now(), partitions.len()));
                }
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
    over.store(true, Ordering::Relaxed);
    topic.close();
    members.into_iter().for_each(|member| member.join().unwrap());
    last - begun
}

fn rebalance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rebalance");
    group.sample_size(20);
    group.bench_function("64 partitions, 8 members, one dies", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| one_dies()).sum());
    });
    group.finish();
    let mut all: Vec<_> = (0..100).map(|_| one_dies()).collect();
    all.sort_unstable();
    println!("of 100: median {:?}, 99th {:?}, longest {:?}", all[49], all[98], all[99]);
}

criterion_group!(benches, rebalance);
criterion_main!(benches);
