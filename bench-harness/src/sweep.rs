//! `sweep`: a scenario over rates, capacities or payloads, and the knee of the rates.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cli::OutputArgs;
use crate::environment::{Environment, command_line};
use crate::failure::Failure;
use crate::latency::Percentiles;
use crate::output::page::Page;
use crate::output::plot::{self, Axis, Chart, Mark, Scale, Series};
use crate::output::{self, Output, Results};
use crate::pin::PinPlan;
use crate::progress::Progress;
use crate::quantity::{self, Rate, Steps, grouped, nanos, per_second};
use crate::run::load::{Full, LoadArgs, run_scenario};
use crate::run::measure::measure;
use crate::run::render::tick;
use crate::run::schedule::Arrival;
use crate::scenario::Scenario;

/// What `--help` says first.
pub const HELP: &str = "Walk a scenario over rates, capacities or payloads.\n\n\
    Over rates it draws latency against load and finds the knee: the highest rate that was\n\
    reached with a p99 of at most ten times the lowest p99 of the walk.";

/// Options of `sweep`.
#[derive(Clone, Debug, Args)]
pub struct SweepArgs {
    /// One of spsc, mpsc, mpsc-1, mpsc-2, fanout, pipeline, diamond, work-sharing, ping-pong, idle-wake, topic, group
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

/// The knee's p99 is at most this many times the lowest p99.
const KNEE: u64 = 10;

/// The result of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SweepDocument {
    /// Version of this contract.
    pub version: u32,
    /// The scenario.
    pub scenario: String,
    /// The quantity that varies: `rate`, `capacity` or `payload`.
    pub over: String,
    /// The points, in order.
    pub points: Vec<Point>,
    /// The highest rate that was reached with a p99 of at most [`KNEE`] times the lowest one; `None` if no valid point
    /// has a p99, or if another quantity varies.
    pub knee: Option<f64>,
    /// The machine.
    pub environment: Environment,
    /// The command line of the measurement.
    pub command: String,
}

/// A point of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The value of the quantity that varies.
    pub at: f64,
    /// Messages a second.
    pub rate_achieved: f64,
    /// The latencies.
    #[serde(flatten)]
    pub latency: Percentiles,
    /// True if the rate was reached and the values were right.
    pub valid: bool,
    /// Why the figures are usable, or each reason why not.
    pub reason: String,
}

/// Runs `sweep`.
///
/// # Errors
///
/// [`Failure`]: usage or files. A point that misses its rate is no failure.
pub fn command(arguments: &SweepArgs) -> Result<(), Failure> {
    let environment = Environment::capture();
    let progress = Progress::new();
    let (over, values) = match (&arguments.capacity, &arguments.payload) {
        (Some(_), Some(_)) => return Err(Failure::usage("walk over --capacity or --payload, not both")),
        (Some(steps), None) => ("capacity", steps.capacities().into_iter().map(|size| size as f64).collect()),
        (None, Some(steps)) => ("payload", steps.0.clone()),
        (None, None) => ("rate", arguments.rate.0.clone()),
    };
    // A sweep over another quantity has the rate that was given, or a million a second if several rates were given.
    let rate = match arguments.rate.0.as_slice() {
        [one] => *one,
        _ => 1e6,
    };
    let mut document = SweepDocument {
        version: 1,
        scenario: arguments.scenario.name().to_owned(),
        over: over.to_owned(),
        command: command_line(),
        environment: environment.clone(),
        ..SweepDocument::default()
    };
    for value in values {
        let mut load = base(arguments, rate);
        match over {
            "capacity" => load.capacity = value as usize,
            "payload" => load.payload = value as u64,
            _ => load.rate = Rate::PerSecond(value),
        }
        let measured = measure(&load, false, false, &environment, &progress)?.document;
        progress.print(&format!(
            "{} {}: p50 {}, p99 {}, {}",
            over,
            show(over, value),
            measured.latency.p50.map_or_else(|| "n/a".to_owned(), nanos),
            measured.latency.p99.map_or_else(|| "n/a".to_owned(), nanos),
            if measured.valid { "valid" } else { "INVALID" }
        ));
        document.points.push(Point {
            at: value,
            rate_achieved: measured.rate_achieved,
            latency: measured.latency,
            valid: measured.valid,
            reason: measured.reason,
        });
    }
    document.knee = knee(&document);
    let mut output = Output::new(&arguments.output, &format!("sweep-{}-{over}", document.scenario));
    write(&document, &mut output)?;
    output.announce();
    Ok(())
}

fn base(arguments: &SweepArgs, rate: f64) -> LoadArgs {
    LoadArgs {
        scenario: arguments.scenario,
        rate: Rate::PerSecond(rate),
        arrival: arguments.arrival.clone(),
        duration: if arguments.quick { Duration::from_millis(200) } else { arguments.duration },
        warmup: Duration::from_millis(50),
        runs: 1,
        payload: 32,
        producers: None,
        consumers: None,
        capacity: 8_192,
        batch: 1,
        wait: arguments.wait.clone(),
        full: Full::Block,
        pin: arguments.pin.clone(),
        quick: false,
        stall: None,
    }
}

