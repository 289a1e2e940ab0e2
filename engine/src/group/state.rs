//! The state that a group's lock guards: its topics, its committed offsets, and the consumers of partitions that no
//! member has.

use super::Group;
use super::assigned_partition::{AssignedPartition, Feed};
use super::assignment::{MemberId, PartitionKey};
use super::coordinator::Coordinator;
use super::error::GroupError;
use super::signal::MemberSignal;
use super::topics::MemberTopics;
use crate::base::ids::TopicId;
use crate::base::ids::TopicPartition;
use crate::base::kind::Producers;
use crate::base::overload::{ConsumerStats, Slow};
use crate::base::timer::TimerId;
use crate::log::offsets::commit_right::CommitRight;
use crate::log::offsets::commit_word::Metadata;
use crate::log::offsets::group::{self as offsets, CommittedOffset};
use crate::read::StartAt;
use crate::topic::error::SubscribeError;
use crate::topic::partition::Partition;
use crate::topic::stage_name::stage_name;
use crate::topic::{Preparation, TopicCore, TopicReader};
use slipring_ring::{Closed, Consumer, Stage};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

pub(super) struct SharedState<E, K: Producers> {
    pub(super) coordinator: Coordinator,
    /// The topics by the numbers that the group has given them. No number is given twice.
    pub(super) topics: BTreeMap<u32, GroupTopic<E, K>>,
    pub(super) next_topic: u32,
    /// How many events managed members have skipped in topics that were deleted.
    pub(super) skipped_before: u64,
    pub(super) entries: BTreeMap<PartitionKey, PartitionEntry<E, K>>,
    pub(super) signals: BTreeMap<MemberId, Arc<MemberSignal>>,
    /// The topics of each member, by which the member joins again. Weak, because they refer to topics, which own the
    /// engine, which owns the group.
    pub(super) subscriptions: BTreeMap<MemberId, Weak<MemberTopics<E, K>>>,
    /// The members with a pattern.
    pub(super) patterns: BTreeSet<MemberId>,
    /// True once the engine creates no more topics.
    pub(super) patterns_ended: bool,
    /// Errors that the next updates of these members return.
    pub(super) refusals: BTreeMap<MemberId, VecDeque<GroupError>>,
    pub(super) hold: bool,
    pub(super) due: Option<(Duration, TimerId)>,
    /// When [`expire_if_unused`](crate::group::AnyGroup::expire_if_unused) first found that the group had no members,
    /// by the engine's clock. `None` before that, while the group has members, and while it holds producers.
    pub(super) unused_since: Option<Duration>,
}

/// A topic that the group reads or has read.
pub(super) struct GroupTopic<E, K: Producers> {
    pub(super) id: TopicId,
    pub(super) name: Arc<str>,
    /// The counters of this group in the topic.
    pub(super) stats: Arc<ConsumerStats>,
    /// Weak, because a topic owns the engine, which owns the group. The members keep the topic alive.
    pub(super) topic: Weak<TopicCore<E, K>>,
    /// The reader that joins partitions which are added to the topic. `None` while the group does not read the topic.
    pub(super) reader: Option<Arc<NewPartitions<E, K>>>,
}

/// A partition of a topic that the group reads or has read.
pub(super) struct PartitionEntry<E, K: Producers> {
    pub(super) name: TopicPartition,
    pub(super) partition: Arc<Partition<E, K>>,
    /// The committed offset, as of the last time that no member had the partition. `None` if the group has never read
    /// it.
    pub(super) committed: Option<u64>,
    /// The metadata that `committed` was committed with; `None` if it has none.
    pub(super) metadata: Option<Metadata>,
    /// The start that a reset has set in place of the committed offset; `None` without a reset.
    pub(super) reset: Option<StartAt>,
    /// The group's consumer in the ring while no member has the partition. `None` if a member has it, or if the group
    /// has no consumer in the ring.
    pub(super) consumer: Option<Consumer<E, K>>,
    /// True if the partition's next member must read from the journal, because the ring no longer has the next events.
    pub(super) catching_up: bool,
    /// The journal's side of the committed offset, which the committer writes; `None` if the topic is in memory.
    pub(super) committed_offset: Option<Arc<CommittedOffset>>,
    /// The commit right of the partition's member; `None` if no member has the partition.
    pub(super) right: Option<Arc<CommitRight>>,
    /// True if the partition is closed, and was read and committed to its end.
    pub(super) ended: bool,
}

impl<E, K: Producers> PartitionEntry<E, K> {
    pub(super) fn committed(&self) -> Option<u64> {
        self.right.as_ref().map(|right| right.committed()).or(self.committed)
    }

