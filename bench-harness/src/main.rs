//! Latency and throughput of slipring and its rivals, measured on the user's own machine.

// Without the rivals, items that only they use are unused.
#![cfg_attr(not(feature = "rivals"), allow(dead_code))]

// The first module, since the others use its macros.
#[macro_use]
mod say;

mod assertion;
mod baseline;
mod cli;
mod clock;
mod compare;
mod doctor;
mod environment;
mod explain;
mod failure;
mod growth;
mod idle;
mod journal;
mod latency;
mod ours;
mod output;
mod payload;
mod peers;
mod pin;
mod progress;
mod quantity;
mod report;
mod run;
mod scenario;
mod statistics;
mod sweep;
mod system;
mod transform;
mod wait_spec;
mod waits;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(64) };
        }
    };
    // Checked before the measurement, which may take an hour: results that cannot be written would be lost.
    let writable = cli.command.output().map_or(Ok(()), output::check);
    let outcome = writable.and_then(|()| match cli.command {
        Command::Peers(arguments) => peers::command(arguments),
        Command::Run(arguments) => run::command(&arguments),
        Command::Idle(arguments) => idle::command(&arguments),
        Command::Journal(arguments) => journal::command(&arguments),
        Command::Transform(arguments) => transform::command(&arguments),
        Command::Doctor(arguments) => doctor::command(&arguments),
        Command::Waits(arguments) => waits::command(&arguments),
        Command::Growth(arguments) => growth::command(&arguments),
        Command::Sweep(arguments) => sweep::command(&arguments),
        Command::Compare(arguments) => compare::command(&arguments),
        Command::Baseline(arguments) => baseline::command(&arguments),
        Command::Report(arguments) => report::command(&arguments),
        #[cfg(target_os = "linux")]
        Command::Second { order } => peers::second(&order),
        Command::Explain { word } => explain::command(word.as_deref()),
    });
    let outcome = outcome.and_then(|()| match say::refused() {
        Some(source) => Err(Failure::File { path: "standard output".to_owned(), source }),
        None => Ok(()),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.to_string().lines() {
                eprintln!("{}", slipring::text::line(line));
            }
            ExitCode::from(&failure)
        }
    }
}
