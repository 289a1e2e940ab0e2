//! A record as it is read, and which ones are.

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// The earliest record that is kept.
    Earliest,
    /// What comes next.
    Latest,
    /// This offset, or the first after it if it is none of a record.
    Offset(u64),
    /// The first record whose time is this or later: nanoseconds since the epoch.
    Time(u64),
}

/// How far a reader sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visible {
    /// What a power cut may take back, too.
    Written,
    /// What survives a power cut.
    #[default]
    Durable,
}

/// A record of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<'r> {
    /// Its offset in the partition.
    pub offset: u64,
    /// Its own time, or that of the frame: nanoseconds since the epoch.
    pub time: u64,
    /// When it was written, whatever its own time: nanoseconds since the epoch.
    pub written: u64,
    /// Its bytes.
    pub bytes: &'r [u8],
}
