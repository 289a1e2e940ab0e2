//! Whole frames of a segment in memory, and where in them the records of which partitions stand.

use super::error::{DiskError, ReplayError};
use super::format::{Entry, FRAME_HEADER, FrameHeader, FrameKind, JournalId, Malformed, PartitionId, known_entries};
use super::segment::Segment;
use super::shared::Shared;
use super::storage::File;
use super::window::unpack_frame;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// What is read at once, unless one frame is larger. All of it stays in a core's own cache.
pub(super) const CHUNK: u64 = 256 << 10;

/// What is read at least where several partitions are: the next one's records may stand close by.
const NEARBY: u64 = 32 << 10;

/// No more than this stays taken for a block whose frames were larger.
const KEPT: usize = 4 << 20;

/// Frames that follow one another, all read by one call and each checked once.
#[derive(Default)]
pub(super) struct Block {
    segment: Option<Arc<Segment>>,
    /// Where in the file its first frame stands, and where its last one ends.
    begin: u64,
    end: u64,
    /// The checksum of the last frame, where the next one must know it.
    last: Option<u32>,
    /// The file from `begin` on, `read` bytes of it, and behind that the payloads that were packed.
    bytes: Vec<u8>,
    read: usize,
    /// By partition, and in order.
    runs: Vec<(PartitionId, Pending)>,
    /// The number of its loading; none before it, and no two the same.
    pub made: u64,
    /// Cursors that are taking records out of it, and are waited for.
    pub readers: usize,
}

/// Records that are still to be given: where they stand, and what is known of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    /// Where its frame stands in the segment.
    pub frame: u64,
    pub at: usize,
    pub end: usize,
    pub fixed: Option<u32>,
    pub timed: bool,
    pub next: u64,
    pub count: u32,
    /// The frame's.
    pub time: u64,
}

/// A record in what is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub begin: usize,
    pub end: usize,
    /// Its own time, or that of the frame.
    pub time: u64,
}

/// What is to be read of a segment.
pub(super) struct Wanted<'w> {
    pub segment: &'w Arc<Segment>,
    pub at: u64,
    /// The one that asks needs nothing behind it.
    pub until: u64,
    /// Nothing behind it may be seen yet.
    pub limit: u64,
    /// In order.
    pub partitions: &'w [PartitionId],
}

impl Block {
    /// Whether the frame at `at` of a segment is among its own.
    pub fn covers(&self, segment: u64, at: u64) -> bool {
        (self.begin..self.end).contains(&at) && self.number() == Some(segment)
    }

    /// Whether what it has read goes on with the frame at `at`.
    pub fn leads_to(&self, segment: u64, at: u64) -> bool {
        self.end == at && self.number() == Some(segment)
    }

    fn number(&self) -> Option<u64> {
        self.segment.as_ref().map(|segment| segment.header.number)
    }

    /// The journal's position of its first frame.
    pub fn position(&self) -> u64 {
        self.segment.as_ref().map_or(0, |segment| segment.position(self.begin))
    }

    /// The segment, and where in it the next block begins.
    pub fn after(&self) -> Option<(u64, u64)> {
        Some((self.number()?, self.end))
    }

    /// What runs lie in.
    #[inline(always)]
    pub fn held(&self) -> &[u8] {
        &self.bytes
    }

    /// A partition's runs.
    pub fn runs_of(&self, partition: PartitionId) -> Range<usize> {
        let begin = self.runs.partition_point(|(of, _)| *of < partition);
        let end = self.runs.partition_point(|(of, _)| *of <= partition);
        begin..end
    }

    pub fn run(&self, index: usize) -> Pending {
        self.runs[index].1
    }

    /// What was read of the frame behind its last one, and the checksum that that one must know.
    pub fn rest(&self) -> (&[u8], Option<u32>) {
        let end = usize::try_from(self.end - self.begin).unwrap_or(usize::MAX);
        (self.bytes.get(end..self.read).unwrap_or(&[]), self.last)
    }

    /// Gives its memory back.
    pub fn clear(&mut self) {
        *self = Self { made: self.made, ..Self::default() };
    }

