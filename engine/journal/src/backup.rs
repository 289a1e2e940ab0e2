//! Copying a journal into another directory, also while a program writes to it and retention frees segments.
//!
//! A survey of the source finds the end of its whole frames. The bytes below that end never change but by a compaction, which
//! replaces whole files, so the copy consists of these frames, and is what a crash at that moment would have left. The survey reads the durable mark of the
//! checkpoint before it reads frames, and the copy's checkpoint is written last: it never states a mark above the copy's
//! end.
//!
//! Segments are copied from the newest to the oldest, each under a temporary name first. So an opening refuses an
//! unfinished copy, because the oldest segment that it needs is missing (or finds the earlier copy that is being extended). If retention frees a segment before it was
//! copied, another round surveys the source again: the frames that were written meanwhile say that the segment is no longer
//! needed. A round copies only what the copy does not have yet.

use crate::checkpoint::Checkpoint;
use crate::error::{DiskError, OpenError};
use crate::files::atomic_file::{create_whole_as, remove_if_exists};
use crate::files::copy::{COPY_CHUNK, last_nonzero};
use crate::files::names::{UNFINISHED, index_name, is_ours, segment_name, segment_number};
use crate::files::read_ahead::ReadAhead;
use crate::files::read_header::{frame_header, segment_header};
use crate::format::{Malformed, SegmentHeader};
use crate::segment::Segment;
use crate::storage::{File, Storage, take_lock};
use crate::survey::inspect::inspect_to_damage;
use crate::survey::{Progress, Survey};
use std::io;
use std::sync::Arc;

/// The most surveys of the source before a copy is given up. Each later round copies only what was written meanwhile.
const MOST_ROUNDS: usize = 32;

/// The result of a [`copy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// The position in bytes up to which the copy has the journal's frames.
    pub end: u64,
    /// Count of the copy's segments.
    pub segments: usize,
    /// Count of the segments that this call copied. The others were whole in the copy already.
    pub copied: usize,
    /// Size of the segments that this call copied, in bytes.
    pub bytes: u64,
    /// Count of the segments that were deleted from the copy, because retention has freed them.
    pub removed: usize,
}

/// Why a journal was not copied. What was copied so far stays; the next call goes on from there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The source has no journal.
    #[error("there is no journal in {journal:?} to copy")]
    NoJournal {
        /// The source's directory.
        journal: String,
    },
    /// The source is damaged, cannot be read, or was written by a newer program.
    #[error(transparent)]
    Source(OpenError),
    /// The copy is open in a program, its disk fails or is full, or a newer program wrote it.
    #[error(transparent)]
    Target(OpenError),
    /// Both directories are one.
    #[error("{journal:?} cannot be copied to itself: name another directory")]
    Itself {
        /// The directory.
        journal: String,
    },
    /// The target directory has segments that are no earlier part of this journal: another journal's, or a copy that was
    /// opened and written to, or one of which retention has freed every segment in the source, or one that ends in a segment
    /// which a compaction has written anew since. Nothing was changed.
    #[error(
        "{target:?} has segments that are not an earlier copy of this journal as it is now (another journal, a copy that was \
         opened and written to, or one that is older than all that retention has kept or compaction has written anew): name an \
         empty directory"
    )]
    Diverged {
        /// The directory that was to be copied to.
        target: String,
    },
    /// Retention freed segments in each round before they were copied.
    #[error("retention frees segments faster than they can be copied: copy to a faster disk, or keep more")]
    Outrun,
    /// The finished copy is damaged, though the source was read without an error.
    #[error("the copy is not sound: {0}. Delete that segment's file in the copy, and copy again")]
    Unsound(OpenError),
}

