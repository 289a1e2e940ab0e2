//! Dead letters: copies of messages that could not be handled, in a topic of their own, with the reason.
//!
//! Subscribers, groups and queues name a dead-letter topic in their settings
//! ([`SubscriberBuilder::dead_letter`](crate::subscriber::SubscriberBuilder::dead_letter),
//! [`GroupBuilder::dead_letter`](crate::group::GroupBuilder::dead_letter),
//! [`QueueBuilder::dead_letter`](crate::queue::QueueBuilder::dead_letter)). The headers of a dead letter hold the
//! topic, partition and offset of the original message, the name of the consumer that failed, the count of attempts,
//! and the last error.
//!
//! ```
//! use slipring::{Engine, Message, Record, dead_letter::DeadLetter};
//! use std::time::Duration;
//!
//! let engine = Engine::builder().build()?;
//! let orders = engine.topic::<Message>("orders").create()?;
//! let dead = engine.topic::<Message>("orders.dead").retain(512).create()?;
//! let mut reader = dead.subscribe("reader").poll()?;
//! orders.subscribe("book").dead_letter(&dead).run(|_, _| Err("no such account"))?;
//! orders.producer().create()?.send(Record::new("buy 3"))?;
//!
//! let mut batch = reader.poll(Duration::from_secs(60))?.unwrap();
//! let (message, _) = (&mut batch).into_iter().next().unwrap();
//! let letter = DeadLetter::read(message).unwrap();
//! assert_eq!((&*letter.topic, letter.offset, &*letter.reason), ("orders", 0, "no such account"));
//! # drop(batch);
//! # drop(reader);
//! # engine.shutdown(Duration::from_secs(60));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - A message is copied to the dead-letter topic before its consumer continues after it. A crash in between can leave
//!   the message in both places, except for a queue on a durable topic and a group that delivers exactly once: these do
//!   both in one frame.
//! - No message is lost silently: if the dead-letter topic refuses it, a subscriber or group member stops, and a queue
//!   keeps the message in its side store until the topic takes it.
//! - The reason is cut to 256 bytes.
//!
//! # Errors
//! [`DeadLetterError`]: the topic cannot be the dead-letter topic of that consumer, with the reason.
//!
//! # Unlike Kafka
//! Kafka's core has no dead letters; Kafka Connect and other systems add them. A dead-letter topic is a topic like any
//! other: it keeps messages only if a consumer reads it, or it is durable or [retains](crate::TopicBuilder::retain)
//! events.

pub use crate::event::dead_letter::DeadLetter;
pub use crate::read::dead_letters::ToDeadLetter;
pub use crate::topic::error::DeadLetterError;
