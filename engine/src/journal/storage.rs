//! The one door to files: everything the journal does to a disk goes through [`Storage`] and [`File`].
//!
//! [`Disk`] is a directory of the file system; [`simulated::SimulatedDisk`](super::simulated::SimulatedDisk) is one
//! whose crashes and errors are decided by a test. The contract, which is POSIX's at its worst: what was written is
//! durable once [`File::sync`] returned, a name once [`Storage::sync_dir`] returned, and nothing before.

use std::any::Any;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A flat directory of files. Names are made by the journal from numbers, never from what a user said.
pub trait Storage: Send + Sync + 'static {
    /// How messages call it: a path.
    fn name(&self) -> String;
    /// Creates the directory if there is none, for its owner alone, and makes its name durable.
    fn create_dir(&self) -> io::Result<()>;
    /// Takes the lock of the directory for as long as the value lives. `WouldBlock` if somebody has it.
    fn lock(&self) -> io::Result<Lock>;
    /// What is known of the holder of the lock.
    fn lock_holder(&self) -> String;
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new file, for its owner alone; `AlreadyExists` if there is one.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// A file that is there, to be read, and written if `write`.
    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, in place of whatever had that one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Takes a name away; who has the file open goes on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all names durable as they are.
    fn sync_dir(&self) -> io::Result<()>;
}

/// Holds the lock of a directory until it is dropped.
pub type Lock = Box<dyn Any + Send + Sync>;

/// An open file. All calls name their place, so that one thread may write while another one syncs.
pub trait File: Send + Sync {
    /// Bytes it has.
    fn size(&self) -> io::Result<u64>;
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

/// A directory of the file system: mode 0700, its files 0600.
#[derive(Clone, Debug)]
pub struct Disk {
    path: PathBuf,
}

const LOCK: &str = "lock";

impl Disk {
    /// The directory `path`. Nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// A child that the program is about to start has the file, too, until it runs its own program: closing the file would leave
/// the lock to it for that long.
struct Locked(fs::File);

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Storage for Disk {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn create_dir(&self) -> io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let absolute = self.path.canonicalize()?;
        absolute.parent().map_or(Ok(()), sync_dir)
    }

    fn lock(&self) -> io::Result<Lock> {
        let mut options = fs::OpenOptions::new();
        // Not truncated: it names the holder until the lock is ours.
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(self.at(LOCK))?;
        file.try_lock().map_err(|refused| match refused {
            fs::TryLockError::WouldBlock => io::Error::from(io::ErrorKind::WouldBlock),
            fs::TryLockError::Error(cause) => cause,
        })?;
        file.set_len(0)?;
        (&file).write_all(format!("process {}\n", std::process::id()).as_bytes())?;
        Ok(Box::new(Locked(file)))
    }

    fn lock_holder(&self) -> String {
        let mut holder = String::new();
        let read = fs::File::open(self.at(LOCK)).and_then(|file| file.take(200).read_to_string(&mut holder));
        let known = read.is_ok() && !holder.trim().is_empty();
        if known { holder.trim().to_owned() } else { "another process".to_owned() }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is no text is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(self.at(name))?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(write).open(self.at(name))?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_dir(&self.path)
    }
}

impl File for fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < into.len() {
            match FileExt::read_at(self, &mut into[read..], at + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    #[cfg(target_os = "linux")]
    fn write_parts_at(&self, parts: &[&[u8]], at: u64) -> io::Result<()> {
        let slices: smallvec::SmallVec<[io::IoSlice<'_>; 4]> =
            parts.iter().map(|part| io::IoSlice::new(part)).collect();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let written = loop {
            match rustix::io::pwritev(self, &slices, at) {
                Err(rustix::io::Errno::INTR) => {}
                done => break done?,
            }
        };
        // A short one is rare: what is left goes part by part, and names its cause.
        if written == len {
            return Ok(());
        }
        let mut begin = 0;
        for part in parts {
            let done = written.saturating_sub(begin).min(part.len());
            self.write_all_at(&part[done..], at + (begin + done) as u64)?;
            begin += part.len();
        }
        Ok(())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        match rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), 0, size) {
            Ok(()) => return Ok(()),
            // A file system without it: the size alone, and a full disk shows at the write.
            Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(cause) => return Err(cause.into()),
        }
        self.set_len(size)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_file_too_does_not_keep_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let lock = disk.lock().unwrap();
        assert_eq!(disk.lock().map(drop).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let _as_a_child_has_it = lock.downcast_ref::<Locked>().unwrap().0.try_clone().unwrap();
        drop(lock);
        assert!(disk.lock().is_ok());
    }
}
