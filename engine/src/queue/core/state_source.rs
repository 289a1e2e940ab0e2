//! A queue as a state source of the committer: how its changes are added to frames.

use super::QueueCore;
use crate::base::kind::Producers;
use crate::log::catalog::state_kind;
use crate::log::progress::Progress;
use crate::log::source::{DrainedState, StateSource};
use crate::queue::changes::{Cursor, NextWrite, StatePart};
use crate::queue::codec::{self, BLOCK_BYTES};
use crate::queue::job::Job;
use crate::queue::state::QueueState;
use slipring_journal::{FrameBuilder, PartitionId};
use std::sync::Arc;

/// The room in bytes that a frame must have before one more part of the state is added.
const PART_BYTES: usize = BLOCK_BYTES + 16 * 110;

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
        room: usize,
        drained: &mut dyn FnMut(PartitionId) -> Option<u64>,
    ) -> DrainedState {
        let Some(log) = &self.log else { return DrainedState::default() };
        let shift = QueueState::<E, K>::shift(&*self.host.clock);
        let mut state = self.lock();
        let (begun, number) = (frame.len(), log.number);
        let has_room = |frame: &FrameBuilder| frame.len() - begun + PART_BYTES <= room;
        let put = |state: &mut QueueState<E, K>, frame: &mut FrameBuilder, partition, block| {
            let savepoint = frame.savepoint();
            let known = |offset| state.leases.known(partition, offset);
            let is_there = codec::put_block(frame, number, partition, block, shift, known);
            let part = StatePart::Block(partition, block);
            if !state.leases.changes().is_none_or(|changes| changes.write(part, is_there)) {
                // The block's messages were read and finished between two frames, so the journal has no value of the
                // block, and the deletion is removed from the frame again.
                frame.rewind(savepoint);
            }
        };
        // A dead letter and the removal of its message must be in the same frame.
        let settled = state.settle_dead_letters(self.dead_number, drained);
        if !settled.is_empty() {
            // In strict order the partition's next message may be leased now; or these were the last messages, so that
            // the queue has ended.
            self.wake(&mut state);
        }
        for (partition, offset) in settled {
            if has_room(frame) {
                put(&mut state, frame, partition, offset / crate::queue::changes::BLOCK);
            }
        }
        if state.write_dead_letters(self.log.as_ref()) {
            self.wake(&mut state);
        }
        self.note_pending_dead_letters(&state);
        let mut drained_state = DrainedState {
            urgent: log.is_urgent(),
            awaits_events: !state.pending_dead_letters.is_empty(),
            ..DrainedState::default()
        };
        loop {
            if !has_room(frame) {
                drained_state.more = true;
                return drained_state;
            }
            let next = state.leases.changes().and_then(|changes| changes.next());
            match next {
                None => return drained_state,
                Some(NextWrite::Part(StatePart::Block(partition, block))) => put(&mut state, frame, partition, block),
                Some(NextWrite::Part(part @ StatePart::Deleted(partition, offset))) => {
                    let key = codec::part_key(number, part);
                    let is_there = state.deleted.contains(&(partition, offset));
                    let is_news = state.leases.changes().is_none_or(|changes| changes.write(part, is_there));
                    match is_there {
                        true => frame.put(state_kind::QUEUES, &key, &[]),
                        false if is_news => frame.delete(state_kind::QUEUES, &key),
                        false => {}
                    }
                }
                // The gap and the offset after it must be in one frame: a crash between two frames would make the queue
                // report the gap twice.
                Some(NextWrite::Gap(report)) => {
                    report.put(frame);
                    codec::put_cursor(frame, number, Cursor::Partition(report.of.partition), report.offsets.end);
                }
                Some(NextWrite::Cursor(cursor, next)) => codec::put_cursor(frame, number, cursor, next),
                Some(NextWrite::End(count)) => drained_state.changes = Some(count),
            }
        }
    }

    fn progress(&self) -> &Arc<Progress> {
        // The committer calls this only for a source that has added changes, which a queue in memory never does.
        static NONE: std::sync::OnceLock<Arc<Progress>> = std::sync::OnceLock::new();
        self.log.as_ref().map_or_else(|| NONE.get_or_init(Arc::default), |log| &log.progress)
    }
}
