//! The appender: a producer's access to one partition, and its handling of a full partition.

use crate::base::clock::Timestamp;
use crate::base::handler_thread;
use crate::base::kind::Producers;
use crate::base::overload::{Overflow, Slow, TopicCounters};
use crate::base::when_full::{Task, WhenFull};
use crate::event::record::Record;
use crate::log::committer::STAGE;
use crate::log::producers::ProducerStamp;
use crate::topic::error::PublishError;
use crate::topic::partition::Partition;
use crate::topic::stage_name::without_generation;
use crate::topic::{Evicted, TopicCore};
use scopeguard::{ScopeGuard, guard};
use slipring_ring::{Claim, ClaimError, Wait};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) struct Appender<E, K: Producers> {
    pub(crate) ring: slipring_ring::Producer<E, K>,
    pub(crate) partition: Arc<Partition<E, K>>,
}

/// How the partition of an event is chosen: freely, by a key, or by the caller.
#[derive(Clone, Copy)]
pub(crate) enum Route<'k> {
    Any,
    Key(&'k [u8]),
    To(u32),
}

impl<'k> Route<'k> {
    pub(crate) fn of(record: &Record<'k>) -> Self {
        match (record.partition, record.key) {
            (Some(partition), _) => Self::To(partition),
            (None, Some(key)) => Self::Key(key),
            (None, None) => Self::Any,
        }
    }
}

/// The metadata of a claimed slot. A field is `None` if the topic has no timestamps, or the event needs no stamp.
#[derive(Clone, Copy, Default)]
pub(crate) struct SlotMeta {
    pub(crate) now: Option<Timestamp>,
    /// The producer number and the sequence for the journal. Set only for a publish of a single event.
    pub(crate) stamp: Option<ProducerStamp>,
}

/// What an attempt to claim slots does if there is no room: wait, return at once, wait until an instant, or have a task
/// woken.
#[derive(Clone, Copy)]
enum Attempt<'t> {
    Wait,
    Now,
    Until(Instant),
    Arm(&'t Task),
}

/// The appender of partition 0, which is given back when it is dropped. Not an [`Option`] that the drop empties: each
/// publish would check it.
pub(crate) type FirstAppender<E, K> = ScopeGuard<Appender<E, K>, fn(Appender<E, K>)>;

/// The appender of a partition that `Producer::route` has returned.
#[inline(always)]
pub(crate) fn appender_of<'p, E, K: Producers>(
    first: &'p mut FirstAppender<E, K>,
    more: &'p mut [Option<Appender<E, K>>],
    to: u32,
) -> &'p mut Appender<E, K> {
    match to {
        0 => first,
        _ => more[to as usize - 1].as_mut().expect("made by the route"),
    }
}

impl<E, K: Producers> Appender<E, K> {
    pub(crate) fn lend(partition: &Arc<Partition<E, K>>, wait: &Wait) -> Option<Self> {
        let mut ring = partition.lend()?;
        ring.set_wait(wait.clone());
        Some(Self { ring, partition: Arc::clone(partition) })
    }

    /// This appender as a producer's first.
    pub(crate) fn first(self) -> FirstAppender<E, K> {
        guard(self, Self::give_back)
    }

    /// Gives the ring back to its partition, for the next producer.
    pub(crate) fn give_back(self) {
        self.partition.give_back(self.ring);
    }

    /// Claims `len` slots, stores their metadata, calls `fill` with each event, and publishes them. Returns the first
    /// offset. If `DRY`, drops the claim instead, to find out if there is room: only for a single producer, whose
    /// dropped claims leave no trace.
    #[inline]
    fn attempt<const DRY: bool>(
        &mut self,
        attempt: Attempt<'_>,
        len: usize,
        meta: SlotMeta,
        fill: &mut impl FnMut(usize, &mut E, Option<Timestamp>),
    ) -> Result<u64, ClaimError> {
        let mut claim = match attempt {
            Attempt::Wait => self.ring.claim(len)?,
            Attempt::Now => self.ring.try_claim(len)?,
            Attempt::Until(deadline) => self.ring.claim_until(len, deadline)?,
            Attempt::Arm(task) => {
                let claimed = self.ring.claim_or_arm(len, &task.waiter, 0)?;
                task.waits.set(claimed.is_none());
                claimed.ok_or(ClaimError::Full)?
            }
        };
        let first = claim.sequences().first.0;
        if DRY {
            return Ok(first);
        }
        if let Some(stamp) = meta.stamp {
            self.partition.stamps().set(first, stamp);
        }
        for (index, (offset, event)) in claim.iter_mut().enumerate() {
            if let (Some(times), Some(now)) = (&self.partition.times, meta.now) {
                times.set(offset.0, now);
            }
            fill(index, event, meta.now);
        }
        claim.commit()?;
        Ok(first)
    }

