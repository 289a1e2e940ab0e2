//! An open file of a [`Disk`](super::Disk).

use super::super::{File, Process, read_fully};
use super::names;
#[cfg(target_os = "linux")]
use rustix::io::Errno;
use rustix::process::Resource;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;

/// An open file of a [`Disk`](super::Disk).
pub(super) struct DiskFile {
    file: fs::File,
    /// The process that opened the file.
    pub(super) process: Process,
    /// The largest file size in bytes that this process may write. A write beyond it does not only fail: the signal
    /// SIGXFSZ ends the program.
    limit: u64,
}

impl DiskFile {
    pub fn new(file: fs::File) -> Self {
        let limit = rustix::process::getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
        Self { file, process: Process::default(), limit }
    }

    /// Returns an error in a forked child, or if this process may not write a file of `size` bytes.
    fn may_have(&self, size: u64) -> io::Result<()> {
        self.process.check()?;
        if size > self.limit {
            let limit = self.limit;
            let cause = format!("{size} bytes are more than the {limit} that this process may write to a file");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, cause));
        }
        Ok(())
    }
}

impl File for DiskFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn links(&self) -> io::Result<u64> {
        Ok(names(&rustix::fs::fstat(&self.file)?))
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        read_fully(into, at, |into, at| self.file.read_at(into, at))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.may_have(at + bytes.len() as u64)?;
        self.file.write_all_at(bytes, at)
    }

    #[cfg(target_os = "linux")]
    fn write_parts_at(&self, parts: &[&[u8]], at: u64) -> io::Result<()> {
        let slices: smallvec::SmallVec<[io::IoSlice<'_>; 4]> =
            parts.iter().map(|part| io::IoSlice::new(part)).collect();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.may_have(at + len as u64)?;
        let written = loop {
            match rustix::io::pwritev(&self.file, &slices, at) {
                Err(Errno::INTR) => {}
                done => break done?,
            }
        };
        // A short write (rare) does not say its cause. Writing the rest gives it, such as a full disk.
        if written == len {
            return Ok(());
        }
        let mut begin = 0;
        for part in parts {
            let done = written.saturating_sub(begin).min(part.len());
            self.file.write_all_at(&part[done..], at + (begin + done) as u64)?;
            begin += part.len();
        }
        Ok(())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.may_have(size)?;
        #[cfg(target_os = "linux")]
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, size) {
            Ok(()) => return Ok(()),
            // The file system cannot allocate. Only the size is set, and a write reports a full disk.
            Err(Errno::OPNOTSUPP) => {}
            Err(cause) => return Err(cause.into()),
        }
        self.file.set_len(size)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        if size > self.limit && size > self.size()? {
            self.may_have(size)?;
        }
        self.process.check()?;
        self.file.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.process.check()?;
        self.file.sync_data()
    }
}
