//! Conflating subscribers against a naive map: each look has what a map over the events since the last look has.

use crate::soon::{LONG, soon};
use proptest::prelude::*;
use slipring::subscriber::{ConflateError, ConflatedSubscriber, StartAt, SubscribeError};
use slipring::topic::{Closed, Slow};
use slipring::{Engine, Message, Record, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A key, and a value that no other event of the test has.
type Tick = (u32, u32);

fn key(tick: &Tick) -> u32 {
    tick.0
}

fn topic(engine: &Engine, capacity: usize) -> Topic<Tick> {
    engine.topic::<Tick>("ticks").capacity(capacity).create().unwrap()
}

/// What one look has: key, value, offset, and count of older events.
type Look = Vec<(u32, u32, u64, u64)>;

/// The map over these events, the first of which has the offset `first`: in the order of the first change of each key.
fn naive(events: &[Tick], first: u64) -> Look {
    let mut look: Look = Vec::new();
    for (&(key, value), offset) in events.iter().zip(first..) {
        match look.iter_mut().find(|known| known.0 == key) {
            Some(known) => *known = (key, value, offset, known.3 + 1),
            None => look.push((key, value, offset, 0)),
        }
    }
    look
}

/// Looks until the topic is closed and all was returned, and compares each look with the naive map over the events that
/// it covers. Returns the count of looks that had something.
fn compare(mut last: ConflatedSubscriber<u32, Tick>, events: &[Tick], pauses: &[u8]) -> usize {
    let (mut from, mut looks) = (0, 0);
    for pause in pauses.iter().cycle() {
        let limit = if pause % 3 == 0 { Duration::ZERO } else { LONG };
        let Some(changes) = last.poll(limit).unwrap() else { break };
        if changes.is_empty() {
            assert!(changes.left_out() == 0);
        } else {
            looks += 1;
            let to = changes.position(0).unwrap();
            let seen: Look = changes.iter().map(|it| (*it.key, it.event.1, it.at.offset, it.left_out)).collect();
            assert_eq!(seen, naive(&events[from as usize..to as usize], from));
            assert_eq!(changes.left_out() + changes.len() as u64, to - from, "each event is returned or counted");
            from = to;
        }
        (0..*pause).for_each(|_| std::thread::yield_now());
    }
    assert_eq!(from, events.len() as u64, "all was returned when the topic was closed");
    looks
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn each_look_is_as_a_naive_map_over_what_came_since_the_last(
        keys in prop::collection::vec(0..20_u32, 1..400),
        capacity in 0..7_u32,
        pauses in prop::collection::vec(0..40_u8, 1..20),
    ) {
        let events: Vec<Tick> = keys.into_iter().zip(0..).collect();
        let engine = Engine::builder().build().unwrap();
        let ticks = topic(&engine, 1 << capacity);
        let last = ticks.subscribe("last").conflate(key).start().unwrap();
        let mut producer = ticks.producer().create().unwrap();
        let (to_come, stops) = (events.clone(), pauses.clone());
        let publishes = std::thread::spawn(move || {
            for (index, tick) in to_come.iter().enumerate() {
                producer.publish(|place| *place = *tick).unwrap();
                if stops[index % stops.len()] == 7 {
                    std::thread::yield_now();
                }
            }
            ticks.close();
        });
        let looks = compare(last, &events, &pauses);
        prop_assert!((1..=events.len()).contains(&looks));
        publishes.join().unwrap();
    }
}

/// A reader that never looks: the producers publish a thousand times the ring, and the newest values are there.
#[test]
fn a_reader_that_never_looks_holds_no_producer() {
    soon("publishing", || {
        let engine = Engine::builder().build().unwrap();
        let ticks = topic(&engine, 4);
        let mut last = ticks.subscribe("last").conflate(key).start().unwrap();
        let publishers: Vec<_> = (0..2)
            .map(|key| {
                let mut producer = ticks.producer().create().unwrap();
                std::thread::spawn(move || {
                    (0..2000).for_each(|value| _ = producer.publish(|place| *place = (key, value)).unwrap())
                })
            })
            .collect();
        publishers.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(engine.shutdown(LONG).is_complete(), "the thread that gathers has read all");
        let changes = last.poll(LONG).unwrap().unwrap();
        let mut seen: Vec<_> = changes.iter().map(|change| *change.event).collect();
        seen.sort_unstable();
        assert_eq!((seen, changes.left_out()), (vec![(0, 1999), (1, 1999)], 3998));
        assert!(last.poll(LONG).unwrap().is_none());
    });
}

/// Several partitions, one of which is added meanwhile, and a second reader that joins late.
#[test]
fn partitions_and_readers_that_come_later_are_gathered_too() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<Tick>("ticks").partitions(2).capacity(8).create().unwrap();
    let mut last = ticks.subscribe("last").conflate(key).start().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    (0..100).for_each(|value| _ = producer.publish_to(value % 2, |place| *place = (value % 5, value)).unwrap());
    ticks.add_partitions(1).unwrap();
    let mut late = ticks.subscribe("late").start(StartAt::Latest).conflate(key).start().unwrap();
    (100..200).for_each(|value| _ = producer.publish_to(value % 3, |place| *place = (value % 5, value)).unwrap());
    ticks.close();
    let read = |last: &mut ConflatedSubscriber<u32, Tick>| {
        let (mut newest, mut events) = (BTreeMap::new(), 0);
        while let Some(changes) = last.poll(LONG).unwrap() {
            for change in changes.iter() {
                // Between partitions there is no order: the newest is known in each one.
                newest.insert((*change.key, change.at.partition), change.event.1);
                events += change.left_out + 1;
            }
        }
        (newest, events)
    };
    let ((newest, events), (late, of_late)) = (read(&mut last), read(&mut late));
    assert_eq!((events, of_late), (200, 100));
    let newest_of = |key| newest.iter().filter(|((of, _), _)| *of == key).map(|(_, value)| *value).max();
    // One partition's newest event of a key may have been left out for another's, but never that which came last to be read.
    assert!((0..5).all(|key| newest_of(key).is_some_and(|value| value % 5 == key)));
    assert!(newest.keys().all(|&(_, partition)| partition < 3) && !late.is_empty());
}

