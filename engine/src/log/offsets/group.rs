//! Committed offsets of groups, as state of the kind
//! [`state_kind::GROUP_OFFSETS`](crate::log::catalog::state_kind::GROUP_OFFSETS) in the journal.
//!
//! No thread sends an offset to the committer. For each frame the committer reads the committed offsets that have
//! changed. So a commit writes two atomics, many commits become one entry in the journal, entries never go back to an
//! older commit, and a fenced member can change nothing.

use super::commit_word::{CommitWord, MAX_METADATA, Metadata};
use crate::base::multi_wait::MultiWait;
use crate::log::partition_key::key;
use slipring_journal::format::MAX_POSITION;
use slipring_journal::{PartitionId, State};
use slipring_ring::Waiter;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The committed offset of a group in a partition of a durable topic, for the committer to write.
#[derive(Debug)]
pub(crate) struct CommittedOffset {
    key: Vec<u8>,
    topic: u32,
    signal: Arc<Signal>,
    /// The committed offset of the partition's present [commit right](super::commit_right), or of the last one if no
    /// member has the partition.
    word: Mutex<Arc<CommitWord>>,
    epoch: AtomicU64,
    moved: AtomicBool,
    /// True once the topic was deleted, so that the offset is not written any more.
    retired: AtomicBool,
    /// True once its group was forgotten: the committer deletes it from the journal.
    deleted: AtomicBool,
}

/// The first bytes of a committed offset in the journal: the next offset to be read, and the group's epoch. The metadata of
/// the commit follows, if it has some. Versions before metadata read these bytes alone.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawOffset {
    next: U64,
    epoch: U64,
}

/// Size of the value of a committed offset without metadata, in bytes.
pub(crate) const WITHOUT_METADATA: usize = size_of::<RawOffset>();

/// The bytes of a journal's value without metadata: the committed offset `next` and the group's epoch.
pub(crate) fn value(next: u64, epoch: u64) -> [u8; 16] {
    zerocopy::transmute!(RawOffset { next: next.into(), epoch: epoch.into() })
}

/// A committed offset as the journal has it.
pub(crate) struct RecordedOffset {
    /// The next offset to be read.
    pub(crate) next: u64,
    /// The group's epoch at the commit.
    pub(crate) epoch: u64,
    /// The metadata of the commit; `None` if it has none.
    pub(crate) metadata: Option<Metadata>,
}

impl RecordedOffset {
    /// Decodes a journal's value. `None` if the bytes are too few, or a number is above [`MAX_POSITION`]. Metadata that is
    /// longer than any commit's is left out.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let (RawOffset { next, epoch }, metadata) = RawOffset::read_from_prefix(value).ok()?;
        let metadata = (1..=MAX_METADATA).contains(&metadata.len()).then(|| metadata.into());
        // Both numbers are incremented later, so numbers near the greatest `u64` are refused.
        let (next, epoch) = (next.get(), epoch.get());
        (next.max(epoch) <= MAX_POSITION).then_some(Self { next, epoch, metadata })
    }
}

impl CommittedOffset {
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    fn word(&self) -> MutexGuard<'_, Arc<CommitWord>> {
        self.word.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the committer takes the offset and its metadata from `word`, which a new commit right changes, and writes it with the
    /// group's `epoch`. Does not signal the committer: a new right begins at the offset at which the one before was
    /// fenced, so the offset has not changed.
    pub(crate) fn follow(&self, word: &Arc<CommitWord>, epoch: u64) {
        *self.word() = Arc::clone(word);
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// Sets the committed offset and its metadata while no member has the partition, and signals the committer.
    pub(crate) fn set(&self, offset: u64, metadata: Option<Metadata>, epoch: u64) {
        self.follow(&Arc::new(CommitWord::new(offset, metadata)), epoch);
        self.moved();
    }

    /// Signals the committer that the committed offset has changed. The caller has changed it before.
    #[inline]
    pub(crate) fn moved(&self) {
        // Swapped even if the flag is set already, so that this swap and the committer's swap, which clears the flag,
        // have an order. If the committer's comes later, the committer sees the new offset. If it came before, this
        // swap finds the flag cleared, and signals.
        if !self.moved.swap(true, Ordering::AcqRel) {
            self.signal.moved();
        }
    }

    /// True if the group was forgotten, so that the committer deletes the key instead of writing an offset.
    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Sets `bytes` to the journal's value: the committed offset, the group's epoch, and the metadata.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        let (offset, metadata) = self.word().offset_with_metadata();
        self.encode_as(offset, metadata, bytes);
    }

