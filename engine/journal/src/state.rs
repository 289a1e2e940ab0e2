//! The state of a journal: data that must outlive old segments. Each segment begins with a snapshot of the state, so
//! that older segments can be deleted.

use crate::format::{Entries, Entry, Extent, FrameBuilder, Malformed, PartitionId, trusted_entries};
use std::collections::BTreeMap;
use std::collections::btree_map;

/// The extents of the partitions, and the engine's values by kind and key: catalogue, committed offsets, producers,
/// leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    extents: BTreeMap<PartitionId, Extent>,
    values: BTreeMap<(u16, Vec<u8>), Vec<u8>>,
    floor: u64,
    bytes: usize,
}

const EXTENT: usize = 40;
const FLOOR: usize = 16;

/// Size of a value's entry in bytes, without the value.
fn head(key: &[u8]) -> usize {
    // A key of up to 255 bytes has its length in the entry's head; a longer key has it in four more bytes.
    key.len() + if key.len() <= usize::from(u8::MAX) { 8 } else { 12 }
}

/// The error for an offset below the end of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetGoesBack {
    pub partition: PartitionId,
    pub offset: u64,
    pub end: u64,
}

impl State {
    /// The extent of a partition; `None` if the journal does not know the partition.
    pub fn extent(&self, partition: PartitionId) -> Option<Extent> {
        self.extents.get(&partition).copied()
    }

    /// All partitions with their extents, in ascending order.
    pub fn extents(&self) -> impl ExactSizeIterator<Item = (PartitionId, Extent)> {
        self.extents.iter().map(|(partition, extent)| (*partition, *extent))
    }

    /// The known partitions of a topic, in ascending order.
    pub(crate) fn partitions_of(&self, topic: u32) -> Vec<PartitionId> {
        let from = PartitionId { topic, partition: 0 };
        let to = PartitionId { topic, partition: u32::MAX };
        self.extents.range(from..=to).map(|(partition, _)| *partition).collect()
    }

    /// The value of a key; `None` if the key has no value.
    pub fn get(&self, state_kind: u16, key: &[u8]) -> Option<&[u8]> {
        self.values.get(&(state_kind, key.to_vec())).map(Vec::as_slice)
    }

    /// Keys and values of a kind, ordered by key.
    pub fn values(&self, state_kind: u16) -> impl Iterator<Item = (&[u8], &[u8])> {
        let of_kind =
            self.values.range((state_kind, Vec::new())..).take_while(move |((kind, _), _)| *kind == state_kind);
        of_kind.map(|((_, key), value)| (key.as_slice(), value.as_slice()))
    }

    /// The kinds that have values, each with the count of its values.
    pub fn kinds(&self) -> impl Iterator<Item = (u16, usize)> {
        let mut kinds = BTreeMap::new();
        self.values.keys().for_each(|(state_kind, _)| *kinds.entry(*state_kind).or_insert(0) += 1);
        kinds.into_iter()
    }

    /// The number of the first segment that is still needed.
    pub fn floor(&self) -> u64 {
        self.floor.max(1)
    }

    /// Total size of a snapshot's payloads, in bytes.
    pub fn size(&self) -> usize {
        self.bytes + FLOOR
    }

    /// Checks the entries of a payload before they are applied. Returns the count of bytes by which the state would
    /// grow; deletions are not counted, so it may be too high. It may be too low if the entries replace one old value
    /// several times. The error is `Ok` for an offset below its partition's end, `Err` for a malformed entry.
    pub(crate) fn check(&self, entries: Entries<'_>) -> Result<isize, Result<OffsetGoesBack, Malformed>> {
        let mut ends = BTreeMap::new();
        let mut grown = 0;
        for entry in entries {
            match entry.map_err(Err)? {
                Entry::Run(run) => {
                    let known = self.extents.get(&run.partition);
                    let end = ends.entry(run.partition).or_insert_with(|| known.map_or(0, |extent| extent.end));
                    if run.first < *end {
                        return Err(Ok(OffsetGoesBack { partition: run.partition, offset: run.first, end: *end }));
                    }
                    *end = run.end();
                    grown += if known.is_none() { EXTENT as isize } else { 0 };
                }
                Entry::Extent(partition, extent) => {
                    let known = self.extents.get(&partition);
                    let end = ends.entry(partition).or_insert_with(|| known.map_or(0, |extent| extent.end));
                    *end = extent.end.max(*end);
                    grown += if known.is_none() { EXTENT as isize } else { 0 };
                }
                Entry::Put { state_kind, key, value } => {
                    let old = self.get(state_kind, key).map_or(0, |old| head(key) + old.len());
                    grown += (head(key) + value.len()) as isize - old as isize;
                }
                Entry::Append { state_kind, key, bytes } => {
                    let begun = if self.get(state_kind, key).is_none() { head(key) } else { 0 };
                    grown += (begun + bytes.len()) as isize;
                }
                Entry::Delete { .. } | Entry::Floor(_) | Entry::TopicGone(_) => {}
            }
        }
        Ok(grown)
    }

    /// Moves the end of each partition up to `reserved`. Offsets below it may have been issued before a crash, so they
    /// are not used again.
    pub(crate) fn skip_reserved(&mut self) {
        for extent in self.extents.values_mut() {
            extent.end = extent.end.max(extent.reserved);
        }
    }

