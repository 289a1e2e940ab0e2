//! What a queue guarantees of its leases, and the states of a message.

use crate::queue::backoff::Backoff;
use std::time::Duration;

/// Which messages of a partition may be out at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Any of them. A message that comes again is given out before new ones, and perhaps after later ones.
    #[default]
    Relaxed,
    /// One at a time: the next is given out when the one before it was acked, deleted, or moved to the dead letters. A delay
    /// holds up its own partition only.
    Strict,
}

/// The terms of a queue's leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a lease lasts unless renewed.
    pub visibility: Duration,
    /// How often a message is given out before it becomes a dead letter. None: without end.
    pub max_attempts: Option<u32>,
    /// Which messages may be out at the same time.
    pub order: Order,
    /// The most messages that are leased, delayed, or waiting to be given out again.
    pub max_messages: usize,
    /// The most bytes that these messages take.
    pub max_bytes: usize,
    /// How long a message is held back after an expired lease, or a retry.
    pub backoff: Backoff,
}

/// The identity of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseId {
    pub(super) slot: u32,
    pub(in crate::queue) number: u64,
}

/// The recorded state of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMessage {
    /// The number of its present or last lease; 0 if it had none.
    pub number: u64,
    /// How often it was given out.
    pub attempts: u32,
    /// Its phase.
    pub phase: Phase,
}

/// The phase of a message that is out of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A worker has it until this time.
    Leased(Duration),
    /// It may be given out from this time on.
    Waiting(Duration),
    /// It has had its last attempt.
    Dying(DeathCause),
}

/// A lease of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant<M> {
    /// What the worker acks, nacks or renews with.
    pub id: LeaseId,
    /// The message's partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// Which attempt this is, counted from 1.
    pub attempt: u32,
    /// When the lease runs out.
    pub deadline: Duration,
    /// The message.
    pub message: M,
}

/// The lease is no longer the caller's: it ran out, or the message was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// Why a message became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeathCause {
    /// The worker of the last attempt gave it back with this reason.
    Refused(Box<str>),
    /// The lease of the last attempt ran out.
    Expired,
}

/// A message that has had its last attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadMessage<'l, M> {
    /// The message's partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// How often it was given out.
    pub attempts: u32,
    /// Why it is dying.
    pub cause: &'l DeathCause,
    /// The message.
    pub message: &'l M,
}

/// How many messages are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseCounts {
    /// Messages that a worker has a lease on.
    pub leased: usize,
    /// Messages that come again, now or later.
    pub waiting: usize,
    /// Messages on their way to the dead letters.
    pub dying: usize,
    /// The bytes of all of them.
    pub bytes: usize,
    /// Leases that have run out so far.
    pub expired: u64,
}
