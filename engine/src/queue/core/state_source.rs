//! A queue as a state source of the committer: how its changes are added to frames.

use super::QueueCore;
use crate::base::kind::Producers;
use crate::log::catalog::state_kind;
use crate::log::gap::GapReport;
use crate::log::progress::Progress;
use crate::log::source::{DrainedState, NoRoom, StateRoom, StateSource};
use crate::queue::changes::{BLOCK, Cursor, NextWrite, StatePart};
use crate::queue::codec::{self, ClockShift};
use crate::queue::job::Job;
use crate::queue::state::QueueState;
use slipring_journal::{FrameBuilder, PartitionId};
use std::collections::BTreeSet;
use std::sync::Arc;

impl<E: Job, K: Producers> QueueCore<E, K> {
    /// Makes the count of dead letters that are published and not in a frame yet known outside of the lock. The caller
    /// has changed that count under the lock of `state`, and has not released the lock since.
    pub(in crate::queue) fn note_pending_dead_letters(&self, state: &QueueState<E, K>) {
        if let Some(log) = &self.log {
            log.set_pending_dead_letters(state.pending_dead_letters.len(), || Some(self.this.upgrade()? as Arc<_>));
        }
    }
}

impl<E: Job, K: Producers> StateSource for QueueCore<E, K> {
    fn drain(
        &self,
        frame: &mut FrameBuilder,
        mut room: StateRoom<'_>,
        drained: &mut dyn FnMut(PartitionId) -> Option<u64>,
    ) -> DrainedState {
        let Some(log) = &self.log else { return DrainedState::default() };
        let shift = QueueState::<E, K>::shift(&*self.host.clock);
        let mut state = self.lock();
        let mut writing = StateWriter { queue: log.number, shift, frame, room: &mut room };
        // A dead letter and the removal of its message must be in the same frame.
        let settled = state.settle_dead_letters(self.dead_number, drained);
        if !settled.is_empty() {
            // In strict order the partition's next message may be leased now; or these were the last messages, so that
            // the queue has ended.
            self.wake(&mut state);
        }
        let settled: BTreeSet<_> = settled.into_iter().map(StatePart::of).collect();
        settled.into_iter().for_each(|part| writing.settle(&mut state, part));
        let mut drained_state = DrainedState { urgent: log.is_urgent(), ..DrainedState::default() };
        // The entries for which there was no room. Behind a part that the journal's state has no room for, parts that
        // need no more room there are still written, but not the end of the round.
        let mut refused = Vec::new();
        while let Some(changes) = state.leases.changes() {
            let next = if refused.is_empty() { changes.next() } else { changes.next_part().map(NextWrite::Part) };
            let Some(next) = next else { break };
            let added = match &next {
                NextWrite::Part(part) => writing.part(&mut state, *part),
                NextWrite::Gap(report) => writing.gap(&mut state, report),
                NextWrite::Cursor(cursor, next) => writing.cursor(&mut state, *cursor, *next),
                NextWrite::End(count) => {
                    drained_state.changes = Some(*count);
                    Ok(())
                }
            };
            if let Err(full) = added {
                let may_go_on = full == NoRoom::State && matches!(next, NextWrite::Part(_));
                refused.push(next);
                if !may_go_on {
                    break;
                }
            }
        }
        drained_state.more = !refused.is_empty();
        if let Some(changes) = state.leases.changes() {
            refused.into_iter().rev().for_each(|entry| changes.put_back(entry));
        }
        // Dead letters are published after the changes were added to the frame, because a letter waits until the frames
        // show that its message was read.
        if state.write_dead_letters(self.log.as_ref()) {
            self.wake(&mut state);
        }
        self.note_pending_dead_letters(&state);
        drained_state.awaits_events = !state.pending_dead_letters.is_empty();
        drained_state
    }

    fn progress(&self) -> &Arc<Progress> {
        // The committer calls this only for a source that has added changes, which a queue in memory never does.
        static NONE: std::sync::OnceLock<Arc<Progress>> = std::sync::OnceLock::new();
        self.log.as_ref().map_or_else(|| NONE.get_or_init(Arc::default), |log| &log.progress)
    }
}

