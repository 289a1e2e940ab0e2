//! Workers whose handler does the work, and nothing else.

use slipring::queue::{Backoff, Queue, QueueEnd};
use slipring::{Engine, Message, Record, Topic, clock::ManualClock};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

fn send(jobs: &Topic<Message>, values: &[&str]) {
    let mut producer = jobs.producer().create().unwrap();
    values.iter().for_each(|value| _ = producer.send(Record::new(*value)).unwrap());
}

fn reasons(queue: &Queue) -> Vec<String> {
    queue.dead_letters().map(|letter| letter.unwrap().reason).collect()
}

#[test]
fn every_message_is_handled_once_and_a_shutdown_lets_the_workers_finish() {
    let engine = Engine::builder().build().unwrap();
    let jobs = engine.topic::<Message>("jobs").capacity(64).create().unwrap();
    let queue = jobs.queue("sum").open().unwrap();
    let sum = Arc::new(AtomicU64::new(0));
    let adds = Arc::clone(&sum);
    let run = queue
        .run(3, move |job| {
            let value = std::str::from_utf8(job.message().value()).unwrap().parse().unwrap();
            adds.fetch_add(value, Ordering::Relaxed);
        })
        .unwrap();
    let mut producer = jobs.producer().create().unwrap();
    (1..=1000).for_each(|value: u64| _ = producer.send(Record::new(&value.to_string())).unwrap());
    drop(producer);
    let report = engine.shutdown(LONG);
    assert!(report.is_complete(), "{report}");
    assert_eq!(run.wait(), QueueEnd::Finished);
    assert_eq!((sum.load(Ordering::Relaxed), run.ended()), (500_500, Some(QueueEnd::Finished)));
}

#[test]
fn an_error_or_a_panic_is_tried_again_and_then_a_dead_letter_with_the_reason() {
    let engine = Engine::builder().build().unwrap();
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    let queue = jobs.queue("picky").max_attempts(2).backoff(Backoff::NONE).open().unwrap();
    let (tried, tries) = mpsc::channel();
    let run = queue
        .run(1, move |job| {
            tried.send((job.message().value().to_vec(), job.attempt())).unwrap();
            match job.message().value() {
                b"refused" => Err("not today"),
                b"broken" => panic!("on purpose"),
                _ => Ok(()),
            }
        })
        .unwrap();
    send(&jobs, &["refused", "broken", "fine"]);
    jobs.close();
    assert_eq!(run.wait(), QueueEnd::Finished);
    let mut tries: Vec<_> = tries.iter().collect();
    tries.sort();
    let expected: [(&[u8], u32); 5] = [(b"broken", 1), (b"broken", 2), (b"fine", 1), (b"refused", 1), (b"refused", 2)];
    assert_eq!(tries, expected.map(|(value, attempt)| (value.to_vec(), attempt)));
    let mut reasons = reasons(&queue);
    reasons.sort();
    assert_eq!(reasons, ["not today", "panicked: on purpose"]);
    assert_eq!(queue.metrics().acked, 1);
}

/// A handler that took longer than its lease lost the message to another worker, and did the work twice.
#[test]
fn a_lease_is_renewed_while_its_handler_works() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    let queue = jobs.queue("long").visibility(Duration::from_secs(30)).open().unwrap();
    let (begun, begins) = mpsc::channel();
    let (go, goes) = mpsc::channel::<()>();
    let goes = std::sync::Mutex::new(goes);
    let run = queue
        .run(2, move |job| {
            begun.send(job.attempt()).unwrap();
            goes.lock().unwrap().recv().map_err(|gone| gone.to_string())
        })
        .unwrap();
    send(&jobs, &["a film"]);
    assert_eq!(begins.recv_timeout(LONG).unwrap(), 1);
    for _ in 0..10 {
        clock.advance(Duration::from_secs(20));
    }
    assert_eq!((queue.metrics().leased, queue.metrics().expired), (1, 0));
    go.send(()).unwrap();
    run.stop();
    assert_eq!(run.wait_for(LONG), Some(QueueEnd::Stopped));
    assert_eq!((queue.metrics().acked, begins.try_recv().is_err()), (1, true));

    // Without a handler that runs, nothing is renewed.
    send(&jobs, &["a song"]);
    let mut worker = jobs.queue("long").visibility(Duration::from_secs(30)).join().unwrap();
    let mut lease = worker.receive(LONG).unwrap().unwrap();
    lease.keep();
    clock.advance(Duration::from_secs(20));
    assert_eq!(lease.left(), Duration::from_secs(30));
    lease.leave();
    clock.advance(Duration::from_secs(30));
    assert_eq!(queue.metrics().expired, 1);
}

