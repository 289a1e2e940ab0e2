//! Records as a reader returns them, and the choice of where reading begins and ends.

/// The place at which a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// The first kept record.
    Earliest,
    /// After the last record.
    Latest,
    /// This offset, or the first record after it if no record has it.
    Offset(u64),
    /// The first record with this time or a later one, in nanoseconds since the epoch.
    Time(u64),
}

/// The last frame that a reader may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visible {
    /// The last written frame. A power cut may lose it.
    Written,
    /// The last durable frame. It survives a power cut.
    #[default]
    Durable,
}

/// A record of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<'r> {
    /// The record's offset in the partition.
    pub offset: u64,
    /// The record's own time, or else its frame's, in nanoseconds since the epoch.
    pub time: u64,
    /// The time at which the record's frame was written, in nanoseconds since the epoch.
    pub written: u64,
    /// The record's bytes.
    pub bytes: &'r [u8],
}
