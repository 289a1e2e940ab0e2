//! Sizes and limits of the format.

/// The format version that this program writes, and the newest that it reads. All versions from 1 on stay readable for
/// ever.
pub const MAJOR: u16 = 2;

/// Alignment of frames, in bytes. A repair looks for the next frame after damage at multiples of it.
pub const ALIGN: u64 = 64;

/// Offset of a segment's first frame, in bytes. The header has a disk sector of its own, which is written once.
pub const SEGMENT_HEAD: u64 = 512;

/// The largest position and the largest offset; segment numbers are below it. Larger numbers are neither written nor
/// accepted when read, so sums of a few of them do not overflow.
pub const MAX_POSITION: u64 = 1 << 62;

/// The largest size of a segment with frames, in bytes. A segment in the place of a lost one may be larger.
pub const MAX_SEGMENT: u64 = 2 << 30;

/// Size of a frame's header, in bytes.
pub const FRAME_HEADER: usize = 64;

/// The largest size of a frame's payload in bytes, compressed or not.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// Rounds `len` up to a multiple of [`ALIGN`].
pub fn aligned(len: u64) -> u64 {
    len.next_multiple_of(ALIGN)
}

const _: () = assert!(SEGMENT_HEAD.is_multiple_of(ALIGN));
