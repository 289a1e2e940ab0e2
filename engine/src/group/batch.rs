//! A member's batches of events, and how they are committed.

mod part;

use super::Group;
use super::catch_up::BufferedEvents;
use super::error::CommitError;
use super::settings::Commit;
use super::signal::MemberSignal;
use crate::base::ids::TopicPartition;
use crate::base::kind::Producers;
use crate::base::level::OWN_THREAD;
use crate::base::overload::ConsumerStats;
use crate::log::catalog::state_kind;
use crate::log::offsets::commit_right::{CommitRight, Fenced};
use crate::log::receipt::BatchReceipt;
use crate::produce::transaction::{FrameExtras, Transaction, TransactionError};
use crate::read::At;
use crate::topic::TopicCore;
use slipring_journal::Visible;
use slipring_ring::{Batch as RingBatch, Closed, Iter, Multi, Ring, Sequence, Single};
use std::cell::Cell;
use std::fmt::{self, Display};
use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A batch of events of one partition, in the order of their offsets. If the batch is dropped without a commit, its
/// events are read again, unless the member's [`Commit`] setting says otherwise.
pub struct GroupBatch<'m, E, K: Producers = Multi>
where
    E: Send + Sync + 'static,
{
    /// The events and their partition; `None` if the poll has returned no events.
    pub(super) held: Option<HeldBatch<'m, E, K>>,
}

pub(super) struct HeldBatch<'m, E, K: Producers>
where
    E: Send + Sync + 'static,
{
    pub(super) group: &'m Group<E, K>,
    pub(super) signal: &'m MemberSignal,
    pub(super) epoch: u64,
    pub(super) name: &'m TopicPartition,
    pub(super) topic: &'m TopicCore<E, K>,
    pub(super) right: &'m Arc<CommitRight>,
    pub(super) commit: Commit,
    pub(super) events: BatchEvents<'m, E, K>,
    /// The offset after the batch's last event, which a commit of the whole batch commits.
    pub(super) end: u64,
    pub(super) part: usize,
    pub(super) stats: &'m ConsumerStats,
    /// All events below this offset were handled: the iterator has returned them, and was then asked for the next
    /// event.
    pub(super) handled: Cell<u64>,
}

/// How long a transaction waits, at most, until its input events are written to the journal.
const WRITTEN: Duration = Duration::from_secs(30);

/// Where the events of a batch are: in the ring, or in a buffer with events from the journal.
pub(super) enum BatchEvents<'m, E, K: Producers> {
    Ring(RingBatch<'m, E, K>),
    /// Events that were read from the journal: the first `left` buffered events. `end` is the offset after the last
    /// one.
    Journal {
        buffered: &'m mut BufferedEvents<E>,
        left: usize,
        end: u64,
        ring: &'m Ring<E, K>,
    },
}

impl<E, K: Producers> BatchEvents<'_, E, K> {
    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ring(batch) => batch.len(),
            Self::Journal { left, .. } => *left,
        }
    }

    /// The offset of the first uncommitted event, or the one after the batch if all are committed.
    #[inline]
    pub(super) fn position(&self) -> u64 {
        match self {
            Self::Ring(batch) => batch.position().0,
            Self::Journal { buffered, left, end, .. } => buffered.first().filter(|_| *left > 0).unwrap_or(*end),
        }
    }

    /// Removes the events below offset `to`, which are committed, so that their slots are free.
    #[inline]
    fn pass_over_to(&mut self, to: u64) {
        match self {
            Self::Ring(batch) => batch.pass_over_to(Sequence(to)),
            Self::Journal { buffered, left, .. } => *left -= buffered.commit(to),
        }
    }

    #[inline]
    fn release(&mut self) {
        if let Self::Ring(batch) = self {
            batch.release();
        }
    }

    pub(super) fn ends_at_once(&self) -> bool {
        match self {
            Self::Ring(batch) => batch.ends_at_once(),
            Self::Journal { ring, .. } => matches!(ring.closed(), Some(Closed::Halted | Closed::Failed { .. })),
        }
    }
}

impl<E: Send + Sync + 'static, K: Producers> fmt::Debug for GroupBatch<'_, E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.held {
            None => f.write_str("GroupBatch of nothing"),
            Some(held) => write!(f, "GroupBatch of {} from {} of {}", held.events.len(), held.first(), held.name),
        }
    }
}

impl<E: Send + Sync + 'static, K: Producers> HeldBatch<'_, E, K> {
    /// The offset of the first uncommitted event, or the one after the batch if all are committed.
    pub(super) fn first(&self) -> u64 {
        self.events.position()
    }

