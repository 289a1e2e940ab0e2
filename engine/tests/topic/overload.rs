//! What happens when producers are faster than consumers, or than they may be: each policy, its error and its counts.

use slipring::{
    Engine, Message, Producer, Record, Subscriber, Topic,
    clock::ManualClock,
    journal::simulated::SimulatedDisk,
    producer::{Producers, PublishError},
    subscriber::At,
    topic::{Closed, Overflow, RateLimit, Slow, TopicError},
};
use std::convert::Infallible;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);
const NOW: Duration = Duration::ZERO;

fn engine() -> Engine {
    Engine::builder().build().unwrap()
}

/// A topic of four slots and one subscriber that reads only when told.
fn full(overflow: Overflow, slow: Slow) -> (Topic<u64>, Producer<u64>, Subscriber<u64>) {
    let topic = engine().topic::<u64>("ticks").capacity(4).overflow(overflow).slow(slow).create().unwrap();
    let tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    for number in 0..4 {
        producer.publish(|event| *event = number).unwrap();
    }
    (topic, producer, tape)
}

fn read(tape: &mut Subscriber<u64>) -> Vec<u64> {
    (&mut tape.poll(NOW).unwrap().unwrap()).into_iter().map(|(event, _)| *event).collect()
}

/// The text of the metrics showed a full topic, and not that events were lost.
#[test]
fn the_text_of_the_metrics_says_what_was_not_published() {
    let engine = engine();
    let make = |name, overflow| engine.topic::<u64>(name).capacity(4).overflow(overflow).create().unwrap();
    let topics = [make("drops", Overflow::DropNewest), make("fails", Overflow::Fail)];
    let _tapes = topics.each_ref().map(|topic| topic.subscribe("tape").poll().unwrap());
    for topic in &topics {
        let mut producer = topic.producer().create().unwrap();
        (0..6).for_each(|number| _ = producer.publish(|event| *event = number));
    }
    let text = engine.metrics().to_string();
    assert!(text.contains("drops: published 4, fill 4/4, dropped 2\n"), "{text}");
    assert!(text.contains("fails: published 4, fill 4/4, refused 2\n"), "{text}");
}

/// It once waited for itself, and nothing said so.
#[test]
fn a_handler_that_publishes_into_its_own_full_topic_is_refused_and_told_why() {
    type Run<'r> = &'r dyn Fn(&Topic<u64>, Producer<u64>, mpsc::Sender<PublishError>);
    let refused = |run: Run<'_>| {
        let engine = Engine::builder().build().unwrap();
        let ticks = engine.topic::<u64>("ticks").capacity(4).create().unwrap();
        let (tell, told) = mpsc::channel();
        run(&ticks, ticks.producer().create().unwrap(), tell);
        let _behind = ticks.subscribe("beside").run(|_, _| Ok::<_, Infallible>(())).unwrap();
        ticks.producer().create().unwrap().publish(|tick| *tick = 1).unwrap();
        let refused = told.recv_timeout(Duration::from_secs(120)).expect("it is refused");
        assert!(engine.shutdown(Duration::from_secs(120)).failures().next().is_none());
        refused
    };
    let echo = |mut producer: Producer<u64>, tell: mpsc::Sender<PublishError>| {
        move |tick: &u64, _: At| {
            if *tick == 1 {
                let refused = (0..9).find_map(|_| producer.publish(|tick| *tick = 2).err());
                tell.send(refused.expect("there is no room for nine")).unwrap();
            }
            Ok::<_, Infallible>(())
        }
    };
    let own = |consumer: &str| PublishError::OwnConsumer {
        topic: "ticks".to_owned(),
        partition: 0,
        consumer: consumer.to_owned(),
    };
    let run = |ticks: &Topic<u64>, producer, tell| drop(ticks.subscribe("echo").run(echo(producer, tell)).unwrap());
    assert_eq!(refused(&run), own("echo"));
    let each = |ticks: &Topic<u64>, producer: Producer<u64>, tell: mpsc::Sender<PublishError>| {
        let make = move |_| echo(producer.clone(), tell.clone());
        drop(ticks.subscribe("echo").run_each(make).unwrap());
    };
    assert_eq!(refused(&each), own("echo"));
    let group = |ticks: &Topic<u64>, producer, tell| drop(ticks.group("echo").run(echo(producer, tell)).unwrap());
    assert_eq!(refused(&group), own("group:echo"));
}

