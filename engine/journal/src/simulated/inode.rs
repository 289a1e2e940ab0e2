//! A file's bytes: as read now, as durable, and as a power cut leaves them.
//!
//! A failed sync leaves the bytes that it should have written *undecided*, as Linux does: their pages count as clean, so
//! that later syncs do not write them, and only some of them may be on the disk. Bytes that are written again are synced
//! as any others.

use super::contents::{Contents, SECTOR};
use std::collections::BTreeMap;
use std::ops::Range;

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
    pub(super) now: Contents,
    pub(super) durable: Contents,
    /// The changes since the last sync, whether that has failed or not.
    pub(super) pending: Vec<FileChange>,
    /// What failed syncs have left undecided.
    undecided: Option<Box<Undecided>>,
    pub(super) traffic: Traffic,
}

/// The bytes that failed syncs should have written, and that were not written again since.
#[derive(Clone, Debug, Default)]
struct Undecided {
    /// The bytes as they were read at the last sync.
    synced: Contents,
    /// For each undecided sector, by its number, what it may have on the disk instead of its durable bytes.
    sectors: BTreeMap<usize, Vec<Vec<u8>>>,
    /// The sizes in bytes that the file may have on the disk instead of its durable size.
    sizes: Vec<usize>,
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
    pub(super) fn synced(bytes: Contents) -> Self {
        Self { now: bytes.clone(), durable: bytes, ..Self::default() }
    }

    /// True if a power cut may leave other bytes than those that are read now.
    pub(super) fn is_unsynced(&self) -> bool {
        !self.pending.is_empty() || self.undecided.is_some()
    }

    /// The bytes as they were read at the last sync.
    fn synced_bytes(&self) -> &Contents {
        self.undecided.as_ref().map_or(&self.durable, |undecided| &undecided.synced)
    }

    /// The bytes as they were read at the last sync, and after each change since.
    fn versions(&self) -> Vec<Contents> {
        let mut versions = vec![self.synced_bytes().clone()];
        for change in &self.pending {
            let mut next = versions[versions.len() - 1].clone();
            Self::apply(&mut next, change);
            versions.push(next);
        }
        versions
    }

    /// The sectors that a change touches in a file of `size` bytes.
    fn touched(change: &FileChange, size: usize) -> Range<usize> {
        match change {
            FileChange::Write { at, bytes } => at / SECTOR..(at + bytes.len()).div_ceil(SECTOR),
            FileChange::Size(to) => (*to).min(size) / SECTOR..size.div_ceil(SECTOR),
        }
    }

    /// Makes all bytes durable, except the sectors that a failed sync has left undecided and that were not written
    /// since.
    pub(super) fn sync(&mut self) {
        let Some(mut undecided) = self.undecided.take() else {
            self.durable = self.now.clone();
            self.pending.clear();
            return;
        };
        self.durable.resize(self.now.len());
        let mut size = undecided.synced.len();
        for change in self.pending.drain(..) {
            for number in Self::touched(&change, size) {
                undecided.sectors.remove(&number);
                self.durable.set_sector(number, self.now.sector(number));
            }
            size = match &change {
                FileChange::Write { at, bytes } => size.max(at + bytes.len()),
                FileChange::Size(to) => *to,
            };
        }
        undecided.sizes.clear();
        undecided.sectors.retain(|number, _| number * SECTOR < self.now.len());
        if !undecided.sectors.is_empty() {
            undecided.synced = self.now.clone();
            self.undecided = Some(undecided);
        }
    }

    /// Leaves all unsynced bytes undecided.
    pub(super) fn fail_sync(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let versions = self.versions();
        let mut undecided = self.undecided.take().unwrap_or_default();
        for (change, pair) in self.pending.drain(..).zip(versions.windows(2)) {
            for number in Self::touched(&change, pair[0].len()) {
                undecided.sectors.entry(number).or_default().push(pair[1].sector(number).to_vec());
            }
            undecided.sizes.push(pair[1].len());
        }
        undecided.synced = self.now.clone();
        self.undecided = Some(undecided);
    }

