//! Rings whose copies in forked child processes have failed from the beginning: a child has none of the ring's other
//! threads, so what it published would be read by nobody, and what it read would be read once more in the parent.
//!
//! A child has no time to look for that in each call. So the system calls [`in_child`](system::in_child) after each
//! `fork`, which changes the words that producers and consumers read in any case: the phase of the ring, and the closed
//! bit of the producers' bell. A child that was made by a bare `clone(2)` is not told.

use crate::kind::Kind;
use crate::ring::Ring;
#[cfg(all(unix, not(any(loom, shuttle, miri))))]
use crate::sync::Arc;

/// A ring's core, of any event.
#[cfg(all(unix, not(any(loom, shuttle, miri))))]
pub(crate) trait EndsInForks: Send + Sync {
    /// Fails the ring. Called in a child while it has one thread; neither allocates nor waits for a lock.
    fn end_in_fork(&self);
}

#[cfg(all(unix, not(any(loom, shuttle, miri))))]
mod system {
    use super::EndsInForks;
    use crate::sync::{Mutex, MutexGuard, Once, Weak, lock};
    use std::cell::Cell;
    use std::ffi::c_int;

    type Cores = Vec<Weak<dyn EndsInForks>>;

    /// These rings. Dropped ones are removed when the list is full.
    static CORES: Mutex<Cores> = Mutex::new(Vec::new());

    thread_local! {
        /// The lock of the list, from before a `fork` of this thread until after it. So no other thread changes the list
        /// at the moment of the copy.
        static HELD: Cell<Option<MutexGuard<'static, Cores>>> = const { Cell::new(None) };
    }

    type Handler = Option<extern "C" fn()>;

    unsafe extern "C" {
        fn pthread_atfork(before: Handler, in_parent: Handler, in_child: Handler) -> c_int;
    }

    extern "C" fn before() {
        let _ = HELD.try_with(|held| held.set(Some(lock(&CORES))));
    }

    extern "C" fn in_parent() {
        let _ = HELD.try_with(Cell::take);
    }

    pub(super) extern "C" fn in_child() {
        if let Ok(Some(cores)) = HELD.try_with(Cell::take) {
            cores.iter().filter_map(Weak::upgrade).for_each(|core| core.end_in_fork());
        }
    }

    pub(super) fn add(core: Weak<dyn EndsInForks>) {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the functions have the signature that the system calls, and never unwind. They stay loaded as long
            // as this library does, whose unloading removes them. An error (no memory) leaves the children untold.
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
    /// From now on, the copy of this ring in a process that is forked from this one has failed, as if a stage of the name
    /// `stage` had. Nothing changes in this process.
    ///
    /// This holds on Unix for `fork`. A bare `clone` system call is not noticed.
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
