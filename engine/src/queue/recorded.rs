//! Queues as a journal has recorded them, for programs that read or change a journal without an engine, such as
//! `slipring queue`.

use super::changes::{Cursor, StatePart};
use super::codec::{self, ClockShift, RecoveredQueue};
use super::dead_letter_reader::{Verdict, each_in_journal};
use super::lease::{DeathCause, KnownMessage, Phase};
pub use super::letters::JournalLetters;
use super::letters::LetterRange;
use crate::base::clock::Timestamp;
use crate::event::dead_letter::DeadLetter;
use crate::event::message::Message;
use crate::log::catalog::state_kind;
use crate::log::catalog::{RecordedTopic, recorded_topics};
use crate::log::queues::{QueueEntry, all};
use slipring_journal::{FrameBuilder, Journal, PartitionId, ReplayError, Start, State, Visible, WriteError, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A queue's settings and state in a journal that no engine has open.
///
/// ```
/// use slipring::journal::{Options, open, simulated::SimulatedDisk};
/// use slipring::queue::recorded::{find, queues};
/// # use slipring::{Engine, Message, Record};
/// # use std::{sync::Arc, time::Duration};
/// # let disk = SimulatedDisk::new();
/// # let engine = Engine::builder().journal_in(disk.clone()).build()?;
/// # let jobs = engine.topic::<Message>("jobs").durable().create()?;
/// # let mut worker = jobs.queue("resize").join()?;
/// # jobs.producer().create()?.send(Record::new("cat.png"))?;
/// # worker.receive(Duration::from_secs(60))?.unwrap().leave();
/// # assert!(engine.shutdown(Duration::from_secs(60)).is_complete());
/// let (mut writer, _) = open(Arc::new(disk), Options::default())?;       // nobody else has it open
/// assert_eq!(queues(writer.state()).len(), 1);
/// let queue = find(writer.state(), "jobs", "resize").unwrap();
/// assert_eq!((queue.leased(), queue.waiting()), (1, 0));
/// assert_eq!(queue.purge(&mut writer, 0)?, 0);                           // leases are left alone
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecordedQueue {
    /// The queue's topic.
    pub topic: RecordedTopic,
    /// The queue's name.
    pub name: String,
    /// How long a lease lasts unless it is renewed.
    pub visibility: Duration,
    /// How many times a message is leased before it becomes a dead letter. `None`: no limit.
    pub max_attempts: Option<u32>,
    /// True for [`Order::Strict`](crate::queue::Order::Strict): one message of a partition is leased at a time.
    pub strict: bool,
    /// The greatest number of unfinished messages that the queue may have read.
    pub max_outstanding: u64,
    /// The name of the topic for dead letters.
    pub dead_topic: String,
    /// For each partition, the next offset that the queue reads; `None` if it has read none of the partition.
    pub next: Vec<Option<u64>>,
    /// The messages that the queue has read and that are not finished, by partition and offset.
    pub messages: Vec<RecordedMessage>,
    /// The partition and offset of each message that was deleted before the queue read it.
    pub deleted: Vec<(u32, u64)>,
    number: u32,
    dead: Option<RecordedTopic>,
    recovered_queue: RecoveredQueue,
}

/// An unfinished message of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedMessage {
    /// The message's partition.
    pub partition: u32,
    /// The message's offset in its partition.
    pub offset: u64,
    /// How many times the message was leased.
    pub attempts: u32,
    /// The message's state.
    pub state: MessageState,
}

/// The state of an unfinished message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageState {
    /// The message is leased until this time of the system's clock, which may have passed.
    Leased(Timestamp),
    /// The message may be leased from this time of the system's clock on.
    Waiting(Timestamp),
    /// The message has had its last attempt and is to become a dead letter, for this reason.
    Dying(String),
    /// The queue has not read the message, so it was never leased.
    Unread,
}

/// Why a recorded queue cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The journal refused to write the change.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The queue's messages cannot be read from the journal.
    #[error(transparent)]
    Read(#[from] ReplayError),
    /// This journal does not have the queue's topic for dead letters.
    #[error("the dead letters of queue {queue:?} are in topic {topic:?}, which this journal does not have")]
    NoLetters {
        /// The queue's name.
        queue: String,
        /// The topic's name.
        topic: String,
    },
}

