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
mod block;
mod clear;
mod cursor;
#[cfg(unix)]
mod disk;
#[cfg(not(unix))]
mod disk_plain;
pub mod error;
mod files;
pub mod format;
mod gaps;
mod helper;
mod index;
mod overlay;
mod reader;
mod recovery;
pub mod repair;
mod retention;
mod scan;
mod segment;
pub mod simulated;
mod snapshot;
pub mod storage;
mod survey;
mod surveyor;
mod walk;
pub mod writer;

#[cfg(test)]
mod tests;

pub use clear::clear;
#[doc(hidden)]
pub use cursor::Cursor;
pub use error::{DiskError, Malformed, OpenError, ReplayError, WriteError};
pub use format::{Codec, Extent, FrameBuilder, JournalId, PartitionId};
pub use gaps::{Gap, gaps};
pub use reader::{Reader, Record, Start, Visible};
pub use recovery::{Progress, Recovered, Torn, open, open_with};
pub use retention::{Freed, Retention};
#[doc(hidden)]
pub use scan::SharedScan;
pub use segment::{PlaceReport, SegmentReport};
pub use snapshot::State;
pub use survey::{Survey, inspect, survey_to_damage};
pub use walk::{Frames, Payload};
pub use writer::{SyncJob, Writer};

use self::files::Files;
use self::gaps::Gaps;
use self::segment::Segment;
use self::storage::Storage;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// Settings of a journal.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a segment, 64 MiB unless told: from 4 KiB to 2 GiB, a multiple of 64.
    pub segment_size: u64,
    /// How payloads are packed; not at all unless told.
    pub codec: Codec,
    /// Whether a thread makes segments ahead, writes indexes and deletes what retention frees. Without it all that
    /// happens on the writer's thread, at moments that depend on nothing but its calls. True unless told.
    pub helper: bool,
    /// Faults for tests.
    #[cfg(feature = "faults")]
    #[doc(hidden)]
    pub sabotage: Sabotage,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_size: 64 << 20,
            codec: Codec::Plain,
            helper: true,
            #[cfg(feature = "faults")]
            sabotage: Sabotage::default(),
        }
    }
}

/// Faults for tests to find, of the journal and of the engine on it. None of this can be turned on without the feature `faults`.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sabotage {
    pub acknowledge_before_sync: bool,
    pub accept_bad_checksums: bool,
    pub keep_torn_tail: bool,
    pub serve_before_sync: bool,
    pub forget_producers: bool,
    pub forget_ids: bool,
    pub join_at_a_past_slot: bool,
    pub commit_before_frame: bool,
    pub no_epoch_check: bool,
    pub accept_late_acks: bool,
}

impl Options {
    pub(crate) fn sabotage(&self) -> Sabotage {
        #[cfg(feature = "faults")]
        return self.sabotage;
        #[cfg(not(feature = "faults"))]
        Sabotage::default()
    }
}

/// What writer, readers and helper share. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub storage: Arc<dyn Storage>,
    pub files: Arc<Files>,
    pub id: JournalId,
    pub incarnation: u32,
    pub options: Options,
    /// In order; the last one is being written.
    segments: RwLock<Vec<Arc<Segment>>>,
    extents: RwLock<BTreeMap<PartitionId, Extent>>,
    /// None comes while the journal is open.
    pub gaps: Gaps,
    written: AtomicU64,
    durable: AtomicU64,
    poison: OnceLock<DiskError>,
    syncing: AtomicBool,
    synced: Synced,
}

/// Only the job in flight counts here.
#[derive(Default)]
struct Synced {
    count: AtomicU64,
    nanos: AtomicU64,
    longest: AtomicU64,
}

impl Synced {
    fn add(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.longest.fetch_max(nanos, Ordering::Relaxed);
    }
}

/// How often a journal was synced since it was opened, and what that took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Syncs {
    /// How many there were.
    pub count: u64,
    /// All of their time.
    pub total: Duration,
    /// The longest one.
    pub longest: Duration,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, written, durable) = (self.shared.storage.name(), self.written(), self.durable());
        write!(f, "Journal({name:?}, written {written}, durable {durable})")
    }
}

impl Journal {
    /// The faults that are turned on.
    #[doc(hidden)]
    pub fn sabotage(&self) -> Sabotage {
        self.shared.options.sabotage()
    }

