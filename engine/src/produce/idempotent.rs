//! Idempotent producers: named producers that publish each event once, however often it is sent.

use crate::base::kind::Producers;
use crate::base::level::Level;
use crate::event::message::Message;
use crate::event::record::Record;
use crate::log::committer::STAGE;
use crate::log::producers::{ProducerStamp, ProducerState, ProducerStates, WINDOW};
use crate::log::receipt::Receipt;
use crate::produce::{Producer, ProducerBuilder};
use crate::topic::TopicCore;
use crate::topic::durable::DurableTopic;
use crate::topic::error::{ProducerError, PublishError, check_name};
use crate::topic::identity::{ProducerIdentity, SequenceHistory};
use crate::topic::restore_names::is_forgotten;
use slipring_journal::FrameBuilder;
use slipring_ring::Multi;
use std::borrow::Borrow;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Greatest count of names of idempotent producers that a topic knows at a time.
pub const MAX_PRODUCER_NAMES: usize = 1024;
/// A producer with a name, whose events carry consecutive sequence numbers that the caller chooses: 7, 8, 9. If a
/// number was published before, its first receipt is returned and nothing is published. A number that would leave out
/// an unpublished one is refused. Opening a name fences all earlier producers of that name: they publish nothing any
/// more.
///
/// ```
/// use slipring::{Engine, producer::IdempotenceError};
/// # let engine = Engine::builder().build()?;
/// let orders = engine.topic::<u64>("orders").create()?;
/// let mut producer = orders.producer().idempotent("gateway-1")?;
/// let first = producer.publish(0, |order| *order = 42)?;
/// assert_eq!(producer.publish(0, |_| unreachable!())?, first);            // repeated: the first receipt
/// assert!(matches!(producer.publish(2, |_| ()), Err(IdempotenceError::Gap { expected: 1, .. })));
///
/// let mut successor = orders.producer().idempotent("gateway-1")?;         // for example after a restart
/// assert_eq!(successor.next_sequence(), Some(1));
/// assert!(matches!(producer.publish(1, |_| ()), Err(IdempotenceError::Fenced { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is kept
/// The topic knows up to [`MAX_PRODUCER_NAMES`] names, and the last [`KEPT_RECEIPTS`](crate::producer::KEPT_RECEIPTS)
/// receipts of each. A name that it does not know may begin with any sequence. When a new name is opened, names are
/// forgotten that no producer holds, that have not published for
/// [`PRODUCER_NAME_EXPIRY`](crate::producer::PRODUCER_NAME_EXPIRY), and whose last event is no longer kept.
///
/// # On a durable topic
/// Names outlive the process. An opening is durable before it is granted. The journal records a sequence in the same
/// frame as its event, so after a crash it knows exactly the sequences of the events that it has, and
/// [`resume`](Self::resume) returns where to continue. If an event was lost while a later one of another partition was
/// not, the lost one's sequence comes next, and the later one keeps its first receipt. The receipts of the last 128
/// sequences also outlive the process; of earlier sequences the journal knows only that they were published. A
/// duplicate is acknowledged when its first event has reached the [requested
/// level](crate::producer::ProducerBuilder::acknowledge).
///
/// With several partitions, a publish waits while 128 or more earlier sequences are not written yet.
///
/// # Memory
/// A name takes up to 20 KiB, mostly for receipts, so the names of a topic take up to 20 MiB. Names may fill half of
/// the state that each [segment](crate::journal::Options::segment_size) begins with: a journal has room for about 41
/// names per MiB of its segment size, for all topics together, which is 2,654 with segments of 64 MiB. The command
/// `slipring journal stat` and the function [`producer_names`](crate::journal::producer_names) return how many names a
/// journal has and how many it accepts. Open the same name at each start of a program: each new name takes room of its
/// own until it is forgotten.
pub struct IdempotentProducer<E, K: Producers = Multi> {
    producer: Producer<E, K>,
    identity: Arc<ProducerIdentity>,
    epoch: u64,
    level: Level,
}

