//! Partitions: reading all of them, growing, and where an event goes.

use slipring::{
    Engine, Message, Record, Subscriber, Wait,
    producer::{Multi, Partitioner, PublishError},
    subscriber::{At, SubscribeError},
    topic::TopicError,
};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sleeps::asleep;

const LONG: Duration = Duration::from_secs(120);

fn engine() -> Engine {
    Engine::builder().build().unwrap()
}

/// Reads until `count` events came, or the topic ended: what came, by partition.
fn read(subscriber: &mut Subscriber<u64>, count: usize) -> BTreeMap<u32, Vec<u64>> {
    let mut seen: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut left = count;
    while left > 0 {
        let Some(mut batch) = subscriber.poll(LONG).unwrap() else { break };
        assert!(!batch.is_empty(), "nothing came in time");
        let partition = batch.partition();
        for (event, at) in &mut batch {
            assert_eq!(at.partition, partition);
            let events = seen.entry(partition).or_default();
            assert_eq!(at.offset, events.len() as u64);
            events.push(*event);
            left -= 1;
        }
    }
    seen
}

#[test]
fn a_subscriber_reads_every_partition_each_in_order() {
    for wait in [Wait::spin_yield(), Wait::spin_then_park().spin_for(Duration::ZERO).yields(0)] {
        let engine = engine();
        let topic = engine.topic::<u64>("ticks").partitions(5).capacity(8).create().unwrap();
        let mut tape = topic.subscribe("tape").wait(wait).poll().unwrap();
        let mut producer = topic.producer().partitioner(Partitioner::RoundRobin).create().unwrap();
        let feeding = std::thread::spawn(move || {
            for number in 0..1000 {
                let receipt = producer.publish(|event| *event = number).unwrap();
                assert_eq!((receipt.partition, receipt.offset), ((number % 5) as u32, number / 5));
            }
        });
        let seen = read(&mut tape, 1000);
        feeding.join().unwrap();
        for (partition, events) in &seen {
            assert!(events.iter().eq((0..200).map(|turn| turn * 5 + u64::from(*partition)).collect::<Vec<_>>().iter()));
        }
        assert_eq!(seen.len(), 5);
        topic.close();
        assert!(tape.poll(LONG).unwrap().is_none());
    }
}

/// A partition that is always busy must not keep the others from being read.
#[test]
fn no_partition_starves_while_another_is_busy() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").partitions(3).capacity(4).create().unwrap();
    let wait = Wait::spin_then_park().spin_for(Duration::ZERO).yields(0);
    let mut tape = topic.subscribe("tape").limit(1).wait(wait).poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    // Everything is armed once.
    assert!(tape.poll(Duration::from_millis(1)).unwrap().unwrap().is_empty());
    producer.publish_to(2, |event| *event = 7).unwrap();
    for _ in 0..2 {
        producer.publish_to(0, |event| *event = 1).unwrap();
    }
    let mut polls = 0;
    loop {
        let mut batch = tape.poll(LONG).unwrap().unwrap();
        let partition = batch.partition();
        assert_eq!((&mut batch).into_iter().count(), 1);
        drop(batch);
        if partition == 2 {
            break;
        }
        producer.publish_to(0, |event| *event = 1).unwrap();
        polls += 1;
        assert!(polls < 100, "partition 2 is never read");
    }
}

#[test]
fn a_stage_behind_another_is_behind_it_in_each_partition() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").partitions(4).capacity(4).create().unwrap();
    let done: Arc<Vec<AtomicU64>> = Arc::new((0..4).map(|_| AtomicU64::new(0)).collect());
    let first = Arc::clone(&done);
    let one = topic.subscribe("first").run(move |_, at| {
        first[at.partition as usize].store(at.offset + 1, Ordering::Release);
        Ok::<_, Infallible>(())
    });
    one.unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let second = Arc::clone(&seen);
    let each = topic.subscribe("second").after(["first"]).run_each(move |partition| {
        let (done, second) = (Arc::clone(&done), Arc::clone(&second));
        move |_: &u64, at: At| {
            assert_eq!(at.partition, partition);
            assert!(done[at.partition as usize].load(Ordering::Acquire) > at.offset, "second came before first");
            second.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(())
        }
    });
    each.unwrap();
    let mut producer = topic.producer().partitioner(Partitioner::RoundRobin).create().unwrap();
    for number in 0..1000 {
        producer.publish(|event| *event = number).unwrap();
    }
    drop(producer);
    let report = engine.shutdown(LONG);
    assert!(report.is_complete(), "{report}");
    assert_eq!(seen.load(Ordering::Relaxed), 1000);
    let second: Vec<_> = report.topics[0].consumer("second").collect();
    assert!(second.len() == 4 && second.iter().all(|part| part.consumed == 250 && !part.running), "{report}");
}

