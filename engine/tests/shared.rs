//! Topics that are shared to rings of other processes, and topics that are fed from such rings. What kills do is in
//! `shared_kill.rs`.
#![cfg(target_os = "linux")]

use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Pace, Visible};
use slipring::share::{
    Ended, RingDirection, RingLinkEnd, RingLinkError, RingLinkFailure, SharedError, SharedRing, Size, WhenRingFull,
};
use slipring::subscriber::StartAt;
use slipring::topic::Overflow;
use slipring::{Engine, Level, Topic};
use slipring_ring::Start;
use slipring_ring::shared::{Event, Property, SharedConsumer};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

/// The name of a ring that no other test has, and that is removed at the end.
struct RingName(String);

impl RingName {
    fn new(what: &str) -> Self {
        Self(format!("link-{}-{what}", std::process::id()))
    }
}

impl std::ops::Deref for RingName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for RingName {
    fn drop(&mut self) {
        let _ = SharedRing::<u64>::remove_forced(&self.0);
    }
}

fn engine(disk: &SimulatedDisk) -> Engine {
    Engine::builder().journal_in(disk.clone()).build().unwrap()
}

fn end(engine: Engine) {
    let report = engine.shutdown(LONG);
    assert!(report.is_complete(), "{report}");
}

fn publish(topic: &Topic<u64>, values: std::ops::Range<u64>) {
    let mut producer = topic.producer().create().unwrap();
    values.for_each(|value| _ = producer.publish(|tick| *tick = value).unwrap());
}

