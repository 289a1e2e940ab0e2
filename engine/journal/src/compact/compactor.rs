//! The compactor: carries out the orders for compaction one after the other, in steps.

use crate::compact::pass::CompactionPass;
use crate::compact::{CompactError, Compacted, CompactionRules};
use crate::error::WriteError;
use crate::format::PartitionId;
use crate::shared::Shared;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// About how many bytes are read and written in one step. The writer waits for one step at most.
const STEP: u64 = 1 << 20;

/// An order to compact a journal.
pub(crate) struct CompactionOrder {
    pub rules: Arc<dyn CompactionRules>,
    /// Gets the result. With a reply the pass is made in any case and as fast as it can be; without one it is made only if
    /// enough was written since the last pass, and no faster than the journal's options allow.
    pub reply: Option<SyncSender<Result<Compacted, CompactError>>>,
}

#[derive(Default)]
pub(crate) struct Compactor {
    orders: VecDeque<CompactionOrder>,
    running: Option<(CompactionPass, CompactionOrder)>,
    /// When the next step may begin; `None`: at once.
    next: Option<Instant>,
    last: LastPass,
}

/// What the last pass left.
#[derive(Default)]
struct LastPass {
    /// The number of the segment behind the last one that the pass looked at; 0 before the first pass.
    end: u64,
    /// The partitions that were compacted.
    partitions: BTreeSet<PartitionId>,
    /// The number of the segment with which the next pass begins to note keys; 0 for the first one.
    noted_from: u64,
    /// The earliest time of a frame with a tombstone that stayed; `None` if there was none.
    tombstone_left: Option<u64>,
}

impl Compactor {
    pub fn add(&mut self, order: CompactionOrder) {
        // Orders without a reply come at intervals: one of them is enough.
        if order.reply.is_some() || (self.running.is_none() && self.orders.is_empty()) {
            self.orders.push_back(order);
        }
    }

    /// The time until the next step may begin; `None` if there is nothing to do.
    pub fn pause(&self) -> Option<Duration> {
        let has_work = self.running.is_some() || !self.orders.is_empty();
        let now = Instant::now();
        has_work.then(|| self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now)))
    }

    /// Does one step of work.
    pub fn step(&mut self, shared: &Shared) {
        let begun = Instant::now();
        self.next = None;
        let Some((mut pass, order)) = self.running.take().or_else(|| self.begin(shared)) else { return };
        if let Some(cause) = shared.poison.get() {
            pass.discard(shared);
            return reply(&order, Err(WriteError::Poisoned(cause.clone()).into()));
        }
        match pass.step(shared, STEP) {
            Err(cause) => {
                pass.discard(shared);
                // What has failed may fail again, so the next pass waits for the next order.
                reply(&order, Err(cause.into()));
            }
            Ok(_) if pass.is_over() => {
                let CompactionPass { done, end, next_noted, tombstone_left, .. } = pass;
                let partitions = std::mem::take(&mut self.last.partitions);
                self.last = LastPass { end, partitions, noted_from: next_noted, tombstone_left };
                shared.compacted.add(done.removed, done.freed);
                reply(&order, Ok(done));
            }
            Ok(worked) => {
                if order.reply.is_none() {
                    let nanos = worked.saturating_mul(1_000_000_000) / shared.options.compaction_rate.max(1);
                    self.next = begun.checked_add(Duration::from_nanos(nanos));
                }
                self.running = Some((pass, order));
            }
        }
    }

    fn begin(&mut self, shared: &Shared) -> Option<(CompactionPass, CompactionOrder)> {
        let order = self.orders.pop_front()?;
        if !self.is_due(shared, &order) {
            return None;
        }
        Some((CompactionPass::begin(shared, Arc::clone(&order.rules), self.last.noted_from), order))
    }

    /// True if a pass is worth it: half as many records, or as many bytes of them, were written since the last pass as
    /// there were then, or a tombstone has become old enough. True in any case for an order with a reply.
    fn is_due(&mut self, shared: &Shared, order: &CompactionOrder) -> bool {
        let partitions: Vec<PartitionId> = shared.extents().keys().copied().collect();
        let ruled = partitions.into_iter().filter_map(|it| Some((it, order.rules.rule(it)?)));
        let (partitions, rules): (BTreeSet<_>, Vec<_>) = ruled.unzip();
        if !partitions.is_subset(&self.last.partitions) {
            self.last = LastPass::default();
        }
        self.last.partitions = partitions;
        if order.reply.is_some() {
            return true;
        }
        let ([mut old, mut new], mut is_partial) = ([(0, 0); 2], self.last.noted_from > 0);
        for segment in shared.segments().iter().take_while(|segment| segment.is_sealed() || segment.header.lost) {
            let sum = if segment.header.number < self.last.end { &mut old } else { &mut new };
            let index = segment.index();
            for (partition, indexed) in &index.partitions {
                if self.last.partitions.contains(partition) {
                    *sum = (sum.0 + indexed.records, sum.1 + indexed.bytes);
                }
            }
        }
        is_partial |= new.0 > 0 && (new.0 >= old.0 / 2 || new.1 >= old.1 / 2);
        let is_old = |left: u64| rules.iter().any(|rule| left < rule.tombstones_before);
        is_partial || self.last.tombstone_left.is_some_and(is_old)
    }

    /// Gives up what is running, and tells whoever waits.
    pub fn end(&mut self, shared: &Shared) {
        let running = self.running.take().map(|(pass, order)| {
            pass.discard(shared);
            order
        });
        // Whoever waits for a reply learns of the end when the sender is dropped.
        drop((running, std::mem::take(&mut self.orders)));
    }
}

fn reply(order: &CompactionOrder, outcome: Result<Compacted, CompactError>) {
    if let Some(reply) = &order.reply {
        // Nobody may be waiting any more.
        let _ = reply.send(outcome);
    }
}
