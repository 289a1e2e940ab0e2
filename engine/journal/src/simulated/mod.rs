//! A directory in memory that a test can cut the power of. It serves the journal's own tests, and tests of programs
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
//! All synced bytes and names. Each sector of 512 bytes with unsynced writes is as it was before or after any of these
//! writes, independently of other sectors; so is the size of a file. Each unsynced change of a name is kept or lost
//! independently. A sync that fails leaves its bytes so for good: later syncs make them durable only if they are
//! written again, as on Linux, also in the next process. A real disk loses less. A failing disk does worse, which
//! [`SimulatedDisk::edit`] simulates.

mod contents;
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

/// The effect of a fault on a call that changes or syncs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The device reports an error.
    Io,
    /// The disk is full.
    Full,
    /// Half of a write is done, then the disk is full. As [`Full`](Self::Full) for calls that do not write.
    Short,
    /// The power is cut: this call and all later ones fail. If this call writes, a [crash](SimulatedDisk::crash) may
    /// keep its bytes.
    PowerCut,
}

/// A directory in memory. Clones refer to the same directory.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk {
    shared: Arc<SharedDisk>,
}

#[derive(Debug, Default)]
struct SharedDisk {
    inner: Mutex<DiskState>,
    /// Notified when syncs are no longer held.
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
    /// Bytes by which files may still grow in total; `None` for no limit.
    room: Option<u64>,
    /// Count of the open files.
    open: usize,
    /// The most files that may be open; `None` for no limit.
    most_open: Option<usize>,
    /// True while syncs of files are made to wait.
    hold_syncs: bool,
    /// Count of the waiting syncs.
    syncs_held: usize,
}

#[derive(Clone, Debug)]
struct NameChange {
    clear: Option<String>,
    set: Option<(String, usize)>,
}

impl DiskState {
    /// Counts a call that changes or syncs something. An error if a fault was set for this call, or if the power is
    /// off.
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

    /// Takes the space that a file needs to have `size` bytes, or returns the space that it no longer needs.
    fn resize(&mut self, inode: usize, size: usize) -> io::Result<()> {
        let (now, size) = (self.inodes[inode].now.len() as u64, size as u64);
        if let Some(room) = &mut self.room {
            *room = (*room + now).checked_sub(size).ok_or_else(|| error(Fault::Full))?;
        }
        Ok(())
    }

    /// Returns the space of a file that has no name any more.
    fn return_room(&mut self, inode: usize) {
        if self.links(inode) == 0
            && let Some(room) = &mut self.room
        {
            *room += self.inodes[inode].now.len() as u64;
        }
    }

    /// Counts one more open file; an error at the limit.
    fn opened(&mut self) -> io::Result<()> {
        if self.most_open.is_some_and(|most| self.open >= most) {
            return Err(io::Error::from_raw_os_error(TOO_MANY_OPEN));
        }
        self.open += 1;
        Ok(())
    }
}

/// `EMFILE`: the process has too many open files.
const TOO_MANY_OPEN: i32 = 24;

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Io => io::Error::from_raw_os_error(5),
        Fault::Full | Fault::Short => io::ErrorKind::StorageFull.into(),
        Fault::PowerCut => io::Error::other("the power is off"),
    }
}

impl SimulatedDisk {
    /// Creates an empty directory.
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

    /// Makes the `nth` changing or syncing [call](Self::calls) fail with `fault`. Calls are counted from 1 since the
    /// disk was created; with 0 no call fails. Replaces an earlier fault.
    pub fn fail_at(&self, nth: u64, fault: Fault) {
        self.inner().fault = Some((nth, fault));
    }

    /// Makes the `nth` changing or syncing [call](Self::calls) from now on fail with `fault`; 1 is the next call.
    /// Returns the number of that call, counted from 1 since the disk was created. Replaces an earlier fault.
    pub fn fail_after(&self, nth: u64, fault: Fault) -> u64 {
        let mut inner = self.inner();
        let call = inner.calls + nth;
        inner.fault = Some((call, fault));
        call
    }

    /// Returns a disk with what a power cut would leave now. The seed determines which unsynced changes are kept.
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

