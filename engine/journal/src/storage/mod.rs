//! File access: the journal reaches a disk only through [`Storage`] and [`File`].
//!
//! [`Disk`] is a directory of the file system. [`simulated::SimulatedDisk`](crate::simulated::SimulatedDisk) is a disk
//! in memory whose crashes and errors a test decides. The contract is the weakest that POSIX allows: written bytes are
//! durable only after [`File::sync`] has returned, and names only after [`Storage::sync_dir`] has returned.
//!
//! The directory may hold files of other programs. So only regular files are opened, replaced or removed, no link is
//! followed, and a file with several names is not opened for writing. Each refusal is an error that carries a
//! [`NotOurs`].

#[cfg(unix)]
mod disk;
#[cfg(not(unix))]
mod disk_plain;
mod lock_file;
mod overlay;

#[cfg(unix)]
pub use disk::Disk;
#[cfg(not(unix))]
pub use disk_plain::Disk;
pub(crate) use overlay::Overlay;

use crate::error::{DiskError, OpenError};
use std::any::Any;
use std::io;
use std::sync::Arc;

/// A flat directory of files. The journal builds file names from numbers, never from a user's text.
pub trait Storage: Send + Sync + 'static {
    /// The directory's name in messages, a path.
    fn name(&self) -> String;
    /// A text that tells this directory from every other one of the same type, whatever path leads to it; `None` if that is
    /// unknown.
    fn identity(&self) -> Option<String> {
        None
    }
    /// Creates the directory if it does not exist, accessible only to its owner, and makes its name durable. From then
    /// on all calls use this directory, even if it is renamed.
    fn create_dir(&self) -> io::Result<()>;
    /// Locks the directory until the returned value is dropped. Error `WouldBlock` if it is locked.
    fn lock(&self) -> io::Result<Lock>;
    /// The process that holds the lock, as text for a message.
    fn lock_holder(&self) -> String;
    /// Why the held lock is weaker than usual, as text for a message; `None` if it is not weaker, or if that is
    /// unknown.
    fn lock_weakness(&self) -> Option<String> {
        None
    }
    /// The names of all files, including other programs' files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file, accessible only to its owner. Error `AlreadyExists` if the name is in use.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading, and if `write` also for writing. A file with several names is refused for
    /// writing.
    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>>;
    /// Renames a file, replacing a file that has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Renames a file to an unused name. Error `AlreadyExists` if the name is in use. After a crash the file may have
    /// both names.
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name. Open handles of the file can still read it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all names durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// Locks a journal's directory. The error names the process that holds the lock.
pub(crate) fn take_lock(storage: &dyn Storage) -> Result<Lock, OpenError> {
    storage.lock().map_err(|cause| match cause.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { journal: storage.name(), holder: storage.lock_holder() },
        _ => OpenError::Disk(DiskError::new("lock", storage.name(), &cause)),
    })
}

/// The lock of a directory, which is released when this is dropped.
pub type Lock = Box<dyn Any + Send + Sync>;

/// Why the journal does not touch a file or a directory. It is the inner error of an [`io::Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotOurs {
    /// The name belongs to something other than a regular file.
    #[error("{name:?} is {what}, not a regular file: it is neither opened nor replaced. Move it away")]
    Kind {
        /// The name in the directory.
        name: String,
        /// The kind of thing that has the name, as text.
        what: &'static str,
    },
    /// The file has several names (hard links), so a write would change it under all of them.
    #[error("{name:?} has {links} names (hard links): it is not written, since it would change under all of them")]
    Linked {
        /// The name in the directory.
        name: String,
        /// Count of the file's names.
        links: u64,
    },
    /// This process is a fork of the process that opened the directory.
    #[error("this is process {now}, {}", a_fork_of(*.opened))]
    Forked {
        /// The id of the process that opened the directory.
        opened: u32,
        /// The id of this process.
        now: u32,
    },
}

fn a_fork_of(opened: u32) -> String {
    format!(
        "a fork of process {opened}, which opened the journal: only that one may write to it. Open it after forking, or \
         start another program"
    )
}

/// The process that opened a file or a lock. A forked child inherits files and locks but no threads, so it must not use
/// them.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Process(u32);

impl Default for Process {
    fn default() -> Self {
        Self(std::process::id())
    }
}

impl Process {
    /// Returns an error if the calling process is a forked child.
    #[doc(hidden)]
    pub fn check(self) -> Result<(), NotOurs> {
        let (opened, now) = (self.0, std::process::id());
        if now == opened { Ok(()) } else { Err(NotOurs::Forked { opened, now }) }
    }

    /// The text of the error that [`check`](Self::check) returns in a process forked from this one, without that
    /// process's number.
    #[doc(hidden)]
    pub fn cause_in_forks(self) -> String {
        format!("this is {}", a_fork_of(self.0))
    }

    /// The value as a forked child sees it.
    #[cfg(test)]
    #[doc(hidden)]
    pub fn of_a_parent() -> Self {
        Self(std::process::id() ^ 1)
    }
}

impl From<NotOurs> for io::Error {
    fn from(why: NotOurs) -> Self {
        Self::new(io::ErrorKind::InvalidInput, why)
    }
}

impl NotOurs {
    /// The reason that an error carries; `None` if the error has another cause.
    pub fn of(cause: &io::Error) -> Option<&Self> {
        cause.get_ref()?.downcast_ref()
    }
}

/// An open file. Each call states its offset, so that one thread may write while another syncs.
pub trait File: Send + Sync {
    /// Size of the file, in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Count of the file's names; 1 where the file system has no hard links.
    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }
    /// Reads from offset `at` on until `into` is full or the file ends. Returns the count of bytes read.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at offset `at`. A short write is an error.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Writes all parts one after the other, from offset `at` on. A short write is an error.
    fn write_parts_at(&self, parts: &[&[u8]], at: u64) -> io::Result<()> {
        self.write_at(&parts.concat(), at)
    }
    /// Reserves disk space for a file of `size` bytes, so that later writes need no more space. New bytes read as zero.
    fn allocate(&self, size: u64) -> io::Result<()>;
    /// Cuts or extends the file to `size` bytes.
    fn truncate(&self, size: u64) -> io::Result<()>;
    /// Makes the file's content and size durable.
    fn sync(&self) -> io::Result<()>;
}

/// Calls `read` until `into` is full or the file ends. `read` may return fewer bytes than requested.
fn read_fully(into: &mut [u8], at: u64, read: impl Fn(&mut [u8], u64) -> io::Result<usize>) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match read(&mut into[done..], at + done as u64) {
            Ok(0) => break,
            Ok(more) => done += more,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(done)
}
