//! Shared rings with several producers, and the heirs of dead ones: ring's own code for participants of different
//! processes, with the shared memory on the heap. A process dies when the model says so: its locks go, and it does
//! nothing more.

use crate::support::*;
use slipring_ring::shared::model::ModelRing;
use slipring_ring::shared::{Ended, PublishError, SharedClaim, SharedConsumer, SharedProducer};
use slipring_ring::{Sequence, Start};

fn ring(capacity: u64) -> ModelRing<u64> {
    ModelRing::new(true, capacity, 0, 0u64)
}

fn reader(ring: &ModelRing<u64>) -> SharedConsumer<u64> {
    ring.consumer("t", false, Start::Earliest, park()).unwrap()
}

fn fill<'c>(mut claim: SharedClaim<'c, u64>) -> SharedClaim<'c, u64> {
    claim.iter_mut().for_each(|(sequence, event)| *event = value_of(sequence));
    claim
}

fn put(producer: &mut SharedProducer<u64>, len: usize) -> Result<Sequence, PublishError> {
    Ok(fill(producer.try_claim(len)?).commit()?.first)
}

/// A producer that claims `len` slots, writes their events, and dies.
fn die_in_a_claim(ring: &ModelRing<u64>, len: usize) {
    let mut producer = ring.producer(park()).unwrap();
    fill(producer.try_claim(len).unwrap()).die();
    drop(producer);
}

/// A producer that announces the next `len` sequences, and dies before it claims them.
fn die_before_the_claim(ring: &ModelRing<u64>, len: u64) {
    let mut producer = ring.producer(park()).unwrap();
    producer.announce(len);
    producer.die();
}

/// Polls once, and checks that each event is the one that was published, in order. Returns their sequences.
fn get(consumer: &mut SharedConsumer<u64>, limit: usize) -> Result<Vec<u64>, Ended> {
    let mut next = consumer.position();
    let mut batch = consumer.poll(limit)?;
    let mut read = Vec::new();
    for (sequence, event) in &mut batch {
        assert!(sequence.since(next) >= 0, "sequences go back");
        assert_eq!(*event, value_of(sequence), "not what was written at {sequence}");
        next = sequence.plus(1);
        read.push(sequence.0);
    }
    Ok(read)
}

/// Two producers publish in a ring of one slot while its consumer reads.
/// Allowed: any interleaving. Forbidden: two events in one slot, or an event that is read while it is written.
#[test]
fn two_producers_never_share_a_slot() {
    model(Within(2), "two producers of a shared ring", || {
        let ring = ring(1);
        let (mut one, mut two) = (ring.producer(park()).unwrap(), ring.producer(park()).unwrap());
        let mut tape = reader(&ring);
        let writing = thread::spawn(move || {
            let _ = put(&mut one, 1);
            one
        });
        let _ = put(&mut two, 1);
        get(&mut tape, 1).unwrap();
        let _ = put(&mut two, 1);
        let one = writing.join().unwrap();
        get(&mut tape, 1).unwrap();
        drop(one);
    });
}

/// One of several producers publishes while the consumer reads.
/// Allowed: the event is read or not yet. Forbidden: it is read while it is written.
#[test]
fn what_one_of_several_publishes_is_read_whole() {
    model(All, "a stamp of a shared ring passes on its event", || {
        let ring = ring(2);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = reader(&ring);
        let writing = thread::spawn(move || {
            // Of one slot, since the fence of longer claims would order the event as well.
            put(&mut out, 1).unwrap();
            out
        });
        get(&mut tape, 1).unwrap();
        let out = writing.join().unwrap();
        get(&mut tape, 1).unwrap();
        drop(out);
    });
}

/// A producer publishes a claim of two slots, a second one claims the first of them again and stalls, and a third one
/// claims the second slot, without consumers. The third one may find the floor laps behind, and walk over the stamps
/// from that second slot on, in the middle of a claim.
/// Allowed: it gets the slot once the first claim is out. Forbidden: it writes the slot before it has acquired that.
#[test]
fn a_walk_may_begin_in_the_middle_of_a_claim() {
    model(Mixed(1, Some(2)), "each slot of a claim of a shared ring passes on what was written there", || {
        let ring = ring(2);
        let [mut one, mut two, mut three] = [(); 3].map(|()| ring.producer(park()).unwrap());
        let others = thread::spawn(move || {
            let is_first = put(&mut one, 2).is_ok();
            if is_first && two.has_room_among_several() {
                // Given up when its producer is dropped, below.
                std::mem::forget(two.try_claim(1));
            }
            (one, two)
        });
        // Without a look for the dead, whose locks would order the writes.
        let _ = three.has_room_among_several().then(|| put(&mut three, 1));
        drop((others.join().unwrap(), three));
    });
}

