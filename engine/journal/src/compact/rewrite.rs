//! Writing a segment anew without the records that have gone.
//!
//! The new file has the old header, the old snapshot frames byte for byte, each data frame with the records that stay in
//! it and its old time and opening, then the changes of the state that the segment's frames made, all at once, and the
//! [closing mark](crate::compact::closing_mark). Frames without records are left out. So a survey that reads the segment
//! comes to the same state behind it.

use crate::compact::filter::{FilterCount, RecordFilter};
use crate::compact::new_file::NewFile;
use crate::compact::segment_frames::{SegmentFrame, SegmentFrames};
use crate::error::{DiskError, ReplayError};
use crate::format::{Entry, Extent, FrameBuilder, FrameHeader, FrameKind, trusted_entries};
use crate::limits::frame_limit;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::state::State;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A segment that is being written anew, under a temporary name.
pub(super) struct Rewrite {
    old: Arc<Segment>,
    frames: SegmentFrames,
    new: NewFile,
    /// The state that the segment begins with, and the state after the last frame read.
    head: State,
    state: State,
    out: FrameBuilder,
    last: Option<FrameHeader>,
    pub count: FilterCount,
}

/// What a step of a rewrite came to.
pub(super) enum Rewritten {
    /// There is more to do.
    Begun,
    /// The new file is written and synced, and waits for its name.
    Whole,
    /// The new file would not be smaller than the old one.
    Needless,
}

/// Why a rewrite was given up.
pub(super) enum GivenUp {
    /// The old segment cannot be read.
    Unread,
    Disk(DiskError),
}

impl From<ReplayError> for GivenUp {
    fn from(_: ReplayError) -> Self {
        Self::Unread
    }
}

impl From<DiskError> for GivenUp {
    fn from(cause: DiskError) -> Self {
        Self::Disk(cause)
    }
}

impl Rewrite {
    pub fn begin(shared: &Shared, old: &Arc<Segment>) -> Result<Self, GivenUp> {
        Ok(Self {
            old: Arc::clone(old),
            frames: SegmentFrames::new(shared, old),
            new: NewFile::create(shared, &old.header)?,
            head: State::default(),
            state: State::default(),
            out: FrameBuilder::new(),
            last: None,
            count: FilterCount::default(),
        })
    }

    /// Removes the temporary file.
    pub fn discard(self, shared: &Shared) {
        self.new.discard(shared);
    }

    /// Reads and writes about `most` bytes. Returns the count of the bytes read and written.
    pub fn step(&mut self, shared: &Shared, filter: &mut RecordFilter, most: u64) -> Result<(Rewritten, u64), GivenUp> {
        let (read_from, written_from) = (self.frames.at(), self.new.at);
        let done = |it: &Self| it.frames.at() - read_from + (it.new.at - written_from);
        loop {
            let Some(SegmentFrame { header, stored, plain }) = self.frames.next(shared)? else {
                self.finish(shared)?;
                let outcome = if self.new.at < self.old.end() { Rewritten::Whole } else { Rewritten::Needless };
                let worked = done(self);
                return Ok((outcome, worked));
            };
            self.last = Some(header);
            match header.kind {
                FrameKind::Snapshot { last, .. } => {
                    for entry in trusted_entries(plain).flatten() {
                        let _ = self.state.apply(&entry);
                    }
                    if last {
                        self.head = self.state.clone();
                    }
                    self.new.copy(shared, header, stored)?;
                }
                FrameKind::Data => {
                    self.out.clear();
                    let mut has_state = false;
                    for entry in trusted_entries(plain).flatten() {
                        has_state |= !matches!(entry, Entry::Run(_));
                        // A partition begins with what first names it, also if that record goes.
                        let begins = match entry {
                            Entry::Run(run) => Some((run.partition, run.first)),
                            Entry::Extent(partition, extent) => Some((partition, extent.start)),
                            _ => None,
                        };
                        if let Some((partition, start)) = begins.filter(|(of, _)| self.state.extent(*of).is_none()) {
                            self.out.extent(partition, Extent { start, end: start, reserved: 0 });
                        }
                        let _ = self.state.apply(&entry);
                    }
                    let begins = !self.out.is_empty();
                    let all_stay = filter.filter(plain, header.time, &mut self.out, &mut self.count);
                    if all_stay && !has_state && !begins {
                        self.new.write(shared, header, stored, plain)?;
                    } else if !self.out.is_empty() {
                        self.new.write_payload(shared, header, &mut self.out)?;
                    }
                }
                FrameKind::Mark => {}
                FrameKind::Gap => return Err(GivenUp::Unread),
            }
            let worked = done(self);
            if worked >= most {
                return Ok((Rewritten::Begun, worked));
            }
        }
    }

