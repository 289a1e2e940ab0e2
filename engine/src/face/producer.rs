//! Publishing: producers, receipts, keys and partitions, and what a refused publish says.
//!
//! [`Topic::producer`](crate::Topic::producer) gives the settings of a [`Producer`](crate::Producer). An event is written in
//! place, into a slot of one partition's ring; a [`Record`](crate::Record) is copied there. The
//! [`Receipt`](crate::Receipt) says where the event stands and how safe it is.
//!
//! ```
//! use slipring::{Engine, Level, Message, Record, journal::simulated::SimulatedDisk, producer::PublishError};
//!
//! let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
//! let orders = engine.topic::<Message>("orders").partitions(4).max_message(64).durable().create()?;
//! let mut producer = orders.producer().acknowledge(Level::Durable).create()?;
//! let receipt = producer.send(Record::new("buy 3").key("account-7"))?;        // returns when the disk has it
//! assert_eq!(receipt.reached(), Level::Durable);
//! assert!(matches!(producer.send(Record::new(&[0; 65])), Err(PublishError::MessageTooLarge { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which producer
//! | you want | take |
//! |---|---|
//! | to publish, from one thread or several | [`Producer`](crate::Producer); it is `Clone` unless the topic has a [`Single`] producer |
//! | each event once, although it is sent again after a crash | [`IdempotentProducer`], with a name and sequences of your own |
//! | many small records for the price of one claim | [`LingeringProducer`], which gathers them for a time |
//! | events of several topics, all or none | the module [`transaction`](crate::transaction) |
//!
//! # Guarantees
//! - Events of one producer stand in a partition in the order in which it published them.
//! - A publish that returns an error has published nothing, unless its error says that this is unknown.
//! - Nothing is overwritten before every subscriber has read it; [`Overflow`](crate::topic::Overflow) says what a publish
//!   into a full partition does.
//! - An event is at least as safe as the asked [`Level`](crate::Level) when the publish returns.
//!
//! # Errors
//! [`PublishError`] is one refused publish, [`ProducerError`] a producer that could not be created, [`IdempotenceError`] a
//! sequence that was refused, [`WaitError`] a receipt that does not reach a level. [`Rejected`] gives the value back.
//!
//! # Unlike Kafka
//! A publish returns when the event can be read, or is as safe as asked; there is no buffer in between unless a
//! [`LingeringProducer`] is asked for. An idempotent producer's sequences are the caller's own, so that they survive the
//! death of the process. A key hashes to the same partition in every version, with a hash that is not Kafka's.

pub use crate::base::kind::Producers;
pub use crate::base::level::{Unsupported, WaitError};
pub use crate::log::producers::PRODUCER_NAME_EXPIRY;
pub use crate::log::receipt::{BatchReceipt, Reach};
pub use crate::produce::ProducerBuilder;
pub use crate::produce::idempotent::{IdempotenceError, IdempotentProducer, MAX_PRODUCER_NAMES};
pub use crate::produce::linger::{LingerBuilder, LingeringProducer};
pub use crate::produce::partitioner::{Partitioner, Partitioning};
pub use crate::topic::error::{ProducerError, PublishError, Rejected};
pub use crate::topic::identity::KEPT_RECEIPTS;
pub use slipring_ring::{Multi, Single};
