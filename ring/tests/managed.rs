//! Managed stages: threads that poll, call a handler and answer for it; and workers that share a stage.
#![cfg(not(any(loom, shuttle)))]

mod common;

use common::{LONG, STARTS, at_once, quiet_panic, soon};
use slipring_ring::{
    Batch, BuildError, Builder, ClaimError, Closed, ConsumerMut, Ending, Exclusive, Handler, Kind, Multi, OnError,
    Ring, Sequence, Single, Stage, StageError, pin,
};
use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

type Seen = Arc<Mutex<Vec<(u64, bool)>>>;

/// Holds handlers at their first event until the rest is published, and notes what else they were told.
#[derive(Clone)]
struct Held {
    seen: Seen,
    started: Arc<Barrier>,
    go: Arc<Barrier>,
}

impl Held {
    fn new(handlers: usize) -> Self {
        let barrier = || Arc::new(Barrier::new(handlers + 1));
        Self { seen: Seen::default(), started: barrier(), go: barrier() }
    }

    fn hold(&self) {
        self.started.wait();
        self.go.wait();
    }

    fn handler(self) -> impl FnMut(&u64, Sequence, bool) -> Result<(), Infallible> + Send + 'static {
        move |event, _, end| {
            if *event == 0 {
                self.hold();
            }
            self.seen.lock().unwrap().push((*event, end));
            Ok(())
        }
    }
}

fn ending<K: Kind>(ring: &Ring<u64, K>, name: &str) -> Option<Ending> {
    ring.shutdown(LONG).stages.into_iter().find(|stage| stage.name == name).and_then(|stage| stage.ending)
}

/// A handler's state is made on its thread, need not be `Send`, and dies there; it may be an event's owner no longer
/// than the event lasts.
#[test]
fn a_handler_may_hold_what_cannot_be_sent() {
    struct Sum(Rc<RefCell<Vec<u64>>>, mpsc::Sender<(Vec<u64>, std::thread::ThreadId)>);
    impl Handler<u64> for Sum {
        type Error = Infallible;
        fn on_event(&mut self, event: &u64, _: Sequence, _: bool) -> Result<(), Infallible> {
            self.0.borrow_mut().push(*event);
            Ok(())
        }
        fn on_end(&mut self) {
            self.1.send((self.0.take(), std::thread::current().id())).unwrap();
        }
    }
    let (result, results) = mpsc::channel();
    let (made_on, made) = mpsc::channel();
    let mut builder = Builder::single(4, || 0);
    builder.run("sum", move || {
        made_on.send((std::thread::current().id(), std::thread::current().name().map(str::to_owned))).unwrap();
        Sum(Rc::default(), result)
    });
    let (mut producer, ring) = builder.build().unwrap();
    (0..10).for_each(|value| drop(producer.publish(|event| *event = value)));
    assert!(ring.shutdown(LONG).is_complete());
    let (maker, name) = made.recv().unwrap();
    assert_eq!(name.as_deref(), Some("sum"));
    assert_eq!(results.recv().unwrap(), ((0..10).collect(), maker));
}

/// A handler that flushes at the end of a batch never hears of an end if the batch ends with skipped slots, unless the
/// look ahead passes over them.
#[test]
fn the_end_of_a_batch_is_told_at_its_last_event_though_skipped_slots_follow() {
    let held = Held::new(1);
    let mut builder = Builder::multi(16, || 0u64);
    let tape = held.clone();
    builder.run("tape", move || tape.handler());
    let (mut producer, ring) = builder.build().unwrap();
    producer.publish(|event| *event = 0).unwrap();
    held.started.wait();
    drop(producer.claim(2).unwrap());
    producer.publish_batch(2, |index, event| *event = index as u64 + 1).unwrap();
    drop(producer.claim(3).unwrap());
    held.go.wait();
    assert!(ring.shutdown(LONG).is_complete());
    assert_eq!(*held.seen.lock().unwrap(), [(0, true), (1, false), (2, true)]);
}

