//! What must outlive elder segments: each segment begins with all of it, so that elders can go.

use super::format::{Entries, Entry, Extent, FrameBuilder, Malformed, PartitionId, known_entries};
use std::collections::BTreeMap;
use std::collections::btree_map;

/// Where the partitions stand, and values that the engine keeps: catalogue, committed offsets, producers, leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    extents: BTreeMap<PartitionId, Extent>,
    values: BTreeMap<(u16, Vec<u8>), Vec<u8>>,
    floor: u64,
    bytes: usize,
}

const EXTENT: usize = 40;
const FLOOR: usize = 16;

/// Bytes of a value's entry before the value.
fn head(key: &[u8]) -> usize {
    // A longer key has a length of its own.
    key.len() + if key.len() <= usize::from(u8::MAX) { 8 } else { 12 }
}

/// Offsets of a partition would go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GoesBack {
    pub partition: PartitionId,
    pub offset: u64,
    pub end: u64,
}

impl State {
    /// Where a partition stands, if the journal knows it.
    pub fn extent(&self, partition: PartitionId) -> Option<Extent> {
        self.extents.get(&partition).copied()
    }

    /// All partitions.
    pub fn extents(&self) -> impl ExactSizeIterator<Item = (PartitionId, Extent)> {
        self.extents.iter().map(|(partition, extent)| (*partition, *extent))
    }

    /// The partitions of a topic.
    pub(crate) fn partitions_of(&self, topic: u32) -> Vec<PartitionId> {
        let from = PartitionId { topic, partition: 0 };
        let to = PartitionId { topic, partition: u32::MAX };
        self.extents.range(from..=to).map(|(partition, _)| *partition).collect()
    }

    /// A value.
    pub fn get(&self, what: u16, key: &[u8]) -> Option<&[u8]> {
        self.values.get(&(what, key.to_vec())).map(Vec::as_slice)
    }

    /// All values of a kind, in the order of their keys.
    pub fn values(&self, what: u16) -> impl Iterator<Item = (&[u8], &[u8])> {
        let of_kind = self.values.range((what, Vec::new())..).take_while(move |((kind, _), _)| *kind == what);
        of_kind.map(|((_, key), value)| (key.as_slice(), value.as_slice()))
    }

    /// The kinds of values there are, and how many of each.
    pub fn kinds(&self) -> impl Iterator<Item = (u16, usize)> {
        let mut kinds = BTreeMap::new();
        self.values.keys().for_each(|(what, _)| *kinds.entry(*what).or_insert(0) += 1);
        kinds.into_iter()
    }

    /// The first segment that is needed.
    pub fn floor(&self) -> u64 {
        self.floor.max(1)
    }

    /// Bytes of a snapshot.
    pub fn size(&self) -> usize {
        self.bytes + FLOOR
    }

    /// What a payload would do, without doing it: the offsets that go back, if any, and the bytes that it adds.
    pub(crate) fn check(&self, entries: Entries<'_>) -> Result<isize, Result<GoesBack, Malformed>> {
        let mut ends = BTreeMap::new();
        let mut grown = 0;
        for entry in entries {
            match entry.map_err(Err)? {
                Entry::Run(run) => {
                    let known = self.extents.get(&run.partition);
                    let end = ends.entry(run.partition).or_insert_with(|| known.map_or(0, |extent| extent.end));
                    if run.first < *end {
                        return Err(Ok(GoesBack { partition: run.partition, offset: run.first, end: *end }));
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
                Entry::Put { what, key, value } => {
                    let old = self.get(what, key).map_or(0, |old| head(key) + old.len());
                    grown += (head(key) + value.len()) as isize - old as isize;
                }
                Entry::Append { what, key, bytes } => {
                    let begun = if self.get(what, key).is_none() { head(key) } else { 0 };
                    grown += (begun + bytes.len()) as isize;
                }
                Entry::Delete { .. } | Entry::Floor(_) | Entry::TopicGone(_) => {}
            }
        }
        Ok(grown)
    }

    /// After a crash: offsets that were reserved may have been issued, so partitions go on behind them.
    pub(crate) fn go_on(&mut self) {
        for extent in self.extents.values_mut() {
            extent.end = extent.end.max(extent.reserved);
        }
    }

    /// A partition of which no record stands before a gap begins with that gap, so that its readers are told of it.
    pub(crate) fn reach_back(&mut self, partition: PartitionId, start: u64) {
        if let Some(extent) = self.extents.get_mut(&partition) {
            extent.start = extent.start.min(start);
        }
    }

    /// Takes what a frame says, before it is written or after.
    #[doc(hidden)]
    pub fn take(&mut self, frame: &mut FrameBuilder) {
        for entry in known_entries(frame.payload()).flatten() {
            let _ = self.apply(&entry);
        }
    }

    /// Takes what an entry says.
    pub(crate) fn apply(&mut self, entry: &Entry<'_>) -> Result<(), GoesBack> {
        match *entry {
            Entry::Run(run) => {
                let extent = self.known(run.partition, run.first);
                if run.first < extent.end {
                    return Err(GoesBack { partition: run.partition, offset: run.first, end: extent.end });
                }
                extent.end = run.end();
            }
            Entry::Extent(partition, extent) => {
                let known = self.known(partition, extent.start);
                // Start and end never go back, wherever in the frame they are set.
                let (start, end) = (known.start.max(extent.start), known.end.max(extent.end));
                *known = Extent { start, end, reserved: extent.reserved };
            }
            Entry::Put { what, key, value } => {
                self.bytes += head(key) + value.len();
                if let Some(old) = self.values.insert((what, key.to_vec()), value.to_vec()) {
                    self.bytes -= head(key) + old.len();
                }
            }
            Entry::Append { what, key, bytes } => match self.values.entry((what, key.to_vec())) {
                btree_map::Entry::Occupied(mut there) => {
                    self.bytes += bytes.len();
                    there.get_mut().extend_from_slice(bytes);
                }
                btree_map::Entry::Vacant(free) => {
                    self.bytes += head(key) + bytes.len();
                    free.insert(bytes.to_vec());
                }
            },
            Entry::Delete { what, key } => {
                if let Some(old) = self.values.remove(&(what, key.to_vec())) {
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

    /// The frames of a snapshot, none much larger than `part`.
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
        for ((what, key), value) in &self.values {
            room(&mut frame, head(key) + value.len());
            frame.put(*what, key, value);
        }
        done.push(frame);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::entries;
    use super::*;

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
        assert_eq!(state.check(entries(frame.payload())), Err(Ok(GoesBack { partition: back, offset: 11, end: 12 })));
    }
}