/// The error of an idempotent publish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdempotenceError {
    /// The name was opened again, so this producer is fenced.
    #[error(
        "producer {producer:?} of topic {topic:?} was opened again (epoch {current}, this is {epoch}): stop here, or open it once more"
    )]
    Fenced {
        /// The topic's name.
        topic: String,
        /// The producer's name.
        producer: String,
        /// The epoch of this producer.
        epoch: u64,
        /// The epoch of the newest producer with this name.
        current: u64,
    },
    /// The sequence would leave out an earlier one that was never published.
    #[error(
        "producer {producer:?} of topic {topic:?} expects sequence {expected}, got {got}: send what lies between first"
    )]
    Gap {
        /// The topic's name.
        topic: String,
        /// The producer's name.
        producer: String,
        /// The sequence that must come next.
        expected: u64,
        /// The sequence that the caller sent.
        got: u64,
    },
    /// The sequence is `u64::MAX`, which none could follow.
    #[error("producer {producer:?} of topic {topic:?}: sequences end at {}, got {}", u64::MAX - 1, u64::MAX)]
    NoSequence {
        /// The topic's name.
        topic: String,
        /// The producer's name.
        producer: String,
    },
    /// The event was published before, so long ago that its receipt is no longer kept.
    #[error(
        "producer {producer:?} of topic {topic:?} published sequence {sequence} before, and it is there; its receipt is not kept any more, only those from {oldest} on: go on with the next"
    )]
    Forgotten {
        /// The topic's name.
        topic: String,
        /// The producer's name.
        producer: String,
        /// The sequence that the caller sent.
        sequence: u64,
        /// The oldest sequence whose receipt is kept.
        oldest: u64,
    },
    /// The call came from the code that publishes another event under this name, such as the closure that fills that
    /// event.
    #[error(
        "producer {producer:?} of topic {topic:?} got sequence {sequence} while this thread publishes another one: publish it when that has returned"
    )]
    Nested {
        /// The topic's name.
        topic: String,
        /// The producer's name.
        producer: String,
        /// The sequence that the caller sent.
        sequence: u64,
    },
    /// The topic refused the event, or did not confirm the producer's level. The same sequence may be published again.
    #[error(transparent)]
    Refused(#[from] PublishError),
}

impl<E: Send + Sync + 'static, K: Producers> ProducerBuilder<E, K> {
    /// Creates an idempotent producer with a name, which publishes each event once however often it is sent. The
    /// settings of this builder apply. See [`IdempotentProducer`].
    ///
    /// # Errors
    /// The name is invalid, too many names are in use, or an error of [`create`](Self::create).
    pub fn idempotent(self, name: impl Into<String>) -> Result<IdempotentProducer<E, K>, ProducerError> {
        let (topic, level) = (Arc::clone(&self.topic), self.level);
        IdempotentProducer::open(self.create()?, &topic, name.into(), level)
    }
}

impl<E: Send + Sync + 'static, K: Producers> IdempotentProducer<E, K> {
    fn open(
        mut producer: Producer<E, K>,
        topic: &TopicCore<E, K>,
        name: String,
        level: Level,
    ) -> Result<Self, ProducerError> {
        check_name(&name).map_err(|_| ProducerError::Name { topic: topic.name.clone(), name: name.clone() })?;
        let refused = |cause| ProducerError::Journal { topic: topic.name.clone(), name: name.clone(), cause };
        topic.may_wait().map_err(refused)?;
        // Read before the lock is taken, because the clock is user code.
        let now = topic.host.clock.now();
        let mut known = topic.identities.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = Vec::new();
        if !known.contains_key(&name) {
            gone.extend(
                known
                    .extract_if(|_, identity: &mut Arc<ProducerIdentity>| is_forgotten(identity, topic, now))
                    .map(|(_, identity)| identity),
            );
            let of_journal = topic.durable.as_ref().map_or(usize::MAX, |durable| {
                let others = durable.committer.producer_states.len() - gone.len() - known.len();
                let (state, frame) = (durable.committer.state_limit(), durable.journal().frame_limit());
                ProducerStates::limit(state, frame).saturating_sub(others)
            });
            let limit = MAX_PRODUCER_NAMES.min(of_journal);
            if known.len() >= limit {
                known.extend(gone.into_iter().map(|identity| (identity.name.clone(), identity)));
                return Err(ProducerError::TooManyNames { topic: topic.name.clone(), name, limit });
            }
        }
        let make = || {
            let history = SequenceHistory { used: now, ..SequenceHistory::default() };
            let add = |durable: &DurableTopic<E>| durable.committer.producer_states.add(durable.id(0).topic, &name);
            let producer_state = topic.durable.as_deref().map(add);
            ProducerIdentity::new(name.clone(), 0, history, producer_state)
        };
        let identity = Arc::clone(known.entry(name.clone()).or_insert_with(make));
        let epoch = identity.epoch.load(Ordering::Acquire).saturating_add(1);
        if let (Some(durable), Some(producer_state)) = (&topic.durable, &identity.producer_state) {
            let mut frame = FrameBuilder::new();
            for producer_state in gone.iter().filter_map(|gone| gone.producer_state.as_ref()) {
                producer_state.forget(&mut frame);
                durable.committer.producer_states.remove(producer_state);
            }
            producer_state.put_epoch(&mut frame, epoch);
            let committed = durable.committer.commit([frame]);
            committed.map_err(|cause| ProducerError::Journal { topic: topic.name.clone(), name, cause })?;
            producer.note();
        }
        // From now on earlier producers of this name are fenced. The lock prevents other openings in this topic
        // meanwhile.
        identity.epoch.store(epoch, Ordering::Release);
        Ok(Self { producer, identity, epoch, level })
    }
}

