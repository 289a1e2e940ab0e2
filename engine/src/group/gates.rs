//! The group's consumers in the rings of its partitions: joining rings, replacing the consumers of fenced members, and
//! setting the offsets of partitions that no member has.

use super::assigned_partition::locate;
use super::assignment::PartitionKey;
use super::state::{PartitionEntry, SharedState};
use super::{Group, GroupError, NumberedTopics};
use crate::base::ids::TopicPartition;
use crate::base::kind::Producers;
use crate::log::offsets::commit_word::Metadata;
use crate::read::error::PositionError;
use crate::read::{PartitionConsumer, StartAt};
use crate::topic::TopicCore;
use crate::topic::stage_name::{join_stage, stage_name, without_generation};
use slipring_ring::{BuildError, Closed, Consumer, Sequence, Start};
use std::collections::BTreeMap;
use std::sync::Arc;

impl<E: Send + Sync + 'static, K: Producers> Group<E, K> {
    /// Writes the group's committed offsets to the journal, and waits until they are durable. Does nothing if none of
    /// `topics` is durable.
    pub(super) fn write_down(&self, topics: &[Arc<TopicCore<E, K>>]) -> Result<(), GroupError> {
        let Some(durable) = topics.iter().find_map(|topic| topic.durable.as_ref()) else { return Ok(()) };
        let refused = |cause| GroupError::NotWritten { group: self.name.clone(), cause };
        durable.committer.commit_offsets().map_err(refused)
    }

    /// Makes the group read the partitions of `topics` that it does not read now. Each starts at its committed offset
    /// or, if there is none, at the start of its last reset, else at `start`. For a topic in memory this joins the
    /// ring. A partition of a durable topic is read from the journal if the ring cannot be joined at that offset.
    /// Returns true if a durable partition got its first committed offset, which the caller must then write to the
    /// journal.
    pub(super) fn open_gates(
        &self,
        state: &mut SharedState<E, K>,
        topics: &NumberedTopics<'_, E, K>,
        start: &StartAt,
    ) -> Result<bool, GroupError> {
        let epoch = state.coordinator.epoch();
        // Either all partitions are joined or none: before the group's state changes, a consumer has joined, or the
        // journal has the offset, in each partition.
        let mut opened = Vec::new();
        for (id, entry) in state.entries.iter().filter(|(_, entry)| !entry.is_open()) {
            let Some(topic) = topics.get(&id.topic) else { continue };
            if entry.committed_offset.is_some() {
                let at = match entry.committed {
                    Some(committed) => committed,
                    None if *start == StartAt::Committed => return Err(self.never_read(entry)),
                    None => locate(&self.name, topic, &entry.partition, start, 0)?,
                };
                let goes_on = entry.committed.is_some();
                opened.push((*id, at, self.open_durable(entry, at, topic, goes_on)?, goes_on));
                continue;
            }
            let consumer = match (entry.committed, &entry.reset) {
                (Some(committed), _) => {
                    let refused = |cause| GroupError::join(&self.name, &topic.name, id.partition, cause);
                    let at = Start::At(Sequence(committed));
                    join_stage(&self.name, at, |stage| entry.partition.ring.join(stage)).map_err(refused)?
                }
                (None, Some(reset)) => self.begin(entry, reset, topic)?,
                (None, None) if *start == StartAt::Committed => return Err(self.never_read(entry)),
                (None, None) => self.begin(entry, start, topic)?,
            };
            opened.push((*id, consumer.consumed().0, Some(consumer), true));
        }
        let mut begun = false;
        for (id, at, consumer, goes_on) in opened {
            let Some(entry) = state.entries.get_mut(&id) else { continue };
            if let Some(committed_offset) = entry.committed_offset.as_ref().filter(|_| !goes_on) {
                committed_offset.set(at, None, epoch);
                begun = true;
            }
            if entry.committed != Some(at) {
                entry.metadata = None;
            }
            (entry.committed, entry.reset) = (Some(at), None);
            (entry.catching_up, entry.consumer) = (consumer.is_none(), consumer);
        }
        Ok(begun)
    }

    fn never_read(&self, entry: &PartitionEntry<E, K>) -> GroupError {
        let (group, TopicPartition { topic, partition }) = (self.name.clone(), entry.name.clone());
        GroupError::NothingCommitted { group, topic: topic.to_string(), partition }
    }

    /// Joins a consumer at offset `at` of a partition of a durable topic. `None` if the group continues in the journal,
    /// because the ring no longer has that offset or is closed. `goes_on` is true if the group has read the partition
    /// before: only then is a closed topic no error, but read from the journal. A topic that was halted or has failed is
    /// always an error. Leaves `entry` as it is.
    fn open_durable(
        &self,
        entry: &PartitionEntry<E, K>,
        at: u64,
        topic: &TopicCore<E, K>,
        goes_on: bool,
    ) -> Result<Option<Consumer<E, K>>, GroupError> {
        let ring = &entry.partition.ring;
        match join_stage(&self.name, Start::At(Sequence(at)), |stage| ring.join(stage)) {
            Ok(consumer) => Ok(Some(consumer)),
            // An error if the journal does not have the offset either.
            Err(BuildError::OutOfRange { .. }) => {
                locate(&self.name, topic, &entry.partition, &StartAt::Offset(at), at).map(|_| None)
            }
            Err(BuildError::Closed(Closed::Closed | Closed::Finished)) if goes_on => Ok(None),
            Err(cause) => Err(GroupError::join(&self.name, &topic.name, entry.partition.index, cause)),
        }
    }

    /// Joins a consumer to a partition of a topic in memory, at `start`, and returns it. Leaves `entry` as it is.
    fn begin(
        &self,
        entry: &PartitionEntry<E, K>,
        start: &StartAt,
        topic: &TopicCore<E, K>,
    ) -> Result<Consumer<E, K>, GroupError> {
        if matches!(start, StartAt::Timestamp(_)) && !topic.settings.timestamps {
            return Err(PositionError::NoTimestamps { topic: topic.name.clone() }.into());
        }
        let index = entry.partition.index;
        let joined = join_stage(&self.name, start.in_ring(index), |stage| entry.partition.ring.join(stage));
        let consumer = joined.map_err(|cause| GroupError::join(&self.name, &topic.name, index, cause))?;
        let mut part = PartitionConsumer { partition: Arc::clone(&entry.partition), consumer };
        part.move_to_start(start, topic)
            .map_err(|refused| GroupError::OutOfRange { group: self.name.clone(), refused })?;
        Ok(part.consumer)
    }

    /// Takes a partition from a fenced member: joins a new consumer at the committed offset for the successor, and only
    /// then evicts the fenced member's consumer, so that no unread event is overwritten in between.
    pub(super) fn take_from_fenced(&self, entry: &mut PartitionEntry<E, K>) {
        let Some(right) = entry.right.take() else { return };
        let committed = entry.fence(&right);
        entry.ended = false;
        let ring = &entry.partition.ring;
        // The stages are read after the fence. If the fenced member joins a consumer after this, it sees the fence and
        // drops the consumer.
        let old: Vec<_> = ring.positions().stages.into_iter().map(|stage| stage.name).collect();
        let mut at = Sequence(committed);
        entry.consumer = loop {
            // `take_over` is allowed in a closed ring too, unlike `join`.
            match join_stage(&self.name, Start::At(at), |stage| ring.take_over("", stage)) {
                Ok(consumer) => break Some(consumer),
                Err(BuildError::OutOfRange { .. } | BuildError::Closed(_)) if entry.committed_offset.is_some() => {
                    entry.catching_up = true;
                    break None;
                }
                // The fenced member's position is after its committed offset, and events before it were overwritten.
                // That is possible only if these were slots without an event, which it had skipped. So the successor
                // starts after them, at the earliest offset in the ring.
                Err(BuildError::OutOfRange { earliest, .. }) if earliest.since(at) > 0 => at = earliest,
                // The topic was halted or has failed. The successor gets that error in its update.
                Err(_) => break None,
            }
        };
        for stage in old.iter().filter(|stage| without_generation(stage) == stage_name(&self.name, 0)) {
            let _ = ring.evict(stage);
        }
    }

    /// Sets the group's committed offsets in `topics` to `start`, and waits until they are durable. An error if the
    /// group has members.
    pub(super) fn reset(&self, topics: &[Arc<TopicCore<E, K>>], start: &StartAt) -> Result<(), GroupError> {
        let now = self.now();
        let readers: Vec<_> = topics.iter().map(|topic| topic.readers()).collect();
        let mut state = self.state();
        self.expire(&mut state, now);
        self.refuse_members(&state)?;
        let numbered: NumberedTopics<'_, E, K> =
            topics.iter().map(|topic| (state.number_of(&self.name, topic), topic)).collect();
        // Either all partitions are reset or none: before any offset changes, the start offset is found, and a consumer
        // has joined if the group needs one, in each partition.
        let (hold, epoch) = (state.hold, state.coordinator.epoch());
        let (mut probes, mut entries) = (BTreeMap::new(), BTreeMap::new());
        for (&id, entry) in &state.entries {
            let Some(topic) = numbered.get(&id.topic) else { continue };
            match (entry.committed, &entry.committed_offset) {
                (None, _) if *start == StartAt::Committed => return Err(self.never_read(entry)),
                (Some(_), _) if *start == StartAt::Committed => {}
                (committed, Some(_)) => {
                    let committed = committed.unwrap_or_default();
                    let at = locate(&self.name, topic, &entry.partition, start, committed)?;
                    let held = if hold { Some(self.open_durable(entry, at, topic, false)?) } else { None };
                    entries.insert(id, (at, held));
                }
                (_, None) => _ = probes.insert(id, self.begin(entry, start, topic)?),
            }
        }
        for (id, (at, held)) in entries {
            let Some(entry) = state.entries.get_mut(&id) else { continue };
            (entry.committed, entry.metadata, entry.ended) = (Some(at), None, false);
            entry.catching_up = matches!(held, Some(None));
            entry.consumer = held.flatten();
            if let Some(committed_offset) = &entry.committed_offset {
                committed_offset.set(at, None, epoch);
            }
        }
        for (id, probe) in probes {
            let Some(entry) = state.entries.get_mut(&id) else { continue };
            (entry.metadata, entry.ended) = (None, false);
            if hold {
                (entry.committed, entry.reset, entry.consumer) = (Some(probe.consumed().0), None, Some(probe));
            } else {
                // The start offset is found again when the next member joins.
                (entry.committed, entry.reset, entry.consumer) = (None, Some(start.clone()), None);
            }
        }
        drop(state);
        drop(readers);
        self.write_down(topics)
    }

    /// Sets the committed offset of one partition, which no member may have, to `to`, with `metadata`, and waits until that
    /// is durable. Returns the offset.
    pub(super) fn set_offset(
        &self,
        topic: &Arc<TopicCore<E, K>>,
        partition: u32,
        to: &StartAt,
        metadata: Option<Metadata>,
    ) -> Result<u64, GroupError> {
        let now = self.now();
        let readers = topic.readers();
        let mut state = self.state();
        self.expire(&mut state, now);
        let number = state.number_of(&self.name, topic);
        self.settle(&mut state);
        let id = PartitionKey { topic: number, partition };
        let (owner, hold, epoch) = (state.coordinator.owner(id), state.hold, state.coordinator.epoch());
        let Some(entry) = state.entries.get_mut(&id) else {
            let (group, topic, partitions) = (self.name.clone(), topic.name.clone(), topic.partitions().len());
            return Err(GroupError::NoPartition { group, topic, partition, partitions });
        };
        if owner.is_some() || entry.right.is_some() {
            let (group, topic) = (self.name.clone(), topic.name.clone());
            return Err(GroupError::Owned { group, topic, partition, member: owner });
        }
        // Before the offset changes, the consumer of a group that holds producers has joined there.
        let (at, consumer) = match (to, entry.committed, &entry.committed_offset) {
            (StartAt::Committed, None, _) => return Err(self.never_read(entry)),
            (StartAt::Committed, Some(committed), _) => {
                entry.metadata = metadata.clone();
                (committed, None)
            }
            (_, committed, Some(_)) => {
                let at = locate(&self.name, topic, &entry.partition, to, committed.unwrap_or_default())?;
                let held = if hold { Some(self.open_durable(entry, at, topic, false)?) } else { None };
                (at, Some(held))
            }
            (_, _, None) => {
                let consumer = self.begin(entry, to, topic)?;
                (consumer.consumed().0, Some(hold.then_some(Some(consumer))))
            }
        };
        let mut before = None;
        if let Some(held) = consumer {
            (entry.committed, entry.metadata) = (Some(at), metadata.clone());
            (entry.reset, entry.ended, entry.catching_up) = (None, false, matches!(held, Some(None)));
            before = std::mem::replace(&mut entry.consumer, held.flatten());
        }
        if let Some(committed_offset) = &entry.committed_offset {
            committed_offset.set(at, metadata, epoch);
        }
        drop(state);
        drop(readers);
        drop(before);
        self.write_down(std::slice::from_ref(topic))?;
        Ok(at)
    }
}
