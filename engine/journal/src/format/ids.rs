//! What journals and partitions are called by.

/// Sixteen random bytes that every checksum of a journal begins with, so that a stranger's bytes never pass.
pub type JournalId = [u8; 16];

/// A partition of a topic, by the topic's number in the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The topic.
    pub topic: u32,
    /// The partition in it.
    pub partition: u32,
}
