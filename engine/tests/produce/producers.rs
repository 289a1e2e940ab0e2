//! Producers that gather, and producers with a name.

use proptest::prelude::*;
use slipring::{
    Engine, Message, Receipt, Record, Subscriber, Topic,
    clock::ManualClock,
    producer::{
        IdempotenceError, KEPT_RECEIPTS, MAX_PRODUCER_NAMES, PRODUCER_NAME_EXPIRY, Partitioner, ProducerError,
        PublishError,
    },
    topic::Overflow,
};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NOW: Duration = Duration::ZERO;
const DELAY: Duration = Duration::from_millis(5);

fn orders(capacity: usize, overflow: Overflow) -> (ManualClock, Topic<Message>) {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = engine.topic::<Message>("orders").partitions(2).capacity(capacity).overflow(overflow);
    (clock, topic.create().unwrap())
}

fn read(tape: &mut Subscriber<Message>) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let before = all.len();
        for (message, _) in &mut tape.poll(NOW).unwrap().unwrap() {
            all.push(String::from_utf8(message.value().to_vec()).unwrap());
        }
        if all.len() == before {
            return all;
        }
    }
}

#[test]
fn gathered_records_are_published_when_they_are_enough_or_old_enough() {
    let (clock, topic) = orders(64, Overflow::Block);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let told = Arc::new(Mutex::new(Vec::<(u64, Receipt)>::new()));
    let tells = Arc::clone(&told);
    let producer = topic.producer().partitioner(Partitioner::Explicit).linger(DELAY, 3);
    let producer =
        producer.on_completion(move |number, outcome| tells.lock().unwrap().push((number, outcome.unwrap())));
    let producer = producer.create().unwrap();
    let record = |value: &'static str, partition| Record::new(value).partition(partition);
    assert_eq!(producer.send(record("a", 1)).unwrap(), 0);
    clock.advance(DELAY - Duration::from_millis(1));
    assert_eq!((producer.gathered(), read(&mut tape).len()), (1, 0));
    clock.advance(Duration::from_millis(1));
    assert_eq!((producer.gathered(), read(&mut tape)), (0, vec!["a".to_owned()]));
    for (value, partition) in [("b", 0), ("c", 1), ("d", 0)] {
        producer.send(record(value, partition)).unwrap();
    }
    assert_eq!(producer.gathered(), 0, "three are enough");
    assert_eq!(read(&mut tape), ["b", "d", "c"]);
    producer.send(record("e", 0)).unwrap();
    producer.flush().unwrap();
    assert_eq!(read(&mut tape), ["e"]);
    clock.advance(DELAY * 9);
    assert!(read(&mut tape).is_empty(), "nothing twice");
    let told: Vec<_> = told.lock().unwrap().iter().map(|(number, at)| (*number, at.partition, at.offset)).collect();
    assert_eq!(told, [(0, 1, 0), (1, 0, 0), (3, 0, 1), (2, 1, 1), (4, 0, 2)]);
}

#[test]
fn the_systems_clock_publishes_what_was_gathered() {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<Message>("orders").create().unwrap();
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let producer = topic.producer().linger(Duration::from_millis(1), 100).create().unwrap();
    producer.send(Record::new("a").key("k").header("h", "v")).unwrap();
    let mut batch = tape.poll(Duration::from_secs(120)).unwrap().unwrap();
    let (message, _) = (&mut batch).into_iter().next().unwrap();
    assert_eq!((message.key(), message.value(), message.header("h")), (Some(&b"k"[..]), &b"a"[..], Some(&b"v"[..])));
}

#[test]
fn without_room_the_timer_waits_for_nobody_and_loses_nothing() {
    let (clock, topic) = orders(2, Overflow::Fail);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let producer = topic.producer().partitioner(Partitioner::Explicit).linger(DELAY, 3).create().unwrap();
    let send = |value: &'static str| producer.send(Record::new(value).partition(0));
    for value in ["a", "b"] {
        send(value).unwrap();
    }
    clock.advance(DELAY);
    assert_eq!(producer.gathered(), 0);
    for value in ["c", "d", "e"] {
        send(value).unwrap();
    }
    clock.advance(DELAY * 3);
    assert_eq!(producer.gathered(), 3);
    let refused = send("f").unwrap_err();
    assert!(matches!(&refused, PublishError::Full { by: Some(by), .. } if by == "tape"), "{refused}");
    assert!(producer.flush_until(Instant::now()).unwrap_err().is_full());
    assert_eq!(read(&mut tape), ["a", "b"]);
    clock.advance(DELAY);
    assert_eq!((producer.gathered(), read(&mut tape)), (1, vec!["c".to_owned(), "d".to_owned()]));
    assert_eq!(send("f").unwrap(), 5);
    clock.advance(DELAY);
    assert_eq!(read(&mut tape), ["e", "f"]);
    let metrics = topic.metrics();
    // What the timer tries is no refusal: the third record's own flush was one, and those that were told.
    assert_eq!((metrics.refused, metrics.timed_out, metrics.dropped), (2 + 2, 2, 0));
}

