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

/// The sequences that a consumer may read next: each of `start..end` is a published event. The sequences between the
/// consumer's position and `start` are skipped slots, which it passes over.
#[derive(Clone, Copy)]
pub struct Run {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// [`Single`] or [`Multi`]: one producer or several.
// The mechanics are nameable in this crate alone: from outside, no safe call reaches the positions.
#[allow(private_bounds)]
pub trait Kind: Mechanics + sealed::Sealed {}

impl Kind for Single {}
impl Kind for Multi {}

/// What differs between the two. Its methods trust their callers with the ring's positions.
pub(crate) trait Mechanics: Send + Sync + Sized + 'static {
    /// What stands in a slot beside the event.
    type Stamp: Send + Sync;
    /// The producers' positions.
    type Positions: Send + Sync;
    /// How many bytes ahead of its claim a producer asks for the cache lines that it will write. Measured: see
    /// `docs/decisions/`.
    const PREFETCH: usize;
    /// How far a consumer looks ahead at once, in events.
    const LONGEST_LOOK: u64;

    fn first_stamp(index: u64, first: u64, capacity: u64) -> Self::Stamp;
    fn start(first: u64) -> Self::Positions;

    /// The next sequence to be published: everything below is, without a hole.
    fn published<E>(core: &Core<E, Self>) -> u64
    where
        Self: Kind;
    /// A run of events without a skipped slot, for a consumer that stands at `from`, knows that all up to `known` is
    /// such a run, may not read beyond `to` (none: all that is published), and wants `most` events.
    fn run<E>(core: &Core<E, Self>, from: u64, known: u64, to: Option<u64>, most: u64) -> Run
    where
        Self: Kind;
    /// [`run`](Self::run) for one of several workers. Another worker may have taken `from` meanwhile, and a producer may have
    /// overwritten it. Then the run means nothing, and the exchange of the shared counter fails.
    fn share<E>(core: &Core<E, Self>, from: u64, to: Option<u64>, most: u64) -> Run
    where
        Self: Kind;
    /// The next sequence to be claimed. A single producer takes it back if it drops a claim.
    fn claimed<E>(core: &Core<E, Self>) -> u64
    where
        Self: Kind;
    /// The next sequence to be claimed, read by a producer that has no claim out.
    fn next<E>(producer: &Producer<E, Self>) -> u64
    where
        Self: Kind;
    /// The sequences below `end` that are claimed and not published, as runs `(first, end)`. For a ring that takes no more
    /// claims.
    fn unpublished<E>(core: &Core<E, Self>, end: u64) -> Vec<(u64, u64)>
    where
        Self: Kind;
    /// Whether the published slot holds no event, because its claim was dropped.
    fn is_skipped<E>(slots: Slots<'_, E, Self::Stamp>, sequence: u64) -> bool;

    /// Takes `len` sequences if there is room for them, and shows that to whoever closes the ring.
    fn claim<E>(producer: &mut Producer<E, Self>, len: u64) -> Option<u64>
    where
        Self: Kind;
    /// Publishes a claim.
    fn publish<E>(producer: &mut Producer<E, Self>, first: u64, len: u64)
    where
        Self: Kind;
    /// Gives a claim up without publishing it.
    fn abandon<E>(producer: &mut Producer<E, Self>, first: u64, len: u64)
    where
        Self: Kind;
    /// True if a claim that is given up leaves no stamp in its slots. Then the record of a closed ring's end must get it as a
    /// gap.
    const TAKES_BACK: bool;
}
