//! The workers of a queue as a whole, and those with threads of their own: a handler does the work, and the loop does the rest.

use super::core::QueueCore;
use super::idle_tasks::IdleTasks;
#[cfg(feature = "async")]
use super::idle_tasks::TaskPlace;
use super::job::Job;
use super::run_worker::{RunWorker, StopWorkers};
use super::worker::{Lease, LeaseError, Worker};
use super::{Queue, QueueError};
use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::threads::{StartError, Threads, caught};
use crate::base::trace::lifecycle;
use crate::read::error::ReadError;
use slipring_ring::Outcome;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
#[cfg(feature = "async")]
use std::task::Poll;
use std::task::Waker;
use std::time::{Duration, Instant};

/// How the workers of a [`run`](Queue::run) have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueEnd {
    /// The topic was closed, and no message is unread, leased or waiting.
    Finished,
    /// The program has stopped the workers, or a shutdown has, because it left messages that no worker was to begin.
    Stopped,
    /// The queue has returned this error, so that no worker can continue.
    Refused(ReadError),
    /// The journal has failed: it is unknown whether it has the end of this message.
    Unknown(LeaseError),
}

impl fmt::Display for QueueEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("did everything"),
            Self::Stopped => f.write_str("was stopped"),
            Self::Refused(refused) => refused.fmt(f),
            Self::Unknown(unknown) => unknown.fmt(f),
        }
    }
}

impl QueueEnd {
    pub(super) fn of(refused: ReadError) -> Self {
        match refused.reason {
            Closed::Closed => Self::Finished,
            _ => Self::Refused(refused),
        }
    }
}

/// A handle of the workers that [`Queue::run`] has started, or of the tasks of [`Queue::run_async`](Queue::run_async). Clones
/// are handles of the same workers. Dropping it does not stop them.
#[derive(Clone)]
pub struct QueueRun {
    shared: Arc<SharedRun>,
}

struct SharedRun {
    queue: Weak<dyn StopWorkers>,
    workers: Vec<Arc<RunWorker>>,
    state: Mutex<RunState>,
    ended: Condvar,
}

struct RunState {
    /// The count of workers that have not ended.
    running: usize,
    /// How the first worker ended that did not finish; without one, how the last one ended.
    end: Option<QueueEnd>,
    /// The tasks that wait for the end.
    waits: IdleTasks,
}

impl fmt::Debug for QueueRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueRun").field(&self.ended()).finish()
    }
}

impl SharedRun {
    fn state(&self) -> MutexGuard<'_, RunState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunState {
    fn ended(&self) -> Option<QueueEnd> {
        self.end.clone().filter(|_| self.running == 0)
    }
}

