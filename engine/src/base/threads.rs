//! Threads of a topic's managed consumers: started with a name and a core, waited for, never joined by themselves.

pub(crate) use slipring_ring::internal::{Panic, blaming, caught};
use slipring_ring::pin::{self, PinError};
use std::cell::Cell;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

thread_local! { static PLACE: u8 = const { 0 } }

/// A number of the calling thread that no other living one has; 0 where it is about to end. Costs next to nothing.
#[inline]
pub(crate) fn token() -> usize {
    PLACE.try_with(|place| std::ptr::from_ref(place).addr()).unwrap_or(0)
}

/// How often whoever waits for threads looks whether one of them waits for it.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

thread_local! { static IS_MANAGED: Cell<bool> = const { Cell::new(false) } }

/// The threads that shut an engine down at this moment: their numbers, and whether others may wait for them because they run a
/// handler or hold a batch.
static SHUTTING_DOWN: Mutex<Vec<(usize, bool)>> = Mutex::new(Vec::new());

/// The calling thread shuts an engine down, until this is dropped.
pub(crate) struct ShutdownCaller(usize);

impl ShutdownCaller {
    /// `holds`: the thread has a batch in hand.
    pub(crate) fn enter(holds: bool) -> Self {
        let own = token();
        shutting_down().push((own, holds || IS_MANAGED.get()));
        Self(own)
    }
}

impl Drop for ShutdownCaller {
    fn drop(&mut self) {
        let mut callers = shutting_down();
        // A handler of one engine may shut another one down, whose listener may do so again: one entry of them goes.
        if let Some(own) = callers.iter().rposition(|(thread, _)| *thread == self.0) {
            callers.remove(own);
        }
    }
}

fn shutting_down() -> MutexGuard<'static, Vec<(usize, bool)>> {
    SHUTTING_DOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this thread and the calling one are both in a shutdown, which waits for the calling one: each would wait for the
/// other.
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
    /// By their [numbers](token).
    threads: Mutex<Vec<usize>>,
    ended: Condvar,
}

/// No thread was started.
pub(crate) enum StartError {
    Pin(PinError),
    Thread(std::io::Error),
    /// What makes its state panicked.
    Panicked(String),
}

impl Threads {
    /// Starts a thread, pins it, makes its state there, and lets it live on with that. Returns once the state is made.
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
                    // With the closure goes what it owns: a consumer has left when the caller is told.
                    drop(life);
                    drop(entered);
                    let _ = told.send(Err(refused));
                }
            }
        });
        thread.map_err(StartError::Thread)?;
        hears.recv().unwrap_or_else(|_| Err(StartError::Panicked("the thread ended".to_owned())))
    }

    /// Whether the calling thread is one of these.
    pub(crate) fn is_own(&self) -> bool {
        self.alive.threads().contains(&token())
    }

    /// Waits until every thread but the calling one has ended; false if `deadline` comes first.
    pub(crate) fn wait(&self, deadline: Instant) -> bool {
        let own = token();
        let mut threads = self.alive.threads();
        while threads.iter().any(|thread| *thread != own && !waits_for_this_thread(*thread)) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // A thread that begins to shut down itself is looked for now and then.
            let left = left.min(LOOK);
            threads = self.alive.ended.wait_timeout(threads, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Whether each of these threads waits for the calling one.
    pub(crate) fn wait_for_this_thread(&self) -> bool {
        let threads = self.alive.threads();
        !threads.is_empty() && threads.iter().all(|thread| waits_for_this_thread(*thread))
    }
}

/// The name that `top -H` shows. The library's own name of the thread, which panics tell, is the whole one.
fn show_as(name: &str) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = std::ffi::CString::new(name) {
        // Without it the thread is shown by the first 15 bytes.
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
