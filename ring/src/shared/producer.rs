//! The producers of a shared ring.

use super::bell::{Bell, OPEN, frequent_fence};
use super::claim::SharedClaim;
use super::claims::LARGEST_SEQUENCE;
use super::error::{Ended, PublishError};
use super::layout::Event;
use super::member::{Member, bury, check_position};
use super::region::{Control, NONE, role};
use super::waiting::{self, Condition};
use super::{claims, ending};
use crate::fault::{Fault, fault};
use crate::ordering::{
    SHARED_CHECK_VERSION, SHARED_GATE, SHARED_LOOK_AT_ANNOUNCED, SHARED_LOOK_AT_GATE, SHARED_LOOK_AT_PUBLISHED,
    SHARED_LOOK_AT_ROLE, SHARED_PUBLISH, SHARED_READ_ROLE, SHARED_READ_VERSION, SHARED_REFRESH_FENCE,
};
use crate::pace;
use crate::sequence::Sequence;
use crate::stamps::SKIPPED;
use crate::sync::Instant;
use crate::wait::Wait;

/// A producer of a shared ring: the only one, from [`SharedRing::producer`](super::SharedRing::producer), or one of
/// several, from [`SharedRing::multi_producer`](super::SharedRing::multi_producer).
///
/// A process that dies with the only one leaves nothing unfinished: what was published is read, what was not is not
/// there. The next producer goes on behind it. What one of several has claimed and not published when it dies is skipped
/// by the others, within two of their ticks of 10 milliseconds.
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
    /// The only producer: the next sequence to be published. One of several: the end of its last claim, or the claimed
    /// position as it last looked at it, which is its guess of the next sequence to be claimed.
    pub(crate) next: u64,
    /// The producer may write below this sequence, as it has last read the gates.
    limit: u64,
    /// True if the limit follows from what is out, because no consumer's gate is lower.
    is_at_floor: bool,
    /// One of several: count of the sequences below `next` that are claimed and not published. Otherwise 0.
    unfinished: u64,
    pub(crate) wait: Wait,
}

impl<E: Event> SharedProducer<E> {
    /// # Errors
    /// [`Ended::Damaged`]: the position at which it would go on is impossible. The entry is free again.
    pub(crate) fn new(member: Member<E>) -> Result<Self, Ended> {
        let (what, next) = match member.region.is_multi {
            false => {
                ("the published position", member.region.control().published.0.load(SHARED_LOOK_AT_PUBLISHED.get()))
            }
            true => ("the claimed position", claims::claimed(&member.region)),
        };
        // Dropped in an error, it leaves.
        let new = Self { member, next, limit: next, is_at_floor: false, unfinished: 0, wait: Wait::default() };
        check_position(what, next)?;
        Ok(new)
    }

    fn control(&self) -> &Control {
        self.member.region.control()
    }

    /// The note that came with the last event of the ring: see [`SharedClaim::commit_noted`]. `None` if that event was
    /// published without one, if there is none yet, and in a ring for several producers.
    pub fn note(&self) -> Option<u64> {
        if self.member.region.is_multi { None } else { self.control().state.0.notes.of(self.next) }
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
    #[inline]
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
    /// Among several producers, all others and the consumers wait for the commit or the drop of a claim, from its first
    /// sequence on. A claim that is leaked (`std::mem::forget`) is given up at the next one.
    ///
    /// # Errors
    /// [`PublishError::TooLong`]: `len` is 0 or above the capacity less the retained events. [`PublishError::Ended`]: the
    /// ring has ended.
    #[inline]
    pub fn claim(&mut self, len: usize) -> Result<SharedClaim<'_, E>, PublishError> {
        self.check_len(len)?;
        let len = len as u64;
        let first = match self.take(len)? {
            Some(first) => first,
            None => self.wait_for_room(len, None)?,
        };
        Ok(SharedClaim { first, len, producer: self })
    }