    /// Changes the readable and the durable bytes alike.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.now.to_vec();
        change(&mut bytes);
        self.now = bytes.into();
        self.durable = self.now.clone();
        self.undecided = None;
    }

    pub(super) fn apply(bytes: &mut Contents, change: &FileChange) {
        match change {
            FileChange::Write { at, bytes: written } => bytes.write(*at, written),
            FileChange::Size(size) => bytes.resize(*size),
        }
    }

    /// The bytes that a power cut leaves.
    pub(super) fn crashed(&self, dice: &mut Dice) -> Contents {
        let versions = if self.pending.is_empty() { vec![self.synced_bytes().clone()] } else { self.versions() };
        let Some(undecided) = &self.undecided else { return Self::crashed_of(versions, dice) };
        // As for the changes that no sync has tried to write: none, all, or each sector independently.
        let all = dice.roll(4);
        let mut sizes = vec![self.durable.len()];
        sizes.extend(&undecided.sizes);
        sizes.extend(self.pending.iter().zip(&versions[1..]).map(|(_, version)| version.len()));
        let size = match all {
            0 => sizes[0],
            1 => sizes[sizes.len() - 1],
            _ => sizes[dice.roll(sizes.len())],
        };
        let mut rewritten = BTreeMap::<usize, Vec<&[u8]>>::new();
        for (change, pair) in self.pending.iter().zip(versions.windows(2)) {
            for number in Self::touched(change, pair[0].len()) {
                rewritten.entry(number).or_default().push(pair[1].sector(number));
            }
        }
        let mut left = self.durable.clone();
        left.resize(size);
        for number in 0..size.div_ceil(SECTOR) {
            let mut choices = vec![self.durable.sector(number)];
            choices.extend(undecided.sectors.get(&number).into_iter().flatten().map(Vec::as_slice));
            choices.extend(rewritten.get(&number).into_iter().flatten());
            if choices.len() > 1 {
                let choice = match all {
                    0 => 0,
                    1 => choices.len() - 1,
                    _ => dice.roll(choices.len()),
                };
                left.set_sector(number, choices[choice]);
            }
        }
        left
    }

    /// The bytes that a power cut leaves of these versions of a file, of which the first one is durable.
    fn crashed_of(mut versions: Vec<Contents>, dice: &mut Dice) -> Contents {
        if versions.len() == 1 {
            return versions.swap_remove(0);
        }
        // All changes, none, or each sector independently. The first two are the most likely in reality, so they get a
        // probability of their own.
        match dice.roll(8) {
            0 => return versions.swap_remove(0),
            1 => return versions.swap_remove(versions.len() - 1),
            _ => {}
        }
        let size = versions[dice.roll(versions.len())].len();
        let mut left = Contents::default();
        left.resize(size);
        for number in 0..size.div_ceil(SECTOR) {
            let from = &versions[dice.roll(versions.len())];
            left.set_sector(number, from.sector(number));
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::{Fault, SimulatedDisk};
    use crate::storage::{File, Storage};
    use std::collections::BTreeSet;

    const SEEDS: Range<u64> = 0..200;

    fn file(disk: &SimulatedDisk) -> std::sync::Arc<dyn File> {
        let file = disk.create("a").unwrap();
        file.write_at(&[1; 3 * SECTOR], 0).unwrap();
        file.sync().unwrap();
        disk.sync_dir().unwrap();
        file
    }

    /// What the first bytes of three sectors may be after a power cut.
    fn after_crashes(disk: &SimulatedDisk) -> BTreeSet<[u8; 3]> {
        let crashed = SEEDS.map(|seed| disk.crash(seed).contents("a").unwrap());
        crashed.map(|bytes| [0, 1, 2].map(|number| bytes[number * SECTOR])).collect()
    }

    /// A later sync once made the bytes durable, which Linux does not: it takes their pages for clean.
    #[test]
    fn what_a_failed_sync_should_have_written_stays_undecided_until_it_is_written_again() {
        let disk = SimulatedDisk::new();
        let file = file(&disk);
        file.write_at(&[2; 2 * SECTOR], 0).unwrap();
        disk.fail_after(1, Fault::Io);
        file.sync().unwrap_err();
        let undecided = BTreeSet::from([[1, 1, 1], [2, 1, 1], [1, 2, 1], [2, 2, 1]]);
        assert_eq!(after_crashes(&disk), undecided);
        file.sync().unwrap();
        assert_eq!(after_crashes(&disk), undecided, "a later sync writes nothing");
        // The next process reads the bytes, and its syncs write nothing either.
        let killed = disk.copy();
        let again = killed.open("a", true).unwrap();
        again.sync().unwrap();
        assert_eq!(killed.contents("a").unwrap()[..2 * SECTOR], [2; 2 * SECTOR]);
        assert_eq!(after_crashes(&killed), undecided);
        again.write_at(&[2; 1], 0).unwrap();
        again.sync().unwrap();
        assert_eq!(
            after_crashes(&killed),
            BTreeSet::from([[2, 1, 1], [2, 2, 1]]),
            "the first sector was written again"
        );
        again.write_at(&[3; SECTOR], SECTOR as u64).unwrap();
        assert_eq!(after_crashes(&killed), BTreeSet::from([[2, 1, 1], [2, 2, 1], [2, 3, 1]]));
        again.sync().unwrap();
        assert_eq!(after_crashes(&killed), BTreeSet::from([[2, 3, 1]]));
        assert!(killed.unsynced().is_empty());
    }
}
