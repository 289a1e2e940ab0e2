//! Durable topics: what outlives a restart, a crash, a full disk, and how it is read again.

use slipring::journal::simulated::{Fault, SimulatedDisk};
use slipring::journal::{Options, Retention, Visible, recorded_topics};
use slipring::{
    Engine, Level, Message, Persist, Record, Topic,
    clock::{ManualClock, Timestamp},
    journal::Pace,
    producer::{Partitioner, PublishError, WaitError},
    subscriber::{At, StartAt, SubscribeError},
    topic::{TopicError, Unreadable},
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn engine(disk: &SimulatedDisk) -> Engine {
    let options = Options { segment_size: 1 << 20, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap()
}

/// Reads `total` events of a topic of numbers.
fn numbers(topic: &slipring::Topic<u64>, total: usize) -> Vec<(u32, u64, u64)> {
    let mut replay = topic.replay("reader").open().unwrap();
    let mut seen = Vec::new();
    let until = Instant::now() + LONG;
    while seen.len() < total && Instant::now() < until {
        replay.read(LONG, |event, at| seen.push((at.partition, at.offset, *event))).unwrap();
    }
    seen
}

#[test]
fn events_messages_and_the_catalogue_outlive_a_restart() {
    let disk = SimulatedDisk::new();
    for round in 0..3_u64 {
        let engine = engine(&disk);
        let ticks = engine.topic::<u64>("ticks").partitions(2).durable().create().unwrap();
        let orders = engine.topic::<Message>("orders").max_message(64).durable().create().unwrap();
        let mut producer = ticks.producer().partitioner(Partitioner::RoundRobin).create().unwrap();
        for value in 0..100 {
            let receipt = producer.publish(|tick| *tick = round * 100 + value).unwrap();
            assert_eq!(receipt.offset, round * 50 + value / 2, "goes on where it ended");
        }
        let sent = Record::new("buy").key("account").header("trace", "1").timestamp(Timestamp::from_millis(5 + round));
        let receipt = orders.producer().create().unwrap().send(&sent).unwrap();
        assert_eq!(receipt.wait(Level::Durable).unwrap(), Level::Durable);
        assert_eq!(receipt.reached(), Level::Durable);
        assert!(orders.safe(0).unwrap().durable > receipt.offset);

        let seen = numbers(&ticks, (round as usize + 1) * 100);
        for partition in 0..2 {
            let of: Vec<_> =
                seen.iter().filter(|(at, ..)| *at == partition).map(|(_, offset, value)| (*offset, *value)).collect();
            let expected: Vec<_> =
                (0..(round + 1) * 50).map(|offset| (offset, offset * 2 + u64::from(partition))).collect();
            assert_eq!(of, expected);
        }
        let mut replay =
            orders.replay("reader").start(StartAt::Timestamp(Timestamp::from_millis(5 + round))).open().unwrap();
        let mut read = 0;
        replay
            .read(LONG, |message, at| {
                assert_eq!((message.key(), message.value(), at.offset), (Some(&b"account"[..]), &b"buy"[..], round));
                assert_eq!(message.header("trace"), Some(&b"1"[..]));
                read += 1;
            })
            .unwrap();
        assert_eq!(read, 1);
        let report = engine.shutdown(LONG);
        assert!(report.is_complete() && report.journal == Some(Ok(())), "{report}");
    }
}

#[test]
fn another_shape_at_opening_shows_both() {
    let disk = SimulatedDisk::new();
    let first = engine(&disk);
    first.topic::<u64>("ticks").partitions(3).durable().create().unwrap();
    first.topic::<Message>("orders").max_message(100).durable().create().unwrap();
    assert!(first.shutdown(LONG).is_complete());
    let second = engine(&disk);
    let refused = second.topic::<u32>("ticks").durable().create().unwrap_err();
    let said = refused.to_string();
    assert!(
        matches!(refused, TopicError::Recorded { .. }) && said.contains("of 8 bytes") && said.contains("of 4 bytes"),
        "{said}"
    );
    let refused = second.topic::<Message>("orders").max_message(50).durable().create().unwrap_err().to_string();
    assert!(refused.contains("100") && refused.contains("50"), "{refused}");
    let ticks = second.topic::<u64>("ticks").partitions(2).durable().create().unwrap();
    assert_eq!(ticks.partitions(), 3, "those that were there");
    let refused = Engine::builder().build().unwrap().topic::<u64>("ticks").durable().create().unwrap_err();
    assert!(matches!(refused, TopicError::NoJournal { .. }), "{refused}");
}

#[test]
fn no_offset_names_two_events_whatever_a_crash_leaves() {
    for seed in 0..30 {
        let disk = SimulatedDisk::new();
        let first = engine(&disk);
        let ticks = first.topic::<u64>("ticks").capacity(64).durable().create().unwrap();
        let mut producer = ticks.producer().create().unwrap();
        let mut last = None;
        let mut durable = 0;
        for value in 0..200 {
            let receipt = producer.publish(|tick| *tick = value).unwrap();
            if value == 100 {
                receipt.wait(Level::Durable).unwrap();
                durable = receipt.offset + 1;
            }
            last = Some(receipt.offset);
        }
        let after = disk.crash(seed);
        let second = engine(&after);
        let ticks = second.topic::<u64>("ticks").capacity(64).durable().create().unwrap();
        let receipt = ticks.producer().create().unwrap().publish(|tick| *tick = 1000).unwrap();
        assert!(Some(receipt.offset) > last, "seed {seed}: {} was issued before", receipt.offset);
        let mut seen = Vec::new();
        let mut replay = ticks.replay("reader").open().unwrap();
        while seen.last() != Some(&(receipt.offset, 1000)) {
            replay.read(LONG, |event, at| seen.push((at.offset, *event))).unwrap();
        }
        seen.pop();
        assert!(seen.len() as u64 >= durable, "seed {seed}");
        assert!(seen.iter().enumerate().all(|(index, seen)| *seen == (index as u64, index as u64)), "seed {seed}");
        // Also not after an opening in between that published nothing.
        let third = after.copy();
        drop(ticks);
        for _ in 0..2 {
            let engine = engine(&third);
            engine.topic::<u64>("ticks").capacity(64).durable().create().unwrap();
            assert!(engine.shutdown(LONG).is_complete());
        }
        let fourth = engine(&third);
        let ticks = fourth.topic::<u64>("ticks").capacity(64).durable().create().unwrap();
        let again = ticks.producer().create().unwrap().publish(|tick| *tick = 2000).unwrap();
        assert!(again.offset > receipt.offset, "seed {seed}: {} was issued before", again.offset);
    }
}

#[test]
fn a_failed_disk_leaves_receipts_unknown_and_ends_the_topic_with_its_cause() {
    for fault in [Fault::Io, Fault::Full] {
        let disk = SimulatedDisk::new();
        let engine = engine(&disk);
        let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
        let mut producer = ticks.producer().create().unwrap();
        producer.publish(|tick| *tick = 1).unwrap().wait(Level::Durable).unwrap();
        let mut receipts = Vec::new();
        let refused = loop {
            // Again for each event: the segment that is made ahead of need may have met the fault, and is made again.
            disk.fail_after(1, fault);
            match producer.publish(|tick| *tick = 2) {
                Ok(receipt) => receipts.push(receipt),
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, PublishError::Closed { .. }) && refused.to_string().contains("journal"), "{refused}");
        // A mark of the journal's may meet the fault first: then nothing is published.
        if let Some(last) = receipts.last() {
            let unknown = last.wait(Level::Durable).unwrap_err();
            assert!(matches!(unknown, WaitError::Unknown { .. }), "{unknown}");
        }
        let report = engine.shutdown(LONG);
        assert!(!report.is_complete() && matches!(report.journal, Some(Err(_))), "{report}");
    }
}

#[test]
fn a_publish_that_asks_for_durable_returns_when_it_is_and_a_receipt_can_be_awaited() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let mut safe = ticks.producer().acknowledge(Level::Durable).create().unwrap();
    for value in 0..10 {
        let receipt = safe.publish(|tick| *tick = value).unwrap();
        assert_eq!(receipt.level(), Level::Durable);
        assert!(ticks.safe(0).unwrap().durable > receipt.offset);
    }
    let batch = safe.publish_batch(5, |_, tick| *tick = 9).unwrap();
    assert!(ticks.safe(0).unwrap().durable >= batch.first + 5);
    let receipt = ticks.producer().create().unwrap().publish(|tick| *tick = 10).unwrap();
    let waker = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    let mut reach = std::pin::pin!(receipt.reach(Level::Durable));
    let level = loop {
        match reach.as_mut().poll(&mut context) {
            std::task::Poll::Ready(level) => break level.unwrap(),
            std::task::Poll::Pending => std::thread::park_timeout(LONG),
        }
    };
    assert_eq!(level, Level::Durable);
    let refused = ticks.producer().acknowledge(Level::Replicated).create().unwrap_err();
    assert!(refused.to_string().contains("bridge"), "{refused}");
    let past = receipt.wait_until(Level::Replicated, Some(Instant::now())).unwrap_err();
    assert!(matches!(past, WaitError::Unsupported(_)));
}

struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// From the journal to the ring, while producers run: each event once, in order.
#[test]
fn a_replay_changes_from_journal_to_ring_without_gap_or_repetition() {
    for visible in [Visible::Written, Visible::Durable] {
        let disk = SimulatedDisk::new();
        let engine = engine(&disk);
        let ticks = engine.topic::<u64>("ticks").capacity(256).durable().create().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let producers: Vec<_> = (0..2)
            .map(|_| {
                let (mut producer, stop) = (ticks.producer().create().unwrap(), Arc::clone(&stop));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        producer.publish(|tick| *tick += 1).unwrap();
                    }
                })
            })
            .collect();
        let mut changes = 0;
        for round in 0..8 {
            let mut replay = ticks.replay("reader").visible(visible).open().unwrap();
            let (mut next, mut live) = (0, 0);
            while live < 3 {
                let read = replay.read(LONG, |tick, at| {
                    // Each lap adds one to what stands in the slot.
                    assert_eq!((at.offset, *tick), (next, next / 256 + 1), "round {round}");
                    next += 1;
                });
                assert!(read.unwrap().is_some());
                live += u32::from(replay.is_live());
            }
            changes += 1;
        }
        assert_eq!(changes, 8);
        stop.store(true, Ordering::Relaxed);
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert!(engine.shutdown(LONG).is_complete());
    }
}