/// The same for a worker: its share ends with the last event, not with the skipped slots that follow.
#[test]
fn the_end_of_a_share_is_told_at_its_last_event_though_skipped_slots_follow() {
    let held = Held::new(1);
    let mut builder = Builder::multi(16, || 0u64);
    let pool = held.clone();
    builder.run_workers(Stage::new("pool").limit(16), 1, move |_| pool.clone().handler());
    let (mut producer, ring) = builder.build().unwrap();
    producer.publish(|event| *event = 0).unwrap();
    held.started.wait();
    producer.publish_batch(2, |index, event| *event = index as u64 + 1).unwrap();
    drop(producer.claim(3).unwrap());
    held.go.wait();
    assert!(ring.shutdown(LONG).is_complete());
    assert_eq!(*held.seen.lock().unwrap(), [(0, true), (1, false), (2, true)]);
}

#[test]
fn a_limit_bounds_batches_and_spans_are_whole_batches() {
    let spans = Arc::new(Mutex::new(Vec::new()));
    let held = Held::new(2);
    let mut builder = Builder::single(16, || 0u64);
    let (into, first_held) = (Arc::clone(&spans), held.clone());
    builder.run_batches(Stage::new("spans").limit(3), move || {
        let mut first = true;
        move |batch: &mut Batch<'_, u64, Single>| {
            if std::mem::take(&mut first) {
                first_held.hold();
            }
            let (head, tail) = batch.take_slices();
            into.lock().unwrap().push([head, tail].concat());
            Ok::<_, Infallible>(())
        }
    });
    let limited = held.clone();
    builder.run(Stage::new("limited").limit(2), move || limited.handler());
    let (mut producer, ring) = builder.build().unwrap();
    producer.publish(|_| ()).unwrap();
    held.started.wait();
    producer.publish_batch(7, |index, event| *event = index as u64 + 1).unwrap();
    held.go.wait();
    assert!(ring.shutdown(LONG).is_complete());
    assert_eq!(*spans.lock().unwrap(), [vec![0], vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
    let ends: Vec<u64> = held.seen.lock().unwrap().iter().filter(|(_, end)| *end).map(|(event, _)| *event).collect();
    assert_eq!(ends, [0, 2, 4, 6, 7]);
}

#[derive(Clone, Copy, Debug)]
enum Harm {
    Error,
    Panic,
}

/// What a stage with this policy sees of 0..6 if event 3 does harm the first `times` times, and how it ends.
fn after_harm(policy: OnError, harm: Harm, times: u32, first: u64) -> (Vec<u64>, Option<Ending>, u64, Option<Closed>) {
    let seen = Seen::default();
    let into = Arc::clone(&seen);
    let mut builder = Builder::multi(8, || 0u64);
    builder.start_at(Sequence(first));
    builder.run(Stage::new("fragile").on_error(policy), move || {
        let mut left = times;
        move |event: &u64, _, _| {
            into.lock().unwrap().push((*event, false));
            if *event == 3 && left > 0 {
                left -= 1;
                match harm {
                    Harm::Error => return Err("harm"),
                    Harm::Panic => quiet_panic("harm"),
                }
            }
            Ok(())
        }
    });
    let (mut producer, ring) = builder.build().unwrap();
    let refused = producer.publish_batch(6, |index, event| *event = index as u64).err();
    assert_eq!(refused, None);
    // Until it is worked off or the ring has failed.
    while ring.closed().is_none() && ring.positions().stages.iter().any(|stage| stage.lag > 0) {
        std::thread::yield_now();
    }
    let skipped = ring.positions().stages.first().map_or(0, |stage| stage.skipped);
    let closed = ring.closed();
    let seen_now = move || seen.lock().unwrap().iter().map(|(event, _)| *event).collect();
    let ending = ending(&ring, "fragile");
    (seen_now(), ending, skipped, closed)
}

/// A handler that failed or panicked froze its gate, and producers waited for ever. Here its stage's policy answers.
#[test]
fn errors_and_panics_are_answered_as_the_policy_says() {
    for harm in [Harm::Error, Harm::Panic] {
        let cause = match harm {
            Harm::Error => "harm",
            Harm::Panic => "panicked: harm",
        };
        let failed = Some(Closed::Failed { stage: "fragile".into(), cause: cause.into() });
        let gone = Some(Ending::Failed(cause.into()));
        let drained = Some(Ending::Drained);
        for first in STARTS {
            assert_eq!(after_harm(OnError::Stop, harm, 1, first), (vec![0, 1, 2, 3], gone.clone(), 0, failed.clone()));
            assert_eq!(after_harm(OnError::Skip, harm, 1, first), ((0..6).collect(), drained.clone(), 1, None));
            let retried = vec![0, 1, 2, 3, 3, 3, 4, 5];
            assert_eq!(after_harm(OnError::Retry(2), harm, 2, first), (retried.clone(), drained.clone(), 0, None));
            let given_up = vec![0, 1, 2, 3, 3, 3];
            assert_eq!(after_harm(OnError::Retry(2), harm, 3, first), (given_up, gone.clone(), 0, failed.clone()));
            assert_eq!(after_harm(OnError::RetryThenSkip(2), harm, 3, first), (retried, drained.clone(), 1, None));
        }
    }
}

/// What failed stays unconsumed: the report says how much, and every producer that waits is told the name and cause.
#[test]
fn a_stopped_stage_frees_everyone_who_waits_with_its_name_and_cause() {
    for wait in common::waits() {
        soon("a ring whose stage has failed", move || {
            let mut builder = Builder::multi(2, || 0u64);
            builder.poll(Stage::new("other").wait(wait.clone()));
            builder.run(Stage::new("bad").wait(wait.clone()), || {
                |event: &u64, _, _| if *event == 1 { Err("one is too many") } else { Ok(()) }
            });
            builder.poll(Stage::new("behind").after(["bad"]).wait(wait.clone()));
            let (mut producer, ring) = builder.build().unwrap();
            producer.set_wait(wait);
            let readers = ["other", "behind"].map(|name| {
                let mut consumer = ring.consumer(name).unwrap();
                std::thread::spawn(move || {
                    loop {
                        if let Err(closed) = consumer.poll_wait(1) {
                            return closed;
                        }
                    }
                })
            });
            let closed = loop {
                if let Err(closed) = producer.publish(|event| *event = 1) {
                    break closed;
                }
            };
            assert_eq!(closed, Closed::Failed { stage: "bad".into(), cause: "one is too many".into() });
            for reader in readers {
                assert_eq!(reader.join().unwrap(), closed);
            }
            let report = ring.shutdown(LONG);
            let bad = report.stages.iter().find(|stage| stage.name == "bad").unwrap();
            assert_eq!((bad.consumed, bad.running), (Sequence(0), false));
            assert!(bad.left > 0 && !report.is_complete());
            assert!(report.to_string().contains("one is too many"), "{report}");
        });
    }
}

/// A batch handler that failed after it released a part had it read again, though a producer may be writing there.
#[test]
fn a_batch_handler_that_fails_is_not_given_again_what_it_released() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    let mut builder = Builder::single(8, || 0u64);
    let (go, met) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (gate, meet) = (Arc::clone(&go), Arc::clone(&met));
    builder.run_batches(Stage::new("spans").on_error(OnError::Retry(3)), move || {
        let mut fails = 2;
        move |batch: &mut Batch<'_, u64, Single>| {
            if fails == 2 && batch.position() == Sequence(0) && batch.len() == 1 {
                meet.wait();
                gate.wait();
            } else if fails > 0 {
                fails -= 1;
                into.lock().unwrap().extend(batch.into_iter().take(2).map(|(sequence, _)| sequence.0));
                batch.release();
                return Err("in the middle");
            }
            into.lock().unwrap().extend(batch.into_iter().map(|(sequence, _)| sequence.0));
            Ok(())
        }
    });
    let (mut producer, ring) = builder.build().unwrap();
    producer.publish(|_| ()).unwrap();
    met.wait();
    producer.publish_batch(6, |_, _| ()).unwrap();
    go.wait();
    let report = ring.shutdown(LONG);
    assert!(report.is_complete(), "{report}");
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3, 4, 5, 6], "each once, in order");
}

