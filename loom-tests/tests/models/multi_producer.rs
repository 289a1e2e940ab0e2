//! Multi producers: claims, stamps, the floor.

use crate::support::*;
use slipring_ring::{Builder, Sequence};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// One multi producer publishes two events, with one reader and capacity 1.
/// Allowed: the reader gets the first event, both, or none. Forbidden: any other value, a read during a write.
#[test]
fn what_is_published_is_read_and_then_overwritten() {
    model(All, "written before read, read before overwritten", || {
        let (mut producer, ring) = multi(1, &[("reader", &[])]);
        let reading = reading(ring.consumer("reader").unwrap(), 2, 1);
        put(&mut producer, 1).unwrap();
        let second = put(&mut producer, 1).is_ok();
        let read = count(reading);
        assert!(!second || read >= 1, "overwritten before it was read");
    });
}

/// Two producers, each with a limit of its own, and a reader at capacity 1.
/// Allowed: the events in the order of their claims. Forbidden: both producers in one slot at once, a lost event.
#[test]
fn two_producers_never_share_a_slot() {
    model(Mixed(2, Some(3)), "two producers never hold one slot, whoever caches what", || {
        let (mut one, ring) = multi(1, &[("reader", &[])]);
        let mut two = one.clone();
        let mut reader = ring.consumer("reader").unwrap();
        let first = thread::spawn(move || put(&mut one, 1).is_ok());
        let second = thread::spawn(move || put(&mut two, 1).is_ok());
        let mut read = get(&mut reader, 1) + get(&mut reader, 1);
        let put = u64::from(first.join().unwrap()) + u64::from(second.join().unwrap());
        read += get(&mut reader, 1) + get(&mut reader, 1);
        assert_eq!(read, put);
        assert!(put >= 1);
    });
}

/// Two producers claim up to two slots at capacity 2.
/// Allowed: each claim whole, one after the other. Forbidden: claims that overlap.
#[test]
fn claims_of_two_do_not_overlap() {
    model(Within(3), "claims of several slots do not overlap", || {
        let (mut one, ring) = multi(2, &[("reader", &[])]);
        let mut two = one.clone();
        let mut reader = ring.consumer("reader").unwrap();
        let first = thread::spawn(move || put(&mut one, 2).is_ok());
        let second = put(&mut two, 1).is_ok();
        let mut read = get(&mut reader, 2);
        let put = 2 * u64::from(first.join().unwrap()) + u64::from(second);
        read += get(&mut reader, 2) + get(&mut reader, 2);
        assert_eq!(read, put);
    });
}

/// Three producers publish out of order.
/// Allowed: the reader gets the events up to the first unpublished slot. Forbidden: an event after an unpublished slot.
#[test]
fn publication_out_of_order_is_read_in_order() {
    model(Mixed(1, Some(2)), "nothing behind an unpublished slot is read", || {
        let (mut one, ring) = multi(4, &[("reader", &[])]);
        let (mut two, mut three) = (one.clone(), one.clone());
        let mut reader = ring.consumer("reader").unwrap();
        let writers = [
            thread::spawn(move || put(&mut one, 1).is_ok()),
            thread::spawn(move || put(&mut two, 1).is_ok()),
            thread::spawn(move || put(&mut three, 1).is_ok()),
        ];
        let mut read = get(&mut reader, 4);
        for writer in writers {
            assert!(writer.join().unwrap());
        }
        read += get(&mut reader, 4);
        assert_eq!(read, 3);
    });
}

/// A ring without stages at capacity 1, with a producer that may stall between claim and commit.
/// Allowed: the second producer is refused while the first one writes. Forbidden: both write the slot at once.
#[test]
fn the_floor_keeps_a_producer_from_lapping_another() {
    model(Mixed(2, None), "without a stage no producer laps another one that still writes", || {
        let (mut one, _ring) = multi(1, &[]);
        let mut two = one.clone();
        let stalling = thread::spawn(move || put(&mut one, 1).is_ok());
        let second = put(&mut two, 1).is_ok() | put(&mut two, 1).is_ok();
        assert!(stalling.join().unwrap() | second);
    });
}

/// A ring without stages at capacity 1, whose floor a third thread raises by reading the published position.
/// Allowed: a producer is refused while another one writes. Forbidden: both write the slot at once.
#[test]
fn a_floor_raised_by_a_bystander_is_respected() {
    model(Mixed(2, Some(3)), "a floor raised by whoever looks passes on what it saw", || {
        let (mut one, _ring) = multi(1, &[]);
        let (bystander, mut two) = (one.clone(), one.clone());
        let writing = thread::spawn(move || put(&mut one, 1).is_ok());
        let looking = thread::spawn(move || bystander.published());
        let _ = put(&mut two, 1);
        writing.join().unwrap();
        looking.join().unwrap();
    });
}

