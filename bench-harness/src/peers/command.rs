//! The command `peers`: its options, and the plan that they make.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::WaitClass;
use super::contender::{GROUPS, WORDS};
use super::plan::Plan;
#[cfg(target_os = "linux")]
use super::second::Janitor;
use super::{java, render};
use crate::cli::OutputArgs;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output::Output;
use crate::pin::PinPlan;
use crate::progress::Progress;
use crate::quantity;
use crate::scenario::{Scenario, scenario_of};

/// What `--help` says first.
pub const HELP: &str = "Measure our rings, their rivals and the floor in turn.\n\n\
    Every contender gets the same work, cores, capacity, payload and class of waiting. Rounds\n\
    are interleaved (A B C, B C A, ...), every value is verified, and medians stand with their\n\
    lowest and highest round. Ratios are over paired rounds, with a 95 % bootstrap interval.\n\
    N/A stands where a contender's semantics differ.\n\n\
    The scenarios with shared in their names run between processes: this program starts itself\n\
    anew. The rows threads-... are the same work between threads of one process, through the\n\
    shared ring and through the ordinary one. Pipes and sockets have the system's buffers,\n\
    whatever the capacity. iceoryx2 is there in a build with the feature of that name; one of its\n\
    samples holds a message, or a batch.\n\n\
    rtrb+pause is rtrb with the short-batch pause of our own consumers. The bare-ring rows are\n\
    the floor: slots and two positions, which know no closing, no gates and no stages.";

/// Options of `peers`.
#[derive(Debug, Args)]
#[command(after_long_help = crate::scenario::gallery(PEERS))]
pub struct PeersArgs {
    /// One or more of spsc, mpsc-1, mpsc-2, mpsc (both), fanout, pipeline, diamond, ping-pong, idle-wake, open-100k, open-1m,
    /// topic, topic-multi and group (against the bare ring), message (against a channel of vectors); between processes
    /// shared-spsc, shared-mpsc-1, shared-mpsc-2, shared-mpsc-3, shared-ping-pong, or shared for all five
    #[arg(required = true, value_parser = peers_scenario)]
    pub scenarios: Vec<Scenario>,
    /// Rivals: all, none, or some of crossbeam,crossfire,rtrb,disruptor,gil,kanal,nexus,flume,std, and between processes
    /// pipe,socket,iceoryx2; native adds the blocking calls of channels, pipes and sockets
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
    Scenario::OpenSlow,
    Scenario::OpenFast,
    Scenario::Topic,
    Scenario::TopicMulti,
    Scenario::Group,
    Scenario::Message,
    Scenario::SharedSpsc,
    Scenario::SharedMpscOne,
    Scenario::SharedMpscTwo,
    Scenario::SharedMpscThree,
    Scenario::SharedPingPong,
];

/// The scenario of this name, if `peers` measures it. `mpsc` stands for mpsc-1 and mpsc-2, `shared` for all between processes.
fn peers_scenario(name: &str) -> Result<Scenario, String> {
    let several = [Scenario::Mpsc, Scenario::Shared];
    scenario_of(name, |scenario| several.contains(&scenario) || PEERS.contains(&scenario), "peers", "run")
}

/// Runs `peers`.
///
/// # Errors
///
/// [`Failure`]: usage, files, or wrong values on arrival.
pub fn command(arguments: PeersArgs) -> Result<(), Failure> {
    let plan = plan(&arguments)?;
    let label = plan.scenarios.iter().map(|it| it.name()).collect::<Vec<_>>().join("-");
    let compiled = arguments.jar.as_deref().map(java::prepare).transpose()?;
    let mut output = Output::new(&arguments.output, &format!("peers-{label}"));
    #[cfg(target_os = "linux")]
    let _janitor = if plan.scenarios.iter().any(|it| it.is_between_processes()) {
        Some(Janitor::start().map_err(Failure::Invalid)?)
    } else {
        None
    };
    let document = plan.run(Environment::capture(), &Progress::new());
    drop(compiled);
    render::write(&document, &mut output)?;
    output.announce();
    if document.valid() { Ok(()) } else { Err(Failure::Invalid(format!("INVALID: {}", document.faults.join("; ")))) }
}

fn plan(arguments: &PeersArgs) -> Result<Plan, Failure> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    for scenario in &arguments.scenarios {
        match scenario {
            Scenario::Mpsc => scenarios.extend([Scenario::MpscOne, Scenario::MpscTwo]),
            Scenario::Shared => scenarios.extend(Scenario::BETWEEN_PROCESSES),
            known => scenarios.push(*known),
        }
    }
    for name in &arguments.with {
        let extra = name == "native";
        if !extra && !GROUPS.contains(&name.as_str()) {
            return Err(Failure::usage(format!(
                "`{name}` is not known to --with; it takes {}, native",
                GROUPS.join(", ")
            )));
        }
        let is_of_processes = name == "iceoryx2";
        if is_of_processes && cfg!(not(all(feature = "iceoryx2", target_os = "linux"))) {
            return Err(Failure::usage("this build has no iceoryx2: build it on Linux with the feature `iceoryx2`"));
        }
        let is_built = is_of_processes || matches!(name.as_str(), "all" | "none" | "pipe" | "socket");
        if cfg!(not(feature = "rivals")) && !is_built {
            return Err(Failure::usage(format!(
                "this build has no rivals: build it with the feature `rivals` to measure {name}"
            )));
        }
    }
    let words = arguments
        .payload
        .iter()
        .map(|bytes| match *bytes as usize / 8 {
            words if bytes % 8 == 0 && WORDS.contains(&words) => Ok(words),
            _ => Err(Failure::usage(format!("--payload {bytes}: peers knows 8, 64 and 256 bytes"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if arguments.batch == 0 || arguments.rounds == Some(0) {
        return Err(Failure::usage("--batch and --rounds are at least 1"));
    }
    if cfg!(not(target_os = "linux")) && scenarios.iter().any(|it| it.is_between_processes()) {
        return Err(Failure::usage("rings between processes are measured on Linux only, as there are none elsewhere"));
    }
    let smallest = arguments.capacity.iter().copied().min().unwrap_or(1);
    if arguments.mode != Mode::OneByOne && arguments.batch > smallest {
        return Err(Failure::usage(format!("--batch {} does not fit into a capacity of {smallest}", arguments.batch)));
    }
    // disruptor-rs refuses a smaller multi-producer ring.
    if smallest < 64 && scenarios.iter().any(|it| matches!(it, Scenario::MpscOne | Scenario::MpscTwo)) {
        return Err(Failure::usage("mpsc needs a capacity of at least 64: a rival refuses less"));
    }
    let batches = match (arguments.mode, arguments.batch) {
        (Mode::OneByOne, _) | (_, 1) => vec![1],
        (Mode::Batch, batch) => vec![batch],
        (Mode::Both, batch) => vec![1, batch],
    };
    let (rounds, duration) = if arguments.quick { (5, 50) } else { (7, 250) };
    Ok(Plan {
        scenarios,
        with: arguments.with.clone(),
        capacities: arguments.capacity.clone(),
        words,
        batches,
        rounds: arguments.rounds.unwrap_or(rounds),
        duration: arguments.duration.unwrap_or(Duration::from_millis(duration)),
        waiting: arguments.wait,
        pins: arguments.pin.clone(),
        silence: arguments.silence,
    })
}
