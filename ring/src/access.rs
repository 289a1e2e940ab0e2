//! Whether a stage only reads events or changes them, chosen by type.

use crate::buffer::Slots;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Shared {}
    impl Sealed for super::Exclusive {}
}

/// The stage lends `&E`; others may read at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Shared;

/// The stage lends `&mut E`; it is ordered against every other stage.
#[derive(Clone, Copy, Debug)]
pub struct Exclusive;

/// [`Shared`] or [`Exclusive`]: what a stage lends of an event of type `E`.
pub trait Access: sealed::Sealed + Send + 'static {
    /// `&E` or `&mut E`.
    type Event<'e, E: 'e>;

    /// # Safety
    /// The caller has the right to such a reference for as long as `'e`: to read, or to be the only one.
    #[doc(hidden)]
    unsafe fn lend<'e, E, S>(slots: Slots<'e, E, S>, sequence: u64) -> Self::Event<'e, E>;
}

impl Access for Shared {
    type Event<'e, E: 'e> = &'e E;

    #[inline(always)]
    unsafe fn lend<'e, E, S>(slots: Slots<'e, E, S>, sequence: u64) -> &'e E {
        // SAFETY: the caller's promise.
        unsafe { &*slots.event(sequence) }
    }
}

impl Access for Exclusive {
    type Event<'e, E: 'e> = &'e mut E;

    #[inline(always)]
    unsafe fn lend<'e, E, S>(slots: Slots<'e, E, S>, sequence: u64) -> &'e mut E {
        // SAFETY: the caller's promise.
        unsafe { &mut *slots.event_mut(sequence) }
    }
}
