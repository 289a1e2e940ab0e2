//! Shared rings: ring's own code for participants of different processes, with the shared memory on the heap. A process
//! dies when the model says so: its locks go, and it does nothing more.

use crate::support::*;
use slipring_ring::shared::model::ModelRing;
use slipring_ring::shared::{Ended, PublishError, SharedConsumer, SharedProducer};
use slipring_ring::{Sequence, Start};

fn put(producer: &mut SharedProducer<u64>) -> Result<Sequence, PublishError> {
    let mut claim = producer.try_claim(1)?;
    claim.iter_mut().for_each(|(sequence, event)| *event = value_of(sequence));
    Ok(claim.commit()?.first)
}

/// Polls once, and checks that the events are consecutive from the consumer's position on. Returns their count.
fn get(consumer: &mut SharedConsumer<u64>, limit: usize) -> Result<usize, Ended> {
    let mut next = consumer.position();
    let mut batch = consumer.poll(limit)?;
    let mut count = 0;
    for (sequence, event) in &mut batch {
        assert_eq!((sequence, *event), (next, value_of(next)));
        next = next.plus(1);
        count += 1;
    }
    Ok(count)
}

/// A producer publishes in a ring of one slot while its consumer reads.
/// Allowed: any interleaving. Forbidden: an event that is read while it is written, or another than was published.
#[test]
fn a_slot_is_not_written_while_it_is_read() {
    model(Within(2), "publish and read of a shared ring", || {
        let ring = ModelRing::new(false, 1, 0, 0u64);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = ring.consumer("t", false, Start::Earliest, park()).unwrap();
        let reading = thread::spawn(move || {
            get(&mut tape, 1).unwrap();
            get(&mut tape, 1).unwrap();
        });
        let _ = put(&mut out);
        let _ = put(&mut out);
        reading.join().unwrap();
        drop(out);
    });
}

/// A consumer leaves after a read while the producer waits for its slot.
/// Allowed: the producer finds the slot taken or free. Forbidden: it writes the slot before the read.
#[test]
fn what_a_leaver_read_is_read_before_its_gate_goes() {
    model(All, "leaving a shared ring", || {
        let ring = ModelRing::new(false, 1, 0, 0u64);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = ring.consumer("t", false, Start::Earliest, park()).unwrap();
        put(&mut out).unwrap();
        let reading = thread::spawn(move || {
            let mut batch = tape.poll(1).unwrap();
            // Read, but not passed: only the entry tells that the consumer has gone.
            let value = *(&mut batch).into_iter().next().unwrap().1;
            std::mem::forget(batch);
            assert_eq!(value, value_of(Sequence(0)));
            drop(tape);
        });
        let _ = put(&mut out);
        reading.join().unwrap();
    });
}

/// A consumer joins a ring of one slot beside a consumer that reads, while the producer goes on.
/// Allowed: the newcomer starts at either event, or at the next. Forbidden: its first event is overwritten.
#[test]
fn a_newcomer_is_respected() {
    model_of_gates(Within(2), "joining a shared ring", || {
        let ring = ModelRing::new(false, 1, 0, 0u64);
        let mut out = ring.producer(park()).unwrap();
        let mut old = ring.consumer("o", false, Start::Earliest, park()).unwrap();
        put(&mut out).unwrap();
        let other = ring.clone();
        let joining = thread::spawn(move || {
            let mut new = other.consumer("n", false, Start::Earliest, park()).unwrap();
            get(&mut new, 1).unwrap();
            new
        });
        assert_eq!(get(&mut old, 1), Ok(1));
        let second = put(&mut out);
        let mut new = joining.join().unwrap();
        let at = new.position();
        if second.is_ok() && at == Sequence(1) {
            assert_eq!(get(&mut new, 1), Ok(1));
        }
        drop(old);
        drop(out);
    });
}

