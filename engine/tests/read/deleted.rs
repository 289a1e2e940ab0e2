//! Deleting a topic that somebody reads from the journal, without a stage in a ring.

use slipring::journal::{Options, simulated::SimulatedDisk};
use slipring::topic::{Closed, TopicError};
use slipring::{Engine, Level, Topic, replay::ReplayError};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

const PUBLISHED: u64 = 100;

/// A topic of 100 events whose rings hold 4.
fn engine() -> (Engine, Topic<u64>) {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").capacity(4).durable().create().unwrap();
    let mut producer = ticks.producer().acknowledge(Level::Durable).create().unwrap();
    (0..PUBLISHED).for_each(|tick| _ = producer.publish(|place| *place = tick).unwrap());
    (engine, ticks)
}

/// It is refused, with the name, and nothing has changed.
fn refuses(engine: &Engine, reader: &str) {
    let refused = engine.delete("ticks").unwrap_err();
    assert!(matches!(&refused, TopicError::InUse { consumers, .. } if consumers == &[reader]), "{refused}");
    assert!(engine.topics().contains(&"ticks".to_owned()) && engine.failures().is_empty());
    assert!(engine.get::<u64, slipring::producer::Multi>("ticks").unwrap().closed().is_none());
}

#[test]
fn a_topic_is_not_deleted_under_a_replay_that_catches_up() {
    let (engine, ticks) = engine();
    let mut tape = ticks.replay("tape").open().unwrap();
    refuses(&engine, "tape");
    let mut seen = 0;
    assert!(tape.read(LONG, |_, _| seen += 1).unwrap().is_some_and(|read| read > 0));
    refuses(&engine, "tape");
    ticks.close();
    assert!(engine.delete("ticks").is_err(), "there is more to be read");
    while tape.read(LONG, |_, _| seen += 1).unwrap().is_some() {}
    assert_eq!(seen, PUBLISHED);
    engine.delete("ticks").unwrap();
}

#[test]
fn a_topic_is_not_deleted_under_a_group_that_catches_up() {
    let (engine, ticks) = engine();
    let mut member = ticks.group("sums").join().unwrap();
    refuses(&engine, "group:sums");
    assert!(member.poll(LONG).unwrap().is_some_and(|batch| !batch.is_empty()));
    assert!(engine.groups()[0].partitions[0].catching_up);
    refuses(&engine, "group:sums");
    drop(member);
    engine.delete("ticks").unwrap();
}

#[test]
fn a_topic_is_not_deleted_under_a_transform() {
    let (engine, ticks) = engine();
    let copy = ticks.transform("copy").open().unwrap();
    // It has read nothing yet.
    refuses(&engine, "transform:copy");
    drop(copy);
    let twice = engine.topic::<u64>("twice").durable().create().unwrap();
    let run = engine.transform("ticks", "twice", "copy", |tick: &u64, _, out| out.publish(|to: &mut u64| *to = *tick));
    refuses(&engine, "transform:copy");
    drop((run.unwrap(), twice));
    engine.delete_forced("ticks").unwrap();
}

#[test]
fn a_replay_that_catches_up_is_told_that_its_topic_was_deleted_by_force() {
    let (engine, ticks) = engine();
    let mut tape = ticks.replay("tape").open().unwrap();
    engine.delete_forced("ticks").unwrap();
    let told = tape.read(LONG, |_, _| ()).unwrap_err();
    assert!(matches!(told, ReplayError::Closed { reason: Closed::Halted, .. }), "{told}");
}
