//! The writer, which appends frames and makes them durable.
//!
//! ```text
//!   append, append, append ...      written   (in the page cache: survives the process)
//!    begin_sync --> SyncJob::run --> durable  (survives a power cut)
//!         append, append ...        meanwhile: the next sync covers them all
//! ```
//!
//! At most one sync is in flight. The next sync covers all frames that are appended meanwhile. The writer moves to a
//! new segment if the next frame does not fit, or so that the present one can be compacted, and the job that syncs that frame syncs the old segment first. So
//! no frame is acknowledged before the frames that precede it.

use crate::checkpoint::Checkpoint;
use crate::error::{DiskError, OpenError, WriteError};
use crate::files::names::segment_name;
use crate::format::{
    ALIGN, Codec, Entry, Extent, FRAME_HEADER, FrameBuilder, FrameHeader, FrameKind, MAJOR, PartitionId, Run,
    SEGMENT_HEAD, SegmentHeader, aligned, compress, entries, trusted_entries,
};
use crate::journal::Journal;
use crate::limits::{frame_limit, reserve, state_limit};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::state::State;
use crate::storage::{File, Lock};
use crate::write::expiry::ExpiryPoint;
use crate::write::helper::{Helper, Task};
use crate::write::sync::SyncJob;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Appends frames to a journal. Each open journal has one writer.
pub struct Writer {
    shared: Arc<Shared>,
    state: State,
    active: Arc<Segment>,
    /// The file of the segment that is being written.
    file: Arc<dyn File>,
    /// The checksum of the last frame.
    previous: u32,
    /// The segments written since the last sync began. Only the last one can grow.
    dirty: Vec<Arc<Segment>>,
    /// The highest durable mark in a written frame, as a position in bytes.
    marked: u64,
    helper: Option<Arc<Helper>>,
    /// Segments to delete, each group with the position that must be durable first.
    pub(crate) pending_removal: Vec<(u64, Vec<Arc<Segment>>)>,
    /// For each age limit, the point that the last retention reached.
    pub(crate) expiry: BTreeMap<Duration, ExpiryPoint>,
    /// For some partitions, the offset after the last issued one: see [`note_issued`](Self::note_issued).
    issued: BTreeMap<PartitionId, u64>,
    /// The number of the present segment, and the size of its records of compacted partitions in bytes, when
    /// [`end_segment_at_rest`](Self::end_segment_at_rest) was last called.
    pub(super) seen_to_compact: (u64, u64),
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer of {:?}", self.journal())
    }
}

/// The largest part of a snapshot in one frame, in bytes.
const SNAPSHOT_FRAME: usize = 256 << 10;

impl Writer {
    /// Begins to write at the end of `active`: with a snapshot if the segment has no frames yet, otherwise with a mark.
    pub(crate) fn begin(
        shared: Arc<Shared>,
        state: State,
        active: Arc<Segment>,
        previous: u32,
        lock: Lock,
        spare: Option<Segment>,
        time: u64,
    ) -> Result<Self, OpenError> {
        let file = active.file.hold_unshared().map_err(|cause| active.disk_error("open", &cause))?;
        let is_new = active.end() == SEGMENT_HEAD;
        // The opening has made all that it found durable.
        let is_left = |segment: &&Arc<Segment>| segment.header.number != active.header.number && !segment.header.lost;
        shared.segments().iter().filter(is_left).for_each(|segment| segment.set_sealed());
        let helper = Arc::new(Helper::new(Arc::clone(&shared), lock, spare)?);
        let mut writer = Self {
            shared,
            state,
            active,
            file,
            previous,
            dirty: Vec::new(),
            marked: 0,
            helper: Some(helper),
            pending_removal: Vec::new(),
            expiry: BTreeMap::new(),
            issued: BTreeMap::new(),
            seen_to_compact: (0, 0),
        };
        // The first frame of an opening carries the new incarnation. Frames that an earlier opening left after it in
        // the file have a lower one, so the chain does not continue with them.
        let begun = if is_new { writer.snapshot(time) } else { writer.mark(time) };
        let serve_before_sync = writer.shared.options.sabotage().serve_before_sync;
        let begun = begun.and_then(|()| if serve_before_sync { Ok(0) } else { writer.sync() });
        begun.map_err(|refused| match refused {
            WriteError::Poisoned(cause) => OpenError::Disk(cause),
            other => OpenError::Setting(other.to_string()),
        })?;
        writer.order_segment();
        Ok(writer)
    }

