//! The error for an offset that a partition does not keep.

/// The error for an offset at which no reader can begin or continue: the offset is no longer kept, or lies after the
/// next offset to be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "offset {asked} of partition {partition} of topic {topic:?} is out of range: the earliest that is kept is {earliest}, the next to be published is {latest}"
)]
#[non_exhaustive]
pub struct OutOfRange {
    /// The topic's name.
    pub topic: String,
    /// The partition's number, from 0.
    pub partition: u32,
    /// The refused offset.
    pub asked: u64,
    /// The earliest offset that the partition keeps.
    pub earliest: u64,
    /// The next offset to be published, which is the last one at which reading can begin.
    pub latest: u64,
}

impl OutOfRange {
    pub(crate) fn new(topic: &str, partition: u32, asked: u64, earliest: u64, latest: u64) -> Self {
        Self { topic: topic.to_owned(), partition, asked, earliest, latest }
    }
}
