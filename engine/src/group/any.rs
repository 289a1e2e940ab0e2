//! The part of a group's interface that does not depend on the type of its events, through which the engine uses
//! groups.

use super::Group;
use super::describe;
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::group::describe::GroupDescription;
use std::any::Any;
use std::sync::Arc;

/// A group whose type of events the caller does not know.
pub(crate) trait AnyGroup: Send + Sync {
    fn describe(&self) -> GroupDescription;
    fn forget(&self, topic: TopicId);
    /// True if the group has no members, and all its topics were deleted.
    fn is_idle(&self) -> bool;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<E: Send + Sync + 'static, K: Producers> AnyGroup for Group<E, K> {
    fn describe(&self) -> GroupDescription {
        let now = self.now();
        let mut state = self.state();
        self.expire(&mut state, now);
        self.settle(&mut state);
        describe::describe(&self.name, &state)
    }

    fn forget(&self, topic: TopicId) {
        Group::forget(self, topic);
    }

    fn is_idle(&self) -> bool {
        let state = self.state();
        state.topics.is_empty() && state.signals.is_empty()
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