#[test]
fn block_waits_for_the_consumer() {
    let (topic, mut producer, mut tape) = full(Overflow::Block, Slow::Gate);
    let waiting = std::thread::spawn(move || producer.publish(|event| *event = 4).unwrap());
    // It has begun to wait: the consumer was told to be in the way.
    while topic.metrics().consumer("tape").unwrap().stalls == 0 {
        std::thread::yield_now();
    }
    assert_eq!(read(&mut tape), [0, 1, 2, 3]);
    assert_eq!(waiting.join().unwrap().offset, 4);
    assert_eq!(read(&mut tape), [4]);
    let metrics = topic.metrics();
    assert_eq!((metrics.refused, metrics.timed_out, metrics.dropped), (0, 0, 0));
}

/// It was evicted at once: a time that overflowed counted as one that had come.
#[test]
fn a_patience_that_no_clock_reaches_evicts_nobody() {
    for patience in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(1 << 63)] {
        let (topic, mut producer, mut tape) =
            full(Overflow::BlockFor(Duration::from_millis(1)), Slow::EvictAfter(patience));
        assert!(producer.try_publish(|_| ()).unwrap_err().is_full());
        let refused = producer.publish(|_| ()).unwrap_err();
        assert!(matches!(refused, PublishError::TimedOut { .. }), "{refused}");
        let refused = producer.publish_until(Instant::now(), |_| ()).unwrap_err();
        assert!(matches!(refused, PublishError::TimedOut { .. }), "{refused}");
        assert_eq!(read(&mut tape), [0, 1, 2, 3], "{patience:?}");
        assert_eq!(topic.metrics().evicted, 0);
    }
    // The other limits of time that overflow are never, too.
    let (_topic, mut producer, mut tape) = full(Overflow::BlockFor(Duration::MAX), Slow::Gate);
    let waiting = std::thread::spawn(move || producer.publish(|event| *event = 4).unwrap().offset);
    assert_eq!(read(&mut tape), [0, 1, 2, 3]);
    assert_eq!(waiting.join().unwrap(), 4);
    assert_eq!((&mut tape.poll(Duration::MAX).unwrap().unwrap()).into_iter().count(), 1);
}

#[test]
fn block_for_gives_up_with_the_name_of_who_was_in_the_way() {
    let (topic, mut producer, mut tape) = full(Overflow::BlockFor(Duration::from_millis(1)), Slow::Gate);
    for _ in 0..3 {
        let refused = producer.publish(|_| panic!("nothing is filled")).unwrap_err();
        assert!(
            matches!(&refused, PublishError::TimedOut { by: Some(by), missing: 1, .. } if by == "tape"),
            "{refused}"
        );
    }
    let refused = producer.publish_until(Instant::now(), |_| ()).unwrap_err();
    assert!(matches!(refused, PublishError::TimedOut { .. }));
    assert_eq!((topic.metrics().timed_out, topic.metrics().refused), (4, 0));
    read(&mut tape);
    assert_eq!(producer.publish(|event| *event = 9).unwrap().offset, 4);
}

#[test]
fn fail_gives_the_value_back_and_names_who_is_in_the_way() {
    let (topic, mut producer, mut tape) = full(Overflow::Fail, Slow::Gate);
    let refused = producer.publish(|_| panic!("nothing is filled")).unwrap_err();
    assert!(matches!(&refused, PublishError::Full { by: Some(by), partition: 0, .. } if by == "tape"), "{refused}");
    assert!(refused.to_string().contains("1 slot is missing: consumer \"tape\" is the furthest behind"), "{refused}");
    let rejected = producer.offer(77).unwrap_err();
    assert_eq!((rejected.value, rejected.reason.is_full()), (77, true));
    let refused = producer.publish_batch(3, |_, _| panic!("nothing is filled")).unwrap_err();
    assert!(matches!(refused, PublishError::Full { missing: 3, .. }), "{refused}");
    assert!(producer.try_publish(|_| ()).is_err());
    assert_eq!(topic.metrics().refused, 1 + 1 + 3 + 1);
    assert_eq!(read(&mut tape), [0, 1, 2, 3]);
    assert_eq!(producer.offer(4).unwrap().offset, 4);
    assert_eq!(read(&mut tape), [4]);
}

