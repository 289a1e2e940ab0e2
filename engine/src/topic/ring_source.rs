//! One partition's ring as an input of the committer.

use super::partition::Partition;
use crate::base::kind::Producers;
use crate::base::threads::caught;
use crate::event::codec::Persistence;
use crate::log::committer::STAGE;
use crate::log::producers::{ProducerStates, TouchedProducers};
use crate::log::progress::Progress;
use crate::log::source::{FrameContext, Source};
use slipring_journal::{FrameBuilder, PartitionId, Writer};
use slipring_ring::{Batch, Consumer, Sequence, Waiter};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One partition's ring as an input of the committer, with the offsets up to which it was read and written.
pub(crate) struct RingSource<E, K: Producers> {
    pub(crate) id: PartitionId,
    pub(crate) partition: Arc<Partition<E, K>>,
    pub(crate) consumer: Option<Consumer<E, K>>,
    pub(crate) persistence: Persistence<E>,
    pub(crate) progress: Arc<Progress>,
    /// The end (exclusive) of the last requested reservation of offsets, whether it is durable or not.
    pub(crate) reserving: u64,
    /// The end (exclusive) of a reservation that [`Source::drain`] has added to its frame and [`Source::reserves`] has not
    /// returned yet; `None` if there is none. The reservation holds once that frame is synced.
    pub(crate) reserves: Option<u64>,
    pub(crate) reserves_at_once: u64,
    pub(crate) capacity: u64,
    /// The offset after the last event that was read into the frame being gathered; `None` if no events wait to be
    /// written.
    pub(crate) drained: Option<u64>,
    /// The offset after the last event that was reported as written.
    pub(crate) noted: u64,
    pub(crate) blocked: bool,
    /// The event that could not be written, and the panic of its `Persist`. `None` if there was no panic, and once
    /// [`Source::failed`] has taken the error.
    pub(crate) failed: Option<String>,
    /// Ranges of offsets at or above the committer's position that transactions have written already, in order: the
    /// first offset, and the offset after the last.
    pub(crate) ahead: VecDeque<(u64, u64)>,
}

/// The number of offsets in one reservation: eight times the capacity, but at least 2^16. Each reservation needs a
/// sync. If the engine does not sync its frames (`syncs` is false), only that sync would make producers wait for the
/// disk, so a reservation then has at least 2^24 offsets.
pub(crate) fn reservation(capacity: u64, syncs: bool) -> u64 {
    (capacity * 8).max(if syncs { 1 << 16 } else { 1 << 24 })
}

impl<E, K: Producers> RingSource<E, K> {
    /// How many more events the committer may read; `usize::MAX` if the source is over. Producers claim at most
    /// `capacity` offsets beyond the committer's position. So the committer stops `capacity` offsets before the end of
    /// the durable reservation, and no offset is claimed that is not reserved. If the result is 0, marks the source as
    /// blocked.
    fn room(&mut self) -> usize {
        let Some(consumer) = &self.consumer else { return usize::MAX };
        let limit = self.progress.reserved.load(Ordering::Acquire).saturating_sub(self.capacity);
        let room = usize::try_from(limit.saturating_sub(consumer.consumed().0)).unwrap_or(usize::MAX);
        self.blocked |= room == 0;
        room
    }
}