#[test]
fn a_handler_that_fails_in_one_partition_ends_the_topic() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").partitions(3).create().unwrap();
    topic.subscribe("book").run(|event, _| if *event == 9 { Err("nine") } else { Ok(()) }).unwrap();
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().partitioner(Partitioner::RoundRobin).create().unwrap();
    let refused = loop {
        if let Err(refused) = producer.publish(|event| *event = 9) {
            break refused.to_string();
        }
    };
    assert!(refused.contains("\"book\"") && refused.contains("nine"), "{refused}");
    let told = loop {
        match tape.poll(LONG) {
            Ok(batch) => batch.unwrap().into_iter().for_each(drop),
            Err(told) => break told.to_string(),
        }
    };
    assert!(told.contains("\"book\"") && told.contains("nine"), "{told}");
    let report = engine.shutdown(LONG);
    assert_eq!(report.failures().collect::<Vec<_>>(), [("ticks", "book", "nine")]);
}

/// Whoever reads already misses nothing of a partition that is added, whether it sleeps, is busy, or runs by itself.
#[test]
fn consumers_read_new_partitions_from_their_first_offset() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").capacity(64).create().unwrap();
    let mut polled = topic.subscribe("polled").poll().unwrap();
    let mut spinning = topic.subscribe("spinning").wait(Wait::busy_spin()).poll().unwrap();
    let sums = Arc::new(Mutex::new(BTreeMap::new()));
    let sum = |name: &'static str| {
        let sums = Arc::clone(&sums);
        move |event: &u64, at: At| {
            *sums.lock().unwrap().entry((name, at.partition)).or_insert(0) += event;
            Ok::<_, Infallible>(())
        }
    };
    topic.subscribe("one-thread").run(sum("one")).unwrap();
    let each = sum("each");
    topic
        .subscribe("many-threads")
        .run_each(move |_| {
            let each = each.clone();
            move |event: &u64, at: At| each(event, at)
        })
        .unwrap();
    let mut producer = topic.producer().create().unwrap();
    let mut clone = producer.clone();
    let sleeping = asleep(move || {
        let seen = read(&mut polled, 3);
        (seen, polled)
    });
    let busy = std::thread::spawn(move || read(&mut spinning, 3));
    topic.add_partitions(2).unwrap();
    assert_eq!(topic.partitions(), 3);
    producer.publish_to(2, |event| *event = 1).unwrap();
    clone.publish_to(1, |event| *event = 2).unwrap();
    clone.publish_to(0, |event| *event = 3).unwrap();
    let all: BTreeMap<u32, Vec<u64>> = [(0, vec![3]), (1, vec![2]), (2, vec![1])].into();
    let (seen, _polled) = sleeping.join();
    assert_eq!((seen, busy.join().unwrap()), (all.clone(), all));
    let report = engine.shutdown(LONG);
    assert!(report.is_complete(), "{report}");
    let sums = sums.lock().unwrap();
    for name in ["one", "each"] {
        assert_eq!([0, 1, 2].map(|partition| sums[&(name, partition)]), [3, 2, 1], "{name}");
    }
}

#[test]
fn a_single_producer_takes_new_partitions_too() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").partitions(2).single_producer().create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    topic.add_partitions(1).unwrap();
    assert_eq!(producer.publish_to(2, |_| ()).unwrap().offset, 0);
    drop(producer);
    let mut again = topic.producer().create().unwrap();
    assert_eq!([0, 1, 2].map(|partition| again.publish_to(partition, |_| ()).unwrap().offset), [0, 0, 1]);
}

#[test]
fn numbers_of_partitions_have_their_bounds() {
    let engine = engine();
    for asked in [0, 1025, usize::MAX] {
        let refused = engine.topic::<u64>("ticks").capacity(1).partitions(asked).create().unwrap_err();
        assert!(matches!(&refused, TopicError::Partitions { .. }), "{refused}");
        assert!(refused.to_string().contains("1 to 1024"), "{refused}");
    }
    let most = engine.topic::<u64>("most").capacity(1).partitions(1024).create().unwrap();
    let mut producer = most.producer().create().unwrap();
    assert_eq!(producer.publish_to(1023, |_| ()).unwrap().partition, 1023);
    let refused = producer.publish_to(1024, |_| ()).unwrap_err();
    assert!(matches!(refused, PublishError::UnknownPartition { asked: 1024, partitions: 1024, .. }), "{refused}");
    assert!(matches!(most.add_partitions(1), Err(TopicError::Partitions { asked: 1025, .. })));
    assert_eq!(most.partitions(), 1024);
    most.close();
    assert!(matches!(engine.get::<u64, Multi>("most").unwrap().add_partitions(0), Err(TopicError::Closed { .. })));
}

