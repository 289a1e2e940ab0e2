//! The faults that the bytes of a journal can have.

use super::layout::MAJOR;

/// A fault in bytes that should belong to a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The bytes end before the header does.
    #[error("it ends in the middle of a header")]
    Truncated,
    /// The bytes do not begin with a header's magic bytes.
    #[error("no header of a journal begins there")]
    Magic,
    /// A header's checksum does not match.
    #[error("the checksum of the header does not match")]
    Checksum,
    /// A payload's checksum does not match.
    #[error("the checksum of the payload does not match")]
    PayloadChecksum,
    /// A newer program wrote the bytes, in this format version.
    #[error("it has the format version {0}, and this program reads {MAJOR}: take a newer one")]
    Version(u16),
    /// The header of a frame or of a segment states this position in bytes, but stands at another one.
    #[error("the frame belongs at position {0}")]
    Position(u64),
    /// The frame has this unknown kind, or a known kind with unknown flags.
    #[error("frames of kind {0} are unknown: take a newer program")]
    Kind(u8),
    /// The payload is compressed with this unknown codec.
    #[error("payloads packed by codec {0} are unknown: take a newer program")]
    Codec(u8),
    /// A header field that this format version sets to 0 has this value.
    #[error("a header has {0:#x} where this program's journals have 0: take a newer one")]
    Reserved(u32),
    /// A length or a number exceeds the format's limits, leads beyond the segment's end, or contradicts another one.
    #[error("a length leads out of the segment")]
    Length,
    /// The frame does not state the checksum of the frame before it.
    #[error("the frame does not follow the one before it")]
    Chain,
    /// The frame has a lower incarnation than the frame before it.
    #[error("the frame is older than the one before it")]
    Incarnation,
    /// The segment's header has a higher incarnation than the segment's first frame.
    #[error("the head of the segment is younger than the frame in it")]
    Opening,
    /// The payload does not decompress to the length that its header states.
    #[error("the payload does not decompress to the length that it states")]
    Compression,
    /// The payload is compressed with zstd, which this build does not support.
    #[error("the payload is packed with zstd: build with the feature `zstd`")]
    NoZstd,
    /// An entry of a payload cannot be decoded, or has an offset below the end of its partition.
    #[error("an entry of the payload is malformed")]
    Entry,
    /// The state says that the segment with this number is the first needed one, but that segment does not exist.
    #[error("its state says that segment {0} is the first one that is needed, and the journal ends before that")]
    Floor(u64),
    /// The segment file has another segment's name. Its header states this number.
    #[error("its head says that it is segment {0}: `slipring journal repair` gives it back its name")]
    Misnamed(u64),
    /// The file belongs to another journal.
    #[error("it belongs to another journal")]
    OtherJournal,
    /// The snapshot at the head of the segment is incomplete, or a snapshot frame stands elsewhere.
    #[error("the snapshot at the segment's head is not whole")]
    Snapshot,
    /// The file has data after the last frame.
    #[error("there are bytes behind the last frame")]
    TrailingBytes,
    /// The segment's file is missing.
    #[error("the segment is missing")]
    Missing,
}