#[test]
fn a_slow_replay_leaves_the_ring_and_goes_on_from_the_journal() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let ticks = engine.topic::<u64>("ticks").capacity(16).durable().create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    let mut slow = ticks.replay("slow").visible(Visible::Written).open().unwrap();
    let mut seen = Vec::new();
    producer.publish(|tick| *tick = 0).unwrap();
    while !slow.is_live() || seen.is_empty() {
        slow.read(Duration::from_millis(10), |tick, at| seen.push((at.offset, *tick))).unwrap();
    }
    // Far more than the ring holds, and nobody is held up.
    for value in 1..1000 {
        producer.publish(|tick| *tick = value).unwrap();
    }
    while seen.len() < 1000 {
        slow.read(LONG, |tick, at| seen.push((at.offset, *tick))).unwrap();
    }
    assert!(seen.iter().enumerate().all(|(index, seen)| *seen == (index as u64, index as u64)));
    assert!(ticks.metrics().evicted > 0, "it did leave");
    drop(producer);
    ticks.close();
    while slow.read(LONG, |_, _| panic!("there is nothing more")).unwrap().is_some() {}
}

#[test]
fn without_syncs_events_are_written_and_durable_when_it_is_closed() {
    let disk = SimulatedDisk::new();
    let pace = {
        let mut pace = Pace::default();
        pace.sync = false;
        pace
    };
    let engine = Engine::builder().journal_in(disk.clone()).journal_pace(pace).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let receipt = ticks.producer().create().unwrap().publish(|tick| *tick = 7).unwrap();
    assert_eq!(receipt.wait(Level::Written).unwrap(), Level::Written);
    let soon = Some(Instant::now() + Duration::from_millis(30));
    assert_eq!(receipt.wait_until(Level::Durable, soon), Err(WaitError::TimedOut { level: Level::Durable }));
    assert!(engine.shutdown(LONG).is_complete());
    assert_eq!(receipt.wait(Level::Durable), Ok(Level::Durable), "closing syncs");
}

