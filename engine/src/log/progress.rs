//! The progress of each partition of a durable topic: its written and durable offsets, and how threads wait for them.

use crate::base::ids::TopicId;
use crate::base::level::{Level, WaitError};
use crate::base::threads::caught;
use crate::base::trace::lifecycle;
use crate::log::bridge::Attachment;
use crate::log::offset_waits::{OffsetWait, OffsetWaits, thread_waker};
use slipring_journal::Visible;
use slipring_journal::storage::Process;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::task::Waker;
use std::time::Instant;

/// The progress of one partition. `written` is the next offset that is not written yet, `durable` the next one that is
/// not durable yet. For a state source, the count of its written changes and that of its durable ones.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) written: AtomicU64,
    pub(crate) durable: AtomicU64,
    /// The next offset that is not replicated yet: a cluster of other machines has confirmed all events below it, but the
    /// [skipped](Self::skip) ones. Moved by the topic's bridge, and never above `durable`.
    pub(crate) replicated: AtomicU64,
    /// The ranges of offsets that the bridge has skipped, in their order.
    skipped: Mutex<Vec<Range<u64>>>,
    /// The end (exclusive) of the last range in `skipped`; 0 if there is none.
    skipped_end: AtomicU64,
    /// The end (exclusive) of the offsets that are reserved durably: a producer claims only offsets below it.
    pub(crate) reserved: AtomicU64,
    /// The offset from which on no event will be written any more, and the reason. Unset while the committer reads the
    /// partition.
    lost: OnceLock<(u64, String)>,
    /// The registered waits for offsets of this partition.
    pub(super) waits: OffsetWaits,
    /// True if the journal's [`Notifier`] knows this progress, and wakes its waits when the journal ends.
    is_known: AtomicBool,
}

impl Progress {
    pub(crate) fn at(next: u64) -> Self {
        Self { written: next.into(), durable: next.into(), reserved: next.into(), ..Self::default() }
    }

    /// The offset below which all events are visible to a reader with this visibility.
    pub(crate) fn end(&self, visible: Visible) -> u64 {
        match visible {
            Visible::Written => self.written.load(Ordering::Acquire),
            Visible::Durable => self.durable.load(Ordering::Acquire),
        }
    }

    /// Ends the partition's progress: no event at or above `offset` will be written, for the reason `why`. Only the
    /// first call counts.
    pub(crate) fn end_at(&self, offset: u64, why: String) {
        let _ = self.lost.set((offset, why));
    }

    /// Wakes the waits for offsets that the progress has reached or will never reach. Called after the progress has
    /// moved.
    pub(crate) fn wake(&self) {
        let (written, durable) = (self.written.load(Ordering::Acquire), self.durable.load(Ordering::Acquire));
        let replicated = self.replicated.load(Ordering::Acquire);
        self.waits.wake([written.max(durable), durable, replicated], self.lost.get().map(|(from, _)| *from));
    }

    /// Notes that the bridge has given up these offsets, which are at or above all ranges that were noted before. Called
    /// before `replicated` moves over them.
    pub(crate) fn skip(&self, offsets: Range<u64>) {
        /// More ranges than these are merged, so that the memory is bounded. An event between two merged ranges counts as
        /// skipped although it is replicated, which promises too little and never too much.
        const MOST: usize = 1024;
        let mut skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        self.skipped_end.fetch_max(offsets.end, Ordering::Release);
        match skipped.last_mut() {
            Some(last) if last.end >= offsets.start => last.end = last.end.max(offsets.end),
            _ => skipped.push(offsets),
        }
        if skipped.len() > MOST {
            let second = skipped.remove(1);
            skipped[0].end = second.end;
        }
    }

