//! A disk without room, and a process without descriptors, while the journal needs its next segment: what was written is in no
//! danger, so nothing ends as long as the present segment has room.

use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Options, Retention};
use slipring::{
    Engine, EngineError, Level, Message, Producer, Record, Topic,
    producer::PublishError,
    topic::{Closed, Overflow},
};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const SEGMENT: u64 = 1 << 17;
/// Of a message; some seventy of them fill a segment.
const BYTES: usize = 1500;

fn engine(disk: &SimulatedDisk) -> Result<Engine, EngineError> {
    let options = Options { segment_size: SEGMENT, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build()
}

fn ticks(engine: &Engine, keep: Option<u64>, overflow: Overflow) -> Topic<Message> {
    let ticks = engine.topic::<Message>("ticks").capacity(4).max_message(2048).overflow(overflow).durable();
    ticks.keep(Retention { bytes: keep, ..Retention::default() }).create().unwrap()
}

/// Publishes the next number, and waits until it is safe.
fn publish(producer: &mut Producer<Message>, number: u64) -> Result<(), PublishError> {
    let value = [&number.to_le_bytes()[..], &[7; BYTES - 8]].concat();
    producer.send(Record::new(&value)).map(|receipt| assert_eq!(receipt.offset, number))
}

/// All that the journal has, from the first offset that it keeps.
fn read(topic: &Topic<Message>) -> Vec<u64> {
    let mut replay = topic.replay("auditor").open().unwrap();
    let mut numbers = Vec::new();
    let each = |message: &Message| u64::from_le_bytes(message.value()[..8].try_into().unwrap());
    loop {
        let live = replay.is_live();
        let read = replay.read(Duration::ZERO, |message, _| numbers.push(each(message))).unwrap();
        if read.is_none() || (live && read == Some(0)) {
            return numbers;
        }
    }
}

fn segments(disk: &SimulatedDisk) -> u64 {
    disk.take_traffic().keys().filter(|name| name.ends_with(".segment")).count() as u64
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_limit_of_open_files_while_the_next_segment_is_made_ends_nothing() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk).unwrap();
    let topic = ticks(&engine, None, Overflow::Block);
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    let mut next = 0;
    for round in 1..4 {
        until("the next segment is made ahead", || segments(&disk) == round + 1);
        disk.set_most_open(Some(0));
        // Through what is left of this segment, and half of the one that was made ahead.
        let end = (engine.journal().unwrap().written() / SEGMENT + 1) * SEGMENT + SEGMENT / 2;
        while engine.journal().unwrap().written() < end {
            publish(&mut producer, next).unwrap();
            next += 1;
        }
        assert_eq!(segments(&disk), round + 1, "the limit holds");
        // It is tried again, and not all the time.
        let (before, begun) = (disk.calls(), Instant::now());
        std::thread::sleep(Duration::from_secs(1));
        let (calls, seconds) = (disk.calls() - before, begun.elapsed().as_secs_f64());
        assert!(calls > 2 && (calls as f64) < 50.0 * seconds, "{calls} calls in {seconds} s");
        disk.set_most_open(None);
    }
    assert!(next > 150);
    drop((producer, topic));
    let report = engine.shutdown(LONG);
    assert!(report.is_complete(), "{report}");
    drop(engine);
    let engine = self::engine(&disk).unwrap();
    assert!(read(&ticks(&engine, None, Overflow::Block)).into_iter().eq(0..next));
}

/// It failed at the end of the segment, up to a minute before the next look at what topics keep.
#[test]
fn a_disk_that_stays_full_is_left_by_what_topics_do_not_keep() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk).unwrap();
    let topic = ticks(&engine, Some(SEGMENT), Overflow::Block);
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    let written = || engine.journal().unwrap().written();
    let mut next = 0;
    while written() < 4 * SEGMENT {
        publish(&mut producer, next).unwrap();
        next += 1;
    }
    disk.set_room(Some(0));
    while written() < 12 * SEGMENT {
        publish(&mut producer, next).unwrap();
        next += 1;
    }
    assert!(segments(&disk) <= 6, "{}", segments(&disk));
    drop((producer, topic));
    let report = engine.shutdown(LONG);
    assert!(report.is_complete(), "{report}");
    drop(engine);
    let engine = self::engine(&disk).unwrap();
    let left = read(&ticks(&engine, Some(SEGMENT), Overflow::Block));
    assert!(left.len() as u64 * BYTES as u64 > SEGMENT / 2 && left.iter().copied().eq(left[0]..next));
}

/// Where nothing may be forgotten: an error that says so, at once, whatever producers do where a ring is full; and all that was
/// acknowledged is there, also before there is room again.
#[test]
fn a_disk_that_stays_full_where_everything_is_kept_ends_in_an_error_and_loses_nothing() {
    for overflow in [Overflow::Block, Overflow::BlockFor(LONG), Overflow::Fail, Overflow::DropNewest] {
        let disk = SimulatedDisk::new();
        let engine = engine(&disk).unwrap();
        let topic = ticks(&engine, None, overflow);
        let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
        until("the next segment is made ahead", || segments(&disk) == 2);
        disk.set_room(Some(0));
        let mut acknowledged = 0;
        let begun = Instant::now();
        let refused = loop {
            match publish(&mut producer, acknowledged) {
                Ok(()) => acknowledged += 1,
                Err(refused) => break refused,
            }
        };
        assert!(begun.elapsed() < LONG, "{overflow:?}");
        // All of the segment that was made ahead, but for its reserve.
        assert!(acknowledged * BYTES as u64 > SEGMENT * 3 / 2, "{overflow:?}: {acknowledged}");
        assert!(refused.to_string().contains("full"), "{overflow:?}: {refused}");
        assert!(matches!(topic.closed(), Some(Closed::Failed { .. })), "{overflow:?}: {:?}", topic.closed());
        let again = publish(&mut producer, acknowledged).unwrap_err();
        assert!(again.to_string().contains("full"), "{overflow:?}: {again}");
        drop((producer, topic));
        let report = engine.shutdown(LONG);
        assert!(matches!(&report.journal, Some(Err(cause)) if cause.to_string().contains("full")), "{report}");
        drop(engine);
        // It opens without room; with room it goes on.
        let engine = self::engine(&disk).unwrap();
        disk.set_room(None);
        let topic = ticks(&engine, None, overflow);
        let there = read(&topic);
        assert!(there.len() as u64 >= acknowledged && there.iter().copied().eq(0..there.len() as u64), "{there:?}");
        let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
        producer.send(Record::new(&[0; 8])).unwrap();
        assert!(engine.shutdown(LONG).journal.is_some_and(|ended| ended.is_ok()));
    }
}
