//! Joining and leaving while producers write.

use crate::support::*;
use slipring_ring::{BuildError, Builder, Consumer, Kind, SeekError, Sequence, Stage, Start};

/// A stage joins a ring of one slot while its only producer wraps.
/// Allowed: it starts at any event and reads on from there. Forbidden: a write beside its read, a gap.
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

/// The same under two multi producers, of which each has a limit of its own.
/// Allowed and forbidden as before.
#[test]
fn a_newcomer_is_respected_by_two_producers() {
    model_of_gates(Mixed(1, Some(2)), "two producers respect a newcomer", || {
        let (mut one, ring) = multi(1, &[("reader", &[])]);
        put(&mut one, 1).unwrap();
        let mut two = one.clone();
        let old = reading(ring.consumer("reader").unwrap(), 1, 1);
        // They come back alive: a ring without producers takes no newcomer.
        let writing = thread::spawn(move || (put(&mut one, 1).is_ok(), one));
        let second = thread::spawn(move || (put(&mut two, 1).is_ok(), two));
        let mut late = ring.join("late").unwrap();
        get(&mut late, 1);
        let _producers = (writing.join().unwrap(), second.join().unwrap());
        count(old);
    });
}

/// A newcomer on a ring that nobody read so far: the floor alone held the producers.
/// Allowed: it starts at the floor or later. Forbidden: a write beside its read.
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

/// A newcomer that wants to begin where the ring began.
/// Allowed: it gets the first event, or the range that is kept. Forbidden: a read beside a write, another event.
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

/// A stage joins while somebody looks at the ring's positions.
/// Allowed: the set with the newcomer or without it. Forbidden: a set that is read while it is made.
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

/// A newcomer behind a stage.
/// Allowed: it reads what that stage has passed. Forbidden: ahead of it, a write beside its read.
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

/// A reader seeks back to what is retained while the producer wants that slot.
/// Allowed: it reads that event again, or is told the range and stays. Forbidden: a write beside its read, a gap.
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

/// The same under two multi producers, of which each has a limit of its own. What one of them has claimed before moves the
/// floor for the other one.
/// Allowed and forbidden as before.
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

/// A newcomer on a ring that retains an event which its reader has read: the lowest gate lies above what is kept.
/// Allowed: it starts at the retained event or later. Forbidden: a write beside its read, another event.
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

/// A slow reader asks for what is not kept any more.
/// Allowed: it is told the range, stays, and reads on where it stood. Forbidden: that this was overwritten meanwhile.
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

/// A reader seeks back to before a slot that is skipped.
/// Allowed: it is given what lies around that slot again. Forbidden: the skipped slot, whatever it knew before.
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

/// A reader leaves after it read; the producer takes the slot because the gate has gone.
/// Allowed: room before or after. Forbidden: a write beside the read that came before the leaving.
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

/// The same under two multi producers, of which each has a limit of its own.
/// Allowed and forbidden as before.
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
