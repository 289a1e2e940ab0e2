//! The layout of plain data in the journal's catalogue: fields with names, types and offsets.

use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{NumberType, RecordedTopic, recorded_topics};
use slipring::topic::TopicError;
use slipring::{Engine, Level, Persist, Topic};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

slipring::plain_event! {
    #[derive(Debug, Default, PartialEq)]
    pub struct Quote { pub px: i64, pub qty: u32, pub venue: [u8; 4] }
}

slipring::plain_event! {
    #[derive(Debug, Default, PartialEq)]
    pub struct Other { pub px: i64, pub qty: u32, pub market: u32 }
}

fn engine(disk: &SimulatedDisk) -> Engine {
    Engine::builder().journal_in(disk.clone()).build().unwrap()
}

fn publish<E: Persist + Copy + Default>(topic: &Topic<E>, events: &[E]) {
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    events.iter().for_each(|event| _ = producer.publish(|to| *to = *event).unwrap());
}

fn read<E: Persist + Copy>(topic: &Topic<E>, count: usize) -> Vec<E> {
    let mut replay = topic.replay("auditor").open().unwrap();
    let mut events = Vec::new();
    while events.len() < count {
        replay.read(LONG, |event, _| events.push(*event)).unwrap();
    }
    events
}

fn recorded(engine: &Engine) -> Vec<RecordedTopic> {
    recorded_topics(&engine.recovered().unwrap().state)
}

const QUOTES: [Quote; 2] =
    [Quote { px: -101, qty: 2, venue: *b"XETR" }, Quote { px: i64::MAX, qty: u32::MAX, venue: [0, 1, 0xfe, 0xff] }];

#[test]
fn fields_are_in_the_catalogue_after_a_restart() {
    let disk = SimulatedDisk::new();
    let first = engine(&disk);
    // In memory alone, too.
    let quotes = first.topic::<Quote>("in-memory").retain(2).create().unwrap();
    quotes.producer().create().unwrap().publish(|to| *to = QUOTES[0]).unwrap();
    let quotes = first.topic::<Quote>("quotes").capacity(64).durable().create().unwrap();
    publish(&quotes, &QUOTES);
    drop(quotes);
    first.shutdown(LONG);

    let second = engine(&disk.crash(7));
    let topics = recorded(&second);
    assert_eq!(topics[0].layout, "plain data px:i64@0 qty:u32@8 venue:u8[4]@12 size=16 align=8");
    let layout = topics[0].fields().unwrap();
    let fields: Vec<_> =
        layout.fields().iter().map(|of| (of.name(), of.number_type(), of.len(), of.offset())).collect();
    let expected =
        [("px", NumberType::I64, None, 0), ("qty", NumberType::U32, None, 8), ("venue", NumberType::U8, Some(4), 12)];
    assert_eq!((&fields[..], layout.size()), (&expected[..], 16));
    let quotes = second.topic::<Quote>("quotes").capacity(64).durable().create().unwrap();
    assert_eq!(read(&quotes, 2), QUOTES);
    // From slots and from the journal, in batches and one by one, with and without times.
    let timed = second.topic::<Quote>("timed").capacity(64).timestamps().durable().create().unwrap();
    publish(&timed, &QUOTES);
    assert_eq!(read(&timed, 2), QUOTES);
    // A queue, and a transaction.
    let mut worker = quotes.queue("work").join().unwrap();
    let mut both = second.transaction().unwrap();
    both.publish_to(&quotes, 0, |to| *to = QUOTES[1]).unwrap();
    both.commit().unwrap();
    let lease = worker.receive(LONG).unwrap().unwrap();
    assert!(QUOTES.contains(lease.message()));
    lease.ack().unwrap();
    drop((worker, quotes, timed));
    second.shutdown(LONG);
}

#[test]
fn other_fields_of_the_same_size_are_refused_with_both_layouts() {
    let disk = SimulatedDisk::new();
    let first = engine(&disk);
    publish(&first.topic::<Quote>("quotes").durable().create().unwrap(), &QUOTES);
    first.shutdown(LONG);
    let second = engine(&disk);
    let refused = second.topic::<Other>("quotes").durable().create().unwrap_err();
    assert!(matches!(&refused, TopicError::Recorded { .. }), "{refused}");
    let told = refused.to_string();
    assert!(told.contains("venue:u8[4]@12") && told.contains("market:u32@12"), "{told}");
    // A type of this size whose fields have no names could be any.
    let refused = second.topic::<[u64; 2]>("quotes").durable().create().unwrap_err();
    assert!(refused.to_string().contains("plain data of 16 bytes"), "{refused}");
    assert_eq!(read(&second.topic::<Quote>("quotes").durable().create().unwrap(), 2), QUOTES);
    second.shutdown(LONG);
}

#[test]
fn a_topic_without_names_gets_them_and_keeps_its_events() {
    let disk = SimulatedDisk::new();
    let first = engine(&disk);
    publish(&first.topic::<[u64; 2]>("quotes").durable().create().unwrap(), &[[7, 1 << 32 | 5]]);
    publish(&first.topic::<[u64; 3]>("larger").durable().create().unwrap(), &[[7; 3]]);
    first.shutdown(LONG);
    let second = engine(&disk);
    let quotes = second.topic::<Quote>("quotes").durable().create().unwrap();
    let expected = Quote { px: 7, qty: 5, venue: [1, 0, 0, 0] };
    assert_eq!(read(&quotes, 1), [expected]);
    let refused = second.topic::<Quote>("larger").durable().create().unwrap_err();
    assert!(refused.to_string().contains("plain data of 24 bytes"), "{refused}");
    publish(&quotes, &QUOTES);
    drop(quotes);
    second.shutdown(LONG);
    let third = engine(&disk.crash(3));
    let topics = recorded(&third);
    let of = |name: &str| topics.iter().find(|topic| topic.name == name).unwrap();
    assert!(of("quotes").fields().is_some() && of("larger").fields().is_none(), "{topics:?}");
    let quotes = third.topic::<Quote>("quotes").durable().create().unwrap();
    assert_eq!(read(&quotes, 3), [expected, QUOTES[0], QUOTES[1]]);
    drop(quotes);
    third.shutdown(LONG);
}
