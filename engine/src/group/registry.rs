//! The groups of an engine, by name.

use super::describe::GroupDescription;
use super::{AnyGroup, Group};
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::topic::attached::AttachedGroups;
use crate::topic::registry::Host;
use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A group with its name. Groups of the same name have different event types.
type Named = (String, Arc<dyn AnyGroup>);

/// The groups of an engine. A group stays until it has no members and all its topics are deleted, because it has their
/// committed offsets.
#[derive(Default)]
pub(crate) struct Groups {
    /// The groups in the order in which their first members joined.
    list: Mutex<Vec<Named>>,
}

impl Groups {
    /// The groups of this engine.
    pub(crate) fn of(host: &Host) -> &Self {
        let groups: &dyn Any = &**host.groups.get_or_init(|| Box::<Self>::default());
        groups.downcast_ref().expect("made here alone")
    }

    fn list(&self) -> MutexGuard<'_, Vec<Named>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group `name` with events of type `E`; created if it does not exist. If topics have another event type, their
    /// group is a different one, even under the same name, and has no partition in common with this one.
    pub(super) fn group<E: Send + Sync + 'static, K: Producers>(host: &Arc<Host>, name: &str) -> Arc<Group<E, K>> {
        let mut groups = Self::of(host).list();
        let mut known = groups.iter().filter(|(known, _)| known == name);
        let found = known.find_map(|(_, group)| Arc::clone(group).into_any().downcast().ok());
        found.unwrap_or_else(|| {
            let group = Group::new(name, host);
            groups.push((name.to_owned(), Arc::clone(&group) as Arc<dyn AnyGroup>));
            group
        })
    }

    /// The descriptions of all groups.
    pub(crate) fn describe(&self) -> Vec<GroupDescription> {
        let groups = self.list().clone();
        groups.iter().map(|(_, group)| group.describe()).collect()
    }
}

impl AttachedGroups for Groups {
    fn forget(&self, topic: TopicId) {
        let groups = self.list().clone();
        groups.iter().for_each(|(_, group)| group.forget(topic));
        drop(groups);
        // A thread that is about to join a group has a reference to it already, so such a group is not removed.
        let is_needed = |group: &Arc<dyn AnyGroup>| Arc::strong_count(group) > 1 || !group.is_idle();
        let mut groups = self.list();
        let gone: Vec<_> = groups.extract_if(.., |(_, group)| !is_needed(group)).collect();
        drop(groups);
        drop(gone);
    }
}
