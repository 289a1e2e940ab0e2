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
//! | readers share the partitions, and go on after a restart where they committed | [`Topic::group`]; at most, at least or exactly once: [`Delivery`](group::Delivery) |
//! | jobs: each message to one of many workers, with leases, retries, delays, dead letters | [`Topic::queue`], and the module [`queue`] |
//! | events that outlive the process | [`Engine::open`], [`TopicBuilder::durable`]; how safe at return: [`ProducerBuilder::acknowledge`](producer::ProducerBuilder::acknowledge) |
//! | a producer that does not know what it had sent before it died | [`ProducerBuilder::idempotent`](producer::ProducerBuilder::idempotent), which can [`resume`](producer::IdempotentProducer::resume); without sequences of its own: [`TopicBuilder::deduplicate`] |
//! | events of several topics, all or none | [`Engine::transaction`] |
//! | reading one topic and writing others, exactly once | [`Engine::transform`], [`Topic::transform`] |
//! | one thread over many readers; tasks | [`Selector`](subscriber::Selector); feature `async` |
//! | what a journal's directory has in it, and mending it | the command `slipring`: `journal`, `group`, `queue` (package `slipring-cli`) |
//!
//! What is promised, and what a crash leaves between any two steps, is in `docs/GUARANTEES.md`, with the test for each.
//!
//! # Features
//! None is on unless named in `Cargo.toml`. What a feature adds is marked with its name on its own page.
//!
//! | feature | adds | brings |
//! |---|---|---|
//! | `async` | the module [`futures`]: futures and streams for every way to wait | `futures-core` |
//! | `observe` | [`Engine::builder`]`().observe(path)`: a Unix socket for `slipring top`; the snapshot as JSON | `serde`, `serde_json` |
//! | `metrics` | [`Metrics`](metrics::Metrics) to the recorder of the `metrics` crate | `metrics` |
//! | `tracing` | lifecycle events of topics and consumers, never one for each message | `tracing` |
//! | `zstd` | journals packed with zstd; lz4 is always there | `zstd`, a C library |
//!
//! # Overload
//! Nothing is overwritten before every subscriber has read it: a full topic makes its producers wait, or is an error
//! for the forms that try or have a deadline. [`Engine::metrics`] names the subscriber that is the furthest behind.
//! Only who has subscribed is waited for: what is published before is kept no longer than the topic's
//! [`retain`](TopicBuilder::retain) says, which is not at all unless told. Subscribe first, then publish.
//!
//! # Failure
//! A handler that returns an error or panics closes its topic, unless its [`OnError`](subscriber::OnError) says otherwise: producers and
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
pub mod topic;
pub mod transform;

#[cfg(feature = "async")]
pub use face::futures;
pub use face::{clock, cores, dead_letter, journal, metrics, prelude, producer, replay, subscriber, transaction};

pub use base::level::Level;
pub use engine::{Engine, EngineBuilder, EngineError};
pub use event::Event;
pub use event::codec::Persist;
pub use event::message::Message;
pub use event::record::Record;
pub use log::receipt::Receipt;
pub use produce::Producer;
pub use read::Subscriber;
#[doc(inline)]
pub use topic::{Topic, TopicBuilder};

pub use slipring_ring::text;
pub use slipring_ring::{Idle, Wait, WaitStrategy};