#[test]
fn without_syncs_whoever_waits_for_the_disk_makes_it_sync() {
    crate::soon::soon("a journal that does not sync", || {
        let mut pace = Pace::default();
        pace.sync = false;
        let disk = SimulatedDisk::new();
        let engine = Engine::builder().journal_in(disk.clone()).journal_pace(pace).build().unwrap();
        let orders = engine.topic::<Message>("orders").durable().create().unwrap();
        let mut producer = orders.producer().acknowledge(Level::Written).create().unwrap();
        (0..4).for_each(|_| _ = producer.send(Record::new("buy")).unwrap());
        let mut billing = orders.group("billing").start(StartAt::Earliest).join().unwrap();
        billing.poll(LONG).unwrap().unwrap().commit_durable().unwrap();
        let mut copy = orders.transform("copy").open().unwrap();
        assert_eq!(copy.step(LONG, |_, _, _| Ok::<_, String>(())).unwrap(), Some(4));
        let jobs = orders.queue("jobs").acknowledge(Level::Written).start(StartAt::Earliest);
        let mut worker = jobs.join().unwrap();
        worker.receive(LONG).unwrap().unwrap().ack().unwrap();
        let mut transaction = engine.transaction().unwrap();
        transaction.send(&orders, Record::new("sell")).unwrap();
        transaction.commit().unwrap();
        drop((billing, copy, worker));
        orders.delete_queue("jobs").unwrap();
        engine.forget_group("billing").unwrap();
        engine.retain().unwrap();
        orders.add_partitions(1).unwrap();
        // What the disk has confirmed is there after a power cut, without a word from the journal in between.
        let again = Engine::builder().journal_in(disk.crash(7)).build().unwrap();
        assert_eq!(again.topic::<Message>("orders").partitions(2).durable().create().unwrap().partitions(), 2);
        engine.delete_forced("orders").unwrap();
    });
}

