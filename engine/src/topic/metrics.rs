//! Positions of topics and consumers at a moment.

use crate::base::overload::{ConsumerStats, TopicCounters};
use crate::log::gap::{Gap, ReportedGap};
use crate::log::offsets::transform::TransformDescription;
use crate::text;
use slipring_ring::Positions;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The metrics of all topics. [`Engine::metrics`](crate::Engine::metrics) computes them from the positions. While events
/// flow, one number is counted for each batch of a subscriber, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Metrics {
    /// In the order of creation.
    pub topics: Vec<TopicMetrics>,
    /// Gaps of which a reader with a name was told, and that nobody has acknowledged.
    #[cfg_attr(feature = "observe", serde(default))]
    pub gaps: Vec<GapMetrics>,
    /// The transforms that were opened, by name.
    #[cfg_attr(feature = "observe", serde(default))]
    pub transforms: Vec<TransformMetrics>,
}

/// A transform that was opened: see [`TransformDescription`](crate::transform::TransformDescription).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TransformMetrics {
    /// Its name.
    pub name: String,
    /// Its input.
    pub topic: String,
    /// Whether it goes on, in [one word](crate::transform::TransformState::word).
    pub state: String,
    /// Why it does not go on, where it failed, or a topic of it was halted.
    pub cause: Option<String>,
    /// How many events of its input are in the journal that it has not committed.
    pub lag: u64,
}

impl From<TransformDescription> for TransformMetrics {
    fn from(it: TransformDescription) -> Self {
        let (lag, state, cause) = (it.lag(), it.state.word().to_owned(), it.state.cause().map(str::to_owned));
        Self { name: it.name, topic: it.topic, state, cause, lag }
    }
}

/// A gap of which a reader with a name was told: see [`ReportedGap`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct GapMetrics {
    /// What the reader is: `group`, `transform` or `queue`.
    pub kind: String,
    /// Its name.
    pub reader: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The first lost offset.
    pub first: u64,
    /// The offset after the last one.
    pub end: u64,
}

impl From<ReportedGap> for GapMetrics {
    fn from(told: ReportedGap) -> Self {
        let Gap { topic, partition, offsets: Range { start: first, end } } = told.gap;
        Self { kind: told.kind.to_string(), reader: told.reader, topic, partition, first, end }
    }
}

impl Metrics {
    /// The topic called `name`.
    pub fn topic(&self, name: &str) -> Option<&TopicMetrics> {
        self.topics.iter().find(|topic| topic.name == name)
    }
}

/// The metrics of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TopicMetrics {
    /// Its name.
    pub name: String,
    /// Events that the rings of all partitions hold.
    pub capacity: u64,
    /// How many offsets were ever published or, after a crash of a durable topic, left out, in all partitions: see
    /// [`Journal::records_in`](crate::journal::Journal::records_in). With one partition that is the next one.
    pub published: u64,
    /// Slots of all partitions that hold what some consumer has not read, or what is retained.
    pub fill: u64,
    /// The most of them that a snapshot has ever seen, or all, if a producer has ever found a partition full.
    pub high_water: u64,
    /// How long the topic has been there, by the engine's clock.
    #[cfg_attr(feature = "observe", serde(with = "seconds"))]
    pub age: Duration,
    /// Events that were refused at once because there was no room.
    pub refused: u64,
    /// Events for which there was no room until a deadline.
    pub timed_out: u64,
    /// Events that were dropped, as [`Overflow::DropNewest`](crate::topic::Overflow::DropNewest) says.
    pub dropped: u64,
    /// Events that a rate limit refused.
    pub limited: u64,
    /// Events that had to wait for a rate limit.
    pub delayed: u64,
    /// Messages that were not published again, because their id was known.
    pub duplicates: u64,
    /// Subscribers that were evicted because they were slow.
    pub evicted: u64,
    /// Each partition, in order.
    pub partitions: Vec<PartitionMetrics>,
    /// The consumers over all partitions, in the order of joining. What one that ended has done is in the report of the
    /// shutdown.
    pub consumers: Vec<ConsumerMetrics>,
    /// The queues, in the order of creation. Each is a consumer too: what it has not read is its lag.
    pub queues: Vec<QueueMetrics>,
}

/// The metrics of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PartitionMetrics {
    /// Its number.
    pub partition: u32,
    /// Events that its ring holds.
    pub capacity: u64,
    /// The earliest offset that is kept.
    pub earliest: u64,
    /// The next offset to be published.
    pub published: u64,
    /// Slots that hold what some consumer has not read, or what is retained.
    pub fill: u64,
    /// The oldest offset that a producer has claimed and not published, if there is one now.
    pub oldest_unpublished: Option<u64>,
    /// The consumers of this partition, in the order of joining. What was skipped or has expired is counted for
    /// the topic only.
    pub consumers: Vec<ConsumerMetrics>,
}

