//! Lingering producers: they gather records and publish them together.

use crate::base::clock::Timestamp;
use crate::base::kind::Producers;
use crate::base::overload::TopicCounters;
use crate::base::threads::{blaming, caught};
use crate::base::turn::{Turn, TurnGuard};
use crate::base::when_full::WhenFull;
use crate::event::message::{Message, Parts};
use crate::event::record::Record;
use crate::log::receipt::Receipt;
use crate::produce::{Producer, ProducerBuilder};
use crate::topic::TopicCore;
use crate::topic::error::{ProducerError, PublishError};
use slipring_ring::Multi;
use std::borrow::Borrow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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
    callback: Option<PublishedCallback>,
}

/// The callback for each published record, with the record's number and its receipt.
type PublishedCallback = Box<dyn FnMut(u64, Receipt) + Send>;

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

    /// Calls `callback` for each published record, with the number that [`send`](LingeringProducer::send) returned for
    /// it and its receipt. The callback runs on the thread that flushes, which may be the engine's timer, so it must be
    /// short and must not wait for room. It may use this producer; for a record that it sends, the next call comes
    /// after the present one has returned.
    pub fn on_published(mut self, callback: impl FnMut(u64, Receipt) + Send + 'static) -> Self {
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
        let published = Arc::new(PublishedRecords {
            count: AtomicUsize::new(0),
            has_callback: callback.is_some(),
            receipts: Mutex::default(),
        });
        let own = Arc::clone(&published);
        let gathered = LingerBuffer {
            producer,
            partitions: Vec::new(),
            count: 0,
            next: 0,
            published: own,
            is_due: false,
            failed: None,
        };
        let (gathered, callback) = (Turn::new(gathered), Turn::new(callback));
        Ok(LingeringProducer {
            shared: Arc::new(LingerShared { topic, delay, records, gathered, published, callback }),
        })
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
/// # Dropping
/// Dropping the last handle publishes the gathered records, trying for one second at most. Records that find no room by
/// then are lost, and counted as dropped in the topic's metrics. To learn of that, call [`flush`](Self::flush) before.
pub struct LingeringProducer<K: Producers = Multi> {
    shared: Arc<LingerShared<K>>,
}

struct LingerShared<K: Producers> {
    topic: Arc<TopicCore<Message, K>>,
    delay: Duration,
    records: usize,
    /// The buffer. One thread at a time takes it, without a mutex held, because that thread runs user code, such as the
    /// partitioner.
    gathered: Arc<Turn<LingerBuffer<K>>>,
    published: Arc<PublishedRecords>,
    /// The callback; `None` if none was set. One thread at a time takes it, without a mutex held, so that other threads
    /// can gather records while the callback runs.
    callback: Arc<Turn<Option<PublishedCallback>>>,
}

/// The state that other threads may read while one thread has the buffer.
struct PublishedRecords {
    /// Count of gathered records.
    count: AtomicUsize,
    /// True if there is a callback.
    has_callback: bool,
    /// Numbers and receipts of the published records for which the callback is not called yet, in the order of the
    /// numbers.
    receipts: Mutex<VecDeque<(u64, Receipt)>>,
}

impl PublishedRecords {
    fn receipts(&self) -> MutexGuard<'_, VecDeque<(u64, Receipt)>> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct LingerBuffer<K: Producers> {
    producer: Producer<Message, K>,
    /// The gathered records, indexed by the partition's number.
    partitions: Vec<PartitionBatch>,
    /// Count of records in all partitions.
    count: usize,
    /// The number of the next record.
    next: u64,
    published: Arc<PublishedRecords>,
    /// True if a flush of this buffer is scheduled on the timer.
    is_due: bool,
    /// The error of a flush by the timer that later flushes cannot overcome, such as that the topic is closed. `None`
    /// if there was none.
    failed: Option<PublishError>,
}

/// The records that are gathered for one partition.
#[derive(Default)]
struct PartitionBatch {
    bytes: Vec<u8>,
    entries: Vec<RecordEntry>,
}

#[derive(Clone, Copy)]
struct RecordEntry {
    number: u64,
    parts: Parts,
}

impl<K: Producers> Clone for LingeringProducer<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Producers> fmt::Debug for LingeringProducer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LingeringProducer of {:?} with {} records", self.shared.topic.name, self.gathered())
    }
}

