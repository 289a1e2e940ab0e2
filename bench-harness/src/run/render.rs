//! The text, the page and the files of `run`.

use std::fmt::Write as _;
use std::time::Duration;

use super::document::RunDocument;
use super::measure::Measured;
use crate::cli::Format;
use crate::failure::Failure;
use crate::latency::Percentiles;
use crate::output::page::Page;
use crate::output::plot::{self, Axis, Chart, Mark, Scale, Series};
use crate::output::{self, Output, Results, histogram_files};
use crate::quantity::{grouped, nanos, per_second};
use crate::statistics;

const HEAD: [&str; 7] = ["", "p50", "p90", "p99", "p99.9", "p99.99", "max"];

/// Writes the formats that need the document alone, and prints its text.
///
/// # Errors
///
/// [`Failure::File`].
pub fn write_document(document: &RunDocument, output: &mut Output) -> Result<(), Failure> {
    let pictures = |document: &_| {
        let charts = charts(document).into_iter();
        charts.map(|(name, chart)| (format!("run-{name}"), plot::standalone(&chart))).collect()
    };
    output.results(&Results { document, name: "run", text, csv, pictures, page })
}

/// Writes all formats that were asked for, also the histograms' own files.
///
/// # Errors
///
/// [`Failure::File`].
pub fn write(measured: &Measured, output: &mut Output) -> Result<(), Failure> {
    write_document(&measured.document, output)?;
    if output.wants(Format::Hgrm) {
        output.write("run.hgrm", &histogram_files::hgrm(&measured.total()))?;
    }
    if output.wants(Format::Hlog) {
        let intervals: Vec<_> = measured.records.iter().flat_map(|record| &record.intervals).collect();
        let each = measured.records.first().map_or(1, |record| record.intervals.len());
        let length = Duration::from_secs_f64(measured.document.setup.seconds / each as f64);
        let comment = format!("{} | {}", measured.document.scenario, measured.document.command);
        let log = histogram_files::hlog(&intervals, length, measured.began, &comment)
            .map_err(|error| Failure::Invalid(format!("run.hlog: {error}")))?;
        output.write("run.hlog", &log)?;
    }
    Ok(())
}

fn cell(value: Option<u64>) -> String {
    value.map_or_else(|| "n/a".to_owned(), nanos)
}

/// The rows of the table: the latencies, those of the closed loop if both loops were measured, and the hiccups.
fn rows(document: &RunDocument) -> Vec<(String, Percentiles)> {
    let name = |document: &RunDocument| match document.setup.pace.as_str() {
        "closed" => "closed loop (hides waiting)".to_owned(),
        _ => "latency".to_owned(),
    };
    let mut rows = vec![(name(document), document.latency)];
    if let Some(closed) = &document.closed {
        rows.push((name(closed), closed.latency));
    }
    rows.push(("hiccup, no ring at all".to_owned(), document.hiccup));
    rows
}

fn verdict(document: &RunDocument) -> &'static str {
    if document.valid { "VALID" } else { "INVALID" }
}

fn setup_line(document: &RunDocument) -> String {
    let setup = &document.setup;
    let stall = match setup.stall.as_str() {
        "" => String::new(),
        stall => format!(", a stall of {stall} put in on purpose"),
    };
    format!(
        "{} loop, arrivals {}, {}-byte messages, capacity {}, producers {}, consumers {}, batch {}, wait {}, pinned {}, full: {}{stall}",
        setup.pace,
        setup.arrival,
        setup.payload,
        grouped(setup.capacity as u64),
        setup.producers,
        setup.consumers,
        setup.batch,
        setup.wait,
        setup.pin,
        setup.full
    )
}

fn rate_line(document: &RunDocument) -> String {
    let asked = document.rate_asked.map_or_else(|| "no fixed rate".to_owned(), per_second);
    format!(
        "asked {asked}, achieved {}, {} messages in {} runs, {} dropped",
        per_second(document.rate_achieved),
        grouped(document.latency.count),
        document.runs.len(),
        grouped(document.drops)
    )
}

