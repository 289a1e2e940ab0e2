//! An engine for those who look at one.

use slipring::{Engine, Message, Record, clock::ManualClock};
use std::path::Path;
use std::time::Duration;

/// An engine with a bit of everything.
pub fn busy(path: Option<&Path>) -> (Engine, ManualClock, Box<dyn Send>) {
    let clock = ManualClock::new();
    let builder = Engine::builder().clock(clock.clone());
    let engine = path.into_iter().fold(builder, |builder, path| builder.observe(path)).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").capacity(8).timestamps().create().unwrap();
    let mut slow = ticks.subscribe("slow").poll().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    for round in 0..3 {
        producer.publish_batch(round + 1, |_, _| ()).unwrap();
        clock.advance(Duration::from_secs(1));
        if round < 2 {
            (&mut slow.poll(Duration::ZERO).unwrap().unwrap()).into_iter().for_each(drop);
        }
    }
    let jobs = engine.topic::<Message>("jobs").partitions(2).capacity(4).create().unwrap();
    let mut worker = jobs.queue("resize").max_attempts(1).dead_letter("dead").join().unwrap();
    let mut to_jobs = jobs.producer().create().unwrap();
    (0..3).for_each(|index| _ = to_jobs.send(Record::new("job").partition(index % 2)).unwrap());
    let held = worker.receive(Duration::ZERO).unwrap().unwrap();
    worker.receive(Duration::ZERO).unwrap().unwrap().nack(Duration::ZERO, "no").unwrap();
    (engine, clock, Box::new((slow, producer, worker, held)))
}
