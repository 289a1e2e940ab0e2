//! The lossy ring: no event is torn, every lost event is counted, and no writer waits.

use crate::support::*;
use slipring_ring::{Closed, LossyReader, LossyRing, Multi, Sequence, Single, Start};

/// Two words, so that a torn event can be detected.
type Event = [u64; 2];

const fn event_of(sequence: u64) -> Event {
    [sequence.wrapping_mul(2).wrapping_add(1), sequence.wrapping_mul(2).wrapping_add(2)]
}

/// Reads once, and checks that the event is whole and has its sequence's value. Returns the count of events, 0 or 1.
fn read(reader: &mut LossyReader<Event>) -> Result<u64, Closed> {
    Ok(match reader.read()? {
        Some((sequence, event)) => {
            assert_eq!(event, event_of(sequence.0), "torn, or of another sequence than {sequence}");
            1
        }
        None => 0,
    })
}

/// Reads to the end. Returns the count of events.
fn drain(reader: &mut LossyReader<Event>) -> u64 {
    let mut count = 0;
    while let Ok(more) = read(reader) {
        count += more;
        assert!(more == 1, "the writers have gone, so nothing can be missing");
    }
    count
}

/// A writer writes two events into one slot while a reader reads.
/// Allowed: either of the events, whole, in order. Forbidden: a torn event, or an event with another's sequence.
#[test]
fn nothing_is_torn() {
    model(Mixed(4, None), "no reader gets half an event", || {
        let (mut writer, ring) = LossyRing::<Event>::single(1).unwrap();
        let mut reader = ring.reader(Start::Earliest);
        let reading = thread::spawn(move || read(&mut reader));
        for sequence in 0..2 {
            writer.write(&event_of(sequence));
        }
        let _ = reading.join().unwrap();
    });
}

/// A writer writes three events into two slots, and the reader reads to the end.
/// Allowed: any events in order. Forbidden: the counts of read and lost events do not add up to the written ones.
#[test]
fn what_is_lost_is_counted() {
    model(Mixed(4, None), "read and lost together are what was written", || {
        let (mut writer, ring) = LossyRing::<Event>::single(2).unwrap();
        let mut reader = ring.reader(Start::Earliest);
        let reading = thread::spawn(move || (read(&mut reader).unwrap_or(0), reader));
        for sequence in 0..3 {
            writer.write(&event_of(sequence));
        }
        drop(writer);
        let (count, mut reader) = reading.join().unwrap();
        assert_eq!(count + drain(&mut reader) + reader.lost(), 3);
    });
}

/// The last writer is dropped while a reader looks.
/// Allowed: the event, then the end. Forbidden: the end before the event.
#[test]
fn the_end_comes_after_the_last_event() {
    model(All, "the end comes after the last event", || {
        let (mut writer, ring) = LossyRing::<Event>::single(1).unwrap();
        let mut reader = ring.reader(Start::Earliest);
        let writing = thread::spawn(move || {
            writer.write(&event_of(0));
        });
        match read(&mut reader) {
            Ok(count) => assert_eq!(count + drain_when(writing, &mut reader), 1),
            Err(end) => panic!("assertion: {end} before the event"),
        }
    });
}

fn drain_when(writing: thread::JoinHandle<()>, reader: &mut LossyReader<Event>) -> u64 {
    writing.join().unwrap();
    drain(reader)
}

/// Two writers write different events into one slot at once, and a reader looks.
/// Allowed: one of them drops its event, which counts as lost. Forbidden: a mixture of both, a wrong count.
#[test]
fn two_writers_never_mix() {
    model(Within(3), "events of two writers in one slot never mix", || {
        let (mut one, ring) = LossyRing::<Event>::multi(1).unwrap();
        let mut two = one.clone();
        let mut reader = ring.reader(Start::Earliest);
        let first = thread::spawn(move || one.write(&[1, 2]));
        let second = thread::spawn(move || two.write(&[3, 4]));
        let mut found = Vec::new();
        found.extend(reader.read().ok().flatten());
        let (first, second) = (first.join().unwrap(), second.join().unwrap());
        while let Ok(Some(event)) = reader.read() {
            found.push(event);
        }
        let written = [first.map(|at| (at, [1, 2])), second.map(|at| (at, [3, 4]))];
        assert!(found.iter().all(|event| written.contains(&Some(*event))), "{found:?} of {written:?}");
        assert!(written.iter().any(Option::is_some), "neither wrote");
        assert_eq!(found.len() as u64 + reader.lost(), 2);
    });
}

/// Two writers write different events into one slot, and then a reader reads.
/// Allowed: the event with the highest sequence that was not dropped. Forbidden: words of the earlier event in it.
#[test]
fn the_later_writer_stays() {
    model(Within(3), "words of an earlier lap never stay under a later stamp", || {
        let (mut one, ring) = LossyRing::<Event>::multi(1).unwrap();
        let mut two = one.clone();
        let mut reader = ring.reader(Start::Earliest);
        let writing = thread::spawn(move || (one.write(&[1, 2]), one));
        let second = two.write(&[3, 4]);
        let (first, _one) = writing.join().unwrap();
        let event_at = |at: Option<Sequence>, event: Event| at.map(|at| (at, event));
        let expected = [event_at(first, [1, 2]), event_at(second, [3, 4])];
        while let Ok(Some(found)) = reader.read() {
            assert!(expected.contains(&Some(found)), "{found:?} of {expected:?}");
        }
        assert_eq!(reader.position(), Sequence(2));
    });
}

/// The first sequence is `u64::MAX`, or the last one before stamps lose their highest bits.
/// Allowed: as without the wrap-around. Forbidden: a stamp that compares the wrong way round.
#[test]
fn stamps_go_on_across_the_end_of_the_range() {
    for first in [u64::MAX, (1 << 62) - 1] {
        model(Mixed(3, None), "stamps compare across the end of the range", move || {
            let (mut writer, ring) = LossyRing::<Event>::start_at::<Single>(1, Sequence(first)).unwrap();
            let mut reader = ring.reader(Start::Earliest);
            let reading = thread::spawn(move || (read(&mut reader).unwrap_or(0), reader));
            for at in [first, first.wrapping_add(1)] {
                writer.write(&event_of(at));
            }
            drop(writer);
            let (count, mut reader) = reading.join().unwrap();
            assert_eq!(count + drain(&mut reader) + reader.lost(), 2);
        });
    }
}

/// Two writers write three laps. A writer that is overtaken by a lap drops its event.
/// Allowed: a slot without an event for a lap. Forbidden: an event that comes back under a stamp that was seen before.
#[test]
fn a_writer_that_was_overtaken_leaves_nothing() {
    model(Within(2), "a writer that was overtaken leaves a slot with nothing to read", || {
        let (mut one, ring) = LossyRing::<Event>::multi(1).unwrap();
        let mut two: slipring_ring::LossyWriter<Event, Multi> = one.clone();
        let mut reader = ring.reader(Start::Earliest);
        let writing = thread::spawn(move || (one.write(&[1, 2]), one.write(&[1, 2]), one));
        let second = two.write(&[1, 2]);
        let mut count = 0;
        while let Ok(Some((_, event))) = reader.read() {
            assert_eq!(event, [1, 2], "half an event");
            count += 1;
        }
        let (first, third, _one) = writing.join().unwrap();
        while let Ok(Some((_, event))) = reader.read() {
            assert_eq!(event, [1, 2], "half an event");
            count += 1;
        }
        let written = [first, second, third].iter().flatten().count() as u64;
        assert!(count <= written);
        assert_eq!(count + reader.lost(), 3);
    });
}
