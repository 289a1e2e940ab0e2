//! File descriptors of segments. A journal may have any number of segments, but keeps few of their files open.
//!
//! The segment that is being written holds its descriptor until a sync has covered all of its bytes, because the system
//! reports a failed write only to descriptors that were open at that time. Other segment files are opened when they are
//! read, and the most recently read ones stay open.

use crate::files::atomic_file::open_unshared;
use crate::files::names::segment_name;
use crate::storage::{File, Storage};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most files that stay open for reading.
const MAX_OPEN: usize = 32;

/// The segment files of a journal that are open for reading.
pub(crate) struct Files {
    storage: Arc<dyn Storage>,
    /// Segment numbers and files. The most recently used one is last.
    open: Mutex<Vec<(u64, Arc<dyn File>)>>,
}

impl Files {
    pub fn new(storage: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self { storage, open: Mutex::default() })
    }

    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    fn open(&self) -> MutexGuard<'_, Vec<(u64, Arc<dyn File>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the file of segment `number`, and opens it if needed.
    fn get(&self, number: u64) -> io::Result<Arc<dyn File>> {
        if let Some(known) = self.known(number) {
            return Ok(known);
        }
        let file = self.with_room(|| self.storage.open(&segment_name(number), false))?;
        let mut open = self.open();
        if open.len() >= MAX_OPEN {
            open.remove(0);
        }
        open.push((number, Arc::clone(&file)));
        Ok(file)
    }

    fn known(&self, number: u64) -> Option<Arc<dyn File>> {
        let mut open = self.open();
        let place = open.iter().rposition(|(known, _)| *known == number)?;
        let known = open.remove(place);
        let file = Arc::clone(&known.1);
        open.push(known);
        Some(file)
    }

    /// Runs `open`. If the process or the system has too many open files, closes the cached files and runs `open`
    /// again.
    pub fn with_room<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match open() {
            // ENFILE and EMFILE: the system, or the process, has too many open files.
            Err(cause) if matches!(cause.raw_os_error(), Some(23 | 24)) => {
                self.open().clear();
                open()
            }
            opened => opened,
        }
    }

    /// Removes a segment's file from the cache, because its name was removed or given to another file.
    pub fn forget(&self, number: u64) {
        self.open().retain(|(known, _)| *known != number);
    }

    /// Returns a handle of segment `number`. Each use opens the file if it is not open.
    pub fn file(self: &Arc<Self>, number: u64) -> SegmentFile {
        SegmentFile { files: Arc::clone(self), number, held: Mutex::new(None) }
    }
}

/// The file of a segment, which is opened at the first use.
pub(crate) struct SegmentFile {
    files: Arc<Files>,
    number: u64,
    held: Mutex<Option<HeldFile>>,
}

/// A file that is kept open, for reading or also for writing.
struct HeldFile {
    file: Arc<dyn File>,
    writable: bool,
}

impl SegmentFile {
    fn held(&self) -> MutexGuard<'_, Option<HeldFile>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self) -> io::Result<Arc<dyn File>> {
        match &*self.held() {
            Some(held) => Ok(Arc::clone(&held.file)),
            None => self.files.get(self.number),
        }
    }

    /// Keeps the file open for reading until [`release`](Self::release), and returns it.
    pub fn hold(&self) -> io::Result<Arc<dyn File>> {
        let mut held = self.held();
        if let Some(held) = &*held {
            return Ok(Arc::clone(&held.file));
        }
        let file = self.files.get(self.number)?;
        self.files.forget(self.number);
        Ok(Arc::clone(&held.insert(HeldFile { file, writable: false }).file))
    }

    /// Keeps the file open for writing until [`release`](Self::release), and returns it. A file with several names is
    /// first replaced by a copy.
    pub fn hold_unshared(&self) -> io::Result<Arc<dyn File>> {
        let mut held = self.held();
        // A file that is held for reading would refuse the writes.
        if let Some(held) = held.as_ref().filter(|held| held.writable) {
            return Ok(Arc::clone(&held.file));
        }
        let file = self.files.with_room(|| open_unshared(&**self.files.storage(), &segment_name(self.number)))?;
        self.files.forget(self.number);
        Ok(Arc::clone(&held.insert(HeldFile { file, writable: true }).file))
    }

    /// Keeps this descriptor of the newly created file until [`release`](Self::release).
    pub fn hold_this(&self, file: Arc<dyn File>) {
        *self.held() = Some(HeldFile { file, writable: true });
    }

    /// Drops the held descriptor. The file closes when its last user drops it.
    pub fn release(&self) {
        *self.held() = None;
    }
}

impl File for SegmentFile {
    fn size(&self) -> io::Result<u64> {
        self.get()?.size()
    }

    fn links(&self) -> io::Result<u64> {
        self.get()?.links()
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.get()?.read_at(into, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.get()?.write_at(bytes, at)
    }

    fn write_parts_at(&self, parts: &[&[u8]], at: u64) -> io::Result<()> {
        self.get()?.write_parts_at(parts, at)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.get()?.allocate(size)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.get()?.truncate(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.get()?.sync()
    }
}
