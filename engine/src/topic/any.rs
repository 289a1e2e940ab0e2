//! The part of a topic's interface that does not depend on the type of its events, through which the engine uses
//! topics.

use super::attached::{DeadLetters, end_all};
use super::gathering::{LOOK, STALL_LIMIT};
use super::{Shape, TopicCore, TopicReader, TopicSettings};
use crate::base::closed::Closed;
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::log::committer::STAGE;
use crate::topic::description::Description;
use crate::topic::metrics::{PartitionMetrics, TopicMetrics};
use crate::topic::partition::Partition;
use crate::topic::report::{TopicReport, WrittenPosition};
use crate::topic::stage_name::without_generation;
use slipring_ring::Sequence;
use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A topic whose type of events the caller does not know.
pub(crate) trait AnyTopic: Send + Sync {
    fn id(&self) -> TopicId;
    fn name(&self) -> &str;
    fn shape(&self) -> &Shape;
    fn metrics(&self) -> TopicMetrics;
    fn describe(&self) -> Description;
    /// Closes the topic if it has no consumers, queues or transforms. Otherwise the topic stays open, and the error has
    /// their names.
    fn close_unread(&self) -> Result<(), Vec<String>>;
    fn closed(&self) -> Option<Closed>;
    fn producers(&self) -> usize;
    /// True if the calling thread holds a batch of this topic, or a thread that waits for the calling thread to end
    /// does.
    fn is_held_here(&self) -> bool;
    /// Halts the topic: the next call of each of its producers and consumers returns an error, even if events are
    /// unread.
    fn halt(&self);
    /// Publishes what producers have gathered and closes the topic, waits up to `limit` for its consumers to read it to
    /// its end, and halts it if they do not. The journal may use up to `limit`, or until `journal_until` if that is
    /// later, to write the published events. Returns which events were read.
    fn shutdown(&self, limit: Duration, journal_until: Instant) -> TopicReport;
    /// The journal's position in each partition. Empty for a topic without a journal.
    fn written(&self) -> Vec<WrittenPosition>;
    /// The topic's number in the journal; `None` for a topic in memory.
    fn journal_number(&self) -> Option<u32>;
    /// The dead letters that queues of this topic have in the topic `dead`.
    fn dead_letters_in(&self, dead: &str) -> Vec<DeadLetters>;
    /// The reason why a durable topic cannot be deleted from the journal at the moment.
    fn may_forget(&self) -> Result<(), String>;
    /// Deletes a durable topic and its queues from the journal. For a topic in memory, only records the last lease
    /// numbers of its queues, so that later queues give higher ones.
    fn forget(&self) -> Result<(), String>;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// The least time for threads that are about to end, or that read events after a claim that was given up.
const GRACE: Duration = Duration::from_millis(100);

/// How long a shutdown waits for another thread that publishes gathered records when the topic is closed.
const GATHERER_LIMIT: Duration = Duration::from_secs(1);

impl<E: Send + Sync + 'static, K: Producers> TopicCore<E, K> {
    /// True if a thread other than the calling one may still read the unread events of this consumer or queue.
    fn is_read_elsewhere(&self, name: &str) -> bool {
        let queues = self.queues().clone();
        match queues.iter().find(|queue| queue.name() == name) {
            Some(queue) => queue.is_read_elsewhere(),
            None => self.stats(name).is_some_and(|stats| stats.is_read_elsewhere()),
        }
    }

    /// True if a consumer has unread events and another thread may read them: the journal's, or one that does not wait
    /// for the calling thread.
    fn is_reading_elsewhere(&self) -> bool {
        let waits_for_us = |name: &str| self.stats(name).is_some_and(|stats| stats.is_held_here());
        let partitions = self.partitions();
        let stages = partitions.iter().flat_map(|partition| partition.ring.positions().stages);
        let mut unread = stages.filter(|stage| stage.lag > 0).map(|stage| stage.name);
        unread.any(|name| name == STAGE || self.is_read_elsewhere(&name) && !waits_for_us(&name))
    }

