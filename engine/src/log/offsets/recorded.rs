//! Committed offsets in a journal's state, for programs that read a journal without an engine.

use super::group::{RecordedOffset, value};
use crate::log::catalog::state_kind;
use crate::log::partition_key::{key, key_parts};
use slipring_journal::{FrameBuilder, PartitionId, State};
use std::sync::Arc;

/// The kind of reader that commits in a partition. A group and a transform may have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GroupKind {
    /// A [group](crate::group).
    Group,
    /// A [transform](crate::transform::Transform). The journal has no epoch for it.
    Transform,
}

/// The committed offset of a group or a transform in a partition, as a journal's state has it: see [`group_offsets`]
/// and [`transform_offsets`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupOffset {
    /// The kind of reader: a group or a transform.
    pub kind: GroupKind,
    /// The name of the group or transform.
    pub group: String,
    /// The partition.
    pub of: PartitionId,
    /// The committed offset: the next offset to be read.
    pub offset: u64,
    /// The group's epoch at its last commit; 0 for a transform.
    pub epoch: u64,
    /// The metadata that the offset was committed with; `None` if it has none, and for a transform.
    pub metadata: Option<Arc<[u8]>>,
}

impl GroupOffset {
    /// A committed offset of a group. `epoch` is the group's epoch at the commit.
    pub fn new(group: impl Into<String>, of: PartitionId, offset: u64, epoch: u64) -> Self {
        Self { kind: GroupKind::Group, group: group.into(), of, offset, epoch, metadata: None }
    }

    /// A committed offset of a transform, in a partition of its input.
    pub fn of_transform(name: impl Into<String>, of: PartitionId, offset: u64) -> Self {
        Self { kind: GroupKind::Transform, group: name.into(), of, offset, epoch: 0, metadata: None }
    }

    /// Adds the offset to `frame`. Only for a journal that no engine has open, because an engine reads offsets only
    /// when it opens the journal.
    pub fn put(&self, frame: &mut FrameBuilder) {
        let key = key(&self.group, self.of);
        match self.kind {
            GroupKind::Group => {
                let metadata = self.metadata.as_deref().unwrap_or_default();
                let value = [&value(self.offset, self.epoch)[..], metadata].concat();
                frame.put(state_kind::GROUP_OFFSETS, &key, &value);
            }
            GroupKind::Transform => frame.put(state_kind::TRANSFORM_OFFSETS, &key, &self.offset.to_le_bytes()),
        }
    }

    /// Adds the deletion of the offset to `frame`. The group or transform then has no committed offset in the
    /// partition.
    pub fn delete(&self, frame: &mut FrameBuilder) {
        match self.kind {
            GroupKind::Group => frame.delete(state_kind::GROUP_OFFSETS, &key(&self.group, self.of)),
            GroupKind::Transform => frame.delete(state_kind::TRANSFORM_OFFSETS, &key(&self.group, self.of)),
        }
    }
}

/// The committed offsets of all transforms in a journal's state, sorted by name, topic and partition.
pub fn transform_offsets(state: &State) -> Vec<GroupOffset> {
    let known = state.values(state_kind::TRANSFORM_OFFSETS).filter_map(|(key, value)| {
        let (name, of) = key_parts(key)?;
        Some(GroupOffset::of_transform(name, of, u64::from_le_bytes(value.try_into().ok()?)))
    });
    let mut known: Vec<_> = known.collect();
    known.sort_by(|a, b| (&a.group, a.of).cmp(&(&b.group, b.of)));
    known
}

/// The committed offsets of all groups in a journal's state, sorted by name, topic and partition.
pub fn group_offsets(state: &State) -> Vec<GroupOffset> {
    let known = state.values(state_kind::GROUP_OFFSETS).filter_map(|(key, value)| {
        let ((group, of), recorded) = (key_parts(key)?, RecordedOffset::decode(value)?);
        let RecordedOffset { next, epoch, metadata } = recorded;
        Some(GroupOffset { metadata, ..GroupOffset::new(group, of, next, epoch) })
    });
    let mut known: Vec<_> = known.collect();
    known.sort_by(|a, b| (&a.group, a.of).cmp(&(&b.group, b.of)));
    known
}
