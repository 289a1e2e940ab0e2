//! Workers of a queue as tasks and in a selector: woken once, nothing lost when they are given up.

use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::{
    Engine, Level, Message, Record, Topic,
    clock::{Clock, ManualClock, Timestamp},
    queue::{Lease, Worker},
    subscriber::Selector,
};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::bell::{Bell, bell};
use crate::sleeps::asleep;

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(60);

/// Gives a future up that is not ready after so many looks.
struct Impatient<F> {
    future: F,
    polls: u64,
}

impl<F: Future + Unpin> Future for Impatient<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.future).poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if self.polls == 0 => Poll::Ready(None),
            Poll::Pending => {
                self.polls -= 1;
                Poll::Pending
            }
        }
    }
}

fn once<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

fn jobs(clock: &ManualClock) -> (Engine, Topic<Message>) {
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let jobs = engine.topic::<Message>("jobs").partitions(2).max_message(64).create().unwrap();
    (engine, jobs)
}

fn send(jobs: &Topic<Message>, value: &str) {
    jobs.producer().create().unwrap().send(Record::new(value)).unwrap();
}

fn ready(polled: Poll<Result<Lease, slipring::subscriber::ReadError>>) -> Lease {
    match polled {
        Poll::Ready(lease) => lease.unwrap(),
        Poll::Pending => panic!("there is a message"),
    }
}

#[test]
fn a_task_is_woken_by_a_message_a_delay_and_an_expiry_and_by_nothing_else() {
    let clock = ManualClock::new();
    let (_engine, jobs) = jobs(&clock);
    let builder = || jobs.queue("q").visibility(Duration::from_millis(100));
    let mut worker = builder().join().unwrap();
    let (bell, waker) = bell();
    assert!(once(&mut worker.receive_async(), &waker).is_pending());
    let mut waits = worker.receive_async();
    assert!(once(&mut waits, &waker).is_pending());
    clock.advance(LONG);
    assert_eq!(bell.rung(), 0);
    send(&jobs, "a");
    assert_eq!(bell.rung(), 1);
    let lease = ready(once(&mut waits, &waker));
    drop(waits);
    lease.nack(Duration::from_millis(50), "later").unwrap();
    let mut waits = worker.receive_async();
    assert!(once(&mut waits, &waker).is_pending());
    let rung = bell.rung();
    clock.advance(Duration::from_millis(50));
    assert_eq!(bell.rung(), rung + 1);
    let lease = ready(once(&mut waits, &waker));
    assert_eq!(lease.attempt(), 2);
    lease.leave();
    drop(waits);
    let mut waits = worker.receive_async();
    assert!(once(&mut waits, &waker).is_pending());
    let rung = bell.rung();
    clock.advance(Duration::from_millis(100));
    assert_eq!(bell.rung(), rung + 1);
    assert_eq!(ready(once(&mut waits, &waker)).attempt(), 3);
}

#[test]
fn one_that_is_given_up_after_its_wake_up_leaves_the_message_to_the_next() {
    let (_engine, jobs) = jobs(&ManualClock::new());
    let mut workers: Vec<Worker> = (0..3).map(|_| jobs.queue("q").join().unwrap()).collect();
    let mut bells = Vec::new();
    let mut waits: Vec<_> = workers.iter_mut().map(Worker::receive_async).collect();
    for waits in &mut waits {
        let (bell, waker) = bell();
        assert!(once(waits, &waker).is_pending());
        bells.push((bell, waker));
    }
    send(&jobs, "a");
    // The first one watches; it goes without looking.
    assert_eq!(bells.iter().map(|(bell, _)| bell.rung()).collect::<Vec<_>>(), [1, 0, 0]);
    drop(waits.remove(0));
    assert!(bells[1].0.rung() + bells[2].0.rung() > 0, "somebody else is told");
    let lease = ready(once(&mut waits[0], &bells[1].1));
    assert_eq!(lease.attempt(), 1);
    // And one more for the last, who watches by now or is told by the one who does.
    assert!(once(&mut waits[1], &bells[2].1).is_pending());
    let rung = bells[2].0.rung();
    send(&jobs, "b");
    assert_eq!(bells[2].0.rung(), rung + 1);
    assert_eq!(ready(once(&mut waits[1], &bells[2].1)).message().value(), b"b");
}

