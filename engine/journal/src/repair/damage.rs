//! The first damage of a journal, and its repair.

use super::report::{RepairAction, RepairError, RepairedPlace};
use crate::error::DiskError;
use crate::files::atomic_file::{create_whole, open_unshared, remove_if_exists};
use crate::files::copy::{copy_range, nonzero_end};
use crate::files::names::{index_name, segment_name, segment_number};
use crate::files::read_ahead::ReadAhead;
use crate::files::read_header::{frame_header, segment_header};
use crate::format::{
    ALIGN, Codec, FRAME_HEADER, FrameBuilder, FrameHeader, FrameKind, JournalId, MAJOR, MAX_SEGMENT, Malformed,
    SEGMENT_HEAD, SegmentHeader, aligned,
};
use crate::storage::{File, Storage};
use crate::survey::Survey;
use std::io;

/// The most lost segments that a repair replaces at once.
const MOST_LOST: u64 = 1 << 16;

/// The first damage of a journal.
pub(super) struct Damage<'r> {
    pub disk: &'r dyn Storage,
    /// The survey of the journal before the damage.
    pub survey: &'r Survey,
    pub segment: u64,
    pub at: u64,
    pub durable: u64,
    pub what: Malformed,
    pub time: u64,
}

impl Damage<'_> {
    fn irreparable<T>(&self, why: &'static str) -> Result<T, RepairError> {
        Err(RepairError::Irreparable { segment: self.segment, at: self.at, why })
    }

    fn failed(&self, doing: &'static str) -> impl Fn(io::Error) -> DiskError + use<'_> {
        move |cause| DiskError::new(doing, segment_name(self.segment), &cause)
    }

    fn done(&self, how: RepairAction, copy: Option<String>) -> RepairedPlace {
        RepairedPlace { segment: self.segment, at: self.at, what: self.what, action: how, copy }
    }

    pub fn repair(&self) -> Result<RepairedPlace, RepairError> {
        match (self.what, self.at) {
            (Malformed::Missing, _) => self.replace(),
            // The frame's checksums match, so nothing shows what it should be instead.
            (Malformed::Floor(_), _) => self.irreparable("its state says that it is not needed itself"),
            (_, 0) => self.rebuild_header(),
            _ => self.gap(),
        }
    }

    /// The header of the last valid segment before this one; `None` if there is none.
    fn before(&self) -> Option<SegmentHeader> {
        let last = self.survey.segments.iter().rfind(|last| last.header.number < self.segment)?;
        Some(last.header)
    }

    /// The header of the first segment with number `number` or higher whose header can be read; `None` if there is
    /// none.
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

    /// Creates segments without frames in the place of this segment and of missing ones after it.
    fn replace(&self) -> Result<RepairedPlace, RepairError> {
        let (before, next) = (self.before(), self.next_from(self.segment)?);
        let names = self.disk.list().map_err(self.failed("list the files beside"))?;
        let there = names.iter().filter_map(|name| segment_number(name)).filter(|number| *number >= self.segment).min();
        let size = before.or(next).map_or(0, |neighbour| neighbour.size);
        if size == 0 {
            return self.irreparable("no segment is left");
        }
        // If the next segment file has a damaged header, only the segments before it are replaced: a later round gives
        // it a new header.
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
            (None, None) => return self.irreparable("no segment is left"),
        };
        if count > MOST_LOST {
            return self.irreparable(
                "the durable mark is further than any journal goes: a checksum matches what nobody wrote",
            );
        }
        let each = end.saturating_sub(begin) / count.max(1) / ALIGN * ALIGN;
        if count == 0 || each < ALIGN {
            return self.irreparable("the segments around it leave no room for it");
        }
        let incarnation = before.map_or_else(|| next.map_or(0, |next| next.incarnation), |before| before.incarnation);
        // The last segment is created first. After a crash the next repair continues at the first missing segment.
        for turn in (0..count).rev() {
            let (number, first) = (self.segment + turn, begin + turn * each);
            let size = if turn + 1 == count { end - first } else { each };
            let header =
                SegmentHeader { version: MAJOR, id: self.survey.id, number, first, size, incarnation, lost: true };
            self.put_head(&header)?;
        }
        Ok(self.done(RepairAction::Lost(end - begin), None))
    }

    fn put_head(&self, header: &SegmentHeader) -> Result<(), RepairError> {
        if !header.is_sane() {
            return self.irreparable("the segments around it say positions that no journal has");
        }
        let filled = |file: &dyn File| {
            file.truncate(SEGMENT_HEAD)?;
            file.write_at(&header.encode(), 0)
        };
        create_whole(self.disk, &segment_name(header.number), filled).map_err(self.failed("make"))?;
        Ok(())
    }

    /// Writes a new header if the file has frames; otherwise renames the file out of the way.
    fn rebuild_header(&self) -> Result<RepairedPlace, RepairError> {
        let name = segment_name(self.segment);
        let file = open_unshared(self.disk, &name).map_err(self.failed("open"))?;
        let len = file.size().map_err(self.failed("read"))?;
        let (before, next) = (self.before(), self.next_from(self.segment + 1)?);
        let next = next.filter(|next| next.number == self.segment + 1);
        let size = before.or(next).map_or(len, |neighbour| neighbour.size);
        let first = match (before, next) {
            (Some(before), _) => before.first + before.size,
            (None, _) if self.segment == 1 => 0,
            (None, Some(next)) => next.first.saturating_sub(size),
            (None, None) => return self.irreparable("no other segment says where it stood"),
        };
        let size = next.map_or(size.max(aligned(len)).min(MAX_SEGMENT), |next| next.first.saturating_sub(first));
        let mut read_ahead = ReadAhead::default();
        let limit = len.min(size);
        let found = find(&mut read_ahead, &*file, &self.survey.id, first, SEGMENT_HEAD, limit, 0, true);
        let found = found.map_err(self.failed("read"))?;
        let Some((_, frame)) = found.filter(|_| (SEGMENT_HEAD + ALIGN..=MAX_SEGMENT).contains(&size)) else {
            let copy = unused_name(self.disk, first)?;
            remove_if_exists(self.disk, &index_name(self.segment)).map_err(self.failed("remove the index of"))?;
            self.disk.rename(&name, &copy).map_err(self.failed("rename"))?;
            self.disk.sync_dir().map_err(self.failed("sync the directory of"))?;
            // The segment is missing now, so the next round replaces it.
            return Ok(self.done(RepairAction::Head, Some(copy)));
        };
        let copy = self.keep(&*file, 0, SEGMENT_HEAD.min(len), first)?;
        let incarnation = frame.incarnation;
        let (version, id, number) = (MAJOR, self.survey.id, self.segment);
        let header = SegmentHeader { version, id, number, first, size, incarnation, lost: false };
        let mut sector = header.encode().to_vec();
        sector.resize(SEGMENT_HEAD as usize, 0);
        file.write_at(&sector, 0).map_err(self.failed("write to"))?;
        file.sync().map_err(self.failed("sync"))?;
        Ok(self.done(RepairAction::Head, copy))
    }

    /// Copies the bytes `from..to` of a file aside, and returns the copy's name. `None` if all of them are zero.
    fn keep(&self, file: &dyn File, from: u64, to: u64, position: u64) -> Result<Option<String>, RepairError> {
        let mut read_ahead = ReadAhead::default();
        let until = nonzero_end(&mut read_ahead, file, from, to).map_err(self.failed("read"))?;
        if until <= from {
            return Ok(None);
        }
        let copy = unused_name(self.disk, position)?;
        let kept = create_whole(self.disk, &copy, |into| copy_range(&mut read_ahead, file, from, until, into));
        kept.map_err(self.failed("copy a part of"))?;
        Ok(Some(copy))
    }

    /// Covers the damage with a gap frame up to the next valid frame; without one, up to the segment's end, or in the
    /// last segment up to the last nonzero byte or the durable mark. If the next segment's first frame follows the last
    /// valid one, the bytes between them are cut instead.
    fn gap(&self) -> Result<RepairedPlace, RepairError> {
        let id = self.survey.id;
        let Some(own) = header(self.disk, self.segment, &id)? else { return self.irreparable("its head is gone") };
        let last = self.survey.segments.iter().rfind(|last| last.header.number + 1 == self.segment);
        // This frame is valid but does not follow the last one, so the end of the segment before it is missing.
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
        let mut read_ahead = ReadAhead::default();
        // No valid segment before this one supplies the state, so a snapshot with nothing but the floor takes the place
        // of the damaged one.
        let headless = self.at == SEGMENT_HEAD && last.is_none();
        let from = self.at + if headless { 3 * ALIGN } else { ALIGN };
        let since = self.survey.chain_incarnation;
        let found = find(&mut read_ahead, &*file, &id, own.first, from, len.min(own.size), since, false);
        if let Some((to, _)) = found.map_err(self.failed("read"))? {
            return self.span(&own, self.at, to, headless);
        }
        let until = nonzero_end(&mut read_ahead, &*file, self.at, len.min(own.size)).map_err(self.failed("read"))?;
        if let Some(next) = self.next_from(self.segment + 1)? {
            if next.number == self.segment + 1 && !headless && self.goes_on_at(&next)? {
                let copy = self.keep(&*file, self.at, until, own.first + self.at)?;
                let file = open_unshared(self.disk, &name).map_err(self.failed("open"))?;
                file.truncate(self.at).map_err(self.failed("cut"))?;
                file.sync().map_err(self.failed("sync"))?;
                return Ok(self.done(RepairAction::Cut(until.saturating_sub(self.at)), copy));
            }
            return self.span(&own, self.at, own.size, headless);
        }
        let durable = self.durable.saturating_sub(own.first);
        let to = aligned(until.max(durable).max(from)).min(own.size);
        self.span(&own, self.at, to, headless)
    }

    /// True if the first frame of the next segment directly follows the last valid frame of this one.
    fn goes_on_at(&self, next: &SegmentHeader) -> Result<bool, RepairError> {
        let file = self.disk.open(&segment_name(next.number), false).map_err(self.failed("open the one behind"))?;
        let frame = frame_header(&*file, &self.survey.id, next.first, SEGMENT_HEAD);
        let frame = frame.map_err(self.failed("read the one behind"))?;
        Ok(frame.is_ok_and(|(frame, _)| frame.previous == self.survey.previous && self.at > SEGMENT_HEAD))
    }

    fn span(&self, own: &SegmentHeader, at: u64, to: u64, headless: bool) -> Result<RepairedPlace, RepairError> {
        let number = own.number;
        let head = if headless { 2 * ALIGN } else { 0 };
        if to < at + head + ALIGN {
            return self.irreparable("there is no room for a gap");
        }
        let file = open_unshared(self.disk, &segment_name(number)).map_err(self.failed("open"))?;
        let len = file.size().map_err(self.failed("read"))?;
        let copy = self.keep(&*file, at, to.min(len), own.first + at)?;
        // The index would lead readers into the gap.
        remove_if_exists(self.disk, &index_name(number)).map_err(self.failed("remove the index of"))?;
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
        // The bytes lie in one sector: 64 bytes at a multiple of 64, or 192 bytes at the segment's head. So a crash
        // leaves all of them or none.
        file.write_at(&bytes, at).map_err(self.failed("write to"))?;
        file.sync().map_err(self.failed("sync"))?;
        Ok(self.done(RepairAction::Gap(to - at), copy))
    }
}

