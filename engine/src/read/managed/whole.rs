//! A managed subscriber that handles a batch again, as a whole, when the handler fails on one of its events.

use super::forward;
use super::policy::ErrorPolicy;
use crate::base::batch_retries::{BatchRetries, Interruption};
use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::threads::caught;
use crate::read::handler::BatchStart;
use crate::read::{At, Batch, PartitionConsumer, Subscriber};
use crate::topic::consumers::ConsumerRun;
use slipring_ring::{Ending, Waiter};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Reads until the topic ends or the subscriber fails. Between two attempts at a batch the subscriber holds none of its
/// events, so it can be evicted or cancelled meanwhile.
pub(super) fn read_on<E: Send + Sync + 'static, K: Producers, S, X: Display>(
    subscriber: &mut Subscriber<E, K>,
    state: &mut S,
    on_start: Option<fn(&mut S, BatchStart)>,
    handler: &mut impl FnMut(&mut S, &E, At) -> Result<(), X>,
    policy: &ErrorPolicy<E>,
    (retries, then_skip): (&mut BatchRetries<u32>, bool),
    run: &ConsumerRun,
) -> Ending {
    let topic = subscriber.topic.name.clone();
    // The slots of a batch are released when all of it is handled, so batches are shorter where that would make
    // producers wait.
    subscriber.limit = subscriber.limit.min((subscriber.topic.settings.capacity / 4).max(1));
    loop {
        let mut batch = match subscriber.poll_by(false, None) {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ending::Drained,
            Err(refused) => return Ending::Stopped(refused.reason.to_string()),
        };
        if batch.is_empty() {
            continue;
        }
        let (partition, first) = (batch.partition, batch.batch.position());
        let attempt = retries.attempt(&partition, first.0);
        if attempt.number > 1 {
            drop(batch);
            let Some(part) = subscriber.parts.iter_mut().find(|part| part.partition.index == partition) else {
                continue;
            };
            retries.wait(&partition, first.0, |waiter| interruption(part, waiter));
            batch = match part.consumer.poll(attempt.limit) {
                Ok(batch) => Batch { batch, partition },
                Err(reason) => return Ending::Stopped(Closed::from(reason).to_string()),
            };
        }
        let len = batch.len();
        let worked = caught(|| {
            if let Some(on_start) = on_start {
                let depth = batch.batch.lag();
                on_start(
                    state,
                    BatchStart { attempt: attempt.number, ..BatchStart::new(partition, first.0, len, depth) },
                );
            }
            handle(&mut batch, state, handler)
        });
        let cause = match worked {
            Ok(Ok(())) => {
                if !batch.is_empty() {
                    // The topic was halted meanwhile, which the next poll returns.
                    batch.batch.put_back(first);
                }
                retries.forget(&partition);
                continue;
            }
            Ok(Err(cause)) => cause,
            Err(panic) => panic.to_string(),
        };
        batch.batch.put_back(first);
        if batch.batch.ends_at_once() || retries.fail(partition, first.0, len) {
            continue;
        }
        if !then_skip {
            return Ending::Failed(cause);
        }
        while let Some((next, _)) = (&mut batch.batch).into_iter().next() {
            if let Some(forwarder) = &policy.forwarder {
                let (names, why) = ((&*topic, &*run.stats.name), (attempt.number, &*cause));
                if let Err(refused) = forward(&mut batch, forwarder, next, names, why) {
                    return Ending::Failed(format!("{cause}; and it was not moved to the dead letters: {refused}"));
                }
            }
            run.stats.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Registers the waiter for what ends the wait for the next attempt early: the topic was halted or has failed, or the
/// subscriber was evicted or cancelled.
fn interruption<E, K: Producers>(part: &mut PartitionConsumer<E, K>, waiter: &Arc<Waiter>) -> Interruption {
    let is_armed = part.consumer.arm_for_end(waiter, 1);
    match part.consumer.poll(1) {
        Err(_) => Interruption::Now,
        Ok(_) if is_armed => Interruption::Awaited,
        // The topic is closed, and the batch is read before its end.
        Ok(_) => Interruption::Unannounced,
    }
}

/// Count of events between two checks that the topic was halted.
const HALT_EVERY: usize = 16;

/// Calls the handler with the events of the batch. If the topic was halted, returns `Ok` with events left in the batch.
fn handle<E, K: Producers, S, X: Display>(
    batch: &mut Batch<'_, E, K>,
    state: &mut S,
    handler: &mut impl FnMut(&mut S, &E, At) -> Result<(), X>,
) -> Result<(), String> {
    loop {
        for (event, at) in (&mut *batch).into_iter().take(HALT_EVERY) {
            handler(state, event, at).map_err(|error| error.to_string())?;
        }
        if batch.is_empty() || batch.batch.ends_at_once() {
            return Ok(());
        }
    }
}
