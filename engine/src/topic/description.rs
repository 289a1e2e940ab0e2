//! The description of a topic for people: its settings and its state at one moment.

use crate::base::closed::Closed;
use crate::base::ids::TopicId;
use crate::topic::Shape;
use crate::topic::metrics::{PartitionMetrics, ReplicationMetrics};
use crate::topic::ring_link::RingLinkDescription;
use std::fmt;
use std::time::Duration;

/// A topic's settings and its state at one moment. [`Display`](fmt::Display) writes it as text for people.
///
/// ```
/// # use slipring::{Engine, Message};
/// # let engine = Engine::builder().build()?;
/// engine.topic::<Message>("orders").partitions(4).capacity(1024).max_message(4096).create()?;
/// let orders = engine.describe("orders")?;
/// assert!(orders.memory >= 4 * 1024 * 4096 && orders.memory <= orders.memory_limit);
/// assert!(!orders.spin_hint.is_zero() && orders.to_string().contains("spin hints of"));
/// println!("{orders}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// The topic's name.
    pub name: String,
    /// The topic's id, which its receipts have too.
    pub id: TopicId,
    /// The type, size and number of partitions with which the topic was created. Partitions may have been added since.
    pub shape: Shape,
    /// The metrics of each partition, by number.
    pub partitions: Vec<PartitionMetrics>,
    /// The number of slots of each partition.
    pub capacity: usize,
    /// The number of published events of each partition that are kept for consumers that join later or seek back.
    pub retain: usize,
    /// True if the topic stores the time at which each event is published.
    pub timestamps: bool,
    /// The size of one slot in bytes, as [`TopicBuilder::memory_limit`](crate::TopicBuilder::memory_limit) counts it.
    pub slot_bytes: u64,
    /// The size of all slots in bytes. A partition's slots are allocated when it is created, and freed with the topic.
    /// 0 for a topic that a [queue](crate::queue::QueueBuilder::dead_letter) has created for its dead letters, until
    /// the first dead letter or the first [`Engine::get`](crate::Engine::get) of the topic.
    pub memory: u64,
    /// The limit for [`memory`](Self::memory), in bytes.
    pub memory_limit: u64,
    /// What a spin hint takes on this processor, as this process has measured it once. Waiting threads count their times
    /// ([`Wait::spin_for`](crate::Wait::spin_for), [`Wait::pause`](crate::Wait::pause)) in it.
    pub spin_hint: Duration,
    /// The number of producers of the topic that exist now.
    pub producers: usize,
    /// The names of the topic's consumers.
    pub consumers: Vec<String>,
    /// The topic's bridge to other machines; `None` if none was attached since the topic was opened.
    pub replication: Option<ReplicationMetrics>,
    /// The topic's links with shared rings of other processes, running or ended.
    pub ring_links: Vec<RingLinkDescription>,
    /// Why the topic has ended; `None` while it is open.
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
        writeln!(f, "  waits count their times in spin hints of {} ns", self.spin_hint.as_nanos())?;
        if let Some(bridge) = &self.replication {
            writeln!(f, "  {bridge}")?;
        }
        for link in &self.ring_links {
            writeln!(f, "  {link}")?;
        }
        for PartitionMetrics { partition, earliest, published, fill, capacity, .. } in &self.partitions {
            writeln!(f, "  partition {partition}: offsets {earliest}..{published}, fill {fill}/{capacity}")?;
        }
        Ok(())
    }
}