/// The header of a segment file; `None` if the file is missing, or the header is damaged or of another segment or
/// journal.
fn header(disk: &dyn Storage, number: u64, id: &JournalId) -> Result<Option<SegmentHeader>, DiskError> {
    let name = segment_name(number);
    let read = |cause: io::Error| DiskError::new("read", &name, &cause);
    let file = match disk.open(&name, false) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(read)?,
    };
    let header = segment_header(&*file).map_err(read)?.ok();
    Ok(header.filter(|header| header.number == number && header.id == *id))
}

/// Finds the next valid frame at or after offset `from` at which a gap may end. It has an incarnation of `since` or
/// higher, and is a snapshot only if `any` is true.
#[expect(clippy::too_many_arguments, reason = "where, of what, and which")]
fn find(
    read_ahead: &mut ReadAhead,
    file: &dyn File,
    id: &JournalId,
    first: u64,
    from: u64,
    limit: u64,
    since: u32,
    any: bool,
) -> io::Result<Option<(u64, FrameHeader)>> {
    let mut at = from;
    read_ahead.reset();
    while at + FRAME_HEADER as u64 <= limit {
        if let Ok(frame) = read_ahead.frame(id, first, file, at, limit)? {
            let wanted = any || !matches!(frame.header.kind, FrameKind::Snapshot { .. });
            if wanted && frame.header.incarnation >= since {
                return Ok(Some((at, frame.header)));
            }
        }
        at += ALIGN;
    }
    Ok(None)
}

/// Returns an unused name for a file that is put aside.
pub(super) fn unused_name(disk: &dyn Storage, position: u64) -> Result<String, DiskError> {
    let names = disk.list().map_err(|cause| DiskError::new("list", disk.name(), &cause))?;
    let name = |turn: u32| format!("damaged-{position:020}-{turn}.bin");
    let turn = (1..).find(|turn| !names.contains(&name(*turn))).unwrap_or(0);
    Ok(name(turn))
}
