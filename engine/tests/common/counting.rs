//! What is read of a journal's segments, and written to them.

use slipring::journal::simulated::{SimulatedDisk, Traffic};
use slipring::journal::storage::Storage;
use std::collections::BTreeMap;

/// What was done to segments since the last call, by their names.
pub fn take(disk: &SimulatedDisk) -> BTreeMap<String, Traffic> {
    let mut done = disk.take_traffic();
    done.retain(|name, _| name.ends_with(".segment"));
    done
}

/// All of that together.
pub fn take_sum(disk: &SimulatedDisk) -> Traffic {
    take(disk).values().fold(Traffic::default(), |mut sum, done| {
        sum.read += done.read;
        sum.reads += done.reads;
        sum.written += done.written;
        sum.syncs += done.syncs;
        sum
    })
}

/// Bytes of all segments.
#[allow(dead_code, reason = "not every test needs it")]
pub fn segments(disk: &SimulatedDisk) -> u64 {
    let names = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".segment"));
    names.map(|name| disk.contents(&name).unwrap().len() as u64).sum()
}
