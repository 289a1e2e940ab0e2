//! In a steady state nothing is allocated: not to send or publish, to read, to wait, or to look at the clock.
//!
//! One test, so that nobody else's allocations are counted.

use slipring::{Engine, Message, Record, Wait, group::Commit, producer::Partitioner};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::sync::{Arc, Barrier};
use std::time::Duration;

#[path = "common/sleeps.rs"]
mod sleeps;
use sleeps::others_sleep;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const LONG: Duration = Duration::from_secs(120);

#[test]
fn a_steady_state_allocates_nothing_and_slots_are_taken_when_they_are_made() {
    slots_are_taken_at_once();
    messages_through_partitions();
    between_two_threads();
    a_group();
}

/// Poll, read, commit, the whole and in parts, by hand and by itself; and members that find nothing and sleep.
fn a_group() {
    let engine = Engine::builder().build().unwrap();
    for commit in [Commit::Manual, Commit::Auto, Commit::AtMostOnce] {
        let topic = engine.topic::<u64>(format!("{commit:?}")).partitions(3).capacity(64).create().unwrap();
        let mut members = ["left", "right"].map(|name| {
            let wait = Wait::spin_then_park().spin_for(Duration::ZERO).yields(1);
            topic
                .group(format!("sums-{commit:?}"))
                .member_name(name)
                .commit(commit)
                .wait(wait)
                .limit(16)
                .join()
                .unwrap()
        });
        // The second one gets its share when the first one has given it up.
        while members.iter().any(|member| member.assignment().is_empty()) {
            members.iter_mut().for_each(|member| drop(member.poll(Duration::ZERO).unwrap()));
        }
        let mut producer = topic.producer().partitioner(Partitioner::RoundRobin).create().unwrap();
        let (mut sent, mut read) = (0, 0);
        let mut round = |rounds: usize| {
            for round in 0..rounds {
                producer.publish_batch(8, |_, event| *event = 1).unwrap();
                sent += 8;
                while read < sent {
                    for member in &mut members {
                        let mut batch = member.poll(Duration::ZERO).unwrap().unwrap();
                        read += batch.iter().map(|(event, _)| *event).sum::<u64>();
                        let first = batch.iter().next().map(|(_, at)| at.offset);
                        if let (Some(first), Commit::Manual, 0) = (first, commit, round % 3) {
                            batch.commit_to(first + 1).unwrap();
                        }
                        if commit == Commit::Manual || round % 2 == 0 {
                            batch.commit().unwrap();
                        }
                    }
                }
                if round % 64 == 0 {
                    drop(members[0].poll(Duration::from_micros(10)).unwrap());
                }
            }
        };
        round(500);
        // Threads that the engine has started may get to their first steps late on a machine with much to do.
        others_sleep();
        let region = Region::new(ALLOCATOR);
        round(5_000);
        let change = region.change();
        assert_eq!((change.allocations, change.reallocations), (0, 0), "{commit:?}: {change:?}");
    }
}

