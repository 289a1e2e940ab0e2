//! What can be refused, each with what was asked and what to do.

use crate::base::closed::Closed;
use crate::base::ids::{MAX_NAME, MAX_PARTITIONS};
use crate::text;
use slipring_ring::pin::PinError;
use slipring_ring::{BuildError, ClaimError};

/// Two settings of one builder cannot both be. Whichever was said last does not win: it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{of:?}: {one} and {other} contradict one another: say one of them")]
#[non_exhaustive]
pub struct Contradiction {
    /// What was to be made: the name of the topic, group or queue.
    pub of: String,
    /// One setting.
    pub one: &'static str,
    /// The other one.
    pub other: &'static str,
}

impl Contradiction {
    pub(crate) fn new(of: &str, one: &'static str, other: &'static str) -> Self {
        Self { of: of.to_owned(), one, other }
    }
}

/// A topic was not created or not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The name is empty, too long, or has other characters.
    #[error("{name:?} is no name for a topic or consumer: take 1 to {MAX_NAME} letters, digits, '.', '_' or '-'")]
    Name {
        /// The name.
        name: String,
    },
    /// The topic's own factory, or what makes a handler for a new partition, asked for more partitions while it was called for
    /// that.
    #[error("topic {name:?} is being given partitions by this very thread: add others when that has returned")]
    Growing {
        /// The topic.
        name: String,
    },
    /// What must be done at a time could not be: the engine's timer has no thread.
    #[error("topic {name:?}: {}", text::line(.cause))]
    Timer {
        /// The topic.
        name: String,
        /// What the system said.
        cause: String,
    },
    /// There is a topic of this name.
    #[error(
        "there is a topic {name:?} already, as {}; asked for was {}: take it with `get`, or another name", text::line(.there), text::line(.asked)
    )]
    Exists {
        /// The name.
        name: String,
        /// Its shape.
        there: String,
        /// The shape asked for.
        asked: String,
    },
    /// There is no topic of this name.
    #[error("there is no topic {name:?} (there are {known:?}): create it first")]
    Unknown {
        /// The name.
        name: String,
        /// The topics there are.
        known: Vec<String>,
    },
    /// The topic carries other events.
    #[error("topic {name:?} is {}; asked for was {}", text::line(.there), text::line(.asked))]
    OtherShape {
        /// The name.
        name: String,
        /// Its shape.
        there: String,
        /// The shape asked for.
        asked: String,
    },
    /// No partition at all, or too many.
    #[error("topic {name:?} cannot have {asked} partitions: take 1 to {MAX_PARTITIONS}")]
    Partitions {
        /// The name.
        name: String,
        /// How many it would have had.
        asked: usize,
    },
    /// The messages would take more memory than the topic may have.
    #[error(
        "topic {name:?} would take {asked} bytes ({partitions} partitions of {capacity} slots of {slot} bytes), more than its limit of {limit}: take fewer or smaller slots, or raise `memory_limit`"
    )]
    Memory {
        /// The name.
        name: String,
        /// The bytes that it would take.
        asked: u64,
        /// What it may take.
        limit: u64,
        /// How many partitions.
        partitions: usize,
        /// Slots of each.
        capacity: usize,
        /// Bytes of each slot, with what it needs beside itself.
        slot: u64,
    },
    /// A largest message that is too large.
    #[error("topic {name:?} cannot have messages of {asked} bytes: take {MAX_MESSAGE} at most")]
    MaxMessage {
        /// The name.
        name: String,
        /// What it would have had.
        asked: usize,
    },
    /// A time to live or a retention by age where no times are noted.
    #[error(
        "topic {name:?} has a time to live or a retention by age, and no times: create it with `timestamps()` as well"
    )]
    NoTimestamps {
        /// The name.
        name: String,
    },
    /// There are consumers on it.
    #[error("topic {name:?} is read by {consumers:?}: cancel or drop them first, or delete it with `delete_forced`")]
    InUse {
        /// The name.
        name: String,
        /// Its consumers.
        consumers: Vec<String>,
    },
    /// The engine has no journal.
    #[error("topic {name:?} is to be durable, and the engine has no journal: take `Engine::open`")]
    NoJournal {
        /// The name.
        name: String,
    },
    /// The journal knows this topic as another one.
    #[error(
        "topic {name:?} stands in the journal as {}; asked for was {}: ask for that, or take another name", text::line(.there), text::line(.asked)
    )]
    Recorded {
        /// The name.
        name: String,
        /// Its shape in the journal.
        there: String,
        /// The shape asked for.
        asked: String,
    },
    /// The journal refused the topic.
    #[error("topic {name:?} cannot be written down: {}", text::line(.cause))]
    Journal {
        /// The name.
        name: String,
        /// Why.
        cause: String,
    },
    /// The size was refused.
    #[error("topic {name:?}: {cause}")]
    Ring {
        /// The name.
        name: String,
        /// What was refused.
        cause: BuildError,
    },
    /// A consumer could not be given the new partition.
    #[error("topic {name:?} got no new partition: {cause}")]
    Consumer {
        /// The name.
        name: String,
        /// Which consumer, and why.
        cause: Box<SubscribeError>,
    },
    /// The topic takes nothing more.
    #[error("topic {name:?}: {reason}")]
    Closed {
        /// The name.
        name: String,
        /// Why.
        reason: Closed,
    },
    /// The engine was shut down.
    #[error("the engine was shut down: build another one")]
    ShutDown,
    /// Two settings cannot both be.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

