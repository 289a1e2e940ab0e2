//! Writing the offsets that groups have committed, and deleting those of groups that were forgotten.

use super::CommitterThread;
use crate::log::catalog::state_kind;
use crate::log::offsets::group::{CommittedOffset, WITHOUT_METADATA};
use slipring_journal::{FrameBuilder, WriteError};
use std::sync::Arc;
use std::time::Instant;

impl CommitterThread {
    /// Writes the deletions of forgotten groups' offsets, then adds the changed committed offsets to `self.frame`. An
    /// offset that does not fit into this frame, or whose value makes the journal's state grow and may be refused, is
    /// written in a frame of its own, so that it cannot make events fail. If the journal refuses the metadata of an offset,
    /// the offset is written without it. The outer error is a failure of the journal; the
    /// inner one is the first refusal of an offset.
    pub(super) fn put_committed_offsets(&mut self) -> Result<Result<(), WriteError>, WriteError> {
        let mut outcome = Ok(());
        let moved = self.shared.committed_offsets.take_moved();
        if moved.is_empty() {
            return Ok(outcome);
        }
        let now = self.now();
        let (deleted, moved): (Vec<_>, Vec<_>) = moved.into_iter().partition(|it| it.is_deleted());
        outcome = outcome.and(self.delete_offsets(&deleted, now)?);
        let writer = self.writer.as_mut().expect("taken when the journal is closed only");
        let mut bytes = Vec::new();
        for committed_offset in moved {
            let key = committed_offset.key();
            committed_offset.encode(&mut bytes);
            let mut value = &bytes[..];
            loop {
                let known = writer.state().get(state_kind::GROUP_OFFSETS, key);
                if known == Some(value) {
                    break;
                }
                // A value that replaces one of at least its size does not make the state grow, so it cannot be refused.
                let is_safe = known.is_some_and(|known| known.len() >= value.len());
                if is_safe && self.frame.len() + key.len() + value.len() + 48 <= writer.frame_limit() {
                    self.frame.put(state_kind::GROUP_OFFSETS, key, value);
                    break;
                }
                let mut alone = FrameBuilder::new();
                alone.put(state_kind::GROUP_OFFSETS, key, value);
                match writer.append(&mut alone, now) {
                    Ok(_) => {
                        self.dirty_since.get_or_insert_with(Instant::now);
                        break;
                    }
                    Err(poisoned @ WriteError::Poisoned(_)) => return Err(poisoned),
                    Err(refused) => outcome = outcome.and(Err(refused)),
                }
                if value.len() == WITHOUT_METADATA {
                    break;
                }
                value = &bytes[..WITHOUT_METADATA];
            }
        }
        Ok(outcome)
    }

    /// Writes the deletions of forgotten groups' offsets, in one frame if they fit into one. The caller does this
    /// before it writes the offsets that new groups of the same names have committed. Offsets that the journal does not
    /// have are skipped. Errors as in [`put_committed_offsets`](Self::put_committed_offsets).
    fn delete_offsets(
        &mut self,
        deleted: &[Arc<CommittedOffset>],
        now: u64,
    ) -> Result<Result<(), WriteError>, WriteError> {
        let writer = self.writer.as_mut().expect("taken when the journal is closed only");
        let (limit, mut frames, mut frame) = (writer.frame_limit(), Vec::new(), FrameBuilder::new());
        for committed_offset in deleted {
            let key = committed_offset.key();
            if writer.state().get(state_kind::GROUP_OFFSETS, key).is_none() {
                continue;
            }
            if frame.len() + key.len() + 64 > limit {
                frames.push(std::mem::take(&mut frame));
            }
            frame.delete(state_kind::GROUP_OFFSETS, key);
        }
        frames.push(frame);
        for mut frame in frames.into_iter().filter(|frame| !frame.is_empty()) {
            match writer.append(&mut frame, now) {
                Ok(_) => _ = self.lazy_since.get_or_insert_with(Instant::now),
                Err(poisoned @ WriteError::Poisoned(_)) => return Err(poisoned),
                Err(refused) => return Ok(Err(refused)),
            }
        }
        Ok(Ok(()))
    }

    /// Writes the changed committed offsets in frames without events. Does not sync: the next sync covers them, which
    /// comes after [`LAZY`](super::LAZY) at the latest, or at once if a thread waits for the offsets. Errors as in
    /// [`put_committed_offsets`](Self::put_committed_offsets).
    pub(super) fn write_committed_offsets(&mut self) -> Result<Result<(), WriteError>, WriteError> {
        let outcome = self.put_committed_offsets()?;
        if !self.frame.is_empty() {
            let now = self.now();
            let writer = self.writer.as_mut().expect("taken when the journal is closed only");
            writer.append(&mut self.frame, now)?;
            self.lazy_since.get_or_insert_with(Instant::now);
        }
        Ok(outcome)
    }
}
