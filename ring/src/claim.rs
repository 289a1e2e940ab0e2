//! A claim: slots that one producer may write, and that no stage reads until they are committed.

use crate::closing::Closed;
use crate::fault::{Fault, fault};
use crate::kind::Kind;
use crate::producer::Producer;
use crate::sequence::{Sequence, Sequences};
use std::fmt;
use std::ops::{Index, IndexMut};

/// Claimed slots, to fill in place: at least 1, and at most the ring's capacity minus the count of retained events.
/// [`commit`](Self::commit) publishes them together.
///
/// A claim that is dropped without commit, also by a panic, publishes nothing: a single producer takes its claim back;
/// a multi producer publishes the slots as skipped, and no stage receives them. No reference to an event outlives the
/// claim:
///
/// ```
/// # use slipring_ring::Builder;
/// let (mut producer, _ring) = Builder::multi(8, u64::default).build()?;
/// let mut claim = producer.claim(2)?;
/// for (sequence, event) in claim.iter_mut() {
///     *event = sequence.0 * 10;
/// }
/// claim[1] += 1;
/// assert_eq!(claim.commit()?.first.0, 0);
/// drop(producer.claim(3)?);       // skipped: the next publish is at 5
/// assert_eq!(producer.publish(|event| *event = 9)?.0, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail
/// # use slipring_ring::Builder;
/// let (mut producer, _ring) = Builder::multi(8, u64::default).build()?;
/// let mut kept = None;
/// let mut claim = producer.claim(1)?;
/// kept = claim.iter_mut().map(|(_, event)| event).next();
/// claim.commit()?;
/// *kept.unwrap() = 1;             // the slot may be read, or claimed by another, by now
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a claim dropped without commit publishes nothing"]
pub struct Claim<'p, E, K: Kind> {
    producer: &'p mut Producer<E, K>,
    first: u64,
    len: usize,
}

impl<E, K: Kind> fmt::Debug for Claim<'_, E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim of {:?}", self.sequences())
    }
}

impl<'p, E, K: Kind> Claim<'p, E, K> {
    #[inline(always)]
    pub(crate) fn new(producer: &'p mut Producer<E, K>, first: u64, len: usize) -> Self {
        Self { producer, first, len }
    }

    /// Count of slots: at least 1, until [`commit_first`](Self::commit_first) has published all of them.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The sequences of the slots.
    #[inline(always)]
    pub fn sequences(&self) -> Sequences {
        Sequences { first: Sequence(self.first), len: self.len }
    }

