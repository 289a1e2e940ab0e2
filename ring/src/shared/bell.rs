//! Sleeping and waking across processes, by shared futex words.
//!
//! ```text
//! whoever moves a position                whoever waits
//! store the position                      read the count
//! full fence (SHARED_RING_FENCE)          set the sleeper's bit (SHARED_ARM)
//! look for the sleeper's bit:             full fence (SHARED_ARM_FENCE)
//!   set: clear it, raise the count,       look again: nothing: sleep, unless the count has changed,
//!   wake all                                for 10 milliseconds at most
//! ```
//!
//! The two fences exclude that both miss: either the publisher sees the bit, or the sleeper sees the position. The
//! waker clears the bit, so a sleeper that was killed costs one wake-up and no more. A waker that is killed between
//! clearing the bit and waking delays the sleepers by at most the longest sleep, as death does, which rings no bell.

use crate::fault::{Fault, fault};
use crate::ordering::{SHARED_ARM, SHARED_ARM_FENCE, SHARED_ATTENTION, SHARED_COUNT_RINGS, SHARED_RING_FENCE, Site};
use crate::sync::AtomicU32;
use std::time::Duration;

/// The longest sleep: the death of a process rings no bell, so each sleeper looks for it this often.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_millis(10);

/// Bit 0: the ring is open. Only the bell of events has it.
pub(crate) const OPEN: u32 = 1;
/// Bit 1: a thread sleeps, or is about to.
const SLEEPER: u32 = 2;

/// Two words of shared memory.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Bell {
    /// [`OPEN`] and [`SLEEPER`].
    attention: AtomicU32,
    /// Raised by each wake-up; the word that the system compares before a thread sleeps.
    rings: AtomicU32,
    #[cfg(any(loom, shuttle, not(target_os = "linux")))]
    futex: Futex,
}

/// The fence of a side that runs often. A model in which its partner does not run leaves it out: loom does not switch
/// threads between a store and the fence behind it, so the fence would hide that the store is too weak.
#[inline(always)]
#[cfg_attr(loom, track_caller)]
pub(crate) fn frequent_fence(site: &Site) {
    #[cfg(loom)]
    if crate::fence::quiet::get() == crate::fence::quiet::Quiet::Everything {
        return;
    }
    site.fence();
}

/// The fence before the look for sleepers and for the end; as [`frequent_fence`].
#[inline(always)]
#[cfg_attr(loom, track_caller)]
fn ring_fence() {
    #[cfg(loom)]
    if !crate::fence::quiet::bells() {
        return;
    }
    SHARED_RING_FENCE.fence();
}

impl Bell {
    #[cfg(any(loom, shuttle, not(target_os = "linux")))]
    pub(crate) fn zeros() -> Self {
        Self { attention: AtomicU32::new(0), rings: AtomicU32::new(0), futex: Futex::default() }
    }

    /// Sets the bit of an open ring; for the creator.
    pub(crate) fn open(&self) {
        self.attention.store(OPEN, SHARED_ARM.get());
    }

    /// Clears the bit of an open ring. A full fence must follow.
    pub(crate) fn mark_ended(&self) {
        self.attention.fetch_and(!OPEN, SHARED_ARM.get());
    }

    /// True if the ring is open.
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.attention.load(SHARED_ATTENTION.get()) & OPEN != 0
    }

    /// Wakes the sleepers, after the caller has moved a position. Returns true if the attention word is `usual`, that
    /// is, the ring's state is as usual and nobody sleeps.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn ring(&self, usual: u32) -> bool {
        ring_fence();
        let seen = self.attention.load(SHARED_ATTENTION.get());
        if seen == usual {
            return true;
        }
        self.ring_slowly(seen);
        false
    }

    #[cold]
    fn ring_slowly(&self, seen: u32) {
        if seen & SLEEPER != 0 {
            self.attention.fetch_and(!SLEEPER, SHARED_ARM.get());
            self.wake_all();
        }
    }

    /// Wakes all sleepers, whether or not the sleeper's bit is set.
    pub(crate) fn wake_all(&self) {
        if fault(Fault::SharedWakeWakesNobody) {
            return;
        }
        self.rings.fetch_add(1, SHARED_COUNT_RINGS.get());
        self.wake();
    }

    /// Announces that the caller is about to sleep. It must look again before it does.
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn arm(&self) -> u32 {
        let rings = self.rings.load(SHARED_COUNT_RINGS.get());
        self.attention.fetch_or(SLEEPER, SHARED_ARM.get());
        SHARED_ARM_FENCE.fence();
        rings
    }

    /// Sleeps until the bell rings after `rings` was returned by [`arm`](Self::arm), for at most `limit`. May return
    /// early.
    #[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
    pub(crate) fn sleep(&self, rings: u32, limit: Duration) {
        use rustix::thread::futex;
        let limit = limit.min(LONGEST_SLEEP);
        let limit = rustix::time::Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos() as _ };
        // Every error means that the caller looks again: the count has changed, a signal came, or the time is over.
        let _ = futex::wait(&self.rings, futex::Flags::empty(), rings, Some(&limit));
    }

    #[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
    fn wake(&self) {
        use rustix::thread::futex;
        // An error is not possible with a word of this process's memory; the sleepers look again in any case.
        let _ = futex::wake(&self.rings, futex::Flags::empty(), i32::MAX as u32);
    }
}

/// The system's queue of sleepers, in a model: a sleep never times out.
#[cfg(any(loom, shuttle, not(target_os = "linux")))]
#[derive(Debug, Default)]
struct Futex {
    lock: crate::sync::Mutex<()>,
    woken: crate::sync::Condvar,
}

#[cfg(any(loom, shuttle, not(target_os = "linux")))]
impl Bell {
    pub(crate) fn sleep(&self, rings: u32, _: Duration) {
        let mut guard = crate::sync::lock(&self.futex.lock);
        while self.rings.load(SHARED_COUNT_RINGS.get()) == rings {
            guard = self.futex.woken.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn wake(&self) {
        drop(crate::sync::lock(&self.futex.lock));
        self.futex.woken.notify_all();
    }
}
