//! Tables against a naive map: at each position a table has what a map over the events below it has.

use crate::soon::{LONG, soon};
use proptest::prelude::*;
use slipring::journal::{Visible, simulated::SimulatedDisk};
use slipring::table::{OpenTableError, Table, TableError};
use slipring::{Engine, Level, Message, Record, Topic};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A key, and a value that no other event of the test has.
type Tick = [u32; 2];

fn key(tick: &Tick) -> u32 {
    tick[0]
}

fn in_memory(engine: &Engine, capacity: usize) -> Topic<Tick> {
    engine.topic::<Tick>("ticks").capacity(capacity).retain(capacity - 1).create().unwrap()
}

fn durable(disk: &SimulatedDisk, capacity: usize) -> (Engine, Topic<Tick>) {
    let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
    let ticks = engine.topic::<Tick>("ticks").capacity(capacity).durable().create().unwrap();
    (engine, ticks)
}

/// The map over the events below an offset.
fn naive(events: &[(u64, Tick)], below: u64) -> BTreeMap<u32, (u64, u32)> {
    let before = events.iter().filter(|(offset, _)| *offset < below);
    before.map(|&(offset, [key, value])| (key, (offset, value))).collect()
}

/// Compares a view with the map, and returns its position.
fn compare(table: &Table<u32, Tick>, events: &[(u64, Tick)]) -> u64 {
    let view = table.view().unwrap();
    let position = view.position(0).unwrap_or(0);
    let seen: BTreeMap<_, _> = view.iter().map(|row| (*row.key, (row.at.offset, row.event[1]))).collect();
    assert_eq!(seen, naive(events, position), "below {position}");
    assert_eq!(seen.len(), view.len());
    assert!(view.iter().all(|row| view.get(row.key) == Some(row) && row.event[0] == *row.key));
    position
}

/// Publishes while one thread compares views, and another builds a map of its own from the changes.
fn follow(ticks: &Topic<Tick>, events: &[(u64, Tick)], new: &[(u64, Tick)]) {
    let table = ticks.table(key).open().unwrap();
    let all = [events, new].concat();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let publishes = scope.spawn(|| {
            let mut producer = ticks.producer().create().unwrap();
            for (offset, tick) in new {
                assert_eq!(producer.publish(|place| *place = *tick).unwrap().offset, *offset);
            }
        });
        let views = scope.spawn(|| {
            let mut before = 0;
            while !is_over.load(Ordering::Acquire) {
                let position = compare(&table, &all);
                assert!(position >= before, "a table goes back from {before} to {position}");
                if position == before {
                    // The others need this thread's core where there are few.
                    table.wait_for(0, position, Duration::from_millis(1)).unwrap();
                }
                before = position;
            }
        });
        let changes = scope.spawn(|| {
            let (mut changes, mut own) = (table.changes(), BTreeMap::new());
            let (mut rows, mut last) = (0, None);
            while last.is_none_or(|last| last < all.last().unwrap().0) {
                let read = changes.read(LONG, |row| {
                    assert!(last.is_none_or(|last| last < row.at.offset), "each change once and in order");
                    last = Some(row.at.offset);
                    own.insert(*row.key, (row.at.offset, row.event[1]));
                });
                rows += read.unwrap().unwrap();
            }
            assert_eq!(own, naive(&all, u64::MAX));
            assert_eq!(rows as u64 + changes.left_out(), all.len() as u64, "each event is a change or left out");
        });
        publishes.join().unwrap();
        changes.join().unwrap();
        is_over.store(true, Ordering::Release);
        views.join().unwrap();
    });
    assert!(table.wait_for(0, all.last().unwrap().0, LONG).unwrap());
    assert!(compare(&table, &all) > all.last().unwrap().0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_table_in_memory_is_as_a_naive_map_at_each_position(
        before in prop::collection::vec(0..20_u32, 0..40),
        keys in prop::collection::vec(0..20_u32, 1..300),
        capacity in 1..6_u32,
    ) {
        let engine = Engine::builder().build().unwrap();
        let ticks = in_memory(&engine, 1 << capacity);
        let mut producer = ticks.producer().create().unwrap();
        let mut events: Vec<(u64, Tick)> = (0..).zip(before.iter().zip(0..).map(|(&key, value)| [key, value])).collect();
        for (_, tick) in &events {
            producer.publish(|place| *place = *tick).unwrap();
        }
        let first = events.len() as u64;
        let new: Vec<_> = (first..).zip(keys.iter().zip(1000..).map(|(&key, value)| [key, value])).collect();
        // What the ring retains of the earlier events is where the table begins.
        events.drain(..events.len().saturating_sub((1 << capacity) - 1));
        follow(&ticks, &events, &new);
    }

    /// Each life of the program publishes some more, and its table begins with what the journal has of the others.
    #[test]
    fn a_durable_table_is_as_a_naive_map_across_restarts(
        lives in prop::collection::vec(prop::collection::vec(0..20_u32, 1..150), 1..4),
        capacity in 2..6_u32,
    ) {
        let disk = SimulatedDisk::new();
        let (mut events, mut value): (Vec<(u64, Tick)>, u32) = (Vec::new(), 0);
        for life in lives {
            let (engine, ticks) = durable(&disk, 1 << capacity);
            let first = ticks.subscribe("first").poll().unwrap().first();
            let mut new = Vec::new();
            for (offset, key) in (first..).zip(life) {
                new.push((offset, [key, value]));
                value += 1;
            }
            follow(&ticks, &events, &new);
            events.extend(new);
            drop(ticks);
            prop_assert!(engine.shutdown(LONG).is_complete());
        }
    }
}