    /// Bytes written so far, as a position: it only grows.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Acquire)
    }

    /// The position below which all is durable.
    pub fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// How often it was synced since it was opened, and what that took. Counted one after the other while syncs go on.
    pub fn syncs(&self) -> Syncs {
        let Synced { count, nanos, longest } = &self.shared.synced;
        let time = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Ordering::Relaxed));
        Syncs { count: count.load(Ordering::Relaxed), total: time(nanos), longest: time(longest) }
    }

    /// Why the journal takes nothing more; none while it does.
    pub fn poisoned(&self) -> Option<&DiskError> {
        self.shared.poison.get()
    }

    /// Where a partition stands.
    pub fn extent(&self, partition: PartitionId) -> Option<Extent> {
        self.shared.extents().get(&partition).copied()
    }

    /// All partitions, and where they stand.
    pub fn extents(&self) -> Vec<(PartitionId, Extent)> {
        self.shared.extents().iter().map(|(partition, extent)| (*partition, *extent)).collect()
    }

    /// Offsets of a partition whose records a repair could not save, in order. None comes while the journal is open.
    pub fn gaps(&self, partition: PartitionId) -> &[Range<u64>] {
        self.shared.gaps.of_partition(partition)
    }

    /// How many records of a partition have these offsets. Looked up, not read: where a segment leaves out a few
    /// offsets and begins before or ends after them, it may count some more, never fewer.
    pub fn records_in(&self, partition: PartitionId, offsets: Range<u64>) -> u64 {
        let start = self.extent(partition).map_or(offsets.end, |extent| extent.start.max(offsets.start));
        let (mut count, segments) = (0, self.shared.segments());
        for segment in segments.iter().rev() {
            let index = segment.index();
            let Some(place) = index.partitions.get(&partition) else { continue };
            count += place.records_in(&(start..offsets.end));
            if place.first <= start {
                break;
            }
        }
        count
    }

    /// The offset of a partition's first record whose time is `time` (nanoseconds since the epoch) or later, or of the gap
    /// before it, which may have had an earlier one. None if there is neither.
    ///
    /// # Errors
    /// There is no such partition, a frame is damaged, or the disk fails.
    pub fn first_since(&self, partition: PartitionId, time: u64) -> Result<Option<u64>, ReplayError> {
        let mut reader = self.reader(partition, Start::Time(time), Visible::Written)?;
        match reader.next() {
            Ok(record) => Ok(record.map(|record| record.offset)),
            Err(ReplayError::Gap { offsets, .. }) => Ok(Some(offsets.start)),
            Err(cause) => Err(cause),
        }
    }

    /// The first offset of a partition in the eldest segment that has a record of `time` (nanoseconds since the epoch) or
    /// later. None if no segment has one.
    #[doc(hidden)]
    pub fn reaches(&self, partition: PartitionId, time: u64) -> Option<u64> {
        let segments = self.shared.segments();
        segments.iter().find_map(|segment| {
            let index = segment.index();
            index.partitions.get(&partition).filter(|place| place.latest >= time).map(|place| place.first)
        })
    }

    /// The largest payload of one frame.
    pub fn frame_limit(&self) -> usize {
        writer::frame_limit(self.shared.options.segment_size)
    }

    /// The journal's own number, random at its creation.
    pub fn id(&self) -> JournalId {
        self.shared.id
    }

    /// Raised at each opening.
    pub fn incarnation(&self) -> u32 {
        self.shared.incarnation
    }

    /// Reads the records of a partition.
    ///
    /// # Errors
    /// There is no such partition, or the start is out of the range that is kept.
    pub fn reader(&self, partition: PartitionId, start: Start, visible: Visible) -> Result<Reader, ReplayError> {
        Reader::new(Arc::clone(&self.shared), partition, start, visible)
    }

    /// Where a reader of many partitions stands in one of them.
    #[doc(hidden)]
    pub fn cursor(&self, partition: PartitionId, start: Start) -> Result<Cursor, ReplayError> {
        Cursor::new(&self.shared, partition, start)
    }

    /// What cursors read through.
    #[doc(hidden)]
    pub fn scan(&self, visible: Visible) -> SharedScan {
        SharedScan::new(Arc::clone(&self.shared), visible)
    }
}

impl Shared {
    pub fn new(
        files: Arc<Files>,
        id: JournalId,
        incarnation: u32,
        options: Options,
        segments: Vec<Arc<Segment>>,
        state: &State,
        end: u64,
    ) -> Self {
        Self {
            storage: Arc::clone(files.storage()),
            files,
            id,
            incarnation,
            options,
            segments: RwLock::new(segments),
            extents: RwLock::new(state.extents().collect()),
            gaps: Gaps::of(state),
            written: AtomicU64::new(end),
            durable: AtomicU64::new(end),
            poison: OnceLock::new(),
            syncing: AtomicBool::new(false),
            synced: Synced::default(),
        }
    }

    pub fn segments(&self) -> RwLockReadGuard<'_, Vec<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn segments_mut(&self) -> RwLockWriteGuard<'_, Vec<Arc<Segment>>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn extents(&self) -> RwLockReadGuard<'_, BTreeMap<PartitionId, Extent>> {
        self.extents.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn extents_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<PartitionId, Extent>> {
        self.extents.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first failure counts; it is for good.
    #[cold]
    pub fn fail(&self, cause: DiskError) -> WriteError {
        WriteError::Poisoned(self.poison.get_or_init(|| cause).clone())
    }

    pub fn sound(&self) -> Result<(), WriteError> {
        match self.poison.get() {
            None => Ok(()),
            Some(cause) => Err(WriteError::Poisoned(cause.clone())),
        }
    }
}
