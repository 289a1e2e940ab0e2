//! From the command line to a plan, and back out with the results.

use std::time::Duration;

use super::contender::{GROUPS, WORDS};
use super::plan::Plan;
use super::render;
use crate::cli::{Mode, PEERS, PeersArgs};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Progress;
use crate::scenario::Scenario;

/// Runs `peers`.
///
/// # Errors
///
/// [`Failure`]: usage, files, or values that arrived wrong.
pub fn command(arguments: PeersArgs) -> Result<(), Failure> {
    let plan = plan(&arguments)?;
    let label = plan.scenarios.iter().map(|it| it.name()).collect::<Vec<_>>().join("-");
    let mut output = Output::new(&arguments.output, &format!("peers-{label}"));
    let document = plan.run(Environment::capture(), &Progress::new());
    render::write(&document, &mut output)?;
    output.announce();
    if document.valid() { Ok(()) } else { Err(Failure::Invalid(format!("INVALID: {}", document.faults.join("; ")))) }
}

fn plan(arguments: &PeersArgs) -> Result<Plan, Failure> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    for scenario in &arguments.scenarios {
        match scenario {
            Scenario::Mpsc => scenarios.extend([Scenario::MpscOne, Scenario::MpscTwo]),
            known if PEERS.contains(known) => scenarios.push(*known),
            other => {
                return Err(Failure::usage(format!(
                    "no rival does `{}`; peers measures {}. Use run for it.",
                    other.name(),
                    PEERS.iter().map(|it| it.name()).collect::<Vec<_>>().join(", ")
                )));
            }
        }
    }
    for name in &arguments.with {
        let extra = name == "native";
        if !extra && !GROUPS.contains(&name.as_str()) {
            return Err(Failure::usage(format!(
                "`{name}` is not known to --with; it takes {}, native",
                GROUPS.join(", ")
            )));
        }
        if cfg!(not(feature = "rivals")) && !matches!(name.as_str(), "all" | "none") {
            return Err(Failure::usage(format!(
                "this build has no rivals: build it with the feature `rivals` to measure {name}"
            )));
        }
    }
    let words = arguments
        .payload
        .iter()
        .map(|bytes| match *bytes as usize / 8 {
            words if bytes % 8 == 0 && WORDS.contains(&words) => Ok(words),
            _ => Err(Failure::usage(format!("--payload {bytes}: peers knows 8, 64 and 256 bytes"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if arguments.batch == 0 || arguments.rounds == Some(0) {
        return Err(Failure::usage("--batch and --rounds are at least 1"));
    }
    let smallest = arguments.capacity.iter().copied().min().unwrap_or(1);
    if arguments.mode != Mode::OneByOne && arguments.batch > smallest {
        return Err(Failure::usage(format!("--batch {} does not fit into a capacity of {smallest}", arguments.batch)));
    }
    // disruptor-rs refuses a multi-producer ring below this.
    if smallest < 64 && scenarios.iter().any(|it| matches!(it, Scenario::MpscOne | Scenario::MpscTwo)) {
        return Err(Failure::usage("mpsc needs a capacity of at least 64: a rival refuses less"));
    }
    let batches = match (arguments.mode, arguments.batch) {
        (Mode::OneByOne, _) | (_, 1) => vec![1],
        (Mode::Batch, batch) => vec![batch],
        (Mode::Both, batch) => vec![1, batch],
    };
    let (rounds, duration) = if arguments.quick { (5, 50) } else { (7, 250) };
    Ok(Plan {
        scenarios,
        with: arguments.with.clone(),
        capacities: arguments.capacity.clone(),
        words,
        batches,
        rounds: arguments.rounds.unwrap_or(rounds),
        duration: arguments.duration.unwrap_or(Duration::from_millis(duration)),
        waiting: arguments.wait,
        pins: arguments.pin.clone(),
        silence: arguments.silence,
    })
}
