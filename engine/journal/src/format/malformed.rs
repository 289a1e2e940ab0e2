//! What can be wrong with the bytes of a journal.

use super::layout::MAJOR;

/// What is wrong with bytes that should be a journal's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// There are fewer bytes than a header has.
    #[error("it ends in the middle of a header")]
    Truncated,
    /// The bytes do not begin as a header does.
    #[error("no header of a journal begins there")]
    Magic,
    /// A header's checksum does not match.
    #[error("the checksum of the header does not match")]
    Checksum,
    /// A payload's checksum does not match.
    #[error("the checksum of the payload does not match")]
    PayloadChecksum,
    /// A newer program wrote it.
    #[error("it has the format version {0}, and this program reads {MAJOR}: take a newer one")]
    Version(u16),
    /// The frame states another position.
    #[error("the frame belongs at position {0}")]
    Position(u64),
    /// The frame has an unknown kind.
    #[error("frames of kind {0} are unknown: take a newer program")]
    Kind(u8),
    /// The payload is compressed by an unknown codec.
    #[error("payloads packed by codec {0} are unknown: take a newer program")]
    Codec(u8),
    /// A field of a header that this format version leaves at zero is not zero.
    #[error("a header has {0:#x} where this program's journals have 0: take a newer one")]
    Reserved(u32),
    /// A length or a number is impossible.
    #[error("a length leads out of the segment")]
    Length,
    /// The frame does not state the checksum of the frame before it.
    #[error("the frame does not follow the one before it")]
    Chain,
    /// The frame is of an earlier opening than the frame before it.
    #[error("the frame is older than the one before it")]
    Incarnation,
    /// The segment's header is of a later opening than its first frame.
    #[error("the head of the segment is younger than the frame in it")]
    Opening,
    /// The payload does not decompress to the length that its header states.
    #[error("the payload does not decompress to the length that it states")]
    Compression,
    /// The payload is compressed with zstd, which this build lacks.
    #[error("the payload is packed with zstd: build with the feature `zstd`")]
    NoZstd,
    /// An entry is not what its header states.
    #[error("an entry of the payload is malformed")]
    Entry,
    /// The state says that no segment before this number is needed, and there is no segment of this number.
    #[error("its state says that segment {0} is the first one that is needed, and the journal ends before that")]
    Floor(u64),
    /// The segment file has the name of another segment.
    #[error("its head says that it is segment {0}: `slipring journal repair` gives it back its name")]
    Misnamed(u64),
    /// It belongs to another journal.
    #[error("it belongs to another journal")]
    OtherJournal,
    /// The snapshot at the head of the segment is incomplete.
    #[error("the snapshot at the segment's head is not whole")]
    Snapshot,
    /// There are bytes behind the last frame.
    #[error("there are bytes behind the last frame")]
    TrailingBytes,
    /// The file is missing.
    #[error("the segment is missing")]
    Missing,
}
