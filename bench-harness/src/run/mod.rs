//! `run`: the latency of one scenario on our ring or topic.

pub mod document;
mod drive;
mod hiccup;
mod live;
pub mod load;
pub mod measure;
mod recorder;
pub mod render;
mod round_trip;
pub mod schedule;
mod topology;

use crate::assertion::{Assertions, Figures};
use clap::{Args, ValueEnum};

use self::load::LoadArgs;
use crate::cli::OutputArgs;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Progress;
use crate::scenario::Scenario;

/// What `--help` says first.
pub const HELP: &str = "Measure the latency of one scenario on our ring.\n\n\
    Open loop by default: every message has an intended time, and its latency counts from there,\n\
    so that a stall is seen by every message that had to wait for it. A run that missed its rate\n\
    is INVALID, not slow. Beside the latencies stand the hiccups of the same cores with nothing\n\
    running on them, and the cost of the harness itself.";

/// Options of `run`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = crate::scenario::gallery(RUN))]
pub struct RunArgs {
    /// What is measured.
    #[command(flatten)]
    pub load: LoadArgs,
    /// How the producer paces itself
    #[arg(long = "loop", value_enum, default_value_t = Loop::Open)]
    pub pace: Loop,
    /// Show percentiles, rate and lag as they move
    #[arg(long)]
    pub live: bool,
    /// Conditions for exit code 0, such as 'p99<2us,p99.9<20us,drops=0'
    #[arg(long)]
    pub assert: Option<Assertions>,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The scenarios that `run` measures and draws in its help; mpsc-1 and mpsc-2 are mpsc with as many producers.
pub const RUN: &[Scenario] = &[
    Scenario::Spsc,
    Scenario::Mpsc,
    Scenario::Fanout,
    Scenario::Pipeline,
    Scenario::Diamond,
    Scenario::WorkSharing,
    Scenario::PingPong,
    Scenario::IdleWake,
    Scenario::Topic,
    Scenario::Group,
];

/// How a producer paces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Loop {
    /// By a schedule; latency counts from the intended time
    Open,
    /// The next message only after the last one arrived; hides waiting
    Closed,
    /// One after the other, to see what closed loop hides
    Both,
}

/// Runs `run`.
///
/// # Errors
///
/// [`Failure`]: usage, files, an assertion that does not hold, an invalid run.
pub fn command(arguments: &RunArgs) -> Result<(), Failure> {
    let environment = Environment::capture();
    let progress = Progress::new();
    let measure = |closed| measure::measure(&arguments.load, closed, arguments.live, &environment, &progress);
    let mut measured = measure(arguments.pace == Loop::Closed)?;
    if arguments.pace == Loop::Both {
        measured.document.closed = Some(Box::new(measure(true)?.document));
    }
    let label = format!("run-{}", measured.document.scenario);
    let mut output = Output::new(&arguments.output, &label);
    render::write(&measured, &mut output)?;
    output.announce();
    let document = &measured.document;
    if !document.valid {
        return Err(Failure::Invalid(format!("INVALID: {}", document.reason)));
    }
    let Some(assertions) = &arguments.assert else { return Ok(()) };
    let broken =
        assertions.broken(&Figures { latency: document.latency, rate: document.rate_achieved, drops: document.drops });
    if broken.is_empty() {
        println!("all assertions hold");
        Ok(())
    } else {
        Err(Failure::Regression(format!("assertion failed: {}", broken.join("; "))))
    }
}
