//! Receipts, which a publish returns: the places of published events, and how safe the events are.

use crate::base::ids::TopicId;
use crate::base::level::{Level, NO_JOURNAL, Unsupported, WaitError};
use crate::log::offset_waits::OffsetWait;
use crate::log::progress::Acks;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// The place of a published event (topic, partition and offset), and the acknowledgement level that it had when the
/// publish returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The topic's id: see [`Topic::id`](crate::Topic::id).
    pub topic: TopicId,
    /// The partition's number, from 0.
    pub partition: u32,
    /// The event's offset in its partition; `u64::MAX` if the event was [dropped](Self::is_dropped).
    pub offset: u64,
    level: Level,
}

impl Receipt {
    #[inline(always)]
    pub(crate) fn new(topic: TopicId, partition: u32, offset: u64) -> Self {
        Self { topic, partition, offset, level: Level::Published }
    }

    pub(crate) fn dropped(topic: TopicId, partition: u32) -> Self {
        Self { topic, partition, offset: u64::MAX, level: Level::None }
    }

    pub(crate) fn with(self, level: Level) -> Self {
        Self { level, ..self }
    }

    /// The level that the event had reached when the publish returned.
    pub fn level(&self) -> Level {
        self.level
    }

    /// True if the partition was full and the event was dropped: see
    /// [`Overflow::DropNewest`](crate::topic::Overflow::DropNewest).
    pub fn is_dropped(&self) -> bool {
        self.level == Level::None
    }

    /// The level that the event has reached now.
    pub fn reached(&self) -> Level {
        match self.level {
            level @ (Level::Published | Level::Written | Level::Durable) => {
                Acks::of(self.topic).map_or(level, |acks| acks.level(self.partition, self.offset).max(level))
            }
            level => level,
        }
    }

    /// Waits until the event has reached `level`. Returns the level that it has, which may be higher.
    ///
    /// ```
    /// # use slipring::{Engine, Level};
    /// # let engine = Engine::builder().build()?;
    /// # let ticks = engine.topic::<u64>("ticks").create()?;
    /// let receipt = ticks.producer().create()?.publish(|tick| *tick = 42)?;
    /// assert_eq!(receipt.wait(Level::Published)?, Level::Published);
    /// assert!(receipt.wait(Level::Durable).unwrap_err().to_string().contains("journal"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The topic cannot reach this level, the event was dropped, or the journal failed before the event reached the
    /// level. For [`Level::Replicated`] also [`WaitError::Bridge`] and [`WaitError::Skipped`]. [`WaitError::OwnThread`] on one of the journal's own threads, if the event has not reached the level yet.
    pub fn wait(&self, level: Level) -> Result<Level, WaitError> {
        self.wait_until(level, None)
    }

    /// Waits until the event has reached `level`, at most until `deadline`; without a deadline, like
    /// [`wait`](Self::wait).
    ///
    /// # Errors
    /// As for [`wait`](Self::wait); and [`WaitError::TimedOut`] if the deadline passes first.
    pub fn wait_until(&self, level: Level, deadline: Option<Instant>) -> Result<Level, WaitError> {
        match self.acks(level)? {
            Some(acks) => acks.wait(self.partition, self.offset, level, deadline),
            None => Ok(self.level),
        }
    }

    /// Returns a future with the result of [`wait`](Self::wait), for any async runtime. Dropping the future ends only
    /// the waiting.
    pub fn reach(self, level: Level) -> Reach {
        Reach { receipt: self, level, wait: None }
    }

    /// The progress of the topic; `None` if the event had this level when the publish returned, so that no wait is
    /// needed.
    fn acks(&self, level: Level) -> Result<Option<Arc<Acks>>, WaitError> {
        if level <= self.level {
            return Ok(None);
        }
        let refused = |reason| Err(Unsupported { level, reason }.into());
        if self.is_dropped() {
            return refused("the event was dropped");
        }
        match Acks::of(self.topic) {
            // Once the bridge has ended, the wait says why.
            Some(acks) if level <= Level::Durable || acks.bridged().is_some() => Ok(Some(acks)),
            _ => refused(level.unsupported(None, None).unwrap_or(NO_JOURNAL)),
        }
    }
}

/// The future of [`Receipt::reach`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Reach {
    receipt: Receipt,
    level: Level,
    wait: Option<OffsetWait>,
}

impl Future for Reach {
    type Output = Result<Level, WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let level = self.level;
        let Receipt { partition, offset, .. } = self.receipt;
        match self.receipt.acks(self.level) {
            Err(refused) => Poll::Ready(Err(refused)),
            Ok(None) => Poll::Ready(Ok(self.receipt.level)),
            Ok(Some(acks)) => match acks.poll(&mut self.wait, context.waker(), partition, offset, level) {
                Some(outcome) => Poll::Ready(outcome),
                None => Poll::Pending,
            },
        }
    }
}

/// The place of a published batch: consecutive offsets of one partition, of which `first` is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchReceipt {
    /// The topic's id: see [`Topic::id`](crate::Topic::id).
    pub topic: TopicId,
    /// The partition's number, from 0.
    pub partition: u32,
    /// The offset of the first event; `u64::MAX` if the batch was [dropped](Self::is_dropped).
    pub first: u64,
    /// The number of events in the batch.
    pub len: usize,
}

impl BatchReceipt {
    /// True if the partition had no room for the whole batch and the batch was dropped: see
    /// [`Overflow::DropNewest`](crate::topic::Overflow::DropNewest).
    pub fn is_dropped(&self) -> bool {
        self.first == u64::MAX
    }

    /// The receipts of the batch's events, in the order of their offsets.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Receipt> + use<> {
        let Self { topic, partition, first, len } = *self;
        let dropped = self.is_dropped();
        (0..len).map(move |index| match dropped {
            true => Receipt::dropped(topic, partition),
            false => Receipt::new(topic, partition, first + index as u64),
        })
    }
}
