//! One producer or several: what differs between the two, chosen by type.

use crate::buffer::Slots;
use crate::core::Core;
use crate::producer::Producer;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Single {}
    impl Sealed for super::Multi {}
}

/// A ring with one producer: no atomic read-modify-write on its path. See `single_producer.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Single;

/// A ring with any number of producers, which claim by compare-and-swap. See `multi_producer.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Multi;

/// Events that a consumer may read next: from `start` to `end`, every one an event. Before `start` lie skipped slots.
#[derive(Clone, Copy)]
pub struct Run {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// [`Single`] or [`Multi`].
///
/// Not for other types: the methods are the ring's own business.
pub trait Kind: sealed::Sealed + Send + Sync + Sized + 'static {
    /// What stands in a slot beside the event.
    #[doc(hidden)]
    type Stamp: Send + Sync;
    /// The producers' positions.
    #[doc(hidden)]
    type Positions: Send + Sync;
    /// How many bytes ahead of its claim a producer asks for the cache lines that it will write. Measured: see
    /// `docs/decisions/`.
    #[doc(hidden)]
    const PREFETCH: usize;
    /// How far a consumer looks ahead at once.
    #[doc(hidden)]
    const LONGEST_LOOK: u64;

    #[doc(hidden)]
    fn first_stamp(index: u64, first: u64, capacity: u64) -> Self::Stamp;
    #[doc(hidden)]
    fn start(first: u64) -> Self::Positions;

    /// The next sequence to be published: everything below is, without a hole.
    #[doc(hidden)]
    fn published<E>(core: &Core<E, Self>) -> u64;
    /// A run of events without a skipped slot, for a consumer that stands at `from`, knows that all up to `known` is
    /// such a run, may not read beyond `to` (none: all that is published), and wants `most` from where it stands.
    #[doc(hidden)]
    fn run<E>(core: &Core<E, Self>, from: u64, known: u64, to: Option<u64>, most: u64) -> Run;
    /// The next sequence that is not published, from `from` on, which may be taken by somebody else and overwritten
    /// long since; `most` further at most.
    #[doc(hidden)]
    fn published_from<E>(core: &Core<E, Self>, from: u64, most: u64) -> u64;
    /// The next sequence to be claimed. The same as published where claims cannot be seen from outside.
    #[doc(hidden)]
    fn claimed<E>(core: &Core<E, Self>) -> u64;
    /// Whether the published slot holds no event, because its claim was dropped.
    #[doc(hidden)]
    fn is_skipped<E>(slots: Slots<'_, E, Self::Stamp>, sequence: u64) -> bool;

    /// Takes `len` sequences if there is room for them.
    #[doc(hidden)]
    fn claim<E>(producer: &mut Producer<E, Self>, len: u64) -> Option<u64>;
    /// Publishes what was claimed.
    #[doc(hidden)]
    fn publish<E>(producer: &mut Producer<E, Self>, first: u64, len: u64);
    /// Gives up what was claimed.
    #[doc(hidden)]
    fn abandon<E>(producer: &mut Producer<E, Self>, first: u64, len: u64);
}
