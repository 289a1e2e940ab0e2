//! `growth`: how costs grow with the number of topics, partitions, members, groups, segments.

mod bound;
mod cost;
mod document;
mod graph;
mod groups;
mod journal;
mod lookups;
mod queues;
mod render;
mod row;
mod tasks;
mod waiting;

use std::time::{Duration, Instant};

use clap::Args;

pub use self::document::GrowthDocument;
use self::document::Line;
pub use self::render::write;
use self::row::{Row, Verdict};
use crate::cli::OutputArgs;
use crate::environment::{Environment, command_line};
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Progress;
use crate::system::thread_time;

/// What `--help` says first.
pub const HELP: &str = "Measure how costs grow, in steps of four.\n\n\
    Each row sets up n things and counts what one more call costs: wake-ups, bytes, syncs, files, or else the processor\n\
    time of the thread, which does not count what other programs do. The exponent is the slope of log cost over log n: 0 is\n\
    constant, 1 linear. A row that is worse than its bound is measured three times; if it stays so, the exit code is 1.";

/// Options of `growth`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = list())]
pub struct GrowthArgs {
    /// The rows to measure; without one, all
    #[arg(value_parser = known)]
    pub rows: Vec<String>,
    /// Small sizes: all rows in a minute
    #[arg(long)]
    pub quick: bool,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How often a row is measured before it counts as worse than its bounds.
const ATTEMPTS: usize = 3;
/// The most time for a size: one that is expected to take longer is left out, with the larger ones.
const PATIENCE: Duration = Duration::from_secs(20);

/// All rows. Those that measure resident memory are the first: they would use memory again that other rows have freed,
/// and seem to need less.
fn rows() -> impl Iterator<Item = &'static Row> {
    let all = [queues::ROWS, groups::ROWS, graph::ROWS, journal::ROWS, tasks::ROWS, waiting::ROWS, lookups::ROWS];
    all.into_iter().flatten()
}

fn known(name: &str) -> Result<String, String> {
    if rows().any(|row| row.name == name) {
        return Ok(name.to_owned());
    }
    Err(format!("growth measures {}", rows().map(|row| row.name).collect::<Vec<_>>().join(", ")))
}

/// The rows as the help lists them.
fn list() -> String {
    let lines: Vec<String> = rows().map(|row| format!("  {:<18}{}, by {}", row.name, row.cost, row.of)).collect();
    format!("Rows:\n{}", lines.join("\n"))
}

/// Runs `growth`.
///
/// # Errors
///
/// [`Failure`]: a row is worse than its bounds, the engine refused, or files.
pub fn command(arguments: &GrowthArgs) -> Result<(), Failure> {
    let environment = Environment::capture();
    let progress = Progress::new();
    let wanted = |row: &&Row| arguments.rows.is_empty() || arguments.rows.iter().any(|name| name == row.name);
    let chosen: Vec<&Row> = rows().filter(wanted).collect();
    progress.begin(chosen.len() as u64);
    let mut document =
        GrowthDocument { version: 1, environment, command: command_line(), rows: Vec::with_capacity(chosen.len()) };
    for row in chosen {
        progress.step(row.name);
        let line = measure(row, if arguments.quick { row.quick } else { row.full })
            .map_err(|failure| Failure::Invalid(format!("{}: {failure}", row.name)))?;
        progress.print(&format!("{}: {}", row.name, line.summary()));
        document.rows.push(line);
    }
    progress.end();
    let mut output = Output::new(&arguments.output, "growth");
    write(&document, &mut output)?;
    output.announce();
    if document.worse().next().is_some() { Err(Failure::Regression(document.verdict_line())) } else { Ok(()) }
}

/// Measures a row until it keeps a bound, at most [`ATTEMPTS`] times, and returns the best line: other work on the
/// machine makes a cost larger, never smaller.
fn measure(row: &Row, sizes: &[usize]) -> Result<Line, Failure> {
    let mut best: Option<Line> = None;
    for _ in 0..ATTEMPTS {
        let line = Line::new(row, &costs(row, sizes)?);
        let verdict = line.verdict;
        if best.as_ref().is_none_or(|best| (verdict, line.exponent) < (best.verdict, best.exponent)) {
            best = Some(line);
        }
        if verdict < Verdict::Worse {
            break;
        }
    }
    best.ok_or_else(|| Failure::Invalid(format!("{} was not measured", row.name)))
}

/// The cost at each size, as (n, cost), up to the last size that is not [too long](is_too_long).
fn costs(row: &Row, sizes: &[usize]) -> Result<Vec<(f64, f64)>, Failure> {
    let mut points = Vec::new();
    let mut before = None;
    for size in sizes {
        let (begun, spent) = (Instant::now(), thread_time()?);
        points.push((*size as f64, (row.measure)(*size)?));
        let spent = thread_time()? - spent;
        if begun.elapsed() > PATIENCE || is_too_long(before, spent) {
            break;
        }
        before = Some(spent);
    }
    Ok(points)
}

/// True if the next size is expected to take longer than [`PATIENCE`]: the processor time of the `last` size, times its
/// growth since the size `before`. `None` counts as no growth.
fn is_too_long(before: Option<Duration>, last: Duration) -> bool {
    let last = last.as_secs_f64();
    let growth = before.map_or(1.0, |before| (last / before.as_secs_f64().max(1e-6)).max(1.0));
    last * growth > PATIENCE.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn sizes_go_in_steps_of_four_and_names_are_unique() {
        let mut names = BTreeSet::new();
        for row in rows() {
            assert!(names.insert(row.name), "{} stands twice", row.name);
            for sizes in [row.quick, row.full] {
                assert!(!sizes.is_empty() && sizes.windows(2).all(|pair| pair[1] == 4 * pair[0]), "{}", row.name);
            }
        }
    }

    #[test]
    fn a_row_known_to_be_worse_may_do_more_than_its_target() {
        for row in rows() {
            let Some(today) = row.today else { continue };
            let sizes: Vec<f64> = row.quick.iter().map(|n| *n as f64).collect();
            match (row.target, today) {
                (bound::Bound::AtMost(target), bound::Bound::AtMost(today)) => assert!(target < today, "{}", row.name),
                (target, today) => assert!(target.exponent(&sizes) < today.exponent(&sizes), "{}", row.name),
            }
        }
    }

    #[test]
    fn a_size_that_would_take_too_long_is_left_out() {
        let millis = Duration::from_millis;
        assert!(!is_too_long(None, millis(5_000)));
        assert!(is_too_long(None, millis(21_000)));
        // Linear: 4 times as long. Exponential: 2^12 times.
        assert!(!is_too_long(Some(millis(1_000)), millis(4_000)));
        assert!(is_too_long(Some(Duration::from_micros(10)), millis(41)));
    }
}
