//! What the workers of a queue share, and how they wait.
//!
//! One lock for all of it. While nothing is there, one of the idle workers sleeps at the bells of all partitions (it
//! *watches*), and the others at the door, so that a message wakes one thread and not all. Whoever leaves while nobody
//! watches calls the next one in.
//!
//! Invariant: while somebody watches, every partition is armed, or held up by the order, or there is no room; and
//! nothing is due. Whoever changes that wakes whoever watches.

use super::book::{Book, WAKE};
use super::changes::{Cursor, Next, Part};
use super::job::Job;
use super::keeper::Keeper;
use super::lease::{Grant, LeaseId, Leases, Terms};
use super::ledger::{self, BLOCK_BYTES};
use super::stock::{BESIDE, Body, Counters, Stock, Times, Waiting};
use crate::base::closed::Closed;
use crate::base::held::{self, Locked};
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::base::level::Level;
use crate::base::timer::TimerId;
use crate::event::dead_letter::DeadLetter;
use crate::log::catalog::state_kind;
use crate::log::progress::Progress;
use crate::log::source::{DrainedState, StateSource};
use crate::read::error::ReadError;
use crate::topic::error::SubscribeError;
use crate::topic::metrics::QueueMetrics;
use crate::topic::partition::Partition;
use crate::topic::registry::Host;
use crate::topic::report::QueueReport;
use crate::topic::{Preparation, TopicCore, TopicReader};
use slipring_journal::{FrameBuilder, PartitionId};
use slipring_ring::{Consumer, Stage, Waiter};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

/// Leases that are ended at once under the lock.
const AT_ONCE: usize = 256;
/// How often it is looked whether a partition that was closed is read to its end.
const ENDING: Duration = Duration::from_millis(20);

pub(super) struct Desk<E, K: Producers> {
    pub(super) topic: String,
    pub(super) topic_id: TopicId,
    pub(super) name: String,
    pub(super) terms: Terms,
    pub(super) dead_topic: String,
    /// The number of the dead letters' topic in the journal.
    dead_number: u32,
    pub(super) workers: AtomicUsize,
    /// The [thread](crate::base::threads::token) that was given a message last; 0 before the first.
    pub(super) reader: AtomicUsize,
    stage: Stage,
    host: Arc<Host>,
    this: Weak<Self>,
    /// Of a durable topic.
    pub(super) book: Option<Book<E>>,
    /// Never taken while the stock is locked.
    keeper: Mutex<Keeper>,
    waiter: Arc<Waiter>,
    door: Condvar,
    stock: Mutex<Stock<E, K>>,
}

/// A message for a worker, and the change that gave it out.
pub(super) type Given<E> = (Grant<Body<E>>, u64);