/// The sum of now and the pace overflowed, and the journal's thread panicked.
#[test]
fn a_pace_that_no_clock_reaches_waits_for_the_end() {
    let mut pace = Pace::default();
    pace.linger = Duration::MAX;
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_pace(pace).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let receipt = ticks.producer().create().unwrap().publish(|tick| *tick = 7).unwrap();
    assert_eq!(receipt.wait(Level::Written).unwrap(), Level::Written);
    let report = engine.shutdown(LONG);
    assert!(report.is_complete(), "{report}");
    assert_eq!(receipt.wait(Level::Durable), Ok(Level::Durable), "closing syncs");
}

/// It made a topic in memory, silently, in place of the durable one.
#[test]
fn a_recorded_topic_that_is_opened_as_one_in_memory_is_refused_with_both() {
    let disk = SimulatedDisk::new();
    let first = engine(&disk);
    drop(first.topic::<u64>("ticks").partitions(3).durable().create().unwrap());
    first.shutdown(LONG);
    let second = engine(&disk);
    let refused = second.topic::<u64>("ticks").partitions(3).create().unwrap_err();
    let told = refused.to_string();
    assert!(matches!(refused, TopicError::Recorded { .. }), "{told}");
    assert!(told.contains("durable topic of 3 partitions") && told.contains("in memory"), "{told}");
    second.topic::<u64>("ticks").partitions(3).durable().create().unwrap();
    second.delete("ticks").unwrap();
    second.topic::<u64>("ticks").create().unwrap();
}

#[test]
fn a_deleted_topic_is_gone_and_its_number_is_not_used_again() {
    let disk = SimulatedDisk::new();
    let first = engine(&disk);
    let ticks = first.topic::<u64>("ticks").durable().create().unwrap();
    ticks.producer().create().unwrap().publish(|tick| *tick = 7).unwrap().wait(Level::Durable).unwrap();
    let number = |engine: &Engine| {
        let topics = recorded_topics(&engine.recovered().unwrap().state);
        topics.iter().find(|topic| topic.name == "ticks").unwrap().number
    };
    let before = number(&engine(&disk.copy()));
    first.delete("ticks").unwrap();
    let ticks = first.topic::<u32>("ticks").durable().create().unwrap();
    let receipt = ticks.producer().create().unwrap().publish(|tick| *tick = 8).unwrap();
    receipt.wait(Level::Durable).unwrap();
    let mut replay = ticks.replay("reader").open().unwrap();
    let mut seen = Vec::new();
    replay.read(LONG, |event, at| seen.push((at.offset, *event))).unwrap();
    assert_eq!(seen, [(0, 8)]);
    let again = number(&engine(&disk.copy()));
    assert!(again > before, "{again} after {before}");
    // Nor after a restart at which no topic had the number.
    drop((ticks, replay));
    first.delete("ticks").unwrap();
    first.shutdown(LONG);
    let second = engine(&disk.copy());
    second.topic::<u64>("ticks").durable().create().unwrap();
    second.shutdown(LONG);
    let disk = disk.copy();
    let third = engine(&disk);
    third.topic::<u64>("ticks").durable().create().unwrap();
    let last = number(&engine(&disk.copy()));
    assert!(last > again, "{last} after {again}");
}

#[test]
fn added_partitions_are_durable_too() {
    let disk = SimulatedDisk::new();
    let first = engine(&disk);
    let ticks = first.topic::<u64>("ticks").durable().create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    ticks.add_partitions(2).unwrap();
    let receipt = producer.publish_to(2, |tick| *tick = 5).unwrap();
    receipt.wait(Level::Durable).unwrap();
    drop(producer);
    let after = disk.crash(9);
    let second = engine(&after);
    let ticks = second.topic::<u64>("ticks").durable().create().unwrap();
    assert_eq!(ticks.partitions(), 3);
    assert_eq!(numbers(&ticks, 1), [(2, 0, 5)]);
}

