//! Workers of a queue as tasks.

use super::Queue;
use super::core::{LeaseEnd, QueueCore};
use super::job::Job;
use super::run::{QueueEnd, QueueRun, worked};
use super::run_worker::RunWorker;
use super::worker::{Lease, Worker};
use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::threads::caught;
use crate::log::offset_waits::OffsetWait;
use crate::read::error::ReadError;
use slipring_ring::Outcome;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A worker of [`Queue::run_async`], to be spawned or awaited: a future that ends as its worker does. Dropping it stops the
/// worker, and gives back the message that it works on.
#[must_use = "a worker does nothing before its future is spawned or awaited"]
pub struct QueueTask<F> {
    /// `None` once the worker has ended.
    work: Option<Pin<Box<F>>>,
    run: QueueRun,
    /// Makes the end of a worker that has panicked.
    failed: Box<dyn Fn(String) -> ReadError + Send + Sync>,
}

impl<F> fmt::Debug for QueueTask<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueTask").field("ended", &self.work.is_none()).finish()
    }
}

impl<F> QueueTask<F> {
    /// Drops the worker with its handler, which is user code and may panic, and then notes how it has ended.
    fn end(&mut self, end: QueueEnd) {
        let work = self.work.take();
        let _ = caught(move || drop(work));
        self.run.end(end);
    }
}

impl<F> Drop for QueueTask<F> {
    fn drop(&mut self) {
        if self.work.is_some() {
            self.end(QueueEnd::Stopped);
        }
    }
}

impl<F: Future<Output = QueueEnd>> Future for QueueTask<F> {
    type Output = QueueEnd;

    /// # Panics
    /// The worker has ended, and an earlier call has returned how.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<QueueEnd> {
        let task = &mut *self;
        let work = task.work.as_mut().expect("a task is not polled after its end");
        // A panic here comes from other user code: the clock, a waker, or the decoding of a message.
        let end = match caught(|| work.as_mut().poll(context)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(end)) => end,
            Err(panic) => QueueEnd::Refused((task.failed)(panic.to_string())),
        };
        task.end(end.clone());
        Poll::Ready(end)
    }
}

impl<E: Job, K: Producers> Queue<E, K> {
    /// [`run`](Self::run) as tasks: returns the handle of the run, and `workers` futures, each a worker that handles one
    /// message at a time. Spawn each of them, or await it. 0 counts as 1.
    ///
    /// [`QueueRun::stop`] lets each task finish its message, [`QueueRun::wait_async`] waits for the tasks. A task that is
    /// dropped, as an executor does when it aborts one, gives the message back that it works on, and counts as stopped.
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
    /// let (run, workers) = queue.run_async(4, |job| async move {
    ///     match job.message().value() {
    ///         b"" => Err("an empty name"),
    ///         _picture => Ok(()),                             // awaits what it needs
    ///     }
    /// });
    /// for worker in workers {
    ///     tokio::spawn(worker);
    /// }
    /// pictures.producer().create()?.send_async(&Record::new("cat.png")).await?;
    /// pictures.close();
    /// assert_eq!(run.wait_async().await, QueueEnd::Finished);
    /// assert_eq!(queue.metrics().acked, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run_async<F: Future<Output: Outcome>, H: Fn(Arc<Lease<E, K>>) -> F>(
        &self,
        workers: usize,
        handler: H,
    ) -> (QueueRun, Vec<QueueTask<impl Future<Output = QueueEnd> + use<E, K, F, H>>>) {
        let runs: Vec<_> = (0..workers.max(1)).map(|_| RunWorker::new(true)).collect();
        let run = QueueRun::new(&self.core, runs.clone());
        let handler = Arc::new(handler);
        let tasks = runs.into_iter().map(|own| {
            let worker = Worker::of_run(Arc::clone(&self.core), &own);
            let core = Arc::clone(&self.core);
            let failed = move |cause: String| failed(&core, cause);
            let work = Some(Box::pin(work(worker, Arc::clone(&handler), own)));
            QueueTask { work, run: run.clone(), failed: Box::new(failed) }
        });
        let tasks = tasks.collect();
        (run, tasks)
    }
}

fn failed<E: Job, K: Producers>(core: &QueueCore<E, K>, cause: String) -> ReadError {
    core.read_error(Closed::Failed { consumer: core.name.clone(), cause })
}

/// The loop of a worker.
async fn work<E: Job, K: Producers, F: Future<Output: Outcome>, H: Fn(Arc<Lease<E, K>>) -> F>(
    worker: Worker<E, K>,
    handler: Arc<H>,
    own: Arc<RunWorker>,
) -> QueueEnd {
    // The handler is dropped before the worker: a shutdown that has waited for the workers next closes the topics that
    // their handler has published to.
    let mut worker = worker;
    let handler = handler;
    loop {
        let mut lease = match receive(&mut worker, &own).await {
            Some(Ok(lease)) => lease,
            Some(Err(refused)) => return QueueEnd::of(refused),
            None => return QueueEnd::Stopped,
        };
        lease.keep();
        let lease = Arc::new(lease);
        let worked = match caught(|| Box::pin(handler(Arc::clone(&lease)))) {
            Ok(work) => outcome(work, &own).await,
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

/// The next message; `None` once the worker was stopped.
async fn receive<E: Job, K: Producers>(
    worker: &mut Worker<E, K>,
    own: &RunWorker,
) -> Option<Result<Lease<E, K>, ReadError>> {
    let mut receiving = std::pin::pin!(worker.receive_async());
    poll_fn(|context| match own.is_stopped() {
        true => Poll::Ready(None),
        false => receiving.as_mut().poll(context).map(Some),
    })
    .await
}

/// The outcome of a handler's future, with a panic as a failure.
async fn outcome<F: Future<Output: Outcome>>(mut work: Pin<Box<F>>, own: &RunWorker) -> Result<(), String> {
    poll_fn(|context| {
        own.note_thread();
        let polled = caught(|| work.as_mut().poll(context).map(worked));
        polled.unwrap_or_else(|panic| Poll::Ready(Err(panic.to_string())))
    })
    .await
}
