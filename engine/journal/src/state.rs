//! The state of a journal: data that must outlive old segments. Each segment begins with a snapshot of the state, so
//! that older segments can be deleted.

use crate::format::{Entries, Entry, Extent, FrameBuilder, Malformed, PartitionId, trusted_entries};
use std::collections::{BTreeMap, BTreeSet, btree_map};

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

    /// Checks the entries of a payload before they are applied. Returns the count of bytes by which they make the state
    /// grow; negative if it shrinks. The error is `Ok` for an offset below its partition's end, `Err` for a malformed
    /// entry.
    pub(crate) fn check(&self, entries: Entries<'_>) -> Result<isize, Result<OffsetGoesBack, Malformed>> {
        let mut after =
            Outcome { state: self, ends: BTreeMap::new(), gone: BTreeSet::new(), sizes: BTreeMap::new(), grown: 0 };
        for entry in entries {
            match entry.map_err(Err)? {
                Entry::Run(run) => {
                    let end = after.end(run.partition);
                    if run.first < *end {
                        return Err(Ok(OffsetGoesBack { partition: run.partition, offset: run.first, end: *end }));
                    }
                    *end = run.end();
                }
                Entry::Extent(partition, extent) => {
                    let end = after.end(partition);
                    *end = extent.end.max(*end);
                }
                Entry::Put { state_kind, key, value } => after.value(state_kind, key, |_| head(key) + value.len()),
                Entry::Append { state_kind, key, bytes } => {
                    let begun = |old| if old == 0 { head(key) } else { old };
                    after.value(state_kind, key, |old| begun(old) + bytes.len());
                }
                Entry::Delete { state_kind, key } => after.value(state_kind, key, |_| 0),
                Entry::TopicGone(topic) => after.topic_gone(topic),
                Entry::Floor(_) => {}
            }
        }
        Ok(after.grown)
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

/// What the first entries of a payload make of a state that they are not applied to yet.
struct Outcome<'a> {
    state: &'a State,
    /// The ends of the partitions that the entries have named since their topics were deleted.
    ends: BTreeMap<PartitionId, u64>,
    /// The topics that the entries have deleted.
    gone: BTreeSet<u32>,
    /// The sizes in bytes of the values that the entries have changed, with their keys; 0 for a deleted one.
    sizes: BTreeMap<(u16, &'a [u8]), usize>,
    /// The count of bytes by which the state grows.
    grown: isize,
}

impl<'a> Outcome<'a> {
    fn known(&self, partition: PartitionId) -> Option<Extent> {
        self.state.extent(partition).filter(|_| !self.gone.contains(&partition.topic))
    }

    /// The end of a partition, which is added to the state if the state does not have it.
    fn end(&mut self, partition: PartitionId) -> &mut u64 {
        let known = self.known(partition);
        let grown = &mut self.grown;
        self.ends.entry(partition).or_insert_with(|| {
            *grown += if known.is_none() { EXTENT as isize } else { 0 };
            known.map_or(0, |extent| extent.end)
        })
    }

    /// Changes the size of a value with its key. `resize` returns the new size from the old one; 0 is no value.
    fn value(&mut self, state_kind: u16, key: &'a [u8], resize: impl FnOnce(usize) -> usize) {
        let old = || self.state.get(state_kind, key).map_or(0, |old| head(key) + old.len());
        let size = self.sizes.entry((state_kind, key)).or_insert_with(old);
        let before = std::mem::replace(size, resize(*size));
        self.grown += *size as isize - before as isize;
    }

    fn topic_gone(&mut self, topic: u32) {
        let of_state = self.state.partitions_of(topic).into_iter().filter(|partition| self.known(*partition).is_some());
        let mut partitions: BTreeSet<_> = of_state.collect();
        partitions.extend(self.ends.keys().filter(|partition| partition.topic == topic));
        self.grown -= (EXTENT * partitions.len()) as isize;
        self.ends.retain(|partition, _| partition.topic != topic);
        self.gone.insert(topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entries;
    use proptest::prelude::*;

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
        assert_eq!(grown as usize, state.bytes);
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

    #[derive(Clone, Debug)]
    enum Change {
        Record(u8, u64),
        Reserve(u8),
        Put(u8, u8),
        Append(u8, u8),
        Delete(u8),
        TopicGone(u8),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0..4_u8, 0..3_u64).prop_map(|(of, next)| Change::Record(of, next)),
            (0..4_u8).prop_map(Change::Reserve),
            (0..3_u8, 0..40_u8).prop_map(|(key, len)| Change::Put(key, len)),
            (0..3_u8, 0..40_u8).prop_map(|(key, len)| Change::Append(key, len)),
            (0..3_u8).prop_map(Change::Delete),
            (0..2_u8).prop_map(Change::TopicGone),
        ]
    }

    proptest! {
        /// A value that was put several times in one frame was once counted by its first value too: a frame that made the
        /// state too large was written, and one that did not was refused.
        #[test]
        fn a_frame_makes_the_state_grow_by_what_its_check_says(
            frames in prop::collection::vec(prop::collection::vec(change(), 0..12), 1..5),
        ) {
            let mut state = State::default();
            for changes in frames {
                let mut frame = FrameBuilder::new();
                for change in changes {
                    let id = |of: u8| PartitionId { topic: u32::from(of / 2), partition: u32::from(of % 2) };
                    match change {
                        Change::Record(of, next) => frame.record(id(of), next, None, b"record"),
                        Change::Reserve(of) => frame.extent(id(of), Extent { reserved: 9, ..Extent::default() }),
                        Change::Put(key, len) => frame.put(3, &[key; 3], &vec![7; usize::from(len)]),
                        Change::Append(key, len) => frame.append_to(3, &[key; 3], &vec![7; usize::from(len)]),
                        Change::Delete(key) => frame.delete(3, &[key; 3]),
                        Change::TopicGone(topic) => frame.forget_topic(u32::from(topic)),
                    }
                }
                let checked = state.check(entries(frame.payload()));
                let mut after = state.clone();
                let applied = entries(frame.payload()).try_for_each(|entry| after.apply(&entry.unwrap()));
                match checked {
                    Ok(grown) => {
                        prop_assert_eq!(applied, Ok(()));
                        prop_assert_eq!(grown, after.bytes as isize - state.bytes as isize);
                        state = after;
                    }
                    Err(refused) => prop_assert_eq!(Err(refused.unwrap()), applied),
                }
            }
        }
    }

    /// A value that is put twice in one frame, first larger and then smaller than before, and the reverse.
    #[test]
    fn a_value_that_is_put_twice_in_one_frame_counts_by_what_is_left_of_it() {
        let mut state = State::default();
        let put = |lens: &[usize]| {
            let mut frame = FrameBuilder::new();
            lens.iter().for_each(|len| frame.put(3, b"key", &vec![7; *len]));
            frame
        };
        state.take(&mut put(&[100]));
        for (lens, grown) in [([10, 150], 50), ([150, 10], -90), ([10, 10], -90)] {
            assert_eq!(state.check(entries(put(&lens).payload())), Ok(grown), "{lens:?}");
        }
    }
}
