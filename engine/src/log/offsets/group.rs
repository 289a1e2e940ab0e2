//! Offsets that groups have committed, as state of the kind
//! [`state_kind::GROUP_OFFSETS`](crate::log::catalog::state_kind::GROUP_OFFSETS) in the journal.
//!
//! Nobody sends an offset to the committer. Whenever the committer writes a frame, it reads the committed offsets that have
//! moved. So a commit writes two words, many commits become one entry, what is written never goes back behind what was
//! written before, and a fenced member can move nothing.

use crate::base::multi_wait::MultiWait;
use slipring_journal::format::MAX_POSITION;
use slipring_journal::{PartitionId, State};
use slipring_ring::Waiter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The offset that a group has committed in a partition, as the committer reads it.
#[derive(Debug)]
pub(crate) struct CommittedOffset {
    key: Vec<u8>,
    topic: u32,
    signal: Arc<Signal>,
    /// The word of the present [commit right](super::commit_right), or of the last one.
    word: Mutex<Arc<AtomicU64>>,
    epoch: AtomicU64,
    moved: AtomicBool,
    /// True once its topic was deleted.
    retired: AtomicBool,
}

/// The highest bit of a [commit right](super::commit_right)'s word: the right has ended. Offsets stay below it.
pub(super) const FENCED: u64 = 1 << 63;

/// The offset in a commit right's word.
pub(super) fn offset_of(word: &AtomicU64) -> u64 {
    word.load(Ordering::Acquire) & !FENCED
}

/// The bytes of a key: the topic's number and the partition, 4 bytes each, little endian, then the group's name.
pub(crate) fn key(group: &str, of: PartitionId) -> Vec<u8> {
    [&of.topic.to_le_bytes()[..], &of.partition.to_le_bytes(), group.as_bytes()].concat()
}

pub(crate) fn key_parts(key: &[u8]) -> Option<(&str, PartitionId)> {
    let (topic, rest) = key.split_first_chunk()?;
    let (partition, name) = rest.split_first_chunk()?;
    let of = PartitionId { topic: u32::from_le_bytes(*topic), partition: u32::from_le_bytes(*partition) };
    Some((std::str::from_utf8(name).ok()?, of))
}

/// The bytes of a value: the next offset and the group's epoch, 8 bytes each, little endian.
pub(crate) fn value(offset: u64, epoch: u64) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&offset.to_le_bytes());
    value[8..].copy_from_slice(&epoch.to_le_bytes());
    value
}

pub(crate) fn value_parts(value: &[u8]) -> Option<(u64, u64)> {
    let (offset, epoch) = value.split_first_chunk()?;
    let parts = (u64::from_le_bytes(*offset), u64::from_le_bytes(*epoch.first_chunk()?));
    // Both are counted on from, so neither may be near the highest number.
    (parts.0.max(parts.1) <= MAX_POSITION).then_some(parts)
}

impl CommittedOffset {
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    fn word(&self) -> MutexGuard<'_, Arc<AtomicU64>> {
        self.word.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the word of this commit right counts. It begins at the offset where the one before was fenced.
    pub(crate) fn follow(&self, word: &Arc<AtomicU64>, epoch: u64) {
        *self.word() = Arc::clone(word);
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// Sets the offset while no member has the partition.
    pub(crate) fn set(&self, offset: u64, epoch: u64) {
        self.follow(&Arc::new(AtomicU64::new(offset)), epoch);
        self.moved();
    }

    /// The committed offset has changed: signals the committer.
    #[inline]
    pub(crate) fn moved(&self) {
        // Always a swap, even if the flag is set already. Either the committer's swap comes later and sees the new offset,
        // or it came before, and then this swap finds the flag cleared and signals.
        if !self.moved.swap(true, Ordering::AcqRel) {
            self.signal.moved();
        }
    }

    /// The value to be written now.
    pub(crate) fn value(&self) -> [u8; 16] {
        let word = self.word();
        value(offset_of(&word), self.epoch.load(Ordering::Relaxed))
    }

    /// The value of a frame that moves the offset to `offset`.
    pub(crate) fn value_at(&self, offset: u64) -> [u8; 16] {
        value(offset, self.epoch.load(Ordering::Relaxed))
    }

    /// True if the fault is turned on that lets a fenced member commit. For tests.
    #[cfg(test)]
    pub(crate) fn no_epoch_check(&self) -> bool {
        self.signal.no_epoch_check
    }
}

/// Tells the committer that a committed offset has changed. This is all that a committed offset knows of the committer.
struct Signal {
    /// True if an offset has changed since the committer took the changed ones.
    moved: AtomicBool,
    /// True if `moved` was set since the committer last looked before it went to sleep.
    told: AtomicBool,
    /// What the committer sleeps on.
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

/// The committed offsets of all groups of a journal.
#[derive(Debug)]
pub(crate) struct CommittedOffsets {
    list: Mutex<Vec<Arc<CommittedOffset>>>,
    signal: Arc<Signal>,
}

impl CommittedOffsets {
    fn list(&self) -> MutexGuard<'_, Vec<Arc<CommittedOffset>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `waiter` is what the committer sleeps on. `no_epoch_check` turns on a fault for tests: a fenced member may commit.
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

    /// Has the next [`take_moved`](Self::take_moved) look at all offsets: one may have moved whose member has not signalled
    /// yet.
    pub(crate) fn look_at_all(&self) {
        self.signal.moved.store(true, Ordering::Release);
    }

    pub(crate) fn has_told(&self) -> bool {
        self.signal.told.load(Ordering::Acquire)
    }

    /// True if an offset has moved. Clears the signal.
    pub(crate) fn hear(&self) -> bool {
        // Whoever signals has set `moved` before.
        self.signal.told.swap(false, Ordering::AcqRel);
        self.signal.moved.load(Ordering::Acquire)
    }

    /// The offsets that have moved since the last call.
    pub(crate) fn take_moved(&self) -> Vec<Arc<CommittedOffset>> {
        if !self.signal.moved.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let moved = |committed_offset: &&Arc<CommittedOffset>| {
            committed_offset.moved.swap(false, Ordering::AcqRel) && !committed_offset.retired.load(Ordering::Relaxed)
        };
        self.list().iter().filter(moved).cloned().collect()
    }

    /// Adds a partition of a group. It has no offset yet.
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

    /// The topic was deleted: nothing more is written of its offsets.
    pub(crate) fn retire(&self, topic: u32) {
        self.list().retain(|committed_offset| {
            if committed_offset.topic == topic {
                committed_offset.retired.store(true, Ordering::Relaxed);
            }
            committed_offset.topic != topic
        });
    }
}

/// What the journal had of a group in a partition when it was opened: offset and epoch.
pub(crate) fn recorded(state: &State, group: &str, of: PartitionId) -> Option<(u64, u64)> {
    value_parts(state.get(crate::log::catalog::state_kind::GROUP_OFFSETS, &key(group, of))?)
}

/// The number of the topic that a key is of.
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
