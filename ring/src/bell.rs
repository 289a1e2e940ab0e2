//! Bells: the signal between a thread that moves a position and threads that sleep until the position moves.
//!
//! ```text
//! publisher                      sleeper
//! move the position              arm the bell (ARM)
//! light fence (RING_FENCE)       heavy fence (ARM_FENCE)
//! attention set? (ATTENTION)     look again; nothing: park
//! ```
//!
//! The words: a *bell* is the list of threads and tasks to wake when one position moves. To *arm* a [`Waiter`] at a
//! bell registers it there for the next wake-up. To *ring* a bell wakes and removes all that are registered. A *look*
//! is one check for events or room.
//!
//! At least one of the two threads sees the other's store: if the publisher's load of `attention` misses the
//! registration, then the moved position is visible to the sleeper's second look. Release and acquire cannot ensure
//! that, on any processor. While no thread sleeps, a publisher only loads the variable `attention`, which stays in its
//! cache. Models: `wake` in loom-tests.

use crate::fault::{Fault, fault};
use crate::fence::{self, Fences};
use crate::ordering::{ARM, ARM_FENCE, ATTENTION, CLAIM_FENCE, RING_FENCE};
use crate::sync::{Arc, AtomicU32, Mutex, lock};
use crate::waiter::{NAP, Waiter, WaiterState, wake_all};
use crossbeam_utils::CachePadded;
use std::time::Duration;

/// Bit of `attention`: a waiter is armed at this bell, so a thread that moves the position must wake it.
const SLEEPERS: u32 = 1;
/// Bit of `attention`: this process has no `membarrier`, or the system has refused it since. So the thread that rings
/// the bell must issue the full fence.
const NO_MEMBARRIER: u32 = 2;
/// Bit of `attention`: the ring is not open any more. Then a producer must withdraw a claim that it makes, and must
/// check if a claim that it publishes was cut: see [`crate::closing`].
const CLOSED: u32 = 4;

/// The longest sleep at a silent bell, after which a sleeper looks by itself.
const SILENT_NAP: Duration = Duration::from_millis(1);

/// The threads and tasks to wake when one position moves: see the top of this file.
pub(crate) struct Bell {
    /// The kind of fences when the bell was created. If it is `Membarrier`, a thread that rings the bell issues no
    /// fence before it reads `attention`, so a thread that arms the bell must issue the heavy fence of that kind.
    made: Fences,
    /// True if a thread that moves the position wakes nobody: sleepers look again after [`SILENT_NAP`].
    silent: bool,
    attention: CachePadded<AtomicU32>,
    sleepers: Mutex<Vec<Sleeper>>,
}

