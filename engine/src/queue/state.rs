//! The state that a queue's lock guards: its unfinished messages, and the input from which it reads new ones.

mod dead_letters;
mod draining;

use super::changes::{Cursor, StatePart};
use super::codec::ClockShift;
use super::idle_tasks::IdleTasks;
use super::input::{Input, InputOutcome};
use super::job::Job;
use super::lease::{LeasedMessage, Leases, Order};
use super::log::QueueLog;
use super::run_worker::RunWorkers;
use crate::base::clock::Clock;
use crate::base::clock::Timestamp;
use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::threads::Panic;
use crate::base::timer::TimerId;
use crate::event::message::Message;
use crate::queue::dead_letter_writer::DeadLetterWriter;
use dead_letters::PendingDeadLetter;
use slipring_ring::Waiter;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A message of a queue that is not leased.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Waiting<E = Message> {
    /// The message's partition.
    pub partition: u32,
    /// The message's offset in its partition.
    pub offset: u64,
    /// How many times the message was leased.
    pub attempts: u32,
    /// How long the message must still wait until it may be leased; zero if it may be leased now.
    pub delay: Duration,
    /// The message.
    pub message: Arc<E>,
}

/// The size in bytes that a message takes in the side store in addition to its key, value and headers.
pub(super) const BESIDE: usize = 160;

/// The body of a message in the side store. `None` if the side store had no room for it, or if the message comes from
/// an earlier process: the body is then read from the journal when the message is leased again.
pub(super) type Body<E> = Option<Arc<E>>;

pub(super) struct QueueState<E, K: Producers> {
    pub(super) leases: Leases<Body<E>>,
    pub(super) input: Input<E, K>,
    pub(super) dead_letter_writer: DeadLetterWriter,
    pub(super) counters: QueueCounters,
    /// Messages that were deleted before the queue read them, by partition and offset. The queue skips them, and
    /// removes each from this set, when it reads them.
    pub(super) deleted: HashSet<(u32, u64)>,
    /// The state of each partition, by number.
    pub(super) partitions: Vec<PartitionState>,
    /// The partitions whose state is `Ready`. They are read in rotation, next the one at index `turn`.
    pub(super) ready: Vec<usize>,
    pub(super) turn: usize,
    /// True while a worker watches: it waits, and the partitions' events wake it.
    pub(super) watched: bool,
    pub(super) idle_workers: usize,
    pub(super) tasks: IdleTasks,
    pub(super) runs: RunWorkers,
    pub(super) alarm: Option<(Duration, TimerId)>,
    /// Why no more messages are leased: the topic was halted or has failed, the queue was evicted or deleted, or the
    /// code of the event's type has panicked. `None` while messages may be leased.
    pub(super) refused: Option<Closed>,
    /// Dead letters that are published, but not yet in a frame with the removals of their messages.
    pub(super) pending_dead_letters: VecDeque<PendingDeadLetter>,
    /// True once writing a dead letter has panicked. No more dead letters are written then.
    cannot_write_dead_letters: bool,
    /// The number of the last change that was to be written urgently because the queue had no room.
    urged: u64,
    /// The keys of a deleted queue that are to be deleted from the journal.
    pub(super) erased: Vec<Vec<u8>>,
}

/// The times of the engine's clock and of the wall clock. They are read before the lock is taken.
#[derive(Clone, Copy)]
pub(super) struct ClockTimes {
    pub(super) now: Duration,
    pub(super) wall: Timestamp,
}

/// A message that is not leased, for [`Queue::peek`](crate::queue::Queue::peek).
pub(super) struct Peeked<E> {
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) attempts: u32,
    pub(super) delay: Duration,
    pub(super) body: Body<E>,
}

/// When the queue reads a partition of its topic next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartitionState {
    /// The partition may have events and is read at the next poll.
    Ready,
    /// The partition has no event. Its next event wakes the queue's waiter, and makes it `Ready`.
    Armed,
    /// The partition is closed and was read to its end.
    Over,
}

/// The queue's counters since it was opened: see [`QueueMetrics`](crate::topic::metrics::QueueMetrics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueCounters {
    pub(super) delivered: u64,
    pub(super) redelivered: u64,
    pub(super) acked: u64,
    pub(super) nacked: u64,
    pub(super) deleted: u64,
    pub(super) dead: u64,
    pub(super) lost: u64,
    pub(super) high_water: usize,
}

impl<E: Job, K: Producers> QueueState<E, K> {
    pub(super) fn new(leases: Leases<Body<E>>, input: Input<E, K>, dead_letter_writer: DeadLetterWriter) -> Self {
        let partitions = input.len();
        Self {
            leases,
            input,
            dead_letter_writer,
            counters: QueueCounters::default(),
            deleted: HashSet::new(),
            partitions: vec![PartitionState::Ready; partitions],
            ready: (0..partitions).collect(),
            turn: 0,
            watched: false,
            idle_workers: 0,
            tasks: IdleTasks::default(),
            runs: RunWorkers::default(),
            alarm: None,
            refused: None,
            pending_dead_letters: VecDeque::new(),
            cannot_write_dead_letters: false,
            urged: 0,
            erased: Vec::new(),
        }
    }

