//! Finding out which offsets are lost in a gap.

use super::error::ReplayError;
use super::file_names::index_name;
use super::format::{Entry, Extent, JournalId, MAX_POSITION, PartitionId, SEGMENT_HEAD, entries};
use super::gaps::WHAT;
use super::index::Index;
use super::snapshot::State;
use super::storage::Storage;
use super::survey::Survey;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// No reservation that may be lost goes further beyond the last record.
const RESERVED: u64 = 1 << 30;

/// The largest index file that is looked at.
const MOST: u64 = 64 << 20;

/// What a search for lost offsets goes by, besides the frames.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Indexes of damaged or lost segments, by number: what they had before. Nothing but how much is missing is believed.
    pub indexes: BTreeMap<u64, Index>,
}

impl Evidence {
    /// Keeps the index of a segment that is about to be mended, if there is one.
    pub fn keep(&mut self, disk: &dyn Storage, segment: u64, id: &JournalId) {
        let Ok(file) = disk.open(&index_name(segment), false) else { return };
        // Larger than any index of a segment of its size is none.
        let Some(size) = file.size().ok().filter(|size| *size <= MOST) else { return };
        let mut bytes = vec![0; size as usize];
        let Ok(read) = file.read_at(&mut bytes, 0) else { return };
        if let Ok(index) = Index::decode_untied(&bytes[..read], id, segment) {
            self.indexes.entry(segment).or_insert(index);
        }
    }
}

/// What the gaps that the state does not know yet have cost.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Each gap frame and lost segment: its position, and what is lost there.
    places: BTreeMap<u64, Vec<(PartitionId, Range<u64>)>>,
    /// Partitions of which nothing stands before the gap: they begin with it.
    heads: Vec<(PartitionId, u64)>,
    /// Partitions that may have lost their last records: from here on.
    tails: Vec<(PartitionId, u64, u64)>,
    /// It is not known how far offsets had been issued.
    pub skips_offsets: bool,
    bytes: u64,
}

/// A partition while the frames are gone through.
#[derive(Default)]
struct Seen {
    /// The offset after the last record or extent that was seen.
    end: u64,
    /// The gaps since: position and segment.
    suspects: Vec<(u64, u64)>,
}

struct Suspicion {
    partition: PartitionId,
    offsets: Range<u64>,
    suspects: Vec<(u64, u64)>,
    is_head: bool,
    is_tail: bool,
}

/// Finds out what is lost in gaps that the state does not know yet. None if it knows all that were seen.
pub(super) fn account(
    survey: &Survey,
    storage: &Arc<dyn Storage>,
    mut evidence: Evidence,
) -> Result<Option<Account>, ReplayError> {
    let fresh: Vec<_> = survey.unknown_gaps().collect();
    let (Some(first), Some(last)) = (fresh.first(), fresh.last()) else { return Ok(None) };
    // Of a segment that is lost as a whole the index may be there all the same.
    fresh.iter().for_each(|gap| evidence.keep(&**storage, gap.segment, &survey.id));
    // A segment whose snapshot is whole says where each partition stood.
    let begins = |number: &u64| survey.segments.iter().any(|it| it.header.number == *number && it.knows_its_head());
    let from = (1..=first.segment).rev().find(begins).unwrap_or(0);
    let mut frames = survey.frames(Arc::clone(storage)).only(|segment| segment.header.number >= from);
    let mut seen: BTreeMap<PartitionId, Seen> = BTreeMap::new();
    let mut records: BTreeMap<(u64, PartitionId), u64> = BTreeMap::new();
    let mut suspicions: Vec<Suspicion> = Vec::new();
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
                // A snapshot says how far records had come that are lost.
                Entry::Extent(partition, extent) => (partition, extent.start, extent.end, extent.end),
                _ => continue,
            };
            let is_head = !seen.contains_key(&partition) && !passed.is_empty();
            let it = seen.entry(partition).or_insert_with(|| {
                if passed.is_empty() {
                    Seen { end: first, suspects: Vec::new() }
                } else {
                    Seen { end: start, suspects: passed.clone() }
                }
            });
            let suspects = std::mem::take(&mut it.suspects);
            if !suspects.is_empty() && first > it.end {
                suspicions.push(Suspicion { partition, offsets: it.end..first, suspects, is_head, is_tail: false });
            }
            it.end = it.end.max(end);
        }
    }
    let is_known_behind = survey
        .segments
        .iter()
        .any(|segment| segment.header.number > last.segment && !segment.header.lost && segment.end() > SEGMENT_HEAD);
    let bytes = fresh.iter().map(|gap| gap.bytes).sum();
    let mut account = Account { skips_offsets: !is_known_behind, bytes, ..Account::default() };
    for (partition, Seen { end, suspects }) in seen {
        if !suspects.is_empty() && !is_known_behind {
            let offsets = end..u64::MAX;
            suspicions.push(Suspicion { partition, offsets, suspects, is_head: false, is_tail: true });
        }
    }
    account.places.extend(fresh.iter().map(|gap| (gap.position, Vec::new())));
    suspicions.into_iter().for_each(|it| account.judge(it, &evidence, &records));
    Ok(Some(account))
}

impl Account {
    /// Takes down what is lost, if it may be: the index of a damaged segment can tell that nothing of the partition is, or
    /// that less is.
    fn judge(&mut self, it: Suspicion, evidence: &Evidence, records: &BTreeMap<(u64, PartitionId), u64>) {
        let Suspicion { partition, mut offsets, suspects, is_head, is_tail } = it;
        let mut within: Option<Range<u64>> = None;
        let mut is_clear = true;
        for (_, segment) in &suspects {
            let Some(index) = evidence.indexes.get(segment) else {
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
        self.places.entry(*position).or_default().push((partition, offsets));
    }

    /// Writes it down in the state, which the next snapshot begins with. What is lost, by partition.
    pub fn settle(mut self, state: &mut State, time: u64) -> Vec<(PartitionId, Range<u64>)> {
        for (partition, start) in std::mem::take(&mut self.heads) {
            state.reach_back(partition, start);
        }
        if self.skips_offsets {
            for (partition, extent) in state.extents().collect::<Vec<_>>() {
                // As many records may be lost as there are bytes, and a reservation that readers of published data saw.
                let next = extent
                    .end
                    .max(extent.reserved)
                    .saturating_add(self.bytes.saturating_add(RESERVED))
                    .min(MAX_POSITION);
                let _ = state.apply(&Entry::Extent(partition, Extent { end: next, reserved: next, ..extent }));
            }
        }
        for (partition, first, position) in std::mem::take(&mut self.tails) {
            let end = state.extent(partition).map_or(first, |extent| extent.end);
            if end > first {
                self.places.entry(position).or_default().push((partition, first..end));
            }
        }
        for (position, lost) in &self.places {
            let mut value = time.to_le_bytes().to_vec();
            for (partition, offsets) in lost {
                value.extend(partition.topic.to_le_bytes());
                value.extend(partition.partition.to_le_bytes());
                value.extend(offsets.start.to_le_bytes());
                value.extend(offsets.end.to_le_bytes());
            }
            let _ = state.apply(&Entry::Put { what: WHAT, key: &position.to_le_bytes(), value: &value });
        }
        self.places.into_values().flatten().collect()
    }
}
