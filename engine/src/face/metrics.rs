//! What an engine says of itself: a snapshot while it runs, and a report when it ends.
//!
//! [`Engine::metrics`](crate::Engine::metrics) gives a [`Metrics`]: fill and counts of each topic, the lag of each consumer,
//! queues, transforms, gaps, the journal's syncs. It is computed from positions that exist anyway, so it costs nothing while nobody asks. It
//! prints as Prometheus text ([`Metrics::to_prometheus`]); the feature `metrics` adds a way to the `metrics` crate, the feature
//! `observe` JSON and a socket for the command `slipring top`. [`Engine::shutdown`](crate::Engine::shutdown) returns a [`Report`].
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
//! A snapshot holds nobody up. Its numbers are read one after the other, while events flow: they agree with one another where
//! producers and readers rest. None is an estimate unless its own page says so.
//!
//! # Errors
//! A snapshot has none. The feature `observe` adds `ObserveError`: the socket could not be opened.
//!
//! # Unlike Kafka
//! Lag is counted in offsets, as Kafka does, and in time where the topic has timestamps. There is no reporter thread: whoever
//! wants a series takes snapshots.

#[cfg(feature = "observe")]
pub use crate::engine::ObserveError;
pub use crate::topic::metrics::{
    ConsumerMetrics, GapMetrics, Metrics, PartitionMetrics, QueueMetrics, TopicMetrics, TransformMetrics,
};
pub use crate::topic::report::{ConsumerReport, CutClaim, QueueReport, Report, TopicReport};
pub use slipring_ring::Ending;
