//! Managed subscribers: threads of the engine that call a handler.

mod each;
mod handler;
mod policy;
mod whole;

use each::start_each;
use policy::ErrorPolicy;

use crate::base::cores::CoresError;
use crate::base::handler_thread;
use crate::base::kind::Producers;
use crate::base::threads::{StartError, caught};
use crate::base::trace::lifecycle;
use crate::event::dead_letter::Origin;
use crate::read::error::CancelError;
use crate::read::handler::BatchStart;
use crate::read::{At, Batch, PartitionConsumer, SharedForwarder, Subscriber, SubscriberBuilder};
use crate::topic::TopicCore;
use crate::topic::consumers::{ConsumerRun, SetWait};
use crate::topic::error::SubscribeError;
use slipring_ring::{Ending, Multi, OnError, Outcome, Sequence, Wait};
use std::fmt::{self, Display};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// A subscriber that runs on threads of the engine. Dropping this handle does not end it.
pub struct Subscription<E, K: Producers = Multi> {
    topic: Arc<TopicCore<E, K>>,
    name: String,
    first: Vec<u64>,
    run: Arc<ConsumerRun>,
}

impl<E: Send + Sync + 'static, K: Producers> SubscriberBuilder<E, K> {
    /// Starts a thread with the subscriber's name that calls `handler` with each event of every partition. The handler
    /// returns `()` if it cannot fail, otherwise a `Result`: see [`Outcome`](crate::subscriber::Outcome).
    ///
    /// # Publishing in a handler
    /// A handler may publish, also into the topic that it reads. But it cannot wait for room in its own topic, because
    /// no slot becomes free before the handler returns. A publish that would wait there
    /// ([`Overflow::Block`](crate::topic::Overflow::Block)) is refused with
    /// [`PublishError::OwnConsumer`](crate::producer::PublishError::OwnConsumer). Publish with `try_publish` and keep a
    /// refused event for the next call, or give the topic enough capacity for everything that the handler publishes:
    /// the slots of read events are freed whenever a quarter of the capacity was read. Two consumers that wait for room
    /// in each other's topics are not detected; a deadline ([`Overflow::BlockFor`](crate::topic::Overflow::BlockFor))
    /// ends such a wait.
    ///
    /// # Errors
    /// The name is invalid or taken, a subscriber in [`after`](Self::after) does not exist, the start is out of range,
    /// the pin is refused, or the topic is closed.
    pub fn run<R: Outcome>(
        self,
        mut handler: impl FnMut(&E, At) -> R + Send + 'static,
    ) -> Result<Subscription<E, K>, SubscribeError> {
        self.run_with(|| (), move |(), event, at| handler(event, at))
    }

    /// As [`run`](Self::run), with a state that is created on the subscriber's thread and stays there, so it need not
    /// be `Send`.
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
    /// Those of [`run`](Self::run).
    pub fn run_with<S: 'static, R: Outcome>(
        mut self,
        make: impl FnOnce() -> S + Send + 'static,
        mut handler: impl FnMut(&mut S, &E, At) -> R + Send + 'static,
    ) -> Result<Subscription<E, K>, SubscribeError> {
        let (core, wait, policy) = (self.core, self.wait.clone(), self.policy()?);
        let handler = move |state: &mut S, event: &E, at: At| handler(state, event, at).into_result();
        start(self.poll()?, core, wait, policy, make, None, handler)
    }

    /// Starts one thread for each partition, named `name-partition`. The handler of each thread is made by `make`,
    /// which is called with the partition's number on the calling thread. A [pin](Self::pin) pins all of the threads.
    /// When a partition is added, `make` is called on the thread that adds it, and cannot add further partitions then.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # use std::{convert::Infallible, time::Duration};
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").partitions(2).create()?;
    /// ticks.subscribe("sum").run_each(|partition| {
    ///     let mut sum = 0;
    ///     move |tick: &u64, at: slipring::subscriber::At| {
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
    /// Those of [`run`](Self::run).
    pub fn run_each<R: Outcome, H>(
        self,
        make: impl FnMut(u32) -> H + Send + 'static,
    ) -> Result<Subscription<E, K>, SubscribeError>
    where
        H: FnMut(&E, At) -> R + Send + 'static,
    {
        start_each(self, make, None, |handler: &mut H, event: &E, at: At| handler(event, at).into_result())
    }
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

    /// The first offset of partition 0 that the subscriber reads. See [`first_in`](Self::first_in).
    pub fn first(&self) -> u64 {
        self.first[0]
    }

    /// The first offset of this partition that the subscriber reads; `None` if the partition was added after the
    /// subscriber began.
    pub fn first_in(&self, partition: u32) -> Option<u64> {
        self.first.get(partition as usize).copied()
    }

    /// Changes the wait strategy of the subscriber's threads, for example to one that parks during a quiet night.
    ///
    /// ```
    /// # use slipring::{Engine, Wait};
    /// # let engine = Engine::builder().build()?;
    /// # let ticks = engine.topic::<u64>("ticks").create()?;
    /// let book = ticks.subscribe("book").wait(Wait::spin_yield()).run(|_, _| Ok::<_, std::fmt::Error>(()))?;
    /// book.set_wait(Wait::spin_then_park())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The [`CorePlan`](crate::cores::CorePlan) refuses the strategy, or the subscriber's threads have ended. Then
    /// nothing changes.
    pub fn set_wait(&self, wait: Wait) -> Result<(), CoresError> {
        self.topic.host.cores.change(&self.topic.name, &self.name, &wait)?;
        let memberships: Vec<_> = self.run.state().memberships.iter().filter_map(Weak::upgrade).collect();
        memberships.iter().for_each(|membership| membership.set_wait(wait.clone()));
        Ok(())
    }

    /// Ends the subscriber after its current batch. Producers no longer wait for it.
    ///
    /// # Errors
    /// Other subscribers are ordered after it, or it has ended already.
    pub fn cancel(self) -> Result<(), CancelError> {
        // Set before the eviction, which may end the threads at once: their end then counts as a cancellation. Reset if
        // the eviction is refused.
        self.run.cancelled.store(true, Ordering::Release);
        let evicted = self.topic.evict(&self.name);
        if evicted.is_err() {
            self.run.cancelled.store(false, Ordering::Release);
        }
        self.topic.forget_cancelled();
        evicted.map(|_| ()).map_err(|refused| CancelError::new(&self.topic.name, &self.name, refused))
    }
}