impl TopicMetrics {
    /// The sums of `partitions`, and what is counted for the whole topic.
    pub(crate) fn new(
        name: String,
        age: Duration,
        partitions: Vec<PartitionMetrics>,
        counts: &TopicCounters,
        stats: impl Fn(&str) -> Option<Arc<ConsumerStats>>,
        queues: Vec<QueueMetrics>,
    ) -> Self {
        let mut consumers: Vec<ConsumerMetrics> = Vec::new();
        for consumer in partitions.iter().flat_map(|partition| &partition.consumers) {
            match consumers.iter_mut().find(|other| other.name == consumer.name) {
                Some(sum) => {
                    sum.consumed += consumer.consumed;
                    sum.lag += consumer.lag;
                    sum.lag_time = sum.lag_time.max(consumer.lag_time);
                    sum.stalls += consumer.stalls;
                }
                None => {
                    let stats = stats(&consumer.name);
                    let read = |of: fn(&ConsumerStats) -> &AtomicU64| {
                        stats.as_deref().map_or(0, |stats| TopicCounters::read(of(stats)))
                    };
                    let (skipped, expired) = (read(|stats| &stats.skipped), read(|stats| &stats.expired));
                    let (lost, gaps) = (read(|stats| &stats.lost), read(|stats| &stats.gaps));
                    let (batches, largest_batch) = (read(|stats| &stats.batches), read(|stats| &stats.largest_batch));
                    let own = consumer.clone();
                    let sum = ConsumerMetrics { skipped, expired, lost, gaps, batches, largest_batch, ..own };
                    consumers.push(sum);
                }
            }
        }
        let sum = |of: fn(&PartitionMetrics) -> u64| partitions.iter().map(of).sum::<u64>();
        let (capacity, fill) = (sum(|partition| partition.capacity), sum(|partition| partition.fill));
        // Nothing is counted while there is room. A producer that finds a partition full counts that.
        let was_full =
            [&counts.refused, &counts.timed_out, &counts.dropped].into_iter().any(|it| TopicCounters::read(it) > 0)
                || consumers.iter().any(|consumer| consumer.stalls > 0);
        let seen = if was_full { capacity } else { fill };
        let high_water = counts.high_water.fetch_max(seen, Ordering::Relaxed).max(seen);
        Self {
            name,
            capacity,
            published: sum(|partition| partition.published),
            fill,
            high_water,
            age,
            refused: TopicCounters::read(&counts.refused),
            timed_out: TopicCounters::read(&counts.timed_out),
            dropped: TopicCounters::read(&counts.dropped),
            limited: TopicCounters::read(&counts.limited),
            delayed: TopicCounters::read(&counts.delayed),
            duplicates: TopicCounters::read(&counts.duplicates),
            evicted: TopicCounters::read(&counts.evicted),
            partitions,
            consumers,
            queues,
        }
    }

    /// The consumer called `name`.
    pub fn consumer(&self, name: &str) -> Option<&ConsumerMetrics> {
        self.consumers.iter().find(|consumer| consumer.name == name)
    }

    /// The queue called `name`.
    pub fn queue(&self, name: &str) -> Option<&QueueMetrics> {
        self.queues.iter().find(|queue| queue.name == name)
    }
}

impl PartitionMetrics {
    /// `lag_time` is called with the next offset of a consumer that has not read everything.
    pub(crate) fn new(partition: u32, at: Positions, lag_time: impl Fn(Option<u64>) -> Option<Duration>) -> Self {
        let consumers = at.stages.into_iter().map(|stage| ConsumerMetrics {
            name: stage.name,
            after: stage.after,
            consumed: stage.consumed.0,
            lag: stage.lag,
            lag_time: lag_time((stage.lag > 0).then_some(stage.consumed.0)),
            batches: 0,
            largest_batch: 0,
            stalls: stage.stalls,
            skipped: 0,
            expired: 0,
            lost: 0,
            gaps: 0,
        });
        Self {
            partition,
            capacity: at.capacity,
            earliest: at.earliest.0,
            published: at.published.0,
            fill: at.fill,
            oldest_unpublished: at.oldest_unpublished.map(|sequence| sequence.0),
            consumers: consumers.collect(),
        }
    }
}

