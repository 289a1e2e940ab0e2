//! Deleting topics.

use super::Engine;
use crate::queue::recorded_dead_letters;
use crate::topic::AnyTopic;
use crate::topic::attached::DeadLetters;
use crate::topic::error::TopicError;
use crate::topic::report::TopicReport;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Engine {
    /// Closes and removes a topic that has no consumers, and frees its name. Remaining producers and handles get an
    /// error with [`Closed::Closed`](crate::topic::Closed::Closed). The events of a durable topic are deleted from the
    /// journal. So readers of the journal count as its consumers too: a replay until it is dropped or has read a closed
    /// topic to its end, a group while it has members, a transform while it is open or runs.
    ///
    /// ```
    /// # use slipring::{Engine, topic::TopicError};
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").create()?;
    /// let tape = ticks.subscribe("tape").poll()?;
    /// assert!(matches!(engine.delete("ticks"), Err(TopicError::InUse { consumers, .. }) if consumers == ["tape"]));
    /// drop(tape);
    /// engine.delete("ticks")?;
    /// assert!(engine.topics().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// No topic has that name, or it has consumers, queues or transforms, which the error names: a group as `group:NAME`, a
    /// transform as `transform:NAME`. [`TopicError::KeepsDeadLetters`] if the dead letters of a queue are there, also of a
    /// queue that only the journal has. [`TopicError::Journal`] if a durable topic's journal has ended, or this is one of the
    /// journal's own threads: then nothing has changed. [`TopicError::NotForgotten`] if the journal fails meanwhile: the
    /// error has the report, and the topic is gone from the engine, but may be there when the journal is opened again.
    pub fn delete(&self, name: &str) -> Result<TopicReport, TopicError> {
        let topic = self.find_to_delete(name)?;
        if let Some(letters) = self.dead_letters_in(&*topic).into_iter().next() {
            let (name, topic, queue) = (name.to_owned(), letters.topic, letters.queue);
            return Err(TopicError::KeepsDeadLetters { name, topic, queue });
        }
        let in_use = |consumers| TopicError::InUse { name: name.to_owned(), consumers };
        topic.close_unread().map_err(in_use)?;
        self.remove(&topic)
    }

    /// Removes a topic even if it has consumers: halts it, and reports how far each consumer has read and how many
    /// events it has left unread. A queue whose dead letters were there is reported as the consumer `dead.TOPIC.QUEUE`,
    /// with the letters that were neither purged nor sent back. The next call of each of its producers and consumers
    /// returns an error.
    ///
    /// # Errors
    /// No topic has that name; or one of the journal's, as of [`delete`](Self::delete).
    pub fn delete_forced(&self, name: &str) -> Result<TopicReport, TopicError> {
        let topic = self.find_to_delete(name)?;
        topic.halt();
        let letters = self.dead_letters_in(&*topic);
        let committer = self.shared.host.committer.as_deref();
        let journaled = committer.zip(topic.journal_number());
        let report = |letters: &DeadLetters| journaled.map(|(committer, of)| letters.report(&committer.journal, of));
        let mut left: Vec<_> = letters.iter().filter_map(report).flatten().collect();
        let mut add = |report: &mut TopicReport| report.consumers.append(&mut left);
        match self.remove(&topic) {
            Ok(mut report) => {
                add(&mut report);
                Ok(report)
            }
            Err(TopicError::NotForgotten { name, cause, mut report }) => {
                add(&mut report);
                Err(TopicError::NotForgotten { name, cause, report })
            }
            refused => refused,
        }
    }

    /// The dead letters that queues have in a topic.
    fn dead_letters_in(&self, topic: &dyn AnyTopic) -> Vec<DeadLetters> {
        let open = self.shared.open();
        let mut found: Vec<_> = open.iter().flat_map(|origin| origin.dead_letters_in(topic.name())).collect();
        let Some(committer) = self.shared.host.committer.as_deref().filter(|_| topic.journal_number().is_some()) else {
            return found;
        };
        let recorded = recorded_dead_letters(&committer.recovered_state(), topic.name());
        let is_open = |it: &DeadLetters| found.iter().any(|open| (&open.topic, &open.queue) == (&it.topic, &it.queue));
        let closed: Vec<_> = recorded.into_iter().filter(|recorded| !is_open(recorded)).collect();
        found.extend(closed);
        found
    }

    /// The topic `name`. An error if it cannot be deleted from the journal now.
    fn find_to_delete(&self, name: &str) -> Result<Arc<dyn AnyTopic>, TopicError> {
        let topic = self.shared.find(name)?;
        topic.may_forget().map_err(|cause| TopicError::Journal { name: name.to_owned(), cause })?;
        Ok(topic)
    }

    /// Removes a topic that is closed or halted. If the journal refuses to forget it, it is gone from the engine all the
    /// same, because it cannot be opened again.
    fn remove(&self, topic: &Arc<dyn AnyTopic>) -> Result<TopicReport, TopicError> {
        let Some(_reserved) = self.shared.remove(topic) else {
            let known = self.topics();
            return Err(TopicError::Unknown { name: topic.name().to_owned(), known });
        };
        let forgotten = topic.forget();
        let report = topic.shutdown(Duration::ZERO, Instant::now());
        self.shared.host.forget(topic.id());
        match forgotten {
            Ok(()) => Ok(report),
            Err(cause) => {
                Err(TopicError::NotForgotten { name: topic.name().to_owned(), cause, report: Box::new(report) })
            }
        }
    }
}
