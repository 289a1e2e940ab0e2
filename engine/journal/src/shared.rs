//! The state of an open journal that the writer, the readers and the helper thread share.

use crate::compact::CompactionCounters;
use crate::error::{DiskError, WriteError};
use crate::files::descriptors::Files;
use crate::format::{Extent, JournalId, PartitionId};
use crate::gaps::Gaps;
use crate::options::Options;
use crate::segment::Segment;
use crate::state::State;
use crate::storage::Storage;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

pub(crate) struct Shared {
    pub storage: Arc<dyn Storage>,
    pub files: Arc<Files>,
    pub id: JournalId,
    pub incarnation: u32,
    pub options: Options,
    /// The segments in ascending order. The last one is being written.
    segments: RwLock<Vec<Arc<Segment>>>,
    /// A cache for searches by time. For each segment that was complete at the last search: its number, and the latest
    /// time of a record in it or in an earlier segment, in nanoseconds since the epoch. Empty at first; each search
    /// adds the segments that were completed since, and removes deleted ones.
    latest: Mutex<Vec<(u64, u64)>>,
    extents: RwLock<BTreeMap<PartitionId, Extent>>,
    /// The gaps, fixed while the journal is open.
    pub gaps: Gaps,
    pub written: AtomicU64,
    pub durable: AtomicU64,
    pub poison: OnceLock<DiskError>,
    pub syncing: AtomicBool,
    pub synced: SyncCounters,
    pub compacted: CompactionCounters,
}

/// Counters of syncs. At most one sync job runs at a time, and only it adds to them.
#[derive(Default)]
pub(crate) struct SyncCounters {
    count: AtomicU64,
    nanos: AtomicU64,
    longest: AtomicU64,
}

impl SyncCounters {
    /// Returns the counters, which are read one after the other while a sync may add to them.
    pub fn report(&self) -> SyncStats {
        let Self { count, nanos, longest } = self;
        let time = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Ordering::Relaxed));
        SyncStats { count: count.load(Ordering::Relaxed), total: time(nanos), longest: time(longest) }
    }

    pub fn add(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.longest.fetch_max(nanos, Ordering::Relaxed);
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
            latest: Mutex::default(),
            extents: RwLock::new(state.extents().collect()),
            gaps: Gaps::of(state),
            written: AtomicU64::new(end),
            durable: AtomicU64::new(end),
            poison: OnceLock::new(),
            syncing: AtomicBool::new(false),
            synced: SyncCounters::default(),
            compacted: CompactionCounters::default(),
        }
    }

    pub fn segments(&self) -> RwLockReadGuard<'_, Vec<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn segments_mut(&self) -> RwLockWriteGuard<'_, Vec<Arc<Segment>>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index in `segments` of the first one that may have a record of `time` or later; the last segment always may.
    /// The result may be too low, because the cached times include those of segments that retention has deleted.
    pub fn first_since(&self, segments: &[Arc<Segment>], time: u64) -> usize {
        let (Some(first), complete) = (segments.first(), segments.len().saturating_sub(1)) else { return 0 };
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = latest.partition_point(|(number, _)| *number < first.header.number);
        let mut upto = latest.last().map_or(0, |(_, upto)| *upto);
        latest.drain(..gone);
        for segment in segments.iter().take(complete).skip(latest.len()) {
            let own = segment.index().partitions.values().map(|indexed| indexed.latest).max();
            upto = upto.max(own.unwrap_or(0));
            latest.push((segment.header.number, upto));
        }
        latest.partition_point(|(_, upto)| *upto < time)
    }

    pub fn extents(&self) -> RwLockReadGuard<'_, BTreeMap<PartitionId, Extent>> {
        self.extents.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn extents_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<PartitionId, Extent>> {
        self.extents.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Poisons the journal with `cause`, and returns the error that refuses writes. If it is poisoned already, the
    /// first cause stays.
    #[cold]
    pub fn fail(&self, cause: DiskError) -> WriteError {
        WriteError::Poisoned(self.poison.get_or_init(|| cause).clone())
    }

    pub fn check_poisoned(&self) -> Result<(), WriteError> {
        match self.poison.get() {
            None => Ok(()),
            Some(cause) => Err(WriteError::Poisoned(cause.clone())),
        }
    }
}

/// Count and durations of a journal's syncs since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncStats {
    /// Count of the sync jobs that succeeded. A job may sync several segments.
    pub count: u64,
    /// Sum of the jobs' durations.
    pub total: Duration,
    /// The longest duration of a job.
    pub longest: Duration,
}
