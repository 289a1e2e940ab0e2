//! How a ring ends, and what everyone is told then.

use crate::ordering::{CLOSE, OBSERVE_CLOSE};
use crate::sync::{AtomicU32, Mutex, lock};
use crate::text;
use crossbeam_utils::CachePadded;

/// Why a ring takes or gives nothing more. Producers get it when they claim, consumers when they poll.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// Every producer has been dropped, and this consumer has read all that they published.
    #[error("every producer has gone, and all that they published has been read")]
    Finished,
    /// The ring was closed. Consumers get this once they have read all that was published before.
    #[error("the ring was closed")]
    Closed,
    /// The ring was halted: what was not read yet stays unread, and the report counts it.
    #[error("the ring was halted")]
    Halted,
    /// A stage stopped, and with it the ring: mend its cause and build the ring anew.
    #[error("the stage {stage:?} stopped: {}", text::line(.cause))]
    Failed {
        /// The stage's name.
        stage: String,
        /// The handler's error or the panic's message.
        cause: String,
    },
    /// This consumer was evicted and no longer gates the producers: join again to read on.
    #[error("the stage {stage:?} was evicted; join again to read on")]
    Evicted {
        /// The stage's name.
        stage: String,
    },
}

/// Where a ring stands on its way to the end. It only moves up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(crate) enum Phase {
    Open = 0,
    Finished = 1,
    Closed = 2,
    Halted = 3,
    Failed = 4,
}

impl Phase {
    /// Consumers stop at once, rather than when they have read everything.
    pub(crate) fn at_once(self) -> bool {
        self >= Self::Halted
    }
}

pub(crate) struct Closing {
    phase: CachePadded<AtomicU32>,
    failure: Mutex<Option<(String, String)>>,
}

impl Closing {
    pub(crate) fn new() -> Self {
        Self { phase: CachePadded::new(AtomicU32::new(Phase::Open as u32)), failure: Mutex::new(None) }
    }

    #[inline(always)]
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(OBSERVE_CLOSE.get()) {
            0 => Phase::Open,
            1 => Phase::Finished,
            2 => Phase::Closed,
            3 => Phase::Halted,
            _ => Phase::Failed,
        }
    }

    /// Moves up to `phase`; false if the ring stood there or beyond. The lock makes one of several callers the first.
    pub(crate) fn advance(&self, phase: Phase, failure: Option<(String, String)>) -> bool {
        let mut why = lock(&self.failure);
        if self.phase() >= phase {
            return false;
        }
        *why = failure;
        self.phase.store(phase as u32, CLOSE.get());
        true
    }

    /// What a producer or consumer is told; none while the ring is open.
    pub(crate) fn reason(&self) -> Option<Closed> {
        // Whoever waits asks again and again: no lock while there is nothing to tell.
        if self.phase() == Phase::Open {
            return None;
        }
        let why = lock(&self.failure);
        Some(match self.phase() {
            Phase::Open => return None,
            Phase::Finished => Closed::Finished,
            Phase::Closed => Closed::Closed,
            Phase::Halted => Closed::Halted,
            Phase::Failed => {
                let (stage, cause) = why.clone().unwrap_or_default();
                Closed::Failed { stage, cause }
            }
        })
    }
}
