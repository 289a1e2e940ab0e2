//! What a shutdown leaves of a queue that runs: nothing that could be done in time, and no dead letter without a topic.

use slipring::journal::simulated::SimulatedDisk;
use slipring::queue::{Backoff, QueueEnd};
use slipring::{Engine, EngineBuilder, Message, Record, Topic, clock::ManualClock, queue::Order};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);
const DAY: Duration = Duration::from_secs(86_400);

/// Builders of an engine in memory, and of one with a journal.
fn engines() -> [(bool, EngineBuilder); 2] {
    [(false, Engine::builder()), (true, Engine::builder().journal_in(SimulatedDisk::new()))]
}

fn topic(engine: &Engine, name: &str, is_durable: bool) -> Topic<Message> {
    let topic = engine.topic::<Message>(name).capacity(64).max_message(if name == "dead" { 4096 } else { 256 });
    if is_durable { topic.durable() } else { topic }.create().unwrap()
}

fn send(jobs: &Topic<Message>, values: &[&str]) {
    let mut producer = jobs.producer().create().unwrap();
    values.iter().for_each(|value| _ = producer.send(Record::new(*value)).unwrap());
}

/// A shutdown did not wait for what a handler was to try again. The topic for dead letters was closed meanwhile, and in
/// memory the letter was lost.
#[test]
fn what_is_to_be_tried_again_is_done_or_a_dead_letter_before_a_shutdown_returns() {
    for (is_durable, engine) in engines() {
        let engine = engine.build().unwrap();
        // The topic for dead letters is the older one, and the other one has a producer: it was closed first.
        let dead = topic(&engine, "dead", is_durable);
        let jobs = topic(&engine, "jobs", is_durable);
        let letters = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&letters);
        dead.subscribe("count").run(move |_, _| _ = counts.fetch_add(1, Ordering::Relaxed)).unwrap();
        let producer = jobs.producer().create().unwrap();
        let queue = jobs.queue("picky").max_attempts(3).dead_letter("dead");
        let queue = queue.backoff(Backoff::exponential(Duration::from_millis(50), DAY)).open().unwrap();
        let run = queue
            .run(2, |job| match (job.message().value(), job.attempt()) {
                (b"refused", _) | (b"late", 1) => Err("not today"),
                _ => Ok(()),
            })
            .unwrap();
        send(&jobs, &["refused", "late", "fine", "refused"]);
        let report = engine.shutdown(LONG);
        assert_eq!(run.wait_for(LONG), Some(QueueEnd::Finished), "{report}");
        assert_eq!((queue.metrics().acked, queue.metrics().dead), (2, 2), "{report}");
        assert_eq!(letters.load(Ordering::Relaxed), 2, "{report}");
        let left = &report.topics.iter().find(|topic| topic.name == "jobs").unwrap().queues[0];
        // The journal may write the frame with a letter and the end of its message a little later.
        assert_eq!((left.unread, left.leased, left.waiting), (0, 0, 0), "{report}");
        assert!(is_durable || left.dying == 0, "{report}");
        drop(producer);
    }
}

/// A message that cannot be done before the limit is not waited for, in strict order with all that is behind it, and the
/// workers begin nothing more.
#[test]
fn what_comes_due_after_the_limit_is_left_at_once_and_reported() {
    for order in [Order::Relaxed, Order::Strict] {
        for (is_durable, engine) in engines() {
            let engine = engine.clock(ManualClock::new()).build().unwrap();
            let jobs = topic(&engine, "jobs", is_durable);
            let queue = jobs.queue("later").order(order).backoff(Backoff::fixed(DAY)).open().unwrap();
            let (tried, tries) = mpsc::channel();
            let run = queue
                .run(2, move |job| {
                    tried.send(()).unwrap();
                    if job.message().value() == b"later" { Err("tomorrow") } else { Ok(()) }
                })
                .unwrap();
            send(&jobs, &["later", "fine"]);
            tries.recv_timeout(LONG).unwrap();
            let begin = Instant::now();
            let report = engine.shutdown(LONG);
            assert!(begin.elapsed() < LONG / 2, "{:?}: {report}", begin.elapsed());
            assert_eq!(run.wait_for(LONG), Some(QueueEnd::Stopped), "{report}");
            let left = &report.topics.iter().find(|topic| topic.name == "jobs").unwrap().queues[0];
            let unread = u64::from(order == Order::Strict);
            assert_eq!((left.unread, left.leased, left.waiting), (unread, 0, 1), "{report}");
            assert_eq!(report.is_complete(), is_durable && unread == 0, "{report}");
            assert_eq!(queue.metrics().acked, 1 - unread, "{report}");
        }
    }
}

