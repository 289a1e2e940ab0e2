//! A reader of one partition, from any offset or time, in bounded memory.

use crate::error::ReplayError;
use crate::format::PartitionId;
use crate::read::cursor::Cursor;
use crate::read::record::{Record, Start, Visible};
use crate::read::scan::SharedScan;
use crate::shared::Shared;
use std::sync::Arc;

/// Reads the records of one partition. It holds one block of frames, however many records are left.
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

    /// Searches for the start [time](Start::Time) only among the offsets below `until`: the record at `until` is
    /// returned whatever its time.
    pub fn until(mut self, until: u64) -> Self {
        self.cursor.set_until(until);
        self
    }

    /// Skips gaps without reporting them.
    pub fn pass_gaps(mut self) -> Self {
        self.cursor.pass_gaps();
        self
    }

    /// The next offset that may be returned: the offset after the last returned record.
    pub fn position(&self) -> u64 {
        self.cursor.position()
    }

    /// The partition that this reader reads.
    pub fn partition(&self) -> PartitionId {
        self.cursor.partition()
    }

    /// Returns the next record; `None` if no further record is visible.
    ///
    /// # Errors
    /// Retention deleted the offset, a frame is damaged, a [`Gap`](ReplayError::Gap) of lost records comes next
    /// (reported once: the next call continues after it), or the disk fails.
    // Inlined, because a call would return the record through memory, and a caller that maps the error would wait for
    // that memory.
    #[expect(clippy::should_implement_trait, reason = "lends: the record borrows from the reader")]
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, ReplayError> {
        self.cursor.next(&mut self.scan, u64::MAX)
    }
}
