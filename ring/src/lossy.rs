//! Rings whose readers may lose events: writers never wait, and readers never hold up a writer.
//!
//! Events are plain data. A writer copies an event into its slot as 8-byte words, through relaxed atomics, between two
//! stores of the slot's stamp. A reader copies the words out and then checks that the stamp is unchanged. So there is
//! no data race, and no reference to a slot.
//!
//! A stamp is `sequence << 2 | state`. Stamps are compared by wrapping difference:
//!
//! | state | the slot |
//! |---|---|
//! | `DONE` | holds the event of `sequence` |
//! | `BUSY` | is being written by the writer of `sequence` |
//! | `GONE` | holds nothing to read: the event of `sequence` was dropped |
//! | `BUSY_GONE` | holds nothing to read, and the writer of an earlier lap is still inside |
//!
//! A writer that finds a writer of an earlier lap still inside its slot drops its own event and raises the stamp to its
//! sequence, so that readers count exactly that event as lost and continue. The earlier writer then leaves `GONE`. A
//! slot's sequence only increases and no stamp comes back, so an unchanged stamp means an unchanged slot. Each failed
//! exchange of a writer is another writer's step at that slot, and each writer makes at most two: so no writer waits.
//! Models: `lossy` in loom-tests.

use crate::buffer::MAX_CAPACITY;
use crate::closing::Closed;
use crate::error::BuildError;
use crate::fault::{Fault, fault};
use crate::kind::{Multi, Single};
use crate::ordering::{
    ADD_PRODUCER, DROP_PRODUCER, LOSSY_BEGIN, LOSSY_CHECK, LOSSY_CLAIM, LOSSY_ENTER, LOSSY_GONE, LOSSY_LEFT,
    LOSSY_LOOK, LOSSY_OBSERVE, LOSSY_READ_FENCE, LOSSY_STAMP, LOSSY_WORD, LOSSY_WRITE_FENCE,
};
use crate::sequence::{Sequence, ahead, later};
use crate::stage::Start;
use crate::sync::{self, Arc, AtomicU64, Instant};
use crate::wait::{Idle, Wait};
use crossbeam_utils::CachePadded;
use std::marker::PhantomData;
use zerocopy::{FromBytes, Immutable, IntoBytes};

const DONE: u64 = 0;
const BUSY: u64 = 1;
const GONE: u64 = 2;
const BUSY_GONE: u64 = 3;
const STATE: u64 = 3;

#[inline(always)]
const fn stamp_of(sequence: u64, state: u64) -> u64 {
    sequence << 2 | state
}

/// Plain data: every byte is part of the value, and every pattern of bytes is a valid value. Implemented for every type
/// that derives `Copy` and zerocopy's `IntoBytes`, `FromBytes` and `Immutable`.
pub trait Plain: IntoBytes + FromBytes + Immutable + Copy + Send {}
impl<T: IntoBytes + FromBytes + Immutable + Copy + Send> Plain for T {}

/// A ring whose readers may lose events, and count exactly how many.
///
/// Use it where only the newest values matter and a slow reader must never slow down the writer: quotes, positions,
/// gauges. Use a [`Builder`](crate::Builder)'s ring where every event matters.
///
/// | | writers | readers |
/// |---|---|---|
/// | wait for | nothing | the next event, if they choose |
/// | when the ring is full | overwrite the oldest event | detect it, and count the lost events |
/// | several | [`multi`](Self::multi): a writer drops its event if its slot is being written | any number, each reads all |
///
/// ```
/// use slipring_ring::{LossyRing, Start};
/// #[derive(Clone, Copy, zerocopy::IntoBytes, zerocopy::FromBytes, zerocopy::Immutable)]
/// #[repr(C)]
/// struct Quote { bid: i64, ask: i64 }
///
/// let (mut writer, ring) = LossyRing::<Quote>::single(4)?;
/// let mut reader = ring.reader(Start::Earliest);
/// for bid in 0..7 {
///     writer.write(&Quote { bid, ask: bid + 1 });
/// }
/// let (sequence, quote) = reader.read()?.unwrap();
/// assert_eq!((sequence.0, quote.bid, reader.lost()), (3, 3, 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A type that is not plain data is refused:
///
/// ```compile_fail
/// let (writer, ring) = slipring_ring::LossyRing::<&str>::single(4)?;
/// # Ok::<(), slipring_ring::BuildError>(())
/// ```
///
/// # What is and is not guaranteed
/// A reader receives events in order, each at most once and never torn; gaps show in the sequences. With several
/// writers, an event may be dropped by its writer, if the writer of an earlier lap is still inside the slot: readers
/// count it as lost like any other. If the system suspends a writer in the middle of a write, readers do not see later
/// events until that writer continues, or until the other writers have filled the ring once.
pub struct LossyRing<T> {
    slots: Arc<Slots>,
    events: PhantomData<fn() -> T>,
}

