//! The builder of a queue: the settings of a queue, and how it is opened, with the journal's state if there is one.

use super::changes::{Cursor, StatePart};
use super::codec::{self, ClockShift, RecoveredQueue};
use super::core::{self, QueueCore, QueueParts};
use super::dead_letter_reader::{self, DeadLetterReader};
use super::input::{Input, JournalWatch};
use super::lease::{LeaseSettings, Leases, Phase};
use super::log::{JournalWaker, QueueLog};
use super::state::{Body, QueueState};
use super::{Backoff, Job, Order, Queue, QueueError, Worker};
use crate::base::kind::Producers;
use crate::base::level::Level;
use crate::base::trace::lifecycle;
use crate::event::dead_letter;
use crate::event::message::Message;
use crate::log::queues::QueueEntry;
use crate::queue::dead_letter_writer::DeadLetterWriter;
use crate::read::replay::{ReplayBuilder, ReplayError};
use crate::read::{StartAt, SubscriberBuilder};
use crate::topic::attached::Attached;
use crate::topic::durable::DurableTopic;
use crate::topic::error::DeadLetterError;
use crate::topic::error::{Contradiction, SubscribeError, TopicError, check_name};
use crate::topic::registry::Host;
use crate::topic::{Topic, TopicBuilder, TopicCore, TopicReader};
use slipring_journal::{FrameBuilder, Visible};
use slipring_ring::{Multi, Waiter};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The builder of a queue. [`join`](Self::join) opens the queue and adds a worker.
///
/// ```
/// use slipring::{Engine, Message, Record};
/// use std::time::Duration;
///
/// let engine = Engine::builder().build()?;
/// let jobs = engine.topic::<Message>("jobs").create()?;
/// let mut worker = jobs.queue("resize").visibility(Duration::from_secs(30)).max_attempts(5).join()?;
/// jobs.producer().create()?.send(Record::new("cat.png"))?;
///
/// while let Some(job) = worker.receive(Duration::from_millis(100))? {
///     match std::str::from_utf8(job.message().value()) {
///         Ok(_picture) => job.ack()?,
///         Err(error) => job.nack(Duration::from_secs(1), &error.to_string())?,
///     }
/// #   break;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct QueueBuilder<E = Message, K: Producers = Multi> {
    topic: Arc<TopicCore<E, K>>,
    name: String,
    start: StartAt,
    settings: LeaseSettings,
    dead: Option<String>,
    level: Level,
    attempts: AttemptCalls,
}

/// Which of the two calls that exclude one another were made.
#[derive(Clone, Copy, Debug, Default)]
struct AttemptCalls {
    /// True if [`QueueBuilder::max_attempts`] was called.
    limited: bool,
    /// True if [`QueueBuilder::unlimited_attempts`] was called.
    unlimited: bool,
}

impl<E: Job, K: Producers> Topic<E, K> {
    /// Returns the builder of the queue `name` of this topic, in which each event is leased to one of the workers that
    /// [join](QueueBuilder::join) the queue. Builders with the same name share one queue.
    pub fn queue(&self, name: impl Into<String>) -> QueueBuilder<E, K> {
        let settings = LeaseSettings {
            visibility: Duration::from_secs(30),
            max_attempts: Some(5),
            order: Order::Relaxed,
            max_messages: 1 << 20,
            max_bytes: 256 << 20,
            backoff: Backoff::NONE,
        };
        let (topic, name) = (Arc::clone(&self.inner), name.into());
        QueueBuilder {
            topic,
            name,
            start: StartAt::Earliest,
            settings,
            dead: None,
            level: Level::Published,
            attempts: AttemptCalls::default(),
        }
    }
}

impl<E: Job, K: Producers> QueueBuilder<E, K> {
    /// Sets where a new queue starts reading. A queue that exists already continues at its own position. Default: the
    /// earliest kept message.
    pub fn start(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// Sets how long a lease lasts unless it is [renewed](crate::queue::Lease::renew), rounded up to whole
    /// milliseconds. Default: 30 seconds.
    pub fn visibility(mut self, visibility: Duration) -> Self {
        self.settings.visibility = visibility;
        self
    }

    /// Sets how many times a message is leased before it becomes a dead letter. Default: 5. 0 counts as 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.settings.max_attempts = Some(attempts.max(1));
        self.attempts.limited = true;
        self
    }

    /// Removes the limit on the number of attempts. A message that no worker can handle is then leased for ever.
    /// Excludes [`max_attempts`](Self::max_attempts).
    pub fn unlimited_attempts(mut self) -> Self {
        self.settings.max_attempts = None;
        self.attempts.unlimited = true;
        self
    }

