//! Exactly once: reading a durable topic, and publishing what comes of it in the same frame as how far it was read.

use crate::durable::what;
use crate::error::{SubscribeError, TopicError, check_name};
use crate::journal::Visible;
use crate::message::Message;
use crate::producer::Producers;
use crate::record::Record;
use crate::replay::{Replay, ReplayBuilder, ReplayError};
use crate::subscriber::{At, StartAt};
use crate::threads::{StartError, caught};
use crate::topic::{Inner, Topic};
use crate::transaction::{Along, Transaction, TransactionError};
use slipring_ring::Multi;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where the transforms of an engine stand, and who may move them on. Never held while anybody waits for the journal.
#[derive(Default)]
pub(crate) struct Standings {
    /// By name and the topic's number in the journal.
    list: Mutex<BTreeMap<(String, u32), Standing>>,
}

struct Standing {
    /// Of whoever opened it last.
    epoch: u64,
    /// By partition.
    offsets: BTreeMap<u32, u64>,
}

impl Standings {
    fn list(&self) -> MutexGuard<'_, BTreeMap<(String, u32), Standing>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fences whoever had it before. `recorded` is what the journal had when it was opened.
    fn take_over(&self, at: (String, u32), recorded: BTreeMap<u32, u64>) -> (u64, BTreeMap<u32, u64>) {
        let mut list = self.list();
        let standing = list.entry(at).or_insert(Standing { epoch: 0, offsets: recorded });
        standing.epoch += 1;
        (standing.epoch, standing.offsets.clone())
    }

    /// False, and nothing moves, if another one has taken over.
    fn move_on(&self, at: &(String, u32), epoch: u64, partition: u32, to: u64) -> bool {
        match self.list().get_mut(at) {
            Some(standing) if standing.epoch == epoch => {
                standing.offsets.insert(partition, to);
                true
            }
            _ => false,
        }
    }

    fn is_held(&self, at: &(String, u32), epoch: u64) -> bool {
        self.list().get(at).is_some_and(|standing| standing.epoch == epoch)
    }
}

/// What it is called among the consumers of its input.
fn reader_name(name: &str) -> String {
    format!("transform.{name}")
}

/// Keys of [`what::TRANSFORMS`]; a value is the next offset.
fn key(name: &str, topic: u32, partition: u32) -> Vec<u8> {
    [&topic.to_le_bytes()[..], &partition.to_le_bytes(), name.as_bytes()].concat()
}

fn partition_of(key: &[u8], name: &str, topic: u32) -> Option<u32> {
    let (number, rest) = key.split_first_chunk()?;
    let (partition, known) = rest.split_first_chunk()?;
    (u32::from_le_bytes(*number) == topic && known == name.as_bytes()).then(|| u32::from_le_bytes(*partition))
}

/// A transform cannot begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransformError {
    /// A topic is not there, or is another one.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The name is no name, or no thread could be started.
    #[error("transform {name:?}: {cause}")]
    Refused {
        /// The name.
        name: String,
        /// Why.
        cause: String,
    },
    /// The input cannot be read.
    #[error(transparent)]
    Input(#[from] ReplayError),
    /// The handler failed on this event. Nothing of its batch was published or committed: it is read again.
    #[error("transform {name:?} failed at {offset} of partition {partition}: {cause}")]
    Handler {
        /// The name.
        name: String,
        /// The input's partition.
        partition: u32,
        /// The event's offset.
        offset: u64,
        /// What the handler said.
        cause: String,
    },
    /// The handler panicked. Nothing of its batch was published or committed.
    #[error("transform {name:?} panicked: {cause}")]
    Panicked {
        /// The name.
        name: String,
        /// What it said.
        cause: String,
    },
    /// The batch was not committed.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
}

/// Settings of a [`Transform`].
pub struct TransformBuilder<E, K: Producers = Multi> {
    topic: Arc<Inner<E, K>>,
    name: String,
    batch: usize,
    latest: bool,
    patience: Duration,
}

