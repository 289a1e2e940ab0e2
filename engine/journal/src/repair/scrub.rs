//! Scrubbing a journal: resetting bytes that belong to no record. These are bytes that no checksum covers, and indexes
//! that contradict their segment.

use crate::error::DiskError;
use crate::files::atomic_file::{open_unshared, remove_if_exists};
use crate::files::names::{index_name, segment_name};
use crate::format::{ALIGN, SEGMENT_HEAD};
use crate::repair::RepairError;
use crate::storage::{Storage, take_lock};
use crate::survey::inspect::inspect_to_damage;
use std::sync::Arc;

/// Sets the [stray bytes](crate::Survey::stray_bytes) of a journal to zero, as they were written, and removes its
/// [stale indexes](crate::Survey::stale_indexes), which the next opening writes again. No record changes. `progress` is
/// called about once for each MiB with the count of bytes read so far.
///
/// # Errors
/// A program has the journal open, the journal is damaged, or the disk fails.
pub fn scrub(storage: Arc<dyn Storage>, progress: &mut dyn FnMut(u64)) -> Result<(), RepairError> {
    let disk = &*storage;
    let _lock = take_lock(disk)?;
    let (survey, damage) = inspect_to_damage(Arc::clone(&storage), true, progress)?;
    if let Some(damage) = damage {
        return Err(damage.into());
    }
    for &(number, at) in survey.stray_bytes() {
        // The rest of the header's sector, or of the padding after a frame, must be zero.
        let end = if at < SEGMENT_HEAD { SEGMENT_HEAD } else { (at + 1).next_multiple_of(ALIGN) };
        let name = segment_name(number);
        let put_right = || {
            let file = open_unshared(disk, &name)?;
            file.write_at(&vec![0; (end - at) as usize], at)?;
            file.sync()
        };
        put_right().map_err(|cause| DiskError::new("write to", &name, &cause))?;
    }
    for number in survey.stale_indexes() {
        let name = index_name(*number);
        remove_if_exists(disk, &name).map_err(|cause| DiskError::new("remove", &name, &cause))?;
    }
    disk.sync_dir().map_err(|cause| DiskError::new("sync", disk.name(), &cause))?;
    Ok(())
}