#[test]
fn messages_are_copied_with_key_headers_and_value() {
    let engine = Engine::builder().build().unwrap();
    let orders = engine.topic::<Message>("orders").create().unwrap();
    let by_key = |message: &Message| message.key().map(<[u8]>::to_vec);
    let mut last = orders.subscribe("last").conflate(by_key).start().unwrap();
    let mut producer = orders.producer().create().unwrap();
    let sent = [("a", "a long value that comes first"), ("b", ""), ("a", "short"), ("a", "now a longer one again")];
    for (key, value) in sent {
        producer.send(Record::new(value).key(key).header("of", key)).unwrap();
    }
    orders.close();
    let mut newest = BTreeMap::new();
    while let Some(changes) = last.poll(LONG).unwrap() {
        newest.extend(changes.iter().map(|change| (change.key.clone().unwrap(), change.event.copy())));
    }
    let shown = |key: &str| {
        let message = &newest[key.as_bytes()];
        assert_eq!((message.key(), message.header("of")), (Some(key.as_bytes()), Some(key.as_bytes())));
        String::from_utf8(message.value().to_vec()).unwrap()
    };
    assert_eq!((newest.len(), &*shown("a"), &*shown("b")), (2, "now a longer one again", ""));
}

#[test]
fn too_many_keys_end_the_subscriber_after_what_was_gathered() {
    let engine = Engine::builder().build().unwrap();
    let ticks = topic(&engine, 4);
    let mut last = ticks.subscribe("last").conflate(key).keys(10).start().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    // Changes of ten keys are no error, however many there are.
    (0..1000).for_each(|value| _ = producer.publish(|place| *place = (value % 10, value)).unwrap());
    for value in 1000..1100 {
        producer.publish(|place| *place = (value, value)).unwrap();
    }
    let (changes, error) = loop_to_the_error(&mut last);
    let seen = changes.len();
    assert_eq!(error, ConflateError::TooManyKeys { topic: "ticks".into(), consumer: "last".into(), limit: 10 });
    assert!((11..20).contains(&seen), "the keys up to the part that had too many: {seen}");
    assert_eq!(ticks.closed(), None, "the topic goes on");
    assert!(last.poll(Duration::ZERO).is_err(), "the error stays");
    let again = ticks.subscribe("last").conflate(key).start();
    assert!(again.is_ok(), "the name is free once the reader has its error");
}

#[test]
fn however_much_is_there_no_more_than_a_part_is_gathered_beyond_the_allowed_keys() {
    let engine = Engine::builder().build().unwrap();
    let ticks = topic(&engine, 1 << 15);
    let (publish, published) = std::sync::mpsc::channel::<()>();
    // The thread stands at the first event until the last one is there.
    let held = move |tick: &Tick| {
        let _ = published.recv();
        key(tick)
    };
    let mut last = ticks.subscribe("last").conflate(held).keys(10).start().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    (0..20_000).for_each(|value| _ = producer.publish(|place| *place = (value, value)).unwrap());
    drop(publish);
    let (changes, error) = loop_to_the_error(&mut last);
    assert!(matches!(error, ConflateError::TooManyKeys { limit: 10, .. }), "{error}");
    assert!((11..=10 + 1024).contains(&changes.len()), "{}", changes.len());
}

/// Looks until the error. What the looks had, and the error.
fn loop_to_the_error(last: &mut ConflatedSubscriber<u32, Tick>) -> (Look, ConflateError) {
    let mut all = Look::new();
    loop {
        match last.poll(LONG) {
            Ok(changes) => {
                let changes = changes.expect("the topic is open");
                all.extend(changes.iter().map(|it| (*it.key, it.event.1, it.at.offset, it.left_out)));
            }
            Err(error) => return (all, error),
        }
    }
}

