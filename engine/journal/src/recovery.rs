//! Opening a journal: what is there, what of it counts, and making that durable before anybody builds on it.
//!
//! [`inspect`] looks and changes nothing. [`open`] then mends, in steps that can each be the last one before a crash:
//!
//! 1. Follow the chain of frames to its end E. Segments with an index that is tied to them are believed, but for the last
//!    ones. Look for durable marks in all of it and beyond: D is the highest.
//! 2. E below D: what was acknowledged is damaged. An error, nothing was changed.
//! 3. Copy aside what stands at and behind E, and sync the copy. Take away later segments, the last one first; cut E's
//!    segment there. Sync both, before anything is written that would let this damage look like an elder one.
//! 4. Write again what stands between D and E, and sync it: it may be in the page cache alone, and after a failed sync of
//!    the last process it would look clean and never reach the disk.
//! 5. Go on at E under the next incarnation, with a mark; in a new segment, with the state, where the last one is of an elder
//!    version of the format. Segments that were left are never written again.

use super::atomic_file::{finish, take_away};
use super::checkpoint::Checkpoint;
use super::copy::{clear, copy_range, copy_range_within};
use super::error::{DiskError, OpenError, ReplayError};
use super::file_names::{UNFINISHED, index_name, segment_name};
use super::format::{ALIGN, MAJOR, MAX_SEGMENT, PartitionId, SEGMENT_HEAD, SegmentHeader};
use super::limits::state_limit;
use super::loss::{self, Evidence};
use super::options::Options;
use super::segment::Segment;
use super::shared::Shared;
use super::snapshot::State;
use super::storage::{File, Storage, take_lock};
use super::survey::{Progress, Survey, Torn};
use super::surveyor::Surveyor;
use super::window::Window;
use super::writer::Writer;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What an opening found and did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recovered {
    /// There was no journal; now there is.
    pub created: bool,
    /// What stands in the journal's state: catalogue, offsets, and where partitions stand.
    pub state: State,
    /// A torn end that was copied aside and cut.
    pub torn: Option<Torn>,
    /// Bytes that were read to check them.
    pub scanned: u64,
    /// Segments that were believed because of their index.
    pub believed: usize,
    /// Segments there are now.
    pub segments: usize,
    /// The highest durable mark that was found.
    pub durable: u64,
    /// Where the frames end that were found whole.
    pub end: u64,
    /// This opening's number.
    pub incarnation: u32,
    /// How long it took.
    pub took: Duration,
    /// Offsets that a repair before this opening could not save, and that no opening has told of: see
    /// [`gaps`](super::gaps()) for all of them.
    pub lost: Vec<(PartitionId, Range<u64>)>,
    /// Where partitions stood at the end of the journal is not known exactly after that repair: they go on at offsets that no
    /// lost record can have had.
    pub skipped_offsets: bool,
    /// The version of the format of the last segment, if it is an elder one: from now on the journal is of this program's.
    pub upgraded_from: Option<u16>,
}

/// Opens the journal in `storage`, or makes one. Returns its writer, and what was found.
///
/// # Errors
/// Somebody has it, what was durable is damaged, a newer program wrote it, the disk fails, or a setting is refused. The
/// files are as they were, but for what an earlier opening had begun to mend.
pub fn open(storage: Arc<dyn Storage>, options: Options) -> Result<(Writer, Recovered), OpenError> {
    open_with(storage, options, &mut |_| {})
}

/// As [`open`]; `progress` hears now and then how far it has come, about once a MiB.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    storage: Arc<dyn Storage>,
    options: Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Writer, Recovered), OpenError> {
    open_behind(storage, options, progress, Evidence::default())
}