impl<K: Producers> LingeringProducer<K> {
    /// Copies a record into the buffer and returns its number, from 0 on. If that completes the set count of records,
    /// publishes all of them; if they have no room, the topic's [`overflow`](crate::TopicBuilder::overflow) policy
    /// applies.
    ///
    /// # Errors
    /// The record is larger than the topic allows, its partition does not exist, the buffer is full and has no room to
    /// be published, a flush has found the topic closed, or this producer's own partitioner has called this. The record
    /// was not taken.
    pub fn send<'r>(&self, record: impl Borrow<Record<'r>>) -> Result<u64, PublishError> {
        let record = record.borrow();
        let delayed = record.at(|| self.shared.topic.host.clock.wall());
        let sent = self.shared.send(delayed.as_ref().unwrap_or(record));
        self.shared.call_back();
        sent
    }

    /// Publishes all gathered records. If they have no room, the topic's [`overflow`](crate::TopicBuilder::overflow)
    /// policy applies.
    ///
    /// # Errors
    /// There was no room, or the topic is closed. Records that were not published stay gathered.
    pub fn flush(&self) -> Result<(), PublishError> {
        self.shared.flush(WhenFull::Policy)
    }

    /// As [`flush`](Self::flush), but waits at most until `deadline`.
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush).
    pub fn flush_until(&self, deadline: Instant) -> Result<(), PublishError> {
        self.shared.flush(WhenFull::Until(deadline))
    }

    /// Count of records that are gathered and not published yet.
    pub fn gathered(&self) -> usize {
        self.shared.published.count.load(Ordering::Acquire)
    }
}

impl<K: Producers> LingerShared<K> {
    /// Takes the buffer, after waiting until no other thread has it. An error if the calling thread has the buffer
    /// already.
    fn gathered(&self) -> Result<TurnGuard<LingerBuffer<K>>, PublishError> {
        self.gathered.take().ok_or_else(|| PublishError::Nested { topic: self.topic.name.clone() })
    }

    fn send(self: &Arc<Self>, record: &Record<'_>) -> Result<u64, PublishError> {
        let mut gathered = self.gathered()?;
        if let Some(failed) = &gathered.failed {
            return Err(failed.clone());
        }
        let partition = gathered.producer.destination(record)?;
        if gathered.count >= self.records {
            // The last flush was refused. A flush must succeed before another record is taken.
            gathered.flush(WhenFull::Policy)?;
        }
        let number = gathered.take(partition as usize, record);
        if gathered.count >= self.records {
            // The record is taken whatever the flush returns. The next send returns an error if there is still no room.
            let _ = gathered.flush(WhenFull::Policy);
        }
        if gathered.count > 0 && !std::mem::replace(&mut gathered.is_due, true) {
            self.ask_timer(self.delay, Arc::downgrade(self));
        }
        Ok(number)
    }

    fn flush(&self, full: WhenFull<'_>) -> Result<(), PublishError> {
        let flushed = self.gathered()?.flush(full);
        self.call_back();
        flushed
    }

    /// Calls the callback for the published records. Returns at once if the calling thread is in the callback already:
    /// then the outer call continues with the new records.
    fn call_back(&self) {
        while self.published.has_callback && !self.published.receipts().is_empty() {
            let Some(mut callback) = self.callback.take() else { return };
            self.call_with(&mut callback);
        }
    }

    /// As [`call_back`](Self::call_back), but returns at once if another thread runs the callback.
    fn try_call_back(&self) {
        while self.published.has_callback && !self.published.receipts().is_empty() {
            let Some(mut callback) = self.callback.try_take() else { return };
            self.call_with(&mut callback);
        }
    }

    fn call_with(&self, callback: &mut Option<PublishedCallback>) {
        let Some(callback) = callback else { return };
        loop {
            let next = self.published.receipts().pop_front();
            let Some((number, receipt)) = next else { return };
            blaming("`on_published`", || callback(number, receipt));
        }
    }

