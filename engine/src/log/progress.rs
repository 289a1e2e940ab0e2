//! How far each partition of a durable topic is written and durable, and how to wait for that.

use crate::base::ids::TopicId;
use crate::base::level::{Level, WaitError};
use crate::base::threads::caught;
use crate::base::trace::lifecycle;
use slipring_journal::Visible;
use slipring_journal::storage::Process;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::task::Waker;
use std::time::Instant;

/// The progress of one partition: the next offset that is not written yet, and the next one that is not durable yet.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) written: AtomicU64,
    pub(crate) durable: AtomicU64,
    /// The reservation: no offset at or above it may be claimed.
    pub(crate) reserved: AtomicU64,
    /// The offset from which on nothing will be written any more, and why.
    lost: OnceLock<(u64, String)>,
}

impl Progress {
    pub(crate) fn at(next: u64) -> Self {
        Self { written: next.into(), durable: next.into(), reserved: next.into(), lost: OnceLock::new() }
    }

    /// The offset below which everything can be seen.
    pub(crate) fn end(&self, visible: Visible) -> u64 {
        match visible {
            Visible::Written => self.written.load(Ordering::Acquire),
            Visible::Durable => self.durable.load(Ordering::Acquire),
        }
    }

    /// The committer is done with the partition: nothing from `offset` on will be written.
    pub(crate) fn end_at(&self, offset: u64, why: String) {
        let _ = self.lost.set((offset, why));
    }

    /// True if everything that will ever be written can be seen.
    pub(crate) fn is_over(&self, visible: Visible) -> bool {
        self.lost.get().is_some_and(|(end, _)| self.end(visible) >= *end)
    }

    /// Why this offset will never be written, if that is so.
    fn lost(&self, offset: u64) -> Option<&str> {
        self.lost.get().filter(|(from, _)| *from <= offset).map(|(_, why)| &**why)
    }

    fn level(&self, offset: u64) -> Level {
        if offset < self.durable.load(Ordering::Acquire) {
            Level::Durable
        } else if offset < self.written.load(Ordering::Acquire) {
            Level::Written
        } else {
            Level::Published
        }
    }
}

