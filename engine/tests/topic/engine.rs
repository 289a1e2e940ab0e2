//! What an engine promises its users, topic by topic.

use slipring::{
    Engine, Message, Record, Wait,
    journal::simulated::SimulatedDisk,
    producer::{Multi, PublishError, Single},
    subscriber::{OnError, StartAt, SubscribeError},
    topic::{Closed, TopicError},
};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);

fn engine() -> Engine {
    Engine::builder().build().unwrap()
}

fn fine(_: &u64, _: slipring::subscriber::At) -> Result<(), Infallible> {
    Ok(())
}

#[test]
fn every_subscriber_sees_every_event_in_order_and_a_dependent_one_later() {
    for capacity in [1, 2, 64] {
        let engine = engine();
        let topic = engine.topic::<u64>("numbers").capacity(capacity).create().unwrap();
        let done = Arc::new(AtomicU64::new(0));
        let first = Arc::clone(&done);
        topic
            .subscribe("first")
            .run(move |event, at| {
                assert_eq!(*event, at.offset * 3);
                first.store(at.offset + 1, Ordering::Release);
                Ok::<_, Infallible>(())
            })
            .unwrap();
        let seen = Arc::new(AtomicU64::new(0));
        let second = Arc::clone(&seen);
        topic
            .subscribe("second")
            .after(["first"])
            .run(move |_, at| {
                assert!(done.load(Ordering::Acquire) > at.offset, "second came before first");
                assert_eq!(second.fetch_add(1, Ordering::Relaxed), at.offset);
                Ok::<_, Infallible>(())
            })
            .unwrap();
        let mut producer = topic.producer().create().unwrap();
        for number in 0..1000 {
            let receipt = producer.publish(|event| *event = number * 3).unwrap();
            assert_eq!((receipt.topic, receipt.partition, receipt.offset), (topic.id(), 0, number));
        }
        drop(producer);
        let report = engine.shutdown(LONG);
        assert!(report.is_complete(), "{report}");
        assert_eq!(seen.load(Ordering::Relaxed), 1000);
    }
}

#[test]
fn a_second_topic_of_the_same_name_is_an_error_that_shows_both_shapes() {
    let engine = engine();
    engine.topic::<u64>("ticks").capacity(8).create().unwrap();
    let refused = engine.topic::<u32>("ticks").capacity(16).single_producer().create().unwrap_err().to_string();
    for part in ["8 slots of u64", "16 slots of u32", "a single producer", "ticks"] {
        assert!(refused.contains(part), "{refused}");
    }
    assert!(engine.get::<u64, Multi>("ticks").is_ok());
    assert!(matches!(engine.get::<u64, Single>("ticks"), Err(TopicError::OtherShape { .. })));
    assert!(matches!(engine.get::<u64, Multi>("tocks"), Err(TopicError::Unknown { known, .. }) if known == ["ticks"]));
    assert_eq!(engine.topics(), ["ticks"]);
}

#[test]
fn names_that_could_leave_a_directory_are_refused() {
    let engine = engine();
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a/b", "a b", "ä", "a\0", &long] {
        assert!(matches!(engine.topic::<u64>(name).create(), Err(TopicError::Name { .. })), "{name:?}");
    }
    let topic = engine.topic::<u64>("x".repeat(249)).create().unwrap();
    assert!(matches!(topic.subscribe("a/b").poll(), Err(SubscribeError::Name(_))));
}

#[test]
fn sizes_that_cannot_be_are_refused_and_leave_no_topic() {
    let engine = engine();
    for capacity in [0, 3, usize::MAX] {
        let refused = engine.topic::<u64>("ticks").capacity(capacity).create().unwrap_err().to_string();
        assert!(refused.contains(&capacity.to_string()) && refused.contains("power of two"), "{refused}");
    }
    let refused = engine.topic::<u64>("ticks").capacity(8).retain(8).create().unwrap_err().to_string();
    assert!(refused.contains("retain fewer"), "{refused}");
    assert!(engine.topics().is_empty());
}

