//! Graphs of stages: what is refused when one is built, what order one keeps, and who may come and go while it runs.
#![cfg(not(any(loom, shuttle)))]

mod common;

use common::{STARTS, at_once, run, soon};
use slipring_ring::{
    Access, BuildError, Builder, ClaimError, Closed, Consumer, Idle, Kind, Multi, SeekError, Sequence, Single, Stage,
    StageError, Start, Wait, WaitStrategy,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

fn read<K: Kind>(consumer: &mut Consumer<u64, K>) -> Vec<u64> {
    // More than once: a poll may give only what is known already.
    let mut events = Vec::new();
    while events.len() < 100 {
        let before = events.len();
        events.extend((&mut consumer.poll(usize::MAX).unwrap()).into_iter().map(|(_, event)| *event));
        if events.len() == before {
            break;
        }
    }
    events
}

fn see<K: Kind, A: Access>(consumer: &mut Consumer<u64, K, A>) -> Vec<Sequence> {
    (&mut consumer.poll(usize::MAX).unwrap()).into_iter().map(|(sequence, _)| sequence).collect()
}

fn refusal(declare: impl for<'b> FnOnce(&'b mut Builder<u64, Multi>) -> &'b mut Builder<u64, Multi>) -> BuildError {
    let mut builder = Builder::multi(8, || 0);
    declare(&mut builder);
    builder.build().expect_err("it was to be refused")
}

#[test]
fn every_refusal_names_its_culprit() {
    let text = |error: BuildError| error.to_string();
    for capacity in [0, 3, 6, usize::MAX, (1 << 40) + 1, 1 << 41] {
        let refused = Builder::single(capacity, || 0u64).build().err().unwrap();
        assert!(matches!(refused, BuildError::Capacity { asked, .. } if asked == capacity), "{refused}");
    }
    let refused = Builder::single(1 << 40, || [0u8; 4096]).build().err().unwrap();
    assert!(matches!(refused, BuildError::Memory { bytes } if bytes == 1 << 52), "{refused}");
    assert!(matches!(refusal(|it| it.retain(8)), BuildError::Retain { asked: 8, capacity: 8 }));
    assert!(matches!(refusal(|it| it.poll("")), BuildError::NoName));
    let refused = refusal(|it| it.poll("a").poll("b").poll("a"));
    assert!(matches!(&refused, BuildError::NameTaken { name } if name == "a"), "{refused}");
    let refused = refusal(|it| it.poll("a").poll(Stage::new("b").after(["z"])));
    assert!(
        matches!(&refused, BuildError::UnknownStage { stage, after, known } if stage == "b" && after == "z" && known == &["a", "b"])
    );
    let refused = text(refusal(|it| {
        it.poll("x").poll(Stage::new("a").after(["x", "c"])).poll(Stage::new("b").after(["a"]));
        it.poll(Stage::new("c").after(["b"]))
    }));
    assert!(refused.ends_with("a -> c -> b -> a"), "{refused}");
    assert!(
        matches!(refusal(|it| it.poll(Stage::new("a").after(["a"]))), BuildError::Cycle { stages } if stages == ["a", "a"])
    );
    let refused = refusal(|it| it.poll("reads").poll_mut("writes"));
    assert!(
        matches!(&refused, BuildError::UnorderedMutable { mutable, other } if mutable == "writes" && other == "reads")
    );
    let refused = refusal(|it| it.poll_mut("one").poll_mut("two"));
    assert!(matches!(&refused, BuildError::UnorderedMutable { .. }), "{refused}");
    // Both behind the same, but not ordered against each other.
    let refused = refusal(|it| {
        it.poll_mut("first").poll_mut(Stage::new("left").after(["first"])).poll(Stage::new("right").after(["first"]))
    });
    assert!(
        matches!(&refused, BuildError::UnorderedMutable { mutable, other } if mutable == "left" && other == "right")
    );
    let refused =
        refusal(|it| it.poll(Stage::new("journal").journaler()).poll_mut(Stage::new("late").after(["journal"])));
    assert!(
        matches!(&refused, BuildError::MutableBehindJournaler { mutable, journaler } if mutable == "late" && journaler == "journal")
    );
    let refused = refusal(|it| it.workers("pool", 0));
    assert!(matches!(&refused, BuildError::NoWorkers { stage } if stage == "pool"));
    let refused = refusal(|it| it.poll(Stage::new("late").start(Start::At(Sequence(3)))));
    assert!(
        matches!(&refused, BuildError::OutOfRange { asked, earliest, latest, .. }
        if (asked.0, earliest.0, latest.0) == (3, 0, 0)),
        "{refused}"
    );
}

