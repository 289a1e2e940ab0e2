//! A member's positions in its partitions: committed offset, lag, pausing and seeking.

use super::assigned_partition::AssignedPartition;
use super::error::GroupError;
use super::listener::listed;
use super::member::Member;
use crate::base::ids::TopicPartition;
use crate::base::kind::Producers;
use crate::read::StartAt;
use std::sync::Arc;

impl<E: Send + Sync + 'static, K: Producers> Member<E, K> {
    fn source(&self, of: &TopicPartition) -> Result<usize, GroupError> {
        self.partitions.find(of).ok_or_else(|| GroupError::NotAssigned {
            group: self.group.name.clone(),
            topic: of.topic.to_string(),
            partition: of.partition,
            has: listed(&self.assignment()),
        })
    }

    fn assigned(&self, of: &TopicPartition) -> Result<&AssignedPartition<E, K>, GroupError> {
        let source = self.source(of)?;
        self.partitions[source].as_ref().ok_or_else(|| self.group.fenced(self.epoch).into())
    }

    /// The next offset that this member reads in a partition. While it holds no batch, this is the committed offset.
    ///
    /// # Errors
    /// The partition is not assigned to the member.
    pub fn position(&self, of: &TopicPartition) -> Result<u64, GroupError> {
        self.assigned(of).map(AssignedPartition::position)
    }

    /// The group's committed offset in a partition: the next offset that the partition's member reads.
    ///
    /// # Errors
    /// The partition is not assigned to the member.
    pub fn committed(&self, of: &TopicPartition) -> Result<u64, GroupError> {
        self.assigned(of).map(|assigned| assigned.right.committed())
    }

    /// The [metadata](crate::group::GroupBatch::commit_to_with_metadata) that the group's committed offset in a partition was
    /// committed with, by this member or one before it; `None` if it has none.
    ///
    /// # Errors
    /// The partition is not assigned to the member.
    pub fn metadata(&self, of: &TopicPartition) -> Result<Option<Arc<[u8]>>, GroupError> {
        self.assigned(of).map(|assigned| assigned.right.committed_with_metadata().1)
    }

    /// How many published events of a partition the group has not committed.
    ///
    /// # Errors
    /// The partition is not assigned to the member.
    pub fn lag(&self, of: &TopicPartition) -> Result<u64, GroupError> {
        self.assigned(of).map(AssignedPartition::lag)
    }

    /// Stops reading a partition until [`resume`](Self::resume). The member keeps the partition, and producers still
    /// wait for its committed offset. The pause ends if the partition is assigned to another member.
    ///
    /// # Errors
    /// The partition is not assigned to the member.
    pub fn pause(&mut self, partition: &TopicPartition) -> Result<(), GroupError> {
        self.set_paused(partition, true)
    }

    /// Continues reading a paused partition. Does nothing if it is not paused.
    ///
    /// # Errors
    /// The partition is not assigned to the member.
    pub fn resume(&mut self, partition: &TopicPartition) -> Result<(), GroupError> {
        self.set_paused(partition, false)
    }

    fn set_paused(&mut self, partition: &TopicPartition, paused: bool) -> Result<(), GroupError> {
        let source = self.source(partition)?;
        if let Some(assigned) = &mut self.partitions[source] {
            assigned.paused = paused;
            match paused {
                true => self.watch.remove(source),
                false if assigned.ended => {}
                false => {
                    self.watch.add(source);
                    self.signal.watchers.wake();
                }
            }
        }
        Ok(())
    }

    /// Moves to another offset of a partition, and commits that offset: a group has one position in a partition, at
    /// which the partition's next member continues. A seek back needs events that are still kept: by the topic's
    /// [`retain`](crate::TopicBuilder::retain), or by a slower consumer.
    ///
    /// ```
    /// # use slipring::{Engine, subscriber::StartAt, topic::TopicPartition};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").retain(100).create()?;
    /// let mut member = ticks.group("replay").join()?;
    /// ticks.producer().create()?.publish_batch(3, |index, tick| *tick = index as u64)?;
    /// member.poll(Duration::ZERO)?.unwrap().commit()?;
    /// member.seek(&TopicPartition::new("ticks", 0), StartAt::Offset(1))?;
    /// let batch = member.poll(Duration::ZERO)?.unwrap();
    /// assert!(batch.iter().map(|(tick, _)| *tick).eq([1, 2]));
    /// # drop(batch);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The partition is not assigned to the member, or the member was fenced; or the offset is no longer kept or not
    /// published yet: the error has the range. The position is then unchanged.
    pub fn seek(&mut self, partition: &TopicPartition, to: StartAt) -> Result<(), GroupError> {
        let source = self.source(partition)?;
        let Self { group, partitions, watch, epoch, settings, signal, .. } = self;
        let Some(assigned) = &mut partitions[source] else { return Ok(()) };
        let before = assigned.position();
        if !assigned.seek(&to, &group.name, &*group.clock, &settings.wait)? {
            return Err(group.fenced(*epoch).into());
        }
        if assigned.position() < before && std::mem::take(&mut assigned.ended) {
            group.reopen(assigned.id);
        }
        if !assigned.paused {
            // The wait has registered for events at the old position, so the partition must be checked again.
            watch.add(source);
            signal.watchers.wake();
        }
        Ok(())
    }
}