#[test]
fn drop_newest_says_so_in_the_receipt_and_counts_every_event() {
    let (topic, mut producer, mut tape) = full(Overflow::DropNewest, Slow::Gate);
    let dropped = producer.publish(|_| panic!("nothing is filled")).unwrap();
    assert!(dropped.is_dropped() && dropped.wait(slipring::Level::Published).is_err());
    let batch = producer.publish_batch(4, |_, _| ()).unwrap();
    assert!(batch.is_dropped() && batch.iter().all(|receipt| receipt.is_dropped()));
    assert_eq!((topic.metrics().dropped, topic.metrics().published), (5, 4));
    assert_eq!(read(&mut tape), [0, 1, 2, 3]);
    let batch = producer.publish_batch(4, |index, event| *event = 10 + index as u64).unwrap();
    assert!(!batch.is_dropped() && batch.iter().map(|receipt| receipt.offset).eq(4..8));
    assert_eq!(read(&mut tape), [10, 11, 12, 13]);
    // The forms that ask for something else get it.
    producer.publish_batch(4, |_, _| ()).unwrap();
    assert!(matches!(producer.try_publish(|_| ()), Err(PublishError::Full { .. })));
    // What can never fit is no matter of room.
    assert!(matches!(
        producer.publish_batch(5, |_, _| ()),
        Err(PublishError::BatchTooLarge { asked: 5, largest: 4, .. })
    ));
    assert!(matches!(producer.publish_batch(0, |_, _| ()), Err(PublishError::Nothing { .. })));
}

#[test]
fn a_record_that_is_refused_is_still_in_the_callers_hands() {
    let topic = engine().topic::<Message>("orders").capacity(1).overflow(Overflow::Fail).create().unwrap();
    let _tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let record = Record::new("buy").key("a");
    producer.send(&record).unwrap();
    assert!(producer.send(&record).unwrap_err().is_full());
    assert_eq!(record.size(), 4);
}

#[test]
fn a_slow_subscriber_is_evicted_and_told_and_the_others_miss_nothing() {
    let (topic, mut producer, mut tape) = full(Overflow::Block, Slow::EVICT);
    let mut quick = topic.subscribe("quick").slow(Slow::Gate).poll().unwrap();
    assert_eq!(read(&mut quick), [0, 1, 2, 3]);
    assert_eq!(producer.publish(|event| *event = 4).unwrap().offset, 4);
    let told = tape.poll(LONG).unwrap_err();
    assert!(matches!(&told.reason, Closed::Evicted { consumer } if consumer == "tape"), "{told}");
    assert_eq!(topic.metrics().evicted, 1);
    assert_eq!(topic.metrics().consumers.len(), 1);
    // Who is to be waited for is waited for, whatever holds for the topic.
    for number in 5..8 {
        producer.publish(|event| *event = number).unwrap();
    }
    assert!(producer.publish_until(Instant::now(), |_| ()).is_err());
    assert_eq!(read(&mut quick), [4, 5, 6, 7]);
    // The name is free: it may come again.
    drop(tape);
    assert!(topic.subscribe("tape").poll().is_ok());
}

#[test]
fn a_subscriber_in_a_batch_is_evicted_when_that_ends() {
    let (topic, mut producer, mut tape) = full(Overflow::Fail, Slow::EVICT);
    let mut batch = tape.poll(NOW).unwrap().unwrap();
    for _ in 0..3 {
        assert!(matches!(producer.publish(|_| ()), Err(PublishError::Full { .. })));
    }
    // Nothing is overwritten under its eyes.
    assert!((&mut batch).into_iter().map(|(event, _)| *event).eq(0..4));
    drop(batch);
    producer.publish(|_| ()).unwrap();
    assert!(tape.poll(LONG).is_err());
    assert_eq!((topic.metrics().evicted, topic.metrics().refused), (1, 3));
}

