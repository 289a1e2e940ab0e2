//! Waiters that their owner arms: one thread that sleeps on many rings, and tasks. A lost wake-up is a deadlock here.
//!
//! As in `wake`, no producer or consumer is dropped before all threads have what they wait for, because a drop rings
//! bells.

use crate::support::*;
use loom::sync::{Condvar, Mutex};
use slipring_ring::{
    Builder, ClaimError, Closed, Consumer, Kind, MultiProducer, Producer, Ring, Sequence, Single, SingleProducer,
    Stage, Waiter, Worker,
};
use std::sync::Arc;
use std::task::{Wake, Waker};

/// Runs the protocol of [`Waiter`] until `want` events have come or all rings have ended. Returns the count of events.
fn read_over<K: Kind>(consumers: &mut [Consumer<u64, K>], want: u64) -> u64 {
    let waiter = Waiter::new();
    let mut ready: Vec<usize> = (0..consumers.len()).collect();
    let (mut read, mut open) = (0, consumers.len());
    while read < want && open > 0 {
        while let Some(token) = ready.pop() {
            let consumer = &mut consumers[token];
            let came = match consumer.poll(1) {
                Ok(mut batch) => (&mut batch).into_iter().count() as u64,
                Err(_) => {
                    open -= 1;
                    continue;
                }
            };
            read += came;
            if came > 0 || !consumer.arm(&waiter, token) {
                ready.push(token);
            }
        }
        if read < want && open > 0 {
            waiter.park(None, |token| ready.push(token));
        }
    }
    read
}

/// A task of a small executor, which polls it again after each wake-up.
#[derive(Default)]
struct Task {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

impl Task {
    /// Polls until the result is `Some`, and sleeps after each other poll until the task is woken.
    fn run<T>(mut poll: impl FnMut(&Waker) -> Option<T>) -> T {
        let task = Arc::new(Self::default());
        let waker = Waker::from(Arc::clone(&task));
        loop {
            if let Some(done) = poll(&waker) {
                return done;
            }
            let mut woken = task.woken.lock().unwrap();
            while !*woken {
                woken = task.changed.wait(woken).unwrap();
            }
            *woken = false;
        }
    }
}

/// One waiter is armed on two rings, and an event is published in each.
/// Allowed: each event is found at a look, or wakes the waiter. Forbidden: the waiter sleeps while a ring has an event.
#[test]
fn one_thread_over_two_rings_is_woken_by_each() {
    model_of_sleep(Mixed(4, None), "one waiter is woken by whichever of two rings has something", || {
        let rings: [(SingleProducer<u64>, _); 2] = [(); 2].map(|()| single(1, &[("reader", &[])]));
        let mut readers = rings.each_ref().map(|(_, ring)| ring.consumer("reader").unwrap());
        let reading = thread::spawn(move || (read_over(&mut readers, 2), readers));
        let _alive = rings.map(|(mut producer, ring)| {
            put(&mut producer, 1).unwrap();
            (producer, ring)
        });
        assert_eq!(reading.join().unwrap().0, 2);
    });
}

/// A waiter is armed on a ring whose only producer publishes and is dropped.
/// Allowed: the event, then the end. Forbidden: the waiter sleeps on.
#[test]
fn an_armed_waiter_hears_of_the_end() {
    model_of_sleep(Within(3), "the end wakes an armed waiter", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        let mut readers = [ring.consumer("reader").unwrap()];
        let writing = thread::spawn(move || put(&mut producer, 1).is_ok());
        assert_eq!(read_over(&mut readers, u64::MAX), 1);
        assert!(writing.join().unwrap());
    });
}

fn hears_of(end: fn(&Ring<u64, Single>)) {
    let (_producer, ring) = single(1, &[("reader", &[])]);
    let mut reader = ring.consumer("reader").unwrap();
    let ending = thread::spawn(move || {
        end(&ring);
        ring
    });
    let waiter = Waiter::new();
    if reader.arm_for_end(&waiter, 0) {
        waiter.park(None, |_| ());
    }
    assert!(reader.poll(1).is_err());
    ending.join().unwrap();
}

