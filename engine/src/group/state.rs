//! What a group knows: its topics, where it stands in each partition, and who has the consumers.

use super::Group;
use super::assignment::{MemberId, PartitionId};
use super::coordinator::Coordinator;
use super::hand::{Feed, Hand};
use super::link::Link;
use crate::base::ids::TopicId;
use crate::base::ids::TopicPartition;
use crate::base::kind::Producers;
use crate::base::overload::{ConsumerStats, Slow};
use crate::base::timer::TimerId;
use crate::log::offsets::commit_right::CommitRight;
use crate::log::offsets::group::{self as offsets, CommittedOffset};
use crate::read::StartAt;
use crate::topic::error::SubscribeError;
use crate::topic::partition::Partition;
use crate::topic::stage_name::stage_name;
use crate::topic::{Preparation, TopicCore, TopicReader};
use slipring_ring::{Consumer, Stage};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

pub(super) struct State<E, K: Producers> {
    pub(super) coordinator: Coordinator,
    /// By the number that the coordinator knows them by, which is never given twice.
    pub(super) topics: BTreeMap<u32, Source<E, K>>,
    pub(super) next_topic: u32,
    /// Events passed over in topics that are no more.
    pub(super) skipped_before: u64,
    pub(super) places: BTreeMap<PartitionId, Place<E, K>>,
    pub(super) links: BTreeMap<MemberId, Arc<Link>>,
    pub(super) hold: bool,
    pub(super) due: Option<(Duration, TimerId)>,
}

/// A topic that the group reads, or has read.
pub(super) struct Source<E, K: Producers> {
    pub(super) id: TopicId,
    pub(super) name: Arc<str>,
    /// What is counted of this group in the topic.
    pub(super) stats: Arc<ConsumerStats>,
    /// Its members have it: the group must not keep the engine, which has the group.
    pub(super) topic: Weak<TopicCore<E, K>>,
    /// There while the group gates this topic: partitions that are added are joined through it.
    pub(super) reader: Option<Arc<Newcomers<E, K>>>,
}

/// A partition in the group's view.
pub(super) struct Place<E, K: Producers> {
    pub(super) name: TopicPartition,
    pub(super) partition: Arc<Partition<E, K>>,
    /// Where the group stands while no member has the partition; none if it never read it.
    pub(super) committed: Option<u64>,
    /// Where it is to begin instead.
    pub(super) reset: Option<StartAt>,
    /// The consumer, while no member has the partition.
    pub(super) consumer: Option<Consumer<E, K>>,
    /// Instead of a consumer: the group reads on from the journal.
    pub(super) behind: bool,
    /// Of a durable topic: where the journal has it.
    pub(super) committed_offset: Option<Arc<CommittedOffset>>,
    /// The right of the member that has it.
    pub(super) right: Option<Arc<CommitRight>>,
    /// It was closed, and read and committed to its end.
    pub(super) ended: bool,
}

impl<E, K: Producers> Place<E, K> {
    pub(super) fn committed(&self) -> Option<u64> {
        self.right.as_ref().map(|right| right.committed()).or(self.committed)
    }

    /// Whether the group reads it at present.
    pub(super) fn is_open(&self) -> bool {
        self.consumer.is_some() || self.behind || self.right.is_some()
    }

    pub(super) fn is_behind(&self) -> bool {
        self.right.as_ref().map_or(self.behind, |right| right.is_behind())
    }
}

impl<E, K: Producers> State<E, K> {
    /// The number of a topic that the group knows.
    pub(super) fn number_of_id(&self, id: TopicId) -> Option<u32> {
        self.topics.iter().find_map(|(number, source)| (source.id == id).then_some(*number))
    }

    /// The number of a topic, whose present partitions are the group's then.
    pub(super) fn number_of(&mut self, group: &str, topic: &Arc<TopicCore<E, K>>) -> u32 {
        let known = self.number_of_id(topic.id);
        let number = known.unwrap_or(self.next_topic);
        if known.is_none() {
            self.next_topic += 1;
            let stats = Arc::new(ConsumerStats::new(&stage_name(group, 0), Slow::Gate));
            topic.register(&stats);
            let (id, name) = (topic.id, topic.name.as_str().into());
            self.topics.insert(number, Source { id, name, stats, topic: Arc::downgrade(topic), reader: None });
        }
        for partition in topic.partitions().iter() {
            self.place(group, number, topic, partition);
        }
        number
    }

