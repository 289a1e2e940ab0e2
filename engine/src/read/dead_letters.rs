//! Copying events that a handler fails on into a dead-letter topic with events of the same type.

use crate::base::kind::Producers;
use crate::base::level::Level;
use crate::event::dead_letter::Origin;
use crate::event::message::Message;
use crate::log::receipt::Receipt;
use crate::produce::Producer;
use crate::produce::transaction::{Transaction, TransactionError};
use crate::topic::Topic;
use crate::topic::error::PublishError;

/// Events that can be copied to a dead-letter topic: every type that is `Clone`, and [`Message`](crate::Message). A
/// message also records its origin: see [`DeadLetter`](crate::dead_letter::DeadLetter).
pub trait ToDeadLetter: Send + Sync + Sized + 'static {
    /// Publishes a copy as a dead letter. Never waits for room: a full topic is an error.
    #[doc(hidden)]
    fn publish_dead_letter<K: Producers>(
        &self,
        producer: &mut Producer<Self, K>,
        origin: &DeadLetterOrigin<'_>,
    ) -> Result<Receipt, PublishError>;
    /// Adds a copy to a transaction, as a dead letter.
    #[doc(hidden)]
    fn publish_dead_letter_into<K: Producers>(
        &self,
        topic: &Topic<Self, K>,
        transaction: &mut Transaction,
        origin: &DeadLetterOrigin<'_>,
    ) -> Result<(), TransactionError>;
}

/// The origin of a dead letter: topic, partition, offset, consumer, attempts and reason.
#[doc(hidden)]
#[derive(Debug)]
pub struct DeadLetterOrigin<'a>(pub(crate) Origin<'a>);

impl<E: Clone + Send + Sync + 'static> ToDeadLetter for E {
    fn publish_dead_letter<K: Producers>(
        &self,
        producer: &mut Producer<Self, K>,
        _: &DeadLetterOrigin<'_>,
    ) -> Result<Receipt, PublishError> {
        producer.try_publish(|slot| slot.clone_from(self))
    }

    fn publish_dead_letter_into<K: Producers>(
        &self,
        topic: &Topic<Self, K>,
        transaction: &mut Transaction,
        _: &DeadLetterOrigin<'_>,
    ) -> Result<(), TransactionError> {
        transaction.publish(topic, |slot| slot.clone_from(self))
    }
}

impl ToDeadLetter for Message {
    fn publish_dead_letter<K: Producers>(
        &self,
        producer: &mut Producer<Self, K>,
        origin: &DeadLetterOrigin<'_>,
    ) -> Result<Receipt, PublishError> {
        origin.0.with_record(self, |record| producer.try_send(record))
    }

    fn publish_dead_letter_into<K: Producers>(
        &self,
        topic: &Topic<Self, K>,
        transaction: &mut Transaction,
        origin: &DeadLetterOrigin<'_>,
    ) -> Result<(), TransactionError> {
        origin.0.with_record(self, |record| transaction.send(topic, record))
    }
}

type Put<E> = Box<dyn FnMut(&E, &DeadLetterOrigin<'_>) -> Result<Receipt, PublishError> + Send>;
type Letter<'l, E> = (&'l E, &'l DeadLetterOrigin<'l>);
type PutInto<E> = Box<dyn Fn(Option<Letter<'_, E>>, &mut Transaction) -> Result<(), TransactionError> + Send>;

/// Copies events to a dead-letter topic, which may have any kind of producers.
pub(crate) struct DeadLetterForwarder<E> {
    topic: String,
    is_durable: bool,
    /// Publishes a dead letter with a producer of its own. `None` after
    /// [`set_transactions_only`](Self::set_transactions_only), which gives that producer up: the topic may allow only
    /// one, and the transactions need one.
    put: Option<Put<E>>,
    put_into: PutInto<E>,
}

impl<E: ToDeadLetter> DeadLetterForwarder<E> {
    pub(crate) fn new<K: Producers>(topic: &Topic<E, K>, mut producer: Producer<E, K>) -> Self {
        let into = topic.clone();
        Self {
            topic: topic.name().to_owned(),
            is_durable: topic.inner.durable.is_some(),
            put: Some(Box::new(move |event, origin| event.publish_dead_letter(&mut producer, origin))),
            put_into: Box::new(move |letter, transaction| match letter {
                Some((event, origin)) => event.publish_dead_letter_into(&into, transaction, origin),
                None => transaction.open(&into),
            }),
        }
    }
}

impl<E> DeadLetterForwarder<E> {
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.is_durable
    }

    /// From now on dead letters are published only in transactions, with [`put_into`](Self::put_into). `out` is the
    /// first of these transactions. It creates its own producer of the topic at once, in place of the forwarder's.
    pub(crate) fn set_transactions_only(&mut self, out: &mut Transaction) -> Result<(), TransactionError> {
        self.put = None;
        (self.put_into)(None, out)
    }

    fn send(&mut self, event: &E, origin: Origin<'_>) -> Result<Option<Receipt>, PublishError> {
        self.put.as_mut().map(|put| put(event, &DeadLetterOrigin(origin))).transpose()
    }

    pub(crate) fn put(&mut self, event: &E, origin: Origin<'_>) -> Result<(), PublishError> {
        self.send(event, origin).map(drop)
    }

    /// Publishes a dead letter. If the topic for dead letters is durable, waits until the letter is written, so that no
    /// later commit can survive a crash without it. Publishes nothing, without an error, after
    /// [`set_transactions_only`](Self::set_transactions_only).
    pub(crate) fn put_written(&mut self, event: &E, origin: Origin<'_>) -> Result<(), String> {
        let receipt = self.send(event, origin).map_err(|refused| refused.to_string())?;
        let Some(receipt) = receipt.filter(|_| self.is_durable) else { return Ok(()) };
        receipt.wait(Level::Written).map(drop).map_err(|refused| refused.to_string())
    }

    pub(crate) fn put_into(
        &self,
        event: &E,
        origin: Origin<'_>,
        transaction: &mut Transaction,
    ) -> Result<(), TransactionError> {
        (self.put_into)(Some((event, &DeadLetterOrigin(origin))), transaction)
    }
}
