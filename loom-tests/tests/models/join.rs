//! Joining and leaving while producers write.

use crate::support::*;
use slipring_ring::{BuildError, Builder, Consumer, Kind, SeekError, Sequence, Stage, Start};

/// A stage joins a ring of one slot while its only producer wraps around.
/// Allowed: it starts at any event and continues from there. Forbidden: a write during its read, a gap.
#[test]
fn a_newcomer_reads_on_from_where_it_starts() {
    model_of_gates(Mixed(2, Some(4)), "nothing is overwritten from where a newcomer starts", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        let old = reading(ring.consumer("reader").unwrap(), 1, 1);
        let joining = thread::spawn(move || {
            let mut late = ring.join("late").unwrap();
            (get(&mut late, 1), late)
        });
        put(&mut producer, 1).unwrap();
        let _ = put(&mut producer, 1);
        let (_, late) = joining.join().unwrap();
        assert!(late.consumed().since(Sequence(0)) >= 0);
        count(old);
    });
}

/// A stage joins a ring of one slot while two multi producers, each with a limit of its own, wrap around.
/// Allowed: it starts at any event and continues from there. Forbidden: a write during its read, a gap.
#[test]
fn a_newcomer_is_respected_by_two_producers() {
    model_of_gates(Mixed(1, Some(2)), "two producers respect a newcomer", || {
        let (mut one, ring) = multi(1, &[("reader", &[])]);
        put(&mut one, 1).unwrap();
        let mut two = one.clone();
        let old = reading(ring.consumer("reader").unwrap(), 1, 1);
        // The threads return the producers, because a ring without producers accepts no newcomer.
        let writing = thread::spawn(move || (put(&mut one, 1).is_ok(), one));
        let second = thread::spawn(move || (put(&mut two, 1).is_ok(), two));
        let mut late = ring.join("late").unwrap();
        get(&mut late, 1);
        let _producers = (writing.join().unwrap(), second.join().unwrap());
        count(old);
    });
}

/// A stage joins a ring without stages, whose producers only the floor limited.
/// Allowed: it starts at the floor or later. Forbidden: a write during its read.
#[test]
fn the_first_stage_may_come_late() {
    model_of_gates(Mixed(1, Some(2)), "a first stage joins two producers that were held by the floor alone", || {
        let (mut one, ring) = multi(1, &[]);
        let mut two = one.clone();
        let writing = thread::spawn(move || (put(&mut one, 1).is_ok(), one));
        let second = thread::spawn(move || (put(&mut two, 1).is_ok(), two));
        let mut late = ring.join("late").unwrap();
        get(&mut late, 1);
        let _producers = (writing.join().unwrap(), second.join().unwrap());
    });
}

/// A stage joins with the ring's first sequence as its start.
/// Allowed: it gets the first event, or an error with the kept range. Forbidden: a read during a write, another event.
#[test]
fn a_newcomer_gets_what_it_asked_for_or_the_range() {
    model_of_gates(Within(3), "a start that is not kept any more is refused", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        put(&mut producer, 1).unwrap();
        let old = reading(ring.consumer("reader").unwrap(), 1, 1);
        let joining = thread::spawn(move || match ring.join(Stage::new("late").start(Start::At(Sequence(0)))) {
            Ok(mut late) => {
                assert_eq!(get(&mut late, 1), 1);
                Some(late)
            }
            Err(BuildError::OutOfRange { earliest, .. }) => {
                assert_eq!(earliest, Sequence(1));
                None
            }
            Err(other) => panic!("{other}"),
        });
        let _ = put(&mut producer, 1);
        joining.join().unwrap();
        count(old);
    });
}

/// A stage joins while another thread reads the ring's positions.
/// Allowed: the set with the newcomer or without it. Forbidden: a set that is read while it is being built.
#[test]
fn who_looks_at_the_positions_sees_a_whole_set() {
    model_of_gates(Within(3), "a look at the positions takes a whole set", || {
        let (_producer, ring) = single(1, &[]);
        let ring = std::sync::Arc::new(ring);
        let other = std::sync::Arc::clone(&ring);
        let joining = thread::spawn(move || other.join("late").unwrap());
        assert!(ring.positions().stages.len() <= 1);
        joining.join().unwrap();
    });
}

