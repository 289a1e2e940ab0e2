//! Tables: the last event of each key of a topic, for any thread.

mod changes;
mod contents;
mod state;
mod view;
mod writer;

pub use changes::TableChanges;
pub use view::{TableRow, TableView};

use crate::base::ids::next_reader;
use crate::base::kind::Producers;
use crate::base::overload::ConsumerStats;
use crate::base::threads::caught;
use crate::base::wakeup::Wakeup;
use crate::event::keep::Keep;
use crate::log::gap::OnGap;
use crate::read::error::ReadError;
use crate::read::replay::ReplayError;
use crate::read::{StartAt, reader_thread};
use crate::text;
use crate::topic::Topic;
use crate::topic::error::SubscribeError;
use contents::TableContents;
use foldhash::fast::RandomState;
use slipring_journal::Visible;
use slipring_ring::{Ending, Multi, Wait};
use state::TableState;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};
use writer::{TableSource, TableWriter};

/// The default of [`TableBuilder::keys`].
const KEYS: usize = 1 << 20;

/// The greatest count of events that a table of a topic in memory reads at once.
const PART: usize = 1024;

/// Why a table was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenTableError {
    /// The name is invalid or taken, the thread could not be started, or the topic is closed.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// The journal of a durable topic cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// Why a table has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The topic was halted or has failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The journal of a durable topic cannot be read, has a gap, or the topic was halted or has failed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The topic has more keys than [`TableBuilder::keys`] allows.
    #[error("table {table:?} of topic {topic:?}: it has {limit} keys and may not have more: open it with more `keys`")]
    TooManyKeys {
        /// The topic's name.
        topic: String,
        /// The table's name.
        table: String,
        /// The allowed count of keys.
        limit: usize,
    },
    /// The key function, or another function of the key or the event, has panicked. The topic stays open.
    #[error("table {table:?} of topic {topic:?}: its key function panicked: {}", text::line(.cause))]
    Panicked {
        /// The topic's name.
        topic: String,
        /// The table's name.
        table: String,
        /// The panic's message.
        cause: String,
    },
}

/// Settings of a [`Table`].
pub struct TableBuilder<E, F, K: Producers = Multi> {
    topic: Topic<E, K>,
    key: F,
    name: String,
    keys: usize,
    core: Option<usize>,
    visible: Option<Visible>,
    on_gap: OnGap,
}

impl<E: Keep + Send + Sync + 'static, K: Producers> Topic<E, K> {
    /// Returns the settings of a table of the last event of each key: see [`Table`]. Finish them with
    /// [`open`](TableBuilder::open). `key` runs on the table's thread.
    pub fn table<Q, F>(&self, key: F) -> TableBuilder<E, F, K>
    where
        Q: Hash + Eq + Clone + Send + Sync + 'static,
        F: FnMut(&E) -> Q + Send + 'static,
    {
        let name = format!("table-{}", next_reader());
        TableBuilder { topic: self.clone(), key, name, keys: KEYS, core: None, visible: None, on_gap: OnGap::Fail }
    }
}

impl<E: Keep + Send + Sync + 'static, K: Producers, F> TableBuilder<E, F, K> {
    /// Sets the name that the table has as a consumer of the topic, and its thread; `table-` and a number by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the greatest count of keys; 1,048,576 by default. An event of one more key ends the table with
    /// [`TableError::TooManyKeys`]. The table's memory is bounded by two copies of so many keys and events, and while
    /// readers hold one of them by as many again beside it. There may be more copies while readers hold
    /// [views](TableView): see [`Table`].
    pub fn keys(mut self, most: usize) -> Self {
        self.keys = most;
        self
    }

    /// Pins the table's thread to the processor core with this number in the operating system.
    pub fn pin(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// On a durable topic, sets which events the table has: durable ones only by default, or also written ones, which a
    /// power cut may lose. Refused on a topic in memory.
    pub fn visible(mut self, visible: Visible) -> Self {
        self.visible = Some(visible);
        self
    }

    /// On a durable topic, sets what happens where events were lost to damage; by default the table ends with the error.
    pub fn on_gap(mut self, policy: OnGap) -> Self {
        self.on_gap = policy;
        self
    }

    /// Starts the table's thread, which begins at the earliest event: of a durable topic, the earliest that the journal
    /// keeps, and of a topic in memory, the earliest in the ring. The table is empty at first:
    /// [`wait_for`](Table::wait_for) waits until it stands at an offset.
    ///
    /// # Errors
    /// The name is invalid or taken, the pin is refused, the thread could not be started, the topic is closed, or its
    /// journal cannot be read.
    pub fn open<Q>(self) -> Result<Table<Q, E>, OpenTableError>
    where
        Q: Hash + Eq + Clone + Send + Sync + 'static,
        F: FnMut(&E) -> Q + Send + 'static,
    {
        let Self { topic, key, name, keys, core, visible, on_gap } = self;
        let settings = TableSettings { name, keys, core };
        if topic.inner.durable.is_some() {
            let replay = topic.replay(settings.name.clone()).on_gap(on_gap);
            let replay = replay.visible(visible.unwrap_or(Visible::Durable)).open()?;
            let (wakeup, stats) = (replay.wakeup(), replay.stats());
            return Ok(settings.start(&topic, replay, wakeup, stats, key)?);
        }
        let part = PART.min(topic.inner.settings.capacity / 4).max(1);
        let subscriber = topic.subscribe(settings.name.clone()).start(StartAt::Earliest).limit(part);
        let subscriber = match visible {
            Some(visible) => subscriber.visible(visible),
            None => subscriber,
        };
        let subscriber = subscriber.poll()?;
        let (wakeup, stats) = (subscriber.wakeup(), Arc::clone(&subscriber.membership.stats));
        Ok(settings.start(&topic, subscriber, wakeup, stats, key)?)
    }
}

