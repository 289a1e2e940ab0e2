//! Forgetting groups: deleting their committed offsets from the journal.
//!
//! These functions only mark the offsets as deleted, and do not wait for the journal. The committer writes the
//! deletions with its next frame, before the offsets that new groups of the same names have committed.

use crate::log::catalog::state_kind;
use crate::log::committer::Committer;
use crate::log::offsets::group::CommittedOffset;
use crate::log::partition_key::key_parts;
use slipring_journal::FrameBuilder;
use std::sync::Arc;

/// The result of [`Committer::forget_offsets`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ForgottenOffsets {
    /// True if an offset that the journal had was deleted.
    pub(crate) deleted: bool,
    /// True if offsets were kept because a group of this engine still uses them.
    pub(crate) in_use: bool,
}

impl Committer {
    /// Deletes these offsets of a forgotten group, in the journal with the next frame. The caller holds the group's
    /// lock, so that a member that joins later finds no committed offsets.
    pub(crate) fn delete_offsets<'o>(&self, gone: impl Iterator<Item = &'o Arc<CommittedOffset>>) {
        let mut known = self.recovered_state();
        let mut frame = FrameBuilder::new();
        for committed_offset in gone {
            frame.delete(state_kind::GROUP_OFFSETS, committed_offset.key());
            self.committed_offsets.delete(committed_offset);
        }
        known.take(&mut frame);
    }

    /// Deletes, with the next frame, the offsets that the journal already had when it was opened, of the groups for
    /// whose names `is_forgotten` returns true. Offsets that a group of this engine uses are kept.
    pub(crate) fn forget_offsets(&self, is_forgotten: impl Fn(&str) -> bool) -> ForgottenOffsets {
        let mut known = self.recovered_state();
        let named = known.values(state_kind::GROUP_OFFSETS).filter_map(|(key, _)| Some((key, key_parts(key)?)));
        let named: Vec<_> = named.filter(|(_, (group, _))| is_forgotten(group)).collect();
        if named.is_empty() {
            return ForgottenOffsets::default();
        }
        let kept = self.committed_offsets.keys();
        let mut forgotten = ForgottenOffsets::default();
        let mut frame = FrameBuilder::new();
        for (key, (group, of)) in named {
            if kept.contains(key) {
                forgotten.in_use = true;
                continue;
            }
            forgotten.deleted = true;
            frame.delete(state_kind::GROUP_OFFSETS, key);
            self.committed_offsets.delete(&self.committed_offsets.add(group, of));
        }
        known.take(&mut frame);
        forgotten
    }
}
