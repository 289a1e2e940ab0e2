//! A schedule that loom leaves out by itself, and that thorough atomics bring back: see `ring/src/thorough.rs`.

use crate::support::{completed, explore_to, thread};
use slipring_ring::thorough::{self, AtomicU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// One thread loads; another thread loads, then stores.
/// Allowed: the first thread sees the old value or the new one. Forbidden: a schedule with the new value is never
/// tried.
#[test]
fn a_load_of_ones_own_hides_no_other_threads_load() {
    let tries_both = |with_shadows| {
        let sees_new = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&sees_new);
        thorough::set(with_shadows);
        let iterations = explore_to(
            None,
            Arc::new(move || {
                let word = loom::sync::Arc::new(AtomicU64::new(0));
                let theirs = loom::sync::Arc::clone(&word);
                let other = thread::spawn(move || {
                    theirs.load(Relaxed);
                    theirs.store(1, Relaxed);
                });
                seen.fetch_or(word.load(Relaxed) == 1, Relaxed);
                other.join().unwrap();
            }),
        );
        (sees_new.load(Relaxed), iterations)
    };
    let (found, iterations) = tries_both(true);
    assert!(found, "thorough atomics leave schedules out");
    // If this fails, loom tries both schedules by itself, and the shadows are no longer needed.
    assert!(!tries_both(false).0, "loom by itself tries both");
    completed(iterations, "all", "every order of a load and a store is tried");
}
