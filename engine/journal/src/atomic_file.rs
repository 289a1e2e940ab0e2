//! Files that are there whole or not at all.

use super::copy::{COPY, last_set};
use super::file_names::{UNFINISHED, segment_number};
use super::format::{MAX_SEGMENT, SegmentHeader};
use super::storage::{File, Storage};
use super::window::Window;
use std::io;
use std::sync::Arc;

/// Makes a file under another name, and gives it its own when it is whole and durable. A segment replaces nothing.
pub(crate) fn finish(
    storage: &dyn Storage,
    name: &str,
    fill: impl FnOnce(&dyn File) -> io::Result<()>,
) -> io::Result<Arc<dyn File>> {
    finish_as(storage, name, segment_number(name).is_none(), fill)
}

fn finish_as(
    storage: &dyn Storage,
    name: &str,
    replace: bool,
    fill: impl FnOnce(&dyn File) -> io::Result<()>,
) -> io::Result<Arc<dyn File>> {
    let unfinished = format!("{name}{UNFINISHED}");
    let file = match storage.create(&unfinished) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            storage.remove(&unfinished)?;
            storage.create(&unfinished)?
        }
        created => created?,
    };
    fill(&*file)?;
    file.sync()?;
    if replace { storage.rename(&unfinished, name) } else { storage.rename_new(&unfinished, name) }?;
    if let Err(cause) = storage.sync_dir() {
        // It can be tried again.
        if !replace {
            let _ = storage.remove(name);
        }
        return Err(cause);
    }
    Ok(file)
}

/// Opens a segment's file to be written. One that has other names is copied first, and the copy takes its place: what a copy
/// of the directory by links has of it stays as it is.
pub(crate) fn open_own(storage: &dyn Storage, name: &str) -> io::Result<Arc<dyn File>> {
    let shared = storage.open(name, false)?;
    if shared.links()? <= 1 {
        return storage.open(name, true);
    }
    let mut head = [0; 64];
    let read = shared.read_at(&mut head, 0)?;
    // No byte behind that is the segment's.
    let most = SegmentHeader::decode(&head[..read]).map_or(MAX_SEGMENT, |header| header.size);
    let size = shared.size()?.min(most);
    finish_as(storage, name, true, |own| {
        own.truncate(size)?;
        let mut window = Window::default();
        let mut at = 0;
        while at < size {
            let bytes = window.bytes(&*shared, at, COPY, size)?;
            if bytes.is_empty() {
                break;
            }
            if last_set(bytes).is_some() {
                own.write_at(bytes, at)?;
            }
            at += bytes.len() as u64;
        }
        Ok(())
    })
}

pub(crate) fn take_away(storage: &dyn Storage, name: &str) -> io::Result<()> {
    match storage.remove(name) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