impl<E: Send + Sync + 'static, K: Producers> Source for RingSource<E, K> {
    fn look(&mut self, looks: u32) -> bool {
        if self.drained.is_some() || self.room() == 0 {
            return false;
        }
        let Some(consumer) = &mut self.consumer else { return false };
        let found = consumer.poll_paced(usize::MAX, looks).map_or(true, |batch| !batch.is_empty());
        // A poll skips slots without an event, which count as written. So a skip is reported as progress too.
        found || consumer.consumed().0 != self.noted
    }

    fn arm(&mut self, waiter: &Waiter, token: usize) -> bool {
        if self.room() == 0 {
            // No registration is needed: the sync of the next reservation wakes the committer.
            return true;
        }
        self.consumer.as_mut().is_none_or(|consumer| consumer.arm(waiter, token))
    }

    fn drain(&mut self, context: FrameContext<'_>, budget: usize, writer: &Writer) {
        let FrameContext { frame, producer_states, touched } = context;
        let room = self.room();
        let Some(consumer) = &mut self.consumer else { return };
        let from = consumer.consumed();
        let mut end = from.0;
        let mut over = None;
        match consumer.poll(room) {
            Ok(mut batch) => {
                let of = PartitionEvents {
                    id: self.id,
                    persistence: self.persistence,
                    ahead: &self.ahead,
                    partition: &self.partition,
                    producer_states,
                    budget,
                    frame_limit: writer.frame_limit(),
                };
                let savepoint = frame.savepoint();
                let gathered = caught(|| of.gather(&mut batch, u64::MAX, &mut end, frame, touched));
                if let Err(panic) = gathered {
                    // The panic may have left a part of a record in the frame. So the frame is rewound, and the whole
                    // records before the failed one are gathered again.
                    self.failed = Some(format!("the event at {end} of partition {}: {panic}", self.id.partition));
                    let culprit = std::mem::replace(&mut end, from.0);
                    frame.rewind(savepoint);
                    batch.put_back(from);
                    if caught(|| of.gather(&mut batch, culprit, &mut end, frame, touched)).is_err() {
                        frame.rewind(savepoint);
                        end = from.0;
                        batch.put_back(from);
                    }
                }
                let read = if self.failed.is_some() { Sequence(end) } else { batch.position() };
                // Until the frame is written, the committer's gating position stays before these slots, so that no
                // producer overwrites them.
                batch.put_back(from);
                if read.0 != self.noted {
                    self.drained = Some(read.0);
                }
            }
            // The ring is closed and was read to its end; or it was halted or has failed, and its unread events are
            // never written.
            Err(closed) => over = Some(closed),
        }
        if let Some(closed) = over {
            // The last poll may have skipped slots without an event at the ring's end. All offsets below `from` are
            // written or have no event.
            if from.0 != self.noted && self.drained.is_none() {
                self.drained = Some(from.0);
            }
            // No event after the gathered ones will be written from the ring. But transactions may have written events
            // at later offsets, which were not published in the ring; the progress ends after these.
            let written = self.ahead.back().map_or(0, |(_, end)| *end);
            self.progress.end_at(self.drained().max(written), closed.to_string());
            self.consumer = None;
            return;
        }
        if end.saturating_add(self.reserves_at_once / 2) > self.reserving {
            self.reserving = end.saturating_add(self.reserves_at_once);
            self.reserves = Some(self.reserving);
            writer.reserve(frame, self.id, self.reserving);
        }
    }

    fn written(&mut self) -> Option<u64> {
        let read = self.drained.take()?;
        self.noted = read;
        // A transaction may have written later offsets already, so `written` may be higher, and must not go back.
        self.progress.written.fetch_max(read, Ordering::Release);
        while self.ahead.front().is_some_and(|(_, end)| *end <= read) {
            self.ahead.pop_front();
        }
        if let Some(consumer) = &mut self.consumer {
            let _ = consumer.seek(Sequence(read));
        }
        Some(read)
    }

    fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    fn id(&self) -> PartitionId {
        self.id
    }

    fn reaches(&mut self, offset: u64) -> bool {
        let has_room = self.room() > 0;
        let Some(consumer) = &mut self.consumer else { return false };
        if consumer.consumed().0 < offset && has_room {
            // The batch is dropped unread, so the poll moves the position only over slots without an event.
            let _ = consumer.poll(1).map(drop);
        }
        let mut at = consumer.consumed().0;
        for (first, end) in &self.ahead {
            if *first <= at {
                at = at.max(*end);
            }
        }
        at >= offset
    }

    fn pass_over(&mut self, first: u64, end: u64) {
        self.ahead.push_back((first, end));
    }

    fn reserves(&mut self) -> Option<u64> {
        self.reserves.take()
    }

    fn was_blocked(&mut self) -> bool {
        std::mem::take(&mut self.blocked)
    }

    fn is_over(&self) -> bool {
        self.consumer.is_none()
    }

    fn is_closed(&self) -> bool {
        self.partition.ring.closed().is_some()
    }

    fn close(&self) {
        self.partition.ring.cut();
    }

    fn fail(&self, cause: &str) {
        self.partition.ring.fail(STAGE, cause);
    }

    fn announce_failure(&self, cause: &str) {
        self.partition.ring.announce_failure(STAGE, cause);
    }

    fn failed(&mut self) -> Option<String> {
        self.failed.take()
    }

    fn drained(&self) -> u64 {
        self.drained.unwrap_or(self.noted)
    }

    fn issued(&self) -> u64 {
        self.partition.ring.published().0
    }
}

