//! Parking and being woken: nobody sleeps while there is something for them. A lost wake-up is a deadlock here.
//!
//! Everybody who waits parks at the first empty look. Nobody leaves before all have what they wait for: leaving rings.

use crate::support::*;
use slipring_ring::{Builder, Sequence, Stage};

/// A consumer that parks, a producer that publishes one event and goes on holding the ring open.
/// Allowed: the consumer finds it at its first or second look, or is woken. Forbidden: it sleeps on.
#[test]
fn a_parked_consumer_is_woken_by_a_publish() {
    model_of_sleep(All, "a publish wakes a parked consumer", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        let mut reader = ring.consumer("reader").unwrap();
        let reading = thread::spawn(move || (get_wait(&mut reader, 1), reader));
        put(&mut producer, 1).unwrap();
        assert_eq!(reading.join().unwrap().0, Some(1));
    });
}

/// The same with two producers, of which either may be the one that the consumer needs next.
/// Allowed: the consumer gets both events, in one batch or two. Forbidden: it sleeps while one is published.
#[test]
fn a_parked_consumer_is_woken_by_either_of_two_producers() {
    model_of_sleep(Mixed(1, Some(2)), "either producer wakes a parked consumer", || {
        let (mut one, ring) = multi(2, &[("reader", &[])]);
        let mut two = one.clone();
        let mut reader = ring.consumer("reader").unwrap();
        let writing = thread::spawn(move || (put(&mut one, 1).is_ok(), one));
        let reading = thread::spawn(move || {
            let mut read = 0;
            while read < 2 {
                read += get_wait(&mut reader, 2).unwrap();
            }
            reader
        });
        put(&mut two, 1).unwrap();
        reading.join().unwrap();
        writing.join().unwrap();
    });
}

/// A producer parks on a full ring of one slot.
/// Allowed: it finds room at a look, or is woken by the consumer's progress. Forbidden: it sleeps on.
#[test]
fn a_parked_producer_is_woken_by_a_reader() {
    model_of_sleep(All, "progress of the slowest stage wakes a parked producer", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        producer.set_wait(park());
        put(&mut producer, 1).unwrap();
        let reading = reading(ring.consumer("reader").unwrap(), 1, 1);
        put_wait(&mut producer, 1).unwrap();
        assert_eq!(count(reading), 1);
    });
}

/// Two producers park on a full ring; the reader gives both slots back at once.
/// Allowed: both get through, in either order. Forbidden: one sleeps while there is room.
#[test]
fn two_parked_producers_are_both_woken() {
    model_of_sleep(Mixed(1, Some(2)), "each of two parked producers is woken", || {
        let (mut one, ring) = multi(2, &[("reader", &[])]);
        put(&mut one, 2).unwrap();
        one.set_wait(park());
        let mut two = one.clone();
        let reading = reading(ring.consumer("reader").unwrap(), 1, 2);
        let writing = thread::spawn(move || (put_wait(&mut one, 1).unwrap(), one));
        put_wait(&mut two, 1).unwrap();
        writing.join().unwrap();
        assert_eq!(count(reading), 2);
    });
}

/// A producer parks on a full ring with two readers: whoever is the slowest changes while it lies down.
/// Allowed: it finds room once both have read. Forbidden: it sleeps at the bell of the one that has read already.
#[test]
fn a_parked_producer_is_woken_whichever_reader_is_last() {
    model_of_sleep(Within(3), "a producer wakes whichever reader is last", || {
        let (mut producer, ring) = single(1, &[("left", &[]), ("right", &[])]);
        producer.set_wait(park());
        put(&mut producer, 1).unwrap();
        let readers = ["left", "right"].map(|name| reading(ring.consumer(name).unwrap(), 1, 1));
        put_wait(&mut producer, 1).unwrap();
        assert_eq!(readers.map(count), [1, 1]);
    });
}

/// A multi producer without any stage waits for another one's publish.
/// Allowed: it finds room, or is woken by the commit. Forbidden: it sleeps on.
#[test]
fn a_producer_parked_at_the_floor_is_woken_by_a_commit() {
    model_of_sleep(Within(3), "a commit wakes a producer that waits for the floor", || {
        let (mut one, _ring) = multi(1, &[]);
        one.set_wait(park());
        let mut two = one.clone();
        let claim = one.try_claim(1).unwrap();
        let waiting = thread::spawn(move || (put_wait(&mut two, 1).unwrap(), two));
        fill(claim).unwrap();
        waiting.join().unwrap();
    });
}

