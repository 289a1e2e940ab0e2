//! Workers of a queue, and the leases that they receive.

use super::core::{ClaimedLease, LeaseEnd, QueueCore};
use super::idle_tasks::TaskWait;
use super::job::Job;
use super::lease::LeasedMessage;
use super::renewal::Renewal;
use super::run_worker::RunWorker;
use crate::base::ids::next_reader;
use crate::base::kind::Producers;
use crate::base::trace::lifecycle;
use crate::base::wakeup::{WakeFlag, WakeTarget, Wakeup};
use crate::event::message::Message;
#[cfg(feature = "async")]
use crate::log::offset_waits::OffsetWait;
use crate::read::error::ReadError;
use crate::text;
use slipring_ring::Multi;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
#[cfg(feature = "async")]
use std::task::Poll;
use std::task::Waker;
use std::time::{Duration, Instant};

/// A worker of a queue, from [`QueueBuilder::join`](crate::queue::QueueBuilder::join). The workers of a queue share its
/// messages: each message is leased to one of them. Dropping a worker leaves its [`Lease`]s as they are.
pub struct Worker<E: Job = Message, K: Producers = Multi> {
    pub(super) core: Arc<QueueCore<E, K>>,
    /// The worker's [number](crate::base::ids::next_reader).
    pub(super) number: usize,
    /// The lease or the error that this worker has got in a task or for a selector and not returned to the user yet;
    /// `None` if there is none.
    pub(super) found: Option<Result<ClaimedLease<E>, ReadError>>,
    /// How this worker waits in a task or for a selector.
    pub(super) waits: TaskWait,
    /// The waker of the selector that waits for this worker; `None` if none does.
    pub(super) selector: Option<Waker>,
    pub(super) outside: Arc<WorkerWake<E, K>>,
    /// `None` for a worker of the user's.
    pub(super) run: Option<Arc<RunWorker>>,
}

/// The part of a worker that the handles of other threads reach.
pub(super) struct WorkerWake<E: Job, K: Producers> {
    pub(super) flag: WakeFlag,
    core: Weak<QueueCore<E, K>>,
}

impl<E: Job, K: Producers> WakeTarget for WorkerWake<E, K> {
    fn flag(&self) -> &WakeFlag {
        &self.flag
    }

    fn rouse(&self) {
        if let Some(core) = self.core.upgrade() {
            core.rouse_threads();
        }
    }
}

impl<E: Job, K: Producers> fmt::Debug for Worker<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker of queue {:?} of {:?}", self.core.name, self.core.topic)
    }
}

