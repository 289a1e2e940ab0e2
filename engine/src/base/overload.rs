//! What happens when a partition is full, and the counters of topics and consumers.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a publish does when its partition is full, set with [`TopicBuilder::overflow`](crate::TopicBuilder::overflow).
/// It does not apply to the methods that never wait (`try_` methods and [`offer`](crate::Producer::offer)), or that
/// have a deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// Waits until there is room.
    #[default]
    Block,
    /// Waits for room for at most this time, then returns an error.
    BlockFor(Duration),
    /// Returns an error at once. The caller still has the event: a record is only borrowed, a closure is not called,
    /// and [`offer`](crate::Producer::offer) returns its value in the error.
    Fail,
    /// Drops the event, counts it as dropped, and returns a receipt of which
    /// [`Receipt::is_dropped`](crate::Receipt::is_dropped) is true.
    DropNewest,
}

impl Overflow {
    /// True if a publish into a full partition waits.
    pub(crate) fn waits(self) -> bool {
        match self {
            Self::Block | Self::BlockFor(_) => true,
            Self::Fail | Self::DropNewest => false,
        }
    }
}

/// What producers do when a full partition has no room because one subscriber has not read far enough. Set with
/// [`TopicBuilder::slow`](crate::TopicBuilder::slow) for all subscribers of a topic, or with
/// [`SubscriberBuilder::slow`](crate::subscriber::SubscriberBuilder::slow) for one. Groups are never evicted: producers
/// wait for a group, unless it [spills](crate::group::GroupBuilder::spill).
///
/// A reader of a durable topic can spill too: when producers would wait for it, it leaves the ring and reads from the
/// journal until it has caught up. Such a reader is a [replay](crate::Topic::replay), which may also begin at the
/// latest event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Slow {
    /// Producers wait for the subscriber without limit, or their publish fails, as [`Overflow`] says.
    #[default]
    Gate,
    /// Producers wait for the subscriber for at most this time. Then it is evicted from all partitions, and its next
    /// call returns [`Closed::Evicted`](crate::topic::Closed::Evicted). A subscriber that holds a batch is evicted when
    /// the batch ends. A time beyond the clock's range, such as [`Duration::MAX`], means never.
    EvictAfter(Duration),
}

impl Slow {
    /// True if a subscriber for which producers have waited since `begun` is to be evicted, now or at a later time.
    /// False for [`Gate`](Self::Gate), and if the time of the eviction is beyond the clock's range.
    pub(crate) fn evicts(self, begun: Instant) -> bool {
        matches!(self, Self::EvictAfter(patience) if begun.checked_add(patience).is_some())
    }

    /// Evicts the subscriber as soon as producers would wait for it.
    pub const EVICT: Self = Self::EvictAfter(Duration::ZERO);
}

/// Counters of publishes that a full partition, a rate limit or a known message id has affected, for a topic. A publish
/// that none of them affects counts nothing.
#[derive(Default)]
pub(crate) struct TopicCounters {
    pub(crate) refused: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) limited: AtomicU64,
    pub(crate) delayed: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) evicted: AtomicU64,
    /// Highest count of slots in use at any metrics snapshot so far; all slots, if a producer had found a partition
    /// full by then.
    pub(crate) high_water: AtomicU64,
}

impl TopicCounters {
    pub(crate) fn read(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }

    pub(crate) fn add(count: &AtomicU64, events: usize) {
        count.fetch_add(events as u64, Ordering::Relaxed);
    }
}

