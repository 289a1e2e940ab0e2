//! A scan of the journal that serves all partitions of a reader.
//!
//! A frame holds records of many partitions. If each partition were read on its own, every frame would be read once for
//! each. Instead the [cursors](crate::read::cursor::Cursor) of a reader share a scan. The scan holds a block of frames
//! until all cursors have taken their records from it, and only then reads the next block.
//!
//! # Which cursor waits for which
//! The next block is read for the cursor that is furthest behind. The other cursors wait until that cursor reaches
//! their position or the end of its partition. So a block that several cursors need is read once. A cursor that takes
//! no records does not hold up the others: if no record was taken and no cursor left a block between two refused
//! requests of a cursor, the scan stops waiting for the cursors behind it, and each of these continues from its own
//! offset when it is called again. A cursor that leaves a block counts, because it may be the last for which the cursor
//! furthest behind waited, and that one may not have been called since.
//! After [`TURNS`] blocks for the cursors furthest behind, one block may be read for a cursor that is more than
//! [`FAR_APART`] bytes ahead, so that a partition with a long backlog does not stop the others.
//!
//! # Memory
//! Two blocks, whatever the number of partitions and the distance between their cursors: a cursor that falls behind
//! keeps its offset, not its records. The second block is for a cursor that no longer holds up the others and continues
//! on its own, so that neither overwrites the other's block.

use crate::error::ReplayError;
use crate::format::PartitionId;
use crate::read::block::{Block, LoadRequest};
use crate::read::record::Visible;
use crate::segment::Segment;
use crate::shared::Shared;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// After this many blocks for the cursors furthest behind, one block may be read for a cursor far ahead.
const TURNS: u32 = 8;

/// The distance in the journal, in bytes, above which a cursor counts as far ahead of the one furthest behind.
const FAR_APART: u64 = 4 << 20;

/// Reads blocks of frames for the cursors of a reader.
#[doc(hidden)]
pub struct SharedScan {
    pub(crate) shared: Arc<Shared>,
    visible: Visible,
    pub(crate) blocks: [Block; 2],
    slots: Vec<CursorSlot>,
    /// The partitions of all slots in ascending order, without duplicates.
    partitions: Vec<PartitionId>,
    /// The cursors that need a block that is not loaded: the block's position in the journal, and the cursor's slot.
    waiting: BTreeSet<(u64, usize)>,
    number: u64,
    /// The number of the last load. It also rises when a cursor joins, so that a block loaded earlier is known to have
    /// no records for that cursor.
    count: u64,
    /// Rises whenever a record is taken, a block is read, or a cursor leaves a block.
    progress: u64,
    /// Count of blocks read for the cursors furthest behind since one was read for a cursor far ahead; at most
    /// [`TURNS`].
    credit: u32,
}

/// The scan's view of a cursor.
struct CursorSlot {
    partition: PartitionId,
    /// The cursor holds the other reference. If this is the only one left, the slot is free.
    alive: Arc<()>,
    state: CursorState,
    /// The value of `progress` at the cursor's last refused request for a block; `None` if there was none since it
    /// entered a block.
    refused: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CursorState {
    /// Other cursors do not wait for it: it needs no block now, or took no record while others waited.
    Absent,
    /// It takes records from the block with this index and load number.
    In(usize, u64),
    /// It needs the block at this position in the journal, in bytes.
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

    /// The scan's number, which is unique in the process.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Offset in the segment's file up to which frames are visible, in bytes.
    pub(crate) fn limit(&self, segment: &Segment) -> u64 {
        let visible = match self.visible {
            Visible::Written => &self.shared.written,
            Visible::Durable => &self.shared.durable,
        };
        visible.load(Ordering::Acquire).saturating_sub(segment.header.first).min(segment.end())
    }

    /// Adds a cursor. Returns its slot, a reference that it must hold, and the load number up to which blocks have no
    /// records for it.
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

    /// Marks a cursor as absent, so that other cursors do not wait for it.
    pub fn leave(&mut self, slot: usize) {
        match std::mem::replace(&mut self.slots[slot].state, CursorState::Absent) {
            CursorState::In(block, made) => {
                self.progress += 1;
                if self.blocks[block].made == made {
                    self.blocks[block].readers -= 1;
                }
            }
            CursorState::Absent => {}
            CursorState::Waits(position) => _ = self.waiting.remove(&(position, slot)),
        }
    }

    /// Notes that a cursor needs the block at this position in the journal, in bytes.
    pub fn expect(&mut self, slot: usize, position: u64) {
        self.leave(slot);
        self.slots[slot].state = CursorState::Waits(position);
        self.waiting.insert((position, slot));
    }

    /// Notes that a cursor takes records from a block.
    pub fn enter(&mut self, slot: usize, block: usize) {
        let made = self.blocks[block].made;
        if self.slots[slot].state != CursorState::In(block, made) {
            self.leave(slot);
            self.slots[slot].state = CursorState::In(block, made);
            self.slots[slot].refused = None;
            self.blocks[block].readers += 1;
        }
    }

    /// Notes that a cursor has taken a record, so that cursors that were refused a block go on waiting for those behind
    /// them.
    pub fn record_taken(&mut self) {
        self.progress += 1;
    }

    /// Frees the memory if no cursor is left.
    pub fn free_if_unused(&mut self) {
        if self.slots.iter().all(|slot| Arc::strong_count(&slot.alive) == 1) {
            self.slots.clear();
            self.waiting.clear();
            self.blocks.iter_mut().for_each(Block::clear);
        }
    }

    /// The index of the loaded block with the frame at offset `at` of this segment, if its load number is above
    /// `since`.
    pub(crate) fn find(&self, segment: &Arc<Segment>, at: u64, since: u64) -> Option<usize> {
        self.blocks.iter().position(|block| block.covers(segment, at) && block.made > since)
    }

    /// True if the block at `position` may be read now for this cursor; if false, the cursor must wait. If `has_gate`
    /// is true, a ring's producers may be waiting for the cursor's reader, so it waits only for cursors at most
    /// `FAR_APART` bytes behind.
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

    /// Marks the cursors before `position` as absent: there was no progress since the caller's last refused request.
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

    /// Reads the block at offset `at` of a segment, and returns its index.
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
        let [first, second] = &self.blocks;
        let leads = [first.leads_to(segment, at), second.leads_to(segment, at)];
        // Replaces the block that was loaded earlier, unless it is the only one in use: a cursor that no longer holds
        // up the others may still read the other block. A single partition needs only one block.
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
