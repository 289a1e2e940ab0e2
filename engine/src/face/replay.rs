//! Replay: reading past events of a durable topic, then continuing with new ones.
//!
//! [`Topic::replay`](crate::Topic::replay) reads from the journal until it has caught up; then it reads the ring as a
//! subscriber does. A replay that becomes too slow for the ring leaves it and continues from the journal, unless
//! [`spill`](ReplayBuilder::spill) is off.
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
//! - A replay returns every event from its start on, once and in the order of each partition, also across the changes
//!   from the journal to the ring and back.
//! - While a replay reads the journal, no producer waits for it.
//! - Offsets that were lost to damage are reported as a [`Gap`] and never skipped silently, unless [`OnGap`] says so.
//!
//! # Errors
//! [`ReplayError`]: the topic is not durable, the start is outside of the kept range (the error holds the range), a gap
//! was met, or the journal cannot be read.
//!
//! # Unlike Kafka
//! Kafka's consumers always read the log. Here a reader reads the log only for past events: once it has caught up, it
//! reads events in place, in memory.

pub use crate::log::gap::{Gap, OnGap};
pub use crate::read::replay::{Replay, ReplayBuilder, ReplayError};
