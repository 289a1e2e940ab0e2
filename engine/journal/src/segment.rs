//! A segment: one file of frames.

use crate::error::DiskError;
use crate::files::atomic_file::create_whole;
use crate::files::descriptors::{Files, SegmentFile};
use crate::files::names::{index_name, segment_name};
use crate::format::{PartitionId, SEGMENT_HEAD, SegmentHeader};
use crate::index::Index;
use crate::storage::{File, Storage};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(test)]
thread_local! {
    /// Count of the calls of [`Segment::index`] on this thread.
    pub(crate) static INDEX_LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// A segment of the journal.
pub(crate) struct Segment {
    pub header: SegmentHeader,
    pub name: String,
    pub file: SegmentFile,
    /// Offset in the file at which the last frame ends, in bytes. It grows while the segment is written.
    end: AtomicU64,
    /// True if a repair's gap covers the segment's snapshot. An opening cannot begin to read at such a segment, so it
    /// gets no index, which would promise that.
    headless: AtomicBool,
    /// True once the segment is complete, durable and has its index. Only such a segment is compacted.
    sealed: AtomicBool,
    /// How often the file was replaced by a compaction since the opening. An offset in the file belongs to one generation.
    pub generation: u32,
    index: Mutex<Index>,
}

/// A description of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentReport {
    /// The segment's header.
    pub header: SegmentHeader,
    /// Offset in the file at which the last frame ends, in bytes.
    pub end: u64,
    /// Size of the file, in bytes; 0 if it cannot be read.
    pub file: u64,
    /// True if the segment is complete and has a valid index.
    pub sealed: bool,
    /// The partitions that have records in the segment, in ascending order.
    pub partitions: Vec<PartitionReport>,
}

/// The records of one partition in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionReport {
    /// The partition.
    pub partition: PartitionId,
    /// The first record's offset.
    pub first: u64,
    /// The offset after the last record's.
    pub end: u64,
    /// Count of the records.
    pub records: u64,
    /// Size of the records with their lengths and times, in bytes, uncompressed.
    pub bytes: u64,
    /// The latest time of a record, in nanoseconds since the epoch.
    pub latest: u64,
}

impl Segment {
    pub fn new(header: SegmentHeader, file: SegmentFile) -> Self {
        let (name, end) = (segment_name(header.number), AtomicU64::new(SEGMENT_HEAD));
        let (headless, sealed) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { header, name, file, end, headless, sealed, generation: 0, index: Mutex::default() }
    }

    /// The segment after a compaction has replaced its file: with other frames, up to `end`, and their index.
    pub fn compacted(&self, file: SegmentFile, end: u64, index: Index) -> Self {
        let segment = Self { generation: self.generation + 1, ..Self::new(self.header, file) };
        segment.set_end(end);
        segment.set_sealed();
        *segment.index() = index;
        segment
    }

    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    pub fn set_sealed(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    pub fn headless(&self) -> bool {
        self.headless.load(Ordering::Relaxed)
    }

    pub fn set_headless(&self) {
        self.headless.store(true, Ordering::Relaxed);
    }

    /// True if the segment begins with a complete snapshot.
    pub fn has_snapshot(&self) -> bool {
        !self.header.lost && !self.headless() && self.end() > SEGMENT_HEAD
    }

    pub fn report(&self, sealed: bool) -> SegmentReport {
        let index = self.index();
        let partitions = index.partitions.iter().map(|(partition, indexed)| PartitionReport {
            partition: *partition,
            first: indexed.first,
            end: indexed.end,
            records: indexed.records,
            bytes: indexed.bytes,
            latest: indexed.latest,
        });
        let partitions = partitions.collect();
        let file = self.file.size().unwrap_or(0);
        SegmentReport { header: self.header, end: self.end(), file, sealed: sealed && !self.header.lost, partitions }
    }

    /// Creates a segment file and holds it open. The file gets its name only after it is allocated and durable.
    pub fn make(files: &Arc<Files>, header: SegmentHeader) -> Result<Self, DiskError> {
        let name = segment_name(header.number);
        if !header.is_sane() {
            let cause = io::Error::other("the journal's positions and segment numbers have reached their limit");
            return Err(DiskError::new("make", &name, &cause));
        }
        files.forget(header.number);
        let made = |file: &dyn File| {
            file.allocate(header.size)?;
            file.write_at(&header.encode(), 0)
        };
        let made = files.with_room(|| create_whole(&**files.storage(), &name, made));
        let segment = Self::new(header, files.file(header.number));
        segment.file.hold_this(made.map_err(|cause| segment.disk_error("make", &cause))?);
        Ok(segment)
    }

    /// Offset in the file at which the last frame ends, in bytes.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// Converts an offset in the file to a position in the journal, both in bytes.
    pub fn position(&self, at: u64) -> u64 {
        self.header.first + at
    }

    /// Writes the index. The segment must be complete and durable.
    pub fn seal(&self, storage: &dyn Storage) -> io::Result<()> {
        let SegmentHeader { id, number, .. } = &self.header;
        let bytes = self.index().encode(id, *number, self.header.checksum());
        create_whole(storage, &index_name(*number), |file| file.write_at(&bytes, 0)).map(drop)
    }

    pub fn index(&self) -> MutexGuard<'_, Index> {
        #[cfg(test)]
        INDEX_LOOKS.set(INDEX_LOOKS.get() + 1);
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn disk_error(&self, doing: &'static str, cause: &io::Error) -> DiskError {
        DiskError::new(doing, &self.name, cause)
    }
}
