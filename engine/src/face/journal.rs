//! The journal of durable topics: its settings, what is recorded in one, and reading a directory from outside.
//!
//! [`Engine::open`](crate::Engine::open) and [`EngineBuilder::journal`](crate::EngineBuilder::journal) put a journal under an
//! engine; programs need nothing else of this module but [`Options`], [`Pace`] and [`Visible`]. The rest is the package
//! `slipring-journal`, for tools that look at a directory or mend it, and for tests, which run on a
//! [`SimulatedDisk`](simulated::SimulatedDisk) that can crash and fail.
//!
//! ```
//! use slipring::{Engine, Level, journal::{self, Options, simulated::SimulatedDisk}};
//! use std::sync::Arc;
//!
//! let disk = SimulatedDisk::new();
//! let engine = Engine::builder().journal_in(disk.clone()).journal_options(Options::default()).build()?;
//! let ticks = engine.topic::<u64>("ticks").durable().create()?;
//! ticks.producer().acknowledge(Level::Durable).create()?.publish(|tick| *tick = 42)?;
//!
//! let after = disk.crash(1);                                      // a power cut; 1 seeds what of the unsynced is kept
//! let (writer, recovered) = journal::open(Arc::new(after), Options::default())?;
//! assert!(!recovered.created);
//! assert_eq!(writer.journal().extents().len(), 1);                // one partition
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! What was acknowledged as durable is there after a power cut, what was acknowledged as written after the death of the process.
//! Recovery cuts only what was never acknowledged; damage below that is an error, and [`repair`] mends it and names what is
//! lost. The bytes are described in `docs/JOURNAL_FORMAT.md`.
//!
//! # Errors
//! [`OpenError`], [`WriteError`], [`ReplayError`], [`DiskError`], and [`repair::RepairError`]. The first failed write or sync
//! ends a journal until it is opened again: a failed sync is never tried a second time.
//!
//! # Unlike Kafka
//! One journal holds all partitions of an engine, interleaved, so that one sync makes all of them durable. `Durable` means that
//! the disk has answered, not that the page cache or other machines have it.

pub use crate::log::catalog::{RecordedTopic, recorded_topics};
pub use crate::log::committer::Pace;
pub use crate::log::gap::{ReaderKind, ReportedGap, acknowledge_gaps, reported_gaps};
pub use crate::log::offsets::recorded::{GroupKind, GroupOffset, group_offsets, transform_offsets};
#[doc(inline)]
pub use slipring_journal::*;
