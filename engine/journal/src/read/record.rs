//! A record as it is read, and where reading begins and ends.

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// At the first record that is kept.
    Earliest,
    /// Behind the last record.
    Latest,
    /// At this offset, or at the first record after it if no record has it.
    Offset(u64),
    /// At the first record with this time or a later one: nanoseconds since the epoch.
    Time(u64),
}

/// Up to where a reader reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visible {
    /// Up to the last written frame, which a power cut may take back.
    Written,
    /// Up to the last durable frame, which survives a power cut.
    #[default]
    Durable,
}

/// A record of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<'r> {
    /// The offset in the partition.
    pub offset: u64,
    /// The record's own time, or that of its frame: nanoseconds since the epoch.
    pub time: u64,
    /// When the record's frame was written, whatever the record's own time is: nanoseconds since the epoch.
    pub written: u64,
    /// The record's bytes.
    pub bytes: &'r [u8],
}
