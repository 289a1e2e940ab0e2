//! A managed member whose handler publishes: the loop that publishes the outputs and commits the input events, in the
//! order that its [`Delivery`] sets.

use super::batch::{GroupBatch, HeldBatch};
use super::error::GroupError;
use super::managed::{Failed, GroupRun, MemberEnd, MemberErrorPolicy, forward_and_commit, next_source};
use super::member::Member;
use super::settings::Commit;
use super::signal::MemberSignal;
use super::whole::{give_up, next_batch};
use crate::base::handler_thread;
use crate::base::kind::Producers;
use crate::base::threads::caught;
use crate::event::dead_letter::Origin;
use crate::produce::transaction::{InputFailure, Transaction, TransactionError};
use crate::read::At;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a managed member guarantees for each event if the member, its process or its machine fails.
///
/// | | steps | a crash in between |
/// |---|---|---|
/// | `AtMostOnce` | commit, handle, publish | after the commit: the event is not handled again, or its outputs are missing |
/// | `AtLeastOnce` | handle, publish, commit | before the commit: the event is handled again, and its outputs exist twice |
/// | `ExactlyOnce` | handle, then publish and commit in one | before that: no trace; after it: all is done |
///
/// Outputs are the events that the handler publishes into its [`Transaction`]: see
/// [`run_into`](crate::group::GroupBuilder::run_into). The handler's other effects are repeated whenever an event is
/// handled again: only `AtMostOnce` never repeats them. `docs/GUARANTEES.md` lists all steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// The event is committed before it is handled. On durable topics this costs a sync for each batch.
    AtMostOnce,
    /// The event is committed after it was handled and its outputs were published.
    #[default]
    AtLeastOnce,
    /// The event is committed and its outputs are published in one frame of the journal. For handlers that publish into
    /// their transaction.
    ExactlyOnce,
}

impl Delivery {
    /// The [`Commit`] setting of a managed member with this delivery.
    pub(super) fn commit(self) -> Commit {
        match self {
            Self::AtMostOnce => Commit::AtMostOnce,
            Self::AtLeastOnce | Self::ExactlyOnce => Commit::Manual,
        }
    }
}

/// The result of passing a batch to the handler.
struct Handled {
    /// All events below this offset were handled, and their outputs are in the transaction.
    done: u64,
    /// The first event that was not handled, and why. `None` if no event failed.
    failed: Option<FailedEvent>,
}

/// An event on which the handler has failed, or whose outputs the transaction has refused.
struct FailedEvent {
    offset: u64,
    /// The handler's error, the panic's message, or the transaction's refusal of the outputs.
    cause: String,
    /// True if the transaction refused the outputs while it had outputs of earlier events. It may accept them once it
    /// is empty, so the event is then handled again.
    is_beside_others: bool,
}

impl<E: Send + Sync + 'static, K: Producers> HeldBatch<'_, E, K> {
    /// Commits the events below offset `to` and publishes the outputs in `out`, in the order that `delivery` sets.
    fn deliver(&mut self, to: u64, out: &mut Transaction, delivery: Delivery) -> Result<(), TransactionError> {
        match delivery {
            // Exactly once needs one frame for both. With at most once, the batch was committed before it was handled,
            // so this only publishes.
            Delivery::ExactlyOnce | Delivery::AtMostOnce => {
                self.commit_with(to, out)?;
            }
            Delivery::AtLeastOnce => {
                out.commit_outputs()?;
            }
        }
        // With exactly once and at most once the events are committed already: this only frees their slots.
        Ok(self.commit_to(to)?)
    }

    /// As [`deliver`](Self::deliver), but if a partition is full, tries again until it succeeds or the member is
    /// stopped. The error is then that the partition is full.
    fn deliver_in_time(
        &mut self,
        to: u64,
        out: &mut Transaction,
        delivery: Delivery,
        signal: &MemberSignal,
    ) -> Result<(), TransactionError> {
        loop {
            match self.deliver(to, out, delivery) {
                // Waiting for room counts as progress for the member's deadline. No lock and no claim is held between
                // two tries.
                Err(full) if full.is_full() && !signal.stopped.load(Ordering::Acquire) => signal.see(self.group.now()),
                delivered => return delivered,
            }
        }
    }
}

impl<E: Send + Sync + 'static, K: Producers> GroupBatch<'_, E, K> {
    /// Passes the uncommitted events to the handler, in order, until it fails on one or the member is stopped.
    fn handle_batch<X: Display>(
        &self,
        out: &mut Transaction,
        handler: &mut impl FnMut(&E, At, &mut Transaction) -> Result<(), X>,
    ) -> Handled {
        let Some(held) = &self.held else { return Handled { done: 0, failed: None } };
        let mut done = held.first();
        for (event, at) in self {
            // A panic is caught inside `take_in`, so that the transaction drops the outputs of the event.
            let handled = out.take_in(|out| {
                let handled = caught(|| handler(event, at, out).map_err(|error| error.to_string()));
                handled.unwrap_or_else(|panic| Err(panic.to_string()))
            });
            match handled {
                Ok(()) => {}
                Err(InputFailure::Failed(cause)) => {
                    let failed = FailedEvent { offset: at.offset, cause, is_beside_others: false };
                    return Handled { done, failed: Some(failed) };
                }
                Err(InputFailure::TooMuch { cause, alone }) => {
                    let failed = FailedEvent { offset: at.offset, cause: cause.to_string(), is_beside_others: !alone };
                    return Handled { done, failed: Some(failed) };
                }
            }
            done = at.offset + 1;
            if held.signal.stopped.load(Ordering::Relaxed) {
                return Handled { done, failed: None };
            }
        }
        Handled { done: held.end, failed: None }
    }
}

