//! How many instructions publish, poll and claim take: exact where a timing is not, so that one more in an inner loop is
//! seen at once.
//!
//! ```text
//! cargo bench -p slipring-ring --bench instructions               # counts, and fails if one is over its record
//! cargo bench -p slipring-ring --bench instructions -- --test     # each operation once, nothing counted
//! ```
//!
//! After a change that is meant to cost: write the new count into `RECORD` and say in the commit what it buys.

mod counting;

#[cfg(target_os = "linux")]
use slipring_ring::shared::{SharedRing, Size};
use slipring_ring::{Builder, Kind, LossyRing, Start};
use std::hint::black_box;
use std::process::ExitCode;

/// The part by which a count may differ from its record: two instructions of a publish. Compilers differ a little.
const TOLERANCE: f64 = 0.04;

/// Instructions for each operation, on x86-64 with `rustc` 1.95, `--profile bench`. Behind each stands the count, by the
/// same compiler, before the rings' end was made safe against late commits (`docs/decisions/`, 14) and stamps got one fence (18).
const RECORD: [(&str, f64); 26] = [
    ("single publish", 48.1),      // 46.1
    ("single claim 1", 45.1),      // 46.1
    ("single batch of 16", 126.9), // 122.2
    ("single poll 1", 167.1),      // 157.1, before the prefetch of the event 160.1
    ("single poll 16", 335.2),     // 332.3
    ("single poll nothing", 55.0), // 54.0
    ("multi publish", 69.3),       // 68.3
    ("multi claim 1", 75.3),       // 92.3
    ("multi batch of 16", 433.0),  // 423.1
    ("multi poll 1", 209.1),       // 236.1
    ("multi poll 16", 702.1),      // 697.1
    ("multi poll nothing", 69.0),  // 113.0
    ("multi in turns", 90.9),
    ("lossy write and read", 74.0), // 74.0
    ("shared single publish", 118.4),
    ("shared single claim 1", 121.4),
    ("shared single batch of 16", 173.6),
    ("shared single poll 1", 159.4),
    ("shared single poll 16", 330.7),
    ("shared single poll nothing", 75.0),
    ("shared multi publish", 160.5),
    ("shared multi claim 1", 163.5),
    ("shared multi batch of 16", 473.4),
    ("shared multi poll 1", 226.4),
    ("shared multi poll 16", 648.9),
    ("shared multi poll nothing", 136.0),
];

/// Runs `rounds` of the operation called `name`. What reads publishes as well: its record holds both.
fn operate(name: &str, rounds: u64) {
    if let Some(what) = name.strip_prefix("single ") {
        return operate_on(Builder::single(1024, || 0u64), what, rounds);
    }
    if name == "multi in turns" {
        // Two clones on one thread: each finds that the other one has claimed since.
        let (mut one, _ring) = Builder::multi(1024, || 0u64).build().unwrap();
        let mut two = one.clone();
        for round in 0..rounds / 2 {
            drop(black_box(one.publish(|event| *event = round)));
            drop(black_box(two.publish(|event| *event = round)));
        }
        return;
    }
    if let Some(what) = name.strip_prefix("multi ") {
        return operate_on(Builder::multi(1024, || 0u64), what, rounds);
    }
    #[cfg(target_os = "linux")]
    if let Some(what) = name.strip_prefix("shared single ") {
        return operate_on_shared(Size::slots(1024), what, rounds);
    }
    #[cfg(target_os = "linux")]
    if let Some(what) = name.strip_prefix("shared multi ") {
        return operate_on_shared(Size::slots(1024).multi_producer(), what, rounds);
    }
    let (mut writer, ring) = LossyRing::single(1024).unwrap();
    let mut reader = ring.reader(Start::Latest);
    for round in 0..rounds {
        writer.write(black_box(&round));
        black_box(reader.read().unwrap());
    }
}

fn operate_on<K: Kind>(mut builder: Builder<u64, K>, what: &str, rounds: u64) {
    let reads = what.starts_with("poll");
    if reads {
        builder.poll("tape");
    }
    let (mut producer, ring) = builder.build().unwrap();
    match what {
        "publish" => (0..rounds).for_each(|round| drop(black_box(producer.publish(|event| *event = round)))),
        "claim 1" => {
            for round in 0..rounds {
                let mut claim = producer.claim(black_box(1)).unwrap();
                claim[0] = round;
                black_box(claim.commit().unwrap());
            }
        }
        "batch of 16" => {
            for round in 0..rounds {
                black_box(producer.publish_batch(black_box(16), |_, event| *event = round).unwrap());
            }
        }
        _ => {
            let mut tape = ring.consumer("tape").unwrap();
            let len = if what == "poll 16" { 16 } else { 1 };
            for round in 0..rounds {
                if what != "poll nothing" {
                    producer.publish_batch(black_box(len), |_, event| *event = round).unwrap();
                }
                for (_, event) in &mut tape.poll(black_box(16)).unwrap() {
                    black_box(*event);
                }
            }
        }
    }
}

/// As [`operate_on`], on a ring in shared memory.
#[cfg(target_os = "linux")]
fn operate_on_shared(size: Size, what: &str, rounds: u64) {
    let name = format!("instructions-{}", std::process::id());
    let ring = SharedRing::<u64>::create(&name, size).unwrap();
    let mut tape = what.starts_with("poll").then(|| ring.consumer("tape").join().unwrap());
    let mut producer = if ring.is_multi_producer() { ring.multi_producer() } else { ring.producer() }.unwrap();
    let len = match what {
        "batch of 16" | "poll 16" => 16,
        _ => 1,
    };
    for round in 0..rounds {
        match what {
            "publish" => drop(black_box(producer.publish(|event| *event = round))),
            "poll nothing" => {}
            _ => {
                let mut claim = producer.claim(black_box(len)).unwrap();
                claim.iter_mut().for_each(|(_, event)| *event = round);
                black_box(claim.commit().unwrap());
            }
        }
        if let Some(tape) = &mut tape {
            for (_, event) in &mut tape.poll(black_box(16)).unwrap() {
                black_box(*event);
            }
        }
    }
    SharedRing::<u64>::remove_forced(&name).unwrap();
}

fn main() -> ExitCode {
    counting::run(&RECORD, TOLERANCE, operate)
}
