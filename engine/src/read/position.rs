//! Positions of a subscriber: the next offset of each partition, its lag, and moving to another offset.

use super::{PartitionConsumer, Subscriber};
use crate::base::clock::Timestamp;
use crate::base::kind::Producers;
use crate::read::error::PositionError;
use crate::topic::TopicCore;
use crate::topic::partition::PublishTimes;
use slipring_ring::{SeekError, Sequence};
use std::time::Duration;

impl<E, K: Producers> Subscriber<E, K> {
    /// The first offset that it was promised, in partition 0. See [`first_in`](Self::first_in).
    pub fn first(&self) -> u64 {
        self.first[0]
    }

    /// The first offset that it was promised in this partition; none if it does not read that.
    pub fn first_in(&self, partition: u32) -> Option<u64> {
        self.first.get(partition as usize).copied()
    }

    /// The next offset that it will read in this partition; none if it does not read that.
    pub fn position(&self, partition: u32) -> Option<u64> {
        self.parts.get(partition as usize).map(|part| part.consumer.consumed().0)
    }

    /// How many published events it has not read, in all partitions.
    ///
    /// Counted in offsets, some of which may hold no event: those of a claim that was let go.
    pub fn lag(&self) -> u64 {
        self.parts.iter().map(|part| part.consumer.lag()).sum()
    }

    /// How many published events it has not read in this partition; none if it does not read that.
    pub fn lag_in(&self, partition: u32) -> Option<u64> {
        self.parts.get(partition as usize).map(|part| part.consumer.lag())
    }

    /// How long ago the oldest event that it has not read was published, in all partitions; zero if there is none.
    ///
    /// # Errors
    /// The topic has no [timestamps](crate::TopicBuilder::timestamps).
    pub fn lag_time(&self) -> Result<Duration, PositionError> {
        let now = self.topic.host.clock.wall();
        let mut longest = Duration::ZERO;
        for PartitionConsumer { partition, consumer } in &self.parts {
            let Some(times) = &partition.times else {
                return Err(PositionError::NoTimestamps { topic: self.topic.name.clone() });
            };
            if consumer.lag() > 0 {
                longest = longest.max(now.since(times.get(consumer.consumed().0)));
            }
        }
        Ok(longest)
    }

    /// Moves to an offset of a partition without reading what lies between. Backward, the offset must be kept still: by
    /// a slower consumer, or by [`retain`](crate::TopicBuilder::retain).
    ///
    /// ```
    /// # use slipring::{Engine, subscriber::PositionError};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").capacity(8).retain(4).create()?;
    /// let mut tape = ticks.subscribe("tape").poll()?;
    /// let mut producer = ticks.producer().create()?;
    /// for tick in 0..6 {
    ///     producer.publish(|place| *place = tick)?;
    /// }
    /// tape.poll(Duration::ZERO)?.unwrap().into_iter().for_each(drop);
    /// tape.seek(0, 3)?;
    /// assert_eq!((tape.position(0), tape.lag()), (Some(3), 3));
    /// assert!(matches!(tape.seek(0, 1), Err(PositionError::OutOfRange { earliest: 2, latest: 6, .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// It is not kept or not published (the error has the range), there is no such partition, others stand behind this
    /// subscriber, or it was evicted or halted. It stays where it was.
    pub fn seek(&mut self, partition: u32, offset: u64) -> Result<(), PositionError> {
        self.take_changes();
        let Self { parts, topic, membership, watch, .. } = self;
        let part = part_of(parts, topic, partition)?;
        let refused = |cause| PositionError::new(&topic.name, &membership.stats.name, partition, cause);
        let latest = part.consumer.consumed().plus(part.consumer.lag()).0;
        let before = part.consumer.consumed();
        let out_of_range = |earliest| {
            let (topic, consumer) = (topic.name.clone(), membership.stats.name.clone());
            PositionError::OutOfRange { topic, consumer, partition, asked: offset, earliest, latest }
        };
        part.consumer.seek(Sequence(offset)).map_err(|cause| match cause {
            // The ring knows the range behind the consumer only.
            SeekError::OutOfRange { earliest, .. } => out_of_range(earliest.0.min(before.0)),
            other => refused(other),
        })?;
        let earliest = part.oldest_kept(topic);
        if offset < before.0 && offset < earliest {
            // The event is older than the topic's retention: the consumer goes forward again, which it always may.
            let _ = part.consumer.seek(before);
            return Err(out_of_range(earliest));
        }
        // It may be armed elsewhere, and a partition that was read to its end has events again.
        if !self.paused.contains(&partition) {
            watch.add(partition as usize);
        }
        if let Some(over) = self.over.iter().position(|&over| over == partition) {
            self.over.swap_remove(over);
        }
        Ok(())
    }

    /// Moves, in every partition, to the first event that was published at this time or later; where there is none, to
    /// what is published next. Backward, as far as events are kept.
    ///
    /// # Errors
    /// The topic has no [timestamps](crate::TopicBuilder::timestamps), or as [`seek`](Self::seek).
    pub fn seek_to_time(&mut self, at: Timestamp) -> Result<(), PositionError> {
        self.take_changes();
        if !self.topic.settings.timestamps {
            return Err(PositionError::NoTimestamps { topic: self.topic.name.clone() });
        }
        for index in 0..self.parts.len() {
            let part = &self.parts[index];
            let before = part.consumer.consumed().0;
            // If the event is not kept any more, this may be the time of a later event of its slot. Then the seek is
            // refused.
            let is_behind = |times: &PublishTimes| before > 0 && times.get(before - 1) >= at;
            if part.partition.times.as_ref().is_some_and(is_behind) {
                // It goes back as far as it may, which the refusal says. From there on its own gate keeps what is looked at.
                let earliest = match self.seek(index as u32, 0) {
                    Err(PositionError::OutOfRange { earliest, .. }) => earliest,
                    Err(refused) => return Err(refused),
                    Ok(()) => 0,
                };
                self.seek(index as u32, earliest)?;
            }
            let part = &self.parts[index];
            let to = part.first_since(at, part.consumer.consumed().0);
            self.seek(index as u32, to)?;
        }
        Ok(())
    }

    /// Gives nothing more of this partition until [`resume`](Self::resume). It goes on holding the producers there.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn pause(&mut self, partition: u32) -> Result<(), PositionError> {
        self.take_changes();
        part_of(&mut self.parts, &self.topic, partition)?;
        if !self.paused.contains(&partition) {
            self.paused.push(partition);
            self.watch.remove(partition as usize);
        }
        Ok(())
    }

    /// Reads this partition again.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn resume(&mut self, partition: u32) -> Result<(), PositionError> {
        part_of(&mut self.parts, &self.topic, partition)?;
        self.paused.retain(|&paused| paused != partition);
        if !self.over.contains(&partition) {
            self.watch.add(partition as usize);
        }
        Ok(())
    }

    /// The partitions that are paused.
    pub fn paused(&self) -> &[u32] {
        &self.paused
    }
}

fn part_of<'p, E, K: Producers>(
    parts: &'p mut [PartitionConsumer<E, K>],
    topic: &TopicCore<E, K>,
    partition: u32,
) -> Result<&'p mut PartitionConsumer<E, K>, PositionError> {
    let partitions = parts.len() as u32;
    let unknown = || PositionError::UnknownPartition { topic: topic.name.clone(), asked: partition, partitions };
    parts.get_mut(partition as usize).ok_or_else(unknown)
}
