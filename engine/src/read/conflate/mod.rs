//! Conflation: a subscriber that gets the newest event of each key, however slowly it reads.

mod gatherer;
mod mailbox;
pub(in crate::read) mod newest;

use crate::base::kind::Producers;
use crate::base::wakeup::Wakeup;
use crate::event::keep::Keep;
use crate::read::error::ReadError;
use crate::read::{At, SubscriberBuilder};
use crate::text;
use crate::topic::error::SubscribeError;
use foldhash::fast::RandomState;
use gatherer::{EventMailbox, GathererSettings, PART};
use mailbox::{Mail, Mailbox};
use newest::NewestEvents;
use slipring_ring::Multi;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The default of [`ConflateBuilder::keys`].
const KEYS: usize = 65_536;

/// Why a conflating subscriber has ended. It was first given the events that were gathered before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConflateError {
    /// The topic was halted or has failed, or the subscriber was evicted.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// More keys have changed since the last look than [`ConflateBuilder::keys`] allows.
    #[error(
        "consumer {consumer:?} of topic {topic:?}: more than {limit} keys have changed since it last looked: look more often, or allow more `keys`"
    )]
    TooManyKeys {
        /// The topic's name.
        topic: String,
        /// The subscriber's name.
        consumer: String,
        /// The allowed count of keys.
        limit: usize,
    },
    /// The key function, or another function of the key or the event, has panicked. The topic stays open.
    #[error("consumer {consumer:?} of topic {topic:?}: its key function panicked: {}", text::line(.cause))]
    Panicked {
        /// The topic's name.
        topic: String,
        /// The subscriber's name.
        consumer: String,
        /// The panic's message.
        cause: String,
    },
}

/// Settings of a [`ConflatedSubscriber`].
///
/// The subscriber's thread reads every event, asks `key` for the event's key, and copies the event over the last one of
/// that key.
pub struct ConflateBuilder<E, F, K: Producers = Multi> {
    builder: SubscriberBuilder<E, K>,
    key: F,
    keys: usize,
}

impl<E: Keep + Send + Sync + 'static, K: Producers> SubscriberBuilder<E, K> {
    /// Makes this a subscriber that gets, for each key, the newest event since it last looked. Finish it with
    /// [`start`](ConflateBuilder::start).
    ///
    /// A thread of the engine with the subscriber's name reads the events, and the program looks at what it has gathered
    /// when it likes: see [`ConflatedSubscriber`]. The settings of this builder apply to that thread, but for
    /// [`on_error`](Self::on_error) and [`dead_letter`](Self::dead_letter), which apply to handlers only. `key` runs on
    /// that thread; keep it short.
    pub fn conflate<Q, F>(self, key: F) -> ConflateBuilder<E, F, K>
    where
        Q: Hash + Eq + Send + Sync + 'static,
        F: FnMut(&E) -> Q + Send + 'static,
    {
        ConflateBuilder { builder: self, key, keys: KEYS }
    }
}

