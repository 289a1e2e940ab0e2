//! The locks of the directory.

use super::super::Process;
use rustix::fs::FlockOperation;
use std::fs;
use std::os::fd::OwnedFd;

/// The locks are released by themselves: closing the files would leave the locks to a child process that was forked and has
/// not executed its own program yet. A child that goes on as a fork shares the locks, and must not release them.
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
