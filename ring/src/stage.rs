//! Stages: consumers with their place in the graph. [`Stage`] declares a stage; [`StageState`] is the shared part of a
//! running stage.

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

/// The position at which a stage begins to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// The earliest kept event: kept because a slower stage has not read it, or because it is retained.
    #[default]
    Earliest,
    /// The next event to be published.
    Latest,
    /// The event with this sequence. Joining fails, with an error that names the kept range, if the event is no longer
    /// kept or not published yet; the next sequence to be published is legal.
    At(Sequence),
}

/// The policy of a managed stage for a handler that returns an error or panics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Fails the ring with the stage's name and the cause. The event stays unread.
    #[default]
    Stop,
    /// Counts the event as skipped, and continues with the next one.
    Skip,
    /// Calls the handler again with the event, up to this many times. If it fails each time, as `Stop`.
    Retry(u32),
    /// Calls the handler again with the event, up to this many times. If it fails each time, as `Skip`.
    RetryThenSkip(u32),
}

impl OnError {
    /// The count of further calls for an event that failed, and what follows them: true to skip the event, false to
    /// stop.
    pub(crate) fn retries(self) -> (u32, bool) {
        match self {
            Self::Stop => (0, false),
            Self::Skip => (0, true),
            Self::Retry(retries) => (retries, false),
            Self::RetryThenSkip(retries) => (retries, true),
        }
    }
}

/// The declaration of a stage: its name, its place in the graph, and its settings.
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
    /// The stage's policy; `None` for that of the ring.
    pub(crate) on_error: Option<OnError>,
    pub(crate) journaler: bool,
}

/// A reference to a stage, by its name or as [`Consumer::stage`](crate::Consumer::stage) returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageRef {
    pub(crate) name: String,
    /// The id of the ring to which the stage belongs; `None` if the reference is only a name.
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
    /// Declares a stage that is ordered after the producers only, begins at the earliest event, and sleeps when idle.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            after: Vec::new(),
            start: Start::Earliest,
            wait: Wait::default(),
            core: None,
            limit: usize::MAX,
            on_error: None,
            journaler: false,
        }
    }

    /// Orders the stage after these stages: it reads an event only after each of them has passed the event.
    pub fn after<S: Into<StageRef>>(mut self, stages: impl IntoIterator<Item = S>) -> Self {
        self.after.extend(stages.into_iter().map(Into::into));
        self
    }

    /// Sets where the stage begins to read. Before the first publish, only the first sequence is possible, and
    /// `Earliest` and `Latest` both mean it. Default: [`Start::Earliest`].
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets the wait strategy of the stage. Default: [`Wait::spin_then_park`].
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Pins the thread of a managed stage to this core, given by its number in the operating system. Default: not
    /// pinned.
    pub fn pin(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Sets the most events that a managed stage handles in one batch (0 counts as 1). Default: no limit; for workers,
    /// 8, or a worker's share of the capacity if that is less.
    pub fn limit(mut self, events: usize) -> Self {
        self.limit = events.max(1);
        self
    }

    /// The most events in one batch of a managed stage, as [`limit`](Self::limit) has set it; `usize::MAX` if there is
    /// no limit.
    pub fn batch_limit(&self) -> usize {
        self.limit
    }

    /// Sets the policy for errors and panics of a managed stage's handler. Default: that of the ring, which
    /// [`Builder::on_error`](crate::Builder::on_error) sets.
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.on_error = Some(policy);
        self
    }

    /// Declares a journaler: events must not change after this stage has read them, so no stage that changes events may
    /// be ordered after it.
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

/// The part of a running stage that its consumer, producers and other stages share.
pub struct StageState {
    pub(crate) name: String,
    pub(crate) exclusive: bool,
    pub(crate) journaler: bool,
    pub(crate) after: Vec<Arc<StageState>>,
    /// The addresses of all stages before this one, directly or indirectly, in ascending order. `after` keeps these
    /// stages alive, so no other stage can get one of the addresses.
    ancestors: Box<[usize]>,
    /// The position that this stage publishes. Later stages read only below it, and producers claim only below it plus
    /// the capacity, so no event at or above it is overwritten. It never exceeds the positions of the stages before
    /// this one. It may be lower than the next sequence that the consumer reads. For workers it is a lower bound that
    /// only grows; see [`Workers`].
    consumed: Position,
    pub(crate) workers: Option<Workers>,
    pub(crate) bell: Arc<Bell>,
    /// 1 while the stage holds a batch; otherwise 0. The stage's thread writes it, and evicting threads read it.
    hold: CachePadded<AtomicU32>,
    /// 1 once an eviction was requested; otherwise 0.
    evicted: CachePadded<AtomicU32>,
    pub(crate) counts: Counts,
    pub(crate) ending: Mutex<Option<Ending>>,
}

