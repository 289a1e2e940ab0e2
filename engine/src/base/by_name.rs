//! Values by name, listed in the order in which they were added.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values by name. Each value has a number: a hash map finds the number of a name, and a B-tree sorts the values by
/// their numbers. So the cost of finding, adding or removing a value grows only with the logarithm of their count.
pub(crate) struct ByName<V, N = String> {
    /// The number of each name's value in `in_order`.
    numbers: HashMap<N, u64>,
    in_order: BTreeMap<u64, V>,
    next: u64,
}

impl<V, N> Default for ByName<V, N> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), in_order: BTreeMap::new(), next: 0 }
    }
}

impl<V, N: Hash + Eq> ByName<V, N> {
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> Option<&V>
    where
        N: std::borrow::Borrow<Q>,
    {
        self.in_order.get(self.numbers.get(name)?)
    }

    pub(crate) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, name: &Q) -> Option<&mut V>
    where
        N: std::borrow::Borrow<Q>,
    {
        self.in_order.get_mut(self.numbers.get(name)?)
    }

    /// Returns the value of this name. If there is none, first adds the value that `make` returns, after all others.
    pub(crate) fn get_or_add(&mut self, name: N, make: impl FnOnce() -> V) -> &mut V {
        let number = *self.numbers.entry(name).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.in_order.entry(number).or_insert_with(make)
    }

    /// Removes and returns the value of this name if `unneeded` returns true for it. `None` if there is no such value
    /// or it stays.
    pub(crate) fn remove_if<Q: Hash + Eq + ?Sized>(&mut self, name: &Q, unneeded: impl FnOnce(&V) -> bool) -> Option<V>
    where
        N: std::borrow::Borrow<Q>,
    {
        let number = *self.numbers.get(name)?;
        self.in_order.get(&number).filter(|value| unneeded(value))?;
        self.numbers.remove(name);
        self.in_order.remove(&number)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.in_order.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::hash::Hasher;

    thread_local! {
        static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    /// A name that counts how often names are compared.
    #[derive(Clone, Eq)]
    struct Counted(usize);

    impl PartialEq for Counted {
        fn eq(&self, other: &Self) -> bool {
            COMPARED.set(COMPARED.get() + 1);
            self.0 == other.0
        }
    }

    impl Hash for Counted {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    #[test]
    fn a_name_is_found_without_a_look_at_all_others() {
        let mut names = ByName::<usize, Counted>::default();
        (0..4096).for_each(|it| _ = names.get_or_add(Counted(it), || it));
        COMPARED.set(0);
        assert!((0..4096).all(|it| names.get(&Counted(it)) == Some(&it)));
        // A search compares the matching name, and rarely another name, of whose hash some bits are equal.
        assert!(COMPARED.get() < 2 * 4096, "{} comparisons of 4,096 names", COMPARED.get());
        assert_eq!(names.remove_if(&Counted(7), |_| false), None);
        assert_eq!(names.remove_if(&Counted(7), |_| true), Some(7));
        assert!(names.get(&Counted(7)).is_none());
        names.get_or_add(Counted(7), || 7);
        assert!(names.values().copied().eq((0..4096).filter(|it| *it != 7).chain([7])), "in the order of adding");
    }
}
