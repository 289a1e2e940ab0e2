//! The dead letters of a queue, one by one: from the ring of their topic in small parts, or from the journal.

use super::core::QueueCore;
use super::job::Job;
use super::letters::LetterParts;
use super::{Queue, QueueError};
use crate::base::kind::Producers;
use crate::event::dead_letter::DeadLetter;
use crate::event::message::Message;
use slipring_ring::Multi;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

/// The iterator of [`Queue::dead_letters`]: the dead letters that were neither purged nor sent back when it was created, the
/// oldest of each partition first. Letters that are purged or sent back later may still come.
///
/// It holds no lock, one block of the journal or 64 letters of a ring, and nothing that producers wait for.
///
/// An item is an error if the journal is damaged there or cannot be read: the next item is then of the next partition. Letters
/// that a repair could not save are passed over: [`Engine::gaps`](crate::Engine::gaps) lists them.
pub struct DeadLetterIter<E: Job = Message, K: Producers = Multi> {
    core: Arc<QueueCore<E, K>>,
    letters: LetterParts,
}

impl<E: Job, K: Producers> DeadLetterIter<E, K> {
    pub(super) fn new(queue: &Queue<E, K>) -> Self {
        Self { core: Arc::clone(&queue.core), letters: queue.core.letter_parts() }
    }
}

impl<E: Job, K: Producers> Iterator for DeadLetterIter<E, K> {
    type Item = Result<DeadLetter, QueueError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.letters {
            LetterParts::None => None,
            LetterParts::Ring { place, ready } => {
                if ready.is_empty() {
                    self.core.read_ring_letters(place, ready);
                }
                ready.pop_front().map(Ok)
            }
            LetterParts::Journal(letters) => letters.next().map(|letter| {
                let (topic, queue) = (self.core.topic.clone(), self.core.name.clone());
                letter.map_err(|cause| QueueError::Journal { topic, queue, cause: cause.to_string() })
            }),
        }
    }
}

impl<E: Job, K: Producers> FusedIterator for DeadLetterIter<E, K> {}

impl<E: Job, K: Producers> fmt::Debug for DeadLetterIter<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeadLetterIter of queue {:?} of {:?}", self.core.name, self.core.topic)
    }
}
