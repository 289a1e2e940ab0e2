//! Reading the records of one partition, from any offset or time, in bounded memory.

use crate::error::ReplayError;
use crate::format::PartitionId;
use crate::read::cursor::Cursor;
use crate::read::record::{Record, Start, Visible};
use crate::read::scan::SharedScan;
use crate::shared::Shared;
use std::sync::Arc;

/// Reads the records of one partition. It holds one block of frames, however far behind it is.
pub struct Reader {
    cursor: Cursor,
    scan: SharedScan,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({:?} at {})", self.partition(), self.position())
    }
}

impl Reader {
    pub(crate) fn new(
        shared: Arc<Shared>,
        partition: PartitionId,
        start: Start,
        visible: Visible,
    ) -> Result<Self, ReplayError> {
        let mut cursor = Cursor::new(&shared, partition, start)?;
        let mut scan = SharedScan::new(shared, visible);
        cursor.resume(&mut scan);
        Ok(Self { cursor, scan })
    }

    /// Searches for the start [time](Start::Time) among the offsets below `until` only: the record at `until` is returned
    /// whatever its time is.
    pub fn until(mut self, until: u64) -> Self {
        self.cursor.set_until(until);
        self
    }

    /// Passes over gaps without an error.
    pub fn pass_gaps(mut self) -> Self {
        self.cursor.pass_gaps();
        self
    }

    /// The next offset that may be returned: the one after the last record.
    pub fn position(&self) -> u64 {
        self.cursor.position()
    }

    /// The partition that is read.
    pub fn partition(&self) -> PartitionId {
        self.cursor.partition()
    }

    /// The next record; none if no visible one is left.
    ///
    /// # Errors
    /// Retention has taken the offset away, a frame is damaged, records were lost to damage here ([`Gap`](ReplayError::Gap),
    /// once: the next call goes on behind it), or the disk fails.
    // Inlined, because a call would return the record through memory, and a caller that maps the error would wait for it
    // there.
    #[expect(clippy::should_implement_trait, reason = "lends: the record borrows from the reader")]
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, ReplayError> {
        self.cursor.next(&mut self.scan, u64::MAX)
    }
}
