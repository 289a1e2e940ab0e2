//! Publishing into a topic.

use crate::error::PublishError;
use crate::topic::{Inner, TopicId};
use slipring_ring::{Builder, Kind, Multi, Sequences, Wait};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// [`Single`](crate::Single) or [`Multi`]: whether a topic has one producer or any number.
pub trait Producers: Kind {
    #[doc(hidden)]
    const SINGLE: bool;

    #[doc(hidden)]
    fn builder<E: Send + Sync + 'static>(capacity: usize, make: impl FnMut() -> E + 'static) -> Builder<E, Self>;

    /// The producer to lend: the only one, or a clone.
    #[doc(hidden)]
    fn take<E>(spare: &mut Option<slipring_ring::Producer<E, Self>>) -> Option<slipring_ring::Producer<E, Self>>;
}

/// Where an event was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The topic: see [`Topic::id`](crate::Topic::id).
    pub topic: TopicId,
    /// The partition.
    pub partition: u32,
    /// The event's offset in it.
    pub offset: u64,
}

/// Publishes events of type `E` into one topic. They are written in place: nothing is allocated or moved.
///
/// | form | when the topic is full |
/// |---|---|
/// | [`publish`](Self::publish), [`publish_batch`](Self::publish_batch) | waits, as [`set_wait`](Self::set_wait) said |
/// | [`try_publish`](Self::try_publish) | error at once |
/// | [`publish_until`](Self::publish_until) | waits until a deadline, then an error that names the slowest subscriber |
///
/// Each is an error once the topic is closed or a subscriber failed. A slot holds the event that was there one
/// capacity ago: overwrite all that matters.
pub struct Producer<E, K: Producers = Multi> {
    topic: Arc<Inner<E, K>>,
    /// Always there until the drop.
    ring: Option<slipring_ring::Producer<E, K>>,
}

impl<E, K: Producers> Producer<E, K> {
    pub(crate) fn lend(topic: &Arc<Inner<E, K>>) -> Option<Self> {
        let ring = K::take(&mut topic.spare.lock().unwrap_or_else(PoisonError::into_inner))?;
        topic.lent.fetch_add(1, Ordering::AcqRel);
        Some(Self { topic: Arc::clone(topic), ring: Some(ring) })
    }

    #[inline(always)]
    fn ring(&mut self) -> &mut slipring_ring::Producer<E, K> {
        self.ring.as_mut().expect("taken out by the drop only")
    }

    #[inline(always)]
    fn receipt(&self, offset: u64) -> Receipt {
        Receipt { topic: self.topic.id, partition: 0, offset }
    }

    /// How this producer waits while the topic is full.
    pub fn set_wait(&mut self, wait: Wait) {
        self.ring().set_wait(wait);
    }

    /// Fills the next event and publishes it; waits while the topic is full.
    ///
    /// If `fill` panics, no subscriber ever sees what it left, and the topic goes on.
    ///
    /// # Errors
    /// The topic is closed.
    #[inline]
    pub fn publish(&mut self, fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        match self.ring().publish(fill) {
            Ok(sequence) => Ok(self.receipt(sequence.0)),
            Err(closed) => Err(PublishError::new(&self.topic.name, closed)),
        }
    }

    /// The same, but an error if the topic is full.
    ///
    /// # Errors
    /// The topic is full or closed.
    #[inline]
    pub fn try_publish(&mut self, fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        match self.ring().try_publish(fill) {
            Ok(sequence) => Ok(self.receipt(sequence.0)),
            Err(refused) => Err(PublishError::new(&self.topic.name, refused)),
        }
    }

    /// The same, but waits no longer than until `deadline`.
    ///
    /// # Errors
    /// The topic was full until then, or is closed.
    pub fn publish_until(&mut self, deadline: Instant, fill: impl FnOnce(&mut E)) -> Result<Receipt, PublishError> {
        match self.ring().publish_until(deadline, fill) {
            Ok(sequence) => Ok(self.receipt(sequence.0)),
            Err(refused) => Err(PublishError::new(&self.topic.name, refused)),
        }
    }

    /// Fills `len` events and publishes them together; waits until there is room for all. Returns the first offset
    /// and the number.
    ///
    /// # Errors
    /// `len` is 0 or never fits, or the topic is closed. Nothing is published then.
    #[inline]
    pub fn publish_batch(&mut self, len: usize, fill: impl FnMut(usize, &mut E)) -> Result<Sequences, PublishError> {
        match self.ring().publish_batch(len, fill) {
            Ok(sequences) => Ok(sequences),
            Err(refused) => Err(PublishError::new(&self.topic.name, refused)),
        }
    }
}

impl<E, K: Producers> fmt::Debug for Producer<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer of {:?}", self.topic.name)
    }
}

impl<E> Clone for Producer<E, Multi> {
    fn clone(&self) -> Self {
        self.topic.lent.fetch_add(1, Ordering::AcqRel);
        Self { topic: Arc::clone(&self.topic), ring: self.ring.clone() }
    }
}

impl<E, K: Producers> Drop for Producer<E, K> {
    fn drop(&mut self) {
        let ring = self.ring.take();
        if K::SINGLE {
            *self.topic.spare.lock().unwrap_or_else(PoisonError::into_inner) = ring;
        }
        self.topic.lent.fetch_sub(1, Ordering::AcqRel);
    }
}
