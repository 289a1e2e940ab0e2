//! Handlers that are told where each batch begins, for managed subscribers and members of groups.

use super::At;
use std::fmt::Display;

/// The beginning of a batch, as a [`Handler`] gets it before the batch's first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchStart {
    /// The partition's number.
    pub partition: u32,
    /// The offset of the batch's first event.
    pub first: u64,
    /// Count of events in the batch. The handler gets fewer of them if its topic is halted meanwhile, or its member of a
    /// group is stopped.
    pub size: usize,
    /// Count of published offsets from the first event on: this batch, and what waits behind it in the partition.
    pub depth: u64,
    /// 1, or the number of this attempt at a batch that is handled
    /// [again](crate::subscriber::SubscriberBuilder::retry_batch).
    pub attempt: u32,
}

impl BatchStart {
    /// Creates a `BatchStart` of a first attempt, for tests of handlers.
    pub const fn new(partition: u32, first: u64, size: usize, depth: u64) -> Self {
        Self { partition, first, size, depth, attempt: 1 }
    }
}

/// Handles the events of a managed subscriber ([`run_handler`](crate::subscriber::SubscriberBuilder::run_handler)) or of
/// a managed member of a group ([`run_handler`](crate::group::GroupBuilder::run_handler)), and is told where each batch
/// begins. Where no such notice is needed, a closure does as well.
///
/// ```
/// use slipring::{Engine, subscriber::{At, BatchStart, Handler}};
/// use std::time::Duration;
///
/// struct Book { rows: Vec<u64>, stored: std::sync::mpsc::Sender<Vec<u64>> }
///
/// impl Handler<u64> for Book {
///     type Error = std::sync::mpsc::SendError<Vec<u64>>;
///     fn on_batch_start(&mut self, batch: BatchStart) {
///         self.rows.clear();                                  // also where the last attempt has failed
///         self.rows.reserve(batch.size);
///     }
///     fn on_event(&mut self, tick: &u64, at: At) -> Result<(), Self::Error> {
///         self.rows.push(*tick);
///         if at.end_of_batch { self.stored.send(self.rows.clone()) } else { Ok(()) }
///     }
/// }
///
/// let engine = Engine::builder().build()?;
/// let ticks = engine.topic::<u64>("ticks").create()?;
/// let (stored, seen) = std::sync::mpsc::channel();
/// ticks.subscribe("book").run_handler(move || Book { rows: Vec::new(), stored })?;
/// ticks.producer().create()?.publish_batch(3, |index, tick| *tick = index as u64)?;
/// assert_eq!(seen.recv()?, [0, 1, 2]);
/// # engine.shutdown(Duration::from_secs(5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Handler<E> {
    /// The error of this handler. The subscriber's or member's error policy decides what follows it.
    type Error: Display;

    /// Called before the first event of each batch, and of each further attempt at it. A panic counts as a failure on
    /// that event. Does nothing unless implemented.
    fn on_batch_start(&mut self, batch: BatchStart) {
        let _ = batch;
    }

    /// Handles an event.
    fn on_event(&mut self, event: &E, at: At) -> Result<(), Self::Error>;
}