#[test]
fn a_subscriber_has_its_time_before_it_is_evicted() {
    let (topic, mut producer, _tape) = full(Overflow::Block, Slow::EvictAfter(Duration::from_millis(20)));
    // Those who do not wait so long evict nobody.
    assert!(matches!(producer.try_publish(|_| ()), Err(PublishError::Full { .. })));
    assert!(matches!(producer.publish_until(Instant::now(), |_| ()), Err(PublishError::TimedOut { .. })));
    assert_eq!(topic.metrics().evicted, 0);
    let begun = Instant::now();
    producer.publish(|_| ()).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(20));
    assert_eq!(topic.metrics().evicted, 1);
}

/// Waits until a producer has waited for one of these consumers.
fn wait_for_a_stall(topic: &Topic<u64>, of: &[&str]) {
    let begun = Instant::now();
    while !topic.metrics().consumers.iter().any(|it| of.contains(&&*it.name) && it.stalls > 0) {
        assert!(begun.elapsed() < LONG, "{:?}", topic.metrics());
        std::thread::yield_now();
    }
}

/// The producer waited for the subscriber that was furthest behind at first, and then for the other one without end.
#[test]
fn who_is_furthest_behind_only_later_is_evicted_too() {
    let topic = engine().topic::<u64>("ticks").capacity(4).create().unwrap();
    let mut held = topic.subscribe("held").poll().unwrap();
    let mut slow = topic.subscribe("slow").slow(Slow::EvictAfter(Duration::from_millis(1))).poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    producer.publish(|_| ()).unwrap();
    assert_eq!(read(&mut slow).len(), 1);
    (0..3).for_each(|_| _ = producer.publish(|_| ()).unwrap());
    let (tell, told) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let _ = producer.publish_batch(2, |_, _| ()).unwrap();
        tell.send(()).unwrap();
    });
    wait_for_a_stall(&topic, &["held"]);
    assert_eq!(read(&mut held).len(), 4);
    told.recv_timeout(LONG).expect("it goes on without the slow one");
    waiting.join().unwrap();
    assert!(matches!(&slow.poll(LONG).unwrap_err().reason, Closed::Evicted { consumer } if consumer == "slow"));
    assert_eq!(topic.metrics().evicted, 1);
}

#[test]
fn who_is_furthest_behind_once_an_evicted_one_has_ended_its_batch_is_evicted_too() {
    let topic = engine().topic::<u64>("ticks").capacity(4).create().unwrap();
    let mut first = topic.subscribe("first").slow(Slow::EVICT).poll().unwrap();
    let mut second = topic.subscribe("second").slow(Slow::EvictAfter(Duration::from_millis(1))).poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    producer.publish(|_| ()).unwrap();
    let in_hand = first.poll(LONG).unwrap().unwrap();
    assert_eq!(read(&mut second).len(), 1);
    (0..3).for_each(|_| _ = producer.publish(|_| ()).unwrap());
    let (tell, told) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let _ = producer.publish_batch(2, |_, _| ()).unwrap();
        tell.send(()).unwrap();
    });
    wait_for_a_stall(&topic, &["first", "second"]);
    drop(in_hand);
    told.recv_timeout(LONG).expect("it goes on without either");
    waiting.join().unwrap();
    for (reader, name) in [(&mut first, "first"), (&mut second, "second")] {
        assert!(matches!(&reader.poll(LONG).unwrap_err().reason, Closed::Evicted { consumer } if consumer == name));
    }
    assert_eq!(topic.metrics().evicted, 2);
}

#[test]
fn whoever_stands_behind_goes_first() {
    let topic = engine().topic::<u64>("ticks").capacity(2).slow(Slow::EVICT).partitions(2).create().unwrap();
    let mut first = topic.subscribe("first").poll().unwrap();
    let mut second = topic.subscribe("second").after(["first"]).poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    for _ in 0..3 {
        producer.publish_to(1, |_| ()).unwrap();
    }
    assert!(first.poll(NOW).is_err() && second.poll(NOW).is_err());
    assert_eq!((topic.metrics().evicted, topic.metrics().consumers.len()), (2, 0));
}

