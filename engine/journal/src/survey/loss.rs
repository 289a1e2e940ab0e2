//! Determining which offsets are lost in the gaps of a repair.

use crate::error::ReplayError;
use crate::files::names::index_name;
use crate::format::{Entry, Extent, JournalId, MAX_POSITION, PartitionId, SEGMENT_HEAD, entries};
use crate::gaps::{self, GAPS_KIND};
use crate::index::Index;
use crate::state::State;
use crate::storage::Storage;
use crate::survey::Survey;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The most offsets after a partition's end that a lost reservation is assumed to have covered.
const MAX_RESERVATION: u64 = 1 << 30;

/// The largest index file that is read, in bytes.
const MAX_INDEX_SIZE: u64 = 64 << 20;

/// Indexes that show which records were lost.
#[derive(Debug, Default)]
pub(crate) struct KnownIndexes {
    /// The indexes of damaged or lost segments, by segment number. Only the offsets and counts of their partitions are
    /// used.
    pub indexes: BTreeMap<u64, Index>,
}

impl KnownIndexes {
    /// Keeps the index of a segment that is about to be repaired, if it has one.
    pub fn keep(&mut self, disk: &dyn Storage, segment: u64, id: &JournalId) {
        let Ok(file) = disk.open(&index_name(segment), false) else { return };
        // No segment has a larger index.
        let Some(size) = file.size().ok().filter(|size| *size <= MAX_INDEX_SIZE) else { return };
        let mut bytes = vec![0; size as usize];
        let Ok(read) = file.read_at(&mut bytes, 0) else { return };
        if let Ok(index) = Index::decode_untied(&bytes[..read], id, segment) {
            self.indexes.entry(segment).or_insert(index);
        }
    }
}

/// The offsets lost in gaps that the state does not list yet.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// The position of each gap frame and lost segment, with the offsets lost there.
    gaps: BTreeMap<u64, Vec<(PartitionId, Range<u64>)>>,
    /// Partitions without a record before the gap, with their new start offset.
    heads: Vec<(PartitionId, u64)>,
    /// Partitions that may have lost their last records: the first offset that may be lost, and the gap's position.
    tails: Vec<(PartitionId, u64, u64)>,
    /// True if the last issued offsets are unknown, because the end of the journal is lost.
    pub skips_offsets: bool,
    bytes: u64,
}

/// The findings of the pass over the frames for one partition.
#[derive(Default)]
struct PartitionScan {
    /// The offset after the last record, or the higher end that an extent states.
    end: u64,
    /// The gaps since that record: position and segment number.
    suspects: Vec<(u64, u64)>,
}

struct PossibleLoss {
    partition: PartitionId,
    offsets: Range<u64>,
    suspects: Vec<(u64, u64)>,
    is_head: bool,
    is_tail: bool,
}

/// Determines the offsets lost in gaps that the state does not list yet. `None` if the state lists all gaps of the
/// survey.
pub(crate) fn find_losses(
    survey: &Survey,
    storage: &Arc<dyn Storage>,
    mut known: KnownIndexes,
) -> Result<Option<Losses>, ReplayError> {
    let fresh: Vec<_> = survey.unrecorded_gaps().collect();
    let (Some(first), Some(last)) = (fresh.first(), fresh.last()) else { return Ok(None) };
    // A segment that is lost as a whole may have left its index.
    fresh.iter().for_each(|gap| known.keep(&**storage, gap.segment, &survey.id));
    // The pass begins at the last segment with a complete snapshot that is not after the first gap's segment: the
    // snapshot holds the extent of each partition.
    let begins = |number: &u64| survey.segments.iter().any(|it| it.header.number == *number && it.has_snapshot());
    let from = (1..=first.segment).rev().find(begins).unwrap_or(0);
    let mut frames = survey.frames(Arc::clone(storage)).only(|segment| segment.header.number >= from);
    let mut seen: BTreeMap<PartitionId, PartitionScan> = BTreeMap::new();
    let mut records: BTreeMap<(u64, PartitionId), u64> = BTreeMap::new();
    let mut suspicions: Vec<PossibleLoss> = Vec::new();
    let mut passed: Vec<(u64, u64)> = Vec::new();
    loop {
        let frame = frames.next()?;
        let (segment, plain) = frame.map_or((0, None), |frame| (frame.segment, Some(frame.plain.into_owned())));
        for gap in frames.take_passed().into_iter().filter(|gap| fresh.iter().any(|it| it.position == gap.0)) {
            seen.values_mut().for_each(|seen| seen.suspects.push(gap));
            passed.push(gap);
        }
        let Some(plain) = plain else { break };
        for entry in entries(&plain).flatten() {
            let (partition, start, first, end) = match entry {
                Entry::Run(run) => {
                    *records.entry((segment, run.partition)).or_default() += u64::from(run.count);
                    (run.partition, 0, run.first, run.end())
                }
                // The extent in a snapshot states how far the lost records had come.
                Entry::Extent(partition, extent) => (partition, extent.start, extent.end, extent.end),
                _ => continue,
            };
            let is_head = !seen.contains_key(&partition) && !passed.is_empty();
            let it = seen.entry(partition).or_insert_with(|| {
                if passed.is_empty() {
                    PartitionScan { end: first, suspects: Vec::new() }
                } else {
                    PartitionScan { end: start, suspects: passed.clone() }
                }
            });
            let suspects = std::mem::take(&mut it.suspects);
            if !suspects.is_empty() && first > it.end {
                suspicions.push(PossibleLoss { partition, offsets: it.end..first, suspects, is_head, is_tail: false });
            }
            it.end = it.end.max(end);
        }
    }
    let is_known_behind = survey
        .segments
        .iter()
        .any(|segment| segment.header.number > last.segment && !segment.header.lost && segment.end() > SEGMENT_HEAD);
    let bytes = fresh.iter().map(|gap| gap.bytes).sum();
    let mut losses = Losses { skips_offsets: !is_known_behind, bytes, ..Losses::default() };
    for (partition, PartitionScan { end, suspects }) in seen {
        if !suspects.is_empty() && !is_known_behind {
            let offsets = end..u64::MAX;
            suspicions.push(PossibleLoss { partition, offsets, suspects, is_head: false, is_tail: true });
        }
    }
    losses.gaps.extend(fresh.iter().map(|gap| (gap.position, Vec::new())));
    suspicions.into_iter().for_each(|it| losses.add(it, &known, &records));
    Ok(Some(losses))
}

