//! The entries of a frame's payload: records of partitions, and changes of the state.

use super::ids::PartitionId;
use super::layout::MAX_POSITION;
use super::malformed::Malformed;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The offsets of a partition. Its records have offsets in `start..end`. No offset at or above both `end` and
/// `reserved` was ever issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The first kept offset. Below it records are deleted or were never written.
    pub start: u64,
    /// The offset after the last record.
    pub end: u64,
    /// The offset after the last reserved one: offsets below it may have been issued without a record.
    pub reserved: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawEntry {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) state_kind: U16,
    pub(super) len: U32,
}

pub(super) const ENTRY: usize = 8;
/// Size of a run without its records, in bytes.
pub(crate) const RUN: usize = 32;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawRun {
    pub(super) topic: U32,
    pub(super) partition: U32,
    pub(super) first: U64,
    pub(super) count: U32,
    pub(super) size: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawExtent {
    pub(super) topic: U32,
    pub(super) partition: U32,
    pub(super) start: U64,
    pub(super) end: U64,
    pub(super) reserved: U64,
}

pub(super) const FIXED: u8 = 1;
pub(super) const TIMED: u8 = 2;

/// Records of one partition with consecutive offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'p> {
    /// The partition.
    pub partition: PartitionId,
    /// The first record's offset.
    pub first: u64,
    /// Count of the records.
    pub count: u32,
    /// The size of every record in bytes; `None` if each record states its own.
    fixed: Option<u32>,
    timed: bool,
    body: &'p [u8],
}

/// An entry of a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'p> {
    /// Records of a partition.
    Run(Run<'p>),
    /// Sets a value of the state.
    Put {
        /// The kind of state: a number that the engine chooses, except kind 6, the journal's own list of gaps.
        state_kind: u16,
        /// The key.
        key: &'p [u8],
        /// The value.
        value: &'p [u8],
    },
    /// Deletes a value of the state.
    Delete {
        /// The kind of state.
        state_kind: u16,
        /// The key.
        key: &'p [u8],
    },
    /// Sets the extent of a partition. Only `reserved` can be lowered: a lower start or end is ignored.
    Extent(PartitionId, Extent),
    /// Segments with numbers below this one are not needed any more.
    Floor(u64),
    /// Appends bytes to a value of the state, or creates the value. Since format 2.
    Append {
        /// The kind of state.
        state_kind: u16,
        /// The key.
        key: &'p [u8],
        /// The bytes to append.
        bytes: &'p [u8],
    },
    /// The topic with this number was deleted, so its partitions have no extents any more. Since format 2.
    TopicGone(u32),
}

impl<'p> Run<'p> {
    /// The offset after the last record.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// The bytes of all records, their common size in bytes (`None` if each states its own), and true if each record
    /// has a time.
    pub(crate) fn shape(&self) -> (&'p [u8], (Option<u32>, bool)) {
        (self.body, (self.fixed, self.timed))
    }

    /// Size of the records with their lengths and times, in bytes.
    pub fn bytes(&self) -> u64 {
        self.body.len() as u64
    }

    /// True if each record has a time of its own.
    pub fn timed(&self) -> bool {
        self.timed
    }

    /// An iterator over the records.
    pub fn records(&self) -> Records<'p> {
        Records { left: self.body, next: self.first, count: self.count, fixed: self.fixed, timed: self.timed }
    }
}

/// An iterator over the records of a [`Run`].
#[derive(Clone, Debug)]
pub struct Records<'p> {
    left: &'p [u8],
    next: u64,
    count: u32,
    fixed: Option<u32>,
    timed: bool,
}

/// A record as a frame stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRecord<'p> {
    /// The record's offset.
    pub offset: u64,
    /// The record's own time in nanoseconds since the epoch; `None` if it has none.
    pub time: Option<u64>,
    /// The record's bytes.
    pub bytes: &'p [u8],
}

fn split<'p>(left: &mut &'p [u8], len: usize) -> Option<&'p [u8]> {
    let (taken, rest) = left.split_at_checked(len)?;
    *left = rest;
    Some(taken)
}

