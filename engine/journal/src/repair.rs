//! Giving up what is damaged, so that the rest can be opened again. Nothing is thrown away: what is taken out of a segment
//! is copied aside first, and a gap stays where it was, which every reader is told of.
//!
//! All of it is rehearsed in memory first: what cannot be repaired is not touched.
//!
//! Each round looks for the first damage below the durable mark, as an opening does, and mends that in steps that can each
//! be the last one before a crash; a repair that was interrupted is run again. The last step is an opening, which cuts the
//! torn end and gives the journal a new segment.

use super::atomic_file::{finish, open_own, take_away};
use super::copy::{copy_range, last_byte};
use super::error::{DiskError, OpenError, ReplayError, WriteError};
use super::file_names::{index_name, segment_name, segment_number};
use super::format::{
    ALIGN, Codec, FRAME_HEADER, FrameBuilder, FrameHeader, FrameKind, JournalId, MAJOR, MAX_SEGMENT, Malformed,
    PartitionId, SEGMENT_HEAD, SegmentHeader, aligned,
};
use super::loss::Evidence;
use super::options::Options;
use super::recovery::{Recovered, open_behind};
use super::storage::{File, Lock, Overlay, Storage, take_lock};
use super::survey::{Survey, Torn};
use super::surveyor::survey_to_damage;
use super::window::Window;
use std::io;
use std::ops::Range;
use std::sync::Arc;

mod names;

/// No more segments than these are put in the place of lost ones.
const MOST_LOST: u64 = 1 << 16;

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// Each place, in the order of positions. None: the journal was not damaged.
    pub mended: Vec<Mended>,
    /// Offsets that are missing now, by partition: their readers are told.
    pub lost: Vec<(PartitionId, Range<u64>)>,
    /// The torn end that the opening behind the repair has cut.
    pub torn: Option<Torn>,
    /// Where partitions stood at the end of the journal is not known exactly: they go on at offsets that no record that was
    /// lost can have had.
    pub skipped_offsets: bool,
}

/// One place that was mended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mended {
    /// The segment's number.
    pub segment: u64,
    /// The byte in its file.
    pub at: u64,
    /// What was wrong.
    pub what: Malformed,
    /// What was done.
    pub how: How,
    /// The file that has what was taken out; none if there was nothing but zeros.
    pub copy: Option<String>,
}

/// What a repair did at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum How {
    /// So many bytes were given up: a gap stands there.
    Gap(u64),
    /// The segment is lost: one without frames stands in its place.
    Lost(u64),
    /// The head of the file was made again. No frame was lost by that.
    Head,
    /// The segment's file had the name of another one, and got its own back. Nothing was lost.
    Name,
    /// So many bytes behind the last frame were cut, which no frame was made of.
    Cut(u64),
}

/// A repair was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The journal can't be looked at or opened, for another reason than damage.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The disk fails. What can be read should be copied to another one first.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Reading it again failed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The new end was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// There is nothing to go on with.
    #[error("segment {segment} of the journal cannot be repaired at byte {at}: {why}")]
    Hopeless {
        /// The segment's number.
        segment: u64,
        /// The byte in its file.
        at: u64,
        /// Why not.
        why: &'static str,
    },
}

/// Repairs the journal in `storage`: copies damaged parts aside and leaves gaps. One that is not damaged is left alone, and so is
/// one of which a [rehearsal](rehearse) shows that it cannot be repaired. `progress` hears now and then how many bytes one look
/// at the journal has read.
///
/// # Errors
/// Somebody has it open, a newer program wrote it, the disk fails, or nothing of it is left.
pub fn repair(storage: Arc<dyn Storage>, time: u64, progress: &mut dyn FnMut(u64)) -> Result<Repaired, RepairError> {
    // The lock is a file: none is made in a directory whose files may be no journal's.
    let (survey, damage) = survey_to_damage(Arc::clone(&storage), false, progress)?;
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
        let (survey, damage) = survey_to_damage(Arc::clone(&storage), true, progress)?;
        let Some(OpenError::Damaged { segment, at, durable, what, .. }) = damage else { break survey };
        if let Malformed::Misnamed(_) | Malformed::Missing = what {
            let named = names::give_back(disk, &survey.id, &mended)?;
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

impl How {
    /// Bytes that were given up.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Gap(bytes) | Self::Lost(bytes) => bytes,
            Self::Head | Self::Name | Self::Cut(_) => 0,
        }
    }
}

/// A name that nothing has, for what is put aside.
fn free_name(disk: &dyn Storage, position: u64) -> Result<String, DiskError> {
    let names = disk.list().map_err(|cause| DiskError::new("list", disk.name(), &cause))?;
    let name = |turn: u32| format!("damaged-{position:020}-{turn}.bin");
    let turn = (1..).find(|turn| !names.contains(&name(*turn))).unwrap_or(0);
    Ok(name(turn))
}