    /// Drops the bodies of removed messages after the lock is released, since dropping them runs user code.
    pub(super) fn drop_gone(&mut self) {
        let gone = self.leases.take_gone();
        if !gone.is_empty() {
            slipring_ring::internal::outside(move || drop(gone));
        }
    }

    /// The number of the last change of the state; 0 if the queue is in memory.
    pub(super) fn change(&mut self) -> u64 {
        self.leases.changes().map_or(0, |changes| changes.count())
    }

    pub(super) fn has_room(&mut self, log: Option<&QueueLog<E>>) -> bool {
        let unwritten = self.leases.changes().map_or(0, |changes| changes.len());
        self.leases.has_room() && log.is_none_or(|log| log.has_room(unwritten))
    }

    pub(super) fn next(&mut self, times: ClockTimes, log: Option<&QueueLog<E>>) -> Option<LeasedMessage<Body<E>>> {
        let leased = match self.leases.lease_due(times.now) {
            Some(leased) => {
                self.counters.redelivered += u64::from(leased.attempt > 1);
                leased
            }
            None => self.next_from_the_input(times, log)?,
        };
        self.counters.delivered += 1;
        Some(leased)
    }

    fn next_from_the_input(&mut self, times: ClockTimes, log: Option<&QueueLog<E>>) -> Option<LeasedMessage<Body<E>>> {
        let mut fruitless = 0;
        while fruitless < self.ready.len() && self.refused.is_none() && self.has_room(log) {
            if self.turn >= self.ready.len() {
                self.turn = 0;
            }
            let index = self.ready[self.turn];
            let partition = index as u32;
            if !self.leases.may_follow(partition) {
                self.turn += 1;
                fruitless += 1;
                continue;
            }
            // The space in bytes that is left in the side store of a durable queue. A body beyond it is not kept, but
            // read from the journal when its message is leased again.
            let spare = log.map(|_| self.leases.settings().max_bytes.saturating_sub(self.leases.counts().bytes));
            let deleted = &mut self.deleted;
            let copy = |offset: u64, event: &E| {
                if !deleted.is_empty() && deleted.remove(&(partition, offset)) {
                    return Ok(None);
                }
                let is_kept = spare.is_none_or(|spare| event.weight() + BESIDE < spare);
                Ok(Some((is_kept, event.waits(times.wall), Arc::new(event.aside()?))))
            };
            let (offset, event) = match self.input.take(index, copy) {
                Ok(InputOutcome::Event(offset, event)) => (offset, event),
                Ok(InputOutcome::Nothing) => {
                    self.turn += 1;
                    fruitless += 1;
                    continue;
                }
                Ok(InputOutcome::Lost(passed)) => {
                    self.counters.lost += passed;
                    continue;
                }
                Ok(InputOutcome::Gap(offsets)) => {
                    self.counters.lost += offsets.end.saturating_sub(offsets.start);
                    if let (Some(log), Some(changes)) = (log, self.leases.changes()) {
                        changes.gap(log.gap_report(partition, offsets, times.wall));
                    }
                    continue;
                }
                Ok(InputOutcome::Over) => {
                    let source = self.ready.swap_remove(self.turn);
                    self.partitions[source] = PartitionState::Over;
                    continue;
                }
                Ok(InputOutcome::Panicked(panic)) => {
                    self.fail(&panic);
                    return None;
                }
                Err(reason) => {
                    self.refused = Some(reason);
                    return None;
                }
            };
            if let Some(changes) = self.leases.changes() {
                changes.cursor(Cursor::Partition(partition), offset + 1);
            }
            let Some((is_kept, wait, event)) = event else {
                self.forget_deleted(partition, offset);
                continue;
            };
            if log.is_some() && self.leases.contains(partition, offset) {
                // The queue has the message already, so it is not added again. It was sent back from the dead letters;
                // or a crash came after its block was written and before the next offset was.
                continue;
            }
            self.turn += 1;
            let now = times.now;
            if !wait.is_zero() {
                let body = is_kept.then_some(event);
                self.leases.admit_later(partition, offset, body, now.saturating_add(wait));
                continue;
            }
            let mut leased = self.leases.admit(partition, offset, is_kept.then(|| Arc::clone(&event)), now);
            leased.message = Some(event);
            return Some(leased);
        }
        None
    }

    /// Ends the queue because the code of the event's type has panicked: no more messages are leased.
    fn fail(&mut self, panic: &Panic) {
        self.refused =
            Some(Closed::Failed { consumer: self.dead_letter_writer.consumer().to_owned(), cause: panic.to_string() });
    }

    fn forget_deleted(&mut self, partition: u32, offset: u64) {
        if let Some(changes) = self.leases.changes() {
            changes.part(StatePart::Deleted(partition, offset));
        }
    }

