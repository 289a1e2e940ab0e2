//! A directory of the file system, for systems without directory descriptors: each file is opened by its path.
//!
//! This is weaker than on Unix. If the directory is renamed while it is open, later calls no longer find it; names are
//! not made durable; and hard links of a file are not noticed.

use super::{File, Lock, NotOurs, Storage, lock_file, read_fully};
use crate::files::names::LOCK;
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// A directory of the file system. Clones refer to the same directory.
#[derive(Clone, Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Refers to the directory `path` without opening it. A relative path is resolved by this call.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { path: std::path::absolute(&path).unwrap_or(path) }
    }

    /// The path of a regular file; an error if the name belongs to anything else.
    fn look(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        let kind = fs::symlink_metadata(&path)?.file_type();
        let what = match (kind.is_file(), kind.is_dir(), kind.is_symlink()) {
            (true, _, _) => return Ok(path),
            (_, true, _) => "a directory",
            (_, _, true) => "a symbolic link",
            _ => "something else",
        };
        Err(NotOurs::Kind { name: name.to_owned(), what }.into())
    }

    /// The path of a name that belongs to a regular file or is unused; otherwise an error.
    fn free(&self, name: &str) -> io::Result<PathBuf> {
        match self.look(name) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(self.path.join(name)),
            looked => looked,
        }
    }
}

/// Unlocks explicitly when dropped, because another handle of the file would keep the lock.
struct FileLock(fs::File);

impl Drop for FileLock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Storage for Disk {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn identity(&self) -> Option<String> {
        Some(fs::canonicalize(&self.path).ok()?.display().to_string())
    }

    fn create_dir(&self) -> io::Result<()> {
        fs::create_dir_all(&self.path)
    }

    fn lock(&self) -> io::Result<Lock> {
        let mut options = fs::OpenOptions::new();
        // The file is truncated only after it is locked: until then its text names the process that holds the lock.
        let file = options.read(true).write(true).create(true).truncate(false).open(self.free(LOCK)?)?;
        file.try_lock().map_err(|refused| match refused {
            fs::TryLockError::WouldBlock => io::Error::from(io::ErrorKind::WouldBlock),
            fs::TryLockError::Error(cause) => cause,
        })?;
        file.set_len(0)?;
        (&file).write_all(lock_file::text("").as_bytes())?;
        Ok(Box::new(FileLock(file)))
    }

    fn lock_holder(&self) -> String {
        let mut text = String::new();
        let read = self.look(LOCK).and_then(|path| fs::File::open(path)?.take(200).read_to_string(&mut text));
        lock_file::holder(read.map_or("", |_| &text))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // Other names are skipped: the journal's own names are UTF-8.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(self.path.join(name))?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(write).open(self.look(name)?)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.look(from)?, self.free(to)?)
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let from = self.look(from)?;
        // Unlike a rename, a hard link never replaces a file.
        fs::hard_link(&from, self.path.join(to))?;
        fs::remove_file(from)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.look(name)?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

struct DiskFile(fs::File);

#[cfg(windows)]
fn read_once(file: &fs::File, into: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, into, at)
}

#[cfg(windows)]
fn write_once(file: &fs::File, bytes: &[u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, at)
}

#[cfg(not(windows))]
fn read_once(_: &fs::File, _: &mut [u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(windows))]
fn write_once(_: &fs::File, _: &[u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

impl File for DiskFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        read_fully(into, at, |into, at| read_once(&self.0, into, at))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            match write_once(&self.0, &bytes[written..], at + written as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}
