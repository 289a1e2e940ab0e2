//! The slots of a ring. In production, this is the only file of the crate with an `UnsafeCell`.
//!
//! A slot is written by the producer that claimed its sequence, then read by the stages, and one capacity later written
//! again. The positions decide which thread may read or write a slot. This file only owns the memory and returns
//! pointers into it.

use crate::error::BuildError;
use crate::memory::{MemoryReport, MemoryRequest, Region};
use crate::sync::UnsafeCell;
use std::alloc::Layout;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// The largest capacity in slots. At this capacity, the wrapping differences of stamps (`sequence << 2`) are still far
/// from the values at which they would lose their sign. With 32-bit addresses the limit is the largest power of two
/// whose slots may fit into the address space.
pub(crate) const MAX_CAPACITY: usize = if usize::BITS > 40 { 1 << 40 } else { 1 << (usize::BITS - 2) };

#[repr(C)]
struct Slot<E, S> {
    event: UnsafeCell<E>,
    stamp: S,
}

/// Size of a cache line in bytes.
const LINE: usize = 64;

/// The places of events and stamps in the memory of a ring.
///
/// Side by side, an event and its stamp share a cache line. That is fastest for small events, and for rings larger than
/// the nearest cache, whose readers fetch the events by reading the stamps. A larger event would share its two lines
/// with its neighbours' stamps, and in a small ring producers and readers access these lines at the same time. So the
/// large events of a small ring are stored without stamps between them, and the stamps follow the last event.
/// Measurements: `docs/decisions/`, 12.
struct Places<E, S> {
    /// Distance from one event to the next, in bytes.
    event_step: usize,
    /// Offset of the first stamp, in bytes.
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
    /// Size of an event in bytes from which on events may be stored apart from stamps. For smaller events the places
    /// are constants.
    const LARGE: usize = 40;
    /// Size of all events together, in bytes, up to which a ring counts as small, so that its events are stored apart
    /// from stamps. The limit is larger if an event fills whole cache lines, because such events share no line with a
    /// neighbour.
    const SMALL: usize = if size_of::<E>().is_multiple_of(LINE) { 64 << 10 } else { 32 << 10 };
    const MAY_STAND_APART: bool = size_of::<E>() >= Self::LARGE && size_of::<S>() != 0;

    const TOGETHER: Self = Self {
        event_step: size_of::<Slot<E, S>>(),
        stamps: std::mem::offset_of!(Slot<E, S>, stamp),
        stamp_step: size_of::<Slot<E, S>>(),
        of: PhantomData,
    };

    /// The places for `capacity` slots, and the layout of their memory; `None` if it exceeds the address space.
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

    /// Returns the constant [`TOGETHER`](Self::TOGETHER) for events below [`LARGE`](Self::LARGE), which are always
    /// stored beside their stamps. So the compiler knows the values.
    #[inline(always)]
    fn settled(self) -> Self {
        if Self::MAY_STAND_APART { self } else { Self::TOGETHER }
    }

    /// Offset of the event of slot `index` from the start of the memory, in bytes.
    #[inline(always)]
    fn event(self, index: usize) -> usize {
        index * self.settled().event_step
    }

    /// Offset of the stamp of slot `index` from the start of the memory, in bytes.
    #[inline(always)]
    fn stamp(self, index: usize) -> usize {
        let places = self.settled();
        places.stamps + index * places.stamp_step
    }
}

/// The slots of a ring: a power-of-two count, allocated and touched when the ring is built.
pub(crate) struct Buffer<E, S> {
    start: NonNull<u8>,
    places: Places<E, S>,
    capacity: usize,
    region: Region,
    owns: PhantomData<Slot<E, S>>,
}

// SAFETY: the buffer owns its slots, as a `Box` would.
unsafe impl<E: Send, S: Send> Send for Buffer<E, S> {}
// SAFETY: the buffer returns raw pointers only. Code that turns one into a reference keeps the ring's rule: `&mut E`
// only while no other thread uses the slot, for which `E: Send` is enough, and `&E` from several threads at once, which
// needs `E: Sync`.
unsafe impl<E: Send + Sync, S: Sync> Sync for Buffer<E, S> {}

