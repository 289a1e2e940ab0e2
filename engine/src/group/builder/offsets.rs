//! Setting a group's committed offsets without joining it.

use super::GroupBuilder;
use crate::base::ids::TopicPartition;
use crate::base::kind::Producers;
use crate::group::error::GroupError;
use crate::log::offsets::commit_word;
use crate::read::StartAt;

impl<E: Send + Sync + 'static, K: Producers> GroupBuilder<E, K> {
    /// Sets the group's committed offsets in these topics to `start`. The group must have no members. Needed, for
    /// example, if the event at its committed offset is no longer kept. The group never reads the events that this
    /// skips. Producers wait for the group until the next join only if it [holds](Self::hold) them.
    ///
    /// # Errors
    /// The group has members, or `start` is no longer kept or not published yet.
    pub fn reset(self, start: StartAt) -> Result<(), GroupError> {
        let group = self.group()?;
        group.reset(&self.settings.joining.topics, &start)
    }

    /// Sets the group's committed offset in one partition to `to`, with `metadata` (none if empty), without joining, and
    /// returns the offset. No member may have the partition; the group may have members that read others. On a durable topic
    /// the offset is durable when this returns. The group never reads the events that this skips.
    ///
    /// [`Engine::group_offsets`](crate::Engine::group_offsets) reads the offsets. For a journal that no program has open there
    /// is the command `slipring group reset`.
    ///
    /// ```
    /// # use slipring::{Engine, group::GroupError, subscriber::StartAt, topic::TopicPartition};
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").retain(100).create()?;
    /// ticks.producer().create()?.publish_batch(9, |index, tick| *tick = index as u64)?;
    /// let first = TopicPartition::new("ticks", 0);
    /// ticks.group("sums").set_offset(&first, StartAt::Offset(4), b"as of Monday")?;
    /// let offsets = engine.group_offsets("sums");
    /// assert_eq!((offsets[0].committed, offsets[0].metadata.as_deref()), (Some(4), Some(&b"as of Monday"[..])));
    /// let mut member = ticks.group("sums").join()?;
    /// assert_eq!(member.poll(std::time::Duration::ZERO)?.unwrap().iter().next().unwrap().1.offset, 4);
    /// let refused = ticks.group("sums").set_offset(&first, StartAt::Offset(5), b"");
    /// assert!(matches!(refused, Err(GroupError::Owned { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A member [has](GroupError::Owned) the partition; the offset is not kept or not published yet; the builder has no such
    /// topic or the topic no such partition; the metadata is too long: nothing is changed. Or the journal has refused the
    /// offset or has failed ([`NotWritten`](GroupError::NotWritten)): then the offset holds in this process only.
    pub fn set_offset(self, partition: &TopicPartition, to: StartAt, metadata: &[u8]) -> Result<u64, GroupError> {
        let metadata = commit_word::checked(metadata)?;
        let group = self.group()?;
        let TopicPartition { topic, partition } = partition;
        match self.settings.joining.topics.iter().find(|known| *known.name == **topic) {
            Some(known) => group.set_offset(known, *partition, &to, metadata),
            None => {
                let (group, topic) = (self.name, topic.to_string());
                Err(GroupError::NoPartition { group, topic, partition: *partition, partitions: 0 })
            }
        }
    }
}
