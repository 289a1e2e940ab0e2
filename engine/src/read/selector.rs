//! Selectors: one thread that waits for readers of many topics, and for room, deadlines and intervals beside them.

use crate::base::kind::Producers;
use crate::base::multi_wait::{MultiWait, WaitEnd, WaitSources};
use crate::base::wakeup::Wakeup;
use crate::produce::Producer;
use crate::read::error::ReadError;
use crate::read::{FindOutcome, Subscriber};
use slipring_ring::{Wait, Waiter};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waits for many readers, of topics of any types, and returns which one has something to read.
///
/// Beside the readers it waits for a [`Deadline`](crate::subscriber::Deadline), an
/// [`Interval`](crate::subscriber::Interval), or with a [`Producer`](crate::Producer) for
/// [room to publish](crate::Producer::select_room). Each has its turn like a reader.
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
/// poll returns the end or the error. Then [`remove`](Self::remove) that reader, or leave it out of the slice, which
/// changes the indexes of the readers after it.
pub struct Selector {
    watch: MultiWait,
    waiter: Arc<Waiter>,
    /// The identities of the readers of the last call, by index. For other readers the selector begins anew.
    watched: Vec<usize>,
    /// The indexes of the readers that are notified of each call and each sleep: see [`Selectable::is_minded`].
    minded: Vec<usize>,
    /// The identities of the readers that are [removed](Self::remove).
    removed: Vec<usize>,
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
        Self { watch, waiter, watched: Vec::new(), minded: Vec::new(), removed: Vec::new() }
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

    /// Removes a reader, deadline, interval or producer from the selection while it stays in the slice, so that the others
    /// keep their indexes: [`select`](Self::select) no longer returns its index, and what happens at it wakes no wait.
    /// Costs less than another slice. Removing it twice has no further effect. It stays removed until
    /// [`restore`](Self::restore), or until a call is given a slice without it.
    ///
    /// To remove a reader while another thread is in [`select`](Self::select), tell that thread so and end its wait with
    /// a [`wakeup`](Self::wakeup). A member of a group makes no progress while it is removed: its deadline runs.
    ///
    /// ```
    /// # use slipring::{Engine, subscriber::Selector};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # let ticks = engine.topic::<u64>("ticks").create()?;
    /// let mut tapes = [ticks.subscribe("first").poll()?, ticks.subscribe("second").poll()?];
    /// ticks.producer().create()?.publish(|tick| *tick = 42)?;
    /// let mut selector = Selector::by_priority();
    /// selector.remove(&tapes[0]);
    /// let [first, second] = &mut tapes;
    /// assert_eq!(selector.select(&mut [first, second], Duration::ZERO)?, Some(1));
    /// selector.restore(first);
    /// assert_eq!(selector.select(&mut [first, second], Duration::ZERO)?, Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove(&mut self, reader: &dyn Selectable) {
        let identity = reader.identity();
        if !self.removed.contains(&identity) {
            self.removed.push(identity);
        }
        if let Some(index) = self.watched.iter().position(|known| *known == identity) {
            self.watch.remove(index);
            self.minded.retain(|minded| *minded != index);
        }
    }

    /// Takes a reader back into the selection that was [removed](Self::remove). No effect if it was not.
    pub fn restore(&mut self, reader: &dyn Selectable) {
        let identity = reader.identity();
        let Some(place) = self.removed.iter().position(|removed| *removed == identity) else { return };
        self.removed.swap_remove(place);
        if let Some(index) = self.watched.iter().position(|known| *known == identity) {
            self.watch.add(index);
            if reader.is_minded() {
                self.minded.push(index);
            }
        }
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
            let Self { watch, watched, minded, removed, .. } = self;
            removed.retain(|identity| watched.contains(identity));
            minded.clear();
            for index in 0..readers.len() {
                watch.add(index);
                if removed.contains(&watched[index]) {
                    watch.remove(index);
                } else if readers[index].is_minded() {
                    minded.push(index);
                }
            }
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
/// message that was found; or a [`Deadline`](crate::subscriber::Deadline), an
/// [`Interval`](crate::subscriber::Interval), or a [`Producer`] that waits for [room](Producer::select_room) to publish. A
/// member of a group makes progress with each call of its selector and while the selector
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

/// Ready when there is the [requested room](Producer::select_room) to publish, or a publish would return an error at once.
impl<E, K: Producers> Selectable for Producer<E, K> {
    fn is_ready(&mut self) -> bool {
        self.has_room()
    }

    fn arm(&mut self, waiter: &Arc<Waiter>, token: usize) -> bool {
        self.arm_for_room(waiter, token)
    }

    /// True, because a partition that lacks room gets some only by what wakes the selector.
    fn may_rest(&self) -> bool {
        true
    }

    fn is_minded(&self) -> bool {
        false
    }

    fn identity(&self) -> usize {
        self.room_number()
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