#[test]
fn a_stage_of_another_ring_is_refused_also_under_a_name_that_exists() {
    let mut builder = Builder::multi(8, || 0u64);
    builder.poll("tape");
    let (_, elsewhere) = builder.build().unwrap();
    let foreign = elsewhere.consumer("tape").unwrap().stage();
    let mut builder = Builder::multi(8, || 0u64);
    builder.poll("tape");
    let (_producer, ring) = builder.build().unwrap();
    let refused = ring.join(Stage::new("late").after([&foreign])).err().unwrap();
    assert!(matches!(&refused, BuildError::ForeignStage { stage, after } if stage == "late" && after == "tape"));
    let own = ring.consumer("tape").unwrap();
    assert!(ring.join(Stage::new("late").after([own.stage()])).is_ok());
    let refused = refusal(|it| it.poll("tape").poll(Stage::new("late").after([foreign])));
    assert!(matches!(refused, BuildError::ForeignStage { .. }));
}

/// Two heads, a diamond, a pipeline behind it, declared in any order: each stage sees an event when all before it have
/// let it go, and not before; the ring is as full as its slowest stage says.
#[test]
fn a_graph_lets_each_event_through_in_its_order() {
    for first in STARTS {
        let mut builder = Builder::single(4, || 0u64);
        builder.start_at(Sequence(first));
        builder.poll(Stage::new("end").after(["join"]));
        builder.poll(Stage::new("join").after(["left", "right"]));
        builder.poll(Stage::new("left").after(["head"])).poll(Stage::new("right").after(["head"]));
        builder.poll_mut("head");
        builder.poll("alone");
        let refused = builder.build().err().unwrap();
        assert!(matches!(refused, BuildError::UnorderedMutable { .. }));

        let mut builder = Builder::single(4, || 0u64);
        builder.start_at(Sequence(first));
        builder.poll(Stage::new("end").after(["join"]));
        builder.poll(Stage::new("join").after(["left", "right"]));
        builder.poll(Stage::new("left").after(["head"])).poll(Stage::new("right").after(["head"]));
        builder.poll_mut("head");
        let (mut producer, ring) = builder.build().unwrap();
        let mut head = ring.consumer_mut("head").unwrap();
        let [mut left, mut right, mut join, mut end] =
            ["left", "right", "join", "end"].map(|name| ring.consumer(name).unwrap());
        for round in 0..5u64 {
            let expected = run(Sequence(first).plus(round * 4).0, 4);
            producer.publish_batch(4, |index, event| *event = index as u64).unwrap();
            for behind in [&mut left, &mut right, &mut join, &mut end] {
                assert!(see(behind).is_empty());
            }
            for (_, event) in &mut head.poll(9).unwrap() {
                *event += 10;
            }
            assert!(see(&mut join).is_empty());
            assert_eq!(read(&mut left), [10, 11, 12, 13]);
            assert!(see(&mut join).is_empty(), "right has not read");
            assert_eq!((&mut right.poll(2).unwrap()).into_iter().count(), 2);
            assert_eq!(see(&mut join), expected[..2]);
            assert_eq!(producer.try_publish(|_| unreachable!()), Err(ClaimError::Full), "the last stage gates");
            assert_eq!(see(&mut right), expected[2..]);
            assert_eq!(see(&mut join), expected[2..]);
            assert_eq!(see(&mut end), expected);
            let positions = ring.positions();
            assert!(positions.stages.iter().all(|stage| stage.lag == 0) && positions.fill == 0);
        }
    }
}

/// A producer need not wait for the end of a batch in a small ring, and an event whose reading panics is read once.
#[test]
fn a_batch_that_is_read_event_by_event_gives_room_back_on_the_way() {
    for first in STARTS {
        let mut builder = Builder::single(32, || 0u64);
        builder.start_at(Sequence(first)).poll("tape");
        let (mut producer, ring) = builder.build().unwrap();
        let mut tape = ring.consumer("tape").unwrap();
        producer.publish_batch(32, |index, event| *event = index as u64).unwrap();
        let (mut seen, mut room) = (Vec::new(), Vec::new());
        tape.poll(usize::MAX).unwrap().for_each(|sequence, event| {
            assert_eq!(sequence, Sequence(first).plus(*event));
            seen.push(*event);
            room.push(producer.try_publish(|event| *event = 100).is_ok());
        });
        assert_eq!(seen, Vec::from_iter(0..32));
        // Two at a time: a sixteenth of the capacity.
        assert_eq!(room[..6], [false, false, true, true, true, true]);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            tape.poll(usize::MAX).unwrap().for_each(|sequence, _| assert_ne!(sequence, Sequence(first).plus(33)));
        }));
        assert!(panicked.is_err());
        assert_eq!(tape.consumed(), Sequence(first).plus(34));
    }
}

