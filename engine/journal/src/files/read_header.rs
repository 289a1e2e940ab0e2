//! Reading the header of a segment or of a frame.

use crate::format::{FRAME_HEADER, FrameHeader, JournalId, Malformed, SegmentHeader};
use crate::storage::File;
use std::io;

/// Reads the header of a segment file. The inner error: the file does not begin with a valid header.
pub(crate) fn segment_header(file: &dyn File) -> io::Result<Result<SegmentHeader, Malformed>> {
    let mut head = [0; 64];
    let read = file.read_at(&mut head, 0)?;
    Ok(SegmentHeader::decode(&head[..read]))
}

/// Reads the header of the frame at offset `at` of a segment file. `first` is the journal position of the file's first
/// byte. Returns the header with its checksum. The inner error: there is no valid header of journal `id`.
pub(crate) fn frame_header(
    file: &dyn File,
    id: &JournalId,
    first: u64,
    at: u64,
) -> io::Result<Result<(FrameHeader, u32), Malformed>> {
    let mut head = [0; FRAME_HEADER];
    let read = file.read_at(&mut head, at)?;
    Ok(FrameHeader::decode(id, first + at, &head[..read]))
}