impl<E: Job, K: Producers> Drop for Worker<E, K> {
    fn drop(&mut self) {
        self.give_up();
        if let Some(run) = &self.run {
            self.core.lock().runs.remove(run);
        }
        lifecycle!(info, "worker left", topic = self.core.topic, queue = self.core.name);
        self.core.workers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<E: Job, K: Producers> Worker<E, K> {
    pub(super) fn new(core: Arc<QueueCore<E, K>>) -> Self {
        core.workers.fetch_add(1, Ordering::AcqRel);
        lifecycle!(info, "worker joined", topic = core.topic, queue = core.name);
        let outside = Arc::new(WorkerWake { flag: WakeFlag::default(), core: Arc::downgrade(&core) });
        Self { core, number: next_reader(), found: None, waits: TaskWait::Nothing, selector: None, outside, run: None }
    }

    /// A worker of a run.
    pub(super) fn of_run(core: Arc<QueueCore<E, K>>, run: &Arc<RunWorker>) -> Self {
        core.lock().runs.add(run);
        let mut worker = Self::new(core);
        worker.run = Some(Arc::clone(run));
        worker
    }

    /// True if `found` has an error, or a lease that has not expired. Removes an expired lease.
    pub(super) fn has_found(&mut self) -> bool {
        let now = self.core.now();
        if matches!(&self.found, Some(Ok((leased, _))) if leased.deadline <= now) {
            self.found = None;
        }
        self.found.is_some()
    }

    /// Takes the lease or the error out of `found`, and waits for the lease's acknowledgement level. `None` if `found`
    /// is empty, or if the journal no longer has the message.
    pub(super) fn take_found(&mut self) -> Result<Option<Lease<E, K>>, ReadError> {
        let Some(found) = self.found.take() else { return Ok(None) };
        let leased = self.core.complete(found?)?;
        Ok(leased.map(|leased| Lease::new(&self.core, leased)))
    }

    /// Ends the worker's waiting, when the user has stopped waiting. A message that was leased for this worker goes to
    /// another one.
    pub(super) fn give_up(&mut self) {
        self.core.leave_wait(&mut self.waits);
        if let Some(Ok(given)) = self.found.take() {
            self.core.put_back(given);
        }
    }

    /// A handle by which another thread ends the present or the next wait of a [`receive`](Self::receive). It also wakes
    /// the other threads that wait in this process for messages of the queue; these continue to wait.
    pub fn wakeup(&self) -> Wakeup {
        Wakeup::new(&self.outside)
    }

    /// Leases the next message; `None` if none comes within `limit`, or a [`Wakeup`] ended the wait. A limit of zero never
    /// waits, `Duration::MAX` waits without end. Messages that are leased again come before new ones.
    ///
    /// `limit` is measured with the operating system's clock, leases and delays with the engine's clock.
    ///
    /// Messages of a durable topic that retention has deleted, or that were lost to damage, are skipped and counted as
    /// [`lost`](crate::metrics::QueueMetrics::lost). Damage is also listed in [`Engine::gaps`](crate::Engine::gaps).
    ///
    /// # Errors
    /// The topic is closed, and no message is unread, leased or waiting; or the topic was halted, a consumer has
    /// failed, the queue was evicted or deleted, or the journal has failed.
    pub fn receive(&mut self, limit: Duration) -> Result<Option<Lease<E, K>>, ReadError> {
        if self.has_found()
            && let Some(lease) = self.take_found()?
        {
            return Ok(Some(lease));
        }
        self.core.leave_wait(&mut self.waits);
        let deadline = Instant::now().checked_add(limit);
        let woken = Some(&self.outside.flag).filter(|_| !limit.is_zero());
        let leased = self.core.receive(self.run.as_deref(), woken, deadline)?;
        Ok(leased.map(|leased| Lease::new(&self.core, leased)))
    }

    /// A handle of the worker's queue.
    pub fn queue(&self) -> super::Queue<E, K> {
        super::Queue { core: Arc::clone(&self.core) }
    }
}

/// A leased message. No other worker gets it until the lease ends.
///
/// Call [`ack`](Self::ack) when the work is done. A lease that is dropped without an ack gives its message back with
/// the reason "dropped", so a worker that panics delays its message by no more than the queue's backoff. A worker that
/// hangs loses the message when the lease expires.
pub struct Lease<E: Job = Message, K: Producers = Multi> {
    core: Arc<QueueCore<E, K>>,
    leased: LeasedMessage<Arc<E>>,
    /// True once this handle must not give the message back: it was acked, nacked, retried or left, or the lease was
    /// lost.
    over: bool,
    /// What renews the lease by itself; `None` if nothing does.
    renewal: Option<Renewal<E, K>>,
}

impl<E: Job, K: Producers> fmt::Debug for Lease<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeasedMessage { partition, offset, attempt, .. } = self.leased;
        write!(f, "Lease of {}/{partition}@{offset}, attempt {attempt}", self.core.topic)
    }
}

impl<E: Job, K: Producers> Lease<E, K> {
    pub(super) fn new(core: &Arc<QueueCore<E, K>>, leased: LeasedMessage<Arc<E>>) -> Self {
        Self { core: Arc::clone(core), leased, over: false, renewal: None }
    }

    /// The end of the lease, by the engine's clock.
    fn deadline(&self) -> Duration {
        let kept = self.renewal.as_ref().map_or(Duration::ZERO, Renewal::deadline);
        kept.max(self.leased.deadline)
    }

    /// The message.
    pub fn message(&self) -> &E {
        &self.leased.message
    }

    /// The number of this attempt at the message. The first attempt has the number 1.
    pub fn attempt(&self) -> u32 {
        self.leased.attempt
    }

    /// The partition of the message.
    pub fn partition(&self) -> u32 {
        self.leased.partition
    }

    /// The offset of the message in its partition.
    pub fn offset(&self) -> u64 {
        self.leased.offset
    }

    /// The time until the lease expires, by the engine's clock; zero if it has expired.
    pub fn left(&self) -> Duration {
        self.deadline().saturating_sub(self.core.now())
    }

    /// Acknowledges the message: it is never leased again.
    ///
    /// # Errors
    /// The lease has expired, so that another worker may have the message; another handle of the lease has ended it; the
    /// message or its queue was deleted; or the journal failed before the change reached the queue's acknowledgement
    /// level.
    pub fn ack(mut self) -> Result<(), LeaseError> {
        self.end(LeaseEnd::Ack)
    }

