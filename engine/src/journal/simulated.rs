//! A disk in memory that loses power when told: what the journal's own tests run on, and those of programs that use it.
//!
//! ```
//! use slipring::journal::{simulated::SimulatedDisk, storage::Storage};
//!
//! let disk = SimulatedDisk::new();
//! let file = disk.create("a").unwrap();
//! file.write_at(b"kept", 0).unwrap();
//! file.sync().unwrap();
//! disk.sync_dir().unwrap();
//! file.write_at(b"perhaps", 4).unwrap();
//! let after = disk.crash(7);                                  // any subset of what was not synced, by this seed
//! assert!(after.contents("a").unwrap().starts_with(b"kept"));
//! ```
//!
//! # What a crash keeps
//! Everything synced. Of the rest: each sector of 512 bytes stands as it was after any one of the writes that touched
//! it, whatever became of its neighbours; a file's size likewise; each change of the directory by itself is there or is
//! not. That is more than a real disk does, and less than a broken one: bits that turn are [`SimulatedDisk::edit`].

use super::storage::{File, Lock, NotOurs, Storage};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SECTOR: usize = 512;

/// What happens to a call that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// An error of the device.
    Io,
    /// No room.
    Full,
    /// Half of a write arrives, and then there is no room. As [`Full`](Self::Full) for calls that do not write.
    Short,
    /// The power goes: this call and all later ones are errors and do nothing.
    PowerCut,
}

/// A directory in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk {
    shared: Arc<Mutex<Inner>>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Since the last sync of the directory.
    changes: Vec<Change>,
    /// Calls that changed or synced something.
    calls: u64,
    /// Calls that synced a file.
    syncs: u64,
    fault: Option<(u64, Fault)>,
    off: bool,
    locked: bool,
    ignore_sync: bool,
    ignore_sync_dir: bool,
}

#[derive(Clone, Debug)]
struct Change {
    clear: Option<String>,
    set: Option<(String, usize)>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync.
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write { at: usize, bytes: Vec<u8> },
    Size(usize),
}

/// A small generator: the same seed, the same crash.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }
}

impl Inode {
    fn resize(bytes: &mut Vec<u8>, size: usize) {
        bytes.resize(size, 0);
    }

    fn apply(bytes: &mut Vec<u8>, change: &Pending) {
        match change {
            Pending::Write { at, bytes: written } => {
                if bytes.len() < at + written.len() {
                    Self::resize(bytes, at + written.len());
                }
                bytes[*at..at + written.len()].copy_from_slice(written);
            }
            Pending::Size(size) => Self::resize(bytes, *size),
        }
    }

    /// What a loss of power leaves.
    fn crashed(&self, dice: &mut Dice) -> Vec<u8> {
        if self.pending.is_empty() {
            return self.durable.clone();
        }
        let mut versions = vec![self.durable.clone()];
        for change in &self.pending {
            let mut next = versions[versions.len() - 1].clone();
            Self::apply(&mut next, change);
            versions.push(next);
        }
        // All, nothing, or each sector by itself: the first two are the likely ones and should not be rare.
        match dice.roll(8) {
            0 => return versions.swap_remove(0),
            1 => return versions.swap_remove(versions.len() - 1),
            _ => {}
        }
        let size = versions[dice.roll(versions.len())].len();
        let mut left = vec![0; size];
        for (index, sector) in left.chunks_mut(SECTOR).enumerate() {
            let from = &versions[dice.roll(versions.len())];
            let from = from.get(index * SECTOR..).unwrap_or(&[]);
            let len = sector.len().min(from.len());
            sector[..len].copy_from_slice(&from[..len]);
        }
        left
    }
}

