//! Subscribing: every subscriber of a topic reads every event, each at its own position.
//!
//! [`Topic::subscribe`](crate::Topic::subscribe) gives the settings. [`run`](SubscriberBuilder::run) starts a thread that
//! calls a handler with each event; [`poll`](SubscriberBuilder::poll) gives a [`Subscriber`](crate::Subscriber) for a loop of
//! your own. A [`Selector`] sleeps over many of them.
//!
//! ```
//! use slipring::{Engine, subscriber::{At, StartAt}};
//! use std::{convert::Infallible, time::Duration};
//!
//! let engine = Engine::builder().build()?;
//! let ticks = engine.topic::<u64>("ticks").retain(16).create()?;
//! ticks.producer().create()?.publish(|tick| *tick = 42)?;
//!
//! // On a thread of its own.
//! ticks.subscribe("log").start(StartAt::Earliest).run(|tick: &u64, at: At| {
//!     println!("{tick} at offset {}", at.offset);
//!     Ok::<_, Infallible>(())
//! })?;
//! // By polling; it reads an event only when `log` has.
//! let mut tape = ticks.subscribe("tape").after(["log"]).start(StartAt::Earliest).poll()?;
//! let mut batch = tape.poll(Duration::from_secs(60))?.unwrap();
//! assert_eq!((&mut batch).into_iter().map(|(tick, _)| *tick).next(), Some(42));
//! # drop(batch);
//! # drop(tape);
//! # engine.shutdown(Duration::from_secs(60));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - A subscriber is given every event from its start on, once, in the order of the offsets of each partition.
//! - An event stays where it is until every subscriber has read it: a slow one makes producers wait. [`Slow`](crate::topic::Slow)
//!   says for how long.
//! - What was iterated of a batch is read. What was not, is given again.
//! - A handler that returns an error or panics closes its topic with its name, unless [`OnError`] says otherwise.
//!
//! # Errors
//! [`SubscribeError`]: it cannot begin. [`ReadError`]: it cannot read on. [`PositionError`]: a seek is out of the range, which
//! the error names. [`CancelError`]: it cannot be ended.
//!
//! # Unlike Kafka
//! A subscriber has no committed offset and is forgotten with its process: for offsets that outlive it, take a
//! [`group`](crate::group). Nothing is kept for who has not subscribed, unless the topic [retains](crate::TopicBuilder::retain)
//! events or is durable; a [`replay`](crate::replay) reads the past of a durable topic.

pub use crate::read::error::{CancelError, PositionError, ReadError};
pub use crate::read::managed::Subscription;
pub use crate::read::selector::{Selectable, Selector};
pub use crate::read::{At, Batch, Messages, StartAt, SubscriberBuilder};
pub use crate::topic::error::SubscribeError;
pub use slipring_ring::OnError;
