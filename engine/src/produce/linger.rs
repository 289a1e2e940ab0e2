//! A producer that gathers records and publishes them together.

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

/// How long a dropped producer tries to publish what it has gathered.
const LAST_FLUSH: Duration = Duration::from_secs(1);
/// How soon the timer looks again where it found no room, or somebody at work.
const AGAIN: Duration = Duration::from_millis(1);

/// Settings of a [`LingeringProducer`].
pub struct LingerBuilder<K: Producers = Multi> {
    producer: ProducerBuilder<Message, K>,
    delay: Duration,
    records: usize,
    told: Option<PublishedCallback>,
}

/// Told of each record that was published.
type PublishedCallback = Box<dyn FnMut(u64, Receipt) + Send>;

impl<K: Producers> ProducerBuilder<Message, K> {
    /// A producer that gathers up to `records` records, none of them for longer than `delay`, and publishes them together.
    /// See [`LingeringProducer`](crate::producer::LingeringProducer).
    pub fn linger(self, delay: Duration, records: usize) -> LingerBuilder<K> {
        LingerBuilder::new(self, delay, records)
    }
}

impl<K: Producers> LingerBuilder<K> {
    pub(crate) fn new(producer: ProducerBuilder<Message, K>, delay: Duration, records: usize) -> Self {
        Self { producer, delay, records: records.max(1), told: None }
    }

    /// Calls `told` with the number that [`send`](LingeringProducer::send) returned and the receipt, when a record was
    /// published: on the thread that flushes, which may be the engine's timer. It must be short, and must not wait for room.
    /// It may use this producer: what it sends is told after it has returned.
    pub fn on_published(mut self, told: impl FnMut(u64, Receipt) + Send + 'static) -> Self {
        self.told = Some(Box::new(told));
        self
    }

    /// Creates the producer.
    ///
    /// # Errors
    /// As [`ProducerBuilder::create`].
    pub fn create(self) -> Result<LingeringProducer<K>, ProducerError> {
        let Self { producer, delay, records, told } = self;
        let producer = producer.create()?;
        producer.topic().start_timer()?;
        let topic = Arc::clone(producer.topic());
        let published =
            Arc::new(PublishedRecords { count: AtomicUsize::new(0), told: told.is_some(), receipts: Mutex::default() });
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
        let (gathered, told) = (Turn::new(gathered), Turn::new(told));
        Ok(LingeringProducer { shared: Arc::new(LingerShared { topic, delay, records, gathered, published, told }) })
    }
}

/// Gathers records and publishes them together, when there are enough of them or the first has waited long enough: one
/// claim and one wake-up for many. Cloning gives another handle of the same producer.
///
/// A record is readable when it was flushed, not when `send` returns. What cannot be published for lack of room stays
/// gathered, and [`send`](Self::send) is refused once there are as many as may be.
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
/// The last handle publishes what is gathered; it tries for a second at most. What finds no room by then is lost, and
/// counted as dropped in the topic's metrics. [`flush`](Self::flush) before, to know.
pub struct LingeringProducer<K: Producers = Multi> {
    shared: Arc<LingerShared<K>>,
}

struct LingerShared<K: Producers> {
    topic: Arc<TopicCore<Message, K>>,
    delay: Duration,
    records: usize,
    /// Whoever has it runs the user's code, such as the partitioner: so it is no lock.
    gathered: Arc<Turn<LingerBuffer<K>>>,
    published: Arc<PublishedRecords>,
    /// Whoever has it tells, while others may gather.
    told: Arc<Turn<Option<PublishedCallback>>>,
}

/// What can be seen of a producer while somebody gathers.
struct PublishedRecords {
    /// Records that are gathered.
    count: AtomicUsize,
    /// Whether somebody is told.
    told: bool,
    /// Of what was published and not told yet, in order.
    receipts: Mutex<VecDeque<(u64, Receipt)>>,
}

