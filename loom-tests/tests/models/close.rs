//! The end of a ring: all waiting threads are woken and get the end, and none gets it before it has read all events.

use crate::support::*;
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
use slipring_ring::{Builder, ClaimError, Closed, Consumer, Ending, Kind, Producer, Ring, Stage, Worker};
use std::{borrow::BorrowMut, sync::Arc};

/// The only producer publishes and is dropped.
/// Allowed: the reader gets the event, then the end. Forbidden: the end before the event.
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

/// Two producers publish and are dropped; the last one ends the ring for both.
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

/// A reader is parked, and the only producer is dropped without a publish.
/// Allowed: the reader gets the end. Forbidden: it sleeps on.
#[test]
fn a_parked_reader_hears_of_the_end() {
    model_of_sleep(Mixed(2, Some(3)), "the end wakes a parked reader", || {
        let (producer, ring) = single(1, &[("reader", &[])]);
        let mut reader = ring.consumer("reader").unwrap();
        let leaving = thread::spawn(move || drop(producer));
        assert_eq!(get_wait(&mut reader, 1), None);
        leaving.join().unwrap();
    });
}

/// A reader parks after another stage, and the ring is closed with one event published.
/// Allowed: both stages get the event and get the end. Forbidden: either sleeps on.
#[test]
fn parked_stages_read_on_to_the_end() {
    model_of_sleep(Within(1), "a closed ring is read to its end along a chain of parked stages", || {
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
        let refused = producer.claim(1).map(drop);
        let expected = Closed::Failed { stage: "reader".to_owned(), cause: "no paper".to_owned() };
        assert_eq!(refused, Err(ClaimError::Closed(expected)));
        failing.join().unwrap();
    });
}

/// A producer parks on a ring without stages that another producer's claim fills, and the ring is closed.
/// Allowed: it gets the end. Forbidden: it sleeps on.
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

/// A stage leaves for good while another stage is ordered after it.
/// Allowed: the later stage gets the name of the stage that left. Forbidden: it sleeps on.
#[test]
fn a_stage_behind_one_that_left_is_told() {
    model_of_sleep(Within(2), "a stage whose predecessor left is told", || {
        let (_producer, ring) = single(1, &[("first", &[]), ("second", &["first"])]);
        let [first, mut second] = ["first", "second"].map(|name| ring.consumer(name).unwrap());
        let leaving = thread::spawn(move || drop(first));
        let end = second.poll_wait(1).map(|_| ());
        assert!(matches!(end, Err(Closed::Failed { stage, .. }) if stage == "first"));
        leaving.join().unwrap();
    });
}

/// Two workers are parked with one event published, and the only producer is dropped.
/// Allowed: one worker gets the event, both get the end. Forbidden: either sleeps on.
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

