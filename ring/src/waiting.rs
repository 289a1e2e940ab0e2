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

    /// Who must move next for a look to find more: asked before each sleep only.
    fn bell(&mut self) -> Arc<Bell>;
}

/// A batch that came within so many empty looks of the last one followed it closely.
const CLOSELY: u32 = 64;

/// One consumer's or producer's way of waiting, and what it remembers of it.
pub(crate) struct Waiting {
    pub(crate) wait: Wait,
    waiter: Waiter,
    /// The bell at which the waiter may still be armed.
    armed: Option<Arc<Bell>>,
    looks: u32,
    pause: u32,
}

impl Waiting {
    pub(crate) fn new(wait: Wait) -> Self {
        Self { wait, waiter: Waiter::new(), armed: None, looks: 0, pause: 0 }
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
                let bell = target.bell();
                self.arm(&bell);
                fence::heavy_at(&ARM_FENCE);
                if !fault("sleep without a second look") {
                    if let Some(found) = target.look() {
                        return Some(found);
                    }
                }
                if !self.waiter.park(deadline, |_| ()) {
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

    fn arm(&mut self, bell: &Arc<Bell>) {
        if let Some(before) = self.armed.take_if(|before| !Arc::ptr_eq(before, bell)) {
            before.disarm(&self.waiter);
        }
        bell.arm(&self.waiter, 0);
        self.armed = Some(Arc::clone(bell));
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
        if let Some(bell) = &self.armed {
            bell.disarm(&self.waiter);
        }
    }
}
