//! Atomics for thorough loom models, which use them through [`crate::sync`].
//!
//! loom tries another order of two accesses only if the later one finds the earlier one as the *last access* of the
//! atomic, and loom 0.7 remembers one such access. So a load hides an earlier load of another thread from the store
//! that follows, even if the storing thread itself did the load, as in every loop around an exchange. The order in
//! which the other thread loads after the store is then never tried, and the model passes without it. The test `litmus`
//! in loom-tests shows that in five lines.
//!
//! In a thorough model, each thread's loads therefore also load a shadow of that thread's own, and a store first stores
//! to the shadows of the threads that loaded. The values of shadows are never used, and the accesses are relaxed. So a
//! shadow orders nothing, but is a last access that no other load overwrites. The price is many more schedules, so a
//! model must request it.

use crate::ordering::{COUNT, Ordering};
use loom::sync::atomic;
use std::cell::Cell;
use std::hash::{Hash, Hasher};

/// The most threads of a loom model.
const THREADS: usize = 5;

/// One thread's shadow of one atomic.
#[derive(Debug, Default)]
struct Shadow {
    access: atomic::AtomicUsize,
    /// True if the thread has loaded the atomic since the last store by another thread. Determined by the schedule
    /// alone, so loom can replay it.
    is_ahead: Cell<bool>,
}

// A thread-local suffices: loom runs all threads of a model on one thread of the system.
thread_local! { static THOROUGH: Cell<bool> = const { Cell::new(false) } }

/// Sets whether atomics that this thread creates from now on have shadows.
pub fn set(thorough: bool) {
    THOROUGH.set(thorough);
}

/// A shadow for each thread in a thorough model; otherwise `None`.
#[derive(Debug)]
struct Shadows(Option<Box<[Shadow; THREADS]>>);

// SAFETY: a model runs all its threads in turn on one thread of the system, and switches only inside loom's calls.
unsafe impl Sync for Shadows {}
// SAFETY: a model moves no value from one thread of the system to another.
unsafe impl Send for Shadows {}

impl Shadows {
    fn new() -> Self {
        Self(THOROUGH.get().then(Box::default))
    }

    fn load(&self) {
        let Some(shadows) = &self.0 else { return };
        let shadow = &shadows[this_thread()];
        shadow.is_ahead.set(true);
        shadow.access.load(COUNT.order);
    }

    fn store(&self) {
        let Some(shadows) = &self.0 else { return };
        let own = this_thread();
        for (thread, shadow) in shadows.iter().enumerate() {
            if thread != own && shadow.is_ahead.replace(false) {
                shadow.access.store(0, COUNT.order);
            }
        }
    }
}

/// The number of the calling thread in the model, from 0, taken from its `ThreadId`: loom hashes the number last.
fn this_thread() -> usize {
    struct Last(usize);
    impl Hasher for Last {
        fn finish(&self) -> u64 {
            self.0 as u64
        }
        fn write(&mut self, _: &[u8]) {}
        fn write_usize(&mut self, number: usize) {
            self.0 = number;
        }
    }
    let mut last = Last(THREADS);
    loom::thread::current().id().hash(&mut last);
    last.0
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        /// As its namesake in `std`.
        #[derive(Debug)]
        pub struct $name {
            inner: atomic::$name,
            shadows: Shadows,
        }

        impl $name {
            /// As its namesake in `std`.
            pub fn new(value: $value) -> Self {
                Self { inner: atomic::$name::new(value), shadows: Shadows::new() }
            }

            /// As its namesake in `std`.
            pub fn load(&self, order: Ordering) -> $value {
                self.shadows.load();
                self.inner.load(order)
            }

            fn to_store(&self) -> &atomic::$name {
                self.shadows.store();
                &self.inner
            }

            /// As its namesake in `std`.
            pub fn store(&self, value: $value, order: Ordering) {
                self.to_store().store(value, order);
            }

            /// As its namesake in `std`.
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.to_store().swap(value, order)
            }

            /// As its namesake in `std`.
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.to_store().fetch_add(value, order)
            }

            /// As its namesake in `std`.
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.to_store().fetch_sub(value, order)
            }

            /// As its namesake in `std`.
            pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.to_store().fetch_and(value, order)
            }

            /// As its namesake in `std`.
            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.to_store().fetch_or(value, order)
            }

            /// As its namesake in `std`.
            pub fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                self.to_store().fetch_max(value, order)
            }

            /// As its namesake in `std`.
            pub fn compare_exchange(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.to_store().compare_exchange(from, to, success, failure)
            }

            /// As its namesake in `std`.
            pub fn compare_exchange_weak(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.to_store().compare_exchange_weak(from, to, success, failure)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
