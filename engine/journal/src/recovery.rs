//! Opening a journal: finding its end, cutting a torn tail, and making the rest durable before a writer appends to it.
//!
//! [`inspect`](crate::inspect()) changes no file. [`open`] takes the following steps; a crash may come after any of
//! them.
//!
//! 1. Follow the chain of frames to its end E. Reading begins at the last segment with a valid index before the first
//!    segment without one, or at the last but one segment if all have one. D is the highest durable mark: in the frames
//!    read, in the bytes after E, in the checkpoint, and the end of each segment with an index.
//! 2. If E is below D, acknowledged data is damaged: return an error, and change no file.
//! 3. Copy the bytes from E on aside, and sync the copy. Remove later segments, the last one first, and cut E's segment
//!    at E. Sync both before a frame is written: a durable mark in it would make torn bytes that remained look like
//!    damaged durable data.
//! 4. Write the bytes between D and E again, and sync them. They may exist in the page cache only: after a failed sync in an
//!    earlier process the pages look clean and would never reach the disk.
//! 5. Continue at E under the next incarnation, with a mark. If the last segment has an older format version, or cannot be
//!    extended, continue in a new segment that begins with a snapshot. A completed segment is never written again.

use crate::checkpoint::Checkpoint;
use crate::error::{DiskError, OpenError, ReplayError};
use crate::files::atomic_file::{create_whole, remove_if_exists};
use crate::files::copy::{copy_range, for_each_chunk, write_zeros};
use crate::files::names::{UNFINISHED, index_name, segment_name};
use crate::files::read_ahead::ReadAhead;
use crate::format::{ALIGN, MAJOR, MAX_SEGMENT, PartitionId, SEGMENT_HEAD, SegmentHeader};
use crate::limits::state_limit;
use crate::options::Options;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::state::State;
use crate::storage::{File, Storage, take_lock};
use crate::survey::loss::{self, KnownIndexes};
use crate::survey::surveyor::Surveyor;
use crate::survey::{Progress, Survey, TornTail};
use crate::write::writer::Writer;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The result of an opening.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recovered {
    /// True if there was no journal and the opening created one.
    pub created: bool,
    /// The journal's state: catalogue, committed offsets, and the extents of the partitions.
    pub state: State,
    /// The torn tail that was copied aside and cut; `None` if the journal had none.
    pub torn: Option<TornTail>,
    /// Count of the bytes that were read and checked.
    pub scanned: u64,
    /// Count of the segments that have a valid index or stand for a lost one. They are not read, except the last one or
    /// two.
    pub believed: usize,
    /// Count of the segments after the opening.
    pub segments: usize,
    /// The highest durable mark that was found, as a position in bytes.
    pub durable: u64,
    /// The position after the last valid frame, in bytes.
    pub end: u64,
    /// The incarnation: the number of this opening.
    pub incarnation: u32,
    /// Duration of the opening.
    pub took: Duration,
    /// Ranges of offsets whose records an earlier repair could not save, and which no opening has reported yet.
    /// [`gaps`](crate::gaps()) lists the reported ones too.
    pub lost: Vec<(PartitionId, Range<u64>)>,
    /// True if the end of the journal is among what the repair could not save, so that the last issued offsets are
    /// unknown. The partitions then continue at offsets higher than any lost record can have had.
    pub skipped_offsets: bool,
    /// The format version of the last segment before the opening, if it is older than this program's; otherwise `None`.
    /// The opening then begins a new segment of this program's version.
    pub upgraded_from: Option<u16>,
}