/// Polls the waiting tasks that were woken until no more are. Returns the leases by the number of the task.
fn settle<F: Future<Output = Result<Lease, slipring::subscriber::ReadError>> + Unpin>(
    waits: &mut [Option<F>],
    bells: &[(Arc<Bell>, Waker)],
    seen: &mut [usize],
) -> Vec<(usize, Lease)> {
    let mut leases = Vec::new();
    loop {
        let woken: Vec<_> = (0..waits.len()).filter(|&task| bells[task].0.rung() > seen[task]).collect();
        if woken.is_empty() {
            return leases;
        }
        for task in woken {
            seen[task] = bells[task].0.rung();
            if let Some(future) = &mut waits[task]
                && let Poll::Ready(lease) = once(future, &bells[task].1)
            {
                waits[task] = None;
                leases.push((task, lease.unwrap()));
            }
        }
    }
}

#[test]
fn a_message_wakes_two_tasks_whatever_their_number() {
    for tasks in [3, 50, 800] {
        let (_engine, jobs) = jobs(&ManualClock::new());
        let mut workers: Vec<Worker> = (0..tasks).map(|_| jobs.queue("q").join().unwrap()).collect();
        let bells: Vec<_> = (0..tasks).map(|_| bell()).collect();
        let mut waits: Vec<_> = workers.iter_mut().map(|worker| Some(worker.receive_async())).collect();
        for (waits, (_, waker)) in waits.iter_mut().flatten().zip(&bells) {
            assert!(once(waits, waker).is_pending());
        }
        let rung = || bells.iter().map(|(bell, _)| bell.rung()).sum::<usize>();
        let mut seen = vec![0; tasks];
        for message in 0..2 {
            let before = rung();
            send(&jobs, "a");
            let leases = settle(&mut waits, &bells, &mut seen);
            assert_eq!(leases.len(), 1, "{tasks} tasks");
            assert_eq!(leases[0].0, message, "the task that has waited longest");
            assert_eq!(
                rung() - before,
                2,
                "{tasks} tasks: the task that takes the message, and the next one, which watches"
            );
            leases.into_iter().for_each(|(_, lease)| lease.ack().unwrap());
        }
        // All are told of the end.
        jobs.close();
        let mut told = 0;
        while let Some(task) = (0..tasks).find(|&task| waits[task].is_some() && bells[task].0.rung() > seen[task]) {
            seen[task] = bells[task].0.rung();
            if let Poll::Ready(end) = once(waits[task].as_mut().unwrap(), &bells[task].1) {
                assert!(end.is_err());
                (waits[task], told) = (None, told + 1);
            }
        }
        assert_eq!(told, tasks - 2);
    }
}

#[test]
fn a_task_that_is_dropped_after_its_wake_up_wakes_the_next_in_its_place() {
    let (_engine, jobs) = jobs(&ManualClock::new());
    let mut workers: Vec<Worker> = (0..6).map(|_| jobs.queue("q").join().unwrap()).collect();
    let bells: Vec<_> = (0..6).map(|_| bell()).collect();
    let mut waits: Vec<_> = workers.iter_mut().map(|worker| Some(worker.receive_async())).collect();
    for (waits, (_, waker)) in waits.iter_mut().flatten().zip(&bells) {
        assert!(once(waits, waker).is_pending());
    }
    let rung = || bells.iter().map(|(bell, _)| bell.rung()).collect::<Vec<_>>();
    // Dropped while it sleeps: nobody need be woken.
    waits[4] = None;
    send(&jobs, "a");
    send(&jobs, "b");
    assert_eq!(rung(), [1, 0, 0, 0, 0, 0]);
    let lease = ready(once(waits[0].as_mut().unwrap(), &bells[0].1));
    assert_eq!((lease.message().value(), rung()), (&b"a"[..], vec![1, 1, 0, 0, 0, 0]));
    // Each that is dropped between its wake-up and its look wakes one other.
    waits[1] = None;
    assert_eq!(rung(), [1, 1, 1, 0, 0, 0]);
    waits[2] = None;
    assert_eq!(rung(), [1, 1, 1, 1, 0, 0]);
    // One that takes what another one was woken for wakes the next; the woken one finds nothing and watches.
    let mut thief = jobs.queue("q").join().unwrap();
    thief.receive(NOW).unwrap().unwrap().ack().unwrap();
    assert_eq!(rung(), [1, 1, 1, 1, 0, 1]);
    assert!(once(waits[3].as_mut().unwrap(), &bells[3].1).is_pending());
    assert!(once(waits[5].as_mut().unwrap(), &bells[5].1).is_pending());
    send(&jobs, "c");
    assert_eq!(rung(), [1, 1, 1, 2, 0, 1], "the task that watches");
    // The watching task is dropped too: the last one gets the message, and its worker may be asked otherwise as well.
    waits[3] = None;
    assert_eq!(rung(), [1, 1, 1, 2, 0, 2]);
    drop(waits);
    assert_eq!(workers[5].receive(NOW).unwrap().unwrap().message().value(), b"c");
}

