//! How often whoever waits for a receipt is woken.

use slipring::journal::Options;
use slipring::journal::simulated::{Fault, SimulatedDisk};
use slipring::{Engine, Level, Topic, producer::WaitError};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::bell::{Bell, bell};

const LONG: Duration = Duration::from_secs(60);

fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

fn ticks(disk: &SimulatedDisk) -> (Engine, Topic<u64>) {
    let options = Options { segment_size: 1 << 20, ..Options::default() };
    let engine = Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").partitions(2).durable().create().unwrap();
    (engine, ticks)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_frame_wakes_the_receipts_that_it_has_reached_and_no_others() {
    let disk = SimulatedDisk::new();
    let (_engine, ticks) = ticks(&disk);
    let mut producer = ticks.producer().create().unwrap();
    producer.publish(|tick| *tick = 0).unwrap().wait(Level::Durable).unwrap();
    disk.hold_syncs(true);
    let receipts: Vec<_> = (0..200).map(|tick| producer.publish_to(0, |event| *event = tick).unwrap()).collect();
    let bells: Vec<(Arc<Bell>, Waker)> = (0..200).map(|_| bell()).collect();
    let mut waits: Vec<_> = receipts.iter().map(|receipt| Some(receipt.reach(Level::Durable))).collect();
    let poll_all = |waits: &mut Vec<Option<_>>| {
        for (wait, (_, waker)) in waits.iter_mut().zip(&bells) {
            assert!(wait.as_mut().is_none_or(|wait| poll(wait, waker).is_pending()), "no sync has ended");
        }
    };
    poll_all(&mut waits);
    // Frames of another partition, and of this one: none of them makes durable what the others wait for.
    for frame in 0..20 {
        producer.publish_to(frame % 2, |event| *event = 7).unwrap().wait(Level::Written).unwrap();
    }
    assert_eq!(bells.iter().map(|(bell, _)| bell.rung()).sum::<usize>(), 0, "wake-ups for nothing");
    // Polled again, by whatever else its task waits for, a receipt keeps its one place; dropped, it has none.
    poll_all(&mut waits);
    for wait in waits.iter_mut().skip(100) {
        *wait = None;
    }
    assert!(bells[100..].iter().all(|(bell, _)| Arc::strong_count(bell) == 2), "its waker is let go of");
    disk.hold_syncs(false);
    for (wait, (bell, waker)) in waits.iter_mut().zip(&bells).take(100) {
        until("it is durable", || bell.rung() > 0);
        assert!(matches!(poll(wait.as_mut().unwrap(), waker), Poll::Ready(Ok(Level::Durable))));
    }
    assert!(bells[..100].iter().all(|(bell, _)| bell.rung() == 1), "each is woken once");
    assert!(bells[100..].iter().all(|(bell, _)| bell.rung() == 0), "a receipt that was dropped is not woken");
}

/// Writes down the order in which tasks are woken.
struct Ordered(usize, Arc<Mutex<Vec<usize>>>);

impl Wake for Ordered {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[test]
fn receipts_are_woken_in_the_order_of_their_offsets_whatever_the_order_of_the_waits() {
    let disk = SimulatedDisk::new();
    let (_engine, ticks) = ticks(&disk);
    let mut producer = ticks.producer().create().unwrap();
    producer.publish(|tick| *tick = 0).unwrap().wait(Level::Durable).unwrap();
    disk.hold_syncs(true);
    let receipts: Vec<_> = (0..50).map(|tick| producer.publish_to(1, |event| *event = tick).unwrap()).collect();
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    let mut waits: Vec<_> = receipts.iter().map(|receipt| receipt.reach(Level::Durable)).collect();
    for (number, wait) in waits.iter_mut().enumerate().rev() {
        let waker = Waker::from(Arc::new(Ordered(number, Arc::clone(&order))));
        assert!(poll(wait, &waker).is_pending());
    }
    disk.hold_syncs(false);
    until("all are durable", || order.lock().unwrap().len() == 50);
    assert!(order.lock().unwrap().is_sorted());
}

#[test]
fn a_journal_that_fails_wakes_all_that_wait_for_it_once() {
    let disk = SimulatedDisk::new();
    let (_engine, ticks) = ticks(&disk);
    let mut producer = ticks.producer().create().unwrap();
    producer.publish(|tick| *tick = 0).unwrap().wait(Level::Durable).unwrap();
    disk.hold_syncs(true);
    let receipts: Vec<_> = (0..20).map(|tick| producer.publish_to(tick % 2, |_| ()).unwrap()).collect();
    let mut waits: Vec<_> = receipts.iter().map(|receipt| (receipt.reach(Level::Durable), bell())).collect();
    for (wait, (_, waker)) in &mut waits {
        assert!(poll(wait, waker).is_pending());
    }
    let thread = std::thread::spawn({
        let receipt = receipts[0];
        move || receipt.wait(Level::Durable)
    });
    disk.fail_after(1, Fault::Io);
    disk.hold_syncs(false);
    for (wait, (bell, waker)) in &mut waits {
        until("it is told", || bell.rung() > 0);
        // The sync that was under way may have succeeded.
        assert!(matches!(poll(wait, waker), Poll::Ready(Ok(Level::Durable) | Err(WaitError::Unknown { .. }))));
        assert_eq!(bell.rung(), 1);
    }
    assert!(matches!(thread.join().unwrap(), Ok(Level::Durable) | Err(WaitError::Unknown { .. })));
    // And later ones, at once.
    until("the journal fails", || {
        // A file that is made ahead of need may have taken the fault.
        disk.fail_after(1, Fault::Io);
        producer.publish(|_| ()).is_err()
    });
    let late = receipts[19];
    let last = late.wait(Level::Durable);
    assert!(matches!(last, Ok(Level::Durable) | Err(WaitError::Unknown { .. })));
}
