//! The differences between a ring with one producer and a ring with several, chosen by type.

use crate::buffer::Slots;
use crate::core::Core;
use crate::producer::Producer;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Single {}
    impl Sealed for super::Multi {}
}

/// The kind of a ring with one producer, which executes no atomic read-modify-write. See `single_producer.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Single;

/// The kind of a ring with any number of producers, which claim by compare-and-swap. See `multi_producer.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Multi;

/// A run of consecutive sequences that a consumer may read next: each sequence in `start..end` is a published event. If
/// `start` is above the consumer's position, the slots in between are skipped ones, which the consumer passes without
/// reading.
#[derive(Clone, Copy)]
pub struct Run {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The kind of a ring: [`Single`] or [`Multi`], one producer or several.
// `Mechanics` is private, so that no safe call from outside the crate reaches the positions.
#[allow(private_bounds)]
pub trait Kind: Mechanics + sealed::Sealed {}

impl Kind for Single {}
impl Kind for Multi {}

/// The kinds of rings whose producers can be cloned: [`Multi`].
#[diagnostic::on_unimplemented(
    message = "a single producer is the only one, so it cannot be cloned",
    label = "the only producer of its ring or topic",
    note = "for several producers, declare the ring with `Builder::multi`, or create the topic without `single_producer()`"
)]
pub trait ManyProducers: Kind {}

impl ManyProducers for Multi {}

/// The operations that differ between the two kinds. Their callers must pass positions that keep the rules of the ring.
pub(crate) trait Mechanics: Send + Sync + Sized + 'static {
    /// The part of a slot beside the event: nothing in a single-producer ring, an atomic number in a multi-producer
    /// ring.
    type Stamp: Send + Sync;
    /// The producers' positions.
    type Positions: Send + Sync;
    /// Distance ahead of its claim, in bytes, at which a producer prefetches the cache lines to be written.
    /// Measurements: `docs/decisions/`, 3 and 8.
    const PREFETCH: usize;
    /// The most events that one search by a consumer finds, so that the events are still in the cache when they are
    /// read.
    const LONGEST_LOOK: u64;

    fn first_stamp(index: u64, first: u64, capacity: u64) -> Self::Stamp;
    fn start(first: u64) -> Self::Positions;

    /// The next sequence to be published: every sequence below it is published.
    fn published<E>(core: &Core<E, Self>) -> u64
    where
        Self: Kind;
    /// Finds consecutive published events without a skipped slot, for a consumer at position `from`. The caller knows
    /// that all sequences from `from` to below `known` are such events. The run ends at `to` (exclusive) at the latest,
    /// or at the published position if `to` is `None`. The search may stop after `most` events. The run is empty
    /// (`start == end`) if it has no event.
    fn run<E>(core: &Core<E, Self>, from: u64, known: u64, to: Option<u64>, most: u64) -> Run
    where
        Self: Kind;
    /// As [`run`](Self::run), for one of several workers, with at most `most` events. Another worker may have taken
    /// `from` meanwhile, and a producer may have overwritten it: then the run is meaningless, and the caller's exchange
    /// of the shared counter fails.
    fn share<E>(core: &Core<E, Self>, from: u64, to: Option<u64>, most: u64) -> Run
    where
        Self: Kind;
    /// The next sequence to be claimed. A single producer lowers it again when it drops a claim.
    fn claimed<E>(core: &Core<E, Self>) -> u64
    where
        Self: Kind;
    /// The next sequence to be claimed, as the producer reads it while it has no uncommitted claim.
    fn next<E>(producer: &Producer<E, Self>) -> u64
    where
        Self: Kind;
    /// The runs of sequences below `end` (exclusive) that are claimed but not published, each as its first sequence and
    /// its end (exclusive). Called when the ring accepts no claims any more.
    fn unpublished<E>(core: &Core<E, Self>, end: u64) -> Vec<(u64, u64)>
    where
        Self: Kind;
    /// True if the slot of the published `sequence` holds no event, because its claim was dropped.
    fn is_skipped<E>(slots: Slots<'_, E, Self::Stamp>, sequence: u64) -> bool;

    /// Reads the gates, and sets the end of the sequences that the producer may claim.
    fn refresh<E>(producer: &mut Producer<E, Self>)
    where
        Self: Kind;
    /// Claims `len` sequences and makes the claim visible to threads that close the ring. Returns the first sequence;
    /// `None` if there is not enough room.
    fn claim<E>(producer: &mut Producer<E, Self>, len: u64) -> Option<u64>
    where
        Self: Kind;
    /// Publishes a claim.
    fn publish<E>(producer: &mut Producer<E, Self>, first: u64, len: u64)
    where
        Self: Kind;
    /// Gives up a claim of `len` sequences from `first` on without publishing events.
    fn abandon<E>(producer: &mut Producer<E, Self>, first: u64, len: u64)
    where
        Self: Kind;
    /// True if a claim that is given up leaves no stamps in its slots. Then the record of a closed ring's end must list
    /// its sequences as a gap.
    const TAKES_BACK: bool;
}