/// The metrics of one consumer, in one partition or over all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ConsumerMetrics {
    /// Its name.
    pub name: String,
    /// The consumers that must read an event before it.
    pub after: Vec<String>,
    /// The next offset that it will read; over all partitions, the sum of them.
    pub consumed: u64,
    /// How many published events it has not read, counted in offsets: see [`Subscriber::lag`](crate::Subscriber::lag).
    pub lag: u64,
    /// How long ago the next event that it will read was published, zero if it has read everything; the longest of all
    /// partitions. None where the topic notes no [times](crate::TopicBuilder::timestamps).
    #[cfg_attr(feature = "observe", serde(with = "maybe_seconds"))]
    pub lag_time: Option<Duration>,
    /// Batches of at least one event that a subscriber was given; 0 for other consumers.
    pub batches: u64,
    /// The largest of them, in events.
    pub largest_batch: u64,
    /// How often a producer had to wait because of it.
    pub stalls: u64,
    /// Events that its handler failed on and that were passed over, as its policy says.
    pub skipped: u64,
    /// Events whose [time to live](crate::TopicBuilder::time_to_live) had passed when they were to be read.
    pub expired: u64,
    /// Offsets of events that it could not be given because they were lost to damage: see [`OnGap`](crate::replay::OnGap).
    #[cfg_attr(feature = "observe", serde(default))]
    pub lost: u64,
    /// How many gaps of such offsets it has met.
    #[cfg_attr(feature = "observe", serde(default))]
    pub gaps: u64,
}

/// The metrics of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct QueueMetrics {
    /// Its name.
    pub name: String,
    /// Published messages that were not given out yet.
    pub unread: u64,
    /// Messages that a worker has a lease on. A lease that ran out counts until a worker asks for messages.
    pub leased: u64,
    /// Messages that come again, now or after a delay.
    pub waiting: u64,
    /// Messages that had their last attempt and found no room among the dead letters yet.
    pub dying: u64,
    /// Bytes of all these.
    pub bytes: u64,
    /// Whether the side store is full, so that no new message is given out.
    pub full: bool,
    /// Leases given so far.
    pub delivered: u64,
    /// Leases given so far for messages that had been given out before.
    pub redelivered: u64,
    /// Messages that were acknowledged.
    pub acked: u64,
    /// Messages that a worker gave back.
    pub nacked: u64,
    /// Leases that ran out.
    pub expired: u64,
    /// Messages that were deleted by receipt.
    pub deleted: u64,
    /// Messages that were moved to the dead letters.
    pub dead: u64,
    /// Messages that were not done with when the journal gave them up: what its retention has taken cannot be read again.
    /// Of those that were not read, offsets.
    pub lost: u64,
    /// The most messages that were ever in the side store.
    pub high_water: u64,
}

#[cfg(feature = "observe")]
mod seconds {
    use std::time::Duration;

    pub(super) fn serialize<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(time.as_secs_f64())
    }

    pub(super) fn deserialize<'d, D: serde::Deserializer<'d>>(from: D) -> Result<Duration, D::Error> {
        let seconds = <f64 as serde::Deserialize>::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "observe")]
mod maybe_seconds {
    use std::time::Duration;

    pub(super) fn serialize<S: serde::Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(&time.map(|time| time.as_secs_f64()), to)
    }

    pub(super) fn deserialize<'d, D: serde::Deserializer<'d>>(from: D) -> Result<Option<Duration>, D::Error> {
        let seconds = <Option<f64> as serde::Deserialize>::deserialize(from)?;
        seconds.map(Duration::try_from_secs_f64).transpose().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for topic in &self.topics {
            writeln!(f, "{}: published {}, fill {}/{}", topic.name, topic.published, topic.fill, topic.capacity)?;
            for consumer in &topic.consumers {
                let ConsumerMetrics { name, consumed, lag, stalls, skipped, .. } = consumer;
                writeln!(f, "  {name}: consumed {consumed}, lag {lag}, stalls {stalls}, skipped {skipped}")?;
            }
            for queue in &topic.queues {
                let QueueMetrics { name, unread, leased, waiting, acked, dead, .. } = queue;
                writeln!(
                    f,
                    "  queue {name}: unread {unread}, leased {leased}, waiting {waiting}, acked {acked}, dead {dead}"
                )?;
            }
        }
        for TransformMetrics { name, topic, state, cause, lag } in &self.transforms {
            let cause = cause.as_ref().map_or_else(String::new, |cause| format!(" ({})", text::line(cause)));
            writeln!(f, "transform {name} of {topic}: {state}{cause}, lag {lag}")?;
        }
        Ok(())
    }
}