    fn encode_as(&self, offset: u64, metadata: Option<Metadata>, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.extend(value(offset, self.epoch.load(Ordering::Relaxed)));
        bytes.extend(metadata.iter().flat_map(|metadata| metadata.iter()));
    }

    /// The journal's value with the committed offset `offset` and the group's epoch, for a frame that moves the offset.
    pub(crate) fn value_at(&self, offset: u64) -> Vec<u8> {
        let (now, metadata) = self.word().offset_with_metadata();
        let mut bytes = Vec::new();
        self.encode_as(offset, metadata.filter(|_| now == offset), &mut bytes);
        bytes
    }

    /// True if the tests' fault is turned on that lets a fenced member commit.
    #[cfg(test)]
    pub(crate) fn no_epoch_check(&self) -> bool {
        self.signal.no_epoch_check
    }
}

/// The signal to the committer that committed offsets have changed.
struct Signal {
    /// True if an offset has changed since the committer last called [`CommittedOffsets::take_moved`].
    moved: AtomicBool,
    /// True if `moved` was set since the committer last called [`CommittedOffsets::take_signal`].
    signalled: AtomicBool,
    /// The committer's waiter, which the signal wakes.
    waiter: Arc<Waiter>,
    #[cfg(test)]
    no_epoch_check: bool,
}

impl std::fmt::Debug for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signal").field("moved", &self.moved).field("signalled", &self.signalled).finish_non_exhaustive()
    }
}

impl Signal {
    fn moved(&self) {
        if !self.moved.swap(true, Ordering::AcqRel) {
            self.signalled.store(true, Ordering::Release);
            self.waiter.wake(MultiWait::WAKE);
        }
    }
}

/// The committed offsets of all groups of a journal.
#[derive(Debug)]
pub(crate) struct CommittedOffsets {
    list: Mutex<OffsetList>,
    signal: Arc<Signal>,
}

/// Committed offsets, in the order in which they were added. So a deleted one comes before a later one with its key,
/// and the committer deletes the key before it writes the new offset.
#[derive(Debug, Default)]
struct OffsetList {
    all: Vec<Arc<CommittedOffset>>,
    /// The length of `all` from which the next push first removes the offsets that no group holds and that have no
    /// change to write.
    full: usize,
}

impl OffsetList {
    fn push(&mut self, added: Arc<CommittedOffset>) {
        if self.all.len() >= self.full {
            self.all.retain(|known| Arc::strong_count(known) > 1 || known.moved.load(Ordering::Relaxed));
            self.full = 16 + 2 * self.all.len();
        }
        self.all.push(added);
    }
}

impl CommittedOffsets {
    fn list(&self) -> MutexGuard<'_, OffsetList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty list. `waiter` is the committer's waiter, which is woken when an offset changes. `no_epoch_check` turns
    /// on a fault for tests: a fenced member may commit.
    pub(crate) fn new(waiter: Arc<Waiter>, no_epoch_check: bool) -> Self {
        let _ = no_epoch_check;
        let signal = Signal {
            moved: AtomicBool::new(false),
            signalled: AtomicBool::new(false),
            waiter,
            #[cfg(test)]
            no_epoch_check,
        };
        Self { list: Mutex::default(), signal: Arc::new(signal) }
    }