impl<E: Send + Sync + 'static, K: Producers> TransformBuilder<E, K> {
    pub(crate) fn new(topic: Arc<Inner<E, K>>, name: String) -> Self {
        Self { topic, name, batch: 256, latest: false, patience: Duration::from_secs(30) }
    }

    /// The most events of one transaction; 256 unless told.
    pub fn batch(mut self, events: usize) -> Self {
        self.batch = events.max(1);
        self
    }

    /// Begins with what comes, in partitions where the name has committed nothing yet; else with the earliest event that
    /// the journal keeps.
    pub fn latest(mut self) -> Self {
        self.latest = true;
        self
    }

    /// How long a commit waits for room in its outputs; 30 seconds unless told.
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// Opens it, and fences whoever has the same name on this topic.
    ///
    /// # Errors
    /// The topic is not durable, or the name is no name.
    pub fn open(self) -> Result<Transform<E, K>, TransformError> {
        let Self { topic, name, batch, latest, patience } = self;
        let Some(durable) = &topic.durable else {
            return Err(ReplayError::NotDurable { topic: topic.name.clone() }.into());
        };
        let refused = |cause: String| TransformError::Refused { name: name.clone(), cause };
        check_name(&reader_name(&name)).map_err(|cause| refused(SubscribeError::Name(cause).to_string()))?;
        let journaling = &durable.journaling;
        let at = (name.clone(), durable.id(0).topic);
        let recorded = {
            let state = journaling.catalogue();
            let known = state.values(what::TRANSFORMS).filter_map(|(key, value)| {
                Some((partition_of(key, &name, at.1)?, u64::from_le_bytes(value.try_into().ok()?)))
            });
            known.collect()
        };
        let (epoch, mut offsets) = journaling.standings.take_over(at.clone(), recorded);
        if latest {
            for partition in topic.partitions().iter() {
                let next = partition.ring.positions().published.0;
                offsets.entry(partition.index).or_insert(next);
            }
        }
        let mut transaction = Transaction::new(Arc::clone(journaling));
        transaction.patience(patience);
        Ok(Transform { topic, at, epoch, offsets, batch, transaction, input: None })
    }
}

/// Reads a durable topic, and publishes what comes of each batch in one frame with how far it was read: each event counts
/// exactly once, whatever crashes between.
///
/// ```
/// use slipring::{Engine, TransactionError, journal::simulated::SimulatedDisk};
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
/// Whoever opened the name last: an older one gets [`Fenced`](TransactionError::Fenced), and nothing of it is written. Names
/// of transforms have nothing to do with names of groups.
///
/// # What does not count
/// What the handler does besides publishing is done again when a batch is read again.
pub struct Transform<E: Send + Sync + 'static, K: Producers = Multi> {
    topic: Arc<Inner<E, K>>,
    at: (String, u32),
    epoch: u64,
    /// The next offset of each partition that is not committed.
    offsets: BTreeMap<u32, u64>,
    batch: usize,
    transaction: Transaction,
    /// Stands where `offsets` says; none after a failure.
    input: Option<(usize, Replay<E, K>)>,
}

impl<E: Send + Sync + 'static, K: Producers> fmt::Debug for Transform<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transform {:?} of {:?}", self.at.0, self.topic.name)
    }
}

