//! Moves a real exchange feed through dependent consumers over Slipring.
//!
//! ```text
//! orders --> book --> depth
//!             |  `--> signal
//!             `--> quotes --> tape
//! ```
//!
//! Topic `orders` carries every row of the feed. Stage `book` rebuilds the order-by-order book and
//! writes best bid and offer into topic `quotes`; `depth` and `signal` run behind `book`; `tape`
//! reads the quotes. Each counts what it lost or received twice, by the row's own number.
//!
//! ```text
//! cargo run --release --example order_book
//! cargo run --release --example order_book -- --speed 100x --wait backoff --json run.json
//! cargo run --release --example order_book -- --journal rows     # kill it, run it again: the same end
//! cargo run --release --example order_book -- --speed 100x --share best-prices   # and another process reads the prices
//! ```
//!
//! It is a book feed, not order entry: nothing here matches orders as an exchange does.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use slipring::Wait;

pub mod book;
pub mod decimal;
pub mod feed;
pub mod fetch;
pub mod journal;
pub mod order;
pub mod run;
pub mod share;
pub mod stages;
pub mod station;
pub mod stats;

use feed::Feed;
use run::{Pin, Plan, Speed};
use stats::Known;

/// Exit codes.
pub const SOUND: u8 = 0;
/// The run failed, or something that must hold does not.
pub const FAILED: u8 = 1;
/// The feed or an argument is bad. Nothing ran.
pub const BAD_INPUT: u8 = 2;

/// Feeds whose figures are known, and must come out so in every run.
pub const KNOWN: [Known; 2] = [
    Known {
        name: "the real feed",
        fingerprint: 0x649c_3d4c_561e_a653,
        events: 314_057,
        batches: 168_656,
        state_hash: 0xdacf_e1d0_f46d_9465,
    },
    Known {
        name: "the small fixture",
        fingerprint: 0xe6f0_d3a7_2191_51e5,
        events: 2_002,
        batches: 1_558,
        state_hash: 0x8a08_5c03_ba11_9cba,
    },
];

/// Rebuild an order book from an exchange feed, over Slipring.
#[derive(Debug, Parser)]
#[command(name = "order_book", version)]
struct Args {
    /// A feed to read instead of the real one: CSV or CSV.GZ with the columns
    /// id,timestamp,exchange_timestamp,price,volume,action,direction
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,

    /// `max`, or the feed's own gaps divided by N, such as `100x`; latency then counts from the
    /// intended time
    #[arg(long, default_value = "max", value_name = "max|Nx", allow_hyphen_values = true)]
    speed: Speed,

    /// How consumers wait for messages, and producers for room
    #[arg(long, default_value = "spin-then-park", value_parser = wait_parser())]
    wait: Wait,

    /// `auto` (pin when there is a core for each thread), `none`, or core ids such as `0,1` for
    /// publisher, book, depth, signal and tape, repeated when they are fewer
    #[arg(long, default_value = "auto", value_name = "auto|none|IDS", allow_hyphen_values = true)]
    pin: Pin,

    /// Slots of each topic's ring: a power of two
    #[arg(long, default_value_t = 4096, value_parser = capacity)]
    capacity: usize,

    /// Print every message that a consumer receives
    #[arg(long)]
    verbose: bool,

    /// Write the figures as JSON; latencies are those to the last stage, in nanoseconds
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Keep the feed's rows in a journal there; a run that was killed goes on behind the last row
    #[arg(long, value_name = "FOLDER")]
    journal: Option<PathBuf>,

    /// Share the best prices with other processes, through a ring in shared memory: see ring/python/examples
    #[arg(long, value_name = "RING")]
    share: Option<String>,

    /// Where to keep the real feed, instead of cargo's target folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "data")]
    cache: Option<PathBuf>,

    /// The Python whose pip fetches the real feed [default: python3, then python]
    #[arg(long, value_name = "PROGRAM", conflicts_with = "data")]
    python: Option<OsString>,

    /// Break something on purpose: panic:STAGE@N panics in STAGE at message N
    #[arg(long, hide = true)]
    fault: Option<run::Fault>,
}

fn wait_parser() -> impl TypedValueParser<Value = Wait> {
    PossibleValuesParser::new(Wait::NAMES).try_map(|name| name.parse::<Wait>())
}

fn capacity(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(capacity @ 1..=1_048_576) if usize::is_power_of_two(capacity) => Ok(capacity),
        _ => Err("not a power of two from 1 to 1048576".into()),
    }
}

/// Where a run writes to: threads share it for `--verbose`.
#[derive(Clone)]
pub struct Output(Arc<Mutex<Box<dyn Write + Send>>>);

