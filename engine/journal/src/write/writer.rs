//! The writer: appending frames, and making them durable.
//!
//! ```text
//!   append, append, append ...          written   (page cache: survives the process)
//!        begin_sync --> SyncJob::run --> durable  (survives the power)
//!                 append, append ...              meanwhile: the next sync takes them all
//! ```
//!
//! One sync is in flight at a time. The frames that are appended meanwhile are made durable by the next sync. A segment is left
//! only when the next frame does not fit, and the job that syncs that frame syncs the left segment first. So no frame is
//! acknowledged before the frames in front of it.

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

/// Appends frames to a journal. A journal has one writer.
pub struct Writer {
    shared: Arc<Shared>,
    state: State,
    active: Arc<Segment>,
    /// The file of the segment that is being written.
    file: Arc<dyn File>,
    /// The checksum of the last frame.
    previous: u32,
    /// The segments that were written since the last sync began. The last one may be written further.
    dirty: Vec<Arc<Segment>>,
    /// The highest durable mark that a frame states.
    marked: u64,
    helper: Option<Arc<Helper>>,
    /// Segments that may be deleted once the position before them is durable.
    pub(crate) pending_removal: Vec<(u64, Vec<Arc<Segment>>)>,
    /// The expiry point of the last retention, by age.
    pub(crate) expiry: BTreeMap<Duration, ExpiryPoint>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer of {:?}", self.journal())
    }
}

/// The most bytes of a snapshot in one frame.
const SNAPSHOT_FRAME: usize = 256 << 10;

