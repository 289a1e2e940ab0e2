//! Transforms: reading a durable topic and publishing an output for its events, exactly once.
//!
//! [`Topic::transform`](crate::Topic::transform) opens a transform under a name. For each batch that it reads, a
//! handler publishes into a [`Transaction`]; the published events and the next input offset are one frame of the
//! journal. [`Engine::transform`](crate::Engine::transform) does so on a thread of its own.
//!
//! ```
//! use slipring::{Engine, Level, journal::simulated::SimulatedDisk};
//! use std::time::Duration;
//!
//! let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
//! let celsius = engine.topic::<i64>("celsius").durable().create()?;
//! let kelvin = engine.topic::<i64>("kelvin").durable().create()?;
//! celsius.producer().acknowledge(Level::Durable).create()?.publish(|degrees| *degrees = 20)?;
//! let mut convert = celsius.transform("convert").open()?;
//! let read = convert.step(Duration::from_secs(60), |degrees, _, out| out.publish(&kelvin, |to| *to = degrees + 273))?;
//! assert_eq!((read, convert.committed(0)), (Some(1), Some(1)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - Whatever crashes, each input event takes effect exactly once in the published events.
//! - Opening a name fences the earlier transform of that name, so two transforms never both commit.
//! - Other effects of the handler are repeated when a batch is read again.
//!
//! # Errors
//! [`TransformError`]: the handler failed, the input cannot be read, or the transaction was not committed. Then nothing
//! of the batch was published, unless the error says that the outcome is unknown.
//!
//! # Unlike Kafka
//! A Kafka Streams task with `exactly_once_v2` needs a transaction coordinator and markers; here a commit is one frame
//! and one sync. One transform reads all partitions; to share them among several members, use a [group](crate::group)
//! with [`Delivery::ExactlyOnce`](crate::group::Delivery::ExactlyOnce).

mod builder;
mod run;

pub use crate::log::offsets::transform::{TransformDescription, TransformPartition, TransformState};
pub use builder::TransformBuilder;
pub use run::{Outputs, TransformEnd, TransformRun};

use crate::base::clock::{Clock, Timestamp};
use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::wakeup::Wakeup;
use crate::log::catalog::state_kind;
use crate::log::committer::Committer;
use crate::log::gap::{Gap, GapReport, GapReportOutcome, OnGap, ReaderKind};
use crate::log::offsets::transform::reader_name;
use crate::log::partition_key::key;
use crate::produce::transaction::{FrameExtras, InputFailure, Transaction, TransactionError};
use crate::read::replay::{Replay, ReplayBuilder, ReplayError, ReplayWake};
use crate::read::{At, StartAt};
use crate::text;
use crate::topic::TopicCore;
use crate::topic::error::{ProducerError, PublishError, TopicError};
use slipring_journal::{FrameBuilder, PartitionId, Visible};
use slipring_ring::Multi;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The error of opening a transform, or of reading a batch and committing its output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransformError {
    /// A topic does not exist, or has other types.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The name is invalid, or a thread could not be started.
    #[error("transform {name:?}: {}", text::line(.cause))]
    Refused {
        /// The transform's name.
        name: String,
        /// Why, as text.
        cause: String,
    },
    /// The input cannot be read.
    #[error(transparent)]
    Input(#[from] ReplayError),
    /// The handler failed on this event. No output of its batch was published or committed; the batch is read again.
    #[error("transform {name:?} failed at {offset} of partition {partition}: {}", text::line(.cause))]
    Handler {
        /// The transform's name.
        name: String,
        /// The partition of the input event.
        partition: u32,
        /// The event's offset.
        offset: u64,
        /// The handler's error, as text.
        cause: String,
    },
    /// The output of this event alone is too large for one transaction. No output was published or committed.
    #[error(
        "transform {name:?} at {offset} of partition {partition}: what comes of this event alone is too much: {cause}"
    )]
    TooMuch {
        /// The transform's name.
        name: String,
        /// The partition of the input event.
        partition: u32,
        /// The event's offset.
        offset: u64,
        /// The error with the size and the limit, either of a partition of the output or of a frame of the journal.
        #[source]
        cause: Box<TransactionError>,
    },
    /// The handler panicked. No output of its batch was published or committed.
    #[error("transform {name:?} panicked: {}", text::line(.cause))]
    Panicked {
        /// The transform's name.
        name: String,
        /// The panic's message.
        cause: String,
    },
    /// The batch was not committed, for this reason.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
}