impl<E: Send + Sync + 'static, K: Producers> Transform<E, K> {
    fn fenced(&self) -> TransactionError {
        TransactionError::Fenced { name: self.at.0.clone(), topic: self.topic.name.clone() }
    }

    /// The next offset of a partition that is not committed; none if nothing is.
    pub fn committed(&self, partition: u32) -> Option<u64> {
        self.offsets.get(&partition).copied()
    }

    fn open_input(&self) -> Result<(usize, Replay<E, K>), TransformError> {
        let journal = self.topic.durable.as_ref().map(|durable| (durable, durable.journal()));
        let partitions = self.topic.partitions().len();
        let from = (0..partitions as u32).map(|index| {
            let start = || Some(journal?.1.extent(journal?.0.id(index))?.start);
            self.offsets.get(&index).copied().or_else(start).unwrap_or(0)
        });
        // One journal: what is written before a frame survives whatever that survives.
        let input = ReplayBuilder::new(Arc::clone(&self.topic), reader_name(&self.at.0));
        let input = input.start(StartAt::Offsets(from.collect())).visible(Visible::Written).open()?;
        Ok((partitions, input))
    }

    /// Reads one batch, of one partition, hands its events to `f`, and commits what that published together with how far
    /// was read. Waits no longer than `limit` for events. Returns how many it were; none once the topic was closed and all
    /// was read.
    ///
    /// If it fails or panics nothing is published or committed, and the next call reads the same events again.
    ///
    /// # Errors
    /// `f` failed, the input cannot be read, or the transaction was not committed.
    pub fn step<X: Display>(
        &mut self,
        limit: Duration,
        mut f: impl FnMut(&E, At, &mut Transaction) -> Result<(), X>,
    ) -> Result<Option<usize>, TransformError> {
        self.transaction.clear();
        let Some(durable) = &self.topic.durable else { return Ok(None) };
        let journaling = Arc::clone(&durable.journaling);
        if !journaling.standings.is_held(&self.at, self.epoch) {
            return Err(self.fenced().into());
        }
        let known = self.topic.count.load(Ordering::Acquire);
        // Taken out: what fails or panics begins anew, at what is committed.
        let (partitions, mut input) = match self.input.take() {
            Some(input) if input.0 == known => input,
            _ => self.open_input()?,
        };
        let (mut failed, mut last) = (None, None);
        let transaction = &mut self.transaction;
        let read = input.read_part(limit, Some(self.batch), |event, at| {
            if failed.is_none() {
                failed = f(event, at, transaction).err().map(|cause| (at, cause.to_string()));
                last = Some(at);
            }
        })?;
        if let Some((at, cause)) = failed {
            let name = self.at.0.clone();
            return Err(TransformError::Handler { name, partition: at.partition, offset: at.offset, cause });
        }
        if let Some(At { partition, offset, .. }) = last {
            let next = offset + 1;
            let key = key(&self.at.0, self.at.1, partition);
            let put = |frame: &mut crate::journal::FrameBuilder| frame.put(what::TRANSFORMS, &key, &next.to_le_bytes());
            let decide = || -> Box<dyn FnOnce() -> bool + Send> {
                let (journaling, at, epoch) = (Arc::downgrade(&journaling), self.at.clone(), self.epoch);
                Box::new(move || {
                    journaling.upgrade().is_some_and(|it| it.standings.move_on(&at, epoch, partition, next))
                })
            };
            let committed = self.transaction.commit_along(&Along { put: &put, decide: &decide });
            if committed.is_err() && !journaling.standings.is_held(&self.at, self.epoch) {
                return Err(self.fenced().into());
            }
            committed?;
            self.offsets.insert(partition, next);
        }
        self.input = Some((partitions, input));
        Ok(read)
    }

    /// Does so on a thread of its own, with `output` at hand, until the input was closed and is read, or something fails.
    /// A commit that finds no room is tried again.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn run<O: Send + Sync + 'static, P: Producers, X: Display>(
        mut self,
        output: Topic<O, P>,
        mut f: impl FnMut(&E, At, &mut Outputs<'_, O, P>) -> Result<(), X> + Send + 'static,
    ) -> Result<TransformRun, TransformError> {
        let run = TransformRun::default();
        let told = run.clone();
        let (running, threads) = (run.clone(), self.topic.threads.clone());
        let (thread, name) = (self.at.0.clone(), self.at.0.clone());
        let life = move |()| {
            let mut life = move || loop {
                if told.shared.stopped.load(Ordering::Acquire) {
                    return TransformEnd::Stopped;
                }
                let step = self
                    .step(LOOK, |event, at, transaction| f(event, at, &mut Outputs { transaction, topic: &output }));
                match step {
                    Ok(Some(_)) => {}
                    Ok(None) => return TransformEnd::Finished,
                    Err(TransformError::Transaction(refused)) if refused.is_full() => {}
                    Err(refused) => return TransformEnd::Failed(Arc::new(refused)),
                }
            };
            let end = caught(&mut life)
                .unwrap_or_else(|cause| TransformEnd::Failed(Arc::new(TransformError::Panicked { name, cause })));
            // Its own clean-up may panic.
            let _ = caught(move || drop(life));
            running.end(end);
        };
        threads.start(&thread, None, || (), life).map_err(|cause| TransformError::Refused {
            name: thread.clone(),
            cause: match cause {
                StartError::Pin(cause) => cause.to_string(),
                StartError::Thread(cause) => cause.to_string(),
                StartError::Panicked(cause) => cause,
            },
        })?;
        Ok(run)
    }
}