    /// A handle for readers.
    pub fn journal(&self) -> Journal {
        Journal { shared: Arc::clone(&self.shared) }
    }

    /// The journal's state after the last frame.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The largest payload of a frame, in bytes.
    pub fn frame_limit(&self) -> usize {
        frame_limit(self.shared.options.segment_size)
    }

    /// Count of bytes by which the state may still grow.
    #[doc(hidden)]
    pub fn state_room(&self) -> usize {
        self.state_limit().saturating_sub(self.state.size())
    }

    /// Count of bytes by which the state may still grow after `frame`, which is not written yet; 0 if the frame cannot be
    /// written. May be lower than that, but then has room for a whole frame.
    #[doc(hidden)]
    pub fn state_room_after(&self, frame: &mut FrameBuilder) -> usize {
        let room = self.state_room();
        // The state grows by the bytes of the frame at most.
        match room.checked_sub(frame.len()) {
            Some(left) if left >= self.frame_limit() => left,
            _ => self
                .state
                .check(trusted_entries(frame.payload()))
                .map_or(0, |grown| usize::try_from((room as isize).saturating_sub(grown)).unwrap_or(0)),
        }
    }

    /// The largest size of the state, in bytes.
    #[doc(hidden)]
    pub fn state_limit(&self) -> usize {
        state_limit(self.shared.options.segment_size)
    }

    pub(crate) fn helper(&self) -> Result<&Helper, WriteError> {
        let gone = || DiskError::new("write", "the journal", &std::io::Error::other("it was closed"));
        self.helper.as_deref().ok_or_else(|| self.shared.fail(gone()))
    }

    /// Writes the entries of `frame`, all or none, and empties it. `time` is in nanoseconds since the epoch. Returns
    /// the position after the frame, which is durable once [`Journal::durable`] has reached that position.
    ///
    /// # Errors
    /// If the frame or the state is too large, an offset goes back, a payload is malformed, or the journal was poisoned
    /// before, nothing is written. If this call poisons the journal, it is unknown whether the frame was written. After
    /// any error `frame` keeps its entries.
    pub fn append(&mut self, frame: &mut FrameBuilder, time: u64) -> Result<u64, WriteError> {
        self.append_if(frame, time, || true)?;
        Ok(self.shared.written.load(Ordering::Relaxed))
    }

    /// Writes the frame as [`append`](Self::append) does, if `decide` returns true; otherwise returns false and writes
    /// nothing. `decide` is called after all checks, when only the disk can still refuse the frame.
    #[doc(hidden)]
    pub fn append_if(
        &mut self,
        frame: &mut FrameBuilder,
        time: u64,
        decide: impl FnOnce() -> bool,
    ) -> Result<bool, WriteError> {
        self.shared.check_poisoned()?;
        let limit = self.frame_limit();
        if frame.payload().len() > limit {
            return Err(WriteError::TooLarge { len: frame.len(), limit });
        }
        let is_sure = frame.is_sure();
        let payload = frame.payload();
        let found = if is_sure { trusted_entries(payload) } else { entries(payload) };
        let grown = self.state.check(found).map_err(|refused| match refused {
            Ok(back) => WriteError::OffsetGoesBack { partition: back.partition, offset: back.offset, end: back.end },
            Err(what) => WriteError::Malformed(what),
        })?;
        let (len, limit) =
            (self.state.size().saturating_add_signed(grown), state_limit(self.shared.options.segment_size));
        if len > limit && grown > 0 {
            return Err(WriteError::StateTooLarge { len, limit });
        }
        if !decide() {
            return Ok(false);
        }
        self.write(FrameKind::Data, frame, time)?;
        frame.clear();
        Ok(true)
    }

