//! An asymmetric pair of full fences: almost free on the side that runs often, expensive on the side that runs rarely.
//!
//! Two threads that each store to one place and then load the other's place need a full fence between the two steps, on
//! x86 too: otherwise both may miss the other's store. If the system has `membarrier(2)` with private expedited
//! commands, [`light`] only prevents reordering by the compiler, and [`heavy`] makes every running thread of the
//! process execute a full barrier. Otherwise both are `fence(SeqCst)`. The choice is made once per process, and
//! [`kind`] returns it. If the system refuses `membarrier` later, rings built from then on use full fences; [`Refused`]
//! describes what older rings lose.
//!
//! Correct for: store A; `light`; load B | store B; `heavy`; load A. It does not order two threads that both call
//! `light`.

use crate::ordering::Site;

/// The kind of the two fences that this process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fences {
    /// `membarrier(2)`: the frequent side needs no fence instruction.
    Membarrier,
    /// `fence(SeqCst)` on both sides.
    SeqCst,
}

/// The error of a heavy fence that the system refuses: it granted `membarrier(2)` when the ring was built, and a
/// sandbox was applied to the process since.
///
/// A ring that was built before accepts no new stages, backward seeks or evictions any more, since its producers issue
/// no fence of their own. All else in it continues; threads that sleep on it check again every 10 milliseconds, and the
/// report of its end names the refusal ([`Report::unfenced`](crate::Report::unfenced)), unless all producers had gone.
/// Rings that are built from then on use full fences on both sides and have no such limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "membarrier(2) was refused after the start ({}): allow it in the sandbox, or start with SLIPRING_FENCES=seqcst",
    std::io::Error::from_raw_os_error(*.0)
)]
pub struct Refused(i32);

/// The kind of fences that rings built now use. The environment variable `SLIPRING_FENCES=seqcst` turns `membarrier`
/// off, so that each publish costs more, but no running thread is interrupted when another goes to sleep. Once the
/// system refuses `membarrier`, this stays [`Fences::SeqCst`].
///
/// ```
/// println!("fences: {:?}", slipring_ring::fence::kind());
/// ```
#[inline]
pub fn kind() -> Fences {
    #[cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]
    return system::kind();
    #[cfg(not(all(target_os = "linux", not(any(loom, shuttle, miri)))))]
    Fences::SeqCst
}

/// As [`kind`], for a new ring. First tests if the system still grants `membarrier`, and if not, chooses full fences.
pub(crate) fn kind_of_new_ring() -> Fences {
    // The fence orders nothing here; it only tests the system call.
    let _ = heavy_at(&crate::ordering::COUNT, kind());
    kind()
}

#[cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]
mod system {
    use super::{Fences, Refused};
    use crate::ordering::COUNT;
    use crate::sync::AtomicU32;
    use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};

    const UNKNOWN: u32 = 0;
    const MEMBARRIER: u32 = 1;
    const SEQ_CST: u32 = 2;

    /// The choice. Relaxed accesses suffice: a thread that receives a ring from its builder reads the builder's choice
    /// or a later one.
    static KIND: AtomicU32 = AtomicU32::new(UNKNOWN);

    #[inline]
    pub(super) fn kind() -> Fences {
        match KIND.load(COUNT.get()) {
            MEMBARRIER => Fences::Membarrier,
            SEQ_CST => Fences::SeqCst,
            _ => choose(),
        }
    }

    #[cold]
    fn choose() -> Fences {
        let refused = std::env::var_os("SLIPRING_FENCES").is_some_and(|asked| asked == "seqcst");
        let offered = membarrier_query().contains(MembarrierQuery::PRIVATE_EXPEDITED);
        let granted = !refused && offered && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
        let chosen = if granted { MEMBARRIER } else { SEQ_CST };
        // Read again: another thread may have chosen meanwhile, and the system may have refused `membarrier` since.
        let _ = KIND.compare_exchange(UNKNOWN, chosen, COUNT.get(), COUNT.get());
        kind()
    }

    pub(super) fn barrier() -> Result<(), Refused> {
        membarrier(MembarrierCommand::PrivateExpedited).map_err(|refused| {
            KIND.store(SEQ_CST, COUNT.get());
            Refused(refused.raw_os_error())
        })
    }
}

/// The light fences that a model leaves out. With `membarrier`, light fences are no fences to the processor. As full
/// fences in a model they could hide an ordering that is too weak elsewhere, so a model leaves out the light fences
/// that have no heavy partner in it.
#[cfg(loom)]
pub mod quiet {
    use std::cell::Cell;

    /// The set of light fences that a model leaves out.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub enum Quiet {
        /// No light fence is left out.
        Nothing,
        /// The light fences of wake-ups (`crate::bell`) are left out, in models in which no thread sleeps.
        Bells,
        /// All light fences, in models in which no thread sleeps, joins or evicts.
        Everything,
    }

    // A thread-local suffices: loom runs all threads of a model on one thread of the system.
    thread_local! { static QUIET: Cell<Quiet> = const { Cell::new(Quiet::Nothing) } }

    /// Sets the fences that the model leaves out from now on.
    pub fn set(quiet: Quiet) {
        QUIET.set(quiet);
    }

    pub(crate) fn get() -> Quiet {
        QUIET.get()
    }

    /// True if the model contains wake-ups, and with them the checks for the ring's end.
    pub(crate) fn bells() -> bool {
        get() == Quiet::Nothing
    }
}

/// The fence of the frequent side.
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

/// The fence of the rare side. It costs a system call and interrupts the other running threads of the process.
///
/// # Errors
/// The system refuses the barrier that it granted at the start, so a thread that has called `light` before may not be
/// ordered by this fence. From then on [`kind`] returns `SeqCst`, and both sides are full fences.
pub fn heavy() -> Result<(), Refused> {
    heavy_at(&crate::ordering::ARM_FENCE, kind())
}

#[inline(always)]
#[cfg_attr(loom, track_caller)]
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

/// The heavy fence at `site`, for rings and bells that were created with fences of the kind `made` (see [`kind`]).
#[cfg_attr(loom, track_caller)]
pub(crate) fn heavy_at(site: &Site, made: Fences) -> Result<(), Refused> {
    #[cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]
    if made == Fences::Membarrier {
        // If the system refuses, the calling thread still issues a full fence.
        return system::barrier().inspect_err(|_| site.fence());
    }
    let _ = made;
    site.fence();
    Ok(())
}

/// Waits 10 ms, for a thread that ends a ring although the system refuses the barrier. After that time every processor
/// will most likely have made its earlier stores visible; without the barrier there is no proof, so the ring's report
/// says that it was refused.
#[cold]
pub(crate) fn wait_for_stores() {
    #[cfg(not(any(loom, shuttle)))]
    crate::sync::thread::sleep(std::time::Duration::from_millis(10));
}

/// As [`light`], but only against reordering by the compiler: for a caller that knows that the process uses
/// `membarrier`, or that issues a full fence later if it does not.
#[inline(always)]
pub(crate) fn compiler_only() {
    #[cfg(not(any(loom, shuttle)))]
    crate::sync::compiler_fence(crate::ordering::RING_FENCE.get());
}