/// Settings of one thread of a subscriber.
struct ThreadSettings<E> {
    thread: String,
    /// The only partition that the thread reads; `None` if it reads all.
    partition: Option<u32>,
    core: Option<usize>,
    wait: Wait,
    policy: ErrorPolicy<E>,
}

/// Starts one thread that reads all partitions.
pub(crate) fn start<E, K, S, X>(
    subscriber: Subscriber<E, K>,
    core: Option<usize>,
    wait: Wait,
    policy: ErrorPolicy<E>,
    make: impl FnOnce() -> S + Send + 'static,
    on_start: Option<fn(&mut S, BatchStart)>,
    handler: impl FnMut(&mut S, &E, At) -> Result<(), X> + Send + 'static,
) -> Result<Subscription<E, K>, SubscribeError>
where
    E: Send + Sync + 'static,
    K: Producers,
    S: 'static,
    X: Display + 'static,
{
    let topic = Arc::clone(&subscriber.topic);
    let name = subscriber.name().to_owned();
    let first = subscriber.parts.iter().map(|part| part.consumer.consumed().0).collect();
    let run = ConsumerRun::new(Arc::clone(&subscriber.membership.stats));
    launch(
        subscriber,
        &run,
        ThreadSettings { thread: name.clone(), partition: None, core, wait, policy },
        make,
        on_start,
        handler,
    )?;
    topic.keep(Arc::clone(&run));
    Ok(Subscription { topic, name, first, run })
}

