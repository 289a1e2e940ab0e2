//! Time: the clock that an engine goes by, and one for tests that moves only when it is told to.
//!
//! Leases, delays, deadlines of groups, rate limits, timestamps and time to live all ask the engine's [`Clock`]. It is a
//! [`SystemClock`] unless [`EngineBuilder::clock`](crate::EngineBuilder::clock) sets another.
//!
//! ```
//! use slipring::{Engine, Message, Record, clock::ManualClock};
//! use std::time::Duration;
//!
//! let clock = ManualClock::new();
//! let engine = Engine::builder().clock(clock.clone()).build()?;
//! let jobs = engine.topic::<Message>("jobs").create()?;
//! let mut worker = jobs.queue("jobs").join()?;
//! jobs.producer().create()?.send(Record::new("later").delay(Duration::from_secs(3600)))?;
//! assert!(worker.receive(Duration::ZERO)?.is_none());
//! clock.advance(Duration::from_secs(3600));                       // an hour, at once
//! assert!(worker.receive(Duration::ZERO)?.is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - Waits are measured with a time that never goes back ([`Clock::now`]); only what outlives the process is measured with the
//!   world's time ([`Clock::wall`]), which may be set in both directions.
//! - No clock is read for an event, unless the topic has timestamps, a time to live, ids or a rate limit.
//! - A [`Timestamp`] is nanoseconds since 1970 in UTC.
//!
//! # Errors
//! None. A duration that no clock reaches means never.

pub use crate::base::clock::{Clock, ManualClock, SystemClock, Tick, Timestamp};
