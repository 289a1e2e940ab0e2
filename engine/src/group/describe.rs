//! The description of a group: its members and its progress.

use super::assignment::{Assignor, MemberId};
use super::coordinator::Activity;
use super::listener::listed;
use super::state::{PartitionEntry, SharedState};
use crate::base::ids::TopicPartition;
use crate::base::kind::Producers;
use crate::log::catalog::recorded_topics;
use crate::log::offsets::recorded::{GroupOffset, group_offsets};
use crate::text;
use crate::topic::metrics::{GroupMemberMetrics, GroupMetrics};
use crate::topic::partition::Partition;
use slipring_journal::{Journal, State as JournalState};
use slipring_ring::Sequence;
use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The description of a group at one moment: its members, their partitions, and its progress. `Display` writes it as
/// text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// The group's name.
    pub name: String,
    /// The state of the assignment of partitions to members.
    pub state: GroupState,
    /// The group's epoch, which increases with each change of members or topics.
    pub epoch: u64,
    /// How the group assigns partitions to its members.
    pub assignor: Assignor,
    /// True if producers wait for the group even while it has no members.
    pub hold: bool,
    /// How many events managed members have skipped because their handler failed on them.
    pub skipped: u64,
    /// The members, in the order of joining.
    pub members: Vec<MemberDescription>,
    /// The progress in each partition of all topics that the group has ever read.
    pub partitions: Vec<GroupPartition>,
}

/// The state of a group's assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupState {
    /// The group has no members.
    Empty,
    /// The assignment has changed, and a member has not yet released or taken over all partitions that it must. Also
    /// the state while partitions are reserved for a member that has left.
    Rebalancing,
    /// Each partition that a member reads is assigned, and each member has taken over its partitions.
    Stable,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberDescription {
    /// The member's number. A group never gives a number to two members.
    pub id: u64,
    /// The member's name; `None` if it has none.
    pub name: Option<String>,
    /// The group's epoch at the member's last update.
    pub epoch: u64,
    /// True if the member has left and its partitions are still reserved for its return.
    pub away: bool,
    /// The partitions that the member has or is about to get.
    pub partitions: Vec<TopicPartition>,
}

/// The progress of a group in a partition. `Debug` shows up to 64 bytes of the metadata.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// The committed offset, which is the next offset to be read; `None` if the group has never read the partition.
    pub committed: Option<u64>,
    /// The [metadata](crate::group::GroupBatch::commit_to_with_metadata) that the offset was committed with; `None` if it has
    /// none.
    pub metadata: Option<Arc<[u8]>>,
    /// The earliest offset whose event is kept.
    pub earliest: u64,
    /// The next offset to be published.
    pub latest: u64,
    /// How many published events the group has not committed. For a durable topic, events that the journal no longer
    /// keeps and offsets that a crash left unused do not count.
    pub lag: u64,
    /// True if producers wait for the group in this partition.
    pub gates: bool,
    /// True if the group reads the partition from the journal, because the ring no longer has its next event.
    pub catching_up: bool,
    /// The number of the member that has the partition; `None` if no member has it.
    pub member: Option<u64>,
}

impl fmt::Debug for GroupPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, committed, metadata, earliest, latest, lag, gates, catching_up, member } = self;
        let metadata = metadata.as_deref().map(|metadata| match metadata.split_at_checked(64) {
            Some((first, rest)) if !rest.is_empty() => format!("{} and {} more bytes", text::value(first), rest.len()),
            _ => text::value(metadata).to_string(),
        });
        f.debug_struct("GroupPartition")
            .field("partition", partition)
            .field("committed", committed)
            .field("metadata", &metadata)
            .field("earliest", earliest)
            .field("latest", latest)
            .field("lag", lag)
            .field("gates", gates)
            .field("catching_up", catching_up)
            .field("member", member)
            .finish()
    }
}

impl GroupDescription {
    /// How many published events of all partitions together the group has not committed.
    pub fn lag(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.lag).sum()
    }

    /// The progress in this partition; `None` if the group has not read the topic or the topic has no such partition.
    pub fn partition(&self, topic: &str, partition: u32) -> Option<&GroupPartition> {
        self.partitions.iter().find(|it| &*it.partition.topic == topic && it.partition.partition == partition)
    }
}

