//! Dead letters: messages that could not be handled, moved to a topic of their own with the reason.
//!
//! Subscribers, groups and queues take a dead-letter topic in their settings
//! ([`SubscriberBuilder::dead_letter`](crate::subscriber::SubscriberBuilder::dead_letter),
//! [`GroupBuilder::dead_letter`](crate::group::GroupBuilder::dead_letter),
//! [`QueueBuilder::dead_letter`](crate::queue::QueueBuilder::dead_letter)). A message there carries, in its headers, the topic,
//! partition and offset that it comes from, who failed on it, how often, and the last error.
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
//! - A message is moved aside before its reader goes on behind it: a crash in between may leave it in both places, but for a
//!   queue on a durable topic and a group that delivers exactly once, which do both in one frame.
//! - If the dead-letter topic does not take the message, its reader stops: nothing is lost in silence.
//! - The reason is cut to 256 bytes.
//!
//! # Errors
//! [`DeadLetterError`]: the topic cannot be the dead-letter topic of that reader, with the reason.
//!
//! # Unlike Kafka
//! Kafka has no dead letters of its own; Kafka Connect and other systems add them. Somebody must read the dead-letter topic, or it
//! must be durable or [retain](crate::TopicBuilder::retain) events: it keeps nothing for nobody, like any other.

pub use crate::event::dead_letter::DeadLetter;
pub use crate::read::dead_letters::ToDeadLetter;
pub use crate::topic::error::DeadLetterError;
