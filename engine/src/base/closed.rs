//! Why a topic takes or gives nothing more.

use slipring_ring::text;

/// Why a topic takes or gives nothing more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// The topic was closed, or the engine shut down. Consumers have read all that was published before.
    #[error("the topic was closed")]
    Closed,
    /// The topic was halted: what was not read yet stays unread.
    #[error("the topic was halted")]
    Halted,
    /// A consumer stopped, and with it the topic: mend its cause and create the topic anew.
    #[error("the consumer {consumer:?} stopped: {}", text::line(.cause))]
    Failed {
        /// Its name.
        consumer: String,
        /// The handler's error or the panic's message.
        cause: String,
    },
    /// The topic had ended when the event was to be published: it was not, and nobody reads it. Only who publishes gets this.
    #[error("the event was filled after the topic had ended: nothing was published")]
    Cut,
    /// This consumer was evicted and no longer holds the producers back: subscribe again to read on.
    #[error("the consumer {consumer:?} was evicted: subscribe again to read on")]
    Evicted {
        /// Its name.
        consumer: String,
    },
}

impl From<slipring_ring::Closed> for Closed {
    fn from(closed: slipring_ring::Closed) -> Self {
        match closed {
            slipring_ring::Closed::Halted => Self::Halted,
            slipring_ring::Closed::Failed { stage, cause } => Self::Failed { consumer: stage, cause },
            slipring_ring::Closed::Evicted { stage } => Self::Evicted { consumer: stage },
            slipring_ring::Closed::Cut => Self::Cut,
            // Nobody is left to publish, or nobody may.
            _ => Self::Closed,
        }
    }
}