impl Losses {
    /// Adds a possible loss, cut to the offsets that the indexes state. Skips it if the indexes of all suspected
    /// segments are known and show that the partition lost no records there.
    fn add(&mut self, it: PossibleLoss, known: &KnownIndexes, records: &BTreeMap<(u64, PartitionId), u64>) {
        let PossibleLoss { partition, mut offsets, suspects, is_head, is_tail } = it;
        let mut within: Option<Range<u64>> = None;
        let mut is_clear = true;
        for (_, segment) in &suspects {
            let Some(index) = known.indexes.get(segment) else {
                (within, is_clear) = (None, false);
                break;
            };
            let had = index.partitions.get(&partition);
            let there = records.get(&(*segment, partition)).copied().unwrap_or(0);
            if let Some(had) = had.filter(|had| had.records > there) {
                is_clear = false;
                let known = within.get_or_insert(had.first..had.end);
                *known = known.start.min(had.first)..known.end.max(had.end);
            }
        }
        if is_clear {
            return;
        }
        let is_bounded = within.is_some();
        if let Some(within) = within {
            offsets = offsets.start.max(within.start)..offsets.end.min(within.end);
        }
        let Some((position, _)) = suspects.last().filter(|_| !offsets.is_empty()) else { return };
        if is_head {
            self.heads.push((partition, offsets.start));
        }
        if is_tail && !is_bounded {
            self.tails.push((partition, offsets.start, *position));
            return;
        }
        self.gaps.entry(*position).or_default().push((partition, offsets));
    }

    /// Writes the gaps into the state, and so into the next snapshot. `time` is in nanoseconds since the epoch. Returns
    /// the lost offsets by partition.
    pub fn record(mut self, state: &mut State, time: u64) -> Vec<(PartitionId, Range<u64>)> {
        for (partition, start) in std::mem::take(&mut self.heads) {
            state.extend_back(partition, start);
        }
        if self.skips_offsets {
            for (partition, extent) in state.extents().collect::<Vec<_>>() {
                // Each lost byte can have held at most one record. A reader of published events may also have seen
                // offsets of a lost reservation.
                let next = extent
                    .end
                    .max(extent.reserved)
                    .saturating_add(self.bytes.saturating_add(MAX_RESERVATION))
                    .min(MAX_POSITION);
                let _ = state.apply(&Entry::Extent(partition, Extent { end: next, reserved: next, ..extent }));
            }
        }
        for (partition, first, position) in std::mem::take(&mut self.tails) {
            let end = state.extent(partition).map_or(first, |extent| extent.end);
            if end > first {
                self.gaps.entry(position).or_default().push((partition, first..end));
            }
        }
        for (position, lost) in &self.gaps {
            let value = gaps::encode(time, lost);
            let _ = state.apply(&Entry::Put { state_kind: GAPS_KIND, key: &position.to_le_bytes(), value: &value });
        }
        self.gaps.into_values().flatten().collect()
    }
}
