//! Futures and streams for reading and publishing, on `futures-core` alone, so that any executor can run them.
//!
//! Each future may be cancelled: if it is dropped before it is ready, it has read or published nothing. A waiting task
//! registers its waker where a thread would register itself, so it is polled again only when it may be able to
//! continue.

use crate::base::kind::Producers;
use crate::base::when_full::{Task, WhenFull};
use crate::event::message::Message;
use crate::event::record::Record;
use crate::group::{GroupBatch, GroupError, Member};
use crate::log::receipt::Receipt;
use crate::produce::Producer;
use crate::produce::append::Route;
use crate::read::error::ReadError;
use crate::read::{At, Batch, FindOutcome, Subscriber};
use crate::topic::error::PublishError;
use futures_core::Stream;
use slipring_ring::Multi;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

impl<E, K: Producers> Subscriber<E, K> {
    /// [`poll`](Self::poll) as a future: returns the next batch, to be read in place. `None` once the topic was closed
    /// and all events were read.
    ///
    /// While partitions are [paused](Self::pause), a closed topic does not end, as with `poll`: once all other partitions
    /// are read to their end, each call returns an empty batch at once, until the paused partitions are resumed and
    /// read. So a loop that pauses partitions must resume them at an empty batch, or end there.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").create()?;
    /// let mut tape = ticks.subscribe("tape").poll()?;
    /// ticks.producer().create()?.publish_async(|tick| *tick = 42).await?;
    /// ticks.close();
    /// while let Some(mut batch) = tape.next_batch().await? {
    ///     for (tick, at) in &mut batch {
    ///         println!("{tick} at {}", at.offset);
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`poll`](Self::poll).
    pub fn next_batch(&mut self) -> NextBatch<'_, E, K> {
        NextBatch { subscriber: Some(self) }
    }

    /// Returns a stream of the values that `take` returns, one for each event. `take` must copy the parts of the event
    /// that it needs, because the event's slot is overwritten later. An event counts as read when the stream returns
    /// its value. Once the topic was closed, the stream ends when all events were read, except those of
    /// [paused](Subscriber::pause) partitions.
    ///
    /// ```
    /// # use slipring::{Engine, Message, Record};
    /// # use std::pin::pin;
    /// # use std::future::poll_fn;
    /// # use futures_core::Stream;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let engine = Engine::builder().build()?;
    /// # let orders = engine.topic::<Message>("orders").create()?;
    /// let mut tape = pin!(orders.subscribe("tape").poll()?.stream(|order, at| (at.offset, order.copy())));
    /// orders.producer().create()?.send_async(&Record::new("buy")).await?;
    /// // With the `futures` crate: `tape.next().await`.
    /// let (offset, order) = poll_fn(|context| tape.as_mut().poll_next(context)).await.unwrap()?;
    /// assert_eq!((offset, order.value()), (0, &b"buy"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stream<T, F: FnMut(&E, At) -> T>(self, take: F) -> EventStream<E, K, F> {
        EventStream { subscriber: self, take }
    }
}

/// See [`Subscriber::next_batch`].
pub struct NextBatch<'s, E, K: Producers = Multi> {
    /// The subscriber to poll; `None` once the future was ready.
    subscriber: Option<&'s mut Subscriber<E, K>>,
}

impl<E, K: Producers> fmt::Debug for NextBatch<'_, E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NextBatch of {:?}", self.subscriber)
    }
}

impl<'s, E, K: Producers> Future for NextBatch<'s, E, K> {
    type Output = Result<Option<Batch<'s, E, K>>, ReadError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let subscriber = self.subscriber.take().expect("a future is not polled after it was ready");
        if is_ready(subscriber, context) {
            Poll::Ready(subscriber.poll_by(true, None))
        } else {
            self.subscriber = Some(subscriber);
            Poll::Pending
        }
    }
}

/// True if the subscriber has events, or waiting for them is of no use: the topic has ended, only paused partitions
/// have unread events, or a read would return an error. Otherwise registers the task to be woken, and returns false.
fn is_ready<E, K: Producers>(subscriber: &mut Subscriber<E, K>, context: &Context<'_>) -> bool {
    loop {
        if !matches!(subscriber.find(true, None), Ok(FindOutcome::Nothing)) {
            return true;
        }
        if subscriber.wake(context.waker()) {
            return false;
        }
    }
}

/// See [`Subscriber::stream`].
pub struct EventStream<E, K: Producers, F> {
    subscriber: Subscriber<E, K>,
    take: F,
}

impl<E, K: Producers, F> EventStream<E, K, F> {
    /// The subscriber, whose position is the first event that the stream has not returned.
    pub fn into_inner(self) -> Subscriber<E, K> {
        self.subscriber
    }
}

impl<E, K: Producers, F> fmt::Debug for EventStream<E, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventStream of {:?}", self.subscriber)
    }
}

/// Sound, because no field is ever pinned.
impl<E, K: Producers, F> Unpin for EventStream<E, K, F> {}

impl<T, E, K: Producers, F: FnMut(&E, At) -> T> Stream for EventStream<E, K, F> {
    type Item = Result<T, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { subscriber, take } = &mut *self;
        loop {
            if !is_ready(subscriber, context) {
                return Poll::Pending;
            }
            if matches!(subscriber.find(true, None), Ok(FindOutcome::Paused)) {
                return Poll::Ready(None);
            }
            match subscriber.poll_by(true, None) {
                Ok(None) => return Poll::Ready(None),
                Err(refused) => return Poll::Ready(Some(Err(refused))),
                Ok(Some(mut batch)) => {
                    if let Some((event, at)) = (&mut batch).into_iter().next() {
                        return Poll::Ready(Some(Ok(take(event, at))));
                    }
                }
            }
        }
    }
}

