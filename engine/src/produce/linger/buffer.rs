//! The buffer of a producer that gathers records.

use super::LingerOutcome;
use crate::base::clock::Timestamp;
use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::overload::TopicCounters;
use crate::base::when_full::WhenFull;
use crate::event::message::{Message, Parts};
use crate::event::record::Record;
use crate::log::receipt::Receipt;
use crate::produce::Producer;
use crate::topic::error::PublishError;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) struct LingerBuffer<K: Producers> {
    pub(super) producer: Producer<Message, K>,
    /// The gathered records, indexed by the partition's number.
    partitions: Vec<PartitionBatch>,
    /// Count of records in all partitions.
    pub(super) count: usize,
    /// The number of the next record.
    next: u64,
    state: Arc<LingerState>,
    /// True if a flush of this buffer is scheduled on the timer.
    pub(super) is_due: bool,
    /// Why the producer takes and publishes no more records, such as that the topic is closed. `None` while it does.
    pub(super) failed: Option<PublishError>,
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

/// The state that other threads may read while one thread has the buffer.
pub(super) struct LingerState {
    /// Count of gathered records.
    pub(super) count: AtomicUsize,
    /// True if there is a callback.
    pub(super) has_callback: bool,
    /// Numbers and outcomes of the records for which the callback is not called yet, in the order in which they were
    /// published or given up.
    outcomes: Mutex<VecDeque<(u64, LingerOutcome)>>,
}

impl LingerState {
    pub(super) fn new(has_callback: bool) -> Arc<Self> {
        Arc::new(Self { count: AtomicUsize::new(0), has_callback, outcomes: Mutex::default() })
    }

    pub(super) fn outcomes(&self) -> MutexGuard<'_, VecDeque<(u64, LingerOutcome)>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records outcomes for the callback, if there is one.
    fn note(&self, outcomes: impl Iterator<Item = (u64, LingerOutcome)>) {
        match self.has_callback {
            true => self.outcomes().extend(outcomes),
            false => drop(outcomes),
        }
    }
}

impl<K: Producers> LingerBuffer<K> {
    pub(super) fn new(producer: Producer<Message, K>, state: Arc<LingerState>) -> Self {
        Self { producer, partitions: Vec::new(), count: 0, next: 0, state, is_due: false, failed: None }
    }

    /// The error of a record that comes when the topic has ended, or is about to.
    pub(super) fn ended(&self) -> PublishError {
        let topic = self.producer.topic();
        PublishError::Closed { topic: topic.name.clone(), reason: topic.closed().unwrap_or(Closed::Closed) }
    }

    /// Returns an error if no more records are taken.
    pub(super) fn may_take(&self) -> Result<(), PublishError> {
        let topic = self.producer.topic();
        match &self.failed {
            Some(failed) => Err(failed.clone()),
            None if topic.has_ended() || topic.gathering.is_ending() => Err(self.ended()),
            None => Ok(()),
        }
    }

    pub(super) fn take(&mut self, partition: usize, record: &Record<'_>) -> u64 {
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
        self.state.count.store(count, Ordering::Release);
    }

    /// Publishes the gathered records. If that fails for another reason than that there is no room, gives them up.
    pub(super) fn flush(&mut self, full: WhenFull) -> Result<(), PublishError> {
        let flushed = match &self.failed {
            Some(failed) => Err(failed.clone()),
            None => self.publish(full),
        };
        if let Err(refused) = &flushed
            && !refused.is_full()
            && !matches!(refused, PublishError::OwnConsumer { .. })
        {
            self.give_up(refused);
        }
        flushed
    }

    fn publish(&mut self, full: WhenFull) -> Result<(), PublishError> {
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
                self.state.count.store(self.count, Ordering::Release);
                self.state.note(stack.entries.drain(..len).enumerate().map(|(index, entry)| {
                    let receipt = match first {
                        Some(first) => Receipt::new(topic, partition as u32, first + index as u64),
                        None => Receipt::dropped(topic, partition as u32),
                    };
                    (entry.number, Ok(receipt))
                }));
            }
        }
        Ok(())
    }

    /// Gives the gathered records up for the reason `why`, and takes no more.
    pub(super) fn give_up(&mut self, why: &PublishError) {
        let failed = self.failed.get_or_insert_with(|| why.clone()).clone();
        let mut numbers = Vec::new();
        for stack in &mut self.partitions {
            stack.bytes.clear();
            numbers.extend(stack.entries.drain(..).map(|entry| entry.number));
        }
        numbers.sort_unstable();
        let topic = self.producer.topic();
        TopicCounters::add(&topic.counts.dropped, numbers.len());
        // `gathering` counts the records as unpublished before this buffer's count becomes 0: a thread that adds both
        // counts may count a record twice for a moment, but misses none.
        topic.gathering.note_unpublished(numbers.len());
        self.set_count(0);
        self.state.note(numbers.into_iter().map(|number| (number, Err(failed.clone()))));
    }
}
