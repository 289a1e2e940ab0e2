//! Publishing: producers, receipts, keys and partitions, and the errors of a refused publish.
//!
//! [`Topic::producer`](crate::Topic::producer) returns the settings of a [`Producer`](crate::Producer). An event is
//! written in place, into a slot of one partition's ring; a [`Record`](crate::Record) is copied into the slot. The
//! [`Receipt`](crate::Receipt) holds the event's topic, partition and offset, and the level that it has reached.
//!
//! ```
//! use slipring::{Engine, Level, Message, Record, journal::simulated::SimulatedDisk, producer::PublishError};
//!
//! let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
//! let orders = engine.topic::<Message>("orders").partitions(4).max_message(64).durable().create()?;
//! let mut producer = orders.producer().acknowledge(Level::Durable).create()?;
//! let receipt = producer.send(Record::new("buy 3").key("account-7"))?;        // returns when it is durable
//! assert_eq!(receipt.reached(), Level::Durable);
//! assert!(matches!(producer.send(Record::new(&[0; 65])), Err(PublishError::MessageTooLarge { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which producer
//! | you want | take |
//! |---|---|
//! | to publish, from one thread or several | [`Producer`](crate::Producer); it is `Clone`, unless the topic's producer kind is [`Single`] |
//! | each event once, even if it is published again after a crash | [`IdempotentProducer`], with a name and sequences of your own |
//! | many small records for the price of one claim | [`LingeringProducer`], which gathers them for a set time |
//! | events of several topics, published all or none | the module [`transaction`](crate::transaction) |
//!
//! # Guarantees
//! - Events of one producer have rising offsets in a partition, in the order in which it published them.
//! - A publish that returns an error has published nothing, unless the error says that the outcome is unknown.
//! - No event is overwritten before every subscriber has read it; [`Overflow`](crate::topic::Overflow) says what a
//!   publish into a full partition does.
//! - When a publish returns, its event has reached at least the requested [`Level`](crate::Level).
//!
//! # Errors
//! [`PublishError`]: a publish was refused; [`Rejected`] also returns the value. [`ProducerError`]: a producer could
//! not be created. [`IdempotenceError`]: a sequence was refused. [`WaitError`]: a receipt does not reach the level.
//!
//! # Unlike Kafka
//! A publish returns when the event can be read, or when it has reached the requested level. There is no buffer in
//! between, unless you use a [`LingeringProducer`]. An idempotent producer's sequences are chosen by the caller, so
//! that they survive the death of the process. With the same count of partitions, a key goes
//! to the same partition as with Kafka's default partitioner, in every version of slipring.

pub use crate::base::kind::Producers;
pub use crate::base::level::{Unsupported, WaitError};
pub use crate::log::producers::PRODUCER_NAME_EXPIRY;
pub use crate::log::receipt::{BatchReceipt, Reach};
pub use crate::produce::ProducerBuilder;
pub use crate::produce::WhenUnread;
pub use crate::produce::idempotent::{IdempotenceError, IdempotentProducer, MAX_PRODUCER_NAMES};
pub use crate::produce::linger::{LingerBuilder, LingeringProducer};
pub use crate::produce::partitioner::{Partitioner, Partitioning};
pub use crate::topic::error::{ProducerError, PublishError, Rejected};
pub use crate::topic::identity::KEPT_RECEIPTS;
pub use slipring_ring::{Multi, Single};
