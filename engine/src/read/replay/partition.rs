//! One partition of a replay: read from the journal, read from the ring, or over.

use super::ReplayError;
use crate::base::kind::Producers;
use crate::log::progress::Progress;
use crate::read::catch_up::CatchUp;
use crate::topic::TopicCore;
use crate::topic::durable::DurableTopic;
use crate::topic::partition::Partition;
use slipring_journal::{SharedScan, Start as From, Visible};
use slipring_ring::Consumer;
use std::ops::Range;
use std::sync::Arc;

pub(super) struct ReplayPartition<E, K: Producers> {
    pub(super) partition: Arc<Partition<E, K>>,
    pub(super) progress: Arc<Progress>,
    pub(super) next: u64,
    /// The offsets of a gap (events lost to damage) directly before `next` that is not reported yet; `None` if there is
    /// none.
    pub(super) gap: Option<Range<u64>>,
    /// While the replay searches the first event of a time: the offset after the last event that was published at the
    /// opening. Only events below it are compared with the time, in the journal, even if the ring still has them.
    /// `None` without a search.
    pub(super) seeks: Option<u64>,
    pub(super) mode: ReplayMode<E, K>,
}

#[expect(clippy::large_enum_variant, reason = "one for each partition that is read")]
pub(super) enum ReplayMode<E, K: Producers> {
    Journal(CatchUp<E, K>),
    Ring(Consumer<E, K>),
    Over,
}

impl<E: Send + Sync + 'static, K: Producers> ReplayPartition<E, K> {
    pub(super) fn open(
        topic: &TopicCore<E, K>,
        durable: &DurableTopic<E>,
        partition: &Arc<Partition<E, K>>,
        from: From,
    ) -> Result<Self, ReplayError> {
        let gone = || ReplayError::Refused { topic: topic.name.clone(), cause: "it is gone".to_owned() };
        let progress = durable.acks.progress(partition.index).ok_or_else(gone)?;
        let opened = CatchUp::open(durable, partition, &progress, from);
        let from_journal =
            |cause| ReplayError::Journal { topic: topic.name.clone(), partition: partition.index, cause };
        let mut catch_up = opened.map_err(from_journal)?;
        let next = catch_up.position();
        // Only events below this offset are compared with the start time: an event that is published after the opening
        // is returned whatever its time.
        let seeks = matches!(from, From::Time(_)).then(|| partition.ring.published().0);
        catch_up.cursor().set_until(seeks.unwrap_or(u64::MAX));
        let (partition, mode) = (Arc::clone(partition), ReplayMode::Journal(catch_up));
        Ok(Self { partition, progress, next, gap: None, seeks, mode })
    }

    /// Registers with the shared scan of the journal, so that the scan waits for this partition.
    pub(super) fn expect(&mut self, scan: &mut SharedScan) {
        if let ReplayMode::Journal(catch_up) = &mut self.mode {
            catch_up.cursor().resume(scan);
        }
    }

    /// The next offset to be read, from the journal or from the ring.
    pub(super) fn position(&self) -> u64 {
        match &self.mode {
            ReplayMode::Journal(catch_up) => catch_up.position().max(self.next),
            ReplayMode::Ring(consumer) => consumer.consumed().0,
            ReplayMode::Over => self.next,
        }
    }

    pub(super) fn has_more(&self, visible: Visible) -> bool {
        let may_read = match &self.mode {
            ReplayMode::Journal(_) => true,
            // The events of a transaction are durable before they are published, so a reader of the ring may not be
            // able to read them yet. After they are published, the committer skips them, and then wakes the waits for
            // the partition's progress again.
            ReplayMode::Ring(consumer) => consumer.lag() > 0,
            ReplayMode::Over => false,
        };
        self.gap.is_some() || (may_read && self.progress.end(visible) > self.position())
    }

    /// True if reading may bring the partition to its end. `over` is true if the journal has ended, for all topics.
    pub(super) fn can_end(&self, visible: Visible, over: bool) -> bool {
        !matches!(self.mode, ReplayMode::Over) && (over || self.progress.is_over(visible))
    }

    pub(super) fn is_ending(&self) -> bool {
        !matches!(self.mode, ReplayMode::Over) && self.partition.ring.closed().is_some()
    }
}
