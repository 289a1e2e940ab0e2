//! The settings of a topic that is shared to a ring of other processes, and the opening.

use super::error::RingLinkError;
use super::handle::{LinkRun, RingLink};
use super::outward::{self, RingWriter, ShareSource};
use super::ring::{RingSettings, hold_for};
use crate::base::kind::Producers;
use crate::base::overload::ConsumerStats;
use crate::base::wakeup::Wakeup;
use crate::log::gap::OnGap;
use crate::read::{StartAt, reader_thread};
use crate::topic::Topic;
use crate::topic::consumers::SetWait;
use crate::topic::ring_link::{RingDirection, RingLinkState};
use slipring_journal::Visible;
use slipring_ring::shared::{self, SharedProducer, SharedRing, Size};
use slipring_ring::{Multi, Wait};
use std::sync::{Arc, Weak};

/// What a topic that is shared does while the ring has no room, because a consumer of the ring is slow, or stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenRingFull {
    /// The link waits, so nothing is lost. A topic in memory holds its producers once its own ring is full, too. A durable
    /// topic holds nobody: the link reads on from the journal when there is room.
    #[default]
    Wait,
    /// The newest events are lost for all consumers of the ring, and [counted](super::RingLink::lost).
    Lose,
}

/// Settings of a topic that is shared to a ring of other processes: see [`Topic::share`].
pub struct ShareBuilder<E, K: Producers = Multi> {
    topic: Topic<E, K>,
    ring: RingSettings,
    name: String,
    held: Vec<String>,
    when_full: WhenRingFull,
    start: StartAt,
    visible: Option<Visible>,
    on_gap: OnGap,
    core: Option<usize>,
    wait: Wait,
}

impl<E: shared::Event, K: Producers> Topic<E, K> {
    /// Returns the settings of a link that publishes each event of this topic to the shared ring `ring`, which other
    /// processes read: by `slipring_ring::shared`, from C and from Python. Finish them with
    /// [`open`](ShareBuilder::open). The page of [`share`](crate::share) says what is promised.
    pub fn share(&self, ring: impl Into<String>) -> ShareBuilder<E, K> {
        let ring = RingSettings::new(ring.into());
        let (name, start, on_gap) = (format!("ring.{}", ring.name), StartAt::Earliest, OnGap::Fail);
        let (held, when_full, visible) = (Vec::new(), WhenRingFull::default(), None);
        let (core, wait) = (None, Wait::default());
        ShareBuilder { topic: self.clone(), ring, name, held, when_full, start, visible, on_gap, core, wait }
    }
}

impl<E: shared::Event, K: Producers> ShareBuilder<E, K> {
    /// Sets the name that the link has as a consumer of the topic, and its thread; `ring.` and the ring's name by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the ring's size: a count of slots, a power of two, or a [`Size`]. If the ring exists, it must have this size.
    /// By default a ring that exists is taken as it is, and a new one has the topic's capacity.
    pub fn size(mut self, size: impl Into<Size>) -> Self {
        self.ring.size = Some(size.into());
        self
    }

    /// Names consumers of the ring that miss no event from the link's first one on, also while they are not running: each
    /// is [held](slipring_ring::shared::ConsumerBuilder::hold) before the link publishes. One that never comes fills the
    /// ring, until it is [released](slipring_ring::shared::SharedRing::release).
    pub fn hold<S: Into<String>>(mut self, consumers: impl IntoIterator<Item = S>) -> Self {
        self.held.extend(consumers.into_iter().map(Into::into));
        self
    }

    /// Sets what the link does while the ring has no room; [`WhenRingFull::Wait`] by default.
    pub fn when_full(mut self, choice: WhenRingFull) -> Self {
        self.when_full = choice;
        self
    }

