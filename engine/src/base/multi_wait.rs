//! A wait of one thread for several sources of events, such as partitions or topics.
//!
//! A source is *ready* or *armed*. Each call checks the ready sources for events. An armed source has registered the
//! thread's [`Waiter`]: it is not checked, and costs nothing, until its next event wakes the waiter with the source's
//! number. The cost of a call does not grow with the number of sources:
//! - A source whose last [`QUIET`] checks have found nothing is armed, while more than [`FEW`] sources are ready. So a
//!   call checks the busy sources, and at most [`FEW`] others.
//! - A waiting thread makes as many checks before it sleeps as its [`Wait`] allows, of all sources together. Then it
//!   arms the ready sources and sleeps.
//! - A thread pauses between short batches (see [`Wait::pause`]) at most once a call, and never in a call that does not
//!   wait.
//!
//! No event is missed. Arming a source checks it once more after the registration (the handshake of [`Waiter`]), so
//! each later event wakes the waiter with the source's number. The waiter keeps the number until this thread takes it,
//! in [`ask_the_armed`](MultiWait::ask_the_armed) or when it wakes up. Then the source is ready again. This holds
//! whether the thread sleeps in between or not.

use crate::base::wakeup::{WakeFlag, WakeTarget, Wakeup};
use slipring_ring::{Idle, Wait, Waiter};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The sources of events that a thread waits for, such as partitions. Each has a number.
pub(crate) trait WaitSources {
    /// True if the source has events, an end or an error for its reader. `looks` is the count of checks in a row that
    /// have found nothing; 0 if this check may pause first to gather a larger batch.
    fn look(&mut self, source: usize, looks: u32) -> bool;

    /// True if the source may be armed even in a call that does not sleep. Default: true.
    fn may_rest(&self, source: usize) -> bool {
        let _ = source;
        true
    }

    /// Registers `waiter` to be woken with the source's number by the source's next event, end or error. Returns false
    /// if the source has one already: then it must be checked, and is not armed.
    fn arm(&mut self, source: usize, waiter: &Waiter) -> bool;

    /// Called before the thread arms the ready sources in order to sleep, even if one of them then has an event, so
    /// that the thread does not sleep. Default: nothing.
    fn begin_sleep(&mut self) {}

    /// True if the wait must return [`WaitEnd::Interrupted`] to its caller now, for example because partitions were
    /// added. Default: false.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// Why a [`MultiWait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitEnd {
    /// The source with this number has events, an end or an error.
    Source(usize),
    /// Another thread has woken the waiter with [`MultiWait::WAKE`], or [`WaitSources::is_interrupted`] is true.
    Interrupted,
    /// The deadline has passed, a [`Wakeup`] has ended the wait, or a call that does not wait has found no events.
    Nothing,
}

/// The state of one thread's wait for several sources: which are checked at each call, and which are armed. See the
/// [module](self).
pub(crate) struct MultiWait {
    /// Parks the waiting thread. Other threads may wake it with [`WAKE`](Self::WAKE).
    pub(crate) waiter: Arc<Waiter>,
    pub(crate) wait: Wait,
    /// Numbers of the sources to be checked at each call. All other sources are armed.
    ready: Vec<usize>,
    armed: Vec<bool>,
    /// For each source: how many checks in a row have found nothing.
    quiet: Vec<u32>,
    /// Index in `ready` of the next source to be checked; the length of `ready` stands for 0.
    turn: usize,
    /// Count of calls that checked the sources since the wake-ups of the armed ones were last taken.
    finds: u32,
    /// If true, each call checks the source with the lowest number first; if false, the sources are checked in
    /// rotation.
    by_number: bool,
    /// Decides if the thread spins before it sleeps. `None` if the thread always spins as long as its [`Wait`] allows.
    pace: Option<FindPace>,
    outside: Arc<Outside>,
}

/// The part of a [`MultiWait`] that the handles of other threads reach.
struct Outside {
    flag: WakeFlag,
    /// The waiter of the `MultiWait`, which [`MultiWait::renew`] may replace.
    waiter: Mutex<Arc<Waiter>>,
}

impl WakeTarget for Outside {
    fn flag(&self) -> &WakeFlag {
        &self.flag
    }

    fn rouse(&self) {
        // Waking may run a task, which is user code, so the lock is released first.
        let waiter = Arc::clone(&self.waiter.lock().unwrap_or_else(PoisonError::into_inner));
        waiter.wake(MultiWait::WAKE);
    }
}

/// Count of calls, or of checks that have found nothing, after which the wake-ups of the armed sources are taken, so
/// that busy sources do not starve them.
const PATIENCE: u32 = 16;