impl PublishedRecords {
    fn receipts(&self) -> MutexGuard<'_, VecDeque<(u64, Receipt)>> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct LingerBuffer<K: Producers> {
    producer: Producer<Message, K>,
    /// By partition.
    partitions: Vec<PartitionBatch>,
    /// Records in all of them.
    count: usize,
    /// The number of the next record.
    next: u64,
    published: Arc<PublishedRecords>,
    /// The timer has been asked.
    is_due: bool,
    /// What the timer was refused, for reasons that do not pass.
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
    /// Takes a copy of a record; returns its number, from 0 on. Publishes what is gathered if that is enough by now; if
    /// there is no room then, the topic's [`overflow`](crate::TopicBuilder::overflow) says what follows.
    ///
    /// # Errors
    /// The record is larger than the topic takes, or names no partition that there is; or as many as may be are gathered
    /// and cannot be published; or the topic is closed, which a flush found; or this producer's partitioner sends it. The
    /// record was not taken then.
    pub fn send<'r>(&self, record: impl Borrow<Record<'r>>) -> Result<u64, PublishError> {
        let record = record.borrow();
        let delayed = record.at(|| self.shared.topic.host.clock.wall());
        let sent = self.shared.send(delayed.as_ref().unwrap_or(record));
        self.shared.tell();
        sent
    }

    /// Publishes all that is gathered; where there is no room, as the topic's [`overflow`](crate::TopicBuilder::overflow)
    /// says.
    ///
    /// # Errors
    /// There was no room, or the topic is closed. What was not published is still gathered.
    pub fn flush(&self) -> Result<(), PublishError> {
        self.shared.flush(WhenFull::Policy)
    }

    /// The same, but waits no longer than until `deadline`.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn flush_until(&self, deadline: Instant) -> Result<(), PublishError> {
        self.shared.flush(WhenFull::Until(deadline))
    }

    /// How many records are gathered and not published.
    pub fn gathered(&self) -> usize {
        self.shared.published.count.load(Ordering::Acquire)
    }
}

impl<K: Producers> LingerShared<K> {
    /// Waits until nobody else gathers or flushes.
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
            // It was refused before, and is tried again before anything more is taken.
            gathered.flush(WhenFull::Policy)?;
        }
        let number = gathered.take(partition as usize, record);
        if gathered.count >= self.records {
            // Refused or not, the record was taken: whoever sends the next one is told.
            let _ = gathered.flush(WhenFull::Policy);
        }
        if gathered.count > 0 && !std::mem::replace(&mut gathered.is_due, true) {
            self.ask_timer(self.delay, Arc::downgrade(self));
        }
        Ok(number)
    }

    fn flush(&self, full: WhenFull<'_>) -> Result<(), PublishError> {
        let flushed = self.gathered()?.flush(full);
        self.tell();
        flushed
    }

    /// Tells of what was published. Whoever tells already goes on with what was added: it may be the caller itself.
    fn tell(&self) {
        while self.published.told && !self.published.receipts().is_empty() {
            let Some(mut told) = self.told.take() else { return };
            self.tell_with(&mut told);
        }
    }

    /// The same, without waiting for who tells already.
    fn try_tell(&self) {
        while self.published.told && !self.published.receipts().is_empty() {
            let Some(mut told) = self.told.try_take() else { return };
            self.tell_with(&mut told);
        }
    }

    fn tell_with(&self, told: &mut Option<PublishedCallback>) {
        let Some(told) = told else { return };
        loop {
            let next = self.published.receipts().pop_front();
            let Some((number, receipt)) = next else { return };
            blaming("`on_published`", || told(number, receipt));
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

    /// On the timer's thread: never waits, for room or for the lock.
    fn flush_in_time(&self, own: Weak<Self>) {
        let Some(mut gathered) = self.gathered.try_take() else { return self.ask_timer(AGAIN, own) };
        let mut done = caught(|| gathered.flush(WhenFull::Later)).map(|flushed| match flushed {
            Ok(()) => gathered.is_due = false,
            Err(refused) if refused.is_full() => self.ask_timer(AGAIN, own),
            Err(refused) => gathered.failed = Some(refused),
        });
        drop(gathered);
        done = done.and(caught(|| self.try_tell()));
        if let Err(panic) = done {
            // As a handler that panics.
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
        let largest = self.producer.largest_batch();
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
                let told = stack.entries.drain(..len).enumerate().map(|(index, entry)| {
                    let receipt = match first {
                        Some(first) => Receipt::new(topic, partition as u32, first + index as u64),
                        None => Receipt::dropped(topic, partition as u32),
                    };
                    (entry.number, receipt)
                });
                match self.published.told {
                    true => self.published.receipts().extend(told),
                    false => drop(told),
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
        drop(caught(|| self.try_tell()));
    }
}
