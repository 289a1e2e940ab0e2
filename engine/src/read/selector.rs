//! Selectors: one thread that waits for readers of many topics.

use crate::base::kind::Producers;
use crate::base::multi_wait::{MultiWait, WaitEnd, WaitSources};
use crate::base::wakeup::Wakeup;
use crate::read::error::ReadError;
use crate::read::{FindOutcome, Subscriber};
use slipring_ring::{Wait, Waiter};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waits for many readers, of topics of any types, and returns which one has something to read.
///
/// A call does not check every reader: if more than 16 readers are checked in turn, one that was found empty 64 times
/// in a row is left out until it has something to read. So a quiet [`Subscriber`](crate::Subscriber) costs a call only
/// the comparison of its identity, and a quiet member of a group also the record of its progress. Never left out are
/// workers of a queue, and subscribers with [`visible`](crate::subscriber::SubscriberBuilder::visible).
///
/// ```
/// use slipring::{Engine, subscriber::Selector};
/// use std::time::Duration;
///
/// let engine = Engine::builder().build()?;
/// let orders = engine.topic::<u64>("orders").create()?;
/// let quotes = engine.topic::<(u64, u64)>("quotes").partitions(2).create()?;
/// let (mut order_tape, mut quote_tape) = (orders.subscribe("risk").poll()?, quotes.subscribe("risk").poll()?);
/// quotes.producer().create()?.publish(|quote| *quote = (99, 101))?;
///
/// let mut selector = Selector::round_robin();
/// loop {
///     match selector.select(&mut [&mut order_tape, &mut quote_tape], Duration::from_secs(1))? {
///         Some(0) => {
///             for (order, _) in &mut order_tape.poll(Duration::ZERO)?.unwrap() { println!("{order}") }
///         }
///         Some(_) => {
///             for (quote, _) in &mut quote_tape.poll(Duration::ZERO)?.unwrap() { assert_eq!(*quote, (99, 101)) }
///         }
///         None => println!("a quiet second"),
///     }
/// #   break;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A reader whose topic was closed and read to its end, or that cannot read on, is selected again and again; its own
/// poll returns the end or the error. Then leave that reader out of the slice. The numbers of the readers after it
/// change.
pub struct Selector {
    watch: MultiWait,
    waiter: Arc<Waiter>,
    /// The identities of the readers of the last call, by index. For other readers the selector begins anew.
    watched: Vec<usize>,
    /// The indexes of the readers that are notified of each call and each sleep: see [`Selectable::is_minded`].
    minded: Vec<usize>,
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector of {} readers", self.watched.len())
    }
}

impl Selector {
    fn new(by_number: bool) -> Self {
        let waiter = Arc::new(Waiter::new());
        let watch = MultiWait::new(Wait::default(), Arc::clone(&waiter)).by_number(by_number);
        Self { watch, waiter, watched: Vec::new(), minded: Vec::new() }
    }

    /// Returns a selector that selects ready readers in turn.
    pub fn round_robin() -> Self {
        Self::new(false)
    }

    /// Returns a selector that always selects the first ready reader of the slice. While that reader stays busy, later
    /// ones are not selected.
    pub fn by_priority() -> Self {
        Self::new(true)
    }

    /// Sets how the selector waits; as [`Wait::default`] unless set.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.watch.wait = wait;
        self
    }

    /// A handle by which another thread ends the present or the next wait of a [`select`](Self::select). The handles of
    /// the selected readers end the waits of their own calls only.
    pub fn wakeup(&self) -> Wakeup {
        self.watch.wakeup()
    }

    /// Waits, for at most `limit`, until a reader has events, an end or an error, and returns the reader's index in the
    /// slice. `None` if none has by then, or a [`Wakeup`] ended the wait. Calls with the readers of the last call, in the
    /// same order, are fastest; another slice costs one check of each reader.
    ///
    /// # Errors
    /// None at present: a reader's own errors, such as a [gap](crate::replay::Gap), are returned by its poll.
    pub fn select(&mut self, readers: &mut [&mut dyn Selectable], limit: Duration) -> Result<Option<usize>, ReadError> {
        let same = self.watched.len() == readers.len()
            && self.watched.iter().zip(&*readers).all(|(known, reader)| *known == reader.identity());
        if !same {
            // The old waiter is dropped, so that the readers before no longer wake this selector.
            self.waiter = Arc::new(Waiter::new());
            self.watch.renew(Arc::clone(&self.waiter));
            self.watched = readers.iter().map(|reader| reader.identity()).collect();
            self.minded = (0..readers.len()).filter(|reader| readers[*reader].is_minded()).collect();
            (0..readers.len()).for_each(|reader| self.watch.add(reader));
        }
        self.minded.iter().for_each(|reader| readers[*reader].see());
        let now = limit.is_zero();
        let deadline = Instant::now().checked_add(limit);
        let (waiter, minded) = (&self.waiter, &self.minded[..]);
        let mut looking = SelectedReaders { readers, waiter, minded, slept: false };
        let found = loop {
            match self.watch.next(&mut looking, now, deadline) {
                WaitEnd::Source(reader) => break Some(reader),
                WaitEnd::Nothing => break None,
                WaitEnd::Interrupted => {}
            }
        };
        drop(looking);
        Ok(found)
    }
}

