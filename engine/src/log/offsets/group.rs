//! Where groups stand, in the journal: kind of state [`state_kind::GROUP_OFFSETS`](crate::log::catalog::state_kind::GROUP_OFFSETS).
//!
//! Nobody sends an offset to the committer: whenever it writes a frame, it asks the committed offsets that have moved where they
//! are. So a commit costs a member two words, many commits are one entry, what is written never goes back behind what
//! was written before, and who was fenced can move nothing.

use crate::base::multi_wait::MultiWait;
use slipring_journal::format::MAX_POSITION;
use slipring_journal::{PartitionId, State};
use slipring_ring::Waiter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the journal is to know of a group's place in a partition.
#[derive(Debug)]
pub(crate) struct CommittedOffset {
    key: Vec<u8>,
    topic: u32,
    signal: Arc<Signal>,
    /// Of the present commit right, or of the last one.
    word: Mutex<Arc<AtomicU64>>,
    epoch: AtomicU64,
    moved: AtomicBool,
    /// Its topic was deleted.
    retired: AtomicBool,
}

/// The highest bit of a [commit right](super::commit_right)'s word: the right has ended. Offsets stay below it.
pub(super) const FENCED: u64 = 1 << 63;

/// The offset in a commit right's word.
pub(super) fn offset_of(word: &AtomicU64) -> u64 {
    word.load(Ordering::Acquire) & !FENCED
}

/// Keys: the topic's number and the partition, 4 bytes each, little endian, then the group's name.
pub(crate) fn key(group: &str, of: PartitionId) -> Vec<u8> {
    [&of.topic.to_le_bytes()[..], &of.partition.to_le_bytes(), group.as_bytes()].concat()
}

pub(crate) fn key_parts(key: &[u8]) -> Option<(&str, PartitionId)> {
    let (topic, rest) = key.split_first_chunk()?;
    let (partition, name) = rest.split_first_chunk()?;
    let of = PartitionId { topic: u32::from_le_bytes(*topic), partition: u32::from_le_bytes(*partition) };
    Some((std::str::from_utf8(name).ok()?, of))
}

/// Values: the next offset and the group's epoch, 8 bytes each, little endian.
pub(crate) fn value(offset: u64, epoch: u64) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&offset.to_le_bytes());
    value[8..].copy_from_slice(&epoch.to_le_bytes());
    value
}

pub(crate) fn value_parts(value: &[u8]) -> Option<(u64, u64)> {
    let (offset, epoch) = value.split_first_chunk()?;
    let parts = (u64::from_le_bytes(*offset), u64::from_le_bytes(*epoch.first_chunk()?));
    // Both are counted on from.
    (parts.0.max(parts.1) <= MAX_POSITION).then_some(parts)
}

impl CommittedOffset {
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    fn word(&self) -> MutexGuard<'_, Arc<AtomicU64>> {
        self.word.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this commit right's word counts. It stands where the one before was fenced.
    pub(crate) fn follow(&self, word: &Arc<AtomicU64>, epoch: u64) {
        *self.word() = Arc::clone(word);
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// Nobody has the partition: the group stands here.
    pub(crate) fn set(&self, offset: u64, epoch: u64) {
        self.follow(&Arc::new(AtomicU64::new(offset)), epoch);
        self.moved();
    }

    /// The committed offset has changed.
    #[inline]
    pub(crate) fn moved(&self) {
        // Always a swap, also where it is set already: the committer's swap comes before or after, and if after, it sees
        // what was committed before.
        if !self.moved.swap(true, Ordering::AcqRel) {
            self.signal.moved();
        }
    }

    /// Where it stands, as it is written.
    pub(crate) fn value(&self) -> [u8; 16] {
        let word = self.word();
        value(offset_of(&word), self.epoch.load(Ordering::Relaxed))
    }

    /// What a frame is to say that moves it to `offset`.
    pub(crate) fn value_at(&self, offset: u64) -> [u8; 16] {
        value(offset, self.epoch.load(Ordering::Relaxed))
    }

    /// True if the fault is turned on that lets a fenced member commit. For tests.
    #[cfg(test)]
    pub(crate) fn no_epoch_check(&self) -> bool {
        self.signal.no_epoch_check
    }
}

/// Tells the committer that a committed offset has changed. All that a committed offset knows of the committer.
struct Signal {
    /// An offset has changed since the committer took the changed ones.
    moved: AtomicBool,
    /// `moved` was set since the committer last looked before it went to sleep.
    told: AtomicBool,
    /// Wakes the committer.
    waiter: Arc<Waiter>,
    #[cfg(test)]
    no_epoch_check: bool,
}

impl std::fmt::Debug for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signal").field("moved", &self.moved).field("told", &self.told).finish_non_exhaustive()
    }
}