#[test]
fn a_refused_pin_names_what_was_asked_and_what_is_allowed_and_starts_nothing() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").create().unwrap();
    let refused = topic.subscribe("book").pin(777).run(fine).unwrap_err();
    assert!(matches!(&refused, SubscribeError::Pin { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("777") && text.contains("may use core") && text.contains("book"), "{text}");
    assert!(topic.metrics().consumers.is_empty());
    let core = slipring::cores::pin::allowed_cores()[0];
    topic.subscribe("book").pin(core).run(fine).unwrap();
    assert!(engine.shutdown(LONG).is_complete());
}

#[test]
fn a_panicking_handler_ends_the_topic_with_its_name_and_message_and_wakes_who_waits() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").capacity(2).create().unwrap();
    topic
        .subscribe("book")
        .run(|_, at| {
            assert!(at.offset < 3, "the book is torn");
            Ok::<_, Infallible>(())
        })
        .unwrap();
    let mut other = topic.subscribe("other").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    // The second subscriber never reads, so the producer waits for room when the first one panics.
    let waiting = std::thread::spawn(move || {
        loop {
            if let Err(refused) = producer.publish(|_| ()) {
                return refused;
            }
        }
    });
    // It reads on until the failure reaches it.
    let told = loop {
        match other.poll(LONG) {
            Ok(Some(mut batch)) => batch.into_iter().for_each(|_| ()),
            Ok(None) => panic!("the end of a failed topic is no plain end"),
            Err(told) => break told,
        }
    };
    let refused = waiting.join().unwrap();
    for text in [told.to_string(), refused.to_string()] {
        assert!(text.contains("\"book\"") && text.contains("the book is torn"), "{text}");
    }
    let report = engine.shutdown(LONG);
    assert!(!report.is_complete());
    let failures: Vec<_> = report.failures().collect();
    assert!(matches!(failures[..], [("ticks", "book", cause)] if cause.contains("the book is torn")), "{report}");
    // What was not handled counts as left.
    assert_eq!(report.topics[0].consumer("book").next().unwrap().consumed, 3);
}

#[test]
fn an_error_is_skipped_or_retried_as_told() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").create().unwrap();
    topic
        .subscribe("picky")
        .on_error(OnError::Skip)
        .run(|event, _| if *event % 10 == 0 { Err("no tens") } else { Ok(()) })
        .unwrap();
    let tries = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&tries);
    topic
        .subscribe("stubborn")
        .on_error(OnError::Retry(2))
        .run(move |_, at| match at.offset == 7 && counted.fetch_add(1, Ordering::Relaxed) < 2 {
            true => Err("not yet"),
            false => Ok(()),
        })
        .unwrap();
    let mut producer = topic.producer().create().unwrap();
    for number in 0..100 {
        producer.publish(|event| *event = number).unwrap();
    }
    let report = engine.shutdown(LONG);
    assert!(report.is_complete(), "{report}");
    assert_eq!(tries.load(Ordering::Relaxed), 3);
}

#[test]
fn polling_waits_no_longer_than_told_and_ends_with_none() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").create().unwrap();
    let mut tape = topic.subscribe("tape").limit(2).poll().unwrap();
    assert!(tape.poll(Duration::ZERO).unwrap().unwrap().is_empty());
    assert!(tape.poll(Duration::from_millis(1)).unwrap().unwrap().is_empty());
    let mut producer = topic.producer().create().unwrap();
    producer.publish_batch(3, |index, event| *event = index as u64).unwrap();
    topic.close();
    assert!(matches!(producer.publish(|_| ()), Err(PublishError::Closed { reason: Closed::Closed, .. })));
    let mut seen = Vec::new();
    while let Some(mut batch) = tape.poll(LONG).unwrap() {
        seen.extend((&mut batch).into_iter().map(|(event, at)| (*event, at.offset, at.end_of_batch)));
    }
    assert_eq!(seen, [(0, 0, false), (1, 1, true), (2, 2, true)]);
}

