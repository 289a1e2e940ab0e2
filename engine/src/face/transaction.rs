//! Transactions: events of several durable topics and partitions, published all or none.
//!
//! [`Engine::transaction`](crate::Engine::transaction) begins a transaction, which gathers events in memory.
//! [`commit`](Transaction::commit) writes them as one frame of the journal, under one checksum, and publishes them when
//! that frame is durable. A transaction that is dropped without a commit publishes nothing.
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
//! - After a crash at any point, all events of a transaction exist or none does.
//! - No event of a transaction can be read before it is durable.
//! - A commit that waits for room in one partition holds no slots of another.
//!
//! # Errors
//! [`TransactionError`]. Each error means that nothing was published, except two. [`Unknown`](TransactionError::Unknown):
//! the disk failed while the frame was written, and only opening the journal again shows whether the frame is there.
//! [`Late`](TransactionError::Late): the frame is durable, and a topic had ended before, so its events are read when it
//! is opened again.
//!
//! # Unlike Kafka
//! There are no markers, no coordinator and no isolation level: an aborted transaction is never written, so readers
//! need not skip it and none can be left pending. All events must fit into one frame, a quarter of a segment. To commit
//! consumed offsets together with published events, use a [`transform`](crate::transform) or a group's
//! [`commit_with`](crate::group::GroupBatch::commit_with).

pub use crate::produce::transaction::{Transaction, TransactionError};
