//! What a queue promises about its leases, and what it says of a message.

use crate::queue::backoff::Backoff;
use std::time::Duration;

/// Which messages of a partition may be out at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Any. A message that comes again comes before new ones, and after later ones that were done meanwhile.
    #[default]
    Relaxed,
    /// One of each partition: the next is given out when the one before it was acked, deleted, or moved to the dead
    /// letters. A delay holds up its partition, and no other one.
    Strict,
}

/// What a queue promises about its leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a lease lasts unless renewed.
    pub visibility: Duration,
    /// How often a message is given out before it is a dead letter; none: for ever.
    pub max_attempts: Option<u32>,
    /// What may be out at the same time.
    pub order: Order,
    /// The most messages that are leased, delayed or come again.
    pub max_messages: usize,
    /// The most bytes that these hold.
    pub max_bytes: usize,
    /// How long a message is held back that comes again by itself.
    pub backoff: Backoff,
}

/// A lease, as its holder knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseId {
    pub(super) slot: u32,
    pub(in crate::queue) number: u64,
}

/// What is to be known of a message to go on with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMessage {
    /// Of its present or last lease; 0 if it had none.
    pub number: u64,
    /// How often it was given out.
    pub attempts: u32,
    /// Its state.
    pub phase: Phase,
}

/// The state of a message that is out of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Somebody has it until then.
    Leased(Duration),
    /// It may be given out from then on.
    Waiting(Duration),
    /// It was given out as often as it may be.
    Dying(DeathCause),
}

/// What a holder gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant<M> {
    /// To ack, nack or renew.
    pub id: LeaseId,
    /// The message's partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When the lease ends.
    pub deadline: Duration,
    /// The message.
    pub message: M,
}

/// The lease is no longer the caller's: it ran out, or the message was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// Why a message is moved to the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeathCause {
    /// The holder of the last attempt gave it back, and said this.
    Refused(Box<str>),
    /// The lease of the last attempt ran out.
    Expired,
}

/// A message that was given out as often as it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadMessage<'l, M> {
    /// The message's partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// How often it was given out.
    pub attempts: u32,
    /// What ended the last attempt.
    pub cause: &'l DeathCause,
    /// The message.
    pub message: &'l M,
}

/// How many messages are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseCounts {
    /// Somebody has a lease.
    pub leased: usize,
    /// Come again, now or later.
    pub waiting: usize,
    /// On their way to the dead letters.
    pub dying: usize,
    /// What all of them hold.
    pub bytes: usize,
    /// Leases that have run out so far.
    pub expired: u64,
}
