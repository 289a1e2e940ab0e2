//! Managed members that handle a batch again as a whole.

use super::until;
use slipring::{
    Engine, Message, Record,
    clock::ManualClock,
    dead_letter::DeadLetter,
    group::{Commit, Delivery, GroupError, MemberEnd},
    journal::simulated::SimulatedDisk,
    subscriber::{At, Backoff, BatchStart, Handler, OnError},
};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(120);

/// Tells of each batch and event, and fails on the event at one offset.
struct Notes {
    tell: Sender<Result<u64, BatchStart>>,
    fails_at: (u64, u32),
}

impl Handler<u64> for Notes {
    type Error = &'static str;

    fn on_batch_start(&mut self, batch: BatchStart) {
        self.tell.send(Err(batch)).unwrap();
    }

    fn on_event(&mut self, event: &u64, at: At) -> Result<(), &'static str> {
        if at.offset == self.fails_at.0 && self.fails_at.1 > 0 {
            self.fails_at.1 -= 1;
            return Err("no room on the disk");
        }
        self.tell.send(Ok(*event)).unwrap();
        Ok(())
    }
}

/// What comes next, while the clock goes on.
fn next<T>(told: &Receiver<T>, clock: &ManualClock) -> T {
    for _ in 0..20_000 {
        if let Ok(note) = told.recv_timeout(Duration::from_millis(20)) {
            return note;
        }
        clock.advance(SECOND);
    }
    panic!("nothing more came");
}

/// The member's deadline is shorter than the delay: waiting for the next attempt does not fence it.
#[test]
fn a_members_failed_batch_is_handled_again_before_any_of_it_is_committed() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let (tell, told) = channel();
    let group = ticks.group("store").deadline(59 * SECOND).retry_batch(2, Backoff::fixed(60 * SECOND));
    let run = group.run_handler(Notes { tell, fails_at: (1, 2) }).unwrap();
    ticks.producer().create().unwrap().publish_batch(3, |index, tick| *tick = index as u64).unwrap();
    let committed = || engine.groups()[0].partitions[0].committed.unwrap_or(0);
    for attempt in 1..=3 {
        let start = next(&told, &clock).unwrap_err();
        assert_eq!((start.attempt, start.first, start.size, start.depth), (attempt, 0, 3, 3));
        // The third attempt, which succeeds, may have committed by now.
        assert!(attempt == 3 || committed() == 0, "before attempt {attempt}");
        assert_eq!(next(&told, &clock), Ok(0));
    }
    assert_eq!([next(&told, &clock), next(&told, &clock)], [Ok(1), Ok(2)]);
    assert!(engine.shutdown(LONG).is_complete());
    assert_eq!((run.wait(), committed()), (MemberEnd::Finished, 3));
}

#[test]
fn what_fails_each_time_ends_the_member_or_is_passed_over_as_a_whole() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").retain(8).create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    let (tell, told) = channel();
    let run = |policy, tell: &Sender<_>| {
        let group = ticks.group("store").retry_batch(1, Backoff::NONE).on_error(policy);
        group.run_handler(Notes { tell: tell.clone(), fails_at: (1, 2) }).unwrap()
    };
    let stops = run(OnError::Stop, &tell);
    producer.publish_batch(3, |index, tick| *tick = index as u64).unwrap();
    assert!(matches!(stops.wait(), MemberEnd::Failed { offset: 1, .. }));
    assert_eq!(engine.groups()[0].partitions[0].committed.unwrap_or(0), 0, "nothing of the batch");
    let _skips = run(OnError::Skip, &tell);
    // The next event comes only then, so that it is not in the batch.
    until(|| engine.metrics().topics[0].consumers.iter().map(|it| it.skipped).sum::<u64>() == 3);
    producer.publish(|tick| *tick = 7).unwrap();
    while told.recv_timeout(LONG).unwrap() != Ok(7) {}
}

#[test]
fn a_batch_becomes_dead_letters_and_a_member_that_waits_is_stopped_at_once() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let orders = engine.topic::<Message>("orders").create().unwrap();
    let dead = engine.topic::<Message>("dead").retain(8).create().unwrap();
    let mut letters = dead.subscribe("letters").poll().unwrap();
    let group = orders.group("book").limit(1).retry_batch(2, Backoff::NONE).dead_letter(&dead);
    let run = group.run(|_, _| Err("a bad order")).unwrap();
    orders.producer().create().unwrap().send(Record::new("bad")).unwrap();
    let mut batch = letters.poll(LONG).unwrap().unwrap();
    let (letter, _) = (&mut batch).into_iter().next().unwrap();
    assert_eq!(DeadLetter::read(letter).unwrap().attempts, 3);
    drop(batch);
    run.stop();
    assert_eq!(run.wait(), MemberEnd::Stopped);

    let (tell, told) = channel();
    let group = orders.group("waits").retry_batch(2, Backoff::fixed(SECOND));
    let run = group.run(move |_, _| tell.send(()).map_err(|_| "gone").and(Err("never"))).unwrap();
    orders.producer().create().unwrap().send(Record::new("bad")).unwrap();
    told.recv_timeout(LONG).unwrap();
    // The clock stands, so the second attempt never comes.
    run.stop();
    assert_eq!(run.wait_for(LONG), Some(MemberEnd::Stopped));
    assert!(told.try_recv().is_err());
}

