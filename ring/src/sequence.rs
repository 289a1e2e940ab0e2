//! Sequences, and the positions, each on cache lines of its own, through which threads communicate.
//!
//! A position is always the *next* sequence: published 7 means that the events 0 to 6 are published. Positions only
//! grow, except that a single producer's claimed position falls when it drops a claim. They are compared by wrapping
//! difference, so that a ring may start anywhere in the range of `u64`, and pass its end.

use crate::ordering::{RAISE_FROM, Site};
use crate::sync::AtomicU64;
use crossbeam_utils::CachePadded;
use std::fmt;

/// The number of an event since the ring began; the slot is `sequence % capacity`. A number is not used again within
/// 2^62 events.
///
/// ```
/// use slipring_ring::Sequence;
/// let last = Sequence(u64::MAX);
/// assert_eq!(last.plus(1), Sequence(0));
/// assert_eq!(last.plus(1).since(last), 1);
/// assert_eq!(last.since(last.plus(1)), -1);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The count of sequences from `earlier` to this one; negative if this one comes first. Correct across the end of
    /// the `u64` range.
    #[inline]
    pub const fn since(self, earlier: Self) -> i64 {
        ahead(self.0, earlier.0)
    }

    /// The sequence `count` after this one, wrapping at the end of the `u64` range.
    #[inline]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.wrapping_add(count))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Consecutive sequences, such as those of a claim.
///
/// ```
/// use slipring_ring::{Sequence, Sequences};
/// let run = Sequences { first: Sequence(6), len: 2 };
/// assert_eq!(run.iter().collect::<Vec<_>>(), [Sequence(6), Sequence(7)]);
/// assert_eq!(run.next(), Sequence(8));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequences {
    /// The first sequence.
    pub first: Sequence,
    /// Count of sequences.
    pub len: usize,
}

impl Sequences {
    /// Iterates over the sequences in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Sequence> + use<> {
        let first = self.first;
        (0..self.len).map(move |index| first.plus(index as u64))
    }

    /// The sequence after the last one; `first` if `len` is 0.
    pub fn next(&self) -> Sequence {
        self.first.plus(self.len as u64)
    }
}

/// The difference `a - b`, correct across the end of the `u64` range: positive if `a` is the later position.
#[inline(always)]
pub(crate) const fn ahead(a: u64, b: u64) -> i64 {
    a.wrapping_sub(b) as i64
}

/// The later of two positions.
#[inline]
pub(crate) fn later(a: u64, b: u64) -> u64 {
    if ahead(a, b) >= 0 { a } else { b }
}

/// The earlier of two positions.
#[inline]
pub(crate) fn earlier(a: u64, b: u64) -> u64 {
    if ahead(a, b) <= 0 { a } else { b }
}

/// A position on cache lines of its own. The type that contains it determines which thread moves it, and with which
/// ordering.
#[derive(Debug)]
pub(crate) struct Position(CachePadded<AtomicU64>);

impl Position {
    pub(crate) fn new(at: u64) -> Self {
        Self(CachePadded::new(AtomicU64::new(at)))
    }

    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn read(&self, site: &Site) -> u64 {
        self.0.load(site.get())
    }

    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn store(&self, at: u64, site: &Site) {
        self.0.store(at, site.get());
    }

    /// Tries once to move the position from `from` to `to`. The error is the position that was found instead, or `from`
    /// itself, because the exchange may fail without a cause.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn exchange(&self, from: u64, to: u64, site: &Site, failure: &Site) -> Result<u64, u64> {
        self.0.compare_exchange_weak(from, to, site.get(), failure.get())
    }

    /// Raises the position to `to`, unless it is at or beyond `to` already. Not `fetch_max`, because positions wrap.
    ///
    /// The loads of this function order nothing: the caller relies on what it acquired to compute `to`, or reads the
    /// position again.
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn raise(&self, to: u64, site: &Site) {
        let mut at = self.read(&RAISE_FROM);
        while ahead(to, at) > 0 {
            match self.exchange(at, to, site, &RAISE_FROM) {
                Ok(_) => return,
                Err(now) => at = now,
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::ordering::{RAISE_FLOOR, READ_FLOOR};

    #[test]
    fn positions_compare_across_the_end_of_the_range() {
        assert_eq!(ahead(1, u64::MAX), 2);
        assert_eq!(later(1, u64::MAX), 1);
        assert_eq!(earlier(1, u64::MAX), u64::MAX);
    }

    #[test]
    fn raise_never_goes_back() {
        let position = Position::new(u64::MAX);
        position.raise(3, &RAISE_FLOOR);
        position.raise(u64::MAX, &RAISE_FLOOR);
        assert_eq!(position.read(&READ_FLOOR), 3);
    }
}
