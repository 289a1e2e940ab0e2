//! `waits`: what our wait strategies cost, measured side by side.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use slipring_ring::{Builder, Stage, Wait, fence};

use crate::cli::{Format, OutputArgs};
use crate::environment::{Environment, command_line};
use crate::failure::Failure;
use crate::output::Output;
use crate::peers::link::{StartLine, join};
use crate::pin::PinPlan;
use crate::progress::Progress;
use crate::quantity::{per_second, three};
use crate::run::measure::open_loop;
use crate::run::schedule::Arrival;
use crate::system::process_time;
use crate::{quantity, statistics, wait_spec};

/// What `--help` says first.
pub const HELP: &str = "Measure what our ways of waiting cost.\n\n\
    latency: open loop, fixed and Poisson, the default consumer against one that only spins and\n\
    never pauses. park: throughput of a consumer that may sleep but never does, against one that\n\
    can't. idle: the processor time of 8 sleeping consumers on an idle ring. heavy: a producer's\n\
    throughput while another thread issues heavy fences. Rounds of both sides take turns; ratios\n\
    are over paired rounds, with a 95 % bootstrap interval.";

/// Options of `waits`.
#[derive(Clone, Debug, Args)]
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
    /// How the consumer waits that ours is compared with in the open loop
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

/// The result of `waits`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct WaitsDocument {
    version: u32,
    environment: Environment,
    command: String,
    rows: Vec<Row>,
}

/// A figure of our side, and of the side that it is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    /// The part of `waits`, and what it measured.
    what: String,
    unit: String,
    /// Median, lowest and highest round; `None` if no round reached its rate.
    ours: Option<[f64; 3]>,
    /// Median, lowest and highest round of the other side; `None` if there is no other side, or if no round reached its
    /// rate.
    other: Option<[f64; 3]>,
    /// The median of ours divided by the other's over paired rounds, and the ends of its 95 % interval; `None` as
    /// `other`.
    ratio: Option<[f64; 3]>,
    /// Count of the rounds that reached their rate, and of all rounds.
    valid: [usize; 2],
}

impl Row {
    fn new(what: String, unit: &str, ours: &[f64], other: &[f64]) -> Self {
        let spread = |values: &[f64]| statistics::spread(values).map(|it| [it.median, it.min, it.max]);
        Self {
            what,
            unit: unit.to_owned(),
            ours: spread(ours),
            other: spread(other),
            ratio: statistics::paired_ratio(ours, other).map(|it| [it.median, it.low, it.high]),
            valid: [ours.len(), ours.len()],
        }
    }
}

/// Runs `waits`.
///
/// # Errors
///
/// [`Failure`]: usage, files, or wrong values on arrival.
pub fn command(arguments: &WaitsArgs) -> Result<(), Failure> {
    if arguments.rounds == 0 || arguments.duration.is_zero() {
        return Err(Failure::usage("--rounds and --duration are more than 0"));
    }
    for wait in [&arguments.wait, &arguments.against] {
        wait_spec::parse(wait).map_err(Failure::usage)?;
    }
    let environment = Environment::capture();
    let progress = Progress::new();
    let pins = PinPlan::given_or_spread(arguments.pin.as_ref(), &environment.allowed, 1);
    let mut rows = Vec::new();
    for part in &arguments.parts {
        match part {
            WaitPart::Latency => latency(arguments, &pins, &progress, &mut rows)?,
            WaitPart::Park => park(arguments, &pins, &mut rows)?,
            WaitPart::Idle => rows.push(idle(arguments)?),
            WaitPart::Heavy => heavy(arguments, &pins, &mut rows)?,
        }
    }
    progress.end();
    let document = WaitsDocument { version: 1, environment, command: command_line(), rows };
    let mut output = Output::new(&arguments.output, "waits");
    if output.wants(Format::Text) {
        let text = render(&document);
        println!("{text}");
        output.write("waits.txt", &text)?;
    }
    if output.wants(Format::Json) {
        output.json("waits.json", &document)?;
    }
    output.announce();
    Ok(())
}