/// Reads `count` events, and asserts that there is no other within a moment.
fn read<E: Event>(consumer: &mut SharedConsumer<E>, count: usize) -> Vec<E> {
    let mut read = Vec::new();
    let deadline = Instant::now() + LONG;
    while read.len() < count {
        let mut batch = consumer.poll_until(count - read.len(), deadline).unwrap();
        read.extend((&mut batch).into_iter().map(|(_, event)| *event));
        assert!(Instant::now() < deadline, "{} of {count} events came", read.len());
    }
    assert!(consumer.poll(1).unwrap().is_empty(), "another event is there");
    read
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn all_of(topic: &Topic<u64>) -> Vec<u64> {
    let mut replay = topic.replay("check").open().unwrap();
    let mut all = Vec::new();
    loop {
        // The change from journal to ring reads nothing.
        let is_live = replay.is_live();
        if replay.read(Duration::ZERO, |value, _| all.push(*value)).unwrap() == Some(0) && is_live {
            return all;
        }
    }
}

#[test]
fn a_topic_in_memory_is_shared_in_order_and_shown() {
    let name = RingName::new("memory");
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").capacity(64).create().unwrap();
    let link = ticks.share(&*name).hold(["recorder"]).open().unwrap();
    let ring = SharedRing::<u64>::open(&name).unwrap();
    assert_eq!(ring.capacity(), 64, "the topic's capacity");
    let publishes = std::thread::spawn({
        let ticks = ticks.clone();
        move || publish(&ticks, 0..1000)
    });
    // It comes when both rings are full.
    until("the ring is full", || link.events() == 64);
    let mut recorder = ring.consumer("recorder").hold().join().unwrap();
    assert_eq!(read(&mut recorder, 1000), (0..1000).collect::<Vec<_>>());
    publishes.join().unwrap();

    let shown = &engine.describe("ticks").unwrap();
    assert_eq!((&*shown.ring_links[0].ring, shown.ring_links[0].direction), (&*name, RingDirection::Shared));
    assert_eq!((link.events(), link.lost(), shown.ring_links[0].ended.clone()), (1000, 0, None));
    assert!(shown.to_string().contains(&format!("shared to the ring {} as ring.{}: 1000 events", &*name, &*name)));
    // One process shares to a ring at a time.
    let second = ticks.share(&*name).name("second").open().unwrap_err();
    assert!(matches!(second, RingLinkError::Ring { cause: SharedError::ProducerTaken { .. }, .. }), "{second}");

    link.stop();
    assert_eq!(link.wait(), RingLinkEnd::Stopped);
    assert!(engine.describe("ticks").unwrap().ring_links[0].ended.is_some());
    // It has left the topic, which goes on, and the ring, where another goes on.
    publish(&ticks, 0..200);
    let link = ticks.share(&*name).start(StartAt::Latest).open().unwrap();
    publish(&ticks, 7..8);
    assert_eq!(read(&mut recorder, 1), [7]);
    end(engine);
    assert_eq!(link.ended(), Some(RingLinkEnd::Finished));
    assert!(recorder.poll(1).unwrap().is_empty(), "the ring stays open");
}

#[test]
fn all_partitions_of_a_topic_in_memory_are_shared_each_in_its_order() {
    let name = RingName::new("partitions");
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<[u64; 2]>("ticks").capacity(64).partitions(2).create();
    // An array is no event of a shared ring by itself.
    drop(ticks.unwrap());
    let ticks = engine.topic::<u64>("each").capacity(64).partitions(2).create().unwrap();
    ticks.share(&*name).size(256).hold(["tape"]).open().unwrap();
    ticks.add_partitions(1).unwrap();
    let mut producer = ticks.producer().create().unwrap();
    for value in 0..60 {
        producer.publish_to((value % 3) as u32, |tick| *tick = value).unwrap();
    }
    let mut tape = SharedRing::<u64>::open(&name).unwrap().consumer("tape").hold().join().unwrap();
    let seen = read(&mut tape, 60);
    for partition in 0..3 {
        let of_it: Vec<_> = seen.iter().copied().filter(|value| value % 3 == partition).collect();
        assert_eq!(of_it, (0..20).map(|count| count * 3 + partition).collect::<Vec<_>>());
    }
    drop(producer);
    end(engine);
}

#[test]
fn a_slow_consumer_holds_a_topic_in_memory_or_loses_as_told() {
    for (when_full, loses) in [(WhenRingFull::Wait, false), (WhenRingFull::Lose, true)] {
        let name = RingName::new(if loses { "loses" } else { "waits" });
        let engine = Engine::builder().build().unwrap();
        let ticks = engine.topic::<u64>("ticks").capacity(8).overflow(Overflow::Fail).create().unwrap();
        let link = ticks.share(&*name).size(4).hold(["slow"]).when_full(when_full).open().unwrap();
        let mut producer = ticks.producer().create().unwrap();
        let mut published = 0;
        if loses {
            while published < 1000 {
                published += u64::from(producer.try_publish(|tick| *tick = published).is_ok());
            }
        } else {
            until("the ring is full", || {
                published += u64::from(producer.try_publish(|tick| *tick = published).is_ok());
                published == 12
            });
            // Four in the ring, eight in the topic's.
            assert!(producer.try_publish(|_| ()).is_err());
            assert_eq!((link.events(), link.lost()), (4, 0));
        }
        let mut slow = SharedRing::<u64>::open(&name).unwrap().consumer("slow").hold().join().unwrap();
        if loses {
            until("all are handed on or lost", || link.events() + link.lost() == published);
            assert_eq!((link.events(), read(&mut slow, 4)), (4, vec![0, 1, 2, 3]), "the oldest stay");
            producer.try_publish(|tick| *tick = published).unwrap();
            assert_eq!(read(&mut slow, 1), [published]);
            assert_eq!(link.lost(), published - 4);
        } else {
            assert_eq!(read(&mut slow, 12), (0..12).collect::<Vec<_>>());
            assert_eq!((link.events(), link.lost()), (12, 0));
        }
        drop(producer);
        end(engine);
    }
}

#[test]
fn a_shutdown_ends_a_link_that_waits_for_a_stopped_consumer_and_says_what_is_left() {
    let name = RingName::new("stuck");
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").capacity(16).create().unwrap();
    let link = ticks.share(&*name).size(4).hold(["never"]).open().unwrap();
    publish(&ticks, 0..10);
    until("the ring is full", || link.events() == 4);
    let report = engine.shutdown(Duration::from_millis(50));
    assert!(!report.is_complete());
    let topic = &report.topics[0];
    let left: Vec<_> = topic.consumer(&format!("ring.{}", &*name)).map(|it| (it.consumed, it.left)).collect();
    assert_eq!(left, [(4, 6)], "{report}");
    assert!(matches!(link.wait(), RingLinkEnd::Failed(RingLinkFailure::Read(_))));
}

#[test]
fn a_durable_topic_goes_on_behind_what_is_in_the_ring_and_holds_no_producer() {
    let (name, disk) = (RingName::new("durable"), SimulatedDisk::new());
    let mut tape = None;
    for life in 0..3_u64 {
        let engine = engine(&disk);
        let ticks = engine.topic::<u64>("ticks").capacity(64).durable().create().unwrap();
        let link = ticks.share(&*name).size(16).hold(["tape"]).open().unwrap();
        // More than the two rings hold: the link reads on from the journal.
        publish(&ticks, life * 500..life * 500 + 500);
        let ring = SharedRing::<u64>::open(&name).unwrap();
        let tape = tape.get_or_insert_with(|| ring.consumer("tape").hold().join().unwrap());
        // Half of a life's events stay for the next life.
        let (from, count) = if life == 0 { (0, 250) } else { (life * 500 - 250, 500) };
        let mut seen = Vec::new();
        while seen.len() < count {
            let mut batch = tape.poll_until(count - seen.len(), Instant::now() + LONG).unwrap();
            assert!(!batch.is_empty());
            seen.extend((&mut batch).into_iter().map(|(_, value)| *value));
        }
        assert_eq!(seen, (from..from + count as u64).collect::<Vec<_>>());
        link.stop();
        assert_eq!(link.wait(), RingLinkEnd::Stopped);
        end(engine);
    }
}

#[test]
fn other_processes_see_what_is_durable_or_written_as_told() {
    let disk = SimulatedDisk::new();
    let mut pace = Pace::default();
    pace.sync = false;
    let engine = Engine::builder().journal_in(disk.clone()).journal_pace(pace).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let (durable, written) = (RingName::new("synced"), RingName::new("written"));
    let synced = ticks.share(&*durable).hold(["tape"]).open().unwrap();
    let early = ticks.share(&*written).hold(["tape"]).visible(Visible::Written).open().unwrap();
    publish(&ticks, 0..10);
    let mut tape = SharedRing::<u64>::open(&written).unwrap().consumer("tape").hold().join().unwrap();
    assert_eq!(read(&mut tape, 10), (0..10).collect::<Vec<_>>());
    assert_eq!((early.events(), synced.events()), (10, 0), "nothing is synced");
    // The end of the journal syncs, when the link has gone; the next one shows the rest.
    engine.shutdown(Duration::from_millis(50));
    assert!(matches!(synced.wait(), RingLinkEnd::Failed(RingLinkFailure::Replay(_))));
    let engine = self::engine(&disk);
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    ticks.share(&*durable).open().unwrap();
    let mut tape = SharedRing::<u64>::open(&durable).unwrap().consumer("tape").hold().join().unwrap();
    assert_eq!(read(&mut tape, 10), (0..10).collect::<Vec<_>>());
    end(engine);

    let memory = Engine::builder().build().unwrap();
    let ticks = memory.topic::<u64>("ticks").create().unwrap();
    let refused = ticks.share(&*written).visible(Visible::Written).open().unwrap_err();
    assert!(matches!(refused, RingLinkError::Subscribe(_)), "{refused}");
}

#[test]
fn what_does_not_fit_is_refused_with_both_sides() {
    let name = RingName::new("refused");
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let wide = engine.topic::<u64>("wide").partitions(2).durable().create().unwrap();
    let refused = wide.share(&*name).open().unwrap_err();
    assert!(matches!(refused, RingLinkError::Partitions { partitions: 2, .. }), "{refused}");
    assert!(SharedRing::<u64>::open(&name).unwrap().participants().is_empty(), "nobody is left in it");

    let narrow = engine.topic::<u32>("narrow").create().unwrap();
    let refused = narrow.share(&*name).open().unwrap_err();
    let RingLinkError::Ring { cause: SharedError::Mismatch { property, .. }, .. } = refused else {
        panic!("{refused}")
    };
    assert_eq!(property, Property::Layout);

    // A ring that goes on at an offset which the topic has not reached.
    let ring = SharedRing::<u64>::open(&name).unwrap();
    ring.producer().unwrap().claim(1).unwrap().commit_noted(1_000_000).unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let refused = ticks.share(&*name).open().unwrap_err();
    assert!(matches!(refused, RingLinkError::Ahead { offset: 1_000_000, published: 0, .. }), "{refused}");

    let absent = RingName::new("absent");
    let refused = ticks.feed_from(&*absent).open().unwrap_err();
    assert!(matches!(refused, RingLinkError::Ring { cause: SharedError::NotFound { .. }, .. }), "{refused}");
    let memory = Engine::builder().build().unwrap().topic::<u64>("memory").create().unwrap();
    let refused = memory.feed_from(&*name).acknowledge(Level::Durable).open().unwrap_err();
    assert!(matches!(refused, RingLinkError::Producer(_)), "{refused}");
    // A partition that comes later ends the link, and not the topic.
    let other = RingName::new("grows");
    let link = ticks.share(&*other).open().unwrap();
    ticks.add_partitions(1).unwrap();
    ticks.producer().create().unwrap().publish_to(1, |tick| *tick = 7).unwrap();
    assert!(matches!(link.wait(), RingLinkEnd::Failed(RingLinkFailure::Partitions { .. })));
    publish(&ticks, 0..10);
    let report = engine.shutdown(LONG);
    assert_eq!(report.failures().count(), 1, "{report}");
}

#[test]
fn a_ring_that_is_closed_or_removed_ends_the_link_and_not_the_topic() {
    let name = RingName::new("closed");
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    for remove in [false, true] {
        let link = ticks.share(&*name).open().unwrap();
        match remove {
            true => SharedRing::<u64>::remove_forced(&name).unwrap(),
            false => SharedRing::<u64>::open(&name).unwrap().close(),
        }
        publish(&ticks, 0..1);
        let expected = if remove { Ended::Replaced } else { Ended::Closed };
        let ended = link.wait();
        assert!(
            matches!(&ended, RingLinkEnd::Failed(RingLinkFailure::Ring { cause, .. }) if *cause == expected),
            "{ended}"
        );
        let _ = SharedRing::<u64>::remove(&name);
    }
    publish(&ticks, 0..1);
    let mut tape = ticks.subscribe("tape").poll().unwrap();
    publish(&ticks, 1..2);
    assert_eq!(tape.poll(LONG).unwrap().unwrap().into_iter().count(), 1);
    drop(tape);
}

#[test]
fn a_fed_topic_has_each_event_once_over_restarts() {
    let (name, disk) = (RingName::new("feed"), SimulatedDisk::new());
    let ring = SharedRing::<u64>::create(&name, Size::slots(64).multi_producer()).unwrap();
    let mut out = ring.multi_producer().unwrap();
    let mut send = |values: std::ops::Range<u64>| {
        for value in values {
            // Slots without an event, as of a producer that was killed in its claim.
            drop(out.claim(1 + value as usize % 3).unwrap());
            out.publish(|event| *event = value).unwrap();
        }
    };
    for life in 0..4_u64 {
        let engine = engine(&disk);
        let orders = engine.topic::<u64>("orders").capacity(16).durable().create().unwrap();
        let link = orders.feed_from(&*name).batch(if life == 2 { 1 } else { 5 }).open().unwrap();
        assert_eq!(engine.describe("orders").unwrap().ring_links[0].direction, RingDirection::Fed);
        send(life * 110..life * 110 + 100);
        until("all are in the topic", || link.events() >= 100);
        until("all are durable", || {
            ring.participants().iter().all(|it| it.role != slipring_ring::shared::Role::Consumer || it.lag == 0)
        });
        end(engine);
        assert_eq!(link.wait(), RingLinkEnd::Stopped);
        // These wait in the ring for the next life.
        send(life * 110 + 100..life * 110 + 110);
    }
    let engine = engine(&disk);
    let orders = engine.topic::<u64>("orders").capacity(16).durable().create().unwrap();
    let link = orders.feed_from(&*name).open().unwrap();
    ring.close();
    assert_eq!(link.wait(), RingLinkEnd::Finished);
    assert_eq!(all_of(&orders), (0..440).collect::<Vec<_>>());
    end(engine);
}

/// The moment between the journal and the ring: the events are durable, and the link's position is still before them.
#[test]
fn events_that_did_not_leave_the_ring_before_the_end_are_not_published_again() {
    let (name, disk) = (RingName::new("again"), SimulatedDisk::new());
    let ring = SharedRing::<u64>::create(&name, 64).unwrap();
    let mut out = ring.producer().unwrap();
    // The position of the link, as it was before it published.
    let mut before = ring.consumer("orders").hold().start(Start::Earliest).join().unwrap();
    before.set_note(0);
    drop(before);
    (0..20).for_each(|value| _ = out.publish(|event| *event = value).unwrap());
    let first = engine(&disk);
    let orders = first.topic::<u64>("orders").durable().create().unwrap();
    let mut producer = orders.producer().idempotent(format!("ring.{}.orders", &*name)).unwrap();
    (0..15).for_each(|value| _ = producer.publish(value, |event| *event = value).unwrap());
    drop(producer);
    end(first);
    let engine = engine(&disk);
    let orders = engine.topic::<u64>("orders").durable().create().unwrap();
    let link = orders.feed_from(&*name).open().unwrap();
    drop(out);
    ring.close();
    assert_eq!(link.wait(), RingLinkEnd::Finished);
    assert_eq!(all_of(&orders), (0..20).collect::<Vec<_>>());
    end(engine);
}

#[test]
fn a_full_topic_holds_the_producers_of_its_ring() {
    let name = RingName::new("full");
    let engine = Engine::builder().build().unwrap();
    let orders = engine.topic::<u64>("orders").capacity(4).overflow(Overflow::Fail).create().unwrap();
    let mut reader = orders.subscribe("reader").poll().unwrap();
    let link = orders.feed_from(&*name).size(8).batch(1).open().unwrap();
    let ring = SharedRing::<u64>::open(&name).unwrap();
    let mut out = ring.producer().unwrap();
    let mut sent = 0;
    until("both are full", || {
        sent += u64::from(out.try_publish(|event| *event = sent).is_ok());
        sent == 12
    });
    assert!(out.try_publish(|_| ()).is_err());
    let mut seen = Vec::new();
    while seen.len() < 12 {
        seen.extend((&mut reader.poll(LONG).unwrap().unwrap()).into_iter().map(|(value, _)| *value));
    }
    assert_eq!(seen, (0..12).collect::<Vec<_>>());
    link.stop();
    assert_eq!((link.wait(), link.lost()), (RingLinkEnd::Stopped, 0));
    drop(reader);
}