impl<E: Keep + Send + Sync + 'static, K: Producers, F> ConflateBuilder<E, F, K> {
    /// Sets how many keys may change between two looks; 65,536 by default. If more have changed, the subscriber ends: it
    /// is given what was gathered, and then [`ConflateError::TooManyKeys`]. So its memory is bounded by twice as many
    /// keys and events, and at most 1,024 more: the thread compares the count only after each part that it has gathered.
    ///
    /// ```
    /// # use slipring::{Engine, subscriber::ConflateError};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # let ticks = engine.topic::<u64>("ticks").create()?;
    /// let mut last = ticks.subscribe("last").conflate(|tick: &u64| *tick).keys(2).start()?;
    /// let mut feed = ticks.producer().create()?;
    /// let ended = loop {
    ///     let _ = feed.publish_batch(3, |index, tick| *tick = index as u64)?;
    ///     if let Err(ended) = last.poll(Duration::from_secs(60)) {
    ///         break ended;
    ///     }
    /// };
    /// assert!(matches!(ended, ConflateError::TooManyKeys { limit: 2, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keys(mut self, most: usize) -> Self {
        self.keys = most;
        self
    }

    /// Starts the subscriber's thread.
    ///
    /// # Errors
    /// Those of [`SubscriberBuilder::run`].
    pub fn start<Q>(self) -> Result<ConflatedSubscriber<Q, E>, SubscribeError>
    where
        Q: Hash + Eq + Send + Sync + 'static,
        F: FnMut(&E) -> Q + Send + 'static,
    {
        let Self { builder, key, keys } = self;
        let hasher = RandomState::default();
        let settings =
            GathererSettings { core: builder.core, wait: builder.wait.clone(), keys, hasher: hasher.clone() };
        // Parts are short enough for producers not to wait for the slots of a whole one.
        let part = PART.min(builder.topic.settings.capacity / 4).max(1);
        let limit = builder.limit.min(part);
        let subscriber = builder.limit(limit).poll()?;
        let (topic, name) = (subscriber.topic.name.clone(), subscriber.name().to_owned());
        let thread = subscriber.wakeup();
        let mailbox = Arc::new(Mailbox::new());
        gatherer::start(subscriber, settings, key, Arc::clone(&mailbox))?;
        // The thread gets this box in exchange for its first one.
        let shown = Box::new(NewestEvents::new(hasher));
        Ok(ConflatedSubscriber { topic, name, mailbox, thread, shown })
    }
}

/// A subscriber that gets the newest event of each key since it last looked, and so never falls behind.
///
/// Market data, sensors, positions in a game: most readers want the present value of each key, and a slow one wants the
/// newest, not all. This subscriber may look once a second at a topic of a million events a second: it gets each key that
/// has changed once, with its newest event.
///
/// ```
/// use slipring::Engine;
/// use std::time::Duration;
///
/// let engine = Engine::builder().build()?;
/// let quotes = engine.topic::<(u32, f64)>("quotes").create()?;                // symbol, price
/// let mut screen = quotes.subscribe("screen").conflate(|quote: &(u32, f64)| quote.0).start()?;
///
/// let mut feed = quotes.producer().create()?;
/// for quote in [(7, 1.0), (3, 9.5), (7, 1.1), (7, 1.2)] {
///     feed.publish(|place| *place = quote)?;
/// }
/// quotes.close();
///
/// let (mut prices, mut left_out) = (std::collections::HashMap::new(), 0);
/// while let Some(changes) = screen.poll(Duration::from_secs(60))? {
///     prices.extend(changes.iter().map(|change| (*change.key, change.event.1)));
///     left_out += changes.left_out();                                         // between 0 and 2: as the threads meet
/// }
/// assert_eq!((prices.len(), prices[&7], prices[&3]), (2, 1.2, 9.5));
/// assert!(left_out <= 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Guarantees
/// - A look returns each key whose events were gathered since the last look once, with the newest of these events, in the
///   order in which the keys first changed. Events that a look does not return, because a newer one of their key was
///   gathered, are counted: [`left_out`](ConflatedBatch::left_out).
/// - Every event is returned or counted once. The newest event of a key is always returned, at the latest when the topic
///   is closed.
/// - Reading holds nobody: no producer and no other consumer waits for the program that looks, however long it does not.
///   The subscriber's thread reads as any subscriber does, and producers would wait for it if it fell behind by a whole
///   ring, which it does only if its processor is taken from it, or `key` is slow. It takes no lock and never waits for
///   the reader. With [`Slow::EVICT`](crate::topic::Slow::EVICT) producers that find the ring full because of the thread
///   wait at most for the end of the part that it reads now: then it is evicted, and the reader gets an error.
/// - The memory is bounded by [`keys`](ConflateBuilder::keys).
///
/// # Errors
/// [`ConflateError`], after the gathered events were returned.
///
/// # Dropping
/// Dropping the subscriber ends its thread, at its next look for events. The name is free then, a moment later.
pub struct ConflatedSubscriber<Q, E> {
    topic: String,
    name: String,
    mailbox: Arc<EventMailbox<Q, E>>,
    /// Ends the wait of the gathering thread.
    thread: Wakeup,
    /// The events of the last look.
    shown: Box<NewestEvents<Q, E>>,
}