/// Reads all queues from a journal's state.
pub fn queues(state: &State) -> Vec<RecordedQueue> {
    let topics = recorded_topics(state);
    let known = all(state).into_iter();
    known.filter_map(|(topic, name, opened)| RecordedQueue::new(state, &topics, topic, name, opened)).collect()
}

/// Reads the queue `queue` of the topic `topic` from a journal's state; `None` if the state has no such queue.
pub fn find(state: &State, topic: &str, queue: &str) -> Option<RecordedQueue> {
    let topics = recorded_topics(state);
    let number = topics.iter().find(|known| known.name == topic)?.number;
    RecordedQueue::new(state, &topics, number, queue.to_owned(), codec::find(state, number, queue)?)
}

impl RecordedQueue {
    fn new(state: &State, topics: &[RecordedTopic], number: u32, name: String, opened: QueueEntry) -> Option<Self> {
        let topic = topics.iter().find(|topic| topic.number == number)?.clone();
        let recovered_queue = RecoveredQueue::read(state, opened.number, ClockShift::NONE);
        let at = |time: Duration| Timestamp::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let messages = recovered_queue.messages.iter().map(|((partition, offset), known)| RecordedMessage {
            partition: *partition,
            offset: *offset,
            attempts: known.attempts,
            state: match &known.phase {
                Phase::Leased(until) => MessageState::Leased(at(*until)),
                Phase::Waiting(due) => MessageState::Waiting(at(*due)),
                Phase::Dying(DeathCause::Refused(reason)) => MessageState::Dying(reason.to_string()),
                Phase::Dying(DeathCause::Expired) => MessageState::Dying("the lease ran out".to_owned()),
            },
        });
        let messages = messages.collect();
        let next =
            (0..topic.partitions).map(|it| recovered_queue.cursors.get(&Cursor::Partition(it)).copied()).collect();
        Some(Self {
            name,
            visibility: opened.visibility,
            max_attempts: opened.max_attempts,
            strict: opened.strict,
            max_outstanding: opened.max_messages,
            dead: topics.iter().find(|topic| topic.name == opened.dead_topic).cloned(),
            dead_topic: opened.dead_topic,
            next,
            messages,
            deleted: recovered_queue.deleted.clone(),
            number: opened.number,
            topic,
            recovered_queue,
        })
    }

    fn count(&self, is_it: impl Fn(&MessageState) -> bool) -> usize {
        self.messages.iter().filter(|message| is_it(&message.state)).count()
    }

    /// The number of leased messages. Their leases may have expired since they were recorded.
    pub fn leased(&self) -> usize {
        self.count(|it| matches!(it, MessageState::Leased(_)))
    }

    /// The number of messages that wait to be leased: they were sent with a delay, or are to be leased again.
    pub fn waiting(&self) -> usize {
        self.count(|it| matches!(it, MessageState::Waiting(_)))
    }

    /// The number of messages that have had their last attempt and are to become dead letters.
    pub fn dying(&self) -> usize {
        self.count(|it| matches!(it, MessageState::Dying(_)))
    }

    fn id(&self, partition: u32) -> PartitionId {
        PartitionId { topic: self.topic.number, partition }
    }

    /// The range of offsets of a partition that the queue has not read: the first offset, and the offset after the
    /// last. Both are equal if the queue has read the whole partition.
    pub fn unread(&self, journal: &Journal, partition: u32) -> (u64, u64) {
        let extent = journal.extent(self.id(partition)).unwrap_or_default();
        let next = self.next.get(partition as usize).copied().flatten();
        (next.unwrap_or(extent.start).max(extent.start), extent.end)
    }

    /// The number of messages of a partition that the queue has not read, including those that were deleted before
    /// that.
    pub fn unread_messages(&self, journal: &Journal, partition: u32) -> u64 {
        let (next, end) = self.unread(journal, partition);
        journal.records_in(self.id(partition), next..end)
    }