/// A batch handler that failed without reading anything, under the policy to skip, was called with the same batch for
/// ever.
#[test]
fn a_batch_handler_that_reads_nothing_and_fails_still_moves_on() {
    let mut builder = Builder::single(8, || 0u64);
    builder.run_batches(Stage::new("spans").on_error(OnError::Skip), || |_: &mut Batch<'_, u64, Single>| Err("never"));
    let (mut producer, ring) = builder.build().unwrap();
    producer.publish_batch(5, |_, _| ()).unwrap();
    let report = soon("a stage that skips", move || ring.shutdown(LONG));
    assert!(report.is_complete(), "{report}");
}

/// A panicking payload, a panicking clean-up: `join().expect()` inside drop once panicked twice and took the process.
#[test]
fn panics_on_the_way_out_are_contained() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                quiet_panic("dropped");
            }
        }
    }
    struct Fragile(#[allow(dead_code)] Bomb);
    impl Handler<u64> for Fragile {
        type Error = Infallible;
        fn on_event(&mut self, _: &u64, _: Sequence, _: bool) -> Result<(), Infallible> {
            std::panic::resume_unwind(Box::new(Bomb))
        }
        fn on_end(&mut self) {
            quiet_panic("at the end");
        }
    }
    let mut builder = Builder::single(8, || 0u64);
    builder.run("fragile", || Fragile(Bomb));
    let (mut producer, ring) = builder.build().unwrap();
    producer.publish(|_| ()).unwrap();
    let told = soon("a stage that panics all over", move || {
        while producer.publish(|_| ()).is_ok() {
            std::thread::yield_now();
        }
        drop(producer);
        ending(&ring, "fragile")
    });
    assert_eq!(told, Some(Ending::Failed("panicked: a panic without a message".into())));
}