/// The largest that [`max_message`](crate::TopicBuilder::max_message) can be, in bytes: 1 GiB.
pub const MAX_MESSAGE: usize = 1 << 30;

/// Names may one day be part of a path: letters, digits, and three signs, and neither `.` nor `..`.
pub(crate) fn check_name(name: &str) -> Result<(), TopicError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if plain && (1..=MAX_NAME).contains(&name.len()) && name != "." && name != ".." {
        Ok(())
    } else {
        Err(TopicError::Name { name: name.to_owned() })
    }
}

/// No producer was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProducerError {
    /// The topic has a single producer, and somebody has it.
    #[error(
        "topic {topic:?} has a single producer, and it is taken: drop that one, or create the topic without `single_producer`"
    )]
    Taken {
        /// The topic.
        topic: String,
    },
    /// The name of an idempotent producer is no name.
    #[error(
        "topic {topic:?}: {name:?} is no name for a producer: take 1 to {MAX_NAME} letters, digits, '.', '_' or '-'"
    )]
    Name {
        /// The topic.
        topic: String,
        /// The name.
        name: String,
    },
    /// As many names of idempotent producers as a topic knows, or as the journal's segments have room for, are in use: see
    /// [`IdempotentProducer`](crate::producer::IdempotentProducer).
    #[error(
        "topic {topic:?} has {limit} names of producers, which is all that it or the journal takes, so {name:?} is refused: use fewer, take larger segments, or wait until some expire"
    )]
    TooManyNames {
        /// The topic.
        topic: String,
        /// The name.
        name: String,
        /// The most.
        limit: usize,
    },
    /// The journal refused the name of an idempotent producer.
    #[error("topic {topic:?}: the producer {name:?} cannot be written down: {}", text::line(.cause))]
    Journal {
        /// The topic.
        topic: String,
        /// The name.
        name: String,
        /// Why.
        cause: String,
    },
    /// What must be done at a time could not be: the engine's timer has no thread.
    #[error("a producer of topic {topic:?}: {}", text::line(.cause))]
    Timer {
        /// The topic.
        topic: String,
        /// What the system said.
        cause: String,
    },
    /// The topic cannot acknowledge so much.
    #[error("topic {topic:?} cannot acknowledge what is published as {level}: {reason}")]
    Unsupported {
        /// The topic.
        topic: String,
        /// The level asked for.
        level: crate::base::level::Level,
        /// Why.
        reason: &'static str,
    },
    /// The topic takes nothing more.
    #[error("topic {topic:?}: {reason}")]
    Closed {
        /// The topic.
        topic: String,
        /// Why.
        reason: Closed,
    },
}

