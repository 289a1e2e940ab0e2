//! Gaps: ranges of offsets whose records a repair could not save. The journal's state lists the gaps of each partition,
//! so that a reader reports the gaps of its own partition and no others.
//!
//! A repair writes a gap frame over damaged bytes, or puts a segment without frames in the place of a lost segment.
//! Neither states which records were lost: the next opening computes that from the offsets of the records around the
//! gap ([`loss`](crate::survey::loss)), and writes the result as state with its snapshot. If that opening is
//! interrupted before the snapshot, the segment still has no index. So the next opening reads the segment, finds the
//! gap frame again, and computes the same offsets.

use crate::format::{MAX_POSITION, PartitionId};
use crate::state::State;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The kind of state that holds gaps. Key: the position of the gap frame or of the lost segment (8 bytes). Value: the
/// time at which the gap was found (8 bytes), then a [`RawGap`] for each partition that lost records there.
pub(crate) const GAPS_KIND: u16 = 6;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawGap {
    topic: U32,
    partition: U32,
    first: U64,
    end: U64,
}

/// A range of a partition's offsets whose records a repair could not save.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The partition.
    pub partition: PartitionId,
    /// The range of offsets. It covers all lost records, and may cover offsets that no record had.
    pub offsets: Range<u64>,
    /// The position of the lost records in the journal, in bytes.
    pub position: u64,
    /// The time at which the gap was found, in nanoseconds since the epoch.
    pub time: u64,
}

/// The gaps that a journal's state lists, ordered by partition and offset. The gaps of a deleted topic stay listed until
/// retention frees their segments.
pub fn gaps(state: &State) -> Vec<Gap> {
    let mut all = Vec::new();
    for (key, value) in state.values(GAPS_KIND) {
        let (Ok(key), Some((time, raw))) = (key.try_into(), value.split_first_chunk()) else { continue };
        let (position, time) = (u64::from_le_bytes(key), u64::from_le_bytes(*time));
        let raw = raw.chunks_exact(size_of::<RawGap>()).filter_map(|raw| RawGap::read_from_bytes(raw).ok());
        all.extend(raw.filter_map(|RawGap { topic, partition, first, end }| {
            let partition = PartitionId { topic: topic.get(), partition: partition.get() };
            let offsets = first.get()..end.get();
            // A matching checksum does not make the numbers valid offsets: another program may have computed it.
            let is_sane = offsets.start <= offsets.end && offsets.end.max(position) <= MAX_POSITION;
            is_sane.then_some(Gap { partition, offsets, position, time })
        }));
    }
    all.sort_by_key(|gap| (gap.partition, gap.offsets.start, gap.position));
    all
}

/// Encodes the state value of a gap that was found at `time` (nanoseconds since the epoch), with the lost offsets.
pub(super) fn encode(time: u64, lost: &[(PartitionId, Range<u64>)]) -> Vec<u8> {
    let mut value = time.to_le_bytes().to_vec();
    for (PartitionId { topic, partition }, offsets) in lost {
        let raw = RawGap {
            topic: U32::new(*topic),
            partition: U32::new(*partition),
            first: U64::new(offsets.start),
            end: U64::new(offsets.end),
        };
        value.extend_from_slice(raw.as_bytes());
    }
    value
}

/// The state keys of the gaps below a position.
pub(super) fn keys_below(state: &State, position: u64) -> Vec<[u8; 8]> {
    let keys = state.values(GAPS_KIND).filter_map(|(key, _)| key.try_into().ok());
    keys.filter(|key| u64::from_le_bytes(*key) < position).collect()
}

/// The gaps of an open journal by partition. They do not change while the journal is open.
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

    /// The gaps of a partition in ascending order, with touching gaps merged; empty if there are none.
    pub fn of_partition(&self, partition: PartitionId) -> &[Range<u64>] {
        self.0.get(&partition).map_or(&[], |ranges| ranges)
    }

    /// A cursor that begins at the first gap of a partition.
    pub fn gap_cursor(&self, partition: PartitionId) -> GapCursor {
        GapCursor { ranges: self.0.get(&partition).cloned(), next: 0 }
    }
}

/// The gaps of one partition that a reader has not reported yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct GapCursor {
    ranges: Option<Arc<[Range<u64>]>>,
    next: usize,
}

impl GapCursor {
    /// True if an unreported gap begins below `offset`. A reader calls this for each record, so the case without gaps
    /// must be cheap.
    #[inline]
    pub fn begins_below(&self, offset: u64) -> bool {
        match &self.ranges {
            None => false,
            Some(ranges) => ranges.get(self.next).is_some_and(|range| range.start < offset),
        }
    }

    /// Returns to the first gap, because the reader seeks.
    pub fn begin_again(&mut self) {
        self.next = 0;
    }

    /// Takes the next gap that overlaps `next..offset`, cut to that range, and counts that part as reported. `next` is the
    /// first offset that the reader has not returned; `offset` belongs to the record that the reader returns next, or
    /// is `u64::MAX` if no record is left. `None` if there is no such gap.
    pub fn before(&mut self, next: u64, offset: u64) -> Option<Range<u64>> {
        let ranges = self.ranges.as_ref()?;
        while let Some(range) = ranges.get(self.next).filter(|range| range.start < offset) {
            let ahead = range.start.max(next)..range.end.min(offset);
            // The part from `offset` on is reported when the reader comes there.
            let is_last = range.end > offset;
            self.next += usize::from(!is_last);
            if !ahead.is_empty() || is_last {
                return Some(ahead).filter(|ahead| !ahead.is_empty());
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
        let gap_cursor = |next| GapCursor { ranges: Some(Arc::clone(&ranges)), next };
        let mut from_the_start = gap_cursor(0);
        assert!(!from_the_start.begins_below(5) && from_the_start.begins_below(9));
        assert_eq!(from_the_start.before(0, 5), None);
        assert_eq!(from_the_start.before(5, 9), Some(5..9));
        assert_eq!(from_the_start.before(9, 20), None);
        assert_eq!(from_the_start.before(9, 22), Some(20..21));
        assert_eq!(from_the_start.before(22, 23), None);
        assert_eq!(from_the_start.before(23, u64::MAX), Some(30..40));
        assert_eq!(from_the_start.before(40, u64::MAX), None);
        let mut from_the_middle = gap_cursor(0);
        assert_eq!(from_the_middle.before(7, 9), Some(7..9));
        let mut from_behind = gap_cursor(0);
        assert_eq!(from_behind.before(9, 19), None);
        assert_eq!(from_behind.before(35, u64::MAX), Some(35..40));
        let mut in_parts = gap_cursor(2);
        assert_eq!(in_parts.before(30, 33), Some(30..33));
        assert_eq!(in_parts.before(33, 33), None);
        assert_eq!(in_parts.before(33, u64::MAX), Some(33..40));
        assert_eq!(in_parts.before(40, u64::MAX), None);
        assert_eq!(GapCursor::default().before(0, u64::MAX), None);
    }
}