#[test]
fn each_message_goes_where_it_was_told() {
    let engine = engine();
    let topic = engine.topic::<Message>("orders").partitions(4).max_message(32).create().unwrap();
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    for key in ["a", "b", "account-7", ""] {
        let partition = Partitioner::of_key(key.as_bytes(), 4);
        let receipt = producer.send(Record::new("x").key(key)).unwrap();
        assert_eq!(receipt.partition, partition, "{key:?}");
        assert_eq!(producer.send(Record::new("x").key(key).partition(3)).unwrap().partition, 3);
    }
    let mut explicit = topic.producer().partitioner(Partitioner::Explicit).create().unwrap();
    assert!(matches!(explicit.send(Record::new("x").key("a")), Err(PublishError::NoPartition { .. })));
    assert_eq!(explicit.send(Record::new("x").partition(2)).unwrap().partition, 2);
    let mut count = 0;
    while count < 9 {
        for (message, at) in &mut tape.poll(LONG).unwrap().unwrap() {
            assert_eq!(message.value(), b"x");
            let by_key = message.key().map(|key| Partitioner::of_key(key, 4));
            assert!(by_key == Some(at.partition) || [2, 3].contains(&at.partition));
            count += 1;
        }
    }
}

#[test]
fn a_name_is_taken_once_and_a_missing_one_is_named() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").partitions(2).create().unwrap();
    let _tape = topic.subscribe("tape").poll().unwrap();
    let taken = topic.subscribe("tape").poll().unwrap_err();
    assert!(matches!(&taken, SubscribeError::NameTaken { consumer, .. } if consumer == "tape"), "{taken}");
    let unknown = topic.subscribe("late").after(["nobody"]).poll().unwrap_err();
    assert!(matches!(&unknown, SubscribeError::Unknown { known, .. } if known == &["tape"]), "{unknown}");
    // A refused one has left nothing behind.
    assert_eq!(topic.metrics().consumers.len(), 1);
}

#[test]
fn a_description_has_the_memory_that_the_limit_is_held_to() {
    let engine = engine();
    let small = || engine.topic::<Message>("orders").partitions(2).capacity(16).max_message(100);
    // 100 bytes are two cache lines.
    let orders = small().memory_limit(1 << 20).create().unwrap();
    let at_first = orders.describe();
    assert!(at_first.memory >= 2 * 16 * (128 + 8) && at_first.memory < 1 << 14, "{at_first}");
    assert_eq!((at_first.partitions.len(), at_first.memory_limit, at_first.slot_bytes % 8), (2, 1 << 20, 0));
    orders.add_partitions(2).unwrap();
    let grown = engine.describe("orders").unwrap();
    assert_eq!(grown.memory, at_first.memory * 2);
    let shown = grown.to_string();
    for part in ["topic orders", "up to 100 bytes", &grown.memory.to_string(), "1048576", "partition 3: offsets 0..0"] {
        assert!(shown.contains(part), "{shown}");
    }
    engine.delete("orders").unwrap();

    let limit = 2 * 16 * grown.slot_bytes;
    let tight = small().memory_limit(limit).create().unwrap();
    let refused = tight.add_partitions(1).unwrap_err();
    assert!(
        matches!(&refused, TopicError::Memory { asked, limit: held, .. } if *asked == limit / 2 * 3 && *held == limit),
        "{refused}"
    );
    let text = refused.to_string();
    assert!(text.contains(&limit.to_string()) && text.contains(&(limit / 2 * 3).to_string()), "{text}");
    assert_eq!(tight.partitions(), 2);
    engine.delete("orders").unwrap();
    assert!(matches!(small().memory_limit(limit - 1).create(), Err(TopicError::Memory { .. })));
    assert!(matches!(engine.describe("orders"), Err(TopicError::Unknown { .. })));
    let refused = engine.topic::<Message>("huge").max_message(usize::MAX).memory_limit(u64::MAX).create().unwrap_err();
    assert!(matches!(&refused, TopicError::MaxMessage { .. }), "{refused}");
    // More than any address space: an error, not the end of the process.
    let refused = engine.topic::<Message>("huge").capacity(1 << 40).max_message(1 << 30).memory_limit(u64::MAX);
    let refused = refused.create().unwrap_err();
    assert!(refused.to_string().contains("bytes"), "{refused}");
    assert!(engine.topics().is_empty());
}

