//! Managed transforms: one thread reads and transforms, another one commits.
//!
//! While one transaction is being written to the disk, the next one is filled with the batches that come meanwhile. So
//! many batches share a sync, and the reading thread does not wait for it.

use super::{BatchRead, NextOffsets, Transform, TransformError, TransformHolder, TransformInput, TransformState};
use crate::base::clock::Clock;
use crate::base::kind::Producers;
use crate::base::threads::{Panic, StartError, caught};
use crate::base::trace::lifecycle;
use crate::event::message::Message;
use crate::event::record::Record;
use crate::produce::transaction::{Transaction, TransactionError};
use crate::read::At;
use crate::read::replay::ReplayError;
use crate::topic::Topic;
use slipring_ring::Multi;
use std::borrow::Borrow;
use std::fmt::{self, Display};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The time between two checks by which a waiting thread finds out that the transform was stopped.
const CHECK_EVERY: Duration = Duration::from_millis(50);

impl<E: Send + Sync + 'static, K: Producers> Transform<E, K> {
    /// Runs the transform on two threads, until the input is closed and read to its end, or until a
    /// [stop](TransformRun::stop) or a failure. `f` is called with each event and publishes into `output`. A commit
    /// that finds no room within its patience is tried again.
    ///
    /// While one commit is being written to the disk, the next batches are read. Their output and their input offsets
    /// are committed together, all or none. If `f` fails on a batch that was read ahead, the earlier batches are
    /// committed, and that batch is read again and passed to `f` in a transaction of its own. If the output of a batch
    /// is too large for one transaction, it is committed in parts.
    ///
    /// # Errors
    /// `output` is not in the journal of the input, or a thread could not be started.
    pub fn run<O: Send + Sync + 'static, P: Producers, X: Display>(
        mut self,
        output: Topic<O, P>,
        mut f: impl FnMut(&E, At, &mut Outputs<'_, O, P>) -> Result<(), X> + Send + 'static,
    ) -> Result<TransformRun, TransformError> {
        let committer = output.inner.durable.as_ref().map(|durable| &durable.committer);
        if !committer.is_some_and(|committer| Arc::ptr_eq(committer, &self.holder.committer)) {
            return Err(TransactionError::NotDurable { topic: output.name().to_owned() }.into());
        }
        let run = TransformRun::default();
        let (running, told) = (run.clone(), run.clone());
        let threads = self.input.topic.threads.clone();
        let (holder, shown) = (self.holder.clone(), self.holder.clone());
        holder.note(TransformState::Running);
        let (thread, name) = (self.input.name.clone(), self.input.name.clone());
        let life = move |()| {
            let mut life = move || {
                self.drive(!P::SINGLE, &told.shared.stopped, |event, at, transaction| {
                    f(event, at, &mut Outputs { transaction, topic: &output })
                })
            };
            let end = caught(&mut life).unwrap_or_else(|panic| panicked(name, &panic));
            // Dropping the closure may panic too.
            let _ = caught(move || drop(life));
            shown.note(end.state());
            if let TransformEnd::Failed(_cause) = &end {
                lifecycle!(error, "transform failed", transform = shown.at.0, topic = shown.topic, cause = _cause);
            }
            running.end(end);
        };
        threads.start(&thread, None, || (), life).map_err(|cause| {
            holder.note(TransformState::Dropped);
            let cause = match cause {
                StartError::Pin(cause) => cause.to_string(),
                StartError::Thread(cause) => cause.to_string(),
                StartError::Panicked(cause) => cause,
            };
            TransformError::Refused { name: thread.clone(), cause }
        })?;
        Ok(run)
    }
}
/// A transaction with the output of some batches, and the input offsets to commit with it.
struct CommitJob {
    transaction: Transaction,
    read: NextOffsets,
    batches: usize,
}

impl CommitJob {
    fn of(mut transaction: Transaction) -> Self {
        transaction.clear();
        Self { transaction, read: NextOffsets::new(), batches: 0 }
    }
}

/// A job whose commit has ended, with the commit's result. An error if the commit has panicked: the job is then lost.
type Committed = Result<(CommitJob, Result<(), TransactionError>), Panic>;

