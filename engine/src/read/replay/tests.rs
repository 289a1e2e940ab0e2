use super::*;
use crate::Engine;
use slipring_journal::Options;
use slipring_journal::simulated::SimulatedDisk;

/// The offset and value of each event that a replay returns: 200 events that are published before it opens and read one
/// per call, then 50 that are published once it reads the ring.
fn over_the_seam(past: bool) -> Vec<(u64, u64)> {
    let mut options = Options { segment_size: 1 << 18, ..Options::default() };
    options.sabotage.join_at_a_past_slot = past;
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").capacity(64).durable().create().unwrap();
    let mut producer = ticks.producer().acknowledge(crate::Level::Durable).create().unwrap();
    producer.publish_batch(40, |index, tick| *tick = index as u64).unwrap();
    for number in 40..200 {
        producer.publish(|tick| *tick = number).unwrap();
    }
    let mut replay = ticks.replay("tape").open().unwrap();
    let mut seen = Vec::new();
    let until = Instant::now() + Duration::from_secs(60);
    while !replay.is_live() && Instant::now() < until {
        replay.read_part(Duration::from_millis(1), Some(1), |tick, at| seen.push((at.offset, *tick))).unwrap();
    }
    for number in 200..250 {
        producer.publish(|tick| *tick = number).unwrap();
    }
    while seen.last() != Some(&(249, 249)) && Instant::now() < until {
        replay.read(Duration::from_millis(100), |tick, at| seen.push((at.offset, *tick))).unwrap();
    }
    seen
}

#[test]
fn what_a_panic_has_kept_from_the_reader_comes_again() {
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").single_producer().capacity(256).durable().create().unwrap();
    let mut producer = ticks.producer().acknowledge(crate::Level::Durable).create().unwrap();
    let mut replay = ticks.replay("tape").open().unwrap();
    producer.publish_batch(100, |index, tick| *tick = index as u64).unwrap();
    // The replay is more than a quarter of the ring behind, so it reads the journal.
    let mut seen = Vec::new();
    let mut read = |panic_at: Option<u64>, seen: &mut Vec<(u64, u64)>| {
        let each = |tick: &u64, at: At| {
            seen.push((at.offset, *tick));
            assert!(panic_at != Some(*tick), "told to");
        };
        let reading = std::panic::AssertUnwindSafe(|| replay.read(Duration::from_secs(30), each));
        std::panic::catch_unwind(reading).is_err()
    };
    assert!(read(Some(3), &mut seen) && read(Some(4), &mut seen));
    let until = Instant::now() + Duration::from_secs(30);
    while seen.len() < 100 && Instant::now() < until {
        assert!(!read(None, &mut seen));
    }
    assert_eq!(seen, (0..100).map(|number| (number, number)).collect::<Vec<_>>());
}

#[test]
fn a_replay_that_joins_at_a_past_slot_is_found() {
    let all: Vec<_> = (0..250).map(|number| (number, number)).collect();
    assert_eq!(over_the_seam(false), all);
    assert_ne!(over_the_seam(true), all, "the fault went unnoticed");
}
