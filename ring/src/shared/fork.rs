//! What a forked child must not have: its parent's mappings and locked descriptors.
//!
//! A child's copy of a descriptor would keep the parent's lock alive after the parent's death, and its copy of a mapping
//! would let it write as its parent. So in the child, before `fork` returns, each mapping is replaced by zeros, which
//! every call reads as [`Ended::Forked`](super::Ended::Forked), and each descriptor is closed. After a direct `clone`
//! system call nothing of this happens; then the mappings are missing in the child (`MADV_DONTFORK`), whose first access
//! ends it, and the parent's locks stay until the child ends or calls `exec`.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

#[derive(Default)]
struct Shared {
    /// Start and size in bytes of each mapping.
    mappings: Vec<(usize, usize)>,
    descriptors: Vec<i32>,
}

static SHARED: Mutex<Shared> = Mutex::new(Shared { mappings: Vec::new(), descriptors: Vec::new() });

fn shared() -> MutexGuard<'static, Shared> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the functions have the signature that the system calls, and never unwind. If the call fails for want
        // of memory, children keep their copies.
        let _ = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    });
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The lock, which a thread holds from before its `fork` until after it, so that the child's copy is whole.
    static HELD: Cell<Option<MutexGuard<'static, Shared>>> = const { Cell::new(None) };
}

extern "C" fn before() {
    let _ = HELD.try_with(|held| held.set(Some(SHARED.lock().unwrap_or_else(PoisonError::into_inner))));
}

extern "C" fn in_parent() {
    let _ = HELD.try_with(Cell::take);
}

extern "C" fn in_child() {
    let Ok(Some(mut shared)) = HELD.try_with(Cell::take) else { return };
    for (start, bytes) in shared.mappings.drain(..) {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let (both, fixed) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range was a mapping of the parent's, which the child does not have. The handles that point there
        // read zeros now, and unmap it when they are dropped. If the system refuses, their first access ends the child.
        let _ = unsafe { mmap_anonymous(start, bytes, both, fixed | MapFlags::NORESERVE) };
    }
    for descriptor in shared.descriptors.drain(..) {
        // Closed by putting another file in its place, so that the number stays taken until its owner closes it.
        // SAFETY: the path is a text that ends with a zero.
        let other = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if other < 0 {
            continue;
        }
        // SAFETY: both descriptors are open, and the handle of the replaced one does not mind which file it has.
        unsafe { libc::dup3(other, descriptor, libc::O_CLOEXEC) };
        // SAFETY: the descriptor was opened above.
        unsafe { libc::close(other) };
    }
}

/// Has a mapping replaced by zeros in forked children.
pub(crate) fn forget_in_children(start: usize, bytes: usize) {
    shared().mappings.push((start, bytes));
}

/// Forgets a mapping that is about to be unmapped.
pub(crate) fn forget_mapping(start: usize) {
    shared().mappings.retain(|(other, _)| *other != start);
}

/// Has a descriptor closed in forked children.
pub(crate) fn close_in_children(descriptor: i32) {
    shared().descriptors.push(descriptor);
}

/// Forgets a descriptor that is about to be closed.
pub(crate) fn forget_descriptor(descriptor: i32) {
    shared().descriptors.retain(|other| *other != descriptor);
}