#[test]
fn a_thread_and_tasks_wait_at_a_queue_and_a_message_wakes_one_of_them_and_the_next() {
    let (_engine, jobs) = jobs(&ManualClock::new());
    let mut workers: Vec<Worker> = (0..20).map(|_| jobs.queue("q").join().unwrap()).collect();
    let bells: Vec<_> = (0..20).map(|_| bell()).collect();
    let mut waits: Vec<_> = workers.iter_mut().map(|worker| Some(worker.receive_async())).collect();
    for (waits, (_, waker)) in waits.iter_mut().flatten().zip(&bells) {
        assert!(once(waits, waker).is_pending());
    }
    let mut other = jobs.queue("q").join().unwrap();
    let sleeper = asleep(move || other.receive(LONG).unwrap().unwrap().ack().unwrap());
    let mut seen = [0; 20];
    send(&jobs, "a");
    // The task that watches takes it, and wakes the thread, which watches from now on.
    settle(&mut waits, &bells, &mut seen).pop().unwrap().1.ack().unwrap();
    assert_eq!(bells.iter().map(|(bell, _)| bell.rung()).sum::<usize>(), 1);
    // The thread takes the next message, and leaves the watch to the next task.
    send(&jobs, "b");
    sleeper.join();
    assert!(settle(&mut waits, &bells, &mut seen).is_empty());
    send(&jobs, "c");
    assert_eq!(settle(&mut waits, &bells, &mut seen).len(), 1);
}

/// Each frame woke each of them.
#[test]
fn tasks_that_wait_for_messages_of_durable_topics_are_not_woken_by_the_events_of_others() {
    let options = Options { segment_size: 1 << 20, ..Options::default() };
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let topic = |number| engine.topic::<Message>(format!("jobs-{number}")).capacity(16).max_message(64).durable();
    let jobs: Vec<Topic<Message>> = (0..20).map(|number| topic(number).create().unwrap()).collect();
    let mut workers: Vec<Worker> = jobs.iter().map(|jobs| jobs.queue("q").join().unwrap()).collect();
    let mut producer = ticks.producer().acknowledge(Level::Durable).create().unwrap();
    producer.publish(|_| ()).unwrap();
    let bells: Vec<_> = (0..20).map(|_| bell()).collect();
    let mut waits: Vec<_> = workers.iter_mut().map(|worker| Some(worker.receive_async())).collect();
    let mut seen = vec![0; 20];
    // What an opening still writes wakes them.
    for (waits, (_, waker)) in waits.iter_mut().flatten().zip(&bells) {
        assert!(once(waits, waker).is_pending());
    }
    for _ in 0..5 {
        producer.publish(|_| ()).unwrap();
        assert!(settle(&mut waits, &bells, &mut seen).is_empty());
    }
    let rung = || bells.iter().map(|(bell, _)| bell.rung()).sum::<usize>();
    let before = rung();
    for _ in 0..20 {
        producer.publish(|_| ()).unwrap();
    }
    assert_eq!(rung() - before, 0, "wake-ups by the frames of another topic");
    send(&jobs[7], "a");
    let until = std::time::Instant::now() + LONG;
    loop {
        let leases = settle(&mut waits, &bells, &mut seen);
        if let Some((task, lease)) = leases.into_iter().next() {
            assert_eq!((task, lease.message().value()), (7, &b"a"[..]));
            break lease.ack().unwrap();
        }
        assert!(std::time::Instant::now() < until, "the message comes");
        std::thread::yield_now();
    }
    assert!((0..20).all(|task| task == 7 || bells[task].0.rung() == seen[task]));
    // And the end comes.
    jobs[3].close();
    while !matches!(waits[3].as_mut().map(|wait| once(wait, &bells[3].1)), Some(Poll::Ready(Err(_)))) {
        assert!(std::time::Instant::now() < until, "the end comes");
        std::thread::yield_now();
    }
}

