//! Where groups stand, as a journal has it: for those who look at it without the groups.

use super::group::{key, key_parts, value, value_parts};
use super::transform;
use crate::log::catalog::state_kind;
use slipring_journal::{FrameBuilder, PartitionId, State};

/// Who stands in a partition: names of the one have nothing to do with names of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GroupKind {
    /// A group.
    Group,
    /// A [transform](crate::transform::Transform), which has no epoch in the journal.
    Transform,
}

/// Where a group or a transform stands in a partition, in a journal: see [`group_offsets`] and [`transform_offsets`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupOffset {
    /// Which of them.
    pub kind: GroupKind,
    /// The name.
    pub group: String,
    /// The partition.
    pub of: PartitionId,
    /// The next offset that the group reads.
    pub offset: u64,
    /// The group's epoch when it was committed; 0 for a transform.
    pub epoch: u64,
}

impl GroupOffset {
    /// Of this group, this partition, this offset.
    pub fn new(group: impl Into<String>, of: PartitionId, offset: u64, epoch: u64) -> Self {
        Self { kind: GroupKind::Group, group: group.into(), of, offset, epoch }
    }

    /// Of this transform, this partition of its input, this offset.
    pub fn of_transform(name: impl Into<String>, of: PartitionId, offset: u64) -> Self {
        Self { kind: GroupKind::Transform, group: name.into(), of, offset, epoch: 0 }
    }

    /// Has `frame` say so. For journals that no engine has open: an engine would not notice.
    pub fn put(&self, frame: &mut FrameBuilder) {
        match self.kind {
            GroupKind::Group => frame.put(state_kind::GROUP_OFFSETS, &self.key(), &value(self.offset, self.epoch)),
            GroupKind::Transform => frame.put(state_kind::TRANSFORM_OFFSETS, &self.key(), &self.offset.to_le_bytes()),
        }
    }

    /// Has `frame` forget it: this partition was never read then.
    pub fn delete(&self, frame: &mut FrameBuilder) {
        match self.kind {
            GroupKind::Group => frame.delete(state_kind::GROUP_OFFSETS, &self.key()),
            GroupKind::Transform => frame.delete(state_kind::TRANSFORM_OFFSETS, &self.key()),
        }
    }

    fn key(&self) -> Vec<u8> {
        match self.kind {
            GroupKind::Group => key(&self.group, self.of),
            GroupKind::Transform => transform::key(&self.group, self.of.topic, self.of.partition),
        }
    }
}

/// Where transforms stand in a journal, by name, topic and partition.
pub fn transform_offsets(state: &State) -> Vec<GroupOffset> {
    let known = state.values(state_kind::TRANSFORM_OFFSETS).filter_map(|(key, value)| {
        let (name, of) = transform::key_parts(key)?;
        Some(GroupOffset::of_transform(name, of, u64::from_le_bytes(value.try_into().ok()?)))
    });
    let mut known: Vec<_> = known.collect();
    known.sort_by(|a, b| (&a.group, a.of).cmp(&(&b.group, b.of)));
    known
}

/// Where groups stand in a journal, by group, topic and partition.
pub fn group_offsets(state: &State) -> Vec<GroupOffset> {
    let known = state.values(state_kind::GROUP_OFFSETS).filter_map(|(key, value)| {
        let ((group, of), (offset, epoch)) = (key_parts(key)?, value_parts(value)?);
        Some(GroupOffset::new(group, of, offset, epoch))
    });
    let mut known: Vec<_> = known.collect();
    known.sort_by(|a, b| (&a.group, a.of).cmp(&(&b.group, b.of)));
    known
}