#[test]
fn a_replay_reads_partitions_that_are_added_while_it_waits() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    producer.publish_to(0, |tick| *tick = 1).unwrap().wait(Level::Durable).unwrap();
    let mut replay = ticks.replay("tape").start(StartAt::Latest).open().unwrap();
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            while seen.len() < 3 {
                let read = replay.read(LONG, |tick, at| seen.push((at.partition, at.offset, *tick)));
                assert!(matches!(read, Ok(Some(1..))), "{read:?}");
            }
        });
        ticks.add_partitions(2).unwrap();
        for (partition, tick) in [(1, 2), (2, 3), (2, 4)] {
            producer.publish_to(partition, |place| *place = tick).unwrap();
        }
        reading.join().unwrap();
    });
    seen.sort_unstable();
    assert_eq!(seen, [(1, 0, 2), (2, 0, 3), (2, 1, 4)]);
    assert_eq!(replay.position(2), Some(2));
}

/// Whoever asks for what is durable never reads what a power cut could take back; the others do.
#[test]
fn a_subscriber_that_waits_for_the_journal_sees_nothing_earlier() {
    let pace = {
        let mut pace = Pace::default();
        pace.sync = false;
        pace
    };
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_pace(pace).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").partitions(2).durable().create().unwrap();
    let mut any = ticks.subscribe("any").poll().unwrap();
    let mut written = ticks.subscribe("written").visible(Visible::Written).poll().unwrap();
    let mut durable = ticks.subscribe("durable").visible(Visible::Durable).poll().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    let receipt = producer.publish_to(1, |tick| *tick = 7).unwrap();
    receipt.wait(Level::Written).unwrap();
    for tape in [&mut any, &mut written] {
        let mut batch = tape.poll(LONG).unwrap().unwrap();
        assert_eq!((&mut batch).into_iter().map(|(tick, _)| *tick).collect::<Vec<_>>(), [7]);
    }
    assert!(durable.poll(Duration::from_millis(20)).unwrap().unwrap().is_empty());
    assert_eq!((durable.lag(), durable.position(1)), (1, Some(0)));
    // Here a sync comes with another topic, and one for all.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut batch = durable.poll(LONG).unwrap().unwrap();
            (&mut batch).into_iter().map(|(tick, _)| *tick).collect::<Vec<_>>()
        });
        engine.topic::<u64>("another").durable().create().unwrap();
        assert_eq!(waiting.join().unwrap(), [7]);
    });
    assert_eq!(receipt.reached(), Level::Durable);
    let plain = Engine::builder().build().unwrap();
    let plain = plain.topic::<u64>("plain").create().unwrap();
    let refused = plain.subscribe("careful").visible(Visible::Durable).poll().unwrap_err();
    assert!(matches!(refused, SubscribeError::NotDurable { .. }), "{refused}");
}