/// A clock that panics when it is told to.
#[derive(Clone, Default)]
struct Panicking(Arc<AtomicBool>);

impl Clock for Panicking {
    fn now(&self) -> Duration {
        assert!(!self.0.load(Ordering::SeqCst), "the clock panics");
        Duration::ZERO
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_nanos(0)
    }
}

#[test]
fn a_worker_whose_clock_panics_after_its_wake_up_leaves_the_message_to_the_next() {
    let clock = Panicking::default();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let jobs = engine.topic::<Message>("jobs").max_message(64).create().unwrap();
    let (mut first, mut second) = (jobs.queue("q").join().unwrap(), jobs.queue("q").join().unwrap());
    let mut third = jobs.queue("q").join().unwrap();
    let first = asleep(move || std::panic::catch_unwind(AssertUnwindSafe(|| first.receive(LONG).map(drop))).is_err());
    let second = asleep(move || std::panic::catch_unwind(AssertUnwindSafe(|| second.receive(LONG).map(drop))).is_err());
    let (bell, waker) = bell();
    let mut waits = third.receive_async();
    assert!(once(&mut waits, &waker).is_pending());
    let mut producer = jobs.producer().create().unwrap();
    clock.0.store(true, Ordering::SeqCst);
    producer.send(Record::new("a")).unwrap();
    // The first, which watches, panics, and wakes the second, which panics and wakes the task.
    assert!(first.join());
    assert!(second.join());
    assert_eq!(bell.rung(), 1);
    clock.0.store(false, Ordering::SeqCst);
    assert_eq!(ready(once(&mut waits, &waker)).message().value(), b"a");
}

#[test]
fn a_message_that_was_found_for_a_task_that_is_given_up_goes_on_and_that_attempt_does_not_count() {
    let disk = SimulatedDisk::new();
    let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
    let jobs = engine.topic::<Message>("jobs").max_message(64).durable().create().unwrap();
    let builder = || jobs.queue("q").max_attempts(1).acknowledge(Level::Durable);
    let mut worker = builder().join().unwrap();
    let receipt = jobs.producer().create().unwrap().send(Record::new("a")).unwrap();
    receipt.wait(Level::Durable).unwrap();
    let (bell, waker) = bell();
    // It is found, and its lease waits for the sync: given up there, again and again.
    disk.hold_syncs(true);
    for _ in 0..50 {
        let mut waits = worker.receive_async();
        assert!(once(&mut waits, &waker).is_pending(), "no lease before it is durable");
        let counts = jobs.metrics().queue("q").unwrap().clone();
        assert_eq!((counts.unread, counts.leased), (0, 1), "it was found");
    }
    // Given up when the sync is done, and nobody has looked yet.
    let mut waits = worker.receive_async();
    assert!(once(&mut waits, &waker).is_pending());
    let rung = bell.rung();
    disk.hold_syncs(false);
    let until = std::time::Instant::now() + LONG;
    while bell.rung() == rung {
        assert!(std::time::Instant::now() < until, "it is told of the sync");
        std::thread::yield_now();
    }
    drop(waits);
    let lease = worker.receive(LONG).unwrap().unwrap();
    assert_eq!(lease.attempt(), 1);
    lease.ack().unwrap();
    assert!(worker.queue().dead_letters().next().is_none());
}

