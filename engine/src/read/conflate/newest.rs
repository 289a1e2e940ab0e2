//! The newest event of each key, in the order in which the keys first changed.

use crate::event::keep::Keep;
use crate::read::At;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hash};

/// The newest event of each key since the last look.
pub(crate) struct NewestEvents<Q, E> {
    /// One entry for each key, in the order in which the keys came.
    entries: Vec<NewestEvent<Q, E>>,
    /// The indexes of `entries`, by the hash of the key.
    index: HashTable<u32>,
    hasher: RandomState,
    /// Count of events that were added, those of which only a newer one is kept included.
    events: u64,
    /// For each partition: every event below this offset was added.
    pub(super) next: Vec<u64>,
}

pub(crate) struct NewestEvent<Q, E> {
    hash: u64,
    pub(crate) key: Q,
    pub(crate) event: E,
    pub(crate) at: At,
    /// Count of the key's events that were added, 1 or more. All but the last are left out.
    pub(crate) events: u64,
}

impl<Q: Hash + Eq, E: Keep> NewestEvents<Q, E> {
    /// No events. Two collections that are [merged](Self::absorb) have the same `hasher`.
    pub(in crate::read) fn new(hasher: RandomState) -> Self {
        Self { entries: Vec::new(), index: HashTable::new(), hasher, events: 0, next: Vec::new() }
    }

    /// Adds an event, which is newer than all events that were added before.
    #[inline]
    pub(in crate::read) fn put(&mut self, key: Q, event: &E, at: At) {
        let hash = self.hasher.hash_one(&key);
        match self.find(hash, &key) {
            Some(known) => {
                event.keep_in(&mut known.event);
                (known.at, known.events) = (at, known.events + 1);
            }
            None => self.push(NewestEvent { hash, key, event: event.keep_copy(), at, events: 1 }),
        }
        self.events += 1;
    }

    /// Moves all events of `newer` here. They are newer than the events here.
    pub(super) fn absorb(&mut self, newer: &mut Self) {
        // The index first: a drop of an old event that panics below leaves no index without its entry.
        newer.index.clear();
        self.events += std::mem::take(&mut newer.events);
        self.next.clone_from(&newer.next);
        for entry in newer.entries.drain(..) {
            match self.find(entry.hash, &entry.key) {
                Some(known) => {
                    (known.at, known.events) = (entry.at, known.events + entry.events);
                    known.event = entry.event;
                }
                None => self.push(entry),
            }
        }
    }

    #[inline]
    fn find(&mut self, hash: u64, key: &Q) -> Option<&mut NewestEvent<Q, E>> {
        let Self { entries, index, .. } = self;
        let is_it = |&place: &u32| {
            let entry = &entries[place as usize];
            entry.hash == hash && entry.key == *key
        };
        index.find(hash, is_it).copied().map(|place| &mut entries[place as usize])
    }

    fn push(&mut self, entry: NewestEvent<Q, E>) {
        let (hash, place) = (entry.hash, self.entries.len() as u32);
        self.entries.push(entry);
        let entries = &self.entries;
        self.index.insert_unique(hash, place, |&place| entries[place as usize].hash);
    }
}

impl<Q, E> NewestEvents<Q, E> {
    /// The events, in the order in which their keys first changed.
    pub(crate) fn entries(&self) -> &[NewestEvent<Q, E>] {
        &self.entries
    }

    /// Count of events that were added and are not among [`entries`](Self::entries), because a newer one of their key
    /// is.
    pub(crate) fn left_out(&self) -> u64 {
        self.events - self.entries.len() as u64
    }

    pub(in crate::read) fn clear(&mut self) {
        self.index.clear();
        self.events = 0;
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(offset: u64) -> At {
        At::new(0, offset, false)
    }

    /// The naive map: a list of keys in the order of their first change, searched from its start.
    fn naive(events: &[(u8, u64)]) -> Vec<(u8, u64, u64, u64)> {
        let mut keys: Vec<(u8, u64, u64, u64)> = Vec::new();
        for (offset, &(key, value)) in events.iter().enumerate() {
            match keys.iter_mut().find(|known| known.0 == key) {
                Some(known) => (known.1, known.2, known.3) = (value, offset as u64, known.3 + 1),
                None => keys.push((key, value, offset as u64, 1)),
            }
        }
        keys
    }

    fn shown(newest: &NewestEvents<u8, u64>) -> Vec<(u8, u64, u64, u64)> {
        newest.entries().iter().map(|it| (it.key, it.event, it.at.offset, it.events)).collect()
    }

    proptest! {
        #[test]
        fn parts_that_are_merged_are_as_a_naive_map_of_all(
            parts in prop::collection::vec(prop::collection::vec((0..40_u8, any::<u64>()), 0..60), 0..8)
        ) {
            let hasher = RandomState::default();
            let (mut all, mut part) = (NewestEvents::new(hasher.clone()), NewestEvents::new(hasher));
            let mut offset = 0;
            for events in &parts {
                for &(key, value) in events {
                    part.put(key, &value, at(offset));
                    offset += 1;
                }
                part.next = vec![offset];
                all.absorb(&mut part);
                prop_assert!(part.entries().is_empty() && part.left_out() == 0);
            }
            let expected = naive(&parts.concat());
            prop_assert_eq!(shown(&all), expected.clone());
            prop_assert_eq!(all.left_out(), offset - expected.len() as u64);
            all.clear();
            prop_assert!(all.entries().is_empty() && all.left_out() == 0);
            all.put(7, &1, at(offset));
            prop_assert_eq!(shown(&all), vec![(7, 1, offset, 1)]);
        }
    }
}
