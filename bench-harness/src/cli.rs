//! The command line. Its help is part of the product.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::assertion::Assertions;
use crate::growth::GrowthArgs;
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
    /// Many topics in which nothing happens: their memory, and the processor time they take
    Idle(IdleArgs),
    /// Measure what our ways of waiting cost: latency, throughput, an idle ring, the heavy fence
    Waits(WaitsArgs),
    /// The journal against bare writes and reads of the same bytes on the same disk
    Journal(JournalArgs),
    /// Consume, transform, produce: exactly once against at least once, on one disk
    Transform(TransformArgs),
    /// How costs grow with topics, partitions, members, groups and segments
    Growth(GrowthArgs),
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

impl Command {
    /// Where its results go, if it makes some.
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
    /// One or more of spsc, mpsc-1, mpsc-2, mpsc (both), fanout, pipeline, diamond, ping-pong, idle-wake,
    /// topic, topic-multi (against the bare ring), message (against a channel of vectors)
    #[arg(required = true, value_parser = peers_scenario)]
    pub scenarios: Vec<Scenario>,
    /// Rivals: all, none, or some of crossbeam,rtrb,disruptor,kanal,flume,std; native adds the
    /// channels' own blocking calls
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

/// Options of `idle`.
#[derive(Debug, Args)]
pub struct IdleArgs {
    /// How many topics
    #[arg(long, default_value_t = 1000)]
    pub topics: usize,
    /// Partitions of each
    #[arg(long, default_value_t = 4)]
    pub partitions: usize,
    /// Slots of each partition
    #[arg(long, default_value_t = 1024)]
    pub capacity: usize,
    /// How long nothing happens
    #[arg(long, value_parser = quantity::duration, default_value = "5s")]
    pub duration: Duration,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Options of `transform`.
#[derive(Debug, Args)]
pub struct TransformArgs {
    /// Where the journal is made: the disk that is measured
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// Messages of each round
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub messages: u64,
    /// Messages of a batch
    #[arg(long, default_value_t = 256)]
    pub batch: usize,
    /// Slots of each topic
    #[arg(long, value_parser = quantity::capacity, default_value = "8192")]
    pub capacity: usize,
    /// How often each is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Options of `journal`.
#[derive(Debug, Args)]
pub struct JournalArgs {
    /// Where the files are made: the disk that is measured
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// MiB that each round writes
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub megabytes: u64,
    /// Messages in a frame and in a sync
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub group: u64,
    /// How often each is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// Leave out what is measured in bytes a second
    #[arg(long)]
    pub no_throughput: bool,
    /// Messages a second while the time of each publish is taken; 0 leaves that out
    #[arg(long, default_value_t = 500_000)]
    pub rate: u64,
    /// GiB of an engine whose opening is timed; 0 leaves that out
    #[arg(long, default_value_t = 0)]
    pub open_gib: u64,
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
    Scenario::Topic,
    Scenario::TopicMulti,
    Scenario::Group,
    Scenario::Message,
];

/// A scenario that `peers` measures.
fn peers_scenario(name: &str) -> Result<Scenario, String> {
    scenario_of(name, |scenario| scenario == Scenario::Mpsc || PEERS.contains(&scenario), "peers")
}

/// A scenario that `run` measures.
fn run_scenario(name: &str) -> Result<Scenario, String> {
    scenario_of(name, |_| true, "run")
}

/// The scenario of that name; what can't be measured yet is told by the command, with what it waits for.
fn scenario_of(name: &str, takes: impl Fn(Scenario) -> bool, command: &str) -> Result<Scenario, String> {
    match Scenario::from_str(name, false) {
        Ok(scenario) if takes(scenario) => Ok(scenario),
        found => {
            let names: Vec<_> = Scenario::value_variants()
                .iter()
                .filter(|scenario| takes(**scenario) && scenario.awaits().is_none())
                .map(|scenario| scenario.name())
                .collect();
            let why = if found.is_ok_and(|scenario| scenario.awaits().is_none()) {
                "no rival does it, use run; "
            } else {
                ""
            };
            Err(format!("{why}{command} measures {}", names.join(", ")))
        }
    }
}

/// How a producer paces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Loop {
    /// By a schedule; latency counts from the intended time
    Open,
    /// The next message only after the last one arrived; hides waiting
    Closed,
    /// One after the other, to see what closed loop hides
    Both,
}

/// What a producer does when the ring is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Full {
    /// Wait for room
    Block,
    /// Drop the message and count it
    Drop,
}

/// What is measured, for `run` and `sweep`.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// The scenario
    #[arg(value_parser = run_scenario)]
    pub scenario: Scenario,
    /// Messages a second, all producers together: 100k/s, 1M/s, max
    #[arg(long, default_value = "1M/s")]
    pub rate: Rate,
    /// Pattern of arrivals: fixed, poisson, burst:N@T, trace:FILE
    #[arg(long, default_value = "fixed")]
    pub arrival: Arrival,
    /// Measured time of a run
    #[arg(long, value_parser = quantity::duration, default_value = "2s")]
    pub duration: Duration,
    /// Time before it that is not recorded
    #[arg(long, value_parser = quantity::duration, default_value = "200ms")]
    pub warmup: Duration,
    /// Runs; figures are of all runs together, the spread between runs is shown
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    /// Bytes a message: 32, 64, 128, 256
    #[arg(long, value_parser = quantity::count, default_value = "32")]
    pub payload: u64,
    /// Publishing threads (more than one takes the multi-producer ring) [default: by scenario]
    #[arg(long)]
    pub producers: Option<usize>,
    /// Consuming threads of fanout and work-sharing [default: 2]
    #[arg(long)]
    pub consumers: Option<usize>,
    /// Slots
    #[arg(long, value_parser = quantity::capacity, default_value = "8192")]
    pub capacity: usize,
    /// Messages published at once
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    /// How consumers wait: busy-spin, spin, spin-yield, backoff, spin-then-park, with settings by commas such as
    /// spin-then-park,pause=0,spins=2000,yields=20
    /// [default: spin while each thread has a core, else spin-yield]
    #[arg(long)]
    pub wait: Option<String>,
    /// What producers do when the ring is full
    #[arg(long, value_enum, default_value_t = Full::Block)]
    pub full: Full,
    /// Cores of producers and consumers, such as p=0,c=1, or none
    #[arg(long)]
    pub pin: Option<PinPlan>,
    /// Shorter: one run of half a second
    #[arg(long)]
    pub quick: bool,
    /// Hold a consumer up on purpose, such as 5ms@100ms: to see what a stall looks like
    #[arg(long, value_name = "TIME@EVERY")]
    pub stall: Option<Stall>,
}

