//! Deduplication: a message with an id is published once within a window.

use crate::base::kind::Producers;
use crate::base::when_full::WhenFull;
use crate::topic::TopicCore;
use crate::topic::durable::DurableTopic;
use crate::topic::error::{PublishError, TopicError};
use slipring_journal::{self as journal, Cursor, Extent, Start, Visible};
use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a topic remembers the [ids](crate::Record::id) of its messages:
/// [`TopicBuilder::deduplicate`](crate::TopicBuilder::deduplicate).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deduplication {
    ids: usize,
    age: Option<Duration>,
}

impl Deduplication {
    /// The last so many ids of the topic, at least one.
    pub fn last(ids: usize) -> Self {
        Self { ids: ids.max(1), age: None }
    }

    /// The ids that were published within `age`, by the engine's clock; 1,048,576 of them at most, unless told with
    /// [`at_most`](Self::at_most).
    pub fn within(age: Duration) -> Self {
        Self { ids: 1 << 20, age: Some(age) }
    }

    /// No more than so many ids, whatever their age: beyond that the oldest are forgotten early. An id takes about 80 bytes.
    pub fn at_most(self, ids: usize) -> Self {
        Self { ids: ids.max(1), ..self }
    }
}

/// The id of an event, if it has one.
pub(crate) type IdOf<E> = fn(&E) -> Option<&[u8]>;

/// The ids that a topic remembers.
pub(crate) struct DedupIndex {
    window: Deduplication,
    /// An id is kept as two keyed hashes of 64 bits.
    hashers: [RandomState; 2],
    known: Mutex<KnownIds>,
    /// Signals that a claimed id was published, or was not.
    settled: Condvar,
}

#[derive(Default)]
struct KnownIds {
    ids: HashMap<u128, IdState, BuildHasherDefault<IdHasher>>,
    /// The ids in the order of publishing, each with the time when it expires.
    order: VecDeque<(u128, Duration)>,
}

enum IdState {
    /// A producer is publishing a message with this id.
    Claimed,
    At(u32, u64),
}

/// The hasher of keys that are hashes already: takes the low 64 bits.
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

/// A claimed id: its holder is to publish the message. If it is dropped before, another producer may claim the id.
pub(crate) struct ClaimedId {
    ids: Arc<DedupIndex>,
    id: u128,
    /// True once the message was published. From then on the id may expire, and another producer may claim it.
    settled: bool,
}

/// What a producer is to do with a message with an id.
pub(crate) enum IdOutcome {
    First(ClaimedId),
    /// Nothing: a message with this id was published at this partition and offset.
    Duplicate(u32, u64),
}

impl DedupIndex {
    pub(crate) fn new(window: Deduplication) -> Self {
        let mut known = KnownIds::default();
        // Memory is reserved ahead. Where that fails, the maps grow as they are filled.
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

    /// Claims an id, or returns where it was published. While another producer publishes it, waits as `full` says.
    pub(crate) fn begin<E, K: Producers>(
        self: &Arc<Self>,
        topic: &TopicCore<E, K>,
        id: &[u8],
        full: WhenFull<'_>,
    ) -> Result<IdOutcome, PublishError> {
        let id = self.hash(id);
        loop {
            // The clock is the user's code, so it is read before the lock is taken.
            let now = topic.host.clock.now();
            let mut known = self.known();
            known.expire(self.window, now);
            match known.ids.entry(id) {
                Entry::Vacant(free) => {
                    free.insert(IdState::Claimed);
                    return Ok(IdOutcome::First(ClaimedId { ids: Arc::clone(self), id, settled: false }));
                }
                Entry::Occupied(there) => {
                    if let IdState::At(partition, offset) = *there.get() {
                        return Ok(IdOutcome::Duplicate(partition, offset));
                    }
                }
            }
            let names = || (topic.name.clone(), 0, None);
            match full {
                WhenFull::Policy => drop(self.settled.wait(known).unwrap_or_else(PoisonError::into_inner)),
                WhenFull::Until(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let (topic, partition, by) = names();
                        return Err(PublishError::TimedOut { topic, partition, by });
                    }
                    drop(self.settled.wait_timeout(known, left).unwrap_or_else(PoisonError::into_inner));
                }
                WhenFull::Refuse | WhenFull::Later | WhenFull::Arm(_) => {
                    drop(known);
                    if let WhenFull::Arm(task) = full {
                        task.wake_after(&topic.host.timer, Duration::from_millis(1));
                    }
                    let (topic, partition, by) = names();
                    return Err(PublishError::Full { topic, partition, by });
                }
            };
        }
    }
}

impl ClaimedId {
    /// Notes where the message was published.
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

/// Restores the ids of the window from the journal.
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
    // All of them were published before now, whatever time the clock began with.
    found.sort_unstable_by_key(|found| (found.written, found.offset));
    let mut known = ids.known();
    // An id that was published again after it had expired is restored with its last offset.
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

/// A partition that is read backwards from its end, in growing steps, until the window is full or the beginning is reached.
/// A record that looks old does not end the search if younger records stand before it: the system's clock was behind then.
struct BackwardScan {
    partition: u32,
    extent: Extent,
    /// The offset from which on the partition was read.
    from: u64,
    /// How many offsets before the end the next step begins.
    span: u64,
    /// The first offset whose record may be young enough for the window.
    young: u64,
    oldest_known: Option<u64>,
    most: usize,
    is_done: bool,
    /// For each record with an id, the time when it was written, by the system's clock of that time.
    found: VecDeque<FoundId>,
}

impl BackwardScan {
    /// None if the journal has no record of the partition.
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

    /// Adds the ids of a step, which stand before all others. `oldest` is the time of the step's first record.
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

    /// Corrects the times: no record is older than the ones before it, and none is of the future, whatever the system's
    /// clock showed.
    fn found(self, wall: u64) -> impl Iterator<Item = FoundId> {
        self.found.into_iter().scan(0, move |latest, found| {
            *latest = found.written.min(wall).max(*latest);
            Some(FoundId { written: *latest, ..found })
        })
    }
}

/// Takes one step back in each partition that is not done, with one reading of the journal for all of them.
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
        // The ids of lost records are lost.
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
                // A record that is no event has no id. Its readers are told.
                if (durable.persistence.read)(event, record.bytes).is_ok()
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

    /// After a claim was settled and before it was dropped, its id may have expired and been claimed by another producer.
    /// The drop removed that claim, and a third producer could publish the id again.
    #[test]
    fn who_has_settled_takes_no_other_claim_away() {
        let ids = Arc::new(DedupIndex::new(Deduplication::last(1)));
        let claim = |id: u128| {
            let free = ids.known().ids.insert(id, IdState::Claimed).is_none();
            assert!(free, "{id} is claimed or known");
            ClaimedId { ids: Arc::clone(&ids), id, settled: false }
        };
        let mut first = claim(7);
        first.settle(0, 0, Duration::ZERO);
        let mut other = claim(8);
        other.settle(0, 1, Duration::ZERO);
        let again = claim(7);
        drop(first);
        assert!(matches!(ids.known().ids.get(&7), Some(IdState::Claimed)));
        drop(again);
        assert!(!ids.known().ids.contains_key(&7));
        assert!(matches!(ids.known().ids.get(&8), Some(IdState::At(0, 1))));
    }
}
