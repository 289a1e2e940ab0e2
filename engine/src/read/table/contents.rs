//! The contents of a table: the last event of each key, linked in the order of their changes.

use crate::event::keep::Keep;
use crate::read::At;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hash};

/// Stands for no place.
const NONE: u32 = u32::MAX;

/// The last event of each key. A table has two copies of it: readers read one while its thread changes the other.
///
/// The keys stand in a list, and a key keeps its place in it for ever. All places are linked in the order in which they
/// last changed. So the places that have changed since any moment are found by going back from the newest, at a cost
/// that does not grow with the count of keys. They are linked once before the contents are shown, however often they have
/// changed: the links of an event are three more places in memory.
pub(super) struct TableContents<Q, E> {
    rows: Vec<StoredRow<Q, E>>,
    /// The places in `rows`, by the hash of the key.
    index: HashTable<u32>,
    hasher: RandomState,
    /// The place that is linked last; `NONE` if there is none.
    newest: u32,
    /// The places that have changed since they were linked, each once.
    changed: Vec<u32>,
    /// The count of events when the places were linked.
    linked: u64,
    /// Count of events that the contents stand for.
    pub(super) events: u64,
    /// For each partition: the contents stand for every event below this offset.
    pub(super) next: Vec<u64>,
}

/// A key, its last event, and its place in the order of changes.
pub(super) struct StoredRow<Q, E> {
    hash: u64,
    pub(super) key: Q,
    pub(super) event: E,
    pub(super) at: At,
    /// The count of events of the table when this row was changed. No two rows have the same.
    version: u64,
    /// The places that were changed before and after this one, as they were linked. Both are `NONE` before that.
    older: u32,
    newer: u32,
}

impl<Q: Hash + Eq + Clone, E: Keep> TableContents<Q, E> {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            rows: Vec::new(),
            index: HashTable::new(),
            hasher,
            newest: NONE,
            changed: Vec::new(),
            linked: 0,
            events: 0,
            next: Vec::new(),
        }
    }

    /// A copy of everything.
    pub(super) fn copy(&self) -> Self {
        let mut copy = Self::new(self.hasher.clone());
        copy.catch_up(self);
        copy
    }

    /// Makes the key's last event `event`, which stands for `events` events of the key. False, without a change, if the
    /// key is new and there are `most` keys. [`order`](Self::order) must follow before the contents are shown.
    #[inline]
    pub(super) fn put(&mut self, key: Q, event: &E, at: At, events: u64, most: usize) -> bool {
        let hash = self.hasher.hash_one(&key);
        let version = self.events + events;
        match self.find(hash, &key) {
            Some(place) => {
                let row = &mut self.rows[place as usize];
                event.keep_in(&mut row.event);
                if row.version <= self.linked {
                    self.changed.push(place);
                }
                (row.at, row.version) = (at, version);
            }
            None if self.rows.len() >= most.min(NONE as usize) => return false,
            None => {
                let event = event.keep_copy();
                let place = self.push(StoredRow { hash, key, event, at, version, older: NONE, newer: NONE });
                self.changed.push(place);
            }
        }
        self.events = version;
        true
    }

    /// Links the places that have changed, in the order in which they last changed.
    pub(super) fn order(&mut self) {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_by_cached_key(|&place| self.rows[place as usize].version);
        changed.drain(..).for_each(|place| self.link(place));
        // Its memory serves again.
        self.changed = changed;
        self.linked = self.events;
    }

    /// Brings these contents, which are an earlier state of `newer`, to the state of `newer`. Both are in order.
    pub(super) fn catch_up(&mut self, newer: &Self) {
        debug_assert!(self.changed.is_empty() && newer.changed.is_empty());
        let changed: Vec<u32> = newer.changed_since(self.events).collect();
        // In the order of the changes, so that they are linked as they are in `newer`. A new key has the place that it
        // has there, so new keys come first and by their place.
        let old = self.rows.len();
        for row in &newer.rows[old..] {
            let StoredRow { hash, ref key, ref event, at, version, .. } = *row;
            let (key, event) = (key.clone(), event.keep_copy());
            self.push(StoredRow { hash, key, event, at, version, older: NONE, newer: NONE });
        }
        for &place in changed.iter().rev() {
            let from = &newer.rows[place as usize];
            if (place as usize) < old {
                let row = &mut self.rows[place as usize];
                from.event.keep_in(&mut row.event);
                (row.at, row.version) = (from.at, from.version);
            }
            self.link(place);
        }
        (self.events, self.linked) = (newer.events, newer.events);
        self.next.clone_from(&newer.next);
    }

    pub(super) fn get(&self, key: &Q) -> Option<&StoredRow<Q, E>> {
        self.find(self.hasher.hash_one(key), key).map(|place| &self.rows[place as usize])
    }

    #[inline]
    fn find(&self, hash: u64, key: &Q) -> Option<u32> {
        let is_it = |&place: &u32| {
            let row = &self.rows[place as usize];
            row.hash == hash && row.key == *key
        };
        self.index.find(hash, is_it).copied()
    }

    /// Adds a row, which is not linked.
    fn push(&mut self, row: StoredRow<Q, E>) -> u32 {
        let (hash, place) = (row.hash, self.rows.len() as u32);
        self.rows.push(row);
        let rows = &self.rows;
        self.index.insert_unique(hash, place, |&place| rows[place as usize].hash);
        place
    }
}

