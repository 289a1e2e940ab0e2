//! The ids of journals and partitions.

/// Sixteen random bytes. The checksum of each frame header covers them, so that a frame of another journal is refused.
pub type JournalId = [u8; 16];

/// A partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The topic's number in the catalogue.
    pub topic: u32,
    /// The partition's number in the topic.
    pub partition: u32,
}
