//! Topics that are fed from a shared ring: the settings, and the thread that reads the ring and publishes into the topic.
//!
//! # Why each event is published once
//! The thread publishes through an idempotent producer, whose sequence is the count of the events that it has read. The
//! journal keeps that sequence in the frame of the event. The ring keeps the count as the note of the link's position, which
//! is held: position and note move together, once all events before them have reached the level. So whoever goes on after a
//! kill reads the events behind the position again with the same sequences, and the producer publishes none of them twice.

use super::error::{RingLinkEnd, RingLinkError, RingLinkFailure};
use super::handle::{LinkRun, RingLink};
use super::ring::RingSettings;
use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::level::Level;
use crate::base::threads::{StartError, caught};
use crate::base::trace::lifecycle;
use crate::log::receipt::Receipt;
use crate::produce::idempotent::{IdempotenceError, IdempotentProducer};
use crate::produce::partitioner::Partitioner;
use crate::read::error::ReadError;
use crate::topic::Topic;
use crate::topic::error::{PublishError, SubscribeError};
use crate::topic::ring_link::{RingDirection, RingLinkState};
use slipring_ring::shared::{self, Ended, SharedConsumer, SharedRing, Size};
use slipring_ring::{Multi, Start, Wait};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The time between two looks whether a link without events was stopped, or its topic was closed.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// How long a link waits before it publishes again into a topic that was full.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// Settings of a topic that is fed from a shared ring of other processes: see [`Topic::feed_from`].
pub struct FeedBuilder<E, K: Producers = Multi> {
    topic: Topic<E, K>,
    ring: RingSettings,
    name: String,
    start: Start,
    level: Level,
    partitioner: Partitioner,
    batch: usize,
    core: Option<usize>,
    wait: Wait,
}

impl<E: shared::Event, K: Producers> Topic<E, K> {
    /// Returns the settings of a link that reads the shared ring `ring`, into which other processes publish, and publishes
    /// each of its events into this topic: so its journal, groups and bridges serve those processes. Finish them with
    /// [`open`](FeedBuilder::open). The page of [`share`](crate::share) says what is promised.
    pub fn feed_from(&self, ring: impl Into<String>) -> FeedBuilder<E, K> {
        let level = match &self.inner.durable {
            Some(durable) if durable.committer.syncs => Level::Durable,
            Some(_) => Level::Written,
            None => Level::Published,
        };
        FeedBuilder {
            topic: self.clone(),
            ring: RingSettings::new(ring.into()),
            name: self.name().to_owned(),
            start: Start::Earliest,
            level,
            partitioner: Partitioner::default(),
            batch: 4096,
            core: None,
            wait: Wait::default(),
        }
    }
}

impl<E: shared::Event, K: Producers> FeedBuilder<E, K> {
    /// Sets the name that the link has as a held consumer of the ring, 1 to 48 letters, digits, dots, underscores and
    /// hyphens; the topic's name by default. Keep it: under the same name a later link goes on where this one has ended.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the ring's size, a count of slots or a [`Size`], with which the link creates the ring if it is not there. If
    /// it exists, it must have this size. Without a size, a ring that is not there is an error.
    pub fn size(mut self, size: impl Into<Size>) -> Self {
        self.ring.size = Some(size.into());
        self
    }

