//! A subscriber's membership in its topic: the state by which other threads give the subscriber new partitions and
//! another wait strategy.

use super::StartAt;
use super::SubscriberBuilder;
use crate::base::clock::Timestamp;
use crate::base::ids::next_reader;
use crate::base::kind::Producers;
use crate::base::multi_wait::MultiWait;
use crate::base::overload::ConsumerStats;
use crate::base::watchers::Watchers;
use crate::topic::error::{OutOfRange, SubscribeError};
use crate::topic::partition::Partition;
use crate::topic::{Preparation, TopicCore, TopicReader};
use slipring_ring::{Consumer, Sequence, Stage, Wait, Waiter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The part of a subscriber that other threads share: it holds the changes that they have made and that the subscriber
/// has not applied yet.
pub(crate) struct Membership<E, K: Producers> {
    topic: String,
    /// The subscriber's [number](crate::base::ids::next_reader).
    pub(super) number: usize,
    pub(crate) stats: Arc<ConsumerStats>,
    pub(super) stage: Stage,
    pub(super) waiter: Arc<Waiter>,
    pub(super) wait: Wait,
    /// The selectors that wait for this subscriber. They are woken when partitions are added, or a seek or a resume
    /// gives the subscriber something to read.
    pub(super) watchers: Watchers,
    /// Another wait strategy, to be used from the next wait on.
    pub(super) other_wait: Mutex<Option<Wait>>,
    pub(super) has_changes: AtomicBool,
    pub(super) added: Mutex<Vec<PartitionConsumer<E, K>>>,
}

impl<E: Send + Sync + 'static, K: Producers> Membership<E, K> {
    pub(super) fn new(builder: &SubscriberBuilder<E, K>, stats: Arc<ConsumerStats>) -> Arc<Self> {
        Arc::new(Self {
            topic: builder.topic.name.clone(),
            number: next_reader(),
            stats,
            stage: builder.stage(),
            waiter: Arc::new(Waiter::new()),
            wait: builder.wait.clone(),
            watchers: Watchers::default(),
            other_wait: Mutex::default(),
            has_changes: AtomicBool::new(false),
            added: Mutex::default(),
        })
    }
}

impl<E: Send + Sync + 'static, K: Producers> crate::topic::consumers::SetWait for Membership<E, K> {
    fn set_wait(&self, wait: Wait) {
        let before = self.other_wait.lock().unwrap_or_else(PoisonError::into_inner).replace(wait);
        drop(before);
        self.has_changes.store(true, Ordering::Release);
        self.waiter.wake(MultiWait::WAKE);
    }
}

impl<E: Send + Sync + 'static, K: Producers> TopicReader<E, K> for Membership<E, K> {
    fn name(&self) -> &str {
        &self.stats.name
    }

    fn join(&self, partition: &Arc<Partition<E, K>>) -> Result<Consumer<E, K>, SubscribeError> {
        partition.join(&self.topic, self.stage.clone())
    }

    fn take(
        self: Arc<Self>,
        partition: &Arc<Partition<E, K>>,
        consumer: Consumer<E, K>,
        _: Preparation,
    ) -> Box<dyn FnOnce()> {
        let part = PartitionConsumer { partition: Arc::clone(partition), consumer };
        self.added.lock().unwrap_or_else(PoisonError::into_inner).push(part);
        self.has_changes.store(true, Ordering::Release);
        Box::new(move || {
            self.waiter.wake(MultiWait::WAKE);
            self.watchers.wake();
        })
    }
}

/// A subscriber's consumer in one partition.
pub(crate) struct PartitionConsumer<E, K: Producers> {
    pub(crate) partition: Arc<Partition<E, K>>,
    pub(crate) consumer: Consumer<E, K>,
}

impl<E, K: Producers> PartitionConsumer<E, K> {
    /// Moves the consumer to `start` where joining the ring could not: to a time, or past the events that are older
    /// than the retention by age. The consumer has joined at or before that offset. An error if the offset `start` is
    /// still in the ring, but older than the topic's retention by age.
    pub(crate) fn move_to_start(&mut self, start: &StartAt, topic: &TopicCore<E, K>) -> Result<(), OutOfRange> {
        let from = self.consumer.consumed().0;
        let oldest = self.oldest_kept(topic);
        let to = match (start.offset(self.partition.index), start) {
            (Some(asked), _) if asked < oldest => {
                let latest = self.partition.ring.positions().published.0;
                return Err(OutOfRange::new(&topic.name, self.partition.index, asked, oldest, latest));
            }
            (None, StartAt::Timestamp(at)) => self.first_since(*at, from).max(oldest),
            (None, StartAt::Earliest | StartAt::Offsets(_)) => oldest,
            _ => return Ok(()),
        };
        // The offset is published, so the seek can fail only because other consumers are ordered after this one. Then
        // this consumer keeps its position, and reads events that are older than its start.
        let _ = self.consumer.seek(Sequence(to.max(from)));
        Ok(())
    }

    pub(super) fn first_since(&self, at: Timestamp, from: u64) -> u64 {
        self.partition.first_since(at, from)
    }

    /// The first offset, from this consumer's position on, that the topic's retention by age allows to a consumer that
    /// joins or moves back.
    pub(super) fn oldest_kept(&self, topic: &TopicCore<E, K>) -> u64 {
        let from = self.consumer.consumed().0;
        match topic.settings.retain_for {
            Some(age) => self.first_since(topic.host.clock.wall().minus(age), from),
            None => from,
        }
    }
}