impl TransformError {
    /// True if the error only says that a topic of the transform was closed or halted, for example by a shutdown whose
    /// time limit has passed.
    fn is_an_end(&self) -> bool {
        let reason = match self {
            Self::Input(ReplayError::Closed { reason, .. })
            | Self::Transaction(TransactionError::Publish(PublishError::Closed { reason, .. }))
            | Self::Transaction(TransactionError::Producer(ProducerError::Closed { reason, .. }))
            | Self::Transaction(TransactionError::Late { reason, .. }) => reason,
            _ => return false,
        };
        matches!(reason, Closed::Closed | Closed::Halted | Closed::Cut)
    }
}

/// Reads a durable topic, and publishes the output of each batch in one frame with the next input offset. So each event
/// takes effect exactly once, whatever crashes in between.
///
/// ```
/// use slipring::{Engine, journal::simulated::SimulatedDisk, transaction::TransactionError};
/// use std::time::Duration;
/// # let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
/// let transfers = engine.topic::<[i64; 3]>("transfers").durable().create()?;
/// let accounts = engine.topic::<i64>("accounts").partitions(8).durable().create()?;
/// transfers.producer().create()?.publish(|transfer| *transfer = [1, 2, 50])?;
///
/// let mut bank = transfers.transform("bank").open()?;
/// bank.step(Duration::from_secs(5), |[from, to, amount], _, out| {
///     out.publish_to(&accounts, *from as u32, |change| *change = -amount)?;
///     out.publish_to(&accounts, *to as u32, |change| *change = *amount)
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Who may commit
/// Only the transform that was opened last under the name. An older one gets [`Fenced`](TransactionError::Fenced), and
/// none of its output is written. Names of transforms and names of groups are independent. One transform reads all
/// partitions; to share them among several members, use a group with
/// [`GroupBuilder::run_into`](crate::group::GroupBuilder::run_into) and
/// [`Delivery::ExactlyOnce`](crate::group::Delivery::ExactlyOnce).
///
/// # Progress
/// [`Engine::transforms`](crate::Engine::transforms) shows the progress within the program, `slipring group ls` that in
/// a journal's directory. `slipring group reset` moves a transform to other offsets while no program has the journal
/// open; the output of events that it reads again is published again.
///
/// # Other effects
/// Other effects of the handler than publishing are repeated when a batch is read again.
pub struct Transform<E: Send + Sync + 'static, K: Producers = Multi> {
    input: TransformInput<E, K>,
    holder: TransformHolder,
    transaction: Transaction,
    _opened: OpenTransform,
}

/// Marks the transform as closed when its handle is dropped.
struct OpenTransform(TransformHolder);

impl Drop for OpenTransform {
    fn drop(&mut self) {
        let TransformHolder { committer, at, epoch, .. } = &self.0;
        committer.transform_offsets.note_dropped(at, *epoch);
    }
}

/// The next offset to read, by partition.
type NextOffsets = BTreeMap<u32, u64>;

/// The right to commit under a transform's name, until a newer epoch takes it over.
#[derive(Clone)]
struct TransformHolder {
    committer: Arc<Committer>,
    topic: String,
    at: (String, u32),
    epoch: u64,
}

impl TransformHolder {
    fn fenced(&self) -> TransactionError {
        TransactionError::Fenced { name: self.at.0.clone(), topic: self.topic.clone() }
    }

    fn note(&self, state: TransformState) {
        self.committer.transform_offsets.note_state(&self.at, self.epoch, state);
    }

    fn is_held(&self) -> bool {
        self.committer.transform_offsets.is_held(&self.at, self.epoch)
    }

    /// Records in the journal that the gap (offsets lost to damage) was reported to this transform, and commits the
    /// offset after the gap as the next one to read.
    fn pass_gap(&self, offsets: &mut NextOffsets, gap: &Gap, now: Timestamp) -> Result<(), TransformError> {
        let (partition, end) = (gap.partition, gap.offsets.end);
        let of = PartitionId { topic: self.at.1, partition };
        let (kind, reader, time) = (ReaderKind::Transform, self.at.0.clone(), now.as_nanos());
        let told = GapReport { kind, reader, of, offsets: gap.offsets.clone(), time };
        let key = key(&self.at.0, PartitionId { topic: self.at.1, partition });
        let (committer, at, epoch) = (Arc::downgrade(&self.committer), self.at.clone(), self.epoch);
        let decide = move || {
            let next = NextOffsets::from([(partition, end)]);
            committer.upgrade().is_some_and(|it| it.transform_offsets.move_on(&at, epoch, next))
        };
        let put = |frame: &mut FrameBuilder| frame.put(state_kind::TRANSFORM_OFFSETS, &key, &end.to_le_bytes());
        match told.record(&self.committer, put, decide) {
            GapReportOutcome::Yes => {
                offsets.insert(partition, end);
                Ok(())
            }
            GapReportOutcome::Denied => Err(self.fenced().into()),
            GapReportOutcome::Not(cause) => Err(TransactionError::Refused { cause }.into()),
            GapReportOutcome::Unknown(cause) => Err(TransactionError::Unknown { cause }.into()),
        }
    }