#[test]
fn many_tasks_that_are_given_up_at_any_moment_do_every_message_once() {
    for durable in [false, true] {
        let engine = Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap();
        let topic = engine.topic::<Message>("jobs").partitions(2).max_message(64);
        let jobs = if durable { topic.durable() } else { topic }.create().unwrap();
        const MESSAGES: u64 = 300;
        let done: Arc<Mutex<BTreeMap<u64, u32>>> = Arc::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let mut tasks = Vec::new();
            for task in 0..4_u64 {
                let mut worker = jobs.queue("q").join().unwrap();
                let done = Arc::clone(&done);
                tasks.push(tokio::spawn(async move {
                    let mut random = fastrand::Rng::with_seed(task);
                    loop {
                        // At once, or when it was woken so often without getting one.
                        let impatient = Impatient { future: worker.receive_async(), polls: random.u64(..4) };
                        let lease = match impatient.await {
                            None => {
                                tokio::task::yield_now().await;
                                continue;
                            }
                            Some(Ok(lease)) => lease,
                            Some(Err(_)) => return,
                        };
                        assert_eq!(lease.attempt(), 1);
                        let number = u64::from_be_bytes(lease.message().value().try_into().unwrap());
                        *done.lock().unwrap().entry(number).or_default() += 1;
                        lease.ack().unwrap();
                    }
                }));
            }
            let mut producer = jobs.producer().create().unwrap();
            for number in 0..MESSAGES {
                producer.send_async(&Record::new(&number.to_be_bytes())).await.unwrap();
            }
            drop(producer);
            jobs.close();
            for task in tasks {
                task.await.unwrap();
            }
        });
        let done = done.lock().unwrap();
        assert!(done.len() as u64 == MESSAGES && done.values().all(|times| *times == 1), "{durable}: {done:?}");
    }
}

#[test]
fn a_selector_reads_topics_and_queues() {
    let clock = ManualClock::new();
    let (engine, jobs) = jobs(&clock);
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let mut tape = ticks.subscribe("tape").poll().unwrap();
    let mut worker = jobs.queue("q").join().unwrap();
    let mut selector = Selector::round_robin();
    assert_eq!(selector.select(&mut [&mut tape, &mut worker], NOW).unwrap(), None);
    send(&jobs, "a");
    assert_eq!(selector.select(&mut [&mut tape, &mut worker], LONG).unwrap(), Some(1));
    let lease = worker.receive(NOW).unwrap().unwrap();
    assert_eq!((lease.message().value(), lease.attempt()), (&b"a"[..], 1));
    lease.nack(Duration::from_millis(10), "later").unwrap();
    ticks.producer().create().unwrap().publish(|tick| *tick = 7).unwrap();
    assert_eq!(selector.select(&mut [&mut tape, &mut worker], LONG).unwrap(), Some(0));
    assert_eq!((&mut tape.poll(NOW).unwrap().unwrap()).into_iter().count(), 1);
    // While it does not wait, others do not wait for it: a thread is woken by what it could have had.
    assert_eq!(selector.select(&mut [&mut tape, &mut worker], Duration::from_millis(1)).unwrap(), None);
    let mut other = jobs.queue("q").join().unwrap();
    let thread = std::thread::spawn(move || other.receive(LONG).unwrap().map(|lease| lease.ack().unwrap()));
    send(&jobs, "for the thread");
    assert!(thread.join().unwrap().is_some());
    // One that sleeps is woken by a delay that is over.
    let sleeper = asleep(move || {
        assert_eq!(selector.select(&mut [&mut tape, &mut worker], LONG).unwrap(), Some(1));
        let lease = worker.receive(NOW).unwrap().unwrap();
        let attempt = lease.attempt();
        lease.ack().unwrap();
        (attempt, worker)
    });
    clock.advance(Duration::from_millis(10));
    let (attempt, mut worker) = sleeper.join();
    assert_eq!(attempt, 2);
    // What was found and is not taken goes back with the worker, and counts for nothing.
    send(&jobs, "b");
    assert_eq!(Selector::by_priority().select(&mut [&mut worker], LONG).unwrap(), Some(0));
    drop(worker);
    let mut worker = jobs.queue("q").join().unwrap();
    assert_eq!(worker.receive(NOW).unwrap().unwrap().attempt(), 1);
    // An end is something, too.
    jobs.close();
    assert!(worker.receive(NOW).unwrap().is_some(), "the dropped lease");
    assert_eq!(Selector::by_priority().select(&mut [&mut worker], LONG).unwrap(), Some(0));
}
