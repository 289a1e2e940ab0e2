//! Kafka's ways in one process: topics with partitions, producers on many threads, two groups and a broadcast subscriber; a
//! member dies and its partitions move; a group rewinds, another begins in the middle; a full topic answers as it was told;
//! a subscriber that stays away costs no memory. Every claim is asserted.
//!
//!     cargo run --example kafka_lite

use slipring::{
    Engine, Message, Record, Subscriber, Topic,
    group::Member,
    metrics::Report,
    producer::PublishError,
    subscriber::StartAt,
    topic::{Overflow, Slow, TopicError, TopicPartition},
};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const PRODUCERS: usize = 3;
const EACH: usize = 12;
const LONG: Duration = Duration::from_secs(60);

type Done<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// What each group, or subscriber, has received: every message and how often.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, BTreeMap<String, usize>>>>);

impl Seen {
    fn note(&self, reader: &str, consumer: &str, message: &Message) {
        let text = String::from_utf8_lossy(message.value()).into_owned();
        println!("{consumer} received {text}");
        *self.0.lock().unwrap().entry(reader.to_owned()).or_default().entry(text).or_default() += 1;
    }

    fn of(&self, reader: &str) -> BTreeMap<String, usize> {
        self.0.lock().unwrap().get(reader).cloned().unwrap_or_default()
    }
}

fn main() -> Done {
    let engine = Engine::builder().build()?;
    let orders = engine.topic::<Message>("orders").partitions(4).capacity(128).retain(64).max_message(64).create()?;
    let payments = engine.topic::<Message>("payments").partitions(2).capacity(128).max_message(64).create()?;
    let topics = [orders.clone(), payments.clone()];
    let seen = Seen::default();

    // A subscriber sees everything: each message of a topic.
    for topic in &topics {
        let seen = seen.clone();
        topic.subscribe("screen").run(move |message, _| {
            seen.note("screen", "screen", message);
        })?;
    }

    // Two groups: each shares the partitions out among its members.
    let mut audit = orders.group("audit").join()?;
    let billing = |engine: &Engine| engine.group("billing").topics(&topics).limit(4).join();
    let (dies, lives) = (billing(&engine)?, billing(&engine)?);

    let sent = produce(&topics)?;
    println!("-- {} messages were sent to {} topics by {PRODUCERS} threads", sent.len(), topics.len());

    // The first member handles some and dies in the middle of a batch, uncommitted: its partitions move to the second.
    let to = seen.clone();
    let died = thread::spawn(move || billing_1(dies, &to)).join();
    println!("-- billing-1 died: {}", died.unwrap_err().downcast_ref::<&str>().unwrap());
    billing_2(lives, &seen, &sent)?;

    read(&mut audit, "audit", &seen, sent.iter().filter(|text| text.starts_with("order")).count())?;
    rewind(&mut audit, &seen)?;
    begin_in_the_middle(&orders, &seen)?;
    drop(audit);

    overflow(&engine)?;
    away(&engine)?;

    let report = engine.shutdown(LONG);
    check(&seen, &sent, &report);
    Ok(())
}

/// Several threads, each with a producer of each topic. Returns all that was sent.
fn produce(topics: &[Topic<Message>]) -> Done<Vec<String>> {
    let threads: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let topics = topics.to_vec();
            thread::spawn(move || -> Done<Vec<String>> {
                let mut sent = Vec::new();
                for topic in &topics {
                    let mut to = topic.producer().create()?;
                    for number in 0..EACH {
                        let what = topic.name().trim_end_matches('s');
                        let text = format!("{what} {producer}.{number}");
                        // One customer's messages stay in order: they have one key, so one partition.
                        to.send(
                            Record::new(&text).key(&format!("customer-{}", number % 5)).header("from", "kafka_lite"),
                        )?;
                        sent.push(text);
                    }
                }
                Ok(sent)
            })
        })
        .collect();
    let mut sent = Vec::new();
    for thread in threads {
        sent.extend(thread.join().expect("a producer does not panic")?);
    }
    Ok(sent)
}

/// Commits its first batch, and panics in the second.
fn billing_1(mut member: Member<Message>, seen: &Seen) {
    let mut committed = 0;
    loop {
        let batch = member.poll(LONG).unwrap().expect("the topics are open");
        for (message, _) in &batch {
            seen.note("billing", "billing-1", message);
            if committed > 0 {
                // As a panic, but without the words on the screen.
                std::panic::resume_unwind(Box::new("out of paper"));
            }
        }
        committed += batch.len();
        batch.commit().unwrap();
    }
}

/// Reads until the group has seen all.
fn billing_2(mut member: Member<Message>, seen: &Seen, sent: &[String]) -> Done {
    while seen.of("billing").len() < sent.len() {
        let batch = member.poll(LONG)?.expect("the topics are open");
        batch.iter().for_each(|(message, _)| seen.note("billing", "billing-2", message));
        batch.commit()?;
    }
    println!("-- billing-2 has all partitions now: {}", names(&member.assignment()));
    assert_eq!(member.assignment().len(), 6);
    Ok(())
}

