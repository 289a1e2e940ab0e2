//! Catching up: how a replay or a group reads one partition from the journal, and then continues in the ring.
//!
//! When the reader is at most a quarter of the ring behind, or has read all visible records, it joins the ring at the
//! lowest gating position of that moment (gating positions are those that producers may not overtake by a whole ring).
//! From that offset on, no slot is overwritten before the reader has read it. Every event below that offset is written,
//! because the committer's own position is one of the gating positions. So the reader reads the journal up to that
//! offset, or a little further, and the ring from exactly the offset at which it leaves the journal. Because it joins
//! this late, it holds producers back by at most a quarter of the ring while it still reads the journal.

use crate::base::kind::Producers;
use crate::log::progress::Progress;
use crate::topic::durable::DurableTopic;
use crate::topic::partition::Partition;
use slipring_journal::{Cursor, ReplayError, SharedScan, Start, Visible};
use slipring_ring::{BuildError, Consumer, Sequence};
use std::sync::Arc;

/// The reader of a partition that is read from the journal until the ring takes over.
pub(crate) struct CatchUp<E, K: Producers> {
    partition: Arc<Partition<E, K>>,
    progress: Arc<Progress>,
    cursor: Cursor,
    /// The reader's consumer in the ring; `None` until the reader has joined it.
    gate: Option<Consumer<E, K>>,
    capacity: u64,
    /// A fault for tests: the count of events by which the reader changes to the ring too early. 0 in production.
    seam_off: u64,
}

/// The limits of one pass of reading. All of them are determined before the journal is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadTurn {
    /// The pass reads only records below this offset (exclusive).
    pub(crate) before: u64,
    /// Every event below this offset is visible. So an offset below it that has no record will never have one.
    pub(crate) visible: u64,
    /// Every event below this offset is written, or durable, as the reader's visibility requires. It may not be
    /// published yet.
    pub(crate) end: u64,
}

/// The outcome of one pass of reading.
pub(crate) enum Step<E, K: Producers> {
    /// More records may be readable at once.
    More,
    /// No more records are visible now.
    Nothing,
    /// All records before the position of this consumer are read. From now on the ring is read.
    Caught(Consumer<E, K>),
    /// No more records are visible now, and the ring refused to be joined.
    Refused(BuildError),
}

impl<E: Send + Sync + 'static, K: Producers> CatchUp<E, K> {
    /// Opens the partition's journal at `start`.
    ///
    /// # Errors
    /// The journal does not have that start.
    pub(crate) fn open(
        durable: &DurableTopic<E>,
        partition: &Arc<Partition<E, K>>,
        progress: &Arc<Progress>,
        start: Start,
    ) -> Result<Self, ReplayError> {
        let cursor = durable.journal().cursor(durable.id(partition.index), start)?;
        let capacity = durable.capacity;
        let is_early = durable.journal().sabotage().join_at_a_past_slot;
        let seam_off = if is_early { capacity / 4 } else { 0 };
        let (partition, progress) = (Arc::clone(partition), Arc::clone(progress));
        Ok(Self { partition, progress, cursor, gate: None, capacity, seam_off })
    }

    /// The next offset that may be returned.
    pub(crate) fn position(&self) -> u64 {
        self.cursor.position()
    }

    /// Moves to another offset that the journal has.
    pub(crate) fn seek(&mut self, offset: u64) {
        self.cursor.seek(offset);
    }

    /// True if no further event of the partition will become visible.
    pub(crate) fn is_over(&self, visible: Visible) -> bool {
        self.progress.is_over(visible)
    }

    /// The offset at which reading changes from the journal to the ring. `None` before the reader has joined the ring.
    fn seam(&self) -> Option<u64> {
        self.gate.as_ref().map(|gate| gate.first().0.saturating_sub(self.seam_off))
    }

    /// Begins one pass of reading: returns its limits. Calls `join`, which joins the ring at its lowest gating
    /// position, if the reader is at most a quarter of the ring behind. If `bounded` is true, the pass leaves out
    /// records that are written but not yet published.
    pub(crate) fn begin(
        &mut self,
        scan: &mut SharedScan,
        visible: Visible,
        bounded: bool,
        join: impl FnOnce() -> Result<Consumer<E, K>, BuildError>,
    ) -> ReadTurn {
        let ring = &self.partition.ring;
        let mut published = ring.published().0;
        if self.gate.is_none() && published.saturating_sub(self.position()) <= self.capacity / 4 {
            // A ring that has ended refuses to be joined. The journal has all its events.
            self.gate = join().ok();
            published = self.partition.ring.published().0;
        }
        self.cursor.set_gate(self.gate.is_some());
        self.cursor.resume(scan);
        let end = self.progress.end(visible);
        let visible = if bounded { end.min(published) } else { end };
        let bound = if bounded { visible } else { u64::MAX };
        ReadTurn { before: self.seam().map_or(bound, |seam| seam.min(bound)), visible, end }
    }

    /// The journal cursor of a pass.
    #[inline(always)]
    pub(crate) fn cursor(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    /// Ends a pass of reading and says what follows. `read` is true if the pass has read a record, `at_end` if it has
    /// read all visible ones. Offsets below `next` need not be read again.
    pub(crate) fn end(
        &mut self,
        scan: &mut SharedScan,
        turn: ReadTurn,
        (read, at_end): (bool, bool),
        next: u64,
        join: impl FnOnce() -> Result<Consumer<E, K>, BuildError>,
    ) -> Step<E, K> {
        if read {
            scan.record_taken();
        }
        let at_end = at_end && !self.cursor.waits();
        if at_end {
            // Releases the shared scan, so that other partitions need not wait for this one.
            self.cursor.pause(scan);
        }
        let mut refused = None;
        if at_end && self.gate.is_none() {
            // All visible records are read, so the reader joins even if it seems to be more than a quarter of the ring
            // behind: the offsets between may have been reserved and never published.
            match join() {
                Ok(gate) => self.gate = Some(gate),
                Err(cause) => refused = Some(cause),
            }
        }
        let position = self.position();
        let is_there = self.seam().is_some_and(|seam| position >= seam || (at_end && turn.visible >= seam));
        match self.gate.take_if(|_| is_there) {
            Some(mut gate) => {
                let to = position.max(next).max(gate.first().0);
                self.cursor.pause(scan);
                // A failing seek means that the consumer was evicted because it made producers wait. Then the journal
                // has more to read.
                match gate.seek(Sequence(to)) {
                    Ok(()) => Step::Caught(gate),
                    Err(_) => {
                        self.cursor.seek(to);
                        Step::More
                    }
                }
            }
            None => match refused {
                Some(cause) => Step::Refused(cause),
                None if at_end => Step::Nothing,
                None => Step::More,
            },
        }
    }
}