/// Writes into a [`LossyRing`]. `LossyWriter<T, Multi>` can be cloned. When the last writer is dropped, readers get
/// [`Closed::Finished`] after the remaining events.
pub struct LossyWriter<T, K> {
    slots: Arc<Slots>,
    /// The next sequence of the only writer. Several writers take sequences from the shared counter, and do not use
    /// this.
    next: u64,
    events: PhantomData<(fn() -> T, K)>,
}

/// Reads from a [`LossyRing`] at a position of its own, and counts the events that it has lost.
pub struct LossyReader<T> {
    slots: Arc<Slots>,
    next: u64,
    lost: u64,
    wait: Wait,
    events: PhantomData<fn() -> T>,
}

/// The state that writers and readers share. `words` has, for each slot, its stamp, followed by the 8-byte words of its
/// event: `stride` words in all.
struct Slots {
    words: Box<[AtomicU64]>,
    stride: usize,
    mask: usize,
    first: u64,
    /// The next sequence that a writer takes.
    claimed: CachePadded<AtomicU64>,
    writers: CachePadded<AtomicU64>,
}

impl Slots {
    #[inline(always)]
    fn slot(&self, sequence: u64) -> (&AtomicU64, &[AtomicU64]) {
        let at = (sequence as usize & self.mask) * self.stride;
        let slot = &self.words[at..at + self.stride];
        (&slot[0], &slot[1..])
    }

    fn capacity(&self) -> u64 {
        self.mask as u64 + 1
    }

    fn earliest(&self) -> u64 {
        later(self.claimed.load(LOSSY_CLAIM.get()).wrapping_sub(self.capacity()), self.first)
    }
}

impl<T: Plain> LossyRing<T> {
    /// A ring of `capacity` events (a power of two; 1 is legal) with one writer, which executes no locked instruction.
    ///
    /// # Errors
    /// The capacity is not a power of two or is too large, or the system refuses the memory.
    pub fn single(capacity: usize) -> Result<(LossyWriter<T, Single>, Self), BuildError> {
        Self::start_at(capacity, Sequence(0))
    }

    /// A ring of `capacity` events (a power of two; 1 is legal) with any number of writers.
    ///
    /// # Errors
    /// The capacity is not a power of two or is too large, or the system refuses the memory.
    pub fn multi(capacity: usize) -> Result<(LossyWriter<T, Multi>, Self), BuildError> {
        Self::start_at(capacity, Sequence(0))
    }

    /// As [`single`](Self::single) or [`multi`](Self::multi), depending on the type of the writer, with `first` as the
    /// first sequence.
    ///
    /// # Errors
    /// The capacity is not a power of two or is too large, or the system refuses the memory.
    pub fn start_at<K>(capacity: usize, first: Sequence) -> Result<(LossyWriter<T, K>, Self), BuildError> {
        let first = first.0;
        let stride = 1 + size_of::<T>().div_ceil(8);
        let largest = (MAX_CAPACITY / stride.next_power_of_two()).max(1);
        if !capacity.is_power_of_two() || capacity > largest {
            return Err(BuildError::Capacity { asked: capacity, largest });
        }
        let mut words = Vec::new();
        let refused = |_| BuildError::Memory { bytes: capacity.saturating_mul(stride * 8) };
        words.try_reserve_exact(capacity * stride).map_err(refused)?;
        for index in 0..capacity as u64 {
            // The initial stamps have the sequences of the lap before the first one, and the state `GONE`: no slot
            // holds an event.
            let sequence = first.wrapping_add(index.wrapping_sub(first) & (capacity as u64 - 1));
            words.push(AtomicU64::new(stamp_of(sequence.wrapping_sub(capacity as u64), GONE)));
            words.extend((1..stride).map(|_| AtomicU64::new(0)));
        }
        let slots = Arc::new(Slots {
            words: words.into_boxed_slice(),
            stride,
            mask: capacity - 1,
            first,
            claimed: CachePadded::new(AtomicU64::new(first)),
            writers: CachePadded::new(AtomicU64::new(1)),
        });
        let writer = LossyWriter { slots: Arc::clone(&slots), next: first, events: PhantomData };
        Ok((writer, Self { slots, events: PhantomData }))
    }

