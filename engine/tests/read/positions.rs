//! Where a consumer starts, and where it may go.

use slipring::{
    Engine, Producer, Subscriber, Topic, Wait,
    clock::{ManualClock, Timestamp},
    producer::Partitioner,
    subscriber::{PositionError, StartAt, SubscribeError},
    topic::{Closed, Slow, TopicError},
};
use std::time::Duration;

#[cfg(target_os = "linux")]
use crate::sleeps::{asleep, sleeps};

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(120);

const fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn read(tape: &mut Subscriber<u64>) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let Some(mut batch) = tape.poll(NOW).unwrap() else { return all };
        let before = all.len();
        all.extend((&mut batch).into_iter().map(|(event, _)| *event));
        if all.len() == before {
            return all;
        }
    }
}

/// Two partitions of ten events, published one a second from second 0 on, of which seven are kept.
fn timed(retain_for: Option<Duration>) -> (ManualClock, Topic<u64>, Producer<u64>) {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = engine.topic::<u64>("ticks").partitions(2).capacity(8).retain(7).timestamps();
    let topic = match retain_for {
        Some(age) => topic.retain_for(age),
        None => topic,
    };
    let topic = topic.create().unwrap();
    let mut producer = topic.producer().partitioner(Partitioner::RoundRobin).create().unwrap();
    for second in 0..10 {
        for _ in 0..2 {
            producer.publish(|event| *event = second).unwrap();
        }
        clock.advance(Duration::from_secs(1));
    }
    (clock, topic, producer)
}

#[test]
fn a_subscriber_starts_where_it_was_told_in_each_partition() {
    let (_clock, topic, _producer) = timed(None);
    for (start, firsts) in [
        (StartAt::Earliest, [3, 3]),
        (StartAt::Latest, [10, 10]),
        (StartAt::Offset(5), [5, 5]),
        (StartAt::Offsets(vec![4, 10]), [4, 10]),
        (StartAt::Offsets(vec![4]), [4, 3]),
        (StartAt::Timestamp(seconds(6)), [6, 6]),
        (StartAt::Timestamp(Timestamp::from_millis(6001)), [7, 7]),
        (StartAt::Timestamp(seconds(0)), [3, 3]),
        (StartAt::Timestamp(seconds(99)), [10, 10]),
    ] {
        let mut tape = topic.subscribe("tape").start(start.clone()).poll().unwrap();
        let read: usize = read(&mut tape).len();
        assert_eq!([0, 1].map(|partition| tape.first_in(partition).unwrap()), firsts, "{start:?}");
        assert_eq!(read as u64, 20 - firsts[0] - firsts[1], "{start:?}");
    }
    for start in [StartAt::Offset(2), StartAt::Offset(11), StartAt::Offsets(vec![3, 2])] {
        let refused = topic.subscribe("tape").start(start.clone()).poll().unwrap_err();
        let SubscribeError::OutOfRange { refused, .. } = refused else { panic!("{start:?}: {refused}") };
        assert_eq!((refused.earliest, refused.latest), (3, 10), "{start:?}");
    }
    assert!(topic.metrics().consumers.is_empty(), "a refused one leaves nothing behind");
}

#[test]
fn a_time_needs_timestamps() {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("ticks").create().unwrap();
    let refused = topic.subscribe("tape").start(StartAt::Timestamp(seconds(1))).poll().unwrap_err();
    assert!(matches!(refused, SubscribeError::NoTimestamps { .. }), "{refused}");
    let mut tape = topic.subscribe("tape").poll().unwrap();
    assert!(matches!(tape.lag_time(), Err(PositionError::NoTimestamps { .. })));
    assert!(matches!(tape.seek_to_time(seconds(1)), Err(PositionError::NoTimestamps { .. })));
    let refused = engine.topic::<u64>("aged").retain(4).retain_for(LONG).create().unwrap_err();
    assert!(matches!(refused, TopicError::NoTimestamps { .. }), "{refused}");
}