#[test]
fn subscribers_of_durable_events_read_all_in_order_to_the_end() {
    for visible in [Visible::Written, Visible::Durable] {
        let engine = engine(&SimulatedDisk::new());
        let ticks = engine.topic::<u64>("ticks").partitions(2).capacity(64).durable().create().unwrap();
        let sums = Arc::new([const { AtomicU64::new(0) }; 2]);
        let (seen, positions) = (Arc::clone(&sums), ticks.clone());
        let handler = move |tick: &u64, at: At| {
            let safe = positions.safe(at.partition).unwrap();
            let end = if visible == Visible::Durable { safe.durable } else { safe.written };
            if at.offset < end && at.offset == *tick {
                seen[at.partition as usize].fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, std::fmt::Error>(())
        };
        ticks.subscribe("one").visible(visible).run(handler.clone()).unwrap();
        ticks.subscribe("each").visible(visible).run_each(move |_| handler.clone()).unwrap();
        let mut producer = ticks.producer().create().unwrap();
        for tick in 0..3000 {
            producer.publish_to(0, |place| *place = tick).unwrap();
            producer.publish_to(1, |place| *place = tick).unwrap();
        }
        drop(producer);
        let report = engine.shutdown(LONG);
        assert!(report.is_complete(), "{report}");
        assert_eq!(sums.iter().map(|sum| sum.load(Ordering::Relaxed)).collect::<Vec<_>>(), [6000, 6000]);
    }
}

#[test]
fn a_topic_keeps_two_weeks_to_the_record_and_the_other_one_everything() {
    let clock = ManualClock::new();
    let disk = SimulatedDisk::new();
    let options = Options { segment_size: 1 << 14, ..Options::default() };
    let builder = Engine::builder().journal_in(disk.clone()).journal_options(options).clock(clock.clone());
    let engine = builder.build().unwrap();
    let weeks = Retention { age: Some(Duration::from_secs(14 * 86_400)), bytes: None };
    let ticks = engine.topic::<u64>("ticks").timestamps().durable().keep(weeks).create().unwrap();
    let kept = engine.topic::<u64>("kept").timestamps().durable().create().unwrap();
    let (mut producer, mut other) = (ticks.producer().create().unwrap(), kept.producer().create().unwrap());
    for day in 0..30 {
        producer.publish(|tick| *tick = day).unwrap().wait(Level::Durable).unwrap();
        other.publish(|tick| *tick = day).unwrap().wait(Level::Durable).unwrap();
        clock.advance(Duration::from_secs(86_400));
    }
    engine.retain().unwrap();
    let first = |topic: &slipring::Topic<u64>| numbers(topic, 1)[0];
    assert_eq!(first(&ticks), (0, 16, 16));
    assert_eq!(first(&kept), (0, 0, 0));
    let refused = ticks.replay("late").start(StartAt::Offset(15)).open().unwrap_err().to_string();
    assert!(refused.contains("15") && refused.contains("earliest is 16") && refused.contains("30"), "{refused}");
}

/// A fill that panics leaves a slot without an event: nothing to write, but the positions go on over it.
#[test]
fn a_slot_without_an_event_holds_up_neither_positions_nor_a_replay() {
    let engine = engine(&SimulatedDisk::new());
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    let receipt = producer.publish(|tick| *tick = 7).unwrap();
    receipt.wait(Level::Durable).unwrap();
    let panicked =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| producer.publish(|_| panic!("in the fill"))));
    assert!(panicked.is_err());
    let until = Instant::now() + LONG;
    while ticks.safe(0).unwrap().durable < receipt.offset + 2 {
        assert!(Instant::now() < until, "{:?}", ticks.safe(0));
        std::thread::yield_now();
    }
    let mut replay = ticks.replay("reader").open().unwrap();
    let mut read = 0;
    while !replay.is_live() {
        assert!(Instant::now() < until, "{replay:?} at {:?}", replay.position(0));
        read += replay.read(Duration::ZERO, |_, _| ()).unwrap().unwrap();
    }
    assert_eq!(read, 1);
}

#[derive(Default)]
struct Sour(u64);

impl Persist for Sour {
    fn write(&self, out: &mut Vec<u8>) {
        assert_ne!(self.0, 13, "no thirteen");
        out.extend(self.0.to_le_bytes());
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        self.0 = u64::from_le_bytes(bytes.try_into().map_err(|_| Unreadable("eight bytes"))?);
        Ok(())
    }

    fn layout() -> String {
        "sour 1".to_owned()
    }
}

#[test]
fn an_event_that_panics_when_it_is_written_hangs_nobody() {
    let engine = engine(&SimulatedDisk::new());
    let sour = engine.topic::<Sour>("sour").durable().create().unwrap();
    let mut producer = sour.producer().create().unwrap();
    let good = producer.publish(|event| event.0 = 12).unwrap();
    assert_eq!(good.wait(Level::Durable).unwrap(), Level::Durable);
    let bad = producer.publish(|event| event.0 = 13).unwrap();
    let unknown = bad.wait(Level::Durable).unwrap_err();
    assert!(matches!(&unknown, WaitError::Unknown { .. }) && unknown.to_string().contains("no thirteen"), "{unknown}");
    assert!(producer.publish(|event| event.0 = 14).is_err());
    // No other topic suffers for it.
    let more = engine.topic::<Sour>("more").durable().create().unwrap();
    more.producer().create().unwrap().publish(|event| event.0 = 14).unwrap().wait(Level::Durable).unwrap();
    drop(producer);
    assert!(!engine.shutdown(LONG).is_complete());
}

/// Whoever looks at the topics after a shutdown in good order finds no failure.
#[test]
fn a_shutdown_in_good_order_is_no_failure_of_the_journal() {
    for _ in 0..20 {
        let engine = engine(&SimulatedDisk::new());
        let topics: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .map(|name| engine.topic::<u64>(name).partitions(4).durable().create().unwrap())
            .collect();
        for topic in &topics {
            topic.producer().create().unwrap().publish(|event| *event = 1).unwrap();
        }
        let report = engine.shutdown(LONG);
        assert!(report.is_complete(), "{report}");
        assert_eq!(engine.failures(), []);
        assert!(topics.iter().all(|topic| topic.closed() == Some(slipring::topic::Closed::Closed)), "{topics:?}");
    }
}