impl Inner {
    /// Counts a call, and says how it ends.
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
        self.changes
            .push(Change { clear: clear.map(str::to_owned), set: set.map(|(name, inode)| (name.to_owned(), inode)) });
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        if self.off {
            return Err(error(Fault::PowerCut));
        }
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// How many names a file has.
    fn links(&self, inode: usize) -> u64 {
        self.names.values().filter(|named| **named == inode).count() as u64
    }
}

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

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many times a file was synced.
    pub fn syncs(&self) -> u64 {
        self.inner().syncs
    }

    /// How many calls have changed or synced something.
    pub fn calls(&self) -> u64 {
        self.inner().calls
    }

    /// Lets the `nth` of those calls end in `fault`, counted from the beginning of the disk, the first being 1.
    pub fn fail_at(&self, nth: u64, fault: Fault) {
        self.inner().fault = Some((nth, fault));
    }

    /// The disk after the power was lost now: a new one, that has what a crash keeps. The same seed, the same crash.
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
        let inodes = inner.inodes.iter().map(|inode| {
            let left = inode.crashed(&mut dice);
            Inode { now: left.clone(), durable: left, pending: Vec::new() }
        });
        let next = Inner { inodes: inodes.collect(), durable_names: names.clone(), names, ..Inner::default() };
        Self { shared: Arc::new(Mutex::new(next)) }
    }

    /// Another disk with the same contents, all of it durable: what the next process finds after a mere `kill -9`.
    pub fn copy(&self) -> Self {
        let inner = self.inner();
        let inodes = inner.inodes.iter().map(|inode| Inode {
            now: inode.now.clone(),
            durable: inode.now.clone(),
            pending: Vec::new(),
        });
        let next = Inner {
            inodes: inodes.collect(),
            names: inner.names.clone(),
            durable_names: inner.names.clone(),
            ..Inner::default()
        };
        Self { shared: Arc::new(Mutex::new(next)) }
    }

    /// The bytes of a file.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.inner();
        Some(inner.inodes[*inner.names.get(name)?].now.clone())
    }

    /// Changes a file behind everybody's back, as a bad disk does.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner();
        if let Some(&inode) = inner.names.get(name) {
            let inode = &mut inner.inodes[inode];
            change(&mut inode.now);
            inode.durable = inode.now.clone();
        }
    }

    /// Gives a file one more name, as `cp -l` does; at once durable.
    pub fn link(&self, name: &str, other: &str) {
        let mut inner = self.inner();
        if let Some(&inode) = inner.names.get(name) {
            inner.names.insert(other.to_owned(), inode);
            inner.durable_names.insert(other.to_owned(), inode);
        }
    }

    /// A disk that lies: syncs of files, or of the directory, return and do nothing.
    pub fn ignore_syncs(&self, files: bool, directory: bool) {
        let mut inner = self.inner();
        (inner.ignore_sync, inner.ignore_sync_dir) = (files, directory);
    }
}

struct Unlock(SimulatedDisk);

impl Drop for Unlock {
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
        Ok(Box::new(Unlock(self.clone())))
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
        let inode = inner.inodes.len();
        inner.inodes.push(Inode::default());
        inner.change(None, Some((name, inode)));
        Ok(Arc::new(Open { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>> {
        let inner = self.inner();
        let inode = inner.find(name)?;
        let links = inner.links(inode);
        if write && links > 1 {
            return Err(NotOurs::Linked { name: name.to_owned(), links }.into());
        }
        Ok(Arc::new(Open { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.call().map_err(error)?;
        let inode = inner.find(from)?;
        inner.change(Some(from), Some((to, inode)));
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
        inner.find(name)?;
        inner.change(Some(name), None);
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

struct Open {
    disk: SimulatedDisk,
    inode: usize,
}

impl Open {
    fn change(&self, change: Pending) -> io::Result<()> {
        let mut inner = self.disk.inner();
        if inner.off {
            return Err(error(Fault::PowerCut));
        }
        let outcome = inner.call();
        let inode = &mut inner.inodes[self.inode];
        let change = match (outcome, change) {
            (Ok(()), change) => change,
            (Err(Fault::Short), Pending::Write { at, bytes }) => {
                Pending::Write { at, bytes: bytes[..bytes.len() / 2].to_vec() }
            }
            // A write that the power cut off may have arrived all the same.
            (Err(Fault::PowerCut), change @ Pending::Write { .. }) => {
                inode.pending.push(change);
                return Err(error(Fault::PowerCut));
            }
            (Err(fault), _) => return Err(error(fault)),
        };
        Inode::apply(&mut inode.now, &change);
        inode.pending.push(change);
        outcome.map_err(error)
    }
}

impl File for Open {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.inner().inodes[self.inode].now.len() as u64)
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.disk.inner().links(self.inode))
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let inner = self.disk.inner();
        if inner.off {
            return Err(error(Fault::PowerCut));
        }
        let from = inner.inodes[self.inode].now.get(at as usize..).unwrap_or(&[]);
        let len = from.len().min(into.len());
        into[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.change(Pending::Write { at: at as usize, bytes: bytes.to_vec() })
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let now = self.size()?;
        self.change(Pending::Size(size.max(now) as usize))
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.change(Pending::Size(size as usize))
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        // A failed sync throws away what it did not write, as Linux does: the next one would succeed and lie.
        let outcome = inner.call();
        inner.syncs += 1;
        let ignore = inner.ignore_sync;
        let inode = &mut inner.inodes[self.inode];
        match outcome {
            Ok(()) if ignore => {}
            Ok(()) => {
                inode.durable = inode.now.clone();
                inode.pending.clear();
            }
            Err(Fault::PowerCut) => {}
            Err(_) => inode.pending.clear(),
        }
        outcome.map_err(error)
    }
}

impl SimulatedDisk {
    /// The names of all files that have bytes which no sync has covered.
    pub fn unsynced(&self) -> BTreeSet<String> {
        let inner = self.inner();
        let named = inner.names.iter();
        named.filter(|(_, inode)| !inner.inodes[**inode].pending.is_empty()).map(|(name, _)| name.clone()).collect()
    }
}
