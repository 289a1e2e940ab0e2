//! The way into a topic of dead letters, and who keeps them there until somebody has looked.

use crate::error::{ProducerError, PublishError, SubscribeError, TopicError};
use crate::letter::{self, DeadLetter, Origin};
use crate::message::Message;
use crate::producer::Producer;
use crate::subscriber::Subscriber;
use crate::topic::Topic;
use slipring_ring::Multi;
use std::time::Duration;

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
        let (needed, largest) = (largest + letter::overhead(&origin, &consumer), dead.max_message());
        if needed > largest {
            return Err(DeadLetterError::TooSmall { topic, needed, largest });
        }
        let producer = dead.producer().create();
        let producer = producer.map_err(|cause| DeadLetterError::Producer { topic, cause })?;
        Ok(Self { producer, origin, consumer })
    }

    /// Moves a message there. A refusal leaves it where it is.
    pub(crate) fn take(
        &mut self,
        partition: u32,
        offset: u64,
        attempts: u32,
        reason: &str,
        message: &Message,
    ) -> Result<(), PublishError> {
        let Self { producer, origin, consumer } = self;
        let origin = Origin { topic: origin, partition, offset, consumer, attempts, reason };
        origin.with_record(message, |record| producer.try_send(record)).map(|_| ())
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

/// Keeps the letters of one consumer in their topic, until they are purged or sent back.
pub(crate) struct Keeper {
    letters: Subscriber<Message, Multi>,
    origin: String,
    consumer: String,
}

impl Keeper {
    pub(crate) fn new(dead: &Topic<Message, Multi>, origin: &str, consumer: &str) -> Result<Self, DeadLetterError> {
        let name = format!("dead.{origin}.{consumer}");
        let letters = dead.subscribe(name).poll();
        let letters = letters.map_err(|cause| {
            let (topic, cause) = (dead.name().to_owned(), Box::new(cause));
            DeadLetterError::Keeper { topic, cause }
        })?;
        Ok(Self { letters, origin: origin.to_owned(), consumer: consumer.to_owned() })
    }

    /// Hands over the letters, the oldest of each partition first, until `each` says that it has enough. Once one stays,
    /// none behind it may go.
    pub(crate) fn each(&mut self, mut each: impl FnMut(DeadLetter) -> Verdict) {
        // There may be partitions that it has not heard of.
        let _ = self.letters.poll(Duration::ZERO).map(drop);
        let Self { letters, origin, consumer } = self;
        for part in &mut letters.parts {
            let end = part.consumer.consumed().plus(part.consumer.lag());
            let is_ours = |letter: &DeadLetter| letter.topic == *origin && letter.consumer == *consumer;
            loop {
                part.consumer.look_anew();
                let Ok(mut batch) = part.consumer.poll(usize::MAX) else { break };
                let from = batch.position();
                // Only what stands before the first that stays can leave.
                let mut stays = None;
                while batch.position().since(end) < 0 {
                    let Some((at, message)) = (&mut batch).into_iter().next() else { break };
                    match DeadLetter::read(message).filter(is_ours).map(&mut each) {
                        None => {}
                        Some(Verdict::Out) => {
                            debug_assert!(stays.is_none(), "the first that stays is the last to be asked")
                        }
                        Some(Verdict::Stays) => _ = stays.get_or_insert(at),
                        Some(Verdict::Enough) => {
                            batch.put_back(stays.unwrap_or(at));
                            return;
                        }
                    }
                }
                if let Some(stays) = stays {
                    batch.put_back(stays);
                    break;
                }
                if batch.position() == from {
                    break;
                }
            }
        }
    }
}

/// What becomes of a letter.
pub(crate) enum Verdict {
    Out,
    Stays,
    /// It stays, and so do all that follow.
    Enough,
}
