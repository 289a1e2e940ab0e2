//! The command `slipring`, which inspects engines and their journals from outside.

/// Replaces the macro of the standard library, which panics if writing to standard error fails.
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod failure;
mod group;
mod hints;
mod inspected;
mod journal;
mod output;
mod queue;
mod shm;
mod top;
mod topic;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Inspects slipring engines and their journals from outside.
#[derive(Parser)]
#[command(name = "slipring", version, about, after_help = hints::QUESTIONS)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(alias = "groups")]
    Group(group::Arguments),
    Journal(journal::Arguments),
    #[command(alias = "queues")]
    Queue(queue::Arguments),
    Shm(shm::Arguments),
    Top(top::Arguments),
    #[command(alias = "topics")]
    Topic(topic::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|refused| {
        let hint = hints::elsewhere(&refused);
        let _ = refused.print();
        if let Some(command) = hint {
            eprintln!("\n  tip: {command}");
        }
        // 2 for what was not understood, 0 for help.
        std::process::exit(refused.exit_code())
    });
    let done = match arguments.command {
        Command::Group(arguments) => group::run(&arguments),
        Command::Journal(arguments) => journal::run(&arguments),
        Command::Queue(arguments) => queue::run(&arguments),
        Command::Shm(arguments) => shm::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Topic(arguments) => topic::run(&arguments),
    };
    done.map_or_else(failure::Failure::report, |()| ExitCode::SUCCESS)
}