#[test]
fn a_key_function_that_panics_ends_the_subscriber_and_not_the_topic() {
    let engine = Engine::builder().build().unwrap();
    let ticks = topic(&engine, 4);
    let asked = |tick: &Tick| if tick.1 == 20 { panic!("no key") } else { tick.0 };
    let mut last = ticks.subscribe("last").conflate(asked).start().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    (0..100).for_each(|value| _ = producer.publish(|place| *place = (value % 3, value)).unwrap());
    let (_, error) = loop_to_the_error(&mut last);
    assert!(matches!(error, ConflateError::Panicked { .. }), "{error}");
    assert!(error.to_string().ends_with("its key function panicked: no key"), "{error}");
    assert_eq!(ticks.closed(), None);
}

#[test]
fn a_halted_or_failed_topic_is_told_after_what_was_gathered() {
    let engine = Engine::builder().build().unwrap();
    let ticks = topic(&engine, 4);
    let mut last = ticks.subscribe("last").conflate(key).start().unwrap();
    ticks.subscribe("fails").run(|tick: &Tick, _| if tick.1 == 50 { Err("no") } else { Ok(()) }).unwrap();
    let mut producer = ticks.producer().create().unwrap();
    while producer.publish(|place| *place = (1, place.1 + 50)).is_ok() {}
    let (_, error) = loop_to_the_error(&mut last);
    let ConflateError::Read(read) = error else { panic!("{error}") };
    assert!(matches!(read.reason, Closed::Failed { consumer, .. } if consumer == "fails"));
}

/// With `Slow::EVICT` not even the thread that gathers is waited for.
#[test]
fn a_thread_that_stands_still_is_evicted_if_that_is_its_policy() {
    soon("publishing", || {
        let engine = Engine::builder().build().unwrap();
        let ticks = topic(&engine, 4);
        let (has_begun, goes_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (begins, waits) = (Arc::clone(&has_begun), Arc::clone(&goes_on));
        let stands_still = move |tick: &Tick| {
            begins.store(true, Ordering::Release);
            while !waits.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            tick.0
        };
        let mut last = ticks.subscribe("last").slow(Slow::EVICT).conflate(stands_still).start().unwrap();
        let mut producer = ticks.producer().create().unwrap();
        producer.publish(|place| *place = (0, 0)).unwrap();
        while !has_begun.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        (1..4).for_each(|value| _ = producer.publish(|place| *place = (0, value)).unwrap());
        // This asks for its eviction, which is carried out when the part in hand ends: until then producers have no room.
        assert!(producer.try_publish(|place| *place = (0, 4)).is_err());
        goes_on.store(true, Ordering::Release);
        (5..1000).for_each(|value| _ = producer.publish(|place| *place = (0, value)).unwrap());
        ticks.close();
        let end = loop {
            match last.poll(LONG) {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        let ConflateError::Read(read) = end.expect("a producer has found the ring full") else { panic!() };
        assert!(matches!(read.reason, Closed::Evicted { .. }), "{read}");
    });
}

#[test]
fn a_dropped_subscriber_leaves_and_its_name_is_free() {
    soon("subscribing again and again", || {
        let engine = Engine::builder().build().unwrap();
        let ticks = topic(&engine, 4);
        let mut producer = ticks.producer().create().unwrap();
        for _ in 0..20 {
            let last = loop {
                match ticks.subscribe("last").conflate(key).start() {
                    Ok(last) => break last,
                    Err(SubscribeError::NameTaken { .. }) => std::thread::yield_now(),
                    Err(refused) => panic!("{refused}"),
                }
            };
            producer.publish(|place| *place = (1, 1)).unwrap();
            drop(last);
        }
        (0..100).for_each(|value| _ = producer.publish(|place| *place = (0, value)).unwrap());
        while !ticks.metrics().consumers.is_empty() {
            std::thread::yield_now();
        }
        assert!(engine.shutdown(LONG).is_complete());
    });
}

#[test]
fn waiting_ends_with_an_event_a_wake_up_or_the_limit() {
    let engine = Engine::builder().build().unwrap();
    let ticks = topic(&engine, 4);
    let mut last = ticks.subscribe("last").conflate(key).start().unwrap();
    assert!(last.poll(Duration::ZERO).unwrap().unwrap().is_empty());
    let begun = Instant::now();
    assert!(last.poll(Duration::from_millis(5)).unwrap().unwrap().is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(5));
    last.wakeup().wake();
    assert!(last.poll(Duration::MAX).unwrap().unwrap().is_empty());
    let mut producer = ticks.producer().create().unwrap();
    for value in 0..200 {
        let publishes = std::thread::scope(|scope| {
            scope.spawn(|| producer.publish(|place| *place = (9, value)).unwrap());
            last.poll(Duration::MAX).unwrap().unwrap().iter().map(|change| *change.event).collect::<Vec<_>>()
        });
        assert_eq!(publishes, [(9, value)]);
    }
}
