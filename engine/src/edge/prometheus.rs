//! The metrics as Prometheus text, exposition format 0.0.4.

use crate::log::offsets::transform::FAILED;
use crate::topic::metrics::{
    ConsumerMetrics, GapMetrics, Metrics, PartitionMetrics, QueueMetrics, ReplicationMetrics, TopicMetrics,
    TransformMetrics,
};
use std::fmt::Write;

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value that may rise and fall.
    Gauge,
    /// A count that only grows while the process runs; but `consumer_consumed_total` falls if a consumer seeks back.
    Counter,
}

/// One metric, with a value for each combination of labels.
#[derive(Clone, Debug)]
pub(crate) struct Family<'m> {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) samples: Vec<Sample<'m>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Sample<'m> {
    /// Names and values of the labels, the topic first.
    pub(crate) labels: Vec<(&'static str, std::borrow::Cow<'m, str>)>,
    pub(crate) value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Whole(u64),
    Seconds(f64),
}

type Of<T> = fn(&T) -> Option<Value>;
type Row<T> = (&'static str, Kind, &'static str, Of<T>);

macro_rules! whole {
    ($field:ident) => {
        |it| Some(Value::Whole(it.$field))
    };
}

const TOPIC: &[Row<TopicMetrics>] = &[
    ("topic_capacity", Kind::Gauge, "Events that the rings of all partitions hold.", whole!(capacity)),
    ("topic_published_total", Kind::Counter, "Offsets published.", whole!(published)),
    ("topic_fill", Kind::Gauge, "Slots whose events some consumer has not read, or that are retained.", whole!(fill)),
    ("topic_fill_high_water", Kind::Gauge, "Highest fill that a snapshot has seen.", whole!(high_water)),
    ("topic_refused_total", Kind::Counter, "Events refused at once for want of room.", whole!(refused)),
    ("topic_timed_out_total", Kind::Counter, "Events without room until a deadline.", whole!(timed_out)),
    ("topic_dropped_total", Kind::Counter, "Events dropped for want of room.", whole!(dropped)),
    ("topic_rate_limited_total", Kind::Counter, "Events that a rate limit refused.", whole!(limited)),
    ("topic_rate_delayed_total", Kind::Counter, "Events that waited for a rate limit.", whole!(delayed)),
    (
        "topic_duplicates_total",
        Kind::Counter,
        "Messages not published because their id was published before.",
        whole!(duplicates),
    ),
    ("topic_evicted_total", Kind::Counter, "Subscribers evicted because they were slow.", whole!(evicted)),
    ("topic_age_seconds", Kind::Gauge, "Time since the topic was created.", |it| {
        Some(Value::Seconds(it.age.as_secs_f64()))
    }),
];

const PARTITION: &[Row<PartitionMetrics>] = &[
    ("partition_earliest_offset", Kind::Gauge, "The earliest offset that is kept.", whole!(earliest)),
    ("partition_next_offset", Kind::Gauge, "The next offset to be published.", whole!(published)),
    ("partition_fill", Kind::Gauge, "Slots in use.", whole!(fill)),
    ("partition_oldest_unpublished_offset", Kind::Gauge, "The oldest offset claimed and not published.", |it| {
        it.oldest_unpublished.map(Value::Whole)
    }),
];

const CONSUMER: &[Row<ConsumerMetrics>] = &[
    (
        "consumer_consumed_total",
        Kind::Counter,
        "Offsets that the consumer has passed, in all partitions.",
        whole!(consumed),
    ),
    ("consumer_lag", Kind::Gauge, "Published events not read yet.", whole!(lag)),
    ("consumer_lag_seconds", Kind::Gauge, "Age of the next event to be read, if the topic has timestamps.", |it| {
        it.lag_time.map(|time| Value::Seconds(time.as_secs_f64()))
    }),
    ("consumer_stalls_total", Kind::Counter, "Times that a producer waited because of this consumer.", whole!(stalls)),
    (
        "consumer_skipped_total",
        Kind::Counter,
        "Events that were skipped because the handler failed on them.",
        whole!(skipped),
    ),
    ("consumer_expired_total", Kind::Counter, "Events whose time to live had passed.", whole!(expired)),
    ("consumer_lost_total", Kind::Counter, "Offsets of events that were lost to damage.", whole!(lost)),
    ("consumer_gaps_total", Kind::Counter, "Gaps of lost offsets that the consumer met.", whole!(gaps)),
    ("consumer_batches_total", Kind::Counter, "Batches given to a subscriber.", whole!(batches)),
    ("consumer_largest_batch", Kind::Gauge, "Events in the largest batch.", whole!(largest_batch)),
];

