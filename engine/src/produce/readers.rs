//! Who reads what a producer publishes.

use super::Producer;
use crate::base::kind::Producers;

impl<E: Send + Sync + 'static, K: Producers> Producer<E, K> {
    /// The names of the topic's readers: its subscribers and queues, its groups as `group:NAME`, its replays, and its
    /// transforms as `transform:NAME`. Empty if nobody reads what is published now, except the journal. A subscriber is a
    /// reader until it is dropped, a queue until it is deleted. Not for each event: it takes locks and allocates.
    ///
    /// ```
    /// # let engine = slipring::Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").create()?;
    /// let producer = ticks.producer().create()?;
    /// let tape = ticks.subscribe("tape").poll()?;
    /// assert_eq!(producer.readers(), ["tape"]);
    /// drop(tape);
    /// assert!(producer.readers().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn readers(&self) -> Vec<String> {
        self.topic.reader_names()
    }

    /// True if both producers are of one topic of one engine.
    pub fn same_topic(&self, other: &Self) -> bool {
        self.topic().id == other.topic().id
    }
}
