//! Who is in a group and who has which partition: a state machine. It has no threads, no rings and no clock of its own.
//!
//! ```text
//! join, leave, expire, topics          a new epoch, a new target
//! take    partitions that are free     go to whom the target names
//!         partitions that are taken    stay until their member has released them
//! sync    a member learns              what to release, and what it has been given
//! release a member acknowledges        the partition is free, and is given on
//! ```
//!
//! So a partition has one owner or none, and whoever keeps a partition notices nothing of a rebalance.

use super::assignment::{Assignment, Assignor, Candidate, MemberId, PartitionKey};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// A member that is no longer one: it made no progress within its deadline, or was told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    /// The group's epoch.
    pub(crate) group_epoch: u64,
}

/// What a member has to do to reach its part of the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberChanges {
    /// To be released: the member has them, others shall.
    pub(crate) revoked: Vec<PartitionKey>,
    /// The member's own from now on.
    pub(crate) given: Vec<PartitionKey>,
    /// The group's epoch, which is the member's then.
    pub(crate) epoch: u64,
}

/// What a member does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    /// It waits for events: it may do so for ever.
    Waiting,
    /// It was last seen at this time.
    Working(Duration),
    /// It has a name and left at this time: its place is kept until its deadline.
    Away(Duration),
}

#[derive(Debug)]
struct MemberEntry {
    name: Option<String>,
    /// One set for all members that read the same.
    topics: Arc<BTreeSet<u32>>,
    deadline: Duration,
    activity: Activity,
    /// The group's epoch when it last synced.
    epoch: u64,
    /// Something changed for it since then.
    news: bool,
}

impl MemberEntry {
    /// When it is fenced if it stays as it is.
    fn due(&self) -> Option<Duration> {
        match self.activity {
            Activity::Waiting => None,
            Activity::Working(since) | Activity::Away(since) => since.checked_add(self.deadline),
        }
    }
}

/// Who has a partition, and whether it knows already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    member: MemberId,
    taken: bool,
}

/// A member as others see it.
#[derive(Clone, Debug)]
pub(crate) struct MemberView {
    pub(crate) id: MemberId,
    pub(crate) name: Option<String>,
    pub(crate) epoch: u64,
    pub(crate) activity: Activity,
}