    /// Waits until the group's committed offsets are durable. Does nothing for a topic in memory.
    pub(super) fn make_durable(&self) -> Result<(), CommitError> {
        let Some(durable) = &self.topic.durable else { return Ok(()) };
        durable.committer.commit_offsets().map_err(|cause| CommitError::NotDurable { cause })
    }

    /// Publishes the transaction's events and commits the events below offset `to`, in one frame of the journal. With
    /// [`Commit::AtMostOnce`], which has committed the batch already, only publishes.
    pub(super) fn commit_with(
        &mut self,
        to: u64,
        transaction: &mut Transaction,
    ) -> Result<Vec<BatchReceipt>, TransactionError> {
        let not_durable = || TransactionError::NotDurable { topic: self.topic.name.clone() };
        let committed_offset = Arc::clone(self.right.committed_offset().ok_or_else(not_durable)?);
        let durable = self.topic.durable.as_ref().ok_or_else(not_durable)?;
        if !transaction.is_of(&durable.committer) {
            return Err(not_durable());
        }
        if self.commit != Commit::AtMostOnce {
            // The journal must have the input events before this frame, so that a power cut which loses the input loses
            // the frame too.
            let written = durable.acks.progress(self.name.partition);
            let deadline = Instant::now().checked_add(WRITTEN);
            let notifier = &durable.acks.notifier;
            let is_there = || written.as_ref().is_none_or(|written| written.end(Visible::Written) >= to);
            notifier.wait(deadline, || (is_there() || notifier.end_cause().is_some()).then_some(()));
            if !is_there() {
                let own = notifier.is_own_thread().then_some(OWN_THREAD);
                let cause = own.or(notifier.end_cause()).unwrap_or("its input is not in the journal yet").to_owned();
                return Err(TransactionError::Refused { cause });
            }
            let value = committed_offset.value_at(to);
            let committed = transaction.commit_with(&FrameExtras {
                put: &|frame| frame.put(state_kind::GROUP_OFFSETS, committed_offset.key(), &value),
                decide: &|| {
                    let right = Arc::clone(self.right);
                    Box::new(move || right.commit_recorded(to))
                },
            });
            if let Err(refused) = &committed
                && !refused.is_late()
            {
                let is_fenced = matches!(refused, TransactionError::Refused { .. }) && self.right.is_fenced();
                return if is_fenced { Err(self.group.fenced(self.epoch).into()) } else { committed };
            }
            // The journal has the committed offset, also if the transaction is late.
            self.events.pass_over_to(to);
            self.events.release();
            self.signal.see(self.group.now());
            return committed;
        }
        transaction.commit_outputs()
    }

    pub(super) fn commit_to(&mut self, to: u64) -> Result<(), Fenced> {
        // With `AtMostOnce` the whole batch was committed before it was returned.
        if self.commit != Commit::AtMostOnce && !self.right.commit(to) {
            return Err(self.group.fenced(self.epoch));
        }
        self.events.pass_over_to(to);
        self.events.release();
        Ok(())
    }
}