/// The arguments of gathering one partition's events into a frame.
struct PartitionEvents<'g, E, K: Producers> {
    id: PartitionId,
    persistence: Persistence<E>,
    ahead: &'g VecDeque<(u64, u64)>,
    partition: &'g Partition<E, K>,
    producer_states: &'g ProducerStates,
    budget: usize,
    frame_limit: usize,
}

impl<E: Send + Sync + 'static, K: Producers> PartitionEvents<'_, E, K> {
    /// Adds the events below `until` to the frame, except those that transactions have written, until the frame has
    /// `budget` bytes or more, or has room for the states of no more producers. Sets `end` to the offset after the last
    /// complete event, also if the encoding of an event panics.
    fn gather(
        &self,
        batch: &mut Batch<'_, E, K>,
        until: u64,
        end: &mut u64,
        frame: &mut FrameBuilder,
        touched: &mut TouchedProducers,
    ) {
        let Persistence { size, plain, .. } = self.persistence;
        let mut ahead = self.ahead.iter().peekable();
        let stamps = self.partition.stamps_if_any();
        let is_bare = ahead.peek().is_none() && stamps.is_none() && self.partition.times.is_none();
        let many = if is_bare { plain.zip(size) } else { None };
        if let Some(((plain, size), (head, tail))) = many.zip(K::slices(batch)) {
            let mut most = self.budget.saturating_sub(frame.len()) / size + 1;
            for events in [head, tail] {
                let events = &events[..events.len().min(most)];
                frame.fixed_run(self.id, *end, events.len(), size, |out| (plain.write)(events, out));
                *end += events.len() as u64;
                most -= events.len();
            }
            batch.pass_over_to(Sequence(*end));
            return;
        }
        for (offset, event) in batch {
            if offset.0 >= until {
                break;
            }
            while ahead.next_if(|(_, end)| *end <= offset.0).is_some() {}
            if ahead.peek().is_some_and(|(first, _)| *first <= offset.0) {
                *end = offset.0 + 1;
                continue;
            }
            // `end` is set before the event is encoded: if the encoding panics, the error names the offset in `end`.
            *end = offset.0;
            let at = self.persistence.time(event).map(|at| at.as_nanos());
            let at = at.or_else(|| Some(self.partition.times.as_ref()?.get(offset.0).as_nanos()));
            let write = |out: &mut Vec<u8>| self.persistence.write(event, out);
            match size {
                Some(size) => frame.fixed_with(self.id, offset.0, at, size, write),
                None => frame.record_with(self.id, offset.0, at, write),
            }
            if let Some(stamp) = stamps.and_then(|stamps| stamps.get(offset.0)) {
                touched.note(self.producer_states, stamp, self.id.partition, offset.0);
            }
            *end = offset.0 + 1;
            if frame.len() >= self.budget || touched.is_full(self.frame_limit) {
                break;
            }
        }
    }
}