    /// Publishes the records that producers have gathered, waits for room until `deadline` at most, and closes the
    /// topic. Gives up the records that are left, and waits up to `limit` for a thread that uses them at this moment.
    pub(super) fn close_gathered(&self, deadline: Instant, limit: Duration) {
        self.gathering.flush(deadline, || self.is_reading_elsewhere());
        self.close();
        self.gathering.give_up(limit);
    }

    /// The names of the consumers, queues and transforms that read the topic, each once. `readers` has those that read all
    /// partitions.
    fn names_of(&self, readers: &[Arc<dyn TopicReader<E, K>>]) -> Vec<String> {
        let partitions = self.partitions();
        let stages = partitions.iter().flat_map(|partition| partition.ring.positions().stages);
        let stages = stages.map(|stage| without_generation(&stage.name).to_owned());
        let stages = stages.filter(|name| self.durable.is_none() || name != STAGE);
        let transforms = self.durable.iter().flat_map(|durable| durable.transforms());
        let queues = self.queues().iter().map(|queue| queue.name().to_owned()).collect::<Vec<_>>();
        // A reader of a topic whose partitions are not made yet has no stage in a ring.
        let of_deferred = readers.iter().filter(|_| partitions.is_empty()).map(|reader| reader.name().to_owned());
        // A reader that catches up reads the journal, and has no stage in a ring either.
        let all = stages.chain(of_deferred).chain(queues).chain(self.journal_readers()).chain(transforms);
        let mut known = HashSet::new();
        all.filter(|name| known.insert(name.clone())).collect()
    }

    /// The names of the consumers, queues and transforms that read the topic now, each once.
    pub(crate) fn reader_names(&self) -> Vec<String> {
        let readers = self.readers().all();
        self.names_of(&readers)
    }
}

impl<E, K: Producers> TopicCore<E, K> {
    /// True if a consumer, queue or transform reads the topic now, that is, if [`reader_names`](Self::reader_names) has a
    /// name. Takes the lock of one ring's stages if the topic's first partition has a reader.
    pub(crate) fn is_read(&self) -> bool {
        // The committer has a stage in each ring of a durable topic.
        let own = usize::from(self.durable.is_some());
        self.partitions().iter().any(|partition| partition.ring.stages() > own)
            || !self.queues().is_empty()
            || !self.journal_readers().is_empty()
            || self.durable.as_ref().is_some_and(|durable| !durable.transforms().is_empty())
    }
}

impl<E: Send + Sync + 'static, K: Producers> TopicCore<E, K> {
    /// Waits until the polled consumers have read the closed topic to its end, the topic is halted or has failed, or
    /// `deadline` has passed. If no other thread may poll these consumers, the wait also ends after [`STALL_LIMIT`]
    /// without progress.
    fn wait_for_polled(&self, partitions: &[Arc<Partition<E, K>>], deadline: Instant) {
        let mut before = Vec::new();
        let mut moved = Instant::now();
        loop {
            let stands = partitions.iter().flat_map(|partition| partition.ring.report().stages);
            // A batch that the calling thread holds cannot end while this thread waits, so its consumer is not waited
            // for.
            let is_held_here = |name: &str| self.stats(name).is_some_and(|stats| stats.is_held_here());
            let unread = stands.filter(|stage| {
                let is_unread = stage.left > 0 && stage.ending == Some(slipring_ring::Ending::Unread);
                stage.name != STAGE && is_unread && !(stage.running && is_held_here(&stage.name))
            });
            let now: Vec<_> = unread.map(|stage| (stage.name, stage.consumed, stage.running)).collect();
            let is_over = self.partitions().iter().any(|partition| partition.ring.closed().is_some_and(is_at_once));
            if now.is_empty() || is_over {
                return;
            }
            if now != before || now.iter().any(|(_, _, holds_a_batch)| *holds_a_batch) {
                moved = Instant::now();
            }
            // Another thread may take any time between two polls, so its consumer is waited for until the deadline.
            let is_awaited = now.iter().any(|(name, ..)| self.is_read_elsewhere(name));
            let until = if is_awaited { deadline } else { deadline.min(moved + STALL_LIMIT) };
            if until <= Instant::now() {
                return;
            }
            before = now;
            std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
    }
}

