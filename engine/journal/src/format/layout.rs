//! Sizes and limits of the format.

/// The format version that is written, and the newest one that is read. All versions from 1 on are read for ever.
pub const MAJOR: u16 = 2;

/// Every frame begins at a multiple of this many bytes, so that frames behind damage can be found again.
pub const ALIGN: u64 = 64;

/// The byte at which the first frame of a segment begins. The header has a sector of its own, which is written once.
pub const SEGMENT_HEAD: u64 = 512;

/// Positions, offsets and segment numbers are below this, in everything that is written and everything that is accepted when
/// read. So the sum of a few of them does not overflow.
pub const MAX_POSITION: u64 = 1 << 62;

/// The most bytes of a segment.
pub const MAX_SEGMENT: u64 = 2 << 30;

/// Bytes of a frame's header.
pub const FRAME_HEADER: usize = 64;

/// The most bytes of a frame's payload, compressed or not.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// The next multiple of [`ALIGN`].
pub fn aligned(len: u64) -> u64 {
    len.next_multiple_of(ALIGN)
}

const _: () = assert!(SEGMENT_HEAD.is_multiple_of(ALIGN));