    /// The reason why no message will ever be leased again; `None` while one may be.
    pub(super) fn ended(&self) -> Option<Closed> {
        if let Some(reason) = &self.refused {
            return Some(reason.clone());
        }
        let counts = self.leases.counts();
        let drained =
            self.partitions.iter().all(|&place| place == PartitionState::Over) && counts.leased + counts.waiting == 0;
        drained.then_some(Closed::Closed)
    }

    /// Makes `waiter` wake when a partition that may be read now gets an event. Returns false, so that the caller reads
    /// again, if one has an event already. If the queue has no room for a message, registers only with the journal,
    /// whose progress may make room, and returns true. `log` is `None` for a topic in memory.
    pub(super) fn arm(&mut self, waiter: &Waiter, log: Option<&QueueLog<E>>) -> bool {
        if !self.has_room(log) {
            self.input.arm_journal();
            // Writing the queue's changes may make room in the journal's state. For changes that it was signalled for
            // before, the committer is not signalled: it would wake the worker, which would signal it again, without
            // end. If it had no room for them, it asks for them again by itself when there is room.
            let change = self.change();
            if let Some(log) = log.filter(|_| change > self.urged) {
                self.urged = change;
                log.notify_urgent();
            }
            return true;
        }
        let mut index = 0;
        while let Some(&source) = self.ready.get(index) {
            if !self.leases.may_follow(source as u32) {
                index += 1;
            } else if self.input.arm(source, waiter) {
                if log.is_some() {
                    // The partition stays `Ready`: the journal's progress wakes the waiter for all partitions, which
                    // are then all checked.
                    index += 1;
                    continue;
                }
                self.ready.swap_remove(index);
                self.partitions[source] = PartitionState::Armed;
            } else {
                return false;
            }
        }
        true
    }

    pub(super) fn rang(&mut self, tokens: Vec<usize>) {
        for source in tokens {
            if self.partitions.get(source) == Some(&PartitionState::Armed) {
                self.partitions[source] = PartitionState::Ready;
                self.ready.push(source);
            }
        }
    }

    pub(super) fn delete_unread(&mut self, partition: u32, offset: u64) -> bool {
        let found = self.input.is_unread(partition as usize, offset) && self.deleted.insert((partition, offset));
        if found {
            self.forget_deleted(partition, offset);
        }
        found
    }

    /// Deletes all messages that are not leased, including unread ones. Returns their number.
    pub(super) fn purge(&mut self) -> u64 {
        let mut purged = self.leases.purge() as u64;
        for index in 0..self.input.len() {
            let partition = index as u32;
            let (deleted, leases) = (&mut self.deleted, &self.leases);
            let mut gone = Vec::new();
            let end = self.input.skip(index, |offset| {
                if !deleted.is_empty() && deleted.remove(&(partition, offset)) {
                    gone.push(offset);
                } else {
                    purged += u64::from(!leases.contains(partition, offset));
                }
            });
            gone.into_iter().for_each(|offset| self.forget_deleted(partition, offset));
            if let (Ok(end), Some(changes)) = (end, self.leases.changes()) {
                changes.cursor(Cursor::Partition(partition), end);
            }
        }
        purged
    }

    /// Up to `limit` messages that are still to be leased, waiting ones first, each with its body if the side store has
    /// it.
    ///
    /// # Errors
    /// Copying an unread event panicked.
    pub(super) fn peek(&mut self, limit: usize, now: Duration) -> Result<Vec<Peeked<E>>, Panic> {
        let waiting = self.leases.idle().map(|(partition, offset, attempts, due, body)| Peeked {
            partition,
            offset,
            attempts,
            delay: due.saturating_sub(now),
            body: body.clone(),
        });
        let mut peeked: Vec<_> = waiting.take(limit).collect();
        for index in 0..self.input.len() {
            if peeked.len() >= limit {
                break;
            }
            let partition = index as u32;
            let (deleted, leases) = (&self.deleted, &self.leases);
            let mut panicked = None;
            self.input.peek(index, limit - peeked.len(), |offset, event| {
                if !deleted.contains(&(partition, offset)) && !leases.contains(partition, offset) {
                    match event.aside() {
                        Ok(body) => {
                            let (body, delay) = (Some(Arc::new(body)), Duration::ZERO);
                            peeked.push(Peeked { partition, offset, attempts: 0, delay, body });
                        }
                        Err(panic) => panicked = Some(panic),
                    }
                }
                panicked.is_none() && peeked.len() < limit
            });
            if let Some(panic) = panicked {
                return Err(panic);
            }
        }
        Ok(peeked)
    }

    /// True if an idle worker must poll the queue after a lease has ended: a message may be leased, a partition in
    /// strict order may continue, or no message will ever be leased again.
    pub(super) fn has_news(&self, now: Duration) -> bool {
        self.leases.is_due(now) || self.leases.settings().order == Order::Strict || self.ended().is_some()
    }

    /// The conversion of times between the engine's clock and the system's clock, as of now.
    pub(super) fn shift(clock: &dyn Clock) -> ClockShift {
        ClockShift::new(clock.now(), clock.wall())
    }
}
