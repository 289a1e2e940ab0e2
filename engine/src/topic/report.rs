//! Reports of a shutdown: which events each consumer has read, and which were left unread.

use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::log::committer::STAGE;
use crate::log::gap::ReportedGap;
use crate::log::offsets::transform::{TransformDescription, TransformPartition, TransformState, reader_name};
use crate::text;
use crate::topic::consumers::ConsumerRun;
use crate::topic::partition::{DeferredPartition, Partition};
use crate::topic::stage_name::without_generation;
use slipring_ring::fence::Refused;
use slipring_ring::{Ending, Sequence, Sequences};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The report of an engine's shutdown: which events were read, which were left unread, and if the journal has all of
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The reports of the topics, in the order of closing.
    pub topics: Vec<TopicReport>,
    /// `Ok` if the journal has all published events and was closed; otherwise the reason why not. `None` if the engine
    /// has no journal.
    pub journal: Option<Result<(), String>>,
    /// The gaps (offsets lost to damage) that were reported to a group, queue or transform and are not acknowledged
    /// yet.
    pub gaps: Vec<ReportedGap>,
}

/// The report of one topic's shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicReport {
    /// The topic's name.
    pub name: String,
    /// For each partition, by number, the next offset that would have been published.
    pub published: Vec<u64>,
    /// Why the topic has ended: it was closed or halted, or it has failed; see [`Closed`]. `None` while it is open.
    pub closed: Option<Closed>,
    /// Claims that producers had neither published nor dropped within the shutdown's limit. Their publish is refused,
    /// and their events are never read.
    pub cut: Vec<CutClaim>,
    /// Claims of transactions that the journal was given and that were not durable in time. No reader of this engine
    /// gets their events, and no group passes over them. If the journal has them when it is opened again, they are
    /// read then. The commit tells which.
    pub unsettled: Vec<CutClaim>,
    /// How many records [gathering producers](crate::producer::LingeringProducer) had taken and did not publish, because
    /// they found no room before the topic had ended or the producer's last handle was dropped. The producer's
    /// [callback](crate::producer::LingerBuilder::on_completion) has got the error for each.
    pub unpublished: u64,
    /// The operating system's refusal of the memory barrier `membarrier(2)`, by which the topic's end and its
    /// producers' publishes see each other; for example a sandbox forbids the call since the topic was created. Then an
    /// event whose publish overlapped the end may be unread and not counted, although its publish returned `Ok`. `None`
    /// if the barrier was not refused.
    pub unfenced: Option<Refused>,
    /// For each consumer, how far it has read each partition.
    pub consumers: Vec<ConsumerReport>,
    /// The messages that were left in each queue of the topic.
    pub queues: Vec<QueueReport>,
}

/// The parts of `run` that lie in none of `others`, which lie apart from each other.
fn without(run: Range<u64>, others: &[Range<u64>]) -> impl Iterator<Item = Range<u64>> {
    let mut others: Vec<_> = others.iter().filter(|it| it.start < run.end && run.start < it.end).cloned().collect();
    others.sort_by_key(|other| other.start);
    let starts = std::iter::once(run.start).chain(others.clone().into_iter().map(|other| other.end));
    let ends = others.into_iter().map(|other| other.start).chain([run.end]);
    starts.zip(ends).map(|(start, end)| start..end).filter(|part| !part.is_empty())
}

/// A claim that a shutdown has given up, because the producer had neither published nor dropped it within the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CutClaim {
    /// The partition's number, from 0.
    pub partition: u32,
    /// The claimed offsets (end exclusive). They have no event, unless the claim is
    /// [unsettled](TopicReport::unsettled).
    pub offsets: Range<u64>,
}

/// The journal's position in one partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenPosition {
    pub(crate) partition: u32,
    /// The next offset to be written.
    pub(crate) next: u64,
    /// How many published events at or after that offset the journal does not have.
    pub(crate) unwritten: u64,
}

