//! Deleting a topic that somebody reads from the journal, without a stage in a ring.

use slipring::journal::{
    Options,
    simulated::{Fault, SimulatedDisk},
};
use slipring::topic::{Closed, TopicError};
use slipring::{Engine, Level, Message, Topic, queue::QueueError, replay::ReplayError};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

const PUBLISHED: u64 = 100;

/// A topic of 100 events whose rings hold 4.
fn engine() -> (Engine, Topic<u64>) {
    engine_on(&SimulatedDisk::new())
}

fn engine_on(disk: &SimulatedDisk) -> (Engine, Topic<u64>) {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    let engine = Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").capacity(4).durable().create().unwrap();
    let mut producer = ticks.producer().acknowledge(Level::Durable).create().unwrap();
    (0..PUBLISHED).for_each(|tick| _ = producer.publish(|place| *place = tick).unwrap());
    (engine, ticks)
}

/// It is refused, with the name, and nothing has changed.
fn refuses(engine: &Engine, reader: &str) {
    let refused = engine.delete("ticks").unwrap_err();
    assert!(matches!(&refused, TopicError::InUse { consumers, .. } if consumers == &[reader]), "{refused}");
    assert!(engine.topics().contains(&"ticks".to_owned()) && engine.failures().is_empty());
    assert!(engine.get::<u64, slipring::producer::Multi>("ticks").unwrap().closed().is_none());
}

#[test]
fn a_topic_is_not_deleted_under_a_replay_that_catches_up() {
    let (engine, ticks) = engine();
    let mut tape = ticks.replay("tape").open().unwrap();
    refuses(&engine, "tape");
    let mut seen = 0;
    assert!(tape.read(LONG, |_, _| seen += 1).unwrap().is_some_and(|read| read > 0));
    refuses(&engine, "tape");
    ticks.close();
    assert!(engine.delete("ticks").is_err(), "there is more to be read");
    while tape.read(LONG, |_, _| seen += 1).unwrap().is_some() {}
    assert_eq!(seen, PUBLISHED);
    engine.delete("ticks").unwrap();
}

#[test]
fn a_topic_is_not_deleted_under_a_group_that_catches_up() {
    let (engine, ticks) = engine();
    let mut member = ticks.group("sums").join().unwrap();
    refuses(&engine, "group:sums");
    assert!(member.poll(LONG).unwrap().is_some_and(|batch| !batch.is_empty()));
    assert!(engine.groups()[0].partitions[0].catching_up);
    refuses(&engine, "group:sums");
    drop(member);
    engine.delete("ticks").unwrap();
}

#[test]
fn a_topic_is_not_deleted_under_a_transform() {
    let (engine, ticks) = engine();
    let copy = ticks.transform("copy").open().unwrap();
    // It has read nothing yet.
    refuses(&engine, "transform:copy");
    drop(copy);
    let twice = engine.topic::<u64>("twice").durable().create().unwrap();
    let run = engine.transform("ticks", "twice", "copy", |tick: &u64, _, out| out.publish(|to: &mut u64| *to = *tick));
    refuses(&engine, "transform:copy");
    drop((run.unwrap(), twice));
    engine.delete_forced("ticks").unwrap();
}

#[test]
fn a_replay_that_catches_up_is_told_that_its_topic_was_deleted_by_force() {
    let (engine, ticks) = engine();
    let mut tape = ticks.replay("tape").open().unwrap();
    engine.delete_forced("ticks").unwrap();
    let told = tape.read(LONG, |_, _| ()).unwrap_err();
    assert!(matches!(told, ReplayError::Closed { reason: Closed::Halted, .. }), "{told}");
}

/// A task that is woken on the journal's own thread, and then makes this call.
struct Call(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        let call = self.0.lock().unwrap().take();
        call.into_iter().for_each(|call| call());
    }
}

/// The topic or queue was gone from the engine, and the journal had it still.
#[test]
fn what_the_journal_cannot_forget_now_stays_as_it_was() {
    let disk = SimulatedDisk::new();
    let (engine, ticks) = engine_on(&disk);
    let jobs = engine.topic::<Message>("jobs").durable().create().unwrap();
    let queue = jobs.queue("work").open().unwrap();
    let (tell, told) = mpsc::channel();
    let (inside, jobs_inside) = (engine.clone(), jobs.clone());
    let call = move || {
        let of_topics = [inside.delete("ticks").unwrap_err(), inside.delete_forced("ticks").unwrap_err()];
        let of_queues = [jobs_inside.delete_queue("work"), jobs_inside.delete_queue_forced("work")];
        let _ = tell.send((of_topics, of_queues.map(Result::unwrap_err)));
    };
    disk.hold_syncs(true);
    let mut producer = ticks.producer().create().unwrap();
    let mut wait = pin!(producer.publish(|tick| *tick = PUBLISHED).unwrap().reach(Level::Durable));
    let waker = Waker::from(Arc::new(Call(Mutex::new(Some(Box::new(call))))));
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    disk.hold_syncs(false);
    let (of_topics, of_queues) = told.recv_timeout(LONG).unwrap();
    assert!(of_topics.iter().all(|refused| matches!(refused, TopicError::Journal { .. })), "{of_topics:?}");
    assert!(of_queues.iter().all(|refused| matches!(refused, QueueError::Journal { .. })), "{of_queues:?}");
    assert_eq!(engine.topics()[..2], ["ticks", "jobs"]);
    producer.publish(|tick| *tick = 0).unwrap().wait(Level::Durable).unwrap();
    assert_eq!(queue.metrics().name, "work");
    drop(queue);
    jobs.delete_queue("work").unwrap();

    engine.shutdown(LONG);
    for refused in [engine.delete("ticks").unwrap_err(), engine.delete_forced("ticks").unwrap_err()] {
        assert!(matches!(refused, TopicError::Journal { .. }), "{refused}");
    }
    assert_eq!(engine.topics()[..2], ["ticks", "jobs"], "the journal has them still");
}

/// Its report was lost, and groups kept what they had of the topic.
#[test]
fn a_deletion_that_meets_a_failing_disk_is_told_and_complete() {
    for forced in [false, true] {
        // A mark of the journal's may meet the fault first: then nothing has changed.
        let told = (0..20).any(|_| {
            let disk = SimulatedDisk::new();
            let (engine, ticks) = engine_on(&disk);
            let sums = ticks.group("sums").join().unwrap();
            let tape = forced.then(|| (ticks.subscribe("tape").poll().unwrap(), sums));
            disk.fail_after(1, Fault::Io);
            let refused = if forced { engine.delete_forced("ticks") } else { engine.delete("ticks") }.unwrap_err();
            assert!(refused.to_string().contains("journal"), "{refused}");
            let TopicError::NotForgotten { name, report, .. } = refused else {
                assert!(matches!(refused, TopicError::Journal { .. }) && engine.topics() == ["ticks"], "{refused}");
                return false;
            };
            assert_eq!(
                (name.as_str(), report.name.as_str(), &report.published[..]),
                ("ticks", "ticks", &[PUBLISHED][..])
            );
            assert_eq!(report.consumers.iter().any(|consumer| consumer.name == "tape"), forced);
            assert_eq!(engine.topics().len() + engine.groups().iter().map(|it| it.partitions.len()).sum::<usize>(), 0);
            drop(tape);
            true
        });
        assert!(told, "forced: {forced}");
    }
}
