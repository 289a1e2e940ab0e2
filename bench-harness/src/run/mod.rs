//! `run`: the latency of one scenario on our ring.

pub mod document;
mod drive;
mod event;
mod hiccup;
mod live;
pub mod measure;
mod recorder;
pub mod render;
mod round_trip;
pub mod schedule;
mod topic;
mod topology;

use crate::assertion::Figures;
use crate::cli::{Loop, RunArgs};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Progress;

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