    /// Sets the name of the topic for dead letters. Default: `topic.queue.dead`. If the topic does not exist, it is
    /// created, in memory with 1,024 slots of which it retains the last 512, or durable if the queue's topic is. While
    /// it is full, messages that are to become dead letters stay in the side store.
    ///
    /// The slots of a topic that the queue has created are allocated with its first dead letter, or when
    /// [`Engine::get`](crate::Engine::get) returns the topic. Until then the topic takes a few KiB. If there is no
    /// memory for the slots, messages that are to become dead letters stay in the side store too.
    ///
    /// If events differ in size ([`Persist::size`](crate::Persist::size) is `None`), the topic that the queue creates
    /// has room for events of up to 4,096 bytes. A larger one stays in the side store, where it counts as
    /// [dying](crate::metrics::QueueMetrics::dying) and holds up no other message. For larger events create the topic
    /// with a larger [`max_message`](crate::TopicBuilder::max_message) before the queue. If that is done at a later
    /// start of the program, the messages that a durable queue has kept become dead letters then.
    pub fn dead_letter(mut self, topic: impl Into<String>) -> Self {
        self.dead = Some(topic.into());
        self
    }

    /// Sets which messages of a partition may be leased at the same time. Default: any of them ([`Order::Relaxed`]).
    pub fn order(mut self, order: Order) -> Self {
        self.settings.order = order;
        self
    }

    /// Sets the greatest number of messages in the [side store](crate::queue): those that are leased, delayed or
    /// waiting to be leased again. While it is reached, no new message is leased. Default: 1,048,576. 0 counts as 1.
    pub fn max_outstanding(mut self, messages: usize) -> Self {
        self.settings.max_messages = messages.max(1);
        self
    }

