//! Moving aside what a handler cannot handle: into a topic of the same type.

use crate::error::PublishError;
use crate::letter::Origin;
use crate::message::Message;
use crate::producer::{Producer, Producers};

/// Events that can be copied into a topic of dead letters: everything that is `Clone`, and
/// [`Message`](crate::Message)s, which then say where they come from: see [`DeadLetter`](crate::DeadLetter).
pub trait Bury: Send + Sync + Sized + 'static {
    /// Publishes a copy. Never waits for room.
    #[doc(hidden)]
    fn bury<K: Producers>(&self, producer: &mut Producer<Self, K>, grave: &Grave<'_>) -> Result<(), PublishError>;
}

/// Where an event stood and why it is moved aside.
#[doc(hidden)]
#[derive(Debug)]
pub struct Grave<'a>(pub(crate) Origin<'a>);

impl<E: Clone + Send + Sync + 'static> Bury for E {
    fn bury<K: Producers>(&self, producer: &mut Producer<Self, K>, _: &Grave<'_>) -> Result<(), PublishError> {
        producer.try_publish(|slot| slot.clone_from(self)).map(drop)
    }
}

impl Bury for Message {
    fn bury<K: Producers>(&self, producer: &mut Producer<Self, K>, grave: &Grave<'_>) -> Result<(), PublishError> {
        grave.0.with_record(self, |record| producer.try_send(record)).map(drop)
    }
}

type Put<E> = Box<dyn FnMut(&E, &Grave<'_>) -> Result<(), PublishError> + Send>;

/// A topic for dead letters, whatever its producers.
pub(crate) struct Graveyard<E> {
    put: Put<E>,
}

impl<E: Bury> Graveyard<E> {
    pub(crate) fn new<K: Producers>(mut producer: Producer<E, K>) -> Self {
        Self { put: Box::new(move |event, grave| event.bury(&mut producer, grave)) }
    }
}

impl<E> Graveyard<E> {
    pub(crate) fn put(&mut self, event: &E, origin: Origin<'_>) -> Result<(), PublishError> {
        (self.put)(event, &Grave(origin))
    }
}
