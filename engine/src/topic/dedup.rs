//! Deduplication: a topic publishes each message id only once within a window, which is limited by time or by count.

use crate::base::kind::Producers;
use crate::base::overload::{Overflow, TopicCounters};
use crate::base::when_full::WhenFull;
use crate::topic::TopicCore;
use crate::topic::durable::DurableTopic;
use crate::topic::error::{PublishError, TopicError};
use slipring_journal::{self as journal, Cursor, Extent, Start, Visible};
use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// How many message [ids](crate::Record::id) a topic remembers, and for how long: see
/// [`TopicBuilder::deduplicate`](crate::TopicBuilder::deduplicate).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deduplication {
    ids: usize,
    age: Option<Duration>,
}

impl Deduplication {
    /// Remembers the last `ids` ids of the topic, whatever their age. 0 counts as 1.
    pub fn last(ids: usize) -> Self {
        Self { ids: ids.max(1), age: None }
    }

    /// Remembers the ids that were published within `age`, by the engine's clock, and at most 1,048,576 ids.
    /// [`at_most`](Self::at_most) changes that number.
    pub fn within(age: Duration) -> Self {
        Self { ids: 1 << 20, age: Some(age) }
    }

    /// Remembers at most `ids` ids: if there are more, the oldest are forgotten before their age is reached. 0 counts
    /// as 1. An id takes about 80 bytes of memory.
    pub fn at_most(self, ids: usize) -> Self {
        Self { ids: ids.max(1), ..self }
    }
}

/// A function that returns an event's id; `None` if the event has no id.
pub(crate) type IdOf<E> = fn(&E) -> Option<&[u8]>;

/// The message ids that a topic remembers.
pub(crate) struct DedupIndex {
    window: Deduplication,
    /// The two keyed hash functions. An id is stored as its two hashes, 128 bits together.
    hashers: [RandomState; 2],
    known: Mutex<KnownIds>,
    /// Notified when the message of a claimed id was published, and when a claim was dropped without a publish.
    settled: Condvar,
}

#[derive(Default)]
struct KnownIds {
    ids: HashMap<u128, IdState, BuildHasherDefault<IdHasher>>,
    /// The published ids in the order of publishing, each with the time when it expires, by the engine's clock.
    order: VecDeque<(u128, Duration)>,
}

enum IdState {
    /// A producer is about to publish a message with this id, on this thread.
    Claimed(ThreadId),
    At(u32, u64),
}

/// The hasher of a map whose keys are hashes already: returns the low 64 bits of the key.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }
}

impl KnownIds {
    fn expire(&mut self, window: Deduplication, now: Duration) {
        while let Some((id, until)) = self.order.front()
            && (self.order.len() > window.ids || *until <= now)
        {
            self.ids.remove(id);
            self.order.pop_front();
        }
    }
}

/// A producer's claim of an id, whose message it is about to publish. While it exists, no other producer publishes a
/// message with this id. If it is dropped before [`settle`](Self::settle), another producer may claim the id.
pub(crate) struct ClaimedId {
    ids: Arc<DedupIndex>,
    id: u128,
    /// True once the message was published. The id may then expire and be claimed by another producer, so the drop must
    /// not remove the id.
    settled: bool,
}

/// The result of claiming a message's id: see [`DedupIndex::begin`].
pub(crate) enum IdOutcome {
    First(ClaimedId),
    /// A message with this id was published before, at this partition and offset. The producer publishes nothing.
    Duplicate(u32, u64),
}

impl DedupIndex {
    pub(crate) fn new(window: Deduplication) -> Self {
        let mut known = KnownIds::default();
        // Memory is reserved ahead for up to 65,536 ids. If that fails, the maps grow as ids are added.
        let _ = known.ids.try_reserve(window.ids.min(1 << 16));
        let _ = known.order.try_reserve(window.ids.min(1 << 16) + 1);
        Self {
            window,
            hashers: [RandomState::new(), RandomState::new()],
            known: Mutex::new(known),
            settled: Condvar::new(),
        }
    }

