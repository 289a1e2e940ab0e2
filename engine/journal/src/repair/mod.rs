//! Giving up what is damaged, so that the rest can be opened again. Nothing is thrown away: what is taken out of a segment
//! is copied aside first, and a gap stays where it was, which every reader is told of.
//!
//! All of it is rehearsed in memory first: what cannot be repaired is not touched.
//!
//! Each round looks for the first damage below the durable mark, as an opening does, and mends that in steps that can each
//! be the last one before a crash; a repair that was interrupted is run again. The last step is an opening, which cuts the
//! torn end and gives the journal a new segment.

use super::error::OpenError;
use super::format::{MAX_SEGMENT, Malformed};
use super::inspect::inspect_to_damage;
use super::loss::Evidence;
use super::options::Options;
use super::recovery::{Recovered, open_behind};
use super::storage::{Lock, Overlay, Storage, take_lock};
use damage::Place;
use std::sync::Arc;

mod damage;
mod misnamed;
mod report;

pub use report::{How, Mended, RepairError, Repaired};

/// Repairs the journal in `storage`: copies damaged parts aside and leaves gaps. One that is not damaged is left alone, and so is
/// one of which a [rehearsal](rehearse) shows that it cannot be repaired. `progress` hears now and then how many bytes one look
/// at the journal has read.
///
/// # Errors
/// Somebody has it open, a newer program wrote it, the disk fails, or nothing of it is left.
pub fn repair(storage: Arc<dyn Storage>, time: u64, progress: &mut dyn FnMut(u64)) -> Result<Repaired, RepairError> {
    // The lock is a file: none is made in a directory whose files may be no journal's.
    let (survey, damage) = inspect_to_damage(Arc::clone(&storage), false, progress)?;
    if survey.segments.is_empty() && damage.is_some() {
        mend_all(Arc::new(Overlay::new(Arc::clone(&storage))), None, time, progress)?;
    }
    drop(survey);
    let lock = take_lock(&*storage)?;
    let (rehearsed, is_needed) = mend_all(Arc::new(Overlay::new(Arc::clone(&storage))), None, time, progress)?;
    if !is_needed {
        return Ok(rehearsed);
    }
    Ok(mend_all(storage, Some(lock), time, progress)?.0)
}

/// How often one place is mended, with others in between, before it is given up. Files that bear one another's names come
/// to a place a few times.
const MOST_TIMES: usize = 8;

/// What was done, and whether anything was written.
fn mend_all(
    storage: Arc<dyn Storage>,
    lock: Option<Lock>,
    time: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(Repaired, bool), RepairError> {
    let disk = &*storage;
    let mut mended: Vec<Mended> = Vec::new();
    let mut evidence = Evidence::default();
    let survey = loop {
        let (survey, damage) = inspect_to_damage(Arc::clone(&storage), true, progress)?;
        let Some(OpenError::Damaged { segment, at, durable, what, .. }) = damage else { break survey };
        if let Malformed::Misnamed(_) | Malformed::Missing = what {
            let named = misnamed::give_back(disk, &survey.id, &mended)?;
            if !named.is_empty() {
                let how = |number| Mended { segment: number, at: 0, what, how: How::Name, copy: None };
                mended.extend(named.into_iter().map(how));
                continue;
            }
        }
        let is_it = |it: &&Mended| (it.segment, it.at, it.what) == (segment, at, what);
        let times = mended.iter().filter(is_it).count();
        if mended.last().is_some_and(|last| is_it(&last)) || times >= MOST_TIMES {
            return Err(RepairError::Hopeless { segment, at, why: "mending it did not help" });
        }
        evidence.keep(disk, segment, &survey.id);
        let place = Place { disk, survey: &survey, segment, at, durable, what, time };
        mended.push(place.mend()?);
    };
    if let (true, Some(last)) = (survey.segments.is_empty(), mended.last()) {
        let (segment, at) = (last.segment, last.at);
        return Err(RepairError::Hopeless { segment, at, why: "it is no journal, or nothing of it would be left" });
    }
    // One that was cut off may have mended all, and not found out what that cost.
    if mended.is_empty() && survey.unknown_gaps().next().is_none() {
        let (torn, lost) = (survey.torn().cloned(), Vec::new());
        return Ok((Repaired { mended, lost, torn, skipped_offsets: false }, false));
    }
    drop(lock);
    let size = survey.segments().last().map_or(64 << 20, |last| last.header.size).clamp(4096, MAX_SEGMENT);
    drop(survey);
    let options = Options { segment_size: size, helper: false, ..Options::default() };
    let (mut writer, recovered) = open_behind(storage, options, &mut |_| {}, evidence)?;
    // Left as after a crash: closing would give back what was only reserved, and perhaps issued.
    writer.sync()?;
    writer.mark(time)?;
    writer.sync()?;
    let Recovered { lost, torn, skipped_offsets, .. } = recovered;
    Ok((Repaired { mended, lost, torn, skipped_offsets }, true))
}

/// What [`repair`] would do, to the last damage: it is done in memory, and nothing on the disk is changed or locked.
///
/// # Errors
/// As [`repair`], but for the lock.
pub fn rehearse(storage: Arc<dyn Storage>, time: u64, progress: &mut dyn FnMut(u64)) -> Result<Repaired, RepairError> {
    Ok(mend_all(Arc::new(Overlay::new(storage)), None, time, progress)?.0)
}
