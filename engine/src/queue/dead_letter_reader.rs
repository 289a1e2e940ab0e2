//! Reading the dead letters of a queue, and keeping them in their topic until they are purged or sent back.

use super::letters::{JournalLetters, LetterParts, LetterRange, RingPlace, open_letters};
use crate::event::dead_letter::DeadLetter;
use crate::event::message::Message;
use crate::log::catalog::recorded_topics;
use crate::log::queues;
use crate::queue::codec::{ClockShift, RecoveredQueue};
use crate::read::Subscriber;
use crate::read::membership::PartitionConsumer;
use crate::topic::Topic;
use crate::topic::attached::DeadLetters;
use crate::topic::durable::DurableTopic;
use crate::topic::error::DeadLetterError;
use slipring_journal::{Journal, PartitionId, ReplayError, State};
use slipring_ring::Multi;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The dead letters of one queue, in a topic in which other queues may have letters too.
pub(super) struct DeadLetterReader {
    letters: LetterSource,
    origin: String,
    consumer: String,
}

enum LetterSource {
    /// A subscriber of the topic in memory, whose gating position keeps the letters in the ring.
    Ring(Box<Subscriber<Message, Multi>>),
    /// The topic is durable, and its letters are read from the journal. `next` has, for each partition, the offset of
    /// the first letter that is neither purged nor sent back.
    Journal { durable: Arc<DurableTopic<Message>>, next: BTreeMap<u32, u64> },
    /// The queue was deleted, so its dead letters are no longer kept or read.
    None,
}

/// The most letters of a ring that an iterator holds copies of.
const PART: usize = 64;

type ReaderPart = PartitionConsumer<Message, Multi>;

/// What a pass over the dead letters does with one of them.
pub(super) enum Verdict {
    /// The letter is removed: it was purged, or is a message of the queue again.
    Drop,
    /// The letter and all later ones stay. Ends the pass.
    Stop,
}

/// For each partition of the topic for dead letters, its end in the journal: the first offset that a letter of a new
/// queue may get.
pub(super) fn ends(durable: &DurableTopic<Message>) -> BTreeMap<u32, u64> {
    let partitions = 0..durable.partitions() as u32;
    let end = |partition| durable.journal().extent(durable.id(partition)).map_or(0, |extent| extent.end);
    partitions.map(|partition| (partition, end(partition))).collect()
}

/// The dead letters that the queues of a journal have in the topic `dead`.
pub(crate) fn recorded_dead_letters(state: &State, dead: &str) -> Vec<DeadLetters> {
    let topics = recorded_topics(state);
    let of_dead = queues::all(state).into_iter().filter(|(.., entry)| entry.dead_topic == dead);
    let letters = of_dead.filter_map(|(number, queue, entry)| {
        let topic = topics.iter().find(|topic| topic.number == number)?.name.clone();
        Some(DeadLetters { topic, queue, next: RecoveredQueue::read(state, entry.number, ClockShift::NONE).letters() })
    });
    letters.collect()
}

impl DeadLetterReader {
    /// For each partition in the journal, the offset of the first letter that is neither purged nor sent back.
    pub(super) fn next(&self) -> BTreeMap<u32, u64> {
        match &self.letters {
            LetterSource::Journal { next, .. } => next.clone(),
            LetterSource::Ring(_) | LetterSource::None => BTreeMap::new(),
        }
    }

    /// Opens the dead letters that the queue `consumer` of the topic `origin` has in the topic `dead`. `next` has, for
    /// a durable topic, the offset of the first letter of each partition that is neither purged nor sent back.
    pub(super) fn new(
        dead: &Topic<Message, Multi>,
        origin: &str,
        consumer: &str,
        next: BTreeMap<u32, u64>,
    ) -> Result<Self, DeadLetterError> {
        let letters = match &dead.inner.durable {
            Some(durable) => LetterSource::Journal { durable: Arc::clone(durable), next },
            None => {
                let letters = dead.subscribe(format!("dead.{origin}.{consumer}")).poll();
                LetterSource::Ring(Box::new(letters.map_err(|cause| {
                    let (topic, cause) = (dead.name().to_owned(), Box::new(cause));
                    DeadLetterError::Reader { topic, cause }
                })?))
            }
        };
        Ok(Self { letters, origin: origin.to_owned(), consumer: consumer.to_owned() })
    }

    /// Stops keeping the queue's dead letters in their topic, because the queue was deleted.
    pub(super) fn close(&mut self) {
        self.letters = LetterSource::None;
    }

    /// Where the letters are that are kept at this moment, for an iterator.
    pub(super) fn parts(&mut self) -> LetterParts {
        match &mut self.letters {
            LetterSource::None => LetterParts::None,
            LetterSource::Ring(letters) => {
                // `find` consumes nothing. It is called because it takes over the partitions that were made or added since
                // the last call.
                let _ = letters.find(true, None);
                let end = |part: &mut ReaderPart| part.consumer.consumed().plus(part.consumer.lag());
                let place = RingPlace { partition: 0, next: None, ends: letters.parts.iter_mut().map(end).collect() };
                LetterParts::Ring { place, ready: VecDeque::new() }
            }
            LetterSource::Journal { durable, next } => {
                let ranges = ends(durable).into_iter().map(|(partition, end)| {
                    let from = next.get(&partition).copied().unwrap_or(0);
                    LetterRange { partition: durable.id(partition), from, end }
                });
                let origin = (self.origin.clone(), self.consumer.clone());
                LetterParts::Journal(Box::new(JournalLetters::new(durable.journal().clone(), origin, ranges)))
            }
        }
    }

