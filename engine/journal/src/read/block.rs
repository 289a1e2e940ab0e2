//! A block: valid frames of one segment in memory, with the places of each partition's records.

use crate::error::{DiskError, ReplayError};
use crate::files::read_ahead::decompress_frame;
use crate::format::{Entry, FRAME_HEADER, FrameHeader, FrameKind, JournalId, Malformed, PartitionId, trusted_entries};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::storage::File;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// The largest single read in bytes, unless one frame is larger. A block of this size fits into a core's private cache.
pub(crate) const MAX_READ: u64 = 256 << 10;

/// The smallest read in bytes if several partitions share the scan: records of the next partition may be close.
const MIN_SHARED_READ: u64 = 32 << 10;

/// Memory in bytes that a block may keep after it held larger frames.
const MAX_KEPT: usize = 4 << 20;

/// Consecutive frames of one segment, read by one call and each checked once.
#[derive(Default)]
pub(crate) struct Block {
    segment: Option<Arc<Segment>>,
    /// `begin` is the first frame's offset in the file, `end` the offset at which the last frame ends, both in bytes.
    begin: u64,
    end: u64,
    /// The checksum of the last frame, which the next frame must state; `None` after a gap.
    last: Option<u32>,
    /// `read` bytes of the file from `begin` on, followed by decompressed payloads.
    bytes: Vec<u8>,
    read: usize,
    /// The runs, ordered by partition, and within a partition by offset.
    runs: Vec<(PartitionId, PendingRun)>,
    /// The number of the last load into the block; 0 before the first one. [`clear`](Self::clear) keeps it. No two
    /// loads of a scan have one number.
    pub made: u64,
    /// Count of cursors that take records from the block and for which the scan waits.
    pub readers: usize,
}

/// The records of a run that a cursor has not taken yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PendingRun {
    /// Offset of the run's frame in the segment file, in bytes.
    pub frame: u64,
    pub at: usize,
    pub end: usize,
    pub fixed: Option<u32>,
    pub timed: bool,
    pub next: u64,
    pub count: u32,
    /// The time of the frame, in nanoseconds since the epoch.
    pub time: u64,
}

/// The place of a record's bytes in the block's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordSpan {
    pub begin: usize,
    pub end: usize,
    /// The record's own time, or else its frame's, in nanoseconds since the epoch.
    pub time: u64,
}

/// A place in a segment's file. Places are ordered as they follow one another in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FilePlace {
    /// The segment's number.
    pub segment: u64,
    /// The offset in the file, in bytes.
    pub at: u64,
    /// The generation of the file. In another one the offset means nothing.
    pub generation: u32,
}

impl FilePlace {
    pub fn in_segment(segment: &Segment, at: u64) -> Self {
        Self { segment: segment.header.number, at, generation: segment.generation }
    }
}

/// A request to read a part of a segment.
pub(crate) struct LoadRequest<'w> {
    pub segment: &'w Arc<Segment>,
    pub at: u64,
    /// Offset in the file at which the stretch with the cursor's records ends, in bytes: it needs none from there on.
    pub until: u64,
    /// Offset in the file up to which frames are visible, and may be read.
    pub limit: u64,
    /// The partitions whose runs are noted, in ascending order.
    pub partitions: &'w [PartitionId],
}

impl Block {
    /// True if the block holds the frame at offset `at` of this segment.
    pub fn covers(&self, segment: &Arc<Segment>, at: u64) -> bool {
        (self.begin..self.end).contains(&at) && self.is_of(segment)
    }

    /// True if the frame at offset `at` of this segment directly follows the block's last frame.
    pub fn leads_to(&self, segment: &Arc<Segment>, at: u64) -> bool {
        self.end == at && self.is_of(segment)
    }

    /// True if the frames are those of this segment, and of the same file: a compaction replaces both.
    fn is_of(&self, segment: &Arc<Segment>) -> bool {
        self.segment.as_ref().is_some_and(|own| Arc::ptr_eq(own, segment))
    }

    /// The journal position of the first frame, in bytes; 0 if the block is empty.
    pub fn position(&self) -> u64 {
        self.segment.as_ref().map_or(0, |segment| segment.position(self.begin))
    }

    /// Where the next block begins; `None` if the block is empty.
    pub fn after(&self) -> Option<FilePlace> {
        Some(FilePlace::in_segment(self.segment.as_ref()?, self.end))
    }

    /// The memory that runs and record spans refer to.
    #[inline(always)]
    pub fn held(&self) -> &[u8] {
        &self.bytes
    }

    /// The indexes of a partition's runs in `runs`.
    pub fn runs_of(&self, partition: PartitionId) -> Range<usize> {
        let begin = self.runs.partition_point(|(of, _)| *of < partition);
        let end = self.runs.partition_point(|(of, _)| *of <= partition);
        begin..end
    }

