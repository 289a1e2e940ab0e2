//! The chain of frames: each frame states the checksum of the frame before it. The journal ends where the chain breaks.

use crate::error::OpenError;
use crate::files::copy::COPY_CHUNK;
use crate::files::descriptors::Files;
use crate::files::read_ahead::decompress_frame;
use crate::format::{
    FRAME_HEADER, FrameHeader, FrameKind, JournalId, Malformed, SEGMENT_HEAD, entries, trusted_entries,
};
use crate::index::Index;
use crate::segment::Segment;
use crate::state::State;
use crate::storage::File;
use crate::survey::SurveyedGap;
use crate::survey::candidate::Candidate;
use crate::survey::checker::Checker;
use std::sync::Arc;

/// The result of following the chain of frames so far.
pub(crate) struct Chain {
    /// The journal's state after the last frame.
    pub state: State,
    /// The checksum of the last frame; `None` at the start and after a gap of a repair, where any frame may follow.
    pub previous: Option<u32>,
    /// The incarnation of the last frame read, or of the header of the last segment if its frames were not read.
    pub incarnation: u32,
    /// The highest durable mark, as a position in bytes.
    pub durable: u64,
    /// Size of the segments whose frames were read, each up to its last frame, in bytes.
    pub scanned: u64,
    pub gaps: Vec<SurveyedGap>,
    /// Numbers of the segments whose index has a valid checksum but contradicts the frames.
    pub stale: Vec<u64>,
}

/// The result of following the chain through one segment.
pub(crate) enum ChainStep {
    /// The chain continues after the segment. `unindexed` is true if the frames were read and the segment has no valid
    /// index.
    Whole { segment: Arc<Segment>, unindexed: bool },
    /// The chain ends in `segment`, or before it if `segment` is `None`.
    Ends { segment: Option<Arc<Segment>>, what: Malformed },
}

impl Chain {
    /// Begins at the start of the journal. `durable` is a position in bytes that is known to be durable.
    pub fn new(durable: u64) -> Self {
        Self {
            state: State::default(),
            previous: None,
            incarnation: 0,
            durable,
            scanned: 0,
            gaps: Vec::new(),
            stale: Vec::new(),
        }
    }

    /// Follows the chain through one segment, which must follow the segment `before`. If `believe` is true, a valid
    /// index replaces reading the frames.
    pub fn follow(
        &mut self,
        checker: &mut Checker<'_>,
        files: &Arc<Files>,
        candidate: &Candidate,
        before: Option<&Arc<Segment>>,
        believe: bool,
    ) -> Result<ChainStep, OpenError> {
        let ends_before = |what| Ok(ChainStep::Ends { segment: None, what });
        let header = match candidate.header {
            Ok(header) => header,
            Err(what) => return ends_before(what),
        };
        if let Some(before) = before.map(|before| before.header)
            && (header.number != before.number + 1 || header.first != before.first + before.size)
        {
            let follows = header.number == before.number + 1;
            return ends_before(if follows { Malformed::Position(header.first) } else { Malformed::Missing });
        }
        let segment = Arc::new(Segment::new(header, files.file(candidate.number)));
        if header.lost {
            self.previous = None;
            self.incarnation = self.incarnation.max(header.incarnation);
            // A repair has already given up this segment's content, so it is no new damage.
            segment.set_end(header.size);
            self.gaps.push(SurveyedGap { position: header.first, segment: header.number, bytes: header.size });
            return Ok(ChainStep::Whole { segment, unindexed: false });
        }
        if let Some(index) = candidate.index.as_ref().filter(|_| believe) {
            segment.set_end(index.end);
            self.previous = (!candidate.ends_in_gap).then_some(index.last.1);
            self.durable = self.durable.max(segment.position(index.end));
            self.incarnation = self.incarnation.max(header.incarnation);
            *segment.index() = index.clone();
            return Ok(ChainStep::Whole { segment, unindexed: false });
        }
        if let Some(index) = &candidate.index {
            // An index is written only after the whole segment is durable.
            self.durable = self.durable.max(segment.position(index.end));
        }
        if checker.reads_all {
            checker.read_ahead.reset();
            checker.note_stray(&segment, 64, SEGMENT_HEAD)?;
        }
        let mut index = Index::default();
        let before = checker.read;
        let what = self.follow_frames(checker, &segment, &mut index)?;
        checker.count((before + segment.end()).saturating_sub(checker.read));
        if segment.end() == SEGMENT_HEAD {
            return ends_before(what);
        }
        if let Some(stored) = &candidate.index {
            self.stale.extend(stored.is_stale(&index, &header.id, header.number).then_some(header.number));
        }
        *segment.index() = index;
        let tail = checker.search_tail(&segment, segment.end(), &header.id)?;
        self.scanned += segment.end();
        if tail.until == 0 {
            return Ok(ChainStep::Whole { segment, unindexed: candidate.index.is_none() });
        }
        let what = if what == Malformed::Magic { Malformed::TrailingBytes } else { what };
        Ok(ChainStep::Ends { segment: Some(segment), what })
    }