/// One reader holds a view for ever; the others get the newest values all the same, and the view does not change.
#[test]
fn a_view_that_is_held_stands_still_and_nobody_else_does() {
    soon("publishing", || {
        let engine = Engine::builder().build().unwrap();
        let ticks = in_memory(&engine, 4);
        let table = ticks.table(key).open().unwrap();
        let mut producer = ticks.producer().create().unwrap();
        let mut held = Vec::new();
        for value in 0..40 {
            let offset = producer.publish(|place| *place = [value % 7, value]).unwrap().offset;
            assert!(table.wait_for(0, offset, LONG).unwrap());
            assert_eq!(table.get(&(value % 7)).unwrap(), Some([value % 7, value]));
            held.push((value, table.view().unwrap()));
        }
        for (value, view) in &held {
            assert_eq!((view.position(0), view.events()), (Some(u64::from(*value) + 1), u64::from(*value) + 1));
            let last = |key: u32| (0..=*value).rev().find(|value| value % 7 == key);
            assert!((0..7).all(|key| view.get(&key).map(|row| row.event[1]) == last(key)));
        }
    });
}

#[test]
fn a_key_beyond_the_limit_ends_the_table_and_every_call_says_so() {
    let engine = Engine::builder().build().unwrap();
    let ticks = in_memory(&engine, 8);
    let table = ticks.table(key).name("last").keys(3).open().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    for value in 0..30 {
        producer.publish(|place| *place = [value % 3, value]).unwrap();
    }
    assert!(table.wait_for(0, 29, LONG).unwrap());
    let mut changes = table.changes();
    assert_eq!(changes.read(LONG, |_| ()).unwrap(), Some(3));
    producer.publish(|place| *place = [3, 30]).unwrap();
    let error = TableError::TooManyKeys { topic: "ticks".into(), table: "last".into(), limit: 3 };
    assert_eq!(changes.read(LONG, |_| ()).unwrap_err(), error);
    assert_eq!(table.wait_for(0, 30, LONG).unwrap_err(), error);
    assert_eq!(table.get(&0).unwrap_err(), error);
    assert_eq!(table.view().unwrap_err(), error);
    assert_eq!(
        (ticks.closed(), table.position(0)),
        (None, Some(30)),
        "it stands before the event that it does not have"
    );
    for value in 0..30 {
        producer.publish(|place| *place = [value, value]).unwrap();
    }
}