    /// Makes the next [`take_moved`](Self::take_moved) check all offsets, since a member may have changed its offset
    /// and not signalled the change yet.
    pub(crate) fn look_at_all(&self) {
        self.signal.moved.store(true, Ordering::Release);
    }

    pub(crate) fn is_signalled(&self) -> bool {
        self.signal.signalled.load(Ordering::Acquire)
    }

    /// Clears the signal. Returns true if an offset has changed that [`take_moved`](Self::take_moved) has not returned
    /// yet.
    pub(crate) fn take_signal(&self) -> bool {
        // A signalling thread sets `moved` before `signalled`, so this reads them in the opposite order.
        self.signal.signalled.swap(false, Ordering::AcqRel);
        self.signal.moved.load(Ordering::Acquire)
    }

    /// The offsets that have changed since the last call, except those of deleted topics.
    pub(crate) fn take_moved(&self) -> Vec<Arc<CommittedOffset>> {
        if !self.signal.moved.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let moved = |committed_offset: &&Arc<CommittedOffset>| {
            committed_offset.moved.swap(false, Ordering::AcqRel) && !committed_offset.retired.load(Ordering::Relaxed)
        };
        self.list().all.iter().filter(moved).cloned().collect()
    }

    /// Makes the committer delete this offset of a forgotten group from the journal. The caller makes sure that no
    /// member commits to it any more.
    pub(crate) fn delete(&self, committed_offset: &CommittedOffset) {
        committed_offset.deleted.store(true, Ordering::Release);
        committed_offset.moved();
    }

    /// The keys of the offsets that a group of this engine holds and that are not deleted.
    pub(crate) fn keys(&self) -> HashSet<Vec<u8>> {
        let list = self.list();
        let kept = list.all.iter().filter(|it| Arc::strong_count(it) > 1 && !it.is_deleted());
        kept.map(|it| it.key.clone()).collect()
    }

    /// Adds the offset of a group in a partition, as 0. The committer does not write it before its first signalled
    /// change.
    pub(crate) fn add(&self, group: &str, of: PartitionId) -> Arc<CommittedOffset> {
        let committed_offset = Arc::new(CommittedOffset {
            key: key(group, of),
            topic: of.topic,
            signal: Arc::clone(&self.signal),
            word: Mutex::default(),
            epoch: AtomicU64::new(0),
            moved: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
        });
        self.list().push(Arc::clone(&committed_offset));
        committed_offset
    }

    /// Removes the offsets of a deleted topic, so that they are not written any more.
    pub(crate) fn retire(&self, topic: u32) {
        self.list().all.retain(|committed_offset| {
            if committed_offset.topic == topic {
                committed_offset.retired.store(true, Ordering::Relaxed);
            }
            committed_offset.topic != topic
        });
    }
}

/// The committed offset of a group in a partition, as the journal's state has it; `None` if the state has none.
pub(crate) fn recorded(state: &State, group: &str, of: PartitionId) -> Option<RecordedOffset> {
    RecordedOffset::decode(state.get(crate::log::catalog::state_kind::GROUP_OFFSETS, &key(group, of))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::offsets::recorded::group_offsets;
    use crate::{Engine, Level};
    use slipring_journal::simulated::SimulatedDisk;
    use slipring_journal::{Options, open};

    /// A member that was fenced in the middle of a commit had set the `moved` flag, but not signalled the change yet.
    /// Its successor found the flag set and did not signal either, so its durable commit was not written.
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
        committed_offset.set(5, None, 1);
        committer.commit_offsets().unwrap();
        let (writer, _) = open(Arc::new(disk.crash(1)), Options::default()).unwrap();
        let known: Vec<_> =
            group_offsets(writer.state()).into_iter().map(|known| (known.group, known.offset)).collect();
        assert_eq!(known, [("sums".to_owned(), 5)]);
    }
}
