//! Producers with names, as a topic knows them.

use crate::base::turn::{Turn, TurnGuard};
use crate::log::producers::{ProducerState, SequenceWindow};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many receipts are kept for each name. They answer publishes of a sequence that was published before.
pub const KEPT_RECEIPTS: usize = 1024;

/// A producer's name, as its topic knows it.
pub(crate) struct ProducerIdentity {
    pub(crate) name: String,
    /// The epoch of the producer that was opened last. It is not part of the history, so opening a producer never waits for
    /// one that waits for room.
    pub(crate) epoch: AtomicU64,
    /// The producer that publishes has this turn. It is no lock, because the user's code runs meanwhile.
    pub(crate) history: Arc<Turn<SequenceHistory>>,
    /// Copies of the history's next sequence: whether there is one, and which. They can be read while somebody has the
    /// history's turn.
    pub(crate) has_next: AtomicBool,
    pub(crate) next: AtomicU64,
    /// On a durable topic: what the journal has of the name.
    pub(crate) producer_state: Option<Arc<ProducerState>>,
}

/// The sequences of a name that were published, with their receipts.
#[derive(Default)]
pub(crate) struct SequenceHistory {
    /// The next sequence; none before the first publish.
    pub(crate) next: Option<u64>,
    /// Partition and offset of the last sequences before `next`.
    pub(crate) receipts: VecDeque<(u32, u64)>,
    /// Partition and offset of sequences behind `next`, which an earlier process has published.
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

    /// The history as the journal has it.
    pub(crate) fn restored(window: &SequenceWindow, used: Duration) -> Self {
        let mut receipts = window.receipts();
        let apart = receipts.split_off(&window.next.unwrap_or(0));
        // Receipts are found by counting back from `next`, so only those without a gap before `next` are kept here.
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

    /// The turn. None if the calling thread is publishing under this name.
    pub(crate) fn history(&self) -> Option<TurnGuard<SequenceHistory>> {
        self.history.take()
    }

    /// The next sequence; none before the first.
    pub(crate) fn next(&self) -> Option<u64> {
        // Waits for a publish on another thread. In the middle of its own publish, a thread gets the sequence from before
        // it.
        match self.history() {
            Some(history) => history.next,
            None => self.has_next.load(Ordering::Acquire).then(|| self.next.load(Ordering::Acquire)),
        }
    }

    /// Partition and offset of the last event; none if nothing was published.
    pub(crate) fn last(&self) -> Option<(u32, u64)> {
        match &self.producer_state {
            // An earlier process may have published more than the last receipt that it has given out.
            Some(producer_state) => producer_state.window().last(),
            None => self.history()?.receipts.back().copied(),
        }
    }
}