/// Whoever shuts down once more, or at the same time, is told how the journal ended, too.
#[test]
fn a_second_shutdown_and_one_at_the_same_time_say_what_the_first_one_says() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    ticks.producer().create().unwrap().publish(|tick| *tick = 1).unwrap();
    let at_once: Vec<_> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| engine.shutdown(LONG))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    for report in at_once.into_iter().chain([engine.shutdown(LONG), engine.shutdown(Duration::ZERO)]) {
        assert_eq!(report.journal, Some(Ok(())), "{report}");
        assert!(report.is_complete(), "{report}");
    }

    // So is it where it could not be closed with all that was there.
    let disk = SimulatedDisk::new();
    let engine = self::engine(&disk);
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    // For good: a single error may meet the segment that is made ahead of need, which is made again.
    disk.fail_after(1, Fault::PowerCut);
    let _ = ticks.producer().create().unwrap().publish(|tick| *tick = 1);
    let [first, second] = [(); 2].map(|()| engine.shutdown(LONG).journal);
    assert!(first.as_ref().is_some_and(Result::is_err), "{first:?}");
    assert_eq!(first, second);
}

/// Who is in the middle of something when everything ends at once is there again afterwards.
#[test]
fn an_end_at_once_loses_no_place_of_a_group_or_a_queue() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let engine = || Engine::builder().clock(clock.clone()).journal_in(disk.clone()).build().unwrap();
    let topic = |engine: &Engine| engine.topic::<u64>("ticks").capacity(64).durable().create().unwrap();
    let queue = |topic: &Topic<u64>| topic.queue("q").visibility(LONG).max_attempts(9).join().unwrap();
    let first = engine();
    let ticks = topic(&first);
    let mut member = ticks.group("sums").limit(4).join().unwrap();
    let mut worker = queue(&ticks);
    let mut producer = ticks.producer().create().unwrap();
    producer.publish_batch(9, |index, tick| *tick = index as u64).unwrap();
    let mut batch = member.poll(LONG).unwrap().unwrap();
    assert_eq!(batch.len(), 4);
    // One is done with, one is with somebody, one is to come again.
    let mut leases: Vec<_> = (0..3).map(|_| worker.receive(LONG).unwrap().unwrap()).collect();
    leases.remove(0).ack().unwrap();
    leases.remove(0).nack(LONG / 2, "later").unwrap();
    // Last, since whatever is written takes the offset along: only the end is left to write it.
    batch.commit_to(3).unwrap();
    assert!(!first.shutdown(Duration::ZERO).is_complete());
    // On a busy machine the journal may not end in the time that it always has.
    let report = first.shutdown(LONG);
    assert!(!report.is_complete() && report.journal == Some(Ok(())), "{report}");
    drop(batch);
    drop((leases.remove(0).leave(), member, worker, producer, ticks, first));

    let second = engine();
    let ticks = topic(&second);
    let mut member = ticks.group("sums").join().unwrap();
    let mut read = Vec::new();
    while read.len() < 6 {
        let batch = member.poll(LONG).unwrap().unwrap();
        read.extend(batch.iter().map(|(tick, at)| (at.offset, *tick)));
        batch.commit().unwrap();
    }
    assert!(read.into_iter().eq((3..9).map(|at| (at, at))));
    let mut worker = queue(&ticks);
    let counts = worker.queue().metrics();
    assert_eq!((counts.leased, counts.waiting, counts.unread), (1, 1, 6), "{counts:?}");
    let mut given = Vec::new();
    for wait in [Duration::ZERO, LONG / 2, LONG / 2] {
        clock.advance(wait);
        while let Some(lease) = worker.receive(Duration::ZERO).unwrap() {
            given.push((lease.offset(), lease.attempt()));
            lease.ack().unwrap();
        }
    }
    let fresh = (3..9).map(|offset| (offset, 1));
    assert!(given.iter().copied().eq(fresh.chain([(1, 2), (2, 2)])), "{given:?}");
    assert!(second.shutdown(LONG).is_complete());
}

/// Nothing but the end itself is left to write where it stands.
#[test]
fn an_end_at_once_loses_no_place_of_a_group_that_is_alone() {
    let disk = SimulatedDisk::new();
    for round in 0..3 {
        let engine = engine(&disk);
        let ticks = engine.topic::<u64>("ticks").capacity(64).durable().create().unwrap();
        let mut member = ticks.group("sums").start(StartAt::Earliest).join().unwrap();
        let mut producer = ticks.producer().acknowledge(Level::Durable).create().unwrap();
        producer.publish(|tick| *tick = round).unwrap();
        let batch = member.poll(LONG).unwrap().unwrap();
        let read: Vec<_> = batch.iter().map(|(tick, _)| *tick).collect();
        assert_eq!(read, [round], "each event is read once");
        batch.commit().unwrap();
        engine.shutdown(Duration::ZERO);
        let report = engine.shutdown(LONG);
        assert_eq!(report.journal, Some(Ok(())), "{report}");
    }
}

