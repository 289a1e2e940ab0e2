//! Where in a segment each partition's records stand: derived from the frames, kept beside the sealed segment, and
//! believed only when its checksum ties it to that segment.

use super::format::{Entry, JournalId, MAX_POSITION, MAX_SEGMENT, Malformed, PartitionId, Run, SEGMENT_HEAD};
use std::collections::BTreeMap;
use std::ops::Range;

/// A partition gets a mark in the index each time so many bytes of its own have passed.
const STRIDE: u64 = 256 << 10;

/// No segment has so many records, or so many bytes of them, however well they are packed.
const MOST: u64 = 1 << 44;
/// When frames were written is known for each so many bytes of the segment.
const TIMES: u64 = 1 << 20;

/// A partition gets a mark, too, where it comes again after so many bytes of the segment without it: a reader passes over
/// those. Twice as many with each [`ABSENCES`] of such marks, so that the index stays small whatever the segment has.
const ABSENCE: u64 = 64 << 10;
const ABSENCES: u32 = 4096;

/// What the index files are now. Version 1 has marks without an end, none where a partition comes again.
const VERSION: u32 = 2;

/// One segment's index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// By partition.
    pub partitions: BTreeMap<PartitionId, Place>,
    /// Where the last frame stands, and its checksum.
    pub last: (u64, u32),
    /// Where the frames end.
    pub end: u64,
    /// Marks where a partition came again.
    absences: u32,
    /// It was read from a file of version 1.
    is_old: bool,
    /// When frames were written, in the order of the file. Empty in a file of version 1: it is not known.
    pub times: Vec<Written>,
}

/// When the frames of a part of a segment were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where the part begins in the file; it ends where the next one begins.
    pub at: u64,
    /// The earliest time of a frame in it: nanoseconds since the epoch.
    pub earliest: u64,
}

/// One partition in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The first offset.
    pub first: u64,
    /// The offset after the last one.
    pub end: u64,
    /// How many records.
    pub records: u64,
    /// How many bytes of records.
    pub bytes: u64,
    /// The latest time of a record here.
    pub latest: u64,
    /// Where offsets leave many out, as they do behind a crash.
    pub jumps: Vec<Jump>,
    /// Sparse, in order: each begins a stretch of frames.
    pub marks: Vec<Mark>,
    since: u64,
}

/// Offsets that no record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// The first of them.
    pub from: u64,
    /// The offset after the last of them.
    pub to: u64,
    /// How many records of the segment stand before.
    pub records: u64,
}

/// So many offsets left out are noted, and no more of such places.
const WIDE: u64 = 64;
const MOST_JUMPS: usize = 256;

impl Place {
    /// How many records have these offsets; too many, never too few, where small numbers of offsets are left out.
    pub fn records_in(&self, offsets: &Range<u64>) -> u64 {
        let last = Jump { from: self.end, to: self.end, records: self.records };
        let (mut begin, mut before, mut count) = (self.first, 0, 0);
        for jump in self.jumps.iter().chain([&last]) {
            let overlap = jump.from.min(offsets.end).saturating_sub(begin.max(offsets.start));
            count += overlap.min(jump.records.saturating_sub(before));
            (begin, before) = (jump.to, jump.records);
        }
        count
    }
}

/// A stretch of frames: it begins and ends with one that has records of the partition, and none stand between two stretches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The first offset in the frame.
    pub offset: u64,
    /// Where in the file the stretch begins.
    pub at: u64,
    /// Where in the file it ends.
    pub until: u64,
    /// All records before have times up to this.
    pub latest_before: u64,
}

impl Index {
    /// Takes note of a frame at `at` that ends at `end` and was written at `time`.
    pub fn frame(&mut self, at: u64, end: u64, checksum: u32, time: u64) {
        (self.last, self.end) = ((at, checksum), end);
        match self.times.last_mut() {
            Some(part) if at - part.at < TIMES => part.earliest = part.earliest.min(time),
            _ => self.times.push(Written { at, earliest: time }),
        }
    }

    /// Takes note of an entry of the frame from `at` to `end`, written at `time`.
    pub fn entry(&mut self, at: u64, end: u64, time: u64, entry: &Entry<'_>) {
        if let Entry::Run(run) = entry {
            self.run(at, end, time, run);
        }
    }