/// A waiter is armed for the end only, and the ring is closed.
/// Allowed: arming reports the end, or the end wakes the waiter. Forbidden: the waiter sleeps on.
#[test]
fn who_wants_no_events_hears_of_the_end() {
    model_of_sleep(All, "the end wakes a waiter that is armed for nothing else", || hears_of(|ring| ring.close()));
}

/// A waiter of a thread without a consumer is armed for the end, and the ring is closed.
/// Allowed: arming reports the end, or the end wakes the waiter. Forbidden: the waiter sleeps on.
#[test]
fn who_has_no_consumer_hears_of_the_end() {
    model_of_sleep(All, "the end wakes a waiter that has no consumer", || {
        let (_producer, ring) = single(1, &[]);
        let other = ring.clone();
        let ending = thread::spawn(move || other.close());
        let waiter = Waiter::new();
        if ring.arm_for_end(&waiter, 0) {
            waiter.park(None, |_| ());
        }
        assert!(ring.closed().is_some());
        ending.join().unwrap();
    });
}

/// A waiter is armed for the end only, and its consumer is evicted.
/// Allowed: arming reports the eviction, or the eviction wakes the waiter. Forbidden: the waiter sleeps on.
#[test]
fn who_wants_no_events_hears_of_its_eviction() {
    model_of_sleep(All, "eviction wakes a waiter that is armed for the end alone", || {
        hears_of(|ring| _ = ring.evict("reader").unwrap());
    });
}

/// A worker arms a waiter instead of waiting by itself, and an event is published.
/// Allowed: the worker finds the event at a look, or is woken. Forbidden: it sleeps on.
#[test]
fn an_armed_worker_is_woken_by_a_publish() {
    model_of_sleep(Mixed(4, None), "a publish wakes an armed worker", || {
        let mut builder = Builder::single(1, || 0u64);
        builder.workers(Stage::new("pool").wait(park()), 1);
        let (mut producer, ring) = builder.build().unwrap();
        let mut worker = ring.worker("pool").unwrap();
        let working = thread::spawn(move || (take_armed(&mut worker), worker));
        put(&mut producer, 1).unwrap();
        assert_eq!(working.join().unwrap().0, Some(()));
    });
}

/// Takes one event, and arms and sleeps on a waiter until there is one. `None` if the ring has ended.
fn take_armed<K: Kind>(worker: &mut Worker<u64, K>) -> Option<()> {
    let waiter = Waiter::new();
    loop {
        let taken = worker.take(1).ok()?;
        if !taken.is_empty() {
            taken.for_each(|at, event| assert_eq!(*event, value_of(at)));
            return Some(());
        }
        drop(taken);
        if worker.arm(&waiter, 0) {
            waiter.park(None, |_| ());
        }
    }
}

/// Arms a worker that is ordered after a stage, with one event published. The stage's consumer does `then`. Returns the
/// result of the worker's take.
fn behind_a_stage(then: fn(Consumer<u64, Single>) -> Option<Consumer<u64, Single>>) -> Option<()> {
    let mut builder = Builder::single(1, || 0u64);
    builder.poll(Stage::new("check").wait(park()));
    builder.workers(Stage::new("pool").after(["check"]).wait(park()), 1);
    let (mut producer, ring) = builder.build().unwrap();
    put(&mut producer, 1).unwrap();
    let check = ring.consumer("check").unwrap();
    let mut worker = ring.worker("pool").unwrap();
    let working = thread::spawn(move || (take_armed(&mut worker), worker));
    let _check = then(check);
    working.join().unwrap().0
}

/// An armed worker is ordered after a stage that passes its event.
/// Allowed: the worker finds the event at a look, or is woken. Forbidden: it sleeps on at a bell that is never rung.
#[test]
fn an_armed_worker_is_woken_by_the_stage_before() {
    model_of_sleep(Mixed(3, None), "the stage before wakes an armed worker", || {
        let told = behind_a_stage(|mut check| {
            assert_eq!(get(&mut check, 1), 1);
            Some(check)
        });
        assert_eq!(told, Some(()));
    });
}