    /// True if the bridge has given up the event at this offset.
    pub(crate) fn is_skipped(&self, offset: u64) -> bool {
        offset < self.skipped_end.load(Ordering::Acquire)
            && self.skipped.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|range| range.contains(&offset))
    }

    /// True if no more events will become visible to a reader with this visibility.
    pub(crate) fn is_over(&self, visible: Visible) -> bool {
        self.lost.get().is_some_and(|(end, _)| self.end(visible) >= *end)
    }

    /// The reason why the event at this offset will never be written; `None` if it is written or may still be.
    pub(super) fn lost(&self, offset: u64) -> Option<&str> {
        self.lost.get().filter(|(from, _)| *from <= offset).map(|(_, why)| &**why)
    }

    pub(super) fn level(&self, offset: u64) -> Level {
        // Skipped ranges are noted before `replicated` moves over them.
        if offset < self.replicated.load(Ordering::Acquire) && !self.is_skipped(offset) {
            Level::Replicated
        } else if offset < self.durable.load(Ordering::Acquire) {
            Level::Durable
        } else if offset < self.written.load(Ordering::Acquire) {
            Level::Written
        } else {
            Level::Published
        }
    }
}

thread_local! {
    /// The address of the [`Notifier`] of the journal that this thread writes or syncs; 0 for all other threads.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// The point at which threads and tasks wait for the progress of an engine's journal.
#[derive(Default)]
pub(crate) struct Notifier {
    sleepers: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
    notified: Condvar,
    /// The reason why the journal has ended. Unset while it is open.
    over: OnceLock<String>,
    /// The progress of each partition and queue for whose offsets a thread or task has waited. The journal's end wakes
    /// their waits.
    known: Mutex<Vec<Weak<Progress>>>,
    /// The process in which the journal's threads run.
    process: Process,
}

impl Notifier {
    /// Wakes all threads in [`wait`](Self::wait) and all tasks of [`watch`](Self::watch). Called after each change of
    /// the progress. Waits for an offset are woken by [`Progress::wake`] instead.
    pub(crate) fn notify(&self) {
        // Here the progress changes first, and then `sleepers` is read. A sleeper counts itself first, and then reads
        // the progress. With a full fence between the two steps on both sides, at least one side sees the other.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            let woken = {
                let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
                self.notified.notify_all();
                self.sleepers.fetch_sub(wakers.len(), Ordering::Relaxed);
                std::mem::take(&mut *wakers)
            };
            // The wakers are called after the lock is released, because a woken task may run at once and wait here
            // again. A waker that panics must neither stop the journal's thread nor keep other tasks asleep.
            for waker in woken {
                if let Err(_panic) = caught(|| waker.wake()) {
                    lifecycle!(error, "a task's waker panicked", cause = _panic);
                }
            }
        }
    }

    /// Ends the journal's progress for the reason `why`, and wakes all waiting threads and tasks.
    pub(crate) fn end(&self, why: String) {
        let _ = self.over.set(why);
        self.notify();
        let known = std::mem::take(&mut *self.known.lock().unwrap_or_else(PoisonError::into_inner));
        // No offset will be written any more, so all waits are woken.
        known.iter().filter_map(Weak::upgrade).for_each(|progress| progress.waits.wake([0; 3], Some(0)));
    }

    /// True in a process that was forked from the one with the journal's threads. There the journal has ended, and
    /// [`end_cause`](Self::end_cause) says so.
    pub(crate) fn is_forked(&self) -> bool {
        let checked = self.process.check();
        if let Err(forked) = &checked {
            // No thread needs to be woken: the waiting threads exist only in the parent process.
            let _ = self.over.set(forked.to_string());
        }
        checked.is_err()
    }

    /// In a forked process, the error that names the parent; otherwise `None`.
    pub(crate) fn forked_cause(&self) -> Option<String> {
        self.is_forked().then(|| self.end_cause().unwrap_or_default().to_owned())
    }

    /// The [`end_cause`](Self::end_cause) that processes forked from this one will have.
    pub(crate) fn cause_in_forks(&self) -> String {
        self.process.cause_in_forks()
    }

    pub(crate) fn end_cause(&self) -> Option<&str> {
        self.over.get().map(String::as_str)
    }

    /// Marks the calling thread as one of the journal's own, which never wait for the journal.
    pub(crate) fn enter(&self) {
        OWN.set(std::ptr::from_ref(self).addr());
    }

    /// True if the calling thread writes or syncs this journal.
    pub(crate) fn is_own_thread(&self) -> bool {
        OWN.try_with(Cell::get).is_ok_and(|own| own == std::ptr::from_ref(self).addr())
    }

    /// Waits until `done` returns a value, which is checked after each change of the progress. `None` if `deadline`
    /// passes first. Without waiting, returns the result of `done` on the journal's own threads and in a forked
    /// process.
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

    /// As [`wait`](Self::wait), but checks `done` only when the progress reaches this offset at this level, or will
    /// never reach it.
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

    /// As [`watch`](Self::watch), but wakes `waker` only when the progress reaches this offset at this level, or will
    /// never reach it. `wait` keeps the registration from one call to the next; dropping it ends the registration.
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
        if !wait.as_ref().is_some_and(|wait| wait.is((progress, offset, level), waker)) {
            self.know(progress);
            // Cloning a waker runs user code, so no lock is held here.
            *wait = Some(OffsetWait::new(progress, offset, level, waker.clone()));
        }
        // Checked again after the registration, as the progress may have moved before it. An end of the journal before
        // the registration is seen here too: the end is set before the known progress is taken, and before the list of
        // waits is locked.
        let outcome = done();
        if outcome.is_some() {
            *wait = None;
        }
        outcome
    }

    /// Adds `progress` to the list whose waits the journal's end wakes, unless it is there already.
    fn know(&self, progress: &Arc<Progress>) {
        if progress.is_known.load(Ordering::Acquire) {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Set after the push. A thread that reads true finds the progress in the list, or finds that the journal's end
        // was set before.
        if !progress.is_known.load(Ordering::Relaxed) {
            if known.len() == known.capacity() {
                known.retain(|progress| progress.strong_count() > 0);
            }
            known.push(Arc::downgrade(progress));
            progress.is_known.store(true, Ordering::Release);
        }
    }

    /// Returns the value of `done`, or, if there is none yet, registers `waker` for the next change of the progress and
    /// returns `None`.
    pub(crate) fn watch<T>(&self, waker: &Waker, mut done: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(at_once) = done() {
            return Some(at_once);
        }
        if self.is_forked() {
            return done();
        }
        // Cloning a waker runs user code, so no lock is held here.
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

/// The progress of all partitions of a durable topic, which the topic's receipts read.
pub(crate) struct Acks {
    pub(crate) notifier: Arc<Notifier>,
    partitions: RwLock<Vec<Arc<Progress>>>,
    /// The bridge that is attached to the topic, or was attached last; `None` if the topic never had one.
    pub(super) bridge: Mutex<Option<Attachment>>,
}

/// The progress of each durable topic, by the topic's id. Receipts are copied very often, so a receipt holds only the
/// topic's id and finds the progress here.
static TOPICS: RwLock<BTreeMap<TopicId, Weak<Acks>>> = RwLock::new(BTreeMap::new());

impl Acks {
    pub(crate) fn new(topic: TopicId, notifier: Arc<Notifier>) -> Arc<Self> {
        let acks = Arc::new(Self { notifier, partitions: RwLock::default(), bridge: Mutex::default() });
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

    /// The progress of all partitions, by number.
    pub(crate) fn all(&self) -> Vec<Arc<Progress>> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn level(&self, partition: u32, offset: u64) -> Level {
        self.progress(partition).map_or(Level::Published, |progress| progress.level(offset))
    }

    fn reached(&self, progress: &Progress, offset: u64, level: Level) -> Option<Result<Level, WaitError>> {
        let has = progress.level(offset);
        if has >= level {
            return Some(Ok(has));
        }
        if level == Level::Replicated {
            return self.not_replicated(progress, offset);
        }
        progress.lost(offset).or(self.notifier.end_cause()).map(|cause| {
            // Events that became durable just before the journal ended count as durable.
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
        reached.unwrap_or_else(|| {
            Err(if self.notifier.is_own_thread() { WaitError::OwnThread } else { WaitError::TimedOut { level } })
        })
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
