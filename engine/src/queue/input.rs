//! The input of a queue: the rings of a topic in memory, or the journal and then the rings of a durable topic.

use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::threads::Panic;
use crate::log::offset_waits::OffsetWait;
use crate::log::progress::Notifier;
use crate::read::PartitionConsumer;
use crate::read::replay::{Replay, ReplayError};
use crate::topic::partition::Partition;
use slipring_journal as journal;
use slipring_ring::{Consumer, Sequence, Waiter};
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

pub(super) enum Input<E, K: Producers> {
    /// For a topic in memory: the ring of each partition, by number. Unread events keep their slots, so producers wait
    /// for the queue.
    Rings(Vec<PartitionConsumer<E, K>>),
    /// For a durable topic: a replay of the journal, and how the journal's progress wakes the queue. Unread events are
    /// in the journal, so producers do not wait for the queue.
    Journal(Box<Replay<E, K>>, JournalWatch),
}

/// What wakes the queue of a durable topic when the journal makes progress.
pub(super) struct JournalWatch {
    pub(super) notifier: Arc<Notifier>,
    /// Wakes the worker that watches the queue.
    pub(super) waker: Waker,
    /// The registered wait for the next event of each partition, by number; `None` if there is none.
    waits: Vec<Option<OffsetWait>>,
}

impl JournalWatch {
    pub(super) fn new(notifier: Arc<Notifier>, waker: Waker) -> Self {
        Self { notifier, waker, waits: Vec::new() }
    }
}

/// The result of reading one event of a partition.
pub(super) enum InputOutcome<T> {
    Event(u64, T),
    Nothing,
    /// The partition is closed and was read to its end.
    Over,
    /// This many offsets were deleted by the journal's retention. Reading continues after them.
    Lost(u64),
    /// These offsets were lost to damage. Reading continues after them.
    Gap(Range<u64>),
    /// The event's `Clone` has panicked. The event stays unread.
    Panicked(Panic),
}