fn launch<E, K, S, X>(
    subscriber: Subscriber<E, K>,
    run: &Arc<ConsumerRun>,
    setting: ThreadSettings<E>,
    make: impl FnOnce() -> S + Send + 'static,
    on_start: Option<fn(&mut S, BatchStart)>,
    handler: impl FnMut(&mut S, &E, At) -> Result<(), X> + Send + 'static,
) -> Result<(), SubscribeError>
where
    E: Send + Sync + 'static,
    K: Producers,
    S: 'static,
    X: Display + 'static,
{
    run.state().threads += 1;
    let (topic, running) = (Arc::clone(&subscriber.topic), Arc::clone(run));
    let ThreadSettings { thread, partition, core, wait, policy } = setting;
    let ticket = topic.host.cores.enter(&topic.name, &run.stats.name, &thread, core, &wait).map_err(|cause| {
        run.state().threads -= 1;
        SubscribeError::Cores { topic: topic.name.clone(), cause }
    })?;
    run.state().memberships.push(Arc::downgrade(&subscriber.membership) as Weak<dyn SetWait>);
    let life = move |state| {
        let _core = ticket.read_back();
        handler_thread::begin(subscriber.name().to_owned(), Some(subscriber.topic.id), partition);
        attend(subscriber, state, on_start, handler, policy, &running);
    };
    topic.threads.start(&thread, core, make, life).map_err(|cause| {
        run.state().threads -= 1;
        let (topic, consumer) = (topic.name.clone(), run.stats.name.clone());
        match cause {
            StartError::Pin(cause) => SubscribeError::Pin { topic, consumer, cause },
            StartError::Thread(cause) => SubscribeError::Thread { topic, consumer, cause },
            StartError::Panicked(cause) => SubscribeError::Handler { topic, consumer, cause },
        }
    })
}

/// Runs a subscriber's thread until it ends, and reports the end.
fn attend<E, K: Producers, S, X: Display>(
    mut subscriber: Subscriber<E, K>,
    mut state: S,
    on_start: Option<fn(&mut S, BatchStart)>,
    mut handler: impl FnMut(&mut S, &E, At) -> Result<(), X>,
    mut policy: ErrorPolicy<E>,
    run: &ConsumerRun,
) where
    E: Send + Sync + 'static,
{
    let (_topic, _consumer) = (subscriber.topic.name.clone(), &run.stats.name);
    lifecycle!(info, "consumer started", topic = _topic, consumer = _consumer);
    let read = caught(|| read_on(&mut subscriber, &mut state, on_start, &mut handler, &mut policy, run));
    // A panic outside of the handler, for example in a wait strategy or the clock, fails the topic as a panic in the
    // handler does.
    let ending = read.unwrap_or_else(|panic| Ending::Failed(panic.to_string()));
    match &ending {
        Ending::Failed(_cause) => {
            lifecycle!(error, "consumer failed", topic = _topic, consumer = _consumer, cause = _cause);
        }
        Ending::Stopped(_cause) => {
            lifecycle!(info, "consumer stopped", topic = _topic, consumer = _consumer, cause = _cause);
        }
        _ => lifecycle!(info, "consumer has read all", topic = _topic, consumer = _consumer),
    }
    drop(policy);
    if let Ending::Failed(cause) = &ending {
        subscriber.topic.fail(&run.stats.name, cause);
    }
    // Dropping the handler or its state may panic too. The consumer ends all the same.
    let _ = caught(move || drop(handler));
    let _ = caught(move || drop(state));
    let at = |part: &PartitionConsumer<E, K>| (part.partition.index, part.consumer.consumed().0);
    let consumed = subscriber.parts.iter().map(at).collect();
    let topic = Arc::clone(&subscriber.topic);
    drop(subscriber);
    run.end(ending, consumed);
    topic.forget_cancelled();
}