/// The slots, as a `Copy` value: a loop that keeps it in registers need not reload the buffer's fields after each
/// atomic load.
pub struct Slots<'b, E, S> {
    start: NonNull<u8>,
    places: Places<E, S>,
    /// The capacity minus one. The capacity is a power of two, so `sequence & mask` is a slot's index.
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
        // SAFETY: the cell was initialised in `new`, and is only shared until the buffer is dropped.
        unsafe { cell.cast().as_ref() }
    }

    #[inline(always)]
    pub(crate) fn stamp(self, sequence: u64) -> &'b S {
        // SAFETY: the index is below the capacity, so this is the place of a stamp, inside the buffer's memory.
        let stamp = unsafe { self.start.add(self.places.stamp(self.index(sequence))) };
        // SAFETY: the stamp was initialised in `new`, and is only shared until the buffer is dropped.
        unsafe { stamp.cast().as_ref() }
    }

    /// A pointer for reading the event of `sequence`. A loom model counts this call as the read.
    #[inline(always)]
    pub(crate) fn event(self, sequence: u64) -> *const E {
        #[cfg(not(loom))]
        return self.cell(sequence).get();
        #[cfg(loom)]
        self.cell(sequence).with(|event| event)
    }

    /// A pointer for writing the event of `sequence`. A loom model counts this call as the write.
    #[inline(always)]
    pub(crate) fn event_mut(self, sequence: u64) -> *mut E {
        #[cfg(not(loom))]
        return self.cell(sequence).get();
        #[cfg(loom)]
        self.cell(sequence).with_mut(|event| event)
    }
}

/// A buffer under construction, whose first `count` slots are initialised. Dropping it drops their events and stamps.
struct FilledSlots<E, S> {
    start: NonNull<u8>,
    places: Places<E, S>,
    count: usize,
}

impl<E, S> FilledSlots<E, S> {
    fn drop_from(&self, index: usize) {
        /// Drops the slots after the present one when the drop of an event panics.
        struct Rest<'m, E, S>(&'m FilledSlots<E, S>, usize);
        impl<E, S> Drop for Rest<'_, E, S> {
            fn drop(&mut self) {
                self.0.drop_from(self.1);
            }
        }
        for index in index..self.count {
            let rest = Rest(self, index + 1);
            // SAFETY: the index is below the capacity, so this is the place of a stamp, inside the buffer's memory.
            let stamp = unsafe { self.start.add(self.places.stamp(index)) };
            // SAFETY: the stamp of each slot below `count` is initialised, and only `FilledSlots` drops it, once.
            unsafe { stamp.cast::<S>().drop_in_place() };
            // SAFETY: the index is below the capacity, so this is the place of an event, inside the buffer's memory.
            let event = unsafe { self.start.add(self.places.event(index)) };
            // SAFETY: the event of each slot below `count` is initialised, and only `FilledSlots` drops it, once.
            unsafe { event.cast::<UnsafeCell<E>>().drop_in_place() };
            std::mem::forget(rest);
        }
    }
}

impl<E, S> Drop for FilledSlots<E, S> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<Slot<E, S>>() {
            self.drop_from(0);
        }
    }
}

// SAFETY: it owns the initialised slots, as a `Box` would.
unsafe impl<E: Send, S: Send> Send for FilledSlots<E, S> {}

/// Size in bytes of the largest event that is constructed on the calling thread. Larger events are constructed on a
/// thread with a larger stack.
const ON_STACK: usize = 64 << 10;