const REPLICATION: &[Row<ReplicationMetrics>] = &[
    ("replication_lag", Kind::Gauge, "Published events that the bridge's cluster has not confirmed.", whole!(lag)),
    ("replication_lag_bytes", Kind::Gauge, "Bytes of durable events that the cluster has not confirmed.", |it| {
        it.lag_bytes.map(Value::Whole)
    }),
    ("replication_lag_seconds", Kind::Gauge, "Age of the oldest event that the cluster has not confirmed.", |it| {
        it.lag_time.map(|time| Value::Seconds(time.as_secs_f64()))
    }),
    ("replication_attached", Kind::Gauge, "1 while the bridge is attached, 0 once it has ended.", |it| {
        Some(Value::Whole(u64::from(it.ended.is_none())))
    }),
];

const GAP: &[Row<GapMetrics>] = &[(
    "unacknowledged_lost_offsets",
    Kind::Gauge,
    "Lost offsets that were reported to a reader and are not acknowledged.",
    |it| Some(Value::Whole(it.end.saturating_sub(it.first))),
)];

const TRANSFORM: &[Row<TransformMetrics>] = &[
    ("transform_lag", Kind::Gauge, "Events of its input that a transform has not committed.", whole!(lag)),
    ("transform_failed", Kind::Gauge, "1 if the transform has failed and reads no more, else 0.", |it| {
        Some(Value::Whole(u64::from(it.state == FAILED)))
    }),
];

const QUEUE: &[Row<QueueMetrics>] = &[
    ("queue_unread", Kind::Gauge, "Published messages that were never leased.", whole!(unread)),
    ("queue_leased", Kind::Gauge, "Messages leased to a worker.", whole!(leased)),
    ("queue_waiting", Kind::Gauge, "Messages that wait to be leased again, now or after a delay.", whole!(waiting)),
    ("queue_dying", Kind::Gauge, "Messages that wait for room in the dead-letter topic.", whole!(dying)),
    ("queue_side_store_bytes", Kind::Gauge, "Bytes of all leased, waiting and dying messages.", whole!(bytes)),
    ("queue_side_store_full", Kind::Gauge, "1 if the queue is full and reads no new message, else 0.", |it| {
        Some(Value::Whole(u64::from(it.full)))
    }),
    ("queue_side_store_high_water", Kind::Gauge, "Highest count of messages in the side store.", whole!(high_water)),
    ("queue_delivered_total", Kind::Counter, "Leases granted.", whole!(delivered)),
    ("queue_redelivered_total", Kind::Counter, "Leases that were not a message's first.", whole!(redelivered)),
    ("queue_acked_total", Kind::Counter, "Messages acknowledged.", whole!(acked)),
    ("queue_nacked_total", Kind::Counter, "Messages that a worker gave back.", whole!(nacked)),
    ("queue_expired_total", Kind::Counter, "Leases that expired.", whole!(expired)),
    ("queue_deleted_total", Kind::Counter, "Messages deleted by receipt.", whole!(deleted)),
    (
        "queue_lost_total",
        Kind::Counter,
        "Unfinished messages that retention deleted or damage destroyed.",
        whole!(lost),
    ),
    ("queue_dead_total", Kind::Counter, "Messages moved to the dead-letter topic.", whole!(dead)),
];

fn families<'m, T: 'm>(
    rows: &'static [Row<T>],
    all: impl Iterator<Item = (Vec<(&'static str, std::borrow::Cow<'m, str>)>, &'m T)> + Clone,
) -> impl Iterator<Item = Family<'m>> {
    rows.iter().map(move |&(name, kind, help, of)| {
        let samples = all.clone().filter_map(|(labels, it)| Some(Sample { labels, value: of(it)? }));
        Family { name, help, kind, samples: samples.collect() }
    })
}

