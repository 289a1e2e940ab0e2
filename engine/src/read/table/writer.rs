//! The thread of a table, which reads every event and keeps the last of each key.
//!
//! Readers read one copy of the contents. The thread changes the other, and shows it to the readers after each part that
//! it has read. Then it may change the copy that was shown before, as soon as no reader holds it. It never waits for
//! readers: while they hold that copy it gathers the newest event of each key beside it, and after a while it makes a new
//! copy.

use super::TableError;
use super::contents::TableContents;
use super::state::TableState;
use crate::base::kind::Producers;
use crate::event::keep::Keep;
use crate::read::conflate::newest::NewestEvents;
use crate::read::replay::Replay;
use crate::read::{At, PAUSE, Subscriber};
use foldhash::fast::RandomState;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most parts that the thread reads while more is there, before it shows what it has read. The other copy then takes each key
/// once, however often it has changed.
const PARTS_SHOWN: usize = 16;

/// How long the thread waits for readers to let the copy go that it wants to change, before it makes a new one.
const COPY_AFTER: Duration = Duration::from_millis(10);

/// The time between two looks if they have let it go.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A reader of all events of a topic.
pub(super) trait TableSource<E> {
    /// Calls `each` with the next events. Waits for them for at most `limit`. The count of events, or `None` at the end
    /// of the topic.
    fn read(&mut self, limit: Duration, each: impl FnMut(&E, At)) -> Result<Option<usize>, TableError>;

    /// The next offset of the partition; `None` if the partition is not read.
    fn position(&self, partition: u32) -> Option<u64>;
}

impl<E: Send + Sync + 'static, K: Producers> TableSource<E> for Subscriber<E, K> {
    fn read(&mut self, limit: Duration, mut each: impl FnMut(&E, At)) -> Result<Option<usize>, TableError> {
        let Some(mut batch) = self.poll(limit)? else { return Ok(None) };
        let mut read = 0;
        for (event, at) in &mut batch {
            each(event, at);
            read += 1;
        }
        Ok(Some(read))
    }

    fn position(&self, partition: u32) -> Option<u64> {
        Subscriber::position(self, partition)
    }
}

impl<E: Send + Sync + 'static, K: Producers> TableSource<E> for Replay<E, K> {
    fn read(&mut self, limit: Duration, each: impl FnMut(&E, At)) -> Result<Option<usize>, TableError> {
        Ok(Replay::read(self, limit, each)?)
    }

    fn position(&self, partition: u32) -> Option<u64> {
        Replay::position(self, partition)
    }
}

/// The table's side of its thread.
pub(super) struct TableWriter<Q, E> {
    state: Arc<TableState<Q, E>>,
    /// The copy that is not shown. Readers may hold it for a while after it was shown.
    spare: Arc<TableContents<Q, E>>,
    /// What was read while readers held `spare`.
    pending: NewestEvents<Q, E>,
    /// When the first of `pending` was read; `None` if there is nothing.
    since: Option<Instant>,
    /// The greatest count of keys.
    keys: usize,
    is_full: bool,
}

impl<Q, E> TableWriter<Q, E>
where
    Q: Hash + Eq + Clone + Send + Sync + 'static,
    E: Keep + Send + Sync + 'static,
{
    pub(super) fn new(state: Arc<TableState<Q, E>>, hasher: RandomState, keys: usize) -> Self {
        let spare = Arc::new(TableContents::new(hasher.clone()));
        Self { state, spare, pending: NewestEvents::new(hasher), since: None, keys, is_full: false }
    }

    /// Reads `source` to its end, or until the last handle of the table is dropped.
    pub(super) fn run(
        &mut self,
        source: &mut impl TableSource<E>,
        mut key: impl FnMut(&E) -> Q,
    ) -> Result<(), TableError> {
        loop {
            let limit = if self.since.is_some() { LOOK_EVERY } else { Duration::MAX };
            let mut read = self.read(source, limit, &mut key);
            for _ in 1..PARTS_SHOWN {
                if self.is_full
                    || self.has_many_pending()
                    || !matches!(read, Ok(Some(1..)))
                    || self.state.is_abandoned()
                {
                    break;
                }
                read = self.read(source, PAUSE, &mut key);
            }
            if self.state.is_abandoned() {
                return Ok(());
            }
            // What was read before an error or the end is shown first.
            let is_last = !matches!(read, Ok(Some(_)));
            let is_late = self.since.is_some_and(|since| since.elapsed() >= COPY_AFTER);
            let next = (0..).map_while(|partition| source.position(partition)).collect();
            self.show(next, is_last || is_late || self.has_many_pending());
            if self.is_full {
                let TableState { topic, name, .. } = &*self.state;
                let (topic, table) = (topic.clone(), name.clone());
                return Err(TableError::TooManyKeys { topic, table, limit: self.keys });
            }
            if read?.is_none() {
                return Ok(());
            }
        }
    }

    /// Whether as many keys wait for a copy as the table may have: more may not be gathered.
    fn has_many_pending(&self) -> bool {
        self.pending.entries().len() >= self.keys
    }

    fn read(
        &mut self,
        source: &mut impl TableSource<E>,
        limit: Duration,
        key: &mut impl FnMut(&E) -> Q,
    ) -> Result<Option<usize>, TableError> {
        let Self { state, spare, pending, since, keys, is_full } = self;
        let mut free = free(state, spare).filter(|_| since.is_none());
        let read = source.read(limit, |event, at| {
            if *is_full {
                return;
            }
            match &mut free {
                Some(contents) => *is_full = !contents.put(key(event), event, at, 1, *keys),
                None => pending.put(key(event), event, at),
            }
        });
        if since.is_none() && !pending.entries().is_empty() {
            *since = Some(Instant::now());
        }
        read
    }

    /// Shows what was read to the readers, who then find the table at the offsets `next`. If they hold the copy that is
    /// to be changed, does nothing, or makes another copy if `copies`. A part with more keys than allowed is not shown:
    /// the table would stand at an offset whose event it does not have.
    fn show(&mut self, next: Vec<u64>, copies: bool) {
        let Self { state, spare, pending, since, keys, is_full } = self;
        if free(state, spare).is_none() {
            if !copies {
                return;
            }
            *spare = Arc::new(state.load().copy());
        }
        let Some(contents) = Arc::get_mut(spare) else { return };
        if since.take().is_some() {
            let mut entries: Vec<_> = pending.entries().iter().collect();
            // In each partition in the order of the offsets, as it would have been without the readers.
            entries.sort_unstable_by_key(|entry| (entry.at.partition, entry.at.offset));
            for entry in entries {
                *is_full |= !contents.put(entry.key.clone(), &entry.event, entry.at, entry.events, *keys);
                if *is_full {
                    break;
                }
            }
            pending.clear();
        }
        if *is_full {
            return;
        }
        let shown = state.load();
        let is_same = (shown.events, &shown.next) == (contents.events, &next);
        drop(shown);
        if !is_same {
            contents.next = next;
            contents.order();
            let before = state.show(Arc::clone(spare));
            *spare = before;
        }
    }
}

/// The copy that is not shown, in the state of the one that is or a later one; `None` while readers hold it.
fn free<'s, Q, E>(
    state: &TableState<Q, E>,
    spare: &'s mut Arc<TableContents<Q, E>>,
) -> Option<&'s mut TableContents<Q, E>>
where
    Q: Hash + Eq + Clone,
    E: Keep,
{
    let contents = Arc::get_mut(spare)?;
    let shown = state.load();
    if contents.events < shown.events {
        contents.catch_up(&shown);
    }
    Some(contents)
}
