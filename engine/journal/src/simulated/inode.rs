//! A file's bytes in three versions: as read now, as durable, and as a power cut leaves them.

/// Size of a sector in bytes. A power cut keeps or loses each sector independently.
const SECTOR: usize = 512;

/// Counters of the calls on a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Count of bytes read.
    pub read: u64,
    /// Count of read calls.
    pub reads: u64,
    /// Count of bytes written.
    pub written: u64,
    /// Count of syncs.
    pub syncs: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) now: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// The changes since the last sync.
    pub(super) pending: Vec<FileChange>,
    pub(super) traffic: Traffic,
}

#[derive(Clone, Debug)]
pub(super) enum FileChange {
    Write { at: usize, bytes: Vec<u8> },
    Size(usize),
}

/// A random number generator of its own (SplitMix64), so that a seed gives the same crash with every version of every
/// dependency: tests contain the seeds of past failures.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }
}

impl Inode {
    /// A file whose bytes are all durable.
    pub(super) fn synced(bytes: Vec<u8>) -> Self {
        Self { now: bytes.clone(), durable: bytes, ..Self::default() }
    }

    fn resize(bytes: &mut Vec<u8>, size: usize) {
        bytes.resize(size, 0);
    }

    pub(super) fn apply(bytes: &mut Vec<u8>, change: &FileChange) {
        match change {
            FileChange::Write { at, bytes: written } => {
                if bytes.len() < at + written.len() {
                    Self::resize(bytes, at + written.len());
                }
                bytes[*at..at + written.len()].copy_from_slice(written);
            }
            FileChange::Size(size) => Self::resize(bytes, *size),
        }
    }

    /// The bytes that a power cut leaves.
    pub(super) fn crashed(&self, dice: &mut Dice) -> Vec<u8> {
        if self.pending.is_empty() {
            return self.durable.clone();
        }
        let mut versions = vec![self.durable.clone()];
        for change in &self.pending {
            let mut next = versions[versions.len() - 1].clone();
            Self::apply(&mut next, change);
            versions.push(next);
        }
        // All changes, none, or each sector independently. The first two are the most likely in reality, so they get a
        // probability of their own.
        match dice.roll(8) {
            0 => return versions.swap_remove(0),
            1 => return versions.swap_remove(versions.len() - 1),
            _ => {}
        }
        let size = versions[dice.roll(versions.len())].len();
        let mut left = vec![0; size];
        for (index, sector) in left.chunks_mut(SECTOR).enumerate() {
            let from = &versions[dice.roll(versions.len())];
            let from = from.get(index * SECTOR..).unwrap_or(&[]);
            let len = sector.len().min(from.len());
            sector[..len].copy_from_slice(&from[..len]);
        }
        left
    }
}