/// A stall put into a consumer on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// How long it lasts.
    pub time: Duration,
    /// From one to the next.
    pub every: Duration,
}

impl std::str::FromStr for Stall {
    type Err = quantity::BadQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (time, every) = text.split_once('@').unwrap_or((text, "100ms"));
        Ok(Self { time: quantity::duration(time)?, every: quantity::duration(every)? })
    }
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
#[command(
    long_about = "Measure the latency of one scenario on our ring.\n\n\
    Open loop by default: every message has an intended time, and its latency counts from there,\n\
    so that a stall is seen by every message that had to wait for it. A run that missed its rate\n\
    is INVALID, not slow. Beside the latencies stand the hiccups of the same cores with nothing\n\
    running on them, and the cost of the harness itself.",
    after_long_help = crate::scenario::gallery(RUN)
)]
pub struct RunArgs {
    /// What is measured.
    #[command(flatten)]
    pub load: LoadArgs,
    /// How the producer paces itself
    #[arg(long = "loop", value_enum, default_value_t = Loop::Open)]
    pub pace: Loop,
    /// Show percentiles, rate and lag as they move
    #[arg(long)]
    pub live: bool,
    /// Conditions for exit code 0, such as 'p99<2us,p99.9<20us,drops=0'
    #[arg(long)]
    pub assert: Option<Assertions>,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The scenarios that `run` draws in its help.
pub const RUN: &[Scenario] = &[
    Scenario::Spsc,
    Scenario::Mpsc,
    Scenario::Fanout,
    Scenario::Pipeline,
    Scenario::Diamond,
    Scenario::WorkSharing,
    Scenario::PingPong,
    Scenario::IdleWake,
    Scenario::Topic,
    Scenario::Group,
    Scenario::Journal,
    Scenario::Transform,
];

/// Options of `waits`.
#[derive(Clone, Debug, Args)]
#[command(long_about = "Measure what our ways of waiting cost.\n\n\
    latency: open loop, fixed and Poisson, the default consumer against one that only spins and\n\
    never pauses. park: throughput of a consumer that may sleep but never does, against one that\n\
    can't. idle: the processor time of 8 sleeping consumers on an idle ring. heavy: a producer's\n\
    throughput while another thread issues heavy fences. Rounds of both sides take turns; ratios\n\
    are over paired rounds, with a 95 % bootstrap interval.")]
pub struct WaitsArgs {
    /// What to measure, by commas
    #[arg(value_enum, value_delimiter = ',', default_values_t = [WaitPart::Latency, WaitPart::Park, WaitPart::Idle, WaitPart::Heavy])]
    pub parts: Vec<WaitPart>,
    /// Rates of the open loop, by commas
    #[arg(long, value_delimiter = ',', value_parser = quantity::count, default_value = "100k,1M,2M,5M,10M")]
    pub rates: Vec<u64>,
    /// How our consumer waits, with settings by commas as in `run --wait`
    #[arg(long, default_value = "spin-then-park")]
    pub wait: String,
    /// How the one waits that it is held against in the open loop
    #[arg(long, default_value = "spin,pause=0")]
    pub against: String,
    /// Rounds a side
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// Length of a round
    #[arg(long, value_parser = quantity::duration, default_value = "200ms")]
    pub duration: Duration,
    /// Slots
    #[arg(long, value_parser = quantity::capacity, default_value = "8192")]
    pub capacity: usize,
    /// Cores of the producer and the consumer, such as p=0,c=1, or none
    #[arg(long)]
    pub pin: Option<PinPlan>,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A part of `waits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WaitPart {
    /// The default consumer against one that only spins, in open loop
    Latency,
    /// A consumer that may sleep but never does, against one that can't
    Park,
    /// 8 sleeping consumers on an idle ring
    Idle,
    /// A running producer under heavy fences
    Heavy,
}

/// Options of `sweep`.
#[derive(Clone, Debug, Args)]
#[command(long_about = "Walk a scenario over rates, capacities or payloads.\n\n\
    Over rates it draws latency against load and finds the knee: the highest rate that was\n\
    reached with a p99 of at most ten times the lowest p99 of the walk.")]
pub struct SweepArgs {
    /// The scenario
    #[arg(value_parser = run_scenario)]
    pub scenario: Scenario,
    /// Rates to walk: 100k..50M:log, or the one rate of another walk
    #[arg(long, default_value = "100k..20M:log")]
    pub rate: Steps,
    /// Capacities to walk: 256..1M:log
    #[arg(long)]
    pub capacity: Option<Steps>,
    /// Payloads to walk: 32,64,128,256
    #[arg(long)]
    pub payload: Option<Steps>,
    /// Pattern of arrivals: fixed, poisson, burst:N@T, trace:FILE
    #[arg(long, default_value = "fixed")]
    pub arrival: Arrival,
    /// Measured time of a point
    #[arg(long, value_parser = quantity::duration, default_value = "1s")]
    pub duration: Duration,
    /// How consumers wait
    #[arg(long)]
    pub wait: Option<String>,
    /// Cores of producers and consumers, such as p=0,c=1, or none
    #[arg(long)]
    pub pin: Option<PinPlan>,
    /// Shorter: a fifth of a second a point
    #[arg(long)]
    pub quick: bool,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Options of `compare`.
#[derive(Clone, Debug, Args)]
#[command(long_about = "Compare two results, or two builds of this program.\n\n\
    BASE and NEW are each a result directory, its run.json or peers.json, the name of a saved\n\
    baseline, or a bench-harness binary. Two binaries are run in turn (A B, B A, ...) with the\n\
    arguments after --, for example:\n\n\
    bench-harness compare ./old ./new --rounds 7 -- spsc --rate 1M/s --duration 500ms\n\n\
    A verdict needs the whole 95 % bootstrap interval on one side of no change.")]
pub struct CompareArgs {
    /// What was
    pub base: String,
    /// What is
    pub new: String,
    /// Rounds of two binaries
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Exit with 1 if this got worse by more: 'p99>5%', 'p50>10%,rate>3%'
    #[arg(long)]
    pub fail_on: Option<String>,
    /// Changes smaller than this are no change
    #[arg(long, default_value = "2%")]
    pub margin: String,
    /// Compare results of different machines all the same
    #[arg(long)]
    pub force: bool,
    /// Directory of the baselines
    #[arg(long, env = "BENCH_HARNESS_STORE")]
    pub store: Option<PathBuf>,
    /// What both binaries run, as after `run`
    #[arg(last = true)]
    pub work: Vec<String>,
}

/// Options of `baseline`.
#[derive(Debug, Args)]
pub struct BaselineArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: BaselineAction,
    /// Directory of the baselines [default: bench-harness/baselines in the user's data directory]
    #[arg(long, env = "BENCH_HARNESS_STORE", global = true)]
    pub store: Option<PathBuf>,
}

/// What to do with baselines.
#[derive(Debug, Subcommand)]
pub enum BaselineAction {
    /// Keep the result in DIR under a name
    Save {
        /// The name
        name: String,
        /// A directory with run.json or peers.json
        dir: PathBuf,
    },
    /// List them
    Ls,
    /// Remove one
    Rm {
        /// The name
        name: String,
    },
}

/// Options of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A directory with run.json, peers.json, sweep.json or growth.json
    pub dir: PathBuf,
    /// What to write, by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Format::Text, Format::Html])]
    pub format: Vec<Format>,
}