/// A producer publishes without consumers, somebody looks at the published position, and another producer claims the
/// slot again.
/// Allowed: it finds the slot taken or free. Forbidden: two producers write it at once.
#[test]
fn who_looks_at_what_is_published_passes_on_what_was_written() {
    model(Within(1), "the published position of a shared ring", || {
        let ring = ring(1);
        let (mut one, mut two) = (ring.producer(park()).unwrap(), ring.producer(park()).unwrap());
        let other = ring.clone();
        let writing = thread::spawn(move || {
            let _ = put(&mut one, 1);
            one
        });
        let looking = thread::spawn(move || assert!(other.published().0 <= 2));
        let _ = two.has_room_among_several().then(|| put(&mut two, 1));
        looking.join().unwrap();
        drop(writing.join().unwrap());
    });
}

/// A producer without consumers does not lap another one that still writes.
#[test]
fn without_consumers_no_producer_laps_another() {
    model(All, "the floor of a shared ring without consumers", || {
        let ring = ring(1);
        let (mut one, mut two) = (ring.producer(park()).unwrap(), ring.producer(park()).unwrap());
        let claim = one.try_claim(1).unwrap();
        assert!(matches!(two.try_claim(1).map(|_| ()), Err(PublishError::Full { .. })));
        fill(claim).commit().unwrap();
        put(&mut two, 1).unwrap();
    });
}

/// A consumer has read some laps, for which no producer looked at the published position.
#[test]
fn what_is_published_is_known_laps_later() {
    model(All, "the published position of a shared ring laps later", || {
        let ring = ring(2);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = reader(&ring);
        for lap in 0..5 {
            put(&mut out, 1).unwrap();
            assert_eq!(get(&mut tape, 1), Ok(vec![lap]));
        }
        assert_eq!(ring.published(), Sequence(5));
    });
}

/// A producer that is dead has announced what a living one claims and publishes, while a consumer looks for the dead.
/// Allowed: the events are read then or later. Forbidden: the living one's claim is skipped.
#[test]
fn no_living_claim_is_skipped() {
    model(Within(2), "an heir of a dead producer of a shared ring leaves the living alone", || {
        let ring = ring(2);
        let mut out = ring.producer(park()).unwrap();
        let tape = reader(&ring);
        die_before_the_claim(&ring, 1);
        let writing = thread::spawn(move || {
            put(&mut out, 1).unwrap();
            put(&mut out, 1).unwrap();
            out
        });
        tape.look_for_the_dead();
        let out = writing.join().unwrap();
        let mut tape = tape;
        assert_eq!(get(&mut tape, 2), Ok(vec![0, 1]), "a living claim was skipped");
        drop(out);
    });
}

/// A producer dies in a claim of `claimed` slots, another one died before it claimed `announced` from the same slot on, and a
/// living one publishes behind, while a consumer looks for the dead.
/// Allowed: the living one's event is read then or later. Forbidden: it is skipped, or the dead one's is not.
fn an_heir_skips(property: &str, announced: u64, claimed: usize) {
    model(Within(2), property, move || {
        let ring = ring(4);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = reader(&ring);
        die_before_the_claim_of_another(&ring, announced, claimed);
        let writing = thread::spawn(move || {
            put(&mut out, 1).unwrap();
            out
        });
        tape.look_for_the_dead();
        let out = writing.join().unwrap();
        tape.look_for_the_dead();
        let behind = claimed as u64;
        assert_eq!(get(&mut tape, 4), Ok(vec![behind]), "what was skipped is not the dead claim");
        assert_eq!(tape.position(), Sequence(behind + 1));
        drop(out);
    });
}

