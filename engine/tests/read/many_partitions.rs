//! Readers of more partitions than they poll in each call: the quiet ones are armed meanwhile.

use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Options, Visible};
use slipring::{Engine, Level, Subscriber, Topic, group::Member};
use std::time::Duration;

use crate::sleeps::asleep;

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(120);
const PARTITIONS: u32 = 40;

fn ticks(engine: &Engine) -> Topic<u64> {
    engine.topic::<u64>("ticks").partitions(PARTITIONS as usize).capacity(256).create().unwrap()
}

trait Reads {
    /// Polls once. The numbers that were read.
    fn read(&mut self, limit: Duration) -> Vec<u64>;
}

impl Reads for Subscriber<u64> {
    fn read(&mut self, limit: Duration) -> Vec<u64> {
        let mut batch = self.poll(limit).unwrap().expect("open");
        (&mut batch).into_iter().map(|(tick, _)| *tick).collect()
    }
}

impl Reads for Member<u64> {
    fn read(&mut self, limit: Duration) -> Vec<u64> {
        let batch = self.poll(limit).unwrap().expect("open");
        let read = batch.iter().map(|(tick, _)| *tick).collect();
        batch.commit().unwrap();
        read
    }
}

/// One partition is busy and the others are quiet, so long that they are armed; then one of them after the other has an event.
fn quiet_among_busy(topic: &Topic<u64>, reader: &mut impl Reads) {
    let mut producer = topic.producer().create().unwrap();
    let mut publish = |partition: u32, number: u64| {
        producer.publish_to(partition, |tick| *tick = number).unwrap();
    };
    for round in 0..200_u64 {
        publish(7, round);
        assert_eq!(reader.read(NOW), [round]);
    }
    for round in 0..4 {
        for partition in (0..PARTITIONS).filter(|partition| *partition != 7) {
            let number = 1_000 + u64::from(partition) + 100 * round;
            publish(partition, number);
            // Beside a busy one it has its turn soon.
            let mut calls = 0;
            loop {
                publish(7, 5);
                let read = reader.read(NOW);
                calls += 1;
                if read == [number] {
                    break;
                }
                assert!(read.iter().all(|tick| *tick == 5) && calls < 100, "{read:?} in call {calls}");
            }
            while !reader.read(NOW).is_empty() {}
        }
        // And alone it is found by the next call, whether that waits or not.
        for partition in 0..PARTITIONS {
            publish(partition, 9);
            assert_eq!(reader.read(if round % 2 == 0 { NOW } else { LONG }), [9], "partition {partition}");
        }
        // So long that all are quiet.
        (0..100).for_each(|_| assert!(reader.read(NOW).is_empty()));
    }
}

#[test]
fn quiet_partitions_among_busy_ones_are_read_like_them() {
    let engine = Engine::builder().build().unwrap();
    let topic = ticks(&engine);
    let mut tape = topic.subscribe("tape").limit(1).poll().unwrap();
    quiet_among_busy(&topic, &mut tape);
    drop(tape);
    let mut member = topic.group("sums").limit(1).join().unwrap();
    quiet_among_busy(&topic, &mut member);
}

#[test]
fn one_that_sleeps_over_quiet_partitions_is_woken_by_each_of_them_and_by_the_end() {
    let engine = Engine::builder().build().unwrap();
    let topic = ticks(&engine);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    (0..100).for_each(|_| assert!(tape.read(NOW).is_empty()));
    for partition in [0, 20, PARTITIONS - 1] {
        let sleeper = asleep(move || (tape.read(LONG), tape));
        producer.publish_to(partition, |tick| *tick = u64::from(partition)).unwrap();
        let read;
        (read, tape) = sleeper.join();
        assert_eq!(read, [u64::from(partition)]);
        (0..100).for_each(|_| assert!(tape.read(NOW).is_empty()));
    }
    // A partition that is added is polled too, and the end is found in all of them.
    topic.add_partitions(1).unwrap();
    producer.publish_to(PARTITIONS, |tick| *tick = 41).unwrap();
    assert_eq!(tape.read(LONG), [41]);
    topic.close();
    assert!(tape.poll(LONG).unwrap().is_none());
}

/// A receipt that says durable is heard before the journal has woken those who wait for it: a call that does not wait must find
/// the event.
#[test]
fn quiet_partitions_of_what_is_durable_are_read_too() {
    let options = Options { segment_size: 1 << 20, ..Options::default() };
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build().unwrap();
    let topic = engine.topic::<u64>("ticks").partitions(PARTITIONS as usize).capacity(256).durable().create().unwrap();
    let mut tape = topic.subscribe("tape").visible(Visible::Durable).poll().unwrap();
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    (0..100).for_each(|_| assert!(tape.read(NOW).is_empty()));
    for partition in 0..PARTITIONS {
        producer.publish_to(partition, |tick| *tick = u64::from(partition)).unwrap();
        assert_eq!(tape.read(NOW), [u64::from(partition)]);
    }
    for partition in 0..PARTITIONS {
        producer.publish_to(partition, |tick| *tick = u64::from(partition)).unwrap();
        assert_eq!(tape.read(LONG), [u64::from(partition)]);
    }
}
