//! The checkpoint: a durable mark outside of the segments.

use super::atomic_file::finish;
use super::file_names::CHECKPOINT;
use super::format::{JournalId, MAJOR, MAX_POSITION, Malformed};
use super::storage::Storage;
use std::io;

const MAGIC: &[u8; 8] = b"SLIPMARK";

/// A durable mark outside the segments: it is still there when they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub id: JournalId,
    pub durable: u64,
    pub incarnation: u32,
}

impl Checkpoint {
    pub fn write(&self, storage: &dyn Storage) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(44);
        bytes.extend_from_slice(MAGIC);
        bytes.extend(u32::from(MAJOR).to_le_bytes());
        bytes.extend_from_slice(&self.id);
        bytes.extend(self.durable.to_le_bytes());
        bytes.extend(self.incarnation.to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        finish(storage, CHECKPOINT, |file| file.write_at(&bytes, 0)).map(drop)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes: &[u8; 44] = bytes.try_into().map_err(|_| Malformed::Short)?;
        if &bytes[..8] != MAGIC {
            return Err(Malformed::Magic);
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if word(40) != crc32c::crc32c(&bytes[..40]) {
            return Err(Malformed::Checksum);
        }
        if !(1..=u32::from(MAJOR)).contains(&word(8)) {
            return Err(Malformed::Version(word(8) as u16));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[12..28]);
        let durable = u64::from(word(28)) | u64::from(word(32)) << 32;
        if durable > MAX_POSITION {
            return Err(Malformed::Length);
        }
        Ok(Self { id, durable, incarnation: word(36) })
    }
}
