//! Shared rings for C. The header `include/slipring.h` is made from this file by cbindgen, with its comments; the
//! test `header` compares, and `SLIPRING_BLESS=1 cargo test -p slipring-capi --test header` writes it anew.
//!
//! Every function catches panics, and checks its pointers for NULL. Handles are boxes: a producer keeps its claim, and a
//! consumer its batch, between two calls.
#![allow(non_camel_case_types, clippy::missing_safety_doc, rustdoc::broken_intra_doc_links)]

mod code;

pub use code::{slipring_code, slipring_error};

use ::slipring_ring::shared::{EventLayout, RawBatch, RawClaim, RawConsumer, RawProducer, RawRing, Size};
use ::slipring_ring::{Sequence, Start, Wait};
use code::{Failure, guarded};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

/// An open ring.
pub struct slipring_ring {
    ring: RawRing,
    layout: CString,
}

/// A producer of a ring.
pub struct slipring_producer {
    /// Of `producer`, which nobody accesses while there is a claim. Dropped first.
    claim: Option<RawClaim<'static>>,
    producer: Owned<RawProducer>,
    capacity: usize,
    is_multi: bool,
}

/// A consumer of a ring.
pub struct slipring_consumer {
    /// Of `consumer`, which nobody accesses while there is a batch. Dropped first.
    batch: Option<RawBatch<'static>>,
    consumer: Owned<RawConsumer>,
    capacity: usize,
}

/// A box whose content is lent out for as long as the box lives.
struct Owned<T>(NonNull<T>);

impl<T> Owned<T> {
    fn new(value: T) -> Self {
        Self(NonNull::from(Box::leak(Box::new(value))))
    }

    /// The content.
    ///
    /// # Safety
    /// Nobody else has a reference to it, and the result is not used after the box is dropped.
    unsafe fn lend(&mut self) -> &'static mut T {
        // SAFETY: the pointer is that of a leaked box; the rest is as above.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer is that of a leaked box, and whoever borrowed the content has dropped the reference.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// What slipring_describe tells of a ring.
#[repr(C)]
pub struct slipring_description {
    /// The full text of the events' layout; valid as long as the ring's handle.
    pub layout: *const c_char,
    /// Size of an event in bytes.
    pub event_size: usize,
    /// Count of slots.
    pub capacity: usize,
    /// Count of events that are kept for consumers that join later.
    pub retained: usize,
    /// The next sequence to be published.
    pub published: u64,
    /// True if the ring is for several producers.
    pub several: bool,
}

/// Slots to be filled: slipring_claim.
#[repr(C)]
pub struct slipring_slots {
    /// The first slot; the others follow without gaps. An event has the value that its slot had one capacity before.
    pub events: *mut c_void,
    /// Count of slots.
    pub len: usize,
    /// The sequence of the first event.
    pub first: u64,
}

/// Events to be read: slipring_poll.
#[repr(C)]
pub struct slipring_events {
    /// The first event; the others follow without gaps. They are read-only memory.
    pub events: *const c_void,
    /// Count of events.
    pub len: usize,
    /// The sequence of the first event.
    pub first: u64,
}

/// A start of a consumer: the earliest event that is kept.
pub const SLIPRING_EARLIEST: u64 = 0xffff_ffff_ffff_fffe;
/// A start of a consumer: the next event to be published.
pub const SLIPRING_LATEST: u64 = 0xffff_ffff_ffff_ffff;
/// A timeout: wait without end.
pub const SLIPRING_FOREVER: u64 = 0xffff_ffff_ffff_ffff;

/// The text of an argument.
///
/// # Safety
/// The pointer is NULL or that of a text that ends with a zero, and lives as long as the result.
unsafe fn text<'a>(what: &str, text: *const c_char) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::invalid(&format!("{what} is NULL")));
    }
    // SAFETY: as above.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::invalid(&format!("{what} is no UTF-8")))
}

/// A reference to an argument.
///
/// # Safety
/// The pointer is NULL or valid, and nobody else accesses its value for as long as the result is used.
unsafe fn checked<'a, T>(what: &str, pointer: *mut T) -> Result<&'a mut T, Failure> {
    // SAFETY: as above.
    unsafe { pointer.as_mut() }.ok_or_else(|| Failure::invalid(&format!("{what} is NULL")))
}

/// The handle of a ring, which several threads may use.
///
/// # Safety
/// The pointer is NULL or valid.
unsafe fn opened<'a>(ring: *const slipring_ring) -> Result<&'a slipring_ring, Failure> {
    // SAFETY: as above.
    unsafe { ring.as_ref() }.ok_or_else(|| Failure::invalid("the ring is NULL"))
}

