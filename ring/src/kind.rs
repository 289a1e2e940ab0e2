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
    /// No slot is ever skipped.
    #[doc(hidden)]
    const DENSE: bool;
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
    /// The same, for a reader that stands at `from`, knows that all below `known` is published and wants no more
    /// than `most` from where it stands. And whether all from `known` on holds events, none of it skipped.
    #[doc(hidden)]
    fn published_to<E>(core: &Core<E, Self>, from: u64, known: u64, most: u64) -> (u64, bool);
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