/// Counters and state of a consumer, for all its partitions.
pub(crate) struct ConsumerStats {
    pub(crate) name: String,
    slow: Slow,
    /// True for a group that spills to the journal: producers never wait for it, but evict it from the ring at once.
    spills: AtomicBool,
    /// Count of events that were skipped because the handler failed on them.
    pub(crate) skipped: AtomicU64,
    /// Count of events that were skipped because their time to live had passed.
    pub(crate) expired: AtomicU64,
    /// Count of offsets that were lost to damage; `gaps` counts the ranges that they form.
    pub(crate) lost: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) largest_batch: AtomicU64,
    /// True once the consumer's eviction was counted, so that concurrent evictions of one consumer count once. False
    /// again when a replay reads on in the journal after its eviction, or a group has rejoined the ring.
    pub(crate) evicted: AtomicBool,
    /// The [token](crate::base::threads::token) of the thread that got the last batch. 0 before the first batch, and
    /// after the end of a batch that was marked with [`hold`](Self::hold).
    reader: AtomicUsize,
    /// False if no thread reads for this consumer: it is a group that has no members, or a replay that has read a
    /// closed topic to its end.
    attended: AtomicBool,
    /// True if the consumer may read the topic from the journal; while it does, it has no stage in a ring.
    in_journal: bool,
}

impl ConsumerStats {
    /// Counts a batch of `len` events, and records the calling thread as its reader.
    #[inline]
    pub(crate) fn batch(&self, len: usize) {
        self.reader.store(crate::base::threads::token(), Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        if len as u64 > self.largest_batch.load(Ordering::Relaxed) {
            self.largest_batch.fetch_max(len as u64, Ordering::Relaxed);
        }
    }

    /// Counts a gap.
    pub(crate) fn lost(&self, offsets: &Range<u64>) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
        self.lost.fetch_add(offsets.end.saturating_sub(offsets.start), Ordering::Relaxed);
    }

    /// Marks the calling thread as holding a batch, until the returned value is dropped.
    pub(crate) fn hold(&self) -> impl Drop + use<'_> {
        struct Held<'s>(&'s ConsumerStats);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                self.0.reader.store(0, Ordering::Relaxed);
            }
        }
        self.reader.store(crate::base::threads::token(), Ordering::Relaxed);
        Held(self)
    }

    /// True if the calling thread got the last batch, or a thread that waits for the calling thread to end did. A
    /// shutdown does not wait for such a consumer, because it would wait for itself.
    pub(crate) fn is_held_here(&self) -> bool {
        let reader = self.reader.load(Ordering::Relaxed);
        reader == crate::base::threads::token() || crate::base::threads::waits_for_this_thread(reader)
    }

    /// True if another thread than the calling one got the last batch, so that thread may poll again. False before the
    /// first batch, after the end of a batch that was marked with [`hold`](Self::hold), or if no thread reads for the
    /// consumer, for example because it is a group without members.
    pub(crate) fn is_read_elsewhere(&self) -> bool {
        let reader = self.reader.load(Ordering::Relaxed);
        reader != 0 && reader != crate::base::threads::token() && self.attended.load(Ordering::Relaxed)
    }

    /// True if the consumer may read the topic from the journal, without a stage in a ring, and a thread reads for it.
    pub(crate) fn reads_journal(&self) -> bool {
        self.in_journal && self.attended.load(Ordering::Relaxed)
    }

    pub(crate) fn set_attended(&self, attended: bool) {
        self.attended.store(attended, Ordering::Relaxed);
    }

    pub(crate) fn slow(&self) -> Slow {
        if self.spills.load(Ordering::Relaxed) { Slow::EVICT } else { self.slow }
    }

    pub(crate) fn set_spills(&self, spills: bool) {
        self.spills.store(spills, Ordering::Relaxed);
    }

    /// The counters of a consumer that may read the topic from the journal.
    pub(crate) fn in_journal(name: &str, slow: Slow) -> Self {
        Self { in_journal: true, ..Self::new(name, slow) }
    }

    pub(crate) fn new(name: &str, slow: Slow) -> Self {
        Self {
            name: name.to_owned(),
            slow,
            spills: AtomicBool::new(false),
            skipped: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            largest_batch: AtomicU64::new(0),
            evicted: AtomicBool::new(false),
            reader: AtomicUsize::new(0),
            attended: AtomicBool::new(true),
            in_journal: false,
        }
    }
}
