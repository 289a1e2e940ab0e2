//! Managed subscribers that handle a batch again as a whole, and handlers that are told where each batch begins.

use slipring::{
    Engine, Message, Record,
    clock::{Clock, ManualClock},
    dead_letter::DeadLetter,
    subscriber::{At, Backoff, BatchStart, Handler, OnError, SubscribeError},
    topic::Closed,
};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(120);

/// Writes down what it is given, and fails on one event of the first attempts.
struct Notes {
    clock: ManualClock,
    tell: Sender<Note>,
    /// The offset of the event on which it fails, and how often.
    fails_at: (u64, u32),
}

#[derive(Debug, PartialEq)]
enum Note {
    Start(BatchStart, Duration),
    Event(u64),
}

impl Handler<u64> for Notes {
    type Error = &'static str;

    fn on_batch_start(&mut self, batch: BatchStart) {
        self.tell.send(Note::Start(batch, self.clock.now())).unwrap();
    }

    fn on_event(&mut self, event: &u64, at: At) -> Result<(), &'static str> {
        if at.offset == self.fails_at.0 && self.fails_at.1 > 0 {
            self.fails_at.1 -= 1;
            return Err("no room on the disk");
        }
        self.tell.send(Note::Event(*event)).unwrap();
        Ok(())
    }
}

fn notes(clock: &ManualClock, fails_at: (u64, u32)) -> (Notes, Receiver<Note>) {
    let (tell, told) = channel();
    (Notes { clock: clock.clone(), tell, fails_at }, told)
}

/// The next note. The clock goes on meanwhile, in steps of a tenth of a second.
fn next(told: &Receiver<Note>, clock: &ManualClock) -> Note {
    for _ in 0..20_000 {
        if let Ok(note) = told.recv_timeout(Duration::from_millis(5)) {
            return note;
        }
        clock.advance(SECOND / 10);
    }
    panic!("nothing more came");
}

fn start(told: &Receiver<Note>, clock: &ManualClock) -> (BatchStart, Duration) {
    match next(told, clock) {
        Note::Start(start, at) => (start, at),
        note => panic!("{note:?} is no beginning of a batch"),
    }
}

#[test]
fn a_failed_batch_is_handled_again_from_its_beginning_after_delays_that_grow() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let (handler, told) = notes(&clock, (1, 2));
    let backoff = Backoff::exponential(SECOND, 10 * SECOND);
    ticks.subscribe("store").retry_batch(2, backoff).run_handler(move || handler).unwrap();
    let mut producer = ticks.producer().create().unwrap();
    producer.publish_batch(3, |index, tick| *tick = index as u64).unwrap();
    let mut begun = Vec::new();
    for attempt in 1..=3 {
        let (batch, at) = start(&told, &clock);
        assert_eq!((batch.attempt, batch.first, batch.size), (attempt, 0, 3));
        begun.push(at);
        assert_eq!(next(&told, &clock), Note::Event(0), "from the beginning");
        if attempt == 1 {
            // It stays a batch of three, whatever comes meanwhile.
            producer.publish_batch(2, |_, tick| *tick = 9).unwrap();
        }
    }
    assert_eq!([next(&told, &clock), next(&told, &clock)], [Note::Event(1), Note::Event(2)]);
    assert!(begun[1] - begun[0] >= SECOND && begun[2] - begun[1] >= 2 * SECOND, "{begun:?}");
    let (batch, _) = start(&told, &clock);
    assert_eq!((batch.attempt, batch.first, batch.size), (1, 3, 2));
    assert!(engine.shutdown(LONG).is_complete());
}

#[test]
fn a_batch_that_fails_each_time_stays_unread_or_is_passed_over_as_a_whole() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let (handler, told) = notes(&clock, (1, 2));
    let subscribe = ticks.subscribe("store").retry_batch(1, Backoff::fixed(SECOND)).on_error(OnError::Skip);
    subscribe.run_handler(move || handler).unwrap();
    let mut producer = ticks.producer().create().unwrap();
    producer.publish_batch(3, |index, tick| *tick = index as u64).unwrap();
    for attempt in 1..=2 {
        assert_eq!(start(&told, &clock).0.attempt, attempt);
        assert_eq!(next(&told, &clock), Note::Event(0));
    }
    producer.publish(|tick| *tick = 7).unwrap();
    assert_eq!(start(&told, &clock).0.first, 3, "the next batch");
    assert_eq!(next(&told, &clock), Note::Event(7));
    let metrics = engine.metrics();
    let consumers = &metrics.topics[0].consumers;
    assert_eq!(consumers.iter().find(|it| it.name == "store").unwrap().skipped, 3, "all three of it");

    let quotes = engine.topic::<u64>("quotes").create().unwrap();
    let (handler, told) = notes(&clock, (1, 2));
    quotes.subscribe("store").retry_batch(1, Backoff::NONE).run_handler(move || handler).unwrap();
    let mut watch = quotes.subscribe("watch").poll().unwrap();
    quotes.producer().create().unwrap().publish_batch(3, |index, tick| *tick = index as u64).unwrap();
    assert_eq!(start(&told, &clock).0.attempt, 1);
    while watch.poll(LONG).is_ok_and(|batch| batch.is_some_and(|mut batch| (&mut batch).into_iter().count() > 0)) {}
    assert!(matches!(quotes.closed(), Some(Closed::Failed { consumer, .. }) if consumer == "store"));
    drop(watch);
    let report = engine.shutdown(LONG);
    let topic = report.topics.iter().find(|it| it.name == "quotes").unwrap();
    let store = topic.consumers.iter().find(|it| it.name == "store").unwrap();
    assert_eq!(store.left, 3, "also the event before the one on which it failed");
}

