//! The command line: the commands, and where results go. The options of a command are in its module.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::baseline::BaselineArgs;
use crate::compare::CompareArgs;
use crate::doctor::DoctorArgs;
use crate::growth::GrowthArgs;
use crate::idle::IdleArgs;
use crate::journal::JournalArgs;
use crate::peers::PeersArgs;
use crate::report::ReportArgs;
use crate::run::RunArgs;
use crate::sweep::SweepArgs;
use crate::transform::TransformArgs;
use crate::waits::WaitsArgs;

/// Measures latency and throughput of slipring's rings and topics, of rivals in the same run, and
/// of the machine it runs on.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Start here:\n  \
        bench-harness doctor                  is this machine fit to measure on?\n  \
        bench-harness peers spsc --quick      a table and a page in under a minute\n  \
        bench-harness run spsc --rate 1M/s    latency at a million messages a second\n\n\
        Exit codes: 0 fine, 1 an assertion (--assert) or a comparison (--fail-on) failed,\n\
        2 the run is invalid, 64 usage, 74 a file could not be read or written.\n\n\
        Build with --release: figures of a debug build mean nothing."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands. A variant's comment replaces the long help of its options' type, so that stands here.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at this machine: what spoils measurements, and the command that mends it
    Doctor(DoctorArgs),
    /// Measure the latency of one scenario on our ring
    #[command(long_about = crate::run::HELP)]
    Run(RunArgs),
    /// Measure our rings, their rivals and the floor in turn
    #[command(long_about = crate::peers::HELP)]
    Peers(PeersArgs),
    /// Many topics in which nothing happens: their memory, and the processor time they take
    Idle(IdleArgs),
    /// Measure what our ways of waiting cost: latency, throughput, an idle ring, the heavy fence
    #[command(long_about = crate::waits::HELP)]
    Waits(WaitsArgs),
    /// The journal against bare writes and reads of the same bytes on the same disk
    Journal(JournalArgs),
    /// Consume, transform, produce: exactly once against at least once, on one disk
    Transform(TransformArgs),
    /// How costs grow with topics, partitions, members, groups and segments
    #[command(long_about = crate::growth::HELP)]
    Growth(GrowthArgs),
    /// Walk a scenario over rates, capacities or payloads
    #[command(long_about = crate::sweep::HELP)]
    Sweep(SweepArgs),
    /// Compare two results, or two builds of this program
    #[command(long_about = crate::compare::HELP)]
    Compare(CompareArgs),
    /// Keep results under a name
    Baseline(BaselineArgs),
    /// Draw a stored result again
    Report(ReportArgs),
    /// What the harness starts itself with
    #[cfg(target_os = "linux")]
    #[command(name = crate::peers::SECOND, hide = true)]
    Second {
        /// What the process is to do
        order: String,
    },
    /// Say what a figure means and how it was measured
    Explain {
        /// The word to explain; without it, all of them
        word: Option<String>,
    },
}

impl Command {
    /// The options that say where its results go; `None` for a command that writes none.
    pub fn output(&self) -> Option<&OutputArgs> {
        match self {
            Self::Run(arguments) => Some(&arguments.output),
            Self::Peers(arguments) => Some(&arguments.output),
            Self::Idle(arguments) => Some(&arguments.output),
            Self::Waits(arguments) => Some(&arguments.output),
            Self::Journal(arguments) => Some(&arguments.output),
            Self::Transform(arguments) => Some(&arguments.output),
            Self::Sweep(arguments) => Some(&arguments.output),
            Self::Growth(arguments) => Some(&arguments.output),
            Self::Doctor(_) | Self::Compare(_) | Self::Baseline(_) | Self::Report(_) | Self::Explain { .. } => None,
            #[cfg(target_os = "linux")]
            Self::Second { .. } => None,
        }
    }
}

/// A format to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The table
    Text,
    /// The contract for programs
    Json,
    /// One line a figure
    Csv,
    /// HdrHistogram's percentile distribution
    Hgrm,
    /// HdrHistogram's interval log
    Hlog,
    /// The charts
    Svg,
    /// One self-contained page
    Html,
}

/// Where results go.
#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// Directory for the files [default: COMMAND or COMMAND-SCENARIO in target/bench-harness, or in bench-results where
    /// there is no folder target]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What to write, by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Format::Text, Format::Json, Format::Html])]
    pub format: Vec<Format>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use clap::CommandFactory;

    /// No command's long help was shown: the comment of its variant replaced it.
    #[test]
    fn the_long_help_of_a_command_says_more_than_the_list_of_commands() {
        let mut cli = Cli::command();
        for (command, says) in [
            ("run", "Open loop by default"),
            ("peers", "N/A stands where"),
            ("waits", "Rounds of both sides"),
            ("growth", "The exponent is"),
            ("sweep", "finds the knee"),
            ("compare", "bench-harness compare ./old ./new --rounds 7 -- spsc"),
        ] {
            let help = cli.find_subcommand_mut(command).unwrap().render_long_help().to_string();
            assert!(help.contains(says), "{command}: {help}");
        }
    }

    /// The help of `peers` lacked group, and so did the list of an error of `run`.
    #[test]
    fn the_help_names_each_scenario_that_a_command_takes_and_no_other() {
        for (command, argument) in [("run", "scenario"), ("sweep", "scenario"), ("peers", "scenarios")] {
            let cli = Cli::command();
            let command = cli.find_subcommand(command).unwrap();
            let found = command.get_arguments().find(|it| it.get_id() == argument).unwrap();
            let help = found.get_help().unwrap().to_string();
            let named: Vec<&str> =
                help.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').collect();
            for scenario in Scenario::value_variants() {
                let name = command.get_name();
                let words: &[&str] = match name {
                    "sweep" => &["bench-harness", name, scenario.name(), "--rate", "1k"],
                    _ => &["bench-harness", name, scenario.name()],
                };
                let takes = Cli::try_parse_from(words).is_ok();
                assert_eq!(named.contains(&scenario.name()), takes, "{name} {}: {help}", scenario.name());
            }
        }
    }
}
