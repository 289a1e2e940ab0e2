//! The gating set: the stages that producers may not overtake by more than the capacity.
//!
//! A set never changes: who joins or leaves shows a new one and raises the version. A producer keeps the set it knows
//! and takes the new one when the version has moved; crossbeam-epoch keeps the old one alive for whoever is taking it.
//!
//! # Why a newcomer's first event is never overwritten
//!
//! ```text
//! newcomer                                      producer that refreshes its limit
//! pin the own gate at the lowest gate           read the version, take the set
//! show the set with it, raise the version       read the gates
//! heavy fence (JOIN_FENCE)                      light fence (REFRESH_FENCE)
//! start at the lowest of the *other* gates,     read the version again:
//! or later                                      moved: start over
//! ```
//!
//! If the producer's second look misses the newcomer, then its fence came first, so the newcomer reads every gate at
//! least as high as the producer did, and starts no lower than the limit less the capacity. If it sees the newcomer,
//! it counts the pinned gate, which is no higher than where the newcomer will start. Joins are one at a time: a gate
//! still pinned must not be taken for one that producers respect.
//! Models: `join` in loom-tests.

use crate::fault::{Fault, fault};
use crate::fence;
use crate::ordering::{
    CHECK_VERSION, LOAD_GATES, LOOK_AT_STAGE, READ_VERSION, REFRESH_FENCE, SET_VERSION, SWAP_GATES, Site,
};
use crate::sequence::{ahead, earlier};
use crate::shown::Shown;
use crate::stage::StageState;
use crate::sync::{self, Arc, AtomicU64};
use crossbeam_utils::CachePadded;

/// Stages at a moment, numbered.
pub struct GateSet {
    version: u64,
    pub(crate) stages: Vec<Arc<StageState>>,
}

impl GateSet {
    /// The lowest gate of the set and the stage that holds it.
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn lowest(&self, site: &Site) -> Option<(u64, &Arc<StageState>)> {
        lowest(&self.stages, site)
    }
}

/// The lowest position of `stages` and the stage that stands there.
#[cfg_attr(loom, track_caller)]
pub(crate) fn lowest<'s>(stages: &'s [Arc<StageState>], site: &Site) -> Option<(u64, &'s Arc<StageState>)> {
    let mut lowest: Option<(u64, &Arc<StageState>)> = None;
    for stage in stages {
        let at = stage.position(site);
        if lowest.is_none_or(|(low, _)| ahead(at, low) < 0) {
            lowest = Some((at, stage));
        }
    }
    lowest
}

pub(crate) struct Gates {
    current: Shown<Arc<GateSet>>,
    version: CachePadded<AtomicU64>,
}

impl Gates {
    pub(crate) fn new() -> Self {
        let nobody = Arc::new(GateSet { version: 0, stages: Vec::new() });
        Self { current: Shown::new(nobody), version: CachePadded::new(AtomicU64::new(0)) }
    }

    /// The present set.
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn load(&self) -> Arc<GateSet> {
        self.current.get(&LOAD_GATES)
    }

    /// Shows a new set. The caller holds the lock that makes changes one at a time.
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn show(&self, stages: Vec<Arc<StageState>>) {
        let version = self.version.load(CHECK_VERSION.get()) + 1;
        self.current.replace(Arc::new(GateSet { version, stages }), &SWAP_GATES);
        // A producer that sees this number and not the set yet starts over; see `refresh`.
        self.version.store(version, SET_VERSION.get());
    }

    /// Computes a limit from the present gates, which `known` holds at the end.
    pub(crate) fn refresh(&self, known: &mut Arc<GateSet>, mut limit: impl FnMut(&GateSet) -> u64) -> u64 {
        loop {
            if self.version.load(READ_VERSION.get()) != known.version {
                *known = self.load();
            }
            let found = limit(known);
            fence::light_at(&REFRESH_FENCE);
            // The set may be newer than the version: then the newcomer was counted already.
            let moved = ahead(self.version.load(CHECK_VERSION.get()), known.version) > 0;
            if !moved || fault(Fault::NoSecondLookAtTheVersion) {
                return found;
            }
            // The newer set may take a moment to be seen.
            sync::spin_loop();
        }
    }
}

/// Where the lowest of `stages` stands, for whoever joins. A gate that was read too early is a lower pin; where a newcomer may
/// start, JOIN_FENCE orders.
pub(crate) fn lowest_of<'s>(stages: impl Iterator<Item = &'s Arc<StageState>>) -> Option<u64> {
    stages.map(|stage| stage.position(&LOOK_AT_STAGE)).reduce(earlier)
}
