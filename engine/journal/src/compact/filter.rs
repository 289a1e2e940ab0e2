//! Which records of a frame stay.

use crate::compact::latest::{KeyHash, LatestOffsets};
use crate::compact::{CompactionRule, CompactionRules};
use crate::format::{Entry, Extent, FrameBuilder, PartitionId, RUN, Run, StoredRecord, trusted_entries};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a pass knows of the partitions and their keys.
pub(super) struct RecordFilter {
    pub rules: Arc<dyn CompactionRules>,
    /// The rules of the compacted partitions.
    pub ruled: BTreeMap<PartitionId, CompactionRule>,
    /// The extents of all partitions at the beginning of the pass. Records outside of them are deleted ones.
    pub extents: BTreeMap<PartitionId, Extent>,
    pub latest: LatestOffsets,
    /// True if a segment was left as it is, so that no tombstone may go.
    pub keeps_tombstones: bool,
}

/// What a filter found in frames.
#[derive(Default)]
pub(super) struct FilterCount {
    /// Size of the frames' runs, in bytes.
    pub bytes: u64,
    /// Count of the removed records.
    pub removed: u64,
    /// Count of those that were tombstones.
    pub tombstones: u64,
    /// The earliest time of a frame with a tombstone that stays, in nanoseconds since the epoch; `None` if there is none.
    pub tombstone_left: Option<u64>,
    /// The keys of the superseded records, if they are asked for.
    pub superseded: Option<Vec<KeyHash>>,
}

enum Fate {
    Stays,
    StaysTombstone,
    StaysElder(KeyHash),
    Superseded(KeyHash),
    Tombstone,
    Deleted,
}

impl RecordFilter {
    /// Notes the last offset of each key in a frame.
    pub fn note(&mut self, plain: &[u8]) {
        for run in runs(plain) {
            let Some(rule) = self.ruled.get(&run.partition) else { continue };
            for StoredRecord { offset, bytes, .. } in run.records().take_while(|record| record.offset < rule.below) {
                if let Some(key) = self.rules.key(run.partition, offset, bytes) {
                    let key = self.latest.hash(run.partition, key.bytes);
                    self.latest.note(key, offset);
                }
            }
        }
    }

    /// Adds the records of a frame that stay to `out`. `time` is the frame's, in nanoseconds since the epoch. Returns true
    /// if all records stay.
    pub fn filter(&mut self, plain: &[u8], time: u64, out: &mut FrameBuilder, count: &mut FilterCount) -> bool {
        let before = count.removed;
        for run in runs(plain) {
            let (_, (fixed, _)) = run.shape();
            count.bytes += RUN as u64 + run.bytes();
            let (extent, rule) = (self.extents.get(&run.partition).copied(), self.ruled.get(&run.partition).copied());
            for record in run.records() {
                let StoredRecord { offset, bytes, time: own } = record;
                let stays = match self.fate(run.partition, extent, rule, record, time) {
                    Fate::Stays => true,
                    Fate::StaysTombstone => {
                        count.tombstone_left = Some(count.tombstone_left.map_or(time, |left| left.min(time)));
                        true
                    }
                    Fate::StaysElder(key) => {
                        self.latest.keep_elder(key);
                        true
                    }
                    Fate::Superseded(key) => {
                        count.superseded.iter_mut().for_each(|all| all.push(key));
                        false
                    }
                    Fate::Tombstone => {
                        count.tombstones += 1;
                        false
                    }
                    Fate::Deleted => false,
                };
                match fixed {
                    _ if !stays => count.removed += 1,
                    Some(_) => out.fixed(run.partition, offset, own, bytes),
                    None => out.record(run.partition, offset, own, bytes),
                }
            }
        }
        count.removed == before
    }

    fn fate(
        &self,
        partition: PartitionId,
        extent: Option<Extent>,
        rule: Option<CompactionRule>,
        record: StoredRecord<'_>,
        time: u64,
    ) -> Fate {
        let offset = record.offset;
        if extent.is_none_or(|extent| offset < extent.start) {
            return Fate::Deleted;
        }
        let Some(rule) = rule else { return Fate::Stays };
        let Some(key) = self.rules.key(partition, offset, record.bytes) else { return Fate::Stays };
        let hash = self.latest.hash(partition, key.bytes);
        match self.latest.get(hash) {
            Some(latest) if latest.offset > offset => {
                if offset < rule.below {
                    Fate::Superseded(hash)
                } else {
                    Fate::StaysElder(hash)
                }
            }
            Some(latest) if latest.offset == offset && key.is_tombstone => {
                let is_old = time < rule.tombstones_before && offset < rule.below;
                if is_old && !latest.has_elder && !self.keeps_tombstones {
                    Fate::Tombstone
                } else {
                    Fate::StaysTombstone
                }
            }
            _ => Fate::Stays,
        }
    }
}

fn runs(plain: &[u8]) -> impl Iterator<Item = Run<'_>> {
    trusted_entries(plain).filter_map(|entry| match entry {
        Ok(Entry::Run(run)) => Some(run),
        _ => None,
    })
}
