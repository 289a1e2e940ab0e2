//! The written and durable offsets of each partition of a durable topic, and how threads wait for them.

use crate::base::ids::TopicId;
use crate::base::level::{Level, WaitError};
use crate::base::threads::caught;
use crate::base::trace::lifecycle;
use crate::log::offset_waits::{OffsetWait, OffsetWaits, thread_waker};
use slipring_journal::Visible;
use slipring_journal::storage::Process;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::task::Waker;
use std::time::Instant;

/// The progress of one partition: the next offset that is not written yet, and the next that is not durable yet.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) written: AtomicU64,
    pub(crate) durable: AtomicU64,
    /// The durable reservation: no offset at or above it may be claimed.
    pub(crate) reserved: AtomicU64,
    /// The offset from which on no event will be written any more, and why. Unset while the committer reads the
    /// partition.
    lost: OnceLock<(u64, String)>,
    /// The waits for its offsets.
    pub(super) waits: OffsetWaits,
    /// True if the journal's notifier knows this progress, and wakes its waits when the journal ends.
    is_known: AtomicBool,
}

impl Progress {
    pub(crate) fn at(next: u64) -> Self {
        Self { written: next.into(), durable: next.into(), reserved: next.into(), ..Self::default() }
    }

    /// The offset below which all events are visible to a reader of this kind.
    pub(crate) fn end(&self, visible: Visible) -> u64 {
        match visible {
            Visible::Written => self.written.load(Ordering::Acquire),
            Visible::Durable => self.durable.load(Ordering::Acquire),
        }
    }

    /// Ends the partition's progress: no event at or above `offset` will be written.
    pub(crate) fn end_at(&self, offset: u64, why: String) {
        let _ = self.lost.set((offset, why));
    }

    /// Wakes the waits for offsets that the progress has reached, or never will. Called after it has moved.
    pub(crate) fn wake(&self) {
        let (written, durable) = (self.written.load(Ordering::Acquire), self.durable.load(Ordering::Acquire));
        self.waits.wake(written.max(durable), durable, self.lost.get().map(|(from, _)| *from));
    }

    /// True if no more events become visible to a reader of this kind.
    pub(crate) fn is_over(&self, visible: Visible) -> bool {
        self.lost.get().is_some_and(|(end, _)| self.end(visible) >= *end)
    }

