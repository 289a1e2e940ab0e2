//! The consumers of a shared ring.

use super::bell::Bell;
use super::ending;
use super::error::Ended;
use super::layout::Event;
use super::member::{Member, is_alive};
use super::region::{Control, role};
use super::waiting::{self, Condition};
use crate::fault::{Fault, fault};
use crate::ordering::{COUNT, SHARED_CONSUME, SHARED_LOOK_AT_ROLE, SHARED_OBSERVE};
use crate::sequence::Sequence;
use crate::sync::Instant;
use crate::wait::Wait;

/// A consumer of a shared ring: it gets every event from its start on, and producers wait for it. Get it from
/// [`SharedRing::consumer`](super::SharedRing::consumer).
///
/// Dropped, it leaves, unless it is [held](super::ConsumerBuilder::hold): then it keeps its position for the next consumer of
/// its name. So does the death of its process.
pub struct SharedConsumer<E: Event> {
    pub(crate) member: Member<E>,
    /// The next sequence to be read.
    next: u64,
    is_held: bool,
    wait: Wait,
}

impl<E: Event> SharedConsumer<E> {
    pub(crate) fn new(member: Member<E>, next: u64, is_held: bool, wait: Wait) -> Self {
        Self { member, next, is_held, wait }
    }

    fn control(&self) -> &Control {
        self.member.region.control()
    }

    /// The next sequence that this consumer reads.
    pub fn position(&self) -> Sequence {
        Sequence(self.next)
    }

    /// Up to `limit` events, or an empty batch if there is none now.
    ///
    /// # Errors
    /// The ring has ended, and everything that was published has been read.
    #[inline]
    pub fn poll(&mut self, limit: usize) -> Result<SharedBatch<'_, E>, Ended> {
        let end = self.look()?.unwrap_or(self.next);
        Ok(self.batch(end, limit))
    }

    /// Waits for events. Returns 1 to `limit` of them; none if `limit` is 0.
    ///
    /// # Errors
    /// The ring has ended, or its producers have died, and everything that was published has been read. After
    /// [`Ended::ProducerDied`] another poll waits for a successor for 10 milliseconds, and then returns it again.
    #[inline]
    pub fn poll_wait(&mut self, limit: usize) -> Result<SharedBatch<'_, E>, Ended> {
        let end = match self.look()? {
            Some(end) => end,
            None => self.wait_for_events(None)?.unwrap_or(self.next),
        };
        Ok(self.batch(end, limit))
    }

    /// As [`poll_wait`](Self::poll_wait), but returns an empty batch at `deadline`.
    ///
    /// # Errors
    /// As `poll_wait`.
    pub fn poll_until(&mut self, limit: usize, deadline: Instant) -> Result<SharedBatch<'_, E>, Ended> {
        let end = match self.look()? {
            Some(end) => end,
            None => self.wait_for_events(Some(deadline))?.unwrap_or(self.next),
        };
        Ok(self.batch(end, limit))
    }

    #[inline]
    fn batch(&mut self, end: u64, limit: usize) -> SharedBatch<'_, E> {
        let end = end.min(self.next.saturating_add(limit as u64));
        if fault(Fault::SharedGateMovedBeforeTheRead) {
            self.move_to(end);
        }
        SharedBatch { at: self.next, end, consumer: self }
    }

    /// Looks for events. Returns the sequence behind those that can be read; `None` if there is none.
    #[inline]
    fn look(&mut self) -> Result<Option<u64>, Ended> {
        let published = self.control().published.0.load(SHARED_OBSERVE.get());
        let count = published.wrapping_sub(self.next);
        if count.wrapping_sub(1) < self.member.region.capacity() && self.control().events.0.is_open() {
            return Ok(Some(published));
        }
        self.look_for_the_end(published)
    }

    /// A look that found no event, an impossible position, or the end.
    #[cold]
    fn look_for_the_end(&self, published: u64) -> Result<Option<u64>, Ended> {
        let reason = ending::reason(&self.member.region);
        if let Some(forked @ (Ended::Forked | Ended::Damaged { .. })) = reason {
            return Err(forked);
        }
        if published.wrapping_sub(self.next) > self.member.region.capacity() {
            return Err(Ended::Damaged { what: "the published position", found: published });
        }
        let Some(reason) = reason else { return Ok(Some(published).filter(|published| *published != self.next)) };
        let end = ending::settle(&self.member.region);
        if self.next >= end {
            return Err(reason);
        }
        // Below the end everything that is acknowledged is published; this thread may still read an older position.
        Ok(Some(published.min(end)).filter(|to| *to != self.next))
    }

    #[cold]
    fn wait_for_events(&mut self, deadline: Option<Instant>) -> Result<Option<u64>, Ended> {
        let wait = std::mem::take(&mut self.wait);
        let found = waiting::until(&wait, deadline, self);
        self.wait = wait;
        found
    }

    #[inline]
    fn move_to(&mut self, next: u64) {
        self.next = next;
        self.member.entry().moving.0.gate.store(next, SHARED_CONSUME.get());
        self.control().room.0.ring(0);
    }

    /// True if producers have joined, none of them lives, and the last one to go has died.
    fn producers_died(&self) -> bool {
        let table = self.control().table.iter().enumerate();
        let mut producers =
            table.filter(|(_, entry)| entry.role.load(SHARED_LOOK_AT_ROLE.get()) == role::PRODUCER).peekable();
        if producers.peek().is_none() {
            return self.control().state.0.died.load(COUNT.get()) == 1;
        }
        producers.all(|(index, _)| !is_alive(&self.member.locks, index))
    }

    /// Leaves for good, also if it is held: its position is not kept.
    pub fn leave(mut self) {
        self.is_held = false;
    }
}

