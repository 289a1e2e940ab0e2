//! The frames of a sealed segment, read in steps.

use crate::error::{DiskError, ReplayError};
use crate::files::read_ahead::{Frame, ReadAhead, decompress_frame};
use crate::format::{FrameHeader, FrameKind, Malformed, SEGMENT_HEAD, entries};
use crate::segment::Segment;
use crate::shared::Shared;
use std::sync::Arc;

/// A frame with its decompressed payload.
pub(super) struct SegmentFrame<'f> {
    pub header: FrameHeader,
    /// The payload as it is stored.
    pub stored: &'f [u8],
    pub plain: &'f [u8],
}

/// Reads the frames of a segment one after the other.
pub(super) struct SegmentFrames {
    pub segment: Arc<Segment>,
    at: u64,
    read_ahead: ReadAhead,
    plain: Vec<u8>,
    /// The checksum of the last frame that was read.
    last: u32,
}

impl SegmentFrames {
    pub fn new(shared: &Shared, segment: &Arc<Segment>) -> Self {
        let read_ahead = ReadAhead::new(&shared.options);
        Self { segment: Arc::clone(segment), at: SEGMENT_HEAD, read_ahead, plain: Vec::new(), last: 0 }
    }

    /// The offset in the file of the next frame, in bytes.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The checksum of the last frame that was read.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// The next frame; `None` after the last one.
    ///
    /// # Errors
    /// The frame is damaged or a gap of a repair, or the disk fails. Such a segment is not compacted.
    pub fn next(&mut self, shared: &Shared) -> Result<Option<SegmentFrame<'_>>, ReplayError> {
        let Self { segment, at, read_ahead, plain, last } = self;
        if *at >= segment.end() {
            return Ok(None);
        }
        let damaged = |what| ReplayError::Damaged { segment: segment.header.number, at: *at, what, next: None };
        let found = read_ahead.frame(&shared.id, segment.header.first, &segment.file, *at, segment.end());
        let found = found.map_err(|cause| DiskError::new("read", &segment.name, &cause))?;
        let Frame { header, stored, checksum } = found.map_err(damaged)?;
        if header.kind == FrameKind::Gap {
            return Err(damaged(Malformed::Kind(4)));
        }
        let unpacked = decompress_frame(&header, stored).map_err(damaged)?;
        // A matching checksum does not make the entries whole: another program may have computed it.
        entries(&unpacked).try_for_each(|entry| entry.map(drop)).map_err(damaged)?;
        plain.clear();
        plain.extend_from_slice(&unpacked);
        *at += header.span();
        *last = checksum;
        Ok(Some(SegmentFrame { header, stored, plain }))
    }
}
