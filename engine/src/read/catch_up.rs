//! The change from journal to ring, of one partition: for replays, and for groups that the ring has left behind.
//!
//! When the backlog is under a quarter of the ring, the reader's gate joins the ring, at or above the lowest gate: nothing
//! from there on is overwritten, and producers wait for a quarter at most. All below that gate is written, because the
//! journal's own stage is one of the gates. So the journal is read up to the gate, or a little further, and the ring from
//! exactly there.

use crate::base::kind::Producers;
use crate::log::progress::Progress;
use crate::topic::durable::DurableTopic;
use crate::topic::partition::Partition;
use slipring_journal::{Cursor, ReplayError, SharedScan, Start, Visible};
use slipring_ring::{BuildError, Consumer, Sequence};
use std::sync::Arc;

/// A partition that is read from the journal, on the way to its ring.
pub(crate) struct CatchUp<E, K: Producers> {
    partition: Arc<Partition<E, K>>,
    progress: Arc<Progress>,
    cursor: Cursor,
    /// The gate, once it has joined the ring.
    gate: Option<Consumer<E, K>>,
    capacity: u64,
    /// A fault for tests: the ring takes over so many events too early.
    seam_off: u64,
}

/// What a turn of reading goes by. All of it was looked at before the journal is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadTurn {
    /// Records below this offset are to be read.
    pub(crate) before: u64,
    /// All below this offset can be seen: what is not found is an offset without a record.
    pub(crate) visible: u64,
    /// All below this offset is in the journal as far as that can be seen, published or not.
    pub(crate) end: u64,
}

/// What a turn of reading comes to.
pub(crate) enum Step<E, K: Producers> {
    /// There may be more at once.
    More,
    /// There is nothing more to be seen.
    Nothing,
    /// It is read to where this one stands.
    Caught(Consumer<E, K>),
    /// There is nothing more to be seen, and the ring takes nobody.
    Refused(BuildError),
}

impl<E: Send + Sync + 'static, K: Producers> CatchUp<E, K> {
    /// # Errors
    /// The journal has not what was asked for.
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

    /// The next offset that it may give.
    pub(crate) fn position(&self) -> u64 {
        self.cursor.position()
    }

    /// Goes to another offset, as far as the journal has it.
    pub(crate) fn seek(&mut self, offset: u64) {
        self.cursor.seek(offset);
    }

    /// Whether nothing more will be seen than is seen by now.
    pub(crate) fn is_over(&self, visible: Visible) -> bool {
        self.progress.is_over(visible)
    }

    /// Where the ring takes over.
    fn seam(&self) -> Option<u64> {
        self.gate.as_ref().map(|gate| gate.first().0.saturating_sub(self.seam_off))
    }

    /// Before a turn of reading: `join` puts the gate into the ring, as low as possible. `bounded`: what is written and not
    /// published is not to be read.
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
            // Refused when the ring has ended: the journal has all of it.
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

    /// What is read in a turn.
    #[inline(always)]
    pub(crate) fn cursor(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    /// After a turn of reading, in which something was `read`, or everything (`at_end`). Nothing below `next` is wanted.
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
            // Nobody waits for what it has no right to yet.
            self.cursor.pause(scan);
        }
        let mut refused = None;
        if at_end && self.gate.is_none() {
            // Offsets that were only reserved are no backlog.
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
                // It was in the way, and evicted: then there is more to read here.
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
