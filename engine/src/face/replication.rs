//! Replication: how a bridge copies a durable topic to other machines, and how a producer waits for that.
//!
//! Slipring itself runs on one machine. A bridge reads a durable topic, publishes its events to a cluster of another
//! engine, and says through a [`Replication`] which events the cluster has confirmed. Receipts of these events reach
//! [`Level::Replicated`](crate::Level::Replicated).
//!
//! ```
//! use slipring::{Engine, Level, journal::simulated::SimulatedDisk};
//!
//! let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
//! let ticks = engine.topic::<u64>("ticks").durable().create()?;
//! let bridge = ticks.replicate("nats").hold(1 << 30).attach()?;
//! let receipt = ticks.producer().acknowledge(Level::Durable).create()?.publish(|tick| *tick = 42)?;
//! // Here a bridge reads the event with `ticks.replay(...)` and waits for the cluster.
//! bridge.advance(receipt.partition, receipt.offset + 1)?;
//! assert_eq!(receipt.wait(Level::Replicated)?, Level::Replicated);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - A receipt says `Replicated` only once its bridge has said so, and only for an event that is durable here too.
//! - Every wait for `Replicated` ends: with the level, with the cause of the bridge's or the journal's end, or at its
//!   deadline. The end of a bridge disturbs nothing else.
//! - The topic's retention deletes no event that the bridge has not copied, also while the bridge does not run and after
//!   a restart, up to [`hold`](ReplicationBuilder::hold) bytes of each partition. `slipring journal stat` lists what is kept
//!   for which bridge.
//!
//! # Errors
//! [`ReplicationError`]; of a wait [`WaitError::Bridge`](crate::producer::WaitError::Bridge) and
//! [`WaitError::Skipped`](crate::producer::WaitError::Skipped).
//!
//! # Unlike Kafka
//! Kafka replicates inside of its own cluster. Here replication, leader election and the majority are those of the engine
//! to which the bridge copies, and `Replicated` means that engine's acknowledgement.

pub use crate::log::bridge::{BridgePosition, BridgeReport, MAX_DETAIL, bridge_positions};
pub use crate::topic::metrics::ReplicationMetrics;
pub use crate::topic::replication::{Replication, ReplicationBuilder, ReplicationError};