/// The first damage of a journal.
struct Place<'r> {
    disk: &'r dyn Storage,
    /// What stands before it.
    survey: &'r Survey,
    segment: u64,
    at: u64,
    durable: u64,
    what: Malformed,
    time: u64,
}

/// The head of a segment's file, if it is one of this journal.
fn header(disk: &dyn Storage, number: u64, id: &JournalId) -> Result<Option<SegmentHeader>, DiskError> {
    let name = segment_name(number);
    let read = |cause: io::Error| DiskError::new("read", &name, &cause);
    let file = match disk.open(&name, false) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(read)?,
    };
    let mut head = [0; 64];
    let len = file.read_at(&mut head, 0).map_err(read)?;
    let header = SegmentHeader::decode(&head[..len]).ok();
    Ok(header.filter(|header| header.number == number && header.id == *id))
}

impl Place<'_> {
    fn hopeless<T>(&self, why: &'static str) -> Result<T, RepairError> {
        Err(RepairError::Hopeless { segment: self.segment, at: self.at, why })
    }

    fn failed(&self, doing: &'static str) -> impl Fn(io::Error) -> DiskError + use<'_> {
        move |cause| DiskError::new(doing, segment_name(self.segment), &cause)
    }

    fn done(&self, how: How, copy: Option<String>) -> Mended {
        Mended { segment: self.segment, at: self.at, what: self.what, how, copy }
    }

    fn mend(&self) -> Result<Mended, RepairError> {
        match (self.what, self.at) {
            (Malformed::Missing, _) => self.replace(),
            // Its checksums match: whatever is put in its place would be as wrong.
            (Malformed::Floor(_), _) => self.hopeless("its state says that it is not needed itself"),
            (_, 0) => self.behead(),
            _ => self.gap(),
        }
    }

    /// The segments that count up to here; the last of them, if it stands right before this one.
    fn before(&self) -> Option<SegmentHeader> {
        let last = self.survey.segments.iter().rfind(|last| last.header.number < self.segment)?;
        Some(last.header)
    }

    /// The next segment whose header can be read, from this number on.
    fn next_from(&self, number: u64) -> Result<Option<SegmentHeader>, RepairError> {
        let names = self.disk.list().map_err(self.failed("list the files beside"))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        for number in numbers.into_iter().filter(|there| *there >= number) {
            if let Some(header) = header(self.disk, number, &self.survey.id)? {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Puts segments without frames in the place of this one, and of others that are missing behind it.
    fn replace(&self) -> Result<Mended, RepairError> {
        let (before, next) = (self.before(), self.next_from(self.segment)?);
        let names = self.disk.list().map_err(self.failed("list the files beside"))?;
        let there = names.iter().filter_map(|name| segment_number(name)).filter(|number| *number >= self.segment).min();
        let size = before.or(next).map_or(0, |neighbour| neighbour.size);
        if size == 0 {
            return self.hopeless("no segment is left");
        }
        // One whose head can't be read gets that first.
        let (count, begin, end) = match (before, next) {
            (Some(before), Some(next)) => {
                let count = there.unwrap_or(next.number) - self.segment;
                let begin = before.first + before.size;
                let all = next.number - self.segment;
                let room = next.first.saturating_sub(begin) / ALIGN / all.max(1) * ALIGN;
                (count, begin, if count == all { next.first } else { begin + room * count })
            }
            (None, Some(next)) => {
                let count = next.number - self.segment;
                let begin = if self.segment == 1 { 0 } else { next.first.saturating_sub(count.saturating_mul(size)) };
                (count, begin, next.first)
            }
            (Some(before), None) => {
                let begin = before.first + before.size;
                let count = there
                    .map_or_else(|| self.durable.saturating_sub(begin).div_ceil(size), |there| there - self.segment);
                (count, begin, begin.saturating_add(count.saturating_mul(size)))
            }
            (None, None) => return self.hopeless("no segment is left"),
        };
        if count > MOST_LOST {
            return self
                .hopeless("the durable mark is further than any journal goes: a checksum matches what nobody wrote");
        }
        let each = end.saturating_sub(begin) / count.max(1) / ALIGN * ALIGN;
        if count == 0 || each < ALIGN {
            return self.hopeless("the segments around it leave no room for it");
        }
        let incarnation = before.map_or_else(|| next.map_or(0, |next| next.incarnation), |before| before.incarnation);
        // The last one first: whatever a crash leaves, the first that is missing is where the next repair begins.
        for turn in (0..count).rev() {
            let (number, first) = (self.segment + turn, begin + turn * each);
            let size = if turn + 1 == count { end - first } else { each };
            let header =
                SegmentHeader { version: MAJOR, id: self.survey.id, number, first, size, incarnation, lost: true };
            self.put_head(&header)?;
        }
        Ok(self.done(How::Lost(end - begin), None))
    }

    fn put_head(&self, header: &SegmentHeader) -> Result<(), RepairError> {
        if !header.is_sane() {
            return self.hopeless("the segments around it say positions that no journal has");
        }
        let filled = |file: &dyn File| {
            file.truncate(SEGMENT_HEAD)?;
            file.write_at(&header.encode(), 0)
        };
        finish(self.disk, &segment_name(header.number), filled).map_err(self.failed("make"))?;
        Ok(())
    }

    /// Makes the head of the file again, if there are frames behind it; otherwise puts the file aside as it is.
    fn behead(&self) -> Result<Mended, RepairError> {
        let name = segment_name(self.segment);
        let file = open_own(self.disk, &name).map_err(self.failed("open"))?;
        let len = file.size().map_err(self.failed("read"))?;
        let (before, next) = (self.before(), self.next_from(self.segment + 1)?);
        let next = next.filter(|next| next.number == self.segment + 1);
        let size = before.or(next).map_or(len, |neighbour| neighbour.size);
        let first = match (before, next) {
            (Some(before), _) => before.first + before.size,
            (None, _) if self.segment == 1 => 0,
            (None, Some(next)) => next.first.saturating_sub(size),
            (None, None) => return self.hopeless("no other segment says where it stood"),
        };
        let size = next.map_or(size.max(aligned(len)).min(MAX_SEGMENT), |next| next.first.saturating_sub(first));
        let mut window = Window::default();
        let limit = len.min(size);
        let found = find(&mut window, &*file, &self.survey.id, first, SEGMENT_HEAD, limit, 0, true);
        let found = found.map_err(self.failed("read"))?;
        let Some((_, frame)) = found.filter(|_| (SEGMENT_HEAD + ALIGN..=MAX_SEGMENT).contains(&size)) else {
            let copy = free_name(self.disk, first)?;
            take_away(self.disk, &index_name(self.segment)).map_err(self.failed("take away the index of"))?;
            self.disk.rename(&name, &copy).map_err(self.failed("rename"))?;
            self.disk.sync_dir().map_err(self.failed("sync the directory of"))?;
            // It is missing now: the next round puts another one there.
            return Ok(self.done(How::Head, Some(copy)));
        };
        let copy = self.keep(&*file, 0, SEGMENT_HEAD.min(len), first)?;
        let incarnation = frame.incarnation;
        let (version, id, number) = (MAJOR, self.survey.id, self.segment);
        let header = SegmentHeader { version, id, number, first, size, incarnation, lost: false };
        let mut sector = header.encode().to_vec();
        sector.resize(SEGMENT_HEAD as usize, 0);
        file.write_at(&sector, 0).map_err(self.failed("write to"))?;
        file.sync().map_err(self.failed("sync"))?;
        Ok(self.done(How::Head, copy))
    }

    /// Copies a part aside; nothing if it is zeros.
    fn keep(&self, file: &dyn File, from: u64, to: u64, position: u64) -> Result<Option<String>, RepairError> {
        let mut window = Window::default();
        let until = last_byte(&mut window, file, from, to).map_err(self.failed("read"))?;
        if until <= from {
            return Ok(None);
        }
        let copy = free_name(self.disk, position)?;
        let kept = finish(self.disk, &copy, |into| copy_range(&mut window, file, from, until, into));
        kept.map_err(self.failed("copy a part of"))?;
        Ok(Some(copy))
    }

    /// Puts a gap over what is damaged, up to the next whole frame.
    fn gap(&self) -> Result<Mended, RepairError> {
        let id = self.survey.id;
        let Some(own) = header(self.disk, self.segment, &id)? else { return self.hopeless("its head is gone") };
        let last = self.survey.segments.iter().rfind(|last| last.header.number + 1 == self.segment);
        // Whole by itself and no successor of what there is: the end of the segment before is gone.
        if self.at == SEGMENT_HEAD
            && self.what == Malformed::Chain
            && let Some(before) = last.filter(|before| before.end() + ALIGN <= before.header.size)
        {
            let (at, to) = (before.end(), before.header.size);
            return self.span(&before.header, at, to, false);
        }
        let name = segment_name(self.segment);
        let file = self.disk.open(&name, false).map_err(self.failed("open"))?;
        let len = file.size().map_err(self.failed("read"))?;
        let mut window = Window::default();
        // The first segment's head says what no other place does: it is made anew, with what is left of it.
        let headless = self.at == SEGMENT_HEAD && last.is_none();
        let from = self.at + if headless { 3 * ALIGN } else { ALIGN };
        let since = self.survey.chain_incarnation;
        let found = find(&mut window, &*file, &id, own.first, from, len.min(own.size), since, false);
        if let Some((to, _)) = found.map_err(self.failed("read"))? {
            return self.span(&own, self.at, to, headless);
        }
        let until = last_byte(&mut window, &*file, self.at, len.min(own.size)).map_err(self.failed("read"))?;
        if let Some(next) = self.next_from(self.segment + 1)? {
            if next.number == self.segment + 1 && !headless && self.goes_on_at(&next)? {
                let copy = self.keep(&*file, self.at, until, own.first + self.at)?;
                let file = open_own(self.disk, &name).map_err(self.failed("open"))?;
                file.truncate(self.at).map_err(self.failed("cut"))?;
                file.sync().map_err(self.failed("sync"))?;
                return Ok(self.done(How::Cut(until.saturating_sub(self.at)), copy));
            }
            return self.span(&own, self.at, own.size, headless);
        }
        let durable = self.durable.saturating_sub(own.first);
        let to = aligned(until.max(durable).max(from)).min(own.size);
        self.span(&own, self.at, to, headless)
    }

    /// Whether the first frame of the next segment follows the last one that is whole here.
    fn goes_on_at(&self, next: &SegmentHeader) -> Result<bool, RepairError> {
        let file = self.disk.open(&segment_name(next.number), false).map_err(self.failed("open the one behind"))?;
        let mut head = [0; 64];
        let read = file.read_at(&mut head, SEGMENT_HEAD).map_err(self.failed("read the one behind"))?;
        let frame = FrameHeader::decode(&self.survey.id, next.first + SEGMENT_HEAD, &head[..read]);
        Ok(frame.is_ok_and(|(frame, _)| frame.previous == self.survey.previous && self.at > SEGMENT_HEAD))
    }

    fn span(&self, own: &SegmentHeader, at: u64, to: u64, headless: bool) -> Result<Mended, RepairError> {
        let number = own.number;
        let head = if headless { 2 * ALIGN } else { 0 };
        if to < at + head + ALIGN {
            return self.hopeless("there is no room for a gap");
        }
        let file = open_own(self.disk, &segment_name(number)).map_err(self.failed("open"))?;
        let len = file.size().map_err(self.failed("read"))?;
        let copy = self.keep(&*file, at, to.min(len), own.first + at)?;
        // It would lead readers into the gap.
        take_away(self.disk, &index_name(number)).map_err(self.failed("take away the index of"))?;
        self.disk.sync_dir().map_err(self.failed("sync the directory of"))?;
        let incarnation = self.survey.chain_incarnation.max(own.incarnation);
        let mut previous = self.survey.previous;
        let frame = |kind, position, stored, payload: &[u8], previous| FrameHeader {
            kind,
            codec: Codec::Plain,
            stored,
            raw: stored,
            position,
            durable: 0,
            time: self.time,
            incarnation,
            entries: u32::from(!payload.is_empty()),
            previous,
            payload: crc32c::crc32c(payload),
        };
        let mut bytes = Vec::new();
        if headless {
            let mut floor = FrameBuilder::new();
            floor.floor(number);
            let payload = floor.payload();
            let kind = FrameKind::Snapshot { first: true, last: true };
            let (head, checksum) =
                frame(kind, own.first + at, payload.len() as u32, payload, previous).encode(&self.survey.id);
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(payload);
            bytes.resize(2 * ALIGN as usize, 0);
            previous = checksum;
        }
        let span = to - at - head;
        let stored = u32::try_from(span - FRAME_HEADER as u64).unwrap_or(u32::MAX);
        let (gap, _) = frame(FrameKind::Gap, own.first + at + head, stored, &[], previous).encode(&self.survey.id);
        bytes.extend_from_slice(&gap);
        if len < to {
            file.truncate(to).map_err(self.failed("make longer"))?;
        }
        // In one sector, as frames at the head of a segment and single ones are: a crash leaves all of it or nothing.
        file.write_at(&bytes, at).map_err(self.failed("write to"))?;
        file.sync().map_err(self.failed("sync"))?;
        Ok(self.done(How::Gap(to - at), copy))
    }
}

/// The next whole frame at or behind `from` that a gap may end at; with `any`, a snapshot too.
#[expect(clippy::too_many_arguments, reason = "where, of what, and which")]
fn find(
    window: &mut Window,
    file: &dyn File,
    id: &JournalId,
    first: u64,
    from: u64,
    limit: u64,
    since: u32,
    any: bool,
) -> io::Result<Option<(u64, FrameHeader)>> {
    let mut at = from;
    window.reset();
    while at + FRAME_HEADER as u64 <= limit {
        if let Ok(frame) = window.frame(id, first, file, at, limit)? {
            let wanted = any || !matches!(frame.header.kind, FrameKind::Snapshot { .. });
            if wanted && frame.header.incarnation >= since {
                return Ok(Some((at, frame.header)));
            }
        }
        at += ALIGN;
    }
    Ok(None)
}
