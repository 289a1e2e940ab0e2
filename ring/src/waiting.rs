//! The loop in which producers and consumers wait: look, pause, and at last sleep with the handshake of [`crate::bell`].

use crate::bell::{Bell, Waiter};
use crate::fault::{Fault, fault};
use crate::sync::{self, Arc, Instant};
use crate::wait::{Idle, Wait};

/// What a producer, consumer or worker waits for.
pub(crate) trait Look {
    type Found;

    /// The number of spin hints between two looks, beside those of the strategy. A consumer that looks too often takes the cache
    /// line of the published position away from a producer that has it for writing but still waits for the event's line.
    /// Measured: see `docs/decisions/`, 8, "Looking".
    const SPACING: u32 = 0;

    /// Looks once.
    fn look(&mut self) -> Option<Self::Found>;

    /// The bells that ring when the position that is waited for moves; none if it has moved already, so that another look is
    /// due. Asked before and after arming only.
    fn bells(&mut self) -> Option<Bells>;
}

/// One bell, or two if the wait may end at either.
pub(crate) type Bells = [Option<Arc<Bell>>; 2];

/// The most empty looks between two batches of which the second counts as following the first one closely. The number
/// was not compared with others.
const CLOSELY: u32 = 24;

/// A pause is in vain if it had at least so many hints and then brought fewer events than this: the producer is not held up by
/// the consumer's looks. Measured: see `docs/decisions/`, 8, "Pausing".
const WORTH: (u32, u64) = (16, 3);
/// The number of batches without a pause that follow a pause in vain. Measured with [`WORTH`].
const REST: u32 = 64;

/// One consumer's or producer's way of waiting, and what it remembers of it.
pub(crate) struct Waiting {
    pub(crate) wait: Wait,
    /// Made at the start, so that the first sleep allocates nothing. None in a stand-in that has not slept yet.
    waiter: Option<Waiter>,
    /// The bells at which the waiter may still be armed.
    armed: Bells,
    looks: u32,
    pause: u32,
    rest: u32,
}

impl Waiting {
    pub(crate) fn new(wait: Wait) -> Self {
        let mut waiting = Self::stand_in(wait);
        waiting.waiter = Some(Waiter::new());
        waiting
    }

    /// Takes the place of the real one while that is borrowed, and stays there if a strategy panics meanwhile.
    pub(crate) fn stand_in(wait: Wait) -> Self {
        Self { wait, waiter: None, armed: [None, None], looks: 0, pause: 0, rest: 0 }
    }

    /// Waits until a look finds something; none if the deadline comes first.
    #[inline]
    pub(crate) fn until<L: Look>(&mut self, deadline: Option<Instant>, target: &mut L) -> Option<L::Found> {
        self.looks = 0;
        match target.look() {
            Some(found) => Some(found),
            None => self.until_slowly(deadline, target),
        }
    }

    fn until_slowly<L: Look>(&mut self, deadline: Option<Instant>, target: &mut L) -> Option<L::Found> {
        loop {
            self.looks = self.looks.saturating_add(1);
            let idle = self.wait.idle(self.looks);
            if self.wait.hints() {
                (0..L::SPACING).for_each(|_| sync::spin_loop());
            }
            if let Some(found) = target.look() {
                return Some(found);
            }
            if idle == Idle::Sleep {
                let Some(bells) = target.bells() else { continue };
                self.arm(&bells);
                if !fault(Fault::SleepWithoutASecondLook) {
                    if let Some(found) = target.look() {
                        return Some(found);
                    }
                    // The stage whose bell is armed may have moved before it could see the arming, and another stage may
                    // be the furthest behind now, at whose bell this thread does not sleep yet. Only the stage that is the
                    // furthest behind after the fence is sure to ring.
                    let same = target.bells().is_some_and(|now| are_same(&bells, &now));
                    if !same && !fault(Fault::SleepAtTheBellOfTheLastBefore) {
                        continue;
                    }
                }
                if !self.waiter.get_or_insert_default().park_for_any(deadline) {
                    return target.look();
                }
            } else if let Some(deadline) = deadline {
                // A reading of the clock costs about as much as a look.
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

    /// Lets the producer write on undisturbed for a moment, if the last batches were short and followed closely.
    #[inline]
    pub(crate) fn pause(&self) {
        for _ in 0..self.pause {
            sync::spin_loop();
        }
    }

    /// For a loop that counts its empty looks itself.
    #[inline]
    pub(crate) fn set_looks(&mut self, looks: u32) {
        self.looks = looks;
    }

    /// Adapts the pause before the next look to the number of events that this look found. Below `few` the pause becomes
    /// longer, so that the producer is disturbed less often; above `many` it becomes shorter, because the producer has to wait
    /// for room, or soon will. That the pause is steered between the two, and not only doubled, was measured: see
    /// `docs/decisions/`, 3. The steps of one half up and one quarter down were not compared with others.
    #[inline]
    pub(crate) fn learn(&mut self, len: u64, few: u64, many: u64) {
        if self.looks > CLOSELY {
            self.pause = 0;
        } else if len < WORTH.1 && (self.rest > 0 || self.pause >= WORTH.0) {
            self.rest = if self.rest > 0 { self.rest - 1 } else { REST };
            self.pause = 0;
        } else if len < few {
            self.pause = (self.pause + self.pause / 2 + 1).min(self.wait.longest_pause());
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

/// Arms a waiter of the caller's. Returns what a look found: then the waiter must not sleep.
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
        // Only the stage that is the furthest behind after the fence is sure to ring: see `until_slowly`.
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
