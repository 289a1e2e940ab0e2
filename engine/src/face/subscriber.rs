//! Subscribing: every subscriber of a topic reads every event, each at its own position.
//!
//! [`Topic::subscribe`](crate::Topic::subscribe) returns the settings. [`run`](SubscriberBuilder::run) starts a thread
//! that calls a handler with each event; [`poll`](SubscriberBuilder::poll) returns a [`Subscriber`](crate::Subscriber)
//! for a loop of your own. A [`Selector`] waits for many readers on one thread, and beside them for a [`Deadline`], an
//! [`Interval`], or room to publish. A reader that wants the newest event of each key, not all events, is a
//! [`ConflatedSubscriber`]: see [`conflate`](SubscriberBuilder::conflate).
//!
//! ```
//! use slipring::{Engine, subscriber::{At, StartAt}};
//! use std::time::Duration;
//!
//! let engine = Engine::builder().build()?;
//! let ticks = engine.topic::<u64>("ticks").retain(16).create()?;
//! ticks.producer().create()?.publish(|tick| *tick = 42)?;
//!
//! // On a thread of its own.
//! ticks.subscribe("log").start(StartAt::Earliest).run(|tick: &u64, at: At| {
//!     println!("{tick} at offset {}", at.offset);
//! })?;
//! // By polling; reads each event after `log` has read it.
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
//! - A subscriber gets every event from its start on, once, in the order of the offsets of each partition.
//! - An event stays in its slot until every subscriber has read it, so a slow subscriber makes producers wait.
//!   [`Slow`](crate::topic::Slow) limits that wait.
//! - The events of a batch that were iterated count as read. The others are returned again by the next poll.
//! - A handler that returns an error or panics closes its topic with its name, unless [`OnError`] or a
//!   [retry of the batch](SubscriberBuilder::retry_batch) says otherwise.
//!
//! # Errors
//! [`SubscribeError`]: the subscriber could not be started. [`ReadError`]: it cannot read on. [`PositionError`]: it
//! could not be moved to that offset, for example because the offset is out of the range that the error names.
//! [`CancelError`]: it could not be cancelled. [`TimerError`]: a deadline or interval could not be created.
//! [`ConflateError`]: a conflating subscriber has ended.
//!
//! # Unlike Kafka
//! A subscriber has no committed offset and is forgotten when its process ends; for offsets that outlive the process
//! use a [`group`](crate::group). Events are not kept for subscribers that come later, unless the topic
//! [retains](crate::TopicBuilder::retain) them. A subscriber reads the ring only, which is empty when a durable topic is
//! opened again; a [`replay`](crate::replay) or a [`group`](crate::group) reads the events in its journal: see
//! [`StartAt`].

pub use crate::base::backoff::Backoff;
pub use crate::base::wakeup::Wakeup;
pub use crate::event::keep::Keep;
pub use crate::read::conflate::{Change, ConflateBuilder, ConflateError, ConflatedBatch, ConflatedSubscriber};
pub use crate::read::deadline::Deadline;
pub use crate::read::error::{CancelError, PositionError, ReadError, TimerError};
pub use crate::read::handler::{BatchStart, Handler};
pub use crate::read::interval::Interval;
pub use crate::read::managed::Subscription;
pub use crate::read::selector::{Selectable, Selector};
pub use crate::read::{At, Batch, Messages, StartAt, SubscriberBuilder};
pub use crate::topic::error::SubscribeError;
pub use slipring_ring::{OnError, Outcome};
