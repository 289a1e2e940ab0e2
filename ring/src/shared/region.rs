//! The memory that the participants share: positions, the table of participants, stamps and events.
//!
//! On Linux it is a mapping of the ring's file. In the models it is a heap block that all participants of the model
//! have, with the same code on top; on other systems, where no ring can be opened, the heap block stands in. Every value in it may have been written by another process: no pointer,
//! index or length is taken from it without a mask or a check.

use super::bell::Bell;
use super::layout::Event;
use super::note::Notes;
use crate::ordering::COUNT;
use crate::sync::{AtomicU32, AtomicU64};

/// The most participants of a ring. A model has few, because each has atomics.
pub(crate) const PARTICIPANTS: usize = if cfg!(any(loom, shuttle)) { 4 } else { 64 };
/// Count of 8-byte words of a participant's name.
const NAME_WORDS: usize = if cfg!(any(loom, shuttle)) { 1 } else { 6 };
/// The most bytes of a participant's name.
pub(crate) const LONGEST_NAME: usize = NAME_WORDS * 8;
/// The limit of capacity times the size of an event, and of both: 2^40.
pub(crate) const LARGEST_CAPACITY: u64 = 1 << 40;

/// `from` of a producer without a claim, and the end of a ring that is open.
pub(crate) const NONE: u64 = u64::MAX;

/// Roles in the table.
pub(crate) mod role {
    /// Nobody has the entry.
    pub(crate) const FREE: u32 = 0;
    /// A consumer is joining: its gate is pinned, and says nothing about what is kept.
    pub(crate) const JOINING: u32 = 1;
    /// A consumer reads, or is held.
    pub(crate) const CONSUMER: u32 = 2;
    /// A producer.
    pub(crate) const PRODUCER: u32 = 3;
}

/// Why a ring takes no more events.
pub(crate) mod phase {
    /// The memory of a forked process, which has been replaced by zeros.
    pub(crate) const FORKED: u32 = 0;
    /// The ring takes events.
    pub(crate) const OPEN: u32 = 1;
    /// The ring was closed.
    pub(crate) const CLOSED: u32 = 2;
    /// The ring's file was removed.
    pub(crate) const REMOVED: u32 = 3;
}

/// A value on two cache lines of its own, since the processor fetches lines in pairs.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Line<T>(pub(crate) T);

/// The state of the ring that rarely changes.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct State {
    /// One of [`phase`].
    pub(crate) phase: AtomicU32,
    /// 1 if the last producer that went had died, and none has joined since; otherwise 0.
    pub(crate) died: AtomicU32,
    /// The sequence at which reading ends; [`NONE`] while the ring is open.
    pub(crate) end: AtomicU64,
    /// What the only producer has left with the published position.
    pub(crate) notes: Notes,
}

/// An entry of the table of participants. Whoever holds the lock of the entry's byte may write it.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Entry {
    /// One of [`role`].
    pub(crate) role: AtomicU32,
    /// 1 if the consumer's gate stays when its process dies; otherwise 0.
    pub(crate) hold: AtomicU32,
    /// Count of participants that have had this entry.
    pub(crate) generation: AtomicU64,
    /// The process id that the participant gave, for people only.
    pub(crate) pid: AtomicU64,
    /// The name, filled with zeros.
    pub(crate) name: [AtomicU64; NAME_WORDS],
    /// What changes with each batch and claim, on lines of its own.
    pub(crate) moving: Line<Moving>,
}

/// The positions of a participant.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Moving {
    /// The consumer's position: producers do not write slots that it has not passed.
    pub(crate) gate: AtomicU64,
    /// The first sequence that a producer has announced; [`NONE`] without a claim.
    pub(crate) from: AtomicU64,
    /// Count of the sequences that it has announced.
    pub(crate) len: AtomicU64,
    /// What a consumer has left with its gate.
    pub(crate) notes: Notes,
}

/// The positions and the table of participants. In production it lies in the mapping, where all bytes begin as zeros.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Control {
    /// The next sequence to be claimed, in a ring for several producers.
    pub(crate) claimed: Line<AtomicU64>,
    /// One producer: every sequence below is published. Several producers: every sequence below is out, that is,
    /// published or skipped; more may be.
    pub(crate) published: Line<AtomicU64>,
    /// Raised when a consumer joins.
    pub(crate) version: Line<AtomicU64>,
    /// Rung when events are published, and when the ring ends.
    pub(crate) events: Line<Bell>,
    /// Rung when a gate moves.
    pub(crate) room: Line<Bell>,
    pub(crate) state: Line<State>,
    pub(crate) table: [Entry; PARTICIPANTS],
}

impl Control {
    /// Stores the initial values. Called by the creator, before anybody else has the memory.
    pub(crate) fn init(&self) {
        self.events.0.open();
        self.state.0.phase.store(phase::OPEN, COUNT.get());
        self.state.0.end.store(NONE, COUNT.get());
        self.table.iter().for_each(|entry| entry.moving.0.from.store(NONE, COUNT.get()));
    }
}

