//! Lingering producers: they gather records and publish them together.

mod buffer;

use crate::base::kind::Producers;
use crate::base::threads::{Panic, blaming, caught};
use crate::base::turn::{Turn, TurnGuard};
use crate::base::when_full::WhenFull;
use crate::event::message::Message;
use crate::event::record::Record;
use crate::log::receipt::Receipt;
use crate::produce::ProducerBuilder;
use crate::topic::TopicCore;
use crate::topic::error::{ProducerError, PublishError};
use crate::topic::gathering::{Gatherer, LastFlush};
use buffer::{LingerBuffer, LingerState};
use slipring_ring::Multi;
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The longest time for which dropping the last handle tries to publish the gathered records.
const LAST_FLUSH: Duration = Duration::from_secs(1);
/// The time after which the timer flushes again, if there was no room or another thread had the buffer.
const AGAIN: Duration = Duration::from_millis(1);

/// Settings of a [`LingeringProducer`].
pub struct LingerBuilder<K: Producers = Multi> {
    producer: ProducerBuilder<Message, K>,
    delay: Duration,
    records: usize,
    callback: Option<Callback>,
}

/// The callback for each record, with the record's number and its outcome.
type Callback = Box<dyn FnMut(u64, LingerOutcome) + Send>;

/// The receipt of a published record, or why the record was given up.
type LingerOutcome = Result<Receipt, PublishError>;

impl<K: Producers> ProducerBuilder<Message, K> {
    /// Returns the settings of a producer that gathers up to `records` records, each for at most `delay`, and publishes
    /// them together. See [`LingeringProducer`](crate::producer::LingeringProducer).
    pub fn linger(self, delay: Duration, records: usize) -> LingerBuilder<K> {
        LingerBuilder::new(self, delay, records)
    }
}

impl<K: Producers> LingerBuilder<K> {
    pub(crate) fn new(producer: ProducerBuilder<Message, K>, delay: Duration, records: usize) -> Self {
        Self { producer, delay, records: records.max(1), callback: None }
    }

    /// Calls `callback` exactly once for each record that [`send`](LingeringProducer::send) has taken, with the number that
    /// `send` returned for it and its outcome: the receipt, or the error for which the record was given up, because the
    /// topic has ended or the last handle was dropped without room. A record that the topic's policy
    /// [drops](crate::topic::Overflow::DropNewest) has a receipt that says so.
    ///
    /// The callback runs on the thread that flushes, which may be the engine's timer or a thread that shuts the engine
    /// down, so it must be short and must not wait for room. It may use this producer; for a record that it sends, the
    /// next call comes after the present one has returned.
    pub fn on_completion(mut self, callback: impl FnMut(u64, Result<Receipt, PublishError>) + Send + 'static) -> Self {
        self.callback = Some(Box::new(callback));
        self
    }

    /// Creates the producer.
    ///
    /// # Errors
    /// Those of [`ProducerBuilder::create`].
    pub fn create(self) -> Result<LingeringProducer<K>, ProducerError> {
        let Self { producer, delay, records, callback } = self;
        let producer = producer.create()?;
        producer.topic().start_timer()?;
        let topic = Arc::clone(producer.topic());
        let state = LingerState::new(callback.is_some());
        let buffer = LingerBuffer::new(producer, Arc::clone(&state));
        let core = LingerCore { topic, buffer: Turn::new(buffer), state, callback: Turn::new(callback) };
        Ok(LingeringProducer { shared: Arc::new(LingerShared::new(Arc::new(core), delay, records)) })
    }
}

/// Gathers records, and publishes them together when there are enough or the first one has waited for the set delay:
/// one claim and one wake-up for many records. Cloning gives another handle of the same producer.
///
/// A record can be read after the flush, not when `send` returns. Records that cannot be published for lack of room
/// stay gathered. When the set count of records is gathered and has no room, [`send`](Self::send) returns an error.
///
/// ```
/// # use slipring::{Engine, Message, Record, clock::ManualClock};
/// # use std::time::Duration;
/// let clock = ManualClock::new();
/// let engine = Engine::builder().clock(clock.clone()).build()?;
/// let orders = engine.topic::<Message>("orders").create()?;
/// let producer = orders.producer().linger(Duration::from_millis(5), 100).create()?;
/// producer.send(Record::new("buy"))?;
/// producer.send(Record::new("sell"))?;
/// assert_eq!(orders.metrics().published, 0);
/// clock.advance(Duration::from_millis(5));                // or producer.flush()?, or the hundredth record
/// assert_eq!(orders.metrics().published, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # When the topic ends
/// [`Engine::shutdown`](crate::Engine::shutdown) publishes the gathered records before it closes the topic, and waits for
/// room up to its limit. [`Topic::close`](crate::Topic::close) publishes those that have room. Records that are left are
/// given up: the [callback](LingerBuilder::on_completion) gets the error for each, they are counted as dropped in the
/// topic's metrics, and a shutdown's report counts them as [`unpublished`](crate::metrics::TopicReport::unpublished). From
/// then on `send` and `flush` return the error.
///
/// # Dropping
/// Dropping the last handle publishes the gathered records, trying for one second at most. Records that find no room by
/// then are given up in the same way.
pub struct LingeringProducer<K: Producers = Multi> {
    shared: Arc<LingerShared<K>>,
}