/// A producer claims two slots, a second one claims the first of them again and stalls, and a third one claims the
/// second slot. The third one may find the floor laps behind, and then walk over the stamps from that second slot on,
/// in the middle of a claim.
/// Allowed: it gets the slot once the first claim is committed. Forbidden: two producers write it at once.
#[test]
fn a_walk_may_begin_in_the_middle_of_a_claim() {
    model(Mixed(1, Some(2)), "each slot of a claim passes on what was written there", || {
        let (mut one, _ring) = multi(2, &[]);
        let (mut two, mut three) = (one.clone(), one.clone());
        let writing = thread::spawn(move || put(&mut one, 2).is_ok());
        let third = thread::spawn(move || put(&mut three, 1).is_ok());
        let stalling = two.try_claim(1);
        third.join().unwrap();
        let _ = stalling.map(fill);
        writing.join().unwrap();
    });
}

/// A producer that has claimed as the only one is cloned, and both claim.
/// Allowed: two events one after the other. Forbidden: both in one slot.
#[test]
fn a_producer_that_was_alone_respects_its_clone() {
    model(Within(3), "a producer that was alone exchanges its claims once it is cloned", || {
        let (mut one, ring) = multi(4, &[("reader", &[])]);
        put(&mut one, 1).unwrap();
        let mut two = one.clone();
        let writing = thread::spawn(move || put(&mut two, 1).is_ok());
        put(&mut one, 1).unwrap();
        assert!(writing.join().unwrap());
        assert_eq!(get(&mut ring.consumer("reader").unwrap(), 4), 3);
    });
}

/// One claim is dropped, one is unwound, and one is committed.
/// Allowed: the reader gets the committed event, or no event yet. Forbidden: it gets one of the other slots.
#[test]
fn a_dropped_claim_is_never_delivered() {
    model(All, "slots of a claim that was dropped or unwound are skipped", || {
        let (mut producer, ring) = multi(2, &[("reader", &[])]);
        let reading = reading(ring.consumer("reader").unwrap(), 2, 2);
        producer.try_claim(1).unwrap()[0] = 1;
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _ = producer.try_publish(|event| {
                *event = 2;
                std::panic::resume_unwind(Box::new("while it fills"));
            });
        }));
        assert!(unwound.is_err());
        let third = put(&mut producer, 1).is_ok();
        let read = count(reading);
        assert!(read <= u64::from(third), "an event that was never committed");
    });
}

/// Skipped slots pass a chain of stages, and are then overwritten.
/// Allowed: both stages get the committed event or no event yet. Forbidden: either stage gets the skipped slot.
#[test]
fn every_stage_of_a_chain_skips() {
    model(Within(3), "every stage looks at the skip bit", || {
        let (mut producer, ring) = multi(2, &[("first", &[]), ("second", &["first"])]);
        let ahead = reading(ring.consumer("first").unwrap(), 1, 2);
        let mut second = ring.consumer("second").unwrap();
        let writing = thread::spawn(move || {
            drop(producer.try_claim(1).unwrap());
            put(&mut producer, 1).unwrap();
            put(&mut producer, 1).is_ok()
        });
        get_some(&mut second, 2);
        let put = 1 + u64::from(writing.join().unwrap());
        assert!(count(ahead) <= put);
    });
}

/// The first sequence is `u64::MAX`, or the last one before stamps lose their highest bit.
/// Allowed: as without the wrap-around. Forbidden: a stamp that compares the wrong way round.
#[test]
fn stamps_go_on_across_the_end_of_the_range() {
    for first in [u64::MAX, (1 << 63) - 1] {
        model(All, "stamps compare across the end of the range", move || {
            let mut builder = Builder::multi(1, || 0);
            builder.start_at(Sequence(first));
            let (mut producer, ring) = declare(builder, &[("reader", &[])]).build().unwrap();
            let reading = reading(ring.consumer("reader").unwrap(), 2, 1);
            put(&mut producer, 1).unwrap();
            let second = put(&mut producer, 1).is_ok();
            let read = count(reading);
            assert!(!second || read >= 1, "overwritten before it was read");
        });
    }
}

/// A ring with a reader runs several laps before the published position is read.
/// Allowed: the position after all published events. Forbidden: a lower one, because the floor is laps behind.
#[test]
fn what_is_published_is_known_laps_later() {
    model(All, "what is published is found also by who looks laps later", || {
        let (mut producer, ring) = multi(1, &[("reader", &[])]);
        let mut reader = ring.consumer("reader").unwrap();
        for _ in 0..3 {
            put(&mut producer, 1).unwrap();
            assert_eq!(get(&mut reader, 1), 1);
        }
        let looking = thread::spawn(move || ring.positions().published);
        let mut producer = producer;
        let _ = put(&mut producer, 1);
        assert!(looking.join().unwrap().0 >= 3);
        assert_eq!(producer.published().0, 4);
    });
}

/// A reader reads an event, and passes the skipped slot after it.
/// Allowed: the producer writes where the reader has read or passed. Forbidden: a write during the read.
#[test]
fn what_was_read_before_a_skipped_slot_was_read() {
    model(Within(3), "passing a skipped slot passes on what was read before it", || {
        let (mut producer, ring) = multi(2, &[("reader", &[])]);
        put(&mut producer, 1).unwrap();
        drop(producer.try_claim(1).unwrap());
        let old = reading(ring.consumer("reader").unwrap(), 2, 1);
        let _ = put(&mut producer, 1);
        assert!(count(old) >= 1);
    });
}
