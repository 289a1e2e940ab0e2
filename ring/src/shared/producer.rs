//! The producers of a shared ring.

use super::bell::{Bell, OPEN, frequent_fence};
use super::ending;
use super::error::{Ended, PublishError};
use super::layout::Event;
use super::member::{Member, bury};
use super::region::{Control, role};
use super::waiting::{self, Condition};
use crate::fault::{Fault, fault};
use crate::ordering::{
    SHARED_CHECK_VERSION, SHARED_GATE, SHARED_LOOK_AT_GATE, SHARED_LOOK_AT_PUBLISHED, SHARED_LOOK_AT_ROLE,
    SHARED_PUBLISH, SHARED_READ_ROLE, SHARED_READ_VERSION, SHARED_REFRESH_FENCE,
};
use crate::sequence::{Sequence, Sequences};
use crate::sync::Instant;
use crate::wait::Wait;

/// The only producer of a shared ring. Get it from [`SharedRing::producer`](super::SharedRing::producer).
///
/// A process that dies with it leaves nothing unfinished: what was published is read, what was not is not there. The
/// next producer goes on behind it.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use slipring_ring::shared::SharedRing;
/// # let name = format!("doc-producer-{}", std::process::id());
/// # let name = &*name;
/// let ring = SharedRing::<u64>::open_or_create(name, 8)?;
/// let mut out = ring.producer()?;
/// out.publish(|value| *value = 7)?;
/// let mut claim = out.claim(2)?;
/// for (sequence, value) in claim.iter_mut() {
///     *value = sequence.0;
/// }
/// assert_eq!(claim.commit()?.first.0, 1);
/// # drop(out);
/// SharedRing::<u64>::remove(name)?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SharedProducer<E: Event> {
    pub(crate) member: Member<E>,
    /// The next sequence to be published.
    pub(crate) next: u64,
    /// The producer may write below this sequence, as it has last read the gates.
    limit: u64,
    pub(crate) wait: Wait,
}

impl<E: Event> SharedProducer<E> {
    pub(crate) fn new(member: Member<E>) -> Self {
        let next = member.region.control().published.0.load(SHARED_LOOK_AT_PUBLISHED.get());
        Self { member, next, limit: next, wait: Wait::default() }
    }

    fn control(&self) -> &Control {
        self.member.region.control()
    }

    /// Sets the wait strategy for a full ring.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Publishes the event that `fill` writes, and waits for room if the ring is full. The event has the value that its
    /// slot had one capacity before, so `fill` must write every field that matters.
    ///
    /// # Errors
    /// [`PublishError::Ended`]: the ring was closed or removed, or this process is a fork.
    pub fn publish(&mut self, fill: impl FnOnce(&mut E)) -> Result<Sequence, PublishError> {
        Self::fill(self.claim(1)?, fill)
    }

    /// As [`publish`](Self::publish), without waiting.
    ///
    /// # Errors
    /// [`PublishError::Full`] if there is no room, and the errors of `publish`.
    pub fn try_publish(&mut self, fill: impl FnOnce(&mut E)) -> Result<Sequence, PublishError> {
        Self::fill(self.try_claim(1)?, fill)
    }

    /// As [`publish`](Self::publish), but waits until `deadline` at most.
    ///
    /// # Errors
    /// [`PublishError::TimedOut`] if there was no room until then, and the errors of `publish`.
    pub fn publish_until(&mut self, deadline: Instant, fill: impl FnOnce(&mut E)) -> Result<Sequence, PublishError> {
        Self::fill(self.claim_until(1, deadline)?, fill)
    }

    #[inline]
    fn fill(mut claim: SharedClaim<'_, E>, fill: impl FnOnce(&mut E)) -> Result<Sequence, PublishError> {
        fill(claim.event(claim.first));
        Ok(claim.commit()?.first)
    }

