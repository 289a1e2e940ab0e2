//! Surveys: the content of a journal's directory before anything in it is changed.

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

/// The content of a journal's directory, as [`inspect`](crate::inspect()) found it.
pub struct Survey {
    pub(crate) files: Arc<Files>,
    pub(crate) id: JournalId,
    pub(crate) incarnation: u32,
    /// The segments of the journal in ascending order. The last one holds the last frame.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// The segments of the journal without a valid index.
    pub(crate) unsealed: Vec<Arc<Segment>>,
    /// The segments at and after the end, each with the offset in its file after the last nonzero byte; 0 if all bytes
    /// after its frames are zero.
    pub(crate) beyond: Vec<(Arc<Segment>, u64)>,
    /// The segment after the last one, if it was created ahead.
    pub(crate) spare: Option<Segment>,
    /// The numbers of segment files before the first needed one.
    pub(crate) leftover: Vec<u64>,
    pub(crate) unfinished: Vec<String>,
    /// The gap frames and lost segments that were read. Segments that were not read, because of a valid index, have
    /// none here: the state lists their gaps already.
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

    /// True if a segment that was not read, because of a valid index, has a gap that this survey has not seen.
    pub(crate) fn has_unread_gaps(&self) -> Result<bool, DiskError> {
        let mut read_ahead = ReadAhead::default();
        let unsealed = |number| self.unsealed.iter().any(|segment| segment.header.number == number);
        for segment in self.segments.iter().filter(|it| !it.header.lost && !unsealed(it.header.number)) {
            let (mut at, end) = (SEGMENT_HEAD, segment.end());
            read_ahead.reset();
            while at < end {
                let found = read_ahead.frame(&self.id, segment.header.first, &segment.file, at, end);
                // Damage ends the search in this segment: reading the frame later reports it.
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

    /// True if an opening can extend the last segment. False if there is no segment, or the last one has an older
    /// format version, stands for a lost segment, or has a gap in the place of its snapshot.
    pub(crate) fn can_append(&self) -> bool {
        let last = self.segments.last();
        last.is_some_and(|last| last.header.version == MAJOR && !last.header.lost && !last.headless())
    }

    /// The journal's state after the last frame.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The torn tail that an opening would cut; `None` if there is none.
    pub fn torn(&self) -> Option<&TornTail> {
        self.torn.as_ref()
    }

    /// The highest durable mark that was found, as a position in bytes.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The position after the last valid frame, in bytes.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The highest incarnation, which counts the openings of the journal.
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// The journal's id; `None` if there is no journal.
    pub fn id(&self) -> Option<JournalId> {
        (!self.created).then_some(self.id)
    }

    /// Count of the bytes that were read and checked.
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// The segments of the journal in ascending order.
    pub fn segments(&self) -> Vec<SegmentReport> {
        let unsealed = |number| self.unsealed.iter().any(|segment| segment.header.number == number);
        self.segments.iter().map(|segment| segment.report(!unsealed(segment.header.number))).collect()
    }

    /// The names of files that are not part of the journal, or that a recovery or a repair has put aside.
    pub fn others(&self) -> &[String] {
        &self.others
    }

    /// Numbers of the segments whose index has a valid checksum but contradicts the frames. Only segments whose frames
    /// were read are compared.
    pub fn stale_indexes(&self) -> &[u64] {
        &self.stale
    }

    /// Segment number and file offset of nonzero bytes that should be zero. No checksum covers them, and no record
    /// contains them. Empty unless all segments were read.
    pub fn stray_bytes(&self) -> &[(u64, u64)] {
        &self.stray
    }

    /// The surveyed journal, for reading.
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

/// The end of a journal whose writing a power cut or a crash interrupted: bytes after the last frame of the chain,
/// which were never durable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TornTail {
    /// The position at which the valid frames end, in bytes.
    pub position: u64,
    /// Count of these bytes: in each segment file, up to the last nonzero one.
    pub bytes: u64,
    /// The fault of the first of these bytes.
    pub what: Malformed,
    /// The names of the files with copies of these bytes, one for each segment file. After an inspection, the names
    /// that an opening would use. A copy for which the disk had no room is left out.
    pub copies: Vec<String>,
}

/// The progress of an opening, or of a [copy](crate::copy()).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Count of the bytes that were read so far: checked by an opening; copied or verified by a copy.
    pub read: u64,
    /// Count of the bytes to read in total, as far as known. It grows if bytes after damage must be
    /// read, or if segments were written while they were copied.
    pub total: u64,
}
