//! Wake-ups from outside: another thread ends the wait of a consumer or worker.
//!
//! The handle sets a flag, then wakes the waiter. A waiting thread checks the flag after each look that finds nothing,
//! and sleeps under the waiter's lock. The flag's accesses are relaxed, because that lock orders them. The handle sets
//! the flag before it takes the lock to record the wake-up, and a thread ends its sleep only with a recorded wake-up,
//! which it reads under the lock. So if the thread begins to sleep before the wake-up is recorded, that wake-up ends
//! the sleep, and the thread then reads the flag as set. If the wake-up was recorded before, the thread does not sleep:
//! it checks again, and reads the flag as set for the same reason.

use crate::fault::{Fault, fault};
use crate::ordering::{SET_WOKEN, TAKE_WOKEN};
use crate::sync::Arc;
use crate::waiter::{WaiterState, wake_all};
use std::fmt;

/// Ends the wait of one [`Consumer`](crate::Consumer) or [`Worker`](crate::Worker) from another thread, for example to
/// stop the thread that reads. [`Consumer::wakeup`](crate::Consumer::wakeup) and
/// [`Worker::wakeup`](crate::Worker::wakeup) return it.
///
/// ```
/// # use slipring_ring::{Builder, Closed};
/// # let mut builder = Builder::single(8, u64::default);
/// # builder.poll("tape");
/// # let (mut producer, ring) = builder.build()?;
/// let mut tape = ring.consumer("tape")?;
/// let wakeup = tape.wakeup();
/// let reader = std::thread::spawn(move || {
///     let mut read = 0;
///     loop {
///         let mut batch = tape.poll_wait(64)?;
///         if batch.is_empty() {
///             return Ok::<_, Closed>(read);            // woken
///         }
///         read += (&mut batch).into_iter().count();
///     }
/// });
/// producer.publish(|event| *event = 42)?;
/// wakeup.wake();                                       // without it the reader would wait for the next event
/// assert!(reader.join().unwrap()? <= 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Wakeup {
    waiter: Arc<WaiterState>,
}

impl fmt::Debug for Wakeup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakeup").finish_non_exhaustive()
    }
}

impl Wakeup {
    pub(crate) fn new(waiter: &Arc<WaiterState>) -> Self {
        Self { waiter: Arc::clone(waiter) }
    }

    /// Ends the reader's present wait, or else its next one, as if its deadline had passed: the call returns no event.
    ///
    /// A wait that finds an event, or the end of the ring, returns that, and the wake-up remains for the next wait.
    /// Several wake-ups before a wait end that wait only. Calls that do not wait neither notice a wake-up nor use it
    /// up. After the reader was dropped, this does nothing. Takes a lock for a moment, and never waits for the reader.
    pub fn wake(&self) {
        let is_late = fault(Fault::WakeupBeforeItsFlag);
        if !is_late {
            self.waiter.is_woken.store(1, SET_WOKEN.get());
        }
        wake_all(self.waiter.wake(0).into_iter().collect());
        if is_late {
            self.waiter.is_woken.store(1, SET_WOKEN.get());
        }
    }
}

impl WaiterState {
    /// True if a [`Wakeup`] must end the present wait. Only one wait gets true for a wake-up.
    #[inline]
    pub(crate) fn take_woken(&self) -> bool {
        self.is_woken.load(TAKE_WOKEN.get()) != 0 && self.is_woken.swap(0, TAKE_WOKEN.get()) != 0
    }
}
