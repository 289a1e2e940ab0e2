//! What it costs to catch up: bytes that are read of the journal, by replays and by groups that are behind.

use crate::counting::{segments, take, take_sum};
use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Options, Visible};
use slipring::{
    Engine, Level, Message, Record, Topic, journal::Pace, producer::Partitioner, subscriber::StartAt,
    topic::Deduplication,
};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);
const EVENTS: usize = 32_768;

fn engine(disk: &SimulatedDisk) -> Engine {
    let options = Options { segment_size: 1 << 20, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap()
}

fn topic(engine: &Engine, partitions: usize) -> Topic<Message> {
    let orders = engine.topic::<Message>("orders").partitions(partitions).capacity(256).max_message(128);
    orders.durable().create().unwrap()
}

/// A journal with so many events, spread evenly. What its segments have in bytes.
fn written(disk: &SimulatedDisk, partitions: usize) -> u64 {
    let engine = engine(disk);
    let orders = topic(&engine, partitions);
    let mut producer = orders.producer().partitioner(Partitioner::RoundRobin).create().unwrap();
    for number in 0..EVENTS {
        producer.send(Record::new(&format!("{number:0100}"))).unwrap();
    }
    drop((producer, orders));
    engine.shutdown(LONG);
    segments(disk)
}

/// Reads that much of a topic, each partition in order.
fn replayed(orders: &Topic<Message>, start: StartAt, total: usize) {
    let mut replay = orders.replay("tape").start(start).visible(Visible::Written).open().unwrap();
    let (mut seen, mut next) = (0, BTreeMap::<u32, u64>::new());
    let until = Instant::now() + LONG;
    while seen < total && Instant::now() < until {
        let each = |_: &Message, at: slipring::subscriber::At| {
            let expected = next.entry(at.partition).or_insert(at.offset);
            assert_eq!(at.offset, *expected);
            (*expected, seen) = (at.offset + 1, seen + 1);
        };
        replay.read(LONG, each).unwrap();
    }
    assert_eq!(seen, total);
}

/// The same as a group.
fn grouped(orders: &Topic<Message>, group: &str, total: usize) {
    let mut member = orders.group(group).start(StartAt::Earliest).join().unwrap();
    let (mut seen, mut next) = (0, BTreeMap::<u32, u64>::new());
    let until = Instant::now() + LONG;
    while seen < total && Instant::now() < until {
        let batch = member.poll(LONG).unwrap().unwrap();
        let Some(partition) = batch.partition().map(|it| it.partition) else { continue };
        for (_, at) in &batch {
            let expected = next.entry(partition).or_insert(at.offset);
            assert_eq!(at.offset, *expected);
            (*expected, seen) = (at.offset + 1, seen + 1);
        }
        batch.commit().unwrap();
    }
    assert_eq!(seen, total);
}

/// The same as a queue, whose messages are received and acked one by one.
fn queued(orders: &Topic<Message>, total: usize) {
    let mut worker = orders.queue("late").start(StartAt::Earliest).join().unwrap();
    let mut seen = BTreeMap::<u32, u64>::new();
    for _ in 0..total {
        let lease = worker.receive(LONG).unwrap().expect("there are more");
        let next = seen.entry(lease.partition()).or_insert(lease.offset());
        assert_eq!(lease.offset(), *next);
        *next += 1;
        lease.ack().unwrap();
    }
    assert!(worker.receive(Duration::ZERO).unwrap().is_none());
}

/// The same as a transform, which makes nothing of it.
fn transformed(orders: &Topic<Message>, total: usize) {
    let mut copy = orders.transform("late").open().unwrap();
    let (mut seen, mut next) = (0, BTreeMap::<u32, u64>::new());
    let until = Instant::now() + LONG;
    while seen < total && Instant::now() < until {
        let each = |_: &Message, at: slipring::subscriber::At, _: &mut slipring::transaction::Transaction| {
            let expected = next.entry(at.partition).or_insert(at.offset);
            assert_eq!(at.offset, *expected);
            *expected = at.offset + 1;
            Ok::<_, Infallible>(())
        };
        seen += copy.step(LONG, each).unwrap().unwrap();
    }
    assert_eq!(seen, total);
}

fn assert_at_most(read: u64, times: f64, bytes: u64, what: &str) {
    assert!(read as f64 <= times * bytes as f64, "{what}: {read} bytes read of {bytes}");
}

#[test]
fn the_journal_is_read_once_whatever_the_number_of_partitions() {
    for partitions in [1, 4, 16, 64, 256] {
        let disk = SimulatedDisk::new();
        let bytes = written(&disk, partitions);
        let engine = engine(&disk);
        let orders = topic(&engine, partitions);
        take(&disk);
        replayed(&orders, StartAt::Earliest, EVENTS);
        assert_at_most(take_sum(&disk).read, 1.2, bytes, &format!("a replay of {partitions} partitions"));
        grouped(&orders, "late", EVENTS);
        assert_at_most(take_sum(&disk).read, 1.2, bytes, &format!("a group of {partitions} partitions"));
    }
}

/// Both write how far they are beside, into segments of their own age, which they don't read.
#[test]
fn a_late_queue_and_a_late_transform_read_the_journal_once_whatever_the_number_of_partitions() {
    for partitions in [1, 16, 256] {
        let disk = SimulatedDisk::new();
        let bytes = written(&disk, partitions);
        let engine = engine(&disk);
        let orders = topic(&engine, partitions);
        take(&disk);
        transformed(&orders, EVENTS);
        assert_at_most(take_sum(&disk).read, 1.2, bytes, &format!("a transform of {partitions} partitions"));
        queued(&orders, EVENTS);
        assert_at_most(take_sum(&disk).read, 1.2, bytes, &format!("a queue of {partitions} partitions"));
    }
}

/// What a topic remembers of its ids is read once too, and the window is that of the whole topic.
#[test]
fn ids_are_remembered_with_one_reading_whatever_the_number_of_partitions() {
    for partitions in [1, 16, 64] {
        let disk = SimulatedDisk::new();
        let topic = |engine: &Engine| {
            let orders = engine.topic::<Message>("orders").partitions(partitions).capacity(256).max_message(160);
            orders.deduplicate(Deduplication::last(EVENTS)).durable().create().unwrap()
        };
        let first = engine(&disk);
        let orders = topic(&first);
        let mut producer = orders.producer().partitioner(Partitioner::RoundRobin).create().unwrap();
        for number in 0..EVENTS {
            producer.send(Record::new(&format!("{number:0100}")).id(&number.to_le_bytes())).unwrap();
        }
        drop((producer, orders));
        first.shutdown(LONG);
        let (bytes, second) = (segments(&disk), engine(&disk));
        take(&disk);
        let orders = topic(&second);
        assert_at_most(take_sum(&disk).read, 1.2, bytes, &format!("ids in {partitions} partitions"));
        let published = orders.metrics().published;
        let mut producer = orders.producer().partitioner(Partitioner::RoundRobin).create().unwrap();
        for number in (0..EVENTS).step_by(97) {
            producer.send(Record::new("again").id(&number.to_le_bytes())).unwrap();
        }
        assert_eq!(orders.metrics().published, published, "all are known");
    }
}

#[test]
fn partitions_that_begin_at_different_places_are_read_together() {
    let disk = SimulatedDisk::new();
    let bytes = written(&disk, 16);
    let engine = engine(&disk);
    let orders = topic(&engine, 16);
    let of_each = EVENTS as u64 / 16;
    let starts: Vec<u64> = (0..16).map(|partition| partition * of_each / 16).collect();
    let total = starts.iter().map(|start| of_each - start).sum::<u64>() as usize;
    take(&disk);
    replayed(&orders, StartAt::Offsets(starts), total);
    assert_at_most(take_sum(&disk).read, 1.2, bytes, "a replay");
}

#[test]
fn twenty_events_beside_32_mb_are_found_without_reading_these() {
    for spread in [false, true] {
        let disk = SimulatedDisk::new();
        let mut pace = Pace::default();
        pace.sync = false;
        let first = Engine::builder().journal_in(disk.clone()).journal_pace(pace).build().unwrap();
        let ticks = first.topic::<Message>("ticks").capacity(64).max_message(8192).durable().create().unwrap();
        let orders = topic(&first, 1);
        let mut much = ticks.producer().acknowledge(Level::Written).create().unwrap();
        let mut little = orders.producer().acknowledge(Level::Written).create().unwrap();
        let body = vec![7; 8192];
        for number in 0..4096 {
            if spread && number % 205 == 0 || !spread && number < 20 {
                little.send(Record::new("one")).unwrap();
            }
            much.send(Record::new(&body)).unwrap();
        }
        // In the segment that is written, and in one that is complete.
        take(&disk);
        replayed(&orders, StartAt::Earliest, 20);
        assert!(take_sum(&disk).read < 1 << 20);
        drop((much, little, orders, ticks));
        first.shutdown(LONG);
        let second = Engine::builder().journal_in(disk.clone()).build().unwrap();
        let orders = topic(&second, 1);
        take(&disk);
        replayed(&orders, StartAt::Earliest, 20);
        assert!(take_sum(&disk).read < 1 << 20);
        grouped(&orders, "late", 20);
        assert!(take_sum(&disk).read < 1 << 20);
    }
}

#[test]
fn segments_without_its_partitions_are_not_read() {
    let disk = SimulatedDisk::new();
    let first = engine(&disk);
    let (ticks, orders) = (first.topic::<u64>("ticks").capacity(256).durable().create().unwrap(), topic(&first, 4));
    let mut much = ticks.producer().create().unwrap();
    let mut little = orders.producer().acknowledge(Level::Written).create().unwrap();
    for round in 0..2 {
        little.send(Record::new(&format!("round {round}"))).unwrap();
        much.publish_batch(256, |_, _| ()).unwrap();
        (0..2000).for_each(|_| _ = much.publish_batch(256, |_, tick| *tick = 7).unwrap());
    }
    drop((much, little, orders, ticks));
    first.shutdown(LONG);
    assert!(segments(&disk) > 8 << 20);
    let second = engine(&disk);
    let orders = topic(&second, 4);
    take(&disk);
    replayed(&orders, StartAt::Earliest, 2);
    let read = take(&disk);
    let touched: Vec<_> = read.iter().filter(|(_, done)| done.read > 0).collect();
    assert!(touched.len() <= 2, "{touched:?}");
}

#[test]
fn a_paused_partition_holds_nobody_up_and_nothing_for_itself() {
    let disk = SimulatedDisk::new();
    let bytes = written(&disk, 8);
    let engine = engine(&disk);
    let orders = topic(&engine, 8);
    take(&disk);
    let mut member = orders.group("late").start(StartAt::Earliest).join().unwrap();
    let (mut seen, mut paused, mut left) = ([0_usize; 8], None, None);
    let until = Instant::now() + LONG;
    let of_each = EVENTS / 8;
    while seen.iter().sum::<usize>() < EVENTS && Instant::now() < until {
        let batch = member.poll(Duration::ZERO).unwrap().unwrap();
        let partition = batch.partition().cloned();
        seen[partition.as_ref().map_or(0, |it| it.partition as usize)] += batch.len();
        batch.commit().unwrap();
        if paused.is_none() && seen.iter().all(|seen| *seen > 0) {
            paused = partition.inspect(|partition| member.pause(partition).unwrap());
        }
        let Some(which) = &paused else { continue };
        let others = seen.iter().enumerate().filter(|(number, _)| *number != which.partition as usize);
        if others.map(|(_, seen)| *seen).sum::<usize>() == of_each * 7 {
            let which = which.clone();
            assert!(left.is_some() || seen[which.partition as usize] < of_each);
            left = Some(which.clone());
            member.resume(&which).unwrap();
        }
    }
    assert_eq!(seen, [of_each; 8]);
    // Once with the others, and once for the one that came later, each a fifth more, and what was at hand at the pause. With one
    // core for all threads up to 2.5 times; each partition for itself would read 8 times as much.
    assert_at_most(take_sum(&disk).read, 2.7, bytes, "a group with a pause");
}

/// Nanoseconds that this thread has run.
#[cfg(target_os = "linux")]
fn on_a_core() -> u64 {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    said.split(' ').next().unwrap().parse().unwrap()
}

/// `cargo test --release -p slipring --test read rate -- --ignored --nocapture`
#[cfg(target_os = "linux")]
#[test]
#[ignore = "measures the time of its thread, which other load makes longer"]
fn the_rate_of_a_late_group_with_1024_partitions_is_half_of_that_with_one() {
    let mut took = Vec::new();
    for partitions in [1, 1024] {
        let disk = SimulatedDisk::new();
        written(&disk, partitions);
        let engine = engine(&disk);
        let orders = topic(&engine, partitions);
        let mut member = orders.group("late").start(StartAt::Earliest).join().unwrap();
        let mut seen = 0;
        let begun = on_a_core();
        while seen < EVENTS {
            let Some(mut batch) = member.poll(LONG).unwrap() else { break };
            let offsets: Vec<u64> = batch.iter().map(|(_, at)| at.offset).collect();
            seen += offsets.len();
            offsets.iter().for_each(|offset| batch.commit_to(offset + 1).unwrap());
        }
        took.push((on_a_core() - begun) / EVENTS as u64);
    }
    println!("{} ns an event with one partition, {} ns with 1,024", took[0], took[1]);
    assert!(took[1] <= 2 * took[0]);
}
