//! What one publish does when its partition is full: return an error, wait, or have a task woken.

use crate::base::timer::Timer;
use slipring_ring::Waiter;
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What one call of a producer does when its partition is full.
#[derive(Clone, Copy)]
pub(crate) enum WhenFull<'t> {
    /// Applies the topic's [`Overflow`](crate::topic::Overflow) policy.
    Policy,
    /// Returns an error, and counts the event as refused.
    Refuse,
    /// Returns an error, and does not count the event as refused, because the caller will try again.
    Later,
    /// Waits for room until this time, then returns an error.
    Until(Instant),
    /// Applies the topic's overflow policy. Where the policy waits, the publish returns an error instead, and the task
    /// is woken when it should try again.
    #[cfg_attr(not(feature = "async"), allow(dead_code))]
    Arm(&'t Task),
}

/// A publish by an async task: the waiter that wakes the task, and the state of its wait for room.
pub(crate) struct Task {
    pub(crate) waiter: Arc<Waiter>,
    /// The time of the first try, from which the patience with a [slow](crate::topic::Slow) consumer counts.
    pub(crate) begun: Instant,
    /// True if the last publish failed only for lack of room, and the waiter will be woken for the next try.
    pub(crate) waits: Cell<bool>,
}

#[cfg_attr(not(feature = "async"), allow(dead_code))]
impl Task {
    pub(crate) fn new() -> Self {
        Self { waiter: Arc::new(Waiter::new()), begun: Instant::now(), waits: Cell::new(false) }
    }

    /// Wakes the task after this time of the engine's clock. If the timer gets no thread, the task is woken at once, and
    /// tries again and again until the time has passed.
    pub(crate) fn wake_after(&self, timer: &Timer, time: Duration) {
        let waiter = Arc::clone(&self.waiter);
        self.waits.set(true);
        match timer.start() {
            Ok(()) => drop(timer.after(time, move || waiter.wake(0))),
            Err(_) => waiter.wake(0),
        }
    }
}

/// Sleeps for `left`, but at most 5 ms; yields the core if `left` is less than 20 µs. The caller checks its condition
/// again.
pub(crate) fn nap(left: Duration) {
    const LONGEST: Duration = Duration::from_millis(5);
    match left {
        left if left < Duration::from_micros(20) => std::thread::yield_now(),
        left => std::thread::sleep(left.min(LONGEST)),
    }
}
