//! The single producer: publishing, wrapping, claims.

use crate::support::*;
use slipring_ring::{Builder, Sequence};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// One producer publishes two events, with one reader and capacity 1. The reader must see each write, and finish each
/// read before its slot is written again.
/// Allowed: the reader gets the first event, both, or none. Forbidden: any other value, a read during a write.
#[test]
fn what_is_published_is_read_and_then_overwritten() {
    model(All, "written before read, read before overwritten", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        let reading = reading(ring.consumer("reader").unwrap(), 2, 1);
        put(&mut producer, 1).unwrap();
        let second = put(&mut producer, 1).is_ok();
        let read = count(reading);
        assert!(read <= 1 + u64::from(second));
        assert!(!second || read >= 1, "overwritten before it was read");
    });
}

/// Three events at capacity 2, and a reader that takes one at a time: the producer's cached limit is used and
/// refreshed.
/// Allowed: up to three events, in order. Forbidden: a third write before the first read.
#[test]
fn a_cached_limit_is_never_too_high() {
    model(All, "a cached limit is never above gate and capacity", || {
        let (mut producer, ring) = single(2, &[("reader", &[])]);
        let reading = reading(ring.consumer("reader").unwrap(), 2, 1);
        put(&mut producer, 1).unwrap();
        put(&mut producer, 1).unwrap();
        let third = put(&mut producer, 1).is_ok();
        let read = count(reading);
        assert!(!third || read >= 1, "overwritten before it was read");
    });
}

/// Claims of two slots are committed, dropped and unwound.
/// Allowed: the reader gets both committed events or none of them. Forbidden: an event of the other claims, a part of a
/// claim.
#[test]
fn a_claim_is_published_whole_or_not_at_all() {
    model(All, "a claim is published whole or not at all", || {
        let (mut producer, ring) = single(2, &[("reader", &[])]);
        let reading = reading(ring.consumer("reader").unwrap(), 1, 2);
        producer.try_claim(2).unwrap()[0] = 1;
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _ = producer.try_publish(|event| {
                *event = 2;
                std::panic::resume_unwind(Box::new("while it fills"));
            });
        }));
        assert!(unwound.is_err());
        put(&mut producer, 2).unwrap();
        assert!([0, 2].contains(&count(reading)), "a part of a claim");
    });
}

/// The first sequence is `u64::MAX`.
/// Allowed: as without the wrap-around. Forbidden: a position that compares the wrong way round.
#[test]
fn positions_go_on_across_the_end_of_the_range() {
    model(All, "positions compare across the end of the range", || {
        let mut builder = Builder::single(1, || 0);
        builder.start_at(Sequence(u64::MAX));
        let (mut producer, ring) = declare(builder, &[("reader", &[])]).build().unwrap();
        let reading = reading(ring.consumer("reader").unwrap(), 2, 1);
        put(&mut producer, 1).unwrap();
        let second = put(&mut producer, 1).is_ok();
        let read = count(reading);
        assert!(!second || read >= 1, "overwritten before it was read");
    });
}

/// `retain(1)` at capacity 2: a retained event is not overwritten while a newcomer starts there.
/// Allowed: the newcomer starts at the first or a later event and continues from there. Forbidden: a read during a
/// write.
#[test]
fn what_is_retained_can_still_be_read() {
    model_of_gates(Mixed(2, None), "a newcomer reads what is retained", || {
        let mut builder = Builder::single(2, || 0);
        builder.retain(1);
        let (mut producer, ring) = builder.build().unwrap();
        put(&mut producer, 1).unwrap();
        let joining = thread::spawn(move || {
            let mut late = ring.join("late").unwrap();
            get(&mut late, 1)
        });
        let _ = put(&mut producer, 1);
        let _ = put(&mut producer, 1);
        assert_eq!(joining.join().unwrap(), 1);
    });
}

/// A reader releases the first of two slots in the middle of its batch.
/// Allowed: the producer writes there after the read. Forbidden: a write during the read.
#[test]
fn what_is_released_in_a_batch_was_read() {
    model(All, "what a batch gives back in its middle was read before", || {
        let (mut producer, ring) = single(2, &[("reader", &[])]);
        put(&mut producer, 2).unwrap();
        let mut reader = ring.consumer("reader").unwrap();
        let reading = thread::spawn(move || {
            let mut batch = reader.poll(2).unwrap();
            assert_eq!(*(&mut batch).into_iter().next().unwrap().1, value_of(Sequence(0)));
            batch.release();
            drop(batch);
            reader
        });
        let _ = put(&mut producer, 1);
        let _reader = reading.join().unwrap();
    });
}

/// A reader reads an event, and seeks past the next one.
/// Allowed: the producer writes where the reader has read or passed. Forbidden: a write during the read.
#[test]
fn what_was_read_before_a_seek_forward_was_read() {
    model(All, "a seek forward passes on what was read before it", || {
        let (mut producer, ring) = single(2, &[("reader", &[])]);
        put(&mut producer, 2).unwrap();
        let mut reader = ring.consumer("reader").unwrap();
        let reading = thread::spawn(move || {
            assert_eq!(get(&mut reader, 1), 1);
            reader.seek(Sequence(2)).unwrap();
            reader
        });
        let _ = put(&mut producer, 1);
        let _reader = reading.join().unwrap();
    });
}

/// A producer publishes, a reader reads, and a third thread reads the positions.
/// Allowed: the positions of any moment. Forbidden: a reader's position beyond the published one.
#[test]
fn no_reader_is_told_to_stand_beyond_what_is_published() {
    model(Within(2), "who asks for positions sees what the readers have read as published", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        let old = reading(ring.consumer("reader").unwrap(), 1, 1);
        let writing = thread::spawn(move || (put(&mut producer, 1).is_ok(), producer));
        let positions = ring.positions();
        assert!(positions.published.since(positions.stages[0].consumed) >= 0, "{positions:?}");
        count(old);
        assert!(writing.join().unwrap().0);
    });
}