fn panicked(name: String, panic: &Panic) -> TransformEnd {
    TransformEnd::Failed(Arc::new(TransformError::Panicked { name, cause: panic.said() }))
}

/// Commits one job after another, and sends each back with its result. A commit that finds no room is tried again until
/// `gives_up` returns true.
fn commit_all(
    holder: &TransformHolder,
    jobs: &Receiver<CommitJob>,
    tell: &SyncSender<Committed>,
    gives_up: &dyn Fn() -> bool,
) {
    while let Ok(mut job) = jobs.recv() {
        // User code may panic in the commit: an event's `Persist`, a wait strategy or the clock.
        let outcome = caught(|| {
            loop {
                match holder.commit(&mut job.transaction, &job.read) {
                    Err(refused) if refused.is_full() && !gives_up() => {}
                    outcome => return outcome,
                }
            }
        });
        if tell.send(outcome.map(|outcome| (job, outcome))).is_err() {
            return;
        }
    }
}

/// The state of the thread that reads and transforms.
struct InputReader<'t, E: Send + Sync + 'static, K: Producers> {
    input: &'t mut TransformInput<E, K>,
    holder: &'t TransformHolder,
    work: SyncSender<CommitJob>,
    done: Receiver<Committed>,
    /// The job that is being filled with the output of batches.
    job: CommitJob,
    /// The transaction of the other job, empty; `None` while that job is being committed.
    spare: Option<Transaction>,
    /// How many of the next batches must be committed each in a transaction of its own.
    separate: usize,
    reads_ahead: bool,
    over: &'t AtomicBool,
}

impl<E: Send + Sync + 'static, K: Producers> Drop for InputReader<'_, E, K> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

impl<E: Send + Sync + 'static, K: Producers> Transform<E, K> {
    /// Runs the transform until it ends: reads and transforms on this thread, and commits on another one. `reads_ahead`
    /// is false if a second transaction could not publish into the output, because that has a single producer: then
    /// each batch is committed before the next is read.
    fn drive<X: Display>(
        &mut self,
        reads_ahead: bool,
        stopped: &AtomicBool,
        f: impl FnMut(&E, At, &mut Transaction) -> Result<(), X>,
    ) -> TransformEnd {
        let Self { input, holder, transaction, .. } = self;
        let (holder, over) = (&*holder, AtomicBool::new(false));
        let fresh = || Transaction::like(transaction);
        let (job, spare) = (CommitJob::of(fresh()), Some(fresh()));
        std::thread::scope(|scope| {
            let (work, jobs) = sync_channel(1);
            let (tell, done) = sync_channel(1);
            let reader = InputReader { input, holder, work, done, job, spare, separate: 0, reads_ahead, over: &over };
            let over = &over;
            let gives_up = move || stopped.load(Ordering::Acquire) || over.load(Ordering::Acquire);
            let thread = std::thread::Builder::new().name("slipring-commit".to_owned());
            let started = thread.spawn_scoped(scope, move || commit_all(holder, &jobs, &tell, &gives_up));
            if let Err(cause) = started {
                let (name, cause) = (holder.at.0.clone(), cause.to_string());
                return TransformEnd::Failed(Arc::new(TransformError::Refused { name, cause }));
            }
            reader.read_on(stopped, f).unwrap_or_else(|refused| TransformEnd::Failed(Arc::new(refused)))
        })
    }
}

