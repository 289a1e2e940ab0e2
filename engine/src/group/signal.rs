//! The atomic flags and times through which a member and its group communicate without a lock.

use super::assignment::MemberId;
use super::coordinator::Activity;
use crate::base::ids::next_reader;
use crate::base::multi_wait::MultiWait;
use crate::base::watchers::Watchers;
use slipring_ring::Waiter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The number of nanoseconds that stands for a time that never comes.
pub(super) const NEVER: u64 = u64::MAX;

/// The state that a member and its group share.
pub(super) struct MemberSignal {
    /// The member's [number](crate::base::ids::next_reader).
    pub(super) number: usize,
    /// The member's number in its group.
    pub(super) member: MemberId,
    /// True if the member must ask the group for changes at its next poll.
    pub(super) news: AtomicBool,
    /// True if the member must end. Set by [`GroupRun::stop`](crate::group::GroupRun::stop).
    pub(super) stopped: AtomicBool,
    /// True if the member is managed, that is, polled by a thread of its own.
    pub(super) managed: AtomicBool,
    /// The time of the member's last progress, in nanoseconds of the engine's clock; `NEVER` while it waits for events.
    pub(super) seen: AtomicU64,
    pub(super) waiter: Arc<Waiter>,
    /// The selectors that wait for this member, so that they poll it.
    pub(super) watchers: Watchers,
}

impl MemberSignal {
    pub(super) fn new(member: MemberId, now: Duration) -> Self {
        Self {
            member,
            number: next_reader(),
            news: AtomicBool::new(true),
            stopped: AtomicBool::new(false),
            managed: AtomicBool::new(false),
            seen: AtomicU64::new(nanos(now)),
            waiter: Arc::new(Waiter::new()),
            watchers: Watchers::default(),
        }
    }

    pub(super) fn notify(&self) {
        self.news.store(true, Ordering::Release);
        self.waiter.wake(MultiWait::WAKE);
        self.watchers.wake();
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
        // Relaxed: if the timer's thread sees an older time, a deadline seems to pass a little earlier, which does no
        // harm.
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
    // The greatest number of nanoseconds is 584 years; longer times are capped just below `NEVER`.
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into()).min(NEVER - 1)
}
