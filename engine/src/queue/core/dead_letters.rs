//! Reading a queue's dead letters, and sending them back.

use super::QueueCore;
use crate::base::held::{self};
use crate::base::kind::Producers;
use crate::base::level::Level;
use crate::event::dead_letter::DeadLetter;
use crate::queue::changes::Cursor;
use crate::queue::dead_letter_reader::Verdict;
use crate::queue::job::Job;
use crate::queue::letters::{LetterParts, RingPlace};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl<E: Job, K: Producers> QueueCore<E, K> {
    /// Passes the queue's dead letters to `each`: see
    /// [`DeadLetterReader::each`](crate::queue::dead_letter_reader::DeadLetterReader::each).
    pub(in crate::queue) fn each_dead_letter(&self, each: impl FnMut(DeadLetter, Option<(u32, u64)>) -> Verdict) {
        held::refuse_inside();
        self.wait_for_dead_letters();
        let mut dead_letter_reader = held::lock(&self.dead_letter_reader);
        let moved = dead_letter_reader.each(each);
        drop(dead_letter_reader);
        let now = self.now();
        let mut state = self.lock();
        if let Some(changes) = state.leases.changes() {
            moved.into_iter().for_each(|(partition, next)| changes.cursor(Cursor::DeadLetters(partition), next));
        }
        // The topic for dead letters may have room now, so `settle` tries to publish again. `each` may have made
        // letters messages again, so a worker is woken.
        self.settle(&mut state, now);
        self.wake(&mut state);
    }

    /// Where the queue's dead letters are at this moment, for an iterator.
    pub(in crate::queue) fn letter_parts(&self) -> LetterParts {
        held::refuse_inside();
        self.wait_for_dead_letters();
        let parts = held::lock(&self.dead_letter_reader).parts();
        let now = self.now();
        let mut state = self.lock();
        // What could not become a letter before, because there was no room or no memory, is tried again.
        self.settle(&mut state, now);
        self.wake(&mut state);
        parts
    }

    /// Copies the next dead letters of a ring to `ready`; none if no more come.
    pub(in crate::queue) fn read_ring_letters(&self, place: &mut RingPlace, ready: &mut VecDeque<DeadLetter>) {
        held::refuse_inside();
        held::lock(&self.dead_letter_reader).read_ring(place, ready);
    }

    /// For each partition of the topic for dead letters in the journal, the offset of the first letter that is neither
    /// purged nor sent back. Empty for a topic in memory, and while the queue's letters are read: user code may run then.
    pub(in crate::queue) fn next_dead_letters(&self) -> BTreeMap<u32, u64> {
        self.dead_letter_reader.try_lock().map(|reader| reader.next()).unwrap_or_default()
    }

    /// Stops keeping the queue's dead letters in their topic, because the queue was deleted.
    pub(in crate::queue) fn close_dead_letters(&self) {
        held::lock(&self.dead_letter_reader).close();
    }

    /// Waits until all published dead letters are in the journal, from which they are read; at most 10 seconds. Does
    /// nothing for a topic in memory.
    fn wait_for_dead_letters(&self) {
        const LIMIT: Duration = Duration::from_secs(10);
        let Some(log) = &self.log else { return };
        let deadline = Some(Instant::now() + LIMIT);
        let notifier = &log.committer.notifier;
        let changes_are_written = || {
            let change = self.lock().change();
            let _ = log.wait_until(change, Level::Written, deadline);
        };
        // A letter may wait for its message to be recorded.
        changes_are_written();
        let settled = || (log.pending_dead_letters() == 0 || notifier.end_cause().is_some()).then_some(());
        let _ = notifier.wait(deadline, settled);
        changes_are_written();
    }

    /// Makes a dead letter a message of the queue again. `next` is the letter's partition and the offset after it: all
    /// letters of that partition before this offset are purged or sent back; `None` for a topic in memory. Returns
    /// false, and changes nothing, if the side store or the journal's state has no room, or if the letter cannot be
    /// decoded as the event's type.
    pub(in crate::queue) fn restore(&self, letter: DeadLetter, next: Option<(u32, u64)>) -> bool {
        let DeadLetter { partition, offset, message, .. } = letter;
        // The lock of the dead letters' reader is held, so user code runs with [`held::inside`].
        let Ok(Some(body)) = held::inside(|| E::of_dead_letter(message)) else { return false };
        let now = self.now();
        let mut state = self.lock();
        let has_room = state.has_room(self.log.as_ref());
        if has_room {
            let message = (partition, offset);
            state.leases.restore(partition, offset, Some(Arc::new(body)), now, Duration::ZERO);
            // Recorded for each letter, and not once after the last one: a worker may finish the message before all
            // letters are sent back, and a crash must not make the finished message a dead letter again.
            if let (Some((partition, next)), Some(changes)) = (next, state.leases.changes()) {
                changes.restored(message, partition, next);
            }
        }
        has_room
    }
}
