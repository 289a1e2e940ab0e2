//! Sync jobs, which make written frames durable.

use crate::error::{DiskError, WriteError};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::storage::File;
use crate::write::helper::{Helper, Task};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A job that syncs all frames written before it was created.
pub struct SyncJob {
    shared: Arc<Shared>,
    helper: Option<Arc<Helper>>,
    segments: Vec<Arc<Segment>>,
    position: u64,
    done: bool,
}

impl std::fmt::Debug for SyncJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SyncJob up to {}", self.position)
    }
}

impl SyncJob {
    pub(crate) fn new(
        shared: Arc<Shared>,
        helper: Option<Arc<Helper>>,
        segments: Vec<Arc<Segment>>,
        position: u64,
    ) -> Self {
        Self { shared, helper, segments, position, done: false }
    }

    /// The position in bytes below which all frames are durable once the job has run.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Syncs the frames and moves the durable position, which it returns. Blocks until the disk has finished.
    ///
    /// # Errors
    /// The sync failed, and the journal is poisoned.
    pub fn run(mut self) -> Result<u64, WriteError> {
        self.done = true;
        let begun = Instant::now();
        for segment in &self.segments {
            if let Err(cause) = segment.file.sync() {
                return Err(self.shared.fail(segment.disk_error("sync", &cause)));
            }
        }
        self.shared.synced.add(begun.elapsed());
        self.shared.durable.store(self.position, Ordering::Release);
        self.shared.syncing.store(false, Ordering::Release);
        // All segments but the last one were complete before this sync began.
        let (_, left) = self.segments.split_last().map_or((None, &[][..]), |(last, left)| (Some(last), left));
        if let Some(helper) = &self.helper {
            left.iter().for_each(|segment| helper.submit(Task::Seal(Arc::clone(segment))));
        }
        Ok(self.position)
    }
}

impl Drop for SyncJob {
    /// Poisons the journal if the job was not run: no later job covers its frames, so they would never become durable.
    fn drop(&mut self) {
        if !self.done {
            let cause = std::io::Error::new(std::io::ErrorKind::Interrupted, "the sync was dropped");
            self.shared.fail(DiskError::new("sync", "the journal", &cause));
        }
    }
}