    /// Creates a reader that begins at `start`. If [`Start::At`] names a sequence before the earliest kept event, the
    /// reader counts the events in between as lost.
    pub fn reader(&self, start: Start) -> LossyReader<T> {
        let next = match start {
            Start::Earliest => self.slots.earliest(),
            Start::Latest => self.slots.claimed.load(LOSSY_CLAIM.get()),
            Start::At(Sequence(asked)) => later(asked, self.slots.first),
        };
        let slots = Arc::clone(&self.slots);
        LossyReader { slots, next, lost: 0, wait: Wait::default(), events: PhantomData }
    }

    /// Count of slots.
    pub fn capacity(&self) -> usize {
        self.slots.mask + 1
    }

    /// The next sequence that a writer will take. In a ring that starts at 0 this is the count of sequences taken so
    /// far.
    pub fn written(&self) -> Sequence {
        Sequence(self.slots.claimed.load(LOSSY_CLAIM.get()))
    }
}

impl<T> Clone for LossyRing<T> {
    fn clone(&self) -> Self {
        Self { slots: Arc::clone(&self.slots), events: PhantomData }
    }
}

impl<T: Plain> LossyWriter<T, Single> {
    /// Overwrites the oldest event with `event`, and returns the sequence. Never waits: it executes a fixed number of
    /// plain stores.
    #[inline]
    pub fn write(&mut self, event: &T) -> Sequence {
        let sequence = self.next;
        let (stamp, words) = self.slots.slot(sequence);
        stamp.store(stamp_of(sequence, BUSY), LOSSY_BEGIN.get());
        fill(words, event);
        stamp.store(stamp_of(sequence, DONE), LOSSY_STAMP.get());
        self.next = sequence.wrapping_add(1);
        self.slots.claimed.store(self.next, LOSSY_CLAIM.get());
        Sequence(sequence)
    }
}

impl<T: Plain> LossyWriter<T, Multi> {
    /// Overwrites the oldest event with `event`, and returns the sequence. Never waits. `None` if `event` was dropped,
    /// because the writer of an earlier lap is still writing the slot, or the writer of a later lap came first.
    #[inline]
    pub fn write(&mut self, event: &T) -> Option<Sequence> {
        let sequence = self.slots.claimed.fetch_add(1, LOSSY_CLAIM.get());
        let (stamp, words) = self.slots.slot(sequence);
        if !enter(stamp, sequence) {
            return None;
        }
        fill(words, event);
        leave(stamp, sequence);
        Some(Sequence(sequence))
    }
}

/// Marks the slot as being written for `sequence`. False if the writer must drop its event; then the stamp shows
/// readers that it was dropped.
#[inline(always)]
fn enter(stamp: &AtomicU64, sequence: u64) -> bool {
    let mut seen = stamp.load(LOSSY_LOOK.get());
    loop {
        if ahead(seen & !STATE, stamp_of(sequence, DONE)) > 0 {
            return false;
        }
        let free = matches!(seen & STATE, DONE | GONE) || fault(Fault::LossyWriterEntersASlotInWriting);
        let mine = stamp_of(sequence, if free { BUSY } else { BUSY_GONE });
        // Pairs with LOSSY_STAMP: the stores of the slot's last writer must be ordered before the stores of this
        // writer.
        match stamp.compare_exchange(seen, mine, LOSSY_ENTER.get(), LOSSY_LOOK.get()) {
            Ok(_) => return free,
            Err(now) => seen = now,
        }
    }
}

