//! The bytes: segment headers, frames, and the entries in a frame. `docs/JOURNAL_FORMAT.md` draws them to scale.
//!
//! A length is believed only after the checksum that covers it. All numbers are little-endian.

use super::error::Malformed;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What this version writes, and the newest that it reads.
pub const MAJOR: u16 = 1;
/// Frames begin at multiples of it, so that they are found again behind damage.
pub const ALIGN: u64 = 64;
/// Where the first frame of a segment begins: the header has a sector of its own, which is written once.
pub const SEGMENT_HEAD: u64 = 512;
/// Bytes of a frame's header.
pub const FRAME_HEADER: usize = 64;
/// No frame's payload is larger, packed or not.
pub const MAX_PAYLOAD: usize = 64 << 20;

const SEGMENT_MAGIC: [u8; 8] = *b"SLIPRING";
const FRAME_MAGIC: [u8; 4] = *b"FRAM";

/// Sixteen random bytes that every checksum of a journal begins with, so that a stranger's bytes never pass.
pub type JournalId = [u8; 16];

/// The next multiple of [`ALIGN`].
pub fn aligned(len: u64) -> u64 {
    len.next_multiple_of(ALIGN)
}

/// A partition of a topic, by the topic's number in the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The topic.
    pub topic: u32,
    /// The partition in it.
    pub partition: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSegment {
    magic: [u8; 8],
    major: U16,
    minor: U16,
    flags: U32,
    id: JournalId,
    number: U64,
    first: U64,
    size: U64,
    incarnation: U32,
    checksum: U32,
}

/// The head of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The journal that it belongs to.
    pub id: JournalId,
    /// Counted from 1; the file's name.
    pub number: u64,
    /// The position of the file's first byte.
    pub first: u64,
    /// Bytes that the file may have: the next segment's first position is `first + size`.
    pub size: u64,
    /// Of the opening that made it.
    pub incarnation: u32,
    /// A repair put it in the place of a segment that was lost: it has no frames.
    pub lost: bool,
}

const LOST: u32 = 1;

impl SegmentHeader {
    /// The bytes of the header, with its checksum.
    pub fn encode(&self) -> [u8; 64] {
        let mut raw = RawSegment {
            magic: SEGMENT_MAGIC,
            major: U16::new(MAJOR),
            minor: U16::new(0),
            flags: U32::new(if self.lost { LOST } else { 0 }),
            id: self.id,
            number: U64::new(self.number),
            first: U64::new(self.first),
            size: U64::new(self.size),
            incarnation: U32::new(self.incarnation),
            checksum: U32::new(0),
        };
        raw.checksum = U32::new(crc32c::crc32c(&raw.as_bytes()[..60]));
        let mut bytes = [0; 64];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Not a segment, a checksum that does not match, or a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (raw, _) = RawSegment::read_from_prefix(bytes).map_err(|_| Malformed::Short)?;
        if raw.magic != SEGMENT_MAGIC {
            return Err(Malformed::Magic);
        }
        if raw.checksum.get() != crc32c::crc32c(&bytes[..60]) {
            return Err(Malformed::Checksum);
        }
        if raw.major.get() != MAJOR {
            return Err(Malformed::Version(raw.major.get()));
        }
        let header = Self {
            id: raw.id,
            number: raw.number.get(),
            first: raw.first.get(),
            size: raw.size.get(),
            incarnation: raw.incarnation.get(),
            lost: raw.flags.get() & LOST != 0,
        };
        let sane = header.size.is_multiple_of(ALIGN) && header.first.checked_add(header.size).is_some();
        if sane { Ok(header) } else { Err(Malformed::Length) }
    }

    /// The checksum that the header carries.
    pub fn checksum(&self) -> u32 {
        crc32c::crc32c(&self.encode()[..60])
    }
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Records and changes of state, all or none.
    Data,
    /// A part of what must outlive elder segments.
    Snapshot {
        /// The first part.
        first: bool,
        /// The last part.
        last: bool,
    },
    /// Nothing but the durable mark.
    Mark,
    /// A repair put it where damage was. The chain of checksums begins anew behind it.
    Gap,
}