impl<E: Event> Condition for SharedConsumer<E> {
    type Found = u64;
    type Error = Ended;

    fn bell(&self) -> &Bell {
        &self.control().events.0
    }

    fn look(&mut self) -> Result<Option<u64>, Ended> {
        SharedConsumer::look(self)
    }

    fn tick(&mut self) -> Result<(), Ended> {
        super::ring::check_file(&self.member.locks)?;
        // The look comes after the question, since the last one to die may have published before.
        if self.producers_died() && SharedConsumer::look(self)?.is_none() {
            return Err(Ended::ProducerDied);
        }
        Ok(())
    }
}

impl<E: Event> Drop for SharedConsumer<E> {
    fn drop(&mut self) {
        if !self.is_held {
            self.member.leave();
        }
    }
}

/// Consecutive events. Dropped, it moves the consumer's position past those that were iterated, and no further.
pub struct SharedBatch<'c, E: Event> {
    pub(crate) consumer: &'c mut SharedConsumer<E>,
    pub(crate) at: u64,
    pub(crate) end: u64,
}

impl<E: Event> SharedBatch<'_, E> {
    /// Count of the events that are left.
    pub fn len(&self) -> usize {
        (self.end - self.at) as usize
    }

    /// True if no event is left.
    pub fn is_empty(&self) -> bool {
        self.at == self.end
    }
}

impl<'b, E: Event> IntoIterator for &'b mut SharedBatch<'_, E> {
    type Item = (Sequence, &'b E);
    type IntoIter = SharedIter<'b, E>;

    fn into_iter(self) -> SharedIter<'b, E> {
        SharedIter { at: &mut self.at, end: self.end, consumer: &*self.consumer }
    }
}

/// The events of a batch with their sequences.
pub struct SharedIter<'b, E: Event> {
    consumer: &'b SharedConsumer<E>,
    at: &'b mut u64,
    end: u64,
}

impl<'b, E: Event> Iterator for SharedIter<'b, E> {
    type Item = (Sequence, &'b E);

    #[inline]
    fn next(&mut self) -> Option<(Sequence, &'b E)> {
        if *self.at == self.end {
            return None;
        }
        let sequence = *self.at;
        *self.at += 1;
        // SAFETY: the pointer is that of a slot whose event is published. Producers do not write it before the gate
        // passes it, which the batch's drop does, and the batch outlives this reference.
        Some((Sequence(sequence), unsafe { &*self.consumer.member.region.event(sequence) }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - *self.at) as usize;
        (left, Some(left))
    }
}

impl<E: Event> ExactSizeIterator for SharedIter<'_, E> {}

impl<E: Event> Drop for SharedBatch<'_, E> {
    #[inline]
    fn drop(&mut self) {
        if self.at != self.consumer.next {
            self.consumer.move_to(self.at);
        }
    }
}
