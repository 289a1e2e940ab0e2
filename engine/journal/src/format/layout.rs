//! Sizes and limits of the format.

/// The version that this program writes, and the newest that it reads. All versions from 1 on are read for ever.
pub const MAJOR: u16 = 2;

/// Frames begin at multiples of it, so that they are found again behind damage.
pub const ALIGN: u64 = 64;

/// Where the first frame of a segment begins: the header has a sector of its own, which is written once.
pub const SEGMENT_HEAD: u64 = 512;

/// Positions, offsets and numbers of segments stay below it, in all that is written and all that is believed: sums of a few of
/// them need no further look.
pub const MAX_POSITION: u64 = 1 << 62;

/// No segment is larger.
pub const MAX_SEGMENT: u64 = 2 << 30;

/// Bytes of a frame's header.
pub const FRAME_HEADER: usize = 64;

/// No frame's payload is larger, packed or not.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// The next multiple of [`ALIGN`].
pub fn aligned(len: u64) -> u64 {
    len.next_multiple_of(ALIGN)
}

const _: () = assert!(SEGMENT_HEAD.is_multiple_of(ALIGN));