    /// Sets where the link begins to read the topic; [`StartAt::Earliest`] by default. A durable topic whose events are in
    /// the ring already is read on behind them, whatever this says.
    pub fn start(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// On a durable topic, sets which events other processes see: durable ones only by default, or also written ones, which
    /// a power cut may lose. Refused on a topic in memory.
    pub fn visible(mut self, visible: Visible) -> Self {
        self.visible = Some(visible);
        self
    }

    /// On a durable topic, sets what happens where events were lost to damage; by default the link ends with the error.
    pub fn on_gap(mut self, policy: OnGap) -> Self {
        self.on_gap = policy;
        self
    }

    /// Pins the link's thread to the processor core with this number in the operating system.
    pub fn pin(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Sets how the link's thread waits for events of a topic in memory, and for room in the ring. The thread of a durable
    /// topic is woken by the journal.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Opens the ring, or creates it, joins it as its producer, and starts the thread that publishes.
    ///
    /// # Errors
    /// The ring cannot be opened or joined, or is for several producers; the name is invalid or taken, the thread could not
    /// be started, the topic is closed, or its journal cannot be read; the topic is durable and has several partitions, or
    /// the ring is of another journal. On other systems than Linux: [`SharedError::Unsupported`](shared::SharedError).
    pub fn open(mut self) -> Result<RingLink, RingLinkError> {
        let capacity = self.topic.inner.settings.capacity.next_power_of_two();
        let ring: SharedRing<E> = self.ring.open_or_create(Size::slots(capacity))?;
        hold_for(&ring, std::mem::take(&mut self.held))?;
        let refused = |cause| RingLinkError::Ring { ring: ring.name().to_owned(), cause };
        let out = ring.producer().map_err(refused)?.wait(self.wait.clone());
        let largest = ring.capacity() - ring.retained();
        if self.topic.inner.durable.is_some() {
            return self.share_durable(out, largest);
        }
        let subscriber = self.topic.subscribe(self.name.clone()).start(self.start.clone()).wait(self.wait.clone());
        let subscriber = match self.visible {
            Some(visible) => subscriber.visible(visible),
            None => subscriber,
        };
        let subscriber = subscriber.poll()?;
        let (wakeup, stats) = (subscriber.wakeup(), Arc::clone(&subscriber.membership.stats));
        let membership = Arc::downgrade(&subscriber.membership) as Weak<dyn SetWait>;
        self.start_thread(out, largest, subscriber, (wakeup, stats, Some(membership)))
    }

    fn share_durable(self, out: SharedProducer<E>, largest: usize) -> Result<RingLink, RingLinkError> {
        let topic = &self.topic;
        if topic.partitions() != 1 {
            let (topic, partitions) = (topic.name().to_owned(), topic.partitions());
            return Err(RingLinkError::Partitions { topic, partitions });
        }
        let start = match out.note() {
            Some(offset) => {
                let published = topic.inner.partitions()[0].ring.positions().published.0;
                if offset > published {
                    let (ring, topic) = (self.ring.name, topic.name().to_owned());
                    return Err(RingLinkError::Ahead { ring, topic, offset, published });
                }
                StartAt::Offset(offset)
            }
            None => self.start.clone(),
        };
        let replay = topic.replay(self.name.clone()).start(start).on_gap(self.on_gap.clone());
        let replay = replay.visible(self.visible.unwrap_or(Visible::Durable)).open()?;
        let (wakeup, stats) = (replay.wakeup(), replay.stats());
        self.start_thread(out, largest, replay, (wakeup, stats, None))
    }

    fn start_thread(
        self,
        out: SharedProducer<E>,
        largest: usize,
        source: impl ShareSource<E> + Send + 'static,
        (wakeup, stats, membership): (Wakeup, Arc<ConsumerStats>, Option<Weak<dyn SetWait>>),
    ) -> Result<RingLink, RingLinkError> {
        let Self { topic, ring, name, when_full, core, wait, .. } = self;
        let run = LinkRun::new(RingLinkState::new(&ring.name, &name, RingDirection::Shared));
        let to = RingWriter::new(out, largest, &run, &topic.inner, when_full);
        let life = move || outward::run(source, to, &name);
        reader_thread::start(&topic.inner, stats, membership, (core, wait), life)?;
        topic.inner.ring_links.add(&run.state);
        Ok(RingLink { run, wakeup: Some(wakeup) })
    }
}