    fn write(&mut self, kind: FrameKind, frame: &mut FrameBuilder, time: u64) -> Result<(), WriteError> {
        let count = frame.entries();
        let plain = frame.payload();
        let packed = if kind == FrameKind::Data { compress(self.shared.options.codec, plain) } else { None };
        let (codec, stored) = match &packed {
            Some(packed) => (self.shared.options.codec, packed.as_slice()),
            None => (Codec::Plain, plain),
        };
        let len = aligned((FRAME_HEADER + stored.len()) as u64);
        let size = self.active.header.size;
        if self.active.end() + len > size - reserve(size) {
            match self.next_segment() {
                Ok(next) => self.roll(next, time)?,
                // A frame without records may use the reserve at the end of the segment, so that an opening or a
                // retention succeeds on a full disk.
                Err(_) if self.active.end() + len <= size && !has_records(plain) => {}
                Err(WriteError::Poisoned(cause)) => return Err(self.shared.fail(cause)),
                Err(refused) => return Err(refused),
            }
        }
        let at = self.active.end();
        let durable = self.shared.durable.load(Ordering::Acquire);
        let header = FrameHeader {
            kind,
            codec,
            stored: stored.len() as u32,
            raw: plain.len() as u32,
            position: self.active.position(at),
            durable,
            time,
            incarnation: self.shared.incarnation,
            entries: count,
            previous: self.previous,
            payload: crc32c::crc32c(stored),
        };
        let (head, checksum) = header.encode(&self.shared.id);
        let padding = &[0; ALIGN as usize][..len as usize - FRAME_HEADER - stored.len()];
        let written = self.file.write_parts_at(&[&head, stored, padding], at);
        written.map_err(|cause| self.shared.fail(self.active.disk_error("write to", &cause)))?;
        self.previous = checksum;
        self.marked = self.marked.max(durable);
        self.note(kind, plain, at, at + len, checksum, time);
        self.dirty(&Arc::clone(&self.active));
        self.active.set_end(at + len);
        self.shared.written.store(self.active.position(at + len), Ordering::Release);
        Ok(())
    }

    fn dirty(&mut self, segment: &Arc<Segment>) {
        if self.dirty.last().is_none_or(|last| last.header.number != segment.header.number) {
            self.dirty.push(Arc::clone(segment));
        }
    }

    /// Updates the segment's index, the state and the extents. Readers read no frame beyond the written position, which
    /// the caller moves afterwards.
    fn note(&mut self, kind: FrameKind, plain: &[u8], at: u64, end: u64, checksum: u32, time: u64) {
        let mut index = self.active.index();
        index.frame(at, end, checksum, time);
        if kind != FrameKind::Data {
            return;
        }
        let mut extents = self.shared.extents_mut();
        for entry in trusted_entries(plain).flatten() {
            index.entry(at, end, time, &entry);
            // The payload was checked before it was written.
            let _ = self.state.apply(&entry);
            match entry {
                Entry::Run(Run { partition, .. }) | Entry::Extent(partition, _) => {
                    extents.extend(self.state.extent(partition).map(|extent| (partition, extent)));
                }
                Entry::TopicGone(topic) => extents.retain(|partition, _| partition.topic != topic),
                _ => {}
            }
        }
    }

    /// Returns the next segment. If it cannot be created, nothing has changed.
    pub(super) fn next_segment(&mut self) -> Result<Segment, WriteError> {
        if let Some(made) = self.helper()?.take_next() {
            return Ok(made);
        }
        // The helper did not create it, but the disk may have room by now.
        let made = Segment::make(&self.shared.files, self.next_header());
        if made.is_err() {
            self.order_segment();
        }
        made.map_err(WriteError::Poisoned)
    }

    /// Continues in the next segment, which begins with a snapshot.
    pub(super) fn roll(&mut self, segment: Segment, time: u64) -> Result<(), WriteError> {
        let segment = Arc::new(segment);
        self.file =
            segment.file.hold_unshared().map_err(|cause| self.shared.fail(segment.disk_error("open", &cause)))?;
        // The next sync covers the old segment even if it is clean, and then has its index written.
        self.dirty(&Arc::clone(&self.active));
        self.shared.segments_mut().push(Arc::clone(&segment));
        self.active = segment;
        self.order_segment();
        self.snapshot(time)
    }

