//! Committed offsets of transforms in their input topics, and which handle of a transform may commit.

use super::recorded::transform_offsets;
use crate::base::ids::TopicPartition;
use crate::log::catalog::{RecordedTopic, recorded_topics};
use crate::text;
use slipring_journal::{Journal, PartitionId, State};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The consumer name of a transform in reports of its input topic. Its colon is not allowed in other consumers' names.
pub(crate) fn reader_name(name: &str) -> String {
    format!("transform:{name}")
}

/// The state and the progress of a transform at one moment. `Display` writes it as text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransformDescription {
    /// The transform's name.
    pub name: String,
    /// The name of the input topic. Transforms with the same name and different inputs are independent.
    pub topic: String,
    /// The transform's state.
    pub state: TransformState,
    /// The progress in each partition of the input.
    pub partitions: Vec<TransformPartition>,
}

/// The state of a transform in this engine: if it runs, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransformState {
    /// The journal has committed offsets of the transform, but this engine has not opened it.
    Recorded,
    /// The transform is open, and the program calls [`step`](crate::transform::Transform::step).
    Open,
    /// The transform's handle was dropped.
    Dropped,
    /// The transform is [managed](crate::transform::Transform::run), and its threads run.
    Running,
    /// The transform has read its closed input to the end.
    Finished,
    /// The transform was stopped by the program.
    Stopped,
    /// The transform ended with this error because a topic of it was closed or halted before the input was read to its
    /// end, for example by a shutdown.
    Halted(String),
    /// The transform failed with this error, and reads no more of its input.
    Failed(String),
}

/// The [`word`](TransformState::word) of [`TransformState::Failed`].
pub(crate) const FAILED: &str = "failed";

impl TransformState {
    /// The state in one word, as metrics and tools show it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Open => "open",
            Self::Dropped => "dropped",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Halted(_) => "halted",
            Self::Failed(_) => FAILED,
        }
    }

    /// The error of a failed or halted transform; `None` in the other states.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Halted(cause) | Self::Failed(cause) => Some(cause),
            _ => None,
        }
    }
}

impl fmt::Display for TransformState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        self.cause().map_or(Ok(()), |cause| write!(f, ": {}", text::line(cause)))
    }
}

/// The progress of a transform in a partition of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransformPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset that the transform reads: its committed offset, or its start offset if it has committed none.
    pub committed: u64,
    /// How many events the journal has in the partition that the transform has not committed.
    pub lag: u64,
}

impl TransformDescription {
    /// How many events the journal has in all partitions together that the transform has not committed.
    pub fn lag(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.lag).sum()
    }
}

impl fmt::Display for TransformDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transform {}: lag {}", self.name, self.lag())?;
        match self.state {
            TransformState::Recorded | TransformState::Open => {}
            _ => write!(f, ", {}", self.state)?,
        }
        for TransformPartition { partition, committed, lag } in &self.partitions {
            write!(f, "\n  {partition}: committed {committed}, lag {lag}")?;
        }
        Ok(())
    }
}

/// The committed offsets of an engine's transforms, and which handle of each may commit. The lock is not held while a
/// thread waits for the journal.
#[derive(Default)]
pub(crate) struct TransformOffsets {
    /// The transforms by name and the number of the input topic in the journal.
    list: Mutex<BTreeMap<(String, u32), TransformOffset>>,
    /// True if the tests' fault is turned on that lets a fenced handle commit.
    no_epoch_check: bool,
}

struct TransformOffset {
    /// The epoch of the handle that was opened last: how often the transform was opened in this engine.
    epoch: u64,
    /// The committed offset of each partition: the next offset to be read.
    offsets: BTreeMap<u32, u64>,
    /// The start offset of each partition that does not start at its earliest record.
    starts: BTreeMap<u32, u64>,
    state: TransformState,
}