/// An armed worker is ordered after a stage that leaves for good, with the event unread.
/// Allowed: the ring fails, and the worker gets the failure. Forbidden: it sleeps on at a bell that is never rung.
#[test]
fn an_armed_worker_is_told_that_the_stage_before_has_left() {
    model_of_sleep(Within(3), "a stage that leaves for good wakes an armed worker behind it", || {
        let told = behind_a_stage(|check| {
            drop(check);
            None
        });
        assert_eq!(told, None);
    });
}

/// A task reads, and an event is published.
/// Allowed: it finds the event when it is polled, or is woken and polled again. Forbidden: it is never woken.
#[test]
fn a_reading_task_is_woken_by_a_publish() {
    model_of_sleep(All, "a publish wakes a task", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        let mut reader = ring.consumer("reader").unwrap();
        let reading = thread::spawn(move || {
            let waiter = Waiter::new();
            let mut armed = false;
            let count = Task::run(|task| {
                loop {
                    if armed && !waiter.take_or_wake(task, |_| armed = false) {
                        return None;
                    }
                    armed = false;
                    let count = get(&mut reader, 1);
                    if count > 0 {
                        return Some(count);
                    }
                    armed = reader.arm(&waiter, 0);
                }
            });
            (count, reader)
        });
        put(&mut producer, 1).unwrap();
        assert_eq!(reading.join().unwrap().0, 1);
    });
}

/// Claims one slot as a task, which is polled until there is room.
fn claim_as_a_task<K: Kind>(producer: &mut Producer<u64, K>) -> Result<(), ClaimError> {
    let waiter = Waiter::new();
    let mut armed = false;
    Task::run(|task| {
        loop {
            if armed && !waiter.take_or_wake(task, |_| ()) {
                return None;
            }
            armed = false;
            match producer.claim_or_arm(1, &waiter, 0) {
                Ok(None) => armed = true,
                Ok(Some(claim)) => return Some(Ok(drop(fill(claim)))),
                Err(refused) => return Some(Err(refused)),
            }
        }
    })
}

/// A task waits for room on a full ring with two readers. Which reader is slowest changes while it is armed.
/// Allowed: it gets room once both have read. Forbidden: it is armed at the bell of the reader that has read already.
#[test]
fn a_task_that_wants_room_is_woken_whichever_reader_is_last() {
    model_of_sleep(Within(2), "a task that wants room is woken by whichever reader is last", || {
        let (mut producer, ring) = single(1, &[("left", &[]), ("right", &[])]);
        put(&mut producer, 1).unwrap();
        let readers = ["left", "right"].map(|name| reading(ring.consumer(name).unwrap(), 1, 1));
        claim_as_a_task(&mut producer).unwrap();
        assert_eq!(readers.map(count), [1, 1]);
    });
}

/// A task waits for room that another producer's claim occupies, on a ring without stages.
/// Allowed: it gets room once that claim is committed. Forbidden: it is never woken.
#[test]
fn a_task_at_the_floor_is_woken_by_a_commit() {
    model_of_sleep(Mixed(4, None), "a commit wakes a task that waits for the floor", || {
        let (mut one, _ring): (MultiProducer<u64>, _) = multi(1, &[]);
        let mut two = one.clone();
        let writing = thread::spawn(move || (put(&mut one, 1).is_ok(), one));
        claim_as_a_task(&mut two).unwrap();
        writing.join().unwrap();
    });
}

/// A task waits for room on a full ring, and the ring fails.
/// Allowed: it gets the failure. Forbidden: it is never woken.
#[test]
fn a_task_that_wants_room_hears_of_a_failure() {
    model_of_sleep(All, "a failure wakes a task that wants room", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        put(&mut producer, 1).unwrap();
        let failing = thread::spawn(move || {
            ring.fail("reader", "no paper");
            ring
        });
        let refused = claim_as_a_task(&mut producer);
        assert!(matches!(refused, Err(ClaimError::Closed(Closed::Failed { stage, .. })) if stage == "reader"));
        failing.join().unwrap();
    });
}

