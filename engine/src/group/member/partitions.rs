//! The partitions that a member has.

use crate::base::ids::TopicPartition;
use crate::base::kind::Producers;
use crate::group::assigned_partition::AssignedPartition;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

/// The partitions that a member has. The index of a partition, its *place*, is its number as a source of the member's
/// [`MultiWait`](crate::base::multi_wait::MultiWait). A place is `None` after its partition was taken, until another
/// partition gets the place. Partitions must be added and taken only with the methods of this type, which keep the list
/// of free places and the index by name.
pub(in crate::group) struct MemberPartitions<E, K: Producers> {
    places: Vec<Option<AssignedPartition<E, K>>>,
    free: Vec<usize>,
    by_name: HashMap<TopicPartition, usize>,
}

impl<E, K: Producers> Default for MemberPartitions<E, K> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new(), by_name: HashMap::new() }
    }
}

impl<E, K: Producers> MemberPartitions<E, K> {
    /// Adds a partition at a free place, and returns the place.
    pub(super) fn add(&mut self, assigned: AssignedPartition<E, K>) -> usize {
        let place = self.free.pop().unwrap_or(self.places.len());
        if place == self.places.len() {
            self.places.push(None);
        }
        self.by_name.insert(assigned.name.clone(), place);
        self.places[place] = Some(assigned);
        place
    }

    /// Removes and returns the partition at this place; `None` if the place is free.
    pub(super) fn take(&mut self, place: usize) -> Option<AssignedPartition<E, K>> {
        let taken = self.places[place].take()?;
        self.by_name.remove(&taken.name);
        self.free.push(place);
        Some(taken)
    }

    /// Removes and returns all partitions.
    pub(super) fn take_all(&mut self) -> Vec<AssignedPartition<E, K>> {
        std::mem::take(self).places.into_iter().flatten().collect()
    }

    /// The place of a partition; `None` if the member does not have it.
    pub(in crate::group) fn find(&self, name: &TopicPartition) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}

impl<E, K: Producers> Deref for MemberPartitions<E, K> {
    type Target = [Option<AssignedPartition<E, K>>];

    fn deref(&self) -> &Self::Target {
        &self.places
    }
}

impl<E, K: Producers> DerefMut for MemberPartitions<E, K> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.places
    }
}
