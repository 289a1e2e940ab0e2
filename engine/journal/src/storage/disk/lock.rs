//! The locks of a [`Disk`](super::Disk).

use super::super::Process;
use rustix::fs::FlockOperation;
use std::fs;
use std::os::fd::OwnedFd;

/// The held locks. Dropping this unlocks explicitly: if the files were only closed, a child process that has forked and
/// not yet executed its own program would keep the locks. A child that continues as a fork shares the locks with its
/// parent, and must not release them.
pub(super) struct DirectoryLock {
    pub directory: Option<OwnedFd>,
    pub file: fs::File,
    pub process: Process,
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        if self.process.check().is_ok() {
            let _ = self.file.unlock();
            let _ = self.directory.as_ref().map(|directory| rustix::fs::flock(directory, FlockOperation::Unlock));
        }
    }
}
