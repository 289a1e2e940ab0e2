//! Batches: the events that one poll returns, of one partition, with their offsets.

use crate::base::clock::Timestamp;
use crate::base::kind::Producers;
use crate::topic::partition::Partition;
use slipring_ring::{Batch as RingBatch, Events, Multi, Shared, Single};
use std::fmt;
use std::iter::FusedIterator;

/// The partition and the offset of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct At {
    /// The partition's number.
    pub partition: u32,
    /// The event's offset in the partition.
    pub offset: u64,
    /// True for the last event of a batch: the moment to flush what the handler has gathered. Always false in a replay.
    pub end_of_batch: bool,
}

impl At {
    /// Creates an `At`, for tests of handlers.
    pub const fn new(partition: u32, offset: u64, end_of_batch: bool) -> Self {
        Self { partition, offset, end_of_batch }
    }
}

/// Skips the events at the batch's beginning that were published before `oldest`, up to the first younger event.
/// Returns the count of skipped events; 0 if the topic has no timestamps.
pub(crate) fn expire<E, K: Producers>(
    batch: &mut RingBatch<'_, E, K>,
    partition: &Partition<E, K>,
    oldest: Timestamp,
) -> u64 {
    let mut expired = 0;
    while let Some(times) = partition.times.as_ref().filter(|_| !batch.is_empty()) {
        if times.get(batch.position().0) >= oldest {
            break;
        }
        let _ = batch.into_iter().next();
        expired += 1;
    }
    expired
}

/// Events of one partition, in the order of offsets. Iterate over `&mut batch`: the iterated events count as read when
/// the batch is dropped, and the next poll returns the others again.
pub struct Batch<'s, E, K: Producers = Multi> {
    pub(crate) batch: RingBatch<'s, E, K>,
    pub(crate) partition: u32,
}

impl<E, K: Producers> fmt::Debug for Batch<'_, E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of partition {}", self.batch, self.partition)
    }
}

impl<E, K: Producers> Batch<'_, E, K> {
    /// The number of the partition of these events, from 0.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Count of events that are not iterated yet.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// True if all events were iterated.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Ends the batch, as dropping it does: the iterated events count as read.
    pub fn commit(self) {}
}

impl<E> Batch<'_, E, Single> {
    /// All events that are not iterated yet, as two slices: those up to the end of the ring's buffer, and those from
    /// its start on; the second slice is often empty. All of them count as read. Faster than iterating, where many
    /// small events are summed or copied.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").single_producer().create()?;
    /// let mut tape = ticks.subscribe("tape").poll()?;
    /// ticks.producer().create()?.publish_batch(3, |index, tick| *tick = index as u64)?;
    /// let mut batch = tape.poll(Duration::ZERO)?.unwrap();
    /// let (head, tail) = batch.take_slices();
    /// assert_eq!(head.iter().chain(tail).sum::<u64>(), 3);
    /// # drop(batch);
    /// # assert_eq!(tape.position(0), Some(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn take_slices(&mut self) -> (&[E], &[E]) {
        self.batch.take_slices()
    }
}

impl<'b, E, K: Producers> IntoIterator for &'b mut Batch<'_, E, K> {
    type Item = (&'b E, At);
    type IntoIter = Messages<'b, E, K>;

    #[inline]
    fn into_iter(self) -> Messages<'b, E, K> {
        Messages { partition: self.partition, events: (&mut self.batch).into_iter() }
    }
}

/// Iterator over a [`Batch`]: each event with its partition and offset.
pub struct Messages<'b, E, K: Producers> {
    events: Events<'b, E, K, Shared>,
    partition: u32,
}

impl<'b, E, K: Producers> Iterator for Messages<'b, E, K> {
    type Item = (&'b E, At);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (sequence, event) = self.events.next()?;
        Some((event, At { partition: self.partition, offset: sequence.0, end_of_batch: self.events.is_over() }))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.events.size_hint()
    }
}

impl<E, K: Producers> ExactSizeIterator for Messages<'_, E, K> {}

impl<E, K: Producers> FusedIterator for Messages<'_, E, K> {}
