//! The gating set: the stages whose positions are gates, which producers may not overtake by more than the capacity.
//!
//! A set is immutable. A stage that joins or leaves installs a new set and raises the version. A producer keeps the
//! last set that it has read, and reads the new one when the version has changed; crossbeam-epoch keeps an old set
//! alive while a thread is reading it.
//!
//! # Why a newcomer's first event is never overwritten
//!
//! ```text
//! newcomer                                      producer that refreshes its limit
//! hold the own gate at the lowest gate          read the version, take the set
//! install a set with it, raise the version      read the gates
//! heavy fence (JOIN_FENCE)                      light fence (REFRESH_FENCE)
//! start at the lowest of the *other* gates,     read the version again:
//! or later                                      moved: start over
//! ```
//!
//! If the producer's second read of the version misses the newcomer, then the producer's fence came first. So the
//! newcomer reads every gate at least as high as the producer did, and starts no lower than the producer's limit minus
//! the capacity. If the producer sees the newcomer, it counts the newcomer's gate, which is held no higher than the
//! newcomer's start. Joins happen one at a time, because a producer may not have seen yet the gate of a stage that is
//! still joining. Models: `join` in loom-tests.

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

/// One version of the gating set: the stages of the ring, and the version's number.
pub struct GateSet {
    version: u64,
    pub(crate) stages: Vec<Arc<StageState>>,
}

impl GateSet {
    /// The lowest gate of the set, and the stage whose position it is; `None` if the set is empty.
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn lowest(&self, site: &Site) -> Option<(u64, &Arc<StageState>)> {
        lowest(&self.stages, site)
    }
}

/// The lowest position of `stages`, and the stage that it belongs to; `None` if there are no stages.
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

    /// Installs a new set and raises the version. The caller holds the lock of the ring's members, so that changes are
    /// sequential.
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn show(&self, stages: Vec<Arc<StageState>>) {
        let version = self.version.load(CHECK_VERSION.get()) + 1;
        self.current.replace(Arc::new(GateSet { version, stages }), &SWAP_GATES);
        // Stored after the set. A producer that sees this version but not yet the set starts over: see `refresh`.
        self.version.store(version, SET_VERSION.get());
    }

    /// Returns `limit` of the present gating set. `known` is the set that the caller has read last; it becomes the set
    /// from which the limit was computed.
    pub(crate) fn refresh(&self, known: &mut Arc<GateSet>, mut limit: impl FnMut(&GateSet) -> u64) -> u64 {
        loop {
            if self.version.load(READ_VERSION.get()) != known.version {
                *known = self.load();
            }
            let found = limit(known);
            // Pairs with JOIN_FENCE: this producer sees the new version, or the newcomer sees the gates that it read.
            fence::light_at(&REFRESH_FENCE);
            // A set that is newer than the version that was read contains the newcomer already, so only a newer version
            // counts.
            let moved = ahead(self.version.load(CHECK_VERSION.get()), known.version) > 0;
            if !moved || fault(Fault::NoSecondLookAtTheVersion) {
                return found;
            }
            // The newer set may become visible a little later than its version.
            sync::spin_loop();
        }
    }
}

/// The lowest position of `stages`, for a stage that joins; `None` if there are no stages. A stale value is lower than
/// the present one, and so only holds the new gate lower; the newcomer's start is computed after JOIN_FENCE.
pub(crate) fn lowest_of<'s>(stages: impl Iterator<Item = &'s Arc<StageState>>) -> Option<u64> {
    stages.map(|stage| stage.position(&LOOK_AT_STAGE)).reduce(earlier)
}