/// A limit beyond the clock's range once meant no time at all.
#[test]
fn a_shutdown_without_end_drains() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").create().unwrap();
    topic.subscribe("all").run(fine).unwrap();
    topic.producer().create().unwrap().publish_batch(500, |_, _| ()).unwrap();
    let report = engine.shutdown(Duration::MAX);
    assert!(report.is_complete(), "{report}");
}

/// Topics that feed one another are drained in the order in which they feed, whatever the order of creation.
#[test]
fn shutdown_drains_a_chain_of_topics() {
    for downstream_first in [false, true] {
        let engine = engine();
        let (orders, quotes) = if downstream_first {
            let quotes = engine.topic::<u64>("quotes").capacity(4).create().unwrap();
            (engine.topic::<u64>("orders").capacity(4).create().unwrap(), quotes)
        } else {
            let orders = engine.topic::<u64>("orders").capacity(4).create().unwrap();
            (orders, engine.topic::<u64>("quotes").capacity(4).create().unwrap())
        };
        let mut out = quotes.producer().create().unwrap();
        orders.subscribe("book").run(move |order, _| out.publish(|quote| *quote = order * 2).map(|_| ())).unwrap();
        let sum = Arc::new(AtomicU64::new(0));
        let total = Arc::clone(&sum);
        quotes
            .subscribe("tape")
            .run(move |quote, _| {
                total.fetch_add(*quote, Ordering::Relaxed);
                Ok::<_, Infallible>(())
            })
            .unwrap();
        let mut producer = orders.producer().create().unwrap();
        for number in 1..=100 {
            producer.publish(|order| *order = number).unwrap();
        }
        drop(producer);
        let report = engine.shutdown(LONG);
        assert!(report.is_complete(), "{report}");
        assert_eq!(sum.load(Ordering::Relaxed), 10_100);
        assert!(matches!(engine.topic::<u64>("late").create(), Err(TopicError::ShutDown)));
    }
}

#[test]
fn a_handler_that_does_not_return_is_reported_not_waited_for() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").create().unwrap();
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let inside = Arc::new(Barrier::new(2));
    let entered = Arc::clone(&inside);
    topic
        .subscribe("stuck")
        .run(move |_, at| {
            if at.offset == 0 {
                entered.wait();
                let _ = held.lock().unwrap().recv();
            }
            Ok::<_, Infallible>(())
        })
        .unwrap();
    topic.producer().create().unwrap().publish_batch(5, |_, _| ()).unwrap();
    inside.wait();
    let report = engine.shutdown(Duration::from_millis(10));
    let stuck = &report.topics[0].consumers[0];
    assert!(stuck.running && stuck.left == 5 && !report.is_complete(), "{report}");
    assert!(report.to_string().contains("still in its handler"), "{report}");
    drop(release);
    // Once it returns, it ends, and a second look says so.
    let later = engine.shutdown(LONG);
    assert!(!later.topics[0].consumers[0].running, "{later}");
}

#[test]
fn a_single_producer_is_lent_to_one_at_a_time() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").single_producer().create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    assert!(topic.producer().create().unwrap_err().to_string().contains("taken"));
    producer.publish(|event| *event = 1).unwrap();
    drop(producer);
    let mut again = topic.producer().create().unwrap();
    assert_eq!(again.publish(|event| *event = 2).unwrap().offset, 1);
    assert!(topic.closed().is_none());
}