/// # Safety
/// As for [`text`]; NULL is the default.
unsafe fn strategy(wait: *const c_char) -> Result<Wait, Failure> {
    if wait.is_null() {
        return Ok(Wait::default());
    }
    // SAFETY: as above.
    let name = unsafe { text("the wait strategy", wait) }?;
    name.parse().map_err(|error: ::slipring_ring::UnknownWait| Failure::invalid(&error.to_string()))
}

/// Gives a new handle to the caller.
///
/// # Safety
/// The pointer is NULL, or a place for a pointer that nobody else accesses.
unsafe fn give<T>(out: *mut *mut T, made: impl FnOnce() -> Result<T, Failure>) -> Result<(), Failure> {
    // SAFETY: as above.
    let out = unsafe { checked("the place for the handle", out) }?;
    *out = std::ptr::null_mut();
    *out = Box::into_raw(Box::new(made()?));
    Ok(())
}

/// Frees a handle.
///
/// # Safety
/// The pointer is NULL or that of a handle that was not freed.
unsafe fn free<T>(handle: *mut T) {
    guarded(|| {
        if !handle.is_null() {
            // SAFETY: as above; handles are boxes.
            drop(unsafe { Box::from_raw(handle) });
        }
        Ok(())
    });
}

fn handle_of(ring: RawRing) -> Result<slipring_ring, Failure> {
    let layout = CString::new(ring.layout().to_string()).map_err(|_| Failure::invalid("the layout has a zero"))?;
    Ok(slipring_ring { ring, layout })
}

/// When a timeout in nanoseconds is over; `None` for one without end.
fn deadline(timeout_ns: u64) -> Option<Instant> {
    if timeout_ns == SLIPRING_FOREVER { None } else { Instant::now().checked_add(Duration::from_nanos(timeout_ns)) }
}

/// Opens the ring called `name`. `layout` is the text of the events that the caller expects, as in
/// "px:i64 qty:u32 venue:u8[4]", or NULL to take whatever the ring has. Pass `*ring` to slipring_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_open(
    name: *const c_char,
    layout: *const c_char,
    ring: *mut *mut slipring_ring,
) -> slipring_code {
    guarded(|| {
        let open = || {
            // SAFETY: the caller passes a text.
            let opened = RawRing::open(unsafe { text("the name", name) }?)?;
            if !layout.is_null() {
                // SAFETY: the caller passes a text.
                let expected: EventLayout = unsafe { text("the layout", layout) }?.parse()?;
                if &expected != opened.layout() {
                    let sides =
                        format!("the event layout of {} is {}, and not {expected}", opened.name(), opened.layout());
                    return Err(Failure(slipring_code::SLIPRING_MISMATCH, sides));
                }
            }
            handle_of(opened)
        };
        // SAFETY: the caller passes a place for the handle.
        unsafe { give(ring, open) }
    })
}

/// Opens the ring called `name`, and creates it if it is not there: with `capacity` slots (a power of two), the last
/// `retain` events of which are kept for consumers that join later, for one producer or for `several`. `layout` is as for
/// slipring_open. A ring that is there must have the same layout, sizes and kind.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_open_or_create(
    name: *const c_char,
    layout: *const c_char,
    capacity: usize,
    retain: usize,
    several: bool,
    ring: *mut *mut slipring_ring,
) -> slipring_code {
    guarded(|| {
        let open = || {
            // SAFETY: the caller passes a text.
            let layout: EventLayout = unsafe { text("the layout", layout) }?.parse()?;
            // SAFETY: the caller passes a text.
            let name = unsafe { text("the name", name) }?;
            let size = Size::slots(capacity).retain(retain);
            let size = if several { size.multi_producer() } else { size };
            handle_of(RawRing::open_or_create(name, size, &layout)?)
        };
        // SAFETY: the caller passes a place for the handle.
        unsafe { give(ring, open) }
    })
}

/// Removes the ring called `name`. Without `force` it must have no living participants.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_remove(name: *const c_char, force: bool) -> slipring_code {
    guarded(|| {
        // SAFETY: the caller passes a text.
        let name = unsafe { text("the name", name) }?;
        Ok(if force { RawRing::remove_forced(name) } else { RawRing::remove(name) }?)
    })
}

