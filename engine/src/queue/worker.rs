//! Workers: each takes messages of a queue, one at a time, with a lease.

use super::core::{Granted, LeaseEnd, QueueCore};
use super::job::Job;
use super::lease::Grant;
use crate::base::kind::Producers;
use crate::base::trace::lifecycle;
use crate::event::message::Message;
use crate::read::error::ReadError;
use crate::text;
use slipring_ring::Multi;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

/// One of the workers that share the messages of a queue: each message goes to one of them.
///
/// Joined with [`QueueBuilder::join`](crate::queue::QueueBuilder::join). Dropping it leaves its leases as they are: they belong to
/// their [`Lease`]s.
pub struct Worker<E: Job = Message, K: Producers = Multi> {
    pub(super) core: Arc<QueueCore<E, K>>,
    /// What was leased for this worker, or refused, and not returned to the user yet.
    pub(super) found: Option<Result<Granted<E>, ReadError>>,
    /// True if this worker watches the partitions with a waker.
    pub(super) watching: bool,
    /// The waiter and token of a selector that waits for this worker.
    pub(super) selector: Option<Waker>,
}

impl<E: Job, K: Producers> fmt::Debug for Worker<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker of queue {:?} of {:?}", self.core.name, self.core.topic)
    }
}

impl<E: Job, K: Producers> Drop for Worker<E, K> {
    fn drop(&mut self) {
        self.give_up();
        lifecycle!(info, "worker left", topic = self.core.topic, queue = self.core.name);
        self.core.workers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<E: Job, K: Producers> Worker<E, K> {
    pub(super) fn new(core: Arc<QueueCore<E, K>>) -> Self {
        core.workers.fetch_add(1, Ordering::AcqRel);
        lifecycle!(info, "worker joined", topic = core.topic, queue = core.name);
        Self { core, found: None, watching: false, selector: None }
    }

    /// True if something was found for this worker and is still valid.
    pub(super) fn has_found(&mut self) -> bool {
        let now = self.core.now();
        if matches!(&self.found, Some(Ok((grant, _))) if grant.deadline <= now) {
            self.found = None;
        }
        self.found.is_some()
    }

    /// Returns what was found for this worker; none if nothing was, or it is not valid any more.
    pub(super) fn take_found(&mut self) -> Result<Option<Lease<E, K>>, ReadError> {
        let Some(found) = self.found.take() else { return Ok(None) };
        let (grant, change) = found?;
        let grant = self.core.complete(grant, change)?;
        Ok(grant.map(|grant| Lease { core: Arc::clone(&self.core), grant, over: false }))
    }

    /// The user has stopped waiting: a message that was leased for this worker goes to another one.
    pub(super) fn give_up(&mut self) {
        self.core.leave_watch(&mut self.watching);
        if let Some(Ok(given)) = self.found.take() {
            self.core.put_back(given);
        }
    }

    /// The next message, leased to the caller; waits for one no longer than `limit`. Messages that come again come
    /// before new ones. A limit of zero never waits; `Duration::MAX` waits without end.
    ///
    /// The time that it waits is the system's; leases and delays go by the engine's clock.
    ///
    /// Messages of a durable topic that retention took first, or that were lost to damage, are passed over and counted as
    /// [`lost`](crate::metrics::QueueMetrics::lost); the latter are listed in [`Engine::gaps`](crate::Engine::gaps), too.
    ///
    /// # Errors
    /// The topic was closed, and every message was taken and none can come again; or it was halted, a consumer failed,
    /// or the queue was evicted.
    pub fn receive(&mut self, limit: Duration) -> Result<Option<Lease<E, K>>, ReadError> {
        if self.has_found()
            && let Some(lease) = self.take_found()?
        {
            return Ok(Some(lease));
        }
        self.core.leave_watch(&mut self.watching);
        let deadline = Instant::now().checked_add(limit);
        let grant = self.core.receive(!limit.is_zero(), deadline)?;
        Ok(grant.map(|grant| Lease { core: Arc::clone(&self.core), grant, over: false }))
    }

    /// The queue's name.
    pub fn queue(&self) -> super::Queue<E, K> {
        super::Queue { core: Arc::clone(&self.core) }
    }
}

/// A message, for a while: nobody else is given it until the lease ends.
///
/// [`ack`](Self::ack) it when the work is done. Dropped without, it is given back at once, with the reason "dropped": a
/// worker that panics delays nobody. One that hangs loses it when the lease runs out.
pub struct Lease<E: Job = Message, K: Producers = Multi> {
    core: Arc<QueueCore<E, K>>,
    grant: Grant<Arc<E>>,
    /// True once it was said what becomes of the message.
    over: bool,
}

impl<E: Job, K: Producers> fmt::Debug for Lease<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Grant { partition, offset, attempt, .. } = self.grant;
        write!(f, "Lease of {}/{partition}@{offset}, attempt {attempt}", self.core.topic)
    }
}

impl<E: Job, K: Producers> Lease<E, K> {
    /// The message.
    pub fn message(&self) -> &E {
        &self.grant.message
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.grant.attempt
    }

    /// The partition that the message was published into.
    pub fn partition(&self) -> u32 {
        self.grant.partition
    }

    /// The message's offset there.
    pub fn offset(&self) -> u64 {
        self.grant.offset
    }

    /// How much time is left by the engine's clock; zero if it ran out.
    pub fn left(&self) -> Duration {
        self.grant.deadline.saturating_sub(self.core.now())
    }

    /// The work is done: the message never comes again.
    ///
    /// # Errors
    /// The lease ran out, so that somebody else may be at it; or the message was deleted.
    pub fn ack(mut self) -> Result<(), LeaseError> {
        self.end(LeaseEnd::Ack)
    }

