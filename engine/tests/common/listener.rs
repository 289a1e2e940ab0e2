//! A subscriber of `tracing` for the thread of one test, beside tests that have none.

use tracing::dispatcher::DefaultGuard;
use tracing::{Dispatch, Subscriber};

/// Tells `listener` what this thread says until the result is dropped. `other` is told nothing.
///
/// With one dispatcher in the process, the first thread that comes to an event's place decides for all whether it is told:
/// with a second one, all dispatchers are asked.
pub fn listen<S: Subscriber + Send + Sync + 'static>(listener: S, other: S) -> (DefaultGuard, Dispatch) {
    let other = Dispatch::new(other);
    (tracing::subscriber::set_default(listener), other)
}
