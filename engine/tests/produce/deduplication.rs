//! Messages with an id: once within the window, whoever sends them, before and after restarts and crashes.

use proptest::prelude::*;
use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::{
    Engine, Level, Message, Record, Topic,
    clock::ManualClock,
    producer::{IdempotenceError, Partitioner, PublishError},
    topic::{Deduplication, Overflow},
    transaction::TransactionError,
};
use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use crate::crash::at_each_call;

const LONG: Duration = Duration::from_secs(60);

fn engine(disk: &SimulatedDisk, clock: &ManualClock) -> Engine {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).clock(clock.clone()).build().unwrap()
}

fn durable(engine: &Engine, window: Deduplication) -> Topic<Message> {
    engine.topic("orders").max_message(64).partitions(2).capacity(64).deduplicate(window).durable().create().unwrap()
}

/// How often each id is there.
fn ids(topic: &Topic<Message>) -> BTreeMap<String, usize> {
    let mut replay = topic.replay("auditor").open().unwrap();
    let mut ids = BTreeMap::new();
    loop {
        let live = replay.is_live();
        let read = replay.read(Duration::ZERO, |message, _| {
            let id = message.id().map(|id| String::from_utf8(id.to_vec()).unwrap()).unwrap_or_default();
            *ids.entry(id).or_insert(0) += 1;
        });
        if read.unwrap() == Some(0) && live {
            return ids;
        }
    }
}

#[test]
fn an_id_is_published_once_within_a_time() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let window = Deduplication::within(Duration::from_secs(10));
    let orders = engine.topic::<Message>("orders").deduplicate(window).single_producer().create().unwrap();
    let mut producer = orders.producer().create().unwrap();
    let first = producer.send(Record::new("a").id("1")).unwrap();
    clock.advance(Duration::from_secs(10) - Duration::from_nanos(1));
    assert_eq!(producer.try_send(Record::new("b").id("1")).unwrap(), first);
    clock.advance(Duration::from_nanos(1));
    assert_eq!(producer.send(Record::new("c").id("1")).unwrap().offset, 1, "the window is not prolonged by duplicates");
    // Without an id, or with an empty one, nothing is looked at.
    for offset in 2..5 {
        assert_eq!(producer.send(Record::new("d")).unwrap().offset, offset * 2 - 2);
        assert_eq!(producer.send(Record::new("d").id("")).unwrap().offset, offset * 2 - 1);
    }
    assert_eq!((orders.metrics().duplicates, orders.metrics().published), (1, 8));
}

proptest! {
    #[test]
    fn the_last_ids_are_known_and_no_others(sent in prop::collection::vec(0..9_u8, 1..200), window in 1..7_usize) {
        let engine = Engine::builder().build().unwrap();
        let window_of = Deduplication::last(window);
        let orders = engine.topic::<Message>("orders").partitions(3).deduplicate(window_of).create().unwrap();
        let mut producers = [0, 1].map(|_| orders.producer().partitioner(Partitioner::RoundRobin).create().unwrap());
        let mut known: Vec<(u8, slipring::Receipt)> = Vec::new();
        let mut published = 0;
        for (turn, id) in sent.into_iter().enumerate() {
            let receipt = producers[turn % 2].send(Record::new("x").id(&[id])).unwrap();
            match known.iter().find(|(other, _)| *other == id) {
                Some((_, first)) => prop_assert_eq!(&receipt, first),
                None => {
                    published += 1;
                    known.push((id, receipt));
                    if known.len() > window {
                        known.remove(0);
                    }
                }
            }
            prop_assert_eq!(orders.metrics().published, published);
        }
    }
}

#[test]
fn of_two_at_the_same_time_one_is_published_and_what_is_refused_may_be_sent_again() {
    let engine = Engine::builder().build().unwrap();
    let orders = engine.topic::<Message>("orders").capacity(1).deduplicate(Deduplication::last(10));
    let orders = orders.overflow(Overflow::Fail).create().unwrap();
    let mut tape = orders.subscribe("tape").poll().unwrap();
    let mut producer = orders.producer().create().unwrap();
    producer.send(Record::new("a").id("1")).unwrap();
    for _ in 0..2 {
        assert!(matches!(producer.send(Record::new("b").id("2")), Err(PublishError::Full { .. })));
    }
    tape.poll(Duration::ZERO).unwrap().unwrap().into_iter().for_each(drop);
    assert_eq!(producer.send(Record::new("b").id("2")).unwrap().offset, 1);

    // Whoever comes while another one waits for room waits for the same.
    let orders = engine.topic::<Message>("more").capacity(1).deduplicate(Deduplication::last(10)).create().unwrap();
    for round in 0..100_u64 {
        let mut tape = orders.subscribe("tape").poll().unwrap();
        orders.producer().create().unwrap().send(Record::new("x")).unwrap();
        let start = Barrier::new(3);
        let receipts: Vec<_> = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut producer = orders.producer().create().unwrap();
                        start.wait();
                        producer.send(Record::new("y").id(&round.to_le_bytes())).unwrap()
                    })
                })
                .collect();
            start.wait();
            tape.poll(LONG).unwrap().unwrap().into_iter().for_each(drop);
            senders.into_iter().map(|sender| sender.join().unwrap()).collect()
        });
        assert_eq!(receipts[0], receipts[1]);
        assert_eq!(orders.metrics().published, 2 * (round + 1));
    }
}

