//! A member's right to move a partition's committed offset.

use std::sync::atomic::{AtomicU64, Ordering};

/// The committed offset, and in its highest bit whether the right has ended, in one word: so a commit and a fence that
/// meet are one before the other, and no member commits anything once it is fenced. Neither ever waits.
///
/// One thread commits: the member's. Anybody may fence, or look.
#[derive(Debug)]
pub(crate) struct Lease {
    word: AtomicU64,
}

/// Offsets stay below this.
const FENCED: u64 = 1 << 63;

impl Lease {
    /// The right to go on from `committed`.
    pub(crate) fn new(committed: u64) -> Self {
        Self { word: AtomicU64::new(committed & !FENCED) }
    }

    /// The next offset that whoever has the partition will read.
    pub(crate) fn committed(&self) -> u64 {
        self.word.load(Ordering::Acquire) & !FENCED
    }

    /// Moves the committed offset. False if the right has ended; then nothing moves.
    #[inline]
    pub(crate) fn commit(&self, to: u64) -> bool {
        let known = self.word.load(Ordering::Relaxed);
        // Nobody else moves it: if the word is another one, it was fenced.
        known & FENCED == 0 && self.word.compare_exchange(known, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Ends the right, and tells the last offset that was committed.
    pub(crate) fn fence(&self) -> u64 {
        self.word.fetch_or(FENCED, Ordering::AcqRel) & !FENCED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn nothing_is_committed_after_the_fence() {
        let lease = Lease::new(3);
        assert!(lease.commit(5) && lease.commit(4), "a member may go back");
        assert_eq!(lease.fence(), 4);
        assert!(!lease.commit(6));
        assert_eq!((lease.committed(), lease.fence()), (4, 4));
    }

    #[test]
    fn a_commit_that_meets_a_fence_counts_for_both_or_for_neither() {
        for _ in 0..200 {
            let lease = Arc::new(Lease::new(0));
            let member = Arc::clone(&lease);
            let commits = std::thread::spawn(move || (1..=50).take_while(|&to| member.commit(to)).last().unwrap_or(0));
            let fenced_at = lease.fence();
            assert_eq!(commits.join().unwrap(), fenced_at);
        }
    }
}
