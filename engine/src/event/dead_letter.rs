//! Dead letters: messages that could not be handled, copied to a topic of their own with the reason.
//!
//! A dead letter is the original message (key, value, headers, time) with further headers for its origin. Queues, group
//! members and managed subscribers all write these headers.

use crate::event::message::Message;
use crate::event::record::Record;
use std::fmt;

const TOPIC: &str = "slipring-dead-topic";
const PARTITION: &str = "slipring-dead-partition";
const OFFSET: &str = "slipring-dead-offset";
const CONSUMER: &str = "slipring-dead-consumer";
const ATTEMPTS: &str = "slipring-dead-attempts";
const REASON: &str = "slipring-dead-reason";

/// Greatest length of a kept reason, in bytes.
const LONGEST_REASON: usize = 256;

/// The most bytes that the headers of a dead letter add to a message from `topic` that `consumer` could not handle. A
/// dead-letter topic must accept messages that are larger than those of the original topic by that much.
pub(crate) fn overhead(topic: &str, consumer: &str) -> usize {
    let names = [TOPIC, PARTITION, OFFSET, CONSUMER, ATTEMPTS, REASON];
    let numbers = 5 + 20 + 10;
    let header = |name: &&str| Record::HEADER + name.len();
    names.iter().map(header).sum::<usize>() + topic.len() + consumer.len() + numbers + LONGEST_REASON
}

/// The origin of a dead letter, and the reason why the message could not be handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) consumer: &'a str,
    pub(crate) attempts: u32,
    pub(crate) reason: &'a str,
}

/// The message as a record, without the headers that state its origin.
fn without_origin(message: &Message) -> Record<'_> {
    let mut record = Record::new(message.value());
    if let Some(key) = message.key() {
        record = record.key(key);
    }
    if let Some(time) = message.timestamp() {
        record = record.timestamp(time);
    }
    message
        .headers()
        .filter(|(name, _)| !is_ours(name))
        .fold(record, |record, (name, value)| record.header(name, value))
}

impl Origin<'_> {
    /// Calls `send` with the record of the dead letter of `message`, and returns its result.
    pub(crate) fn with_record<R>(&self, message: &Message, send: impl FnOnce(&Record<'_>) -> R) -> R {
        let (partition, offset) = (self.partition.to_string(), self.offset.to_string());
        let attempts = self.attempts.to_string();
        let mut cut = self.reason.len().min(LONGEST_REASON);
        while !self.reason.is_char_boundary(cut) {
            cut -= 1;
        }
        // A dead letter that fails again keeps only its newest origin.
        let mut record = without_origin(message);
        record = record.header(TOPIC, self.topic).header(PARTITION, &partition).header(OFFSET, &offset);
        record = record.header(CONSUMER, self.consumer).header(ATTEMPTS, &attempts);
        send(&record.header(REASON, &self.reason[..cut]))
    }
}

fn is_ours(name: &str) -> bool {
    [TOPIC, PARTITION, OFFSET, CONSUMER, ATTEMPTS, REASON].contains(&name)
}

/// A dead letter: a message that could not be handled, with its origin and the reason.
#[non_exhaustive]
pub struct DeadLetter {
    /// The topic of the original message.
    pub topic: String,
    /// The original message's partition in that topic.
    pub partition: u32,
    /// The original message's offset in that partition.
    pub offset: u64,
    /// The queue, group or subscriber that could not handle the message.
    pub consumer: String,
    /// How often the consumer has tried to handle the message.
    pub attempts: u32,
    /// The error of the last attempt, cut to 256 bytes.
    pub reason: String,
    /// The original message.
    pub message: Message,
}

impl DeadLetter {
    /// Reads a dead letter from `message`. `None` if it lacks the headers of a dead letter.
    ///
    /// ```
    /// # use slipring::{Engine, Message, Record, dead_letter::DeadLetter};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # let jobs = engine.topic::<Message>("jobs").create()?;
    /// # let mut worker = jobs.queue("jobs").max_attempts(1).dead_letter("dead").join()?;
    /// let mut dead = engine.get::<Message, slipring::producer::Multi>("dead")?.subscribe("undertaker").poll()?;
    /// # jobs.producer().create()?.send(Record::new("resize cat.png"))?;
    /// # worker.receive(Duration::ZERO)?.unwrap().nack(Duration::ZERO, "no such file")?;
    /// for (message, _) in &mut dead.poll(Duration::from_secs(1))?.unwrap() {
    ///     let letter = DeadLetter::read(message).unwrap();
    ///     assert_eq!((&*letter.topic, letter.attempts, &*letter.reason), ("jobs", 1, "no such file"));
    ///     assert_eq!(letter.message.value(), b"resize cat.png");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(message: &Message) -> Option<Self> {
        let text = |name| std::str::from_utf8(message.header(name)?).ok();
        let (topic, consumer, reason) = (text(TOPIC)?.to_owned(), text(CONSUMER)?.to_owned(), text(REASON)?.to_owned());
        let partition = text(PARTITION)?.parse().ok()?;
        let (offset, attempts) = (text(OFFSET)?.parse().ok()?, text(ATTEMPTS)?.parse().ok()?);
        Some(Self {
            topic,
            partition,
            offset,
            consumer,
            attempts,
            reason,
            message: Message::of(&without_origin(message)),
        })
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, offset, consumer, attempts, reason, message } = self;
        write!(f, "{topic}/{partition}@{offset} from {consumer} after {attempts} attempts: {reason}: {message:?}")
    }
}
