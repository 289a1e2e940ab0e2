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
    use crossbeam_epoch::{Atomic, Owned, pin};
    use kept::{Kept, copy, retire};

    pub(crate) struct Shown<T> {
        current: Atomic<Kept<T>>,
    }

    impl<T: Clone + Send + Sync + 'static> Shown<T> {
        pub(crate) fn new(value: T) -> Self {
            Self { current: Atomic::new(Kept::from(value)) }
        }

        /// The present value.
        #[cfg_attr(loom, track_caller)]
        pub(crate) fn get(&self, site: &Site) -> T {
            let guard = pin();
            let shared = self.current.load(site.get(), &guard);
            // SAFETY: never null, and the guard keeps alive what was current while it is pinned.
            copy(unsafe { shared.deref() })
        }

        /// Replaces it.
        #[cfg_attr(loom, track_caller)]
        pub(crate) fn replace(&self, value: T, site: &Site) {
            let guard = pin();
            let old = self.current.swap(Owned::new(Kept::from(value)), site.get(), &guard);
            // SAFETY: nobody can load the old value any more, and it was allocated by `Owned`.
            unsafe { retire(&guard, old) };
            // Else it would wait in this thread's bag, perhaps for good: this thread may never replace another one.
            guard.flush();
        }
    }

    impl<T> Drop for Shown<T> {
        fn drop(&mut self) {
            let current = std::mem::replace(&mut self.current, Atomic::null());
            // SAFETY: nobody else has a part in this any more, and only `get` lent out what it shows.
            drop(unsafe { current.try_into_owned() });
        }
    }

    #[cfg(not(loom))]
    mod kept {
        use crossbeam_epoch::{Guard, Shared};

        pub(super) type Kept<T> = T;

        pub(super) fn copy<T: Clone>(kept: &T) -> T {
            kept.clone()
        }

        /// # Safety
        /// Nobody can load it any more, and it was allocated by `Owned`.
        pub(super) unsafe fn retire<T: 'static>(guard: &Guard, old: Shared<'_, T>) {
            // SAFETY: the caller's promise.
            unsafe { guard.defer_destroy(old) };
        }
    }

    /// loom does not see memory that is freed. So what a model frees is marked, its memory is not given back, and
    /// whoever takes it looks at the mark.
    #[cfg(loom)]
    mod kept {
        use crate::fault::{Fault, fault};
        use crate::ordering::COUNT;
        use crossbeam_epoch::{Guard, Shared};
        use loom::sync::atomic::AtomicU32;
        use std::sync::{Arc, Mutex};

        pub(super) struct Kept<T> {
            freed: AtomicU32,
            value: Mutex<Option<Arc<T>>>,
        }

        impl<T> From<T> for Kept<T> {
            fn from(value: T) -> Self {
                Self { freed: AtomicU32::new(0), value: Mutex::new(Some(Arc::new(value))) }
            }
        }

        pub(super) fn copy<T: Clone>(kept: &Kept<T>) -> T {
            assert!(kept.freed.load(COUNT.get()) == 0, "what is taken was freed before");
            // Not cloned under the lock: cloning may be a step of the model.
            let value = kept.value.lock().unwrap().clone();
            value.map(|value| T::clone(&value)).unwrap_or_else(|| panic!("assertion: what is taken was freed before"))
        }

        /// # Safety
        /// As its namesake's.
        pub(super) unsafe fn retire<T: 'static>(guard: &Guard, old: Shared<'_, Kept<T>>) {
            let old = old.as_raw() as usize;
            let free = move || {
                // SAFETY: it was allocated by `Owned` and is never given back.
                let kept = unsafe { &*(old as *const Kept<T>) };
                kept.freed.store(1, COUNT.get());
                let value = kept.value.lock().unwrap().take();
                drop(value);
            };
            if fault(Fault::ReplacedGatingSetFreedAtOnce) {
                free();
            } else {
                // SAFETY: nothing is borrowed.
                unsafe { guard.defer_unchecked(free) };
            }
        }
    }
}

#[cfg(all(loom, not(crossbeam_loom)))]
mod face {
    use super::Site;
    use crate::sync::{AtomicU64, UnsafeCell};
    use std::sync::{Arc, Mutex};

    pub(crate) struct Shown<T> {
        /// Which of `values`. What the model sees.
        current: AtomicU64,
        values: Mutex<Vec<Arc<Value<T>>>>,
    }

    /// A value, and what stands for its memory in the model: written when it is made, read when it is taken.
    struct Value<T> {
        memory: UnsafeCell<()>,
        value: T,
    }

    // SAFETY: the cell holds nothing.
    unsafe impl<T: Sync> Sync for Value<T> {}

    impl<T> Value<T> {
        fn new(value: T) -> Arc<Self> {
            let made = Self { memory: Default::default(), value };
            made.memory.with_mut(|_| ());
            Arc::new(made)
        }
    }

    impl<T: Clone + Send + Sync + 'static> Shown<T> {
        pub(crate) fn new(value: T) -> Self {
            Self { current: AtomicU64::new(0), values: Mutex::new(vec![Value::new(value)]) }
        }

        /// The present value.
        #[cfg_attr(loom, track_caller)]
        pub(crate) fn get(&self, site: &Site) -> T {
            let current = self.current.load(site.get());
            // Not cloned under the lock: cloning may be a step of the model.
            let value = Arc::clone(&self.values.lock().unwrap()[current as usize]);
            value.memory.with(|_| ());
            T::clone(&value.value)
        }

        /// Replaces it.
        #[cfg_attr(loom, track_caller)]
        pub(crate) fn replace(&self, value: T, site: &Site) {
            let value = Value::new(value);
            let index = {
                let mut values = self.values.lock().unwrap();
                values.push(value);
                values.len() - 1
            };
            self.current.swap(index as u64, site.get());
        }
    }
}
