//! Reading a topic: every subscriber sees every event.

use crate::bury::{Bury, Graveyard};
use crate::clock::Timestamp;
use crate::error::{Closed, PositionError, ReadError, SubscribeError, check_name};
use crate::graves::DeadLetterError;
use crate::overflow::{Slow, Tally};
use crate::partition::{Partition, Times};
use crate::producer::Producers;
use crate::subscription::{self, Policy, Subscription};
use crate::topic::{Inner, Reader, Topic};
use crate::watch::{Found, Watch, Watched};
use slipring_ring::{
    Batch as RingBatch, Consumer, Events, Multi, OnError, Sequence, Shared, Stage, Start, Wait, Waiter,
};
use std::fmt::{self, Display};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct At {
    /// The partition.
    pub partition: u32,
    /// The offset in it.
    pub offset: u64,
    /// Whether it is the last event of what is there at present: the moment to flush.
    pub end_of_batch: bool,
}

impl At {
    /// For tests of handlers.
    pub const fn new(partition: u32, offset: u64, end_of_batch: bool) -> Self {
        Self { partition, offset, end_of_batch }
    }
}

/// Where a subscriber begins to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// At the earliest event that is still kept: what slower consumers have not read, and what the topic retains.
    /// With neither, that is the next one to be published.
    #[default]
    Earliest,
    /// At what is published next.
    Latest,
    /// At this offset of every partition; refused with the range if it is not kept any more or not published yet.
    Offset(u64),
    /// At these offsets, by partition; each is refused with the range if it is not kept any more or not published yet.
    /// Partitions beyond the list are begun at their earliest event.
    Offsets(Vec<u64>),
    /// At the first event that is kept and was published at this time or later; with none, at what is published next.
    /// Needs [`timestamps`](crate::TopicBuilder::timestamps).
    Timestamp(Timestamp),
}

impl StartAt {
    /// The offset to begin at, where one is named.
    fn offset(&self, partition: u32) -> Option<u64> {
        match self {
            Self::Offset(offset) => Some(*offset),
            Self::Offsets(offsets) => offsets.get(partition as usize).copied(),
            _ => None,
        }
    }

    /// What the ring is told. Where the time says more, [`Part::move_to_start`] goes on from there.
    pub(crate) fn in_ring(&self, partition: u32) -> Start {
        match self.offset(partition) {
            Some(offset) => Start::At(Sequence(offset)),
            None if *self == Self::Latest => Start::Latest,
            None => Start::Earliest,
        }
    }
}

/// The way into a topic for dead letters, shared by the threads of a subscriber.
pub(crate) type Shelf<E> = Arc<Mutex<Graveyard<E>>>;

/// Settings of a subscriber. Unpinned and parking when idle, unless told.
pub struct SubscriberBuilder<E, K: Producers = Multi> {
    pub(crate) topic: Arc<Inner<E, K>>,
    pub(crate) name: String,
    pub(crate) after: Vec<String>,
    pub(crate) start: StartAt,
    pub(crate) wait: Wait,
    pub(crate) limit: usize,
    pub(crate) core: Option<usize>,
    pub(crate) on_error: OnError,
    pub(crate) dead_letters: Option<Result<Shelf<E>, DeadLetterError>>,
    slow: Option<Slow>,
}

