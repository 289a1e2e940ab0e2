//! Restoring the names of idempotent producers when a durable topic is opened, and removing expired names.

use super::TopicCore;
use super::identity::{ProducerIdentity, SequenceHistory};
use crate::base::kind::Producers;
use crate::log::producers::{PRODUCER_NAME_EXPIRY, ProducerStates};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Restores the names of the topic's idempotent producers from the journal. Does nothing for a topic in memory.
pub(crate) fn restore<E, K: Producers>(topic: &TopicCore<E, K>) {
    let Some(durable) = &topic.durable else { return };
    if durable.journal().sabotage().forget_producers {
        return;
    }
    let (now, wall) = (topic.host.clock.now(), topic.host.clock.wall());
    let number = durable.id(0).topic;
    let recorded = ProducerStates::recorded(&durable.committer.recovered_state(), number);
    let mut known = topic.identities.lock().unwrap_or_else(PoisonError::into_inner);
    for recorded in recorded {
        let used = now.saturating_sub(wall.since(recorded.window.used));
        let history = SequenceHistory::restored(&recorded.window, used);
        let (name, epoch) = (recorded.name.clone(), recorded.epoch);
        let producer_state = Some(durable.committer.producer_states.restore(number, recorded));
        known.insert(name.clone(), ProducerIdentity::new(name, epoch, history, producer_state));
    }
}

/// True if the name has expired: no producer has it open, its last publish is longer ago than [`PRODUCER_NAME_EXPIRY`],
/// and its last event is no longer kept.
pub(crate) fn is_forgotten<E, K: Producers>(
    identity: &Arc<ProducerIdentity>,
    topic: &TopicCore<E, K>,
    now: Duration,
) -> bool {
    if Arc::strong_count(identity) > 1 {
        return false;
    }
    let is_kept = |(partition, offset): (u32, u64)| match &topic.durable {
        Some(durable) => durable.journal().extent(durable.id(partition)).is_some_and(|extent| offset >= extent.start),
        None => {
            let partitions = topic.partitions();
            let ring = partitions.get(partition as usize).map(|partition| &partition.ring);
            ring.is_some_and(|ring| slipring_ring::Sequence(offset).since(ring.positions().earliest) >= 0)
        }
    };
    let used = identity.history().map_or(now, |history| history.used);
    now.saturating_sub(used) >= PRODUCER_NAME_EXPIRY && !identity.last().is_some_and(is_kept)
}