/// A batch's position moves over what was iterated and no further; a release in the middle lets producers in.
#[test]
fn a_batch_moves_over_what_was_iterated() {
    for first in STARTS {
        let mut builder = Builder::single(4, || 0u64);
        builder.start_at(Sequence(first)).poll("tape");
        let (mut producer, ring) = builder.build().unwrap();
        let mut tape = ring.consumer("tape").unwrap();
        producer.publish_batch(4, |index, event| *event = index as u64).unwrap();
        drop(tape.poll(0).unwrap());
        assert_eq!(tape.consumed(), Sequence(first));
        assert_eq!(tape.poll(0).unwrap().len(), 1, "a limit of 0 counts as 1");
        let mut batch = tape.poll(3).unwrap();
        assert_eq!((batch.len(), batch.position()), (3, Sequence(first)));
        batch.into_iter().next();
        batch.release();
        assert_eq!(producer.try_publish(|event| *event = 4).unwrap(), Sequence(first).plus(4));
        assert_eq!(producer.try_publish(|_| unreachable!()), Err(ClaimError::Full));
        batch.into_iter().next();
        assert_eq!((batch.len(), batch.is_empty(), batch.position()), (1, false, Sequence(first).plus(2)));
        batch.commit();
        assert_eq!(tape.consumed(), Sequence(first).plus(2));
        assert_eq!(tape.lag(), 3);
        assert_eq!(read(&mut tape), [2, 3, 4]);
        assert!(tape.poll_until(9, Instant::now() + Duration::from_millis(1)).unwrap().is_empty());
    }
}

/// A batch that is leaked is no batch: its events come again, and the next one ends what it held.
#[test]
fn a_leaked_batch_comes_again() {
    let mut builder = Builder::single(4, || 0u64);
    builder.poll("tape");
    let (mut producer, ring) = builder.build().unwrap();
    let mut tape = ring.consumer("tape").unwrap();
    producer.publish_batch(2, |_, _| ()).unwrap();
    let mut batch = tape.poll(9).unwrap();
    assert_eq!((&mut batch).into_iter().count(), 2);
    std::mem::forget(batch);
    assert_eq!(tape.consumed(), Sequence(0));
    assert_eq!(ring.evict("tape"), Err(StageError::InBatch { name: "tape".into() }), "it looks as if it held one");
    assert_eq!(tape.poll(9).err(), Some(Closed::Evicted { stage: "tape".into() }));
    assert!(ring.positions().stages.is_empty());
}

#[test]
fn consumers_are_taken_once_and_by_the_right_name_and_access() {
    let mut builder = Builder::single(4, || 0u64);
    builder
        .poll_mut("change")
        .poll(Stage::new("tape").after(["change"]))
        .workers(Stage::new("pool").after(["change"]), 1);
    let (_producer, ring) = builder.build().unwrap();
    let not_here = |name: &str| StageError::NotHere { name: name.into() };
    assert_eq!(ring.consumer("nobody").err(), Some(StageError::Unknown { name: "nobody".into() }));
    assert_eq!(ring.consumer("change").err(), Some(not_here("change")));
    assert_eq!(ring.consumer_mut("tape").err(), Some(not_here("tape")));
    assert_eq!(ring.consumer("pool").err(), Some(not_here("pool")));
    assert_eq!(ring.worker("tape").err(), Some(not_here("tape")));
    let _taken = ring.consumer("tape").unwrap();
    assert_eq!(ring.consumer("tape").err(), Some(not_here("tape")));
    let _worker = ring.worker("pool").unwrap();
    assert_eq!(ring.worker("pool").err(), Some(not_here("pool")), "all places are taken");
    assert!(ring.consumer_mut("change").is_ok());
}