/// While the handler is made nothing is published yet; if that fails nothing runs.
#[test]
fn a_handler_that_cannot_be_made_stops_the_build_and_leaves_nothing_running() {
    let ended = Arc::new(AtomicU64::new(0));
    struct Told(Arc<AtomicU64>);
    impl Handler<u64> for Told {
        type Error = Infallible;
        fn on_event(&mut self, _: &u64, _: Sequence, _: bool) -> Result<(), Infallible> {
            Ok(())
        }
        fn on_end(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let told = Arc::clone(&ended);
    let mut builder = Builder::single(8, || 0u64);
    builder.run("fine", move || Told(told));
    builder.run("bad", || -> fn(&u64, Sequence, bool) -> Result<(), Infallible> { quiet_panic("no file") });
    let refused = builder.build().err().unwrap();
    assert!(
        matches!(&refused, BuildError::Handler { stage, cause } if stage == "bad" && cause == "no file"),
        "{refused}"
    );
    assert_eq!(ended.load(SeqCst), 1, "the other one has ended when the error is told");

    let (mut producer, ring) = Builder::single(1, || 0u64).build().unwrap();
    for _ in 0..20 {
        let make = || -> fn(&u64, Sequence, bool) -> Result<(), Infallible> { quiet_panic("no file") };
        assert!(matches!(ring.run("bad", make), Err(BuildError::Handler { .. })), "its name is free again each time");
        assert!(ring.positions().stages.is_empty());
        producer.publish(|_| ()).unwrap();
    }
}

#[test]
fn a_pin_is_kept_or_refused_with_what_is_allowed() {
    let core = pin::allowed_cores()[0];
    let cores = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&cores);
    let mut builder = Builder::single(8, || 0u64);
    builder.run(Stage::new("pinned").pin(core), move || {
        *into.lock().unwrap() = pin::cores_of_this_thread();
        |_: &u64, _, _| Ok::<_, Infallible>(())
    });
    let (_producer, ring) = builder.build().unwrap();
    assert_eq!(*cores.lock().unwrap(), [core]);
    let refused = ring.run(Stage::new("late").pin(1 << 20), || |_: &u64, _, _| Ok::<_, Infallible>(())).unwrap_err();
    assert!(matches!(&refused, BuildError::Pin { stage, .. } if stage == "late"), "{refused}");
    assert!(refused.to_string().contains(&(1 << 20).to_string()));
    assert!(ring.shutdown(LONG).is_complete());
}

/// A name that the system cannot take for a thread once panicked in the middle of a build.
#[test]
fn any_name_will_do_for_a_stage_with_a_thread() {
    let mut builder = Builder::single(8, || 0u64);
    builder.run("a\0b ü", || |_: &u64, _, _| Ok::<_, Infallible>(()));
    let (_producer, ring) = builder.build().unwrap();
    assert_eq!(ring.shutdown(LONG).stages[0].name, "a\0b ü");
}

/// The stage behind is polled while the handler has an event: it sees the events before that one, changed, and no other.
#[test]
fn a_mutable_stage_changes_what_the_ones_behind_see() {
    type More = Arc<Mutex<Option<ConsumerMut<u64, Multi>>>>;
    /// Adds one to what the stage before has doubled. Returns the sequence that comes next.
    fn add(more: &More) -> Result<Sequence, Closed> {
        let mut more = more.lock().unwrap();
        let more = more.as_mut().unwrap();
        (&mut more.poll(usize::MAX)?).into_iter().for_each(|(_, event)| *event += 1);
        Ok(more.consumed())
    }
    struct Double(More);
    impl Handler<u64, Exclusive> for Double {
        type Error = String;
        fn on_event(&mut self, event: &mut u64, sequence: Sequence, _: bool) -> Result<(), String> {
            match add(&self.0) {
                Ok(next) if next == sequence => *event *= 2,
                other => return Err(format!("the stage behind comes to {other:?} while {sequence} is changed")),
            }
            Ok(())
        }
    }
    let more = More::default();
    let seen = Seen::default();
    let into = Arc::clone(&seen);
    let mut builder = Builder::multi(4, || 0u64);
    builder.run(Stage::new("tape").after(["more"]), move || {
        move |event: &u64, _, _| {
            into.lock().unwrap().push((*event, true));
            Ok::<_, Infallible>(())
        }
    });
    let behind = Arc::clone(&more);
    builder.run_mut(Stage::new("double").limit(1), move || Double(behind));
    builder.poll_mut(Stage::new("more").after(["double"]));
    let (mut producer, ring) = builder.build().unwrap();
    *more.lock().unwrap() = Some(ring.consumer_mut("more").unwrap());
    (0..100).for_each(|value| drop(producer.publish(|event| *event = value)));
    drop(producer);
    while add(&more).is_ok() {
        std::thread::yield_now();
    }
    let report = ring.shutdown(LONG);
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(
        seen.lock().unwrap().iter().map(|(event, _)| *event).collect::<Vec<_>>(),
        (0..100).map(|it| it * 2 + 1).collect::<Vec<_>>()
    );
}

#[test]
fn a_managed_stage_joins_while_the_ring_runs() {
    let mut builder = Builder::multi(8, || 0u64);
    builder.retain(3);
    let (mut producer, ring) = builder.build().unwrap();
    (0..5).for_each(|value| drop(producer.publish(|event| *event = value)));
    let seen = Seen::default();
    let (into, spans) = (Arc::clone(&seen), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&spans);
    let first = ring.run("late", move || {
        move |event: &u64, _, _| {
            into.lock().unwrap().push((*event, true));
            Ok::<_, Infallible>(())
        }
    });
    assert_eq!(first.unwrap(), Sequence(2));
    let first = ring.run_batches(Stage::new("spans").after(["late"]), move || {
        move |batch: &mut Batch<'_, u64, Multi>| {
            batch.set_wait(at_once());
            count.fetch_add(batch.into_iter().count() as u64, SeqCst);
            Ok::<_, Infallible>(())
        }
    });
    assert_eq!(first.unwrap(), Sequence(2));
    (5..9).for_each(|value| drop(producer.publish(|event| *event = value)));
    assert!(ring.shutdown(LONG).is_complete());
    assert_eq!(seen.lock().unwrap().iter().map(|(event, _)| *event).collect::<Vec<_>>(), (2..9).collect::<Vec<_>>());
    assert_eq!(spans.load(SeqCst), 7);
}