impl<E: Send + Sync + 'static, K: Producers> Input<E, K> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Rings(parts) => parts.len(),
            Self::Journal(replay, ..) => replay.partitions(),
        }
    }

    /// Adds a new partition, of which the queue reads all events.
    pub(super) fn add(&mut self, partition: &Arc<Partition<E, K>>, consumer: Consumer<E, K>) {
        match self {
            Self::Rings(parts) => parts.push(PartitionConsumer { partition: Arc::clone(partition), consumer }),
            Self::Journal(replay, ..) => replay.add(partition, consumer),
        }
    }

    /// Reads the next event of a partition, passes its offset and the event to `copy`, and returns the copy.
    pub(super) fn take<T>(
        &mut self,
        index: usize,
        copy: impl FnOnce(u64, &E) -> Result<T, Panic>,
    ) -> Result<InputOutcome<T>, Closed> {
        match self {
            Self::Rings(parts) => match parts[index].consumer.poll(1) {
                Ok(mut batch) => Ok(match (&mut batch).into_iter().next() {
                    Some((offset, event)) => match copy(offset.0, event) {
                        Ok(copied) => InputOutcome::Event(offset.0, copied),
                        Err(panic) => {
                            batch.put_back(offset);
                            InputOutcome::Panicked(panic)
                        }
                    },
                    None => InputOutcome::Nothing,
                }),
                Err(slipring_ring::Closed::Finished | slipring_ring::Closed::Closed) => Ok(InputOutcome::Over),
                Err(reason) => Err(reason.into()),
            },
            Self::Journal(replay, ..) => {
                let (mut copy, mut found) = (Some(copy), InputOutcome::Nothing);
                let read = replay.part(index, 1, &mut |event, at| {
                    if let Some(copy) = copy.take() {
                        found = match copy(at.offset, event) {
                            Ok(copied) => InputOutcome::Event(at.offset, copied),
                            // The next offset is written together with the copied message. This message was not copied,
                            // so the queue reads this event again when it is opened next.
                            Err(panic) => InputOutcome::Panicked(panic),
                        };
                    }
                });
                match read {
                    Ok(_) => {}
                    // The journal's retention has deleted the next events, so they are skipped. A queue that is opened
                    // later would not get them either.
                    Err(ReplayError::Journal { cause: journal::ReplayError::OutOfRange { earliest, .. }, .. }) => {
                        let passed = replay.pass_over_to(index, earliest);
                        return passed.map(InputOutcome::Lost).map_err(|refused| closed(refused, replay.name()));
                    }
                    // The caller counts the lost events, and records that they were reported. The next read continues
                    // after them.
                    Err(ReplayError::Gap(gap)) => return Ok(InputOutcome::Gap(gap.offsets)),
                    Err(refused) => return Err(closed(refused, replay.name())),
                }
                if matches!(found, InputOutcome::Nothing) && replay.is_over(index) {
                    return Ok(InputOutcome::Over);
                }
                Ok(found)
            }
        }
    }

    /// Registers `waiter` (on a durable topic the queue's waker instead) to be woken by the next event of a partition.
    /// Returns false if the partition has an event already.
    pub(super) fn arm(&mut self, index: usize, waiter: &Waiter) -> bool {
        match self {
            Self::Rings(parts) => parts[index].consumer.arm(waiter, index),
            Self::Journal(replay, JournalWatch { waker, waits, .. }) => {
                if waits.len() <= index {
                    waits.resize_with(index + 1, || None);
                }
                replay.watch(index, &mut waits[index], waker)
            }
        }
    }

    /// On a durable topic, registers the queue's waker to be woken by the journal's next progress. Does nothing for a
    /// topic in memory.
    pub(super) fn arm_journal(&self) {
        if let Self::Journal(_, JournalWatch { notifier, waker, .. }) = self {
            let _ = notifier.watch(waker, || None::<()>);
        }
    }

    /// True if a partition is closed but not read to its end yet. Reaching its end wakes no waiter, so it must be
    /// polled.
    pub(super) fn is_ending(&self) -> bool {
        match self {
            Self::Rings(_) => false,
            Self::Journal(replay, ..) => (0..replay.partitions()).any(|index| replay.is_ending(index)),
        }
    }

    /// How many published events the queue has not read, in all partitions.
    pub(super) fn lag(&self) -> u64 {
        (0..self.len()).map(|index| self.lag_of(index)).sum()
    }

    /// How many published events of a partition the queue has not read.
    pub(super) fn lag_of(&self, index: usize) -> u64 {
        match self {
            Self::Rings(parts) => parts[index].consumer.lag(),
            Self::Journal(replay, ..) => replay.lag(index),
        }
    }

    /// True if the event at this partition and offset is published and the queue has not read it.
    pub(super) fn is_unread(&self, partition: usize, offset: u64) -> bool {
        let (next, end) = match self {
            _ if partition >= self.len() => return false,
            Self::Rings(parts) => {
                let consumer = &parts[partition].consumer;
                (consumer.consumed(), consumer.consumed().plus(consumer.lag()))
            }
            Self::Journal(replay, ..) => {
                let Some(next) = replay.position(partition as u32) else { return false };
                (Sequence(next), Sequence(replay.published(partition)))
            }
        };
        Sequence(offset).since(next) >= 0 && Sequence(offset).since(end) < 0
    }

    /// Skips all events of a partition that are published now (on a durable topic: written to the journal), and passes
    /// their offsets to `each`. Returns the offset after them.
    pub(super) fn skip(&mut self, index: usize, mut each: impl FnMut(u64)) -> Result<u64, Closed> {
        match self {
            Self::Rings(parts) => {
                let part = &mut parts[index];
                // Events that are published from now on stay unread.
                let end = part.consumer.consumed().plus(part.consumer.lag());
                while let Ok(mut batch) = part.consumer.poll(usize::MAX) {
                    let mut read = 0;
                    while batch.position().since(end) < 0 {
                        let Some((offset, _)) = (&mut batch).into_iter().next() else { break };
                        read += 1;
                        each(offset.0);
                    }
                    if read == 0 {
                        break;
                    }
                }
                Ok(end.0)
            }
            Self::Journal(replay, ..) => {
                // Published events that are not written yet stay unread, as do those that are published from now on.
                let end = replay.visible_end(index);
                let mut fruitless = 0;
                loop {
                    let next = replay.position(index as u32).unwrap_or(end);
                    // A read without events is not the end: it may have changed from the journal to the ring, or
                    // skipped slots without an event. After four of them in a row, the rest has no event.
                    if next >= end || fruitless > 3 {
                        return Ok(next.max(end));
                    }
                    let most = usize::try_from(end - next).unwrap_or(usize::MAX).min(1024);
                    match replay.part(index, most, &mut |_, at| each(at.offset)) {
                        Ok(0) => fruitless += 1,
                        Ok(_) => fruitless = 0,
                        Err(ReplayError::Journal {
                            cause: journal::ReplayError::OutOfRange { earliest, .. }, ..
                        }) => {
                            let passed = replay.pass_over_to(index, earliest);
                            passed.map_err(|refused| closed(refused, replay.name()))?;
                        }
                        // The offsets lost to damage are skipped with the others, so they are not reported.
                        Err(ReplayError::Gap(_)) => {}
                        Err(refused) => return Err(closed(refused, replay.name())),
                    }
                }
            }
        }
    }

    /// Passes up to `most` of the next unread events of a partition to `each`, until it returns false. The events stay
    /// unread.
    pub(super) fn peek(&mut self, index: usize, most: usize, mut each: impl FnMut(u64, &E) -> bool) {
        match self {
            Self::Rings(parts) => {
                let consumer = &mut parts[index].consumer;
                consumer.look_anew();
                let Ok(mut batch) = consumer.poll(most) else { return };
                let from: Sequence = batch.position();
                for (offset, event) in &mut batch {
                    if !each(offset.0, event) {
                        break;
                    }
                }
                batch.put_back(from);
            }
            Self::Journal(replay, ..) => replay.peek(index, most, each),
        }
    }
}

fn closed(refused: ReplayError, consumer: &str) -> Closed {
    match refused {
        ReplayError::Closed { reason, .. } => reason,
        other => Closed::Failed { consumer: consumer.to_owned(), cause: other.to_string() },
    }
}
