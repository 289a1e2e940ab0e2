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

/// The largest capacity: beyond it, wrapping differences of stamps would lose their sign. Where addresses have 32 bits,
/// the largest power of two whose slots may fit into them.
pub(crate) const MAX_CAPACITY: usize = if usize::BITS > 40 { 1 << 40 } else { 1 << (usize::BITS - 2) };

#[repr(C)]
struct Slot<E, S> {
    event: UnsafeCell<E>,
    stamp: S,
}

/// What processors move at a time, in bytes.
const LINE: usize = 64;

/// Where events and stamps lie.
///
/// Side by side, an event and its stamp come with one cache line: that is the quickest way there is for small events,
/// and for rings that do not fit in the nearest cache, whose readers fetch the events by looking at their stamps. A
/// larger event would share two lines with its neighbours' stamps, and in a small ring the two sides meet on these: there
/// the events stand by themselves, and the stamps behind the last one. Measured: see `docs/decisions/`, 12.
struct Places<E, S> {
    /// From one event to the next, in bytes.
    event_step: usize,
    /// Of the first stamp, in bytes.
    stamps: usize,
    stamp_step: usize,
    of: PhantomData<Slot<E, S>>,
}

impl<E, S> Clone for Places<E, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E, S> Copy for Places<E, S> {}

impl<E, S> Places<E, S> {
    /// From this size on an event may stand by itself. Below, the places are constants.
    const LARGE: usize = 40;
    /// So many bytes of events count as a small ring. Events of whole lines share none with a neighbour, if they stand by
    /// themselves.
    const SMALL: usize = if size_of::<E>().is_multiple_of(LINE) { 64 << 10 } else { 32 << 10 };
    const MAY_STAND_APART: bool = size_of::<E>() >= Self::LARGE && size_of::<S>() != 0;

    const TOGETHER: Self = Self {
        event_step: size_of::<Slot<E, S>>(),
        stamps: std::mem::offset_of!(Slot<E, S>, stamp),
        stamp_step: size_of::<Slot<E, S>>(),
        of: PhantomData,
    };

    /// The places of so many slots, and the memory for them; none if no address reaches so far.
    fn of(capacity: usize) -> Option<(Self, Layout)> {
        let together = Layout::array::<Slot<E, S>>(capacity).ok()?;
        if !Self::MAY_STAND_APART || size_of::<E>().saturating_mul(capacity) > Self::SMALL {
            return Some((Self::TOGETHER, together));
        }
        let events = Layout::array::<UnsafeCell<E>>(capacity).ok()?;
        let (layout, stamps) =
            events.align_to(LINE).ok()?.pad_to_align().extend(Layout::array::<S>(capacity).ok()?).ok()?;
        let (event_step, stamp_step) = (size_of::<UnsafeCell<E>>(), size_of::<S>());
        Some((Self { event_step, stamps, stamp_step, of: PhantomData }, layout))
    }

    /// Small events have no other places, so that these are constants to the compiler.
    #[inline(always)]
    fn settled(self) -> Self {
        if Self::MAY_STAND_APART { self } else { Self::TOGETHER }
    }

    /// Where the event of a slot is, in bytes from the start.
    #[inline(always)]
    fn event(self, index: usize) -> usize {
        index * self.settled().event_step
    }

    /// Where the stamp of a slot is, in bytes from the start.
    #[inline(always)]
    fn stamp(self, index: usize) -> usize {
        let places = self.settled();
        places.stamps + index * places.stamp_step
    }
}

/// A power of two of slots, allocated and touched at the start.
pub(crate) struct Buffer<E, S> {
    start: NonNull<u8>,
    places: Places<E, S>,
    capacity: usize,
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
    start: NonNull<u8>,
    places: Places<E, S>,
    /// One less than the capacity, a power of two.
    mask: usize,
    of: PhantomData<&'b Slot<E, S>>,
}

impl<E, S> Clone for Slots<'_, E, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E, S> Copy for Slots<'_, E, S> {}

impl<'b, E, S> Slots<'b, E, S> {
    #[inline(always)]
    fn index(self, sequence: u64) -> usize {
        sequence as usize & self.mask
    }

    #[inline(always)]
    fn cell(self, sequence: u64) -> &'b UnsafeCell<E> {
        // SAFETY: the index is below the capacity, so this is the place of an event, inside the buffer's memory.
        let cell = unsafe { self.start.add(self.places.event(self.index(sequence))) };
        // SAFETY: written in `new`, and shared until the buffer is dropped.
        unsafe { cell.cast().as_ref() }
    }

    #[inline(always)]
    pub(crate) fn stamp(self, sequence: u64) -> &'b S {
        // SAFETY: the index is below the capacity, so this is the place of a stamp, inside the buffer's memory.
        let stamp = unsafe { self.start.add(self.places.stamp(self.index(sequence))) };
        // SAFETY: written in `new`, and shared until the buffer is dropped.
        unsafe { stamp.cast().as_ref() }
    }

    /// The event of `sequence`, to read. Under loom this is the moment that the model takes for the read.
    #[inline(always)]
    pub(crate) fn event(self, sequence: u64) -> *const E {
        #[cfg(not(loom))]
        return self.cell(sequence).get();
        #[cfg(loom)]
        self.cell(sequence).with(|event| event)
    }

    /// The event of `sequence`, to write. Under loom this is the moment that the model takes for the write.
    #[inline(always)]
    pub(crate) fn event_mut(self, sequence: u64) -> *mut E {
        #[cfg(not(loom))]
        return self.cell(sequence).get();
        #[cfg(loom)]
        self.cell(sequence).with_mut(|event| event)
    }
}