impl<E: Send + Sync + 'static, K: Producers> InputReader<'_, E, K> {
    fn read_on<X: Display>(
        mut self,
        stopped: &AtomicBool,
        mut f: impl FnMut(&E, At, &mut Transaction) -> Result<(), X>,
    ) -> Result<TransformEnd, TransformError> {
        loop {
            self.settle(false)?;
            if stopped.load(Ordering::Acquire) {
                self.flush()?;
                return Ok(TransformEnd::Stopped);
            }
            if self.job.batches > 0 && self.spare.is_some() {
                self.hand_over();
            }
            let alone = self.separate > 0 || !self.reads_ahead;
            // If the input must be opened again, reading begins at the committed offsets, so everything that was read
            // is committed first.
            let is_full = self.job.batches > 0 && !self.job.transaction.is_ample();
            if alone || is_full || !self.input.can_continue() {
                self.flush()?;
            }
            if !self.holder.is_held() {
                return Err(self.holder.fenced().into());
            }
            let limit = if self.job.batches == 0 { CHECK_EVERY } else { Duration::ZERO };
            match self.input.read(limit, &mut self.job.transaction, &mut f) {
                Ok(None) => {
                    self.flush()?;
                    return Ok(TransformEnd::Finished);
                }
                Ok(Some(BatchRead { next, is_cut, .. })) => {
                    if let Some((partition, next)) = next {
                        self.job.read.insert(partition, next);
                        self.job.batches += 1;
                        self.separate = self.separate.saturating_sub(1);
                    }
                    if self.job.batches > 0 && (is_cut || next.is_none()) {
                        self.settle(true)?;
                    }
                    // The commit that was awaited may have failed, which discards this job.
                    if self.job.batches > 0 && is_cut {
                        self.hand_over();
                    }
                }
                Err(TransformError::Input(ReplayError::Gap(gap))) => {
                    // Events before the gap are committed first. If that commit fails so that they must be read again,
                    // the gap is reported again too.
                    let separate = self.separate;
                    self.flush()?;
                    if self.separate <= separate {
                        self.holder.pass_gap(&mut self.input.offsets, &gap, self.input.topic.host.clock.wall())?;
                        self.input.on_gap.answer(gap).map_err(ReplayError::Gap)?;
                    }
                }
                Err(TransformError::Handler { .. } | TransformError::TooMuch { .. }) if !alone => {
                    // The batch may have failed only because it was read ahead: its transaction was already large, or
                    // the single producer of an output is in the other transaction. So it is read again, alone.
                    self.reads_ahead &= self.job.batches > 0;
                    self.read_again(1)?;
                }
                Err(refused) => return Err(refused),
            }
        }
    }

    /// Discards the job that is being filled. Its batches, and the next `more` batches, are read again from the
    /// committed offsets, and each is committed in a transaction of its own.
    fn read_again(&mut self, more: usize) -> Result<(), TransformError> {
        self.separate += self.job.batches + more;
        self.input.replay = None;
        let fresh = Transaction::like(&self.job.transaction);
        let given_up = std::mem::replace(&mut self.job, CommitJob::of(fresh));
        if self.spare.is_none() {
            self.settle(true)?;
        }
        // Both transactions that the jobs had are used again, and the fresh one is dropped: a topic with a single
        // producer cannot give another one to a fresh transaction.
        if let Some(first) = self.spare.replace(given_up.transaction) {
            self.job = CommitJob::of(first);
        }
        Ok(())
    }

    /// Takes the result of the job that is being committed, if there is one. If the commit has not ended yet, waits for
    /// it if `waits` is true, otherwise returns at once. If the commit was refused because its batches together are too
    /// large, they are [read again](Self::read_again) one by one. Any other failure of the commit is returned.
    fn settle(&mut self, waits: bool) -> Result<(), TransformError> {
        if self.spare.is_some() {
            return Ok(());
        }
        let done = if waits { self.done.recv().ok() } else { self.done.try_recv().ok() };
        let (job, outcome) = match done {
            Some(Ok(done)) => done,
            Some(Err(panic)) => {
                let cause = format!("in a commit: {}", panic.said());
                return Err(TransformError::Panicked { name: self.input.name.clone(), cause });
            }
            None if waits => {
                let cause = "the thread that commits has ended".to_owned();
                return Err(TransformError::Panicked { name: self.input.name.clone(), cause });
            }
            None => return Ok(()),
        };
        self.spare = Some(CommitJob::of(job.transaction).transaction);
        match outcome {
            Ok(()) => self.input.offsets.extend(job.read),
            Err(refused) if job.batches > 1 && refused.is_too_much() => self.read_again(job.batches)?,
            Err(refused) => {
                // A late transaction is in the journal, with these offsets.
                if refused.is_late() {
                    self.input.offsets.extend(job.read);
                }
                return Err(refused.into());
            }
        }
        Ok(())
    }