/// As [`open_with`], behind a repair that knows more of what is missing.
pub(super) fn open_behind(
    storage: Arc<dyn Storage>,
    options: Options,
    progress: &mut dyn FnMut(Progress),
    evidence: Evidence,
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
    if is_elder && survey.hides_gaps()? {
        // Indexes of version 1 do not tell of gaps: once, all is read.
        survey = Surveyor::new(&storage, &options, true, true, None)?.survey()?;
    }
    if survey.state.size() > state_limit(size) {
        let (len, limit) = (survey.state.size(), state_limit(size));
        let why = format!("the journal's state has {len} bytes, {limit} are possible: take larger segments");
        return Err(OpenError::Setting(why));
    }
    let account = loss::account(&survey, &storage, evidence).map_err(|cause| match cause {
        ReplayError::Disk(cause) => OpenError::Disk(cause),
        cause => OpenError::Setting(format!("what a repair could not save was not found out: {cause}")),
    })?;
    // What was not known is written with the snapshot of a new segment.
    let goes_on = account.is_none() && survey.goes_on();
    mend(&*storage, &mut survey, &options, goes_on)?;
    if !is_known_twice {
        // So that the head of the only segment is not all that knows whose it is.
        let checkpoint = Checkpoint { id: survey.id, durable: survey.durable, incarnation: survey.incarnation };
        let made = checkpoint.write(&*storage);
        if survey.created {
            made.map_err(|cause| disk("write the checkpoint of", &cause))?;
        }
    }

    let Survey { id, segments, state, durable, end, previous, torn, scanned, created, files, spare, .. } = survey;
    let (incarnation, mut state) = (survey.incarnation.checked_add(1).ok_or(OpenError::Exhausted)?, state);
    state.go_on();
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
    let skipped_offsets = account.as_ref().is_some_and(|account| account.skips_offsets);
    let lost = account.map_or_else(Vec::new, |account| account.settle(&mut state, time));
    let (believed, mut segments) = (segments.len() - survey.unsealed.len(), segments);
    let active = match segments.last() {
        Some(last) if goes_on => Arc::clone(last),
        _ => {
            let made = Arc::new(Segment::make(&files, header)?);
            segments.push(Arc::clone(&made));
            made
        }
    };
    let count = segments.len();
    let shared = Arc::new(Shared::new(files, id, incarnation, options, segments, &state, end));
    let writer = Writer::begin(shared, state.clone(), active, previous, lock, spare.filter(|_| goes_on), time)?;
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

/// Steps 3 and 4.
fn mend(storage: &dyn Storage, survey: &mut Survey, options: &Options, goes_on: bool) -> Result<(), DiskError> {
    let failed = |doing: &'static str, name: &str| {
        let name = name.to_owned();
        move |cause: io::Error| DiskError::new(doing, name, &cause)
    };
    let take_away = |name: &str| take_away(storage, name).map_err(failed("remove", name));
    let mut not_kept = Vec::new();
    if let Some(torn) = &survey.torn {
        let mut window = Window::default();
        for ((segment, until), copy) in survey.beyond.iter().filter(|(_, until)| *until > 0).zip(&torn.copies) {
            let from = if segment.end() > SEGMENT_HEAD { segment.end() } else { 0 };
            let kept = finish(storage, copy, |file| copy_range(&mut window, &segment.file, from, *until, file));
            match kept {
                // What was never acknowledged must not be in the way of who makes room.
                Err(cause) if is_full(&cause) => {
                    take_away(&format!("{copy}{UNFINISHED}"))?;
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
            take_away(&index_name(segment.header.number))?;
            take_away(&segment.name)?;
        }
    }
    if let Some(spare) = survey.spare.take_if(|_| !goes_on) {
        take_away(&spare.name)?;
    }
    for name in &survey.unfinished {
        take_away(name)?;
    }
    for number in &survey.leftover {
        take_away(&index_name(*number))?;
        take_away(&segment_name(*number))?;
    }
    // From here on segments are written: each in a file that has no other name.
    let own = |segment: &Segment| segment.file.hold_own().map_err(failed("open", &segment.name));
    if let Some(last) = survey.unsealed.last().filter(|_| !options.sabotage().keep_torn_tail) {
        let size = last.file.size().map_err(failed("read", &last.name))?;
        let torn = survey.beyond.iter().find(|(torn, _)| torn.header.number == last.header.number);
        let until = torn.map_or(0, |(_, until)| *until);
        if !goes_on && size > last.end() {
            own(last)?.truncate(last.end()).map_err(failed("cut", &last.name))?;
        } else if until > last.end() {
            // What goes on keeps its room on the disk.
            clear(&*own(last)?, last.end(), until).map_err(failed("cut", &last.name))?;
        }
    }
    let last = survey.segments.last().filter(|_| goes_on);
    if let Some(last) = last {
        // It goes on, and its index would say that it does not.
        take_away(&index_name(last.header.number))?;
        room(&*own(last)?, last.header.size).map_err(failed("make room in", &last.name))?;
    }
    let is_last = |segment: &Segment| last.is_some_and(|last| last.header.number == segment.header.number);
    if !options.sabotage().serve_before_sync {
        let mut window = Window::default();
        for segment in &survey.unsealed {
            let file = own(segment)?;
            let from = survey.durable.saturating_sub(segment.header.first).max(SEGMENT_HEAD);
            if from < segment.end() {
                window.reset();
                let again = copy_range_within(&mut window, &*file, from & !(ALIGN - 1), segment.end());
                again.map_err(failed("write to", &segment.name))?;
            }
            file.sync().map_err(failed("sync", &segment.name))?;
            if !is_last(segment) {
                segment.file.release();
            }
        }
    }
    // What was read was not believed: an index that says something else must not be believed by the next opening.
    for number in survey.unsealed.iter().map(|segment| segment.header.number).chain(survey.stale.iter().copied()) {
        take_away(&index_name(number))?;
    }
    storage.sync_dir().map_err(failed("sync", &storage.name()))?;
    // Whose gaps the state does not know yet is read whole by the next opening, too, should this one be cut off.
    let known = |segment: &Segment| !survey.unknown_gaps().any(|gap| gap.segment == segment.header.number);
    let sealed = |segment: &Segment| !segment.headless() && known(segment) && !is_last(segment);
    for segment in survey.unsealed.iter().filter(|segment| sealed(segment)) {
        // Derived: without it the next opening takes longer.
        let _ = segment.seal(storage);
    }
    Ok(())
}

/// Makes room up to `size`, if the disk has it: if not, the end shows when it is reached.
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

/// Whether that is all that is wrong, and may pass.
pub(super) fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
