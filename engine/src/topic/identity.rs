//! The names of a topic's idempotent producers, with the sequences that were published under them and their receipts.

use crate::base::turn::{Turn, TurnGuard};
use crate::log::producers::{ProducerState, SequenceWindow};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many receipts a topic keeps for each name of an idempotent producer. A publish that repeats one of these
/// sequences gets the receipt of the first publish.
pub const KEPT_RECEIPTS: usize = 1024;

/// One name of an idempotent producer in a topic, and the state of the name.
pub(crate) struct ProducerIdentity {
    pub(crate) name: String,
    /// The epoch of the newest producer with this name: how often a producer was opened under it. It is outside of
    /// `history`, so that opening a producer never waits for another one that waits for room.
    pub(crate) epoch: AtomicU64,
    /// The published sequences. [`Turn`] lends them to one publishing thread at a time, since publishing runs user
    /// code, under which no lock may be held.
    pub(crate) history: Arc<Turn<SequenceHistory>>,
    /// True if there is a next sequence, whose value is then in `next`. Both are a copy of the history's `next`, for
    /// threads that read them while another thread has borrowed the history.
    pub(crate) has_next: AtomicBool,
    pub(crate) next: AtomicU64,
    /// The state of this name in the journal; `None` if the topic is in memory.
    pub(crate) producer_state: Option<Arc<ProducerState>>,
}

/// The published sequences of one producer name, with their receipts.
#[derive(Default)]
pub(crate) struct SequenceHistory {
    /// The next sequence to be published; `None` before the first publish.
    pub(crate) next: Option<u64>,
    /// The partition and offset of each of the last sequences before `next`, oldest first.
    pub(crate) receipts: VecDeque<(u32, u64)>,
    /// The partition and offset of published sequences at or after `next`, by sequence. An earlier process published
    /// them and crashed before a lower sequence was written.
    pub(crate) apart: BTreeMap<u64, (u32, u64)>,
    /// The time of the last publish, or of the name's first opening if nothing was published; by the engine's clock.
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

    /// The history of a name from its window in the journal. `used` is the time of the name's last publish, by the
    /// engine's clock.
    pub(crate) fn restored(window: &SequenceWindow, used: Duration) -> Self {
        let mut receipts = window.receipts();
        let apart = receipts.split_off(&window.next.unwrap_or(0));
        // A receipt is found by counting back from `next`, so only receipts of consecutive sequences up to `next` are
        // kept.
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

/// The names of a topic's idempotent producers.
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

    /// Waits until no other thread publishes under this name, and borrows the history. `None` if the calling thread has
    /// borrowed it already, that is, if user code calls this during a publish.
    pub(crate) fn history(&self) -> Option<TurnGuard<SequenceHistory>> {
        self.history.take()
    }

    /// The next sequence to be published; `None` before the first publish.
    pub(crate) fn next(&self) -> Option<u64> {
        // Waits for a publish on another thread. If user code calls this during a publish on the calling thread,
        // returns the sequence of that publish, or `None` if it is the first under this name.
        match self.history() {
            Some(history) => history.next,
            None => self.has_next.load(Ordering::Acquire).then(|| self.next.load(Ordering::Acquire)),
        }
    }

    /// The partition and offset of the event with the highest sequence. `None` if no event was published or, for a
    /// topic in memory, if user code calls this during a publish on the calling thread.
    pub(crate) fn last(&self) -> Option<(u32, u64)> {
        match &self.producer_state {
            // The journal's window is read, and not `history`: it also has the events at sequences after `next`, which
            // an earlier process published.
            Some(producer_state) => producer_state.window().last(),
            None => self.history()?.receipts.back().copied(),
        }
    }
}
