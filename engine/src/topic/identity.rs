//! What a topic knows of producers with names.

use crate::base::turn::{Turn, TurnGuard};
use crate::log::producers::{ProducerState, SequenceWindow};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many receipts are kept for each name, to answer duplicates with.
pub const KEPT_RECEIPTS: usize = 1024;

/// What a topic knows of a name.
pub(crate) struct ProducerIdentity {
    pub(crate) name: String,
    /// Of whoever opened the name last. Beside the history: a newcomer need not wait for one that waits for room.
    pub(crate) epoch: AtomicU64,
    /// Whoever publishes under the name has it, and runs the user's code meanwhile: so it is no lock.
    pub(crate) history: Arc<Turn<SequenceHistory>>,
    /// Of the history, beside it: whether there is a next sequence, and which.
    pub(crate) has_next: AtomicBool,
    pub(crate) next: AtomicU64,
    /// Of a durable topic.
    pub(crate) producer_state: Option<Arc<ProducerState>>,
}

/// Sequences of a name that were published, with their receipts.
#[derive(Default)]
pub(crate) struct SequenceHistory {
    /// None before the first.
    pub(crate) next: Option<u64>,
    /// The receipts of the last sequences, up to `next`.
    pub(crate) receipts: VecDeque<(u32, u64)>,
    /// Of sequences behind `next`, which an earlier process published.
    pub(crate) apart: BTreeMap<u64, (u32, u64)>,
    pub(crate) used: Duration,
}

impl SequenceHistory {
    pub(crate) fn note(&mut self, sequence: u64, receipt: (u32, u64)) {
        self.next = Some(sequence + 1);
        if self.receipts.len() == KEPT_RECEIPTS {
            self.receipts.pop_front();
        }
        self.receipts.push_back(receipt);
    }

    /// As the journal has it.
    pub(crate) fn restored(window: &SequenceWindow, used: Duration) -> Self {
        let mut receipts = window.receipts();
        let apart = receipts.split_off(&window.next.unwrap_or(0));
        // Only what leads up to `next` without a gap can be found by its place.
        let mut kept = VecDeque::new();
        let mut sequence = window.next.unwrap_or(0);
        while let Some(before) = sequence.checked_sub(1)
            && let Some(receipt) = receipts.get(&before)
        {
            kept.push_front(*receipt);
            sequence = before;
        }
        Self { next: window.next, receipts: kept, apart, used }
    }
}

/// The names that a topic knows.
pub(crate) type ProducerIdentities = Mutex<HashMap<String, Arc<ProducerIdentity>>>;

impl ProducerIdentity {
    pub(crate) fn new(
        name: String,
        epoch: u64,
        history: SequenceHistory,
        producer_state: Option<Arc<ProducerState>>,
    ) -> Arc<Self> {
        let (epoch, has_next) = (epoch.into(), history.next.is_some().into());
        let next = history.next.unwrap_or_default().into();
        Arc::new(Self { name, epoch, history: Turn::new(history), has_next, next, producer_state })
    }

    /// None if the calling thread is publishing under this name.
    pub(crate) fn history(&self) -> Option<TurnGuard<SequenceHistory>> {
        self.history.take()
    }

    /// The next sequence; none before the first.
    pub(crate) fn next(&self) -> Option<u64> {
        // Waits for who publishes. Whoever asks in the middle of its own publish gets what was before it.
        match self.history() {
            Some(history) => history.next,
            None => self.has_next.load(Ordering::Acquire).then(|| self.next.load(Ordering::Acquire)),
        }
    }

    /// The last event's place; none if nothing was published.
    pub(crate) fn last(&self) -> Option<(u32, u64)> {
        match &self.producer_state {
            // Of an earlier process there may be events behind the last that was told.
            Some(producer_state) => producer_state.window().last(),
            None => self.history()?.receipts.back().copied(),
        }
    }
}