    /// Copies the next letters of a ring, at most [`PART`], to `ready`. None if no more come.
    pub(super) fn read_ring(&mut self, place: &mut RingPlace, ready: &mut VecDeque<DeadLetter>) {
        let Self { letters, origin, consumer } = self;
        if let LetterSource::Ring(letters) = letters {
            let is_ours = |letter: &DeadLetter| letter.topic == *origin && letter.consumer == *consumer;
            copy_from_ring(letters, place, |message| {
                ready.extend(DeadLetter::read(message).filter(is_ours));
                ready.len() < PART
            });
        }
    }

    /// Passes the queue's dead letters to `each`, the oldest of each partition first, until it returns `Stop`. For a
    /// durable topic, `each` also gets the letter's partition and the offset after it, and the result has the partitions
    /// whose first kept letter has moved, with its offset.
    pub(super) fn each(&mut self, mut each: impl FnMut(DeadLetter, Option<(u32, u64)>) -> Verdict) -> Vec<(u32, u64)> {
        let Self { letters, origin, consumer } = self;
        let mut each = |message: &Message, next: Option<(u32, u64)>| {
            let is_ours = |letter: &DeadLetter| letter.topic == *origin && letter.consumer == *consumer;
            DeadLetter::read(message).filter(is_ours).map(|letter| each(letter, next))
        };
        match letters {
            LetterSource::None => Vec::new(),
            LetterSource::Ring(letters) => {
                each_in_ring(letters, |message| each(message, None));
                Vec::new()
            }
            LetterSource::Journal { durable, next } => {
                let mut moved = Vec::new();
                for partition in 0..durable.partitions() as u32 {
                    let id = durable.id(partition);
                    let from = next.get(&partition).copied().unwrap_or(0);
                    let mut each = |message: &Message, offset| each(message, Some((partition, offset + 1)));
                    let (to, ended) = each_in_journal(durable.journal(), id, from, &mut each);
                    if to > from {
                        next.insert(partition, to);
                        moved.push((partition, to));
                    }
                    // Where the journal cannot be read, the iterator of the letters says why.
                    if !matches!(ended, Ok(false)) {
                        break;
                    }
                }
                moved
            }
        }
    }
}

/// Passes the messages of the ring to `each` while it returns true, from `place` on, without consuming one.
fn copy_from_ring(
    letters: &mut Subscriber<Message, Multi>,
    place: &mut RingPlace,
    mut each: impl FnMut(&Message) -> bool,
) {
    while let (Some(end), Some(part)) = (place.ends.get(place.partition), letters.parts.get_mut(place.partition)) {
        let mut next = place.next.unwrap_or_else(|| part.consumer.consumed());
        loop {
            let Ok(mut batch) = part.consumer.poll(usize::MAX) else { break };
            let from = batch.position();
            batch.pass_over_to(next);
            let mut more = true;
            while more && batch.position().since(*end) < 0 {
                let Some((_, message)) = (&mut batch).into_iter().next() else { break };
                more = each(message);
            }
            if batch.position().since(next) > 0 {
                next = batch.position();
            }
            batch.put_back(from);
            drop(batch);
            if !more {
                place.next = Some(next);
                return;
            }
            if next.since(*end) >= 0 || !part.consumer.look_further() {
                break;
            }
        }
        (place.partition, place.next) = (place.partition + 1, None);
    }
}

fn each_in_ring(letters: &mut Subscriber<Message, Multi>, mut each: impl FnMut(&Message) -> Option<Verdict>) {
    // `find` consumes nothing. It is called because it takes over the partitions that were made or added since the last
    // call.
    let _ = letters.find(true, None);
    for part in &mut letters.parts {
        let end = part.consumer.consumed().plus(part.consumer.lag());
        while part.consumer.consumed().since(end) < 0 {
            let from = part.consumer.consumed();
            let Ok(mut batch) = part.consumer.poll(usize::MAX) else { break };
            while batch.position().since(end) < 0 {
                let Some((at, message)) = (&mut batch).into_iter().next() else { break };
                if let Some(Verdict::Stop) = each(message) {
                    batch.put_back(at);
                    return;
                }
            }
            drop(batch);
            if part.consumer.consumed() == from {
                break;
            }
        }
    }
}

/// Passes the dead letters of a partition, from offset `from` on, to `each`, which returns `None` for a letter of
/// another queue. Returns the offset below which no letter of this queue stays, and true if `each` has returned `Stop`, or the
/// error at which the journal could not be read further.
pub(super) fn each_in_journal(
    journal: &Journal,
    id: PartitionId,
    from: u64,
    each: &mut impl FnMut(&Message, u64) -> Option<Verdict>,
) -> (u64, Result<bool, ReplayError>) {
    let mut to = from;
    let mut read = || {
        let Some(mut reader) = open_letters(journal, id, from)? else { return Ok(false) };
        while let Some(record) = reader.next()? {
            let (offset, message) = (record.offset, Message::of_stored(record.bytes));
            if let Some(Verdict::Stop) = message.as_ref().and_then(|message| each(message, offset)) {
                return Ok(true);
            }
            to = offset + 1;
        }
        Ok(false)
    };
    let ended = read();
    (to, ended)
}
