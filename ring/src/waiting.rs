//! The wait loop of producers and consumers: it checks, pauses, and finally sleeps as [`crate::bell`] describes.

use crate::bell::Bell;
use crate::fault::{Fault, fault};
use crate::pace::Pace;
use crate::sync::{self, Arc, Instant};
use crate::wait::{Idle, Wait};
use crate::waiter::Waiter;
use crate::wakeup::Wakeup;

/// The condition for which a producer, consumer or worker waits. A *look* is one check of the condition.
pub(crate) trait Look {
    type Found;

    /// True if looks are as far apart as [`Pace::apart`] says. A consumer that looks too often takes the cache line of the
    /// published position from the producer, which needs it for writing, and gains nothing: it still waits for the cache
    /// line of the event. Measurements: `docs/decisions/`, 8, "Looking".
    const SPACED: bool = false;

    /// Checks the condition once. Returns what was found; `None` if the condition does not hold yet.
    fn look(&mut self) -> Option<Self::Found>;

    /// The bells (see [`crate::bell`]) that ring when the condition may have changed. `None` if it has changed already,
    /// so that another look is due. Called only before and after a registration for a wake-up.
    fn bells(&mut self) -> Option<Bells>;
}

/// One bell, or two if either may end the wait. The first is always there.
pub(crate) type Bells = [Option<Arc<Bell>>; 2];

/// A useless pause brings fewer events than this.
const TOO_FEW: u64 = 3;
/// After a useless pause, the count of short batches (fewer than [`TOO_FEW`] events) without a pause before them.
/// Measurements: `docs/decisions/`, 8, "Pausing".
const REST: u32 = 64;

/// The wait strategy of one consumer or producer, with the state of its waiting.
pub(crate) struct Waiting {
    wait: Wait,
    pace: Pace,
    /// Created at the start, so that the first sleep allocates nothing. `None` in a [`stand_in`](Self::stand_in) that
    /// has not slept yet.
    waiter: Option<Waiter>,
    /// The bells at which the waiter may still be registered.
    armed: Bells,
    /// Count of consecutive empty looks.
    looks: u32,
    /// The length of the adaptive pause, in spin hints.
    pause: u32,
    /// Count of short batches that are still to come without a pause: see [`REST`].
    rest: u32,
}

impl Waiting {
    pub(crate) fn new(wait: Wait) -> Self {
        let mut waiting = Self::stand_in(wait);
        waiting.waiter = Some(Waiter::new());
        waiting
    }

    /// A replacement for a `Waiting` that is moved out while it waits. If the strategy panics, the replacement stays.
    pub(crate) fn stand_in(wait: Wait) -> Self {
        let pace = Pace::of(&wait);
        Self { wait, pace, waiter: None, armed: [None, None], looks: 0, pause: 0, rest: 0 }
    }

    /// Waits as `wait` says from now on.
    pub(crate) fn set(&mut self, wait: Wait) {
        self.pace = Pace::of(&wait);
        self.wait = wait;
    }

    /// How this one waits.
    pub(crate) fn wait(&self) -> &Wait {
        &self.wait
    }

    /// A handle by which another thread ends the present or the next wait.
    pub(crate) fn wakeup(&mut self) -> Wakeup {
        Wakeup::new(&self.waiter.get_or_insert_default().shared)
    }

    /// Waits until a look succeeds, and returns what it found. `None` if `deadline` passes first, or a [`Wakeup`] ends
    /// the wait. Without a deadline, waits without a time limit.
    #[inline]
    pub(crate) fn until<L: Look>(&mut self, deadline: Option<Instant>, target: &mut L) -> Option<L::Found> {
        self.looks = 0;
        match target.look() {
            Some(found) => Some(found),
            None => self.until_slowly(deadline, target),
        }
    }

