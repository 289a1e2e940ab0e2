//! What happens when a partition is full, and to whom it is full because of.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a publish does when its partition is full: [`TopicBuilder::overflow`](crate::TopicBuilder::overflow). The forms
/// that try or have a deadline of their own ask for nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// Waits until there is room.
    #[default]
    Block,
    /// Waits so long, then is an error.
    BlockFor(Duration),
    /// Is an error at once. What was to be published is still the caller's: a record is borrowed, a closure was not
    /// called, and [`offer`](crate::Producer::offer) gives its value back.
    Fail,
    /// Drops what was to be published, and counts it. The receipt says so: see
    /// [`Receipt::is_dropped`](crate::Receipt::is_dropped).
    DropNewest,
}

/// What happens to a subscriber that a full partition waits for:
/// [`TopicBuilder::slow`](crate::TopicBuilder::slow) for all of a topic, or
/// [`SubscriberBuilder::slow`](crate::subscriber::SubscriberBuilder::slow) for one. Groups are waited for unless they
/// [spill](crate::group::GroupBuilder::spill).
///
/// A reader of a durable topic may spill, too: leave the ring when it is in the way, and go on from the journal until it has
/// caught up. That is a [replay](crate::Topic::replay), which may as well begin at the latest event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Slow {
    /// Producers wait for it, or are refused, as [`Overflow`] says.
    #[default]
    Gate,
    /// Producers wait so long for it, then it is evicted from all partitions, and is told with
    /// [`Closed::Evicted`](crate::topic::Closed::Evicted). Never in the middle of a batch: then it goes when that ends. A time that
    /// no clock reaches, such as [`Duration::MAX`], is never.
    EvictAfter(Duration),
}

impl Slow {
    /// False if the time after which it would be evicted, counted from `begun`, is beyond what the system's clock can tell:
    /// it is waited for as by [`Gate`](Self::Gate).
    pub(crate) fn evicts(self, begun: Instant) -> bool {
        matches!(self, Self::EvictAfter(patience) if begun.checked_add(patience).is_some())
    }

    /// Evicted as soon as it is in the way.
    pub const EVICT: Self = Self::EvictAfter(Duration::ZERO);
}

/// What a topic did with events that it had no room for. Nothing is counted while there is room.
#[derive(Default)]
pub(crate) struct TopicCounters {
    pub(crate) refused: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) limited: AtomicU64,
    pub(crate) delayed: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) evicted: AtomicU64,
    /// Slots in use that a snapshot has seen.
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

/// What is kept of a subscriber beside its positions, for all its partitions.
pub(crate) struct ConsumerStats {
    pub(crate) name: String,
    slow: Slow,
    /// Of a group that goes on from the journal: it never holds producers up.
    spills: AtomicBool,
    /// Events that its handler failed on and that were passed over.
    pub(crate) skipped: AtomicU64,
    /// Events whose time to live had passed.
    pub(crate) expired: AtomicU64,
    /// Offsets that were lost to damage, and gaps of such.
    pub(crate) lost: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) largest_batch: AtomicU64,
    /// So that an eviction counts once, however often it has to be asked for.
    pub(crate) evicted: AtomicBool,
    /// The [thread](crate::base::threads::token) that was given a batch last; 0 before the first.
    reader: AtomicUsize,
    /// Somebody may read: of a group, it has members.
    attended: AtomicBool,
}

impl ConsumerStats {
    /// A batch of `len` events was given.
    #[inline]
    pub(crate) fn batch(&self, len: usize) {
        self.reader.store(crate::base::threads::token(), Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        if len as u64 > self.largest_batch.load(Ordering::Relaxed) {
            self.largest_batch.fetch_max(len as u64, Ordering::Relaxed);
        }
    }

    /// A gap was met.
    pub(crate) fn lost(&self, offsets: &Range<u64>) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
        self.lost.fetch_add(offsets.end.saturating_sub(offsets.start), Ordering::Relaxed);
    }

    /// The calling thread has a batch in hand, until what is returned is dropped.
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

    /// Whether what is in hand is in the calling thread's, or in that of one which waits for the calling thread to return.
    pub(crate) fn is_held_here(&self) -> bool {
        let reader = self.reader.load(Ordering::Relaxed);
        reader == crate::base::threads::token() || crate::base::threads::waits_for_this_thread(reader)
    }

    /// Whether another thread than the calling one was given a batch last, and may come for more.
    pub(crate) fn is_read_elsewhere(&self) -> bool {
        let reader = self.reader.load(Ordering::Relaxed);
        reader != 0 && reader != crate::base::threads::token() && self.attended.load(Ordering::Relaxed)
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
        }
    }
}
