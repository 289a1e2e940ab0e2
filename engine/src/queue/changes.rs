//! What of a queue's state is not written down yet.
//!
//! Messages are written in blocks of [`BLOCK`] offsets, so a change costs the bytes of its block, however many messages
//! are out. A *round* writes every block that had changed when it began, and then, in the last of its frames, how far
//! each partition and the dead letters were read by then. So at no moment does the journal say that a message was read
//! whose block it has not: what was read and is in no block was done with. That a reader was told of a gap and where it
//! stands behind that are in one frame: a crash tells it of a gap once.

use crate::log::gap::GapReport;
use std::collections::{BTreeMap, HashSet, VecDeque};

/// Offsets in a block.
pub(crate) const BLOCK: u64 = 16;

/// A part of the state that is written as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum StatePart {
    /// The messages of a block, by partition and number of the block.
    Block(u32, u64),
    /// Whether a message was deleted before it was read, by partition and offset.
    Deleted(u32, u64),
}

impl StatePart {
    /// The block of a message.
    pub(super) fn of((partition, offset): (u32, u64)) -> Self {
        Self::Block(partition, offset / BLOCK)
    }
}

/// How far something was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cursor {
    /// A partition of the topic.
    Partition(u32),
    /// A partition of the dead letters' topic.
    DeadLetters(u32),
}

#[derive(Debug, Default)]
pub(super) struct Changes {
    /// In the order of their first change since they were written.
    queue: VecDeque<StatePart>,
    known: HashSet<StatePart>,
    cursors: BTreeMap<Cursor, u64>,
    /// Gaps that the queue has passed over, in the order of each partition.
    gaps: VecDeque<GapReport>,
    /// Parts that the journal has.
    written: HashSet<StatePart>,
    /// Changes so far.
    count: u64,
    round: Option<Round>,
}

#[derive(Debug)]
struct Round {
    /// Parts of the queue that are its own.
    left: usize,
    gaps: VecDeque<GapReport>,
    cursors: BTreeMap<Cursor, u64>,
    /// Changes that are written with its end.
    count: u64,
}

/// What is to be written next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NextWrite {
    Part(StatePart),
    /// The partition was read up to its end.
    Gap(GapReport),
    Cursor(Cursor, u64),
    /// The round ends: all changes up to this number are in its frames.
    End(u64),
}

impl Changes {
    pub(super) fn message(&mut self, partition: u16, offset: u64) {
        self.part(StatePart::of((u32::from(partition), offset)));
    }

    pub(super) fn part(&mut self, part: StatePart) {
        self.count += 1;
        if self.known.insert(part) {
            self.queue.push_back(part);
        }
    }

    pub(super) fn cursor(&mut self, cursor: Cursor, next: u64) {
        self.count += 1;
        self.cursors.insert(cursor, next);
    }

    /// The queue was told of a gap, and reads on behind it.
    pub(super) fn gap(&mut self, told: GapReport) {
        self.cursor(Cursor::Partition(told.of.partition), told.offsets.end);
        self.gaps.push_back(told);
    }

    /// The journal has this part from its next frame on, or has it no more. Whether that is to be written.
    pub(super) fn write(&mut self, part: StatePart, is_there: bool) -> bool {
        if is_there {
            self.written.insert(part);
            return true;
        }
        self.written.remove(&part)
    }

    /// The number of the last change.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Those that wait.
    pub(super) fn parts(&self) -> impl Iterator<Item = StatePart> {
        self.queue.iter().copied()
    }

    /// How many parts wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.cursors.is_empty() && self.gaps.is_empty() && self.round.is_none()
    }

    /// What is to be written next; none if nothing is. A part that changes after it was given comes again.
    pub(super) fn next(&mut self) -> Option<NextWrite> {
        if self.is_empty() {
            return None;
        }
        let Self { queue, known, cursors, gaps, count, round, .. } = self;
        let begin = || {
            let (gaps, cursors) = (std::mem::take(gaps), std::mem::take(cursors));
            Round { left: queue.len(), gaps, cursors, count: *count }
        };
        let current = round.get_or_insert_with(begin);
        if current.left > 0 {
            current.left -= 1;
            let part = queue.pop_front()?;
            known.remove(&part);
            return Some(NextWrite::Part(part));
        }
        if let Some(told) = current.gaps.pop_front() {
            return Some(NextWrite::Gap(told));
        }
        if let Some((cursor, next)) = current.cursors.pop_first() {
            return Some(NextWrite::Cursor(cursor, next));
        }
        let count = current.count;
        *round = None;
        Some(NextWrite::End(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_writes_each_part_once_and_then_where_the_cursors_stood_when_it_began() {
        let mut changes = Changes::default();
        assert_eq!(changes.next(), None);
        for offset in [0, 1, 15, 16, 40] {
            changes.message(3, offset);
            changes.cursor(Cursor::Partition(3), offset + 1);
        }
        assert_eq!(changes.next(), Some(NextWrite::Part(StatePart::Block(3, 0))));
        // Meanwhile: what was given comes again, but in the next round, and so does how far was read.
        changes.message(3, 2);
        changes.message(3, 41);
        changes.cursor(Cursor::Partition(3), 42);
        let round: Vec<_> = std::iter::from_fn(|| changes.next()).collect();
        let expected = [
            NextWrite::Part(StatePart::Block(3, 1)),
            NextWrite::Part(StatePart::Block(3, 2)),
            NextWrite::Cursor(Cursor::Partition(3), 41),
            NextWrite::End(10),
            NextWrite::Part(StatePart::Block(3, 0)),
            NextWrite::Cursor(Cursor::Partition(3), 42),
            NextWrite::End(13),
        ];
        assert_eq!(round, expected);
        assert!(changes.is_empty() && changes.count() == 13);
    }
}
