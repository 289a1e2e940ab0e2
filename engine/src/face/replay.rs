//! Replay: reading a durable topic from its past, then going on with what is published now.
//!
//! [`Topic::replay`](crate::Topic::replay) reads from the journal, in batches, until it has caught up; from there it reads the
//! ring as a subscriber does. A replay that becomes slow may leave the ring and read on from the journal.
//!
//! ```
//! use slipring::{Engine, Level, journal::simulated::SimulatedDisk, subscriber::StartAt};
//! use std::time::Duration;
//!
//! let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
//! let ticks = engine.topic::<u64>("ticks").durable().create()?;
//! let mut producer = ticks.producer().acknowledge(Level::Durable).create()?;
//! for tick in 0..3 {
//!     producer.publish(|place| *place = tick)?;
//! }
//! let mut replay = ticks.replay("audit").start(StartAt::Earliest).open()?;
//! let mut read = Vec::new();
//! while read.len() < 3 {
//!     replay.read(Duration::from_secs(60), |tick, _| read.push(*tick))?;
//! }
//! assert_eq!(read, [0, 1, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - Every event from its start on, once, in order, also where it changes from the journal to the ring and back.
//! - While it reads the journal it holds no producer up.
//! - Offsets that were lost to damage are a [`Gap`]: told, never passed over in silence, unless [`OnGap`] says so.
//!
//! # Errors
//! [`ReplayError`]: the topic is not durable, the start is out of the range that is kept (the error names it), a gap was met, or
//! the journal cannot be read.
//!
//! # Unlike Kafka
//! Kafka's consumers always read the log. Here the log is for the past alone: who has caught up reads events in place, in
//! memory.

pub use crate::log::gap::{Gap, OnGap};
pub use crate::read::replay::{Replay, ReplayBuilder, ReplayError};
