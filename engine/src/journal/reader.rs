//! Reading the records of one partition, from any offset or time, in bounded memory.

use super::Shared;
use super::error::{DiskError, Malformed, ReplayError};
use super::format::{Entry, FRAME_HEADER, FrameKind, PartitionId, SEGMENT_HEAD, known_entries};
use super::gaps::Untold;
use super::index::Mark;
use super::recovery::unpack_frame;
use super::segment::{Segment, Window};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// The earliest record that is kept.
    Earliest,
    /// What comes next.
    Latest,
    /// This offset, or the first after it if it is none of a record.
    Offset(u64),
    /// The first record whose time is this or later: nanoseconds since the epoch.
    Time(u64),
}

/// How far a reader sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visible {
    /// What a power cut may take back, too.
    Written,
    /// What survives a power cut.
    #[default]
    Durable,
}

/// A record of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<'r> {
    /// Its offset in the partition.
    pub offset: u64,
    /// Its own time, or that of the frame: nanoseconds since the epoch.
    pub time: u64,
    /// When it was written, whatever its own time: nanoseconds since the epoch.
    pub written: u64,
    /// Its bytes.
    pub bytes: &'r [u8],
}

/// Reads one partition. It needs the memory of one frame and one window, however far it is behind.
pub struct Reader {
    shared: Arc<Shared>,
    partition: PartitionId,
    visible: Visible,
    /// The next offset that may be given.
    next: u64,
    /// Nothing earlier than this is given.
    from: u64,
    /// From this offset on times do not count any more.
    until: u64,
    /// What it is to be told of.
    untold: Untold,
    /// The offset after the last record that it has looked at, given or not.
    looked: u64,
    segment: Arc<Segment>,
    at: u64,
    /// The checksum of the frame before `at`, where it is known.
    previous: Option<u32>,
    window: Window,
    /// The last payload, if it was packed; if not, it is read where it stands in the window.
    payload: Option<Vec<u8>>,
    /// The part of the payload that is being given, and those behind it: the next one is last.
    run: Pending,
    runs: Vec<Pending>,
}

/// Records that are still to be given: where they stand, and what is known of them.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    /// Where its frame stands in the segment.
    frame: u64,
    at: usize,
    end: usize,
    fixed: Option<u32>,
    timed: bool,
    next: u64,
    count: u32,
    time: u64,
}

/// A record in what is held.
#[derive(Clone, Copy, Debug)]
struct Place {
    begin: usize,
    end: usize,
    /// Its own time, or that of the frame.
    time: u64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({:?} at {})", self.partition, self.next)
    }
}

impl Reader {
    pub(super) fn new(
        shared: Arc<Shared>,
        partition: PartitionId,
        start: Start,
        visible: Visible,
    ) -> Result<Self, ReplayError> {
        let extent = shared.extents().get(&partition).copied().ok_or(ReplayError::Unknown(partition))?;
        let (next, from) = match start {
            Start::Earliest => (extent.start, 0),
            Start::Latest => (extent.end, 0),
            Start::Offset(asked) if asked < extent.start || asked > extent.end.max(extent.reserved) => {
                return Err(ReplayError::OutOfRange { asked, earliest: extent.start, latest: extent.end });
            }
            Start::Offset(asked) => (asked, 0),
            Start::Time(time) => (extent.start, time),
        };
        let untold = shared.gaps.untold(partition);
        let mut looked = next;
        let segments = shared.segments();
        let at = match start {
            Start::Time(time) => {
                let (found, offset) = find_time(&segments, partition, time, shared.gaps.of_partition(partition));
                looked = looked.max(offset);
                found
            }
            _ => segments.iter().find_map(|segment| {
                let index = segment.index();
                let place = index.partitions.get(&partition)?;
                let at = (place.end > next).then(|| index.seek(partition, next))??;
                Some((Arc::clone(segment), at))
            }),
        };
        // Nothing of it yet: at the end of what is written.
        let (segment, at) = match (at, segments.last()) {
            (Some(found), _) => found,
            (None, Some(last)) => (Arc::clone(last), last.end()),
            (None, None) => return Err(ReplayError::Unknown(partition)),
        };
        drop(segments);
        let window = Window::new(&shared.options);
        Ok(Self {
            shared,
            partition,
            visible,
            next,
            from,
            until: u64::MAX,
            untold,
            looked,
            segment,
            at,
            previous: None,
            window,
            payload: None,
            run: Pending::default(),
            runs: Vec::new(),
        })
    }

    /// Looks for the [time](Start::Time) it was opened for among the offsets below `until` only: what stands there or behind is
    /// given whatever its time.
    pub fn until(mut self, until: u64) -> Self {
        self.until = until;
        self
    }

    /// Goes on behind gaps without a word.
    pub fn pass_gaps(mut self) -> Self {
        self.untold = Untold::default();
        self
    }

