//! The permission of a group's member to commit in a partition, which ends when the member is fenced.

use super::commit_word::{CommitWord, FENCED, Metadata};
use super::group::CommittedOffset;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The error for a member of a group that made no progress within its deadline: its partitions went to other members,
/// and its commits are refused. [`Member::rejoin`](crate::group::Member::rejoin) joins again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a member of group {group:?} was fenced (its epoch is {member_epoch}, the group's {group_epoch}): it made no progress within its deadline; join again, or raise the deadline"
)]
#[non_exhaustive]
pub struct Fenced {
    /// The group's name.
    pub group: String,
    /// The group's epoch at the member's last update. The epoch grows with each change of the group's members or
    /// topics.
    pub member_epoch: u64,
    /// The group's present epoch.
    pub group_epoch: u64,
}

/// A member's permission to commit in one partition, with the committed offset. An atomic integer has both: the offset,
/// and in its highest bit, [`FENCED`], the end of the permission. So of a concurrent commit and fence one comes first,
/// and no commit follows the fence. Neither ever waits.
///
/// Only one thread commits: the member's, or the committer's while the member waits for it. Any thread may fence or
/// read.
#[derive(Debug)]
pub(crate) struct CommitRight {
    committed: Arc<CommitWord>,
    /// The journal's side of the committed offset, which the committer writes; `None` if the topic is in memory.
    committed_offset: Option<Arc<CommittedOffset>>,
    /// True while the member reads the partition from the journal and has no consumer in the ring.
    catching_up: AtomicBool,
    #[cfg(test)]
    no_epoch_check: bool,
}

impl CommitRight {
    /// A permission to commit that begins at the committed offset `committed`, which was committed with `metadata`.
    /// `committed_offset` is, for a durable topic, the offset that the committer writes and the group's epoch; `None` if
    /// the topic is in memory.
    pub(crate) fn new(
        committed: u64,
        metadata: Option<Metadata>,
        committed_offset: Option<(Arc<CommittedOffset>, u64)>,
    ) -> Self {
        let committed = Arc::new(CommitWord::new(committed, metadata));
        let committed_offset = committed_offset.map(|(committed_offset, epoch)| {
            committed_offset.follow(&committed, epoch);
            committed_offset
        });
        Self {
            #[cfg(test)]
            no_epoch_check: committed_offset.as_ref().is_some_and(|it: &Arc<CommittedOffset>| it.no_epoch_check()),
            committed,
            committed_offset,
            catching_up: AtomicBool::new(false),
        }
    }

