//! A subscriber's positions: the next offset of each partition, the lag, and seeking.

use super::{PartitionConsumer, Subscriber};
use crate::base::clock::Timestamp;
use crate::base::kind::Producers;
use crate::read::error::PositionError;
use crate::topic::TopicCore;
use crate::topic::error::OutOfRange;
use crate::topic::partition::PublishTimes;
use slipring_ring::{SeekError, Sequence};
use std::time::Duration;

impl<E, K: Producers> Subscriber<E, K> {
    /// The first offset of partition 0 that this subscriber reads. See [`first_in`](Self::first_in).
    pub fn first(&self) -> u64 {
        self.first[0]
    }

    /// The first offset of this partition that this subscriber reads; `None` if it does not read the partition.
    pub fn first_in(&self, partition: u32) -> Option<u64> {
        self.first.get(partition as usize).copied()
    }

    /// The offset of the next event that this subscriber reads in this partition; `None` if it does not read the
    /// partition.
    pub fn position(&self, partition: u32) -> Option<u64> {
        self.parts.get(partition as usize).map(|part| part.consumer.consumed().0)
    }

    /// Count of published events that this subscriber has not read, in all partitions.
    ///
    /// Counted in offsets. Some offsets may hold no event, because a producer dropped its claim.
    pub fn lag(&self) -> u64 {
        self.parts.iter().map(|part| part.consumer.lag()).sum()
    }

    /// Count of published events of this partition that this subscriber has not read, in offsets; `None` if it does not
    /// read the partition.
    pub fn lag_in(&self, partition: u32) -> Option<u64> {
        self.parts.get(partition as usize).map(|part| part.consumer.lag())
    }

    /// The age of the oldest published event that this subscriber has not read, over all partitions; zero if it has
    /// read all.
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

    /// Moves to an offset of a partition, without reading the events between. An earlier offset must still be kept: by
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
    /// let Err(PositionError::OutOfRange { refused, .. }) = tape.seek(0, 1) else { panic!() };
    /// assert_eq!((refused.earliest, refused.latest), (2, 6));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The offset is not kept any more or not published yet (the error holds the range), the partition does not exist,
    /// other consumers are ordered after this subscriber, or it was evicted or halted. The subscriber keeps its
    /// position.
    pub fn seek(&mut self, partition: u32, offset: u64) -> Result<(), PositionError> {
        self.take_changes();
        let Self { parts, topic, membership, watch, .. } = self;
        let part = part_of(parts, topic, partition)?;
        let refused = |cause| PositionError::new(&topic.name, &membership.stats.name, partition, cause);
        let latest = part.consumer.consumed().plus(part.consumer.lag()).0;
        let before = part.consumer.consumed();
        let out_of_range = |earliest| {
            let refused = OutOfRange::new(&topic.name, partition, offset, earliest, latest);
            PositionError::OutOfRange { consumer: membership.stats.name.clone(), refused }
        };
        part.consumer.seek(Sequence(offset)).map_err(|cause| match cause {
            // The ring's range leaves out the events that are kept only because of this consumer's own position.
            SeekError::OutOfRange { earliest, .. } => out_of_range(earliest.0.min(before.0)),
            other => refused(other),
        })?;
        let earliest = part.oldest_kept(topic);
        if offset < before.0 && offset < earliest {
            // The event is older than the topic's retention: the consumer moves forward again, which is always allowed.
            let _ = part.consumer.seek(before);
            return Err(out_of_range(earliest));
        }
        // The partition may be waiting to be woken, or be read to its end, but has events again.
        if !self.paused.contains(&partition) {
            watch.add(partition as usize);
            membership.watchers.wake();
        }
        if let Some(over) = self.over.iter().position(|&over| over == partition) {
            self.over.swap_remove(over);
        }
        Ok(())
    }

    /// Moves, in every partition, to the first event that was published at this time or later. If there is none, moves
    /// to the next event to be published. Events that are no longer kept are not found.
    ///
    /// # Errors
    /// The topic has no [timestamps](crate::TopicBuilder::timestamps), or an error of [`seek`](Self::seek).
    pub fn seek_to_time(&mut self, at: Timestamp) -> Result<(), PositionError> {
        self.take_changes();
        if !self.topic.settings.timestamps {
            return Err(PositionError::NoTimestamps { topic: self.topic.name.clone() });
        }
        for index in 0..self.parts.len() {
            let part = &self.parts[index];
            let before = part.consumer.consumed().0;
            // True if the event before the position was published at `at` or later. If that event was overwritten, this
            // compares the time of a later event in the slot; the seek back is then refused.
            let is_behind = |times: &PublishTimes| before > 0 && times.get(before - 1) >= at;
            if part.partition.times.as_ref().is_some_and(is_behind) {
                // Moves back to the earliest allowed offset, which the refused seek returns. From there on, the
                // consumer's own gating position keeps the events whose times are compared.
                let earliest = match self.seek(index as u32, 0) {
                    Err(PositionError::OutOfRange { refused, .. }) => refused.earliest,
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

    /// Stops reading this partition until [`resume`](Self::resume). Producers still wait for its position there.
    ///
    /// # Errors
    /// The partition does not exist.
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
    /// The partition does not exist.
    pub fn resume(&mut self, partition: u32) -> Result<(), PositionError> {
        part_of(&mut self.parts, &self.topic, partition)?;
        self.paused.retain(|&paused| paused != partition);
        if !self.over.contains(&partition) {
            self.watch.add(partition as usize);
            self.membership.watchers.wake();
        }
        Ok(())
    }

    /// The numbers of the paused partitions.
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
