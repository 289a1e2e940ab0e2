//! Deleting a queue while its topic stays.

use super::changes::{Cursor, StatePart};
use super::core::QueueCore;
use super::input::Input;
use super::job::Job;
use super::{QueueError, codec};
use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::trace::lifecycle;
use crate::log::catalog::state_kind;
use crate::topic::Topic;
use crate::topic::durable::DurableTopic;
use crate::topic::report::QueueReport;
use slipring_journal::FrameBuilder;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl<E: Job, K: Producers> Topic<E, K> {
    /// Deletes a queue that has no workers and no leased messages, and all messages that it has, also from the journal.
    /// Its name can then be used again. Its dead letters stay in their topic, but no longer belong to a queue.
    ///
    /// ```
    /// # use slipring::{Engine, Message, queue::QueueError};
    /// # let engine = Engine::builder().build()?;
    /// let jobs = engine.topic::<Message>("jobs").create()?;
    /// let worker = jobs.queue("resize").join()?;
    /// assert!(matches!(jobs.delete_queue("resize"), Err(QueueError::InUse { workers: 1, .. })));
    /// drop(worker);
    /// jobs.delete_queue("resize")?;
    /// assert!(matches!(jobs.delete_queue("resize"), Err(QueueError::Unknown { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The topic has no such queue, the queue is in use, or the journal refused the deletion.
    pub fn delete_queue(&self, name: &str) -> Result<QueueReport, QueueError> {
        self.end_queue(name, false)
    }

    /// As [`delete_queue`](Self::delete_queue), even if the queue is in use. The next call of each of its workers
    /// returns an error, and an ack of a lease is refused as if the message was deleted.
    ///
    /// # Errors
    /// The topic has no such queue, or the journal refused the deletion.
    pub fn delete_queue_forced(&self, name: &str) -> Result<QueueReport, QueueError> {
        self.end_queue(name, true)
    }

    fn end_queue(&self, name: &str, forced: bool) -> Result<QueueReport, QueueError> {
        let topic = &self.inner;
        let _turn = topic.take_queues_turn(name)?;
        let refused = |cause| QueueError::Journal { topic: topic.name.clone(), queue: name.to_owned(), cause };
        // Checked before anything is changed: a queue that was ended cannot be opened again for its present workers.
        topic.durable.as_ref().map_or(Ok(()), |durable| durable.committer.may_commit()).map_err(refused)?;
        let found = topic.queues().iter().find(|queue| queue.name() == name).cloned();
        let (keys, report) = match found {
            Some(queue) => {
                let report = queue.end(forced).map_err(|(workers, leased)| {
                    let (topic, queue) = (topic.name.clone(), name.to_owned());
                    QueueError::InUse { topic, queue, workers, leased }
                })?;
                topic.queues().retain(|other| !Arc::ptr_eq(other, &queue));
                (queue.keys(), report)
            }
            None => {
                let known = topic.durable.as_ref().and_then(|durable| {
                    let state = durable.committer.recovered_state();
                    let known = codec::find(&state, durable.id(0).topic, name)?;
                    Some(codec::keys(&state, known.number))
                });
                let unknown = || QueueError::Unknown { topic: topic.name.clone(), queue: name.to_owned() };
                let report = QueueReport { name: name.to_owned(), ..QueueReport::default() };
                (known.ok_or_else(unknown)?, report)
            }
        };
        if let Some(durable) = &topic.durable {
            let registered = codec::queue_key(durable.id(0).topic, name);
            erase(durable, std::iter::once(registered).chain(keys)).map_err(refused)?;
        }
        lifecycle!(info, "queue deleted", topic = topic.name, queue = name);
        Ok(report)
    }
}

/// Deletes these keys from the journal, in as many frames as needed. The first frame deletes the queue's entry, so that
/// a crash between the frames does not leave a queue without a part of its state.
fn erase<E>(durable: &DurableTopic<E>, keys: impl Iterator<Item = Vec<u8>>) -> Result<(), String> {
    let limit = durable.journal().frame_limit() / 2;
    let mut frame = FrameBuilder::new();
    let commit = |frame: &mut FrameBuilder| {
        durable.committer.recovered_state().take(frame);
        durable.committer.commit([std::mem::take(frame)])
    };
    for key in keys {
        frame.delete(state_kind::QUEUES, &key);
        if frame.len() >= limit {
            commit(&mut frame)?;
        }
    }
    commit(&mut frame)
}

impl<E: Job, K: Producers> QueueCore<E, K> {
    /// Ends the queue. If the queue is in use and `forced` is false, leaves it as it is, and returns as the error the
    /// count of its workers and the count of its leased messages.
    pub(super) fn finish(&self, forced: bool) -> Result<QueueReport, (usize, u64)> {
        let mut state = self.lock();
        let workers = self.workers.load(Ordering::Acquire);
        let leased = state.leases.counts().leased as u64;
        if !forced && (workers > 0 || leased > 0) {
            return Err((workers, leased));
        }
        let report = self.report_of(&state);
        let cause = "the queue was deleted".to_owned();
        state.refused = Some(Closed::Failed { consumer: self.name.clone(), cause });
        self.note_keys(&mut state);
        // Dropping the input removes the queue's stages from the rings. Bodies and events are of the user's types, so
        // they are dropped after the lock is released.
        let input = std::mem::replace(&mut state.input, Input::Rings(Vec::new()));
        (state.partitions, state.ready) = (Vec::new(), Vec::new());
        self.note_numbers(&state);
        let leases = std::mem::replace(&mut state.leases, super::core::leases(self.settings));
        state.pending_dead_letters.clear();
        self.note_pending_dead_letters(&state);
        state.deleted.clear();
        if let Some((_, due)) = state.alarm.take() {
            self.cancel(due);
        }
        self.wake_all(&mut state);
        drop(state);
        drop((input, leases));
        self.close_dead_letters();
        Ok(report)
    }

    /// Sets `erased` to all keys of the queue's state that the journal may have, including those of unwritten changes.
    /// The journal need not have each of them.
    fn note_keys(&self, state: &mut super::state::QueueState<E, K>) {
        let Some(log) = &self.log else { return };
        let number = log.number;
        let mut parts: std::collections::BTreeSet<_> = state.leases.places().map(StatePart::of).collect();
        parts.extend(state.deleted.iter().map(|(partition, offset)| StatePart::Deleted(*partition, *offset)));
        parts.extend(state.leases.changes().into_iter().flat_map(|changes| changes.parts()));
        let mut keys: Vec<_> = parts.into_iter().map(|part| codec::part_key(number, part)).collect();
        for index in 0..state.input.len().max(crate::base::ids::MAX_PARTITIONS) as u32 {
            keys.push(codec::cursor_key(number, Cursor::Partition(index)));
            keys.push(codec::cursor_key(number, Cursor::DeadLetters(index)));
        }
        state.erased = keys;
    }
}