impl<E: Send + Sync + 'static, K: Producers> SubscriberBuilder<E, K> {
    pub(crate) fn new(topic: Arc<Inner<E, K>>, name: String) -> Self {
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
        }
    }

    /// Reads an event only when each of these subscribers of the same topic has done with it.
    pub fn after<S: AsRef<str>>(mut self, subscribers: impl IntoIterator<Item = S>) -> Self {
        self.after.extend(subscribers.into_iter().map(|name| name.as_ref().to_owned()));
        self
    }

    /// Where it begins.
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

    /// What a managed subscriber would pass over goes to this topic first, and what it would stop for is passed over: so
    /// with the default policy, an event that fails once is moved aside. If the topic does not take it, the subscriber
    /// stops. A [`Message`](crate::Message) says where it comes from and why: see [`DeadLetter`](crate::DeadLetter).
    /// Somebody must read that topic, or it must [retain](crate::TopicBuilder::retain): like any other, it keeps nothing
    /// for nobody.
    ///
    /// ```
    /// # use slipring::{DeadLetter, Engine, Message, OnError, Record};
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
        E: Bury,
    {
        let name = topic.name().to_owned();
        self.dead_letters = Some(match topic.producer().create() {
            _ if topic.id() == self.topic.id => Err(DeadLetterError::Circle { topic: name }),
            Ok(producer) => Ok(Arc::new(Mutex::new(Graveyard::new(producer)))),
            Err(cause) => Err(DeadLetterError::Producer { topic: name, cause }),
        });
        self
    }

    /// Takes the topic for dead letters out, if there is to be one.
    pub(crate) fn shelf(&mut self) -> Result<Option<Shelf<E>>, SubscribeError> {
        self.dead_letters.take().transpose().map_err(|cause| {
            let (topic, consumer) = (self.topic.name.clone(), self.name.clone());
            SubscribeError::DeadLetters { topic, consumer, cause: Box::new(cause) }
        })
    }

    /// Starts a thread of this name that hands each event of every partition to `handler`.
    ///
    /// # Errors
    /// The name is no name or taken, a subscriber in [`after`](Self::after) is not there, the start is out of range,
    /// the pin is refused, or the topic is closed.
    pub fn run<X: Display + 'static>(
        self,
        mut handler: impl FnMut(&E, At) -> Result<(), X> + Send + 'static,
    ) -> Result<Subscription<E, K>, SubscribeError> {
        self.run_with(|| (), move |(), event, at| handler(event, at))
    }

    /// The same, with a state that is made on the subscriber's thread and stays there: it need not be `Send`.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # use std::{cell::RefCell, convert::Infallible, rc::Rc, time::Duration};
    /// # let engine = Engine::builder().build()?;
    /// # let ticks = engine.topic::<u64>("ticks").create()?;
    /// ticks.subscribe("sum").run_with(|| Rc::new(RefCell::new(0)), |sum, tick, _| {
    ///     *sum.borrow_mut() += tick;
    ///     Ok::<_, Infallible>(())
    /// })?;
    /// # assert!(engine.shutdown(Duration::from_secs(5)).is_complete());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with<S: 'static, X: Display + 'static>(
        mut self,
        make: impl FnOnce() -> S + Send + 'static,
        handler: impl FnMut(&mut S, &E, At) -> Result<(), X> + Send + 'static,
    ) -> Result<Subscription<E, K>, SubscribeError> {
        let (core, wait, policy) =
            (self.core, self.wait.clone(), Policy { on_error: self.on_error, shelf: self.shelf()? });
        subscription::start(self.poll()?, core, wait, policy, make, handler)
    }

    /// One thread a partition, each with a handler of its own that `make` makes for it, on the calling thread. The
    /// threads are called `name-partition`, and a [pin](Self::pin) pins all of them. A partition that is added gets one
    /// more; `make` is called for it by whoever adds the partition, and must neither subscribe to this topic nor grow it
    /// then.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # use std::{convert::Infallible, time::Duration};
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").partitions(2).create()?;
    /// ticks.subscribe("sum").run_each(|partition| {
    ///     let mut sum = 0;
    ///     move |tick: &u64, at: slipring::At| {
    ///         assert_eq!(at.partition, partition);
    ///         sum += tick;
    ///         Ok::<_, Infallible>(())
    ///     }
    /// })?;
    /// # assert!(engine.shutdown(Duration::from_secs(5)).is_complete());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_each<X: Display + 'static, H>(
        self,
        make: impl FnMut(u32) -> H + Send + 'static,
    ) -> Result<Subscription<E, K>, SubscribeError>
    where
        H: FnMut(&E, At) -> Result<(), X> + Send + 'static,
    {
        subscription::start_each(self, make)
    }

    /// A subscriber without a thread, to be polled from a loop of one's own.
    ///
    /// # Errors
    /// As [`run`](Self::run), but for the pin, which is not looked at.
    pub fn poll(self) -> Result<Subscriber<E, K>, SubscribeError> {
        let topic = Arc::clone(&self.topic);
        let seat = Seat::new(&self, self.tally());
        let mut readers = topic.readers();
        let parts = self.join_all()?;
        topic.register(&seat.tally);
        readers.add(Arc::downgrade(&seat) as Weak<dyn Reader<E, K>>);
        drop(readers);
        Ok(Subscriber::new(Arc::clone(&topic), seat, parts, self.limit))
    }

    /// Joins all partitions that there are. No new one must come meanwhile.
    pub(crate) fn join_all(&self) -> Result<Vec<Part<E, K>>, SubscribeError> {
        check_name(&self.name).map_err(SubscribeError::Name)?;
        if matches!(self.start, StartAt::Timestamp(_)) && !self.topic.settings.timestamps {
            return Err(SubscribeError::NoTimestamps { topic: self.topic.name.clone(), consumer: self.name.clone() });
        }
        let partitions = self.topic.partitions();
        let joined = partitions.iter().map(|partition| {
            let joined = partition.ring.join(self.stage().start(self.start.in_ring(partition.index)));
            let consumer = joined.map_err(|cause| SubscribeError::new(&self.topic.name, partition.index, cause))?;
            let mut part = Part { partition: Arc::clone(partition), consumer };
            part.move_to_start(&self.start, &self.topic).map_err(|TooOld { asked, earliest, latest }| {
                let (topic, consumer) = (self.topic.name.clone(), self.name.clone());
                SubscribeError::OutOfRange { topic, consumer, partition: partition.index, asked, earliest, latest }
            })?;
            Ok(part)
        });
        joined.collect()
    }

    /// A subscriber of one partition that nobody adds others to.
    pub(crate) fn of_one(&self, part: Part<E, K>, tally: &Arc<Tally>) -> Subscriber<E, K> {
        Subscriber::new(Arc::clone(&self.topic), Seat::new(self, Arc::clone(tally)), vec![part], self.limit)
    }

    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::new(Tally::new(&self.name, self.slow.unwrap_or(self.topic.settings.slow)))
    }

    /// What each ring is told.
    pub(crate) fn stage(&self) -> Stage {
        Stage::new(self.name.clone()).after(self.after.iter().cloned()).wait(self.wait.clone()).limit(self.limit)
    }
}

