//! A directory in memory that loses power when a test tells it to. The journal's own tests run on it, and those of programs
//! that use a journal.
//!
//! ```
//! use slipring_journal::{simulated::SimulatedDisk, storage::Storage};
//!
//! let disk = SimulatedDisk::new();
//! let file = disk.create("a").unwrap();
//! file.write_at(b"kept", 0).unwrap();
//! file.sync().unwrap();
//! disk.sync_dir().unwrap();
//! file.write_at(b"perhaps", 4).unwrap();
//! let after = disk.crash(7);                                  // the seed decides what is kept of the unsynced bytes
//! assert!(after.contents("a").unwrap().starts_with(b"kept"));
//! ```
//!
//! # What a crash keeps
//! All synced bytes and names. Of the rest, each sector of 512 bytes is as it was before or after any of the writes that
//! touched it, independently of other sectors; so is the size of a file; and each change of a name is kept or lost by itself.
//! A real disk loses less. A failing disk does worse: [`SimulatedDisk::edit`] flips bits.

mod file;
mod inode;

pub use inode::Traffic;

use crate::storage::{File, Lock, NotOurs, Storage};
use file::SimulatedFile;
use inode::{Dice, Inode};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What a fault does to a call that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The device reports an error.
    Io,
    /// The disk is full.
    Full,
    /// Half of a write is done, and then the disk is full. As [`Full`](Self::Full) for calls that do not write.
    Short,
    /// The power goes: this call and all later ones are errors and do nothing.
    PowerCut,
}

/// A directory in memory. Clones are the same directory.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk {
    shared: Arc<SharedDisk>,
}

#[derive(Debug, Default)]
struct SharedDisk {
    inner: Mutex<DiskState>,
    /// Signalled when syncs are held no longer.
    released: Condvar,
}

#[derive(Clone, Debug, Default)]
struct DiskState {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names since the last sync of the directory.
    changes: Vec<NameChange>,
    /// Count of the calls that change or sync something.
    calls: u64,
    /// Count of the syncs of files.
    syncs: u64,
    fault: Option<(u64, Fault)>,
    off: bool,
    locked: bool,
    ignore_sync: bool,
    ignore_sync_dir: bool,
    /// Bytes that files may still grow by; none for no limit.
    room: Option<u64>,
    /// Count of the open files.
    open: usize,
    /// The most files that may be open; none for no limit.
    most_open: Option<usize>,
    /// True while syncs of files wait.
    hold_syncs: bool,
    /// Count of the syncs that wait.
    syncs_held: usize,
}

#[derive(Clone, Debug)]
struct NameChange {
    clear: Option<String>,
    set: Option<(String, usize)>,
}

impl DiskState {
    /// Counts a call, and returns its fault.
    fn call(&mut self) -> Result<(), Fault> {
        if self.off {
            return Err(Fault::PowerCut);
        }
        self.calls += 1;
        match self.fault {
            Some((at, fault)) if at == self.calls => {
                self.off = fault == Fault::PowerCut;
                Err(fault)
            }
            _ => Ok(()),
        }
    }

    fn change(&mut self, clear: Option<&str>, set: Option<(&str, usize)>) {
        if let Some(name) = clear {
            self.names.remove(name);
        }
        if let Some((name, inode)) = set {
            self.names.insert(name.to_owned(), inode);
        }
        self.changes.push(NameChange {
            clear: clear.map(str::to_owned),
            set: set.map(|(name, inode)| (name.to_owned(), inode)),
        });
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        if self.off {
            return Err(error(Fault::PowerCut));
        }
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Count of a file's names.
    fn links(&self, inode: usize) -> u64 {
        self.names.values().filter(|named| **named == inode).count() as u64
    }

    /// Takes the room that a file needs to have `size` bytes, or returns the room that it needs no more.
    fn resize(&mut self, inode: usize, size: usize) -> io::Result<()> {
        let (now, size) = (self.inodes[inode].now.len() as u64, size as u64);
        if let Some(room) = &mut self.room {
            *room = (*room + now).checked_sub(size).ok_or_else(|| error(Fault::Full))?;
        }
        Ok(())
    }

    /// Returns the room of a file without a name.
    fn return_room(&mut self, inode: usize) {
        if self.links(inode) == 0
            && let Some(room) = &mut self.room
        {
            *room += self.inodes[inode].now.len() as u64;
        }
    }

    /// Counts one more open file.
    fn opened(&mut self) -> io::Result<()> {
        if self.most_open.is_some_and(|most| self.open >= most) {
            return Err(io::Error::from_raw_os_error(TOO_MANY_OPEN));
        }
        self.open += 1;
        Ok(())
    }
}

/// `EMFILE`: too many open files.
const TOO_MANY_OPEN: i32 = 24;

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Io => io::Error::from_raw_os_error(5),
        Fault::Full | Fault::Short => io::ErrorKind::StorageFull.into(),
        Fault::PowerCut => io::Error::other("the power is off"),
    }
}

