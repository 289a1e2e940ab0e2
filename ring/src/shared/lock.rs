//! The locks by which participants know who is alive: one byte of the ring's file each, locked with the open file.
//!
//! Such a lock (`F_OFD_SETLK`) belongs to an open file, and goes when the last descriptor of it is closed: at the end
//! of the process in any way, also by `kill -9`, and across pid namespaces. So nobody decides by a time-out or a
//! process id that somebody is dead. Each participant has an open file of its own. A lock that is asked for through
//! the open file that has it already is granted, so nobody asks for its own byte here.

use super::region::PARTICIPANTS;

/// The byte that a participant locks while it joins, leaves or removes.
pub(crate) const REGISTER: usize = PARTICIPANTS;
/// The byte that the creator of a file locks until the file has its name.
#[cfg_attr(any(loom, shuttle, not(target_os = "linux")), allow(dead_code))]
pub(crate) const CREATING: usize = PARTICIPANTS + 1;
/// Count of bytes with a lock.
#[cfg_attr(all(target_os = "linux", not(any(loom, shuttle))), allow(dead_code))]
pub(crate) const BYTES: usize = PARTICIPANTS + 2;

#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
pub(crate) use system::Locks;

#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
mod system {
    use super::super::fork;
    use std::io;
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

    /// An open file, with the locks that it has.
    #[derive(Debug)]
    pub(crate) struct Locks(OwnedFd);

    impl Locks {
        pub(crate) fn new(file: OwnedFd) -> Self {
            fork::close_in_children(file.as_raw_fd());
            Self(file)
        }

        /// Locks a byte. False if another open file has the lock.
        pub(crate) fn try_lock(&self, byte: usize) -> io::Result<bool> {
            match self.call(libc::F_OFD_SETLK, &mut request(byte, libc::F_WRLCK)) {
                Err(refused) if is_taken(&refused) => Ok(false),
                other => other.map(|()| true),
            }
        }

        /// Unlocks a byte.
        pub(crate) fn unlock(&self, byte: usize) {
            // It cannot fail: the descriptor is open, and unlocking needs no memory for a whole lock.
            let _ = self.call(libc::F_OFD_SETLK, &mut request(byte, libc::F_UNLCK));
        }

        /// True if another open file has the lock of a byte.
        pub(crate) fn is_locked(&self, byte: usize) -> io::Result<bool> {
            let mut request = request(byte, libc::F_WRLCK);
            self.call(libc::F_OFD_GETLK, &mut request)?;
            Ok(request.l_type != libc::F_UNLCK as libc::c_short)
        }

        fn call(&self, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
            // SAFETY: the descriptor is open, and `lock` is a valid request, which the call may write to.
            let done = unsafe { libc::fcntl(self.0.as_raw_fd(), command, std::ptr::from_mut(lock)) };
            if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        }
    }

    fn is_taken(error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES))
    }

    fn request(byte: usize, kind: libc::c_int) -> libc::flock {
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: byte as libc::off_t,
            l_len: 1,
            // Must be 0 for locks of an open file.
            l_pid: 0,
        }
    }

    impl AsFd for Locks {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl Drop for Locks {
        fn drop(&mut self) {
            fork::forget_descriptor(self.0.as_raw_fd());
        }
    }
}

#[cfg(any(loom, shuttle, not(target_os = "linux")))]
pub(crate) use modelled::Locks;

#[cfg(any(loom, shuttle, not(target_os = "linux")))]
mod modelled {
    use super::super::layout::Event;
    use super::super::region::Region;
    use crate::sync::lock;
    use std::io;

    /// An open file of a model: a number, and the words that hold the owners of the locks.
    pub(crate) struct Locks {
        table: Box<dyn Fn(&mut dyn FnMut(&mut Vec<u64>)) + Send + Sync>,
        owner: u64,
    }

    impl std::fmt::Debug for Locks {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "open file {}", self.owner)
        }
    }

    impl Locks {
        pub(crate) fn of<E: Event>(region: &Region<E>) -> Self {
            let region = region.clone();
            let table = move |with: &mut dyn FnMut(&mut Vec<u64>)| with(&mut lock(region.locks()));
            Self { table: Box::new(table), owner: crate::sync::next_id() }
        }

        fn with<R>(&self, mut then: impl FnMut(&mut Vec<u64>) -> R) -> R {
            let mut result = None;
            (self.table)(&mut |locks| result = Some(then(locks)));
            result.expect("the closure was called")
        }

        pub(crate) fn try_lock(&self, byte: usize) -> io::Result<bool> {
            let owner = self.owner;
            Ok(self.with(|locks| {
                let is_free = locks[byte] == 0 || locks[byte] == owner;
                locks[byte] = if is_free { owner } else { locks[byte] };
                is_free
            }))
        }

        pub(crate) fn unlock(&self, byte: usize) {
            self.with(|locks| locks[byte] = 0);
        }

        pub(crate) fn is_locked(&self, byte: usize) -> io::Result<bool> {
            let owner = self.owner;
            Ok(self.with(|locks| locks[byte] != 0 && locks[byte] != owner))
        }
    }

    impl Drop for Locks {
        /// The open file is closed, as at the death of its process: its locks go.
        fn drop(&mut self) {
            let owner = self.owner;
            self.with(|locks| locks.iter_mut().filter(|held| **held == owner).for_each(|held| *held = 0));
        }
    }
}