/// Arms a waiter for room and sleeps until there is some, as a thread that waits for several things, and then claims one
/// slot.
fn claim_what_was_free<K: Kind>(producer: &mut Producer<u64, K>) -> Result<(), ClaimError> {
    let waiter = Waiter::new();
    while producer.arm_for_room(1, &waiter, 0)? {
        waiter.park(None, |_| ());
    }
    producer.try_claim(1).map(|claim| drop(fill(claim)))
}

/// A waiter is armed for room on a full ring with two readers. Which reader is slowest changes while it is armed.
/// Allowed: it finds room once both have read. Forbidden: it is armed at the bell of the reader that has read already.
#[test]
fn who_waits_for_room_is_woken_whichever_reader_is_last() {
    model_of_sleep(Within(2), "a waiter for room is woken by whichever reader is last", || {
        let (mut producer, ring) = single(1, &[("left", &[]), ("right", &[])]);
        put(&mut producer, 1).unwrap();
        let readers = ["left", "right"].map(|name| reading(ring.consumer(name).unwrap(), 1, 1));
        claim_what_was_free(&mut producer).unwrap();
        assert_eq!(readers.map(count), [1, 1]);
    });
}

/// A waiter is armed for room that another producer's claim occupies, on a ring without stages.
/// Allowed: it finds room once that claim is committed. Forbidden: it is never woken.
#[test]
fn who_waits_for_room_at_the_floor_is_woken_by_a_commit() {
    model_of_sleep(Mixed(1, Some(2)), "a commit wakes a waiter for room at the floor", || {
        let (mut one, _ring): (MultiProducer<u64>, _) = multi(1, &[]);
        let mut two = one.clone();
        let writing = thread::spawn(move || (put(&mut one, 1).is_ok(), one));
        // The other producer takes the room at most once.
        if claim_what_was_free(&mut two) == Err(ClaimError::Full) {
            claim_what_was_free(&mut two).unwrap();
        }
        writing.join().unwrap();
    });
}

/// A waiter is armed for room on a full ring, and the ring fails.
/// Allowed: it gets the failure. Forbidden: it is never woken.
#[test]
fn who_waits_for_room_hears_of_a_failure() {
    model_of_sleep(All, "a failure wakes a waiter for room", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        put(&mut producer, 1).unwrap();
        let failing = thread::spawn(move || {
            ring.fail("reader", "no paper");
            ring
        });
        let refused = claim_what_was_free(&mut producer);
        assert!(matches!(refused, Err(ClaimError::Closed(Closed::Failed { stage, .. })) if stage == "reader"));
        failing.join().unwrap();
    });
}

/// A reader whose waiter is armed for the end only seeks back; then the ring ends.
/// Allowed: the seek or the end wakes the waiter. Forbidden: it sleeps on at a bell that is never rung.
#[test]
fn who_wants_no_events_hears_of_the_end_after_a_seek_back() {
    model_of_sleep(Within(3), "a seek back wakes a waiter that is armed for the end alone", || {
        let mut builder = Builder::single(2, || 0);
        builder.retain(1);
        let (mut producer, ring) = declare(builder, &[("reader", &[])]).build().unwrap();
        put(&mut producer, 1).unwrap();
        let mut reader = ring.consumer("reader").unwrap();
        assert_eq!(get(&mut reader, 1), 1);
        let waiter = Waiter::new();
        assert!(reader.arm_for_end(&waiter, 1));
        let ending = thread::spawn(move || {
            ring.close();
            ring
        });
        let _ = reader.seek(Sequence(0));
        waiter.park(None, |_| ());
        if reader.arm_for_end(&waiter, 1) {
            waiter.park(None, |_| ());
        }
        let _ring = ending.join().unwrap();
    });
}