/// How far one consumer has read one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerReport {
    /// The consumer's name.
    pub name: String,
    /// The partition's number, from 0.
    pub partition: u32,
    /// The next offset that the consumer would have read.
    pub consumed: u64,
    /// How many published events the consumer has not read in this partition.
    pub left: u64,
    /// How many events of all partitions the consumer's [error policy](crate::subscriber::OnError) skipped after its
    /// handler failed.
    pub skipped: u64,
    /// How the consumer has ended. `None` if its handler has not returned, or if it is a polled consumer that has read
    /// all events. [`Ending::Unread`] if it is a polled consumer with unread events, which it may still read.
    pub ending: Option<Ending>,
    /// True if the consumer's thread still runs, or if the consumer is polled and holds a batch.
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
        let (mut cut, mut unsettled) = (Vec::new(), Vec::new());
        let mut unfenced = None;
        let mut consumers = Vec::new();
        for partition in partitions {
            let at = partition.ring.positions();
            let ring_report = partition.ring.report();
            unfenced = unfenced.or(ring_report.unfenced);
            let offsets = |claim: &Sequences| claim.first.0..claim.first.0 + claim.len as u64;
            let here = |offsets| CutClaim { partition: partition.index, offsets };
            let given: Vec<Range<u64>> = partition.unsettled().iter().map(offsets).collect();
            for run in ring_report.cut.iter().map(offsets) {
                cut.extend(without(run, &given).map(here));
            }
            unsettled.extend(given.into_iter().map(here));
            let stage_report = |name: &str| ring_report.stages.iter().find(|stage| stage.name == name);
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
                // A polled consumer that has read everything gets no ending. The events of a batch that it holds count as
                // unread.
                ending:
                    stage_report(&stage.name).filter(|report| report.left > 0).and_then(|report| report.ending.clone()),
                running: stage_report(&stage.name).is_some_and(|report| report.left > 0 && report.running),
            }));
            // Polled consumers that were dropped with unread events after the topic was halted or had failed.
            let is_known = |name: &String| {
                at.stages.iter().any(|stage| stage.name == *name) || runs.iter().any(|run| run.stats.name == *name)
            };
            let stopped = ring_report.stages.iter().filter(|stage| matches!(stage.ending, Some(Ending::Stopped(_))));
            consumers.extend(stopped.filter(|stage| !is_known(&stage.name)).map(|stage| ConsumerReport {
                name: stage.name.clone(),
                partition: partition.index,
                consumed: stage.consumed.0,
                left: stage.left,
                skipped: 0,
                ending: stage.ending.clone(),
                running: false,
            }));
            published.push(at.published.0);
        }
        let closed = partitions.iter().find_map(|partition| partition.ring.closed()).map(Closed::from);
        Self { name: name.to_owned(), published, closed, cut, unsettled, unpublished: 0, unfenced, consumers, queues }
    }

    /// True if every consumer has read all events of the topic, the topic has not failed,
    /// [`unfenced`](Self::unfenced) is `None`, [`unsettled`](Self::unsettled) is empty, [`unpublished`](Self::unpublished)
    /// is 0, and no queue loses a message when the process ends.
    pub fn is_complete(&self) -> bool {
        let is_certain = self.unfenced.is_none() && self.unsettled.is_empty() && self.unpublished == 0;
        if matches!(self.closed, Some(Closed::Failed { .. })) || !is_certain {
            return false;
        }
        let read = self.consumers.iter().all(|consumer| consumer.left == 0 && !consumer.running);
        read && self.queues.iter().all(QueueReport::is_complete)
    }

    /// Adds the partitions of a topic that has none yet: see [`deferred`](crate::topic::deferred). They never had an
    /// event.
    pub(super) fn note_deferred(&mut self, partitions: Vec<DeferredPartition>) {
        self.closed = Some(Closed::Closed);
        for DeferredPartition { partition, first, consumers } in partitions {
            self.published.push(first);
            self.consumers.extend(consumers.into_iter().map(|name| ConsumerReport {
                name,
                partition,
                consumed: first,
                left: 0,
                skipped: 0,
                ending: None,
                running: false,
            }));
        }
    }

    /// Adds a group that reads these partitions from the journal: for each its number, the next offset, and the count of
    /// unread events. Leaves out partitions that were read to their end, and those that the report already has for the
    /// group.
    pub(crate) fn note_in_journal(&mut self, name: &str, positions: impl Iterator<Item = (u32, u64, u64)>) {
        for (partition, consumed, left) in positions.filter(|(_, _, left)| *left > 0) {
            let is_it =
                |known: &ConsumerReport| known.partition == partition && without_generation(&known.name) == name;
            if self.consumers.iter().any(is_it) {
                continue;
            }
            let ending = match &self.closed {
                Some(reason @ (Closed::Halted | Closed::Failed { .. })) => Ending::Stopped(reason.to_string()),
                _ => Ending::Unread,
            };
            self.consumers.push(ConsumerReport {
                name: name.to_owned(),
                partition,
                consumed,
                left,
                skipped: 0,
                ending: Some(ending),
                running: false,
            });
        }
    }

    /// Sets the journal's position in its entries among the consumers, and adds an entry for each partition of which
    /// the journal has not all events, if there is none. Returns how many published events the journal does not have.
    pub(crate) fn note_written(&mut self, partitions: &[WrittenPosition]) -> u64 {
        let mut unwritten = 0;
        for &WrittenPosition { partition, next: consumed, unwritten: left } in partitions {
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

    /// Adds the transforms that read this topic, except those that were stopped or dropped. They have no stage in the
    /// rings, because transforms read the journal.
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

    /// The topic, name and cause of the failure that ended the topic, if the name is not that of a failed consumer in
    /// this report: for example the journal, or a gathering producer. `None` otherwise.
    fn failure_of_another(&self) -> Option<(&str, &str, &str)> {
        let Some(Closed::Failed { consumer, cause }) = &self.closed else { return None };
        let has_failed =
            |known: &ConsumerReport| known.name == *consumer && matches!(known.ending, Some(Ending::Failed(_)));
        (!self.consumers.iter().any(has_failed)).then_some((&self.name, consumer, cause))
    }

    /// The reports of the consumer `name`, one for each partition.
    pub fn consumer<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r ConsumerReport> {
        self.consumers.iter().filter(move |consumer| consumer.name == name)
    }
}

/// The messages that were left in a queue when its topic was shut down or the queue deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueReport {
    /// The queue's name.
    pub name: String,
    /// How many published messages the queue had not read. An offset without a message, for example of a claim that was
    /// dropped, may be counted too.
    pub unread: u64,
    /// How many messages were leased to a worker.
    pub leased: u64,
    /// How many messages waited to be leased: they were sent with a delay, or were to be leased again.
    pub waiting: u64,
    /// How many messages had had their last attempt and were not in the topic for dead letters: they waited for room
    /// there, are larger than it accepts, or cannot be read back from the journal.
    pub dying: u64,
    /// True if the journal has all these messages, so that the queue has them again when it is opened next.
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
    /// True if no leased, waiting or dying message is lost when the process ends.
    pub fn is_complete(&self) -> bool {
        self.durable || self.leased + self.waiting + self.dying == 0
    }
}