/// A consumer joins while a producer publishes two events into a ring of one slot that nobody reads.
/// Allowed: the newcomer starts anywhere. Forbidden: from its start on it misses an event.
#[test]
fn a_newcomer_without_others_is_respected() {
    model_of_gates(Within(1), "joining a shared ring that nobody reads", || {
        let ring = ModelRing::new(false, 1, 0, 0u64);
        let mut out = ring.producer(park()).unwrap();
        let other = ring.clone();
        let joining = thread::spawn(move || {
            let mut new = other.consumer("n", false, Start::Earliest, park()).unwrap();
            get(&mut new, 1).unwrap();
        });
        put(&mut out).unwrap();
        let _ = put(&mut out);
        joining.join().unwrap();
        drop(out);
    });
}

/// A consumer sleeps, and a producer publishes one event and stays.
/// Allowed: the consumer finds the event at its first or second look, or is woken. Forbidden: it sleeps on.
#[test]
fn a_sleeping_consumer_is_woken_by_a_publish() {
    model_of_sleep(Within(2), "a publish wakes a sleeping consumer of a shared ring", || {
        let ring = ModelRing::new(false, 1, 0, 0u64);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = ring.consumer("t", false, Start::Earliest, park()).unwrap();
        let reading = thread::spawn(move || {
            let mut batch = tape.poll_wait(1).unwrap();
            assert_eq!((&mut batch).into_iter().count(), 1);
            std::mem::drop(batch);
            tape
        });
        put(&mut out).unwrap();
        drop(reading.join().unwrap());
    });
}

/// A producer sleeps without room, and the consumer reads one event and stays.
/// Allowed: the producer finds room, or is woken. Forbidden: it sleeps on.
#[test]
fn a_sleeping_producer_is_woken_by_a_read() {
    model_of_sleep(Within(2), "a read wakes a sleeping producer of a shared ring", || {
        let ring = ModelRing::new(false, 1, 0, 0u64);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = ring.consumer("t", false, Start::Earliest, park()).unwrap();
        put(&mut out).unwrap();
        let writing = thread::spawn(move || {
            out.publish(|event| *event = value_of(Sequence(1))).unwrap();
            out
        });
        assert_eq!(get(&mut tape, 1), Ok(1));
        drop(writing.join().unwrap());
        assert_eq!(get(&mut tape, 1), Ok(1));
    });
}

/// A producer sleeps without room, and the only consumer leaves without having read.
/// Allowed: the producer finds room, or is woken. Forbidden: it sleeps on.
#[test]
fn a_sleeping_producer_is_woken_by_a_leaver() {
    model_of_sleep(Within(2), "a leaving consumer wakes a sleeping producer of a shared ring", || {
        let ring = ModelRing::new(false, 1, 0, 0u64);
        let mut out = ring.producer(park()).unwrap();
        let tape = ring.consumer("t", false, Start::Earliest, park()).unwrap();
        put(&mut out).unwrap();
        let writing = thread::spawn(move || {
            out.publish(|event| *event = value_of(Sequence(1))).unwrap();
            out
        });
        drop(tape);
        drop(writing.join().unwrap());
    });
}

/// A consumer sleeps, and the ring is closed.
/// Allowed: it sees the end, or is woken. Forbidden: it sleeps on.
#[test]
fn a_sleeping_consumer_hears_of_the_end() {
    model_of_sleep(Within(3), "the end wakes a sleeping consumer of a shared ring", || {
        let ring = ModelRing::new(false, 1, 0, 0u64);
        let mut tape = ring.consumer("t", false, Start::Earliest, park()).unwrap();
        let reading = thread::spawn(move || assert_eq!(tape.poll_wait(1).map(|_| ()), Err(Ended::Closed)));
        ring.close();
        reading.join().unwrap();
    });
}

