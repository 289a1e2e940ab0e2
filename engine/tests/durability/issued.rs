//! Which offsets are issued after a shutdown: none that a group has passed.

use crate::durable::{LONG, engine};
use slipring::{Level, journal::simulated::SimulatedDisk, subscriber::At};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Slots that are given up at a partition's end have no record. A group passed and committed them, the next opening issued
/// their offsets again, and the group passed over what was published there in silence.
#[test]
fn no_offset_that_a_group_has_passed_is_issued_again_after_a_shutdown() {
    let disk = SimulatedDisk::new();
    let open = || {
        let engine = engine(&disk);
        let ticks = engine.topic::<u64>("ticks").capacity(64).partitions(2).durable().create().unwrap();
        (engine, ticks)
    };
    let mut published = Vec::new();
    let mut read = Vec::new();
    for life in 0..4 {
        let (engine, ticks) = open();
        let mut producer = ticks.producer().acknowledge(Level::Durable).create().unwrap();
        for tick in [life * 10, life * 10 + 1] {
            published.push((producer.publish_to(0, |event| *event = tick).unwrap().offset, tick));
        }
        // In a partition that has events, and in one that never gets any.
        for partition in [0, 0, 1] {
            let given_up = || producer.publish_to(partition, |_| std::panic::resume_unwind(Box::new("given up")));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(given_up)).is_err());
        }
        let mut member = ticks.group("sums").join().unwrap();
        while read.len() < published.len() {
            let batch = member.poll(LONG / 4).unwrap().unwrap();
            assert!(!batch.is_empty(), "read {read:?} of {published:?}");
            read.extend(batch.iter().map(|(tick, at)| (at.offset, *tick)));
            batch.commit().unwrap();
        }
        // The group passes the slots at the end, too, and commits behind them.
        member.poll(Duration::ZERO).unwrap().unwrap().commit().unwrap();
        // One topic ends before the engine does, and one with it.
        if life % 2 == 1 {
            drop((member, producer));
            ticks.close();
        }
        let report = engine.shutdown(LONG);
        assert_eq!(report.journal, Some(Ok(())), "{report}");
    }
    assert_eq!(read, published);
    assert!(published.is_sorted_by(|(one, _), (next, _)| one < next), "{published:?}");
}

/// Claims that producers make beside the close lie behind the partition's end, and are skipped. A group that passed them
/// would stand behind the offsets that are issued next.
#[test]
fn a_group_stands_at_the_end_of_its_partitions_when_producers_race_the_shutdown() {
    for round in 0..25 {
        let disk = SimulatedDisk::new();
        let open = || {
            let engine = engine(&disk);
            let ticks = engine.topic::<u64>("ticks").capacity(64).durable().create().unwrap();
            (engine, ticks)
        };
        let (engine, ticks) = open();
        let seen = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&seen);
        let count = move |_: &u64, _: At| {
            counted.fetch_add(1, Relaxed);
            Ok::<_, String>(())
        };
        ticks.group("sums").run(count).unwrap();
        let publishing = [(); 3].map(|()| {
            let mut producer = ticks.producer().create().unwrap();
            std::thread::spawn(move || {
                (0_u64..).take_while(|tick| producer.publish(|event| *event = *tick).is_ok()).count()
            })
        });
        // Each round ends elsewhere, with the ring full or not.
        while seen.load(Relaxed) < round * 11 {
            std::thread::yield_now();
        }
        let report = engine.shutdown(LONG);
        assert!(report.is_complete(), "{report}");
        let published: usize = publishing.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(seen.load(Relaxed), published as u64, "round {round}");
        drop((engine, ticks));

        let (engine, ticks) = open();
        let mut member = ticks.group("sums").join().unwrap();
        let tick = ticks.producer().acknowledge(Level::Durable).create().unwrap().publish(|event| *event = 7).unwrap();
        let batch = member.poll(LONG).unwrap().unwrap();
        assert_eq!(batch.iter().map(|(_, at)| at.offset).collect::<Vec<_>>(), [tick.offset], "round {round}");
        drop(batch);
        engine.shutdown(LONG);
    }
}
