//! A queue as a reader of its topic: how it gets the partitions that are added.

use super::QueueCore;
use crate::base::kind::Producers;
use crate::queue::job::Job;
use crate::queue::state::PartitionState;
use crate::topic::error::SubscribeError;
use crate::topic::partition::Partition;
use crate::topic::{Preparation, TopicReader};
use slipring_ring::Consumer;
use std::sync::Arc;
use std::time::Instant;

impl<E: Job, K: Producers> TopicReader<E, K> for QueueCore<E, K> {
    fn name(&self) -> &str {
        &self.name
    }

    fn join(&self, partition: &Arc<Partition<E, K>>) -> Result<Consumer<E, K>, SubscribeError> {
        partition.join(&self.topic, self.stage.clone())
    }

    fn drain(&self, deadline: Instant) -> bool {
        self.drain_runs(deadline)
    }

    fn take(
        self: Arc<Self>,
        partition: &Arc<Partition<E, K>>,
        consumer: Consumer<E, K>,
        _: Preparation,
    ) -> Box<dyn FnOnce()> {
        let mut state = self.lock();
        let source = state.input.len();
        state.input.add(partition, consumer);
        state.ready.push(source);
        state.partitions.push(PartitionState::Ready);
        drop(state);
        Box::new(move || self.wake(&mut self.lock()))
    }
}