/// A stage joins after another stage.
/// Allowed: it reads only what that stage has passed. Forbidden: it reads more, or a write during its read.
#[test]
fn a_newcomer_may_stand_behind_a_stage() {
    model_of_gates(Within(3), "a newcomer stands behind a stage from its first event", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        put(&mut producer, 1).unwrap();
        let old = reading(ring.consumer("reader").unwrap(), 1, 1);
        let joining = thread::spawn(move || {
            let mut late = ring.join(Stage::new("late").after(["reader"])).unwrap();
            let read = get(&mut late, 1);
            (read, late)
        });
        let _ = put(&mut producer, 1);
        let (_read, late) = joining.join().unwrap();
        let (_, old) = old.join().unwrap();
        assert!(old.consumed().since(late.consumed()) >= 0 || late.consumed() == late.first());
    });
}

/// A reader seeks back to a retained event while the producer needs its slot.
/// Allowed: it reads that event again, or gets the kept range and stays. Forbidden: a write during its read, a gap.
#[test]
fn a_seek_back_gets_what_it_asked_for_or_the_range() {
    model_of_gates(Within(3), "a seek back is as safe as a join", || {
        let mut builder = Builder::single(2, || 0);
        builder.retain(1);
        let (mut producer, ring) = declare(builder, &[("reader", &[])]).build().unwrap();
        put(&mut producer, 1).unwrap();
        let mut reader = ring.consumer("reader").unwrap();
        assert_eq!(get(&mut reader, 1), 1);
        let seeking = thread::spawn(move || {
            seek_to_the_first(&mut reader);
            reader
        });
        let _ = put(&mut producer, 1);
        let _ = put(&mut producer, 1);
        seeking.join().unwrap();
    });
}

/// A reader seeks back to a retained event while two multi producers, each with a limit of its own, need slots. A
/// publish of one producer raises the floor for the other.
/// Allowed: it reads that event again, or gets the kept range and stays. Forbidden: a write during its read, a gap.
#[test]
fn a_seek_back_is_respected_by_two_producers() {
    model_of_gates(Mixed(1, Some(2)), "two producers respect a seek back", || {
        let mut builder = Builder::multi(2, || 0);
        builder.retain(1);
        let (mut one, ring) = declare(builder, &[("reader", &[])]).build().unwrap();
        put(&mut one, 1).unwrap();
        let mut two = one.clone();
        let mut reader = ring.consumer("reader").unwrap();
        assert_eq!(get(&mut reader, 1), 1);
        let claim = one.try_claim(1).unwrap();
        let second = thread::spawn(move || (put(&mut two, 1).is_ok(), two));
        let seeking = thread::spawn(move || {
            seek_to_the_first(&mut reader);
            reader
        });
        assert!(fill(claim).is_ok());
        let _others = (second.join().unwrap(), seeking.join().unwrap());
    });
}

/// A stage joins a ring with a retained event that its reader has read already, so the lowest gate is above the kept
/// events.
/// Allowed: it starts at the retained event or later. Forbidden: a write during its read, another event.
#[test]
fn a_newcomer_is_pinned_no_higher_than_what_is_retained() {
    model_of_gates(
        Within(3),
        "a newcomer that starts at what is retained is respected from the moment it is shown",
        || {
            let mut builder = Builder::single(2, || 0);
            builder.retain(1);
            let (mut producer, ring) = declare(builder, &[("reader", &[])]).build().unwrap();
            put(&mut producer, 1).unwrap();
            put(&mut producer, 1).unwrap();
            let mut reader = ring.consumer("reader").unwrap();
            get(&mut reader, 2);
            let joining = thread::spawn(move || {
                let mut late = ring.join("late").unwrap();
                (get(&mut late, 1), late)
            });
            let _ = put(&mut producer, 1);
            let _ = put(&mut producer, 1);
            let _late = joining.join().unwrap();
        },
    );
}