/// Event counts of a stage, for reports. The accesses order nothing.
pub(crate) struct Counts {
    stalls: AtomicU64,
    skipped: AtomicU64,
    lost: AtomicU64,
}

impl Counts {
    fn new() -> Self {
        Self { stalls: AtomicU64::new(0), skipped: AtomicU64::new(0), lost: AtomicU64::new(0) }
    }

    /// Counts a claim that had to wait for room while this stage was the slowest.
    pub(crate) fn stall(&self) {
        self.stalls.fetch_add(1, COUNT.get());
    }

    /// Counts an event that was skipped because the handler failed on it.
    pub(crate) fn skip(&self) {
        self.skipped.fetch_add(1, COUNT.get());
    }

    /// Counts an event as lost, because its worker panicked while it handled the event.
    pub(crate) fn lose(&self) {
        self.lost.fetch_add(1, COUNT.get());
    }

    /// The counts of stalls, skipped events and lost events, in this order.
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

    /// A copy of this stage at position `at`, with its counts, for a consumer that seeks backward. The copy holds no
    /// batch and is not evicted.
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

    /// The position that this stage publishes, read with the ordering of `site`: GATE for producers, FOLLOW for later
    /// stages. For a stage of workers, `site` is ignored: such a position has sites of its own.
    #[inline]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn position(&self, site: &Site) -> u64 {
        match &self.workers {
            None => self.consumed.read(site),
            Some(workers) => self.position_of(workers),
        }
    }

    /// The position of a stage of workers. The stored position is raised first, because a stale announcement may give a
    /// lower result than another thread has computed already.
    pub(crate) fn position_of(&self, workers: &Workers) -> u64 {
        let lowest = workers.lowest();
        if fault(Fault::WorkersPositionGoesBack) {
            return lowest;
        }
        self.consumed.raise(lowest, &RAISE_WORKERS);
        self.consumed.read(&READ_WORKERS)
    }

    /// The lowest position of the stages before this one; `None` if this stage is ordered after the producers only.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn before(&self) -> Option<u64> {
        match &self.after[..] {
            [] => None,
            [before] => Some(before.position(&FOLLOW)),
            several => lowest(several, &FOLLOW).map(|(at, _)| at),
        }
    }

    /// Stores `to` as the position that this stage publishes.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn advance(&self, to: u64) {
        // A stage that passed a stage before it could read an event while that stage changes it. Under loom the models
        // show the effect.
        #[cfg(all(debug_assertions, not(any(loom, shuttle))))]
        {
            let lets_through = |stage: &Arc<StageState>| ahead(stage.consumed.read(&COUNT), to) >= 0;
            assert!(self.after.iter().all(lets_through), "{:?} lets through what is held before it", self.name);
        }
        self.consumed.store(to, &CONSUME);
    }

    /// Moves the position of a joining stage to its start `at`, or lower if a stage before it has not passed `at`.
    /// Returns the stored position.
    pub(crate) fn start(&self, at: u64) -> u64 {
        let ordered = !fault(Fault::NewcomerLetsThroughWhatItPassesOver);
        let through = self.before().filter(|_| ordered).map_or(at, |before| earlier(at, before));
        if let Some(workers) = &self.workers {
            workers.start(through);
        }
        self.consumed.store(through, &START);
        through
    }

    /// Stores that the stage holds a batch. Then the caller issues HOLD_FENCE and checks
    /// [`is_evicted`](Self::is_evicted).
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

    /// Stores that the stage is to be evicted. Then the caller issues EVICT_FENCE and checks
    /// [`is_held`](Self::is_held).
    pub(crate) fn evict(&self) {
        self.evicted.store(1, EVICT.get());
    }

    #[inline(always)]
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(READ_EVICTED.get()) != 0
    }

    /// Records how a thread of this stage ended. Of several workers' endings, `Failed` is kept first, then `Stopped`,
    /// then the last one.
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

    /// True if this stage is ordered after `other`, directly or through other stages.
    pub(crate) fn is_behind(&self, other: &StageState) -> bool {
        self.ancestors.binary_search(&other.address()).is_ok()
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}