/// A consumer was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The name of the consumer is no name.
    #[error(transparent)]
    Name(TopicError),
    /// There is a consumer of this name.
    #[error("topic {topic:?} has a consumer called {consumer:?} already: give each its own name")]
    NameTaken {
        /// The topic.
        topic: String,
        /// The name.
        consumer: String,
    },
    /// It was to stand behind one that is not there.
    #[error(
        "consumer {consumer:?} was to stand behind {after:?}, which topic {topic:?} does not have (it has {known:?})"
    )]
    Unknown {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// Whom it was to stand behind.
        after: String,
        /// The consumers there are.
        known: Vec<String>,
    },
    /// The start is not kept any more, or not published yet.
    #[error(
        "consumer {consumer:?} cannot start at {asked}: partition {partition} of topic {topic:?} keeps {earliest} up to, not including, {latest}"
    )]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// The partition.
        partition: u32,
        /// Where it wanted to start.
        asked: u64,
        /// The earliest offset that it could have had.
        earliest: u64,
        /// The next to be published.
        latest: u64,
    },
    /// It was to start at a time, and the topic has none.
    #[error("consumer {consumer:?} cannot start at a time: topic {topic:?} keeps none; create it with `timestamps()`")]
    NoTimestamps {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
    },
    /// It was to start where it has committed, and it is no group.
    #[error(
        "consumer {consumer:?} of topic {topic:?} cannot start at a committed offset: only groups have any; use `group`"
    )]
    NoGroup {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
    },
    /// It was to wait for the journal, and the topic has none.
    #[error("consumer {consumer:?} cannot wait for a journal: topic {topic:?} has none; create it with `durable()`")]
    NotDurable {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
    },
    /// The core was refused. Ask for another one, or for none.
    #[error("consumer {consumer:?} of topic {topic:?}: {cause}")]
    Pin {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// What was asked, and what is allowed.
        cause: PinError,
    },
    /// The system gave no thread.
    #[error("consumer {consumer:?} of topic {topic:?} got no thread: {cause}")]
    Thread {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Its handler or state panicked while it was made.
    #[error("the handler of consumer {consumer:?} of topic {topic:?} panicked while it was made: {}", text::line(.cause))]
    Handler {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// The panic's message.
        cause: String,
    },
    /// Its thread would not have the core that it needs.
    #[error("topic {topic:?}: {cause}")]
    Cores {
        /// The topic.
        topic: String,
        /// Who, and why.
        cause: crate::base::cores::CoresError,
    },
    /// What it cannot handle would have no place.
    #[error("consumer {consumer:?} of topic {topic:?}: {cause}")]
    DeadLetters {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// Why.
        cause: Box<DeadLetterError>,
    },
    /// The topic takes nothing more.
    #[error("topic {topic:?}: {reason}")]
    Closed {
        /// The topic.
        topic: String,
        /// Why.
        reason: Closed,
    },
    /// Anything else that the core refuses.
    #[error("topic {topic:?}: {cause}")]
    Refused {
        /// The topic.
        topic: String,
        /// Why.
        cause: BuildError,
    },
}

impl SubscribeError {
    pub(crate) fn new(topic: &str, partition: u32, cause: BuildError) -> Self {
        let topic = topic.to_owned();
        match cause {
            BuildError::NameTaken { name } => Self::NameTaken { topic, consumer: name },
            BuildError::UnknownStage { stage, after, known } => Self::Unknown { topic, consumer: stage, after, known },
            BuildError::OutOfRange { stage, asked, earliest, latest } => Self::OutOfRange {
                topic,
                consumer: stage,
                partition,
                asked: asked.0,
                earliest: earliest.0,
                latest: latest.0,
            },
            BuildError::Pin { stage, cause } => Self::Pin { topic, consumer: stage, cause },
            BuildError::Thread { stage, cause } => Self::Thread { topic, consumer: stage, cause },
            BuildError::Handler { stage, cause } => Self::Handler { topic, consumer: stage, cause },
            BuildError::Closed(reason) => Self::Closed { topic, reason: reason.into() },
            cause => Self::Refused { topic, cause },
        }
    }
}

