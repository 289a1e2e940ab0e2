//! The end of a ring: everybody who waits is told, and nobody is told before they have read everything.

use crate::support::*;
use slipring_ring::{Builder, Claim, ClaimError, Closed, Stage};

/// The only producer publishes and goes.
/// Allowed: the reader gets the event, then hears that the ring is finished. Forbidden: the end before the event.
#[test]
fn the_end_comes_after_the_last_event() {
    model(All, "what was published before the end is read before the end", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        let mut reader = ring.consumer("reader").unwrap();
        let writing = thread::spawn(move || put(&mut producer, 1).is_ok());
        let mut read = 0;
        for _ in 0..2 {
            match reader.poll(1) {
                Ok(mut batch) => read += (&mut batch).into_iter().count(),
                Err(end) => {
                    assert_eq!(end, Closed::Finished);
                    assert_eq!(read, 1, "the end came before the event");
                }
            }
        }
        assert!(writing.join().unwrap());
    });
}

/// Two producers publish and go; the last one to go ends the ring for both.
/// Allowed: both events, then the end. Forbidden: the end before either event.
#[test]
fn the_last_producer_ends_the_ring_for_all() {
    model(Mixed(1, Some(3)), "the last producer to go has seen what the others published", || {
        let (mut one, ring) = multi(2, &[("reader", &[])]);
        let mut two = one.clone();
        let mut reader = ring.consumer("reader").unwrap();
        let writing = thread::spawn(move || put(&mut one, 1).is_ok());
        let second = thread::spawn(move || put(&mut two, 1).is_ok());
        let mut read = 0;
        for _ in 0..2 {
            match reader.poll(2) {
                Ok(mut batch) => read += (&mut batch).into_iter().count(),
                Err(end) => {
                    assert_eq!(end, Closed::Finished);
                    assert_eq!(read, 2, "the end came before the events");
                    break;
                }
            }
        }
        assert!(writing.join().unwrap() && second.join().unwrap());
    });
}

/// A parked reader, and the only producer goes without a word.
/// Allowed: it hears of the end. Forbidden: it sleeps on.
#[test]
fn a_parked_reader_hears_of_the_end() {
    model_of_sleep(All, "the end wakes a parked reader", || {
        let (producer, ring) = single(1, &[("reader", &[])]);
        let mut reader = ring.consumer("reader").unwrap();
        let leaving = thread::spawn(move || drop(producer));
        assert_eq!(get_wait(&mut reader, 1), None);
        leaving.join().unwrap();
    });
}

/// A reader that parks behind another one, and the ring is closed with one event on its way.
/// Allowed: both get the event and hear of the end. Forbidden: either sleeps on.
#[test]
fn parked_stages_read_on_to_the_end() {
    model_of_sleep(Within(2), "a closed ring is read to its end along a chain of parked stages", || {
        let (mut producer, ring) = single(1, &[("first", &[]), ("second", &["first"])]);
        put(&mut producer, 1).unwrap();
        let [mut first, mut second] = ["first", "second"].map(|name| ring.consumer(name).unwrap());
        let ahead = thread::spawn(move || {
            assert_eq!(get_wait(&mut first, 1), Some(1));
            assert_eq!(get_wait(&mut first, 1), None);
            first
        });
        let closing = thread::spawn(move || ring.close());
        assert_eq!(get_wait(&mut second, 1), Some(1));
        assert_eq!(get_wait(&mut second, 1), None);
        ahead.join().unwrap();
        closing.join().unwrap();
    });
}

/// A producer parks on a full ring, and the ring fails.
/// Allowed: it gets the stage's name and cause. Forbidden: it sleeps on, or gets another reason.
#[test]
fn a_parked_producer_hears_of_a_failure() {
    model_of_sleep(All, "a failure wakes a parked producer and names the stage", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        producer.set_wait(park());
        put(&mut producer, 1).unwrap();
        let failing = thread::spawn(move || {
            ring.fail("reader", "no paper");
            ring
        });
        let refused = producer.claim(1).map(Claim::commit);
        let expected = Closed::Failed { stage: "reader".to_owned(), cause: "no paper".to_owned() };
        assert_eq!(refused, Err(ClaimError::Closed(expected)));
        failing.join().unwrap();
    });
}

/// A producer parks without any stage, behind another one's claim, and the ring is closed.
/// Allowed: it hears of the end. Forbidden: it sleeps on.
#[test]
fn a_producer_parked_at_the_floor_hears_of_the_end() {
    model_of_sleep(Mixed(4, None), "the end wakes a producer that waits for the floor", || {
        let (mut one, ring) = multi(1, &[]);
        one.set_wait(park());
        let mut two = one.clone();
        let claim = one.try_claim(1).unwrap();
        let closing = thread::spawn(move || ring.close());
        assert!(put_wait(&mut two, 1).is_err());
        closing.join().unwrap();
        drop(claim);
    });
}

