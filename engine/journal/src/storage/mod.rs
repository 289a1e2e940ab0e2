//! The one door to files: everything the journal does to a disk goes through [`Storage`] and [`File`].
//!
//! [`Disk`] is a directory of the file system; [`simulated::SimulatedDisk`](super::simulated::SimulatedDisk) is one
//! whose crashes and errors are decided by a test. The contract, which is POSIX's at its worst: what was written is
//! durable once [`File::sync`] returned, a name once [`Storage::sync_dir`] returned, and nothing before.
//!
//! What stands in the directory may be anybody's. So nothing but a regular file is opened, replaced or removed, no link is
//! followed, and a file that other names share is not opened to be written: each of these is an error that carries a
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

use super::error::{DiskError, OpenError};
use std::any::Any;
use std::io;
use std::sync::Arc;

/// A flat directory of files. Names are made by the journal from numbers, never from what a user said.
pub trait Storage: Send + Sync + 'static {
    /// How messages call it: a path.
    fn name(&self) -> String;
    /// Creates the directory if there is none, for its owner alone, and makes its name durable. From then on all calls go to
    /// this directory, whatever becomes of its name.
    fn create_dir(&self) -> io::Result<()>;
    /// Takes the lock of the directory for as long as the value lives. `WouldBlock` if somebody has it.
    fn lock(&self) -> io::Result<Lock>;
    /// What is known of the holder of the lock.
    fn lock_holder(&self) -> String;
    /// Why the lock of whoever holds it is weaker than it should be; none if it is not, or nobody knows.
    fn lock_weakness(&self) -> Option<String> {
        None
    }
    /// The names of all files, also of those that are not the journal's.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new file, for its owner alone; `AlreadyExists` if there is one.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// A file that is there, to be read, and written if `write`. Written only if it has no other name.
    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, in place of the file that had that one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file a name that no file has; `AlreadyExists` if one has it. After a crash it may have both names.
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()>;
    /// Takes a name away; who has the file open goes on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all names durable as they are.
    fn sync_dir(&self) -> io::Result<()>;
}

/// Takes the lock of a journal's directory; an error that names its holder if somebody has it.
pub(crate) fn take_lock(storage: &dyn Storage) -> Result<Lock, OpenError> {
    storage.lock().map_err(|cause| match cause.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { journal: storage.name(), holder: storage.lock_holder() },
        _ => OpenError::Disk(DiskError::new("lock", storage.name(), &cause)),
    })
}

/// Holds the lock of a directory until it is dropped.
pub type Lock = Box<dyn Any + Send + Sync>;

/// Why something in a directory is left alone. The inner error of the [`io::Error`] that tells of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotOurs {
    /// No regular file.
    #[error("{name:?} is {what}, not a regular file: it is neither opened nor replaced. Move it away")]
    Kind {
        /// The name in the directory.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// A file that other names share, and so it would change under those, too.
    #[error("{name:?} has {links} names (hard links): it is not written, since it would change under all of them")]
    Linked {
        /// The name in the directory.
        name: String,
        /// How many names it has.
        links: u64,
    },
    /// Another process than the one that opened the directory: a child that was forked.
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

/// The process that opened something which its forks must leave alone: they have its files and locks, and none of its threads.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Process(u32);

impl Default for Process {
    fn default() -> Self {
        Self(std::process::id())
    }
}

impl Process {
    /// An error in a fork of it.
    #[doc(hidden)]
    pub fn check(self) -> Result<(), NotOurs> {
        let (opened, now) = (self.0, std::process::id());
        if now == opened { Ok(()) } else { Err(NotOurs::Forked { opened, now }) }
    }

    /// As a fork sees it.
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
    /// What an error says of it; none if the error is about something else.
    pub fn of(cause: &io::Error) -> Option<&Self> {
        cause.get_ref()?.downcast_ref()
    }
}

/// An open file. All calls name their place, so that one thread may write while another one syncs.
pub trait File: Send + Sync {
    /// Bytes it has.
    fn size(&self) -> io::Result<u64>;
    /// How many names it has; 1 where there are no others.
    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }
    /// Reads what there is at `at`; fewer bytes at the end only.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of `bytes`, or is an error: a short write is one.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Writes all of these parts, one behind the other, or is an error.
    fn write_parts_at(&self, parts: &[&[u8]], at: u64) -> io::Result<()> {
        self.write_at(&parts.concat(), at)
    }
    /// Makes room for `size` bytes, which read as zero, so that later writes need no more of the disk.
    fn allocate(&self, size: u64) -> io::Result<()>;
    /// Cuts or grows it to `size` bytes.
    fn truncate(&self, size: u64) -> io::Result<()>;
    /// Makes the contents and the size durable.
    fn sync(&self) -> io::Result<()>;
}

/// Reads until `into` is full or the file ends. `read` is one read of the file, which may return fewer bytes than asked for.
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
