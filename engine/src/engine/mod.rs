//! The engine: the owner of topics, of their threads, and of the journal.

mod builder;
mod delete;
mod error;
mod timing;

pub use builder::EngineBuilder;
pub use error::EngineError;
#[cfg(feature = "observe")]
pub use error::ObserveError;

use crate::base::closed::Closed;
use crate::base::cores::CoresReport;
use crate::base::kind::Producers;
use crate::base::threads::ShutdownCaller;
use crate::base::trace::lifecycle;
use crate::group::{GroupDescription, GroupError, GroupName, GroupPartition, Groups, add_recorded};
use crate::log::committer::Committer;
use crate::log::gap::{ReaderKind, ReportedGap, acknowledge_gaps, reported_gaps};
use crate::log::offsets::transform::{TransformDescription, TransformState, reader_name};
use crate::produce::transaction::{Transaction, TransactionError};
use crate::read::At;
use crate::topic::description::Description;
use crate::topic::error::TopicError;
use crate::topic::metrics::{GroupMetrics, Metrics};
use crate::topic::registry::Registry;
use crate::topic::report::Report;
use crate::topic::{AnyTopic, Topic, TopicBuilder};
use crate::transform::{Outputs, TransformError, TransformRun};
use slipring_journal::{Compacted, FrameBuilder, Freed, Journal, Recovered};
use slipring_ring::Multi;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Owns topics, the threads of their consumers and, if opened with one, a journal. Cloning gives another handle of this
/// engine.
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
/// Dropping the last handle stops no thread. A topic also stays open when its last producer is dropped, because a new
/// one may be created. Call [`shutdown`](Self::shutdown), or [`Topic::close`](crate::Topic::close), to end subscribers;
/// [`shutdown`](Self::shutdown) also reports what was read. Without it the journal is closed later, on a thread of its own,
/// and what no call has waited for may be lost with a queue, for example acks of the last 20 ms at
/// [`Level::Published`](crate::Level::Published): those messages are leased again. So call it before `main` returns, and
/// before you open the directory again.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Registry>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine with topics {:?}", self.topics())
    }
}

/// The least time that a shutdown leaves the journal to flush, whatever its deadline.
const LEAST_JOURNAL_TIME: Duration = Duration::from_secs(2);