    /// Sets the greatest size of the side store's messages in bytes. Default: 256 MiB. The message that reaches the
    /// limit may exceed it. On a durable topic, messages beyond the limit are not kept in memory, but read from the
    /// journal when they are leased again.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_bytes = bytes.max(1);
        self
    }

    /// Sets the delay before a message is leased again after its lease expired, was dropped or was
    /// [retried](crate::queue::Lease::retry). Default: none.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Sets the acknowledgement level that each change of the queue (a lease, an ack and so on) has reached when its
    /// call returns. Default: [`Level::Published`]. The change is then in memory. On a durable topic it is written with
    /// the next events, or after 20 ms without events, and synced with the next frame or a second later. A crash undoes
    /// changes that are not durable: a finished message is leased again, and an attempt is not counted.
    ///
    /// [`Level::Written`] survives the process, [`Level::Durable`] a power cut: then no acked message is leased again,
    /// and no message is leased while another lease on it may last. A call costs a sync, which concurrent calls share.
    ///
    /// The level is set by the first builder that opens the queue in this process. Later builders share the queue with
    /// that level; their own setting is ignored.
    pub fn acknowledge(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Adds a worker to the queue, and creates the queue if it does not exist.
    ///
    /// # Errors
    /// The name is invalid or a consumer has it; the queue exists with other settings (the error shows both); the topic
    /// for dead letters is refused; or the topic is closed.
    pub fn join(self) -> Result<Worker<E, K>, QueueError> {
        Ok(Worker::new(self.open()?.core))
    }

    /// Opens the queue, and returns a handle to inspect and repair it. Creates the queue if it does not exist.
    ///
    /// # Errors
    /// As for [`join`](Self::join).
    pub fn open(self) -> Result<Queue<E, K>, QueueError> {
        check_name(&self.name).map_err(SubscribeError::Name)?;
        if self.attempts.limited && self.attempts.unlimited {
            return Err(Contradiction::new(&self.name, "`max_attempts`", "`unlimited_attempts`").into());
        }
        let topic = Arc::clone(&self.topic);
        // One thread at a time opens or deletes a queue of a topic. A lock must not be used for that, because this
        // reads the clock and waits for the journal, both of which run user code.
        let _turn = topic.take_queues_turn(&self.name)?;
        let found = topic.queues().iter().find(|queue| queue.name() == self.name).cloned();
        let Some(found) = found else {
            let core = self.make()?;
            topic.queues().push(Arc::clone(&core) as Arc<dyn Attached>);
            return Ok(Queue { core });
        };
        let core = found.into_any().downcast::<QueueCore<E, K>>();
        let core =
            core.unwrap_or_else(|_| unreachable!("all queues of a topic have its events and its kind of producers"));
        let there = QueueSettings(&core.settings, &core.dead_topic).to_string();
        let asked = QueueSettings(&self.settings, &self.dead_topic()).to_string();
        if there != asked {
            let (topic, queue) = (self.topic.name.clone(), self.name);
            return Err(QueueError::OtherTerms { topic, queue, there, asked });
        }
        Ok(Queue { core })
    }

    fn dead_topic(&self) -> String {
        self.dead.clone().unwrap_or_else(|| format!("{}.{}.dead", self.topic.name, self.name))
    }

    fn make(self) -> Result<Arc<QueueCore<E, K>>, QueueError> {
        let (topic, dead_topic) = (Arc::clone(&self.topic), self.dead_topic());
        let durable = topic.durable.clone();
        if durable.as_ref().is_some_and(|durable| durable.is_compacted()) {
            return Err(Contradiction::new(&topic.name, "`compact`", "a queue of the topic").into());
        }
        let syncs = durable.as_ref().map(|durable| durable.committer.syncs);
        let reason = match self.level {
            Level::Replicated => Some("a queue's changes stay on this machine: a bridge copies events only"),
            level => level.unsupported(syncs, None),
        };
        if let Some(reason) = reason {
            return Err(QueueError::Unsupported(crate::base::level::Unsupported { level: self.level, reason }));
        }
        let largest = E::largest(topic.settings.max_message);
        let size = largest + dead_letter::overhead(&topic.name, &self.name);
        let dead = dead_letters(&topic.host, &dead_topic, size, durable.is_some()).map_err(DeadLetterError::Topic)?;
        if durable.is_some() && dead.inner.durable.is_none() {
            return Err(DeadLetterError::InMemory { topic: dead_topic }.into());
        }
        if dead.inner.durable.as_ref().is_some_and(|durable| durable.is_compacted()) {
            return Err(
                Contradiction::new(&dead_topic, "`compact`", "a queue whose dead letters the topic keeps").into()
            );
        }
        let dead_letter_writer = DeadLetterWriter::open(&dead, &topic.name, &self.name, largest)?;
        topic.host.timer.start().map_err(|cause| {
            let (topic, consumer) = (topic.name.clone(), self.name.clone());
            QueueError::Subscribe(SubscribeError::Thread { topic, consumer, cause })
        })?;
        let shift = QueueState::<E, K>::shift(&*topic.host.clock);
        let mut readers = topic.readers();
        let builder = SubscriberBuilder::new(Arc::clone(&topic), self.name.clone()).start(self.start.clone());
        let stage = builder.stage();
        let waiter = Arc::new(Waiter::new());
        let core = match &durable {
            None => {
                let mut leases = core::leases(self.settings);
                leases.number_from(topic.host.lease_numbers.load(Ordering::Acquire));
                let state = QueueState::new(leases, Input::Rings(builder.join_all()?), dead_letter_writer);
                let dead_letter_reader = DeadLetterReader::new(&dead, &topic.name, &self.name, BTreeMap::new())?;
                let dead = (dead_topic, 0, dead_letter_reader);
                QueueCore::new(&topic, QueueParts { name: self.name, stage, dead, state, log: None, waiter })
            }
            Some(durable) => self.recall(durable, &dead, dead_letter_writer, waiter, shift)?,
        };
        let reader: Arc<dyn TopicReader<E, K>> = Arc::clone(&core) as _;
        readers.add(Arc::downgrade(&reader) as Weak<_>);
        drop(readers);
        if let Some(log) = &core.log {
            log.committer.add_state_source(Arc::downgrade(&core) as Weak<_>);
            // Leases may have expired, and delays may have ended, since the queue was closed.
            let now = core.now();
            core.settle(&mut core.lock(), now);
        }
        lifecycle!(info, "queue opened", topic = topic.name, queue = core.name);
        Ok(core)
    }

    /// Opens the queue of a durable topic, with the state that the journal has of it; without such state, as a new
    /// queue.
    fn recall(
        self,
        durable: &DurableTopic<E>,
        dead: &Topic<Message>,
        dead_letter_writer: DeadLetterWriter,
        waiter: Arc<Waiter>,
        shift: ClockShift,
    ) -> Result<Arc<QueueCore<E, K>>, QueueError> {
        let Self { topic, name, start, settings, level, .. } = self;
        let refused = |cause: String| QueueError::Journal { topic: topic.name.clone(), queue: name.clone(), cause };
        let journal = durable.journal();
        if journal.frame_limit() < SMALLEST_FRAME {
            let needed = SMALLEST_FRAME * 4 + (4 << 10);
            return Err(refused(format!("its segments are too small for queues: take {needed} bytes or more")));
        }
        let partitions = topic.partitions();
        if partitions.iter().any(|it| it.ring.positions().stages.iter().any(|stage| stage.name == name)) {
            return Err(SubscribeError::NameTaken { topic: topic.name.clone(), consumer: name }.into());
        }
        let topic_number = durable.id(0).topic;
        let mut recovered = durable.committer.recovered_state();
        let known = codec::find(&recovered, topic_number, &name);
        let number = known.as_ref().map_or_else(|| codec::next_number(&recovered), |known| known.number);
        let opened = QueueEntry::new(number, &settings, dead.name());
        let mut recovered_queue = RecoveredQueue::read(&recovered, number, shift);
        if recovered_queue.unreadable > 0 {
            let values = recovered_queue.unreadable;
            return Err(refused(format!("{values} values of its state cannot be read: a newer program wrote them")));
        }
        let has_other_order = known.as_ref().is_some_and(|known| known.strict != opened.strict);
        if has_other_order && !recovered_queue.messages.is_empty() {
            let (out, queue) = (recovered_queue.messages.len(), name);
            return Err(QueueError::OtherOrder { topic: topic.name.clone(), queue, out });
        }
        let mut frame = FrameBuilder::new();
        if known.as_ref() != Some(&opened) {
            codec::put_queue(&mut frame, topic_number, &name, &opened, known.is_none());
        }
        // The recorded next offsets belong to the topic for dead letters that the queue had before. If the topic is
        // another one now, the queue's letters begin at the present end of the new topic.
        let letters = match (&dead.inner.durable, &known) {
            (Some(_), Some(known)) if known.dead_topic == opened.dead_topic => recovered_queue.letters(),
            (Some(letters), _) => dead_letter_reader::ends(letters),
            (None, _) => BTreeMap::new(),
        };
        // `from` gets the next offset of each partition. Unread messages that retention has deleted are counted in
        // `lost`.
        let mut lost = 0;
        let mut from = Vec::new();
        let published = |partition: u32| partitions[partition as usize].ring.positions().published.0;
        for partition in 0..partitions.len() as u32 {
            let extent = journal.extent(durable.id(partition)).unwrap_or_default();
            let next = match recovered_queue.cursors.get(&Cursor::Partition(partition)) {
                Some(next) => *next,
                None if known.is_some() => extent.start,
                None => begin(durable, partition, published(partition), &start).map_err(&refused)?,
            };
            lost += extent.start.saturating_sub(next);
            from.push(next.clamp(extent.start, published(partition).max(extent.start)));
            if known.is_none() {
                codec::put_cursor(&mut frame, number, Cursor::Partition(partition), next);
            }
        }
        if known.as_ref().is_none_or(|known| known.dead_topic != opened.dead_topic) {
            letters.iter().for_each(|(partition, next)| {
                codec::put_cursor(&mut frame, number, Cursor::DeadLetters(*partition), *next);
            });
        }
        let replay = ReplayBuilder::new(Arc::clone(&topic), name.clone()).visible(Visible::Written);
        let replay = replay.start(StartAt::Offsets(from)).open();
        let replay = replay.map_err(|cause: ReplayError| refused(cause.to_string()))?.of_topic();
        if !frame.is_empty() {
            recovered.take(&mut frame);
            drop(recovered);
            durable.committer.commit([frame]).map_err(&refused)?;
            recovered = durable.committer.recovered_state();
        }
        let mut leases: Leases<Body<E>> = core::leases(settings);
        #[cfg(test)]
        {
            leases.accept_late_acks = journal.sabotage().accept_late_acks;
        }
        let incarnation = u64::from(journal.incarnation());
        // The incarnation, which counts the openings of the journal, makes lease numbers unique across processes.
        leases.note_changes();
        leases.number_from((incarnation << 40).max(topic.host.lease_numbers.load(Ordering::Acquire)));
        let messages = std::mem::take(&mut recovered_queue.messages);
        // Leased and dying messages are restored first: in strict order, the first waiting message of a partition must
        // wait for them.
        let (waiting, out): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|(_, known)| matches!(known.phase, Phase::Waiting(_)));
        let deleted = recovered_queue.deleted.iter().map(|&(partition, offset)| StatePart::Deleted(partition, offset));
        let parts: Vec<_> = deleted.chain(out.iter().chain(&waiting).map(|(at, _)| StatePart::of(*at))).collect();
        for ((partition, offset), known) in out.into_iter().chain(waiting) {
            leases.recall(partition, offset, None, known);
        }
        if let Some(changes) = leases.changes() {
            parts.into_iter().for_each(|part| _ = changes.write(part, true));
            recovered_queue.cursors.iter().for_each(|(cursor, next)| changes.recorded(*cursor, *next));
        }
        let notifier = Arc::clone(&durable.committer.notifier);
        let watch = JournalWatch::new(notifier, JournalWaker::waker(&waiter));
        let input = Input::Journal(Box::new(replay), watch);
        let mut state = QueueState::new(leases, input, dead_letter_writer);
        state.deleted.extend(recovered_queue.deleted);
        state.counters.lost = lost;
        let dead_letter_reader = DeadLetterReader::new(dead, &topic.name, &name, letters)?;
        // The queue has its own copy of the state now, so it is removed from the engine's copy.
        codec::forget(&mut recovered, number);
        drop(recovered);
        let dead_number = dead.inner.durable.as_ref().map_or(0, |durable| durable.id(0).topic);
        let log = Some(QueueLog::new(durable, &name, number, level));
        let stage = SubscriberBuilder::new(Arc::clone(&topic), name.clone()).stage();
        let dead = (dead.name().to_owned(), dead_number, dead_letter_reader);
        Ok(QueueCore::new(&topic, QueueParts { name, stage, dead, state, log, waiter }))
    }
}