/// How the payload is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// Not at all.
    #[default]
    Plain,
    /// LZ4, fast.
    Lz4,
    /// Zstandard, small; behind the feature `zstd`.
    Zstd,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFrame {
    magic: [u8; 4],
    version: u8,
    kind: u8,
    codec: u8,
    flags: u8,
    stored: U32,
    raw: U32,
    position: U64,
    durable: U64,
    time: U64,
    incarnation: U32,
    entries: U32,
    previous: U32,
    payload: U32,
    reserved: U32,
    checksum: U32,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it is for.
    pub kind: FrameKind,
    /// How the payload is packed.
    pub codec: Codec,
    /// Bytes of the payload as it is stored.
    pub stored: u32,
    /// Bytes of the payload when unpacked.
    pub raw: u32,
    /// The position of its first byte.
    pub position: u64,
    /// All below was durable when this was written.
    pub durable: u64,
    /// When it was written: nanoseconds since the epoch.
    pub time: u64,
    /// Of the opening that wrote it.
    pub incarnation: u32,
    /// How many entries the payload has.
    pub entries: u32,
    /// The checksum of the frame before.
    pub previous: u32,
    /// The checksum of the payload as it is stored.
    pub payload: u32,
}

impl FrameHeader {
    /// The bytes of the header, with its checksum; that again, for the next frame.
    pub fn encode(&self, id: &JournalId) -> ([u8; FRAME_HEADER], u32) {
        let (kind, flags) = match self.kind {
            FrameKind::Data => (1, 0),
            FrameKind::Snapshot { first, last } => (2, u8::from(first) | u8::from(last) << 1),
            FrameKind::Mark => (3, 0),
            FrameKind::Gap => (4, 0),
        };
        let codec = match self.codec {
            Codec::Plain => 0,
            Codec::Lz4 => 1,
            Codec::Zstd => 2,
        };
        let raw = RawFrame {
            magic: FRAME_MAGIC,
            version: 1,
            kind,
            codec,
            flags,
            stored: U32::new(self.stored),
            raw: U32::new(self.raw),
            position: U64::new(self.position),
            durable: U64::new(self.durable),
            time: U64::new(self.time),
            incarnation: U32::new(self.incarnation),
            entries: U32::new(self.entries),
            previous: U32::new(self.previous),
            payload: U32::new(self.payload),
            reserved: U32::new(0),
            checksum: U32::new(0),
        };
        let mut bytes = [0; FRAME_HEADER];
        bytes.copy_from_slice(raw.as_bytes());
        let checksum = frame_checksum(id, &bytes);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        (bytes, checksum)
    }

    /// Reads a header of journal `id` that must stand at `position`; its checksum comes with it.
    ///
    /// # Errors
    /// No frame, a checksum that does not match, another place or version, or lengths that no frame has.
    pub fn decode(id: &JournalId, position: u64, bytes: &[u8]) -> Result<(Self, u32), Malformed> {
        let (raw, _) = RawFrame::read_from_prefix(bytes).map_err(|_| Malformed::Short)?;
        if raw.magic != FRAME_MAGIC {
            return Err(Malformed::Magic);
        }
        let checksum = frame_checksum(id, &bytes[..FRAME_HEADER]);
        if raw.checksum.get() != checksum {
            return Err(Malformed::Checksum);
        }
        if raw.version != 1 {
            return Err(Malformed::Version(raw.version.into()));
        }
        if raw.position.get() != position {
            return Err(Malformed::Position(raw.position.get()));
        }
        let kind = match (raw.kind, raw.flags) {
            (1, 0) => FrameKind::Data,
            (2, flags) if flags < 4 => FrameKind::Snapshot { first: flags & 1 != 0, last: flags & 2 != 0 },
            (3, 0) => FrameKind::Mark,
            (4, 0) => FrameKind::Gap,
            (kind, _) => return Err(Malformed::Kind(kind)),
        };
        let codec = match raw.codec {
            0 => Codec::Plain,
            1 => Codec::Lz4,
            2 => Codec::Zstd,
            codec => return Err(Malformed::Codec(codec)),
        };
        let (stored, unpacked) = (raw.stored.get(), raw.raw.get());
        // A gap spans what was damaged, which may be more than any frame.
        let gap = kind == FrameKind::Gap;
        if !gap && (stored as usize > MAX_PAYLOAD || unpacked as usize > MAX_PAYLOAD) {
            return Err(Malformed::Length);
        }
        let header = Self {
            kind,
            codec,
            stored,
            raw: unpacked,
            position,
            durable: raw.durable.get(),
            time: raw.time.get(),
            incarnation: raw.incarnation.get(),
            entries: raw.entries.get(),
            previous: raw.previous.get(),
            payload: raw.payload.get(),
        };
        Ok((header, checksum))
    }

