//! One policy for handlers' errors for a whole engine or topic, and handles that are compared.

use slipring::group::MemberEnd;
use slipring::producer::Multi;
use slipring::subscriber::OnError;
use slipring::topic::Closed;
use slipring::{Engine, Topic};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn odd(tick: &u64) -> Result<(), &'static str> {
    if tick.is_multiple_of(2) { Ok(()) } else { Err("odd") }
}

fn publish(topic: &Topic<u64>) {
    topic.producer().create().unwrap().publish_batch(4, |index, tick| *tick = index as u64).unwrap();
}

#[test]
fn the_policy_of_the_consumer_comes_before_the_topics_and_that_before_the_engines() {
    let engine = Engine::builder().on_error(OnError::Skip).build().unwrap();
    let skips = engine.topic::<u64>("skips").create().unwrap();
    let stops = engine.topic::<u64>("stops").on_error(OnError::Stop).create().unwrap();
    let own = engine.topic::<u64>("own").on_error(OnError::Stop).create().unwrap();
    skips.subscribe("a").run(|tick, _| odd(tick)).unwrap();
    let member = skips.group("members").run(|tick, _| odd(tick)).unwrap();
    stops.subscribe("b").run(|tick, _| odd(tick)).unwrap();
    own.subscribe("c").on_error(OnError::Skip).run(|tick, _| odd(tick)).unwrap();
    [&skips, &stops, &own].into_iter().for_each(publish);
    let report = engine.shutdown(LONG);
    let skipped = |topic: &str| {
        let of = report.topics.iter().find(|it| it.name == topic).unwrap();
        of.consumers.iter().map(|consumer| consumer.skipped).max()
    };
    assert_eq!((skipped("skips"), skipped("own")), (Some(2), Some(2)), "{report}");
    assert!(matches!(stops.closed(), Some(Closed::Failed { consumer, .. }) if consumer == "b"));
    assert_eq!(member.wait(), MemberEnd::Finished);
}

#[test]
fn a_member_of_topics_with_different_policies_has_the_engines() {
    let engine = Engine::builder().build().unwrap();
    let one = engine.topic::<u64>("one").on_error(OnError::Skip).create().unwrap();
    let same = engine.topic::<u64>("same").on_error(OnError::Skip).create().unwrap();
    let other = engine.topic::<u64>("other").on_error(OnError::Retry(1)).create().unwrap();
    let agreed = engine.group("agreed").topics([&one, &same]).run(|tick: &u64, _| odd(tick)).unwrap();
    let split = engine.group("split").topics([&one, &other]).run(|tick: &u64, _| odd(tick)).unwrap();
    publish(&one);
    assert!(matches!(split.wait(), MemberEnd::Failed { .. }));
    engine.shutdown(LONG);
    assert_eq!(agreed.wait(), MemberEnd::Finished);
}

#[test]
fn handles_tell_whether_they_are_of_one_topic() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let again = engine.get::<u64, Multi>("ticks").unwrap();
    assert!(
        ticks.same_topic(&again) && ticks.producer().create().unwrap().same_topic(&again.producer().create().unwrap())
    );
    engine.delete("ticks").unwrap();
    let new = engine.topic::<u64>("ticks").create().unwrap();
    assert!(!ticks.same_topic(&new));
    let other = Engine::builder().build().unwrap();
    assert!(engine.same_engine(&engine.clone()) && !engine.same_engine(&other));
    assert!(!new.same_topic(&other.topic::<u64>("ticks").create().unwrap()));
}

#[test]
fn batches_know_their_length() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let (mut tape, mut member) = (ticks.subscribe("tape").poll().unwrap(), ticks.group("members").join().unwrap());
    publish(&ticks);
    let mut batch = tape.poll(LONG).unwrap().unwrap();
    let mut events = (&mut batch).into_iter();
    assert_eq!((events.next().map(|(tick, _)| *tick), events.len()), (Some(0), 3));
    assert_eq!((events.by_ref().count(), events.len()), (3, 0));
    let batch = member.poll(LONG).unwrap().unwrap();
    let mut events = batch.iter();
    assert_eq!((events.len(), events.nth(1).map(|(tick, _)| *tick), events.len()), (4, Some(1), 2));
}
