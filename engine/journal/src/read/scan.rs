//! One scan of the journal for all partitions of a reader.
//!
//! A frame holds records of many partitions. If each partition were read by itself, every frame would be read once for each.
//! Instead the [cursors](crate::read::cursor::Cursor) of a reader share a scan. It holds a block of frames until all cursors have
//! taken their records out of it, and only then reads the next block.
//!
//! # Which cursor waits for which
//! The next block is read for the cursor that is furthest behind. The others wait until that cursor has come to where they
//! are, or to its end. So a block that several cursors need is read once. No cursor waits for one that does not take its
//! records: when a round has passed in which no cursor took a record, the scan stops waiting for the cursors that are behind;
//! each of them reads on from its own offset when it is called again. And of [`TURNS`] blocks at least one is for a cursor
//! that is far ahead of the last one, so that a partition with a long backlog does not stop the others.
//!
//! # Memory
//! Two blocks, whatever the number of partitions and the distance between their cursors: a cursor that is left behind keeps
//! an offset, not its records. The second block is for a cursor that is not waited for and reads on, so that the two cursors
//! do not overwrite each other's block.

use crate::error::ReplayError;
use crate::format::PartitionId;
use crate::read::block::{Block, LoadRequest};
use crate::read::record::Visible;
use crate::segment::Segment;
use crate::shared::Shared;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of this many blocks one may be for a cursor that is far ahead.
const TURNS: u32 = 8;

/// Bytes of the journal from which on one cursor is far ahead of another.
const FAR_APART: u64 = 4 << 20;

/// Reads blocks of frames for the cursors of a reader.
#[doc(hidden)]
pub struct SharedScan {
    pub(crate) shared: Arc<Shared>,
    visible: Visible,
    pub(crate) blocks: [Block; 2],
    slots: Vec<CursorSlot>,
    /// The partitions of the slots in ascending order, each once.
    partitions: Vec<PartitionId>,
    /// The cursors that wait for a block: the block's position, and the cursor's slot.
    waiting: BTreeSet<(u64, usize)>,
    number: u64,
    /// Raised when a cursor joins and when a block is read. So a block that was read before a cursor joined is known to have
    /// nothing for it.
    count: u64,
    /// Raised when a record was taken or a block was read.
    progress: u64,
    /// Count of blocks since one was read for a cursor far ahead; at most [`TURNS`].
    credit: u32,
}

/// What the scan knows of a cursor.
struct CursorSlot {
    partition: PartitionId,
    /// The cursor holds the other reference. Once this is the only one, the slot is free.
    alive: Arc<()>,
    state: CursorState,
    /// The value of `progress` when the cursor was told to wait last.
    refused: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CursorState {
    /// No cursor waits for it.
    Absent,
    /// It takes records out of the block of this index and load.
    In(usize, u64),
    /// It waits for the block at this position.
    Waits(u64),
}

static SCANS: AtomicU64 = AtomicU64::new(1);

impl SharedScan {
    pub(crate) fn new(shared: Arc<Shared>, visible: Visible) -> Self {
        Self {
            shared,
            visible,
            blocks: Default::default(),
            slots: Vec::new(),
            partitions: Vec::new(),
            waiting: BTreeSet::new(),
            number: SCANS.fetch_add(1, Ordering::Relaxed),
            count: 0,
            progress: 0,
            credit: 0,
        }
    }

    /// The scan's number, which no other scan of the process has.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The byte up to which frames of a segment may be read.
    pub(crate) fn limit(&self, segment: &Segment) -> u64 {
        let visible = match self.visible {
            Visible::Written => &self.shared.written,
            Visible::Durable => &self.shared.durable,
        };
        visible.load(Ordering::Acquire).saturating_sub(segment.header.first).min(segment.end())
    }