    /// The committed offset with the metadata that it was committed with, of one moment.
    pub(super) fn committed_with_metadata(&self) -> (Option<u64>, Option<Metadata>) {
        match &self.right {
            Some(right) => {
                let (committed, metadata) = right.committed_with_metadata();
                (Some(committed), metadata)
            }
            None => (self.committed, self.metadata.clone()),
        }
    }

    /// Ends the right of the partition's member: it can commit no more. Keeps what it has committed, and returns the offset.
    pub(super) fn fence(&mut self, right: &CommitRight) -> u64 {
        let committed = right.fence();
        (self.committed, self.metadata) = (Some(committed), right.committed_with_metadata().1);
        committed
    }

    /// True if the group reads the partition now: it has a consumer in the ring, reads from the journal, or a member
    /// has it.
    pub(super) fn is_open(&self) -> bool {
        self.consumer.is_some() || self.catching_up || self.right.is_some()
    }

    pub(super) fn is_catching_up(&self) -> bool {
        self.right.as_ref().map_or(self.catching_up, |right| right.is_catching_up())
    }
}

impl<E, K: Producers> SharedState<E, K> {
    /// The group's number for a topic; `None` if the group has never read the topic.
    pub(super) fn number_of_id(&self, id: TopicId) -> Option<u32> {
        self.topics.iter().find_map(|(number, source)| (source.id == id).then_some(*number))
    }

    /// The group's number for a topic; a new one if the topic has none yet. Adds the present partitions of the topic
    /// that the group does not have yet.
    pub(super) fn number_of(&mut self, group: &str, topic: &Arc<TopicCore<E, K>>) -> u32 {
        let known = self.number_of_id(topic.id);
        let number = known.unwrap_or(self.next_topic);
        if known.is_none() {
            self.next_topic += 1;
            let name = stage_name(group, 0);
            let stats = match &topic.durable {
                Some(_) => ConsumerStats::in_journal(&name, Slow::Gate),
                None => ConsumerStats::new(&name, Slow::Gate),
            };
            let stats = Arc::new(stats);
            stats.set_attended(false);
            topic.register(&stats);
            let (id, name) = (topic.id, topic.name.as_str().into());
            self.topics.insert(number, GroupTopic { id, name, stats, topic: Arc::downgrade(topic), reader: None });
        }
        let partitions = topic.partitions();
        // The number of partitions is set in one step, before the loop adds them: each change of it begins a new epoch
        // and assigns all partitions again.
        self.coordinator.set_topic(number, partitions.len() as u32);
        for partition in partitions.iter() {
            self.entry(group, number, topic, partition);
        }
        number
    }

    pub(super) fn entry(
        &mut self,
        group: &str,
        number: u32,
        topic: &TopicCore<E, K>,
        partition: &Arc<Partition<E, K>>,
    ) -> &mut PartitionEntry<E, K> {
        let id = PartitionKey { topic: number, partition: partition.index };
        self.coordinator.set_topic(number, partition.index + 1);
        let Self { coordinator, topics, entries, .. } = self;
        entries.entry(id).or_insert_with(|| {
            let (mut committed, mut metadata, mut committed_offset) = (None, None, None);
            if let Some(durable) = &topic.durable {
                let (committer, of) = (&durable.committer, durable.id(partition.index));
                // The lock is held until `add` returns. So a concurrent `Committer::forget_offsets` sees that the
                // recorded offset is in use, or has deleted it before this reads it.
                let known = committer.recovered_state();
                if let Some(recorded) = offsets::recorded(&known, group, of) {
                    (committed, metadata) = (Some(recorded.next), recorded.metadata);
                    coordinator.go_on_from(recorded.epoch);
                }
                committed_offset = Some(committer.committed_offsets.add(group, of));
                drop(known);
            }
            PartitionEntry {
                name: TopicPartition::new(Arc::clone(&topics[&number].name), partition.index),
                partition: Arc::clone(partition),
                committed,
                metadata,
                reset: None,
                consumer: None,
                catching_up: false,
                committed_offset,
                right: None,
                ended: false,
            }
        })
    }

    /// Takes partitions back from a member. Returns those that the member no longer had, because it was fenced; the
    /// caller drops them after it has released the lock.
    pub(super) fn park(&mut self, partitions: Vec<AssignedPartition<E, K>>) -> Vec<AssignedPartition<E, K>> {
        let mut late = Vec::new();
        for assigned in partitions {
            match self.entries.get_mut(&assigned.id) {
                Some(entry) if entry.right.as_ref().is_some_and(|right| Arc::ptr_eq(right, &assigned.right)) => {
                    // The consumer may have skipped slots without an event. They are committed first, so that the next
                    // member starts after them.
                    assigned.commit_skipped();
                    entry.fence(&assigned.right);
                    entry.right = None;
                    match assigned.feed {
                        Feed::Ring(consumer) => entry.consumer = Some(consumer),
                        Feed::Journal(_) => entry.catching_up = true,
                    }
                }
                _ => late.push(assigned),
            }
        }
        late
    }

