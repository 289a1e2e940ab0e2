//! A stage: a consumer with its place in the graph. [`Stage`] declares one; [`StageState`] is what producers and
//! other stages see of it while it runs.

use crate::bell::Bell;
use crate::fault::{Fault, fault};
use crate::gates::lowest;
use crate::ordering::{
    CONSUME, COUNT, EVICT, FOLLOW, HOLD, LET_GO, RAISE_WORKERS, READ_EVICTED, READ_HOLD, READ_WORKERS, START, Site,
};
use crate::report::Ending;
#[cfg(all(debug_assertions, not(any(loom, shuttle))))]
use crate::sequence::ahead;
use crate::sequence::{Position, Sequence, earlier};
use crate::sync::{Arc, AtomicU32, AtomicU64, Mutex, lock};
use crate::wait::Wait;
use crate::workers::Workers;
use crossbeam_utils::CachePadded;
use std::collections::BTreeSet;

/// Where a stage begins to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the lowest position that is still kept: what slower stages have not read, and what is retained.
    #[default]
    Earliest,
    /// At what is published next.
    Latest,
    /// Here. Refused with the range if it is not kept any more or not published yet.
    At(Sequence),
}

/// What to do when a managed stage's handler returns an error or panics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Close the ring with the stage's name and the cause. What was not handled stays unconsumed.
    #[default]
    Stop,
    /// Count the event as skipped and go on behind it.
    Skip,
    /// Hand the event over again, up to so many times, then stop.
    Retry(u32),
    /// Hand the event over again, up to so many times, then skip it.
    RetryThenSkip(u32),
}

impl OnError {
    /// How often an event is handed over again, and whether it is passed over after that.
    pub(crate) fn retries(self) -> (u32, bool) {
        match self {
            Self::Stop => (0, false),
            Self::Skip => (0, true),
            Self::Retry(retries) => (retries, false),
            Self::RetryThenSkip(retries) => (retries, true),
        }
    }
}

/// A stage as declared: its name, its place, its manners.
///
/// ```
/// use slipring_ring::{Stage, Start, Wait};
/// let stage = Stage::new("depth").after(["book"]).wait(Wait::spin_yield()).start(Start::Latest);
/// ```
#[derive(Clone, Debug)]
pub struct Stage {
    pub(crate) name: String,
    pub(crate) after: Vec<StageRef>,
    pub(crate) start: Start,
    pub(crate) wait: Wait,
    pub(crate) core: Option<usize>,
    pub(crate) limit: usize,
    pub(crate) on_error: OnError,
    pub(crate) journaler: bool,
}

/// Another stage, by its name or by what [`Consumer::stage`](crate::Consumer::stage) returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageRef {
    pub(crate) name: String,
    /// The ring it belongs to, where that is known.
    pub(crate) ring: Option<u64>,
}

impl StageRef {
    /// The stage's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl From<&str> for StageRef {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), ring: None }
    }
}

impl From<String> for StageRef {
    fn from(name: String) -> Self {
        Self { name, ring: None }
    }
}

impl From<&StageRef> for StageRef {
    fn from(stage: &StageRef) -> Self {
        stage.clone()
    }
}

impl Stage {
    /// A stage after the producer, from the earliest event, parking when idle.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            after: Vec::new(),
            start: Start::Earliest,
            wait: Wait::default(),
            core: None,
            limit: usize::MAX,
            on_error: OnError::Stop,
            journaler: false,
        }
    }

    /// Stands behind these: reads an event only when each of them has moved past it.
    pub fn after<S: Into<StageRef>>(mut self, stages: impl IntoIterator<Item = S>) -> Self {
        self.after.extend(stages.into_iter().map(Into::into));
        self
    }

    /// Where it begins. Before the first publish all starts are the same.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// How it waits.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// A managed stage's thread is pinned to this core, by the system's number for it.
    pub fn pin(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// A managed stage takes at most this many events in one batch (at least 1).
    pub fn limit(mut self, events: usize) -> Self {
        self.limit = events.max(1);
        self
    }

    /// See [`limit`](Self::limit).
    pub fn batch_limit(&self) -> usize {
        self.limit
    }

    /// A managed stage's answer to errors and panics of its handler.
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.on_error = policy;
        self
    }

    /// What this stage read must stay as it was read: no mutable stage may stand behind it.
    pub fn journaler(mut self) -> Self {
        self.journaler = true;
        self
    }
}

impl From<&str> for Stage {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// A running stage, as the others see it.
pub struct StageState {
    pub(crate) name: String,
    pub(crate) exclusive: bool,
    pub(crate) journaler: bool,
    pub(crate) after: Vec<Arc<StageState>>,
    /// The addresses of all stages that this one stands behind, however far, in order. `after` keeps them alive, so that no
    /// other stage comes to have one of these addresses.
    ancestors: Box<[usize]>,
    /// What this stage lets through: those behind it read below this, and producers overwrite below it less the capacity.
    /// It is never beyond what those before it have let through, and may lie behind where the stage reads. Workers: a
    /// lower bound that only grows; see [`Workers`].
    consumed: Position,
    pub(crate) workers: Option<Workers>,
    pub(crate) bell: Arc<Bell>,
    /// 1 while a batch is held. Its own thread writes it, whoever evicts reads it.
    hold: CachePadded<AtomicU32>,
    /// 1 once eviction was asked for.
    evicted: CachePadded<AtomicU32>,
    pub(crate) counts: Counts,
    pub(crate) ending: Mutex<Option<Ending>>,
}

/// What happened at a stage so far. Counters order nothing.
pub(crate) struct Counts {
    stalls: AtomicU64,
    skipped: AtomicU64,
    lost: AtomicU64,
}

impl Counts {
    fn new() -> Self {
        Self { stalls: AtomicU64::new(0), skipped: AtomicU64::new(0), lost: AtomicU64::new(0) }
    }

