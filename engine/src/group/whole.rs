//! Managed members that handle a batch again, as a whole, when the handler fails on one of its events.

use super::batch::{BatchEvents, GroupBatch};
use super::error::GroupError;
use super::managed::{GroupRun, MemberEnd, MemberErrorPolicy, forward_and_commit, next_source};
use super::member::Member;
use crate::base::batch_retries::{BatchRetries, Interruption};
use crate::base::ids::TopicPartition;
use crate::base::kind::Producers;
use crate::base::threads::caught;
use crate::event::dead_letter::Origin;
use crate::read::At;
use crate::read::handler::BatchStart;
use slipring_ring::Closed;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl<E: Send + Sync + 'static, K: Producers> GroupBatch<'_, E, K> {
    /// The beginning of this batch, for the attempt with this number. `None` if the poll has returned no events.
    pub(super) fn start(&self, attempt: u32) -> Option<BatchStart> {
        let held = self.held.as_ref()?;
        let first = held.first();
        let depth = match &held.events {
            BatchEvents::Ring(batch) => batch.lag(),
            BatchEvents::Journal { ring, .. } => ring.published().0.saturating_sub(first),
        };
        Some(BatchStart { attempt, ..BatchStart::new(held.name.partition, first, held.events.len(), depth) })
    }

    /// Passes the uncommitted events to the handler, and commits none. Before each call, sets `culprit` to the event's
    /// offset. False if the member is to stop, or the topic was halted or has failed, before all were handled.
    fn handle<S, X: Display>(
        &self,
        state: &mut S,
        handler: &mut impl FnMut(&mut S, &E, At) -> Result<(), X>,
        culprit: &mut u64,
    ) -> Result<bool, String> {
        let Some(held) = &self.held else { return Ok(true) };
        for (event, at) in self {
            if held.signal.stopped.load(Ordering::Relaxed) || held.events.ends_at_once() {
                return Ok(false);
            }
            *culprit = at.offset;
            handler(state, event, at).map_err(|error| error.to_string())?;
        }
        Ok(true)
    }
}

/// A batch, and the number of this attempt at it, from 1 on.
type NumberedBatch<'m, E, K> = (GroupBatch<'m, E, K>, u32);

/// Hands out the next batch of a partition, with the number of its attempt. Waits until an attempt at a failed batch is
/// due. `None` if the member has to look for a batch again: its assignment changes, or the partition has ended. The error
/// says how the member has ended.
pub(super) fn next_batch<'m, E: Send + Sync + 'static, K: Producers>(
    member: &'m mut Member<E, K>,
    source: usize,
    retries: &mut BatchRetries<TopicPartition>,
) -> Result<Option<NumberedBatch<'m, E, K>>, MemberEnd> {
    let Some(assigned) = &member.partitions[source] else { return Ok(None) };
    // A batch is committed when all of it is handled, so batches are shorter where that would make producers wait.
    let limit = member.settings.limit.min(assigned.part.max(1));
    let found = match member.hand_out_at_most(source, limit) {
        Ok(batch) => batch.held.as_ref().map(|held| (held.name.clone(), held.first())),
        Err(GroupError::Fenced(_)) => None,
        Err(refused) => return Err(MemberEnd::Refused(refused)),
    };
    let Some((partition, first)) = found else { return Ok(None) };
    let attempt = retries.attempt(&partition, first);
    if attempt.number > 1 && !await_attempt(member, source, retries, &partition, first) {
        return Ok(None);
    }
    match member.hand_out_at_most(source, limit.min(attempt.limit)) {
        Ok(batch) if batch.held.is_none() => Ok(None),
        Ok(batch) => Ok(Some((batch, attempt.number))),
        Err(GroupError::Fenced(_)) => Ok(None),
        Err(refused) => Err(MemberEnd::Refused(refused)),
    }
}

