//! Dead letters that are to be read: in the journal, or from a place in the ring of their topic on.

use crate::event::dead_letter::DeadLetter;
use crate::event::message::Message;
use slipring_journal::{Journal, PartitionId, Reader, ReplayError, Start, Visible};
use slipring_ring::Sequence;
use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;

/// The source of the letters that are still to come.
pub(super) enum LetterParts {
    Ring {
        place: RingPlace,
        /// Copies of letters that were read and not returned yet.
        ready: VecDeque<DeadLetter>,
    },
    Journal(Box<JournalLetters>),
    /// The queue was deleted.
    None,
}

/// Where an iterator is in the ring of the dead letters.
pub(super) struct RingPlace {
    pub(super) partition: usize,
    /// The sequence of the next message to look at; `None` at the beginning of a partition.
    pub(super) next: Option<Sequence>,
    /// For each partition, the sequence at which the iteration ends.
    pub(super) ends: Vec<Sequence>,
}

/// Opens a reader of a partition's dead letters from offset `from` on, or from the first that the journal's retention has
/// left. `None` if the partition has none. Gaps of lost letters are passed over.
pub(super) fn open_letters(journal: &Journal, id: PartitionId, from: u64) -> Result<Option<Reader>, ReplayError> {
    let Some(extent) = journal.extent(id) else { return Ok(None) };
    let begin = from.max(extent.start).min(extent.end);
    let reader = journal.reader(id, Start::Offset(begin), Visible::Written)?;
    Ok(Some(reader.pass_gaps()))
}

/// The letters of a partition that are to be read: those from offset `from` on and below `end`.
pub(super) struct LetterRange {
    pub(super) partition: PartitionId,
    pub(super) from: u64,
    pub(super) end: u64,
}

/// The iterator of [`RecordedQueue::dead_letters`](crate::queue::recorded::RecordedQueue::dead_letters): a queue's dead letters
/// in a journal, the oldest of each partition first.
///
/// An item is an error if the journal is damaged there or cannot be read: the next item is then of the next partition. Letters
/// that a repair could not save are passed over.
pub struct JournalLetters {
    journal: Journal,
    /// The topic and the name of the queue.
    origin: (String, String),
    ranges: VecDeque<LetterRange>,
    /// The reader of the present partition, and the offset at which it ends.
    reader: Option<(Reader, u64)>,
}

impl JournalLetters {
    /// The letters of the queue `origin.1` of the topic `origin.0`.
    pub(super) fn new(
        journal: Journal,
        origin: (String, String),
        ranges: impl IntoIterator<Item = LetterRange>,
    ) -> Self {
        Self { journal, origin, ranges: ranges.into_iter().collect(), reader: None }
    }

    /// The next letter of the reader's partition. `None` if no more come from there.
    fn next_of_partition(&mut self) -> Result<Option<DeadLetter>, ReplayError> {
        let Self { origin: (topic, queue), reader, .. } = self;
        let Some((reader, end)) = reader else { return Ok(None) };
        while let Some(record) = reader.next()? {
            if record.offset >= *end {
                break;
            }
            let letter = Message::of_stored(record.bytes).as_ref().and_then(DeadLetter::read);
            if let Some(letter) = letter.filter(|it| it.topic == *topic && it.consumer == *queue) {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }
}

impl Iterator for JournalLetters {
    type Item = Result<DeadLetter, ReplayError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_of_partition() {
                Ok(Some(letter)) => return Some(Ok(letter)),
                Ok(None) => self.reader = None,
                Err(refused) => {
                    let (reader, end) = self.reader.take()?;
                    // Retention has deleted the letters that were to come next: those that it keeps are read.
                    let ReplayError::OutOfRange { earliest, .. } = refused else { return Some(Err(refused)) };
                    self.ranges.push_front(LetterRange { partition: reader.partition(), from: earliest, end });
                }
            }
            let LetterRange { partition, from, end } = self.ranges.pop_front()?;
            match open_letters(&self.journal, partition, from) {
                Ok(reader) => self.reader = reader.map(|reader| (reader, end)),
                Err(refused) => return Some(Err(refused)),
            }
        }
    }
}

impl FusedIterator for JournalLetters {}

impl fmt::Debug for JournalLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalLetters of queue {:?} of {:?}", self.origin.1, self.origin.0)
    }
}