// Work sharing.

/// Each event goes to exactly one of the workers, skipped slots to none, whatever comes and goes.
#[test]
fn workers_share_every_event_exactly_once_while_they_come_and_go() {
    const EVENTS: u64 = 3000;
    for wait in [at_once(), slipring_ring::Wait::spin_yield()] {
        let seen = soon("workers", move || {
            let mut builder = Builder::multi(8, || 0u64);
            builder.start_at(Sequence(u64::MAX - 1000)).workers(Stage::new("pool").wait(wait.clone()), 3);
            builder.poll(Stage::new("behind").after(["pool"]).wait(wait.clone()));
            let (mut producer, ring) = builder.build().unwrap();
            let keeper = ring.worker("pool").unwrap();
            let mut behind = ring.consumer("behind").unwrap();
            let worked: Vec<_> = (0..2u64)
                .map(|number| {
                    let ring = ring.clone();
                    std::thread::spawn(move || {
                        let mut seen = Vec::new();
                        loop {
                            // Goes in the middle of what it took, and comes again.
                            let mut worker = match ring.worker("pool") {
                                Ok(worker) => worker,
                                Err(StageError::NotHere { .. }) if ring.closed().is_none() => continue,
                                Err(_) => return seen,
                            };
                            for _ in 0..5 {
                                let Ok(mut taken) = worker.take_wait(3) else { return seen };
                                while taken.next(|_, event| seen.push(*event)) && seen.len() as u64 % 4 != number {}
                            }
                        }
                    })
                })
                .collect();
            let keeper = std::thread::spawn(move || {
                let (mut keeper, mut seen) = (keeper, Vec::new());
                while let Ok(taken) = keeper.take_wait(2) {
                    taken.for_each(|_, event| seen.push(*event));
                }
                seen
            });
            let follower = std::thread::spawn(move || {
                let mut count = 0;
                while let Ok(mut batch) = behind.poll_wait(5) {
                    count += (&mut batch).into_iter().count() as u64;
                }
                count
            });
            for value in 0..EVENTS {
                if value % 5 == 0 {
                    drop(producer.claim(1).unwrap());
                }
                producer.publish(|event| *event = value).unwrap();
            }
            drop(producer);
            let mut seen = keeper.join().unwrap();
            worked.into_iter().for_each(|worker| seen.extend(worker.join().unwrap()));
            assert_eq!(follower.join().unwrap(), EVENTS);
            seen
        });
        let mut seen = seen;
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..EVENTS), "each exactly once");
    }
}

