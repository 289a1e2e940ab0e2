//! Files that a crash leaves either whole or absent.

use crate::files::copy::{for_each_chunk, last_nonzero};
use crate::files::names::{UNFINISHED, segment_number};
use crate::files::read_ahead::ReadAhead;
use crate::files::read_header::segment_header;
use crate::format::MAX_SEGMENT;
use crate::storage::{File, Storage};
use std::io;
use std::sync::Arc;

/// Creates a file atomically: fills it under a temporary name, syncs it, and renames it to `name`. An existing file of
/// that name is replaced, unless `name` is a segment's: then the call fails.
pub(crate) fn create_whole(
    storage: &dyn Storage,
    name: &str,
    fill: impl FnOnce(&dyn File) -> io::Result<()>,
) -> io::Result<Arc<dyn File>> {
    create_whole_as(storage, name, segment_number(name).is_none(), fill)
}

/// Creates a file as [`create_whole`] does. An existing file of that name is replaced if `replace`; otherwise the call fails.
pub(crate) fn create_whole_as(
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
        // The name is removed, so that the caller can try again.
        if !replace {
            let _ = storage.remove(name);
        }
        return Err(cause);
    }
    Ok(file)
}

/// Opens a segment's file for writing. A file with several names (hard links) is first replaced by a copy, so that a
/// backup of the directory made by hard links does not change.
pub(crate) fn open_unshared(storage: &dyn Storage, name: &str) -> io::Result<Arc<dyn File>> {
    let shared = storage.open(name, false)?;
    if shared.links()? <= 1 {
        return storage.open(name, true);
    }
    // Bytes of the file beyond the segment's size do not belong to the segment, and are not copied.
    let most = segment_header(&*shared)?.map_or(MAX_SEGMENT, |header| header.size);
    let size = shared.size()?.min(most);
    create_whole_as(storage, name, true, |own| {
        own.truncate(size)?;
        for_each_chunk(&mut ReadAhead::default(), &*shared, 0, size, |at, bytes| match last_nonzero(bytes) {
            Some(_) => own.write_at(bytes, at),
            None => Ok(()),
        })
    })
}

pub(crate) fn remove_if_exists(storage: &dyn Storage, name: &str) -> io::Result<()> {
    match storage.remove(name) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