impl TransformOffsets {
    pub(crate) fn new(no_epoch_check: bool) -> Self {
        Self { no_epoch_check, ..Self::default() }
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<(String, u32), TransformOffset>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a transform, and fences its earlier handle. `at` is the transform's name and the number of its input
    /// topic. `recorded` has the committed offsets that the journal had when the engine opened it; they are used only
    /// if this engine has not opened the transform before. Returns the epoch of the new handle, and the committed
    /// offset of each partition that has one.
    pub(crate) fn take_over(&self, at: (String, u32), recorded: BTreeMap<u32, u64>) -> (u64, BTreeMap<u32, u64>) {
        let mut list = self.list();
        let unknown =
            || TransformOffset { epoch: 0, offsets: recorded, starts: BTreeMap::new(), state: TransformState::Open };
        let offset = list.entry(at).or_insert_with(unknown);
        offset.epoch += 1;
        (offset.state, offset.starts) = (TransformState::Open, BTreeMap::new());
        (offset.epoch, offset.offsets.clone())
    }

    /// Sets the committed offsets of the partitions in `to`. Returns false, and changes nothing, if the transform was
    /// opened again after the handle with this epoch, or its input topic was deleted.
    pub(crate) fn move_on(&self, at: &(String, u32), epoch: u64, to: BTreeMap<u32, u64>) -> bool {
        match self.list().get_mut(at) {
            Some(offset) if offset.epoch == epoch || self.no_epoch_check => {
                offset.offsets.extend(to);
                true
            }
            _ => false,
        }
    }

    /// Sets the start offsets of the handle with this epoch. Does nothing if the transform was opened again after it.
    pub(crate) fn note_starts(&self, at: &(String, u32), epoch: u64, starts: BTreeMap<u32, u64>) {
        if let Some(offset) = self.list().get_mut(at).filter(|offset| offset.epoch == epoch) {
            offset.starts = starts;
        }
    }

    /// Sets the state of the handle with this epoch. Does nothing if the transform was opened again after it.
    pub(crate) fn note_state(&self, at: &(String, u32), epoch: u64, state: TransformState) {
        if let Some(offset) = self.list().get_mut(at).filter(|offset| offset.epoch == epoch) {
            offset.state = state;
        }
    }

    /// Changes the state of the handle with this epoch from open to dropped. Does nothing in any other state, or if the
    /// transform was opened again after this handle.
    pub(crate) fn note_dropped(&self, at: &(String, u32), epoch: u64) {
        let is_open = |offset: &&mut TransformOffset| offset.epoch == epoch && offset.state == TransformState::Open;
        if let Some(offset) = self.list().get_mut(at).filter(is_open) {
            offset.state = TransformState::Dropped;
        }
    }

    /// Describes all transforms: those that this engine has opened, and those that only the journal's `state` has.
    pub(crate) fn describe(&self, state: &State, journal: &Journal) -> Vec<TransformDescription> {
        let topics: BTreeMap<u32, RecordedTopic> =
            recorded_topics(state).into_iter().map(|it| (it.number, it)).collect();
        let mut all: BTreeMap<(String, u32), (TransformState, BTreeMap<u32, u64>)> = BTreeMap::new();
        for it in transform_offsets(state) {
            let known = all.entry((it.group, it.of.topic)).or_insert((TransformState::Recorded, BTreeMap::new()));
            known.1.insert(it.of.partition, it.offset);
        }
        for (at, offset) in self.list().iter() {
            let known = all.entry(at.clone()).or_insert((TransformState::Recorded, BTreeMap::new()));
            known.0 = offset.state.clone();
            let offsets = offset.starts.iter().chain(&offset.offsets);
            known.1.extend(offsets.map(|(partition, next)| (*partition, *next)));
        }
        let described = all.into_iter().filter_map(|((name, number), (state, offsets))| {
            // `None` if the transform's input topic was deleted.
            let topic = topics.get(&number)?;
            let partitions = (0..topic.partitions).filter_map(|partition| {
                let of = PartitionId { topic: number, partition };
                let extent = journal.extent(of)?;
                let committed = offsets.get(&partition).copied().unwrap_or(extent.start);
                let lag = journal.records_in(of, committed..extent.end);
                let partition = TopicPartition::new(topic.name.as_str(), partition);
                Some(TransformPartition { partition, committed, lag })
            });
            let partitions = partitions.collect();
            Some(TransformDescription { name, topic: topic.name.clone(), state, partitions })
        });
        described.collect()
    }

    /// The [names](reader_name) of the transforms of this topic that are open or run.
    pub(crate) fn readers(&self, topic: u32) -> Vec<String> {
        let list = self.list();
        let reads = |offset: &TransformOffset| matches!(offset.state, TransformState::Open | TransformState::Running);
        list.iter()
            .filter(|((_, of), offset)| *of == topic && reads(offset))
            .map(|((name, _), _)| reader_name(name))
            .collect()
    }

    /// Removes the transforms whose input topic was deleted. Their handles can no longer commit.
    pub(crate) fn forget_topic(&self, topic: u32) {
        self.list().retain(|(_, of), _| *of != topic);
    }

    pub(crate) fn is_held(&self, at: &(String, u32), epoch: u64) -> bool {
        self.list().get(at).is_some_and(|offset| offset.epoch == epoch || self.no_epoch_check)
    }
}
