//! A layout that changes: several versions of a program on one journal.

use slipring::journal::simulated::{Fault, SimulatedDisk};
use slipring::journal::{Options, RecordedTopic, Retention, recorded_topics};
use slipring::subscriber::StartAt;
use slipring::topic::{Deduplication, TopicError, Unreadable, Upgrades};
use slipring::{Engine, Level, Message, Persist, Record, Topic};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

slipring::plain_event! {
    #[derive(Debug, Default, PartialEq)]
    pub struct First { pub id: u32, pub cents: u32 }
}

slipring::plain_event! {
    /// As large as the first one, with the fields the other way round.
    #[derive(Debug, Default, PartialEq)]
    pub struct Second { pub cents: u32, pub id: u32 }
}

/// Bytes of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Third {
    id: u64,
    text: String,
}

impl Persist for Third {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(self.text.as_bytes());
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        let (id, text) = bytes.split_first_chunk().ok_or(Unreadable("eight bytes or more"))?;
        self.id = u64::from_le_bytes(*id);
        self.text = String::from_utf8(text.to_vec()).map_err(|_| Unreadable("text"))?;
        Ok(())
    }

    fn layout() -> String {
        "third 1".to_owned()
    }
}

fn first(id: u32) -> First {
    First { id, cents: id * 10 }
}

fn second(id: u32) -> Second {
    Second { cents: id * 10, id }
}

fn third(id: u32) -> Third {
    Third { id: id.into(), text: (id * 10).to_string() }
}

fn first_to_second(old: &First, new: &mut Second) {
    *new = Second { cents: old.cents, id: old.id };
}

fn second_to_third(old: &Second, new: &mut Third) {
    *new = Third { id: old.id.into(), text: old.cents.to_string() };
}

fn steps() -> Upgrades {
    Upgrades::new().step(first_to_second).step(second_to_third)
}

fn engine(disk: &SimulatedDisk) -> Engine {
    // Each test copies whole disks.
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap()
}

/// The topic as each version of the program opens it.
fn of_first(engine: &Engine) -> Result<Topic<First>, TopicError> {
    engine.topic::<First>("ticks").partitions(2).capacity(8).durable().create()
}

fn of_second(engine: &Engine) -> Result<Topic<Second>, TopicError> {
    engine.topic::<Second>("ticks").partitions(2).capacity(8).durable().upgrade(first_to_second).create()
}

fn of_third(engine: &Engine) -> Result<Topic<Third>, TopicError> {
    engine.topic::<Third>("ticks").partitions(2).capacity(8).durable().upgrades(steps()).create()
}

fn publish<E: Persist + Clone>(topic: &Topic<E>, events: impl IntoIterator<Item = (u32, E)>) {
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    for (id, event) in events {
        producer.publish_to(id % 2, |to| *to = event.clone()).unwrap();
    }
}

/// All events of each partition, with their offsets.
fn read<E: Persist + Clone>(topic: &Topic<E>, count: usize) -> Vec<Vec<(u64, E)>> {
    let mut replay = topic.replay("auditor").open().unwrap();
    let mut found = vec![Vec::new(); topic.partitions() as usize];
    while found.iter().map(Vec::len).sum::<usize>() < count {
        replay.read(LONG, |event, at| found[at.partition as usize].push((at.offset, event.clone()))).unwrap();
    }
    found
}

/// The events with these ids, by partition, without offsets.
fn expected<E>(ids: std::ops::Range<u32>, make: impl Fn(u32) -> E) -> Vec<Vec<E>> {
    (0..2).map(|side| ids.clone().filter(|id| id % 2 == side).map(&make).collect()).collect()
}

fn events<E: Clone>(found: &[Vec<(u64, E)>]) -> Vec<Vec<E>> {
    found.iter().map(|events| events.iter().map(|(_, event)| event.clone()).collect()).collect()
}

