//! A member on a thread of its own: its handler, and what follows when that fails.

use super::batch::GroupBatch;
use super::error::GroupError;
use super::member::{Member, PollOutcome};
use super::signal::MemberSignal;
use crate::base::closed::Closed;
use crate::base::cores::CoreTicket;
use crate::base::handler_thread;
use crate::base::ids::TopicPartition;
use crate::base::kind::Producers;
use crate::base::threads::{StartError, caught};
use crate::base::trace::lifecycle;
use crate::event::dead_letter::Origin;
use crate::produce::transaction::{Transaction, TransactionError};
use crate::read::At;
use crate::read::dead_letters::DeadLetterForwarder;
use crate::text;
use crate::topic::stage_name::stage_name;
use slipring_ring::OnError;
use std::fmt::{self, Display};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How a managed member ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberEnd {
    /// All topics were closed, and the group has read and committed everything.
    Finished,
    /// It was told to stop.
    Stopped,
    /// Its handler failed on this event, which is not committed: others read it next.
    Failed {
        /// Where the event stands.
        partition: TopicPartition,
        /// Its offset.
        offset: u64,
        /// The handler's error, the panic's message, or why the dead-letter topic did not take the event.
        cause: String,
    },
    /// The group or a topic refused to go on.
    Refused(GroupError),
}

impl fmt::Display for MemberEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("read everything"),
            Self::Stopped => f.write_str("was stopped"),
            Self::Failed { partition, offset, cause } => {
                write!(f, "failed at {offset} of {partition}: {}", text::line(cause))
            }
            Self::Refused(refused) => refused.fmt(f),
        }
    }
}

/// A managed member. Dropping this handle stops nothing.
#[derive(Clone)]
pub struct GroupRun {
    signal: Arc<Mutex<Arc<MemberSignal>>>,
    end: Arc<End>,
}

impl fmt::Debug for GroupRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GroupRun").field(&self.ended()).finish()
    }
}

#[derive(Default)]
struct End {
    ended: Mutex<Option<MemberEnd>>,
    told: Condvar,
}

