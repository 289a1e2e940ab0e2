//! One producer, or any number: what differs between the two kinds of ring.

use slipring_ring::{Batch, Builder, Kind, Multi, Single};

/// [`Single`](crate::producer::Single) or [`Multi`]: whether a topic has one producer or any number.
pub trait Producers: Kind {
    #[doc(hidden)]
    const SINGLE: bool;

    #[doc(hidden)]
    fn builder<E: Send + Sync + 'static>(capacity: usize, make: impl FnMut() -> E + Send + 'static)
    -> Builder<E, Self>;

    /// The producer to lend: the only one, or a clone.
    #[doc(hidden)]
    fn take<E>(spare: &mut Option<slipring_ring::Producer<E, Self>>) -> Option<slipring_ring::Producer<E, Self>>;

    /// What is left of a batch as slices, if all of its slots have events that stand one behind the other.
    #[doc(hidden)]
    fn slices<'b, E>(batch: &'b Batch<'_, E, Self>) -> Option<(&'b [E], &'b [E])>;
}

impl Producers for Single {
    const SINGLE: bool = true;

    fn builder<E: Send + Sync + 'static>(
        capacity: usize,
        make: impl FnMut() -> E + Send + 'static,
    ) -> Builder<E, Self> {
        Builder::single(capacity, make)
    }

    fn take<E>(spare: &mut Option<slipring_ring::Producer<E, Self>>) -> Option<slipring_ring::Producer<E, Self>> {
        spare.take()
    }

    fn slices<'b, E>(batch: &'b Batch<'_, E, Self>) -> Option<(&'b [E], &'b [E])> {
        Some(batch.slices())
    }
}

impl Producers for Multi {
    const SINGLE: bool = false;

    fn builder<E: Send + Sync + 'static>(
        capacity: usize,
        make: impl FnMut() -> E + Send + 'static,
    ) -> Builder<E, Self> {
        Builder::multi(capacity, make)
    }

    fn take<E>(spare: &mut Option<slipring_ring::Producer<E, Self>>) -> Option<slipring_ring::Producer<E, Self>> {
        spare.clone()
    }

    fn slices<'b, E>(_: &'b Batch<'_, E, Self>) -> Option<(&'b [E], &'b [E])> {
        None
    }
}
