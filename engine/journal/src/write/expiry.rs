//! Expiry by age: a record is too old if it lies in or before the last frame that was written before a point in time.

use crate::error::{DiskError, ReplayError};
use crate::files::read_ahead::{ReadAhead, decompress_frame};
use crate::format::{Entry, FrameHeader, FrameKind, PartitionId, SEGMENT_HEAD, trusted_entries};
use crate::index::{Index, TimeEntry};
use crate::segment::Segment;
use crate::shared::Shared;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The end of the last frame that is too old. It only moves forward.
#[derive(Debug, Default)]
pub(crate) struct ExpiryPoint {
    /// The segment's number; 0 while no frame is too old.
    segment: u64,
    at: u64,
    /// The generation of the segment's file: see [`Segment::generation`].
    generation: u32,
    /// For each partition, the offset after its last record in the segment before file offset `at`.
    ends: BTreeMap<PartitionId, u64>,
}

impl ExpiryPoint {
    /// Moves forward to the last frame that was written before `oldest` (nanoseconds since the epoch). Reads frames of
    /// that frame's segment only, from the old point on if that is in the segment, and of segments whose index has no
    /// times.
    pub fn advance(self, shared: &Shared, oldest: u64) -> Result<Self, ReplayError> {
        let Some((segment, at)) = last_before(shared, oldest)? else { return Ok(self) };
        let (number, generation) = (segment.header.number, segment.generation);
        let is_same_file = (number, generation) == (self.segment, self.generation);
        if number < self.segment || (is_same_file && at <= self.at) {
            return Ok(self);
        }
        let (from, mut ends) = if is_same_file { (self.at, self.ends) } else { (SEGMENT_HEAD, BTreeMap::new()) };
        frames(shared, &segment, from, at, |_, header, plain| {
            if header.kind == FrameKind::Data {
                for entry in trusted_entries(plain).flatten() {
                    if let Entry::Run(run) = entry {
                        ends.insert(run.partition, run.end());
                    }
                }
            }
        })?;
        Ok(Self { segment: number, at, generation, ends })
    }

    /// The offset after the partition's last record that is too old; 0 if none is too old.
    pub fn end(&self, shared: &Shared, partition: PartitionId) -> u64 {
        if let Some(end) = self.ends.get(&partition) {
            return *end;
        }
        let segments = shared.segments();
        let elder = segments.iter().rev().filter(|segment| segment.header.number < self.segment);
        let mut ends =
            elder.filter_map(|segment| segment.index().partitions.get(&partition).map(|indexed| indexed.end));
        ends.next().unwrap_or(0)
    }
}

/// The segment of the last frame that was written before `oldest`, and the offset in its file at which that frame ends.
/// `None` if there is no such frame.
fn last_before(shared: &Shared, oldest: u64) -> Result<Option<(Arc<Segment>, u64)>, ReplayError> {
    let segments: Vec<Arc<Segment>> = shared.segments().iter().filter(|s| !s.header.lost).cloned().collect();
    let mut found = None;
    let mut unknown = Vec::new();
    for segment in segments.iter().rev() {
        if segment.index().times.is_empty() {
            unknown.push(segment);
        } else if let Some(part) = last_part(segment, oldest) {
            found = Some((segment, part));
            break;
        }
    }
    // An index of version 1 has no times. They are computed from the frames, beginning with the oldest such segment,
    // until a segment has no frame that is too old.
    for segment in unknown.into_iter().rev() {
        let mut times = Index::default();
        frames(shared, segment, SEGMENT_HEAD, segment.end(), |at, header, _| {
            times.frame(at, at + header.span(), 0, header.time);
        })?;
        segment.index().times = times.times;
        let Some(part) = last_part(segment, oldest) else { break };
        found = Some((segment, part));
    }
    let Some((segment, (from, to))) = found else { return Ok(None) };
    let mut end = from;
    frames(shared, segment, from, to, |at, header, _| {
        if header.time < oldest {
            end = at + header.span();
        }
    })?;
    Ok(Some((Arc::clone(segment), end)))
}

/// The last stretch of a segment with a frame written before `oldest`: the offsets in its file at which it begins and
/// ends. `None` if there is none.
fn last_part(segment: &Segment, oldest: u64) -> Option<(u64, u64)> {
    let index = segment.index();
    let last = index.times.iter().rposition(|part| part.earliest < oldest)?;
    let to = index.times.get(last + 1).map_or(segment.end(), |next| next.at);
    let TimeEntry { at, .. } = index.times[last];
    Some((at, to))
}

/// Calls `each` for the frames in a part of a segment with the frame's offset in the file, its header, and its
/// decompressed payload, which is empty for a gap.
fn frames(
    shared: &Shared,
    segment: &Segment,
    from: u64,
    to: u64,
    mut each: impl FnMut(u64, &FrameHeader, &[u8]),
) -> Result<(), ReplayError> {
    let mut read_ahead = ReadAhead::new(&shared.options);
    let mut at = from;
    while at < to {
        let damaged = |what| ReplayError::Damaged { segment: segment.header.number, at, what, next: None };
        let found = read_ahead.frame(&shared.id, segment.header.first, &segment.file, at, to);
        let frame = found.map_err(|cause| DiskError::new("read", &segment.name, &cause))?.map_err(damaged)?;
        let plain = decompress_frame(&frame.header, frame.stored).map_err(damaged)?;
        each(at, &frame.header, &plain);
        at += frame.header.span();
    }
    Ok(())
}