/// How a lease ends.
#[derive(Clone, Copy)]
pub(super) enum End<'r> {
    Ack,
    Nack(Duration, &'r str),
    /// After the delay that the queue has for it.
    Retry(&'r str),
}

/// What a desk is made of.
pub(super) struct Parts<E, K: Producers> {
    pub(super) name: String,
    pub(super) stage: Stage,
    pub(super) dead: (String, u32, Keeper),
    pub(super) stock: Stock<E, K>,
    pub(super) book: Option<Book<E>>,
    pub(super) waiter: Arc<Waiter>,
}

impl<E: Job, K: Producers> Desk<E, K> {
    pub(super) fn new(topic: &TopicCore<E, K>, parts: Parts<E, K>) -> Arc<Self> {
        let Parts { name, stage, dead: (dead_topic, dead_number, keeper), stock, book, waiter } = parts;
        Arc::new_cyclic(|this| Self {
            topic: topic.name.clone(),
            topic_id: topic.id,
            name,
            terms: *stock.leases.terms(),
            dead_topic,
            dead_number,
            workers: AtomicUsize::new(0),
            reader: AtomicUsize::new(0),
            stage,
            host: Arc::clone(&topic.host),
            this: Weak::clone(this),
            book,
            keeper: Mutex::new(keeper),
            waiter,
            door: Condvar::new(),
            stock: Mutex::new(stock),
        })
    }

    pub(super) fn lock(&self) -> Locked<'_, Stock<E, K>> {
        held::refuse_inside();
        held::lock(&self.stock)
    }

    /// Never read under the lock: the clock is the user's code.
    pub(super) fn now(&self) -> Duration {
        self.host.clock.now()
    }

    pub(super) fn times(&self) -> Times {
        Times { now: self.now(), wall: self.host.clock.wall() }
    }

    fn read_error(&self, reason: Closed) -> ReadError {
        ReadError { topic: self.topic.clone(), consumer: self.name.clone(), reason }
    }

    /// The next message for a worker; none if there is none until `deadline`.
    pub(super) fn receive(&self, wait: bool, deadline: Option<Instant>) -> Result<Option<Grant<Arc<E>>>, ReadError> {
        loop {
            let Some((grant, change)) = self.claim(wait, deadline)? else { return Ok(None) };
            if let Some(grant) = self.complete(grant, change)? {
                return Ok(Some(grant));
            }
        }
    }

    /// Finds the body of what was given out, and waits until that it was is as safe as was asked for. None if the body is
    /// no more.
    pub(super) fn complete(&self, grant: Grant<Body<E>>, change: u64) -> Result<Option<Grant<Arc<E>>>, ReadError> {
        let Grant { id, partition, offset, attempt, deadline, message } = grant;
        let failed = |cause: String| self.read_error(Closed::Failed { consumer: self.name.clone(), cause });
        let message = match (message, &self.book) {
            (Some(body), _) => body,
            (None, Some(book)) => match book.load(partition, offset).map_err(failed)? {
                Some(body) => body,
                None => {
                    self.lose(partition, offset);
                    return Ok(None);
                }
            },
            (None, None) => return Ok(None),
        };
        if let Some(book) = &self.book {
            book.wait(change, book.level).map_err(failed)?;
        }
        Ok(Some(Grant { id, partition, offset, attempt, deadline, message }))
    }

    /// The same, without its body.
    pub(super) fn claim(&self, wait: bool, deadline: Option<Instant>) -> Result<Option<Given<E>>, ReadError> {
        let mut times = self.times();
        let mut stock = self.lock();
        let mut last = !wait;
        loop {
            if let Some(found) = self.look(&mut stock, times) {
                return found.map(Some);
            }
            if last {
                self.leave(&mut stock);
                return Ok(None);
            }
            if !stock.watched && !self.arm(&mut stock) {
                continue;
            }
            (stock, last, times) = self.sleep(stock, deadline);
        }
    }

    /// What there is now: a message, or the end.
    pub(super) fn look(&self, stock: &mut Stock<E, K>, times: Times) -> Option<Result<Given<E>, ReadError>> {
        self.hear(stock);
        if let Some(grant) = stock.next(times, self.book.as_ref()) {
            self.reader.store(crate::base::threads::token(), Ordering::Relaxed);
            self.settle(stock, times.now);
            self.leave(stock);
            return Some(Ok((grant, stock.change())));
        }
        if let Some(reason) = stock.ended() {
            // The others are told too.
            self.wake_all(stock);
            return Some(Err(self.read_error(reason)));
        }
        // What is delayed has come in meanwhile.
        self.settle(stock, times.now);
        None
    }

    /// False if there is something after all.
    pub(super) fn arm(&self, stock: &mut Stock<E, K>) -> bool {
        stock.arm(&self.waiter, self.book.as_ref())
    }

    pub(super) fn waiter(&self) -> &Waiter {
        &self.waiter
    }

    /// What rang while nobody watched.
    fn hear(&self, stock: &mut Stock<E, K>) {
        if !stock.watched && stock.ready.len() < stock.places.len() {
            let mut rang = Vec::new();
            self.waiter.take(|token| rang.push(token));
            stock.rang(rang);
        }
    }

    /// Sleeps at the bells, or at the door if somebody is there already. Whether the deadline has come, and the time then.
    fn sleep<'d>(
        &'d self,
        mut stock: Locked<'d, Stock<E, K>>,
        deadline: Option<Instant>,
    ) -> (Locked<'d, Stock<E, K>>, bool, Times) {
        let is_late = || deadline.is_some_and(|deadline| deadline <= Instant::now());
        if stock.watched {
            stock.at_the_door += 1;
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let mut stock = stock.wait(&self.stock, &self.door, left);
            stock.at_the_door -= 1;
            drop(stock);
            let times = self.times();
            return (self.lock(), is_late(), times);
        }
        stock.watched = true;
        let until = match stock.input.is_ending() {
            true => Some(deadline.unwrap_or_else(|| Instant::now() + ENDING).min(Instant::now() + ENDING)),
            false => deadline,
        };
        drop(stock);
        let mut rang = Vec::new();
        self.waiter.park(until, |token| rang.push(token));
        let times = self.times();
        let mut stock = self.lock();
        stock.watched = false;
        stock.rang(rang);
        (stock, is_late(), times)
    }

    /// Whoever goes back to work lets the next one watch.
    pub(super) fn leave(&self, stock: &mut Stock<E, K>) {
        if !stock.watched {
            self.call_in(stock);
        }
    }

    fn call_in(&self, stock: &mut Stock<E, K>) {
        if stock.at_the_door > 0 {
            self.door.notify_one();
        }
        stock.tasks.drain(..).for_each(held::wake);
    }

    /// There may be something for an idle worker.
    pub(super) fn wake(&self, stock: &mut Stock<E, K>) {
        if stock.watched {
            self.waiter.wake(WAKE);
        } else {
            self.call_in(stock);
        }
    }

    pub(super) fn wake_all(&self, stock: &mut Stock<E, K>) {
        self.door.notify_all();
        self.wake(stock);
        stock.tasks.drain(..).for_each(held::wake);
    }

    /// After a change: moves the dead on, sees to it that what is due after `now` is not missed, and tells the journal.
    pub(super) fn settle(&self, stock: &mut Stock<E, K>, now: Duration) {
        stock.bury(self.book.as_ref());
        stock.drop_gone();
        stock.counters.high_water = stock.counters.high_water.max(stock.leases.len());
        if let Some(book) = &self.book
            && stock.leases.changes().is_some_and(|changes| !changes.is_empty())
        {
            book.tell();
        }
        let Some(next) = stock.leases.next_due(now) else { return };
        if stock.alarm.is_some_and(|(at, _)| at <= next) {
            return;
        }
        if let Some((_, later)) = stock.alarm.take() {
            self.host.timer.cancel(later);
        }
        let this = Weak::clone(&self.this);
        let due = self.host.timer.at(next, move || {
            if let Some(desk) = this.upgrade() {
                desk.tick();
            }
        });
        stock.alarm = Some((next, due));
    }

    /// What was due is due now.
    fn tick(&self) {
        self.lock().alarm = None;
        loop {
            let now = self.now();
            let mut stock = self.lock();
            let more = stock.leases.expire(now, AT_ONCE);
            let was_full = !stock.has_room(self.book.as_ref());
            self.settle(&mut stock, now);
            if was_full || stock.has_news(now) {
                self.wake(&mut stock);
            }
            if !more {
                return;
            }
        }
    }

    /// A holder is done with its lease, or gives it back. `None`: the lease was not the holder's any more. Else the number
    /// of the change.
    pub(super) fn end(&self, grant: LeaseId, attempt: u32, how: End<'_>) -> Option<u64> {
        let now = self.now();
        let mut stock = self.lock();
        let was_full = !stock.has_room(self.book.as_ref());
        let ended = match how {
            End::Ack => stock.leases.ack(grant, now),
            End::Nack(delay, reason) => stock.leases.nack(grant, now, delay, reason).map(|_| ()),
            End::Retry(reason) => {
                let delay = self.terms.backoff.delay(attempt);
                stock.leases.nack(grant, now, delay, reason).map(|_| ())
            }
        };
        ended.ok()?;
        match how {
            End::Ack => stock.counters.acked += 1,
            End::Nack(..) | End::Retry(_) => stock.counters.nacked += 1,
        }
        self.settle(&mut stock, now);
        if was_full || stock.has_news(now) {
            self.wake(&mut stock);
        }
        Some(stock.change())
    }

    pub(super) fn renew(&self, id: LeaseId, visibility: Duration) -> Option<(Duration, u64)> {
        let now = self.now();
        let mut stock = self.lock();
        let deadline = stock.leases.renew(id, now, visibility).ok()?;
        self.settle(&mut stock, now);
        Some((deadline, stock.change()))
    }

    /// The lease of this number, if it still lasts.
    pub(super) fn resume(&self, partition: u32, offset: u64, number: u64) -> Option<Given<E>> {
        let now = self.now();
        let mut stock = self.lock();
        let grant = stock.leases.resume(partition, offset, number, now)?;
        Some((grant, stock.change()))
    }

    /// Waits until a change is as safe as was asked for.
    pub(super) fn safe(&self, change: u64) -> Result<(), String> {
        self.book.as_ref().map_or(Ok(()), |book| book.wait(change, book.level))
    }

    /// Whether a change is as safe as was asked for, or never will be; else the task is woken.
    #[cfg(feature = "async")]
    pub(super) fn is_safe(&self, change: u64, waker: &std::task::Waker) -> bool {
        self.book.as_ref().is_none_or(|book| book.is_safe(change, waker))
    }

    /// A message's body is no more.
    fn lose(&self, partition: u32, offset: u64) {
        let now = self.now();
        let mut stock = self.lock();
        if stock.leases.delete(partition, offset) {
            stock.counters.lost += 1;
        }
        self.settle(&mut stock, now);
    }

    /// Deletes a message that nobody was done with. False if there is none at this offset.
    pub(super) fn delete(&self, partition: u32, offset: u64) -> bool {
        let now = self.now();
        let mut stock = self.lock();
        let found = stock.leases.delete(partition, offset) || stock.delete_unread(partition, offset);
        if found {
            stock.counters.deleted += 1;
            self.settle(&mut stock, now);
            self.wake(&mut stock);
        }
        found
    }

    pub(super) fn purge(&self) -> u64 {
        let now = self.now();
        let mut stock = self.lock();
        let purged = stock.purge();
        self.settle(&mut stock, now);
        self.wake(&mut stock);
        purged
    }

    /// Hands over the dead letters: see [`Keeper::each`].
    pub(super) fn each_letter(&self, each: impl FnMut(DeadLetter, Option<(u32, u64)>) -> super::keeper::Verdict) {
        held::refuse_inside();
        self.wait_for_letters();
        let mut keeper = held::lock(&self.keeper);
        let moved = keeper.each(each);
        drop(keeper);
        let now = self.now();
        let mut stock = self.lock();
        if let Some(changes) = stock.leases.changes() {
            moved.into_iter().for_each(|(partition, next)| changes.cursor(Cursor::Letters(partition), next));
        }
        // There may be room among the dead letters, or some have come back.
        self.settle(&mut stock, now);
        self.wake(&mut stock);
    }

    /// What is left at this moment.
    pub(super) fn report_of(&self, stock: &Stock<E, K>) -> QueueReport {
        let counts = stock.leases.counts();
        QueueReport {
            name: self.name.clone(),
            unread: stock.input.lag(),
            leased: counts.leased as u64,
            waiting: counts.waiting as u64,
            dying: counts.dying as u64,
            durable: self.book.is_some(),
        }
    }

    /// The next queue of this name numbers its leases from there on: a ticket of this one is none of that.
    pub(super) fn note_numbers(&self, stock: &Stock<E, K>) {
        self.host.lease_numbers.fetch_max(stock.leases.last_number(), Ordering::AcqRel);
    }

    pub(super) fn cancel(&self, due: TimerId) {
        self.host.timer.cancel(due);
    }

    /// Lets go of the dead letters.
    pub(super) fn close_keeper(&self) {
        held::lock(&self.keeper).close();
    }

    /// Waits until the letters that were published before are in the journal, where they are read.
    fn wait_for_letters(&self) {
        const LIMIT: Duration = Duration::from_secs(10);
        let Some(book) = &self.book else { return };
        let deadline = Instant::now() + LIMIT;
        let notifier = &book.committer.notifier;
        let settled = || (book.letters_on_the_way() == 0 || notifier.end_cause().is_some()).then_some(());
        let _ = notifier.wait(Some(deadline), settled);
        let change = self.lock().change();
        let _ = book.wait(change, Level::Written);
    }

    /// A dead letter becomes a message again, and all up to it in its partition of the letters are dealt with. False if
    /// there is no room, or if the event's type cannot read it.
    pub(super) fn restore(&self, letter: DeadLetter, next: Option<(u32, u64)>) -> bool {
        let DeadLetter { partition, offset, message, .. } = letter;
        // Under the keeper's lock.
        let Ok(Some(body)) = held::inside(|| E::of_dead_letter(message)) else { return false };
        let now = self.now();
        let mut stock = self.lock();
        let has_room = stock.has_room(self.book.as_ref());
        if has_room {
            stock.leases.restore(partition, offset, Some(Arc::new(body)), now, Duration::ZERO);
            // At once: who is given the message may be done with it before all letters are sent back, and after a crash it
            // would be a letter again.
            if let (Some((partition, next)), Some(changes)) = (next, stock.leases.changes()) {
                changes.cursor(Cursor::Letters(partition), next);
            }
        }
        has_room
    }

    pub(super) fn peek(&self, limit: usize) -> Vec<Waiting<E>> {
        let now = self.now();
        let mut stock = self.lock();
        stock.leases.expire(now, usize::MAX);
        self.settle(&mut stock, now);
        let peeked = stock.peek(limit, now);
        drop(stock);
        let peeked = peeked.unwrap_or_else(|panic| panic!("{panic}"));
        let load = |partition, offset| self.book.as_ref()?.load(partition, offset).ok()?;
        let shown = peeked.into_iter().filter_map(|it| {
            let message = it.body.or_else(|| load(it.partition, it.offset))?;
            let (partition, offset, attempts, delay) = (it.partition, it.offset, it.attempts, it.delay);
            Some(Waiting { partition, offset, attempts, delay, message })
        });
        shown.collect()
    }

    pub(super) fn metrics(&self) -> QueueMetrics {
        let mut stock = self.lock();
        let counts = stock.leases.counts();
        let Counters { delivered, redelivered, acked, nacked, deleted, dead, lost, high_water } = stock.counters;
        QueueMetrics {
            name: self.name.clone(),
            unread: stock.input.lag(),
            leased: counts.leased as u64,
            waiting: counts.waiting as u64,
            dying: counts.dying as u64,
            bytes: counts.bytes as u64,
            full: !stock.has_room(self.book.as_ref()),
            delivered,
            redelivered,
            acked,
            nacked,
            expired: counts.expired,
            deleted,
            dead,
            lost,
            high_water: high_water as u64,
        }
    }
}

