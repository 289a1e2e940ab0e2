//! What a journal's directory holds, as it is found, before anything is changed.

use super::error::DiskError;
use super::files::Files;
use super::format::{FrameKind, JournalId, MAJOR, Malformed, SEGMENT_HEAD};
use super::gaps::WHAT;
use super::journal::Journal;
use super::options::Options;
use super::segment::{Segment, SegmentReport};
use super::shared::Shared;
use super::snapshot::State;
use super::storage::Storage;
use super::window::Window;
use std::sync::Arc;

/// What a journal's directory holds, as [`inspect`] saw it.
pub struct Survey {
    pub(super) files: Arc<Files>,
    pub(crate) id: JournalId,
    pub(crate) incarnation: u32,
    /// Those that count, in order; the frames end in the last one.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Those that count and have no index.
    pub(super) unsealed: Vec<Arc<Segment>>,
    /// Files behind the end: name, and the bytes in it that are not zero.
    pub(super) beyond: Vec<(Arc<Segment>, u64)>,
    /// The segment behind the end, made ahead and not written.
    pub(super) spare: Option<Segment>,
    /// Files of segments before the first that is needed.
    pub(super) leftover: Vec<u64>,
    pub(super) unfinished: Vec<String>,
    /// Gap frames and lost segments that were seen. A segment that is believed for its index shows none: the state knows
    /// them by then.
    pub(super) gaps: Vec<SeenGap>,
    pub(crate) state: State,
    pub(crate) previous: u32,
    /// The incarnation of the last frame that counts.
    pub(crate) chain_incarnation: u32,
    pub(super) durable: u64,
    pub(super) end: u64,
    pub(super) torn: Option<Torn>,
    pub(super) scanned: u64,
    pub(super) created: bool,
    /// Files that were named, by what stands in them.
    pub(super) others: Vec<String>,
    pub(super) stale: Vec<u64>,
    pub(super) stray: Vec<(u64, u64)>,
}

/// A gap frame, or a segment that stands in the place of a lost one.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeenGap {
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
    /// Gaps of which the state does not say yet what is lost there.
    pub(super) fn unknown_gaps(&self) -> impl Iterator<Item = &SeenGap> {
        self.gaps.iter().filter(|gap| self.state.get(WHAT, &gap.position.to_le_bytes()).is_none())
    }

    /// Whether segments that were believed because of their index have gaps that this survey has not seen.
    pub(super) fn hides_gaps(&self) -> Result<bool, DiskError> {
        let mut window = Window::default();
        let unsealed = |number| self.unsealed.iter().any(|segment| segment.header.number == number);
        for segment in self.segments.iter().filter(|it| !it.header.lost && !unsealed(it.header.number)) {
            let (mut at, end) = (SEGMENT_HEAD, segment.end());
            window.reset();
            while at < end {
                let found = window.frame(&self.id, segment.header.first, &segment.file, at, end);
                // One that is damaged is found by who reads it.
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

    /// Whether an opening can write on in the last segment. Behind a damaged head it does not: such a segment gets no index.
    pub(super) fn goes_on(&self) -> bool {
        let last = self.segments.last();
        last.is_some_and(|last| last.header.version == MAJOR && !last.header.lost && !last.headless())
    }

    /// The journal's state at its end.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What would be cut.
    pub fn torn(&self) -> Option<&Torn> {
        self.torn.as_ref()
    }

    /// The highest durable mark that was found.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Where the whole frames end, as a position of the journal.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How often the journal was opened.
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// The journal's own number; none where there is no journal.
    pub fn id(&self) -> Option<JournalId> {
        (!self.created).then_some(self.id)
    }

    /// Bytes that were read to check them.
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// The segments that count, in order.
    pub fn segments(&self) -> Vec<SegmentReport> {
        let unsealed = |number| self.unsealed.iter().any(|segment| segment.header.number == number);
        self.segments.iter().map(|segment| segment.report(!unsealed(segment.header.number))).collect()
    }

    /// Files of the directory that are no segments: those that a recovery or a repair put aside, and what is not a journal's.
    pub fn others(&self) -> &[String] {
        &self.others
    }

    /// Segments whose index is not what their frames say, though its checksums match. Found where all of them were read.
    pub fn stale_indexes(&self) -> &[u64] {
        &self.stale
    }

    /// Segments, and bytes in their files, that should be zero and are not: no checksum covers them, and no record is made of
    /// them. Found where all was read.
    pub fn stray_bytes(&self) -> &[(u64, u64)] {
        &self.stray
    }

    /// The journal as it is, to be read and not written.
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

/// The end of a journal that was being written when the power went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Torn {
    /// Where the whole frames end.
    pub position: u64,
    /// Bytes that were no frames, up to the last that is not zero.
    pub bytes: u64,
    /// What was wrong with the first of them.
    pub what: Malformed,
    /// The files that have them now; on a disk that is full they may be missing.
    pub copies: Vec<String>,
}

/// How far the opening of a journal has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that were read and checked so far.
    pub read: u64,
    /// Bytes that are to be read, as far as is known: more where damage has to be looked behind.
    pub total: u64,
}
