//! The access of a stage to events, read or change, chosen by type.

use crate::buffer::Slots;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Shared {}
    impl Sealed for super::Exclusive {}
}

/// The stage lends `&E`. Other stages may read the event at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Shared;

/// The stage lends `&mut E`. It must be ordered before or after every other stage.
#[derive(Clone, Copy, Debug)]
pub struct Exclusive;

/// The access of a stage to an event of type `E`: [`Shared`] or [`Exclusive`].
pub trait Access: sealed::Sealed + Send + 'static {
    /// The lent reference: `&E` or `&mut E`.
    type Event<'e, E: 'e>;

    /// # Safety
    /// For the lifetime `'e` the caller may hold such a reference to the event: it is not written if shared, and used
    /// by no other thread if exclusive.
    #[doc(hidden)]
    unsafe fn lend<'e, E, S>(slots: Slots<'e, E, S>, sequence: u64) -> Self::Event<'e, E>;
}

impl Access for Shared {
    type Event<'e, E: 'e> = &'e E;

    #[inline(always)]
    unsafe fn lend<'e, E, S>(slots: Slots<'e, E, S>, sequence: u64) -> &'e E {
        // SAFETY: the caller guarantees that the event is not written for `'e`.
        unsafe { &*slots.event(sequence) }
    }
}

impl Access for Exclusive {
    type Event<'e, E: 'e> = &'e mut E;

    #[inline(always)]
    unsafe fn lend<'e, E, S>(slots: Slots<'e, E, S>, sequence: u64) -> &'e mut E {
        // SAFETY: the caller guarantees that no other thread uses the event for `'e`.
        unsafe { &mut *slots.event_mut(sequence) }
    }
}
