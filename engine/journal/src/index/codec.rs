//! The bytes of an index file. `docs/JOURNAL_FORMAT.md` draws them.

use super::{Index, IndexEntry, Jump, PartitionIndex, TimeEntry};
use crate::format::{JournalId, MAX_POSITION, MAX_SEGMENT, Malformed, PartitionId, SEGMENT_HEAD};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"SLIPINDX";

/// The version that this program writes. Indexes of version 1 have no ends of stretches, no stretch that begins after
/// an absence of the partition, no jumps and no times.
const VERSION: u32 = 2;

/// An upper limit for a segment's records and for their size in bytes, however well they compress.
const MAX_COUNT: u64 = 1 << 44;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIndexHeader {
    magic: [u8; 8],
    version: U32,
    id: JournalId,
    segment: U64,
    last_at: U64,
    end: U64,
    segment_checksum: U32,
    last_checksum: U32,
    partitions: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPartitionIndex {
    topic: U32,
    partition: U32,
    entries: U32,
    first: U64,
    end: U64,
    records: U64,
    bytes: U64,
    latest: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIndexEntry {
    offset: U64,
    at: U64,
    until: U64,
    latest_before: U64,
}

/// An index entry of version 1.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIndexEntry1 {
    offset: U64,
    at: U64,
    latest_before: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawJump {
    from: U64,
    to: U64,
    records: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawTimeEntry {
    at: U64,
    earliest: U64,
}

impl Index {
    /// Encodes the index of segment `number`, whose header has the checksum `header`.
    pub fn encode(&self, id: &JournalId, number: u64, header: u32) -> Vec<u8> {
        let (at, checksum) = self.last;
        let raw = RawIndexHeader {
            magic: MAGIC,
            version: U32::new(VERSION),
            id: *id,
            segment: U64::new(number),
            last_at: U64::new(at),
            end: U64::new(self.end),
            segment_checksum: U32::new(header),
            last_checksum: U32::new(checksum),
            partitions: U32::new(self.partitions.len() as u32),
        };
        let mut out = raw.as_bytes().to_vec();
        for (id, partition) in &self.partitions {
            let raw = RawPartitionIndex {
                topic: U32::new(id.topic),
                partition: U32::new(id.partition),
                entries: U32::new(partition.entries.len() as u32),
                first: U64::new(partition.first),
                end: U64::new(partition.end),
                records: U64::new(partition.records),
                bytes: U64::new(partition.bytes),
                latest: U64::new(partition.latest),
            };
            out.extend_from_slice(raw.as_bytes());
            for IndexEntry { offset, at, until, latest_before } in &partition.entries {
                let [offset, at, until, latest_before] = [offset, at, until, latest_before].map(|word| U64::new(*word));
                out.extend_from_slice(RawIndexEntry { offset, at, until, latest_before }.as_bytes());
            }
        }
        for PartitionIndex { jumps, .. } in self.partitions.values() {
            out.extend((jumps.len() as u32).to_le_bytes());
            for Jump { from, to, records } in jumps {
                let [from, to, records] = [from, to, records].map(|word| U64::new(*word));
                out.extend_from_slice(RawJump { from, to, records }.as_bytes());
            }
        }
        out.extend((self.times.len() as u32).to_le_bytes());
        for TimeEntry { at, earliest } in &self.times {
            let [at, earliest] = [at, earliest].map(|word| U64::new(*word));
            out.extend_from_slice(RawTimeEntry { at, earliest }.as_bytes());
        }
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Decodes the index of segment `number`, whose header has the checksum `header`.
    ///
    /// # Errors
    /// The bytes are damaged, or belong to another segment's index.
    pub fn decode(bytes: &[u8], id: &JournalId, number: u64, header: u32) -> Result<Self, Malformed> {
        let (index, tied) = Self::read(bytes, id, number)?;
        if tied == header { Ok(index) } else { Err(Malformed::OtherJournal) }
    }

    /// Decodes the index of segment `number` without checking the segment's header, which may be lost.
    pub fn decode_untied(bytes: &[u8], id: &JournalId, number: u64) -> Result<Self, Malformed> {
        Ok(Self::read(bytes, id, number)?.0)
    }

    /// Decodes an index, and returns it with the checksum of the segment header for which it was made.
    fn read(bytes: &[u8], id: &JournalId, number: u64) -> Result<(Self, u32), Malformed> {
        let (mut left, checksum) = bytes.split_last_chunk::<4>().ok_or(Malformed::Truncated)?;
        if crc32c::crc32c(left) != u32::from_le_bytes(*checksum) {
            return Err(Malformed::Checksum);
        }
        let header: RawIndexHeader = take(&mut left)?;
        let version = header.version.get();
        let is_ours = header.magic == MAGIC && (1..=VERSION).contains(&version) && header.id == *id;
        if !is_ours || header.segment.get() != number {
            return Err(Malformed::OtherJournal);
        }
        let (is_old, end) = (version == 1, header.end.get());
        let last = (header.last_at.get(), header.last_checksum.get());
        let mut index = Self { last, end, is_old, ..Self::default() };
        for _ in 0..header.partitions.get() {
            let raw: RawPartitionIndex = take(&mut left)?;
            let count = raw.entries.get();
            let entries = if is_old {
                entries_of_version_1(take_slice(&mut left, count)?, end)
            } else {
                let entry = |RawIndexEntry { offset, at, until, latest_before }: &RawIndexEntry| IndexEntry {
                    offset: offset.get(),
                    at: at.get(),
                    until: until.get(),
                    latest_before: latest_before.get(),
                };
                take_slice(&mut left, count)?.iter().map(entry).collect()
            };
            let partition = PartitionIndex {
                first: raw.first.get(),
                end: raw.end.get(),
                records: raw.records.get(),
                bytes: raw.bytes.get(),
                latest: raw.latest.get(),
                jumps: Vec::new(),
                entries,
                since: 0,
            };
            index.partitions.insert(PartitionId { topic: raw.topic.get(), partition: raw.partition.get() }, partition);
        }
        if !is_old {
            for partition in index.partitions.values_mut() {
                let count = take::<U32>(&mut left)?.get();
                let jump = |RawJump { from, to, records }: &RawJump| Jump {
                    from: from.get(),
                    to: to.get(),
                    records: records.get(),
                };
                partition.jumps = take_slice(&mut left, count)?.iter().map(jump).collect();
            }
            let count = take::<U32>(&mut left)?.get();
            let time =
                |RawTimeEntry { at, earliest }: &RawTimeEntry| TimeEntry { at: at.get(), earliest: earliest.get() };
            index.times = take_slice(&mut left, count)?.iter().map(time).collect();
        }
        if index.is_sane() { Ok((index, header.segment_checksum.get())) } else { Err(Malformed::Length) }
    }

    /// True if the numbers are within the limits of a segment. A matching checksum does not imply that: another program
    /// may have computed it.
    fn is_sane(&self) -> bool {
        let within = |at: u64| (SEGMENT_HEAD..self.end).contains(&at);
        let partition = |partition: &PartitionIndex| {
            let PartitionIndex { first, end, records, bytes, jumps, entries, .. } = partition;
            let stretch = |entry: &IndexEntry| within(entry.at) && entry.at < entry.until && entry.until <= self.end;
            first <= end
                && *end <= MAX_POSITION
                && *records <= MAX_COUNT.min(end - first)
                && *bytes <= MAX_COUNT
                && !entries.is_empty()
                && entries.iter().all(stretch)
                && entries.is_sorted_by_key(|entry| entry.offset)
                && jumps
                    .iter()
                    .all(|jump| (*first..=jump.to).contains(&jump.from) && jump.to <= *end && jump.records <= *records)
        };
        let times = self.times.iter().all(|part| within(part.at)) && self.times.is_sorted_by_key(|part| part.at);
        times && self.end <= MAX_SEGMENT && within(self.last.0) && self.partitions.values().all(partition)
    }
}

/// Converts entries of version 1, which state no ends: a stretch ends where the next one begins, the last one at the
/// end of the frames.
fn entries_of_version_1(raw: &[RawIndexEntry1], end: u64) -> Vec<IndexEntry> {
    let ends = raw.iter().skip(1).map(|next| next.at.get()).chain([end]);
    let entry = |(RawIndexEntry1 { offset, at, latest_before }, until): (&RawIndexEntry1, u64)| IndexEntry {
        offset: offset.get(),
        at: at.get(),
        until,
        latest_before: latest_before.get(),
    };
    raw.iter().zip(ends).map(entry).collect()
}

fn take<T: FromBytes>(left: &mut &[u8]) -> Result<T, Malformed> {
    let (taken, rest) = T::read_from_prefix(left).map_err(|_| Malformed::Truncated)?;
    *left = rest;
    Ok(taken)
}

fn take_slice<'b, T: FromBytes + Immutable + KnownLayout + Unaligned>(
    left: &mut &'b [u8],
    count: u32,
) -> Result<&'b [T], Malformed> {
    let (taken, rest) = <[T]>::ref_from_prefix_with_elems(left, count as usize).map_err(|_| Malformed::Truncated)?;
    *left = rest;
    Ok(taken)
}

const _: () = {
    assert!(size_of::<RawIndexHeader>() == 64);
    assert!(size_of::<RawPartitionIndex>() == 52);
};