    /// Gives the message back after failed work: it is leased again after `delay`, to any worker. If this was the last
    /// attempt, it becomes a dead letter with this reason.
    ///
    /// # Errors
    /// As for [`ack`](Self::ack).
    pub fn nack(mut self, delay: Duration, reason: &str) -> Result<(), LeaseError> {
        self.end(LeaseEnd::Nack(delay, reason))
    }

    /// As [`nack`](Self::nack), with the delay that the queue's [`backoff`](crate::queue::QueueBuilder::backoff) has
    /// for this attempt.
    ///
    /// # Errors
    /// As for [`ack`](Self::ack).
    pub fn retry(mut self, reason: &str) -> Result<(), LeaseError> {
        self.end(LeaseEnd::Retry(reason))
    }

    /// Returns the ticket of this lease. [`Queue::resume`](crate::queue::Queue::resume) returns the lease of a ticket.
    pub fn ticket(&self) -> Ticket {
        let LeasedMessage { partition, offset, id, .. } = self.leased;
        Ticket { partition, offset, number: id.number }
    }

    /// Drops this handle without giving the message back: the message stays leased until the lease is
    /// [resumed](crate::queue::Queue::resume) or expires. For work that continues elsewhere, or after the end of the
    /// process.
    pub fn leave(mut self) -> Ticket {
        self.over = true;
        self.ticket()
    }

    /// Extends the lease, so that it expires `visibility` after now.
    ///
    /// # Errors
    /// As for [`ack`](Self::ack).
    pub fn renew(&mut self, visibility: Duration) -> Result<(), LeaseError> {
        match self.core.renew(self.leased.id, visibility) {
            Some((deadline, change)) => {
                self.leased.deadline = deadline;
                self.safe(change)
            }
            None => {
                self.over = true;
                Err(self.lost())
            }
        }
    }

    /// Renews the lease by itself, three times in the queue's [visibility](crate::queue::QueueBuilder::visibility), until
    /// it ends or this handle is dropped. For work whose time is not known: a worker that dies gives the message back, one
    /// that hangs keeps it. [`Queue::run`](crate::queue::Queue::run) does so for its handlers.
    ///
    /// The engine's timer renews. On a durable topic a renewal is written with the journal's next frame, whatever the queue's
    /// acknowledgement level.
    ///
    /// ```
    /// # use slipring::{Engine, Message, Record, clock::ManualClock};
    /// # use std::time::Duration;
    /// let clock = ManualClock::new();
    /// let engine = Engine::builder().clock(clock.clone()).build()?;
    /// let jobs = engine.topic::<Message>("jobs").create()?;
    /// let mut worker = jobs.queue("long").visibility(Duration::from_secs(30)).join()?;
    /// jobs.producer().create()?.send(Record::new("a film"))?;
    /// let mut job = worker.receive(Duration::ZERO)?.unwrap();
    /// job.keep();
    /// for _ in 0..10 {
    ///     clock.advance(Duration::from_secs(20));             // works for more than three minutes
    /// }
    /// job.ack()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep(&mut self) {
        if self.renewal.is_none() {
            self.renewal = Some(Renewal::new(&self.core, self.leased.id, self.leased.deadline));
        }
    }

    fn end(&mut self, how: LeaseEnd<'_>) -> Result<(), LeaseError> {
        if std::mem::replace(&mut self.over, true) {
            return Err(self.lost());
        }
        let change = self.core.end(self.leased.id, self.leased.attempt, how).ok_or_else(|| self.lost())?;
        self.safe(change)
    }

    fn safe(&self, change: u64) -> Result<(), LeaseError> {
        let LeasedMessage { partition, offset, .. } = self.leased;
        let queue = || self.core.name.clone();
        self.core.safe(change).map_err(|cause| LeaseError::Unknown { queue: queue(), partition, offset, cause })
    }

    /// Ends the lease without taking the handle, of which a task's handler may have a copy. Returns the number of the change;
    /// `None` if the lease had ended.
    #[cfg(feature = "async")]
    pub(super) fn end_shared(&self, how: LeaseEnd<'_>) -> Option<u64> {
        self.core.end(self.leased.id, self.leased.attempt, how)
    }

    /// The result of a change when it has reached the queue's acknowledgement level; otherwise `waker` is woken then.
    #[cfg(feature = "async")]
    pub(super) fn poll_safe(
        &self,
        change: u64,
        wait: &mut Option<OffsetWait>,
        waker: &Waker,
    ) -> Poll<Result<(), LeaseError>> {
        match self.core.is_safe(change, wait, waker) {
            true => Poll::Ready(self.safe(change)),
            false => Poll::Pending,
        }
    }

    fn lost(&self) -> LeaseError {
        let LeasedMessage { partition, offset, attempt, .. } = self.leased;
        let (queue, deadline) = (self.core.name.clone(), self.deadline());
        let late = self.core.now().saturating_sub(deadline);
        match self.core.now() >= deadline {
            true => LeaseError::Expired { queue, partition, offset, attempt, late },
            false => LeaseError::Deleted { queue, partition, offset },
        }
    }
}

