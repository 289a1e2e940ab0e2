//! What is wrong with bytes that are no journal's.

use super::layout::MAJOR;

/// Bytes that are not what a journal writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Fewer bytes than a header has.
    #[error("it ends in the middle of a header")]
    Short,
    /// Nothing begins here.
    #[error("nothing of a journal begins there")]
    Magic,
    /// A checksum does not match.
    #[error("the checksum of the header does not match")]
    Checksum,
    /// A payload's checksum does not match.
    #[error("the checksum of the payload does not match")]
    PayloadChecksum,
    /// Written by a newer program.
    #[error("it has the format version {0}, and this program reads {MAJOR}: take a newer one")]
    Version(u16),
    /// A frame that belongs elsewhere.
    #[error("the frame belongs at position {0}")]
    Position(u64),
    /// A frame of an unknown kind.
    #[error("frames of kind {0} are unknown: take a newer program")]
    Kind(u8),
    /// A payload packed in an unknown way.
    #[error("payloads packed by codec {0} are unknown: take a newer program")]
    Codec(u8),
    /// A part of a header that every program of this version writes as zero.
    #[error("a header has {0:#x} where this program's journals have 0: take a newer one")]
    Reserved(u32),
    /// A length that nothing has.
    #[error("a length leads out of the segment")]
    Length,
    /// A frame that does not follow the one before.
    #[error("the frame does not follow the one before it")]
    Chain,
    /// A frame of an elder opening behind one of a younger.
    #[error("the frame is older than the one before it")]
    Incarnation,
    /// A segment's head of a younger opening than its first frame.
    #[error("the head of the segment is younger than the frame in it")]
    Opening,
    /// A payload that does not unpack.
    #[error("the payload does not unpack to the length that it states")]
    Packed,
    /// Packed with zstd, which this build has not.
    #[error("the payload is packed with zstd: build with the feature `zstd`")]
    NoZstd,
    /// An entry that is not what it says.
    #[error("an entry of the payload is not what it says")]
    Entry,
    /// A state that says that nothing is needed before a segment which is not there yet.
    #[error("its state begins at segment {0}, which is behind the end")]
    Floor(u64),
    /// A segment under the name of another one.
    #[error("its head says that it is segment {0}: `slipring journal repair` gives it back its name")]
    Misnamed(u64),
    /// Of another journal.
    #[error("it belongs to another journal")]
    Stranger,
    /// The head of the segment lacks its snapshot.
    #[error("the snapshot at the segment's head is not whole")]
    Snapshot,
    /// Bytes where there should be none.
    #[error("there are bytes behind the last frame")]
    Slack,
    /// A file that is not there.
    #[error("the segment is missing")]
    Missing,
}
