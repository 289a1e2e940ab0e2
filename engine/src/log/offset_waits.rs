//! The threads and tasks that wait until a partition has written an offset, or made it durable: the waits for receipts.
//!
//! They are sorted by level and offset, so progress wakes those that it has reached, in the order of their offsets, and no
//! others. A frame costs its own waits and not all that are outstanding; a wait costs the logarithm of their number.

use crate::base::level::Level;
use crate::base::threads::caught;
use crate::base::trace::lifecycle;
use crate::log::progress::Progress;
use slipring_ring::Waiter;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// The waits for one partition's progress.
#[derive(Default)]
pub(crate) struct OffsetWaits {
    /// The number of wakers in `list`.
    waiting: AtomicUsize,
    list: Mutex<WaitList>,
}

#[derive(Default)]
struct WaitList {
    /// The number of the last wait.
    last: u64,
    written: Sorted,
    durable: Sorted,
}

/// Wakers by offset, and by the number of the wait.
type Sorted = BTreeMap<(u64, u64), Waker>;

impl WaitList {
    fn of(&mut self, level: Level) -> &mut Sorted {
        if level == Level::Written { &mut self.written } else { &mut self.durable }
    }
}

impl OffsetWaits {
    fn list(&self) -> MutexGuard<'_, WaitList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the waits that these positions have reached: the next offset that is not written, the next one that is not
    /// durable, and the offset from which on no event will be written, if that is known. Called after they have moved.
    pub(super) fn wake(&self, written: u64, durable: u64, lost: Option<u64>) {
        // The position moves, then this reads `waiting`. A wait is counted, then the position is read again. With a full fence
        // between the two steps on both sides, at least one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut woken = Vec::new();
        {
            let mut list = self.list();
            let WaitList { written: for_written, durable: for_durable, .. } = &mut *list;
            for (waits, next) in [(for_written, written), (for_durable, durable)] {
                while let Some(wait) = waits.first_entry().filter(|wait| wait.key().0 < next) {
                    woken.push(wait.remove());
                }
                if let Some(lost) = lost {
                    woken.extend(waits.split_off(&(lost, 0)).into_values());
                }
            }
            self.waiting.fetch_sub(woken.len(), Ordering::Relaxed);
        }
        // Called without the lock, because a woken task may run at once and wait here again. A panicking waker must neither
        // stop the journal's thread nor keep other tasks asleep.
        for waker in woken {
            if let Err(_panic) = caught(|| waker.wake()) {
                lifecycle!(error, "a task's waker panicked", cause = _panic);
            }
        }
    }
}

/// A wait that is registered. It ends when this is dropped.
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
    /// Registers `waker` to be woken when `offset` has reached `level`, or never will. The caller reads the progress again
    /// before it waits.
    pub(super) fn new(progress: &Arc<Progress>, offset: u64, level: Level, waker: Waker) -> Self {
        let waits = &progress.waits;
        let mut list = waits.list();
        list.last += 1;
        let key = (offset, list.last);
        list.of(level).insert(key, waker);
        waits.waiting.fetch_add(1, Ordering::Relaxed);
        drop(list);
        fence(Ordering::SeqCst);
        Self { progress: Arc::clone(progress), level, key }
    }

    /// True if this wait has not been woken, and would wake what `waker` wakes.
    pub(super) fn will_wake(&self, waker: &Waker) -> bool {
        self.progress.waits.list().of(self.level).get(&self.key).is_some_and(|known| known.will_wake(waker))
    }
}

impl Drop for OffsetWait {
    fn drop(&mut self) {
        let waits = &self.progress.waits;
        // The drop of a waker is the user's code, so it runs without the lock.
        let unused = waits.list().of(self.level).remove(&self.key);
        if unused.is_some() {
            waits.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Wakes a sleeping thread.
#[derive(Default)]
pub(super) struct ThreadWaker(pub(super) Waiter);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.wake(0);
    }
}

thread_local! {
    /// This thread's own, so that a wait allocates nothing.
    static WAKER: Arc<ThreadWaker> = Arc::default();
}

/// The calling thread's waker.
pub(super) fn thread_waker() -> Arc<ThreadWaker> {
    WAKER.try_with(Arc::clone).unwrap_or_default()
}
