//! Reports: what was consumed and what was not, at a shutdown.

use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::log::committer::STAGE;
use crate::log::gap::ReportedGap;
use crate::log::offsets::transform::{TransformDescription, TransformPartition, TransformState, reader_name};
use crate::text;
use crate::topic::consumers::ConsumerRun;
use crate::topic::partition::Partition;
use slipring_ring::{Ending, Sequence};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What was consumed, and what was not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The topics in the order in which they were closed.
    pub topics: Vec<TopicReport>,
    /// `Ok` if the journal was closed with everything that was published; otherwise the reason why not. None without a
    /// journal.
    pub journal: Option<Result<(), String>>,
    /// Events that were lost to damage, of which a reader with a name was told, and that nobody has acknowledged.
    pub gaps: Vec<ReportedGap>,
}

/// One topic at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicReport {
    /// Its name.
    pub name: String,
    /// The next offset that would have been published, by partition.
    pub published: Vec<u64>,
    /// Why it ended: it was closed, halted, or failed by a consumer of that name.
    pub closed: Option<Closed>,
    /// Claims that were still out when the shutdown's limit had passed. Their commits were refused, and nobody reads them.
    pub cut: Vec<CutClaim>,
    /// Each consumer in each partition.
    pub consumers: Vec<ConsumerReport>,
    /// What was left in each queue.
    pub queues: Vec<QueueReport>,
}

/// A claim that a shutdown gave up, because its holder had neither committed nor dropped it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CutClaim {
    /// The partition.
    pub partition: u32,
    /// The offsets that were claimed. They hold no event.
    pub offsets: Range<u64>,
}

/// What one consumer did in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerReport {
    /// Its name.
    pub name: String,
    /// The partition.
    pub partition: u32,
    /// The next offset that it would have read.
    pub consumed: u64,
    /// How many published events it did not read.
    pub left: u64,
    /// Events, of all partitions, that its handler failed on and that were passed over, as its policy says.
    pub skipped: u64,
    /// How it ended; none if it still runs because its handler has not returned, or is polled and has read everything. Of a
    /// polled one that has not, [`Ending::Unread`]: it may read on.
    pub ending: Option<Ending>,
    /// Whether its thread still runs, or, if it is polled, somebody holds a batch of it.
    pub running: bool,
}

impl TopicReport {
    pub(crate) fn new<E, K: Producers>(
        name: &str,
        partitions: &[Arc<Partition<E, K>>],
        runs: &[Arc<ConsumerRun>],
        queues: Vec<QueueReport>,
    ) -> Self {
        let mut published = Vec::new();
        let mut cut = Vec::new();
        let mut consumers = Vec::new();
        for partition in partitions {
            let at = partition.ring.positions();
            let told = partition.ring.report();
            cut.extend(told.cut.iter().map(|claim| {
                let first = claim.first.0;
                CutClaim { partition: partition.index, offsets: first..first + claim.len as u64 }
            }));
            let told_of = |name: &str| told.stages.iter().find(|stage| stage.name == name);
            let left = |consumed: u64| partition.ring.unread(Sequence(consumed));
            let mut attended = Vec::new();
            for run in runs {
                let state = run.state();
                let ended = state.consumed.get(&partition.index).copied();
                let stage = at.stages.iter().find(|stage| stage.name == run.stats.name);
                let running = ended.is_none();
                if running {
                    attended.push(&run.stats.name);
                }
                let Some(consumed) = ended.or_else(|| stage.map(|stage| stage.consumed.0)) else { continue };
                consumers.push(ConsumerReport {
                    name: run.stats.name.clone(),
                    partition: partition.index,
                    consumed,
                    left: left(consumed),
                    skipped: run.stats.skipped.load(Ordering::Relaxed),
                    ending: if running { None } else { state.ending.clone() },
                    running,
                });
            }
            let polled = at.stages.iter().filter(|stage| !attended.contains(&&stage.name));
            consumers.extend(polled.map(|stage| ConsumerReport {
                name: stage.name.clone(),
                partition: partition.index,
                consumed: stage.consumed.0,
                left: left(stage.consumed.0),
                skipped: 0,
                // It may read on. What it holds in a batch counts as unread.
                ending: told_of(&stage.name).filter(|told| told.left > 0).and_then(|told| told.ending.clone()),
                running: told_of(&stage.name).is_some_and(|told| told.left > 0 && told.running),
            }));
            published.push(at.published.0);
        }
        let closed = partitions.iter().find_map(|partition| partition.ring.closed()).map(Closed::from);
        Self { name: name.to_owned(), published, closed, cut, consumers, queues }
    }