    fn until_slowly<L: Look>(&mut self, deadline: Option<Instant>, target: &mut L) -> Option<L::Found> {
        let apart = if L::SPACED { self.pace.apart } else { 1 };
        loop {
            self.looks = self.looks.saturating_add(1);
            let idle = self.wait.idle_after(self.looks, self.looks.saturating_mul(apart));
            if self.wait.hints() {
                (1..apart).for_each(|_| sync::spin_loop());
            }
            if let Some(found) = target.look() {
                return Some(found);
            }
            if self.waiter.as_ref().is_some_and(|waiter| waiter.shared.take_woken()) {
                return None;
            }
            if idle == Idle::Sleep {
                let Some(bells) = target.bells() else { continue };
                self.arm(&bells);
                if !fault(Fault::SleepWithoutASecondLook) {
                    if let Some(found) = target.look() {
                        return Some(found);
                    }
                    // The slowest stage, at whose bell this thread is registered, may have moved before it could see
                    // the registration. Then another stage may be the slowest now. Only the stage that is the slowest
                    // after the fence is sure to wake this thread.
                    let same = target.bells().is_some_and(|now| are_same(&bells, &now));
                    if !same && !fault(Fault::SleepAtTheBellOfTheLastBefore) {
                        continue;
                    }
                }
                if !self.waiter.get_or_insert_default().park_for_any(deadline) {
                    return target.look();
                }
            } else if let Some(deadline) = deadline {
                // Reading the clock costs about as much as a look, so it is read at every 16th look only.
                let due = self.looks.is_multiple_of(16) || cfg!(shuttle);
                if due && deadline.saturating_duration_since(Instant::now()).is_zero() {
                    return target.look();
                }
            }
        }
    }

    fn arm(&mut self, bells: &Bells) {
        let waiter = self.waiter.get_or_insert_default();
        let is_asked = |before: &Arc<Bell>| bells.iter().flatten().any(|bell| Arc::ptr_eq(bell, before));
        self.armed.iter().flatten().filter(|before| !is_asked(before)).for_each(|before| before.disarm(waiter));
        bells.iter().flatten().for_each(|bell| bell.arm(waiter, 0));
        Bell::fence(bells.iter().flatten().map(|bell| &**bell), waiter, 0);
        self.armed = bells.clone();
    }

    /// Executes the adaptive pause that [`learn`](Self::learn) has computed, so that the producer can write
    /// undisturbed: some spin hints if the last batches were short and followed one another closely, otherwise none.
    #[inline]
    pub(crate) fn pause(&self) {
        for _ in 0..self.pause {
            sync::spin_loop();
        }
    }

    /// Sets the count of consecutive empty looks, for a caller that counts them itself.
    #[inline]
    pub(crate) fn set_looks(&mut self, looks: u32) {
        self.looks = looks;
    }

    /// Adapts the pause before the next look to `len`, the count of events that this look found. Below `few` the pause
    /// becomes longer, so that the producer is disturbed less often; above `many` it becomes shorter, because the
    /// producer has to wait for room, or soon will. Measurements showed that steering between both is better than only
    /// doubling: see `docs/decisions/`, 3. The steps of one half up and one quarter down were not compared with others.
    #[inline]
    pub(crate) fn learn(&mut self, len: u64, few: u64, many: u64) {
        if self.looks > self.pace.closely {
            self.pause = 0;
        } else if len < TOO_FEW && (self.rest > 0 || self.pause >= self.pace.useless) {
            self.rest = if self.rest > 0 { self.rest - 1 } else { REST };
            self.pause = 0;
        } else if len < few {
            self.pause = (self.pause + self.pause / 2 + 1).min(self.pace.longest);
        } else if len > many {
            self.pause -= self.pause / 4;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(waiter) = &self.waiter {
            self.armed.iter().flatten().for_each(|bell| bell.disarm(waiter));
        }
    }
}

/// Arms `waiter`, that is, registers it for one wake-up with `token` when the condition may have changed. Returns
/// `None` if the waiter may sleep now, or what a look found: then it must not sleep.
pub(crate) fn arm<L: Look>(target: &mut L, waiter: &Waiter, token: usize) -> Option<L::Found> {
    loop {
        let Some(bells) = target.bells() else {
            match target.look() {
                Some(found) => return Some(found),
                None => continue,
            }
        };
        bells.iter().flatten().for_each(|bell| bell.arm(waiter, token));
        Bell::fence(bells.iter().flatten().map(|bell| &**bell), waiter, token);
        if fault(Fault::ArmedWithoutASecondLook) {
            return None;
        }
        if let Some(found) = target.look() {
            return Some(found);
        }
        // The stage at whose bell `waiter` is registered may have moved before it could see the registration. Only the
        // stage that is the slowest after the fence is sure to wake the waiter: see `until_slowly`.
        let same = target.bells().is_some_and(|now| are_same(&bells, &now));
        if same || fault(Fault::ArmedAtTheBellOfTheLastBefore) {
            return None;
        }
    }
}

fn are_same(some: &Bells, others: &Bells) -> bool {
    let address = |bell: &Option<Arc<Bell>>| bell.as_ref().map(|bell| std::ptr::from_ref::<Bell>(bell));
    some.each_ref().map(address) == others.each_ref().map(address)
}