/// Copies the journal in `from` into `to`, which is created, and then reads the copy whole to verify it. The source is
/// neither locked nor changed: a program may have it open, write to it, and apply retention. The copy is locked meanwhile.
/// `progress` is called about once for each MiB that was copied or verified; to limit the rate of the copy, sleep in it.
///
/// The copy has every frame that was durable when the call began, and ends with a whole frame. It is a journal like any
/// other: it can be opened, inspected, or copied back. Copies of torn or damaged bytes that a recovery or repair has put
/// aside are left out.
///
/// Where `to` has an earlier copy of the same journal, finished or not, only the missing segments and the last one are
/// copied, and segments that retention has freed are deleted. An opening refuses a copy that is not finished, or finds the
/// earlier one.
///
/// # Errors
/// See [`CopyError`].
///
/// ```
/// use slipring_journal::{FrameBuilder, Options, PartitionId, copy, inspect, open, simulated::SimulatedDisk};
/// use std::sync::Arc;
///
/// let (disk, safe) = (Arc::new(SimulatedDisk::new()), Arc::new(SimulatedDisk::new()));
/// let (mut writer, _) = open(disk.clone(), Options::default())?;
/// let mut frame = FrameBuilder::new();
/// frame.record(PartitionId { topic: 1, partition: 0 }, 0, None, b"first");
/// writer.append(&mut frame, 1_700_000_000_000_000_000)?;
///
/// let copied = copy(disk, safe.clone(), &mut |_| {})?;        // while the journal is open
/// assert_eq!(copied.end, writer.journal().written());
/// assert_eq!(inspect(safe, true)?.end(), copied.end);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn copy(
    from: Arc<dyn Storage>,
    to: Arc<dyn Storage>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Copied, CopyError> {
    let first = survey(&from)?;
    if first.as_ref().is_some_and(|survey| survey.segments.is_empty()) {
        return Err(CopyError::NoJournal { journal: from.name() });
    }
    to.create_dir().map_err(|cause| target_error("make the directory", &to.name(), &cause))?;
    if from.identity().is_some_and(|identity| to.identity() == Some(identity)) {
        return Err(CopyError::Itself { journal: from.name() });
    }
    let _lock = take_lock(&*to).map_err(CopyError::Target)?;
    let mut copying = Copying { to: &to, progress, is_compared: false, read: 0, copied: 0, bytes: 0 };
    let mut found = first;
    for _ in 0..MOST_ROUNDS {
        let source = match found.take() {
            Some(source) => source,
            None => match survey(&from)? {
                Some(source) => source,
                None => continue,
            },
        };
        if !copying.round(&source)? {
            continue;
        }
        let removed = tidy(&to, &source)?;
        let end = copying.verify(&source)?;
        let (segments, Copying { copied, bytes, .. }) = (source.segments.len(), copying);
        return Ok(Copied { end, segments, copied, bytes, removed });
    }
    Err(CopyError::Outrun)
}

/// Surveys the source. `None` if retention has deleted a segment meanwhile.
fn survey(from: &Arc<dyn Storage>) -> Result<Option<Survey>, CopyError> {
    match inspect_to_damage(Arc::clone(from), false, &mut |_| {}) {
        Ok((survey, None)) => Ok(Some(survey)),
        Ok((_, Some(damage))) => Err(CopyError::Source(damage)),
        Err(OpenError::Disk(cause)) if segment_number(&cause.file).is_some() && is_gone(cause.kind) => Ok(None),
        Err(cause) => Err(CopyError::Source(cause)),
    }
}

/// True for the error of a file whose name was removed. A removed file that another program still has open cannot be
/// opened on Windows: access is denied.
fn is_gone(kind: io::ErrorKind) -> bool {
    kind == io::ErrorKind::NotFound || (cfg!(windows) && kind == io::ErrorKind::PermissionDenied)
}

fn target_error(doing: &'static str, file: &str, cause: &io::Error) -> CopyError {
    CopyError::Target(DiskError::new(doing, file, cause).into())
}

struct Copying<'c> {
    to: &'c Arc<dyn Storage>,
    progress: &'c mut dyn FnMut(Progress),
    /// True once the target is known to have nothing but an earlier part of this journal.
    is_compared: bool,
    /// Count of bytes copied or verified, for the progress.
    read: u64,
    copied: usize,
    bytes: u64,
}

