//! The settings of a topic.

use crate::base::overload::{Overflow, Slow};
use crate::base::rate::RateLimit;
use crate::log::compaction::Compaction;
use slipring_journal::Retention;
use slipring_ring::OnError;
use std::fmt;
use std::time::Duration;

/// The type of events, number of partitions and sizes with which a topic was created. Errors show it beside the shape
/// that the caller has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shape {
    /// The name of the event type.
    pub event: &'static str,
    /// True if the topic allows only one producer at a time.
    pub single_producer: bool,
    /// The number of partitions with which the topic was created.
    pub partitions: usize,
    /// The number of slots of each partition's ring.
    pub capacity: usize,
    /// The size of the largest message in bytes; `None` if the events are not messages.
    pub max_message: Option<usize>,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.partitions != 1 {
            write!(f, "{} partitions of ", self.partitions)?;
        }
        match self.max_message {
            Some(bytes) => write!(f, "{} slots of messages of up to {bytes} bytes", self.capacity)?,
            None => write!(f, "{} slots of {}", self.capacity, self.event)?,
        }
        f.write_str(if self.single_producer { " with a single producer" } else { " with any number of producers" })
    }
}

/// The settings of a topic, with the meanings and defaults that [`TopicBuilder`](crate::TopicBuilder) describes.
#[derive(Clone, Debug)]
pub(crate) struct TopicSettings {
    pub(crate) capacity: usize,
    pub(crate) retain: usize,
    pub(crate) retain_for: Option<Duration>,
    pub(crate) timestamps: bool,
    /// True if a publish wakes nobody.
    pub(crate) never_wake: bool,
    pub(crate) max_message: usize,
    pub(crate) memory_limit: u64,
    pub(crate) overflow: Overflow,
    pub(crate) slow: Slow,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) keep: Retention,
    pub(crate) compaction: Option<Compaction>,
    /// The error policy of managed consumers without one of their own; `None` for the engine's.
    pub(crate) on_error: Option<OnError>,
}

impl TopicSettings {
    /// The greatest count of events that a partition can hold, apart from retained ones.
    pub(crate) fn largest_batch(&self) -> usize {
        self.capacity - self.retain
    }
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            capacity: 1024,
            retain: 0,
            retain_for: None,
            timestamps: false,
            never_wake: false,
            max_message: 1024,
            memory_limit: 1 << 30,
            overflow: Overflow::Block,
            slow: Slow::Gate,
            time_to_live: None,
            rate_limit: None,
            keep: Retention::default(),
            compaction: None,
            on_error: None,
        }
    }
}
