//! The coordinator: which members a group has and which member owns each partition, as a state machine without threads,
//! rings or clock.
//!
//! ```text
//! join, leave, expire, topics          a new epoch, a new target
//! take    partitions without an owner  go to the member that the target names
//!         partitions with an owner     stay until that member has released them
//! sync    a member learns              the partitions to release, and those assigned to it
//! release a member acknowledges        the partitions have no owner, and are assigned again
//! ```
//!
//! The *target* is the assignment that the assignor has computed last. A partition has at most one owner at any time,
//! and a member notices nothing of a rebalance in partitions that it keeps.

use super::assignment::{Assignment, Assignor, Candidate, MemberId, PartitionKey};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// The error for a member that is no longer in the group: it was fenced or has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnknownMember {
    /// The group's epoch.
    pub(crate) group_epoch: u64,
}

/// The changes of a member's partitions since its last [`sync`](Coordinator::sync).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberChanges {
    /// Partitions of the member that the target assigns to other members, and that this member must release, including
    /// those of earlier syncs that it has not released yet.
    pub(crate) revoked: Vec<PartitionKey>,
    /// Partitions that the member owns from now on.
    pub(crate) given: Vec<PartitionKey>,
    /// The group's epoch, which the member has from now on.
    pub(crate) epoch: u64,
}

/// What a member does now, from which its deadline follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    /// The member waits for events in a poll, which it may do without limit.
    Waiting,
    /// The member does not wait in a poll. Its last progress was at this time, by the engine's clock.
    Working(Duration),
    /// The member has left at this time, by the engine's clock. It has a name, so its partitions stay reserved until
    /// its deadline.
    Away(Duration),
}

#[derive(Debug)]
struct MemberEntry {
    name: Option<Arc<str>>,
    /// The numbers of the topics that the member reads. Members that read the same topics share one set.
    topics: Arc<BTreeSet<u32>>,
    deadline: Duration,
    activity: Activity,
    /// The group's epoch at the member's last sync.
    epoch: u64,
    /// True if the member must sync: it is new or has returned, must release a partition, or has become the owner of
    /// one. False after a change of the epoch that leaves its partitions as they are.
    news: bool,
}

impl MemberEntry {
    /// When the member is fenced or removed unless it makes progress; `None` while it waits for events.
    fn due(&self) -> Option<Duration> {
        match self.activity {
            Activity::Waiting => None,
            Activity::Working(since) | Activity::Away(since) => since.checked_add(self.deadline),
        }
    }
}

/// The owner of a partition. `taken` is false until that member has learned in a [`sync`](Coordinator::sync) that it
/// owns the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    member: MemberId,
    taken: bool,
}

/// A member, as the description of its group shows it.
#[derive(Clone, Debug)]
pub(crate) struct MemberView {
    pub(crate) id: MemberId,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) epoch: u64,
    pub(crate) activity: Activity,
}

#[derive(Debug)]
pub(crate) struct Coordinator {
    assignor: Assignor,
    epoch: u64,
    next_member: MemberId,
    members: BTreeMap<MemberId, MemberEntry>,
    /// The members that have a name, by name.
    names: HashMap<Arc<str>, MemberId>,
    /// The sets of topics that members read, so that members with equal sets share one. Sets that no member reads any
    /// more may be among them.
    topic_sets: HashSet<Arc<BTreeSet<u32>>>,
    /// The number of partitions of each topic, by the group's number for the topic.
    topics: BTreeMap<u32, u32>,
    target: Assignment,
    owners: BTreeMap<PartitionKey, Owner>,
}

impl Coordinator {
    pub(crate) fn new(assignor: Assignor) -> Self {
        Self {
            assignor,
            epoch: 0,
            next_member: 1,
            members: BTreeMap::new(),
            names: HashMap::new(),
            topic_sets: HashSet::new(),
            topics: BTreeMap::new(),
            target: Assignment::new(),
            owners: BTreeMap::new(),
        }
    }

    pub(crate) fn assignor(&self) -> Assignor {
        self.assignor
    }

    /// Sets the assignor. The caller makes sure that the group has no members.
    pub(crate) fn set_assignor(&mut self, assignor: Assignor) {
        self.assignor = assignor;
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Raises the group's epoch to at least `epoch`, which the journal has recorded. Epochs never decrease, even after
    /// a restart.
    pub(crate) fn go_on_from(&mut self, epoch: u64) {
        self.epoch = self.epoch.max(epoch);
    }

    pub(crate) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = MemberView> + '_ {
        self.members.iter().map(|(&id, member)| MemberView {
            id,
            name: member.name.clone(),
            epoch: member.epoch,
            activity: member.activity,
        })
    }

    /// True if a member reads this topic. A member that has left but whose partitions are reserved counts.
    pub(crate) fn reads(&self, topic: u32) -> bool {
        self.members.values().any(|member| member.topics.contains(&topic))
    }

