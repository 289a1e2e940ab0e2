//! Whatever can come and go leaves nothing behind: no memory, thread, descriptor or mapping. `SLIPRING_CHURN` says how often
//! it does so: 3,000 times unless told.
#![cfg(target_os = "linux")]

#[path = "../../ring/tests/common/footprint.rs"]
mod footprint;

use footprint::stays_flat;
use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::{
    Engine, Message, Record,
    clock::ManualClock,
    producer::{MAX_PRODUCER_NAMES, PRODUCER_NAME_EXPIRY, ProducerError},
    subscriber::Selector,
    topic::Deduplication,
};
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

/// One test at a time: each measures the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn durable() -> Engine {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build().unwrap()
}

/// After 2,000 subscribers that were cancelled the report once had 257 lines, and was incomplete for good.
#[test]
fn subscribers_that_are_cancelled_or_dropped_leave_nothing() {
    let _alone = alone();
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    stays_flat("managed subscribers", |round| {
        let tape = ticks.subscribe(format!("tape-{round}")).run(|_, _| Ok::<_, Infallible>(())).unwrap();
        producer.publish(|_| ()).unwrap();
        tape.cancel().unwrap();
    });
    stays_flat("subscribers with a thread for each partition", |round| {
        let tape = ticks.subscribe(format!("each-{round}")).run_each(|_| |_: &u64, _| Ok::<_, Infallible>(()));
        producer.publish(|_| ()).unwrap();
        tape.unwrap().cancel().unwrap();
    });
    stays_flat("polled subscribers", |round| {
        let mut tape = ticks.subscribe(format!("polled-{round}")).poll().unwrap();
        producer.publish(|_| ()).unwrap();
        tape.poll(Duration::ZERO).unwrap();
    });
    let mut first = ticks.subscribe("first").poll().unwrap();
    stays_flat("selectors", |round| {
        let mut second = ticks.subscribe(format!("second-{round}")).poll().unwrap();
        let mut selector = Selector::round_robin();
        selector.select(&mut [&mut first, &mut second], Duration::ZERO).unwrap();
    });
    drop(first);
    let report = engine.shutdown(LONG);
    assert!(report.is_complete() && report.topics[0].consumers.is_empty(), "{report}");
}

#[test]
fn topics_and_their_groups_and_queues_leave_nothing() {
    let _alone = alone();
    let engine = Engine::builder().build().unwrap();
    stays_flat("topics", |round| {
        let name = format!("topic-{round}");
        let topic = engine.topic::<Message>(&name).capacity(4).max_message(64).create().unwrap();
        let mut member = topic.group(format!("group-{round}")).join().unwrap();
        let constant = topic.group("constant").join().unwrap();
        topic.producer().create().unwrap().send(Record::new("a")).unwrap();
        member.poll(Duration::ZERO).unwrap();
        drop((member, constant));
        engine.delete(&name).unwrap();
    });
    assert!(engine.groups().is_empty(), "{:?}", engine.groups());
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    stays_flat("members", |round| {
        let name = format!("member-{round}");
        let mut member = jobs.group("billing").member_name(name).join().unwrap();
        jobs.producer().create().unwrap().send(Record::new("a")).unwrap();
        if let Some(batch) = member.poll(LONG).unwrap() {
            batch.commit().unwrap();
        }
        member.leave();
    });
    stays_flat("managed members", |_| {
        let run = jobs.group("billing").run(|_, _| Ok::<_, Infallible>(())).unwrap();
        run.stop();
        run.wait_for(LONG).expect("it ends");
    });
    stays_flat("queues", |round| {
        let name = format!("queue-{}", round % 2);
        let mut worker = jobs.queue(&name).join().unwrap();
        let _ = worker.receive(Duration::ZERO).unwrap();
        drop(worker);
        jobs.delete_queue(&name).unwrap();
    });
    stays_flat("lingering producers", |_| {
        let lingering = jobs.producer().linger(Duration::from_secs(1), 9).create().unwrap();
        lingering.send(Record::new("a")).unwrap();
        lingering.flush().unwrap();
    });
}