#[test]
fn seeking_moves_where_it_may_and_names_the_range_where_not() {
    let (_clock, topic, mut producer) = timed(None);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    assert_eq!(read(&mut tape).len(), 14);
    tape.seek(1, 8).unwrap();
    assert_eq!((tape.position(0), tape.position(1)), (Some(10), Some(8)));
    assert_eq!(read(&mut tape), [8, 9]);
    for (asked, partition) in [(2, 0), (11, 0), (2, 1)] {
        let refused = tape.seek(partition, asked).unwrap_err();
        let PositionError::OutOfRange { refused, .. } = refused else { panic!("{refused}") };
        assert_eq!((refused.asked, refused.partition, refused.latest), (asked, partition, 10));
        assert!(refused.earliest == 3 || asked == 11, "{refused}");
        assert_eq!(tape.position(partition), Some(10), "it stays where it was");
    }
    assert!(matches!(tape.seek(2, 0), Err(PositionError::UnknownPartition { asked: 2, partitions: 2, .. })));
    // Back to the earliest, and again.
    for _ in 0..2 {
        tape.seek(0, 3).unwrap();
        assert_eq!(read(&mut tape), [3, 4, 5, 6, 7, 8, 9]);
    }
    // What it went back to is kept for it.
    tape.seek(0, 3).unwrap();
    producer.publish_to(0, |event| *event = 10).unwrap();
    assert!(producer.try_publish(|_| ()).is_err() || producer.try_publish(|_| ()).is_err());
    assert_eq!(read(&mut tape)[..3], [3, 4, 5]);
}

#[test]
fn a_topic_at_its_end_can_be_read_again() {
    let (_clock, topic, _producer) = timed(None);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    read(&mut tape);
    topic.close();
    assert!(tape.poll(LONG).unwrap().is_none());
    assert!(tape.poll(LONG).unwrap().is_none(), "the end is the end, however often one asks");
    tape.seek(1, 9).unwrap();
    assert_eq!(read(&mut tape), [9]);
    assert!(tape.poll(LONG).unwrap().is_none());
}

#[test]
fn seeking_to_a_time_goes_back_and_forth() {
    let (_clock, topic, _producer) = timed(None);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    for (at, position) in [(5, 5), (8, 8), (4, 4), (0, 3), (50, 10), (9, 9)] {
        tape.seek_to_time(seconds(at)).unwrap();
        assert_eq!([0, 1].map(|partition| tape.position(partition)), [Some(position); 2], "second {at}");
    }
    // Whoever has another behind it goes forward all the same.
    let mut first = topic.subscribe("first").poll().unwrap();
    let _second = topic.subscribe("second").after(["first"]).poll().unwrap();
    first.seek_to_time(seconds(7)).unwrap();
    assert_eq!(first.position(0), Some(7));
    assert!(matches!(first.seek_to_time(seconds(4)), Err(PositionError::StoodBehind { .. })));
}

#[test]
fn lag_is_told_in_events_and_in_time() {
    let (clock, topic, mut producer) = timed(None);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    // Second 10 now; the oldest of what is kept is of second 3.
    assert_eq!((tape.lag(), tape.lag_in(1), tape.lag_in(2)), (14, Some(7), None));
    assert_eq!(tape.lag_time().unwrap(), Duration::from_secs(7));
    read(&mut tape);
    assert_eq!((tape.lag(), tape.lag_time().unwrap()), (0, NOW));
    producer.publish(|_| ()).unwrap();
    clock.advance(Duration::from_millis(250));
    assert_eq!((tape.lag(), tape.lag_time().unwrap()), (1, Duration::from_millis(250)));
}