/// It was evicted from the partitions before the one in which another consumer stood behind it.
#[test]
fn who_cannot_be_evicted_from_one_partition_stays_in_all() {
    let topic = engine().topic::<u64>("ticks").capacity(2).slow(Slow::EVICT).overflow(Overflow::Fail).partitions(2);
    let topic = topic.create().unwrap();
    let mut first = topic.subscribe("first").poll().unwrap();
    let mut second = topic.subscribe("second").after(["first"]).poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    producer.publish_to(1, |_| ()).unwrap();
    assert_eq!(read(&mut first).len(), 1);
    let batch = second.poll(NOW).unwrap().unwrap();
    (0..2).for_each(|_| _ = producer.publish_to(0, |_| ()).unwrap());
    // The first of these evicts the second consumer, which leaves partition 1 when its batch ends.
    for _ in 0..3 {
        assert!(matches!(producer.publish_to(0, |_| ()), Err(PublishError::Full { .. })));
    }
    assert_eq!(read(&mut first).len(), 2, "it is in both partitions still");
    producer.publish_to(0, |_| ()).unwrap();
    drop(batch);
    assert!(second.poll(NOW).is_err());
    assert_eq!(read(&mut first).len(), 1);
    assert_eq!(topic.metrics().evicted, 1);
}

#[test]
fn what_is_too_old_is_passed_over_and_counted() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = engine.topic::<u64>("ticks").capacity(8).timestamps().time_to_live(Duration::from_secs(10));
    let topic = topic.create().unwrap();
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut late = topic.subscribe("late").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    clock.advance(Duration::from_secs(100));
    for number in 0..4 {
        producer.publish(|event| *event = number).unwrap();
        clock.advance(Duration::from_secs(4));
    }
    // Published 16, 12, 8 and 4 seconds ago.
    assert_eq!(read(&mut tape), [2, 3]);
    clock.advance(Duration::from_secs(2));
    assert_eq!(read(&mut late), [2, 3], "ten seconds are not more than ten");
    producer.publish(|event| *event = 4).unwrap();
    clock.advance(Duration::from_secs(11));
    assert_eq!((read(&mut tape), read(&mut late)), (vec![], vec![]));
    let metrics = topic.metrics();
    assert_eq!(["tape", "late"].map(|name| metrics.consumer(name).unwrap().expired), [3, 3]);
    assert_eq!(metrics.fill, 0, "what has expired holds no slot");
    let refused = engine.topic::<u64>("timeless").time_to_live(LONG).create().unwrap_err();
    assert!(matches!(refused, TopicError::NoTimestamps { .. }), "{refused}");
}

#[test]
fn rate_limits_of_producer_and_topic_hold_by_events_and_bytes() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let limit = RateLimit::new().bytes(1000, 100).refuse();
    let topic = engine.topic::<Message>("orders").rate_limit(limit).overflow(Overflow::Fail).create().unwrap();
    let own = RateLimit::new().events(10, 3).refuse();
    let mut limited = topic.producer().rate_limit(own).create().unwrap();
    let mut free = topic.producer().create().unwrap();
    for _ in 0..3 {
        limited.send(Record::new(&[0; 20])).unwrap();
    }
    let refused = limited.send(Record::new("")).unwrap_err();
    assert!(
        matches!(&refused, PublishError::RateLimited { of_topic: false, wait, .. } if *wait == Duration::from_millis(100)),
        "{refused}"
    );
    free.send(Record::new(&[0; 40])).unwrap();
    let refused = free.send(Record::new(&[0; 50])).unwrap_err();
    assert!(
        matches!(&refused, PublishError::RateLimited { of_topic: true, wait, .. } if *wait == Duration::from_millis(50)),
        "{refused}"
    );
    clock.advance(Duration::from_millis(100));
    // The topic refuses: the producer's own token is given back.
    assert!(limited.send(Record::new(&[0; 101])).is_ok(), "larger than the burst goes when that is full");
    clock.advance(Duration::from_millis(100));
    assert!(matches!(limited.send(Record::new(&[0; 100])), Err(PublishError::RateLimited { of_topic: true, .. })));
    clock.advance(Duration::from_millis(1));
    limited.send(Record::new(&[0; 99])).unwrap();
    let metrics = topic.metrics();
    assert_eq!((metrics.limited, metrics.delayed, metrics.published), (3, 0, 6));
}