    /// Why the event at this offset will never be written; `None` if it may still be.
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
    /// The address of the notifier whose journal this thread writes or syncs; 0 for other threads.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// The error for code on a journal's own thread, such as the clock or a task's waker, that wants to wait for the
/// journal.
pub(crate) const OWN_THREAD: &str = "code that runs on the journal's own thread, such as the clock, a task's waker or `Persist`, cannot wait for the journal: do this on another thread";

/// Where threads and tasks wait for the progress of an engine's journal.
#[derive(Default)]
pub(crate) struct Notifier {
    sleepers: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
    notified: Condvar,
    /// Why the journal has ended. Unset while it is open.
    over: OnceLock<String>,
    /// The progress of each partition and queue that somebody has waited for by offset.
    known: Mutex<Vec<Weak<Progress>>>,
    /// The process in which the journal's threads run.
    process: Process,
}

impl Notifier {
    /// Wakes all waiting threads and tasks. Called after each change of the progress.
    pub(crate) fn notify(&self) {
        // The progress changes before this reads `sleepers`, and a sleeper counts itself before it reads the progress.
        // With a full fence on both sides, at least one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            let woken = {
                let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
                self.notified.notify_all();
                self.sleepers.fetch_sub(wakers.len(), Ordering::Relaxed);
                std::mem::take(&mut *wakers)
            };
            // Called without the lock, because a woken task may run at once and wait here again. A panicking waker must
            // neither stop the journal's thread nor keep other tasks asleep.
            for waker in woken {
                if let Err(_panic) = caught(|| waker.wake()) {
                    lifecycle!(error, "a task's waker panicked", cause = _panic);
                }
            }
        }
    }

    /// Ends the journal's progress for this reason, and wakes all waiting threads and tasks.
    pub(crate) fn end(&self, why: String) {
        let _ = self.over.set(why);
        self.notify();
        let known = std::mem::take(&mut *self.known.lock().unwrap_or_else(PoisonError::into_inner));
        // No offset will be written any more.
        known.iter().filter_map(Weak::upgrade).for_each(|progress| progress.waits.wake(0, 0, Some(0)));
    }

    /// True in a fork of the process in which the journal's threads run. The journal has ended there, with `end_cause`.
    pub(crate) fn is_forked(&self) -> bool {
        let checked = self.process.check();
        if let Err(forked) = &checked {
            // There is no one to wake: the waiting threads are the parent's.
            let _ = self.over.set(forked.to_string());
        }
        checked.is_err()
    }

    pub(crate) fn end_cause(&self) -> Option<&str> {
        self.over.get().map(String::as_str)
    }

    /// Marks the calling thread as one that writes or syncs the journal, so that it never waits for it.
    pub(crate) fn enter(&self) {
        OWN.set(std::ptr::from_ref(self).addr());
    }

    /// True if the calling thread writes or syncs this journal.
    pub(crate) fn is_own_thread(&self) -> bool {
        OWN.try_with(Cell::get).is_ok_and(|own| own == std::ptr::from_ref(self).addr())
    }

    /// Waits until `done` returns a value; `None` if `deadline` passes first. On the journal's own threads this never
    /// waits.
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

    /// As [`wait`](Self::wait), for a `done` that becomes ready when the progress has this offset at this level, or never will.
    pub(crate) fn wait_for_offset<T>(
        &self,
        (progress, offset, level): (&Arc<Progress>, u64, Level),
        deadline: Option<Instant>,
        mut done: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        if let Some(at_once) = done() {
            return Some(at_once);
        }
        if self.is_forked() || self.is_own_thread() {
            return done();
        }
        let thread = thread_waker();
        let waker = Waker::from(Arc::clone(&thread));
        let mut wait = None;
        loop {
            if let Some(outcome) = self.watch_offset(&mut wait, (progress, offset, level), &waker, &mut done) {
                return Some(outcome);
            }
            if !thread.0.park(deadline, |_| ()) {
                return done();
            }
        }
    }

    /// As [`watch`](Self::watch), for a `done` that becomes ready when the progress has this offset at this level, or never
    /// will. `wait` keeps the registration from one call to the next, and ends it when it is dropped.
    pub(crate) fn watch_offset<T>(
        &self,
        wait: &mut Option<OffsetWait>,
        (progress, offset, level): (&Arc<Progress>, u64, Level),
        waker: &Waker,
        mut done: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        if let Some(at_once) = done() {
            *wait = None;
            return Some(at_once);
        }
        if self.is_forked() {
            return done();
        }
        if !wait.as_ref().is_some_and(|wait| wait.will_wake(waker)) {
            self.know(progress);
            // Cloning a waker runs the user's code, so no lock is held.
            *wait = Some(OffsetWait::new(progress, offset, level, waker.clone()));
        }
        // Read after the registration. If the journal has ended before it, its end is seen here: it is set before the known
        // progress is taken, and before the list of waits is locked.
        let outcome = done();
        if outcome.is_some() {
            *wait = None;
        }
        outcome
    }

    /// Has the end of the journal wake the waits for this progress.
    fn know(&self, progress: &Arc<Progress>) {
        if progress.is_known.load(Ordering::Acquire) {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Set after the push: who reads it finds the progress in the list, or the journal's end set before.
        if !progress.is_known.load(Ordering::Relaxed) {
            if known.len() == known.capacity() {
                known.retain(|progress| progress.strong_count() > 0);
            }
            known.push(Arc::downgrade(progress));
            progress.is_known.store(true, Ordering::Release);
        }
    }

    /// Registers `waker` for the next notification, unless `done` returns a value now.
    pub(crate) fn watch<T>(&self, waker: &Waker, mut done: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(at_once) = done() {
            return Some(at_once);
        }
        if self.is_forked() {
            return done();
        }
        // Cloning a waker runs the user's code, so no lock is held.
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

/// The progress of all partitions of a durable topic, for its receipts.
pub(crate) struct Acks {
    pub(crate) notifier: Arc<Notifier>,
    partitions: RwLock<Vec<Arc<Progress>>>,
}

/// All durable topics, by id. Receipts are copied very often, so they hold only the topic's id and find its progress
/// here.
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
            // Events that became durable just before the end count as durable.
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
        let of = (&progress, offset, level);
        let reached = self.notifier.wait_for_offset(of, deadline, || self.reached(&progress, offset, level));
        reached.unwrap_or(Err(WaitError::TimedOut { level }))
    }

    pub(crate) fn poll(
        &self,
        wait: &mut Option<OffsetWait>,
        waker: &Waker,
        partition: u32,
        offset: u64,
        level: Level,
    ) -> Option<Result<Level, WaitError>> {
        let Some(progress) = self.progress(partition) else { return Some(Err(WaitError::Gone)) };
        self.notifier.watch_offset(wait, (&progress, offset, level), waker, || self.reached(&progress, offset, level))
    }
}
