//! Where groups stand, in the journal: kind of state [`what::GROUPS`](crate::log::catalog::what::GROUPS).
//!
//! Nobody sends an offset to the journaler: whenever it writes a frame, it asks the bookmarks that have moved where they
//! are. So a commit costs a member two words, many commits are one entry, what is written never goes back behind what
//! was written before, and who was fenced can move nothing.

use super::commit_right::offset_of;
use crate::log::committer::Journaling;
use slipring_journal::format::MAX_POSITION;
use slipring_journal::{PartitionId, State};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What the journal is to know of a group's place in a partition.
#[derive(Debug)]
pub(crate) struct Bookmark {
    key: Vec<u8>,
    topic: u32,
    journaling: Weak<Journaling>,
    /// Of the present lease, or of the last one.
    word: Mutex<Arc<AtomicU64>>,
    epoch: AtomicU64,
    moved: AtomicBool,
    /// Its topic was deleted.
    retired: AtomicBool,
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

impl Bookmark {
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    fn word(&self) -> MutexGuard<'_, Arc<AtomicU64>> {
        self.word.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this lease's word counts. It stands where the one before was fenced.
    pub(crate) fn follow(&self, word: &Arc<AtomicU64>, epoch: u64) {
        *self.word() = Arc::clone(word);
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// Nobody has the partition: the group stands here.
    pub(crate) fn stand_at(&self, offset: u64, epoch: u64) {
        self.follow(&Arc::new(AtomicU64::new(offset)), epoch);
        self.moved();
    }

    /// The committed offset has changed.
    #[inline]
    pub(crate) fn moved(&self) {
        // Always a swap, also where it is set already: the journaler's swap comes before or after, and if after, it sees
        // what was committed before.
        if !self.moved.swap(true, Ordering::AcqRel)
            && let Some(journaling) = self.journaling.upgrade()
        {
            journaling.bookmark_moved();
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

    pub(crate) fn journaling(&self) -> Option<Arc<Journaling>> {
        self.journaling.upgrade()
    }
}

/// All bookmarks of a journal.
#[derive(Debug, Default)]
pub(crate) struct Bookmarks {
    list: Mutex<Vec<Arc<Bookmark>>>,
    moved: AtomicBool,
    /// The journaler is to hear of it.
    told: AtomicBool,
}

impl Bookmarks {
    fn list(&self) -> MutexGuard<'_, Vec<Arc<Bookmark>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if nobody has said so since the journaler looked.
    pub(crate) fn note(&self) -> bool {
        let first = !self.moved.swap(true, Ordering::AcqRel);
        if first {
            self.told.store(true, Ordering::Release);
        }
        first
    }

    /// Has the next call look at all of them: somebody may have moved one, and not come to say so yet.
    pub(crate) fn look_at_all(&self) {
        self.moved.store(true, Ordering::Release);
    }

    pub(crate) fn has_told(&self) -> bool {
        self.told.load(Ordering::Acquire)
    }

    /// Whether any has moved.
    pub(crate) fn hear(&self) -> bool {
        // Who tells has moved before.
        self.told.swap(false, Ordering::AcqRel);
        self.moved.load(Ordering::Acquire)
    }

    /// Those that have moved since the last call.
    pub(crate) fn take_moved(&self) -> Vec<Arc<Bookmark>> {
        if !self.moved.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let moved = |bookmark: &&Arc<Bookmark>| {
            bookmark.moved.swap(false, Ordering::AcqRel) && !bookmark.retired.load(Ordering::Relaxed)
        };
        self.list().iter().filter(moved).cloned().collect()
    }

    pub(crate) fn add(&self, bookmark: &Arc<Bookmark>) {
        let mut list = self.list();
        list.retain(|known| Arc::strong_count(known) > 1 || known.moved.load(Ordering::Relaxed));
        list.push(Arc::clone(bookmark));
    }

    /// The topic is deleted: nothing more is written of it.
    pub(crate) fn retire(&self, topic: u32) {
        self.list().retain(|bookmark| {
            if bookmark.topic == topic {
                bookmark.retired.store(true, Ordering::Relaxed);
            }
            bookmark.topic != topic
        });
    }
}

/// What the journal had of a group's place when it was opened: offset and epoch.
pub(crate) fn recorded(state: &State, group: &str, of: PartitionId) -> Option<(u64, u64)> {
    value_parts(state.get(crate::log::catalog::what::GROUPS, &key(group, of))?)
}

/// The topic that a key is of.
pub(crate) fn key_topic(key: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*key.first_chunk()?))
}

/// A new one, which stands nowhere yet.
pub(crate) fn new(journaling: &Arc<Journaling>, group: &str, of: PartitionId) -> Arc<Bookmark> {
    let bookmark = Arc::new(Bookmark {
        key: key(group, of),
        topic: of.topic,
        journaling: Arc::downgrade(journaling),
        word: Mutex::default(),
        epoch: AtomicU64::new(0),
        moved: AtomicBool::new(false),
        retired: AtomicBool::new(false),
    });
    journaling.bookmarks.add(&bookmark);
    bookmark
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::offsets::recorded::group_offsets;
    use crate::{Engine, Level};
    use slipring_journal::simulated::SimulatedDisk;
    use slipring_journal::{Options, open};

    /// A member was fenced in the middle of a commit: it has moved the bookmark, and has not come to tell. Its successor
    /// then found the bookmark moved already, told nobody either, and its durable commit was not written.
    #[test]
    fn a_durable_commit_is_written_also_if_another_one_is_about_to_tell() {
        let disk = SimulatedDisk::new();
        let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
        let topic = engine.topic::<u64>("numbers").durable().create().unwrap();
        let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
        (0..9).for_each(|_| _ = producer.publish(|_| ()).unwrap());
        let journaling = &topic.inner.durable.as_ref().unwrap().journaling;
        let of = topic.inner.durable.as_ref().unwrap().id(0);
        let bookmark = new(journaling, "sums", of);
        bookmark.moved.store(true, Ordering::Release);
        bookmark.stand_at(5, 1);
        journaling.commit_bookmarks().unwrap();
        let (writer, _) = open(Arc::new(disk.crash(1)), Options::default()).unwrap();
        let known: Vec<_> =
            group_offsets(writer.state()).into_iter().map(|known| (known.group, known.offset)).collect();
        assert_eq!(known, [("sums".to_owned(), 5)]);
    }
}
