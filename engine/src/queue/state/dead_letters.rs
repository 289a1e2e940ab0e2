//! How dying messages become dead letters.

use super::QueueState;
use crate::base::held;
use crate::base::kind::Producers;
use crate::base::trace::lifecycle;
use crate::queue::dead_letter_writer::LetterOutcome;
use crate::queue::job::Job;
use crate::queue::lease::DeathCause;
use crate::queue::log::QueueLog;
use slipring_journal::PartitionId;
use std::sync::Arc;

/// A dead letter that is published and not in a frame yet. `letter` is its own partition and offset; the other fields
/// are those of its message.
pub(in crate::queue) struct PendingDeadLetter {
    partition: u32,
    offset: u64,
    letter: (u32, u64),
}

impl<E: Job, K: Producers> QueueState<E, K> {
    /// Publishes the dead letters of dying messages. If a letter finds no room, its message stays, and the next call
    /// tries again. If a letter is too large, or its message cannot be read back, the message is set aside and the others
    /// continue; then returns true, because the next message of its partition may be due.
    pub(in crate::queue) fn write_dead_letters(&mut self, log: Option<&QueueLog<E>>) -> bool {
        let mut passed_over = false;
        let most = log.map_or(usize::MAX, |log| log.max_pending);
        while self.pending_dead_letters.len() < most
            && !self.cannot_write_dead_letters
            && let Some(dead) = self.leases.dying()
        {
            let (partition, offset) = (dead.partition, dead.offset);
            // A frame with a letter must suffice to know that its message is done with. So the letter waits for what the
            // journal must know before that. The committer calls this again once it has written more.
            if !self.leases.is_recorded(partition, offset) {
                return passed_over;
            }
            let reason = match dead.cause {
                DeathCause::Refused(reason) => reason,
                DeathCause::Expired => "the lease ran out",
            };
            let dead_letter_writer = &mut self.dead_letter_writer;
            let letter = held::inside(|| {
                let body = match (dead.message, log) {
                    (Some(body), _) => Some(Arc::clone(body)),
                    (None, Some(log)) => log.load(partition, offset)?,
                    (None, None) => None,
                };
                Ok::<_, String>(
                    body.map(|body| dead_letter_writer.take(partition, offset, dead.attempts, reason, &*body)),
                )
            });
            let letter = match letter {
                Ok(Ok(Some(letter))) => letter,
                Ok(Ok(None)) => {
                    self.leases.dead_letter_done();
                    self.counters.lost += 1;
                    continue;
                }
                // The journal is damaged there, or the disk cannot read it.
                Ok(Err(cause)) => {
                    self.set_aside(partition, offset, &cause);
                    passed_over = true;
                    continue;
                }
                // The user's code has panicked. The message stays in the queue as dying, and the shutdown's report
                // counts it.
                Err(panic) => {
                    self.cannot_write_dead_letters = true;
                    self.fail(&panic);
                    return passed_over;
                }
            };
            let letter = match letter {
                LetterOutcome::Published(letter) => letter,
                LetterOutcome::NoRoom => return passed_over,
                LetterOutcome::TooLarge => {
                    self.set_aside(partition, offset, "it is larger than the topic for dead letters accepts");
                    passed_over = true;
                    continue;
                }
            };
            #[cfg(test)]
            crate::queue::tests::dead_letter_is_out();
            if log.is_some() {
                self.leases.dead_letter_written();
                let letter = (letter.partition, letter.offset);
                self.pending_dead_letters.push_back(PendingDeadLetter { partition, offset, letter });
            } else {
                self.leases.dead_letter_done();
            }
            self.counters.dead += 1;
        }
        passed_over
    }

    /// Makes a dying message stay as it is until the queue is opened again, so that it holds up no other.
    fn set_aside(&mut self, _partition: u32, _offset: u64, _cause: &str) {
        self.leases.set_dying_aside();
        let (_topic, _queue) = (self.dead_letter_writer.origin(), self.dead_letter_writer.consumer());
        lifecycle!(
            error,
            "a message cannot become a dead letter, and stays in its queue",
            topic = _topic,
            queue = _queue,
            partition = _partition.to_string(),
            offset = _offset.to_string(),
            cause = _cause
        );
    }

    /// Removes the messages whose dead letters are in the frame that is being gathered, or in earlier ones. `topic` is
    /// the number of the topic for dead letters; `drained` is as for
    /// [`StateSource::drain`](crate::log::source::StateSource::drain). Returns the messages' partitions and offsets.
    pub(in crate::queue) fn settle_dead_letters(
        &mut self,
        topic: u32,
        drained: &mut dyn FnMut(PartitionId) -> Option<u64>,
    ) -> Vec<(u32, u64)> {
        let mut settled = Vec::new();
        let leases = &mut self.leases;
        self.pending_dead_letters.retain(|pending| {
            let (partition, letter) = pending.letter;
            let is_in = drained(PartitionId { topic, partition }).is_some_and(|end| letter < end);
            if is_in && leases.settle_dead_letter(pending.partition, pending.offset) {
                settled.push((pending.partition, pending.offset));
            }
            !is_in
        });
        settled
    }
}
