//! An iterator over all frames of a journal in write order. The command `slipring` uses it.

use crate::error::{DiskError, ReplayError};
use crate::files::descriptors::Files;
use crate::files::names::segment_name;
use crate::files::read_ahead::{ReadAhead, decompress_frame};
use crate::files::read_header::{frame_header, segment_header};
use crate::format::{FRAME_HEADER, FrameHeader, FrameKind, JournalId, Malformed, SEGMENT_HEAD, SegmentHeader};
use crate::options::Options;
use crate::segment::{Segment, SegmentReport};
use crate::storage::{File, Storage};
use crate::survey::Survey;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

/// Iterates over the frames of a journal. It writes no file and takes no lock.
///
/// ```
/// use slipring_journal::format::{Entry, entries};
/// use slipring_journal::{FrameBuilder, Options, PartitionId, inspect, open, simulated::SimulatedDisk};
/// use std::sync::Arc;
///
/// let disk = SimulatedDisk::new();
/// let (mut writer, _) = open(Arc::new(disk.clone()), Options::default())?;
/// let mut frame = FrameBuilder::new();
/// frame.record(PartitionId { topic: 1, partition: 0 }, 0, None, b"first");
/// writer.append(&mut frame, 1_700_000_000_000_000_000)?;
///
/// let survey = inspect(Arc::new(disk.clone()), false)?;
/// let mut frames = survey.frames(Arc::new(disk));
/// let mut records = 0;
/// while let Some(frame) = frames.next()? {
///     records += entries(&frame.plain).filter(|entry| matches!(entry, Ok(Entry::Run(_)))).count();
/// }
/// assert_eq!(records, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Frames {
    files: Arc<Files>,
    id: JournalId,
    /// The segments that have not been read yet.
    left: VecDeque<Arc<Segment>>,
    now: Option<Arc<Segment>>,
    at: u64,
    /// The checksum of the last frame; `None` where the chain restarts.
    previous: Option<u32>,
    read_ahead: ReadAhead,
    follow: bool,
    /// Position and segment number of each gap frame and lost segment since the last call of `take_passed`.
    passed: Vec<(u64, u64)>,
}

/// A frame with its decompressed payload.
#[derive(Debug)]
#[non_exhaustive]
pub struct UnpackedFrame<'f> {
    /// The frame's header.
    pub header: FrameHeader,
    /// The segment's number.
    pub segment: u64,
    /// Offset of the frame in the segment file, in bytes.
    pub at: u64,
    /// The decompressed payload, whose entries [`entries`](crate::format::entries) decodes.
    pub plain: Cow<'f, [u8]>,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Frames({:?} at {}, {} segments more)",
            self.now.as_ref().map(|now| &now.name),
            self.at,
            self.left.len()
        )
    }
}

impl Survey {
    /// An iterator over all frames that the survey found.
    pub fn frames(&self, storage: Arc<dyn Storage>) -> Frames {
        Frames {
            files: Files::new(storage),
            id: self.id,
            left: self.segments.iter().cloned().collect(),
            now: None,
            at: 0,
            previous: None,
            read_ahead: ReadAhead::new(&Options::default()),
            follow: false,
            passed: Vec::new(),
        }
    }
}

impl Frames {
    /// Skips the segments for which `wanted` returns false. It is not called for segments that stand for lost ones.
    pub fn only(mut self, wanted: impl Fn(&SegmentReport) -> bool) -> Self {
        self.left.retain(|segment| segment.header.lost || wanted(&segment.report(false)));
        self
    }

    /// Continues with frames that are written after the survey. [`next`](Self::next) returns `None` while there is no
    /// new frame, and may be called again.
    pub fn follow(mut self) -> Self {
        self.follow = true;
        self
    }

    /// Count of bytes of frames left to read, as far as their segments are known.
    pub fn left(&self) -> u64 {
        let now = self.now.as_ref().map_or(0, |now| now.end().saturating_sub(self.at));
        now + self.left.iter().map(|segment| segment.end() - SEGMENT_HEAD).sum::<u64>()
    }

