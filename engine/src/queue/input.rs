//! The input of a queue: the rings, or on a durable topic the journal and then the rings.

use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::threads::Panic;
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
    /// By the number of the partition. An event that was not read holds its slot.
    Rings(Vec<PartitionConsumer<E, K>>),
    /// An event that was not read is in the journal, so producers do not wait for the queue.
    Journal(Box<Replay<E, K>>, Arc<Notifier>, Waker),
}

/// What a look at a partition has found.
pub(super) enum InputOutcome<T> {
    Event(u64, T),
    Nothing,
    /// The partition is closed, and read to its end.
    Over,
    /// The journal does not keep so many offsets any more. Reading goes on behind them.
    Lost(u64),
    /// These offsets were lost to damage. Reading goes on behind them.
    Gap(Range<u64>),
    /// Copying the event has panicked. The event stays unread.
    Panicked(Panic),
}

impl<E: Send + Sync + 'static, K: Producers> Input<E, K> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Rings(parts) => parts.len(),
            Self::Journal(replay, ..) => replay.partitions(),
        }
    }

    /// Adds a new partition. Its gate is at its beginning.
    pub(super) fn add(&mut self, partition: &Arc<Partition<E, K>>, consumer: Consumer<E, K>) {
        match self {
            Self::Rings(parts) => parts.push(PartitionConsumer { partition: Arc::clone(partition), consumer }),
            Self::Journal(replay, ..) => replay.add(partition, consumer),
        }
    }

    /// Reads the next event of a partition.
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
                            // The offset is written together with the copied message, so the next opening begins with this
                            // event.
                            Err(panic) => InputOutcome::Panicked(panic),
                        };
                    }
                });
                match read {
                    Ok(_) => {}
                    // Retention has deleted them, as for a queue that is opened later.
                    Err(ReplayError::Journal { cause: journal::ReplayError::OutOfRange { earliest, .. }, .. }) => {
                        let passed = replay.pass_over_to(index, earliest);
                        return passed.map(InputOutcome::Lost).map_err(|refused| closed(refused, replay.name()));
                    }
                    // The gap is counted, and recorded as reported. The next look is behind it.
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

    /// Has the waiter woken when the partition has an event. False if it has one now.
    pub(super) fn arm(&mut self, index: usize, waiter: &Waiter) -> bool {
        match self {
            Self::Rings(parts) => parts[index].consumer.arm(waiter, index),
            Self::Journal(replay, notifier, waker) => {
                notifier.watch(waker, || replay.has_more(index).then_some(())).is_none() && !replay.has_more(index)
            }
        }
    }

    /// Has the waiter woken when the journal moves.
    pub(super) fn arm_journal(&self) {
        if let Self::Journal(_, notifier, waker) = self {
            let _ = notifier.watch(waker, || None::<()>);
        }
    }

    /// True if some partition is about to end. Nothing signals that.
    pub(super) fn is_ending(&self) -> bool {
        match self {
            Self::Rings(_) => false,
            Self::Journal(replay, ..) => (0..replay.partitions()).any(|index| replay.is_ending(index)),
        }
    }

    /// How many events were published and not read.
    pub(super) fn lag(&self) -> u64 {
        match self {
            Self::Rings(parts) => parts.iter().map(|part| part.consumer.lag()).sum(),
            Self::Journal(replay, ..) => (0..replay.partitions()).map(|index| replay.lag(index)).sum(),
        }
    }

    /// True if this event was published and not read.
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

    /// Reads everything that is published by now, and passes each offset to `each`. Returns the next offset.
    pub(super) fn skip(&mut self, index: usize, mut each: impl FnMut(u64)) -> Result<u64, Closed> {
        match self {
            Self::Rings(parts) => {
                let part = &mut parts[index];
                // What is published meanwhile is left unread.
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
                // What is published and not written yet is left unread, too.
                let end = replay.visible_end(index);
                let mut fruitless = 0;
                loop {
                    let next = replay.position(index as u32).unwrap_or(end);
                    // The change from the journal to the ring reads nothing, and slots without an event give nothing.
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
                        // All of it is passed over, so a gap need not be reported.
                        Err(ReplayError::Gap(_)) => {}
                        Err(refused) => return Err(closed(refused, replay.name())),
                    }
                }
            }
        }
    }

    /// Passes the next events of a partition to `each` without reading them, as long as `each` returns true.
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
