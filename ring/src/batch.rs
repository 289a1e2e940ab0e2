//! Batches: the readable events that one poll of a consumer returns.

use crate::access::{Access, Shared};
use crate::buffer::Slots;
use crate::consumer::Consumer;
use crate::kind::Kind;
use crate::sequence::{Sequence, ahead, earlier, later};
use crate::wait::Wait;
use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;

/// The events of one poll, in the order of their sequences. To read them, iterate over `&mut batch`.
///
/// When the batch is dropped or [committed](Self::commit), the consumer's position moves past the iterated events. An
/// event counts as iterated once the iterator has returned it; the next poll returns the others again.
/// [`release`](Self::release) moves the position in the middle of a batch. No reference to an event outlives the batch:
///
/// ```compile_fail
/// # use slipring_ring::Builder;
/// # let mut builder = Builder::single(8, u64::default);
/// # builder.poll("tape");
/// # let (_producer, ring) = builder.build()?;
/// let mut tape = ring.consumer("tape")?;
/// let mut batch = tape.poll(8)?;
/// let kept = (&mut batch).into_iter().next();
/// drop(batch);
/// println!("{kept:?}");       // the producer may be writing there by now
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Nor does a reference outlive a release in the middle of the batch:
///
/// ```compile_fail
/// # use slipring_ring::Builder;
/// # let mut builder = Builder::single(8, u64::default);
/// # builder.poll("tape");
/// # let (_producer, ring) = builder.build()?;
/// let mut tape = ring.consumer("tape")?;
/// let mut batch = tape.poll(8)?;
/// let kept = (&mut batch).into_iter().next();
/// batch.release();
/// println!("{kept:?}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Batch<'c, E, K: Kind, A: Access = Shared> {
    consumer: &'c mut Consumer<E, K, A>,
    read: u64,
    end: u64,
    held: bool,
}

impl<E, K: Kind, A: Access> fmt::Debug for Batch<'_, E, K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch of {} at {}", self.len(), self.read)
    }
}

impl<'c, E, K: Kind, A: Access> Batch<'c, E, K, A> {
    #[inline(always)]
    pub(crate) fn new(consumer: &'c mut Consumer<E, K, A>, len: u64) -> Self {
        let read = consumer.next;
        Self { end: read.wrapping_add(len), read, held: true, consumer }
    }

    #[inline(always)]
    pub(crate) fn empty(consumer: &'c mut Consumer<E, K, A>) -> Self {
        Self { read: consumer.next, end: consumer.next, held: false, consumer }
    }

    /// Count of events that are not iterated yet.
    #[inline]
    pub fn len(&self) -> usize {
        self.end.wrapping_sub(self.read) as usize
    }

