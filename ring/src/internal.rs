//! Items that only slipring's own crates may use, beyond the public interface of the ring. They may change in any
//! version, without a note in the changelog.
//!
//! - [`caught`], [`blaming`] and [`Panic`]: catching and reporting a panic of the user's code.
//! - [`Held`], [`wake`] and [`outside`]: delaying wakers and callbacks until the thread holds no lock.
//! - [`deadline`]: the deadline for a time limit, also for limits beyond the clock's range.
//! - [`Producer::try_fill`] and [`Producer::cut_event`]: publishing with a fallback, and taking back the event of a
//!   refused commit.
//! - [`Consumer::poll_paced`], [`Consumer::look_anew`] and [`Consumer::nothing`]: for loops that read several rings.
//! - [`Consumer::look_further`]: for looking at events without consuming them.
//! - [`Ring::unread`]: the count of events in a report.
//! - [`Ring::cut_except`]: a cut that leaves out claims whose events were given elsewhere already.
//! - [`Ring::announce_halt`] and [`Ring::announce_failure`]: ending several rings together.

use crate::access::Access;
use crate::batch::Batch;
use crate::claim::Claim;
use crate::closing::{Announced, Closed};
use crate::consumer::Consumer;
use crate::kind::Kind;
use crate::producer::Producer;
use crate::ring::Ring;
use crate::sequence::{Sequence, Sequences, later};
use crate::waiting::Look;

pub use crate::deadline::deadline;
pub use crate::held::{Held, outside, wake};
pub use crate::panics::{Panic, blaming, caught};

/// For slipring's own crates: see [`internal`](crate::internal).
impl<E, K: Kind> Producer<E, K> {
    /// As [`try_publish`](Self::try_publish), but returns `fill` uncalled if no slot could be claimed, so that it can
    /// be used elsewhere.
    ///
    /// `Ok(None)`: the event was filled but not published, for the reason that [`why_cut`](Self::why_cut) returns.
    ///
    /// # Errors
    /// The error is `fill`: the ring is full or not open.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// let mut builder = Builder::single(1, u64::default);
    /// builder.poll("slow");
    /// let (mut producer, _ring) = builder.build()?;
    /// assert!(producer.try_fill(|event| *event = 7).is_ok());
    /// let Err(fill) = producer.try_fill(|event| *event = 8) else { unreachable!("there is one slot") };
    /// let mut elsewhere = 0;
    /// fill(&mut elsewhere);
    /// assert_eq!(elsewhere, 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn try_fill<F: FnOnce(&mut E)>(&mut self, fill: F) -> Result<Option<Sequence>, F> {
        match self.claim_now(1) {
            Some(first) => Ok(Claim::new(self, first, 1).fill_one_unless_cut(fill)),
            None => Err(fill),
        }
    }

    /// As [`try_fill`](Self::try_fill) for `len` events, which are published together. Returns the first sequence.
    ///
    /// # Errors
    /// The error is `fill`: there is no room for so many events, `len` is 0, or the ring is not open.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Sequence};
    /// let (mut producer, _ring) = Builder::single(4, u64::default).build()?;
    /// assert!(matches!(producer.try_fill_batch(3, |at, event| *event = at as u64), Ok(Some(Sequence(0)))));
    /// assert!(producer.try_fill_batch(5, |_, _| ()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn try_fill_batch<F: FnMut(usize, &mut E)>(&mut self, len: usize, fill: F) -> Result<Option<Sequence>, F> {
        if self.check(len).is_err() {
            return Err(fill);
        }
        match self.claim_now(len as u64) {
            Some(first) => Ok(Claim::new(self, first, len).fill_all_unless_cut(fill)),
            None => Err(fill),
        }
    }

    /// Why the last claim of [`try_fill`](Self::try_fill) or [`try_fill_batch`](Self::try_fill_batch) was not
    /// published: see [`Claim::commit`].
    #[cold]
    pub fn why_cut(&self) -> Closed {
        self.core.why_cut()
    }

    /// The first event of the last claim whose commit was refused, to take back a value that was moved there. `None` if
    /// there is no such claim, or if this was called for it before.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// let (mut producer, ring) = Builder::single(8, u64::default).build()?;
    /// let mut claim = producer.claim(1)?;
    /// claim[0] = 7;
    /// ring.halt();
    /// assert!(claim.commit().is_err());
    /// assert_eq!(producer.cut_event(), Some(&mut 7));
    /// assert_eq!(producer.cut_event(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cut_event(&mut self) -> Option<&mut E> {
        let first = self.cut.take()?;
        // SAFETY: this producer claimed the sequence, and the claim was cut, so every stage skips it, and no slot is
        // claimed once the ring is closed. The producer is borrowed mutably, so this reference is the only one.
        Some(unsafe { &mut *self.core.buffer.slots().event_mut(first) })
    }
}

