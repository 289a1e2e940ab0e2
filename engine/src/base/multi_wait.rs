//! One thread that waits for many sources: partitions, topics.

use slipring_ring::{Idle, Wait, Waiter};
use std::sync::Arc;
use std::time::Instant;

/// What somebody waits for, each source under a number.
pub(crate) trait WaitSources {
    /// Whether this source has something for its reader: events, an end, a refusal. `looks` is how many looks in a row
    /// found nothing.
    fn look(&mut self, source: usize, looks: u32) -> bool;

    /// Has `waiter` woken with the source's number when that may have changed; false if there is something already.
    fn arm(&mut self, source: usize, waiter: &Waiter) -> bool;

    /// Whether something else is to be done first.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// Why a [`MultiWait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wakeup {
    /// This source has something.
    Source(usize),
    /// Somebody woke the waiter, or [`WaitSources::is_interrupted`].
    Interrupted,
    /// The deadline came.
    Nothing,
}

/// Waits over many sources. A source that is idle is armed once and costs nothing until it rings.
pub(crate) struct MultiWait {
    /// Others may wake it with [`WAKE`](Self::WAKE).
    pub(crate) waiter: Arc<Waiter>,
    pub(crate) wait: Wait,
    /// To be looked at; all others are armed.
    ready: Vec<usize>,
    armed: Vec<bool>,
    /// Whose turn it is among the ready ones.
    turn: usize,
    /// Finds since the armed ones were asked.
    finds: u32,
    /// The lowest number goes first, not who was not served for the longest time.
    by_number: bool,
}

/// How many finds the ready sources may have before the armed ones are asked whether they rang.
const PATIENCE: u32 = 16;

impl MultiWait {
    /// The number under which others wake the waiter.
    pub(crate) const WAKE: usize = usize::MAX;

    pub(crate) fn new(wait: Wait, waiter: Arc<Waiter>) -> Self {
        Self { waiter, wait, ready: Vec::new(), armed: Vec::new(), turn: 0, finds: 0, by_number: false }
    }

    /// Serves the source with the lowest number first, whenever it has something.
    pub(crate) fn by_number(mut self, yes: bool) -> Self {
        self.by_number = yes;
        self
    }

    /// One more source. The numbers are small, and begin at 0.
    pub(crate) fn add(&mut self, source: usize) {
        if self.armed.len() <= source {
            self.armed.resize(source + 1, false);
        }
        self.armed[source] = false;
        if !self.ready.contains(&source) {
            self.ready.push(source);
        }
    }

    /// A source that has come to its end. It may ring once more, for nothing.
    pub(crate) fn remove(&mut self, source: usize) {
        self.ready.retain(|&ready| ready != source);
        if let Some(armed) = self.armed.get_mut(source) {
            *armed = false;
        }
    }

    /// The next source with something to read, each in its turn; waits until `deadline`, or without end. With `now` it
    /// never waits.
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

    /// Whether somebody else woke the waiter.
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
            // There was an empty look before the first of these: the pause between batches has been made.
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
                // A reading of the clock costs about as much as a look.
                let due = looks.is_multiple_of(16) && deadline.is_some_and(|deadline| deadline <= Instant::now());
                if due {
                    return self.sweep(watched, looks).map_or(Wakeup::Nothing, Wakeup::Source);
                }
                continue;
            }
            if !self.arm_all(watched) {
                continue;
            }
            // Set before the waiter is woken, so that this look or the wake-up sees it.
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

    /// For a task that has just found nothing: has it woken when that changes. False if it has changed already.
    #[cfg(feature = "async")]
    pub(crate) fn wake(&mut self, watched: &mut impl WaitSources, task: &std::task::Waker) -> bool {
        if !self.arm_all(watched) || watched.is_interrupted() {
            return false;
        }
        let Self { waiter, ready, armed, .. } = self;
        !waiter.take_or_wake(task, |source| _ = rung(source, ready, armed))
    }

    /// False if a source has something after all.
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

/// Makes a source that rang ready. True if it was no source but somebody who wakes.
fn rung(source: usize, ready: &mut Vec<usize>, armed: &mut [bool]) -> bool {
    if let Some(armed) = armed.get_mut(source) {
        if std::mem::replace(armed, false) {
            ready.push(source);
        }
        return false;
    }
    source == MultiWait::WAKE
}