fn read_on<E: Send + Sync + 'static, K: Producers, S, X: Display>(
    subscriber: &mut Subscriber<E, K>,
    state: &mut S,
    on_start: Option<fn(&mut S, BatchStart)>,
    handler: &mut impl FnMut(&mut S, &E, At) -> Result<(), X>,
    policy: &mut ErrorPolicy<E>,
    run: &ConsumerRun,
) -> Ending {
    let (retries, then_skip) = match policy.on_error {
        OnError::Stop => (0, false),
        OnError::Skip => (0, true),
        OnError::Retry(retries) => (retries, false),
        OnError::RetryThenSkip(retries) => (retries, true),
    };
    let then_skip = then_skip || policy.forwarder.is_some();
    if let Some(mut batches) = policy.batches.take() {
        return whole::read_on(subscriber, state, on_start, handler, policy, (&mut batches, then_skip), run);
    }
    let topic = subscriber.topic.name.clone();
    // The slots of a long batch are released in parts, so that producers need not wait for the batch's end.
    let part = subscriber.topic.settings.capacity / 4;
    let mut retried: Option<(u32, u64, u32)> = None;
    loop {
        let mut batch = match subscriber.poll_by(false, None) {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ending::Drained,
            Err(refused) => return Ending::Stopped(refused.reason.to_string()),
        };
        let mut on_start = on_start;
        while !batch.is_empty() {
            let mut culprit = batch.batch.position();
            let worked = caught(|| {
                if let Some(started) = on_start {
                    started(state, BatchStart::new(batch.partition, culprit.0, batch.len(), batch.batch.lag()));
                    on_start = None;
                }
                work(&mut batch, part, &mut |event: &E, at| handler(state, event, at), &mut culprit)
            });
            let cause = match worked {
                Ok(Ok(())) => break,
                Ok(Err(cause)) => cause,
                Err(panic) => panic.to_string(),
            };
            let again = match retried {
                Some((partition, offset, tries)) if (partition, offset) == (batch.partition, culprit.0) => tries,
                _ => 0,
            };
            // In a halted topic nothing is retried or skipped: the event stays unread.
            let moot = (retries > 0 || then_skip) && batch.batch.ends_at_once();
            if moot {
                batch.batch.put_back(culprit);
                break;
            }
            if again < retries {
                retried = Some((batch.partition, culprit.0, again + 1));
                batch.batch.put_back(culprit);
            } else if then_skip {
                if let Some(forwarder) = &policy.forwarder
                    && let Err(refused) =
                        forward(&mut batch, forwarder, culprit, (&topic, &run.stats.name), (again + 1, &cause))
                {
                    return Ending::Failed(format!("{cause}; and it was not moved to the dead letters: {refused}"));
                }
                // An event that was not passed to the handler, as `on_start` has panicked, is passed over here.
                batch.batch.pass_over_to(Sequence(culprit.0 + 1));
                run.stats.skipped.fetch_add(1, Ordering::Relaxed);
            } else {
                batch.batch.put_back(culprit);
                return Ending::Failed(cause);
            }
        }
    }
}

/// Copies the event at `culprit` to the dead-letter topic. If that fails, the event stays unread.
fn forward<E: Send + Sync + 'static, K: Producers>(
    batch: &mut Batch<'_, E, K>,
    forwarder: &SharedForwarder<E>,
    culprit: Sequence,
    (topic, consumer): (&str, &str),
    (attempts, reason): (u32, &str),
) -> Result<(), String> {
    batch.batch.put_back(culprit);
    let partition = batch.partition;
    // Copying the event runs user code, so the forwarder is taken by one thread at a time, without a mutex held.
    let Some(mut forwarder) = forwarder.take() else { return Err("another letter is being written".to_owned()) };
    let moved = caught(|| match (&mut batch.batch).into_iter().next() {
        Some((Sequence(offset), event)) => {
            forwarder.put(event, Origin { topic, partition, offset, consumer, attempts, reason })
        }
        None => Ok(()),
    });
    let moved = moved.map_err(|panic| panic.to_string()).and_then(|moved| moved.map_err(|refused| refused.to_string()));
    if moved.is_err() {
        batch.batch.put_back(culprit);
    }
    moved
}

/// Count of events between two checks that the topic was halted.
const HALT_EVERY: usize = 16;

/// Calls the handler with the events of the batch, and frees their slots each time that more than `part` of them were
/// handled. On an error or a panic, `culprit` is the event's offset. If the topic was halted, returns `Ok` with events
/// left in the batch.
#[inline]
fn work<E, K: Producers, X: Display>(
    batch: &mut Batch<'_, E, K>,
    part: usize,
    handler: &mut impl FnMut(&E, At) -> Result<(), X>,
    culprit: &mut Sequence,
) -> Result<(), String> {
    let mut kept = 0;
    loop {
        let mut next = (&mut *batch).into_iter();
        let Some((event, at)) = next.next() else { return Ok(()) };
        *culprit = Sequence(at.offset);
        handler(event, at).map_err(|error| error.to_string())?;
        kept += 1;
        if kept > part {
            batch.batch.release();
            kept = 0;
        }
        if kept % HALT_EVERY == 0 && batch.batch.ends_at_once() {
            return Ok(());
        }
    }
}
