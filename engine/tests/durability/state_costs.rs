//! What state costs that rides in the frames of events: bytes that are written, beside the same events without it.

use crate::counting::{take, take_sum};
use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::{
    Engine, Level, Message, Record, Topic, producer::Partitioner, subscriber::StartAt, topic::Deduplication,
};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);
const EVENTS: u64 = 2_000;

fn engine(disk: &SimulatedDisk) -> Engine {
    let options = Options { segment_size: 8 << 20, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap()
}

fn orders(engine: &Engine, partitions: usize) -> Topic<Message> {
    engine.topic::<Message>("orders").partitions(partitions).max_message(256).durable().create().unwrap()
}

fn body(number: u64) -> String {
    format!("{number:091}")
}

/// Bytes that are written while `work` is done.
fn written(work: impl FnOnce(&Engine)) -> f64 {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    work(&engine);
    engine.shutdown(LONG);
    take_sum(&disk).written as f64
}

fn plain(partitions: usize) -> f64 {
    written(|engine| {
        let orders = orders(engine, partitions);
        let producer = orders.producer().partitioner(Partitioner::RoundRobin).acknowledge(Level::Written);
        let mut producer = producer.create().unwrap();
        (0..EVENTS).for_each(|number| _ = producer.send(Record::new(&body(number))).unwrap());
    })
}

#[test]
fn a_name_costs_a_producer_that_waits_for_each_event_little() {
    for partitions in [1, 4] {
        let named = written(|engine| {
            let orders = orders(engine, partitions);
            let producer = orders.producer().partitioner(Partitioner::RoundRobin).acknowledge(Level::Written);
            let mut producer = producer.idempotent("gateway-7").unwrap();
            (0..EVENTS).for_each(|number| _ = producer.send(number, Record::new(&body(number))).unwrap());
        });
        let plain = plain(partitions);
        assert!(named <= 1.3 * plain, "{partitions} partitions: {named} bytes with a name, {plain} without");
    }
}

#[test]
fn committed_offsets_of_a_group_cost_little() {
    for partitions in [1, 4] {
        let read = written(|engine| {
            let orders = orders(engine, partitions);
            let producer = orders.producer().partitioner(Partitioner::RoundRobin).acknowledge(Level::Written);
            let mut producer = producer.create().unwrap();
            let mut member = orders.group("billing").start(StartAt::Earliest).join().unwrap();
            for number in 0..EVENTS {
                producer.send(Record::new(&body(number))).unwrap();
                member.poll(LONG).unwrap().unwrap().commit().unwrap();
            }
        });
        let plain = plain(partitions);
        assert!(read <= 1.3 * plain, "{partitions} partitions: {read} bytes with a group, {plain} without");
    }
}

#[test]
fn ids_cost_their_own_bytes() {
    let known = written(|engine| {
        let orders = engine.topic::<Message>("orders").max_message(256).deduplicate(Deduplication::last(1000));
        let orders = orders.durable().create().unwrap();
        let mut producer = orders.producer().acknowledge(Level::Written).create().unwrap();
        for number in 0..EVENTS {
            producer.send(Record::new(&body(number)).id(&number.to_le_bytes())).unwrap();
        }
    });
    let plain = plain(1);
    assert!(known <= 1.3 * plain, "{known} bytes with ids, {plain} without");
}

/// Bytes of a queue whose worker has up to `outstanding` leases and then acks them, each at `level` if one is given.
fn worked_off(outstanding: usize, level: Option<Level>) -> f64 {
    written(|engine| {
        let orders = orders(engine, 1);
        let mut producer = orders.producer().acknowledge(Level::Written).create().unwrap();
        let mut queue = orders.queue("work");
        if let Some(level) = level {
            queue = queue.acknowledge(level);
        }
        let mut worker = queue.join().unwrap();
        let mut leases = Vec::new();
        for number in 0..EVENTS {
            producer.send(Record::new(&body(number))).unwrap();
            leases.push(worker.receive(LONG).unwrap().unwrap());
            if leases.len() == outstanding {
                leases.drain(..).for_each(|lease| lease.ack().unwrap());
            }
        }
    })
}

/// What nobody waits for is in the frame of the next event.
#[test]
fn leases_and_acks_that_nobody_waits_for_cost_little() {
    for outstanding in [1, 16] {
        let queued = worked_off(outstanding, None);
        let plain = plain(1);
        println!("queue, {outstanding} out, nobody waits: {:.2} x", queued / plain);
        assert!(queued <= 1.3 * plain, "{outstanding} out: {queued} bytes with a queue, {plain} without");
    }
}

/// A lease and an ack are frames of their own where somebody waits for each: no event is in them. A frame has a head of 64
/// bytes and stands at a multiple of 64, so each takes 128: see decision 16.
#[test]
fn a_lease_and_an_ack_cost_no_more_than_a_small_event_each() {
    for outstanding in [1, 16] {
        let queued = worked_off(outstanding, Some(Level::Written));
        let plain = plain(1);
        let small = written(|engine| {
            let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
            let mut producer = ticks.producer().acknowledge(Level::Written).create().unwrap();
            (0..2 * EVENTS).for_each(|number| _ = producer.publish(|tick| *tick = number).unwrap());
        });
        let (queue, each) = (queued - plain, small / (2 * EVENTS) as f64);
        println!("queue, {outstanding} out, each waited for: {:.2} x", queued / plain);
        // A block of 16 leases is longer than one.
        let most = if outstanding == 1 { 1.02 } else { 1.45 };
        assert!(queue <= most * small, "{outstanding}: {queue} bytes for leases and acks, {each} for a small event");
    }
}

/// Syncs of 15 events that come 100 ms apart, with what `after_each` does after each of them; and the most that they may be.
fn syncs_of_a_few(engine: &Engine, disk: &SimulatedDisk, mut after_each: impl FnMut(&Topic<Message>)) -> (u64, u64) {
    let orders = orders(engine, 1);
    let mut producer = orders.producer().acknowledge(Level::Durable).create().unwrap();
    // What comes for the first time has a sync of its own.
    for _ in 0..2 {
        after_each(&orders);
        producer.send(Record::new("first")).unwrap();
        after_each(&orders);
    }
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    take(disk);
    for number in 0..15 {
        producer.send(Record::new(&body(number))).unwrap();
        after_each(&orders);
        std::thread::sleep(Duration::from_millis(100));
    }
    // A pause that the machine makes is two: of what nobody waits for, and of the mark.
    let pauses = begun.elapsed().as_secs();
    (take_sum(disk).syncs, 15 + 2 + 2 * pauses)
}

#[test]
fn a_few_events_a_second_are_synced_once_each() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let (syncs, most) = syncs_of_a_few(&engine, &disk, |_| ());
    assert!(syncs <= most, "{syncs} syncs of 15 events");
}

