//! Appending frames, and making them durable.
//!
//! ```text
//!   append, append, append ...          written   (page cache: survives the process)
//!        begin_sync --> SyncJob::run --> durable  (survives the power)
//!                 append, append ...              meanwhile: the next sync takes them all
//! ```
//!
//! One sync is in flight at a time; what is appended while it runs is the next one's group. A segment is left only when
//! the next frame does not fit, and its sync is part of the same job, so nothing behind it is acknowledged before it.

use super::aged::Aged;
use super::checkpoint::Checkpoint;
use super::error::{DiskError, OpenError, WriteError};
use super::file_names::segment_name;
use super::format::{
    ALIGN, Codec, Entry, Extent, FRAME_HEADER, FrameBuilder, FrameHeader, FrameKind, MAJOR, PartitionId, Run,
    SEGMENT_HEAD, SegmentHeader, aligned, entries, known_entries, pack,
};
use super::helper::{Helper, Task};
use super::journal::Journal;
use super::limits::{frame_limit, reserve, state_limit};
use super::segment::Segment;
use super::shared::Shared;
use super::snapshot::State;
use super::storage::{File, Lock};
use super::sync::SyncJob;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The one that appends. There is one for a journal.
pub struct Writer {
    shared: Arc<Shared>,
    state: State,
    active: Arc<Segment>,
    /// Of the segment that is written.
    file: Arc<dyn File>,
    /// The checksum of the last frame.
    previous: u32,
    /// Written since the last sync began; the last one may be written further.
    dirty: Vec<Arc<Segment>>,
    /// The highest durable mark that stands in a frame.
    marked: u64,
    helper: Option<Arc<Helper>>,
    /// Segments that may be deleted once this position is durable.
    pub(super) condemned: Vec<(u64, Vec<Arc<Segment>>)>,
    /// What the last retention has found too old, by age.
    pub(super) aged: BTreeMap<Duration, Aged>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer of {:?}", self.journal())
    }
}

/// Bytes of snapshot in one frame.
const PART: usize = 256 << 10;

impl Writer {
    /// Begins to write at the end of `active`: with a snapshot where it was just made, with a mark where it has frames.
    pub(super) fn begin(
        shared: Arc<Shared>,
        state: State,
        active: Arc<Segment>,
        previous: u32,
        lock: Lock,
        spare: Option<Segment>,
        time: u64,
    ) -> Result<Self, OpenError> {
        let file = active.file.hold_own().map_err(|cause| active.disk_error("open", &cause))?;
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
            condemned: Vec::new(),
            aged: BTreeMap::new(),
        };
        // Whatever is written from now on can be told from what elder openings have written.
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

    /// What readers need.
    pub fn journal(&self) -> Journal {
        Journal { shared: Arc::clone(&self.shared) }
    }

    /// What each segment begins with, as of now.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The largest payload of one frame.
    pub fn frame_limit(&self) -> usize {
        frame_limit(self.shared.options.segment_size)
    }

    /// Bytes by which the state may grow.
    #[doc(hidden)]
    pub fn state_room(&self) -> usize {
        self.state_limit().saturating_sub(self.state.size())
    }

    /// Bytes that the state may have.
    #[doc(hidden)]
    pub fn state_limit(&self) -> usize {
        state_limit(self.shared.options.segment_size)
    }

    fn helper(&self) -> Result<&Helper, WriteError> {
        let gone = || DiskError::new("write", "the journal", &std::io::Error::other("it was closed"));
        self.helper.as_deref().ok_or_else(|| self.shared.fail(gone()))
    }

    /// Writes what `frame` has collected, all or none of it, and empties it. Returns the journal's position behind it:
    /// it is durable once [`Journal::durable`] has reached that. `time` is in nanoseconds since the epoch.
    ///
    /// # Errors
    /// The frame or the state is too large or an offset goes back: nothing was written, and `frame` is as it was. Or the
    /// journal is poisoned, now or before: it is unknown whether the frame is there.
    pub fn append(&mut self, frame: &mut FrameBuilder, time: u64) -> Result<u64, WriteError> {
        self.append_if(frame, time, || true)?;
        Ok(self.shared.written.load(Ordering::Relaxed))
    }