#[test]
fn an_heir_skips_what_the_dead_one_claimed_and_no_more() {
    an_heir_skips("the length of a dead claim of a shared ring", 2, 1);
}

#[test]
fn an_heir_skips_all_of_what_the_dead_one_claimed() {
    an_heir_skips("the length of a longer dead claim of a shared ring", 1, 2);
}

/// One producer announces `announced` sequences, another one claims `claimed` from there; both die.
fn die_before_the_claim_of_another(ring: &ModelRing<u64>, announced: u64, claimed: usize) {
    let (mut loser, mut owner) = (ring.producer(park()).unwrap(), ring.producer(park()).unwrap());
    loser.announce(announced);
    fill(owner.try_claim(claimed).unwrap()).die();
    drop(owner);
    loser.die();
}

/// A producer dies in the middle of its stamps while a consumer reads; then the consumer looks for the dead.
/// Allowed: nothing of the claim is read. Forbidden: a part of it is.
#[test]
fn a_death_between_two_stamps_divides_nothing() {
    model(Within(2), "a claim of a shared ring is read whole or not", || {
        let ring = ring(2);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = reader(&ring);
        let dying = thread::spawn(move || {
            fill(out.try_claim(2).unwrap()).die_in_its_stamps();
            out
        });
        assert_eq!(get(&mut tape, 2), Ok(vec![]));
        drop(dying.join().unwrap());
        tape.look_for_the_dead();
        assert_eq!((get(&mut tape, 2), tape.position()), (Ok(vec![]), Sequence(2)));
    });
}

/// A producer dies after its stamps, before it has cleared its announcement, and a consumer looks for the dead.
/// Allowed: its events are read. Forbidden: they are skipped.
#[test]
fn a_death_after_the_stamps_takes_nothing_back() {
    model(Within(2), "a stamped claim of a shared ring stays", || {
        let ring = ring(2);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = reader(&ring);
        let dying = thread::spawn(move || {
            fill(out.try_claim(2).unwrap()).die_stamped();
            drop(out);
        });
        tape.look_for_the_dead();
        dying.join().unwrap();
        tape.look_for_the_dead();
        assert_eq!(get(&mut tape, 2), Ok(vec![0, 1]));
        let next = ring.producer(park()).unwrap();
        drop(next);
    });
}

/// A producer dies behind a living one that has not finished, and others look for the dead before and after.
/// Allowed: the dead claim is skipped once the living one is out. Forbidden: it is never skipped.
#[test]
fn an_entry_stays_until_its_claim_is_settled() {
    model(Within(2), "a dead claim of a shared ring behind a living one", || {
        let ring = ring(4);
        let (mut slow, mut other) = (ring.producer(park()).unwrap(), ring.producer(park()).unwrap());
        let mut tape = reader(&ring);
        let claim = slow.try_claim(1).unwrap();
        die_in_a_claim(&ring, 1);
        let looking = thread::spawn(move || {
            other.look_for_the_dead();
            put(&mut other, 1).unwrap();
            other
        });
        fill(claim).commit().unwrap();
        let other = looking.join().unwrap();
        tape.look_for_the_dead();
        let mut read = get(&mut tape, 4).unwrap();
        read.extend(get(&mut tape, 4).unwrap());
        assert_eq!(read, [0, 2], "a dead claim holds the ring");
        drop(other);
    });
}

/// Two heirs of one dead claim at once, while a living producer publishes behind it.
/// Allowed: either skips it, or both leave it to the other. Forbidden: the living one's event is skipped, or the claim
/// holds the ring.
#[test]
fn two_heirs_agree() {
    model(Within(2), "two heirs of one claim of a shared ring", || {
        let ring = ring(2);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = reader(&ring);
        die_in_a_claim(&ring, 1);
        let other = ring.consumer("o", false, Start::Latest, park()).unwrap();
        let looking = thread::spawn(move || {
            other.look_for_the_dead();
            other
        });
        let published = put(&mut out, 1);
        tape.look_for_the_dead();
        let other = looking.join().unwrap();
        tape.look_for_the_dead();
        let expected = published.map_or_else(|_| vec![], |at| vec![at.0]);
        assert_eq!(get(&mut tape, 2), Ok(expected));
        drop((out, other));
    });
}