/// A producer publishes while the ring is closed; afterwards its consumer reads to the end.
/// Allowed: the publish is acknowledged or refused. Forbidden: it is acknowledged, and not read.
#[test]
fn what_is_acknowledged_is_read_although_the_ring_is_closed() {
    model_of_sleep(Within(2), "closing a shared ring loses nothing that was acknowledged", || {
        let ring = ModelRing::new(false, 2, 0, 0u64);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = ring.consumer("t", false, Start::Earliest, park()).unwrap();
        let other = ring.clone();
        let closing = thread::spawn(move || other.close());
        let reading = thread::spawn(move || {
            let mut read = 0;
            // Settles the end itself, or waits for it.
            for _ in 0..2 {
                match get(&mut tape, 2) {
                    Ok(count) => read += count,
                    Err(_) => return (read, None),
                }
            }
            (read, Some(tape))
        });
        let acknowledged = put(&mut out).is_ok();
        closing.join().unwrap();
        let (mut read, tape) = reading.join().unwrap();
        if let Some(mut tape) = tape {
            while let Ok(count) = get(&mut tape, 2) {
                read += count;
            }
        }
        assert!(read == 1 || !acknowledged, "acknowledged, and not read");
        drop(out);
    });
}

/// A producer without room looks for the dead while the only consumer reads on, or dies.
/// Allowed: it waits for the living one, and takes the room of the dead one. Forbidden: it writes what the living one
/// reads.
#[test]
fn the_gate_of_the_dead_goes_and_that_of_the_living_stays() {
    model_of_gates(Within(3), "a dead consumer of a shared ring holds nobody", || {
        let ring = ModelRing::new(false, 1, 0, 0u64);
        let mut out = ring.producer(park()).unwrap();
        let mut living = ring.consumer("l", false, Start::Earliest, park()).unwrap();
        put(&mut out).unwrap();
        let reading = thread::spawn(move || {
            assert_eq!(get(&mut living, 1), Ok(1));
            living.die();
        });
        let _ = put(&mut out);
        reading.join().unwrap();
        assert!(ring.published().0 == 2 || put(&mut out).is_ok(), "a dead consumer holds the ring");
        drop(out);
    });
}

/// A consumer dies after a read, a newcomer frees its entry, and the producer takes the room.
/// Allowed: the producer finds the slot taken or free. Forbidden: it writes the slot before the read.
#[test]
fn what_the_dead_have_read_is_read_before_their_entry_is_freed() {
    model_of_gates(Within(2), "freeing the entry of a dead consumer of a shared ring", || {
        let ring = ModelRing::new(false, 1, 0, 0u64);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = ring.consumer("t", false, Start::Earliest, park()).unwrap();
        put(&mut out).unwrap();
        let other = ring.clone();
        let reading = thread::spawn(move || {
            let mut batch = tape.poll(1).unwrap();
            let value = *(&mut batch).into_iter().next().unwrap().1;
            std::mem::forget(batch);
            assert_eq!(value, value_of(Sequence(0)));
            tape.die();
            drop(other.consumer("n", false, Start::Latest, park()));
        });
        // Only the newcomer looks for the dead here.
        let _ = out.has_room();
        let _ = out.has_room().then(|| put(&mut out));
        reading.join().unwrap();
    });
}

/// A successor joins after its predecessor has died in the middle of its life.
/// Allowed: it goes on behind what was published. Forbidden: it overwrites an event that is being read.
#[test]
fn a_successor_goes_on_where_the_dead_one_was() {
    model_of_gates(Within(2), "a successor of a dead producer of a shared ring", || {
        let ring = ModelRing::new(false, 2, 0, 0u64);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = ring.consumer("t", false, Start::Earliest, park()).unwrap();
        let other = ring.clone();
        let working = thread::spawn(move || {
            put(&mut out).unwrap();
            out.die();
            let mut next = other.producer(park()).unwrap();
            put(&mut next).unwrap();
        });
        let read = get(&mut tape, 1).unwrap();
        working.join().unwrap();
        assert_eq!(read + get(&mut tape, 2).unwrap(), 2);
    });
}