/// Names and ids are strangers' words: each kind of them is forgotten, or it is bounded, or it is listed.
#[test]
fn names_and_ids_are_forgotten_bounded_or_listed() {
    let _alone = alone();
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let jobs = engine.topic::<Message>("jobs").capacity(4).max_message(64).create().unwrap();
    stays_flat("names of idempotent producers", |round| {
        let mut gateway = jobs.producer().idempotent(format!("gateway-{round}")).unwrap();
        gateway.send(7, Record::new("a")).unwrap();
        drop(gateway);
        clock.advance(PRODUCER_NAME_EXPIRY);
    });
    // Those that are too young to be forgotten have a bound.
    let names = (0..=MAX_PRODUCER_NAMES).map(|number| jobs.producer().idempotent(format!("young-{number}")).map(drop));
    let refused = names.filter_map(Result::err).next().expect("no more names than that");
    assert!(matches!(refused, ProducerError::TooManyNames { limit: MAX_PRODUCER_NAMES, .. }), "{refused}");
    // Its letters bear the name of their queue, so it has room for longer ones.
    engine.topic::<Message>("dead").retain(4).max_message(1024).create().unwrap();
    stays_flat("names of queues", |round| {
        let name = format!("queue-{round}");
        drop(jobs.queue(&name).dead_letter("dead").join().unwrap());
        jobs.delete_queue(&name).unwrap();
    });
    assert!(jobs.metrics().queues.is_empty());
    drop(jobs.queue("left").dead_letter("dead").join().unwrap());
    assert_eq!(jobs.metrics().queues.len(), 1, "one that nobody deletes is listed");
    jobs.delete_queue("left").unwrap();
    let once = engine.topic::<Message>("once").capacity(4).max_message(64).deduplicate(Deduplication::last(100));
    let once = once.create().unwrap();
    let mut producer = once.producer().create().unwrap();
    stays_flat("ids within a number", |round| {
        producer.send(Record::new("a").id(format!("id-{round}").as_bytes())).unwrap();
    });
    let lately = engine.topic::<Message>("lately").capacity(4).max_message(64);
    let lately = lately.deduplicate(Deduplication::within(Duration::from_secs(60))).create().unwrap();
    let mut producer = lately.producer().create().unwrap();
    stays_flat("ids within a time", |round| {
        producer.send(Record::new("a").id(format!("id-{round}").as_bytes())).unwrap();
        clock.advance(Duration::from_secs(1));
    });
    // Where a group stands is kept for it until its topic goes, so each name is listed, and goes with the topic.
    const GROUPS: usize = 500;
    for number in 0..GROUPS {
        drop(lately.group(format!("group-{number}")).join().unwrap());
    }
    assert_eq!(engine.groups().len(), GROUPS);
    engine.delete_forced("lately").unwrap();
    assert!(engine.groups().is_empty());
}

#[test]
fn durable_topics_replays_and_producers_leave_nothing() {
    let _alone = alone();
    let engine = durable();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    ticks.producer().create().unwrap().publish(|_| ()).unwrap();
    stays_flat("replays", |_| {
        let mut replay = ticks.replay("tape").open().unwrap();
        replay.read(LONG, |_, _| ()).unwrap();
    });
    stays_flat("transactions", |_| drop(engine.transaction().unwrap()));
    stays_flat("transforms", |_| drop(ticks.transform("copy").open().unwrap()));
}

#[test]
fn engines_leave_nothing() {
    let _alone = alone();
    stays_flat("engines", |round| {
        if round % 10 != 0 {
            return;
        }
        let engine = durable();
        let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
        ticks.subscribe("tape").run(|_, _| Ok::<_, Infallible>(())).unwrap();
        drop(ticks.group("billing").join().unwrap());
        ticks.producer().create().unwrap().publish(|_| ()).unwrap();
        assert!(engine.shutdown(LONG).is_complete());
    });
}