impl SimulatedDisk {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, DiskState> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Count of the syncs of files.
    pub fn syncs(&self) -> u64 {
        self.inner().syncs
    }

    /// Count of the calls that change or sync something.
    pub fn calls(&self) -> u64 {
        self.inner().calls
    }

    /// Lets the `nth` of those calls end in `fault`, counted from 1 since the disk was created.
    pub fn fail_at(&self, nth: u64, fault: Fault) {
        self.inner().fault = Some((nth, fault));
    }

    /// Lets the `nth` of those calls from now on end in `fault`, whoever calls meanwhile: 1 is the next one. Returns its number
    /// since the disk was created.
    pub fn fail_after(&self, nth: u64, fault: Fault) -> u64 {
        let mut inner = self.inner();
        let call = inner.calls + nth;
        inner.fault = Some((call, fault));
        call
    }

    /// A disk with what a loss of power leaves now. The seed decides which changes are kept.
    pub fn crash(&self, seed: u64) -> Self {
        let inner = self.inner();
        let mut dice = Dice(seed);
        let mut names = inner.durable_names.clone();
        let all = dice.roll(4);
        for change in &inner.changes {
            if all == 0 || (all != 1 && dice.roll(2) == 0) {
                continue;
            }
            if let Some(name) = &change.clear {
                names.remove(name);
            }
            if let Some((name, inode)) = &change.set {
                names.insert(name.clone(), *inode);
            }
        }
        let inodes = inner.inodes.iter().map(|inode| Inode::synced(inode.crashed(&mut dice))).collect();
        Self::with(inodes, names)
    }

    /// A disk with the same contents, all of them durable: what the next process finds after `kill -9`.
    pub fn copy(&self) -> Self {
        let inner = self.inner();
        Self::with(inner.inodes.iter().map(|inode| Inode::synced(inode.now.clone())).collect(), inner.names.clone())
    }

    fn with(inodes: Vec<Inode>, names: BTreeMap<String, usize>) -> Self {
        let inner = DiskState { inodes, durable_names: names.clone(), names, ..DiskState::default() };
        Self { shared: Arc::new(SharedDisk { inner: Mutex::new(inner), ..SharedDisk::default() }) }
    }