    fn ask_timer(&self, delay: Duration, own: Weak<Self>) {
        let task = move || {
            if let Some(shared) = own.upgrade() {
                shared.flush_in_time(own);
            }
        };
        self.topic.host.timer.after(delay, task);
    }

    /// Flushes the buffer on the timer's thread. Never waits: if there is no room, or another thread has the buffer,
    /// the timer tries again after [`AGAIN`]. Any other error is kept in [`failed`](LingerBuffer::failed).
    fn flush_in_time(&self, own: Weak<Self>) {
        let Some(mut gathered) = self.gathered.try_take() else { return self.ask_timer(AGAIN, own) };
        let mut done = caught(|| gathered.flush(WhenFull::Later)).map(|flushed| match flushed {
            Ok(()) => gathered.is_due = false,
            Err(refused) if refused.is_full() => self.ask_timer(AGAIN, own),
            Err(refused) => gathered.failed = Some(refused),
        });
        drop(gathered);
        done = done.and(caught(|| self.try_call_back()));
        if let Err(panic) = done {
            // A panic of user code closes the topic, as a handler that panics does.
            self.topic.fail("linger", &panic.to_string());
        }
    }
}

impl<K: Producers> LingerBuffer<K> {
    fn take(&mut self, partition: usize, record: &Record<'_>) -> u64 {
        if self.partitions.len() <= partition {
            self.partitions.resize_with(partition + 1, PartitionBatch::default);
        }
        let stack = &mut self.partitions[partition];
        let number = self.next;
        stack.entries.push(RecordEntry { number, parts: Parts::write(record, &mut stack.bytes) });
        self.next += 1;
        self.set_count(self.count + 1);
        number
    }

    fn set_count(&mut self, count: usize) {
        self.count = count;
        self.published.count.store(count, Ordering::Release);
    }

    fn flush(&mut self, full: WhenFull) -> Result<(), PublishError> {
        if let Some(failed) = self.failed.as_ref().filter(|_| self.count > 0) {
            return Err(failed.clone());
        }
        let largest = self.producer.topic().settings.largest_batch();
        for (partition, stack) in self.partitions.iter_mut().enumerate() {
            while !stack.entries.is_empty() {
                let len = stack.entries.len().min(largest);
                let size = stack.entries[..len].iter().map(|entry| entry.parts.size()).sum::<usize>();
                let mut rest = &stack.bytes[..size];
                let mut fill = |index: usize, message: &mut Message, now: Option<Timestamp>| {
                    let entry: &RecordEntry = &stack.entries[index];
                    let (bytes, after) = rest.split_at(entry.parts.size());
                    rest = after;
                    message.fill_parts(entry.parts, bytes, now);
                };
                let first = self.producer.place_gathered(partition as u32, full, len, size as u64, &mut fill)?;
                let topic = self.producer.topic().id;
                stack.bytes.drain(..size);
                self.count -= len;
                self.published.count.store(self.count, Ordering::Release);
                let receipts = stack.entries.drain(..len).enumerate().map(|(index, entry)| {
                    let receipt = match first {
                        Some(first) => Receipt::new(topic, partition as u32, first + index as u64),
                        None => Receipt::dropped(topic, partition as u32),
                    };
                    (entry.number, receipt)
                });
                match self.published.has_callback {
                    true => self.published.receipts().extend(receipts),
                    false => drop(receipts),
                }
            }
        }
        Ok(())
    }
}

impl<K: Producers> Drop for LingerShared<K> {
    fn drop(&mut self) {
        let Some(mut gathered) = self.gathered.try_take() else { return };
        let flushed = caught(|| gathered.flush(WhenFull::Until(Instant::now() + LAST_FLUSH)));
        if !matches!(flushed, Ok(Ok(()))) && gathered.count > 0 {
            TopicCounters::add(&self.topic.counts.dropped, gathered.count);
        }
        drop(gathered);
        drop(caught(|| self.try_call_back()));
    }
}
