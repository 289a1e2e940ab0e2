//! Publishing dead letters into their topic.

use crate::event::dead_letter::{self, Origin};
use crate::event::message::Message;
use crate::log::receipt::Receipt;
use crate::produce::Producer;
use crate::queue::Job;
use crate::read::dead_letters::DeadLetterOrigin;
use crate::topic::error::{DeadLetterError, PublishError};
use crate::topic::{ProducerCount, Topic};
use slipring_ring::Multi;

/// The producer of a queue's dead letters. It never waits for room, nor for the journal.
pub(crate) struct DeadLetterWriter {
    topic: Topic<Message, Multi>,
    producer: LetterProducer,
    origin: String,
    consumer: String,
}

enum LetterProducer {
    /// There was no dead letter yet. The first one makes the topic's [partitions](crate::topic::deferred). The count
    /// stands for the producer, so that a shutdown closes the topic for dead letters only after the queue's topic.
    Deferred(#[expect(dead_code, reason = "held for its drop")] ProducerCount<Message, Multi>),
    Open(Box<Producer<Message, Multi>>),
}

/// What became of a dead letter that was to be published.
pub(crate) enum LetterOutcome {
    Published(Receipt),
    /// Nothing was published, and a later call may succeed: the topic is full or has ended, or there is no memory for
    /// its first partitions.
    NoRoom,
    /// Nothing was published, and no later call succeeds: the letter is larger than the topic accepts.
    TooLarge,
}

impl DeadLetterWriter {
    /// Opens the topic `dead` for the dead letters of `consumer`, which reads the topic `origin`. `largest` is the size
    /// of the largest message in bytes, as a dead letter. Waits for the journal if it still reserves offsets of `dead`.
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
        dead.producer().check().map_err(|cause| DeadLetterError::Producer { topic, cause })?;
        let producer = LetterProducer::Deferred(ProducerCount::new(&dead.inner));
        Ok(Self { topic: dead.clone(), producer, origin, consumer })
    }

    /// The name of the topic whose messages become dead letters.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// The name of the consumer whose dead letters this publishes.
    pub(crate) fn consumer(&self) -> &str {
        &self.consumer
    }

    /// Publishes a message as a dead letter without waiting. `partition` and `offset` are the message's place,
    /// `attempts` counts its attempts, `reason` says why it failed.
    pub(crate) fn take<E: Job>(
        &mut self,
        partition: u32,
        offset: u64,
        attempts: u32,
        reason: &str,
        event: &E,
    ) -> LetterOutcome {
        let Self { topic, producer, origin, consumer, .. } = self;
        if let LetterProducer::Deferred(_) = producer {
            if topic.inner.make_deferred().is_err() {
                return LetterOutcome::NoRoom;
            }
            let Ok(created) = topic.producer().create() else { return LetterOutcome::NoRoom };
            *producer = LetterProducer::Open(Box::new(created));
        }
        let LetterProducer::Open(producer) = producer else { return LetterOutcome::NoRoom };
        let origin = Origin { topic: origin, partition, offset, consumer, attempts, reason };
        match event.to_dead_letter(&DeadLetterOrigin(origin), |record| producer.try_send(record)) {
            Ok(receipt) => LetterOutcome::Published(receipt),
            Err(PublishError::MessageTooLarge { .. } | PublishError::TooLargeForBridge { .. }) => {
                LetterOutcome::TooLarge
            }
            Err(_) => LetterOutcome::NoRoom,
        }
    }
}