    /// Writes the changes of the state and the closing mark, and syncs the file.
    fn finish(&mut self, shared: &Shared) -> Result<(), GivenUp> {
        let Some(last) = self.last else { return Err(GivenUp::Unread) };
        for mut frame in self.head.changes_to(&self.state, frame_limit(self.old.header.size).min(256 << 10)) {
            self.new.write_payload(shared, last, &mut frame)?;
        }
        self.new.close(shared, last, self.frames.last())?;
        Ok(())
    }

    /// Gives the new file the segment's name, and replaces the segment of the open journal. Returns the new segment, and the
    /// count of bytes by which its file is smaller.
    pub fn replace(self, shared: &Shared) -> Result<(Arc<Segment>, u64), GivenUp> {
        // Readers that have the old segment go on reading the old file.
        let held = self.old.file.hold();
        held.map_err(|cause| GivenUp::Disk(self.old.disk_error("open", &cause)))?;
        let number = self.old.header.number;
        self.new.rename(shared, &self.old.name)?;
        // The new name is durable before the index of the new file gets its own. If this fails, the old file or the new one
        // has the name after a crash, and both will do.
        let synced = shared.storage.sync_dir();
        shared.files.forget(number);
        let new = Arc::new(self.old.compacted(shared.files.file(number), self.new.at, self.new.index.clone()));
        {
            let mut segments = shared.segments_mut();
            // Retention may have released the segment meanwhile; then its file is removed by name later.
            if let Some(place) = segments.iter_mut().find(|segment| Arc::ptr_eq(segment, &self.old)) {
                *place = Arc::clone(&new);
            }
        }
        // Errors are ignored: the next opening reads a segment without a valid index, and writes the index.
        if synced.is_ok() {
            let _ = new.seal(&*shared.storage);
        }
        Ok((new, self.old.end() - self.new.at))
    }
}

impl State {
    /// The frames, of at most about `part` bytes each, that turn this state into `after`, whose partitions have grown since.
    fn changes_to(&self, after: &State, part: usize) -> Vec<FrameBuilder> {
        let (mut done, mut frame) = (Vec::new(), FrameBuilder::new());
        let mut room = |frame: &mut FrameBuilder| {
            if frame.len() >= part {
                done.push(std::mem::take(frame));
            }
        };
        if after.floor() > self.floor() {
            frame.floor(after.floor());
        }
        let gone: BTreeSet<u32> = self
            .extents()
            .filter(|(partition, _)| after.extent(*partition).is_none())
            .map(|(partition, _)| partition.topic)
            .collect();
        gone.iter().for_each(|topic| frame.forget_topic(*topic));
        for (partition, extent) in
            after.extents().filter(|(partition, extent)| self.extent(*partition) != Some(*extent))
        {
            room(&mut frame);
            frame.extent(partition, extent);
        }
        let kinds: BTreeSet<u16> = self.kinds().chain(after.kinds()).map(|(kind, _)| kind).collect();
        for kind in kinds {
            for (key, _) in self.values(kind).filter(|(key, _)| after.get(kind, key).is_none()) {
                room(&mut frame);
                frame.delete(kind, key);
            }
            for (key, value) in after.values(kind).filter(|(key, value)| self.get(kind, key) != Some(*value)) {
                room(&mut frame);
                frame.put(kind, key, value);
            }
        }
        if !frame.is_empty() {
            done.push(frame);
        }
        done
    }
}