/// Removing a worker in the middle of its claim once lost the event. Here a panic loses the one in hand, counts it, and
/// leaves the rest to the others.
#[test]
fn a_worker_that_panics_loses_what_it_had_in_hand_and_no_more() {
    for first in STARTS {
        let mut builder = Builder::single(8, || 0u64);
        builder.start_at(Sequence(first)).workers("pool", 2);
        let (mut producer, ring) = builder.build().unwrap();
        let (mut a, mut b) = (ring.worker("pool").unwrap(), ring.worker("pool").unwrap());
        producer.publish_batch(6, |index, event| *event = index as u64).unwrap();
        let broken = std::thread::spawn(move || {
            a.take(4).unwrap().for_each(|_, event| {
                if *event == 1 {
                    quiet_panic("one")
                }
            });
        });
        assert!(broken.join().is_err());
        let pool = &ring.positions().stages[0];
        assert_eq!((pool.lost, pool.consumed), (1, Sequence(first).plus(2)));
        let mut seen = Vec::new();
        b.take(9).unwrap().for_each(|_, event| seen.push(*event));
        b.take(9).unwrap().for_each(|_, event| seen.push(*event));
        assert_eq!(seen, [2, 3, 4, 5]);
        assert_eq!(ring.positions().stages[0].lag, 0);
        assert!(ring.worker("pool").is_ok(), "its place is free again");
    }
}