    fn next_header(&self) -> SegmentHeader {
        let last = &self.active.header;
        SegmentHeader {
            version: MAJOR,
            id: self.shared.id,
            number: last.number + 1,
            first: last.first + last.size,
            size: self.shared.options.segment_size,
            incarnation: self.shared.incarnation,
            lost: false,
        }
    }

    /// Makes the helper thread create the next segment. Without a thread, it is created when it is needed.
    #[doc(hidden)]
    pub fn order_segment(&self) {
        if let Some(helper) = &self.helper {
            helper.submit(Task::Create(self.next_header()));
        }
    }

    fn snapshot(&mut self, time: u64) -> Result<(), WriteError> {
        // Each new segment begins with a snapshot. So a snapshot that does not fit into a segment would need a further
        // segment, which begins with a snapshot again, without end. Openings and `append` therefore refuse a state above the
        // limit.
        debug_assert!(self.state.size() <= self.state_limit(), "{} bytes", self.state.size());
        let part = SNAPSHOT_FRAME.min(self.frame_limit());
        let mut parts = self.state.snapshot(part);
        let count = parts.len();
        for (index, frame) in parts.iter_mut().enumerate() {
            self.write(FrameKind::Snapshot { first: index == 0, last: index + 1 == count }, frame, time)?;
        }
        Ok(())
    }

    /// Creates a job that syncs all frames that are not durable yet, on any thread. `None` if no frame was written
    /// since the last sync began, a sync is in flight, or the journal is poisoned.
    pub fn begin_sync(&mut self) -> Option<SyncJob> {
        if self.dirty.is_empty()
            || self.shared.poison.get().is_some()
            || self.shared.syncing.swap(true, Ordering::AcqRel)
        {
            return None;
        }
        let segments = std::mem::take(&mut self.dirty);
        let position = self.shared.written.load(Ordering::Relaxed);
        if self.shared.options.sabotage().acknowledge_before_sync {
            self.shared.durable.store(position, Ordering::Release);
        }
        Some(SyncJob::new(Arc::clone(&self.shared), self.helper.clone(), segments, position))
    }

    /// Makes all written frames durable on the calling thread, unless a [`SyncJob`] is in flight: then does nothing.
    /// Returns the durable position, in bytes.
    ///
    /// # Errors
    /// The journal is poisoned, by this call or before.
    pub fn sync(&mut self) -> Result<u64, WriteError> {
        self.shared.check_poisoned()?;
        match self.begin_sync() {
            Some(job) => job.run(),
            None => Ok(self.shared.durable.load(Ordering::Acquire)),
        }
    }

    /// True if a mark should be written: all frames are durable, but no frame states that yet.
    pub fn wants_mark(&self) -> bool {
        let durable = self.shared.durable.load(Ordering::Acquire);
        self.dirty.is_empty() && durable == self.shared.written.load(Ordering::Relaxed) && {
            // False if only the last mark itself, a frame without a payload, lies between the position that it states
            // and the durable position: it needs no mark of its own, and marks would follow one another without end.
            self.marked + (FRAME_HEADER as u64) < durable
        }
    }

    /// Writes a mark, a frame which states that all frames before it are durable. It takes effect when it is durable
    /// itself. `time` is in nanoseconds since the epoch.
    ///
    /// # Errors
    /// The journal is poisoned, by this call or before.
    pub fn mark(&mut self, time: u64) -> Result<(), WriteError> {
        self.shared.check_poisoned()?;
        self.write(FrameKind::Mark, &mut FrameBuilder::new(), time)
    }

    /// True if a frame with a payload of `len` bytes needs the next segment, and the helper thread could not create
    /// that segment, for example because the disk is full. Waits while the segment is being created.
    #[doc(hidden)]
    pub fn lacks_room(&self, len: usize) -> bool {
        let size = self.active.header.size;
        let end = self.active.end() + aligned((FRAME_HEADER + len) as u64);
        end > size - reserve(size) && self.helper.as_ref().is_some_and(|helper| helper.lacks_next())
    }

