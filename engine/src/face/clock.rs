//! Time: the engine's clock, and a clock for tests that moves only when the test moves it.
//!
//! Leases, delays, deadlines of groups, rate limits, timestamps and times to live all read the engine's [`Clock`]. It
//! is a [`SystemClock`] unless [`EngineBuilder::clock`](crate::EngineBuilder::clock) sets another.
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
//! - Durations are measured with a monotonic time ([`Clock::now`]). Only times that must outlive the process are
//!   measured with the wall clock ([`Clock::wall`]), which may be set back or forward.
//! - No clock is read per event, unless the topic has timestamps, a time to live, ids or a rate limit.
//! - A [`Timestamp`] is a count of nanoseconds since 1970 in UTC.
//!
//! # Errors
//! None. A duration that ends beyond the clock's range means never.

pub use crate::base::clock::{Clock, ManualClock, SystemClock, Tick, Timestamp};
