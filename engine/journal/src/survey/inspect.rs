//! Inspecting a journal without changing or locking it, even while a program has it open.

use crate::error::{DiskError, OpenError};
use crate::files::names::is_ours;
use crate::options::Options;
use crate::storage::{NotOurs, Storage};
use crate::survey::surveyor::Surveyor;
use crate::survey::{Progress, Survey};
use std::io;
use std::sync::Arc;

/// Surveys a journal without changing or locking it. If `whole` is true, every segment is read, otherwise reading
/// begins one segment before the first one without a valid index, or with the last but one if all have one.
///
/// # Errors
/// As [`open`](crate::open), except for the lock.
pub fn inspect(storage: Arc<dyn Storage>, whole: bool) -> Result<Survey, OpenError> {
    match inspect_to_damage(storage, whole, &mut |_| {})? {
        (survey, None) => Ok(survey),
        (_, Some(damage)) => Err(damage),
    }
}

/// Surveys a journal as [`inspect`] does. If the journal is damaged, returns the survey of the part before the damage
/// together with the error. `progress` is called about once for each MiB with the count of bytes read so far.
///
/// # Errors
/// As [`open`](crate::open), except for the lock and for damage.
pub fn inspect_to_damage(
    storage: Arc<dyn Storage>,
    whole: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<(Survey, Option<OpenError>), OpenError> {
    let options = Options::default();
    let mut before = None;
    loop {
        let mut report = |now: Progress| progress(now.read);
        let mut surveyor = Surveyor::new(&storage, &options, false, whole, Some(&mut report))?;
        let refused = match surveyor.survey() {
            Ok(survey) => return Ok((survey, None)),
            Err(refused) => refused,
        };
        // A writer may be active: the survey may see a durable mark of a frame that did not exist when the chain was
        // followed, and retention may remove a file. So an error is returned only if a second attempt fails at the same
        // place.
        let place = match &refused {
            OpenError::Damaged { segment, at, what, .. } => Some((*segment, *at, Some(*what), String::new())),
            OpenError::Disk(cause) if cause.kind == io::ErrorKind::NotFound => Some((0, 0, None, cause.file.clone())),
            _ => None,
        };
        if place.is_some() && place != before {
            before = place;
            continue;
        }
        return match (surveyor.broken.take(), &refused) {
            (Some(survey), OpenError::Damaged { .. }) => Ok((survey, Some(refused))),
            _ => Err(refused),
        };
    }
}

/// Returns an error if a name that the journal uses belongs to anything but a regular file, such as a symbolic link, a
/// pipe or a directory. This includes names of files that reading does not need (checkpoint, lock, indexes, unfinished
/// files), because [`open`](crate::open) would refuse them, and names of copies that a recovery or repair put aside.
///
/// # Errors
/// The directory cannot be listed, or a name belongs to [something else](NotOurs); the error says which.
pub fn check_files(storage: &dyn Storage) -> Result<(), OpenError> {
    let names = storage.list().map_err(|cause| DiskError::new("list", storage.name(), &cause))?;
    for name in names.iter().filter(|name| is_ours(name)) {
        if let Err(cause) = storage.open(name, false)
            && NotOurs::of(&cause).is_some()
        {
            return Err(DiskError::new("open", name, &cause).into());
        }
    }
    Ok(())
}
