//! Claims in all their forms, with one producer and with several, from anywhere in the range of sequences.
#![cfg(not(any(loom, shuttle)))]

mod common;

use common::{LONG, STARTS, at_once, quiet_panic, run, soon};
use slipring_ring::{Builder, ClaimError, Closed, Consumer, Kind, Multi, Producer, Ring, Sequence, Single, Stage};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// One test body for both kinds of producer.
macro_rules! both_kinds {
    ($(#[doc = $story:literal])* $name:ident, $check:ident) => {
        $(#[doc = $story])*
        #[test]
        fn $name() {
            for first in STARTS {
                $check::<Single>(|capacity| Builder::single(capacity, || 0), first);
                $check::<Multi>(|capacity| Builder::multi(capacity, || 0), first);
            }
        }
    };
}

fn ring<K: Kind>(mut builder: Builder<u64, K>, first: u64) -> (Producer<u64, K>, Ring<u64, K>, Consumer<u64, K>) {
    builder.start_at(Sequence(first)).poll("tape");
    let (producer, ring) = builder.build().unwrap();
    let tape = ring.consumer("tape").unwrap();
    (producer, ring, tape)
}

fn read<K: Kind>(tape: &mut Consumer<u64, K>) -> Vec<(Sequence, u64)> {
    (&mut tape.poll(usize::MAX).unwrap()).into_iter().map(|(sequence, event)| (sequence, *event)).collect()
}

both_kinds!(
    /// A claim larger than the ring once waited for ever, and one of `usize::MAX` turned the position back: a data
    /// race from safe code. Both are errors that say what is possible, before anything is claimed.
    impossible_claims_are_refused_by_name,
    refuse_impossible_claims
);
fn refuse_impossible_claims<K: Kind>(build: fn(usize) -> Builder<u64, K>, first: u64) {
    for (capacity, retain) in [(1, 0), (4, 0), (4, 3)] {
        let mut builder = build(capacity);
        builder.retain(retain);
        let (mut producer, ring, _tape) = ring(builder, first);
        let largest = capacity - retain;
        let before = ring.positions();
        let soon = Instant::now() + LONG;
        assert_eq!(producer.try_claim(0).err(), Some(ClaimError::Nothing));
        assert_eq!(producer.claim(0).err(), Some(ClaimError::Nothing));
        assert_eq!(producer.claim_until(0, soon).err(), Some(ClaimError::Nothing));
        assert_eq!(producer.publish_batch(0, |_, _| unreachable!()), Err(ClaimError::Nothing));
        for asked in [largest + 1, capacity + 1, 1 << 41, usize::MAX] {
            let refused = Some(ClaimError::TooLarge { asked, largest });
            assert_eq!(producer.try_claim(asked).err(), refused);
            assert_eq!(producer.claim(asked).err(), refused);
            assert_eq!(producer.claim_until(asked, soon).err(), refused);
            assert_eq!(producer.publish_batch(asked, |_, _| unreachable!()).err(), refused);
            assert_eq!(producer.try_publish_batch(asked, |_, _| unreachable!()).err(), refused);
        }
        assert_eq!(ring.positions(), before);
        assert_eq!(producer.claim(largest).unwrap().commit().unwrap().len, largest);
    }
}

both_kinds!(
    /// A claim that came first and waited afterwards made the position overshoot the capacity, and the remaining
    /// capacity negative. Here a refused claim moves nothing, however often it is tried.
    a_full_ring_refuses_and_moves_nothing,
    refuse_when_full
);
fn refuse_when_full<K: Kind>(build: fn(usize) -> Builder<u64, K>, first: u64) {
    for capacity in [1u64, 2, 8] {
        let (mut producer, ring, mut tape) = ring(build(capacity as usize), first);
        for round in 0..3 {
            let begin = Sequence(first).plus(round * capacity);
            assert_eq!(producer.claim(capacity as usize).unwrap().commit().unwrap().first, begin);
            for _ in 0..3 {
                assert_eq!(producer.try_claim(1).err(), Some(ClaimError::Full));
                assert_eq!(producer.try_publish(|_| unreachable!()), Err(ClaimError::Full));
                let refused = producer.try_send(77).unwrap_err();
                assert_eq!((refused.value, refused.reason), (77, ClaimError::Full));
                let refused = producer.claim_until(1, Instant::now() + Duration::from_millis(1)).err();
                assert_eq!(refused, Some(ClaimError::TimedOut { by: Some("tape".into()) }));
            }
            let positions = ring.positions();
            assert_eq!((positions.fill, positions.free), (capacity, 0));
            assert_eq!(positions.claimed, begin.plus(capacity));
            assert_eq!(positions.stages[0].lag, capacity);
            assert_eq!(read(&mut tape).len() as u64, capacity);
        }
    }
}

both_kinds!(
    /// An off-by-one in a published range, or a stale gate after a batch, shows here: batches of every length, filled
    /// by index, arrive whole and in order round after round.
    batches_of_every_length_arrive_whole,
    arrive_whole
);
fn arrive_whole<K: Kind>(build: fn(usize) -> Builder<u64, K>, first: u64) {
    let capacity = 8;
    let (mut producer, _ring, mut tape) = ring(build(capacity), first);
    let mut next = Sequence(first);
    for round in 0..4u64 {
        for len in 1..=capacity {
            let value = |index: usize| round * 1000 + len as u64 * 10 + index as u64;
            let batch = producer.publish_batch(len, |index, event| *event = value(index)).unwrap();
            assert_eq!((batch.first, batch.len, batch.next()), (next, len, next.plus(len as u64)));
            let expected: Vec<_> = batch.iter().enumerate().map(|(index, at)| (at, value(index))).collect();
            assert_eq!(read(&mut tape), expected);
            next = batch.next();
        }
    }
}

#[test]
fn a_dropped_claim_of_a_single_producer_never_happened() {
    for first in STARTS {
        let (mut producer, ring, mut tape) = ring(Builder::single(4, || 0), first);
        for round in 0..6 {
            let mut claim = producer.claim(3).unwrap();
            claim.iter_mut().for_each(|(_, event)| *event = 999);
            drop(claim);
            assert_eq!(ring.positions().claimed, Sequence(first).plus(round));
            assert!(read(&mut tape).is_empty());
            assert_eq!(producer.publish(|event| *event = round).unwrap(), Sequence(first).plus(round));
            assert_eq!(read(&mut tape), [(Sequence(first).plus(round), round)]);
        }
    }
}

/// A hole in the sequences once stalled every consumer for ever. Here a dropped claim's slots are passed over, wherever
/// they stand in a batch, and the slots of the lap before are not taken for them.
#[test]
fn a_dropped_claim_of_a_multi_producer_is_skipped_by_every_stage() {
    for first in STARTS {
        let mut builder = Builder::multi(4, || 0);
        builder.start_at(Sequence(first)).poll("first").poll(slipring_ring::Stage::new("second").after(["first"]));
        let (mut producer, ring) = builder.build().unwrap();
        let (mut a, mut b) = (ring.consumer("first").unwrap(), ring.consumer("second").unwrap());
        let mut at = Sequence(first);
        for round in 0..5 {
            drop(producer.claim(1).unwrap());
            producer.publish(|event| *event = round).unwrap();
            drop(producer.claim(2).unwrap());
            let expected = [(at.plus(1), round)];
            assert_eq!(a.poll(9).unwrap().len(), 1, "a batch lends events only");
            assert_eq!(read(&mut a), expected);
            assert_eq!(read(&mut b), expected);
            // The slots behind the event are passed by the next poll.
            assert!(read(&mut a).is_empty() && read(&mut b).is_empty());
            at = at.plus(4);
            assert_eq!((a.consumed(), b.consumed(), ring.positions().fill), (at, at, 0));
            drop(producer.claim(4).unwrap());
            assert!(read(&mut a).is_empty() && read(&mut b).is_empty());
            at = at.plus(4);
            assert_eq!((a.consumed(), b.consumed()), (at, at));
        }
    }
}

both_kinds!(
    /// A closure that panicked in the middle of a fill left a hole: consumers stalled, and drop joined for ever. Here
    /// nothing half-written is delivered, and the next publish is read as ever.
    a_panic_while_filling_publishes_nothing_half_written,
    survive_a_panic
);
fn survive_a_panic<K: Kind>(build: fn(usize) -> Builder<u64, K>, first: u64) {
    let (mut producer, ring, mut tape) = ring(build(4), first);
    for round in 0..5 {
        let fill = AssertUnwindSafe(|| {
            producer.publish(|event| {
                *event = 666;
                quiet_panic("in the middle")
            })
        });
        assert!(catch_unwind(fill).is_err());
        let fill = AssertUnwindSafe(|| {
            producer.publish_batch(2, |index, event| {
                *event = 666;
                if index == 1 {
                    quiet_panic("in the middle")
                }
            })
        });
        assert!(catch_unwind(fill).is_err());
        producer.publish(|event| *event = round).unwrap();
        let values: Vec<_> = read(&mut tape).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, [round]);
        assert_eq!(ring.positions().oldest_unpublished, None);
    }
}

both_kinds!(claims_are_reached_by_index_and_by_iterator, reach_every_slot);
fn reach_every_slot<K: Kind>(build: fn(usize) -> Builder<u64, K>, first: u64) {
    let (mut producer, _ring, mut tape) = ring(build(4), first);
    for _ in 0..3 {
        let mut claim = producer.claim(3).unwrap();
        assert_eq!(claim.len(), 3);
        let sequences: Vec<_> = claim
            .iter_mut()
            .map(|(sequence, event)| {
                *event = sequence.0;
                sequence
            })
            .collect();
        assert_eq!(sequences, claim.sequences().iter().collect::<Vec<_>>());
        claim[1] = 5;
        *claim.get_mut(2).unwrap() = 6;
        assert_eq!(claim.get_mut(3), None);
        assert_eq!((claim[0], claim[1], claim[2]), (sequences[0].0, 5, 6));
        assert!(catch_unwind(AssertUnwindSafe(|| claim[3])).is_err());
        assert_eq!(claim.commit().unwrap().iter().collect::<Vec<_>>(), sequences);
        assert_eq!(read(&mut tape), [(sequences[0], sequences[0].0), (sequences[1], 5), (sequences[2], 6)]);
    }
}

#[test]
fn slices_of_a_claim_and_of_a_batch_go_round_the_end_of_the_buffer() {
    for first in STARTS {
        let (mut producer, _ring, mut tape) = ring(Builder::single(4, || 0), first);
        for round in 0..5 {
            let mut claim = producer.claim(3).unwrap();
            let (head, tail) = claim.as_mut_slices();
            assert_eq!(head.len() + tail.len(), 3);
            head.iter_mut().chain(tail).enumerate().for_each(|(index, event)| *event = round * 10 + index as u64);
            claim.commit().unwrap();
            let mut batch = tape.poll(9).unwrap();
            let (head, tail) = batch.take_slices();
            assert_eq!([head, tail].concat(), [round * 10, round * 10 + 1, round * 10 + 2]);
            let (head, tail) = batch.take_slices();
            assert!(head.is_empty() && tail.is_empty(), "taken once");
        }
        assert_eq!(tape.consumed(), Sequence(first).plus(15));
    }
}

/// A claim that is leaked publishes nothing and stalls a multi producer's ring; whoever waits with a deadline is told,
/// and the sequence shows. A single producer's leaked claim never happened.
#[test]
fn a_leaked_claim_is_seen_and_hangs_nobody_who_has_a_deadline() {
    let (mut producer, handle, mut tape) = ring(Builder::multi(4, || 0), 0);
    producer.publish(|event| *event = 1).unwrap();
    std::mem::forget(producer.claim(1).unwrap());
    producer.publish_batch(2, |_, _| ()).unwrap();
    assert_eq!(read(&mut tape).len(), 1);
    assert_eq!(handle.positions().oldest_unpublished, Some(Sequence(1)));
    producer.publish(|_| ()).unwrap();
    let refused = producer.claim_until(1, Instant::now() + Duration::from_millis(1)).err();
    assert_eq!(refused, Some(ClaimError::TimedOut { by: Some("tape".into()) }));
    handle.close();
    assert!(tape.poll(1).unwrap().is_empty(), "the claim may be committed still, for all that anybody knows");
    assert_eq!(handle.cut().len(), 1);
    assert_eq!((&mut tape.poll_wait(9).unwrap()).into_iter().count(), 3, "what lies behind it");
    assert_eq!(tape.poll(1).err(), Some(Closed::Closed));

    let (mut producer, handle, mut tape) = ring(Builder::single(4, || 0), 0);
    std::mem::forget(producer.claim(4).unwrap());
    assert_eq!(handle.positions().oldest_unpublished, None);
    producer.publish(|event| *event = 2).unwrap();
    assert_eq!(read(&mut tape), [(Sequence(0), 2)]);
}

/// Without any consumer it is the floor that keeps a producer from lapping another one that still writes.
#[test]
fn without_consumers_a_producer_waits_for_another_ones_claim_and_for_nothing_else() {
    let (mut producer, ring) = Builder::multi(2, || 0u64).build().unwrap();
    (0..10).for_each(|value| drop(producer.publish(|event| *event = value)));
    let mut other = producer.clone();
    let claim = other.claim(1).unwrap();
    producer.publish(|_| ()).unwrap();
    let refused = producer.claim_until(1, Instant::now() + Duration::from_millis(1)).err();
    assert_eq!(refused, Some(ClaimError::TimedOut { by: None }));
    assert_eq!(ring.positions().oldest_unpublished, Some(Sequence(10)));
    claim.commit().unwrap();
    assert_eq!(producer.try_publish(|_| ()).unwrap(), Sequence(12));

    let (mut single, _ring) = Builder::single(2, || 0u64).build().unwrap();
    (0..10).for_each(|value| drop(single.publish(|event| *event = value)));
}

#[test]
fn retained_events_stay_readable_and_are_never_overwritten() {
    for first in STARTS {
        for retain in 0..4 {
            let mut builder = Builder::multi(4, || 0u64);
            builder.retain(retain).start_at(Sequence(first));
            let (mut producer, ring) = builder.build().unwrap();
            for published in 1..=10u64 {
                producer.publish(|event| *event = published).unwrap();
                let kept = (retain as u64).min(published);
                assert_eq!(ring.positions().earliest, Sequence(first).plus(published - kept));
                let mut late = ring.join("late").unwrap();
                let expected = run(first, published).split_off((published - kept) as usize);
                let got: Vec<_> = read(&mut late);
                assert_eq!(got.iter().map(|(at, _)| *at).collect::<Vec<_>>(), expected);
                assert_eq!(
                    got.iter().map(|(_, value)| *value).collect::<Vec<_>>(),
                    ((published - kept + 1)..=published).collect::<Vec<_>>()
                );
            }
        }
    }
}

/// Three producers on a full ring with thirty consumers once hung for good.
#[test]
fn many_producers_and_many_consumers_get_through_a_tiny_full_ring() {
    // Miri takes a thousand times as long as the machine, and runs one thread at a time.
    const CONSUMERS: usize = if cfg!(miri) { 4 } else { 30 };
    const EACH: u64 = if cfg!(miri) { 8 } else { 60 };
    let sums = soon("a full ring", || {
        let mut builder = Builder::multi(2, || 0u64);
        for consumer in 0..CONSUMERS {
            builder.poll(slipring_ring::Stage::new(format!("c{consumer}")).wait(at_once()));
        }
        let (producer, ring) = builder.build().unwrap();
        let consumers: Vec<_> = (0..CONSUMERS)
            .map(|index| {
                let mut consumer = ring.consumer(&format!("c{index}")).unwrap();
                std::thread::spawn(move || {
                    let mut sum = 0;
                    while let Ok(mut batch) = consumer.poll_wait(9) {
                        sum += (&mut batch).into_iter().map(|(_, event)| *event).sum::<u64>();
                    }
                    sum
                })
            })
            .collect();
        for _ in 0..3 {
            let mut producer = producer.clone();
            producer.set_wait(at_once());
            std::thread::spawn(move || (0..EACH).for_each(|value| drop(producer.publish(|event| *event = value))));
        }
        drop(producer);
        consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(sums, [3 * (EACH - 1) * EACH / 2; CONSUMERS]);
}

#[test]
fn a_closed_ring_refuses_every_form_with_the_reason() {
    let (mut producer, ring, _tape) = ring(Builder::multi(4, || 0), 0);
    ring.close();
    let closed = ClaimError::Closed(Closed::Closed);
    assert_eq!(producer.publish(|_| unreachable!()), Err(Closed::Closed));
    assert_eq!(producer.try_publish(|_| unreachable!()), Err(closed.clone()));
    assert_eq!(producer.publish_until(Instant::now() + LONG, |_| unreachable!()), Err(closed.clone()));
    assert_eq!(producer.publish_batch(2, |_, _| unreachable!()), Err(closed.clone()));
    assert_eq!(producer.claim(1).err(), Some(closed.clone()));
    assert_eq!(producer.try_claim(1).err(), Some(closed.clone()));
    assert_eq!(producer.try_send(5).unwrap_err().value, 5);
}

/// The limit of a poll counts events: a claim that was dropped before them takes nothing away from it.
#[test]
fn skipped_slots_use_up_no_limit() {
    for first in STARTS {
        let mut builder = Builder::multi(8, || 0u64);
        builder
            .start_at(Sequence(first))
            .poll("reader")
            .poll(Stage::new("behind").after(["reader"]))
            .workers("pool", 2);
        builder.workers(Stage::new("last").after(["behind", "pool"]), 1);
        let (mut producer, ring) = builder.build().unwrap();
        let [mut reader, mut behind] = ["reader", "behind"].map(|name| ring.consumer(name).unwrap());
        let (mut worker, mut last) = (ring.worker("pool").unwrap(), ring.worker("last").unwrap());
        let at = |offset: u64| Sequence(first).plus(offset);
        for round in 0..3 {
            drop(producer.try_claim(3).unwrap());
            producer.try_publish(|_| ()).unwrap();
            drop(producer.try_claim(3).unwrap());
            producer.try_publish(|_| ()).unwrap();
            for event in [3, 7].map(|offset| at(8 * round + offset)) {
                for consumer in [&mut reader, &mut behind] {
                    let read: Vec<_> =
                        (&mut consumer.poll(1).unwrap()).into_iter().map(|(sequence, _)| sequence).collect();
                    assert_eq!(read, [event]);
                }
                for worker in [&mut worker, &mut last] {
                    let mut taken = worker.take_wait(1).unwrap();
                    assert_eq!(taken.len(), 1);
                    assert!(
                        taken.next(|sequence, _| assert_eq!(sequence, event)) && !taken.next(|_, _| unreachable!())
                    );
                }
            }
            assert_eq!(ring.positions().fill, 0, "nobody holds a skipped slot back");
        }
    }
}

/// Nothing but skipped slots: whoever looks gives them back, and there is room.
#[test]
fn a_ring_full_of_skipped_slots_is_given_back_by_one_look() {
    let mut builder = Builder::multi(4, || 0u64);
    builder.poll("reader").workers("pool", 1);
    let (mut producer, ring) = builder.build().unwrap();
    let (mut reader, mut worker) = (ring.consumer("reader").unwrap(), ring.worker("pool").unwrap());
    for _ in 0..3 {
        drop(producer.try_claim(4).unwrap());
        assert!(reader.poll(1).unwrap().is_empty() && worker.take(1).unwrap().is_empty());
    }
    assert_eq!(producer.try_publish(|_| ()), Ok(Sequence(12)));
}

both_kinds!(
    /// Parts of a claim are published in order, and what is not published is given back: to a single producer nothing
    /// has happened, of a multi producer the slots are skipped.
    parts_of_a_claim_are_published_and_the_rest_is_given_back,
    publish_in_parts
);
fn publish_in_parts<K: Kind>(build: fn(usize) -> Builder<u64, K>, first: u64) {
    for (parts, given_back) in [(&[][..], 4), (&[1, 1], 2), (&[3], 1), (&[0, 2, 2], 0), (&[9], 0), (&[4, 1], 0)] {
        let (mut producer, ring, mut tape) = ring(build(4), first);
        let mut claim = producer.claim(4).unwrap();
        claim.iter_mut().for_each(|(sequence, event)| *event = sequence.0);
        let mut published = Vec::new();
        for part in parts {
            let sequences = claim.commit_first(*part).unwrap();
            published.extend(run(sequences.first.0, sequences.len as u64));
            assert_eq!(ring.published(), claim.sequences().first, "at once");
        }
        assert_eq!(claim.len(), given_back);
        match given_back {
            // Of an empty claim nothing is left to commit or to give back.
            0 if parts.len() == 1 => assert_eq!(claim.commit().unwrap().len, 0),
            _ => drop(claim),
        }
        assert_eq!(published, run(first, 4 - given_back as u64));
        let seen = read(&mut tape);
        assert!(seen.iter().all(|(sequence, event)| sequence.0 == *event), "{seen:?}");
        assert!(seen.iter().map(|(sequence, _)| sequence).eq(&published), "{seen:?}");
        let skipped = if std::any::type_name::<K>() == std::any::type_name::<Single>() { 0 } else { given_back };
        let next = producer.publish(|event| *event = 7).unwrap();
        assert_eq!(next, Sequence(first).plus((4 - given_back + skipped) as u64));
        assert_eq!(read(&mut tape), [(next, 7)]);
    }
}

both_kinds!(
    /// Events are taken from an iterator as long as there are slots, and none is lost.
    a_claim_is_filled_from_an_iterator,
    fill_from_an_iterator
);
fn fill_from_an_iterator<K: Kind>(build: fn(usize) -> Builder<u64, K>, first: u64) {
    let (mut producer, _ring, mut tape) = ring(build(16), first);
    let mut events = 0..7;
    let mut filled =
        |producer: &mut Producer<u64, K>, len| producer.claim(len).unwrap().fill_from(&mut events).unwrap().len;
    assert_eq!(filled(&mut producer, 3), 3);
    assert_eq!(read(&mut tape).len(), 3);
    assert_eq!(filled(&mut producer, 4), 4);
    assert_eq!(read(&mut tape).iter().map(|(_, event)| *event).collect::<Vec<_>>(), [3, 4, 5, 6]);
    assert_eq!(filled(&mut producer, 2), 0);
    let panicking = (0..3).map(|event| if event == 1 { quiet_panic("no more") } else { event });
    let caught = catch_unwind(AssertUnwindSafe(|| producer.claim(4).unwrap().fill_from(panicking)));
    assert!(caught.is_err() && read(&mut tape).is_empty());
    producer.publish(|event| *event = 9).unwrap();
    assert_eq!(read(&mut tape).len(), 1);
}

/// The end, before which there is no event.
fn end<K: Kind>(tape: &mut Consumer<u64, K>) -> Closed {
    loop {
        match tape.poll(9) {
            Ok(batch) => assert!(batch.is_empty(), "an event before the end"),
            Err(end) => return end,
        }
    }
}

both_kinds!(
    /// What was published of a claim before the ring was halted is read, and what was not is refused.
    a_claim_in_parts_at_the_end_is_read_or_refused,
    end_between_parts
);
fn end_between_parts<K: Kind>(build: fn(usize) -> Builder<u64, K>, first: u64) {
    let (mut producer, ring, mut tape) = ring(build(8), first);
    let mut claim = producer.claim(4).unwrap();
    claim.commit_first(1).unwrap();
    ring.close();
    claim.commit_first(1).unwrap();
    assert_eq!(read(&mut tape).len(), 2);
    ring.cut();
    assert_eq!(claim.commit_first(1), Err(Closed::Cut));
    assert_eq!(claim.commit(), Err(Closed::Cut));
    assert_eq!(end(&mut tape), Closed::Closed);

    // And what is given back in a ring that ends keeps nobody.
    let (mut producer, ring, mut tape) = self::ring(build(8), first);
    let mut claim = producer.claim(4).unwrap();
    ring.close();
    claim.commit_first(1).unwrap();
    drop(claim);
    assert_eq!(read(&mut tape).len(), 1);
    assert_eq!(end(&mut tape), Closed::Closed);
    drop(producer);
    assert!(ring.report().is_complete(), "{}", ring.report());
}

/// What a refusal lacks is counted in slots, for one producer and for several, beside retained events and others' claims.
#[test]
fn a_refused_claim_says_how_many_slots_are_missing() {
    fn check<K: Kind>(mut builder: Builder<u64, K>) {
        builder.poll("slow");
        let (mut producer, ring) = builder.build().unwrap();
        let mut slow = ring.consumer("slow").unwrap();
        producer.publish_batch(6, |_, _| ()).unwrap();
        for (len, missing) in [(3, 1), (5, 3), (8, 6)] {
            assert_eq!(producer.try_claim(len).err(), Some(ClaimError::Full));
            assert_eq!(producer.missing(len), missing);
        }
        assert_eq!(producer.missing(2), 0);
        assert_eq!((&mut slow.poll(2).unwrap()).into_iter().count(), 2);
        let refused = producer.claim_until(5, Instant::now()).err();
        assert_eq!(refused, Some(ClaimError::TimedOut { by: Some("slow".into()) }));
        assert_eq!(producer.missing(5), 1);
        producer.publish_batch(4, |_, _| ()).unwrap();
        assert_eq!(producer.try_publish(|_| ()), Err(ClaimError::Full));
        assert_eq!(producer.missing(1), 1);
    }
    check(Builder::single(8, || 0));
    check(Builder::multi(8, || 0));
}
