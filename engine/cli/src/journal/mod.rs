//! `slipring journal`: inspects a journal's directory, copies it, and repairs it.

mod columns;
mod convert;
mod copy;
mod export;
mod filter;
mod parquet;
mod records;
mod repair;
mod show;
mod sink;
mod target;
mod verify;

use crate::failure::Done;
use crate::inspected::Listing;
use clap::{Args, Subcommand};

/// Inspects a journal: its segments, its records, and whether it is sound.
///
/// The program that writes the journal may be running. Only `repair` writes to the directory; it takes its lock, as `convert`
/// does. `copy` writes to the other one, and locks that.
#[derive(Args)]
#[command(after_help = CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

pub(crate) const CODES: &str = "\
Exit codes:
  0  done, and nothing was wrong (also when the reader of a pipe has gone)
  1  it could not be done: no journal there, a program has it open, the disk fails
  2  the command line was not understood
  3  damaged: data that had been durable cannot be read
  4  verify: a torn end, as a crash leaves it; the next opening cuts it, nothing durable is lost
  5  a newer program wrote it
  6  verify: every record is whole, but bytes that belong to no record have changed; repair puts them right";

#[derive(Subcommand)]
enum Command {
    /// List the segments, and the files that were put aside
    #[command(visible_alias = "list", after_help = CODES)]
    Ls(Listing),
    /// Print the journal's size, its durable position, its state, the producers' names, and the records of each topic
    #[command(after_help = CODES)]
    Stat(Listing),
    /// Print records
    #[command(after_help = records::EXAMPLES)]
    Cat(records::Cat),
    /// Print the last records, and with -f also new ones as they are written
    #[command(after_help = CODES)]
    Tail(records::Tail),
    /// Check every frame, checksum and index, and name the first damage
    #[command(after_help = CODES)]
    Verify(Listing),
    /// Copy the journal to another directory, also while a program writes to it, and verify the copy
    #[command(after_help = CODES)]
    Copy(copy::Arguments),
    /// Write a whole journal anew, with every record in the present layout of its topic
    #[command(after_help = convert::EXAMPLES)]
    Convert(convert::Arguments),
    /// Copy damaged parts aside and leave gaps in their place, so that the rest can be opened again
    #[command(after_help = CODES)]
    Repair(repair::Arguments),
    /// Write records to a file, as JSON lines, CSV or Parquet
    #[command(after_help = export::EXAMPLES)]
    Export(export::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    match &arguments.command {
        Command::Ls(arguments) => show::ls(arguments),
        Command::Stat(arguments) => show::stat(arguments),
        Command::Cat(arguments) => records::cat(arguments),
        Command::Tail(arguments) => records::tail(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Copy(arguments) => copy::run(arguments),
        Command::Convert(arguments) => convert::run(arguments),
        Command::Repair(arguments) => repair::run(arguments),
        Command::Export(arguments) => export::run(arguments),
    }
}
