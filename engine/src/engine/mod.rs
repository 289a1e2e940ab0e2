//! The engine: owner of topics and of their threads.

mod builder;
mod error;

pub use builder::EngineBuilder;
pub use error::EngineError;
#[cfg(feature = "observe")]
pub use error::ObserveError;

use crate::base::closed::Closed;
use crate::base::cores::CoresReport;
use crate::base::kind::Producers;
use crate::base::threads::ShutdownCaller;
use crate::base::trace::lifecycle;
use crate::group::{GroupDescription, GroupName, Groups, add_recorded};
use crate::log::committer::Committer;
use crate::log::gap::{ReaderKind, ReportedGap, acknowledge_gaps, reported_gaps};
use crate::log::offsets::transform::{TransformDescription, TransformState, reader_name};
use crate::produce::transaction::{Transaction, TransactionError};
use crate::read::At;
use crate::topic::description::Description;
use crate::topic::error::TopicError;
use crate::topic::metrics::Metrics;
use crate::topic::registry::Registry;
use crate::topic::report::{Report, TopicReport};
use crate::topic::{Topic, TopicBuilder};
use crate::transform::{Outputs, TransformError, TransformRun};
use slipring_journal::{FrameBuilder, Freed, Journal, Recovered};
use slipring_ring::Multi;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Topics, their subscribers' threads, and the way to end them all. Cloning gives another handle of the same engine.
///
/// ```
/// use slipring::Engine;
/// use std::time::Duration;
///
/// let engine = Engine::builder().build()?;
/// let ticks = engine.topic::<u64>("ticks").capacity(1024).create()?;
/// ticks.subscribe("print").run(|tick, at| { println!("{tick} at {}", at.offset); Ok::<_, std::fmt::Error>(()) })?;
/// ticks.producer().create()?.publish(|tick| *tick = 42)?;
/// let report = engine.shutdown(Duration::from_secs(5));
/// assert!(report.is_complete(), "{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Dropping
/// Dropping the last handle stops nothing that runs, and a topic stays open when its producers go: others may come.
/// Call [`shutdown`](Self::shutdown), or [`Topic::close`](crate::Topic::close), to end subscribers, and to learn what
/// was read.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Registry>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine with topics {:?}", self.topics())
    }
}

