//! Metrics: a snapshot of a running engine, and the report of its shutdown.
//!
//! [`Engine::metrics`](crate::Engine::metrics) returns a [`Metrics`]: fill and counters of each topic, the lag of each
//! consumer, queues, groups, transforms, gaps, the journal. It is computed from positions that exist anyway, so it costs nothing until it is
//! called. [`Metrics::to_prometheus`] prints it as Prometheus text; the feature `metrics` exports it to the `metrics`
//! crate, the feature `observe` adds JSON and a socket for the command `slipring top`.
//! [`Engine::shutdown`](crate::Engine::shutdown) returns a [`Report`].
//!
//! ```
//! use slipring::Engine;
//! use std::time::Duration;
//!
//! let engine = Engine::builder().build()?;
//! let ticks = engine.topic::<u64>("ticks").capacity(8).create()?;
//! let slow = ticks.subscribe("slow").poll()?;
//! ticks.producer().create()?.publish(|tick| *tick = 42)?;
//!
//! let metrics = engine.metrics();
//! assert_eq!((metrics.topics[0].published, metrics.topics[0].consumers[0].lag), (1, 1));
//! assert!(metrics.to_prometheus().contains("slipring_"));
//! drop(slow);
//! let report = engine.shutdown(Duration::from_secs(5));
//! println!("{report}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! A snapshot makes no producer and no subscriber wait; the lock of a queue or a group is held while its counts are
//! read. Its values are read one after another while events flow, so they agree exactly only
//! while producers and consumers are idle. No value is an estimate unless its own page says so.
//!
//! # Errors
//! None for a snapshot. The feature `observe` adds `ObserveError`: the socket could not be created.
//!
//! # Unlike Kafka
//! Lag is counted in offsets, as in Kafka, and also in time where the topic has timestamps. There is no reporter
//! thread: a program that wants a time series takes snapshots.

#[cfg(feature = "observe")]
pub use crate::engine::ObserveError;
pub use crate::topic::metrics::{
    ConsumerMetrics, GapMetrics, GroupMemberMetrics, GroupMetrics, JournalMetrics, Metrics, PartitionMetrics,
    QueueMetrics, ReplicationMetrics, TopicMetrics, TransformMetrics,
};
pub use crate::topic::report::{ConsumerReport, CutClaim, QueueReport, Report, TopicReport};
pub use slipring_ring::Ending;