/// One line for a program's log: `opening 7 in 1.8ms: 3 segments, 4096 bytes checked, durable up to 81920; torn end: 120 bytes put
/// aside`.
impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { incarnation, took, segments, scanned, durable, .. } = self;
        if self.created {
            return write!(f, "a new journal, made in {took:.1?}");
        }
        write!(
            f,
            "opening {incarnation} in {took:.1?}: {segments} segments, {scanned} bytes checked, durable up to {durable}"
        )?;
        if let Some(torn) = &self.torn {
            write!(f, "; torn end: {} bytes put aside", torn.bytes)?;
        }
        let lost: u64 = self.lost.iter().map(|(_, offsets)| offsets.end - offsets.start).sum();
        if lost > 0 {
            write!(f, "; lost to damage: {lost} offsets in {} ranges", self.lost.len())?;
        }
        if self.skipped_offsets {
            f.write_str("; the end was lost, so offsets skip")?;
        }
        if let Some(version) = self.upgraded_from {
            write!(f, "; upgraded from format {version}")?;
        }
        Ok(())
    }
}

/// Opens the journal in `storage`, or creates one. Returns the writer, and a report of the opening.
///
/// # Errors
/// The journal is open already, durable data is damaged, a newer program wrote it, the disk fails, or a setting is
/// refused. In the first three cases no segment is changed; after another error the torn tail may have been cut.
pub fn open(storage: Arc<dyn Storage>, options: Options) -> Result<(Writer, Recovered), OpenError> {
    open_with(storage, options, &mut |_| {})
}

/// Opens a journal as [`open`] does. Calls `progress` about once for each MiB that was read.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    storage: Arc<dyn Storage>,
    options: Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Writer, Recovered), OpenError> {
    open_after_repair(storage, options, progress, KnownIndexes::default())
}

/// Opens a journal as [`open_with`] does, after a repair. `known` holds the repair's indexes of the segments that it
/// has changed.
pub(super) fn open_after_repair(
    storage: Arc<dyn Storage>,
    options: Options,
    progress: &mut dyn FnMut(Progress),
    known: KnownIndexes,
) -> Result<(Writer, Recovered), OpenError> {
    let begun = Instant::now();
    let size = options.segment_size;
    if !(4096..=MAX_SEGMENT).contains(&size) || !size.is_multiple_of(ALIGN) {
        let why = format!("segments of {size} bytes: take from 4096 to {MAX_SEGMENT}, a multiple of {ALIGN}");
        return Err(OpenError::Setting(why));
    }
    let disk = |doing: &'static str, cause: &io::Error| DiskError::new(doing, storage.name(), cause);
    storage.create_dir().map_err(|cause| disk("make the directory", &cause))?;
    let lock = take_lock(&*storage)?;
    let mut surveyor = Surveyor::new(&storage, &options, true, false, Some(progress))?;
    let mut survey = surveyor.survey()?;
    let is_known_twice = surveyor.has_checkpoint();
    drop(surveyor);
    let is_elder = survey.segments.last().is_some_and(|last| last.header.version < MAJOR);
    if is_elder && survey.has_unread_gaps()? {
        // An older program wrote an index beside a segment with a gap, which the state need not list. So all segments
        // are read, once, to find such gaps.
        survey = Surveyor::new(&storage, &options, true, true, None)?.survey()?;
    }
    check_state(&survey.state, size)?;
    let losses = loss::find_losses(&survey, &storage, known).map_err(|cause| match cause {
        ReplayError::Disk(cause) => OpenError::Disk(cause),
        cause => OpenError::Setting(format!("the records that are lost to damage cannot be determined: {cause}")),
    })?;
    // Losses that the state does not list yet need a new segment, whose snapshot then lists them.
    let can_append = losses.is_none() && survey.can_append();
    settle_tail(&*storage, &mut survey, &options, can_append)?;
    if !is_known_twice {
        // The checkpoint states the journal's id outside the segments, in case the header of the only segment is
        // damaged.
        let checkpoint = Checkpoint { id: survey.id, durable: survey.durable, incarnation: survey.incarnation };
        let made = checkpoint.write(&*storage);
        if survey.created {
            made.map_err(|cause| disk("write the checkpoint of", &cause))?;
        }
    }

    let Survey { id, segments, state, durable, end, previous, torn, scanned, created, files, spare, .. } = survey;
    let (incarnation, mut state) = (survey.incarnation.checked_add(1).ok_or(OpenError::Exhausted)?, state);
    state.skip_reserved();
    let last = segments.last().map(|last| last.header);
    let upgraded_from = last.map(|last| last.version).filter(|version| *version < MAJOR);
    let header = SegmentHeader {
        version: MAJOR,
        id,
        number: last.map_or(1, |last| last.number + 1),
        first: last.map_or(0, |last| last.first + last.size),
        size,
        incarnation,
        lost: false,
    };
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let skipped_offsets = losses.as_ref().is_some_and(|losses| losses.skips_offsets);
    let lost = losses.map_or_else(Vec::new, |losses| losses.record(&mut state, time));
    // Recording the losses has made the state larger.
    check_state(&state, size)?;
    let (believed, mut segments) = (segments.len() - survey.unsealed.len(), segments);
    let active = match segments.last() {
        Some(last) if can_append => Arc::clone(last),
        _ => {
            let made = Arc::new(Segment::make(&files, header)?);
            segments.push(Arc::clone(&made));
            made
        }
    };
    let count = segments.len();
    let shared = Arc::new(Shared::new(files, id, incarnation, options, segments, &state, end));
    let writer = Writer::begin(shared, state.clone(), active, previous, lock, spare.filter(|_| can_append), time)?;
    let recovered = Recovered {
        created,
        state,
        torn,
        scanned,
        believed,
        segments: count,
        durable,
        end,
        incarnation,
        took: begun.elapsed(),
        lost,
        skipped_offsets,
        upgraded_from,
    };
    Ok((writer, recovered))
}

