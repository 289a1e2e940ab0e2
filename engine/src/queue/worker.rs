//! A worker takes messages of a queue, one at a time, each under a lease.

use super::desk::{Desk, End};
use super::lease::Grant;
use crate::error::ReadError;
use crate::message::Message;
use crate::producer::Producers;
use slipring_ring::Multi;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One of the many that share the messages of a queue: each message goes to one of them.
///
/// Joined with [`QueueBuilder::join`](crate::QueueBuilder::join). Dropping it leaves its leases as they are: they belong to
/// their [`Lease`]s.
pub struct Worker<K: Producers = Multi> {
    pub(super) desk: Arc<Desk<K>>,
}

impl<K: Producers> fmt::Debug for Worker<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker of queue {:?} of {:?}", self.desk.name, self.desk.topic)
    }
}

impl<K: Producers> Worker<K> {
    /// The next message, leased to the caller; waits for one no longer than `limit`. Messages that come again come
    /// before new ones. A limit of zero never waits; `Duration::MAX` waits without end.
    ///
    /// The time that it waits is the system's; leases and delays go by the engine's clock.
    ///
    /// # Errors
    /// The topic was closed, and every message was taken and none can come again; or it was halted, a consumer failed,
    /// or the queue was evicted.
    pub fn receive(&mut self, limit: Duration) -> Result<Option<Lease<K>>, ReadError> {
        let deadline = Instant::now().checked_add(limit);
        let grant = self.desk.receive(!limit.is_zero(), deadline)?;
        Ok(grant.map(|grant| Lease { desk: Arc::clone(&self.desk), grant, over: false }))
    }

    /// The queue that it works for.
    pub fn queue(&self) -> super::Queue<K> {
        super::Queue { desk: Arc::clone(&self.desk) }
    }
}

/// A message, for a while: nobody else is given it until the lease ends.
///
/// [`ack`](Self::ack) it when the work is done. Dropped without, it is given back at once, with the reason "dropped": a
/// worker that panics delays nobody. One that hangs loses it when the lease runs out.
pub struct Lease<K: Producers = Multi> {
    desk: Arc<Desk<K>>,
    grant: Grant<Arc<Message>>,
    /// Said what becomes of the message.
    over: bool,
}

impl<K: Producers> fmt::Debug for Lease<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Grant { partition, offset, attempt, .. } = self.grant;
        write!(f, "Lease of {}/{partition}@{offset}, attempt {attempt}: {:?}", self.desk.topic, self.grant.message)
    }
}

impl<K: Producers> Lease<K> {
    /// The message.
    pub fn message(&self) -> &Message {
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
        self.grant.deadline.saturating_sub(self.desk.now())
    }

    /// The work is done: the message never comes again.
    ///
    /// # Errors
    /// The lease ran out, so that somebody else may be at it; or the message was deleted.
    pub fn ack(mut self) -> Result<(), LeaseError> {
        self.end(End::Ack)
    }

    /// The work failed: the message comes again after `delay`, to any worker. If this was the last attempt, it is moved
    /// to the dead letters with this reason.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack(mut self, delay: Duration, reason: &str) -> Result<(), LeaseError> {
        self.end(End::Nack(delay, reason))
    }

    /// The work takes longer: the lease lasts until `visibility` from now.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn renew(&mut self, visibility: Duration) -> Result<(), LeaseError> {
        match self.desk.renew(self.grant.id, visibility) {
            Some(deadline) => {
                self.grant.deadline = deadline;
                Ok(())
            }
            None => {
                self.over = true;
                Err(self.lost())
            }
        }
    }

    fn end(&mut self, how: End<'_>) -> Result<(), LeaseError> {
        if std::mem::replace(&mut self.over, true) {
            return Err(self.lost());
        }
        self.desk.end(self.grant.id, how).ok_or_else(|| self.lost())
    }

    fn lost(&self) -> LeaseError {
        let Grant { partition, offset, attempt, deadline, .. } = self.grant;
        let queue = self.desk.name.clone();
        let late = self.desk.now().saturating_sub(deadline);
        match self.desk.now() >= deadline {
            true => LeaseError::Expired { queue, partition, offset, attempt, late },
            false => LeaseError::Deleted { queue, partition, offset },
        }
    }
}

impl<K: Producers> Drop for Lease<K> {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.end(End::Nack(Duration::ZERO, "dropped"));
        }
    }
}

/// A lease was no longer its holder's.
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
