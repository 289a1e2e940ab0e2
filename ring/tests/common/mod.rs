//! What several tests need: an end for what hangs, and thread-safe marks.
#![allow(dead_code)]

use slipring_ring::{Sequence, Wait};
use std::sync::mpsc;
use std::time::Duration;

/// Long enough for any machine, short enough to be an error and no hang. Miri takes a thousand times as long.
pub const LONG: Duration = Duration::from_secs(if cfg!(miri) { 3600 } else { 180 });

/// Where sequences and stamps lose their topmost bits, and an ordinary place.
pub const STARTS: [u64; 5] = [0, 7, u64::MAX - 2, (1 << 63) - 2, (1 << 62) - 1];

/// Every strategy, and parking at once: the one that shows lost wake-ups.
pub fn waits() -> Vec<Wait> {
    let named = Wait::NAMES.iter().map(|name| name.parse().unwrap());
    named.chain([at_once(), Wait::backoff().spin_for(Duration::ZERO).yields(0)]).collect()
}

/// Sleeps without a spin before.
pub fn at_once() -> Wait {
    Wait::spin_then_park().spin_for(Duration::ZERO).yields(0)
}

/// Runs `work` on a thread of its own; fails if it hangs, and passes its panic on.
#[track_caller]
pub fn soon<R: Send + 'static>(what: &str, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, waited) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let _ = done.send(result);
    });
    match waited.recv_timeout(LONG) {
        Ok(Ok(result)) => {
            let _ = thread.join();
            result
        }
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => panic!("{what} hangs"),
    }
}

/// The `count` sequences from `first` on.
pub fn run(first: u64, count: u64) -> Vec<Sequence> {
    (0..count).map(|index| Sequence(first).plus(index)).collect()
}

/// Panics without the noise of a backtrace.
pub fn quiet_panic(message: &str) -> ! {
    std::panic::resume_unwind(Box::new(message.to_owned()))
}
