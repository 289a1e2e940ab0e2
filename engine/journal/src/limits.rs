//! What a segment of a size has room for.

use super::format::{ALIGN, MAX_PAYLOAD, SEGMENT_HEAD};

pub(super) fn frame_limit(segment: u64) -> usize {
    usize::try_from((segment - SEGMENT_HEAD) / 4).unwrap_or(MAX_PAYLOAD).min(MAX_PAYLOAD)
}

pub(super) fn state_limit(segment: u64) -> usize {
    // Half of the segment, less what the parts' heads and their padding cost.
    usize::try_from((segment - SEGMENT_HEAD) * 2 / 5).unwrap_or(usize::MAX)
}

/// Bytes at the end of a segment that nothing but state is written into, and that only while there is no next segment:
/// enough for an opening and a retention on a full disk.
pub(super) fn reserve(segment: u64) -> u64 {
    (segment / 8).min(64 << 10) / ALIGN * ALIGN
}
