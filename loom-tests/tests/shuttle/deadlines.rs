//! Methods with a deadline, on a clock that each reading advances.

use crate::support::{check, thread};
use slipring_ring::{Builder, ClaimError, Instant, LossyRing, Stage, Start, Wait};
use std::time::Duration;

fn waits() -> [Wait; 3] {
    [
        Wait::spin(),
        Wait::backoff().yields(2),
        Wait::spin_then_park().spin_for(Duration::ZERO).yields(0).pause(Duration::ZERO),
    ]
}

fn soon(microseconds: u64) -> Instant {
    Instant::now().checked_add(Duration::from_micros(microseconds)).unwrap()
}

/// Two producers claim the only slot with a deadline, and a reader is slow.
/// Allowed: a claim succeeds, or the error names the reader. Forbidden: a hang, an event that is lost or read twice.
#[test]
fn publish_until_goes_through_or_names_the_slowest() {
    check(10_000, "publish_until goes through or names the slowest stage", || {
        for wait in waits() {
            let mut builder = Builder::multi(1, || 0u64);
            builder.poll(Stage::new("reader").wait(wait.clone()));
            let (producer, ring) = builder.build().unwrap();
            let writers = [(); 2].map(|()| {
                let mut producer = producer.clone();
                producer.set_wait(wait.clone());
                thread::spawn(move || {
                    let mut published = 0;
                    for _ in 0..2 {
                        match producer.publish_until(soon(30), |event| *event = 7) {
                            Ok(_) => published += 1,
                            // No name: another producer's publish was missing.
                            Err(ClaimError::TimedOut { by }) => assert!(by.is_none_or(|by| by == "reader")),
                            Err(other) => panic!("{other}"),
                        }
                    }
                    published
                })
            });
            drop(producer);
            let mut reader = ring.consumer("reader").unwrap();
            let reading = thread::spawn(move || {
                let mut read = 0;
                while let Ok(mut batch) = reader.poll_wait(1) {
                    read += (&mut batch).into_iter().inspect(|(_, event)| assert_eq!(**event, 7)).count();
                }
                read
            });
            let published: usize = writers.map(|writer| writer.join().unwrap()).into_iter().sum();
            assert_eq!(reading.join().unwrap(), published);
        }
    });
}

/// A producer waits on a full ring that is not read, while another thread reads the positions.
/// Allowed: after the deadline, the error that names the reader. Forbidden: the error before the deadline, or never.
#[test]
fn a_full_ring_lets_the_deadline_pass() {
    check(5_000, "a deadline passes on a full ring", || {
        for wait in waits() {
            let mut builder = Builder::single(1, || 0u64);
            builder.poll("reader");
            let (mut producer, ring) = builder.build().unwrap();
            producer.set_wait(wait);
            producer.publish(|event| *event = 7).unwrap();
            let looked_at = ring.clone();
            let bystander = thread::spawn(move || (0..3).map(|_| looked_at.positions().fill).sum::<u64>());
            let by = soon(20);
            let refused = producer.publish_until(by, |event| *event = 8);
            assert!(by.saturating_duration_since(Instant::now()).is_zero(), "too early");
            assert_eq!(refused, Err(ClaimError::TimedOut { by: Some("reader".to_owned()) }));
            assert_eq!(bystander.join().unwrap(), 3);
        }
    });
}

/// A reader and two workers wait with deadlines, again and again, while a producer publishes.
/// Allowed: no event after the deadline has passed. Forbidden: no event before it has passed, a lost event.
#[test]
fn poll_until_and_take_until_give_events_or_the_deadline() {
    check(10_000, "poll_until and take_until give events, or nothing once it is time", || {
        for wait in waits() {
            let mut builder = Builder::single(2, || 0u64);
            builder.poll(Stage::new("reader").wait(wait.clone()));
            builder.workers(Stage::new("pool").wait(wait), 2);
            let (mut producer, ring) = builder.build().unwrap();
            let mut reader = ring.consumer("reader").unwrap();
            let reading = thread::spawn(move || {
                let mut read = 0;
                loop {
                    let by = soon(10);
                    let Ok(mut batch) = reader.poll_until(2, by) else { return read };
                    let came = (&mut batch).into_iter().count();
                    assert!(came > 0 || by.saturating_duration_since(Instant::now()).is_zero(), "too early");
                    read += came;
                }
            });
            let working = [(); 2].map(|()| {
                let mut worker = ring.worker("pool").unwrap();
                thread::spawn(move || {
                    let mut taken = 0;
                    while let Ok(share) = worker.take_until(1, soon(10)) {
                        share.for_each(|_, _| taken += 1);
                    }
                    taken
                })
            });
            for _ in 0..3 {
                producer.publish(|event| *event += 1).unwrap();
            }
            drop(producer);
            assert_eq!(reading.join().unwrap(), 3);
            assert_eq!(working.map(|worker| worker.join().unwrap()).into_iter().sum::<usize>(), 3);
        }
    });
}

/// A lossy reader waits with a deadline.
/// Allowed: the event, or none after the deadline. Forbidden: none before the deadline, or a hang.
#[test]
fn read_until_gives_the_event_or_the_deadline() {
    check(10_000, "read_until gives an event, or nothing once it is time", || {
        let (mut writer, ring) = LossyRing::<u64>::single(2).unwrap();
        let mut reader = ring.reader(Start::Earliest);
        let writing = thread::spawn(move || writer.write(&7));
        let by = soon(10);
        match reader.read_until(by).unwrap() {
            Some((_, event)) => assert_eq!(event, 7),
            None => assert!(by.saturating_duration_since(Instant::now()).is_zero(), "too early"),
        }
        writing.join().unwrap();
    });
}