/// It filled its slots for ten seconds, and no limit saw it.
#[test]
fn a_topic_of_events_without_a_size_is_no_larger_than_it_can_be_made() {
    let refused = engine().topic::<()>("units").single_producer().capacity(1 << 28).create().unwrap_err();
    assert!(matches!(refused, TopicError::Ring { .. }), "{refused}");
    let refused = engine().topic::<()>("units").capacity(1 << 28).create().unwrap_err();
    assert!(matches!(refused, TopicError::Memory { .. }), "{refused}");
    engine().topic::<()>("units").single_producer().capacity(1 << 10).create().unwrap();
}

struct Frame([u8; 3 << 20]);

impl Default for Frame {
    fn default() -> Self {
        Self([5; 3 << 20])
    }
}

#[test]
fn events_of_megabytes_are_made_on_any_thread() {
    let frames = engine().topic::<Frame>("frames").capacity(2).partitions(2).create().unwrap();
    let mut screen = frames.subscribe("screen").poll().unwrap();
    frames.producer().create().unwrap().publish(|frame| frame.0[1] = 1).unwrap();
    let mut batch = screen.poll(Duration::from_secs(60)).unwrap().unwrap();
    let shown: Vec<_> = (&mut batch).into_iter().map(|(frame, _)| (frame.0[0], frame.0[1])).collect();
    assert_eq!(shown, [(5, 1)]);
    drop(batch);
    frames.add_partitions(1).unwrap();
}

#[test]
fn a_topic_that_is_read_is_deleted_by_force_only_and_the_report_says_what_was_left() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").create().unwrap();
    let mut tape = topic.subscribe("tape").poll().unwrap();
    topic.subscribe("book").run(|_, _| Ok::<_, Infallible>(())).unwrap();
    let mut producer = topic.producer().create().unwrap();
    producer.publish_batch(5, |_, _| ()).unwrap();
    let refused = engine.delete("ticks").unwrap_err();
    assert!(matches!(&refused, TopicError::InUse { consumers, .. } if consumers == &["tape", "book"]), "{refused}");
    // It is as if nothing had been asked.
    producer.publish(|_| ()).unwrap();
    let report = engine.delete_forced("ticks").unwrap();
    let left: Vec<_> = report.consumer("tape").map(|tape| (tape.consumed, tape.left)).collect();
    assert_eq!((left, &report.published[..]), (vec![(0, 6)], &[6][..]), "{report}");
    assert!(report.consumer("book").all(|book| !book.running));
    assert!(matches!(producer.publish(|_| ()), Err(PublishError::Closed { .. })));
    assert!(tape.poll(LONG).is_err());
    assert!(matches!(topic.subscribe("late").poll(), Err(SubscribeError::Closed { .. })));
    assert!(engine.delete("ticks").is_err() && engine.topics().is_empty());
    // The name is free; the new topic is another one.
    let again = engine.topic::<u32>("ticks").create().unwrap();
    assert_ne!(again.id(), topic.id());
    let report = engine.delete("ticks").unwrap();
    assert!(report.is_complete() && again.closed().is_some());
}

/// What makes the handlers is the user's: it may look at the topic, and subscribe others to it.
#[test]
fn what_makes_the_handlers_of_the_partitions_may_use_the_topic() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").partitions(2).create().unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let (of_others, others) = (topic.clone(), Arc::clone(&seen));
    let made = topic.subscribe("each").run_each(move |partition| {
        // Whoever adds a partition keeps others from the topic.
        if partition < 2 {
            let others = Arc::clone(&others);
            let beside = of_others.subscribe(format!("beside-{partition}")).run(move |_, _| {
                others.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(())
            });
            beside.unwrap();
        }
        |_: &u64, _: At| Ok::<_, Infallible>(())
    });
    made.unwrap();
    topic.add_partitions(1).unwrap();
    let mut producer = topic.producer().create().unwrap();
    for partition in 0..3 {
        producer.publish_to(partition, |_| ()).unwrap();
    }
    let report = engine.shutdown(LONG);
    assert!(report.is_complete(), "{report}");
    assert_eq!((report.topics[0].consumer("each").count(), seen.load(Ordering::Relaxed)), (3, 6));
}