/// What others need to know of a subscriber, and where they leave the consumers of new partitions for it.
pub(crate) struct Seat<E, K: Producers> {
    topic: String,
    pub(crate) tally: Arc<Tally>,
    stage: Stage,
    waiter: Arc<Waiter>,
    wait: Wait,
    /// Somebody else's, who watches this subscriber among others.
    watcher: Mutex<Option<(Arc<Waiter>, usize)>>,
    /// Another way of waiting, from the next look on.
    other_wait: Mutex<Option<Wait>>,
    has_mail: AtomicBool,
    mail: Mutex<Vec<Part<E, K>>>,
}

impl<E: Send + Sync + 'static, K: Producers> Seat<E, K> {
    fn new(builder: &SubscriberBuilder<E, K>, tally: Arc<Tally>) -> Arc<Self> {
        Arc::new(Self {
            topic: builder.topic.name.clone(),
            tally,
            stage: builder.stage(),
            waiter: Arc::new(Waiter::new()),
            wait: builder.wait.clone(),
            watcher: Mutex::default(),
            other_wait: Mutex::default(),
            has_mail: AtomicBool::new(false),
            mail: Mutex::default(),
        })
    }
}

impl<E, K: Producers> Seat<E, K> {
    /// Whoever watches this subscriber among others is woken for its new partitions, too.
    fn tell(&self, waiter: &Arc<Waiter>, token: usize) {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if !watcher.as_ref().is_some_and(|(known, under)| Arc::ptr_eq(known, waiter) && *under == token) {
            *watcher = Some((Arc::clone(waiter), token));
        }
    }
}

