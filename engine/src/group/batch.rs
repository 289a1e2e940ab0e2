//! What a member reads at a time, and how it commits that.

use super::Group;
use super::builder::Commit;
use super::error::{CommitError, Fenced};
use super::lease::Lease;
use super::link::Link;
use super::listener::TopicPartition;
use crate::overflow::Tally;
use crate::producer::Producers;
use crate::subscriber::At;
use slipring_ring::{Batch as RingBatch, Iter, Multi, Sequence};
use std::cell::Cell;
use std::fmt::{self, Display};
use std::sync::atomic::Ordering;

/// Events of one partition, in order, in a member's hands. Dropped without commit, they are read again, unless the
/// group [commits](crate::Commit) otherwise.
pub struct GroupBatch<'m, E, K: Producers = Multi>
where
    E: Send + Sync + 'static,
{
    /// None: nothing came.
    pub(super) held: Option<Held<'m, E, K>>,
}

pub(super) struct Held<'m, E, K: Producers>
where
    E: Send + Sync + 'static,
{
    pub(super) group: &'m Group<E, K>,
    pub(super) link: &'m Link,
    pub(super) epoch: u64,
    pub(super) name: &'m TopicPartition,
    pub(super) lease: &'m Lease,
    pub(super) commit: Commit,
    pub(super) events: RingBatch<'m, E, K>,
    /// The offset after the last one.
    pub(super) end: u64,
    pub(super) part: usize,
    pub(super) tally: &'m Tally,
    /// All below was handed out, and whoever handled it came back for more.
    pub(super) handled: Cell<u64>,
}

impl<E: Send + Sync + 'static, K: Producers> fmt::Debug for GroupBatch<'_, E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.held {
            None => f.write_str("GroupBatch of nothing"),
            Some(held) => write!(f, "GroupBatch of {} from {} of {}", held.events.len(), held.first(), held.name),
        }
    }
}

impl<E: Send + Sync + 'static, K: Producers> Held<'_, E, K> {
    /// The first offset that is not committed.
    fn first(&self) -> u64 {
        self.events.position().0
    }

    fn commit_to(&mut self, to: u64) -> Result<(), Fenced> {
        // Where nothing else was committed meanwhile, there is nothing to do.
        if self.commit != Commit::AtMostOnce && !self.lease.commit(to) {
            return Err(self.group.fenced(self.epoch));
        }
        self.events.pass_over_to(Sequence(to));
        self.events.release();
        Ok(())
    }
}

impl<'m, E: Send + Sync + 'static, K: Producers> GroupBatch<'m, E, K> {
    /// Where its events stand; none if nothing came.
    pub fn partition(&self) -> Option<&'m TopicPartition> {
        self.held.as_ref().map(|held| held.name)
    }

    /// How many events it has, less what was committed of it.
    pub fn len(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.events.len())
    }

    /// Whether nothing came, or all of it was committed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The events that are not committed, each with where it stands, any number of times.
    #[inline]
    pub fn iter(&self) -> GroupMessages<'_, E, K> {
        GroupMessages { inner: self.held.as_ref().map(|held| Handing::new(held)) }
    }

    /// Commits the whole batch, whether or not all of it was iterated: the group goes on behind it.
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

    /// Commits what lies below `offset`, which is then no longer part of the batch, and which producers may overwrite.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # let ticks = engine.topic::<u64>("ticks").create()?;
    /// # let mut member = ticks.group("sums").join()?;
    /// ticks.producer().create()?.publish_batch(3, |index, tick| *tick = index as u64)?;
    /// let mut batch = member.poll(Duration::ZERO)?.unwrap();
    /// batch.commit_to(2)?;
    /// drop(batch);
    /// let again = member.poll(Duration::ZERO)?.unwrap();
    /// assert!(again.iter().map(|(_, at)| at.offset).eq([2]));
    /// # drop(again);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The member was fenced, or the offset lies outside of the batch: nothing is committed.
    pub fn commit_to(&mut self, offset: u64) -> Result<(), CommitError> {
        let Some(held) = &mut self.held else {
            return Err(CommitError::OutOfBatch { asked: offset, first: 0, end: 0 });
        };
        let (first, end) = (held.first(), held.end);
        if !(first..=end).contains(&offset) {
            return Err(CommitError::OutOfBatch { asked: offset, first, end });
        }
        held.commit_to(offset)?;
        // Progress, as a poll is.
        held.link.see(held.group.now());
        Ok(())
    }
}

impl<E: Send + Sync + 'static, K: Producers> GroupBatch<'_, E, K> {
    pub(super) fn count_skipped(&self) {
        if let Some(held) = &self.held {
            held.tally.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands over what is not committed, and commits what was handled. The handler's error on the event at `culprit`,
    /// which is then the first that is not committed; none if the rest is for the next poll to tell.
    #[inline]
    pub(super) fn work<X: Display>(
        &mut self,
        handler: &mut impl FnMut(&E, At) -> Result<(), X>,
        culprit: &mut u64,
    ) -> Option<String> {
        let held = self.held.as_mut()?;
        let link = held.link;
        loop {
            let (mut kept, mut done, mut failed) = (0, held.first(), None);
            for (event, at) in (GroupMessages { inner: Some(Handing::new(held)) }) {
                *culprit = at.offset;
                if let Err(error) = handler(event, at) {
                    failed = Some(error.to_string());
                    break;
                }
                done = at.offset + 1;
                kept += 1;
                if kept >= held.part || link.stopped.load(Ordering::Relaxed) || link.has_news() {
                    break;
                }
            }
            let committed = held.commit_to(done);
            held.link.see(held.group.clock.coarse());
            let moot = held.events.is_moot() || link.stopped.load(Ordering::Relaxed);
            if failed.is_some() || committed.is_err() || moot || held.events.is_empty() {
                return failed;
            }
        }
    }
}

impl<E: Send + Sync + 'static, K: Producers> Drop for Held<'_, E, K> {
    #[inline]
    fn drop(&mut self) {
        match self.commit {
            Commit::Manual => {}
            Commit::Auto => {
                let handled = self.handled.get();
                if handled > self.first() {
                    // A fenced member is told by its next poll.
                    let _ = self.commit_to(handled);
                }
            }
            // It was committed before; what was not looked at is not read again.
            Commit::AtMostOnce => self.events.pass_over_to(Sequence(self.end)),
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

/// The events of a [`GroupBatch`], each with where it stands.
pub struct GroupMessages<'b, E, K: Producers> {
    inner: Option<Handing<'b, E, K>>,
}

struct Handing<'b, E, K: Producers> {
    events: Iter<'b, E, K>,
    partition: u32,
    handled: &'b Cell<u64>,
    /// All below was handled.
    done: u64,
}

impl<'b, E: Send + Sync + 'static, K: Producers> Handing<'b, E, K> {
    #[inline]
    fn new(held: &'b Held<'_, E, K>) -> Self {
        let events = held.events.iter();
        Self { done: events.position().0, events, partition: held.name.partition, handled: &held.handled }
    }
}

impl<'b, E, K: Producers> Iterator for GroupMessages<'b, E, K> {
    type Item = (&'b E, At);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let inner = self.inner.as_mut()?;
        // Whoever asks for the next one has done with the one before.
        inner.done = inner.events.position().0;
        let (sequence, event) = inner.events.next()?;
        Some((event, At { partition: inner.partition, offset: sequence.0, end_of_batch: inner.events.is_over() }))
    }
}

impl<E, K: Producers> Drop for Handing<'_, E, K> {
    #[inline]
    fn drop(&mut self) {
        if self.done > self.handled.get() {
            self.handled.set(self.done);
        }
    }
}