    /// Deletes the segments that durable retentions have released. Segments of a retention that is not durable yet stay
    /// for a later call.
    pub fn collect(&mut self) {
        let durable = self.shared.durable.load(Ordering::Acquire);
        let Some(helper) = &self.helper else { return };
        self.pending_removal.retain_mut(|(position, segments)| {
            let free = *position <= durable;
            if free {
                helper.submit(Task::Remove(std::mem::take(segments)));
            }
            !free
        });
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Notes that the partition's offsets below `next` were issued, also those without a record. [`close`](Self::close)
    /// gives back none of these: a reader may have passed them, and would pass over a later record at one of them.
    pub fn note_issued(&mut self, partition: PartitionId, next: u64) {
        self.issued.insert(partition, next);
    }

    /// Closes the journal: gives reserved offsets that were not issued back, makes all frames durable, writes a mark, and
    /// cuts the last segment to its frames and a reserve for the next opening.
    ///
    /// # Errors
    /// The journal is poisoned, by this call or before. Durable frames stay durable.
    pub fn close(mut self, time: u64) -> Result<(), WriteError> {
        let mut frame = FrameBuilder::new();
        for (partition, extent) in self.state.extents().collect::<Vec<_>>() {
            let issued = self.issued.get(&partition).map_or(extent.end, |issued| extent.end.max(*issued));
            if extent.reserved != issued {
                frame.extent(partition, Extent { reserved: issued, ..extent });
            }
            if frame.len() + 64 > self.frame_limit() {
                self.append_part(&mut frame, time)?;
                frame.clear();
            }
        }
        if !frame.is_empty() {
            self.append_part(&mut frame, time)?;
        }
        // No sync job may be in flight, or this sync would do nothing: callers wait for their jobs before they close.
        self.sync()?;
        self.mark(time)?;
        self.sync()?;
        self.collect();
        let shared = Arc::clone(&self.shared);
        let cannot = |cause: &std::io::Error| shared.fail(self.active.disk_error("close", cause));
        // A file with several names is not cut, because a backup made by hard links shares it.
        if self.file.links().map_err(|cause| cannot(&cause))? <= 1 {
            let size = self.active.header.size.min(self.active.end() + reserve(self.active.header.size));
            self.file.truncate(size).map_err(|cause| cannot(&cause))?;
        }
        self.file.sync().map_err(|cause| cannot(&cause))?;
        let next = self.next_header().number;
        let lock = match self.helper.take().map(Arc::try_unwrap) {
            Some(Ok(helper)) => Some(helper.finish()),
            // A sync job that was not dropped yet holds the helper, so the thread ends with that job.
            Some(Err(_)) | None => None,
        };
        let storage = &*shared.storage;
        // Removes the segment that was created ahead, which is not needed.
        let _ = storage.remove(&segment_name(next));
        let durable = shared.durable.load(Ordering::Acquire);
        // Errors are ignored: the frames are durable without a checkpoint.
        let _ = Checkpoint { id: shared.id, durable, incarnation: shared.incarnation }.write(storage);
        self.active.file.release();
        drop(lock);
        Ok(())
    }

    fn append_part(&mut self, frame: &mut FrameBuilder, time: u64) -> Result<(), WriteError> {
        self.shared.check_poisoned()?;
        self.write(FrameKind::Data, frame, time)
    }

    /// Adds an entry to `frame` that reserves the partition's offsets below `reserved`. The frame must be durable
    /// before such an offset is issued. After a crash the partition continues at `reserved`, so that no offset is
    /// issued twice.
    pub fn reserve(&self, frame: &mut FrameBuilder, partition: PartitionId, reserved: u64) {
        let extent = self.state.extent(partition).unwrap_or_default();
        frame.extent(partition, Extent { reserved: reserved.max(extent.reserved), ..extent });
    }
}

/// True if a payload has records; false if it is malformed before its first record.
fn has_records(payload: &[u8]) -> bool {
    trusted_entries(payload).any(|entry| matches!(entry, Ok(Entry::Run(_))))
}
