//! What a topic is.

use crate::base::closed::Closed;
use crate::base::ids::TopicId;
use crate::topic::Shape;
use crate::topic::metrics::PartitionMetrics;
use std::fmt;

/// What a topic is, and what there is in it at a moment. Its [`Display`](fmt::Display) is for people.
///
/// ```
/// # use slipring::{Engine, Message};
/// # let engine = Engine::builder().build()?;
/// engine.topic::<Message>("orders").partitions(4).capacity(1024).max_message(4096).create()?;
/// let orders = engine.describe("orders")?;
/// assert!(orders.memory >= 4 * 1024 * 4096 && orders.memory <= orders.memory_limit);
/// println!("{orders}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// Its name.
    pub name: String,
    /// What receipts call it.
    pub id: TopicId,
    /// What it was created as. Partitions may have been added.
    pub shape: Shape,
    /// Each partition as it is now.
    pub partitions: Vec<PartitionMetrics>,
    /// Slots of each partition.
    pub capacity: usize,
    /// How many events of each partition are kept for who comes late.
    pub retain: usize,
    /// Whether it notes when each event was published.
    pub timestamps: bool,
    /// The bytes of one slot, with what it needs beside itself.
    pub slot_bytes: u64,
    /// The bytes of all slots. They were taken when the partitions were made, and are not given back before the topic
    /// goes.
    pub memory: u64,
    /// The most that [`memory`](Self::memory) may be.
    pub memory_limit: u64,
    /// How many producers there are.
    pub producers: usize,
    /// The names of its consumers.
    pub consumers: Vec<String>,
    /// Why it takes nothing more; none while it is open.
    pub closed: Option<Closed>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, shape, capacity, slot_bytes, memory, memory_limit, producers, .. } = self;
        let state = self.closed.as_ref().map_or_else(|| "open".to_owned(), ToString::to_string);
        writeln!(f, "topic {name} (id {id}, {state}): {shape}")?;
        let count = self.partitions.len();
        writeln!(f, "  memory: {memory} of at most {memory_limit} bytes: {count} x {capacity} slots of {slot_bytes}")?;
        let times = if self.timestamps { ", with timestamps" } else { "" };
        writeln!(f, "  retains {} events of each partition{times}", self.retain)?;
        let consumers = if self.consumers.is_empty() { "none".to_owned() } else { self.consumers.join(", ") };
        writeln!(f, "  producers: {producers}; consumers: {consumers}")?;
        for PartitionMetrics { partition, earliest, published, fill, capacity, .. } in &self.partitions {
            writeln!(f, "  partition {partition}: offsets {earliest}..{published}, fill {fill}/{capacity}")?;
        }
        Ok(())
    }
}