#[test]
fn what_does_not_fit_is_refused_at_once_and_an_end_is_told() {
    let (clock, topic) = orders(2, Overflow::Block);
    let producer = topic.producer().linger(DELAY, 3).create().unwrap();
    assert!(matches!(producer.send(Record::new(&[0; 2000])), Err(PublishError::MessageTooLarge { size: 2000, .. })));
    let nowhere = producer.send(Record::new("a").partition(2));
    assert!(matches!(nowhere, Err(PublishError::UnknownPartition { asked: 2, .. })));
    assert_eq!(producer.send(Record::new("a")).unwrap(), 0);
    topic.close();
    clock.advance(DELAY);
    assert!(matches!(producer.send(Record::new("b")), Err(PublishError::Closed { .. })));
    assert!(matches!(producer.flush(), Err(PublishError::Closed { .. })));
    drop(producer);
    // It had room: the topic's end has published it.
    assert_eq!((topic.metrics().published, topic.metrics().dropped), (1, 0));
}

#[test]
fn the_last_handle_publishes_what_is_left_and_never_hangs() {
    let (_clock, topic) = orders(2, Overflow::Block);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let producer = topic.producer().partitioner(Partitioner::Explicit).linger(DELAY, 100).create().unwrap();
    let other = producer.clone();
    for value in ["a", "b"] {
        producer.send(Record::new(value).partition(0)).unwrap();
    }
    drop(producer);
    assert!(read(&mut tape).is_empty());
    drop(other);
    assert_eq!(read(&mut tape), ["a", "b"]);
    // Nobody reads: two find room, the third is counted after a while.
    let producer = topic.producer().partitioner(Partitioner::Explicit).linger(DELAY, 100).create().unwrap();
    for value in ["c", "d", "e"] {
        producer.send(Record::new(value).partition(0)).unwrap();
    }
    drop(producer);
    assert_eq!(topic.metrics().dropped, 1);
    assert_eq!(read(&mut tape), ["c", "d"]);
}

fn numbers(capacity: usize, overflow: Overflow) -> (ManualClock, Topic<u64>) {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    (clock, engine.topic::<u64>("numbers").capacity(capacity).overflow(overflow).create().unwrap())
}

#[test]
fn receipts_are_kept_for_so_many_duplicates() {
    let (_clock, topic) = numbers(8, Overflow::Block);
    let mut producer = topic.producer().idempotent("gateway").unwrap();
    assert_eq!((producer.next_sequence(), producer.epoch()), (None, 1));
    let kept = KEPT_RECEIPTS as u64;
    for sequence in 100..100 + kept + 1 {
        assert_eq!(producer.publish(sequence, |event| *event = sequence).unwrap().offset, sequence - 100);
    }
    let again = |producer: &mut slipring::producer::IdempotentProducer<u64>, sequence| {
        producer.publish(sequence, |_| panic!("published twice"))
    };
    assert_eq!(again(&mut producer, 100 + kept).unwrap().offset, kept);
    assert_eq!(again(&mut producer, 101).unwrap().offset, 1);
    let forgotten = again(&mut producer, 100).unwrap_err();
    assert!(matches!(forgotten, IdempotenceError::Forgotten { sequence: 100, oldest: 101, .. }), "{forgotten}");
    assert_eq!(producer.next_sequence(), Some(101 + kept));
}

#[test]
fn a_refused_sequence_may_be_sent_again_and_is_published_once() {
    let (_clock, topic) = numbers(1, Overflow::Fail);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().idempotent("gateway").unwrap();
    producer.publish(0, |event| *event = 10).unwrap();
    for _ in 0..3 {
        assert!(matches!(producer.publish(1, |_| ()), Err(IdempotenceError::Refused(PublishError::Full { .. }))));
        assert!(matches!(producer.publish(2, |_| ()), Err(IdempotenceError::Gap { expected: 1, got: 2, .. })));
    }
    (&mut tape.poll(NOW).unwrap().unwrap()).into_iter().for_each(drop);
    assert_eq!(producer.publish(1, |event| *event = 11).unwrap().offset, 1);
    assert_eq!(producer.publish(1, |event| *event = 12).unwrap().offset, 1);
    assert_eq!((&mut tape.poll(NOW).unwrap().unwrap()).into_iter().next().unwrap().0, &11);
}

