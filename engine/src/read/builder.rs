//! A subscriber's settings, and the forms in which it runs.

use super::{Membership, PartitionConsumer, StartAt, Subscriber, TooOld};
use crate::base::kind::Producers;
use crate::base::overload::{ConsumerStats, Slow};
use crate::base::turn::Turn;
use crate::read::dead_letters::{DeadLetterForwarder, ToDeadLetter};
use crate::topic::error::DeadLetterError;
use crate::topic::error::{SubscribeError, check_name};
use crate::topic::{Topic, TopicCore, TopicReader};
use slipring_journal::Visible;
use slipring_ring::{Multi, OnError, Stage, Wait};
use std::sync::{Arc, Weak};

/// The way into a topic for dead letters, shared by the threads of a subscriber.
pub(crate) type SharedForwarder<E> = Arc<Turn<DeadLetterForwarder<E>>>;

/// Settings of a subscriber. Unpinned and parking when idle, unless told.
pub struct SubscriberBuilder<E, K: Producers = Multi> {
    pub(crate) topic: Arc<TopicCore<E, K>>,
    pub(crate) name: String,
    pub(crate) after: Vec<String>,
    pub(crate) start: StartAt,
    pub(crate) wait: Wait,
    pub(crate) limit: usize,
    pub(crate) core: Option<usize>,
    pub(crate) on_error: OnError,
    pub(crate) dead_letters: Option<Result<SharedForwarder<E>, DeadLetterError>>,
    slow: Option<Slow>,
    visible: Option<Visible>,
}

impl<E: Send + Sync + 'static, K: Producers> Topic<E, K> {
    /// A subscriber: sees every event of this topic. Its settings, then [`run`](SubscriberBuilder::run) or
    /// [`poll`](SubscriberBuilder::poll).
    pub fn subscribe(&self, name: impl Into<String>) -> SubscriberBuilder<E, K> {
        SubscriberBuilder::new(Arc::clone(&self.inner), name.into())
    }
}

