//! The settings of a queue's leases, and the states of its messages.

use crate::base::backoff::Backoff;
use std::time::Duration;

/// Which messages of a partition may be leased at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Any messages may be leased at the same time. A message that is leased again comes before unread messages, but
    /// perhaps after later messages of its partition.
    #[default]
    Relaxed,
    /// One message at a time: the next message is leased when the one before it was acked, deleted or moved to the dead
    /// letters. A delay makes only the messages of its own partition wait.
    Strict,
}

/// The settings of a queue's leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// How long a lease lasts unless it is renewed.
    pub visibility: Duration,
    /// How many times a message is leased before it becomes a dead letter. `None`: no limit.
    pub max_attempts: Option<u32>,
    /// Which messages of a partition may be leased at the same time.
    pub order: Order,
    /// The greatest number of messages that the queue has read and not finished: leased, waiting or dying.
    pub max_messages: usize,
    /// The size of these messages, in bytes, from which on no new one is admitted.
    pub max_bytes: usize,
    /// How long a message waits before it is leased again, after an expired lease or a retry.
    pub backoff: Backoff,
}

/// The identity of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseId {
    pub(super) slot: u32,
    pub(in crate::queue) number: u64,
}

/// The state of an unfinished message, as the journal records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMessage {
    /// The number of the message's present or last lease; 0 if it was never leased.
    pub number: u64,
    /// How many times the message was leased.
    pub attempts: u32,
    /// The message's phase.
    pub phase: Phase,
}

/// The state of a message that the queue has read and that is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A worker has the message until this time, by the engine's clock.
    Leased(Duration),
    /// The message may be leased from this time on, by the engine's clock.
    Waiting(Duration),
    /// The message has had its last attempt, and is to become a dead letter.
    Dying(DeathCause),
}

/// A leased message, as a worker gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedMessage<M> {
    /// The identity of the lease, for the worker's ack, nack or renew.
    pub id: LeaseId,
    /// The message's partition.
    pub partition: u32,
    /// The message's offset in its partition.
    pub offset: u64,
    /// The number of this attempt. The first attempt has the number 1.
    pub attempt: u32,
    /// The time at which the lease expires, by the engine's clock.
    pub deadline: Duration,
    /// The message.
    pub message: M,
}

/// The error for a lease that has ended: it has expired, was ended before, or its message was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseEnded;

/// Why a message has become, or is to become, a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeathCause {
    /// The worker of the last attempt nacked the message, with this reason.
    Refused(Box<str>),
    /// The lease of the last attempt expired.
    Expired,
}

/// A message that has had its last attempt and is to become a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadMessage<'l, M> {
    /// The message's partition.
    pub partition: u32,
    /// The message's offset in its partition.
    pub offset: u64,
    /// How many times the message was leased.
    pub attempts: u32,
    /// Why the message is dying.
    pub cause: &'l DeathCause,
    /// The message.
    pub message: &'l M,
}

/// The number of messages in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseCounts {
    /// The number of messages that are leased to a worker.
    pub leased: usize,
    /// The number of messages that wait to be leased: they were sent with a delay, or are to be leased again.
    pub waiting: usize,
    /// The number of messages that are to become dead letters, or whose dead letter is published but not in a frame of
    /// the journal yet.
    pub dying: usize,
    /// The size in bytes of all these messages.
    pub bytes: usize,
    /// The number of leases that have expired so far.
    pub expired: u64,
}
