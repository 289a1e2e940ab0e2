//! The headers of segments and frames, and the compression of payloads.

use super::ids::JournalId;
use super::layout::{ALIGN, FRAME_HEADER, MAJOR, MAX_PAYLOAD, MAX_POSITION, MAX_SEGMENT, aligned};
use super::malformed::Malformed;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const SEGMENT_MAGIC: [u8; 8] = *b"SLIPRING";
const FRAME_MAGIC: [u8; 4] = *b"FRAM";

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

/// The header of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The format version of the segment.
    pub version: u16,
    /// The id of the journal.
    pub id: JournalId,
    /// The segment's number, which is also the file's name. The first segment has number 1.
    pub number: u64,
    /// The journal position of the file's first byte.
    pub first: u64,
    /// The largest size of the file, in bytes. The next segment's first position is `first + size`.
    pub size: u64,
    /// The incarnation (the number of an opening) of the opening that created the segment.
    pub incarnation: u32,
    /// True if a repair has put this segment, which has no frames, in the place of a lost one.
    pub lost: bool,
}

const LOST: u32 = 1;

impl SegmentHeader {
    /// Encodes the header with its checksum.
    pub fn encode(&self) -> [u8; 64] {
        let mut raw = RawSegment {
            magic: SEGMENT_MAGIC,
            major: U16::new(self.version),
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

    /// Decodes a segment header.
    ///
    /// # Errors
    /// The bytes are no segment header, the checksum does not match, a newer program wrote it, or a number exceeds the
    /// format's limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (raw, _) = RawSegment::read_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
        if raw.magic != SEGMENT_MAGIC {
            return Err(Malformed::Magic);
        }
        if raw.checksum.get() != crc32c::crc32c(&bytes[..60]) {
            return Err(Malformed::Checksum);
        }
        let version = raw.major.get();
        if !(1..=MAJOR).contains(&version) {
            return Err(Malformed::Version(version));
        }
        let unknown = raw.flags.get() & !LOST;
        if unknown != 0 {
            return Err(Malformed::Reserved(unknown));
        }
        let header = Self {
            version,
            id: raw.id,
            number: raw.number.get(),
            first: raw.first.get(),
            size: raw.size.get(),
            incarnation: raw.incarnation.get(),
            lost: raw.flags.get() & LOST != 0,
        };
        if header.is_sane() { Ok(header) } else { Err(Malformed::Length) }
    }

    /// True if the numbers are within the format's limits. A matching checksum does not imply that: another program may
    /// have computed it.
    pub(crate) fn is_sane(&self) -> bool {
        let most = if self.lost { MAX_POSITION } else { MAX_SEGMENT };
        self.size.is_multiple_of(ALIGN)
            && self.size <= most
            && self.first <= MAX_POSITION - self.size
            && (1..MAX_POSITION).contains(&self.number)
    }

    /// The header's checksum: the CRC-32C of its other bytes.
    pub fn checksum(&self) -> u32 {
        crc32c::crc32c(&self.encode()[..60])
    }
}

/// The kind of a frame's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Records and changes of the state.
    Data,
    /// A part of the snapshot at the head of a segment: the state that must outlive older segments.
    Snapshot {
        /// True for the first part.
        first: bool,
        /// True for the last part.
        last: bool,
    },
    /// No payload. Only the durable mark in its header matters.
    Mark,
    /// Damaged bytes that a repair has covered. The chain of frame checksums restarts after it.
    Gap,
}

/// The compression of a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// No compression.
    #[default]
    Plain,
    /// LZ4: faster, compresses less.
    Lz4,
    /// Zstandard: slower, compresses more. Needs the feature `zstd`.
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

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The kind of the frame's content.
    pub kind: FrameKind,
    /// The compression of the payload.
    pub codec: Codec,
    /// Size of the stored payload, in bytes; for a gap, of the damaged bytes after this header.
    pub stored: u32,
    /// Size of the decompressed payload, in bytes.
    pub raw: u32,
    /// The journal position of the frame's first byte.
    pub position: u64,
    /// The durable mark: all frames below this position were durable when the frame was written.
    pub durable: u64,
    /// The time at which the frame was written, in nanoseconds since the epoch.
    pub time: u64,
    /// The incarnation (the number of an opening) of the opening that wrote the frame.
    pub incarnation: u32,
    /// Count of the entries in the payload.
    pub entries: u32,
    /// The header checksum of the frame before this one.
    pub previous: u32,
    /// The CRC-32C of the stored payload.
    pub payload: u32,
}

impl FrameHeader {
    /// Encodes the header. Returns its bytes, and its checksum, which the next frame states as `previous`.
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

    /// Decodes the header of a frame of journal `id` that must stand at journal position `position`. Returns it with
    /// its checksum.
    ///
    /// # Errors
    /// The bytes are no frame header, the checksum does not match, the frame belongs to another position, a newer
    /// program wrote it, or a length exceeds the format's limits.
    pub fn decode(id: &JournalId, position: u64, bytes: &[u8]) -> Result<(Self, u32), Malformed> {
        let (raw, _) = RawFrame::read_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
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
        if raw.reserved.get() != 0 {
            return Err(Malformed::Reserved(raw.reserved.get()));
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
        // A gap covers damage, which may be longer than any frame.
        let gap = kind == FrameKind::Gap;
        if !gap && (stored as usize > MAX_PAYLOAD || unpacked as usize > MAX_PAYLOAD) {
            return Err(Malformed::Length);
        }
        if raw.durable.get() > MAX_POSITION {
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

    /// True if `stored` has the length and the checksum that the header states for its payload.
    pub fn payload_matches(&self, stored: &[u8]) -> bool {
        stored.len() == self.stored as usize && crc32c::crc32c(stored) == self.payload
    }

    /// Distance from the beginning of this frame to the beginning of the next, in bytes.
    pub fn span(&self) -> u64 {
        aligned(FRAME_HEADER as u64 + u64::from(self.stored))
    }
}

pub(super) fn frame_checksum(id: &JournalId, header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(id), &header[..60])
}

/// Compresses a payload. `None` for [`Codec::Plain`], if the result is not smaller, or if the build lacks the codec.
pub fn compress(codec: Codec, plain: &[u8]) -> Option<Vec<u8>> {
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

/// Decompresses a payload whose checksum matched.
///
/// # Errors
/// The result does not have `raw` bytes, or the build lacks the codec.
pub fn decompress(codec: Codec, stored: &[u8], raw: usize) -> Result<Vec<u8>, Malformed> {
    let plain = match codec {
        Codec::Plain => stored.to_vec(),
        Codec::Lz4 => lz4_flex::block::decompress(stored, raw).map_err(|_| Malformed::Compression)?,
        #[cfg(feature = "zstd")]
        Codec::Zstd => zstd::bulk::decompress(stored, raw).map_err(|_| Malformed::Compression)?,
        #[cfg(not(feature = "zstd"))]
        Codec::Zstd => return Err(Malformed::NoZstd),
    };
    if plain.len() == raw { Ok(plain) } else { Err(Malformed::Compression) }
}

const _: () = {
    assert!(size_of::<RawSegment>() == 64);
    assert!(size_of::<RawFrame>() == FRAME_HEADER);
};