    fn known(&self) -> MutexGuard<'_, KnownIds> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, id: &[u8]) -> u128 {
        let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one(id));
        u128::from(high) << 64 | u128::from(low)
    }

    fn until(&self, published: Duration) -> Duration {
        self.window.age.map_or(Duration::MAX, |age| published.saturating_add(age))
    }

    /// Claims an id, or returns the partition and offset of its message. While another producer holds a claim of the
    /// id, waits or returns an error, as `full` and the topic's policy for full partitions say. Never waits for a claim
    /// of the calling thread, nor on the journal's own threads, for which the claim's publish may wait.
    pub(crate) fn begin<E, K: Producers>(
        self: &Arc<Self>,
        topic: &TopicCore<E, K>,
        id: &[u8],
        full: WhenFull<'_>,
    ) -> Result<IdOutcome, PublishError> {
        let id = self.hash(id);
        let own = std::thread::current().id();
        let claimed = || PublishError::IdClaimed { topic: topic.name.clone() };
        let mut begun = None;
        loop {
            // The clock is user code, so it is read before the lock is taken.
            let now = topic.host.clock.now();
            let mut known = self.known();
            known.expire(self.window, now);
            let by = match known.ids.entry(id) {
                Entry::Vacant(free) => {
                    free.insert(IdState::Claimed(own));
                    return Ok(IdOutcome::First(ClaimedId { ids: Arc::clone(self), id, settled: false }));
                }
                Entry::Occupied(there) => match *there.get() {
                    IdState::At(partition, offset) => return Ok(IdOutcome::Duplicate(partition, offset)),
                    IdState::Claimed(by) => by,
                },
            };
            let never = matches!(full, WhenFull::Refuse | WhenFull::Later) || by == own || topic.may_wait().is_err();
            let by_policy = topic.settings.overflow.waits();
            if never || !(by_policy || matches!(full, WhenFull::Until(_))) {
                if !matches!(full, WhenFull::Later) {
                    TopicCounters::add(&topic.counts.refused, 1);
                }
                return Err(claimed());
            }
            let deadline = match (full, topic.settings.overflow) {
                (WhenFull::Arm(task), _) => {
                    drop(known);
                    task.wake_after(&topic.host.timer, Duration::from_millis(1));
                    return Err(claimed());
                }
                (WhenFull::Until(deadline), _) => Some(deadline),
                (_, Overflow::BlockFor(limit)) => begun.get_or_insert_with(Instant::now).checked_add(limit),
                _ => None,
            };
            let Some(deadline) = deadline else {
                drop(self.settled.wait(known).unwrap_or_else(PoisonError::into_inner));
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                TopicCounters::add(&topic.counts.timed_out, 1);
                return Err(claimed());
            }
            drop(self.settled.wait_timeout(known, left).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl ClaimedId {
    /// Records that the claim's message was published, at this partition and offset, at the time `now`.
    pub(crate) fn settle(&mut self, partition: u32, offset: u64, now: Duration) {
        self.settled = true;
        let mut known = self.ids.known();
        known.ids.insert(self.id, IdState::At(partition, offset));
        known.order.push_back((self.id, self.ids.until(now)));
        known.expire(self.ids.window, now);
        drop(known);
    }
}

impl Drop for ClaimedId {
    fn drop(&mut self) {
        let mut known = self.ids.known();
        if !self.settled {
            known.ids.remove(&self.id);
        }
        drop(known);
        self.ids.settled.notify_all();
    }
}

/// Restores the remembered ids from the journal when a durable topic is opened. Does nothing for a topic in memory.
pub(crate) fn restore<E: Send + Sync + 'static, K: Producers>(
    topic: &TopicCore<E, K>,
    id_of: IdOf<E>,
) -> Result<(), TopicError> {
    let (Some(durable), Some(ids)) = (&topic.durable, &topic.ids) else { return Ok(()) };
    if durable.journal().sabotage().forget_ids {
        return Ok(());
    }
    let refused = |cause: String| TopicError::Journal { name: topic.name.clone(), cause };
    let (now, wall) = (topic.host.clock.now(), topic.host.clock.wall());
    let wall = wall.as_nanos();
    let age = |written: u64| Duration::from_nanos(wall.saturating_sub(written));
    let mut make = (topic.slots)(1).map_err(|cause| refused(cause.to_string()))?;
    let mut event = make();
    drop(make);
    let mut back: Vec<BackwardScan> = topic
        .partitions()
        .iter()
        .filter_map(|partition| BackwardScan::new(durable, partition.index, ids.window, wall))
        .collect();
    while back.iter().any(|back| !back.is_done) {
        read_back(durable, &mut back, ids, id_of, &mut event).map_err(|cause| refused(cause.to_string()))?;
    }
    let mut found: Vec<FoundId> = back.into_iter().flat_map(|back| back.found(wall)).collect();
    // All these events were published before this opening, so their corrected write times give the order of their ids.
    found.sort_unstable_by_key(|found| (found.written, found.offset));
    let mut known = ids.known();
    // Newest first, so that an id which was published again after it had expired is restored with its last offset.
    for FoundId { written, id, partition, offset } in found.into_iter().rev() {
        let until = match ids.window.age {
            Some(limit) => now.saturating_add(limit.saturating_sub(age(written))),
            None => Duration::MAX,
        };
        if let Entry::Vacant(free) = known.ids.entry(id) {
            free.insert(IdState::At(partition, offset));
            known.order.push_front((id, until));
        }
    }
    known.expire(ids.window, now);
    Ok(())
}

struct FoundId {
    written: u64,
    id: u128,
    partition: u32,
    offset: u64,
}

/// The state of reading one partition backwards: in growing steps from its end, until the window is full or the
/// partition's first record is reached. A record older than the window ends the reading only if it is the first of a
/// step, because the system's clock may have been wrong for a while.
struct BackwardScan {
    partition: u32,
    extent: Extent,
    /// The start of the last step: all records from this offset up to the partition's end were read.
    from: u64,
    /// The distance, in offsets, from the partition's end to the start of the next step.
    span: u64,
    /// The first offset whose record may be young enough for the window, by the journal's index of times.
    young: u64,
    oldest_known: Option<u64>,
    most: usize,
    is_done: bool,
    /// The records with an id that were found, oldest first. `written` is the time of writing by the system's clock, in
    /// nanoseconds since 1970.
    found: VecDeque<FoundId>,
}

impl BackwardScan {
    /// Begins at the partition's end; `None` if the journal has no record of the partition. `wall` is the present time
    /// in nanoseconds since 1970.
    fn new<E>(durable: &DurableTopic<E>, partition: u32, window: Deduplication, wall: u64) -> Option<Self> {
        let (id, journal) = (durable.id(partition), durable.journal());
        let extent = journal.extent(id)?;
        let age = window.age.map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        let oldest_known = age.map(|age| wall.saturating_sub(age));
        let young = oldest_known.and_then(|time| journal.first_since_by_index(id, time)).unwrap_or(extent.end);
        let (from, most) = (extent.end, window.ids);
        let found = VecDeque::new();
        Some(Self { partition, extent, from, span: 4096, young, oldest_known, most, is_done: false, found })
    }

    /// Adds the ids `before` of one step, which begins at offset `from` and precedes all ids found so far. `oldest` is
    /// the write time of the step's first record; `None` if the step had no record.
    fn add(&mut self, from: u64, mut before: VecDeque<FoundId>, oldest: Option<u64>) {
        before.append(&mut self.found);
        self.found = before;
        let too_many = self.found.len().saturating_sub(self.most);
        self.found.drain(..too_many);
        self.from = from;
        self.span = self.span.saturating_mul(4);
        let is_old = oldest.zip(self.oldest_known).is_some_and(|(oldest, known)| oldest <= known);
        self.is_done = from == self.extent.start || self.found.len() >= self.most || is_old;
    }

    /// Returns the found ids, with corrected write times: no record is older than the one before it, and none is later
    /// than `wall`. So a wrong system clock cannot change their order.
    fn found(self, wall: u64) -> impl Iterator<Item = FoundId> {
        self.found.into_iter().scan(0, move |latest, found| {
            *latest = found.written.min(wall).max(*latest);
            Some(FoundId { written: *latest, ..found })
        })
    }
}

/// Reads one step backwards in each partition that is not done. One scan of the journal serves all of them.
fn read_back<E>(
    durable: &DurableTopic<E>,
    back: &mut [BackwardScan],
    ids: &DedupIndex,
    id_of: IdOf<E>,
    event: &mut E,
) -> Result<(), journal::ReplayError> {
    struct Look<'b> {
        back: &'b mut BackwardScan,
        cursor: Cursor,
        from: u64,
        found: VecDeque<FoundId>,
        oldest: Option<u64>,
        is_over: bool,
    }
    let journal = durable.journal();
    let mut scan = journal.scan(Visible::Written);
    let mut looks = Vec::new();
    for back in back.iter_mut().filter(|back| !back.is_done) {
        let BackwardScan { extent, span, young, .. } = *back;
        let from = extent.end.saturating_sub(span).min(young).min(back.from).max(extent.start);
        let mut cursor = journal.cursor(durable.id(back.partition), Start::Offset(from))?;
        // Records that were lost to damage have no ids to restore.
        cursor.pass_gaps();
        cursor.resume(&mut scan);
        looks.push(Look { back, cursor, from, found: VecDeque::new(), oldest: None, is_over: false });
    }
    while looks.iter().any(|look| !look.is_over) {
        for look in looks.iter_mut().filter(|look| !look.is_over) {
            look.cursor.resume(&mut scan);
            let mut read = false;
            while let Some(record) = look.cursor.next(&mut scan, look.back.from)? {
                read = true;
                let (written, offset) = (record.written, record.offset);
                look.oldest.get_or_insert(written);
                // A record that cannot be decoded has no id. The topic's readers get an error for it.
                if durable.read(look.back.partition, record.offset, event, record.bytes).is_ok()
                    && let Some(id) = id_of(event)
                {
                    let partition = look.back.partition;
                    look.found.push_back(FoundId { written, id: ids.hash(id), partition, offset });
                    if look.found.len() > ids.window.ids {
                        look.found.pop_front();
                    }
                }
            }
            if read {
                scan.record_taken();
            }
            if !look.cursor.waits() {
                look.cursor.pause(&mut scan);
                look.is_over = true;
            }
        }
    }
    for Look { back, from, found, oldest, .. } in looks {
        back.add(from, found, oldest);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between the settling of a claim and its drop, the id may expire and be claimed by another producer. The drop
    /// once removed that second claim, so a third producer could publish the id again.
    #[test]
    fn who_has_settled_takes_no_other_claim_away() {
        let ids = Arc::new(DedupIndex::new(Deduplication::last(1)));
        let claim = |id: u128| {
            let own = std::thread::current().id();
            let free = ids.known().ids.insert(id, IdState::Claimed(own)).is_none();
            assert!(free, "{id} is claimed or known");
            ClaimedId { ids: Arc::clone(&ids), id, settled: false }
        };
        let mut first = claim(7);
        first.settle(0, 0, Duration::ZERO);
        let mut other = claim(8);
        other.settle(0, 1, Duration::ZERO);
        let again = claim(7);
        drop(first);
        assert!(matches!(ids.known().ids.get(&7), Some(IdState::Claimed(_))));
        drop(again);
        assert!(!ids.known().ids.contains_key(&7));
        assert!(matches!(ids.known().ids.get(&8), Some(IdState::At(0, 1))));
    }
}
