//! All frames of a journal in the order in which they were written, whoever has it open. What the tools are built on.

use super::error::{DiskError, ReplayError};
use super::file_names::segment_name;
use super::files::Files;
use super::format::{FRAME_HEADER, FrameHeader, FrameKind, JournalId, Malformed, SEGMENT_HEAD, SegmentHeader};
use super::options::Options;
use super::segment::{Segment, SegmentReport};
use super::storage::{File, Storage};
use super::survey::Survey;
use super::window::{Window, unpack_frame};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

/// Goes from frame to frame; writes nothing and takes no lock.
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
    /// Those that are still to come.
    left: VecDeque<Arc<Segment>>,
    now: Option<Arc<Segment>>,
    at: u64,
    /// The checksum of the frame before, where it is known.
    previous: Option<u32>,
    window: Window,
    follow: bool,
    /// Gap frames and lost segments that were passed over: position, segment.
    passed: Vec<(u64, u64)>,
}

/// A frame, and what it carries.
#[derive(Debug)]
#[non_exhaustive]
pub struct Payload<'f> {
    /// The head.
    pub header: FrameHeader,
    /// The segment's number.
    pub segment: u64,
    /// The place in its file.
    pub at: u64,
    /// The entries, unpacked: see [`entries`](super::format::entries).
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
    /// All frames that were found.
    pub fn frames(&self, storage: Arc<dyn Storage>) -> Frames {
        Frames {
            files: Files::new(storage),
            id: self.id,
            left: self.segments.iter().cloned().collect(),
            now: None,
            at: 0,
            previous: None,
            window: Window::new(&Options::default()),
            follow: false,
            passed: Vec::new(),
        }
    }
}

impl Frames {
    /// Leaves segments out, and begins anew behind them.
    pub fn only(mut self, wanted: impl Fn(&SegmentReport) -> bool) -> Self {
        self.left.retain(|segment| segment.header.lost || wanted(&segment.report(false)));
        self
    }

    /// Goes on with what is written after the journal was looked at, too: [`next`](Self::next) gives none while there is
    /// nothing, and may be called again.
    pub fn follow(mut self) -> Self {
        self.follow = true;
        self
    }

    /// Bytes of segments that are still to be read, as far as they are known.
    pub fn left(&self) -> u64 {
        let now = self.now.as_ref().map_or(0, |now| now.end().saturating_sub(self.at));
        now + self.left.iter().map(|segment| segment.end() - SEGMENT_HEAD).sum::<u64>()
    }

    /// Gap frames and lost segments that were passed over since the last call: position and segment of each.
    pub(super) fn take_passed(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.passed)
    }

    /// The next frame. Where a repair left a gap the next one behind it: which records are missing there, the journal's state
    /// says, see [`gaps`](super::gaps()).
    ///
    /// # Errors
    /// A frame is damaged, or the disk fails.
    #[expect(clippy::should_implement_trait, reason = "lends: the payload borrows from the window")]
    pub fn next(&mut self) -> Result<Option<Payload<'_>>, ReplayError> {
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
        let damaged = |at, what| ReplayError::Damaged { segment: segment.header.number, at, what };
        let at = self.at;
        let limit = segment.end();
        let found = self.window.frame(&self.id, segment.header.first, &segment.file, at, limit);
        let frame = found.map_err(|cause| segment.disk_error("read", &cause))?.map_err(|what| damaged(at, what))?;
        let header = frame.header;
        if self.previous.is_some_and(|previous| previous != header.previous) {
            return Err(damaged(at, Malformed::Chain));
        }
        self.at += header.span();
        self.previous = Some(frame.checksum);
        let plain = unpack_frame(&header, frame.stored).map_err(|what| damaged(at, what))?;
        Ok(Some(Payload { header, segment: segment.header.number, at, plain }))
    }

    /// Goes to the next segment.
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
        self.window.reset();
        self.at = SEGMENT_HEAD;
        if next.header.lost {
            (self.at, self.previous) = (next.end(), None);
            self.passed.push((next.header.first, next.header.number));
        }
        self.now = Some(next);
        Ok(true)
    }

    /// Goes on behind a gap frame, if one stands here.
    fn pass_gap(&mut self, now: &Segment) -> Result<bool, ReplayError> {
        let (at, limit) = (self.at, now.end());
        let head = self.window.bytes(&now.file, at, FRAME_HEADER, limit);
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

    /// Whether the last segment has another frame by now.
    fn grown(&mut self, now: &Segment) -> Result<bool, ReplayError> {
        let failed = |cause| now.disk_error("read", &cause);
        let limit = now.file.size().map_err(failed)?.min(now.header.size);
        self.window.reset();
        let found = self.window.frame(&self.id, now.header.first, &now.file, self.at, limit).map_err(failed)?;
        let Ok(frame) = found else { return Ok(false) };
        if self.previous.is_some_and(|previous| previous != frame.header.previous) {
            return Ok(false);
        }
        now.set_end(self.at + frame.header.span());
        Ok(true)
    }

    /// The segment behind the last one, once its first frame stands in it.
    fn new_segment(&mut self) -> Result<Option<Arc<Segment>>, ReplayError> {
        let Some(now) = self.now.clone() else { return Ok(None) };
        let name = segment_name(now.header.number + 1);
        let file = self.files.file(now.header.number + 1);
        if file.hold().is_err() {
            return Ok(None);
        }
        let mut head = [0; 64];
        let read = file.read_at(&mut head, 0).map_err(|cause| DiskError::new("read", &name, &cause))?;
        let Ok(header) = SegmentHeader::decode(&head[..read]) else { return Ok(None) };
        if header.id != self.id || header.number != now.header.number + 1 {
            return Ok(None);
        }
        // Made ahead, it has no frames. When it has one, the segment before is final; the caller has read that to its end
        // before this frame was there, or finds more at its next look.
        let mut first = [0; 64];
        let read = file.read_at(&mut first, SEGMENT_HEAD).map_err(|cause| DiskError::new("read", &name, &cause))?;
        let Ok((frame, _)) = FrameHeader::decode(&self.id, header.first + SEGMENT_HEAD, &first[..read]) else {
            return Ok(None);
        };
        let follows = self.previous.is_none_or(|previous| previous == frame.previous);
        file.release();
        Ok(follows.then(|| Arc::new(Segment::new(header, file))))
    }
}
