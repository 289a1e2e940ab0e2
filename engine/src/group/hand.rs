//! What passes between a group and its members.

use super::GroupError;
use super::assignment::{Assignor, PartitionId};
use super::lease::Lease;
use super::listener::TopicPartition;
use crate::clock::Clock;
use crate::error::PositionError;
use crate::overflow::Tally;
use crate::partition::Partition;
use crate::producer::Producers;
use crate::subscriber::StartAt;
use crate::topic::Inner;
use slipring_ring::{Consumer, SeekError, Sequence, Start};
use std::sync::Arc;
use std::time::Duration;

/// A partition in a member's hands.
pub(super) struct Hand<E, K: Producers> {
    pub(super) id: PartitionId,
    pub(super) name: TopicPartition,
    pub(super) partition: Arc<Partition<E, K>>,
    pub(super) consumer: Consumer<E, K>,
    pub(super) lease: Arc<Lease>,
    pub(super) tally: Arc<Tally>,
    pub(super) time_to_live: Option<Duration>,
    pub(super) retain_for: Option<Duration>,
    /// A managed member commits so many at a time, so that producers need not wait for the end of a long batch.
    pub(super) part: usize,
    pub(super) paused: bool,
    pub(super) ended: bool,
}

impl<E, K: Producers> Hand<E, K> {
    /// The first offset that the topic's retention by age leaves to who goes back to where the consumer stands.
    pub(super) fn oldest_kept(&self, clock: &dyn Clock) -> Sequence {
        let from = self.consumer.consumed();
        match self.retain_for {
            Some(age) => Sequence(self.partition.first_since(clock.wall().minus(age), from.0)),
            None => from,
        }
    }

    /// Where a seek goes. To look at times behind it, the consumer goes back as far as it may: its own gate keeps what
    /// is looked at. Nothing is committed by that.
    pub(super) fn find(
        &mut self,
        to: &StartAt,
        clock: &dyn Clock,
    ) -> Result<Result<Sequence, SeekError>, PositionError> {
        let before = self.consumer.consumed();
        let since = match to {
            StartAt::Timestamp(at) => match &self.partition.times {
                None => return Err(PositionError::NoTimestamps { topic: self.name.topic.to_string() }),
                Some(times) if before.0 == 0 || times.get(before.0 - 1) < *at => {
                    return Ok(Ok(Sequence(self.partition.first_since(*at, before.0))));
                }
                Some(_) => Some(*at),
            },
            _ => None,
        };
        match to.in_ring(self.name.partition) {
            Start::At(offset) => return Ok(Ok(offset)),
            Start::Latest => return Ok(Ok(self.partition.ring.positions().published)),
            Start::Earliest => {}
        }
        loop {
            let earliest = self.partition.ring.positions().earliest;
            match self.consumer.seek(earliest) {
                Ok(()) => break,
                // It has moved on meanwhile.
                Err(SeekError::OutOfRange { earliest: now, .. }) if now.since(earliest) > 0 => {}
                Err(refused) => return Ok(Err(refused)),
            }
        }
        let oldest = self.oldest_kept(clock);
        let from = self.consumer.consumed().0;
        Ok(Ok(since.map_or(oldest, |at| Sequence(self.partition.first_since(at, from).max(oldest.0)))))
    }

    /// Outside of a batch: commits what the consumer passed over because it holds no event.
    pub(super) fn commit_skipped(&self) {
        let at = self.consumer.consumed().0;
        if at != self.lease.committed() {
            // If it was fenced, its successor finds out.
            let _ = self.lease.commit(at);
        }
    }
}

/// What somebody asks for who joins.
pub(super) struct Joining<E, K: Producers> {
    pub(super) topics: Vec<Arc<Inner<E, K>>>,
    pub(super) name: Option<String>,
    pub(super) deadline: Duration,
    pub(super) start: StartAt,
    pub(super) assignor: Option<Assignor>,
    pub(super) hold: Option<bool>,
}

impl<E, K: Producers> Clone for Joining<E, K> {
    fn clone(&self) -> Self {
        let Self { topics, name, deadline, start, assignor, hold } = self;
        let (topics, name, start) = (topics.clone(), name.clone(), start.clone());
        Self { topics, name, deadline: *deadline, start, assignor: *assignor, hold: *hold }
    }
}

/// What a member learns when it looks.
pub(super) struct Learned<E, K: Producers> {
    pub(super) epoch: u64,
    pub(super) revoked: Vec<PartitionId>,
    pub(super) given: Vec<Hand<E, K>>,
    /// All that this member may ever read was read.
    pub(super) over: bool,
    pub(super) refused: Option<GroupError>,
}