/// What the journal gets to write what it has, at least, when everything ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Engine {
    /// Settings, then [`build`](EngineBuilder::build).
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// An engine with a journal in the directory `path`, which is made if it is not there.
    ///
    /// ```
    /// use slipring::{Engine, Level};
    /// use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("journal");
    ///
    /// let engine = Engine::open(&path)?;
    /// let ticks = engine.topic::<u64>("ticks").durable().create()?;
    /// let receipt = ticks.producer().create()?.publish(|tick| *tick = 42)?;
    /// receipt.wait(Level::Durable)?;                          // survives a power cut from here on
    /// assert!(engine.shutdown(Duration::from_secs(5)).is_complete());
    ///
    /// let engine = Engine::open(&path)?;
    /// let ticks = engine.topic::<u64>("ticks").durable().create()?;
    /// let mut tape = ticks.replay("tape").open()?;            // from the beginning, then on with what comes
    /// let mut seen = Vec::new();
    /// tape.read(Duration::from_secs(5), |tick, at| seen.push((*tick, at.offset)))?;
    /// assert_eq!(seen, [(42, 0)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`EngineBuilder::build`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, EngineError> {
        Self::builder().journal(path).build()
    }

    /// Forgets now what durable topics do not [keep](crate::TopicBuilder::keep), and says what that was.
    ///
    /// # Errors
    /// There is no journal, or it has ended.
    pub fn retain(&self) -> Result<Freed, TopicError> {
        let none = |cause: &str| TopicError::Journal { name: "any".to_owned(), cause: cause.to_owned() };
        let committer = self.shared.host.committer.as_ref().ok_or_else(|| none("the engine has no journal"))?;
        committer.may_wait().map_err(|own| none(&own))?;
        let freed = committer.retain_soon().recv().map_err(|_| none("the journal has ended"))?;
        freed.map_err(|refused| none(&refused.to_string()))
    }

    /// What the opening of the journal found: what was there, what was cut, and how long it took. None without a journal.
    pub fn recovered(&self) -> Option<Arc<Recovered>> {
        self.shared.recovered.clone()
    }

    /// The engine's journal, to read its positions and records; none without one.
    pub fn journal(&self) -> Option<Journal> {
        Some(self.shared.host.committer.as_ref()?.journal.clone())
    }

    /// A new topic of events of type `E`: its settings, then [`create`](TopicBuilder::create).
    pub fn topic<E: Send + Sync + 'static>(&self, name: impl Into<String>) -> TopicBuilder<E> {
        TopicBuilder::new(Arc::clone(&self.shared), name.into())
    }

    /// The topic `name`, created before, of events `E`. `K` is [`Multi`](crate::producer::Multi) unless it was created with
    /// [`single_producer`](TopicBuilder::single_producer).
    ///
    /// ```
    /// # use slipring::{Engine, producer::Multi};
    /// # let engine = Engine::builder().build()?;
    /// engine.topic::<u64>("ticks").create()?;
    /// assert!(engine.get::<u64, Multi>("ticks").is_ok());
    /// assert!(engine.get::<u32, Multi>("ticks").unwrap_err().to_string().contains("u64"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// There is none of that name, or it has another shape; the error shows both.
    pub fn get<E: Send + Sync + 'static, K: Producers>(&self, name: &str) -> Result<Topic<E, K>, TopicError> {
        self.shared.get(name)
    }

    /// A member of a group that reads several topics of one type of events: their names, then its settings. For a single
    /// topic there is [`Topic::group`](crate::Topic::group).
    ///
    /// ```
    /// # use slipring::{Engine, Message};
    /// # let engine = Engine::builder().build()?;
    /// let orders = engine.topic::<Message>("orders").partitions(4).create()?;
    /// let returns = engine.topic::<Message>("returns").create()?;
    /// let billing = engine.group("billing").topics([&orders, &returns]).join()?;
    /// println!("{}", engine.groups()[0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn group(&self, name: impl Into<String>) -> GroupName {
        GroupName::new(Arc::clone(&self.shared.host), name.into())
    }

    /// A transaction: events for any durable topics of this engine, all published or none. See [`Transaction`].
    ///
    /// # Errors
    /// The engine has no journal.
    pub fn transaction(&self) -> Result<Transaction, TransactionError> {
        let committer = self.shared.host.committer.as_ref().ok_or(TransactionError::NoJournal)?;
        Ok(Transaction::new(Arc::clone(committer)))
    }

    /// Reads the durable topic `input` under the name `group`, on a thread of its own, and has `f` publish into the durable
    /// topic `output` what comes of each event: exactly once, whatever crashes. It ends when the input was closed and is
    /// read, when it is stopped, or with an error. For a loop of your own see
    /// [`Topic::transform`](crate::Topic::transform).
    ///
    /// ```
    /// # use slipring::{Engine, journal::simulated::SimulatedDisk};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
    /// let orders = engine.topic::<u64>("orders").durable().create()?;
    /// let doubled = engine.topic::<u64>("doubled").durable().create()?;
    /// engine.transform("orders", "doubled", "double", |order: &u64, _, out| out.publish(|next: &mut u64| *next = order * 2))?;
    /// orders.producer().create()?.publish(|order| *order = 21)?;
    /// let mut tape = doubled.replay("tape").open()?;
    /// tape.read(Duration::from_secs(5), |next, _| assert_eq!(*next, 42))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// There are no such topics, they are not durable, or as [`TransformBuilder::open`](crate::transform::TransformBuilder::open).
    pub fn transform<I, O, X>(
        &self,
        input: &str,
        output: &str,
        group: &str,
        f: impl FnMut(&I, At, &mut Outputs<'_, O>) -> Result<(), X> + Send + 'static,
    ) -> Result<TransformRun, TransformError>
    where
        I: Send + Sync + 'static,
        O: Send + Sync + 'static,
        X: fmt::Display,
    {
        let (input, output) = (self.get::<I, Multi>(input)?, self.get::<O, Multi>(output)?);
        input.transform(group).open()?.run(output, f)
    }

    /// All groups at this moment: members, what each has, committed offsets and lag; also those that the journal knows and
    /// nobody has joined yet. Two of one name read events of different types, and have nothing else in common.
    pub fn groups(&self) -> Vec<GroupDescription> {
        let mut groups = Groups::of(&self.shared.host).describe();
        if let Some(committer) = &self.shared.host.committer {
            add_recorded(&mut groups, &committer.recovered_state(), &committer.journal);
        }
        groups
    }

    /// Gaps of durable topics of which a reader with a name was told, and that nobody has acknowledged: see
    /// [`OnGap`](crate::replay::OnGap). Empty without a journal.
    pub fn gaps(&self) -> Vec<ReportedGap> {
        self.shared
            .host
            .committer
            .as_ref()
            .map(|committer| reported_gaps(&committer.recovered_state()))
            .unwrap_or_default()
    }

    /// Takes the gaps of which this reader was told from the [list](Self::gaps): somebody knows. Returns how many they were,
    /// when that is durable.
    ///
    /// # Errors
    /// The journal takes nothing more.
    pub fn acknowledge_gaps(&self, kind: ReaderKind, reader: &str) -> Result<usize, TopicError> {
        let Some(committer) = &self.shared.host.committer else { return Ok(0) };
        let mut frame = FrameBuilder::new();
        let count = {
            let mut known = committer.recovered_state();
            let count = acknowledge_gaps(&known, kind, reader, &mut frame);
            known.take(&mut frame);
            count
        };
        if count > 0 {
            let refused = |cause| TopicError::Journal { name: reader.to_owned(), cause };
            committer.commit([frame]).map_err(refused)?;
        }
        Ok(count)
    }

    /// All transforms at this moment: whether each goes on, how far it has come, and its lag; also those that the journal knows
    /// and nobody has opened yet. Empty without a journal.
    ///
    /// ```
    /// # use slipring::{Engine, journal::simulated::SimulatedDisk};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
    /// # let orders = engine.topic::<u64>("orders").durable().create()?;
    /// let mut copy = orders.transform("copy").open()?;
    /// orders.producer().create()?.publish_batch(3, |index, order| *order = index as u64)?;
    /// let mut passed_on = 0;
    /// while passed_on < 3 {
    ///     let batch = copy.step(Duration::from_secs(5), |_, _, _| Ok::<_, std::convert::Infallible>(()))?;
    ///     passed_on += batch.ok_or("the topic was closed")?;
    /// }
    /// assert_eq!(engine.transforms()[0].to_string(), "transform copy: lag 0\n  orders/0: committed 3, lag 0");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn transforms(&self) -> Vec<TransformDescription> {
        let committer = self.shared.host.committer.as_ref();
        let of = |committer: &Arc<Committer>| {
            committer.transform_offsets.describe(&committer.recovered_state(), &committer.journal)
        };
        committer.map(of).unwrap_or_default()
    }

    /// The threads of all consumers: names, cores, ways of waiting.
    pub fn cores(&self) -> CoresReport {
        self.shared.host.cores.report()
    }

    /// The names of all topics, in the order of creation.
    pub fn topics(&self) -> Vec<String> {
        self.shared.topics().open.iter().map(|topic| topic.name().to_owned()).collect()
    }

    /// What the topic called `name` is: its shape, partitions, memory, limits and consumers.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn describe(&self, name: &str) -> Result<Description, TopicError> {
        Ok(self.shared.find(name)?.describe())
    }

    /// Closes and removes a topic that nobody reads; its name is free again. Its producers and handles find it closed.
    ///
    /// ```
    /// # use slipring::{Engine, topic::TopicError};
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").create()?;
    /// let tape = ticks.subscribe("tape").poll()?;
    /// assert!(matches!(engine.delete("ticks"), Err(TopicError::InUse { consumers, .. }) if consumers == ["tape"]));
    /// drop(tape);
    /// engine.delete("ticks")?;
    /// assert!(engine.topics().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// There is none of that name, or it has consumers: the error names them.
    pub fn delete(&self, name: &str) -> Result<TopicReport, TopicError> {
        let topic = self.shared.find(name)?;
        let in_use = |consumers| TopicError::InUse { name: name.to_owned(), consumers };
        topic.close_unread().map_err(in_use)?;
        let _reserved = self.shared.remove(&topic);
        self.shared.host.forget(topic.id());
        topic.forget()?;
        Ok(topic.shutdown(Duration::ZERO, Instant::now()))
    }

    /// Removes a topic whoever reads it: halts it, and reports what each consumer had read and what it left. Its
    /// producers and consumers are told at their next call.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn delete_forced(&self, name: &str) -> Result<TopicReport, TopicError> {
        let topic = self.shared.find(name)?;
        let _reserved = self.shared.remove(&topic);
        topic.halt();
        topic.forget()?;
        let report = topic.shutdown(Duration::ZERO, Instant::now());
        self.shared.host.forget(topic.id());
        Ok(report)
    }

    /// The positions of all topics and consumers at this moment. No producer or consumer is held up by it.
    pub fn metrics(&self) -> Metrics {
        let topics = self.shared.topics().open.clone();
        let gaps = self.gaps().into_iter().map(Into::into).collect();
        let transforms = self.transforms().into_iter().filter(|it| it.state != TransformState::Recorded);
        let transforms = transforms.map(Into::into).collect();
        Metrics { topics: topics.iter().map(|topic| topic.metrics()).collect(), gaps, transforms }
    }

    /// The topics that a failed subscriber closed: each with its name and the reason. And the inputs of
    /// [managed transforms](Self::transform) that failed, with the same: these topics stay open, and are read no further.
    pub fn failures(&self) -> Vec<(String, Closed)> {
        let topics = self.shared.topics().open.clone();
        let failed = topics.iter().filter_map(|topic| Some((topic.name().to_owned(), topic.closed()?)));
        let failed = failed.filter(|(_, why)| matches!(why, Closed::Failed { .. }));
        let of_transform = |it: TransformDescription| match it.state {
            TransformState::Failed(cause) => {
                Some((it.topic, Closed::Failed { consumer: reader_name(&it.name), cause }))
            }
            _ => None,
        };
        failed.chain(self.transforms().into_iter().filter_map(of_transform)).collect()
    }

    /// Closes all topics, lets subscribers read what was published, until `limit` has passed, and halts what is left. Reports
    /// what was read and what was not. Polled subscribers, members and workers of queues that have something to read are waited
    /// for up to the limit, whatever they do between two batches: drop those that you read no more. One that the calling
    /// thread read last, or that nobody has read yet, is waited for until it has stood still for half a second with no batch in
    /// hand. What it left is in the report, under [`Ending::Unread`](crate::metrics::Ending::Unread). A transform is in the report of its input, as the
    /// consumer `transform:NAME`, unless it was stopped or dropped before.
    ///
    /// Subscribers often publish into other topics. So topics without a living producer are closed first, one after
    /// the other, each when it has drained: a subscriber's own producers go when it ends. Among topics whose producers
    /// are still held by somebody, the order is that of creation. Never waits for the thread that calls it, be it in a handler or
    /// with a batch in hand, and of two handlers that shut down neither waits for the other. After the
    /// limit each topic's threads get a tenth of a second to end; one whose handler does not return is reported so. The journal
    /// gets two seconds at least to write what it has, so that a program that had too much left to read ends in good order all the
    /// same: offsets have no gap then, and where groups stand is kept.
    pub fn shutdown(&self, limit: Duration) -> Report {
        // No end at all is as good as none.
        let deadline = Instant::now().checked_add(limit);
        let mut left = {
            let mut topics = self.shared.topics();
            topics.shut_down = true;
            topics.open.clone()
        };
        // Whoever waits for a name is told.
        self.shared.settled.notify_all();
        let _caller = ShutdownCaller::enter(left.iter().any(|topic| topic.is_held_here()));
        let mut reports = Vec::new();
        let mut topics = Vec::new();
        let journal_until = deadline.unwrap_or_else(Instant::now).max(Instant::now() + LAST_WORDS);
        while !left.is_empty() {
            let next = left.iter().position(|topic| topic.producers() == 0).unwrap_or(0);
            let topic = left.remove(next);
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            reports.push(topic.shutdown(left, journal_until));
            lifecycle!(info, "topic shut down", topic = topic.name());
            topics.push(topic);
        }
        let deadline = deadline.map(|deadline| deadline.max(Instant::now() + LAST_WORDS));
        let mut journal = self.shared.host.committer.as_ref().map(|committer| committer.close(deadline));
        let transforms = self.transforms();
        for (topic, report) in topics.iter().zip(&mut reports) {
            report.note_transforms(&transforms);
            let count = report.note_written(&topic.written());
            if count > 0 && matches!(journal, Some(Ok(()))) {
                let why = format!("{count} events of topic {:?} were published and not written", topic.name());
                journal = Some(Err(why));
            }
        }
        Report { topics: reports, journal, gaps: self.gaps() }
    }
}