    /// Claims `len` slots, to be filled and committed together. Waits for room if the ring is full.
    ///
    /// # Errors
    /// [`PublishError::TooLong`]: `len` is 0 or above the capacity less the retained events. [`PublishError::Ended`]: the
    /// ring has ended.
    #[inline]
    pub fn claim(&mut self, len: usize) -> Result<SharedClaim<'_, E>, PublishError> {
        self.check_len(len)?;
        if self.next + len as u64 > self.limit {
            self.wait_for_room(len, None)?;
        }
        Ok(SharedClaim { first: self.next, len: len as u64, producer: self })
    }

    /// As [`claim`](Self::claim), without waiting.
    ///
    /// # Errors
    /// [`PublishError::Full`] if there is no room, and the errors of `claim`.
    pub fn try_claim(&mut self, len: usize) -> Result<SharedClaim<'_, E>, PublishError> {
        self.check_len(len)?;
        let end = self.next + len as u64;
        if end > self.limit && self.look_for_room(end)?.is_none() {
            // Whoever does not wait looks for the dead at once, since nobody else may.
            bury(&self.member.region, &self.member.locks, Some(self.member.index));
            if self.look_for_room(end)?.is_none() {
                return Err(PublishError::Full { slowest: self.slowest() });
            }
        }
        Ok(SharedClaim { first: self.next, len: len as u64, producer: self })
    }

    /// As [`claim`](Self::claim), but waits until `deadline` at most.
    ///
    /// # Errors
    /// [`PublishError::TimedOut`] if there was no room until then, and the errors of `claim`.
    pub fn claim_until(&mut self, len: usize, deadline: Instant) -> Result<SharedClaim<'_, E>, PublishError> {
        self.check_len(len)?;
        if self.next + len as u64 > self.limit {
            self.wait_for_room(len, Some(deadline))?;
        }
        Ok(SharedClaim { first: self.next, len: len as u64, producer: self })
    }

    #[inline]
    fn check_len(&self, len: usize) -> Result<(), PublishError> {
        let largest = (self.member.region.capacity() - self.member.region.retain) as usize;
        if len.wrapping_sub(1) < largest { Ok(()) } else { Err(PublishError::TooLong { asked: len, largest }) }
    }

    #[cold]
    fn wait_for_room(&mut self, len: usize, deadline: Option<Instant>) -> Result<(), PublishError> {
        let wait = std::mem::take(&mut self.wait);
        let end = self.next + len as u64;
        let found = waiting::until(&wait, deadline, &mut Room { producer: self, end });
        self.wait = wait;
        match found? {
            Some(()) => Ok(()),
            None => Err(PublishError::TimedOut { slowest: self.slowest() }),
        }
    }

    pub(crate) fn look_for_room(&mut self, end: u64) -> Result<Option<()>, Ended> {
        if let Some(reason) = ending::reason(&self.member.region) {
            return Err(reason);
        }
        self.limit = self.refresh();
        Ok((end <= self.limit).then_some(()))
    }

    /// Reads the gates. Returns the sequence below which this producer may write.
    fn refresh(&self) -> u64 {
        let control = self.control();
        loop {
            let version = control.version.0.load(SHARED_READ_VERSION.get());
            // Its own position counts as a gate, so that a ring without consumers has room for one lap.
            let mut lowest = self.next.saturating_sub(self.member.region.retain);
            for entry in &control.table {
                let role = entry.role.load(SHARED_READ_ROLE.get());
                if matches!(role, role::JOINING | role::CONSUMER) {
                    lowest = lowest.min(entry.moving.0.gate.load(SHARED_GATE.get()));
                }
            }
            frequent_fence(&SHARED_REFRESH_FENCE);
            let is_same = version == control.version.0.load(SHARED_CHECK_VERSION.get());
            if is_same || fault(Fault::SharedNoSecondLookAtTheVersion) {
                return lowest + self.member.region.capacity();
            }
        }
    }

    /// The name of the consumer that is furthest behind.
    fn slowest(&self) -> String {
        let consumes = |role| matches!(role, role::JOINING | role::CONSUMER);
        let consumers = self.control().table.iter().filter(|it| consumes(it.role.load(SHARED_LOOK_AT_ROLE.get())));
        let slowest = consumers.min_by_key(|entry| entry.moving.0.gate.load(SHARED_LOOK_AT_GATE.get()));
        slowest.map_or_else(String::new, |entry| entry.name())
    }

    #[inline]
    fn publish_to(&mut self, end: u64) -> Result<(), Ended> {
        self.next = end;
        self.control().published.0.store(end, SHARED_PUBLISH.get());
        if self.control().events.0.ring(OPEN) { Ok(()) } else { self.judge(end) }
    }

    /// After a publish that found the bell in another state than open and without sleepers: an error if the ring ended
    /// before `end`.
    #[cold]
    fn judge(&mut self, end: u64) -> Result<(), Ended> {
        let Some(reason) = ending::reason(&self.member.region) else { return Ok(()) };
        // The next claim looks for the end before it writes.
        self.limit = self.next;
        if reason == Ended::Forked || end > ending::settle(&self.member.region) { Err(reason) } else { Ok(()) }
    }

    /// Ends the ring for all participants: consumers read what was published, then get [`Ended::Closed`].
    pub fn close(self) {
        ending::end(&self.member.region, super::region::phase::CLOSED);
    }
}

/// A full ring, for the wait loop.
struct Room<'p, E: Event> {
    producer: &'p mut SharedProducer<E>,
    end: u64,
}

impl<E: Event> Condition for Room<'_, E> {
    type Found = ();
    type Error = Ended;

    fn bell(&self) -> &Bell {
        &self.producer.control().room.0
    }

    fn look(&mut self) -> Result<Option<()>, Ended> {
        self.producer.look_for_room(self.end)
    }

    fn tick(&mut self) -> Result<(), Ended> {
        let member = &self.producer.member;
        bury(&member.region, &member.locks, Some(member.index));
        super::ring::check_file(&member.locks)
    }
}

impl<E: Event> Drop for SharedProducer<E> {
    fn drop(&mut self) {
        self.member.leave();
    }
}

/// Slots that a producer fills and commits together. Dropped without a commit, it publishes nothing.
pub struct SharedClaim<'p, E: Event> {
    pub(crate) producer: &'p mut SharedProducer<E>,
    pub(crate) first: u64,
    pub(crate) len: u64,
}

impl<E: Event> SharedClaim<'_, E> {
    fn event(&mut self, sequence: u64) -> &mut E {
        // SAFETY: the pointer is that of a slot, and the slot is claimed: it lies below the limit, so every consumer has
        // passed it, and no consumer reads it before the claim is published.
        unsafe { &mut *self.producer.member.region.event_mut(sequence) }
    }

    /// The claimed events, in the order of their sequences. Each has the value that its slot had one capacity before.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Sequence, &mut E)> {
        let region = &self.producer.member.region;
        (self.first..self.first + self.len).map(|sequence| {
            // SAFETY: as in `event`. A claim is not longer than the ring, so the slots of its sequences differ.
            (Sequence(sequence), unsafe { &mut *region.event_mut(sequence) })
        })
    }

    /// Publishes the events.
    ///
    /// # Errors
    /// The ring ended before; consumers may have read the events or not.
    #[inline]
    pub fn commit(self) -> Result<Sequences, Ended> {
        self.producer.publish_to(self.first + self.len)?;
        Ok(Sequences { first: Sequence(self.first), len: self.len as usize })
    }
}
