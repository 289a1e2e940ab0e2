//! The lossy ring: writers that never wait, readers that count exactly what they lost.
#![cfg(not(any(loom, shuttle)))]

use slipring_ring::{BuildError, Closed, LossyRing, LossyWriter, Multi, Sequence, Single, Start, Wait};
use std::time::{Duration, Instant};

/// Not a multiple of a word, so that the last word is a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, zerocopy::IntoBytes, zerocopy::FromBytes, zerocopy::Immutable)]
#[repr(C)]
struct Quote {
    bid: u32,
    ask: u32,
    size: u32,
}

impl Quote {
    fn of(value: u64) -> Self {
        let bid = value as u32;
        Self { bid, ask: bid.wrapping_mul(7), size: !bid }
    }
}

/// Near nothing, the end of the range, and where a stamp loses its topmost bits.
const STARTS: [u64; 5] = [0, 5, u64::MAX - 2, (1 << 62) - 3, (1 << 63) - 1];

#[test]
fn a_lapped_reader_counts_exactly_what_it_lost_wherever_the_ring_starts() {
    for first in STARTS {
        for capacity in [1, 2, 8] {
            for written in [0, 1, 2, 7, 8, 9, 50] {
                let (mut writer, ring) = LossyRing::start_at::<Single>(capacity, Sequence(first)).unwrap();
                let mut reader = ring.reader(Start::Earliest);
                for index in 0..written {
                    assert_eq!(writer.write(&Quote::of(index)), Sequence(first).plus(index));
                }
                let kept = written.min(capacity as u64);
                assert_eq!(reader.lag(), written);
                for index in written - kept..written {
                    assert_eq!(reader.read(), Ok(Some((Sequence(first).plus(index), Quote::of(index)))));
                    assert_eq!(reader.lost(), written - kept);
                }
                assert_eq!(reader.read(), Ok(None));
                assert_eq!((reader.lost(), reader.lag()), (written - kept, 0));
                drop(writer);
                assert_eq!(reader.read(), Err(Closed::Finished));
            }
        }
    }
}

#[test]
fn readers_start_where_they_ask() {
    let (mut writer, ring) = LossyRing::single(4).unwrap();
    (0..6).for_each(|index| {
        writer.write(&Quote::of(index));
    });
    assert_eq!(ring.reader(Start::Earliest).read().unwrap().unwrap().0.0, 2);
    assert_eq!(ring.reader(Start::Latest).read(), Ok(None));
    assert_eq!(ring.reader(Start::At(Sequence(4))).read().unwrap().unwrap().0.0, 4);
    let mut early = ring.reader(Start::At(Sequence(1)));
    assert_eq!(early.read().unwrap().unwrap().0.0, 2);
    assert_eq!(early.lost(), 1);
    let mut before_all = ring.reader(Start::At(Sequence(u64::MAX)));
    assert_eq!(before_all.read().unwrap().unwrap().0.0, 2);
    assert_eq!(before_all.lost(), 2, "what never was is not lost");
    let mut ahead = ring.reader(Start::At(Sequence(7)));
    assert_eq!(ahead.read(), Ok(None));
    writer.write(&Quote::of(6));
    assert_eq!(ahead.read(), Ok(None));
    writer.write(&Quote::of(7));
    assert_eq!(ahead.read().unwrap().unwrap().0.0, 7);
}

#[test]
fn a_capacity_that_cannot_be_is_refused() {
    for asked in [0, 3, usize::MAX, 1 << 50] {
        let refused = LossyRing::<u64>::single(asked).err().unwrap();
        assert!(matches!(refused, BuildError::Capacity { asked: told, .. } if told == asked), "{refused}");
    }
}

#[test]
fn events_of_any_size_arrive_whole() {
    fn check<T: slipring_ring::Plain + PartialEq + std::fmt::Debug>(events: [T; 2]) {
        let (mut writer, ring) = LossyRing::<T>::multi(2).unwrap();
        let mut reader = ring.reader(Start::Earliest);
        for event in &events {
            assert!(writer.write(event).is_some());
        }
        assert_eq!(reader.read().unwrap().unwrap().1, events[0]);
        assert_eq!(reader.read().unwrap().unwrap().1, events[1]);
    }
    check([(), ()]);
    check([1u8, 255]);
    check([[1u8; 9], [2; 9]]);
    check([[u64::MAX; 32], [7; 32]]);
    check([-1i128, i128::MAX]);
}

#[test]
fn waiting_ends_with_an_event_a_deadline_or_the_last_writer() {
    for wait in Wait::NAMES.map(|name| name.parse::<Wait>().unwrap()) {
        let (mut writer, ring) = LossyRing::<u64>::multi(4).unwrap();
        let mut reader = ring.reader(Start::Earliest);
        reader.set_wait(wait);
        assert_eq!(reader.read_until(Instant::now() + Duration::from_millis(2)), Ok(None));
        let second = writer.clone();
        std::thread::scope(|scope| {
            let got = scope.spawn(move || (reader.read_wait(), reader.read_wait()));
            writer.write(&7);
            drop((writer, second));
            assert_eq!(got.join().unwrap(), (Ok((Sequence(0), 7)), Err(Closed::Finished)));
        });
    }
}

/// So many that writers and readers meet in the middle of an event.
const WORDS: usize = 256;

/// Reads to the end; checks order and that nothing is torn; returns what was read and what was lost.
fn drain(ring: &LossyRing<[u64; WORDS]>, first: u64) -> (u64, u64) {
    let mut reader = ring.reader(Start::At(Sequence(first)));
    reader.set_wait(Wait::spin_yield());
    let (mut read, mut before) = (0, None);
    while let Ok((sequence, event)) = reader.read_wait() {
        assert!(event.iter().all(|word| *word == event[0]), "torn: {event:?}");
        assert!(before.is_none_or(|before| sequence.since(before) > 0));
        before = Some(sequence);
        read += 1;
        assert_eq!(sequence.since(Sequence(first)) as u64 + 1, read + reader.lost());
    }
    (read, reader.lost())
}

#[test]
fn under_load_what_is_read_and_what_is_lost_adds_up_to_what_was_written() {
    const EACH: u64 = 40_000;
    for (capacity, first) in [(1, u64::MAX - 1000), (2, (1 << 62) - 1000)] {
        let (mut writer, ring) = LossyRing::start_at::<Single>(capacity, Sequence(first)).unwrap();
        std::thread::scope(|scope| {
            let readers = [(); 2].map(|()| scope.spawn(|| drain(&ring, first)));
            scope.spawn(move || {
                (0..EACH).for_each(|value| {
                    writer.write(&[value; WORDS]);
                })
            });
            for reader in readers {
                let (read, lost) = reader.join().unwrap();
                assert_eq!(read + lost, EACH);
            }
        });

        let (writer, ring): (LossyWriter<_, Multi>, _) = LossyRing::start_at(capacity, Sequence(first)).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| drain(&ring, first));
            for mut writer in [writer.clone(), writer.clone(), writer] {
                scope.spawn(move || {
                    (0..EACH).for_each(|value| {
                        writer.write(&[value; WORDS]);
                    })
                });
            }
            let (read, lost) = reader.join().unwrap();
            assert_eq!(read + lost, 3 * EACH);
        });
    }
}
