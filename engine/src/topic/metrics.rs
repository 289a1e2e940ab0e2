//! Metrics of topics and consumers: their positions and counters at one moment.

mod group;
mod journal;

pub use group::{GroupMemberMetrics, GroupMetrics};
pub use journal::JournalMetrics;

use crate::base::overload::{ConsumerStats, TopicCounters};
use crate::log::gap::{Gap, ReportedGap};
use crate::log::offsets::transform::TransformDescription;
use crate::text;
use slipring_ring::Positions;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The metrics of all topics at one moment, from [`Engine::metrics`](crate::Engine::metrics). Nearly all of them are
/// computed from positions when this is called, so publishing costs nothing more; a subscriber counts its batches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Metrics {
    /// The topics, in the order of creation.
    pub topics: Vec<TopicMetrics>,
    /// The gaps (offsets lost to damage) that were reported to a group, queue or transform and are not acknowledged
    /// yet.
    #[cfg_attr(feature = "observe", serde(default))]
    pub gaps: Vec<GapMetrics>,
    /// The transforms that this engine has opened, by name.
    #[cfg_attr(feature = "observe", serde(default))]
    pub transforms: Vec<TransformMetrics>,
    /// The consumer groups that have members, or had some since the engine was built, by name.
    #[cfg_attr(feature = "observe", serde(default))]
    pub groups: Vec<GroupMetrics>,
    /// The engine's journal; `None` if it has none.
    #[cfg_attr(feature = "observe", serde(default))]
    pub journal: Option<JournalMetrics>,
}

/// The metrics of a transform: see [`TransformDescription`](crate::transform::TransformDescription).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TransformMetrics {
    /// The transform's name.
    pub name: String,
    /// The name of the transform's input topic.
    pub topic: String,
    /// The transform's state, as [one word](crate::transform::TransformState::word).
    pub state: String,
    /// The error with which the transform has ended; `None` unless it failed or one of its topics was halted.
    pub cause: Option<String>,
    /// How many events the journal has of the input topic that the transform has not committed.
    pub lag: u64,
}

impl From<TransformDescription> for TransformMetrics {
    fn from(it: TransformDescription) -> Self {
        let (lag, state, cause) = (it.lag(), it.state.word().to_owned(), it.state.cause().map(str::to_owned));
        Self { name: it.name, topic: it.topic, state, cause, lag }
    }
}

/// A gap (range of offsets lost to damage) that was reported to a reader: see [`ReportedGap`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct GapMetrics {
    /// The kind of the reader: `group`, `transform` or `queue`.
    pub kind: String,
    /// The reader's name.
    pub reader: String,
    /// The topic's name.
    pub topic: String,
    /// The partition's number, from 0.
    pub partition: u32,
    /// The first lost offset.
    pub first: u64,
    /// The offset after the last lost one (exclusive end).
    pub end: u64,
}

impl From<ReportedGap> for GapMetrics {
    fn from(reported: ReportedGap) -> Self {
        let Gap { topic, partition, offsets: Range { start: first, end } } = reported.gap;
        Self { kind: reported.kind.to_string(), reader: reported.reader, topic, partition, first, end }
    }
}

impl Metrics {
    /// The metrics of the topic `name`; `None` if the engine has no such topic.
    pub fn topic(&self, name: &str) -> Option<&TopicMetrics> {
        self.topics.iter().find(|topic| topic.name == name)
    }
}

/// The metrics of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TopicMetrics {
    /// The topic's name.
    pub name: String,
    /// The number of slots of all partitions.
    pub capacity: u64,
    /// How many offsets of all partitions were published or, after a crash of a durable topic, left unused: see
    /// [`Journal::records_in`](crate::journal::Journal::records_in). With one partition this is the next offset.
    pub published: u64,
    /// How many slots of all partitions hold an event that some consumer has not read, or that is kept for later
    /// consumers.
    pub fill: u64,
    /// The highest `fill` of any snapshot so far; `capacity` if a producer had ever found a partition full by then.
    pub high_water: u64,
    /// How long the topic has existed, by the engine's clock.
    #[cfg_attr(feature = "observe", serde(with = "seconds"))]
    pub age: Duration,
    /// How many events were refused without waiting because their partition was full.
    pub refused: u64,
    /// How many events were refused because their partition was still full when the deadline passed.
    pub timed_out: u64,
    /// How many events [`Overflow::DropNewest`](crate::topic::Overflow::DropNewest) dropped.
    pub dropped: u64,
    /// How many events were refused because of a rate limit.
    pub limited: u64,
    /// How many events were published only after waiting for a rate limit.
    pub delayed: u64,
    /// How many messages were not published again because the topic remembered their id.
    pub duplicates: u64,
    /// How often a consumer was evicted because producers waited for it. Each time that a replay or a group spills,
    /// that is, leaves the ring to read the journal, counts too.
    pub evicted: u64,
    /// The metrics of each partition, by number.
    pub partitions: Vec<PartitionMetrics>,
    /// The topic's consumers, each summed over all partitions, in the order of joining. Consumers that have ended are
    /// only in the report of the shutdown.
    pub consumers: Vec<ConsumerMetrics>,
    /// The topic's queues, in the order of creation. Each queue is also in `consumers`, where `lag` counts its unread
    /// messages.
    pub queues: Vec<QueueMetrics>,
    /// The topic's bridge to other machines; `None` if none was attached since the topic was opened.
    #[cfg_attr(feature = "observe", serde(default))]
    pub replication: Option<ReplicationMetrics>,
}