impl Writer {
    /// Begins to write at the end of `active`: with a snapshot if the segment is new, with a mark if it has frames.
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
        };
        // The first frame of an opening has a new incarnation, which tells later frames from those of earlier openings.
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

    /// The handle for readers.
    pub fn journal(&self) -> Journal {
        Journal { shared: Arc::clone(&self.shared) }
    }

    /// The journal's state after the last frame.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The most bytes of a frame's payload.
    pub fn frame_limit(&self) -> usize {
        frame_limit(self.shared.options.segment_size)
    }

    /// Bytes by which the state may grow.
    #[doc(hidden)]
    pub fn state_room(&self) -> usize {
        self.state_limit().saturating_sub(self.state.size())
    }

    /// The most bytes of the state.
    #[doc(hidden)]
    pub fn state_limit(&self) -> usize {
        state_limit(self.shared.options.segment_size)
    }

    fn helper(&self) -> Result<&Helper, WriteError> {
        let gone = || DiskError::new("write", "the journal", &std::io::Error::other("it was closed"));
        self.helper.as_deref().ok_or_else(|| self.shared.fail(gone()))
    }

    /// Writes the entries of `frame`, all or none, and empties it. Returns the position behind the frame: it is durable once
    /// [`Journal::durable`] has reached that position. `time` is in nanoseconds since the epoch.
    ///
    /// # Errors
    /// The frame or the state is too large, or an offset goes back: then nothing was written, and `frame` is unchanged. Or
    /// the journal is poisoned, now or before: then it is unknown whether the frame was written.
    pub fn append(&mut self, frame: &mut FrameBuilder, time: u64) -> Result<u64, WriteError> {
        self.append_if(frame, time, || true)?;
        Ok(self.shared.written.load(Ordering::Relaxed))
    }

    /// Writes the frame as [`append`](Self::append) does, if `decide` returns true. It is called when only the disk can still
    /// refuse the frame. Returns false, and writes nothing, if it returns false.
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
                // A frame without records may use the reserve at the end of the segment: it frees space, or belongs to an
                // opening.
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

    /// Updates index and state. Readers see that once the written position has moved.
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

    /// The next segment. If it cannot be created, nothing has changed.
    fn next_segment(&mut self) -> Result<Segment, WriteError> {
        if let Some(made) = self.helper()?.take_next() {
            return Ok(made);
        }
        // There may be room by now.
        let made = Segment::make(&self.shared.files, self.next_header());
        if made.is_err() {
            self.order_segment();
        }
        made.map_err(WriteError::Poisoned)
    }

    /// Goes on in the next segment, which begins with a snapshot.
    fn roll(&mut self, segment: Segment, time: u64) -> Result<(), WriteError> {
        let segment = Arc::new(segment);
        self.file =
            segment.file.hold_unshared().map_err(|cause| self.shared.fail(segment.disk_error("open", &cause)))?;
        // The next sync covers the segment in any case, and then has its index written.
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

    /// Orders the next segment from the helper thread. Without a thread it is created when it is needed.
    #[doc(hidden)]
    pub fn order_segment(&self) {
        if let Some(helper) = &self.helper {
            helper.submit(Task::Create(self.next_header()));
        }
    }

    fn snapshot(&mut self, time: u64) -> Result<(), WriteError> {
        let part = SNAPSHOT_FRAME.min(self.frame_limit());
        let mut parts = self.state.snapshot(part);
        let count = parts.len();
        for (index, frame) in parts.iter_mut().enumerate() {
            self.write(FrameKind::Snapshot { first: index == 0, last: index + 1 == count }, frame, time)?;
        }
        Ok(())
    }

    /// Takes all frames that are written and not durable into a sync job, which any thread may run. None if all are durable
    /// or a sync is in flight.
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

    /// Makes all written frames durable, on this thread, and returns the durable position.
    ///
    /// # Errors
    /// The journal is poisoned, now or before.
    pub fn sync(&mut self) -> Result<u64, WriteError> {
        self.shared.check_poisoned()?;
        match self.begin_sync() {
            Some(job) => job.run(),
            None => Ok(self.shared.durable.load(Ordering::Acquire)),
        }
    }

    /// True if a mark should be written: all frames are durable, and none says so yet.
    pub fn wants_mark(&self) -> bool {
        let durable = self.shared.durable.load(Ordering::Acquire);
        self.dirty.is_empty() && durable == self.shared.written.load(Ordering::Relaxed) && {
            // A mark needs no mark of its own.
            self.marked + (FRAME_HEADER as u64) < durable
        }
    }

    /// Writes a mark: a frame that says that all frames before it are durable. It counts once it is durable itself.
    ///
    /// # Errors
    /// The journal is poisoned, now or before.
    pub fn mark(&mut self, time: u64) -> Result<(), WriteError> {
        self.shared.check_poisoned()?;
        self.write(FrameKind::Mark, &mut FrameBuilder::new(), time)
    }

    /// True if a frame with a payload of `len` bytes needs the next segment and that could not be created: the disk is full,
    /// or too many files are open.
    #[doc(hidden)]
    pub fn lacks_room(&self, len: usize) -> bool {
        let size = self.active.header.size;
        let end = self.active.end() + aligned((FRAME_HEADER + len) as u64);
        end > size - reserve(size) && self.helper.as_ref().is_some_and(|helper| helper.lacks_next())
    }

    /// Deletes the segments that retention has given up, if that is durable.
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

    /// Closes the journal: makes all frames durable and marks them so, returns the offsets that were reserved and not used,
    /// and cuts the last segment to its frames and the room that the next opening needs.
    ///
    /// # Errors
    /// The journal is poisoned, now or before. Durable frames stay durable.
    pub fn close(mut self, time: u64) -> Result<(), WriteError> {
        let mut frame = FrameBuilder::new();
        for (partition, extent) in self.state.extents().collect::<Vec<_>>() {
            if extent.reserved != extent.end {
                frame.extent(partition, Extent { reserved: extent.end, ..extent });
            }
            if frame.len() + 64 > self.frame_limit() {
                self.append_part(&mut frame, time)?;
                frame.clear();
            }
        }
        if !frame.is_empty() {
            self.append_part(&mut frame, time)?;
        }
        // The caller has waited for a sync job on another thread.
        self.sync()?;
        self.mark(time)?;
        self.sync()?;
        self.collect();
        let shared = Arc::clone(&self.shared);
        let cannot = |cause: &std::io::Error| shared.fail(self.active.disk_error("close", cause));
        // A file with other names keeps its length: a copy by hard links is the same file.
        if self.file.links().map_err(|cause| cannot(&cause))? <= 1 {
            let size = self.active.header.size.min(self.active.end() + reserve(self.active.header.size));
            self.file.truncate(size).map_err(|cause| cannot(&cause))?;
        }
        self.file.sync().map_err(|cause| cannot(&cause))?;
        let next = self.next_header().number;
        let lock = match self.helper.take().map(Arc::try_unwrap) {
            Some(Ok(helper)) => Some(helper.finish()),
            // A sync job that was not dropped holds the helper: the thread ends with the job.
            Some(Err(_)) | None => None,
        };
        let storage = &*shared.storage;
        // The segment that was created ahead is not needed.
        let _ = storage.remove(&segment_name(next));
        let durable = shared.durable.load(Ordering::Acquire);
        // The checkpoint is derived: all frames are durable without it.
        let _ = Checkpoint { id: shared.id, durable, incarnation: shared.incarnation }.write(storage);
        self.active.file.release();
        drop(lock);
        Ok(())
    }

    fn append_part(&mut self, frame: &mut FrameBuilder, time: u64) -> Result<(), WriteError> {
        self.shared.check_poisoned()?;
        self.write(FrameKind::Data, frame, time)
    }

    /// Adds to `frame` that offsets of a partition below `reserved` may be issued. It must be durable before one is. After a
    /// crash the partition goes on at `reserved`, so that no offset is issued twice.
    pub fn reserve(&self, frame: &mut FrameBuilder, partition: PartitionId, reserved: u64) {
        let extent = self.state.extent(partition).unwrap_or_default();
        frame.extent(partition, Extent { reserved: reserved.max(extent.reserved), ..extent });
    }
}

/// True if a payload has records; a damaged one has none.
fn has_records(payload: &[u8]) -> bool {
    trusted_entries(payload).any(|entry| matches!(entry, Ok(Entry::Run(_))))
}
