//! The way to the end: no call waits for ever on a dead peer, and the report says what was and was not read.
#![cfg(not(any(loom, shuttle)))]

mod common;

use common::{LONG, at_once, soon, waits};
use slipring_ring::{Builder, ClaimError, Closed, Ending, Multi, Producer, Ring, Sequence, Stage, Wait};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

fn fine(_: &u64, _: Sequence, _: bool) -> Result<(), Infallible> {
    Ok(())
}

/// Blocked producers once stayed blocked after a shutdown, and consumers after a halt.
#[test]
fn whoever_waits_for_anything_is_told_of_the_end() {
    type End = fn(&Ring<u64, Multi>);
    let ends: [(End, Closed); 3] = [
        (|ring| ring.close(), Closed::Closed),
        (|ring| drop(ring.halt()), Closed::Halted),
        (|ring| ring.fail("stage", "cause"), Closed::Failed { stage: "stage".into(), cause: "cause".into() }),
    ];
    let some = if cfg!(miri) { 2 } else { usize::MAX };
    for wait in waits().into_iter().rev().take(some) {
        for (end, told) in ends.clone() {
            let wait = wait.clone();
            let what = format!("{wait:?}, {told}");
            soon(&what, move || {
                let mut builder = Builder::multi(1, || 0u64);
                builder.poll(Stage::new("full")).poll(Stage::new("reads").wait(wait.clone()));
                builder.poll(Stage::new("behind").after(["full"]).wait(wait.clone()));
                builder.workers(Stage::new("pool").wait(wait.clone()), 1);
                let (mut producer, ring) = builder.build().unwrap();
                producer.set_wait(wait);
                let (mut reads, mut behind) = (ring.consumer("reads").unwrap(), ring.consumer("behind").unwrap());
                let mut worker = ring.worker("pool").unwrap();
                producer.publish(|_| ()).unwrap();
                let mut threads: Vec<std::thread::JoinHandle<Closed>> = Vec::new();
                threads.push(std::thread::spawn(move || {
                    loop {
                        if let Err(closed) = producer.publish(|_| ()) {
                            return closed;
                        }
                    }
                }));
                threads.push(std::thread::spawn(move || {
                    loop {
                        match reads.poll_wait(1) {
                            Ok(mut batch) => (&mut batch).into_iter().for_each(drop),
                            Err(closed) => return closed,
                        }
                    }
                }));
                threads.push(std::thread::spawn(move || {
                    loop {
                        match worker.take_wait(1) {
                            Ok(taken) => taken.for_each(|_, _| ()),
                            Err(closed) => return closed,
                        }
                    }
                }));
                while ring.positions().stages.iter().any(|stage| stage.lag == 0 && stage.name == "full") {}
                end(&ring);
                for thread in threads {
                    assert_eq!(thread.join().unwrap(), told);
                }
                // The stage behind may read on after a close, as far as the one before it does.
                if told == Closed::Closed {
                    let mut full = ring.consumer("full").unwrap();
                    (&mut full.poll(9).unwrap()).into_iter().for_each(drop);
                    assert_eq!((&mut behind.poll_wait(9).unwrap()).into_iter().count(), 1);
                }
                assert_eq!(behind.poll_wait(1).err(), Some(told));
            });
        }
    }
}

/// A shutdown that overlooked consumers which had not run yet lost events. Here it waits for what was published before.
#[test]
fn a_shutdown_loses_nothing_that_was_published_before_it() {
    for round in 0..if cfg!(miri) { 5u64 } else { 50 } {
        let sum = Arc::new(AtomicU64::new(0));
        let into = Arc::clone(&sum);
        let mut builder = Builder::single(64, || 0u64);
        builder.run("first", || fine);
        builder.run(Stage::new("sum").after(["first"]), move || {
            move |event: &u64, _, _| {
                into.fetch_add(*event, SeqCst);
                Ok::<_, Infallible>(())
            }
        });
        let (mut producer, ring) = builder.build().unwrap();
        producer.publish_batch(round as usize % 64 + 1, |index, event| *event = index as u64).unwrap();
        let report = ring.shutdown(Duration::MAX);
        assert!(report.is_complete(), "{report}");
        assert!(report.stages.iter().all(|stage| stage.ending == Some(Ending::Drained)));
        assert_eq!(sum.load(SeqCst), (round % 64) * (round % 64 + 1) / 2);
        assert_eq!(producer.publish(|_| ()), Err(Closed::Closed));
    }
}