    /// The committed offset: the next offset that the partition's member reads.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.offset()
    }

    /// The committed offset with the metadata that it was committed with, of one moment.
    pub(crate) fn committed_with_metadata(&self) -> (u64, Option<Metadata>) {
        self.committed.offset_with_metadata()
    }

    /// Sets the committed offset to `to`, and signals the committer. Returns false, and changes nothing, if the member
    /// was fenced.
    #[inline]
    pub(crate) fn commit(&self, to: u64) -> bool {
        let moved = self.commit_recorded(to);
        if moved && let Some(committed_offset) = &self.committed_offset {
            committed_offset.moved();
        }
        moved
    }

    /// As [`commit`](Self::commit), and keeps `metadata` with the offset; `None` removes the metadata that the offset had.
    #[cold]
    pub(crate) fn commit_with_metadata(&self, to: u64, metadata: Option<Metadata>) -> bool {
        let moved = self.committed.commit_with(to, metadata, || self.commit_recorded(to));
        if moved && let Some(committed_offset) = &self.committed_offset {
            committed_offset.moved();
        }
        moved
    }

    /// As [`commit`](Self::commit), over offsets without an event, which nobody has handled: the metadata goes along.
    pub(crate) fn pass_over(&self, to: u64) -> bool {
        let moved = self.committed.pass_over(to, || self.commit_recorded(to));
        if moved && let Some(committed_offset) = &self.committed_offset {
            committed_offset.moved();
        }
        moved
    }

    /// As [`commit`](Self::commit), for a seek, which may go back: metadata that `to` was committed with before a later
    /// commit does not count again.
    pub(crate) fn seek(&self, to: u64) -> bool {
        if to == self.committed() { self.commit(to) } else { self.commit_with_metadata(to, None) }
    }

    /// Sets the committed offset to `to` without signalling the committer: the journal has this offset already, or gets
    /// it in a frame that is written only if this returns true. Returns false, and changes nothing, if the member was
    /// fenced.
    #[inline]
    pub(crate) fn commit_recorded(&self, to: u64) -> bool {
        #[cfg(test)]
        if self.no_epoch_check && self.is_fenced() {
            return true;
        }
        let word = &self.committed.word;
        let known = word.load(Ordering::Relaxed);
        // Only this thread commits, so a value that has changed means that the member was fenced.
        known & FENCED == 0 && word.compare_exchange(known, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Fences the member: it can commit no more. Returns the last committed offset.
    pub(crate) fn fence(&self) -> u64 {
        let committed = self.committed.word.fetch_or(FENCED, Ordering::AcqRel) & !FENCED;
        // A member joins a ring and then checks if it is fenced; a fencing thread fences and then reads the stages in
        // the ring. With a full fence between the two steps on both sides, at least one side sees the other.
        fence(Ordering::SeqCst);
        committed
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.committed.word.load(Ordering::Acquire) & FENCED != 0
    }

    pub(crate) fn committed_offset(&self) -> Option<&Arc<CommittedOffset>> {
        self.committed_offset.as_ref()
    }

    pub(crate) fn set_catching_up(&self, catching_up: bool) {
        self.catching_up.store(catching_up, Ordering::Relaxed);
    }

    pub(crate) fn is_catching_up(&self) -> bool {
        self.catching_up.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn nothing_is_committed_after_the_fence() {
        let right = CommitRight::new(3, None, None);
        assert!(right.commit(5) && right.commit(4), "a member may go back");
        assert_eq!(right.fence(), 4);
        assert!(!right.commit(6));
        assert_eq!((right.committed(), right.fence()), (4, 4));
    }

    #[test]
    fn a_commit_that_meets_a_fence_counts_for_both_or_for_neither() {
        for _ in 0..200 {
            let right = Arc::new(CommitRight::new(0, None, None));
            let member = Arc::clone(&right);
            let commits = std::thread::spawn(move || (1..=50).take_while(|&to| member.commit(to)).last().unwrap_or(0));
            let fenced_at = right.fence();
            assert_eq!(commits.join().unwrap(), fenced_at);
        }
    }

    #[test]
    fn metadata_belongs_to_the_offset_that_it_was_committed_with() {
        let right = CommitRight::new(3, Some(b"three"[..].into()), None);
        let now = || {
            let (offset, metadata) = right.committed_with_metadata();
            (offset, metadata.map(|metadata| String::from_utf8(metadata.to_vec()).unwrap()))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(now(), (3, some("three")));
        assert!(right.commit(3));
        assert_eq!(now(), (3, some("three")));
        assert!(right.commit(4));
        assert_eq!(now(), (4, None));
        assert!(right.commit_with_metadata(5, Some(b"five"[..].into())));
        assert_eq!(now(), (5, some("five")));
        assert!(right.commit_with_metadata(5, None));
        assert_eq!(now(), (5, None));
        assert!(right.commit_with_metadata(6, Some(b"six"[..].into())) && right.commit(8) && right.seek(6));
        assert_eq!(now(), (6, None));
        assert!(right.commit_with_metadata(6, Some(b"six"[..].into())) && right.seek(6));
        assert_eq!(now(), (6, some("six")));
        assert!(right.pass_over(7));
        assert_eq!(now(), (7, some("six")));
        assert!(right.commit(8) && right.pass_over(9));
        assert_eq!(now(), (9, None));
        assert!(right.commit_with_metadata(6, Some(b"six"[..].into())));
        right.fence();
        assert!(!right.commit_with_metadata(6, Some(b"late"[..].into())));
        assert_eq!(now(), (6, some("six")));
    }

    #[test]
    fn a_commit_with_metadata_that_meets_a_fence_leaves_both_or_neither() {
        for _ in 0..200 {
            let right = Arc::new(CommitRight::new(0, Some(b"0"[..].into()), None));
            let member = Arc::clone(&right);
            let commits = std::thread::spawn(move || {
                let commit = |to: &u64| member.commit_with_metadata(*to, Some(to.to_string().as_bytes().into()));
                (1..=50).take_while(commit).last().unwrap_or(0)
            });
            let fenced_at = right.fence();
            let (offset, metadata) = right.committed_with_metadata();
            assert_eq!((offset, metadata.as_deref()), (fenced_at, Some(fenced_at.to_string().as_bytes())));
            assert_eq!(commits.join().unwrap(), fenced_at);
        }
    }
}
