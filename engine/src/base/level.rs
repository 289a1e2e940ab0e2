//! How safe a published event is, and why it is not known.

use slipring_ring::text;
use std::fmt;

/// How safe a published event is. Each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Nothing is known of it: fire and forget, or it was dropped.
    None,
    /// Consumers can read it. It is gone with the process.
    #[default]
    Published,
    /// The operating system has it. It survives the process, not a loss of power.
    Written,
    /// The disk has it.
    Durable,
    /// Another machine has it.
    Replicated,
}

pub(crate) const NO_JOURNAL: &str = "the topic has no journal: it lives in memory";
const NO_SYNC: &str = "the engine's journal does not sync before it is closed: it would be waited for until then";

impl Level {
    /// Why a topic does not reach this level while it is open; `None` if it does. `syncs`: whether the topic's journal syncs
    /// before it is closed; `None` if the topic has no journal.
    pub(crate) fn unsupported(self, syncs: Option<bool>) -> Option<&'static str> {
        match self {
            Self::None | Self::Published => None,
            Self::Written | Self::Durable if syncs.is_none() => Some(NO_JOURNAL),
            Self::Durable if syncs == Some(false) => Some(NO_SYNC),
            Self::Written | Self::Durable => None,
            Self::Replicated => Some("no bridge to another machine is configured"),
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

/// A level of acknowledgement that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the level {level:?} cannot be had: {reason}")]
pub struct Unsupported {
    /// The level.
    pub level: Level,
    /// Why.
    pub reason: &'static str,
}

/// A receipt does not say that a level was reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The level cannot be had.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The journal failed before it was known: the event may be there when it is opened again, or not.
    #[error("it is unknown whether the event is there, the journal has ended: {}", text::line(.cause))]
    Unknown {
        /// What happened to the journal.
        cause: String,
    },
    /// The deadline came first.
    #[error("the event was not {level} by the deadline: wait again")]
    TimedOut {
        /// The level asked for.
        level: Level,
    },
    /// The topic is no more.
    #[error("the topic of this receipt was deleted, or its engine is gone")]
    Gone,
}