    pub(crate) fn topics_of(&self, member: MemberId) -> Option<&BTreeSet<u32>> {
        self.members.get(&member).map(|member| &*member.topics)
    }

    /// The member that owns a partition; `None` if no member does.
    pub(crate) fn owner(&self, partition: PartitionKey) -> Option<MemberId> {
        self.owners.get(&partition).map(|owner| owner.member)
    }

    /// True if the target assigns each partition to its present owner, and the owners have learned that they own them.
    pub(crate) fn is_settled(&self) -> bool {
        let settled = |(partition, member): (&PartitionKey, &MemberId)| {
            self.owners.get(partition) == Some(&Owner { member: *member, taken: true })
        };
        self.target.len() == self.owners.len() && self.target.iter().all(settled)
    }

    /// Sets the number of partitions of a topic, which may be new. Does nothing if the topic has as many or more
    /// already: topics never lose partitions.
    pub(crate) fn set_topic(&mut self, topic: u32, partitions: u32) {
        let known = self.topics.entry(topic).or_default();
        if *known < partitions {
            *known = partitions;
            self.retarget();
        }
    }

    /// Removes a deleted topic and its partitions.
    pub(crate) fn forget(&mut self, topic: u32) {
        if self.topics.remove(&topic).is_some() {
            self.owners.retain(|partition, _| partition.topic != topic);
            self.target.retain(|partition, _| partition.topic != topic);
            let mut dropped = Vec::new();
            let mut without: HashMap<*const BTreeSet<u32>, Arc<BTreeSet<u32>>> = HashMap::new();
            for member in self.members.values_mut() {
                let rest = || Arc::new(member.topics.iter().copied().filter(|read| *read != topic).collect());
                let rest = Arc::clone(without.entry(Arc::as_ptr(&member.topics)).or_insert_with(rest));
                // The old set is kept until the end of the loop, so that no new set gets its address, by which sets are
                // compared.
                dropped.push(std::mem::replace(&mut member.topics, rest));
            }
            self.topic_sets = self.members.values().map(|member| Arc::clone(&member.topics)).collect();
            self.retarget();
        }
    }

    /// Applies `change` to the topics of each of these members, in one epoch with one assignment. Members that are not in
    /// the group are passed over.
    pub(crate) fn change_topics(&mut self, members: &[MemberId], mut change: impl FnMut(&mut BTreeSet<u32>)) {
        let mut changed = false;
        for member in members {
            let Some(entry) = self.members.get_mut(member) else { continue };
            let mut topics = BTreeSet::clone(&entry.topics);
            change(&mut topics);
            if topics == *entry.topics {
                continue;
            }
            let shared = self.topic_sets.get(&topics).cloned().unwrap_or_else(|| Arc::new(topics));
            self.topic_sets.insert(Arc::clone(&shared));
            (entry.topics, entry.news, changed) = (shared, true, true);
        }
        if changed {
            self.topic_sets.retain(|topics| Arc::strong_count(topics) > 1);
            self.retarget();
        }
    }

    /// Adds a member, and returns its number. A member that returns under its name gets its old number and partitions.
    ///
    /// # Errors
    /// The group has a member of this name that has not left. The error is that member's number.
    pub(crate) fn join(
        &mut self,
        name: Option<&str>,
        topics: BTreeSet<u32>,
        deadline: Duration,
        now: Duration,
    ) -> Result<MemberId, MemberId> {
        let activity = Activity::Working(now);
        let topics = self.topic_sets.get(&topics).cloned().unwrap_or_else(|| Arc::new(topics));
        self.topic_sets.insert(Arc::clone(&topics));
        if let Some(name) = name
            && let Some(&id) = self.names.get(name)
            && let Some(entry) = self.members.get_mut(&id)
        {
            if !matches!(entry.activity, Activity::Away(_)) {
                return Err(id);
            }
            (entry.activity, entry.deadline, entry.news) = (activity, deadline, true);
            if entry.topics != topics {
                entry.topics = topics;
                self.retarget();
            }
            return Ok(id);
        }
        let id = self.next_member;
        self.next_member += 1;
        let name: Option<Arc<str>> = name.map(Into::into);
        self.names.extend(name.clone().map(|name| (name, id)));
        self.members.insert(id, MemberEntry { name, topics, deadline, activity, epoch: 0, news: true });
        self.retarget();
        Ok(id)
    }

    /// Removes a member that has released all its partitions. If it has a name and `for_good` is false, its partitions
    /// stay reserved until its deadline.
    pub(crate) fn leave(&mut self, member: MemberId, for_good: bool, now: Duration) {
        let Some(leaving) = self.members.get_mut(&member) else { return };
        if leaving.name.is_some() && !for_good {
            leaving.activity = Activity::Away(now);
            // Partitions that the target assigns to other members move now, since the member has released them too.
            self.owners.retain(|at, owner| owner.member != member || self.target.get(at) == Some(&member));
            self.owners.values_mut().filter(|owner| owner.member == member).for_each(|owner| owner.taken = false);
            self.give();
        } else {
            self.remove(&[member]);
        }
    }