    /// Publishes the events of the transaction, in one frame with the next input offsets.
    fn commit(&self, transaction: &mut Transaction, read: &NextOffsets) -> Result<(), TransactionError> {
        let put = |frame: &mut FrameBuilder| {
            for (partition, next) in read {
                let of = PartitionId { topic: self.at.1, partition: *partition };
                frame.put(state_kind::TRANSFORM_OFFSETS, &key(&self.at.0, of), &next.to_le_bytes());
            }
        };
        let decide = || -> Box<dyn FnOnce() -> bool + Send> {
            let (committer, at, epoch) = (Arc::downgrade(&self.committer), self.at.clone(), self.epoch);
            let read = read.clone();
            Box::new(move || committer.upgrade().is_some_and(|it| it.transform_offsets.move_on(&at, epoch, read)))
        };
        let committed = transaction.commit_with(&FrameExtras { put: &put, decide: &decide });
        if committed.is_err() && !self.is_held() {
            return Err(self.fenced());
        }
        committed.map(drop)
    }
}

/// Reads the input in batches, from the committed offsets on.
struct TransformInput<E: Send + Sync + 'static, K: Producers> {
    topic: Arc<TopicCore<E, K>>,
    name: String,
    /// The committed offset of each partition: the next one to read.
    offsets: NextOffsets,
    /// The offset at which reading begins in each partition that had no committed offset when the transform was opened
    /// at the latest events. Empty if it begins at the earliest records.
    starts: NextOffsets,
    batch: usize,
    on_gap: OnGap,
    /// The reader of the input, with the count of partitions for which it was opened. `None` before the first read, and
    /// after a failure.
    replay: Option<(usize, Replay<E, K>)>,
    /// The part of each such reader that the handles of other threads reach.
    outside: Arc<ReplayWake>,
}

/// The outcome of reading one batch.
struct BatchRead {
    /// Count of handled events.
    handled: usize,
    /// The partition that was read, and its next offset to commit. `None` if no event was handled.
    next: Option<(u32, u64)>,
    /// True if the output of the next event had no room in the transaction. That event is read again.
    is_cut: bool,
}

impl<E: Send + Sync + 'static, K: Producers> TransformInput<E, K> {
    fn open(&self) -> Result<(usize, Replay<E, K>), TransformError> {
        let journal = self.topic.durable.as_ref().map(|durable| (durable, durable.journal()));
        let partitions = self.topic.partitions().len();
        let from = (0..partitions as u32).map(|index| {
            let start = || Some(journal?.1.extent(journal?.0.id(index))?.start);
            self.offsets.get(&index).or(self.starts.get(&index)).copied().or_else(start).unwrap_or(0)
        });
        // Written events may be read before they are durable: in the journal they come before the frame of their
        // output, so they survive a crash if that frame does.
        let replay = ReplayBuilder::new(Arc::clone(&self.topic), reader_name(&self.name));
        let replay = replay.start(StartAt::Offsets(from.collect())).visible(Visible::Written).open_as_named()?;
        Ok((partitions, replay.woken_by(&self.outside)))
    }

    /// True if the next read continues at the reader's position. False if the input must be opened again at the
    /// committed offsets: at the start, after a failure, or because a partition was added.
    fn can_continue(&self) -> bool {
        let known = self.topic.count.load(Ordering::Acquire);
        self.replay.as_ref().is_some_and(|(partitions, _)| *partitions == known)
    }

    /// Waits at most `limit` for events, and calls `f` with the events of one batch, until one has no room in the
    /// transaction. `None` once the topic was closed and all events were read.
    fn read<X: Display>(
        &mut self,
        limit: Duration,
        transaction: &mut Transaction,
        mut f: impl FnMut(&E, At, &mut Transaction) -> Result<(), X>,
    ) -> Result<Option<BatchRead>, TransformError> {
        let can_continue = self.can_continue();
        // Taken out of `self`, so that after a failure or a panic reading begins again at the committed offsets.
        let (partitions, mut replay) = match self.replay.take() {
            Some(replay) if can_continue => replay,
            _ => self.open()?,
        };
        let (mut failed, mut handled, mut next) = (None, 0, None);
        let read = replay.read_part(limit, Some(self.batch), |event, at| {
            if failed.is_some() {
                return;
            }
            match transaction.take_in(|transaction| f(event, at, transaction)) {
                Ok(()) => (handled, next) = (handled + 1, Some((at.partition, at.offset + 1))),
                Err(failure) => failed = Some((at, failure)),
            }
        })?;
        let Some((at, failure)) = failed else {
            self.replay = Some((partitions, replay));
            return Ok(read.map(|_| BatchRead { handled, next, is_cut: false }));
        };
        let (name, partition, offset) = (self.name.clone(), at.partition, at.offset);
        match failure {
            InputFailure::Failed(cause) => {
                Err(TransformError::Handler { name, partition, offset, cause: cause.to_string() })
            }
            InputFailure::TooMuch { cause, alone: true } => {
                Err(TransformError::TooMuch { name, partition, offset, cause: Box::new(cause) })
            }
            InputFailure::TooMuch { .. } => {
                replay.continue_at(partition as usize, offset)?;
                self.replay = Some((partitions, replay));
                Ok(Some(BatchRead { handled, next, is_cut: true }))
            }
        }
    }
}

