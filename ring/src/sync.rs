//! The atomics, cells, locks, threads, spin hints, fences and clock of the ring's protocol. Its modules take them from
//! here.
//!
//! This module has three versions. Production uses `std`; `--cfg loom` uses the model checker under the same names, and
//! `--cfg shuttle` the randomised scheduler. Code that the models do not explore, such as pinning, uses `std` directly.
//! `shown` and `thorough` also use loom directly.

#[cfg(any(loom, shuttle))]
pub use face::Instant;
pub(crate) use face::*;

#[cfg(not(any(loom, shuttle)))]
mod face {
    pub(crate) use std::cell::UnsafeCell;
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};
    pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
    #[cfg(all(unix, not(miri)))]
    pub(crate) use std::sync::{Once, Weak};
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

    /// A clock for loom, which has none. Time stands still in a model, so no deadline passes.
    mod still {
        use std::time::Duration;

        /// The only point in time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct Instant;

        impl Instant {
            /// Returns the only instant.
            pub fn now() -> Self {
                Self
            }

            /// Always one second, so that no deadline passes in a model.
            pub fn saturating_duration_since(&self, _: Self) -> Duration {
                Duration::from_secs(1)
            }

            /// Returns the only instant.
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

    /// A clock for shuttle that advances by a microsecond at each reading, so that deadlines pass, and a schedule can
    /// be replayed.
    mod virtual_clock {
        use std::cell::Cell;
        use std::time::Duration;

        // A thread-local suffices: shuttle runs all threads of a test on one thread of the system.
        thread_local! { static MICROSECONDS: Cell<u64> = const { Cell::new(0) } }

        /// A point in virtual time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct Instant(u64);

        impl Instant {
            /// Advances the clock by a microsecond and returns its time.
            pub fn now() -> Self {
                Self(MICROSECONDS.with(|clock| {
                    clock.set(clock.get() + 1);
                    clock.get()
                }))
            }

            /// The time from `earlier` to this instant; zero if `earlier` is later.
            pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
                Duration::from_micros(self.0.saturating_sub(earlier.0))
            }

            /// The instant `later` after this one.
            pub fn checked_add(&self, later: Duration) -> Option<Self> {
                Some(Self(self.0.saturating_add(later.as_micros() as u64)))
            }
        }
    }
}

/// Locks a mutex, even if a thread has panicked while it held the lock: the data under the crate's locks are valid
/// between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Returns an id that was not used before in this process. It orders nothing, and models do not explore it.
pub(crate) fn next_id() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, crate::ordering::COUNT.order)
}

/// Lets `nap` pass. In a model no time passes, and another thread runs.
pub(crate) fn sleep(nap: std::time::Duration) {
    #[cfg(any(loom, shuttle))]
    {
        let _ = nap;
        thread::yield_now();
    }
    #[cfg(not(any(loom, shuttle)))]
    thread::sleep(nap);
}

/// Waits for a notification of `condition` for at most `limit`. May return early. shuttle's wait never times out, so
/// under shuttle this always returns early, and the caller checks the clock.
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
