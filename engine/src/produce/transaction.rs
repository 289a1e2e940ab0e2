//! Transactions: events for several topics and partitions that are published all or none.
//!
//! A transaction keeps its events in buffers. The commit claims slots in all partitions without waiting, because no
//! thread may wait while it holds a claim. Then the committer writes all events as one frame; `log/committer.rs`
//! describes the order of steps.

mod output;

use output::{Claims, Output, TypedOutput};

use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::when_full::nap;
use crate::event::codec::Unreadable;
use crate::event::message::Message;
use crate::event::record::Record;
use crate::log::committer::{Committer, TransactionFrame, TransactionOutcome};
use crate::log::offsets::commit_right::Fenced;
use crate::log::receipt::BatchReceipt;
use crate::produce::append::Route;
use crate::text;
use crate::topic::Topic;
use crate::topic::error::{ProducerError, PublishError};
use slipring_journal::{FrameBuilder, WriteError};
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Events for any durable topics and partitions of one engine, published together: all or none.
///
/// ```
/// use slipring::{Engine, journal::simulated::SimulatedDisk};
/// # let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
/// let accounts = engine.topic::<i64>("accounts").partitions(2).durable().create()?;
/// let mut transfer = engine.transaction()?;
/// transfer.publish_to(&accounts, 0, |change| *change = -10)?;
/// transfer.publish_to(&accounts, 1, |change| *change = 10)?;
/// let receipts = transfer.commit()?;                          // both are durable
/// assert_eq!(receipts.len(), 2);
/// assert_eq!(accounts.safe(1).map(|safe| safe.durable), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # All or none
/// The events are one frame of the journal, under one checksum. Subscribers get them when the frame is durable. If the
/// transaction is dropped without [`commit`](Self::commit), also by a panic, nothing is published. After a crash all of
/// its events exist or none. A reader of several partitions may get the events of one partition before those of
/// another.
///
/// # Limits
/// All events must fit into one frame of the journal, a quarter of a [segment](crate::journal::Options::segment_size),
/// and the events of each partition into its ring. Rate limits and overflow policies of topics do not apply: a commit
/// waits for room for as long as [`patience`](Self::patience) says.
pub struct Transaction {
    committer: Arc<Committer>,
    outputs: Vec<Box<dyn Output>>,
    bytes: usize,
    len: usize,
    /// For each event, in the order of the calls: the index of its output in `outputs`, and its partition.
    order: Vec<(u32, u32)>,
    /// The size in bytes that the transaction would have had with an event that was refused for its size, and the limit
    /// in bytes. `None` if no event was refused for its size.
    overfull: Option<(usize, usize)>,
    patience: Duration,
}

/// The error of adding an event to a transaction, or of committing a transaction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// The engine has no journal.
    #[error(
        "the engine has no journal, which transactions need: open it with `Engine::open` or `EngineBuilder::journal`"
    )]
    NoJournal,
    /// The topic is not durable, or belongs to another engine.
    #[error("topic {topic:?} is not in this engine's journal: create it there, with `durable()`")]
    NotDurable {
        /// The topic's name.
        topic: String,
    },
    /// The transaction is larger than one frame. The events that were added before are still part of it.
    #[error(
        "a transaction of {size} bytes is larger than the {limit} that one frame of the journal holds: commit less at once, or take larger segments"
    )]
    TooLarge {
        /// The size of the transaction in bytes, with the refused event.
        size: usize,
        /// The greatest size of one frame, in bytes.
        limit: usize,
    },
    /// The topic's producer could not be created.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// A partition has no room or is closed, or the event's partition does not exist. No event was published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// An event was encoded into bytes that do not decode. No event was published.
    #[error("topic {topic:?}: {cause}")]
    Event {
        /// The topic's name.
        topic: String,
        /// Why the bytes do not decode.
        cause: Unreadable,
    },
    /// The transform was opened again under its name. No event was published.
    #[error("the transform {name:?} of topic {topic:?} was opened again since: this one commits nothing more")]
    Fenced {
        /// The transform's name.
        name: String,
        /// The name of its input topic.
        topic: String,
    },
    /// The group member whose batch was to be committed is fenced: other members read that batch. No event was
    /// published.
    #[error(transparent)]
    Member(#[from] Fenced),
    /// The journal has ended or refused the transaction, or this thread is committing another one. No event was
    /// published.
    #[error("nothing was published: {}", text::line(.cause))]
    Refused {
        /// Why, as text.
        cause: String,
    },
    /// The transaction is durable, and a topic of it was halted or has failed before it could publish the events there:
    /// for example a shutdown has waited for the disk as long as it could. Readers of this engine get no event of that
    /// partition from here on, and no group passes over these. Unless the topic is deleted, they are read when the
    /// journal is opened again. So do not commit the events again.
    #[error(
        "the transaction is durable, but partition {partition} of topic {topic:?} had ended ({reason}): its events there are read when the journal is opened again"
    )]
    Late {
        /// The topic's name.
        topic: String,
        /// The partition's number, from 0.
        partition: u32,
        /// Why the topic has ended.
        reason: Closed,
    },
    /// The disk failed while the frame was written. When the journal is opened again, all events of the transaction
    /// exist, or none.
    #[error("it is unknown whether the transaction is in the journal: {}", text::line(.cause))]
    Unknown {
        /// The disk's error, as text.
        cause: String,
    },
}