    /// The next offset that this reader may give: one after the last.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The partition that it reads.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The next record; none if there is none that is visible yet.
    ///
    /// # Errors
    /// Retention has taken the position away, a frame is damaged, records were lost to damage here
    /// ([`Gap`](ReplayError::Gap), once: the next call goes on behind it), or the disk fails.
    // Called, it would hand the record over in memory, and a caller that maps the error would wait for it there.
    #[expect(clippy::should_implement_trait, reason = "lends: the record borrows from the reader")]
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, ReplayError> {
        let place = match self.step() {
            Some(place) => place,
            None => match self.look()? {
                Some(place) => place,
                None => return Ok(None),
            },
        };
        let (offset, written) = (self.run.next - 1, self.run.time);
        (self.next, self.from) = (offset + 1, 0);
        let bytes = &self.held()[place.begin..place.end];
        Ok(Some(Record { offset, time: place.time, written, bytes }))
    }

    /// What the runs lie in.
    #[inline(always)]
    fn held(&self) -> &[u8] {
        match &self.payload {
            Some(unpacked) => unpacked,
            None => self.window.held(),
        }
    }

    /// Takes the next record of the run, if it has one that is to be given.
    #[inline(always)]
    fn step(&mut self) -> Option<Place> {
        if self.run.count == 0 {
            return None;
        }
        let place = self.run.place(self.held())?;
        if self.run.next < self.next || place.time < self.from {
            return None;
        }
        self.run.pass(place);
        Some(place)
    }

    /// The next record that is to be given, wherever it stands: of this run, of another one, in a later frame.
    #[inline(never)]
    fn look(&mut self) -> Result<Option<Place>, ReplayError> {
        loop {
            while self.run.count > 0 {
                let Some(place) = self.run.place(self.held()) else {
                    return Err(self.broken());
                };
                let offset = self.run.next;
                let is_wanted = offset >= self.next && (place.time >= self.from || offset >= self.until);
                if is_wanted && self.untold.begins_below(offset) {
                    self.told(offset)?;
                }
                self.run.pass(place);
                self.looked = self.looked.max(offset + 1);
                if is_wanted {
                    return Ok(Some(place));
                }
            }
            match self.runs.pop() {
                Some(run) => self.run = run,
                None if self.load()? => {}
                None => {
                    // Behind the last record: every gap stands below what was written since the journal was opened.
                    self.told(u64::MAX)?;
                    return Ok(None);
                }
            }
        }
    }

    /// Tells of the next gap below `offset`, that of the record which comes next.
    fn told(&mut self, offset: u64) -> Result<(), ReplayError> {
        let Some(offsets) = self.untold.before(self.looked.max(self.next), offset) else { return Ok(()) };
        self.next = self.next.max(offsets.end);
        self.looked = self.looked.max(offsets.end);
        Err(ReplayError::Gap { partition: self.partition, offsets })
    }

    /// The records that come next, at most so many and all below `before`, if each has `size` bytes and no time: the
    /// first one's offset, and all bytes. None where [`next`](Self::next) must be asked.
    pub(crate) fn alike(&mut self, size: usize, most: usize, before: u64) -> Result<Option<(u64, &[u8])>, ReplayError> {
        if self.run.count == 0 {
            match self.runs.pop() {
                Some(run) => self.run = run,
                None if self.load()? => self.run = self.runs.pop().unwrap_or_default(),
                None => return Ok(None),
            }
        }
        if self.untold.begins_below(self.run.next) {
            // Looked at by the other way, which tells.
            self.runs.push(std::mem::take(&mut self.run));
            return Ok(None);
        }
        let run = self.run;
        let is_alike = run.fixed.is_some_and(|fixed| fixed as usize == size) && !run.timed;
        if !is_alike || size == 0 || run.next < self.next || run.time < self.from {
            return Ok(None);
        }
        let count = u64::from(run.count).min(most as u64).min(before.saturating_sub(run.next)) as usize;
        let end = count.checked_mul(size).and_then(|len| run.at.checked_add(len)).filter(|end| *end <= run.end);
        let Some(end) = end.filter(|end| *end > run.at && *end <= self.held().len()) else { return Ok(None) };
        (self.run.at, self.run.next, self.run.count) = (end, run.next + count as u64, run.count - count as u32);
        (self.next, self.from) = (self.run.next, 0);
        Ok(Some((run.next, &self.held()[run.at..end])))
    }

    /// What is left of a run that is not as long as it says.
    #[cold]
    fn broken(&mut self) -> ReplayError {
        let at = self.run.frame;
        self.forget();
        ReplayError::Damaged { segment: self.segment.header.number, at, what: Malformed::Entry }
    }

    /// Nothing more is given of what was loaded.
    fn forget(&mut self) {
        self.run.count = 0;
        self.runs.clear();
    }

    /// Loads the next frame that has records of the partition; false if none is visible yet.
    fn load(&mut self) -> Result<bool, ReplayError> {
        if let Some(extent) = self.shared.extents().get(&self.partition)
            && self.next < extent.start
        {
            let (asked, earliest, latest) = (self.next, extent.start, extent.end);
            // One that began at the earliest goes on with it only when told to.
            return Err(ReplayError::OutOfRange { asked, earliest, latest });
        }
        loop {
            let limit = match self.visible {
                Visible::Written => &self.shared.written,
                Visible::Durable => &self.shared.durable,
            };
            let visible = limit.load(Ordering::Acquire).saturating_sub(self.segment.header.first);
            let limit = visible.min(self.segment.end());
            if self.at >= limit {
                if visible <= self.segment.end() || !self.follow()? {
                    return Ok(false);
                }
                continue;
            }
            if self.frame(limit)? {
                return Ok(true);
            }
        }
    }

