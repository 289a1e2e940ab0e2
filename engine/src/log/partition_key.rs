//! Keys of state that belongs to a name in a partition: the topic's number in the journal, the partition's number, then
//! the name as text.

use slipring_journal::PartitionId;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The fixed part of a key's bytes: the topic's number in the journal and the partition's number.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawPartitionId {
    topic: U32,
    partition: U32,
}

impl From<PartitionId> for RawPartitionId {
    fn from(of: PartitionId) -> Self {
        Self { topic: of.topic.into(), partition: of.partition.into() }
    }
}

impl From<RawPartitionId> for PartitionId {
    fn from(raw: RawPartitionId) -> Self {
        Self { topic: raw.topic.get(), partition: raw.partition.get() }
    }
}

/// The key of the name `name` in the partition `of`.
pub(crate) fn key(name: &str, of: PartitionId) -> Vec<u8> {
    [RawPartitionId::from(of).as_bytes(), name.as_bytes()].concat()
}

/// The name and the partition in a key; `None` if the key is too short or the name is not UTF-8.
pub(crate) fn key_parts(key: &[u8]) -> Option<(&str, PartitionId)> {
    let (of, name) = RawPartitionId::read_from_prefix(key).ok()?;
    Some((std::str::from_utf8(name).ok()?, of.into()))
}

/// The topic's number in a key; `None` if the key is too short. The name in the key need not be UTF-8.
pub(crate) fn key_topic(key: &[u8]) -> Option<u32> {
    Some(RawPartitionId::read_from_prefix(key).ok()?.0.topic.get())
}