impl GroupRun {
    /// Tells it to leave after the event that it is at. Does not wait for that: see [`wait`](Self::wait).
    pub fn stop(&self) {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner).stop();
    }

    /// How it ended; none while it runs.
    pub fn ended(&self) -> Option<MemberEnd> {
        self.end.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has ended. Its handler is gone then. Not to be called by the handler.
    pub fn wait(&self) -> MemberEnd {
        let mut ended = self.end.ended.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(end) = &*ended {
                return end.clone();
            }
            ended = self.end.told.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until it has ended, no longer than `limit`.
    pub fn wait_for(&self, limit: Duration) -> Option<MemberEnd> {
        let Some(deadline) = Instant::now().checked_add(limit) else { return Some(self.wait()) };
        let mut ended = self.end.ended.lock().unwrap_or_else(PoisonError::into_inner);
        while ended.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            ended = self.end.told.wait_timeout(ended, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        ended.clone()
    }
}

/// What follows when the handler fails.
pub(crate) struct MemberErrorPolicy<E> {
    pub(super) retries: u32,
    pub(super) then_skip: bool,
    dead_letters: Option<DeadLetterForwarder<E>>,
}

impl<E> MemberErrorPolicy<E> {
    pub(crate) fn new(on_error: OnError, dead_letters: Option<DeadLetterForwarder<E>>) -> Self {
        let (retries, then_skip) = match on_error {
            OnError::Stop => (0, false),
            OnError::Skip => (0, true),
            OnError::Retry(retries) => (retries, false),
            OnError::RetryThenSkip(retries) => (retries, true),
        };
        Self { retries, then_skip: then_skip || dead_letters.is_some(), dead_letters }
    }

    /// Moves aside what is about to be passed over, if there is a place for it. Why it was refused there.
    fn forward(&mut self, event: &E, origin: Origin<'_>) -> Result<(), String> {
        let Some(dead_letters) = &mut self.dead_letters else { return Ok(()) };
        caught(|| dead_letters.put_written(event, origin)).map_err(|panic| panic.to_string()).and_then(|moved| moved)
    }

    /// Where dead letters go, only by way of `out` from now on. Not where that is refused.
    pub(super) fn set_transactions_only(&mut self, out: &mut Transaction) -> Result<(), TransactionError> {
        self.dead_letters.as_mut().map_or(Ok(()), |dead_letters| dead_letters.set_transactions_only(out))
    }

    /// Has a transaction do so.
    pub(super) fn forward_into(&self, event: &E, origin: Origin<'_>, out: &mut Transaction) -> Result<(), String> {
        let Some(dead_letters) = &self.dead_letters else { return Ok(()) };
        let moved = caught(|| dead_letters.put_into(event, origin, out));
        moved.map_err(|panic| panic.to_string()).and_then(|moved| moved.map_err(|refused| refused.to_string()))
    }
}

/// Starts a thread for a member that has joined.
pub(crate) fn start<E: Send + Sync + 'static, K: Producers>(
    member: Member<E, K>,
    core: Option<usize>,
    ticket: CoreTicket,
    work: impl FnMut(&mut Member<E, K>, &GroupRun) -> MemberEnd + Send + 'static,
) -> Result<GroupRun, GroupError> {
    let group = Arc::clone(&member.group);
    member.signal.manage();
    let run = GroupRun { signal: Arc::new(Mutex::new(Arc::clone(&member.signal))), end: Arc::default() };
    let running = run.clone();
    let name = group.name.clone();
    let life = move |()| {
        let _core = ticket.read_back();
        handler_thread::begin(stage_name(&member.group.name, 0), None, None);
        attend(member, work, &running);
    };
    let started = group.threads.start(&name, core, || (), life);
    started.map_err(|cause| match cause {
        StartError::Pin(cause) => GroupError::Pin { group: name, cause },
        StartError::Thread(cause) => GroupError::Thread { group: name, cause: cause.to_string() },
        StartError::Panicked(cause) => GroupError::Thread { group: name, cause },
    })?;
    Ok(run)
}

/// The life of a thread.
fn attend<E: Send + Sync + 'static, K: Producers>(
    mut member: Member<E, K>,
    mut work: impl FnMut(&mut Member<E, K>, &GroupRun) -> MemberEnd,
    run: &GroupRun,
) {
    let group = Arc::clone(&member.group);
    // A listener, a waiting strategy, the clock or what reads an event back may panic as well.
    let read = caught(|| work(&mut member, run));
    let end = read.unwrap_or_else(|panic| {
        let cause = panic.to_string();
        member.note_end(&cause);
        MemberEnd::Refused(GroupError::Panicked { group: group.name.clone(), cause })
    });
    match &end {
        MemberEnd::Failed { .. } | MemberEnd::Refused(_) => {
            lifecycle!(error, "member failed", group = group.name, cause = end);
        }
        _ => lifecycle!(info, "member ended", group = group.name, how = end),
    }
    if let MemberEnd::Failed { partition, cause, .. } = &end {
        member.note_failure(partition, cause);
    }
    // Their own clean-up may panic: the member has ended all the same.
    let _ = caught(move || drop(member));
    let _ = caught(move || drop(work));
    *run.end.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    run.end.told.notify_all();
}

/// The next partition to read from; none if it is to be asked again.
pub(super) fn next_source<E: Send + Sync + 'static, K: Producers>(
    member: &mut Member<E, K>,
    run: &GroupRun,
) -> Result<Option<usize>, MemberEnd> {
    let signal = Arc::clone(&member.signal);
    match member.next(Duration::MAX) {
        Ok(PollOutcome::Source(source)) => Ok(Some(source)),
        Ok(PollOutcome::Nothing) => Ok(None),
        Ok(PollOutcome::Over) if signal.stopped.load(Ordering::Acquire) => Err(MemberEnd::Stopped),
        Ok(PollOutcome::Over) => Err(MemberEnd::Finished),
        // Its handler took too long: it begins anew, as a member like any other.
        Err(GroupError::Fenced(_)) => {
            member.rejoin().map_err(MemberEnd::Refused)?;
            member.signal.manage();
            let mut known = run.signal.lock().unwrap_or_else(PoisonError::into_inner);
            if known.stopped.load(Ordering::Acquire) {
                return Err(MemberEnd::Stopped);
            }
            *known = Arc::clone(&member.signal);
            Ok(None)
        }
        // A topic was deleted, and there are others to be read.
        Err(GroupError::Closed { reason: Closed::Halted, .. }) if member.has_live_topics() => Ok(None),
        Err(refused) => Err(MemberEnd::Refused(refused)),
    }
}