impl<E, K: Producers> IdempotentProducer<E, K> {
    /// The producer's name.
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// The producer's epoch: how often the name has been opened, this opening included.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The last sequence of which it is known that all sequences up to it were published; `None` if none was published
    /// under this name. On a durable topic this outlives the process.
    ///
    /// ```
    /// use slipring::{Engine, Level, journal::simulated::SimulatedDisk};
    /// let disk = SimulatedDisk::new();
    /// for first in [0, 3] {
    ///     let engine = Engine::builder().journal_in(disk.clone()).build()?;
    ///     let orders = engine.topic::<u64>("orders").durable().create()?;
    ///     let mut producer = orders.producer().acknowledge(Level::Durable).idempotent("gateway-1")?;
    ///     assert_eq!(producer.resume(), u64::checked_sub(first, 1));
    ///     for sequence in first..first + 3 {
    ///         producer.publish(sequence, |order| *order = sequence)?;
    ///     }
    ///     drop((producer, orders));
    ///     engine.shutdown(std::time::Duration::from_secs(5));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume(&self) -> Option<u64> {
        self.next_sequence()?.checked_sub(1)
    }

    /// The sequence that must be published next; `None` if none was published under this name, so that the first may be
    /// any.
    pub fn next_sequence(&self) -> Option<u64> {
        self.identity.next()
    }

    /// Fills the next event and publishes it as `sequence`, as [`Producer::publish`] does. If that sequence was
    /// published before, returns its first receipt.
    ///
    /// # Errors
    /// See [`IdempotenceError`]. The event was not published, except with [`Forgotten`](IdempotenceError::Forgotten),
    /// or if the level was not confirmed ([`PublishError::Unknown`]).
    pub fn publish(&mut self, sequence: u64, fill: impl FnOnce(&mut E)) -> Result<Receipt, IdempotenceError> {
        self.once(sequence, |producer| producer.publish(fill))
    }

    /// As [`publish`](Self::publish), in the partition of `key`: see [`Producer::publish_key`].
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish).
    pub fn publish_key(
        &mut self,
        sequence: u64,
        key: &[u8],
        fill: impl FnOnce(&mut E),
    ) -> Result<Receipt, IdempotenceError> {
        self.once(sequence, |producer| producer.publish_key(key, fill))
    }

    /// As [`publish`](Self::publish), in this partition: see [`Producer::publish_to`].
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish).
    pub fn publish_to(
        &mut self,
        sequence: u64,
        partition: u32,
        fill: impl FnOnce(&mut E),
    ) -> Result<Receipt, IdempotenceError> {
        self.once(sequence, |producer| producer.publish_to(partition, fill))
    }

    fn once(
        &mut self,
        sequence: u64,
        publish: impl FnOnce(&mut Producer<E, K>) -> Result<Receipt, PublishError>,
    ) -> Result<Receipt, IdempotenceError> {
        let Self { producer, identity, epoch, level } = self;
        let receipt = identity.once(producer, *epoch, sequence, publish)?;
        if *level > Level::Published && !receipt.is_dropped() {
            return Ok(producer.acknowledged_as(receipt, *level)?);
        }
        Ok(receipt)
    }
}

