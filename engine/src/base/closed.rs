//! Why a topic has ended.

use slipring_ring::text;

/// Why a producer or a consumer cannot continue on a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// The topic was closed, or the engine shut down. A consumer gets this error once it has read all published events.
    #[error("the topic was closed")]
    Closed,
    /// The topic was halted. Consumers do not get the events that they had not read by then.
    #[error("the topic was halted")]
    Halted,
    /// A consumer, the journal or a gathering producer has failed, which ended the topic. Fix the cause, and create the
    /// topic again.
    #[error("the consumer {consumer:?} stopped: {}", text::line(.cause))]
    Failed {
        /// The consumer's name; `journal` for the journal, and `linger` for a gathering producer.
        consumer: String,
        /// The error, or the message of the panic.
        cause: String,
    },
    /// The topic ended while the producer was filling the event, so the event was not published. Only producers get
    /// this error.
    #[error("the event was filled after the topic had ended: nothing was published")]
    Cut,
    /// This consumer was evicted because it made producers wait: see
    /// [`Slow::EvictAfter`](crate::topic::Slow::EvictAfter). Subscribe again to continue.
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
            // `Finished`: all producers of the ring are dropped, or the topic is closed.
            _ => Self::Closed,
        }
    }
}
