//! One thread that waits for several sources, such as partitions or topics.
//!
//! A source is *ready* or *armed*. A call checks the ready sources. An armed source costs nothing until its bell wakes the
//! waiter. The cost of a call does not grow with the number of sources:
//! - A source whose last [`QUIET`] checks have found nothing is armed, while more than [`FEW`] sources are ready. So a call
//!   checks the sources that have events now and then, and at most [`FEW`] others.
//! - A thread that waits makes as many checks before it sleeps as its [`Wait`] has, of all sources together, and then arms the
//!   ready sources.
//! - It pauses between short batches (see [`Wait::pause`]) at most once a call, and never in a call that does not wait.
//!
//! No event is missed. `arm` checks once more after the arming (the handshake of [`Waiter`]), so each later event wakes the
//! waiter with the number of its source. The number stays in the waiter until this thread takes it, in
//! [`ask_the_armed`](MultiWait::ask_the_armed) or when it wakes up, and then the source is ready again. This holds whether or
//! not the thread sleeps between the two.

use slipring_ring::{Idle, Wait, Waiter};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The sources that a thread waits for, each with a number.
pub(crate) trait WaitSources {
    /// True if the source has something for its reader: events, an end or an error. `looks` is the count of checks in a
    /// row that have found nothing, and 0 if the check may pause first.
    fn look(&mut self, source: usize, looks: u32) -> bool;

    /// True if the source may be armed in a call that does not sleep.
    fn may_rest(&self, source: usize) -> bool {
        let _ = source;
        true
    }

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
    /// Count of the last checks of each source that have found nothing.
    quiet: Vec<u32>,
    /// Index in `ready` of the next source to be checked.
    turn: usize,
    /// Count of returned sources since the armed ones were last asked.
    finds: u32,
    /// If true, the lowest number goes first; if false, the sources take turns.
    by_number: bool,
    /// Says if spinning pays. `None` if the thread always spins as its [`Wait`] says.
    pace: Option<FindPace>,
}

/// Count of returned sources, or of checks that have found nothing, after which the armed sources are asked if they rang, so
/// that busy sources do not starve them.
const PATIENCE: u32 = 16;

/// Count of checks that find nothing after which a source is quiet. Arming a source costs about as much as so many checks.
const QUIET: u32 = 64;

/// Count of ready sources that are never armed for being quiet, since a check costs less than the wake-up of an armed source.
const FEW: usize = 16;

/// If two finds are closer than this, spinning until the second one costs less than a sleep.
const CLOSE: Duration = Duration::from_micros(100);

/// How closely the finds of a thread's waits follow one another.
#[derive(Clone, Copy, Debug, Default)]
struct FindPace {
    /// When the last wait ended with a source. `None` before the first.
    found_at: Option<Instant>,
    /// True if the next wait spins before it sleeps.
    is_close: bool,
}

impl MultiWait {
    /// The number under which other threads wake the waiter.
    pub(crate) const WAKE: usize = usize::MAX;

    pub(crate) fn new(wait: Wait, waiter: Arc<Waiter>) -> Self {
        let (ready, armed, quiet) = (Vec::new(), Vec::new(), Vec::new());
        Self { waiter, wait, ready, armed, quiet, turn: 0, finds: 0, by_number: false, pace: None }
    }

    /// Sets that the thread spins only while finds follow one another closely: after it has spun in vain, it sleeps at once in
    /// each wait, until two finds are less than [`CLOSE`] apart. For threads of the engine, whose waiting no user has chosen.
    pub(crate) fn sparing(mut self) -> Self {
        self.pace = Some(FindPace { found_at: None, is_close: true });
        self
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
            self.quiet.resize(source + 1, 0);
        }
        self.armed[source] = false;
        self.quiet[source] = 0;
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
        match self.find(watched, !now) {
            Wakeup::Nothing => self.wait(watched, now, deadline),
            found => found,
        }
    }

    /// Checks each ready source once, and does not wait. With `pauses`, for a caller that waits if this finds nothing, the first
    /// check may pause.
    #[inline]
    pub(crate) fn find(&mut self, watched: &mut impl WaitSources, pauses: bool) -> Wakeup {
        self.finds += 1;
        let asks = (self.finds >= PATIENCE || self.by_number) && self.ready.len() < self.armed.len();
        if asks && self.ask_the_armed() {
            return Wakeup::Interrupted;
        }
        self.sweep(watched, u32::from(!pauses)).map_or(Wakeup::Nothing, Wakeup::Source)
    }

    #[inline]
    fn sweep(&mut self, watched: &mut impl WaitSources, mut looks: u32) -> Option<usize> {
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
                self.quiet[source] = 0;
                return Some(source);
            }
            // One pause a call is enough.
            looks = looks.max(1);
            self.quiet[source] += 1;
            if self.quiet[source] >= QUIET {
                self.rest(watched, source);
            }
        }
        None
    }

    /// Arms the source that was checked last and is quiet, unless few sources are ready.
    #[cold]
    fn rest(&mut self, watched: &mut impl WaitSources, source: usize) {
        self.quiet[source] = 0;
        if self.ready.len() > FEW && watched.may_rest(source) && watched.arm(source, &self.waiter) {
            self.turn -= 1;
            self.ready.remove(self.turn);
            self.armed[source] = true;
        }
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
        // The count of checks of all sources together, and that count when the armed sources and the clock were asked last.
        let (mut looks, mut asked, mut timed): (u64, u64, u64) = (0, 0, 0);
        let mut sweeps: u32 = 0;
        loop {
            let asks = now || looks == 0 || looks - asked >= u64::from(PATIENCE);
            if asks && self.ready.len() < self.armed.len() {
                asked = looks;
                if self.ask_the_armed() {
                    return Wakeup::Interrupted;
                }
            }
            // A check has found nothing before this loop, so the pause between two batches has been made.
            sweeps = (sweeps + 1).min(u32::MAX - 1);
            if let Some(source) = self.sweep(watched, sweeps) {
                return self.found(source);
            }
            if watched.is_interrupted() {
                return Wakeup::Interrupted;
            }
            if now {
                return Wakeup::Nothing;
            }
            looks += self.ready.len().max(1) as u64;
            let in_a_row = u32::try_from(looks).unwrap_or(u32::MAX).min(u32::MAX - 1);
            if self.pace.is_none_or(|pace| pace.is_close) && self.wait.idle(in_a_row) == Idle::Look {
                // Reading the clock costs about as much as a check, so it is read only after every 16.
                if looks - timed >= 16 {
                    timed = looks;
                    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        return self.sweep(watched, sweeps).map_or(Wakeup::Nothing, Wakeup::Source);
                    }
                }
                continue;
            }
            // It has spun in vain. The next find says if it spins again.
            if let Some(pace) = &mut self.pace {
                pace.is_close = false;
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

    /// Ends a wait with this source.
    fn found(&mut self, source: usize) -> Wakeup {
        if let Some(pace) = &mut self.pace {
            let now = Instant::now();
            let before = pace.found_at.replace(now);
            pace.is_close = before.is_some_and(|before| now.saturating_duration_since(before) < CLOSE);
        }
        Wakeup::Source(source)
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

#[cfg(test)]
mod tests;