/// Waits until the next attempt at this batch is due, and returns true. False if the group has news before, the member is
/// to stop, or the topic was halted or has failed. The member's deadline does not run meanwhile.
fn await_attempt<E: Send + Sync + 'static, K: Producers>(
    member: &Member<E, K>,
    source: usize,
    retries: &mut BatchRetries<TopicPartition>,
    partition: &TopicPartition,
    first: u64,
) -> bool {
    let Some(assigned) = &member.partitions[source] else { return false };
    let (signal, ring) = (&member.signal, &assigned.partition.ring);
    member.begin_to_wait();
    let is_due = retries.wait(partition, first, |waiter| {
        signal.watchers.add(waiter, 1);
        let is_armed = ring.arm_for_end(waiter, 1);
        match ring.closed() {
            _ if signal.has_news() => Interruption::Now,
            Some(Closed::Halted | Closed::Failed { .. }) => Interruption::Now,
            _ if is_armed => Interruption::Awaited,
            // The topic is closed, and the batch is read before its end.
            _ => Interruption::Unannounced,
        }
    });
    member.end_to_wait();
    is_due
}

/// Applies the error policy to a batch that has had all its attempts: each of its events is passed over, as a dead letter
/// where there is a topic for these, or the member ends. `pass_over` is that of
/// [`Failed::answer`](super::managed::Failed::answer).
pub(super) fn give_up<E: Send + Sync + 'static, K: Producers>(
    batch: &mut GroupBatch<'_, E, K>,
    policy: &mut MemberErrorPolicy<E>,
    (partition, attempts): (&TopicPartition, u32),
    (culprit, cause): (u64, &str),
    mut pass_over: impl FnMut(&mut GroupBatch<'_, E, K>, &mut MemberErrorPolicy<E>, Origin<'_>) -> Result<bool, String>,
) -> ControlFlow<Option<MemberEnd>> {
    let stop =
        |offset, cause| ControlFlow::Break(Some(MemberEnd::Failed { partition: partition.clone(), offset, cause }));
    if !policy.then_skip {
        return stop(culprit, cause.to_owned());
    }
    let Some(consumer) = batch.held.as_ref().map(|held| held.group.name.clone()) else {
        return ControlFlow::Continue(());
    };
    loop {
        let next = batch.iter().next().map(|(_, at)| at.offset);
        let Some(offset) = next else { return ControlFlow::Continue(()) };
        let (topic, partition) = (&*partition.topic, partition.partition);
        match pass_over(
            batch,
            policy,
            Origin { topic, partition, offset, consumer: &consumer, attempts, reason: cause },
        ) {
            Ok(true) => {}
            Ok(false) => return ControlFlow::Break(None),
            Err(refused) => {
                return stop(offset, format!("{cause}; and as a dead letter it was refused: {refused}"));
            }
        }
    }
}

/// The loop of a managed member that handles whole batches, and whose handler does not publish.
pub(super) fn run_whole<E: Send + Sync + 'static, K: Producers, S, X: Display>(
    member: &mut Member<E, K>,
    policy: &mut MemberErrorPolicy<E>,
    retries: &mut BatchRetries<TopicPartition>,
    state: &mut S,
    on_start: Option<fn(&mut S, BatchStart)>,
    handler: &mut impl FnMut(&mut S, &E, At) -> Result<(), X>,
    run: &GroupRun,
) -> MemberEnd {
    loop {
        let source = match next_source(member, run) {
            Ok(Some(source)) => source,
            Ok(None) => continue,
            Err(end) => return end,
        };
        let signal = Arc::clone(&member.signal);
        let (mut batch, attempt) = match next_batch(member, source, retries) {
            Ok(Some(next)) => next,
            Ok(None) => continue,
            Err(end) => return end,
        };
        let Some(held) = &batch.held else { continue };
        let (partition, first, len) = (held.name, held.first(), batch.len());
        let mut culprit = first;
        let worked = caught(|| {
            if let Some(on_start) = on_start
                && let Some(start) = batch.start(attempt)
            {
                on_start(state, start);
            }
            batch.handle(state, handler, &mut culprit)
        });
        let cause = match worked {
            Ok(Ok(true)) => {
                retries.forget(partition);
                // An error means that the member was fenced, which its next poll returns.
                let _ = batch.commit();
                continue;
            }
            // The next poll says why, and the batch is not committed.
            Ok(Ok(false)) => continue,
            Ok(Err(cause)) => cause,
            Err(panic) => panic.to_string(),
        };
        if signal.stopped.load(Ordering::Acquire) || retries.fail(partition.clone(), first, len) {
            continue;
        }
        match give_up(&mut batch, policy, (partition, attempt), (culprit, &cause), forward_and_commit) {
            ControlFlow::Continue(()) | ControlFlow::Break(None) => {}
            ControlFlow::Break(Some(end)) => return end,
        }
    }
}
