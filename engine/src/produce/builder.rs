//! A producer's settings, its creation, its clones and its end.

use super::Producer;
use crate::base::kind::Producers;
use crate::base::level::Level;
use crate::base::rate::{Limiter, RateLimit};
use crate::produce::append::Appender;
use crate::produce::partitioner::{PartitionPicker, Partitioner};
use crate::produce::readers::WhenUnread;
use crate::produce::room::RoomRequest;
use crate::topic::error::ProducerError;
use crate::topic::{ProducerCount, Topic, TopicCore};
use slipring_ring::{ManyProducers, Multi, Wait};
use std::sync::Arc;

/// Settings of a producer.
pub struct ProducerBuilder<E, K: Producers = Multi> {
    pub(crate) topic: Arc<TopicCore<E, K>>,
    partitioner: Partitioner,
    wait: Wait,
    pub(crate) level: Level,
    rate_limit: Option<RateLimit>,
    when_unread: WhenUnread,
}

impl<E: Send + Sync + 'static, K: Producers> Topic<E, K> {
    /// Returns the settings of a new producer of this topic, to be finished with [`create`](ProducerBuilder::create).
    pub fn producer(&self) -> ProducerBuilder<E, K> {
        ProducerBuilder::new(Arc::clone(&self.inner))
    }
}

impl<E: Send + Sync + 'static, K: Producers> ProducerBuilder<E, K> {
    pub(crate) fn new(topic: Arc<TopicCore<E, K>>) -> Self {
        let (partitioner, wait) = (Partitioner::default(), Wait::default());
        let when_unread = WhenUnread::default();
        Self { topic, partitioner, wait, level: Level::Published, rate_limit: None, when_unread }
    }

    /// Sets which partition an event goes to if the call names none; [`Partitioner::KeyHash`] by default.
    pub fn partitioner(mut self, partitioner: Partitioner) -> Self {
        self.partitioner = partitioner;
        self
    }

    /// Sets how the producer waits while a partition is full; by default it parks.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Sets the level that an event has reached when a publish returns; [`Level::Published`] by default.
    ///
    /// An event is written only after all slots that were claimed before it in its partition are published. So the
    /// closure that fills an event must not publish into the same partition through a producer with a higher level than
    /// published: that publish waits for the closure's own claim, until the engine is shut down.
    pub fn acknowledge(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Sets how many events and bytes the producer may publish per second; unlimited by default. Its clones share the
    /// limit.
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.rate_limit = Some(limit);
        self
    }

    /// Sets what a publish does while nobody reads the topic; [`WhenUnread::Publish`] by default. With another choice each
    /// publish, or batch, takes a lock to find a reader; the default costs nothing.
    pub fn when_unread(mut self, choice: WhenUnread) -> Self {
        self.when_unread = choice;
        self
    }

    /// Creates the producer. The cost does not depend on the number of partitions: the first event for a partition sets
    /// up the producer's access to it, which takes some hundred bytes. If the journal had the durable topic before this
    /// engine opened it, the topic's first producer waits until the topic's next offsets are reserved durably; one sync
    /// does this for all topics that were opened until then.
    ///
    /// # Errors
    /// The topic has a single producer which is in use, the topic does not support the level, or it is closed; or the
    /// journal cannot reserve offsets.
    pub fn create(self) -> Result<Producer<E, K>, ProducerError> {
        self.check()?;
        let Self { topic, partitioner, wait, level, rate_limit, when_unread } = self;
        let name = || topic.name.clone();
        if rate_limit.is_some() || when_unread == WhenUnread::Wait {
            topic.start_timer()?;
        }
        let first = Appender::lend(&topic.partitions()[0], &wait);
        let first = first.ok_or_else(|| ProducerError::Taken { topic: name() })?;
        let count = ProducerCount::new(&topic);
        let limiter = rate_limit.map(|limit| Arc::new(Limiter::new(limit, topic.host.clock.now())));
        let is_limited = limiter.is_some() || topic.limiter.is_some();
        let is_conditional = is_limited || when_unread != WhenUnread::Publish;
        let is_bare = !topic.settings.timestamps && !is_conditional && level <= Level::Published;
        let picker = PartitionPicker::new(partitioner);
        let (first, more) = (first.first(), Vec::new());
        let fast_path = usize::from(is_bare);
        let (stamp, room) = (None, RoomRequest::new(1, None));
        Ok(Producer {
            topic,
            fast_path,
            level,
            first,
            more,
            picker,
            wait,
            limiter,
            when_unread,
            is_conditional,
            is_bare,
            stamp,
            room,
            _count: count,
        })
    }

    /// Returns an error if the topic is closed or does not support the level; otherwise waits until the topic's next
    /// offsets are reserved durably. [`create`](Self::create) begins with this, and does not wait for the journal after
    /// it.
    pub(crate) fn check(&self) -> Result<(), ProducerError> {
        let Self { topic, level, .. } = self;
        let name = || topic.name.clone();
        // `closed` checks all partitions, so it is called only if the topic or its first partition has ended.
        let is_closed = || topic.partitions().first().is_some_and(|first| first.ring.closed().is_some());
        if let Some(reason) = (topic.has_ended() || is_closed()).then(|| topic.closed()).flatten() {
            return Err(ProducerError::Closed { topic: name(), reason });
        }
        let durable = topic.durable.as_ref();
        let bridged = durable.and_then(|durable| durable.acks.bridged());
        if let Some(reason) = level.unsupported(durable.map(|durable| durable.committer.syncs), bridged) {
            return Err(ProducerError::Unsupported { topic: name(), level: *level, reason });
        }
        let Some(durable) = &topic.durable else { return Ok(()) };
        durable.wait_reserved().map_err(|cause| ProducerError::NotReserved { topic: name(), cause })
    }
}

impl<E, K: Producers> Producer<E, K> {
    /// [`Clone::clone`], for topics with any number of producers, so that the compiler says of a single producer what to do.
    #[doc(hidden)]
    #[expect(clippy::should_implement_trait, reason = "it is implemented; this words the refusal")]
    #[inline]
    pub fn clone(&self) -> Self
    where
        K: ManyProducers,
    {
        Clone::clone(self)
    }
}

impl<E, K: Producers + ManyProducers> Clone for Producer<E, K> {
    fn clone(&self) -> Self {
        let appender = |appender: &Appender<E, K>| Appender {
            ring: appender.ring.clone(),
            partition: Arc::clone(&appender.partition),
        };
        Self {
            topic: Arc::clone(&self.topic),
            fast_path: self.fast_path,
            level: self.level,
            first: appender(&self.first).first(),
            more: self.more.iter().map(|more| more.as_ref().map(appender)).collect(),
            picker: PartitionPicker::new(self.picker.partitioner.clone()),
            wait: self.wait.clone(),
            limiter: self.limiter.clone(),
            when_unread: self.when_unread,
            is_conditional: self.is_conditional,
            is_bare: self.is_bare,
            stamp: self.stamp,
            room: self.room.again(),
            _count: ProducerCount::new(&self.topic),
        }
    }
}

impl<E, K: Producers> Drop for Producer<E, K> {
    fn drop(&mut self) {
        self.more.drain(..).flatten().for_each(Appender::give_back);
    }
}
