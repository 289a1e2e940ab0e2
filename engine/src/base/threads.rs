//! The threads of a topic's managed consumers: they are started with a name and a core, and no thread waits for itself.

pub(crate) use slipring_ring::internal::{Panic, blaming, caught};
use slipring_ring::pin::{self, PinError};
use std::cell::Cell;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

thread_local! { static PLACE: u8 = const { 0 } }

/// A number for the calling thread that no other living thread has; 0 in a thread that is about to end. Very cheap.
#[inline]
pub(crate) fn token() -> usize {
    PLACE.try_with(|place| std::ptr::from_ref(place).addr()).unwrap_or(0)
}

/// How often a thread that waits for others checks that none of them waits for it.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

thread_local! { static IS_MANAGED: Cell<bool> = const { Cell::new(false) } }

/// The threads that are shutting an engine down: their numbers, and true for those that others may wait for, because
/// they run a handler or hold a batch.
static SHUTTING_DOWN: Mutex<Vec<(usize, bool)>> = Mutex::new(Vec::new());

/// Marks the calling thread as shutting an engine down, until this is dropped.
pub(crate) struct ShutdownCaller(usize);

impl ShutdownCaller {
    /// `holds`: true if the thread holds a batch.
    pub(crate) fn enter(holds: bool) -> Self {
        let own = token();
        shutting_down().push((own, holds || IS_MANAGED.get()));
        Self(own)
    }
}

impl Drop for ShutdownCaller {
    fn drop(&mut self) {
        let mut callers = shutting_down();
        // The thread may be in nested shutdowns, of several engines. Only one of its entries is removed.
        if let Some(own) = callers.iter().rposition(|(thread, _)| *thread == self.0) {
            callers.remove(own);
        }
    }
}

fn shutting_down() -> MutexGuard<'static, Vec<(usize, bool)>> {
    SHUTTING_DOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True if `thread` and the calling thread both shut an engine down, and `thread` waits for the calling one, so that
/// each would wait for the other.
pub(crate) fn waits_for_this_thread(thread: usize) -> bool {
    let (own, callers) = (token(), shutting_down());
    thread != own && callers.iter().any(|it| it.0 == thread) && callers.contains(&(own, true))
}

#[derive(Clone, Default)]
pub(crate) struct Threads {
    alive: Arc<Alive>,
}

#[derive(Default)]
struct Alive {
    /// The threads' [numbers](token).
    threads: Mutex<Vec<usize>>,
    ended: Condvar,
}

/// Why no thread was started.
pub(crate) enum StartError {
    Pin(PinError),
    Thread(std::io::Error),
    /// The constructor of the thread's state panicked.
    Panicked(String),
}

impl Threads {
    /// Starts a thread, pins it, calls `make` there for its state, and then runs `life`. Returns when the state is
    /// made.
    pub(crate) fn start<S: 'static>(
        &self,
        name: &str,
        core: Option<usize>,
        make: impl FnOnce() -> S + Send + 'static,
        life: impl FnOnce(S) + Send + 'static,
    ) -> Result<(), StartError> {
        let (told, hears) = mpsc::sync_channel(1);
        let alive = Arc::clone(&self.alive);
        // The system's names end at a zero byte, and the standard library panics at one.
        let name = name.replace('\0', "");
        let shown = crate::base::cores::visible(&name);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            show_as(&shown);
            let entered = Entered::new(alive);
            let pinned = core.map_or(Ok(()), pin::pin_current).map_err(StartError::Pin);
            match pinned.and_then(|()| caught(make).map_err(|panic| StartError::Panicked(panic.said()))) {
                Ok(state) => {
                    let _ = told.send(Ok(()));
                    life(state);
                }
                Err(refused) => {
                    // Dropping the closure drops the consumer that it owns, so the consumer has left when the caller
                    // gets the error.
                    drop(life);
                    drop(entered);
                    let _ = told.send(Err(refused));
                }
            }
        });
        thread.map_err(StartError::Thread)?;
        hears.recv().unwrap_or_else(|_| Err(StartError::Panicked("the thread ended".to_owned())))
    }

    /// True if the calling thread is one of these threads.
    pub(crate) fn is_own(&self) -> bool {
        self.alive.threads().contains(&token())
    }

    /// Waits until every thread but the calling one has ended. False if `deadline` passes first.
    pub(crate) fn wait(&self, deadline: Instant) -> bool {
        let own = token();
        let mut threads = self.alive.threads();
        while threads.iter().any(|thread| *thread != own && !waits_for_this_thread(*thread)) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // No notification tells that a thread has begun a shutdown of its own, so this is checked from time to
            // time.
            let left = left.min(LOOK);
            threads = self.alive.ended.wait_timeout(threads, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// True if there are threads, and all of them wait for the calling one.
    pub(crate) fn wait_for_this_thread(&self) -> bool {
        let threads = self.alive.threads();
        !threads.is_empty() && threads.iter().all(|thread| waits_for_this_thread(*thread))
    }
}

/// Sets the name that `top -H` shows. The standard library's name of the thread, which panic messages show, is the
/// whole one.
fn show_as(name: &str) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = std::ffi::CString::new(name) {
        // If this fails, the system shows the first 15 bytes of the whole name.
        let _ = rustix::thread::set_name(&name);
    }
    let _ = name;
}

impl Alive {
    fn threads(&self) -> MutexGuard<'_, Vec<usize>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Entered(Arc<Alive>);

impl Entered {
    fn new(alive: Arc<Alive>) -> Self {
        alive.threads().push(token());
        IS_MANAGED.set(true);
        Self(alive)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let own = token();
        self.0.threads().retain(|thread| *thread != own);
        self.0.ended.notify_all();
    }
}
