//! A topic `ticks` of four partitions in which records were lost to damage, and repaired.

// Each of the binaries needs a part of it.
#![allow(dead_code)]

use slipring::journal::Options;
use slipring::journal::repair::repair;
use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::storage::Storage;
use slipring::{Engine, Level, Topic};
use std::sync::Arc;
use std::time::Duration;

pub const LONG: Duration = Duration::from_secs(60);
pub const EACH: u64 = 20;

/// What a lost event has in its upper half.
pub const MARK: u64 = 0x7475_726e << 32;

pub fn engine(disk: &SimulatedDisk) -> Engine {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap()
}

pub fn ticks(engine: &Engine) -> Topic<u64> {
    engine.topic::<u64>("ticks").partitions(4).capacity(1024).durable().create().unwrap()
}

/// Each partition gets the numbers from 0 on, one a frame; those of `lost` cannot be read any more.
pub fn damaged(lost: &[(u32, u64)]) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let mut producer = ticks(&engine).producer().acknowledge(Level::Durable).create().unwrap();
    for number in 0..EACH {
        for partition in [1, 0, 2, 3] {
            let mark = if lost.contains(&(partition, number)) { MARK } else { 0 };
            producer.publish_to(partition, |tick| *tick = number | mark).unwrap();
        }
    }
    drop(producer);
    assert!(matches!(engine.shutdown(LONG).journal, Some(Ok(()))));
    drop(engine);
    lose(&disk);
    disk
}

/// Loses the frames that have an event with the mark to damage, and repairs the journal.
pub fn lose(disk: &SimulatedDisk) {
    let mark = (MARK >> 32) as u32;
    for name in disk.list().unwrap().into_iter().filter(|name| name.ends_with(".segment")) {
        disk.edit(&name, |bytes| {
            let places = bytes.windows(4).enumerate().filter(|(_, four)| *four == mark.to_le_bytes());
            let places: Vec<_> = places.map(|(at, _)| at).collect();
            places.into_iter().for_each(|at| bytes[at] ^= 1);
        });
    }
    let repaired = repair(Arc::new(disk.clone()), 7, &mut |_| {}).unwrap();
    assert!(!repaired.places.is_empty());
}
