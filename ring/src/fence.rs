//! An asymmetric pair of full fences: next to nothing on the side that runs often, dear on the side that runs rarely.
//!
//! Two threads that each store to one place and then look at the other's need a full fence between the two, on x86
//! too: otherwise both may miss the other's store. Where the system has `membarrier(2)`, private and expedited,
//! [`light`] only keeps the compiler in order, and [`heavy`] makes every running thread of the process pass a full
//! barrier. Elsewhere both are `fence(SeqCst)`. The choice is made once a process; [`kind`] tells it. If the system takes
//! `membarrier` back later, rings that are made from then on have full fences; what the others lose is told at [`Refused`].
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

/// The system refused `membarrier(2)`, which it had granted when the ring was made: a sandbox came over the process.
///
/// A ring that was made before cannot take newcomers, seek back or evict any more, since its producers issue no fence of their
/// own. Everything else in it goes on; who sleeps there looks again every 10 milliseconds. Rings that are made from then on
/// have full fences on both sides and lack nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "membarrier(2) was refused after the start ({}): allow it in the sandbox, or start with SLIPRING_FENCES=seqcst",
    std::io::Error::from_raw_os_error(*.0)
)]
pub struct Refused(i32);

/// Which fences this process uses: those of rings that are made now. The environment variable `SLIPRING_FENCES=seqcst`
/// refuses `membarrier`, for whoever would rather pay at each publish than have running threads interrupted at each sleep.
/// Once the system refuses `membarrier`, this is [`Fences::SeqCst`] for good.
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

/// [`kind`] for a ring that is about to be made, after a look whether the system still grants it.
pub(crate) fn kind_of_new_ring() -> Fences {
    // It orders nothing: the system is asked.
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

    /// It orders nothing: whoever gets a ring from the thread that made it reads what that thread read, or later.
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
        // Another thread may have chosen meanwhile, and may even have been refused since.
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
/// # Errors
/// The system refuses the barrier that it granted at the start: a `light` that ran before may be missed. From then on both
/// sides are full fences.
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

/// The heavy side towards light sides that were [`made`](kind) so.
#[cfg_attr(loom, track_caller)]
pub(crate) fn heavy_at(site: &Site, made: Fences) -> Result<(), Refused> {
    #[cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]
    if made == Fences::Membarrier {
        // Refused, this thread still has a fence of its own.
        return system::barrier().inspect_err(|_| site.fence());
    }
    let _ = made;
    site.fence();
    Ok(())
}

/// For an end that cannot be refused where the barrier was: long enough for every processor to have shown what its threads
/// stored before. That is no proof; there is none without the barrier.
#[cold]
pub(crate) fn wait_for_stores() {
    #[cfg(not(any(loom, shuttle)))]
    crate::sync::thread::sleep(std::time::Duration::from_millis(10));
}

/// [`light`] for a caller that knows already that the process uses `membarrier`.
#[inline(always)]
pub(crate) fn compiler_only() {
    #[cfg(not(any(loom, shuttle)))]
    crate::sync::compiler_fence(crate::ordering::RING_FENCE.get());
}
