//! A message log for one machine, as a library: Kafka's topics and offsets on the LMAX Disruptor's mechanics.
//!
//! An [`Engine`] owns [`Topic`]s. A topic is a pre-allocated ring of events of one type; a [`Producer`] writes them in
//! place, subscribers read them by reference, each at its own position, on a thread of its own or by polling. A
//! subscriber can stand behind others. Nothing is allocated for a message. An event is written and read without a lock and a
//! copy; a [`Message`] is copied once, into its slot, and ids, rate limits and producers that gather take a lock.
//!
//! ```
#![doc = include_str!("../examples/quickstart.rs")]
//! ```
//!
//! # Which part for what
//! | for | take |
//! |---|---|
//! | each reader sees all events | [`Topic::subscribe`]; from the past, of a durable topic: [`Topic::replay`] |
//! | readers share the partitions, and go on after a restart where they committed | [`Topic::group`]; at most, at least or exactly once: [`Delivery`] |
//! | jobs: each message to one of many workers, with leases, retries, delays, dead letters | [`Topic::queue`], and the module [`queue`] |
//! | events that outlive the process | [`Engine::open`], [`TopicBuilder::durable`]; how safe at return: [`ProducerBuilder::acknowledge`] |
//! | a producer that does not know what it had sent before it died | [`ProducerBuilder::idempotent`], which can [`resume`](IdempotentProducer::resume); without sequences of its own: [`TopicBuilder::deduplicate`] |
//! | events of several topics, all or none | [`Engine::transaction`] |
//! | reading one topic and writing others, exactly once | [`Engine::transform`], [`Topic::transform`] |
//! | one thread over many readers; tasks | [`Selector`]; feature `async` |
//! | what a journal's directory has in it, and mending it | the command `slipring`: `journal`, `group`, `queue` (package `slipring-cli`) |
//!
//! What is promised, and what a crash leaves between any two steps, is in `docs/GUARANTEES.md`, with the test for each.
//!
//! # Overload
//! Nothing is overwritten before every subscriber has read it: a full topic makes its producers wait, or is an error
//! for the forms that try or have a deadline. [`Engine::metrics`] names the subscriber that is the furthest behind.
//! Only who has subscribed is waited for: what is published before is kept no longer than the topic's
//! [`retain`](TopicBuilder::retain) says, which is not at all unless told. Subscribe first, then publish.
//!
//! # Failure
//! A handler that returns an error or panics closes its topic, unless its [`OnError`] says otherwise: producers and
//! other subscribers get its name and cause as an error. Nothing hangs, and the library prints nothing; a panic is
//! still shown by the program's own panic hook.
//!
//! # Fork
//! A child that a program forks has the memory, the files and the locks of its parent, and none of its threads. Its copy of an
//! engine with a journal is only good to be dropped or left alone: each call that needs the journal is an error that names the
//! parent, no file is changed and no lock is given up. Topics in memory work as far as the calling thread does everything
//! itself; nobody makes room, and locks that another thread held at the fork stay locked. Fork first and open then, or start
//! another program ([`std::process::Command`] does no harm). A child may open a journal of its own.
//!
//! # Shutdown
//! [`Engine::shutdown`] drains up to a deadline and reports what each subscriber read and what was left.
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod base;
mod edge;
mod engine;
mod event;
mod group;
#[cfg(test)]
mod history;
mod log;
mod produce;
pub mod queue;
mod read;
mod topic;
mod transform;

/// A journal on its own, and what an engine has written into one: the package `slipring-journal`, with topics, groups and gaps
/// as an engine records them.
pub mod journal {
    pub use crate::log::catalog::{RecordedTopic, catalogue};
    pub use crate::log::gap::{acknowledge_gaps, told_gaps};
    pub use crate::log::offsets::recorded::{GroupKind, GroupOffset, group_offsets, transform_offsets};
    #[doc(inline)]
    pub use slipring_journal::*;
}

pub use base::clock::{Clock, ManualClock, SystemClock, Tick, Timestamp};
pub use base::closed::Closed;
pub use base::cores::{CorePlan, CoresError, CoresReport, ThreadReport};
pub use base::ids::TopicId;
pub use base::ids::TopicPartition;
pub use base::ids::{MAX_NAME, MAX_PARTITIONS};
pub use base::kind::Producers;
pub use base::level::{Level, Unsupported, WaitError};
pub use base::overload::{Overflow, Slow};
pub use base::rate::RateLimit;
#[cfg(feature = "async")]
pub use edge::futures::{EventStream, NextBatch, NextGroupBatch, Publishing, Sending};
#[cfg(feature = "observe")]
pub use engine::ObserveError;
pub use engine::{Engine, EngineBuilder, EngineError};
pub use event::Event;
pub use event::codec::{Persist, Unreadable};
pub use event::dead_letter::DeadLetter;
pub use event::message::{Headers, Message};
pub use event::record::Record;
pub use group::{
    Assignor, Commit, CommitError, Delivery, GroupBatch, GroupBuilder, GroupDescription, GroupError, GroupMessages,
    GroupName, GroupPartition, GroupRun, GroupState, Member, MemberDescription, MemberEnd, Rebalance,
};
pub use log::committer::Pace;
pub use log::gap::{Gap, OnGap, ReaderKind, ToldGap};
pub use log::offsets::commit_right::Fenced;
pub use log::offsets::transform::{TransformDescription, TransformPartition};
pub use log::producers::PRODUCER_NAME_EXPIRY;
pub use log::receipt::{BatchReceipt, Reach, Receipt};
pub use produce::idempotent::{IdempotenceError, IdempotentProducer, MAX_PRODUCER_NAMES};
pub use produce::linger::{LingerBuilder, LingeringProducer};
pub use produce::partitioner::{Partitioner, Partitioning};
pub use produce::transaction::{Transaction, TransactionError};
pub use produce::{Producer, ProducerBuilder};
#[cfg(feature = "async")]
pub use queue::NextLease;
pub use queue::{
    Backoff, Job, Lease, LeaseError, NoTicket, Order, Queue, QueueBuilder, QueueError, Ticket, Waiting, Worker,
};
pub use read::dead_letters::Bury;
pub use read::error::{CancelError, PositionError, ReadError};
pub use read::managed::Subscription;
pub use read::replay::{Replay, ReplayBuilder, ReplayError};
pub use read::selector::{Selectable, Selector};
pub use read::{At, Batch, Messages, StartAt, Subscriber, SubscriberBuilder};
pub use topic::dedup::Deduplication;
pub use topic::description::Description;
pub use topic::error::{
    Contradiction, DeadLetterError, MAX_MESSAGE, ProducerError, PublishError, Rejected, SubscribeError, TopicError,
};
pub use topic::identity::KEPT_RECEIPTS;
pub use topic::metrics::{ConsumerMetrics, GapMetrics, Metrics, PartitionMetrics, QueueMetrics, TopicMetrics};
pub use topic::report::{ConsumerReport, CutClaim, QueueReport, Report, TopicReport};
pub use topic::{Safe, Shape, Topic, TopicBuilder};
pub use transform::{Outputs, Transform, TransformBuilder, TransformEnd, TransformError, TransformRun};

pub use slipring_ring::text;
pub use slipring_ring::{Ending, Idle, Multi, OnError, Single, Wait, WaitStrategy, pin};
