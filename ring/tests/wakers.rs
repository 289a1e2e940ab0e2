//! The user's code runs where no lock of the ring is held: wakers that drop, panic and call back, closures that publish.
//! Programs without `unsafe`: Miri runs them too.
#![cfg(not(any(loom, shuttle)))]
#![forbid(unsafe_code)]

mod common;

use common::{quiet_panic, soon};
use slipring_ring::{Builder, Closed, Consumer, Multi, Ring, Sequence, Single, Stage, Waiter};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

/// A waker that does what it was told.
struct Do<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Do<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn waker(work: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Do(work)))
}

fn counting(count: &Arc<AtomicUsize>) -> Waker {
    let count = Arc::clone(count);
    waker(move || _ = count.fetch_add(1, SeqCst))
}

/// Has `task` woken by what `consumer` waits for.
fn await_events<K: slipring_ring::Kind>(consumer: &mut Consumer<u64, K>, waiter: &Waiter, task: &Waker) {
    assert!(consumer.arm(waiter, 0));
    assert!(!waiter.take_or_wake(task, |_| ()));
}

/// A consumer that a task may take with it.
type Held = Arc<Mutex<Option<Consumer<u64, Multi>>>>;

/// A task that, when it is woken, goes and takes its consumer with it.
fn a_task_that_goes(ring: &Ring<u64, Multi>, name: &str) -> (Arc<Waiter>, Held) {
    let held = Arc::new(Mutex::new(Some(ring.consumer(name).unwrap())));
    let (waiter, going) = (Arc::new(Waiter::new()), Arc::clone(&held));
    let task = waker(move || drop(going.lock().unwrap().take()));
    await_events(held.lock().unwrap().as_mut().unwrap(), &waiter, &task);
    (waiter, held)
}

fn two_stages() -> (slipring_ring::MultiProducer<u64>, Ring<u64, Multi>) {
    let mut builder = Builder::multi(4, || 0u64);
    builder.poll("one").poll("two");
    builder.build().unwrap()
}

/// Eviction rings the bells of whoever may sleep, also of another stage's task.
#[test]
fn a_task_that_goes_when_another_stage_is_evicted_blocks_nobody() {
    let (_producer, ring) = two_stages();
    let (_waiter, held) = a_task_that_goes(&ring, "one");
    let evicting = ring.clone();
    assert_eq!(soon("an eviction", move || evicting.evict("two")), Ok(Sequence(0)));
    assert!(held.lock().unwrap().is_none(), "its task was woken");
    assert!(ring.positions().stages.is_empty());
}

#[test]
fn a_task_that_goes_when_it_is_evicted_itself_blocks_nobody() {
    let (_producer, ring) = two_stages();
    let (_waiter, held) = a_task_that_goes(&ring, "one");
    let evicting = ring.clone();
    assert_eq!(soon("an eviction", move || evicting.evict("one")), Ok(Sequence(0)));
    assert!(held.lock().unwrap().is_none());
}

/// All who end a ring; the task sleeps at another stage's bell.
#[test]
fn a_task_that_goes_at_the_end_blocks_nobody() {
    for end in 0..4 {
        let mut builder = Builder::multi(4, || 0u64);
        builder.poll("one").poll(Stage::new("two").after(["one"]));
        let (producer, ring) = builder.build().unwrap();
        let one = ring.consumer("one").unwrap();
        let (_waiter, held) = a_task_that_goes(&ring, "two");
        let ending = ring.clone();
        soon("the end", move || match end {
            0 => drop(producer),
            1 => ending.close(),
            2 => drop(ending.halt()),
            _ => ending.fail("x", "y"),
        });
        assert!(held.lock().unwrap().is_none());
        drop(one);
        assert!(ring.positions().stages.is_empty());
    }
}

/// Who sleeps at a stage's own bell: a task behind it, or one that waits for room or for the end alone.
#[test]
fn a_task_that_goes_when_a_stage_moves_or_leaves_blocks_nobody() {
    for leave in [false, true] {
        let mut builder = Builder::multi(2, || 0u64);
        builder.poll("first").poll(Stage::new("second").after(["first"]));
        let (mut producer, ring) = builder.build().unwrap();
        let mut first = ring.consumer("first").unwrap();
        let (_waiter, held) = a_task_that_goes(&ring, "second");
        producer.publish(|_| ()).unwrap();
        let told = soon("a stage", move || {
            if !leave {
                (&mut first.poll(1).unwrap()).into_iter().for_each(drop);
            }
            drop(first);
            ring.closed()
        });
        assert!(held.lock().unwrap().is_none());
        assert_eq!(told.is_some(), leave, "with `second` gone, `first` may leave");
    }
}

/// Joining and seeking back ring their stage's bell under the lock that makes them one at a time.
#[test]
fn a_task_that_joins_when_it_is_woken_blocks_nobody() {
    let mut builder = Builder::single(2, || 0u64);
    builder.retain(1).poll("reader");
    let (mut producer, ring) = builder.build().unwrap();
    let mut reader = ring.consumer("reader").unwrap();
    producer.publish_batch(1, |_, _| ()).unwrap();
    (&mut reader.poll(1).unwrap()).into_iter().for_each(drop);
    producer.publish_batch(1, |_, _| ()).unwrap();
    producer.publish_batch(1, |_, _| ()).unwrap();
    // Waits for room, at the bell of the reader.
    let (waiter, joined) = (Waiter::new(), Arc::new(Mutex::new(None)));
    assert!(producer.claim_or_arm(1, &waiter, 0).unwrap().is_none());
    let (joining, kept) = (ring.clone(), Arc::clone(&joined));
    assert!(!waiter.take_or_wake(&waker(move || *kept.lock().unwrap() = joining.join("late").ok()), |_| ()));
    // Kept or not, it let go of its gate for a moment.
    let _reader = soon("a seek", move || (reader.seek(Sequence(0)).is_err(), reader));
    assert!(joined.lock().unwrap().is_some());
}

