//! Workers of a queue with threads of their own, or as tasks: a handler does the work, and the loop does the rest.

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
    fn of(refused: ReadError) -> Self {
        match refused.reason {
            Closed::Closed => Self::Finished,
            _ => Self::Refused(refused),
        }
    }
}

/// A handle of the workers that [`Queue::run`] has started. Clones are handles of the same workers. Dropping it does not
/// stop them.
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
    /// The count of workers whose threads have not ended.
    running: usize,
    /// How the first worker ended that did not finish; without one, how the last one ended.
    end: Option<QueueEnd>,
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
    fn end(&self, end: QueueEnd) {
        let mut state = self.shared.state();
        state.running -= 1;
        if matches!(state.end, None | Some(QueueEnd::Finished)) {
            state.end = Some(end);
        }
        drop(state);
        self.shared.ended.notify_all();
    }
}

/// A handler's result, with the text of its error, which user code makes.
fn worked(outcome: impl Outcome) -> Result<(), String> {
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
        let state = Mutex::new(RunState { running: workers.len(), end: None });
        let core: Arc<dyn StopWorkers> = Arc::clone(&self.core) as _;
        let shared = SharedRun { queue: Arc::downgrade(&core), workers: runs, state, ended: Condvar::new() };
        let run = QueueRun { shared: Arc::new(shared) };
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

#[cfg(feature = "async")]
mod task {
    use super::*;
    use crate::log::offset_waits::OffsetWait;
    use crate::queue::core::LeaseEnd;
    use std::future::{Future, poll_fn};
    use std::pin::Pin;
    use std::task::Poll;

    impl<E: Job, K: Producers> Queue<E, K> {
        /// [`run`](Self::run) as a task: one worker, which handles one message at a time. Spawn it as often as workers are
        /// wanted. It ends with the queue; a task that is dropped gives the message back that it works on.
        ///
        /// A shutdown waits for tasks as for threads. It blocks its thread: where that is the only one that polls the
        /// tasks, as in a runtime of one thread, it stops them after half a second. Call it on another thread there, for
        /// example with `spawn_blocking`.
        ///
        /// ```
        /// # use slipring::{Engine, Message, Record, queue::QueueEnd};
        /// # use std::time::Duration;
        /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        /// let engine = Engine::builder().build()?;
        /// let pictures = engine.topic::<Message>("pictures").create()?;
        /// let queue = pictures.queue("resize").open()?;
        /// let worker = tokio::spawn(queue.clone().run_async(|job| async move {
        ///     match job.message().value() {
        ///         b"" => Err("an empty name"),
        ///         _picture => Ok(()),                             // awaits what it needs
        ///     }
        /// }));
        /// pictures.producer().create()?.send_async(&Record::new("cat.png")).await?;
        /// pictures.close();
        /// assert_eq!(worker.await?, QueueEnd::Finished);
        /// assert_eq!(queue.metrics().acked, 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub async fn run_async<F: Future<Output: Outcome>>(self, handler: impl Fn(Arc<Lease<E, K>>) -> F) -> QueueEnd {
            let run = RunWorker::new(true);
            let mut worker = Worker::of_run(Arc::clone(&self.core), &run);
            loop {
                let mut lease = match receive(&mut worker, &run).await {
                    Some(Ok(lease)) => lease,
                    Some(Err(refused)) => return QueueEnd::of(refused),
                    None => return QueueEnd::Stopped,
                };
                lease.keep();
                let lease = Arc::new(lease);
                let worked = match caught(|| Box::pin(handler(Arc::clone(&lease)))) {
                    Ok(work) => outcome(work, &run).await,
                    Err(panic) => Err(panic.to_string()),
                };
                let how = match &worked {
                    Ok(()) => LeaseEnd::Ack,
                    Err(reason) => LeaseEnd::Retry(reason),
                };
                // A lease that has ended before is left to whoever has the message now.
                let Some(change) = lease.end_shared(how) else { continue };
                let mut wait: Option<OffsetWait> = None;
                let safe = poll_fn(|context| lease.poll_safe(change, &mut wait, context.waker())).await;
                if let Err(unknown) = safe {
                    return QueueEnd::Unknown(unknown);
                }
            }
        }
    }

    /// The next message; `None` once the worker was stopped.
    async fn receive<E: Job, K: Producers>(
        worker: &mut Worker<E, K>,
        run: &RunWorker,
    ) -> Option<Result<Lease<E, K>, ReadError>> {
        let mut receiving = std::pin::pin!(worker.receive_async());
        poll_fn(|context| match run.is_stopped() {
            true => Poll::Ready(None),
            false => receiving.as_mut().poll(context).map(Some),
        })
        .await
    }

    /// The outcome of a handler's future, with a panic as a failure.
    async fn outcome<F: Future<Output: Outcome>>(mut work: Pin<Box<F>>, run: &RunWorker) -> Result<(), String> {
        poll_fn(|context| {
            run.note_thread();
            let polled = caught(|| work.as_mut().poll(context).map(worked));
            polled.unwrap_or_else(|panic| Poll::Ready(Err(panic.to_string())))
        })
        .await
    }
}
