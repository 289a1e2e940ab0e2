//! Stages after stages: a stage sees what the stage before has written and passed, and producers wait for the last
//! stage.

use crate::support::*;
use slipring_ring::{Builder, Sequence, Stage};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed as COUNT};
use std::time::Duration;

/// A producer, a stage and a later stage at capacity 1, with two events.
/// Allowed: the later stage gets at most the events that the first one passed. Forbidden: a read during a write.
#[test]
fn a_stage_reads_only_what_the_one_before_has_passed() {
    model(Within(3), "a stage reads behind the one before, and gates", || {
        let (mut producer, ring) = single(1, &[("first", &[]), ("second", &["first"])]);
        let [ahead, behind] = ["first", "second"].map(|name| reading(ring.consumer(name).unwrap(), 2, 1));
        put(&mut producer, 1).unwrap();
        let again = put(&mut producer, 1).is_ok();
        let (ahead, behind) = (count(ahead), count(behind));
        assert!(behind <= ahead);
        assert!(!again || behind >= 1, "overwritten before the last stage read it");
    });
}

/// The first of two stages changes the event.
/// Allowed: the later stage gets the changed event. Forbidden: the unchanged event, a read during the change.
#[test]
fn what_a_mutable_stage_changed_is_seen_behind_it() {
    model(All, "a change is seen by the stage behind", || {
        let mut builder = Builder::single(1, || 0u64);
        builder.poll_mut("change").poll(Stage::new("reader").after(["change"]));
        let (mut producer, ring) = builder.build().unwrap();
        let mut change = ring.consumer_mut("change").unwrap();
        let mut reader = ring.consumer("reader").unwrap();
        producer.try_publish(|event| *event = 1).unwrap();
        let changing = thread::spawn(move || {
            for (_, event) in &mut change.poll(1).unwrap() {
                *event += 1;
            }
            let _ = change.poll(1).map(|batch| assert!(batch.is_empty()));
            change
        });
        for (_, event) in &mut reader.poll(1).unwrap() {
            assert_eq!(*event, 2);
        }
        changing.join().unwrap();
    });
}

/// A diamond: two parallel stages, one stage after both, and a producer that needs the slot again.
/// Allowed: the last stage gets an event that both passed. Forbidden: an event that only one of them passed, a read
/// during a write.
#[test]
fn a_diamond_is_read_behind_both_sides() {
    model(Mixed(1, Some(2)), "behind two stages is behind the slower one", || {
        let (mut producer, ring) = single(1, &[("left", &[]), ("right", &[]), ("last", &["left", "right"])]);
        put(&mut producer, 1).unwrap();
        let mut last = ring.consumer("last").unwrap();
        let sides = ["left", "right"].map(|name| reading(ring.consumer(name).unwrap(), 1, 1));
        let writing = thread::spawn(move || put(&mut producer, 1).is_ok());
        let read = get(&mut last, 1);
        let passed = sides.map(count);
        assert!(read <= passed[0].min(passed[1]));
        assert!(!writing.join().unwrap() || read == 1, "overwritten before the last stage read it");
    });
}

/// A handler flushes at the end of each batch, and a skipped slot follows the only event, sooner or later.
/// Allowed: the handler gets the event as the last one of its batch. Forbidden: the skipped slot counts as the last
/// one.
#[test]
fn the_end_of_a_batch_is_told_though_skipped_slots_follow() {
    model_of_sleep(Within(1), "the last event of a batch is told, though skipped slots follow", || {
        let flushed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&flushed);
        let mut builder = Builder::multi(2, || 0u64);
        builder.run(Stage::new("handler").wait(park()), || {
            move |event: &u64, sequence: Sequence, last: bool| {
                assert_eq!(*event, value_of(sequence));
                counter.fetch_add(u64::from(last), COUNT);
                Ok::<_, Infallible>(())
            }
        });
        let (mut producer, ring) = builder.build().unwrap();
        put(&mut producer, 1).unwrap();
        drop(producer.try_claim(1).unwrap());
        assert!(ring.shutdown(Duration::from_secs(1)).is_complete());
        assert_eq!(flushed.load(COUNT), 1, "the end of the batch was not told");
    });
}