/// The smallest frame limit of a journal, in bytes, with which a queue may be opened: a frame then has room for a
/// queue's state beside events.
const SMALLEST_FRAME: usize = 16 << 10;

/// The offset at which a new queue starts in a partition. `latest` is the next offset to be published. The error says
/// why the start is not possible.
pub(super) fn begin<E: Job>(
    durable: &DurableTopic<E>,
    partition: u32,
    latest: u64,
    start: &StartAt,
) -> Result<u64, String> {
    let (journal, id) = (durable.journal(), durable.id(partition));
    let extent = journal.extent(id).unwrap_or_default();
    let offset = match start {
        StartAt::Earliest => extent.start,
        StartAt::Latest => latest,
        StartAt::Offset(offset) => *offset,
        StartAt::Committed => return Err("only groups have committed offsets".to_owned()),
        StartAt::Offsets(offsets) => offsets.get(partition as usize).copied().unwrap_or(extent.start),
        StartAt::Timestamp(time) => {
            let found = journal.first_since(id, time.as_nanos()).map_err(|cause| cause.to_string())?;
            found.unwrap_or(extent.end).min(latest)
        }
    };
    // A start above `latest` is refused, because it would skip messages that are still to be published. The journal's
    // end may be above `latest` while a transaction commits, since its events are written before they are published.
    let earliest = extent.start.min(latest);
    if !(earliest..=latest).contains(&offset) {
        return Err(format!(
            "offset {offset} of partition {partition} is not there: it keeps {earliest} up to, not including, {latest}"
        ));
    }
    Ok(offset)
}

