//! A segment file in the directory that may or may not belong to the journal.

use crate::error::{DiskError, OpenError};
use crate::files::descriptors::{Files, SegmentFile};
use crate::files::names::{index_name, segment_name};
use crate::files::read_header::{frame_header, segment_header};
use crate::format::{FrameKind, JournalId, Malformed, SegmentHeader};
use crate::index::Index;
use crate::storage::{File, NotOurs, Storage};
use std::sync::Arc;

/// A segment file, with its header and its index as far as they are valid.
pub(crate) struct Candidate {
    /// The number in the file's name.
    pub number: u64,
    pub header: Result<SegmentHeader, Malformed>,
    pub file: SegmentFile,
    /// The index, if its checksums match the segment (see [`read_tied_index`]).
    pub index: Option<Index>,
    /// True if the last frame that the index covers is a gap.
    pub ends_in_gap: bool,
}

impl Candidate {
    /// Reads the header and the index of segment file `number`. If `strict`, an index name that belongs to anything but
    /// a regular file is an error, because the opening will write that file.
    ///
    /// # Errors
    /// The disk fails, or a newer program wrote the segment.
    pub fn read(files: &Arc<Files>, number: u64, strict: bool) -> Result<Self, OpenError> {
        let name = segment_name(number);
        let file = files.file(number);
        let header = segment_header(&file).map_err(|cause| DiskError::new("read", &name, &cause))?;
        let header = match header {
            Err(Malformed::Version(found)) => return Err(OpenError::Newer { file: name, found }),
            Ok(header) if header.number != number => Err(Malformed::Misnamed(header.number)),
            decoded => decoded,
        };
        let index = match &header {
            Ok(header) => read_index(&**files.storage(), header, &file, strict)?,
            Err(_) => None,
        };
        let (index, ends_in_gap) = index.map_or((None, false), |(index, last)| (Some(index), last == FrameKind::Gap));
        Ok(Self { number, header, file, index, ends_in_gap })
    }

    /// Rejects the segment if its header states a journal id other than `id`.
    pub fn require_journal(&mut self, id: &JournalId) {
        if self.header.as_ref().is_ok_and(|header| header.id != *id) {
            (self.header, self.index) = (Err(Malformed::OtherJournal), None);
        }
    }
}

/// Reads the index of a segment, with the kind of its last frame. `None` if there is no index that can be opened, or
/// its checksums do not match the segment.
fn read_index(
    storage: &dyn Storage,
    header: &SegmentHeader,
    segment: &dyn File,
    strict: bool,
) -> Result<Option<(Index, FrameKind)>, OpenError> {
    let name = index_name(header.number);
    match storage.open(&name, false) {
        Err(cause) if strict && NotOurs::of(&cause).is_some() => Err(DiskError::new("read", &name, &cause).into()),
        // Without an index, the frames of the segment are read instead.
        Err(_) => Ok(None),
        Ok(index) => Ok(read_tied_index(header, segment, &*index)),
    }
}

/// Decodes an index file. `None` unless its own checksum matches, and it states the checksums of the segment's header
/// and of the segment's last frame.
fn read_tied_index(header: &SegmentHeader, segment: &dyn File, index: &dyn File) -> Option<(Index, FrameKind)> {
    let (size, segment_size) = (index.size().ok()?, segment.size().ok()?);
    if size > Index::most(segment_size) {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let read = index.read_at(&mut bytes, 0).ok()?;
    let index = Index::decode(&bytes[..read], &header.id, header.number, header.checksum()).ok()?;
    let (at, checksum) = index.last;
    let (frame, found) = frame_header(segment, &header.id, header.first, at).ok()?.ok()?;
    let tied = found == checksum
        && at + frame.span() == index.end
        && segment_size.min(header.size) >= index.end
        && frame.incarnation >= header.incarnation;
    tied.then_some((index, frame.kind))
}