impl<E: Send + Sync + 'static, K: Producers> crate::subscription::Waits for Seat<E, K> {
    fn set_wait(&self, wait: Wait) {
        *self.other_wait.lock().unwrap_or_else(PoisonError::into_inner) = Some(wait);
        self.has_mail.store(true, Ordering::Release);
        self.waiter.wake(Watch::WAKE);
    }
}

impl<E: Send + Sync + 'static, K: Producers> Reader<E, K> for Seat<E, K> {
    fn join(&self, partition: &Arc<Partition<E, K>>) -> Result<Consumer<E, K>, SubscribeError> {
        let joined = partition.ring.join(self.stage.clone());
        joined.map_err(|cause| SubscribeError::new(&self.topic, partition.index, cause))
    }

    fn take(self: Arc<Self>, partition: &Arc<Partition<E, K>>, consumer: Consumer<E, K>) {
        let part = Part { partition: Arc::clone(partition), consumer };
        self.mail.lock().unwrap_or_else(PoisonError::into_inner).push(part);
        self.has_mail.store(true, Ordering::Release);
        self.waiter.wake(Watch::WAKE);
        if let Some((watcher, token)) = &*self.watcher.lock().unwrap_or_else(PoisonError::into_inner) {
            watcher.wake(*token);
        }
    }
}

/// A consumer's place in one partition.
pub(crate) struct Part<E, K: Producers> {
    pub(crate) partition: Arc<Partition<E, K>>,
    pub(crate) consumer: Consumer<E, K>,
}

/// An offset that was asked for is kept by the ring and older than the topic retains.
pub(crate) struct TooOld {
    pub(crate) asked: u64,
    pub(crate) earliest: u64,
    pub(crate) latest: u64,
}

impl<E, K: Producers> Part<E, K> {
    /// Where the time says more than the ring knows: the gate stands at or before the start by now.
    pub(crate) fn move_to_start(&mut self, start: &StartAt, topic: &Inner<E, K>) -> Result<(), TooOld> {
        let from = self.consumer.consumed().0;
        let oldest = self.oldest_kept(topic);
        let to = match (start.offset(self.partition.index), start) {
            (Some(asked), _) if asked < oldest => {
                let latest = self.partition.ring.positions().published.0;
                return Err(TooOld { asked, earliest: oldest, latest });
            }
            (None, StartAt::Timestamp(at)) => self.first_since(*at, from).max(oldest),
            (None, StartAt::Earliest | StartAt::Offsets(_)) => oldest,
            _ => return Ok(()),
        };
        // It is published, and behind nobody: else it stays where it is, and reads what is too old.
        let _ = self.consumer.seek(Sequence(to.max(from)));
        Ok(())
    }

    fn first_since(&self, at: Timestamp, from: u64) -> u64 {
        self.partition.first_since(at, from)
    }

    /// The first offset that the topic's retention by age leaves to whoever comes or goes back, if this part's gate
    /// keeps it.
    fn oldest_kept(&self, topic: &Inner<E, K>) -> u64 {
        let from = self.consumer.consumed().0;
        match topic.settings.retain_for {
            Some(age) => self.first_since(topic.host.clock.wall().minus(age), from),
            None => from,
        }
    }
}

/// A subscriber to be polled.
///
/// ```
/// # use slipring::Engine;
/// # use std::time::Duration;
/// # let engine = Engine::builder().build()?;
/// # let ticks = engine.topic::<u64>("ticks").create()?;
/// let mut tape = ticks.subscribe("tape").poll()?;
/// ticks.producer().create()?.publish(|tick| *tick = 42)?;
/// ticks.close();
/// while let Some(mut batch) = tape.poll(Duration::from_millis(100))? {
///     for (tick, at) in &mut batch {
///         println!("{tick} at {}", at.offset);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Subscriber<E, K: Producers = Multi> {
    pub(crate) topic: Arc<Inner<E, K>>,
    pub(crate) seat: Arc<Seat<E, K>>,
    /// By the number of the partition.
    pub(crate) parts: Vec<Part<E, K>>,
    first: Vec<u64>,
    watch: Watch,
    /// Partitions that were closed and read to their end.
    over: Vec<u32>,
    paused: Vec<u32>,
    limit: usize,
}

