//! The writer's orders for compaction, which the helper thread carries out.

use crate::compact::{CompactError, Compacted, CompactionOrder, CompactionRules};
use crate::error::WriteError;
use crate::write::helper::Task;
use crate::write::writer::Writer;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

impl Writer {
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
