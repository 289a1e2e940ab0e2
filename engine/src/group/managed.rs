//! Managed members: a member with a thread of its own, its handler, and its error policy.

use super::Group;
use super::assignment::MemberId;
use super::batch::GroupBatch;
use super::error::GroupError;
use super::member::{Member, PollOutcome};
use super::signal::MemberSignal;
use super::topics::MemberTopics;
use super::whole::run_whole;
use crate::base::batch_retries::BatchRetries;
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
use crate::read::handler::BatchStart;
use crate::text;
use crate::topic::Topic;
use crate::topic::stage_name::stage_name;
use slipring_ring::OnError;
use std::any::Any;
use std::fmt::{self, Display};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How the thread of a managed member has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberEnd {
    /// All topics were closed, and the group has read and committed all events.
    Finished,
    /// The program has stopped the member.
    Stopped,
    /// The handler failed on the event at this offset. The event is not committed, so another member reads it next.
    Failed {
        /// The event's partition.
        partition: TopicPartition,
        /// The event's offset.
        offset: u64,
        /// The handler's error, the panic's message, or why the topic for dead letters refused the event.
        cause: String,
    },
    /// The group or a topic has returned this error, so the member cannot continue.
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

/// A handle of a managed member. Dropping it does not stop the member.
#[derive(Clone)]
pub struct GroupRun {
    group: String,
    signal: Arc<Mutex<Arc<MemberSignal>>>,
    end: Arc<RunEnd>,
    /// A [`RunTopics`] of the group's event type and kind of producers.
    topics: Arc<dyn Any + Send + Sync>,
}

/// A managed member's group and topics. Weak, so that a handle does not keep topics alive.
struct RunTopics<E, K: Producers> {
    group: Weak<Group<E, K>>,
    topics: Weak<MemberTopics<E, K>>,
}

type GroupAndTopics<E, K> = (Arc<Group<E, K>>, Arc<MemberTopics<E, K>>);

impl fmt::Debug for GroupRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GroupRun").field(&self.ended()).finish()
    }
}

#[derive(Default)]
struct RunEnd {
    ended: Mutex<Option<MemberEnd>>,
    notified: Condvar,
}