impl Engine {
    /// Returns the builder of an engine, to be finished with [`build`](EngineBuilder::build).
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Opens an engine with a journal in the directory `path`, which is created if it does not exist.
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
    /// let mut tape = ticks.replay("tape").open()?;            // the past, then new events
    /// let mut seen = Vec::new();
    /// tape.read(Duration::from_secs(5), |tick, at| seen.push((*tick, at.offset)))?;
    /// assert_eq!(seen, [(42, 0)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`EngineBuilder::build`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, EngineError> {
        Self::builder().journal(path).build()
    }

    /// Applies the retention of all durable topics now: deletes the records that no [`keep`](crate::TopicBuilder::keep)
    /// setting protects, and returns the counts of freed records and segments. The engine also does so once a minute.
    ///
    /// # Errors
    /// The engine has no journal, or the journal has failed or ended.
    pub fn retain(&self) -> Result<Freed, TopicError> {
        let none = |cause: &str| TopicError::Journal { name: "any".to_owned(), cause: cause.to_owned() };
        let committer = self.shared.host.committer.as_ref().ok_or_else(|| none("the engine has no journal"))?;
        committer.may_wait().map_err(|own| none(&own))?;
        let freed = committer.retain_soon().recv().map_err(|_| none("the journal has ended"))?;
        freed.map_err(|refused| none(&refused.to_string()))
    }

    /// Compacts all topics that are to be [compacted](TopicBuilder::compact) now, as fast as it can be, and returns what came of
    /// it when that has ended. The engine also does so in the background.
    ///
    /// # Errors
    /// The engine has no journal, the journal has failed or ended, or the disk has no room for a new segment.
    pub fn compact(&self) -> Result<Compacted, TopicError> {
        let none = |cause: &str| TopicError::Journal { name: "any".to_owned(), cause: cause.to_owned() };
        let committer = self.shared.host.committer.as_ref().ok_or_else(|| none("the engine has no journal"))?;
        committer.may_wait().map_err(|own| none(&own))?;
        let ended = |_| none("the journal has ended");
        let begun = committer.compact_soon().recv().map_err(ended)?;
        let compacted = begun.map_err(|refused| none(&refused.to_string()))?.recv().map_err(ended)?;
        compacted.map_err(|refused| none(&refused.to_string()))
    }

    /// What the opening of the journal found: its state, the torn tail that was cut off, and how long the opening took. Its
    /// `Display` is one line for a program's log.
    /// `None` without a journal.
    pub fn recovered(&self) -> Option<Arc<Recovered>> {
        self.shared.recovered.clone()
    }

    /// A handle of the engine's journal, for reading its positions and records; `None` without a journal.
    pub fn journal(&self) -> Option<Journal> {
        Some(self.shared.host.committer.as_ref()?.journal.clone())
    }

    /// True if both handles are of one engine.
    pub fn same_engine(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Returns the builder of a new topic `name` with events of type `E`, to be finished with
    /// [`create`](TopicBuilder::create).
    pub fn topic<E: Send + Sync + 'static>(&self, name: impl Into<String>) -> TopicBuilder<E> {
        TopicBuilder::new(Arc::clone(&self.shared), name.into())
    }

    /// Returns a handle of the existing topic `name` with events of type `E`. `K` is [`Multi`](crate::producer::Multi),
    /// or [`Single`](crate::producer::Single) if the topic was created with
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
    /// No topic has that name, or its types differ from `E` and `K`; the error shows both. For a topic that a queue has
    /// [created](crate::queue::QueueBuilder::dead_letter) and that has had no dead letter, also: there is no memory for
    /// its slots, or the topic has ended.
    pub fn get<E: Send + Sync + 'static, K: Producers>(&self, name: &str) -> Result<Topic<E, K>, TopicError> {
        self.shared.get(name)
    }

    /// Begins the builder of a member of the group `name`, which reads several topics with one type of events. Next
    /// call [`topics`](GroupName::topics). For a single topic there is [`Topic::group`](crate::Topic::group).
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

    /// Begins a transaction: events for any durable topics of this engine, of which either all or none are published.
    /// See [`Transaction`].
    ///
    /// # Errors
    /// The engine has no journal.
    pub fn transaction(&self) -> Result<Transaction, TransactionError> {
        let committer = self.shared.host.committer.as_ref().ok_or(TransactionError::NoJournal)?;
        Ok(Transaction::new(Arc::clone(committer)))
    }

    /// Starts a managed transform named `group`: a thread that reads the durable topic `input` and calls `f` with each
    /// event; the events that `f` publishes go to the durable topic `output`. Each input event takes effect in the
    /// output exactly once, also across crashes. The thread ends when the input is closed and read to its end, when the
    /// transform is stopped, or with an error. For a loop of your own see
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
    /// A topic does not exist or is not durable, or an error of
    /// [`TransformBuilder::open`](crate::transform::TransformBuilder::open).
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

    /// Describes all groups at this moment: members, their partitions, committed offsets and lag. Includes groups that
    /// the journal has but that no member has joined since the engine was opened. Two groups with different types of
    /// events may have one name; they share nothing. A look changes no
    /// group: a member whose deadline has passed is listed until the engine's timer has fenced it.
    pub fn groups(&self) -> Vec<GroupDescription> {
        let mut groups = Groups::of(&self.shared.host).describe();
        if let Some(committer) = &self.shared.host.committer {
            add_recorded(&mut groups, &committer.recovered_state(), &committer.journal);
        }
        groups
    }

    /// The committed offsets of the group `name`, with their metadata and lag, in the partitions of all topics that it has read;
    /// empty if there is no such group. Nobody has to join for it. To set one see
    /// [`GroupBuilder::set_offset`](crate::group::GroupBuilder::set_offset).
    ///
    /// ```
    /// # use slipring::Engine;
    /// # let engine = Engine::builder().build()?;
    /// # let ticks = engine.topic::<u64>("ticks").create()?;
    /// assert!(engine.group_offsets("sums").is_empty());
    /// drop(ticks.group("sums").join()?);
    /// assert_eq!(engine.group_offsets("sums")[0].committed, Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn group_offsets(&self, name: &str) -> Vec<GroupPartition> {
        let groups = self.groups().into_iter().filter(|group| group.name == name);
        groups.flat_map(|group| group.partitions).collect()
    }

    /// Forgets the group `name`: its committed offsets in all topics, its counters, its gating positions if it
    /// [holds](crate::group::GroupBuilder::hold) producers back, and the gaps that were reported to it. A member that
    /// joins under this name later begins a new group. Returns when the deletion is durable in the journal. Groups of
    /// this name that read events of different types are all forgotten.
    ///
    /// Otherwise a group is forgotten only if all its topics are deleted, or if
    /// [`forget_groups_after`](crate::EngineBuilder::forget_groups_after) is set. For a journal that no program has
    /// open, use the command `slipring group forget`.
    ///
    /// A crash during this call leaves all of the group's offsets or none, because one frame of the journal deletes
    /// them. Only if they are too many for one frame ([a quarter of a segment](crate::journal::Options::segment_size))
    /// may a crash leave a part of them: then call this again.
    ///
    /// ```
    /// # use slipring::{Engine, group::GroupError};
    /// # let engine = Engine::builder().build()?;
    /// # let ticks = engine.topic::<u64>("ticks").create()?;
    /// let member = ticks.group("trial").join()?;
    /// assert!(matches!(engine.forget_group("trial"), Err(GroupError::HasMembers { members: 1, .. })));
    /// member.leave();
    /// engine.forget_group("trial")?;
    /// assert!(matches!(engine.forget_group("trial"), Err(GroupError::Unknown { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// There is no such group; it has members, which include a dropped member whose
    /// [name](crate::group::GroupBuilder::member_name) still keeps its partitions; or the journal has failed or ended,
    /// so that it is unknown if the deletion is durable.
    pub fn forget_group(&self, name: &str) -> Result<(), GroupError> {
        let host = &self.shared.host;
        let unknown = |cause| GroupError::NotForgotten { group: name.to_owned(), cause };
        if let Some(committer) = &host.committer {
            committer.may_wait().map_err(unknown)?;
        }
        if !Groups::forget_group(host, name)? {
            return Err(GroupError::Unknown { group: name.to_owned() });
        }
        if let Some(committer) = &host.committer {
            committer.commit_offsets().map_err(unknown)?;
            self.acknowledge_gaps(ReaderKind::Group, name).map_err(|refused| unknown(refused.to_string()))?;
        }
        Ok(())
    }

    /// The gaps (offsets lost to damage) of durable topics that were reported to a group, queue or transform and are
    /// not [acknowledged](Self::acknowledge_gaps) yet: see [`OnGap`](crate::replay::OnGap). Empty without a journal.
    pub fn gaps(&self) -> Vec<ReportedGap> {
        self.shared
            .host
            .committer
            .as_ref()
            .map(|committer| reported_gaps(&committer.recovered_state()))
            .unwrap_or_default()
    }

    /// Removes the gaps that were reported to this reader from the list of [`gaps`](Self::gaps), after an operator has
    /// noted them. Waits until the removal is durable, and returns the number of removed gaps; 0 without a journal.
    ///
    /// # Errors
    /// The journal has failed or ended.
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

    /// Describes all transforms at this moment: state, committed offsets and lag. Includes transforms that the journal
    /// has but that were not opened in this engine. Empty without a journal.
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

    /// The threads of all consumers at this moment: their names, cores and wait strategies.
    pub fn cores(&self) -> CoresReport {
        self.shared.host.cores.report()
    }

    /// The names of all topics, in order of creation.
    pub fn topics(&self) -> Vec<String> {
        self.shared.topics().open.values().map(|topic| topic.name().to_owned()).collect()
    }

    /// Describes the topic `name`: its types, partitions, memory, limits and consumers.
    ///
    /// # Errors
    /// No topic has that name.
    pub fn describe(&self, name: &str) -> Result<Description, TopicError> {
        Ok(self.shared.find(name)?.describe())
    }

    /// A snapshot of the positions and counters of all topics, consumers and groups. It changes nothing, and makes no producer
    /// and no subscriber wait. The lock of a queue or a group is held while its counts are read.
    pub fn metrics(&self) -> Metrics {
        let topics = self.shared.open();
        let gaps = self.gaps().into_iter().map(Into::into).collect();
        let transforms = self.transforms().into_iter().filter(|it| it.state != TransformState::Recorded);
        let transforms = transforms.map(Into::into).collect();
        let mut groups: Vec<GroupMetrics> =
            Groups::of(&self.shared.host).describe().into_iter().map(Into::into).collect();
        groups.sort_by(|one, other| one.name.cmp(&other.name));
        let journal = self.shared.host.committer.as_ref().map(|committer| (&committer.journal).into());
        let topics = topics.iter().map(|topic| topic.metrics()).collect();
        Metrics { topics, gaps, transforms, groups, journal }
    }

    /// The failures of the engine, each with the topic's name and the reason: topics that have
    /// [failed](crate::topic::Closed::Failed) and were not deleted, and the input topics of
    /// [managed transforms](Self::transform) that failed. Such an input topic stays open, but the transform reads it no
    /// further.
    pub fn failures(&self) -> Vec<(String, Closed)> {
        let topics = self.shared.open();
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

    /// Publishes the records that [producers have gathered](crate::producer::LingeringProducer) and closes all topics, lets
    /// consumers read the published events until `limit` has passed, then halts the topics, and reports which events were
    /// read and which were not. A transform appears in the report of its input, as the
    /// consumer `transform:NAME`, unless it was stopped or dropped before.
    ///
    /// Polled subscribers, group members and queue workers that have events to read are waited for up to `limit`, even
    /// if they never poll again: drop those that you no longer poll. A consumer that was last polled by the calling
    /// thread, or never polled, is waited for only until its position has not changed for half a second while it holds
    /// no batch. Events that it has left are reported as [`Ending::Unread`](crate::metrics::Ending::Unread).
    ///
    /// The workers of a [`Queue::run`](crate::queue::Queue::run) do all messages that are unread, in hand, or due within
    /// `limit`, also those that are to be tried again, and then end. A message that is not due by then is left at once: it
    /// stays in the journal, or is lost with the process, as the report says.
    ///
    /// Topics without a producer are closed first, one after another; each is read to its end, or until `limit`, before
    /// the next is closed. So a subscriber that publishes into another topic can finish: its own producers are dropped
    /// when it ends. Topics that still have producers are closed in order of creation, but topics for dead letters after
    /// the topics of the queues that write to them.
    ///
    /// The shutdown never waits for the thread that calls it, even if that thread runs a handler or holds a batch, and
    /// two handlers that both shut down do not wait for each other. But inside the closure that fills an event it waits
    /// until `limit` for that event, which its own thread is about to publish: pass a short limit there. After `limit`
    /// the threads of each topic get a tenth of a second to end; a thread whose handler does not return is reported.
    /// The journal gets at least two seconds to write the published events, so that even after a short `limit` it has
    /// all of them, and the groups' committed offsets.
    pub fn shutdown(&self, limit: Duration) -> Report {
        // A limit beyond the range of `Instant` counts as no limit.
        let deadline = Instant::now().checked_add(limit);
        let mut left = {
            let mut topics = self.shared.topics();
            topics.shut_down = true;
            topics.open.values().cloned().collect::<Vec<_>>()
        };
        // Wakes the threads in [`Registry::reserve`] that wait while another thread creates or deletes a topic of the
        // name that they want. They return [`TopicError::ShutDown`].
        self.shared.settled.notify_all();
        self.shared.host.end_patterns();
        let _caller = ShutdownCaller::enter(left.iter().any(|topic| topic.is_held_here()));
        let mut reports = Vec::new();
        let mut topics = Vec::new();
        let journal_until = deadline.unwrap_or_else(Instant::now).max(Instant::now() + LEAST_JOURNAL_TIME);
        while !left.is_empty() {
            let topic = left.remove(next_to_end(&left));
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            reports.push(topic.shutdown(left, journal_until));
            lifecycle!(info, "topic shut down", topic = topic.name());
            topics.push(topic);
        }
        let deadline = deadline.map(|deadline| deadline.max(Instant::now() + LEAST_JOURNAL_TIME));
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

/// The index of the topic that a shutdown ends next: one without a producer, or one that gets no dead letters of a queue of
/// another topic, or the first. A queue counts as a producer of its topic for dead letters.
fn next_to_end(left: &[Arc<dyn AnyTopic>]) -> usize {
    let gets_letters = |dead: &Arc<dyn AnyTopic>| {
        left.iter().any(|topic| topic.id() != dead.id() && !topic.dead_letters_in(dead.name()).is_empty())
    };
    let without_producer = left.iter().position(|topic| topic.producers() == 0);
    without_producer.or_else(|| left.iter().position(|topic| !gets_letters(topic))).unwrap_or(0)
}