/// The reader that gates leaves for good while others stand behind it.
/// Allowed: whoever stands behind hears which stage left. Forbidden: it sleeps on.
#[test]
fn a_stage_behind_one_that_left_is_told() {
    model_of_sleep(All, "a stage whose predecessor left is told", || {
        let (_producer, ring) = single(1, &[("first", &[]), ("second", &["first"])]);
        let [first, mut second] = ["first", "second"].map(|name| ring.consumer(name).unwrap());
        let leaving = thread::spawn(move || drop(first));
        let end = second.poll_wait(1).map(|_| ());
        assert!(matches!(end, Err(Closed::Failed { stage, .. }) if stage == "first"));
        leaving.join().unwrap();
    });
}

/// Two parked workers, one event, and the only producer goes.
/// Allowed: one of them gets the event, both hear of the end. Forbidden: either sleeps on.
#[test]
fn parked_workers_hear_of_the_end() {
    model_of_sleep(Within(2), "the end wakes parked workers once all is done", || {
        let mut builder = Builder::single(1, || 0u64);
        builder.workers(Stage::new("pool").wait(park()), 2);
        let (mut producer, ring) = builder.build().unwrap();
        put(&mut producer, 1).unwrap();
        drop(producer);
        let work = |mut worker: slipring_ring::Worker<u64, _>| {
            move || {
                let mut read = 0;
                while let Ok(taken) = worker.take_wait(1) {
                    taken.for_each(|_, _| read += 1);
                }
                (read, worker)
            }
        };
        let other = thread::spawn(work(ring.worker("pool").unwrap()));
        let (read, _worker) = work(ring.worker("pool").unwrap())();
        assert_eq!(read + other.join().unwrap().0, 1);
    });
}

/// A worker parks behind a stage of a ring that is closed already.
/// Allowed: it gets the event once the stage has passed it, then the end. Forbidden: it sleeps on.
#[test]
fn a_worker_behind_a_stage_reads_on_to_the_end() {
    model_of_sleep(All, "workers of a closed ring wait for the stage before them", || {
        let mut builder = declare(Builder::single(1, || 0u64), &[("first", &[])]);
        builder.workers(Stage::new("pool").after(["first"]).wait(park()), 1);
        let (mut producer, ring) = builder.build().unwrap();
        put(&mut producer, 1).unwrap();
        drop(producer);
        let first = reading(ring.consumer("first").unwrap(), 1, 1);
        let mut worker = ring.worker("pool").unwrap();
        let mut read = 0;
        while let Ok(taken) = worker.take_wait(1) {
            taken.for_each(|_, _| read += 1);
        }
        assert_eq!((read, count(first)), (1, 1));
    });
}

/// A stage joins while the ring is closed.
/// Allowed: it is refused, or it joins, is told, and gates nobody. Forbidden: it sleeps on.
#[test]
fn a_newcomer_at_the_end_is_told() {
    model_of_sleep(All, "a stage that joins at the end is refused or told", || {
        let (_producer, ring) = single(1, &[]);
        let closing = {
            let ring = ring.clone();
            thread::spawn(move || ring.close())
        };
        if let Ok(mut late) = ring.join(Stage::new("late").wait(park())) {
            assert_eq!(get_wait(&mut late, 1), None);
        }
        closing.join().unwrap();
    });
}

/// A claim is committed after the ring was closed; the stage before may have been told the end, and left, by then.
/// Allowed: both get the event, or the second one hears of the end without it. Forbidden: it sleeps on.
#[test]
fn a_stage_cut_off_from_a_late_event_is_told() {
    model_of_sleep(Within(2), "a stage is told when the one before has left it nothing", || {
        let (mut producer, ring) = multi(1, &[("first", &[]), ("second", &["first"])]);
        let claim = producer.try_claim(1).unwrap();
        let [mut first, mut second] = ["first", "second"].map(|name| ring.consumer(name).unwrap());
        ring.close();
        let ahead = thread::spawn(move || while get_wait(&mut first, 1).is_some() {});
        let behind = thread::spawn(move || while get_wait(&mut second, 1).is_some() {});
        fill(claim);
        ahead.join().unwrap();
        behind.join().unwrap();
    });
}

/// The same with workers behind.
/// Allowed and forbidden as before.
#[test]
fn workers_cut_off_from_a_late_event_are_told() {
    model_of_sleep(Within(2), "workers are told when the stage before has left them nothing", || {
        let mut builder = declare(Builder::multi(1, || 0u64), &[("first", &[])]);
        builder.workers(Stage::new("pool").after(["first"]).wait(park()), 1);
        let (mut producer, ring) = builder.build().unwrap();
        let claim = producer.try_claim(1).unwrap();
        let mut first = ring.consumer("first").unwrap();
        let mut worker = ring.worker("pool").unwrap();
        ring.close();
        let ahead = thread::spawn(move || while get_wait(&mut first, 1).is_some() {});
        let behind = thread::spawn(move || {
            while let Ok(taken) = worker.take_wait(1) {
                taken.for_each(|_, _| ());
            }
        });
        fill(claim);
        ahead.join().unwrap();
        behind.join().unwrap();
    });
}