impl<E: Send + Sync + 'static, K: Producers> Member<E, K> {
    /// [`poll`](Self::poll) as a future: returns the next batch. `None` once all topics were closed, and the group has
    /// read and committed all events. As with `poll`, closed topics do not end while partitions are
    /// [paused](Member::pause): once nothing else is left to read, each call returns an empty batch at once. Waiting
    /// counts as progress of the member. A future that is dropped has taken nothing: the next one returns its batch.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").partitions(2).create()?;
    /// let mut sums = ticks.group("sums").join()?;
    /// ticks.producer().create()?.publish_async(|tick| *tick = 42).await?;
    /// ticks.close();
    /// let mut sum = 0;
    /// while let Some(batch) = sums.next_batch().await? {
    ///     sum += batch.iter().map(|(tick, _)| *tick).sum::<u64>();
    ///     batch.commit()?;
    /// }
    /// assert_eq!(sum, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`poll`](Self::poll).
    pub fn next_batch(&mut self) -> NextGroupBatch<'_, E, K> {
        NextGroupBatch { member: Some(self), waits: false }
    }
}

/// See [`Member::next_batch`].
pub struct NextGroupBatch<'m, E: Send + Sync + 'static, K: Producers = Multi> {
    /// The member to poll; `None` once the future was ready.
    member: Option<&'m mut Member<E, K>>,
    /// True while the group counts the member as waiting.
    waits: bool,
}

impl<E: Send + Sync + 'static, K: Producers> fmt::Debug for NextGroupBatch<'_, E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NextGroupBatch of {:?}", self.member)
    }
}

impl<'m, E: Send + Sync + 'static, K: Producers> Future for NextGroupBatch<'m, E, K> {
    type Output = Result<Option<GroupBatch<'m, E, K>>, GroupError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let member = self.member.take().expect("a future is not polled after it was ready");
        loop {
            if member.is_ready() {
                self.waits = false;
                return Poll::Ready(member.poll(Duration::ZERO));
            }
            if member.wake(context.waker()) {
                (self.member, self.waits) = (Some(member), true);
                return Poll::Pending;
            }
        }
    }
}

impl<E: Send + Sync + 'static, K: Producers> Drop for NextGroupBatch<'_, E, K> {
    fn drop(&mut self) {
        if let Some(member) = self.member.as_mut().filter(|_| self.waits) {
            member.end_to_wait();
        }
    }
}

impl<E, K: Producers> Producer<E, K> {
    /// [`publish`](Self::publish) as a future: where the topic's policies wait, the task waits. A
    /// [`BlockFor`](crate::topic::Overflow::BlockFor) waits without a limit: set a timeout in your executor.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish).
    pub fn publish_async<F: FnOnce(&mut E)>(&mut self, fill: F) -> Publishing<'_, E, K, F> {
        Publishing { producer: self, fill: Some(fill), task: None }
    }
}

/// See [`Producer::publish_async`].
pub struct Publishing<'p, E, K: Producers, F> {
    producer: &'p mut Producer<E, K>,
    fill: Option<F>,
    /// The state of the wait for room; `None` before the first poll.
    task: Option<Task>,
}

impl<E, K: Producers, F> fmt::Debug for Publishing<'_, E, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Publishing with {:?}", self.producer)
    }
}

/// Sound, because no field is ever pinned.
impl<E, K: Producers, F> Unpin for Publishing<'_, E, K, F> {}

impl<E, K: Producers, F: FnOnce(&mut E)> Future for Publishing<'_, E, K, F> {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { producer, fill, task } = &mut *self;
        when_there_is_room(task, context, |full| {
            producer.place_one(Route::Any, full, size_of::<E>(), |event, _| {
                if let Some(fill) = fill.take() {
                    fill(event);
                }
            })
        })
    }
}

impl<K: Producers> Producer<Message, K> {
    /// [`send`](Self::send) as a future: the task waits for room.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub fn send_async<'p, 'r>(&'p mut self, record: &'p Record<'r>) -> Sending<'p, 'r, K> {
        Sending { producer: self, record, task: None }
    }
}

/// See [`Producer::send_async`].
pub struct Sending<'p, 'r, K: Producers = Multi> {
    producer: &'p mut Producer<Message, K>,
    record: &'p Record<'r>,
    task: Option<Task>,
}

impl<K: Producers> fmt::Debug for Sending<'_, '_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sending with {:?}", self.producer)
    }
}

impl<K: Producers> Future for Sending<'_, '_, K> {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { producer, record, task } = &mut *self;
        when_there_is_room(task, context, |full| producer.deliver(record, full))
    }
}

fn when_there_is_room(
    task: &mut Option<Task>,
    context: &Context<'_>,
    mut publish: impl FnMut(WhenFull<'_>) -> Result<Receipt, PublishError>,
) -> Poll<Result<Receipt, PublishError>> {
    let task = task.get_or_insert_with(Task::new);
    loop {
        task.waits.set(false);
        let done = publish(WhenFull::Arm(task));
        if !task.waits.get() || done.is_ok() {
            return Poll::Ready(done);
        }
        if !task.waiter.take_or_wake(context.waker(), |_| ()) {
            return Poll::Pending;
        }
    }
}