/// What a frame must have room for before one more part is put into it.
const PART_BYTES: usize = BLOCK_BYTES + 16 * 110;

impl<E: Job, K: Producers> StateSource for Desk<E, K> {
    fn drain(
        &self,
        frame: &mut FrameBuilder,
        room: usize,
        drained: &mut dyn FnMut(PartitionId) -> Option<u64>,
    ) -> DrainedState {
        let Some(book) = &self.book else { return DrainedState::default() };
        let shift = Stock::<E, K>::shift(&*self.host.clock);
        let mut stock = self.lock();
        let (begun, number) = (frame.len(), book.number);
        let has_room = |frame: &FrameBuilder| frame.len() - begun + PART_BYTES <= room;
        let put = |stock: &mut Stock<E, K>, frame: &mut FrameBuilder, partition, block| {
            let mark = frame.mark();
            let known = |offset| stock.leases.known(partition, offset);
            let is_there = ledger::put_block(frame, number, partition, block, shift, known);
            let part = Part::Block(partition, block);
            if !stock.leases.changes().is_none_or(|changes| changes.write(part, is_there)) {
                // It came and went between two frames.
                frame.rewind(mark);
            }
        };
        // A letter and the end of its message are in one frame.
        for (partition, offset) in stock.settle_burials(book, self.dead_number, drained) {
            if has_room(frame) {
                put(&mut stock, frame, partition, offset / super::changes::BLOCK);
            }
        }
        stock.bury(self.book.as_ref());
        let mut drained_state = DrainedState {
            urgent: book.is_urgent(),
            awaits_events: !stock.burials.is_empty(),
            ..DrainedState::default()
        };
        loop {
            if !has_room(frame) {
                drained_state.more = true;
                return drained_state;
            }
            let next = stock.leases.changes().and_then(|changes| changes.next());
            match next {
                None => return drained_state,
                Some(Next::Part(Part::Block(partition, block))) => put(&mut stock, frame, partition, block),
                Some(Next::Part(part @ Part::Deleted(partition, offset))) => {
                    let key = ledger::part_key(number, part);
                    let is_there = stock.deleted.contains(&(partition, offset));
                    let is_news = stock.leases.changes().is_none_or(|changes| changes.write(part, is_there));
                    match is_there {
                        true => frame.put(state_kind::QUEUES, &key, &[]),
                        false if is_news => frame.delete(state_kind::QUEUES, &key),
                        false => {}
                    }
                }
                // One frame for both: a crash between the two would tell of the gap twice.
                Some(Next::Gap(told)) => {
                    told.put(frame);
                    ledger::put_cursor(frame, number, Cursor::Partition(told.of.partition), told.offsets.end);
                }
                Some(Next::Cursor(cursor, next)) => ledger::put_cursor(frame, number, cursor, next),
                Some(Next::End(count)) => drained_state.changes = Some(count),
            }
        }
    }

