//! Where groups stand, as a journal has it: for those who look at it without the groups.

use super::bookmark::{key, key_parts, value, value_parts};
use super::describe::{GroupDescription, GroupPartition, GroupState};
use super::listener::TopicPartition;
use crate::durable::what;
use crate::journal::{FrameBuilder, Journal, PartitionId, State, catalogue};
use std::collections::BTreeMap;

/// Where a group stands in a partition, in a journal: see [`group_offsets`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupOffset {
    /// The group's name.
    pub group: String,
    /// The partition.
    pub of: PartitionId,
    /// The next offset that the group reads.
    pub offset: u64,
    /// The group's epoch when it was committed.
    pub epoch: u64,
}

impl GroupOffset {
    /// Of this group, this partition, this offset.
    pub fn new(group: impl Into<String>, of: PartitionId, offset: u64, epoch: u64) -> Self {
        Self { group: group.into(), of, offset, epoch }
    }

    /// Has `frame` say so. For journals that no engine has open: an engine would not notice.
    pub fn put(&self, frame: &mut FrameBuilder) {
        frame.put(what::GROUPS, &key(&self.group, self.of), &value(self.offset, self.epoch));
    }

    /// Has `frame` forget it: the group has never read this partition then.
    pub fn delete(&self, frame: &mut FrameBuilder) {
        frame.delete(what::GROUPS, &key(&self.group, self.of));
    }
}

/// Where groups stand in a journal, by group, topic and partition.
pub fn group_offsets(state: &State) -> Vec<GroupOffset> {
    let known = state.values(what::GROUPS).filter_map(|(key, value)| {
        let ((group, of), (offset, epoch)) = (key_parts(key)?, value_parts(value)?);
        Some(GroupOffset::new(group, of, offset, epoch))
    });
    let mut known: Vec<_> = known.collect();
    known.sort_by(|a, b| (&a.group, a.of).cmp(&(&b.group, b.of)));
    known
}

/// Adds what the journal had when it was opened, and nobody has joined since.
pub(crate) fn add_recorded(groups: &mut Vec<GroupDescription>, state: &State, journal: &Journal) {
    let topics: BTreeMap<u32, String> = catalogue(state).into_iter().map(|topic| (topic.number, topic.name)).collect();
    for GroupOffset { group, of, offset, epoch } in group_offsets(state) {
        let Some(topic) = topics.get(&of.topic) else { continue };
        let known = groups.iter().any(|it| it.name == group && it.partition(topic, of.partition).is_some());
        // A topic that was deleted since.
        let extent = journal.extent(of).filter(|extent| !known && extent.end >= offset);
        let Some(extent) = extent else { continue };
        let stands = GroupPartition {
            partition: TopicPartition::new(topic.as_str(), of.partition),
            committed: Some(offset),
            earliest: extent.start,
            latest: extent.end,
            lag: extent.end - offset,
            gates: false,
            behind: false,
            member: None,
        };
        match groups.iter_mut().find(|it| it.name == group) {
            Some(known) => known.partitions.push(stands),
            None => groups.push(GroupDescription {
                name: group,
                state: GroupState::Empty,
                epoch,
                assignor: Default::default(),
                hold: false,
                skipped: 0,
                members: Vec::new(),
                partitions: vec![stands],
            }),
        }
    }
}