#[test]
fn a_stop_lets_each_worker_end_its_message_and_wakes_those_that_wait() {
    let engine = Engine::builder().build().unwrap();
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    let queue = jobs.queue("idle").open().unwrap();
    let run = queue.run(4, |_| ()).unwrap();
    assert_eq!(run.wait_for(Duration::ZERO), None);
    run.clone().stop();
    assert_eq!(run.wait_for(LONG), Some(QueueEnd::Stopped));
    send(&jobs, &["nobody works any more"]);
    assert_eq!(queue.metrics().acked, 0);
    // Another run goes on.
    let run = queue.run(0, |_| ()).unwrap();
    jobs.close();
    assert_eq!((run.wait(), queue.metrics().acked), (QueueEnd::Finished, 1));
}

#[test]
fn a_batch_of_leases_is_what_may_be_leased_now() {
    let engine = Engine::builder().build().unwrap();
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    let mut worker = jobs.queue("index").join().unwrap();
    assert!(worker.receive_batch(9, Duration::ZERO).unwrap().is_empty());
    send(&jobs, &["a", "b", "c"]);
    jobs.close();
    assert!(worker.receive_batch(0, LONG).unwrap().is_empty());
    let two = worker.receive_batch(2, LONG).unwrap();
    assert_eq!(two.iter().map(|it| it.offset()).collect::<Vec<_>>(), [0, 1]);
    let rest = worker.receive_batch(9, LONG).unwrap();
    assert_eq!(rest.len(), 1);
    two.into_iter().chain(rest).for_each(|lease| lease.ack().unwrap());
    assert!(worker.receive_batch(9, LONG).is_err(), "the queue has ended");
}

/// A batch of leases synced the journal once for each of them, and a task that waited for one blocked its thread meanwhile.
#[test]
fn a_batch_of_leases_waits_for_the_journal_once_and_a_future_that_is_dropped_takes_none() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let disk = slipring::journal::simulated::SimulatedDisk::new();
    let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
    let jobs = engine.topic::<Message>("jobs").durable().create().unwrap();
    let queue = jobs.queue("index").visibility(Duration::from_secs(86_400)).acknowledge(slipring::Level::Durable);
    let mut worker = queue.join().unwrap();
    let values: Vec<String> = (0..64).map(|value| value.to_string()).collect();
    // Workers see what is written.
    let mut producer = jobs.producer().create().unwrap();
    let sent = values.iter().map(|value| producer.send(Record::new(value.as_str())).unwrap()).last().unwrap();
    sent.wait(slipring::Level::Durable).unwrap();
    let syncs = || engine.metrics().journal.unwrap().syncs;
    let before = syncs();
    let batch = worker.receive_batch(32, LONG).unwrap();
    assert!(batch.iter().map(|it| it.offset()).eq(0..32) && batch.iter().all(|it| it.left() > Duration::ZERO));
    assert!(syncs() - before < 16, "{} syncs for 32 leases", syncs() - before);

    // Polled once, the future has leased the others and waits for the journal.
    disk.hold_syncs(true);
    {
        let mut future = std::pin::pin!(worker.receive_batch_async(99));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::future::Future::poll(future.as_mut(), &mut context).is_pending());
    }
    disk.hold_syncs(false);
    let rest = runtime.block_on(worker.receive_batch_async(99)).unwrap();
    assert!(rest.iter().map(|it| it.offset()).eq(32..64) && rest.iter().all(|it| it.attempt() == 1));
    assert!(runtime.block_on(worker.receive_batch_async(0)).unwrap().is_empty());
    batch.into_iter().chain(rest).for_each(|lease| lease.ack().unwrap());
    jobs.close();
    assert!(runtime.block_on(worker.receive_batch_async(1)).is_err(), "the queue has ended");
}

#[test]
fn tasks_handle_retry_and_end_as_threads_do() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let disk = slipring::journal::simulated::SimulatedDisk::new();
    let engine = Engine::builder().journal_in(disk).build().unwrap();
    let jobs = engine.topic::<Message>("jobs").durable().create().unwrap();
    let queue = jobs.queue("picky").max_attempts(2).acknowledge(slipring::Level::Durable).open().unwrap();
    let work = |job: Arc<slipring::queue::Lease>| async move {
        match job.message().value() {
            b"refused" => Err("not today"),
            b"broken" => panic!("on purpose"),
            _ => Ok(()),
        }
    };
    let (run, tasks) = queue.run_async(3, work);
    let workers: Vec<_> = tasks.into_iter().map(|task| runtime.spawn(task)).collect();
    send(&jobs, &["refused", "broken", "fine", "fine", "fine"]);
    jobs.close();
    for worker in workers {
        assert_eq!(runtime.block_on(worker).unwrap(), QueueEnd::Finished);
    }
    assert_eq!(run.ended(), Some(QueueEnd::Finished));
    let mut reasons = reasons(&queue);
    reasons.sort();
    assert_eq!((queue.metrics().acked, reasons), (3, vec!["not today".to_owned(), "panicked: on purpose".to_owned()]));
}

