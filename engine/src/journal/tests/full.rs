//! A disk without room: what is there can be opened, and retention makes room.

use super::super::simulated::SimulatedDisk;
use super::super::storage::{File, Lock, Storage};
use super::*;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// While it is full no file grows. A segment that is deleted makes room.
#[derive(Clone)]
struct Quota {
    disk: SimulatedDisk,
    is_full: Arc<AtomicBool>,
}

struct Limited {
    file: Arc<dyn File>,
    is_full: Arc<AtomicBool>,
}

impl Quota {
    fn new() -> Self {
        Self { disk: SimulatedDisk::new(), is_full: Arc::default() }
    }

    fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    fn limited(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(Limited { file, is_full: Arc::clone(&self.is_full) })
    }
}

impl Storage for Quota {
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
        Ok(self.limited(self.disk.create(name)?))
    }
    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>> {
        Ok(self.limited(self.disk.open(name, write)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename_new(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.disk.remove(name);
        if removed.is_ok() && name.ends_with(".segment") {
            self.set_full(false);
        }
        removed
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

impl Limited {
    fn room(&self, size: u64) -> io::Result<()> {
        let grows = size > self.file.size()?;
        if grows && self.is_full.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl File for Limited {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(into, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.room(at + bytes.len() as u64)?;
        self.file.write_at(bytes, at)
    }
    fn allocate(&self, size: u64) -> io::Result<()> {
        self.room(size)?;
        self.file.allocate(size)
    }
    fn truncate(&self, size: u64) -> io::Result<()> {
        self.file.truncate(size)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

fn append(writer: &mut Writer, offset: u64) -> Result<u64, WriteError> {
    let mut frame = FrameBuilder::new();
    frame.record(part(0), offset, None, &[7; 200]);
    let position = writer.append(&mut frame, offset)?;
    writer.sync()?;
    Ok(position)
}

#[test]
fn a_full_disk_is_left_by_retention_however_the_journal_ended() {
    for (records, closed) in (20..48).flat_map(|records| [(records, false), (records, true)]) {
        let about = format!("{records} records, closed: {closed}");
        let disk = Quota::new();
        let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
        let mut next = 0;
        while next < records {
            append(&mut writer, next).unwrap();
            next += 1;
        }
        if closed {
            writer.close(records).unwrap();
            disk.set_full(true);
        } else {
            disk.set_full(true);
            // Until nothing more goes in.
            while append(&mut writer, next).is_ok() {
                next += 1;
            }
            drop(writer);
        }
        let (mut writer, recovered) =
            open(Arc::new(disk.clone()), small()).unwrap_or_else(|why| panic!("{about}: {why}"));
        assert_eq!(recovered.state.extent(part(0)).unwrap().end, next, "{about}");
        let keep = |_| Retention { age: None, bytes: Some(900) };
        let freed = writer.retain(next, keep).unwrap_or_else(|why| panic!("{about}: {why}"));
        assert!(freed.segments > 0, "{about}");
        writer.sync().unwrap();
        writer.collect();
        for _ in 0..30 {
            append(&mut writer, next).unwrap_or_else(|why| panic!("{about}: {why}"));
            next += 1;
        }
        writer.close(next).unwrap();
    }
}

#[test]
fn a_segment_that_cannot_be_made_is_tried_again_while_there_is_room() {
    let disk = Quota::new();
    let options = Options { segment_size: 1 << 16, ..Options::default() };
    let (mut writer, _) = open(Arc::new(disk.clone()), options).unwrap();
    let is_made = |number| disk.disk.contents(&segment::segment_name(number)).is_some();
    let wait_for = |number| {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !is_made(number) {
            assert!(std::time::Instant::now() < until, "segment {number} is not made");
            std::thread::yield_now();
        }
    };
    let mut next = 0;
    for number in 2..6 {
        wait_for(number);
        // Whatever comes behind that one is asked for on a full disk.
        disk.set_full(true);
        let end = writer.journal().written() + (1 << 16);
        while writer.journal().written() < end {
            append(&mut writer, next).unwrap();
            next += 1;
        }
        disk.set_full(false);
    }
}