impl<E: Job, K: Producers> Drop for Lease<E, K> {
    fn drop(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            // A drop must not wait for the journal, so the acknowledgement level is not waited for.
            let _ = self.core.end(self.leased.id, self.leased.attempt, LeaseEnd::Retry("dropped"));
        }
    }
}

/// The identity of a lease, which can be stored, and used by another part of the program or by a later process. It can
/// be written as text, `partition@offset#number`, and parsed: `"0@17#4294967297".parse()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    partition: u32,
    offset: u64,
    number: u64,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, offset, number } = self;
        write!(f, "{partition}@{offset}#{number}")
    }
}

/// The error for a text that is not a ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no ticket of a lease: it looks like 0@17#4294967297")]
pub struct TicketError {
    /// The refused text.
    pub text: String,
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let read = || {
            let (partition, rest) = text.split_once('@')?;
            let (offset, number) = rest.split_once('#')?;
            let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
            Some(Self { partition, offset, number: number.parse().ok()? })
        };
        read().ok_or_else(|| TicketError { text: text.to_owned() })
    }
}

/// Returns the lease of a ticket. An error if it has ended.
pub(super) fn resume<E: Job, K: Producers>(
    core: &Arc<QueueCore<E, K>>,
    ticket: &Ticket,
) -> Result<Lease<E, K>, LeaseError> {
    let Ticket { partition, offset, number } = *ticket;
    let over = || LeaseError::Over { queue: core.name.clone(), partition, offset };
    let claimed = core.resume(partition, offset, number).ok_or_else(over)?;
    let unknown = |cause: String| LeaseError::Unknown { queue: core.name.clone(), partition, offset, cause };
    let leased = core.complete(claimed).map_err(|refused| unknown(refused.to_string()))?.ok_or_else(over)?;
    Ok(Lease::new(core, leased))
}

/// Why a call on a lease failed: the lease had ended before it, or the journal failed before the change had reached the
/// acknowledgement level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The lease had expired before the call, so another worker may have the message.
    #[error(
        "the lease on message {partition}@{offset} of queue {queue:?} (attempt {attempt}) ran out {late:?} ago, and another worker may have it: renew sooner, or take a longer visibility; make the work safe to be done twice"
    )]
    Expired {
        /// The queue's name.
        queue: String,
        /// The message's partition.
        partition: u32,
        /// The message's offset in its partition.
        offset: u64,
        /// The number of the attempt. The first attempt has the number 1.
        attempt: u32,
        /// The time since the lease expired.
        late: Duration,
    },
    /// The lease of a ticket has expired or was ended by an ack or nack, or its message was moved or deleted.
    #[error(
        "the lease on message {partition}@{offset} of queue {queue:?} has ended: it ran out, so that another worker may have the message, or the message was acked, moved or deleted"
    )]
    Over {
        /// The queue's name.
        queue: String,
        /// The message's partition.
        partition: u32,
        /// The message's offset in its partition.
        offset: u64,
    },
    /// The journal failed before the change reached the queue's acknowledgement level.
    #[error(
        "it is unknown whether the change of message {partition}@{offset} of queue {queue:?} is in the journal, which has ended: {}", text::line(.cause)
    )]
    Unknown {
        /// The queue's name.
        queue: String,
        /// The message's partition.
        partition: u32,
        /// The message's offset in its partition.
        offset: u64,
        /// The journal's error, as text.
        cause: String,
    },
    /// The lease has ended before its time: another handle of the lease, from its
    /// [`Ticket`], has acked the message or given it back; or the message or its
    /// queue was deleted.
    #[error(
        "the lease on message {partition}@{offset} of queue {queue:?} has ended before its time: another handle of the lease has acked the message or given it back, or the message or its queue was deleted; this handle has nothing more to do"
    )]
    Deleted {
        /// The queue's name.
        queue: String,
        /// The message's partition.
        partition: u32,
        /// The message's offset in its partition.
        offset: u64,
    },
}