impl<E, K: Producers> fmt::Debug for Subscriber<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscriber {:?} of {:?}", self.seat.tally.name, self.topic.name)
    }
}

impl<E, K: Producers> Subscriber<E, K> {
    fn new(topic: Arc<Inner<E, K>>, seat: Arc<Seat<E, K>>, parts: Vec<Part<E, K>>, limit: usize) -> Self {
        let mut watch = Watch::new(seat.wait.clone(), Arc::clone(&seat.waiter));
        (0..parts.len()).for_each(|source| watch.add(source));
        let first = parts.iter().map(|part| part.consumer.consumed().0).collect();
        Self { topic, seat, parts, first, watch, over: Vec::new(), paused: Vec::new(), limit }
    }

    /// The subscriber's name.
    pub fn name(&self) -> &str {
        &self.seat.tally.name
    }

    /// The first offset that it was promised, in partition 0. See [`first_in`](Self::first_in).
    pub fn first(&self) -> u64 {
        self.first[0]
    }

    /// The first offset that it was promised in this partition; none if it does not read that.
    pub fn first_in(&self, partition: u32) -> Option<u64> {
        self.first.get(partition as usize).copied()
    }

    /// The next offset that it will read in this partition; none if it does not read that.
    pub fn position(&self, partition: u32) -> Option<u64> {
        self.parts.get(partition as usize).map(|part| part.consumer.consumed().0)
    }

    /// How many published events it has not read, in all partitions.
    pub fn lag(&self) -> u64 {
        self.parts.iter().map(|part| part.consumer.lag()).sum()
    }

    /// How many published events it has not read in this partition; none if it does not read that.
    pub fn lag_in(&self, partition: u32) -> Option<u64> {
        self.parts.get(partition as usize).map(|part| part.consumer.lag())
    }

    /// How long ago the oldest event that it has not read was published, in all partitions; zero if there is none.
    ///
    /// # Errors
    /// The topic has no [timestamps](crate::TopicBuilder::timestamps).
    pub fn lag_time(&self) -> Result<Duration, PositionError> {
        let now = self.topic.host.clock.wall();
        let mut longest = Duration::ZERO;
        for Part { partition, consumer } in &self.parts {
            let Some(times) = &partition.times else {
                return Err(PositionError::NoTimestamps { topic: self.topic.name.clone() });
            };
            if consumer.lag() > 0 {
                longest = longest.max(now.since(times.get(consumer.consumed().0)));
            }
        }
        Ok(longest)
    }

    /// Moves to an offset of a partition without reading what lies between. Backward, the offset must be kept still: by
    /// a slower consumer, or by [`retain`](crate::TopicBuilder::retain).
    ///
    /// ```
    /// # use slipring::{Engine, PositionError};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").capacity(8).retain(4).create()?;
    /// let mut tape = ticks.subscribe("tape").poll()?;
    /// let mut producer = ticks.producer().create()?;
    /// for tick in 0..6 {
    ///     producer.publish(|place| *place = tick)?;
    /// }
    /// tape.poll(Duration::ZERO)?.unwrap().into_iter().for_each(drop);
    /// tape.seek(0, 3)?;
    /// assert_eq!((tape.position(0), tape.lag()), (Some(3), 3));
    /// assert!(matches!(tape.seek(0, 1), Err(PositionError::OutOfRange { earliest: 2, latest: 6, .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// It is not kept or not published (the error has the range), there is no such partition, others stand behind this
    /// subscriber, or it was evicted or halted. It stays where it was.
    pub fn seek(&mut self, partition: u32, offset: u64) -> Result<(), PositionError> {
        self.open_mail();
        let Self { parts, topic, seat, watch, .. } = self;
        let part = part_of(parts, topic, partition)?;
        let refused = |cause| PositionError::new(&topic.name, &seat.tally.name, partition, cause);
        let latest = part.consumer.consumed().plus(part.consumer.lag()).0;
        let before = part.consumer.consumed();
        part.consumer.seek(Sequence(offset)).map_err(|cause| match refused(cause) {
            // The ring knows the range behind the consumer only.
            PositionError::OutOfRange { topic, consumer, partition, asked, earliest, .. } => {
                let earliest = earliest.min(before.0);
                PositionError::OutOfRange { topic, consumer, partition, asked, earliest, latest }
            }
            other => other,
        })?;
        let earliest = part.oldest_kept(topic);
        if offset < before.0 && offset < earliest {
            // Gone for its age: forward again, which is always allowed.
            let _ = part.consumer.seek(before);
            let (topic, consumer) = (topic.name.clone(), seat.tally.name.clone());
            return Err(PositionError::OutOfRange { topic, consumer, partition, asked: offset, earliest, latest });
        }
        // It may be armed at a bell that is not in its way any more, and what it had read to the end has a rest again.
        if !self.paused.contains(&partition) {
            watch.add(partition as usize);
        }
        if let Some(over) = self.over.iter().position(|&over| over == partition) {
            self.over.swap_remove(over);
        }
        Ok(())
    }