thread_local! {
    /// The address of the notifier whose journal this thread writes or syncs. 0 for other threads.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// The error for code that runs on a journal's own thread, such as the clock or a task's waker, and wants to wait for the
/// journal.
pub(crate) const OWN_THREAD: &str = "code that runs on the journal's own thread, such as the clock, a task's waker or `Persist`, cannot wait for the journal: do this on another thread";

/// Where threads and tasks wait for the progress of an engine's journal.
#[derive(Default)]
pub(crate) struct Notifier {
    sleepers: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
    notified: Condvar,
    /// Why nothing more becomes durable.
    over: OnceLock<String>,
    /// The process that has the journal's threads.
    process: Process,
}

impl Notifier {
    /// Wakes everybody who waits. Called after progress has moved.
    pub(crate) fn notify(&self) {
        // Progress moves before this looks for sleepers, and a sleeper counts itself before it looks at the progress.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            let woken = {
                let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
                self.notified.notify_all();
                self.sleepers.fetch_sub(wakers.len(), Ordering::Relaxed);
                std::mem::take(&mut *wakers)
            };
            // Outside of the lock, because a task may run at once and wait here again. A waker that panics must neither stop
            // the journal's thread nor keep the other tasks asleep.
            for waker in woken {
                if let Err(_panic) = caught(|| waker.wake()) {
                    lifecycle!(error, "a task's waker panicked", cause = _panic);
                }
            }
        }
    }

    /// Nothing more becomes durable. Wakes everybody.
    pub(crate) fn end(&self, why: String) {
        let _ = self.over.set(why);
        self.notify();
    }

    /// True in a fork of the process that has the journal's threads. There the journal is over, and `end_cause` says so.
    pub(crate) fn is_forked(&self) -> bool {
        let checked = self.process.check();
        if let Err(forked) = &checked {
            // Nobody sleeps here yet: the sleeping threads are the parent's.
            let _ = self.over.set(forked.to_string());
        }
        checked.is_err()
    }

    pub(crate) fn end_cause(&self) -> Option<&str> {
        self.over.get().map(String::as_str)
    }

    /// The calling thread writes or syncs the journal from now on, so it must not wait for it.
    pub(crate) fn enter(&self) {
        OWN.set(std::ptr::from_ref(self).addr());
    }

    /// True if the calling thread writes or syncs this journal.
    pub(crate) fn is_own_thread(&self) -> bool {
        OWN.try_with(Cell::get).is_ok_and(|own| own == std::ptr::from_ref(self).addr())
    }

    /// Sleeps until `done` returns something, or until `deadline`. On the journal's own threads it never sleeps.
    pub(crate) fn wait<T>(&self, deadline: Option<Instant>, mut done: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(at_once) = done() {
            return Some(at_once);
        }
        if self.is_forked() || self.is_own_thread() {
            return done();
        }
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let outcome = loop {
            if let Some(outcome) = done() {
                break Some(outcome);
            }
            let Some(deadline) = deadline else {
                wakers = self.notified.wait(wakers).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break None;
            }
            wakers = self.notified.wait_timeout(wakers, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        drop(wakers);
        outcome
    }

    /// Has `waker` woken at the next notification. If `done` returns something now, returns that.
    pub(crate) fn watch<T>(&self, waker: &Waker, mut done: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(at_once) = done() {
            return Some(at_once);
        }
        if self.is_forked() {
            return done();
        }
        // Cloning a waker is the user's code, so no lock is held.
        let fresh = waker.clone();
        let unused = {
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            if wakers.iter().any(|known| known.will_wake(waker)) {
                Some(fresh)
            } else {
                wakers.push(fresh);
                self.sleepers.fetch_add(1, Ordering::Relaxed);
                None
            }
        };
        drop(unused);
        fence(Ordering::SeqCst);
        done()
    }
}

/// The progress of all partitions of a durable topic, for receipts to ask.
pub(crate) struct Acks {
    pub(crate) notifier: Arc<Notifier>,
    partitions: RwLock<Vec<Arc<Progress>>>,
}

/// Receipts are copied a million times a second, so they hold the topic's number alone, and find the topic here.
static TOPICS: RwLock<BTreeMap<TopicId, Weak<Acks>>> = RwLock::new(BTreeMap::new());

impl Acks {
    pub(crate) fn new(topic: TopicId, notifier: Arc<Notifier>) -> Arc<Self> {
        let acks = Arc::new(Self { notifier, partitions: RwLock::default() });
        let mut topics = TOPICS.write().unwrap_or_else(PoisonError::into_inner);
        topics.retain(|_, acks| acks.strong_count() > 0);
        topics.insert(topic, Arc::downgrade(&acks));
        acks
    }

    pub(crate) fn of(topic: TopicId) -> Option<Arc<Self>> {
        TOPICS.read().unwrap_or_else(PoisonError::into_inner).get(&topic).and_then(Weak::upgrade)
    }

    pub(crate) fn add(&self, progress: Arc<Progress>) {
        self.partitions.write().unwrap_or_else(PoisonError::into_inner).push(progress);
    }

    pub(crate) fn progress(&self, partition: u32) -> Option<Arc<Progress>> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner).get(partition as usize).cloned()
    }

    pub(crate) fn level(&self, partition: u32, offset: u64) -> Level {
        self.progress(partition).map_or(Level::Published, |progress| progress.level(offset))
    }

    fn reached(&self, progress: &Progress, offset: u64, level: Level) -> Option<Result<Level, WaitError>> {
        let has = progress.level(offset);
        if has >= level {
            return Some(Ok(has));
        }
        progress.lost(offset).or(self.notifier.end_cause()).map(|cause| {
            // What became durable just before the end counts as durable.
            let has = progress.level(offset);
            if has >= level { Ok(has) } else { Err(WaitError::Unknown { cause: cause.to_owned() }) }
        })
    }

    pub(crate) fn wait(
        &self,
        partition: u32,
        offset: u64,
        level: Level,
        deadline: Option<Instant>,
    ) -> Result<Level, WaitError> {
        let Some(progress) = self.progress(partition) else { return Err(WaitError::Gone) };
        let reached = self.notifier.wait(deadline, || self.reached(&progress, offset, level));
        reached.unwrap_or(Err(WaitError::TimedOut { level }))
    }

    pub(crate) fn poll(
        &self,
        waker: &Waker,
        partition: u32,
        offset: u64,
        level: Level,
    ) -> Option<Result<Level, WaitError>> {
        let Some(progress) = self.progress(partition) else { return Some(Err(WaitError::Gone)) };
        self.notifier.watch(waker, || self.reached(&progress, offset, level))
    }
}