fn split_u64(left: &mut &[u8]) -> Option<u64> {
    split(left, 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn split_u32(left: &mut &[u8]) -> Option<u32> {
    split(left, 4)?.try_into().ok().map(u32::from_le_bytes)
}

impl<'p> Iterator for Records<'p> {
    type Item = StoredRecord<'p>;

    /// Ends early if the run is too short, which [`entries`] rules out.
    fn next(&mut self) -> Option<StoredRecord<'p>> {
        self.count = self.count.checked_sub(1)?;
        let time = if self.timed { Some(split_u64(&mut self.left)?) } else { None };
        let len = match self.fixed {
            Some(size) => size,
            None => split_u32(&mut self.left)?,
        };
        let bytes = split(&mut self.left, len as usize)?;
        let offset = self.next;
        self.next += 1;
        Some(StoredRecord { offset, time, bytes })
    }
}

/// Returns an iterator over the entries of a payload whose checksum matched.
///
/// # Errors
/// The iterator ends after an error: an entry longer than the payload, an unknown kind, a run that its records do not
/// fill exactly, or a number above the format's limits.
pub fn entries(payload: &[u8]) -> Entries<'_> {
    Entries { left: payload, known: false }
}

/// Returns an iterator over the entries of a payload that a builder made or that was checked before. It does not count
/// the records of a run again.
pub(crate) fn trusted_entries(payload: &[u8]) -> Entries<'_> {
    Entries { left: payload, known: true }
}

/// An iterator over the entries of a payload; see [`entries`].
#[derive(Clone, Debug)]
pub struct Entries<'p> {
    left: &'p [u8],
    known: bool,
}

impl<'p> Iterator for Entries<'p> {
    type Item = Result<Entry<'p>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.left = &[];
        }
        Some(entry)
    }
}

impl<'p> Entries<'p> {
    fn entry(&mut self) -> Result<Entry<'p>, Malformed> {
        let head = split(&mut self.left, ENTRY).ok_or(Malformed::Entry)?;
        let head = RawEntry::read_from_bytes(head).map_err(|_| Malformed::Entry)?;
        let mut body = split(&mut self.left, head.len.get() as usize).ok_or(Malformed::Entry)?;
        let state_kind = head.state_kind.get();
        match head.kind {
            1 => run(head.flags, body, self.known),
            2 => {
                let len = split_u32(&mut body).ok_or(Malformed::Entry)?;
                let key = split(&mut body, len as usize).ok_or(Malformed::Entry)?;
                Ok(Entry::Put { state_kind, key, value: body })
            }
            3 => Ok(Entry::Delete { state_kind, key: body }),
            4 => {
                let raw = RawExtent::read_from_bytes(body).map_err(|_| Malformed::Entry)?;
                let partition = PartitionId { topic: raw.topic.get(), partition: raw.partition.get() };
                let extent = Extent { start: raw.start.get(), end: raw.end.get(), reserved: raw.reserved.get() };
                let is_sane = extent.start <= extent.end && extent.end.max(extent.reserved) <= MAX_POSITION;
                if is_sane { Ok(Entry::Extent(partition, extent)) } else { Err(Malformed::Entry) }
            }
            5 => match split_u64(&mut body) {
                Some(number) if number < MAX_POSITION => Ok(Entry::Floor(number)),
                _ => Err(Malformed::Entry),
            },
            6 => {
                let key = split(&mut body, usize::from(head.flags)).ok_or(Malformed::Entry)?;
                Ok(Entry::Append { state_kind, key, bytes: body })
            }
            8 => {
                let key = split(&mut body, usize::from(head.flags)).ok_or(Malformed::Entry)?;
                Ok(Entry::Put { state_kind, key, value: body })
            }
            7 => Ok(Entry::TopicGone(split_u32(&mut body).ok_or(Malformed::Entry)?)),
            _ => Err(Malformed::Entry),
        }
    }
}

fn run(flags: u8, body: &[u8], known: bool) -> Result<Entry<'_>, Malformed> {
    let (raw, body) = RawRun::read_from_prefix(body).map_err(|_| Malformed::Entry)?;
    let fixed = (flags & FIXED != 0).then_some(raw.size.get());
    let run = Run {
        partition: PartitionId { topic: raw.topic.get(), partition: raw.partition.get() },
        first: raw.first.get(),
        count: raw.count.get(),
        fixed,
        timed: flags & TIMED != 0,
        body,
    };
    // Counting adds 1 to the offset for each record. With an end within the limit this cannot overflow.
    if run.count == 0 || run.end() > MAX_POSITION {
        return Err(Malformed::Entry);
    }
    let whole = match fixed {
        Some(size) => {
            let each = u64::from(size) + if run.timed { 8 } else { 0 };
            u64::from(run.count).checked_mul(each) == Some(body.len() as u64)
        }
        None if known => true,
        None => {
            let mut records = run.records();
            let counted = records.by_ref().count();
            counted == run.count as usize && records.left.is_empty()
        }
    };
    if whole { Ok(Entry::Run(run)) } else { Err(Malformed::Entry) }
}

const _: () = {
    assert!(size_of::<RawEntry>() == ENTRY);
    assert!(size_of::<RawEntry>() + size_of::<RawRun>() == RUN);
};
