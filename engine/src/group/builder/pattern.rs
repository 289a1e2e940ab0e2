//! Members whose topics are found by a pattern, also those that are created later.

use super::{GroupBuilder, GroupName};
use crate::base::kind::Producers;
use std::sync::Arc;

impl GroupName {
    /// Returns the builder of a member that reads each topic whose name `pattern` accepts: those of the engine, and those
    /// that are created later. See [`GroupBuilder::matching`].
    pub fn matching<E: Send + Sync + 'static, K: Producers>(
        self,
        pattern: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> GroupBuilder<E, K> {
        GroupBuilder::new(self.host, self.name, Vec::new()).matching(pattern)
    }
}

impl<E: Send + Sync + 'static, K: Producers> GroupBuilder<E, K> {
    /// Makes the member read, beside the topics that were named, each open topic of the type `Topic<E, K>` whose name
    /// `pattern` accepts: those of the engine when the member joins, and those that are created while it is in the group.
    /// A program that wants regular expressions calls them in `pattern`.
    ///
    /// ```
    /// # use slipring::{Engine, producer::Multi};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # engine.topic::<u64>("news.sport").create()?;
    /// let mut member = engine.group("prices").matching::<u64, Multi>(|name| name.starts_with("ticks.")).join()?;
    /// assert!(member.topics().is_empty());
    /// let ticks = engine.topic::<u64>("ticks.eur").create()?;
    /// ticks.producer().create()?.publish(|tick| *tick = 42)?;     // the group reads the topic already
    /// let batch = member.poll(Duration::from_secs(5))?.unwrap();
    /// assert_eq!(batch.iter().map(|(tick, _)| *tick).collect::<Vec<_>>(), [42]);
    /// batch.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// - The group reads a new topic before its creation returns, so it misses no event of it. It begins there at its
    ///   committed offset or, if it has none, at [`start`](Self::start).
    /// - A new topic moves only partitions that must move, once for all members that find it.
    /// - If the group cannot read a topic that was created (for example because it was to start at an offset that the topic
    ///   does not have, or because the group [spills](Self::spill) and the topic has no journal), the creation succeeds,
    ///   and the member's next poll returns the error, once: its pattern does not find the topic again. A managed member
    ///   ends with it.
    /// - A member without topics waits. A poll returns `None` once the engine is
    ///   [shut down](crate::Engine::shutdown), or its last handle dropped, and all topics are closed and read.
    /// - A topic that is deleted goes from the member. A later one of the same name is found again, but
    ///   [unsubscribed](crate::group::Member::unsubscribe) topics are not.
    /// - Topics that have ended are passed over. One that a queue has
    ///   [created](crate::queue::QueueBuilder::dead_letter) for its dead letters is found too, and gets its slots then.
    /// - While a named member is [away](Self::member_name), nothing is added for it. It finds the topics when it returns.
    ///
    /// `pattern` is called with each name at least once, on the thread that joins or that creates the topic, without a
    /// lock. It must not create a topic whose creation calls it again without end. Each member has a pattern of its own; if
    /// several find a new topic, the start of the first counts. Of a managed member's
    /// [error policy](Self::on_error), topics that a pattern finds change nothing.
    pub fn matching(mut self, pattern: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.settings.joining.pattern = Some(Arc::new(pattern));
        self
    }
}