    /// Passes the messages that are not leased, with their bytes, to `each`, until it returns false: first waiting and
    /// dying messages, then messages that the queue has not read.
    ///
    /// # Errors
    /// The journal is damaged, or the disk fails. Messages that retention has deleted are skipped.
    pub fn peek(
        &self,
        journal: &Journal,
        mut each: impl FnMut(&RecordedMessage, &[u8]) -> bool,
    ) -> Result<(), ReplayError> {
        for message in self.messages.iter().filter(|it| !matches!(it.state, MessageState::Leased(_))) {
            let start = Start::Offset(message.offset);
            let mut reader = match journal.reader(self.id(message.partition), start, Visible::Written) {
                Err(ReplayError::OutOfRange { .. }) => continue,
                reader => reader?,
            };
            if let Some(record) = reader.next()?.filter(|record| record.offset == message.offset)
                && !each(message, record.bytes)
            {
                return Ok(());
            }
        }
        for partition in 0..self.topic.partitions {
            let mut wants_more = true;
            self.each_unread(journal, partition, |offset, bytes| {
                let unread = RecordedMessage { partition, offset, attempts: 0, state: MessageState::Unread };
                wants_more = each(&unread, bytes);
                wants_more
            })?;
            if !wants_more {
                break;
            }
        }
        Ok(())
    }

