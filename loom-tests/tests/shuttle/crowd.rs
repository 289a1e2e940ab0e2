//! Many producers and consumers at once, and consumers that join and leave.

use crate::support::{check, thread};
use slipring_ring::{Builder, Closed, Consumer, LossyRing, Multi, MultiProducer, Sequence, Stage, Start, Wait, Worker};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PRODUCERS: u64 = 3;
const EVENTS: u64 = 4;

/// The event's producer, its number among that producer's events, and a word that must fit both.
#[derive(Clone, Copy, Debug, Default)]
struct Event {
    producer: u64,
    number: u64,
    check: u64,
}

impl Event {
    fn new(producer: u64, number: u64) -> Self {
        Self { producer, number, check: Self::check_of(producer, number) }
    }

    fn check_of(producer: u64, number: u64) -> u64 {
        (producer << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

fn park() -> Wait {
    Wait::spin_then_park().spin_for(std::time::Duration::ZERO).yields(0).pause(std::time::Duration::ZERO)
}

/// The events that one reader saw. Checks that they are in order and whole, and that each producer's events come in the
/// order in which it published them.
#[derive(Default)]
struct Seen {
    next: [u64; PRODUCERS as usize],
    count: u64,
    last: Option<Sequence>,
}

impl Seen {
    fn see(&mut self, sequence: Sequence, event: &Event) {
        assert_eq!(event.check, Event::check_of(event.producer, event.number), "half an event at {sequence}");
        assert!(self.last.is_none_or(|last| sequence.since(last) == 1), "a gap before {sequence}");
        let next = &mut self.next[event.producer as usize];
        assert!(event.number >= *next, "{event:?} at {sequence} comes after a later one");
        *next = event.number + 1;
        self.last = Some(sequence);
        self.count += 1;
    }
}

fn write(mut producer: MultiProducer<Event>, number: u64) -> thread::JoinHandle<()> {
    producer.set_wait(park());
    thread::spawn(move || {
        for event in 0..EVENTS {
            producer.publish(|slot| *slot = Event::new(number, event)).unwrap();
        }
    })
}

fn write_all(producer: &MultiProducer<Event>) -> Vec<thread::JoinHandle<()>> {
    (0..PRODUCERS).map(|number| write(producer.clone(), number)).collect()
}

/// Reads to the end of the ring.
fn read(mut consumer: Consumer<Event, Multi>, limit: usize) -> (Seen, Closed) {
    let mut seen = Seen::default();
    loop {
        match consumer.poll_wait(limit) {
            Ok(mut batch) => (&mut batch).into_iter().for_each(|(sequence, event)| seen.see(sequence, event)),
            Err(end) => return (seen, end),
        }
    }
}

/// Three producers and four consumers: two in parallel, one after both, and one that repeatedly joins, reads for a
/// while and leaves.
/// Allowed: each consumer reads all events from its start. Forbidden: a gap, a mixed event, a wrong order, a hang.
#[test]
fn consumers_come_and_go_under_three_producers() {
    check(10_000, "three producers, four consumers, of which one comes and goes", || {
        let mut builder = Builder::multi(4, Event::default);
        for name in ["left", "right"] {
            builder.poll(Stage::new(name).wait(park()));
        }
        builder.poll(Stage::new("last").after(["left", "right"]).wait(park()));
        let (producer, ring) = builder.build().unwrap();
        let writers = write_all(&producer);
        drop(producer);
        let consumers = ["left", "right", "last"].map(|name| ring.consumer(name).unwrap());
        let readers = consumers.map(|consumer| thread::spawn(move || read(consumer, 3)));
        let guest = thread::spawn(move || {
            for visit in 0..3 {
                let Ok(mut consumer) = ring.join(Stage::new("guest").wait(park())) else { return };
                let mut seen = Seen::default();
                for _ in 0..=visit {
                    let Ok(mut batch) = consumer.poll_wait(2) else { break };
                    (&mut batch).into_iter().for_each(|(sequence, event)| seen.see(sequence, event));
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        guest.join().unwrap();
        for reader in readers {
            let (seen, end) = reader.join().unwrap();
            assert_eq!((seen.count, end), (PRODUCERS * EVENTS, Closed::Finished));
        }
    });
}

/// Three producers, one of which drops claims and panics while it fills; two readers in a chain, and a third reader
/// that is evicted.
/// Allowed: the first two read the committed events; the third gets its eviction as an error. Forbidden: any slot of the
/// dropped claims, a hang.
#[test]
fn dropped_claims_and_an_eviction() {
    check(10_000, "claims that are dropped or unwound, and an eviction", || {
        let mut builder = Builder::multi(2, Event::default);
        builder.poll(Stage::new("first").wait(park())).poll(Stage::new("second").after(["first"]).wait(park()));
        builder.poll(Stage::new("slow").wait(park()));
        let (producer, ring) = builder.build().unwrap();
        let committed = Arc::new(AtomicU64::new(0));
        let writers: Vec<_> = (0..PRODUCERS)
            .map(|number| {
                let (mut producer, committed) = (producer.clone(), Arc::clone(&committed));
                producer.set_wait(park());
                thread::spawn(move || {
                    for event in 0..EVENTS {
                        match (number + event) % 3 {
                            0 => drop(producer.claim(1).unwrap()),
                            1 => {
                                let unwound = catch_unwind(AssertUnwindSafe(|| {
                                    let _ = producer.publish(|_| std::panic::resume_unwind(Box::new("while it fills")));
                                }));
                                assert!(unwound.is_err());
                            }
                            _ => {
                                producer.publish(|slot| *slot = Event::new(number, event)).unwrap();
                                committed.fetch_add(1, Relaxed);
                            }
                        }
                    }
                })
            })
            .collect();
        drop(producer);
        let readers = ["first", "second"].map(|name| {
            let mut consumer = ring.consumer(name).unwrap();
            thread::spawn(move || {
                let mut count = 0;
                while let Ok(mut batch) = consumer.poll_wait(2) {
                    for (sequence, event) in &mut batch {
                        let expected = Event::check_of(event.producer, event.number);
                        assert_eq!((event.check, (event.producer + event.number) % 3), (expected, 2), "at {sequence}");
                        count += 1;
                    }
                }
                count
            })
        });
        let mut slow = ring.consumer("slow").unwrap();
        // This reader never iterates its batches, so that its position does not move before it is evicted.
        let slow = thread::spawn(move || {
            loop {
                match slow.poll_wait(1) {
                    Ok(_batch) => thread::yield_now(),
                    Err(end) => return end,
                }
            }
        });
        let _ = ring.evict("slow");
        for writer in writers {
            writer.join().unwrap();
        }
        for reader in readers {
            assert_eq!(reader.join().unwrap(), committed.load(Relaxed));
        }
        assert!(matches!(slow.join().unwrap(), Closed::Evicted { .. }));
    });
}

/// Two producers, three workers of one stage, one of which leaves with unfinished events, and a stage after them.
/// Allowed: each event is handled by one worker, and seen by the later stage afterwards. Forbidden: it is handled twice
/// or never, or seen before.
#[test]
fn workers_leave_and_others_adopt() {
    check(10_000, "workers that leave with events in hand", || {
        let mut builder = Builder::multi(4, Event::default);
        builder.workers(Stage::new("pool").wait(park()), 3).poll(Stage::new("last").after(["pool"]).wait(park()));
        let (producer, ring) = builder.build().unwrap();
        let worked: Arc<[AtomicU64; 8]> = Arc::default();
        let writers: Vec<_> = (0..2).map(|number| write(producer.clone(), number)).collect();
        drop(producer);
        let work = |mut worker: Worker<Event, Multi>, worked: Arc<[AtomicU64; 8]>| {
            move || {
                while let Ok(taken) = worker.take_wait(2) {
                    taken.for_each(|sequence, _| {
                        worked[sequence.0 as usize].fetch_add(1, Relaxed);
                    });
                }
            }
        };
        let workers = [(); 2].map(|()| thread::spawn(work(ring.worker("pool").unwrap(), Arc::clone(&worked))));
        let (mut leaver, marks) = (ring.worker("pool").unwrap(), Arc::clone(&worked));
        let leaving = thread::spawn(move || {
            if let Ok(mut taken) = leaver.take_wait(2) {
                taken.next(|sequence, _| {
                    marks[sequence.0 as usize].fetch_add(1, Relaxed);
                });
            }
        });
        let (mut last, marks) = (ring.consumer("last").unwrap(), Arc::clone(&worked));
        let behind = thread::spawn(move || {
            let mut count = 0;
            while let Ok(mut batch) = last.poll_wait(4) {
                for (sequence, _) in &mut batch {
                    assert_eq!(marks[sequence.0 as usize].load(Relaxed), 1, "{sequence} was not worked on before");
                    count += 1;
                }
            }
            count
        });
        writers.into_iter().chain(workers).for_each(|thread| thread.join().unwrap());
        leaving.join().unwrap();
        assert_eq!(behind.join().unwrap(), 8);
        assert!(worked.iter().all(|times| times.load(Relaxed) == 1));
    });
}

/// A lossy ring with two writers, and two readers that wait.
/// Allowed: any whole events in order. Forbidden: the counts of read and lost events do not add up to the written ones.
#[test]
fn lossy_readers_count_what_they_miss() {
    check(10_000, "two lossy writers, two readers", || {
        let (writer, ring) = LossyRing::<[u64; 2]>::multi(2).unwrap();
        let readers = [(); 2].map(|()| {
            let mut reader = ring.reader(Start::Earliest);
            thread::spawn(move || {
                let mut count = 0;
                while let Ok((_, [value, double])) = reader.read_wait() {
                    assert_eq!(double, value * 2, "torn");
                    count += 1;
                }
                count + reader.lost()
            })
        });
        let writers: Vec<_> = (1..3)
            .map(|number| {
                let mut writer = writer.clone();
                thread::spawn(move || {
                    for event in 0..EVENTS {
                        writer.write(&[number * 10 + event, (number * 10 + event) * 2]);
                    }
                })
            })
            .collect();
        drop(writer);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        for reader in readers {
            assert_eq!(reader.join().unwrap(), 2 * EVENTS);
        }
    });
}