/// Count of checks in a row without events after which a source is armed. Arming a source costs about as much as that
/// many checks.
const QUIET: u32 = 64;

/// Count of ready sources up to which no source is armed in a call that does not sleep, because checking so few costs
/// less than a wake-up.
const FEW: usize = 16;

/// Greatest time between two events at which spinning until the second one costs less than a sleep.
const CLOSE: Duration = Duration::from_micros(100);

/// When the last wait ended with an event, and if the next wait spins: see [`MultiWait::sparing`].
#[derive(Clone, Copy, Debug, Default)]
struct FindPace {
    /// When the last wait ended with an event; `None` before the first.
    found_at: Option<Instant>,
    /// True if the next wait spins before it sleeps.
    is_close: bool,
}

impl MultiWait {
    /// The number with which other threads wake the waiter, and which is no source's number.
    pub(crate) const WAKE: usize = usize::MAX;

    pub(crate) fn new(wait: Wait, waiter: Arc<Waiter>) -> Self {
        let outside = Arc::new(Outside { flag: WakeFlag::default(), waiter: Mutex::new(Arc::clone(&waiter)) });
        let (ready, armed, quiet) = (Vec::new(), Vec::new(), Vec::new());
        Self { waiter, wait, ready, armed, quiet, turn: 0, finds: 0, by_number: false, pace: None, outside }
    }