    /// Reads anew: at least the frame at `wanted.at`. `rest` is what another block has read of that; none if this one
    /// leads there. After an error it is empty.
    ///
    /// # Errors
    /// That frame is damaged, or the disk fails.
    pub fn load(
        &mut self,
        shared: &Shared,
        wanted: &Wanted<'_>,
        rest: Option<(&[u8], Option<u32>)>,
    ) -> Result<(), ReplayError> {
        let Wanted { segment, at, until, limit, partitions } = *wanted;
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
        let least = if partitions.len() > 1 { NEARBY } else { FRAME_HEADER as u64 };
        self.fill((until.min(limit) - at).clamp(least.min(limit - at), CHUNK) as usize, segment)?;
        let sabotage = shared.options.sabotage();
        let mut frames = Frames { id: &shared.id, segment, limit, previous, lenient: sabotage.accept_bad_checksums };
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
            if unpacked as u64 >= CHUNK {
                break;
            }
        }
        self.last = frames.previous;
        self.segment = Some(Arc::clone(segment));
        // Frames may have several runs of a partition: their order stays.
        if partitions.len() > 1 {
            self.runs.sort_by_key(|(partition, _)| *partition);
        }
        Ok(())
    }

    /// Notes where in the frame at `end` the records of `partitions` stand.
    fn note(
        &mut self,
        header: &FrameHeader,
        unpacked: &mut usize,
        partitions: &[PartitionId],
    ) -> Result<(), Malformed> {
        let body = (self.end - self.begin) as usize + FRAME_HEADER;
        let plain = unpack_frame(header, &self.bytes[body..body + header.stored as usize])?;
        let base = if matches!(plain, Cow::Owned(_)) { self.read + *unpacked } else { body };
        let before = self.runs.len();
        for entry in known_entries(&plain) {
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
                self.runs.push((run.partition, Pending { frame: self.end, at, end, fixed, timed, next, count, time }));
            }
        }
        if let Cow::Owned(plain) = plain {
            self.bytes.truncate(self.read + *unpacked);
            *unpacked += plain.len();
            self.bytes.extend_from_slice(&plain);
        }
        Ok(())
    }

    /// Has at least so many bytes from its beginning on, as far as the file has them.
    fn fill(&mut self, want: usize, segment: &Segment) -> Result<(), DiskError> {
        if self.bytes.len() > KEPT && want <= KEPT {
            self.bytes.truncate(KEPT.max(self.read));
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

/// Goes from frame to frame of a block that is being loaded.
struct Frames<'f> {
    id: &'f JournalId,
    segment: &'f Segment,
    limit: u64,
    previous: Option<u32>,
    /// A fault for tests: payloads pass whatever their checksum says.
    lenient: bool,
}

impl Frames<'_> {
    /// The frame at the end of `block`, if it is whole there; the first one is read whole. What is wrong with a later one is
    /// told by the block that begins with it.
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
                break Err(if before < FRAME_HEADER { Malformed::Short } else { Malformed::Length });
            }
            block.fill(needed, self.segment)?;
            if block.read < needed {
                break Err(if block.read < FRAME_HEADER { Malformed::Short } else { Malformed::Length });
            }
        };
        match outcome {
            Ok(found) => Ok(Some(found)),
            Err(_) if !is_first => Ok(None),
            Err(what) => Err(ReplayError::Damaged { segment: self.segment.header.number, at, what }),
        }
    }

    /// The frame that these bytes begin with, or how many are needed of it.
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

impl Pending {
    /// Where in `held` the next record's bytes stand; none if the run is not as long as it says.
    #[inline(always)]
    pub fn place(&self, held: &[u8]) -> Option<Found> {
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
        Some(Found { begin, end, time })
    }

    /// Goes on behind a record.
    #[inline(always)]
    pub fn pass(&mut self, found: Found) {
        (self.at, self.next, self.count) = (found.end, self.next + 1, self.count - 1);
    }

    /// The offset after its last record.
    pub fn last(&self) -> u64 {
        self.next + u64::from(self.count)
    }
}