/// How often a thread looks whether it was stopped.
const LOOK: Duration = Duration::from_millis(50);

/// What a [managed transform](Transform::run) publishes into.
#[derive(Debug)]
pub struct Outputs<'t, O: Send + Sync + 'static, P: Producers = Multi> {
    transaction: &'t mut Transaction,
    topic: &'t Topic<O, P>,
}

impl<O: Send + Sync + 'static, P: Producers> Outputs<'_, O, P> {
    /// An event without a key.
    ///
    /// # Errors
    /// As [`Transaction::publish`].
    pub fn publish(&mut self, fill: impl FnOnce(&mut O)) -> Result<(), TransactionError> {
        self.transaction.publish(self.topic, fill)
    }

    /// An event that goes where its key belongs.
    ///
    /// # Errors
    /// As [`Transaction::publish`].
    pub fn publish_key(&mut self, key: &[u8], fill: impl FnOnce(&mut O)) -> Result<(), TransactionError> {
        self.transaction.publish_key(self.topic, key, fill)
    }

    /// An event for this partition.
    ///
    /// # Errors
    /// As [`Transaction::publish_to`].
    pub fn publish_to(&mut self, partition: u32, fill: impl FnOnce(&mut O)) -> Result<(), TransactionError> {
        self.transaction.publish_to(self.topic, partition, fill)
    }

    /// The whole transaction, for events of other topics.
    pub fn transaction(&mut self) -> &mut Transaction {
        self.transaction
    }
}

impl<P: Producers> Outputs<'_, Message, P> {
    /// A message.
    ///
    /// # Errors
    /// As [`Transaction::send`].
    pub fn send<'r>(&mut self, record: impl Borrow<Record<'r>>) -> Result<(), TransactionError> {
        self.transaction.send(self.topic, record)
    }
}

/// How a managed transform ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TransformEnd {
    /// The input was closed, and all of it is read and committed.
    Finished,
    /// It was told to stop.
    Stopped,
    /// It could not go on; what was committed stays.
    Failed(Arc<TransformError>),
}

/// A managed transform. Dropping this handle stops nothing.
#[derive(Clone, Default)]
pub struct TransformRun {
    shared: Arc<Running>,
}

#[derive(Default)]
struct Running {
    stopped: AtomicBool,
    ended: Mutex<Option<TransformEnd>>,
    told: Condvar,
}

impl fmt::Debug for TransformRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TransformRun").field(&self.ended()).finish()
    }
}

impl TransformRun {
    fn end(&self, end: TransformEnd) {
        *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        self.shared.told.notify_all();
    }

    /// Tells it to end after the batch that it is at. Does not wait for that.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
    }

    /// How it ended; none while it runs.
    pub fn ended(&self) -> Option<TransformEnd> {
        self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has ended. Not to be called by the handler.
    pub fn wait(&self) -> TransformEnd {
        let mut ended = self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(end) = &*ended {
                return end.clone();
            }
            ended = self.shared.told.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