    pub fn run(&self, index: usize) -> PendingRun {
        self.runs[index].1
    }

    /// The bytes that were read beyond the last frame, and the checksum that the next frame must state, if any.
    pub fn rest(&self) -> (&[u8], Option<u32>) {
        let end = usize::try_from(self.end - self.begin).unwrap_or(usize::MAX);
        (self.bytes.get(end..self.read).unwrap_or(&[]), self.last)
    }

    /// Empties the block and frees its memory.
    pub fn clear(&mut self) {
        *self = Self { made: self.made, ..Self::default() };
    }

    /// Fills the block with one or more frames from `wanted.at` on. `rest` holds the [`rest`](Self::rest) of another
    /// block that already read the first of these bytes; `None` if no other block did. After an error the block must be
    /// cleared.
    ///
    /// # Errors
    /// The first frame is damaged, or the disk fails.
    pub fn load(
        &mut self,
        shared: &Shared,
        wanted: &LoadRequest<'_>,
        rest: Option<(&[u8], Option<u32>)>,
    ) -> Result<(), ReplayError> {
        let LoadRequest { segment, at, until, limit, partitions } = *wanted;
        let number = segment.header.number;
        let (kept, previous) = match rest {
            Some((rest, previous)) => {
                if self.bytes.len() < rest.len() {
                    self.bytes.resize(rest.len(), 0);
                }
                self.bytes[..rest.len()].copy_from_slice(rest);
                (rest.len(), previous)
            }
            None if self.leads_to(segment, at) => {
                let (begin, previous) = (usize::try_from(self.end - self.begin).unwrap_or(usize::MAX), self.last);
                let kept = self.read.saturating_sub(begin);
                if kept > 0 {
                    self.bytes.copy_within(begin..self.read, 0);
                }
                (kept, previous)
            }
            None => (0, None),
        };
        (self.segment, self.begin, self.end, self.last, self.read) = (None, at, at, None, kept);
        self.runs.clear();
        let least = if partitions.len() > 1 { MIN_SHARED_READ } else { FRAME_HEADER as u64 };
        self.fill((until.min(limit) - at).clamp(least.min(limit - at), MAX_READ) as usize, segment)?;
        let sabotage = shared.options.sabotage();
        let mut frames =
            FrameParser { id: &shared.id, segment, limit, previous, lenient: sabotage.accept_bad_checksums };
        let mut unpacked = 0;
        while let Some((header, checksum)) = frames.next(self)? {
            let place = self.end;
            if header.kind == FrameKind::Data
                && let Err(what) = self.note(&header, &mut unpacked, partitions)
            {
                if place > at {
                    break;
                }
                return Err(ReplayError::Damaged { segment: number, at, what, next: None });
            }
            self.end += header.span();
            frames.previous = (header.kind != FrameKind::Gap).then_some(checksum);
            if unpacked as u64 >= MAX_READ {
                break;
            }
        }
        self.last = frames.previous;
        self.segment = Some(Arc::clone(segment));
        // The sort is stable: a frame may have several runs of a partition, whose order must stay.
        if partitions.len() > 1 {
            self.runs.sort_by_key(|(partition, _)| *partition);
        }
        Ok(())
    }

    /// Notes the runs of `partitions` in the frame that begins at `self.end`.
    fn note(
        &mut self,
        header: &FrameHeader,
        unpacked: &mut usize,
        partitions: &[PartitionId],
    ) -> Result<(), Malformed> {
        let body = (self.end - self.begin) as usize + FRAME_HEADER;
        let plain = decompress_frame(header, &self.bytes[body..body + header.stored as usize])?;
        let base = if matches!(plain, Cow::Owned(_)) { self.read + *unpacked } else { body };
        let before = self.runs.len();
        for entry in trusted_entries(&plain) {
            let run = match entry {
                Ok(Entry::Run(run)) => run,
                Ok(_) => continue,
                Err(what) => {
                    self.runs.truncate(before);
                    return Err(what);
                }
            };
            let is_wanted = match partitions {
                [one] => *one == run.partition,
                many => many.binary_search(&run.partition).is_ok(),
            };
            if is_wanted {
                let (bytes, (fixed, timed)) = run.shape();
                let at = base + (bytes.as_ptr() as usize - plain.as_ptr() as usize);
                let (next, count, time) = (run.first, run.count, header.time);
                let end = at + bytes.len();
                self.runs
                    .push((run.partition, PendingRun { frame: self.end, at, end, fixed, timed, next, count, time }));
            }
        }
        if let Cow::Owned(plain) = plain {
            self.bytes.truncate(self.read + *unpacked);
            *unpacked += plain.len();
            self.bytes.extend_from_slice(&plain);
        }
        Ok(())
    }