/// The slots that are written, from the first on. Dropping it drops their events and stamps.
struct Made<E, S> {
    start: NonNull<u8>,
    places: Places<E, S>,
    count: usize,
}

impl<E, S> Made<E, S> {
    fn drop_from(&self, index: usize) {
        /// Drops the rest, should the drop of one event panic.
        struct Rest<'m, E, S>(&'m Made<E, S>, usize);
        impl<E, S> Drop for Rest<'_, E, S> {
            fn drop(&mut self) {
                self.0.drop_from(self.1);
            }
        }
        for index in index..self.count {
            let rest = Rest(self, index + 1);
            // SAFETY: the places of a slot lie inside the buffer's memory.
            let stamp = unsafe { self.start.add(self.places.stamp(index)) };
            // SAFETY: the stamp of each slot below `count` is written, and only `Made` drops it, once.
            unsafe { stamp.cast::<S>().drop_in_place() };
            // SAFETY: the places of a slot lie inside the buffer's memory.
            let event = unsafe { self.start.add(self.places.event(index)) };
            // SAFETY: the event of each slot below `count` is written, and only `Made` drops it, once.
            unsafe { event.cast::<UnsafeCell<E>>().drop_in_place() };
            std::mem::forget(rest);
        }
    }
}

impl<E, S> Drop for Made<E, S> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<Slot<E, S>>() {
            self.drop_from(0);
        }
    }
}

// SAFETY: it owns the slots that are written, as a box would.
unsafe impl<E: Send, S: Send> Send for Made<E, S> {}

/// Events larger than this are made on a thread whose stack has room for them.
const ON_STACK: usize = 64 << 10;