/// A gate that joined at a slot of the past was lapped at once. A newcomer is told its first sequence, which is kept.
#[test]
fn a_newcomer_starts_where_something_is_kept() {
    for first in STARTS {
        let mut builder = Builder::multi(8, || 0u64);
        builder.start_at(Sequence(first)).retain(2).poll("slow");
        let (mut producer, ring) = builder.build().unwrap();
        let mut slow = ring.consumer("slow").unwrap();
        let at = |offset: u64| Sequence(first).plus(offset);
        for value in 0..6 {
            producer.publish(|event| *event = value).unwrap();
        }
        assert_eq!((&mut slow.poll(1).unwrap()).into_iter().count(), 1);
        let begins = |start: Start| ring.join(Stage::new("late").start(start)).map(|late| late.first());
        assert_eq!(begins(Start::Earliest).unwrap(), at(1));
        assert_eq!(begins(Start::Latest).unwrap(), at(6));
        assert_eq!(begins(Start::At(at(3))).unwrap(), at(3));
        for asked in [at(0), at(7), at(1 << 40)] {
            let refused = begins(Start::At(asked)).unwrap_err();
            assert!(
                matches!(&refused, BuildError::OutOfRange { stage, asked: told, earliest, latest }
                if stage == "late" && (*told, *earliest, *latest) == (asked, at(1), at(6))),
                "{refused}"
            );
        }
        assert_eq!(ring.positions().stages.len(), 1, "a refused newcomer leaves no gate behind");
        assert_eq!(read(&mut slow), [1, 2, 3, 4, 5]);
        assert_eq!(begins(Start::Earliest).unwrap(), at(4), "what is retained");
        drop(slow);
        assert_eq!(begins(Start::Earliest).unwrap(), at(4));
        let mut late = ring.join(Stage::new("late").start(Start::At(at(5)))).unwrap();
        (6..20).for_each(|value| drop(producer.try_publish(|event| *event = value)));
        assert_eq!(read(&mut late), [5, 6, 7, 8, 9, 10, 11, 12], "the gate holds from its first event on");
    }
}

#[test]
fn newcomers_stand_behind_every_mutable_stage_and_are_none_themselves() {
    let mut builder = Builder::single(4, || 0u64);
    builder.poll_mut("change").poll(Stage::new("tape").after(["change"]));
    let (mut producer, ring) = builder.build().unwrap();
    let refused = ring.join("late").err().unwrap();
    assert!(
        matches!(&refused, BuildError::UnorderedMutable { mutable, other } if mutable == "change" && other == "late")
    );
    assert!(matches!(ring.join(Stage::new("tape").after(["change"])).err(), Some(BuildError::NameTaken { .. })));
    let mut late = ring.join(Stage::new("late").after(["tape"])).unwrap();
    producer.publish(|event| *event = 1).unwrap();
    assert!(late.poll(1).unwrap().is_empty());
    let (mut change, mut tape) = (ring.consumer_mut("change").unwrap(), ring.consumer("tape").unwrap());
    (&mut change.poll(1).unwrap()).into_iter().for_each(|(_, event)| *event = 5);
    assert_eq!(read(&mut tape), [5]);
    assert_eq!(read(&mut late), [5]);
    ring.close();
    assert!(matches!(ring.join(Stage::new("later").after(["tape"])).err(), Some(BuildError::Closed(Closed::Closed))));
}

/// A poller that was dropped still gated the producers for ever.
#[test]
fn a_dropped_consumer_gates_nobody() {
    let mut builder = Builder::single(2, || 0u64);
    builder.poll("gone").poll("stays");
    let (mut producer, ring) = builder.build().unwrap();
    let mut stays = ring.consumer("stays").unwrap();
    producer.publish_batch(2, |_, _| ()).unwrap();
    read(&mut stays);
    assert_eq!(producer.try_publish(|_| ()), Err(ClaimError::Full));
    drop(ring.consumer("gone").unwrap());
    producer.try_publish(|_| ()).unwrap();
    // Nor does one that nobody took, when the last handle goes.
    let mut builder = Builder::single(2, || 0u64);
    builder.poll("untaken");
    let (mut producer, ring) = builder.build().unwrap();
    let again = ring.clone();
    drop(ring);
    producer.publish_batch(2, |_, _| ()).unwrap();
    assert_eq!(producer.try_publish(|_| ()), Err(ClaimError::Full));
    drop(again);
    producer.try_publish(|_| ()).unwrap();
}

