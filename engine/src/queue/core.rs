//! The state that the workers of a queue share, and how the workers wait for messages.
//!
//! One lock guards the whole state. While there is no message, one idle worker *watches*: it sleeps until an event
//! wakes it. A partition is *armed* if its next event wakes the watching worker. The other idle workers sleep on a
//! condition variable if they are threads, and add their wakers to a list if they are tasks, so that a message wakes
//! one worker and not all. A worker that stops watching and returns to work wakes the next one.
//!
//! Invariants:
//! - While a worker watches, no message is due, and either the side store has no room for a new message, or every
//!   partition is armed, at its end, or must wait for an earlier message in strict order. Any thread that changes this
//!   wakes the watching worker.
//! - While workers are idle and no worker watches, one of them was woken and has not polled the queue yet. It takes a message
//!   and wakes the next one ([`leave`](QueueCore::leave)), or finds no message and watches. If it leaves without a poll, it
//!   wakes the next one: a dropped task in [`leave_wait`](QueueCore::leave_wait), a thread whose clock panics in [`WokenWorker`].

mod dead_letters;
mod drain;
mod show;
mod state_source;
mod topic_reader;
mod woken;

use super::dead_letter_reader::DeadLetterReader;
use super::job::Job;
use super::lease::{LeaseId, LeaseSettings, LeasedMessage, Leases};
use super::log::{QueueLog, WAKE};
use super::run_worker::RunWorker;
use super::state::{BESIDE, Body, ClockTimes, QueueState};
use crate::base::closed::Closed;
use crate::base::held::{self, Locked};
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::base::timer::TimerId;
use crate::base::wakeup::WakeFlag;
#[cfg(feature = "async")]
use crate::log::offset_waits::OffsetWait;
use crate::read::error::ReadError;
use crate::topic::TopicCore;
use crate::topic::registry::Host;
use slipring_ring::{Stage, Waiter};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};
use woken::WokenWorker;

/// The greatest number of expired leases that are ended before the lock is released in between.
const AT_ONCE: usize = 256;
/// The interval at which the watching worker checks if a closed partition was read to its end, which wakes no worker.
const ENDING: Duration = Duration::from_millis(20);

pub(super) struct QueueCore<E, K: Producers> {
    pub(super) topic: String,
    pub(super) topic_id: TopicId,
    pub(super) name: String,
    pub(super) settings: LeaseSettings,
    pub(super) dead_topic: String,
    /// The number of the topic for dead letters in the journal; 0 if that topic is in memory.
    dead_number: u32,
    pub(super) workers: AtomicUsize,
    /// The [token](crate::base::threads::token) of the thread that got the last message; 0 before the first message.
    pub(super) reader: AtomicUsize,
    stage: Stage,
    host: Arc<Host>,
    this: Weak<Self>,
    /// The queue's access to the journal; `None` if the topic is in memory.
    pub(super) log: Option<QueueLog<E>>,
    /// Never locked by a thread that holds the lock of `state`.
    dead_letter_reader: Mutex<DeadLetterReader>,
    waiter: Arc<Waiter>,
    idle: Condvar,
    state: Mutex<QueueState<E, K>>,
}

/// A leased message, and the number of the state change with which it was leased (0 in memory).
pub(super) type ClaimedLease<E> = (LeasedMessage<Body<E>>, u64);

