//! A subscriber's settings, and the ways to start it.

use super::{Membership, PartitionConsumer, StartAt, Subscriber};
use crate::base::backoff::Backoff;
use crate::base::batch_retries::RetryLimit;
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

/// The producer of a subscriber's dead letters, shared by the subscriber's threads.
pub(crate) type SharedForwarder<E> = Arc<Turn<DeadLetterForwarder<E>>>;

/// Settings of a subscriber. By default its thread is not pinned, and sleeps when idle.
pub struct SubscriberBuilder<E, K: Producers = Multi> {
    pub(crate) topic: Arc<TopicCore<E, K>>,
    pub(crate) name: String,
    pub(crate) after: Vec<String>,
    pub(crate) start: StartAt,
    pub(crate) wait: Wait,
    pub(crate) limit: usize,
    pub(crate) core: Option<usize>,
    pub(crate) on_error: OnError,
    /// `None` if no batch is handled again as a whole.
    pub(crate) retry_batch: Option<RetryLimit>,
    pub(crate) dead_letters: Option<Result<SharedForwarder<E>, DeadLetterError>>,
    slow: Option<Slow>,
    visible: Option<Visible>,
}

impl<E: Send + Sync + 'static, K: Producers> Topic<E, K> {
    /// Returns the settings of a new subscriber, which reads every event of this topic. Finish them with
    /// [`run`](SubscriberBuilder::run) or [`poll`](SubscriberBuilder::poll).
    pub fn subscribe(&self, name: impl Into<String>) -> SubscriberBuilder<E, K> {
        SubscriberBuilder::new(Arc::clone(&self.inner), name.into())
    }
}

