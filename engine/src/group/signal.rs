//! What a member and its group tell one another without a lock.

use super::coordinator::Activity;
use crate::base::multi_wait::MultiWait;
use slipring_ring::Waiter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// No time at all.
pub(super) const NEVER: u64 = u64::MAX;

/// What a member and its group share.
pub(super) struct MemberSignal {
    /// The member is to look what changed for it.
    pub(super) news: AtomicBool,
    /// It is to end.
    pub(super) stopped: AtomicBool,
    /// It runs on a thread of its own.
    pub(super) managed: AtomicBool,
    /// When it was last seen, in nanoseconds of the engine's clock; `NEVER` while it waits for events.
    pub(super) seen: AtomicU64,
    pub(super) waiter: Arc<Waiter>,
    /// Somebody else's, who watches this member among others.
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

    pub(super) fn tell(&self) {
        self.news.store(true, Ordering::Release);
        self.waiter.wake(MultiWait::WAKE);
        let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((watcher, token)) = watcher {
            watcher.wake(token);
        }
    }

    /// Has the waiter of whoever watches this member woken as well, from the next news on.
    pub(super) fn watch(&self, waiter: &Arc<Waiter>, token: usize) {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if !watcher.as_ref().is_some_and(|(known, under)| Arc::ptr_eq(known, waiter) && *under == token) {
            *watcher = Some((Arc::clone(waiter), token));
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.tell();
    }

    pub(super) fn manage(&self) {
        self.managed.store(true, Ordering::Release);
    }

    #[inline]
    pub(super) fn has_news(&self) -> bool {
        self.news.load(Ordering::Acquire)
    }

    /// The member makes progress.
    #[inline]
    pub(super) fn see(&self, now: Duration) {
        // Seen a little late by the timer: no matter.
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
    // 584 years at most.
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into()).min(NEVER - 1)
}