    fn each_unread(
        &self,
        journal: &Journal,
        partition: u32,
        mut each: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<(), ReplayError> {
        let (next, end) = self.unread(journal, partition);
        if next >= end {
            return Ok(());
        }
        let mut reader = journal.reader(self.id(partition), Start::Offset(next), Visible::Written)?;
        while let Some(record) = reader.next()? {
            let at = (partition, record.offset);
            let is_known = self.deleted.contains(&at) || self.recovered_queue.messages.contains_key(&at);
            if !is_known && !each(record.offset, record.bytes) {
                break;
            }
        }
        Ok(())
    }

    fn letters(
        &self,
        journal: &Journal,
        mut each: impl FnMut(DeadLetter) -> Verdict,
    ) -> Result<Vec<(u32, u64)>, ChangeError> {
        let dead = self.letter_topic()?;
        let mut moved = Vec::new();
        let mut each = |message: &Message, _| {
            let is_ours = |it: &DeadLetter| it.topic == self.topic.name && it.consumer == self.name;
            DeadLetter::read(message).filter(is_ours).map(&mut each)
        };
        for partition in 0..dead.partitions {
            let from = self.recovered_queue.cursors.get(&Cursor::DeadLetters(partition)).copied().unwrap_or(0);
            let id = PartitionId { topic: dead.number, partition };
            let (to, ended) = each_in_journal(journal, id, from, &mut each);
            if to > from {
                moved.push((partition, to));
            }
            if ended? {
                break;
            }
        }
        Ok(moved)
    }

    fn letter_topic(&self) -> Result<&RecordedTopic, ChangeError> {
        let no_letters = || ChangeError::NoLetters { queue: self.name.clone(), topic: self.dead_topic.clone() };
        self.dead.as_ref().ok_or_else(no_letters)
    }

    /// Iterates over the queue's dead letters that were neither purged nor sent back, the oldest of each partition first.
    ///
    /// # Errors
    /// The topic for dead letters is not in this journal.
    pub fn dead_letters(&self, journal: &Journal) -> Result<JournalLetters, ChangeError> {
        let dead = self.letter_topic()?;
        let ranges = (0..dead.partitions).map(|partition| {
            let from = self.recovered_queue.cursors.get(&Cursor::DeadLetters(partition)).copied().unwrap_or(0);
            let id = PartitionId { topic: dead.number, partition };
            LetterRange { partition: id, from, end: journal.extent(id).map_or(0, |extent| extent.end) }
        });
        Ok(JournalLetters::new(journal.clone(), (self.topic.name.clone(), self.name.clone()), ranges))
    }

    /// Deletes all messages that are not leased, including those that the queue has not read. Returns their number.
    /// `time` is the time with which the change is recorded, in nanoseconds since 1970.
    ///
    /// # Errors
    /// The journal refuses the change, or the unread messages cannot be counted.
    pub fn purge(&self, writer: &mut Writer, time: u64) -> Result<u64, ChangeError> {
        let journal = writer.journal();
        let mut purged = 0;
        let mut change = QueueChange::new(self.number);
        for partition in 0..self.topic.partitions {
            self.each_unread(&journal, partition, |_, _| {
                purged += 1;
                true
            })?;
            change.cursors.push((Cursor::Partition(partition), self.unread(&journal, partition).1));
        }
        let mut messages = self.recovered_queue.messages.clone();
        messages.retain(|at, known| {
            let stays = matches!(known.phase, Phase::Leased(_));
            if !stays {
                purged += 1;
                change.blocks.insert(StatePart::of(*at));
            }
            stays
        });
        change.blocks.extend(self.deleted.iter().map(|(partition, offset)| StatePart::Deleted(*partition, *offset)));
        change.write(writer, &messages, time)?;
        Ok(purged)
    }

    /// Purges the queue's dead letters: the queue does not return them any more, but they stay in their topic. Returns
    /// their number. `time` is as for [`purge`](Self::purge).
    ///
    /// # Errors
    /// The topic for dead letters is not in this journal, or the journal refuses the change or cannot be read.
    pub fn purge_dead_letters(&self, writer: &mut Writer, time: u64) -> Result<u64, ChangeError> {
        let mut purged = 0;
        let moved = self.letters(&writer.journal(), |_| {
            purged += 1;
            Verdict::Drop
        })?;
        self.deal_with(moved).write(writer, &self.recovered_queue.messages, time)?;
        Ok(purged)
    }

    /// Sends the first `limit` dead letters back to the queue, with their attempts counted from 0. Returns their
    /// number. Stops at a letter whose original message the topic no longer keeps. `time` is as for
    /// [`purge`](Self::purge).
    ///
    /// # Errors
    /// The topic for dead letters is not in this journal, the journal cannot be read or refuses the change, or its state has no
    /// room for it. Then nothing is changed.
    pub fn redrive(&self, writer: &mut Writer, limit: u64, time: u64) -> Result<u64, ChangeError> {
        let journal = writer.journal();
        let (mut sent, mut messages, mut blocks) = (0, self.recovered_queue.messages.clone(), BTreeSet::new());
        let moved = self.letters(&journal, |letter| {
            let at = (letter.partition, letter.offset);
            let start = journal.extent(self.id(letter.partition)).map_or(0, |extent| extent.start);
            if sent == limit || letter.offset < start {
                return Verdict::Stop;
            }
            sent += 1;
            let anew = KnownMessage { number: 0, attempts: 0, phase: Phase::Waiting(Duration::ZERO) };
            messages.entry(at).or_insert(anew);
            blocks.insert(StatePart::of(at));
            Verdict::Drop
        })?;
        let mut change = self.deal_with(moved);
        change.blocks = blocks;
        change.write(writer, &messages, time)?;
        Ok(sent)
    }

    fn deal_with(&self, moved: Vec<(u32, u64)>) -> QueueChange {
        let mut change = QueueChange::new(self.number);
        change.cursors.extend(moved.into_iter().map(|(partition, next)| (Cursor::DeadLetters(partition), next)));
        change
    }
}

/// A change of a recorded queue. Parts of its state are written before its next offsets, so that a crash between two
/// frames loses no message.
struct QueueChange {
    queue: u32,
    blocks: BTreeSet<StatePart>,
    cursors: Vec<(Cursor, u64)>,
}

impl QueueChange {
    fn new(queue: u32) -> Self {
        Self { queue, blocks: BTreeSet::new(), cursors: Vec::new() }
    }

    fn write(
        self,
        writer: &mut Writer,
        messages: &BTreeMap<(u32, u64), KnownMessage>,
        time: u64,
    ) -> Result<(), WriteError> {
        let limit = writer.frame_limit() / 2;
        let mut frame = FrameBuilder::new();
        for part in self.blocks {
            match part {
                StatePart::Block(partition, block) => {
                    let known = |offset| messages.get(&(partition, offset)).cloned();
                    let shift = ClockShift::none_at(Timestamp::from_nanos(time));
                    codec::put_block(&mut frame, self.queue, partition, block, shift, known);
                }
                StatePart::Deleted(..) => frame.delete(state_kind::QUEUES, &codec::part_key(self.queue, part)),
            }
            if frame.len() > limit {
                writer.append(&mut frame, time)?;
            }
        }
        for (cursor, next) in self.cursors {
            codec::put_cursor(&mut frame, self.queue, cursor, next);
        }
        if !frame.is_empty() {
            writer.append(&mut frame, time)?;
        }
        writer.sync().map(drop)
    }
}