#[test]
fn a_limit_that_waits_is_counted_and_ends_with_the_topic() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = engine.topic::<u64>("ticks").rate_limit(RateLimit::new().events(1, 1)).create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    producer.publish(|_| ()).unwrap();
    assert!(matches!(producer.try_publish(|_| ()), Err(PublishError::RateLimited { .. })), "trying never waits");
    let refused = producer.publish_until(Instant::now() + Duration::from_millis(1), |_| ()).unwrap_err();
    assert!(matches!(refused, PublishError::RateLimited { .. }), "the deadline comes before the token");
    let waiting = std::thread::spawn(move || (producer.publish(|_| ()).unwrap(), producer));
    while topic.metrics().delayed == 0 {
        std::thread::yield_now();
    }
    clock.advance(Duration::from_secs(1));
    let (receipt, mut producer) = waiting.join().unwrap();
    assert_eq!((receipt.offset, topic.metrics().delayed, topic.metrics().limited), (1, 1, 2));
    // Time stands still now, and the topic's end is told all the same.
    let waiting = std::thread::spawn(move || producer.publish(|_| ()).unwrap_err());
    while topic.metrics().delayed == 1 {
        std::thread::yield_now();
    }
    topic.close();
    assert!(matches!(waiting.join().unwrap(), PublishError::Closed { .. }));
}

/// A refusal must not cost tokens.
#[test]
fn what_has_no_room_costs_no_token() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock).build().unwrap();
    let limit = RateLimit::new().events(1, 2).refuse();
    let topic = engine.topic::<u64>("ticks").capacity(1).rate_limit(limit).overflow(Overflow::Fail).create().unwrap();
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    producer.publish(|_| ()).unwrap();
    for _ in 0..5 {
        assert!(matches!(producer.publish(|_| ()), Err(PublishError::Full { .. })));
    }
    read(&mut tape);
    producer.publish(|_| ()).unwrap();
    read(&mut tape);
    assert!(matches!(producer.publish(|_| ()), Err(PublishError::RateLimited { .. })));
}

#[test]
fn levels_that_need_a_journal_are_refused_with_the_reason() {
    let topic = engine().topic::<u64>("ticks").create().unwrap();
    for (level, reason) in [("Written", "journal"), ("Durable", "journal"), ("Replicated", "bridge")] {
        let level = match level {
            "Written" => slipring::Level::Written,
            "Durable" => slipring::Level::Durable,
            _ => slipring::Level::Replicated,
        };
        let refused = topic.producer().acknowledge(level).create().unwrap_err().to_string();
        assert!(refused.contains(reason) && refused.contains(&level.to_string()), "{refused}");
    }
    let receipt = topic.producer().acknowledge(slipring::Level::None).create().unwrap().publish(|_| ()).unwrap();
    assert_eq!(receipt.level(), slipring::Level::Published);
}

