//! What the workers of a queue share: the partitions' consumers, the leases, and how they wait.
//!
//! One lock for all of it. While nothing is there, one of the idle workers sleeps at the bells of all partitions (it
//! *watches*), and the others at the door, so that a message wakes one thread and not all. Whoever leaves while nobody
//! watches calls the next one in.
//!
//! Invariant: while somebody watches, every partition is armed, or held up by the order, or there is no room; and
//! nothing is due. Whoever changes that wakes whoever watches.

use super::Waiting;
use super::lease::{Cause, Grant, LeaseId, Leases, Order, Terms};
use crate::engine::Host;
use crate::error::{Closed, ReadError, SubscribeError};
use crate::graves::{Graves, Keeper};
use crate::letter::DeadLetter;
use crate::message::Message;
use crate::metrics::QueueMetrics;
use crate::partition::Partition;
use crate::producer::Producers;
use crate::subscriber::Part;
use crate::timer::Due;
use crate::topic::{Inner, Reader, TopicId};
use slipring_ring::{Consumer, Sequence, Stage, Waiter};
use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The token of whoever wakes the watcher and is no partition.
const WAKE: usize = usize::MAX;
/// Leases that are ended at once under the lock.
const AT_ONCE: usize = 256;

pub(super) struct Desk<K: Producers> {
    pub(super) topic: String,
    pub(super) topic_id: TopicId,
    pub(super) name: String,
    pub(super) terms: Terms,
    pub(super) dead_topic: String,
    stage: Stage,
    host: Arc<Host>,
    this: Weak<Self>,
    /// Never taken while the state is locked.
    keeper: Mutex<Keeper>,
    waiter: Waiter,
    door: Condvar,
    state: Mutex<State<K>>,
}

struct State<K: Producers> {
    leases: Leases<Arc<Message>>,
    parts: Vec<Part<Message, K>>,
    graves: Graves,
    counters: Counters,
    /// Deleted while they were still in the ring.
    deleted: HashSet<(u32, u64)>,
    /// By the number of the partition.
    places: Vec<Place>,
    /// Those whose place is `Ready`, in turns.
    ready: Vec<usize>,
    turn: usize,
    watched: bool,
    at_the_door: usize,
    alarm: Option<(Duration, Due)>,
    /// Halted, failed, or evicted.
    refused: Option<Closed>,
}

/// Where a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// To be looked at.
    Ready,
    /// Rings when there is something to look at.
    Armed,
    /// Was read to its end.
    Over,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    delivered: u64,
    redelivered: u64,
    acked: u64,
    nacked: u64,
    deleted: u64,
    dead: u64,
    high_water: usize,
}

impl<K: Producers> Desk<K> {
    pub(super) fn new(
        topic: &Inner<Message, K>,
        name: String,
        stage: Stage,
        dead: (String, Graves, Keeper),
        leases: Leases<Arc<Message>>,
        parts: Vec<Part<Message, K>>,
    ) -> Arc<Self> {
        let (dead_topic, graves, keeper) = dead;
        let terms = *leases.terms();
        let state = State {
            leases,
            places: vec![Place::Ready; parts.len()],
            ready: (0..parts.len()).collect(),
            parts,
            graves,
            counters: Counters::default(),
            deleted: HashSet::new(),
            turn: 0,
            watched: false,
            at_the_door: 0,
            alarm: None,
            refused: None,
        };
        let (waiter, door) = (Waiter::new(), Condvar::new());
        Arc::new_cyclic(|this| Self {
            topic: topic.name.clone(),
            topic_id: topic.id,
            name,
            terms,
            dead_topic,
            stage,
            host: Arc::clone(&topic.host),
            this: Weak::clone(this),
            keeper: Mutex::new(keeper),
            waiter,
            door,
            state: Mutex::new(state),
        })
    }