    /// Whether `stored` is the payload that the header was written for.
    pub fn payload_matches(&self, stored: &[u8]) -> bool {
        stored.len() == self.stored as usize && crc32c::crc32c(stored) == self.payload
    }

    /// Bytes from this frame's beginning to the next one's.
    pub fn span(&self) -> u64 {
        aligned(FRAME_HEADER as u64 + u64::from(self.stored))
    }
}

fn frame_checksum(id: &JournalId, header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(id), &header[..60])
}

/// Packs a payload; none if that makes it no smaller.
pub fn pack(codec: Codec, plain: &[u8]) -> Option<Vec<u8>> {
    let packed = match codec {
        Codec::Plain => return None,
        Codec::Lz4 => lz4_flex::block::compress(plain),
        #[cfg(feature = "zstd")]
        Codec::Zstd => zstd::bulk::compress(plain, 1).ok()?,
        #[cfg(not(feature = "zstd"))]
        Codec::Zstd => return None,
    };
    (packed.len() < plain.len()).then_some(packed)
}

/// Unpacks a payload whose checksum was seen to match.
///
/// # Errors
/// It is not what its header says, or this build has not the codec.
pub fn unpack(codec: Codec, stored: &[u8], raw: usize) -> Result<Vec<u8>, Malformed> {
    let plain = match codec {
        Codec::Plain => stored.to_vec(),
        Codec::Lz4 => lz4_flex::block::decompress(stored, raw).map_err(|_| Malformed::Packed)?,
        #[cfg(feature = "zstd")]
        Codec::Zstd => zstd::bulk::decompress(stored, raw).map_err(|_| Malformed::Packed)?,
        #[cfg(not(feature = "zstd"))]
        Codec::Zstd => return Err(Malformed::NoZstd),
    };
    if plain.len() == raw { Ok(plain) } else { Err(Malformed::Packed) }
}

/// Where a partition stands: all of its offsets are below `end`, those below `start` are no more, and none at or above
/// `reserved` was ever issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The earliest offset that is kept.
    pub start: u64,
    /// The next offset after the last record.
    pub end: u64,
    /// No offset at or above it was issued.
    pub reserved: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    kind: u8,
    flags: u8,
    what: U16,
    len: U32,
}

const ENTRY: usize = 8;
const RUN: usize = 32;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRun {
    topic: U32,
    partition: U32,
    first: U64,
    count: U32,
    size: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawExtent {
    topic: U32,
    partition: U32,
    start: U64,
    end: U64,
    reserved: U64,
}

const FIXED: u8 = 1;
const TIMED: u8 = 2;

/// Records of one partition with consecutive offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'p> {
    /// Whose they are.
    pub partition: PartitionId,
    /// The first record's offset.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// All are of this size; none if each says its own.
    fixed: Option<u32>,
    timed: bool,
    body: &'p [u8],
}

/// A part of a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'p> {
    /// Records.
    Run(Run<'p>),
    /// A value of state is set.
    Put {
        /// What kind of state: the engine's business.
        what: u16,
        /// Its key.
        key: &'p [u8],
        /// Its value.
        value: &'p [u8],
    },
    /// A value of state is no more.
    Delete {
        /// What kind of state.
        what: u16,
        /// Its key.
        key: &'p [u8],
    },
    /// A partition's extent is set.
    Extent(PartitionId, Extent),
    /// Segments below this number are no more.
    Floor(u64),
}

impl<'p> Run<'p> {
    /// The offset after the last record.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// Where its records lie, whether all have one size, and whether each has a time.
    pub(crate) fn shape(&self) -> (&'p [u8], (Option<u32>, bool)) {
        (self.body, (self.fixed, self.timed))
    }

    /// The records of a run that was looked at before.
    pub(crate) fn shaped(left: &'p [u8], next: u64, count: u32, fixed: Option<u32>, timed: bool) -> Records<'p> {
        Records { left, next, count, fixed, timed }
    }

    /// Bytes of the records, with their lengths and times.
    pub fn bytes(&self) -> u64 {
        self.body.len() as u64
    }

    /// Whether each record has a time of its own.
    pub fn timed(&self) -> bool {
        self.timed
    }

    /// Its records: offset, time, bytes.
    pub fn records(&self) -> Records<'p> {
        Records { left: self.body, next: self.first, count: self.count, fixed: self.fixed, timed: self.timed }
    }
}

