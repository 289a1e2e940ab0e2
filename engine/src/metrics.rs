//! Positions of topics and consumers at a moment.

use std::fmt;

/// All topics. [`Engine::metrics`](crate::Engine::metrics) reads it from the positions themselves: nothing is counted
/// for it while events flow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// In the order of creation.
    pub topics: Vec<TopicMetrics>,
}

impl Metrics {
    /// The topic called `name`.
    pub fn topic(&self, name: &str) -> Option<&TopicMetrics> {
        self.topics.iter().find(|topic| topic.name == name)
    }
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicMetrics {
    /// Its name.
    pub name: String,
    /// Events that its ring holds.
    pub capacity: u64,
    /// The earliest offset that is kept.
    pub earliest: u64,
    /// The next offset to be published.
    pub published: u64,
    /// Slots that hold what some consumer has not read, or what is retained.
    pub fill: u64,
    /// The oldest offset that a producer has claimed and not published, if there is one now.
    pub oldest_unpublished: Option<u64>,
    /// Those that are there now, in the order of joining. What one that ended has done is in the report of the shutdown.
    pub consumers: Vec<ConsumerMetrics>,
}

impl TopicMetrics {
    /// The consumer called `name`.
    pub fn consumer(&self, name: &str) -> Option<&ConsumerMetrics> {
        self.consumers.iter().find(|consumer| consumer.name == name)
    }
}

/// One consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerMetrics {
    /// Its name.
    pub name: String,
    /// The consumers that it stands behind.
    pub after: Vec<String>,
    /// The next offset that it will read.
    pub consumed: u64,
    /// How many published events it has not read.
    pub lag: u64,
    /// How often a producer had to wait because of it.
    pub stalls: u64,
    /// Events that its handler failed on and that were passed over, as its policy says.
    pub skipped: u64,
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for topic in &self.topics {
            writeln!(f, "{}: published {}, fill {}/{}", topic.name, topic.published, topic.fill, topic.capacity)?;
            for consumer in &topic.consumers {
                let ConsumerMetrics { name, consumed, lag, stalls, skipped, .. } = consumer;
                writeln!(f, "  {name}: consumed {consumed}, lag {lag}, stalls {stalls}, skipped {skipped}")?;
            }
        }
        Ok(())
    }
}