/// The text that a run prints.
pub fn text(document: &RunDocument) -> String {
    let mut text = format!("{}\n\n", document.environment.headline());
    let _ = writeln!(text, "{}: {}", document.scenario, setup_line(document));
    let _ = writeln!(text, "{}\n", rate_line(document));
    let _ = write!(text, "  {:<28}", HEAD[0]);
    for head in &HEAD[1..] {
        let _ = write!(text, "{head:>10}");
    }
    let _ = writeln!(text, "{:>14}", "count");
    for (name, row) in rows(document) {
        let _ = write!(text, "  {name:<28}");
        for value in row.values() {
            let _ = write!(text, "{:>10}", cell(value));
        }
        let _ = writeln!(text, "{:>14}", grouped(row.count));
    }
    if document.runs.len() > 1 {
        let _ = write!(text, "  {:<28}", "lowest..highest run");
        text.push('\n');
        for (index, head) in HEAD[1..].iter().enumerate() {
            let values: Vec<f64> =
                document.runs.iter().filter_map(|run| run.latency.values()[index]).map(|value| value as f64).collect();
            if let Some(spread) = statistics::spread(&values) {
                let _ = writeln!(
                    text,
                    "    {head:<8} median {:>9}  [{} .. {}]",
                    nanos(spread.median as u64),
                    nanos(spread.min as u64),
                    nanos(spread.max as u64)
                );
            }
        }
    }
    let _ = writeln!(
        text,
        "  the harness itself: {} ns a message on the consumer's side (clock and histogram)",
        document.harness_ns
    );
    if document.environment.profile == "debug" {
        text.push_str("\nThis is a debug build: its figures mean nothing. Build with --release.\n");
    }
    let _ = writeln!(text, "\n{}: {}", verdict(document), document.reason);
    if let Some(closed) = &document.closed {
        let _ = writeln!(text, "closed loop {}: {}", verdict(closed), closed.reason);
    }
    let _ = writeln!(text, "{}", document.command);
    text
}

fn csv(document: &RunDocument) -> String {
    let titles = ["run", "loop", "count", "p50", "p90", "p99", "p999", "p9999", "max", "rate_achieved", "valid"];
    let pace = document.setup.pace.as_str();
    let runs = document.runs.iter().zip(1..);
    let runs = runs.map(|(run, number)| (number.to_string(), pace, run.latency, run.rate_achieved, run.valid));
    let all = |it: &RunDocument, pace| ("all".to_owned(), pace, it.latency, it.rate_achieved, it.valid);
    let closed = document.closed.as_deref().map(|closed| all(closed, "closed"));
    let hiccup = ("hiccup".to_owned(), "-", document.hiccup, 0.0, true);
    output::csv(&titles, runs.chain([all(document, pace)]).chain(closed).chain([hiccup]))
}

/// Nanoseconds as an axis shows them: without zeros at the end.
pub fn tick(value: f64) -> String {
    nanos(value.round() as u64).replace(".00", "").replace(".0 ", " ")
}

/// The charts of a run, with their names.
fn charts(document: &RunDocument) -> Vec<(&'static str, String)> {
    vec![
        ("percentiles", percentile_chart(document)),
        ("timeline", timeline_chart(document)),
        ("hiccups", hiccup_chart(document)),
        ("runs", runs_chart(document)),
    ]
}

fn percentile_chart(document: &RunDocument) -> String {
    let points = |plot: &[(f64, u64)]| -> Vec<(f64, f64)> {
        plot.iter().map(|(quantile, value)| (1.0 / (1.0 - quantile), *value as f64)).collect()
    };
    let mut series = vec![Series {
        name: if document.setup.pace == "closed" { "closed loop" } else { "latency" }.to_owned(),
        colour: 0,
        mark: Mark::Line,
        points: points(&document.plot),
    }];
    if let Some(closed) = &document.closed {
        series.push(Series {
            name: "closed loop: hides waiting".to_owned(),
            colour: 1,
            mark: Mark::Line,
            points: points(&closed.plot),
        });
    }
    series.push(Series {
        name: "hiccup, no ring at all".to_owned(),
        colour: 2,
        mark: Mark::Dashed,
        points: points(&document.hiccup_plot),
    });
    // A hiccup of 0 would stretch the axis down to a nanosecond and compress the curves of the messages.
    if let Some((hiccups, messages)) = series.split_last_mut() {
        let values = messages.iter().flat_map(|series| &series.points).map(|point| point.1);
        let low = values.reduce(f64::min).unwrap_or(50.0);
        hiccups.points.iter_mut().for_each(|point| point.1 = point.1.max(low));
    }
    let all = || series.iter().flat_map(|series| series.points.iter());
    let mut x = Axis::over("percentile", Scale::Log, all().map(|point| point.0), |value| {
        let nines = value.log10().round() as usize;
        match nines {
            0 => "0 %".to_owned(),
            1 => "90 %".to_owned(),
            2 => "99 %".to_owned(),
            more => format!("99.{} %", "9".repeat(more - 2)),
        }
    });
    // Only the ticks at whole nines are kept: 0 %, 90 %, 99 % and so on.
    x.ticks.retain(|(value, _)| (value.log10() - value.log10().round()).abs() < 1e-6);
    let y = Axis::over("latency", Scale::Log, all().map(|point| point.1), tick);
    Chart {
        title: "Latency by percentile".to_owned(),
        note: format!("{}; {}", rate_line(document), document.setup.pace.clone() + " loop"),
        height: 420.0,
        x,
        y,
        series,
    }
    .svg()
}