impl From<GroupDescription> for GroupMetrics {
    fn from(it: GroupDescription) -> Self {
        let owned = it.partitions.iter().filter_map(|at| Some((at.member?, at.lag)));
        let mut lags: HashMap<u64, u64> = HashMap::new();
        owned.for_each(|(member, lag)| *lags.entry(member).or_default() += lag);
        let unowned = it.partitions.iter().filter(|at| at.member.is_none()).count() as u64;
        let (lag, partitions) = (it.lag(), it.partitions.len() as u64);
        let member = |of: MemberDescription| GroupMemberMetrics {
            lag: lags.get(&of.id).copied().unwrap_or(0),
            id: of.id,
            name: of.name,
            away: of.away,
            partitions: of.partitions.len() as u64,
        };
        Self {
            members: it.members.into_iter().map(member).collect(),
            name: it.name,
            state: it.state.to_string(),
            epoch: it.epoch,
            lag,
            skipped: it.skipped,
            partitions,
            unowned,
        }
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "without members",
            Self::Rebalancing => "rebalancing",
            Self::Stable => "stable",
        })
    }
}

impl fmt::Display for GroupDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, state, epoch, assignor, .. } = self;
        write!(f, "group {name}: {state}, epoch {epoch}, {assignor}, lag {}", self.lag())?;
        if self.hold {
            write!(f, ", holds")?;
        }
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        for member in &self.members {
            write!(f, "\n  member {}", member.id)?;
            if let Some(name) = &member.name {
                write!(f, " ({name})")?;
            }
            write!(f, ": {}{}", listed(&member.partitions), if member.away { ", away" } else { "" })?;
        }
        for at in &self.partitions {
            write!(f, "\n  {}: ", at.partition)?;
            match at.committed {
                Some(committed) => write!(f, "committed {committed} of {}, lag {}", at.latest, at.lag)?,
                None => write!(f, "never read, {} published", at.latest)?,
            }
            if let Some(metadata) = &at.metadata {
                write!(f, ", metadata {}", text::value(metadata))?;
            }
            match at.member {
                Some(member) => write!(f, ", member {member}")?,
                None if at.catching_up => f.write_str(", nobody's")?,
                None if at.gates => f.write_str(", nobody's")?,
                None => f.write_str(", nobody's, not held")?,
            }
        }
        Ok(())
    }
}

/// A cache of the earliest offset of each partition's ring, for one snapshot of many groups. Finding that offset reads
/// the positions of all consumers of the ring, so it is done once per snapshot and not once per group.
#[derive(Default)]
pub(crate) struct PartitionRanges {
    /// The earliest offsets, by the address of the partition. Each has a reference to its partition, so that no other
    /// partition gets the address.
    earliest: HashMap<usize, (u64, Arc<dyn Any + Send + Sync>)>,
}

impl PartitionRanges {
    fn earliest<E: Send + Sync + 'static, K: Producers>(&mut self, of: &Arc<Partition<E, K>>) -> u64 {
        let look = || (of.ring.positions().earliest.0, Arc::clone(of) as Arc<dyn Any + Send + Sync>);
        self.earliest.entry(Arc::as_ptr(of).addr()).or_insert_with(look).0
    }
}

