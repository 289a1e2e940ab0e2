//! The two kinds of topics: with one producer, and with any number.

use slipring_ring::{Batch, Builder, Kind, Multi, Single};

/// The kind of a topic: [`Single`](crate::producer::Single) has one producer, [`Multi`] any number.
pub trait Producers: Kind {
    #[doc(hidden)]
    const SINGLE: bool;

    #[doc(hidden)]
    fn builder<E: Send + Sync + 'static>(capacity: usize, make: impl FnMut() -> E + Send + 'static)
    -> Builder<E, Self>;

    /// Takes the producer to be lent: with [`Multi`] a clone, with [`Single`] the only one. `None` if it is lent
    /// already.
    #[doc(hidden)]
    fn take<E>(spare: &mut Option<slipring_ring::Producer<E, Self>>) -> Option<slipring_ring::Producer<E, Self>>;

    /// The unread events of a batch as two slices, the second one empty unless the ring wraps; `None` for [`Multi`],
    /// whose batches may have slots without an event.
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