impl<'m, E: Send + Sync + 'static, K: Producers> GroupBatch<'m, E, K> {
    /// The partition of the batch's events; `None` if the poll has returned no events.
    pub fn partition(&self) -> Option<&'m TopicPartition> {
        self.held.as_ref().map(|held| held.name)
    }

    /// The number of uncommitted events in the batch.
    pub fn len(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.events.len())
    }

    /// True if the poll has returned no events, or all of them are committed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Iterates over the uncommitted events, each with its partition and offset. May be called repeatedly.
    #[inline]
    pub fn iter(&self) -> GroupMessages<'_, E, K> {
        GroupMessages { inner: self.held.as_ref().map(|held| MessageIter::new(held)) }
    }

    /// Commits the whole batch, including events that were not iterated. The group continues at the offset after the
    /// batch.
    ///
    /// # Errors
    /// The member was fenced: nothing is committed, and its successor reads these events again.
    #[inline]
    pub fn commit(mut self) -> Result<(), Fenced> {
        match &mut self.held {
            Some(held) => held.commit_to(held.end),
            None => Ok(()),
        }
    }

    /// As [`commit`](Self::commit), and waits until the commit is durable, so that after any crash the group continues
    /// after this batch. Concurrent callers share a sync. Without a journal, this does not wait.
    ///
    /// A commit without this wait is written with the journal's next frame, or when the journal has been idle for 20
    /// ms, and synced with the next frame or a second later. After a crash, the last events that were committed without
    /// it may be read again.
    ///
    /// The commit is durable, but its events may not be: a group reads published events, and a power cut may take an
    /// event that was not durable yet. Its offset is not used again.
    ///
    /// # Errors
    /// The member was fenced, and nothing is committed; or the journal failed, and the batch is committed in this
    /// process only.
    pub fn commit_durable(mut self) -> Result<(), CommitError> {
        let Some(held) = &mut self.held else { return Ok(()) };
        held.commit_to(held.end)?;
        held.make_durable()
    }

    /// Commits the whole batch and publishes the events of `transaction` in one frame of the journal, and waits until
    /// that is durable: after any failure, both have happened or neither. Returns a receipt for each partition that got
    /// events.
    ///
    /// ```
    /// # use slipring::{Engine, journal::simulated::SimulatedDisk};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
    /// let orders = engine.topic::<u64>("orders").durable().create()?;
    /// let totals = engine.topic::<u64>("totals").durable().create()?;
    /// let mut member = orders.group("sums").join()?;
    /// orders.producer().create()?.publish_batch(3, |index, order| *order = index as u64)?;
    /// let batch = member.poll(Duration::from_secs(5))?.unwrap();
    /// let mut out = engine.transaction()?;
    /// let sum = batch.iter().map(|(order, _)| order).sum();
    /// out.publish(&totals, |total| *total = sum)?;
    /// batch.commit_with(out)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Nothing was published or committed, because the member was [fenced](TransactionError::Member), the topic is not
    /// in the transaction's journal, a partition had no room within the transaction's
    /// [patience](Transaction::patience), or the journal refused the frame. Or the disk failed meanwhile, and the
    /// outcome is [unknown](TransactionError::Unknown). Or the batch is committed and the transaction durable, but a
    /// topic of it had ended and is read when it is opened again: [late](TransactionError::Late).
    pub fn commit_with(mut self, mut transaction: Transaction) -> Result<Vec<BatchReceipt>, TransactionError> {
        match &mut self.held {
            Some(held) => held.commit_with(held.end, &mut transaction),
            None => transaction.commit(),
        }
    }
}

impl<E: Send + Sync + 'static> GroupBatch<'_, E, Single> {
    /// The uncommitted events as two slices. The second one is empty unless the batch wraps at the end of the ring's
    /// buffer. [`Commit::Auto`] does not count events that are read in this way as handled: commit the batch.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").single_producer().create()?;
    /// let mut member = ticks.group("sums").join()?;
    /// ticks.producer().create()?.publish_batch(3, |index, tick| *tick = index as u64)?;
    /// let batch = member.poll(Duration::ZERO)?.unwrap();
    /// let (head, tail) = batch.slices();
    /// assert_eq!(head.iter().chain(tail).sum::<u64>(), 3);
    /// batch.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn slices(&self) -> (&[E], &[E]) {
        match self.held.as_ref().map(|held| &held.events) {
            None => (&[], &[]),
            Some(BatchEvents::Ring(batch)) => batch.slices(),
            Some(BatchEvents::Journal { buffered, left, .. }) => (buffered.batch(*left).1, &[]),
        }
    }
}