    /// Whether every consumer read everything, none has failed, and no queue has lost what was out.
    pub fn is_complete(&self) -> bool {
        if matches!(self.closed, Some(Closed::Failed { .. })) {
            return false;
        }
        let read = self.consumers.iter().all(|consumer| consumer.left == 0 && !consumer.running);
        read && self.queues.iter().all(QueueReport::is_complete)
    }

    /// Notes for each partition the offset up to which the journal has it, and how many published events lie behind that.
    /// Returns how many events the journal has not.
    pub(crate) fn note_written(&mut self, partitions: &[(u32, u64, u64)]) -> u64 {
        let mut unwritten = 0;
        for &(partition, consumed, left) in partitions {
            unwritten += left;
            let ending = (left > 0).then(|| Ending::Stopped("the journal has ended".to_owned()));
            let journal = |known: &&mut ConsumerReport| known.name == STAGE && known.partition == partition;
            match self.consumers.iter_mut().find(journal) {
                Some(known) => (known.consumed, known.left, known.ending) = (consumed, left, ending),
                None if left > 0 => self.consumers.push(ConsumerReport {
                    name: STAGE.to_owned(),
                    partition,
                    consumed,
                    left,
                    skipped: 0,
                    ending,
                    running: false,
                }),
                None => {}
            }
        }
        unwritten
    }

    /// Adds the transforms of this topic, except those that were stopped or dropped. They read the journal, so the rings do not
    /// show them.
    pub(crate) fn note_transforms(&mut self, transforms: &[TransformDescription]) {
        for TransformDescription { name, state, partitions, .. } in transforms.iter().filter(|it| it.topic == self.name)
        {
            let name = reader_name(name);
            self.consumers.retain(|known| known.name != name);
            for TransformPartition { partition, committed, lag } in partitions {
                let ending = match state {
                    TransformState::Recorded | TransformState::Dropped | TransformState::Stopped => continue,
                    TransformState::Open => (*lag > 0).then_some(Ending::Unread),
                    TransformState::Running => None,
                    TransformState::Finished => Some(Ending::Drained),
                    TransformState::Halted(cause) => Some(Ending::Stopped(cause.clone())),
                    TransformState::Failed(cause) => Some(Ending::Failed(cause.clone())),
                };
                self.consumers.push(ConsumerReport {
                    name: name.clone(),
                    partition: partition.partition,
                    consumed: *committed,
                    left: *lag,
                    skipped: 0,
                    ending,
                    running: *state == TransformState::Running,
                });
            }
        }
    }

    /// The failure that ended the topic, if that is none of a consumer in the report: one of the journal, or of a producer
    /// that gathers.
    fn failure_of_another(&self) -> Option<(&str, &str, &str)> {
        let Some(Closed::Failed { consumer, cause }) = &self.closed else { return None };
        let has_failed =
            |known: &ConsumerReport| known.name == *consumer && matches!(known.ending, Some(Ending::Failed(_)));
        (!self.consumers.iter().any(has_failed)).then_some((&self.name, consumer, cause))
    }

    /// The consumer called `name`, in each partition.
    pub fn consumer<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r ConsumerReport> {
        self.consumers.iter().filter(move |consumer| consumer.name == name)
    }
}

