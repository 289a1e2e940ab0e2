//! A table's keys at one moment.

use super::contents::{StoredRow, TableContents};
use crate::event::keep::Keep;
use crate::read::At;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

/// A key of a table, with its last event.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableRow<'v, Q, E> {
    /// The key.
    pub key: &'v Q,
    /// The key's last event.
    pub event: &'v E,
    /// The event's partition and offset.
    pub at: At,
}

impl<Q, E> Clone for TableRow<'_, Q, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q, E> Copy for TableRow<'_, Q, E> {}

impl<'v, Q, E> TableRow<'v, Q, E> {
    pub(super) fn of(row: &'v StoredRow<Q, E>) -> Self {
        Self { key: &row.key, event: &row.event, at: At { end_of_batch: false, ..row.at } }
    }
}

/// All keys of a [`Table`](super::Table) at one moment.
pub struct TableView<Q, E> {
    pub(super) contents: Arc<TableContents<Q, E>>,
}

impl<Q, E> fmt::Debug for TableView<Q, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys at {:?}", self.len(), self.contents.next)
    }
}

impl<Q, E> TableView<Q, E> {
    /// Count of keys.
    pub fn len(&self) -> usize {
        self.contents.rows().len()
    }

    /// True if there is no key.
    pub fn is_empty(&self) -> bool {
        self.contents.rows().is_empty()
    }

    /// The next offset of the partition that the table did not have; `None` before its first event of the partition.
    pub fn position(&self, partition: u32) -> Option<u64> {
        self.contents.next.get(partition as usize).copied()
    }

    /// Count of events of which these rows are the last of each key.
    pub fn events(&self) -> u64 {
        self.contents.events
    }

    /// The keys, in the order in which they came.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TableRow<'_, Q, E>> {
        self.contents.rows().iter().map(TableRow::of)
    }
}

impl<Q: Hash + Eq + Clone, E: Keep> TableView<Q, E> {
    /// The key's last event; `None` if there is none.
    pub fn get(&self, key: &Q) -> Option<TableRow<'_, Q, E>> {
        self.contents.get(key).map(TableRow::of)
    }
}