impl<E: Send + Sync + 'static, K: Producers> fmt::Debug for Transform<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transform {:?} of {:?}", self.input.name, self.holder.topic)
    }
}

impl<E: Send + Sync + 'static, K: Producers> Transform<E, K> {
    /// The committed offset of this partition, which is the next one to read; `None` if none is committed.
    pub fn committed(&self, partition: u32) -> Option<u64> {
        self.input.offsets.get(&partition).copied()
    }

    /// A handle by which another thread ends the present or the next wait of a [`step`](Self::step).
    pub fn wakeup(&self) -> Wakeup {
        Wakeup::new(&self.input.outside)
    }

    /// Reads one batch of one partition, calls `f` with its events, and commits their output together with the next
    /// offset. Waits for events for at most `limit`. Returns the count of handled events, which is 0 if none came or a
    /// [`Wakeup`] ended the wait, or `None` once the topic was closed and all events were read.
    ///
    /// Returns when the batch is durable. [`run`](Self::run) reads on meanwhile, so that several batches share a
    /// sync.
    ///
    /// If the output of the batch is too large for one transaction, the part that fits is committed, and the next call
    /// continues after that part.
    ///
    /// If it fails or panics, nothing is published or committed, and the next call reads these events again.
    ///
    /// # Errors
    /// `f` failed, the output of one event is too large for a transaction, the input cannot be read, or the transaction
    /// was not committed. Where events of the input were lost to damage, [`ReplayError::Gap`] names their offsets, once
    /// for the transform's name: the journal records that report, and the next call continues after the gap. With
    /// another [policy](TransformBuilder::on_gap) a gap is no error.
    pub fn step<X: Display>(
        &mut self,
        limit: Duration,
        mut f: impl FnMut(&E, At, &mut Transaction) -> Result<(), X>,
    ) -> Result<Option<usize>, TransformError> {
        let Self { input, holder, transaction, .. } = self;
        transaction.clear();
        if !holder.is_held() {
            // Dropping the reader frees its consumer's name in the rings, which the newer transform's reader needs.
            input.replay = None;
            return Err(holder.fenced().into());
        }
        let read = loop {
            match input.read(limit, transaction, &mut f) {
                Err(TransformError::Input(ReplayError::Gap(gap))) => {
                    holder.pass_gap(&mut input.offsets, &gap, input.topic.host.clock.wall())?;
                    input.on_gap.answer(gap).map_err(ReplayError::Gap)?;
                }
                read => break read?,
            }
        };
        let Some(BatchRead { handled, next, .. }) = read else { return Ok(None) };
        if let Some(next) = next {
            let replay = input.replay.take();
            let committed = holder.commit(transaction, &NextOffsets::from([next]));
            // A late transaction is in the journal, with this offset.
            if committed.as_ref().err().is_none_or(TransactionError::is_late) {
                input.offsets.insert(next.0, next.1);
            }
            committed?;
            input.replay = replay;
        }
        Ok(Some(handled))
    }
}
