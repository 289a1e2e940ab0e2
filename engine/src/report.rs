//! What became of everything at a shutdown.

use slipring_ring::Ending;
use std::fmt;

/// What was consumed, and what was not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// In the order in which they were closed.
    pub topics: Vec<TopicReport>,
}

/// One topic at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicReport {
    /// Its name.
    pub name: String,
    /// Its consumers.
    pub ring: slipring_ring::Report,
}

impl Report {
    /// Whether every consumer that was there at the end had read all that was published, and none failed. A polled
    /// subscriber that was dropped before is not there, and an event skipped as [`OnError`](crate::OnError) told counts
    /// as read: the stage's report says how many those are.
    pub fn is_complete(&self) -> bool {
        self.topics.iter().all(|topic| topic.ring.is_complete()) && self.failures().next().is_none()
    }

    /// Topic, consumer and cause of each consumer whose handler failed or panicked.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.topics.iter().flat_map(|topic| {
            topic.ring.stages.iter().filter_map(|stage| match &stage.ending {
                Some(Ending::Failed(cause)) => Some((&*topic.name, &*stage.name, &**cause)),
                _ => None,
            })
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, topic) in self.topics.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}topic {}: {}", topic.name, topic.ring.to_string().replace('\n', "\n  "))?;
        }
        Ok(())
    }
}