    /// Drops the group's consumers in topics that no member reads, so that producers do not wait for them. Does nothing
    /// if the group [holds](crate::group::GroupBuilder::hold) producers. The consumer of a partition that was read to
    /// its end stays, because the partition is closed and no producer can wait for it.
    pub(super) fn close_gates(&mut self) {
        if self.hold {
            return;
        }
        for (&number, source) in &mut self.topics {
            if self.coordinator.reads(number) {
                continue;
            }
            let at_once = |entry: &PartitionEntry<E, K>| {
                matches!(entry.partition.ring.closed(), Some(Closed::Halted | Closed::Failed { .. }))
            };
            // The report of a topic that was halted or has failed still asks the reader what the group has left.
            if !self.entries.iter().any(|(id, entry)| id.topic == number && at_once(entry)) {
                source.reader = None;
            }
            for (_, entry) in self.entries.iter_mut().filter(|(id, _)| id.topic == number) {
                if !entry.ended {
                    (entry.consumer, entry.catching_up) = (None, false);
                }
            }
        }
    }

    /// True if all partitions of the member's topics were read and committed to their end, so that the member gets no
    /// more events. Also true if the group has no such member. False while topics may be added to the member by its
    /// pattern.
    pub(super) fn is_over(&self, member: MemberId) -> bool {
        if self.awaits_topics(member) {
            return false;
        }
        let topics = self.coordinator.topics_of(member);
        let mut entries = self.entries.iter().filter(|(id, _)| topics.is_some_and(|topics| topics.contains(&id.topic)));
        entries.all(|(_, entry)| entry.ended)
    }
}

/// The reader through which a group joins the partitions that are added to a topic.
pub(super) struct NewPartitions<E, K: Producers> {
    pub(super) group: Weak<Group<E, K>>,
    pub(super) stage: String,
    pub(super) topic: u32,
    /// The topic's name, for errors.
    pub(super) topic_name: String,
}

impl<E: Send + Sync + 'static, K: Producers> TopicReader<E, K> for NewPartitions<E, K> {
    fn name(&self) -> &str {
        &self.stage
    }

    fn join(&self, partition: &Arc<Partition<E, K>>) -> Result<Consumer<E, K>, SubscribeError> {
        partition.join(&self.topic_name, Stage::new(self.stage.clone()))
    }

    fn take(
        self: Arc<Self>,
        partition: &Arc<Partition<E, K>>,
        consumer: Consumer<E, K>,
        _: Preparation,
    ) -> Box<dyn FnOnce()> {
        let nothing: Box<dyn FnOnce()> = Box::new(|| ());
        let Some(group) = self.group.upgrade() else { return nothing };
        let mut state = group.state();
        let Some(topic) = state.topics.get(&self.topic).and_then(|source| source.topic.upgrade()) else {
            return nothing;
        };
        let epoch = state.coordinator.epoch();
        let entry = state.entry(&group.name, self.topic, &topic, partition);
        let first = consumer.first().0;
        (entry.committed, entry.metadata) = (Some(first), None);
        entry.consumer = Some(consumer);
        if let Some(committed_offset) = &entry.committed_offset {
            committed_offset.set(first, None, epoch);
        }
        // If the last member has left while the partition was added, the group must not keep its consumer.
        state.close_gates();
        group.settle(&mut state);
        nothing
    }

    fn positions_in_journal(&self) -> Vec<(u32, u64)> {
        let Some(group) = self.group.upgrade() else { return Vec::new() };
        let state = group.state();
        if state.topics.get(&self.topic).is_none_or(|source| source.reader.is_none()) {
            return Vec::new();
        }
        let of_topic = state.entries.iter().filter(|(id, _)| id.topic == self.topic);
        // A partition that is open and not caught up with has a stage in the ring.
        let in_journal = of_topic.filter(|(_, entry)| {
            entry.committed_offset.is_some() && !entry.ended && (entry.is_catching_up() || !entry.is_open())
        });
        in_journal.filter_map(|(id, entry)| Some((id.partition, entry.committed()?))).collect()
    }

    fn drain(&self, deadline: Instant) -> bool {
        self.group.upgrade().is_none_or(|group| group.drain(self.topic, deadline))
    }
}