    /// Returns a disk with the present contents, as the next process finds them after `kill -9`. What was not synced is
    /// not durable there either. If the power is off, all of the contents are durable.
    pub fn copy(&self) -> Self {
        let inner = self.inner();
        if !inner.off {
            let DiskState { inodes, names, durable_names, changes, .. } = &*inner;
            let mut inodes = inodes.clone();
            inodes.iter_mut().for_each(|inode| inode.traffic = Traffic::default());
            let (names, durable_names, changes) = (names.clone(), durable_names.clone(), changes.clone());
            return Self::of(DiskState { inodes, names, durable_names, changes, ..DiskState::default() });
        }
        Self::with(inner.inodes.iter().map(|inode| Inode::synced(inode.now.clone())).collect(), inner.names.clone())
    }

    fn with(inodes: Vec<Inode>, names: BTreeMap<String, usize>) -> Self {
        Self::of(DiskState { inodes, durable_names: names.clone(), names, ..DiskState::default() })
    }

    fn of(inner: DiskState) -> Self {
        Self { shared: Arc::new(SharedDisk { inner: Mutex::new(inner), ..SharedDisk::default() }) }
    }

    /// The bytes of a file; `None` if there is no file of this name.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.inner();
        Some(inner.inodes[*inner.names.get(name)?].now.to_vec())
    }

    /// Changes both the readable and the durable bytes of a file, as a failing disk does.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner();
        if let Some(&inode) = inner.names.get(name) {
            inner.inodes[inode].edit(change);
        }
    }

    /// Gives a file a second name, as `cp -l` does. The name is durable at once.
    pub fn link(&self, name: &str, other: &str) {
        let mut inner = self.inner();
        if let Some(&inode) = inner.names.get(name) {
            inner.names.insert(other.to_owned(), inode);
            inner.durable_names.insert(other.to_owned(), inode);
        }
    }

    /// If true, syncs of files, or of the directory, succeed without making anything durable.
    pub fn ignore_syncs(&self, files: bool, directory: bool) {
        let mut inner = self.inner();
        (inner.ignore_sync, inner.ignore_sync_dir) = (files, directory);
    }

    /// Limits the growth of all files together to `bytes` from now on. A call that needs more fails and changes
    /// nothing. Cut and removed files give space back. `None`: no limit.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.inner().room = bytes;
    }

    /// Limits the count of open files. Opening one more fails with `EMFILE`, as in a process at its limit. `None`: no
    /// limit.
    pub fn set_most_open(&self, files: Option<usize>) {
        self.inner().most_open = files;
    }

    /// Count of the open files.
    pub fn open_files(&self) -> usize {
        self.inner().open
    }

    /// Makes syncs of files wait while `held` is true.
    pub fn hold_syncs(&self, held: bool) {
        self.inner().hold_syncs = held;
        self.shared.released.notify_all();
    }

    /// Count of the waiting syncs.
    pub fn syncs_held(&self) -> usize {
        self.inner().syncs_held
    }

    /// The names of the files that have unsynced bytes.
    pub fn unsynced(&self) -> BTreeSet<String> {
        let inner = self.inner();
        let named = inner.names.iter();
        named.filter(|(_, inode)| inner.inodes[**inode].is_unsynced()).map(|(name, _)| name.clone()).collect()
    }

    /// Loads the files of a directory of the file system into a new disk. All of them are durable.
    ///
    /// # Errors
    /// A file cannot be read, or its name is not UTF-8.
    pub fn load(directory: &Path) -> io::Result<Self> {
        let (mut inodes, mut names) = (Vec::new(), BTreeMap::new());
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let no_text = |_| io::Error::new(io::ErrorKind::InvalidData, "a file's name is no text");
            names.insert(entry.file_name().into_string().map_err(no_text)?, inodes.len());
            inodes.push(Inode::synced(std::fs::read(entry.path())?.into()));
        }
        Ok(Self::with(inodes, names))
    }

    /// Writes the files as they are now into a directory of the file system, which is created. Of the zeros at the end
    /// of a file at most 64 are written, because no frame lies there.
    ///
    /// # Errors
    /// The file system reports an error.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        let inner = self.inner();
        inner.names.iter().try_for_each(|(name, inode)| {
            let bytes = inner.inodes[*inode].now.to_vec();
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 65).min(bytes.len()));
            std::fs::write(directory.join(name), &bytes[..end])
        })
    }

    /// Returns each file's counters since the last call, by the file's present name, and resets them.
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

    fn identity(&self) -> Option<String> {
        Some(format!("{:p}", Arc::as_ptr(&self.shared)))
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