    /// The event at `index` of the claim, from 0 on, for writing; `None` if the claim has no such index.
    #[inline(always)]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut E> {
        if index >= self.len {
            return None;
        }
        let event = self.producer.core.buffer.slots().event_mut(self.first.wrapping_add(index as u64));
        // SAFETY: the sequence is claimed and not published. It lies below the limit, so the slot's last event was
        // published, every stage has passed that event, and no other producer has claimed the slot. `self` is borrowed
        // mutably, so this reference is the only one.
        Some(unsafe { &mut *event })
    }

    /// Iterates over the events with their sequences, for writing.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (Sequence, &mut E)> {
        let (slots, first) = (self.producer.core.buffer.slots(), self.first);
        (0..self.len).map(move |index| {
            let sequence = first.wrapping_add(index as u64);
            // SAFETY: the sequence is claimed and not published, so no stage and no other producer uses its slot, and
            // the iterator borrows the claim mutably. Each sequence is visited once, and a claim has at most as many
            // sequences as there are slots, so no two of these references are to one event.
            (Sequence(sequence), unsafe { &mut *slots.event_mut(sequence) })
        })
    }

    /// Publishes all slots of the claim, and returns their sequences.
    ///
    /// A ring that was closed after the claim still accepts it: `Ok` means that every stage that continues to read will
    /// read the events.
    ///
    /// # Errors
    /// The claim was not committed in time, and no stage reads its events. [`Closed::Cut`]: the ring was halted or
    /// [cut](crate::Ring::cut), or the time limit of its shutdown passed. [`Closed::Failed`]: a stage failed.
    #[inline(always)]
    pub fn commit(self) -> Result<Sequences, Closed> {
        if self.len == 0 {
            return Ok(self.sequences());
        }
        self.publish_all()
    }

    /// Publishes the slots of a claim that has at least one.
    #[inline(always)]
    fn publish_all(self) -> Result<Sequences, Closed> {
        let sequences = self.sequences();
        match self.publish_or_learn_that_it_is_cut() {
            Ok(_) => Ok(sequences),
            Err(producer) => Err(producer.core.why_cut()),
        }
    }

    /// As [`publish_all`](Self::publish_all), for a claim of any length but 0. Returns the first sequence, or the
    /// producer if the claim was cut. A [`Closed`] is larger than the registers of a result: a caller that returned one
    /// from the hot path would store and load it at each publish, also when there is none.
    #[inline(always)]
    pub(crate) fn publish_or_learn_that_it_is_cut(self) -> Result<Sequence, &'p mut Producer<E, K>> {
        // Not `commit_first(len)`: a claim that is dropped after the publish is kept in memory until then, which costs
        // each publish 25 to 38 instructions more.
        let claim = std::mem::ManuallyDrop::new(self);
        // SAFETY: the claim is not dropped, so no other code uses the borrow that is copied out of it.
        let producer: &'p mut Producer<E, K> = unsafe { std::ptr::read(&claim.producer) };
        K::publish(producer, claim.first, claim.len as u64);
        if producer.bell.ring_and_look() && !fault(Fault::NoLookForTheEndBehindAPublish) && producer.is_cut(claim.first)
        {
            return Err(producer);
        }
        Ok(Sequence(claim.first))
    }

    /// Publishes the first `count` slots of the claim, or all if it has fewer, and returns their sequences. The rest
    /// stays claimed: publish it with [`commit`](Self::commit) or by further calls, or drop the claim to give it back.
    /// Each call counts as the commit of a claim of its own: if the ring is cut, stages read all events of a call or
    /// none.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Sequence};
    /// let (mut producer, ring) = Builder::single(8, u64::default).build()?;
    /// let mut claim = producer.claim(4)?;
    /// (claim[0], claim[1]) = (7, 8);
    /// assert_eq!(claim.commit_first(2)?.len, 2);
    /// assert_eq!((claim.len(), ring.published()), (2, Sequence(2)));
    /// drop(claim);                    // a single producer takes the rest back: the next publish is at 2
    /// assert_eq!(producer.publish(|event| *event = 9)?, Sequence(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`commit`](Self::commit), for these slots.
    #[inline]
    pub fn commit_first(&mut self, count: usize) -> Result<Sequences, Closed> {
        let first = self.first;
        let sequences = Sequences { first: Sequence(first), len: count.min(self.len) };
        if sequences.len == 0 {
            return Ok(sequences);
        }
        K::publish(self.producer, first, sequences.len as u64);
        self.first = first.wrapping_add(sequences.len as u64);
        self.len -= sequences.len;
        if self.producer.bell.ring_and_look()
            && !fault(Fault::NoLookForTheEndBehindAPublish)
            && self.producer.is_cut(first)
        {
            return Err(self.producer.core.why_cut());
        }
        Ok(sequences)
    }

    /// Moves `events` into the slots one by one, until there are no more of either, and publishes the filled slots
    /// together. Slots for which there was no event are given back; events for which there was no slot stay in the
    /// iterator. If the iterator panics, nothing is published.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// let (mut producer, _ring) = Builder::multi(8, u64::default).build()?;
    /// let mut events = 10..16;
    /// assert_eq!(producer.claim(4)?.fill_from(&mut events)?.len, 4);
    /// assert_eq!(producer.claim(4)?.fill_from(&mut events)?.len, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`commit`](Self::commit). The values that were moved into the slots stay there.
    pub fn fill_from(mut self, events: impl IntoIterator<Item = E>) -> Result<Sequences, Closed> {
        let mut events = events.into_iter();
        let mut filled = 0;
        // Each step takes a slot first, so that no event is taken from the iterator when no slot is left.
        for (_, slot) in self.iter_mut() {
            let Some(event) = events.next() else { break };
            *slot = event;
            filled += 1;
        }
        self.commit_first(filled)
    }

    #[inline(always)]
    pub(crate) fn fill_one(mut self, fill: impl FnOnce(&mut E)) -> Result<Sequence, Closed> {
        if let Some(event) = self.get_mut(0) {
            fill(event);
        }
        Ok(self.publish_all()?.first)
    }

    /// As [`fill_one`](Self::fill_one). `None` if the claim was cut.
    #[inline(always)]
    pub(crate) fn fill_one_unless_cut(mut self, fill: impl FnOnce(&mut E)) -> Option<Sequence> {
        if let Some(event) = self.get_mut(0) {
            fill(event);
        }
        self.publish_or_learn_that_it_is_cut().ok()
    }

    /// As [`fill_all`](Self::fill_all). Returns the first sequence, or `None` if the claim was cut.
    #[inline(always)]
    pub(crate) fn fill_all_unless_cut(mut self, mut fill: impl FnMut(usize, &mut E)) -> Option<Sequence> {
        for (index, (_, event)) in self.iter_mut().enumerate() {
            fill(index, event);
        }
        self.publish_or_learn_that_it_is_cut().ok()
    }

    #[inline(always)]
    pub(crate) fn fill_all(mut self, mut fill: impl FnMut(usize, &mut E)) -> Result<Sequences, Closed> {
        for (index, (_, event)) in self.iter_mut().enumerate() {
            fill(index, event);
        }
        self.publish_all()
    }
}

