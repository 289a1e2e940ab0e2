//! How far each partition of a durable topic is written and durable, and waiting for that.

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

/// Positions of one partition: the next offset that is not yet written, and not yet durable.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) written: AtomicU64,
    pub(crate) durable: AtomicU64,
    /// No offset at or above it may be claimed.
    pub(crate) reserved: AtomicU64,
    /// From this offset on nothing will be written any more, and why.
    lost: OnceLock<(u64, String)>,
}

impl Progress {
    pub(crate) fn at(next: u64) -> Self {
        Self { written: next.into(), durable: next.into(), reserved: next.into(), lost: OnceLock::new() }
    }

    /// All below it can be seen.
    pub(crate) fn end(&self, visible: Visible) -> u64 {
        match visible {
            Visible::Written => self.written.load(Ordering::Acquire),
            Visible::Durable => self.durable.load(Ordering::Acquire),
        }
    }

    /// The journal is done with the partition: from `offset` on nothing will be written.
    pub(crate) fn end_at(&self, offset: u64, why: String) {
        let _ = self.lost.set((offset, why));
    }

    /// Whether all below where the journal was done with the partition can be seen, so that nothing more ever will be.
    pub(crate) fn is_over(&self, visible: Visible) -> bool {
        self.lost.get().is_some_and(|(end, _)| self.end(visible) >= *end)
    }

    /// Why an offset will never be written.
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
    /// Where the notifier stands whose journal this thread writes or syncs.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// Why code that runs on a journal's own thread, such as the clock or a task's waker, is not waited with.
pub(crate) const OWN_THREAD: &str = "code that runs on the journal's own thread, such as the clock, a task's waker or `Persist`, cannot wait for the journal: do this on another thread";

/// Where everybody sleeps who waits for an engine's journal.
#[derive(Default)]
pub(crate) struct Notifier {
    sleepers: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
    notified: Condvar,
    /// Why nothing more becomes durable.
    over: OnceLock<String>,
    /// The one that has the journal's threads.
    process: Process,
}

impl Notifier {
    /// After positions have moved.
    pub(crate) fn notify(&self) {
        // Positions move before it is looked for sleepers; who wants to sleep says so before looking at positions.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            let woken = {
                let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
                self.notified.notify_all();
                self.sleepers.fetch_sub(wakers.len(), Ordering::Relaxed);
                std::mem::take(&mut *wakers)
            };
            // Outside of the lock: a task may run at once, and wait here again. The journal's own threads ring: what one
            // task's waker panics with must neither stop them nor keep the others asleep.
            for waker in woken {
                if let Err(_panic) = caught(|| waker.wake()) {
                    lifecycle!(error, "a task's waker panicked", cause = _panic);
                }
            }
        }
    }

    /// Nothing more becomes durable.
    pub(crate) fn end(&self, why: String) {
        let _ = self.over.set(why);
        self.notify();
    }

    /// True in a fork of the process that has the journal's threads. For that one it is over, and whoever asks is told why.
    pub(crate) fn is_forked(&self) -> bool {
        let checked = self.process.check();
        if let Err(forked) = &checked {
            // Nobody sleeps here yet: the threads that do are the parent's.
            let _ = self.over.set(forked.to_string());
        }
        checked.is_err()
    }

    pub(crate) fn end_cause(&self) -> Option<&str> {
        self.over.get().map(String::as_str)
    }

    /// The calling thread writes or syncs the journal from now on: it must not wait for itself.
    pub(crate) fn enter(&self) {
        OWN.set(std::ptr::from_ref(self).addr());
    }

    /// Whether the calling thread is one that everybody else waits for.
    pub(crate) fn is_own_thread(&self) -> bool {
        OWN.try_with(Cell::get).is_ok_and(|own| own == std::ptr::from_ref(self).addr())
    }

    /// Sleeps until `done` says something, or `deadline` comes. On the journal's own threads it never sleeps.
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

    /// Has `waker` woken at the next ring, unless `done` says something already.
    pub(crate) fn watch<T>(&self, waker: &Waker, mut done: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(at_once) = done() {
            return Some(at_once);
        }
        if self.is_forked() {
            return done();
        }
        // The waker's own code runs outside of the lock.
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

/// What receipts of a durable topic ask.
pub(crate) struct Acks {
    pub(crate) notifier: Arc<Notifier>,
    partitions: RwLock<Vec<Arc<Progress>>>,
}

/// Receipts are copied a million times a second, so they carry the topic's number alone.
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
            // What became durable just before the end counts.
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
