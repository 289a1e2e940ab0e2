//! The thread that takes and renews the lease.

use slipring::text;
use slipring_bridge::jetstream::Lease;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the lease is looked at.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Shared {
    ends: AtomicBool,
    /// Until when this machine holds the lease. A renewal that hangs does not prolong it.
    held_until: Mutex<Option<Instant>>,
}

/// A lease that a thread takes and renews. Dropped, it is given up.
pub(crate) struct LeaseHolder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl LeaseHolder {
    pub(crate) fn start(mut lease: Lease) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("slipring-lease".to_owned()).spawn(move || {
            let (mut was_held, mut known, mut error) = (false, None, None);
            while !of_thread.ends.load(Ordering::Acquire) {
                let kept = lease.keep();
                *of_thread.held_until.lock().unwrap_or_else(PoisonError::into_inner) = lease.held_until();
                let holder = lease.holder().map(str::to_owned);
                let failed = kept.as_ref().err().cloned();
                if failed != error {
                    match &failed {
                        Some(cause) => eprintln!("lease: tries again: {}", text::line(cause)),
                        None => eprintln!("lease: works again"),
                    }
                    error = failed;
                }
                match kept {
                    Ok(is_held) if is_held != was_held => {
                        was_held = is_held;
                        eprintln!("lease: {}", if is_held { "held" } else { "not held any more" });
                    }
                    Ok(false) if holder != known => {
                        eprintln!("lease: held by {}", text::line(holder.as_deref().unwrap_or("nobody")));
                    }
                    _ => {}
                }
                known = holder;
                std::thread::sleep(LOOK);
            }
            if let Err(cause) = lease.give_up() {
                eprintln!("lease: it ends by itself: {}", text::line(cause));
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn is_held(&self) -> bool {
        let until = *self.shared.held_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

impl Drop for LeaseHolder {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
