//! The way into a topic of dead letters.

use crate::bury::Grave;
use crate::error::{ProducerError, PublishError, SubscribeError, TopicError};
use crate::event::dead_letter::{self, Origin};
use crate::event::message::Message;
use crate::producer::Producer;
use crate::queue::Job;
use crate::receipt::Receipt;
use crate::topic::Topic;
use slipring_ring::Multi;

/// Writes dead letters, without ever waiting for room.
pub(crate) struct Graves {
    producer: Producer<Message, Multi>,
    origin: String,
    consumer: String,
}

impl Graves {
    /// For the messages of topic `origin` that `consumer` cannot handle. They are up to `largest` bytes.
    ///
    /// # Errors
    /// It is the same topic, its messages are too small, or it is closed.
    pub(crate) fn open(
        dead: &Topic<Message, Multi>,
        origin: &str,
        consumer: &str,
        largest: usize,
    ) -> Result<Self, DeadLetterError> {
        let (topic, consumer, origin) = (dead.name().to_owned(), consumer.to_owned(), origin.to_owned());
        if topic == origin {
            return Err(DeadLetterError::Circle { topic });
        }
        let (needed, largest) = (largest + dead_letter::overhead(&origin, &consumer), dead.max_message());
        if needed > largest {
            return Err(DeadLetterError::TooSmall { topic, needed, largest });
        }
        let producer = dead.producer().create();
        let producer = producer.map_err(|cause| DeadLetterError::Producer { topic, cause })?;
        Ok(Self { producer, origin, consumer })
    }

    /// Moves a message there. A refusal leaves it where it is.
    pub(crate) fn take<E: Job>(
        &mut self,
        partition: u32,
        offset: u64,
        attempts: u32,
        reason: &str,
        event: &E,
    ) -> Result<Receipt, PublishError> {
        let Self { producer, origin, consumer } = self;
        let origin = Origin { topic: origin, partition, offset, consumer, attempts, reason };
        event.to_letter(&Grave(origin), |record| producer.try_send(record))
    }
}

/// A topic cannot take dead letters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// The messages would come back to where they failed.
    #[error("topic {topic:?} cannot be the dead letters of its own messages: name another topic")]
    Circle {
        /// The topic.
        topic: String,
    },
    /// Its messages are too small for the message and the reason.
    #[error(
        "topic {topic:?} takes messages of up to {largest} bytes, and a dead letter may need {needed}: create it with a larger `max_message`"
    )]
    TooSmall {
        /// The topic of the dead letters.
        topic: String,
        /// What a letter may need.
        needed: usize,
        /// What it takes.
        largest: usize,
    },
    /// It carries something else, or could not be created.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The messages are durable and their letters would not be.
    #[error(
        "topic {topic:?} is in memory and cannot take the dead letters of a durable topic: create it with `durable()`"
    )]
    InMemory {
        /// The topic of the dead letters.
        topic: String,
    },
    /// It gives no producer.
    #[error("topic {topic:?} takes no dead letters: {cause}")]
    Producer {
        /// The topic.
        topic: String,
        /// Why.
        cause: ProducerError,
    },
    /// Its letters could not be kept.
    #[error("the dead letters of topic {topic:?} cannot be kept: {cause}")]
    Keeper {
        /// The topic.
        topic: String,
        /// Why.
        cause: Box<SubscribeError>,
    },
}
