//! One reading of the journal for all partitions of a reader.
//!
//! Frames hold records of many partitions, so who reads some of these one after the other would read every frame for each.
//! Instead their [cursors](super::cursor::Cursor) share a scan, which holds a block of frames until everybody has taken
//! out of it what is his, and only then reads the next one.
//!
//! # Who waits for whom
//! The next block is read for the cursor that is furthest behind; the others wait until that one has come to where they
//! are, or to its end. So what several of them need is read once. Nobody waits for a cursor that does not take what is
//! there: when a whole round has passed in which nobody took anything, those that are behind are passed over. Each reads
//! on from where it was when it asks again. And of [`SHARE`] blocks at least one is for somebody who is far ahead of the last one,
//! so that a long way to catch up in one partition does not stop the others.
//!
//! # Memory
//! Two blocks, whatever the number of partitions and however far they are apart: a cursor that is left behind keeps an
//! offset, not what it has not taken. The second block is for a cursor that was passed over and reads on, so that
//! the two do not take each other's away.

use super::block::{Block, Wanted};
use super::error::ReplayError;
use super::format::PartitionId;
use super::record::Visible;
use super::segment::Segment;
use super::shared::Shared;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of so many blocks one may be for who is far ahead.
const SHARE: u32 = 8;

/// Bytes of the journal between two cursors that are not far apart.
const FAR: u64 = 4 << 20;

/// Reads blocks for cursors.
#[doc(hidden)]
pub struct SharedScan {
    pub(super) shared: Arc<Shared>,
    visible: Visible,
    pub(super) blocks: [Block; 2],
    places: Vec<Place>,
    /// The partitions of the places, in order.
    partitions: Vec<PartitionId>,
    /// Cursors that wait for a block: its position, and the number of the cursor's place.
    waiting: BTreeSet<(u64, usize)>,
    number: u64,
    /// Raised when a cursor comes, and when a block is read: a block has nothing for who came after it.
    count: u64,
    /// Raised when something was taken.
    progress: u64,
    /// Blocks since one was read for who is far ahead.
    credit: u32,
}

/// A cursor, as its scan knows it.
struct Place {
    partition: PartitionId,
    /// Its other half is the cursor's: alone, the place is free.
    alive: Arc<()>,
    state: State,
    /// The progress when it was told to wait last.
    refused: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody waits for it.
    Away,
    /// It takes records out of a block, of this number.
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
            places: Vec::new(),
            partitions: Vec::new(),
            waiting: BTreeSet::new(),
            number: SCANS.fetch_add(1, Ordering::Relaxed),
            count: 0,
            progress: 0,
            credit: 0,
        }
    }

    /// No other scan of the process has the same.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Up to where frames of a segment may be seen.
    pub(crate) fn limit(&self, segment: &Segment) -> u64 {
        let visible = match self.visible {
            Visible::Written => &self.shared.written,
            Visible::Durable => &self.shared.durable,
        };
        visible.load(Ordering::Acquire).saturating_sub(segment.header.first).min(segment.end())
    }

    /// Takes a cursor. The number of its place, and of the first block that may have something for it.
    pub fn join(&mut self, partition: PartitionId) -> (usize, Arc<()>, u64) {
        let alive = Arc::new(());
        let place = Place { partition, alive: Arc::clone(&alive), state: State::Away, refused: None };
        let free = self.places.iter().position(|place| Arc::strong_count(&place.alive) == 1);
        let number = match free {
            Some(free) => {
                self.leave(free);
                self.places[free] = place;
                free
            }
            None => {
                self.places.push(place);
                self.places.len() - 1
            }
        };
        self.partitions.clear();
        self.partitions.extend(self.places.iter().map(|place| place.partition));
        self.partitions.sort_unstable();
        self.partitions.dedup();
        self.count += 1;
        (number, alive, self.count)
    }

    /// A cursor needs nothing for now: nobody waits for it.
    pub fn leave(&mut self, place: usize) {
        match std::mem::replace(&mut self.places[place].state, State::Away) {
            State::In(block, made) if self.blocks[block].made == made => self.blocks[block].readers -= 1,
            State::In(..) | State::Away => {}
            State::Waits(position) => _ = self.waiting.remove(&(position, place)),
        }
    }

    /// A cursor that has come reads on from this position.
    pub fn expect(&mut self, place: usize, position: u64) {
        self.leave(place);
        self.places[place].state = State::Waits(position);
        self.waiting.insert((position, place));
    }

    /// A cursor takes records out of a block.
    pub fn enter(&mut self, place: usize, block: usize) {
        let made = self.blocks[block].made;
        if self.places[place].state != State::In(block, made) {
            self.leave(place);
            self.places[place].state = State::In(block, made);
            self.places[place].refused = None;
            self.blocks[block].readers += 1;
        }
    }

    /// Somebody has taken something.
    pub fn took(&mut self) {
        self.progress += 1;
    }

    /// Once no cursor is left, the memory goes.
    pub fn rest(&mut self) {
        if self.places.iter().all(|place| Arc::strong_count(&place.alive) == 1) {
            self.places.clear();
            self.waiting.clear();
            self.blocks.iter_mut().for_each(Block::clear);
        }
    }

    /// The block that has the frame at `at`, if it was read since `since`.
    pub fn find(&self, segment: u64, at: u64, since: u64) -> Option<usize> {
        self.blocks.iter().position(|block| block.covers(segment, at) && block.made > since)
    }

    /// Whether the block at `position` may be read now for a cursor; if not, it waits. One whose gate is in a ring waits only
    /// for those nearby: a producer may wait for it.
    pub fn may_load(&mut self, place: usize, position: u64, has_gate: bool) -> bool {
        self.leave(place);
        let in_blocks = self.blocks.iter().filter(|block| block.readers > 0).map(Block::position);
        let waits = self.waiting.first().map(|(position, _)| *position);
        let Some(last) = in_blocks.chain(waits).min().filter(|last| *last < position) else {
            self.credit = (self.credit + 1).min(SHARE);
            return true;
        };
        if position - last > FAR {
            if has_gate {
                return true;
            }
            if self.credit >= SHARE {
                self.credit = 0;
                return true;
            }
        }
        if self.places[place].refused == Some(self.progress) {
            self.pass_over(position);
            return true;
        }
        self.places[place].refused = Some(self.progress);
        self.expect(place, position);
        false
    }

    /// Nobody waits any more for who is before `position`.
    #[cold]
    fn pass_over(&mut self, position: u64) {
        for place in 0..self.places.len() {
            let is_before = match self.places[place].state {
                State::In(block, _) => self.blocks[block].position() < position,
                State::Waits(at) => at < position,
                State::Away => false,
            };
            if is_before {
                self.leave(place);
            }
        }
    }

    /// Reads the block at `at` of a segment. Its number.
    ///
    /// # Errors
    /// Its first frame is damaged, or the disk fails.
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
        // The elder one, unless it alone is in use: who was passed over may go on with the younger one. One cursor needs one.
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
        let wanted = Wanted { segment, at, until, limit, partitions: &self.partitions };
        let loaded = block.load(&self.shared, &wanted, rest);
        if loaded.is_err() {
            block.clear();
        }
        loaded.map(|()| into)
    }
}