/// Tells the layout, the sizes and the position of a ring.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_describe(
    ring: *const slipring_ring,
    description: *mut slipring_description,
) -> slipring_code {
    guarded(|| {
        // SAFETY: the caller passes a handle.
        let slipring_ring { ring, layout } = unsafe { opened(ring) }?;
        // SAFETY: the caller passes a place.
        *unsafe { checked("the place for the description", description) }? = slipring_description {
            layout: layout.as_ptr(),
            event_size: ring.layout().size(),
            capacity: ring.capacity(),
            retained: ring.retained(),
            published: ring.published().0,
            several: ring.is_multi_producer(),
        };
        Ok(())
    })
}

/// Ends the ring for all participants of all processes: consumers read what was published, then get SLIPRING_CLOSED. The
/// handle stays valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_end(ring: *const slipring_ring) -> slipring_code {
    guarded(|| {
        // SAFETY: the caller passes a handle.
        unsafe { opened(ring) }?.ring.close();
        Ok(())
    })
}

/// Gives up the position of the held consumer `name`, whose process has gone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_release(ring: *const slipring_ring, name: *const c_char) -> slipring_code {
    guarded(|| {
        // SAFETY: the caller passes a text.
        let name = unsafe { text("the name", name) }?;
        // SAFETY: the caller passes a handle.
        Ok(unsafe { opened(ring) }?.ring.release(name)?)
    })
}

/// Frees a ring's handle. The ring stays; so do producers and consumers of this process. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_free(ring: *mut slipring_ring) {
    // SAFETY: the caller passes a handle that was not freed.
    unsafe { free(ring) };
}

/// Joins as the producer of a ring, or as one of several if the ring is for several. `wait` is the wait strategy for a full ring: "busy-spin", "spin", "spin-yield",
/// "backoff", "spin-then-park", or NULL for the default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_producer_join(
    ring: *const slipring_ring,
    wait: *const c_char,
    producer: *mut *mut slipring_producer,
) -> slipring_code {
    guarded(|| {
        let join = || {
            // SAFETY: the caller passes a handle.
            let ring = &unsafe { opened(ring) }?.ring;
            // SAFETY: the caller passes a text or NULL.
            let wait = unsafe { strategy(wait) }?;
            let producer = Owned::new(ring.producer()?.wait(wait));
            let (capacity, is_multi) = (ring.capacity(), ring.is_multi_producer());
            Ok(slipring_producer { claim: None, producer, capacity, is_multi })
        };
        // SAFETY: the caller passes a place for the handle.
        unsafe { give(producer, join) }
    })
}

/// Claims `len` slots, or fewer where the slots end and begin anew: `slots->len` has the count. Waits for room until
/// `timeout_ns` nanoseconds have passed (0: does not wait). A claim that was not committed is given up. Among several
/// producers, the others and all consumers wait for its commit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_claim(
    producer: *mut slipring_producer,
    len: usize,
    timeout_ns: u64,
    slots: *mut slipring_slots,
) -> slipring_code {
    guarded(|| {
        // SAFETY: the caller passes a handle that no other thread uses.
        let handle = unsafe { checked("the producer", producer) }?;
        // SAFETY: the caller passes a place.
        let slots = unsafe { checked("the place for the slots", slots) }?;
        *slots = slipring_slots { events: std::ptr::null_mut(), len: 0, first: 0 };
        handle.claim = None;
        // SAFETY: there is no claim, and the new one is dropped before the producer.
        let producer = unsafe { handle.producer.lend() };
        let before_the_end = handle.capacity - (producer.position().0 as usize & (handle.capacity - 1));
        let len = if handle.is_multi { len } else { len.min(before_the_end) };
        let claim = match deadline(timeout_ns) {
            _ if timeout_ns == 0 => producer.try_claim(len),
            None => producer.claim(len),
            Some(deadline) => producer.claim_until(len, deadline),
        };
        let claim = handle.claim.insert(claim?);
        // Where one of several producers claims is known afterwards only. What passes the end of the slots is given up.
        let before_the_end = handle.capacity - (claim.first().0 as usize & (handle.capacity - 1));
        claim.truncate(before_the_end);
        *slots = slipring_slots { len: claim.len(), first: claim.first().0, events: std::ptr::null_mut() };
        slots.events = claim.events_mut().0.as_mut_ptr().cast();
        Ok(())
    })
}

/// Publishes the claimed events. Their memory must not be written any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_commit(producer: *mut slipring_producer) -> slipring_code {
    guarded(|| {
        // SAFETY: the caller passes a handle that no other thread uses.
        let handle = unsafe { checked("the producer", producer) }?;
        let claim =
            handle.claim.take().ok_or_else(|| Failure::invalid("there is no claim: call slipring_claim first"))?;
        claim.commit()?;
        Ok(())
    })
}