#[test]
fn whoever_opens_a_name_fences_the_others_and_goes_on_where_they_were() {
    let (_clock, topic) = numbers(8, Overflow::Block);
    let mut first = topic.producer().idempotent("gateway").unwrap();
    let receipt = first.publish(7, |_| ()).unwrap();
    let mut second = topic.producer().idempotent("gateway").unwrap();
    assert_eq!((second.epoch(), second.next_sequence()), (2, Some(8)));
    let fenced = first.publish(8, |_| ()).unwrap_err();
    assert!(matches!(fenced, IdempotenceError::Fenced { epoch: 1, current: 2, .. }), "{fenced}");
    assert!(first.publish(7, |_| ()).is_err(), "not even a duplicate: it must learn");
    assert_eq!(second.publish(7, |_| panic!("published twice")).unwrap(), receipt);
    second.publish(8, |_| ()).unwrap();
    // Another name is another sequence.
    assert_eq!(topic.producer().idempotent("other").unwrap().next_sequence(), None);
    assert!(matches!(topic.producer().idempotent("a/b"), Err(ProducerError::Name { .. })));
}

#[test]
fn names_are_bounded_and_expire_when_nothing_of_them_matters() {
    let (clock, topic) = numbers(2, Overflow::Block);
    let mut kept = topic.producer().idempotent("kept").unwrap();
    let mut tape = topic.subscribe("tape").poll().unwrap();
    kept.publish(0, |_| ()).unwrap();
    drop(kept);
    let held = topic.producer().idempotent("held").unwrap();
    for number in 2..MAX_PRODUCER_NAMES {
        topic.producer().idempotent(format!("name-{number}")).unwrap();
    }
    let refused = topic.producer().idempotent("one-more").unwrap_err();
    assert!(matches!(&refused, ProducerError::TooManyNames { limit: MAX_PRODUCER_NAMES, .. }), "{refused}");
    clock.advance(PRODUCER_NAME_EXPIRY - Duration::from_nanos(1));
    assert!(topic.producer().idempotent("one-more").is_err());
    clock.advance(Duration::from_nanos(1));
    topic.producer().idempotent("one-more").unwrap();
    // An event of one is still to be read, and somebody has the other.
    assert_eq!(topic.producer().idempotent("kept").unwrap().next_sequence(), Some(1));
    assert_eq!(topic.producer().idempotent("held").unwrap().epoch(), held.epoch() + 1);
    (&mut tape.poll(NOW).unwrap().unwrap()).into_iter().for_each(drop);
    clock.advance(PRODUCER_NAME_EXPIRY);
    topic.producer().idempotent("another").unwrap();
    assert_eq!(topic.producer().idempotent("kept").unwrap().next_sequence(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever is sent again, by whomever: each sequence once, in order.
    #[test]
    fn every_sequence_is_published_once(calls in prop::collection::vec((0..3usize, 0..12u64), 1..80)) {
        let (_clock, topic) = numbers(128, Overflow::Block);
        let mut tape = topic.subscribe("tape").poll().unwrap();
        let mut producers: Vec<_> = (0..3).map(|_| topic.producer().idempotent("gateway").unwrap()).collect();
        let (mut holder, mut next, mut accepted) = (2, None::<u64>, Vec::new());
        for (who, sequence) in calls {
            if sequence == 11 {
                producers[who] = topic.producer().idempotent("gateway").unwrap();
                holder = who;
                continue;
            }
            let result = producers[who].publish(sequence, |event| *event = sequence);
            match (who == holder, next) {
                (false, _) => prop_assert!(matches!(result, Err(IdempotenceError::Fenced { .. })), "a fenced one"),
                (true, None) => {
                    prop_assert!(result.is_ok());
                    accepted.push(sequence);
                    next = Some(sequence + 1);
                }
                (true, Some(expected)) if sequence == expected => {
                    prop_assert!(result.is_ok());
                    accepted.push(sequence);
                    next = Some(sequence + 1);
                }
                (true, Some(expected)) if sequence > expected => {
                    let is_gap = matches!(result, Err(IdempotenceError::Gap { .. }));
                    prop_assert!(is_gap);
                }
                (true, Some(_)) => {
                    let is_known = matches!(result, Ok(_) | Err(IdempotenceError::Forgotten { .. }));
                    prop_assert!(is_known);
                }
            }
        }
        let mut events = Vec::new();
        for (event, at) in &mut tape.poll(NOW).unwrap().unwrap() {
            prop_assert_eq!(at.offset, events.len() as u64);
            events.push(*event);
        }
        prop_assert_eq!(events, accepted);
    }
}
