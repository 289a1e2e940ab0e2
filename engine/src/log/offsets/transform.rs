//! Offsets that transforms have committed in their inputs, and which handle of a transform may commit.

use super::recorded::transform_offsets;
use crate::base::ids::TopicPartition;
use crate::log::catalog::recorded_topics;
use slipring_journal::{Journal, PartitionId, State};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The bytes of a key of [`TRANSFORM_OFFSETS`](crate::log::catalog::state_kind::TRANSFORM_OFFSETS). The value is the next
/// offset, 8 bytes, little endian.
pub(crate) fn key(name: &str, topic: u32, partition: u32) -> Vec<u8> {
    [&topic.to_le_bytes()[..], &partition.to_le_bytes(), name.as_bytes()].concat()
}

/// What a key says: the transform's name, and a partition of its input.
pub(crate) fn key_parts(key: &[u8]) -> Option<(&str, PartitionId)> {
    let (topic, rest) = key.split_first_chunk()?;
    let (partition, name) = rest.split_first_chunk()?;
    let of = PartitionId { topic: u32::from_le_bytes(*topic), partition: u32::from_le_bytes(*partition) };
    Some((std::str::from_utf8(name).ok()?, of))
}

/// What a transform is called among the consumers of its input. No user's consumer may have such a name.
pub(crate) fn reader_name(name: &str) -> String {
    format!("transform:{name}")
}

/// How far a transform has come, at a moment. Its `Display` is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransformDescription {
    /// Its name.
    pub name: String,
    /// Each partition of its input in which it has committed something.
    pub partitions: Vec<TransformPartition>,
}

/// How far a transform has come in a partition of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransformPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset that it reads.
    pub committed: u64,
    /// How many events are in the journal that it has not committed.
    pub lag: u64,
}

impl TransformDescription {
    /// How many events are in the journal that it has not committed, in all partitions.
    pub fn lag(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.lag).sum()
    }
}

impl fmt::Display for TransformDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transform {}: lag {}", self.name, self.lag())?;
        for TransformPartition { partition, committed, lag } in &self.partitions {
            write!(f, "\n  {partition}: committed {committed}, lag {lag}")?;
        }
        Ok(())
    }
}

/// The committed offsets of an engine's transforms, and which handle may move them. Its lock is never held while somebody
/// waits for the journal.
#[derive(Default)]
pub(crate) struct TransformOffsets {
    /// By the transform's name and the topic's number in the journal.
    list: Mutex<BTreeMap<(String, u32), TransformOffset>>,
    /// A fault for tests: a handle that was taken over may commit.
    no_epoch_check: bool,
}

struct TransformOffset {
    /// The epoch of the handle that was opened last.
    epoch: u64,
    /// The next offset, by partition.
    offsets: BTreeMap<u32, u64>,
}

impl TransformOffsets {
    pub(crate) fn new(no_epoch_check: bool) -> Self {
        Self { no_epoch_check, ..Self::default() }
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<(String, u32), TransformOffset>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a transform, and fences the handle that had it before. `recorded` is what the journal had when it was opened.
    /// Returns the new epoch, and the offsets.
    pub(crate) fn take_over(&self, at: (String, u32), recorded: BTreeMap<u32, u64>) -> (u64, BTreeMap<u32, u64>) {
        let mut list = self.list();
        let offset = list.entry(at).or_insert(TransformOffset { epoch: 0, offsets: recorded });
        offset.epoch += 1;
        (offset.epoch, offset.offsets.clone())
    }

    /// Moves the offsets. False, and nothing moves, if another handle has taken over.
    pub(crate) fn move_on(&self, at: &(String, u32), epoch: u64, to: BTreeMap<u32, u64>) -> bool {
        match self.list().get_mut(at) {
            Some(offset) if offset.epoch == epoch || self.no_epoch_check => {
                offset.offsets.extend(to);
                true
            }
            _ => false,
        }
    }

    /// All transforms: those that were opened, and those that `state` has from before.
    pub(crate) fn describe(&self, state: &State, journal: &Journal) -> Vec<TransformDescription> {
        let topics: BTreeMap<u32, String> = recorded_topics(state).into_iter().map(|it| (it.number, it.name)).collect();
        let recorded = transform_offsets(state).into_iter().map(|it| ((it.group, it.of), it.offset));
        let mut all: BTreeMap<(String, PartitionId), u64> = recorded.collect();
        for ((name, topic), offset) in self.list().iter() {
            let offsets = offset.offsets.iter();
            let of = |partition: &u32| PartitionId { topic: *topic, partition: *partition };
            all.extend(offsets.map(|(partition, next)| ((name.clone(), of(partition)), *next)));
        }
        let mut described: Vec<TransformDescription> = Vec::new();
        for ((name, of), committed) in all {
            // The topic was deleted since.
            let (Some(topic), Some(extent)) = (topics.get(&of.topic), journal.extent(of)) else { continue };
            let lag = journal.records_in(of, committed..extent.end);
            let partition = TopicPartition::new(topic.as_str(), of.partition);
            if described.last().is_none_or(|last| last.name != name) {
                described.push(TransformDescription { name, partitions: Vec::new() });
            }
            if let Some(last) = described.last_mut() {
                last.partitions.push(TransformPartition { partition, committed, lag });
            }
        }
        described
    }

    /// The topic was deleted: nobody commits in it any more.
    pub(crate) fn forget_topic(&self, topic: u32) {
        self.list().retain(|(_, of), _| *of != topic);
    }

    pub(crate) fn is_held(&self, at: &(String, u32), epoch: u64) -> bool {
        self.list().get(at).is_some_and(|offset| offset.epoch == epoch || self.no_epoch_check)
    }
}