    /// Moves, in every partition, to the first event that was published at this time or later; where there is none, to
    /// what is published next. Backward, as far as events are kept.
    ///
    /// # Errors
    /// The topic has no [timestamps](crate::TopicBuilder::timestamps), or as [`seek`](Self::seek).
    pub fn seek_to_time(&mut self, at: Timestamp) -> Result<(), PositionError> {
        self.open_mail();
        if !self.topic.settings.timestamps {
            return Err(PositionError::NoTimestamps { topic: self.topic.name.clone() });
        }
        for index in 0..self.parts.len() {
            let part = &self.parts[index];
            let before = part.consumer.consumed().0;
            // Of an event that is not kept any more this may be the time of a later one: then it is asked for, and refused.
            let is_behind = |times: &Times| before > 0 && times.get(before - 1) >= at;
            if part.partition.times.as_ref().is_some_and(is_behind) {
                // As far back as it may, which the refusal tells; from there on its own gate keeps what is looked at.
                let earliest = match self.seek(index as u32, 0) {
                    Err(PositionError::OutOfRange { earliest, .. }) => earliest,
                    Err(refused) => return Err(refused),
                    Ok(()) => 0,
                };
                self.seek(index as u32, earliest)?;
            }
            let part = &self.parts[index];
            let to = part.first_since(at, part.consumer.consumed().0);
            self.seek(index as u32, to)?;
        }
        Ok(())
    }