/// Runs `work` on a thread with `room` bytes of stack. None if the system gives no such thread.
fn with_stack<R: Send>(room: usize, work: impl FnOnce() -> R + Send) -> Option<R> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("slipring-make".to_owned()).stack_size(room);
        match thread.spawn_scoped(scope, work).ok()?.join() {
            Ok(made) => Some(made),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl<E, S> Buffer<E, S> {
    /// The largest capacity. Slots of no size take no memory, only the time to make their events one by one.
    pub(crate) const LARGEST: usize = if size_of::<Slot<E, S>>() == 0 { 1 << 24 } else { MAX_CAPACITY };

    /// `capacity` events made by `make`, each with the stamp of its index. Refused if the system gives no such memory.
    pub(crate) fn new(
        capacity: usize,
        mut make: impl FnMut() -> E + Send,
        stamp: impl Fn(usize) -> S + Send,
        wishes: Wishes,
    ) -> Result<Self, BuildError>
    where
        E: Send,
        S: Send,
    {
        debug_assert!(capacity.is_power_of_two());
        let refused = || BuildError::Memory { bytes: capacity.saturating_mul(size_of::<Slot<E, S>>()) };
        let (places, layout) = Places::of(capacity).ok_or_else(refused)?;
        let region = Region::new(layout, wishes).ok_or_else(refused)?;
        let mut made = Made::<E, S> { start: region.start(), places, count: 0 };
        let fill = move || {
            // Whole, not its fields: should an event panic, the slots before it are dropped.
            let made_now = &mut made;
            while made_now.count < capacity {
                let (event, stamp) = (UnsafeCell::new(make()), stamp(made_now.count));
                // SAFETY: the region has room for `capacity` events and stamps at these places, aligned for them.
                let place = unsafe { made_now.start.add(places.event(made_now.count)) };
                // SAFETY: the place has the size and alignment of an event, and nothing is there yet.
                unsafe { place.cast().write(event) };
                // SAFETY: the region has room for `capacity` stamps at these places, aligned for them.
                let place = unsafe { made_now.start.add(places.stamp(made_now.count)) };
                // SAFETY: the place has the size and alignment of a stamp, and nothing is there yet.
                unsafe { place.cast().write(stamp) };
                made_now.count += 1;
            }
            made
        };
        // An unoptimised build moves an event several times on its way to its slot, each time over the stack.
        let made = match size_of::<E>() {
            0..=ON_STACK => fill(),
            size => with_stack(size.saturating_mul(16).saturating_add(1 << 20), fill).ok_or_else(refused)?,
        };
        let start = std::mem::ManuallyDrop::new(made).start;
        Ok(Self { start, places, capacity, region, owns: PhantomData })
    }

    #[inline(always)]
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    #[inline(always)]
    pub(crate) fn slots(&self) -> Slots<'_, E, S> {
        Slots { start: self.start, places: self.places, mask: self.capacity - 1, of: PhantomData }
    }

    /// Asks the processor to own the lines of `sequence` soon. Never more than a hint.
    #[inline(always)]
    pub(crate) fn prefetch_write(&self, sequence: u64) {
        #[cfg(all(target_arch = "x86_64", not(any(loom, shuttle, miri))))]
        {
            let slots = self.slots();
            let slot = self.start.as_ptr().wrapping_add(self.places.event(slots.index(sequence)));
            let mut line = 0;
            while line < self.places.settled().event_step.min(4 * LINE) {
                let line_at = slot.wrapping_add(line);
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

    /// How many events lie within `bytes`, but never so many that a small ring's readers are disturbed.
    pub(crate) fn slots_ahead(&self, bytes: usize) -> u64 {
        (bytes / self.places.event_step.max(1)).clamp(1, (self.capacity / 8).max(1)) as u64
    }

    /// What the system gave.
    pub(crate) fn memory(&self) -> &MemoryReport {
        &self.region.report
    }
}

impl<E, S> Drop for Buffer<E, S> {
    fn drop(&mut self) {
        drop(Made { start: self.start, places: self.places, count: self.capacity });
    }
}

#[cfg(not(loom))]
impl<E> Buffer<E, ()> {
    /// The events of a run of `len` sequences, in two contiguous parts: up to the end of the buffer, and from its
    /// start. Without stamps a slot is its event and nothing else.
    #[inline]
    pub(crate) fn run(&self, first: u64, len: usize) -> [(*mut E, usize); 2] {
        const { assert!(size_of::<Slot<E, ()>>() == size_of::<E>()) };
        let start = first as usize & (self.capacity - 1);
        let head = len.min(self.capacity - start);
        // The pointers come from the start, so that they may be walked over more than one slot.
        let base = self.start.cast::<E>().as_ptr();
        // SAFETY: `start` is below the number of slots.
        [(unsafe { base.add(start) }, head), (base, len - head)]
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::sync::{Mutex, lock};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn places_are_apart<E>(stands_apart: impl Fn(usize) -> bool) {
        for capacity in (0..12).map(|power| 1 << power) {
            let (places, layout) = Places::<E, u64>::of(capacity).unwrap();
            assert_eq!(places.event_step == size_of::<E>(), stands_apart(capacity), "{capacity}");
            let mut taken: Vec<_> = (0..capacity)
                .flat_map(|index| {
                    let (event, stamp) = (places.event(index), places.stamp(index));
                    assert_eq!((event % align_of::<E>(), stamp % align_of::<u64>()), (0, 0));
                    [(event, event + size_of::<E>()), (stamp, stamp + size_of::<u64>())]
                })
                .collect();
            taken.sort_unstable();
            assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{capacity}: {taken:?}");
            assert!(taken.last().unwrap().1 <= layout.size());
        }
    }

    #[test]
    fn no_place_overlaps_another() {
        #[repr(align(128))]
        struct Aligned([u8; 128]);
        places_are_apart::<()>(|_| false);
        places_are_apart::<[u8; 3]>(|_| false);
        places_are_apart::<u64>(|_| false);
        places_are_apart::<[u64; 4]>(|_| false);
        places_are_apart::<[u64; 5]>(|capacity| capacity <= 512);
        places_are_apart::<[u8; 41]>(|capacity| capacity <= 512);
        places_are_apart::<[u64; 8]>(|capacity| capacity <= 1024);
        places_are_apart::<Aligned>(|capacity| capacity <= 512);
        assert_eq!(Aligned([1; 128]).0.len(), 128);
    }

    /// Counts its drops; one of them panics.
    struct Counted<'c, const N: usize>(&'c Mutex<usize>, usize, [u8; N]);

    impl<const N: usize> Drop for Counted<'_, N> {
        fn drop(&mut self) {
            *lock(self.0) += 1;
            assert!(self.2.iter().all(|byte| usize::from(*byte) == self.1), "another one was written over it");
            assert!(std::thread::panicking() || self.1 != 2, "on purpose");
        }
    }

    fn what_is_made_is_dropped<const N: usize>() {
        let dropped = Mutex::new(0);
        let make = |upto: usize| {
            let (mut made, dropped) = (0, &dropped);
            let event = move || {
                made += 1;
                assert_ne!(made, upto, "on purpose");
                Counted(dropped, made, [made as u8; N])
            };
            Buffer::new(8, event, |index| index as u64, Wishes::default()).unwrap()
        };
        assert!(catch_unwind(AssertUnwindSafe(|| make(6))).is_err());
        assert_eq!(std::mem::take(&mut *lock(&dropped)), 5);
        let whole = make(9);
        assert!((0..8).all(|index| whole.slots().stamp(index) == &index));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(whole))).is_err());
        assert_eq!(std::mem::take(&mut *lock(&dropped)), 8);
    }

    #[test]
    fn what_is_made_is_dropped_though_one_of_them_panics() {
        what_is_made_is_dropped::<1>();
        what_is_made_is_dropped::<64>();
    }
}
