//! A group whatever the type of its events.

use super::Group;
use super::describe;
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::group::describe::GroupDescription;
use std::any::Any;
use std::sync::Arc;

/// What the engine needs of a group.
pub(crate) trait AnyGroup: Send + Sync {
    fn describe(&self) -> GroupDescription;
    fn forget(&self, topic: TopicId);
    /// True if it has no member, and all its topics are gone.
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
