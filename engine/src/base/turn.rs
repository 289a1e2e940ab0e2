//! A value that only one thread at a time may use, without a lock that would be held while user code runs.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

/// A value that is lent to one thread at a time. If the thread that has borrowed the value asks for it again, for
/// example from user code, it gets `None`; a lock would deadlock.
pub(crate) struct Turn<T> {
    state: Mutex<TurnState<T>>,
    free: Condvar,
}

struct TurnState<T> {
    /// `None` while a thread has borrowed the value; `by` is that thread.
    value: Option<T>,
    by: Option<ThreadId>,
}

impl<T> Turn<T> {
    pub(crate) fn new(value: T) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(TurnState { value: Some(value), by: None }), free: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, TurnState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other thread has borrowed the value, and borrows it. `None` if the calling thread has borrowed it
    /// already.
    pub(crate) fn take(self: &Arc<Self>) -> Option<TurnGuard<T>> {
        let own = std::thread::current().id();
        let mut state = self.state();
        loop {
            if let Some(value) = state.value.take() {
                state.by = Some(own);
                return Some(TurnGuard { turn: Arc::clone(self), value: Some(value) });
            }
            if state.by == Some(own) {
                return None;
            }
            state = self.free.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Turn<T> {
    /// True if the calling thread has borrowed the value.
    pub(crate) fn is_taken_here(&self) -> bool {
        self.state().by == Some(std::thread::current().id())
    }

    /// Borrows the value without waiting. `None` if any thread has borrowed it.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<TurnGuard<T>> {
        let mut state = self.state();
        let value = state.value.take()?;
        state.by = Some(std::thread::current().id());
        drop(state);
        Some(TurnGuard { turn: Arc::clone(self), value: Some(value) })
    }
}

/// The borrowed value. Dropping this returns the value.
pub(crate) struct TurnGuard<T> {
    turn: Arc<Turn<T>>,
    /// `None` only during the drop.
    value: Option<T>,
}

impl<T> Deref for TurnGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("there until it is dropped")
    }
}

impl<T> DerefMut for TurnGuard<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("there until it is dropped")
    }
}

impl<T> Drop for TurnGuard<T> {
    fn drop(&mut self) {
        let mut state = self.turn.state();
        (state.value, state.by) = (self.value.take(), None);
        drop(state);
        self.turn.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_has_it_others_wait_and_it_is_never_waited_for_by_itself() {
        let turn = Turn::new(1);
        let mut taken = turn.take().unwrap();
        assert!(turn.take().is_none() && turn.try_take().is_none() && turn.is_taken_here());
        let other = Arc::clone(&turn);
        let waits = std::thread::spawn(move || *other.take().unwrap());
        *taken = 2;
        drop(taken);
        assert_eq!(waits.join().unwrap(), 2);
        assert!(turn.take().is_some() && turn.try_take().is_some());
    }
}