#[test]
fn a_few_events_a_second_that_a_group_commits_are_synced_once_each() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let mut member = None;
    let (syncs, most) = syncs_of_a_few(&engine, &disk, |orders| {
        let member = member.get_or_insert_with(|| orders.group("billing").start(StartAt::Earliest).join().unwrap());
        member.poll(Duration::from_millis(5)).unwrap().unwrap().commit().unwrap();
    });
    assert!(syncs <= most, "{syncs} syncs of 15 events and as many commits");
}

#[test]
fn a_few_messages_a_second_that_a_queue_gives_out_are_synced_once_each() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let mut worker = None;
    let (syncs, most) = syncs_of_a_few(&engine, &disk, |orders| {
        let worker =
            worker.get_or_insert_with(|| orders.queue("billing").acknowledge(Level::Published).join().unwrap());
        worker.receive(Duration::from_millis(5)).unwrap().into_iter().for_each(|lease| lease.ack().unwrap());
    });
    assert!(syncs <= most, "{syncs} syncs of 15 messages, leases and acks");
}

#[test]
fn a_transform_of_each_event() {
    let transformed = written(|engine| {
        let (orders, out) = (orders(engine, 1), engine.topic::<u64>("out").durable().create().unwrap());
        let mut producer = orders.producer().acknowledge(Level::Written).create().unwrap();
        let mut transform = orders.transform("copy").open().unwrap();
        for number in 0..EVENTS {
            producer.send(Record::new(&body(number))).unwrap();
            let step = transform.step(LONG, |_, at, with| with.publish(&out, |it: &mut u64| *it = at.offset));
            step.unwrap();
        }
    });
    let both = written(|engine| {
        let (orders, out) = (orders(engine, 1), engine.topic::<u64>("out").durable().create().unwrap());
        let mut producer = orders.producer().acknowledge(Level::Written).create().unwrap();
        let mut other = out.producer().acknowledge(Level::Written).create().unwrap();
        for number in 0..EVENTS {
            producer.send(Record::new(&body(number))).unwrap();
            other.publish(|it| *it = number).unwrap();
        }
    });
    assert!(transformed <= 1.3 * both, "{transformed} bytes with a transform, {both} without");
}
