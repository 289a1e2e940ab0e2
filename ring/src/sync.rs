//! The one door to atomics, cells, locks, threads, spin hints, fences and the clock.
//!
//! It has three faces. Production uses `std`; `--cfg loom` puts the model checker behind the same names, and
//! `--cfg shuttle` the randomised scheduler. Nothing else in ring names one of the three.

#[cfg(any(loom, shuttle))]
pub use face::Instant;
pub(crate) use face::*;

#[cfg(not(any(loom, shuttle)))]
mod face {
    pub(crate) use std::cell::UnsafeCell;
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};
    pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub(crate) use std::thread;
    pub(crate) use std::time::Instant;
}

#[cfg(loom)]
mod face {
    pub(crate) use crate::thorough::{AtomicU32, AtomicU64};
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{Ordering, fence};
    pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub(crate) use loom::thread;
    pub use still::Instant;

    /// loom has no clock: time stands still, so no deadline passes.
    mod still {
        use std::time::Duration;

        /// A point in a time that never moves.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct Instant;

        impl Instant {
            /// The only instant there is.
            pub fn now() -> Self {
                Self
            }

            /// Never zero: a deadline does not pass in a model.
            pub fn saturating_duration_since(&self, _: Self) -> Duration {
                Duration::from_secs(1)
            }

            /// The same instant.
            pub fn checked_add(&self, _: Duration) -> Option<Self> {
                Some(Self)
            }
        }
    }
}

#[cfg(all(shuttle, not(loom)))]
mod face {
    pub(crate) use shuttle::hint::spin_loop;
    pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
    pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub(crate) use shuttle::thread;
    pub(crate) use std::cell::UnsafeCell;
    pub use virtual_clock::Instant;

    /// A clock that each look moves on by a microsecond: deadlines pass, and a schedule can be replayed.
    mod virtual_clock {
        use std::cell::Cell;
        use std::time::Duration;

        // Shuttle runs every thread of a test on one thread of the system.
        thread_local! { static MICROSECONDS: Cell<u64> = const { Cell::new(0) } }

        /// A point in virtual time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct Instant(u64);

        impl Instant {
            /// Moves the clock on and reads it.
            pub fn now() -> Self {
                Self(MICROSECONDS.with(|clock| {
                    clock.set(clock.get() + 1);
                    clock.get()
                }))
            }

            /// How long after `earlier` this is; zero if it is not.
            pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
                Duration::from_micros(self.0.saturating_sub(earlier.0))
            }

            /// This instant and `later`.
            pub fn checked_add(&self, later: Duration) -> Option<Self> {
                Some(Self(self.0.saturating_add(later.as_micros() as u64)))
            }
        }
    }
}

/// Locks, and takes the lock over from a thread that panicked with it: what our locks guard is valid between
/// any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A number that this process has not given out yet. Outside every model: it orders nothing and is seen by nobody.
pub(crate) fn next_id() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, crate::ordering::COUNT.order)
}

/// Waits until somebody notifies, but no longer than `limit`, or for nothing. shuttle's own wait never times out: there
/// this always comes back for nothing, and the caller looks at the clock.
pub(crate) fn wait_at_most<'m, T>(
    condition: &Condvar,
    mutex: &'m Mutex<T>,
    guard: MutexGuard<'m, T>,
    limit: std::time::Duration,
) -> MutexGuard<'m, T> {
    #[cfg(shuttle)]
    {
        let _ = (condition, limit);
        drop(guard);
        thread::yield_now();
        lock(mutex)
    }
    #[cfg(not(shuttle))]
    {
        let _ = mutex;
        condition.wait_timeout(guard, limit).unwrap_or_else(std::sync::PoisonError::into_inner).0
    }
}