    /// Takes the gap frames and lost segments that were skipped since the last call: position and segment number of
    /// each.
    pub(crate) fn take_passed(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.passed)
    }

    /// Returns the next frame. Skips a repair's gaps: [`gaps`](crate::gaps()) lists the records lost there. `None`
    /// after the last frame.
    ///
    /// # Errors
    /// A frame is damaged, or the disk fails.
    #[expect(clippy::should_implement_trait, reason = "lends: the payload borrows from the read_ahead")]
    pub fn next(&mut self) -> Result<Option<UnpackedFrame<'_>>, ReplayError> {
        let segment = loop {
            if let Some(now) = self.now.clone()
                && (self.at < now.end() || (self.follow && self.left.is_empty() && self.grown(&now)?))
            {
                if !self.pass_gap(&now)? {
                    break now;
                }
            } else if !self.step()? {
                return Ok(None);
            }
        };
        let damaged = |at, what| ReplayError::Damaged { segment: segment.header.number, at, what, next: None };
        let at = self.at;
        let limit = segment.end();
        let found = self.read_ahead.frame(&self.id, segment.header.first, &segment.file, at, limit);
        let frame = found.map_err(|cause| segment.disk_error("read", &cause))?.map_err(|what| damaged(at, what))?;
        let header = frame.header;
        if self.previous.is_some_and(|previous| previous != header.previous) {
            return Err(damaged(at, Malformed::Chain));
        }
        self.at += header.span();
        self.previous = Some(frame.checksum);
        let plain = decompress_frame(&header, frame.stored).map_err(|what| damaged(at, what))?;
        Ok(Some(UnpackedFrame { header, segment: segment.header.number, at, plain }))
    }

    /// Moves to the next segment. False if there is none.
    fn step(&mut self) -> Result<bool, ReplayError> {
        let next = match self.left.pop_front() {
            Some(next) => next,
            None if self.follow => match self.new_segment()? {
                Some(next) => next,
                None => return Ok(false),
            },
            None => return Ok(false),
        };
        let before = self.now.as_ref().map(|now| now.header.number);
        if before.is_some_and(|before| before + 1 != next.header.number) {
            self.previous = None;
        }
        self.read_ahead.reset();
        self.at = SEGMENT_HEAD;
        if let Some(before) = &self.now {
            before.file.release();
        }
        let next = if next.header.lost {
            (self.at, self.previous) = (next.end(), None);
            self.passed.push((next.header.first, next.header.number));
            next
        } else {
            self.present(next)?
        };
        self.now = Some(next);
        Ok(true)
    }

    /// The segment as it is now, with its file held open while it is read. It is another one than the survey found if the
    /// program that has the journal open has compacted it since: then the file ends with a closing mark.
    fn present(&self, segment: Arc<Segment>) -> Result<Arc<Segment>, ReplayError> {
        let failed = |cause| segment.disk_error("read", &cause);
        let SegmentHeader { number, first, size, .. } = segment.header;
        let file = segment.file.hold().map_err(failed)?;
        let ((at, checksum), end) = {
            let index = segment.index();
            (index.last, index.end)
        };
        let is_surveyed = |(found, known): (FrameHeader, u32)| known == checksum && at + found.span() == end;
        if at == 0 || frame_header(&*file, &self.id, first, at).map_err(failed)?.is_ok_and(is_surveyed) {
            return Ok(segment);
        }
        let (mut read_ahead, mut at, mut last) = (ReadAhead::new(&Options::default()), SEGMENT_HEAD, None);
        let limit = file.size().map_err(failed)?.min(size);
        while let Ok(frame) = read_ahead.frame(&self.id, first, &*file, at, limit).map_err(failed)? {
            at += frame.header.span();
            last = Some(frame.header);
        }
        if last.is_none_or(|last| last.kind != FrameKind::Mark || last.durable != first + size) {
            // It was not compacted. Reading it tells what is wrong.
            return Ok(segment);
        }
        segment.file.release();
        let compacted = Segment::new(segment.header, self.files.file(number));
        compacted.file.hold_this(file);
        compacted.set_end(at);
        Ok(Arc::new(compacted))
    }

    /// Skips the gap frame at the present offset. False if no gap frame is there that continues the chain.
    fn pass_gap(&mut self, now: &Segment) -> Result<bool, ReplayError> {
        let (at, limit) = (self.at, now.end());
        let head = self.read_ahead.bytes(&now.file, at, FRAME_HEADER, limit);
        let head = head.map_err(|cause| now.disk_error("read", &cause))?;
        let Ok((header, _)) = FrameHeader::decode(&self.id, now.header.first + at, head) else { return Ok(false) };
        let follows = self.previous.is_none_or(|previous| previous == header.previous);
        if header.kind != FrameKind::Gap || !follows {
            return Ok(false);
        }
        self.at += header.span();
        self.previous = None;
        self.passed.push((header.position, now.header.number));
        Ok(true)
    }

    /// If another frame was written to the last segment since it was read, extends the segment's end by that frame and
    /// returns true.
    fn grown(&mut self, now: &Segment) -> Result<bool, ReplayError> {
        let failed = |cause| now.disk_error("read", &cause);
        let limit = now.file.size().map_err(failed)?.min(now.header.size);
        self.read_ahead.reset();
        let found = self.read_ahead.frame(&self.id, now.header.first, &now.file, self.at, limit).map_err(failed)?;
        let Ok(frame) = found else { return Ok(false) };
        if self.previous.is_some_and(|previous| previous != frame.header.previous) {
            return Ok(false);
        }
        now.set_end(self.at + frame.header.span());
        Ok(true)
    }

    /// The segment after the last one, if it has a frame already; otherwise `None`.
    fn new_segment(&mut self) -> Result<Option<Arc<Segment>>, ReplayError> {
        let Some(now) = self.now.clone() else { return Ok(None) };
        let name = segment_name(now.header.number + 1);
        let file = self.files.file(now.header.number + 1);
        if file.hold().is_err() {
            return Ok(None);
        }
        let failed = |cause| DiskError::new("read", &name, &cause);
        let Ok(header) = segment_header(&file).map_err(failed)? else { return Ok(None) };
        if header.id != self.id || header.number != now.header.number + 1 {
            return Ok(None);
        }
        // A segment that was created ahead has no frames. Once it has one, the segment before it is complete. If that
        // segment still has frames to read, this one does not follow the last frame read: `None`, and the next call of
        // [`next`](Self::next) reads them first.
        let first = frame_header(&file, &self.id, header.first, SEGMENT_HEAD).map_err(failed)?;
        let Ok((frame, _)) = first else { return Ok(None) };
        let follows = self.previous.is_none_or(|previous| previous == frame.previous);
        file.release();
        Ok(follows.then(|| Arc::new(Segment::new(header, file))))
    }
}
