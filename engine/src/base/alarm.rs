//! Alarms: a moment of the engine's clock for which selectors wait.

use crate::base::clock::Clock;
use crate::base::timer::{Timer, TimerId};
use crate::base::watchers::Watchers;
use slipring_ring::Waiter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One moment that may be set anew, and the selectors to wake when it has come. It keeps the engine's timer, but not the
/// engine.
///
/// The timer's task stores that it has run, and then wakes the selectors under their lock. A selector registers under
/// that lock, and then checks if the task has run. So the selector sees that the moment has come, or is woken.
pub(crate) struct Alarm {
    timer: Arc<Timer>,
    clock: Arc<dyn Clock>,
    shared: Arc<AlarmState>,
    /// The number of the present setting, from 1 on. A task of an earlier setting changes nothing.
    setting: u64,
    task: Option<TimerId>,
}

#[derive(Default)]
struct AlarmState {
    /// The number of the last setting whose moment has come.
    passed: AtomicU64,
    watchers: Watchers,
}

impl AlarmState {
    fn pass(&self, setting: u64) {
        self.passed.fetch_max(setting, Ordering::AcqRel);
        self.watchers.wake();
    }
}

impl Alarm {
    /// An alarm that is not set. The timer has been [started](Timer::start).
    pub(crate) fn new(timer: Arc<Timer>, clock: Arc<dyn Clock>) -> Self {
        Self { timer, clock, shared: Arc::default(), setting: 1, task: None }
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Sets the alarm to the first moment at which the clock is at `due` or later.
    pub(crate) fn set(&mut self, due: Duration) {
        self.clear();
        let (shared, setting) = (Arc::clone(&self.shared), self.setting);
        self.task = Some(self.timer.at(due, move || shared.pass(setting)));
        // A clock that only a program moves may never move again, so its timer would not run the task of a moment that
        // has come by now.
        if self.clock.now() >= due {
            self.shared.pass(setting);
        }
    }

    /// Takes the setting back: the alarm counts as not passed until it is set again.
    pub(crate) fn clear(&mut self) {
        self.setting += 1;
        if let Some(task) = self.task.take() {
            self.timer.cancel(task);
        }
    }

    /// True if the alarm is set, and its moment has come.
    pub(crate) fn has_passed(&self) -> bool {
        self.shared.passed.load(Ordering::Acquire) == self.setting
    }

    /// Registers a selector's waiter to be woken under `token` each time the moment comes. False if it has come by now.
    pub(crate) fn arm(&self, waiter: &Arc<Waiter>, token: usize) -> bool {
        self.shared.watchers.add(waiter, token);
        !self.has_passed()
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;

    #[test]
    fn only_the_present_setting_counts_and_each_selector_is_woken() {
        let clock = ManualClock::new();
        let timer = Arc::new(Timer::new(Arc::new(clock.clone())));
        timer.start().unwrap();
        let mut alarm = Alarm::new(timer, Arc::new(clock.clone()));
        let waiters = [(); 2].map(|()| Arc::new(Waiter::new()));
        let woken = || waiters.each_ref().map(|waiter| waiter.take(|_| ()));
        assert!(!alarm.has_passed());
        alarm.set(clock.now() + Duration::from_secs(2));
        assert!(waiters.iter().all(|waiter| alarm.arm(waiter, 0)));
        clock.advance(Duration::from_secs(1));
        assert_eq!((alarm.has_passed(), woken()), (false, [false; 2]));
        clock.advance(Duration::from_secs(1));
        assert_eq!((alarm.has_passed(), woken()), (true, [true; 2]));
        assert!(!alarm.arm(&waiters[0], 0), "it has come");

        alarm.set(clock.now() + Duration::from_secs(1));
        assert!(!alarm.has_passed());
        alarm.set(clock.now() + Duration::from_secs(9));
        clock.advance(Duration::from_secs(5));
        assert_eq!((alarm.has_passed(), woken()), (false, [false; 2]), "the earlier setting is over");
        alarm.clear();
        clock.advance(Duration::from_secs(5));
        assert!(!alarm.has_passed());
        alarm.set(clock.now());
        assert_eq!(
            (alarm.has_passed(), woken()),
            (true, [true; 2]),
            "the clock need not move for a moment that is past"
        );
        alarm.set(Duration::MAX);
        assert!(!alarm.has_passed());
    }
}