impl GroupRun {
    /// Makes the member leave the group after the event that it handles now. Does not wait for that: see
    /// [`wait`](Self::wait).
    pub fn stop(&self) {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner).stop();
    }

    /// Makes the member read `topic` too, without leaving the group: see [`Member::subscribe`](crate::group::Member::subscribe).
    /// The handler may call this.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # use std::{convert::Infallible, sync::mpsc, time::Duration};
    /// # let engine = Engine::builder().build()?;
    /// # let [orders, returns] = ["orders", "returns"].map(|name| engine.topic::<u64>(name).create().unwrap());
    /// # let (seen, sees) = mpsc::channel();
    /// let run = orders.group("billing").run(move |item: &u64, _| { seen.send(*item).unwrap(); Ok::<_, Infallible>(()) })?;
    /// run.subscribe(&returns)?;
    /// returns.producer().create()?.publish(|item| *item = 7)?;
    /// assert_eq!(sees.recv()?, 7);
    /// # engine.shutdown(Duration::from_secs(5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Member::subscribe`](crate::group::Member::subscribe), but [`GroupError::NotMember`] if the member has ended,
    /// or was fenced and has not joined again yet. Also [`GroupError::Refused`]: the topic has events of another type or
    /// another kind of producers than the member's topics, or is not durable though the member delivers exactly once; and
    /// [`GroupError::DeadLetters`]: it is the topic for the member's dead letters.
    pub fn subscribe<E: Send + Sync + 'static, K: Producers>(&self, topic: &Topic<E, K>) -> Result<(), GroupError> {
        let (group, topics) = self.topics_of(topic)?;
        group.subscribe(self.member(), &topics, &topic.inner)
    }

    /// Makes the member read `topic` no more, without leaving the group: see
    /// [`Member::unsubscribe`](crate::group::Member::unsubscribe). Returns false if it did not read the topic. The handler
    /// may still get the topic's events of the batch that it handles.
    ///
    /// # Errors
    /// This is the only topic of a member without a pattern; or as for [`subscribe`](Self::subscribe).
    pub fn unsubscribe<E: Send + Sync + 'static, K: Producers>(&self, topic: &Topic<E, K>) -> Result<bool, GroupError> {
        let (group, topics) = self.topics_of(topic)?;
        group.remove_topic(self.member(), &topics, topic.inner.id, false)
    }

    fn member(&self) -> MemberId {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner).member
    }

    /// The member's group and topics, if they are of the type of `topic`.
    fn topics_of<E: Send + Sync + 'static, K: Producers>(
        &self,
        topic: &Topic<E, K>,
    ) -> Result<GroupAndTopics<E, K>, GroupError> {
        let Some(known) = self.topics.downcast_ref::<RunTopics<E, K>>() else {
            let cause = "its events or its kind of producers are not those of the member's topics".to_owned();
            return Err(GroupError::Refused { group: self.group.clone(), topic: topic.name().to_owned(), cause });
        };
        let known = known.group.upgrade().zip(known.topics.upgrade());
        known.ok_or_else(|| GroupError::NotMember { group: self.group.clone() })
    }

    /// How the member has ended; `None` while it runs.
    pub fn ended(&self) -> Option<MemberEnd> {
        self.end.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the member has ended and its handler is dropped, and returns how it has ended. Must not be called by
    /// the handler, which would wait for itself.
    pub fn wait(&self) -> MemberEnd {
        let mut ended = self.end.ended.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(end) = &*ended {
                return end.clone();
            }
            ended = self.end.notified.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the member has ended, but at most for `limit`. `None` if it still runs then.
    pub fn wait_for(&self, limit: Duration) -> Option<MemberEnd> {
        let Some(deadline) = Instant::now().checked_add(limit) else { return Some(self.wait()) };
        let mut ended = self.end.ended.lock().unwrap_or_else(PoisonError::into_inner);
        while ended.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            ended = self.end.notified.wait_timeout(ended, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        ended.clone()
    }
}

/// What a managed member does with an event on which its handler fails: how often it retries, whether it then skips the
/// event, and where dead letters go.
pub(crate) struct MemberErrorPolicy<E> {
    pub(super) retries: u32,
    pub(super) then_skip: bool,
    dead_letters: Option<DeadLetterForwarder<E>>,
    /// `None` if the member handles no batch again as a whole.
    pub(super) batches: Option<BatchRetries<TopicPartition>>,
}

impl<E> MemberErrorPolicy<E> {
    pub(crate) fn new(
        on_error: OnError,
        dead_letters: Option<DeadLetterForwarder<E>>,
        batches: Option<BatchRetries<TopicPartition>>,
    ) -> Self {
        let (retries, then_skip) = match on_error {
            OnError::Stop => (0, false),
            OnError::Skip => (0, true),
            OnError::Retry(retries) => (retries, false),
            OnError::RetryThenSkip(retries) => (retries, true),
        };
        Self { retries, then_skip: then_skip || dead_letters.is_some(), dead_letters, batches }
    }

    /// Publishes an event that is about to be skipped to the topic for dead letters; does nothing if there is none. The
    /// error says why that topic refused the event.
    fn forward(&mut self, event: &E, origin: Origin<'_>) -> Result<(), String> {
        let Some(dead_letters) = &mut self.dead_letters else { return Ok(()) };
        caught(|| dead_letters.put_written(event, origin)).map_err(|panic| panic.to_string()).and_then(|moved| moved)
    }

    /// From now on publishes dead letters only into the transaction `out`; does nothing without a topic for dead
    /// letters. An error if that topic cannot be part of the transaction, for example because it is in memory.
    pub(super) fn set_transactions_only(&mut self, out: &mut Transaction) -> Result<(), TransactionError> {
        self.dead_letters.as_mut().map_or(Ok(()), |dead_letters| dead_letters.set_transactions_only(out))
    }

    /// Adds the event as a dead letter to the transaction `out`; does nothing without a topic for dead letters. The
    /// error says why it was refused.
    pub(super) fn forward_into(&self, event: &E, origin: Origin<'_>, out: &mut Transaction) -> Result<(), String> {
        let Some(dead_letters) = &self.dead_letters else { return Ok(()) };
        let moved = caught(|| dead_letters.put_into(event, origin, out));
        moved.map_err(|panic| panic.to_string()).and_then(|moved| moved.map_err(|refused| refused.to_string()))
    }
}

/// Starts the thread of a managed member that has joined.
pub(crate) fn start<E: Send + Sync + 'static, K: Producers>(
    member: Member<E, K>,
    core: Option<usize>,
    ticket: CoreTicket,
    work: impl FnMut(&mut Member<E, K>, &GroupRun) -> MemberEnd + Send + 'static,
) -> Result<GroupRun, GroupError> {
    let group = Arc::clone(&member.group);
    member.signal.manage();
    let topics = RunTopics { group: Arc::downgrade(&group), topics: Arc::downgrade(&member.topics) };
    let signal = Arc::new(Mutex::new(Arc::clone(&member.signal)));
    let run = GroupRun { group: group.name.clone(), signal, end: Arc::default(), topics: Arc::new(topics) };
    let running = run.clone();
    let name = group.name.clone();
    let life = move |()| {
        let _core = ticket.read_back();
        handler_thread::begin(stage_name(&member.group.name, 0), None, None);
        run_thread(member, work, &running);
    };
    let started = group.threads.start(&name, core, || (), life);
    started.map_err(|cause| match cause {
        StartError::Pin(cause) => GroupError::Pin { group: name, cause },
        StartError::Thread(cause) => GroupError::Thread { group: name, cause: cause.to_string() },
        StartError::Panicked(cause) => GroupError::Thread { group: name, cause },
    })?;
    Ok(run)
}

/// The body of a managed member's thread, from its first poll to the end of the member.
fn run_thread<E: Send + Sync + 'static, K: Producers>(
    mut member: Member<E, K>,
    mut work: impl FnMut(&mut Member<E, K>, &GroupRun) -> MemberEnd,
    run: &GroupRun,
) {
    let group = Arc::clone(&member.group);
    // A panic here comes from user code other than the handler: the listener, a wait strategy, the clock, or the
    // decoding of an event.
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
    // These drops run user code, which may panic. The member has ended in any case.
    let _ = caught(move || drop(member));
    let _ = caught(move || drop(work));
    *run.end.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    run.end.notified.notify_all();
}