#[test]
fn the_journal_ends_in_good_order_although_the_limit_has_passed() {
    let disk = SimulatedDisk::new();
    {
        let engine = engine(&disk);
        let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
        let _reads_nothing = ticks.subscribe("slow").poll().unwrap();
        let mut producer = ticks.producer().acknowledge(Level::Written).create().unwrap();
        (0..9).for_each(|tick| _ = producer.publish(|event| *event = tick).unwrap());
        let report = engine.shutdown(Duration::ZERO);
        assert_eq!((report.is_complete(), &report.journal), (false, &Some(Ok(()))), "{report}");
    }
    let engine = engine(&disk);
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    assert_eq!(ticks.producer().create().unwrap().publish(|event| *event = 9).unwrap().offset, 9);
    engine.shutdown(LONG);
}

/// What a program allows is written down: one that allows less would not read what was sent meanwhile.
#[test]
fn a_largest_message_that_has_grown_does_not_shrink() {
    let disk = SimulatedDisk::new();
    let open = |engine: &Engine, max| engine.topic::<Message>("m").max_message(max).durable().create();
    for max in [200, 400] {
        let engine = engine(&disk);
        let topic = open(&engine, max).unwrap();
        topic.producer().create().unwrap().send(Record::new(&vec![7; max - 50][..])).unwrap();
        assert!(engine.shutdown(LONG).is_complete());
    }
    let engine = engine(&disk);
    let refused = open(&engine, 200).err().unwrap().to_string();
    assert!(refused.contains("400") && refused.contains("200"), "{refused}");
    let topic = open(&engine, 400).unwrap();
    let (mut replay, mut read) = (topic.replay("r").open().unwrap(), 0);
    while read < 2 {
        read += replay.read(LONG, |_, _| ()).unwrap().unwrap();
    }
}

/// All reservations of a topic were one frame, and a topic that had grown one by one could not be opened again.
#[test]
fn a_topic_of_as_many_partitions_as_it_has_grown_to_is_opened_again_also_after_a_crash() {
    let options = || Options { segment_size: 1 << 14, ..Options::default() };
    let engine = |disk: &SimulatedDisk| Engine::builder().journal_in(disk.clone()).journal_options(options()).build();
    let open = |engine: &Engine| engine.topic::<u64>("ticks").capacity(2).durable().create();
    let disk = SimulatedDisk::new();
    {
        let engine = engine(&disk).unwrap();
        let ticks = open(&engine).unwrap();
        (0..129).for_each(|_| ticks.add_partitions(1).unwrap());
        ticks.producer().create().unwrap().publish_to(129, |tick| *tick = 7).unwrap();
        let report = engine.shutdown(LONG);
        assert!(report.is_complete(), "{report}");
    }
    // A power cut between two frames, too, and at each other call.
    for nth in 1.. {
        let cut = disk.copy();
        let at = cut.fail_after(nth, Fault::PowerCut);
        let opened = engine(&cut).is_ok_and(|engine| {
            let opened = open(&engine).is_ok();
            engine.shutdown(LONG);
            opened
        });
        let rest = cut.crash(nth);
        let after = engine(&rest).unwrap();
        let ticks = open(&after).unwrap();
        assert_eq!(ticks.partitions(), 130, "call {nth}");
        assert_eq!(ticks.producer().create().unwrap().publish_to(3, |tick| *tick = 7).unwrap().partition, 3);
        after.shutdown(LONG);
        if opened && cut.calls() < at {
            assert!(nth > 5, "{nth}");
            break;
        }
    }
    // As many at once.
    let disk = SimulatedDisk::new();
    let at_once = engine(&disk).unwrap();
    let ticks = open(&at_once).unwrap();
    ticks.add_partitions(129).unwrap();
    assert_eq!(ticks.partitions(), 130);
    // And more than the state has room for leave what there was: also of a topic that was to be made with them.
    ticks.add_partitions(130).unwrap_err();
    let tocks = |partitions| at_once.topic::<u64>("tocks").capacity(2).partitions(partitions).durable().create();
    assert!(matches!(tocks(130), Err(TopicError::Journal { .. })));
    assert_eq!((ticks.partitions(), tocks(2).unwrap().partitions()), (130, 2));
    at_once.shutdown(LONG);
    let again = engine(&disk).unwrap();
    assert_eq!(open(&again).unwrap().partitions(), 130);
}
