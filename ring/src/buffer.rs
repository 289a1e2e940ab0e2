//! The slots: the only file of ring with an `UnsafeCell`.
//!
//! A slot is written by the producer that claimed its sequence, then read by the stages, then, one capacity later,
//! written again. Who may do which of the two at a moment is decided by the positions; this file only hands out the
//! pointers, and owns the memory.

use crate::error::BuildError;
use crate::memory::{MemoryReport, Region, Wishes};
use crate::sync::UnsafeCell;
use std::alloc::Layout;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// The largest capacity: beyond it, wrapping differences of stamps would lose their sign.
pub(crate) const MAX_CAPACITY: usize = 1 << 40;

#[repr(C)]
struct Slot<E, S> {
    event: UnsafeCell<E>,
    stamp: S,
}

/// A power of two of slots, allocated and touched at the start.
pub(crate) struct Buffer<E, S> {
    slots: NonNull<[Slot<E, S>]>,
    region: Region,
    owns: PhantomData<Slot<E, S>>,
}

// SAFETY: the buffer owns its slots, as a box would.
unsafe impl<E: Send, S: Send> Send for Buffer<E, S> {}
// SAFETY: the buffer hands out raw pointers only. Whoever turns one into a reference keeps the ring's rule: `&mut E`
// while no other thread looks at the slot (so `E: Send` is enough), `&E` from several threads at once (`E: Sync`).
unsafe impl<E: Send + Sync, S: Sync> Sync for Buffer<E, S> {}

/// The slots, by value: a loop that keeps this in registers does not read the buffer's own fields again after each
/// atomic load.
pub struct Slots<'b, E, S> {
    slots: &'b [Slot<E, S>],
}

impl<E, S> Clone for Slots<'_, E, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E, S> Copy for Slots<'_, E, S> {}

impl<'b, E, S> Slots<'b, E, S> {
    #[inline(always)]
    fn slot(self, sequence: u64) -> &'b Slot<E, S> {
        // SAFETY: the number of slots is a power of two, so the masked index is below it.
        unsafe { self.slots.get_unchecked(sequence as usize & (self.slots.len() - 1)) }
    }

    #[inline(always)]
    pub(crate) fn stamp(self, sequence: u64) -> &'b S {
        &self.slot(sequence).stamp
    }

    /// The event of `sequence`, to read. Under loom this is the moment that the model takes for the read.
    #[inline(always)]
    pub(crate) fn event(self, sequence: u64) -> *const E {
        #[cfg(not(loom))]
        return self.slot(sequence).event.get();
        #[cfg(loom)]
        self.slot(sequence).event.with(|event| event)
    }

    /// The event of `sequence`, to write. Under loom this is the moment that the model takes for the write.
    #[inline(always)]
    pub(crate) fn event_mut(self, sequence: u64) -> *mut E {
        #[cfg(not(loom))]
        return self.slot(sequence).event.get();
        #[cfg(loom)]
        self.slot(sequence).event.with_mut(|event| event)
    }
}

/// Drops the slots made so far, should the next one panic.
struct Made<E, S> {
    slots: NonNull<Slot<E, S>>,
    count: usize,
}

impl<E, S> Drop for Made<E, S> {
    fn drop(&mut self) {
        let made = NonNull::slice_from_raw_parts(self.slots, self.count);
        // SAFETY: so many slots are written, and nobody else drops them. If one drop panics the others still follow.
        unsafe { made.drop_in_place() };
    }
}

impl<E, S> Buffer<E, S> {
    /// `capacity` events made by `make`, each with the stamp of its index. Refused if the system gives no such memory.
    pub(crate) fn new(
        capacity: usize,
        mut make: impl FnMut() -> E,
        stamp: impl Fn(usize) -> S,
        wishes: Wishes,
    ) -> Result<Self, BuildError> {
        debug_assert!(capacity.is_power_of_two());
        let refused = || BuildError::Memory { bytes: capacity.saturating_mul(size_of::<Slot<E, S>>()) };
        let layout = Layout::array::<Slot<E, S>>(capacity).map_err(|_| refused())?;
        let region = Region::new(layout, wishes).ok_or_else(refused)?;
        let mut made = Made { slots: region.start().cast(), count: 0 };
        while made.count < capacity {
            let slot = Slot { event: UnsafeCell::new(make()), stamp: stamp(made.count) };
            // SAFETY: the region has room for `capacity` slots, aligned for them.
            let place = unsafe { made.slots.add(made.count) };
            // SAFETY: see above; nothing is there yet.
            unsafe { place.write(slot) };
            made.count += 1;
        }
        let slots = NonNull::slice_from_raw_parts(std::mem::ManuallyDrop::new(made).slots, capacity);
        Ok(Self { slots, region, owns: PhantomData })
    }

    #[inline(always)]
    pub(crate) fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    #[inline(always)]
    pub(crate) fn slots(&self) -> Slots<'_, E, S> {
        // SAFETY: written in `new`, and shared, but for the cells in them, until the buffer is dropped.
        Slots { slots: unsafe { self.slots.as_ref() } }
    }

    /// Asks the processor to own the lines of `sequence` soon. Never more than a hint.
    #[inline(always)]
    pub(crate) fn prefetch_write(&self, sequence: u64) {
        #[cfg(all(target_arch = "x86_64", not(any(loom, shuttle, miri))))]
        {
            /// What processors move at a time.
            const LINE: usize = 64;
            let slot: *const Slot<E, S> = self.slots().slot(sequence);
            let mut line = 0;
            while line < size_of::<Slot<E, S>>().min(4 * LINE) {
                let line_at = slot.cast::<u8>().wrapping_add(line);
                // The intrinsic prefetches for reading unless the whole program is built for newer processors; older
                // ones take the instruction for nothing at all.
                // SAFETY: a prefetch changes no register, flag or memory, and cannot fault.
                unsafe {
                    core::arch::asm!("prefetchw [{at}]", at = in(reg) line_at, options(nostack, preserves_flags, readonly));
                }
                line += LINE;
            }
        }
        #[cfg(not(all(target_arch = "x86_64", not(any(loom, shuttle, miri)))))]
        let _ = sequence;
    }

    /// How many slots lie within `bytes`, but never so many that a small ring's readers are disturbed.
    pub(crate) fn slots_ahead(&self, bytes: usize) -> u64 {
        (bytes / size_of::<Slot<E, S>>().max(1)).clamp(1, (self.slots.len() / 8).max(1)) as u64
    }

    /// What the system gave.
    pub(crate) fn memory(&self) -> &MemoryReport {
        &self.region.report
    }
}

impl<E, S> Drop for Buffer<E, S> {
    fn drop(&mut self) {
        drop(Made { slots: self.slots.cast::<Slot<E, S>>(), count: self.slots.len() });
    }
}

#[cfg(not(loom))]
impl<E> Buffer<E, ()> {
    /// The events of a run of `len` sequences, in two contiguous parts: up to the end of the buffer, and from its
    /// start. Without stamps a slot is its event and nothing else.
    #[inline]
    pub(crate) fn run(&self, first: u64, len: usize) -> [(*mut E, usize); 2] {
        const { assert!(size_of::<Slot<E, ()>>() == size_of::<E>()) };
        let start = first as usize & (self.slots.len() - 1);
        let head = len.min(self.slots.len() - start);
        // The pointers come from the whole slice, so that they may be walked over more than one slot.
        let base = self.slots.cast::<E>().as_ptr();
        // SAFETY: `start` is below the number of slots.
        [(unsafe { base.add(start) }, head), (base, len - head)]
    }
}