/// Runs `work` on a new thread with a stack of `room` bytes, and returns its result; `None` if the system refuses the
/// thread. A panic of `work` continues on the calling thread.
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
    /// The largest capacity in slots. Slots of 0 bytes need no memory, but each event still takes time to construct:
    /// therefore the lower limit.
    pub(crate) const LARGEST: usize = if size_of::<Slot<E, S>>() == 0 { 1 << 24 } else { MAX_CAPACITY };

    /// Allocates `capacity` slots, with an event constructed by `make` and the stamp `stamp(index)` in each.
    ///
    /// # Errors
    /// [`BuildError::Memory`]: the system refuses the memory, or the thread that large events need.
    pub(crate) fn new(
        capacity: usize,
        mut make: impl FnMut() -> E + Send,
        stamp: impl Fn(usize) -> S + Send,
        request: MemoryRequest,
    ) -> Result<Self, BuildError>
    where
        E: Send,
        S: Send,
    {
        debug_assert!(capacity.is_power_of_two());
        let refused = || BuildError::Memory { bytes: capacity.saturating_mul(size_of::<Slot<E, S>>()) };
        let (places, layout) = Places::of(capacity).ok_or_else(refused)?;
        let region = Region::new(layout, request).ok_or_else(refused)?;
        let mut made = FilledSlots::<E, S> { start: region.start(), places, count: 0 };
        let fill = move || {
            // The closure must own the whole struct, not its fields: then a panic of `make` drops the slots that are
            // initialised.
            let made_now = &mut made;
            while made_now.count < capacity {
                let (event, stamp) = (UnsafeCell::new(make()), stamp(made_now.count));
                // SAFETY: the index is below the capacity, so this is the place of an event, inside the region.
                let place = unsafe { made_now.start.add(places.event(made_now.count)) };
                // SAFETY: the place has the size and alignment of an event, and is not initialised yet.
                unsafe { place.cast().write(event) };
                // SAFETY: the index is below the capacity, so this is the place of a stamp, inside the region.
                let place = unsafe { made_now.start.add(places.stamp(made_now.count)) };
                // SAFETY: the place has the size and alignment of a stamp, and is not initialised yet.
                unsafe { place.cast().write(stamp) };
                made_now.count += 1;
            }
            made
        };
        // An unoptimised build copies an event several times through the stack on its way to its slot, so the stack has
        // room for 16 events.
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

    /// The address of the event of `sequence`, for a hint to the processor.
    #[cfg(all(target_arch = "x86_64", not(any(loom, shuttle, miri))))]
    #[inline(always)]
    fn event_at(&self, sequence: u64) -> *const u8 {
        self.start.as_ptr().wrapping_add(self.places.event(self.slots().index(sequence)))
    }

    /// Hints to an x86-64 processor that the event of `sequence` will be written soon: prefetches its first cache
    /// lines, at most 4. Has no other effect, and none on other processors.
    #[inline(always)]
    pub(crate) fn prefetch_write(&self, sequence: u64) {
        #[cfg(all(target_arch = "x86_64", not(any(loom, shuttle, miri))))]
        {
            let slot = self.event_at(sequence);
            let mut line = 0;
            while line < self.places.settled().event_step.min(4 * LINE) {
                let line_at = slot.wrapping_add(line);
                // The intrinsic would prefetch for reading, unless the whole program is built for newer processors.
                // Older processors treat this instruction as a no-op.
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

    /// Hints to an x86-64 processor that the event of `sequence` will be read next: prefetches its first cache line. Has no
    /// other effect, and none on other processors.
    #[inline(always)]
    pub(crate) fn prefetch_read(&self, sequence: u64) {
        #[cfg(all(target_arch = "x86_64", not(any(loom, shuttle, miri))))]
        {
            let slot = self.event_at(sequence);
            // SAFETY: a prefetch changes no register, flag or memory, and cannot fault.
            unsafe {
                core::arch::asm!("prefetcht0 [{at}]", at = in(reg) slot, options(nostack, preserves_flags, readonly));
            }
        }
        #[cfg(not(all(target_arch = "x86_64", not(any(loom, shuttle, miri)))))]
        let _ = sequence;
    }

    /// Count of slots whose events take `bytes` bytes together: at least 1, and at most an eighth of the capacity, so
    /// that a prefetch does not take cache lines from the readers of a small ring.
    pub(crate) fn slots_ahead(&self, bytes: usize) -> u64 {
        (bytes / self.places.event_step.max(1)).clamp(1, (self.capacity / 8).max(1)) as u64
    }

    /// What the system granted for the memory of the slots.
    pub(crate) fn memory(&self) -> &MemoryReport {
        &self.region.report
    }
}

impl<E, S> Drop for Buffer<E, S> {
    fn drop(&mut self) {
        drop(FilledSlots { start: self.start, places: self.places, count: self.capacity });
    }
}

#[cfg(not(loom))]
impl<E> Buffer<E, ()> {
    /// The events of `len` sequences from `first` on, as two contiguous parts (pointer and count of events): up to the
    /// end of the buffer, and from its start. The second count is usually 0. Without stamps a slot consists of its
    /// event only.
    #[inline]
    pub(crate) fn run(&self, first: u64, len: usize) -> [(*mut E, usize); 2] {
        const { assert!(size_of::<Slot<E, ()>>() == size_of::<E>()) };
        let start = first as usize & (self.capacity - 1);
        let head = len.min(self.capacity - start);
        // The pointers are derived from the start of the buffer, so that they may be used for more than one slot.
        let base = self.start.cast::<E>().as_ptr();
        // SAFETY: `start` is below the count of slots.
        [(unsafe { base.add(start) }, head), (base, len - head)]
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::sync::{Mutex, lock};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn places_are_apart<E>(stands_apart: impl Fn(usize) -> bool) {
        for capacity in (0..if cfg!(miri) { 4 } else { 12 }).map(|power| 1 << power) {
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

    /// Counts its drops. The drop of one instance panics.
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
            Buffer::new(8, event, |index| index as u64, MemoryRequest::default()).unwrap()
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