fn names(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn read(member: &mut Member<Message>, reader: &str, seen: &Seen, total: usize) -> Done {
    let mut read = 0;
    while read < total {
        let batch = member.poll(LONG)?.expect("the topic is open");
        batch.iter().for_each(|(message, _)| seen.note(reader, reader, message));
        read += batch.len();
        batch.commit()?;
    }
    assert_eq!(read, total);
    Ok(())
}

/// The topic retains its last messages: a group can read them again.
fn rewind(audit: &mut Member<Message>, seen: &Seen) -> Done {
    for partition in audit.assignment() {
        audit.seek(&partition, StartAt::Earliest)?;
    }
    println!("-- audit rewinds to the earliest offset");
    let first = seen.of("audit");
    read(audit, "audit", seen, PRODUCERS * EACH)?;
    assert!(first.values().all(|&times| times == 1) && seen.of("audit").values().all(|&times| times == 2));
    Ok(())
}

/// A group that comes late begins at offsets of its own.
fn begin_in_the_middle(orders: &Topic<Message>, seen: &Seen) -> Done {
    let partitions = orders.metrics().partitions;
    let middle: Vec<u64> = partitions.iter().map(|partition| partition.published / 2).collect();
    let left: u64 = partitions.iter().zip(&middle).map(|(partition, middle)| partition.published - middle).sum();
    println!("-- late begins at the offsets {middle:?}");
    let mut late = orders.group("late").start(StartAt::Offsets(middle)).join()?;
    read(&mut late, "late", seen, usize::try_from(left)?)?;
    assert_eq!(late.poll(Duration::ZERO)?.map(|batch| batch.len()), Some(0), "that was all");
    Ok(())
}

/// What a full topic answers is the topic's choice.
fn overflow(engine: &Engine) -> Done {
    let full = |name: &str, policy: Overflow, slow: Slow| -> Done<(Topic<Message>, Subscriber<Message>)> {
        let topic = engine.topic::<Message>(name).capacity(2).overflow(policy).slow(slow).create()?;
        let away = topic.subscribe("away").poll()?;
        let mut producer = topic.producer().create()?;
        (0..2).try_for_each(|_| producer.send(Record::new("fits")).map(drop))?;
        Ok((topic, away))
    };
    let third = Record::new("one too many");

    let (topic, _away) = full("fails", Overflow::Fail, Slow::Gate)?;
    let refused = topic.producer().create()?.send(&third).unwrap_err();
    assert!(matches!(refused, PublishError::Full { .. }));
    println!("-- Fail: {refused}");

    let (topic, _away) = full("waits-a-while", Overflow::BlockFor(Duration::from_millis(20)), Slow::Gate)?;
    let refused = topic.producer().create()?.send(&third).unwrap_err();
    assert!(matches!(refused, PublishError::TimedOut { .. }));
    println!("-- BlockFor: {refused}");

    let (topic, _away) = full("drops", Overflow::DropNewest, Slow::Gate)?;
    assert!(topic.producer().create()?.send(&third)?.is_dropped());
    assert_eq!(topic.metrics().dropped, 1);
    println!("-- DropNewest: {} message was dropped, and counted", topic.metrics().dropped);

    let (topic, mut away) = full("evicts", Overflow::Block, Slow::EVICT)?;
    topic.producer().create()?.send(&third)?;
    let evicted = away.poll(Duration::ZERO).unwrap_err();
    println!("-- Slow::EVICT: {evicted}");

    let (topic, mut away) = full("waits", Overflow::Block, Slow::Gate)?;
    let mut producer = topic.producer().create()?;
    let waits = thread::spawn(move || producer.send(Record::new("had to wait")).map(|receipt| receipt.offset));
    let mut read = 0;
    while read < 3 {
        read += (&mut away.poll(LONG)?.expect("open")).into_iter().count();
    }
    assert_eq!(waits.join().expect("a producer does not panic")?, 2);
    println!("-- Block: the producer waited until there was room");
    Ok(())
}

/// All memory of a topic is taken when it is created, and never more, however long somebody stays away.
fn away(engine: &Engine) -> Done {
    const LIMIT: u64 = 64 << 10;
    let feed = |capacity| {
        let topic = engine.topic::<Message>("feed").capacity(capacity).max_message(256).memory_limit(LIMIT);
        topic.overflow(Overflow::DropNewest).create()
    };
    let refused = feed(1024).unwrap_err();
    assert!(matches!(refused, TopicError::Memory { .. }));
    println!("-- {refused}");
    let feed = feed(128)?;
    let away = feed.subscribe("away").poll()?;
    let before = feed.describe().memory;
    let mut producer = feed.producer().create()?;
    for number in 0..100_000 {
        producer.send(Record::new(&format!("tick {number}")))?;
    }
    let (after, metrics) = (feed.describe().memory, feed.metrics());
    assert!(before == after && after <= LIMIT);
    assert_eq!((metrics.published, metrics.dropped, away.lag()), (128, 100_000 - 128, 128));
    println!("-- a subscriber is away: {after} bytes before and after, {} of 100000 messages dropped", metrics.dropped);
    Ok(())
}

/// Nobody has missed anything.
fn check(seen: &Seen, sent: &[String], report: &Report) {
    let all_once: BTreeMap<String, usize> = sent.iter().map(|text| (text.clone(), 1)).collect();
    assert_eq!(seen.of("screen"), all_once, "a subscriber sees every message once");
    let billing = seen.of("billing");
    assert!(billing.keys().eq(all_once.keys()), "a group sees every message, whoever dies");
    let again = billing.values().filter(|&&times| times > 1).count();
    assert!(again >= 1, "what was not committed came again");
    assert!(report.failures().next().is_none(), "{report}");
    println!("-- all {} messages arrived; {again} came twice, as billing-1 had not committed them", sent.len());
}