impl Output {
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Output(Arc::new(Mutex::new(Box::new(writer))))
    }

    /// # Errors
    /// What the writer says, such as a closed pipe.
    pub fn line(&self, text: std::fmt::Arguments<'_>) -> std::io::Result<()> {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(writer, "{text}")
    }
}

pub fn main() -> ExitCode {
    let stdout = Output::new(std::io::stdout());
    let stderr = Output::new(std::io::stderr());
    let progress = std::io::stderr().is_terminal();
    ExitCode::from(run_cli(std::env::args_os(), &stdout, &stderr, progress))
}

/// The whole program, as a function: what it prints goes to the two outputs, and the exit code comes
/// back.
pub fn run_cli(args: impl IntoIterator<Item = OsString>, stdout: &Output, stderr: &Output, progress: bool) -> u8 {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            let to = if error.use_stderr() { stderr } else { stdout };
            let _ = to.line(format_args!("{}", error.render().to_string().trim_end()));
            return u8::try_from(error.exit_code()).unwrap_or(BAD_INPUT);
        }
    };
    match try_run(args, stdout, stderr, progress) {
        Ok(()) => SOUND,
        // Whoever reads our output has seen enough: `order_book --verbose | head`.
        Err((_, message)) if message.contains("Broken pipe") => 0,
        Err((code, message)) => {
            let _ = stderr.line(format_args!("order_book: {message}"));
            code
        }
    }
}

fn try_run(args: Args, stdout: &Output, stderr: &Output, progress: bool) -> Result<(), (u8, String)> {
    // Seen before the run, not after it.
    let parent = args.json.as_ref().and_then(|path| path.parent());
    if let Some(folder) = parent.filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        return Err((BAD_INPUT, format!("--json: no folder {}", folder.display())));
    }
    if let Some(path) = args.json.as_ref().filter(|path| path.is_dir()) {
        return Err((BAD_INPUT, format!("--json: {} is a folder", path.display())));
    }
    let say = |text: std::fmt::Arguments<'_>| {
        stdout.line(text).map_err(|error| (FAILED, format!("can't write the output: {error}")))
    };
    let (name, feed) = load(&args, stderr).map_err(|error| (BAD_INPUT, error.to_string()))?;
    let known = KNOWN.into_iter().find(|known| known.fingerprint == feed.fingerprint);
    let mut plan =
        Plan::new(args.speed, args.wait, args.pin, args.capacity, args.fault).map_err(|error| (BAD_INPUT, error))?;
    plan.journal = args.journal;
    plan.share = args.share;
    say(format_args!("{name}: {} orders", stats::grouped(feed.orders.len() as u64)))?;
    say(format_args!("{plan}\n"))?;

    let verbose = args.verbose.then_some(stdout);
    let report = run::run(&feed, known, &plan, verbose, progress).map_err(|error| (FAILED, error))?;
    say(format_args!("{}", report.to_string().trim_end()))?;
    if let Some(path) = args.json {
        std::fs::write(&path, report.json()).map_err(|error| (FAILED, format!("{}: {error}", path.display())))?;
    }
    let failures = report.failures();
    if !failures.is_empty() {
        return Err((FAILED, format!("the run is not sound:\n  {}", failures.join("\n  "))));
    }
    match known {
        Some(known) => say(format_args!("\nSound: every figure is as {} must give it.", known.name)),
        None if report.crossed == 0 => say(format_args!("\nSound: nothing lost, repeated or out of order.")),
        None => say(format_args!(
            "\nSound: nothing lost, repeated or out of order. Live orders cross each other: so the feed has it."
        )),
    }
}

fn load(args: &Args, stderr: &Output) -> Result<(String, Feed), feed::FeedError> {
    if let Some(path) = &args.data {
        let feed = feed::read_file(path)?;
        return Ok((path.display().to_string(), feed));
    }
    let mut say = |text: &str| {
        let _ = stderr.line(format_args!("{text}"));
    };
    match fetch::real_feed(args.cache.as_deref(), args.python.as_deref(), &mut say) {
        Ok(path) => Ok(("Real feed (Bitstamp BTC/USD, 2026-05-02, 30 minutes)".into(), feed::read_file(&path)?)),
        Err(error) => {
            say(&format!("The real feed is not to be had: {error}."));
            say("Falling back to the small fixture of this project. It is made up, not a market.");
            let feed = feed::read(fetch::FIXTURE, fetch::FIXTURE_NAME, true)?;
            Ok((format!("Small fixture ({})", fetch::FIXTURE_NAME), feed))
        }
    }
}
