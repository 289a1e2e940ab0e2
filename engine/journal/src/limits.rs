//! Size limits that follow from the size of a segment.

use crate::format::{ALIGN, MAX_PAYLOAD, SEGMENT_HEAD};

/// The largest payload of a frame, in bytes, in segments of `segment` bytes.
pub(super) fn frame_limit(segment: u64) -> usize {
    usize::try_from((segment - SEGMENT_HEAD) / 4).unwrap_or(MAX_PAYLOAD).min(MAX_PAYLOAD)
}

/// The largest state, in bytes, whose snapshot fits into segments of `segment` bytes.
pub(super) fn state_limit(segment: u64) -> usize {
    // With the headers and the padding of its frames, the snapshot then takes about half of a segment at most.
    usize::try_from((segment - SEGMENT_HEAD) * 2 / 5).unwrap_or(usize::MAX)
}

/// Size in bytes of the end of a segment that frames with records never use. If the disk is too full for a next
/// segment, an opening or a retention writes its frames there, which have no records.
pub(super) fn reserve(segment: u64) -> u64 {
    (segment / 8).min(64 << 10) / ALIGN * ALIGN
}