/// A consumer sleeps behind a dead claim, and somebody else skips it.
/// Allowed: the consumer gets the event behind the claim at its first or second look, or is woken. Forbidden: it sleeps
/// on.
#[test]
fn an_heir_wakes_those_who_sleep_behind_the_claim() {
    model_of_sleep(Within(2), "a skipped claim wakes a sleeping consumer of a shared ring", || {
        let ring = ring(2);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = reader(&ring);
        die_in_a_claim(&ring, 1);
        put(&mut out, 1).unwrap();
        let reading = thread::spawn(move || {
            let mut batch = tape.poll_wait(1).unwrap();
            assert_eq!((&mut batch).into_iter().count(), 1);
            drop(batch);
            tape
        });
        out.look_for_the_dead();
        drop(reading.join().unwrap());
    });
}

/// A consumer sleeps, and one of several producers drops a claim; the producer then sleeps without room, until the
/// consumer passes the skipped slot.
/// Allowed: both go on at their first or second look, or are woken. Forbidden: one of them sleeps on.
#[test]
fn skipped_slots_are_given_back() {
    model_of_sleep(Within(2), "skipped slots of a shared ring are given back", || {
        let ring = ring(1);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = reader(&ring);
        let reading = thread::spawn(move || {
            let mut batch = tape.poll_wait(1).unwrap();
            assert_eq!((&mut batch).into_iter().map(|(at, _)| at.0).collect::<Vec<_>>(), [1]);
            drop(batch);
            tape
        });
        drop(out.try_claim(1).unwrap());
        out.publish(|event| *event = value_of(Sequence(1))).unwrap();
        drop(reading.join().unwrap());
    });
}

/// A producer sleeps without room, first behind a consumer, and then behind another producer.
/// Allowed: it finds room, or is woken, once both are out of the way. Forbidden: it sleeps on.
#[test]
fn a_sleeper_is_woken_by_what_holds_it_up_now() {
    model_of_sleep(Within(2), "a producer of a shared ring sleeps at the right bell", || {
        let ring = ring(1);
        let (mut one, mut two) = (ring.producer(park()).unwrap(), ring.producer(park()).unwrap());
        let tape = reader(&ring);
        let claim = one.try_claim(1).unwrap();
        let writing = thread::spawn(move || {
            two.publish(|event| *event = value_of(Sequence(1))).unwrap();
            two
        });
        let leaving = thread::spawn(move || drop(tape));
        fill(claim).commit().unwrap();
        leaving.join().unwrap();
        drop(writing.join().unwrap());
    });
}

/// A consumer joins while one of several producers publishes two events into a ring of one slot that nobody reads.
/// Allowed: the newcomer starts anywhere. Forbidden: from its start on it misses an event.
#[test]
fn a_newcomer_is_respected_by_several() {
    model_of_gates(Within(1), "joining a shared ring of several producers", || {
        let ring = ring(1);
        let mut out = ring.producer(park()).unwrap();
        let other = ring.clone();
        let joining = thread::spawn(move || {
            let mut new = other.consumer("n", false, Start::Earliest, park()).unwrap();
            get(&mut new, 1).unwrap();
        });
        put(&mut out, 1).unwrap();
        let _ = out.has_room_among_several().then(|| put(&mut out, 1));
        joining.join().unwrap();
        drop(out);
    });
}

/// One of several producers publishes while the ring is closed; afterwards its consumer reads to the end.
/// Allowed: the publish is acknowledged or refused. Forbidden: it is acknowledged, and not read, or the end is not told.
#[test]
fn what_is_acknowledged_is_read_although_the_ring_is_closed() {
    model_of_sleep(Within(2), "closing a shared ring of several producers loses nothing", || {
        let ring = ring(2);
        let mut out = ring.producer(park()).unwrap();
        let mut tape = reader(&ring);
        let other = ring.clone();
        let closing = thread::spawn(move || other.close());
        let acknowledged = put(&mut out, 1).is_ok();
        closing.join().unwrap();
        let read = get(&mut tape, 2);
        let read = read.map_or(0, |read| read.len());
        assert!(read == 1 || !acknowledged, "acknowledged, and not read");
        assert_eq!(get(&mut tape, 2), Err(Ended::Closed));
        drop(out);
    });
}
