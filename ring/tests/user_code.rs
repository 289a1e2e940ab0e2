//! Code of the user's that is no handler and runs in the ring's midst: waiting strategies, tasks' wakers, factories. It
//! may panic, and it may call the ring.
#![cfg(not(any(loom, shuttle)))]

use slipring_ring::{Builder, Closed, Ending, Idle, Multi, Ring, Stage, Wait, WaitStrategy, Waiter};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Waits like any other, until it is told to panic.
struct Harmful(Arc<AtomicBool>);

impl WaitStrategy for Harmful {
    fn idle(&self, _: u32) -> Idle {
        assert!(!self.0.load(SeqCst), "harm");
        std::thread::yield_now();
        Idle::Look
    }
}

fn is_failed(ring: &Ring<u64, Multi>, stage: &str, cause: &str) {
    let until = std::time::Instant::now() + LONG;
    while ring.closed().is_none() && std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!(ring.closed(), Some(Closed::Failed { stage: stage.to_owned(), cause: cause.to_owned() }));
    let report = ring.shutdown(LONG);
    let ending = report.stages.iter().find(|found| found.name == stage).and_then(|found| found.ending.clone());
    assert_eq!(ending, Some(Ending::Failed(cause.to_owned())), "{report}");
}

/// A strategy that panicked once took its stage's gate away in silence: the ring stayed open, and whoever published
/// after that published for nobody.
#[test]
fn a_waiting_strategy_that_panics_fails_the_ring_and_is_named() {
    let harm = Arc::new(AtomicBool::new(false));
    let wait = Wait::custom(Harmful(Arc::clone(&harm)));
    let mut builder = Builder::multi(8, u64::default);
    builder.run(Stage::new("tape").wait(wait.clone()), || |_: &u64, _, _| Ok::<_, Infallible>(()));
    let (mut producer, ring) = builder.build().unwrap();
    producer.publish(|event| *event = 1).unwrap();
    harm.store(true, SeqCst);
    is_failed(&ring, "tape", "the waiting strategy panicked: harm");
    assert!(producer.publish(|event| *event = 2).is_err());

    harm.store(false, SeqCst);
    let mut builder = Builder::multi(8, u64::default);
    let handler = |_| |_: &u64, _, _| Ok::<_, Infallible>(());
    builder.run_workers(Stage::new("crew").wait(wait), 2, handler);
    let (mut producer, ring) = builder.build().unwrap();
    producer.publish(|event| *event = 1).unwrap();
    harm.store(true, SeqCst);
    is_failed(&ring, "crew", "the waiting strategy panicked: harm");
}

struct Calls<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Calls<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn waker(call: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Calls(call)))
}

/// On a stage's thread, which moves its gate and wakes whoever waits for that.
#[test]
fn a_waker_that_panics_fails_the_ring_is_named_and_keeps_no_other_from_being_woken() {
    let mut builder = Builder::multi(1, u64::default);
    let go = Arc::new(AtomicBool::new(false));
    let gone = Arc::clone(&go);
    builder.run("tape", move || {
        move |_: &u64, _, _| {
            while !gone.load(SeqCst) {
                std::thread::yield_now();
            }
            Ok::<_, Infallible>(())
        }
    });
    builder.poll(Stage::new("behind").after(["tape"]));
    builder.poll(Stage::new("beside").after(["tape"]));
    let (mut producer, ring) = builder.build().unwrap();
    let (mut behind, mut beside) = (ring.consumer("behind").unwrap(), ring.consumer("beside").unwrap());
    let woken = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&woken);
    let (first, second) = (Waiter::new(), Waiter::new());
    assert!(behind.arm(&first, 0) && beside.arm(&second, 0));
    assert!(!first.take_or_wake(&waker(|| panic!("harm")), |_| ()));
    assert!(!second.take_or_wake(&waker(move || told.store(true, SeqCst)), |_| ()));
    producer.publish(|event| *event = 1).unwrap();
    go.store(true, SeqCst);
    is_failed(&ring, "tape", "a task's waker panicked: harm");
    assert!(woken.load(SeqCst));
}

/// A task may run, and leave the ring, on the very thread that wakes it.
#[test]
fn a_waker_may_join_and_leave_the_ring_that_wakes_it() {
    for end in [|ring: &Ring<u64, Multi>| ring.close(), |ring: &Ring<u64, Multi>| drop(ring.evict("tape"))] {
        let mut builder = Builder::multi(8, u64::default);
        builder.poll("tape");
        let (_producer, ring) = builder.build().unwrap();
        let mut tape = ring.consumer("tape").unwrap();
        let waiter = Arc::new(Waiter::new());
        assert!(tape.arm(&waiter, 0));
        let (held, again, own) = (Mutex::new(Some(tape)), ring.clone(), Arc::clone(&waiter));
        let (tell, told) = std::sync::mpsc::channel();
        let leave = waker(move || {
            drop(held.lock().unwrap().take());
            let _ = again.join("newcomer");
            own.take(|_| own.wake(1));
            tell.send(again.positions().stages.len()).unwrap();
        });
        assert!(!waiter.take_or_wake(&leave, |_| ()));
        std::thread::spawn(move || end(&ring));
        assert_eq!(told.recv_timeout(LONG), Ok(0));
    }
}

#[test]
fn the_tokens_of_a_waiter_are_handed_out_while_it_can_be_armed_and_woken() {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let waiter = Waiter::new();
        waiter.wake(7);
        let mut seen = Vec::new();
        assert!(waiter.park(None, |token| {
            seen.push(token);
            waiter.wake(token + 1);
        }));
        assert!(waiter.take(|token| seen.push(token)));
        tell.send(seen).unwrap();
    });
    assert_eq!(told.recv_timeout(LONG).unwrap(), [7, 8]);
}