    pub(super) fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.host.clock.now()
    }

    /// The next message for a worker; none if there is none until `deadline`.
    pub(super) fn receive(
        &self,
        wait: bool,
        deadline: Option<Instant>,
    ) -> Result<Option<Grant<Arc<Message>>>, ReadError> {
        let mut state = self.lock();
        let mut last = !wait;
        loop {
            state.hear(&self.waiter);
            if let Some(grant) = state.next(self.now()) {
                self.settle(&mut state);
                self.leave(&state);
                return Ok(Some(grant));
            }
            if let Some(reason) = state.ended() {
                // The others are told too.
                self.door.notify_all();
                self.wake(&state);
                return Err(ReadError { topic: self.topic.clone(), consumer: self.name.clone(), reason });
            }
            if last {
                self.leave(&state);
                return Ok(None);
            }
            if !state.watched && !state.arm(&self.waiter) {
                continue;
            }
            self.settle(&mut state);
            (state, last) = self.sleep(state, deadline);
        }
    }

    /// Sleeps at the bells, or at the door if somebody is there already. True if the deadline has come.
    fn sleep<'d>(
        &'d self,
        mut state: MutexGuard<'d, State<K>>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'d, State<K>>, bool) {
        if state.watched {
            state.at_the_door += 1;
            let mut state = match deadline {
                None => self.door.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    self.door.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.at_the_door -= 1;
            let late = deadline.is_some_and(|deadline| deadline <= Instant::now());
            return (state, late);
        }
        state.watched = true;
        drop(state);
        let mut rang = Vec::new();
        let woken = self.waiter.park(deadline, |token| rang.push(token));
        let mut state = self.lock();
        state.watched = false;
        state.rang(rang);
        (state, !woken)
    }

    /// Whoever goes back to work lets the next one watch.
    fn leave(&self, state: &State<K>) {
        if !state.watched && state.at_the_door > 0 {
            self.door.notify_one();
        }
    }

    /// There may be something for an idle worker.
    fn wake(&self, state: &State<K>) {
        if state.watched {
            self.waiter.wake(WAKE);
        } else if state.at_the_door > 0 {
            self.door.notify_one();
        }
    }

    /// After a change: moves the dead on, and sees to it that what is due next is not missed.
    fn settle(&self, state: &mut State<K>) {
        state.bury();
        state.counters.high_water = state.counters.high_water.max(state.leases.len());
        let Some(next) = state.leases.next_due(self.now()) else { return };
        if state.alarm.is_some_and(|(at, _)| at <= next) {
            return;
        }
        if let Some((_, later)) = state.alarm.take() {
            self.host.timer.cancel(later);
        }
        let this = Weak::clone(&self.this);
        let due = self.host.timer.at(next, move || {
            if let Some(desk) = this.upgrade() {
                desk.tick();
            }
        });
        state.alarm = Some((next, due));
    }

    /// What was due is due now.
    fn tick(&self) {
        self.lock().alarm = None;
        loop {
            let mut state = self.lock();
            let now = self.now();
            let more = state.leases.expire(now, AT_ONCE);
            let was_full = !state.leases.has_room();
            self.settle(&mut state);
            if was_full || state.has_news(now) {
                self.wake(&state);
            }
            if !more {
                return;
            }
        }
    }

    /// A holder is done with its lease, or gives it back. `None`: the lease was not the holder's any more.
    pub(super) fn end(&self, id: LeaseId, how: End<'_>) -> Option<()> {
        let mut state = self.lock();
        let now = self.now();
        let was_full = !state.leases.has_room();
        let ended = match how {
            End::Ack => state.leases.ack(id, now),
            End::Nack(delay, reason) => state.leases.nack(id, now, delay, reason).map(|_| ()),
        };
        ended.ok()?;
        match how {
            End::Ack => state.counters.acked += 1,
            End::Nack(..) => state.counters.nacked += 1,
        }
        self.settle(&mut state);
        if was_full || state.has_news(now) {
            self.wake(&state);
        }
        Some(())
    }

    pub(super) fn renew(&self, id: LeaseId, visibility: Duration) -> Option<Duration> {
        let mut state = self.lock();
        let deadline = state.leases.renew(id, self.now(), visibility).ok()?;
        self.settle(&mut state);
        Some(deadline)
    }

    /// Deletes a message that nobody was done with. False if there is none at this offset.
    pub(super) fn delete(&self, partition: u32, offset: u64) -> bool {
        let mut state = self.lock();
        let found = state.leases.delete(partition, offset) || state.delete_unread(partition, offset);
        if found {
            state.counters.deleted += 1;
            self.settle(&mut state);
            self.wake(&state);
        }
        found
    }

    pub(super) fn purge(&self) -> u64 {
        let mut state = self.lock();
        let purged = state.purge();
        self.settle(&mut state);
        self.wake(&state);
        purged
    }

    /// A dead letter becomes a message again. False if there is no room.
    pub(super) fn restore(&self, letter: DeadLetter) -> bool {
        let mut state = self.lock();
        let DeadLetter { partition, offset, message, .. } = letter;
        let has_room = state.leases.has_room();
        if has_room {
            state.leases.restore(partition, offset, Arc::new(message), self.now(), Duration::ZERO);
        }
        has_room
    }

    /// There is room among the dead letters, or some have come back.
    pub(super) fn resettle(&self) {
        let mut state = self.lock();
        self.settle(&mut state);
        self.wake(&state);
    }

    pub(super) fn peek(&self, limit: usize) -> Vec<Waiting> {
        let mut state = self.lock();
        let now = self.now();
        state.leases.expire(now, usize::MAX);
        self.settle(&mut state);
        state.peek(limit, now)
    }

    pub(super) fn metrics(&self) -> QueueMetrics {
        let state = self.lock();
        let counts = state.leases.counts();
        let Counters { delivered, redelivered, acked, nacked, deleted, dead, high_water } = state.counters;
        QueueMetrics {
            name: self.name.clone(),
            unread: state.parts.iter().map(|part| part.consumer.lag()).sum(),
            leased: counts.leased as u64,
            waiting: counts.waiting as u64,
            dying: counts.dying as u64,
            bytes: counts.bytes as u64,
            full: !state.leases.has_room(),
            delivered,
            redelivered,
            acked,
            nacked,
            expired: counts.expired,
            deleted,
            dead,
            high_water: high_water as u64,
        }
    }
}

