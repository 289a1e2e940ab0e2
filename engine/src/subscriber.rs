//! Reading a topic: every subscriber sees every event.

use crate::error::{ReadError, SubscribeError, check_name};
use crate::producer::Producers;
use crate::topic::Inner;
use slipring_ring::{
    Batch as RingBatch, Closed, Consumer, Events, Handler, Multi, OnError, Sequence, Shared, Stage, StageError, Start,
    Wait,
};
use std::fmt::{self, Display};
use std::sync::Arc;
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

/// Where a subscriber begins to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// At the earliest event that is still kept: what slower subscribers have not read, and what the topic retains.
    /// With neither, that is the next one to be published.
    #[default]
    Earliest,
    /// At what is published next.
    Latest,
    /// At this offset; refused with the range if it is not kept any more or not published yet.
    Offset(u64),
}

/// Settings of a subscriber. Unpinned and parking when idle, unless told.
pub struct SubscriberBuilder<E, K: Producers = Multi> {
    topic: Arc<Inner<E, K>>,
    name: String,
    stage: Stage,
}

impl<E: Send + Sync + 'static, K: Producers> SubscriberBuilder<E, K> {
    pub(crate) fn new(topic: Arc<Inner<E, K>>, name: String) -> Self {
        Self { topic, stage: Stage::new(name.clone()), name }
    }

    /// Reads an event only when each of these subscribers of the same topic has done with it.
    pub fn after<S: AsRef<str>>(mut self, subscribers: impl IntoIterator<Item = S>) -> Self {
        self.stage = self.stage.after(subscribers.into_iter().map(|name| name.as_ref().to_owned()));
        self
    }

    /// Where it begins.
    pub fn start(mut self, start: StartAt) -> Self {
        self.stage = self.stage.start(match start {
            StartAt::Earliest => Start::Earliest,
            StartAt::Latest => Start::Latest,
            StartAt::Offset(offset) => Start::At(Sequence(offset)),
        });
        self
    }

    /// Pins its thread to this core, by the system's number. A refused pin is an error, never a thread that runs
    /// elsewhere.
    pub fn pin(mut self, core: usize) -> Self {
        self.stage = self.stage.pin(core);
        self
    }

    /// How it waits for events.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.stage = self.stage.wait(wait);
        self
    }

    /// At most so many events in one batch; 0 is taken as 1.
    pub fn limit(mut self, events: usize) -> Self {
        self.stage = self.stage.limit(events);
        self
    }

    /// What follows when the handler returns an error or panics. Unless told, the topic is closed with this
    /// subscriber's name and the cause: nothing is lost in silence, and nobody waits for ever.
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.stage = self.stage.on_error(policy);
        self
    }

    /// Starts a thread of this name that hands each event to `handler`.
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
        self,
        make: impl FnOnce() -> S + Send + 'static,
        handler: impl FnMut(&mut S, &E, At) -> Result<(), X> + Send + 'static,
    ) -> Result<Subscription<E, K>, SubscribeError> {
        check_name(&self.name).map_err(SubscribeError::Name)?;
        let first = self.topic.ring.run(self.stage, move || WithState { state: make(), handler });
        let first = first.map_err(|cause| SubscribeError::new(&self.topic.name, cause))?;
        Ok(Subscription { topic: self.topic, name: self.name, first: first.0 })
    }

    /// A subscriber without a thread, to be polled from a loop of one's own.
    ///
    /// # Errors
    /// As [`run`](Self::run), but for the pin, which is not looked at.
    pub fn poll(self) -> Result<Subscriber<E, K>, SubscribeError> {
        check_name(&self.name).map_err(SubscribeError::Name)?;
        let limit = self.stage.batch_limit();
        let consumer = self.topic.ring.join(self.stage);
        let consumer = consumer.map_err(|cause| SubscribeError::new(&self.topic.name, cause))?;
        Ok(Subscriber { topic: self.topic, name: self.name, consumer, limit })
    }
}

struct WithState<S, F> {
    state: S,
    handler: F,
}