/// The event that failed last, and how often it was handed over again.
#[derive(Default)]
pub(super) struct Failed(Option<(TopicPartition, u64, u32)>);

impl Failed {
    /// What the policy says to the failure of `culprit`, the first event of the batch: handed over again or passed over,
    /// the member goes on with the batch. Else it leaves the batch, or ends. `pass_over` moves it aside and commits it; false
    /// if others read it.
    pub(super) fn answer<E: Send + Sync + 'static, K: Producers>(
        &mut self,
        batch: &mut GroupBatch<'_, E, K>,
        policy: &mut MemberErrorPolicy<E>,
        partition: &TopicPartition,
        (culprit, cause): (u64, String),
        stopped: bool,
        pass_over: impl FnOnce(&mut GroupBatch<'_, E, K>, &mut MemberErrorPolicy<E>, Origin<'_>) -> Result<bool, String>,
    ) -> ControlFlow<Option<MemberEnd>> {
        let tries = match &self.0 {
            Some((known, offset, tries)) if (known, *offset) == (partition, culprit) => *tries,
            _ => 0,
        };
        if tries < policy.retries && !stopped {
            self.0 = Some((partition.clone(), culprit, tries + 1));
            return ControlFlow::Continue(());
        }
        let stop = |cause| {
            ControlFlow::Break(Some(MemberEnd::Failed { partition: partition.clone(), offset: culprit, cause }))
        };
        if !policy.then_skip || tries < policy.retries {
            return stop(cause);
        }
        let Some(held) = &batch.held else { return ControlFlow::Break(None) };
        let consumer = held.group.name.clone();
        let origin = Origin {
            topic: &partition.topic,
            partition: partition.partition,
            offset: culprit,
            consumer: &consumer,
            attempts: tries + 1,
            reason: &cause,
        };
        match pass_over(batch, policy, origin) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(None),
            Err(refused) => stop(format!("{cause}; and as a dead letter it was refused: {refused}")),
        }
    }
}

/// Moves the first event of the batch aside, then commits it.
pub(super) fn forward_and_commit<E: Send + Sync + 'static, K: Producers>(
    batch: &mut GroupBatch<'_, E, K>,
    policy: &mut MemberErrorPolicy<E>,
    origin: Origin<'_>,
) -> Result<bool, String> {
    let next = origin.offset + 1;
    let Some((event, _)) = batch.iter().next() else { return Ok(false) };
    policy.forward(event, origin)?;
    batch.count_skipped();
    Ok(batch.commit_to(next).is_ok())
}

/// The life of a managed member.
pub(super) fn read_on<E: Send + Sync + 'static, K: Producers, X: Display>(
    member: &mut Member<E, K>,
    policy: &mut MemberErrorPolicy<E>,
    handler: &mut impl FnMut(&E, At) -> Result<(), X>,
    run: &GroupRun,
) -> MemberEnd {
    let mut failed = Failed::default();
    loop {
        let source = match next_source(member, run) {
            Ok(Some(source)) => source,
            Ok(None) => continue,
            Err(end) => return end,
        };
        let signal = Arc::clone(&member.signal);
        if let Some(assigned) = &member.partitions[source] {
            handler_thread::reads(assigned.topic.id, assigned.name.partition);
        }
        let mut batch = match member.hand_out(source) {
            Ok(batch) => batch,
            // At this very moment: the next round tells.
            Err(GroupError::Fenced(_)) => continue,
            Err(refused) => return MemberEnd::Refused(refused),
        };
        let Some(partition) = batch.partition() else { continue };
        loop {
            let mut culprit = 0;
            let worked = caught(|| batch.work(handler, &mut culprit));
            let cause = match worked {
                Ok(None) => break,
                Ok(Some(cause)) => cause,
                Err(panic) => panic.to_string(),
            };
            if batch.commit_to(culprit).is_err() {
                break;
            }
            let stopped = signal.stopped.load(Ordering::Acquire);
            match failed.answer(&mut batch, policy, partition, (culprit, cause), stopped, forward_and_commit) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(None) => break,
                ControlFlow::Break(Some(end)) => return end,
            }
        }
    }
}
