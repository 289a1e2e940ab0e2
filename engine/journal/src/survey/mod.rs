//! What a journal's directory holds, before anything in it is changed.

mod candidate;
mod chain;
mod checker;
pub(crate) mod frames;
pub(crate) mod inspect;
pub(crate) mod loss;
pub(crate) mod surveyor;

use crate::error::DiskError;
use crate::files::descriptors::Files;
use crate::files::read_ahead::ReadAhead;
use crate::format::{FrameKind, JournalId, MAJOR, Malformed, SEGMENT_HEAD};
use crate::gaps::GAPS_KIND;
use crate::journal::Journal;
use crate::options::Options;
use crate::segment::{Segment, SegmentReport};
use crate::shared::Shared;
use crate::state::State;
use crate::storage::Storage;
use std::sync::Arc;

/// What a journal's directory holds, as [`inspect`](crate::inspect()) has found it.
pub struct Survey {
    pub(crate) files: Arc<Files>,
    pub(crate) id: JournalId,
    pub(crate) incarnation: u32,
    /// The segments of the journal, in ascending order. The last frame is in the last one.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// The segments of the journal without an index that is tied to them.
    pub(crate) unsealed: Vec<Arc<Segment>>,
    /// The segments at and behind the end, and the byte up to which each is not zero.
    pub(crate) beyond: Vec<(Arc<Segment>, u64)>,
    /// The segment after the last one, if it was created ahead of need.
    pub(crate) spare: Option<Segment>,
    /// The numbers of segment files before the first one that is needed.
    pub(crate) leftover: Vec<u64>,
    pub(crate) unfinished: Vec<String>,
    /// The gap frames and lost segments that were read. A segment whose index was believed shows none: the state lists its
    /// gaps already.
    pub(crate) gaps: Vec<SurveyedGap>,
    pub(crate) state: State,
    pub(crate) previous: u32,
    /// The incarnation of the last frame.
    pub(crate) chain_incarnation: u32,
    pub(crate) durable: u64,
    pub(crate) end: u64,
    pub(crate) torn: Option<TornTail>,
    pub(crate) scanned: u64,
    pub(crate) created: bool,
    /// The names of files that are not part of the journal, or were put aside.
    pub(crate) others: Vec<String>,
    pub(crate) stale: Vec<u64>,
    pub(crate) stray: Vec<(u64, u64)>,
}

/// A gap frame, or a segment in the place of a lost one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SurveyedGap {
    pub position: u64,
    pub segment: u64,
    pub bytes: u64,
}

impl std::fmt::Debug for Survey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { segments, durable, end, torn, .. } = self;
        write!(f, "Survey({} segments, durable {durable}, end {end}, torn {torn:?})", segments.len())
    }
}

impl Survey {
    /// The gaps that the state does not list yet.
    pub(crate) fn unrecorded_gaps(&self) -> impl Iterator<Item = &SurveyedGap> {
        self.gaps.iter().filter(|gap| self.state.get(GAPS_KIND, &gap.position.to_le_bytes()).is_none())
    }

    /// True if a segment whose index was believed has a gap that this survey has not seen.
    pub(crate) fn has_unread_gaps(&self) -> Result<bool, DiskError> {
        let mut read_ahead = ReadAhead::default();
        let unsealed = |number| self.unsealed.iter().any(|segment| segment.header.number == number);
        for segment in self.segments.iter().filter(|it| !it.header.lost && !unsealed(it.header.number)) {
            let (mut at, end) = (SEGMENT_HEAD, segment.end());
            read_ahead.reset();
            while at < end {
                let found = read_ahead.frame(&self.id, segment.header.first, &segment.file, at, end);
                // Whoever reads the frame finds the damage.
                let Ok(frame) = found.map_err(|cause| segment.disk_error("read", &cause))? else { break };
                let seen = self.gaps.iter().any(|gap| gap.position == frame.header.position);
                if frame.header.kind == FrameKind::Gap && !seen {
                    return Ok(true);
                }
                at += frame.header.span();
            }
        }
        Ok(false)
    }

    /// True if an opening can go on writing in the last segment. It cannot if the segment has no snapshot: such a segment
    /// gets no index.
    pub(crate) fn can_append(&self) -> bool {
        let last = self.segments.last();
        last.is_some_and(|last| last.header.version == MAJOR && !last.header.lost && !last.headless())
    }

    /// The journal's state after the last frame.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The torn tail that an opening would cut.
    pub fn torn(&self) -> Option<&TornTail> {
        self.torn.as_ref()
    }

    /// The highest durable mark that was found, as a position.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The position behind the last valid frame.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The highest incarnation: how often the journal was opened.
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// The journal's id; none if there is no journal.
    pub fn id(&self) -> Option<JournalId> {
        (!self.created).then_some(self.id)
    }

    /// Bytes that were read to check them.
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// The segments of the journal, in ascending order.
    pub fn segments(&self) -> Vec<SegmentReport> {
        let unsealed = |number| self.unsealed.iter().any(|segment| segment.header.number == number);
        self.segments.iter().map(|segment| segment.report(!unsealed(segment.header.number))).collect()
    }

    /// The files of the directory that are not part of the journal, and those that a recovery or a repair has put aside.
    pub fn others(&self) -> &[String] {
        &self.others
    }

    /// The segments whose index has valid checksums and contradicts the frames. Found if all segments were read.
    pub fn stale_indexes(&self) -> &[u64] {
        &self.stale
    }

    /// Segment number and byte of bytes that should be zero and are not. No checksum covers them, and no record is made of
    /// them. Found if all segments were read.
    pub fn stray_bytes(&self) -> &[(u64, u64)] {
        &self.stray
    }

    /// The journal, to be read.
    pub fn journal(&self, storage: Arc<dyn Storage>) -> Journal {
        let segments = self.segments.clone();
        let shared = Shared::new(
            Files::new(storage),
            self.id,
            self.incarnation,
            Options::default(),
            segments,
            &self.state,
            self.end,
        );
        Journal { shared: Arc::new(shared) }
    }
}

/// The end of a journal that was being written when the power went: bytes that are no valid frames, and were never durable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TornTail {
    /// The position at which the valid frames end.
    pub position: u64,
    /// Bytes from there up to the last one that is not zero.
    pub bytes: u64,
    /// What is wrong with the first of these bytes.
    pub what: Malformed,
    /// The files that these bytes are copied to. On a full disk they may be missing.
    pub copies: Vec<String>,
}

/// How far the opening of a journal has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that were read and checked so far.
    pub read: u64,
    /// Bytes to be read in all, as far as is known. It grows if bytes behind damage must be read.
    pub total: u64,
}