/// A message that its task ends only once `open` is true.
async fn held(open: &std::sync::atomic::AtomicBool) {
    while !open.load(Ordering::Acquire) {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_stop_lets_each_task_end_its_message_and_wakes_those_that_wait() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let engine = Engine::builder().build().unwrap();
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    let queue = jobs.queue("idle").open().unwrap();
    let open = Arc::new(AtomicBool::new(false));
    let (opens, (begun, begins)) = (Arc::clone(&open), mpsc::channel());
    let (run, tasks) = queue.run_async(2, move |_| {
        let (open, begun) = (Arc::clone(&opens), begun.clone());
        async move {
            begun.send(()).unwrap();
            held(&open).await;
        }
    });
    let spawned: Vec<_> = tasks.into_iter().map(|task| runtime.spawn(task)).collect();
    send(&jobs, &["a", "b", "never begun"]);
    (0..2).for_each(|_| begins.recv_timeout(LONG).unwrap());
    run.clone().stop();
    assert_eq!((run.ended(), run.wait_for(Duration::ZERO), queue.metrics().leased), (None, None, 2));
    open.store(true, Ordering::Release);
    assert_eq!(runtime.block_on(run.wait_async()), QueueEnd::Stopped);
    for task in spawned {
        assert_eq!(runtime.block_on(task).unwrap(), QueueEnd::Stopped);
    }
    let left = queue.metrics();
    assert_eq!((left.acked, left.leased, left.unread, begins.try_recv().is_err()), (2, 0, 1, true));

    // Tasks that wait for messages, of which one watches, are woken.
    let (run, tasks) = queue.run_async(3, |_| async {});
    tasks.into_iter().for_each(|task| _ = runtime.spawn(task));
    while queue.metrics().acked < 3 {
        std::thread::yield_now();
    }
    run.stop();
    assert_eq!((run.wait_for(LONG), run.wait()), (Some(QueueEnd::Stopped), QueueEnd::Stopped));
    assert_eq!(runtime.block_on(run.wait_async()), QueueEnd::Stopped);
}

#[test]
fn a_task_that_is_dropped_gives_its_message_back_and_counts_as_stopped() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let disk = slipring::journal::simulated::SimulatedDisk::new();
    let engine = Engine::builder().journal_in(disk).build().unwrap();
    let jobs = engine.topic::<Message>("jobs").durable().create().unwrap();
    let queue = jobs.queue("aborted").acknowledge(slipring::Level::Durable).open().unwrap();
    let (begun, begins) = mpsc::channel();
    let (run, tasks) = queue.run_async(1, move |_| {
        let begun = begun.clone();
        async move {
            begun.send(()).unwrap();
            std::future::pending::<()>().await
        }
    });
    let task = tasks.into_iter().map(|task| runtime.spawn(task)).next().unwrap();
    send(&jobs, &["a film"]);
    begins.recv_timeout(LONG).unwrap();
    task.abort();
    assert_eq!(run.wait_for(LONG), Some(QueueEnd::Stopped));
    assert_eq!((queue.metrics().leased, queue.metrics().nacked), (0, 1));

    // One that is dropped before its first poll has taken nothing, and none that is kept takes part of it.
    let (run, mut tasks) = queue.run_async(2, |job| async move { assert_eq!(job.attempt(), 2) });
    drop(tasks.pop());
    assert_eq!(run.ended(), None);
    jobs.close();
    assert_eq!(runtime.block_on(tasks.pop().unwrap()), QueueEnd::Finished);
    assert_eq!((run.ended(), queue.metrics().acked), (Some(QueueEnd::Stopped), 1));
    // The wait of a task that is dropped leaves nothing behind.
    let (run, tasks) = queue.run_async(1, |_| async {});
    {
        let mut waiting = std::pin::pin!(run.wait_async());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::future::Future::poll(waiting.as_mut(), &mut context).is_pending());
    }
    drop(tasks);
    assert_eq!(run.wait(), QueueEnd::Stopped);
}

/// Where the clock, which is user code, panicked in a task, its handle waited for ever.
#[test]
fn a_task_whose_clock_panics_ends_with_the_cause() {
    #[derive(Clone, Default)]
    struct Breaks(Arc<AtomicBool>);
    impl slipring::clock::Clock for Breaks {
        fn now(&self) -> Duration {
            assert!(
                !self.0.load(Ordering::Acquire) || std::thread::current().name() == Some("slipring-timer"),
                "no time"
            );
            Duration::ZERO
        }
        fn wall(&self) -> slipring::clock::Timestamp {
            slipring::clock::Timestamp::from_nanos(0)
        }
    }
    let clock = Breaks::default();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    let (run, mut tasks) = jobs.queue("late").open().unwrap().run_async(1, |_| async {});
    clock.0.store(true, Ordering::Release);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut task = std::pin::pin!(tasks.pop().unwrap());
    let ended = std::future::Future::poll(task.as_mut(), &mut context);
    assert!(
        matches!(&ended, std::task::Poll::Ready(QueueEnd::Refused(why)) if why.to_string().contains("no time")),
        "{ended:?}"
    );
    clock.0.store(false, Ordering::Release);
    assert!(matches!(run.wait(), QueueEnd::Refused(_)));
}
