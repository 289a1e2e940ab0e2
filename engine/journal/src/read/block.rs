//! A block: valid frames of one segment in memory, and where in it the records of each partition stand.

use crate::error::{DiskError, ReplayError};
use crate::files::read_ahead::decompress_frame;
use crate::format::{Entry, FRAME_HEADER, FrameHeader, FrameKind, JournalId, Malformed, PartitionId, trusted_entries};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::storage::File;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// The most bytes that are read at once, unless one frame is larger. A block of this size fits into a core's own cache.
pub(crate) const MAX_READ: u64 = 256 << 10;

/// The fewest bytes that are read at once for several partitions: records of the next partition may stand close by.
const MIN_SHARED_READ: u64 = 32 << 10;

/// The most bytes of memory that a block keeps after it held larger frames.
const MAX_KEPT: usize = 4 << 20;

/// Consecutive frames, read with one call and each checked once.
#[derive(Default)]
pub(crate) struct Block {
    segment: Option<Arc<Segment>>,
    /// Where the first frame begins in the file, and where the last one ends.
    begin: u64,
    end: u64,
    /// The checksum of the last frame, which the next frame must state; none behind a gap.
    last: Option<u32>,
    /// The bytes of the file from `begin` on, `read` of them, and behind them the payloads that were decompressed.
    bytes: Vec<u8>,
    read: usize,
    /// Ordered by partition, and within a partition by offset.
    runs: Vec<(PartitionId, PendingRun)>,
    /// The number of the load that filled the block; 0 if it is empty. No two loads have the same number.
    pub made: u64,
    /// Count of cursors that take records out of the block and are waited for.
    pub readers: usize,
}

/// The records of a run that a cursor has not taken yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PendingRun {
    /// Where the run's frame begins in the segment file.
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

/// Where a record's bytes stand in the block's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordSpan {
    pub begin: usize,
    pub end: usize,
    /// The record's own time, or that of its frame: nanoseconds since the epoch.
    pub time: u64,
}

/// What is to be read of a segment.
pub(crate) struct LoadRequest<'w> {
    pub segment: &'w Arc<Segment>,
    pub at: u64,
    /// The end of the stretch that the cursor needs: it needs nothing behind it.
    pub until: u64,
    /// The end of what may be read: frames behind it are not visible yet.
    pub limit: u64,
    /// The partitions whose runs are noted, in ascending order.
    pub partitions: &'w [PartitionId],
}

impl Block {
    /// True if the block holds the frame at byte `at` of a segment.
    pub fn covers(&self, segment: u64, at: u64) -> bool {
        (self.begin..self.end).contains(&at) && self.number() == Some(segment)
    }

    /// True if the frame at byte `at` of a segment follows the last frame of the block.
    pub fn leads_to(&self, segment: u64, at: u64) -> bool {
        self.end == at && self.number() == Some(segment)
    }

    fn number(&self) -> Option<u64> {
        self.segment.as_ref().map(|segment| segment.header.number)
    }

    /// The journal position of the first frame.
    pub fn position(&self) -> u64 {
        self.segment.as_ref().map_or(0, |segment| segment.position(self.begin))
    }

    /// The segment, and the byte in it at which the next block begins.
    pub fn after(&self) -> Option<(u64, u64)> {
        Some((self.number()?, self.end))
    }

    /// The memory that runs and records refer to.
    #[inline(always)]
    pub fn held(&self) -> &[u8] {
        &self.bytes
    }

    /// The indexes of a partition's runs.
    pub fn runs_of(&self, partition: PartitionId) -> Range<usize> {
        let begin = self.runs.partition_point(|(of, _)| *of < partition);
        let end = self.runs.partition_point(|(of, _)| *of <= partition);
        begin..end
    }

    pub fn run(&self, index: usize) -> PendingRun {
        self.runs[index].1
    }

    /// The bytes that were read behind the last frame, and the checksum that the next frame must state.
    pub fn rest(&self) -> (&[u8], Option<u32>) {
        let end = usize::try_from(self.end - self.begin).unwrap_or(usize::MAX);
        (self.bytes.get(end..self.read).unwrap_or(&[]), self.last)
    }

    /// Frees the memory.
    pub fn clear(&mut self) {
        *self = Self { made: self.made, ..Self::default() };
    }

    /// Fills the block with frames from `wanted.at` on, one at least. `rest` is what another block has read of them already;
    /// none if this block has. After an error the block must be cleared.
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
            None if self.leads_to(number, at) => {
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
                return Err(ReplayError::Damaged { segment: number, at, what });
            }
            self.end += header.span();
            frames.previous = (header.kind != FrameKind::Gap).then_some(checksum);
            if unpacked as u64 >= MAX_READ {
                break;
            }
        }
        self.last = frames.previous;
        self.segment = Some(Arc::clone(segment));
        // The sort is stable: a frame may have several runs of a partition, and their order stays.
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

    /// Reads until the block has `want` bytes, or the file ends.
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

/// Parses the frames of a block that is being filled.
struct FrameParser<'f> {
    id: &'f JournalId,
    segment: &'f Segment,
    limit: u64,
    previous: Option<u32>,
    /// True under the fault `accept_bad_checksums`: a payload passes whatever its checksum is.
    lenient: bool,
}

impl FrameParser<'_> {
    /// The frame at the end of `block`. The first frame of the block is read whole and its damage is an error. Of a later
    /// frame that is not whole or is damaged it returns none: the block that begins with that frame reports the damage.
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
            Err(what) => Err(ReplayError::Damaged { segment: self.segment.header.number, at, what }),
        }
    }

    /// The frame that `bytes` begin with. The inner error: how many bytes of it are needed.
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
    /// Where the next record's bytes stand in `held`; none if the run is shorter than it states.
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

    /// Removes the first record, which stands at `found`.
    #[inline(always)]
    pub fn pass(&mut self, found: RecordSpan) {
        (self.at, self.next, self.count) = (found.end, self.next + 1, self.count - 1);
    }

    /// The offset after the last record.
    pub fn last(&self) -> u64 {
        self.next + u64::from(self.count)
    }
}
