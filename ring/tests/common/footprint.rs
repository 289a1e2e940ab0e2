//! What this process takes from the system, for tests of handles that come and go.

use std::fs::{read_dir, read_to_string};

/// What the system counts for this process.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Bytes in memory.
    pub resident: u64,
    /// Bytes of address space.
    pub space: u64,
    pub threads: u64,
    pub descriptors: u64,
    pub mappings: u64,
}

impl Footprint {
    pub fn now() -> Self {
        let status = read_to_string("/proc/self/status").unwrap();
        let of = |field: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(field)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Self {
            resident: of("VmRSS:") << 10,
            space: of("VmSize:") << 10,
            threads: of("Threads:"),
            descriptors: read_dir("/proc/self/fd").unwrap().count() as u64,
            mappings: read_to_string("/proc/self/maps").unwrap().lines().count() as u64,
        }
    }
}

/// How often something comes and goes in a churn test: 3,000 times, or as `SLIPRING_CHURN` says.
pub fn rounds() -> usize {
    std::env::var("SLIPRING_CHURN").map_or(3_000, |rounds| rounds.parse().unwrap())
}

/// Has `one` come and go [`rounds`] times, and demands that nothing of the system grows with the number of rounds: what
/// half of them leave is let be, what the other half adds must be next to nothing. A kilobyte a round would be found.
pub fn stays_flat(what: &str, mut one: impl FnMut(usize)) {
    let rounds = rounds();
    (0..rounds / 2).for_each(&mut one);
    let before = settled(None);
    (rounds / 2..rounds).for_each(&mut one);
    let after = settled(Some(before));
    let limit = 2 << 20;
    assert!(after.resident <= before.resident + limit, "{what}: memory\n{before:?}\n{after:?}");
    assert!(after.space <= before.space + (80 << 20), "{what}: address space\n{before:?}\n{after:?}");
    assert!(after.threads <= before.threads, "{what}: threads\n{before:?}\n{after:?}");
    assert!(after.descriptors <= before.descriptors + SEGMENTS, "{what}: descriptors\n{before:?}\n{after:?}");
    assert!(after.mappings <= before.mappings + 16, "{what}: mappings\n{before:?}\n{after:?}");
    eprintln!("{what}: {rounds} rounds\n  {before:?}\n  {after:?}");
}

/// A journal has a few of its segments open, now some more and now some less.
const SEGMENTS: u64 = 8;

/// Looks when threads that are about to end have ended, and a journal's thread has closed the segments that retention
/// gave up: as soon as there are no more than `before`, within ten seconds.
fn settled(before: Option<Footprint>) -> Footprint {
    let mut now = Footprint::now();
    for _ in 0..1_000 {
        let after = Footprint::now();
        let is_quiet = before.map_or(after.threads == now.threads, |before| {
            after.threads <= before.threads && after.descriptors <= before.descriptors + SEGMENTS
        });
        now = after;
        if is_quiet {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    now
}