/// A producer that sleeps because of one stage is woken when that one leaves or is evicted.
#[test]
fn a_producer_that_waits_for_a_stage_is_woken_when_it_goes() {
    for evict in [false, true] {
        soon("a producer that waits for a stage that has gone", move || {
            let mut builder = Builder::multi(1, || 0u64);
            builder.poll("slow");
            let (mut producer, ring) = builder.build().unwrap();
            let slow = ring.consumer("slow").unwrap();
            producer.set_wait(at_once());
            producer.publish(|_| ()).unwrap();
            let publisher = std::thread::spawn(move || producer.publish(|_| ()));
            while ring.positions().stages[0].stalls == 0 {
                std::thread::yield_now();
            }
            if evict {
                assert_eq!(ring.evict("slow"), Ok(Sequence(0)));
                publisher.join().unwrap().unwrap();
                drop(slow);
            } else {
                drop(slow);
                publisher.join().unwrap().unwrap();
            }
        });
    }
}

#[test]
fn eviction_waits_for_the_end_of_a_batch_and_the_consumer_is_told() {
    let mut builder = Builder::single(2, || 0u64);
    builder.poll("slow").poll("first").poll(Stage::new("second").after(["first"])).workers("pool", 1);
    let (mut producer, ring) = builder.build().unwrap();
    let mut slow = ring.consumer("slow").unwrap();
    let name = |name: &str| name.to_owned();
    for refused in ["nobody", "first", "pool"] {
        assert_eq!(ring.check_evict(refused), ring.evict(refused).map(drop));
    }
    assert_eq!(ring.check_evict("second"), Ok(()), "it changes nothing");
    assert_eq!(ring.evict("nobody"), Err(StageError::Unknown { name: name("nobody") }));
    assert_eq!(ring.evict("first"), Err(StageError::StoodBehind { name: name("first"), behind: name("second") }));
    assert_eq!(ring.evict("pool"), Err(StageError::Workers { name: name("pool") }));
    assert_eq!(ring.evict("second"), Ok(Sequence(0)));
    assert_eq!(ring.evict("first"), Ok(Sequence(0)));
    drop(ring.worker("pool").unwrap());
    producer.publish_batch(2, |index, event| *event = index as u64 + 1).unwrap();
    {
        let mut batch = slow.poll(9).unwrap();
        let (_, event) = batch.into_iter().next().unwrap();
        assert_eq!(ring.evict("slow"), Err(StageError::InBatch { name: name("slow") }));
        assert_eq!(*event, 1, "nobody writes there while it is held");
        assert_eq!(producer.try_publish(|_| unreachable!()), Err(ClaimError::Full));
        let refused = ring.join(Stage::new("late").after(["slow"])).err();
        assert!(matches!(refused, Some(BuildError::UnknownStage { .. })), "it would wait for ever: {refused:?}");
    }
    assert!(ring.positions().stages.is_empty());
    producer.publish_batch(2, |_, _| ()).unwrap();
    assert_eq!(slow.poll(9).err(), Some(Closed::Evicted { stage: name("slow") }));
    assert_eq!(slow.poll_wait(9).err(), Some(Closed::Evicted { stage: name("slow") }));
    assert!(ring.join("slow").is_ok(), "its name is free again");
}

/// A successor of a stage that never moves again begins where that one stood, and the old gate goes with its batch.
#[test]
fn a_successor_misses_nothing_and_the_old_gate_goes_when_its_batch_ends() {
    let mut builder = Builder::multi(4, || 0u64);
    builder.poll("old");
    let (mut producer, ring) = builder.build().unwrap();
    let mut old = ring.consumer("old").unwrap();
    producer.publish_batch(4, |index, event| *event = index as u64 + 1).unwrap();
    let mut batch = old.poll(9).unwrap();
    assert_eq!((&mut batch).into_iter().next().unwrap().1, &1);
    let at = |sequence| Stage::new("new").start(Start::At(Sequence(sequence)));
    assert!(matches!(ring.take_over("old", at(5)), Err(BuildError::OutOfRange { .. })));
    assert_eq!(ring.positions().stages.len(), 1, "a refused successor changes nothing");
    let mut new = ring.take_over("old", at(0)).unwrap();
    assert_eq!(read(&mut new), [1, 2, 3, 4]);
    assert_eq!(producer.try_publish(|_| ()), Err(ClaimError::Full), "the old one is in its batch");
    drop(batch);
    producer.try_publish(|event| *event = 5).unwrap();
    assert!(matches!(old.poll(1), Err(Closed::Evicted { .. })));
    drop(old);
    // A ring that is closed, but not read out.
    ring.close();
    assert!(ring.join("late").is_err());
    let mut last = ring.take_over("new", Stage::new("last").start(Start::At(Sequence(4)))).unwrap();
    assert_eq!((&mut last.poll(9).unwrap()).into_iter().map(|(_, event)| *event).collect::<Vec<_>>(), [5]);
    assert_eq!(last.poll(1).err(), Some(Closed::Closed));
    ring.halt();
    assert!(matches!(ring.take_over("last", "more").err(), Some(BuildError::Closed(Closed::Halted))));
}

