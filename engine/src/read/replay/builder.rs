//! The settings of a replay, and its opening.

use super::{Replay, ReplayError, ReplayPartition};
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
    /// A reader of a [durable](crate::TopicBuilder::durable) topic that begins in the journal, however far back, and goes on with
    /// what is published. Its settings, then [`open`](ReplayBuilder::open).
    pub fn replay(&self, name: impl Into<String>) -> ReplayBuilder<E, K> {
        ReplayBuilder::new(Arc::clone(&self.inner), name.into())
    }
}

impl<E: Send + Sync + 'static, K: Producers> ReplayBuilder<E, K> {
    pub(crate) fn new(topic: Arc<TopicCore<E, K>>, name: String) -> Self {
        Self { topic, name, start: StartAt::Earliest, visible: Visible::Durable, spill: true, on_gap: OnGap::Fail }
    }

    /// Where it begins: with the earliest record that the journal keeps, unless told. An offset may be up to the next one
    /// to be published. A time counts among what was published before it is opened; all that comes later is given.
    pub fn start(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// Whether it may see what a power cut can take back: durable records only, unless told.
    pub fn visible(mut self, visible: Visible) -> Self {
        self.visible = visible;
        self
    }

    /// Whether it leaves the ring and goes on from the journal when producers would have to wait for it: yes, unless told.
    pub fn spill(mut self, yes: bool) -> Self {
        self.spill = yes;
        self
    }

    /// What it does where events were lost to damage: an error at that offset, unless told.
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

    /// Opens it. Partitions that are added later are read from their first offset.
    ///
    /// # Errors
    /// The topic has no journal, the name is no name, or the start is out of the range that the journal keeps.
    pub fn open(self) -> Result<Replay<E, K>, ReplayError> {
        let refused = |cause| ReplayError::Refused { topic: self.topic.name.clone(), cause };
        check_name(&self.name).map_err(|cause| refused(SubscribeError::Name(cause).to_string()))?;
        self.open_as_named()
    }

    /// The same under a name that is the engine's own, as no user's may be.
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
                // Offsets that are only reserved are the journal's own business.
                let earliest = durable.journal().extent(durable.id(partition.index)).map_or(0, |extent| extent.start);
                let cause = journal::ReplayError::OutOfRange { asked, earliest, latest: published };
                return Err(ReplayError::Journal { topic: topic_name(), partition: partition.index, cause });
            }
            let from = match &start {
                StartAt::Earliest => From::Earliest,
                // What is not written yet is passed over, too.
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
        let stats = Arc::new(ConsumerStats::new(&name, slow));
        topic.register(&stats);
        let (name, mut scan) = (topic.name.clone(), durable.journal().scan(visible));
        parts.iter_mut().for_each(|part| part.expect(&mut scan));
        Ok(Replay { topic: Some(topic), name, durable, stats, parts, scan, visible, on_gap, event, turn: 0 })
    }
}
