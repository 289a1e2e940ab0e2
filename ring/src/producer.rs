//! Publishing: the methods of every producer. `single_producer.rs` and `multi_producer.rs` have the parts that differ.

use crate::bell::Bell;
use crate::claim::Claim;
use crate::closing::Closed;
use crate::core::Core;
use crate::error::{ClaimError, SendError};
use crate::fault::{Fault, fault};
use crate::gates::GateSet;
use crate::kind::{Kind, Multi, Single};
use crate::ordering::LOOK_AT_STAGE;
use crate::pace;
use crate::room::RoomLook;
use crate::sequence::{Sequence, Sequences, ahead};
use crate::sync::{Arc, AtomicU32, Instant};
use crate::wait::Wait;
use crate::waiter::Waiter;
use crate::waiting::{Waiting, arm};
use std::fmt;

/// Count of slots from which on a claim prefetches no cache lines. Measurements: `docs/decisions/`, 3.
const LONG: u64 = 32;

/// The only producer of a single-producer ring. Not `Clone`:
///
/// ```compile_fail
/// # use slipring_ring::Builder;
/// let (producer, _ring) = Builder::single(8, u64::default).build()?;
/// let second = producer.clone();
/// # Ok::<(), slipring_ring::BuildError>(())
/// ```
pub type SingleProducer<E> = Producer<E, Single>;

/// One of any number of producers of a ring. Cloning is cheap and takes no lock. No clone waits for another one's
/// claim.
///
/// ```
/// # use slipring_ring::Builder;
/// let (mut producer, _ring) = Builder::multi(8, u64::default).build()?;
/// let mut other = producer.clone();
/// let thread = std::thread::spawn(move || other.publish(|event| *event = 1));
/// producer.publish(|event| *event = 2)?;
/// thread.join().unwrap()?;
/// assert_eq!(producer.published().0, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type MultiProducer<E> = Producer<E, Multi>;

/// Claims slots of the ring and writes events into them in place.
///
/// | method | when the ring is full | when it is closed |
/// |---|---|---|
/// | [`publish`](Self::publish), [`publish_batch`](Self::publish_batch), [`claim`](Self::claim) | waits with the strategy of [`set_wait`](Self::set_wait) | error |
/// | [`try_publish`](Self::try_publish), [`try_claim`](Self::try_claim), [`try_send`](Self::try_send) | error at once | error |
/// | [`publish_until`](Self::publish_until), [`claim_until`](Self::claim_until) | waits until the deadline, then an error that names the slowest stage | error |
///
/// A slot still holds the event of one capacity ago: overwrite every field that matters.
///
/// # Overload
/// The ring never drops or overwrites events that a stage has not read. If it is full, the producer waits or gets an
/// error.
/// # Shutdown
/// Dropping the last producer finishes the ring: consumers read the remaining events and then get [`Closed::Finished`].
/// After the ring was closed or a stage failed, every claim is refused, and producers that wait for room are woken.
/// # A claim that is leaked
/// `std::mem::forget` of a multi producer's [`Claim`] stalls the ring for good: see
/// [`Positions::oldest_unpublished`](crate::Positions::oldest_unpublished).
pub struct Producer<E, K: Kind> {
    pub(crate) core: Arc<Core<E, K>>,
    /// The producers' bell (see [`crate::bell`]), as `core` has it, held here to save an indirection.
    pub(crate) bell: Arc<Bell>,
    /// The version of the gating set from which `limit` was computed.
    pub(crate) known: Arc<GateSet>,
    /// A single producer's next sequence. For one of several multi producers: the guessed value of the shared next
    /// sequence.
    pub(crate) next: u64,
    /// The end (exclusive) of the sequences that may be claimed without reading the gates again.
    pub(crate) limit: u64,
    /// 1 while a multi producer knows that it is the only one; otherwise 0. Any other producer is a clone, and cloning
    /// stores 0.
    pub(crate) alone: AtomicU32,
    /// Distance ahead of a claim, in slots, at which the producer prefetches cache lines.
    pub(crate) ahead: u64,
    /// The first sequence of the last claim whose commit was refused; `None` if there is none, or if
    /// [`cut_event`](Self::cut_event) has returned its event.
    pub(crate) cut: Option<u64>,
    pub(crate) waiting: Waiting,
}