fn is_at_once(closed: slipring_ring::Closed) -> bool {
    matches!(closed, slipring_ring::Closed::Halted | slipring_ring::Closed::Failed { .. })
}

impl<E: Send + Sync + 'static, K: Producers> AnyTopic for TopicCore<E, K> {
    fn id(&self) -> TopicId {
        self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn metrics(&self) -> TopicMetrics {
        let stats = |name: &str| self.stats(name);
        let wall = self.host.clock.wall();
        // Read before the list of partitions: if another thread makes the deferred partitions in between, the list has
        // them and they are skipped there. In the other order, neither list might have them.
        let deferred = self.deferred_metrics();
        let partitions = self.partitions();
        let partitions = partitions.iter().skip(deferred.len()).map(|partition| {
            let times = partition.times.as_ref();
            let lag_time =
                |next: Option<u64>| times.map(|times| next.map_or(Duration::ZERO, |at| wall.since(times.get(at))));
            PartitionMetrics::new(partition.index, partition.ring.positions(), lag_time)
        });
        let partitions: Vec<_> = deferred.into_iter().chain(partitions).collect();
        let age = self.host.clock.now().saturating_sub(self.since);
        let queues = self.queues().clone();
        let queues = queues.iter().map(|queue| queue.metrics()).collect();
        let replication = self.durable.as_ref().and_then(|durable| durable.replication(&partitions));
        let metrics = TopicMetrics::new(self.name.clone(), age, partitions, &self.counts, stats, queues);
        TopicMetrics { replication, ..metrics }
    }

    fn describe(&self) -> Description {
        let TopicSettings { capacity, retain, timestamps, memory_limit, .. } = self.settings;
        let metrics = AnyTopic::metrics(self);
        Description {
            name: self.name.clone(),
            id: self.id,
            shape: self.shape.clone(),
            partitions: metrics.partitions,
            capacity,
            retain,
            timestamps,
            slot_bytes: self.slot_bytes(),
            memory: self.memory(),
            memory_limit,
            spin_hint: slipring_ring::spin_hint_cost(),
            producers: self.lent.load(Ordering::Acquire),
            consumers: metrics.consumers.into_iter().map(|consumer| consumer.name).collect(),
            replication: metrics.replication,
            ring_links: self.ring_links.describe(),
            closed: TopicCore::closed(self),
        }
    }

    fn close_unread(&self) -> Result<(), Vec<String>> {
        // The lock is held until the topic is marked as ended, so no reader can join after this check.
        let readers = self.readers();
        let names = self.names_of(&readers.all());
        if names.is_empty() {
            readers.end();
            self.close_all();
            return Ok(());
        }
        Err(names)
    }

    fn closed(&self) -> Option<Closed> {
        TopicCore::closed(self)
    }

    fn producers(&self) -> usize {
        self.lent.load(Ordering::Acquire)
    }

    fn is_held_here(&self) -> bool {
        let stages = self.partitions().iter().flat_map(|partition| partition.ring.report().stages).collect::<Vec<_>>();
        stages.iter().any(|stage| stage.running && self.stats(&stage.name).is_some_and(|stats| stats.is_held_here()))
    }

    fn halt(&self) {
        self.readers().end();
        let partitions = self.partitions();
        // A consumer that sees one ring halted leaves all of them, the ones to be halted next too.
        partitions.iter().for_each(|partition| partition.ring.announce_halt());
        for partition in partitions.iter() {
            partition.ring.halt();
        }
    }

    fn written(&self) -> Vec<WrittenPosition> {
        let Some(durable) = &self.durable else { return Vec::new() };
        let partitions = self.partitions();
        let stands = partitions.iter().filter_map(|partition| {
            let written = durable.acks.progress(partition.index)?.end(slipring_journal::Visible::Written);
            let unwritten = partition.ring.unread(Sequence(written));
            Some(WrittenPosition { partition: partition.index, next: written, unwritten })
        });
        stands.collect()
    }

    fn shutdown(&self, limit: Duration, journal_until: Instant) -> TopicReport {
        let deadline = slipring_ring::internal::deadline(limit);
        self.close_gathered(deadline, GATHERER_LIMIT);
        let deferred = self.deferred_partitions();
        let partitions = self.partitions();
        let readers = self.readers().all();
        let drained = |deadline| self.threads.wait(deadline) && readers.iter().all(|reader| reader.drain(deadline));
        let grace = || Instant::now() + GRACE;
        // Producers have until the deadline to publish their outstanding claims. Claims that are still outstanding then
        // are given up: their publish is refused.
        let is_settled = partitions.iter().all(|partition| partition.ring.settle(deadline));
        let promised = partitions.iter().filter(|partition| partition.cut_unpromised()).count() > 0;
        // A promised claim is one whose events were given to the journal already. The shutdown waits for it until
        // `journal_until`, as for the journal.
        let is_kept =
            !promised || partitions.iter().all(|partition| partition.ring.settle(deadline.max(journal_until)));
        // If a promised claim is still outstanding then, the topic is halted and readers stop before the claim, because
        // the next opening may find its events in the journal.
        if !is_kept || !drained(if is_settled { deadline } else { deadline.max(grace()) }) {
            if let Some(durable) = &self.durable {
                // The committer gets no more events from a halted ring, so the published events are written before the
                // halt.
                durable.drained(&partitions, deadline.max(journal_until));
            }
            self.halt();
            let queues = self.queues().clone();
            queues.iter().for_each(|queue| queue.stop_runs());
            drained(grace());
        }
        self.wait_for_polled(&partitions, deadline);
        if let Some(durable) = &self.durable {
            durable.drained(&partitions, deadline.max(journal_until));
        }
        let queues = self.queues().clone();
        let queues = queues.iter().map(|queue| queue.report()).collect();
        let mut report = TopicReport::new(&self.name, &partitions, &self.runs(), queues);
        report.unpublished = self.gathering.unpublished();
        if partitions.is_empty() {
            report.note_deferred(deferred);
        }
        if let Some(durable) = &self.durable {
            for reader in self.readers().all() {
                let positions = reader.positions_in_journal().into_iter().filter_map(|(number, next)| {
                    let published = partitions.get(number as usize)?.ring.published().0;
                    Some((number, next, durable.unread(number, next, published)))
                });
                report.note_in_journal(reader.name(), positions);
            }
        }
        report
    }

    fn journal_number(&self) -> Option<u32> {
        self.durable.as_ref().map(|durable| durable.id(0).topic)
    }

    fn dead_letters_in(&self, dead: &str) -> Vec<DeadLetters> {
        let queues = self.queues().clone();
        let letters = queues.iter().map(|queue| (queue.name().to_owned(), queue.dead_letters()));
        let there = letters.filter(|(_, (topic, _))| topic == dead);
        there.map(|(queue, (_, next))| DeadLetters { topic: self.name.clone(), queue, next }).collect()
    }

    fn may_forget(&self) -> Result<(), String> {
        self.durable.as_ref().map_or(Ok(()), |durable| durable.committer.may_commit())
    }

    fn forget(&self) -> Result<(), String> {
        let Some(durable) = &self.durable else {
            self.queues().iter().for_each(|queue| queue.note_numbers());
            return Ok(());
        };
        let queues = self.queues().clone();
        end_all(&queues);
        durable.forget()
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