/// A publish of an id that another producer had claimed waited for it without limit under each policy, and who was refused
/// was told that partition 0 was full.
#[test]
fn a_claimed_id_is_waited_for_as_the_policy_allows() {
    const SOON: Duration = Duration::from_millis(10);
    for (overflow, waits) in [
        (Overflow::Fail, Some(Duration::ZERO)),
        (Overflow::DropNewest, Some(Duration::ZERO)),
        (Overflow::BlockFor(SOON), Some(SOON)),
        (Overflow::BlockFor(LONG), None),
        (Overflow::Block, None),
    ] {
        let engine = Engine::builder().build().unwrap();
        let orders = engine.topic::<Message>("orders").deduplicate(Deduplication::last(10)).overflow(overflow);
        let orders = orders.create().unwrap();
        let (claim, claimed) = sync_channel(0);
        let (go, going) = sync_channel(0);
        let going = Mutex::new(going);
        let slow = Partitioner::custom(move |_: Option<&[u8]>, _: u32| {
            claim.send(()).unwrap();
            going.lock().unwrap().recv().unwrap();
            0
        });
        let mut first = orders.producer().partitioner(slow).create().unwrap();
        let mut second = orders.producer().create().unwrap();
        let order = &Record::new("a").id("1");
        std::thread::scope(|scope| {
            let publish = scope.spawn(move || first.send(order).unwrap());
            claimed.recv().unwrap();
            let is_told = |refused: PublishError| {
                assert!(matches!(refused, PublishError::IdClaimed { .. }) && refused.is_full(), "{refused}");
                assert!(refused.to_string().contains("message with this id"), "{refused}");
            };
            is_told(second.try_send(order).unwrap_err());
            let asked = Instant::now();
            is_told(second.send_until(asked + SOON, order).unwrap_err());
            assert!(asked.elapsed() >= SOON);
            let asked = Instant::now();
            if let Some(waits) = waits {
                is_told(second.send(order).unwrap_err());
                assert!(asked.elapsed() >= waits);
            }
            let late = (waits == Some(SOON)) as u64;
            assert_eq!(orders.metrics().timed_out, 1 + late, "{overflow:?}");
            assert_eq!(orders.metrics().refused, 1 + u64::from(waits == Some(Duration::ZERO)), "{overflow:?}");
            let waiter = scope
                .spawn(move || if waits.is_none() { second.send(order) } else { second.try_send(Record::new("b")) });
            if waits.is_some() {
                waiter.join().unwrap().unwrap();
                go.send(()).unwrap();
                publish.join().unwrap();
            } else {
                go.send(()).unwrap();
                assert_eq!(waiter.join().unwrap().unwrap(), publish.join().unwrap());
            }
        });
    }
}

/// It waited for itself.
#[test]
fn what_a_partitioner_sends_with_the_id_of_its_message_is_refused() {
    let engine = Engine::builder().build().unwrap();
    let orders = engine.topic::<Message>("orders").deduplicate(Deduplication::last(10)).create().unwrap();
    let other = Mutex::new(orders.producer().create().unwrap());
    let told = Arc::new(Mutex::new(None));
    let tell = Arc::clone(&told);
    let nested = Partitioner::custom(move |_: Option<&[u8]>, _: u32| {
        *tell.lock().unwrap() = other.lock().unwrap().send(Record::new("b").id("1")).err();
        0
    });
    orders.producer().partitioner(nested).create().unwrap().send(Record::new("a").id("1")).unwrap();
    assert!(matches!(told.lock().unwrap().take(), Some(PublishError::IdClaimed { .. })));
    assert_eq!(orders.metrics().published, 1);
}

#[test]
fn who_does_not_look_at_ids_refuses_them() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let engine = engine(&disk, &clock);
    let orders = durable(&engine, Deduplication::last(10));
    let record = Record::new("a").id("1");
    let mut named = orders.producer().idempotent("gateway").unwrap();
    let refused = named.send(0, &record).unwrap_err();
    assert!(matches!(refused, IdempotenceError::Refused(PublishError::IdNotLookedAt { .. })), "{refused}");
    named.send(0, Record::new("a")).unwrap();
    let gathers = orders.producer().linger(LONG, 10).create().unwrap();
    assert!(matches!(gathers.send(&record), Err(PublishError::IdNotLookedAt { .. })));
    let refused = engine.transaction().unwrap().send(&orders, &record).unwrap_err();
    assert!(matches!(refused, TransactionError::Publish(PublishError::IdNotLookedAt { .. })), "{refused}");
}