    fn run(&mut self, at: u64, end: u64, time: u64, run: &Run<'_>) {
        let place = self.partitions.entry(run.partition).or_insert_with(|| Place {
            first: run.first,
            end: run.first,
            records: 0,
            bytes: 0,
            latest: 0,
            jumps: Vec::new(),
            marks: Vec::new(),
            since: STRIDE,
        });
        let absence = ABSENCE.saturating_mul(1 << (self.absences / ABSENCES).min(32));
        let was_absent = place.marks.last().is_some_and(|last| at > last.until && at - last.until >= absence);
        if place.since >= STRIDE || was_absent {
            self.absences += u32::from(was_absent);
            place.marks.push(Mark { offset: run.first, at, until: end, latest_before: place.latest });
            place.since = 0;
        }
        if let Some(last) = place.marks.last_mut() {
            last.until = end;
        }
        place.since += run.bytes();
        if run.first >= place.end + WIDE && place.jumps.len() < MOST_JUMPS {
            place.jumps.push(Jump { from: place.end, to: run.first, records: place.records });
        }
        place.end = run.end();
        place.records += u64::from(run.count);
        place.bytes += run.bytes();
        let latest = if run.timed() { run.records().filter_map(|record| record.time).max() } else { Some(time) };
        place.latest = place.latest.max(latest.unwrap_or(0));
    }

    /// Where to read for records of a partition from `offset` on, in frames at or behind `from`: where the next stretch of
    /// such frames begins, or goes on, and where it ends. None if there is none.
    pub fn seek(&self, partition: PartitionId, offset: u64, from: u64) -> Option<(u64, u64)> {
        let place = self.partitions.get(&partition).filter(|place| place.end > offset)?;
        let after = place.marks.partition_point(|mark| mark.offset <= offset);
        let mut left = place.marks[after.saturating_sub(1)..].iter();
        left.find(|mark| mark.until > from).map(|mark| (mark.at.max(from), mark.until))
    }

    /// The mark to begin at to find the first record whose time is at or after `time`.
    pub fn seek_time(&self, partition: PartitionId, time: u64) -> Option<Mark> {
        let place = self.partitions.get(&partition)?;
        let after = place.marks.partition_point(|mark| mark.latest_before < time);
        place.marks.get(after.saturating_sub(1)).copied()
    }

    /// Whether it is not what the frames say, which `rebuilt` was made from.
    pub fn is_stale(&self, rebuilt: &Self, id: &JournalId, number: u64) -> bool {
        let as_old = |rebuilt: &Self| {
            let mut rebuilt = rebuilt.clone();
            rebuilt.partitions.values_mut().for_each(|place| (place.marks, place.jumps) = (Vec::new(), Vec::new()));
            rebuilt.times.clear();
            rebuilt
        };
        if self.is_old {
            return as_old(self).encode(id, number, 0) != as_old(rebuilt).encode(id, number, 0);
        }
        self.encode(id, number, 0) != rebuilt.encode(id, number, 0)
    }

    /// The bytes of the index of segment `number`, whose header has the checksum `header`.
    pub fn encode(&self, id: &JournalId, number: u64, header: u32) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(id);
        let (at, checksum) = self.last;
        [number, at, self.end].iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        [header, checksum, self.partitions.len() as u32].iter().for_each(|word| out.extend(word.to_le_bytes()));
        for (partition, place) in &self.partitions {
            let marks = place.marks.len() as u32;
            [partition.topic, partition.partition, marks].iter().for_each(|word| out.extend(word.to_le_bytes()));
            let words = [place.first, place.end, place.records, place.bytes, place.latest];
            words.iter().for_each(|word| out.extend(word.to_le_bytes()));
            for mark in &place.marks {
                [mark.offset, mark.at, mark.until, mark.latest_before]
                    .iter()
                    .for_each(|word| out.extend(word.to_le_bytes()));
            }
        }
        for place in self.partitions.values() {
            out.extend((place.jumps.len() as u32).to_le_bytes());
            for jump in &place.jumps {
                [jump.from, jump.to, jump.records].iter().for_each(|word| out.extend(word.to_le_bytes()));
            }
        }
        out.extend((self.times.len() as u32).to_le_bytes());
        for part in &self.times {
            [part.at, part.earliest].iter().for_each(|word| out.extend(word.to_le_bytes()));
        }
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Bytes that the index of a segment of `file` bytes may have: a file with more is none. Packed, a run may take much less
    /// in the segment than here.
    pub fn most(file: u64) -> u64 {
        file.saturating_mul(256).min(64 << 20)
    }

