//! The locks of the directory.

use super::super::Process;
use rustix::fs::FlockOperation;
use std::fs;
use std::os::fd::OwnedFd;

/// Closing the files would leave the locks to a child that the program is about to start, until that runs its own program.
/// A child that runs on as a fork has the same locks, and must leave them alone.
pub(super) struct Locked {
    pub directory: Option<OwnedFd>,
    pub file: fs::File,
    pub process: Process,
}

impl Drop for Locked {
    fn drop(&mut self) {
        if self.process.check().is_ok() {
            let _ = self.file.unlock();
            let _ = self.directory.as_ref().map(|directory| rustix::fs::flock(directory, FlockOperation::Unlock));
        }
    }
}
