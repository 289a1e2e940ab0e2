//! How a model is run: bounded or to exhaustion, with bells or without, and what it must say at the end.

use slipring_ring::{Wait, bell::quiet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use loom::thread;

/// How far the schedules are explored. Every store that a load may see is, in either case.
#[derive(Clone, Copy)]
pub enum Explore {
    /// Every schedule.
    All,
    /// Every schedule with so many preemptions at most.
    Preemptions(usize),
}
pub use Explore::{All, Preemptions};

/// A model in which nobody sleeps: bells order nothing, as where the system has `membarrier(2)`.
pub fn model(explore: Explore, property: &str, run: impl Fn() + Send + Sync + 'static) {
    check(explore, true, property, run);
}

/// A model with sleepers, or with full fences at every bell.
pub fn model_with_bells(explore: Explore, property: &str, run: impl Fn() + Send + Sync + 'static) {
    check(explore, false, property, run);
}

fn check(explore: Explore, quiet_bells: bool, property: &str, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // Those two would end a model early and let it pass.
    (builder.max_duration, builder.max_permutations) = (None, None);
    let asked = std::env::var("SLIPRING_PREEMPTIONS").ok().map(|bound| bound.parse().expect("a number"));
    builder.preemption_bound = match explore {
        All => None,
        Preemptions(bound) => Some(asked.map_or(bound, |asked: usize| asked.min(bound))),
    };
    builder.max_branches = 10_000;
    let explored = match builder.preemption_bound {
        None => "exhaustive".to_owned(),
        Some(bound) => format!("{bound} preemptions"),
    };
    let iterations = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&iterations);
    quiet::set(quiet_bells);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        run();
    });
    quiet::set(false);
    // Reached only when there was no schedule left: the runner requires this line.
    println!("\nCompleted in {} iterations | {explored} | {property}", iterations.load(Ordering::Relaxed));
}

/// Sleeps at the first empty look.
pub fn park() -> Wait {
    Wait::spin_then_park().spins(0).yields(0).pause(0)
}