fn latency(arguments: &WaitsArgs, pins: &PinPlan, progress: &Progress, rows: &mut Vec<Row>) -> Result<(), Failure> {
    // By default a consumer that parks and pauses, and one that polls without a pause.
    let sides = [&arguments.wait, &arguments.against];
    for arrival in [Arrival::Fixed, Arrival::Poisson] {
        for rate in &arguments.rates {
            let mut found = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
            let mut reached = 0;
            for round in 0..arguments.rounds {
                progress.say(&format!("{arrival} {} round {}", per_second(*rate as f64), round + 1));
                let mut both = [None, None];
                for turn in 0..2 {
                    let side = (turn + round) % 2;
                    let load = (&arrival, *rate as f64);
                    let (percentiles, valid) =
                        open_loop(sides[side], load, arguments.capacity, arguments.duration, pins)?;
                    both[side] = percentiles.p50.zip(percentiles.p99).filter(|_| valid);
                    // Linux stops real-time threads that have used a core for 95 % of a second, so each run is followed
                    // by a pause.
                    std::thread::sleep(arguments.duration / 5);
                }
                // A round counts only if both wait strategies have valid figures: the row shows how they differ.
                if let [Some(ours), Some(other)] = both {
                    reached += 1;
                    for (side, (p50, p99)) in [ours, other].into_iter().enumerate() {
                        found[side][0].push(p50 as f64);
                        found[side][1].push(p99 as f64);
                    }
                }
            }
            for (index, name) in ["p50", "p99"].into_iter().enumerate() {
                let what = format!("latency {arrival} {} {name}", per_second(*rate as f64));
                let mut row = Row::new(what, "ns", &found[0][index], &found[1][index]);
                row.valid = [reached, arguments.rounds];
                rows.push(row);
            }
        }
    }
    Ok(())
}

/// Million events a second of one producer and one consumer that waits by `wait`, published one by one.
fn stream(wait: &Wait, arguments: &WaitsArgs, pins: &PinPlan, each: u64) -> Result<f64, Failure> {
    let mut builder = Builder::single(arguments.capacity, u64::default);
    builder.poll(Stage::new("reader").wait(wait.clone()));
    let refused = |error: String| Failure::Invalid(format!("the ring was refused: {error}"));
    let (mut producer, ring) = builder.build().map_err(|error| refused(error.to_string()))?;
    producer.set_wait(Wait::spin());
    let mut consumer = ring.consumer("reader").map_err(|error| refused(error.to_string()))?;
    let line = StartLine::new(2);
    let (there, core) = (Arc::clone(&line), pins.producer(0));
    let sending = std::thread::spawn(move || {
        there.take_place(core).then(|| {
            let begun = Instant::now();
            (0..each).for_each(|number| drop(producer.publish(|event| *event = number)));
            begun
        })
    });
    let (there, core) = (Arc::clone(&line), pins.consumer(0));
    let reading = std::thread::spawn(move || {
        there.take_place(core).then(|| {
            let (mut sum, mut left) = (0u64, each);
            while left > 0 {
                let Ok(mut batch) = consumer.poll_wait(left as usize) else { break };
                left -= batch.len() as u64;
                sum = (&mut batch).into_iter().fold(sum, |sum, (_, event)| sum.wrapping_add(*event));
            }
            (Instant::now(), sum)
        })
    });
    let failed = |_| Failure::Invalid("a thread could not be pinned or panicked".to_owned());
    let begun = join(sending).map_err(failed)?;
    let read = join(reading).map_err(failed)?;
    let (Some(begun), Some((ended, sum))) = (begun, read) else { return Err(Failure::Invalid(line.reason())) };
    if sum != (u128::from(each) * u128::from(each - 1) / 2) as u64 {
        return Err(Failure::Invalid("the sum of what arrived is wrong".to_owned()));
    }
    Ok(each as f64 / (ended - begun).as_secs_f64() / 1e6)
}

fn park(arguments: &WaitsArgs, pins: &PinPlan, rows: &mut Vec<Row>) -> Result<(), Failure> {
    let sides = [wait_spec::parse(&arguments.wait).map_err(Failure::usage)?.spin_for(Duration::MAX), Wait::spin()];
    let mut each = 100_000;
    let rate = stream(&sides[1], arguments, pins, each)?;
    each = ((rate * 1e6 * arguments.duration.as_secs_f64()) as u64).max(1_000);
    let mut found = [Vec::new(), Vec::new()];
    for round in 0..arguments.rounds {
        for turn in 0..2 {
            let side = (turn + round) % 2;
            found[side].push(stream(&sides[side], arguments, pins, each)?);
        }
    }
    rows.push(Row::new("park: may sleep but never does, against can't".to_owned(), "M/s", &found[0], &found[1]));
    Ok(())
}

const SLEEPERS: usize = 8;

fn idle(arguments: &WaitsArgs) -> Result<Row, Failure> {
    let refused = |error: String| Failure::Invalid(format!("the ring was refused: {error}"));
    let mut builder = Builder::single(arguments.capacity, u64::default);
    for index in 0..SLEEPERS {
        builder.poll(Stage::new(format!("sleeper{index}")));
    }
    let (producer, ring) = builder.build().map_err(|error| refused(error.to_string()))?;
    let mut sleepers = Vec::new();
    for index in 0..SLEEPERS {
        let mut consumer = ring.consumer(&format!("sleeper{index}")).map_err(|error| refused(error.to_string()))?;
        sleepers.push(std::thread::spawn(move || while consumer.poll_wait(64).is_ok_and(|batch| !batch.is_empty()) {}));
    }
    // Gives the consumers time to fall asleep.
    std::thread::sleep(Duration::from_millis(100));
    let mut found = Vec::new();
    for _ in 0..arguments.rounds {
        let (begun, before) = (Instant::now(), process_time());
        std::thread::sleep(arguments.duration.max(Duration::from_millis(100)));
        if let (Some(before), Some(after)) = (before, process_time()) {
            found.push((after - before).as_secs_f64() * 1e6 / begun.elapsed().as_secs_f64());
        }
    }
    drop(producer);
    for sleeper in sleepers {
        join(sleeper).map_err(|_| Failure::Invalid("a consumer panicked".to_owned()))?;
    }
    Ok(Row::new(format!("idle: {SLEEPERS} sleeping consumers, processor time a second"), "us", &found, &[]))
}

