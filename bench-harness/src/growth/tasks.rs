//! Many tasks, each waiting for a message or a receipt: how many of them a message or a frame wakes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use slipring::journal::simulated::SimulatedDisk;
use slipring::{Level, Message, Receipt, Record};

use super::bound::Bound;
use super::cost::{LONG, in_memory, on_disk};
use super::row::{Row, Unit};
use crate::failure::Failure;

pub const ROWS: &[Row] = &[
    Row {
        name: "lease-wakes",
        cost: "wake-ups for a message",
        of: "tasks in receive_async",
        unit: Unit::Count,
        quick: &[16, 64, 256],
        full: &[64, 256, 1024, 4096],
        target: Bound::Constant,
        today: None,
        before: "10,236 at 10,000",
        measure: leases,
    },
    Row {
        name: "receipt-wakes",
        cost: "wake-ups for a frame that makes none of the receipts durable",
        of: "awaited receipts",
        unit: Unit::Count,
        quick: &[16, 64, 256],
        full: &[64, 256, 1024, 4096],
        target: Bound::Constant,
        today: None,
        before: "all of them",
        measure: receipts,
    },
];

const MESSAGES: u64 = 16;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A small executor that runs tasks on the calling thread.
#[derive(Default)]
struct Tasks {
    /// `None` once a task has ended.
    tasks: Vec<Option<Task>>,
    woken: Arc<Woken>,
}

/// The tasks that were woken and have not run since.
#[derive(Default)]
struct Woken {
    queue: Mutex<VecDeque<usize>>,
    /// All wake-ups so far.
    count: AtomicU64,
}

struct TaskWaker {
    task: usize,
    woken: Arc<Woken>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.woken.count.fetch_add(1, Ordering::Relaxed);
        self.woken.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
    }
}

impl Tasks {
    /// Adds a task and runs it until it waits for the first time.
    fn add(&mut self, task: impl Future<Output = ()> + 'static) {
        self.tasks.push(Some(Box::pin(task)));
        self.run(self.tasks.len() - 1);
    }

    fn run(&mut self, task: usize) {
        let waker = Waker::from(Arc::new(TaskWaker { task, woken: Arc::clone(&self.woken) }));
        let ended = |it: &mut Task| it.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if self.tasks[task].as_mut().is_some_and(ended) {
            self.tasks[task] = None;
        }
    }

    /// Runs woken tasks until none is left and `done` returns true. Fails after half a minute without a woken task that
    /// does so.
    fn run_until(&mut self, done: impl Fn() -> bool) -> Result<(), Failure> {
        let until = Instant::now() + LONG / 2;
        loop {
            let next = self.woken.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                Some(task) => self.run(task),
                None if done() => return Ok(()),
                None if Instant::now() > until => return Err(Failure::refused("a task was not woken")),
                None => std::thread::sleep(Duration::from_micros(50)),
            }
        }
    }

    fn wakes(&self) -> u64 {
        self.woken.count.load(Ordering::Relaxed)
    }
}

fn leases(n: usize) -> Result<f64, Failure> {
    let engine = in_memory()?;
    let jobs = engine.topic::<Message>("jobs").max_message(32).capacity(64).create().map_err(Failure::refused)?;
    let mut producer = jobs.producer().create().map_err(Failure::refused)?;
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = Tasks::default();
    for _ in 0..n {
        let mut worker = jobs.queue("work").join().map_err(Failure::refused)?;
        let done = Arc::clone(&done);
        tasks.add(async move {
            while let Ok(lease) = worker.receive_async().await {
                if lease.ack().is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    let before = tasks.wakes();
    for number in 1..=MESSAGES {
        producer.send(Record::new("job")).map_err(Failure::refused)?;
        tasks.run_until(|| done.load(Ordering::Relaxed) == number)?;
    }
    Ok((tasks.wakes() - before) as f64 / MESSAGES as f64)
}

fn receipts(n: usize) -> Result<f64, Failure> {
    let disk = SimulatedDisk::new();
    let engine = on_disk(&disk, 8 << 20)?;
    let slots = (n + 2 * MESSAGES as usize).next_power_of_two();
    let topic = engine.topic::<u64>("numbers").capacity(slots).durable().create().map_err(Failure::refused)?;
    let mut producer = topic.producer().create().map_err(Failure::refused)?;
    let mut publish = || -> Result<Receipt, Failure> {
        let receipt = producer.publish(|_| ()).map_err(Failure::refused)?;
        let reached = receipt.wait_until(Level::Written, Instant::now().checked_add(LONG));
        reached.map_err(Failure::refused)?;
        Ok(receipt)
    };
    // While syncs are held back, frames are written but do not become durable, so each receipt keeps waiting.
    disk.hold_syncs(true);
    let mut tasks = Tasks::default();
    let published = (0..n).map(|_| publish()).collect::<Result<Vec<_>, _>>();
    let wakes = published.and_then(|receipts| {
        for receipt in receipts {
            tasks.add(async move { drop(receipt.reach(Level::Durable).await) });
        }
        let before = tasks.wakes();
        for _ in 0..MESSAGES {
            publish()?;
            // Gives the journal's thread time to wake tasks for the frame.
            std::thread::sleep(Duration::from_millis(5));
            tasks.run_until(|| true)?;
        }
        Ok(tasks.wakes() - before)
    });
    disk.hold_syncs(false);
    let wakes = wakes?;
    tasks.run_until(|| true)?;
    drop(producer);
    engine.shutdown(LONG);
    Ok(wakes as f64 / MESSAGES as f64)
}
