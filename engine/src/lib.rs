//! A message log for one machine, as a library: Kafka's topics and offsets on the LMAX Disruptor's mechanics.
//!
//! An [`Engine`] owns [`Topic`]s. A topic is one ring of pre-allocated slots for each partition, for events of one
//! type. A [`Producer`] writes events in place. Subscribers read them by reference, each at its own position, by
//! polling or on a thread of the engine. A subscriber can be ordered after other subscribers. Publishing, and reading
//! by subscribers, allocate nothing, take no lock and copy nothing, with these exceptions: a [`Message`] is copied
//! once, into its slot; topics that deduplicate or have a rate limit, idempotent producers, and producers that gather
//! records take a lock.
//!
//! ```
#![doc = include_str!("../examples/quickstart.rs")]
//! ```
//!
//! # Which part for what
//! | for | take |
//! |---|---|
//! | each reader sees all events | [`Topic::subscribe`]; past events of a durable topic: [`Topic::replay`] |
//! | a slow reader gets the newest event of each key, not all | [`SubscriberBuilder::conflate`](subscriber::SubscriberBuilder::conflate) |
//! | any thread asks for the last event of a key, or follows the changes | [`Topic::table`] |
//! | readers share the partitions, and continue after a restart at the committed offset | [`Topic::group`]; at most once, at least once or exactly once: [`Delivery`](group::Delivery) |
//! | jobs: each message goes to one of many workers, with leases, retries, delays and dead letters | [`Topic::queue`], and the module [`queue`] |
//! | events that outlive the process | [`Engine::open`], [`TopicBuilder::durable`]; the level at which a publish returns: [`ProducerBuilder::acknowledge`](producer::ProducerBuilder::acknowledge) |
//! | a producer that after a crash does not know which events it had published | [`ProducerBuilder::idempotent`](producer::ProducerBuilder::idempotent), which can [`resume`](producer::IdempotentProducer::resume); by a message id instead of sequences: [`TopicBuilder::deduplicate`] |
//! | events that outlive the machine: a bridge copies them to a cluster, and receipts reach [`Level::Replicated`] | package `slipring-bridge`, and the module [`replication`] |
//! | events of several topics, published all or none | [`Engine::transaction`] |
//! | reading one topic and writing others, exactly once | [`Engine::transform`], [`Topic::transform`] |
//! | events to and from other processes of the user on this machine | [`Topic::share`], [`Topic::feed_from`], and the module [`share`] |
//! | one thread that waits for many readers; async tasks | [`Selector`](subscriber::Selector); feature `async` |
//! | ending the wait of a reader from another thread | the method `wakeup` of the reader: [`Wakeup`](subscriber::Wakeup) |
//! | inspecting and repairing a journal's directory | the command `slipring`: `journal`, `group`, `queue` (package `slipring-cli`) |
//!
//! The guarantees, and the state that a crash leaves between any two steps, are in `docs/GUARANTEES.md`, with the test
//! that checks each.
//!
//! # Features
//! All features are off by default. Each item that needs a feature is marked with the feature's name.
//!
//! | feature | adds | brings |
//! |---|---|---|
//! | `async` | the module [`futures`]: futures and streams of subscribers, group members, queue workers and producers | `futures-core` |
//! | `observe` | [`Engine::builder`]`().observe(path)`: a Unix socket for `slipring top`; metrics as JSON | `serde`, `serde_json` |
//! | `metrics` | exports [`Metrics`](metrics::Metrics) to the recorder of the `metrics` crate | `metrics` |
//! | `tracing` | lifecycle events of topics and consumers, never one for each message | `tracing` |
//! | `zstd` | journals compressed with zstd; lz4 needs no feature | `zstd`, a C library |
//!
//! # Overload
//! No event is overwritten before every subscriber has read it. When a topic is full, publishing waits by default; the
//! forms that try or have a deadline return an error. [`Engine::metrics`] names the subscriber that is furthest behind.
//! Producers wait only for subscribers that exist: before anybody subscribes, the topic keeps only the last
//! [`retain`](TopicBuilder::retain) events, by default none. So subscribe first, then publish.
//!
//! # Failure
//! A handler that returns an error or panics closes its topic, unless its [`OnError`](subscriber::OnError) says
//! otherwise. The topic's producers and other subscribers then get an error with the subscriber's name and the cause;
//! none of them hangs. The library prints nothing, but the program's own panic hook still shows a panic.
//!
//! # Fork
//! A forked child process has a copy of its parent's memory, and its files and locks, but only the thread that forked.
//! In the child, the copy of an engine with a journal can only be dropped or left alone: its durable topics have
//! failed, so each publish, read, join or wait returns an error that names the parent; no file is changed and no file
//! lock is released. There are two exceptions. A replay may read the events that the journal had at the fork. And a
//! batch or a lease that the thread held at the fork can be committed or acked at [`Level::Published`], because that
//! waits for nothing; but only the child's memory changes, and the parent handles the batch or lease as well. In a
//! child that was made by the system call `clone` instead of `fork`, only calls that wait for the journal return that
//! error.
//!
//! A topic in memory works in the child only as far as the calling thread does all the work: no other thread reads, so
//! none makes room, and a lock that another thread held at the fork stays locked. So fork first and open the engine
//! afterwards, or start another program ([`std::process::Command`] is safe). A child may open a journal of its own.
//!
//! # Shutdown
//! [`Engine::shutdown`] lets subscribers read the remaining events up to a deadline, and reports how far each one came
//! and how many events it left.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod base;
mod edge;
mod engine;
mod event;
mod face;
pub mod group;
#[cfg(test)]
mod history;
mod log;
mod produce;
pub mod queue;
mod read;
pub mod share;
pub mod topic;
pub mod transform;

#[cfg(feature = "async")]
pub use face::futures;
pub use face::{
    clock, cores, dead_letter, journal, metrics, prelude, producer, replay, replication, subscriber, table, transaction,
};

pub use base::level::Level;
pub use engine::{Engine, EngineBuilder, EngineError};
pub use event::Event;
pub use event::codec::Persist;
pub use event::message::Message;
#[doc(hidden)]
pub use event::plain as __plain;
pub use event::record::Record;
pub use log::receipt::Receipt;
pub use produce::Producer;
pub use read::Subscriber;
#[doc(inline)]
pub use topic::{Topic, TopicBuilder};

pub use slipring_ring::text;
pub use slipring_ring::{Idle, Wait, WaitStrategy};

/// The code in the pages compiles and runs.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../docs/FROM_KAFKA.md")]
    struct FromKafka;
    #[doc = include_str!("../../docs/FROM_DISRUPTOR.md")]
    struct FromDisruptor;
    #[doc = include_str!("../../docs/FROM_QUEUES.md")]
    struct FromQueues;
    #[doc = include_str!("../../docs/REAL_TIME.md")]
    struct RealTime;
    #[doc = include_str!("../../docs/MARKET_DATA.md")]
    struct MarketData;
    #[doc = include_str!("../../docs/PIPELINE.md")]
    struct Pipeline;
}