/// Publishes the first event of the batch as a dead letter, if there is a topic for that, and commits the event: with
/// exactly once in one frame. False if the batch is empty, the member was fenced, or it is to stop while a partition is
/// full. The error says why the dead letter was refused.
fn pass_over<E: Send + Sync + 'static, K: Producers>(
    batch: &mut GroupBatch<'_, E, K>,
    policy: &mut MemberErrorPolicy<E>,
    origin: Origin<'_>,
    out: &mut Transaction,
    (delivery, signal): (Delivery, &MemberSignal),
) -> Result<bool, String> {
    if delivery != Delivery::ExactlyOnce {
        return forward_and_commit(batch, policy, origin);
    }
    out.clear();
    let next = origin.offset + 1;
    let Some((event, _)) = batch.iter().next() else { return Ok(false) };
    policy.forward_into(event, origin, out)?;
    let Some(held) = &mut batch.held else { return Ok(false) };
    match held.deliver_in_time(next, out, delivery, signal) {
        Ok(()) => batch.count_skipped(),
        Err(TransactionError::Member(_)) => return Ok(false),
        Err(full) if full.is_full() => return Ok(false),
        Err(refused) => return Err(refused.to_string()),
    }
    Ok(true)
}

/// The loop of a managed member whose handler publishes.
pub(super) fn run_publishing_handler<E: Send + Sync + 'static, K: Producers, X: Display>(
    member: &mut Member<E, K>,
    policy: &mut MemberErrorPolicy<E>,
    out: &mut Transaction,
    delivery: Delivery,
    handler: &mut impl FnMut(&E, At, &mut Transaction) -> Result<(), X>,
    run: &GroupRun,
) -> MemberEnd {
    let (mut tried, mut batches) = (Failed::default(), policy.batches.take());
    if let Err(refused) = if delivery == Delivery::ExactlyOnce { policy.set_transactions_only(out) } else { Ok(()) } {
        let (group, cause) = (member.group.name.clone(), refused.to_string());
        return MemberEnd::Refused(GroupError::Transaction { group, cause });
    }
    loop {
        let source = match next_source(member, run) {
            Ok(Some(source)) => source,
            Ok(None) => continue,
            Err(end) => return end,
        };
        let (signal, group) = (Arc::clone(&member.signal), Arc::clone(&member.group));
        if let Some(assigned) = &member.partitions[source] {
            handler_thread::reads(assigned.topic.id, assigned.name.partition);
        }
        let next = match &mut batches {
            Some(retries) => next_batch(member, source, retries),
            None => match member.hand_out(source) {
                Ok(batch) => Ok(Some((batch, 1))),
                Err(GroupError::Fenced(_)) => Ok(None),
                Err(refused) => Err(MemberEnd::Refused(refused)),
            },
        };
        let (mut batch, attempt) = match next {
            Ok(Some(next)) => next,
            Ok(None) => continue,
            Err(end) => return end,
        };
        let Some(partition) = batch.partition() else { continue };
        while !batch.is_empty() {
            out.clear();
            let Handled { done, failed } = batch.handle_batch(out, handler);
            let len = batch.len();
            let Some(held) = &mut batch.held else { break };
            if let Some(retries) = &mut batches {
                match &failed {
                    // Nothing of the batch is published or committed: all of it is handled again, or given up.
                    Some(failed) if !failed.is_beside_others => {
                        out.clear();
                        if signal.stopped.load(Ordering::Acquire) || retries.fail(partition.clone(), held.first(), len)
                        {
                            break;
                        }
                        let pass = |batch: &mut GroupBatch<'_, E, K>,
                                    policy: &mut MemberErrorPolicy<E>,
                                    origin: Origin<'_>| {
                            pass_over(batch, policy, origin, out, (delivery, &signal))
                        };
                        let (of, why) = ((partition, attempt), (failed.offset, &*failed.cause));
                        match give_up(&mut batch, policy, of, why, pass) {
                            ControlFlow::Continue(()) | ControlFlow::Break(None) => break,
                            ControlFlow::Break(Some(end)) => return end,
                        }
                    }
                    // The member is to stop before all of the batch is handled, so nothing of it is committed.
                    None if done < held.end => break,
                    _ => retries.forget(partition),
                }
            }
            let some = done > held.first();
            match if some { held.deliver_in_time(done, out, delivery, &signal) } else { Ok(()) } {
                Ok(()) => {}
                // The member was fenced, so another member reads the batch.
                Err(TransactionError::Member(_)) => break,
                Err(full) if full.is_full() => return MemberEnd::Stopped,
                Err(refused) => {
                    let (group, cause) = (group.name.clone(), refused.to_string());
                    return MemberEnd::Refused(GroupError::Transaction { group, cause });
                }
            }
            let stopped = signal.stopped.load(Ordering::Acquire);
            let failure = match failed {
                // The outputs of earlier events are published now, so the event is handled again with an empty
                // transaction.
                Some(failed) if failed.is_beside_others && some && !stopped => continue,
                Some(failed) => (failed.offset, failed.cause),
                None if stopped => break,
                None => continue,
            };
            let pass_over =
                |batch: &mut GroupBatch<'_, E, K>, policy: &mut MemberErrorPolicy<E>, origin: Origin<'_>| {
                    pass_over(batch, policy, origin, out, (delivery, &signal))
                };
            match tried.answer(&mut batch, policy, partition, failure, stopped, pass_over) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(None) => break,
                ControlFlow::Break(Some(end)) => return end,
            }
        }
    }
}