/// The settings of a table's thread.
struct TableSettings {
    name: String,
    keys: usize,
    core: Option<usize>,
}

impl TableSettings {
    fn start<E, K, Q>(
        self,
        topic: &Topic<E, K>,
        mut source: impl TableSource<E> + Send + 'static,
        wakeup: Wakeup,
        stats: Arc<ConsumerStats>,
        key: impl FnMut(&E) -> Q + Send + 'static,
    ) -> Result<Table<Q, E>, SubscribeError>
    where
        E: Keep + Send + Sync + 'static,
        K: Producers,
        Q: Hash + Eq + Clone + Send + Sync + 'static,
    {
        let Self { name, keys, core } = self;
        let hasher = RandomState::default();
        let empty = TableContents::new(hasher.clone());
        let state = Arc::new(TableState::new(topic.name().to_owned(), name, empty));
        let mut writer = TableWriter::new(Arc::clone(&state), hasher, keys);
        let told = Arc::clone(&state);
        let run = move || {
            let ran = caught(|| writer.run(&mut source, key));
            let ended = ran.unwrap_or_else(|panic| {
                let (topic, table) = (told.topic.clone(), told.name.clone());
                Err(TableError::Panicked { topic, table, cause: panic.said() })
            });
            let consumed = (0..).map_while(|partition| Some((partition, source.position(partition)?))).collect();
            drop(source);
            let ending = match &ended {
                Ok(()) => Ending::Drained,
                Err(cause @ (TableError::Read(_) | TableError::Replay(_))) => Ending::Stopped(cause.to_string()),
                Err(cause) => Ending::Failed(cause.to_string()),
            };
            let is_cancelled = told.is_abandoned();
            reader_thread::End { ending, consumed, is_cancelled, tell: Box::new(move || told.finish(ended)) }
        };
        reader_thread::start(&topic.inner, stats, None, (core, Wait::default()), run)?;
        Ok(Table { handle: Arc::new(TableHandle { state, wakeup }) })
    }
}

/// Ends the table's thread when the last handle is dropped.
struct TableHandle<Q, E> {
    state: Arc<TableState<Q, E>>,
    wakeup: Wakeup,
}

impl<Q, E> Drop for TableHandle<Q, E> {
    fn drop(&mut self) {
        self.state.abandon();
        self.wakeup.wake();
    }
}

/// The last event of each key of a topic, in memory, for any thread. Cloning gives another handle of the same table.
///
/// A thread of the engine reads the topic's events and keeps the last of each key. On a durable topic it begins with the
/// journal, so a program that starts again has the values of the last one; then it reads the ring. Any thread asks for
/// values, looks at all of them, or follows the changes.
///
/// ```
/// use slipring::{Engine, journal::simulated::SimulatedDisk};
/// use std::time::Duration;
///
/// let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
/// let quotes = engine.topic::<[u64; 2]>("quotes").durable().create()?;         // symbol, price
/// let table = quotes.table(|quote| quote[0]).open()?;
///
/// let mut feed = quotes.producer().create()?;
/// let mut offset = 0;
/// for quote in [[7, 100], [3, 950], [7, 101]] {
///     offset = feed.publish(|place| *place = quote)?.offset;
/// }
/// assert!(table.wait_for(0, offset, Duration::from_secs(60))?);
/// assert_eq!(table.get(&7)?, Some([7, 101]));
///
/// let all = table.view()?;
/// assert_eq!((all.len(), all.position(0)), (2, Some(3)));
/// let prices: Vec<_> = all.iter().map(|row| row.event[1]).collect();
/// assert_eq!(prices, [101, 950]);                                              // in the order in which the keys came
/// # drop(all);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Guarantees
/// - The table has, for each key, its last event below the table's [position](TableView::position) in each partition: none
///   is missed and none counts twice, also where reading changes from the journal to the ring. If a key has events in
///   several partitions, its last event is the one that was read last.
/// - [`get`](Self::get) and the first step of a [view](Self::view) or of [changes](Self::changes) take no lock and never
///   wait. A view does not change while it is held.
/// - Readers never hold the table's thread, nor a producer. The table has two copies of its contents, one of which is
///   shown. While a reader holds the copy that is to be changed, the thread gathers beside it; after 10 ms it makes a new
///   copy, which takes as much memory and time as the table has keys. So hold views for less, or let few be held.
/// - On a durable topic, no producer waits for the table: it [spills](crate::replay::ReplayBuilder::spill) to the journal.
///   On a topic in memory producers wait for its thread as for any subscriber.
/// - The memory is bounded by [`keys`](TableBuilder::keys).
///
/// # Errors
/// When the table cannot follow the topic any more, each call returns the [`TableError`], so that nobody takes old values
/// for present ones. When the topic was closed and read to its end, the table keeps its values.
///
/// # Unlike Kafka
/// A table of Kafka Streams or a compacted topic deletes a key whose record has no value. Here a key stays.
pub struct Table<Q, E> {
    handle: Arc<TableHandle<Q, E>>,
}