    /// Removes all sources, and waits with `waiter` from now on. Handles from [`wakeup`](Self::wakeup) stay valid.
    pub(crate) fn renew(&mut self, waiter: Arc<Waiter>) {
        let before = {
            let mut known = self.outside.waiter.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *known, Arc::clone(&waiter))
        };
        drop(before);
        self.waiter = waiter;
        (self.turn, self.finds) = (0, 0);
        self.ready.clear();
        self.armed.clear();
        self.quiet.clear();
    }

    /// A handle by which another thread ends the present or the next wait.
    pub(crate) fn wakeup(&self) -> Wakeup {
        Wakeup::new(&self.outside)
    }

    /// Makes the thread spin only while events follow one another closely. Once it has spun and had to sleep, each
    /// later wait sleeps at once, until two events are less than [`CLOSE`] apart. For threads of the engine, whose wait
    /// strategy no user has chosen.
    pub(crate) fn sparing(mut self) -> Self {
        self.pace = Some(FindPace { found_at: None, is_close: true });
        self
    }

    /// If `yes`, each call checks the source with the lowest number first, so lower numbers have priority. Default: in
    /// rotation.
    pub(crate) fn by_number(mut self, yes: bool) -> Self {
        self.by_number = yes;
        self
    }

    /// Adds a source as ready. Numbers index an array, so they are small and begin at 0.
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

    /// Removes a source, for example at its end. A later wake-up with its number is ignored.
    pub(crate) fn remove(&mut self, source: usize) {
        self.ready.retain(|&ready| ready != source);
        if let Some(armed) = self.armed.get_mut(source) {
            *armed = false;
        }
    }

    /// Returns the next source with events, an end or an error. If there is none: waits until `deadline` (`None`:
    /// without limit), or, if `now` is true, returns [`WaitEnd::Nothing`] without waiting.
    #[inline]
    pub(crate) fn next(&mut self, watched: &mut impl WaitSources, now: bool, deadline: Option<Instant>) -> WaitEnd {
        match self.find(watched, !now) {
            WaitEnd::Nothing => self.wait(watched, now, deadline),
            found => found,
        }
    }

    /// Checks each ready source once, without waiting. If `pauses` is true, the first check may pause to gather a
    /// larger batch: for callers that would wait next anyway.
    #[inline]
    pub(crate) fn find(&mut self, watched: &mut impl WaitSources, pauses: bool) -> WaitEnd {
        self.finds += 1;
        let asks = (self.finds >= PATIENCE || self.by_number) && self.ready.len() < self.armed.len();
        if asks && self.ask_the_armed() {
            return WaitEnd::Interrupted;
        }
        self.sweep(watched, u32::from(!pauses)).map_or(WaitEnd::Nothing, WaitEnd::Source)
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
            // At most one pause a call: a count above 0 makes the later checks not pause.
            looks = looks.max(1);
            self.quiet[source] += 1;
            if self.quiet[source] >= QUIET {
                self.rest(watched, source);
            }
        }
        None
    }

    /// Arms `source`, the source checked last, whose last [`QUIET`] checks have found nothing. Does nothing if at most
    /// [`FEW`] sources are ready, the source [may not rest](WaitSources::may_rest), or it has an event by now.
    #[cold]
    fn rest(&mut self, watched: &mut impl WaitSources, source: usize) {
        self.quiet[source] = 0;
        if self.ready.len() > FEW && watched.may_rest(source) && watched.arm(source, &self.waiter) {
            self.turn -= 1;
            self.ready.remove(self.turn);
            self.armed[source] = true;
        }
    }

    /// Takes the wake-ups that the waiter has received, and marks their sources as ready. Returns true if one was
    /// [`Self::WAKE`], from another thread.
    fn ask_the_armed(&mut self) -> bool {
        self.finds = 0;
        let mut woken = false;
        let Self { waiter, ready, armed, .. } = self;
        waiter.take(|source| woken |= rung(source, ready, armed));
        woken
    }

    fn wait(&mut self, watched: &mut impl WaitSources, now: bool, deadline: Option<Instant>) -> WaitEnd {
        // `looks` counts the checks of all sources together. `asked` and `timed` are its values when the wake-ups were
        // last taken and when the clock was last read.
        let (mut looks, mut asked, mut timed): (u64, u64, u64) = (0, 0, 0);
        let mut sweeps: u32 = 0;
        loop {
            let asks = now || looks == 0 || looks - asked >= u64::from(PATIENCE);
            if asks && self.ready.len() < self.armed.len() {
                asked = looks;
                if self.ask_the_armed() {
                    return WaitEnd::Interrupted;
                }
            }
            // The check before this loop has made the pause between two batches, so the count starts at 1 here.
            sweeps = (sweeps + 1).min(u32::MAX - 1);
            if let Some(source) = self.sweep(watched, sweeps) {
                return self.found(source);
            }
            if watched.is_interrupted() {
                return WaitEnd::Interrupted;
            }
            // A handle sets the flag before it wakes the waiter. So the flag is seen here, or the wake-up ends the park
            // below, and the caller waits again. A wake-up that was taken earlier has shown the flag to this thread.
            if now || self.outside.flag.take() {
                return WaitEnd::Nothing;
            }
            looks += self.ready.len().max(1) as u64;
            let in_a_row = u32::try_from(looks).unwrap_or(u32::MAX).min(u32::MAX - 1);
            if self.pace.is_none_or(|pace| pace.is_close) && self.wait.idle(in_a_row) == Idle::Look {
                // Reading the clock costs about as much as a check, so the deadline is checked only after every 16
                // checks.
                if looks - timed >= 16 {
                    timed = looks;
                    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        return self.sweep(watched, sweeps).map_or(WaitEnd::Nothing, WaitEnd::Source);
                    }
                }
                continue;
            }
            // The thread has spun without finding an event, so it does not spin again until `found` sets this.
            if let Some(pace) = &mut self.pace {
                pace.is_close = false;
            }
            watched.begin_sleep();
            if !self.arm_all(watched) {
                continue;
            }
            // Another thread sets the interruption before it wakes the waiter. So the interruption is seen here, or the
            // wake-up ends the park below.
            if watched.is_interrupted() {
                return WaitEnd::Interrupted;
            }
            let mut woken = false;
            let Self { waiter, ready, armed, .. } = &mut *self;
            if !waiter.park(deadline, |source| woken |= rung(source, ready, armed)) {
                return WaitEnd::Nothing;
            }
            if woken {
                return WaitEnd::Interrupted;
            }
        }
    }

    /// Returns [`WaitEnd::Source`] for an event that ended a wait, and notes its time for [`sparing`](Self::sparing).
    fn found(&mut self, source: usize) -> WaitEnd {
        if let Some(pace) = &mut self.pace {
            let now = Instant::now();
            let before = pace.found_at.replace(now);
            pace.is_close = before.is_some_and(|before| now.saturating_duration_since(before) < CLOSE);
        }
        WaitEnd::Source(source)
    }

    /// For a task whose last check has found nothing: registers `task` to be woken by the next event. Returns false if
    /// a source has an event already or the wait is interrupted: then the task must check again.
    #[cfg(feature = "async")]
    pub(crate) fn wake(&mut self, watched: &mut impl WaitSources, task: &std::task::Waker) -> bool {
        if !self.arm_all(watched) || watched.is_interrupted() {
            return false;
        }
        let Self { waiter, ready, armed, .. } = self;
        !waiter.take_or_wake(task, |source| _ = rung(source, ready, armed))
    }

    /// Arms all ready sources. Returns false, with some sources still ready, if one has an event already.
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

/// Handles a wake-up with the number `source`: marks that source as ready. Returns true if the number is
/// [`MultiWait::WAKE`], that is, another thread has woken the waiter.
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