    /// Publishes `len` events and returns the first offset; `None` if the topic's policy has dropped the events. If
    /// there is no room, waits, evicts or refuses, according to `full` and the topic's policies.
    #[inline]
    pub(crate) fn publish(
        &mut self,
        topic: &TopicCore<E, K>,
        full: WhenFull<'_>,
        len: usize,
        meta: SlotMeta,
        fill: &mut impl FnMut(usize, &mut E, Option<Timestamp>),
    ) -> Result<Option<u64>, PublishError> {
        match self.attempt::<false>(Attempt::Now, len, meta, fill) {
            Ok(first) => Ok(Some(first)),
            Err(refused) => self.overflow::<false, _>(topic, full, len, meta, fill, refused),
        }
    }

    /// Claims `len` slots for which a single producer has just found [room](Self::make_room), and stores their
    /// metadata.
    pub(crate) fn open(
        &mut self,
        topic: &TopicCore<E, K>,
        len: usize,
        meta: SlotMeta,
    ) -> Result<Claim<'_, E, K>, PublishError> {
        let Self { ring, partition } = self;
        // The claim is refused only if the topic has ended since.
        let claim = ring
            .try_claim(len)
            .map_err(|refused| PublishError::new(&topic.name, partition.index, refused, 0, || None))?;
        let first = claim.sequences().first.0;
        if let Some(stamp) = meta.stamp {
            partition.stamps().set(first, stamp);
        }
        if let (Some(times), Some(now)) = (&partition.times, meta.now) {
            (first..first + len as u64).for_each(|offset| times.set(offset, now));
        }
        Ok(claim)
    }

    /// Makes room for `len` events of a single producer by waiting or evicting, according to `full` and the topic's
    /// policies, or returns an error. True if there is room; false if the events are to be dropped.
    #[inline(never)]
    pub(crate) fn make_room(
        &mut self,
        topic: &TopicCore<E, K>,
        full: WhenFull<'_>,
        len: usize,
    ) -> Result<bool, PublishError> {
        debug_assert!(K::SINGLE, "another producer could take the room");
        let nothing = &mut |_: usize, _: &mut E, _: Option<Timestamp>| ();
        match self.attempt::<true>(Attempt::Now, len, SlotMeta::default(), nothing) {
            Ok(_) => Ok(true),
            Err(refused) => self
                .overflow::<true, _>(topic, full, len, SlotMeta::default(), nothing, refused)
                .map(|first| first.is_some()),
        }
    }

    #[cold]
    #[inline(never)]
    fn overflow<const DRY: bool, F: FnMut(usize, &mut E, Option<Timestamp>)>(
        &mut self,
        topic: &TopicCore<E, K>,
        full: WhenFull<'_>,
        len: usize,
        meta: SlotMeta,
        fill: &mut F,
        mut refused: ClaimError,
    ) -> Result<Option<u64>, PublishError> {
        let begun = if let WhenFull::Arm(task) = full { task.begun } else { Instant::now() };
        let deadline = match (full, topic.settings.overflow) {
            (WhenFull::Until(deadline), _) => Some(deadline),
            (WhenFull::Policy, Overflow::BlockFor(limit)) => begun.checked_add(limit),
            _ => None,
        };
        if let Some(cause) = topic.durable.as_ref().and_then(|durable| durable.committer.notifier.forked_cause()) {
            // A forked process has none of the threads that could make room. After `fork` the rings have failed before
            // this; after a bare `clone` system call they fail here, and the attempt returns that error.
            topic.fail_all(STAGE, &cause);
            refused = match self.attempt::<DRY>(Attempt::Now, len, meta, fill) {
                Ok(first) => return Ok(Some(first)),
                Err(why) => why,
            };
        }
        // True if nobody can be evicted now: who was evicted still has a batch in hand, or nobody was named.
        let mut is_leaving = false;
        while refused == ClaimError::Full && topic.evicts() {
            let waits = matches!(
                (full, topic.settings.overflow),
                (WhenFull::Until(_), _) | (WhenFull::Policy, Overflow::Block | Overflow::BlockFor(_))
            );
            let slowest = self.ring.slowest().filter(|_| !is_leaving).and_then(|it| topic.slow(it));
            let slowest = slowest.filter(|(_, slow)| slow.evicts(begun));
            is_leaving = false;
            let Some((slowest, Slow::EvictAfter(patience))) = slowest else {
                // The slowest consumer cannot be evicted: it is the committer, its policy is to be waited for, or it was
                // evicted and ends its batch. After a short wait for it this checks again, because a consumer that can
                // be evicted may be the slowest by then.
                let soon = Instant::now() + (begun.elapsed() / 8).clamp(SLOWEST_CHECK, 20 * SLOWEST_CHECK);
                let own = || handler_thread::consumer_of(topic.id, self.partition.index);
                if !waits
                    || deadline.is_some_and(|deadline| deadline <= soon)
                    || own().is_some_and(|own| self.waits_for(&own))
                {
                    break;
                }
                match self.attempt::<DRY>(Attempt::Until(soon), len, meta, fill) {
                    Ok(first) => return Ok(Some(first)),
                    Err(ClaimError::TimedOut { .. }) => continue,
                    Err(other) => {
                        refused = other;
                        break;
                    }
                }
            };
            let until = begun.checked_add(patience).filter(|_| !patience.is_zero());
            let out_of_time = deadline.zip(until).is_some_and(|(deadline, until)| deadline < until);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match (until, full) {
                (Some(_), WhenFull::Arm(task)) if left > Some(Duration::ZERO) => {
                    task.wake_after(&topic.host.timer, left.unwrap_or_default());
                    break;
                }
                (Some(_), WhenFull::Arm(_)) => {}
                // Nothing is evicted: the publish may not wait, or its deadline comes before the eviction is allowed.
                (Some(_), _) if out_of_time || !waits => break,
                (Some(until), _) => match self.attempt::<DRY>(Attempt::Until(until), len, meta, fill) {
                    Ok(first) => return Ok(Some(first)),
                    // By now another consumer may be the slowest, with a time limit of its own.
                    Err(ClaimError::TimedOut { by }) if by.as_ref() != Some(&slowest) => {
                        refused = ClaimError::Full;
                        is_leaving = by.is_none();
                        continue;
                    }
                    Err(ClaimError::TimedOut { .. }) => {}
                    Err(other) => {
                        refused = other;
                        break;
                    }
                },
                (None, _) => {}
            }
            let evicted = topic.evict_slow(&slowest);
            match self.attempt::<DRY>(Attempt::Now, len, meta, fill) {
                Ok(first) => return Ok(Some(first)),
                Err(other) => refused = other,
            }
            is_leaving = evicted != Evicted::Gone;
        }
        if refused == ClaimError::Full {
            let last = match (full, topic.settings.overflow) {
                (WhenFull::Until(deadline), _) => Attempt::Until(deadline),
                (WhenFull::Policy, Overflow::Block) => Attempt::Wait,
                (WhenFull::Policy, Overflow::BlockFor(_)) => deadline.map_or(Attempt::Wait, Attempt::Until),
                (WhenFull::Arm(task), Overflow::Block | Overflow::BlockFor(_)) => Attempt::Arm(task),
                (WhenFull::Policy | WhenFull::Arm(_), Overflow::DropNewest) => {
                    TopicCounters::add(&topic.counts.dropped, len);
                    return Ok(None);
                }
                (WhenFull::Refuse | WhenFull::Later, _) | (WhenFull::Policy | WhenFull::Arm(_), Overflow::Fail) => {
                    if !matches!(full, WhenFull::Later) {
                        TopicCounters::add(&topic.counts.refused, len);
                    }
                    let (slowest, missing) = (self.ring.slowest(), self.ring.missing(len));
                    return Err(PublishError::new(&topic.name, self.partition.index, refused, missing, || slowest));
                }
            };
            let own = matches!(last, Attempt::Wait)
                .then(|| handler_thread::consumer_of(topic.id, self.partition.index))
                .flatten();
            refused = loop {
                let next = match &own {
                    // The handler on this thread would wait for its own consumer to move, so the publish is refused.
                    Some(own) if self.waits_for(own) => {
                        TopicCounters::add(&topic.counts.refused, len);
                        let (topic, consumer) = (topic.name.clone(), own.clone());
                        return Err(PublishError::OwnConsumer { topic, partition: self.partition.index, consumer });
                    }
                    // Another consumer is further behind at the moment: waits for it, and then checks again.
                    Some(_) => Attempt::Until(Instant::now() + OWN_CONSUMER_CHECK),
                    None => last,
                };
                match self.attempt::<DRY>(next, len, meta, fill) {
                    Ok(first) => return Ok(Some(first)),
                    Err(ClaimError::TimedOut { .. }) if own.is_some() => {}
                    Err(other) => break other,
                }
            };
        }
        if let ClaimError::TimedOut { .. } = refused {
            TopicCounters::add(&topic.counts.timed_out, len);
        }
        let missing = self.ring.missing(len);
        Err(PublishError::new(&topic.name, self.partition.index, refused, missing, || None))
    }
}

impl<E, K: Producers> Appender<E, K> {
    /// True if `consumer` is the slowest consumer of this partition, or one of several: then there is no room before it
    /// moves.
    fn waits_for(&self, consumer: &str) -> bool {
        let stages = self.partition.ring.positions().stages;
        let most = stages.iter().map(|stage| stage.lag).max();
        stages.iter().any(|stage| without_generation(&stage.name) == consumer && Some(stage.lag) == most)
    }
}

/// The time between two checks by which a producer that waits inside a handler finds out that it waits for the
/// handler's own consumer.
const OWN_CONSUMER_CHECK: Duration = Duration::from_millis(10);

/// The least time for which a publish waits for a consumer that cannot be evicted before it checks again which consumer of
/// the full partition is the slowest.
const SLOWEST_CHECK: Duration = Duration::from_millis(1);