/// The same where the claim is dropped.
/// Allowed: the skipped slot is room, and wakes. Forbidden: it sleeps on.
#[test]
fn a_producer_parked_at_the_floor_is_woken_by_a_dropped_claim() {
    model_of_sleep(Within(3), "a dropped claim wakes as a commit does", || {
        let (mut one, _ring) = multi(1, &[]);
        one.set_wait(park());
        let mut two = one.clone();
        let claim = one.try_claim(1).unwrap();
        let waiting = thread::spawn(move || (put_wait(&mut two, 1).unwrap(), two));
        drop(claim);
        waiting.join().unwrap();
    });
}

/// A stage parks behind another one.
/// Allowed: woken by the progress of the one before. Forbidden: it sleeps on.
#[test]
fn a_stage_parked_behind_a_stage_is_woken() {
    model_of_sleep(All, "progress wakes the stage behind", || {
        let (mut producer, ring) = single(1, &[("first", &[]), ("second", &["first"])]);
        put(&mut producer, 1).unwrap();
        let first = reading(ring.consumer("first").unwrap(), 1, 1);
        let mut second = ring.consumer("second").unwrap();
        assert_eq!(get_wait(&mut second, 1), Some(1));
        assert_eq!(count(first), 1);
    });
}

/// A stage parks behind two others: whoever is the slower one changes while it lies down.
/// Allowed: woken once both have passed. Forbidden: it sleeps at the bell of the one that has passed already.
#[test]
fn a_stage_parked_behind_two_is_woken_by_whichever_is_last() {
    model_of_sleep(Mixed(2, Some(3)), "whichever of two stages is last wakes the one behind", || {
        let (mut producer, ring) = single(1, &[("left", &[]), ("right", &[]), ("last", &["left", "right"])]);
        put(&mut producer, 1).unwrap();
        let sides = ["left", "right"].map(|name| reading(ring.consumer(name).unwrap(), 1, 1));
        let mut last = ring.consumer("last").unwrap();
        assert_eq!(get_wait(&mut last, 1), Some(1));
        assert_eq!(sides.map(count), [1, 1]);
    });
}

/// A producer parks because of a stage that leaves.
/// Allowed: it finds room once the gate has gone. Forbidden: it sleeps on.
#[test]
fn a_parked_producer_is_woken_by_a_stage_that_leaves() {
    model_of_sleep(Mixed(4, None), "a stage that leaves wakes a parked producer", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        producer.set_wait(park());
        put(&mut producer, 1).unwrap();
        let reader = ring.consumer("reader").unwrap();
        let leaving = thread::spawn(move || drop(reader));
        put_wait(&mut producer, 1).unwrap();
        leaving.join().unwrap();
    });
}

/// A newcomer is pinned below a producer that parks; then it starts higher up, or reads on.
/// Allowed: the producer gets room once the newcomer and the reader have passed. Forbidden: it sleeps at the old gate.
#[test]
fn a_parked_producer_is_woken_by_a_newcomer() {
    model_of_sleep(Within(2), "a newcomer that held a producer up wakes it", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        producer.set_wait(park());
        put(&mut producer, 1).unwrap();
        let old = reading(ring.consumer("reader").unwrap(), 1, 1);
        let joining = thread::spawn(move || {
            let mut late = ring.join(Stage::new("late")).unwrap();
            get(&mut late, 1);
            late
        });
        put_wait(&mut producer, 1).unwrap();
        count(old);
        joining.join().unwrap();
    });
}

/// Two workers park at the same bell for one event each.
/// Allowed: each gets one. Forbidden: one sleeps on.
#[test]
fn parked_workers_are_all_woken() {
    model_of_sleep(Mixed(1, Some(2)), "a publish wakes every parked worker", || {
        let mut builder = Builder::single(2, || 0u64);
        builder.workers(Stage::new("pool").wait(park()), 2);
        let (mut producer, ring) = builder.build().unwrap();
        let working = [(); 2].map(|()| {
            let mut worker = ring.worker("pool").unwrap();
            thread::spawn(move || {
                worker.take_wait(1).unwrap().for_each(|_, _| ());
                worker
            })
        });
        put(&mut producer, 1).unwrap();
        put(&mut producer, 1).unwrap();
        let _workers = working.map(|worker| worker.join().unwrap());
    });
}

