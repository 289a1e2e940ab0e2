//! Threads of a topic's managed consumers: started with a name and a core, waited for, never joined by themselves.

pub(crate) use slipring_ring::internal::{Panic, blaming, caught};
use slipring_ring::pin::{self, PinError};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Instant;

thread_local! { static PLACE: u8 = const { 0 } }

/// A number of the calling thread that no other living one has; 0 where it is about to end. Costs next to nothing.
#[inline]
pub(crate) fn token() -> usize {
    PLACE.try_with(|place| std::ptr::from_ref(place).addr()).unwrap_or(0)
}

#[derive(Clone, Default)]
pub(crate) struct Threads {
    alive: Arc<Alive>,
}

#[derive(Default)]
struct Alive {
    threads: Mutex<Vec<ThreadId>>,
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
        self.alive.threads().contains(&std::thread::current().id())
    }

    /// Waits until every thread but the calling one has ended; false if `deadline` comes first.
    pub(crate) fn wait(&self, deadline: Instant) -> bool {
        let own = std::thread::current().id();
        let mut threads = self.alive.threads();
        while threads.iter().any(|thread| *thread != own) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            threads = self.alive.ended.wait_timeout(threads, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
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
    fn threads(&self) -> MutexGuard<'_, Vec<ThreadId>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Entered(Arc<Alive>);

impl Entered {
    fn new(alive: Arc<Alive>) -> Self {
        alive.threads().push(std::thread::current().id());
        Self(alive)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let own = std::thread::current().id();
        self.0.threads().retain(|thread| *thread != own);
        self.0.ended.notify_all();
    }
}
