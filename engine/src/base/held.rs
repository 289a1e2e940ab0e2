//! Locks under which somebody may be woken: the user's code that follows from it runs when they are let go.
//!
//! The rule of the crate: no lock is held while the user's code runs. What is asked of it, such as the time, is asked
//! before the lock; what it is told is told after it. The one exception is a queue that copies an event out of its slot, or
//! writes a dead letter: see [`inside`].

pub(crate) use slipring_ring::internal::wake;
use slipring_ring::internal::{Held, Panic, caught};
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A lock that is held. No task is woken by this thread, and no subscriber of `tracing` told, until it is dropped.
pub(crate) struct Locked<'l, T> {
    // Dropped in this order.
    guard: MutexGuard<'l, T>,
    held: Held,
}

/// Takes a lock. One that was poisoned is as good as any.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> Locked<'_, T> {
    let held = Held::new();
    Locked { guard: mutex.lock().unwrap_or_else(PoisonError::into_inner), held }
}

thread_local! {
    /// This thread runs the code of an event's type under a queue's lock.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs code of an event's type, or what a dead letter needs of the user's, where it cannot be had outside of a queue's lock.
/// Its panic is caught. A queue that it calls [refuses](refuse_inside) that: it would wait for itself.
pub(crate) fn inside<R>(work: impl FnOnce() -> R) -> Result<R, Panic> {
    let outer = IS_INSIDE.replace(true);
    let done = caught(work);
    IS_INSIDE.set(outer);
    done
}

/// # Panics
/// The thread is [`inside`].
#[inline]
pub(crate) fn refuse_inside() {
    assert!(
        !IS_INSIDE.get(),
        "the code of an event's type called a queue while a queue ran it: it would wait for itself"
    );
}

impl<'l, T> Locked<'l, T> {
    /// Waits at `door` until it is notified or the time is over, or for no reason at all. Whoever is to be woken is woken
    /// instead, and the caller looks again.
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