/// A reader that a [`Selector`] can wait for: a [`Subscriber`], a [`Member`](crate::group::Member) of a group, or a
/// [`Worker`](crate::queue::Worker) of a queue, whose [`receive`](crate::queue::Worker::receive) then returns the
/// message that was found. A member of a group makes progress with each call of its selector and while the selector
/// sleeps, so it is not fenced meanwhile.
pub trait Selectable {
    /// True if a poll would return at once with events, an end or an error.
    #[doc(hidden)]
    fn is_ready(&mut self) -> bool;

    /// Registers the waiter to be woken under `token` when [`is_ready`](Self::is_ready) becomes true. False if it is
    /// true by now.
    #[doc(hidden)]
    fn arm(&mut self, waiter: &Arc<Waiter>, token: usize) -> bool;

    /// True if the reader may stay registered from one call to the next: it is then not checked until it wakes the
    /// waiter. False if each call must check the reader, or if the reader may be registered only while the selector
    /// sleeps.
    #[doc(hidden)]
    fn may_rest(&self) -> bool {
        false
    }

    /// True if [`see`](Self::see), [`begin_sleep`](Self::begin_sleep) and [`awake`](Self::awake) do something, so that
    /// the selector calls them.
    #[doc(hidden)]
    fn is_minded(&self) -> bool {
        true
    }

    /// Called at the beginning of each call of the selector, also if the reader rests.
    #[doc(hidden)]
    fn see(&mut self) {}

    /// Called before the selector sleeps, also if the reader rests.
    #[doc(hidden)]
    fn begin_sleep(&mut self) {}

    /// Called at the end of a call in which the selector has called [`begin_sleep`](Self::begin_sleep).
    #[doc(hidden)]
    fn awake(&mut self) {}

    /// A number that no other reader has or had.
    #[doc(hidden)]
    fn identity(&self) -> usize;
}

impl<E: Send + Sync + 'static, K: Producers> Selectable for Subscriber<E, K> {
    fn is_ready(&mut self) -> bool {
        !matches!(self.find(true, None), Ok(FindOutcome::Nothing))
    }

    fn arm(&mut self, waiter: &Arc<Waiter>, token: usize) -> bool {
        Subscriber::arm(self, waiter, token)
    }

    /// False if the subscriber waits for the journal: see the subscriber's own
    /// [`WaitSources::may_rest`](crate::base::multi_wait::WaitSources::may_rest).
    fn may_rest(&self) -> bool {
        self.visibility.is_none()
    }

    fn is_minded(&self) -> bool {
        false
    }

    fn identity(&self) -> usize {
        self.membership.number
    }
}

struct SelectedReaders<'s, 'r> {
    readers: &'s mut [&'r mut dyn Selectable],
    waiter: &'s Arc<Waiter>,
    minded: &'s [usize],
    /// True once the selector was about to sleep.
    slept: bool,
}

/// Notifies the readers that the wait is over, also if the wait strategy, which is user code, panics.
impl Drop for SelectedReaders<'_, '_> {
    fn drop(&mut self) {
        if self.slept {
            self.minded.iter().for_each(|reader| self.readers[*reader].awake());
        }
    }
}

impl WaitSources for SelectedReaders<'_, '_> {
    fn look(&mut self, source: usize, _: u32) -> bool {
        self.readers[source].is_ready()
    }

    fn arm(&mut self, source: usize, _: &Waiter) -> bool {
        self.readers[source].arm(self.waiter, source)
    }

    fn may_rest(&self, source: usize) -> bool {
        self.readers[source].may_rest()
    }

    fn begin_sleep(&mut self) {
        self.slept = true;
        self.minded.iter().for_each(|reader| self.readers[*reader].begin_sleep());
    }
}