#[test]
fn a_paused_partition_gives_nothing_and_holds_its_place() {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("ticks").partitions(2).capacity(4).create().unwrap();
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    tape.pause(1).unwrap();
    tape.pause(1).unwrap();
    assert_eq!(tape.paused(), [1]);
    for partition in [0, 1] {
        producer.publish_to(partition, |event| *event = u64::from(partition)).unwrap();
    }
    assert_eq!(read(&mut tape), [0]);
    assert!(tape.poll(Duration::from_millis(1)).unwrap().unwrap().is_empty());
    assert_eq!(tape.lag_in(1), Some(1));
    for _ in 0..3 {
        producer.publish_to(1, |event| *event = 1).unwrap();
    }
    assert!(producer.publish_batch(4, |_, _| ()).is_ok(), "the other partition goes on");
    tape.resume(1).unwrap();
    let mut seen = read(&mut tape);
    seen.sort_unstable();
    assert_eq!(seen, [0, 0, 0, 0, 1, 1, 1, 1]);
    assert!(matches!(tape.pause(2), Err(PositionError::UnknownPartition { .. })));

    // An end is told when the rest was resumed and read, and nobody waits for ever.
    tape.pause(0).unwrap();
    tape.pause(1).unwrap();
    producer.publish_to(1, |event| *event = 7).unwrap();
    let closing = std::thread::spawn({
        let topic = topic.clone();
        move || topic.close()
    });
    assert!(tape.poll(Duration::MAX).unwrap().unwrap().is_empty());
    closing.join().unwrap();
    tape.resume(0).unwrap();
    tape.resume(1).unwrap();
    assert_eq!(read(&mut tape), [7]);
    assert!(tape.poll(LONG).unwrap().is_none());
}

/// It looked every 50 ms whether the topic had ended.
#[test]
#[cfg(target_os = "linux")]
fn who_waits_beside_paused_partitions_sleeps_until_something_comes() {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("ticks").partitions(3).capacity(4).create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let mut tape =
        topic.subscribe("tape").wait(Wait::spin_then_park().spin_for(Duration::ZERO).yields(0)).poll().unwrap();
    tape.pause(1).unwrap();
    tape.pause(2).unwrap();
    let before = sleeps();
    assert!(tape.poll(Duration::from_millis(600)).unwrap().unwrap().is_empty());
    assert!(sleeps() - before < 6, "{} sleeps in 600 ms", sleeps() - before);
    let sleeper = asleep(move || {
        assert_eq!(tape.poll(Duration::MAX).unwrap().unwrap().partition(), 0);
        tape
    });
    producer.publish_to(0, |_| ()).unwrap();
    let mut tape = sleeper.join();

    // What is published to paused partitions wakes nobody; the end does.
    tape.pause(0).unwrap();
    let sleeper = asleep(move || {
        assert!(tape.poll(Duration::MAX).unwrap().unwrap().is_empty());
        tape
    });
    let before = sleeper.sleeps();
    for partition in [1, 2] {
        (0..4).for_each(|_| _ = producer.publish_to(partition, |_| ()).unwrap());
    }
    std::thread::sleep(Duration::from_millis(150));
    assert!(!sleeper.is_over() && sleeper.sleeps() == before, "{} looks", sleeper.sleeps() - before);
    // The close waits for the reader, which has the rest to read.
    let closing = std::thread::spawn(move || topic.close());
    let mut tape = sleeper.join();
    (0..3).for_each(|partition| tape.resume(partition).unwrap());
    while let Some(mut batch) = tape.poll(LONG).unwrap() {
        (&mut batch).into_iter().for_each(drop);
    }
    closing.join().unwrap();
}

#[test]
fn who_pauses_everything_is_told_of_eviction_and_failure() {
    for fails in [false, true] {
        let engine = Engine::builder().build().unwrap();
        let topic = engine.topic::<u64>("ticks").partitions(2).capacity(1).slow(Slow::EVICT).create().unwrap();
        let mut tape = topic.subscribe("tape").poll().unwrap();
        (0..2).for_each(|partition| tape.pause(partition).unwrap());
        if fails {
            topic.subscribe("fails").run(|_, _| Err::<(), _>("no paper")).unwrap();
        }
        let mut producer = topic.producer().create().unwrap();
        let reading = std::thread::spawn(move || tape.poll(Duration::MAX).map(|_| ()));
        producer.publish_to(0, |_| ()).unwrap();
        if !fails {
            producer.publish_to(0, |_| ()).unwrap();
        }
        let told = reading.join().unwrap().unwrap_err().reason;
        assert!(matches!((fails, &told), (false, Closed::Evicted { .. }) | (true, Closed::Failed { .. })), "{told:?}");
    }
}