/// How a lease ends.
#[derive(Clone, Copy)]
pub(super) enum End<'r> {
    Ack,
    Nack(Duration, &'r str),
}

impl<K: Producers> State<K> {
    fn next(&mut self, now: Duration) -> Option<Grant<Arc<Message>>> {
        let grant = match self.leases.grant(now) {
            Some(grant) => {
                self.counters.redelivered += u64::from(grant.attempt > 1);
                grant
            }
            None => self.next_from_the_rings(now)?,
        };
        self.counters.delivered += 1;
        Some(grant)
    }

    fn next_from_the_rings(&mut self, now: Duration) -> Option<Grant<Arc<Message>>> {
        let mut fruitless = 0;
        while fruitless < self.ready.len() && self.leases.has_room() && self.refused.is_none() {
            if self.turn >= self.ready.len() {
                self.turn = 0;
            }
            let part = &mut self.parts[self.ready[self.turn]];
            let partition = part.partition.index;
            if !self.leases.may_follow(partition) {
                self.turn += 1;
                fruitless += 1;
                continue;
            }
            match part.consumer.poll(1) {
                Ok(mut batch) => {
                    let Some((offset, message)) = (&mut batch).into_iter().next() else {
                        drop(batch);
                        self.turn += 1;
                        fruitless += 1;
                        continue;
                    };
                    // Ends with the batch as read, and nobody has it.
                    if !self.deleted.is_empty() && self.deleted.remove(&(partition, offset.0)) {
                        continue;
                    }
                    let message = Arc::new(message.copy());
                    drop(batch);
                    self.turn += 1;
                    return Some(self.leases.admit(partition, offset.0, message, now));
                }
                Err(slipring_ring::Closed::Finished | slipring_ring::Closed::Closed) => {
                    let source = self.ready.swap_remove(self.turn);
                    self.places[source] = Place::Over;
                }
                Err(reason) => self.refused = Some(reason.into()),
            }
        }
        None
    }

    /// Why nothing will ever come again.
    fn ended(&self) -> Option<Closed> {
        if let Some(reason) = &self.refused {
            return Some(reason.clone());
        }
        let counts = self.leases.counts();
        let drained = self.places.iter().all(|&place| place == Place::Over) && counts.leased + counts.waiting == 0;
        drained.then_some(Closed::Closed)
    }

    /// False if there is something after all.
    fn arm(&mut self, waiter: &Waiter) -> bool {
        if !self.leases.has_room() {
            return true;
        }
        let mut index = 0;
        while let Some(&source) = self.ready.get(index) {
            let part = &mut self.parts[source];
            if !self.leases.may_follow(part.partition.index) {
                index += 1;
            } else if part.consumer.arm(waiter, source) {
                self.ready.swap_remove(index);
                self.places[source] = Place::Armed;
            } else {
                return false;
            }
        }
        true
    }