#[cfg(not(loom))]
impl<E> Claim<'_, E, crate::kind::Single> {
    /// The claimed events as two slices: the events up to the end of the buffer, and those from its start. The second
    /// slice is empty unless the claim crosses the end of the buffer.
    #[inline]
    pub fn as_mut_slices(&mut self) -> (&mut [E], &mut [E]) {
        let [head, tail] = self.producer.core.buffer.run(self.first, self.len);
        // SAFETY: the sequences are claimed and not published, so no stage uses their slots, and there is no other
        // producer. The claim is borrowed mutably. The two parts do not overlap, because the claim is no longer than
        // the buffer.
        let head = unsafe { std::slice::from_raw_parts_mut(head.0, head.1) };
        // SAFETY: these slots continue at the start of the buffer. They are claimed and not published, like those
        // above.
        let tail = unsafe { std::slice::from_raw_parts_mut(tail.0, tail.1) };
        (head, tail)
    }
}

impl<E, K: Kind> Drop for Claim<'_, E, K> {
    #[cold]
    fn drop(&mut self) {
        if self.len > 0 {
            self.producer.give_up(self.first, self.len as u64);
        }
    }
}

impl<E, K: Kind> Index<usize> for Claim<'_, E, K> {
    type Output = E;

    /// # Panics
    /// If `index` is [`len`](Claim::len) or more.
    fn index(&self, index: usize) -> &E {
        assert!(index < self.len, "index {index} of a claim of {}", self.len);
        // SAFETY: the sequence is claimed and not published, so no stage and no other producer uses its slot. This
        // borrow of the claim is shared, and the methods that write need a mutable borrow.
        unsafe { &*self.producer.core.buffer.slots().event(self.first.wrapping_add(index as u64)) }
    }
}

impl<E, K: Kind> IndexMut<usize> for Claim<'_, E, K> {
    /// # Panics
    /// If `index` is [`len`](Claim::len) or more.
    fn index_mut(&mut self, index: usize) -> &mut E {
        let len = self.len;
        self.get_mut(index).unwrap_or_else(|| panic!("index {index} of a claim of {len}"))
    }
}
