//! Gaps: offsets whose records a repair could not save. The journal's state lists them by partition, so that a reader of a
//! partition is told of its own gaps, at the offset where they stand, and of no other partition's.
//!
//! A repair puts a gap frame over damaged bytes, or a segment without frames in the place of a lost one. Neither says whose
//! records stood there: that is found out by the next opening, from the offsets of the records around, and becomes state in
//! the snapshot that this opening writes. An opening that is cut off before leaves the segment without an index, so that the
//! next one reads it whole, finds the frame again, and finds the same offsets.

use super::format::{MAX_POSITION, PartitionId};
use super::snapshot::State;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The kind of state. Key: the position of the gap frame or of the lost segment (8). Value: when it was found (8), then
/// topic 4, partition 4, first offset 8, end 8, of each partition that lost something there.
pub(crate) const WHAT: u16 = 6;

/// Offsets of one partition whose records a repair could not save.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The partition.
    pub partition: PartitionId,
    /// The offsets: at least those of all records that are lost. Some may never have been a record's.
    pub offsets: Range<u64>,
    /// The journal's position where the records stood.
    pub position: u64,
    /// When the gap was found: nanoseconds since the epoch.
    pub time: u64,
}

/// The gaps that a journal's state lists, by partition and offset. A topic that was deleted has some until retention frees
/// their segments.
pub fn gaps(state: &State) -> Vec<Gap> {
    let mut all = Vec::new();
    for (key, value) in state.values(WHAT) {
        let (Ok(key), Some((time, places))) = (key.try_into(), value.split_first_chunk()) else { continue };
        let (position, time) = (u64::from_le_bytes(key), u64::from_le_bytes(*time));
        all.extend(places.chunks_exact(24).filter_map(|place| {
            let (topic, rest) = place.split_first_chunk()?;
            let (partition, rest) = rest.split_first_chunk()?;
            let (first, rest) = rest.split_first_chunk()?;
            let partition =
                PartitionId { topic: u32::from_le_bytes(*topic), partition: u32::from_le_bytes(*partition) };
            let offsets = u64::from_le_bytes(*first)..u64::from_le_bytes(*rest.first_chunk()?);
            // No checksum says that these are offsets.
            let is_sane = offsets.start <= offsets.end && offsets.end.max(position) <= MAX_POSITION;
            is_sane.then_some(Gap { partition, offsets, position, time })
        }));
    }
    all.sort_by_key(|gap| (gap.partition, gap.offsets.start, gap.position));
    all
}

/// Keys of the gaps that stand below a position.
pub(super) fn keys_below(state: &State, position: u64) -> Vec<[u8; 8]> {
    let keys = state.values(WHAT).filter_map(|(key, _)| key.try_into().ok());
    keys.filter(|key| u64::from_le_bytes(*key) < position).collect()
}

/// The gaps of an open journal: none comes while it is open.
#[derive(Debug, Default)]
pub(crate) struct Gaps(BTreeMap<PartitionId, Arc<[Range<u64>]>>);

impl Gaps {
    pub fn of(state: &State) -> Self {
        let mut by_partition: BTreeMap<PartitionId, Vec<Range<u64>>> = BTreeMap::new();
        for Gap { partition, offsets, .. } in gaps(state).into_iter().filter(|gap| !gap.offsets.is_empty()) {
            let ranges = by_partition.entry(partition).or_default();
            match ranges.last_mut() {
                Some(last) if offsets.start <= last.end => last.end = last.end.max(offsets.end),
                _ => ranges.push(offsets),
            }
        }
        Self(by_partition.into_iter().map(|(partition, ranges)| (partition, ranges.into())).collect())
    }

    /// In order, none touching another.
    pub fn of_partition(&self, partition: PartitionId) -> &[Range<u64>] {
        self.0.get(&partition).map_or(&[], |ranges| ranges)
    }

    /// What a reader of this partition is to be told, from the offset on where it begins.
    pub fn untold(&self, partition: PartitionId) -> Untold {
        Untold { ranges: self.0.get(&partition).cloned(), next: 0 }
    }
}

/// The gaps of one partition that a reader has not been told of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Untold {
    ranges: Option<Arc<[Range<u64>]>>,
    next: usize,
}

impl Untold {
    /// Whether a gap begins below `offset`. Cheap where there is none: to be asked before a record at `offset` is given.
    #[inline]
    pub fn begins_below(&self, offset: u64) -> bool {
        match &self.ranges {
            None => false,
            Some(ranges) => ranges.get(self.next).is_some_and(|range| range.start < offset),
        }
    }

    /// Its reader goes elsewhere.
    pub fn begin_again(&mut self) {
        self.next = 0;
    }

    /// The next gap between `next`, the first offset that the reader has not been given, and `offset`, that of the record
    /// which it is about to be given. With `u64::MAX`, where no record comes any more: any that is left. It counts as told.
    pub fn before(&mut self, next: u64, offset: u64) -> Option<Range<u64>> {
        let ranges = self.ranges.as_ref()?;
        while let Some(range) = ranges.get(self.next).filter(|range| range.start < offset) {
            self.next += 1;
            if range.end > next {
                return Some(range.start.max(next)..range.end.min(offset));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_told_once_to_who_stands_before_it_and_only_what_lies_ahead() {
        let ranges: Arc<[Range<u64>]> = [5..9, 20..21, 30..40].into();
        let untold = |next| Untold { ranges: Some(Arc::clone(&ranges)), next };
        let mut from_the_start = untold(0);
        assert!(!from_the_start.begins_below(5) && from_the_start.begins_below(9));
        assert_eq!(from_the_start.before(0, 5), None);
        assert_eq!(from_the_start.before(5, 9), Some(5..9));
        assert_eq!(from_the_start.before(9, 20), None);
        assert_eq!(from_the_start.before(9, 22), Some(20..21));
        assert_eq!(from_the_start.before(22, 23), None);
        assert_eq!(from_the_start.before(23, u64::MAX), Some(30..40));
        assert_eq!(from_the_start.before(40, u64::MAX), None);
        let mut from_the_middle = untold(0);
        assert_eq!(from_the_middle.before(7, 9), Some(7..9));
        let mut from_behind = untold(0);
        assert_eq!(from_behind.before(9, 19), None);
        assert_eq!(from_behind.before(35, u64::MAX), Some(35..40));
        assert_eq!(Untold::default().before(0, u64::MAX), None);
    }
}