    /// What rang while nobody watched.
    fn hear(&mut self, waiter: &Waiter) {
        if !self.watched && self.ready.len() < self.parts.len() {
            let mut rang = Vec::new();
            waiter.take(|token| rang.push(token));
            self.rang(rang);
        }
    }

    fn rang(&mut self, tokens: Vec<usize>) {
        for source in tokens {
            if self.places.get(source) == Some(&Place::Armed) {
                self.places[source] = Place::Ready;
                self.ready.push(source);
            }
        }
    }

    /// Moves to the dead letters what has had its attempts; what does not fit there stays, and is tried again at the
    /// next call.
    fn bury(&mut self) {
        while let Some(dead) = self.leases.dying() {
            let reason = match dead.cause {
                Cause::Refused(reason) => reason,
                Cause::Expired => "the lease ran out",
            };
            if self.graves.take(dead.partition, dead.offset, dead.attempts, reason, dead.message).is_err() {
                return;
            }
            self.leases.buried();
            self.counters.dead += 1;
        }
    }

    fn delete_unread(&mut self, partition: u32, offset: u64) -> bool {
        let Some(part) = self.parts.get(partition as usize) else { return false };
        let next = part.consumer.consumed();
        let ahead = Sequence(offset).since(next);
        ahead >= 0 && (ahead as u64) < part.consumer.lag() && self.deleted.insert((partition, offset))
    }

    /// Deletes everything that nobody has a lease on. How many messages.
    fn purge(&mut self) -> u64 {
        let mut purged = self.leases.purge() as u64;
        for part in &mut self.parts {
            // What is published meanwhile is left alone.
            let end = part.consumer.consumed().plus(part.consumer.lag());
            while let Ok(mut batch) = part.consumer.poll(usize::MAX) {
                let mut read = 0;
                while batch.position().since(end) < 0 {
                    let Some((offset, _)) = (&mut batch).into_iter().next() else { break };
                    read += 1;
                    purged += u64::from(!self.deleted.remove(&(part.partition.index, offset.0)));
                }
                if read == 0 {
                    break;
                }
            }
        }
        purged
    }

    fn peek(&mut self, limit: usize, now: Duration) -> Vec<Waiting> {
        let waiting = self.leases.idle().map(|(partition, offset, attempts, due, message)| {
            let (delay, message) = (due.saturating_sub(now), Arc::clone(message));
            Waiting { partition, offset, attempts, delay, message }
        });
        let mut peeked: Vec<_> = waiting.take(limit).collect();
        for part in &mut self.parts {
            if peeked.len() >= limit {
                break;
            }
            part.consumer.look_anew();
            let Ok(mut batch) = part.consumer.poll(limit - peeked.len()) else { continue };
            let (from, partition) = (batch.position(), part.partition.index);
            for (offset, message) in &mut batch {
                let (offset, message) = (offset.0, Arc::new(message.copy()));
                if !self.deleted.contains(&(partition, offset)) {
                    peeked.push(Waiting { partition, offset, attempts: 0, delay: Duration::ZERO, message });
                }
            }
            batch.put_back(from);
        }
        peeked
    }

    /// Whether an idle worker should look after a lease has ended: a message comes again, a partition goes on, or
    /// nothing will ever come.
    fn has_news(&self, now: Duration) -> bool {
        self.leases.is_due(now) || self.leases.terms().order == Order::Strict || self.ended().is_some()
    }
}

impl<K: Producers> Reader<Message, K> for Desk<K> {
    fn join(&self, partition: &Arc<Partition<Message, K>>) -> Result<Consumer<Message, K>, SubscribeError> {
        let joined = partition.ring.join(self.stage.clone());
        joined.map_err(|cause| SubscribeError::new(&self.topic, partition.index, cause))
    }

    fn take(self: Arc<Self>, partition: &Arc<Partition<Message, K>>, consumer: Consumer<Message, K>) {
        let mut state = self.lock();
        let source = state.parts.len();
        state.parts.push(Part { partition: Arc::clone(partition), consumer });
        state.ready.push(source);
        state.places.push(Place::Ready);
        self.wake(&state);
    }
}