impl<E: Send + Sync + 'static, K: Producers> SubscriberBuilder<E, K> {
    pub(crate) fn new(topic: Arc<TopicCore<E, K>>, name: String) -> Self {
        let (core, wait) = topic.host.cores.planned(&name);
        let on_error = topic.on_error();
        Self {
            topic,
            name,
            after: Vec::new(),
            start: StartAt::default(),
            wait: wait.unwrap_or_default(),
            limit: usize::MAX,
            core,
            on_error,
            retry_batch: None,
            dead_letters: None,
            slow: None,
            visible: None,
        }
    }

    /// Orders this subscriber after the named subscribers of the same topic: it reads an event only when each of them
    /// has read it.
    pub fn after<S: AsRef<str>>(mut self, subscribers: impl IntoIterator<Item = S>) -> Self {
        self.after.extend(subscribers.into_iter().map(|name| name.as_ref().to_owned()));
        self
    }

    /// Sets where the subscriber begins to read; [`StartAt::Earliest`] by default: the earliest event that is in the
    /// ring. Events that only the journal of a durable topic has, such as those of an earlier process, are read by a
    /// [replay](crate::Topic::replay) or a [group](crate::Topic::group): see [`StartAt`].
    pub fn start(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// Pins the subscriber's thread to the processor core with this number in the operating system. If the pin is
    /// refused, starting the subscriber is an error. Ignored by [`poll`](Self::poll), which starts no thread.
    pub fn pin(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Sets how the subscriber waits for events.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Sets the greatest count of events in one batch; 0 counts as 1. Unlimited by default.
    pub fn limit(mut self, events: usize) -> Self {
        self.limit = events.max(1);
        self
    }

    /// Sets what happens when the handler returns an error or panics. By default, unless the
    /// [topic](crate::TopicBuilder::on_error) or the [engine](crate::EngineBuilder::on_error) says otherwise, the topic is
    /// closed with this subscriber's name and the cause, so that no event is lost silently and no thread waits for ever.
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.on_error = policy;
        self
    }

    /// Handles a batch again, as a whole, when the handler fails on one of its events: up to `retries` times, each after
    /// the delay that `backoff` gives for the attempts so far. For handlers that gather the events of a batch and write
    /// them at its [end](crate::subscriber::At::end_of_batch), into a database for example. By default, and with 0
    /// retries, events are handled one by one.
    ///
    /// Nothing of a batch counts as read before all of it is handled, so the handler gets the batch's first events again.
    /// If the last attempt fails, too, the [policy](Self::on_error) applies to the whole batch: it stays unread and the
    /// topic is closed, or all of its events are skipped, or become [dead letters](Self::dead_letter). A batch has at most
    /// a quarter of the capacity, as its slots are not free before.
    ///
    /// After a failure other partitions have one turn each. Then the subscriber's thread sleeps until the next attempt
    /// is due by the engine's [clock](crate::clock), the subscriber is cancelled or evicted, or the topic is halted. It
    /// reads no other partition meanwhile: [`run_each`](Self::run_each) gives each partition a thread.
    ///
    /// ```
    /// # use slipring::{Engine, subscriber::Backoff};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # let ticks = engine.topic::<u64>("ticks").create()?;
    /// # let (stored, seen) = std::sync::mpsc::channel();
    /// let (mut rows, mut failures) = (Vec::new(), 2);
    /// let backoff = Backoff::exponential(Duration::from_millis(1), Duration::from_secs(1));
    /// ticks.subscribe("store").retry_batch(10, backoff).run(move |tick: &u64, at| {
    ///     rows.push(*tick);
    ///     if at.end_of_batch {
    ///         let rows = std::mem::take(&mut rows);
    ///         if failures > 0 { failures -= 1; return Err("the database is away"); }
    ///         stored.send(rows).unwrap();
    ///     }
    ///     Ok(())
    /// })?;
    /// ticks.producer().create()?.publish_batch(3, |index, tick| *tick = index as u64)?;
    /// assert_eq!(seen.recv()?, [0, 1, 2]);
    /// # engine.shutdown(Duration::from_secs(5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`OnError::Retry`] and [`OnError::RetryThenSkip`], which repeat one event, contradict this setting: both together
    /// are refused. Ignored by [`poll`](Self::poll).
    pub fn retry_batch(mut self, retries: u32, backoff: Backoff) -> Self {
        self.retry_batch = (retries > 0).then_some(RetryLimit { retries, backoff });
        self
    }

    /// Sets what happens when producers have no room because of this subscriber. By default the [topic's
    /// setting](crate::TopicBuilder::slow) applies.
    pub fn slow(mut self, policy: Slow) -> Self {
        self.slow = Some(policy);
        self
    }

    /// On a [durable](crate::TopicBuilder::durable) topic, lets the subscriber read only events that are written, or
    /// durable. By default it reads events as soon as they are published, although a crash may still lose them. With a
    /// journal that does [not sync](crate::journal::Pace::sync) its frames, events may become durable only when the
    /// engine is shut down.
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

    /// Sets a dead-letter topic for events that the handler of a managed subscriber fails on. After the retries of the
    /// [policy](Self::on_error) such an event is copied to that topic and skipped, also where the policy alone would
    /// stop the subscriber. So with the default policy an event is moved after its first failure. If that topic refuses
    /// the event, the subscriber stops.
    ///
    /// The headers of a [`Message`](crate::Message) say where it came from and why it failed: see
    /// [`DeadLetter`](crate::dead_letter::DeadLetter). Like any topic, the dead-letter topic keeps events only if a
    /// consumer reads it, or it [retains](crate::TopicBuilder::retain) events or is durable.
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

    /// Takes the dead-letter producer out of the settings; `None` if no dead-letter topic was set.
    pub(crate) fn forwarder(&mut self) -> Result<Option<SharedForwarder<E>>, SubscribeError> {
        self.dead_letters.take().transpose().map_err(|cause| {
            let (topic, consumer) = (self.topic.name.clone(), self.name.clone());
            SubscribeError::DeadLetters { topic, consumer, cause: Box::new(cause) }
        })
    }

    /// Starts the subscriber without a thread: the caller polls it.
    ///
    /// # Errors
    /// Those of [`run`](Self::run), except for the pin, which is ignored.
    pub fn poll(self) -> Result<Subscriber<E, K>, SubscribeError> {
        let topic = Arc::clone(&self.topic);
        let membership = Membership::new(&self, self.stats());
        let mut readers = topic.readers();
        let parts = self.join_all()?;
        if parts.is_empty() && readers.has(&self.name) {
            return Err(SubscribeError::NameTaken { topic: topic.name.clone(), consumer: self.name });
        }
        topic.register(&membership.stats);
        readers.add(Arc::downgrade(&membership) as Weak<dyn TopicReader<E, K>>);
        drop(readers);
        Ok(Subscriber::new(Arc::clone(&topic), membership, parts, self.limit, self.visible))
    }

    /// Joins the rings of all partitions of the topic, and returns the consumers. The caller prevents new partitions
    /// meanwhile.
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
            // A topic that has ended may not have closed its rings yet; then the reason is `Closed`.
            let reason = partitions.iter().find_map(|partition| partition.ring.closed());
            let reason = reason.unwrap_or(slipring_ring::Closed::Closed);
            return Err(SubscribeError::new(&self.topic.name, 0, reason.into()));
        }
        let joined = partitions.iter().map(|partition| {
            let start = self.start.in_ring(partition.index);
            let consumer = partition.join(&self.topic.name, self.stage().start(start))?;
            let mut part = PartitionConsumer { partition: Arc::clone(partition), consumer };
            part.move_to_start(&self.start, &self.topic)
                .map_err(|refused| SubscribeError::OutOfRange { consumer: self.name.clone(), refused })?;
            Ok(part)
        });
        joined.collect()
    }

    /// A subscriber of this partition alone, which gets no partitions that are added later.
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

    /// The stage with which the subscriber joins each partition's ring.
    pub(crate) fn stage(&self) -> Stage {
        Stage::new(self.name.clone()).after(self.after.iter().cloned()).wait(self.wait.clone()).limit(self.limit)
    }
}
