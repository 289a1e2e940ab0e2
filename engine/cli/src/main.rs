//! The command `slipring`: looks at engines and their journals from outside.

/// Replaces the macro of the standard library, which panics if standard error takes nothing.
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod failure;
mod group;
mod inspected;
mod journal;
mod output;
mod queue;
mod top;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Looks at slipring engines and their journals from outside.
#[derive(Parser)]
#[command(name = "slipring", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Group(group::Arguments),
    Journal(journal::Arguments),
    Queue(queue::Arguments),
    Top(top::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Group(arguments) => group::run(&arguments),
        Command::Journal(arguments) => journal::run(&arguments),
        Command::Queue(arguments) => queue::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
    };
    done.map_or_else(failure::Failure::report, |()| ExitCode::SUCCESS)
}