fn recorded(disk: &SimulatedDisk) -> RecordedTopic {
    let engine = engine(&disk.copy());
    let topics = recorded_topics(&engine.recovered().unwrap().state);
    engine.shutdown(LONG);
    topics.into_iter().find(|topic| topic.name == "ticks").unwrap()
}

/// The ids 0 to 39 by the first version, 40 to 59 by the second, 60 to 79 by the third.
fn three_versions() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let engine_1 = engine(&disk);
    publish(&of_first(&engine_1).unwrap(), (0..40).map(|id| (id, first(id))));
    engine_1.shutdown(LONG);
    // A crash leaves reserved offsets unused.
    let disk = disk.crash(1);
    let engine_2 = engine(&disk);
    publish(&of_second(&engine_2).unwrap(), (40..60).map(|id| (id, second(id))));
    let killed = disk.copy();
    engine_2.shutdown(LONG);
    let engine_3 = engine(&killed);
    publish(&of_third(&engine_3).unwrap(), (60..80).map(|id| (id, third(id))));
    engine_3.shutdown(LONG);
    killed
}

#[test]
fn replays_groups_queues_and_transforms_get_each_record_in_the_present_layout() {
    let disk = three_versions();
    let engine = engine(&disk);
    let ticks = of_third(&engine).unwrap();
    let found = read(&ticks, 80);
    assert_eq!(events(&found), expected(0..80, third));
    for events in &found {
        assert!(events.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets ascend");
        assert!((0..20).all(|at| events[at].0 == at as u64), "and stay as they were");
        assert!(events[30].0 > 1000, "those that the killed program had reserved are left out: {}", events[30].0);
    }
    let mut member = ticks.group("sums").start(StartAt::Earliest).join().unwrap();
    let mut by_group = vec![Vec::new(); 2];
    while by_group.iter().map(Vec::len).sum::<usize>() < 80 {
        let batch = member.poll(LONG).unwrap().unwrap();
        batch.iter().for_each(|(event, at)| by_group[at.partition as usize].push(event.clone()));
        batch.commit().unwrap();
    }
    assert_eq!(by_group, expected(0..80, third));
    drop(member);
    // Messages that wait when the queue is opened again are loaded from the journal one by one.
    let mut worker = ticks.queue("work").acknowledge(Level::Durable).join().unwrap();
    let refused: Vec<_> = (0..10).map(|_| worker.receive(LONG).unwrap().unwrap()).collect();
    refused.into_iter().for_each(|lease| lease.nack(Duration::from_millis(1), "not now").unwrap());
    drop((worker, ticks));
    engine.shutdown(LONG);
    let engine = self::engine(&disk);
    let ticks = of_third(&engine).unwrap();
    let mut worker = ticks.queue("work").acknowledge(Level::Durable).join().unwrap();
    let (mut by_queue, mut again) = (vec![Vec::new(); 2], 0);
    for _ in 0..80 {
        let lease = worker.receive(LONG).unwrap().unwrap();
        again += u32::from(lease.attempt() > 1);
        by_queue[lease.partition() as usize].push(lease.message().clone());
        lease.ack().unwrap();
    }
    by_queue.iter_mut().for_each(|events| events.sort_by_key(|event| event.id));
    assert_eq!((by_queue, again), (expected(0..80, third), 10));
    drop(worker);
    let copies = engine.topic::<Third>("copies").partitions(2).capacity(64).durable().create().unwrap();
    let mut copying = ticks.transform("copying").open().unwrap();
    let mut left = 80;
    while left > 0 {
        let copy = |event: &Third, at: slipring::subscriber::At, out: &mut slipring::transaction::Transaction| {
            out.publish_to(&copies, at.partition, |to| *to = event.clone())
        };
        left -= copying.step(LONG, copy).unwrap().unwrap_or(0);
    }
    assert_eq!(events(&read(&copies, 80)), expected(0..80, third));
    drop((copying, copies));
    // New events come from the rings, without a step.
    publish(&ticks, (80..90).map(|id| (id, third(id))));
    assert_eq!(events(&read(&ticks, 90)), expected(0..90, third));
    drop(ticks);
    engine.shutdown(LONG);
}

#[test]
fn the_catalogue_has_all_layouts_with_the_ends_of_their_offsets() {
    let disk = three_versions();
    let topic = recorded(&disk);
    assert_eq!((topic.layout.as_str(), topic.older.len()), ("third 1", 2));
    assert_eq!(topic.older[0].layout, "plain data id:u32@0 cents:u32@4 size=8 align=4");
    assert_eq!(topic.older[1].layout, "plain data cents:u32@0 id:u32@4 size=8 align=4");
    assert_eq!((topic.older_at(0, 0), topic.older_at(1, 19)), (Some(0), Some(0)));
    let (first, second) = (topic.older[0].ends[0], topic.older[1].ends[0]);
    assert_eq!((topic.older_at(0, first), topic.older_at(0, second), topic.older_at(7, 0)), (Some(1), None, None));
    // Opening it again adds nothing.
    let engine = engine(&disk);
    drop(of_third(&engine).unwrap());
    engine.shutdown(LONG);
    assert_eq!(recorded(&disk), topic);
}

#[test]
fn an_older_program_is_told_of_both_layouts_and_changes_nothing() {
    let disk = three_versions();
    let before = recorded(&disk);
    let engine = engine(&disk);
    let refused = of_first(&engine).map(drop).unwrap_err();
    let TopicError::NewerLayout { there, asked, .. } = &refused else { panic!("{refused}") };
    assert_eq!((there.as_str(), asked.as_str()), ("third 1", First::layout().as_str()));
    let refused = of_second(&engine).map(drop).unwrap_err();
    assert!(matches!(&refused, TopicError::NewerLayout { .. }), "{refused}");
    assert!(refused.to_string().contains("third 1") && refused.to_string().contains("cents:u32@0"), "{refused}");
    // One that never was a layout of the topic.
    let refused = engine.topic::<u64>("ticks").partitions(2).durable().create().unwrap_err();
    assert!(matches!(&refused, TopicError::Recorded { .. }), "{refused}");
    assert_eq!(events(&read(&of_third(&engine).unwrap(), 80)), expected(0..80, third));
    engine.shutdown(LONG);
    assert_eq!(recorded(&disk), before);
}

#[test]
fn a_step_that_is_missing_is_named_until_its_records_are_gone() {
    let disk = three_versions();
    let engine = engine(&disk);
    let late = |engine: &Engine| {
        let topic = engine.topic::<Third>("ticks").partitions(2).capacity(8).durable();
        topic.keep(Retention { bytes: Some(64), ..Retention::default() }).upgrade(second_to_third)
    };
    let refused = late(&engine).create().map(drop).unwrap_err();
    let TopicError::NoUpgrade { there, asked, .. } = &refused else { panic!("{refused}") };
    assert_eq!((there.as_str(), asked.as_str()), (First::layout().as_str(), "third 1"));
    for (steps, told) in [
        (steps().step(|_: &First, _: &mut Third| ()), "another step from the same layout"),
        (steps().step(|_: &Third, _: &mut Third| ()), "from a layout to itself"),
    ] {
        let refused = engine.topic::<Third>("ticks").durable().upgrades(steps).create().map(drop).unwrap_err();
        assert!(refused.to_string().contains(told), "{refused}");
    }
    let refused = engine.topic::<Third>("memory").upgrades(steps()).create().map(drop).unwrap_err();
    assert!(refused.to_string().contains("a topic in memory"), "{refused}");
    let topic = engine.topic::<Third>("ticks").partitions(2).capacity(8).durable().upgrades(steps());
    let topic = topic.keep(Retention { bytes: Some(64), ..Retention::default() }).create().unwrap();
    engine.retain().unwrap();
    drop(topic);
    engine.shutdown(LONG);
    let engine = self::engine(&disk);
    let ticks = engine.topic::<Third>("ticks").partitions(2).capacity(8).durable().create().unwrap();
    let mut replay = ticks.replay("auditor").open().unwrap();
    let mut ids = Vec::new();
    loop {
        let live = replay.is_live();
        let read = replay.read(Duration::ZERO, |event, _| ids.push(event.id)).unwrap();
        if live && read == Some(0) {
            break;
        }
    }
    assert!((2..20).contains(&ids.len()) && ids.iter().all(|id| *id >= 60), "{ids:?}");
    drop(replay);
    drop(ticks);
    engine.shutdown(LONG);
}

#[test]
fn a_layout_that_comes_back_is_read_as_such() {
    let disk = SimulatedDisk::new();
    let engine_1 = engine(&disk);
    publish(&of_first(&engine_1).unwrap(), (0..10).map(|id| (id, first(id))));
    engine_1.shutdown(LONG);
    let engine_2 = engine(&disk);
    publish(&of_second(&engine_2).unwrap(), (10..20).map(|id| (id, second(id))));
    engine_2.shutdown(LONG);
    let engine_3 = engine(&disk);
    let back = |old: &Second, new: &mut First| *new = First { id: old.id, cents: old.cents };
    let ticks = engine_3.topic::<First>("ticks").partitions(2).durable().upgrade(back).create().unwrap();
    publish(&ticks, (20..30).map(|id| (id, first(id))));
    // A partition that is added now has no older records.
    ticks.add_partitions(1).unwrap();
    let mut producer = ticks.producer().acknowledge(Level::Durable).create().unwrap();
    producer.publish_to(2, |to| *to = first(77)).unwrap();
    let found = events(&read(&ticks, 31));
    assert_eq!((&found[..2], &found[2][..]), (&expected(0..30, first)[..], &[first(77)][..]));
    drop((producer, ticks));
    engine_3.shutdown(LONG);
    assert_eq!(recorded(&disk).older.len(), 2);
}

#[test]
fn fields_without_names_are_upgraded_by_the_type_that_names_them() {
    let disk = SimulatedDisk::new();
    let engine_1 = engine(&disk);
    let nameless = engine_1.topic::<[u32; 2]>("ticks").partitions(2).durable().create().unwrap();
    publish(&nameless, (0..10).map(|id| (id, [id, id * 10])));
    drop(nameless);
    engine_1.shutdown(LONG);
    let engine_2 = engine(&disk);
    publish(&of_second(&engine_2).unwrap(), (10..20).map(|id| (id, second(id))));
    assert_eq!(events(&read(&of_again(&engine_2), 20)), expected(0..20, second));
    engine_2.shutdown(LONG);
}

fn of_again(engine: &Engine) -> Topic<Second> {
    engine.get::<Second, slipring::producer::Multi>("ticks").unwrap()
}

#[test]
fn schemas_of_messages_go_step_by_step_and_ids_stay_known() {
    let disk = SimulatedDisk::new();
    let open = |engine: &Engine, schema: u32| {
        let window = Deduplication::within(LONG * 60);
        let topic = engine.topic::<Message>("words").max_message(64).durable().deduplicate(window).schema(schema);
        let topic = topic.upgrade_schema(1, |old, value| value.extend([b"2:", old.value()].concat()));
        topic.upgrade_schema(2, |old, value| value.extend([b"3:", old.value()].concat())).create()
    };
    for schema in 1..=3 {
        let engine = engine(&disk);
        let words = open(&engine, schema).unwrap();
        let mut producer = words.producer().acknowledge(Level::Durable).create().unwrap();
        let text = format!("word {schema}");
        producer.send(Record::new(&text).key("k").header("h", "v").id(&text)).unwrap();
        // It is known, whatever the schema in which it was recorded.
        producer.send(Record::new("again").id("word 1")).unwrap();
        let mut found = Vec::new();
        let mut replay = words.replay("auditor").open().unwrap();
        while found.len() < schema as usize {
            replay
                .read(LONG, |word, _| {
                    assert_eq!((word.key(), word.header("h")), (Some(&b"k"[..]), Some(&b"v"[..])));
                    found.push(String::from_utf8(word.value().to_vec()).unwrap());
                })
                .unwrap();
        }
        let expected =
            (1..=schema).map(|of| (of + 1..=schema).fold(format!("word {of}"), |text, to| format!("{to}:{text}")));
        assert_eq!(found, expected.collect::<Vec<_>>());
        assert_eq!(words.metrics().duplicates, 1);
        drop((producer, replay, words));
        engine.shutdown(LONG);
    }
    let engine = engine(&disk);
    let refused = open(&engine, 2).map(drop).unwrap_err();
    let told = refused.to_string();
    assert!(
        matches!(&refused, TopicError::NewerLayout { .. }) && told.contains("schema 3") && told.contains("schema 2"),
        "{told}"
    );
    let refused = engine.topic::<Message>("words").durable().create().map(drop).unwrap_err();
    assert!(matches!(&refused, TopicError::NewerLayout { .. }), "{refused}");
    engine.shutdown(LONG);
}

#[test]
fn a_crash_at_each_call_to_the_disk_leaves_the_older_layout_or_the_newer_one() {
    let written = SimulatedDisk::new();
    let engine_1 = engine(&written);
    publish(&of_first(&engine_1).unwrap(), (0..20).map(|id| (id, first(id))));
    engine_1.shutdown(LONG);
    let (mut older, mut empty, mut newer) = (0, 0, 0);
    for nth in 1.. {
        assert!(nth < 300, "no end");
        let disk = written.copy();
        let engine_2 = engine(&disk);
        disk.fail_after(nth, Fault::PowerCut);
        let mut acknowledged = 20;
        if let Ok(ticks) = of_second(&engine_2)
            && let Ok(mut producer) = ticks.producer().acknowledge(Level::Durable).create()
        {
            while acknowledged < 24 && producer.publish_to(acknowledged % 2, |to| *to = second(acknowledged)).is_ok() {
                acknowledged += 1;
            }
        }
        let after = disk.crash(nth);
        drop(engine_2);
        // Whichever version comes next finds all that was acknowledged, or is told that it is the older one.
        let engine_3 = engine(&after);
        match of_first(&engine_3) {
            Ok(ticks) => {
                assert_eq!(acknowledged, 20, "{nth}: what has the newer layout was acknowledged");
                assert_eq!(events(&read(&ticks, 20)), expected(0..20, first), "{nth}");
                older += 1;
            }
            Err(refused) => {
                assert!(matches!(&refused, TopicError::NewerLayout { .. }), "{nth}: {refused}");
                let ticks = of_second(&engine_3).unwrap();
                let found = events(&read(&ticks, acknowledged as usize));
                let all = expected(0..24, second);
                let whole = found.iter().zip(&all).all(|(found, all)| all.starts_with(found));
                assert!(whole, "{nth}: {found:?}");
                *if acknowledged == 20 { &mut empty } else { &mut newer } += 1;
            }
        }
        engine_3.shutdown(LONG);
        if acknowledged == 24 {
            break;
        }
    }
    assert!(older > 0 && empty > 0 && newer > 0, "{older} {empty} {newer}");
}

#[test]
fn a_panic_of_a_step_is_the_readers_and_names_it() {
    let disk = SimulatedDisk::new();
    let engine_1 = engine(&disk);
    publish(&of_first(&engine_1).unwrap(), [(0, first(0))]);
    engine_1.shutdown(LONG);
    let engine_2 = engine(&disk);
    let broken = |_: &First, _: &mut Second| panic!("no such price");
    let ticks = engine_2.topic::<Second>("ticks").partitions(2).durable().upgrade(broken).create().unwrap();
    let mut replay = ticks.replay("auditor").open().unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| replay.read(LONG, |_, _| ())));
    assert!(panicked.is_err());
    drop((replay, ticks));
    assert!(engine_2.shutdown(LONG).is_complete());
}