    /// The same, if `decide` says so: it is asked when nothing but the disk can refuse the frame any more. False, and
    /// nothing was written, if it does not.
    #[doc(hidden)]
    pub fn append_if(
        &mut self,
        frame: &mut FrameBuilder,
        time: u64,
        decide: impl FnOnce() -> bool,
    ) -> Result<bool, WriteError> {
        self.shared.sound()?;
        let limit = self.frame_limit();
        if frame.payload().len() > limit {
            return Err(WriteError::TooLarge { len: frame.len(), limit });
        }
        let is_sure = frame.is_sure();
        let payload = frame.payload();
        let found = if is_sure { known_entries(payload) } else { entries(payload) };
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
        let packed = if kind == FrameKind::Data { pack(self.shared.options.codec, plain) } else { None };
        let (codec, stored) = match &packed {
            Some(packed) => (self.shared.options.codec, packed.as_slice()),
            None => (Codec::Plain, plain),
        };
        let len = aligned((FRAME_HEADER + stored.len()) as u64);
        let size = self.active.header.size;
        if self.active.end() + len > size - reserve(size) {
            match self.next_segment() {
                Ok(next) => self.roll(next, time)?,
                // What frees space, and what an opening says, has room of its own.
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

    /// Readers find what is noted here once the position has moved.
    fn note(&mut self, kind: FrameKind, plain: &[u8], at: u64, end: u64, checksum: u32, time: u64) {
        let mut index = self.active.index();
        index.frame(at, end, checksum, time);
        if kind != FrameKind::Data {
            return;
        }
        let mut extents = self.shared.extents_mut();
        for entry in known_entries(plain).flatten() {
            index.entry(at, end, time, &entry);
            // Was checked before it was written.
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

    /// The next segment, made. Nothing has changed if it is not there.
    fn next_segment(&mut self) -> Result<Segment, WriteError> {
        if let Some(made) = self.helper()?.made() {
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
        self.file = segment.file.hold_own().map_err(|cause| self.shared.fail(segment.disk_error("open", &cause)))?;
        // In the next sync at any rate, which has it indexed.
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

    /// Has the next segment made while this one is written. Without a thread it is made when it is needed.
    #[doc(hidden)]
    pub fn order_segment(&self) {
        if let Some(helper) = &self.helper {
            helper.hand(Task::Make(self.next_header()));
        }
    }

    fn snapshot(&mut self, time: u64) -> Result<(), WriteError> {
        let part = PART.min(self.frame_limit());
        let mut parts = self.state.snapshot(part);
        let count = parts.len();
        for (index, frame) in parts.iter_mut().enumerate() {
            self.write(FrameKind::Snapshot { first: index == 0, last: index + 1 == count }, frame, time)?;
        }
        Ok(())
    }

    /// Takes all that was written and is not durable yet into a sync, to be run on any thread. None if all is durable
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

    /// Makes all that was written durable, on this thread; returns the durable position.
    ///
    /// # Errors
    /// The journal is poisoned, now or before.
    pub fn sync(&mut self) -> Result<u64, WriteError> {
        self.shared.sound()?;
        match self.begin_sync() {
            Some(job) => job.run(),
            None => Ok(self.shared.durable.load(Ordering::Acquire)),
        }
    }

    /// Whether a frame should be written to say that all before it is durable: nobody said so yet, and all is.
    pub fn wants_mark(&self) -> bool {
        let durable = self.shared.durable.load(Ordering::Acquire);
        self.dirty.is_empty() && durable == self.shared.written.load(Ordering::Relaxed) && {
            // The mark itself is not worth another one.
            self.marked + (FRAME_HEADER as u64) < durable
        }
    }

    /// Writes the mark that says so. It must be synced to count.
    ///
    /// # Errors
    /// The journal is poisoned, now or before.
    pub fn mark(&mut self, time: u64) -> Result<(), WriteError> {
        self.shared.sound()?;
        self.write(FrameKind::Mark, &mut FrameBuilder::new(), time)
    }

    /// Whether a frame with a payload of `len` bytes needs the next segment, and that could not be made: the disk is full, or
    /// too many files are open.
    #[doc(hidden)]
    pub fn lacks_room(&self, len: usize) -> bool {
        let size = self.active.header.size;
        let end = self.active.end() + aligned((FRAME_HEADER + len) as u64);
        end > size - reserve(size) && self.helper.as_ref().is_some_and(|helper| helper.lacks_next())
    }

    /// Deletes the segments that retention has freed, once that they are free is durable.
    pub fn collect(&mut self) {
        let durable = self.shared.durable.load(Ordering::Acquire);
        let Some(helper) = &self.helper else { return };
        self.condemned.retain_mut(|(position, segments)| {
            let free = *position <= durable;
            if free {
                helper.hand(Task::Remove(std::mem::take(segments)));
            }
            !free
        });
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Ends the journal in good order: all is made durable and marked so, offsets that were only reserved are given
    /// back, and the last segment is cut to what it has and what the next opening writes before all else.
    ///
    /// # Errors
    /// The journal is poisoned, now or before; what is durable stays so.
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
        // A job on another thread ends before its thread can be joined; whoever closes has done that.
        self.sync()?;
        self.mark(time)?;
        self.sync()?;
        self.collect();
        let shared = Arc::clone(&self.shared);
        let cannot = |cause: &std::io::Error| shared.fail(self.active.disk_error("close", cause));
        // One with other names keeps its length: a snapshot by links has the same file.
        if self.file.links().map_err(|cause| cannot(&cause))? <= 1 {
            let size = self.active.header.size.min(self.active.end() + reserve(self.active.header.size));
            self.file.truncate(size).map_err(|cause| cannot(&cause))?;
        }
        self.file.sync().map_err(|cause| cannot(&cause))?;
        let next = self.next_header().number;
        let lock = match self.helper.take().map(Arc::try_unwrap) {
            Some(Ok(helper)) => Some(helper.finish()),
            // A sync job that somebody keeps has it: the thread ends with that.
            Some(Err(_)) | None => None,
        };
        let storage = &*shared.storage;
        // Made ahead, and not needed any more.
        let _ = storage.remove(&segment_name(next));
        let durable = shared.durable.load(Ordering::Acquire);
        // Derived, as indexes are: all is durable without it.
        let _ = Checkpoint { id: shared.id, durable, incarnation: shared.incarnation }.write(storage);
        self.active.file.release();
        drop(lock);
        Ok(())
    }

    fn append_part(&mut self, frame: &mut FrameBuilder, time: u64) -> Result<(), WriteError> {
        self.shared.sound()?;
        self.write(FrameKind::Data, frame, time)
    }

    /// Says in `frame` that offsets of a partition below `reserved` may be issued: to be synced before one is. After a
    /// crash the partition goes on there, so that no offset ever names two records.
    pub fn reserve(&self, frame: &mut FrameBuilder, partition: PartitionId, reserved: u64) {
        let extent = self.state.extent(partition).unwrap_or_default();
        frame.extent(partition, Extent { reserved: reserved.max(extent.reserved), ..extent });
    }
}

/// Whether a payload has records; a damaged one has none.
fn has_records(payload: &[u8]) -> bool {
    known_entries(payload).any(|entry| matches!(entry, Ok(Entry::Run(_))))
}