    /// Reads until the block holds `want` bytes, or the file ends.
    fn fill(&mut self, want: usize, segment: &Segment) -> Result<(), DiskError> {
        if self.bytes.len() > MAX_KEPT && want <= MAX_KEPT {
            self.bytes.truncate(MAX_KEPT.max(self.read));
            self.bytes.shrink_to_fit();
        }
        if self.bytes.len() < want {
            self.bytes.resize(want, 0);
        }
        if self.read < want {
            let read = segment.file.read_at(&mut self.bytes[self.read..want], self.begin + self.read as u64);
            self.read += read.map_err(|cause| segment.disk_error("read", &cause))?;
        }
        Ok(())
    }
}

/// Parses frames while a block is being filled.
struct FrameParser<'f> {
    id: &'f JournalId,
    segment: &'f Segment,
    limit: u64,
    previous: Option<u32>,
    /// True under the fault `accept_bad_checksums`: payloads with a wrong checksum are accepted.
    lenient: bool,
}

impl FrameParser<'_> {
    /// Parses the frame at the end of `block`. The block's first frame is read completely, and damage in it is an
    /// error. For a later frame that is incomplete or damaged the result is `None`: the block that begins with that
    /// frame will report the damage.
    fn next(&mut self, block: &mut Block) -> Result<Option<(FrameHeader, u32)>, ReplayError> {
        let (at, is_first) = (block.end, block.end == block.begin);
        if at >= self.limit {
            return Ok(None);
        }
        let begin = usize::try_from(at - block.begin).unwrap_or(usize::MAX);
        let outcome = loop {
            let there = block.bytes.get(begin..block.read).unwrap_or(&[]);
            let needed = match self.check(there, at) {
                Ok(Ok(found)) => break Ok(found),
                Ok(Err(needed)) => needed,
                Err(what) => break Err(what),
            };
            if !is_first {
                return Ok(None);
            }
            let before = block.read;
            if self.limit - at < needed as u64 {
                break Err(if before < FRAME_HEADER { Malformed::Truncated } else { Malformed::Length });
            }
            block.fill(needed, self.segment)?;
            if block.read < needed {
                break Err(if block.read < FRAME_HEADER { Malformed::Truncated } else { Malformed::Length });
            }
        };
        match outcome {
            Ok(found) => Ok(Some(found)),
            Err(_) if !is_first => Ok(None),
            Err(what) => Err(ReplayError::Damaged { segment: self.segment.header.number, at, what, next: None }),
        }
    }

    /// Checks the frame at the beginning of `bytes`. The inner error: the frame needs this many bytes.
    fn check(&self, bytes: &[u8], at: u64) -> Result<Result<(FrameHeader, u32), usize>, Malformed> {
        let Some(head) = bytes.get(..FRAME_HEADER) else { return Ok(Err(FRAME_HEADER)) };
        let (header, checksum) = FrameHeader::decode(self.id, self.segment.position(at), head)?;
        if self.previous.is_some_and(|previous| previous != header.previous) {
            return Err(Malformed::Chain);
        }
        if header.kind == FrameKind::Gap {
            return Ok(Ok((header, checksum)));
        }
        let whole = FRAME_HEADER + header.stored as usize;
        let Some(stored) = bytes.get(FRAME_HEADER..whole) else { return Ok(Err(whole)) };
        if !header.payload_matches(stored) && !self.lenient {
            return Err(Malformed::PayloadChecksum);
        }
        Ok(Ok((header, checksum)))
    }
}

impl PendingRun {
    /// The place of the next record's bytes in `held`; `None` if the run is shorter than it states.
    #[inline(always)]
    pub fn next_record(&self, held: &[u8]) -> Option<RecordSpan> {
        let mut left = held.get(self.at..self.end)?;
        let mut time = self.time;
        if self.timed {
            let (own, rest) = left.split_first_chunk()?;
            (time, left) = (u64::from_le_bytes(*own), rest);
        }
        let len = match self.fixed {
            Some(size) => size,
            None => {
                let (len, rest) = left.split_first_chunk()?;
                left = rest;
                u32::from_le_bytes(*len)
            }
        };
        let begin = self.end - left.len();
        let end = begin.checked_add(len as usize).filter(|end| *end <= self.end)?;
        Some(RecordSpan { begin, end, time })
    }

    /// Removes the first record, whose place is `found`.
    #[inline(always)]
    pub fn pass(&mut self, found: RecordSpan) {
        (self.at, self.next, self.count) = (found.end, self.next + 1, self.count - 1);
    }

    /// The offset after the run's last record.
    pub fn last(&self) -> u64 {
        self.next + u64::from(self.count)
    }
}
