//! A replay's settings, and its opening.

use super::{Replay, ReplayError, ReplayPartition, ReplayWake};
use crate::base::kind::Producers;
use crate::base::overload::{ConsumerStats, Slow};
use crate::log::gap::OnGap;
use crate::read::StartAt;
use crate::topic::error::{SubscribeError, check_name};
use crate::topic::{Topic, TopicCore};
use slipring_journal::{self as journal, Start as From, Visible};
use slipring_ring::Multi;
use std::sync::Arc;

/// Settings of a [`Replay`].
pub struct ReplayBuilder<E, K: Producers = Multi> {
    topic: Arc<TopicCore<E, K>>,
    name: String,
    start: StartAt,
    visible: Visible,
    spill: bool,
    on_gap: OnGap,
}

impl<E: Send + Sync + 'static, K: Producers> Topic<E, K> {
    /// Returns the settings of a reader of a [durable](crate::TopicBuilder::durable) topic, which begins in the
    /// journal, however far back, and continues with new events. Finish them with [`open`](ReplayBuilder::open).
    pub fn replay(&self, name: impl Into<String>) -> ReplayBuilder<E, K> {
        ReplayBuilder::new(Arc::clone(&self.inner), name.into())
    }
}

impl<E: Send + Sync + 'static, K: Producers> ReplayBuilder<E, K> {
    pub(crate) fn new(topic: Arc<TopicCore<E, K>>, name: String) -> Self {
        Self { topic, name, start: StartAt::Earliest, visible: Visible::Durable, spill: true, on_gap: OnGap::Fail }
    }

    /// Sets where the replay begins; by default at the earliest record that the journal keeps. An offset may be at most
    /// that of the next event to be published. A time selects among the events that are published when the replay is
    /// opened; all later events are returned whatever their time.
    pub fn start(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// Sets which events the replay returns: durable ones only by default, or also written ones, which a power cut may
    /// lose.
    pub fn visible(mut self, visible: Visible) -> Self {
        self.visible = visible;
        self
    }

    /// Sets what happens when producers would have to wait for the replay: if true, the default, it leaves the ring and
    /// continues from the journal; if false, they wait.
    pub fn spill(mut self, yes: bool) -> Self {
        self.spill = yes;
        self
    }

    /// Sets what happens where events were lost to damage; by default an error, once, at those offsets.
    ///
    /// ```
    /// # use slipring::{Engine, journal::simulated::SimulatedDisk, replay::OnGap};
    /// # let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
    /// # let ticks = engine.topic::<u64>("ticks").durable().create()?;
    /// let replay = ticks.replay("tape").on_gap(OnGap::call(|gap| eprintln!("{gap}"))).open()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_gap(mut self, policy: OnGap) -> Self {
        self.on_gap = policy;
        self
    }

    /// Opens the replay. Partitions that are added later are read from their first offset.
    ///
    /// # Errors
    /// The topic is not durable, the name is invalid, or the start is outside of the range that the journal keeps.
    pub fn open(self) -> Result<Replay<E, K>, ReplayError> {
        let refused = |cause| ReplayError::Refused { topic: self.topic.name.clone(), cause };
        check_name(&self.name).map_err(|cause| refused(SubscribeError::Name(cause).to_string()))?;
        self.open_as_named()
    }

    /// As [`open`](Self::open), for a name of the engine's own, which users may not choose.
    pub(crate) fn open_as_named(self) -> Result<Replay<E, K>, ReplayError> {
        let Self { topic, name, start, visible, spill, on_gap } = self;
        let topic_name = || topic.name.clone();
        let Some(durable) = &topic.durable else { return Err(ReplayError::NotDurable { topic: topic_name() }) };
        let durable = Arc::clone(durable);
        let refused = |cause: String| ReplayError::Refused { topic: topic.name.clone(), cause };
        let mut parts = Vec::new();
        for partition in topic.partitions().iter() {
            let published = partition.ring.positions().published.0;
            if let Some(asked) = start.offset(partition.index).filter(|asked| *asked > published) {
                // Offsets above this are reserved by the journal, and not published yet.
                let earliest = durable.journal().extent(durable.id(partition.index)).map_or(0, |extent| extent.start);
                let cause = journal::ReplayError::OutOfRange { asked, earliest, latest: published };
                return Err(ReplayError::Journal { topic: topic_name(), partition: partition.index, cause });
            }
            let from = match &start {
                StartAt::Earliest => From::Earliest,
                // Published events that are not written yet are skipped too.
                StartAt::Latest => From::Offset(published),
                StartAt::Offset(offset) => From::Offset(*offset),
                StartAt::Offsets(offsets) => {
                    offsets.get(partition.index as usize).map_or(From::Earliest, |offset| From::Offset(*offset))
                }
                StartAt::Timestamp(time) => From::Time(time.as_nanos()),
                StartAt::Committed => return Err(refused("only groups have committed offsets".to_owned())),
            };
            parts.push(ReplayPartition::open(&topic, &durable, partition, from)?);
        }
        let mut make = (topic.slots)(1).map_err(|cause| refused(cause.to_string()))?;
        let event = make();
        drop(make);
        let slow = if spill { Slow::EVICT } else { Slow::Gate };
        let stats = Arc::new(ConsumerStats::in_journal(&name, slow));
        topic.register(&stats);
        let (name, mut scan) = (topic.name.clone(), durable.journal().scan(visible));
        parts.iter_mut().for_each(|part| part.expect(&mut scan));
        let outside = ReplayWake::new(&durable);
        let topic = Some(topic);
        Ok(Replay { topic, name, durable, stats, parts, scan, visible, on_gap, event, turn: 0, outside })
    }
}
