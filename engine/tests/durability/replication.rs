//! The level *replicated*: how a bridge moves it, what a bridge's end does, and which records the journal keeps for it.

use super::durable::{LONG, engine};
use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Retention, inspect};
use slipring::producer::{IdempotenceError, ProducerError, PublishError, WaitError};
use slipring::replication::{BridgeReport, MAX_DETAIL, Replication, ReplicationError, bridge_positions};
use slipring::subscriber::StartAt;
use slipring::transaction::TransactionError;
use slipring::{Engine, Level, Message, Record, Topic};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

fn ticks(engine: &Engine) -> Topic<u64> {
    engine.topic::<u64>("ticks").partitions(2).capacity(1024).durable().create().unwrap()
}

/// Publishes that many events into a partition, and waits until they are durable. Returns the last one's receipt.
fn publish(topic: &Topic<u64>, partition: u32, count: u64) -> slipring::Receipt {
    let mut producer = topic.producer().create().unwrap();
    let receipts: Vec<_> = (0..count).map(|at| producer.publish_to(partition, |tick| *tick = at).unwrap()).collect();
    receipts.last().unwrap().wait(Level::Durable).unwrap();
    *receipts.last().unwrap()
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn replicated_is_refused_without_a_bridge_and_reached_waited_for_polled_and_awaited_with_one() {
    let engine = engine(&SimulatedDisk::new());
    let ticks = ticks(&engine);
    let refused = ticks.producer().acknowledge(Level::Replicated).create().unwrap_err();
    assert!(matches!(refused, ProducerError::Unsupported { level: Level::Replicated, .. }), "{refused}");
    let receipt = publish(&ticks, 1, 5);
    assert!(matches!(receipt.wait(Level::Replicated), Err(WaitError::Unsupported(_))));

    let bridge = ticks.replicate("nats").attach().unwrap();
    assert_eq!((bridge.topic(), bridge.bridge(), bridge.partitions()), ("ticks", "nats", 2));
    let at_once = receipt.wait_until(Level::Replicated, Some(Instant::now()));
    assert_eq!(at_once, Err(WaitError::TimedOut { level: Level::Replicated }));
    let (woken, mut reach) = (Arc::new(Woken::default()), pin!(receipt.reach(Level::Replicated)));
    let (waker, other) = (Waker::from(Arc::clone(&woken)), publish(&ticks, 0, 1));
    assert!(reach.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    // What is not replicated wakes nobody.
    bridge.advance(1, receipt.offset).unwrap();
    assert_eq!((receipt.reached(), woken.0.load(Ordering::SeqCst)), (Level::Durable, 0));
    std::thread::scope(|threads| {
        let waits = threads.spawn(|| receipt.wait_until(Level::Replicated, Some(Instant::now() + LONG)));
        bridge.advance(1, receipt.offset + 1).unwrap();
        assert_eq!(waits.join().unwrap(), Ok(Level::Replicated));
    });
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert_eq!(reach.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(Level::Replicated)));
    assert_eq!((receipt.reached(), other.reached()), (Level::Replicated, Level::Durable));
    assert_eq!(ticks.safe(1).unwrap().replicated, receipt.offset + 1);

    let mut producer = ticks.producer().acknowledge(Level::Replicated).create().unwrap();
    std::thread::scope(|threads| {
        let publishes = threads.spawn(move || producer.publish_to(1, |tick| *tick = 7).unwrap());
        let next = receipt.offset + 2;
        while bridge.durable(1).unwrap() < next {
            std::thread::yield_now();
        }
        bridge.advance(1, next).unwrap();
        assert_eq!(publishes.join().unwrap().level(), Level::Replicated);
    });
    // A queue's changes stay on the machine.
    let refused = ticks.queue("q").acknowledge(Level::Replicated).join().unwrap_err();
    assert!(refused.to_string().contains("bridge"), "{refused}");
}

#[test]
fn the_end_of_a_bridge_wakes_who_waits_for_it_with_its_cause_and_nothing_else_ends() {
    let engine = engine(&SimulatedDisk::new());
    let ticks = ticks(&engine);
    let receipt = publish(&ticks, 0, 1);
    for (round, cause) in [(0, "the cluster has gone"), (1, "the bridge was dropped")] {
        let bridge = ticks.replicate("nats").attach().unwrap();
        let mut producer = ticks.producer().acknowledge(Level::Replicated).create().unwrap();
        std::thread::scope(|threads| {
            let waits = threads.spawn(|| receipt.wait_until(Level::Replicated, Some(Instant::now() + LONG)));
            let publishes = threads.spawn(move || producer.publish_to(0, |tick| *tick = 7));
            while ticks.safe(0).unwrap().durable < 2 + round {
                std::thread::yield_now();
            }
            if round == 0 {
                bridge.end(cause)
            } else {
                drop(bridge)
            }
            let Err(WaitError::Bridge { has: Level::Durable, cause: told }) = waits.join().unwrap() else {
                panic!("it ended otherwise");
            };
            assert_eq!(told, cause);
            let unknown = publishes.join().unwrap().unwrap_err();
            assert!(matches!(&unknown, PublishError::Unknown { cause: told, .. } if told.contains(cause)), "{unknown}");
        });
        let metrics = engine.metrics().topic("ticks").unwrap().replication.clone().unwrap();
        assert_eq!((metrics.ended.as_deref(), metrics.lag), (Some(cause), 2 + round));
        let refused = ticks.producer().acknowledge(Level::Replicated).create().unwrap_err();
        assert!(refused.to_string().contains("has ended"), "{refused}");
    }
    // The journal goes on, and the next bridge serves the same receipt.
    publish(&ticks, 0, 1);
    let bridge = ticks.replicate("other").attach().unwrap();
    bridge.advance(0, 1).unwrap();
    assert_eq!(receipt.wait(Level::Replicated), Ok(Level::Replicated));
    // A journal that ends does not leave it to the bridge.
    let late = publish(&ticks, 0, 1);
    drop((ticks, engine));
    let told = late.wait(Level::Replicated).unwrap_err();
    assert!(
        matches!(told, WaitError::Bridge { has: Level::Durable, .. } | WaitError::Gone | WaitError::Unsupported(_)),
        "{told}"
    );
}

#[test]
fn what_no_bridge_can_say_is_refused() {
    let engine = engine(&SimulatedDisk::new());
    let ticks = ticks(&engine);
    let memory = engine.topic::<u64>("memory").create().unwrap();
    assert!(matches!(memory.replicate("nats").attach(), Err(ReplicationError::Unsupported { .. })));
    assert!(matches!(ticks.replicate("a/b").attach(), Err(ReplicationError::Name { .. })));
    let bridge = ticks.replicate("nats").attach().unwrap();
    let second = ticks.replicate("kafka").attach().unwrap_err();
    assert_eq!(second, ReplicationError::Attached { topic: "ticks".to_owned(), bridge: "nats".to_owned() });
    let receipt = publish(&ticks, 0, 3);
    let beyond = bridge.advance(0, receipt.offset + 2).unwrap_err();
    assert!(matches!(beyond, ReplicationError::NotDurable { durable: 3, next: 4, .. }), "{beyond}");
    assert!(matches!(bridge.advance(2, 0), Err(ReplicationError::NoPartition { partition: 2, .. })));
    assert!(matches!(bridge.record(2, b""), Err(ReplicationError::NoPartition { partition: 2, .. })));
    let detail = vec![0; MAX_DETAIL + 1];
    assert_eq!(bridge.record(0, &detail), Err(ReplicationError::Detail { bytes: MAX_DETAIL + 1 }));
    assert_eq!(receipt.reached(), Level::Durable);
    // A partition that is added belongs to the bridge too.
    ticks.add_partitions(1).unwrap();
    let added = publish(&ticks, 2, 1);
    bridge.advance(2, 1).unwrap();
    bridge.record(2, b"x").unwrap();
    assert_eq!(added.reached(), Level::Replicated);
    // A topic that is deleted ends the attachment.
    engine.delete("ticks").unwrap();
    assert!(matches!(bridge.advance(0, 1), Err(ReplicationError::Ended { .. })), "{:?}", bridge.ended());
}

#[test]
fn events_that_a_bridge_has_skipped_are_never_told_to_be_replicated() {
    let engine = engine(&SimulatedDisk::new());
    let ticks = ticks(&engine);
    let last = publish(&ticks, 0, 6);
    let bridge = ticks.replicate("nats").attach().unwrap();
    let receipts: Vec<_> = {
        let mut producer = ticks.producer().create().unwrap();
        (0..6).map(|_| producer.publish_to(0, |_| ()).unwrap()).collect()
    };
    receipts[5].wait(Level::Durable).unwrap();
    bridge.advance(0, last.offset + 1).unwrap();
    std::thread::scope(|threads| {
        let waits = threads.spawn(|| receipts[1].wait_until(Level::Replicated, Some(Instant::now() + LONG)));
        bridge.advance(0, receipts[1].offset).unwrap();
        bridge.skip(0, receipts[1].offset..receipts[3].offset).unwrap();
        assert_eq!(waits.join().unwrap(), Err(WaitError::Skipped));
    });
    bridge.advance(0, receipts[5].offset + 1).unwrap();
    let reached: Vec<_> = receipts.iter().map(|receipt| receipt.reached()).collect();
    let (yes, no) = (Level::Replicated, Level::Durable);
    assert_eq!(reached, [yes, no, no, yes, yes, yes]);
    assert_eq!(receipts[2].wait(Level::Replicated), Err(WaitError::Skipped));
}

/// Retention by size would delete nearly everything.
#[test]
fn retention_keeps_what_a_bridge_has_not_copied_across_restarts_and_up_to_its_bytes() {
    let disk = SimulatedDisk::new();
    let open = || {
        let engine = engine(&disk);
        let keep = Retention { age: None, bytes: Some(0) };
        let ticks = engine.topic::<u64>("ticks").partitions(2).capacity(1024).durable().keep(keep).create().unwrap();
        (engine, ticks)
    };
    let start = |ticks: &Topic<u64>, engine: &Engine, partition: u32| {
        engine.retain().unwrap();
        let mut replay = ticks.replay("start").start(StartAt::Earliest).open().unwrap();
        let mut first = [None; 2];
        replay.read(Duration::ZERO, |_, at| _ = first[at.partition as usize].get_or_insert(at.offset)).unwrap();
        first[partition as usize]
    };
    {
        let (engine, ticks) = open();
        let bridge = ticks.replicate("nats").attach().unwrap();
        publish(&ticks, 0, 100);
        publish(&ticks, 1, 100);
        assert_eq!((start(&ticks, &engine, 0), start(&ticks, &engine, 1)), (Some(0), Some(0)));
        bridge.advance(0, 40).unwrap();
        bridge.advance(1, 60).unwrap();
        assert_eq!((start(&ticks, &engine, 0), start(&ticks, &engine, 1)), (Some(40), Some(60)));
        bridge.record(0, b"here").unwrap();
        bridge.record(1, b"there").unwrap();
        let report = BridgeReport::default();
        bridge.report(report);
        engine.shutdown(LONG);
    }
    let state = inspect(Arc::new(disk.clone()), true).unwrap();
    let recorded = bridge_positions(state.state());
    let shown: Vec<_> = recorded.iter().map(|at| (&*at.bridge, at.of.partition, at.offset, &*at.detail)).collect();
    assert_eq!(shown, [("nats", 0, 40, &b"here"[..]), ("nats", 1, 60, &b"there"[..])]);
    {
        // No bridge runs, and the records are kept all the same.
        let (engine, ticks) = open();
        publish(&ticks, 0, 100);
        assert_eq!((start(&ticks, &engine, 0), start(&ticks, &engine, 1)), (Some(40), Some(60)));
        // An event of this topic has 8 bytes, and offsets go on where the reservation ended.
        let bridge = ticks.replicate("nats").hold(8 * 10).attach().unwrap();
        let position = bridge.position(0).unwrap();
        assert_eq!((position.offset, position.hold, &*position.detail), (40, Some(80), &b"here"[..]));
        let end = ticks.safe(0).unwrap().durable;
        assert_eq!((start(&ticks, &engine, 0), start(&ticks, &engine, 1)), (Some(end - 10), Some(90)));
        bridge.forget().unwrap();
        assert_eq!((start(&ticks, &engine, 0), start(&ticks, &engine, 1)), (None, None));
    }
    let state = inspect(Arc::new(disk.clone()), true).unwrap();
    assert!(bridge_positions(state.state()).is_empty());
}

#[test]
fn a_message_that_the_bridge_cannot_copy_is_refused_at_its_producer_however_it_is_sent() {
    let engine = engine(&SimulatedDisk::new());
    let orders = engine.topic::<Message>("orders").max_message(1000).durable().create().unwrap();
    let (mut producer, bytes) = (orders.producer().create().unwrap(), [0; 1001]);
    let mut once = orders.producer().idempotent("once").unwrap();
    let lingers = orders.producer().linger(Duration::from_secs(60), 100).create().unwrap();
    let measured = Arc::new(AtomicUsize::new(0));
    let limit = |bridge: &Replication, largest: usize| {
        let measured = Arc::clone(&measured);
        bridge.limit_messages(largest, 100, move |record: &Record<'_>| {
            measured.fetch_add(1, Ordering::SeqCst);
            100 + record.parts().1.len()
        });
    };
    let is_refused = |refused: &PublishError, expected: (usize, usize)| match refused {
        PublishError::TooLargeForBridge { topic, bridge, size, limit } => {
            (&**topic, &**bridge, (*size, *limit)) == ("orders", "nats", expected)
        }
        _ => false,
    };
    let bridge = orders.replicate("nats").attach().unwrap();
    producer.send(Record::new(&bytes[..1000])).unwrap();
    lingers.send(Record::new(&bytes[..1000])).unwrap();
    limit(&bridge, 300);
    producer.send(Record::new(&bytes[..100])).unwrap();
    assert_eq!(measured.load(Ordering::SeqCst), 0, "a small message costs nothing");
    producer.send(Record::new(&bytes[..200])).unwrap();
    assert_eq!(measured.load(Ordering::SeqCst), 1);
    let large = Record::new(&bytes[..201]);
    let refused = producer.send(&large).unwrap_err();
    assert!(is_refused(&refused, (301, 300)), "{refused}");
    let text =
        "takes 301 bytes in the copy that the bridge \"nats\" makes, which takes at most 300: send a smaller one";
    assert!(refused.to_string().contains(text), "{refused}");
    let mut all = vec![producer.try_send(&large).unwrap_err(), lingers.send(&large).unwrap_err()];
    all.push(producer.send_until(Instant::now() + LONG, &large).unwrap_err());
    let IdempotenceError::Refused(refused) = once.send(0, &large).unwrap_err() else { panic!("another error") };
    all.push(refused);
    let TransactionError::Publish(refused) = engine.transaction().unwrap().send(&orders, &large).unwrap_err() else {
        panic!("another error")
    };
    all.push(refused);
    all.iter().for_each(|refused| assert!(is_refused(refused, (301, 300)), "{refused}"));
    // The sequence is free, and what is too large for the topic is told as that.
    once.send(0, Record::new(&bytes[..100])).unwrap();
    let refused = producer.send(Record::new(&bytes)).unwrap_err();
    assert!(matches!(refused, PublishError::MessageTooLarge { size: 1001, largest: 1000, .. }), "{refused}");
    // What was gathered before the limit is published.
    lingers.flush().unwrap();

    limit(&bridge, 500);
    producer.send(Record::new(&bytes[..400])).unwrap();
    assert!(is_refused(&producer.send(Record::new(&bytes[..401])).unwrap_err(), (501, 500)));
    // With the attachment the limit ends, and another bridge has its own.
    bridge.end("the cluster has gone");
    producer.send(Record::new(&bytes[..1000])).unwrap();
    let before = measured.load(Ordering::SeqCst);
    let next = orders.replicate("nats").attach().unwrap();
    producer.send(Record::new(&bytes[..1000])).unwrap();
    assert_eq!(measured.load(Ordering::SeqCst), before);
    limit(&next, 300);
    assert!(is_refused(&producer.send(&large).unwrap_err(), (301, 300)));
    // Which events of a fixed size a bridge takes, it finds out by itself.
    let ticks = ticks(&engine);
    let bridge = ticks.replicate("nats").attach().unwrap();
    limit(&bridge, 0);
    publish(&ticks, 0, 1);
}