/// Million events a second of a producer without readers, and the count of heavy fences a second that another thread
/// issued meanwhile: one each `every`, or none if that is `None`.
fn under_fences(every: Option<Duration>, arguments: &WaitsArgs, pins: &PinPlan) -> Result<(f64, f64), Failure> {
    let (mut producer, _ring) = Builder::single(arguments.capacity, u64::default)
        .build()
        .map_err(|error| Failure::Invalid(format!("the ring was refused: {error}")))?;
    let over = Arc::new(AtomicBool::new(false));
    let line = StartLine::new(2);
    let (there, done, core) = (Arc::clone(&line), Arc::clone(&over), pins.consumer(0));
    let fencing = std::thread::spawn(move || {
        there.take_place(core).then(|| {
            let (mut fences, mut due) = (0u64, Instant::now());
            while !done.load(Ordering::Relaxed) {
                match every {
                    Some(every) if Instant::now() >= due => {
                        if fence::heavy().is_err() {
                            break;
                        }
                        fences += 1;
                        due += every;
                    }
                    _ => std::hint::spin_loop(),
                }
            }
            fences
        })
    });
    let (there, core, duration) = (Arc::clone(&line), pins.producer(0), arguments.duration);
    let sending = std::thread::spawn(move || {
        there.take_place(core).then(|| {
            let (begun, mut sent) = (Instant::now(), 0u64);
            while begun.elapsed() < duration {
                for number in 0..4_096 {
                    let _ = producer.publish(|event| *event = number);
                }
                sent += 4_096;
            }
            (sent as f64 / begun.elapsed().as_secs_f64() / 1e6, begun.elapsed())
        })
    });
    let sent = join(sending);
    over.store(true, Ordering::Relaxed);
    let failed = |_| Failure::Invalid("a thread could not be pinned or panicked".to_owned());
    let (sent, fences) = (sent.map_err(failed)?, join(fencing).map_err(failed)?);
    let (Some((rate, elapsed)), Some(fences)) = (sent, fences) else { return Err(Failure::Invalid(line.reason())) };
    Ok((rate, fences as f64 / elapsed.as_secs_f64()))
}

fn heavy(arguments: &WaitsArgs, pins: &PinPlan, rows: &mut Vec<Row>) -> Result<(), Failure> {
    let paces = [Duration::from_millis(1), Duration::from_micros(100), Duration::from_micros(10), Duration::ZERO];
    let mut found: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); paces.len()];
    let mut quiet = Vec::new();
    for _ in 0..arguments.rounds {
        quiet.push(under_fences(None, arguments, pins)?.0);
        for (pace, (rates, fences)) in paces.iter().zip(&mut found) {
            let (rate, made) = under_fences(Some(*pace), arguments, pins)?;
            rates.push(rate);
            fences.push(made);
        }
    }
    for (rates, fences) in &found {
        let made = per_second(statistics::median(fences).unwrap_or(0.0));
        rows.push(Row::new(format!("heavy: publishing under {made} heavy fences"), "M/s", rates, &quiet));
    }
    Ok(())
}

fn render(document: &WaitsDocument) -> String {
    let mut text = format!("{}\n\n", document.environment.headline());
    let side = |it: &[f64; 3]| format!("{} [{}..{}]", three(it[0]), three(it[1]), three(it[2]));
    let _ = writeln!(text, "{:<48} {:>4} {:>28} {:>28} {:>24}", "", "", "ours", "without", "ratio, 95 %");
    for row in &document.rows {
        let [ours, other] = [row.ours, row.other].map(|it| it.as_ref().map_or_else(String::new, side));
        let ratio = row.ratio.map_or_else(String::new, |it| format!("{:.2}x in {:.2}..{:.2}", it[0], it[1], it[2]));
        let missed = match row.valid {
            [reached, rounds] if reached < rounds => format!("  rate reached in {reached} of {rounds} rounds"),
            _ => String::new(),
        };
        let _ = writeln!(text, "{:<48} {:>4} {ours:>28} {other:>28} {ratio:>24}{missed}", row.what, row.unit);
    }
    let _ = writeln!(text, "\n{}", document.command);
    text
}