impl TransactionError {
    /// True if the transaction, or a partition's part of it, was too large. Then one with fewer events may succeed.
    pub(crate) fn is_too_much(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Publish(PublishError::BatchTooLarge { .. }))
    }

    /// True if the transaction is in the journal, with what was committed in its frame.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Self::Late { .. })
    }

    /// True if a partition had no room. The same events may be committed later.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Publish(refused) if refused.is_full())
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transaction of {} events, {} bytes", self.len, self.bytes)
    }
}

/// Size in bytes that is left free in a frame for the input offsets that the frame commits.
const SPARE: usize = 1024;

/// The reason why the output of an input event is not in the transaction.
pub(crate) enum InputFailure<X> {
    /// The handler failed.
    Failed(X),
    /// The output is too large: if `alone` is true, for an empty transaction; otherwise for the space beside the output
    /// of earlier events.
    TooMuch { cause: TransactionError, alone: bool },
}

/// The additions to a commit's frame. `put` adds contents to the frame. `decide` returns a check that runs just before
/// the frame is written; if the check returns false, nothing is written.
pub(crate) struct FrameExtras<'a> {
    pub(crate) put: &'a dyn Fn(&mut FrameBuilder),
    pub(crate) decide: &'a dyn Fn() -> Box<dyn FnOnce() -> bool + Send>,
}

impl Transaction {
    pub(crate) fn new(committer: Arc<Committer>) -> Self {
        Self {
            committer,
            outputs: Vec::new(),
            bytes: SPARE,
            len: 0,
            order: Vec::new(),
            overfull: None,
            patience: Duration::from_secs(30),
        }
    }

    /// An empty transaction of the engine of `other`, with the patience of `other`.
    pub(crate) fn like(other: &Self) -> Self {
        Self { patience: other.patience, ..Self::new(Arc::clone(&other.committer)) }
    }

    /// True if twice as many events would probably still fit.
    pub(crate) fn is_ample(&self) -> bool {
        self.bytes <= self.committer.journal.frame_limit() / 2 && self.outputs.iter().all(|output| output.is_ample())
    }

    /// Sets how long a commit waits for room; 30 seconds by default. The commit claims no slots while it waits.
    pub fn patience(&mut self, limit: Duration) -> &mut Self {
        self.patience = limit;
        self
    }