    /// A producer found no room because of this stage.
    pub(crate) fn stall(&self) {
        self.stalls.fetch_add(1, COUNT.get());
    }

    /// The handler failed, and the event was passed over.
    pub(crate) fn skip(&self) {
        self.skipped.fetch_add(1, COUNT.get());
    }

    /// A worker went down with an event in hand.
    pub(crate) fn lose(&self) {
        self.lost.fetch_add(1, COUNT.get());
    }

    /// Stalls, skipped, lost.
    pub(crate) fn read(&self) -> [u64; 3] {
        [&self.stalls, &self.skipped, &self.lost].map(|count| count.load(COUNT.get()))
    }
}

impl StageState {
    pub(crate) fn new(
        declared: &Stage,
        exclusive: bool,
        after: Vec<Arc<StageState>>,
        at: u64,
        workers: Option<Workers>,
    ) -> Self {
        let further = after.iter().flat_map(|before| before.ancestors.iter().copied());
        let ancestors: BTreeSet<usize> = after.iter().map(|before| before.address()).chain(further).collect();
        Self {
            name: declared.name.clone(),
            exclusive,
            journaler: declared.journaler,
            after,
            ancestors: ancestors.into_iter().collect(),
            consumed: Position::new(at),
            workers,
            bell: Arc::new(Bell::new()),
            hold: CachePadded::new(AtomicU32::new(0)),
            evicted: CachePadded::new(AtomicU32::new(0)),
            counts: Counts::new(),
            ending: Mutex::new(None),
        }
    }

    /// The same stage, for whoever joins again: nothing is held or evicted.
    pub(crate) fn again_at(&self, at: u64) -> Self {
        let [stalls, skipped, lost] = self.counts.read().map(AtomicU64::new);
        Self {
            name: self.name.clone(),
            exclusive: self.exclusive,
            journaler: self.journaler,
            after: self.after.clone(),
            ancestors: self.ancestors.clone(),
            consumed: Position::new(at),
            workers: None,
            bell: Arc::new(Bell::new()),
            hold: CachePadded::new(AtomicU32::new(0)),
            evicted: CachePadded::new(AtomicU32::new(0)),
            counts: Counts { stalls, skipped, lost },
            ending: Mutex::new(None),
        }
    }

    /// What this stage has let through, read with GATE by producers and with FOLLOW by stages behind it. The position of
    /// workers has sites of its own.
    #[inline]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn position(&self, site: &Site) -> u64 {
        match &self.workers {
            None => self.consumed.read(site),
            Some(workers) => self.position_of(workers),
        }
    }

    /// Where workers stand. What an idle one announced may lie behind what another thread computed already.
    pub(crate) fn position_of(&self, workers: &Workers) -> u64 {
        let lowest = workers.lowest();
        if fault(Fault::WorkersPositionGoesBack) {
            return lowest;
        }
        self.consumed.raise(lowest, &RAISE_WORKERS);
        self.consumed.read(&READ_WORKERS)
    }

    /// What all stages before this one have let through; none if it stands behind the producers alone.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn before(&self) -> Option<u64> {
        match &self.after[..] {
            [] => None,
            [before] => Some(before.position(&FOLLOW)),
            several => lowest(several, &FOLLOW).map(|(at, _)| at),
        }
    }

    /// Lets everything below `to` through.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn advance(&self, to: u64) {
        // The rule that keeps `&mut E` apart from `&E`. Under loom the models show what comes of a breach.
        #[cfg(all(debug_assertions, not(any(loom, shuttle))))]
        {
            let lets_through = |stage: &Arc<StageState>| ahead(stage.consumed.read(&COUNT), to) >= 0;
            assert!(self.after.iter().all(lets_through), "{:?} lets through what is held before it", self.name);
        }
        self.consumed.store(to, &CONSUME);
    }

    /// A newcomer, pinned until now, reads from `at` on; what it lets through at first.
    pub(crate) fn start(&self, at: u64) -> u64 {
        let ordered = !fault(Fault::NewcomerLetsThroughWhatItPassesOver);
        let through = self.before().filter(|_| ordered).map_or(at, |before| earlier(at, before));
        if let Some(workers) = &self.workers {
            workers.start(through);
        }
        self.consumed.store(through, &START);
        through
    }

    /// Says that a batch is held. The caller issues HOLD_FENCE and looks at [`is_evicted`](Self::is_evicted).
    #[inline(always)]
    pub(crate) fn hold(&self) {
        self.hold.store(1, HOLD.get());
    }

    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn let_go(&self) {
        self.hold.store(0, LET_GO.get());
    }

    pub(crate) fn is_held(&self) -> bool {
        self.hold.load(READ_HOLD.get()) != 0
    }

    /// Asks for eviction. The caller issues EVICT_FENCE and looks at [`is_held`](Self::is_held).
    pub(crate) fn evict(&self) {
        self.evicted.store(1, EVICT.get());
    }

    #[inline(always)]
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(READ_EVICTED.get()) != 0
    }

    /// A thread of this stage has ended. Of several workers the worst ending stands.
    pub(crate) fn end(&self, ending: Ending) {
        let mut worst = lock(&self.ending);
        let keeps = match &*worst {
            Some(Ending::Failed(_)) => true,
            Some(Ending::Stopped(_)) => !matches!(ending, Ending::Failed(_)),
            _ => false,
        };
        if !keeps {
            *worst = Some(ending);
        }
    }

    /// Whether this stage stands behind `other`, however far.
    pub(crate) fn is_behind(&self, other: &StageState) -> bool {
        self.ancestors.binary_search(&other.address()).is_ok()
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}
