//! What a publish returns.

use crate::acks::Acks;
use crate::journaler::Journaling;
use crate::text;
use crate::topic::TopicId;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// How safe a published event is. Each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Nothing is known of it: fire and forget, or it was dropped.
    None,
    /// Consumers can read it. It is gone with the process.
    #[default]
    Published,
    /// The operating system has it. It survives the process, not a loss of power.
    Written,
    /// The disk has it.
    Durable,
    /// Another machine has it.
    Replicated,
}

const NO_JOURNAL: &str = "the topic has no journal: it lives in memory";
const NO_SYNC: &str = "the engine's journal does not sync before it is closed: it would be waited for until then";

impl Level {
    /// Why a topic with this journal, or without one, does not reach this level while it is open; none if it does.
    pub(crate) fn unsupported(self, journal: Option<&Journaling>) -> Option<&'static str> {
        match self {
            Self::None | Self::Published => None,
            Self::Written | Self::Durable if journal.is_none() => Some(NO_JOURNAL),
            Self::Durable if journal.is_some_and(|journal| !journal.syncs) => Some(NO_SYNC),
            Self::Written | Self::Durable => None,
            Self::Replicated => Some("no bridge to another machine is configured"),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Published => "published",
            Self::Written => "written",
            Self::Durable => "durable",
            Self::Replicated => "replicated",
        })
    }
}

/// A level of acknowledgement that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the level {level:?} cannot be had: {reason}")]
pub struct Unsupported {
    /// The level.
    pub level: Level,
    /// Why.
    pub reason: &'static str,
}

/// A receipt does not say that a level was reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The level cannot be had.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The journal failed before it was known: the event may be there when it is opened again, or not.
    #[error("it is unknown whether the event is there, the journal has ended: {}", text::line(.cause))]
    Unknown {
        /// What happened to the journal.
        cause: String,
    },
    /// The deadline came first.
    #[error("the event was not {level} by the deadline: wait again")]
    TimedOut {
        /// The level asked for.
        level: Level,
    },
    /// The topic is no more.
    #[error("the topic of this receipt was deleted, or its engine is gone")]
    Gone,
}

/// Where an event was published, and how safe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The topic: see [`Topic::id`](crate::Topic::id).
    pub topic: TopicId,
    /// The partition.
    pub partition: u32,
    /// The event's offset in it. Of a [dropped](Self::is_dropped) one, `u64::MAX`.
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

    /// The level that was reached when this receipt was made.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether there was no room, and the topic's policy is to [drop](crate::Overflow::DropNewest).
    pub fn is_dropped(&self) -> bool {
        self.level == Level::None
    }

    /// The level that it has by now.
    pub fn reached(&self) -> Level {
        match self.level {
            level @ (Level::Published | Level::Written) => {
                Acks::of(self.topic).map_or(level, |acks| acks.level(self.partition, self.offset).max(level))
            }
            level => level,
        }
    }

    /// Waits until the event has reached `level`; returns the level that it has.
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
    /// The topic cannot reach this level, the event was dropped, or the journal failed before it was known.
    pub fn wait(&self, level: Level) -> Result<Level, WaitError> {
        self.wait_until(level, None)
    }

    /// The same, but no longer than until `deadline`; none is none.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), or the deadline came first.
    pub fn wait_until(&self, level: Level, deadline: Option<Instant>) -> Result<Level, WaitError> {
        match self.acks(level)? {
            Some(acks) => acks.wait(self.partition, self.offset, level, deadline),
            None => Ok(self.level),
        }
    }

    /// The same, to be awaited on any runtime. Dropping the future loses nothing.
    pub fn reach(self, level: Level) -> Reach {
        Reach { receipt: self, level }
    }

    /// Whom to ask; nobody if the level is there.
    fn acks(&self, level: Level) -> Result<Option<Arc<Acks>>, WaitError> {
        if level <= self.level {
            return Ok(None);
        }
        let refused = |reason| Err(Unsupported { level, reason }.into());
        if self.is_dropped() {
            return refused("the event was dropped");
        }
        match Acks::of(self.topic) {
            Some(acks) if level <= Level::Durable => Ok(Some(acks)),
            _ => refused(level.unsupported(None).unwrap_or(NO_JOURNAL)),
        }
    }
}

/// See [`Receipt::reach`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Reach {
    receipt: Receipt,
    level: Level,
}

impl Future for Reach {
    type Output = Result<Level, WaitError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Receipt { partition, offset, .. } = self.receipt;
        match self.receipt.acks(self.level) {
            Err(refused) => Poll::Ready(Err(refused)),
            Ok(None) => Poll::Ready(Ok(self.receipt.level)),
            Ok(Some(acks)) => match acks.poll(context.waker(), partition, offset, self.level) {
                Some(outcome) => Poll::Ready(outcome),
                None => Poll::Pending,
            },
        }
    }
}

/// Where a batch was published: all of it in one partition, at offsets that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchReceipt {
    /// The topic: see [`Topic::id`](crate::Topic::id).
    pub topic: TopicId,
    /// The partition.
    pub partition: u32,
    /// The offset of the first event. Of a [dropped](Self::is_dropped) batch, `u64::MAX`.
    pub first: u64,
    /// How many events.
    pub len: usize,
}

impl BatchReceipt {
    /// Whether there was no room for all of it, and the topic's policy is to [drop](crate::Overflow::DropNewest).
    pub fn is_dropped(&self) -> bool {
        self.first == u64::MAX
    }

    /// The receipt of each event, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Receipt> + use<> {
        let Self { topic, partition, first, len } = *self;
        let dropped = self.is_dropped();
        (0..len).map(move |index| match dropped {
            true => Receipt::dropped(topic, partition),
            false => Receipt::new(topic, partition, first + index as u64),
        })
    }
}