    pub(super) fn place(
        &mut self,
        group: &str,
        number: u32,
        topic: &TopicCore<E, K>,
        partition: &Arc<Partition<E, K>>,
    ) -> &mut Place<E, K> {
        let id = PartitionId { topic: number, partition: partition.index };
        self.coordinator.set_topic(number, partition.index + 1);
        let Self { coordinator, topics, places, .. } = self;
        places.entry(id).or_insert_with(|| {
            let (mut committed, mut committed_offset) = (None, None);
            if let Some(durable) = &topic.durable {
                let (committer, of) = (&durable.committer, durable.id(partition.index));
                if let Some((offset, epoch)) = offsets::recorded(&committer.recovered_state(), group, of) {
                    committed = Some(offset);
                    coordinator.go_on_from(epoch);
                }
                committed_offset = Some(committer.committed_offsets.add(group, of));
            }
            Place {
                name: TopicPartition::new(Arc::clone(&topics[&number].name), partition.index),
                partition: Arc::clone(partition),
                committed,
                reset: None,
                consumer: None,
                behind: false,
                committed_offset,
                right: None,
                ended: false,
            }
        })
    }

    /// Takes what a member gives back. Returns what was not the member's any more, to be dropped without the lock.
    pub(super) fn park(&mut self, hands: Vec<Hand<E, K>>) -> Vec<Hand<E, K>> {
        let mut late = Vec::new();
        for hand in hands {
            match self.places.get_mut(&hand.id) {
                Some(place) if place.right.as_ref().is_some_and(|right| Arc::ptr_eq(right, &hand.right)) => {
                    // Slots without an event were passed over, not committed.
                    hand.commit_skipped();
                    place.committed = Some(hand.right.fence());
                    place.right = None;
                    match hand.feed {
                        Feed::Ring(consumer) => place.consumer = Some(consumer),
                        Feed::Journal(_) => place.behind = true,
                    }
                }
                _ => late.push(hand),
            }
        }
        late
    }

    /// Topics that no member reads are gated no more, unless the group holds them. One that is read to its end stays as
    /// it is: nobody can be waiting for it.
    pub(super) fn close_gates(&mut self) {
        if self.hold {
            return;
        }
        for (&number, source) in &mut self.topics {
            if self.coordinator.reads(number) {
                continue;
            }
            source.reader = None;
            for (_, place) in self.places.iter_mut().filter(|(id, _)| id.topic == number) {
                if !place.ended {
                    (place.consumer, place.behind) = (None, false);
                }
            }
        }
    }

    /// Whether all that this member may ever be given was read to its end.
    pub(super) fn is_over(&self, member: MemberId) -> bool {
        let topics = self.coordinator.topics_of(member);
        let mut places = self.places.iter().filter(|(id, _)| topics.is_some_and(|topics| topics.contains(&id.topic)));
        places.all(|(_, place)| place.ended)
    }
}

/// Joins partitions that are added to a topic for a group.
pub(super) struct Newcomers<E, K: Producers> {
    pub(super) group: Weak<Group<E, K>>,
    pub(super) stage: String,
    pub(super) topic: u32,
}

impl<E: Send + Sync + 'static, K: Producers> TopicReader<E, K> for Newcomers<E, K> {
    fn join(&self, partition: &Arc<Partition<E, K>>) -> Result<Consumer<E, K>, SubscribeError> {
        let joined = partition.ring.join(Stage::new(self.stage.clone()));
        joined.map_err(|cause| SubscribeError::new(&self.stage, partition.index, cause))
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
        let place = state.place(&group.name, self.topic, &topic, partition);
        let first = consumer.first().0;
        place.committed = Some(first);
        place.consumer = Some(consumer);
        if let Some(committed_offset) = &place.committed_offset {
            committed_offset.set(first, epoch);
        }
        // It may be that the last member left while the partition was made.
        state.close_gates();
        group.settle(&mut state);
        nothing
    }

    fn drain(&self, deadline: Instant) -> bool {
        self.group.upgrade().is_none_or(|group| group.drain(self.topic, deadline))
    }
}