/// A sleeping consumer is told of its eviction, and of the ring's end.
#[test]
fn a_sleeping_consumer_is_told_of_its_eviction() {
    for _ in 0..50 {
        struct Told(Arc<AtomicU64>);
        impl WaitStrategy for Told {
            fn idle(&self, _: u32) -> Idle {
                self.0.fetch_add(1, Relaxed);
                Idle::Sleep
            }
        }
        let looks = Arc::new(AtomicU64::new(0));
        let mut builder = Builder::single(2, || 0u64);
        builder.poll(Stage::new("idle").wait(Wait::custom(Told(Arc::clone(&looks)))));
        let (_producer, ring) = builder.build().unwrap();
        let mut idle = ring.consumer("idle").unwrap();
        let told = soon("an evicted consumer", move || {
            let sleeper = std::thread::spawn(move || idle.poll_wait(1).err());
            while looks.load(Relaxed) == 0 {
                std::thread::yield_now();
            }
            // About now it falls asleep: before, in the middle of, or after what follows.
            ring.evict("idle").unwrap();
            sleeper.join().unwrap()
        });
        assert_eq!(told, Some(Closed::Evicted { stage: "idle".into() }));
    }
}

/// A stage that stands behind one that leaves could never read on: the ring fails with its name instead of hanging.
#[test]
fn whoever_stands_behind_a_stage_that_leaves_is_told_its_name() {
    let mut builder = Builder::single(4, || 0u64);
    builder.poll("first").poll(Stage::new("second").after(["first"]).wait(at_once()));
    let (mut producer, ring) = builder.build().unwrap();
    let mut second = ring.consumer("second").unwrap();
    let told = soon("a stage behind one that has left", move || {
        let sleeper = std::thread::spawn(move || second.poll_wait(1).err());
        drop(ring.consumer("first").unwrap());
        sleeper.join().unwrap().unwrap()
    });
    assert!(matches!(&told, Closed::Failed { stage, cause } if stage == "first" && cause.contains("second")), "{told}");
    assert_eq!(producer.publish(|_| ()), Err(told));
}

/// The same after the last producer has gone: the stage behind once slept for ever, because the ring was no longer open
/// when the one before it left, and not everything was read.
#[test]
fn whoever_stands_behind_a_stage_that_leaves_at_the_end_is_told_too() {
    let mut builder = Builder::single(4, || 0u64);
    builder.poll("first").poll(Stage::new("second").after(["first"]).wait(at_once()));
    let (mut producer, ring) = builder.build().unwrap();
    let (mut first, mut second) = (ring.consumer("first").unwrap(), ring.consumer("second").unwrap());
    producer.publish_batch(2, |_, _| ()).unwrap();
    drop(producer);
    (&mut first.poll(1).unwrap()).into_iter().count();
    drop(first);
    let told = soon("a stage behind one that left unread events", move || {
        assert!(matches!(second.poll_wait(9).err(), Some(Closed::Failed { stage, .. }) if stage == "first"));
        ring.closed()
    });
    assert!(matches!(told, Some(Closed::Failed { .. })));

    // A claim committed after the close: no stage is told the end before.
    let mut builder = Builder::multi(4, || 0u64);
    builder.poll("first").poll(Stage::new("second").after(["first"]).wait(at_once()));
    let (mut producer, ring) = builder.build().unwrap();
    let (mut first, mut second) = (ring.consumer("first").unwrap(), ring.consumer("second").unwrap());
    let claim = producer.claim(1).unwrap();
    ring.close();
    assert!(first.poll(1).unwrap().is_empty());
    claim.commit().unwrap();
    assert_eq!((&mut first.poll(1).unwrap()).into_iter().count(), 1);
    assert_eq!(first.poll(1).err(), Some(Closed::Closed));
    drop(first);
    soon("a stage behind one that had finished", move || {
        assert_eq!((&mut second.poll_wait(9).unwrap()).into_iter().count(), 1);
        assert_eq!(second.poll_wait(9).err(), Some(Closed::Closed));
    });
}