/// For slipring's own crates: see [`internal`](crate::internal).
impl<E, K: Kind, A: Access> Consumer<E, K, A> {
    /// Makes the next poll search for events from the consumer's position on again. Without it, a poll first returns
    /// only the events that an earlier poll had found. Use it after [`put_back`](Batch::put_back), to get more events
    /// in the next batch than in the last one.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// # let mut builder = Builder::multi(8, u64::default);
    /// # builder.poll("tape");
    /// # let (mut producer, ring) = builder.build()?;
    /// # let mut tape = ring.consumer("tape")?;
    /// for seen in 1..=3 {
    ///     producer.publish(|_| ())?;
    ///     tape.look_anew();
    ///     let mut batch = tape.poll(8)?;
    ///     let from = batch.position();
    ///     assert_eq!((&mut batch).into_iter().count(), seen);
    ///     batch.put_back(from);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn look_anew(&mut self) {
        self.available = self.next;
    }

    /// Looks for events behind those that the last poll has found, so that the next poll returns both, although none of the
    /// first was consumed. False if there are none, or if a slot without an event is between them.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// # let mut builder = Builder::multi(1024, u64::default);
    /// # builder.poll("tape");
    /// # let (mut producer, ring) = builder.build()?;
    /// # let mut tape = ring.consumer("tape")?;
    /// producer.publish_batch(1000, |_, _| ())?;
    /// let first = tape.poll(1000)?.len();
    /// assert!(first < 1000 && tape.look_further());
    /// assert!(tape.poll(1000)?.len() > first);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn look_further(&mut self) -> bool {
        let from = later(self.available, self.next);
        let run = K::run(&self.core, from, from, self.stage.before(), u64::MAX);
        let further = run.start == from && run.end != from;
        if further {
            self.available = run.end;
        }
        further
    }

    /// Returns an empty batch, without a poll.
    pub fn nothing(&mut self) -> Batch<'_, E, K, A> {
        Batch::empty(self)
    }

    /// As [`poll`](Self::poll), for a loop that waits by itself, for instance on several consumers. `looks` is the
    /// count of consecutive polls that found no event; at 0, the poll first pauses as the waiting methods do (see
    /// [`Wait::pause`](crate::Wait::pause)).
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    #[inline]
    pub fn poll_paced(&mut self, limit: usize, looks: u32) -> Result<Batch<'_, E, K, A>, Closed> {
        let limit = limit.max(1) as u64;
        if looks == 0 {
            self.waiting.pause();
        }
        match self.events(limit).look() {
            Some(found) => {
                if let Ok(run) = found {
                    self.waiting.set_looks(looks);
                    self.learn(run, limit);
                }
                self.batch(found, limit)
            }
            None => Ok(Batch::empty(self)),
        }
    }
}

/// For slipring's own crates: see [`internal`](crate::internal).
impl<E, K: Kind> Ring<E, K> {
    /// Count of published events from `from` on. Slots without an event, because their claim was dropped or
    /// [cut](crate::Closed::Cut), are not counted, as far as the ring still holds their stamps.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Sequence};
    /// let (mut producer, ring) = Builder::multi(8, u64::default).build()?;
    /// drop(producer.claim(2)?);
    /// producer.publish(|event| *event = 7)?;
    /// assert_eq!((ring.published().0, ring.unread(Sequence(0)), ring.unread(Sequence(3))), (3, 1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unread(&self, from: Sequence) -> u64 {
        self.core.unread(from.0)
    }

    /// Closes the ring and [cuts](Self::cut) all uncommitted claims except `kept`, each of which is a whole claim.
    /// Stages wait for these. A later cut, halt or failure of the ring takes them. Returns all claims that were cut, by
    /// this call or before.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Closed};
    /// let (mut producer, ring) = Builder::multi(8, u64::default).build()?;
    /// let mut other = producer.clone();
    /// let (stuck, given) = (producer.claim(1)?, other.claim(2)?);
    /// assert_eq!(ring.cut_except(&[given.sequences()]).len(), 1);
    /// assert_eq!(stuck.commit(), Err(Closed::Cut));
    /// assert!(given.commit().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cut_except(&self, kept: &[Sequences]) -> Vec<Sequences> {
        self.close();
        self.core.cut(kept)
    }

    /// Announces that this ring is about to be [halted](Self::halt), together with other rings. From now on, a stage
    /// that leaves halts the ring first. A reader of several rings that sees one halted drops its consumers in the
    /// others, whose turn is still to come: their reports then have its unread events, and the stages ordered after it
    /// are told of the halt.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Closed, Stage};
    /// let mut builder = Builder::single(8, u64::default);
    /// builder.poll("first").poll(Stage::new("second").after(["first"]));
    /// let (_producer, ring) = builder.build()?;
    /// let first = ring.consumer("first")?;
    /// ring.announce_halt();
    /// assert_eq!(ring.closed(), None);
    /// drop(first);
    /// assert_eq!(ring.closed(), Some(Closed::Halted));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn announce_halt(&self) {
        self.core.announce(Announced::Halt);
    }

    /// As [`announce_halt`](Self::announce_halt), before this ring is [failed](Self::fail) with these arguments.
    pub fn announce_failure(&self, stage: &str, cause: &str) {
        self.core.announce(Announced::Failure(stage.to_owned(), cause.to_owned()));
    }
}
