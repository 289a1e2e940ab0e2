//! An end for work that may hang.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Long enough for any machine, short enough to be an error and no hang.
pub const LONG: Duration = Duration::from_secs(120);

/// Runs `work` on a thread of its own; fails if it hangs.
#[track_caller]
pub fn soon<R: Send + 'static>(what: &str, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, waited) = mpsc::channel();
    let thread = std::thread::spawn(move || done.send(work()));
    match waited.recv_timeout(LONG) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(_) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}