/// What a topic says that its memory is, it has taken when it is there, and takes no more as its slots are used.
fn slots_are_taken_at_once() {
    fn created<E: slipring::Event + Send + Sync + 'static>(builder: slipring::TopicBuilder<E>) -> slipring::Topic<E> {
        let region = Region::new(ALLOCATOR);
        let topic = builder.create().unwrap();
        let change = region.change();
        let (taken, said) = ((change.bytes_allocated - change.bytes_deallocated) as u64, topic.describe().memory);
        // Beside its slots a topic has some thousand bytes for each partition.
        assert!((said..said + (64 << 10)).contains(&taken), "took {taken}, says {said}");
        topic
    }
    let engine = Engine::builder().build().unwrap();
    let numbers = created(engine.topic::<u64>("numbers").partitions(3).capacity(1 << 14).timestamps());
    let orders = created(engine.topic::<Message>("orders").partitions(2).capacity(1 << 10).max_message(1 << 10));
    let mut tapes = (numbers.subscribe("tape").poll().unwrap(), orders.subscribe("tape").poll().unwrap());
    let mut to_numbers = numbers.producer().partitioner(Partitioner::RoundRobin).create().unwrap();
    let mut to_orders = orders.producer().partitioner(Partitioner::RoundRobin).create().unwrap();
    let value = [7; 1 << 10];
    // A producer takes each partition with its first event there.
    (0..3).for_each(|_| _ = to_numbers.try_publish(|number| *number = 1).unwrap());
    (0..2).for_each(|_| _ = to_orders.try_send(Record::new(&value)).unwrap());
    (&mut tapes.0.poll(LONG).unwrap().unwrap()).into_iter().for_each(drop);
    while tapes.0.lag() + tapes.1.lag() > 0 {
        (&mut tapes.0.poll(Duration::ZERO).unwrap().unwrap()).into_iter().for_each(drop);
        (&mut tapes.1.poll(Duration::ZERO).unwrap().unwrap()).into_iter().for_each(drop);
    }
    others_sleep();
    let region = Region::new(ALLOCATOR);
    for _ in 0..2 {
        (0..3 << 14).for_each(|_| _ = to_numbers.try_publish(|number| *number = 1).unwrap());
        (0..2 << 10).for_each(|_| _ = to_orders.try_send(Record::new(&value)).unwrap());
        while tapes.0.lag() > 0 {
            (&mut tapes.0.poll(LONG).unwrap().unwrap()).into_iter().for_each(drop);
        }
        while tapes.1.lag() > 0 {
            (&mut tapes.1.poll(LONG).unwrap().unwrap()).into_iter().for_each(drop);
        }
    }
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");
}

fn messages_through_partitions() {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<Message>("orders").partitions(4).capacity(64).max_message(256).timestamps();
    let topic = topic.create().unwrap();
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().partitioner(Partitioner::KeyHash).create().unwrap();
    let keys: Vec<String> = (0..100).map(|key| format!("account-{key}")).collect();
    let mut bytes = 0;
    let mut round = |rounds: usize| {
        for key in keys.iter().cycle().take(rounds) {
            let record = Record::new(&[7; 128]).key(key).header("trace", b"42").header("span", b"1");
            producer.send(&record).unwrap();
            producer.try_send(&record).unwrap();
            for (message, _) in &mut tape.poll(Duration::ZERO).unwrap().unwrap() {
                bytes += message.size() + message.headers().count();
            }
            // Sleeps, and is woken by its deadline.
            if bytes % 64 == 0 {
                let _ = tape.poll(Duration::from_micros(10)).unwrap();
            }
            while tape.lag() > 100 {
                (&mut tape.poll(LONG).unwrap().unwrap()).into_iter().for_each(drop);
            }
        }
    };
    round(500);
    let region = Region::new(ALLOCATOR);
    round(5_000);
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");
}

fn between_two_threads() {
    const EVENTS: u64 = 20_000;
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("ticks").partitions(2).capacity(8).create().unwrap();
    // Sleeps at each chance.
    let wait = Wait::spin_then_park().spin_for(Duration::ZERO).yields(1);
    let mut tape = topic.subscribe("tape").wait(wait.clone()).poll().unwrap();
    let producer = topic.producer().partitioner(Partitioner::RoundRobin).wait(wait);
    let mut producer = producer.create().unwrap();
    // A barrier allocates nothing, where a channel allocates at a wait, which may come late on a machine with much to do.
    let meeting = Arc::new(Barrier::new(2));
    let feeders = Arc::clone(&meeting);
    let feeding = std::thread::spawn(move || {
        for number in 0..EVENTS {
            if number == EVENTS / 10 {
                feeders.wait();
            }
            producer.publish(|event| *event = number).unwrap();
        }
        feeders.wait();
    });
    let mut read = |count: u64| {
        let mut seen = 0;
        while seen < count {
            seen += (&mut tape.poll(LONG).unwrap().unwrap()).into_iter().count() as u64;
        }
        assert_eq!(seen, count);
    };
    read(EVENTS / 10);
    meeting.wait();
    let region = Region::new(ALLOCATOR);
    read(EVENTS - EVENTS / 10);
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");
    meeting.wait();
    feeding.join().unwrap();
}