    /// Gives nothing more of this partition until [`resume`](Self::resume). It goes on holding the producers there.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn pause(&mut self, partition: u32) -> Result<(), PositionError> {
        self.open_mail();
        part_of(&mut self.parts, &self.topic, partition)?;
        if !self.paused.contains(&partition) {
            self.paused.push(partition);
            self.watch.remove(partition as usize);
        }
        Ok(())
    }

    /// Reads this partition again.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn resume(&mut self, partition: u32) -> Result<(), PositionError> {
        part_of(&mut self.parts, &self.topic, partition)?;
        self.paused.retain(|&paused| paused != partition);
        if !self.over.contains(&partition) {
            self.watch.add(partition as usize);
        }
        Ok(())
    }

    /// The partitions that are paused.
    pub fn paused(&self) -> &[u32] {
        &self.paused
    }

    /// Waits for events, no longer than `limit`: a batch of one partition, which is empty if none came. None once the
    /// topic was closed and all was read. A limit of zero never waits. While partitions are [paused](Self::pause), a
    /// closed topic has an end only when they were resumed and read: until then an empty batch is returned at once.
    ///
    /// # Errors
    /// The topic was halted, a consumer failed, or this one was evicted.
    #[inline]
    pub fn poll(&mut self, limit: Duration) -> Result<Option<Batch<'_, E, K>>, ReadError> {
        let now = limit.is_zero();
        let deadline = if now || limit == Duration::MAX { None } else { Instant::now().checked_add(limit) };
        self.poll_by(now, deadline)
    }

    pub(crate) fn poll_by(
        &mut self,
        now: bool,
        deadline: Option<Instant>,
    ) -> Result<Option<Batch<'_, E, K>>, ReadError> {
        let source = match self.find(now, deadline)? {
            Next::Source(source) => Some(source),
            Next::Nothing => None,
            Next::End => return Ok(None),
        };
        let Self { parts, topic, seat, limit, .. } = self;
        let refused = |reason: slipring_ring::Closed| ReadError {
            topic: topic.name.clone(),
            consumer: seat.tally.name.clone(),
            reason: reason.into(),
        };
        let part = &mut parts[source.unwrap_or(0)];
        let partition = part.partition.index;
        let batch = if source.is_some() { part.consumer.poll(*limit) } else { Ok(part.consumer.nothing()) };
        let batch = batch.map_err(refused)?;
        if source.is_some() {
            seat.tally.batch(batch.len());
        }
        Ok(Some(Batch { batch, partition }))
    }

    /// Looks for events and takes none: whoever looks again finds the same.
    #[inline]
    pub(crate) fn find(&mut self, now: bool, deadline: Option<Instant>) -> Result<Next, ReadError> {
        loop {
            if !self.over.is_empty() && self.over.len() == self.parts.len() {
                // A partition that was added just before the topic was closed is left here by then.
                if !self.seat.has_mail.load(Ordering::Acquire) {
                    return Ok(Next::End);
                }
                self.open_mail();
            }
            let last = deadline;
            let (now, deadline) = match self.paused.is_empty() {
                true => (now, deadline),
                // Nobody rings for what is paused, and the topic may end meanwhile.
                false if self.topic.closed().is_some() => (true, None),
                false => (now, Some(soon(deadline))),
            };
            let Self { parts, seat, topic, limit, watch, .. } = &mut *self;
            let mut parts = Parts { parts, seat, topic, limit: *limit, over: None };
            let found = watch.next(&mut parts, now, deadline);
            let over = parts.over;
            match (found, over) {
                (Found::Source(source), None) => return Ok(Next::Source(source)),
                (Found::Source(source), Some(slipring_ring::Closed::Finished | slipring_ring::Closed::Closed)) => {
                    self.watch.remove(source);
                    self.over.push(source as u32);
                }
                (_, Some(reason)) => return Err(self.refused(reason.into())),
                (Found::Interrupted, None) => self.open_mail(),
                (Found::Nothing, None) if now || self.paused.is_empty() || is_over(last) => return Ok(Next::Nothing),
                (Found::Nothing, None) => {}
            }
        }
    }

    /// Has a task woken that has just found nothing. False if there is something after all.
    #[cfg(feature = "async")]
    pub(crate) fn wake(&mut self, task: &std::task::Waker) -> bool {
        let Self { parts, seat, topic, limit, watch, .. } = self;
        watch.wake(&mut Parts { parts, seat, topic, limit: *limit, over: None }, task)
    }

    /// Has somebody else's waiter woken who has just found nothing. False if there is something after all.
    pub(crate) fn arm(&mut self, waiter: &Arc<Waiter>, token: usize) -> bool {
        self.seat.tell(waiter, token);
        let Self { parts, paused, over, .. } = self;
        let mut read = parts.iter_mut().filter(|part| {
            let index = &part.partition.index;
            !paused.contains(index) && !over.contains(index)
        });
        read.all(|part| part.consumer.arm(waiter, token)) && !self.seat.has_mail.load(Ordering::Acquire)
    }

    fn refused(&self, reason: Closed) -> ReadError {
        ReadError { topic: self.topic.name.clone(), consumer: self.seat.tally.name.clone(), reason }
    }

    /// Takes what was left here by whoever added partitions.
    #[cold]
    fn open_mail(&mut self) {
        self.seat.has_mail.store(false, Ordering::Relaxed);
        if let Some(wait) = self.seat.other_wait.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.parts.iter_mut().for_each(|part| part.consumer.set_wait(wait.clone()));
            self.watch.wait = wait;
        }
        for part in self.seat.mail.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            self.watch.add(self.parts.len());
            self.first.push(part.consumer.consumed().0);
            self.parts.push(part);
        }
    }
}

/// How long a subscriber with paused partitions sleeps before it looks whether the topic has ended.
const LOOK: Duration = Duration::from_millis(50);