    fn progress(&self) -> &Arc<Progress> {
        // Asked only after it was drained.
        static NONE: std::sync::OnceLock<Arc<Progress>> = std::sync::OnceLock::new();
        self.book.as_ref().map_or_else(|| NONE.get_or_init(Arc::default), |book| &book.progress)
    }
}

impl<E: Job, K: Producers> TopicReader<E, K> for Desk<E, K> {
    fn join(&self, partition: &Arc<Partition<E, K>>) -> Result<Consumer<E, K>, SubscribeError> {
        let joined = partition.ring.join(self.stage.clone());
        joined.map_err(|cause| SubscribeError::new(&self.topic, partition.index, cause))
    }

    fn take(
        self: Arc<Self>,
        partition: &Arc<Partition<E, K>>,
        consumer: Consumer<E, K>,
        _: Preparation,
    ) -> Box<dyn FnOnce()> {
        let mut stock = self.lock();
        let source = stock.input.len();
        stock.input.add(partition, consumer);
        stock.ready.push(source);
        stock.places.push(super::stock::Place::Ready);
        drop(stock);
        Box::new(move || self.wake(&mut self.lock()))
    }
}

/// Leases of a queue that begins.
pub(super) fn leases<E: Job>(terms: Terms) -> Leases<Body<E>> {
    Leases::new(terms, |body: &Body<E>| body.as_ref().map_or(0, |body| body.weight() + BESIDE))
}