    /// The work failed: the message comes again after `delay`, to any worker. If this was the last attempt, it is moved
    /// to the dead letters with this reason.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack(mut self, delay: Duration, reason: &str) -> Result<(), LeaseError> {
        self.end(LeaseEnd::Nack(delay, reason))
    }

    /// The work failed: the message comes again after the delay that the queue's
    /// [`backoff`](crate::queue::QueueBuilder::backoff) has for this attempt. Else as [`nack`](Self::nack).
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn retry(mut self, reason: &str) -> Result<(), LeaseError> {
        self.end(LeaseEnd::Retry(reason))
    }

    /// What [`Queue::resume`](crate::queue::Queue::resume) gives the lease back for.
    pub fn ticket(&self) -> Ticket {
        let Grant { partition, offset, id, .. } = self.grant;
        Ticket { partition, offset, number: id.number }
    }

    /// Lets go of the lease without giving the message back: it stays leased until it is [resumed](crate::queue::Queue::resume) or
    /// runs out. For work that goes on elsewhere, or when the process ends before the work does.
    pub fn leave(mut self) -> Ticket {
        self.over = true;
        self.ticket()
    }

    /// The work takes longer: the lease lasts until `visibility` from now.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn renew(&mut self, visibility: Duration) -> Result<(), LeaseError> {
        match self.core.renew(self.grant.id, visibility) {
            Some((deadline, change)) => {
                self.grant.deadline = deadline;
                self.safe(change)
            }
            None => {
                self.over = true;
                Err(self.lost())
            }
        }
    }

    fn end(&mut self, how: LeaseEnd<'_>) -> Result<(), LeaseError> {
        if std::mem::replace(&mut self.over, true) {
            return Err(self.lost());
        }
        let change = self.core.end(self.grant.id, self.grant.attempt, how).ok_or_else(|| self.lost())?;
        self.safe(change)
    }

    fn safe(&self, change: u64) -> Result<(), LeaseError> {
        let Grant { partition, offset, .. } = self.grant;
        let queue = || self.core.name.clone();
        self.core.safe(change).map_err(|cause| LeaseError::Unknown { queue: queue(), partition, offset, cause })
    }

    fn lost(&self) -> LeaseError {
        let Grant { partition, offset, attempt, deadline, .. } = self.grant;
        let queue = self.core.name.clone();
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
            // The drop does not wait for the journal.
            let _ = self.core.end(self.grant.id, self.grant.attempt, LeaseEnd::Retry("dropped"));
        }
    }
}

/// The identity of a lease, to be kept in a database or given to a later life of the process. It can be written as text and
/// read again: `"0@17#4294967297".parse()`.
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

/// A text that is no ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no ticket of a lease: it looks like 0@17#4294967297")]
pub struct NoTicket {
    /// The text.
    pub text: String,
}

impl FromStr for Ticket {
    type Err = NoTicket;

    fn from_str(text: &str) -> Result<Self, NoTicket> {
        let read = || {
            let (partition, rest) = text.split_once('@')?;
            let (offset, number) = rest.split_once('#')?;
            let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
            Some(Self { partition, offset, number: number.parse().ok()? })
        };
        read().ok_or_else(|| NoTicket { text: text.to_owned() })
    }
}

/// The lease of a ticket.
pub(super) fn resume<E: Job, K: Producers>(
    core: &Arc<QueueCore<E, K>>,
    ticket: &Ticket,
) -> Result<Lease<E, K>, LeaseError> {
    let Ticket { partition, offset, number } = *ticket;
    let over = || LeaseError::Over { queue: core.name.clone(), partition, offset };
    let (grant, change) = core.resume(partition, offset, number).ok_or_else(over)?;
    let unknown = |cause: String| LeaseError::Unknown { queue: core.name.clone(), partition, offset, cause };
    let grant = core.complete(grant, change).map_err(|refused| unknown(refused.to_string()))?.ok_or_else(over)?;
    Ok(Lease { core: Arc::clone(core), grant, over: false })
}

/// A lease was not the holder's any more, or it is unknown whether its end is safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// It ran out.
    #[error(
        "the lease on message {partition}@{offset} of queue {queue:?} (attempt {attempt}) ran out {late:?} ago, and another worker may have it: renew sooner, or take a longer visibility; make the work safe to be done twice"
    )]
    Expired {
        /// The queue.
        queue: String,
        /// The message's partition.
        partition: u32,
        /// Its offset there.
        offset: u64,
        /// Which attempt this was.
        attempt: u32,
        /// How long ago it ran out.
        late: Duration,
    },
    /// A ticket's lease ran out, or its message was done with or deleted.
    #[error(
        "the lease on message {partition}@{offset} of queue {queue:?} has ended: it ran out, so that another worker may have the message, or the message was done with"
    )]
    Over {
        /// The queue.
        queue: String,
        /// The message's partition.
        partition: u32,
        /// Its offset there.
        offset: u64,
    },
    /// The journal failed before it was known whether the change is safe.
    #[error(
        "it is unknown whether what was said of message {partition}@{offset} of queue {queue:?} is in the journal, which has ended: {}", text::line(.cause)
    )]
    Unknown {
        /// The queue.
        queue: String,
        /// The message's partition.
        partition: u32,
        /// Its offset there.
        offset: u64,
        /// What happened to the journal.
        cause: String,
    },
    /// The message was deleted meanwhile.
    #[error("message {partition}@{offset} of queue {queue:?} was deleted while it was leased: nothing is to be done")]
    Deleted {
        /// The queue.
        queue: String,
        /// The message's partition.
        partition: u32,
        /// Its offset there.
        offset: u64,
    },
}