impl<E, S, X: Display, F: FnMut(&mut S, &E, At) -> Result<(), X>> Handler<E> for WithState<S, F> {
    type Error = X;

    #[inline]
    fn on_event(&mut self, event: &E, sequence: Sequence, end_of_batch: bool) -> Result<(), X> {
        (self.handler)(&mut self.state, event, At { partition: 0, offset: sequence.0, end_of_batch })
    }
}

/// A subscriber that runs on a thread of its own. Dropping this handle stops nothing.
pub struct Subscription<E, K: Producers = Multi> {
    topic: Arc<Inner<E, K>>,
    name: String,
    first: u64,
}

impl<E, K: Producers> fmt::Debug for Subscription<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription {:?} of {:?}", self.name, self.topic.name)
    }
}

impl<E, K: Producers> Subscription<E, K> {
    /// The subscriber's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first offset that it was promised.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Ends the subscriber after the batch that it is in; the topic no longer waits for it.
    ///
    /// # Errors
    /// Other subscribers stand behind it, or it has ended already.
    pub fn cancel(self) -> Result<(), StageError> {
        match self.topic.ring.evict(&self.name) {
            Ok(_) | Err(StageError::InBatch { .. }) => Ok(()),
            Err(refused) => Err(refused),
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
/// ticks.producer()?.publish(|tick| *tick = 42)?;
/// ticks.close();
/// while let Some(mut batch) = tape.poll(Duration::from_millis(100))? {
///     for (tick, at) in &mut batch {
///         println!("{tick} at {}", at.offset);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Subscriber<E, K: Producers = Multi> {
    topic: Arc<Inner<E, K>>,
    name: String,
    consumer: Consumer<E, K>,
    limit: usize,
}

impl<E, K: Producers> fmt::Debug for Subscriber<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscriber {:?} of {:?}", self.name, self.topic.name)
    }
}

impl<E, K: Producers> Subscriber<E, K> {
    /// The subscriber's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first offset that it was promised.
    pub fn first(&self) -> u64 {
        self.consumer.first().0
    }

    /// How many published events it has not read.
    pub fn lag(&self) -> u64 {
        self.consumer.lag()
    }

    /// Waits for events, no longer than `limit`: a batch, which is empty if none came. None once the topic was closed
    /// and all was read. A limit of zero never waits.
    ///
    /// # Errors
    /// The topic was halted, a subscriber failed, or this one was evicted.
    pub fn poll(&mut self, limit: Duration) -> Result<Option<Batch<'_, E, K>>, ReadError> {
        let polled = if limit.is_zero() {
            self.consumer.poll(self.limit)
        } else {
            match Instant::now().checked_add(limit) {
                Some(deadline) => self.consumer.poll_until(self.limit, deadline),
                None => self.consumer.poll_wait(self.limit),
            }
        };
        match polled {
            Ok(batch) => Ok(Some(Batch { batch })),
            Err(Closed::Finished | Closed::Closed) => Ok(None),
            Err(reason) => Err(ReadError { topic: self.topic.name.clone(), subscriber: self.name.clone(), reason }),
        }
    }
}

/// Events in order. Iterate over `&mut batch`; what was iterated counts as read when the batch is dropped.
pub struct Batch<'s, E, K: Producers = Multi> {
    batch: RingBatch<'s, E, K>,
}

impl<E, K: Producers> fmt::Debug for Batch<'_, E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.batch.fmt(f)
    }
}

impl<E, K: Producers> Batch<'_, E, K> {
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

    fn into_iter(self) -> Messages<'b, E, K> {
        Messages { events: (&mut self.batch).into_iter() }
    }
}

/// The events of a [`Batch`], each with where it stands.
pub struct Messages<'b, E, K: Producers> {
    events: Events<'b, E, K, Shared>,
}

impl<'b, E, K: Producers> Iterator for Messages<'b, E, K> {
    type Item = (&'b E, At);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (sequence, event) = self.events.next()?;
        Some((event, At { partition: 0, offset: sequence.0, end_of_batch: self.events.is_over() }))
    }
}