#[test]
fn metrics_name_who_is_behind() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").capacity(4).create().unwrap();
    let mut slow = topic.subscribe("slow").poll().unwrap();
    let mut quick = topic.subscribe("quick").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    producer.publish_batch(4, |_, _| ()).unwrap();
    quick.poll(LONG).unwrap().unwrap().into_iter().for_each(|_| ());
    let refused = producer.publish_until(Instant::now(), |_| ()).unwrap_err();
    assert!(matches!(&refused, PublishError::TimedOut { by: Some(by), .. } if by == "slow"), "{refused}");
    let refused = producer.try_publish(|_| ()).unwrap_err();
    assert!(matches!(&refused, PublishError::Full { by: Some(by), .. } if by == "slow"), "{refused}");
    let metrics = engine.metrics();
    let ticks = metrics.topic("ticks").unwrap();
    assert_eq!((ticks.published, ticks.capacity, ticks.fill, ticks.partitions[0].earliest), (4, 4, 4, 0));
    let (slow_now, quick_now) = (ticks.consumer("slow").unwrap(), ticks.consumer("quick").unwrap());
    assert_eq!((slow_now.lag, slow_now.consumed, slow_now.stalls), (4, 0, 1));
    assert_eq!((quick_now.lag, quick_now.consumed, quick_now.stalls), (0, 4, 0));
    assert!(metrics.to_string().contains("slow: consumed 0, lag 4, stalls 1, skipped 0"), "{metrics}");
    slow.poll(LONG).unwrap().unwrap().into_iter().for_each(|_| ());
    assert_eq!(topic.metrics().fill, 0);
}

#[test]
fn a_cancelled_subscriber_no_longer_holds_the_producers() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").capacity(2).create().unwrap();
    let going = topic.subscribe("going").run(fine).unwrap();
    going.cancel().unwrap();
    let mut producer = topic.producer().create().unwrap();
    for _ in 0..100 {
        producer.publish(|_| ()).unwrap();
    }
    assert!(topic.metrics().consumers.is_empty());
}

#[test]
fn a_late_subscriber_starts_where_it_asked_or_learns_the_range() {
    let engine = engine();
    let topic = engine.topic::<u64>("ticks").capacity(8).retain(3).create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    for number in 0..20 {
        producer.publish(|event| *event = number).unwrap();
    }
    for (start, first) in [(StartAt::Earliest, 17), (StartAt::Latest, 20), (StartAt::Offset(18), 18)] {
        assert_eq!(topic.subscribe("late").start(start).poll().unwrap().first(), first);
    }
    for offset in [16, 21] {
        let refused = topic.subscribe("late").start(StartAt::Offset(offset)).poll().unwrap_err().to_string();
        assert!(refused.contains("17") && refused.contains("20") && refused.contains(&offset.to_string()), "{refused}");
    }
    let refused = topic.subscribe("late").after(["nobody"]).run(fine).unwrap_err().to_string();
    assert!(refused.contains("nobody"), "{refused}");
}

#[test]
fn several_producers_share_a_topic_with_any_wait() {
    for name in Wait::NAMES {
        let wait: Wait = name.parse().unwrap();
        let engine = engine();
        let topic = engine.topic::<u64>("ticks").capacity(16).create().unwrap();
        let sum = Arc::new(AtomicU64::new(0));
        let total = Arc::clone(&sum);
        topic
            .subscribe("sum")
            .wait(wait.clone())
            .run(move |event, _| {
                total.fetch_add(*event, Ordering::Relaxed);
                Ok::<_, Infallible>(())
            })
            .unwrap();
        let first = topic.producer().create().unwrap();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let mut producer = first.clone();
                producer.set_wait(wait.clone());
                std::thread::spawn(move || {
                    (1..=200).for_each(|n| assert!(producer.publish(|event| *event = n).is_ok()))
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(first);
        let report = engine.shutdown(LONG);
        assert!(report.is_complete(), "{name}: {report}");
        assert_eq!(sum.load(Ordering::Relaxed), 3 * 20_100, "{name}");
    }
}

/// What it does with an event may take longer than half a second: it was taken for one that reads no more.
#[test]
fn a_shutdown_waits_up_to_its_limit_for_who_works_between_two_batches() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").capacity(4).create().unwrap();
    let mut slow = ticks.subscribe("slow").limit(1).poll().unwrap();
    let mut member = ticks.group("group").limit(1).start(slipring::subscriber::StartAt::Earliest).join().unwrap();
    ticks.producer().create().unwrap().publish_batch(3, |index, tick| *tick = index as u64).unwrap();
    let (ready, begins) = std::sync::mpsc::channel();
    // Longer than a shutdown takes somebody for gone; how much longer does not matter.
    let work = |first: &mut bool| {
        if std::mem::take(first) {
            ready.send(()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(900));
    };
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut first = true;
            while let Some(mut batch) = slow.poll(LONG).unwrap() {
                let read = (&mut batch).into_iter().count();
                assert_eq!(read, 1);
                work(&mut first);
            }
        });
        scope.spawn(|| {
            let mut first = true;
            while let Some(batch) = member.poll(LONG).unwrap() {
                batch.commit().unwrap();
                work(&mut first);
            }
        });
        (0..2).for_each(|_| begins.recv().unwrap());
        engine.shutdown(LONG)
    });
    assert!(report.is_complete(), "{report}");
}