impl<Q, E> fmt::Debug for ConflatedSubscriber<Q, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConflatedSubscriber {:?} of {:?}", self.name, self.topic)
    }
}

impl<Q, E> Drop for ConflatedSubscriber<Q, E> {
    fn drop(&mut self) {
        self.mailbox.abandon();
        self.thread.wake();
    }
}

impl<Q, E> ConflatedSubscriber<Q, E>
where
    Q: Hash + Eq + Send + Sync + 'static,
    E: Keep + Send + Sync + 'static,
{
    /// The subscriber's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A handle by which another thread ends the present or the next wait of a [`poll`](Self::poll).
    pub fn wakeup(&self) -> Wakeup {
        Wakeup::new(&self.mailbox)
    }

    /// Returns the newest event of each key that has changed since the last call. If none has, waits for at most `limit`;
    /// the batch is empty if no event came, or a [`Wakeup`] ended the wait. `None` if the topic was closed and all was
    /// returned. A limit of zero never waits.
    ///
    /// An event counts as gathered when the subscriber's thread has read it, a moment after it was published:
    /// [`ConflatedBatch::position`] says up to which offset that is.
    ///
    /// # Errors
    /// The topic was halted or has failed, the subscriber was evicted, more [`keys`](ConflateBuilder::keys) have changed
    /// than allowed, or the key function has panicked. Each later call returns the same error.
    pub fn poll(&mut self, limit: Duration) -> Result<Option<ConflatedBatch<'_, Q, E>>, ConflateError> {
        let now = limit.is_zero();
        let deadline = if now { None } else { Instant::now().checked_add(limit) };
        self.shown.clear();
        match self.mailbox.find(now, deadline) {
            Mail::Box(found) => {
                let before = std::mem::replace(&mut self.shown, found);
                self.mailbox.give_back(before);
            }
            Mail::Nothing => {}
            Mail::End(Ok(())) => return Ok(None),
            Mail::End(Err(cause)) => return Err(cause.clone()),
        }
        Ok(Some(ConflatedBatch { newest: &self.shown }))
    }
}

/// One key's newest event.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change<'b, Q, E> {
    /// The key.
    pub key: &'b Q,
    /// The newest event of the key.
    pub event: &'b E,
    /// The event's partition and offset.
    pub at: At,
    /// Count of older events of the key that were left out since the last look.
    pub left_out: u64,
}

impl<Q, E> Clone for Change<'_, Q, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q, E> Copy for Change<'_, Q, E> {}

/// The keys that have changed between two looks, each with its newest event, in the order in which they first changed.
pub struct ConflatedBatch<'s, Q, E> {
    newest: &'s NewestEvents<Q, E>,
}

impl<Q, E> fmt::Debug for ConflatedBatch<'_, Q, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys, {} events left out", self.len(), self.left_out())
    }
}

impl<'s, Q, E> ConflatedBatch<'s, Q, E> {
    /// Count of keys that have changed.
    pub fn len(&self) -> usize {
        self.newest.entries().len()
    }

    /// True if no key has changed.
    pub fn is_empty(&self) -> bool {
        self.newest.entries().is_empty()
    }

    /// Count of events that were left out since the last look, of all keys.
    pub fn left_out(&self) -> u64 {
        self.newest.left_out()
    }

    /// The offset up to which (exclusive) this partition was gathered when the last key changed; `None` before its first
    /// event was.
    pub fn position(&self, partition: u32) -> Option<u64> {
        self.newest.next.get(partition as usize).copied()
    }

    /// The changed keys, in the order in which they first changed.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Change<'s, Q, E>> + use<'s, Q, E> {
        self.newest.entries().iter().map(|entry| Change {
            key: &entry.key,
            event: &entry.event,
            at: At { end_of_batch: false, ..entry.at },
            left_out: entry.events - 1,
        })
    }
}
