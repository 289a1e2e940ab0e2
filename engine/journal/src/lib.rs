//! The journal of slipring: durable records in segment files, and their recovery after a crash.
//!
//! One journal holds the records of all partitions, interleaved in the order in which they were written. Its segment files
//! have a fixed size. A [`Writer`] appends frames: a frame is written whole or not at all. [`sync`](Writer::sync) makes them
//! durable. A [`Reader`] reads the records of one partition. The journal knows no rings and no topics: a partition is a pair
//! of numbers, a record is bytes.
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
//! A power cut loses no synced frame. Frames that were written but not synced survive the death of the process; after a
//! power cut a prefix of them remains, which may be empty. A frame survives only whole, and only if all frames before
//! it survive. `docs/JOURNAL_FORMAT.md` describes the bytes.
//!
//! # Failure
//! The first failed write or sync poisons the journal: all later writes are refused. Frames whose sync had not returned
//! may or may not survive; the next opening decides which. A failed sync is never repeated: Linux drops the pages that
//! it could not write.
//!
//! # Damage
//! Each frame states the position below which the journal was durable when the frame was written: its durable mark. Let
//! D be the highest mark found: in the frames, including those after damage, and in the checkpoint file. Damage at or
//! above D is a torn tail, which an opening copies aside and cuts. Data below D was acknowledged as durable: if it is
//! damaged, opening is an error, and no segment is changed.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod backup;
mod checkpoint;
mod compact;
pub mod error;
mod files;
pub mod format;
mod gaps;
mod index;
mod journal;
mod limits;
mod options;
mod read;
mod recovery;
pub mod repair;
mod segment;
mod shared;
pub mod simulated;
mod state;
pub mod storage;
mod survey;
mod write;

#[cfg(test)]
mod tests;

pub use backup::{Copied, CopyError, copy};
pub use compact::{CompactError, Compacted, CompactionRule, CompactionRules, CompactionStats, RecordKey};
pub use error::{DiskError, OpenError, ReplayError, WriteError};
pub use format::{Codec, Extent, FrameBuilder, JournalId, Malformed, PartitionId};
pub use gaps::{Gap, gaps};
pub use journal::Journal;
pub use options::Options;
#[doc(hidden)]
pub use options::Sabotage;
#[doc(hidden)]
pub use read::cursor::Cursor;
pub use read::reader::Reader;
pub use read::record::{Record, Start, Visible};
#[doc(hidden)]
pub use read::scan::SharedScan;
pub use recovery::{Recovered, open, open_with};
pub use repair::scrub;
pub use segment::{PartitionReport, SegmentReport};
pub use shared::SyncStats;
pub use state::State;
pub use survey::frames::{Frames, UnpackedFrame};
pub use survey::inspect::{check_files, inspect, inspect_to_damage};
pub use survey::{Progress, Survey, TornTail};
pub use write::retention::{Freed, Retention, RetentionFloor};
pub use write::sync::SyncJob;
pub use write::writer::Writer;

/// The code in the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