/// Leaves as the producer, and gives up a claim that was not committed. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_producer_free(producer: *mut slipring_producer) {
    // SAFETY: the caller passes a handle that was not freed.
    unsafe { free(producer) };
}

/// Joins as a consumer called `name`, which begins at the sequence `start`, SLIPRING_EARLIEST or SLIPRING_LATEST. With
/// `hold` its position is kept after it has left or its process has died: producers wait for it, and the next consumer of
/// its name goes on there. `wait` is as for slipring_producer_join.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_consumer_join(
    ring: *const slipring_ring,
    name: *const c_char,
    start: u64,
    hold: bool,
    wait: *const c_char,
    consumer: *mut *mut slipring_consumer,
) -> slipring_code {
    guarded(|| {
        let join = || {
            // SAFETY: the caller passes a handle.
            let ring = &unsafe { opened(ring) }?.ring;
            // SAFETY: the caller passes a text or NULL.
            let wait = unsafe { strategy(wait) }?;
            let start = match start {
                SLIPRING_EARLIEST => Start::Earliest,
                SLIPRING_LATEST => Start::Latest,
                at => Start::At(Sequence(at)),
            };
            // SAFETY: the caller passes a text.
            let builder = ring.consumer(unsafe { text("the name", name) }?).start(start).wait(wait);
            let builder = if hold { builder.hold() } else { builder };
            let consumer = Owned::new(builder.join()?);
            Ok(slipring_consumer { batch: None, consumer, capacity: ring.capacity() })
        };
        // SAFETY: the caller passes a place for the handle.
        unsafe { give(consumer, join) }
    })
}

/// Waits for events until `timeout_ns` nanoseconds have passed (0: does not wait). Returns up to `limit` of them, fewer
/// where the slots end and begin anew. They stay valid until the next call with this consumer. What was not consumed is
/// returned again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_poll(
    consumer: *mut slipring_consumer,
    limit: usize,
    timeout_ns: u64,
    events: *mut slipring_events,
) -> slipring_code {
    guarded(|| {
        // SAFETY: the caller passes a handle that no other thread uses.
        let handle = unsafe { checked("the consumer", consumer) }?;
        // SAFETY: the caller passes a place.
        let events = unsafe { checked("the place for the events", events) }?;
        *events = slipring_events { events: std::ptr::null(), len: 0, first: 0 };
        handle.batch = None;
        // SAFETY: there is no batch, and the new one is dropped before the consumer.
        let consumer = unsafe { handle.consumer.lend() };
        let before_the_end = handle.capacity - (consumer.position().0 as usize & (handle.capacity - 1));
        if limit == 0 {
            return Err(Failure::invalid("the limit is 0: ask for 1 or more events"));
        }
        let limit = limit.min(before_the_end);
        let batch = match deadline(timeout_ns) {
            _ if timeout_ns == 0 => consumer.poll(limit),
            None => consumer.poll_wait(limit),
            Some(deadline) => consumer.poll_until(limit, deadline),
        }?;
        if batch.is_empty() {
            return Err(Failure(
                slipring_code::SLIPRING_TIMED_OUT,
                "no event was published until the timeout".to_owned(),
            ));
        }
        let batch = handle.batch.insert(batch);
        // It may begin behind skipped slots, and so pass the end of the slots although the limit did not.
        batch.truncate(handle.capacity - (batch.first().0 as usize & (handle.capacity - 1)));
        *events =
            slipring_events { len: batch.len(), first: batch.first().0, events: batch.events().0.as_ptr().cast() };
        Ok(())
    })
}

/// Ends the batch of the last poll, and moves the consumer's position past its first `count` events. The memory of all
/// its events must not be read any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_consume(consumer: *mut slipring_consumer, count: usize) -> slipring_code {
    guarded(|| {
        // SAFETY: the caller passes a handle that no other thread uses.
        let handle = unsafe { checked("the consumer", consumer) }?;
        let mut batch =
            handle.batch.take().ok_or_else(|| Failure::invalid("there is no batch: call slipring_poll first"))?;
        let has = batch.len();
        if count > has {
            return Err(Failure::invalid(&format!(
                "the batch has {has} events, fewer than {count}: nothing was consumed"
            )));
        }
        batch.consume(count);
        Ok(())
    })
}

/// Leaves as a consumer. A held one keeps its position. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slipring_consumer_free(consumer: *mut slipring_consumer) {
    // SAFETY: the caller passes a handle that was not freed.
    unsafe { free(consumer) };
}
