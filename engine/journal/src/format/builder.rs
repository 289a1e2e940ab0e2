//! The builder of a frame's payload.

use super::entry::{ENTRY, Extent, FIXED, RUN, RawEntry, RawExtent, RawRun, TIMED};
use super::ids::PartitionId;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

/// Collects the records and state changes of one frame. A frame is written whole or not at all.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    payload: Vec<u8>,
    entries: u32,
    open: Option<OpenRun>,
    /// True if the caller's function panicked in [`record_with`](FrameBuilder::record_with), so that the last record
    /// may be incomplete.
    unsure: bool,
}

/// A builder's position in its payload, for [`rewind`](FrameBuilder::rewind).
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Savepoint {
    len: usize,
    entries: u32,
    open: Option<OpenRun>,
    unsure: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OpenRun {
    at: usize,
    partition: PartitionId,
    first: u64,
    count: u32,
    fixed: Option<u32>,
    timed: bool,
}

impl FrameBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// True if the payload has no entries.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Size of the payload so far, in bytes.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// True if no function passed to [`record_with`](Self::record_with) has panicked, so that the records of a run with
    /// lengths need not be counted again.
    pub(crate) fn is_sure(&self) -> bool {
        !self.unsure
    }

    /// Count of the payload's entries.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Removes all entries, but keeps the allocated memory.
    pub fn clear(&mut self) {
        self.payload.clear();
        self.entries = 0;
        self.open = None;
        self.unsure = false;
    }

    /// The present position. [`rewind`](Self::rewind) can remove all that is added after it.
    #[doc(hidden)]
    pub fn savepoint(&self) -> Savepoint {
        Savepoint { len: self.payload.len(), entries: self.entries, open: self.open, unsure: self.unsure }
    }

    /// Removes everything that was added after `savepoint`, incomplete records included.
    #[doc(hidden)]
    pub fn rewind(&mut self, savepoint: Savepoint) {
        self.payload.truncate(savepoint.len);
        (self.entries, self.open, self.unsure) = (savepoint.entries, savepoint.open, savepoint.unsure);
    }

    /// Completes the payload, and returns its bytes.
    pub fn payload(&mut self) -> &[u8] {
        self.close();
        &self.payload
    }

    /// Adds a record. `time` is in nanoseconds since the epoch; `None` if the record has no time of its own. Records of
    /// a partition with consecutive offsets form a run and share its header, if all of them or none have a time.
    #[inline]
    pub fn record(&mut self, partition: PartitionId, offset: u64, time: Option<u64>, bytes: &[u8]) {
        self.begin(partition, offset, time, None);
        self.payload.reserve(4 + bytes.len());
        self.payload.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.payload.extend_from_slice(bytes);
    }

    /// Adds a record whose bytes `fill` appends to the payload. `fill` must only append.
    pub fn record_with(
        &mut self,
        partition: PartitionId,
        offset: u64,
        time: Option<u64>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        self.begin(partition, offset, time, None);
        let at = self.payload.len();
        self.payload.extend_from_slice(&[0; 4]);
        let unsure = std::mem::replace(&mut self.unsure, true);
        fill(&mut self.payload);
        let len = (self.payload.len() - at - 4) as u32;
        self.payload[at..at + 4].copy_from_slice(&len.to_le_bytes());
        self.unsure = unsure;
    }

    /// Adds a record of a partition whose records all have one size. Each run states the size once.
    #[inline]
    pub fn fixed(&mut self, partition: PartitionId, offset: u64, time: Option<u64>, bytes: &[u8]) {
        self.begin(partition, offset, time, Some(bytes.len() as u32));
        self.payload.extend_from_slice(bytes);
    }

    /// Adds a record as [`fixed`](Self::fixed) does. `fill` must append exactly `size` bytes.
    #[doc(hidden)]
    pub fn fixed_with(
        &mut self,
        partition: PartitionId,
        offset: u64,
        time: Option<u64>,
        size: usize,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        self.begin(partition, offset, time, Some(size as u32));
        fill(&mut self.payload);
    }

    /// Adds `count` records of `size` bytes each, without times, with consecutive offsets from `offset` on. `fill` must
    /// append the bytes of all of them; it is not called if `count` is 0.
    #[doc(hidden)]
    pub fn fixed_run(
        &mut self,
        partition: PartitionId,
        offset: u64,
        count: usize,
        size: usize,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        if count > 0 {
            self.run(partition, offset, count as u32, Some(size as u32), false);
            fill(&mut self.payload);
        }
    }

    #[inline]
    fn begin(&mut self, partition: PartitionId, offset: u64, time: Option<u64>, fixed: Option<u32>) {
        self.run(partition, offset, 1, fixed, time.is_some());
        if let Some(time) = time {
            self.payload.extend_from_slice(&time.to_le_bytes());
        }
    }

    /// Extends the open run by these records if they continue it; otherwise begins a new run.
    #[inline]
    fn run(&mut self, partition: PartitionId, offset: u64, count: u32, fixed: Option<u32>, timed: bool) {
        match &mut self.open {
            Some(open)
                if open.partition == partition
                    && open.first + u64::from(open.count) == offset
                    && open.fixed == fixed
                    && open.timed == timed =>
            {
                open.count += count;
            }
            _ => self.open(OpenRun { at: 0, partition, first: offset, count, fixed, timed }),
        }
    }

    #[cold]
    fn open(&mut self, run: OpenRun) {
        self.close();
        let at = self.payload.len();
        self.payload.resize(at + RUN, 0);
        self.open = Some(OpenRun { at, ..run });
        self.entries += 1;
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let flags = if open.fixed.is_some() { FIXED } else { 0 } | if open.timed { TIMED } else { 0 };
        let len = self.payload.len() - open.at - ENTRY;
        let head = RawEntry { kind: 1, flags, state_kind: U16::new(0), len: U32::new(len as u32) };
        let run = RawRun {
            topic: U32::new(open.partition.topic),
            partition: U32::new(open.partition.partition),
            first: U64::new(open.first),
            count: U32::new(open.count),
            size: U32::new(open.fixed.unwrap_or(0)),
        };
        self.payload[open.at..open.at + ENTRY].copy_from_slice(head.as_bytes());
        self.payload[open.at + ENTRY..open.at + RUN].copy_from_slice(run.as_bytes());
    }

    fn entry(&mut self, kind: u8, state_kind: u16, parts: &[&[u8]]) {
        self.flagged(kind, 0, state_kind, parts);
    }

    fn flagged(&mut self, kind: u8, flags: u8, state_kind: u16, parts: &[&[u8]]) {
        self.close();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let head = RawEntry { kind, flags, state_kind: U16::new(state_kind), len: U32::new(len as u32) };
        self.payload.extend_from_slice(head.as_bytes());
        parts.iter().for_each(|part| self.payload.extend_from_slice(part));
        self.entries += 1;
    }

    /// Sets a value of the state, replacing the key's old one.
    pub fn put(&mut self, state_kind: u16, key: &[u8], value: &[u8]) {
        match u8::try_from(key.len()) {
            Ok(len) => self.flagged(8, len, state_kind, &[key, value]),
            Err(_) => self.entry(2, state_kind, &[&(key.len() as u32).to_le_bytes(), key, value]),
        }
    }

    /// Appends bytes to a value of the state, or creates the value. Meant for values that are written often and change
    /// little. Each snapshot holds the whole value, so the caller must replace a long value with [`put`](Self::put).
    ///
    /// # Panics
    /// The key has more than 255 bytes.
    pub fn append_to(&mut self, state_kind: u16, key: &[u8], bytes: &[u8]) {
        let len = u8::try_from(key.len()).expect("keys of values that are appended to are short");
        self.flagged(6, len, state_kind, &[key, bytes]);
    }

    /// Deletes a value of the state.
    pub fn delete(&mut self, state_kind: u16, key: &[u8]) {
        self.entry(3, state_kind, &[key]);
    }

    /// Sets the extent of a partition. Only `reserved` can be lowered: a lower start or end is ignored.
    pub fn extent(&mut self, partition: PartitionId, extent: Extent) {
        let raw = RawExtent {
            topic: U32::new(partition.topic),
            partition: U32::new(partition.partition),
            start: U64::new(extent.start),
            end: U64::new(extent.end),
            reserved: U64::new(extent.reserved),
        };
        self.entry(4, 0, &[raw.as_bytes()]);
    }

    /// Adds an entry which states that segments with numbers below `number` are not needed any more.
    pub fn floor(&mut self, number: u64) {
        self.entry(5, 0, &[&number.to_le_bytes()]);
    }

    /// Adds an entry which states that a topic was deleted. It removes the extents of the topic's partitions.
    pub fn forget_topic(&mut self, topic: u32) {
        self.entry(7, 0, &[&topic.to_le_bytes()]);
    }
}