    /// Goes to the next segment, if this one has been left.
    fn follow(&mut self) -> Result<bool, ReplayError> {
        let number = self.segment.header.number;
        let next = {
            let segments = self.shared.segments();
            let first = segments.first().map_or(0, |first| first.header.number);
            segments.get((number + 1).saturating_sub(first) as usize).cloned()
        };
        // Its end was final before the next one could be seen.
        let Some(next) = next.filter(|_| self.at >= self.segment.end()) else { return Ok(false) };
        self.segment = next;
        self.window.reset();
        self.at = SEGMENT_HEAD;
        if self.segment.header.lost {
            (self.at, self.previous) = (self.segment.end(), None);
        }
        Ok(true)
    }

    /// Reads one frame; true if it has records to give.
    fn frame(&mut self, limit: u64) -> Result<bool, ReplayError> {
        let (segment, at) = (&self.segment, self.at);
        let damaged = |what| ReplayError::Damaged { segment: segment.header.number, at, what };
        let found = self.window.frame(&self.shared.id, segment.header.first, &*segment.file, at, limit);
        let frame = found.map_err(|cause| DiskError::new("read", &segment.name, &cause))?.map_err(damaged)?;
        let header = frame.header;
        if self.previous.is_some_and(|previous| previous != header.previous) {
            return Err(damaged(Malformed::Chain));
        }
        self.at += header.span();
        self.previous = Some(frame.checksum);
        match header.kind {
            FrameKind::Gap => {
                self.previous = None;
                return Ok(false);
            }
            FrameKind::Mark | FrameKind::Snapshot { .. } => return Ok(false),
            FrameKind::Data => {}
        }
        let plain = unpack_frame(&header, frame.stored).map_err(damaged)?;
        self.runs.clear();
        for entry in known_entries(&plain) {
            if let Entry::Run(run) = entry.map_err(damaged)?
                && run.partition == self.partition
                && run.end() > self.next
            {
                let (body, (fixed, timed)) = run.shape();
                let begin = body.as_ptr() as usize - plain.as_ptr() as usize;
                let (next, count, time) = (run.first, run.count, header.time);
                let end = begin + body.len();
                self.runs.push(Pending { frame: at, at: begin, end, fixed, timed, next, count, time });
            }
        }
        if self.runs.is_empty() {
            return Ok(false);
        }
        self.payload = match plain {
            Cow::Owned(unpacked) => Some(unpacked),
            Cow::Borrowed(_) => {
                let begin = self.window.place(at + FRAME_HEADER as u64);
                self.runs.iter_mut().for_each(|run| (run.at, run.end) = (run.at + begin, run.end + begin));
                None
            }
        };
        // Given from the back.
        self.runs.reverse();
        Ok(true)
    }
}

/// Where to begin to look for the first record at or after `time`, and an offset that no record before has reached. A record
/// that stands before a gap is looked at too: so it is seen whether the gap lies right before the one that is found.
fn find_time(
    segments: &[Arc<Segment>],
    partition: PartitionId,
    time: u64,
    gaps: &[Range<u64>],
) -> (Option<(Arc<Segment>, u64)>, u64) {
    let mut before: Option<(Arc<Segment>, Mark)> = None;
    let mut end = 0;
    for segment in segments {
        let index = segment.index();
        let Some(place) = index.partitions.get(&partition) else { continue };
        end = place.end;
        let Some(mark) = (place.latest >= time).then(|| index.seek_time(partition, time)).flatten() else {
            before = place.marks.last().map(|mark| (Arc::clone(segment), *mark));
            continue;
        };
        let earlier = place.marks.iter().rfind(|it| it.at < mark.at).map(|mark| (Arc::clone(segment), *mark));
        let earlier = earlier.or(before);
        let from = earlier.as_ref().map_or(0, |(_, mark)| mark.offset);
        return match earlier {
            _ if !gaps.iter().any(|gap| gap.end > from && gap.end <= mark.offset) => {
                (Some((Arc::clone(segment), mark.at)), mark.offset)
            }
            Some((segment, mark)) => (Some((segment, mark.at)), mark.offset),
            None => (Some((Arc::clone(segment), mark.at)), 0),
        };
    }
    (None, end)
}

impl Pending {
    /// Where in `held` the next record's bytes stand; none if the run is not as long as it says.
    #[inline(always)]
    fn place(&self, held: &[u8]) -> Option<Place> {
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
        Some(Place { begin, end, time })
    }

    /// Goes on behind a record.
    #[inline(always)]
    fn pass(&mut self, place: Place) {
        (self.at, self.next, self.count) = (place.end, self.next + 1, self.count - 1);
    }
}