/// What the handles of one producer share. Its drop is the end of the producer.
struct LingerShared<K: Producers> {
    core: Arc<LingerCore<K>>,
    /// The key of `core` in the topic's list of gathering producers.
    key: u64,
    delay: Duration,
    records: usize,
}

/// The part of a producer that its topic knows too, from its creation until the last handle is dropped.
struct LingerCore<K: Producers> {
    topic: Arc<TopicCore<Message, K>>,
    /// One thread at a time takes the buffer, without a mutex held, because that thread runs user code, such as the
    /// partitioner.
    buffer: Arc<Turn<LingerBuffer<K>>>,
    state: Arc<LingerState>,
    /// The callback; `None` if none was set. One thread at a time takes it, without a mutex held, so that other threads
    /// can gather records while the callback runs.
    callback: Arc<Turn<Option<Callback>>>,
}

impl<K: Producers> Clone for LingeringProducer<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Producers> fmt::Debug for LingeringProducer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LingeringProducer of {:?} with {} records", self.shared.core.topic.name, self.gathered())
    }
}

impl<K: Producers> LingeringProducer<K> {
    /// Copies a record into the buffer and returns its number, from 0 on. If that completes the set count of records,
    /// publishes all of them; if they have no room, the topic's [`overflow`](crate::TopicBuilder::overflow) policy
    /// applies.
    ///
    /// # Errors
    /// The record is larger than the topic allows, its partition does not exist, the buffer is full and has no room to
    /// be published, the topic has ended, or this producer's own partitioner has called this. The record was not taken.
    pub fn send<'r>(&self, record: impl Borrow<Record<'r>>) -> Result<u64, PublishError> {
        let record = record.borrow();
        let delayed = record.at(|| self.shared.core.topic.host.clock.wall());
        let sent = self.shared.send(delayed.as_ref().unwrap_or(record));
        self.shared.core.call_back();
        sent
    }

    /// Publishes all gathered records. If they have no room, the topic's [`overflow`](crate::TopicBuilder::overflow)
    /// policy applies.
    ///
    /// # Errors
    /// There was no room: the records that were not published stay gathered. Or the topic has ended: records that were
    /// gathered then are given up.
    pub fn flush(&self) -> Result<(), PublishError> {
        self.shared.core.flush(WhenFull::Policy)
    }

    /// As [`flush`](Self::flush), but waits at most until `deadline`.
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush).
    pub fn flush_until(&self, deadline: Instant) -> Result<(), PublishError> {
        self.shared.core.flush(WhenFull::Until(deadline))
    }

    /// Count of records that are gathered and neither published nor given up yet.
    pub fn gathered(&self) -> usize {
        self.shared.core.gathered()
    }
}

impl<K: Producers> LingerShared<K> {
    fn new(core: Arc<LingerCore<K>>, delay: Duration, records: usize) -> Self {
        let key = core.topic.gathering.add(Arc::clone(&core) as Arc<dyn Gatherer>);
        Self { core, key, delay, records }
    }

    fn send(self: &Arc<Self>, record: &Record<'_>) -> Result<u64, PublishError> {
        let mut buffer = self.core.buffer()?;
        let partition = buffer.producer.destination(record)?;
        // Checked after the partitioner, which is user code and may take long.
        buffer.may_take()?;
        if buffer.count >= self.records {
            // The last flush was refused. A flush must succeed before another record is taken.
            buffer.flush(WhenFull::Policy)?;
        }
        let number = buffer.take(partition as usize, record);
        if buffer.count >= self.records {
            // The record is taken whatever the flush returns. The next send returns an error if there is still no room.
            let _ = buffer.flush(WhenFull::Policy);
        }
        if buffer.count > 0 && !std::mem::replace(&mut buffer.is_due, true) {
            self.ask_timer(self.delay);
        }
        Ok(number)
    }

    fn ask_timer(self: &Arc<Self>, delay: Duration) {
        let own = Arc::downgrade(self);
        let task = move || {
            if let Some(shared) = own.upgrade() {
                shared.flush_in_time();
            }
        };
        self.core.topic.host.timer.after(delay, task);
    }

    /// Flushes the buffer on the timer's thread. Never waits: if there is no room, or another thread has the buffer,
    /// the timer tries again after [`AGAIN`].
    fn flush_in_time(self: &Arc<Self>) {
        let Some(mut buffer) = self.core.buffer.try_take() else { return self.ask_timer(AGAIN) };
        match self.core.try_flush(&mut buffer) {
            Err(refused) if refused.is_full() => self.ask_timer(AGAIN),
            _ => buffer.is_due = false,
        }
        drop(buffer);
        self.core.call_back_or_fail();
    }
}