    /// Count of published sequences from the next event to iterate on: the rest of this batch, and what waits behind it.
    /// Skipped slots are included.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// # let mut builder = Builder::single(8, u64::default);
    /// # builder.poll("tape");
    /// # let (mut producer, ring) = builder.build()?;
    /// # let mut tape = ring.consumer("tape")?;
    /// producer.publish_batch(5, |index, event| *event = index as u64)?;
    /// let mut batch = tape.poll(2)?;
    /// assert_eq!((batch.len(), batch.lag()), (2, 5));
    /// (&mut batch).into_iter().next();
    /// assert_eq!((batch.len(), batch.lag()), (1, 4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lag(&self) -> u64 {
        ahead(self.consumer.core.published(), self.read).max(0) as u64
    }

    /// True if all events are iterated.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.end == self.read
    }

    /// The sequence of the next event to iterate; the sequence after the batch if no event is left.
    pub fn position(&self) -> Sequence {
        Sequence(self.read)
    }

    /// Ends the batch, exactly as dropping it does.
    pub fn commit(self) {}

    /// Moves the stage's position past the events that were iterated so far, in the middle of a batch. Stages after
    /// this one may read these events from then on, and producers may overwrite them.
    #[inline]
    pub fn release(&mut self) {
        if self.held && self.read != self.consumer.next {
            self.consumer.release(self.read);
        }
    }

    /// Calls `each` with every event that is left, in order, and ends the batch. Gives room back on the way: each time a
    /// sixteenth of the capacity was read, the stage's position moves past it, as by
    /// [`release`](Self::release), so that in a small ring the producer need not wait for the end of the batch. If `each`
    /// panics, the event that it got counts as iterated.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// # let mut builder = Builder::single(8, u64::default);
    /// # builder.poll("tape");
    /// # let (mut producer, ring) = builder.build()?;
    /// # let mut tape = ring.consumer("tape")?;
    /// producer.publish_batch(3, |index, event| *event = index as u64)?;
    /// let mut sum = 0;
    /// tape.poll(8)?.for_each(|_sequence, event| sum += *event);
    /// assert_eq!((sum, tape.consumed().0), (3, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn for_each(mut self, mut each: impl FnMut(Sequence, A::Event<'_, E>)) {
        let part = (self.capacity() / 16).max(1);
        while !self.is_empty() {
            let mut events = (&mut self).into_iter();
            events.end = earlier(events.end, events.read.wrapping_add(part));
            for (sequence, event) in events {
                each(sequence, event);
            }
            self.release();
        }
    }

    /// Moves the iteration back to `from`, so that events from there on are iterated again. Released events stay
    /// consumed, because a producer may be overwriting them: then the iteration moves back to the first event that is
    /// not released. No effect if `from` was not reached yet.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Sequence};
    /// # let mut builder = Builder::single(4, u64::default);
    /// # builder.poll("tape");
    /// # let (mut producer, ring) = builder.build()?;
    /// # let mut tape = ring.consumer("tape")?;
    /// producer.publish_batch(3, |index, event| *event = index as u64)?;
    /// let mut batch = tape.poll(8)?;
    /// assert_eq!((&mut batch).into_iter().count(), 3);
    /// batch.put_back(Sequence(1));
    /// drop(batch);
    /// assert_eq!((&mut tape.poll(8)?).into_iter().next(), Some((Sequence(1), &1)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_back(&mut self, from: Sequence) {
        self.read = later(earlier(from.0, self.read), self.consumer.next);
    }

    /// Counts all events of this batch below `to` as iterated. No effect if `to` was reached already; a `to` beyond the
    /// batch counts as the batch's end.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Sequence};
    /// # let mut builder = Builder::single(4, u64::default);
    /// # builder.poll("tape");
    /// # let (mut producer, ring) = builder.build()?;
    /// # let mut tape = ring.consumer("tape")?;
    /// producer.publish_batch(3, |index, event| *event = index as u64)?;
    /// let mut batch = tape.poll(8)?;
    /// assert_eq!(batch.iter().map(|(_, event)| event).sum::<u64>(), 3);   // counts nothing as iterated
    /// batch.pass_over_to(Sequence(2));
    /// drop(batch);
    /// assert_eq!(tape.consumed(), Sequence(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pass_over_to(&mut self, to: Sequence) {
        self.read = later(self.read, earlier(to.0, self.end));
    }

    /// Counts the next event as iterated without reading it. No effect if none is left.
    pub(crate) fn pass_over(&mut self) {
        if self.read != self.end {
            self.read = self.read.wrapping_add(1);
        }
    }

    /// True if the ring was halted or has failed. Then the rest of this batch need not be handled, and the next poll
    /// returns an error.
    pub fn ends_at_once(&self) -> bool {
        self.consumer.core.closing.phase().at_once()
    }

    /// Sets the wait strategy of this batch's consumer, from its next poll on.
    pub fn set_wait(&mut self, wait: Wait) {
        self.consumer.set_wait(wait);
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.consumer.core.capacity()
    }

    /// The next event with its sequence, and `true` if it is the last one of this batch; `None` if no event is left.
    #[inline(always)]
    pub(crate) fn next_event(&mut self) -> Option<(Sequence, A::Event<'_, E>, bool)> {
        let mut events = self.into_iter();
        let (sequence, event) = events.next()?;
        let last = events.is_over();
        Some((sequence, event, last))
    }
}

impl<E, K: Kind, A: Access> Drop for Batch<'_, E, K, A> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.held {
            self.consumer.end(self.read);
        }
    }
}

impl<E, K: Kind> Batch<'_, E, K> {
    /// Iterates over the remaining events, any number of times, without counting them as iterated: see
    /// [`pass_over_to`](Self::pass_over_to).
    #[inline]
    pub fn iter(&self) -> Iter<'_, E, K> {
        Iter { slots: self.consumer.core.buffer.slots(), next: self.read, end: self.end }
    }
}

