//! The command `slipring`: looks at engines and their files from outside.

/// In the place of std's macro, which panics where standard error takes nothing: nobody else could be told.
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod group;
mod journal;
mod queue;
mod top;

use clap::{Parser, Subcommand};
use slipring::text;
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
        Command::Group(arguments) => return group::run(&arguments),
        Command::Journal(arguments) => return journal::run(&arguments),
        Command::Queue(arguments) => return queue::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read has gone: nobody is left to be told.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slipring: {}", text::line(error));
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
