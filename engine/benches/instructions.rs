//! How many instructions an event costs on its way: exact where a timing is not, so that a call which is no longer inlined
//! across packages is seen at once.
//!
//! ```text
//! cargo bench -p slipring --bench instructions               # counts, and fails if one is over its record
//! cargo bench -p slipring --bench instructions -- --test     # each operation once, nothing counted
//! ```
//!
//! Operations of a durable topic end with a shutdown, so that the committer has gathered and written all events. After a change
//! that is meant to cost: write the new count into `RECORD` and say in the commit what it buys.
#![allow(clippy::unwrap_used)]

#[path = "../../ring/benches/counting/mod.rs"]
mod counting;

use counting::ROUNDS;
use slipring::{Engine, Message, Record, Topic, journal::simulated::SimulatedDisk, producer::Partitioner};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

/// The part by which a count may differ from its record: compilers differ a little, and the committer gathers frames of other
/// sizes in each run.
const TOLERANCE: f64 = 0.15;
const LONG: Duration = Duration::from_secs(600);

/// Instructions for each operation, on x86-64 with `rustc` 1.95, `--profile bench`.
const RECORD: [(&str, f64); 6] = [
    ("publish", 80.3),
    ("keyed message", 473.6),
    ("durable publish", 1405.4),
    ("replayed record", 685.7),
    ("group poll and commit", 847.5),
    ("queue lease and ack", 3128.9),
];

fn numbers(engine: &Engine) -> Topic<u64> {
    engine.topic::<u64>("numbers").capacity(1 << 16).durable().create().unwrap()
}

fn fill(engine: &Engine, count: u64) {
    let numbers = numbers(engine);
    let mut producer = numbers.producer().create().unwrap();
    (0..count).for_each(|number| _ = producer.publish(|event| *event = number).unwrap());
}

/// Runs `rounds` of the operation called `name`.
fn operate(name: &str, rounds: u64) {
    match name {
        "publish" => {
            let engine = Engine::builder().build().unwrap();
            let topic = engine.topic::<u64>("numbers").create().unwrap();
            let mut producer = topic.producer().create().unwrap();
            (0..rounds).for_each(|number| _ = black_box(producer.publish(|event| *event = number).unwrap()));
        }
        "keyed message" => {
            let engine = Engine::builder().build().unwrap();
            let topic = engine.topic::<Message>("orders").partitions(4).max_message(256).create().unwrap();
            let mut producer = topic.producer().partitioner(Partitioner::default()).create().unwrap();
            for number in 0..rounds {
                let key = number.to_le_bytes();
                black_box(producer.send(Record::new(b"a body of thirty-two bytes, or so").key(&key)).unwrap());
            }
        }
        "durable publish" => {
            let engine = Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap();
            fill(&engine, rounds);
            engine.shutdown(LONG);
        }
        "replayed record" => {
            let disk = SimulatedDisk::new();
            let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
            fill(&engine, 2 * ROUNDS);
            engine.shutdown(LONG);
            let engine = Engine::builder().journal_in(disk).build().unwrap();
            let mut replay = numbers(&engine).replay("reader").open().unwrap();
            let mut read = 0;
            while read < rounds {
                read += replay.read(LONG, |event, _| _ = black_box(*event)).unwrap().unwrap_or(0) as u64;
            }
        }
        "group poll and commit" => {
            let engine = Engine::builder().build().unwrap();
            let topic = engine.topic::<u64>("numbers").create().unwrap();
            let mut member = topic.group("sums").join().unwrap();
            let mut producer = topic.producer().create().unwrap();
            for number in 0..rounds {
                producer.publish(|event| *event = number).unwrap();
                let batch = member.poll(LONG).unwrap().unwrap();
                batch.iter().for_each(|(event, _)| _ = black_box(*event));
                batch.commit().unwrap();
            }
        }
        _ => {
            let engine = Engine::builder().build().unwrap();
            let topic = engine.topic::<Message>("orders").max_message(256).create().unwrap();
            let mut worker = topic.queue("work").join().unwrap();
            let mut producer = topic.producer().create().unwrap();
            for _ in 0..rounds {
                producer.send(Record::new(b"a body")).unwrap();
                worker.receive(LONG).unwrap().unwrap().ack().unwrap();
            }
        }
    }
}

fn main() -> ExitCode {
    counting::run(&RECORD, TOLERANCE, operate)
}
