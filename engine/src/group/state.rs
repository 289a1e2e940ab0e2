//! What a group knows: its topics, where it stands in each partition, and who has the consumers.

use super::Group;
use super::assignment::{MemberId, PartitionId};
use super::coordinator::Coordinator;
use super::hand::Hand;
use super::lease::Lease;
use super::link::Link;
use super::listener::TopicPartition;
use crate::error::SubscribeError;
use crate::overflow::{Slow, Tally};
use crate::partition::Partition;
use crate::producer::Producers;
use crate::subscriber::StartAt;
use crate::timer::Due;
use crate::topic::{Inner, Reader, Settings, TopicId};
use slipring_ring::{Consumer, Stage};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

pub(super) struct State<E, K: Producers> {
    pub(super) coordinator: Coordinator,
    /// By the number that the coordinator knows them by.
    pub(super) topics: Vec<Source<E, K>>,
    pub(super) places: BTreeMap<PartitionId, Place<E, K>>,
    pub(super) links: BTreeMap<MemberId, Arc<Link>>,
    pub(super) hold: bool,
    pub(super) due: Option<(Duration, Due)>,
}

/// A topic that the group reads, or has read.
pub(super) struct Source<E, K: Producers> {
    pub(super) id: TopicId,
    pub(super) name: Arc<str>,
    /// What is counted of this group in the topic.
    pub(super) tally: Arc<Tally>,
    pub(super) time_to_live: Option<Duration>,
    pub(super) retain_for: Option<Duration>,
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
    /// How many consumers were left behind with fenced members: stages need names of their own.
    pub(super) generation: u32,
    /// The consumer, while no member has the partition.
    pub(super) consumer: Option<Consumer<E, K>>,
    /// The right of the member that has it.
    pub(super) lease: Option<Arc<Lease>>,
    /// It was closed, and read and committed to its end.
    pub(super) ended: bool,
}

impl<E, K: Producers> Place<E, K> {
    pub(super) fn committed(&self) -> Option<u64> {
        self.lease.as_ref().map(|lease| lease.committed()).or(self.committed)
    }

    pub(super) fn gates(&self) -> bool {
        self.consumer.is_some() || self.lease.is_some()
    }

    pub(super) fn stage(&self, group: &str) -> String {
        stage_name(group, self.generation)
    }
}

/// No subscriber can be called that, or stand behind it by accident.
pub(super) fn stage_name(group: &str, generation: u32) -> String {
    match generation {
        0 => format!("group:{group}"),
        generation => format!("group:{group}#{generation}"),
    }
}

impl<E, K: Producers> State<E, K> {
    /// The number of a topic, whose present partitions are the group's then.
    pub(super) fn number_of(&mut self, group: &str, topic: &Arc<Inner<E, K>>) -> u32 {
        let known = self.topics.iter().position(|source| source.id == topic.id);
        let number = known.unwrap_or(self.topics.len());
        if known.is_none() {
            let tally = Arc::new(Tally::new(&stage_name(group, 0), Slow::Gate));
            topic.register(&tally);
            let (id, name) = (topic.id, topic.name.as_str().into());
            let Settings { time_to_live, retain_for, .. } = topic.settings;
            self.topics.push(Source { id, name, tally, time_to_live, retain_for, reader: None });
        }
        let number = number as u32;
        for partition in topic.partitions().iter() {
            self.place(number, partition);
        }
        number
    }

    pub(super) fn place(&mut self, topic: u32, partition: &Arc<Partition<E, K>>) -> &mut Place<E, K> {
        let id = PartitionId { topic, partition: partition.index };
        self.coordinator.set_topic(topic, partition.index + 1);
        let name = &self.topics[topic as usize].name;
        self.places.entry(id).or_insert_with(|| Place {
            name: TopicPartition::new(Arc::clone(name), partition.index),
            partition: Arc::clone(partition),
            committed: None,
            reset: None,
            generation: 0,
            consumer: None,
            lease: None,
            ended: false,
        })
    }

    /// Takes what a member gives back. Returns what was not the member's any more, to be dropped without the lock.
    pub(super) fn park(&mut self, hands: Vec<Hand<E, K>>) -> Vec<Hand<E, K>> {
        let mut late = Vec::new();
        for hand in hands {
            match self.places.get_mut(&hand.id) {
                Some(place) if place.lease.as_ref().is_some_and(|lease| Arc::ptr_eq(lease, &hand.lease)) => {
                    // Slots without an event were passed over, not committed.
                    hand.commit_skipped();
                    place.committed = Some(hand.lease.fence());
                    place.lease = None;
                    place.consumer = Some(hand.consumer);
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
        for (number, source) in (0..).zip(&mut self.topics) {
            if self.coordinator.reads(number) {
                continue;
            }
            source.reader = None;
            for (_, place) in self.places.iter_mut().filter(|(id, _)| id.topic == number) {
                if !place.ended {
                    place.consumer = None;
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

impl<E: Send + Sync + 'static, K: Producers> Reader<E, K> for Newcomers<E, K> {
    fn join(&self, partition: &Arc<Partition<E, K>>) -> Result<Consumer<E, K>, SubscribeError> {
        let joined = partition.ring.join(Stage::new(self.stage.clone()));
        joined.map_err(|cause| SubscribeError::new(&self.stage, partition.index, cause))
    }

    fn take(self: Arc<Self>, partition: &Arc<Partition<E, K>>, consumer: Consumer<E, K>) {
        let Some(group) = self.group.upgrade() else { return };
        let mut state = group.state();
        let place = state.place(self.topic, partition);
        place.committed = Some(consumer.first().0);
        place.consumer = Some(consumer);
        // It may be that the last member left while the partition was made.
        state.close_gates();
        group.settle(&mut state);
    }

    fn drain(&self, deadline: Instant) -> bool {
        self.group.upgrade().is_none_or(|group| group.drain(self.topic, deadline))
    }
}