struct Sleeper {
    shared: Arc<WaiterState>,
    token: usize,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self::of(false)
    }

    /// A bell whose sleepers wake by themselves, so that a publisher never has to. They are registered for the end of the ring.
    pub(crate) fn silent() -> Self {
        Self::of(true)
    }

    fn of(silent: bool) -> Self {
        let made = fence::kind();
        let fences = if made == Fences::SeqCst { NO_MEMBARRIER } else { 0 };
        Self {
            made,
            silent,
            attention: CachePadded::new(AtomicU32::new(fences)),
            // Capacity for 4 sleepers, so that arming normally does not allocate.
            sleepers: Mutex::new(Vec::with_capacity(4)),
        }
    }

    /// Wakes all sleepers. Called by a thread after it has moved the position.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn ring(&self) {
        self.ring_and_look();
    }

    /// Wakes all sleepers, as [`ring`](Self::ring) does. Returns true if the ring is not open any more, which only the
    /// producers' bell records; any other bell returns false.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn ring_and_look(&self) -> bool {
        #[cfg(loom)]
        if !fence::quiet::bells() {
            return false;
        }
        fence::compiler_only();
        if cfg!(any(loom, shuttle)) || self.attention.load(ATTENTION.get()) != 0 {
            return self.ring_slowly();
        }
        false
    }

    #[cold]
    #[inline(never)]
    #[cfg_attr(loom, track_caller)]
    fn ring_slowly(&self) -> bool {
        // Pairs with ARM_FENCE: this load sees the sleeper, or the sleeper's second look sees the moved position. Pairs
        // also with CLOSE_FENCE: this load sees the closed bit, or the cut sees the publish.
        fence::light_at(&RING_FENCE);
        let attention = self.attention.load(ATTENTION.get());
        if attention & SLEEPERS != 0 && !fault(Fault::NoWake) {
            // Tasks are woken after the lock is released: waking a task may drop a consumer, which takes this lock to
            // disarm itself.
            let mut tasks = Vec::new();
            {
                let mut sleepers = lock(&self.sleepers);
                self.attention.fetch_and(!SLEEPERS, ARM.get());
                for sleeper in sleepers.drain(..) {
                    tasks.extend(sleeper.shared.wake(sleeper.token));
                }
            }
            wake_all(tasks);
        }
        attention & CLOSED != 0
    }

    /// True if the ring is not open any more. A producer calls this after its claim is visible to other threads.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn is_closed(&self) -> bool {
        #[cfg(loom)]
        if !fence::quiet::bells() {
            return false;
        }
        fence::compiler_only();
        if cfg!(any(loom, shuttle)) || self.attention.load(ATTENTION.get()) & (CLOSED | NO_MEMBARRIER) != 0 {
            return self.is_closed_slowly();
        }
        false
    }

    #[cold]
    #[inline(never)]
    #[cfg_attr(loom, track_caller)]
    fn is_closed_slowly(&self) -> bool {
        // Pairs with CLOSE_FENCE: this load sees the closed bit, or the closing thread reads the claim.
        fence::light_at(&CLAIM_FENCE);
        self.attention.load(ATTENTION.get()) & CLOSED != 0
    }

    /// Sets the bit that tells producers that the ring is not open any more. The next [`ring`](Self::ring) then wakes the
    /// sleepers of a silent bell, too.
    pub(crate) fn mark_closed(&self) {
        let sleepers = if self.silent { SLEEPERS } else { 0 };
        self.attention.fetch_or(CLOSED | sleepers, ARM.get());
    }

    /// As [`mark_closed`](Self::mark_closed), in a forked process that has one thread. The sleepers are threads of the
    /// parent, so no thread is woken. The lock of the sleepers is not taken, because a thread of the parent may have
    /// held it at the fork.
    #[cfg(all(unix, not(any(loom, shuttle, miri))))]
    pub(crate) fn mark_closed_in_fork(&self) {
        self.attention.fetch_and(!SLEEPERS, ARM.get());
        self.attention.fetch_or(CLOSED, ARM.get());
    }

    /// Arms `waiter`: the next ring of this bell wakes it with this token, once. Arming it twice with one token has no
    /// further effect. Before the caller sleeps it must issue ARM_FENCE and check its condition again.
    pub(crate) fn arm(&self, waiter: &Waiter, token: usize) {
        let mut sleepers = lock(&self.sleepers);
        // Removes dropped waiters, which a bell that never rings would keep.
        sleepers.retain(|other| !other.shared.is_gone());
        if !sleepers.iter().any(|other| Arc::ptr_eq(&other.shared, &waiter.shared) && other.token == token) {
            sleepers.push(Sleeper { shared: Arc::clone(&waiter.shared), token });
        }
        if self.silent {
            drop(sleepers);
            waiter.shared.wake_after(SILENT_NAP, token);
        } else {
            self.attention.fetch_or(SLEEPERS, ARM.get());
        }
    }

    /// Issues the fence (ARM_FENCE) of a thread that has armed `waiter` at all `bells`, before it checks its condition
    /// again. If the system refuses the fence, a thread that rings may have missed the registration: then `waiter` is
    /// woken with this token after [`NAP`] in any case.
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn fence<'b>(bells: impl Iterator<Item = &'b Self> + Clone, waiter: &Waiter, token: usize) {
        let membarrier = bells.clone().any(|bell| bell.made == Fences::Membarrier);
        let made = if membarrier { Fences::Membarrier } else { Fences::SeqCst };
        // Pairs with RING_FENCE.
        if fence::heavy_at(&ARM_FENCE, made).is_err() {
            bells.for_each(|bell| _ = bell.attention.fetch_or(NO_MEMBARRIER, ARM.get()));
            waiter.shared.wake_after(NAP, token);
        }
    }

    /// Removes `waiter`, with all its tokens, from this bell.
    pub(crate) fn disarm(&self, waiter: &Waiter) {
        lock(&self.sleepers).retain(|other| !Arc::ptr_eq(&other.shared, &waiter.shared));
    }
}