#[test]
fn a_key_function_that_panics_ends_the_table_and_not_the_topic() {
    let engine = Engine::builder().build().unwrap();
    let ticks = in_memory(&engine, 8);
    let table = ticks.table(|tick: &Tick| if tick[1] == 5 { panic!("no key") } else { tick[0] }).open().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    (0..30).for_each(|value| _ = producer.publish(|place| *place = [1, value]).unwrap());
    let error = table.wait_for(0, 29, LONG).unwrap_err();
    assert!(matches!(error, TableError::Panicked { .. }), "{error}");
    assert!(error.to_string().ends_with("its key function panicked: no key"), "{error}");
    assert_eq!(ticks.closed(), None);
}

#[test]
fn a_table_of_messages_by_key_in_several_partitions() {
    let engine = Engine::builder().build().unwrap();
    let orders = engine.topic::<Message>("orders").partitions(3).create().unwrap();
    let table = orders.table(|message: &Message| message.key().map(<[u8]>::to_vec)).open().unwrap();
    let mut producer = orders.producer().create().unwrap();
    for round in 0..5 {
        for key in 0..20 {
            producer.send(Record::new(&format!("{round}")).key(&format!("key {key}"))).unwrap();
        }
    }
    orders.add_partitions(1).unwrap();
    producer.send(Record::new("new").partition(3)).unwrap();
    orders.close();
    let mut changes = table.changes();
    let mut seen = BTreeMap::new();
    while changes.read(LONG, |row| _ = seen.insert(row.key.clone(), row.event.value().to_vec())).unwrap().is_some() {}
    assert_eq!((seen.len(), seen.remove(&None)), (21, Some(b"new".to_vec())));
    assert!(seen.values().all(|value| value == b"4"));
    // The topic has ended, and the table keeps its values.
    assert_eq!(table.get(&Some(b"key 7".to_vec())).unwrap().unwrap().value(), b"4");
    assert!(!table.wait_for(0, u64::MAX - 1, LONG).unwrap());
}

#[test]
fn a_failed_topic_is_told_and_no_old_value_is_taken_for_a_present_one() {
    let engine = Engine::builder().build().unwrap();
    let ticks = in_memory(&engine, 8);
    ticks.subscribe("fails").run(|tick: &Tick, _| if tick[1] == 5 { Err("no") } else { Ok(()) }).unwrap();
    let table = ticks.table(key).open().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    let mut value = 0..;
    while producer.publish(|place| *place = [1, value.next().unwrap()]).is_ok() {}
    assert!(matches!(table.wait_for(0, u64::MAX - 1, LONG), Err(TableError::Read(_))));
    assert!(table.get(&1).is_err());
}

#[test]
fn what_cannot_be_opened_is_refused() {
    let engine = Engine::builder().build().unwrap();
    let ticks = in_memory(&engine, 8);
    let _last = ticks.table(key).name("last").open().unwrap();
    assert!(matches!(ticks.table(key).name("last").open(), Err(OpenTableError::Subscribe(_))));
    assert!(matches!(ticks.table(key).visible(Visible::Written).open(), Err(OpenTableError::Subscribe(_))));
    let (_engine, durable) = durable(&SimulatedDisk::new(), 8);
    assert!(matches!(durable.table(key).name("").open(), Err(OpenTableError::Replay(_))));
}

#[test]
fn a_dropped_table_leaves_the_topic() {
    soon("tables that come and go", || {
        let disk = SimulatedDisk::new();
        let (engine, ticks) = durable(&disk, 8);
        let mut producer = ticks.producer().acknowledge(Level::Durable).create().unwrap();
        for value in 0..20 {
            let table = ticks.table(key).visible(Visible::Written).open().unwrap();
            let offset = producer.publish(|place| *place = [value, value]).unwrap().offset;
            assert!(table.clone().wait_for(0, offset, LONG).unwrap());
            assert_eq!(table.view().unwrap().len(), value as usize + 1);
        }
        while ticks.metrics().consumers.iter().any(|consumer| consumer.name.starts_with("table-")) {
            std::thread::yield_now();
        }
        drop((producer, ticks));
        assert!(engine.shutdown(Duration::from_secs(60)).is_complete());
    });
}