#[test]
fn what_a_worker_took_and_did_not_iterate_stays_its_own() {
    let mut builder = Builder::single(8, || 0u64);
    builder.workers("pool", 2);
    let (mut producer, ring) = builder.build().unwrap();
    let (mut a, mut b) = (ring.worker("pool").unwrap(), ring.worker("pool").unwrap());
    producer.publish_batch(4, |index, event| *event = index as u64).unwrap();
    let mut seen = Vec::new();
    a.take(3).unwrap().next(|_, event| seen.push(*event));
    b.take(9).unwrap().for_each(|_, event| seen.push(*event));
    assert_eq!(ring.positions().stages[0].consumed, Sequence(1));
    let taken = a.take(1).unwrap();
    assert_eq!((taken.len(), taken.is_empty()), (2, false));
    taken.for_each(|_, event| seen.push(*event));
    assert_eq!(seen, [0, 3, 1, 2]);
    assert!(a.take_until(1, Instant::now() + Duration::from_millis(1)).unwrap().is_empty());
    ring.halt();
    assert_eq!(a.take(1).err(), Some(Closed::Halted));
}

/// A worker behind another stage slept at the wrong bell while the ring was ending: the stage before moved on, and
/// nobody woke it.
#[test]
fn a_worker_behind_a_stage_is_woken_while_the_ring_ends() {
    for _ in 0..200 {
        soon("a worker behind a stage", || {
            let mut builder = Builder::single(4, || 0u64);
            builder.poll("first").workers(Stage::new("pool").after(["first"]).wait(at_once()), 1);
            let (mut producer, ring) = builder.build().unwrap();
            let (mut first, mut worker) = (ring.consumer("first").unwrap(), ring.worker("pool").unwrap());
            producer.publish(|_| ()).unwrap();
            drop(producer);
            let slept = std::thread::spawn(move || worker.take_wait(1).map(|taken| taken.len()));
            (&mut first.poll(1).unwrap()).into_iter().count();
            assert_eq!(slept.join().unwrap(), Ok(1));
        });
    }
}

/// A worker that announced an event in vain held the stage back; when it withdrew, nobody who slept was told.
#[test]
fn nobody_sleeps_through_a_workers_vain_announcement() {
    soon("a ring shared by eager workers", || {
        let mut builder = Builder::single(1, || 0u64);
        builder.workers(Stage::new("pool").wait(slipring_ring::Wait::spin_yield()), 3);
        let (mut producer, ring) = builder.build().unwrap();
        producer.set_wait(at_once());
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let mut worker = ring.worker("pool").unwrap();
                std::thread::spawn(move || {
                    let mut done = 0u64;
                    while let Ok(taken) = worker.take_wait(1) {
                        taken.for_each(|_, _| done += 1);
                    }
                    done
                })
            })
            .collect();
        (0..20_000).for_each(|value| drop(producer.publish(|event| *event = value)));
        drop(producer);
        assert_eq!(workers.into_iter().map(|worker| worker.join().unwrap()).sum::<u64>(), 20_000);
    });
}