/// Waits for the next partition with events, records for the member's handler that it reads it, and returns its number
/// as a source. `None` if there is none and the caller
/// must call again. The error says how the member has ended.
pub(super) fn next_source<E: Send + Sync + 'static, K: Producers>(
    member: &mut Member<E, K>,
    run: &GroupRun,
) -> Result<Option<usize>, MemberEnd> {
    let signal = Arc::clone(&member.signal);
    match member.next(Duration::MAX) {
        Ok(PollOutcome::Source(source)) => {
            if let Some(assigned) = &member.partitions[source] {
                handler_thread::reads(assigned.topic.id, assigned.name.partition);
            }
            Ok(Some(source))
        }
        Ok(PollOutcome::Nothing) => Ok(None),
        Ok(PollOutcome::Over) if signal.stopped.load(Ordering::Acquire) => Err(MemberEnd::Stopped),
        Ok(PollOutcome::Over) => Err(MemberEnd::Finished),
        // The member was fenced, because its handler took longer than the deadline. It joins again, as a new member.
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
        // A topic was deleted, but the member can read its other topics.
        Err(GroupError::Closed { reason: Closed::Halted, .. }) if member.has_live_topics() => Ok(None),
        Err(refused) => Err(MemberEnd::Refused(refused)),
    }
}

/// The event on which the handler failed last (its partition and offset), and how often that event was retried. `None`
/// before the first failure.
#[derive(Default)]
pub(super) struct Failed(Option<(TopicPartition, u64, u32)>);

impl Failed {
    /// Applies the error policy to the handler's failure on the event at offset `culprit`, the first of the batch.
    /// `stopped`: true if the member is to stop, so that nothing is retried. Returns `Continue` if the event was
    /// skipped or is to be retried, so the member continues with the batch; `Break` if the member leaves the batch, and
    /// ends if there is a `MemberEnd`. `pass_over` publishes the dead letter and commits the event; it returns false if
    /// the member no longer has the partition.
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

/// Publishes the first event of the batch as a dead letter, if there is a topic for that, and commits the event. False
/// if the batch is empty or the member was fenced. The error says why the topic refused the dead letter.
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

/// The loop of a managed member whose handler does not publish.
pub(super) fn run_handler<E: Send + Sync + 'static, K: Producers, S, X: Display>(
    member: &mut Member<E, K>,
    policy: &mut MemberErrorPolicy<E>,
    state: &mut S,
    on_start: Option<fn(&mut S, BatchStart)>,
    handler: &mut impl FnMut(&mut S, &E, At) -> Result<(), X>,
    run: &GroupRun,
) -> MemberEnd {
    if let Some(mut retries) = policy.batches.take() {
        return run_whole(member, policy, &mut retries, state, on_start, handler, run);
    }
    let mut failed = Failed::default();
    loop {
        let source = match next_source(member, run) {
            Ok(Some(source)) => source,
            Ok(None) => continue,
            Err(end) => return end,
        };
        let signal = Arc::clone(&member.signal);
        let mut batch = match member.hand_out(source) {
            Ok(batch) => batch,
            // The member was fenced after `next_source` returned. The next call of `next_source` joins the group again.
            Err(GroupError::Fenced(_)) => continue,
            Err(refused) => return MemberEnd::Refused(refused),
        };
        let Some(partition) = batch.partition() else { continue };
        let mut on_start = on_start;
        loop {
            let mut culprit = 0;
            let worked = caught(|| {
                if let Some(started) = on_start
                    && let Some(start) = batch.start(1)
                {
                    culprit = start.first;
                    started(state, start);
                    on_start = None;
                }
                batch.work(&mut |event: &E, at| handler(state, event, at), &mut culprit)
            });
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
