//! The handle of a link with a shared ring.

use super::error::RingLinkEnd;
use crate::base::wakeup::Wakeup;
use crate::topic::ring_link::{RingLinkDescription, RingLinkState};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What the handles of a link share with its thread.
pub(super) struct LinkRun {
    pub(super) state: Arc<RingLinkState>,
    stopped: AtomicBool,
    ended: Mutex<Option<RingLinkEnd>>,
    told: Condvar,
}

impl LinkRun {
    pub(super) fn new(state: Arc<RingLinkState>) -> Arc<Self> {
        Arc::new(Self { state, stopped: AtomicBool::new(false), ended: Mutex::default(), told: Condvar::new() })
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn ended(&self) -> MutexGuard<'_, Option<RingLinkEnd>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self, end: RingLinkEnd) {
        self.state.end(end.to_string());
        *self.ended() = Some(end);
        self.told.notify_all();
    }
}

/// A thread of the engine that hands events on from a topic to a shared ring ([`Topic::share`](crate::Topic::share)), or
/// from a shared ring to a topic ([`Topic::feed_from`](crate::Topic::feed_from)).
///
/// Cloning gives another handle. Dropping the handles does not stop the link: it ends with its topic, and so with the
/// engine's [shutdown](crate::Engine::shutdown).
#[derive(Clone)]
pub struct RingLink {
    pub(super) run: Arc<LinkRun>,
    /// Ends the wait of the thread for events of the topic. `None` for a thread that looks by itself.
    pub(super) wakeup: Option<Wakeup>,
}

impl fmt::Debug for RingLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingLink({})", self.describe())
    }
}

impl RingLink {
    /// The ring, the link's name in it or in the topic, and how many events were handed on.
    pub fn describe(&self) -> RingLinkDescription {
        self.run.state.describe()
    }

    /// Count of events that were handed on since the link was opened.
    pub fn events(&self) -> u64 {
        self.run.state.events.load(Ordering::Relaxed)
    }

    /// Count of events that were not handed on, because there was no room: see
    /// [`WhenRingFull::Lose`](super::WhenRingFull::Lose).
    pub fn lost(&self) -> u64 {
        self.run.state.lost.load(Ordering::Relaxed)
    }

    /// Makes the link end after the events that it is handing on. Does not wait for the end.
    pub fn stop(&self) {
        self.run.stopped.store(true, Ordering::Release);
        if let Some(wakeup) = &self.wakeup {
            wakeup.wake();
        }
    }

    /// How the link has ended; `None` while it runs.
    pub fn ended(&self) -> Option<RingLinkEnd> {
        self.run.ended().clone()
    }

    /// Waits until the link has ended. It has left its topic and its ring by then.
    pub fn wait(&self) -> RingLinkEnd {
        let mut ended = self.run.ended();
        loop {
            if let Some(end) = &*ended {
                return end.clone();
            }
            ended = self.run.told.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
