//! How a test is run: under which schedulers, how often, and again.

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

pub use shuttle::thread;

/// How many preemptions a bug may need at most, for the scheduler that looks for such bugs.
const DEPTH: usize = 3;

/// Runs `run` so often under each of the two schedulers, less often if it is to be quick. With `SLIPRING_SCHEDULE`, what a
/// failure printed, it runs once, in that order.
pub fn check(times: usize, property: &str, run: impl Fn() + Send + Sync + Copy + 'static) {
    if let Ok(schedule) = std::env::var("SLIPRING_SCHEDULE") {
        shuttle::replay(run, &schedule);
        return;
    }
    let times = if std::env::var_os("SLIPRING_QUICK").is_some() { times / 10 } else { times };
    let mut config = Config::new();
    config.max_steps = shuttle::MaxSteps::FailAfter(200_000);
    Runner::new(RandomScheduler::new(times), config.clone()).run(run);
    Runner::new(PctScheduler::new(DEPTH, times), config).run(run);
    println!("\nCompleted in {} iterations | random, PCT | {property}", 2 * times);
}