impl Signal {
    fn moved(&self) {
        if !self.moved.swap(true, Ordering::AcqRel) {
            self.told.store(true, Ordering::Release);
            self.waiter.wake(MultiWait::WAKE);
        }
    }
}

/// All committed offsets of a journal's groups.
#[derive(Debug)]
pub(crate) struct CommittedOffsets {
    list: Mutex<Vec<Arc<CommittedOffset>>>,
    signal: Arc<Signal>,
}

impl CommittedOffsets {
    fn list(&self) -> MutexGuard<'_, Vec<Arc<CommittedOffset>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `waiter` is what the committer sleeps on. `no_epoch_check` is a fault for tests: a fenced member may commit.
    pub(crate) fn new(waiter: Arc<Waiter>, no_epoch_check: bool) -> Self {
        let _ = no_epoch_check;
        let signal = Signal {
            moved: AtomicBool::new(false),
            told: AtomicBool::new(false),
            waiter,
            #[cfg(test)]
            no_epoch_check,
        };
        Self { list: Mutex::default(), signal: Arc::new(signal) }
    }

    /// Has the next call look at all of them: somebody may have moved one, and not come to say so yet.
    pub(crate) fn look_at_all(&self) {
        self.signal.moved.store(true, Ordering::Release);
    }

    pub(crate) fn has_told(&self) -> bool {
        self.signal.told.load(Ordering::Acquire)
    }

    /// Whether any has moved.
    pub(crate) fn hear(&self) -> bool {
        // Who tells has moved before.
        self.signal.told.swap(false, Ordering::AcqRel);
        self.signal.moved.load(Ordering::Acquire)
    }

    /// Those that have moved since the last call.
    pub(crate) fn take_moved(&self) -> Vec<Arc<CommittedOffset>> {
        if !self.signal.moved.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let moved = |committed_offset: &&Arc<CommittedOffset>| {
            committed_offset.moved.swap(false, Ordering::AcqRel) && !committed_offset.retired.load(Ordering::Relaxed)
        };
        self.list().iter().filter(moved).cloned().collect()
    }

    /// A new one, which has no offset yet.
    pub(crate) fn add(&self, group: &str, of: PartitionId) -> Arc<CommittedOffset> {
        let committed_offset = Arc::new(CommittedOffset {
            key: key(group, of),
            topic: of.topic,
            signal: Arc::clone(&self.signal),
            word: Mutex::default(),
            epoch: AtomicU64::new(0),
            moved: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        });
        let mut list = self.list();
        list.retain(|known| Arc::strong_count(known) > 1 || known.moved.load(Ordering::Relaxed));
        list.push(Arc::clone(&committed_offset));
        committed_offset
    }

    /// The topic is deleted: nothing more is written of it.
    pub(crate) fn retire(&self, topic: u32) {
        self.list().retain(|committed_offset| {
            if committed_offset.topic == topic {
                committed_offset.retired.store(true, Ordering::Relaxed);
            }
            committed_offset.topic != topic
        });
    }
}

/// What the journal had of a group's place when it was opened: offset and epoch.
pub(crate) fn recorded(state: &State, group: &str, of: PartitionId) -> Option<(u64, u64)> {
    value_parts(state.get(crate::log::catalog::state_kind::GROUP_OFFSETS, &key(group, of))?)
}

/// The topic that a key is of.
pub(crate) fn key_topic(key: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*key.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::offsets::recorded::group_offsets;
    use crate::{Engine, Level};
    use slipring_journal::simulated::SimulatedDisk;
    use slipring_journal::{Options, open};

    /// A member was fenced in the middle of a commit: it has moved the committed offset, and has not come to tell. Its successor
    /// then found the committed offset moved already, told nobody either, and its durable commit was not written.
    #[test]
    fn a_durable_commit_is_written_also_if_another_one_is_about_to_tell() {
        let disk = SimulatedDisk::new();
        let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
        let topic = engine.topic::<u64>("numbers").durable().create().unwrap();
        let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
        (0..9).for_each(|_| _ = producer.publish(|_| ()).unwrap());
        let committer = &topic.inner.durable.as_ref().unwrap().committer;
        let of = topic.inner.durable.as_ref().unwrap().id(0);
        let committed_offset = committer.committed_offsets.add("sums", of);
        committed_offset.moved.store(true, Ordering::Release);
        committed_offset.set(5, 1);
        committer.commit_offsets().unwrap();
        let (writer, _) = open(Arc::new(disk.crash(1)), Options::default()).unwrap();
        let known: Vec<_> =
            group_offsets(writer.state()).into_iter().map(|known| (known.group, known.offset)).collect();
        assert_eq!(known, [("sums".to_owned(), 5)]);
    }
}
