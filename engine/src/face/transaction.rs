//! Transactions: events of several durable topics and partitions, published together or not at all.
//!
//! [`Engine::transaction`](crate::Engine::transaction) begins one. It gathers events in memory;
//! [`commit`](Transaction::commit) writes them as one frame of the journal, under one checksum, and publishes them when the disk
//! has that frame. Dropped without a commit, nothing is published.
//!
//! ```
//! use slipring::{Engine, journal::simulated::SimulatedDisk};
//!
//! let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
//! let orders = engine.topic::<u64>("orders").durable().create()?;
//! let stock = engine.topic::<i64>("stock").durable().create()?;
//! let mut sale = engine.transaction()?;
//! sale.publish(&orders, |order| *order = 7)?;
//! sale.publish(&stock, |change| *change = -1)?;
//! assert_eq!(sale.commit()?.len(), 2);                            // a receipt for each partition, both durable
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - After a crash at any point, all events of a transaction are there or none.
//! - Nobody reads an event of a transaction that is not durable.
//! - A commit that waits for room in one partition holds nothing in another.
//!
//! # Errors
//! [`TransactionError`]. All but [`Unknown`](TransactionError::Unknown) say that nothing was published; `Unknown` says that the
//! disk failed in the middle, and only opening the journal again tells.
//!
//! # Unlike Kafka
//! There are no markers, no coordinator and no isolation level: an aborted transaction is never written, so nobody reads around
//! it and none can hang. All events must fit into one frame, a quarter of a segment. To commit what was *read* together with what
//! was published, take a [`transform`](crate::transform) or a group's
//! [`commit_with`](crate::group::GroupBatch::commit_with).

pub use crate::produce::transaction::{Transaction, TransactionError};