/// The metrics of the bridge that copies a topic to other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReplicationMetrics {
    /// The bridge's name.
    pub bridge: String,
    /// Why the bridge has ended; `None` while it is attached.
    pub ended: Option<String>,
    /// The last error of a bridge that tries again; `None` if it works.
    pub error: Option<String>,
    /// How many published events of all partitions are not replicated.
    pub lag: u64,
    /// The size of these events in bytes; `None` if the bridge does not know it.
    pub lag_bytes: Option<u64>,
    /// The age of the oldest of these events; `None` if there is none, or if the bridge does not know it.
    #[cfg_attr(feature = "observe", serde(with = "maybe_seconds"))]
    pub lag_time: Option<Duration>,
}

/// The metrics of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PartitionMetrics {
    /// The partition's number, from 0.
    pub partition: u32,
    /// The number of slots of the partition's ring.
    pub capacity: u64,
    /// The earliest offset whose event is still in the ring.
    pub earliest: u64,
    /// The next offset to be published.
    pub published: u64,
    /// How many slots hold an event that some consumer has not read, or that is kept for later consumers.
    pub fill: u64,
    /// The oldest offset that a producer has claimed and not published yet; `None` if there is none.
    pub oldest_unpublished: Option<u64>,
    /// The consumers of this partition, in the order of joining. Their counts of batches and of skipped, expired and
    /// lost events are 0 here, because these are counted for the whole topic only.
    pub consumers: Vec<ConsumerMetrics>,
}

impl TopicMetrics {
    /// Sums the metrics of `partitions`, and adds the counters of the topic and of its consumers.
    pub(crate) fn new(
        name: String,
        age: Duration,
        partitions: Vec<PartitionMetrics>,
        counts: &TopicCounters,
        stats: impl Fn(&str) -> Option<Arc<ConsumerStats>>,
        queues: Vec<QueueMetrics>,
    ) -> Self {
        let mut consumers: Vec<ConsumerMetrics> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for consumer in partitions.iter().flat_map(|partition| &partition.consumers) {
            let place = *places.entry(&consumer.name).or_insert(consumers.len());
            match consumers.get_mut(place) {
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
        // A producer counts nothing while its partition has room. So if one of these counters is above zero, a
        // partition was full.
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
            replication: None,
        }
    }

    /// The metrics of the consumer `name`; `None` if the topic has no such consumer.
    pub fn consumer(&self, name: &str) -> Option<&ConsumerMetrics> {
        self.consumers.iter().find(|consumer| consumer.name == name)
    }

    /// The metrics of the queue `name`; `None` if the topic has no such queue.
    pub fn queue(&self, name: &str) -> Option<&QueueMetrics> {
        self.queues.iter().find(|queue| queue.name == name)
    }
}

impl PartitionMetrics {
    /// The metrics of the partition with these positions. `lag_time` computes a consumer's lag in time: its argument is
    /// the offset of the consumer's next unread event, `None` if the consumer has read all events; its result is `None`
    /// if the topic has no timestamps.
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

