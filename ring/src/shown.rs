//! A value that many threads read, and that one thread at a time replaces now and then.
//!
//! crossbeam-epoch keeps the old value alive while a thread is still reading it. Under loom alone no value is reclaimed
//! before the end, so that models of the orderings stay small; with `--cfg crossbeam_loom` as well, the models run
//! crossbeam-epoch itself. Models: `join` and `reclaim` in loom-tests.

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
            // SAFETY: the pointer is never null, and while the guard is pinned it keeps the value alive that was
            // current then.
            copy(unsafe { shared.deref() })
        }

        /// Replaces the value.
        #[cfg_attr(loom, track_caller)]
        pub(crate) fn replace(&self, value: T, site: &Site) {
            let guard = pin();
            let old = self.current.swap(Owned::new(Kept::from(value)), site.get(), &guard);
            // SAFETY: no thread can load the old value any more, and it was allocated by `Owned`.
            unsafe { retire(&guard, old) };
            // Without the flush, the old value would stay in this thread's list of garbage, perhaps for ever: this
            // thread may never replace another value.
            guard.flush();
        }
    }

    impl<T> Drop for Shown<T> {
        fn drop(&mut self) {
            let current = std::mem::replace(&mut self.current, Atomic::null());
            // SAFETY: `self` is borrowed mutably, so no other thread uses it, and the value was allocated by `Owned`.
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
        /// No thread can load the value any more, and it was allocated by `Owned`.
        pub(super) unsafe fn retire<T: 'static>(guard: &Guard, old: Shared<'_, T>) {
            // SAFETY: the caller guarantees that no thread can load the value any more.
            unsafe { guard.defer_destroy(old) };
        }
    }

    /// A form of the value for models. loom does not detect use of freed memory, so a model only marks freed values and
    /// keeps their memory, and a thread that takes a value checks the mark.
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
            // Cloned after the lock is released, because cloning may be a step of the model.
            let value = kept.value.lock().unwrap().clone();
            value.map(|value| T::clone(&value)).unwrap_or_else(|| panic!("assertion: what is taken was freed before"))
        }

        /// # Safety
        /// As for the `retire` of production above.
        pub(super) unsafe fn retire<T: 'static>(guard: &Guard, old: Shared<'_, Kept<T>>) {
            let old = old.as_raw() as usize;
            let free = move || {
                // SAFETY: the value was allocated by `Owned` and its memory is never freed.
                let kept = unsafe { &*(old as *const Kept<T>) };
                kept.freed.store(1, COUNT.get());
                let value = kept.value.lock().unwrap().take();
                drop(value);
            };
            if fault(Fault::ReplacedGatingSetFreedAtOnce) {
                free();
            } else {
                // SAFETY: the closure borrows nothing.
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
        /// The index of the present value in `values`. The model explores the accesses to this number.
        current: AtomicU64,
        values: Mutex<Vec<Arc<Value<T>>>>,
    }

    /// A value, with a cell that represents its memory in the model: written when the value is created, read when it is
    /// taken.
    struct Value<T> {
        memory: UnsafeCell<()>,
        value: T,
    }

    // SAFETY: the cell holds no data.
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
            // Cloned after the lock is released, because cloning may be a step of the model.
            let value = Arc::clone(&self.values.lock().unwrap()[current as usize]);
            value.memory.with(|_| ());
            T::clone(&value.value)
        }

        /// Replaces the value.
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
