//! Tables: the last event of each key of a topic, in memory, for any thread.
//!
//! [`Topic::table`](crate::Topic::table) returns the settings, and [`open`](TableBuilder::open) the [`Table`]. A thread
//! keeps it up to date: on a durable topic it begins with the journal, so that the table has what earlier processes have
//! published. [`Table::get`] asks for a key, [`Table::view`] looks at all keys at one moment, and [`Table::changes`]
//! returns first all keys and then what changes.
//!
//! A reader that wants what changes but nothing of the past, in the order in which the keys first changed, is a
//! [`ConflatedSubscriber`](crate::subscriber::ConflatedSubscriber).
//!
//! Quotes by symbol (`engine/examples/quotes.rs`):
//! ```
#![doc = include_str!("../../examples/quotes.rs")]
//! ```
//!
//! # Guarantees
//! - A table has each key's last event below its position, none missed and none twice, also across a restart and where
//!   reading changes from the journal to the ring.
//! - Asking takes no lock, and a view does not change while it is held. Readers hold neither the table's thread nor a
//!   producer.
//! - Memory is bounded by a count of keys, beside the copies that views hold.
//!
//! # Errors
//! [`OpenTableError`]: the table was not opened. [`TableError`]: it cannot follow the topic any more, for example because
//! there are too many keys; then each call returns the error, so no old value is taken for a present one.
//!
//! # Unlike Kafka
//! A table is not shared between processes, and reads the whole journal when it is opened, which
//! [`TopicBuilder::compact`](crate::TopicBuilder::compact) keeps short. A table deletes no key: a tombstone is an event as any
//! other, and its key is missing in a table that is opened after compaction has removed it.

pub use crate::event::keep::Keep;
pub use crate::log::gap::OnGap;
pub use crate::read::table::{OpenTableError, Table, TableBuilder, TableChanges, TableError, TableRow, TableView};
