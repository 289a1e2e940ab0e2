//! The kinds of access that a stage can have to events, chosen by type: [`Shared`] reads them, [`Exclusive`] may change
//! them.

use crate::buffer::Slots;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Shared {}
    impl Sealed for super::Exclusive {}
}

/// Read access: the stage's batches lend `&E`. Other stages may read an event at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Shared;

/// Write access: the stage's batches lend `&mut E`. The stage must be ordered before or after every other stage.
#[derive(Clone, Copy, Debug)]
pub struct Exclusive;

/// The access of a stage to an event of type `E`: [`Shared`] or [`Exclusive`].
pub trait Access: sealed::Sealed + Send + 'static {
    /// The lent reference: `&E` or `&mut E`.
    type Event<'e, E: 'e>;

    /// # Safety
    /// For the lifetime `'e`, no thread writes the event if the access is [`Shared`], and no other thread uses the
    /// event if the access is [`Exclusive`].
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