/// A delay that ends within the limit is waited for.
#[test]
fn a_delay_that_ends_within_the_limit_is_waited_for() {
    for (is_durable, engine) in engines() {
        let clock = ManualClock::new();
        let engine = engine.clock(clock.clone()).build().unwrap();
        let jobs = topic(&engine, "jobs", is_durable);
        let queue = jobs.queue("soon").backoff(Backoff::fixed(Duration::from_secs(1))).open().unwrap();
        let (tried, tries) = mpsc::channel();
        let run = queue
            .run(1, move |job| {
                tried.send(job.attempt()).unwrap();
                if job.attempt() == 1 { Err("again") } else { Ok(()) }
            })
            .unwrap();
        send(&jobs, &["soon"]);
        assert_eq!(tries.recv_timeout(LONG).unwrap(), 1);
        // The delay begins when the handler has returned.
        while queue.metrics().nacked == 0 {
            std::thread::yield_now();
        }
        let shuts = engine.clone();
        let shutdown = std::thread::spawn(move || shuts.shutdown(LONG));
        while jobs.closed().is_none() {
            std::thread::yield_now();
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(tries.recv_timeout(LONG).unwrap(), 2);
        let report = shutdown.join().unwrap();
        assert!(report.is_complete(), "{report}");
        assert_eq!((run.wait_for(LONG), queue.metrics().acked), (Some(QueueEnd::Finished), 1), "{report}");
    }
}

/// After the limit each worker ends the message that it has in hand, which the report counts as leased, and begins no other.
#[test]
fn after_the_limit_no_worker_begins_another_message() {
    for (is_durable, engine) in engines() {
        let engine = engine.build().unwrap();
        let jobs = topic(&engine, "jobs", is_durable);
        let queue = jobs.queue("slow").open().unwrap();
        let (begun, begins) = mpsc::channel();
        let (go, goes) = mpsc::channel::<()>();
        let goes = Mutex::new(goes);
        let run = queue
            .run(1, move |_| {
                begun.send(()).unwrap();
                let _ = goes.lock().unwrap().recv();
            })
            .unwrap();
        send(&jobs, &["slow", "never", "never"]);
        begins.recv_timeout(LONG).unwrap();
        let report = engine.shutdown(Duration::from_millis(50));
        let left = &report.topics.iter().find(|topic| topic.name == "jobs").unwrap().queues[0];
        assert_eq!((left.unread, left.leased, left.waiting), (2, 1, 0), "{report}");
        assert_eq!(run.ended(), None);
        go.send(()).unwrap();
        assert_eq!(run.wait_for(LONG), Some(QueueEnd::Stopped));
        assert_eq!((begins.try_recv().is_err(), queue.metrics().acked), (true, 1));
    }
}

/// A shutdown never waits for the thread that calls it: here the handler of the only worker, then of two.
#[test]
fn a_handler_may_shut_the_engine_down() {
    for workers in [1, 2] {
        for (is_durable, engine) in engines() {
            let engine = engine.build().unwrap();
            let jobs = topic(&engine, "jobs", is_durable);
            let queue = jobs.queue("end").open().unwrap();
            let (ended, ends) = mpsc::channel();
            let shuts = engine.clone();
            let barrier = std::sync::Barrier::new(workers);
            let run = queue
                .run(workers, move |_| {
                    barrier.wait();
                    ended.send(shuts.shutdown(LONG)).unwrap();
                })
                .unwrap();
            let values = vec!["end"; workers];
            let begin = Instant::now();
            send(&jobs, &values);
            assert_eq!(run.wait_for(LONG), Some(QueueEnd::Stopped));
            assert!(begin.elapsed() < LONG / 2, "{:?}", begin.elapsed());
            assert_eq!((ends.iter().count(), queue.metrics().delivered), (workers, workers as u64));
        }
    }
}

/// Tasks of another thread are waited for as threads are. Those that only the calling thread polls cannot go on: they are
/// stopped after half a second.
#[test]
fn tasks_are_drained_unless_the_calling_thread_has_to_poll_them() {
    let attempt =
        |job: Arc<slipring::queue::Lease>| async move { if job.attempt() < 3 { Err("again") } else { Ok(()) } };
    for (is_durable, engine) in engines() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let engine = engine.build().unwrap();
        let jobs = topic(&engine, "jobs", is_durable);
        let queue = jobs.queue("tasks").backoff(Backoff::fixed(Duration::from_millis(50))).open().unwrap();
        let (run, tasks) = queue.run_async(2, attempt);
        tasks.into_iter().for_each(|task| _ = runtime.spawn(task));
        send(&jobs, &["a", "b", "c"]);
        while queue.metrics().delivered == 0 {
            std::thread::yield_now();
        }
        let report = engine.shutdown(LONG);
        assert!(report.is_complete(), "{report}");
        assert_eq!(queue.metrics().acked, 3);
        assert_eq!(runtime.block_on(run.wait_async()), QueueEnd::Finished);
    }
    for (is_durable, engine) in engines() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let engine = engine.build().unwrap();
        let jobs = topic(&engine, "jobs", is_durable);
        let queue = jobs.queue("tasks").open().unwrap();
        let (run, tasks) = queue.run_async(1, attempt);
        tasks.into_iter().for_each(|task| _ = runtime.spawn(task));
        let begin = Instant::now();
        let report = runtime.block_on(async {
            tokio::task::yield_now().await;
            send(&jobs, &["a"]);
            engine.shutdown(LONG)
        });
        assert!(begin.elapsed() < LONG / 2, "{:?}: {report}", begin.elapsed());
        assert_eq!(runtime.block_on(run.wait_async()), QueueEnd::Stopped, "{report}");
        assert_eq!(queue.metrics().delivered, 0);
    }
}