/// All that a producer of a topic of eight slots is answered, one by one and in batches, and what is read after that.
fn answers<K: Producers>(topic: &Topic<u64, K>, clock: &ManualClock) -> Vec<String> {
    let mut away = topic.subscribe("away").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let mut told = Vec::new();
    for round in 0..2 {
        for value in 0..4 {
            told.push(format!("{:?}", producer.publish(|event| *event = value).map_err(|refused| refused.to_string())));
            told.push(format!(
                "{:?}",
                producer.try_publish(|event| *event = 10).map_err(|refused| refused.to_string())
            ));
            let batch = producer.publish_batch(3, |index, event| *event = 100 + index as u64);
            told.push(format!("{:?}", batch.map_err(|refused| refused.to_string())));
            clock.advance(Duration::from_millis(1));
        }
        for len in [0, 9, usize::MAX] {
            told.push(format!("{:?}", producer.publish_batch(len, |_, _| ()).map_err(|refused| refused.to_string())));
        }
        while let Some(mut batch) = away.poll(Duration::ZERO).unwrap().filter(|batch| !batch.is_empty()) {
            (&mut batch).into_iter().for_each(|(value, at)| told.push(format!("{round}: {value} at {at:?}")));
        }
        told.push(format!("{:?}", topic.metrics().partitions.iter().map(|it| it.published).collect::<Vec<_>>()));
    }
    let metrics = topic.metrics();
    let counts = [metrics.refused, metrics.timed_out, metrics.dropped, metrics.limited, metrics.delayed];
    told.push(format!("{counts:?}"));
    let id = format!("{:?}", topic.id());
    told.into_iter().map(|told| told.replace(&id, "it")).collect()
}

#[test]
fn an_only_producer_is_answered_as_one_of_many() {
    for overflow in [Overflow::Fail, Overflow::DropNewest, Overflow::BlockFor(Duration::from_millis(1))] {
        for way in 0..4 {
            let [one, many] = [false, true].map(|many| {
                let clock = ManualClock::new();
                let engine = Engine::builder().clock(clock.clone()).build().unwrap();
                let topic = engine.topic::<u64>("ticks").capacity(8).overflow(overflow);
                let topic = match way {
                    0 => topic,
                    1 => topic.timestamps().time_to_live(Duration::from_millis(3)),
                    2 => topic.rate_limit(RateLimit::new().events(1000, 6).refuse()),
                    _ => topic.partitions(2),
                };
                match many {
                    true => answers(&topic.create().unwrap(), &clock),
                    false => answers(&topic.single_producer().create().unwrap(), &clock),
                }
            });
            assert_eq!(one, many, "{overflow:?}, {way}");
            assert!(one.iter().any(|told| told.starts_with("1: ")), "{one:?}");
        }
    }
}

#[test]
fn a_panic_while_an_only_producer_fills_publishes_nothing() {
    for partitions in [1, 2] {
        let topic = engine().topic::<u64>("ticks").partitions(partitions).single_producer().create().unwrap();
        let mut tape = topic.subscribe("tape").poll().unwrap();
        let mut producer = topic.producer().create().unwrap();
        let mut fail = |len: Option<usize>| {
            let fill = |_: &mut u64| std::panic::resume_unwind(Box::new(()));
            let publish = || match len {
                None => producer.publish(fill).map(drop),
                Some(len) => producer.publish_batch(len, |_, event| fill(event)).map(drop),
            };
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(publish)).is_err());
        };
        fail(None);
        fail(Some(3));
        assert!(tape.poll(NOW).unwrap().unwrap().is_empty());
        producer.publish(|event| *event = 1).unwrap();
        producer.publish_batch(2, |index, event| *event = 2 + index as u64).unwrap();
        let mut seen = Vec::new();
        while let Some(mut batch) = tape.poll(NOW).unwrap().filter(|batch| !batch.is_empty()) {
            seen.extend((&mut batch).into_iter().map(|(event, _)| *event));
        }
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);
    }
}

/// The journal of a durable topic reads it always, and does not count.
#[test]
fn a_producer_knows_who_reads_what_it_publishes() {
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap();
    for durable in [false, true] {
        let builder = engine.topic::<u64>(format!("ticks-{durable}")).partitions(2);
        let topic = if durable { builder.durable().create() } else { builder.create() }.unwrap();
        let producer = topic.producer().create().unwrap();
        assert_eq!(producer.readers(), [""; 0]);
        let tape = topic.subscribe("tape").poll().unwrap();
        let member = topic.group("sums").join().unwrap();
        let mut readers = producer.readers();
        readers.sort();
        assert_eq!(readers, ["group:sums", "tape"], "each once, whatever the number of partitions");
        drop(tape);
        assert_eq!(producer.readers(), ["group:sums"]);
        drop(member);
    }
}
