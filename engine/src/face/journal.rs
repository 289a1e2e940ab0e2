//! The journal of durable topics: its settings, its recorded state, and reading a journal's directory from outside.
//!
//! [`Engine::open`](crate::Engine::open) and [`EngineBuilder::journal`](crate::EngineBuilder::journal) give an engine a
//! journal. Most programs need only [`Options`], [`Pace`] and [`Visible`] of this module. The rest is the package
//! `slipring-journal`: for tools that inspect or repair a directory, and for tests, which run on a
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
//! let after = disk.crash(1);                                      // a power cut; 1 is the seed of what survives
//! let (writer, recovered) = journal::open(Arc::new(after), Options::default())?;
//! assert!(!recovered.created);
//! assert_eq!(writer.journal().extents().len(), 1);                // one partition
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! Events that were acknowledged as durable survive a power cut; events that were acknowledged as written survive the
//! death of the process. Recovery cuts only bytes that were never acknowledged as durable. Damage to durable bytes is
//! an error; [`repair`] mends it and names what is lost. The bytes are described in `docs/JOURNAL_FORMAT.md`.
//!
//! # Errors
//! [`OpenError`], [`WriteError`], [`ReplayError`], [`DiskError`], and [`repair::RepairError`]. The first failed write or
//! sync ends a journal until it is opened again: a failed sync is never tried a second time.
//!
//! # Unlike Kafka
//! One journal holds the events of all partitions of an engine, so that one sync makes all of them durable. `Durable`
//! means that the disk has confirmed the sync; Kafka's acknowledgement means the page cache of several machines.

pub use crate::event::layout::{fields, plain_size};
pub use crate::log::catalog::{RecordedTopic, recorded_topics, state_kind_name};
pub use crate::log::committer::Pace;
pub use crate::log::convert::{ConvertError, Converted, convert};
pub use crate::log::gap::{ReaderKind, ReportedGap, acknowledge_gaps, reported_gaps};
pub use crate::log::layouts::OlderLayout;
pub use crate::log::offsets::recorded::{GroupKind, GroupOffset, group_offsets, transform_offsets};
pub use crate::log::producers::{ProducerNames, producer_names};
#[doc(inline)]
pub use slipring_journal::*;
#[doc(no_inline)]
pub use slipring_ring::shared::{EventLayout, LayoutField, NumberType};
