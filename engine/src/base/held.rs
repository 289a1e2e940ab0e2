//! Locks that defer the wake-ups of tasks until they are released, because a waker is user code.
//!
//! The rule of the crate is that no lock is held while user code runs. User code that returns a value, such as the
//! clock, is called before the lock is taken; user code that is notified is called after the release. The one exception
//! is a queue that copies an event out of its slot, or writes a dead letter: see [`inside`].

pub(crate) use slipring_ring::internal::wake;
use slipring_ring::internal::{Held, Panic, caught};
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A held lock. Wakers and `tracing` subscribers that this thread would call while it holds the lock are called after
/// the lock is released.
pub(crate) struct Locked<'l, T> {
    // Declared first, so that the lock is released before the drop of `held` calls the deferred wakers.
    guard: MutexGuard<'l, T>,
    held: Held,
}

/// Takes a lock, also if a thread that held it has panicked. Until the lock is dropped, this thread's calls of wakers
/// are deferred.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> Locked<'_, T> {
    let held = Held::new();
    Locked { guard: mutex.lock().unwrap_or_else(PoisonError::into_inner), held }
}

thread_local! {
    /// True while this thread runs user code under a queue's lock: see [`inside`].
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` under a queue's lock: code of an event's type, or user code that a dead letter needs, which cannot run
/// outside of the lock. A panic of `work` is caught and returned. If `work` calls a queue, [`refuse_inside`] panics,
/// because the thread would wait for the lock that it holds.
pub(crate) fn inside<R>(work: impl FnOnce() -> R) -> Result<R, Panic> {
    let outer = IS_INSIDE.replace(true);
    let done = caught(work);
    IS_INSIDE.set(outer);
    done
}

/// Panics in a thread that runs code [`inside`] a queue's lock, as that code must not call a queue.
///
/// # Panics
/// If the thread runs code [`inside`] a queue's lock.
#[inline]
pub(crate) fn refuse_inside() {
    assert!(
        !IS_INSIDE.get(),
        "the code of an event's type called a queue while a queue ran it: it would wait for itself"
    );
}

impl<'l, T> Locked<'l, T> {
    /// Releases the lock, waits for a notification of `door` for at most `most` (`None`: without limit), and takes the
    /// lock again. If wakers are deferred, calls them first and may return without waiting. The caller checks its
    /// condition again in any case, because wake-ups may be spurious.
    pub(crate) fn wait(self, mutex: &'l Mutex<T>, door: &Condvar, most: Option<Duration>) -> Self {
        let mut locked = self;
        if Held::keeps_something() {
            drop(locked);
            locked = lock(mutex);
            if !Held::keeps_something() {
                return locked;
            }
        }
        let Self { guard, held } = locked;
        let guard = match most {
            None => door.wait(guard).unwrap_or_else(PoisonError::into_inner),
            Some(most) => door.wait_timeout(guard, most).unwrap_or_else(PoisonError::into_inner).0,
        };
        Self { guard, held }
    }
}

impl<T> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
