//! Settings of managed members for batches: handlers that are told where each batch begins, and retries of whole batches.

use super::builder::GroupBuilder;
use super::deliver::Delivery;
use super::error::GroupError;
use super::managed::{self, GroupRun};
use crate::base::backoff::Backoff;
use crate::base::batch_retries::RetryLimit;
use crate::base::kind::Producers;
use crate::read::handler::Handler;

impl<E: Send + Sync + 'static, K: Producers> GroupBuilder<E, K> {
    /// Makes a managed member handle a batch again, as a whole, when its handler fails on one of the batch's events: up
    /// to `retries` times, each after the delay that `backoff` gives for the attempts so far. For handlers that gather
    /// the events of a batch and write them at its [end](crate::subscriber::At::end_of_batch). By default, and with 0
    /// retries, events are handled one by one.
    ///
    /// Nothing of a batch is committed before all of it is handled, so the handler gets the batch's first events again.
    /// If the last attempt fails, too, the [policy](Self::on_error) applies to the whole batch: it stays uncommitted and
    /// the member ends, or all of its events are skipped, or become [dead letters](Self::dead_letter). A batch has at
    /// most a quarter of the topic's capacity.
    ///
    /// After a failure the member's other partitions have one turn each. Then it waits until the next attempt is due by
    /// the engine's [clock](crate::clock), and reads no partition meanwhile. It is not fenced for that, and gives up
    /// partitions that other members get; such a member has all attempts again.
    ///
    /// A transaction of [`run_into`](Self::run_into) has the outputs of the last attempt only. If a batch's outputs do
    /// not fit in one transaction, the events before are committed with theirs, and the others are a batch of their own.
    ///
    /// ```
    /// # use slipring::{Engine, subscriber::Backoff};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # let orders = engine.topic::<u64>("orders").create()?;
    /// # let (stored, seen) = std::sync::mpsc::channel();
    /// let (mut rows, mut failures) = (Vec::new(), 2);
    /// let backoff = Backoff::exponential(Duration::from_millis(1), Duration::from_secs(1));
    /// orders.group("store").retry_batch(10, backoff).run(move |order: &u64, at| {
    ///     rows.push(*order);
    ///     if at.end_of_batch {
    ///         let rows = std::mem::take(&mut rows);
    ///         if failures > 0 { failures -= 1; return Err("the database is away"); }
    ///         stored.send(rows).unwrap();
    ///     }
    ///     Ok(())
    /// })?;
    /// orders.producer().create()?.publish_batch(3, |index, order| *order = index as u64)?;
    /// assert_eq!(seen.recv()?, [0, 1, 2]);
    /// # engine.shutdown(Duration::from_secs(5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Refused together with [`OnError::Retry`](slipring_ring::OnError::Retry) or
    /// [`OnError::RetryThenSkip`](slipring_ring::OnError::RetryThenSkip), which repeat one event, and with
    /// [at most once](Delivery::AtMostOnce). Ignored by [`join`](Self::join).
    pub fn retry_batch(mut self, retries: u32, backoff: Backoff) -> Self {
        self.retry_batch = (retries > 0).then_some(RetryLimit { retries, backoff });
        self
    }

    /// As [`run`](Self::run), with a [`Handler`], which is also told where each batch begins.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn run_handler<H: Handler<E> + Send + 'static>(mut self, handler: H) -> Result<GroupRun, GroupError> {
        if self.settle(true)? == Delivery::ExactlyOnce {
            return Err(GroupError::NotExactlyOnce { group: self.name });
        }
        let mut handler = handler;
        self.launch(move |member, policy, run| {
            managed::run_handler(member, policy, &mut handler, Some(H::on_batch_start), &mut H::on_event, run)
        })
    }
}
