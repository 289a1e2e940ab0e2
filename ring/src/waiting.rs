//! The loop of everyone who waits: look, pass the time, at last sleep, with the handshake of [`crate::bell`].

use crate::bell::{Bell, Waiter};
use crate::fence;
use crate::ordering::{ARM_FENCE, fault};
use crate::sync::{self, Arc, Instant};
use crate::wait::{Idle, Wait};

/// What somebody waits for.
pub(crate) trait Look {
    type Found;

    /// Looks once.
    fn look(&mut self) -> Option<Self::Found>;

    /// Where it rings when a look may find more: asked before each sleep only.
    fn bells(&mut self) -> Bells;
}

/// One bell, or two if either may ring first.
pub(crate) type Bells = [Option<Arc<Bell>>; 2];

/// A batch that came within so many empty looks of the last one followed it closely.
const CLOSELY: u32 = 64;

/// One consumer's or producer's way of waiting, and what it remembers of it.
pub(crate) struct Waiting {
    pub(crate) wait: Wait,
    /// Made at the start, so that the first sleep allocates nothing. None in a stand-in, until then.
    waiter: Option<Waiter>,
    /// The bells at which the waiter may still be armed.
    armed: Bells,
    looks: u32,
    pause: u32,
}

impl Waiting {
    pub(crate) fn new(wait: Wait) -> Self {
        let mut waiting = Self::stand_in(wait);
        waiting.waiter = Some(Waiter::new());
        waiting
    }

    /// For the moment in which the real one is borrowed; it stays if a strategy panics.
    pub(crate) fn stand_in(wait: Wait) -> Self {
        Self { wait, waiter: None, armed: [None, None], looks: 0, pause: 0 }
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
            if let Some(found) = target.look() {
                return Some(found);
            }
            if idle == Idle::Sleep {
                let bells = target.bells();
                self.arm(&bells);
                fence::heavy_at(&ARM_FENCE);
                if !fault("sleep without a second look") {
                    // First who hinders, then whether somebody still does. Whoever was the furthest behind at the
                    // first may have moved by the second; but then it moved after the arming, and has rung. The other
                    // way round it may have moved before it could see the arming, and now it is another one that
                    // hinders, at whose bell nobody sleeps.
                    if !fault("look before the bells are compared") && !are_same(&bells, &target.bells()) {
                        continue;
                    }
                    if let Some(found) = target.look() {
                        return Some(found);
                    }
                }
                if !self.waiter.get_or_insert_default().park(deadline, |_| ()) {
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
        self.armed = bells.clone();
    }

    /// Lets the producer write on undisturbed for a moment, if the last batches were short and followed closely.
    #[inline]
    pub(crate) fn pause(&self) {
        for _ in 0..self.pause {
            sync::spin_loop();
        }
    }

    /// Learns from finding `len` events, of which `few` are too few and `many` too many: the producer had to come for
    /// room, or soon will.
    #[inline]
    pub(crate) fn learn(&mut self, len: u64, few: u64, many: u64) {
        if self.looks > CLOSELY {
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

/// Arms somebody else's waiter; true if there is nothing to be found, so that it may sleep.
pub(crate) fn arm<L: Look>(target: &mut L, waiter: &Waiter, token: usize) -> bool {
    loop {
        let bells = target.bells();
        bells.iter().flatten().for_each(|bell| bell.arm(waiter, token));
        fence::heavy_at(&ARM_FENCE);
        // In this order: see `until_slowly`.
        if are_same(&bells, &target.bells()) {
            return target.look().is_none();
        }
    }
}

fn are_same(some: &Bells, others: &Bells) -> bool {
    let address = |bell: &Option<Arc<Bell>>| bell.as_ref().map(|bell| std::ptr::from_ref::<Bell>(bell));
    some.each_ref().map(address) == others.each_ref().map(address)
}