#[test]
fn the_window_is_restored_from_the_journal() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let (last, within) = (Deduplication::last(50), Deduplication::within(Duration::from_secs(100)));
    {
        let engine = engine(&disk, &clock);
        let orders = durable(&engine, last);
        let mut producer = orders.producer().create().unwrap();
        for number in 0..100 {
            // The time that a message bears itself does not count.
            let old = slipring::clock::Timestamp::from_nanos(1);
            let id = number.to_string();
            producer.send(Record::new("x").key(&id).id(&id).timestamp(old)).unwrap().wait(Level::Written).unwrap();
            clock.advance(Duration::from_secs(1));
        }
        // So many without an id that it has to look back for long.
        (0..10_000).for_each(|_| _ = producer.send(Record::new("y")).unwrap());
        drop((producer, orders));
        assert!(engine.shutdown(LONG).is_complete());
    }
    let expected = |engine: &Engine, window, known: std::ops::Range<i32>| {
        let orders = durable(engine, window);
        let mut producer = orders.producer().acknowledge(Level::Durable).create().unwrap();
        let before = orders.metrics().duplicates;
        for number in known.clone() {
            let id = number.to_string();
            assert_eq!(producer.send(Record::new("z").key(&id).id(&id)).unwrap().level(), Level::Durable);
        }
        assert_eq!(orders.metrics().duplicates - before, known.len() as u64);
        let id = (known.start - 1).to_string();
        producer.send(Record::new("z").id(&id)).unwrap();
        assert_eq!(orders.metrics().duplicates - before, known.len() as u64, "{id} is not known");
    };
    for (window, known) in [(last, 50..100), (within, 31..100)] {
        let disk = disk.copy();
        clock.advance(Duration::from_secs(30 * u64::from(window == within)));
        expected(&engine(&disk, &clock), window, known);
    }
}

#[test]
fn after_a_crash_at_each_call_to_the_disk_each_id_is_there_once_and_what_was_acknowledged_is() {
    const IDS: usize = 30;
    let clock = ManualClock::new();
    let send = |disk: &SimulatedDisk| {
        let mut acknowledged = 0;
        let options = Options { segment_size: 1 << 18, ..Options::default() };
        let built = Engine::builder().journal_in(disk.clone()).journal_options(options).clock(clock.clone()).build();
        let Ok(engine) = built else { return acknowledged };
        let _ = (|| {
            let orders = engine.topic("orders").max_message(64).partitions(2).capacity(64);
            let orders: Topic<Message> = orders.deduplicate(Deduplication::last(100)).durable().create().ok()?;
            let mut producer = orders.producer().create().ok()?;
            for number in 0..IDS {
                let id = number.to_string();
                let receipt = producer.send(Record::new("x").key(&id).id(&id)).ok()?;
                if number % 4 == 3 {
                    receipt.wait(Level::Durable).ok()?;
                    acknowledged = number;
                }
            }
            Some(())
        })();
        engine.shutdown(Duration::from_secs(5));
        acknowledged
    };
    let crashes = at_each_call(
        |disk, _| send(disk),
        |acknowledged, nth, disk| {
            let disk = disk.crash(nth * 31);
            {
                let engine = engine(&disk, &clock);
                let there = ids(&durable(&engine, Deduplication::last(100)));
                // Every fourth was waited for, and no other.
                let waited = (3..=acknowledged).step_by(4);
                waited.for_each(|id| assert!(there.contains_key(&id.to_string()), "call {nth}: {id} of {there:?}"));
                assert!(engine.shutdown(LONG).is_complete());
            }
            send(&disk);
            let engine = engine(&disk, &clock);
            let there = ids(&durable(&engine, Deduplication::last(100)));
            assert!(there.len() == IDS && there.values().all(|count| *count == 1), "call {nth}: {there:?}");
        },
    );
    assert!(crashes > 15, "{crashes}");
}

#[test]
fn a_window_without_end_is_restored() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    // The clock of a process that has been there for a while, with younger messages.
    clock.advance(Duration::from_secs(3600));
    for round in 0..2 {
        let engine = engine(&disk, &clock);
        let orders = durable(&engine, Deduplication::within(Duration::MAX));
        let mut producer = orders.producer().acknowledge(Level::Durable).create().unwrap();
        producer.send(Record::new("x").id("1")).unwrap();
        assert_eq!(orders.metrics().duplicates, round);
        drop((producer, orders));
        assert!(engine.shutdown(LONG).is_complete());
    }
}