/// Stamps the slot with the event of `sequence`, or as holding no event if the writer of a later lap has dropped its
/// own event meanwhile.
#[inline(always)]
fn leave(stamp: &AtomicU64, sequence: u64) {
    let mut seen = stamp_of(sequence, BUSY);
    loop {
        let left = if seen & STATE == BUSY { seen & !STATE | DONE } else { seen & !STATE | GONE };
        match stamp.compare_exchange(seen, left, LOSSY_STAMP.get(), LOSSY_LEFT.get()) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

/// Stores the words of the event. A reader that sees a stored word also sees the `BUSY` stamp or a later one, because
/// LOSSY_WRITE_FENCE pairs with LOSSY_READ_FENCE.
#[inline(always)]
fn fill<T: Plain>(words: &[AtomicU64], event: &T) {
    LOSSY_WRITE_FENCE.fence();
    let (whole, rest) = event.as_bytes().as_chunks();
    words.iter().zip(whole).for_each(|(word, bytes)| word.store(u64::from_ne_bytes(*bytes), LOSSY_WORD.get()));
    if !rest.is_empty() {
        let mut bytes = [0; 8];
        bytes[..rest.len()].copy_from_slice(rest);
        words[whole.len()].store(u64::from_ne_bytes(bytes), LOSSY_WORD.get());
    }
}

impl<T> Clone for LossyWriter<T, Multi> {
    fn clone(&self) -> Self {
        self.slots.writers.fetch_add(1, ADD_PRODUCER.get());
        Self { slots: Arc::clone(&self.slots), next: self.next, events: PhantomData }
    }
}

impl<T, K> Drop for LossyWriter<T, K> {
    fn drop(&mut self) {
        self.slots.writers.fetch_sub(1, DROP_PRODUCER.get());
    }
}

impl<T: Plain> LossyReader<T> {
    /// Returns the next event and its sequence; `None` if it is not written yet. Never waits for a slow writer. If
    /// writers overtake the reader, the reader counts the overwritten events as lost and returns a later one.
    ///
    /// # Errors
    /// [`Closed::Finished`] when every writer was dropped and everything was read.
    #[inline]
    pub fn read(&mut self) -> Result<Option<(Sequence, T)>, Closed> {
        match self.look() {
            None => self.read_at_the_end(),
            found => Ok(found),
        }
    }

    /// Waits without a time limit for the next event, and returns it with its sequence.
    ///
    /// Waiting costs the writer nothing: where the wait strategy would sleep until it is woken, this reader checks
    /// again every 50 microseconds.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_wait(&mut self) -> Result<(Sequence, T), Closed> {
        loop {
            if let Some(found) = self.read_by(None)? {
                return Ok(found);
            }
        }
    }

    /// Waits for the next event until `deadline`, and returns it with its sequence; `None` if the deadline passes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_until(&mut self, deadline: Instant) -> Result<Option<(Sequence, T)>, Closed> {
        self.read_by(Some(deadline))
    }

    /// Sets the wait strategy of [`read_wait`](Self::read_wait) and [`read_until`](Self::read_until).
    pub fn set_wait(&mut self, wait: Wait) {
        self.wait = wait;
    }

    /// Count of events that this reader has lost so far, because they were overwritten or dropped.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The next sequence that this reader will read, unless it is overwritten first.
    pub fn position(&self) -> Sequence {
        Sequence(self.next)
    }

    /// Count of sequences that writers have taken, and that this reader has neither read nor counted as lost.
    pub fn lag(&self) -> u64 {
        ahead(self.slots.claimed.load(LOSSY_CLAIM.get()), self.next).max(0) as u64
    }

    fn read_by(&mut self, deadline: Option<Instant>) -> Result<Option<(Sequence, T)>, Closed> {
        let mut looks = 0u32;
        loop {
            if let Some(found) = self.read()? {
                return Ok(Some(found));
            }
            looks = looks.saturating_add(1);
            let idle = self.wait.idle(looks);
            if idle == Idle::Sleep {
                nap();
            }
            let due = idle == Idle::Sleep || looks.is_multiple_of(16) || cfg!(shuttle);
            if due && deadline.is_some_and(|by| by.saturating_duration_since(Instant::now()).is_zero()) {
                return self.read();
            }
        }
    }

    #[cold]
    fn read_at_the_end(&mut self) -> Result<Option<(Sequence, T)>, Closed> {
        if self.slots.writers.load(LOSSY_GONE.get()) != 0 {
            return Ok(None);
        }
        // No writer is left, so an event that is not found now will never be written.
        self.look().map(Some).ok_or(Closed::Finished)
    }

    #[inline(always)]
    fn look(&mut self) -> Option<(Sequence, T)> {
        loop {
            let sequence = self.next;
            let (stamp, words) = self.slots.slot(sequence);
            let seen = stamp.load(LOSSY_OBSERVE.get());
            let past = ahead(seen & !STATE, stamp_of(sequence, DONE)) >> 2;
            if past > 0 {
                // The slot has the sequence of a later lap, so writers have taken every sequence before that one. The
                // events up to that sequence minus the capacity are overwritten or about to be, and count as lost.
                self.pass_over(past as u64 - self.slots.capacity() + 1);
                continue;
            }
            if past < 0 {
                return None;
            }
            match seen & STATE {
                DONE => {}
                BUSY => return None,
                _ => {
                    self.pass_over(1);
                    continue;
                }
            }
            let mut event = T::new_zeroed();
            let (whole, rest) = event.as_mut_bytes().as_chunks_mut();
            let load = |word: &AtomicU64| word.load(LOSSY_WORD.get()).to_ne_bytes();
            whole.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = load(word));
            if !rest.is_empty() {
                rest.copy_from_slice(&load(&words[whole.len()])[..rest.len()]);
            }
            // Pairs with LOSSY_WRITE_FENCE: if a word came from a later writer, the stamp has changed.
            LOSSY_READ_FENCE.fence();
            if stamp.load(LOSSY_CHECK.get()) == seen || fault(Fault::LossyStampNotLookedAtAgain) {
                self.next = sequence.wrapping_add(1);
                return Some((Sequence(sequence), event));
            }
        }
    }

    fn pass_over(&mut self, count: u64) {
        self.next = self.next.wrapping_add(count);
        self.lost += count;
    }
}