    /// As [`claim`](Self::claim), without waiting.
    ///
    /// # Errors
    /// [`PublishError::Full`] if there is no room, and the errors of `claim`.
    pub fn try_claim(&mut self, len: usize) -> Result<SharedClaim<'_, E>, PublishError> {
        self.check_len(len)?;
        let len = len as u64;
        let mut taken = self.take(len)?;
        if taken.is_none() {
            // Whoever does not wait looks for the dead at once, since nobody else may.
            bury(&self.member.region, &self.member.locks, Some(self.member.index));
            taken = self.take(len)?;
        }
        match taken {
            Some(first) => Ok(SharedClaim { first, len, producer: self }),
            None => Err(PublishError::Full { slowest: self.slowest() }),
        }
    }

    /// As [`claim`](Self::claim), but waits until `deadline` at most.
    ///
    /// # Errors
    /// [`PublishError::TimedOut`] if there was no room until then, and the errors of `claim`.
    pub fn claim_until(&mut self, len: usize, deadline: Instant) -> Result<SharedClaim<'_, E>, PublishError> {
        self.check_len(len)?;
        let len = len as u64;
        let first = match self.take(len)? {
            Some(first) => first,
            None => self.wait_for_room(len, Some(deadline))?,
        };
        Ok(SharedClaim { first, len, producer: self })
    }

    #[inline]
    fn check_len(&self, len: usize) -> Result<(), PublishError> {
        let largest = (self.member.region.capacity() - self.member.region.retain) as usize;
        if len.wrapping_sub(1) < largest { Ok(()) } else { Err(PublishError::TooLong { asked: len, largest }) }
    }

    /// Claims `len` sequences, without waiting. Returns the first of them; `None` if there is no room.
    #[inline(always)]
    fn take(&mut self, len: u64) -> Result<Option<u64>, Ended> {
        if self.member.region.is_multi {
            return self.take_among_several(len);
        }
        let end = self.next + len;
        if end > self.limit && self.look_for_room(end)?.is_none() {
            return Ok(None);
        }
        Ok(Some(self.next))
    }

    /// As [`take`](Self::take), for one of several producers.
    #[inline(always)]
    fn take_among_several(&mut self, len: u64) -> Result<Option<u64>, Ended> {
        if self.unfinished != 0 {
            // A claim that was leaked. Its announcement is about to be overwritten, and with it what its heirs need.
            self.give_up();
        }
        // A guess: a load of the claimed position would have to wait for the exchange of the last claim.
        let mut first = self.next;
        let mut has_lost = false;
        loop {
            if first.saturating_add(len) > self.limit {
                match self.look_for_room_among_several(len)? {
                    Some(claimed) => first = claimed,
                    None => return Ok(None),
                }
            }
            claims::announce(self.member.entry(), first, len);
            match claims::exchange(self.control(), first, len) {
                Ok(_) => break,
                Err(now) if !has_lost => (first, has_lost) = (now, true),
                // Another producer claimed within the last few instructions: it keeps the line for a few more.
                Err(_) => first = self.make_way(),
            }
        }
        self.next = first.wrapping_add(len);
        self.unfinished = len;
        Ok(Some(first))
    }

    /// Pauses, and returns the next sequence to be claimed.
    #[cold]
    fn make_way(&self) -> u64 {
        pace::pause_longest(&self.wait);
        claims::claimed(&self.member.region)
    }

    #[cold]
    fn wait_for_room(&mut self, len: u64, deadline: Option<Instant>) -> Result<u64, PublishError> {
        let wait = std::mem::take(&mut self.wait);
        let found = waiting::until(&wait, deadline, &mut Room { producer: self, len });
        self.wait = wait;
        match found? {
            Some(first) => Ok(first),
            None => Err(PublishError::TimedOut { slowest: self.slowest() }),
        }
    }

    #[cold]
    pub(crate) fn look_for_room(&mut self, end: u64) -> Result<Option<()>, Ended> {
        if let Some(reason) = ending::reason(&self.member.region) {
            return Err(reason);
        }
        self.limit = self.refresh();
        Ok((end <= self.limit).then_some(()))
    }

    /// Reads the gates. Returns the next sequence to be claimed if there is room for `len`.
    #[cold]
    pub(crate) fn look_for_room_among_several(&mut self, len: u64) -> Result<Option<u64>, Ended> {
        // Nobody waits with an announcement: it would hold up the heirs of others.
        claims::withdraw(self.member.entry());
        if let Some(reason) = ending::reason(&self.member.region) {
            return Err(reason);
        }
        self.limit = self.refresh();
        self.next = claims::claimed(&self.member.region);
        Ok((self.next.saturating_add(len) <= self.limit).then_some(self.next))
    }

    /// Reads the gates. Returns the sequence below which this producer may write.
    fn refresh(&mut self) -> u64 {
        let region = &self.member.region;
        let control = region.control();
        loop {
            let version = control.version.0.load(SHARED_READ_VERSION.get());
            // The only producer's own position counts as a gate, so that a ring without consumers has room for one lap.
            let own = if region.is_multi { NONE } else { self.next.saturating_sub(region.retain) };
            let mut lowest = own;
            for entry in &control.table {
                let role = entry.role.load(SHARED_READ_ROLE.get());
                if matches!(role, role::JOINING | role::CONSUMER) {
                    lowest = lowest.min(entry.moving.0.gate.load(SHARED_GATE.get()));
                }
            }
            // A gate is never above what is out. So among several producers that counts only where there is no gate, to
            // keep one from lapping another that still writes, or where events are retained.
            let mut is_at_floor = false;
            if region.is_multi && (lowest == NONE || region.retain > 0) && !fault(Fault::SharedNoFloor) {
                let floor = claims::published(region).saturating_sub(region.retain);
                is_at_floor = floor < lowest;
                lowest = lowest.min(floor);
            }
            frequent_fence(&SHARED_REFRESH_FENCE);
            let is_same = version == control.version.0.load(SHARED_CHECK_VERSION.get());
            if is_same || fault(Fault::SharedNoSecondLookAtTheVersion) {
                self.is_at_floor = is_at_floor;
                return lowest.saturating_add(region.capacity()).min(LARGEST_SEQUENCE);
            }
        }
    }

    /// The name of the participant that holds up the ring: the consumer that is furthest behind, or, where no consumer
    /// does, the producer that has claimed what is not out.
    #[cold]
    fn slowest(&self) -> String {
        let table = &self.control().table;
        if self.is_at_floor {
            let stuck = claims::published(&self.member.region);
            let owner = table.iter().find(|it| it.moving.0.from.load(SHARED_LOOK_AT_ANNOUNCED.get()) == stuck);
            return owner.map_or_else(String::new, |entry| entry.name());
        }
        let consumes = |role| matches!(role, role::JOINING | role::CONSUMER);
        let consumers = table.iter().filter(|it| consumes(it.role.load(SHARED_LOOK_AT_ROLE.get())));
        let slowest = consumers.min_by_key(|entry| entry.moving.0.gate.load(SHARED_LOOK_AT_GATE.get()));
        slowest.map_or_else(String::new, |entry| entry.name())
    }

    /// Publishes the claimed events of `first..end`.
    #[inline(always)]
    pub(crate) fn publish_to(&mut self, first: u64, end: u64) -> Result<(), Ended> {
        if self.member.region.is_multi {
            self.finish(first, end - first, 0);
        } else {
            self.next = end;
            self.control().published.0.store(end, SHARED_PUBLISH.get());
        }
        if self.control().events.0.ring(OPEN) { Ok(()) } else { self.judge(end) }
    }

    /// Stamps the claim of one of several producers.
    #[inline(always)]
    fn finish(&mut self, first: u64, len: u64, skipped: u64) {
        let before = fault(Fault::SharedWithdrawnBeforeTheStamp);
        if before {
            claims::withdraw(self.member.entry());
        }
        claims::stamp(&self.member.region, first, len, skipped);
        if !before {
            claims::withdraw(self.member.entry());
        }
        self.unfinished = 0;
    }

    /// True if one of several producers has a claim that is not out.
    #[inline(always)]
    pub(crate) fn is_unfinished(&self) -> bool {
        self.unfinished != 0
    }

    /// Skips the claim that is not out.
    #[cold]
    pub(crate) fn give_up(&mut self) {
        #[cfg(any(loom, shuttle))]
        if self.member.is_dead {
            return;
        }
        let skipped = if fault(Fault::SharedDroppedClaimStampedAsAnEvent) { 0 } else { SKIPPED };
        self.finish(self.next.wrapping_sub(self.unfinished), self.unfinished, skipped);
        self.control().events.0.ring(OPEN);
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
    len: u64,
}

impl<E: Event> Condition for Room<'_, E> {
    type Found = u64;
    type Error = Ended;

    fn bell(&self) -> &Bell {
        let control = self.producer.control();
        if self.producer.is_at_floor { &control.events.0 } else { &control.room.0 }
    }

    fn look(&mut self) -> Result<Option<u64>, Ended> {
        self.producer.take(self.len)
    }

    fn tick(&mut self) -> Result<(), Ended> {
        let member = &self.producer.member;
        bury(&member.region, &member.locks, Some(member.index));
        super::ring::check_file(&member.locks)
    }
}

impl<E: Event> Drop for SharedProducer<E> {
    fn drop(&mut self) {
        if self.is_unfinished() {
            self.give_up();
        }
        self.member.leave();
    }
}
