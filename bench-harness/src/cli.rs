//! The command line. Its help is part of the product.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::assertion::Assertions;
use crate::peers::WaitClass;
use crate::pin::PinPlan;
use crate::quantity::{self, Rate, Steps};
use crate::run::schedule::Arrival;
use crate::scenario::Scenario;

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
        Exit codes: 0 fine, 1 an assertion failed or a regression was found,\n\
        2 the run is invalid, 64 usage, 74 a file could not be read or written.\n\n\
        Build with --release: figures of a debug build mean nothing."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at this machine: what spoils measurements, and the command that mends it
    Doctor(DoctorArgs),
    /// Measure the latency of one scenario on our ring
    Run(RunArgs),
    /// Measure our rings, their rivals and the floor in turn
    Peers(PeersArgs),
    /// Walk a scenario over rates, capacities or payloads
    Sweep(SweepArgs),
    /// Compare two results, or two builds of this program
    Compare(CompareArgs),
    /// Keep results under a name
    Baseline(BaselineArgs),
    /// Draw a stored result again
    Report(ReportArgs),
    /// Say what a figure means and how it was measured
    Explain {
        /// The word to explain; without it, all of them
        word: Option<String>,
    },
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
    /// Directory for the files [default: target/bench-harness/COMMAND-SCENARIO]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What to write, by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Format::Text, Format::Json, Format::Html])]
    pub format: Vec<Format>,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `peers`.
#[derive(Debug, Args)]
#[command(
    long_about = "Measure our rings, their rivals and the floor in turn.\n\n\
    Every contender gets the same work, cores, capacity, payload and class of waiting. Rounds\n\
    are interleaved (A B C, B C A, ...), every value is verified, and medians stand with their\n\
    lowest and highest round. Ratios are over paired rounds, with a 95 % bootstrap interval.\n\
    N/A stands where a contender's semantics differ.\n\n\
    rtrb+pause is rtrb with the short-batch pause of our own consumers. The bare-ring rows are\n\
    the floor: slots and two positions, which know no closing, no gates and no stages.",
    after_long_help = crate::scenario::gallery(PEERS)
)]
pub struct PeersArgs {
    /// One or more of spsc, mpsc-1, mpsc-2, mpsc (both), fanout, pipeline, diamond, ping-pong, idle-wake
    #[arg(required = true, value_enum, hide_possible_values = true)]
    pub scenarios: Vec<Scenario>,
    /// Rivals: all, none, or some of crossbeam,rtrb,disruptor,kanal,flume,std; native adds the
    /// channels' own blocking calls, disruptor-poll its event poller
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pub with: Vec<String>,
    /// Under a minute: five short rounds
    #[arg(long)]
    pub quick: bool,
    /// Rounds a contender [default: 7, quick 5]
    #[arg(long)]
    pub rounds: Option<usize>,
    /// Length of a round [default: 250ms, quick 50ms]
    #[arg(long, value_parser = quantity::duration)]
    pub duration: Option<Duration>,
    /// Slots, by commas
    #[arg(long, value_delimiter = ',', value_parser = quantity::capacity, default_value = "256,1024,8192,65536")]
    pub capacity: Vec<usize>,
    /// Bytes a message, by commas: 8, 64, 256
    #[arg(long, value_delimiter = ',', value_parser = quantity::count, default_value = "8")]
    pub payload: Vec<u64>,
    /// Messages published at once in the batch rows; 1 leaves the batch rows out
    #[arg(long, default_value_t = 64)]
    pub batch: usize,
    /// Which rows to measure
    #[arg(long, value_enum, default_value_t = Mode::Both)]
    pub mode: Mode,
    /// Class of waiting [default: spin while each thread has a core, else yield]
    #[arg(long, value_enum)]
    pub wait: Option<WaitClass>,
    /// Cores of producers and consumers, such as p=0,c=1, or none
    #[arg(long)]
    pub pin: Option<PinPlan>,
    /// Silence before each event of idle-wake
    #[arg(long, value_parser = quantity::duration, default_value = "1ms")]
    pub silence: Duration,
    /// The jar of LMAX's Java Disruptor: adds it as a row of spsc and mpsc (needs a JDK)
    #[arg(long, value_name = "FILE")]
    pub jar: Option<PathBuf>,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Which rows `peers` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Published and read one by one
    OneByOne,
    /// Published in batches
    Batch,
    /// Both
    Both,
}

/// The scenarios that `peers` measures.
pub const PEERS: &[Scenario] = &[
    Scenario::Spsc,
    Scenario::MpscOne,
    Scenario::MpscTwo,
    Scenario::Fanout,
    Scenario::Pipeline,
    Scenario::Diamond,
    Scenario::PingPong,
    Scenario::IdleWake,
];