/// Adds the changes of a queue to the frame that is being gathered.
struct StateWriter<'f, 'w> {
    /// The queue's number.
    queue: u32,
    shift: ClockShift,
    frame: &'f mut FrameBuilder,
    room: &'f mut StateRoom<'w>,
}

impl StateWriter<'_, '_> {
    fn part<E: Job, K: Producers>(&mut self, state: &mut QueueState<E, K>, part: StatePart) -> Result<(), NoRoom> {
        let Self { queue, shift, frame, room } = self;
        let key = codec::part_key(*queue, part);
        let (savepoint, mut is_there) = (frame.savepoint(), false);
        room.add(frame, (state_kind::QUEUES, &key), |frame| match part {
            StatePart::Block(partition, block) => {
                let known = |offset| state.leases.known(partition, offset);
                is_there = codec::put_block(frame, *queue, partition, block, *shift, known);
            }
            StatePart::Deleted(partition, offset) => {
                is_there = state.deleted.contains(&(partition, offset));
                match is_there {
                    true => frame.put(state_kind::QUEUES, &key, &[]),
                    false => frame.delete(state_kind::QUEUES, &key),
                }
            }
        })?;
        if !state.leases.changes().is_none_or(|changes| changes.write(part, is_there)) {
            // The part began and ended between two frames, so the journal has no value of it that could be deleted. The
            // deletion is removed from the frame again.
            frame.rewind(savepoint);
        }
        Ok(())
    }

    /// Adds the removal of messages whose dead letters are in the frame. If the journal's state has no room for what else
    /// has become of their block, that is left to a later frame.
    fn settle<E: Job, K: Producers>(&mut self, state: &mut QueueState<E, K>, part: StatePart) {
        if self.part(state, part).is_ok() {
            state.leases.changes().into_iter().for_each(|changes| changes.written_early(part));
            return;
        }
        let (StatePart::Block(partition, block), Self { queue, shift, frame, room }) = (part, self) else { return };
        let key = codec::part_key(*queue, part);
        let before = room.value(state_kind::QUEUES, &key).map(codec::recorded_block).unwrap_or_default();
        let known =
            |offset| before.get(&(offset % BLOCK)).filter(|_| state.leases.contains(partition, offset)).cloned();
        let mut is_there = false;
        let added = room.add(frame, (state_kind::QUEUES, &key), |frame| {
            is_there = codec::put_block(frame, *queue, partition, block, shift.unconverted(), known);
        });
        if added.is_ok() {
            state.leases.changes().into_iter().for_each(|changes| _ = changes.write(part, is_there));
        }
    }

    fn gap<E: Job, K: Producers>(&mut self, state: &mut QueueState<E, K>, report: &GapReport) -> Result<(), NoRoom> {
        // The gap and the offset after it must be in one frame: a crash between two frames would make the queue report
        // the gap twice.
        let (cursor, next) = (Cursor::Partition(report.of.partition), report.offsets.end);
        self.put_cursor(state, cursor, next, |frame| report.put(frame))
    }

    fn cursor<E: Job, K: Producers>(
        &mut self,
        state: &mut QueueState<E, K>,
        cursor: Cursor,
        next: u64,
    ) -> Result<(), NoRoom> {
        self.put_cursor(state, cursor, next, |_| ())
    }

    fn put_cursor<E: Job, K: Producers>(
        &mut self,
        state: &mut QueueState<E, K>,
        cursor: Cursor,
        next: u64,
        put_new: impl FnOnce(&mut FrameBuilder),
    ) -> Result<(), NoRoom> {
        let Self { queue, frame, room, .. } = self;
        room.add(frame, (state_kind::QUEUES, &codec::cursor_key(*queue, cursor)), |frame| {
            put_new(frame);
            codec::put_cursor(frame, *queue, cursor, next);
        })?;
        state.leases.changes().into_iter().for_each(|changes| changes.recorded(cursor, next));
        Ok(())
    }
}