/// The records of a [`Run`].
#[derive(Clone, Debug)]
pub struct Records<'p> {
    left: &'p [u8],
    next: u64,
    count: u32,
    fixed: Option<u32>,
    timed: bool,
}

/// A record as it stands in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'p> {
    /// Its offset.
    pub offset: u64,
    /// Its own time, if it has one.
    pub time: Option<u64>,
    /// Its bytes.
    pub bytes: &'p [u8],
}

impl Records<'_> {
    /// Bytes that are still to be given.
    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }
}

fn split<'p>(left: &mut &'p [u8], len: usize) -> Option<&'p [u8]> {
    let (taken, rest) = left.split_at_checked(len)?;
    *left = rest;
    Some(taken)
}

fn split_u64(left: &mut &[u8]) -> Option<u64> {
    split(left, 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn split_u32(left: &mut &[u8]) -> Option<u32> {
    split(left, 4)?.try_into().ok().map(u32::from_le_bytes)
}

impl<'p> Iterator for Records<'p> {
    type Item = Stored<'p>;

    /// Ends early where the body is too short; [`entries`] has made sure that it is not.
    fn next(&mut self) -> Option<Stored<'p>> {
        self.count = self.count.checked_sub(1)?;
        let time = if self.timed { Some(split_u64(&mut self.left)?) } else { None };
        let len = match self.fixed {
            Some(size) => size,
            None => split_u32(&mut self.left)?,
        };
        let bytes = split(&mut self.left, len as usize)?;
        let offset = self.next;
        self.next += 1;
        Some(Stored { offset, time, bytes })
    }
}

/// The entries of a payload whose checksum was seen to match.
///
/// # Errors
/// Each item: a length that leads out of the payload, a kind that nobody knows, a run that is not as long as it says.
pub fn entries(payload: &[u8]) -> Entries<'_> {
    Entries { left: payload }
}

/// See [`entries`].
#[derive(Clone, Debug)]
pub struct Entries<'p> {
    left: &'p [u8],
}

impl<'p> Iterator for Entries<'p> {
    type Item = Result<Entry<'p>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.left = &[];
        }
        Some(entry)
    }
}

impl<'p> Entries<'p> {
    fn entry(&mut self) -> Result<Entry<'p>, Malformed> {
        let head = split(&mut self.left, ENTRY).ok_or(Malformed::Entry)?;
        let head = RawEntry::read_from_bytes(head).map_err(|_| Malformed::Entry)?;
        let mut body = split(&mut self.left, head.len.get() as usize).ok_or(Malformed::Entry)?;
        let what = head.what.get();
        match head.kind {
            1 => run(head.flags, body),
            2 => {
                let len = split_u32(&mut body).ok_or(Malformed::Entry)?;
                let key = split(&mut body, len as usize).ok_or(Malformed::Entry)?;
                Ok(Entry::Put { what, key, value: body })
            }
            3 => Ok(Entry::Delete { what, key: body }),
            4 => {
                let raw = RawExtent::read_from_bytes(body).map_err(|_| Malformed::Entry)?;
                let partition = PartitionId { topic: raw.topic.get(), partition: raw.partition.get() };
                let extent = Extent { start: raw.start.get(), end: raw.end.get(), reserved: raw.reserved.get() };
                Ok(Entry::Extent(partition, extent))
            }
            5 => Ok(Entry::Floor(split_u64(&mut body).ok_or(Malformed::Entry)?)),
            _ => Err(Malformed::Entry),
        }
    }
}

fn run(flags: u8, body: &[u8]) -> Result<Entry<'_>, Malformed> {
    let (raw, body) = RawRun::read_from_prefix(body).map_err(|_| Malformed::Entry)?;
    let fixed = (flags & FIXED != 0).then_some(raw.size.get());
    let run = Run {
        partition: PartitionId { topic: raw.topic.get(), partition: raw.partition.get() },
        first: raw.first.get(),
        count: raw.count.get(),
        fixed,
        timed: flags & TIMED != 0,
        body,
    };
    let whole = match fixed {
        Some(size) => {
            let each = u64::from(size) + if run.timed { 8 } else { 0 };
            u64::from(run.count) * each == body.len() as u64
        }
        None => {
            let mut records = run.records();
            let counted = records.by_ref().count();
            counted == run.count as usize && records.left.is_empty()
        }
    };
    let bounded = run.first.checked_add(u64::from(run.count)).is_some();
    if whole && bounded && run.count > 0 { Ok(Entry::Run(run)) } else { Err(Malformed::Entry) }
}

