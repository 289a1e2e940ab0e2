//! Registered waits of threads and tasks until a partition has written an offset, made it durable, or replicated it.
//! Receipts wait in this way.
//!
//! The waits are sorted by level and offset. So progress wakes only the waits that it has reached, in the order of
//! their offsets. A frame costs time for its own waits and not for all outstanding ones; a wait costs the logarithm of
//! their number.
//!
//! No wake-up is missed, because the list of waits has one lock per partition. The thread that moves the progress
//! stores the position, then removes the reached waits from the list under the lock. A waiting thread adds its wait
//! under the lock, then reads the position. One of the two takes the lock first:
//! - If the waiting thread does, the moving thread finds the wait in the list and wakes it.
//! - If the moving thread does, it has stored the position before it released the lock. The waiting thread takes the
//!   lock after that, so it reads the new position.
//!
//! The end of a partition is handled in the same way: it is set before the waits are removed. Each wait is removed
//! once, by the thread that wakes it or by its own drop, so it is woken at most once. The tests run these steps in
//! every order.

use crate::base::level::Level;
use crate::base::threads::caught;
use crate::base::trace::lifecycle;
use crate::log::progress::Progress;
use slipring_ring::Waiter;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// The waits for one partition's offsets.
#[derive(Default)]
pub(crate) struct OffsetWaits {
    list: Mutex<WaitList>,
}

#[derive(Default)]
struct WaitList {
    /// The number of the newest wait. Numbers tell waits for one offset apart.
    last: u64,
    written: Sorted,
    durable: Sorted,
    replicated: Sorted,
}

/// Wakers, sorted by offset and then by the number of the wait.
type Sorted = BTreeMap<(u64, u64), Waker>;

impl WaitList {
    fn of(&mut self, level: Level) -> &mut Sorted {
        match level {
            Level::Written => &mut self.written,
            Level::Replicated => &mut self.replicated,
            _ => &mut self.durable,
        }
    }
}

impl OffsetWaits {
    fn list(&self) -> MutexGuard<'_, WaitList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the waits that a partition's progress has reached. Called after the progress has moved. `next` is the next
    /// offset that is not written, the next one that is not durable and the next one that is not replicated; `lost` is
    /// the offset from which on no event will be written, `None` if that is not known.
    pub(super) fn wake(&self, next: [u64; 3], lost: Option<u64>) {
        let mut woken = Vec::new();
        {
            let mut list = self.list();
            let WaitList { written, durable, replicated, .. } = &mut *list;
            for (waits, next) in [written, durable, replicated].into_iter().zip(next) {
                while let Some(wait) = waits.first_entry().filter(|wait| wait.key().0 < next) {
                    woken.push(wait.remove());
                }
                if let Some(lost) = lost {
                    woken.extend(waits.split_off(&(lost, 0)).into_values());
                }
            }
        }
        call(woken);
    }

    /// Wakes all waits for a replicated offset. Called after the bridge has ended or has skipped events.
    pub(super) fn wake_replicated(&self) {
        let waits = std::mem::take(&mut self.list().replicated);
        call(waits.into_values());
    }
}

/// Calls wakers. The caller has released the lock, because a woken task may run at once and wait here again. A waker that
/// panics must neither stop the journal's thread nor keep other tasks asleep.
fn call(woken: impl IntoIterator<Item = Waker>) {
    for waker in woken {
        if let Err(_panic) = caught(|| waker.wake()) {
            lifecycle!(error, "a task's waker panicked", cause = _panic);
        }
    }
}

/// A registered wait for an offset. Dropping it removes the wait.
pub(crate) struct OffsetWait {
    progress: Arc<Progress>,
    level: Level,
    key: (u64, u64),
}

impl std::fmt::Debug for OffsetWait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OffsetWait for offset {}", self.key.0)
    }
}

impl OffsetWait {
    /// Registers `waker` to be woken when `offset` has reached `level`, or will never reach it. The caller must check
    /// the progress again after this, because the progress may have moved before the registration.
    pub(super) fn new(progress: &Arc<Progress>, offset: u64, level: Level, waker: Waker) -> Self {
        let waits = &progress.waits;
        let mut list = waits.list();
        list.last += 1;
        let key = (offset, list.last);
        list.of(level).insert(key, waker);
        drop(list);
        Self { progress: Arc::clone(progress), level, key }
    }

    /// True if this is a wait for that offset and level, was not woken yet, and has a waker that wakes the same task as
    /// `waker`.
    pub(super) fn is(&self, (progress, offset, level): (&Arc<Progress>, u64, Level), waker: &Waker) -> bool {
        Arc::ptr_eq(&self.progress, progress)
            && (self.key.0, self.level) == (offset, level)
            && self.progress.waits.list().of(level).get(&self.key).is_some_and(|known| known.will_wake(waker))
    }
}

impl Drop for OffsetWait {
    fn drop(&mut self) {
        // Dropping a waker runs user code, so the lock is released first.
        let unused = self.progress.waits.list().of(self.level).remove(&self.key);
        drop(unused);
    }
}

/// A waker that wakes a sleeping thread.
#[derive(Default)]
pub(super) struct ThreadWaker(pub(super) Waiter);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.wake(0);
    }
}

thread_local! {
    /// The calling thread's waker. It is kept from one wait to the next, so that a wait allocates nothing.
    static WAKER: Arc<ThreadWaker> = Arc::default();
}

/// Returns the calling thread's waker.
pub(super) fn thread_waker() -> Arc<ThreadWaker> {
    WAKER.try_with(Arc::clone).unwrap_or_default()
}

#[cfg(test)]
mod tests;
