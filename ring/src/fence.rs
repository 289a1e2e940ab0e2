//! An asymmetric pair of full fences: next to nothing on the side that runs often, dear on the side that runs rarely.
//!
//! Two threads that each store to one place and then look at the other's need a full fence between the two, on x86
//! too: otherwise both may miss the other's store. Where the system has `membarrier(2)`, private and expedited,
//! [`light`] only keeps the compiler in order, and [`heavy`] makes every running thread of the process pass a full
//! barrier. Elsewhere both are `fence(SeqCst)`. The choice is made once a process; [`kind`] tells it.
//!
//! Correct for: store A; `light`; load B | store B; `heavy`; load A. It is not a fence between two threads that both
//! call `light`.

use crate::ordering::Site;

/// How the two fences are made in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fences {
    /// `membarrier(2)`: publishers pay nothing.
    Membarrier,
    /// `fence(SeqCst)` on both sides.
    SeqCst,
}

/// Which fences this process uses. The environment variable `SLIPRING_FENCES=seqcst` refuses `membarrier`, for whoever
/// would rather pay at each publish than have running threads interrupted at each sleep.
///
/// ```
/// println!("fences: {:?}", slipring_ring::fence::kind());
/// ```
pub fn kind() -> Fences {
    #[cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]
    {
        use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};
        static KIND: std::sync::OnceLock<Fences> = std::sync::OnceLock::new();
        *KIND.get_or_init(|| {
            let refused = std::env::var_os("SLIPRING_FENCES").is_some_and(|asked| asked == "seqcst");
            let offered = membarrier_query().contains(MembarrierQuery::PRIVATE_EXPEDITED);
            if !refused && offered && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok() {
                Fences::Membarrier
            } else {
                Fences::SeqCst
            }
        })
    }
    #[cfg(not(all(target_os = "linux", not(any(loom, shuttle, miri)))))]
    Fences::SeqCst
}

/// Light fences are nothing to the processor beside `membarrier`. As full fences they would cover up, in a model, for an
/// ordering that is too weak elsewhere; so a model leaves out those that have no heavy partner in it.
#[cfg(loom)]
pub mod quiet {
    use std::cell::Cell;

    /// Which light fences a model leaves out.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub enum Quiet {
        /// None.
        Nothing,
        /// Those of the bells: nobody sleeps.
        Bells,
        /// All: nobody sleeps, joins or evicts.
        Everything,
    }

    // A model runs all its threads on one thread of the system.
    thread_local! { static QUIET: Cell<Quiet> = const { Cell::new(Quiet::Nothing) } }

    /// From now on.
    pub fn set(quiet: Quiet) {
        QUIET.set(quiet);
    }

    pub(crate) fn get() -> Quiet {
        QUIET.get()
    }

    /// Whether bells, and with them the looks for the end, are in the model.
    pub(crate) fn bells() -> bool {
        get() == Quiet::Nothing
    }
}

/// The side that runs often.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
/// let (data, asleep) = (AtomicBool::new(false), AtomicBool::new(false));
/// data.store(true, Relaxed);
/// slipring_ring::fence::light();
/// let must_wake = asleep.load(Relaxed);
/// # assert!(!must_wake);
/// ```
#[inline]
pub fn light() {
    light_at(&crate::ordering::RING_FENCE);
}

/// The side that runs rarely. Costs a system call and interrupts the process's other running threads.
///
/// # Panics
/// If the kernel refuses the barrier it registered this process for.
pub fn heavy() {
    heavy_at(&crate::ordering::ARM_FENCE);
}

#[inline(always)]
pub(crate) fn light_at(site: &Site) {
    #[cfg(loom)]
    if quiet::get() == quiet::Quiet::Everything {
        return;
    }
    if kind() == Fences::SeqCst {
        site.fence();
    } else {
        compiler_only();
    }
}

pub(crate) fn heavy_at(site: &Site) {
    #[cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]
    if kind() == Fences::Membarrier {
        use rustix::thread::{MembarrierCommand, membarrier};
        membarrier(MembarrierCommand::PrivateExpedited).expect("the kernel registered this process for membarrier");
        return;
    }
    site.fence();
}

/// [`light`] for a caller that knows already that the process uses `membarrier`.
#[inline(always)]
pub(crate) fn compiler_only() {
    #[cfg(not(any(loom, shuttle)))]
    crate::sync::compiler_fence(crate::ordering::RING_FENCE.get());
}