#[test]
fn seeking_moves_within_what_is_kept() {
    for first in STARTS {
        let mut builder = Builder::single(8, || 0u64);
        builder.start_at(Sequence(first)).retain(3);
        builder.poll("a").poll(Stage::new("b").after(["a"]));
        let (mut producer, ring) = builder.build().unwrap();
        let (mut a, mut b) = (ring.consumer("a").unwrap(), ring.consumer("b").unwrap());
        let at = |offset: u64| Sequence(first).plus(offset);
        (0..5).for_each(|value| drop(producer.publish(|event| *event = value)));
        assert!(matches!(a.seek(at(6)), Err(SeekError::OutOfRange { latest, .. }) if latest == at(5)));
        assert!(
            matches!(b.seek(at(6)), Err(SeekError::OutOfRange { latest, .. }) if latest == at(5)),
            "also where a is not there yet"
        );
        a.seek(at(2)).unwrap();
        assert_eq!(a.consumed(), at(2));
        assert!(matches!(a.seek(at(1)), Err(SeekError::StoodBehind { behind, .. }) if behind == "b"));
        assert_eq!(read(&mut a), [2, 3, 4]);
        assert_eq!(see(&mut b), run(first, 5));
        (5..7).for_each(|value| drop(producer.publish(|event| *event = value)));
        assert_eq!(read(&mut a).len() + see(&mut b).len(), 4);
        assert!(
            matches!(b.seek(at(3)), Err(SeekError::OutOfRange { earliest, latest, .. }) if (earliest, latest) == (at(4), at(7)))
        );
        assert_eq!((b.consumed(), ring.positions().stages.len()), (at(7), 2), "a refused seek changes nothing");
        b.seek(at(4)).unwrap();
        assert_eq!(ring.positions().stages[1].consumed, at(4));
        (7..20).for_each(|value| drop(producer.try_publish(|event| *event = value)));
        assert_eq!(ring.positions().published, at(12), "what it went back to is gated again");
        read(&mut a);
        assert_eq!(read(&mut b), [4, 5, 6, 7, 8, 9, 10, 11]);
        ring.evict("b").unwrap();
        assert!(matches!(b.seek(at(9)), Err(SeekError::Closed(Closed::Evicted { .. }))));
        drop(b);
        ring.halt();
        assert!(matches!(a.seek(at(9)), Err(SeekError::Closed(Closed::Halted))));
    }
}

/// Readers come, seek and go while producers run; none is ever shown anything but the event of its sequence, and each
/// is shown every sequence from the first one it was promised on.
fn churn<K: Kind>(
    mut builder: Builder<u64, K>,
    publishers: impl FnOnce(slipring_ring::Producer<u64, K>) -> Vec<slipring_ring::Producer<u64, K>>,
) {
    builder.retain(2).start_at(Sequence(u64::MAX - 500));
    builder.poll(Stage::new("steady").wait(slipring_ring::Wait::spin_yield()));
    let (producer, ring) = builder.build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let read_in_all = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for mut producer in publishers(producer) {
        let stop = Arc::clone(&stop);
        threads.push(std::thread::spawn(move || {
            while !stop.load(Relaxed) {
                let Ok(mut claim) = producer.claim(2) else { return };
                claim.iter_mut().for_each(|(sequence, event)| *event = sequence.0.wrapping_mul(31));
                if claim.commit().is_err() {
                    return;
                }
            }
        }));
    }
    let mut steady = ring.consumer("steady").unwrap();
    threads.push(std::thread::spawn(move || {
        let mut expected = steady.first();
        while let Ok(mut batch) = steady.poll_wait(4) {
            for (sequence, event) in &mut batch {
                assert_eq!((sequence, *event), (expected, expected.0.wrapping_mul(31)));
                expected = expected.plus(1);
            }
        }
    }));
    let begin = Instant::now();
    for comer in 0..2 {
        let (ring, read_in_all) = (ring.clone(), Arc::clone(&read_in_all));
        threads.push(std::thread::spawn(move || {
            let mut round = 0u64;
            while begin.elapsed() < Duration::from_millis(700) {
                round += 1;
                let start = if round.is_multiple_of(2) { Start::Earliest } else { Start::Latest };
                let mut late = ring.join(Stage::new(format!("late{comer}")).start(start)).unwrap();
                let mut expected = late.first();
                for turn in 0..10 {
                    for (sequence, event) in &mut late.poll(3).unwrap() {
                        assert_eq!((sequence, *event), (expected, expected.0.wrapping_mul(31)));
                        expected = expected.plus(1);
                        read_in_all.fetch_add(1, Relaxed);
                    }
                    if turn == 5 {
                        let back = Sequence(expected.0.wrapping_sub(1));
                        if late.seek(back).is_ok() {
                            expected = back;
                        }
                    }
                }
                if round.is_multiple_of(3) {
                    ring.evict(&format!("late{comer}")).unwrap();
                }
            }
        }));
    }
    let joiners = threads.split_off(threads.len() - 2);
    joiners.into_iter().for_each(|thread| thread.join().unwrap());
    stop.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(read_in_all.load(Relaxed) > 100);
}

