//! One thread that waits for several sources, such as partitions or topics.

use slipring_ring::{Idle, Wait, Waiter};
use std::sync::Arc;
use std::time::Instant;

/// The sources that a thread waits for, each with a number.
pub(crate) trait WaitSources {
    /// True if the source has something for its reader: events, an end or an error. `looks` is the count of checks in a
    /// row that have found nothing.
    fn look(&mut self, source: usize, looks: u32) -> bool;

    /// Registers `waiter` to be woken with the source's number when the source may have something. False if it has
    /// something by now.
    fn arm(&mut self, source: usize, waiter: &Waiter) -> bool;

    /// True if the reader must return to its caller first, for example because partitions were added.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// Why a [`MultiWait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wakeup {
    /// This source has events, an end or an error.
    Source(usize),
    /// Another thread has woken the waiter, or [`WaitSources::is_interrupted`] is true.
    Interrupted,
    /// The deadline has passed, or nothing was found without waiting.
    Nothing,
}

/// Waits for several sources. An idle source is armed once, and costs nothing until its bell wakes the waiter.
pub(crate) struct MultiWait {
    /// Parks the waiting thread. Other threads may wake it with [`WAKE`](Self::WAKE).
    pub(crate) waiter: Arc<Waiter>,
    pub(crate) wait: Wait,
    /// Numbers of the sources to be checked at each call. All other sources are armed.
    ready: Vec<usize>,
    armed: Vec<bool>,
    /// Index in `ready` of the next source to be checked.
    turn: usize,
    /// Count of returned sources since the armed ones were last asked.
    finds: u32,
    /// If true, the lowest number goes first; if false, the sources take turns.
    by_number: bool,
}

/// Count of returned sources after which the armed ones are asked if they rang, so that busy sources do not starve
/// them.
const PATIENCE: u32 = 16;

impl MultiWait {
    /// The number under which other threads wake the waiter.
    pub(crate) const WAKE: usize = usize::MAX;

    pub(crate) fn new(wait: Wait, waiter: Arc<Waiter>) -> Self {
        Self { waiter, wait, ready: Vec::new(), armed: Vec::new(), turn: 0, finds: 0, by_number: false }
    }

    /// Sets that the source with the lowest number always goes first.
    pub(crate) fn by_number(mut self, yes: bool) -> Self {
        self.by_number = yes;
        self
    }

    /// Adds a source. The numbers are small, and begin at 0.
    pub(crate) fn add(&mut self, source: usize) {
        if self.armed.len() <= source {
            self.armed.resize(source + 1, false);
        }
        self.armed[source] = false;
        if !self.ready.contains(&source) {
            self.ready.push(source);
        }
    }

    /// Removes a source, for example at its end. A last wake-up by it is ignored.
    pub(crate) fn remove(&mut self, source: usize) {
        self.ready.retain(|&ready| ready != source);
        if let Some(armed) = self.armed.get_mut(source) {
            *armed = false;
        }
    }

    /// Returns the next source with something for its reader. Waits until `deadline`, or without limit if that is
    /// `None`; with `now` it does not wait.
    #[inline]
    pub(crate) fn next(&mut self, watched: &mut impl WaitSources, now: bool, deadline: Option<Instant>) -> Wakeup {
        self.finds += 1;
        let asks = (self.finds >= PATIENCE || self.by_number) && self.ready.len() < self.armed.len();
        if asks && self.ask_the_armed() {
            return Wakeup::Interrupted;
        }
        match self.sweep(watched, 0) {
            Some(source) => Wakeup::Source(source),
            None => self.wait(watched, now, deadline),
        }
    }

    #[inline]
    fn sweep(&mut self, watched: &mut impl WaitSources, looks: u32) -> Option<usize> {
        if self.by_number {
            self.ready.sort_unstable();
            self.turn = 0;
        }
        for _ in 0..self.ready.len() {
            if self.turn >= self.ready.len() {
                self.turn = 0;
            }
            let source = self.ready[self.turn];
            self.turn += 1;
            if watched.look(source, looks) {
                return Some(source);
            }
        }
        None
    }

    /// Asks which armed sources rang. True if another thread has woken the waiter.
    fn ask_the_armed(&mut self) -> bool {
        self.finds = 0;
        let mut woken = false;
        let Self { waiter, ready, armed, .. } = self;
        waiter.take(|source| woken |= rung(source, ready, armed));
        woken
    }

    fn wait(&mut self, watched: &mut impl WaitSources, now: bool, deadline: Option<Instant>) -> Wakeup {
        let mut looks: u32 = 0;
        loop {
            if self.ready.len() < self.armed.len() && (now || looks.is_multiple_of(PATIENCE)) && self.ask_the_armed() {
                return Wakeup::Interrupted;
            }
            // A check has found nothing before this loop, so the pause between two batches has been made.
            if let Some(source) = self.sweep(watched, looks + 1) {
                return Wakeup::Source(source);
            }
            if watched.is_interrupted() {
                return Wakeup::Interrupted;
            }
            if now {
                return Wakeup::Nothing;
            }
            looks = (looks + 1).min(u32::MAX - 1);
            if self.wait.idle(looks) == Idle::Look {
                // Reading the clock costs about as much as a check, so it is read only at every 16th.
                let due = looks.is_multiple_of(16) && deadline.is_some_and(|deadline| deadline <= Instant::now());
                if due {
                    return self.sweep(watched, looks).map_or(Wakeup::Nothing, Wakeup::Source);
                }
                continue;
            }
            if !self.arm_all(watched) {
                continue;
            }
            // Another thread sets the interruption first and wakes the waiter then, so it is seen here, or it ends the
            // park.
            if watched.is_interrupted() {
                return Wakeup::Interrupted;
            }
            let mut woken = false;
            let Self { waiter, ready, armed, .. } = &mut *self;
            if !waiter.park(deadline, |source| woken |= rung(source, ready, armed)) {
                return Wakeup::Nothing;
            }
            if woken {
                return Wakeup::Interrupted;
            }
        }
    }

    /// For a task that has just found nothing: registers it to be woken. False if there is something by now.
    #[cfg(feature = "async")]
    pub(crate) fn wake(&mut self, watched: &mut impl WaitSources, task: &std::task::Waker) -> bool {
        if !self.arm_all(watched) || watched.is_interrupted() {
            return false;
        }
        let Self { waiter, ready, armed, .. } = self;
        !waiter.take_or_wake(task, |source| _ = rung(source, ready, armed))
    }

    /// Arms all sources that are ready. False if one has something by now.
    fn arm_all(&mut self, watched: &mut impl WaitSources) -> bool {
        while let Some(&source) = self.ready.last() {
            if !watched.arm(source, &self.waiter) {
                return false;
            }
            self.ready.pop();
            self.armed[source] = true;
        }
        true
    }
}

/// Marks a source that rang as ready. True if the number is [`MultiWait::WAKE`], so that another thread has woken the
/// waiter.
fn rung(source: usize, ready: &mut Vec<usize>, armed: &mut [bool]) -> bool {
    if let Some(armed) = armed.get_mut(source) {
        if std::mem::replace(armed, false) {
            ready.push(source);
        }
        return false;
    }
    source == MultiWait::WAKE
}