/// Opens the topic `name` for dead letters, or creates it without its partitions, which the first dead letter makes.
/// `size` is the size in bytes of the largest message that it must accept.
fn dead_letters(host: &Host, name: &str, size: usize, durable: bool) -> Result<Topic<Message>, TopicError> {
    let engine = host.engine()?;
    // The topic may have been created earlier for larger dead letters. It then keeps that size, since a smaller one
    // would be refused.
    let recorded = host.recorded(name).filter(|_| durable).map_or(0, |there| there.max_message as usize);
    let topic = TopicBuilder::<Message>::new(Arc::clone(&engine), name.to_owned()).max_message(size.max(recorded));
    let topic = if durable { topic.durable() } else { topic.retain(512) };
    match topic.deferred().create() {
        Err(TopicError::Exists { .. }) => engine.get_deferred(name),
        created => created,
    }
}

/// The settings that all builders of a queue must have in common: its lease settings, and the name of the topic for
/// dead letters. `Display` writes them for the error.
struct QueueSettings<'a>(&'a LeaseSettings, &'a str);

impl fmt::Display for QueueSettings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeaseSettings { visibility, max_attempts, order, max_messages, max_bytes, backoff } = self.0;
        let order = if *order == Order::Strict { "strict" } else { "relaxed" };
        write!(f, "leases of {visibility:?}, ")?;
        match max_attempts {
            Some(attempts) => write!(f, "{attempts} attempts")?,
            None => write!(f, "unlimited attempts")?,
        }
        write!(
            f,
            ", again {backoff}, {order} order, at most {max_messages} messages and {max_bytes} bytes out, dead letters to {:?}",
            self.1
        )
    }
}
