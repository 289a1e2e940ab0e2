//! Running a test under shuttle: schedulers, count of runs, and replay.

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

pub use shuttle::thread;

/// The most preemptions that a bug may need to be found by the PCT scheduler.
const DEPTH: usize = 3;

/// Runs `run` `times` times under each of the two schedulers, a tenth as often in a quick run. If `SLIPRING_SCHEDULE`
/// holds the schedule that a failure printed, runs `run` once with that schedule.
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
