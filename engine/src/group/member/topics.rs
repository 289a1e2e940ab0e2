//! The topics of a member: changing them while it is in the group, and joining again with them.

use super::Member;
use crate::base::kind::Producers;
use crate::group::error::GroupError;
use crate::topic::{Topic, TopicCore};
use std::sync::Arc;

/// True if a topic was halted, for example by a forced deletion, or has failed, so that no more events come from it.
fn is_gone<E, K: Producers>(topic: &TopicCore<E, K>) -> bool {
    use crate::base::closed::Closed::{Failed, Halted};
    matches!(topic.closed(), Some(Halted | Failed { .. }))
}

impl<E: Send + Sync + 'static, K: Producers> Member<E, K> {
    /// The names of the topics that this member reads, sorted. With a [pattern](crate::group::GroupBuilder::matching)
    /// also those that it has found.
    pub fn topics(&self) -> Vec<String> {
        let mut names: Vec<_> = self.topics.all().iter().map(|topic| topic.name.clone()).collect();
        names.sort();
        names
    }

    /// Makes this member read `topic` too, without leaving the group. Does nothing if it reads the topic. The group
    /// continues there at its committed offset or, if it has none, begins at the builder's
    /// [`start`](crate::group::GroupBuilder::start). From now on producers of the topic wait for the group.
    ///
    /// The group assigns its partitions again and moves only what must move: members keep reading their partitions of
    /// other topics, but for those that [`Assignor::Sticky`](crate::group::Assignor::Sticky) moves to give all members
    /// as many. The partitions that this member gets at once are in its [`assignment`](Self::assignment) and its
    /// listener is called with them; those that other members must release first come with a later poll.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # let [orders, returns] = ["orders", "returns"].map(|name| engine.topic::<u64>(name).create().unwrap());
    /// let mut billing = orders.group("billing").join()?;
    /// billing.subscribe(&returns)?;
    /// returns.producer().create()?.publish(|item| *item = 7)?;
    /// assert_eq!(billing.poll(Duration::from_secs(5))?.unwrap().partition().unwrap().topic.as_ref(), "returns");
    /// assert!(billing.unsubscribe(&returns)?);                // its event was not committed: the next reader has it
    /// assert_eq!(billing.topics(), ["orders"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The topic has ended, or belongs to another engine; the event at the group's committed offset is no longer kept
    /// ([`GroupError::OutOfRange`], with the range), which is possible in a topic in memory that no member has read for
    /// a while; the topic has no journal but the group [spills](crate::group::GroupBuilder::spill); the journal refuses
    /// the first offset. Then the member reads what it read before. [`GroupError::Fenced`]: the member must
    /// [join again](Self::rejoin).
    pub fn subscribe(&mut self, topic: &Topic<E, K>) -> Result<(), GroupError> {
        let added = self.group.subscribe(self.id, &self.topics, &topic.inner);
        added.map_err(|refused| self.fenced_if_gone(refused))?;
        self.apply_change()
    }

    /// Makes this member read `topic` no more, without leaving the group. Returns false if it did not read the topic.
    /// Its partitions there go to the members that still read the topic; its listener is called with them. What the
    /// group has committed stays committed. If no member reads the topic any more, producers do not wait for the group
    /// there, unless it [holds](crate::group::GroupBuilder::hold) them.
    ///
    /// A [pattern](crate::group::GroupBuilder::matching) does not add the topic again; [`subscribe`](Self::subscribe)
    /// does.
    ///
    /// # Errors
    /// [`GroupError::NoTopics`]: this is the only topic of a member without a pattern, which [leaves](Self::leave)
    /// instead. [`GroupError::Fenced`]: the member must [join again](Self::rejoin).
    pub fn unsubscribe(&mut self, topic: &Topic<E, K>) -> Result<bool, GroupError> {
        let removed = self.group.remove_topic(self.id, &self.topics, topic.inner.id, false);
        let removed = removed.map_err(|refused| self.fenced_if_gone(refused))?;
        self.apply_change()?;
        Ok(removed)
    }

    /// Applies a change of the topics that the group has made. An error that is not about that change is kept for the
    /// next poll.
    fn apply_change(&mut self) -> Result<(), GroupError> {
        match self.take_update() {
            Err(refused @ GroupError::Fenced(_)) => Err(refused),
            Err(refused) => {
                self.found.get_or_insert(refused);
                self.unsettled = true;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn fenced_if_gone(&self, refused: GroupError) -> GroupError {
        match refused {
            GroupError::NotMember { .. } => self.group.fenced(self.epoch).into(),
            refused => refused,
        }
    }

    /// Joins the group again after this member was fenced, as a new member with the same settings. Topics that were
    /// halted or have failed are left out if the member has others.
    ///
    /// # Errors
    /// As for [`GroupBuilder::join`](crate::group::GroupBuilder::join). The member then stays fenced.
    pub fn rejoin(&mut self) -> Result<(), GroupError> {
        if self.has_live_topics() {
            drop(self.topics.retain(|topic| !is_gone(topic)));
        }
        self.group.search_first(&self.topics)?;
        let (id, signal) = self.group.join(&self.settings.joining, &self.topics)?;
        // Leaves as the old member too, in case that it was not fenced.
        self.group.leave(self.id, self.partitions.take_all(), true);
        self.watch.renew(Arc::clone(&signal.waiter));
        (self.id, self.signal, self.epoch, self.unsettled, self.over) = (id, signal, 0, true, false);
        self.group.search_again(self.id, &self.topics)
    }

    /// True if at least one of the member's topics was neither halted nor has failed, or its pattern may find more.
    pub(in crate::group) fn has_live_topics(&self) -> bool {
        self.topics.has_pattern() || self.topics.all().iter().any(|topic| !is_gone(topic))
    }
}