    /// Whether these are numbers that a segment has, which no checksum says.
    fn is_sane(&self) -> bool {
        let within = |at: u64| (SEGMENT_HEAD..self.end).contains(&at);
        let place = |place: &Place| {
            let stretch = |mark: &Mark| within(mark.at) && mark.at < mark.until && mark.until <= self.end;
            let marks = place.marks.iter().all(stretch) && place.marks.is_sorted_by_key(|mark| mark.offset);
            place.first <= place.end
                && place.end <= MAX_POSITION
                && place.records <= MOST.min(place.end - place.first)
                && place.bytes <= MOST
                && !place.marks.is_empty()
                && marks
                && place.jumps.iter().all(|jump| {
                    (place.first..=jump.to).contains(&jump.from)
                        && jump.to <= place.end
                        && jump.records <= place.records
                })
        };
        let times = self.times.iter().all(|part| within(part.at)) && self.times.is_sorted_by_key(|part| part.at);
        times && self.end <= MAX_SEGMENT && within(self.last.0) && self.partitions.values().all(place)
    }

    /// Reads an index back, if it is the one of that segment.
    ///
    /// # Errors
    /// It is damaged, or another segment's.
    pub fn decode(bytes: &[u8], id: &JournalId, number: u64, header: u32) -> Result<Self, Malformed> {
        let (index, tied) = Self::read(bytes, id, number)?;
        if tied == header { Ok(index) } else { Err(Malformed::Stranger) }
    }

    /// Reads an index of a segment whose header may be gone.
    pub fn decode_untied(bytes: &[u8], id: &JournalId, number: u64) -> Result<Self, Malformed> {
        Ok(Self::read(bytes, id, number)?.0)
    }

    /// The index, and the checksum of the header that it was made for.
    fn read(bytes: &[u8], id: &JournalId, number: u64) -> Result<(Self, u32), Malformed> {
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(Malformed::Short)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
            return Err(Malformed::Checksum);
        }
        let mut left = Words(body);
        let (is_index, version) = (left.bytes(8)? == MAGIC, left.u32()?);
        let ours = is_index && (1..=VERSION).contains(&version) && left.bytes(16)? == id;
        if !ours || left.u64()? != number {
            return Err(Malformed::Stranger);
        }
        let is_old = version == 1;
        let (at, end) = (left.u64()?, left.u64()?);
        let header = left.u32()?;
        let mut index = Self { last: (at, left.u32()?), end, is_old, ..Self::default() };
        for _ in 0..left.u32()? {
            let partition = PartitionId { topic: left.u32()?, partition: left.u32()? };
            let marks = left.u32()?;
            let mut place = Place {
                first: left.u64()?,
                end: left.u64()?,
                records: left.u64()?,
                bytes: left.u64()?,
                latest: left.u64()?,
                jumps: Vec::new(),
                marks: Vec::new(),
                since: 0,
            };
            for _ in 0..marks {
                let (offset, at) = (left.u64()?, left.u64()?);
                // Without an end, a stretch goes on to the next one.
                let until = if is_old { end } else { left.u64()? };
                if let Some(last) = place.marks.last_mut().filter(|_| is_old) {
                    last.until = at;
                }
                place.marks.push(Mark { offset, at, until, latest_before: left.u64()? });
            }
            index.partitions.insert(partition, place);
        }
        if version > 1 {
            for place in index.partitions.values_mut() {
                for _ in 0..left.u32()? {
                    place.jumps.push(Jump { from: left.u64()?, to: left.u64()?, records: left.u64()? });
                }
            }
            for _ in 0..left.u32()? {
                index.times.push(Written { at: left.u64()?, earliest: left.u64()? });
            }
        }
        if index.is_sane() { Ok((index, header)) } else { Err(Malformed::Length) }
    }
}

const MAGIC: &[u8] = b"SLIPINDX";

struct Words<'b>(&'b [u8]);

impl<'b> Words<'b> {
    fn bytes(&mut self, len: usize) -> Result<&'b [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.bytes(4)?.try_into().map_err(|_| Malformed::Short)?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.bytes(8)?.try_into().map_err(|_| Malformed::Short)?))
    }
}