impl<E, K: Kind> fmt::Debug for Producer<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer at {}", self.published())
    }
}

impl<E, K: Kind> Producer<E, K> {
    pub(crate) fn new(core: Arc<Core<E, K>>, wait: Wait) -> Self {
        core.add_producer();
        let next = core.first;
        let ahead = core.buffer.slots_ahead(K::PREFETCH);
        let bell = Arc::clone(&core.bell);
        let (known, alone, waiting) = (core.gates.load(), AtomicU32::new(0), Waiting::new(wait));
        Self { bell, known, next, limit: next, alone, ahead, cut: None, waiting, core }
    }

    /// Sets the wait strategy of this producer, for a full ring.
    pub fn set_wait(&mut self, wait: Wait) {
        self.waiting.set(wait);
    }

    /// True if both producers are of one ring.
    pub fn same_ring(&self, other: &Self) -> bool {
        self.core.id == other.core.id
    }

    /// Count of slots.
    pub fn capacity(&self) -> usize {
        self.core.capacity() as usize
    }

    /// The next sequence to be published: all events below it can be read.
    pub fn published(&self) -> Sequence {
        Sequence(K::published(&self.core))
    }

    /// Fills the next slot by calling `fill`, publishes it, and returns its sequence. Waits while the ring is full.
    ///
    /// If `fill` panics, the half-written event is never read, and the ring continues.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// let (mut producer, _ring) = Builder::single(8, u64::default).build()?;
    /// assert_eq!(producer.publish(|event| *event = 7)?.0, 0);
    /// assert_eq!(producer.publish(|event| *event = 8)?.0, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    // Always inlined: a call would cost as much as the publish itself. Rare cases are in functions of their own.
    #[inline(always)]
    pub fn publish(&mut self, fill: impl FnOnce(&mut E)) -> Result<Sequence, Closed> {
        match self.claim_now(1) {
            Some(first) => Claim::new(self, first, 1).fill_one(fill),
            None => self.publish_when_there_is_room(fill),
        }
    }

    #[cold]
    #[inline(never)]
    fn publish_when_there_is_room(&mut self, fill: impl FnOnce(&mut E)) -> Result<Sequence, Closed> {
        match self.wait_for_room(1, None) {
            Ok(first) => Claim::new(self, first, 1).fill_one(fill),
            Err(refused) => Err(refused.closed()),
        }
    }

