//! The changes of a queue's state that are not in a frame of the journal yet.
//!
//! Messages are written in blocks of [`BLOCK`] offsets, so a change costs the bytes of one block, however many messages
//! the queue has. A *round* writes all changes that there were when it began, in this order: changed blocks and deleted
//! unread messages, gaps, and then the changed next offsets of the topic's partitions and of those of the topic for
//! dead letters, as of the round's beginning. So the journal never has a next offset above a message whose block it
//! does not have: for the journal, a message below that offset and in no block is finished. A reported gap and the
//! offset after it are in one frame, so a crash cannot report the gap twice.

use crate::log::gap::GapReport;
use std::collections::{BTreeMap, HashSet, VecDeque};

/// The number of offsets in a block.
pub(crate) const BLOCK: u64 = 16;

/// A part of the queue's state, which is written as one value of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum StatePart {
    /// The unfinished messages of a block: the partition, and the number of the block in it.
    Block(u32, u64),
    /// A message that was deleted before the queue read it: its partition and offset.
    Deleted(u32, u64),
}

impl StatePart {
    /// The block of the message at this partition and offset.
    pub(super) fn of((partition, offset): (u32, u64)) -> Self {
        Self::Block(partition, offset / BLOCK)
    }
}

/// A partition of which the queue's state has a next offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cursor {
    /// A partition of the queue's topic. The next offset is that of the first unread message.
    Partition(u32),
    /// A partition of the topic for dead letters. The next offset is that of the first letter that is neither purged
    /// nor sent back.
    DeadLetters(u32),
}

#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The changed parts, in the order in which they first changed. Some of them may be written already: see
    /// [`written_early`](Self::written_early).
    queue: VecDeque<StatePart>,
    /// The changed parts that are not written.
    known: HashSet<StatePart>,
    cursors: BTreeMap<Cursor, u64>,
    /// Gaps (offsets lost to damage) that the queue has skipped and that are not written, in the order in which the
    /// queue met them.
    gaps: VecDeque<GapReport>,
    /// The parts that the journal has a value of.
    written: HashSet<StatePart>,
    /// The next offset of each partition of the queue's topic, as of the last frame.
    recorded: BTreeMap<u32, u64>,
    /// The messages that were sent back from the dead letters, by partition and offset, each with the number of that
    /// change, until a round has written it.
    restored: BTreeMap<(u32, u64), u64>,
    /// The number of changes so far, which is also the number of the last change.
    count: u64,
    /// The number of the last change that a round has written.
    ended: u64,
    round: Option<Round>,
}

#[derive(Debug)]
struct Round {
    /// How many parts at the front of `Changes::queue` this round must still write.
    left: usize,
    gaps: VecDeque<GapReport>,
    cursors: BTreeMap<Cursor, u64>,
    /// The number of the last change that is part of the round.
    count: u64,
}

/// The next entry to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NextWrite {
    Part(StatePart),
    /// A gap that was reported to the queue. In the same frame the partition's next offset becomes the end of the gap.
    Gap(GapReport),
    Cursor(Cursor, u64),
    /// The end of a round: all changes up to and including this number are in frames.
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

    /// Records that a message was sent back from the dead letters, of which `next` in the partition `letters` is the first
    /// that was not.
    pub(super) fn restored(&mut self, message: (u32, u64), letters: u32, next: u64) {
        self.cursor(Cursor::DeadLetters(letters), next);
        self.restored.insert(message, self.count);
    }

    /// Records that a frame has this next offset.
    pub(super) fn recorded(&mut self, cursor: Cursor, next: u64) {
        if let Cursor::Partition(partition) = cursor {
            self.recorded.insert(partition, next);
        }
    }

    /// True if a later process will know, from the frames so far, that the queue has read this message, and that it was
    /// sent back if it was. Otherwise that process may read the message, or its former dead letter, again.
    pub(super) fn is_recorded(&self, partition: u32, offset: u64) -> bool {
        self.recorded.get(&partition).is_some_and(|next| offset < *next)
            && !self.restored.contains_key(&(partition, offset))
    }

    /// Adds a gap that was reported to the queue, and sets the partition's next offset to the gap's end.
    pub(super) fn gap(&mut self, report: GapReport) {
        self.cursor(Cursor::Partition(report.of.partition), report.offsets.end);
        self.gaps.push_back(report);
    }

    /// Records what the next frame does with this part: if `is_there` is true, the frame has a new value of the part;
    /// else it deletes the value. Returns false if there is no value to delete, because the journal has none.
    pub(super) fn write(&mut self, part: StatePart, is_there: bool) -> bool {
        if is_there {
            self.written.insert(part);
            return true;
        }
        self.written.remove(&part)
    }

    /// The number of the last change; 0 before the first.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The changed parts that are not written yet.
    pub(super) fn parts(&self) -> impl Iterator<Item = StatePart> {
        self.known.iter().copied()
    }

    /// How many changed parts are not written yet.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ended == self.count
    }

    /// Notes that a frame has this part as it is now, before its turn has come.
    pub(super) fn written_early(&mut self, part: StatePart) {
        self.known.remove(&part);
    }

    /// Returns the next part of the round that was begun; `None` if the round has written all its parts.
    pub(super) fn next_part(&mut self) -> Option<StatePart> {
        let current = self.round.as_mut()?;
        while current.left > 0 {
            current.left -= 1;
            let part = self.queue.pop_front()?;
            if self.known.remove(&part) {
                return Some(part);
            }
        }
        None
    }

    /// Takes back an entry for which there was no room, so that it is the next one again.
    pub(super) fn put_back(&mut self, entry: NextWrite) {
        let Some(current) = &mut self.round else { return };
        match entry {
            NextWrite::Part(part) => {
                current.left += 1;
                self.queue.push_front(part);
                self.known.insert(part);
            }
            NextWrite::Gap(report) => current.gaps.push_front(report),
            NextWrite::Cursor(cursor, next) => _ = current.cursors.insert(cursor, next),
            // The end of a round takes no room in a frame, so it is never refused for want of room.
            NextWrite::End(_) => {}
        }
    }

    /// Returns the next entry of a frame; `None` if all changes are written. A part that changes after it was returned
    /// is returned again in the next round.
    pub(super) fn next(&mut self) -> Option<NextWrite> {
        if self.is_empty() {
            return None;
        }
        let Self { queue, cursors, gaps, count, round, .. } = self;
        round.get_or_insert_with(|| {
            let (gaps, cursors) = (std::mem::take(gaps), std::mem::take(cursors));
            Round { left: queue.len(), gaps, cursors, count: *count }
        });
        if let Some(part) = self.next_part() {
            return Some(NextWrite::Part(part));
        }
        let current = self.round.as_mut()?;
        if let Some(report) = current.gaps.pop_front() {
            return Some(NextWrite::Gap(report));
        }
        if let Some((cursor, next)) = current.cursors.pop_first() {
            return Some(NextWrite::Cursor(cursor, next));
        }
        let count = current.count;
        (self.round, self.ended) = (None, count);
        self.restored.retain(|_, change| *change > count);
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
        // Changes that come during a round are written in the next one.
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
