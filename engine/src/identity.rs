//! A producer with a name: each of its events is published once, however often it is sent.

use crate::error::{ProducerError, PublishError, check_name};
use crate::message::Message;
use crate::producer::{Producer, Producers};
use crate::receipt::Receipt;
use crate::record::Record;
use crate::topic::Inner;
use slipring_ring::Multi;
use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many names a topic knows at once.
pub const MAX_PRODUCER_NAMES: usize = 1024;
/// How many receipts are kept for each name, to answer duplicates with.
pub const KEPT_RECEIPTS: usize = 1024;
/// How long a name is known after its last publish, at least.
pub const PRODUCER_NAME_EXPIRY: Duration = Duration::from_secs(60 * 60);

/// A producer with a name, whose events bear a sequence of the caller's: 7, 8, 9. What was published already is answered
/// with its first receipt, and nothing is published again; what leaves a gap is refused. Whoever opens a name fences those
/// who had it before.
///
/// ```
/// use slipring::{Engine, IdempotenceError};
/// # let engine = Engine::builder().build()?;
/// let orders = engine.topic::<u64>("orders").create()?;
/// let mut producer = orders.producer().idempotent("gateway-1")?;
/// let first = producer.publish(0, |order| *order = 42)?;
/// assert_eq!(producer.publish(0, |_| unreachable!())?, first);            // sent again: the same receipt
/// assert!(matches!(producer.publish(2, |_| ()), Err(IdempotenceError::Gap { expected: 1, .. })));
///
/// let mut successor = orders.producer().idempotent("gateway-1")?;         // after a restart, say
/// assert_eq!(successor.next_sequence(), Some(1));
/// assert!(matches!(producer.publish(1, |_| ()), Err(IdempotenceError::Fenced { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is kept
/// In memory: the last [`KEPT_RECEIPTS`] receipts of each of up to [`MAX_PRODUCER_NAMES`] names of a topic. The first
/// sequence of a name that the topic does not know may be any. A name is forgotten, when another one is opened, if nobody
/// holds it, it has not published for [`PRODUCER_NAME_EXPIRY`], and its last event is not kept any more.
pub struct IdempotentProducer<E, K: Producers = Multi> {
    producer: Producer<E, K>,
    identity: Arc<Identity>,
    epoch: u64,
}

/// What a topic knows of a name.
pub(crate) struct Identity {
    name: String,
    /// Of whoever opened the name last. Beside the lock: a newcomer need not wait for one that waits for room.
    epoch: AtomicU64,
    history: Mutex<History>,
}

#[derive(Default)]
struct History {
    /// None before the first.
    next: Option<u64>,
    /// The receipts of the last sequences, up to `next`.
    receipts: VecDeque<(u32, u64)>,
    used: Duration,
}

/// The names that a topic knows.
pub(crate) type Identities = Mutex<HashMap<String, Arc<Identity>>>;

/// An event was not published under its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdempotenceError {
    /// Somebody else opened the name.
    #[error(
        "producer {producer:?} of topic {topic:?} was opened again (epoch {current}, this is {epoch}): stop here, or open it once more"
    )]
    Fenced {
        /// The topic.
        topic: String,
        /// The name.
        producer: String,
        /// The epoch of this producer.
        epoch: u64,
        /// The present one.
        current: u64,
    },
    /// Sequences before this one were never published.
    #[error(
        "producer {producer:?} of topic {topic:?} expects sequence {expected}, got {got}: send what lies between first"
    )]
    Gap {
        /// The topic.
        topic: String,
        /// The name.
        producer: String,
        /// The next sequence.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// It was published, so long ago that its receipt is not kept.
    #[error(
        "producer {producer:?} of topic {topic:?} published sequence {sequence} before; receipts are kept from {oldest} on"
    )]
    Forgotten {
        /// The topic.
        topic: String,
        /// The name.
        producer: String,
        /// What came.
        sequence: u64,
        /// The oldest sequence whose receipt is kept.
        oldest: u64,
    },
    /// The topic refused it. The same sequence may be sent again.
    #[error(transparent)]
    Refused(#[from] PublishError),
}

