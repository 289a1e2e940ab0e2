//! Publishing dead letters into their topic.

use crate::event::dead_letter::{self, Origin};
use crate::event::message::Message;
use crate::log::receipt::Receipt;
use crate::produce::Producer;
use crate::queue::Job;
use crate::read::dead_letters::DeadLetterOrigin;
use crate::topic::Topic;
use crate::topic::error::{DeadLetterError, PublishError};
use slipring_ring::Multi;

/// The producer of a consumer's dead letters. It never waits for room.
pub(crate) struct DeadLetterWriter {
    producer: Producer<Message, Multi>,
    origin: String,
    consumer: String,
}

impl DeadLetterWriter {
    /// Opens the topic `dead` for the dead letters of `consumer`, which reads the topic `origin`. `largest` is the size
    /// of the largest message in bytes, as a dead letter.
    ///
    /// # Errors
    /// Both topics are the same, the largest message of `dead` is too small, or `dead` is closed.
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

    /// The name of the consumer whose dead letters this publishes.
    pub(crate) fn consumer(&self) -> &str {
        &self.consumer
    }

    /// Publishes a message as a dead letter without waiting. `partition` and `offset` are the message's place,
    /// `attempts` counts its attempts, `reason` says why it failed. On an error nothing was published.
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
        event.to_dead_letter(&DeadLetterOrigin(origin), |record| producer.try_send(record))
    }
}