#[derive(Debug)]
pub(crate) struct Coordinator {
    assignor: Assignor,
    epoch: u64,
    next_member: MemberId,
    members: BTreeMap<MemberId, MemberEntry>,
    /// The number of partitions of each topic.
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
            topics: BTreeMap::new(),
            target: Assignment::new(),
            owners: BTreeMap::new(),
        }
    }

    pub(crate) fn assignor(&self) -> Assignor {
        self.assignor
    }

    /// For the members to come; the caller sees to it that there are none.
    pub(crate) fn set_assignor(&mut self, assignor: Assignor) {
        self.assignor = assignor;
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The group had this epoch before the engine was opened.
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

    /// Whether any member reads this topic, also one whose place is kept.
    pub(crate) fn reads(&self, topic: u32) -> bool {
        self.members.values().any(|member| member.topics.contains(&topic))
    }

    pub(crate) fn topics_of(&self, member: MemberId) -> Option<&BTreeSet<u32>> {
        self.members.get(&member).map(|member| &*member.topics)
    }

    /// Who has a partition.
    pub(crate) fn owner(&self, partition: PartitionKey) -> Option<MemberId> {
        self.owners.get(&partition).map(|owner| owner.member)
    }

    /// Every owner has what the target says, and knows.
    pub(crate) fn is_settled(&self) -> bool {
        let settled = |(partition, member): (&PartitionKey, &MemberId)| {
            self.owners.get(partition) == Some(&Owner { member: *member, taken: true })
        };
        self.target.len() == self.owners.len() && self.target.iter().all(settled)
    }

    /// Adds a topic, or partitions to one. Topics never lose partitions.
    pub(crate) fn set_topic(&mut self, topic: u32, partitions: u32) {
        let known = self.topics.entry(topic).or_default();
        if *known < partitions {
            *known = partitions;
            self.retarget();
        }
    }

    /// A topic is no more.
    pub(crate) fn forget(&mut self, topic: u32) {
        if self.topics.remove(&topic).is_some() {
            self.owners.retain(|partition, _| partition.topic != topic);
            self.target.retain(|partition, _| partition.topic != topic);
            let mut dropped = Vec::new();
            let mut without: HashMap<*const BTreeSet<u32>, Arc<BTreeSet<u32>>> = HashMap::new();
            for member in self.members.values_mut() {
                let rest = || Arc::new(member.topics.iter().copied().filter(|read| *read != topic).collect());
                let rest = Arc::clone(without.entry(Arc::as_ptr(&member.topics)).or_insert_with(rest));
                // The old one is kept until all have let go of it: its address must stay its own.
                dropped.push(std::mem::replace(&mut member.topics, rest));
            }
            self.retarget();
        }
    }

    /// A newcomer; or a member who comes back under its name, and then has its old number and partitions.
    ///
    /// # Errors
    /// There is a member of that name, who has not left: its number.
    pub(crate) fn join(
        &mut self,
        name: Option<&str>,
        topics: BTreeSet<u32>,
        deadline: Duration,
        now: Duration,
    ) -> Result<MemberId, MemberId> {
        let activity = Activity::Working(now);
        let same = self.members.values().rev().find(|member| *member.topics == topics);
        let topics = same.map_or_else(|| Arc::new(topics), |member| Arc::clone(&member.topics));
        if let Some(name) = name
            && let Some((&id, entry)) = self.members.iter_mut().find(|(_, member)| member.name.as_deref() == Some(name))
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
        let name = name.map(str::to_owned);
        self.members.insert(id, MemberEntry { name, topics, deadline, activity, epoch: 0, news: true });
        self.retarget();
        Ok(id)
    }

    /// The member has released all that it had. If it has a name and does not leave for good, its place is kept.
    pub(crate) fn leave(&mut self, member: MemberId, for_good: bool, now: Duration) {
        let Some(leaving) = self.members.get_mut(&member) else { return };
        if leaving.name.is_some() && !for_good {
            leaving.activity = Activity::Away(now);
            // What was on its way to others goes there now: it was released with the rest.
            self.owners.retain(|at, owner| owner.member != member || self.target.get(at) == Some(&member));
            self.owners.values_mut().filter(|owner| owner.member == member).for_each(|owner| owner.taken = false);
            self.give();
        } else {
            self.remove(&[member]);
        }
    }

    /// What the member does at present.
    pub(crate) fn seen(&mut self, member: MemberId, activity: Activity) {
        if let Some(member) = self.members.get_mut(&member)
            && !matches!(member.activity, Activity::Away(_))
        {
            member.activity = activity;
        }
    }

    /// Removes whoever is past its deadline. Returns them, each with what it had in hand.
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

    /// When to call [`expire`](Self::expire) next.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.members.values().filter_map(MemberEntry::due).min()
    }

    /// Takes whoever has news; each is to be told to sync.
    pub(crate) fn take_news(&mut self) -> Vec<MemberId> {
        let news = self.members.iter_mut().filter_map(|(&id, member)| std::mem::take(&mut member.news).then_some(id));
        news.collect()
    }

    /// What the member has to release; and what it was given, which it has from now on.
    pub(crate) fn sync(&mut self, member: MemberId) -> Result<MemberChanges, Stale> {
        let epoch = self.epoch;
        let entry = self.members.get_mut(&member).ok_or(Stale { group_epoch: epoch })?;
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

    /// The member no longer has `partitions`: they are given on.
    pub(crate) fn release(&mut self, member: MemberId, partitions: &[PartitionKey]) -> Result<(), Stale> {
        if !self.members.contains_key(&member) {
            return Err(Stale { group_epoch: self.epoch });
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
        self.members.retain(|id, _| !members.contains(id));
        self.owners.retain(|_, owner| !members.contains(&owner.member));
        self.retarget();
    }

    /// Membership or topics have changed.
    fn retarget(&mut self) {
        self.epoch += 1;
        let candidate = |(&id, member): (&MemberId, &MemberEntry)| {
            let (name, topics) = (member.name.clone(), Arc::clone(&member.topics));
            Candidate { id, name, topics }
        };
        let candidates: Vec<_> = self.members.iter().map(candidate).collect();
        // Where partitions are, and for those on their way, where they go.
        let mut before = self.target.clone();
        before.extend(self.owners.iter().map(|(&partition, owner)| (partition, owner.member)));
        self.target = self.assignor.assign(&candidates, &self.topics, &before);
        // What a member was given and does not know of yet goes elsewhere without asking it.
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

    /// Gives what is free to whom the target names.
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
