//! The checkpoint: a file with the journal's id and a durable mark. It survives if segments are missing or damaged.

use crate::error::{DiskError, OpenError};
use crate::files::atomic_file::create_whole;
use crate::files::names::CHECKPOINT;
use crate::format::{JournalId, MAJOR, MAX_POSITION, Malformed};
use crate::storage::{NotOurs, Storage};
use std::io;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"SLIPMARK";

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawCheckpoint {
    magic: [u8; 8],
    version: U32,
    id: JournalId,
    durable: U64,
    incarnation: U32,
    /// CRC-32C of all bytes before this field.
    checksum: U32,
}

const CHECKSUM: usize = size_of::<RawCheckpoint>() - 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub id: JournalId,
    /// All frames below this position were durable when the checkpoint was written.
    pub durable: u64,
    /// The incarnation of the opening that wrote the checkpoint.
    pub incarnation: u32,
}

impl Checkpoint {
    pub fn write(&self, storage: &dyn Storage) -> io::Result<()> {
        let mut raw = RawCheckpoint {
            magic: MAGIC,
            version: U32::new(MAJOR.into()),
            id: self.id,
            durable: U64::new(self.durable),
            incarnation: U32::new(self.incarnation),
            checksum: U32::new(0),
        };
        raw.checksum = U32::new(crc32c::crc32c(&raw.as_bytes()[..CHECKSUM]));
        create_whole(storage, CHECKPOINT, |file| file.write_at(raw.as_bytes(), 0)).map(drop)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let raw = RawCheckpoint::read_from_bytes(bytes).map_err(|_| Malformed::Truncated)?;
        if raw.magic != MAGIC {
            return Err(Malformed::Magic);
        }
        if raw.checksum.get() != crc32c::crc32c(&bytes[..CHECKSUM]) {
            return Err(Malformed::Checksum);
        }
        let version = raw.version.get();
        if !(1..=u32::from(MAJOR)).contains(&version) {
            return Err(Malformed::Version(version as u16));
        }
        let durable = raw.durable.get();
        if durable > MAX_POSITION {
            return Err(Malformed::Length);
        }
        Ok(Self { id: raw.id, durable, incarnation: raw.incarnation.get() })
    }

    /// Reads the checkpoint. `None` if the file is damaged, or if it is no regular file and `strict` is false, because
    /// reading a journal does not need a checkpoint.
    ///
    /// # Errors
    /// The disk fails, or a newer program wrote the checkpoint.
    pub fn read(storage: &dyn Storage, strict: bool) -> Result<Option<Self>, OpenError> {
        let mut bytes = [0; 64];
        let read = match storage.open(CHECKPOINT, false).and_then(|file| file.read_at(&mut bytes, 0)) {
            Err(cause) if !strict && NotOurs::of(&cause).is_some() => return Ok(None),
            read => read.map_err(|cause| DiskError::new("read", CHECKPOINT, &cause))?,
        };
        match Self::decode(&bytes[..read]) {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(Malformed::Version(found)) => Err(OpenError::Newer { file: CHECKPOINT.to_owned(), found }),
            // A damaged checkpoint is no error, because the frames have durable marks as well.
            Err(_) => Ok(None),
        }
    }
}

const _: () = assert!(size_of::<RawCheckpoint>() == 44);