    /// Count of events.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if the transaction has no events.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an event without a key.
    ///
    /// # Errors
    /// The topic is not durable or is closed, or the transaction would become too large. The event is not added.
    pub fn publish<E: Send + Sync + 'static, K: Producers>(
        &mut self,
        topic: &Topic<E, K>,
        fill: impl FnOnce(&mut E),
    ) -> Result<(), TransactionError> {
        self.take(topic, Route::Any, fill)
    }

    /// Adds an event to the partition of its key.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish).
    pub fn publish_key<E: Send + Sync + 'static, K: Producers>(
        &mut self,
        topic: &Topic<E, K>,
        key: &[u8],
        fill: impl FnOnce(&mut E),
    ) -> Result<(), TransactionError> {
        self.take(topic, Route::Key(key), fill)
    }

    /// Adds an event to this partition.
    ///
    /// # Errors
    /// The partition does not exist, or an error of [`publish`](Self::publish).
    pub fn publish_to<E: Send + Sync + 'static, K: Producers>(
        &mut self,
        topic: &Topic<E, K>,
        partition: u32,
        fill: impl FnOnce(&mut E),
    ) -> Result<(), TransactionError> {
        self.take(topic, Route::To(partition), fill)
    }

    /// Adds a message to the [partition that it names](Record::partition), or else to that of its key.
    ///
    /// # Errors
    /// The message is larger than the topic allows, or an error of [`publish`](Self::publish).
    pub fn send<'r, K: Producers>(
        &mut self,
        topic: &Topic<Message, K>,
        record: impl Borrow<Record<'r>>,
    ) -> Result<(), TransactionError> {
        let record = record.borrow();
        let (settings, clock) = (&topic.inner.settings, &topic.inner.host.clock);
        let delayed = record.at(|| clock.wall());
        let record = delayed.as_ref().unwrap_or(record);
        let now = settings.timestamps.then(|| clock.wall());
        let to = self.output(topic)?.producer.destination(record)?;
        self.take(topic, Route::To(to), |message| message.fill(record, now))
    }

    /// Creates the topic's producer now; otherwise the first event for the topic would create it.
    pub(crate) fn open<E: Send + Sync + 'static, K: Producers>(
        &mut self,
        topic: &Topic<E, K>,
    ) -> Result<(), TransactionError> {
        self.output(topic).map(drop)
    }

    fn output<E: Send + Sync + 'static, K: Producers>(
        &mut self,
        topic: &Topic<E, K>,
    ) -> Result<&mut TypedOutput<E, K>, TransactionError> {
        let not_durable = || TransactionError::NotDurable { topic: topic.name().to_owned() };
        let known = self.outputs.iter().position(|output| output.topic() == topic.id());
        let index = match known {
            Some(index) => index,
            None => {
                let durable = topic.inner.durable.as_ref().ok_or_else(not_durable)?;
                if !Arc::ptr_eq(&durable.committer, &self.committer) {
                    return Err(not_durable());
                }
                let make = (topic.inner.slots)(1);
                let scratch = make.map_err(|cause| TransactionError::Refused { cause: cause.to_string() })?();
                let producer = topic.producer().create()?;
                let topic = Arc::clone(&topic.inner);
                self.outputs.push(Box::new(TypedOutput { topic, producer, scratch, parts: Vec::new() }));
                self.outputs.len() - 1
            }
        };
        self.outputs[index].as_any().downcast_mut().ok_or_else(not_durable)
    }

    fn take<E: Send + Sync + 'static, K: Producers>(
        &mut self,
        topic: &Topic<E, K>,
        route: Route<'_>,
        fill: impl FnOnce(&mut E),
    ) -> Result<(), TransactionError> {
        let (limit, before) = (self.committer.journal.frame_limit(), self.bytes);
        let taken = self.output(topic)?.take(route, fill, limit.saturating_sub(before));
        let (partition, added) = taken?.map_err(|added| {
            let size = before + added;
            self.overfull = Some((size, limit));
            TransactionError::TooLarge { size, limit }
        })?;
        let output = self.outputs.iter().position(|output| output.topic() == topic.id());
        self.order.push((output.unwrap_or_default() as u32, partition as u32));
        self.bytes += added;
        self.len += 1;
        Ok(())
    }

    /// Removes all events.
    pub(crate) fn clear(&mut self) {
        self.outputs.iter_mut().for_each(|output| output.clear());
        (self.bytes, self.len, self.overfull) = (SPARE, 0, None);
        self.order.clear();
    }

    /// Calls `handler`, which adds the output of one input event. If the handler fails, or the output does not fit
    /// beside the present events, removes all output of this input event and returns the reason.
    pub(crate) fn take_in<X>(
        &mut self,
        handler: impl FnOnce(&mut Self) -> Result<(), X>,
    ) -> Result<(), InputFailure<X>> {
        let before = self.len;
        self.overfull = None;
        let handled = handler(self);
        let too_large = self.overfull.take().map(|(size, limit)| TransactionError::TooLarge { size, limit });
        let failure = match (handled, too_large) {
            (Err(cause), None) => InputFailure::Failed(cause),
            (Err(_), Some(cause)) => InputFailure::TooMuch { cause, alone: before == 0 },
            // The handler may have ignored the refusal; it is called again with an empty transaction.
            (Ok(()), Some(cause)) if before > 0 => InputFailure::TooMuch { cause, alone: false },
            (Ok(()), _) => match self.outgrown(before) {
                Some(refused) => InputFailure::TooMuch { cause: refused.into(), alone: before == 0 },
                None => return Ok(()),
            },
        };
        self.rewind(before);
        Err(failure)
    }

    /// Removes the events added last, until `len` are left.
    fn rewind(&mut self, len: usize) {
        for (output, partition) in self.order.drain(len..).rev() {
            self.bytes -= self.outputs[output as usize].take_back(partition as usize);
        }
        self.len = len;
    }

    /// The error for a partition that got one of the events after the first `len`, and now has more events than its
    /// ring can hold; `None` if there is no such partition.
    fn outgrown(&self, len: usize) -> Option<PublishError> {
        let mut later = self.order[len..].iter();
        later.find_map(|(output, partition)| self.outputs[*output as usize].outgrown(*partition as usize))
    }

    /// Publishes all events, and waits until they are durable. Returns a receipt for each partition; an empty list if
    /// the transaction has no events. Waits for room in the partitions for at most the [patience](Self::patience), 30
    /// seconds by default.
    ///
    /// # Errors
    /// No event was published: because a partition had no room within the patience or a topic is closed
    /// ([`Publish`](TransactionError::Publish)), the events exceed one frame of the journal
    /// ([`TooLarge`](TransactionError::TooLarge)), or the journal has ended, or this thread is committing another
    /// transaction already ([`Refused`](TransactionError::Refused)). With [`Unknown`](TransactionError::Unknown) the
    /// disk failed meanwhile, and the events may have been written. With [`Late`](TransactionError::Late) they are
    /// durable, and a topic had ended before they could be read.
    pub fn commit(mut self) -> Result<Vec<BatchReceipt>, TransactionError> {
        self.commit_outputs()
    }

    pub(crate) fn commit_outputs(&mut self) -> Result<Vec<BatchReceipt>, TransactionError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        self.commit_with(&FrameExtras { put: &|_| {}, decide: &|| Box::new(|| true) })
    }

    pub(crate) fn is_of(&self, committer: &Arc<Committer>) -> bool {
        Arc::ptr_eq(&self.committer, committer)
    }

    pub(crate) fn commit_with(&mut self, extras: &FrameExtras<'_>) -> Result<Vec<BatchReceipt>, TransactionError> {
        let deadline = Instant::now().checked_add(self.patience);
        loop {
            let refused = match self.try_commit(extras) {
                Err(refused) if refused.is_full() => refused,
                outcome => return outcome,
            };
            // Dropped claims become skipped slots, so no new claims are made until there is room.
            loop {
                let left =
                    deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
                if left.is_zero() {
                    return Err(refused);
                }
                if self.outputs.iter().all(|output| output.has_room()) {
                    break;
                }
                nap(left.min(Duration::from_millis(1)));
            }
        }
    }

    fn try_commit(&mut self, extras: &FrameExtras<'_>) -> Result<Vec<BatchReceipt>, TransactionError> {
        let nested = || TransactionError::Refused { cause: NESTED.to_owned() };
        let turn = self.committer.transaction_turn().ok_or_else(nested)?;
        let mut claims = Claims::default();
        for output in &mut self.outputs {
            output.claim(&mut claims)?;
        }
        let Claims { mut frame, mut held, parts, receipts } = claims;
        held.iter_mut().try_for_each(|claim| claim.promise())?;
        if self.committer.journal.sabotage().commit_before_frame {
            let mut early = FrameBuilder::new();
            (extras.put)(&mut early);
            let committed = self.committer.commit([early]);
            committed.map_err(|cause| TransactionError::Refused { cause })?;
        } else {
            (extras.put)(&mut frame);
        }
        match self.committer.transact(turn, TransactionFrame { parts, frame, decide: (extras.decide)() }) {
            TransactionOutcome::Durable => {
                let published: Vec<_> = held.into_iter().map(|claim| claim.publish()).collect();
                published.into_iter().collect::<Result<(), _>>().map(|()| receipts)
            }
            TransactionOutcome::Denied => Err(TransactionError::Refused { cause: "it was denied".to_owned() }),
            TransactionOutcome::Refused(WriteError::TooLarge { len, limit }) => {
                Err(TransactionError::TooLarge { size: len, limit })
            }
            TransactionOutcome::Refused(refused) => Err(TransactionError::Refused { cause: refused.to_string() }),
            TransactionOutcome::Ended(cause) => Err(TransactionError::Refused { cause }),
            TransactionOutcome::Unknown(cause) => Err(TransactionError::Unknown { cause }),
        }
    }
}

/// The cause of the error if a thread commits a transaction while it commits another one.
const NESTED: &str = "this thread is committing another transaction, and code that runs meanwhile, such as the clock or the event's `Persist`, commits one: commit it afterwards";