impl Copying<'_> {
    /// Copies what `source` has and the copy has not. False if a segment is gone, so that another survey is needed.
    fn round(&mut self, source: &Survey) -> Result<bool, CopyError> {
        if !self.is_compared {
            match is_earlier_part(self.to, source)? {
                Some(true) => self.is_compared = true,
                Some(false) => return Err(CopyError::Diverged { target: self.to.name() }),
                None => return Ok(false),
            }
        }
        let mut missing = Vec::new();
        for segment in source.segments.iter().rev() {
            if !self.has_whole(segment).map_err(|cause| target_error("read", &segment.name, &cause))? {
                missing.push(segment);
            }
        }
        let verified: u64 = source.segments.iter().map(|segment| segment.end()).sum();
        let total = self.read + verified + missing.iter().map(|segment| segment.end()).sum::<u64>();
        for segment in missing {
            if !self.copy_segment(segment, total)? {
                return Ok(false);
            }
        }
        self.write_indexes(source)?;
        let checkpoint = Checkpoint { id: source.id, durable: source.durable, incarnation: source.incarnation };
        checkpoint.write(&**self.to).map_err(|cause| target_error("write", "checkpoint", &cause))?;
        Ok(true)
    }

    /// True if the copy has the segment's frames up to its end, and no byte more.
    fn has_whole(&self, segment: &Segment) -> io::Result<bool> {
        let file = match self.to.open(&segment.name, false) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        if segment_header(&*file)? != Ok(segment.header) {
            return Ok(false);
        }
        Ok(segment.header.lost || (file.size()? == segment.end() && has_last_frame(&*file, &segment.header, segment)?))
    }

    /// Copies the segment's bytes up to its end; zeros become a hole in the file. False if the source's file is gone.
    fn copy_segment(&mut self, segment: &Segment, total: u64) -> Result<bool, CopyError> {
        let source_error = |cause: io::Error| match is_gone(cause.kind()) {
            true => Ok(false),
            false => Err(CopyError::Source(segment.disk_error("read", &cause).into())),
        };
        // An earlier copy's index is that of the segment before a compaction.
        let index = index_name(segment.header.number);
        remove_if_exists(&**self.to, &index).map_err(|cause| target_error("remove", &index, &cause))?;
        // The open file can be read to its end, whatever happens to its name. If a compaction has replaced the surveyed file,
        // the new one is shorter, and is copied whole.
        let from = match segment.file.hold() {
            Ok(from) => from,
            Err(cause) => return source_error(cause),
        };
        let size = match from.size() {
            Ok(size) => size.min(segment.end()),
            Err(cause) => return source_error(cause),
        };
        let mut unread = None;
        let made = create_whole_as(&**self.to, &segment.name, true, |own| {
            own.truncate(size)?;
            let (mut read_ahead, mut at) = (ReadAhead::default(), 0);
            while at < size {
                let bytes = match read_ahead.bytes(&*from, at, COPY_CHUNK, size) {
                    Ok([]) => break,
                    Ok(bytes) => bytes,
                    Err(cause) => return Err(unread.insert(cause).kind().into()),
                };
                if last_nonzero(bytes).is_some() {
                    own.write_at(bytes, at)?;
                }
                at += bytes.len() as u64;
                self.read += bytes.len() as u64;
                (self.progress)(Progress { read: self.read, total });
            }
            Ok(())
        });
        segment.file.release();
        if let Some(cause) = unread {
            return source_error(cause);
        }
        made.map_err(|cause| target_error("write", &segment.name, &cause))?;
        self.copied += 1;
        self.bytes += size;
        Ok(true)
    }

    /// Writes the indexes that the copy lacks. A segment without one in the source gets none.
    fn write_indexes(&self, source: &Survey) -> Result<(), CopyError> {
        let Some((_, complete)) = source.segments.split_last() else { return Ok(()) };
        let unsealed = |number| source.unsealed.iter().any(|segment| segment.header.number == number);
        for segment in complete.iter().filter(|it| !it.header.lost && !unsealed(it.header.number)) {
            let name = index_name(segment.header.number);
            if self.to.open(&name, false).is_err() {
                segment.seal(&**self.to).map_err(|cause| target_error("write", &name, &cause))?;
            }
        }
        Ok(())
    }

    /// Reads the copy whole, and returns its end.
    fn verify(&mut self, source: &Survey) -> Result<u64, CopyError> {
        let verified: u64 = source.segments.iter().map(|segment| segment.end()).sum();
        let (before, total) = (self.read, self.read + verified);
        let progress = &mut self.progress;
        let mut report = |read| progress(Progress { read: before + read, total: total.max(before + read) });
        let (copy, damage) = inspect_to_damage(Arc::clone(self.to), true, &mut report).map_err(CopyError::Target)?;
        if let Some(damage) = damage {
            return Err(CopyError::Unsound(damage));
        }
        if (copy.id, copy.end) != (source.id, source.end) {
            let what = copy.torn().map_or(Malformed::Missing, |torn| torn.what);
            let (segment, at) = copy.segments.last().map_or((1, 0), |last| (last.header.number, last.end()));
            let (position, durable) = (copy.end, copy.durable);
            return Err(CopyError::Unsound(OpenError::Damaged { segment, at, position, durable, what }));
        }
        Ok(copy.end)
    }
}

