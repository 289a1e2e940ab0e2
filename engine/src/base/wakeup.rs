//! Wake-ups from outside: handles by which other threads end the wait of a reader.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that ends the present or the next wait of one reader.
///
/// A handle sets the flag, and then takes the lock under which the reader sleeps in order to wake it. The reader checks
/// the flag before it sleeps and after each wake-up. So it sees the flag before the sleep, or is woken and sees it then.
#[derive(Default)]
pub(crate) struct WakeFlag(AtomicBool);

impl WakeFlag {
    /// True if a handle has set the flag and no wait has taken it.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// True if the present wait must end. Clears the flag, so that only one wait ends.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        self.is_set() && self.0.swap(false, Ordering::AcqRel)
    }
}

/// The part of a reader that other threads need to end its wait.
pub(crate) trait WakeTarget: Send + Sync {
    /// The flag that ends the reader's wait.
    fn flag(&self) -> &WakeFlag;

    /// Wakes the reader if it sleeps, so that it checks the flag. Called after the flag is set.
    fn rouse(&self);
}

/// Ends the wait of one reader from another thread, for example to stop the thread that reads. The method `wakeup` of a
/// [`Subscriber`](crate::Subscriber::wakeup), a [`Selector`](crate::subscriber::Selector::wakeup), a
/// [`Replay`](crate::replay::Replay::wakeup), a member of a [group](crate::group::Member::wakeup), a worker of a
/// [queue](crate::queue::Worker::wakeup) and a [`Transform`](crate::transform::Transform::wakeup) returns it.
///
/// ```
/// use slipring::Engine;
/// use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
/// use std::time::Duration;
///
/// let engine = Engine::builder().build()?;
/// let ticks = engine.topic::<u64>("ticks").create()?;
/// let mut tape = ticks.subscribe("tape").poll()?;
/// let wakeup = tape.wakeup();
/// let stop = Arc::new(AtomicBool::new(false));
/// let stops = Arc::clone(&stop);
/// let reader = std::thread::spawn(move || {
///     while !stops.load(Ordering::Acquire) {
///         let Some(mut batch) = tape.poll(Duration::MAX).unwrap() else { break };
///         for (tick, _) in &mut batch { println!("{tick}") }
///     }
/// });
/// stop.store(true, Ordering::Release);
/// wakeup.wake();                          // without it the reader would wait for the next event
/// reader.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Unlike Kafka
/// A wake-up is no error: the call returns as if its limit had passed. A wait that finds events returns them, and the
/// wake-up remains for the next wait.
#[derive(Clone)]
pub struct Wakeup {
    target: Arc<dyn WakeTarget>,
}

impl fmt::Debug for Wakeup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakeup").field("is_set", &self.target.flag().is_set()).finish()
    }
}

impl Wakeup {
    pub(crate) fn new<T: WakeTarget + 'static>(target: &Arc<T>) -> Self {
        let target = Arc::clone(target);
        Self { target }
    }

    /// Ends the reader's present wait, or else its next one, as if the limit of the call had passed.
    ///
    /// A wait that finds something to read, an end or an error returns that, and the wake-up remains for the next wait.
    /// Several wake-ups before a wait end that wait only. A call with a limit of zero and a future do not wait in this
    /// sense: they neither notice a wake-up nor use it up. After the reader was dropped, this does nothing. Never waits
    /// for the reader.
    pub fn wake(&self) {
        self.target.flag().0.store(true, Ordering::Release);
        self.target.rouse();
    }
}