impl<E: Send + Sync + 'static, K: Producers> SubscriberBuilder<E, K> {
    pub(crate) fn new(topic: Arc<TopicCore<E, K>>, name: String) -> Self {
        let (core, wait) = topic.host.cores.planned(&name);
        Self {
            topic,
            name,
            after: Vec::new(),
            start: StartAt::default(),
            wait: wait.unwrap_or_default(),
            limit: usize::MAX,
            core,
            on_error: OnError::default(),
            dead_letters: None,
            slow: None,
            visible: None,
        }
    }

    /// Reads an event only when each of these subscribers of the same topic has done with it.
    pub fn after<S: AsRef<str>>(mut self, subscribers: impl IntoIterator<Item = S>) -> Self {
        self.after.extend(subscribers.into_iter().map(|name| name.as_ref().to_owned()));
        self
    }

    /// Where the subscriber begins to read.
    pub fn start(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// Pins its thread to this core, by the system's number. A refused pin is an error, never a thread that runs
    /// elsewhere.
    pub fn pin(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// How it waits for events.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// At most so many events in one batch; 0 is taken as 1.
    pub fn limit(mut self, events: usize) -> Self {
        self.limit = events.max(1);
        self
    }

    /// What follows when the handler returns an error or panics. Unless told, the topic is closed with this
    /// subscriber's name and the cause: nothing is lost in silence, and nobody waits for ever.
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.on_error = policy;
        self
    }

    /// What happens when producers have no room because of this subscriber: what the
    /// [topic](crate::TopicBuilder::slow) says, unless told.
    pub fn slow(mut self, policy: Slow) -> Self {
        self.slow = Some(policy);
        self
    }

    /// Of a [durable](crate::TopicBuilder::durable) topic, reads only what is written, or durable; unless told it reads
    /// what is published at once, which a crash may take back. Where the journal does [not
    /// sync](crate::journal::Pace::sync), nothing is durable before the engine is shut down.
    ///
    /// ```
    /// # use slipring::{Engine, journal::{Visible, simulated::SimulatedDisk}};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
    /// let ticks = engine.topic::<u64>("ticks").durable().create()?;
    /// let mut careful = ticks.subscribe("careful").visible(Visible::Durable).poll()?;
    /// let receipt = ticks.producer().create()?.publish(|tick| *tick = 42)?;
    /// let mut batch = careful.poll(Duration::from_secs(60))?.unwrap();
    /// assert!((&mut batch).into_iter().next().is_some());
    /// assert_eq!(receipt.reached(), slipring::Level::Durable);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn visible(mut self, visible: Visible) -> Self {
        self.visible = Some(visible);
        self
    }

    /// What a managed subscriber would pass over goes to this topic first, and what it would stop for is passed over: so
    /// with the default policy, an event that fails once is moved aside. If the topic does not take it, the subscriber
    /// stops. A [`Message`](crate::Message) says where it comes from and why: see [`DeadLetter`](crate::dead_letter::DeadLetter).
    /// Somebody must read that topic, or it must [retain](crate::TopicBuilder::retain): like any other, it keeps nothing
    /// for nobody.
    ///
    /// ```
    /// # use slipring::{Engine, Message, Record, dead_letter::DeadLetter, subscriber::OnError};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// let orders = engine.topic::<Message>("orders").create()?;
    /// let dead = engine.topic::<Message>("orders.dead").retain(512).create()?;
    /// orders.subscribe("book").on_error(OnError::Retry(2)).dead_letter(&dead).run(|order, _| match order.value() {
    ///     b"" => Err("an empty order"),
    ///     _ => Ok(()),
    /// })?;
    /// let mut undertaker = dead.subscribe("undertaker").poll()?;
    /// orders.producer().create()?.send(Record::new(""))?;
    /// for (message, _) in &mut undertaker.poll(Duration::from_secs(60))?.unwrap() {
    ///     let letter = DeadLetter::read(message).unwrap();
    ///     assert_eq!((letter.attempts, &*letter.reason), (3, "an empty order"));
    /// }
    /// # drop(undertaker);
    /// # assert!(engine.shutdown(Duration::from_secs(60)).is_complete());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dead_letter<D: Producers>(mut self, topic: &Topic<E, D>) -> Self
    where
        E: ToDeadLetter,
    {
        let name = topic.name().to_owned();
        self.dead_letters = Some(match topic.producer().create() {
            _ if topic.id() == self.topic.id => Err(DeadLetterError::Circle { topic: name }),
            Ok(producer) => Ok(Turn::new(DeadLetterForwarder::new(topic, producer))),
            Err(cause) => Err(DeadLetterError::Producer { topic: name, cause }),
        });
        self
    }

    /// Takes the topic for dead letters out, if there is to be one.
    pub(crate) fn forwarder(&mut self) -> Result<Option<SharedForwarder<E>>, SubscribeError> {
        self.dead_letters.take().transpose().map_err(|cause| {
            let (topic, consumer) = (self.topic.name.clone(), self.name.clone());
            SubscribeError::DeadLetters { topic, consumer, cause: Box::new(cause) }
        })
    }

    /// A subscriber without a thread, to be polled from a loop of one's own.
    ///
    /// # Errors
    /// As [`run`](Self::run), but for the pin, which is not looked at.
    pub fn poll(self) -> Result<Subscriber<E, K>, SubscribeError> {
        let topic = Arc::clone(&self.topic);
        let membership = Membership::new(&self, self.stats());
        let mut readers = topic.readers();
        let parts = self.join_all()?;
        topic.register(&membership.stats);
        readers.add(Arc::downgrade(&membership) as Weak<dyn TopicReader<E, K>>);
        drop(readers);
        Ok(Subscriber::new(Arc::clone(&topic), membership, parts, self.limit, self.visible))
    }

    /// Joins all partitions that there are. No new one must come meanwhile.
    pub(crate) fn join_all(&self) -> Result<Vec<PartitionConsumer<E, K>>, SubscribeError> {
        check_name(&self.name).map_err(SubscribeError::Name)?;
        if matches!(self.start, StartAt::Timestamp(_)) && !self.topic.settings.timestamps {
            return Err(SubscribeError::NoTimestamps { topic: self.topic.name.clone(), consumer: self.name.clone() });
        }
        if self.start == StartAt::Committed {
            return Err(SubscribeError::NoGroup { topic: self.topic.name.clone(), consumer: self.name.clone() });
        }
        if self.visible.is_some() && self.topic.durable.is_none() {
            return Err(SubscribeError::NotDurable { topic: self.topic.name.clone(), consumer: self.name.clone() });
        }
        let partitions = self.topic.partitions();
        if self.topic.has_ended() {
            // It may be about to be told so.
            let reason = partitions.iter().find_map(|partition| partition.ring.closed());
            let reason = reason.unwrap_or(slipring_ring::Closed::Closed);
            return Err(SubscribeError::new(&self.topic.name, 0, reason.into()));
        }
        let joined = partitions.iter().map(|partition| {
            let start = self.start.in_ring(partition.index);
            let consumer = partition.join(&self.topic.name, self.stage().start(start))?;
            let mut part = PartitionConsumer { partition: Arc::clone(partition), consumer };
            part.move_to_start(&self.start, &self.topic).map_err(|TooOld { asked, earliest, latest }| {
                let (topic, consumer) = (self.topic.name.clone(), self.name.clone());
                SubscribeError::OutOfRange { topic, consumer, partition: partition.index, asked, earliest, latest }
            })?;
            Ok(part)
        });
        joined.collect()
    }

    /// A subscriber of one partition that nobody adds others to.
    pub(crate) fn of_one(&self, part: PartitionConsumer<E, K>, stats: &Arc<ConsumerStats>) -> Subscriber<E, K> {
        Subscriber::new(
            Arc::clone(&self.topic),
            Membership::new(self, Arc::clone(stats)),
            vec![part],
            self.limit,
            self.visible,
        )
    }

    pub(crate) fn stats(&self) -> Arc<ConsumerStats> {
        Arc::new(ConsumerStats::new(&self.name, self.slow.unwrap_or(self.topic.settings.slow)))
    }

    /// The stage that each ring is given.
    pub(crate) fn stage(&self) -> Stage {
        Stage::new(self.name.clone()).after(self.after.iter().cloned()).wait(self.wait.clone()).limit(self.limit)
    }
}