#[test]
fn a_transaction_has_the_outputs_of_the_last_attempt_alone() {
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap();
    let orders = engine.topic::<u64>("orders").durable().create().unwrap();
    let sums = engine.topic::<u64>("sums").durable().create().unwrap();
    let (out, mut failures) = (sums.clone(), 2);
    let group = orders.group("add").delivery(Delivery::ExactlyOnce).retry_batch(2, Backoff::NONE);
    group
        .run_into(move |order, at, transaction| {
            if at.offset == 2 && failures > 0 {
                failures -= 1;
                return Err("not yet".to_owned());
            }
            transaction.publish(&out, |sum| *sum = order + 10).map_err(|refused| refused.to_string())
        })
        .unwrap();
    orders.producer().create().unwrap().publish_batch(3, |index, order| *order = index as u64).unwrap();
    let mut tape = sums.replay("tape").open().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        tape.read(LONG, |sum, _| seen.push(*sum)).unwrap();
    }
    assert_eq!(seen, [10, 11, 12]);
    drop(tape);
    assert!(engine.shutdown(LONG).is_complete());
}

#[test]
fn a_batch_becomes_dead_letters_together_with_its_commits() {
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap();
    let orders = engine.topic::<Message>("orders").durable().create().unwrap();
    let dead = engine.topic::<Message>("dead").durable().create().unwrap();
    let group = orders.group("add").delivery(Delivery::ExactlyOnce).retry_batch(1, Backoff::NONE).dead_letter(&dead);
    let (tell, told) = channel();
    let run = group.run_into(move |order: &Message, at, _| match order.value() {
        b"bad" => Err("a bad order"),
        _ => tell.send(at.offset).map_err(|_| "nobody listens"),
    });
    let mut producer = orders.producer().create().unwrap();
    producer.send(Record::new("bad")).unwrap();
    let mut tape = dead.replay("tape").open().unwrap();
    let mut letters = Vec::new();
    while letters.is_empty() {
        let put = |letter: &Message, _| letters.push(DeadLetter::read(letter).unwrap().attempts);
        tape.read(LONG, put).unwrap();
    }
    assert_eq!(letters, [2]);
    producer.send(Record::new("good")).unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok(1), "the member goes on behind it");
    drop(tape);
    assert!(engine.shutdown(LONG).is_complete());
    assert_eq!(run.unwrap().wait(), MemberEnd::Finished);
    assert_eq!(engine.groups()[0].partitions[0].committed, Some(2));
}

#[test]
fn a_member_that_is_stopped_in_a_batch_commits_nothing_of_it() {
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap();
    let orders = engine.topic::<u64>("orders").durable().create().unwrap();
    let (tell, told) = channel();
    let (go_on, wait) = channel();
    let handle = move |tell: &Sender<()>| {
        tell.send(()).unwrap();
        wait.recv().map_err(|_| "nobody waits")
    };
    let group = orders.group("add").retry_batch(1, Backoff::NONE);
    let run = group.run_into(move |_, _, _| handle(&tell)).unwrap();
    orders.producer().create().unwrap().publish_batch(3, |index, order| *order = index as u64).unwrap();
    told.recv_timeout(LONG).unwrap();
    run.stop();
    go_on.send(()).unwrap();
    assert_eq!(run.wait_for(LONG), Some(MemberEnd::Stopped));
    assert_eq!(engine.groups()[0].partitions[0].committed.unwrap_or(0), 0);
}

#[test]
fn what_contradicts_a_retry_of_whole_batches_is_refused() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let group = || ticks.group("store").retry_batch(1, Backoff::NONE);
    for group in [group().on_error(OnError::Retry(1)), group().commit(Commit::AtMostOnce)] {
        let refused = group.run(|_, _| Ok::<_, String>(())).unwrap_err();
        assert!(matches!(&refused, GroupError::Contradiction(_)), "{refused}");
    }
}