/// True if the file, of a segment with this header, has the last frame that `of` has, at the same place.
fn has_last_frame(file: &dyn File, header: &SegmentHeader, of: &Segment) -> io::Result<bool> {
    let (at, checksum) = of.index().last;
    Ok(frame_header(file, &header.id, header.first, at)?.is_ok_and(|(_, found)| found == checksum))
}

/// True if the target has no segment, or the frames that it has are the first ones of those that the source has. `None` if
/// retention has deleted the source's segment meanwhile.
fn is_earlier_part(to: &Arc<dyn Storage>, source: &Survey) -> Result<Option<bool>, CopyError> {
    let names = to.list().map_err(|cause| target_error("list", &to.name(), &cause))?;
    let Some(newest) = names.iter().filter_map(|name| segment_number(name)).max() else { return Ok(Some(true)) };
    // The survey of an unfinished copy finds damage after the frames that it returns, as segments are missing.
    let (target, _) = inspect_to_damage(Arc::clone(to), false, &mut |_| {}).map_err(CopyError::Target)?;
    let Some(last) = target.segments.last() else { return Ok(Some(false)) };
    let known = source.segments.iter().find(|segment| segment.header == last.header);
    let goes_beyond = source.segments.last().is_none_or(|last| newest > last.header.number);
    let (Some(known), false) = (known, goes_beyond) else { return Ok(Some(false)) };
    if last.header.lost {
        return Ok(Some(true));
    }
    match has_last_frame(&known.file, &known.header, last) {
        Ok(is_same) => Ok(Some(is_same)),
        Err(cause) if is_gone(cause.kind()) => Ok(None),
        Err(cause) => Err(CopyError::Source(known.disk_error("read", &cause).into())),
    }
}

/// Deletes what the copy does not need once it has all segments of `source`: unfinished files, and the segments before its
/// first one. Returns the count of these segments.
fn tidy(to: &Arc<dyn Storage>, source: &Survey) -> Result<usize, CopyError> {
    let names = to.list().map_err(|cause| target_error("list", &to.name(), &cause))?;
    let first = source.segments.first().map_or(0, |first| first.header.number);
    let mut freed: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).filter(|it| *it < first).collect();
    // The newest first: the last of an earlier copy's segments may be incomplete, and without it an opening sees that the
    // segments before it are not needed.
    freed.sort_unstable_by(|one, other| other.cmp(one));
    let unfinished = names.iter().filter(|name| name.ends_with(UNFINISHED) && is_ours(name)).cloned();
    for name in freed.iter().flat_map(|number| [segment_name(*number), index_name(*number)]).chain(unfinished) {
        remove_if_exists(&**to, &name).map_err(|cause| target_error("remove", &name, &cause))?;
    }
    to.sync_dir().map_err(|cause| target_error("sync", &to.name(), &cause))?;
    Ok(freed.len())
}