    fn hand_over(&mut self) {
        if let Some(spare) = self.spare.take() {
            let job = std::mem::replace(&mut self.job, CommitJob::of(spare));
            // The send fails only if the committing thread has ended, which `settle` reports.
            let _ = self.work.send(job);
        }
    }

    /// Commits all batches that were read, and waits until they are durable.
    fn flush(&mut self) -> Result<(), TransformError> {
        self.settle(true)?;
        if self.job.batches > 0 {
            self.hand_over();
            self.settle(true)?;
        }
        Ok(())
    }
}

/// The output of a [managed transform](Transform::run), which its handler gets: publishes into the transform's output
/// topic.
#[derive(Debug)]
pub struct Outputs<'t, O: Send + Sync + 'static, P: Producers = Multi> {
    transaction: &'t mut Transaction,
    topic: &'t Topic<O, P>,
}

impl<O: Send + Sync + 'static, P: Producers> Outputs<'_, O, P> {
    /// Publishes an event without a key.
    ///
    /// # Errors
    /// Those of [`Transaction::publish`].
    pub fn publish(&mut self, fill: impl FnOnce(&mut O)) -> Result<(), TransactionError> {
        self.transaction.publish(self.topic, fill)
    }

    /// Publishes an event into the partition of its key.
    ///
    /// # Errors
    /// Those of [`Transaction::publish`].
    pub fn publish_key(&mut self, key: &[u8], fill: impl FnOnce(&mut O)) -> Result<(), TransactionError> {
        self.transaction.publish_key(self.topic, key, fill)
    }

    /// Publishes an event into this partition.
    ///
    /// # Errors
    /// Those of [`Transaction::publish_to`].
    pub fn publish_to(&mut self, partition: u32, fill: impl FnOnce(&mut O)) -> Result<(), TransactionError> {
        self.transaction.publish_to(self.topic, partition, fill)
    }

    /// The whole transaction, to which the handler may add events of other topics.
    pub fn transaction(&mut self) -> &mut Transaction {
        self.transaction
    }
}

impl<P: Producers> Outputs<'_, Message, P> {
    /// Publishes a message.
    ///
    /// # Errors
    /// Those of [`Transaction::send`].
    pub fn send<'r>(&mut self, record: impl Borrow<Record<'r>>) -> Result<(), TransactionError> {
        self.transaction.send(self.topic, record)
    }
}

/// How a managed transform ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TransformEnd {
    /// The input was closed, and all of it is read and committed.
    Finished,
    /// [`TransformRun::stop`] was called.
    Stopped,
    /// The transform failed. What it committed before stays committed.
    Failed(Arc<TransformError>),
}

impl TransformEnd {
    fn state(&self) -> TransformState {
        match self {
            Self::Finished => TransformState::Finished,
            Self::Stopped => TransformState::Stopped,
            Self::Failed(cause) if cause.is_an_end() => TransformState::Halted(cause.to_string()),
            Self::Failed(cause) => TransformState::Failed(cause.to_string()),
        }
    }
}

/// Handle of a managed transform. Dropping it does not stop the transform. The transform's state is also in
/// [`Engine::transforms`](crate::Engine::transforms), in the [metrics](crate::Engine::metrics), and in the report of
/// the [shutdown](crate::Engine::shutdown).
#[derive(Clone, Default)]
pub struct TransformRun {
    shared: Arc<Running>,
}

#[derive(Default)]
struct Running {
    stopped: AtomicBool,
    ended: Mutex<Option<TransformEnd>>,
    told: Condvar,
}

impl fmt::Debug for TransformRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TransformRun").field(&self.ended()).finish()
    }
}

impl TransformRun {
    fn end(&self, end: TransformEnd) {
        *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        self.shared.told.notify_all();
    }

    /// Makes the transform end after its current batch, once all output so far is committed. Does not wait for the end.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
    }

    /// How the transform ended; `None` while it runs.
    pub fn ended(&self) -> Option<TransformEnd> {
        self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the transform has ended. The handler must not call this.
    pub fn wait(&self) -> TransformEnd {
        let mut ended = self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(end) = &*ended {
                return end.clone();
            }
            ended = self.shared.told.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