impl<K: Producers> LingerCore<K> {
    /// Takes the buffer, after waiting until no other thread has it. An error if the calling thread has the buffer
    /// already.
    fn buffer(&self) -> Result<TurnGuard<LingerBuffer<K>>, PublishError> {
        self.buffer.take().ok_or_else(|| PublishError::Nested { topic: self.topic.name.clone() })
    }

    fn flush(&self, full: WhenFull<'_>) -> Result<(), PublishError> {
        let flushed = self.buffer()?.flush(full);
        self.call_back();
        flushed
    }

    /// Flushes without waiting, on a thread that must survive a panic of user code. Such a panic fails the topic, as
    /// that of a handler does, and the records are given up.
    fn try_flush(&self, buffer: &mut LingerBuffer<K>) -> Result<(), PublishError> {
        caught(|| buffer.flush(WhenFull::Later)).unwrap_or_else(|panic| {
            self.fail(&panic);
            let ended = buffer.ended();
            buffer.give_up(&ended);
            Err(ended)
        })
    }

    /// The state of a producer whose buffer could not be taken.
    fn held(&self) -> LastFlush {
        if self.buffer.is_taken_here() { LastFlush::Here } else { LastFlush::Busy }
    }

    fn fail(&self, panic: &Panic) {
        self.topic.fail("linger", &panic.to_string());
    }

    /// Calls the callback for the published records. Returns at once if the calling thread is in the callback already:
    /// then the outer call continues with the new records.
    fn call_back(&self) {
        while self.has_outcomes() {
            let Some(mut callback) = self.callback.take() else { return };
            self.call_with(&mut callback);
        }
    }

    /// As [`call_back`](Self::call_back), but returns at once if another thread runs the callback, which then continues
    /// with the new records, and returns a panic of the callback.
    fn try_call_back(&self) -> Result<(), Panic> {
        while self.has_outcomes() {
            let Some(mut callback) = self.callback.try_take() else { return Ok(()) };
            caught(|| self.call_with(&mut callback))?;
        }
        Ok(())
    }

    /// As [`try_call_back`](Self::try_call_back), but a panic of the callback fails the topic, as that of a handler
    /// does.
    fn call_back_or_fail(&self) {
        while let Err(panic) = self.try_call_back() {
            self.fail(&panic);
        }
    }

    fn has_outcomes(&self) -> bool {
        self.state.has_callback && !self.state.outcomes().is_empty()
    }

    fn call_with(&self, callback: &mut Option<Callback>) {
        let Some(callback) = callback else { return };
        loop {
            let next = self.state.outcomes().pop_front();
            let Some((number, outcome)) = next else { return };
            blaming("`on_completion`", || callback(number, outcome));
        }
    }
}

impl<K: Producers> Gatherer for LingerCore<K> {
    fn gathered(&self) -> usize {
        self.state.count.load(Ordering::Acquire)
    }

    fn flush_last(&self) -> LastFlush {
        let Some(mut buffer) = self.buffer.try_take() else { return self.held() };
        let flushed = self.try_flush(&mut buffer);
        let done = match &flushed {
            Err(PublishError::RateLimited { .. } | PublishError::Full { by: None, .. }) => LastFlush::Later,
            Err(refused) if refused.is_full() => LastFlush::Full,
            _ => {
                let ended = buffer.ended();
                buffer.failed.get_or_insert(ended);
                LastFlush::Done
            }
        };
        drop(buffer);
        self.call_back_or_fail();
        done
    }

    fn give_up(&self) -> LastFlush {
        let Some(mut buffer) = self.buffer.try_take() else { return self.held() };
        let ended = buffer.ended();
        buffer.give_up(&ended);
        drop(buffer);
        self.call_back_or_fail();
        LastFlush::Done
    }
}

impl<K: Producers> Drop for LingerShared<K> {
    fn drop(&mut self) {
        let core = &self.core;
        // No handle is left, so only a thread that ends the topic can have borrowed the buffer. That thread gives up
        // the records that it does not publish, and removes the producer from `gathering`.
        let Some(mut buffer) = core.buffer.try_take() else { return };
        let flushed = caught(|| buffer.flush(WhenFull::Until(Instant::now() + LAST_FLUSH)));
        if buffer.count > 0 {
            let why = flushed.ok().and_then(Result::err).unwrap_or_else(|| buffer.ended());
            buffer.give_up(&why);
        }
        drop(buffer);
        // Each call is for another record, so this ends. A panic has nowhere to go: a drop must not panic.
        while core.try_call_back().is_err() {}
        core.topic.gathering.remove(self.key);
    }
}