#[cfg(not(loom))]
impl<E> Batch<'_, E, crate::kind::Single> {
    /// All remaining events as two slices: the events up to the end of the buffer, and those from its start, which are
    /// often none. All of them count as iterated.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// # let mut builder = Builder::single(4, u64::default);
    /// # builder.poll("tape");
    /// # let (mut producer, ring) = builder.build()?;
    /// # let mut tape = ring.consumer("tape")?;
    /// producer.publish_batch(3, |index, event| *event = index as u64)?;
    /// let mut batch = tape.poll(8)?;
    /// let (head, tail) = batch.take_slices();
    /// assert_eq!(head.iter().chain(tail).sum::<u64>(), 3);
    /// # drop(batch);
    /// # assert_eq!(tape.consumed().0, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn take_slices(&mut self) -> (&[E], &[E]) {
        let read = self.read;
        self.read = self.end;
        self.slices_from(read)
    }

    /// All remaining events as two slices, as [`take_slices`](Self::take_slices) returns them, but none counts as
    /// iterated: see [`pass_over_to`](Self::pass_over_to).
    #[inline]
    pub fn slices(&self) -> (&[E], &[E]) {
        self.slices_from(self.read)
    }

    #[inline(always)]
    fn slices_from(&self, from: u64) -> (&[E], &[E]) {
        let [head, tail] = self.consumer.core.buffer.run(from, self.end.wrapping_sub(from) as usize);
        // SAFETY: these events are published, and lie at or above the consumed position of this stage, which gates the
        // producer. A single producer skips no slot. The position moves only through the batch, which `self` borrows. A
        // stage that changes events is ordered before or after this stage.
        let head = unsafe { std::slice::from_raw_parts(head.0.cast_const(), head.1) };
        // SAFETY: these events continue at the start of the buffer. They are published and gated like those above.
        let tail = unsafe { std::slice::from_raw_parts(tail.0.cast_const(), tail.1) };
        (head, tail)
    }
}

/// The iterator over `&mut` [`Batch`]: its events, in order. It counts each returned event as iterated.
pub struct Events<'b, E, K: Kind, A: Access> {
    slots: Slots<'b, E, K::Stamp>,
    read: &'b mut u64,
    end: u64,
    access: PhantomData<A>,
}

impl<E, K: Kind, A: Access> Events<'_, E, K, A> {
    /// True if no other event of this batch follows the event that was returned last.
    #[inline(always)]
    pub fn is_over(&self) -> bool {
        *self.read == self.end
    }
}

impl<'b, E: 'b, K: Kind, A: Access> Iterator for Events<'b, E, K, A> {
    type Item = (Sequence, A::Event<'b, E>);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let sequence = *self.read;
        if sequence == self.end {
            return None;
        }
        *self.read = sequence.wrapping_add(1);
        // SAFETY: the event is published and not skipped. It lies at or above the consumed position of this stage,
        // which gates the producers until the batch or a release moves it; both need the batch that this iterator
        // borrows. A stage with exclusive access is ordered before or after every other stage, so no other thread uses
        // the slot meanwhile. Each sequence is visited once, so no two references are to one event.
        Some((Sequence(sequence), unsafe { A::lend(self.slots, sequence) }))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        // No slot of a batch is skipped, so it has an event for each sequence.
        let left = self.end.wrapping_sub(*self.read) as usize;
        (left, Some(left))
    }
}

impl<'b, E: 'b, K: Kind, A: Access> ExactSizeIterator for Events<'b, E, K, A> {}

impl<'b, E: 'b, K: Kind, A: Access> FusedIterator for Events<'b, E, K, A> {}

/// The iterator of [`Batch::iter`]: the events of a batch by shared reference, in order.
pub struct Iter<'b, E, K: Kind> {
    slots: Slots<'b, E, K::Stamp>,
    next: u64,
    end: u64,
}

impl<E, K: Kind> Iter<'_, E, K> {
    /// True if no other event of this batch follows the event that was returned last.
    #[inline(always)]
    pub fn is_over(&self) -> bool {
        self.next == self.end
    }

    /// The sequence of the next event to return; the sequence after the batch if no event is left.
    #[inline(always)]
    pub fn position(&self) -> Sequence {
        Sequence(self.next)
    }
}

impl<'b, E, K: Kind> Iterator for Iter<'b, E, K> {
    type Item = (Sequence, &'b E);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let sequence = self.next;
        if sequence == self.end {
            return None;
        }
        self.next = sequence.wrapping_add(1);
        // SAFETY: the event is published and not skipped. It lies at or above the consumed position of this stage,
        // which gates the producers. The position moves only through the batch, which this iterator borrows. This stage
        // only reads, and a stage that changes events is ordered before or after it, so shared references may be lent
        // more than once.
        Some((Sequence(sequence), unsafe { Shared::lend(self.slots, sequence) }))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        // No slot of a batch is skipped, so it has an event for each sequence.
        let left = self.end.wrapping_sub(self.next) as usize;
        (left, Some(left))
    }
}

impl<'b, E, K: Kind> ExactSizeIterator for Iter<'b, E, K> {}

impl<'b, E, K: Kind> FusedIterator for Iter<'b, E, K> {}

impl<'b, E, K: Kind, A: Access> IntoIterator for &'b mut Batch<'_, E, K, A> {
    type Item = (Sequence, A::Event<'b, E>);
    type IntoIter = Events<'b, E, K, A>;

    #[inline(always)]
    fn into_iter(self) -> Events<'b, E, K, A> {
        let slots = self.consumer.core.buffer.slots();
        Events { slots, read: &mut self.read, end: self.end, access: PhantomData }
    }
}
