//! The first damage of a journal, and repairing it.

use super::super::atomic_file::{finish, open_own, take_away};
use super::super::copy::{copy_range, last_byte};
use super::super::error::DiskError;
use super::super::file_names::{index_name, segment_name, segment_number};
use super::super::format::{
    ALIGN, Codec, FRAME_HEADER, FrameBuilder, FrameHeader, FrameKind, JournalId, MAJOR, MAX_SEGMENT, Malformed,
    SEGMENT_HEAD, SegmentHeader, aligned,
};
use super::super::storage::{File, Storage};
use super::super::survey::Survey;
use super::super::window::Window;
use super::report::{How, Mended, RepairError};
use std::io;

/// No more segments than these are put in the place of lost ones.
const MOST_LOST: u64 = 1 << 16;

/// The first damage of a journal.
pub(super) struct Place<'r> {
    pub disk: &'r dyn Storage,
    /// What stands before it.
    pub survey: &'r Survey,
    pub segment: u64,
    pub at: u64,
    pub durable: u64,
    pub what: Malformed,
    pub time: u64,
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

    pub fn mend(&self) -> Result<Mended, RepairError> {
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

/// A name that nothing has, for what is put aside.
pub(super) fn free_name(disk: &dyn Storage, position: u64) -> Result<String, DiskError> {
    let names = disk.list().map_err(|cause| DiskError::new("list", disk.name(), &cause))?;
    let name = |turn: u32| format!("damaged-{position:020}-{turn}.bin");
    let turn = (1..).find(|turn| !names.contains(&name(*turn))).unwrap_or(0);
    Ok(name(turn))
}
