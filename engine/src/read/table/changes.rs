//! A reader of a table's changes.

use super::contents::TableContents;
use super::{Table, TableError, TableRow};
use crate::event::keep::Keep;
use arc_swap::Guard;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A reader of a table's changes: see [`Table::changes`].
pub struct TableChanges<Q, E> {
    pub(super) table: Table<Q, E>,
    /// The count of the table's events at the last read.
    pub(super) events: u64,
    pub(super) left_out: u64,
    /// The places of the rows of one read, kept for its memory.
    pub(super) places: Vec<u32>,
}

/// Contents that have changed since the last read; or the end: `None` if all was read, or the error.
type NewContents<Q, E> = Result<Guard<Arc<TableContents<Q, E>>>, Option<TableError>>;

impl<Q, E> fmt::Debug for TableChanges<Q, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "changes of {:?}", self.table)
    }
}

impl<Q, E> TableChanges<Q, E>
where
    Q: Hash + Eq + Clone + Send + Sync + 'static,
    E: Keep + Send + Sync + 'static,
{
    /// Calls `each` with the last event of each key that has changed since the last read, in the order of their last
    /// changes. If none has, waits for at most `limit`. Returns the count of keys, 0 if none has changed, or `None` once
    /// the topic was closed and all was read.
    ///
    /// If `each` panics, the next read begins anew with the same changes.
    ///
    /// # Errors
    /// The table has failed.
    pub fn read(
        &mut self,
        limit: Duration,
        mut each: impl FnMut(TableRow<'_, Q, E>),
    ) -> Result<Option<usize>, TableError> {
        let Self { table, events, left_out, places } = self;
        let state = table.state();
        let look = || -> Option<NewContents<Q, E>> {
            // The end is read first: what was shown before it is seen.
            let end = state.end();
            let contents = state.load();
            match end {
                Some(Err(cause)) => Some(Err(Some(cause.clone()))),
                _ if contents.events > *events => Some(Ok(contents)),
                Some(Ok(())) => Some(Err(None)),
                None => None,
            }
        };
        let found = match look() {
            None if limit.is_zero() => return Ok(Some(0)),
            None => state.wait(Instant::now().checked_add(limit), look),
            found => found,
        };
        let contents = match found {
            None => return Ok(Some(0)),
            Some(Err(None)) => return Ok(None),
            Some(Err(Some(cause))) => return Err(cause),
            Some(Ok(contents)) => contents,
        };
        places.clear();
        places.extend(contents.changed_since(*events));
        for &place in places.iter().rev() {
            each(TableRow::of(&contents.rows()[place as usize]));
        }
        *left_out += contents.events - *events - places.len() as u64;
        *events = contents.events;
        Ok(Some(places.len()))
    }

    /// Count of events that the reads so far have left out, because a newer one of their key was there.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}
