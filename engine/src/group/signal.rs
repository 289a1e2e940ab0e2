//! The signals between a member and its group, without a lock.

use super::coordinator::Activity;
use crate::base::multi_wait::MultiWait;
use slipring_ring::Waiter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The value of a time that never comes.
pub(super) const NEVER: u64 = u64::MAX;

/// The state that a member shares with its group.
pub(super) struct MemberSignal {
    /// True if the member must ask the group for changes.
    pub(super) news: AtomicBool,
    /// True if the member must end.
    pub(super) stopped: AtomicBool,
    /// True if the member is managed: it runs on a thread of its own.
    pub(super) managed: AtomicBool,
    /// The time of the member's last progress, in nanoseconds of the engine's clock; `NEVER` while it waits for events.
    pub(super) seen: AtomicU64,
    pub(super) waiter: Arc<Waiter>,
    /// The waiter and token of a selector that waits for this member.
    watcher: Mutex<Option<(Arc<Waiter>, usize)>>,
}

impl MemberSignal {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            news: AtomicBool::new(true),
            stopped: AtomicBool::new(false),
            managed: AtomicBool::new(false),
            seen: AtomicU64::new(nanos(now)),
            waiter: Arc::new(Waiter::new()),
            watcher: Mutex::default(),
        }
    }

    pub(super) fn notify(&self) {
        self.news.store(true, Ordering::Release);
        self.waiter.wake(MultiWait::WAKE);
        self.wake_watcher();
    }

    /// Wakes the selector that waits for this member, or has its next call poll the member.
    pub(super) fn wake_watcher(&self) {
        let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((watcher, token)) = watcher {
            watcher.wake(token);
        }
    }

    /// Makes changes wake this waiter too, with this token.
    pub(super) fn watch(&self, waiter: &Arc<Waiter>, token: usize) {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if !watcher.as_ref().is_some_and(|(known, under)| Arc::ptr_eq(known, waiter) && *under == token) {
            *watcher = Some((Arc::clone(waiter), token));
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.notify();
    }

    pub(super) fn manage(&self) {
        self.managed.store(true, Ordering::Release);
    }

    #[inline]
    pub(super) fn has_news(&self) -> bool {
        self.news.load(Ordering::Acquire)
    }

    /// Records `now` as the time of the member's last progress.
    #[inline]
    pub(super) fn see(&self, now: Duration) {
        // Relaxed, because the timer may see this a little late.
        self.seen.store(nanos(now), Ordering::Relaxed);
    }

    pub(super) fn activity(&self) -> Activity {
        match self.seen.load(Ordering::SeqCst) {
            NEVER => Activity::Waiting,
            nanos => Activity::Working(Duration::from_nanos(nanos)),
        }
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    // The highest value is 584 years.
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into()).min(NEVER - 1)
}