    /// Moves a partition's start back to a gap before its first record, so that readers report the gap.
    pub(crate) fn extend_back(&mut self, partition: PartitionId, start: u64) {
        if let Some(extent) = self.extents.get_mut(&partition) {
            extent.start = extent.start.min(start);
        }
    }

    /// Applies the entries of a frame. A run below the end of its partition is skipped.
    #[doc(hidden)]
    pub fn take(&mut self, frame: &mut FrameBuilder) {
        for entry in trusted_entries(frame.payload()).flatten() {
            let _ = self.apply(&entry);
        }
    }

    /// Applies an entry. After an error, which only a run can cause, the state is as before.
    pub(crate) fn apply(&mut self, entry: &Entry<'_>) -> Result<(), OffsetGoesBack> {
        match *entry {
            Entry::Run(run) => {
                let extent = self.known(run.partition, run.first);
                if run.first < extent.end {
                    return Err(OffsetGoesBack { partition: run.partition, offset: run.first, end: extent.end });
                }
                extent.end = run.end();
            }
            Entry::Extent(partition, extent) => {
                let known = self.known(partition, extent.start);
                // Start and end never decrease, whatever order frames set them in.
                let (start, end) = (known.start.max(extent.start), known.end.max(extent.end));
                *known = Extent { start, end, reserved: extent.reserved };
            }
            Entry::Put { state_kind, key, value } => {
                self.bytes += head(key) + value.len();
                if let Some(old) = self.values.insert((state_kind, key.to_vec()), value.to_vec()) {
                    self.bytes -= head(key) + old.len();
                }
            }
            Entry::Append { state_kind, key, bytes } => match self.values.entry((state_kind, key.to_vec())) {
                btree_map::Entry::Occupied(mut there) => {
                    self.bytes += bytes.len();
                    there.get_mut().extend_from_slice(bytes);
                }
                btree_map::Entry::Vacant(free) => {
                    self.bytes += head(key) + bytes.len();
                    free.insert(bytes.to_vec());
                }
            },
            Entry::Delete { state_kind, key } => {
                if let Some(old) = self.values.remove(&(state_kind, key.to_vec())) {
                    self.bytes -= head(key) + old.len();
                }
            }
            Entry::Floor(number) => self.floor = self.floor.max(number),
            Entry::TopicGone(topic) => {
                let gone = self.partitions_of(topic);
                self.bytes -= EXTENT * gone.len();
                gone.iter().for_each(|partition| _ = self.extents.remove(partition));
            }
        }
        Ok(())
    }

    fn known(&mut self, partition: PartitionId, start: u64) -> &mut Extent {
        match self.extents.entry(partition) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(free) => {
                self.bytes += EXTENT;
                free.insert(Extent { start, ..Extent::default() })
            }
        }
    }

    /// Returns the frames of a snapshot. Each has a payload of at most `part` bytes, unless a single entry is larger.
    #[doc(hidden)]
    pub fn snapshot(&self, part: usize) -> Vec<FrameBuilder> {
        let mut done = Vec::new();
        let mut frame = FrameBuilder::new();
        let mut room = |frame: &mut FrameBuilder, len: usize| {
            if frame.len() + len > part && !frame.is_empty() {
                done.push(std::mem::take(frame));
            }
        };
        frame.floor(self.floor());
        for (partition, extent) in self.extents() {
            room(&mut frame, EXTENT);
            frame.extent(partition, extent);
        }
        for ((state_kind, key), value) in &self.values {
            room(&mut frame, head(key) + value.len());
            frame.put(*state_kind, key, value);
        }
        done.push(frame);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entries;

    #[test]
    fn a_snapshot_in_parts_gives_the_state_back_and_its_size_is_known() {
        let mut state = State::default();
        let mut frame = FrameBuilder::new();
        for topic in 0..20 {
            let partition = PartitionId { topic, partition: topic % 3 };
            frame.extent(partition, Extent { start: 5, end: 9, reserved: 50 });
            frame.record(partition, 11, None, b"record");
            frame.put(3, &[topic as u8], &vec![7; topic as usize]);
        }
        frame.put(3, &[4], b"again");
        frame.append_to(3, &[4], b" and again");
        frame.append_to(4, &[4], b"from nothing");
        frame.delete(3, &[5]);
        frame.floor(6);
        let grown = state.check(entries(frame.payload())).unwrap();
        for entry in entries(frame.payload()) {
            state.apply(&entry.unwrap()).unwrap();
        }
        assert!(grown as usize >= state.bytes, "a bound, deletions not counted");
        let mut parts = state.snapshot(100);
        assert!(parts.len() > 5);
        let mut again = State::default();
        let mut bytes = 0;
        for part in &mut parts {
            bytes += part.payload().len();
            for entry in entries(part.payload()) {
                again.apply(&entry.unwrap()).unwrap();
            }
        }
        assert_eq!(again, state);
        assert_eq!(bytes, state.size());
        assert_eq!(state.values(3).count(), 19);
        assert_eq!(state.get(3, &[4]), Some(&b"again and again"[..]));
        assert_eq!(state.get(4, &[4]), Some(&b"from nothing"[..]));
        let back = PartitionId { topic: 1, partition: 1 };
        frame.clear();
        frame.record(back, 11, None, b"again");
        assert_eq!(
            state.check(entries(frame.payload())),
            Err(Ok(OffsetGoesBack { partition: back, offset: 11, end: 12 }))
        );
    }
}
