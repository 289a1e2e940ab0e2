//! Rings whose copies in forked child processes fail at the fork. A child has none of the ring's other threads: no
//! thread would read the events that the child publishes, and the parent reads again the events that the child reads.
//!
//! A check for a fork in each call would be too slow. So the system calls [`in_child`](system::in_child) in the child
//! after each `fork`. That sets two variables that producers and consumers read in any case: the phase of the ring, and
//! the closed bit of the producers' bell. After a direct `clone(2)` the system does not call it, and the copy does not
//! fail.

#[cfg(all(unix, not(any(loom, shuttle, miri))))]
use crate::closing::End;
use crate::kind::Kind;
use crate::ring::Ring;
#[cfg(all(unix, not(any(loom, shuttle, miri))))]
use crate::sync::{Arc, MutexGuard};

/// The core of a ring with events of any type.
#[cfg(all(unix, not(any(loom, shuttle, miri))))]
pub(crate) trait EndsInForks: Send + Sync {
    /// Locks the record of the ring's end, so that no other thread holds this lock in the child's copy, where it would
    /// never be released.
    fn lock_end(&self) -> MutexGuard<'_, End>;

    /// Fails the ring, whose record of the end is `end`. Called in a child while it has one thread; neither allocates
    /// nor waits for a lock.
    fn end_in_fork(&self, end: &mut End);
}

#[cfg(all(unix, not(any(loom, shuttle, miri))))]
mod system {
    use super::EndsInForks;
    use crate::closing::End;
    use crate::sync::{Arc, Mutex, MutexGuard, Once, Weak, lock};
    use std::cell::Cell;
    use std::ffi::c_int;

    type Cores = Vec<Weak<dyn EndsInForks>>;

    /// The cores of the rings on which [`Ring::fail_in_forks`](crate::Ring::fail_in_forks) was called. Dropped ones are
    /// removed when the list is full.
    static CORES: Mutex<Cores> = Mutex::new(Vec::new());

    /// The locks that a thread holds from before its `fork` until after it, so that no other thread holds one of them at
    /// the moment of the copy. No user code runs under them, so a thread that forks holds none of them already.
    struct Locked {
        cores: MutexGuard<'static, Cores>,
        /// Each guard borrows from the core beside it, and is dropped before it.
        ends: Vec<(MutexGuard<'static, End>, Arc<dyn EndsInForks>)>,
    }

    impl Locked {
        fn unlock(self) {
            let cores: Vec<_> = self.ends.into_iter().map(|(_end, core)| core).collect();
            drop(self.cores);
            // Last, because the last owner of a ring drops the user's events.
            drop(cores);
        }
    }

    thread_local! { static LOCKED: Cell<Option<Locked>> = const { Cell::new(None) } }

    type Handler = Option<extern "C" fn()>;

    unsafe extern "C" {
        fn pthread_atfork(before: Handler, in_parent: Handler, in_child: Handler) -> c_int;
    }

    extern "C" fn before() {
        let lock_all = || {
            let cores = lock(&CORES);
            let ends = cores.iter().filter_map(Weak::upgrade).map(|core| {
                let end = core.lock_end();
                // SAFETY: the guard borrows from the allocation of `core`, which stays where it is and lives as long as
                // this handle. The two are kept together, and `Locked` drops the guard first.
                let end = unsafe { std::mem::transmute::<MutexGuard<'_, End>, MutexGuard<'static, End>>(end) };
                (end, core)
            });
            Locked { ends: ends.collect(), cores }
        };
        let _ = LOCKED.try_with(|locked| locked.set(Some(lock_all())));
    }

    extern "C" fn in_parent() {
        if let Ok(Some(locked)) = LOCKED.try_with(Cell::take) {
            locked.unlock();
        }
    }

    pub(super) extern "C" fn in_child() {
        if let Ok(Some(mut locked)) = LOCKED.try_with(Cell::take) {
            locked.ends.iter_mut().for_each(|(end, core)| core.end_in_fork(end));
            locked.unlock();
        }
    }

    pub(super) fn add(core: Weak<dyn EndsInForks>) {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the functions have the signature that the system calls, and never unwind. They stay loaded as
            // long as this library does, whose unloading removes them. If the call fails for want of memory, rings do
            // not fail in children.
            let _ = unsafe { pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        });
        let mut cores = lock(&CORES);
        if cores.len() == cores.capacity() {
            cores.retain(|core| core.strong_count() > 0);
        }
        cores.push(core);
    }
}

impl<E: Send + Sync + 'static, K: Kind> Ring<E, K> {
    /// Makes the copy of this ring in each process that is forked from now on fail, as if its stage `stage` had failed
    /// with `cause`. Nothing changes in this process.
    ///
    /// Works on Unix and for `fork` only: after a direct `clone` system call the copy does not fail.
    #[doc(hidden)]
    pub fn fail_in_forks(&self, stage: &str, cause: &str) {
        self.core.set_failure_in_forks(stage, cause);
        #[cfg(all(unix, not(any(loom, shuttle, miri))))]
        {
            let core: Arc<dyn EndsInForks> = self.core.clone();
            system::add(Arc::downgrade(&core));
        }
    }
}