#[test]
fn managed_workers_share_and_answer_for_errors() {
    for policy in [OnError::Skip, OnError::RetryThenSkip(2), OnError::Stop] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tries = Arc::new(AtomicU64::new(0));
        let (into, tried) = (Arc::clone(&seen), Arc::clone(&tries));
        let mut builder = Builder::multi(8, || 0u64);
        builder.run_workers(Stage::new("pool").on_error(policy), 3, move |_| {
            let (into, tried) = (Arc::clone(&into), Arc::clone(&tried));
            move |event: &u64, _, _| {
                if *event == 5 {
                    tried.fetch_add(1, SeqCst);
                    if tried.load(SeqCst) % 2 == 0 {
                        quiet_panic("five")
                    }
                    return Err("five");
                }
                into.lock().unwrap().push(*event);
                Ok(())
            }
        });
        let (mut producer, ring) = builder.build().unwrap();
        let mut refused = None;
        for value in 0..40 {
            drop(producer.claim(1));
            refused = producer.publish(|event| *event = value).err();
            if refused.is_some() {
                break;
            }
        }
        let report = soon("managed workers", {
            let ring = ring.clone();
            move || ring.shutdown(LONG)
        });
        let mut seen = seen.lock().unwrap().clone();
        seen.sort_unstable();
        if policy == OnError::Stop {
            let why = ring.closed().unwrap();
            assert!(matches!(&why, Closed::Failed { stage, cause } if stage == "pool" && cause == "five"), "{why}");
            assert!(refused.is_none_or(|refused| refused == why));
            assert!(seen.iter().all(|event| *event != 5) && !report.is_complete());
            assert!(
                matches!(&report.stages[..], [stage] if stage.name == "pool" && stage.ending == Some(Ending::Failed("five".into()))),
                "{report}"
            );
        } else {
            assert!(report.is_complete() && report.stages.len() == 1, "{report}");
            assert!(seen.into_iter().eq((0..40).filter(|value| *value != 5)));
            assert_eq!(tries.load(SeqCst), if policy == OnError::Skip { 1 } else { 3 });
        }
    }
}

#[test]
fn the_last_worker_takes_its_stage_along() {
    let mut builder = Builder::single(1, || 0u64);
    builder.workers("pool", 2);
    let (mut producer, ring) = builder.build().unwrap();
    let worker = ring.worker("pool").unwrap();
    producer.publish(|_| ()).unwrap();
    assert_eq!(producer.try_publish(|_| ()), Err(ClaimError::Full));
    drop(worker);
    producer.try_publish(|_| ()).unwrap();
    assert_eq!(ring.worker("pool").err(), Some(StageError::NotHere { name: "pool".into() }));
}

#[test]
fn the_rings_policy_holds_for_stages_without_one_of_their_own() {
    let mut builder = Builder::single(8, u64::default);
    builder.on_error(OnError::Skip);
    let odd = |event: &u64, _: Sequence, _: bool| if event.is_multiple_of(2) { Ok(()) } else { Err("odd") };
    builder.run("skips", move || odd);
    builder.run(Stage::new("retries").on_error(OnError::RetryThenSkip(1)), move || odd);
    let (mut producer, ring) = builder.build().unwrap();
    ring.run("late", move || odd).unwrap();
    producer.publish_batch(4, |index, event| *event = index as u64).unwrap();
    drop(producer);
    let report = ring.shutdown(Duration::from_secs(60));
    assert!(report.is_complete(), "{report}");

    let mut builder = Builder::single(8, u64::default);
    builder.on_error(OnError::Skip);
    builder.run(Stage::new("stops").on_error(OnError::Stop), move || odd);
    let (mut producer, ring) = builder.build().unwrap();
    producer.publish(|event| *event = 1).unwrap();
    drop(producer);
    let report = ring.shutdown(Duration::from_secs(60));
    assert!(!report.is_complete(), "{report}");
}
