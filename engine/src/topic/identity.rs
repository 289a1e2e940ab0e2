//! The names of a topic's idempotent producers, with their published sequences and receipts.

use crate::base::turn::{Turn, TurnGuard};
use crate::log::producers::{ProducerState, SequenceWindow};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many receipts a topic keeps for each producer name. A publish that repeats one of these sequences gets its
/// receipt.
pub const KEPT_RECEIPTS: usize = 1024;

/// The name of an idempotent producer, and its state in the topic.
pub(crate) struct ProducerIdentity {
    pub(crate) name: String,
    /// The epoch of the newest producer with this name. It is outside of `history`, so that opening a producer never
    /// waits for another producer that waits for room.
    pub(crate) epoch: AtomicU64,
    /// The published sequences. [`Turn`] lends them to one publishing thread at a time; it is no lock, because
    /// publishing runs the user's code.
    pub(crate) history: Arc<Turn<SequenceHistory>>,
    /// A copy of the history's `next`, which threads can read while another thread has the history: if there is a next
    /// sequence, and its value.
    pub(crate) has_next: AtomicBool,
    pub(crate) next: AtomicU64,
    /// The journal's state of this name; `None` if the topic is in memory.
    pub(crate) producer_state: Option<Arc<ProducerState>>,
}

/// The published sequences of one producer name, with their receipts.
#[derive(Default)]
pub(crate) struct SequenceHistory {
    /// The next sequence to be published; `None` before the first publish.
    pub(crate) next: Option<u64>,
    /// Partition and offset of each of the last sequences before `next`, oldest first.
    pub(crate) receipts: VecDeque<(u32, u64)>,
    /// Partition and offset of sequences after `next`, by sequence. An earlier process published them, but lost a
    /// sequence before them.
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

    /// The history that the journal has of a name. `used` is the time of its last publish, by the engine's clock.
    pub(crate) fn restored(window: &SequenceWindow, used: Duration) -> Self {
        let mut receipts = window.receipts();
        let apart = receipts.split_off(&window.next.unwrap_or(0));
        // A receipt is found by counting back from `next`, so only the receipts with no gap up to `next` are kept here.
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

/// The idempotent producers of a topic, by name.
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

    /// Waits until no other thread publishes under this name. `None` if the calling thread itself is publishing under
    /// it.
    pub(crate) fn history(&self) -> Option<TurnGuard<SequenceHistory>> {
        self.history.take()
    }

    /// The next sequence to be published; `None` before the first publish.
    pub(crate) fn next(&self) -> Option<u64> {
        // Waits for a publish on another thread. Called in the middle of the thread's own publish, this returns the
        // sequence of that publish.
        match self.history() {
            Some(history) => history.next,
            None => self.has_next.load(Ordering::Acquire).then(|| self.next.load(Ordering::Acquire)),
        }
    }

    /// Partition and offset of the last event; `None` if no event was published.
    pub(crate) fn last(&self) -> Option<(u32, u64)> {
        match &self.producer_state {
            // The journal's window may have events that an earlier process published without giving out their receipts.
            Some(producer_state) => producer_state.window().last(),
            None => self.history()?.receipts.back().copied(),
        }
    }
}