impl Metrics {
    /// All metrics of the snapshot. Values that do not exist, such as the lag in time of a topic without timestamps,
    /// are left out, and so are metrics without any value.
    pub(crate) fn families(&self) -> Vec<Family<'_>> {
        let topic = |topic: &'_ str| vec![("topic", topic.to_owned().into())];
        let and = |mut labels: Vec<_>, name, value: String| {
            labels.push((name, value.into()));
            labels
        };
        let topics = self.topics.iter().map(|it| (topic(&it.name), it));
        let partitions = self.topics.iter().flat_map(|of| {
            of.partitions.iter().map(move |it| (and(topic(&of.name), "partition", it.partition.to_string()), it))
        });
        let consumers = self
            .topics
            .iter()
            .flat_map(|of| of.consumers.iter().map(move |it| (and(topic(&of.name), "consumer", it.name.clone()), it)));
        let queues = self
            .topics
            .iter()
            .flat_map(|of| of.queues.iter().map(move |it| (and(topic(&of.name), "queue", it.name.clone()), it)));
        let all = families(TOPIC, topics).chain(families(PARTITION, partitions));
        let gaps = self.gaps.iter().map(|it| {
            let labels = and(topic(&it.topic), "partition", it.partition.to_string());
            let labels = and(and(labels, "kind", it.kind.clone()), "reader", it.reader.clone());
            (and(labels, "first", it.first.to_string()), it)
        });
        let transforms = self.transforms.iter().map(|it| (and(topic(&it.topic), "transform", it.name.clone()), it));
        let bridges = self.topics.iter().filter_map(|of| {
            let it = of.replication.as_ref()?;
            Some((and(topic(&of.name), "bridge", it.bridge.clone()), it))
        });
        let all = all.chain(families(TRANSFORM, transforms)).chain(families(REPLICATION, bridges));
        let all = all.chain(families(CONSUMER, consumers)).chain(families(QUEUE, queues)).chain(families(GAP, gaps));
        all.filter(|family| !family.samples.is_empty()).collect()
    }

    /// The metrics as Prometheus text. Each name begins with `slipring_`.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").create()?;
    /// let tape = ticks.subscribe("tape").poll()?;
    /// ticks.producer().create()?.publish(|tick| *tick = 42)?;
    /// let text = engine.metrics().to_prometheus();
    /// assert!(text.contains("# TYPE slipring_consumer_lag gauge\n"));
    /// assert!(text.contains("slipring_consumer_lag{topic=\"ticks\",consumer=\"tape\"} 1\n"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        for Family { name, help, kind, samples } in self.families() {
            let kind = if kind == Kind::Counter { "counter" } else { "gauge" };
            // Writing into a string never fails.
            let _ = write!(text, "# HELP slipring_{name} {help}\n# TYPE slipring_{name} {kind}\n");
            for Sample { labels, value } in samples {
                let _ = write!(text, "slipring_{name}");
                for (index, (label, value)) in labels.iter().enumerate() {
                    let _ = write!(text, "{}{label}=\"", if index == 0 { '{' } else { ',' });
                    value.chars().for_each(|char| match char {
                        '\\' => text.push_str("\\\\"),
                        '"' => text.push_str("\\\""),
                        '\n' => text.push_str("\\n"),
                        char => text.push(char),
                    });
                    text.push('"');
                }
                let _ = match value {
                    Value::Whole(value) => writeln!(text, "}} {value}"),
                    Value::Seconds(value) => writeln!(text, "}} {value}"),
                };
            }
        }
        text
    }
}

#[cfg(feature = "metrics")]
impl Metrics {
    /// Sets every metric in the recorder of the `metrics` crate, under its name in
    /// [`to_prometheus`](Self::to_prometheus). Call this as often as your recorder needs values: publishing and reading
    /// set none.
    pub fn record(&self) {
        for Family { name, kind, samples, help } in self.families() {
            let name = format!("slipring_{name}");
            match kind {
                Kind::Counter => metrics::describe_counter!(name.clone(), help),
                Kind::Gauge => metrics::describe_gauge!(name.clone(), help),
            }
            for Sample { labels, value } in samples {
                let labels: Vec<_> =
                    labels.into_iter().map(|(name, value)| metrics::Label::new(name, value.into_owned())).collect();
                match (kind, value) {
                    (Kind::Counter, Value::Whole(value)) => metrics::counter!(name.clone(), labels).absolute(value),
                    (_, Value::Whole(value)) => metrics::gauge!(name.clone(), labels).set(value as f64),
                    (_, Value::Seconds(value)) => metrics::gauge!(name.clone(), labels).set(value),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Engine, topic::MAX_NAME};

    #[test]
    fn labels_are_escaped() {
        let engine = Engine::builder().build().unwrap();
        engine.topic::<u64>("x".repeat(MAX_NAME)).create().unwrap();
        let mut metrics = engine.metrics();
        metrics.topics[0].name = "a\\b\"c\nd\u{e9}".to_owned();
        let text = metrics.to_prometheus();
        assert!(text.contains("slipring_topic_capacity{topic=\"a\\\\b\\\"c\\nd\u{e9}\"} 1024\n"), "{text}");
    }
}