    /// Reads frames up to the first place without a valid one, and returns the fault there. The chain and the segment's
    /// end change only once the snapshot at the segment's head is complete, or a gap takes its place.
    fn follow_frames(
        &mut self,
        checker: &mut Checker<'_>,
        segment: &Segment,
        index: &mut Index,
    ) -> Result<Malformed, OpenError> {
        let size = segment.file.size().map_err(|cause| segment.disk_error("read", &cause))?;
        let limit = size.min(segment.header.size);
        let id: &JournalId = &segment.header.id;
        let mut snapshot = Some(State::default());
        let mut begun = false;
        let (mut at, mut previous, mut incarnation) = (SEGMENT_HEAD, self.previous, self.incarnation);
        let mut durable = self.durable;
        let mut counted = at;
        checker.read_ahead.reset();
        loop {
            if at - counted >= COPY_CHUNK as u64 {
                checker.count(at - counted);
                counted = at;
            }
            let found = checker.read_ahead.frame(id, segment.header.first, &segment.file, at, limit);
            let frame = match found.map_err(|cause| segment.disk_error("read", &cause))? {
                Ok(frame) => frame,
                Err(Malformed::Version(found)) => return Err(OpenError::Newer { file: segment.name.clone(), found }),
                Err(what) => return Ok(what),
            };
            let header = frame.header;
            if let Some(what) = breaks_chain(&header, previous, incarnation, segment.header.incarnation) {
                return Ok(what);
            }
            let plain = match decompress_frame(&header, frame.stored) {
                Ok(plain) => plain,
                Err(Malformed::NoZstd) => {
                    return Err(OpenError::Setting(format!("{}: {}", segment.name, Malformed::NoZstd)));
                }
                Err(what) => return Ok(what),
            };
            match (header.kind, &mut snapshot) {
                (FrameKind::Snapshot { first, last }, Some(building)) if first != begun => {
                    for entry in entries(&plain) {
                        let applied = entry.map(|entry| building.apply(&entry));
                        if !matches!(applied, Ok(Ok(()))) {
                            return Ok(Malformed::Entry);
                        }
                    }
                    begun = true;
                    if last {
                        self.state = snapshot.take().unwrap_or_default();
                    }
                }
                (FrameKind::Data, None) => {
                    // All entries of a frame are applied, or none.
                    if self.state.check(entries(&plain)).is_err() {
                        return Ok(Malformed::Entry);
                    }
                    for entry in trusted_entries(&plain).flatten() {
                        index.entry(at, at + header.span(), header.time, &entry);
                        let _ = self.state.apply(&entry);
                    }
                }
                (FrameKind::Mark, None) => {}
                (FrameKind::Gap, _) => {
                    let (position, bytes) = (header.position, header.span());
                    self.gaps.push(SurveyedGap { position, segment: segment.header.number, bytes });
                    if snapshot.take().is_some() {
                        segment.set_headless();
                    }
                }
                _ => return Ok(Malformed::Snapshot),
            }
            let end = at + header.span();
            let checksum = frame.checksum;
            index.frame(at, end, checksum, header.time);
            previous = if header.kind == FrameKind::Gap { None } else { Some(checksum) };
            if checker.reads_all && header.kind != FrameKind::Gap {
                let padding = at + FRAME_HEADER as u64 + u64::from(header.stored);
                checker.note_stray(segment, padding, end)?;
            }
            incarnation = header.incarnation;
            durable = durable.max(header.durable);
            at = end;
            if snapshot.is_none() {
                // Until its snapshot is complete, a segment changes nothing.
                (self.previous, self.incarnation, self.durable) = (previous, incarnation, durable);
                segment.set_end(at);
            }
        }
    }
}

/// Why a valid frame does not follow the frame before it; `None` if it does. `opened` is the incarnation in the
/// segment's header.
fn breaks_chain(header: &FrameHeader, previous: Option<u32>, incarnation: u32, opened: u32) -> Option<Malformed> {
    if previous.is_some_and(|previous| previous != header.previous) {
        Some(Malformed::Chain)
    } else if header.incarnation < incarnation {
        Some(Malformed::Incarnation)
    } else if header.incarnation < opened {
        Some(Malformed::Opening)
    } else {
        None
    }
}