impl<E: Send + Sync + 'static, K: Producers> GroupBatch<'_, E, K> {
    pub(super) fn count_skipped(&self) {
        if let Some(held) = &self.held {
            held.stats.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Passes the uncommitted events to the handler. Commits the handled ones after each `part` events, when the member
    /// is to stop or has changes, and at the end. Before each call of the handler, sets `culprit` to the event's
    /// offset. If the handler fails on an event, returns the error; the event is then the first uncommitted one. `None`
    /// if the handler has not failed. If the batch ended early because the topic was halted or has failed, or the
    /// member was fenced, the next poll returns that error.
    #[inline]
    pub(super) fn work<X: Display>(
        &mut self,
        handler: &mut impl FnMut(&E, At) -> Result<(), X>,
        culprit: &mut u64,
    ) -> Option<String> {
        let held = self.held.as_mut()?;
        let signal = held.signal;
        loop {
            let (mut uncommitted, mut done, mut failed) = (0, held.first(), None);
            for (event, at) in (GroupMessages { inner: Some(MessageIter::new(held)) }) {
                *culprit = at.offset;
                if let Err(error) = handler(event, at) {
                    failed = Some(error.to_string());
                    break;
                }
                done = at.offset + 1;
                uncommitted += 1;
                if uncommitted >= held.part || signal.stopped.load(Ordering::Relaxed) || signal.has_news() {
                    break;
                }
            }
            let committed = held.commit_to(done);
            held.signal.see(held.group.clock.coarse());
            let moot = held.events.ends_at_once() || signal.stopped.load(Ordering::Relaxed);
            if failed.is_some() || committed.is_err() || moot || held.events.len() == 0 {
                return failed;
            }
        }
    }
}

impl<E: Send + Sync + 'static, K: Producers> Drop for HeldBatch<'_, E, K> {
    #[inline]
    fn drop(&mut self) {
        match self.commit {
            Commit::Manual => {}
            Commit::Auto => {
                let handled = self.handled.get();
                if handled > self.first() {
                    // An error means that the member was fenced, which its next poll returns.
                    let _ = self.commit_to(handled);
                }
            }
            // The batch was committed before it was returned, so the events that were not handled are not read again.
            Commit::AtMostOnce => self.events.pass_over_to(self.end),
        }
    }
}

impl<'b, E: Send + Sync + 'static, K: Producers> IntoIterator for &'b GroupBatch<'_, E, K> {
    type Item = (&'b E, At);
    type IntoIter = GroupMessages<'b, E, K>;

    #[inline]
    fn into_iter(self) -> GroupMessages<'b, E, K> {
        self.iter()
    }
}

/// An iterator over the events of a [`GroupBatch`], each with its partition and offset.
pub struct GroupMessages<'b, E, K: Producers> {
    inner: Option<MessageIter<'b, E, K>>,
}

enum BatchIter<'b, E, K: Producers> {
    Ring(Iter<'b, E, K>),
    Journal { offsets: &'b [u64], events: &'b [E], end: u64 },
}

impl<'b, E, K: Producers> BatchIter<'b, E, K> {
    #[inline]
    fn position(&self) -> u64 {
        match self {
            Self::Ring(events) => events.position().0,
            Self::Journal { offsets, end, .. } => offsets.first().copied().unwrap_or(*end),
        }
    }

    #[inline]
    fn next(&mut self) -> Option<(u64, &'b E)> {
        match self {
            Self::Ring(events) => events.next().map(|(offset, event)| (offset.0, event)),
            Self::Journal { offsets, events, .. } => {
                let ((offset, offsets_left), (event, events_left)) = offsets.split_first().zip(events.split_first())?;
                (*offsets, *events) = (offsets_left, events_left);
                Some((*offset, event))
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Ring(events) => events.len(),
            Self::Journal { offsets, .. } => offsets.len(),
        }
    }

    #[inline]
    fn is_over(&self) -> bool {
        match self {
            Self::Ring(events) => events.is_over(),
            Self::Journal { offsets, .. } => offsets.is_empty(),
        }
    }
}

struct MessageIter<'b, E, K: Producers> {
    events: BatchIter<'b, E, K>,
    partition: u32,
    handled: &'b Cell<u64>,
    /// All events below this offset were handled: the iterator has returned them, and was then asked for the next
    /// event.
    done: u64,
}

impl<'b, E: Send + Sync + 'static, K: Producers> MessageIter<'b, E, K> {
    #[inline]
    fn new(held: &'b HeldBatch<'_, E, K>) -> Self {
        let events = match &held.events {
            BatchEvents::Ring(batch) => BatchIter::Ring(batch.iter()),
            BatchEvents::Journal { buffered, left, end, .. } => {
                let (offsets, events) = buffered.batch(*left);
                BatchIter::Journal { offsets, events, end: *end }
            }
        };
        Self { done: events.position(), events, partition: held.name.partition, handled: &held.handled }
    }
}

impl<'b, E, K: Producers> Iterator for GroupMessages<'b, E, K> {
    type Item = (&'b E, At);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let inner = self.inner.as_mut()?;
        // A request for the next event means that the one before it was handled.
        inner.done = inner.events.position();
        let (offset, event) = inner.events.next()?;
        Some((event, At { partition: inner.partition, offset, end_of_batch: inner.events.is_over() }))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.inner.as_ref().map_or(0, |inner| inner.events.len());
        (left, Some(left))
    }
}

impl<E, K: Producers> ExactSizeIterator for GroupMessages<'_, E, K> {}

impl<E, K: Producers> FusedIterator for GroupMessages<'_, E, K> {}

impl<E, K: Producers> Drop for MessageIter<'_, E, K> {
    #[inline]
    fn drop(&mut self) {
        if self.done > self.handled.get() {
            self.handled.set(self.done);
        }
    }
}
