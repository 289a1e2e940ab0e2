//! Parking and waking: no thread sleeps while it could continue. A lost wake-up is a deadlock here.
//!
//! Every waiting thread parks after the first empty look. No producer or consumer is dropped before all threads have
//! what they wait for, because a drop rings bells.

use crate::support::*;
use slipring_ring::{Builder, Closed, Sequence, Stage};

/// A consumer parks, and a producer publishes one event and is not dropped.
/// Allowed: the consumer finds the event at its first or second look, or is woken. Forbidden: it sleeps on.
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

/// A consumer parks, and a producer publishes the first slot of a claim and keeps the other one.
/// Allowed: the consumer finds the event at its first or second look, or is woken. Forbidden: it sleeps on.
#[test]
fn a_parked_consumer_is_woken_by_a_part_of_a_claim() {
    model_of_sleep(All, "a part of a claim wakes a parked consumer", || {
        let (mut producer, ring) = single(2, &[("reader", &[])]);
        let mut reader = ring.consumer("reader").unwrap();
        let reading = thread::spawn(move || (get_wait(&mut reader, 1), reader));
        let mut claim = producer.try_claim(2).unwrap();
        claim.iter_mut().for_each(|(sequence, event)| *event = value_of(sequence));
        assert!(claim.commit_first(1).is_ok());
        assert_eq!(reading.join().unwrap().0, Some(1));
    });
}

/// A consumer parks, and two producers publish an event each, of which either may come first.
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

/// A producer sleeps until nobody reads its ring, and the only stage leaves.
/// Allowed: the producer sees that the stage has left, or is woken. Forbidden: it sleeps on.
#[test]
fn a_producer_that_waits_for_the_last_reader_to_leave_is_woken() {
    model_of_sleep(Mixed(3, None), "the last stage to leave wakes who waits until nobody reads", || {
        let (producer, ring) = single(1, &[("reader", &[])]);
        let reader = ring.consumer("reader").unwrap();
        let leaving = thread::spawn(move || drop(reader));
        assert_eq!(producer.wait_until_unread(None), Ok(true));
        leaving.join().unwrap();
    });
}

/// A producer sleeps until nobody reads its ring, and the ring is closed. Its only stage stays.
/// Allowed: the producer sees the end, or is woken, and gets the reason. Forbidden: it sleeps on.
#[test]
fn a_producer_that_waits_for_the_last_reader_hears_of_the_end() {
    model_of_sleep(All, "the end wakes who waits until nobody reads", || {
        let (producer, ring) = single(1, &[("reader", &[])]);
        let _reader = ring.consumer("reader").unwrap();
        let other = ring.clone();
        let ending = thread::spawn(move || other.close());
        assert_eq!(producer.wait_until_unread(None), Err(Closed::Closed));
        ending.join().unwrap();
    });
}

/// Another thread ends a consumer's wait, once. Nothing is published.
/// Allowed: the wake-up comes while the consumer checks, while it sleeps, or before it waits, and the poll returns no
/// event. Forbidden: the consumer sleeps on.
#[test]
fn a_wake_up_from_outside_ends_the_present_or_the_next_wait() {
    model_of_sleep(All, "a wake-up from outside ends the present or the next wait", || {
        let (_producer, ring) = single(1, &[("reader", &[])]);
        let mut reader = ring.consumer("reader").unwrap();
        let wakeup = reader.wakeup();
        let reading = thread::spawn(move || (get_wait(&mut reader, 1), reader));
        wakeup.wake();
        assert_eq!(reading.join().unwrap().0, Some(0));
    });
}

/// Another thread ends a consumer's wait, beside a producer that publishes one event and is not dropped.
/// Allowed: of two polls, one returns the event and the other one none, in either order. Forbidden: a poll sleeps on,
/// because the wake-up or the event was lost.
#[test]
fn a_wake_up_from_outside_is_kept_beside_an_event() {
    model_of_sleep(Mixed(1, Some(2)), "an event uses up no wake-up from outside", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        let mut reader = ring.consumer("reader").unwrap();
        let wakeup = reader.wakeup();
        let reading = thread::spawn(move || {
            let counts = [(); 2].map(|()| get_wait(&mut reader, 1).unwrap());
            (counts, reader)
        });
        let waking = thread::spawn(move || wakeup.wake());
        put(&mut producer, 1).unwrap();
        waking.join().unwrap();
        assert_eq!(reading.join().unwrap().0.iter().sum::<u64>(), 1);
    });
}

/// A producer parks on a full ring of one slot.
/// Allowed: it finds room at a look, or the consumer's progress wakes it. Forbidden: it sleeps on.
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

/// Two producers park on a full ring, and the reader frees both slots at once.
/// Allowed: both publish, in either order. Forbidden: one sleeps while there is room.
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

/// A producer parks on a full ring with two readers. Which reader is slowest changes while it arms its bell.
/// Allowed: it finds room once both have read. Forbidden: it sleeps at the bell of the reader that has read already.
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

/// A multi producer waits for another producer's publish, on a ring without stages.
/// Allowed: it finds room, or the commit wakes it. Forbidden: it sleeps on.
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

/// A multi producer waits for another producer's claim, which is dropped, on a ring without stages.
/// Allowed: it finds room in the skipped slot, or the drop wakes it. Forbidden: it sleeps on.
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

/// A stage parks after another stage.
/// Allowed: the progress of the stage before wakes it. Forbidden: it sleeps on.
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

/// A stage parks after two stages. Which of them is slower changes while it arms its bell.
/// Allowed: it is woken once both have passed. Forbidden: it sleeps at the bell of the stage that has passed already.
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

/// A producer parks because of a stage's gate, and the stage leaves.
/// Allowed: it finds room once the gate has left. Forbidden: it sleeps on.
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

/// A newcomer's pinned gate keeps a parked producer waiting; then the newcomer starts at a higher sequence, or reads.
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

/// Two workers park at one bell, and each is to get one event.
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

/// A ring of one slot is full of a dropped claim, and a producer sleeps until there is room.
/// Allowed: a reader passes the slot and wakes the producer. Forbidden: the producer sleeps on.
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

/// A producer sleeps until there is room, and a reader releases a slot in the middle of its batch.
/// Allowed: the producer wakes. Forbidden: it sleeps on although there is room.
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

/// A producer sleeps because of a stage's gate, and the stage is evicted.
/// Allowed: the producer wakes and has room. Forbidden: it sleeps on although the gate has left.
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

/// A producer sleeps because of a stage's gate. The stage's eviction is refused because of a batch, which ends unread.
/// Allowed: the producer wakes and has room. Forbidden: it sleeps on although the gate has left.
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

/// A reader seeks back to the second of two events, beside a reader that has read none. A producer sleeps because of
/// the seeking reader's pinned gate.
/// Allowed: the producer wakes when the gate moves to its start, or when the other reader reads. Forbidden: it sleeps
/// on although there is room.
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