/// A worker parks after a stage, in a ring that is closed already.
/// Allowed: it gets the event once the stage has passed it, then the end. Forbidden: it sleeps on.
#[test]
fn a_worker_behind_a_stage_reads_on_to_the_end() {
    model_of_sleep(Within(2), "workers of a closed ring wait for the stage before them", || {
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

/// A stage joins while the ring is being closed.
/// Allowed: it is refused, or it joins, gets the end, and gates no producer. Forbidden: it sleeps on.
#[test]
fn a_newcomer_at_the_end_is_told() {
    model_of_sleep(Within(2), "a stage that joins at the end is refused or told", || {
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

/// A claim is committed after the ring was closed, and two stages wait for it.
/// Allowed: both get the event, then the end. Forbidden: the end before the event, or either sleeps on.
#[test]
fn a_late_event_is_read_by_all() {
    model_of_sleep(Within(2), "an event that was claimed before the close is read by a chain of stages", || {
        let (mut producer, ring) = multi(1, &[("first", &[]), ("second", &["first"])]);
        let claim = producer.try_claim(1).unwrap();
        let [first, second] = ["first", "second"].map(|name| ring.consumer(name).unwrap());
        ring.close();
        let [ahead, behind] = [first, second].map(|consumer| thread::spawn(move || read_out(consumer)));
        assert!(fill(claim).is_ok());
        assert_eq!([ahead, behind].map(|stage| stage.join().unwrap()), [1, 1]);
    });
}

/// A claim is committed after the ring was closed, and a stage and a worker after it wait for it.
/// Allowed: both get the event, then the end. Forbidden: the end before the event, or either sleeps on.
#[test]
fn a_late_event_is_read_by_workers_behind() {
    model_of_sleep(Within(2), "an event that was claimed before the close is read by workers", || {
        let mut builder = declare(Builder::multi(1, || 0u64), &[("first", &[])]);
        builder.workers(Stage::new("pool").after(["first"]).wait(park()), 1);
        let (mut producer, ring) = builder.build().unwrap();
        let claim = producer.try_claim(1).unwrap();
        let (first, worker) = (ring.consumer("first").unwrap(), ring.worker("pool").unwrap());
        ring.close();
        let ahead = thread::spawn(move || read_out(first));
        let behind = thread::spawn(move || work_out(worker));
        assert!(fill(claim).is_ok());
        assert_eq!([ahead, behind].map(|stage| stage.join().unwrap()), [1, 1]);
    });
}

/// A stage of a closed ring changes the last event, and a worker is ordered after it.
/// Allowed: the worker gets the changed event. Forbidden: the unchanged event, a read during the change.
#[test]
fn what_was_changed_after_the_close_is_seen_by_workers_behind() {
    model(Within(3), "a change in a closed ring is seen by workers behind", || {
        let mut builder = Builder::single(1, || 0u64);
        builder.poll_mut("change").workers(Stage::new("pool").after(["change"]), 1);
        let (mut producer, ring) = builder.build().unwrap();
        producer.try_publish(|event| *event = 1).unwrap();
        let (mut change, mut worker) = (ring.consumer_mut("change").unwrap(), ring.worker("pool").unwrap());
        ring.close();
        let changing = thread::spawn(move || {
            (&mut change.poll(1).unwrap()).into_iter().for_each(|(_, event)| *event += 1);
            change
        });
        for _ in 0..2 {
            let Ok(taken) = worker.take(1) else { break };
            taken.for_each(|_, event| assert_eq!(*event, 2));
        }
        changing.join().unwrap();
    });
}

/// A stage handles the last event while the ring is reported.
/// Allowed: the report says that it is drained, or that it is not. Forbidden: the report says drained, but the stage's
/// work is not visible.
#[test]
fn who_reports_a_stage_as_drained_sees_what_it_did() {
    model(Within(3), "a report that calls a stage drained comes after its work", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        put(&mut producer, 1).unwrap();
        let mut reader = ring.consumer("reader").unwrap();
        ring.close();
        let work = Arc::new(AtomicU64::new(0));
        let done = Arc::clone(&work);
        let reading = thread::spawn(move || {
            (&mut reader.poll(1).unwrap()).into_iter().for_each(|_| done.store(1, Relaxed));
            reader
        });
        let report = ring.report();
        let [stage] = &report.stages[..] else { panic!("{report}") };
        assert!(stage.ending != Some(Ending::Drained) || work.load(Relaxed) == 1, "drained before it was done");
        reading.join().unwrap();
    });
}

/// Reads to the end. Returns the count of events.
fn read_out<K: Kind>(mut consumer: impl BorrowMut<Consumer<u64, K>>) -> u64 {
    let consumer = consumer.borrow_mut();
    let mut read = 0;
    while let Ok(batch) = consumer.poll_wait(1) {
        read += check_batch(batch, false);
    }
    read
}

/// Takes and handles events to the end. Returns their count.
fn work_out<K: Kind>(mut worker: Worker<u64, K>) -> u64 {
    let mut read = 0;
    while let Ok(taken) = worker.take_wait(2) {
        taken.for_each(|sequence, event| {
            assert_eq!(*event, value_of(sequence), "not what was written at {sequence}");
            read += 1;
        });
    }
    read
}

/// Publishes while the ring is being closed and read to its end.
fn publishes_while_closed<K: Kind>(mut producer: Producer<u64, K>, ring: Ring<u64, K>) {
    let mut reader = ring.consumer("reader").unwrap();
    let writing = thread::spawn(move || u64::from(put(&mut producer, 1).is_ok()));
    ring.close();
    let read = read_out(&mut reader);
    assert_eq!(read, writing.join().unwrap(), "acknowledged and read");
    // A claim that was made after the end was recorded leaves a skipped slot beyond it.
    assert_eq!(reader.consumed(), ring.published(), "the reader's position and the end");
}

/// The only producer publishes while the ring is being closed.
/// Allowed: `Ok` and the event, or an error and no event. Forbidden: `Ok` and the end without the event, or no end.
#[test]
fn a_publish_that_overlaps_a_close_is_read_or_refused() {
    model_of_sleep(Mixed(2, Some(3)), "what a single producer was told is what the reader gets", || {
        let (producer, ring) = single(1, &[("reader", &[])]);
        publishes_while_closed(producer, ring);
    });
}

/// The only multi producer publishes, by a plain store, while the ring is being closed.
/// Allowed: `Ok` and the event, or an error and no event. Forbidden: `Ok` and the end without the event, or no end.
#[test]
fn a_publish_alone_that_overlaps_a_close_is_read_or_refused() {
    model_of_sleep(Mixed(2, Some(3)), "what a multi producer that is alone was told is what the reader gets", || {
        let (producer, ring) = multi(1, &[("reader", &[])]);
        publishes_while_closed(producer, ring);
    });
}

/// One of two multi producers publishes, by an exchange, while the ring is being closed. The other does nothing.
/// Allowed: `Ok` and the event, or an error and no event. Forbidden: `Ok` and the end without the event, or no end.
#[test]
fn a_publish_among_others_that_overlaps_a_close_is_read_or_refused() {
    model_of_sleep(Mixed(2, Some(3)), "what a multi producer among others was told is what the reader gets", || {
        let (producer, ring) = multi(1, &[("reader", &[])]);
        let other = producer.clone();
        publishes_while_closed(producer, ring);
        drop(other);
    });
}

/// Two producers publish while the ring is being closed, and a reader polls.
/// Allowed: as many events as were acknowledged. Forbidden: fewer, or an event after the end.
#[test]
fn two_publishes_that_overlap_a_close_are_read_or_refused() {
    model_of_sleep(Mixed(1, Some(2)), "what two producers were told is what the reader gets", || {
        let (one, ring) = multi(2, &[("reader", &[])]);
        let two = one.clone();
        let mut reader = ring.consumer("reader").unwrap();
        let writing = [one, two].map(|mut producer| thread::spawn(move || u64::from(put(&mut producer, 1).is_ok())));
        ring.close();
        let mut read = 0;
        let over = match reader.poll(2) {
            Ok(batch) => {
                read += check_batch(batch, false);
                false
            }
            Err(_) => true,
        };
        let acknowledged: u64 = writing.into_iter().map(|writing| writing.join().unwrap()).sum();
        if over {
            assert!(reader.poll(2).is_err(), "an event after the end");
        }
        assert_eq!(read + read_out(&mut reader), acknowledged, "acknowledged and read");
    });
}

/// A claim is dropped while the ring is being closed, and a reader waits for the end.
/// Allowed: the end. Forbidden: an event, or the reader sleeps on.
fn drops_while_closed<K: Kind>(mut producer: Producer<u64, K>, ring: Ring<u64, K>) {
    let reader = ring.consumer("reader").unwrap();
    let dropping = thread::spawn(move || {
        drop(producer.try_claim(1));
        producer
    });
    ring.close();
    assert_eq!(read_out(reader), 0);
    dropping.join().unwrap();
}

#[test]
fn a_claim_dropped_by_the_only_producer_keeps_nobody() {
    model_of_sleep(
        Mixed(2, Some(3)),
        "a single producer's dropped claim does not keep the reader from the end",
        || {
            let (producer, ring) = single(1, &[("reader", &[])]);
            drops_while_closed(producer, ring);
        },
    );
}

#[test]
fn a_claim_dropped_by_one_of_several_keeps_nobody() {
    model_of_sleep(Mixed(1, Some(2)), "a multi producer's dropped claim does not keep the reader from the end", || {
        let (producer, ring) = multi(1, &[("reader", &[])]);
        drops_while_closed(producer, ring);
    });
}

/// The first slot of a claim of two is published and the other one given back, while the ring is being closed.
/// Allowed: `Ok` and one event, or an error and none, then the end. Forbidden: another count, or no end.
fn gives_back_while_closed<K: Kind>(mut producer: Producer<u64, K>, ring: Ring<u64, K>) {
    let reader = ring.consumer("reader").unwrap();
    let writing = thread::spawn(move || match producer.try_claim(2) {
        Ok(mut claim) => {
            claim.iter_mut().for_each(|(sequence, event)| *event = value_of(sequence));
            u64::from(claim.commit_first(1).is_ok())
        }
        Err(_) => 0,
    });
    ring.close();
    let read = read_out(reader);
    assert_eq!(read, writing.join().unwrap(), "acknowledged and read");
}

#[test]
fn a_claim_in_parts_by_the_only_producer_is_read_or_given_back() {
    model_of_sleep(Mixed(2, Some(3)), "a part of a single producer's claim is read, and the rest keeps nobody", || {
        let (producer, ring) = single(2, &[("reader", &[])]);
        gives_back_while_closed(producer, ring);
    });
}

#[test]
fn a_claim_in_parts_by_one_of_several_is_read_or_given_back() {
    model_of_sleep(Mixed(1, Some(2)), "a part of a multi producer's claim is read, and the rest keeps nobody", || {
        let (producer, ring) = multi(2, &[("reader", &[])]);
        gives_back_while_closed(producer, ring);
    });
}

/// A claim is not committed, and a reader sleeps before it when it is cut.
/// Allowed: the reader gets the event after the claim, then the end. Forbidden: it sleeps on.
#[test]
fn a_claim_that_is_stuck_is_cut() {
    model_of_sleep(Within(2), "a cut wakes who waits for a claim, and what lies behind it is read", || {
        let (mut one, ring) = multi(2, &[("reader", &[])]);
        let mut two = one.clone();
        let reader = ring.consumer("reader").unwrap();
        let stuck = one.try_claim(1).unwrap();
        assert!(put(&mut two, 1).is_ok());
        let reading = thread::spawn(move || read_out(reader));
        assert_eq!(ring.cut().len(), 1);
        assert_eq!(reading.join().unwrap(), 1);
        assert_eq!(fill(stuck), Err(Closed::Cut));
    });
}

/// A claim of the only producer is committed while it is being cut, and a reader reads to the end.
/// Allowed: `Ok` and the event, or an error and no event. Forbidden: one without the other, or no end.
#[test]
fn a_commit_that_overlaps_the_cut_is_read_or_refused() {
    model_of_sleep(Within(2), "what a commit at the cut was told is what the reader gets", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        let reader = ring.consumer("reader").unwrap();
        let claim = producer.try_claim(1).unwrap();
        let cutting = thread::spawn(move || ring.cut().len());
        let reading = thread::spawn(move || read_out(reader));
        let acknowledged = u64::from(fill(claim).is_ok());
        assert_eq!(reading.join().unwrap(), acknowledged, "acknowledged and read");
        cutting.join().unwrap();
    });
}

/// Two claims are committed while a cut takes all claims but one.
/// Allowed: the kept claim's event, and the other one's event if its commit returned `Ok`. Forbidden: an error for the
/// kept claim, the kept event lost, an acknowledged event lost, or no end.
#[test]
fn a_claim_that_a_cut_keeps_is_read() {
    model_of_sleep(Mixed(1, Some(2)), "a claim that a cut keeps is committed and read", || {
        let (mut one, ring) = multi(2, &[("reader", &[])]);
        let mut two = one.clone();
        let reader = ring.consumer("reader").unwrap();
        let (other, kept) = (one.try_claim(1).unwrap(), two.try_claim(1).unwrap());
        let keeps = [kept.sequences()];
        let cutting = thread::spawn(move || ring.cut_except(&keeps).len());
        let reading = thread::spawn(move || read_out(reader));
        assert!(fill(kept).is_ok(), "the kept claim was refused");
        let acknowledged = u64::from(fill(other).is_ok());
        assert_eq!(reading.join().unwrap(), 1 + acknowledged, "acknowledged and read");
        assert_eq!(cutting.join().unwrap() as u64, 1 - acknowledged);
    });
}

/// A claim of two slots, followed by another producer's event, is committed while it is being cut.
/// Allowed: `Ok` and all three events, or an error and the later event. Forbidden: half of the claim, or the later
/// event is lost.
#[test]
fn a_long_commit_that_overlaps_the_cut_is_read_whole_or_refused() {
    model_of_sleep(
        Mixed(2, Some(3)),
        "a claim at the cut is read whole or not at all, and what lies behind is read",
        || {
            let (mut one, ring) = multi(4, &[("reader", &[])]);
            let mut two = one.clone();
            let reader = ring.consumer("reader").unwrap();
            let claim = one.try_claim(2).unwrap();
            assert!(put(&mut two, 1).is_ok());
            let cutting = thread::spawn(move || ring.cut().len());
            let reading = thread::spawn(move || read_out(reader));
            let acknowledged = if fill(claim).is_ok() { 2 } else { 0 };
            assert_eq!(reading.join().unwrap(), acknowledged + 1, "acknowledged and read");
            cutting.join().unwrap();
        },
    );
}

/// A claim is committed while it is being cut, and two stages read, one after the other.
/// Allowed: both get the event, or neither. Forbidden: one of them gets it, or no end.
#[test]
fn stages_behind_stages_agree_on_what_was_cut() {
    model_of_sleep(Mixed(1, Some(2)), "a chain of stages reads what a commit at the cut was told", || {
        let (mut producer, ring) = single(1, &[("first", &[]), ("second", &["first"])]);
        let [first, second] = ["first", "second"].map(|name| ring.consumer(name).unwrap());
        let claim = producer.try_claim(1).unwrap();
        let cutting = thread::spawn(move || ring.cut().len());
        let reading = thread::spawn(move || [read_out(first), read_out(second)]);
        let acknowledged = u64::from(fill(claim).is_ok());
        assert_eq!(reading.join().unwrap(), [acknowledged; 2], "acknowledged and read");
        cutting.join().unwrap();
    });
}

/// A claim is committed while it is being cut, and a worker takes events to the end.
/// Allowed: `Ok` and all events, or an error and none. Forbidden: some of the events, or no end.
fn workers_at_the_cut<K: Kind>(builder: Builder<u64, K>) {
    let mut builder = builder;
    builder.workers(Stage::new("pool").wait(park()), 1);
    let (mut producer, ring) = builder.build().unwrap();
    let worker = ring.worker("pool").unwrap();
    let claim = producer.try_claim(1).unwrap();
    let cutting = thread::spawn(move || ring.cut().len());
    let working = thread::spawn(move || work_out(worker));
    let acknowledged = u64::from(fill(claim).is_ok());
    assert_eq!(working.join().unwrap(), acknowledged, "acknowledged and done");
    cutting.join().unwrap();
}

#[test]
fn workers_do_what_a_commit_at_the_cut_was_told() {
    model_of_sleep(Mixed(2, Some(3)), "workers are given what a commit at the cut was told", || {
        workers_at_the_cut(Builder::single(1, || 0u64));
    });
}

#[test]
fn workers_do_what_a_stamp_at_the_cut_was_told() {
    model_of_sleep(Mixed(2, Some(3)), "workers are given what a stamp at the cut was told", || {
        workers_at_the_cut(Builder::multi(1, || 0u64));
    });
}

/// A producer publishes while the ring is being halted.
/// Allowed: `Ok`, and the report counts the event as unread or the reader has it; or an error, and neither. Forbidden:
/// `Ok`, and the event is neither read nor reported.
#[test]
fn a_publish_that_overlaps_a_halt_is_in_the_report() {
    model_of_sleep(Mixed(2, Some(3)), "the report counts what was acknowledged before a halt", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        let mut reader = ring.consumer("reader").unwrap();
        let halting = thread::spawn(move || ring.halt().stages[0].left);
        let reading = thread::spawn(move || {
            let read = get(&mut reader, 1);
            (read, reader)
        });
        let acknowledged = u64::from(put(&mut producer, 1).is_ok());
        let left = halting.join().unwrap();
        let (read, _reader) = reading.join().unwrap();
        assert!(left <= acknowledged && acknowledged <= read + left, "{acknowledged} told, {read} read, {left} left");
        assert!(read <= acknowledged);
    });
}

/// A stage fails with one event unread and leaves, and the producer, which then finds room, claims once more.
/// Allowed: the claim is refused, and the event is reported as unread. Forbidden: the withdrawn claim stamps over the
/// event.
#[test]
fn what_was_left_is_reported_after_a_late_claim() {
    model_of_sleep(Within(1), "a claim that comes too late leaves the slots of unread events alone", || {
        let mut builder = Builder::multi(1, || 0u64);
        builder.run(Stage::new("fails").wait(park()), || |_: &u64, _, _| Err::<(), _>("no paper"));
        let (mut producer, ring) = builder.build().unwrap();
        assert!(put(&mut producer, 1).is_ok());
        let refused = put_wait(&mut producer, 1);
        assert!(matches!(refused, Err(ClaimError::Closed(Closed::Failed { .. }))), "{refused:?}");
        let report = ring.shutdown(std::time::Duration::from_secs(1));
        let [stage] = &report.stages[..] else { panic!("{report}") };
        assert_eq!(stage.left, 1, "{report}");
    });
}

/// Reads to the end as a committer does: it puts back the events that it read, so that their slots are kept, and seeks
/// past them once they are written. Returns the count of events.
fn write_out<K: Kind>(mut consumer: Consumer<u64, K>) -> u64 {
    let mut written = 0;
    loop {
        let Ok(mut batch) = consumer.poll_wait(2) else { return written };
        let from = batch.position();
        let mut end = from;
        for (sequence, event) in &mut batch {
            assert_eq!(*event, value_of(sequence), "not what was written at {sequence}");
            (end, written) = (sequence.plus(1), written + 1);
        }
        batch.put_back(from);
        drop(batch);
        assert_eq!(consumer.consumed(), from, "let go before it was written");
        consumer.seek(end).unwrap();
    }
}

/// The only producer publishes while the ring is being closed, and the reader releases an event only after it has
/// written it.
/// Allowed: `Ok` and the event, once, or an error and no event. Forbidden: `Ok` and the end without the event, the
/// event twice, or no end.
#[test]
fn who_writes_before_it_lets_go_writes_what_was_acknowledged() {
    model_of_sleep(Mixed(1, Some(2)), "who puts back, writes and seeks has written what was acknowledged", || {
        let (mut producer, ring) = single(2, &[("reader", &[])]);
        let reader = ring.consumer("reader").unwrap();
        put(&mut producer, 1).unwrap();
        let writing = thread::spawn(move || 1 + u64::from(put(&mut producer, 1).is_ok()));
        ring.close();
        assert_eq!(write_out(reader), writing.join().unwrap(), "acknowledged and written");
    });
}

/// The last claim is withdrawn while the ring is being closed, which leaves a gap at the very end.
/// Allowed: the event before the gap, then the end. Forbidden: an event of the claim, or no end.
fn writes_up_to_a_withdrawn_claim<K: Kind>(mut producer: Producer<u64, K>, ring: Ring<u64, K>) {
    let reader = ring.consumer("reader").unwrap();
    put(&mut producer, 1).unwrap();
    let dropping = thread::spawn(move || {
        drop(producer.try_claim(1));
        producer
    });
    ring.close();
    assert_eq!(write_out(reader), 1);
    dropping.join().unwrap();
}

#[test]
fn who_writes_before_it_lets_go_hears_of_the_end_behind_a_gap() {
    model_of_sleep(Mixed(1, Some(2)), "a single producer's withdrawn last claim keeps no writer from the end", || {
        let (producer, ring) = single(2, &[("reader", &[])]);
        writes_up_to_a_withdrawn_claim(producer, ring);
    });
}

#[test]
fn who_writes_before_it_lets_go_hears_of_the_end_behind_a_skipped_slot() {
    model_of_sleep(Mixed(1, Some(2)), "a multi producer's withdrawn last claim keeps no writer from the end", || {
        let (producer, ring) = multi(2, &[("reader", &[])]);
        writes_up_to_a_withdrawn_claim(producer, ring);
    });
}
