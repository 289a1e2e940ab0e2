//! The part of a table that its thread and its readers share.

use super::TableError;
use super::contents::TableContents;
use arc_swap::{ArcSwap, Guard};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

pub(super) struct TableState<Q, E> {
    pub(super) topic: String,
    pub(super) name: String,
    current: ArcSwap<TableContents<Q, E>>,
    /// Why the thread has ended; `Ok` if the topic was closed and read to its end.
    end: OnceLock<Result<(), TableError>>,
    /// True once the last handle was dropped: the thread ends.
    gone: AtomicBool,
    /// Count of readers that wait for a change, or are about to.
    waiting: AtomicUsize,
    /// Count of wake-ups of waiting readers.
    wakes: Mutex<u64>,
    changed: Condvar,
}

impl<Q, E> TableState<Q, E> {
    pub(super) fn new(topic: String, name: String, empty: TableContents<Q, E>) -> Self {
        Self {
            topic,
            name,
            current: ArcSwap::from_pointee(empty),
            end: OnceLock::new(),
            gone: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            wakes: Mutex::new(0),
            changed: Condvar::new(),
        }
    }

    /// The present contents. They do not change while the guard is held.
    #[inline]
    pub(super) fn load(&self) -> Guard<Arc<TableContents<Q, E>>> {
        self.current.load()
    }

    pub(super) fn load_full(&self) -> Arc<TableContents<Q, E>> {
        self.current.load_full()
    }

    /// Shows readers these contents, and returns those that they were shown before, which readers may still hold.
    pub(super) fn show(&self, contents: Arc<TableContents<Q, E>>) -> Arc<TableContents<Q, E>> {
        let before = self.current.swap(contents);
        self.wake();
        before
    }

    pub(super) fn finish(&self, why: Result<(), TableError>) {
        let _ = self.end.set(why);
        self.wake();
    }

    #[inline]
    pub(super) fn end(&self) -> Option<&Result<(), TableError>> {
        self.end.get()
    }

    /// The error with which the table has ended, if it has failed.
    #[inline]
    pub(super) fn check(&self) -> Result<(), TableError> {
        match self.end() {
            Some(Err(cause)) => Err(cause.clone()),
            _ => Ok(()),
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(super) fn abandon(&self) {
        self.gone.store(true, Ordering::Release);
    }

    fn wake(&self) {
        // Pairs with the fence in `wait`: the reader sees the change, or this thread sees that the reader waits.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            *self.wakes() += 1;
            self.changed.notify_all();
        }
    }

    fn wakes(&self) -> MutexGuard<'_, u64> {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done` returns a value, by `deadline` at the latest (`None`: without limit). Calls `done` without the
    /// lock, as it may drop contents, whose events are user code.
    pub(super) fn wait<R>(&self, deadline: Option<Instant>, mut done: impl FnMut() -> Option<R>) -> Option<R> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let found = loop {
            // Read before `done` looks: a change that it does not see raises the count afterwards.
            let seen = *self.wakes();
            if let Some(found) = done() {
                break Some(found);
            }
            let mut wakes = self.wakes();
            let mut is_late = false;
            while *wakes == seen && !is_late {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                wakes = match left {
                    None => self.changed.wait(wakes).unwrap_or_else(PoisonError::into_inner),
                    Some(left) if left.is_zero() => {
                        is_late = true;
                        wakes
                    }
                    Some(left) => self.changed.wait_timeout(wakes, left).unwrap_or_else(PoisonError::into_inner).0,
                };
            }
            if is_late {
                break None;
            }
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        found
    }
}
