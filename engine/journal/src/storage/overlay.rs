//! A storage that keeps its changes in memory and only reads the storage below it. A dry run shows with it what a
//! repair would do.

use super::{File, Lock, Storage};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const PAGE: u64 = 4096;

/// Changes in memory over another storage. Dropping it discards the changes.
pub(crate) struct Overlay {
    below: Arc<dyn Storage>,
    /// The names that were opened or changed, each with its file, or `None` if the name was removed.
    names: Mutex<HashMap<String, Option<Arc<OverlayFile>>>>,
}

impl Overlay {
    pub fn new(below: Arc<dyn Storage>) -> Self {
        Self { below, names: Mutex::default() }
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Option<Arc<OverlayFile>>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str) -> io::Result<Arc<OverlayFile>> {
        let mut names = self.names();
        if let Some(known) = names.get(name) {
            return known.clone().ok_or_else(|| io::ErrorKind::NotFound.into());
        }
        let size = self.below.open(name, false)?.size()?;
        let below = (Arc::clone(&self.below), name.to_owned());
        let inner = OverlayPages { pages: BTreeMap::new(), size, visible: size };
        let file = Arc::new(OverlayFile { below: Some(below), inner: Mutex::new(inner) });
        names.insert(name.to_owned(), Some(Arc::clone(&file)));
        Ok(file)
    }
}

impl Storage for Overlay {
    fn name(&self) -> String {
        self.below.name()
    }

    fn create_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> io::Result<Lock> {
        Ok(Box::new(()))
    }

    fn lock_holder(&self) -> String {
        self.below.lock_holder()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut all = self.below.list()?;
        let names = self.names();
        all.retain(|name| !names.contains_key(name));
        all.extend(names.iter().filter(|(_, file)| file.is_some()).map(|(name, _)| name.clone()));
        Ok(all)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        match self.file(name) {
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(cause),
        }
        let file = Arc::new(OverlayFile { below: None, inner: Mutex::default() });
        self.names().insert(name.to_owned(), Some(Arc::clone(&file)));
        Ok(file)
    }

    fn open(&self, name: &str, _write: bool) -> io::Result<Arc<dyn File>> {
        Ok(self.file(name)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.file(from)?;
        match self.file(to) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        let mut names = self.names();
        names.insert(from.to_owned(), None);
        names.insert(to.to_owned(), Some(file));
        Ok(())
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.file(from)?;
        match self.file(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => self.rename(from, to),
            Err(cause) => Err(cause),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.file(name)?;
        self.names().insert(name.to_owned(), None);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A file: changed pages in memory over a file that is only read.
struct OverlayFile {
    /// The storage and name of the file below, which is opened for each read, because a journal may have more files
    /// than a process may have open. `None` for a new file.
    below: Option<(Arc<dyn Storage>, String)>,
    inner: Mutex<OverlayPages>,
}

#[derive(Default)]
struct OverlayPages {
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
    size: u64,
    /// Bytes of the file below from this offset on are hidden, because the file was cut there.
    visible: u64,
}

impl OverlayFile {
    fn inner(&self) -> MutexGuard<'_, OverlayPages> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file below. Bytes that it does not have, or that are hidden, read as zero.
    fn read_below(&self, visible: u64, into: &mut [u8], at: u64) -> io::Result<()> {
        into.fill(0);
        let len = usize::try_from(visible.saturating_sub(at)).unwrap_or(usize::MAX).min(into.len());
        if let Some((below, name)) = self.below.as_ref().filter(|_| len > 0) {
            below.open(name, false)?.read_at(&mut into[..len], at)?;
        }
        Ok(())
    }
}

impl File for OverlayFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.inner().size)
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let inner = self.inner();
        let len = usize::try_from(inner.size.saturating_sub(at)).unwrap_or(usize::MAX).min(into.len());
        if len == 0 {
            return Ok(0);
        }
        let into = &mut into[..len];
        self.read_below(inner.visible, into, at)?;
        let end = at + len as u64;
        for (page, bytes) in inner.pages.range(at / PAGE..=(end - 1) / PAGE) {
            let begin = page * PAGE;
            let (from, to) = (begin.max(at), (begin + PAGE).min(end));
            into[(from - at) as usize..(to - at) as usize]
                .copy_from_slice(&bytes[(from - begin) as usize..(to - begin) as usize]);
        }
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut inner = self.inner();
        let visible = inner.visible;
        let mut done = 0;
        while done < bytes.len() {
            let place = at + done as u64;
            let (page, within) = (place / PAGE, (place % PAGE) as usize);
            let len = (bytes.len() - done).min(PAGE as usize - within);
            let there = match inner.pages.entry(page) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(none) => {
                    let mut old = Box::new([0; PAGE as usize]);
                    self.read_below(visible, &mut old[..], page * PAGE)?;
                    none.insert(old)
                }
            };
            there[within..within + len].copy_from_slice(&bytes[done..done + len]);
            done += len;
        }
        inner.size = inner.size.max(at + bytes.len() as u64);
        Ok(())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let mut inner = self.inner();
        inner.size = inner.size.max(size);
        Ok(())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let mut inner = self.inner();
        inner.visible = inner.visible.min(size);
        inner.size = size;
        let last = size / PAGE;
        inner.pages.retain(|page, _| *page <= last);
        if let Some(page) = inner.pages.get_mut(&last) {
            page[(size % PAGE) as usize..].fill(0);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::SimulatedDisk;

    /// The name and the bytes of every file.
    fn contents(storage: &dyn Storage) -> BTreeMap<String, Vec<u8>> {
        let read = |name: String| {
            let file = storage.open(&name, false).unwrap();
            let mut bytes = vec![9; file.size().unwrap() as usize];
            let (half, len) = (bytes.len() / 2, bytes.len());
            assert_eq!(file.read_at(&mut bytes[..half], 0).unwrap(), half);
            assert_eq!(file.read_at(&mut bytes[half..], half as u64).unwrap(), len - half);
            (name, bytes)
        };
        storage.list().unwrap().into_iter().map(read).collect()
    }

    #[test]
    fn it_reads_as_what_was_done_to_it_and_leaves_the_disk_below_as_it_was() {
        let mut dice = fastrand::Rng::with_seed(77);
        for _ in 0..20 {
            let model = SimulatedDisk::new();
            for name in ["a", "b"] {
                model.create(name).unwrap().write_at(&vec![name.as_bytes()[0]; 9000], 0).unwrap();
            }
            let below = model.copy();
            let before = contents(&below);
            let overlay = Overlay::new(Arc::new(below.clone()));
            for _ in 0..40 {
                let name = ["a", "b", "c"][dice.usize(..3)];
                let (at, len, step) = (dice.u64(..14_000), dice.usize(..6000), dice.u64(..10));
                let byte = dice.u64(..256) as u8;
                let step = |storage: &dyn Storage| match step {
                    0 => storage.create(name).map(drop),
                    1 => storage.remove(name),
                    2 => storage.rename(name, "b"),
                    3 => storage.open(name, true)?.truncate(at),
                    4 => storage.open(name, true)?.allocate(at),
                    5 => storage.rename_new(name, "c"),
                    _ => storage.open(name, true)?.write_at(&vec![byte; len], at),
                };
                let (one, other) = (step(&model), step(&overlay));
                assert_eq!(one.map_err(|cause| cause.kind()), other.map_err(|cause| cause.kind()));
                assert_eq!(contents(&overlay), contents(&model));
            }
            assert_eq!(contents(&below), before);
        }
    }
}