impl Identity {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: Send + Sync + 'static, K: Producers> IdempotentProducer<E, K> {
    pub(crate) fn open(producer: Producer<E, K>, topic: &Inner<E, K>, name: String) -> Result<Self, ProducerError> {
        check_name(&name).map_err(|_| ProducerError::Name { topic: topic.name.clone(), name: name.clone() })?;
        let mut known = topic.identities.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains_key(&name) {
            let now = topic.host.clock.now();
            known.retain(|_, identity| !is_forgotten(identity, topic, now));
            if known.len() >= MAX_PRODUCER_NAMES {
                let topic = topic.name.clone();
                return Err(ProducerError::TooManyNames { topic, name, limit: MAX_PRODUCER_NAMES });
            }
        }
        let make = || {
            let history = Mutex::new(History { used: topic.host.clock.now(), ..History::default() });
            Arc::new(Identity { name: name.clone(), epoch: AtomicU64::new(0), history })
        };
        let identity = Arc::clone(known.entry(name.clone()).or_insert_with(make));
        let epoch = identity.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        Ok(Self { producer, identity, epoch })
    }
}

/// Whether nothing of a name can matter to anybody.
fn is_forgotten<E, K: Producers>(identity: &Arc<Identity>, topic: &Inner<E, K>, now: Duration) -> bool {
    if Arc::strong_count(identity) > 1 {
        return false;
    }
    let history = identity.history();
    let is_kept = |&(partition, offset): &(u32, u64)| {
        let partitions = topic.partitions();
        let ring = partitions.get(partition as usize).map(|partition| &partition.ring);
        ring.is_some_and(|ring| slipring_ring::Sequence(offset).since(ring.positions().earliest) >= 0)
    };
    now.saturating_sub(history.used) >= PRODUCER_NAME_EXPIRY && !history.receipts.back().is_some_and(is_kept)
}

impl<E, K: Producers> IdempotentProducer<E, K> {
    /// The name.
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// How often the name was opened, up to this time.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The next sequence; none if nothing was published under this name, so that the first may be any.
    pub fn next_sequence(&self) -> Option<u64> {
        self.identity.history().next
    }

    /// Fills the next event and publishes it as `sequence`, as [`Producer::publish`]; or returns the receipt of when that
    /// was done before.
    ///
    /// # Errors
    /// See [`IdempotenceError`]. The event was not published then, but for [`Forgotten`](IdempotenceError::Forgotten).
    pub fn publish(&mut self, sequence: u64, fill: impl FnOnce(&mut E)) -> Result<Receipt, IdempotenceError> {
        self.once(sequence, |producer| producer.publish(fill))
    }

    fn once(
        &mut self,
        sequence: u64,
        publish: impl FnOnce(&mut Producer<E, K>) -> Result<Receipt, PublishError>,
    ) -> Result<Receipt, IdempotenceError> {
        let Self { producer, identity, epoch } = self;
        let names = |topic: &Inner<E, K>| (topic.name.clone(), identity.name.clone());
        let mut history = identity.history();
        let current = identity.epoch.load(Ordering::Acquire);
        if current != *epoch {
            let (topic, producer) = names(producer.topic());
            return Err(IdempotenceError::Fenced { topic, producer, epoch: *epoch, current });
        }
        let expected = history.next.unwrap_or(sequence);
        if sequence > expected {
            let (topic, producer) = names(producer.topic());
            return Err(IdempotenceError::Gap { topic, producer, expected, got: sequence });
        }
        if sequence < expected {
            let back = expected - sequence;
            let place = (history.receipts.len() as u64).checked_sub(back);
            return match place.and_then(|place| history.receipts.get(place as usize)) {
                Some(&(partition, offset)) => Ok(Receipt::new(producer.topic().id, partition, offset)),
                None => {
                    let oldest = expected - history.receipts.len() as u64;
                    let (topic, producer) = names(producer.topic());
                    Err(IdempotenceError::Forgotten { topic, producer, sequence, oldest })
                }
            };
        }
        let receipt = publish(producer)?;
        history.used = producer.topic().host.clock.now();
        if !receipt.is_dropped() {
            history.next = Some(sequence.wrapping_add(1));
            if history.receipts.len() == KEPT_RECEIPTS {
                history.receipts.pop_front();
            }
            history.receipts.push_back((receipt.partition, receipt.offset));
        }
        Ok(receipt)
    }
}

impl<K: Producers> IdempotentProducer<Message, K> {
    /// Sends a record as `sequence`, as [`Producer::send`]; or returns the receipt of when that was done before.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn send<'r>(&mut self, sequence: u64, record: impl Borrow<Record<'r>>) -> Result<Receipt, IdempotenceError> {
        self.once(sequence, |producer| producer.send(record))
    }
}

impl<E, K: Producers> fmt::Debug for IdempotentProducer<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} as {:?}, epoch {}", self.producer, self.identity.name, self.epoch)
    }
}
