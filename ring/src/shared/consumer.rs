//! The consumers of a shared ring.

use super::bell::Bell;
use super::error::Ended;
use super::layout::Event;
use super::member::{Member, is_alive};
use super::region::{Control, role};
use super::waiting::{self, Condition};
use super::{claims, ending, heir};
use crate::fault::{Fault, fault};
use crate::kind::Run;
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
    /// Count of polls in a row that found nothing, in a ring for several producers.
    fruitless: u32,
}

impl<E: Event> SharedConsumer<E> {
    pub(crate) fn new(member: Member<E>, next: u64, is_held: bool, wait: Wait) -> Self {
        Self { member, next, is_held, wait, fruitless: 0 }
    }

    fn control(&self) -> &Control {
        self.member.region.control()
    }

    /// The next sequence that this consumer reads.
    pub fn position(&self) -> Sequence {
        Sequence(self.next)
    }

    /// The note that was left with this consumer's position: by [`set_note`](Self::set_note) or
    /// [`SharedBatch::commit_noted`], also by an earlier process, if the consumer is [held](super::ConsumerBuilder::hold).
    /// `None` if the position has none.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use slipring_ring::shared::SharedRing;
    /// # let name = format!("doc-consumer-note-{}", std::process::id());
    /// # let name = &*name;
    /// let ring = SharedRing::<u64>::open_or_create(name, 8)?;
    /// let mut tape = ring.consumer("tape").hold().join()?;
    /// ring.producer()?.publish(|value| *value = 7)?;
    /// let mut batch = tape.poll(8)?;
    /// let sum: u64 = (&mut batch).into_iter().map(|(_, value)| *value).sum();
    /// batch.commit_noted(sum);                                // moves on and leaves the note, both or neither
    /// drop(tape);
    /// assert_eq!(ring.consumer("tape").hold().join()?.note(), Some(7));
    /// SharedRing::<u64>::remove(name)?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn note(&self) -> Option<u64> {
        self.member.entry().moving.0.notes.of(self.next)
    }

    /// Leaves a note with the present position, if it has none. Positions that hold no event, as those of a claim that was
    /// skipped, are passed with the note.
    pub fn set_note(&mut self, note: u64) {
        if self.note().is_none() {
            self.member.entry().moving.0.notes.put(self.next, self.next, note);
        }
    }

    /// Up to `limit` events, or an empty batch if there is none now.
    ///
    /// # Errors
    /// The ring has ended, and everything that was published has been read.
    #[inline]
    pub fn poll(&mut self, limit: usize) -> Result<SharedBatch<'_, E>, Ended> {
        let end = match self.look(limit as u64)? {
            Some(end) => end,
            None => self.find_nothing(),
        };
        Ok(self.batch(end, limit))
    }

    /// Waits for events. Returns 1 to `limit` of them; none if `limit` is 0.
    ///
    /// # Errors
    /// The ring has ended, or its producers have died, and everything that was published has been read. After
    /// [`Ended::ProducerDied`] another poll waits for a successor for 10 milliseconds, and then returns it again.
    #[inline]
    pub fn poll_wait(&mut self, limit: usize) -> Result<SharedBatch<'_, E>, Ended> {
        let end = match self.look(limit as u64)? {
            Some(end) => end,
            None => self.wait_for_events(limit, None)?.unwrap_or(self.next),
        };
        Ok(self.batch(end, limit))
    }

    /// As [`poll_wait`](Self::poll_wait), but returns an empty batch at `deadline`.
    ///
    /// # Errors
    /// As `poll_wait`.
    pub fn poll_until(&mut self, limit: usize, deadline: Instant) -> Result<SharedBatch<'_, E>, Ended> {
        let end = match self.look(limit as u64)? {
            Some(end) => end,
            None => self.wait_for_events(limit, Some(deadline))?.unwrap_or(self.next),
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

    /// Looks for events, for at most `most` of them if there are several producers. Returns the sequence behind those
    /// that can be read; `None` if there is none.
    #[inline(always)]
    fn look(&mut self, most: u64) -> Result<Option<u64>, Ended> {
        if self.member.region.is_multi {
            return self.look_at_stamps(most);
        }
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

    /// As [`look`](Self::look), for a ring with several producers.
    #[inline(always)]
    fn look_at_stamps(&mut self, most: u64) -> Result<Option<u64>, Ended> {
        let run = claims::run(&self.member.region, self.next, most);
        if run.start == self.next && run.end != run.start && self.control().events.0.is_open() {
            return Ok(Some(run.end));
        }
        self.look_behind_skipped(run)
    }

    /// A look that found no event, an impossible stamp, skipped slots, or the end.
    #[cold]
    fn look_behind_skipped(&mut self, run: Run) -> Result<Option<u64>, Ended> {
        let region = &self.member.region;
        let reason = ending::reason(region);
        if let Some(forked @ (Ended::Forked | Ended::Damaged { .. })) = reason {
            return Err(forked);
        }
        if run.end == self.next
            && let Some(found) = claims::impossible(region, self.next)
        {
            return Err(Ended::Damaged { what: "the stamp of a slot", found });
        }
        let end = if reason.is_some() { ending::settle(region) } else { u64::MAX };
        // Claims behind the end are nobody's business. An event there may have been read before the end was seen.
        let (start, until) = (run.start.min(end).max(self.next), run.end.min(end));
        if start != self.next && !fault(Fault::SharedSkippedSlotsKeepTheGate) {
            let notes = &self.member.entry().moving.0.notes;
            if let Some(note) = notes.of(self.next) {
                notes.put(self.next, start, note);
            }
            self.move_to(start);
        }
        if until > start {
            self.next = start;
            return Ok(Some(until));
        }
        match reason {
            Some(reason) if start >= end => Err(reason),
            // Below the end everything is out soon: its producer lives, or has an heir.
            _ => Ok(None),
        }
    }

    /// A poll without events. One that never waits looks for dead producers here, since nobody else may.
    #[cold]
    fn find_nothing(&mut self) -> u64 {
        const PATIENCE: u32 = 256;
        let Member { region, locks, index, .. } = &self.member;
        if region.is_multi && claims::claimed(region) > self.next {
            self.fruitless = self.fruitless.wrapping_add(1);
            if self.fruitless.is_multiple_of(PATIENCE) {
                heir::mend(region, locks, Some(*index));
            }
        }
        self.next
    }

    #[cold]
    fn wait_for_events(&mut self, limit: usize, deadline: Option<Instant>) -> Result<Option<u64>, Ended> {
        let wait = std::mem::take(&mut self.wait);
        let found = waiting::until(&wait, deadline, &mut Events { consumer: self, most: limit as u64 });
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

/// A ring without events, for the wait loop.
struct Events<'c, E: Event> {
    consumer: &'c mut SharedConsumer<E>,
    most: u64,
}

impl<E: Event> Condition for Events<'_, E> {
    type Found = u64;
    type Error = Ended;

    fn bell(&self) -> &Bell {
        &self.consumer.control().events.0
    }

    fn look(&mut self) -> Result<Option<u64>, Ended> {
        self.consumer.look(self.most)
    }

    fn tick(&mut self) -> Result<(), Ended> {
        let Member { region, locks, index, .. } = &self.consumer.member;
        super::ring::check_file(locks)?;
        // The claims and the events come after the question, since the last one to die may have published before.
        let have_died = self.consumer.producers_died();
        heir::mend(region, locks, Some(*index));
        // Somebody else may be about to skip a claim, with events behind it.
        let is_all_out = !region.is_multi || claims::published(region) >= claims::claimed(region);
        if have_died && is_all_out && self.consumer.look(1)?.is_none() {
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

    /// Takes back what was iterated: the batch has all of its events again, and dropped now it moves nothing.
    pub fn rewind(&mut self) {
        self.at = self.consumer.next;
    }

    /// Moves the consumer's position past what was iterated, as the drop does, and leaves `note` with the new position: see
    /// [`SharedConsumer::note`]. Whenever the process is killed, the position and the note are both the old or both the new
    /// ones. If nothing was iterated, this is [`SharedConsumer::set_note`].
    pub fn commit_noted(self, note: u64) {
        if self.at == self.consumer.next {
            return self.consumer.set_note(note);
        }
        self.consumer.member.entry().moving.0.notes.put(self.consumer.next, self.at, note);
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