/// A ring of one slot, full of a claim that was dropped; a producer sleeps until there is room.
/// Allowed: a reader passes the slot and wakes the producer. Forbidden: that it sleeps on.
#[test]
fn a_reader_that_passes_skipped_slots_wakes_producers() {
    model_of_sleep(Within(2), "skipped slots that are given back wake whoever waits for them", || {
        let (mut producer, ring) = multi(1, &[("reader", &[])]);
        producer.set_wait(park());
        let mut reader = ring.consumer("reader").unwrap();
        drop(producer.try_claim(1).unwrap());
        let writing = thread::spawn(move || (put_wait(&mut producer, 1).is_ok(), producer));
        assert!(reader.poll(1).unwrap().is_empty());
        let (written, _producer) = writing.join().unwrap();
        assert!(written);
        assert_eq!(get_some(&mut reader, 1), 1);
    });
}

/// A producer sleeps until there is room, and a reader gives a slot back in the middle of its batch.
/// Allowed: the producer wakes. Forbidden: it sleeps on though there is room.
#[test]
fn a_release_in_a_batch_wakes_a_parked_producer() {
    model_of_sleep(All, "what a batch gives back in its middle wakes whoever waits for it", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        producer.set_wait(park());
        put(&mut producer, 1).unwrap();
        let mut reader = ring.consumer("reader").unwrap();
        let reading = thread::spawn(move || {
            let mut batch = reader.poll(1).unwrap();
            assert_eq!((&mut batch).into_iter().count(), 1);
            batch.release();
            drop(batch);
            reader
        });
        assert!(put_wait(&mut producer, 1).is_ok());
        let _reader = reading.join().unwrap();
    });
}

/// A producer sleeps at the gate of a stage that is evicted.
/// Allowed: the producer wakes and has room. Forbidden: it sleeps on at a gate that has gone.
#[test]
fn a_parked_producer_is_woken_by_an_eviction() {
    model_of_sleep(All, "an eviction wakes whoever waits for the gate", || {
        let (mut producer, ring) = single(1, &[("slow", &[])]);
        producer.set_wait(park());
        put(&mut producer, 1).unwrap();
        let _slow = ring.consumer("slow").unwrap();
        let writing = thread::spawn(move || put_wait(&mut producer, 1).is_ok());
        ring.evict("slow").unwrap();
        assert!(writing.join().unwrap());
    });
}

/// The same where the eviction met a batch, which ends unread.
/// Allowed and forbidden as before.
#[test]
fn a_parked_producer_is_woken_by_the_end_of_an_evicted_batch() {
    model_of_sleep(All, "the end of an evicted stage's batch wakes whoever waits for the gate", || {
        let (mut producer, ring) = single(1, &[("slow", &[])]);
        producer.set_wait(park());
        put(&mut producer, 1).unwrap();
        let mut slow = ring.consumer("slow").unwrap();
        let batch = slow.poll(1).unwrap();
        assert!(ring.evict("slow").is_err());
        let writing = thread::spawn(move || put_wait(&mut producer, 1).is_ok());
        drop(batch);
        assert!(writing.join().unwrap());
    });
}

/// A reader seeks back to the second of two events beside one that has read none; the producer sleeps at the reader's pin.
/// Allowed: the producer wakes when the pin is let go, or when the other one reads. Forbidden: it sleeps on though there is room.
#[test]
fn a_producer_parked_at_the_pin_of_a_seek_is_woken() {
    model_of_sleep(Mixed(1, Some(2)), "a seek back wakes whoever waits for its pin", || {
        let (mut producer, ring) = single(2, &[("seeks", &[]), ("slow", &[])]);
        producer.set_wait(park());
        put(&mut producer, 2).unwrap();
        let [mut seeks, mut slow] = ["seeks", "slow"].map(|name| ring.consumer(name).unwrap());
        assert_eq!(get(&mut seeks, 2), 2);
        let seeking = thread::spawn(move || (seeks.seek(Sequence(1)).is_ok(), seeks));
        let writing = thread::spawn(move || put_wait(&mut producer, 1).is_ok());
        assert_eq!(get(&mut slow, 2), 2);
        assert!(writing.join().unwrap());
        let _seeks = seeking.join().unwrap();
    });
}
