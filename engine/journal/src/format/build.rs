//! Putting a frame's payload together.

use super::entry::{ENTRY, Extent, FIXED, RUN, RawEntry, RawExtent, RawRun, TIMED};
use super::ids::PartitionId;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

/// Collects what goes into one frame, all or none.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    payload: Vec<u8>,
    entries: u32,
    open: Option<OpenRun>,
    /// What was to append a record's bytes has panicked, or has done something else.
    unsure: bool,
}

/// A state of a builder, to go back to.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Mark {
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
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Bytes that the payload has so far.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether its records need not be counted again.
    pub(crate) fn is_sure(&self) -> bool {
        !self.unsure
    }

    /// How many entries it has.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Forgets all, and keeps the memory.
    pub fn clear(&mut self) {
        self.payload.clear();
        self.entries = 0;
        self.open = None;
        self.unsure = false;
    }

    /// Where it stands: what is added from here on can be taken back by [`rewind`](Self::rewind).
    #[doc(hidden)]
    pub fn mark(&self) -> Mark {
        Mark { len: self.payload.len(), entries: self.entries, open: self.open, unsure: self.unsure }
    }

    /// Takes back what was added since `mark`, also where that was left in the middle of a record.
    #[doc(hidden)]
    pub fn rewind(&mut self, mark: Mark) {
        self.payload.truncate(mark.len);
        (self.entries, self.open, self.unsure) = (mark.entries, mark.open, mark.unsure);
    }

    /// The finished payload.
    pub fn payload(&mut self) -> &[u8] {
        self.close();
        &self.payload
    }

    /// A record; consecutive ones of a partition share a head.
    #[inline]
    pub fn record(&mut self, partition: PartitionId, offset: u64, time: Option<u64>, bytes: &[u8]) {
        self.begin(partition, offset, time, None);
        self.payload.reserve(4 + bytes.len());
        self.payload.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.payload.extend_from_slice(bytes);
    }

    /// A record whose bytes are appended by `fill`, which must only append.
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

    /// A record of a partition whose records are all of one size, which is then written once a run.
    #[inline]
    pub fn fixed(&mut self, partition: PartitionId, offset: u64, time: Option<u64>, bytes: &[u8]) {
        self.begin(partition, offset, time, Some(bytes.len() as u32));
        self.payload.extend_from_slice(bytes);
    }

    /// The same, its `size` bytes appended by `fill`.
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

    /// So many records without times, from `offset` on: their bytes, one behind the other, are appended by `fill`.
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

    /// Goes on with the open run, if these records do, or begins one.
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
        let head = RawEntry { kind: 1, flags, what: U16::new(0), len: U32::new(len as u32) };
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

    fn entry(&mut self, kind: u8, what: u16, parts: &[&[u8]]) {
        self.flagged(kind, 0, what, parts);
    }

    fn flagged(&mut self, kind: u8, flags: u8, what: u16, parts: &[&[u8]]) {
        self.close();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let head = RawEntry { kind, flags, what: U16::new(what), len: U32::new(len as u32) };
        self.payload.extend_from_slice(head.as_bytes());
        parts.iter().for_each(|part| self.payload.extend_from_slice(part));
        self.entries += 1;
    }

    /// Sets a value of state.
    pub fn put(&mut self, what: u16, key: &[u8], value: &[u8]) {
        match u8::try_from(key.len()) {
            Ok(len) => self.flagged(8, len, what, &[key, value]),
            Err(_) => self.entry(2, what, &[&(key.len() as u32).to_le_bytes(), key, value]),
        }
    }

    /// Puts bytes at the end of a value of state, or begins it with them. For who writes a value often and changes little
    /// of it: a snapshot has all of the value, so it has to be set anew before it is long.
    ///
    /// # Panics
    /// The key has more than 255 bytes.
    pub fn append_to(&mut self, what: u16, key: &[u8], bytes: &[u8]) {
        let len = u8::try_from(key.len()).expect("keys of values that are appended to are short");
        self.flagged(6, len, what, &[key, bytes]);
    }

    /// Takes a value of state away.
    pub fn delete(&mut self, what: u16, key: &[u8]) {
        self.entry(3, what, &[key]);
    }

    /// Sets where a partition stands.
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

    /// Says that segments below `number` are no more.
    pub fn floor(&mut self, number: u64) {
        self.entry(5, 0, &[&number.to_le_bytes()]);
    }

    /// Says that a topic is no more, and none of its records: where its partitions stood is forgotten.
    pub fn forget_topic(&mut self, topic: u32) {
        self.entry(7, 0, &[&topic.to_le_bytes()]);
    }
}
