//! A pass of compaction: notes the last offset of each key, then looks at each segment and writes those anew that are worth
//! it.

use crate::compact::filter::{FilterCount, RecordFilter};
use crate::compact::latest::LatestOffsets;
use crate::compact::rewrite::{GivenUp, Rewrite, Rewritten};
use crate::compact::segment_frames::SegmentFrames;
use crate::compact::{Compacted, CompactionRules};
use crate::error::DiskError;
use crate::format::{FrameBuilder, FrameKind};
use crate::segment::Segment;
use crate::shared::Shared;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A pass notes no further segment's keys once it has noted this many keys. One takes 24 to 48 bytes. The next pass goes
/// on with the next segment.
pub(super) const MOST_KEYS: usize = 1 << 20;

/// A segment is written anew if that makes its records smaller by one part in this many.
const WORTH: u64 = 8;

pub(super) struct CompactionPass {
    filter: RecordFilter,
    /// The sealed segments, and the index of the first one whose keys are noted.
    segments: Vec<Arc<Segment>>,
    phase: Phase,
    pub done: Compacted,
    /// The number of the segment with which the next pass goes on noting keys; 0 if this one has noted all.
    pub next_noted: u64,
    /// The earliest time of a frame with a tombstone that stays; `None` if there is none.
    pub tombstone_left: Option<u64>,
    /// Where the segments end that the pass looks at: the number after the last one's.
    pub end: u64,
}

enum Phase {
    Note(usize, Option<SegmentFrames>),
    Look(usize, Option<Box<Look>>),
    Write(usize, Box<Rewrite>),
    Over,
}

/// What would be left of a segment.
struct Look {
    frames: SegmentFrames,
    out: FrameBuilder,
    count: FilterCount,
    /// Size of the runs with the records that stay, in bytes.
    after: u64,
}

