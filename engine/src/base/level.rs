//! Acknowledgement levels, and why a level is not reached.

use slipring_ring::text;
use std::fmt;

/// Acknowledgement level: what a published event survives. Levels are ordered; each includes the ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Nothing is known of the event: the publish did not wait for a level, or the event was dropped.
    None,
    /// Consumers can read the event. It is lost with the process.
    #[default]
    Published,
    /// The operating system has the event. It survives the death of the process, but not a loss of power.
    Written,
    /// The disk has confirmed the event. It survives a loss of power.
    Durable,
    /// A cluster of other machines has confirmed the event too, so it survives the loss of this machine. Only a durable
    /// topic reaches this level, and only while a bridge copies it: see [`replication`](crate::replication).
    Replicated,
}

pub(crate) const NO_JOURNAL: &str = "the topic has no journal: it lives in memory";
/// The error for user code that wants to wait for the journal on one of the journal's own threads, such as the clock or
/// a task's waker.
pub(crate) const OWN_THREAD: &str = "code that runs on the journal's own thread, such as the clock, a task's waker or `Persist`, cannot wait for the journal: do this on another thread";

const NO_BRIDGE: &str = "no bridge to another machine is configured: attach one with `Topic::replicate`, or with the package slipring-bridge";
const BRIDGE_ENDED: &str = "the bridge to another machine has ended: attach it again";

const NO_SYNC: &str = "the engine's journal does not sync before it is closed: it would be waited for until then";

impl Level {
    /// The reason why a topic cannot reach this level while it is open; `None` if the topic can. `syncs`: `Some(true)`
    /// if the topic's journal syncs while it is open, `Some(false)` if it syncs only when it is closed, `None` if the
    /// topic has no journal. `bridged`: `Some(true)` if a bridge is attached to the topic, `Some(false)` if its bridge
    /// has ended, `None` if it never had one.
    pub(crate) fn unsupported(self, syncs: Option<bool>, bridged: Option<bool>) -> Option<&'static str> {
        match self {
            Self::None | Self::Published => None,
            Self::Written | Self::Durable if syncs.is_none() => Some(NO_JOURNAL),
            Self::Durable if syncs == Some(false) => Some(NO_SYNC),
            Self::Written | Self::Durable => None,
            Self::Replicated => match bridged {
                Some(true) => None,
                Some(false) => Some(BRIDGE_ENDED),
                None => Some(NO_BRIDGE),
            },
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Published => "published",
            Self::Written => "written",
            Self::Durable => "durable",
            Self::Replicated => "replicated",
        })
    }
}

/// The error for a level that the topic cannot reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the level {level:?} cannot be had: {reason}")]
pub struct Unsupported {
    /// The level that the caller has asked for.
    pub level: Level,
    /// Why the topic cannot reach the level.
    pub reason: &'static str,
}

/// Why waiting for a receipt's event to reach a level failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The topic cannot reach the level.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The journal failed before the event reached the level. After the journal is opened again, it may or may not have
    /// the event.
    #[error("it is unknown whether the event is there, the journal has ended: {}", text::line(.cause))]
    Unknown {
        /// The journal's error, as text.
        cause: String,
    },
    /// The bridge or the journal ended before the cluster confirmed the event, so the cluster may or may not have it. A
    /// bridge that is attached again goes on where this one has ended, and the receipt can then be waited for again.
    #[error("the event is {has}, and it is unknown whether it is replicated: {}", text::line(.cause))]
    Bridge {
        /// The level that the event has.
        has: Level,
        /// Why the bridge or the journal has ended, as text.
        cause: String,
    },
    /// The bridge has given the event up, as it was told to: the event is on this machine only.
    #[error("the bridge has skipped the event, so it is on this machine only")]
    Skipped,
    /// The deadline passed first.
    #[error("the event was not {level} by the deadline: wait again")]
    TimedOut {
        /// The level that the caller has waited for.
        level: Level,
    },
    /// The calling thread is one of the journal's own, on which the clock, tasks' wakers and `Persist` run. It would wait
    /// for itself.
    #[error("{OWN_THREAD}")]
    OwnThread,
    /// The topic was deleted or its engine was dropped, so the event's level is no longer known.
    #[error("the topic of this receipt was deleted, or its engine is gone")]
    Gone,
}