fn soon(deadline: Option<Instant>) -> Instant {
    let soon = Instant::now() + LOOK;
    deadline.map_or(soon, |deadline| deadline.min(soon))
}

fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

fn part_of<'p, E, K: Producers>(
    parts: &'p mut [Part<E, K>],
    topic: &Inner<E, K>,
    partition: u32,
) -> Result<&'p mut Part<E, K>, PositionError> {
    let partitions = parts.len() as u32;
    let unknown = || PositionError::UnknownPartition { topic: topic.name.clone(), asked: partition, partitions };
    parts.get_mut(partition as usize).ok_or_else(unknown)
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Source(usize),
    Nothing,
    End,
}

/// The parts of a subscriber while it looks for events.
struct Parts<'s, E, K: Producers> {
    parts: &'s mut [Part<E, K>],
    seat: &'s Seat<E, K>,
    topic: &'s Inner<E, K>,
    limit: usize,
    /// Why the source that was found gives nothing.
    over: Option<slipring_ring::Closed>,
}

impl<E, K: Producers> Watched for Parts<'_, E, K> {
    #[inline]
    fn look(&mut self, source: usize, looks: u32) -> bool {
        let Part { partition, consumer } = &mut self.parts[source];
        match consumer.poll_paced(self.limit, looks) {
            Ok(mut batch) => match self.topic.settings.time_to_live {
                Some(limit) if !batch.is_empty() => {
                    let expired = expire(&mut batch, partition, self.topic.host.clock.wall().minus(limit));
                    self.seat.tally.expired.fetch_add(expired, Ordering::Relaxed);
                    !batch.is_empty()
                }
                _ => !batch.is_empty(),
            },
            Err(reason) => {
                self.over = Some(reason);
                true
            }
        }
    }

    fn arm(&mut self, source: usize, waiter: &Waiter) -> bool {
        self.parts[source].consumer.arm(waiter, source)
    }

    #[inline]
    fn is_interrupted(&self) -> bool {
        self.seat.has_mail.load(Ordering::Acquire)
    }
}

/// Passes over what was published before `oldest`; how many that are.
pub(crate) fn expire<E, K: Producers>(
    batch: &mut RingBatch<'_, E, K>,
    partition: &Partition<E, K>,
    oldest: Timestamp,
) -> u64 {
    let mut expired = 0;
    while let Some(times) = partition.times.as_ref().filter(|_| !batch.is_empty()) {
        if times.get(batch.position().0) >= oldest {
            break;
        }
        let _ = batch.into_iter().next();
        expired += 1;
    }
    expired
}

/// Events of one partition, in order. Iterate over `&mut batch`; what was iterated counts as read when the batch is
/// dropped.
pub struct Batch<'s, E, K: Producers = Multi> {
    pub(crate) batch: RingBatch<'s, E, K>,
    pub(crate) partition: u32,
}

impl<E, K: Producers> fmt::Debug for Batch<'_, E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of partition {}", self.batch, self.partition)
    }
}

impl<E, K: Producers> Batch<'_, E, K> {
    /// The partition that all of it is from.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// How many events are left to iterate.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether nothing is left to iterate.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Ends the batch here: the same as dropping it, said aloud.
    pub fn commit(self) {}
}

impl<'b, E, K: Producers> IntoIterator for &'b mut Batch<'_, E, K> {
    type Item = (&'b E, At);
    type IntoIter = Messages<'b, E, K>;

    #[inline]
    fn into_iter(self) -> Messages<'b, E, K> {
        Messages { partition: self.partition, events: (&mut self.batch).into_iter() }
    }
}

/// The events of a [`Batch`], each with where it stands.
pub struct Messages<'b, E, K: Producers> {
    events: Events<'b, E, K, Shared>,
    partition: u32,
}

impl<'b, E, K: Producers> Iterator for Messages<'b, E, K> {
    type Item = (&'b E, At);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (sequence, event) = self.events.next()?;
        Some((event, At { partition: self.partition, offset: sequence.0, end_of_batch: self.events.is_over() }))
    }
}
