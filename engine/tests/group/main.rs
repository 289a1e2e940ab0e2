//! What a consumer group promises: one reader a partition, nothing lost, nothing committed by who is none any more.

use proptest::prelude::*;
use slipring::{
    Engine, Idle, Message, Producer, Record, Topic, Wait, WaitStrategy,
    clock::{Clock, ManualClock, Tick, Timestamp},
    dead_letter::DeadLetter,
    group::{Assignor, Commit, CommitError, GroupBuilder, GroupError, GroupState, Member, MemberEnd, Rebalance},
    subscriber::{OnError, PositionError, StartAt},
    topic::{Closed, TopicPartition},
};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::time::Duration;

mod commits;
#[path = "../common/crash.rs"]
mod crash;
mod deleted;
mod delivery;
mod durable;
mod exactly_once;
mod forgotten;
mod managed;
mod members;
mod metadata;
mod positions;
#[cfg(target_os = "linux")]
#[path = "../common/sleeps.rs"]
mod sleeps;
mod topics;
mod whole_batches;

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(120);
const DEADLINE: Duration = Duration::from_secs(10);

struct World {
    clock: ManualClock,
    engine: Engine,
    topic: Topic<u64>,
    producer: Producer<u64>,
}

/// A topic of numbers, and time in our hands.
fn world(partitions: usize, capacity: usize) -> World {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = engine.topic::<u64>("numbers").partitions(partitions).capacity(capacity).create().unwrap();
    let producer = topic.producer().create().unwrap();
    World { clock, engine, topic, producer }
}

impl World {
    fn group(&self) -> GroupBuilder<u64> {
        self.topic.group("sums").deadline(DEADLINE)
    }

    fn join(&self) -> Member<u64> {
        self.group().join().unwrap()
    }

    fn publish(&mut self, partition: u32, count: usize) {
        for _ in 0..count {
            self.producer.publish_to(partition, |_| ()).unwrap();
        }
    }

    /// Of a single partition: whether producers wait.
    fn is_full(&mut self) -> bool {
        self.producer.try_publish(|_| ()).is_err_and(|refused| refused.is_full())
    }

    fn committed(&self, partition: u32) -> Option<u64> {
        self.engine.groups()[0].partition("numbers", partition).unwrap().committed
    }
}

fn numbers(partition: u32) -> TopicPartition {
    TopicPartition::new("numbers", partition)
}

/// One poll: which partition, and which offsets.
fn look(member: &mut Member<u64>) -> (Option<u32>, Vec<u64>) {
    let batch = member.poll(NOW).unwrap().unwrap();
    let partition = batch.partition().map(|partition| partition.partition);
    (partition, batch.iter().map(|(_, at)| at.offset).collect())
}

/// Reads and commits whatever is there.
fn drain(member: &mut Member<u64>) -> Vec<(u32, u64)> {
    let mut read = Vec::new();
    while let Some(batch) = member.poll(NOW).unwrap() {
        if batch.is_empty() {
            break;
        }
        read.extend(batch.iter().map(|(_, at)| (at.partition, at.offset)));
        batch.commit().unwrap();
    }
    read
}

fn has(member: &Member<u64>) -> Vec<u32> {
    member.assignment().iter().map(|partition| partition.partition).collect()
}

/// Everyone looks until nothing changes hands any more.
fn settle(members: &mut [&mut Member<u64>]) {
    for _ in 0..2 {
        for member in members.iter_mut() {
            drop(member.poll(NOW).unwrap());
        }
    }
}

fn until(mut what: impl FnMut() -> bool) {
    while !what() {
        std::thread::yield_now();
    }
}