fn over_time(title: &str, note: &str, points: &[(f64, u64)], range: (f64, f64), colour: usize, seconds: f64) -> String {
    let points: Vec<(f64, f64)> = points.iter().map(|(at, value)| (*at, *value as f64)).collect();
    let mut x = Axis::over("seconds", Scale::Linear, [0.0, seconds].into_iter(), |value| {
        format!("{:.3}", value).trim_end_matches('0').trim_end_matches('.').to_owned()
    });
    x.range.1 = x.range.1.min(seconds.max(1e-6));
    x.ticks.retain(|(value, _)| *value <= x.range.1 * 1.001);
    let y = Axis::over("worst of each slice", Scale::Log, [range.0, range.1].into_iter(), tick);
    Chart {
        title: title.to_owned(),
        note: note.to_owned(),
        height: 280.0,
        x,
        y,
        series: vec![Series { name: String::new(), colour, mark: Mark::Area, points }],
    }
    .svg()
}

/// The range of the vertical axis, in nanoseconds. Both timelines have the same, so that they can be compared.
fn worst_range(document: &RunDocument) -> (f64, f64) {
    let values = document.timeline.iter().chain(&document.hiccup_timeline).map(|point| point.1);
    let low = values.clone().min().unwrap_or(10);
    // A slice with a latency near 0 would stretch the axis down to a nanosecond.
    (low.max(50) as f64, values.max().unwrap_or(1_000) as f64)
}

fn timeline_chart(document: &RunDocument) -> String {
    over_time(
        "Maximum over time, first run",
        "the worst latency of the messages that were meant to be sent in each slice",
        &document.timeline,
        worst_range(document),
        0,
        document.setup.seconds,
    )
}

fn hiccup_chart(document: &RunDocument) -> String {
    over_time(
        "Hiccups of the same cores, no ring at all",
        "what the machine alone does to a schedule, measured just before; same scale",
        &document.hiccup_timeline,
        worst_range(document),
        2,
        document.setup.seconds,
    )
}

fn runs_chart(document: &RunDocument) -> String {
    let kinds = [("p50", 0, 0), ("p99", 2, 1), ("p99.9", 3, 3), ("max", 5, 4)];
    let series: Vec<Series> = kinds
        .into_iter()
        .map(|(name, index, colour)| Series {
            name: name.to_owned(),
            colour,
            mark: Mark::Dots,
            points: document
                .runs
                .iter()
                .enumerate()
                .filter_map(|(run, one)| one.latency.values()[index].map(|value| (run as f64 + 1.0, value as f64)))
                .collect(),
        })
        .filter(|series| !series.points.is_empty())
        .collect();
    let count = document.runs.len();
    let x = Axis {
        label: "run".to_owned(),
        scale: Scale::Linear,
        range: (0.5, count as f64 + 0.5),
        ticks: (1..=count).map(|run| (run as f64, run.to_string())).collect(),
    };
    let values = series.iter().flat_map(|series| series.points.iter()).map(|point| point.1);
    let y = Axis::over("latency", Scale::Log, values, tick);
    Chart {
        title: "Run by run".to_owned(),
        note: "how far apart runs of the same thing are".to_owned(),
        height: 300.0,
        x,
        y,
        series,
    }
    .svg()
}

fn page(document: &RunDocument) -> String {
    let mut page =
        Page::new(&format!("{}: latency", document.scenario), &document.environment.headline().replace('\n', " | "));
    page.verdict(&document.environment, document.valid, verdict(document), &document.reason);
    if let Some(closed) = &document.closed {
        let word = format!("CLOSED LOOP {}", verdict(closed));
        page.verdict(&document.environment, closed.valid, &word, &closed.reason);
    }
    page.text(&setup_line(document));
    page.text(&rate_line(document));
    let table: Vec<(String, Vec<String>)> = rows(document)
        .into_iter()
        .enumerate()
        .map(|(index, (name, row))| {
            let mut cells = vec![plot::escape(&name)];
            cells.extend(row.values().into_iter().map(cell));
            cells.push(grouped(row.count));
            (if index == 0 { "ours" } else { "" }.to_owned(), cells)
        })
        .collect();
    let head: Vec<String> = HEAD.iter().copied().chain(["count"]).map(str::to_owned).collect();
    page.table(&head, &table);
    page.text("n/a: fewer than 100 messages are behind that percentile.");
    for (_, chart) in charts(document) {
        page.figure(&chart);
    }
    page.heading("How to read this");
    page.text(
        "In open loop each message has an intended time, and its latency counts from there, so that a stall is seen by every \
         message that had to wait for it. In closed loop the producer waits for the consumer, sends less while that one stands \
         still, and so hides the waiting. The hiccups are the same schedule with no ring on the same cores: no ring can be \
         better than that.",
    );
    page.text(&format!(
        "The harness itself costs {} ns a message on the consumer's side (reading the clock, recording).",
        document.harness_ns
    ));
    page.origin(&document.environment, &document.command);
    page.finish()
}
