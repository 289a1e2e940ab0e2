//! Settings that contradict one another are refused, in whatever order they were said: the last one does not win.

use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Options, Retention};
use slipring::{
    Engine, EngineError, Level, Message, Topic,
    group::{Commit, Delivery, GroupBuilder, GroupError},
    journal::Pace,
    producer::ProducerError,
    queue::{Queue, QueueBuilder, QueueError},
    topic::{Overflow, Slow, TopicError},
    transaction::{Transaction, TransactionError},
};
use std::convert::Infallible;
use std::time::{Duration, Instant};

fn engine() -> Engine {
    let options = Options { segment_size: 1 << 16, ..Options::default() };
    Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build().unwrap()
}

fn ticks(engine: &Engine) -> Topic<u64> {
    engine.topic::<u64>("ticks").durable().create().unwrap()
}

type Group = GroupBuilder<u64>;

/// How a member is asked for, and whether it is refused as a contradiction.
/// A name, and what it asks of a group.
type Way = (&'static str, fn(Group) -> Option<GroupError>);

fn ways() -> [Way; 3] {
    fn nothing(_: &u64, _: slipring::subscriber::At, _: &mut Transaction) -> Result<(), TransactionError> {
        Ok(())
    }
    [
        ("join", |group| group.join().err()),
        ("run", |group| group.run(|_, _| Ok::<_, Infallible>(())).map(|run| run.stop()).err()),
        ("run_into", |group| group.run_into(nothing).map(|run| run.stop()).err()),
    ]
}

#[test]
fn a_commit_and_a_delivery_that_differ_are_refused_whichever_was_said_last() {
    let engine = engine();
    let deliveries = [Delivery::AtMostOnce, Delivery::AtLeastOnce, Delivery::ExactlyOnce];
    for delivery in deliveries {
        for commit in [Commit::Manual, Commit::Auto, Commit::AtMostOnce] {
            let agree = (delivery == Delivery::AtMostOnce) == (commit == Commit::AtMostOnce) && commit != Commit::Auto;
            for (way, ask) in ways() {
                let topic = ticks_of(&engine);
                for refused in [
                    ask(topic.group("sums").delivery(delivery).commit(commit)),
                    ask(topic.group("sums").commit(commit).delivery(delivery)),
                ] {
                    let told = format!("{way}, {delivery:?}, {commit:?}: {refused:?}");
                    assert_eq!(matches!(refused, Some(GroupError::Contradiction(_))), !agree, "{told}");
                    let in_part = delivery == Delivery::ExactlyOnce && way != "run_into";
                    assert_eq!(matches!(refused, Some(GroupError::NotExactlyOnce { .. })), agree && in_part, "{told}");
                }
            }
        }
    }
    for (way, ask) in ways() {
        let refused = ask(ticks_of(&engine).group(way).commit(Commit::Auto));
        assert_eq!(matches!(refused, Some(GroupError::Contradiction(_))), way != "join", "{way}: {refused:?}");
        assert!(ask(ticks_of(&engine).group(way).commit(Commit::AtMostOnce)).is_none());
        let refused = ask(ticks_of(&engine).group("both").spill(true).hold(true));
        assert!(matches!(refused, Some(GroupError::Contradiction(_))), "{way}: {refused:?}");
        let refused = ask(ticks_of(&engine).group("round").dead_letter(&ticks_of(&engine)));
        assert!(matches!(refused, Some(GroupError::DeadLetters { .. })), "{way}: {refused:?}");
    }
}

fn ticks_of(engine: &Engine) -> Topic<u64> {
    engine.get("ticks").unwrap_or_else(|_| ticks(engine))
}

#[test]
fn other_settings_that_contradict_one_another_are_refused() {
    let engine = engine();
    let keep = Retention { bytes: Some(1), ..Retention::default() };
    let refused = engine.topic::<u64>("ticks").keep(keep).create().unwrap_err();
    assert!(matches!(&refused, TopicError::Contradiction(it) if it.of == "ticks"), "{refused}");
    engine.topic::<u64>("ticks").keep(keep).durable().create().unwrap();
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    let open = |queue: QueueBuilder| -> Result<Queue<Message>, QueueError> { queue.open() };
    for queue in
        [jobs.queue("q").max_attempts(3).unlimited_attempts(), jobs.queue("q").unlimited_attempts().max_attempts(3)]
    {
        let refused = open(queue).map(drop).unwrap_err();
        assert!(matches!(refused, QueueError::Contradiction(_)), "{refused}");
    }
    let two = Engine::builder().journal_in(SimulatedDisk::new()).journal_in(SimulatedDisk::new()).build();
    assert!(matches!(two.unwrap_err(), EngineError::Contradiction(_)));
}

/// It waited for the end of the engine, for ever if nobody ended it.
#[test]
fn what_waits_for_a_sync_is_refused_where_nothing_syncs() {
    let mut pace = Pace::default();
    pace.sync = false;
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_pace(pace).build().unwrap();
    let refused = ticks(&engine).producer().acknowledge(Level::Durable).create().unwrap_err();
    assert!(matches!(refused, ProducerError::Unsupported { level: Level::Durable, .. }), "{refused}");
    ticks_of(&engine).producer().acknowledge(Level::Written).create().unwrap();
    let jobs = engine.topic::<Message>("jobs").durable().create().unwrap();
    let refused = jobs.queue("q").acknowledge(Level::Durable).open().map(drop).unwrap_err();
    assert!(matches!(refused, QueueError::Unsupported(_)), "{refused}");
    jobs.queue("q").acknowledge(Level::Written).open().unwrap();
}

/// A publish that is to fail at once waited for as long as the slow one had.
#[test]
fn a_publish_that_never_waits_does_not_wait_for_a_slow_subscriber() {
    let engine = Engine::builder().build().unwrap();
    for (name, overflow) in [("fails", Overflow::Fail), ("drops", Overflow::DropNewest)] {
        let topic = engine.topic::<u64>(name).capacity(1).overflow(overflow);
        let topic = topic.slow(Slow::EvictAfter(Duration::from_secs(600))).create().unwrap();
        let _slow = topic.subscribe("slow").poll().unwrap();
        let mut producer = topic.producer().create().unwrap();
        producer.publish(|_| ()).unwrap();
        let begun = Instant::now();
        assert_eq!(producer.publish(|_| ()).is_err(), overflow == Overflow::Fail);
        assert!(begun.elapsed() < Duration::from_secs(300));
        assert_eq!(topic.metrics().evicted, 0);
    }
}