/// A stage behind two was told of the end as soon as one of the two had finished, though the other still had events to
/// let through.
#[test]
fn a_stage_behind_two_reads_to_the_end_of_the_slower_one() {
    for workers in [0, 2] {
        let (go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(Some(gate));
        let mut builder = Builder::multi(8, || 0u64);
        builder.run("fast", || fine).run("slow", move || {
            let gate = gate.lock().unwrap().take().unwrap();
            move |_: &u64, _, _| {
                let _ = gate.recv();
                Ok::<_, Infallible>(())
            }
        });
        let last = Stage::new("last").after(["fast", "slow"]).wait(at_once());
        if workers == 0 {
            builder.poll(last)
        } else {
            builder.workers(last, workers)
        };
        let (mut producer, ring) = builder.build().unwrap();
        producer.publish_batch(5, |_, _| ()).unwrap();
        drop(producer);
        let read = soon("a stage behind two", move || {
            while ring.positions().stages.iter().any(|stage| stage.name == "fast") {
                std::thread::yield_now();
            }
            let mut read = 0;
            if workers == 0 {
                let mut last = ring.consumer("last").unwrap();
                assert!(last.poll(9).unwrap().is_empty(), "the slow one has let nothing through");
                (0..5).for_each(|_| go.send(()).unwrap());
                while let Ok(mut batch) = last.poll_wait(9) {
                    read += (&mut batch).into_iter().count();
                }
            } else {
                let mut last = ring.worker("last").unwrap();
                assert!(last.take(9).unwrap().is_empty(), "the slow one has let nothing through");
                (0..5).for_each(|_| go.send(()).unwrap());
                while let Ok(taken) = last.take_wait(9) {
                    taken.for_each(|_, _| read += 1);
                }
            }
            read
        });
        assert_eq!(read, 5);
    }
}

/// A handler that never returns: the shutdown ends at its deadline, says who it is, and hangs neither then nor when
/// everything is dropped.
#[test]
fn a_handler_that_never_returns_is_named_and_hangs_nobody() {
    let (stuck, release) = mpsc::channel::<()>();
    let stuck_in = Mutex::new(Some(release));
    let mut builder = Builder::multi(4, || 0u64);
    builder.run("stuck", move || {
        let release = stuck_in.lock().unwrap().take().unwrap();
        move |_: &u64, _, _| {
            let _ = release.recv();
            Ok::<_, Infallible>(())
        }
    });
    builder.run("fine", || fine);
    let (mut producer, ring) = builder.build().unwrap();
    producer.publish_batch(4, |_, _| ()).unwrap();
    let refused = producer.claim_until(1, Instant::now() + Duration::from_millis(5)).err();
    assert_eq!(refused, Some(ClaimError::TimedOut { by: Some("stuck".into()) }));
    let begin = Instant::now();
    let report = ring.shutdown(Duration::from_millis(50));
    assert!(begin.elapsed() < LONG / 2);
    let stage = |name: &str| report.stages.iter().find(|stage| stage.name == name).unwrap().clone();
    assert!(stage("stuck").running && stage("stuck").ending.is_none() && stage("stuck").left == 4, "{report}");
    assert!(report.to_string().contains("still in its handler"));
    assert_eq!((stage("fine").left, stage("fine").ending), (0, Some(Ending::Drained)));
    soon("dropping a ring with a stuck handler", {
        let ring = ring.clone();
        move || drop((ring, producer))
    });
    drop(stuck);
    let report = soon("the second report", move || {
        loop {
            let report = ring.halt();
            if !report.stages.iter().any(|stage| stage.running) {
                return report;
            }
        }
    });
    let stuck = report.stages.iter().find(|stage| stage.name == "stuck").unwrap();
    assert!(matches!(&stuck.ending, Some(Ending::Stopped(why)) if why.contains("halted")), "{report}");
}

/// A halt in the middle of a long batch is heard before its end.
#[test]
fn a_halt_is_heard_in_the_middle_of_a_batch() {
    const CAPACITY: usize = if cfg!(miri) { 512 } else { 4096 };
    let (met, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (meet, gate) = (Arc::clone(&met), Arc::clone(&go));
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let mut builder = Builder::single(CAPACITY, || 0u64);
    builder.run("slow", move || {
        move |_: &u64, at: Sequence, _| {
            counted.fetch_add(1, SeqCst);
            if at.0 == 1 {
                meet.wait();
                gate.wait();
            }
            Ok::<_, Infallible>(())
        }
    });
    let (mut producer, ring) = builder.build().unwrap();
    producer.publish_batch(CAPACITY, |_, _| ()).unwrap();
    met.wait();
    let halted = {
        let ring = ring.clone();
        std::thread::spawn(move || ring.halt())
    };
    while ring.closed().is_none() {
        std::thread::yield_now();
    }
    go.wait();
    halted.join().unwrap();
    let report = soon("a halted stage", move || {
        loop {
            let report = ring.halt();
            if report.stages.iter().all(|stage| !stage.running) {
                return report;
            }
        }
    });
    let read = count.load(SeqCst);
    assert!(read < 100, "{read} events after a halt at the second one");
    assert_eq!(report.stages[0].left, CAPACITY as u64 - read, "what was not read is counted");
}

/// Joining itself: the handler shuts its own ring down, and drops what may be the last handle and the last producer.
#[test]
fn a_handler_may_shut_its_own_ring_down_and_drop_the_last_of_everything() {
    for drops in [false, true] {
        let (told, report) = mpsc::channel();
        type Own = Arc<Mutex<Option<(Producer<u64, Multi>, Ring<u64, Multi>)>>>;
        let own: Own = Arc::default();
        let mut builder = Builder::multi(4, || 0u64);
        let held = Arc::clone(&own);
        builder.run("suicidal", move || {
            move |_: &u64, _, _| {
                let (producer, ring) = held.lock().unwrap().take().unwrap();
                if !drops {
                    // It waits for the other stage, which is read later, until the limit.
                    told.send(Some(ring.shutdown(Duration::from_millis(20)))).unwrap();
                }
                drop(producer);
                drop(ring);
                told.send(None).unwrap();
                Ok::<_, Infallible>(())
            }
        });
        builder.poll("other");
        let (mut producer, ring) = builder.build().unwrap();
        let mut other = ring.consumer("other").unwrap();
        let mut held = own.lock().unwrap();
        producer.publish(|_| ()).unwrap();
        *held = Some((producer, ring));
        drop(held);
        soon("a handler that ends its own ring", move || {
            if !drops {
                let report = report.recv_timeout(LONG).unwrap().unwrap();
                let own = report.stages.iter().find(|stage| stage.name == "suicidal").unwrap();
                assert!(own.running && own.ending.is_none());
            }
            assert!(report.recv_timeout(LONG).unwrap().is_none());
            assert_eq!((&mut other.poll_wait(9).unwrap()).into_iter().count(), 1);
            assert!(matches!(other.poll_wait(9).err(), Some(Closed::Finished | Closed::Closed)));
        });
    }
}

/// The last producer dropped inside a polling consumer's loop, which then is told of the end and does not hang.
#[test]
fn the_last_producer_may_be_dropped_inside_a_batch() {
    let mut builder = Builder::single(4, || 0u64);
    builder.poll(Stage::new("tape").wait(at_once()));
    let (mut producer, ring) = builder.build().unwrap();
    let mut tape = ring.consumer("tape").unwrap();
    producer.publish_batch(2, |_, _| ()).unwrap();
    let mut last = Some(producer);
    drop(ring);
    soon("a consumer that drops its producer", move || {
        let mut batch = tape.poll(9).unwrap();
        for _ in &mut batch {
            drop(last.take());
        }
        drop(batch);
        assert_eq!(tape.poll_wait(1).err(), Some(Closed::Finished));
        assert_eq!(tape.poll(1).err(), Some(Closed::Finished), "it is told again");
    });
}

/// Halting before anything ran, or while starting; twice, and from two threads.
#[test]
fn a_ring_may_be_ended_at_any_moment_and_more_than_once() {
    for _ in 0..if cfg!(miri) { 10 } else { 100 } {
        let mut builder = Builder::multi(2, || 0u64);
        builder.run("a", || fine).run(Stage::new("b").after(["a"]).wait(at_once()), || fine);
        let (mut producer, ring) = builder.build().unwrap();
        soon("two ends", move || {
            let enders = [0, 1].map(|which| {
                let ring = ring.clone();
                std::thread::spawn(move || if which == 0 { ring.halt() } else { ring.shutdown(LONG) })
            });
            while producer.publish(|_| ()).is_ok() {}
            for ender in enders {
                let report = ender.join().unwrap();
                assert!(report.stages.iter().all(|stage| stage.name == "a" || stage.name == "b"));
            }
            let report = ring.halt();
            assert_eq!(report.stages.len(), 2, "{report}");
            assert!(report.stages.iter().all(|stage| !stage.running), "{report}");
        });
    }
}

/// Two stages whose handlers shut the ring down at once wait for one another until their deadline, and no longer.
#[test]
fn two_handlers_that_shut_down_at_once_come_to_an_end() {
    let ring: Arc<Mutex<Option<Ring<u64, Multi>>>> = Arc::default();
    let mut builder = Builder::multi(4, || 0u64);
    for name in ["a", "b"] {
        let ring = Arc::clone(&ring);
        builder.run(name, move || {
            move |_: &u64, _, _| {
                let ring = ring.lock().unwrap().clone().unwrap();
                ring.shutdown(Duration::from_millis(20));
                Ok::<_, Infallible>(())
            }
        });
    }
    let (mut producer, built) = builder.build().unwrap();
    *ring.lock().unwrap() = Some(built.clone());
    producer.publish(|_| ()).unwrap();
    let report = soon("two shutdowns in handlers", move || {
        loop {
            let report = built.shutdown(LONG);
            if report.stages.iter().all(|stage| !stage.running) {
                return report;
            }
        }
    });
    assert!(report.is_complete(), "{report}");
    *ring.lock().unwrap() = None;
}

/// Dropping handles stops nothing; the managed stages end with the last producer.
#[test]
fn managed_stages_outlive_the_handle_and_end_with_the_last_producer() {
    let (told, ended) = mpsc::channel();
    let mut builder = Builder::multi(4, || 0u64);
    builder.run(Stage::new("sum").wait(Wait::backoff()), move || {
        struct Sum(u64, mpsc::Sender<u64>);
        impl slipring_ring::Handler<u64> for Sum {
            type Error = Infallible;
            fn on_event(&mut self, event: &u64, _: Sequence, _: bool) -> Result<(), Infallible> {
                self.0 += event;
                Ok(())
            }
            fn on_end(&mut self) {
                self.1.send(self.0).unwrap();
            }
        }
        Sum(0, told)
    });
    let (mut producer, ring) = builder.build().unwrap();
    drop(ring);
    let second = producer.clone();
    (0..50).for_each(|value| drop(producer.publish(|event| *event = value)));
    drop(producer);
    assert!(ended.try_recv().is_err());
    drop(second);
    assert_eq!(ended.recv_timeout(LONG).unwrap(), 49 * 50 / 2);
}

#[test]
fn a_report_counts_what_polled_stages_left() {
    let mut builder = Builder::single(8, || 0u64);
    builder.start_at(Sequence(u64::MAX - 1)).poll("tape");
    let (mut producer, ring) = builder.build().unwrap();
    let mut tape = ring.consumer("tape").unwrap();
    producer.publish_batch(5, |_, _| ()).unwrap();
    (&mut tape.poll(2).unwrap()).into_iter().for_each(drop);
    let report = ring.shutdown(Duration::ZERO);
    assert_eq!((report.published, report.stages[0].consumed, report.stages[0].left), (Sequence(3), Sequence(0), 3));
    assert!(!report.is_complete() && report.to_string().contains("tape: consumed up to 0, 3 left"), "{report}");
    assert_eq!((&mut tape.poll(9).unwrap()).into_iter().count(), 3, "a close lets it read on");
    assert!(ring.shutdown(Duration::ZERO).is_complete());
}

/// A report once said that all was read when the reader of the rest had been halted and had left before it was written.
#[test]
fn a_polled_stage_that_was_stopped_and_is_gone_is_in_the_report() {
    let ends: [fn(&Ring<u64, Multi>); 2] = [|ring| drop(ring.halt()), |ring| ring.fail("other", "cause")];
    for end in ends {
        let mut builder = Builder::multi(8, || 0u64);
        builder.poll("left").poll("read").poll("stopped");
        let (mut producer, ring) = builder.build().unwrap();
        let [left, mut read, mut stopped] = ["left", "read", "stopped"].map(|name| ring.consumer(name).unwrap());
        producer.publish_batch(3, |_, event| *event = 7).unwrap();
        assert_eq!((&mut read.poll(9).unwrap()).into_iter().count(), 3);
        assert_eq!((&mut stopped.poll(1).unwrap()).into_iter().count(), 1);
        drop(left);
        end(&ring);
        assert!(stopped.poll(9).is_err() && read.poll(9).is_err());
        drop((read, stopped));
        let report = ring.report();
        let [stage] = &report.stages[..] else { panic!("one had left by itself, and one had read all: {report}") };
        assert_eq!((&*stage.name, stage.consumed, stage.left), ("stopped", Sequence(1), 2), "{report}");
        assert!(matches!(stage.ending, Some(Ending::Stopped(_))) && !report.is_complete(), "{report}");
    }
}

/// However the last stage leaves: dropped, evicted, or as the last of its workers.
#[test]
fn a_producer_is_told_that_the_last_reader_has_left() {
    let mut builder = Builder::multi(8, || 0u64);
    builder.poll("tape").workers("pool", 2);
    let (producer, ring) = builder.build().unwrap();
    let watch = |producer: &Producer<u64, Multi>| {
        let watch = producer.clone();
        std::thread::spawn(move || {
            soon("a producer that waits until nobody reads", move || watch.wait_until_unread(None))
        })
    };
    let tape = ring.consumer("tape").unwrap();
    let [one, two] = [(); 2].map(|()| ring.worker("pool").unwrap());
    let watching = watch(&producer);
    assert!(producer.is_read());
    drop(tape);
    drop(one);
    assert!(producer.is_read(), "a worker still reads");
    assert_eq!(producer.wait_until_unread(Some(Instant::now())), Ok(false));
    drop(two);
    assert_eq!(watching.join().unwrap(), Ok(true));
    assert!(!producer.is_read());
    assert_eq!(producer.wait_until_unread(None), Ok(true), "it stays so");

    let late = ring.join("late").unwrap();
    assert!(producer.is_read(), "one that joins reads again");
    let watching = watch(&producer);
    ring.evict("late").unwrap();
    assert_eq!(watching.join().unwrap(), Ok(true));
    drop(late);

    let _last = ring.join("last").unwrap();
    let watching = watch(&producer);
    ring.close();
    assert_eq!(watching.join().unwrap(), Err(Closed::Closed), "the end comes before the last has left");
}
