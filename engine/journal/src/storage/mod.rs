//! Access to files: everything that the journal does to a disk goes through [`Storage`] and [`File`].
//!
//! [`Disk`] is a directory of the file system. [`simulated::SimulatedDisk`](crate::simulated::SimulatedDisk) is one whose
//! crashes and errors are decided by a test. The contract is the weakest that POSIX allows: written bytes are durable once
//! [`File::sync`] has returned, a name once [`Storage::sync_dir`] has returned, and nothing before.
//!
//! The directory may hold files of other programs. So nothing but a regular file is opened, replaced or removed, no link is
//! followed, and a file with several names is not opened to be written. Each of these is an error that carries a [`NotOurs`].

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

/// A flat directory of files. The journal makes the names from numbers, never from a user's text.
pub trait Storage: Send + Sync + 'static {
    /// The name in messages: a path.
    fn name(&self) -> String;
    /// Creates the directory, for its owner alone, if there is none, and makes its name durable. From then on all calls use
    /// this directory, even if it gets another name.
    fn create_dir(&self) -> io::Result<()>;
    /// Locks the directory for as long as the returned value lives. `WouldBlock` if it is locked.
    fn lock(&self) -> io::Result<Lock>;
    /// The process that holds the lock, as text.
    fn lock_holder(&self) -> String;
    /// Why the lock that is held now is weaker than usual; none if it is not, or if that is unknown.
    fn lock_weakness(&self) -> Option<String> {
        None
    }
    /// The names of all files, also of those that are not the journal's.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file, for its owner alone. `AlreadyExists` if there is one of this name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file, to be read, and if `write` also to be written. A file with several names is not opened to be
    /// written.
    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>>;
    /// Renames a file, and replaces the file that has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Renames a file to a name that no file has; `AlreadyExists` if one has it. After a crash the file may have both names.
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name. Whoever has the file open can still read it.
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

/// The lock of a directory, held until this is dropped.
pub type Lock = Box<dyn Any + Send + Sync>;

/// Why the journal leaves a file or a directory alone. It is the inner error of an [`io::Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotOurs {
    /// The name belongs to something else than a regular file.
    #[error("{name:?} is {what}, not a regular file: it is neither opened nor replaced. Move it away")]
    Kind {
        /// The name in the directory.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// The file has several names, and would change under all of them.
    #[error("{name:?} has {links} names (hard links): it is not written, since it would change under all of them")]
    Linked {
        /// The name in the directory.
        name: String,
        /// Count of its names.
        links: u64,
    },
    /// This process is a fork of the one that opened the directory.
    #[error(
        "this is process {now}, a fork of process {opened}, which opened the journal: only that one may write to it. Open \
         it after forking, or start another program"
    )]
    Forked {
        /// The process that opened the directory.
        opened: u32,
        /// This process.
        now: u32,
    },
}

/// The process that opened a file or a lock. A forked child has the same files and locks, must leave them alone, and has none
/// of the threads.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Process(u32);

impl Default for Process {
    fn default() -> Self {
        Self(std::process::id())
    }
}

impl Process {
    /// An error in a forked child of the process.
    #[doc(hidden)]
    pub fn check(self) -> Result<(), NotOurs> {
        let (opened, now) = (self.0, std::process::id());
        if now == opened { Ok(()) } else { Err(NotOurs::Forked { opened, now }) }
    }

    /// The process as seen by a forked child.
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
    /// The reason that an error carries; none if the error has another cause.
    pub fn of(cause: &io::Error) -> Option<&Self> {
        cause.get_ref()?.downcast_ref()
    }
}

/// An open file. Each call names the byte that it begins at, so that one thread may write while another one syncs.
pub trait File: Send + Sync {
    /// Bytes of the file.
    fn size(&self) -> io::Result<u64>;
    /// Count of the file's names; 1 where the file system has no hard links.
    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }
    /// Reads from byte `at` on until `into` is full or the file ends. Returns the bytes that were read.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of `bytes` from byte `at` on. A short write is an error.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Writes all of these parts one after the other, from byte `at` on. A short write is an error.
    fn write_parts_at(&self, parts: &[&[u8]], at: u64) -> io::Result<()> {
        self.write_at(&parts.concat(), at)
    }
    /// Reserves disk space for `size` bytes, which read as zero, so that later writes need no more space.
    fn allocate(&self, size: u64) -> io::Result<()>;
    /// Cuts or extends the file to `size` bytes.
    fn truncate(&self, size: u64) -> io::Result<()>;
    /// Makes the contents and the size durable.
    fn sync(&self) -> io::Result<()>;
}

/// Reads until `into` is full or the file ends. `read` may return fewer bytes than asked for.
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