/// How a worker ends a lease: `Ack` when its work is done; `Nack` with the delay until the next attempt and the reason,
/// when it has failed.
#[derive(Clone, Copy)]
pub(super) enum LeaseEnd<'r> {
    Ack,
    Nack(Duration, &'r str),
    /// As `Nack`, with the delay that the queue's backoff has for the attempt.
    Retry(&'r str),
}

/// The parts from which a queue is created.
pub(super) struct QueueParts<E, K: Producers> {
    pub(super) name: String,
    pub(super) stage: Stage,
    pub(super) dead: (String, u32, DeadLetterReader),
    pub(super) state: QueueState<E, K>,
    pub(super) log: Option<QueueLog<E>>,
    pub(super) waiter: Arc<Waiter>,
}

impl<E: Job, K: Producers> QueueCore<E, K> {
    pub(super) fn new(topic: &TopicCore<E, K>, parts: QueueParts<E, K>) -> Arc<Self> {
        let QueueParts { name, stage, dead: (dead_topic, dead_number, dead_letter_reader), state, log, waiter } = parts;
        Arc::new_cyclic(|this| Self {
            topic: topic.name.clone(),
            topic_id: topic.id,
            name,
            settings: *state.leases.settings(),
            dead_topic,
            dead_number,
            workers: AtomicUsize::new(0),
            reader: AtomicUsize::new(0),
            stage,
            host: Arc::clone(&topic.host),
            this: Weak::clone(this),
            log,
            dead_letter_reader: Mutex::new(dead_letter_reader),
            waiter,
            idle: Condvar::new(),
            state: Mutex::new(state),
        })
    }

    pub(super) fn lock(&self) -> Locked<'_, QueueState<E, K>> {
        held::refuse_inside();
        held::lock(&self.state)
    }

    /// The present time of the engine's clock. The clock is user code, so it is never read under the lock.
    pub(super) fn now(&self) -> Duration {
        self.host.clock.now()
    }

    pub(super) fn times(&self) -> ClockTimes {
        ClockTimes { now: self.now(), wall: self.host.clock.wall() }
    }

    pub(super) fn read_error(&self, reason: Closed) -> ReadError {
        ReadError { topic: self.topic.clone(), consumer: self.name.clone(), reason }
    }

    /// Leases the next message to a worker. `None` if there is no message: without `waits`, now; with it, until
    /// `deadline` (`None`: no limit), or until the flag `waits` is set, or `run`, the worker if it is one of a run, is
    /// stopped.
    pub(super) fn receive(
        &self,
        run: Option<&RunWorker>,
        waits: Option<&WakeFlag>,
        deadline: Option<Instant>,
    ) -> Result<Option<LeasedMessage<Arc<E>>>, ReadError> {
        loop {
            let Some(claimed) = self.claim(run, waits, deadline)? else { return Ok(None) };
            if let Some(leased) = self.complete(claimed)? {
                return Ok(Some(leased));
            }
        }
    }

    /// Loads the body of a claimed message, and waits until the change that leased it has reached the queue's
    /// acknowledgement level. `None` if the journal no longer has the body: the message is then lost.
    pub(super) fn complete(&self, claimed: ClaimedLease<E>) -> Result<Option<LeasedMessage<Arc<E>>>, ReadError> {
        let (LeasedMessage { id, partition, offset, attempt, deadline, message }, change) = claimed;
        let failed = |cause: String| self.read_error(Closed::Failed { consumer: self.name.clone(), cause });
        let message = match (message, &self.log) {
            (Some(body), _) => body,
            (None, Some(log)) => match log.load(partition, offset).map_err(failed)? {
                Some(body) => body,
                None => {
                    self.lose(partition, offset);
                    return Ok(None);
                }
            },
            (None, None) => return Ok(None),
        };
        if let Some(log) = &self.log {
            log.wait(change, log.level).map_err(failed)?;
        }
        Ok(Some(LeasedMessage { id, partition, offset, attempt, deadline, message }))
    }

    /// As [`receive`](Self::receive), without loading the body and without waiting for the journal.
    pub(super) fn claim(
        &self,
        run: Option<&RunWorker>,
        waits: Option<&WakeFlag>,
        deadline: Option<Instant>,
    ) -> Result<Option<ClaimedLease<E>>, ReadError> {
        let mut times = self.times();
        let mut state = self.lock();
        let mut last = waits.is_none();
        loop {
            let is_stopped = run.is_some_and(|run| !run.asks());
            if !is_stopped && let Some(found) = self.look(&mut state, times, run) {
                return found.map(Some);
            }
            if is_stopped || last || waits.is_some_and(WakeFlag::take) {
                self.leave(&mut state);
                return Ok(None);
            }
            if !state.watched && !self.arm(&mut state) {
                continue;
            }
            (state, last, times) = self.sleep(state, deadline);
        }
    }

    /// Returns the next message for a worker, or the error that the queue has ended. `None` if there is no message now.
    pub(super) fn look(
        &self,
        state: &mut QueueState<E, K>,
        times: ClockTimes,
        run: Option<&RunWorker>,
    ) -> Option<Result<ClaimedLease<E>, ReadError>> {
        self.take_signals(state);
        if let Some(leased) = state.next(times, self.log.as_ref()) {
            self.reader.store(crate::base::threads::token(), Ordering::Relaxed);
            run.inspect(|run| run.takes());
            self.settle(state, times.now);
            self.leave(state);
            return Some(Ok((leased, state.change())));
        }
        if let Some(reason) = state.ended() {
            // All other waiting workers must return the error too.
            self.wake_all(state);
            return Some(Err(self.read_error(reason)));
        }
        // The input may have had delayed messages, whose delays need the timer.
        self.settle(state, times.now);
        None
    }

    /// Registers the queue's waiter to be woken by new events: see [`QueueState::arm`].
    pub(super) fn arm(&self, state: &mut QueueState<E, K>) -> bool {
        state.arm(&self.waiter, self.log.as_ref())
    }

    pub(super) fn waiter(&self) -> &Waiter {
        &self.waiter
    }

    /// Marks the partitions that have woken the waiter while no worker watched, so that they are read.
    fn take_signals(&self, state: &mut QueueState<E, K>) {
        if !state.watched && state.ready.len() < state.partitions.len() {
            let mut rang = Vec::new();
            self.waiter.take(|token| rang.push(token));
            state.rang(rang);
        }
    }

    /// Makes the calling worker watch the partitions, or, if another worker watches, wait on the condition variable.
    /// Returns the lock, true if the deadline has passed, and the present times.
    fn sleep<'d>(
        &'d self,
        mut state: Locked<'d, QueueState<E, K>>,
        deadline: Option<Instant>,
    ) -> (Locked<'d, QueueState<E, K>>, bool, ClockTimes) {
        let is_late = || deadline.is_some_and(|deadline| deadline <= Instant::now());
        if state.watched {
            state.idle_workers += 1;
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let mut state = state.wait(&self.state, &self.idle, left);
            state.idle_workers -= 1;
            drop(state);
            let mut woken = WokenWorker { core: self, watched: false, rang: Vec::new() };
            let times = self.times();
            return (woken.look(), is_late(), times);
        }
        state.watched = true;
        let until = match state.input.is_ending() {
            true => Some(deadline.unwrap_or_else(|| Instant::now() + ENDING).min(Instant::now() + ENDING)),
            false => deadline,
        };
        drop(state);
        let mut woken = WokenWorker { core: self, watched: true, rang: Vec::new() };
        self.waiter.park(until, |token| woken.rang.push(token));
        let times = self.times();
        (woken.look(), is_late(), times)
    }

    /// Called when a worker returns to work: wakes an idle worker, which then watches, unless one watches already.
    pub(super) fn leave(&self, state: &mut QueueState<E, K>) {
        if !state.watched {
            self.call_in(state);
        }
    }

    /// Wakes one idle worker, if there is one. One wake-up is enough for any number of messages: the woken worker polls
    /// the queue, and then calls this method too or, if it finds no message, watches. A notified thread counts as idle
    /// until it runs. If it is notified again before that, it need not wake twice, since it polls after both calls.
    fn call_in(&self, state: &mut QueueState<E, K>) {
        if state.idle_workers > 0 {
            self.idle.notify_one();
        } else if let Some(task) = state.tasks.take_first() {
            held::wake(task);
        }
    }

    /// Wakes the watching worker or, if none watches, an idle one, because the queue may have a message for it.
    pub(super) fn wake(&self, state: &mut QueueState<E, K>) {
        if state.watched {
            self.waiter.wake(WAKE);
        } else {
            self.call_in(state);
        }
    }

    /// Wakes the worker that watches and all threads that wait for it, so that the one whose [`WakeFlag`] is set sees
    /// it. A thread checks its flag under the lock that this takes, and before it sleeps.
    pub(super) fn rouse_threads(&self) {
        let state = self.lock();
        if state.watched {
            self.waiter.wake(WAKE);
        }
        self.idle.notify_all();
    }

    pub(super) fn wake_all(&self, state: &mut QueueState<E, K>) {
        self.idle.notify_all();
        self.wake(state);
        state.tasks.take_all().for_each(held::wake);
    }

    /// Completes each change of the state: publishes dead letters, sets the timer for the next deadline after `now`,
    /// and signals the committer that there are changes to write.
    pub(super) fn settle(&self, state: &mut QueueState<E, K>, now: Duration) {
        if let Some(log) = self.log.as_ref().filter(|_| state.leases.dying().is_some()) {
            // A dead letter and the removal of its message must be in one frame. So the committer is signalled before
            // it can see the letter, and waits for this lock before it takes the queue's state. The committer is not
            // signalled when it publishes dead letters itself while it takes that state: a letter that finds no room
            // would then signal it for ever.
            log.notify();
        }
        if state.write_dead_letters(self.log.as_ref()) {
            self.wake(state);
        }
        self.note_pending_dead_letters(state);
        state.drop_gone();
        state.counters.high_water = state.counters.high_water.max(state.leases.len());
        if let Some(log) = &self.log
            && state.leases.changes().is_some_and(|changes| !changes.is_empty())
        {
            log.notify();
        }
        let Some(next) = state.leases.next_due(now) else { return };
        if state.alarm.is_some_and(|(at, _)| at <= next) {
            return;
        }
        if let Some((_, later)) = state.alarm.take() {
            self.host.timer.cancel(later);
        }
        let this = Weak::clone(&self.this);
        let due = self.host.timer.at(next, move || {
            if let Some(core) = this.upgrade() {
                core.tick();
            }
        });
        state.alarm = Some((next, due));
    }

    /// The timer's task: ends expired leases, and wakes a worker if messages may be leased.
    fn tick(&self) {
        self.lock().alarm = None;
        loop {
            let now = self.now();
            let mut state = self.lock();
            let more = state.leases.expire(now, AT_ONCE);
            let was_full = !state.has_room(self.log.as_ref());
            self.settle(&mut state, now);
            if was_full || state.has_news(now) {
                self.wake(&mut state);
            }
            if !more {
                return;
            }
        }
    }

    /// Ends a worker's lease as `how` says. Returns the number of the change; `None` if the lease had expired or its
    /// message was deleted.
    pub(super) fn end(&self, id: LeaseId, attempt: u32, how: LeaseEnd<'_>) -> Option<u64> {
        let now = self.now();
        let mut state = self.lock();
        let was_full = !state.has_room(self.log.as_ref());
        let ended = match how {
            LeaseEnd::Ack => state.leases.ack(id, now),
            LeaseEnd::Nack(delay, reason) => state.leases.nack(id, now, delay, reason).map(|_| ()),
            LeaseEnd::Retry(reason) => {
                let delay = self.settings.backoff.delay(attempt);
                state.leases.nack(id, now, delay, reason).map(|_| ())
            }
        };
        ended.ok()?;
        match how {
            LeaseEnd::Ack => state.counters.acked += 1,
            LeaseEnd::Nack(..) | LeaseEnd::Retry(_) => state.counters.nacked += 1,
        }
        self.settle(&mut state, now);
        if was_full || state.has_news(now) {
            self.wake(&mut state);
        }
        Some(state.change())
    }

    pub(super) fn renew(&self, id: LeaseId, visibility: Duration) -> Option<(Duration, u64)> {
        let now = self.now();
        let mut state = self.lock();
        let deadline = state.leases.renew(id, now, visibility).ok()?;
        self.settle(&mut state, now);
        Some((deadline, state.change()))
    }

    /// Returns the lease with this number on the message at this partition and offset; `None` if it has ended.
    pub(super) fn resume(&self, partition: u32, offset: u64, number: u64) -> Option<ClaimedLease<E>> {
        let now = self.now();
        let mut state = self.lock();
        let leased = state.leases.resume(partition, offset, number, now)?;
        Some((leased, state.change()))
    }

    /// Waits until the change with this number has reached the queue's acknowledgement level. The error says why it
    /// never will.
    pub(super) fn safe(&self, change: u64) -> Result<(), String> {
        self.log.as_ref().map_or(Ok(()), |log| log.wait(change, log.level))
    }

    /// True if the change with this number has reached the queue's acknowledgement level, or the journal has ended. If
    /// false, `waker` is woken when that may be true.
    #[cfg(feature = "async")]
    pub(super) fn is_safe(&self, change: u64, wait: &mut Option<OffsetWait>, waker: &std::task::Waker) -> bool {
        self.log.as_ref().is_none_or(|log| log.is_safe(change, wait, waker))
    }

    /// Removes a message whose body the journal no longer has, and counts the message as lost.
    fn lose(&self, partition: u32, offset: u64) {
        let now = self.now();
        let mut state = self.lock();
        if state.leases.delete(partition, offset) {
            state.counters.lost += 1;
        }
        self.settle(&mut state, now);
    }

    /// Deletes an unfinished or unread message. Returns false if the queue has none at this offset.
    pub(super) fn delete(&self, partition: u32, offset: u64) -> bool {
        let now = self.now();
        let mut state = self.lock();
        let found = state.leases.delete(partition, offset) || state.delete_unread(partition, offset);
        if found {
            state.counters.deleted += 1;
            self.settle(&mut state, now);
            self.wake(&mut state);
        }
        found
    }

    pub(super) fn purge(&self) -> u64 {
        let now = self.now();
        let mut state = self.lock();
        let purged = state.purge();
        self.settle(&mut state, now);
        self.wake(&mut state);
        purged
    }

    /// Records the number of the last lease in the engine. A later queue of this name gives higher numbers, so a ticket
    /// of this queue is never valid there.
    pub(super) fn note_numbers(&self, state: &QueueState<E, K>) {
        self.host.lease_numbers.fetch_max(state.leases.last_number(), Ordering::AcqRel);
    }

    /// Schedules `task` on the engine's timer, `delay` from now.
    pub(super) fn after(&self, delay: Duration, task: impl FnOnce() + Send + 'static) -> TimerId {
        self.host.timer.after(delay, task)
    }

    pub(super) fn cancel(&self, due: TimerId) {
        self.host.timer.cancel(due);
    }
}

/// The leases of a new queue, which has no messages.
pub(super) fn leases<E: Job>(settings: LeaseSettings) -> Leases<Body<E>> {
    Leases::new(settings, |body: &Body<E>| body.as_ref().map_or(0, |body| body.weight() + BESIDE))
}
