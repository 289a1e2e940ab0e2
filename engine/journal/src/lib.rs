//! The journal: durable records, and what must be known about them after a crash.
//!
//! One journal holds the records of all partitions, interleaved in the order in which they were written, in segment
//! files of a fixed size. A [`Writer`] appends frames, each all or nothing; [`sync`](Writer::sync)
//! makes them durable; a [`Reader`] gives the records of one partition back. It knows no rings and no topics:
//! a partition is a pair of numbers, a record is bytes.
//!
//! ```
//! use slipring_journal::{FrameBuilder, Options, PartitionId, Start, Visible, open, simulated::SimulatedDisk};
//! use std::sync::Arc;
//!
//! let disk = SimulatedDisk::new();
//! let (mut writer, recovered) = open(Arc::new(disk.clone()), Options::default())?;
//! assert!(recovered.created);
//! let ticks = PartitionId { topic: 1, partition: 0 };
//! let mut frame = FrameBuilder::new();
//! frame.record(ticks, 0, None, b"first");
//! frame.record(ticks, 1, None, b"second");
//! writer.append(&mut frame, 1_700_000_000_000_000_000)?;      // both or none; in the page cache
//! writer.sync()?;                                             // survives a power cut
//! drop(writer);
//!
//! let after = disk.crash(1);
//! let (writer, _) = open(Arc::new(after), Options::default())?;
//! let mut reader = writer.journal().reader(ticks, Start::Earliest, Visible::Durable)?;
//! assert_eq!(reader.next()?.unwrap().bytes, b"first");
//! assert_eq!(reader.next()?.unwrap().offset, 1);
//! assert!(reader.next()?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What survives
//! What was synced, whatever happens to the power. What was written and not synced: a process's death, and of a power
//! cut a prefix. Never a frame without all frames before it, never half of one. The bytes are in
//! `docs/JOURNAL_FORMAT.md`.
//!
//! # Failure
//! The first failed write or sync poisons the journal: it takes nothing more, and what was not acknowledged before is
//! unknown until it is opened again. A failed sync is never tried again: Linux forgets what it could not write.
//!
//! # Damage
//! Each frame says up to where the journal was durable when it was written. Let D be the highest such mark that can be
//! found, beyond damage too. Damage at or above D is the torn end of the last moments: it is copied aside and cut.
//! Damage below D was acknowledged once: opening is an error, and nothing is changed.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod aged;
mod atomic_file;
mod block;
mod candidate;
mod chain;
mod checker;
mod checkpoint;
mod clear;
mod copy;
mod cursor;
pub mod error;
mod file_names;
mod files;
pub mod format;
mod gaps;
mod helper;
mod index;
mod inspect;
mod journal;
mod limits;
mod loss;
mod options;
mod reader;
mod record;
mod recovery;
pub mod repair;
mod retention;
mod scan;
mod segment;
mod shared;
pub mod simulated;
mod snapshot;
pub mod storage;
mod survey;
mod surveyor;
mod sync;
mod walk;
mod window;
pub mod writer;

#[cfg(test)]
mod tests;

pub use clear::clear;
#[doc(hidden)]
pub use cursor::Cursor;
pub use error::{DiskError, OpenError, ReplayError, WriteError};
pub use format::{Codec, Extent, FrameBuilder, JournalId, Malformed, PartitionId};
pub use gaps::{Gap, gaps};
pub use inspect::{inspect, inspect_to_damage};
pub use journal::Journal;
pub use options::Options;
#[doc(hidden)]
pub use options::Sabotage;
pub use reader::Reader;
pub use record::{Record, Start, Visible};
pub use recovery::{Recovered, open, open_with};
pub use retention::{Freed, Retention};
#[doc(hidden)]
pub use scan::SharedScan;
pub use segment::{PlaceReport, SegmentReport};
pub use shared::Syncs;
pub use snapshot::State;
pub use survey::{Progress, Survey, Torn};
pub use sync::SyncJob;
pub use walk::{Frames, Payload};
pub use writer::Writer;
