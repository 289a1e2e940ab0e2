//! Why a topic has ended.

use slipring_ring::text;

/// Why a topic has ended, for a producer or for a consumer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// The topic was closed, or the engine shut down. A consumer gets this once it has read all published events.
    #[error("the topic was closed")]
    Closed,
    /// The topic was halted: events that were not read yet stay unread.
    #[error("the topic was halted")]
    Halted,
    /// A consumer failed and closed the topic. Fix the cause, and create the topic again.
    #[error("the consumer {consumer:?} stopped: {}", text::line(.cause))]
    Failed {
        /// The consumer's name.
        consumer: String,
        /// The handler's error or the panic's message.
        cause: String,
    },
    /// The topic ended while the event was being filled: the event was not published. Only producers get this.
    #[error("the event was filled after the topic had ended: nothing was published")]
    Cut,
    /// This consumer was evicted, so producers no longer wait for it. Subscribe again to read on.
    #[error("the consumer {consumer:?} was evicted: subscribe again to read on")]
    Evicted {
        /// The consumer's name.
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
            // `Finished`: all producers are gone, or the topic is closed.
            _ => Self::Closed,
        }
    }
}
