//! A value that many threads read while, now and then, one replaces it.
//!
//! crossbeam-epoch keeps the old value alive for whoever is reading it at that moment. Under loom alone nothing is
//! reclaimed before the end, so that models of the orderings stay small; with `--cfg crossbeam_loom` beside it the
//! models run crossbeam-epoch itself. Models: `join` and `reclaim` in loom-tests.

use crate::ordering::Site;

pub(crate) use face::Shown;

#[cfg(any(not(loom), crossbeam_loom))]
mod face {
    use super::Site;
    use crossbeam_epoch::{Atomic, Guard, Owned};

    pub(crate) struct Shown<T> {
        current: Atomic<T>,
        /// A model starts from nothing, so its garbage cannot wait in the process-wide place.
        #[cfg(loom)]
        collector: crossbeam_epoch::Collector,
    }

    impl<T: Clone + Send + Sync + 'static> Shown<T> {
        pub(crate) fn new(value: T) -> Self {
            Self {
                current: Atomic::new(value),
                #[cfg(loom)]
                collector: crossbeam_epoch::Collector::new(),
            }
        }

        #[cfg(not(loom))]
        fn pin(&self) -> Guard {
            crossbeam_epoch::pin()
        }

        #[cfg(loom)]
        fn pin(&self) -> Guard {
            self.collector.register().pin()
        }

        /// The present value.
        pub(crate) fn get(&self, site: &Site) -> T {
            let guard = self.pin();
            let shared = self.current.load(site.get(), &guard);
            // SAFETY: never null, and the guard keeps alive what was current while it is pinned.
            unsafe { shared.deref() }.clone()
        }

        /// Replaces it.
        pub(crate) fn replace(&self, value: T, site: &Site) {
            let guard = self.pin();
            let old = self.current.swap(Owned::new(value), site.get(), &guard);
            // SAFETY: nobody can load the old value any more, and it was allocated by `Owned`.
            unsafe { guard.defer_destroy(old) };
        }
    }

    impl<T> Drop for Shown<T> {
        fn drop(&mut self) {
            let current = std::mem::replace(&mut self.current, Atomic::null());
            // SAFETY: nobody else has a part in this any more, and only `get` lent out what it shows.
            drop(unsafe { current.try_into_owned() });
        }
    }
}

#[cfg(all(loom, not(crossbeam_loom)))]
mod face {
    use super::Site;
    use crate::sync::AtomicU64;
    use std::sync::{Arc, Mutex};

    pub(crate) struct Shown<T> {
        /// Which of `values`. What the model sees.
        current: AtomicU64,
        values: Mutex<Vec<Arc<T>>>,
    }

    impl<T: Clone + Send + Sync + 'static> Shown<T> {
        pub(crate) fn new(value: T) -> Self {
            Self { current: AtomicU64::new(0), values: Mutex::new(vec![Arc::new(value)]) }
        }

        /// The present value.
        pub(crate) fn get(&self, site: &Site) -> T {
            let current = self.current.load(site.get());
            // Not cloned under the lock: cloning may be a step of the model.
            let value = Arc::clone(&self.values.lock().unwrap()[current as usize]);
            T::clone(&value)
        }

        /// Replaces it.
        pub(crate) fn replace(&self, value: T, site: &Site) {
            let index = {
                let mut values = self.values.lock().unwrap();
                values.push(Arc::new(value));
                values.len() - 1
            };
            self.current.swap(index as u64, site.get());
        }
    }
}