pub(super) fn describe<E: Send + Sync + 'static, K: Producers>(
    name: &str,
    state: &SharedState<E, K>,
    ranges: &mut PartitionRanges,
) -> GroupDescription {
    let coordinator = &state.coordinator;
    let mut owned: HashMap<MemberId, Vec<TopicPartition>> = HashMap::new();
    for (id, entry) in &state.entries {
        if let Some(owner) = coordinator.owner(*id) {
            owned.entry(owner).or_default().push(entry.name.clone());
        }
    }
    let mut has = |id| owned.remove(&id).unwrap_or_default();
    let members = coordinator.members().map(|member| MemberDescription {
        id: member.id,
        name: member.name.as_deref().map(str::to_owned),
        epoch: member.epoch,
        away: matches!(member.activity, Activity::Away(_)),
        partitions: has(member.id),
    });
    let partitions = state.entries.iter().map(|(id, entry)| {
        let topic = state.topics.get(&id.topic).and_then(|source| source.topic.upgrade());
        let durable = topic.as_ref().and_then(|topic| topic.durable.as_ref());
        let mut at = stands(entry, coordinator.owner(*id), ranges);
        if let Some(durable) = durable {
            let kept = durable.journal().extent(durable.id(id.partition));
            at.earliest = kept.map_or(at.earliest, |kept| kept.start.min(at.earliest));
            at.lag = at.committed.map_or(0, |next| durable.unread(id.partition, next, at.latest));
        }
        at
    });
    GroupDescription {
        name: name.to_owned(),
        state: match () {
            () if !coordinator.has_members() => GroupState::Empty,
            () if !coordinator.is_settled() => GroupState::Rebalancing,
            () => GroupState::Stable,
        },
        epoch: coordinator.epoch(),
        assignor: coordinator.assignor(),
        hold: state.hold,
        skipped: state.skipped_before
            + state.topics.values().map(|topic| topic.stats.skipped.load(Ordering::Relaxed)).sum::<u64>(),
        members: members.collect(),
        partitions: partitions.collect(),
    }
}

fn stands<E: Send + Sync + 'static, K: Producers>(
    entry: &PartitionEntry<E, K>,
    member: Option<u64>,
    ranges: &mut PartitionRanges,
) -> GroupPartition {
    let earliest = ranges.earliest(&entry.partition);
    // The committed offset is read before the published position, so that the lag is never negative.
    let (committed, metadata) = entry.committed_with_metadata();
    let published = entry.partition.ring.published();
    let lag = committed.map_or(0, |committed| published.since(Sequence(committed)).max(0) as u64);
    GroupPartition {
        partition: entry.name.clone(),
        committed,
        metadata,
        earliest,
        latest: published.0,
        lag,
        gates: entry.is_open() && !entry.is_catching_up(),
        catching_up: entry.is_catching_up(),
        member,
    }
}

/// Adds the committed offsets that the journal had when the engine opened it, except for partitions that a description
/// in `groups` has already. An offset is added to the description of its group, or to a new one without members.
pub(crate) fn add_recorded(groups: &mut Vec<GroupDescription>, state: &JournalState, journal: &Journal) {
    let topics: HashMap<u32, Arc<str>> =
        recorded_topics(state).into_iter().map(|topic| (topic.number, topic.name.into())).collect();
    let offsets = group_offsets(state);
    let joined =
        groups.iter().flat_map(|group| group.partitions.iter().map(|it| (group.name.clone(), it.partition.clone())));
    let joined: HashSet<(String, TopicPartition)> = if offsets.is_empty() { HashSet::new() } else { joined.collect() };
    let mut places: HashMap<String, usize> = HashMap::new();
    groups.iter().enumerate().for_each(|(place, group)| _ = places.entry(group.name.clone()).or_insert(place));
    for GroupOffset { group, of, offset, epoch, metadata, .. } in offsets {
        let Some(topic) = topics.get(&of.topic) else { continue };
        let at = (group, TopicPartition::new(Arc::clone(topic), of.partition));
        let known = joined.contains(&at);
        let (group, partition) = at;
        // `None` if the journal does not have the partition, the group's description has it already, or the offset is
        // beyond the partition's end.
        let extent = journal.extent(of).filter(|extent| !known && extent.end >= offset);
        let Some(extent) = extent else { continue };
        let stands = GroupPartition {
            partition,
            committed: Some(offset),
            metadata,
            earliest: extent.start,
            latest: extent.end,
            lag: journal.records_in(of, offset..extent.end),
            gates: false,
            catching_up: false,
            member: None,
        };
        let place = *places.entry(group.clone()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(known) => known.partitions.push(stands),
            None => groups.push(GroupDescription {
                name: group,
                state: GroupState::Empty,
                epoch,
                assignor: Default::default(),
                hold: false,
                skipped: 0,
                members: Vec::new(),
                partitions: vec![stands],
            }),
        }
    }
}
