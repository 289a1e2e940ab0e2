//! What a journal's directory has recorded, read without a lock.

use crate::failure::{FAILED, Failure};
use slipring::journal::storage::{Disk, Storage};
use slipring::journal::{Journal, JournalId, PartitionId, RecordedTopic, inspect, recorded_topics};
use std::path::Path;
use std::sync::Arc;

/// A journal, as it was when it was read.
pub(crate) struct RecordedJournal {
    pub(crate) id: JournalId,
    pub(crate) topics: Vec<RecordedTopic>,
    pub(crate) journal: Journal,
}

impl RecordedJournal {
    /// Reads the journal in this directory; `None` if there is none.
    pub(crate) fn find(directory: &Path) -> Result<Option<Self>, Failure> {
        if !directory.is_dir() {
            return Ok(None);
        }
        let storage: Arc<dyn Storage> = Arc::new(Disk::new(directory));
        let survey = inspect(Arc::clone(&storage), false)?;
        let Some(id) = survey.id() else { return Ok(None) };
        let topics = recorded_topics(survey.state());
        Ok(Some(Self { id, topics, journal: survey.journal(storage) }))
    }

    /// Reads the journal in this directory.
    pub(crate) fn read(directory: &Path) -> Result<Self, Failure> {
        let none = || Failure::new(FAILED, format!("there is no journal in {directory:?}"));
        Self::find(directory)?.ok_or_else(none)
    }

    pub(crate) fn topic(&self, name: &str) -> Option<&RecordedTopic> {
        self.topics.iter().find(|topic| topic.name == name)
    }

    /// The partitions of a topic of messages.
    pub(crate) fn partitions(&self, name: &str) -> Result<Vec<PartitionId>, Failure> {
        match self.topic(name) {
            None => Err(Failure::new(FAILED, format!("the journal has no topic {name:?}"))),
            Some(topic) if topic.max_message == 0 => {
                Err(Failure::new(FAILED, format!("topic {name:?} has events of a fixed size, and no messages")))
            }
            Some(topic) => {
                Ok((0..topic.partitions).map(|partition| PartitionId { topic: topic.number, partition }).collect())
            }
        }
    }
}