    /// The metrics of a partition that is not made yet, with these consumers: see [`deferred`](crate::topic::deferred).
    pub(crate) fn deferred(partition: u32, capacity: u64, first: u64, consumers: Vec<String>) -> Self {
        let consumers = consumers.into_iter().map(|name| ConsumerMetrics {
            name,
            after: Vec::new(),
            consumed: first,
            lag: 0,
            lag_time: None,
            batches: 0,
            largest_batch: 0,
            stalls: 0,
            skipped: 0,
            expired: 0,
            lost: 0,
            gaps: 0,
        });
        let (consumers, oldest_unpublished) = (consumers.collect(), None);
        Self { partition, capacity, earliest: first, published: first, fill: 0, oldest_unpublished, consumers }
    }
}

/// The metrics of one consumer, in one partition or summed over all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ConsumerMetrics {
    /// The consumer's name.
    pub name: String,
    /// The names of the consumers that must have read an event before this consumer reads it.
    pub after: Vec<String>,
    /// The next offset that the consumer reads; over all partitions, the sum of these offsets.
    pub consumed: u64,
    /// How many published offsets the consumer has not read: see [`Subscriber::lag`](crate::Subscriber::lag).
    pub lag: u64,
    /// How long ago the consumer's next event was published; zero if the consumer has read all events. Over all
    /// partitions, the longest such time. `None` if the topic has no [timestamps](crate::TopicBuilder::timestamps).
    #[cfg_attr(feature = "observe", serde(with = "maybe_seconds"))]
    pub lag_time: Option<Duration>,
    /// How many batches with at least one event a subscriber has read; 0 for other consumers.
    pub batches: u64,
    /// The number of events in the subscriber's largest batch.
    pub largest_batch: u64,
    /// How often a producer had to wait for this consumer.
    pub stalls: u64,
    /// How many events the consumer's [error policy](crate::subscriber::OnError) skipped after its handler failed.
    pub skipped: u64,
    /// How many events the consumer skipped because their [time to live](crate::TopicBuilder::time_to_live) had passed.
    pub expired: u64,
    /// How many offsets the consumer skipped because their records were lost to damage: see
    /// [`OnGap`](crate::replay::OnGap).
    #[cfg_attr(feature = "observe", serde(default))]
    pub lost: u64,
    /// The number of separate ranges that those lost offsets form.
    #[cfg_attr(feature = "observe", serde(default))]
    pub gaps: u64,
}

/// The metrics of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct QueueMetrics {
    /// The queue's name.
    pub name: String,
    /// How many published messages the queue has not read yet. An offset without a message, for example of a claim that
    /// was dropped, may be counted too.
    pub unread: u64,
    /// How many messages are leased to a worker. An expired lease counts until a worker asks the queue for a message.
    pub leased: u64,
    /// How many messages wait to be leased: they were sent with a delay, or are to be leased again.
    pub waiting: u64,
    /// How many messages have had their last attempt and are not in the topic for dead letters, for example because it is
    /// full, or because its [`max_message`](crate::TopicBuilder::max_message) is too small for them.
    pub dying: u64,
    /// The size in bytes of the leased, waiting and dying messages.
    pub bytes: u64,
    /// True if the queue's [side store](crate::queue) is full, so that no unread message is leased.
    pub full: bool,
    /// How many leases the queue has given since it was opened.
    pub delivered: u64,
    /// How many of these leases were of a message that had been leased before.
    pub redelivered: u64,
    /// How many messages were acknowledged.
    pub acked: u64,
    /// How often a worker gave a message back.
    pub nacked: u64,
    /// How many leases expired.
    pub expired: u64,
    /// How many messages were deleted by their receipt.
    pub deleted: u64,
    /// How many messages were moved to the dead letters.
    pub dead: u64,
    /// How many unfinished messages were lost, because the journal's retention deleted them or damage destroyed them.
    /// Of messages that the queue had not read yet, the lost offsets are counted, with or without a message.
    pub lost: u64,
    /// The highest number of messages that the side store has held at once.
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
            write!(f, "{}: published {}, fill {}/{}", topic.name, topic.published, topic.fill, topic.capacity)?;
            let lost = [("refused", topic.refused), ("timed out", topic.timed_out), ("dropped", topic.dropped)];
            lost.iter().filter(|(_, count)| *count > 0).try_for_each(|(word, count)| write!(f, ", {word} {count}"))?;
            writeln!(f)?;
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
        for (topic, bridge) in self.topics.iter().filter_map(|topic| Some((&topic.name, topic.replication.as_ref()?))) {
            writeln!(f, "{topic}: {bridge}")?;
        }
        for GroupMetrics { name, state, lag, members, .. } in &self.groups {
            writeln!(f, "group {name}: {state}, members {}, lag {lag}", members.len())?;
        }
        for TransformMetrics { name, topic, state, cause, lag } in &self.transforms {
            let cause = cause.as_ref().map_or_else(String::new, |cause| format!(" ({})", text::line(cause)));
            writeln!(f, "transform {name} of {topic}: {state}{cause}, lag {lag}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ReplicationMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bridge, ended, error, lag, .. } = self;
        let state = if ended.is_some() { "ended" } else { "attached" };
        let cause = ended.as_ref().or(error.as_ref());
        let cause = cause.map_or_else(String::new, |cause| format!(" ({})", text::line(cause)));
        write!(f, "bridge {bridge}: {state}{cause}, lag {lag}")
    }
}
