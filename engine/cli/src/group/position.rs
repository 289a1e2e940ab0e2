//! The committed offset of a group or a transform in one partition, with the partition's kept offsets.

use super::Kind;
use crate::output::put_bytes;
use serde_json::{Value, json};
use slipring::journal::{Extent, GroupOffset, Journal, State, group_offsets, recorded_topics, transform_offsets};
use std::collections::BTreeMap;

pub(super) struct Position {
    pub(super) topic: String,
    pub(super) committed: GroupOffset,
    pub(super) extent: Extent,
    /// Count of kept records at or after the committed offset.
    pub(super) lag: u64,
}

impl Position {
    /// All committed offsets of a journal.
    pub(super) fn all(state: &State, journal: &Journal) -> Vec<Self> {
        let topics: BTreeMap<u32, String> =
            recorded_topics(state).into_iter().map(|topic| (topic.number, topic.name)).collect();
        let position = |committed: GroupOffset| {
            let topic = topics.get(&committed.of.topic)?.clone();
            let extent = state.extent(committed.of).unwrap_or_default();
            let lag = journal.records_in(committed.of, committed.offset..extent.end);
            Some(Self { topic, committed, extent, lag })
        };
        group_offsets(state).into_iter().chain(transform_offsets(state)).filter_map(position).collect()
    }

    pub(super) fn kind(&self) -> Kind {
        Kind::of(self.committed.kind)
    }

    pub(super) fn is_of(&self, kind: Kind, name: &str) -> bool {
        self.committed.group == name && self.kind() == kind
    }

    /// Count of uncommitted offsets that retention has deleted.
    pub(super) fn lost(&self) -> u64 {
        self.extent.start.saturating_sub(self.committed.offset)
    }

    /// True if some of the offsets that are left to read hold no record.
    pub(super) fn skips(&self) -> bool {
        self.extent.end.saturating_sub(self.committed.offset.max(self.extent.start)) > self.lag
    }

    /// The group's epoch at the commit; `None` for a transform.
    pub(super) fn epoch(&self) -> Option<u64> {
        (self.kind() == Kind::Group).then_some(self.committed.epoch)
    }

    pub(super) fn json(&self) -> Value {
        let mut position = json!({
            "topic": self.topic, "partition": self.committed.of.partition, "committed": self.committed.offset,
            "earliest": self.extent.start, "latest": self.extent.end, "lag": self.lag, "lost": self.lost(),
            "epoch": self.epoch(),
        });
        if let (Some(position), Some(metadata)) = (position.as_object_mut(), &self.committed.metadata) {
            put_bytes(position, "metadata", metadata);
        }
        position
    }
}
