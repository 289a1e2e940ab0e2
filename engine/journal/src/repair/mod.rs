//! Repair of a damaged journal: damaged parts are given up, so that the rest can be opened again. Removed bytes are
//! first copied aside, and a gap takes their place, which readers report.
//!
//! A repair is rehearsed in memory first. A journal that cannot be repaired is not changed.
//!
//! Each round finds the first damage that an opening would refuse, and repairs it in steps. A crash may come after any
//! step; the repair is then run again. The last step is an opening, which cuts the torn tail. If the repair has left
//! gaps, it begins a new segment, whose snapshot lists the lost offsets.

use crate::error::OpenError;
use crate::format::{MAX_SEGMENT, Malformed};
use crate::options::Options;
use crate::recovery::{Recovered, open_after_repair};
use crate::storage::{Lock, Overlay, Storage, take_lock};
use crate::survey::inspect::inspect_to_damage;
use crate::survey::loss::KnownIndexes;
use damage::Damage;
use std::sync::Arc;

mod damage;
mod misnamed;
mod report;
mod scrub;

pub use report::{RepairAction, RepairError, RepairReport, RepairedPlace};
pub use scrub::scrub;

/// Repairs the journal in `storage`: copies damaged parts aside and leaves gaps. A journal without damage is not
/// changed, nor is one that a [rehearsal](rehearse) cannot repair. `time`, in nanoseconds since the epoch, is the time
/// that the gap frames state. `progress` is called about once for each MiB with the count of bytes that the present
/// pass has read.
///
/// # Errors
/// A program has the journal open, a newer program wrote it, the disk fails, or a damaged place cannot be repaired.
pub fn repair(
    storage: Arc<dyn Storage>,
    time: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<RepairReport, RepairError> {
    // Locking creates a file. So if the files may belong to no journal, a rehearsal must first succeed without the
    // lock.
    let (survey, damage) = inspect_to_damage(Arc::clone(&storage), false, progress)?;
    if survey.segments.is_empty() && damage.is_some() {
        repair_all(Arc::new(Overlay::new(Arc::clone(&storage))), None, time, progress)?;
    }
    drop(survey);
    let lock = take_lock(&*storage)?;
    let (rehearsed, is_needed) = repair_all(Arc::new(Overlay::new(Arc::clone(&storage))), None, time, progress)?;
    if !is_needed {
        return Ok(rehearsed);
    }
    Ok(repair_all(storage, Some(lock), time, progress)?.0)
}

/// The most times that one place is repaired before the repair is refused. Files with swapped names need a few rounds
/// for one place.
const MOST_TIMES: usize = 8;

/// Repairs all damage. Returns the report, and true if anything was written.
fn repair_all(
    storage: Arc<dyn Storage>,
    lock: Option<Lock>,
    time: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(RepairReport, bool), RepairError> {
    let disk = &*storage;
    let mut places: Vec<RepairedPlace> = Vec::new();
    let mut known = KnownIndexes::default();
    let survey = loop {
        let (survey, damage) = inspect_to_damage(Arc::clone(&storage), true, progress)?;
        let Some(OpenError::Damaged { segment, at, durable, what, .. }) = damage else { break survey };
        if let Malformed::Misnamed(_) | Malformed::Missing = what {
            let named = misnamed::restore_names(disk, &survey.id, &places)?;
            if !named.is_empty() {
                let action =
                    |number| RepairedPlace { segment: number, at: 0, what, action: RepairAction::Name, copy: None };
                places.extend(named.into_iter().map(action));
                continue;
            }
        }
        let is_it = |it: &&RepairedPlace| (it.segment, it.at, it.what) == (segment, at, what);
        let times = places.iter().filter(is_it).count();
        if places.last().is_some_and(|last| is_it(&last)) || times >= MOST_TIMES {
            return Err(RepairError::Irreparable { segment, at, why: "repairing it did not help" });
        }
        known.keep(disk, segment, &survey.id);
        let place = Damage { disk, survey: &survey, segment, at, durable, what, time };
        places.push(place.repair()?);
    };
    if let (true, Some(last)) = (survey.segments.is_empty(), places.last()) {
        let (segment, at) = (last.segment, last.at);
        return Err(RepairError::Irreparable { segment, at, why: "it is no journal, or nothing of it would be left" });
    }
    // An interrupted earlier repair may have repaired all damage without recording the lost offsets.
    if places.is_empty() && survey.unrecorded_gaps().next().is_none() {
        let (torn, lost) = (survey.torn().cloned(), Vec::new());
        return Ok((RepairReport { places, lost, torn, skipped_offsets: false }, false));
    }
    drop(lock);
    let size = survey.segments().last().map_or(64 << 20, |last| last.header.size).clamp(4096, MAX_SEGMENT);
    drop(survey);
    let options = Options { segment_size: size, helper: false, ..Options::default() };
    let (mut writer, recovered) = open_after_repair(storage, options, &mut |_| {}, known)?;
    // The journal is left as after a crash. Closing it would return reserved offsets, which may have been issued.
    writer.sync()?;
    writer.mark(time)?;
    writer.sync()?;
    let Recovered { lost, torn, skipped_offsets, .. } = recovered;
    Ok((RepairReport { places, lost, torn, skipped_offsets }, true))
}

/// Reports what [`repair`] would do, by repairing a copy in memory. No file is changed or locked.
///
/// # Errors
/// As [`repair`], except for the lock.
pub fn rehearse(
    storage: Arc<dyn Storage>,
    time: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<RepairReport, RepairError> {
    Ok(repair_all(Arc::new(Overlay::new(storage)), None, time, progress)?.0)
}