impl QueueRun {
    /// The handle of these workers of a queue, none of which has ended.
    pub(super) fn new<E: Job, K: Producers>(core: &Arc<QueueCore<E, K>>, workers: Vec<Arc<RunWorker>>) -> Self {
        let core: Arc<dyn StopWorkers> = Arc::clone(core) as _;
        let state = Mutex::new(RunState { running: workers.len(), end: None, waits: IdleTasks::default() });
        let shared = SharedRun { queue: Arc::downgrade(&core), workers, state, ended: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Makes each worker end after the message that it works on now. Does not wait for that: see [`wait`](Self::wait).
    pub fn stop(&self) {
        if let Some(queue) = self.shared.queue.upgrade() {
            queue.stop_workers(&self.shared.workers);
        }
    }

    /// How the workers have ended; `None` while one of them runs. If they ended differently, the first end that is not
    /// [`Finished`](QueueEnd::Finished).
    pub fn ended(&self) -> Option<QueueEnd> {
        self.shared.state().ended()
    }

    /// Waits until all workers have ended, and returns how. Must not be called by the handler, which would wait for
    /// itself.
    pub fn wait(&self) -> QueueEnd {
        let mut state = self.shared.state();
        loop {
            if let Some(end) = state.ended() {
                return end;
            }
            state = self.shared.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// As [`wait`](Self::wait), but for `limit` at most. `None` if a worker still runs then.
    pub fn wait_for(&self, limit: Duration) -> Option<QueueEnd> {
        let Some(deadline) = Instant::now().checked_add(limit) else { return Some(self.wait()) };
        let mut state = self.shared.state();
        while state.ended().is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.ended()
    }

    /// Notes that a worker has ended, or was never started.
    pub(super) fn end(&self, end: QueueEnd) {
        let mut state = self.shared.state();
        state.running -= 1;
        if matches!(state.end, None | Some(QueueEnd::Finished)) {
            state.end = Some(end);
        }
        let waits = (state.running == 0).then(|| state.waits.take_all());
        drop(state);
        self.shared.ended.notify_all();
        waits.into_iter().flatten().for_each(Waker::wake);
    }
}

#[cfg(feature = "async")]
impl QueueRun {
    /// As [`wait`](Self::wait), for a task. Must not be awaited by the handler, which would wait for itself.
    pub async fn wait_async(&self) -> QueueEnd {
        let mut wait = EndWait { run: self, place: None };
        std::future::poll_fn(|context| wait.poll(context.waker())).await
    }
}

/// A task that waits for the end of a run. Its drop ends the wait.
#[cfg(feature = "async")]
struct EndWait<'r> {
    run: &'r QueueRun,
    place: Option<TaskPlace>,
}

#[cfg(feature = "async")]
impl EndWait<'_> {
    fn poll(&mut self, waker: &Waker) -> Poll<QueueEnd> {
        // Cloning and dropping a waker run user code, so the lock is not held there.
        let waker = waker.clone();
        let mut state = self.run.shared.state();
        if let Some(end) = state.ended() {
            drop(state);
            return Poll::Ready(end);
        }
        let place = *self.place.get_or_insert_with(|| state.waits.new_place());
        let before = state.waits.take(place);
        state.waits.put(place, waker);
        drop(state);
        drop(before);
        Poll::Pending
    }
}

#[cfg(feature = "async")]
impl Drop for EndWait<'_> {
    fn drop(&mut self) {
        let waker = self.place.and_then(|place| self.run.shared.state().waits.take(place));
        drop(waker);
    }
}

/// A handler's result, with the text of its error, which user code makes.
pub(super) fn worked(outcome: impl Outcome) -> Result<(), String> {
    outcome.into_result().map_err(|error| error.to_string())
}

/// Ends a lease as its handler has: an ack, or another attempt after the queue's backoff. A lease that has ended before is
/// left to whoever has the message now. The error says that the journal has failed.
fn settle<E: Job, K: Producers>(lease: Lease<E, K>, worked: Result<(), String>) -> Result<(), LeaseError> {
    let ended = match worked {
        Ok(()) => lease.ack(),
        Err(reason) => lease.retry(&reason),
    };
    match ended {
        Err(unknown @ LeaseError::Unknown { .. }) => Err(unknown),
        _ => Ok(()),
    }
}

/// The loop of a worker with a thread of its own.
fn work<E: Job, K: Producers, R: Outcome>(worker: &mut Worker<E, K>, handler: &impl Fn(&Lease<E, K>) -> R) -> QueueEnd {
    loop {
        let mut lease = match worker.receive(Duration::MAX) {
            Ok(Some(lease)) => lease,
            // Without a limit, and without a wake-up from outside, only a stop ends the wait.
            Ok(None) => return QueueEnd::Stopped,
            Err(refused) => return QueueEnd::of(refused),
        };
        lease.keep();
        let worked = caught(|| worked(handler(&lease)));
        let worked = worked.unwrap_or_else(|panic| Err(panic.to_string()));
        if let Err(unknown) = settle(lease, worked) {
            return QueueEnd::Unknown(unknown);
        }
    }
}

impl<E: Job, K: Producers> Queue<E, K> {
    /// Starts `workers` threads that call `handler` with each message: the way to run a queue. 0 counts as 1.
    ///
    /// A message is acked when the handler returns `Ok` or `()`. If it returns an error or panics, the message is leased
    /// again after the queue's [`backoff`](crate::queue::QueueBuilder::backoff), and after its last attempt it is a dead
    /// letter with that error as the reason. While the handler works its lease is [renewed](Lease::keep), however long
    /// that takes: a handler that may hang needs a limit of its own.
    ///
    /// [`QueueRun::stop`] lets each worker finish its message. [`Engine::shutdown`](crate::Engine::shutdown) lets them
    /// do all of the queue's messages, up to its limit: those that are unread, in hand, or due by then, with all attempts
    /// at them and their dead letters. Then it stops the workers. What is left stays in the journal; a queue in memory loses
    /// it, as the report says. To leave the backlog of a durable queue to the next start, [stop](QueueRun::stop) the run
    /// before the shutdown. A handler that shuts its own engine down is not waited for.
    ///
    /// ```
    /// use slipring::{Engine, Message, Record};
    /// use std::time::Duration;
    ///
    /// let engine = Engine::builder().build()?;
    /// let pictures = engine.topic::<Message>("pictures").create()?;
    /// let queue = pictures.queue("resize").max_attempts(3).open()?;
    /// let run = queue.run(4, |job| match job.message().value() {
    ///     b"" => Err("an empty name"),
    ///     picture => Ok(println!("{} bytes, attempt {}", picture.len(), job.attempt())),
    /// })?;
    /// let mut producer = pictures.producer().create()?;
    /// producer.send(Record::new("cat.png"))?;
    /// drop(producer);
    /// engine.shutdown(Duration::from_secs(60));
    /// println!("{}", run.wait());                          // did everything
    /// # assert_eq!(run.wait(), slipring::queue::QueueEnd::Finished);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The system gives no thread. Workers that were started by then are stopped.
    pub fn run<R: Outcome>(
        &self,
        workers: usize,
        handler: impl Fn(&Lease<E, K>) -> R + Send + Sync + 'static,
    ) -> Result<QueueRun, QueueError> {
        let runs: Vec<_> = (0..workers.max(1)).map(|_| RunWorker::new(false)).collect();
        let workers: Vec<_> = runs.iter().map(|run| Worker::of_run(Arc::clone(&self.core), run)).collect();
        let run = QueueRun::new(&self.core, runs);
        let (handler, threads) = (Arc::new(handler), Threads::default());
        for mut worker in workers {
            let (handler, running) = (Arc::clone(&handler), run.clone());
            let life = move |()| {
                // A panic here comes from other user code: the clock, a waker, or the decoding of a message.
                let worked = caught(|| work(&mut worker, &*handler));
                let end = worked.unwrap_or_else(|panic| {
                    let (consumer, cause) = (worker.core.name.clone(), panic.to_string());
                    QueueEnd::Refused(worker.core.read_error(Closed::Failed { consumer, cause }))
                });
                lifecycle!(info, "worker ended", topic = worker.core.topic, queue = worker.core.name, how = end);
                // These drops run user code, which may panic. The worker has ended in any case.
                // A shutdown that has waited for the workers next closes the topics that their handler has published to.
                let _ = caught(move || drop(handler));
                let _ = caught(move || drop(worker));
                running.end(end);
            };
            let started = threads.start(&self.core.name, None, || (), life);
            if let Err(refused) = started {
                run.stop();
                let cause = match refused {
                    StartError::Thread(cause) => cause.to_string(),
                    StartError::Pin(cause) => cause.to_string(),
                    StartError::Panicked(cause) => cause,
                };
                let (topic, queue) = (self.core.topic.clone(), self.core.name.clone());
                return Err(QueueError::Thread { topic, queue, cause });
            }
        }
        Ok(run)
    }
}
