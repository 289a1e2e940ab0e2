//! The writer's orders for compaction, which the helper thread carries out.

use crate::compact::{CompactError, Compacted, CompactionOrder, CompactionRules};
use crate::error::WriteError;
use crate::segment::Segment;
use crate::write::helper::Task;
use crate::write::writer::Writer;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

/// The present segment is ended for a compaction if its records of compacted partitions are at least one part in this many of
/// a segment. So segments whose records have nearly all gone do not become many times more than they would be without that.
const WORTH_ENDING: u64 = 64;

impl Writer {
    /// Goes on in the next segment, so that a [compaction](Self::compact) reaches the records of the present one once they are
    /// durable, if that is worth it: they are a 64th of a segment at least, and half as many bytes as the segments before have
    /// of compacted partitions. Returns whether it was. `time` is in nanoseconds since the epoch.
    ///
    /// # Errors
    /// The journal is poisoned. If the next segment cannot be made, nothing happens.
    pub fn end_segment_to_compact(&mut self, rules: &dyn CompactionRules, time: u64) -> Result<bool, WriteError> {
        self.shared().check_poisoned()?;
        if !self.is_worth_ending(rules) {
            return Ok(false);
        }
        let Ok(next) = self.next_segment() else { return Ok(false) };
        self.roll(next, time)?;
        Ok(true)
    }

    fn is_worth_ending(&self, rules: &dyn CompactionRules) -> bool {
        let segments = self.shared().segments().clone();
        let Some((present, before)) = segments.split_last() else { return false };
        let (bytes, least) = (to_compact(present, rules), self.shared().options.segment_size / WORTH_ENDING);
        // The many before are looked at only if there is enough in the present one.
        bytes >= least.max(1) && bytes >= before.iter().map(|segment| to_compact(segment, rules)).sum::<u64>() / 2
    }

    /// Does that if no record of a compacted partition has come since the last call: while more come, the segment fills and
    /// ends by itself.
    ///
    /// # Errors
    /// The journal is poisoned.
    pub fn end_segment_at_rest(&mut self, rules: &dyn CompactionRules, time: u64) -> Result<bool, WriteError> {
        let present = self.shared().segments().last().cloned();
        let now = present.map_or((0, 0), |present| (present.header.number, to_compact(&present, rules)));
        let is_at_rest = std::mem::replace(&mut self.seen_to_compact, now) == now;
        Ok(is_at_rest && self.end_segment_to_compact(rules, time)?)
    }

    /// Begins a pass of [compaction](CompactionRules) over all segments but the one that is being written, as fast as it can
    /// be. The receiver gets the result; it gets nothing if the journal is closed before the pass has ended. Without a
    /// helper thread, the pass has ended when this returns.
    ///
    /// Records that have a later one with the same key are removed, durable ones only, and old tombstones. No offset changes.
    ///
    /// # Errors
    /// The journal is poisoned.
    pub fn compact(
        &self,
        rules: Arc<dyn CompactionRules>,
    ) -> Result<Receiver<Result<Compacted, CompactError>>, WriteError> {
        let (sender, receiver) = sync_channel(1);
        self.order_compaction(CompactionOrder { rules, reply: Some(sender) })?;
        Ok(receiver)
    }

    /// Begins a pass if it is worth it: see [`compact`](Self::compact). It keeps to the rate of the journal's options. Does
    /// nothing while another pass runs.
    ///
    /// # Errors
    /// The journal is poisoned.
    pub fn compact_if_due(&self, rules: Arc<dyn CompactionRules>) -> Result<(), WriteError> {
        self.order_compaction(CompactionOrder { rules, reply: None })
    }

    fn order_compaction(&self, order: CompactionOrder) -> Result<(), WriteError> {
        self.shared().check_poisoned()?;
        self.helper()?.submit(Task::Compact(order));
        Ok(())
    }
}

/// Size of the segment's records of compacted partitions, in bytes.
fn to_compact(segment: &Segment, rules: &dyn CompactionRules) -> u64 {
    // The rules are asked once the lock of the index is released.
    let has: Vec<_> = segment.index().partitions.iter().map(|(of, indexed)| (*of, indexed.bytes)).collect();
    has.into_iter().filter(|(of, _)| rules.rule(*of).is_some()).map(|(_, bytes)| bytes).sum()
}