impl<T> Clone for LossyReader<T> {
    /// Creates another reader with this reader's position, wait strategy and count of lost events.
    fn clone(&self) -> Self {
        let (slots, wait) = (Arc::clone(&self.slots), self.wait.clone());
        Self { slots, next: self.next, lost: self.lost, wait, events: PhantomData }
    }
}

fn nap() {
    #[cfg(not(any(loom, shuttle)))]
    sync::thread::sleep(std::time::Duration::from_micros(50));
    #[cfg(any(loom, shuttle))]
    sync::thread::yield_now();
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    /// The system has stopped a writer in the middle of its write: other writers overtake it, drop the events of its
    /// slot and never write beside it, and readers lose exactly those events.
    #[test]
    fn a_writer_that_stands_still_costs_its_slots_events_and_no_more() {
        for first in [0, u64::MAX - 3, (1 << 62) - 2] {
            let (mut writer, ring) = LossyRing::<u64>::start_at::<Multi>(2, Sequence(first)).unwrap();
            let mut reader = ring.reader(Start::Earliest);
            let at = |offset: u64| Sequence(first.wrapping_add(offset));
            let still = ring.slots.claimed.fetch_add(1, LOSSY_CLAIM.get());
            let (stamp, words) = ring.slots.slot(still);
            assert!(enter(stamp, still));
            assert_eq!(reader.read(), Ok(None), "it may be finished any moment");
            assert_eq!(writer.write(&1), Some(at(1)));
            assert_eq!(writer.write(&2), None, "its slot is being written");
            assert_eq!(reader.read(), Ok(Some((at(1), 1))));
            assert_eq!((reader.read(), reader.lost()), (Ok(None), 2));
            assert_eq!(writer.write(&3), Some(at(3)));
            assert_eq!(writer.write(&4), None);
            assert_eq!(reader.read(), Ok(Some((at(3), 3))));
            fill(words, &77u64);
            leave(stamp, still);
            assert_eq!((reader.read(), reader.lost()), (Ok(None), 3), "what it wrote came too late");
            assert_eq!(writer.write(&5), Some(at(5)));
            assert_eq!(writer.write(&6), Some(at(6)), "the slot is free again");
            assert_eq!(reader.read(), Ok(Some((at(5), 5))));
            assert_eq!(reader.read(), Ok(Some((at(6), 6))));
            assert_eq!(reader.lost(), 3);
            assert!(!enter(stamp, at(4).0), "a later one was here first");
        }
    }
}