    /// Sets what the member is doing, unless it has left.
    pub(crate) fn seen(&mut self, member: MemberId, activity: Activity) {
        if let Some(member) = self.members.get_mut(&member)
            && !matches!(member.activity, Activity::Away(_))
        {
            member.activity = activity;
        }
    }

    /// Removes the members whose deadline has passed at `now`. Returns them, each with the partitions that it had taken
    /// in a sync.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<(MemberId, Vec<PartitionKey>)> {
        let late = self.members.iter().filter(|(_, member)| member.due().is_some_and(|due| due <= now));
        let late: Vec<MemberId> = late.map(|(&id, _)| id).collect();
        let in_hand = |member: MemberId| {
            let taken = self.owners.iter().filter(move |(_, owner)| **owner == Owner { member, taken: true });
            taken.map(|(&partition, _)| partition).collect()
        };
        let expired = late.iter().map(|&member| (member, in_hand(member))).collect();
        if !late.is_empty() {
            self.remove(&late);
        }
        expired
    }

    /// The time at which [`expire`](Self::expire) must be called next; `None` if no member has a deadline now.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.members.values().filter_map(MemberEntry::due).min()
    }

    /// Returns the members that must sync since the last call of this. The caller signals them.
    pub(crate) fn take_news(&mut self) -> Vec<MemberId> {
        let news = self.members.iter_mut().filter_map(|(&id, member)| std::mem::take(&mut member.news).then_some(id));
        news.collect()
    }

    /// Returns the changes of a member's partitions, and marks the given ones as taken by the member.
    pub(crate) fn sync(&mut self, member: MemberId) -> Result<MemberChanges, UnknownMember> {
        let epoch = self.epoch;
        let entry = self.members.get_mut(&member).ok_or(UnknownMember { group_epoch: epoch })?;
        (entry.epoch, entry.news) = (epoch, false);
        let mut changes = MemberChanges { epoch, ..MemberChanges::default() };
        for (&partition, owner) in self.owners.iter_mut().filter(|(_, owner)| owner.member == member) {
            if self.target.get(&partition) != Some(&member) {
                changes.revoked.push(partition);
            } else if !owner.taken {
                owner.taken = true;
                changes.given.push(partition);
            }
        }
        Ok(changes)
    }

    /// Releases those of `partitions` that the member owns, and gives them to the members that the target names.
    pub(crate) fn release(&mut self, member: MemberId, partitions: &[PartitionKey]) -> Result<(), UnknownMember> {
        if !self.members.contains_key(&member) {
            return Err(UnknownMember { group_epoch: self.epoch });
        }
        for partition in partitions {
            if self.owner(*partition) == Some(member) {
                self.owners.remove(partition);
            }
        }
        self.give();
        Ok(())
    }

    fn remove(&mut self, members: &[MemberId]) {
        let gone = members.iter().filter_map(|member| self.members.remove(member)?.name);
        gone.for_each(|name| _ = self.names.remove(&name));
        self.topic_sets.retain(|topics| Arc::strong_count(topics) > 1);
        self.owners.retain(|_, owner| !members.contains(&owner.member));
        self.retarget();
    }

    /// Begins a new epoch and computes a new target, because members or topics have changed.
    fn retarget(&mut self) {
        self.epoch += 1;
        let candidate = |(&id, member): (&MemberId, &MemberEntry)| {
            let (name, topics) = (member.name.clone(), Arc::clone(&member.topics));
            Candidate { id, name, topics }
        };
        let candidates: Vec<_> = self.members.iter().map(candidate).collect();
        // The previous assignment has the owner of each partition, or, for a partition without an owner, the member
        // that the target names.
        let mut before = self.target.clone();
        before.extend(self.owners.iter().map(|(&partition, owner)| (partition, owner.member)));
        self.target = self.assignor.assign(&candidates, &self.topics, &before);
        // If the owner has not learned yet that it owns a partition, the partition moves without a release.
        self.owners.retain(|partition, owner| owner.taken || self.target.get(partition) == Some(&owner.member));
        for (partition, owner) in &self.owners {
            if self.target.get(partition) != Some(&owner.member)
                && let Some(member) = self.members.get_mut(&owner.member)
            {
                member.news = true;
            }
        }
        self.give();
    }

    /// Gives each partition without an owner to the member that the target names.
    fn give(&mut self) {
        for (&partition, &member) in &self.target {
            if let std::collections::btree_map::Entry::Vacant(free) = self.owners.entry(partition) {
                free.insert(Owner { member, taken: false });
                if let Some(member) = self.members.get_mut(&member) {
                    member.news = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