impl Report {
    /// True if every consumer has read all published events, no consumer has failed, all gathered records were
    /// published, and the journal, if any, was closed with all of them. Polled subscribers that were dropped before the
    /// shutdown, or before it halted the topic, are not in the report. Events that
    /// [`OnError`](crate::subscriber::OnError) skipped count as read; [`ConsumerReport::skipped`] counts them.
    pub fn is_complete(&self) -> bool {
        let closed = !matches!(self.journal, Some(Err(_)));
        closed && self.topics.iter().all(TopicReport::is_complete) && self.failures().next().is_none()
    }

    /// The topic, the name and the cause of each failure: of consumers whose handler returned an error or panicked, of
    /// the journal, and of gathering producers.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.topics.iter().flat_map(|topic| {
            let of_consumers =
                topic.consumers.iter().enumerate().filter_map(|(index, consumer)| match &consumer.ending {
                    // A consumer that failed in several partitions is listed once.
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
        for claim in &self.unsettled {
            let (Range { start, end }, partition) = (&claim.offsets, claim.partition);
            write!(
                f,
                "\n  offsets {start} to {end} of partition {partition} are of a transaction that was not durable in time: they are read when the journal is opened again, if it has them"
            )?;
        }
        if self.unpublished > 0 {
            write!(f, "\n  {} records that producers had gathered are not published", self.unpublished)?;
        }
        if let Some(refused) = &self.unfenced {
            write!(f, "\n  an event that was published while the topic ended may be missing: {refused}")?;
        }
        for queue in &self.queues {
            write!(f, "\n  {queue}")?;
        }
        Ok(())
    }
}