#[test]
fn what_is_older_than_its_age_is_gone_for_whoever_comes() {
    let (clock, topic, mut producer) = timed(Some(Duration::from_secs(5)));
    // Second 10: what is of second 5 and later is kept.
    let mut old = topic.subscribe("old").poll().unwrap();
    assert_eq!(old.position(0), Some(5));
    clock.advance(Duration::from_secs(2));
    for start in [StartAt::Earliest, StartAt::Timestamp(seconds(0)), StartAt::Offset(7)] {
        let tape = topic.subscribe("tape").start(start.clone()).poll().unwrap();
        assert_eq!(tape.position(1), Some(7), "{start:?}");
    }
    let refused = topic.subscribe("tape").start(StartAt::Offset(6)).poll().unwrap_err();
    let SubscribeError::OutOfRange { refused, .. } = refused else { panic!("{refused}") };
    assert_eq!((refused.asked, refused.earliest, refused.latest), (6, 7, 10));
    // Who had it already may still read it, and cannot come back to it.
    assert_eq!(read(&mut old).len(), 10);
    let refused = old.seek(0, 6).unwrap_err();
    let PositionError::OutOfRange { refused, .. } = refused else { panic!("{refused}") };
    assert_eq!((refused.asked, refused.earliest, refused.latest), (6, 7, 10));
    assert_eq!(old.position(0), Some(10));
    old.seek(0, 7).unwrap();
    assert_eq!(read(&mut old), [7, 8, 9]);
    clock.advance(LONG);
    assert_eq!(topic.subscribe("tape").poll().unwrap().position(0), Some(10));
    producer.publish_to(0, |event| *event = 10).unwrap();
    assert_eq!(topic.subscribe("tape").poll().unwrap().lag(), 1);
}

/// A chain of subscribers of which each came late, with every start: none is given an event before those that it stands
/// behind have passed it, and none misses one.
#[test]
fn a_subscriber_behind_another_keeps_the_order_from_every_start() {
    let engine = Engine::builder().build().unwrap();
    let starts =
        [StartAt::Earliest, StartAt::Latest, StartAt::Offset(1), StartAt::Offset(3), StartAt::Timestamp(seconds(0))];
    for (index, start) in starts.into_iter().enumerate() {
        let topic = engine.topic::<u64>(&format!("ticks-{index}")).capacity(8).retain(3).timestamps().create().unwrap();
        let mut first = topic.subscribe("first").poll().unwrap();
        let mut producer = topic.producer().create().unwrap();
        (0..3).for_each(|tick| _ = producer.publish(|event| *event = tick).unwrap());
        let Ok(mut second) = topic.subscribe("second").after(["first"]).start(start.clone()).poll() else {
            panic!("{start:?} is kept");
        };
        let begins = second.position(0).unwrap();
        let mut third = topic.subscribe("third").after(["second"]).poll().unwrap();
        assert_eq!((read(&mut third), read(&mut second), read(&mut third)), (vec![], vec![], vec![]), "{start:?}");
        assert_eq!(read(&mut first), [0, 1, 2]);
        assert_eq!(read(&mut second), (begins..3).collect::<Vec<_>>(), "{start:?}");
        assert_eq!(read(&mut third), [0, 1, 2], "{start:?}");
        // Forward over what the one before has not passed.
        (3..6).for_each(|tick| _ = producer.publish(|event| *event = tick).unwrap());
        second.seek(0, 5).unwrap();
        assert_eq!((read(&mut second), read(&mut third)), (vec![], vec![]));
        assert_eq!(read(&mut first), [3, 4, 5]);
        assert_eq!((read(&mut second), read(&mut third)), (vec![5], vec![3, 4, 5]));
    }
}

/// What a subscriber or a queue's worker asks for are events: the slots of a record that was given up count for nothing.
#[test]
fn a_limit_counts_events_where_slots_are_skipped() {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("ticks").capacity(8).create().unwrap();
    let mut tape = topic.subscribe("tape").limit(1).poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    for _ in 0..3 {
        let fill =
            std::panic::AssertUnwindSafe(|| producer.publish(|_| std::panic::resume_unwind(Box::new("on purpose"))));
        assert!(std::panic::catch_unwind(fill).is_err());
    }
    producer.publish(|event| *event = 7).unwrap();
    assert_eq!(tape.poll(NOW).unwrap().unwrap().into_iter().map(|(event, _)| *event).collect::<Vec<_>>(), [7]);
}