impl<Q, E> Clone for Table<Q, E> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

impl<Q, E> fmt::Debug for Table<Q, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table {:?} of {:?}", self.handle.state.name, self.handle.state.topic)
    }
}

impl<Q, E> Table<Q, E>
where
    Q: Hash + Eq + Clone + Send + Sync + 'static,
    E: Keep + Send + Sync + 'static,
{
    fn state(&self) -> &TableState<Q, E> {
        &self.handle.state
    }

    /// The table's name as a consumer of its topic.
    pub fn name(&self) -> &str {
        &self.state().name
    }

    /// A copy of the key's last event; `None` if the table has no event of the key.
    ///
    /// # Errors
    /// The table has failed.
    #[inline]
    pub fn get(&self, key: &Q) -> Result<Option<E>, TableError> {
        self.read(key, |row| row.event.keep_copy())
    }

    /// Calls `each` with the key's last event and its place, without a copy. `None`, without a call, if the table has no
    /// event of the key. Keep `each` short, as it holds the table's present copy.
    ///
    /// # Errors
    /// The table has failed.
    #[inline]
    pub fn read<R>(&self, key: &Q, each: impl FnOnce(TableRow<'_, Q, E>) -> R) -> Result<Option<R>, TableError> {
        let state = self.state();
        state.check()?;
        Ok(state.load().get(key).map(|row| each(TableRow::of(row))))
    }

    /// All keys at this moment.
    ///
    /// # Errors
    /// The table has failed.
    pub fn view(&self) -> Result<TableView<Q, E>, TableError> {
        self.state().check()?;
        Ok(TableView { contents: self.state().load_full() })
    }

    /// The next offset of the partition that the table does not have; `None` before its first event of the partition.
    pub fn position(&self, partition: u32) -> Option<u64> {
        self.state().load().next.get(partition as usize).copied()
    }

    /// Waits until the table has the event at `offset` of the partition, for at most `limit`. False if it has not by then,
    /// or the topic was closed before that offset. With the offset of a [receipt](crate::Receipt) a producer reads its
    /// own writes.
    ///
    /// # Errors
    /// The table has failed.
    pub fn wait_for(&self, partition: u32, offset: u64, limit: Duration) -> Result<bool, TableError> {
        let state = self.state();
        let deadline = Instant::now().checked_add(limit);
        let found = state.wait(deadline, || {
            // The end is read first: what was shown before it is seen.
            let end = state.end();
            let is_there = self.position(partition).is_some_and(|next| next > offset);
            match end {
                _ if is_there => Some(Ok(true)),
                Some(Ok(())) => Some(Ok(false)),
                Some(Err(cause)) => Some(Err(cause.clone())),
                None => None,
            }
        });
        found.unwrap_or(Ok(false))
    }

    /// A reader of the changes: its first read has all keys, each later read the keys that have changed since the one
    /// before. Any number of readers follow a table, at no cost to its thread.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// let levels = engine.topic::<(&'static str, u32)>("levels").create()?;
    /// let table = levels.table(|level: &(&'static str, u32)| level.0).open()?;
    /// let mut producer = levels.producer().create()?;
    /// for level in [("oil", 3), ("water", 9), ("oil", 4)] {
    ///     producer.publish(|place| *place = level)?;
    /// }
    /// table.wait_for(0, 2, Duration::from_secs(60))?;
    /// let mut changes = table.changes();
    /// let mut seen = Vec::new();
    /// changes.read(Duration::ZERO, |row| seen.push(*row.event))?;
    /// assert_eq!(seen, [("water", 9), ("oil", 4)]);                            // in the order of their last change
    /// producer.publish(|place| *place = ("water", 8))?;
    /// changes.read(Duration::from_secs(60), |row| assert_eq!(*row.event, ("water", 8)))?;
    /// assert_eq!(changes.left_out(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn changes(&self) -> TableChanges<Q, E> {
        TableChanges { table: self.clone(), events: 0, left_out: 0, places: Vec::new() }
    }
}