fn knee(document: &SweepDocument) -> Option<f64> {
    if document.over != "rate" {
        return None;
    }
    let usable: Vec<(f64, u64)> = document
        .points
        .iter()
        .filter(|point| point.valid)
        .filter_map(|point| Some((point.at, point.latency.p99?)))
        .collect();
    let lowest = usable.iter().map(|(_, p99)| *p99).min()?;
    usable.iter().filter(|(_, p99)| *p99 <= lowest * KNEE).map(|(at, _)| *at).reduce(f64::max)
}

fn show(over: &str, value: f64) -> String {
    match over {
        "rate" => per_second(value),
        "payload" => format!("{value} bytes"),
        _ => grouped(value as u64),
    }
}

/// Writes a sweep in every format asked for, and prints its table.
///
/// # Errors
///
/// [`Failure::File`].
pub fn write(document: &SweepDocument, output: &mut Output) -> Result<(), Failure> {
    let pictures = |document: &_| vec![("sweep".to_owned(), plot::standalone(&chart(document)))];
    output.results(&Results { document, name: "sweep", text, csv, pictures, page })
}

const HEAD: [&str; 9] = ["at", "achieved", "p50", "p90", "p99", "p99.9", "p99.99", "max", "valid"];

fn cells(document: &SweepDocument, point: &Point) -> Vec<String> {
    let mut cells = vec![show(&document.over, point.at), per_second(point.rate_achieved)];
    cells.extend(point.latency.values().into_iter().map(|value| value.map_or_else(|| "n/a".to_owned(), nanos)));
    cells.push(if point.valid { "yes" } else { "NO" }.to_owned());
    cells
}

fn page(document: &SweepDocument) -> String {
    let title = format!("{}: latency over {}", document.scenario, document.over);
    let mut page = Page::new(&title, &document.environment.headline().replace('\n', " | "));
    page.text(&knee_line(document));
    page.figure(&chart(document));
    let head: Vec<String> = HEAD.iter().map(|head| (*head).to_owned()).collect();
    let rows: Vec<_> = document.points.iter().map(|point| (String::new(), cells(document, point))).collect();
    page.table(&head, &rows);
    page.origin(&document.environment, &document.command);
    page.finish()
}

fn knee_line(document: &SweepDocument) -> String {
    match (document.over.as_str(), document.knee) {
        ("rate", Some(knee)) => format!(
            "the knee: {} (the highest rate that was reached with a p99 of at most {KNEE} times the lowest)",
            per_second(knee)
        ),
        ("rate", None) => "no knee: no point is valid".to_owned(),
        _ => format!("latency over {}", document.over),
    }
}

fn text(document: &SweepDocument) -> String {
    let mut text = format!("{}\n\n{} over {}\n", document.environment.headline(), document.scenario, document.over);
    for head in HEAD {
        let _ = write!(text, "{head:>12}");
    }
    text.push('\n');
    for point in &document.points {
        for cell in cells(document, point) {
            let _ = write!(text, "{cell:>12}");
        }
        text.push('\n');
    }
    let _ = writeln!(text, "\n{}\n{}", knee_line(document), document.command);
    text
}

fn csv(document: &SweepDocument) -> String {
    let titles = [&document.over, "rate_achieved", "count", "p50", "p90", "p99", "p999", "p9999", "max", "valid"];
    output::csv(&titles, document.points.iter().map(|it| (it.at, it.rate_achieved, it.latency, it.valid)))
}

fn chart(document: &SweepDocument) -> String {
    let kinds = [("p50", 0, 0), ("p99", 2, 1), ("p99.9", 3, 3), ("max", 5, 4)];
    let mut series = Vec::new();
    for (name, index, colour) in kinds {
        let points = |valid: bool| -> Vec<(f64, f64)> {
            document
                .points
                .iter()
                .filter(|point| !valid || point.valid)
                .filter_map(|point| Some((point.at, point.latency.values()[index]? as f64)))
                .collect()
        };
        // Only valid points have dots: a line without a dot marks a rate that was missed, or wrong values.
        series.push(Series { name: name.to_owned(), colour, mark: Mark::Line, points: points(false) });
        series.push(Series { name: String::new(), colour, mark: Mark::Dots, points: points(true) });
    }
    let values = || series.iter().flat_map(|series| series.points.iter());
    let x = Axis::over(&document.over, Scale::Log, values().map(|point| point.0), |value| show(&document.over, value));
    let y = Axis::over("latency", Scale::Log, values().map(|point| point.1), tick);
    Chart {
        title: format!("{}: latency over {}", document.scenario, document.over),
        note: format!("{}; no dot: the rate was missed", knee_line(document)),
        height: 440.0,
        x,
        y,
        series,
    }
    .svg()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: f64, p99: u64, valid: bool) -> Point {
        let latency = Percentiles { p99: Some(p99), ..Percentiles::default() };
        Point { at, latency, valid, ..Point::default() }
    }

    #[test]
    fn the_knee_is_the_last_good_rate() {
        let mut document = SweepDocument { over: "rate".to_owned(), ..SweepDocument::default() };
        assert_eq!(knee(&document), None);
        document.points = vec![
            point(1e5, 500, true),
            point(1e6, 900, true),
            point(5e6, 4_000, true),
            point(1e7, 90_000, true),
            point(2e7, 600, false),
        ];
        assert_eq!(knee(&document), Some(5e6));
    }
}