    /// The bytes of a file.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.inner();
        Some(inner.inodes[*inner.names.get(name)?].now.clone())
    }

    /// Changes the bytes of a file, both those that are read and the durable ones, as a failing disk does.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner();
        if let Some(&inode) = inner.names.get(name) {
            let inode = &mut inner.inodes[inode];
            change(&mut inode.now);
            inode.durable = inode.now.clone();
        }
    }

    /// Gives a file another name, as `cp -l` does. The name is durable at once.
    pub fn link(&self, name: &str, other: &str) {
        let mut inner = self.inner();
        if let Some(&inode) = inner.names.get(name) {
            inner.names.insert(other.to_owned(), inode);
            inner.durable_names.insert(other.to_owned(), inode);
        }
    }

    /// Lets syncs of files, or of the directory, succeed without doing anything.
    pub fn ignore_syncs(&self, files: bool, directory: bool) {
        let mut inner = self.inner();
        (inner.ignore_sync, inner.ignore_sync_dir) = (files, directory);
    }

    /// Lets files grow by `bytes` in all from now on. A call that needs more is an error and changes nothing. Cut and removed
    /// files return room. `None`: no limit.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.inner().room = bytes;
    }

    /// The most files that may be open at a time. Opening one more is `EMFILE`, as in a process at its limit. `None`: no
    /// limit.
    pub fn set_most_open(&self, files: Option<usize>) {
        self.inner().most_open = files;
    }

    /// Count of the open files.
    pub fn open_files(&self) -> usize {
        self.inner().open
    }

    /// While `held` is true, syncs of files wait.
    pub fn hold_syncs(&self, held: bool) {
        self.inner().hold_syncs = held;
        self.shared.released.notify_all();
    }

    /// Count of the syncs that wait.
    pub fn syncs_held(&self) -> usize {
        self.inner().syncs_held
    }

    /// The names of the files with bytes that no sync has covered.
    pub fn unsynced(&self) -> BTreeSet<String> {
        let inner = self.inner();
        let named = inner.names.iter();
        named.filter(|(_, inode)| !inner.inodes[**inode].pending.is_empty()).map(|(name, _)| name.clone()).collect()
    }

    /// A disk with the files of a directory of the file system, all of them durable.
    ///
    /// # Errors
    /// A file cannot be read, or its name is not UTF-8.
    pub fn load(directory: &Path) -> io::Result<Self> {
        let (mut inodes, mut names) = (Vec::new(), BTreeMap::new());
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let no_text = |_| io::Error::new(io::ErrorKind::InvalidData, "a file's name is no text");
            names.insert(entry.file_name().into_string().map_err(no_text)?, inodes.len());
            inodes.push(Inode::synced(std::fs::read(entry.path())?));
        }
        Ok(Self::with(inodes, names))
    }

    /// Writes the files as they are read now into a directory of the file system, which is created. Few of the zeros at the
    /// end of a file are written: they stand where a segment was not written yet.
    ///
    /// # Errors
    /// The file system refuses it.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        let inner = self.inner();
        inner.names.iter().try_for_each(|(name, inode)| {
            let bytes = &inner.inodes[*inode].now;
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 65).min(bytes.len()));
            std::fs::write(directory.join(name), &bytes[..end])
        })
    }

    /// Takes the counters of each file since the last call, by the file's present name.
    pub fn take_traffic(&self) -> BTreeMap<String, Traffic> {
        let mut inner = self.inner();
        let DiskState { inodes, names, .. } = &mut *inner;
        let done = names.iter().map(|(name, inode)| (name.clone(), inodes[*inode].traffic)).collect();
        inodes.iter_mut().for_each(|inode| inode.traffic = Traffic::default());
        done
    }
}

struct SimulatedLock(SimulatedDisk);

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.0.inner().locked = false;
    }
}

impl Storage for SimulatedDisk {
    fn name(&self) -> String {
        "simulated disk".to_owned()
    }

    fn create_dir(&self) -> io::Result<()> {
        self.inner().call().map_err(error)
    }

    fn lock(&self) -> io::Result<Lock> {
        let mut inner = self.inner();
        if std::mem::replace(&mut inner.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimulatedLock(self.clone())))
    }

    fn lock_holder(&self) -> String {
        "another engine of this process".to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut inner = self.inner();
        inner.call().map_err(error)?;
        if inner.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        inner.opened()?;
        let inode = inner.inodes.len();
        inner.inodes.push(Inode::default());
        inner.change(None, Some((name, inode)));
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>> {
        let mut inner = self.inner();
        let inode = inner.find(name)?;
        let links = inner.links(inode);
        if write && links > 1 {
            return Err(NotOurs::Linked { name: name.to_owned(), links }.into());
        }
        inner.opened()?;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.call().map_err(error)?;
        let inode = inner.find(from)?;
        let replaced = inner.names.get(to).copied();
        inner.change(Some(from), Some((to, inode)));
        if let Some(replaced) = replaced {
            inner.return_room(replaced);
        }
        Ok(())
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.call().map_err(error)?;
        let inode = inner.find(from)?;
        if inner.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        inner.change(Some(from), Some((to, inode)));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.call().map_err(error)?;
        let inode = inner.find(name)?;
        inner.change(Some(name), None);
        inner.return_room(inode);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.call().map_err(error)?;
        if !inner.ignore_sync_dir {
            inner.durable_names = inner.names.clone();
            inner.changes.clear();
        }
        Ok(())
    }
}