impl CompactionPass {
    /// Begins a pass. Notes keys from the segment with the number `noted_from` on.
    pub fn begin(shared: &Shared, rules: Arc<dyn CompactionRules>, noted_from: u64) -> Self {
        let segments: Vec<_> =
            shared.segments().iter().take_while(|it| it.is_sealed() || it.header.lost).cloned().collect();
        // The extents are read after the segments, so each partition with a record in these segments has one, unless its
        // topic was deleted.
        let extents: BTreeMap<_, _> = shared.extents().clone();
        let ruled = extents.keys().filter_map(|partition| Some((*partition, rules.rule(*partition)?))).collect();
        let filter = RecordFilter { rules, ruled, extents, latest: LatestOffsets::new(), keeps_tombstones: false };
        let begin = segments.partition_point(|segment| segment.header.number < noted_from);
        let begin = if begin < segments.len() { begin } else { 0 };
        let end = segments.last().map_or(0, |last| last.header.number + 1);
        let phase = Phase::Note(begin, None);
        let done = Compacted { segments: segments.len(), ..Compacted::default() };
        Self { filter, segments, phase, done, next_noted: 0, tombstone_left: None, end }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Gives the pass up, and removes the file that it was writing.
    pub fn discard(self, shared: &Shared) {
        if let Phase::Write(_, rewrite) = self.phase {
            rewrite.discard(shared);
        }
    }

    /// Does about `most` bytes of work. Returns the count of the bytes read and written.
    pub fn step(&mut self, shared: &Shared, most: u64) -> Result<u64, DiskError> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Over => Ok(0),
            Phase::Note(at, frames) => Ok(self.note(shared, at, frames, most)),
            Phase::Look(at, look) => self.look(shared, at, look, most),
            Phase::Write(at, rewrite) => self.write(shared, at, rewrite, most),
        }
    }

    /// True if the segment has records of a partition that is compacted. One that stands for a lost segment has none.
    fn has_compacted(&self, segment: &Segment) -> bool {
        let index = segment.index();
        index.partitions.keys().any(|partition| self.filter.ruled.contains_key(partition))
    }

    /// Leaves a segment that cannot be read, or that has a gap of a repair, as it is.
    fn leave(&mut self, at: usize) -> Phase {
        self.filter.keeps_tombstones = true;
        self.done.left += 1;
        Phase::Look(at + 1, None)
    }

    fn note(&mut self, shared: &Shared, at: usize, frames: Option<SegmentFrames>, most: u64) -> u64 {
        let Some(segment) = self.segments.get(at).filter(|_| self.filter.latest.len() < MOST_KEYS) else {
            self.next_noted = self.segments.get(at).map_or(0, |segment| segment.header.number);
            self.phase = Phase::Look(0, None);
            return 0;
        };
        if frames.is_none() && !self.has_compacted(segment) {
            self.phase = Phase::Note(at + 1, None);
            return 0;
        }
        let mut frames = frames.unwrap_or_else(|| SegmentFrames::new(shared, segment));
        let begin = frames.at();
        loop {
            match frames.next(shared) {
                Ok(Some(frame)) => {
                    if frame.header.kind == FrameKind::Data {
                        self.filter.note(frame.plain);
                    }
                }
                // A segment that cannot be read is left when the pass looks at it.
                Ok(None) | Err(_) => {
                    self.phase = Phase::Note(at + 1, None);
                    return frames.at() - begin;
                }
            }
            if frames.at() - begin >= most {
                let read = frames.at() - begin;
                self.phase = Phase::Note(at, Some(frames));
                return read;
            }
        }
    }

    fn look(&mut self, shared: &Shared, at: usize, look: Option<Box<Look>>, most: u64) -> Result<u64, DiskError> {
        let Some(segment) = self.segments.get(at).cloned() else { return Ok(0) };
        if look.is_none() && !self.has_compacted(&segment) {
            self.phase = Phase::Look(at + 1, None);
            return Ok(0);
        }
        if segment.headless() {
            self.phase = self.leave(at);
            return Ok(0);
        }
        let mut look = look.unwrap_or_else(|| Box::new(Look::new(shared, &segment)));
        let begin = look.frames.at();
        loop {
            let Look { frames, out, count, after } = &mut *look;
            match frames.next(shared) {
                Ok(Some(frame)) if frame.header.kind == FrameKind::Data => {
                    out.clear();
                    self.filter.filter(frame.plain, frame.header.time, out, count);
                    *after += out.payload().len() as u64;
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    let read = look.frames.at() - begin;
                    self.phase = self.leave(at);
                    return Ok(read);
                }
            }
            if look.frames.at() - begin >= most {
                let read = look.frames.at() - begin;
                self.phase = Phase::Look(at, Some(look));
                return Ok(read);
            }
        }
        let Look { frames, count, after, .. } = *look;
        if count.removed > 0 && after <= count.bytes - count.bytes / WORTH {
            match Rewrite::begin(shared, &segment) {
                Ok(rewrite) => self.phase = Phase::Write(at, Box::new(rewrite)),
                Err(GivenUp::Disk(cause)) => return Err(cause),
                Err(GivenUp::Unread) => self.phase = self.leave(at),
            }
        } else {
            for key in count.superseded.into_iter().flatten() {
                self.filter.latest.keep_elder(key);
            }
            self.note_tombstone(count.tombstone_left);
            self.phase = Phase::Look(at + 1, None);
        }
        Ok(frames.at() - begin)
    }

    /// Notes the earliest tombstone that stays because it is young, or because an older record of its key stays.
    fn note_tombstone(&mut self, left: Option<u64>) {
        self.tombstone_left = self.tombstone_left.into_iter().chain(left).min();
    }

    fn write(&mut self, shared: &Shared, at: usize, mut rewrite: Box<Rewrite>, most: u64) -> Result<u64, DiskError> {
        let stepped = rewrite.step(shared, &mut self.filter, most);
        let (outcome, worked) = match stepped {
            Ok(stepped) => stepped,
            Err(GivenUp::Unread) => {
                rewrite.discard(shared);
                self.phase = self.leave(at);
                return Ok(0);
            }
            Err(GivenUp::Disk(cause)) => {
                rewrite.discard(shared);
                return Err(cause);
            }
        };
        match outcome {
            Rewritten::Begun => self.phase = Phase::Write(at, rewrite),
            Rewritten::Needless => {
                rewrite.discard(shared);
                // Its superseded records stay.
                self.filter.keeps_tombstones = true;
                self.phase = Phase::Look(at + 1, None);
            }
            Rewritten::Whole => {
                let FilterCount { removed, tombstones, tombstone_left, .. } = std::mem::take(&mut rewrite.count);
                match rewrite.replace(shared) {
                    Ok((segment, freed)) => {
                        // The pass no longer needs the old file, whose room is free once nobody reads it.
                        self.segments[at] = segment;
                        self.done.rewritten += 1;
                        self.done.removed += removed;
                        self.done.tombstones += tombstones;
                        self.done.freed += freed;
                        self.note_tombstone(tombstone_left);
                        self.phase = Phase::Look(at + 1, None);
                    }
                    Err(GivenUp::Disk(cause)) => return Err(cause),
                    Err(GivenUp::Unread) => self.phase = self.leave(at),
                }
            }
        }
        Ok(worked)
    }
}

impl Look {
    fn new(shared: &Shared, segment: &Arc<Segment>) -> Self {
        let count = FilterCount { superseded: Some(Vec::new()), ..FilterCount::default() };
        Self { frames: SegmentFrames::new(shared, segment), out: FrameBuilder::new(), count, after: 0 }
    }
}
