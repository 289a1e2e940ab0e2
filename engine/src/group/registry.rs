//! The groups of an engine, by name.

use super::describe::{GroupDescription, PartitionRanges};
use super::error::GroupError;
use super::{AnyGroup, Group};
use crate::base::by_name::ByName;
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::base::trace::lifecycle;
use crate::log::committer::Committer;
use crate::topic::attached::AttachedGroups;
use crate::topic::registry::Host;
use std::any::Any;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The groups of one name. They read topics of different event types or kinds of producers, and have nothing but the
/// name in common.
type Namesakes = Vec<Arc<dyn AnyGroup>>;

/// The groups of an engine. A group lives until it is forgotten, or all topics that it has read are deleted.
#[derive(Default)]
pub(crate) struct Groups {
    /// In the order in which the first members of the names joined.
    list: Mutex<ByName<Namesakes>>,
}

impl Groups {
    /// The groups of this engine.
    pub(crate) fn of(host: &Host) -> &Self {
        let groups: &dyn Any = &**host.groups.get_or_init(|| Box::<Self>::default());
        groups.downcast_ref().expect("made here alone")
    }

    fn list(&self) -> MutexGuard<'_, ByName<Namesakes>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<dyn AnyGroup>> {
        self.list().values().flatten().cloned().collect()
    }

    /// The group `name` of topics with the event type `E` and the kind of producers `K`; created if it does not exist.
    /// Topics with another `E` or `K` have a different group, even under the same name, which has no partition in
    /// common with this one.
    pub(super) fn group<E: Send + Sync + 'static, K: Producers>(host: &Arc<Host>, name: &str) -> Arc<Group<E, K>> {
        let mut groups = Self::of(host).list();
        let named = groups.get_or_add(name.to_owned(), Vec::new);
        let found = named.iter().find_map(|group| Arc::clone(group).into_any().downcast().ok());
        found.unwrap_or_else(|| {
            let group = Group::new(name, host);
            named.push(Arc::clone(&group) as Arc<dyn AnyGroup>);
            group
        })
    }

    /// The descriptions of all groups that have a member or a topic.
    pub(crate) fn describe(&self) -> Vec<GroupDescription> {
        let mut ranges = PartitionRanges::default();
        self.all().iter().filter(|group| !group.is_idle()).map(|group| group.describe(&mut ranges)).collect()
    }

    /// Removes the groups of these names that have neither a member nor a topic.
    fn remove_idle(&self, names: &[String]) {
        // A thread that is about to join a group has a reference to it already, so such a group is not removed.
        let is_needed = |group: &Arc<dyn AnyGroup>| Arc::strong_count(group) > 1 || !group.is_idle();
        let mut gone = Vec::new();
        let mut groups = self.list();
        for name in names {
            let Some(named) = groups.get_mut(name) else { continue };
            gone.extend(named.extract_if(.., |group| !is_needed(group)));
            groups.remove_if(name, |named| named.is_empty());
        }
        drop(groups);
        drop(gone);
    }

    /// Removes the groups of this name with their committed offsets, counters and consumers, and their offsets from the
    /// journal, without waiting for it. Returns false if neither the engine nor the journal had any of these.
    ///
    /// # Errors
    /// A group of this name has members, including named ones whose partitions are still reserved.
    pub(crate) fn forget_group(host: &Host, name: &str) -> Result<bool, GroupError> {
        let groups = Self::of(host);
        let mut known = false;
        loop {
            let named = groups.list().get(name).cloned().unwrap_or_default();
            if let Some(refused) = named.iter().find_map(|group| group.check_empty().err()) {
                return Err(refused);
            }
            for group in &named {
                known |= group.clear()?;
            }
            drop(named);
            let Some(committer) = &host.committer else { break };
            let forgotten = committer.forget_offsets(|group| group == name);
            known |= forgotten.deleted;
            // `in_use` means that a group has taken over recorded offsets since it was cleared, for example because a
            // member has joined. So the groups are checked and cleared again.
            if !forgotten.in_use {
                break;
            }
        }
        groups.remove_idle(&[name.to_owned()]);
        if known {
            lifecycle!(info, "group forgotten", group = name);
        }
        Ok(known)
    }
}

impl AttachedGroups for Groups {
    fn forget(&self, topic: TopicId) {
        let groups = self.all();
        groups.iter().for_each(|group| group.forget(topic));
        let names: Vec<_> =
            groups.iter().filter(|group| group.is_idle()).map(|group| group.name().to_owned()).collect();
        drop(groups);
        self.remove_idle(&names);
    }

    fn announce(&self, topic: &Arc<dyn Any + Send + Sync>) {
        self.all().iter().for_each(|group| group.announce(topic));
    }

    fn end_patterns(&self) {
        self.all().iter().for_each(|group| group.end_patterns());
    }

    fn expire(&self, now: Duration, limit: Duration, opened: Duration, committer: Option<&Committer>) {
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for group in self.all() {
            let names = if group.expire_if_unused(now, limit) { &mut gone } else { &mut kept };
            names.push(group.name().to_owned());
        }
        self.remove_idle(&gone);
        if let Some(committer) = committer
            && now.saturating_sub(opened) >= limit
        {
            let kept: HashSet<String> = kept.into_iter().collect();
            committer.forget_offsets(|group| !kept.contains(group));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, Level, subscriber::StartAt};
    use slipring_journal::simulated::SimulatedDisk;
    use slipring_journal::{Options, open};

    /// `forget_group` does not wait for the journal. So the frame with the deletion of the old offset may also have the
    /// new group's offset.
    #[test]
    fn a_group_that_begins_before_the_old_one_is_deleted_keeps_its_offset() {
        let disk = SimulatedDisk::new();
        let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
        let topic = engine.topic::<u64>("numbers").durable().create().unwrap();
        let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
        (0..9).for_each(|_| _ = producer.publish(|_| ()).unwrap());
        let mut known = Vec::new();
        for offset in [4, 5, 5, 6] {
            let member = topic.group("sums").start(StartAt::Offset(offset)).join().unwrap();
            member.leave();
            let (writer, _) = open(Arc::new(disk.crash(offset)), Options::default()).unwrap();
            let offsets = crate::journal::group_offsets(writer.state());
            known.push(offsets.iter().map(|it| it.offset).collect::<Vec<_>>());
            assert!(Groups::forget_group(&topic.inner.host, "sums").unwrap());
        }
        assert_eq!(known, [[4], [5], [5], [6]]);
        topic.inner.host.committer.as_ref().unwrap().commit_offsets().unwrap();
        let (writer, _) = open(Arc::new(disk.crash(9)), Options::default()).unwrap();
        assert!(crate::journal::group_offsets(writer.state()).is_empty());
    }
}