/// An event was not published, and nothing of it can be seen by anybody; or, if it is [`Unknown`](Self::Unknown), it was, and
/// is perhaps not as safe as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// It was published, and then the journal failed before it was as safe as asked: it may be there when the journal is
    /// opened again, or not.
    #[error("partition {partition} of topic {topic:?}: offset {offset} was published, but {}", text::line(.cause))]
    Unknown {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Its offset.
        offset: u64,
        /// What happened.
        cause: String,
    },
    /// There is no room. Only from the forms that try.
    #[error("partition {partition} of topic {topic:?} is full: {}", held_by(.by))]
    Full {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The consumer that is the furthest behind; none if it is a claim that another producer has not committed.
        by: Option<String>,
    },
    /// There was no room until the deadline.
    #[error("partition {partition} of topic {topic:?} had no room until the deadline: {}", held_by(.by))]
    TimedOut {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The consumer that is the furthest behind; none if it is a claim that another producer has not committed.
        by: Option<String>,
    },
    /// The partition is full, and the calling thread runs the handler of the consumer that it would wait for. See
    /// [publishing in a handler](crate::subscriber::SubscriberBuilder::run).
    #[error(
        "topic {topic:?}: partition {partition} is full and waits for the consumer {consumer:?}, whose own handler this is: publish with `try_publish` or from another thread, or give the topic more capacity"
    )]
    OwnConsumer {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The consumer.
        consumer: String,
    },
    /// It has an id, and the topic deduplicates: that is done for producers that publish at once and by themselves.
    #[error(
        "topic {topic:?} looks at ids, which a producer that gathers, one with sequences and a transaction do not: send it with `Producer::send`, or without an id"
    )]
    IdNotLookedAt {
        /// The topic.
        topic: String,
    },
    /// A producer was used by the code that it calls, such as its partitioner.
    #[error(
        "topic {topic:?}: a producer was used by code that it calls itself, such as its partitioner: use another one there"
    )]
    Nested {
        /// The topic.
        topic: String,
    },
    /// It came earlier than a rate limit allows.
    #[error("topic {topic:?}: the rate limit of {} is reached: come again in {wait:?}", if *.of_topic { "the topic" } else { "this producer" })]
    RateLimited {
        /// The topic.
        topic: String,
        /// Whether the limit is the topic's; else it is the producer's own.
        of_topic: bool,
        /// After which time it may be tried again.
        wait: std::time::Duration,
    },
    /// A batch of no events.
    #[error("topic {topic:?}: a batch of 0 events is refused: publish at least 1")]
    Nothing {
        /// The topic.
        topic: String,
    },
    /// A batch that never fits.
    #[error(
        "topic {topic:?}: a batch of {asked} events never fits a partition that holds {largest}: publish fewer at a time"
    )]
    BatchTooLarge {
        /// The topic.
        topic: String,
        /// How many events.
        asked: usize,
        /// The most that ever fits: the capacity, less what is retained.
        largest: usize,
    },
    /// A message that never fits.
    #[error(
        "topic {topic:?}: a message of {size} bytes is larger than the {largest} that `max_message` allows (key, value, and each header's name and value and {} more)",
        crate::event::record::Record::HEADER
    )]
    MessageTooLarge {
        /// The topic.
        topic: String,
        /// Its size, as [`Record::size`](crate::Record::size) counts it.
        size: usize,
        /// The largest.
        largest: usize,
    },
    /// A header's name that is too long.
    #[error(
        "topic {topic:?}: a header's name of {len} bytes is longer than {}",
        crate::event::record::Record::MAX_HEADER_NAME
    )]
    HeaderName {
        /// The topic.
        topic: String,
        /// Its length.
        len: usize,
    },
    /// The partitioner is [`Explicit`](crate::producer::Partitioner::Explicit), and no partition was named.
    #[error("topic {topic:?}: no partition was named: name one, or take another partitioner than Explicit")]
    NoPartition {
        /// The topic.
        topic: String,
    },
    /// There is no such partition.
    #[error("topic {topic:?} has no partition {asked}: it has {partitions}, from 0 on")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The one that was named, by the caller or by the partitioner.
        asked: u32,
        /// How many there are.
        partitions: u32,
    },
    /// The topic takes nothing more.
    #[error("topic {topic:?}: {reason}")]
    Closed {
        /// The topic.
        topic: String,
        /// Why.
        reason: Closed,
    },
}

impl PublishError {
    /// `slowest` is asked only where the ring itself does not say who is in the way.
    #[cold]
    pub(crate) fn new(
        topic: &str,
        partition: u32,
        reason: impl Into<ClaimError>,
        slowest: impl FnOnce() -> Option<String>,
    ) -> Self {
        let topic = topic.to_owned();
        match reason.into() {
            ClaimError::Nothing => Self::Nothing { topic },
            ClaimError::TooLarge { asked, largest } => Self::BatchTooLarge { topic, asked, largest },
            ClaimError::Full => Self::Full { topic, partition, by: slowest() },
            ClaimError::TimedOut { by } => Self::TimedOut { topic, partition, by },
            ClaimError::Closed(reason) => Self::Closed { topic, reason: reason.into() },
            // Whatever the ring may learn to refuse, nothing was published.
            _ => Self::Closed { topic, reason: Closed::Closed },
        }
    }

    /// Whether there was no room, or it came too early: the same may go through later.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::TimedOut { .. } | Self::RateLimited { .. })
    }
}

/// A value was not published; here it is again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejected<E> {
    /// What was to be published.
    pub value: E,
    /// Why it was not.
    pub reason: PublishError,
}

fn held_by(consumer: &Option<String>) -> String {
    match consumer {
        Some(consumer) => format!("consumer {consumer:?} is the furthest behind"),
        None => "another producer's claim is not committed yet".to_owned(),
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
    Reader {
        /// The topic.
        topic: String,
        /// Why.
        cause: Box<SubscribeError>,
    },
}
