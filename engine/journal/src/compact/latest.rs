//! The last offset of each key, in memory.

use crate::format::PartitionId;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

/// For each key the offset of its last record. A key is stored as two keyed hashes, 128 bits together, whose secrets are new
/// in each pass.
pub(super) struct LatestOffsets {
    hashers: [RandomState; 2],
    offsets: HashMap<KeyHash, LatestOffset, BuildHasherDefault<HashedHasher>>,
}

/// The hash of a partition and a key in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyHash([u64; 2]);

#[derive(Clone, Copy)]
pub(super) struct LatestOffset {
    pub offset: u64,
    /// True if an older record of the key was met and stays.
    pub has_elder: bool,
}

impl LatestOffsets {
    pub fn new() -> Self {
        Self { hashers: [RandomState::new(), RandomState::new()], offsets: HashMap::default() }
    }

    pub fn hash(&self, partition: PartitionId, key: &[u8]) -> KeyHash {
        KeyHash(self.hashers.each_ref().map(|hasher| hasher.hash_one((partition.topic, partition.partition, key))))
    }

    /// Count of the keys.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Notes a record of the key. Offsets of a partition ascend.
    pub fn note(&mut self, key: KeyHash, offset: u64) {
        self.offsets.insert(key, LatestOffset { offset, has_elder: false });
    }

    pub fn get(&self, key: KeyHash) -> Option<LatestOffset> {
        self.offsets.get(&key).copied()
    }

    /// Notes that a record of the key which is not its last one stays.
    pub fn keep_elder(&mut self, key: KeyHash) {
        if let Some(latest) = self.offsets.get_mut(&key) {
            latest.has_elder = true;
        }
    }
}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// The hasher of a map whose keys are hashes already.
#[derive(Default)]
pub(super) struct HashedHasher(u64);

impl Hasher for HashedHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
