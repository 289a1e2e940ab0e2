//! The ids of journals and partitions.

/// Sixteen random bytes. Every checksum of a journal's frames begins with them, so that no other journal's frame passes for
/// one of this journal's.
pub type JournalId = [u8; 16];

/// A partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The topic's number in the catalogue.
    pub topic: u32,
    /// The partition's number in the topic.
    pub partition: u32,
}