impl<Q, E> TableContents<Q, E> {
    pub(super) fn rows(&self) -> &[StoredRow<Q, E>] {
        &self.rows
    }

    /// The places that were changed after the table stood for `events` events; the newest first.
    pub(super) fn changed_since(&self, events: u64) -> impl Iterator<Item = u32> {
        let mut next = self.newest;
        std::iter::from_fn(move || {
            let place = next;
            let row = self.rows.get(place as usize).filter(|row| row.version > events)?;
            next = row.older;
            Some(place)
        })
    }

    /// Makes the place the newest, whether it was linked before or not.
    fn link(&mut self, place: u32) {
        if place == self.newest {
            return;
        }
        let StoredRow { older, newer: next, .. } = self.rows[place as usize];
        // Only the newest has none that is newer, and a place that was never linked.
        if let Some(newer) = self.rows.get_mut(next as usize) {
            newer.older = older;
            if let Some(older) = self.rows.get_mut(older as usize) {
                older.newer = next;
            }
        }
        let before = std::mem::replace(&mut self.newest, place);
        if let Some(before) = self.rows.get_mut(before as usize) {
            before.newer = place;
        }
        let row = &mut self.rows[place as usize];
        (row.older, row.newer) = (before, NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Row = (u8, u64, u64);

    /// The rows in the order of their last change.
    fn in_order(contents: &TableContents<u8, u64>, since: u64) -> Vec<Row> {
        let mut rows: Vec<_> = contents
            .changed_since(since)
            .map(|place| &contents.rows[place as usize])
            .map(|row| (row.key, row.event, row.at.offset))
            .collect();
        rows.reverse();
        rows
    }

    fn naive(events: &[(u8, u64)], since: usize) -> Vec<Row> {
        let last = |index: usize, key| events[index + 1..].iter().all(|later| later.0 != key);
        let rows = events.iter().enumerate().filter(|(index, event)| *index >= since && last(*index, event.0));
        rows.map(|(index, event)| (event.0, event.1, index as u64)).collect()
    }

    proptest! {
        #[test]
        fn both_copies_are_as_a_naive_map_and_find_what_has_changed(
            parts in prop::collection::vec(prop::collection::vec((0..30_u8, any::<u64>()), 0..40), 1..10),
            since in any::<prop::sample::Index>(),
        ) {
            let hasher = RandomState::default();
            let (mut one, mut other) = (TableContents::new(hasher.clone()), TableContents::new(hasher));
            let mut all: Vec<(u8, u64)> = Vec::new();
            for part in parts {
                one.catch_up(&other);
                for event in part {
                    prop_assert!(one.put(event.0, &event.1, At::new(0, all.len() as u64, false), 1, 30));
                    all.push(event);
                }
                one.order();
                std::mem::swap(&mut one, &mut other);
            }
            one.catch_up(&other);
            let since = since.index(all.len() + 1);
            for contents in [&one, &other, &one.copy()] {
                prop_assert_eq!(in_order(contents, 0), naive(&all, 0));
                prop_assert_eq!(in_order(contents, since as u64), naive(&all, since));
                prop_assert_eq!(contents.events, all.len() as u64);
                for row in naive(&all, 0) {
                    prop_assert_eq!(contents.get(&row.0).map(|row| row.event), Some(row.1));
                }
            }
            prop_assert_eq!(one.get(&99).map(|row| row.event), None);
        }
    }

    #[test]
    fn a_key_beyond_the_limit_is_refused_and_a_known_one_is_not() {
        let mut contents = TableContents::new(RandomState::default());
        let at = |offset| At::new(0, offset, false);
        assert!(contents.put(1, &1, at(0), 1, 2) && contents.put(2, &2, at(1), 1, 2));
        assert!(!contents.put(3, &3, at(2), 1, 2) && contents.put(1, &4, at(3), 1, 2));
        assert_eq!((contents.rows().len(), contents.events), (2, 3));
    }
}