/// The initial stamp of a slot: that of the lap before the first, which no sequence has.
pub(crate) fn first_stamp(index: u64, capacity: u64) -> u64 {
    index.wrapping_sub(capacity) << 2
}

impl Entry {
    pub(crate) fn name(&self) -> String {
        let words = self.name.each_ref().map(|word| word.load(COUNT.get()).to_ne_bytes());
        let bytes: Vec<u8> = words.into_iter().flatten().take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn set_name(&self, name: &str) {
        let mut bytes = name.bytes();
        for word in &self.name {
            word.store(u64::from_ne_bytes(std::array::from_fn(|_| bytes.next().unwrap_or(0))), COUNT.get());
        }
    }
}

#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
pub(crate) use mapped::Region;
#[cfg(any(loom, shuttle, not(target_os = "linux")))]
pub(crate) use modelled::Region;

/// The mapping of a file.
#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
mod mapped {
    use super::super::fork;
    use super::super::header::Geometry;
    use super::{Control, Event, first_stamp};
    use crate::ordering::COUNT;
    use crate::sync::AtomicU64;
    use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mprotect, munmap};
    use std::io;
    use std::marker::PhantomData;
    use std::os::fd::BorrowedFd;
    use std::ptr::NonNull;

    /// A mapping of the ring's file, with the places in it.
    pub(crate) struct Region<E> {
        start: NonNull<u8>,
        bytes: usize,
        stamps: NonNull<AtomicU64>,
        events: NonNull<E>,
        mask: u64,
        /// Size of an event in bytes, as the header has it.
        stride: usize,
        pub(crate) is_multi: bool,
        pub(crate) retain: u64,
        of: PhantomData<E>,
    }

    // SAFETY: the mapping belongs to no thread. What it has is accessed by atomics, and the events by the protocol:
    // nobody writes an event while somebody reads it.
    unsafe impl<E: Event> Send for Region<E> {}
    // SAFETY: as above.
    unsafe impl<E: Event> Sync for Region<E> {}

    impl<E: Event> Region<E> {
        /// Maps `file`, whose size is that of `geometry`. The events are writable only if `writes`.
        ///
        /// # Safety
        /// The file has exactly `geometry.bytes()` bytes, and `geometry` was checked for `E`.
        pub(crate) unsafe fn map(file: BorrowedFd<'_>, geometry: &Geometry, writes: bool) -> io::Result<Self> {
            let too_large = |_| io::Error::from(io::ErrorKind::OutOfMemory);
            let bytes = usize::try_from(geometry.bytes()).map_err(too_large)?;
            let (both, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
            // SAFETY: a new mapping at an address that the system chooses replaces no other.
            let start = unsafe { mmap(std::ptr::null_mut(), bytes, both, shared, file, 0) }?;
            let Some(start) = NonNull::new(start.cast::<u8>()) else {
                return Err(io::ErrorKind::OutOfMemory.into());
            };
            let (stamps, events) = (geometry.stamps() as usize, geometry.events() as usize);
            // SAFETY: both offsets are below the size of the mapping.
            let stamps = unsafe { start.add(stamps) };
            // SAFETY: as above.
            let events_at = unsafe { start.add(events) };
            let region = Self {
                start,
                bytes,
                stamps: stamps.cast(),
                events: events_at.cast(),
                mask: geometry.capacity - 1,
                stride: geometry.event_size as usize,
                is_multi: geometry.is_multi,
                retain: geometry.retain,
                of: PhantomData,
            };
            fork::forget_in_children(start.as_ptr().addr(), bytes);
            // SAFETY: the range is this mapping.
            unsafe { madvise(start.as_ptr().cast(), bytes, Advice::LinuxDontFork) }?;
            if !writes {
                // SAFETY: the range is the end of this mapping, from a page's start on; nobody has a reference to it.
                unsafe { mprotect(events_at.as_ptr().cast(), bytes - events, MprotectFlags::READ) }?;
            }
            Ok(region)
        }

        /// Stores the initial values of a new file.
        pub(crate) fn init(&self) {
            self.control().init();
            for index in (0..=self.mask).filter(|_| self.is_multi) {
                self.stamp(index).store(first_stamp(index, self.mask + 1), COUNT.get());
            }
        }

        #[inline(always)]
        pub(crate) fn control(&self) -> &Control {
            // SAFETY: the mapping begins with the header, which is followed by a page with the control block. Its
            // alignment, 128 bytes, divides the header's size.
            let control = unsafe { self.start.add(super::super::header::HEADER) };
            // SAFETY: the block consists of atomics, for which every pattern of bits is valid, and lives as long as
            // this mapping.
            unsafe { control.cast().as_ref() }
        }

        #[inline(always)]
        pub(crate) fn capacity(&self) -> u64 {
            self.mask + 1
        }

        /// The stamp of a slot, in a ring for several producers.
        #[inline(always)]
        pub(crate) fn stamp(&self, sequence: u64) -> &AtomicU64 {
            debug_assert!(self.is_multi);
            // SAFETY: the index is below the capacity, so this is the place of a stamp.
            let stamp = unsafe { self.stamps.add((sequence & self.mask) as usize) };
            // SAFETY: any bits are an atomic's; it lives as long as this mapping.
            unsafe { stamp.as_ref() }
        }

        /// A pointer for reading the event of `sequence`.
        #[inline(always)]
        pub(crate) fn event(&self, sequence: u64) -> *const E {
            self.event_mut(sequence)
        }

        /// A pointer for writing the event of `sequence`, if the events were mapped for writing.
        #[inline(always)]
        pub(crate) fn event_mut(&self, sequence: u64) -> *mut E {
            let index = (sequence & self.mask) as usize;
            // Decided when this is compiled: `E` is one byte if it is raw.
            let offset = if E::IS_RAW { index * self.stride } else { index };
            // SAFETY: the index is below the capacity, so this is the place of an event.
            unsafe { self.events.add(offset) }.as_ptr()
        }
    }