/// Refuses a state whose snapshot does not fit into segments of `segment` bytes.
fn check_state(state: &State, segment: u64) -> Result<(), OpenError> {
    let (len, limit) = (state.size(), state_limit(segment));
    if len <= limit {
        return Ok(());
    }
    let why = format!("the journal's state has {len} bytes, {limit} are possible: take larger segments");
    Err(OpenError::Setting(why))
}

/// Steps 3 and 4 of an opening: copies and cuts the torn tail, and writes the frames after the durable mark again.
fn settle_tail(
    storage: &dyn Storage,
    survey: &mut Survey,
    options: &Options,
    can_append: bool,
) -> Result<(), DiskError> {
    let failed = |doing: &'static str, name: &str| {
        let name = name.to_owned();
        move |cause: io::Error| DiskError::new(doing, name, &cause)
    };
    let remove_if_exists = |name: &str| remove_if_exists(storage, name).map_err(failed("remove", name));
    let mut not_kept = Vec::new();
    if let Some(torn) = &survey.torn {
        let mut read_ahead = ReadAhead::default();
        for ((segment, until), copy) in survey.beyond.iter().filter(|(_, until)| *until > 0).zip(&torn.copies) {
            let from = if segment.end() > SEGMENT_HEAD { segment.end() } else { 0 };
            let kept =
                create_whole(storage, copy, |file| copy_range(&mut read_ahead, &segment.file, from, *until, file));
            match kept {
                // On a full disk the opening continues without the copy: these bytes were never acknowledged, and the
                // user may need the opening to make room.
                Err(cause) if is_full(&cause) => {
                    remove_if_exists(&format!("{copy}{UNFINISHED}"))?;
                    not_kept.push(copy.clone());
                }
                kept => drop(kept.map_err(failed("copy the torn end to", copy))?),
            }
        }
    }
    if let Some(torn) = &mut survey.torn {
        torn.copies.retain(|copy| !not_kept.contains(copy));
    }
    for (segment, _) in survey.beyond.iter().rev() {
        let kept = survey.segments.last().is_some_and(|last| last.header.number == segment.header.number);
        if !kept {
            remove_if_exists(&index_name(segment.header.number))?;
            remove_if_exists(&segment.name)?;
        }
    }
    if let Some(spare) = survey.spare.take_if(|_| !can_append) {
        remove_if_exists(&spare.name)?;
    }
    for name in &survey.unfinished {
        remove_if_exists(name)?;
    }
    for number in &survey.leftover {
        remove_if_exists(&index_name(*number))?;
        remove_if_exists(&segment_name(*number))?;
    }
    // Segment files are written below. A file with a second name (hard link) is replaced by a copy first.
    let own = |segment: &Segment| segment.file.hold_unshared().map_err(failed("open", &segment.name));
    if let Some(last) = survey.unsealed.last().filter(|_| !options.sabotage().keep_torn_tail) {
        let size = last.file.size().map_err(failed("read", &last.name))?;
        let torn = survey.beyond.iter().find(|(torn, _)| torn.header.number == last.header.number);
        let until = torn.map_or(0, |(_, until)| *until);
        if !can_append && size > last.end() {
            own(last)?.truncate(last.end()).map_err(failed("cut", &last.name))?;
        } else if until > last.end() {
            // The torn bytes are set to zero, not cut off, so that the segment keeps the disk blocks for later frames.
            write_zeros(&*own(last)?, last.end(), until).map_err(failed("cut", &last.name))?;
        }
    }
    let last = survey.segments.last().filter(|_| can_append);
    if let Some(last) = last {
        // The segment will be extended, so an index of it would become wrong.
        remove_if_exists(&index_name(last.header.number))?;
        room(&*own(last)?, last.header.size).map_err(failed("make room in", &last.name))?;
    }
    let is_last = |segment: &Segment| last.is_some_and(|last| last.header.number == segment.header.number);
    if !options.sabotage().serve_before_sync {
        let mut read_ahead = ReadAhead::default();
        for segment in &survey.unsealed {
            let file = own(segment)?;
            let from = survey.durable.saturating_sub(segment.header.first).max(SEGMENT_HEAD);
            if from < segment.end() {
                let rewrite = |at, bytes: &[u8]| file.write_at(bytes, at);
                let again = for_each_chunk(&mut read_ahead, &*file, from & !(ALIGN - 1), segment.end(), rewrite);
                again.map_err(failed("write to", &segment.name))?;
            }
            file.sync().map_err(failed("sync", &segment.name))?;
            if !is_last(segment) {
                segment.file.release();
            }
        }
    }
    // An index of these segments is invalid, or does not match the frames that were read: the next opening must not use
    // it.
    for number in survey.unsealed.iter().map(|segment| segment.header.number).chain(survey.stale.iter().copied()) {
        remove_if_exists(&index_name(number))?;
    }
    storage.sync_dir().map_err(failed("sync", &storage.name()))?;
    // A segment with gaps that the state does not list yet gets no index: if this opening is interrupted, the next one
    // must read the segment.
    let known = |segment: &Segment| !survey.unrecorded_gaps().any(|gap| gap.segment == segment.header.number);
    let sealed = |segment: &Segment| !segment.headless() && known(segment) && !is_last(segment);
    for segment in survey.unsealed.iter().filter(|segment| sealed(segment)) {
        // Errors are ignored: without the index the next opening only takes longer.
        let _ = segment.seal(storage);
    }
    Ok(())
}

/// Allocates the file up to `size` bytes. If the disk is full, leaves the file as it was: a later write reports the
/// error.
fn room(file: &dyn File, size: u64) -> io::Result<()> {
    let has = file.size()?;
    if has >= size {
        return Ok(());
    }
    match file.allocate(size) {
        Err(cause) if is_full(&cause) => file.truncate(has),
        outcome => outcome,
    }
}

/// True if a full disk or a quota caused the error.
pub(super) fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::SimulatedDisk;

    #[test]
    fn an_opening_is_told_in_one_line() {
        let disk = SimulatedDisk::new();
        let (writer, recovered) = open(Arc::new(disk.clone()), Options::default()).unwrap();
        assert!(recovered.to_string().starts_with("a new journal, made in "), "{recovered}");
        writer.close(1).unwrap();
        let (_, mut recovered) = open(Arc::new(disk), Options::default()).unwrap();
        recovered.lost.push((PartitionId { topic: 1, partition: 0 }, 5..8));
        let line = recovered.to_string();
        assert!(line.starts_with(&format!("opening {} in ", recovered.incarnation)), "{line}");
        assert!(line.ends_with("; lost to damage: 3 offsets in 1 ranges") && !line.contains('\n'), "{line}");
    }
}
