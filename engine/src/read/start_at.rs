//! The offset at which a reader begins.

use crate::base::clock::Timestamp;
use slipring_ring::{Sequence, Start};

/// Where a reader begins. Subscribers read the ring only; the other readers of a durable topic read its journal too:
///
/// | reader | the earliest event that it can read |
/// |---|---|
/// | [subscriber](crate::Topic::subscribe); any reader of a topic in memory | the earliest in the ring: the one that the slowest consumer has not read, or that the topic [retains](crate::TopicBuilder::retain) |
/// | [replay](crate::Topic::replay), [group](crate::Topic::group), [queue](crate::Topic::queue) or [transform](crate::Topic::transform) of a durable topic | the earliest that the journal [keeps](crate::TopicBuilder::keep) |
///
/// When a durable topic is opened again, its ring is empty: a subscriber begins at the next event to be published, with
/// [`Earliest`](Self::Earliest) too, and does not get the recorded events. A replay does:
///
/// ```
/// use slipring::{Engine, journal::simulated::SimulatedDisk, subscriber::StartAt};
/// use std::time::Duration;
///
/// let disk = SimulatedDisk::new();
/// let engine = Engine::builder().journal_in(disk.clone()).build()?;
/// let ticks = engine.topic::<u64>("ticks").durable().create()?;
/// ticks.producer().create()?.publish_batch(3, |index, tick| *tick = index as u64)?;
/// engine.shutdown(Duration::from_secs(60));
///
/// let engine = Engine::builder().journal_in(disk).build()?;
/// let ticks = engine.topic::<u64>("ticks").durable().create()?;
/// let live = ticks.subscribe("live").start(StartAt::Earliest).poll()?;
/// assert!(live.first() >= 3);                             // behind the recorded events
/// let mut replay = ticks.replay("all").start(StartAt::Earliest).open()?;
/// let mut read = Vec::new();
/// while read.len() < 3 {
///     replay.read(Duration::from_secs(60), |tick, at| read.push((at.offset, *tick)))?;
/// }
/// assert_eq!(read, [(0, 0), (1, 1), (2, 2)]);             // from the first recorded event on, then new ones
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// At the earliest event that the reader can read: see the table. If there is none, at the next event to be
    /// published.
    #[default]
    Earliest,
    /// At the next event to be published.
    Latest,
    /// At this offset in every partition. Refused with the range if the reader cannot read it, or it is not yet
    /// published.
    Offset(u64),
    /// At these offsets, by partition. Each is refused with the range if the reader cannot read it, or it is not yet
    /// published. Partitions beyond the list begin at their earliest event.
    Offsets(Vec<u64>),
    /// At the first event that the reader can read and that was published at this time or later; if there is none, at the
    /// next event to be published. Needs [`timestamps`](crate::TopicBuilder::timestamps).
    Timestamp(Timestamp),
    /// Groups only: at the committed offset; a partition without one is an error. With the other starts, too, a group
    /// continues at its committed offsets, and the start applies only to partitions without one.
    Committed,
}

impl StartAt {
    /// The start's offset in this partition; `None` if the start names none.
    pub(crate) fn offset(&self, partition: u32) -> Option<u64> {
        match self {
            Self::Offset(offset) => Some(*offset),
            Self::Offsets(offsets) => offsets.get(partition as usize).copied(),
            Self::Earliest | Self::Latest | Self::Timestamp(_) | Self::Committed => None,
        }
    }

    /// The start with which a consumer joins the ring of this partition. For a timestamp that is the earliest event,
    /// and the subscriber then moves forward to the first event of that time.
    pub(crate) fn in_ring(&self, partition: u32) -> Start {
        match self {
            Self::Latest => Start::Latest,
            Self::Earliest | Self::Timestamp(_) | Self::Committed => Start::Earliest,
            Self::Offset(_) | Self::Offsets(_) => {
                self.offset(partition).map_or(Start::Earliest, |offset| Start::At(Sequence(offset)))
            }
        }
    }
}