/// Collects what goes into one frame, all or none.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    payload: Vec<u8>,
    entries: u32,
    open: Option<OpenRun>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OpenRun {
    at: usize,
    partition: PartitionId,
    first: u64,
    count: u32,
    fixed: Option<u32>,
    timed: bool,
}

impl FrameBuilder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Bytes that the payload has so far.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// How many entries it has.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Forgets all, and keeps the memory.
    pub fn clear(&mut self) {
        self.payload.clear();
        self.entries = 0;
        self.open = None;
    }

    /// The finished payload.
    pub fn payload(&mut self) -> &[u8] {
        self.close();
        &self.payload
    }

    /// A record; consecutive ones of a partition share a head.
    pub fn record(&mut self, partition: PartitionId, offset: u64, time: Option<u64>, bytes: &[u8]) {
        self.record_with(partition, offset, time, |out| out.extend_from_slice(bytes));
    }

    /// A record whose bytes are appended by `fill`, which must only append.
    pub fn record_with(
        &mut self,
        partition: PartitionId,
        offset: u64,
        time: Option<u64>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        self.begin(partition, offset, time, None);
        let at = self.payload.len();
        self.payload.extend_from_slice(&[0; 4]);
        fill(&mut self.payload);
        let len = (self.payload.len() - at - 4) as u32;
        self.payload[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// A record of a partition whose records are all of one size, which is then written once a run.
    pub fn fixed(&mut self, partition: PartitionId, offset: u64, time: Option<u64>, bytes: &[u8]) {
        self.begin(partition, offset, time, Some(bytes.len() as u32));
        self.payload.extend_from_slice(bytes);
    }

    /// The same, its `size` bytes appended by `fill`.
    pub(crate) fn fixed_with(
        &mut self,
        partition: PartitionId,
        offset: u64,
        time: Option<u64>,
        size: usize,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        self.begin(partition, offset, time, Some(size as u32));
        fill(&mut self.payload);
    }

    fn begin(&mut self, partition: PartitionId, offset: u64, time: Option<u64>, fixed: Option<u32>) {
        let timed = time.is_some();
        match &mut self.open {
            Some(open)
                if open.partition == partition
                    && open.first + u64::from(open.count) == offset
                    && open.fixed == fixed
                    && open.timed == timed =>
            {
                open.count += 1;
            }
            _ => {
                self.close();
                let at = self.payload.len();
                self.payload.resize(at + RUN, 0);
                self.open = Some(OpenRun { at, partition, first: offset, count: 1, fixed, timed });
                self.entries += 1;
            }
        }
        if let Some(time) = time {
            self.payload.extend_from_slice(&time.to_le_bytes());
        }
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let flags = if open.fixed.is_some() { FIXED } else { 0 } | if open.timed { TIMED } else { 0 };
        let len = self.payload.len() - open.at - ENTRY;
        let head = RawEntry { kind: 1, flags, what: U16::new(0), len: U32::new(len as u32) };
        let run = RawRun {
            topic: U32::new(open.partition.topic),
            partition: U32::new(open.partition.partition),
            first: U64::new(open.first),
            count: U32::new(open.count),
            size: U32::new(open.fixed.unwrap_or(0)),
        };
        self.payload[open.at..open.at + ENTRY].copy_from_slice(head.as_bytes());
        self.payload[open.at + ENTRY..open.at + RUN].copy_from_slice(run.as_bytes());
    }

    fn entry(&mut self, kind: u8, what: u16, parts: &[&[u8]]) {
        self.close();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let head = RawEntry { kind, flags: 0, what: U16::new(what), len: U32::new(len as u32) };
        self.payload.extend_from_slice(head.as_bytes());
        parts.iter().for_each(|part| self.payload.extend_from_slice(part));
        self.entries += 1;
    }

    /// Sets a value of state.
    pub fn put(&mut self, what: u16, key: &[u8], value: &[u8]) {
        self.entry(2, what, &[&(key.len() as u32).to_le_bytes(), key, value]);
    }

    /// Takes a value of state away.
    pub fn delete(&mut self, what: u16, key: &[u8]) {
        self.entry(3, what, &[key]);
    }

    /// Sets where a partition stands.
    pub fn extent(&mut self, partition: PartitionId, extent: Extent) {
        let raw = RawExtent {
            topic: U32::new(partition.topic),
            partition: U32::new(partition.partition),
            start: U64::new(extent.start),
            end: U64::new(extent.end),
            reserved: U64::new(extent.reserved),
        };
        self.entry(4, 0, &[raw.as_bytes()]);
    }

    /// Says that segments below `number` are no more.
    pub fn floor(&mut self, number: u64) {
        self.entry(5, 0, &[&number.to_le_bytes()]);
    }
}

const _: () = {
    assert!(size_of::<RawSegment>() == 64);
    assert!(size_of::<RawFrame>() == FRAME_HEADER);
    assert!(size_of::<RawEntry>() == ENTRY);
    assert!(size_of::<RawEntry>() + size_of::<RawRun>() == RUN);
    assert!(SEGMENT_HEAD.is_multiple_of(ALIGN));
};

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId { topic: 7, partition: 3 };

    #[test]
    fn a_run_ends_where_offsets_partition_or_layout_change() {
        let mut frame = FrameBuilder::new();
        frame.record(P, 5, None, b"a");
        frame.record(P, 6, None, b"bc");
        frame.record(P, 8, None, b"");
        frame.fixed(P, 9, Some(77), b"four");
        frame.fixed(P, 10, Some(78), b"size");
        frame.put(9, b"key", b"value");
        frame.delete(9, b"key");
        frame.extent(P, Extent { start: 1, end: 11, reserved: 100 });
        frame.floor(4);
        assert_eq!(frame.entries(), 7);
        let parsed: Vec<_> = entries(frame.payload()).collect::<Result<_, _>>().unwrap();
        let runs: Vec<Vec<_>> = parsed
            .iter()
            .filter_map(|entry| match entry {
                Entry::Run(run) => Some(run.records().map(|r| (r.offset, r.time, r.bytes)).collect()),
                _ => None,
            })
            .collect();
        assert_eq!(
            runs,
            [
                vec![(5, None, &b"a"[..]), (6, None, b"bc")],
                vec![(8, None, b"")],
                vec![(9, Some(77), b"four"), (10, Some(78), b"size")]
            ]
        );
        assert_eq!(parsed[3], Entry::Put { what: 9, key: b"key", value: b"value" });
        assert_eq!(parsed[4], Entry::Delete { what: 9, key: b"key" });
        assert_eq!(parsed[5], Entry::Extent(P, Extent { start: 1, end: 11, reserved: 100 }));
        assert_eq!(parsed[6], Entry::Floor(4));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let id = [7; 16];
        let header = FrameHeader {
            kind: FrameKind::Snapshot { first: true, last: false },
            codec: Codec::Lz4,
            stored: 100,
            raw: 300,
            position: 640,
            durable: 512,
            time: 9,
            incarnation: 2,
            entries: 3,
            previous: 4,
            payload: 5,
        };
        let (bytes, checksum) = header.encode(&id);
        assert_eq!(FrameHeader::decode(&id, 640, &bytes), Ok((header, checksum)));
        assert_eq!(FrameHeader::decode(&[8; 16], 640, &bytes), Err(Malformed::Checksum));
        assert_eq!(FrameHeader::decode(&id, 704, &bytes), Err(Malformed::Position(640)));
        let segment = SegmentHeader { id, number: 3, first: 8192, size: 4096, incarnation: 2, lost: false };
        assert_eq!(SegmentHeader::decode(&segment.encode()), Ok(segment));
        for bit in 0..512 {
            let (mut frame, mut head) = (bytes, segment.encode());
            frame[bit / 8] ^= 1 << (bit % 8);
            head[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&id, 640, &frame).is_err(), "bit {bit} of a frame");
            assert!(SegmentHeader::decode(&head).is_err(), "bit {bit} of a segment");
        }
    }

    #[test]
    fn packed_payloads_come_back() {
        let plain = b"to be or not to be, or not to be, or to be".repeat(9);
        let packed = pack(Codec::Lz4, &plain).unwrap();
        assert!(packed.len() < plain.len());
        assert_eq!(unpack(Codec::Lz4, &packed, plain.len()).unwrap(), plain);
        assert!(unpack(Codec::Lz4, &packed, plain.len() + 1).is_err());
        assert_eq!(pack(Codec::Lz4, b"x"), None, "would be larger");
        assert_eq!(pack(Codec::Plain, &plain), None);
    }
}