/// A slow reader seeks back to an event that is no longer kept.
/// Allowed: it gets the kept range, stays, and reads on from its position. Forbidden: its next event is overwritten
/// meanwhile.
#[test]
fn a_seek_back_that_is_refused_keeps_the_gate() {
    model_of_gates(Within(3), "the old gate stands until the new one is shown", || {
        let (mut producer, ring) = single(2, &[("reader", &[])]);
        put(&mut producer, 1).unwrap();
        let mut reader = ring.consumer("reader").unwrap();
        assert_eq!(get(&mut reader, 1), 1);
        put(&mut producer, 1).unwrap();
        put(&mut producer, 1).unwrap();
        let seeking = thread::spawn(move || {
            assert!(matches!(reader.seek(Sequence(0)), Err(SeekError::OutOfRange { .. })));
            assert_eq!(reader.consumed(), Sequence(1));
            (get(&mut reader, 1), reader)
        });
        let _ = put(&mut producer, 1);
        assert_eq!(seeking.join().unwrap().0, 1);
    });
}

/// A reader seeks back to an event before a skipped slot.
/// Allowed: it gets the events before and after the slot again. Forbidden: it gets the skipped slot, because of what it
/// knew before.
#[test]
fn a_seek_back_forgets_what_was_known() {
    model_of_gates(Within(2), "no skipped slot is given after a seek back", || {
        let mut builder = Builder::multi(4, || 0);
        builder.retain(3);
        let (mut producer, ring) = declare(builder, &[("reader", &[])]).build().unwrap();
        put(&mut producer, 1).unwrap();
        drop(producer.try_claim(1).unwrap());
        put(&mut producer, 1).unwrap();
        let mut reader = ring.consumer("reader").unwrap();
        assert_eq!((get_some(&mut reader, 9), get_some(&mut reader, 1)), (1, 1));
        let seeking = thread::spawn(move || {
            let (back, kept) = (reader.seek(Sequence(0)), reader.consumed());
            assert_eq!(kept, Sequence(if back.is_ok() { 0 } else { 3 }));
            (2 * u64::from(back.is_ok()), get_some(&mut reader, 9) + get_some(&mut reader, 1), reader)
        });
        let _ = put(&mut producer, 1);
        let (expected, read, _reader) = seeking.join().unwrap();
        assert!(read >= expected);
    });
}

fn seek_to_the_first<K: Kind>(reader: &mut Consumer<u64, K>) {
    match reader.seek(Sequence(0)) {
        Ok(()) => assert_eq!(get(reader, 1), 1),
        Err(SeekError::OutOfRange { earliest, .. }) => {
            assert!(earliest.0 > 0);
            assert_eq!(reader.consumed(), Sequence(1));
            get(reader, 1);
        }
        Err(other) => panic!("{other}"),
    }
}

/// A reader leaves after it read, and the producer takes the slot because the gate has left.
/// Allowed: room before or after the reader left. Forbidden: a write during the read.
#[test]
fn what_a_leaver_read_is_read_before_its_gate_goes() {
    model_of_gates(All, "a gate goes after the reads behind it", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        put(&mut producer, 1).unwrap();
        let mut reader = ring.consumer("reader").unwrap();
        let leaving = thread::spawn(move || {
            let mut batch = reader.poll(1).unwrap();
            assert_eq!(*(&mut batch).into_iter().next().unwrap().1, 7);
        });
        let _ = put(&mut producer, 1);
        leaving.join().unwrap();
        put(&mut producer, 1).unwrap_or_else(|_| panic!("no room though nobody gates"));
    });
}

/// A reader leaves after it read, and two multi producers, each with a limit of its own, need its slot.
/// Allowed: room before or after the reader left. Forbidden: a write during the read.
#[test]
fn what_a_leaver_read_is_read_before_two_producers_write() {
    model_of_gates(Mixed(1, Some(2)), "two producers take the slot of one that left after its reads", || {
        let (mut one, ring) = multi(1, &[("reader", &[])]);
        put(&mut one, 1).unwrap();
        let mut two = one.clone();
        let mut reader = ring.consumer("reader").unwrap();
        let leaving = thread::spawn(move || {
            let mut batch = reader.poll(1).unwrap();
            assert_eq!(*(&mut batch).into_iter().next().unwrap().1, value_of(Sequence(0)));
        });
        let writing = thread::spawn(move || (put(&mut one, 1).is_ok(), one));
        let _ = put(&mut two, 1);
        leaving.join().unwrap();
        let (_, mut one) = writing.join().unwrap();
        put(&mut one, 1).unwrap_or_else(|_| panic!("no room though nobody gates"));
    });
}
