//! A disk that counts what is read of its files, and what is written to them.

use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::storage::{File, Lock, Storage};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

/// What was done to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Bytes that were read.
    pub read: u64,
    /// Calls that read.
    pub reads: u64,
    /// Bytes that were written.
    pub written: u64,
    /// Calls that synced.
    pub syncs: u64,
}

/// Clones are the same disk.
#[derive(Clone, Default)]
pub struct CountingDisk {
    disk: SimulatedDisk,
    done: Arc<Mutex<BTreeMap<String, Done>>>,
}

impl CountingDisk {
    /// What was done since the last call to segments, by their names.
    pub fn take(&self) -> BTreeMap<String, Done> {
        let mut done = std::mem::take(&mut *self.done.lock().unwrap());
        done.retain(|name, _| name.ends_with(".segment"));
        done
    }

    /// All of that together.
    pub fn take_sum(&self) -> Done {
        let mut sum = Done::default();
        for done in self.take().values() {
            sum.read += done.read;
            sum.reads += done.reads;
            sum.written += done.written;
            sum.syncs += done.syncs;
        }
        sum
    }

    /// Bytes of all segments.
    #[allow(dead_code, reason = "not every test needs it")]
    pub fn segments(&self) -> u64 {
        let names = self.disk.list().unwrap().into_iter().filter(|name| name.ends_with(".segment"));
        names.map(|name| self.disk.open(&name, false).unwrap().size().unwrap()).sum()
    }
}

struct Counted {
    name: String,
    file: Arc<dyn File>,
    done: Arc<Mutex<BTreeMap<String, Done>>>,
}

impl Counted {
    fn note(&self, note: impl FnOnce(&mut Done)) {
        note(self.done.lock().unwrap().entry(self.name.clone()).or_default());
    }
}

impl File for Counted {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let read = self.file.read_at(into, at)?;
        self.note(|done| (done.read, done.reads) = (done.read + read as u64, done.reads + 1));
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.note(|done| done.written += bytes.len() as u64);
        self.file.write_at(bytes, at)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.file.allocate(size)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.file.truncate(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.note(|done| done.syncs += 1);
        self.file.sync()
    }
}

impl Storage for CountingDisk {
    fn name(&self) -> String {
        self.disk.name()
    }

    fn create_dir(&self) -> io::Result<()> {
        self.disk.create_dir()
    }

    fn lock(&self) -> io::Result<Lock> {
        self.disk.lock()
    }

    fn lock_holder(&self) -> String {
        self.disk.lock_holder()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let (file, done) = (self.disk.create(name)?, Arc::clone(&self.done));
        // A segment is made under another name.
        let name = name.strip_suffix(".new").unwrap_or(name).to_owned();
        Ok(Arc::new(Counted { name, file, done }))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>> {
        let (file, done) = (self.disk.open(name, write)?, Arc::clone(&self.done));
        Ok(Arc::new(Counted { name: name.to_owned(), file, done }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename_new(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}
