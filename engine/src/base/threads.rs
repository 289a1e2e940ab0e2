//! The threads of managed consumers: how they are started with a name and a core, and how a shutdown waits for their
//! end without waiting for itself.

pub(crate) use slipring_ring::internal::{Panic, blaming, caught};
use slipring_ring::pin::{self, PinError};
use std::cell::Cell;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

thread_local! { static PLACE: u8 = const { 0 } }

/// A number for the calling thread that no other living thread has; 0 in a thread whose thread-locals are destroyed
/// already. Costs no system call.
#[inline]
pub(crate) fn token() -> usize {
    PLACE.try_with(|place| std::ptr::from_ref(place).addr()).unwrap_or(0)
}

/// The interval at which a thread that waits for other threads checks if one of these has begun to wait for it.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

thread_local! { static IS_MANAGED: Cell<bool> = const { Cell::new(false) } }

/// A thread that runs an engine's shutdown.
struct ShutdownThread {
    /// The thread's [number](token).
    token: usize,
    /// True if other shutdowns may wait for the thread, because it runs a handler or holds a batch.
    is_waited_for: bool,
}

/// The threads that run an engine's shutdown now, one entry for each running shutdown.
static SHUTTING_DOWN: Mutex<Vec<ShutdownThread>> = Mutex::new(Vec::new());

/// Records that the calling thread runs an engine's shutdown, until the value is dropped. Other shutdowns read this
/// record, so that two threads which shut an engine down do not wait for each other.
pub(crate) struct ShutdownCaller(usize);

impl ShutdownCaller {
    /// Records the calling thread. `holds` is true if the thread holds a consumer's batch, so that another shutdown may
    /// wait for it; the same is assumed if the thread runs a managed consumer's handler.
    pub(crate) fn enter(holds: bool) -> Self {
        let token = token();
        shutting_down().push(ShutdownThread { token, is_waited_for: holds || IS_MANAGED.get() });
        Self(token)
    }
}

impl Drop for ShutdownCaller {
    fn drop(&mut self) {
        let mut callers = shutting_down();
        // The thread may run nested shutdowns of several engines, each with its own entry. Only the last entry is
        // removed.
        if let Some(own) = callers.iter().rposition(|thread| thread.token == self.0) {
            callers.remove(own);
        }
    }
}

fn shutting_down() -> MutexGuard<'static, Vec<ShutdownThread>> {
    SHUTTING_DOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True if both `thread` and the calling thread shut an engine down and the calling thread is one that `thread` may
/// wait for. Then the calling thread must not wait for `thread`, or each would wait for the other.
pub(crate) fn waits_for_this_thread(thread: usize) -> bool {
    let (own, callers) = (token(), shutting_down());
    thread != own
        && callers.iter().any(|caller| caller.token == thread)
        && callers.iter().any(|caller| caller.token == own && caller.is_waited_for)
}

#[derive(Clone, Default)]
pub(crate) struct Threads {
    list: Arc<ThreadList>,
}

#[derive(Default)]
struct ThreadList {
    /// The threads' [numbers](token).
    threads: Mutex<Vec<usize>>,
    ended: Condvar,
}

/// Why the thread of a managed consumer was not started.
pub(crate) enum StartError {
    Pin(PinError),
    Thread(std::io::Error),
    /// The function that makes the thread's state has panicked, with this message.
    Panicked(String),
}

impl Threads {
    /// Starts a thread with this name, pins it to `core` (`None`: not pinned), makes the thread's state there with
    /// `make`, and then runs `life` with the state. Returns once the state is made, or with the reason why the thread
    /// was not started.
    pub(crate) fn start<S: 'static>(
        &self,
        name: &str,
        core: Option<usize>,
        make: impl FnOnce() -> S + Send + 'static,
        life: impl FnOnce(S) + Send + 'static,
    ) -> Result<(), StartError> {
        let (told, hears) = mpsc::sync_channel(1);
        let list = Arc::clone(&self.list);
        // Names of the operating system end at a zero byte, and the standard library panics if a thread's name has one.
        let name = name.replace('\0', "");
        let shown = crate::base::cores::visible(&name);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            show_as(&shown);
            let registration = ThreadRegistration::new(list);
            let pinned = core.map_or(Ok(()), pin::pin_current).map_err(StartError::Pin);
            match pinned.and_then(|()| caught(make).map_err(|panic| StartError::Panicked(panic.said()))) {
                Ok(state) => {
                    let _ = told.send(Ok(()));
                    life(state);
                }
                Err(refused) => {
                    // `life` owns the consumer. It is dropped before the caller gets the error, so the consumer has
                    // left its topic by then.
                    drop(life);
                    drop(registration);
                    let _ = told.send(Err(refused));
                }
            }
        });
        thread.map_err(StartError::Thread)?;
        hears.recv().unwrap_or_else(|_| Err(StartError::Panicked("the thread ended".to_owned())))
    }

    /// True if the calling thread was started by these `Threads`.
    pub(crate) fn is_own(&self) -> bool {
        self.list.threads().contains(&token())
    }

    /// Waits until all threads have ended, except the calling thread and those that [wait for
    /// it](waits_for_this_thread). Returns false if `deadline` passes first.
    pub(crate) fn wait(&self, deadline: Instant) -> bool {
        let own = token();
        let mut threads = self.list.threads();
        while threads.iter().any(|thread| *thread != own && !waits_for_this_thread(*thread)) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // A thread that begins a shutdown of its own sends no notification, so the condition is checked at this
            // interval too.
            let left = left.min(LOOK);
            threads = self.list.ended.wait_timeout(threads, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// True if there is at least one thread and all of them [wait for the calling thread](waits_for_this_thread).
    pub(crate) fn wait_for_this_thread(&self) -> bool {
        let threads = self.list.threads();
        !threads.is_empty() && threads.iter().all(|thread| waits_for_this_thread(*thread))
    }
}

/// Sets the name that `top -H` shows for the calling thread. The standard library's name, which panic messages show,
/// stays the whole name.
fn show_as(name: &str) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = std::ffi::CString::new(name) {
        // If this fails, the operating system shows the first 15 bytes of the whole name.
        let _ = rustix::thread::set_name(&name);
    }
    let _ = name;
}

impl ThreadList {
    fn threads(&self) -> MutexGuard<'_, Vec<usize>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ThreadRegistration(Arc<ThreadList>);

impl ThreadRegistration {
    fn new(list: Arc<ThreadList>) -> Self {
        list.threads().push(token());
        IS_MANAGED.set(true);
        Self(list)
    }
}

impl Drop for ThreadRegistration {
    fn drop(&mut self) {
        let own = token();
        self.0.threads().retain(|thread| *thread != own);
        self.0.ended.notify_all();
    }
}