    /// As [`publish`](Self::publish), but returns [`ClaimError::Full`] at once if the ring is full.
    ///
    /// ```
    /// # use slipring_ring::{Builder, ClaimError};
    /// let mut builder = Builder::single(1, u64::default);
    /// builder.poll("slow");
    /// let (mut producer, _ring) = builder.build()?;
    /// assert!(producer.try_publish(|event| *event = 7).is_ok());
    /// assert_eq!(producer.try_publish(|event| *event = 8), Err(ClaimError::Full));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn try_publish(&mut self, fill: impl FnOnce(&mut E)) -> Result<Sequence, ClaimError> {
        match self.claim_now(1) {
            Some(first) => Ok(Claim::new(self, first, 1).fill_one(fill)?),
            None => Err(self.refused()),
        }
    }

    #[cold]
    fn refused(&self) -> ClaimError {
        self.core.closing.reason().map_or(ClaimError::Full, ClaimError::Closed)
    }

    /// As [`publish`](Self::publish), but waits until `deadline` at the latest: then it returns
    /// [`ClaimError::TimedOut`].
    pub fn publish_until(&mut self, deadline: Instant, fill: impl FnOnce(&mut E)) -> Result<Sequence, ClaimError> {
        Ok(self.claim_until(1, deadline)?.fill_one(fill)?)
    }

    /// Fills `len` slots and publishes them together. Waits until there is room for all of them. `fill` gets the index
    /// of each event in the batch, from 0 on, and the event.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// let (mut producer, _ring) = Builder::single(8, u64::default).build()?;
    /// let batch = producer.publish_batch(3, |index, event| *event = index as u64)?;
    /// assert_eq!((batch.first.0, batch.len), (0, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A batch of 0 slots, or one that can never fit, is refused before any slot is filled. Or the ring is closed.
    #[inline]
    pub fn publish_batch(&mut self, len: usize, fill: impl FnMut(usize, &mut E)) -> Result<Sequences, ClaimError> {
        self.check(len)?;
        Ok(self.claim_len(len, None)?.fill_all(fill)?)
    }

    /// As [`publish_batch`](Self::publish_batch), but returns [`ClaimError::Full`] at once if there is not enough room.
    #[inline]
    pub fn try_publish_batch(&mut self, len: usize, fill: impl FnMut(usize, &mut E)) -> Result<Sequences, ClaimError> {
        Ok(self.try_claim(len)?.fill_all(fill)?)
    }

    /// Moves `value` into the next slot and publishes it. The error contains the value and the reason.
    pub fn try_send(&mut self, mut value: E) -> Result<Sequence, SendError<E>> {
        let sent = match self.try_claim(1) {
            Ok(claim) => claim.fill_one(|event| std::mem::swap(event, &mut value)),
            Err(reason) => return Err(SendError { value, reason }),
        };
        sent.map_err(|closed| {
            if let Some(event) = self.cut_event() {
                std::mem::swap(event, &mut value);
            }
            SendError { value, reason: closed.into() }
        })
    }

    /// True if the claim that begins at `first`, and was published after the ring was closed, was cut.
    #[cold]
    #[inline(never)]
    pub(crate) fn is_cut(&mut self, first: u64) -> bool {
        let is_cut = self.core.is_cut(first);
        self.cut = is_cut.then_some(first);
        is_cut
    }

    /// Claims `len` slots to fill in place, or returns an error at once if there is not enough room. See [`Claim`].
    #[inline]
    pub fn try_claim(&mut self, len: usize) -> Result<Claim<'_, E, K>, ClaimError> {
        self.check(len)?;
        match self.claim_now(len as u64) {
            Some(first) => Ok(Claim::new(self, first, len)),
            None => Err(self.refused()),
        }
    }

    /// Claims `len` slots to fill in place. Waits without a time limit until there is room.
    #[inline]
    pub fn claim(&mut self, len: usize) -> Result<Claim<'_, E, K>, ClaimError> {
        self.check(len)?;
        self.claim_len(len, None)
    }

    /// Claims `len` slots to fill in place. Waits until `deadline` at the latest: then it returns
    /// [`ClaimError::TimedOut`].
    pub fn claim_until(&mut self, len: usize, deadline: Instant) -> Result<Claim<'_, E, K>, ClaimError> {
        self.check(len)?;
        self.claim_len(len, Some(deadline))
    }

    /// Claims `len` slots to fill in place. If there is not enough room, returns `None` and arms `waiter`, that is,
    /// registers it for one wake-up with `token` when there may be room. For threads that wait for several things, and
    /// for tasks: see [`Waiter`].
    ///
    /// ```
    /// # use slipring_ring::{Builder, Waiter};
    /// let mut builder = Builder::single(1, u64::default);
    /// builder.poll("slow");
    /// let (mut producer, ring) = builder.build()?;
    /// let mut slow = ring.consumer("slow")?;
    /// producer.publish(|_| ())?;
    /// let waiter = Waiter::new();
    /// assert!(producer.claim_or_arm(1, &waiter, 0)?.is_none());
    /// (&mut slow.poll(1)?).into_iter().for_each(drop);
    /// waiter.park(None, |_| ());
    /// assert!(producer.claim_or_arm(1, &waiter, 0)?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn claim_or_arm(
        &mut self,
        len: usize,
        waiter: &Waiter,
        token: usize,
    ) -> Result<Option<Claim<'_, E, K>>, ClaimError> {
        self.check(len)?;
        let first = match self.claim_now(len as u64) {
            Some(first) => first,
            None => match arm(&mut RoomLook { producer: self, len: len as u64 }, waiter, token) {
                None => return Ok(None),
                Some(found) => found?,
            },
        };
        Ok(Some(Claim::new(self, first, len)))
    }

    #[inline(always)]
    pub(crate) fn check(&self, len: usize) -> Result<(), ClaimError> {
        let largest = (self.core.capacity() - self.core.retain) as usize;
        match len {
            0 => Err(ClaimError::Nothing),
            // A claim of 1 slot always fits, so the most frequent claim skips the comparison.
            1 => Ok(()),
            asked if asked > largest => Err(ClaimError::TooLarge { asked, largest }),
            _ => Ok(()),
        }
    }

    /// Prefetches cache lines ahead of a claim, unless the claim has [`LONG`] slots or more: then the processor
    /// prefetches by itself.
    #[inline(always)]
    pub(crate) fn prefetch(&self, first: u64, len: u64) {
        if len < LONG {
            self.core.buffer.prefetch_write(first.wrapping_add(len - 1 + self.ahead));
        }
    }

    /// Pauses because another producer claimed at the same moment, so that the other one keeps the cache line for a few
    /// more claims. Two producers that retry at once would take the line from each other at every claim.
    #[cold]
    pub(crate) fn make_way(&self) {
        pace::pause_longest(self.waiting.wait());
    }

    /// Claims `len` slots without waiting, and returns the first sequence. `None` if there is not enough room or the
    /// ring is not open.
    #[inline(always)]
    pub(crate) fn claim_now(&mut self, len: u64) -> Option<u64> {
        let first = K::claim(self, len)?;
        // Must come after the claim: see `closing.rs`.
        if self.bell.is_closed() && !fault(Fault::NoLookForTheEndBehindAClaim) {
            self.withdraw(first, len);
            return None;
        }
        Some(first)
    }

    #[cold]
    #[inline(never)]
    fn withdraw(&mut self, first: u64, len: u64) {
        self.give_up(first, len);
        // Waits until the reason of the end is recorded, because the caller reads the reason next.
        self.core.closing.await_phase();
    }

    /// Gives up a claim of `len` slots. In a ring that is not open, the withdrawn sequences are recorded as a gap if
    /// they got no stamps, because stages may wait for them.
    pub(crate) fn give_up(&mut self, first: u64, len: u64) {
        K::abandon(self, first, len);
        if self.bell.ring_and_look() && K::TAKES_BACK {
            self.core.withdrawn(first);
        }
    }

    #[inline(always)]
    fn claim_len(&mut self, len: usize, deadline: Option<Instant>) -> Result<Claim<'_, E, K>, ClaimError> {
        let first = match self.claim_now(len as u64) {
            Some(first) => first,
            None => self.wait_for_room(len, deadline)?,
        };
        Ok(Claim::new(self, first, len))
    }

    /// Waits until there is room for `len` slots, claims them, and returns the first sequence. Counts a stall of the
    /// slowest stage. [`ClaimError::TimedOut`] if `deadline` passes first; `None` waits without a time limit.
    #[cold]
    #[inline(never)]
    fn wait_for_room(&mut self, len: usize, deadline: Option<Instant>) -> Result<u64, ClaimError> {
        if let Some((_, slowest)) = self.known.lowest(&LOOK_AT_STAGE) {
            slowest.counts.stall();
        }
        // `self.waiting` is replaced meanwhile, because both it and `self` are borrowed mutably.
        let same = Waiting::stand_in(self.waiting.wait().clone());
        let mut waiting = std::mem::replace(&mut self.waiting, same);
        let found = waiting.until(deadline, &mut RoomLook { producer: self, len: len as u64 });
        self.waiting = waiting;
        match found {
            Some(Ok(first)) => Ok(first),
            Some(Err(closed)) => Err(closed.into()),
            None => Err(ClaimError::TimedOut { by: self.slowest() }),
        }
    }

    /// The name of the stage that holds the lowest gate. `None` if no stage has joined, or if the floor is lower than
    /// the gates. After a claim was refused for want of room, this is the stage that the claim must wait for, and
    /// `None` means another producer's uncommitted claim.
    pub fn slowest(&self) -> Option<String> {
        let (gate, stage) = self.known.lowest(&LOOK_AT_STAGE)?;
        (ahead(self.core.floor(), gate) >= 0).then(|| stage.name.clone())
    }
}

impl ClaimError {
    /// The reason why a claim of one slot failed that waits without a deadline: only a ring that is not open can refuse
    /// it.
    fn closed(self) -> Closed {
        match self {
            Self::Closed(closed) => closed,
            _ => Closed::Closed,
        }
    }
}

impl<E, K: Kind> Drop for Producer<E, K> {
    fn drop(&mut self) {
        if K::TAKES_BACK {
            // A claim that was leaked would keep stages waiting in a ring that ends, so it is given up.
            self.give_up(self.next, 0);
        }
        self.core.drop_producer();
    }
}
