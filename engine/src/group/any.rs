//! The part of a group's interface that does not depend on the type of its events, through which the engine uses
//! groups.

use super::Group;
use super::describe;
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::base::trace::lifecycle;
use crate::group::describe::{GroupDescription, PartitionRanges};
use crate::group::error::GroupError;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// A group whose type of events the caller does not know.
pub(crate) trait AnyGroup: Send + Sync {
    fn name(&self) -> &str;
    /// Returns the group's description, and changes nothing: a member past its deadline is listed until the timer has fenced
    /// it. `ranges` is a cache that all groups of one snapshot share.
    fn describe(&self, ranges: &mut PartitionRanges) -> GroupDescription;
    fn forget(&self, topic: TopicId);
    /// Adds a topic that was created to the members whose patterns find it.
    fn announce(&self, topic: &Arc<dyn Any + Send + Sync>);
    /// Lets members with patterns end, because the engine creates no more topics.
    fn end_patterns(&self);
    /// An error if the group has members, including named ones that have left and whose partitions are still reserved.
    fn check_empty(&self) -> Result<(), GroupError>;
    /// Removes the group's topics and committed offsets, also from the journal, without waiting for it. Returns false
    /// if there were none. An error as for [`check_empty`](Self::check_empty).
    fn clear(&self) -> Result<bool, GroupError>;
    /// [Clears](Self::clear) the group if it holds no producers and has had no members since an earlier call that was
    /// `limit` or longer before `now`. Returns true if it was cleared.
    fn expire_if_unused(&self, now: Duration, limit: Duration) -> bool;
    /// True if the group has neither members nor topics: it is new, it was cleared, or all its topics were deleted.
    fn is_idle(&self) -> bool;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<E: Send + Sync + 'static, K: Producers> AnyGroup for Group<E, K> {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self, ranges: &mut PartitionRanges) -> GroupDescription {
        describe::describe(&self.name, &self.state(), ranges)
    }

    fn forget(&self, topic: TopicId) {
        Group::forget(self, topic);
    }

    fn announce(&self, topic: &Arc<dyn Any + Send + Sync>) {
        Group::announce(self, topic);
    }

    fn end_patterns(&self) {
        Group::end_patterns(self);
    }

    fn check_empty(&self) -> Result<(), GroupError> {
        let now = self.now();
        let mut state = self.state();
        self.expire(&mut state, now);
        self.settle(&mut state);
        self.refuse_members(&state)
    }

    fn clear(&self) -> Result<bool, GroupError> {
        let now = self.now();
        let mut state = self.state();
        self.expire(&mut state, now);
        self.refuse_members(&state)?;
        let gone = self.clear_state(&mut state);
        self.settle(&mut state);
        drop(state);
        Ok(!gone.is_empty())
    }

    fn expire_if_unused(&self, now: Duration, limit: Duration) -> bool {
        let mut state = self.state();
        self.expire(&mut state, now);
        self.settle(&mut state);
        if state.hold || self.refuse_members(&state).is_err() {
            state.unused_since = None;
            return false;
        }
        let since = *state.unused_since.get_or_insert(now);
        if now.saturating_sub(since) < limit {
            return false;
        }
        let gone = self.clear_state(&mut state);
        self.settle(&mut state);
        drop(state);
        drop(gone);
        lifecycle!(info, "group expired", group = self.name);
        true
    }

    fn is_idle(&self) -> bool {
        let state = self.state();
        state.topics.is_empty() && state.signals.is_empty()
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
