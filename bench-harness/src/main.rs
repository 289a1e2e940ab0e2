//! Latency and throughput of slipring and its rivals, measured on the user's own machine.

mod assertion;
mod cli;
mod clock;
mod environment;
mod failure;
mod latency;
mod output;
mod peers;
mod pin;
mod progress;
mod quantity;
mod run;
mod scenario;
mod statistics;

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
    let outcome = match cli.command {
        Command::Peers(arguments) => peers::command(arguments),
        Command::Run(arguments) => run::command(&arguments),
        _ => Err(Failure::usage("not there yet")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(&failure)
        }
    }
}
