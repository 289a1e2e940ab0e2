//! The program `slipring-bridge`: copies topics of a journal to and from a cluster, and compares both sides.

/// Replaces the macro of the standard library, which panics if writing to standard error fails.
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod compare;
mod failure;
mod holder;
mod left_out;
mod recorded;
mod reset;
mod run;
mod signals;
mod state;
mod takeover;

use clap::{Parser, Subcommand};
use slipring_bridge::config::Config;
use std::path::PathBuf;
use std::process::ExitCode;

/// Copies topics of a slipring journal to and from NATS JetStream.
///
/// A journal is open in one program at a time. A program that links slipring starts its bridges itself; this one opens the journal
/// of a program that does not run, or keeps a copy of another machine's topics.
#[derive(Parser)]
#[command(name = "slipring-bridge", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Opens the journal and runs all bridges of the file, until it gets SIGTERM or SIGINT
    ///
    /// With a lease in the file it first waits for the lease. Meanwhile it keeps the journal as a copy of the streams, and
    /// then it takes them over.
    ///
    /// Exit codes: 0 ended, 1 failed, 2 wrong arguments, 7 a bridge has stopped for good, 8 the lease is lost, or the program
    /// has failed.
    Run(run::Arguments),
    /// Takes the streams of another machine over: copies them into this machine's journal, and fences the other machine
    ///
    /// Afterwards the program of that journal goes on where the other one has ended. No program may have the journal open. A
    /// takeover that was interrupted can be repeated. A file with a lease is for `run`.
    ///
    /// Exit codes: 0 taken over, 1 failed, 2 wrong arguments, 7 journal and streams do not fit.
    TakeOver(takeover::Arguments),
    /// Shows how far each partition is copied, also while another program has the journal open
    Status(state::Arguments),
    /// Compares each record of the journal with its stream, also while another program has the journal open
    ///
    /// Exit codes: 0 no difference, 1 could not be compared, 2 wrong arguments, 3 there are differences.
    Verify(compare::Arguments),
    /// Forgets how far a bridge has come, so that it can begin with empty streams
    ///
    /// No program may have the journal open.
    Reset(reset::Arguments),
}

/// The file that every command reads.
#[derive(clap::Args)]
struct Settings {
    /// The settings: journal, servers and bridges, see the package's documentation of `config`
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
}

impl Settings {
    fn read(&self) -> Result<Config, failure::Failure> {
        Ok(Config::read(&self.config)?)
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::TakeOver(arguments) => takeover::run(&arguments),
        Command::Status(arguments) => state::run(&arguments),
        Command::Verify(arguments) => compare::run(&arguments),
        Command::Reset(arguments) => reset::run(&arguments),
    };
    done.map_or_else(failure::Failure::report, |()| ExitCode::SUCCESS)
}
