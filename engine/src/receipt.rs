//! What a publish returns.

use crate::topic::TopicId;
use std::fmt;

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

impl Level {
    /// Why a topic without a journal cannot reach this level; none if it can.
    pub(crate) fn unsupported(self) -> Option<&'static str> {
        match self {
            Self::None | Self::Published => None,
            Self::Written | Self::Durable => Some("the topic has no journal: it lives in memory"),
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

    /// The level that was reached when this receipt was made.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether there was no room, and the topic's policy is to [drop](crate::Overflow::DropNewest).
    pub fn is_dropped(&self) -> bool {
        self.level == Level::None
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
    /// The topic cannot reach this level, or the event was dropped.
    pub fn wait(&self, level: Level) -> Result<Level, Unsupported> {
        if level <= self.level {
            return Ok(self.level);
        }
        let reason = if self.is_dropped() { "the event was dropped" } else { level.unsupported().unwrap_or_default() };
        Err(Unsupported { level, reason })
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
