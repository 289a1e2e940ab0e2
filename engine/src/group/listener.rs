//! Telling a member's owner what it was given and what was taken away.

use std::fmt;
use std::sync::Arc;

/// A partition of a topic, by names that mean something outside of the engine.
///
/// ```
/// use slipring::TopicPartition;
/// assert_eq!(TopicPartition::new("orders", 3).to_string(), "orders/3");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number in it.
    pub partition: u32,
}

impl TopicPartition {
    /// This partition of the topic of this name.
    pub fn new(topic: impl Into<Arc<str>>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What happened to a member's assignment. Told to its listener on the thread that polls, in the middle of a poll,
/// when the member holds no batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rebalance {
    /// These are the member's from now on.
    Assigned(Vec<TopicPartition>),
    /// These are about to go to others: flush what belongs to them. All that is committed stays so.
    Revoked(Vec<TopicPartition>),
    /// These have gone already: the member was fenced, or their topic was deleted by force or has failed.
    Lost(Vec<TopicPartition>),
}

/// A member's listener.
pub(crate) type Listener = Box<dyn FnMut(&Rebalance) + Send>;