/// What a polled subscriber read after the shutdown had begun was once called unread.
#[test]
fn a_shutdown_waits_for_polled_subscribers_that_still_read_and_tells_of_those_that_do_not() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").capacity(64).create().unwrap();
    let mut slow = ticks.subscribe("slow").limit(8).poll().unwrap();
    let idle = ticks.subscribe("idle").poll().unwrap();
    let gone = ticks.subscribe("gone").poll().unwrap();
    ticks.producer().create().unwrap().publish_batch(64, |index, tick| *tick = index as u64).unwrap();
    drop(gone);
    let (ready, begins) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut read = 0;
        while let Some(mut batch) = slow.poll(LONG).unwrap() {
            if read == 0 {
                ready.send(()).unwrap();
            }
            // Each batch is in hand for a while.
            std::thread::sleep(Duration::from_millis(50));
            read += (&mut batch).into_iter().count();
        }
        (read, slow)
    });
    begins.recv().unwrap();
    let report = engine.shutdown(LONG);
    assert_eq!(reader.join().unwrap().0, 64);
    let left: Vec<_> = report.topics[0].consumers.iter().map(|it| (&*it.name, it.left, it.ending.clone())).collect();
    assert_eq!(left, [("slow", 0, None), ("idle", 64, Some(slipring::metrics::Ending::Unread))], "{report}");
    assert!(report.to_string().contains("idle: consumed up to 0, 64 left, polled, not read to the end"), "{report}");
    drop(idle);
}

/// The worker works on each message for longer than a shutdown waits for a queue that has no worker.
#[test]
fn a_shutdown_waits_for_workers_of_queues_until_nothing_is_unread_and_tells_of_what_is_left() {
    for is_durable in [false, true] {
        let engine = Engine::builder();
        let engine = if is_durable { engine.journal_in(SimulatedDisk::new()) } else { engine }.build().unwrap();
        let jobs = engine.topic::<Message>("jobs").capacity(64).max_message(64);
        let jobs = if is_durable { jobs.durable() } else { jobs }.create().unwrap();
        let mut worker = jobs.queue("work").join().unwrap();
        drop(jobs.queue("nobodys").join().unwrap());
        let mut producer = jobs.producer().create().unwrap();
        (0..3).for_each(|_| _ = producer.send(Record::new("job")).unwrap());
        let (ready, begins) = std::sync::mpsc::channel();
        let working = std::thread::spawn(move || {
            let mut done = 0;
            while let Ok(lease) = worker.receive(LONG) {
                let _ = ready.send(());
                std::thread::sleep(Duration::from_millis(700));
                lease.unwrap().ack().unwrap();
                done += 1;
            }
            done
        });
        begins.recv().unwrap();
        let report = engine.shutdown(LONG);
        assert_eq!(working.join().unwrap(), 3, "{report}");
        let jobs = report.topics.iter().find(|topic| topic.name == "jobs").unwrap();
        let [work, nobodys] = &jobs.queues[..] else { panic!("{report}") };
        assert_eq!((nobodys.unread, nobodys.leased), (3, 0), "{report}");
        // The last one is in hand still. What a durable queue has not done with is kept, so nobody waits for it.
        assert!(work.durable == is_durable && (is_durable || work.unread == 0) && work.leased <= 1, "{report}");
        assert!(!is_durable || report.is_complete(), "{report}");
    }
}