    /// Sets where the link begins to read a ring that it has not read before; [`Start::Earliest`] by default.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets the level that an event has reached when it leaves the ring: on a durable topic [`Level::Durable`] by default,
    /// or [`Level::Written`] with a journal that does not sync. With [`Level::Published`] a process that is killed loses
    /// what left the ring before it was written.
    pub fn acknowledge(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Sets which partition an event goes to; [`Partitioner::KeyHash`] by default, as for a producer's events without a
    /// key.
    pub fn partitioner(mut self, partitioner: Partitioner) -> Self {
        self.partitioner = partitioner;
        self
    }

    /// Sets the greatest count of events that are published before they leave the ring together; 4,096 by default, and at
    /// most the ring's capacity. 0 counts as 1.
    pub fn batch(mut self, events: usize) -> Self {
        self.batch = events.max(1);
        self
    }

    /// Pins the link's thread to the processor core with this number in the operating system.
    pub fn pin(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Sets how the link's thread waits for events of the ring.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Joins the ring as a held consumer, and starts the thread that publishes into the topic.
    ///
    /// # Errors
    /// The ring is not there, has other events, or has a living consumer of the name; the topic gives no producer, or does
    /// not reach the level; the thread could not be started. On other systems than Linux:
    /// [`SharedError::Unsupported`](shared::SharedError).
    pub fn open(self) -> Result<RingLink, RingLinkError> {
        let Self { topic, ring: settings, name, start, level, partitioner, batch, core, wait } = self;
        let ring: SharedRing<E> = settings.open()?;
        let consumer = ring.consumer(name.clone()).hold().start(start).wait(wait.clone()).join();
        let mut consumer = consumer.map_err(|cause| RingLinkError::Ring { ring: settings.name.clone(), cause })?;
        // The producer confirms the level of each event by itself; here one confirmation is enough for a batch.
        let confirms = topic.producer().partitioner(partitioner.clone()).acknowledge(level);
        confirms.check()?;
        let producer = topic.producer().partitioner(partitioner).idempotent(producer_name(&settings.name, &name))?;
        let next = producer.next_sequence();
        let sequence = match (consumer.note(), next) {
            // The topic is another one than before, or an older state of it. The events from here on are not in it.
            (Some(note), Some(next)) if next < note => next,
            (Some(note), _) => note,
            (None, next) => next.unwrap_or(0),
        };
        consumer.set_note(sequence);
        let run = LinkRun::new(RingLinkState::new(&settings.name, &name, RingDirection::Fed));
        let batch = batch.min(ring.capacity());
        let (feeds, told) = (topic.clone(), Arc::clone(&run));
        let mut feed =
            RingFeed { topic: topic.clone(), ring: settings.name, consumer, producer, level, sequence, batch, run };
        let run = Arc::clone(&feed.run);
        let ticket = topic.inner.host.cores.enter(topic.name(), &name, &name, core, &wait).map_err(|cause| {
            RingLinkError::Subscribe(SubscribeError::Cores { topic: topic.name().to_owned(), cause })
        })?;
        let ring_name = feed.ring.clone();
        let life = move |()| {
            let _core = ticket.read_back();
            let _ring = feed.ring.clone();
            lifecycle!(info, "feed started", topic = feeds.name(), ring = _ring);
            let ended = match caught(|| feed.run()) {
                Ok(Ok(end)) => end,
                Ok(Err(failure)) => RingLinkEnd::Failed(failure),
                Err(panic) => {
                    let topic = feeds.name().to_owned();
                    RingLinkEnd::Failed(RingLinkFailure::Panicked { topic, cause: panic.said() })
                }
            };
            let _ = caught(move || drop(feed));
            lifecycle!(info, "feed ended", topic = feeds.name(), ring = _ring);
            told.end(ended);
        };
        topic.inner.threads.start(&name, core, || (), life).map_err(|cause| {
            let cause = match cause {
                StartError::Pin(cause) => cause.to_string(),
                StartError::Thread(cause) => cause.to_string(),
                StartError::Panicked(cause) => cause,
            };
            RingLinkError::Thread { topic: topic.name().to_owned(), ring: ring_name, cause }
        })?;
        topic.inner.ring_links.add(&run.state);
        Ok(RingLink { run, wakeup: None })
    }
}

/// The name of the idempotent producer of a link.
fn producer_name(ring: &str, name: &str) -> String {
    format!("ring.{ring}.{name}")
}

/// The thread's side of a link.
struct RingFeed<E: shared::Event, K: Producers> {
    topic: Topic<E, K>,
    ring: String,
    consumer: SharedConsumer<E>,
    producer: IdempotentProducer<E, K>,
    level: Level,
    /// The sequence of the next event of the ring.
    sequence: u64,
    batch: usize,
    run: Arc<LinkRun>,
}

impl<E: shared::Event, K: Producers> RingFeed<E, K> {
    fn run(&mut self) -> Result<RingLinkEnd, RingLinkFailure> {
        let mut events = Vec::with_capacity(self.batch);
        loop {
            if self.topic.inner.has_ended()
                && let Some(reason @ Closed::Failed { .. }) = self.topic.closed()
            {
                let (topic, consumer) = (self.topic.name().to_owned(), self.run.state.describe().name);
                return Err(ReadError { topic, consumer, reason }.into());
            }
            if self.run.is_stopped() || self.topic.inner.has_ended() {
                return Ok(RingLinkEnd::Stopped);
            }
            let mut batch = match self.consumer.poll_until(self.batch, Instant::now() + CHECK_EVERY) {
                Ok(batch) => batch,
                // The poll has waited for a successor.
                Err(Ended::ProducerDied) => continue,
                Err(Ended::Closed) => return Ok(RingLinkEnd::Finished),
                Err(cause) => return Err(RingLinkFailure::Ring { ring: self.ring.clone(), cause }),
            };
            events.clear();
            events.extend((&mut batch).into_iter().map(|(_, event)| *event));
            // If this thread fails from here on, the events stay in the ring.
            batch.rewind();
            if events.is_empty() {
                continue;
            }
            let published = publish(&mut self.producer, &self.run, self.sequence, &events);
            let Some(Published { next, last, lost }) = published? else { continue };
            if let Some(receipt) = last {
                let confirmed = receipt.wait(self.level);
                let topic = || self.topic.name().to_owned();
                confirmed.map_err(|cause| RingLinkFailure::Unconfirmed { topic: topic(), cause })?;
            }
            (&mut batch).into_iter().for_each(drop);
            batch.commit_noted(next);
            self.sequence = next;
            self.run.state.events.fetch_add(events.len() as u64 - lost, Ordering::Relaxed);
            self.run.state.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

/// What became of the events of a batch.
struct Published {
    /// The sequence behind the last one.
    next: u64,
    /// The receipt of the last event that the topic has; `None` if it has none of them, or its receipts are not kept.
    last: Option<Receipt>,
    /// Count of events that the topic has dropped.
    lost: u64,
}

/// Publishes events from the sequence `first` on. `None` if the link was stopped while the topic was full, or the topic has
/// ended.
fn publish<E: shared::Event, K: Producers>(
    producer: &mut IdempotentProducer<E, K>,
    run: &LinkRun,
    first: u64,
    events: &[E],
) -> Result<Option<Published>, RingLinkFailure> {
    let mut done = Published { next: first, last: None, lost: 0 };
    for event in events {
        let receipt = loop {
            match producer.publish(done.next, |slot| *slot = *event) {
                Ok(receipt) => break Some(receipt),
                // It was published before, and is there.
                Err(IdempotenceError::Forgotten { .. }) => break None,
                Err(IdempotenceError::Refused(
                    PublishError::Full { .. } | PublishError::TimedOut { .. } | PublishError::RateLimited { .. },
                )) => {
                    if run.is_stopped() {
                        return Ok(None);
                    }
                    std::thread::sleep(RETRY_AFTER);
                }
                Err(IdempotenceError::Refused(PublishError::Closed { .. })) => return Ok(None),
                Err(other) => return Err(other.into()),
            }
        };
        match receipt {
            Some(receipt) if receipt.is_dropped() => done.lost += 1,
            receipt => {
                done.last = receipt.or(done.last);
                done.next += 1;
            }
        }
    }
    Ok(Some(done))
}