/// One task's panic is its own: everyone else is woken, and whoever rang goes on.
#[test]
fn a_waker_that_panics_costs_nobody_anything() {
    let mut builder = Builder::single(2, || 0u64);
    builder.poll("a").poll("b").poll("c");
    let (mut producer, ring) = builder.build().unwrap();
    let mut consumers = ["a", "b", "c"].map(|name| ring.consumer(name).unwrap());
    let waiters = [0; 3].map(|_| Waiter::new());
    let woken = Arc::new(AtomicUsize::new(0));
    for (at, (consumer, waiter)) in consumers.iter_mut().zip(&waiters).enumerate() {
        let counted = counting(&woken);
        let task = if at == 0 { waker(|| quiet_panic("on purpose")) } else { counted };
        await_events(consumer, waiter, &task);
    }
    assert_eq!(producer.publish(|_| ()), Ok(Sequence(0)));
    assert_eq!(woken.load(SeqCst), 2);
    for (consumer, waiter) in consumers.iter_mut().zip(&waiters) {
        assert!(waiter.take(|_| ()));
        (&mut consumer.poll(1).unwrap()).into_iter().for_each(drop);
        await_events(consumer, waiter, &waker(|| quiet_panic("on purpose")));
    }
    // The end rings bells too, and in a `Drop` at that.
    drop(producer);
    assert_eq!(consumers[2].poll(1).err(), Some(Closed::Finished));
}

/// Forwards what comes in one ring to another one in the closure, both watched by the same waiter.
fn forward(hand: impl Fn(&Waiter, &mut dyn FnMut(usize)) + Send + 'static) {
    soon("a closure that publishes", move || {
        let ring = || {
            let mut builder = Builder::<u64, Single>::single(4, || 0);
            builder.poll("reader");
            let (producer, ring) = builder.build().unwrap();
            (producer, ring.consumer("reader").unwrap())
        };
        let ((mut from, mut inner), (mut to, mut outer)) = (ring(), ring());
        let waiter = Waiter::new();
        assert!(inner.arm(&waiter, 1) && outer.arm(&waiter, 2));
        from.publish(|event| *event = 7).unwrap();
        let mut seen = Vec::new();
        while seen != [1, 2] {
            hand(&waiter, &mut |token| {
                seen.push(token);
                if token == 1 {
                    let value = (&mut inner.poll(1).unwrap()).into_iter().map(|(_, event)| *event).sum();
                    to.publish(|event| *event = value).unwrap();
                    // The waiter itself may be used as well.
                    waiter.wake(2);
                }
            });
        }
        assert_eq!((&mut outer.poll(1).unwrap()).into_iter().map(|(_, event)| *event).sum::<u64>(), 7);
    });
}

#[test]
fn a_closure_that_gets_tokens_may_publish_to_what_it_watches() {
    forward(|waiter, each| assert!(waiter.park(None, each)));
    forward(|waiter, each| _ = waiter.take(each));
    forward(|waiter, each| _ = waiter.take_or_wake(Waker::noop(), each));
}

/// A closure that panics loses none of the tokens that it was not given.
#[test]
fn what_a_panicking_closure_was_not_given_is_rung_again() {
    let waiter = Arc::new(Waiter::new());
    [1, 2, 3].into_iter().for_each(|token| waiter.wake(token));
    let parking = Arc::clone(&waiter);
    let panicked = std::thread::spawn(move || parking.park(None, |_| quiet_panic("on purpose"))).join();
    assert!(panicked.is_err());
    let mut left = Vec::new();
    assert!(waiter.take(|token| left.push(token)));
    assert_eq!(left, [2, 3]);
    assert!(!waiter.take(|_| unreachable!()));
}

/// Two threads that sleep at one waiter: each wake-up is taken by one of them, and the other one is woken by the next.
#[test]
fn each_of_two_threads_that_park_at_one_waiter_is_woken() {
    let rounds = if cfg!(miri) { 5 } else { 500 };
    soon("one of two sleepers", move || {
        for round in 0..rounds {
            let waiter = Arc::new(Waiter::new());
            let sleepers = [0, 1].map(|_| {
                let waiter = Arc::clone(&waiter);
                std::thread::spawn(move || {
                    let mut tokens = Vec::new();
                    waiter.park(None, |token| tokens.push(token));
                    tokens
                })
            });
            // About now both fall asleep. A token that both wake-ups left together goes to one sleeper; so ring until each
            // has had one.
            let mut token = 0;
            while sleepers.iter().any(|sleeper| !sleeper.is_finished()) {
                waiter.wake(token);
                token += 1;
                if round % 2 == 0 {
                    std::thread::yield_now()
                }
                // Once one has gone, one more ring must do.
                if sleepers.iter().any(std::thread::JoinHandle::is_finished) {
                    waiter.wake(usize::MAX);
                    break;
                }
            }
            for sleeper in sleepers {
                assert!(!sleeper.join().unwrap().is_empty());
            }
        }
    });
}