#[test]
fn readers_come_seek_and_go_while_one_producer_runs() {
    soon("coming and going", || churn::<Single>(Builder::single(8, || 0), |producer| vec![producer]));
}

#[test]
fn readers_come_seek_and_go_while_producers_race() {
    soon("coming and going", || churn::<Multi>(Builder::multi(8, || 0), |producer| vec![producer.clone(), producer]));
}

/// Positions were once negative, or torn. Here every snapshot taken under load is within bounds.
#[test]
fn positions_under_load_are_never_negative_torn_or_beyond_the_capacity() {
    let mut builder = Builder::multi(4, || 0u64);
    builder.retain(1).start_at(Sequence(u64::MAX - 100)).poll("a").poll(Stage::new("b").after(["a"]));
    let (producer, ring) = builder.build().unwrap();
    let consumers = ["a", "b"].map(|name| ring.consumer(name).unwrap());
    let begin = Arc::new(Barrier::new(5));
    let mut threads = Vec::new();
    for mut producer in [producer.clone(), producer] {
        let begin = Arc::clone(&begin);
        threads.push(std::thread::spawn(move || {
            begin.wait();
            (0..1000u64)
                .for_each(|at| if at % 7 == 0 { drop(producer.claim(2)) } else { drop(producer.publish(|_| ())) });
        }));
    }
    for mut consumer in consumers {
        let begin = Arc::clone(&begin);
        threads.push(std::thread::spawn(move || {
            begin.wait();
            while let Ok(mut batch) = consumer.poll_wait(3) {
                (&mut batch).into_iter().for_each(drop);
            }
        }));
    }
    begin.wait();
    let mut published = Sequence(u64::MAX - 100);
    while threads.iter().any(|thread| !thread.is_finished()) {
        let now = ring.positions();
        assert!(now.published.since(published) >= 0, "it never goes back");
        published = now.published;
        assert!(now.claimed.since(now.published) >= 0 && now.claimed.since(now.published) <= 4);
        assert!(now.published.since(now.earliest) >= 0);
        assert!(now.fill <= 4 && now.free <= 4 && now.fill + now.free == 4, "{now:?}");
        assert!(now.stages.iter().all(|stage| stage.lag <= 4), "{now:?}");
        assert_eq!(now.oldest_unpublished.is_some(), now.claimed != now.published);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let now = ring.positions();
    assert!(now.stages.is_empty() && now.claimed == now.published && now.oldest_unpublished.is_none());
}

/// Two stages a layer, each behind both of the layer before: there are 2^39 ways from the last layer to the first. Each was
/// walked when a consumer left, and when a mutable stage was built.
#[test]
fn a_graph_of_many_layers_is_built_and_left_at_once() {
    let mut builder = Builder::single(4, || 0_u64);
    builder.poll_mut("first");
    let mut before = vec!["first".to_owned()];
    for layer in 0..40 {
        let names = ["left", "right"].map(|side| format!("{side} {layer}"));
        for name in &names {
            builder.poll(Stage::new(name.as_str()).after(before.iter().map(String::as_str)));
        }
        before = names.to_vec();
    }
    let (_producer, ring) = builder.build().unwrap();
    let refused = ring.evict("left 0").unwrap_err();
    assert!(matches!(&refused, StageError::StoodBehind { name, .. } if name == "left 0"), "{refused}");
    drop(ring.consumer("left 39").unwrap());
    assert!(ring.closed().is_none(), "nobody stands behind a stage of the last layer");
    drop(ring.consumer("left 3").unwrap());
    assert!(matches!(ring.closed(), Some(Closed::Failed { .. })), "others stand behind this one");
}