impl ProducerIdentity {
    /// Calls `publish` for the event, unless its sequence was published before: then returns the first receipt.
    fn once<E, K: Producers>(
        &self,
        producer: &mut Producer<E, K>,
        epoch: u64,
        sequence: u64,
        publish: impl FnOnce(&mut Producer<E, K>) -> Result<Receipt, PublishError>,
    ) -> Result<Receipt, IdempotenceError> {
        let names = |topic: &TopicCore<E, K>| (topic.name.clone(), self.name.clone());
        let Some(mut history) = self.history() else {
            let (topic, producer) = names(producer.topic());
            return Err(IdempotenceError::Nested { topic, producer, sequence });
        };
        let current = self.epoch.load(Ordering::Acquire);
        if current != epoch && !no_epoch_check(producer.topic()) {
            let (topic, producer) = names(producer.topic());
            return Err(IdempotenceError::Fenced { topic, producer, epoch, current });
        }
        if sequence == u64::MAX {
            let (topic, producer) = names(producer.topic());
            return Err(IdempotenceError::NoSequence { topic, producer });
        }
        let expected = history.next.unwrap_or(sequence);
        if sequence > expected {
            let (topic, producer) = names(producer.topic());
            return Err(IdempotenceError::Gap { topic, producer, expected, got: sequence });
        }
        let id = producer.topic().id;
        if sequence < expected {
            let back = expected - sequence;
            let place = (history.receipts.len() as u64).checked_sub(back);
            return match place.and_then(|place| history.receipts.get(place as usize)) {
                Some(&(partition, offset)) => Ok(Receipt::new(id, partition, offset)),
                None => {
                    let oldest = expected - history.receipts.len() as u64;
                    let (topic, producer) = names(producer.topic());
                    Err(IdempotenceError::Forgotten { topic, producer, sequence, oldest })
                }
            };
        }
        if let Some((partition, offset)) = history.apart.remove(&sequence) {
            self.note(&mut history, sequence, (partition, offset));
            return Ok(Receipt::new(id, partition, offset));
        }
        if let Some(producer_state) = &self.producer_state {
            if history.next.is_none() {
                producer_state.begin(sequence);
            }
            wait_for_the_journal(producer_state, sequence, producer.topic())?;
            producer.stamp(ProducerStamp { producer: producer_state.number, sequence });
        }
        let receipt = publish(producer)?;
        history.used = producer.topic().host.clock.now();
        if !receipt.is_dropped() {
            self.note(&mut history, sequence, (receipt.partition, receipt.offset));
        }
        Ok(receipt)
    }

    fn note(&self, history: &mut SequenceHistory, sequence: u64, receipt: (u32, u64)) {
        history.note(sequence, receipt);
        self.next.store(sequence + 1, Ordering::Release);
        self.has_next.store(true, Ordering::Release);
    }
}

/// True if a test has switched off the fencing of earlier producers.
fn no_epoch_check<E, K: Producers>(topic: &TopicCore<E, K>) -> bool {
    topic.durable.as_ref().is_some_and(|durable| durable.journal().sabotage().no_epoch_check)
}

/// Waits until fewer than [`WINDOW`] earlier sequences are unwritten. Returns at once if the topic has one partition,
/// whose events the journal writes in order.
fn wait_for_the_journal<E, K: Producers>(
    producer_state: &ProducerState,
    sequence: u64,
    topic: &TopicCore<E, K>,
) -> Result<(), PublishError> {
    let Some(durable) = topic.durable.as_ref().filter(|_| topic.count.load(Ordering::Acquire) > 1) else {
        return Ok(());
    };
    let notifier = &durable.committer.notifier;
    let is_near = || {
        let next = producer_state.window().next.unwrap_or(sequence);
        (sequence.saturating_sub(next) < WINDOW || notifier.end_cause().is_some()).then_some(())
    };
    while notifier.wait(Some(Instant::now() + CHECK_EVERY), is_near).is_none() {
        // The publish that follows returns the topic's error.
        if topic.closed().is_some() {
            break;
        }
        if notifier.is_own_thread() {
            let (topic, consumer) = (topic.name.clone(), STAGE.to_owned());
            return Err(PublishError::OwnConsumer { topic, partition: 0, consumer });
        }
    }
    Ok(())
}

/// The time between two checks by which a publish that waits for the journal finds out that the topic has ended.
const CHECK_EVERY: Duration = Duration::from_millis(50);

impl<K: Producers> IdempotentProducer<Message, K> {
    /// Copies a record into the next slot and publishes it as `sequence`, as [`Producer::send`] does. If that sequence
    /// was published before, returns its first receipt.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish).
    pub fn send<'r>(&mut self, sequence: u64, record: impl Borrow<Record<'r>>) -> Result<Receipt, IdempotenceError> {
        self.once(sequence, |producer| {
            producer.refuse_id(record.borrow())?;
            producer.send(record)
        })
    }
}

impl<E, K: Producers> fmt::Debug for IdempotentProducer<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} as {:?}, epoch {}", self.producer, self.identity.name, self.epoch)
    }
}