/// What was left in a queue when its topic was shut down, or when it was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueReport {
    /// Its name.
    pub name: String,
    /// Published messages that were not given out. Of a durable topic, offsets.
    pub unread: u64,
    /// Messages that a worker had a lease on.
    pub leased: u64,
    /// Messages that would have come again.
    pub waiting: u64,
    /// Messages that found no room among the dead letters.
    pub dying: u64,
    /// Whether all of these are in the journal, for whoever opens the queue next.
    pub durable: bool,
}

impl fmt::Display for QueueReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, unread, leased, waiting, dying, durable } = self;
        write!(f, "queue {name}: {unread} unread, {leased} leased, {waiting} waiting, {dying} dying")?;
        f.write_str(if *durable { ", kept in the journal" } else { "" })
    }
}

impl QueueReport {
    /// Whether nothing of it is lost with the process.
    pub fn is_complete(&self) -> bool {
        self.durable || self.leased + self.waiting + self.dying == 0
    }
}

impl Report {
    /// Whether every consumer that was there at the end had read all that was published, and none failed. A polled
    /// subscriber that was dropped before is not there, and an event skipped as [`OnError`](crate::subscriber::OnError) told counts
    /// as read: the consumer's report says how many those are.
    pub fn is_complete(&self) -> bool {
        let closed = !matches!(self.journal, Some(Err(_)));
        closed && self.topics.iter().all(TopicReport::is_complete) && self.failures().next().is_none()
    }

    /// Topic, consumer and cause, for each consumer whose handler failed or panicked.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.topics.iter().flat_map(|topic| {
            let of_consumers =
                topic.consumers.iter().enumerate().filter_map(|(index, consumer)| match &consumer.ending {
                    // A consumer is named once, however many partitions it had.
                    Some(_) if topic.consumers[..index].iter().any(|before| before.name == consumer.name) => None,
                    Some(Ending::Failed(cause)) => Some((&*topic.name, &*consumer.name, &**cause)),
                    _ => None,
                });
            of_consumers.chain(topic.failure_of_another())
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, topic) in self.topics.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{topic}")?;
        }
        if let Some(Err(why)) = &self.journal {
            write!(f, "\njournal: {}", text::line(why))?;
        }
        for gap in &self.gaps {
            write!(f, "\n{gap}")?;
        }
        Ok(())
    }
}

impl fmt::Display for TopicReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic {}: published up to ", self.name)?;
        for (index, published) in self.published.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{published}")?;
        }
        for consumer in &self.consumers {
            write!(f, "\n  {}", consumer.name)?;
            if self.published.len() > 1 {
                write!(f, " in partition {}", consumer.partition)?;
            }
            write!(f, ": consumed up to {}, {} left", consumer.consumed, consumer.left)?;
            if consumer.skipped > 0 {
                write!(f, ", {} skipped", consumer.skipped)?;
            }
            match &consumer.ending {
                Some(Ending::Unread) if consumer.running => write!(f, ", polled, holds a batch")?,
                Some(Ending::Unread) => write!(f, ", polled, not read to the end")?,
                _ if consumer.running => write!(f, ", still in its handler")?,
                Some(Ending::Stopped(why)) => write!(f, ", stopped: {}", text::line(why))?,
                Some(Ending::Failed(why)) => write!(f, ", failed: {}", text::line(why))?,
                _ => {}
            }
        }
        if let Some((_, by, cause)) = self.failure_of_another() {
            write!(f, "\n  failed by {}: {}", text::line(by), text::line(cause))?;
        }
        for claim in &self.cut {
            let Range { start, end } = claim.offsets;
            write!(f, "\n  claim cut in partition {}: offsets {start} to {end} hold no event", claim.partition)?;
        }
        for queue in &self.queues {
            write!(f, "\n  {queue}")?;
        }
        Ok(())
    }
}