    /// Adds a cursor. Returns its slot, a reference that it must hold, and the number before which no block has records for
    /// it.
    pub fn join(&mut self, partition: PartitionId) -> (usize, Arc<()>, u64) {
        let alive = Arc::new(());
        let slot = CursorSlot { partition, alive: Arc::clone(&alive), state: CursorState::Absent, refused: None };
        let free = self.slots.iter().position(|slot| Arc::strong_count(&slot.alive) == 1);
        let number = match free {
            Some(free) => {
                self.leave(free);
                self.slots[free] = slot;
                free
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.partitions.clear();
        self.partitions.extend(self.slots.iter().map(|slot| slot.partition));
        self.partitions.sort_unstable();
        self.partitions.dedup();
        self.count += 1;
        (number, alive, self.count)
    }

    /// The cursor needs no block for now, so no cursor waits for it.
    pub fn leave(&mut self, slot: usize) {
        match std::mem::replace(&mut self.slots[slot].state, CursorState::Absent) {
            CursorState::In(block, made) if self.blocks[block].made == made => self.blocks[block].readers -= 1,
            CursorState::In(..) | CursorState::Absent => {}
            CursorState::Waits(position) => _ = self.waiting.remove(&(position, slot)),
        }
    }

    /// The cursor reads on from this position.
    pub fn expect(&mut self, slot: usize, position: u64) {
        self.leave(slot);
        self.slots[slot].state = CursorState::Waits(position);
        self.waiting.insert((position, slot));
    }

    /// The cursor takes records out of a block.
    pub fn enter(&mut self, slot: usize, block: usize) {
        let made = self.blocks[block].made;
        if self.slots[slot].state != CursorState::In(block, made) {
            self.leave(slot);
            self.slots[slot].state = CursorState::In(block, made);
            self.slots[slot].refused = None;
            self.blocks[block].readers += 1;
        }
    }

    /// A cursor has taken a record.
    pub fn record_taken(&mut self) {
        self.progress += 1;
    }

    /// Frees the memory once no cursor is left.
    pub fn free_if_unused(&mut self) {
        if self.slots.iter().all(|slot| Arc::strong_count(&slot.alive) == 1) {
            self.slots.clear();
            self.waiting.clear();
            self.blocks.iter_mut().for_each(Block::clear);
        }
    }

    /// The index of the block with the frame at byte `at`, if it was read after `since`.
    pub fn find(&self, segment: u64, at: u64, since: u64) -> Option<usize> {
        self.blocks.iter().position(|block| block.covers(segment, at) && block.made > since)
    }

    /// True if the block at `position` may be read now for a cursor. If false, the cursor waits. A cursor with a gate in a
    /// ring waits only for cursors nearby, because a producer may wait for it.
    pub fn may_load(&mut self, slot: usize, position: u64, has_gate: bool) -> bool {
        self.leave(slot);
        let in_blocks = self.blocks.iter().filter(|block| block.readers > 0).map(Block::position);
        let waits = self.waiting.first().map(|(position, _)| *position);
        let Some(last) = in_blocks.chain(waits).min().filter(|last| *last < position) else {
            self.credit = (self.credit + 1).min(TURNS);
            return true;
        };
        if position - last > FAR_APART {
            if has_gate {
                return true;
            }
            if self.credit >= TURNS {
                self.credit = 0;
                return true;
            }
        }
        if self.slots[slot].refused == Some(self.progress) {
            self.stop_waiting_for_those_before(position);
            return true;
        }
        self.slots[slot].refused = Some(self.progress);
        self.expect(slot, position);
        false
    }

    /// Stops waiting for the cursors before `position`.
    #[cold]
    fn stop_waiting_for_those_before(&mut self, position: u64) {
        for slot in 0..self.slots.len() {
            let is_before = match self.slots[slot].state {
                CursorState::In(block, _) => self.blocks[block].position() < position,
                CursorState::Waits(at) => at < position,
                CursorState::Absent => false,
            };
            if is_before {
                self.leave(slot);
            }
        }
    }

    /// Reads the block at byte `at` of a segment, and returns its index.
    ///
    /// # Errors
    /// The first frame is damaged, or the disk fails.
    pub(crate) fn load(
        &mut self,
        segment: &Arc<Segment>,
        at: u64,
        until: u64,
        limit: u64,
    ) -> Result<usize, ReplayError> {
        let number = segment.header.number;
        let [first, second] = &self.blocks;
        let leads = [first.leads_to(number, at), second.leads_to(number, at)];
        // The block that was read earlier is replaced, unless it alone is in use: a cursor that was not waited for may read
        // on in the other one. A single cursor needs one block.
        let is_alone = self.partitions.len() == 1;
        let into = match (first.readers, second.readers) {
            (0, 1..) => 0,
            (1.., 0) => 1,
            _ => usize::from(!is_alone && second.made < first.made),
        };
        self.count += 1;
        self.progress += 1;
        let (left, right) = self.blocks.split_at_mut(1);
        let (block, other) = if into == 0 { (&mut left[0], &right[0]) } else { (&mut right[0], &left[0]) };
        let rest = (leads[1 - into] && !leads[into]).then(|| other.rest());
        (block.made, block.readers) = (self.count, 0);
        let wanted = LoadRequest { segment, at, until, limit, partitions: &self.partitions };
        let loaded = block.load(&self.shared, &wanted, rest);
        if loaded.is_err() {
            block.clear();
        }
        loaded.map(|()| into)
    }
}