    impl<E> Drop for Region<E> {
        fn drop(&mut self) {
            fork::forget_mapping(self.start.as_ptr().addr());
            // SAFETY: nobody has a reference into the mapping any more. In a forked child the range is one that
            // `fork` has mapped instead, or none, which is no error.
            let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
        }
    }
}

/// The heap block of a model.
#[cfg(any(loom, shuttle, not(target_os = "linux")))]
mod modelled {
    use super::super::bell::Bell;
    use super::super::note::Notes;
    use super::{Control, Entry, Event, Line, Moving, NAME_WORDS, State, first_stamp};
    use crate::ordering::COUNT;
    use crate::sync::{Arc, AtomicU32, AtomicU64, Mutex, UnsafeCell};
    use std::array::from_fn;

    struct Block<E> {
        control: Control,
        stamps: Vec<AtomicU64>,
        events: Vec<UnsafeCell<E>>,
        /// The owner of each byte's lock; 0 for nobody.
        locks: Mutex<Vec<u64>>,
    }

    // SAFETY: the models check that nobody writes an event while somebody reads it.
    unsafe impl<E: Event> Sync for Block<E> {}
    // SAFETY: as above.
    unsafe impl<E: Event> Send for Block<E> {}

    /// A handle of the block.
    pub(crate) struct Region<E> {
        block: Arc<Block<E>>,
        pub(crate) is_multi: bool,
        pub(crate) retain: u64,
    }

    impl<E> Clone for Region<E> {
        fn clone(&self) -> Self {
            Self { block: Arc::clone(&self.block), is_multi: self.is_multi, retain: self.retain }
        }
    }

    impl<E: Event> Region<E> {
        pub(crate) fn new(is_multi: bool, capacity: u64, retain: u64, first: E) -> Self {
            let zero = || AtomicU64::new(0);
            let entry = |_| Entry {
                role: AtomicU32::new(0),
                hold: AtomicU32::new(0),
                generation: zero(),
                pid: zero(),
                name: from_fn::<_, NAME_WORDS, _>(|_| zero()),
                moving: Line(Moving { gate: zero(), from: zero(), len: zero(), notes: Notes::zeros() }),
            };
            let control = Control {
                claimed: Line(zero()),
                published: Line(zero()),
                version: Line(zero()),
                events: Line(Bell::zeros()),
                room: Line(Bell::zeros()),
                state: Line(State {
                    phase: AtomicU32::new(0),
                    died: AtomicU32::new(0),
                    end: zero(),
                    notes: Notes::zeros(),
                }),
                table: from_fn(entry),
            };
            control.init();
            let stamps = (0..capacity).map(|index| AtomicU64::new(first_stamp(index, capacity))).collect();
            let events = (0..capacity).map(|_| UnsafeCell::new(first)).collect();
            let locks = Mutex::new(vec![0; super::super::lock::BYTES]);
            Self { block: Arc::new(Block { control, stamps, events, locks }), is_multi, retain }
        }

        pub(crate) fn control(&self) -> &Control {
            &self.block.control
        }

        pub(crate) fn capacity(&self) -> u64 {
            self.block.events.len() as u64
        }

        pub(crate) fn stamp(&self, sequence: u64) -> &AtomicU64 {
            &self.block.stamps[(sequence % self.capacity()) as usize]
        }

        pub(crate) fn event(&self, sequence: u64) -> *const E {
            let cell = &self.block.events[(sequence % self.capacity()) as usize];
            #[cfg(loom)]
            return cell.with(|event| event);
            #[cfg(not(loom))]
            cell.get()
        }

        pub(crate) fn event_mut(&self, sequence: u64) -> *mut E {
            let cell = &self.block.events[(sequence % self.capacity()) as usize];
            #[cfg(loom)]
            return cell.with_mut(|event| event);
            #[cfg(not(loom))]
            cell.get()
        }

        pub(crate) fn locks(&self) -> &Mutex<Vec<u64>> {
            &self.block.locks
        }
    }
}