#[test]
fn a_batch_that_fails_each_time_becomes_dead_letters() {
    let engine = Engine::builder().build().unwrap();
    let orders = engine.topic::<Message>("orders").create().unwrap();
    let dead = engine.topic::<Message>("dead").retain(8).create().unwrap();
    let mut letters = dead.subscribe("letters").poll().unwrap();
    let subscribe = orders.subscribe("book").limit(1).retry_batch(2, Backoff::NONE).dead_letter(&dead);
    subscribe.run(|order: &Message, _| if order.value() == b"bad" { Err("a bad order") } else { Ok(()) }).unwrap();
    let mut producer = orders.producer().create().unwrap();
    for order in ["good", "bad", "good"] {
        producer.send(Record::new(order)).unwrap();
    }
    let mut batch = letters.poll(LONG).unwrap().unwrap();
    let (letter, _) = (&mut batch).into_iter().next().unwrap();
    let read = DeadLetter::read(letter).unwrap();
    assert_eq!((read.attempts, &*read.reason, letter.value()), (3, "a bad order", &b"bad"[..]));
    drop(batch);
    drop(letters);
    assert!(engine.shutdown(LONG).is_complete());
}

#[test]
fn a_subscriber_that_waits_for_its_next_attempt_is_cancelled_and_halted_at_once() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let subscribe = |name: &str| {
        let (tell, told) = channel();
        let subscription = ticks.subscribe(name).retry_batch(9, Backoff::fixed(SECOND)).run(move |_, _| {
            tell.send(()).unwrap();
            Err("never")
        });
        (subscription.unwrap(), told)
    };
    let ((cancelled, first), (_halted, second)) = (subscribe("cancelled"), subscribe("halted"));
    ticks.producer().create().unwrap().publish(|tick| *tick = 1).unwrap();
    for told in [&first, &second] {
        told.recv_timeout(LONG).unwrap();
    }
    cancelled.cancel().unwrap();
    assert_eq!(
        first.recv_timeout(LONG),
        Err(RecvTimeoutError::Disconnected),
        "its handler is dropped, without another attempt"
    );
    // A close waits for the next attempt, which the clock never brings; the halt at the end of the limit does not.
    let report = engine.shutdown(Duration::from_millis(50));
    assert!(!report.is_complete());
    assert_eq!(
        second.recv_timeout(LONG),
        Err(RecvTimeoutError::Disconnected),
        "its handler is dropped, without another attempt"
    );
}

#[test]
fn a_handler_is_told_of_each_batch_its_size_and_what_waits_behind_it() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let (all, each) = (notes(&clock, (0, 0)), notes(&clock, (0, 0)));
    let (all, mut parts) = ((all.1, ticks.subscribe("all").limit(2).run_handler(move || all.0)), Some(each.0));
    all.1.unwrap();
    ticks.subscribe("each").limit(2).run_each_handler(move |_| parts.take().unwrap()).unwrap();
    ticks.producer().create().unwrap().publish_batch(5, |index, tick| *tick = index as u64).unwrap();
    for told in [&all.0, &each.1] {
        for (first, size, depth) in [(0, 2, 5), (2, 2, 3), (4, 1, 1)] {
            assert_eq!(start(told, &clock).0, BatchStart::new(0, first, size, depth));
            for event in first..first + size as u64 {
                assert_eq!(next(told, &clock), Note::Event(event));
            }
        }
    }
    assert!(engine.shutdown(LONG).is_complete());
}

/// Panics where a batch begins.
struct Unready(Sender<u64>);

impl Handler<u64> for Unready {
    type Error = &'static str;

    fn on_batch_start(&mut self, batch: BatchStart) {
        assert!(batch.first == 2, "not ready");
    }

    fn on_event(&mut self, event: &u64, _: At) -> Result<(), &'static str> {
        self.0.send(*event).map_err(|_| "nobody listens")
    }
}

#[test]
fn a_panic_where_a_batch_begins_counts_as_a_failure_on_its_first_event() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let (tell, told) = channel();
    ticks.subscribe("store").on_error(OnError::Skip).run_handler(move || Unready(tell)).unwrap();
    ticks.producer().create().unwrap().publish_batch(4, |index, tick| *tick = index as u64).unwrap();
    assert_eq!([told.recv_timeout(LONG), told.recv_timeout(LONG)], [Ok(2), Ok(3)]);
    assert_eq!(engine.metrics().topics[0].consumers[0].skipped, 2);
    assert!(engine.shutdown(LONG).is_complete());
}

#[test]
fn a_retry_of_one_event_and_one_of_its_batch_are_not_accepted_together() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let subscribe = || ticks.subscribe("store").retry_batch(1, Backoff::NONE).on_error(OnError::RetryThenSkip(1));
    let refused = subscribe().run(|_, _| Ok::<_, String>(())).unwrap_err();
    assert!(matches!(&refused, SubscribeError::Contradiction(_)), "{refused}");
    let refused = subscribe().run_each(|_| |_: &u64, _: At| Ok::<_, String>(())).unwrap_err();
    assert!(matches!(&refused, SubscribeError::Contradiction(_)), "{refused}");
    let none = ticks.subscribe("store").retry_batch(0, Backoff::NONE).on_error(OnError::Retry(1));
    none.run(|_, _| Ok::<_, String>(())).unwrap();
}
