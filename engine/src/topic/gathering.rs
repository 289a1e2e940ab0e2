//! The producers of a topic that gather records, and the end of their records when the topic ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the end of a topic waits, without progress, for room or for a polled consumer that has unread events and holds
/// no batch, if only the calling thread reads the topic, or no thread. While another thread may read, the end waits up to
/// its whole limit.
pub(crate) const STALL_LIMIT: Duration = Duration::from_millis(500);

/// The interval at which the end of a topic checks the positions of consumers and the gathered records.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// A producer that gathers records before it publishes them.
pub(crate) trait Gatherer: Send + Sync {
    /// Count of records that are gathered and neither published nor given up.
    fn gathered(&self) -> usize;
    /// Publishes the gathered records that have room, without waiting. If none is left, the producer takes no more.
    fn flush_last(&self) -> LastFlush;
    /// Gives up the gathered records and takes no more. Does not wait for a thread that has them.
    fn give_up(&self) -> LastFlush;
}

/// How far a producer is with its last records.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastFlush {
    /// No record is left, and none will come.
    Done,
    /// A partition has no room, because a consumer has not read it.
    Full,
    /// The remaining records wait for a rate limit, or for another producer to commit its claim. They can be published
    /// then without any consumer reading.
    Later,
    /// Another thread has borrowed the producer's buffer.
    Busy,
    /// The calling thread itself has borrowed the producer's buffer, in an outer call: for example, a partitioner that
    /// the producer called ends the topic.
    Here,
}

/// The gathering producers of a topic.
#[derive(Default)]
pub(crate) struct Gathering {
    /// The producers, each from its creation until its last handle is dropped or the topic has ended.
    list: Mutex<GathererList>,
    /// Count of records that were given up.
    unpublished: AtomicU64,
    /// True once the topic is about to be closed: producers take no more records, so that the last ones can be published.
    is_ending: AtomicBool,
}

#[derive(Default)]
struct GathererList {
    next: u64,
    by_key: BTreeMap<u64, Arc<dyn Gatherer>>,
}

impl Gathering {
    fn list(&self) -> MutexGuard<'_, GathererList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a producer, and returns its key.
    pub(crate) fn add(&self, gatherer: Arc<dyn Gatherer>) -> u64 {
        let mut list = self.list();
        let key = list.next;
        list.next += 1;
        list.by_key.insert(key, gatherer);
        key
    }

    pub(crate) fn remove(&self, key: u64) {
        // Dropped without the lock, because a producer's drop wakes other threads.
        let removed = self.list().by_key.remove(&key);
        drop(removed);
    }

    fn all(&self) -> Vec<(u64, Arc<dyn Gatherer>)> {
        self.list().by_key.iter().map(|(key, gatherer)| (*key, Arc::clone(gatherer))).collect()
    }

    /// True once producers take no more records.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Acquire)
    }

    /// Counts records that were given up.
    pub(crate) fn note_unpublished(&self, count: usize) {
        self.unpublished.fetch_add(count as u64, Ordering::AcqRel);
    }

    /// Count of records that producers have taken and that are not published: those that were given up, and those that
    /// are gathered now.
    pub(super) fn unpublished(&self) -> u64 {
        let gathered = self.all().iter().map(|(_, gatherer)| gatherer.gathered() as u64).sum::<u64>();
        self.unpublished.load(Ordering::Acquire) + gathered
    }

    /// Publishes the gathered records and takes no more. Waits for room until `deadline`; but while `is_awaited` says
    /// that no other thread makes room, only until nothing has been published for [`STALL_LIMIT`].
    pub(super) fn flush(&self, deadline: Instant, is_awaited: impl Fn() -> bool) {
        self.is_ending.store(true, Ordering::Release);
        let mut before = u64::MAX;
        let mut moved = Instant::now();
        loop {
            let all = self.all();
            let states: Vec<_> = all.iter().map(|(_, gatherer)| gatherer.flush_last()).collect();
            if states.iter().all(|state| matches!(state, LastFlush::Done | LastFlush::Here)) {
                return;
            }
            let now = all.iter().map(|(_, gatherer)| gatherer.gathered() as u64).sum();
            if now != before {
                (before, moved) = (now, Instant::now());
            }
            let is_awaited = states.contains(&LastFlush::Later) || is_awaited();
            let until = if is_awaited { deadline } else { deadline.min(moved + STALL_LIMIT) };
            if until <= Instant::now() {
                return;
            }
            std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Gives up the records that are left when the topic is closed, and forgets the producers. Waits up to `limit` for a
    /// producer that another thread uses: that thread has an error soon, because the rings are closed.
    pub(super) fn give_up(&self, limit: Duration) {
        let until = Instant::now() + limit;
        loop {
            let mut is_busy = false;
            for (key, gatherer) in self.all() {
                match gatherer.give_up() {
                    LastFlush::Done => self.remove(key),
                    state => is_busy |= state == LastFlush::Busy,
                }
            }
            if !is_busy || until <= Instant::now() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}
